"""One end of a TCP connection, with nothing hidden: what arrived and when, how the peer left, RST and FIN at will.

Both the scripted upstream and the raw client stand on it.  asyncio's streams do not say when bytes arrived, whether
the peer left by FIN or by RST, or what is still unread; tests of a relay ask for exactly these.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import cast

__all__ = ["Connection", "ConnectionClosed", "cut"]

READ_SIZE = 64 * 1024


class ConnectionClosed(ConnectionError):
    """The peer sent FIN where more bytes were expected; ``partial`` is what had come of them."""

    def __init__(self, message: str, partial: bytes = b"") -> None:
        super().__init__(message)
        self.partial = partial


class Connection(asyncio.Protocol):
    """Buffered reading and drained writing on one socket.  Times are seconds of ``time.monotonic()``.

    ``number``      counts from 0, in the order of accepting
    ``opened``      when the connection was made
    ``taken``       when the bytes that were read last had arrived
    ``left``        when the peer's FIN or RST came, None while it is there
    ``how``         "fin" or "reset" once the peer has left
    ``ended``       True when this end closed the connection
    ``bytes_sent``  bytes of finished writes: the kernel took them, which does not say that the peer read them
    ``read_ahead``  with more unread bytes than this the socket is not read, so that the peer feels back-pressure;
                    a peer that leaves meanwhile is noticed only after reading on
    """

    def __init__(
        self,
        number: int = 0,
        *,
        read_ahead: int = READ_SIZE,
        on_open: Callable[[Connection], None] | None = None,
        on_change: Callable[[Connection], None] | None = None,
    ) -> None:
        self.number = number
        self.read_ahead = read_ahead
        self.opened = 0.0
        self.taken = 0.0
        self.left: float | None = None
        self.how: str | None = None
        self.ended = False
        self.bytes_sent = 0
        self.gone = asyncio.Event()
        self.lost = asyncio.Event()
        self._on_open = on_open
        self._on_change = on_change
        self._buffer = bytearray()
        # (position in the stream where an arrival ends, its time), for what is unread.
        self._arrivals: deque[tuple[int, float]] = deque()
        self._in = self._out = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._eof = False
        self._fin_sent = False
        self._reset = False
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"left by {self.how}" if self.left is not None else "open"
        return f"<Connection {self.number} {state} unread={len(self._buffer)} sent={self.bytes_sent}>"

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Nothing may stay in this process: a write is over when the kernel has all of it.
        self._transport.set_write_buffer_limits(high=0)
        # asyncio leaves Nagle's algorithm on for sockets made without a protocol number: small writes wait 40 ms.
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened = asyncio.get_running_loop().time()
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        self._in += len(data)
        self._arrivals.append((self._in, asyncio.get_running_loop().time()))
        self._buffer += data
        self._readable.set()
        if len(self._buffer) > self.read_ahead and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._peer_left("fin")
        return True  # The other direction stays open: half-close is legal TCP.

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended:
            self._reset = self._reset or not self._eof
            self._peer_left("reset")
        self._eof = True
        self.lost.set()
        self.gone.set()
        self._readable.set()
        self._writable.set()
        if self._on_change is not None:
            self._on_change(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _peer_left(self, how: str) -> None:
        if self.left is None:
            self.left = asyncio.get_running_loop().time()
            self.how = how
        self.gone.set()
        self._readable.set()
        if self._on_change is not None:
            self._on_change(self)

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """True while neither end has closed."""
        return self._transport is not None and self.left is None and not self.ended

    @property
    def unread(self) -> bytes:
        """What has arrived and was not read."""
        return bytes(self._buffer)

    async def wait_readable(self) -> bool:
        """Waits for unread bytes; False when none can come any more."""
        while not self._buffer:
            if self._eof:
                return False
            self._resume()
            self._readable.clear()
            await self._readable.wait()
        return True

    async def read(self, size: int = READ_SIZE) -> bytes:
        """1 to ``size`` bytes that arrived together; b"" after FIN.  Raises ConnectionResetError after RST."""
        if not await self.wait_readable():
            if self._reset:
                raise ConnectionResetError("the peer reset the connection")
            return b""
        return self._take(min(size, self._arrivals[0][0] - self._out))

    async def read_exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes, a few.  Raises ConnectionClosed or ConnectionResetError when they do not come."""
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    async def read_until(self, mark: bytes, limit: int) -> bytes:
        """Bytes up to and with ``mark``.  Raises ValueError beyond ``limit`` bytes, and like :meth:`read_exactly`."""
        searched = 0
        while True:
            # Each byte is searched once, whatever the peer's chunking: only the last len(mark)-1 bytes are seen twice.
            at = self._buffer.find(mark, searched)
            if at >= 0 and at + len(mark) <= limit:
                return self._take(at + len(mark))
            if at >= 0 or len(self._buffer) >= limit:
                raise ValueError(f"no {mark!r} within {limit} bytes")
            searched = max(0, len(self._buffer) - len(mark) + 1)
            await self._more()

    async def _more(self) -> None:
        """Waits for bytes beyond the unread ones."""
        if self._reset:
            raise ConnectionResetError("the peer reset the connection")
        if self._eof:
            raise ConnectionClosed("the peer closed the connection where more had to come", self.unread)
        self._resume()
        self._readable.clear()
        await self._readable.wait()

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._out += size
        while self._arrivals[0][0] < self._out:
            self._arrivals.popleft()
        self.taken = self._arrivals[0][1]
        if self._arrivals[0][0] == self._out:
            self._arrivals.popleft()
        if len(self._buffer) <= self.read_ahead:
            self._resume()
        return data

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self.lost.is_set():
            self._paused = False
            self._transport.resume_reading()

    # -- writing and leaving ------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has taken all.  Raises ConnectionError when that cannot be."""
        transport = self._transport
        if transport is None or self.lost.is_set() or transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        if self._fin_sent:
            raise BrokenPipeError("this end has said that it sends no more")
        transport.write(data)
        await self._writable.wait()
        if self.lost.is_set():
            raise ConnectionResetError("the connection was lost while writing")
        self.bytes_sent += len(data)

    async def write_pieces(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        """Writes each piece in a TCP segment of its own.  A peer in the same event loop reads them one by one; another
        process may find several at once unless ``pause`` (seconds) gives it time to read."""
        for piece in pieces:
            await self.write(piece)
            if pause:
                await asyncio.sleep(pause)
            else:
                # Two turns of the loop: after the first the peer's socket is only known to be readable.
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    def send_fin(self) -> None:
        """Half-close: no more bytes from this end, the other direction stays open."""
        if self._transport is not None and not self.lost.is_set():
            self._fin_sent = True
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    async def close(self) -> None:
        """FIN, and no more reading.  Safe to call again."""
        self.abort()
        await self._lost()

    async def reset(self) -> None:
        """RST: unread and unsent bytes are thrown away.  Safe to call again."""
        if self._transport is not None and not self.lost.is_set():
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.abort()
        await self._lost()

    def abort(self) -> None:
        """Begins to close, without waiting for the end."""
        if self._transport is not None and not self.lost.is_set():
            self.ended = self.ended or self.left is None
            # Writes were drained, so nothing is lost; the transport's close() would wait for a peer that does not read.
            self._transport.abort()
            if self._on_change is not None:
                self._on_change(self)

    async def _lost(self) -> None:
        if self._transport is not None:
            await self.lost.wait()


def cut(data: bytes, sizes: Iterable[int] = (), every: int | None = None) -> Iterator[bytes]:
    """``data`` in pieces: first of the given ``sizes``, then ``every`` bytes; without ``every`` the rest in one."""
    at = 0
    for size in sizes:
        if at < len(data):
            yield data[at : at + size]
            at += size
    step = every or max(1, len(data) - at)
    for start in range(at, len(data), step):
        yield data[start : start + step]
