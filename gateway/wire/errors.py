"""What a peer sent that cannot be read: the only exceptions that this room raises.

``wire`` does not know which side of the gateway it reads for, so it blames "the peer".  ``protocol.errors`` turns a
:class:`PeerError` into the client's fault or the upstream's, with an HTTP status and a JSON-RPC code.
"""

from __future__ import annotations

__all__ = ["EnvelopeError", "JsonRefused", "JsonSyntaxError", "LimitExceeded", "PeerError", "SseError"]


class PeerError(Exception):
    """Bytes that break a rule of the wire.

    ``reason``  a stable slug for machines, such as ``duplicate-member``
    ``message`` one sentence for people; never holds a value that the peer sent, at most a member's name or an offset
    ``limit``   the configuration key of the limit that was exceeded, such as ``limits.json_depth``, or None
    """

    def __init__(self, reason: str, message: str, *, limit: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.limit = limit


class SseError(PeerError):
    """An event stream that breaks the WHATWG rules so far that no frame can be made of it."""


class JsonSyntaxError(PeerError):
    """Not JSON in UTF-8 (RFC 8259): JSON-RPC calls it a parse error, -32700."""


class JsonRefused(PeerError):
    """JSON that parsers read in different ways: duplicate or case-folded members, numbers out of range."""


class EnvelopeError(PeerError):
    """JSON that is none of request, notification, response and error (JSON-RPC 2.0, section 4 and 5)."""


class LimitExceeded(PeerError):
    """More bytes, depth, nodes or digits than the configuration allows; ``limit`` names the key."""
