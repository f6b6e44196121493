"""The listening side: aiohttp's low-level server with our deadlines and our errors."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import aiohttp.http_parser
from aiohttp import web, web_response
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from ..protocol.errors import BadRequest, GatewayError, HeaderTooLarge, InternalError
from ..record.entry import entry
from ..wire.strict import dumps
from .site import Site

__all__ = ["DataServer", "assert_c_parser", "listen", "start"]

_log = logging.getLogger(__name__)

# After an early refusal the rest of a body is read and thrown away for so long, in seconds; then the connection ends.
LINGER = 1.0

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
    """One client connection: aiohttp's, with a deadline for the header and with errors in JSON-RPC."""

    def __init__(self, server: DataServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) > self._server.limits.max_connections:
            self._server.site.metrics.connection_refused()
            self.force_close()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None:
            self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._header_timer = self._loop.call_later(self._server.limits.header_timeout, self._header_late)

    def _header_late(self) -> None:
        self._header_timer = None
        if self._current_request is None and not self._messages and self.transport is not None:
            self._server.refused(408, None, _peer(self.transport))
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.force_close()

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


def _peer(transport: asyncio.BaseTransport) -> str | None:
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else None


class DataServer(web.Server):
    """aiohttp's server for the data port."""

    def __init__(self, site: Site, handler: Any) -> None:
        self.site = site
        self.limits = limits = site.config.limits
        super().__init__(
            handler,
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
