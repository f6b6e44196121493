"""A small MCP server that behaves: revisions 2025-03-26 to 2025-11-25 with sessions, and 2026-07-28 without, on one
endpoint.

It checks what a server must check (sessions, revisions, mirrored headers), so that a relay that breaks one is noticed.
It keeps no events for resumption, and does not stop a call for notifications/cancelled.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

from .client import LEGACY, META, MODERN, NAMED_BY, header_text
from .mcp_tools import TOOLS, Session, Tool, ToolCall
from .script import Answer, End, Event, Head, Json, Received, Step, Steps, error_answer, json_answer, status_answer
from .upstream import ScriptedUpstream

__all__ = ["ScriptedMcp"]

LEGACY_REVISIONS = (LEGACY, "2025-06-18", "2025-03-26")
SERVER_INFO = {"name": "scripted-mcp", "version": "1"}
CAPABILITIES = {"tools": {"listChanged": True}}
STREAM = Head(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
NO_HINTS = {"ttlMs": 0, "cacheScope": "private"}  # rule 7.16


class ScriptedMcp(ScriptedUpstream):
    """``async with ScriptedMcp() as server``: an MCP server at ``server.url``, with all that a ScriptedUpstream shows.

    ``tools``     by name; the default is :data:`TOOLS`
    ``methods``   answers for further JSON-RPC methods, after the checks of session, revision and headers
    ``json``      answer tools/call as application/json where the tool's first document is the final answer
    ``stateful``  False gives out no Mcp-Session-Id (rule 3.4 lets a server choose)
    Other arguments are those of ScriptedUpstream.
    """

    def __init__(
        self,
        *,
        tools: Mapping[str, Tool] = TOOLS,
        methods: Mapping[str, Answer] | None = None,
        json: bool = False,
        stateful: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(self._respond, **options)
        self.tools = dict(tools)
        self.sessions: dict[str, Session] = {}
        self._methods = methods or {}
        self._json = json
        self._stateful = stateful

    def push(self, message: dict[str, Any] | Step | None, session: str | None = None) -> None:
        """Sends a message on the GET stream of a session (the newest by default), as soon as there is such a stream.
        None ends the stream.  LookupError without a session."""
        if not self.sessions:
            raise LookupError("no session is open")
        self.sessions[next(reversed(self.sessions)) if session is None else session].outbox.put_nowait(message)

    def _respond(self, received: Received) -> Steps:
        modern = received.header("mcp-protocol-version") == MODERN or META + "protocolVersion" in _meta(received)
        if modern:
            return self._modern(received) if received.method == "POST" else _not_allowed("POST")(received)
        if received.method == "POST" and received.rpc_method == "initialize":
            return self._initialize(received)
        session = self._session(received)
        if not isinstance(session, Session):
            return session(received)
        match received.method:
            case "POST":
                return self._legacy(received, session)
            case "GET":
                if session.listening:
                    return status_answer(409)(received)
                return self._listen(session)
            case "DELETE" if self._stateful:
                del self.sessions[session.id]
                session.outbox.put_nowait(None)
                return status_answer(200)(received)
        return _not_allowed("GET, POST, DELETE")(received)

    def _initialize(self, received: Received) -> Steps:
        asked = received.params.get("protocolVersion")
        revision = asked if asked in LEGACY_REVISIONS else LEGACY
        id = secrets.token_urlsafe(16) if self._stateful else ""
        self.sessions[id] = Session(id, revision, received.params.get("capabilities") or {})
        result = {"protocolVersion": revision, "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO}
        return json_answer(result, headers={"Mcp-Session-Id": id} if id else ())(received)

    def _session(self, received: Received) -> Session | Answer:
        id = received.header("mcp-session-id")
        if id is None and self._stateful:
            return error_answer(-32600, "Mcp-Session-Id is missing", status=400)  # rule 3.6
        session = self.sessions.get(id or "")
        if session is None:
            return error_answer(-32600, "no such session", status=404)  # rule 3.7
        if received.header("mcp-protocol-version") not in (None, session.revision):
            return error_answer(-32600, "not the negotiated revision", status=400)  # rule 3.11
        return session

    def _legacy(self, received: Received, session: Session) -> Steps:
        if not isinstance(received.message, dict):
            return error_answer(-32600, "not one JSON-RPC message", status=400)(received)
        if received.rpc_method is None:
            future = session.asked.pop(str(received.id), None)
            if future is None:
                return error_answer(-32600, "nothing was asked with this id", status=400)(received)
            future.set_result(received.message)
            return status_answer(202)(received)
        return self._method(received, session)

    def _modern(self, received: Received) -> Steps:
        meta, method = _meta(received), received.rpc_method
        if method is None:
            return error_answer(-32600, "not a request or notification", status=400)(received)  # rule 2.10
        if received.id is None:
            return status_answer(202)(received)
        if not {META + "protocolVersion", META + "clientCapabilities"} <= meta.keys():
            return error_answer(-32602, "_meta lacks a required member", status=400)(received)  # rule 6.1
        mirrored = {"MCP-Protocol-Version": meta[META + "protocolVersion"], "Mcp-Method": method}
        if method in NAMED_BY:
            mirrored["Mcp-Name"] = header_text(str(received.params.get(NAMED_BY[method])))
        for name, value in mirrored.items():
            if received.header_values(name) != [value]:
                return error_answer(-32020, f"{name} does not mirror the body", status=400)(received)  # rule 6.10
        if meta[META + "protocolVersion"] != MODERN:
            data = {"supported": [MODERN], "requested": meta[META + "protocolVersion"]}
            return error_answer(-32022, "unsupported revision", data=data, status=400)(received)  # rule 6.3
        return self._method(received, None)

    def _method(self, received: Received, session: Session | None) -> Steps:
        method = received.rpc_method
        kind = {} if session else {"resultType": "complete"}
        hints = {} if session else NO_HINTS
        if method is not None and method in self._methods:
            return self._methods[method](received)
        if received.id is None:
            return status_answer(202)(received)
        if method == "tools/list":
            tools = [tool.definition(name) for name, tool in self.tools.items()]
            return json_answer({"tools": tools} | kind | hints)(received)
        if method == "tools/call":
            tool = self.tools.get(str(received.params.get("name")))
            if tool is None:
                return error_answer(-32602, "Unknown tool")(received)  # rule 7.28
            return self._call(tool, ToolCall(received, session))
        if method == "ping" and session:
            return json_answer({})(received)
        if method == "server/discover" and not session:
            about = {"supportedVersions": [MODERN, *LEGACY_REVISIONS], "capabilities": CAPABILITIES}
            return json_answer(about | kind | hints | {"_meta": {META + "serverInfo": SERVER_INFO}})(received)
        return error_answer(-32601, "Method not found", status=200 if session else 404)(received)  # rule 6.22

    async def _call(self, tool: Tool, call: ToolCall) -> AsyncIterator[Step]:
        streaming = not self._json
        if streaming:
            yield STREAM
        async with contextlib.aclosing(tool.run(call)) as documents:
            async for item in documents:
                if not isinstance(item, dict):
                    if item is not None:
                        yield item
                elif not streaming and "method" not in item:
                    yield Json(item)
                    return
                else:
                    if not streaming:
                        streaming = True
                        yield STREAM
                    yield Event(item, event="message")
        yield End()

    async def _listen(self, session: Session) -> AsyncIterator[Step]:
        session.listening = True
        try:
            yield STREAM
            while (item := await session.outbox.get()) is not None:
                yield Event(item, event="message") if isinstance(item, dict) else item
            yield End()
        finally:
            session.listening = False


def _meta(received: Received) -> dict[str, Any]:
    return received.params.get("_meta") or {}


def _not_allowed(allowed: str) -> Answer:
    return status_answer(405, headers={"Allow": allowed})
