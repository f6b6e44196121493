"""What ``sanitize`` does with a result that is too large to hold.  See ``windows``.

**Blocks.**  Text without escapes is its own decoding, so that the first pass goes over a block as it is, structure and
all.  Only strings with escapes are decoded beside it.  Where a rule may match, the block is taken apart, and its
strings are judged like those of a message that is held.

**Long strings.**  What could become part of a match is kept back: the last ``KEEP`` bytes, and from the beginning of
any match that ends there.  A match that goes on beyond ``MOST`` - a key file larger than any key - is out of sight from
its beginning to its end, wherever that is.  Such a string is searched with the rules as they are written: an
encoding of a token that is a string of its own is found in strings that are held only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..wire.incremental import Container, OpenString, whole
from ..wire.strict import dumps
from .controls import clean
from .detect import Budget, Detector, TooManyMatches
from .edit import Place, pointer
from .hook import Exchange, Finding
from .json_text import decode, decoded, entries, find_strings, raw_offsets
from .members import normalise
from .windows import LongText, Unchanged, Withheld

if TYPE_CHECKING:
    from .sanitize import SanitizeHook

__all__ = ["KEEP", "MOST", "SanitizedWindows"]

# What is kept back of a string's end, in bytes of JSON; an escape is at most six for one.
KEEP = 8 * 1024

# What is kept of a match that is not complete.
MOST = 64 * 1024

# A match is complete when so much follows that is not part of it: an end marker may be under way.
_SLACK = 512

# What stays known of what is out: it says whether a word begins behind it.
_BEFORE = 64

# Of a match that goes on and on: its beginning, without which the rule would not know it.
_HEAD = 4096

# What may stand between the beginning of a member's name in embedded JSON and its value.
_LEAD = 300

# A budget of matches holds for so many bytes, the largest message that is held if nobody says otherwise.
_BUDGET_BYTES = 16 << 20

_STAND_IN = b"[redacted:"


class SanitizedWindows:
    """One answer, as the hook lets it out."""

    def __init__(self, hook: SanitizeHook, exchange: Exchange) -> None:
        self.hook = hook
        self.exchange = exchange
        self.budget = Budget(hook._max_hits)
        self._spent = 0

    def count(self, size: int) -> None:
        """So many bytes more of the answer are looked at."""
        self._spent += size
        if self._spent > _BUDGET_BYTES:
            self._spent = 0
            self.budget = Budget(self.hook._max_hits)

    def block(self, raw: bytes, container: Container, *, in_name: bool) -> bytes:
        """As for every Windows."""
        self.count(len(raw))
        hook = self.hook
        text = raw
        odd: list[bytes] = []
        if b"\\" in raw or not raw.isascii():
            odd = [each for each in find_strings(raw) if b"\\" in each or not each.isascii()]
            escaped = [each for each in odd if b"\\" in each]
            if escaped:
                text = raw + b"\n" + "\n".join(decoded(escaped)).encode()
        candidates = hook._detector.first_pass(text)
        if candidates:
            candidates = hook._detector.second_pass(candidates, text)
        if not candidates and not any(map(self._is_secret_name, decoded(odd))):
            return raw
        return self._examine(raw, container, in_name)

    def _is_secret_name(self, text: str) -> bool:
        """Whether a member of that name would hold a secret.  Other names are found by the first pass."""
        hook = self.hook
        return len(text) <= 128 and text not in hook._harmless and normalise(text) in hook._members

    def _examine(self, raw: bytes, container: Container, in_name: bool) -> bytes:
        tokens = list(entries(raw, container, in_name))
        edits, verdict = self.hook.judge_strings([entry for entry, _, _ in tokens], self.exchange, self.budget)
        if verdict is not None:
            raise Withheld(verdict)
        if not edits:
            return raw
        pieces: list[bytes] = []
        last = 0
        for entry, start, end in tokens:
            text = edits.get(entry)
            if text is not None:
                pieces += (raw[last:start], dumps(text))
                last = end
        return b"".join((*pieces, raw[last:]))

    def text(self, container: Container, string: OpenString) -> LongText:
        """As for every Windows."""
        hook = self.hook
        path, member = container.path, string.member
        if hook.leaves_alone(path, member) and not string.is_name:
            return Unchanged()
        is_secret = not string.is_name and hook.is_secret(path, member)
        return _Sanitized(self, (*path, member), is_secret)


class _Span(NamedTuple):
    """A match from ``start`` to ``end``; ``first`` to ``last`` is what must not be seen of it."""

    start: int
    end: int
    first: int
    last: int
    rule: int


@dataclass(slots=True)
class _Endless:
    """A match that is longer than what is kept: its rule, its beginning, and where the secret begins in that."""

    rule: int
    head: bytes
    first: int


class _Sanitized:
    """One long string."""

    __slots__ = ("_before", "_endless", "_is_secret", "_kinds", "_out_of_sight", "_owner", "_place", "_raw")

    def __init__(self, owner: SanitizedWindows, place: Place, is_secret: bool) -> None:
        self._owner = owner
        self._place = place
        self._is_secret = is_secret
        self._out_of_sight = False
        self._raw = b""
        self._before = b""
        self._kinds: set[str] = set()
        self._endless: _Endless | None = None

    def feed(self, raw: bytes, final: bool) -> bytes:
        """As for every LongText."""
        self._owner.count(len(raw))
        if self._is_secret:
            self._is_secret = False
            if not raw.startswith(_STAND_IN):
                hook = self._owner.hook
                if self._found(Detector.MEMBERS):
                    self._out_of_sight = True
                    return hook.placeholder(Detector.MEMBERS)
        if self._out_of_sight:
            return b""
        try:
            return self._feed(self._raw + raw if self._raw else raw, final)
        except TooManyMatches:
            raise Withheld(self._owner.hook._too_many()) from None

    def _feed(self, raw: bytes, final: bool) -> bytes:
        if self._endless is not None:
            rest = self._go_on(self._endless, raw, final)
            if rest is None:
                return b""
            raw = rest
        hook = self._owner.hook
        text = decode(raw)
        full = self._before + text
        candidates = hook._detector.first_pass(full)
        if Detector.CONTROLS in candidates and hook._results != "off":
            cleaned = self._clean(raw, final)
            if cleaned != raw:
                raw = cleaned
                text = decode(raw)
                full = self._before + text
                candidates = hook._detector.first_pass(full)
        cut = len(raw) if final else whole(raw, 0, max(0, len(raw) - KEEP))
        spans = self._spans(candidates, full) if candidates else []
        if not spans:
            out = raw[:cut]
        else:
            limit = len(full) - len(decode(raw[cut:]))
            if not final:
                for span in reversed(spans):
                    if span.start < limit and span.end > min(limit, len(full) - _SLACK):
                        limit = span.start
            endless = None
            base = len(self._before)
            if not final and len(raw) - raw_offsets(raw, [limit - base])[0] > MOST:
                endless = next((each for each in spans if each.start == limit), None)
            pieces, cut = self._redact(raw, spans, limit, endless)
            out = b"".join(pieces)
            if endless is not None:
                return out + self._begin_endless(endless, full, raw, cut)
        if cut:
            shown = decode(raw[whole(raw, 0, max(0, cut - 12 * _BEFORE)) : cut])
            self._before = _last_characters(self._before + shown)
        self._raw = raw[cut:]
        return out

    def _clean(self, raw: bytes, final: bool) -> bytes:
        """Strip or note what nobody sees.  The end waits, for what belongs to it may follow."""
        hook = self._owner.hook
        end = len(raw) if final else whole(raw, 0, max(0, len(raw) - _SLACK))
        text = decode(raw[:end]).decode()
        cleaned, kinds = clean(text)
        for kind in kinds - hook._ignored_controls - self._kinds:
            self._kinds.add(kind)
            self._note(kind, hook._results)
        if hook._results != "strip" or not kinds - hook._ignored_controls:
            return raw
        return dumps(cleaned)[1:-1] + raw[end:]

    # -- matches ------------------------------------------------------------------------------------------------------

    def _spans(self, candidates: Iterable[int], full: bytes) -> list[_Span]:
        """What the rules match, in order of where it begins.  Nothing that begins in what is out."""
        hook = self._owner.hook
        base = len(self._before)
        spans: list[_Span] = []
        for rule in candidates:
            if rule >= 0:
                spans += (_Span(*each, rule) for each in hook._detector.spans(rule, full, base, self._owner.budget))
            elif rule == Detector.MEMBERS:
                for first, last in hook.embedded_values(full, self._place):
                    if first >= base and not full.startswith(_STAND_IN, first):
                        spans.append(_Span(_character(full, max(base, first - _LEAD)), last, first, last, rule))
        spans.sort()
        return spans

    def _redact(self, raw: bytes, spans: Sequence[_Span], limit: int, endless: _Span | None) -> tuple[list[bytes], int]:
        """What may be seen up to ``limit``, an offset of the decoded text; and the offset in ``raw`` that this is."""
        base = len(self._before)
        chosen: list[_Span] = []
        shown = base
        for span in sorted(spans, key=lambda span: span.first):
            if (span.start >= limit and span is not endless) or span.first < shown:
                continue
            self._owner.budget.spend(True)
            if self._found(span.rule):
                chosen.append(span)
                shown = span.last if span is not endless else span.first
            if span is endless:
                limit = span.first
                break
        if endless is not None and chosen and chosen[-1] is endless:
            chosen[-1] = endless._replace(last=endless.first)
        offsets = raw_offsets(raw, [*(each - base for span in chosen for each in span[2:4]), limit - base])
        pieces: list[bytes] = []
        last = 0
        for index, span in enumerate(chosen):
            pieces += (raw[last : offsets[2 * index]], self._owner.hook.placeholder(span.rule))
            last = offsets[2 * index + 1]
        return [*pieces, raw[last : offsets[-1]]], offsets[-1]

    def _begin_endless(self, span: _Span, full: bytes, raw: bytes, cut: int) -> bytes:
        """What goes on behind the beginning of a match that does not end."""
        if self._owner.hook.rule_action(span.rule)[1] != "redact":
            # It is noted, and can be seen.
            self._before = _last_characters(full)
            self._raw = b""
            return raw[cut:]
        end = min(len(full), span.start + _HEAD)
        while end < len(full) and full[end] & 0xC0 == 0x80:
            end -= 1
        self._endless = _Endless(span.rule, full[span.start : end], span.first - span.start)
        offset = raw_offsets(raw, [end - len(self._before)])[0]
        self._raw = b""
        self._before = b""
        return self._feed(raw[offset:], False)

    def _go_on(self, endless: _Endless, raw: bytes, final: bool) -> bytes | None:
        """What follows an endless match; None while it goes on."""
        text = endless.head + decode(raw)
        end = self._end_of(endless, text)
        if end >= len(text) - _SLACK and not final:
            # The last bytes may belong to what ends it.
            cut = whole(raw, 0, max(0, len(raw) - 2 * _SLACK))
            self._raw = raw[cut:]
            return None
        self._endless = None
        self._raw = b""
        cut = raw_offsets(raw, [max(0, end - len(endless.head))])[0]
        return raw[cut:]

    def _end_of(self, endless: _Endless, text: bytes) -> int:
        hook = self._owner.hook
        if endless.rule == Detector.MEMBERS:
            end = next((last for first, last in hook.embedded_values(text, ()) if first == endless.first), None)
        else:
            end = hook._detector.prefix_end(endless.rule, text)
        if end is None:  # what follows is not what the rule goes on with; then nobody knows what it is
            raise Withheld(hook._block(hook.rule_action(endless.rule)[0]))
        return end

    # -- records ------------------------------------------------------------------------------------------------------

    def _found(self, index: int) -> bool:
        """Record a match of a rule; True when it must not be seen.  Raises Withheld."""
        rule, action = self._owner.hook.rule_action(index)
        self._note(rule, action)
        if action == "block":
            raise Withheld(self._owner.hook._block(rule))
        return action == "redact"

    def _note(self, rule: str, action: str) -> None:
        self._owner.exchange.note(Finding(self._owner.hook.name, rule, action, pointer(self._place)))


def _last_characters(text: bytes) -> bytes:
    return text[_character(text, max(0, len(text) - _BEFORE)) :]


def _character(text: bytes, position: int) -> int:
    """The first position from this one on where a character begins."""
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position
