"""Secrets in disguise: under an encoding, behind escapes, or in pieces.

The first pass over a message marks where disguises may be.  Only what is around a mark is undone, and the rules look
at the result as they do at any text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import re2  # type: ignore[import-untyped]

from .blocks import Joined
from .controls import SUSPECT_RE2
from .detect import Budget, Detector, Match, encode, is_stand_in
from .edit import Place
from .members import EmbeddedMembers
from .normalise import BASE64_RE2, FOLDED_RE2, Normaliser, fold, packed

__all__ = ["Disguises", "Hidden", "Scattered"]

# The marks of the first pass.
_MARKS = frozenset((Detector.CONTROLS, Detector.FOLDED, Detector.PACKED))
_MARK = re2.compile(f"(?i){SUSPECT_RE2}|{FOLDED_RE2}|{BASE64_RE2}".encode())

# How many disguises may lie on top of each other, such as base64 of base64.
_MAX_LAYERS = 2

# How much of a long text is gone over for a mark in it.
_STRETCH = 4096
_BORDER = re2.compile(rb"[^A-Za-z0-9+/=_%\\-]")

# How far a match that is one already goes on in the next text, if that is its continuation.
_GOES_ON = 16


class Hidden(NamedTuple):
    """A disguised secret: where its disguise is, in characters, and what is found under it.

    ``rules`` are indexes of rules, or ``Detector.MEMBERS``.
    """

    start: int
    end: int
    rules: tuple[int, ...]


class Scattered(NamedTuple):
    """A secret in several texts: of each its place, and where in it the part is, in characters."""

    rule: int
    parts: list[tuple[Place, int, int]]


class Disguises:
    """Looks under disguises with the rules of a detector, and for members whose name says that they are secrets."""

    __slots__ = ("_detector", "_members")

    def __init__(self, detector: Detector, members: EmbeddedMembers | None = None) -> None:
        self._detector = detector
        self._members = members

    def marks(self, candidates: Iterable[int]) -> tuple[int, ...]:
        """Those marks of a first pass under which there may be something."""
        return tuple(mark for mark in candidates if mark in _MARKS)

    def uncover(self, text: str, budget: Budget, layers: int = _MAX_LAYERS) -> list[Hidden]:
        """Disguised secrets in a text, in order; none overlaps another.  Raises TooManyMatches.

        Rules look under the disguises that they name.  Linear: only stretches with a mark are gone over, once in each
        layer.
        """
        if len(text) <= _STRETCH:
            return self._uncover(text, budget, layers)
        hidden: list[Hidden] = []
        for start, end in self._stretches(text):
            for first, last, rules in self._uncover(text[start:end], budget, layers):
                hidden.append(Hidden(start + first, start + last, rules))
        return hidden

    def _stretches(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in a long text marks are, with enough around them for any secret; these do not overlap."""
        data = encode(text)
        at = _Characters(data, text.isascii())
        start = end = 0
        position = 0
        while (match := _MARK.search(data, position)) is not None:
            first = max(match.start() - _STRETCH // 2, 0)
            last = match.end() + _STRETCH // 2
            if first > end:
                if end:
                    yield at.index(start), at.index(end)
                start = _whole(data, max(first, end))
            # No encoding goes on beyond one of these.
            border = _BORDER.search(data, last)
            end = len(data) if border is None else border.start()
            position = max(match.end(), end - _STRETCH // 4)
        if end:
            yield at.index(start), at.index(end)

    def _uncover(self, text: str, budget: Budget, layers: int) -> list[Hidden]:
        view = text
        data = encode(view)
        marks = self._detector.first_pass(data)
        folded = None
        # Base64 is escaped in places that are nothing by themselves: "%2B", "\\n".
        if Detector.FOLDED in marks or Detector.CONTROLS in marks or "%" in text or "\\" in text:
            folded = fold(text)
        if folded is not None:
            budget.spend_undone(folded.count)
            view = folded.text
            data = encode(view)
            marks = self._detector.first_pass(data)
        found: list[tuple[int, int, frozenset[Normaliser], tuple[int, ...]]] = []
        if folded is not None:
            rules = tuple(index for index in marks if index >= 0)
            found += (
                (start, end, frozenset(), (rule,)) for start, end, rule in self._detector.matches(rules, data, budget)
            )
        if Detector.PACKED in marks and layers:
            runs = list(packed(data))
            budget.spend_undone(len(runs))
            # Mostly there is nothing in any of them.
            if self._detector.first_pass(b"\n".join(run.data for run in runs)):
                for run in runs:
                    under = self._under(run.data, budget, layers - 1)
                    if under:
                        found.append((run.start, run.end, frozenset(("base64",)), under))
        hidden: list[Hidden] = []
        at = _Characters(data, view.isascii())
        last = 0
        for start, end, kinds, under in sorted(found, key=lambda entry: entry[:2]):
            if start < last:
                continue
            first, behind = at.index(start), at.index(end)
            if folded is not None:
                kinds |= folded.kinds(first, behind)
                first, behind = folded.place(first), folded.end(behind)
            looking = tuple(rule for rule in under if rule < 0 or kinds <= self._detector.normalisers(rule))
            if kinds and looking:
                hidden.append(Hidden(first, behind, looking))
                last = end
        return hidden

    def split(self, joined: Joined, candidates: Iterable[int], budget: Budget) -> list[Scattered]:
        """Secrets that go on from one text to the next.  Raises TooManyMatches.

        What looks like the end of one may be the beginning of something else: where a text has a match up to its end, a
        match that goes on by less than ``_GOES_ON`` characters is only that text's own.
        """
        candidates = tuple(candidates)
        data = encode(joined.text)
        at = _Characters(data, joined.text.isascii())
        matches = sorted(self._detector.matches([index for index in candidates if index >= 0], data, budget))
        found = [Match(at.index(start), -1, rule) for start, _, rule in matches]
        lengths = (len(data[start:end].decode("utf-8", "replace")) for start, end, _ in matches)
        found = [match._replace(end=match.start + length) for match, length in zip(found, lengths, strict=True)]
        if self.marks(candidates):
            found += (Match(start, end, rules[0]) for start, end, rules in self.uncover(joined.text, budget))
        found.sort()
        split: list[Scattered] = []
        behind = 0
        for match, parts in zip(found, joined.parts((match.start, match.end) for match in found), strict=True):
            if len(parts) < 2 or match.start < behind:
                continue
            cut = match.start + parts[0][2] - parts[0][1]
            if match.rule >= 0 and match.end - cut < _GOES_ON:
                first = encode(joined.text[match.start : cut])
                if any(self._detector.matches((match.rule,), first, budget)):
                    continue
            split.append(Scattered(match.rule, parts))
            behind = match.end
        return split

    def _under(self, data: bytes, budget: Budget, layers: int) -> tuple[int, ...]:
        """What is found in text that was base64."""
        marks = self._detector.first_pass(data)
        rules = [index for index in marks if index >= 0 and "base64" in self._detector.normalisers(index)]
        found = {match.rule for match in self._detector.matches(rules, data, budget)}
        if self._members is not None and Detector.MEMBERS in marks:
            for start, end in self._members.values(data):
                is_hit = not is_stand_in(data[start:end])
                budget.spend(is_hit)
                if is_hit:
                    found.add(Detector.MEMBERS)
        if self.marks(marks):
            # What is no text has no further disguise.
            with contextlib.suppress(UnicodeDecodeError):
                for hidden in self.uncover(data.decode("utf-8"), budget, layers):
                    found.update(hidden.rules)
        return tuple(sorted(found, reverse=True))


class _Characters:
    """Indexes of characters from those of octets, which mostly ascend."""

    __slots__ = ("_characters", "_data", "_is_ascii", "_octets")

    def __init__(self, data: bytes, is_ascii: bool) -> None:
        self._data = data
        self._is_ascii = is_ascii
        self._octets = self._characters = 0

    def index(self, octets: int) -> int:
        if self._is_ascii:
            return octets
        if octets < self._octets:
            self._characters -= len(self._data[octets : self._octets].decode("utf-8", "surrogatepass"))
        else:
            self._characters += len(self._data[self._octets : octets].decode("utf-8", "surrogatepass"))
        self._octets = octets
        return self._characters


def _whole(data: bytes, index: int) -> int:
    """The index, or that of the next character where it is inside of one."""
    while index < len(data) and data[index] & 0xC0 == 0x80:
        index += 1
    return index
