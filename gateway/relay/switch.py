"""One event stream that carries the answers to many requests, sorted into one stream for each of them.  Sans-IO.

The HTTP+SSE transport has one stream from the server for everything (rule 1.10).  The exchange core wants what
streamable HTTP has: a stream for each request, and one for what belongs to none.  Who gets a message is decided here by
its id or its progress token; what the message may say is judged there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from ..protocol.errors import UpstreamProtocolError
from ..wire import sse
from ..wire.envelope import RequestId, is_request_id

__all__ = ["Outlet", "Switch"]

# What may wait for a client that does not read, in bytes, beyond the message that exceeds it; and what is kept of
# messages that belong to no request while nobody listens for them.
FULL = 256 * 1024


class Outlet:
    """The messages for one request, or for whoever listens, as a body that is read like aiohttp's.

    ``id`` is that of the request, ``token`` its progress token.
    """

    __slots__ = ("_chunks", "_ended", "_error", "_forget", "_moved", "_waiting", "id", "size", "token")

    def __init__(self, id: RequestId | None, token: RequestId | None, forget: Callable[[Outlet], None]) -> None:
        self.id = id
        self.token = token
        self.size = 0
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._forget = forget
        # One that waits for something to read, and one that waits for room.
        self._waiting: asyncio.Future[None] | None = None
        self._moved: asyncio.Future[None] | None = None

    # -- the writing side ---------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the one side has to wait for the other."""
        return self.size > FULL

    def put(self, data: bytes) -> None:
        """Add whole events."""
        if not self._ended:
            self._chunks.append(data)
            self.size += len(data)
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; the reader gets ``error`` behind what is there."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    async def room(self) -> None:
        """Until it is not full, or nobody reads it any more."""
        while self.full:
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- the reading side ---------------------------------------------------------------------------------------------

    async def begun(self) -> None:
        """Until there is something to read, or the end."""
        while not (self._chunks or self._ended):
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def at_eof(self) -> bool:
        """Whether all of it has been read."""
        return self._ended and not self._chunks and self._error is None

    def read_nowait(self, n: int = -1) -> bytes:
        """What is there, n bytes at most (-1: all); raises what it was ended with."""
        if not self._chunks:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return b""
        taken = [self._chunks.popleft()]
        size = len(taken[0])
        while self._chunks and (n < 0 or size < n):
            taken.append(self._chunks.popleft())
            size += len(taken[-1])
        if 0 <= n < size:
            rest = len(taken[-1]) - (size - n)
            self._chunks.appendleft(taken[-1][rest:])
            taken[-1] = taken[-1][:rest]
        data = b"".join(taken)
        self.size -= len(data)
        if not self.full:
            self._room()
        return data

    async def read(self, n: int) -> bytes:
        """What is there, at least a byte and n at most; b"" at the end."""
        await self.begun()
        return self.read_nowait(n)

    async def readany(self) -> bytes:
        """What is there, at least a byte; b"" at the end."""
        await self.begun()
        return self.read_nowait()

    def close(self) -> None:
        """Nobody reads it any more."""
        self._forget(self)
        self._ended = True
        self._error = None
        self._chunks.clear()
        self.size = 0
        self._room()
        self._wake()

    def _room(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)


class Switch:
    """The requests of one session that wait for answers, and who listens for the rest.

    ``initialized`` is whether the answer to initialize has come, and was a result; None before it.
    """

    def __init__(self) -> None:
        self.initialized: bool | None = None
        self._waiting: dict[RequestId, Outlet] = {}
        self._listener: Outlet | None = None
        self._kept: deque[bytes] = deque()
        self._kept_size = 0

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._waiting and self._listener is None

    @property
    def is_listened_to(self) -> bool:
        """Whether there is a stream for what belongs to no request."""
        return self._listener is not None

    def wait(self, id: RequestId, token: RequestId | None) -> Outlet:
        """The stream of a request that is being sent; one that had the same id ends."""
        earlier = self._waiting.pop(id, None)
        if earlier is not None:
            earlier.end()
        outlet = self._waiting[id] = Outlet(id, token, self._forget)
        return outlet

    def listen(self) -> Outlet:
        """The stream of what belongs to no request, beginning with what was kept."""
        assert self._listener is None
        listener = self._listener = Outlet(None, None, self._forget)
        for data in self._kept:
            listener.put(data)
        self._kept.clear()
        self._kept_size = 0
        return listener

    def cancel(self, id: object) -> None:
        """The client does not wait for an answer any more, and the server need not give one."""
        outlet = self._waiting.pop(id, None) if is_request_id(id) else None  # type: ignore[call-overload]
        if outlet is not None:
            outlet.end()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes for anybody."""
        for outlet in (*self._waiting.values(), *(() if self._listener is None else (self._listener,))):
            outlet.end(error)
        self._waiting.clear()
        self._listener = None
        self._kept.clear()

    def _forget(self, outlet: Outlet) -> None:
        if self._listener is outlet:
            self._listener = None
        elif outlet.id is not None and self._waiting.get(outlet.id) is outlet:
            del self._waiting[outlet.id]

    def take(self, frame: sse.Frame) -> Outlet | None:
        """Give a frame to whom it belongs; returns who may be full now.

        Raises UpstreamProtocolError for one that nobody can read: it may have been anybody's answer.
        """
        if not frame.data:
            # A sign of life, for all; but it must not fill the memory of those who do not read.
            for outlet in (*self._waiting.values(), *(() if self._listener is None else (self._listener,))):
                if not outlet.size:
                    outlet.put(sse.comment())
            return None
        if frame.event not in (None, b"", b"message"):
            return None  # rule 4.13: clients would ignore it
        # No event ids, for nothing can be resumed here.
        plain = frame.id is None and frame.retry is None
        data = frame.raw if plain else sse.encode(frame.data, event=b"message")
        try:
            document = orjson.loads(frame.data)
        except orjson.JSONDecodeError as error:
            raise UpstreamProtocolError("the upstream sent a message that is not JSON") from error
        outlet = self._owner(document)
        if outlet is None:
            if type(document) is dict and "method" in document:
                self._keep(data)
            return None
        outlet.put(data)
        if outlet.id is not None and outlet.id not in self._waiting:
            outlet.end()
        return outlet

    def _owner(self, document: Any) -> Outlet | None:
        anybody = self._listener or next(reversed(self._waiting.values()), None)
        if type(document) is not dict:
            return anybody
        if "method" in document:
            if document["method"] == "notifications/progress":
                params = document.get("params")
                token = params.get("progressToken") if type(params) is dict else None
                for each in self._waiting.values():
                    if type(each.token) is type(token) and each.token == token and token is not None:
                        return each
            return anybody
        id = document.get("id")
        if id is None and "error" in document and len(self._waiting) == 1:
            id = next(iter(self._waiting))  # an error that could not name its request
        # As keys, 1 is 1.0 and True: neither is an id.
        outlet: Outlet | None = self._waiting.pop(id, None) if is_request_id(id) else None  # type: ignore[arg-type]
        if outlet is not None and self.initialized is None:
            self.initialized = "result" in document
        return outlet

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_size += len(data)
        while self._kept_size > FULL:
            self._kept_size -= len(self._kept.popleft())
