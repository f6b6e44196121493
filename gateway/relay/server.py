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
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ..protocol.errors import BadRequest, GatewayError, HeaderTooLarge, InternalError
from ..record.entry import entry
from ..wire.strict import dumps
from .alarm import Alarm
from .endpoint import Endpoint
from .gate import Head
from .lane import KnownHead, Lane, is_plain
from .site import Site
from .upstream import Pool

__all__ = ["DataServer", "assert_c_parser", "listen", "start"]

_log = logging.getLogger(__name__)

# After an early refusal the rest of a body is read and thrown away for so long, in seconds; then the connection ends.
LINGER = 1.0

# Reads that wait apart from each other; what comes after is added to the last one.
_EARLY_READS = 16

# Heads of requests that are remembered, and how long one may be in bytes.
_KNOWN_HEADS = 1024
_KNOWN_HEAD = 2048

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
    anything else goes the full way, in the order in which it came.  A client repeats its head with every call: one that
    is the same byte for byte, and stands where a head must, is not parsed again.
    """

    def __init__(self, server: DataServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self.alarm = Alarm(self._loop)
        self._server = server
        self._header_timer: asyncio.TimerHandle | None = None
        self._lane: Lane | None = None
        # The reads that came while an exchange was under way on the short lane, if any did.
        self._early: list[bytes] | None = None
        self._goes_on = False
        # Nothing has been received but whole requests, each in a read of its own: what comes next begins with a head.
        self._at_head = True
        # aiohttp's task has got something to do, once.  Until then it waits, or has not even begun.
        self._has_work = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) > self._server.limits.max_connections:
            self._server.site.metrics.connection_refused()
            self.force_close()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._lane is not None:
            self._keep(data)
            return
        idle = self._waiter
        taken = False
        if idle.done() if idle is not None else self._has_work:
            self._at_head = False
            super().data_received(data)
        elif not (taken := self._at_head and self._take_known(data)):
            # Not for aiohttp's task to see yet.
            self._waiter = None
            super().data_received(data)
            self._waiter = idle
            at_head, self._at_head = self._at_head, False
            if self._messages and not (taken := self._take_lane(data if at_head else None)):
                self._has_work = True
                if idle is not None:
                    idle.set_result(None)
        if taken or self._messages or self._current_request is not None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None:
            self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        super().connection_lost(exc)
        if self._lane is not None:
            self._lane.client_gone()
        self.alarm.close()

    def _arm(self) -> None:
        self._header_timer = self._loop.call_later(self._server.limits.header_timeout, self._header_late)

    def _header_late(self) -> None:
        self._header_timer = None
        if self._current_request is None and not self._messages and self.transport is not None:
            self._server.refused(408, None, self.remote)
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp feeds its parser an empty read after every read of a body, to go on where it was paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- the short lane -----------------------------------------------------------------------------------------------

    def _take_known(self, data: bytes) -> bool:
        """Whether this is a request whose head has been parsed before; it is under way then, or over already."""
        end = data.find(b"\r\n\r\n") + 4
        known = self._server.known.get(data[:end])
        if known is None or len(data) != end + known.length:
            return False
        self._start(known, data[end:])
        return True

    def _take_lane(self, data: bytes | None) -> bool:
        """Whether what has been parsed is an exchange for the short lane; it is under way then, or over already.

        ``data`` is what has been parsed, if it began with a head.
        """
        message, payload = self._messages[0]
        if len(self._messages) > 1 or not isinstance(message, RawRequestMessage):
            return False
        end = 0 if data is None else data.find(b"\r\n\r\n") + 4
        is_whole = payload.is_eof() and not (message.chunked or message.upgrade)
        self._at_head = data is not None and is_whole and len(data) == end + payload.total_bytes
        pool = self._server.lanes.get(message.path)
        if pool is None or not is_plain(message, payload, self._server.limits.inline_message):
            return False
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        body = payload.read_nowait(-1)
        known = KnownHead(message.method, message.path, message.headers, pool, len(body))
        if data is not None and self._at_head and known.method == "POST":  # a stream's head comes once
            self._server.learn(data[:end], known)
        self._start(known, body)
        return True

    def _start(self, known: KnownHead, body: bytes) -> None:
        self._server.requests_count += 1
        head = Head(known.method, known.target, (1, 1), known.fields, self.remote)
        self._lane = lane = Lane(self._server.endpoint, self, known.pool, head)
        lane.start(known, body)

    @property
    def takes_more(self) -> bool:
        """False while the client does not read as fast as it is written to."""
        return not self._paused and self.transport is not None

    @property
    def remote(self) -> str | None:
        """The peer's address."""
        name = self.peername
        return name[0] if isinstance(name, tuple) else None

    def send(self, data: bytes) -> None:
        """Write bytes; nothing happens when the client is gone."""
        if self.transport is not None:
            self.transport.write(data)

    def lane_over(self, close: bool) -> None:
        """The exchange has ended; ``close`` the connection, or go on with the next request."""
        self._lane = None
        if self.transport is None:
            return
        if close or self._close or self._force_close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._early and not self._goes_on:
            self._go_on()

    def _keep(self, data: bytes) -> None:
        """Keep a read for when the exchange is over, apart from others: a bad one must not spoil a good one."""
        if self._early is None:
            self._early = []
        early = self._early
        if len(early) < _EARLY_READS:
            early.append(data)
        else:
            early[-1] += data
        if sum(map(len, early)) >= READ_SIZE:
            self._pause_reading_for_buffer()

    def _go_on(self) -> None:
        """Take up what was kept: a loop, because an exchange that is refused is over at once and comes back here."""
        self._goes_on = True
        try:
            while self._early and self._lane is None and self.transport is not None:
                self.data_received(self._early.pop(0))
        finally:
            self._goes_on = False
        if not self._early:
            self._early = None
            if self._buffer_paused and len(self._messages) < self._max_msg_queue_size:
                self._resume_reading_for_buffer()

    def give_up(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._lane is not None:
            self._lane.client_writable()

    def _process_keepalive(self) -> None:
        if self._lane is None:
            super()._process_keepalive()
        else:
            # aiohttp takes a connection whose task waits for an idle one.
            due = self._loop.time() + self._keepalive_timeout
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
        self.lanes = lanes
        # Heads that have been parsed; bounded, because clients write them.
        self.known: dict[bytes, KnownHead] = {}
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

    def learn(self, raw: bytes, known: KnownHead) -> None:
        """Remember what the parser made of a head."""
        if len(raw) <= _KNOWN_HEAD:
            if len(self.known) >= _KNOWN_HEADS:
                self.known.clear()
            self.known[raw] = known

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
