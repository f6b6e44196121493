"""Every error that the gateway answers with: one tree, sorted by who is at fault, and one table of codes.

Each leaf knows its HTTP status and its JSON-RPC code.  Where the specification fixes a code it is used; the gateway's
own codes lie outside -32768..-32000 (rule 2.17) and are -31000 minus the HTTP status that says the same, so that
-31429 reads as "429".
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..wire.envelope import RequestId
from ..wire.errors import EnvelopeError, JsonSyntaxError, LimitExceeded, PeerError

__all__ = [
    "AudienceError", "AuditUnavailable", "BadRequest", "BodyTimeout", "CapabilityMissing", "ContentBlocked",
    "Draining", "ForbiddenOrigin", "GatewayError", "HeaderMismatch", "HeaderTooLarge", "HookFailed", "InternalError",
    "InvalidParams", "MethodNotAllowed", "MethodNotFound", "MisdirectedRequest", "NotAcceptable", "NotFound",
    "ParseError", "PolicyDenied", "RateLimited", "Refusal", "RequestTooLarge", "TargetTooLong", "TooManyConcurrent",
    "Unauthenticated", "UnknownSession", "UnsupportedMediaType", "UnsupportedRevision", "UpstreamBusy",
    "UpstreamError", "UpstreamProtocolError", "UpstreamTimeout", "UpstreamTooLarge", "UpstreamUnreachable",
    "from_client", "from_upstream",
]  # fmt: skip


class GatewayError(Exception):
    """Base of all.  Abstract.

    ``status``  HTTP status of the answer when nothing has been sent yet
    ``code``    JSON-RPC error code
    ``reason``  stable slug for ``error.data.reason``, the audit record and metrics
    ``key``     configuration key that caused it, for ``error.data.key``, or None
    ``message`` one sentence for people; holds nothing of the other peer's text
    """

    status: int
    code: int
    reason: str = "internal"
    close_connection: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        key: str | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.key = key
        self.data = data or {}
        self.headers = headers or {}

    def to_document(self, id: RequestId | None, request: str | None = None) -> dict[str, Any]:
        """The JSON-RPC error that says this, and that it is ours (rule 2.18).  The id is left out where it is not known
        (rule 2.15)."""
        data: dict[str, Any] = {"origin": "gateway", "reason": self.reason}
        if self.key is not None:
            data["key"] = self.key
        if request is not None:
            data["request"] = request
        data.update(self.data)
        document: dict[str, Any] = {"jsonrpc": "2.0"}
        if id is not None:
            document["id"] = id
        document["error"] = {"code": self.code, "message": self.message, "data": data}
        return document


# -- the client's HTTP exchange or message is wrong -------------------------------------------------------------------


class ClientError(GatewayError):
    """The client's fault.  Abstract."""


class BadRequest(ClientError):
    """HTTP or JSON-RPC that is not well formed (rules 2.7, 2.8, 2.12, 2.13)."""

    status, code, reason = 400, -32600, "invalid-request"


class ParseError(BadRequest):
    """The body is not JSON in UTF-8 (rule 2.4)."""

    code, reason = -32700, "parse-error"


class InvalidParams(BadRequest):
    """A required member of ``params`` is missing or has the wrong type (rule 6.1)."""

    code, reason = -32602, "invalid-params"


class HeaderMismatch(BadRequest):
    """A mirrored header is missing or contradicts the body (rules 6.2, 6.5-6.11)."""

    code, reason = -32020, "header-mismatch"


class CapabilityMissing(BadRequest):
    """The client did not declare a capability that is needed (rule 6.28)."""

    code, reason = -32021, "capability-missing"


class UnsupportedRevision(BadRequest):
    """A protocol revision that is not served here (rule 6.3)."""

    code, reason = -32022, "unsupported-revision"


class Unauthenticated(ClientError):
    """No credentials, or none that are accepted (rules 8.1, 8.9)."""

    status, code, reason = 401, -31401, "unauthenticated"


class ForbiddenOrigin(ClientError):
    """The Origin is not one of the allowed ones (rules 1.5, 1.6)."""

    status, code, reason = 403, -31403, "origin-not-allowed"


class NotFound(ClientError):
    """No such path on this gateway."""

    status, code, reason = 404, -31404, "no-such-endpoint"


class UnknownSession(ClientError):
    """No such session, or another caller's: the same answer for both, so that nothing is learned (rule 3.7)."""

    status, code, reason = 404, -31404, "unknown-session"


class MethodNotAllowed(ClientError):
    """An HTTP method that the endpoint does not have (rules 1.3, 1.4)."""

    status, code, reason = 405, -31405, "http-method-not-allowed"


class NotAcceptable(ClientError):
    """The client does not accept what the endpoint answers with (rule 2.2)."""

    status, code, reason = 406, -31406, "not-acceptable"


class BodyTimeout(ClientError):
    """The body did not arrive in time."""

    status, code, reason = 408, -31408, "body-timeout"
    close_connection = True


class RequestTooLarge(ClientError):
    """The request is larger than the policy or the limits allow."""

    status, code, reason = 413, -31413, "request-too-large"
    close_connection = True


class UnsupportedMediaType(ClientError):
    """Not application/json in UTF-8, or compressed (rules 2.3, 2.22)."""

    status, code, reason = 415, -31415, "unsupported-media-type"
    close_connection = True


class HeaderTooLarge(ClientError):
    """The header fields, or one of them, are larger than ``limits.max_header_size``; or there are too many
    (rule 6.13)."""

    status, code, reason = 431, -31431, "header-too-large"
    close_connection = True


class TargetTooLong(ClientError):
    """The request target is longer than ``limits.max_target_size``."""

    status, code, reason = 414, -31414, "target-too-long"
    close_connection = True


class MisdirectedRequest(ClientError):
    """The Host is not one that this gateway serves (DNS rebinding)."""

    status, code, reason = 421, -31421, "host-not-allowed"
    close_connection = True


class AudienceError(ClientError):
    """A credential in a place where none is accepted: query or body (rule 8.11)."""

    status, code, reason = 400, -31400, "token-in-query"


class RateLimited(ClientError):
    """The token bucket is empty.  ``headers`` carries Retry-After in whole seconds."""

    status, code, reason = 429, -31429, "rate-limited"


class TooManyConcurrent(RateLimited):
    """More calls or streams at once than the policy allows."""

    reason = "too-many-concurrent"


# -- a well-formed request that is refused: HTTP 200 and an error, unless policy.deny_status says 403 -----------------


class Refusal(GatewayError):
    """A hook's no.  Answered with HTTP 200 so that agents see the reason and the session lives on (rule 10.4)."""

    status, code, reason = 200, -31403, "denied"


class PolicyDenied(Refusal):
    """The client's policy does not allow this method, tool, prompt or resource."""


class MethodNotFound(Refusal):
    """A method that MCP does not have (rule 6.22); 404 in revision 2026-07-28."""

    code, reason = -32601, "method-not-found"


class ContentBlocked(Refusal):
    """A message whose content must not pass: a secret, a poisoned definition."""

    code, reason = -31422, "content-blocked"


class HookFailed(Refusal):
    """A hook raised or gave no verdict in time: the message is withheld."""

    code, reason = -31500, "hook-failed"


# -- the upstream failed ----------------------------------------------------------------------------------------------


class UpstreamError(GatewayError):
    """The upstream's fault.  Abstract.  Messages never name the upstream's address or repeat its text."""


class UpstreamUnreachable(UpstreamError):
    """Refused, reset before an answer, TLS failure, name not found."""

    status, code, reason = 502, -31502, "upstream-unreachable"


class UpstreamProtocolError(UpstreamError):
    """An answer that is not MCP: wrong status, media type, framing, JSON, id; or none before the end."""

    status, code, reason = 502, -31502, "upstream-protocol-error"


class UpstreamTooLarge(UpstreamError):
    """An answer larger than ``limits.max_message_size``."""

    status, code, reason = 502, -31502, "upstream-too-large"


class UpstreamBusy(UpstreamError):
    """All connections of the upstream's pool are in use."""

    status, code, reason = 503, -31503, "upstream-busy"


class UpstreamTimeout(UpstreamError):
    """No connection, first byte or next byte in time."""

    status, code, reason = 504, -31504, "upstream-timeout"


# -- we failed --------------------------------------------------------------------------------------------------------


class InternalError(GatewayError):
    """A defect of the gateway: the exchange ends, the log has the traceback."""

    status, code, reason = 500, -31500, "internal-error"


class AuditUnavailable(GatewayError):
    """``audit.mode: required`` and the record could not be written: no call leaves without one."""

    status, code, reason = 503, -31503, "audit-unavailable"


class Draining(GatewayError):
    """The gateway is shutting down."""

    status, code, reason = 503, -31503, "draining"
    close_connection = True


def from_client(error: PeerError) -> ClientError:
    """What to answer a client whose bytes could not be read."""
    if isinstance(error, JsonSyntaxError):
        return ParseError(error.message, reason=error.reason)
    if isinstance(error, LimitExceeded) and error.reason == "too-large":
        return RequestTooLarge(error.message, key=error.limit)
    if isinstance(error, EnvelopeError | LimitExceeded | PeerError):
        return BadRequest(error.message, reason=error.reason, key=error.limit)
    raise AssertionError(error)


def from_upstream(error: PeerError) -> UpstreamError:
    """What to answer a client whose upstream sent bytes that could not be read."""
    if isinstance(error, LimitExceeded):
        return UpstreamTooLarge("the upstream's answer exceeds a limit: " + error.message, key=error.limit)
    return UpstreamProtocolError(
        "the upstream sent an answer that is not valid: " + error.message, data={"detail": error.reason}
    )
