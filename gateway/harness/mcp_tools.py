"""The tools of the scripted MCP server: each shows one thing that the answer to a tools/call can do."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from .script import Received, Step, Wait, WaitFor

__all__ = ["TOOLS", "Documents", "Session", "Tool", "ToolCall"]

Documents = AsyncGenerator[dict[str, Any] | Step | None, None]


@dataclass
class Session:
    """A legacy session.  ``outbox`` is what its GET stream has still to send, None ends that stream; ``asked`` holds
    the server's own requests that the client has not answered."""

    id: str
    revision: str
    capabilities: dict[str, Any]
    outbox: asyncio.Queue[dict[str, Any] | Step | None] = field(default_factory=asyncio.Queue)
    asked: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    listening: bool = False


@dataclass(frozen=True)
class ToolCall:
    """What a tool is given.  ``session`` is None in revision 2026-07-28."""

    received: Received
    session: Session | None

    @property
    def arguments(self) -> dict[str, Any]:
        """``params.arguments``."""
        return self.received.params.get("arguments") or {}

    def progress(self, done: int, total: int) -> dict[str, Any] | None:
        """notifications/progress for this call; None when it asked for none (rule 7.25)."""
        token = (self.received.params.get("_meta") or {}).get("progressToken")
        if token is None:
            return None
        params = {"progressToken": token, "progress": done, "total": total}
        return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}

    def text(self, text: str, **more: Any) -> dict[str, Any]:
        """The final answer: a result with one block of text."""
        return self.result({"content": [{"type": "text", "text": text}], **more})

    def result(self, result: dict[str, Any]) -> dict[str, Any]:
        """The final answer; with ``resultType`` where the revision asks for it (rule 7.1)."""
        kind = {} if self.session else {"resultType": "complete"}
        return {"jsonrpc": "2.0", "id": self.received.id, "result": kind | result}

    async def ask(self, method: str, params: dict[str, Any]) -> Documents:
        """Asks the client and ends the call with its reply as text: by a request on the stream (rule 4.1), or in
        revision 2026-07-28 by an ``input_required`` result that the client repeats its call for (rule 7.11)."""
        if self.session is None:
            reply = (self.received.params.get("inputResponses") or {}).get("reply")
            if reply is None:
                question = {"reply": {"method": method, "params": params}}
                yield self.result({"resultType": "input_required", "inputRequests": question})
                return
        else:
            id = f"server-{secrets.token_hex(4)}"
            future = self.session.asked[id] = asyncio.get_running_loop().create_future()
            yield {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            response = await future
            reply = response.get("result", response.get("error"))
        yield self.text(orjson.dumps(reply).decode())


@dataclass(frozen=True)
class Tool:
    """``run`` yields the documents of the answer, the final one last, and steps between them (None is skipped)."""

    run: Callable[[ToolCall], Documents]
    description: str = ""
    properties: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def definition(self, name: str) -> dict[str, Any]:
        """Its entry in tools/list; ``more`` adds or replaces members."""
        schema = {"type": "object", "properties": self.properties}
        return {"name": name, "description": self.description, "inputSchema": schema} | self.more


async def _echo(call: ToolCall) -> Documents:
    yield call.text(str(call.arguments.get("text", "")))


async def _progress(call: ToolCall) -> Documents:
    count = int(call.arguments.get("count", 3))
    for done in range(1, count + 1):
        yield call.progress(done, count)
        if "seconds" in call.arguments:
            yield Wait(float(call.arguments["seconds"]))
    yield call.text(f"{count} done")


async def _slow(call: ToolCall) -> Documents:
    if "until" in call.arguments:
        yield WaitFor(str(call.arguments["until"]))
    yield Wait(float(call.arguments.get("seconds", 0)))
    yield call.text("late")


async def _big(call: ToolCall) -> Documents:
    yield call.text("x" * int(call.arguments.get("bytes", 1024)))


async def _fail(call: ToolCall) -> Documents:
    yield call.text("it failed", isError=True)


def _elicit(call: ToolCall) -> Documents:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    return call.ask("elicitation/create", {"mode": "form", "message": "Your name?", "requestedSchema": schema})


def _sample(call: ToolCall) -> Documents:
    messages = [{"role": "user", "content": {"type": "text", "text": "Say hello"}}]
    return call.ask("sampling/createMessage", {"messages": messages, "maxTokens": 16})


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
TOOLS: Mapping[str, Tool] = {
    "echo": Tool(_echo, "Gives back its text", {"text": TEXT}),
    "progress": Tool(
        _progress, "Reports progress `count` times, `seconds` apart", {"count": NUMBER, "seconds": NUMBER}
    ),
    "slow": Tool(_slow, "Answers after `seconds`, or at the signal `until`", {"seconds": NUMBER, "until": TEXT}),
    "big": Tool(_big, "Gives `bytes` bytes of text", {"bytes": NUMBER}),
    "fail": Tool(_fail, "Gives a result that is an error"),
    "elicit": Tool(_elicit, "Asks the user for a name and gives back the reply"),
    "sample": Tool(_sample, "Asks the client's model and gives back the reply"),
}
