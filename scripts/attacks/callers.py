"""The clients of the context: their tokens, their sessions, and correct requests of theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.harness.client import LEGACY, META, MODERN, header_text, http_request
from gateway.harness.http1 import header

from .case import Case
from .wire import NotPlayable, Received, Sending, exchange

__all__ = ["Callers"]

ANONYMOUS = (None, "", "none", "anonymous")
SETUP_PATIENCE = 5.0


class Callers:
    """All clients, and one legacy session of each that needs one."""

    def __init__(self, url: str, context: Mapping[str, Any], tokens: Mapping[str, str]) -> None:
        self._url = url
        self._context = context
        self._tokens = tokens
        self._host = context["listener"]["host_names"][0]
        # Session and an event id of it, by client.
        self._sessions: dict[str, tuple[str, str]] = {}

    def of(self, case: Case) -> str | None:
        """Who sends a case; None for nobody.  Raises NotPlayable."""
        name = case.fields.get("auth", "alice" if "alice" in self._tokens else next(iter(self._tokens)))
        if name in ANONYMOUS:
            return None
        if name not in self._tokens:
            raise NotPlayable(f"auth {name!r}")
        return str(name)

    def other(self, *names: str | None) -> str:
        """A client that is accepted and has none of these names.  Raises NotPlayable."""
        for name in self._tokens:
            if name not in names and not self._described(name).get("expired"):
                return name
        raise NotPlayable("there is no other client")

    def _described(self, name: str) -> Mapping[str, Any]:
        return dict(self._context["clients"].get(name, {}))

    # -- requests ------------------------------------------------------------------------------------------------------

    def head(self, case: Case, length: int) -> bytes:
        """The head of a jsonrpc case: the case's own fields take the place of the usual ones."""
        client = self.of(case)
        fields = {"Host": self._host}
        if client is not None:
            fields["Authorization"] = f"Bearer {self._tokens[client]}"
        fields |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if case.era == "legacy":
            fields["MCP-Protocol-Version"] = LEGACY
            if client in self._sessions:
                fields["Mcp-Session-Id"] = self._sessions[client][0]
        own: dict[str, Any] = case.fields.get("headers") or {}
        names = {name.lower() for name in own}
        pairs = [(name, value) for name, value in fields.items() if name.lower() not in names]
        for name, value in own.items():
            pairs += [(name, each) for each in ([value] if isinstance(value, str) else value)]
        if "content-length" not in names:
            pairs.append(("Content-Length", str(length)))
        lines = ["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in pairs), "", ""]
        return self._fill("\r\n".join(lines).encode())

    def pending(self, client: str, era: str, id: Any, **more: Any) -> bytes:
        """The request that the context has pending, of a client, with further members of ``params``."""
        pending = self._context.get("pending_request_for_sse_and_result", {})
        params: dict[str, Any] = {"name": pending.get("name", "get_weather"), "arguments": {"city": "Oslo"}}
        meta: dict[str, Any] = {"progressToken": pending.get("progressToken", "p7")}
        if era != "legacy":
            declared = self._described(client).get("declared_capabilities", {})
            meta |= {META + "protocolVersion": MODERN, META + "clientCapabilities": declared}
        params |= more | {"_meta": meta}
        message = {"id": id, "method": pending.get("method", "tools/call"), "params": params}
        return self.post(client, message, legacy=era == "legacy")

    def post(self, client: str, message: dict[str, Any], *, legacy: bool = False, path: str = "/mcp") -> bytes:
        """A correct request; a modern one gets the ``_meta`` that it lacks."""
        fields = {
            "Host": self._host,
            "Authorization": f"Bearer {self._tokens[client]}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": LEGACY if legacy else MODERN,
        }
        if not legacy:
            params = message.get("params", {})
            required = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
            message = message | {"params": params | {"_meta": required | params.get("_meta", {})}}
            fields["Mcp-Method"] = message["method"]
            if "name" in params:
                fields["Mcp-Name"] = header_text(params["name"])
        elif client in self._sessions:
            fields["Mcp-Session-Id"] = self._sessions[client][0]
        return http_request("POST", path, fields, json.dumps({"jsonrpc": "2.0"} | message).encode())

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def filled(self, case: Case) -> bytes:
        """The input with live ids in place of ``{{CLIENT_SESSION}}`` and ``{{CLIENT_EVENT}}``.  Raises NotPlayable."""
        names = "|".join(re.escape(name.upper()) for name in self._tokens)
        text = case.data + str(case.fields.get("headers", "")).encode()
        wanted = set(re.findall(rf"\{{\{{({names})_(\w+)\}}\}}".encode(), text))
        if unknown := {kind for _, kind in wanted} - {b"SESSION", b"EVENT"}:
            raise NotPlayable(f"placeholders {sorted(unknown)}")
        clients = {name.decode().lower() for name, _ in wanted}
        if case.era == "legacy" and not (case.asks and case.transport == "http"):
            clients.add(self.of(case) or "")
        for name in sorted(clients - {""}):
            await self._open(name)
        return self._fill(case.data)

    def _fill(self, data: bytes) -> bytes:
        for name, (session, event) in self._sessions.items():
            data = data.replace(f"{{{{{name.upper()}_SESSION}}}}".encode(), session.encode())
            data = data.replace(f"{{{{{name.upper()}_EVENT}}}}".encode(), event.encode())
        return data

    async def _open(self, client: str) -> None:
        self._sessions.pop(client, None)
        declared = self._described(client).get("declared_capabilities", {})
        about = {"protocolVersion": LEGACY, "capabilities": declared, "clientInfo": {"name": "c", "version": "1"}}
        got = await self._send(client, {"id": 1, "method": "initialize", "params": about})
        session = header(got.responses[0].headers, "mcp-session-id") if got.responses else None
        if session is None:
            raise NotPlayable(f"{client} got no session: {got.raw[:300]!r}")
        self._sessions[client] = (session, "")
        await self._send(client, {"method": "notifications/initialized"})
        call = {"id": 2, "method": "tools/call", "params": {"name": "get_weather", "arguments": {}}}
        called = await self._send(client, call)
        event = re.search(rb"^id: ?([^\r\n]+)", called.responses[0].body if called.responses else b"", re.MULTILINE)
        self._sessions[client] = (session, event[1].decode() if event else "0")

    async def _send(self, client: str, message: dict[str, Any]) -> Received:
        return await exchange(self._url, self.post(client, message, legacy=True), Sending(), patience=SETUP_PATIENCE)
