"""The session of an HTTP+SSE client: its stream, and the exchanges whose answers are written to it.

Towards the upstream's pool it is a session of streamable HTTP, whatever transport the pool speaks: an answer comes in
an exchange of its own, and messages that belong to none come on a stream that this session opens as such a client
would, and resumes where the upstream asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import CIMultiDict

from ..protocol.errors import (
    GatewayError,
    InternalError,
    RateLimited,
    UnknownSession,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..protocol.headers import LAST_EVENT_ID, SESSION_ID, VERSION
from ..protocol.revisions import revision
from ..protocol.sessions import Session
from ..wire import sse
from .answer import AnsweredExchange
from .exchange import EVENT_STREAM, Exchange, Forward, Reply
from .gate import Head
from .pump import KEEP_ALIVE, ClientGone, Relay
from .sse_exchanges import Listening, Opening, Posting
from .upstream import blame

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["SseSession"]

_log = logging.getLogger(__name__)

# Fields of MCP's other transport: here the session is in the query, and its revision is known.
_OTHER = (SESSION_ID, VERSION, LAST_EVENT_ID)

# Pauses before the upstream's own stream is opened again, in seconds: first and longest.
AGAIN, AT_MOST = 1.0, 30.0


class SseSession:
    """One client's stream, and the exchanges whose answers are written to it."""

    def __init__(
        self,
        owner: Endpoint,
        id: str,
        opening: Opening,
        request: web.BaseRequest,
        response: web.StreamResponse,
    ) -> None:
        assert opening.client is not None
        self.client = opening.client
        self.upstream = opening.upstream
        # The upstream's session, once initialize has been answered.
        self.bound: Session | None = None
        self._owner = owner
        self._opening = opening
        self._request = request
        self._response = response
        self._path = f"/{opening.upstream}/messages"
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = self._closed = False
        self._calls = 0
        self.heard = self._written = self._loop.time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays: set[Relay] = set()
        self._listener: asyncio.Task[None] | None = None

    # -- its life -----------------------------------------------------------------------------------------------------

    @property
    def is_standing(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._calls

    def stop(self) -> None:
        """End the stream, once what is under way has had its last words."""
        self._stopping = True
        self._wake.set()

    async def hold(self) -> None:
        """Keep the stream open until it has to end; raises ClientGone."""
        limits = self._owner.site.config.limits
        while not self._stopping:
            try:
                async with asyncio.timeout_at(self._written + limits.keepalive_interval):
                    await self._wake.wait()
            except TimeoutError:
                now = self._loop.time()
                if limits.stream_idle_timeout and now >= self.heard + limits.stream_idle_timeout:
                    self._opening.outcome = "stream-ended"
                    return
                if now >= self._written + limits.keepalive_interval:
                    await self._write_in_time(KEEP_ALIVE)
            self._wake.clear()
        self._opening.outcome = "draining" if self._owner.site.draining else "stream-ended"

    async def close(self) -> None:
        """End everything that belongs to the session, here and upstream."""
        if self._stopping:
            for relay in self._relays:
                relay.stop()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=1.0)
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        farewell = self._farewell()
        if self._stopping:
            if farewell is not None:  # the pool is closed next
                await asyncio.wait((farewell,), timeout=1.0)
            try:
                await self._response.write_eof()
            except OSError as error:
                raise ClientGone from error

    def _farewell(self) -> asyncio.Task[Any] | None:
        """Tell the upstream that its session is over (rule 3.8)."""
        bound, self.bound = self.bound, None
        if bound is None:
            return None
        self._owner.site.sessions.forget(bound)
        pool = self._owner.pools[self.upstream]
        fields = {SESSION_ID: bound.upstream_id, **self._version(bound)}
        return pool.later(
            pool.send_quietly(
                Forward("DELETE", fields),
                lambda error: _log.info("upstream %s, ending a session: %s", pool.name, blame(error)),
            )
        )

    # -- the stream ---------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Write whole events; raises OSError when the client is gone."""
        # One at a time: aiohttp's writers share what they wait for, and one that is cancelled would cancel the others.
        async with self._lock:
            self._written = self._loop.time()
            self._opening.bytes_out += len(data)
            await self._response.write(data)

    async def _write_in_time(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._owner.site.config.limits.write_timeout):
                await self.write(data)
        except OSError as error:  # a TimeoutError is one, too
            self.abort()
            raise ClientGone from error

    def abort(self) -> None:
        """Close the client's connection at once: it takes nothing."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def send(self, reply: Reply) -> None:
        """Write an answer that is complete; raises ClientGone."""
        body = reply.body
        if reply.fields.get("Content-Type") != EVENT_STREAM:
            body = sse.encode(body, event=b"message") if body else b""
        if body:
            await self._write_in_time(body)

    # -- exchanges ----------------------------------------------------------------------------------------------------

    def head(self, method: str, fields: Mapping[str, str] | None = None, last_event_id: str | None = None) -> Head:
        """The head of a request of streamable HTTP that says the same: this session's, and this client's."""
        opened = self._opening.head
        own: CIMultiDict[str] = CIMultiDict(opened.fields if fields is None else fields)
        for name in _OTHER:
            own.popall(name, None)
        own["Accept"] = "text/event-stream" if method == "GET" else "application/json, text/event-stream"
        if self.bound is not None:
            own[SESSION_ID] = self.bound.id
            own.update(self._version(self.bound))
        if last_event_id is not None:
            own[LAST_EVENT_ID] = last_event_id
        return Head(method, self._path, opened.version, own, opened.remote)

    @staticmethod
    def _version(bound: Session) -> dict[str, str]:
        known = revision(bound.revision)
        return {VERSION: known.name} if known is not None and known.version_header else {}

    def bind(self, exchange: Exchange, fields: Mapping[str, str]) -> None:
        """The upstream's session that an answer to initialize opened, before the client knows of it."""
        if fields.get(SESSION_ID) is not None and exchange.session is not None:
            self._farewell()
            self.bound = exchange.session

    async def _run(self, exchange: AnsweredExchange, forward: Forward | Reply | None, sink: _Sink) -> Reply | None:
        """Run an exchange to its end, with the session's stream for its events.  Raises GatewayError, ClientGone."""
        owner = self._owner
        relay = Relay(owner.site, owner.pools[self.upstream], exchange, sink)
        self._relays.add(relay)
        self.heard = self._loop.time()
        try:
            return await owner.run(relay, forward)
        finally:
            self.heard = self._loop.time()
            self._relays.discard(relay)

    async def pass_on(self, posting: Posting, forward: Forward | Reply) -> Reply:
        """Give the upstream a notification or a response; the answer of its POST."""
        try:
            reply = await self._run(posting, forward, _Sink(self, posting))
        except UpstreamError as error:
            # The message was accepted, and nobody waits for what becomes of it.
            posting.refuse(error)
            reply = None
        if posting.initializes and self._listener is None:
            self._listener = self._begin(self._listen())
        self.end_if_lost()
        posting.accept()
        return reply or Reply(202)

    def answer(self, posting: Posting, forward: Forward | Reply | None) -> None:
        """Run the exchange of a request beside its POST, which is over; raises ClientGone."""
        if self._closed:
            raise ClientGone
        posting.holders += 1
        self._calls += 1
        self._begin(self._answer(posting, forward))

    async def _answer(self, posting: Posting, forward: Forward | Reply | None) -> None:
        outcome = None
        sink = _Sink(self, posting)
        try:
            try:
                reply = await self._run(posting, forward, sink)
                if reply is not None:
                    self.bind(posting, reply.fields)
                elif posting.outcome == "resumable":
                    await self._resume(posting, sink)
            except GatewayError as error:
                reply = posting.refuse(error)
            except (ClientGone, asyncio.CancelledError):
                raise
            except Exception:
                _log.exception("defect while answering a message")
                reply = posting.refuse(InternalError("the gateway failed"))
            if reply is not None:
                await self.send(reply)
        except asyncio.CancelledError:
            outcome = "draining" if self._owner.site.draining else "client-gone"
            raise
        except ClientGone:
            outcome = "client-gone"
        finally:
            self._calls -= 1
            posting.close(self._loop.time(), outcome)
            self.end_if_lost()

    def end_if_lost(self) -> None:
        """End the stream when nothing can come of it any more: the gateway stops, or the upstream's session is gone."""
        if not self._calls and (self._owner.site.draining or self._is_lost()):
            self.stop()

    def _is_lost(self) -> bool:
        if self.bound is None:
            return False
        try:
            self._owner.site.sessions.find(self.bound.id, self.client, self.upstream)
        except UnknownSession:
            # A client of this transport initializes again when its stream has ended, and not before.
            return True
        return False

    # -- streams of the upstream's ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """The upstream's own stream, as long as it has one: opened again when it ends."""
        last: str | None = None
        pause = AGAIN
        while not self._owner.site.draining:
            merged = await self._merge(last)
            if merged is None:
                return
            listening, sink = merged
            last = sink.last_event_id or last
            pause = AGAIN if listening.first_byte is not None else min(2 * pause, AT_MOST)
            await asyncio.sleep(max(pause, sink.retry))

    async def _resume(self, posting: Posting, sink: _Sink) -> None:
        """The upstream closed the stream of a request before its answer, to be asked for the rest (rule 4.4)."""
        patience = self._owner.site.config.limits.idle_timeout
        while sink.last_event_id is not None and not self._owner.site.draining:
            await asyncio.sleep(sink.retry or AGAIN)
            merged = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience or None):
                    merged = await self._merge(sink.last_event_id)
            if merged is None:
                break
            listening, again = merged
            if posting.calls.keys() <= set(listening.answered):
                return
            again.last_event_id = again.last_event_id or sink.last_event_id
            sink = again
        await self._write_in_time(posting.unanswered())

    async def _merge(self, last_event_id: str | None) -> tuple[Listening, _Sink] | None:
        """One stream of the upstream's from its beginning to its end; None when there is none to be had."""
        owner, now = self._owner, self._loop.time
        listening = Listening(owner.site, self.head("GET", None, last_event_id), owner.next_request(), now())
        listening.upstream = self.upstream
        sink = _Sink(self, listening)
        outcome = None
        try:
            listening.admit(self.client, now())
            await self._run(listening, listening.open(now()), sink)
        except GatewayError as error:
            listening.refuse(error)
            self.end_if_lost()
            if not isinstance(error, RateLimited | UpstreamBusy | UpstreamTimeout | UpstreamUnreachable):
                return None
        except asyncio.CancelledError:
            outcome = "draining" if owner.site.draining else "client-gone"
            raise
        except ClientGone:
            outcome = "client-gone"
            return None
        finally:
            listening.close(now(), outcome)
        return listening, sink

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Sink:
    """A session's stream, as one exchange writes to it.

    ``last_event_id`` and ``retry`` (seconds) are those of the upstream's stream: the client has no use for them, for it
    cannot ask for what it missed.
    """

    keep_alive = False

    def __init__(self, session: SseSession, exchange: AnsweredExchange) -> None:
        self.last_event_id: str | None = None
        self.retry = 0.0
        self._session = session
        self._exchange = exchange

    async def open(self, fields: Mapping[str, str]) -> None:
        """Remember the session that the answer opens, if it does."""
        self._session.bind(self._exchange, fields)

    async def write(self, data: bytes) -> None:
        """Write the messages of whole events, each as ``event: message``: some clients know no other name for it."""
        session = self._session
        out = []
        for frame in sse.Decoder(len(data), len(data)).feed(data):
            if frame.id is not None:
                self.last_event_id = frame.id.decode("latin-1") or None
            if frame.retry is not None:
                self.retry = min(frame.retry / 1000, AT_MOST)
            if not frame.data:
                continue
            if frame.event == b"message" and frame.id is None and frame.retry is None:
                out.append(frame.raw)
            else:
                out.append(sse.encode(frame.data, event=b"message"))
        session.heard = asyncio.get_running_loop().time()
        if out:
            await session.write(b"".join(out))

    async def end(self) -> None:
        """Others go on."""

    def abort(self) -> None:
        """Give up the client, and so its session."""
        self._session.abort()

    def close(self) -> None:
        """Others go on."""
