"""Messages and exchanges for the tests of the hooks."""

from __future__ import annotations

from typing import Any

from gateway.config import Policy
from gateway.guard.hook import Exchange
from gateway.protocol.message import Call, Message, Sender
from gateway.wire.envelope import classify


def request(method: str, sender: Sender = Sender.CLIENT, id: int | str = 7, **params: Any) -> Message:
    document = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    return Message(classify(document), document, sender)


def notification(method: str, sender: Sender = Sender.SERVER, **params: Any) -> Message:
    document = {"jsonrpc": "2.0", "method": method, "params": params}
    return Message(classify(document), document, sender)


def result(method: str, sender: Sender = Sender.SERVER, **members: Any) -> Message:
    return answer({"jsonrpc": "2.0", "id": 7, "result": members}, method, sender)


def error(code: int = -32603, message: str = "failed", data: Any = None, method: str = "tools/call") -> Message:
    document = {"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": message, "data": data}}
    return answer(document, method)


def answer(document: dict[str, Any], method: str, sender: Sender = Sender.SERVER) -> Message:
    return Message(classify(document), document, sender, Call(7, method))


def exchange(
    policy: Policy | None = None, capabilities: dict[str, Any] | None = None, name: str = "default"
) -> Exchange:
    return Exchange("r1", "alice", "weather", name, policy or Policy(), client_capabilities=capabilities or {})
