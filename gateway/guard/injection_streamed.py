"""What ``injection`` does with a result that is too large to hold.  See ``windows``.

Nothing that passes is changed.  A rule counts once for the whole answer, whichever part it was found in; with the
action ``block`` nothing more passes once the points reach the threshold, and the client has no complete answer.

**Long strings** are read in parts of ``STRIDE`` bytes and more, each with the last ``OVERLAP`` characters of the one
before, so that what a rule finds in so many characters is found wherever it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.errors import ContentBlocked
from ..wire.incremental import Container, OpenString
from .detect import encode
from .edit import Place, pointer
from .hook import Block, Exchange, Finding
from .instructions import Passage, Tally, plain
from .json_text import decode, decoded, entries, find_strings
from .windows import LongText, Unchanged, Withheld

__all__ = ["OVERLAP", "STRIDE", "InjectionWindows", "blocked"]

# How long what a rule finds may be, in characters, to be found wherever a long string is cut.
OVERLAP = 8 * 1024

# Bytes of JSON text that are read at once.
STRIDE = 64 * 1024

# How far back the beginning of a line is looked for, in characters: quotations do not go on over a line's end.
_LINE = 4096


def blocked() -> ContentBlocked:
    """What is said of a message that is withheld."""
    return ContentBlocked(
        "the server's message holds what looks like instructions to a model and was withheld",
        reason="injection",
        key="hooks",
    )


class InjectionWindows:
    """One answer.  ``hook`` is the hook's name, ``threshold`` the points that end the answer; None for no end."""

    def __init__(self, hook: str, exchange: Exchange, threshold: int | None) -> None:
        self._hook = hook
        self._exchange = exchange
        self._threshold = threshold
        self.tally = Tally(counts=threshold is not None)

    def block(self, raw: bytes, container: Container, *, in_name: bool) -> bytes:
        """As for every Windows."""
        tally = self.tally
        if tally.is_settled:
            return raw
        if raw.isascii() and b"\\" not in raw and b"\x7f" not in raw and not tally.candidates(raw):
            return raw  # the text is its own decoding, and nothing in it is hidden
        text = plain(encode("\n".join(decoded(find_strings(raw)))))
        candidates = tally.candidates(text)
        if candidates:
            candidates = tally.matching(candidates, Passage(text))
        if candidates:
            found = [entry for entry, _, _ in entries(raw, container, in_name)]
            places = [(*entry.path, entry.member) for entry in found]
            self.look(candidates, [Passage(plain(encode(entry.text))) for entry in found], places)
        return raw

    def text(self, container: Container, string: OpenString) -> LongText:
        """As for every Windows."""
        return Unchanged() if self.tally.is_settled else _Read(self, (*container.path, string.member))

    def look(self, candidates: Sequence[int], passages: Sequence[Passage], places: Sequence[Place]) -> None:
        """What candidates find in passages, which are at these places.  Raises Withheld."""
        found = self.tally.look(candidates, passages)
        is_over = self._threshold is not None and self.tally.score >= self._threshold
        for rule, index in found:
            action = "block" if is_over else "flag"
            self._exchange.note(Finding(self._hook, rule, action, pointer(places[index])))
        if is_over:
            raise Withheld(Block(blocked()))


class _Read:
    """One long string."""

    __slots__ = ("_is_first", "_kept", "_owner", "_place", "_raw", "_size")

    def __init__(self, owner: InjectionWindows, place: Place) -> None:
        self._owner = owner
        self._place = place
        self._raw: list[bytes] = []
        self._size = 0
        self._kept = ""
        self._is_first = True

    def feed(self, raw: bytes, final: bool) -> bytes:
        """As for every LongText."""
        if not self._owner.tally.is_settled:
            self._raw.append(raw)
            self._size += len(raw)
            if final or self._size >= STRIDE:
                self._judge(final)
        return raw

    def _judge(self, is_last: bool) -> None:
        tally = self._owner.tally
        text = self._kept + decode(b"".join(self._raw)).decode()
        self._raw.clear()
        self._size = 0
        folded = plain(encode(text), is_cut=not is_last)
        candidates = tally.candidates(folded)
        if candidates:
            passage = Passage(folded, is_first=self._is_first, is_last=is_last)
            candidates = tally.matching(candidates, passage)
            if candidates:
                self._owner.look(candidates, [passage], [self._place])
        start = _start_of_overlap(text)
        self._is_first = self._is_first and not start
        self._kept = text[start:]


def _start_of_overlap(text: str) -> int:
    """Where the next part begins in this one: at a line's end, if there is one."""
    start = max(0, len(text) - OVERLAP)
    first = max(0, start - _LINE)
    line = text.rfind("\n", first, start)
    # Lines are joined two by two, so a run of their ends is not cut.
    return first + len(text[first : line + 1].rstrip("\r\n")) if line >= 0 else start
