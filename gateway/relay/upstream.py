"""The way to one upstream: two pools of connections, one for calls and one for long streams.

A request is known whole when it is sent, and its answer is read by aiohttp's parser: so both lanes write to aiohttp's
connections themselves, which takes a fraction of what its client session does for each request.  The sessions hold the
pools, and serve HTTP+SSE.

Every setting departs from aiohttp's default for a reason: no cookies (the default jar carries one caller's cookie into
another's request), no redirects (a 302 would turn a POST into a GET and carry headers elsewhere; rule 9.1), no
decompression (a small bomb grows without bound), no total timeout (300 s would end every stream), no retry of GET and
DELETE, and our own count of what is in use, because a pool that waits for a free slot waits where no deadline of ours
can see it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

import aiohttp
from aiohttp import ClientRequest, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiMapping
from yarl import URL

from .. import __version__
from ..protocol.errors import UpstreamBusy, UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from .connections import Connector
from .exchange import Forward
from .upstream_side import Idle, KnownAnswers, UpstreamSide

if TYPE_CHECKING:
    from ..config import Limits, Upstream
    from .lane import Lane

__all__ = ["POOL_IDLE", "READ_SIZE", "Content", "Pool", "UpstreamAnswer", "blame"]

_log = logging.getLogger(__name__)

# What one read of an answer may bring at most (twice this): larger reads hold up the loop while they are parsed.
READ_SIZE = 64 * 1024

# How long a connection waits in the pool, in seconds.  Shorter than what servers keep idle ones for (uvicorn: 5 s): a
# request on a connection that is being closed fails, and a tools/call is not sent twice.
POOL_IDLE = 4.0

# How long an upstream may take to finish a stream whose answer has been relayed, before its connection is given up.
LINGER = 1.0


class Content(Protocol):
    """The body of an answer, as aiohttp's StreamReader has it."""

    def at_eof(self) -> bool:
        """Whether all of it has been read."""

    def read_nowait(self, n: int) -> bytes:
        """What is there, n bytes at most (-1: all), b"" for nothing yet."""

    async def read(self, n: int) -> bytes:
        """What is there, at least a byte and n at most; b"" at the end."""

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


class _Answer:
    """An answer whose head is there, on a connection of its own."""

    __slots__ = ("_side", "content", "headers", "status")

    def __init__(self, status: int, headers: Any, content: Any, side: UpstreamSide) -> None:
        self.status = status
        self.headers: Any = headers
        self.content: Any = content
        self._side = side

    def close(self) -> None:
        """Give it up, and its connection."""
        self._side.close()

    def release(self) -> None:
        """Its connection may be used again."""
        self._side.release(asyncio.get_running_loop().time())


class Pool:
    """Opens requests to one upstream.  ``calls`` and ``streams`` count what is under way.

    ``stateless`` says whether the upstream can be spoken to in revisions without sessions at all, ``has_short_lane``
    whether requests can be sent and answered without a task.
    """

    stateless = True
    has_short_lane = True

    def __init__(self, name: str, upstream: Upstream, limits: Limits) -> None:
        self.name = name
        self.calls = 0
        self.streams = 0
        self._upstream = upstream
        self._url = URL(upstream.url, encoded=True)
        self._limits = limits
        self._tasks: set[asyncio.Task[Any]] = set()
        self._known = KnownAnswers()
        keep = 0.0 if upstream.force_close else POOL_IDLE
        self._idle_calls = Idle(keep)
        self._idle_streams = Idle(keep)
        self._most_calls: int = upstream.connections
        self._most_streams: int = upstream.streams
        self._calls_session = self._session()
        self._streams_session = self._session()
        self._fields = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": f"mcpgw/{__version__}",
            **upstream.headers,
        }
        if self._url.user is not None and "Authorization" not in self._fields:
            self._fields["Authorization"] = aiohttp.BasicAuth(self._url.user, self._url.password or "").encode()
        # A configured field that an exchange may set too gives way to the exchange's.
        self._own = {name: value for name, value in self._fields.items() if name.lower().startswith("mcp-")}
        rest = {name: value for name, value in self._fields.items() if name not in self._own}
        self._target = self._url.raw_path_qs or "/"
        self._lines = _field_lines({"Host": self._url.host_port_subcomponent or "", **rest})

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
        if stream:
            if self.streams >= self._most_streams:
                raise self._busy("streams", self._most_streams)
            self.streams += 1
        else:
            if self.calls >= self._most_calls:
                raise self._busy("connections", self._most_calls)
            self.calls += 1

    def _busy(self, key: str, most: int) -> UpstreamBusy:
        return UpstreamBusy(
            f"the upstream has {most} {key} in use already",
            key=f"upstreams.{self.name}.{key}",
            headers={"Retry-After": "1"},
        )

    def leave(self, stream: bool) -> None:
        """Give back the place."""
        if stream:
            self.streams -= 1
        else:
            self.calls -= 1

    async def open(self, forward: Forward, stream: bool) -> UpstreamAnswer:
        """Send a request; returns once the head of the answer is there.  Raises what ``blame`` understands."""
        side = self.take(stream, asyncio.get_running_loop().time()) or await self.connect(stream)
        try:
            self._write(side, forward)
            side.begin()
            self._expect(side.protocol)
            while True:
                message, content = await side.protocol.read()
                if not 100 <= message.code <= 199 or message.code == 101:
                    return _Answer(message.code, message.headers, content, side)
        except HttpProcessingError as error:
            side.close()
            raise blame(error) from error
        except BaseException:
            side.close()
            raise

    # -- without a task -----------------------------------------------------------------------------------------------

    def take(self, stream: bool, now: float) -> UpstreamSide | None:
        """An idle connection, without waiting.  It is the taker's to release or close."""
        return (self._idle_streams if stream else self._idle_calls).take(now)

    async def connect(self, stream: bool) -> UpstreamSide:
        """A new connection.  Raises what ``blame`` understands."""
        session = self._streams_session if stream else self._calls_session
        connector = cast("Connector", session.connector)
        request = ClientRequest("POST", self._url, loop=asyncio.get_running_loop(), session=session)
        try:
            connection = await connector.connect(request, [], session.timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("the connection took too long") from error
        protocol: Any = connection.protocol
        if protocol.transport is None or protocol.should_close:
            connection.close()
            raise ConnectionResetError("the connection is closed, or something came on it before it was asked for")
        protocol.expect = self._expect
        protocol.learn = self._known.learn
        return UpstreamSide(connection, self._idle_streams if stream else self._idle_calls, self._known)

    def send(self, side: UpstreamSide, forward: Forward, lane: Lane) -> None:
        """Write a request to a connection, and have the lane told of what comes; raises OSError if it is closed."""
        self._write(side, forward)
        side.listen(lane)

    def _write(self, side: UpstreamSide, forward: Forward) -> None:
        transport = side.transport
        if transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        body = forward.body
        own = self._own
        lines = _field_lines({**own, **forward.fields} if own else forward.fields)
        head = f"{forward.method} {self._target} HTTP/1.1\r\n{self._lines}{lines}"
        if body is None:
            transport.write(f"{head}\r\n".encode())
        else:
            head = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            transport.write(head.encode() + body)

    def _expect(self, protocol: ResponseHandler) -> None:
        """Set up a connection's parser as ClientSession does, for each answer anew."""
        limits = self._limits
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_SIZE,
            max_line_size=limits.max_header_size,
            max_field_size=limits.max_header_size,
            max_headers=limits.max_header_count,
        )

    # -- after an answer ----------------------------------------------------------------------------------------------

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

    def send_beside(self, forwards: Iterable[Forward]) -> None:
        """Send messages beside the exchange that has them to tell; an error is logged."""
        for forward in forwards:
            self.later(self.send_quietly(forward, self._log_failure))

    def _log_failure(self, error: BaseException) -> None:
        _log.warning("upstream %s: %s", self.name, blame(error))

    async def send_quietly(self, forward: Forward, failed: Callable[[BaseException], None]) -> None:
        """Send a message that nobody waits for; ``failed`` is told of an error."""
        try:
            async with asyncio.timeout(self._limits.first_byte_timeout):
                response = await self.open(forward, stream=False)
            response.close()
        except (aiohttp.ClientError, UpstreamError, TimeoutError, OSError) as error:
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
        own = len(self._idle_calls) + len(self._idle_streams)
        for session in (self._calls_session, self._streams_session):
            if isinstance(session.connector, TCPConnector):
                own += sum(map(len, session.connector._conns.values()))
        return own

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle_calls.close()
        self._idle_streams.close()
        await self._calls_session.close()
        await self._streams_session.close()


def _field_lines(fields: dict[str, str]) -> str:
    """Header fields as they are written.  Raises ValueError for one that would be read as more than it is."""
    if not fields:
        return ""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields) or "\0" in lines:
        raise ValueError("a header field with a line break or NUL")
    return lines


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
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        return UpstreamProtocolError("the upstream's answer is not HTTP", reason="upstream-http")
    if isinstance(error, OSError):
        return UpstreamUnreachable("the connection to the upstream broke", reason="upstream-reset")
    return UpstreamProtocolError("the upstream's answer cannot be used", reason="upstream-http")
