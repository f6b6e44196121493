"""Characters that people do not see and models and terminals do: control, invisible and bidirectional ones.

Stripping is exact and deterministic.  Some of these characters are needed to write: emoji are joined by U+200D and
styled by U+FE0F, Persian separates with U+200C, the flags of England, Scotland and Wales are tag sequences, Hebrew and
Arabic use direction marks.  Those stay, each only in the place where it does its work.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["BIDI", "ESCAPE_SEQUENCE", "INVISIBLE", "SUSPECT", "SUSPECT_RE2", "TERMINAL", "clean"]

# What the three kinds are called in findings.
TERMINAL = "terminal-controls"
INVISIBLE = "invisible-characters"
BIDI = "bidi-controls"

# C0 without tab, line feed and carriage return; DEL; C1.
_TERMINAL_RANGES = ((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F))
# Embeddings, overrides and isolates: they make text read otherwise than it is stored (CVE-2021-42574).
_BIDI_RANGES = ((0x202A, 0x202E), (0x2066, 0x2069))
_INVISIBLE_RANGES = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, non-joiner, joiner; direction marks
    (0x2060, 0x2065),  # word joiner, invisible operators
    (0x206A, 0x206F),  # deprecated formatting
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # zero-width no-break space
    (0xFFA0, 0xFFA0),  # half-width Hangul filler
    (0xFFF0, 0xFFFB),  # unassigned, interlinear annotation
    (0x1D173, 0x1D17A),  # musical formatting
    (0xE0000, 0xE0FFF),  # tags, variation selectors supplement
)


def _class(*groups: tuple[tuple[int, int], ...], escape: str) -> str:
    return "[" + "".join(f"{escape % low}-{escape % high}" for ranges in groups for low, high in ranges) + "]"


# For the first pass over a whole message, in RE2 syntax.
SUSPECT_RE2 = _class(_TERMINAL_RANGES, _BIDI_RANGES, _INVISIBLE_RANGES, escape=r"\x{%x}")

_TERMINAL = re.compile(_class(_TERMINAL_RANGES, escape=r"\U%08x"))
_BIDI = re.compile(_class(_BIDI_RANGES, escape=r"\U%08x"))
# Tag sequences that Unicode recommends for interchange (RGI): black flag, subdivision, cancel tag.
_FLAGS = "|".join("".join(chr(0xE0000 + ord(c)) for c in name) for name in ("gbeng", "gbsct", "gbwls"))
# The same for ``re``.
SUSPECT = _class(_TERMINAL_RANGES, _BIDI_RANGES, _INVISIBLE_RANGES, escape=r"\U%08x")
_SUSPECT_RUN = re.compile(f"\U0001f3f4(?:{_FLAGS})\U000e007f|{SUSPECT}+")
# ECMA-48: CSI sequences; OSC, DCS, SOS, PM and APC strings with their terminator; two-character sequences.  Possessive,
# so that text without a terminator is gone over once.
ESCAPE_SEQUENCE = (
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*+[0-~]"
)
_ESCAPE_SEQUENCE = re.compile(ESCAPE_SEQUENCE)

_ZWNJ, _ZWJ, _VS15, _VS16 = "\u200c", "\u200d", "\ufe0e", "\ufe0f"
_KEYCAP = "\u20e3"


def clean(text: str) -> tuple[str, frozenset[str]]:
    """The text without what nobody sees, and the kinds of what was stripped; the same object where nothing was."""
    if _SUSPECT_RUN.search(text) is None:
        return text, frozenset()
    kinds = set()
    # What becomes of a run depends on it and the characters beside it alone, and such texts repeat themselves.
    known: dict[tuple[str, bool], str] = {}
    plain = _ESCAPE_SEQUENCE.sub("", text)
    if plain != text:
        kinds.add(TERMINAL)

    def strip(match: re.Match[str]) -> str:
        start, end = match.span()
        key = (plain[start - 1 if start else 0 : end + 1], start > 0)
        kept = known.get(key)
        if kept is None:
            kept = known[key] = judge(match)
        return kept

    def judge(match: re.Match[str]) -> str:
        run = match.group()
        if run[0] == "\U0001f3f4" or _is_needed(run, match.string, match.start(), match.end()):
            return run
        if _TERMINAL.search(run):
            kinds.add(TERMINAL)
        if _BIDI.search(run):
            kinds.add(BIDI)
        if len(run) > len(_TERMINAL.findall(run)) + len(_BIDI.findall(run)):
            kinds.add(INVISIBLE)
        return ""

    stripped = _SUSPECT_RUN.sub(strip, plain)
    return (stripped, frozenset(kinds)) if kinds else (text, frozenset())


def _is_needed(run: str, text: str, start: int, end: int) -> bool:
    """Whether a run of invisible characters does what it is for, between the characters beside it."""
    before = text[start - 1] if start else ""
    after = text[end] if end < len(text) else ""
    if run in (_VS15, _VS16):
        return _is_visible(before) or (before in "0123456789#*" and before != "" and after == _KEYCAP)
    if run in (_ZWJ, _VS16 + _ZWJ):
        return _is_visible(before) and _is_visible(after)
    if run == _ZWNJ:
        return _is_letter(before) and _is_letter(after)
    if len(run) != 1:
        return False
    if run in "\u200e\u200f\u061c":
        return any(side and unicodedata.bidirectional(side) in ("R", "AL", "AN") for side in (before, after))
    if "\ufe00" <= run <= "\ufe0d" or "\U000e0100" <= run <= "\U000e01ef":
        return _is_visible(before)
    return "\u180b" <= run <= "\u180f" and "\u1820" <= before <= "\u18aa"


def _is_visible(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character)[0] in "LMNPS"


def _is_letter(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character)[0] in "LM"
