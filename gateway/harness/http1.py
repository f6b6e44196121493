"""HTTP/1.1 as both peers read it (RFC 9112): heads as pairs in the order sent, bodies piece by piece as they arrive.

This reader is plain and tolerant on purpose, and shares nothing with aiohttp's: it is the other opinion.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from .connection import READ_SIZE, Connection, ConnectionClosed

__all__ = ["BadHttp", "Body", "Head", "HeaderSource", "Headers", "header", "header_values", "pairs", "read_head"]

Headers = tuple[tuple[str, str], ...]
HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]

MAX_HEAD = 256 * 1024
MAX_CHUNK_LINE = 4096


class BadHttp(Exception):
    """Bytes that are not HTTP/1.1; ``raw`` holds them as far as they were read."""

    def __init__(self, message: str, raw: bytes = b"") -> None:
        super().__init__(message)
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Head:
    """A start line cut at its first two spaces, and the header fields (latin-1, so that any byte survives)."""

    raw: bytes
    start: tuple[str, str, str]
    headers: Headers


def pairs(source: HeaderSource) -> Headers:
    """Header fields as pairs, from pairs or a mapping."""
    return tuple(source.items()) if isinstance(source, Mapping) else tuple(source)


def header_values(headers: Headers, name: str) -> list[str]:
    """All values of a field, in the order sent."""
    return [value for key, value in headers if key.lower() == name.lower()]


def header(headers: Headers, name: str) -> str | None:
    """The first value of a field, or None."""
    return next(iter(header_values(headers, name)), None)


async def read_head(connection: Connection, limit: int = MAX_HEAD) -> Head:
    """The next head.  Raises BadHttp, ConnectionClosed (nothing or half a head came), ConnectionResetError."""
    try:
        raw = await connection.read_until(b"\r\n\r\n", limit)
    except ValueError as error:
        raise BadHttp(str(error), connection.unread) from None
    lines = raw[:-4].decode("latin-1").split("\r\n")
    start = lines[0].split(" ", 2)
    if len(start) < 2:
        raise BadHttp("no start line", raw)
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadHttp("a header line without a colon", raw)
        headers.append((name, value.strip(" \t")))
    return Head(raw, (start[0], start[1], start[2] if len(start) > 2 else ""), tuple(headers))


class Body:
    """A body without its framing, piece by piece as it arrives.  A cancelled call loses nothing: call again.

    ``until_close`` says what a head without Content-Length and Transfer-Encoding means: a response goes on until the
    connection closes, a request has no body (RFC 9112, 6.3).  Chunked wins over Content-Length.
    """

    def __init__(self, connection: Connection, headers: Headers, *, until_close: bool) -> None:
        self._connection = connection
        self._length = header(headers, "content-length")
        self._left = 0
        self.trailers: list[bytes] = []
        self._next: Callable[[], Awaitable[bytes]]
        if "chunked" in (header(headers, "transfer-encoding") or "").lower():
            self._next = self._chunk_size
        elif self._length is not None:
            self._next = self._known_length
        else:
            self._next = self._connection.read if until_close else self._end

    async def piece(self) -> bytes:
        """1 to 65,536 bytes; b"" at the end.

        Raises BadHttp for broken framing, ConnectionClosed or ConnectionResetError for a body that was cut short.
        """
        return await self._next()

    async def _known_length(self) -> bytes:
        length = self._length or ""
        if not (length.isascii() and length.isdigit()):
            raise BadHttp("Content-Length is not a number")
        self._left, self._next = int(length), self._rest
        return await self._rest()

    async def _rest(self) -> bytes:
        return await self._some() if self._left else b""

    async def _some(self) -> bytes:
        data = await self._connection.read(min(self._left, READ_SIZE))
        if not data:
            raise ConnectionClosed("closed in the middle of a body")
        self._left -= len(data)
        return data

    async def _chunk_size(self) -> bytes:
        text = (await self._line())[:-2].split(b";", 1)[0].strip()
        if not text or not set(text) <= set(b"0123456789abcdefABCDEF"):
            raise BadHttp("a chunk size that is not a number")
        self._left = int(text, 16)
        self._next = self._chunk if self._left else self._trailer
        return await self._next()

    async def _chunk(self) -> bytes:
        data = await self._some()
        if not self._left:
            self._next = self._chunk_end
        return data

    async def _chunk_end(self) -> bytes:
        if await self._connection.read_exactly(2) != b"\r\n":
            raise BadHttp("no CRLF after a chunk")
        self._next = self._chunk_size
        return await self._next()

    async def _trailer(self) -> bytes:
        while (line := await self._line()) != b"\r\n":
            self.trailers.append(line)
        self._next = self._end
        return b""

    async def _end(self) -> bytes:
        return b""

    async def _line(self) -> bytes:
        try:
            return await self._connection.read_until(b"\r\n", MAX_CHUNK_LINE)
        except ValueError as error:
            raise BadHttp(str(error)) from None
