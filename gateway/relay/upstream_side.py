"""What aiohttp's class need not see of a connection to an upstream: a known answer at once, and its wait for the next
request.

A connection is aiohttp's to make, and to close; in between, it goes from request to request here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multidict import MultiMapping

    from .lane import Lane

__all__ = ["Idle", "KnownAnswer", "KnownAnswers", "UpstreamSide"]

# Heads of answers that are remembered, and how long one may be in bytes.
_KNOWN_HEADS = 256
_KNOWN_HEAD = 2048


class KnownAnswer:
    """What aiohttp's parser made of the head of a small JSON answer; ``length`` of the body in bytes."""

    __slots__ = ("headers", "length", "status")

    def __init__(self, status: int, headers: MultiMapping[str], length: int) -> None:
        self.status = status
        self.headers: Any = headers
        self.length = length


class KnownAnswers:
    """Heads of answers, byte for byte, that need not be parsed again: an upstream's answers to calls differ in their
    bodies, and in their date once a second.  Bounded, because it is the upstream that writes them."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownAnswer] = {}

    def find(self, data: bytes) -> tuple[KnownAnswer, bytes] | None:
        """The known head and the body of an answer that is these bytes and no others."""
        end = data.find(b"\r\n\r\n") + 4
        known = self._heads.get(data[:end])
        return (known, data[end:]) if known is not None and len(data) == end + known.length else None

    def learn(self, data: bytes, message: Any, payload: Any) -> None:
        """What the parser has read from these bytes, if that is all of a small JSON answer."""
        end = data.find(b"\r\n\r\n") + 4
        length = payload.total_bytes
        plain = not (message.should_close or message.chunked or message.compression or message.upgrade)
        if plain and message.code == 200 and payload.is_eof() and len(data) == end + length and end <= _KNOWN_HEAD:
            if message.headers.get("Content-Type", "").partition(";")[0] != "application/json":
                return
            if data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end):
                return  # the parser takes bare line feeds too: then the head may end before
            if len(self._heads) >= _KNOWN_HEADS:
                self._heads.clear()
            self._heads[data[:end]] = KnownAnswer(message.code, message.headers, length)


class UpstreamSide:
    """One connection to an upstream, in the hands of whoever took it from ``idle``.

    ``connection`` is aiohttp's, ``protocol`` its UpstreamConnection; ``listener`` is told what comes, if a lane has it.
    """

    __slots__ = ("_before_answer", "_connection", "_idle", "_known", "_parsed", "listener", "protocol",
                 "since", "transport")  # fmt: skip

    def __init__(self, connection: Any, idle: Idle, known: KnownAnswers) -> None:
        self.protocol: Any = connection.protocol
        self.transport: Any = self.protocol.transport
        self.listener: Lane | None = None
        self.since = 0.0
        self._connection: Any = connection
        self._idle = idle
        self._known = known
        self._before_answer = False
        self._parsed = True
        self.protocol.side = self

    def listen(self, lane: Lane) -> None:
        """A request has been written: tell the lane of its answer."""
        self.listener = lane
        self._before_answer = True

    def take(self, data: bytes) -> bool:
        """Whether these bytes are all of a known answer; the listener has got it, then."""
        if not self._before_answer or self.listener is None:
            return False
        found = self._known.find(data)
        if found is None:
            return False
        self._before_answer = False
        known, body = found
        self.listener.upstream_answered(known, body)
        return True

    def begin(self) -> bool:
        """Whether these are the first bytes of an answer: then aiohttp's parser has to be set up for it."""
        first, self._before_answer = self._before_answer, False
        self._parsed = True
        return first

    def release(self, now: float) -> None:
        """Done with a request, and all of its answer is there."""
        self.listener = None
        self._before_answer = False
        if self._parsed and self.protocol.should_close:
            self.close()
            return
        self._parsed = False
        self.since = now
        self._idle.put(self)

    def close(self) -> None:
        """Done with the connection."""
        self.listener = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def lost(self) -> None:
        """The connection is gone."""
        if self.listener is not None:
            self.listener.upstream_moved()
        elif not self.protocol.in_use:
            self._idle.forget(self)

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing has come on it since its last answer."""
        return not (self.transport.is_closing() or self.protocol.is_readable)


class Idle:
    """Connections that wait for the next request, ``keep`` seconds at most; 0 for connections of one request."""

    __slots__ = ("_keep", "_loop", "_sides", "_timer")

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        # The one that was used last is taken first: what is not needed for long can go.
        self._sides: list[UpstreamSide] = []
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sides)

    def take(self, now: float) -> UpstreamSide | None:
        """One on which nothing came unasked: a second response pushed onto an idle connection would be taken for the
        answer to the next request, and every later one would be off by one.  None if there is none."""
        while self._sides:
            side = self._sides.pop()
            if now - side.since <= self._keep and side.is_quiet():
                side.protocol.in_use = True
                return side
            side.close()
        return None

    def put(self, side: UpstreamSide) -> None:
        """Let one wait."""
        if not self._keep or side.transport.is_closing():
            side.close()
            return
        side.protocol.in_use = False
        self._sides.append(side)
        if self._timer is None:
            self._timer = self._loop.call_later(self._keep, self._expire)

    def forget(self, side: UpstreamSide) -> None:
        """One has gone by itself."""
        if side in self._sides:
            self._sides.remove(side)
        side.close()

    def close(self) -> None:
        """Close them all."""
        if self._timer is not None:
            self._timer.cancel()
        while self._sides:
            self._sides.pop().close()

    def _expire(self) -> None:
        self._timer = None
        due = self._loop.time() - self._keep
        while self._sides and self._sides[0].since <= due:
            self._sides.pop(0).close()
        if self._sides:
            self._timer = self._loop.call_at(self._sides[0].since + self._keep, self._expire)
