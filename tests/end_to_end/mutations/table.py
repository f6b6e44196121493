"""One mutated request, and the table to which they are added."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CHUNKED",
    "HOST",
    "LAST",
    "Case",
    "Outcome",
    "Table",
    "Token",
    "call",
    "chunk",
    "fields",
    "mark",
    "message",
    "post",
]

HOST = b"mcp.example.com"
DENIED = "denied_tool"

# What the gateway itself, with nothing before it, makes of the carrier: ``refused``, and nothing after it on the
# connection is read; ``declined`` where its end is beyond doubt, so that the next request is the next; ``passes``.
Outcome = Literal["refused", "declined", "passes"]


@dataclass(frozen=True, slots=True)
class Case:
    """``data`` is what is sent.

    ``alone``    nothing hidden may ever be run, as it lies within a body that every parser has to read in the same way
    ``through``  with a front before the gateway, the carrier has to pass too
    ``last``     the connection ends with the carrier: bytes that come at once with it are a mistake, later ones nothing
    """

    name: str
    number: int
    data: bytes
    outcome: Outcome
    alone: bool = False
    through: bool = False
    last: bool = False

    @property
    def cut(self) -> int:
        """Where the first hidden request begins; the length where there is none."""
        at = self.data.find(b"POST /mcp HTTP/1.1\r\nHost:", 1)
        return len(self.data) if at < 0 else at

    def mark(self, part: str) -> str:
        """What a call of this case has as its argument."""
        return mark(self.number, part)


@dataclass(frozen=True, slots=True)
class Token:
    """The two callers' tokens."""

    own: bytes
    other: bytes


def mark(number: int, part: str) -> str:
    return f"m{number}-{part}"


def call(text: str, tool: str = "echo") -> bytes:
    """A tools/call with one argument, as JSON."""
    params = {"name": tool, "arguments": {"mark": text}}
    return json.dumps({"jsonrpc": "2.0", "id": text, "method": "tools/call", "params": params}).encode()


def fields(token: bytes) -> list[bytes]:
    return [
        b"Host: " + HOST,
        b"Authorization: Bearer " + token,
        b"Accept: application/json, text/event-stream",
        b"Content-Type: application/json",
    ]


def message(lines: Iterable[bytes], body: bytes = b"", start: bytes = b"POST /mcp HTTP/1.1") -> bytes:
    return b"\r\n".join((start, *lines, b"", b"")) + body


def post(token: bytes, body: bytes) -> bytes:
    """A correct request."""
    return message([*fields(token), b"Content-Length: %d" % len(body)], body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


class Table:
    """Cases as they are added; ``hidden`` and ``carrier`` belong to the one that is added next."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.cases: list[Case] = []

    @property
    def carrier(self) -> bytes:
        return call(mark(len(self.cases), "carrier"))

    @property
    def hidden(self) -> bytes:
        number = len(self.cases)
        denied, allowed = call(mark(number, "denied"), DENIED), call(mark(number, "hidden"))
        return post(self.token.own, denied) + post(self.token.own, allowed)

    def add(self, name: str, data: bytes, outcome: Outcome = "refused", **options: bool) -> None:
        assert name not in {each.name for each in self.cases}, name
        self.cases.append(Case(name, len(self.cases), data, outcome, **options))

    def framed(self, name: str, framing: Iterable[bytes], body: bytes, outcome: Outcome = "refused", **o: bool) -> None:
        """A request with its own framing fields."""
        self.add(name, message([*fields(self.token.own), *framing], body), outcome, **o)

    def plain(self, name: str, extra: Iterable[bytes], outcome: Outcome = "refused", **options: bool) -> None:
        """A request with an exact Content-Length and further fields, and another after it."""
        body = self.carrier
        lines = [*fields(self.token.own), *extra, b"Content-Length: %d" % len(body)]
        self.add(name, message(lines, body + self.hidden), outcome, **options)

    def edited(self, name: str, edit: Callable[[bytes], bytes], outcome: Outcome = "refused", **options: bool) -> None:
        """A correct request whose head was changed, and another after it."""
        head, end, body = post(self.token.own, self.carrier).partition(b"\r\n\r\n")
        self.add(name, edit(head + end) + body + self.hidden, outcome, **options)
