"""One hook in its place in a chain, and what its verdicts count as there.

What breaks the rules of the interface - an exception, no verdict, another envelope - is a Block.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..protocol.errors import ContentBlocked, HookFailed, Refusal
from ..protocol.message import Message, Sender
from ..wire.envelope import Envelope, Kind, classify
from ..wire.errors import EnvelopeError
from .glob import Globs
from .hook import AsyncHook, Block, Drop, Exchange, Finding, Hold, Hook, Pass, Replace, Verdict

__all__ = ["Link", "checked", "failure", "note_shadow", "released", "scratch"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
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
        """Whether the hook wants a message of this sender and method."""
        # A method that is no plain name, or none at all (an error that answers nothing known), is still a message: a
        # hook that wants every method wants it too.
        return sender in self.senders and (self.every or method in self.methods)

    def __str__(self) -> str:
        return f"{self.name} (shadow)" if self.shadow else self.name


def checked(link: Link, verdict: Any, message: Message) -> Verdict:
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
    if isinstance(verdict, Hold):
        return _misuse(link, "it may hold a notification of the server's, once, and nothing else")
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
    own = Envelope(message.kind, message.id, own_method)
    return envelope == own and type(envelope.id) is type(message.id)


def _misuse(link: Link, what: str) -> Block:
    _log.error("hook %s failed: %s", link.name, what)
    return Block(HookFailed(f"hook {link.name!r} failed; the message was withheld", key="hooks"))


def failure(link: Link, error: BaseException) -> Block:
    """What an exception of the hook counts as; it is logged."""
    if isinstance(error, TimeoutError) and link.timeout is not None:
        _log.error("hook %s gave no verdict within %g s", link.name, link.timeout)
        message = f"hook {link.name!r} gave no verdict in time; the message was withheld"
        return Block(HookFailed(message, reason="hook-timeout", key="hooks"))
    # The exception's own text may quote the message (KeyError: 'hunter2'), so only its type and the frames are logged.
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("hook %s raised %s\n%s", link.name, type(error).__qualname__, frames)
    return Block(HookFailed(f"hook {link.name!r} failed; the message was withheld", key="hooks"))


def released(link: Link, hold: Hold) -> Any:
    """What the hook says of a message that it held."""
    try:
        return hold.release()
    except Exception as error:
        return failure(link, error)


def scratch(exchange: Exchange) -> Exchange:
    """The exchange as a hook in the shadow sees it: its findings are kept apart."""
    return exchange.apart()


def note_shadow(link: Link, verdict: Verdict, exchange: Exchange, seen_by: Exchange) -> None:
    """Records what a hook in the shadow would have done, and what it noted."""
    for finding in seen_by.findings:
        exchange.note(dataclasses.replace(finding, action="shadow-" + finding.action))
    if isinstance(verdict, Block):
        exchange.note(Finding(link.name, verdict.error.reason, "shadow-block", ""))
    elif isinstance(verdict, Drop):
        exchange.note(Finding(link.name, verdict.reason, "shadow-drop", ""))
    elif isinstance(verdict, Replace):
        exchange.note(Finding(link.name, "replace", "shadow-replace", ""))
