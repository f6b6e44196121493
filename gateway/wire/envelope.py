"""The JSON-RPC 2.0 envelope: what kind of message a parsed document is.

A document is exactly one of request, notification, result and error, or it is an :class:`~.errors.EnvelopeError` that
says why not.  Nothing is guessed: a member outside the four shapes is an error, because a peer that binds names more
loosely than we do would see a message that the policy did not (CVE-2026-27896; rules 2.12-2.16, 2.19).
"""

from __future__ import annotations

import enum
from typing import Any, Final

from .errors import EnvelopeError
from .members import direct
from .names import shown

__all__ = ["MAX_SAFE_INTEGER", "Envelope", "Kind", "RequestId", "classify", "is_request_id"]

RequestId = str | int

# Beyond this, JavaScript peers round (2^63 comes back as 9223372036854776000): two ids could become one.
MAX_SAFE_INTEGER = 2**53 - 1


@direct
class Kind(enum.Enum):
    """The four shapes of a JSON-RPC message."""

    __hash__ = object.__hash__  # enum's own is written in Python, and hashes the name

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESULT = "result"
    ERROR = "error"


class Envelope:
    """What the envelope says.  ``method`` is None on results and errors; ``id`` is None on notifications, and on an
    error that answers a request whose id could not be read (rule 2.15)."""

    # One is made for each message: no dataclass, whose making is not compiled.
    __slots__ = ("id", "kind", "method")

    def __init__(self, kind: Kind, id: RequestId | None, method: str | None) -> None:
        self.kind = kind
        self.id = id
        self.method = method

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        return (self.kind, self.id, self.method) == (other.kind, other.id, other.method)

    def __hash__(self) -> int:
        return hash((self.kind, self.id, self.method))

    def __repr__(self) -> str:
        return f"Envelope({self.kind}, {self.id!r}, {self.method!r})"


def is_request_id(value: object) -> bool:
    """True for a string, or an integer that every peer can hold; ``True`` and ``1.0`` are neither (rule 2.12)."""
    if type(value) is str:
        return True
    return type(value) is int and -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER


_CALL_MEMBERS = frozenset(("jsonrpc", "id", "method", "params"))
_RESULT_MEMBERS = frozenset(("jsonrpc", "id", "result"))
_ERROR_MEMBERS = frozenset(("jsonrpc", "id", "error"))
_ERROR_OBJECT_MEMBERS = frozenset(("code", "message", "data"))

# What is asked for with each message, at hand.
_REQUEST: Final = Kind.REQUEST
_NOTIFICATION: Final = Kind.NOTIFICATION
_RESULT: Final = Kind.RESULT
_ERROR: Final = Kind.ERROR


def classify(document: Any) -> Envelope:
    """The envelope of a parsed document; raises EnvelopeError for anything that is not one JSON-RPC message."""
    if type(document) is not dict:
        shape = "an array (batch)" if type(document) is list else "neither an object nor an array"
        reason = "batch" if type(document) is list else "not-an-object"
        raise EnvelopeError(reason, f"a message is one JSON object, this is {shape}")
    version = document.get("jsonrpc")
    if type(version) is not str or version != "2.0":
        raise EnvelopeError("jsonrpc-version", 'member "jsonrpc" must be the string "2.0"')
    # More members than those that are known to be there are others.
    has_id = "id" in document
    if "method" in document:
        has_params = "params" in document
        if len(document) > 2 + has_id + has_params:
            raise _unexpected(document.keys() - _CALL_MEMBERS, "a request or notification")
        method = document["method"]
        if type(method) is not str or not method:
            raise EnvelopeError("method-type", 'member "method" must be a non-empty string')
        if has_params and type(document["params"]) is not dict:
            raise EnvelopeError("params-type", 'member "params" must be an object: MCP has no positional parameters')
        if not has_id:
            return Envelope(_NOTIFICATION, None, method)
        return Envelope(_REQUEST, _request_id(document["id"]), method)
    if "result" in document:
        if "error" in document:
            raise EnvelopeError("result-and-error", 'a response has "result" or "error", never both')
        if len(document) > 2 + has_id:
            raise _unexpected(document.keys() - _RESULT_MEMBERS, "a result")
        if type(document["result"]) is not dict:
            raise EnvelopeError("result-type", 'member "result" must be an object')
        if not has_id:
            raise EnvelopeError("id-missing", 'a result must carry the "id" of its request')
        return Envelope(_RESULT, _request_id(document["id"]), None)
    if "error" in document:
        if len(document) > 2 + has_id:
            raise _unexpected(document.keys() - _ERROR_MEMBERS, "an error")
        error = document["error"]
        if (
            type(error) is not dict
            or type(error.get("code")) is not int
            or type(error.get("message")) is not str
            or not error.keys() <= _ERROR_OBJECT_MEMBERS
        ):
            raise EnvelopeError("error-shape", 'member "error" must hold an integer "code" and a string "message"')
        # An error without a readable id: absent since 2025-11-25, null before (rule 2.15); both are accepted.
        if document.get("id") is None:
            return Envelope(_ERROR, None, None)
        return Envelope(_ERROR, _request_id(document["id"]), None)
    raise EnvelopeError("no-shape", 'a message has "method", "result" or "error"; this has none of them')


def _request_id(value: Any) -> RequestId:
    # As ``is_request_id``, without the call: this is asked of every message.
    if type(value) is str or (type(value) is int and -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER):
        return value
    raise EnvelopeError("id-type", 'member "id" must be a string or an integer within +-(2^53-1)')


def _unexpected(extra: Any, shape: str) -> EnvelopeError:
    return EnvelopeError("unexpected-member", f"member {shown(min(extra))} does not belong to {shape}")
