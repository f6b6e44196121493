"""What aiohttp's class need not see of a client's connection: requests for the short lane, one after the other.

A client repeats its head with every call: one that is the same byte for byte, and stands where a head must, is not
parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .alarm import Alarm
from .gate import Head, Passed
from .lane import Lane

if TYPE_CHECKING:
    from ..protocol.headers import Fields
    from .endpoint import Endpoint
    from .upstream import Pool

__all__ = ["ClientSide", "KnownHead", "Lanes"]

# Heads of requests that are remembered, and how long one may be in bytes.
_KNOWN_HEADS = 1024
_KNOWN_HEAD = 2048


class KnownHead:
    """What aiohttp's parser made of the head of a plain request, and that it has been admitted before, if it has.

    ``length`` of the body in bytes.
    """

    __slots__ = ("fields", "length", "method", "passed", "pool", "target")

    def __init__(self, method: str, target: str, fields: Fields, pool: Pool, length: int) -> None:
        self.method = method
        self.target = target
        self.fields: Any = fields
        self.pool = pool
        self.length = length
        self.passed: Passed | None = None


class Lanes:
    """What the short lanes of a server share.

    ``pools`` are those behind the paths that have one, ``known`` the heads that have been parsed, ``begun`` is how many
    exchanges there have been.
    """

    __slots__ = ("begun", "endpoint", "known", "loop", "pools")

    def __init__(self, endpoint: Endpoint, pools: Mapping[str, Pool]) -> None:
        self.endpoint = endpoint
        self.pools = dict(pools)
        self.known: dict[bytes, KnownHead] = {}
        self.begun = 0

    def learn(self, raw: bytes, known: KnownHead) -> None:
        """Remember what the parser made of a head.  Bounded, because clients write them."""
        if len(raw) <= _KNOWN_HEAD:
            if len(self.known) >= _KNOWN_HEADS:
                self.known.clear()
            self.known[raw] = known


class ClientSide:
    """The client's connection, as a lane sees it.  ``connection`` is aiohttp's, ``transport`` None once it is closed.

    ``lane``         the exchange that is under way
    ``at_head``      nothing has been received but whole requests, each in a read of its own: a head comes next
    ``is_quiet``     aiohttp's task has got nothing to do
    ``header_timer`` the deadline for the next head
    """

    __slots__ = (
        "_connection", "_keep_alive", "_lanes", "alarm", "at_head", "header_timer", "is_quiet", "lane", "loop",
        "remote", "transport",
    )  # fmt: skip

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop, lanes: Lanes, keep_alive: float) -> None:
        self.alarm = Alarm(loop)
        self.loop: Any = loop
        self.transport: Any = None
        self.remote: str | None = None
        self.lane: Lane | None = None
        self.at_head = True
        self.is_quiet = True
        self.header_timer: Any = None
        self._connection: Any = connection
        self._lanes = lanes
        self._keep_alive = keep_alive

    def take(self, data: bytes) -> bool:
        """Whether this is a request whose head has been parsed before, where nothing else is going on; it is under way
        then, or over already."""
        return self.is_quiet and self.at_head and self.lane is None and self.find(data)

    def find(self, data: bytes) -> bool:
        """Whether this is a request whose head has been parsed before; it is under way then, or over already."""
        end = data.find(b"\r\n\r\n") + 4
        known = self._lanes.known.get(data[:end])
        if known is None or len(data) != end + known.length:
            return False
        self.start(known, data[end:])
        return True

    def start(self, known: KnownHead, body: bytes) -> None:
        """Begin an exchange."""
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None
        lanes = self._lanes
        lanes.begun += 1
        head = Head(known.method, known.target, (1, 1), known.fields, self.remote)
        lane = Lane(lanes.endpoint, self, known.pool, head)
        self.lane = lane
        lane.start(known, body)

    @property
    def takes_more(self) -> bool:
        """False while the client does not read as fast as it is written to."""
        return self.transport is not None and not self._connection.writing_paused

    def send(self, data: bytes) -> None:
        """Write bytes; nothing happens when the client is gone."""
        if self.transport is not None:
            self.transport.write(data)

    def lane_over(self, close: bool, now: float) -> None:
        """The exchange has ended; ``close`` the connection, or go on with the next request."""
        self.lane = None
        if self.transport is None:
            return
        connection = self._connection
        if close or connection._close or connection._force_close:
            connection.force_close()
            return
        connection._next_keepalive_close_time = now + self._keep_alive
        if connection.early is not None:
            connection.go_on()

    def give_up(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()
