"""Connections to an upstream: aiohttp's, that tell their other side what has come, or wait in aiohttp's pool."""

from __future__ import annotations

import select
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection

from .upstream_side import UpstreamSide

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connector", "UpstreamConnection"]


class UpstreamConnection(ResponseHandler):
    """aiohttp's connection to a server; ``side`` is what a ``Pool`` has of it.

    ``expect`` prepares aiohttp's parser for an answer on the short lane, ``learn`` remembers its head.  ``in_use`` says
    whether it is out of the pool: nobody asks for what comes in there, be it half a head.
    """

    in_use = True
    side: UpstreamSide | None = None
    expect: Callable[[ResponseHandler], None]
    learn: Callable[[bytes, Any, Any], None]
    _poll: select.poll | None = None

    def data_received(self, data: bytes) -> None:
        side = self.side
        if side is None or side.listener is None:
            if self.in_use:
                super().data_received(data)
            else:
                self.close()
            return
        if side.take(data):
            return
        first = side.begin()
        if first:
            self.expect(self)
        super().data_received(data)
        if first and len(self._buffer) == 1:
            self.learn(data, *self._buffer[0][0])
        if side.listener is not None:
            side.listener.upstream_moved()

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
        if self.side is not None:
            self.side.lost()


class Connector(TCPConnector):
    """A connector that never reuses a connection on which something arrived unasked.

    A second response pushed onto an idle connection would be taken for the answer to the next request, and every later
    one would be off by one.  An idle connection has nothing to read; one that has is closed, as httpcore does.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = partial(UpstreamConnection, loop=self._loop)  # type: ignore[assignment]

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
