"""``python -m tests.everything_server --port N``: serves on the loopback interface until it is told to stop."""

from __future__ import annotations

import argparse
import socket
import sys
import warnings
from typing import Any

import uvicorn
from mcp.server import ServerRequestContext
from mcp.server.mcpserver import MCPServer, RequestStateSecurity
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    EmptyResult,
    PromptReference,
    ResourceTemplateReference,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from .content import add_prompts, add_resources, add_tools, schema_tool
from .events import RecentEvents
from .questions import add_questions, add_rounds

__all__ = ["build", "main"]

# How soon a client that lost its stream may come back, in milliseconds.
RETRY = 100


def build() -> MCPServer[Any]:
    """The server, without a transport."""
    server: MCPServer[Any] = MCPServer(
        "everything",
        version="1.0.0",
        tools=[schema_tool()],
        request_state_security=RequestStateSecurity.ephemeral(),
        log_level="WARNING",
    )
    add_tools(server)
    add_questions(server)
    add_rounds(server)
    add_resources(server)
    add_prompts(server)
    _add_acknowledged(server)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        words = [word for word in ("paris", "park", "party") if word.startswith(argument.value)]
        return Completion(values=words, total=len(words), has_more=False)

    return server


def _add_acknowledged(server: MCPServer[Any]) -> None:
    """Requests of the revisions with sessions that want no more than an acknowledgement."""

    async def acknowledge(context: ServerRequestContext[Any], params: Any) -> EmptyResult:
        return EmptyResult()

    # MCPServer has no way of its own to declare these capabilities.
    core = server._lowlevel_server
    core.add_request_handler("logging/setLevel", SetLevelRequestParams, acknowledge)
    core.add_request_handler("resources/subscribe", SubscribeRequestParams, acknowledge)
    core.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, acknowledge)


class _Announced(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"ready http://127.0.0.1:{port}/mcp", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.  Exit status 1 when the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m tests.everything_server", description=build.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = any free port, which is printed (default)")
    port = parser.parse_args(arguments).port
    # Sampling and log messages are deprecated in 2026-07-28, and still what earlier revisions are about.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        return 1
    app = build().streamable_http_app(event_store=RecentEvents(), retry_interval=RETRY)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    _Announced(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
