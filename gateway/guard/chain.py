"""The chain: hooks in the order of the configuration, and what they decide together about one message.

Judging is synchronous.  A hook that has to ask somebody stops the chain with a :class:`Pending`, which the caller
awaits and resumes; nothing here awaits, sleeps or reads a clock.

The chain fails closed: a hook that raises, returns something that is no verdict, or gives none in time blocks the
message.  In mode ``shadow`` none of that touches the message: what the hook would have done becomes a finding.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from ..protocol.errors import ContentBlocked, HookFailed, Refusal
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind, classify
from ..wire.errors import EnvelopeError
from .glob import GlobError, Globs
from .hook import PASS, AsyncHook, Block, Drop, Exchange, Finding, Hook, Pass, Replace, Verdict

if TYPE_CHECKING:
    from ..config import HookEntry

__all__ = ["BUILT_IN", "Chain", "Decision", "HookConfigError", "Outcome", "Pending", "build"]

_log = logging.getLogger(__name__)

# The hooks that come with the gateway, by the name that a configuration uses.
BUILT_IN = {
    "arguments": "gateway.guard.arguments:ArgumentsHook",
    "injection": "gateway.guard.injection:InjectionHook",
    "pins": "gateway.guard.pins:PinsHook",
    "policy": "gateway.guard.policy:PolicyHook",
    "sanitize": "gateway.guard.sanitize:SanitizeHook",
}

Decision = Literal["pass", "replace", "drop", "block"]

# Selections that are remembered.  A client chooses the method names, so the number is bounded.
_MEMORY = 1024


class HookConfigError(ValueError):
    """A hook of the configuration that cannot be loaded.

    ``key``     the configuration key, such as ``hooks.1.options``
    ``message`` what is wrong and what was expected
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


@dataclass(slots=True)
class Outcome:
    """What the chain decided.

    ``message``  what to send; None when it is withheld
    ``changed``  whether ``message`` is another one than was judged
    ``decision`` ``pass``, ``replace``, ``drop`` or ``block``
    ``error``    what to answer the request with, for ``block``
    ``hook``     the name of the hook that decided; None for ``pass``, the last one that changed it for ``replace``
    ``reason``   the slug of the error, or the reason of the Drop; None otherwise
    """

    message: Message | None
    changed: bool = False
    decision: Decision = "pass"
    error: Refusal | None = None
    hook: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Link:
    """One hook as the configuration places it.  ``timeout`` in seconds, None for a synchronous hook."""

    name: str
    hook: Hook | AsyncHook
    judge: Callable[[Message, Exchange], Any]
    senders: frozenset[Sender]
    methods: Globs
    every: bool
    shadow: bool
    timeout: float | None

    def selects(self, sender: Sender, method: str | None) -> bool:
        # A method that is no plain name, or none at all (an error that answers nothing known), is still a message: a
        # hook that wants every method wants it too.
        return sender in self.senders and (self.every or method in self.methods)

    def __str__(self) -> str:
        return f"{self.name} (shadow)" if self.shadow else self.name


class Pending:
    """A chain that waits for the verdict of an async hook.

    Await ``awaitable()`` for at most ``timeout`` seconds, then call ``resume`` with what it returned or ``fail`` with
    what it raised; a timeout is a ``TimeoutError``.  Exactly one of the two, once.
    """

    __slots__ = ("_chain", "_exchange", "_links", "_message", "_outcome", "_position", "_scratch", "hook", "timeout")

    def __init__(
        self,
        chain: Chain,
        links: tuple[_Link, ...],
        position: int,
        outcome: Outcome,
        message: Message,
        exchange: Exchange,
    ) -> None:
        link = links[position]
        self._chain = chain
        self._links = links
        self._position = position
        self._outcome = outcome
        self._message = message
        self._exchange = exchange
        self._scratch = _scratch(exchange) if link.shadow else exchange
        self.hook = link.name
        self.timeout = cast("float", link.timeout)

    def awaitable(self) -> Awaitable[Verdict]:
        """What to await."""
        hook = cast("AsyncHook", self._links[self._position].hook)
        return hook.on_message(self._message, self._scratch)

    def resume(self, verdict: Verdict) -> Outcome | Pending:
        """Goes on with the hook's verdict."""
        link = self._links[self._position]
        ended = self._chain._apply(link, verdict, self._message, self._exchange, self._scratch, self._outcome)
        if ended:
            return self._outcome
        message = cast("Message", self._outcome.message)
        return self._chain._run(self._links, self._position + 1, self._outcome, message, self._exchange)

    def fail(self, exception: BaseException) -> Outcome | Pending:
        """Goes on without a verdict: blocks the message, unless the hook is only in the shadow."""
        link = self._links[self._position]
        verdict = _failure(link, exception)
        return self.resume(verdict)


class Chain:
    """The hooks of one upstream, in order."""

    __slots__ = ("_links", "_selected")

    def __init__(self, links: Iterable[_Link] = ()) -> None:
        self._links = tuple(links)
        self._selected: dict[tuple[Sender, str | None], tuple[_Link, ...]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What runs, in order, for people: ``policy``, ``sanitize (shadow)``."""
        return tuple(map(str, self._links))

    @property
    def modes(self) -> tuple[tuple[str, str], ...]:
        """Name and mode (``enforce`` or ``shadow``) of what runs, in order, for metrics."""
        return tuple((link.name, "shadow" if link.shadow else "enforce") for link in self._links)

    def judge(self, message: Message, exchange: Exchange) -> Outcome | Pending:
        """Puts the message before the hooks that want it.  Never raises."""
        key = (message.sender, message.method)
        links = self._selected.get(key)
        if links is None:
            links = self._select(*key)
        return self._run(links, 0, Outcome(message), message, exchange)

    def judge_envelope(self, message: Message, exchange: Exchange) -> Refusal | None:
        """Judges a request of which only the method and what it names are known yet, before the rest has arrived.

        Asks the hooks whose verdict on a request depends on nothing else: those with ``judges_envelope = True``.  A
        refusal is final; anything else is asked again of the whole message.  Never raises.
        """
        for link in self._links:
            if link.shadow or link.timeout is not None or not getattr(link.hook, "judges_envelope", False):
                continue
            if link.selects(message.sender, message.method):
                outcome = self._run((link,), 0, Outcome(message), message, exchange)
                if isinstance(outcome, Outcome) and outcome.error is not None:
                    return outcome.error
        return None

    def _select(self, sender: Sender, method: str | None) -> tuple[_Link, ...]:
        links = tuple(link for link in self._links if link.selects(sender, method))
        if method is None or len(method) <= 128:
            if len(self._selected) >= _MEMORY:
                self._selected.clear()
            self._selected[sender, method] = links
        return links

    def _run(
        self, links: tuple[_Link, ...], position: int, outcome: Outcome, message: Message, exchange: Exchange
    ) -> Outcome | Pending:
        while position < len(links):
            link = links[position]
            if link.timeout is not None:
                return Pending(self, links, position, outcome, message, exchange)
            seen_by = _scratch(exchange) if link.shadow else exchange
            try:
                verdict = link.judge(message, seen_by)
            except Exception as error:
                verdict = _failure(link, error)
            if verdict is not PASS or link.shadow:
                if self._apply(link, verdict, message, exchange, seen_by, outcome):
                    return outcome
                message = cast("Message", outcome.message)
            position += 1
        return outcome

    def _apply(
        self, link: _Link, verdict: Any, message: Message, exchange: Exchange, seen_by: Exchange, outcome: Outcome
    ) -> bool:
        """Writes the verdict into the outcome; True when the message goes no further."""
        verdict = _checked(link, verdict, message)
        if link.shadow:
            _note_shadow(link, verdict, exchange, seen_by)
            return False
        if isinstance(verdict, Pass):
            return False
        outcome.hook = link.name
        if isinstance(verdict, Replace):
            if verdict.message.document is not message.document:
                # The envelope, the sender and the call stay the gateway's own; only the contents are the hook's.
                outcome.message = message.with_document(verdict.message.document)
                outcome.changed = True
                outcome.decision = "replace"
            return False
        outcome.message = None
        outcome.changed = False
        if isinstance(verdict, Drop):
            outcome.decision = "drop"
            outcome.reason = verdict.reason
        else:
            outcome.decision = "block"
            outcome.error = verdict.error
            outcome.reason = verdict.error.reason
        return True

    def __repr__(self) -> str:
        return f"<Chain {', '.join(self.names) or 'empty'}>"


def _checked(link: _Link, verdict: Any, message: Message) -> Verdict:
    """The verdict, or the Block that stands for one that breaks the rules of the interface."""
    if isinstance(verdict, Pass):
        return verdict
    if isinstance(verdict, Block):
        error: object = verdict.error
        if isinstance(error, Refusal):
            return verdict
        return _misuse(link, "its Block does not hold a Refusal")
    if isinstance(verdict, Drop):
        if message.kind is Kind.NOTIFICATION:
            return verdict
        return Block(ContentBlocked(f"hook {link.name!r} withheld this message", reason=verdict.reason, key="hooks"))
    if isinstance(verdict, Replace):
        return verdict if _is_same_envelope(message, verdict.message) else _misuse(link, "it changed the envelope")
    return _misuse(link, f"it returned {type(verdict).__name__}, which is no verdict")


def _is_same_envelope(message: Message, other: Any) -> bool:
    if not isinstance(other, Message):
        return False
    if other.document is message.document:
        return True
    try:
        envelope = classify(other.document)
    except EnvelopeError:
        return False
    own_method = message.method if message.call is None else None
    return envelope == (message.kind, message.id, own_method) and type(envelope.id) is type(message.id)


def _misuse(link: _Link, what: str) -> Block:
    _log.error("hook %s failed: %s", link.name, what)
    return Block(HookFailed(f"hook {link.name!r} failed; the message was withheld", key="hooks"))


def _failure(link: _Link, error: BaseException) -> Block:
    if isinstance(error, TimeoutError) and link.timeout is not None:
        _log.error("hook %s gave no verdict within %g s", link.name, link.timeout)
        message = f"hook {link.name!r} gave no verdict in time; the message was withheld"
        return Block(HookFailed(message, reason="hook-timeout", key="hooks"))
    # The exception's own text may quote the message (KeyError: 'hunter2'), so only its type and the frames are logged.
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("hook %s raised %s\n%s", link.name, type(error).__qualname__, frames)
    return Block(HookFailed(f"hook {link.name!r} failed; the message was withheld", key="hooks"))


def _scratch(exchange: Exchange) -> Exchange:
    return dataclasses.replace(exchange, findings=[])


def _note_shadow(link: _Link, verdict: Verdict, exchange: Exchange, seen_by: Exchange) -> None:
    for finding in seen_by.findings:
        exchange.note(dataclasses.replace(finding, action="shadow-" + finding.action))
    if isinstance(verdict, Block):
        exchange.note(Finding(link.name, verdict.error.reason, "shadow-block", ""))
    elif isinstance(verdict, Drop):
        exchange.note(Finding(link.name, verdict.reason, "shadow-drop", ""))
    elif isinstance(verdict, Replace):
        exchange.note(Finding(link.name, "replace", "shadow-replace", ""))


# -- loading ----------------------------------------------------------------------------------------------------------


def build(entries: Iterable[HookEntry], upstream: str) -> Chain:
    """The chain of an upstream: those entries whose ``upstreams`` patterns match its name.

    Raises HookConfigError for an entry that cannot be loaded.
    """
    links = []
    for index, entry in enumerate(entries):
        key = f"hooks.{index}"
        try:
            if upstream in Globs(entry.upstreams):
                links.append(_load(entry, key))
        except GlobError as error:
            raise HookConfigError(key + ".upstreams", str(error)) from error
    return Chain(links)


def _load(entry: HookEntry, key: str) -> _Link:
    made = _find_class(entry.kind, key + ".kind")
    hook = _instantiate(made, entry, key + ".options")
    judge = getattr(hook, "on_message", None)
    if not callable(judge):
        raise HookConfigError(key + ".kind", f"{entry.kind!r} has no method on_message(message, exchange)")
    is_async = inspect.iscoroutinefunction(judge)
    if is_async and entry.timeout is None:
        raise HookConfigError(
            key + ".timeout", f"{entry.kind!r} is an async hook and needs a timeout, such as 2s: without a verdict in "
            "that time the message is blocked"
        )  # fmt: skip
    try:
        methods = Globs(entry.methods)
    except GlobError as error:
        raise HookConfigError(key + ".methods", str(error)) from error
    name = _name(hook, entry, key)
    senders = frozenset(Sender(direction) for direction in entry.directions)
    timeout = entry.timeout if is_async else None
    return _Link(name, hook, judge, senders, methods, "*" in entry.methods, entry.mode == "shadow", timeout)


def _name(hook: Any, entry: HookEntry, key: str) -> str:
    """The name by which the hook is known; one that the configuration gives is the hook's own from then on."""
    own = getattr(hook, "name", None)
    if isinstance(own, str) and own and entry.name == entry.kind:
        return own
    try:
        hook.name = entry.name
    except AttributeError as error:
        raise HookConfigError(key + ".name", f"{entry.kind!r} does not let its name be set") from error
    return entry.name


def _find_class(kind: str, key: str) -> Callable[..., Any]:
    place = BUILT_IN.get(kind, kind)
    module_name, colon, class_name = place.partition(":")
    if not colon:
        near = difflib.get_close_matches(kind, BUILT_IN, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(BUILT_IN))
        raise HookConfigError(key, f"expected a built-in hook ({known}) or package.module:Class, not {kind!r}{hint}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise HookConfigError(key, f"cannot import module {module_name!r}: {type(error).__name__}: {error}") from error
    made = getattr(module, class_name, None)
    if made is None:
        public = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        near = difflib.get_close_matches(class_name, public, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise HookConfigError(key, f"module {module_name!r} has no class {class_name!r}{hint}")
    if not isinstance(made, type):
        raise HookConfigError(key, f"{place!r} is not a class")
    return made


def _instantiate(made: Callable[..., Any], entry: HookEntry, key: str) -> Any:
    options = dict(entry.options)
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        _check_options(signature, options, entry.kind, key)
    try:
        return made(**options)
    except Exception as error:
        raise HookConfigError(key, f"{entry.kind!r} did not start: {str(error) or type(error).__name__}") from error


def _check_options(signature: inspect.Signature, options: dict[str, Any], kind: str, key: str) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise HookConfigError(
                f"{key}.{name}", f"{kind!r} takes {', '.join(known) or 'no options'}, not {name!r}{hint}"
            )
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in options:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                continue
            raise HookConfigError(f"{key}.{parameter.name}", f"{kind!r} needs the option {parameter.name!r}")
