"""Texts that go on from one notification of a stream to the next, and secrets that are cut in two by it.

Notifications of one method about one thing - a progress token, a logger, a task - are a flow, and the strings at one
place of them, one behind the other, are one text.  A secret may begin in one message and end in a later one.  So a
message whose text could still become part of a match (see ``tail``) is held until the next one of its flow says what it
is, or its time is over; later messages of the flow wait behind it, and everything else overtakes.

What is known of a text: where it is open, from where on it is out, and cuts: what must not be seen of it.  A cut at
the very end of a text needs no waiting: whatever goes on with the match will be cut as well.  Offsets count from the
text's beginning; what is remembered of it is its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..protocol.message import Message
from .detect import Budget, Detector, encode
from .edit import Edits, Place, Text, pointer
from .hook import Exchange, Finding, Hold
from .ruleset import Action, Rule
from .tail import CONTEXT, Tails

__all__ = ["Flows", "Held", "OnSplit", "Seams", "Split"]

OnSplit = Literal["flag", "end"]

# Texts remembered of one stream, and of one message; beyond that the oldest are forgotten.
_MAX_TEXTS = 64

# What is remembered of a match that goes on and on, such as a key of many lines: its beginning and its end.
_HALF = 2048

# A character before what is remembered, so that an edge of a word is where it is.
_CHARACTER = 4

# Members of ``params`` that say what a notification is about.
_ABOUT = ("progressToken", "logger", "taskId", "requestId", "elicitationId", "uri")
_NO_TEXT = frozenset((*_ABOUT, "level", "status"))
_PARAMS = ("params",)


class Split(Exception):
    """A secret goes on whose beginning is out, and the stream has to end.  ``rule`` is its id."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class Seams:
    """What all streams of a hook share: its rules, compiled, and what is done with matches.

    ``detector`` finds the ``rules``, by their position
    ``actions``  by rule id
    ``is_fixed`` whether the string of a member, in the container at a path, is left alone
    ``max_hold`` seconds; 0 holds nothing
    """

    __slots__ = ("actions", "detector", "is_fixed", "max_hits", "max_hold", "on_split", "rules", "tails")

    def __init__(
        self,
        detector: Detector,
        rules: Sequence[Rule],
        actions: Mapping[str, Action],
        is_fixed: Callable[[Place, str | int], bool],
        max_hold: float,
        on_split: OnSplit,
        max_hits: int,
    ) -> None:
        self.detector = detector
        self.rules = tuple(rules)
        self.actions = actions
        self.is_fixed = is_fixed
        self.max_hold = max_hold
        self.on_split = on_split
        self.max_hits = max_hits
        self.tails = Tails(rules)


@dataclass(slots=True, eq=False)
class _Cut:
    """What must not be seen, from ``start`` to ``end`` of a text; its placeholder stands at ``place``."""

    start: int
    end: int
    rule: str
    place: int


@dataclass(slots=True, eq=False)
class _Text:
    """One text of a flow, as far as it has come.

    ``last``  its last bytes, which ``end`` is the end of
    ``out``   what is before it has gone to the client, or is on its way
    ``open``  from here on it could be part of a match that is not complete; None if from nowhere
    """

    last: bytes = b""
    end: int = 0
    out: int = 0
    open: int | None = None
    cuts: list[_Cut] = field(default_factory=list)


class _Part(NamedTuple):
    """A string of a message: ``start`` to ``end`` of a text."""

    path: Place
    member: str | int
    text: _Text
    start: int
    end: int
    data: bytes


@dataclass(slots=True, eq=False)
class Held:
    """A notification and what is known of its strings.  ``hold`` is None for one that does not wait."""

    message: Message
    parts: list[_Part]
    flow: _Flow
    blocked: str | None = None
    hold: Hold | None = None

    @property
    def waits(self) -> bool:
        """Whether one of its strings may hold a part of a match that is not complete."""
        return any(part.text.open is not None and part.text.open < part.end for part in self.parts)


@dataclass(slots=True, eq=False)
class _Flow:
    """``held`` are its notifications that wait, in their order."""

    held: list[Held] = field(default_factory=list)


_Key = tuple[Any, ...]

# The container's path, the member, and its string.
_Value = tuple[Place, str | int, str]


class Flows:
    """The flows of one stream, for the hook of that name."""

    __slots__ = ("_flows", "_hook", "_seams", "_texts")

    def __init__(self, seams: Seams, hook: str) -> None:
        self._seams = seams
        self._hook = hook
        self._flows: dict[_Key, _Flow] = {}
        self._texts: dict[tuple[_Key, Place], _Text] = {}

    def take(self, message: Message, exchange: Exchange, release: Callable[[Held], Any]) -> Held | None:
        """The next notification: what is known of it, with a Hold where it has to wait; None where there is nothing to
        know.

        Earlier ones that need not wait any more are due.  ``release`` is what a Hold calls.  Raises TooManyMatches, and
        Split.
        """
        params = message.params
        key = _key(message.method, params)
        flow = self._flows.get(key)
        values = _values(params, self._seams.is_fixed)
        if (flow is None or not flow.held) and (not values or self._goes_by(key, values)):
            return None
        if flow is None:
            flow = self._remember(key)
        split = None
        parts: list[_Part] = []
        budget = Budget(self._seams.max_hits)
        held = Held(message, parts, flow)
        for path, member, value in values:
            text = self._text(key, (*path, member))
            data = encode(value)
            parts.append(_Part(path, member, text, text.end, text.end + len(data), data))
            split = self._read(parts[-1], held, exchange, budget) or split
        if split is not None and self._seams.on_split == "end":
            raise Split(split)
        if not flow.held and not held.waits:
            return held
        waiting = [*flow.held, held]
        while waiting and not waiting[0].waits:
            # An open text of another message of the flow does not make this one wait.
            hold = waiting.pop(0).hold
            if hold is not None:
                hold.until = exchange.now
        if waiting and self._seams.max_hold:
            held.hold = Hold(exchange.now + self._seams.max_hold, lambda: release(held))
            flow.held.append(held)
        return held

    def let_go(self, held: Held) -> Message:
        """The message as it may be seen, which it is from now on."""
        if held.hold is not None:
            held.flow.held.remove(held)
        edits = None
        for part in held.parts:
            text = part.text
            if text.out < part.end:
                text.out = part.end
            changed = _without(text.cuts, part) if text.cuts else None
            if changed is not None:
                edits = edits or Edits()
                edits.set(Text(part.path, part.member, changed.decode("utf-8", "surrogatepass")))
        return held.message.with_document(edits.apply(held.message.document)) if edits else held.message

    def _goes_by(self, key: _Key, values: Sequence[_Value]) -> bool:
        """Go on with the texts, where nothing can be or become a match: of nearly all messages.  Otherwise nothing of
        what is known has changed."""
        candidates = self._seams.tails.candidates
        read = []
        for path, member, value in values:
            text = self._text(key, (*path, member))
            data = encode(value)
            whole = text.last + data
            if text.cuts or candidates(whole):
                return False
            read.append((text, whole, len(data)))
        for text, whole, size in read:
            text.last = whole[-CONTEXT:]
            text.end += size
            text.out = text.end
            text.open = None
        return True

    def _remember(self, key: _Key) -> _Flow:
        if len(self._flows) >= _MAX_TEXTS:
            for other, flow in self._flows.items():
                if not flow.held:
                    del self._flows[other]
                    break
        flow = self._flows[key] = _Flow()
        return flow

    def _text(self, key: _Key, place: Place) -> _Text:
        text = self._texts.pop((key, place), None)
        if text is None:
            text = _Text()
            if len(self._texts) >= _MAX_TEXTS:
                del self._texts[next(iter(self._texts))]
        self._texts[key, place] = text  # the one used last is the last
        return text

    def _read(self, part: _Part, held: Held, exchange: Exchange, budget: Budget) -> str | None:
        """Go on with a text.  The rule, where a secret goes on whose beginning is out."""
        text = part.text
        if text.cuts and not held.flow.held:
            text.cuts = [cut for cut in text.cuts if cut.end >= part.start]
        before = len(text.last)
        whole = text.last + part.data
        text.end = part.end
        candidates = self._seams.tails.candidates(whole)
        if not candidates:
            text.last = whole[-CONTEXT:]
            text.open = None
            return None
        split, at = self._search(part, whole, before, candidates, held, exchange, budget)
        if before and at is None:
            # Messages may be lines, too: what begins with this one need not follow upon the last.
            _, at = self._search(part, part.data, 0, candidates, held, exchange, budget)
            if at is not None:
                whole = part.data
        if at is None:
            text.last = whole[-CONTEXT:]
        else:
            # With a character before it, so that an edge of a word is where it is.
            text.last = whole[max(0, min(at - _CHARACTER, len(whole) - CONTEXT)) :]
            if len(text.last) > 2 * _HALF:
                self._shorten(part, candidates, exchange)
        return split

    def _search(
        self,
        part: _Part,
        whole: bytes,
        before: int,
        candidates: Sequence[int],
        held: Held,
        exchange: Exchange,
        budget: Budget,
    ) -> tuple[str | None, int | None]:
        """Cut what goes on from earlier messages or touches the end, and see what could still become a match.

        ``whole`` is the end of the text with the part, which begins at ``before``.  The rule, where a secret goes on
        whose beginning is out; and from where on matches may go on, None if from nowhere.
        """
        seams, text = self._seams, part.text
        origin = part.start - before
        split = None
        known = opened = len(whole)
        for index in candidates:
            rule = seams.rules[index]
            action = seams.actions[rule.id]
            for first, last, start, stop in seams.detector.spans(index, whole, 0, budget):
                budget.spend(False)
                if last <= before or (first >= before and last < len(whole)):
                    continue  # that was found before, or will be in this string alone
                if action == "flag":
                    if first < before:
                        self._note(part, rule.id, "flag", exchange)
                    continue
                if stop == len(whole):
                    # However it goes on, what goes on will be cut as well.
                    known = min(known, first)
                if action == "block":
                    _block(held, part, origin + start, rule.id)
                if not _cut(text, origin + start, origin + stop, rule.id):
                    continue
                if origin + start < text.out and seams.tails.counts(index, whole[first : text.out - origin]):
                    split = rule.id
                    self._note(part, rule.id, "flag", exchange)
                if origin + stop > text.out:
                    self._note(part, rule.id, action, exchange)
        for index, start in seams.tails.open(whole, candidates=candidates):
            if seams.actions[seams.rules[index].id] != "flag":
                opened = min(opened, start)
        text.open = origin + opened if opened < known else None
        at = min(known, opened)
        return split, at if at < len(whole) else None

    def _shorten(self, part: _Part, candidates: Sequence[int], exchange: Exchange) -> None:
        """Keep the beginning and the end of a match that goes on and on."""
        seams, text = self._seams, part.text
        whole = text.last
        text.last = whole[:_HALF] + whole[-_HALF:]
        for index in candidates:
            rule = seams.rules[index].id
            if seams.actions[rule] != "flag" and self._goes_on(index, whole) and not self._goes_on(index, text.last):
                self._note(part, rule, "flag", exchange)  # it cannot do without its middle

    def _goes_on(self, rule: int, text: bytes) -> bool:
        budget = Budget(self._seams.max_hits)
        return any(end == len(text) for _, end, _, _ in self._seams.detector.spans(rule, text, 0, budget))

    def _note(self, part: _Part, rule: str, action: Action, exchange: Exchange) -> None:
        exchange.note(Finding(self._hook, rule, action, pointer((*part.path, part.member))))


def _key(method: str | None, params: dict[str, Any]) -> _Key:
    """What tells a flow from others."""
    about: _Key = (method,)
    for member in _ABOUT:
        if member in params and (value := params[member]) is not None:
            kind = type(value)
            about += (member, kind, value if kind is int or (kind is str and len(value) <= 256) else None)
    return about


def _values(params: dict[str, Any], is_fixed: Callable[[Place, str | int], bool]) -> list[_Value]:
    """The strings that are no names, with the path of their container; not more than are remembered."""
    found: list[_Value] = []
    stack: list[tuple[Place, Any]] = [(_PARAMS, params)]
    while stack:
        path, node = stack.pop()
        members: Any = node.items() if type(node) is dict else enumerate(node)
        for member, value in members:
            kind = type(value)
            if kind is str:
                if value and not (path is _PARAMS and member in _NO_TEXT) and not is_fixed(path, member):
                    found.append((path, member, value))
                    if len(found) == _MAX_TEXTS:
                        return found
            elif kind is dict or kind is list:
                stack.append(((*path, member), value))
    return found


def _block(held: Held, part: _Part, start: int, rule: str) -> None:
    """Block the messages that hold something of a match."""
    for each in (*held.flow.held, held):
        if any(other.text is part.text and other.end > start for other in each.parts):
            each.blocked = rule
    held.blocked = rule


def _cut(text: _Text, start: int, end: int, rule: str) -> bool:
    """Cut something out of a text; False where that only goes on with what is cut already."""
    for cut in text.cuts:
        if start < cut.end and cut.start < end:
            if start < cut.start and cut.place >= text.out:
                cut.place = max(start, text.out)
            cut.start, cut.end = min(start, cut.start), max(end, cut.end)
            return False
    text.cuts.append(_Cut(start, end, rule, max(start, text.out)))
    return True


def _without(cuts: list[_Cut], part: _Part) -> bytes | None:
    """The string without what is cut; None where nothing is."""
    pieces = []
    at = part.start
    for cut in sorted(cuts, key=lambda cut: cut.start):
        if cut.end <= at or cut.start >= part.end:
            continue
        pieces.append(part.data[at - part.start : max(cut.start, at) - part.start])
        if part.start <= cut.place < part.end:
            pieces.append(b"[redacted:%s]" % cut.rule.encode())
        at = min(cut.end, part.end)
    return b"".join((*pieces, part.data[at - part.start :])) if pieces else None
