"""The way to one upstream: two pooled client sessions, one for calls and one for long streams.

Every setting departs from aiohttp's default for a reason: no cookies (the default jar carries one caller's cookie into
another's request), no redirects (a 302 would turn a POST into a GET and carry headers elsewhere; rule 9.1), no
decompression (a small bomb grows without bound), no total timeout (300 s would end every stream), no retry of GET and
DELETE, and our own count of what is in use, because a pool that waits for a free slot waits where no deadline of ours
can see it.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from multidict import MultiMapping
from yarl import URL

from .. import __version__
from ..protocol.errors import UpstreamBusy, UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from .exchange import Forward

if TYPE_CHECKING:
    from ..config import Limits, Upstream

__all__ = ["POOL_IDLE", "Connector", "Content", "Pool", "UpstreamAnswer", "blame"]

# What one read of an answer may bring at most (twice this): larger reads hold up the loop while they are parsed.
READ_SIZE = 64 * 1024

# How long a connection waits in the pool, in seconds.  Shorter than what servers keep idle ones for (uvicorn: 5 s): a
# request on a connection that is being closed fails, and a tools/call is not sent twice.
POOL_IDLE = 4.0

# How long an upstream may take to finish a stream whose answer has been relayed, before its connection is given up.
LINGER = 1.0


class Connector(TCPConnector):
    """A connector that never reuses a connection on which something arrived unasked.

    A second response pushed onto an idle connection would be taken for the answer to the next request, and every later
    one would be off by one.  An idle connection has nothing to read; one that has is closed, as httpcore does.
    """

    async def _get(self, key: ConnectionKey, traces: list[Any]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            assert protocol is not None
            if not protocol.should_close and not _readable(protocol.transport):
                return connection
            connection.close()
        return None


def _readable(transport: asyncio.Transport | None) -> bool:
    """Whether the kernel holds bytes, an end or an error for a socket that the loop has not read yet."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Content(Protocol):
    """The body of an answer, as aiohttp's StreamReader has it."""

    def at_eof(self) -> bool:
        """Whether all of it has been read."""

    def read_nowait(self, n: int) -> bytes:
        """What is there (-1), b"" for nothing yet."""

    async def readany(self) -> bytes:
        """What is there, at least a byte; b"" at the end."""


class UpstreamAnswer(Protocol):
    """An upstream's answer whose head is there, as aiohttp's ClientResponse has it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> MultiMapping[str]:
        """The header fields."""

    @property
    def content(self) -> Content:
        """The body."""

    def close(self) -> None:
        """Give it up, and its connection."""

    def release(self) -> Any:
        """Its connection may be used again."""


class Pool:
    """Opens requests to one upstream.  ``calls`` and ``streams`` count what is under way.

    ``stateless`` says whether the upstream can be spoken to in revisions without sessions at all.
    """

    stateless = True

    def __init__(self, name: str, upstream: Upstream, limits: Limits) -> None:
        self.name = name
        self.calls = 0
        self.streams = 0
        self._upstream = upstream
        self._url = URL(upstream.url, encoded=True)
        self._limits = limits
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls_session = self._session()
        self._streams_session = self._session()
        self._fields = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": f"mcpgw/{__version__}",
            **upstream.headers,
        }

    def _session(self) -> ClientSession:
        limits = self._limits
        force_close = self._upstream.force_close
        reuse: dict[str, Any] = {"force_close": True} if force_close else {"keepalive_timeout": POOL_IDLE}
        connector = Connector(limit=0, ssl=self._tls(), **reuse)
        session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=ClientTimeout(total=None, sock_connect=limits.connect_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=READ_SIZE,
            max_line_size=limits.max_header_size,
            max_field_size=limits.max_header_size,
            max_headers=limits.max_header_count,
        )
        # aiohttp sends GET and DELETE again when a connection breaks; an upstream must see each request once.
        session._retry_connection = False
        return session

    def _tls(self) -> ssl.SSLContext | bool:
        if self._upstream.tls_ca is None:
            return True
        return ssl.create_default_context(cafile=self._upstream.tls_ca)

    def enter(self, stream: bool) -> None:
        """Take a place for a request; raises UpstreamBusy.  Followed by ``leave``, whatever happens."""
        used, most, key = (
            (self.streams, self._upstream.streams, "streams")
            if stream
            else (self.calls, self._upstream.connections, "connections")
        )
        if used >= most:
            raise UpstreamBusy(
                f"the upstream has {most} {key} in use already",
                key=f"upstreams.{self.name}.{key}",
                headers={"Retry-After": "1"},
            )
        if stream:
            self.streams += 1
        else:
            self.calls += 1

    def leave(self, stream: bool) -> None:
        """Give back the place."""
        if stream:
            self.streams -= 1
        else:
            self.calls -= 1

    async def open(self, forward: Forward, stream: bool) -> UpstreamAnswer:
        """Send a request; returns once the head of the answer is there.  Raises what ``blame`` understands."""
        session = self._streams_session if stream else self._calls_session
        fields = {**self._fields, **forward.fields}
        if forward.body is not None:
            fields["Content-Type"] = "application/json"
        return await session.request(
            forward.method, self._url, data=forward.body, headers=fields, allow_redirects=False
        )

    def finish(self, response: UpstreamAnswer) -> None:
        """Done with a response: its connection goes back to the pool if its end is there, or comes within a second."""
        if response.content.at_eof():
            response.release()
        else:
            self.later(self._linger(response))

    async def _linger(self, response: UpstreamAnswer) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while await response.content.readany():
                    pass
            response.release()
        except (aiohttp.ClientError, TimeoutError):
            response.close()
        except BaseException:
            response.close()
            raise

    def later(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine beside the exchanges; ``close`` cancels and awaits it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send_quietly(self, forward: Forward, failed: Callable[[BaseException], None]) -> None:
        """Send a message that nobody waits for; ``failed`` is told of an error."""
        try:
            async with asyncio.timeout(self._limits.first_byte_timeout):
                response = await self.open(forward, stream=False)
            response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failed(error)

    async def reachable(self) -> bool:
        """Whether the upstream accepts connections. Speaks no MCP, so that it costs the upstream nothing."""
        try:
            async with asyncio.timeout(self._limits.connect_timeout):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port)
            writer.close()
            await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return True

    @property
    def idle_connections(self) -> int:
        """Connections that wait in the pool."""
        return sum(
            len(each)
            for session in (self._calls_session, self._streams_session)
            if isinstance(session.connector, TCPConnector)
            for each in session.connector._conns.values()
        )

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._calls_session.close()
        await self._streams_session.close()


def blame(error: BaseException) -> UpstreamError:
    """The upstream's fault behind an exception of the client session.  Its text stays out: it names addresses."""
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamTimeout("the upstream did not accept a connection in time", key="limits.connect_timeout")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("the upstream cannot be reached")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return UpstreamUnreachable("the upstream closed the connection without an answer", reason="upstream-closed")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UpstreamProtocolError("the upstream's answer broke off", reason="upstream-truncated")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamProtocolError("the upstream's answer is not HTTP", reason="upstream-http")
    if isinstance(error, OSError):
        return UpstreamUnreachable("the connection to the upstream broke", reason="upstream-reset")
    return UpstreamProtocolError("the upstream's answer cannot be used", reason="upstream-http")
