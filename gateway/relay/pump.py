"""Drives one exchange between its upstream and its client, with a deadline on every await.

One ``asyncio.timeout`` a stream is re-armed before each read and each write, so that a silent upstream, a client that
takes nothing, the keep-alive comment and the end of the process need no further task.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp

from ..protocol.errors import Draining, GatewayError, InternalError, UpstreamTimeout
from ..wire import sse
from .answer import EVENT_STREAM_FIELDS, AnsweredExchange
from .exchange import Answer, Forward, Reply
from .get import Get
from .post import Post
from .site import Site
from .upstream import READ_SIZE, Pool, UpstreamAnswer, blame

__all__ = ["KEEP_ALIVE", "ClientGone", "Relay", "Sink", "turn_of"]

_log = logging.getLogger(__name__)

KEEP_ALIVE = sse.comment(b"keep-alive")

# What a stream judges in one turn of the loop, in bytes, when more is there: its events by the dozen, not by the
# thousand.  Others have their turn in between, and so does whoever connects.
TURN = 8 * 1024


class _Stopped(Exception):
    """The gateway stops and this stream has to end."""


class ClientGone(Exception):
    """The client closed its connection, or takes nothing any more."""


class Sink(Protocol):
    """Where the event stream of an exchange goes: an HTTP answer of its own, or a stream that it shares with others.

    ``keep_alive`` says whether comments have to keep the line open while the upstream is silent.
    """

    keep_alive: bool

    @property
    def write(self) -> Callable[[bytes], Awaitable[None]]:
        """Takes whole events; raises OSError when the client is gone.  Known once ``open`` has returned."""

    async def open(self, fields: Mapping[str, str]) -> None:
        """The stream begins; ``fields`` are its header fields.  Raises OSError."""

    async def end(self) -> None:
        """The stream ends as it should.  Raises OSError."""

    def abort(self) -> None:
        """Give up the client."""

    def close(self) -> None:
        """The last call after ``open``, whatever happened."""


def turn_of(exchange: AnsweredExchange) -> int:
    """How many bytes of a stream are judged in one turn: parts of one large event cost little each."""
    return READ_SIZE if exchange.is_mid_event else TURN


class Relay:
    """One exchange under way, as its shell sees it: what can be told to stop."""

    def __init__(self, site: Site, pool: Pool, exchange: AnsweredExchange, sink: Sink) -> None:
        self.exchange = exchange
        self.stopping = False
        self._pool = pool
        self._sink = sink
        self._limits = site.config.limits
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.Timeout | None = None

    @property
    def is_standing(self) -> bool:
        """True for a stream that has no natural end (rule 7.10): it is ended first when the gateway stops."""
        return isinstance(self.exchange, Get) or self.exchange.is_listening

    def stop(self) -> None:
        """End now: whatever is being awaited times out at once."""
        self.stopping = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    async def run(self, forward: Forward) -> Reply | None:
        """Send the judged request upstream and relay what answers it: a Reply, or None when the sink has got it all.

        Raises GatewayError as long as the sink has got nothing, and ClientGone.
        """
        exchange, pool = self.exchange, self._pool
        stream = self.is_standing
        upstream: UpstreamAnswer | None = None
        pool.enter(stream)
        try:
            try:
                upstream = await self._await(
                    pool.open(forward, stream),
                    self._limits.first_byte_timeout,
                    UpstreamTimeout("the upstream did not answer in time", key="limits.first_byte_timeout"),
                )
                assert upstream is not None
                answer: Answer | Reply | None
                answer = exchange.answer_head(upstream.status, upstream.headers, self._loop.time())
                if answer is Answer.COLLECT:
                    answer = await self._collect(upstream)
                if answer is Answer.STREAM or answer is None:
                    if await self._stream(upstream):
                        pool.finish(upstream)
                        upstream = None
                    return None
                assert isinstance(answer, Reply)
                pool.finish(upstream)
                upstream = None
                return answer
            except UpstreamTimeout:
                self._tell_late()
                raise
            except (aiohttp.ClientError, OSError) as error:
                raise blame(error) from error
        finally:
            pool.leave(stream)
            if upstream is not None:
                upstream.close()

    async def _await(self, work: Any, seconds: float, late: GatewayError) -> Any:
        """The result of an awaitable, or ``late`` when it takes too long, or Draining when the gateway stops."""
        try:
            # A stop that came while nothing was awaited here, such as during a hook's question, is due at once.
            async with asyncio.timeout(0 if self.stopping else seconds) as deadline:
                self._deadline = deadline
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise  # somebody else's, such as the connection's
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

    async def _collect(self, upstream: UpstreamAnswer) -> Reply | None:
        """A JSON answer; None when it is too large to hold, and has to be streamed from here on."""
        exchange = self.exchange
        assert isinstance(exchange, Post)
        content = upstream.content
        late = UpstreamTimeout("the upstream's answer stopped coming", key="limits.idle_timeout")
        while not content.at_eof() and not exchange.enough:
            chunk = content.read_nowait(-1) or await self._await(content.readany(), self._limits.idle_timeout, late)
            if chunk:
                exchange.collect(chunk, self._loop.time())
                if exchange.is_streaming:
                    return None
            while exchange.pending is not None:
                exchange.resume(await self.ask())
        reply = exchange.finish(self._loop.time())
        while reply is None:
            reply = exchange.resume(await self.ask())
            if reply is None and exchange.pending is None:
                reply = exchange.finish(self._loop.time())
        return reply

    async def _stream(self, upstream: UpstreamAnswer) -> bool:
        """Relay an event stream, frame by frame as the exchange lets them through.

        True when the upstream's connection may be used again.
        """
        exchange, sink = self.exchange, self._sink
        fields = dict(EVENT_STREAM_FIELDS)
        if exchange.is_streaming:
            fields = exchange.stream_fields
        elif isinstance(exchange, Post):
            fields.update(exchange.answer_fields)
        try:
            try:
                await sink.open(fields)
            except OSError as gone:
                raise ClientGone from gone
            try:
                last = await self._pump(upstream, sink.write)
            except (_Stopped, asyncio.CancelledError, ClientGone) as end:
                if not isinstance(end, _Stopped):
                    raise
                last = exchange.drain()
            except GatewayError as error:
                if isinstance(error, UpstreamTimeout):
                    self._tell_late()
                last = exchange.fail(error)
            except (aiohttp.ClientError, OSError) as broken:
                last = exchange.fail(blame(broken))
            except Exception:
                _log.exception("defect while relaying a stream")
                last = exchange.fail(InternalError("the gateway failed"))
            if exchange.must_abort:
                # What the client has got in part is wrong, and nothing else tells it.
                sink.abort()
                raise ClientGone
            if last:
                await self._within(sink.write(last))
            await self._within(sink.end())
        finally:
            sink.close()
        return exchange.error is None  # after an anomaly the connection is not used again

    async def _within(self, writing: Awaitable[None]) -> None:
        """Await a write; raises ClientGone, also when the client takes nothing for too long."""
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await writing
        except OSError as error:  # a TimeoutError is one, too
            self._sink.abort()
            raise ClientGone from error

    async def _pump(self, upstream: UpstreamAnswer, write: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Until the upstream's end, or the answer; returns what must still be written."""
        exchange, loop, limits = self.exchange, self._loop, self._limits
        content = upstream.content
        silence = limits.keepalive_interval
        idle = limits.stream_idle_timeout if self.is_standing else limits.idle_timeout
        heard = written = loop.time()
        is_due = is_more = False
        # What has been collected of an answer that turned out to be too large for that.
        begins = exchange.is_streaming
        while True:
            writing = False
            try:
                async with asyncio.timeout(None) as deadline:
                    self._deadline = deadline
                    while not self.stopping:
                        due = written + silence
                        if idle:
                            due = min(due, heard + idle)
                        if exchange.held_until is not None:
                            due = min(due, exchange.held_until)
                        if begins:
                            data, begins = exchange.receive(b"", heard), False
                        elif is_due:
                            data, is_due = exchange.flush(loop.time()), False
                        else:
                            deadline.reschedule(due)
                            size = turn_of(exchange)
                            chunk = content.read_nowait(size) or await content.read(size)
                            heard = loop.time()
                            if chunk:
                                data, is_more = exchange.receive(chunk, heard), len(chunk) == size
                            elif not content.at_eof():
                                continue
                            elif exchange.held_until is not None:
                                data = exchange.flush(math.inf)  # a hook may have to be asked about them
                            else:
                                return exchange.end()
                        while data or exchange.pending is not None:
                            if data:
                                writing = True
                                deadline.reschedule(loop.time() + limits.write_timeout)
                                try:
                                    await write(data)
                                except OSError as error:
                                    raise ClientGone from error
                                writing, written, data = False, loop.time(), b""
                            if exchange.pending is not None:
                                deadline.reschedule(None)
                                data = exchange.resume_stream(await self.ask())
                        if exchange.blocked_requests:
                            self._answer_blocked()
                        if exchange.done:
                            return b""
                        if is_more:
                            is_more = False
                            await asyncio.sleep(0)
            except TimeoutError:
                if writing:
                    # A client that takes nothing for so long is gone, or wants to hold our memory.
                    self._sink.abort()
                    raise ClientGone from None
                now = loop.time()
                is_due = exchange.held_until is not None and now >= exchange.held_until
                if not self.stopping and not is_due:
                    if idle and now >= heard + idle:
                        key = "limits.stream_idle_timeout" if self.is_standing else "limits.idle_timeout"
                        raise UpstreamTimeout("the upstream has been silent for too long", key=key) from None
                    if self._sink.keep_alive and not exchange.is_mid_event:
                        await self._within(write(KEEP_ALIVE))
                    written = now
            finally:
                self._deadline = None
            if self.stopping:
                raise _Stopped

    def _tell_late(self) -> None:
        """Tell the upstream that nobody waits any more: in a session the lost connection alone does not (rule 7.24)."""
        self._pool.send_beside(self.exchange.cancellations())

    def _answer_blocked(self) -> None:
        """Tell the upstream that its request was refused, so that its call does not wait for ever."""
        self._pool.send_beside(self.exchange.take_blocked())
