"""What goes wrong with bytes: flips, splices, tokens in wrong places, repetitions, cuts, broken UTF-8."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["EDGES", "damaged"]

_MAX_SIZE = 8192

# Bytes that one decoder or another takes for something else.
EDGES = (
    b"\x00", b"\xff", b"\xfe", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80", b"\xf0\x9f\x98", b"\x80",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x0c", b"\x1c", b"\x7f", b"\r", b"\n", b"\r\n", b"\t", b" ",
)  # fmt: skip


def _flip(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    at = source.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << source.randrange(8)),)) + data[at + 1 :]


def _replace(data: bytes, source: random.Random, tokens: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(data))
    return data[:at] + source.choice(tokens) + data[at + source.randint(1, 4) :]


def _insert(data: bytes, source: random.Random, tokens: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(data))
    return data[:at] + source.choice(tokens) + data[at:]


def _edge(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    return _insert(data, source, EDGES)


def _delete(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(data))
    return data[:at] + data[at + source.choice((1, 1, 1, 2, 8, 64)) :]


def _copy(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    start = source.randint(0, len(data))
    piece = data[start : start + source.randint(1, 64)]
    at = source.randint(0, len(data))
    return data[:at] + piece * source.choice((1, 1, 1, 2, 30)) + data[at:]


def _cut(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(data))
    return data[:at] if source.random() < 0.8 else data[at:]


def _swap(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    first, second, third = sorted(source.randint(0, len(data)) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def _random(data: bytes, source: random.Random, _: Sequence[bytes]) -> bytes:
    at = source.randint(0, len(data))
    return data[:at] + source.randbytes(source.randint(1, 6)) + data[at:]


_WAYS: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    _flip, _replace, _replace, _insert, _insert, _edge, _delete, _delete, _copy, _cut, _swap, _random,
)  # fmt: skip


def damaged(data: bytes, source: random.Random, tokens: Sequence[bytes]) -> bytes:
    """``data`` with one to four things wrong; ``tokens`` are those of its language.  Not much larger than it was."""
    for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4))):
        data = source.choice(_WAYS)(data, source, tokens)
    return data[:_MAX_SIZE]
