"""What can be had without asking back: plain tools, resources and prompts."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

__all__ = ["WATCHED", "add_prompts", "add_resources", "add_tools", "schema_tool"]

WATCHED = "test://watched-resource"
# Long enough for every message to be an event of its own, short enough for nobody to wait.
PAUSE = 0.05
RECONNECT = 0.2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# One red pixel, and a WAV file with no sound in it.
PNG = b"".join(
    (
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")),
        _chunk(b"IEND", b""),
    )
)
WAV = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0)

# Every keyword that a careless reader of schemas would lose.
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _image() -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(PNG).decode(), mime_type="image/png")


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def schema_tool() -> Tool:
    """The tool whose input schema holds all of JSON Schema 2020-12."""

    def listed() -> str:
        return "this tool is there to be listed"

    tool = Tool.from_function(listed, name="json_schema_2020_12_tool", description="Has a demanding input schema.")
    return tool.model_copy(update={"parameters": SCHEMA})


def add_tools(server: MCPServer[Any]) -> None:
    """Tools that answer by themselves, most with nothing but the answer."""

    @server.tool()
    def test_simple_text() -> str:
        """Answers with text."""
        return "This is a simple text response for testing."

    @server.tool()
    def test_image_content() -> list[ImageContent]:
        """Answers with an image."""
        return [_image()]

    @server.tool()
    def test_audio_content() -> list[AudioContent]:
        """Answers with sound."""
        return [AudioContent(type="audio", data=base64.b64encode(WAV).decode(), mime_type="audio/wav")]

    @server.tool()
    def test_embedded_resource() -> list[EmbeddedResource]:
        """Answers with a resource."""
        return [_embedded("test://embedded-resource", "This is an embedded resource content.")]

    @server.tool()
    def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
        """Answers with a text, an image and a resource."""
        data = json.dumps({"test": "data", "value": 123})
        resource = _embedded("test://mixed-content-resource", data, "application/json")
        return [_text("Multiple content types test:"), _image(), resource]

    @server.tool()
    def test_error_handling() -> str:
        """Always fails."""
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool()
    async def test_tool_with_logging(ctx: Context[Any, Any]) -> str:
        """Says what it does while it does it."""
        for stage in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.log("info", stage)
            await asyncio.sleep(PAUSE)
        return "Logged three times."

    @server.tool()
    async def test_logging_tool(ctx: Context[Any, Any]) -> str:
        """Has something to say, for those who asked for it."""
        await ctx.log("warning", "nobody should see this unasked")
        return "Logged once."

    @server.tool()
    async def test_tool_with_progress(ctx: Context[Any, Any]) -> str:
        """Tells how far it is."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"Completed step {done} of 100")
            await asyncio.sleep(PAUSE)
        return "Reported three times."

    @server.tool()
    async def test_reconnection(ctx: Context[Any, Any]) -> str:
        """Closes its own stream in the middle: the rest is for those who come back."""
        await ctx.log("info", "Before disconnect")
        await ctx.close_sse_stream()
        await asyncio.sleep(RECONNECT)
        await ctx.log("info", "After reconnect")
        return "Still here."

    @server.tool()
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "nowhere",
    ) -> str:
        """Has an argument that clients repeat in the Mcp-Param-Region header."""
        return f"region={region}"

    @server.tool()
    def test_missing_capability(ctx: Context[Any, Any]) -> str:
        """Works for clients alone that can sample."""
        declared = ctx.client_capabilities
        if declared is None or declared.sampling is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "this tool needs a client that can sample",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return "This client can sample."

    @server.tool()
    async def test_trigger_tool_change(ctx: Context[Any, Any]) -> str:
        """Adds a tool, takes it away, and tells."""
        server.add_tool(lambda: "for a moment", name="test_dynamic_tool", description="Is there for a moment.")
        server.remove_tool("test_dynamic_tool")
        await ctx.notify_tools_changed()
        return "The tools have changed."

    @server.tool()
    async def test_trigger_prompt_change(ctx: Context[Any, Any]) -> str:
        """Adds a prompt, takes it away, and tells."""
        moment = Prompt.from_function(lambda: "for a moment", name="test_dynamic_prompt", description="For a moment.")
        server.add_prompt(moment)
        server.remove_prompt("test_dynamic_prompt")
        await ctx.notify_prompts_changed()
        return "The prompts have changed."

    @server.tool()
    async def test_trigger_resource_change(ctx: Context[Any, Any]) -> str:
        """Tells that the watched resource is another one now."""
        await ctx.notify_resource_updated(WATCHED)
        return "The watched resource has changed."


def add_resources(server: MCPServer[Any]) -> None:
    """Text, bytes, a template, and one that can be subscribed to."""

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """Text that never changes."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """An image that never changes."""
        return PNG

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        """Data made to measure."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource(WATCHED, mime_type="text/plain")
    def watched() -> str:
        """What subscribers are told of."""
        return "This resource is watched."


def add_prompts(server: MCPServer[Any]) -> None:
    """Prompts that need no more than their arguments."""

    @server.prompt()
    def test_simple_prompt() -> list[UserMessage]:
        """Nothing but text."""
        return [UserMessage(_text("This is a simple prompt for testing."))]

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        """Text with two arguments in it."""
        return [UserMessage(_text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """A resource, and what to do with it."""
        return [
            UserMessage(_embedded(resourceUri, "Embedded resource content for testing.")),
            UserMessage(_text("Please process the embedded resource above.")),
        ]

    @server.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """An image, and what to do with it."""
        return [UserMessage(_image()), UserMessage(_text("Please analyze the image above."))]
