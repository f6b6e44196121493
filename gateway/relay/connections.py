"""Connections to an upstream: aiohttp's, that tell a listener what has come, and wait in aiohttp's pool."""

from __future__ import annotations

import select
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import MultiMapping

__all__ = ["Connector", "KnownAnswer", "KnownAnswers", "Listener", "UpstreamConnection"]

# Heads of answers that are remembered, and how long one may be in bytes.
_KNOWN_HEADS = 256
_KNOWN_HEAD = 2048


class KnownAnswer(NamedTuple):
    """What aiohttp's parser made of the head of a small JSON answer; ``length`` of the body in bytes."""

    status: int
    headers: MultiMapping[str]
    length: int


class Listener(Protocol):
    """Who is told, without a task in between, that something has come on a connection."""

    def upstream_answered(self, answer: KnownAnswer, body: bytes) -> None:
        """The whole answer, in one read, with a head that has been seen before."""

    def upstream_moved(self) -> None:
        """Bytes, the end or an error: what it was is in the connection's buffers."""


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

    def learn(self, data: bytes, message: RawResponseMessage, payload: StreamReader) -> None:
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


class UpstreamConnection(ResponseHandler):
    """aiohttp's connection to a server, with a listener while an exchange of the short lane uses it.

    ``expect`` is what prepares aiohttp's parser for the answer; None as soon as a byte of it is there.  ``in_use`` says
    whether it is out of the pool: nobody asks for what comes in there, be it half a head.
    """

    in_use = True
    listener: Listener | None = None
    expect: Callable[[ResponseHandler], None] | None = None
    known: KnownAnswers
    _poll: select.poll | None = None

    def data_received(self, data: bytes) -> None:
        listener = self.listener
        if listener is None:
            if self.in_use:
                super().data_received(data)
            else:
                self.close()
            return
        expect, self.expect = self.expect, None
        if expect is not None:
            found = self.known.find(data)
            if found is not None:
                listener.upstream_answered(*found)
                return
            expect(self)
        super().data_received(data)
        if expect is not None and len(self._buffer) == 1:
            self.known.learn(data, *self._buffer[0][0])
        listener.upstream_moved()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp feeds its parser an empty read after every read of a body, to go on where it was paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @property
    def is_readable(self) -> bool:
        """Whether the kernel holds bytes, an end or an error that the loop has not read yet."""
        if self._poll is None:
            sock = self.transport.get_extra_info("socket") if self.transport is not None else None
            if sock is None or sock.fileno() < 0:
                return True
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.upstream_moved()


class Connector(TCPConnector):
    """A connector that never reuses a connection on which something arrived unasked.

    A second response pushed onto an idle connection would be taken for the answer to the next request, and every later
    one would be off by one.  An idle connection has nothing to read; one that has is closed, as httpcore does.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = partial(UpstreamConnection, loop=self._loop)  # type: ignore[assignment]

    def take(self) -> Connection | None:
        """An idle connection, if there is one.  It is the taker's to release or close."""
        # All of a connector's connections go to one address, because each upstream has connectors of its own.
        for key in self._conns:
            try:
                self._get(key, []).send(None)
            except StopIteration as ready:
                return cast("Connection | None", ready.value)
        return None

    async def _get(self, key: ConnectionKey, traces: list[Any]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            assert isinstance(protocol, UpstreamConnection)
            if not protocol.should_close and not protocol.is_readable:
                protocol.in_use = True
                return connection
            connection.close()
        return None

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        assert isinstance(protocol, UpstreamConnection)
        protocol.in_use = False
        super()._release(key, protocol, should_close=should_close)
