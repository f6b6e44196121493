"""Runs a script of steps with the official Python SDK's client: the twin of ``ts/client2.mjs``, line for line.

    python python_client.py '{"url": ..., "era": ..., "token": ..., "content": ..., "steps": [...]}'

Prints one JSON line for each step: what came back, how long it took, and the HTTP exchanges that it needed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    LoggingMessageNotificationParams,
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    Root,
    TextContent,
)
from pydantic import FileUrl

Step = dict[str, Any]
Told = dict[str, Any]


class Inbox:
    """Where what the server sends on its own accord is kept."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.logs: list[Told] = []
        self.updates: list[str] = []
        self.asked: list[Told] = []
        self._changed = asyncio.Event()

    def add(self, kept: list[Any], item: Any) -> None:
        kept.append(item)
        self._changed.set()

    async def holds(self, kept: list[Any], count: int, seconds: float) -> list[Any]:
        """Wait until the list holds ``count`` items, or the time is over."""
        with anyio.move_on_after(seconds):
            while len(kept) < count:
                self._changed.clear()
                await self._changed.wait()
        return kept

    async def log(self, params: LoggingMessageNotificationParams) -> None:
        self.add(self.logs, params.model_dump(exclude_none=True))

    async def message(self, message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.add(self.updates, message.params.uri)

    async def elicit(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.add(self.asked, {"method": "elicitation/create", "message": params.message})
        return ElicitResult(action="accept", content=self.content)

    async def sample(self, context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
        self.add(self.asked, {"method": "sampling/createMessage"})
        content = TextContent(type="text", text="Sunny.")
        return CreateMessageResult(role="assistant", model="interop", content=content, stop_reason="endTurn")

    async def roots(self, context: ClientRequestContext) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=FileUrl("file:///srv/interop"), name="interop")])


class Recorder(httpx2.AsyncHTTPTransport):
    """Records every exchange, and can spoil one request on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Told] = []
        self.spoil: dict[str, str] = {}
        self.session_id: str | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and self.spoil:
            request = await self._spoiled(request)
        exchange: Told = {"http": request.method}
        self.exchanges.append(exchange)
        self.session_id = request.headers.get("mcp-session-id", self.session_id)
        response = await super().handle_async_request(request)
        exchange.update(status=response.status_code, type=response.headers.get("content-type"))
        return response

    async def _spoiled(self, request: httpx2.Request) -> httpx2.Request:
        body = await request.aread()
        headers = request.headers.copy()
        del headers["content-length"]
        if "token" in self.spoil:
            headers["authorization"] = f"Bearer {self.spoil['token']}"
        if self.spoil.get("body") == "truncated":
            body = body[:-2]
        if self.spoil.get("body") == "duplicate":
            body = body.replace(b'"jsonrpc"', b'"method":"ping","jsonrpc"')
        return httpx2.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text if isinstance(part, TextContent) else f"<{part.type}>" for part in result.content)


def _problem(error: BaseException) -> Told:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return {"name": "MCPError", "code": error.code, "message": error.message, "data": error.data}
    return {"name": type(error).__name__, "message": str(error)}


class Session:
    """The verbs of the script."""

    def __init__(self, client: Client, inbox: Inbox, recorder: Recorder) -> None:
        self.client = client
        self.inbox = inbox
        self.recorder = recorder

    async def do(self, step: Step) -> Told:
        verb: Callable[[Step], Awaitable[Told | None]] = getattr(self, f"do_{step['do']}")
        return await verb(step) or {}

    async def do_list(self, step: Step) -> Told:
        match step["what"]:
            case "tools":
                return {"names": [tool.name for tool in (await self.client.list_tools()).tools]}
            case "resources":
                return {"names": [it.uri for it in (await self.client.list_resources()).resources]}
            case "prompts":
                return {"names": [prompt.name for prompt in (await self.client.list_prompts()).prompts]}
        templates = (await self.client.list_resource_templates()).resource_templates
        return {"names": [template.uri_template for template in templates]}

    async def do_call(self, step: Step) -> Told:
        began = time.perf_counter()
        notes: list[Told] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            at = time.perf_counter() - began
            notes.append({"at": at, "progress": progress, "total": total, "message": message})

        arguments = dict(step.get("arguments", {}))
        if "pad" in step:
            arguments["pad"] = "x" * step["pad"]
        asked = len(self.inbox.asked)
        # Cancelled from outside, as a user's program would do it: the SDK tells the server.
        with anyio.fail_after(step.get("cancelAfter", 10)):
            result = await self.client.call_tool(
                step["name"], arguments, progress_callback=note if step.get("progress") else None
            )
        return {
            "text": _text(result),
            "structured": result.structured_content,
            "isError": bool(result.is_error),
            "asked": self.inbox.asked[asked:],
            "progress": notes,
        }

    async def do_repeat(self, step: Step) -> Told:
        for done in range(step["times"]):
            try:
                await self.do(step["step"])
            except MCPError as error:
                return {"done": done, "error": _problem(error)}
        return {"done": step["times"]}

    async def do_read(self, step: Step) -> Told:
        # Past the client's own cache: what the server says now.
        [content] = (await self.client.read_resource(step["uri"], cache_mode="bypass")).contents
        return {"uri": content.uri, "text": getattr(content, "text", None), "blob": getattr(content, "blob", None)}

    async def do_until(self, step: Step) -> Told:
        seen: Told = {}
        with anyio.move_on_after(step["seconds"]):
            while True:
                seen = await self.do_read(step)
                if step["text"] in seen["text"]:
                    break
                await anyio.sleep(0.05)
        return seen

    async def do_prompt(self, step: Step) -> Told:
        result = await self.client.get_prompt(step["name"], step["arguments"])
        return {"messages": [[it.role, getattr(it.content, "text", None)] for it in result.messages]}

    async def do_complete(self, step: Step) -> Told:
        ref = step["ref"]
        reference = (PromptReference if ref["type"] == "ref/prompt" else ResourceTemplateReference).model_validate(ref)
        return {"values": (await self.client.complete(reference, step["argument"])).completion.values}

    async def do_level(self, step: Step) -> None:
        await self.client.set_logging_level(step["level"])

    async def do_logs(self, step: Step) -> Told:
        return {"logs": await self.inbox.holds(self.inbox.logs, step["count"], step["seconds"])}

    async def do_subscribe(self, step: Step) -> None:
        await self.client.subscribe_resource(step["uri"])

    async def do_updates(self, step: Step) -> Told:
        return {"updates": await self.inbox.holds(self.inbox.updates, step["count"], step["seconds"])}

    async def do_watch(self, step: Step) -> Told:
        async with self.client.listen(resource_subscriptions=[step["uri"]]) as subscription:
            await self.do(step["by"])
            with anyio.move_on_after(2):
                event = await anext(aiter(subscription))
                return {"updates": [getattr(event, "uri", None)]}
        return {"updates": []}

    async def do_ping(self, step: Step) -> None:
        await self.client.send_ping()

    async def do_pause(self, step: Step) -> None:
        await anyio.sleep(step["seconds"])


async def _open(script: dict[str, Any], inbox: Inbox, recorder: Recorder) -> Client:
    headers = {} if script["token"] is None else {"authorization": f"Bearer {script['token']}"}
    http = httpx2.AsyncClient(transport=recorder, headers=headers, timeout=httpx2.Timeout(30, read=60))
    client = Client(
        streamable_http_client(script["url"], http_client=http),
        mode="auto" if script["era"] == "modern" else "legacy",
        elicitation_callback=inbox.elicit,
        sampling_callback=inbox.sample,
        list_roots_callback=inbox.roots,
        logging_callback=inbox.log,
        message_handler=inbox.message,
        log_level="info",
    )
    return await client.__aenter__()


async def main(script: dict[str, Any]) -> None:
    """Run the script and print the lines."""
    inbox = Inbox(script["content"])
    recorder = Recorder()

    def say(name: str, began: float, **outcome: Any) -> None:
        line = {"step": name, "seconds": time.perf_counter() - began, **outcome, "exchanges": recorder.exchanges[:]}
        recorder.exchanges.clear()
        print(json.dumps(line), flush=True)

    began = time.perf_counter()
    try:
        client = await _open(script, inbox, recorder)
    except Exception as error:
        say("open", began, error=_problem(error))
        return
    capabilities = client.server_capabilities.model_dump(by_alias=True, exclude_none=True)
    server = client.server_info.name if client.server_info else None
    opened = {"revision": client.protocol_version, "server": server, "capabilities": sorted(capabilities)}
    say("open", began, value=opened)
    session = Session(client, inbox, recorder)
    for step in script["steps"] + ([] if {"do": "close"} in script["steps"] else [{"do": "close"}]):
        name = step.get("as", step["do"])
        began = time.perf_counter()
        recorder.spoil = step.get("spoil", {})
        if step["do"] == "close":
            await client.__aexit__(None, None, None)
            say(name, began, value={"session": recorder.session_id is not None})
            continue
        try:
            say(name, began, value=await session.do(step))
        except Exception as error:
            say(name, began, error=_problem(error))


if __name__ == "__main__":
    # ping, logging and subscribe are deprecated in 2026-07-28; servers of earlier revisions live on.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    asyncio.run(main(json.loads(sys.argv[1])))
