"""HTTP+SSE with peers that are not ours: the official Python SDK on both sides, the reference server of TypeScript."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CreateMessageResult, ElicitResult, TextContent

from gateway.harness import ScriptedMcp, ScriptedSse

from .conftest import ALICE, until
from .sdk import processes

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

HEADERS = {"Authorization": f"Bearer {ALICE}"}


@contextlib.asynccontextmanager
async def official() -> AsyncIterator[str]:
    """The URL of the official SDK's server in SSE mode."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.end_to_end.official_sse", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(20):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/sse"
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def sdk_client(kind: str, gateway: Any) -> AsyncIterator[ClientSession]:
    """A session of the official SDK's client that answers what it is asked."""

    async def user(_context: object, _params: object) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": "Ada"})

    async def model(_context: object, _params: object) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", model="m", content=TextContent(type="text", text="hello"))

    base = gateway.url().removesuffix("/mcp")
    async with contextlib.AsyncExitStack() as stack:
        if kind == "sse":
            streams = await stack.enter_async_context(sse_client(base + "/sse", headers=HEADERS))
        else:
            http = await stack.enter_async_context(create_mcp_http_client(headers=HEADERS))
            streams = (await stack.enter_async_context(streamable_http_client(base + "/mcp", http_client=http)))[:2]
        session = await stack.enter_async_context(
            ClientSession(*streams, elicitation_callback=user, sampling_callback=model)
        )
        await session.initialize()
        yield session


async def talk(session: ClientSession) -> None:
    assert {"echo", "elicit", "progress"} <= {tool.name for tool in (await session.list_tools()).tools}

    async def text(name: str, arguments: dict[str, Any], **more: Any) -> str:
        [content] = (await session.call_tool(name, arguments, **more)).content
        assert isinstance(content, TextContent)
        return content.text

    assert await text("echo", {"text": "grüße"}) == "grüße"
    seen: list[float] = []

    async def report(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)

    await text("progress", {"count": 5}, progress_callback=report)
    assert seen == [1, 2, 3, 4, 5]
    assert "Ada" in await text("elicit", {})
    assert "hello" in await text("sample", {})
    with pytest.raises(MCPError) as denied:
        await session.call_tool("denied_tool", {})
    assert denied.value.error.code == -31403
    answers = await asyncio.gather(*(text("echo", {"text": str(number)}) for number in range(20)))
    assert answers == [str(number) for number in range(20)]


@pytest.mark.parametrize("kind", ["http", "sse"])
@pytest.mark.parametrize("upstream", ["official", "http", "sse"])
async def test_the_official_sdk(serve, kind, upstream):
    servers = {"official": official, "http": ScriptedMcp, "sse": ScriptedSse}
    async with asyncio.timeout(30), servers[upstream]() as up:
        transport = "streamable-http" if upstream == "http" else "sse"
        gateway = await serve(getattr(up, "url", up), upstreams={"up": {"transport": transport}})
        async with sdk_client(kind, gateway) as session:
            await talk(session)
        await until(lambda: not gateway.gateway.handler.relays)
        if transport == "sse":
            await until(lambda: not gateway.gateway.pools["up"].sessions)


async def test_the_reference_server(serve, needs, tmp_path):
    node, npm = (needs(name, "Node.js 20 or later with npm; `make test` brings them") for name in ("node", "npm"))
    assert processes.install(npm) is None
    with processes.everything_server(tmp_path, node, "sse") as url:
        gateway = await serve(url, upstreams={"up": {"transport": "sse"}}, policies={"all": {"allowed_tools": ["*"]}})
        for kind in ("http", "sse"):
            async with asyncio.timeout(20), sdk_client(kind, gateway) as session:
                result = await session.call_tool("echo", {"message": "hi"})
                assert isinstance(result.content[0], TextContent)
                assert result.content[0].text == "Echo: hi"
