"""The short lane: one plain exchange without a task, a Request or a Response.

A request that arrived complete in one read - and that is nearly every one - needs nothing of what a web framework
builds around it.  Here the two connections, which are aiohttp's own with aiohttp's C parser, drive the same sans-IO
exchange as ``endpoint`` and ``pump`` do: what the client sent is judged within its ``data_received``, what the upstream
sends within that one's.  Everything that decides is the exchange's; everything unusual never gets here (``is_plain``).

    client connection --start--> Lane --send--> upstream connection
                      <--send---      <--upstream_moved--

What ``pump`` does with a deadline around each await is done here with one timer a client connection (``Alarm``), which
is seldom armed and hardly ever moved: most exchanges end before anything is due.
"""

from __future__ import annotations

import asyncio
import http
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import HttpVersion11

from ..protocol.errors import Draining, GatewayError, InternalError, UpstreamTimeout
from .answer import EVENT_STREAM_FIELDS
from .exchange import Answer, Forward, Reply
from .gate import Head
from .get import Get
from .post import Post
from .pump import KEEP_ALIVE, turn_of
from .upstream import Pool, blame

if TYPE_CHECKING:
    from .client_side import ClientSide, KnownHead
    from .endpoint import Endpoint
    from .upstream_side import KnownAnswer, UpstreamSide

__all__ = ["Lane", "is_plain"]

_log = logging.getLogger(__name__)

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}


def is_plain(message: Any, payload: Any, largest: int) -> bool:
    """Whether a request that the parser has read is one for the short lane: all there, and nothing special."""
    return (
        message.method in ("POST", "GET")
        and message.version == HttpVersion11
        and not (message.chunked or message.should_close or message.upgrade or message.compression)
        and payload.is_eof()
        and payload.exception() is None
        and payload.total_bytes <= (largest if message.method == "POST" else 0)
        and "Expect" not in message.headers
    )


class _LastLines:
    """The end of every head, which is made anew once a second."""

    __slots__ = ("_lines", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._lines = b""

    def at(self, now: float) -> bytes:
        """What it is at this time, in POSIX seconds."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._lines = f"Date: {rfc822_formatted_time()}\r\nServer: mcpgw\r\n\r\n".encode()
        return self._lines


_LAST_LINES: Final = _LastLines()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What an exchange is at: numbers, because an enumeration's members are looked up each time.
_JUDGING: Final = 0
_CONNECTING: Final = 1
_WAITING: Final = 2  # for the head of the answer
_COLLECTING: Final = 3
_STREAMING: Final = 4
_OVER: Final = 5

_COLLECT: Final = Answer.COLLECT
_USUAL_FIELDS: Final = {"Content-Type": "application/json"}
_USUAL_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


class Lane:
    """One exchange: the client's connection, the upstream's, and what is in between."""

    __slots__ = (
        "_busy", "_client", "_complete", "_connecting", "_endpoint", "_entered", "_exchange", "_heard", "_loop",
        "_payload", "_pool", "_side", "_standing", "_state", "_waits_turn", "_written", "headers", "status",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, client: ClientSide, pool: Pool, head: Head) -> None:
        self._endpoint = endpoint
        self._client = client
        self._pool = pool
        self._loop: Any = client.loop
        self._state = _JUDGING
        self._side: UpstreamSide | None = None
        self._connecting: Any = None
        self._payload: Any = None
        self._standing = False
        self._entered = False
        self._complete = False
        self._busy = False
        self._waits_turn = False
        self._heard: float = self._loop.time()
        self._written = self._heard
        self._exchange: Post | Get
        if head.method == "POST":
            self._exchange = Post(endpoint.site, head, endpoint.next_request(), self._heard)
        else:
            self._exchange = Get(endpoint.site, head, endpoint.next_request(), self._heard)

    # -- from the client's request to the upstream --------------------------------------------------------------------

    def start(self, known: KnownHead, body: bytes) -> None:
        """Judge the request and send it on, or refuse it."""
        exchange, endpoint = self._exchange, self._endpoint
        passed = known.passed
        endpoint.relays.add(self)
        try:
            try:
                if passed is not None and time.time() < passed.until and not endpoint.site.draining:
                    exchange.admit_again(passed, self._heard)
                else:
                    exchange.admit(endpoint.identify(exchange), self._heard)
                    assert exchange.admission is not None
                    known.passed = endpoint.site.gate.passed(exchange.head, exchange.admission)
                forward: Forward | Reply | None
                if isinstance(exchange, Post):
                    exchange.feed(body)
                    forward = exchange.complete(self._heard)
                    assert forward is not None  # no hook asks: ``Chain.asks``
                else:
                    forward = exchange.open(self._heard)
                if isinstance(forward, Reply):
                    self._reply(forward)
                    return
                pool = self._pool
                self._standing = standing = self.is_standing
                pool.enter(standing)
                self._entered = True
                self._side = side = pool.take(standing, self._heard)
                if side is not None:
                    self._send(side, forward)
                else:
                    self._state = _CONNECTING
                    self._connecting = pool.later(self._connect(forward))
                self._client.alarm.set(self._heard + endpoint.limits.first_byte_timeout, self._late)
            except GatewayError as error:
                if isinstance(exchange, Post) and not exchange.bytes_in and exchange.upstream:
                    exchange.look_for_id(body)
                self._refuse(error)
        except Exception:
            self._defect()

    def _send(self, side: UpstreamSide, forward: Forward) -> None:
        self._state = _WAITING
        try:
            self._pool.send(side, forward, self)
        except OSError as error:
            raise blame(error) from error

    async def _connect(self, forward: Forward) -> None:
        try:
            self._side = side = await self._pool.connect(self._standing)
            self._send(side, forward)
        except (aiohttp.ClientError, OSError) as broken:
            self._refuse(blame(broken))
        except GatewayError as error:
            self._refuse(error)
        except Exception:
            self._defect()
        finally:
            self._connecting = None

    # -- from the upstream to the client ------------------------------------------------------------------------------

    def upstream_moved(self) -> None:
        """Something has come on the upstream's connection, or it is lost."""
        if self._busy or self._state == _OVER:
            return  # reading may resume the transport, which comes back here
        self._busy = True
        try:
            try:
                if self._state == _WAITING:
                    self._read_head()
                if self._state == _COLLECTING:
                    self._collect()
                if self._state == _STREAMING:
                    self._stream()
            except GatewayError as error:
                self._failed(error)
            except (aiohttp.ClientError, HttpProcessingError, OSError) as broken:
                self._failed(blame(broken))
        except Exception:
            self._defect()
        finally:
            self._busy = False

    def upstream_answered(self, answer: KnownAnswer, body: bytes) -> None:
        """All of a small JSON answer: what ``upstream_moved`` would find, without the buffers in between."""
        try:
            try:
                exchange = self._exchange
                self._complete = True
                self._heard = now = self._loop.time()
                assert isinstance(exchange, Post)  # a GET's answer is no JSON
                todo = exchange.answer_head(answer.status, answer.headers, now)
                if todo is _COLLECT:
                    exchange.collect(body, now)
                    if exchange.is_streaming:
                        self._begin_large(exchange)
                        if self._state == _STREAMING:
                            self._end_stream(exchange.end())
                        return
                    reply = exchange.finish(now)
                    assert reply is not None
                    self._reply(reply)
                else:
                    assert isinstance(todo, Reply)
                    self._reply(todo)
            except GatewayError as error:
                self._failed(error)
        except Exception:
            self._defect()

    def _read_head(self) -> None:
        side, exchange = self._side, self._exchange
        assert side is not None
        protocol = side.protocol
        buffer = protocol._buffer
        while buffer:
            (message, payload), _ = buffer.popleft()
            if 100 <= message.code <= 199 and message.code != 101:
                continue
            self._payload = payload
            self.status, self.headers = message.code, message.headers
            self._heard = self._loop.time()
            answer = exchange.answer_head(message.code, message.headers, self._heard)
            if answer is Answer.STREAM:
                more = exchange.answer_fields if isinstance(exchange, Post) else {}
                self._open_stream({**EVENT_STREAM_FIELDS, **more})
            elif answer is Answer.COLLECT:
                self._state = _COLLECTING
                self._client.alarm.set(self._heard + self._endpoint.limits.idle_timeout, self._late)
            else:
                assert isinstance(answer, Reply)
                self._reply(answer)
            return
        if (error := protocol.exception()) is not None:
            raise error

    def _collect(self) -> None:
        exchange, payload = self._exchange, self._payload
        assert isinstance(exchange, Post) and payload is not None
        while not exchange.enough:
            chunk = payload.read_nowait(-1)
            if chunk:
                self._heard = self._loop.time()
                exchange.collect(chunk, self._heard)
                if exchange.is_streaming:
                    self._begin_large(exchange)
                    return
            elif payload.at_eof():
                break
            else:
                self._client.alarm.set(self._heard + self._endpoint.limits.idle_timeout, self._late)
                return
        self._complete = payload.at_eof()
        reply = exchange.finish(self._heard)
        assert reply is not None
        self._reply(reply)

    def _begin_large(self, exchange: Post) -> None:
        """An answer that is too large to collect: what has been collected goes out."""
        self._open_stream(exchange.stream_fields)
        self._pass_on(exchange.receive(b"", self._heard), self._heard)

    def _open_stream(self, fields: Mapping[str, str]) -> None:
        self._state = _STREAMING
        self._written = self._heard
        self._endpoint.site.metrics.stream_opened(self._exchange.upstream, self._exchange.head.method.lower())
        self._client.send(self._head(200, fields, b"Transfer-Encoding: chunked\r\n"))
        self._watch()

    def _stream(self) -> None:
        exchange, payload = self._exchange, self._payload
        assert payload is not None
        while self._client.takes_more and not self._waits_turn:
            size = turn_of(exchange)
            chunk = payload.read_nowait(size)
            if chunk:
                self._heard = self._loop.time()
                self._pass_on(exchange.receive(chunk, self._heard), self._heard)
                if len(chunk) == size:
                    self._waits_turn = True
                    self._loop.call_soon(self._take_turn)
            elif payload.at_eof():
                self._end_stream(exchange.end())
            else:
                break
            if self._state == _OVER:
                return
        self._watch()

    def _take_turn(self) -> None:
        self._waits_turn = False
        self.upstream_moved()

    def _pass_on(self, data: bytes, now: float) -> None:
        exchange = self._exchange
        if data:
            self._written = now
            self._client.send(_chunk(data))
        if exchange.blocked_requests:
            self._pool.send_beside(exchange.take_blocked())
        if exchange.done:
            self._end_stream(b"")

    # -- time ---------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Set the alarm for whatever is due next on a stream."""
        limits, exchange = self._endpoint.limits, self._exchange
        if not self._client.takes_more:
            due = self._written + limits.write_timeout
        else:
            due = self._written + limits.keepalive_interval
            idle = limits.stream_idle_timeout if self.is_standing else limits.idle_timeout
            if idle:
                due = min(due, self._heard + idle)
            if exchange.held_until is not None:
                due = min(due, exchange.held_until)
        self._client.alarm.set(due, self._on_stream_due)

    def _on_stream_due(self) -> None:
        if self._state != _STREAMING:
            return
        try:
            self._stream_due(self._loop.time())
        except Exception:
            self._defect()

    def _stream_due(self, now: float) -> None:
        limits, exchange = self._endpoint.limits, self._exchange
        if not self._client.takes_more:
            if now >= self._written + limits.write_timeout:
                self._give_up()  # gone, or it wants to hold our memory
                return
        elif exchange.held_until is not None and now >= exchange.held_until:
            self._pass_on(exchange.flush(now), now)
        else:
            idle = limits.stream_idle_timeout if self.is_standing else limits.idle_timeout
            if idle and now >= self._heard + idle:
                key = "limits.stream_idle_timeout" if self.is_standing else "limits.idle_timeout"
                self._failed(UpstreamTimeout("the upstream has been silent for too long", key=key))
            elif now >= self._written + limits.keepalive_interval:
                self._written = now
                if not exchange.is_mid_event:
                    self._client.send(_chunk(KEEP_ALIVE))
        if self._state == _STREAMING:
            self._watch()

    def _late(self) -> None:
        """The upstream did not answer, or stopped in the middle of an answer that is collected."""
        if self._state == _COLLECTING:
            error = UpstreamTimeout("the upstream's answer stopped coming", key="limits.idle_timeout")
        elif self._state in (_CONNECTING, _WAITING):
            error = UpstreamTimeout("the upstream did not answer in time", key="limits.first_byte_timeout")
        else:
            return
        self._failed(error)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _failed(self, error: GatewayError) -> None:
        """The upstream broke, or is too slow."""
        if isinstance(error, UpstreamTimeout):
            # In a session the lost connection alone does not tell it that nobody waits any more (rule 7.24).
            self._pool.send_beside(self._exchange.cancellations())
        if self._state == _STREAMING:
            self._end_stream(self._exchange.fail(error))
        elif self._state != _OVER:
            self._refuse(error)

    def _refuse(self, error: GatewayError) -> None:
        self._reply(self._exchange.refuse(error))

    def _reply(self, reply: Reply) -> None:
        """The complete answer."""
        self._endpoint.site.metrics.response(reply.status)
        if (
            reply.status == 200
            and reply.fields == _USUAL_FIELDS
            and not reply.close_connection
            and "Origin" not in self._exchange.head.fields
        ):
            last = _LAST_LINES.at(time.time())
            self._client.send(b"%b%d\r\n%b%b" % (_USUAL_HEAD, len(reply.body), last, reply.body))
            self._over(None)
            return
        length = b"" if reply.status == 204 else b"Content-Length: %d\r\n" % len(reply.body)
        if reply.close_connection:
            length += b"Connection: close\r\n"
        self._client.send(self._head(reply.status, reply.fields, length) + reply.body)
        self._over(None, reply.close_connection)

    def _end_stream(self, last: bytes) -> None:
        exchange = self._exchange
        if exchange.must_abort:
            self._give_up()
            return
        end = b"0\r\n\r\n"
        self._client.send(_chunk(last) + end if last else end)
        self._over(None)

    def _defect(self) -> None:
        _log.exception("defect on the short lane")
        if self._state == _OVER:
            return
        if self._state == _STREAMING:
            self._exchange.fail(InternalError("the gateway failed"))
            self._give_up()
        else:
            self._refuse(InternalError("the gateway failed"))

    def _give_up(self) -> None:
        """Cut the client's connection: nothing else tells it that what it has got is not all.  The exchange is over."""
        self._client.give_up()
        self._over("client-gone", True)

    def client_gone(self) -> None:
        """The client's connection is lost."""
        if self._state != _OVER:
            self._over("draining" if self._endpoint.site.draining else "client-gone", True)

    def _over(self, outcome: str | None, close: bool = False) -> None:
        state, self._state = self._state, _OVER
        exchange, endpoint = self._exchange, self._endpoint
        if state == _STREAMING:
            endpoint.site.metrics.stream_closed(exchange.upstream, exchange.head.method.lower())
        if self._entered:
            self._pool.leave(self._standing)
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        now: float = self._loop.time()
        if self._side is not None:
            self._let_go(self._side, outcome is None and exchange.error is None, now)
        endpoint.over(self)
        exchange.close(now, outcome)
        self._client.alarm.clear()
        self._client.lane_over(close, now)

    def _let_go(self, side: UpstreamSide, clean: bool, now: float) -> None:
        """The upstream's connection goes back to the pool, unless something was wrong with it."""
        side.listener = None
        if clean and self._complete:
            side.release(now)
        elif clean and self._payload is not None:
            self._pool.finish(self)
        else:
            side.close()

    def _head(self, status: int, fields: Mapping[str, str], framing: bytes) -> bytes:
        """The head of an answer, as aiohttp would write it."""
        origin = self._exchange.head.fields.get("Origin")
        if origin is not None:
            fields = {**fields, **self._endpoint.site.gate.cors(origin)}
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        if lines.count("\n") != len(fields):
            raise ValueError("a header field with a line break")
        return (
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{lines}".encode() + framing + _LAST_LINES.at(time.time())
        )

    # -- what can be told to stop -------------------------------------------------------------------------------------

    @property
    def is_standing(self) -> bool:
        """True for a stream that has no natural end (rule 7.10)."""
        return isinstance(self._exchange, Get) or self._exchange.is_listening

    def stop(self) -> None:
        """The gateway stops: end now."""
        if self._state == _STREAMING:
            self._end_stream(self._exchange.drain())
        elif self._state != _OVER:
            self._refuse(Draining("the gateway is stopping", headers={"Retry-After": "1"}))

    def client_writable(self) -> None:
        """The client takes more again."""
        if self._state == _STREAMING:
            self._written = self._loop.time()
            self.upstream_moved()

    # -- the upstream's answer, as the pool sees it -------------------------------------------------------------------

    @property
    def content(self) -> Any:
        """The body of the answer, a StreamReader."""
        return self._payload

    def close(self) -> None:
        """Give up the upstream's connection."""
        if self._side is not None:
            self._side.close()

    def release(self) -> Any:
        """The upstream's connection may be used again."""
        if self._side is not None:
            self._side.release(self._loop.time())
