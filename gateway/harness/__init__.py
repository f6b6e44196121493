"""Scripted MCP peers for tests: an upstream that does right or wrong as it is told, a client on a raw connection."""

from __future__ import annotations

from .client import LEGACY, MODERN, RawClient, Unasked, header_text, http_request, notification, request
from .connection import Connection, ConnectionClosed
from .http1 import BadHttp
from .mcp_server import ScriptedMcp
from .mcp_tools import TOOLS, Session, Tool, ToolCall
from .response import Response
from .script import (
    Chunk,
    Close,
    Comment,
    End,
    Event,
    Hang,
    Head,
    Json,
    Received,
    Repeat,
    Reset,
    Send,
    Signal,
    SplitAt,
    Step,
    Wait,
    WaitFor,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)
from .sse_client import SseClient
from .sse_server import ScriptedSse
from .upstream import ScriptedUpstream, unused_port

__all__ = [
    "LEGACY", "MODERN", "TOOLS", "BadHttp", "Chunk", "Close", "Comment", "Connection", "ConnectionClosed", "End",
    "Event", "Hang", "Head", "Json", "RawClient", "Received", "Repeat", "Reset", "Response", "ScriptedMcp",
    "ScriptedSse", "ScriptedUpstream", "Send", "Session", "Signal", "SplitAt", "SseClient", "Step", "Tool",
    "ToolCall", "Unasked", "Wait", "WaitFor", "answer_with", "error_answer", "header_text", "http_request",
    "json_answer", "notification", "request", "sse_answer", "status_answer", "unused_port",
]  # fmt: skip
