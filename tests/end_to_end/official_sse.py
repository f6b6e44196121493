"""``python -m tests.end_to_end.official_sse``: an MCP server on the official SDK with the HTTP+SSE transport.

Prints its port, serves on the loopback interface until its standard input ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel


class Name(BaseModel):
    name: str


def build() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("official", log_level="WARNING")

    @server.tool()
    async def echo(text: str) -> str:
        return text

    @server.tool()
    async def progress(count: int, context: Context[Any]) -> str:
        for done in range(1, count + 1):
            await context.report_progress(done, count)
        return f"{count} done"

    @server.tool()
    async def elicit(context: Context[Any]) -> str:
        answer = await context.elicit("Your name?", Name)
        return answer.data.name if answer.action == "accept" else answer.action

    @server.tool()
    async def sample(context: Context[Any]) -> str:
        question = SamplingMessage(role="user", content=TextContent(type="text", text="Say hello"))
        answer = await context.session.create_message([question], max_tokens=16)
        assert isinstance(answer.content, TextContent)
        return answer.content.text

    return server


async def main() -> None:
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(build().sse_app(), log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serving = asyncio.create_task(server.serve([listener]))
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
