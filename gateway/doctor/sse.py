"""The HTTP+SSE transport of 2024-11-05: a GET whose first event names where to POST (rules 1.9, 1.10)."""

from __future__ import annotations

from typing import Any

from yarl import URL

from ..wire import sse, strict
from ..wire.errors import PeerError
from ..wire.strict import dumps
from .client import EVENT_STREAM, NoReply, Reply
from .definitions import examine_lists
from .eras import introduce, refusal
from .report import Level
from .visit import Visit

__all__ = ["http_sse"]

REVISION = "2024-11-05"
# The endpoint event is the first thing on the stream.
_FIRST_EVENT = 2.0


async def http_sse(visit: Visit) -> None:
    """GET without a session; where an ``endpoint`` event comes, initialize and tools/list through it."""
    alone = not visit.dialects
    within = visit.client.timeout if alone else min(visit.client.timeout, _FIRST_EVENT)
    try:
        async with visit.client.open("GET", fields={"Accept": EVENT_STREAM}, within=within) as response:
            if response.status >= 300 or response.content_type != EVENT_STREAM:
                if alone:
                    reply = Reply(response.status, response.headers)
                    refusal(visit, reply)
                if alone and visit.refused is None:
                    visit.say("sse-transport", Level.NOTE, f"no HTTP+SSE transport: GET gives {visit.describe(reply)}")
                return
            stream = _Stream(visit, response)
            endpoint = await stream.endpoint()
            if endpoint is not None:
                await _converse(visit, stream, endpoint)
    except NoReply as error:
        if alone and not visit.sse:
            visit.say("sse-transport", Level.NOTE, f"no HTTP+SSE transport: GET gives no endpoint event ({error})")


class _Stream:
    """The event stream of a session, read event by event."""

    def __init__(self, visit: Visit, response: Any) -> None:
        most = visit.client.limits.max_message_size
        limits = visit.client.limits
        self._chunks = response.content.iter_any()
        self._decoder = sse.Decoder(most, most)
        self._frames: list[sse.Frame] = []
        self._json = strict.Limits(limits.json_depth, limits.json_nodes, limits.json_number_chars)

    async def frame(self) -> sse.Frame | None:
        """The next frame that holds data; None at the end."""
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.data is not None:
                    return frame
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return None
            self._frames += self._decoder.feed(chunk)

    async def endpoint(self) -> str | None:
        """Where to POST; None where the first event is another one."""
        frame = await self.frame()
        if frame is None or frame.event != b"endpoint":
            return None
        return (frame.data or b"").decode("utf-8", "replace")

    async def answer(self, id: int) -> tuple[dict[str, Any] | None, int]:
        """The response with this id, and its size in bytes.  Raises PeerError for what the gateway refuses."""
        while (frame := await self.frame()) is not None:
            if frame.event in (None, b"", b"message"):
                document = strict.parse(frame.data or b"", self._json, twins=strict.Twins.PROTOCOL)
                if isinstance(document, dict) and document.get("id") == id and "method" not in document:
                    return document, len(frame.data or b"")
        return None, 0


async def _converse(visit: Visit, stream: _Stream, endpoint: str) -> None:
    base = visit.client.url
    try:
        target = base.join(URL(endpoint))
        origin = target.origin()
    except ValueError:
        visit.say("sse-transport", Level.PROBLEM, "its endpoint event holds no URL")
        return
    if origin != base.origin():
        visit.say(
            "sse-transport",
            Level.PROBLEM,
            f"its endpoint event names another origin, {visit.shown(str(origin))}: the gateway refuses that (rule 1.9)",
        )
        return
    if endpoint.partition("?")[2]:
        visit.say("session", Level.NOTE, "HTTP+SSE: the session's id is in the query, where it gets into access logs")

    async def call(method: str, params: dict[str, Any] | None, *, notify: bool = False) -> tuple[Any, int]:
        document: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        document |= {} if params is None else {"params": params}
        id = visit.next_id()
        document |= {} if notify else {"id": id}
        posted = await visit.client.send("POST", dumps(document), url=target, listen=1.0)
        if posted.status >= 300:
            visit.say("sse-transport", Level.PROBLEM, f"{method} over HTTP+SSE gives {visit.describe(posted)}")
            return None, 0
        return (None, 0) if notify else await stream.answer(id)

    try:
        info = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "mcpgw-doctor", "version": "1"}}
        answer, _ = await call("initialize", info)
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict):
            visit.say("sse-transport", Level.PROBLEM, "has an HTTP+SSE endpoint, but initialize is not answered")
            return
        visit.sse = True
        negotiated = visit.shown(result.get("protocolVersion"), 20)
        visit.report.speaks.setdefault(negotiated, "sse")
        visit.say("sse-transport", Level.OK, f"speaks HTTP+SSE at this URL; negotiates {negotiated}")
        await call("notifications/initialized", None, notify=True)
        if not visit.dialects:
            introduce(visit, result.get("serverInfo"), result.get("capabilities"))
            await examine_lists(visit, call, result)
    except PeerError as error:
        visit.say("json", Level.PROBLEM, f"HTTP+SSE: its JSON is refused ({error.reason}): {error.message}")
