"""One JSON-RPC message as the gateway handles it: who sent it, what it says, and which request it answers."""

from __future__ import annotations

import enum
from typing import Any

from ..wire.envelope import Envelope, Kind, RequestId
from ..wire.members import direct

__all__ = ["Call", "Message", "Sender"]


@direct
class Sender(enum.Enum):
    """Which side a message comes from: the MCP client or the MCP server."""

    __hash__ = object.__hash__  # enum's own is written in Python, and hashes the name

    CLIENT = "client"
    SERVER = "server"


class Call:
    """A request that is under way: what a response must be judged by, since the response itself names no method.

    ``name`` is what the request is about: ``params.name`` of tools/call and prompts/get, ``params.uri`` of resource
    methods, None for the rest.
    """

    # One is made for each request: no dataclass, whose making is not compiled.
    __slots__ = ("id", "method", "name")

    def __init__(self, id: RequestId, method: str, name: str | None = None) -> None:
        self.id = id
        self.method = method
        self.name = name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Call):
            return NotImplemented
        return (self.id, self.method, self.name) == (other.id, other.method, other.name)

    def __hash__(self) -> int:
        return hash((self.id, self.method, self.name))

    def __repr__(self) -> str:
        return f"Call(id={self.id!r}, method={self.method!r}, name={self.name!r})"


class Message:
    """A judged unit: one request, notification, result or error.

    ``document`` is the parsed JSON object.  Treat it as frozen: a hook that wants a change returns
    ``Replace(message.with_document(...))``, so that the original bytes still pass when nothing changed.
    ``method`` is the message's own method, or for a result or error the method of the request that it answers.
    ``call`` is that request (None on requests, notifications, and errors that answer nothing known).
    ``params`` are those of a request or notification; an empty dict where the member is absent.
    """

    __slots__ = ("call", "document", "id", "kind", "method", "params", "sender")

    def __init__(self, envelope: Envelope, document: dict[str, Any], sender: Sender, call: Call | None = None) -> None:
        self.kind = envelope.kind
        self.id = envelope.id
        self.method = envelope.method if call is None else call.method
        self.document = document
        self.params: dict[str, Any] = document.get("params") or {}
        self.sender = sender
        self.call = call

    @property
    def result(self) -> dict[str, Any]:
        """``result`` of a result; raises KeyError on any other kind."""
        return self.document["result"]  # type: ignore[no-any-return]

    @property
    def is_response(self) -> bool:
        """True for results and errors."""
        return self.kind is Kind.RESULT or self.kind is Kind.ERROR

    def with_document(self, document: dict[str, Any]) -> Message:
        """The same message with other contents.  The envelope (jsonrpc, id, method, shape) must stay as it is."""
        return Message(Envelope(self.kind, self.id, self.method), document, self.sender, self.call)

    def __repr__(self) -> str:
        return f"<Message {self.sender.value} {self.kind.value} {self.method} id={self.id!r}>"
