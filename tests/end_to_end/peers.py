"""Servers and messages that tests of the protocol's rules have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.harness.client import notification, request
from gateway.harness.script import Answer, Head, Received, Steps, json_answer, status_answer

__all__ = ["ALL_CAPABILITIES", "META", "MODERN", "STREAM", "call", "note", "result", "session_server", "text_result"]

META = "io.modelcontextprotocol/"
STREAM = Head(200, {"Content-Type": "text/event-stream"})
ALL_CAPABILITIES: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {},
    "tasks": {"list": {}, "cancel": {}},
    "extensions": {META + "tasks": {}},
}
# For RawClient.build: a request of 2026-07-28 by a client that can do everything.
MODERN: dict[str, Any] = {"modern": True, "capabilities": ALL_CAPABILITIES}


def session_server(answers: Mapping[str, Answer] | None = None, revision: str = "2025-11-25") -> Answer:
    """A server that opens the session ``s1`` and answers as told: by JSON-RPC method, "batch", or "GET" and "DELETE".
    What it was not told it accepts without a word."""
    opened = {"protocolVersion": revision, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    script = {"initialize": json_answer(opened, headers={"Mcp-Session-Id": "s1"}), **(answers or {})}

    def respond(received: Received) -> Steps:
        key = received.method if received.method != "POST" else received.rpc_method
        if isinstance(received.message, list):
            key = "batch"
        return script.get(key or "", status_answer(202))(received)

    return respond


def call(text: str = "hello", id: str | int = 7, **params: Any) -> dict[str, Any]:
    """A request that every client of the tests may make."""
    return request("tools/call", {"name": "echo", "arguments": {"text": text}, **params}, id=id)


def text_result(text: str) -> dict[str, Any]:
    """The result of such a request."""
    return {"content": [{"type": "text", "text": text}]}


def result(text: str, id: str | int = 7) -> dict[str, Any]:
    """Its whole answer."""
    return {"jsonrpc": "2.0", "id": id, "result": text_result(text)}


def note(text: str) -> dict[str, Any]:
    """Something that a server may say at any time."""
    return notification("notifications/message", {"level": "info", "data": text})
