"""The HTTP+SSE transport of revision 2024-11-05, towards an upstream (rules 1.9, 1.10).

Outside, this is a pool like any other: what goes in and comes out is streamable HTTP with a session id.  Inside, a
session is one GET whose first event names the endpoint, POSTs to that endpoint, and the answers on the one stream,
which ``switch`` sorts.  One session belongs to one client, so a client that does not read holds up nobody else.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import ClientResponse
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping
from yarl import URL

from ..protocol import headers as fields_of
from ..protocol.errors import (
    BadRequest,
    GatewayError,
    UnsupportedRevision,
    UpstreamBusy,
    UpstreamProtocolError,
    UpstreamTimeout,
    from_upstream,
)
from ..protocol.headers import SESSION_ID, VERSION
from ..protocol.revisions import LEGACY, revision
from ..wire import sse
from ..wire.envelope import is_request_id
from ..wire.errors import PeerError
from .exchange import EVENT_STREAM, Forward
from .switch import Outlet, Switch
from .upstream import Pool, UpstreamAnswer

if TYPE_CHECKING:
    from ..config import Limits, Upstream

__all__ = ["SsePool", "open_pool"]

# A URI reference as RFC 3986 writes it: no space, no backslash, nothing that two readers split in different places.
_REFERENCE = re.compile(rb"[!$-;=?-\[\]_a-z~]{1,4096}")

# How long the status of a POST is waited for, so that a refusal passes as what it is, in seconds.
SOON = 1.0

# How long a POST may go on after its message has been answered, in seconds; some servers answer it last.
LINGER = 1.0


def open_pool(name: str, upstream: Upstream, limits: Limits) -> Pool:
    """The pool for an upstream's transport."""
    return (SsePool if upstream.transport == "sse" else Pool)(name, upstream, limits)


class _Answer:
    """An answer that no HTTP response was: that of the adapter itself."""

    __slots__ = ("_over", "content", "headers", "status")

    def __init__(
        self,
        status: int,
        content: Outlet | None = None,
        over: Callable[[], None] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.headers: MultiMapping[str] = CIMultiDictProxy(CIMultiDict(fields or {}))
        if content is None:
            content = Outlet(None, None, lambda _: None)
            content.end()
        self.content = content
        self._over = over

    def close(self) -> None:
        """Nobody reads it any more."""
        self.content.close()
        if self._over is not None:
            self._over()
            self._over = None

    def release(self) -> None:
        """The same: there is no connection to use again."""
        self.close()


class _Session:
    """One GET of the upstream's, from its first event to its end."""

    def __init__(self, id: str, endpoint: URL, stream: ClientResponse, decoder: sse.Decoder, limits: Limits) -> None:
        self.id = id
        self.endpoint = endpoint
        self.switch = Switch()
        self.stream = stream
        self.last_used = asyncio.get_running_loop().time()
        self.timer: asyncio.TimerHandle | None = None
        self.reader: asyncio.Task[BaseException | None]
        self._decoder = decoder
        self._limits = limits

    async def read(self, frames: list[sse.Frame]) -> BaseException | None:
        """Sort what comes until there is nothing more; returns what went wrong.  ``frames`` came with the first one."""
        limits, content = self._limits, self.stream.content
        try:
            while True:
                for frame in frames:
                    outlet = self.switch.take(frame)
                    if outlet is not None and outlet.full:
                        await self._wait_for(outlet)
                if self._decoder.error is not None:
                    raise self._decoder.error
                async with asyncio.timeout(limits.stream_idle_timeout or None):
                    chunk = await content.readany()
                if not chunk and content.at_eof():
                    return None
                frames = self._decoder.feed(chunk)
        except PeerError as error:
            return from_upstream(error)
        except TimeoutError:
            return UpstreamTimeout("the upstream has been silent for too long", key="limits.stream_idle_timeout")
        except (GatewayError, aiohttp.ClientError, OSError) as broken:
            return broken

    async def _wait_for(self, outlet: Outlet) -> None:
        """The client reads too slowly: so does the upstream wait, but not for ever."""
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await outlet.room()
        except TimeoutError:
            outlet.close()


class SsePool(Pool):
    """A pool for one upstream that speaks HTTP+SSE.

    A place for a stream is held by each session, from its initialize to its end.
    """

    stateless = False
    has_short_lane = False

    def __init__(self, name: str, upstream: Upstream, limits: Limits) -> None:
        super().__init__(name, upstream, limits)
        self.sessions: dict[str, _Session] = {}  # least recently used first

    def enter(self, stream: bool) -> None:
        """As for every pool; a stream's place is that of its session."""
        if not stream:
            super().enter(False)

    def leave(self, stream: bool) -> None:
        """Give back the place."""
        if not stream:
            super().leave(False)

    async def open(self, forward: Forward, stream: bool) -> UpstreamAnswer:
        """Do what a request of streamable HTTP asks for; returns once it is known how it will be answered.

        Raises what ``blame`` understands, and the adapter's own errors as GatewayError.
        """
        version = forward.fields.get(VERSION)
        known = revision(version)
        if version is not None and known is not None and known.stateless:
            raise UnsupportedRevision(
                "this upstream has sessions only", data={"supported": list(LEGACY), "requested": version}
            )
        message = orjson.loads(forward.body) if forward.body is not None else None
        id = forward.fields.get(SESSION_ID)
        if id is None:
            if type(message) is dict and message.get("method") == "initialize":
                return await self._initialize(message, forward)
            if forward.method == "GET":
                return _Answer(405)
            raise BadRequest(f"header {SESSION_ID} is missing", reason="session-missing")
        session = self.sessions.get(id)
        if session is None:
            return _Answer(404)
        self.sessions[id] = self.sessions.pop(id)
        session.last_used = asyncio.get_running_loop().time()
        if forward.method == "DELETE":
            self._end(session)
            return _Answer(200)
        if forward.method == "GET":
            if session.switch.is_listened_to:
                return _Answer(409)
            return _Answer(200, session.switch.listen(), fields={"Content-Type": EVENT_STREAM})
        if type(message) is dict and "method" in message and "id" in message:
            return await self._ask(session, message, forward)
        return await self._tell(session, message, forward)

    def finish(self, response: UpstreamAnswer) -> None:
        """Done with an answer."""
        if isinstance(response, _Answer):
            response.close()
        else:
            super().finish(response)

    async def close(self) -> None:
        """Close all sessions and connections."""
        for session in list(self.sessions.values()):
            self._end(session)
        await super().close()

    # -- messages -----------------------------------------------------------------------------------------------------

    async def _post(self, session: _Session, forward: Forward) -> ClientResponse:
        response = await self._calls_session.request(
            "POST",
            session.endpoint,
            data=forward.body,
            headers={**self._fields, "Content-Type": "application/json"},
            allow_redirects=False,
        )
        if response.status == 404:
            self._end(session)
        return response

    async def _tell(self, session: _Session, message: Any, forward: Forward) -> UpstreamAnswer:
        """Send a notification or a response."""
        response = await self._post(session, forward)
        if type(message) is dict and message.get("method") == "notifications/cancelled":
            # Its stream would never end: the server need not answer any more.
            session.switch.cancel((message.get("params") or {}).get("requestId"))
        return response

    async def _ask(
        self, session: _Session, message: dict[str, Any], forward: Forward, own: dict[str, str] | None = None
    ) -> UpstreamAnswer:
        """Send a request.  Some servers answer its POST first, others last: what comes first decides, or that nothing
        does."""
        meta = (message.get("params") or {}).get("_meta")
        token = meta.get("progressToken") if type(meta) is dict else None
        outlet = session.switch.wait(message["id"], token if is_request_id(token) else None)
        posting = self.later(self._attempt(session, forward))
        begun = asyncio.ensure_future(outlet.begun())
        try:
            await asyncio.wait((posting, begun), timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            outlet.close()
            if posting.done():
                self._posted(posting, outlet)
            else:
                posting.cancel()
            raise
        finally:
            begun.cancel()
        if posting.done():
            response = posting.result()
            if isinstance(response, Exception):
                outlet.close()
                raise response
            if response.status >= 300:
                outlet.close()
                return response  # type: ignore[no-any-return]
            super().finish(response)
        else:
            posting.add_done_callback(lambda task: self._posted(task, outlet))
        fields = {"Content-Type": EVENT_STREAM, **(own or {})}
        return _Answer(200, outlet, lambda: self._answered(session, posting), fields)

    async def _attempt(self, session: _Session, forward: Forward) -> ClientResponse | Exception:
        try:
            return await self._post(session, forward)
        except (aiohttp.ClientError, OSError) as error:
            return error

    def _posted(self, posting: asyncio.Task[ClientResponse | Exception], outlet: Outlet) -> None:
        """A POST is over of which something had come on the stream before."""
        if posting.cancelled():
            return
        response = posting.result()
        if isinstance(response, Exception):
            outlet.end(response)
            return
        if response.status >= 300:
            outlet.end(
                UpstreamProtocolError(
                    f"the upstream answered with HTTP status {response.status}", reason="upstream-status"
                )
            )
        super().finish(response)

    def _answered(self, session: _Session, posting: asyncio.Task[Any]) -> None:
        """A request has been answered, or nobody waits for it any more."""
        asyncio.get_running_loop().call_later(LINGER, posting.cancel)
        if not session.switch.initialized:
            self._end(session)

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def _initialize(self, message: dict[str, Any], forward: Forward) -> UpstreamAnswer:
        """Open the upstream's stream, and send initialize to where it says."""
        self._make_room()
        super().enter(True)
        begun = False
        try:
            fields = {**self._fields, "Accept": EVENT_STREAM}
            stream = await self._streams_session.request("GET", self._url, headers=fields, allow_redirects=False)
            if stream.status != 200 or not _is_event_stream(stream.headers):
                return stream  # the core says what is wrong with it
            try:
                session = await self._open(stream)
            except BaseException:
                stream.close()
                raise
            begun = True
        finally:
            if not begun:
                super().leave(True)
        answer: UpstreamAnswer | None = None
        try:
            answer = await self._ask(session, message, forward, {SESSION_ID: session.id})
        finally:
            if not isinstance(answer, _Answer):
                self._end(session)
        return answer

    async def _open(self, stream: ClientResponse) -> _Session:
        """The session of a stream whose head is there, once its first event is."""
        limit = self._limits.max_message_size
        decoder = sse.Decoder(limit, limit)
        while True:
            chunk = await stream.content.readany()
            if not chunk and stream.content.at_eof():
                raise _no_endpoint("the upstream's stream ended before it named its endpoint")
            try:
                frames = decoder.feed(chunk)
            except PeerError as error:
                raise from_upstream(error) from error
            for at, frame in enumerate(frames):
                if frame.data is not None:
                    if frame.event != b"endpoint":
                        raise _no_endpoint("the upstream's first event is not its endpoint")
                    endpoint = self._endpoint(frame.data)
                    return self._begin(
                        _Session(secrets.token_urlsafe(32), endpoint, stream, decoder, self._limits), frames[at + 1 :]
                    )

    def _endpoint(self, data: bytes) -> URL:
        """Where messages go: to the same scheme, host and port as the stream came from, or nowhere (rule 1.9)."""
        try:
            if _REFERENCE.fullmatch(data) is None:
                raise ValueError("not a URI reference")
            url = self._url.join(URL(data.decode("ascii"), encoded=True))
            own = self._url
            if (url.scheme, url.host, url.port, url.user) != (own.scheme, own.host, own.port, None):
                raise ValueError("another origin")
        except ValueError as error:
            raise _no_endpoint("the upstream named an endpoint that is not at its own origin") from error
        return url

    def _begin(self, session: _Session, frames: list[sse.Frame]) -> _Session:
        self.sessions[session.id] = session
        session.reader = self.later(session.read(frames))
        session.reader.add_done_callback(lambda reader: self._over(session, reader))
        self._watch(session)
        return session

    def _end(self, session: _Session) -> None:
        """Close a session's stream."""
        self._forget(session)
        session.reader.cancel()

    def _over(self, session: _Session, reader: asyncio.Task[BaseException | None]) -> None:
        """A session's stream has ended, or was closed."""
        self._forget(session)
        session.switch.end(None if reader.cancelled() else reader.result())
        session.stream.close()

    def _forget(self, session: _Session) -> None:
        if self.sessions.pop(session.id, None) is not None:
            super().leave(True)
        if session.timer is not None:
            session.timer.cancel()

    def _watch(self, session: _Session) -> None:
        """End a session that nobody uses any more."""
        loop, idle = asyncio.get_running_loop(), self._limits.session_idle_timeout
        left = idle if not session.switch.idle else session.last_used + idle - loop.time()
        if left > 0:
            session.timer = loop.call_later(left, self._watch, session)
        else:
            self._end(session)

    def _make_room(self) -> None:
        """Where there are as many sessions as may be, the one that was used longest ago goes, if it is idle."""
        if len(self.sessions) < min(self._limits.max_sessions, self._upstream.streams):
            return
        for session in self.sessions.values():
            if session.switch.idle:
                self._end(session)
                return
        raise UpstreamBusy("all sessions with the upstream are in use", key="limits.max_sessions")


def _no_endpoint(message: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(message, reason="upstream-endpoint")


def _is_event_stream(fields: MultiMapping[str]) -> bool:
    """Whether a body is beyond doubt an event stream as it stands."""
    kinds = fields.getall("Content-Type", ())
    return (
        len(kinds) == 1
        and fields_of.media_type(kinds[0])[0] == EVENT_STREAM
        and fields.getall("Transfer-Encoding", ["chunked"]) == ["chunked"]
        and (fields.get("Content-Encoding") or "identity").lower() == "identity"
    )
