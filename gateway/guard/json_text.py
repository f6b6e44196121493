"""JSON text that has been read before, by those who judge it in pieces: its strings, and where they are in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import jiter

from ..wire.incremental import Container, whole
from .edit import Place, Text

__all__ = ["decode", "decoded", "entries", "find_strings", "raw_offsets"]

# So much JSON text is gone through to find an offset in it.
_STEP = 1024

_STRING = rb'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
find_strings = re.compile(_STRING, re.DOTALL).findall
_tokens = re.compile(rb"[\[\]{},]|" + _STRING, re.DOTALL).finditer
_escapes = re.compile(rb"\\(?:u(?:[dD][89abAB]..\\u....|....)|.)", re.DOTALL).finditer


def decode(raw: bytes) -> bytes:
    """The text of a string's inside."""
    if b"\\" not in raw:
        return raw
    text: str = jiter.from_json(b'"%b"' % raw, cache_mode="none")
    return text.encode()


def decoded(strings: Sequence[bytes]) -> list[str]:
    """Strings with their quotes, as text."""
    texts: list[str] = jiter.from_json(b"[%b]" % b",".join(strings), cache_mode="none")
    return texts


def raw_offsets(raw: bytes, offsets: Sequence[int]) -> list[int]:
    """Where offsets of the decoded text, in ascending order, are in the JSON text."""
    if b"\\" not in raw:
        return list(offsets)
    found: list[int] = []
    begin = passed = 0
    while len(found) < len(offsets):
        end = max(whole(raw, begin, min(len(raw), begin + _STEP)), min(len(raw), begin + 1))
        size = len(decode(raw[begin:end]))
        while len(found) < len(offsets) and (offsets[len(found)] <= passed + size or end == len(raw)):
            found.append(begin + _raw_offset(raw[begin:end], offsets[len(found)] - passed))
        begin, passed = end, passed + size
    return found


def _raw_offset(raw: bytes, offset: int) -> int:
    longer = 0  # is the JSON text so far
    for match in _escapes(raw):
        if offset <= match.start() - longer:
            break
        longer += match.end() - match.start() - len(decode(match[0]))
    return offset + longer


def entries(raw: bytes, container: Container, in_name: bool) -> Iterator[tuple[Text, int, int]]:
    """Names and strings of a block, and where they are."""
    tokens = list(_tokens(raw))
    texts = iter(decoded([token[0] for token in tokens if token[0][:1] == b'"']))
    path, index = container.path, container.element
    is_name = index is None and in_name
    member: str | int = "" if index is None else index
    stack: list[tuple[Place, int | None, str | int]] = []
    for token in tokens:
        kind = raw[token.start()]
        if kind == 0x22:
            text = next(texts)
            if is_name:
                member = text
            yield Text(path, member, text, is_name), token.start(), token.end()
            is_name = False
        elif kind == 0x2C:
            if index is None:
                is_name = True
            else:
                member = index = index + 1
        elif kind == 0x7B or kind == 0x5B:
            stack.append((path, index, member))
            path = (*path, member) if path or stack[1:] or member != "" else path
            is_name = kind == 0x7B
            index = None if is_name else 0
            member = "" if is_name else 0
        elif stack:
            path, index, member = stack.pop()
            is_name = False
        else:
            # The container that the block began in ends: what is around it is told by its own path.
            member = path[-1] if path else ""
            path = path[:-1]
            index = member if type(member) is int else None
            is_name = False
