"""A small MCP server on the HTTP+SSE transport of revision 2024-11-05 (rules 1.9, 1.10)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .connection import Connection
from .mcp_tools import TOOLS, Session, Tool, ToolCall
from .player import Player
from .script import Answer, End, Event, Head, Received, Signal, Step, Steps, Wait, WaitFor, status_answer
from .upstream import ScriptedUpstream

__all__ = ["ScriptedSse"]

CAPABILITIES = {"tools": {"listChanged": True}}
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STREAM = Head(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})


class ScriptedSse(ScriptedUpstream):
    """``async with ScriptedSse() as server``: an MCP server whose stream is at ``server.url``, with all that a
    ScriptedUpstream shows.

    ``tools``     by name; the default is :data:`TOOLS`
    ``endpoint``  the data of the first event, with ``{id}`` for the session's id; None leaves the event out
    ``accept``    answers the POST of every message, such as ``status_answer(500)`` in place of 202; a message that is
                  not accepted with 2xx is not read either
    ``answer_last`` the POST of a request is answered when the request has been, as some servers do it
    Other arguments are those of ScriptedUpstream.
    """

    def __init__(
        self,
        *,
        tools: Mapping[str, Tool] = TOOLS,
        endpoint: str | None = "/messages?session_id={id}",
        accept: Mapping[str, Answer] | None = None,
        answer_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(self._respond, path=options.pop("path", "/sse"), **options)
        self.tools = dict(tools)
        self.sessions: dict[str, Session] = {}
        self._endpoint = endpoint
        self._accepting = accept or {}
        self._answer_last = answer_last
        self._answers: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """As for every ScriptedUpstream."""
        for task in self._answers:
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)
        await super().stop()

    def push(self, message: dict[str, Any] | Step | None, session: str | None = None) -> None:
        """Sends a message on the stream of a session (the newest by default).  None ends the stream.  LookupError
        without a session."""
        if not self.sessions:
            raise LookupError("no session is open")
        self.sessions[next(reversed(self.sessions)) if session is None else session].outbox.put_nowait(message)

    def _respond(self, received: Received) -> Steps:
        target = urlsplit(received.target)
        if received.method == "GET" and target.path == urlsplit(self.url).path:
            return self._stream()
        session = self.sessions.get(parse_qs(target.query).get("session_id", [""])[0])
        if received.method != "POST" or session is None:
            return status_answer(404)(received)
        special = self._accepting.get(received.rpc_method or "response")
        if special is not None:
            return special(received)
        if received.rpc_method is None:
            future = session.asked.pop(str(received.id), None)
            if future is None:
                return status_answer(400)(received)
            future.set_result(received.message)
        elif received.id is not None:
            task = asyncio.get_running_loop().create_task(self._answer_request(received, session))
            self._answers.add(task)
            task.add_done_callback(self._answer_over)
            if self._answer_last:
                return self._after(task)
        return status_answer(202)(received)

    def _answer_over(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def _after(self, task: asyncio.Task[None]) -> AsyncIterator[Step]:
        await asyncio.wait((task,))
        yield Head(200, {"Content-Length": "0"}, chunked=False)

    async def _stream(self) -> AsyncIterator[Step]:
        session = Session(secrets.token_hex(8), "2024-11-05", {})
        self.sessions[session.id] = session
        try:
            yield STREAM
            if self._endpoint is not None:
                yield Event(self._endpoint.format(id=session.id).encode(), event="endpoint")
            while (item := await session.outbox.get()) is not None:
                yield Event(item, event="message") if isinstance(item, dict) else item
            yield End()
        finally:
            del self.sessions[session.id]

    async def _answer_request(self, received: Received, session: Session) -> None:
        call = ToolCall(received, session)
        match received.rpc_method:
            case "initialize":
                asked = received.params.get("protocolVersion")
                session.revision = asked if asked in REVISIONS else REVISIONS[0]
                session.capabilities = received.params.get("capabilities") or {}
                about = {
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "sse", "version": "1"},
                }
                session.outbox.put_nowait(call.result({"protocolVersion": session.revision} | about))
            case "ping":
                session.outbox.put_nowait(call.result({}))
            case "tools/list":
                tools = [tool.definition(name) for name, tool in self.tools.items()]
                session.outbox.put_nowait(call.result({"tools": tools}))
            case "tools/call" if (tool := self.tools.get(str(received.params.get("name")))) is not None:
                await self._run(tool, call, session)
            case _:
                error = {"code": -32601, "message": "Method not found"}
                session.outbox.put_nowait({"jsonrpc": "2.0", "id": received.id, "error": error})

    async def _run(self, tool: Tool, call: ToolCall, session: Session) -> None:
        waiting = Player(Connection(), self._signals)
        async with contextlib.aclosing(tool.run(call)) as documents:
            async for item in documents:
                if isinstance(item, Wait | WaitFor | Signal):
                    await waiting.perform(item)
                elif item is not None:
                    session.outbox.put_nowait(item)
