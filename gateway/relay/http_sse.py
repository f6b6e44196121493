"""The HTTP+SSE transport of revision 2024-11-05, for clients (rules 1.9 to 1.11).

``GET /{upstream}/sse`` opens a stream whose first event names the endpoint; every message is POSTed there, and
everything that comes back is an event on the stream.  Each message runs through the same exchange as on
``/{upstream}/mcp``: the session of this client is a session of streamable HTTP towards the upstream's pool, whatever
transport that speaks.

A request is answered on the stream, so its POST gets 202 as soon as the message has been understood; its refusal is an
event, too.  Notifications and responses are awaited until the upstream has them, so that what the client sends
afterwards does not overtake them.  What comes before the message - authentication, an unknown session, a body that is
too large, no JSON - is the POST's own HTTP answer.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from ..protocol.errors import (
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    RateLimited,
    Refusal,
    UnknownSession,
)
from ..wire import sse
from .answer import EVENT_STREAM_FIELDS
from .exchange import Exchange, Reply
from .gate import Head
from .sse_exchanges import Opening, Posting
from .sse_session import SseSession

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["HttpSse"]


@dataclass(frozen=True, slots=True)
class _Target:
    """What is served at a path: ``method`` alone."""

    http_sse: HttpSse
    method: str

    def exchange(self, *args: Any) -> Exchange:
        """The exchange of a request to it."""
        return Opening(*args) if self.method == "GET" else Posting(*args)

    async def serve(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Answer a request to it; raises GatewayError."""
        client = self.http_sse.owner.identify(exchange)
        if exchange.head.method != self.method:
            raise MethodNotAllowed(
                f"this is an endpoint of HTTP+SSE: it has {self.method} only", headers={"Allow": self.method}
            )  # rule 1.11: a client of the newer transport tries GET next
        if isinstance(exchange, Posting):
            return await self.http_sse.message(request, exchange, client)
        assert isinstance(exchange, Opening)
        return await self.http_sse.stream(request, exchange, client)

    def preflight(self, fields: dict[str, str]) -> dict[str, str]:
        """The answer to OPTIONS, which the gate has made for the other transport."""
        own = {"Allow": f"{self.method}, OPTIONS", "Access-Control-Allow-Methods": self.method}
        return {name: own.get(name, value) for name, value in fields.items()}


class HttpSse:
    """The sessions of all clients, and the endpoints ``/{upstream}/sse`` and ``/{upstream}/messages``."""

    def __init__(self, owner: Endpoint) -> None:
        self.owner = owner
        self.sessions: dict[str, SseSession] = {}
        config = owner.site.config
        stream, messages = _Target(self, "GET"), _Target(self, "POST")
        self._targets = {f"/{name}/sse": stream for name in config.upstreams}
        self._targets.update((f"/{name}/messages", messages) for name in config.upstreams)
        if config.default_upstream is not None:
            self._targets["/sse"] = stream
        self._prefix = urlsplit(config.listen.base_url).path

    def endpoint(self, head: Head) -> _Target | None:
        """What a request's target names, if it is of this transport."""
        return self._targets.get(head.target.partition("?")[0])

    async def stream(self, request: web.BaseRequest, opening: Opening, client: str) -> web.StreamResponse:
        """A session, from its GET to its end; raises GatewayError before it begins."""
        loop = asyncio.get_running_loop()
        opening.admit(client, loop.time())
        opening.open()
        owner = self.owner
        id = secrets.token_urlsafe(32)
        fields = {**EVENT_STREAM_FIELDS, **owner.site.gate.cors(request.headers.get("Origin"))}
        response = web.StreamResponse(status=200, headers=fields)
        session = SseSession(owner, id, opening, request, response)
        owner.site.metrics.stream_opened(opening.upstream, "get")
        self.sessions[id] = session
        owner.relays.add(session)
        try:
            await response.prepare(request)
            # A path: it has to lead back here through whatever the client came through.
            address = f"{self._prefix}/{opening.upstream}/messages?session_id={id}"
            await session.write(sse.encode(address.encode(), event=b"endpoint"))
            await session.hold()
        finally:
            del self.sessions[id]
            owner.site.metrics.stream_closed(opening.upstream, "get")
            try:
                await session.close()
            finally:
                owner.over(session)
        return response

    async def message(self, request: web.BaseRequest, posting: Posting, client: str) -> web.StreamResponse:
        """A POST to a session's endpoint."""
        owner, now = self.owner, asyncio.get_running_loop().time
        session = self._find(posting.head, client, posting.upstream)
        head = posting.head
        posting.head = session.head("POST", head.fields)
        try:
            posting.admit(client, now())
            await owner.read_body(request, posting)
            forward = posting.complete(now())
            if not posting.calls and forward is not None:
                return owner.respond(request, await session.pass_on(posting, forward))
        except GatewayError as error:
            if isinstance(error, RateLimited):
                await owner.find_id(request, posting)
            if not posting.calls and not (isinstance(error, Refusal | RateLimited) and posting.names_id):
                raise
            # Clients of this transport take an HTTP error for the end of everything.
            await session.send(posting.refuse(error))
            posting.accept()
            session.end_if_lost()
            return owner.respond(request, Reply(202))
        session.answer(posting, forward)
        return owner.respond(request, Reply(202))

    def _find(self, head: Head, client: str, upstream: str) -> SseSession:
        """The caller's session; raises UnknownSession for any other, with nothing that tells the cases apart."""
        query = head.target.partition("?")[2]
        name, _, id = query.partition("=")
        if name != "session_id" or "&" in id:
            raise BadRequest("the query is session_id=... and nothing else", reason="session-missing")
        session = self.sessions.get(id)
        if session is None or session.client != client or session.upstream != upstream:
            raise UnknownSession("unknown session: open a new stream")
        return session
