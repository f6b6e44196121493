"""The data port's handler: what happens to an HTTP request, with aiohttp on both sides.

Everything that decides is in ``gate`` and ``exchange``; here bytes are awaited, each with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp
from aiohttp import HttpVersion10, HttpVersion11, web

from ..protocol.errors import BadRequest, BodyTimeout, Draining, GatewayError, InternalError
from .answer import AnsweredExchange
from .exchange import Exchange, Forward, Reply
from .gate import Head
from .get import Get
from .http_sse import HttpSse
from .post import Post
from .pump import ClientGone, Relay
from .site import Site
from .upstream import Pool

__all__ = ["Endpoint"]

_log = logging.getLogger(__name__)

# How long a refused request's body is waited for, for the sake of its id, in seconds.
FIND_ID = 1.0

# How long the last event of a stream may take to leave when the gateway stops, in seconds.
LAST_WORDS = 1.0


class _Stoppable(Protocol):
    """What is under way: an exchange, or the session of an HTTP+SSE client."""

    @property
    def is_standing(self) -> bool:
        """True when it has no natural end: it is ended first when the gateway stops."""

    def stop(self) -> None:
        """End now."""


class HttpSink:
    """The answer of an HTTP request as an event stream."""

    write: Callable[[bytes], Awaitable[None]]
    keep_alive = True

    def __init__(self, endpoint: Endpoint, request: web.BaseRequest, exchange: AnsweredExchange) -> None:
        self.response: web.StreamResponse
        self._site = endpoint.site
        self._request = request
        self._exchange = exchange

    async def open(self, fields: Mapping[str, str]) -> None:
        """Send the head; raises OSError when the client is gone."""
        request = self._request
        fields = {**fields, **self._site.gate.cors(request.headers.get("Origin"))}
        self.response = web.StreamResponse(status=200, headers=fields)
        if _may_have_trailers(request) or request.version < HttpVersion11:
            self.response.force_close()  # without chunks, the end of a stream is that of its connection
        self.write = self.response.write
        self._site.metrics.stream_opened(self._exchange.upstream, request.method.lower())
        await self.response.prepare(request)

    async def end(self) -> None:
        """Send the end of the body."""
        await self.response.write_eof()

    def abort(self) -> None:
        """Close the client's connection at once."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def close(self) -> None:
        """Count the stream as closed."""
        self._site.metrics.stream_closed(self._exchange.upstream, self._request.method.lower())


def _may_have_trailers(request: web.BaseRequest) -> bool:
    """Whether the connection must end with this request: aiohttp 3.14.5 takes the last trailer field of a chunked body
    for the first header field of the next request, which behind a proxy is another caller's."""
    return "Transfer-Encoding" in request.headers


class Endpoint:
    """Handles every request of the data port."""

    def __init__(self, site: Site, pools: Mapping[str, Pool]) -> None:
        self.site = site
        self.limits: Any = site.config.limits
        self.pools = pools
        self.http_sse = HttpSse(self)
        self.relays: set[_Stoppable] = set()
        self._emptied: asyncio.Event | None = None
        self._prefix = f"{os.urandom(5).hex()}-"
        self._number = 0

    def next_request(self) -> str:
        """A new exchange's id for the record."""
        self._number += 1
        return self._prefix + hex(self._number)[2:]

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request.  Nothing but CancelledError and ConnectionError leaves here."""
        loop = asyncio.get_running_loop()
        site = self.site
        version = request.version
        head = Head(request.method, request.raw_path, (version.major, version.minor), request.headers, request.remote)
        if version not in (HttpVersion10, HttpVersion11):
            request._cache["version"] = HttpVersion11  # aiohttp would answer in the version that was named
        exchange: Exchange
        other = self.http_sse.endpoint(head)
        if other is not None:
            exchange = other.exchange(site, head, self.next_request(), loop.time())
        else:
            exchange = (Post if head.method == "POST" else Get)(site, head, self.next_request(), loop.time())
        outcome: str | None = None
        try:
            if head.method == "OPTIONS":
                exchange.outcome = "preflight"
                fields = site.gate.preflight(head)
                return self.respond(request, Reply(204, fields if other is None else other.preflight(fields)))
            if other is not None:
                return await other.serve(request, exchange)
            assert isinstance(exchange, AnsweredExchange)
            return await self._serve(request, exchange)
        except GatewayError as error:
            await self.find_id(request, exchange)
            return self.respond(request, exchange.refuse(error))
        except asyncio.CancelledError:
            outcome = "draining" if site.draining else "client-gone"
            raise
        except (ClientGone, ConnectionError) as gone:
            outcome = "client-gone"
            raise ConnectionResetError from gone
        except Exception:
            _log.exception("defect while handling a request")
            return self.respond(request, exchange.refuse(InternalError("the gateway failed")))
        finally:
            exchange.close(loop.time(), outcome)

    async def _serve(self, request: web.BaseRequest, exchange: AnsweredExchange) -> web.StreamResponse:
        """The endpoint of streamable HTTP: the answer of a POST, GET or DELETE."""
        now = asyncio.get_running_loop().time
        client = self.identify(exchange)
        exchange.admit(client, now())
        forward: Forward | Reply | None
        if isinstance(exchange, Get):
            forward = exchange.open(now())
        else:
            assert isinstance(exchange, Post)
            await self.read_body(request, exchange)
            forward = exchange.complete(now())
        sink = HttpSink(self, request, exchange)
        reply = await self.run(Relay(self.site, self.pools[exchange.upstream], exchange, sink), forward)
        return sink.response if reply is None else self.respond(request, reply)

    def identify(self, exchange: Exchange) -> str:
        """From the head to the client's name; the first checks of every request."""
        site, head = self.site, exchange.head
        exchange.upstream = site.gate.route(head)
        if site.draining:
            raise Draining("the gateway is stopping", headers={"Retry-After": "1"})
        return site.gate.identify(head, datetime.datetime.now(datetime.UTC))

    async def run(self, relay: Relay, forward: Forward | Reply | None) -> Reply | None:
        """Relay a judged request, or one whose verdict is still pending (None)."""
        self.relays.add(relay)
        try:
            while forward is None:
                forward = relay.exchange.resume(await relay.ask())
            return forward if isinstance(forward, Reply) else await relay.run(forward)
        finally:
            self.over(relay)

    def over(self, what: _Stoppable) -> None:
        """One of ``relays`` has ended."""
        self.relays.discard(what)
        if self._emptied is not None and not self.relays:
            self._emptied.set()

    async def read_body(self, request: web.BaseRequest, exchange: Post) -> None:
        """Feed the request's body to its exchange; raises GatewayError."""
        content, limits = request.content, self.site.config.limits
        loop = asyncio.get_running_loop()
        invited = request.headers.get("Expect", "").lower() == "100-continue" and exchange.head.version == (1, 1)
        if invited and request.transport is not None:
            # Only now: a request that is refused by its head does not get its body invited.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        end = loop.time() + limits.body_timeout
        try:
            while not content.at_eof():
                chunk = content.read_nowait(-1)
                if not chunk:
                    idle = loop.time() + limits.body_idle_timeout
                    async with asyncio.timeout_at(min(idle, end)):
                        chunk = await content.readany()
                if chunk:
                    exchange.feed(chunk)
        except TimeoutError:
            key = "limits.body_timeout" if loop.time() >= end else "limits.body_idle_timeout"
            raise BodyTimeout("the request's body did not arrive in time", key=key) from None
        except (aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError) as error:
            raise BadRequest("the request's body is not framed as HTTP demands", reason="http-framing") from error

    async def find_id(self, request: web.BaseRequest, exchange: Exchange) -> None:
        """Read as much of a body that is refused by its head as shows the request's id, so that the answer can name it.

        At most ``limits.inline_message`` bytes and a second; not where the body has to be invited first.
        """
        content = request.content
        if not isinstance(exchange, Post) or exchange.bytes_in or not exchange.upstream or "Expect" in request.headers:
            return
        try:
            async with asyncio.timeout(FIND_ID):
                while not content.at_eof() and exchange.look_for_id(await content.readany()):
                    pass
        except (TimeoutError, web.RequestPayloadError, aiohttp.http_exceptions.HttpProcessingError):
            return  # the refusal stands, without an id

    def respond(self, request: web.BaseRequest, reply: Reply) -> web.Response:
        """A complete answer as aiohttp's response."""
        fields = {**reply.fields, **self.site.gate.cors(request.headers.get("Origin"))}
        self.site.metrics.response(reply.status)
        response = web.Response(status=reply.status, body=reply.body or None, headers=fields)
        if reply.close_connection or _may_have_trailers(request):
            response.force_close()
        return response

    async def drain(self, seconds: float) -> None:
        """End what is under way: standing streams at once, calls when they are done or the time is over."""
        for each in list(self.relays):
            if each.is_standing:
                each.stop()
        await self._until_empty(seconds)
        for each in list(self.relays):
            each.stop()
        await self._until_empty(LAST_WORDS)

    async def _until_empty(self, seconds: float) -> None:
        if self.relays:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
