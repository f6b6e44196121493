"""Text as it reads once what disguises it is undone: escapes, wide forms, invisible characters, base64.

Nothing here changes a message.  A disguised text is read into another one in which secrets are looked for, and every
place in that one is known in the original.  All of it is linear: one scan, one character out for each thing undone, and
compatibility forms are taken from a table, because normalising whole texts is quadratic.
"""

from __future__ import annotations

import binascii
import bisect
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import re2  # type: ignore[import-untyped]

from .controls import ESCAPE_SEQUENCE, SUSPECT

__all__ = [
    "BASE64_RE2",
    "FOLDED_RE2",
    "NORMALISERS",
    "Folded",
    "Normaliser",
    "Packed",
    "fold",
    "pack",
    "packed",
    "unpack",
]

# What can be undone: percent-encoding; escapes of JSON, of source code and of HTML; characters that nobody sees;
# full-width, mathematical and circled forms; base64 in both alphabets, with or without padding, also in lines.
Normaliser = Literal["percent", "escapes", "zero-width", "full-width", "base64"]
NORMALISERS: frozenset[Normaliser] = frozenset(get_args(Normaliser))

# Characters of credentials that nobody has a reason to escape: letters, digits, "-", "." and "_".
_PLAIN_HEX = "(?:2[dDeE]|3[0-9]|[46][1-9a-fA-F]|5[0-9aAfF]|7[0-9aA])"
_PLAIN_DECIMAL = "(?:4[5689]|5[0-7]|6[5-9]|[78][0-9]|9[0157-9]|1[01][0-9]|12[0-2])"
_WIDE_MARKS = r"[\x{ff10}-\x{ff19}\x{ff21}-\x{ff3a}\x{ff3f}\x{ff41}-\x{ff5a}\x{24b6}-\x{24e9}\x{1d400}-\x{1d7ff}]"

# For the first pass over a whole message, in RE2 syntax: escapes and forms that honest text has little use for.  What
# is escaped elsewhere too (%20, &amp;, \n) does not count by itself, but an escaped "://" may begin a URL with a
# password.
FOLDED_RE2 = (
    rf"%(?:25)*{_PLAIN_HEX}|%3a%2f%2f|\\(?:u00|x){_PLAIN_HEX}"
    rf"|&#x0{{0,4}}{_PLAIN_HEX};|&#0{{0,4}}{_PLAIN_DECIMAL};|{_WIDE_MARKS}"
)

# Printable ASCII in base64: of each four characters, three come from half of the alphabet or less.  Five such groups
# in a row are fifteen characters, less than any secret; among random ones they are found once in 500,000 places.
_GROUP = "[I-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_-]"
BASE64_RE2 = f"(?-i:(?:{_GROUP}){{5}})"

_RANGES = (
    (0x00AA, 0x00BE), (0x2070, 0x209C), (0x2100, 0x214F), (0x2160, 0x217F), (0x2460, 0x24FF), (0x3000, 0x3000),
    (0xFE4D, 0xFE6B), (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F130, 0x1F149), (0x1FBF0, 0x1FBF9),
)  # fmt: skip
_WIDE = {
    point: folded
    for low, high in _RANGES
    for point in range(low, high + 1)
    if len(folded := unicodedata.normalize("NFKC", chr(point))) == 1 and folded.isascii()
}
# Where something may be undone.  It begins with a class, which ``re`` looks for fast; a run of backslashes is gone over
# once, from its beginning, because JSON in JSON doubles them.
_BEGIN = re.compile(
    "[\\\\%&" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _RANGES) + SUSPECT[1:-1] + r"](?:(?<=\\)\\*+)?"
)
_INVISIBLE = re.compile(f"{ESCAPE_SEQUENCE}|{SUSPECT}+")
_WIDE_RUN = re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _RANGES) + "]+")
_ESCAPE = re.compile(r"u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrt]")
_ESCAPE_RUN = re.compile(r"(?:\\u00[0-9A-Fa-f]{2})+")
_PERCENT_RUN = re.compile(r"(?:%(?!25)[0-9A-Fa-f]{2})+")
# The percent sign may be escaped itself, again and again.
_PERCENT = re.compile(r"%(?:25)*[0-9A-Fa-f]{2}")
_ENTITY = re.compile(r"&#(?:[xX][0-9A-Fa-f]{1,8}|[0-9]{1,8});")
_SPACES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Folded:
    """A text with what disguises it undone, and where each character of it was."""

    text: str
    # Of each stretch that was undone: where it begins and ends in the text, and in the original.
    _starts: list[int]
    _ends: list[int]
    _origins: list[int]
    _behinds: list[int]
    _kinds: list[Normaliser]

    @property
    def count(self) -> int:
        """How many stretches were undone."""
        return len(self._kinds)

    def place(self, index: int) -> int:
        """Where in the original the character at an index of the text begins."""
        return self._origin(index, bisect.bisect_right(self._starts, index) - 1)

    def end(self, index: int) -> int:
        """Where in the original the character before an index of the text ends."""
        return self._origin(index, bisect.bisect_left(self._starts, index) - 1)

    def _origin(self, index: int, last: int) -> int:
        if last < 0:
            return index
        start, end, origin, behind = self._starts[last], self._ends[last], self._origins[last], self._behinds[last]
        if index >= end:
            return behind + index - end
        # All characters of a stretch were written with equally many.
        return origin + (index - start) * ((behind - origin) // (end - start))

    def kinds(self, start: int, end: int) -> frozenset[Normaliser]:
        """What was undone between two indexes of the text, or directly before the first."""
        first = bisect.bisect_left(self._ends, start)
        return frozenset(self._kinds[first : bisect.bisect_left(self._starts, end)])


def fold(text: str) -> Folded | None:
    """The text with escapes, wide forms and invisible characters undone; None where there are none."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    origins: list[int] = []
    behinds: list[int] = []
    kinds: list[Normaliser] = []
    last = size = 0
    for begin in _BEGIN.finditer(text):
        start = begin.start()
        if start < last:
            continue
        undone = _undo(text, start, begin.end())
        if undone is None:
            continue
        kind, characters, end = undone
        pieces += (text[last:start], characters)
        size += start - last
        starts.append(size)
        size += len(characters)
        ends.append(size)
        origins.append(start)
        behinds.append(end)
        kinds.append(kind)
        last = end
    if not kinds:
        return None
    pieces.append(text[last:])
    return Folded("".join(pieces), starts, ends, origins, behinds, kinds)


def _undo(text: str, start: int, end: int) -> tuple[Normaliser, str, int] | None:
    """What is disguised at a place, the characters under it, and where it ends."""
    first = text[start]
    if first == "%":
        found = _PERCENT_RUN.match(text, start)
        if found is not None:
            # Each octet as one character: secrets are ASCII.
            return "percent", bytes.fromhex(found[0].replace("%", "")).decode("latin-1"), found.end()
        found = _PERCENT.match(text, start)
        return None if found is None else ("percent", chr(int(found[0][-2:], 16)), found.end())
    if first == "\\":
        found = _ESCAPE_RUN.match(text, start) if end == start + 1 else None
        if found is not None:
            return "escapes", bytes.fromhex(found[0].replace("\\u00", "")).decode("latin-1"), found.end()
        found = _ESCAPE.match(text, end)
        if found is None:
            return None
        return "escapes", _SPACES.get(found[0]) or chr(int(found[0][1:], 16)), found.end()
    if first == "&":
        found = _ENTITY.match(text, start)
        if found is None:
            return None
        code = int(found[0][3:-1], 16) if found[0][2] in "xX" else int(found[0][2:-1])
        return "escapes", chr(code) if code <= 0x10FFFF else "\ufffd", found.end()
    found = _WIDE_RUN.match(text, start)
    if found is not None:
        return "full-width", found[0].translate(_WIDE), found.end()
    found = _INVISIBLE.match(text, start)
    return None if found is None else ("zero-width", "", found.end())


# -- base64 -----------------------------------------------------------------------------------------------------------

_RUN = re.compile(rb"[A-Za-z0-9+/_-]{20,}+={0,2}")
# ``re`` is quicker where it finds something at once, RE2 where it has far to go.
_HINT = re.compile(f"(?:{_GROUP}){{5}}".encode())
_DISTANT_HINT = re2.compile(_HINT.pattern)
_FAR = 1024
# Between the lines of one encoding, and a last line that is too short to be known by itself.
_BREAK = re.compile(rb"(?:(?:\\r)?\\n|\r?\n)[ \t]{0,16}")
_LAST_LINE = re.compile(rb"(?:(?:\\r)?\\n|\r?\n)[ \t]{0,16}[A-Za-z0-9+/_-]{1,76}={0,2}(?=[\s\"'<\\]|\Z)")
_MIN_LINE = 56
_STANDARD = bytes.maketrans(b"-_", b"+/")
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_NOT_ALPHABET = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"))


@dataclass(frozen=True, slots=True)
class Packed:
    """A run of base64 in a text: where it is, and what it says."""

    start: int
    end: int
    data: bytes


def packed(text: bytes) -> Iterator[Packed]:
    """The runs of base64 that hold printable ASCII, decoded, in order.

    A run that follows other characters of the alphabet, as in a path, is decoded from where it begins to make sense.
    """
    start = end = line = -1
    for match in _RUN.finditer(text):
        if start >= 0:
            if end - line >= _MIN_LINE and text[end - 1] != 0x3D and _BREAK.fullmatch(text, end, match.start()):
                line, end = match.span()
                continue
            yield from _decode(text, start, end, line)
        start, end = match.span()
        line = start
    if start >= 0:
        yield from _decode(text, start, end, line)


def _decode(text: bytes, start: int, end: int, line: int) -> Iterator[Packed]:
    hint = (_HINT if end - start < _FAR else _DISTANT_HINT).search(text, start, end)
    if hint is None:
        return
    if end - line >= _MIN_LINE and text[end - 1] != 0x3D:
        last = _LAST_LINE.match(text, end)
        end = last.end() if last is not None else end
    run = text[start:end]
    is_one = start == line and b"\n" not in run and b"\\" not in run
    shift = (hint.start() - start) % 4 if is_one else 0
    if not is_one:
        # Escaped line ends leave letters behind.
        run = run.replace(b"\\r", b"").replace(b"\\n", b"")
    digits = run.translate(_STANDARD, _NOT_ALPHABET)
    for first in (shift, 0) if shift else (0,):
        count = len(digits) - first
        part = digits[first : len(digits) - (count % 4 == 1)]
        data = binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        skipped = 0
        if is_one:
            # What is before makes no sense, such as the rest of a path, and is no part of it.
            before = data[: max(hint.start() - start - first, 0) // 4 * 3]
            skipped = (len(before.rstrip(_PRINTABLE)) + 2) // 3
        yield Packed(start + first + 4 * skipped, end, data[3 * skipped :])


def unpack(text: str) -> bytes | None:
    """What a text says that is base64 as a whole, as ``blob`` and ``data`` are; None if it is not."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        return None


def pack(data: bytes) -> str:
    """Base64 of RFC 4648 section 4, with padding."""
    return binascii.b2a_base64(data, newline=False).decode()
