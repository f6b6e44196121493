"""The data port's handler: drives one exchange with aiohttp on both sides.

Everything that decides is in ``gate`` and ``exchange``; here bytes are awaited, each with a deadline.

One ``asyncio.timeout`` a stream is re-armed before each read and each write, so that a silent upstream, a client that
takes nothing, the keep-alive comment and the end of the process need no further task.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import logging
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import ClientResponse, web

from ..protocol.errors import (
    BadRequest,
    BodyTimeout,
    Draining,
    GatewayError,
    InternalError,
    UpstreamTimeout,
)
from ..wire import sse
from .answer import EVENT_STREAM_FIELDS, AnsweredExchange
from .exchange import Answer, Forward, Reply
from .gate import Head
from .get import Get
from .post import Post
from .site import Site
from .upstream import Pool, blame

__all__ = ["Endpoint"]

_log = logging.getLogger(__name__)

KEEP_ALIVE = sse.comment(b"keep-alive")


# How long a refused request's body is waited for, for the sake of its id, in seconds.
FIND_ID = 1.0


# How long the last event of a stream may take to leave when the gateway stops, in seconds.
LAST_WORDS = 1.0


class _Stopped(Exception):
    """The gateway stops and this stream has to end."""


class _ClientGone(Exception):
    """The client closed its connection, or takes nothing any more."""


class Relay:
    """One exchange under way, as its shell sees it: what can be told to stop."""

    def __init__(self, endpoint: Endpoint, request: web.BaseRequest, exchange: AnsweredExchange) -> None:
        self.exchange = exchange
        self.stopping = False
        self._endpoint = endpoint
        self._request = request
        self._limits = endpoint.site.config.limits
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.Timeout | None = None
        self._response: web.StreamResponse | None = None

    @property
    def is_standing(self) -> bool:
        """True for a stream that has no natural end: it is ended first when the gateway stops."""
        return isinstance(self.exchange, Get) or self.exchange.is_listening

    def stop(self) -> None:
        """End now: whatever is being awaited times out at once."""
        self.stopping = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    async def run(self, forward: Forward) -> web.StreamResponse:
        """Send the judged request upstream and relay what answers it."""
        exchange = self.exchange
        pool = self._endpoint.pools[exchange.upstream]
        stream = self.is_standing
        upstream: ClientResponse | None = None
        pool.enter(stream)
        try:
            try:
                upstream = await self._await(
                    pool.open(forward, stream),
                    self._limits.first_byte_timeout,
                    UpstreamTimeout("the upstream did not answer in time", key="limits.first_byte_timeout"),
                )
                answer = exchange.answer_head(upstream.status, upstream.headers, self._loop.time())
                if answer is Answer.STREAM:
                    return await self._stream(upstream, pool)
                if answer is Answer.COLLECT:
                    answer = await self._collect(upstream)
                assert isinstance(answer, Reply)
                pool.finish(upstream)
                upstream = None
                return self._endpoint.respond(self._request, answer)
            except (aiohttp.ClientError, OSError) as error:
                raise blame(error) from error
        finally:
            pool.leave(stream)
            if upstream is not None:
                upstream.close()

    async def _await(self, work: Any, seconds: float, late: GatewayError) -> Any:
        """The result of an awaitable, or ``late`` when it takes too long, or Draining when the gateway stops."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                return await work
        except TimeoutError:
            if self.stopping:
                raise Draining("the gateway is stopping", headers={"Retry-After": "1"}) from None
            raise late from None
        finally:
            self._deadline = None

    async def ask(self) -> Any:
        """Await the verdict of a hook that asks somebody; whatever goes wrong is its verdict."""
        pending = self.exchange.pending
        assert pending is not None
        try:
            async with asyncio.timeout(pending.timeout):
                return await pending.awaitable()
        except Exception as error:
            return error

    async def _collect(self, upstream: ClientResponse) -> Reply:
        exchange = self.exchange
        assert isinstance(exchange, Post)
        content = upstream.content
        late = UpstreamTimeout("the upstream's answer stopped coming", key="limits.idle_timeout")
        while not content.at_eof() and not exchange.enough:
            chunk = content.read_nowait(-1) or await self._await(content.readany(), self._limits.idle_timeout, late)
            if chunk:
                exchange.collect(chunk, self._loop.time())
        reply = exchange.finish(self._loop.time())
        while reply is None:
            reply = exchange.resume(await self.ask())
        return reply

    async def _stream(self, upstream: ClientResponse, pool: Pool) -> web.StreamResponse:
        """Relay an event stream, frame by frame as the exchange lets them through."""
        exchange, request = self.exchange, self._request
        fields = {**EVENT_STREAM_FIELDS, **self._endpoint.site.gate.cors(request.headers.get("Origin"))}
        if isinstance(exchange, Post):
            fields.update(exchange.answer_fields)
        response = self._response = web.StreamResponse(status=200, headers=fields)
        metrics, kind = self._endpoint.site.metrics, request.method.lower()
        metrics.stream_opened(exchange.upstream, kind)
        try:
            try:
                await response.prepare(request)
            except OSError as error:
                raise _ClientGone from error
            try:
                last = await self._pump(upstream, response, pool)
            except (_Stopped, asyncio.CancelledError, _ClientGone) as error:
                if not isinstance(error, _Stopped):
                    raise
                last = exchange.drain()
            except GatewayError as error:
                last = exchange.fail(error)
            except (aiohttp.ClientError, OSError) as error:
                last = exchange.fail(blame(error))
            except Exception:
                _log.exception("defect while relaying a stream")
                last = exchange.fail(InternalError("the gateway failed"))
            if last:
                await self._write(response, last)
            await self._write(response, None)
            if exchange.error is None:  # after an anomaly the connection is not used again
                pool.finish(upstream)
        finally:
            metrics.stream_closed(exchange.upstream, kind)
        return response

    async def _write(self, response: web.StreamResponse, data: bytes | None) -> None:
        """Send bytes, or the end, to the client; raises _ClientGone, also when it takes nothing for too long."""
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                if data is None:
                    await response.write_eof()
                else:
                    await response.write(data)
        except OSError as error:  # a TimeoutError is one, too
            self._abort()
            raise _ClientGone from error

    async def _pump(self, upstream: ClientResponse, response: web.StreamResponse, pool: Pool) -> bytes:
        """Until the upstream's end, or the answer; returns what must still be written."""
        exchange, loop, limits = self.exchange, self._loop, self._limits
        content = upstream.content
        silence = limits.keepalive_interval
        idle = limits.stream_idle_timeout if self.is_standing else limits.idle_timeout
        heard = written = loop.time()
        while True:
            writing = False
            try:
                async with asyncio.timeout(None) as deadline:
                    self._deadline = deadline
                    while not self.stopping:
                        due = written + silence
                        deadline.reschedule(min(due, heard + idle) if idle else due)
                        chunk = content.read_nowait(-1) or await content.readany()
                        heard = loop.time()
                        if not chunk:
                            if not content.at_eof():
                                continue
                            return exchange.end()
                        data = exchange.receive(chunk, heard)
                        while data or exchange.pending is not None:
                            if data:
                                writing = True
                                deadline.reschedule(loop.time() + limits.write_timeout)
                                try:
                                    await response.write(data)
                                except OSError as error:
                                    raise _ClientGone from error
                                writing, written, data = False, loop.time(), b""
                            if exchange.pending is not None:
                                deadline.reschedule(None)
                                data = exchange.resume_stream(await self.ask())
                        if exchange.blocked_requests:
                            self._answer_blocked(pool)
                        if exchange.done:
                            return b""
            except TimeoutError:
                if writing:
                    # A client that takes nothing for so long is gone, or wants to hold our memory.
                    self._abort()
                    raise _ClientGone from None
                now = loop.time()
                if not self.stopping:
                    if idle and now >= heard + idle:
                        key = "limits.stream_idle_timeout" if self.is_standing else "limits.idle_timeout"
                        raise UpstreamTimeout("the upstream has been silent for too long", key=key) from None
                    await self._write(response, KEEP_ALIVE)
                    written = now
            finally:
                self._deadline = None
            if self.stopping:
                raise _Stopped

    def _abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def _answer_blocked(self, pool: Pool) -> None:
        """Tell the upstream that its request was refused, so that its call does not wait for ever."""
        for body in self.exchange.take_blocked():
            pool.later(pool.send_quietly(body, lambda error: _log.warning("upstream %s: %s", pool.name, blame(error))))


class Endpoint:
    """Handles every request of the data port."""

    def __init__(self, site: Site, pools: Mapping[str, Pool]) -> None:
        self.site = site
        self.pools = pools
        self.relays: set[Relay] = set()
        self._emptied: asyncio.Event | None = None
        self._prefix = os.urandom(5).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request.  Nothing but CancelledError and ConnectionError leaves here."""
        loop = asyncio.get_running_loop()
        site = self.site
        version = request.version
        head = Head(request.method, request.raw_path, (version.major, version.minor), request.headers, request.remote)
        kind = Post if head.method == "POST" else Get
        exchange = kind(site, head, f"{self._prefix}-{next(self._numbers):x}", loop.time())
        outcome = None
        try:
            if head.method == "OPTIONS":
                exchange.outcome = "preflight"
                return self.respond(request, Reply(204, site.gate.preflight(head)))
            forward = await self._take(request, exchange)
            relay = Relay(self, request, exchange)
            self.relays.add(relay)
            try:
                while forward is None:
                    forward = exchange.resume(await relay.ask())
                if isinstance(forward, Reply):
                    return self.respond(request, forward)
                return await relay.run(forward)
            finally:
                self.relays.discard(relay)
                if self._emptied is not None and not self.relays:
                    self._emptied.set()
        except GatewayError as error:
            await self._find_id(request, exchange)
            return self._refuse(request, exchange, error)
        except asyncio.CancelledError:
            outcome = "draining" if site.draining else "client-gone"
            raise
        except (_ClientGone, ConnectionError) as error:
            outcome = "client-gone"
            raise ConnectionResetError from error
        except Exception:
            _log.exception("defect while handling a request")
            return self._refuse(request, exchange, InternalError("the gateway failed"))
        finally:
            exchange.close(loop.time(), outcome)

    async def _take(self, request: web.BaseRequest, exchange: AnsweredExchange) -> Forward | Reply | None:
        """From the head to the judged request."""
        site, head = self.site, exchange.head
        loop = asyncio.get_running_loop()
        exchange.upstream = site.gate.route(head)
        if site.draining:
            raise Draining("the gateway is stopping", headers={"Retry-After": "1"})
        client = site.gate.identify(head, datetime.datetime.now(datetime.UTC))
        if isinstance(exchange, Get):
            exchange.admit(client, loop.time())
            return exchange.open(loop.time())
        assert isinstance(exchange, Post)
        exchange.admit(client, loop.time())
        await self._read_body(request, exchange)
        return exchange.complete(loop.time())

    async def _read_body(self, request: web.BaseRequest, exchange: Post) -> None:
        content, limits = request.content, self.site.config.limits
        loop = asyncio.get_running_loop()
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
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
        except aiohttp.http_exceptions.HttpProcessingError as error:
            raise BadRequest("the request's body is not framed as HTTP demands", reason="http-framing") from error
        except web.RequestPayloadError as error:
            raise BadRequest("the request's body is not framed as HTTP demands", reason="http-framing") from error

    async def _find_id(self, request: web.BaseRequest, exchange: AnsweredExchange) -> None:
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

    def _refuse(self, request: web.BaseRequest, exchange: AnsweredExchange, error: GatewayError) -> web.StreamResponse:
        return self.respond(request, exchange.refuse(error))

    def respond(self, request: web.BaseRequest, reply: Reply) -> web.Response:
        """A complete answer as aiohttp's response."""
        fields = {**reply.fields, **self.site.gate.cors(request.headers.get("Origin"))}
        self.site.metrics.response(reply.status)
        response = web.Response(status=reply.status, body=reply.body or None, headers=fields)
        if reply.close_connection:
            response.force_close()
        return response

    async def drain(self, seconds: float) -> None:
        """End what is under way: standing streams at once, calls when they are done or the time is over."""
        for relay in self.relays:
            if relay.is_standing:
                relay.stop()
        await self._until_empty(seconds)
        for relay in self.relays:
            relay.stop()
        await self._until_empty(LAST_WORDS)

    async def _until_empty(self, seconds: float) -> None:
        if self.relays:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
