"""The server behind the gateway: it believes all that it is sent, and answers one request as a case says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.harness.client import LEGACY, META, MODERN
from gateway.harness.script import (
    Answer,
    Event,
    Received,
    Steps,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)

__all__ = ["Server"]

INFO = {"name": "server", "version": "1"}
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "prompts": {}, "completions": {}}
SESSION = "server-session"


class Server:
    """What a :class:`ScriptedUpstream` does.  ``tools`` it has by the name of its path's first part.

    ``instead`` takes the place of the usual answer wherever it gives one; None from it goes on as usual.
    ``answers`` are the results that were given as usual.
    """

    def __init__(self, tools: list[dict[str, Any]], prompts: list[dict[str, Any]]) -> None:
        self.usual_tools = tools
        self.usual_prompts = prompts
        self.tools: dict[str, list[Any]] = {}
        self.instead: Callable[[Received], Steps | None] = lambda _received: None
        self.answers: list[Any] = []

    def respond(self, received: Received) -> Steps:
        """The steps that answer a request."""
        steps = self.instead(received)
        return self._usual(received)(received) if steps is None else steps

    def _usual(self, received: Received) -> Answer:
        if received.method == "GET":
            return sse_answer(end=False)
        if received.method != "POST":
            return status_answer(200)
        if received.rpc_method is None or received.id is None:
            return status_answer(202)
        if received.rpc_method == "initialize":
            about = {"protocolVersion": LEGACY, "capabilities": CAPABILITIES, "serverInfo": INFO}
            return self._result(about, headers={"Mcp-Session-Id": SESSION})
        if received.rpc_method == "subscriptions/listen":
            return self._listen(received)
        modern = META + "protocolVersion" in (received.params.get("_meta") or {})
        result = self._results(received)
        if result is None:
            return error_answer(-32601, "Method not found")
        if modern:
            return self._result({"resultType": "complete"} | result)
        self.answers.append(result)
        # With an event id, as a server does whose streams can be resumed.
        return sse_answer(Event({"jsonrpc": "2.0", "id": received.id, "result": result}, id="event-1"))

    def _listen(self, received: Received) -> Answer:
        """A subscription that is acknowledged and ended at once."""
        meta = {"_meta": {META + "subscriptionId": received.id}}
        asked = {"notifications": received.params.get("notifications", {})} | meta
        result = {"resultType": "complete"} | meta
        self.answers.append(result)
        return sse_answer({"method": "notifications/subscriptions/acknowledged", "params": asked}, {"result": result})

    def _result(self, result: dict[str, Any], headers: Any = ()) -> Answer:
        self.answers.append(result)
        return json_answer(result, headers=headers)

    def _results(self, received: Received) -> dict[str, Any] | None:
        hints = {"ttlMs": 0, "cacheScope": "private"}
        match received.rpc_method:
            case "server/discover":
                about = {"supportedVersions": [MODERN, LEGACY], "capabilities": CAPABILITIES}
                return about | hints | {"_meta": {META + "serverInfo": INFO}}
            case "tools/list":
                return {"tools": self.tools.get(received.target.split("/")[1], self.usual_tools)} | hints
            case "tools/call":
                return {"content": [{"type": "text", "text": f"done: {len(received.body)} bytes"}]}
            case "resources/read":
                uri = received.params.get("uri")
                return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": "a text"}]} | hints
            case "resources/list":
                return {"resources": [{"uri": "file:///allowed/readme.md", "name": "readme"}]} | hints
            case "resources/templates/list":
                return {"resourceTemplates": []} | hints
            case "prompts/list":
                return {"prompts": self.usual_prompts} | hints
            case "prompts/get":
                return {"messages": [{"role": "user", "content": {"type": "text", "text": "Sum it up."}}]}
            case "completion/complete":
                return {"completion": {"values": ["one"], "hasMore": False}}
            case "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe":
                return {}
        return None
