"""The chain: hooks in the order of the configuration, and what they decide together about one message.

Judging is synchronous.  A hook that has to ask somebody stops the chain with a :class:`Pending`, which the caller
awaits and resumes; nothing here awaits, sleeps or reads a clock.

The chain fails closed: a hook that raises, returns something that is no verdict, or gives none in time blocks the
message.  In mode ``shadow`` none of that touches the message: what the hook would have done becomes a finding.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal, cast

from ..protocol.errors import Refusal
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind
from .hook import PASS, AsyncHook, Block, Drop, Exchange, Hold, Pass, Replace, Verdict
from .link import Link, checked, failure, note_shadow, released, scratch
from .windows import InTurn, Unchanged, Windows

__all__ = ["Chain", "Decision", "Held", "Outcome", "Pending", "Streamed"]

Decision = Literal["pass", "replace", "drop", "block", "hold"]

# Selections that are remembered for each side.  Peers choose the method names, so the number is bounded.
_MEMORY = 512

_CLIENT: Final = Sender.CLIENT


class Outcome:
    """What the chain decided.

    ``message``  what to send; None when it is withheld
    ``changed``  whether ``message`` is another one than was judged
    ``decision`` ``pass``, ``replace``, ``drop``, ``block`` or ``hold``
    ``error``    what to answer the request with, for ``block``
    ``hook``     the name of the hook that decided; None for ``pass``, the last one that changed it for ``replace``
    ``reason``   the slug of the error, or the reason of the Drop; None otherwise
    ``ends``     whether nothing more of the stream may pass
    ``held``     for ``hold``: what goes on with the message when its time has come
    """

    # One is made for each message: no dataclass, whose making is not compiled.
    __slots__ = ("changed", "decision", "ends", "error", "held", "hook", "message", "reason")

    def __init__(
        self,
        message: Message | None,
        changed: bool = False,
        decision: Decision = "pass",
        error: Refusal | None = None,
        hook: str | None = None,
        reason: str | None = None,
        ends: bool = False,
        held: Held | None = None,
    ) -> None:
        self.message = message
        self.changed = changed
        self.decision: Decision = decision
        self.error = error
        self.hook = hook
        self.reason = reason
        self.ends = ends
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self._all() == other._all()

    def _all(self) -> tuple[object, ...]:
        return (
            self.message, self.changed, self.decision, self.error, self.hook, self.reason, self.ends, self.held,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Outcome {self.decision} {self.message!r} hook={self.hook} reason={self.reason}>"


class _Paused:
    """A chain that goes on later, with the verdict of the hook that it has come to."""

    __slots__ = ("_chain", "_exchange", "_links", "_message", "_outcome", "_position")

    def __init__(
        self,
        chain: Chain,
        links: tuple[Link, ...],
        position: int,
        outcome: Outcome,
        message: Message,
        exchange: Exchange,
    ) -> None:
        self._chain = chain
        self._links = links
        self._position = position
        self._outcome = outcome
        self._message = message
        self._exchange = exchange

    @property
    def _link(self) -> Link:
        return self._links[self._position]

    def _go_on(self, verdict: Verdict, seen_by: Exchange) -> Outcome | Pending:
        if self._chain._apply(self._link, verdict, self._message, self._exchange, seen_by, self._outcome):
            return self._outcome
        message = cast("Message", self._outcome.message)
        return self._chain._run(self._links, self._position + 1, self._outcome, message, self._exchange)


class Pending(_Paused):
    """A chain that waits for the verdict of an async hook.

    Await ``awaitable()`` for at most ``timeout`` seconds, then call ``resume`` with what it returned or ``fail`` with
    what it raised; a timeout is a ``TimeoutError``.  Exactly one of the two, once.
    """

    __slots__ = ("_scratch", "hook", "timeout")

    def __init__(
        self,
        chain: Chain,
        links: tuple[Link, ...],
        position: int,
        outcome: Outcome,
        message: Message,
        exchange: Exchange,
    ) -> None:
        super().__init__(chain, links, position, outcome, message, exchange)
        link = self._link
        self._scratch = scratch(exchange) if link.shadow else exchange
        self.hook = link.name
        self.timeout = cast("float", link.timeout)

    def awaitable(self) -> Awaitable[Verdict]:
        """What to await."""
        hook = cast("AsyncHook", self._link.hook)
        return hook.on_message(self._message, self._scratch)

    def resume(self, verdict: Verdict) -> Outcome | Pending:
        """Goes on with the hook's verdict."""
        return self._go_on(verdict, self._scratch)

    def fail(self, exception: BaseException) -> Outcome | Pending:
        """Goes on without a verdict: blocks the message, unless the hook is only in the shadow."""
        return self.resume(failure(self._link, exception))


class Held(_Paused):
    """A message that a hook holds back, and the rest of the chain, which it still has before it."""

    __slots__ = ("_hold",)

    def __init__(
        self,
        chain: Chain,
        links: tuple[Link, ...],
        position: int,
        outcome: Outcome,
        message: Message,
        exchange: Exchange,
        hold: Hold,
    ) -> None:
        super().__init__(chain, links, position, outcome, message, exchange)
        self._hold = hold

    @property
    def until(self) -> float:
        """When it has to go, in monotonic seconds; the hook may change it."""
        return self._hold.until

    def release(self) -> Outcome | Pending:
        """Lets it go: the verdict of the hook that held it, and of those behind.  Once.  Never raises."""
        return self._go_on(released(self._link, self._hold), self._exchange)


class Streamed:
    """The hooks that judge one answer while it streams: ``contents`` is who looks at the contents."""

    __slots__ = ("_chain", "_links", "contents")

    def __init__(self, chain: Chain, links: tuple[Link, ...], contents: Windows) -> None:
        self._chain = chain
        self._links = links
        self.contents = contents

    def judge(self, outline: Message, exchange: Exchange) -> Outcome:
        """What the other hooks say of the answer, by its outline.  Never raises."""
        outcome = self._chain._run(self._links, 0, Outcome(outline), outline, exchange)
        assert isinstance(outcome, Outcome)
        return outcome


class _Selection:
    """Hooks, and what to call where none of them asks or is in the shadow."""

    __slots__ = ("judges", "links")

    def __init__(self, links: tuple[Link, ...]) -> None:
        self.links = links
        self.judges: list[Callable[[Message, Exchange], Any]] | None = None
        if not any(link.shadow or link.timeout is not None for link in links):
            self.judges = [link.judge for link in links]


class Chain:
    """The hooks of one upstream, in order."""

    __slots__ = ("_links", "_of_clients", "_of_servers")

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self._links = tuple(links)
        # By method; a dict of pairs would hash each time.
        self._of_clients: dict[str | None, _Selection] = {}
        self._of_servers: dict[str | None, _Selection] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What runs, in order, for people: ``policy``, ``sanitize (shadow)``."""
        return tuple(map(str, self._links))

    @property
    def modes(self) -> tuple[tuple[str, str], ...]:
        """Name and mode (``enforce`` or ``shadow``) of what runs, in order, for metrics."""
        return tuple((link.name, "shadow" if link.shadow else "enforce") for link in self._links)

    @property
    def asks(self) -> bool:
        """Whether a hook has to ask somebody, so that ``judge`` may return a Pending."""
        return any(link.timeout is not None for link in self._links)

    def judge(self, message: Message, exchange: Exchange) -> Outcome | Pending:
        """Puts the message before the hooks that want it.  Never raises."""
        selection = self._select(message.sender, message.method)
        judges = selection.judges
        if judges is None:
            return self._run(selection.links, 0, Outcome(message), message, exchange)
        # As ``_run``, for what nearly every message is: one that each hook lets pass.
        position = 0
        try:
            for judge in judges:
                verdict = judge(message, exchange)
                if verdict is not PASS:
                    break
                position += 1
            else:
                return Outcome(message)
        except Exception as error:
            verdict = failure(selection.links[position], error)
        outcome = Outcome(message)
        ended = self._settle(selection.links, position, verdict, outcome, message, exchange, exchange)
        return ended or self._run(selection.links, position + 1, outcome, cast("Message", outcome.message), exchange)

    def windows(self, message: Message, exchange: Exchange) -> Streamed | None:
        """How an answer is judged that is too large to hold, of which the envelope is known; None where a hook has to
        see the whole of it.  See ``windows``.  Never raises."""
        asked: list[Link] = []
        judges: list[Windows] = []
        for link in self._select(message.sender, message.method).links:
            begin = getattr(link.hook, "windows", None)
            if link.shadow or link.timeout is not None or begin is None:
                return None
            try:
                windows = begin(message, exchange)
            except Exception as error:
                failure(link, error)
                return None
            if windows is None:
                return None
            if windows is PASS:
                asked.append(link)
            else:
                judges.append(windows)
        contents = judges[0] if len(judges) == 1 else InTurn(judges) if judges else Unchanged()
        return Streamed(self, tuple(asked), contents)

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

    def _select(self, sender: Sender, method: str | None) -> _Selection:
        known = self._of_clients if sender is _CLIENT else self._of_servers
        selection = known.get(method)
        if selection is None:
            selection = _Selection(tuple(link for link in self._links if link.selects(sender, method)))
            if method is None or len(method) <= 128:
                if len(known) >= _MEMORY:
                    known.clear()
                known[method] = selection
        return selection

    def _run(
        self, links: tuple[Link, ...], position: int, outcome: Outcome, message: Message, exchange: Exchange
    ) -> Outcome | Pending:
        while position < len(links):
            link = links[position]
            if link.timeout is not None:
                return Pending(self, links, position, outcome, message, exchange)
            seen_by = scratch(exchange) if link.shadow else exchange
            try:
                verdict = link.judge(message, seen_by)
            except Exception as error:
                verdict = failure(link, error)
            if verdict is not PASS or link.shadow:
                ended = self._settle(links, position, verdict, outcome, message, exchange, seen_by)
                if ended is not None:
                    return ended
                message = cast("Message", outcome.message)
            position += 1
        return outcome

    def _settle(
        self,
        links: tuple[Link, ...],
        position: int,
        verdict: Any,
        outcome: Outcome,
        message: Message,
        exchange: Exchange,
        seen_by: Exchange,
    ) -> Outcome | None:
        """What becomes of the message by this verdict, or None when the next hook is asked."""
        link = links[position]
        if isinstance(verdict, Hold):
            if link.shadow:
                # Nothing waits for a hook in the shadow.
                verdict = released(link, verdict)
            elif message.kind is Kind.NOTIFICATION and message.sender is Sender.SERVER:
                held = Held(self, links, position, outcome, message, exchange, verdict)
                return Outcome(None, decision="hold", hook=link.name, held=held)
        return outcome if self._apply(link, verdict, message, exchange, seen_by, outcome) else None

    def _apply(
        self, link: Link, verdict: Any, message: Message, exchange: Exchange, seen_by: Exchange, outcome: Outcome
    ) -> bool:
        """Writes the verdict into the outcome; True when the message goes no further."""
        verdict = checked(link, verdict, message)
        if link.shadow:
            note_shadow(link, verdict, exchange, seen_by)
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
            assert isinstance(verdict, Block)
            outcome.decision = "block"
            outcome.error = verdict.error
            outcome.reason = verdict.error.reason
            outcome.ends = verdict.ends
        return True

    def __repr__(self) -> str:
        return f"<Chain {', '.join(self.names) or 'empty'}>"
