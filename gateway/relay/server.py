"""The listening side: aiohttp's low-level server with our deadlines and our errors."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any

import aiohttp.http_parser
from aiohttp import web, web_response
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import RequestHandler

from ..protocol.errors import BadRequest, GatewayError, HeaderTooLarge, InternalError
from ..record.entry import entry
from ..wire.strict import dumps
from .client_side import ClientSide, KnownHead, Lanes
from .endpoint import Endpoint
from .lane import is_plain
from .site import Site
from .upstream import Pool

__all__ = ["DataServer", "assert_c_parser", "listen", "start"]

_log = logging.getLogger(__name__)

# After an early refusal the rest of a body is read and thrown away for so long, in seconds; then the connection ends.
LINGER = 1.0

# Reads that wait apart from each other; what comes after is added to the last one.
_EARLY_READS = 16

# How much of a body waits in memory while it is being judged (twice this at most).
READ_SIZE = 64 * 1024


def assert_c_parser() -> None:
    """Raises RuntimeError unless aiohttp parses HTTP with its C parser.

    The pure-Python one accepts what this gateway must refuse (double chunked, lower-case methods, framing in
    trailers); since 3.14.4 a wheel without the C parser is installed silently where no binary one exists.
    """
    module = aiohttp.http_parser.HttpRequestParser.__module__
    if module != "aiohttp._http_parser":
        raise RuntimeError(
            f"aiohttp runs on its pure-Python HTTP parser ({module}); install a binary wheel of aiohttp, "
            "and leave AIOHTTP_NO_EXTENSIONS unset"
        )


class _Connection(RequestHandler):
    """One client connection: aiohttp's, with a deadline for the header, errors in JSON-RPC and the short lane.

    What aiohttp's parser finds to be a plain request goes to a ``Lane``, before aiohttp's task for it wakes up;
    anything else goes the full way, in the order in which it came.  What a lane has to do with is ``side``.
    """

    def __init__(self, server: DataServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self.side = ClientSide(self, self._loop, server.lanes, self._keepalive_timeout)
        # The reads that came while an exchange was under way on the short lane, if any did.
        self.early: list[bytes] | None = None
        self._server = server
        self._goes_on = False
        # aiohttp's task has got something to do, once.  Until then there is none.
        self._has_work = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # As RequestHandler does, but for its task, which most connections never need.
        BaseProtocol.connection_made(self, transport)
        assert self.transport is not None
        tcp_keepalive(self.transport)
        self._server.connection_made(self, self.transport)
        self._keep_alive_until(self._loop.time() + self._keepalive_timeout)
        if len(self._server.connections) > self._server.limits.max_connections:
            self._server.site.metrics.connection_refused()
            self.force_close()
            return
        side = self.side
        side.transport = transport
        name = self.peername
        side.remote = name[0] if isinstance(name, tuple) else None
        self._arm()

    def data_received(self, data: bytes) -> None:
        side = self.side
        if side.take(data):
            return
        if side.lane is not None:
            self._keep(data)
            return
        idle = self._waiter
        if idle.done() if idle is not None else self._has_work:
            side.at_head = False
            super().data_received(data)
        elif side.at_head and side.find(data):
            return
        else:
            # Not for aiohttp's task to see yet.
            self._waiter = None
            super().data_received(data)
            self._waiter = idle
            at_head, side.at_head = side.at_head, False
            if self._messages:
                if self._take_lane(data if at_head else None):
                    return
                side.is_quiet = False
                if not self._has_work:
                    self._has_work = True
                    self._task_handler = self._loop.create_task(self.start())
                elif idle is not None:
                    idle.set_result(None)
        if self._messages or self._current_request is not None:
            if side.header_timer is not None:
                side.header_timer.cancel()
                side.header_timer = None
        elif side.header_timer is None:
            self._arm()

    def close(self) -> None:
        super().close()
        self.side.is_quiet = False

    def force_close(self) -> None:
        super().force_close()
        self.side.transport = None
        self.side.is_quiet = False

    def connection_lost(self, exc: BaseException | None) -> None:
        side = self.side
        if side.header_timer is not None:
            side.header_timer.cancel()
        super().connection_lost(exc)
        if side.lane is not None:
            side.lane.client_gone()
        side.alarm.close()

    def _arm(self) -> None:
        self.side.header_timer = self._loop.call_later(self._server.limits.header_timeout, self._header_late)

    def _header_late(self) -> None:
        self.side.header_timer = None
        if self._current_request is None and not self._messages and self.transport is not None:
            self._server.refused(408, None, self.side.remote)
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp feeds its parser an empty read after every read of a body, to go on where it was paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- the short lane -----------------------------------------------------------------------------------------------

    def _take_lane(self, data: bytes | None) -> bool:
        """Whether what has been parsed is an exchange for the short lane; it is under way then, or over already.

        ``data`` is what has been parsed, if it began with a head.
        """
        message, payload = self._messages[0]
        if len(self._messages) > 1 or not isinstance(message, RawRequestMessage):
            return False
        end = 0 if data is None else data.find(b"\r\n\r\n") + 4
        is_whole = payload.is_eof() and not (message.chunked or message.upgrade)
        side, lanes = self.side, self._server.lanes
        side.at_head = data is not None and is_whole and len(data) == end + payload.total_bytes
        pool = lanes.pools.get(message.path)
        if pool is None or not is_plain(message, payload, self._server.limits.inline_message):
            return False
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        body = payload.read_nowait(-1)
        known = KnownHead(message.method, message.path, message.headers, pool, len(body))
        if data is not None and side.at_head and known.method == "POST":  # a stream's head comes once
            lanes.learn(data[:end], known)
        side.start(known, body)
        return True

    def _keep(self, data: bytes) -> None:
        """Keep a read for when the exchange is over, apart from others: a bad one must not spoil a good one."""
        if self.early is None:
            self.early = []
        early = self.early
        if len(early) < _EARLY_READS:
            early.append(data)
        else:
            early[-1] += data
        if sum(map(len, early)) >= READ_SIZE:
            self._pause_reading_for_buffer()

    def go_on(self) -> None:
        """Take up what was kept: a loop, because an exchange that is refused is over at once and comes back here."""
        if self._goes_on:
            return
        self._goes_on = True
        try:
            while self.early and self.side.lane is None and self.transport is not None:
                self.data_received(self.early.pop(0))
        finally:
            self._goes_on = False
        if not self.early:
            self.early = None
            if self._buffer_paused and len(self._messages) < self._max_msg_queue_size:
                self._resume_reading_for_buffer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.side.lane is not None:
            self.side.lane.client_writable()

    def _process_keepalive(self) -> None:
        now = self._loop.time()
        if self.side.lane is not None:
            # aiohttp takes a connection whose task waits for an idle one.
            self._keep_alive_until(now + self._keepalive_timeout)
        elif self._has_work:
            super()._process_keepalive()
        elif now < self._next_keepalive_close_time:
            self._keep_alive_until(self._next_keepalive_close_time)
        else:
            self.force_close()

    def _keep_alive_until(self, due: float) -> None:
        self._next_keepalive_close_time = due
        self._keepalive_handle = self._loop.call_at(due, self._process_keepalive)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # aiohttp reads on after an early refusal, and calls it an error when the client leaves meanwhile.
        if self.connected or not isinstance(sys.exc_info()[1], RuntimeError):
            super().log_exception(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to bytes that are not an HTTP request. Says nothing of what was sent."""
        error: GatewayError
        if isinstance(exc, ConnectionError):
            return web.Response(status=500)  # nobody is there to read it
        if status == 500:
            _log.error("defect while handling a request", exc_info=exc)
            error = InternalError("the gateway failed")
        elif isinstance(exc, LineTooLong):
            error = HeaderTooLarge("a header line is too long", key="limits.max_header_size")
        elif status == 400 and exc is not None and "header" in str(exc).lower() and "many" in str(exc).lower():
            error = HeaderTooLarge("there are too many header fields", key="limits.max_header_count")
        else:
            error = BadRequest("this is not an HTTP/1.1 request that can be relied on", reason="http-malformed")
        self._server.refused(error.status, error, request.remote)
        response = web.Response(
            status=error.status, body=dumps(error.to_document(None)), content_type="application/json"
        )
        response.force_close()
        return response


class DataServer(web.Server):
    """aiohttp's server for the data port.  ``lanes`` are the pools behind those paths that have a short lane."""

    def __init__(self, site: Site, endpoint: Endpoint, lanes: Mapping[str, Pool]) -> None:
        self.site = site
        self.endpoint = endpoint
        self.lanes = Lanes(endpoint, lanes)
        self.limits = limits = site.config.limits
        super().__init__(
            endpoint,
            # A client that goes away cancels its handler, and that closes the upstream: also on a silent stream.  In
            # 2026-07-28 that is a cancellation, before it is just the disconnect that it was (rules 7.4, 4.6).
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=limits.connection_idle_timeout,
            lingering_time=LINGER,
            read_bufsize=READ_SIZE,
            max_line_size=limits.max_target_size,
            max_field_size=limits.max_header_size,
            max_headers=limits.max_header_count,
        )

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def refused(self, status: int, error: GatewayError | None, remote: str | None) -> None:
        """Record something that never became a request."""
        reason = error.reason if error is not None else "header-timeout"
        self.site.metrics.response(status)
        self.site.metrics.refusal(reason)
        record = entry(
            "request.refused",
            decision="deny",
            rule=reason,
            status=status,
            key=error.key if error is not None else "limits.header_timeout",
            remote=remote,
        )
        self.site.audit.write(record, required=False)


async def start(server: Any, listener: socket.socket, drain: float) -> web.BaseRunner:
    """Serve on a bound socket; the runner's ``cleanup`` ends it within ``drain`` seconds."""
    # Error pages of aiohttp's own making would name Python and aiohttp with their versions.
    web_response.SERVER_SOFTWARE = "mcpgw"  # type: ignore[attr-defined]
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=drain)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    return runner


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
