"""``python -m tests.everything_server.client URL``: what the conformance suite asks of a client under test.

The suite says in the environment which scenario it plays and which revision its server speaks.  Scenarios under
``auth/`` are about the way to a token; they are not played here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from mcp.client.client import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    TextContent,
)
from pydantic import ValidationError

__all__ = ["SCENARIOS", "main"]

MODERN = "2026-07-28"
# Something of each type, for arguments that a tool insists on.
SOMETHING: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "object": {}, "array": []}


async def _sample(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="yes"), model="none")


async def _roots(context: ClientRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[])


async def _elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """A user who takes what is proposed, and says yes where nothing is."""
    content: dict[str, Any] = {}
    if isinstance(params, ElicitRequestFormParams):
        for name, schema in params.requested_schema.get("properties", {}).items():
            if "default" in schema:
                content[name] = schema["default"]
            elif name in params.requested_schema.get("required", ()):
                content[name] = SOMETHING.get(schema.get("type"), "x")
    return ElicitResult(action="accept", content=content)


async def _list(client: Client) -> None:
    await client.list_tools()


async def _add(client: Client) -> None:
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def _defaults(client: Client) -> None:
    await client.list_tools()
    await client.call_tool("test_client_elicitation_defaults", {})


async def _reconnect(client: Client) -> None:
    await client.list_tools()
    await client.call_tool("test_reconnection", {})


async def _echo_schema(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    await client.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].input_schema})


async def _rounds(client: Client) -> None:
    await client.list_tools()
    for name in ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state"):
        await client.call_tool(name, {})
    # The SDK makes one call of it, as it should, and then finds fault with the result.
    with contextlib.suppress(ValidationError):
        await client.call_tool("test_mrtr_no_result_type", {})


async def _listed(client: Client) -> None:
    """Call every tool that the SDK lets through."""
    for tool in (await client.list_tools()).tools:
        properties = tool.input_schema.get("properties", {})
        required = tool.input_schema.get("required", ())
        arguments = {name: SOMETHING.get(properties.get(name, {}).get("type"), "x") for name in required}
        with contextlib.suppress(MCPError):
            await client.call_tool(tool.name, arguments)


async def _given(client: Client) -> None:
    """Make the calls that the suite wants to see, of the tools that the SDK lets through."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        if call["name"] in tools:
            with contextlib.suppress(MCPError):
                await client.call_tool(call["name"], call.get("arguments") or {})


SCENARIOS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "initialize": _list,
    "tools_call": _add,
    "elicitation-sep1034-client-defaults": _defaults,
    "sse-retry": _reconnect,
    "json-schema-2020-12-preservation": _echo_schema,
    "request-metadata": _add,
    "sep-2322-client-request-state": _rounds,
    "http-standard-headers": _add,
    "http-custom-headers": _given,
    "http-invalid-tool-headers": _listed,
    "json-schema-ref-no-deref": _list,
}
# The suite plays this one with a server of the older revisions, whatever it says.
LEGACY = ("json-schema-ref-no-deref",)


async def play(scenario: str, url: str) -> None:
    """Hold the session that the scenario is about."""
    modern = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", MODERN) >= MODERN and scenario not in LEGACY
    mode: Literal["auto", "legacy"] = "auto" if modern else "legacy"
    async with Client(
        url, mode=mode, sampling_callback=_sample, list_roots_callback=_roots, elicitation_callback=_elicit
    ) as client:
        await SCENARIOS[scenario](client)


def main(arguments: list[str]) -> int:
    """Exit status 2 for a scenario that this client does not know."""
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    if len(arguments) != 1 or scenario not in SCENARIOS:
        print(f"usage: MCP_CONFORMANCE_SCENARIO={'|'.join(SCENARIOS)} client URL", file=sys.stderr)
        return 2
    asyncio.run(play(scenario, arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
