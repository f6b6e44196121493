"""One HTTP response as it came over the wire: what was said, when it arrived, and whether it was whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

import orjson

from ..wire import sse
from .connection import Connection
from .http1 import BadHttp, Body, Headers, header, header_values, read_head

__all__ = ["Response", "read_response"]

# The harness reads what a gateway lets through; the gateway's own limits are far below.
MAX_EVENT = 1024 * 1024 * 1024


class Response:
    """A response whose head has arrived.  Read the body with :meth:`read`, :meth:`pieces`, :meth:`frames`, or
    :meth:`messages`.

    ``status`` ``reason`` ``version``  of the status line
    ``headers``   pairs in the order sent, names as written;  ``raw_head`` the same as bytes
    ``time``      when the head arrived, seconds of ``time.monotonic()``
    ``interim``   the 1xx heads before it
    ``body_raw``  the body so far, without its HTTP framing
    ``complete``  None while the body is under way, then whether it ended as its framing promised
    ``fault``     why it is not complete: ConnectionClosed, ConnectionResetError or BadHttp
    """

    def __init__(
        self,
        connection: Connection,
        start: tuple[str, str, str],
        headers: Headers,
        *,
        raw_head: bytes,
        bodyless: bool,
        within: float,
        interim: tuple[Response, ...] = (),
    ) -> None:
        self.version, status, self.reason = start
        self.status = int(status)
        self.headers = headers
        self.raw_head = raw_head
        self.time = connection.taken
        self.interim = interim
        self.complete: bool | None = True if bodyless else None
        self.fault: Exception | None = None
        self._connection = connection
        self._within = within
        self._body = Body(connection, headers, until_close=True)
        self._parts: list[tuple[float, bytes]] = []
        self._decoder = sse.Decoder(MAX_EVENT, MAX_EVENT)
        self._decoded = 0
        self._frames: deque[tuple[float, sse.Frame]] = deque()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.header('content-type')} complete={self.complete}>"

    def header(self, name: str) -> str | None:
        """The first value of a field, or None."""
        return header(self.headers, name)

    def header_values(self, name: str) -> list[str]:
        """All values of a field, in the order sent."""
        return header_values(self.headers, name)

    @property
    def body_raw(self) -> bytes:
        """The body as far as it was read."""
        return b"".join(data for _, data in self._parts)

    @property
    def is_stream(self) -> bool:
        """True for an event stream."""
        return (self.header("content-type") or "").split(";")[0].strip().lower() == "text/event-stream"

    async def piece(self, within: float | None = None) -> tuple[float, bytes] | None:
        """The next bytes with their arrival time, None at the end of the body (whole or not: see ``complete``).

        ``within`` in seconds; after a TimeoutError the rest is still readable.
        """
        if self.complete is not None:
            return None
        if len(self._parts) % 256 == 255:
            # Pieces that are there already need no wait: without this a flood would hold up everybody else in the loop.
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(self._within if within is None else within):
                data = await self._body.piece()
        except (BadHttp, ConnectionError) as fault:
            self.complete, self.fault = False, fault
            return None
        if not data:
            self.complete = True
            return None
        self._parts.append((self._connection.taken, data))
        return self._parts[-1]

    def pieces(self, within: float | None = None) -> AsyncIterator[tuple[float, bytes]]:
        """Every further piece; ``within`` bounds the wait for each."""
        return _Each(lambda: self.piece(within))

    async def read(self, within: float | None = None) -> bytes:
        """The whole body, or what came of it: see ``complete``.  ``within`` bounds all of it."""
        async with asyncio.timeout(self._within if within is None else within):
            while await self.piece():
                pass
        return self.body_raw

    async def json(self, within: float | None = None) -> Any:
        """The whole body as JSON."""
        return orjson.loads(await self.read(within))

    async def frame(self, within: float | None = None) -> tuple[float, sse.Frame] | None:
        """The next SSE frame with its arrival time, comments included; None at the end of the body.

        ``within`` bounds the wait for each piece.  An event that the end cut off is no frame: see ``partial_event``.
        """
        while not self._frames:
            while self._decoded < len(self._parts):
                arrived, data = self._parts[self._decoded]
                self._decoded += 1
                self._frames.extend((arrived, frame) for frame in self._decoder.feed(data))
            if not self._frames and await self.piece(within) is None:
                self._decoder.close()
                return None
        return self._frames.popleft()

    def frames(self, within: float | None = None) -> AsyncIterator[tuple[float, sse.Frame]]:
        """Every further frame, as :meth:`frame` gives them.  A loop that was left goes on with the next frame."""
        return _Each(lambda: self.frame(within))

    @property
    def partial_event(self) -> bool:
        """Whether the stream ended in the middle of an event, once all frames were read."""
        return self._decoder.partial

    async def messages(self, within: float | None = None) -> list[Any]:
        """All JSON documents of the answer: the body, or the data of every event that has some.

        ``within`` bounds the wait for each piece.  Raises orjson.JSONDecodeError for what is not JSON.
        """
        if self.is_stream:
            return [orjson.loads(frame.data) async for _, frame in self.frames(within) if frame.data]
        body = await self.read(within)
        return [orjson.loads(body)] if body else []

    async def answer(self, within: float | None = None) -> Any:
        """The JSON-RPC result or error of the answer: the last document that is one.  LookupError without any."""
        for document in reversed(await self.messages(within)):
            if isinstance(document, dict) and ("result" in document or "error" in document):
                return document
        raise LookupError(f"{self!r} holds no JSON-RPC response: {self.body_raw[:500]!r}")


T = TypeVar("T")


class _Each(Generic[T]):
    """Iterates over calls until one gives None.  No generator: leaving the loop early leaves nothing to finalize."""

    def __init__(self, call: Callable[[], Awaitable[T | None]]) -> None:
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item = await self._call()
        if item is None:
            raise StopAsyncIteration
        return item


async def read_response(connection: Connection, *, method: str, within: float) -> Response:
    """The next response head.  ``method`` is that of the request: HEAD has no body (RFC 9112, 6.3).

    Raises ConnectionClosed, ConnectionResetError, BadHttp, TimeoutError.
    """
    interim: list[Response] = []
    async with asyncio.timeout(within):
        while True:
            head = await read_head(connection)
            if not (head.start[0].startswith("HTTP/") and len(head.start[1]) == 3 and head.start[1].isdigit()):
                raise BadHttp("not a status line", head.raw)
            status = int(head.start[1])
            response = Response(
                connection,
                head.start,
                head.headers,
                raw_head=head.raw,
                bodyless=method == "HEAD" or status < 200 or status in (204, 304),
                within=within,
                interim=tuple(interim),
            )
            if status >= 200:
                return response
            interim.append(response)
