"""The ``pins`` hook: tools, prompts and instructions reach clients as somebody has approved them, or not at all.

A server can describe a tool in one way when it is looked at and in another when it is trusted ("rug pull").  What was
approved stands in a lock file per upstream, which ``mcpgw pins`` writes; the hook compares each definition that passes
with it.  The files are read when the hook is made, never while messages pass.

A call names a tool and not its definition, so a call is judged by the definition that was seen last.  When a server
says that its list has changed, definitions are in doubt until a list that was asked for after that shows them again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ..protocol.errors import ContentBlocked, PolicyDenied, Refusal
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind
from ..wire.names import fold
from ..wire.strict import dumps
from .hook import PASS, Block, Exchange, Finding, Pass, Replace, Verdict
from .pinning.definition import FAMILIES, INSTRUCTIONS, PROMPT, TOOL, Family
from .pinning.lock import Lock, read_folder
from .pinning.look_alikes import skeleton
from .pinning.scan import FAULTS, TOO_LARGE, Examined, examine

__all__ = ["LOOK_ALIKE", "SAME_NAME", "Mode", "Names", "PinsHook"]

_log = logging.getLogger(__name__)

Mode = Literal["observe", "warn", "enforce"]

LOOK_ALIKE = "look-alike"
SAME_NAME = "same-name"
_LEARNED = "definition-learned"

_LISTS = {"tools/list": TOOL, "prompts/list": PROMPT}
_CALLS = {"tools/call": TOOL, "prompts/get": PROMPT}
_CHANGES = {"notifications/tools/list_changed": TOOL, "notifications/prompts/list_changed": PROMPT}
_OPENINGS = ("initialize", "server/discover")

# What an upstream may make us remember: definitions judged, definitions learned, lines logged.  In all, a few MB.
_MEMORY = 4096
_MAX_LEARNED = 4096
_MAX_LEARNED_NAME = 256


class PinsHook:
    """Withholds definitions that are not in the upstream's lock file.

    ``folder``  where the lock files are, relative to the working directory
    ``mode``    ``enforce`` withholds definitions and refuses calls; ``warn`` lets them pass, records findings and logs
                each once; ``observe`` records findings alone
    ``learn``   whether the definitions of an upstream without a lock file are taken as approved as they are first seen,
                until the gateway stops
    """

    name = "pins"

    def __init__(self, *, folder: Any = "config/pins", mode: Any = "enforce", learn: Any = False) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode: expected {', '.join(get_args(Mode))}, not {mode!r}")
        if type(learn) is not bool:
            raise ValueError("learn: expected true or false")
        self._locks = read_folder(Path(folder))
        self._mode = mode
        self._learn = learn
        self._states: dict[str, _State] = {}
        # A refusal needs the name alone.  Otherwise findings would be recorded twice.
        self.judges_envelope = mode == "enforce"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Compares lists and openings with the lock; judges calls by what was seen."""
        method = message.method or ""
        if message.sender is Sender.CLIENT:
            if message.kind is not Kind.REQUEST:
                return PASS
            if method in _LISTS:
                # Remembered with the exchange: the answer may be older than a change that was announced meanwhile.
                book = self._state(exchange).books[_LISTS[method].word]
                exchange.state.setdefault(self.name, {})[_LISTS[method].word] = book.changes
                return PASS
            family = _CALLS.get(method)
            return PASS if family is None else self._judge_call(family, message.params.get("name"), exchange)
        if message.kind is Kind.RESULT:
            if method in _LISTS:
                return self._judge_list(_LISTS[method], message, exchange)
            return self._judge_opening(message, exchange) if method in _OPENINGS else PASS
        if message.kind is Kind.NOTIFICATION and method in _CHANGES:
            self._state(exchange).books[_CHANGES[method].word].change()
        return PASS

    def windows(self, message: Message, exchange: Exchange) -> Pass | None:
        """Definitions are compared whole; what tools and prompts answer is not looked at."""
        return None if message.method in _LISTS or message.method in _OPENINGS else PASS

    def _state(self, exchange: Exchange) -> _State:
        state = self._states.get(exchange.upstream)
        if state is None:
            # Names of upstreams come from the configuration; a chain has one alone.
            state = self._states[exchange.upstream] = _State(exchange.upstream, self._locks, self._learn)
        return state

    # -- calls --------------------------------------------------------------------------------------------------------

    def _judge_call(self, family: Family, name: Any, exchange: Exchange) -> Verdict:
        book = self._state(exchange).books[family.word]
        if type(name) is str and book.allows(name):
            if book.is_fresh(name):
                return PASS
            refusal: Refusal = PolicyDenied(
                f"the server has changed its {family.listing} since {family.word} {_quote(name)} was last listed: send "
                f"{family.listing}/list again, then repeat the call",
                reason="definition-stale",
                key="hooks",
            )
        else:
            reason = "tool-not-approved" if family is TOOL else "prompt-not-approved"
            refusal = PolicyDenied(
                f"{family.word} {_quote(name)} of upstream {exchange.upstream!r} is not approved, or has changed "
                f"since: see mcpgw pins review {exchange.upstream}",
                reason=reason,
                key="hooks",
            )
        if self._mode == "enforce":
            return Block(refusal)
        exchange.note(Finding(self.name, refusal.reason, "flag", "/params/name"))
        return PASS

    # -- definitions --------------------------------------------------------------------------------------------------

    def _judge_list(self, family: Family, message: Message, exchange: Exchange) -> Verdict:
        state = self._state(exchange)
        result = message.result
        entries = result.get(family.listing, [])
        if type(entries) is not list or any(fold(each) == family.listing != each for each in result):
            if self._mode == "enforce":
                return Block(ContentBlocked("the server's list is malformed", reason="list-malformed"))
            return PASS
        book = state.books[family.word]
        current = exchange.state.get(self.name, {}).get(family.word) == book.changes
        notes, flagged = _Notes(f"/result/{family.listing}"), _Notes(f"/result/{family.listing}")
        budget = _Budget()
        kept = []
        for position, entry in enumerate(entries):
            name = entry.get("name") if type(entry) is dict else None
            if type(name) is not str:
                notes.add(f"{family.word}-without-name", position)
                continue
            known = state.examine(family, family.pinned(entry), budget)
            seen = book.see(name, known, current)
            if seen == "refused":
                self._report(state, family, name, known, notes, position)
                continue
            kept.append(entry)
            if seen == "learned":
                notes.add(_LEARNED, position)
            # What was approved stays suspicious: whoever approved it may not have seen what is hidden in it.
            for rule in (*known.flags, *state.others.like(family, name)):
                flagged.add(rule, position)
        flagged.write(exchange, self.name, "flag")
        notes.write(exchange, self.name, "redact" if self._mode == "enforce" else "flag")
        if self._mode != "enforce" or len(kept) == len(entries):
            return PASS
        return Replace(message.with_document({**message.document, "result": {**result, family.listing: kept}}))

    def _judge_opening(self, message: Message, exchange: Exchange) -> Verdict:
        result = message.result
        members = [each for each in result if fold(each) == INSTRUCTIONS.word and result[each] not in (None, "")]
        if not members:
            return PASS
        state = self._state(exchange)
        book = state.books[INSTRUCTIONS.word]
        # Under more than one spelling they cannot be what was approved.
        text = result[members[0]] if members == [INSTRUCTIONS.word] else {member: result[member] for member in members}
        known = state.examine(INSTRUCTIONS, text, _Budget())
        notes = _Notes("/result/instructions")
        seen = book.see("", known, current=True)
        if seen == "refused":
            self._report(state, INSTRUCTIONS, "", known, notes, None)
        elif seen == "learned":
            notes.add(_LEARNED, None)
        if seen != "refused":
            flagged = _Notes("/result/instructions")
            for rule in known.flags:
                flagged.add(rule, None)
            flagged.write(exchange, self.name, "flag")
        notes.write(exchange, self.name, "redact" if self._mode == "enforce" else "flag")
        if seen != "refused" or self._mode != "enforce":
            return PASS
        rest = {member: value for member, value in result.items() if member not in members}
        return Replace(message.with_document({**message.document, "result": rest}))

    def _report(
        self, state: _State, family: Family, name: str, known: Examined, notes: _Notes, position: int | None
    ) -> None:
        """Findings for a definition that is not approved, and once a line for the log."""
        status = state.books[family.word].status(name, known)
        rules = [f"{family.word}-{status}"] if status else []
        rules += [*known.faults, *known.flags, *state.others.like(family, name)]
        for rule in rules:
            notes.add(rule, position)
        if self._mode != "observe" and state.is_news(family, name, known):
            what = f"{family.word} {_quote(name)}" if name else family.word
            done = "withheld" if self._mode == "enforce" else "let through"
            _log.warning("upstream %s: not approved and %s: %s (%s)", state.upstream, done, what, ", ".join(rules))


class _State:
    """What the hook knows of one upstream."""

    __slots__ = ("_examined", "_logged", "books", "others", "upstream")

    def __init__(self, upstream: str, locks: Mapping[str, Lock], learn: bool) -> None:
        self.upstream = upstream
        lock = locks.get(upstream)
        pins = {} if lock is None else lock.pins
        self.books = {
            family.word: _Book(
                {name: pin.digest for (word, name), pin in pins.items() if word == family.word},
                learning=learn and lock is None,
            )
            for family in FAMILIES
        }
        self.others = Names(locks, without=upstream)
        self._examined: dict[bytes, Examined] = {}
        self._logged: set[bytes] = set()

    def examine(self, family: Family, pinned: Any, budget: _Budget) -> Examined:
        """Digest, faults and flags.  Lists are asked for again and again, and reading them takes its time."""
        text = dumps(pinned)
        key = hashlib.sha256(family.word.encode() + text).digest()
        known = self._examined.get(key)
        if known is None:
            if not budget.spend(len(text)):
                return _UNREAD
            if len(self._examined) >= _MEMORY:
                self._examined.clear()
            known = self._examined[key] = examine(family, pinned)
        return known

    def is_news(self, family: Family, name: str, known: Examined) -> bool:
        """Whether this has not been said before; False once too much has been said."""
        key = hashlib.sha256(dumps([family.word, name, known.digest])).digest()
        if key in self._logged or len(self._logged) >= _MEMORY:
            return False
        self._logged.add(key)
        return True


class _Book:
    """The definitions of one family of one upstream: approved digests, and what was seen of them.

    Its size is that of the lock, or bounded where there is none and it learns.
    """

    __slots__ = ("_confirmed", "_learning", "_pins", "_refused", "changes")

    def __init__(self, pins: dict[str, str], *, learning: bool) -> None:
        self._pins = pins
        self._learning = learning
        # Names whose definition was another one, or broke a rule, when it was last seen.
        self._refused: set[str] = set()
        # Names that were seen as they should be since the last change, and the number of changes announced.
        self._confirmed: set[str] = set()
        self.changes = 0

    def change(self) -> None:
        """The server says that its list is another one now."""
        self.changes += 1
        self._confirmed.clear()

    def status(self, name: str, known: Examined) -> str | None:
        """``new`` or ``changed``; None where the digest is the approved one."""
        if name not in self._pins:
            return "new"
        return None if known.digest == self._pins[name] else "changed"

    def see(self, name: str, known: Examined, current: bool) -> Literal["approved", "learned", "refused"]:
        """Judges a definition; ``current`` says that its list was asked for after the last change."""
        learned = False
        if name not in self._pins and self._may_learn(name) and known.digest is not None and not known.faults:
            self._pins[name] = known.digest
            learned = True
        if self.status(name, known) is None and not known.faults:
            self._refused.discard(name)
            if current:
                self._confirmed.add(name)
            return "learned" if learned else "approved"
        self._confirmed.discard(name)
        if name in self._pins or self._may_learn(name):
            self._refused.add(name)
        return "refused"

    def allows(self, name: str) -> bool:
        """Whether the name stands for an approved definition, as far as is known."""
        return (name in self._pins or self._may_learn(name)) and name not in self._refused

    def is_fresh(self, name: str) -> bool:
        """Whether the definition was seen since the server last said that there was a change."""
        return self.changes == 0 or name in self._confirmed

    def _may_learn(self, name: str) -> bool:
        return self._learning and len(name) <= _MAX_LEARNED_NAME and len(self._pins) + len(self._refused) < _MAX_LEARNED


class Names:
    """The names that are approved of other upstreams, to find those that could be taken for them."""

    def __init__(self, locks: Mapping[str, Lock], *, without: str) -> None:
        self._names: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for upstream, lock in locks.items():
            for word, name in lock.pins:
                if upstream != without and name:
                    self._names.setdefault((word, skeleton(name)), []).append((upstream, name))

    def find(self, family: Family, name: str) -> list[tuple[str, str]]:
        """Upstreams and names there that are the same or look alike."""
        return self._names.get((family.word, skeleton(name)), []) if name and self._names else []

    def like(self, family: Family, name: str) -> list[str]:
        """The rules for findings: ``same-name`` or ``look-alike``, or none."""
        found = {other for _, other in self.find(family, name)}
        return ([SAME_NAME] if name in found else []) + ([LOOK_ALIKE] if found - {name} else [])


class _Budget:
    """How much of one message may be definitions that were not seen before, in bytes of JSON.

    Reading them takes some 0.1 s per MiB, in which everybody waits; the longest lists of real servers are a tenth of
    this.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = 2 << 20

    def spend(self, size: int) -> bool:
        """Whether there is still room for so many bytes."""
        self._left -= size
        return self._left >= 0


_UNREAD = Examined(None, (TOO_LARGE,), ())


class _Notes:
    """Findings of one message: one for each rule, with its place where there is only one."""

    __slots__ = ("_found", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, list[int | None]] = {}

    def add(self, rule: str, position: int | None) -> None:
        self._found.setdefault(rule, []).append(position)

    def write(self, exchange: Exchange, hook: str, action: str) -> None:
        for rule, positions in self._found.items():
            place = self._path if len(positions) > 1 or positions[0] is None else f"{self._path}/{positions[0]}"
            what = action if rule.endswith(_WITHHELD) else "flag"
            exchange.note(Finding(hook, rule, what, place, len(positions)))


# The rules for which something is withheld; the others only say why it should be looked at.
_WITHHELD = ("-new", "-changed", "-without-name", *FAULTS)


def _quote(name: Any) -> str:
    """A peer's text for a message: escaped and bounded."""
    if type(name) is not str:
        return "without a name"
    text = ascii(name)
    return text if len(text) <= 64 else text[:60] + "..." + text[0]
