"""What an upstream may send: its status and header fields, and messages by the rules of the protocol.  Sans-IO.

How the messages come - as one JSON document, as events, in parts - is in ``post``, ``answer`` and ``large_exchange``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from multidict import istr

from ..guard.chain import Outcome
from ..protocol import headers as fields_of
from ..protocol.answers import Stream, Subscription, check_error, check_notification, check_result
from ..protocol.errors import (
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
)
from ..protocol.headers import Fields
from ..protocol.message import Call, Message
from ..protocol.params import without_invalid
from ..protocol.revisions import LEGACY, SUPPORTED
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, RequestId
from ..wire.strict import dumps
from .exchange import EVENT_STREAM, JSON, Answer, Exchange, Forward, Reply
from .gate import Head
from .site import Site

__all__ = ["Incoming"]

# RFC 9110, 10.2.3: what is passed on of Retry-After.
_SECONDS = re.compile(r"[0-9]{1,9}")

_USUAL: Final = [JSON]

# Names that multidict need not fold for each answer.
_CONTENT_TYPE: Final = istr("Content-Type")
_CONTENT_ENCODING: Final = istr("Content-Encoding")
_TRANSFER_ENCODING: Final = istr("Transfer-Encoding")

# Statuses that mean something to an MCP client's own logic when they come from its server (rules 1.11, 3.7, 6.20).
_TELLING = frozenset((400, 404, 405, 406, 409, 410, 413, 415, 422))


class Incoming(Exchange):
    """An exchange whose answer comes from the upstream; ``Post`` and ``Get`` say what may answer what."""

    _subscription: Subscription | None = None

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        # Errors that the upstream must get for requests of its own that were blocked: the shell posts what
        # ``take_blocked`` returns.
        self.blocked_requests: list[dict[str, Any]] = []
        # The parameters that went upstream with the client's request.
        self._params: dict[str, Any] = {}
        # What time it is, as far as the shell has said.
        self.now = now

    @property
    def is_listening(self) -> bool:
        """Whether this is a subscription, which has no natural end."""
        return self.call is not None and self.call.method == "subscriptions/listen"

    def take_blocked(self) -> list[Forward]:
        """What to tell the upstream about requests of its own that were blocked, each in a POST of its own."""
        taken, self.blocked_requests = self.blocked_requests, []
        return [Forward("POST", self._base_fields(), dumps(each)) for each in taken]

    def cancellations(self) -> list[Forward]:
        """What tells the upstream that the gateway has stopped waiting for its answers."""
        return []

    # -- the head -----------------------------------------------------------------------------------------------------

    def _check_answer_head(self, status: int, fields: Fields) -> str:
        """The media type of an answer whose framing is beyond doubt (aiohttp's response parser is lenient)."""
        if (
            status == 200
            and fields.getall(_CONTENT_TYPE, ()) == _USUAL
            and (_TRANSFER_ENCODING not in fields and _CONTENT_ENCODING not in fields)
        ):
            return JSON  # nearly every one
        if not 200 <= status <= 599:
            raise UpstreamProtocolError("the upstream's status is not one", reason="upstream-status")
        if [each.lower() for each in fields.getall("Transfer-Encoding", ())] not in ([], ["chunked"]):
            raise UpstreamProtocolError("the upstream's transfer coding is not chunked", reason="upstream-framing")
        if (fields.get("Content-Encoding") or "identity").lower() != "identity":
            raise UpstreamProtocolError("the upstream compressed its answer unasked", reason="upstream-encoding")
        kinds = fields.getall("Content-Type", ())
        if len(kinds) > 1:
            raise UpstreamProtocolError("the upstream's media type is ambiguous", reason="upstream-media-type")
        kind, parameters = fields_of.media_type(kinds[0] if kinds else None)
        if kind in (JSON, EVENT_STREAM) and parameters.get("charset", "utf-8") not in ("utf-8", "utf8"):
            raise UpstreamProtocolError("the upstream's charset is not UTF-8", reason="upstream-media-type")
        if 300 <= status < 400:
            raise UpstreamProtocolError("the upstream answered with a redirect", reason="upstream-redirect")
        if status in (401, 403, 407):
            raise UpstreamProtocolError(
                "the upstream refused the gateway's credentials",
                reason="upstream-refused-credentials",
                key=f"upstreams.{self.upstream}.headers",
            )
        if status in (429, 503) and kind != JSON:
            wait = fields.get("Retry-After") or ""
            known = {"Retry-After": wait} if _SECONDS.fullmatch(wait) else None
            raise UpstreamBusy("the upstream asks to come back later", headers=known)
        if status == 404 and self.session is not None:
            self.site.sessions.forget(self.session)  # rule 3.7: the client must initialize again
        return kind

    def _plain_failure(self, status: int) -> UpstreamError:
        """An HTTP error without a JSON-RPC body: the status passes where an MCP client reads it."""
        error = UpstreamProtocolError(f"the upstream answered with HTTP status {status}", reason="upstream-status")
        if status in _TELLING:
            error.status = status
        return error

    # -- messages -----------------------------------------------------------------------------------------------------

    def _by_the_rules(self, message: Message) -> Message:
        """An answer as the revision allows it, changed where it must be; raises UpstreamError for one it forbids."""
        call = message.call
        assert call is not None
        if message.kind is Kind.ERROR:
            if not check_error(self.revision, message.document["error"]):
                raise UpstreamProtocolError(
                    "the upstream's error is not one of this revision", reason="upstream-result"
                )
            return message
        result: Mapping[str, Any] = message.result
        known = self.revision
        result = check_result(known, call, self._params, self.context.client_capabilities, result) or result
        if call.method == "initialize":
            named = result.get("protocolVersion")
            if named not in self.supported or named not in LEGACY:
                raise UpstreamProtocolError(
                    "the upstream negotiated a revision that is not spoken here", reason="upstream-revision"
                )
        elif call.method == "server/discover":
            offered = result.get("supportedVersions")
            if isinstance(offered, list) and len(self.supported) < len(SUPPORTED):
                result = {**result, "supportedVersions": [each for each in offered if each in self.supported]}
        elif call.method == "tools/list" and known is not None and known.mirrored:
            if self.site.tool_headers[self.upstream].learn(result):
                result = without_invalid(result) or result  # rule 6.17
        elif call.method == "tasks/list":
            assert self.client is not None
            result = self.site.tasks.filter_list(self.client, self.upstream, result) or result
        if result is message.result:
            return message
        return message.with_document({**message.document, "result": dict(result)})

    def _check_size(self, most: int | None, size: int) -> None:
        """Raises UpstreamTooLarge for a result beyond what the operator allows."""
        if most is not None and size > most:
            raise UpstreamTooLarge(
                f"the upstream's result is larger than {most} bytes", key=f"upstreams.{self.upstream}.max_result_size"
            )

    def _learn_task(self, document: dict[str, Any]) -> None:
        """Whose a task is that this answer creates (rule 11.2); raises UpstreamProtocolError for another client's."""
        assert self.client is not None
        self.site.tasks.learn(self.client, self.upstream, document, self.now)

    def _expected(self, message: Message) -> bool:
        """Whether a server's request or notification belongs on this stream."""
        if message.kind is Kind.REQUEST:
            return self.revision is None or self.revision.server_requests
        assert message.method is not None and self.client is not None
        params = message.params
        about_task = message.method.startswith("notifications/tasks")
        if about_task and not self.site.tasks.owns_notification(self.client, self.upstream, params):
            return False
        if self._subscription is not None:
            return self._subscription.admits(message.method, params)
        if message.method == "notifications/progress" and not self._owns_progress(params.get("progressToken")):
            return False
        kind: Stream = "post" if self.head.method == "POST" else "get"
        return check_notification(self.revision, self.call, self._params, params, message.method, kind)

    def _owns_progress(self, token: object) -> bool:
        """Whether a progress token is one of this caller's (rule 7.25): a session has no other."""
        return self.session is not None

    def _with_own_ids(self, message: Message, bound: Session) -> dict[str, Any]:
        """A server's request with an id that says whose and what it is when the client's response brings it back; and
        the same id where the server cancels it."""
        document = message.document
        if message.kind is Kind.REQUEST:
            assert message.id is not None and message.method is not None
            return {**document, "id": self.site.sessions.sign_request_id(bound, message.id, message.method)}
        if message.method == "notifications/cancelled":
            own = self.site.sessions.signed_request_id(bound, message.params.get("requestId"))
            if own is not None:
                return {**document, "params": {**message.params, "requestId": own}}
        return document

    def _sealed(self, message: Message) -> dict[str, Any]:
        """A result with what is sealed in it for the client, if anything; the document itself where nothing is."""
        return message.document

    def _note_blocked(self, message: Message, outcome: Outcome) -> None:
        self.site.audit.write(
            self._entry(
                "message.blocked",
                decision=outcome.decision,
                rule=outcome.reason,
                outcome=f"{message.sender.value}-{message.kind.value}",
                key=None if outcome.error is None else outcome.error.key,
                code=None if outcome.error is None else outcome.error.code,
            ),
            required=False,
        )

    # -- what Post and Get say ----------------------------------------------------------------------------------------

    def answer_head(self, status: int, fields: Fields, now: float) -> Answer | Reply:
        """The upstream's status and header fields: what to do with the body.  Raises UpstreamError."""
        raise NotImplementedError

    def end(self) -> bytes:
        """The upstream's event stream has ended: what the client must still be told."""
        raise NotImplementedError

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed after its stream had begun: the last bytes for the client."""
        raise NotImplementedError

    def drain(self) -> bytes:
        """The gateway stops: the last bytes for the client."""
        raise NotImplementedError

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        """The request that a response on this stream answers, or None for a response that has no business here."""
        raise NotImplementedError

    def _stray_answer(self, frame: sse.Frame) -> bytes:
        raise NotImplementedError

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        """An answer goes to the client now."""
        raise NotImplementedError

    def _broken(self, error: GatewayError) -> bytes:
        """The upstream broke the protocol: nothing more of its stream passes."""
        raise NotImplementedError
