"""A POST: one message of the client, judged, sent upstream, and answered exactly once.  Sans-IO, see ``exchange``."""

from __future__ import annotations

import contextlib
from typing import Any

from ..guard.chain import Outcome
from ..identity.tokens import token_in_body
from ..protocol import headers as fields_of
from ..protocol import modern
from ..protocol.errors import (
    AudienceError,
    BadRequest,
    Draining,
    GatewayError,
    HeaderMismatch,
    Refusal,
    RequestTooLarge,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    from_client,
    from_upstream,
)
from ..protocol.headers import SESSION_ID, VERSION, Fields
from ..protocol.message import Call, Message, Sender
from ..protocol.methods import METHODS
from ..protocol.revisions import revision
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, RequestId, classify, is_request_id
from ..wire.errors import PeerError
from ..wire.incremental import Mark, Reader
from ..wire.strict import Twins, dumps, parse
from .answer import AnsweredExchange
from .exchange import EVENT_STREAM, JSON, Answer, Forward, Reply, same_id
from .gate import Head
from .site import Site

__all__ = ["Post"]


class Post(AnsweredExchange):
    """A POST: one message of the client (rule 2.1)."""

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        self._parts: list[bytes] = []
        self._reader: Reader | None = None
        self._judged_early = False
        self._answer_status = 200
        self._collected = 0
        self._opened = False
        self._token: RequestId | None = None
        self._binding: Session | None = None

    # -- the client's message -----------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """Bytes of the body; raises as soon as they are too many, not JSON, or their envelope is refused."""
        assert self.admission is not None
        self.bytes_in += len(chunk)
        self._parts.append(chunk)
        if self.bytes_in > self.admission.max_body:
            raise RequestTooLarge(
                f"the request is larger than {self.admission.max_body} bytes", key=self.admission.max_body_key
            )
        try:
            if self._reader is not None:
                self._reader.feed(chunk)
            elif self.bytes_in > self.site.config.limits.inline_message:
                self._reader = Reader(self.site.json_limits, Twins.ANY, max_size=self.admission.max_body)
                for part in self._parts:
                    self._reader.feed(part)
            else:
                return
        except PeerError as error:
            raise from_client(error) from error
        if not self._judged_early:
            self._judge_early(self._reader)

    def _judge_early(self, reader: Reader) -> None:
        """Refuse a large request as soon as its envelope is known; what passes is judged again at the end."""
        method = reader.method
        if method is Mark.UNKNOWN or not isinstance(method, str):
            return
        member = METHODS[method].name if method in METHODS else None
        name = {"name": reader.name, "uri": reader.uri}.get(member or "")
        if name is Mark.UNKNOWN:
            return
        if isinstance(name, Mark) and name is not Mark.ABSENT:
            raise BadRequest(f"{method} needs a string params.{member}", reason="name-type")
        self._judged_early = True
        self._method = method
        document: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if is_request_id(reader.id):
            document["id"] = reader.id
        if isinstance(name, str) and member is not None:
            document["params"] = {member: name}
        message = Message(classify(document), document, Sender.CLIENT)
        refusal = self.site.chains[self.upstream].judge_envelope(message, self.context)
        if refusal is not None:
            raise refusal

    def _early_id(self) -> RequestId | None:
        """The id, if the bytes that have come show one: a client that gets an answer without it waits for ever."""
        if self._reader is None:
            for part in self._parts:
                self._read_on(part)
        reader = self._reader
        # Not of a response: its id is the server's, and would be taken for one of the client's own.
        if reader is not None and isinstance(reader.method, str):
            self._method = self._method or reader.method
            if is_request_id(reader.id):
                return reader.id  # type: ignore[return-value]
        return None

    def look_for_id(self, chunk: bytes) -> bool:
        """Bytes of a body that is refused already: True while it is worth reading on for the request's id."""
        self.bytes_in += len(chunk)
        self._read_on(chunk)
        return self.bytes_in < self.site.config.limits.inline_message and self._early_id() is None

    def _read_on(self, chunk: bytes) -> None:
        if self._reader is None:
            self._reader = Reader(self.site.json_limits, Twins.ANY)
        # What came before an error is known all the same.
        with contextlib.suppress(PeerError):
            self._reader.feed(chunk)

    def complete(self, now: float) -> Forward | None:
        """The body is all there: judge it.  None while a hook is being asked; raises GatewayError for a refusal."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        try:
            document = parse(body, self.site.json_limits, twins=Twins.ANY)
            envelope = classify(document)
        except PeerError as error:
            raise from_client(error) from error
        self._parts.clear()
        self._reader = None
        message = Message(envelope, document, Sender.CLIENT)
        self._method = envelope.method
        if token_in_body(document):
            raise AudienceError("credentials travel in the Authorization header only", reason="token-in-body")
        params = message.params
        if envelope.kind is Kind.REQUEST:
            assert envelope.id is not None and envelope.method is not None
            self.call = Call(envelope.id, envelope.method, _name_of(envelope.method, params))
            self._read_meta(params)
        self._find_revision(message, now)
        self._check_rate(message, now)
        if message.is_response:
            message = self._client_response(message)
        self.context.call = self.call
        self._check_upstream()
        return self._judge(message, lambda outcome: self._judged(message, outcome, now))  # type: ignore[no-any-return]

    def _read_meta(self, params: dict[str, Any]) -> None:
        meta = params.get("_meta")
        if meta is None:
            return
        if not isinstance(meta, dict):
            raise BadRequest("params._meta must be an object", reason="meta-type")
        token = meta.get("progressToken")
        if token is not None and not is_request_id(token):
            raise BadRequest("params._meta.progressToken must be a string or an integer", reason="progress-token-type")
        self._token = token

    def _find_revision(self, message: Message, now: float) -> None:
        """The era is decided once (rules 6.24, 6.25), and header and body must agree on it."""
        params = message.params
        version = self.head.fields.get(VERSION)
        if not modern.speaks_modern(version, params):
            if message.method == "initialize":
                # A session cannot be opened inside another one; the id that came along is not passed on (rule 3.9).
                self.context.client_capabilities = _object(params.get("capabilities"))
                return
            self._find_session(now)
            return
        if message.kind is Kind.REQUEST:
            assert message.method is not None
            known = modern.check_request(self.head.fields, message.method, params)
            self.context.client_capabilities = params["_meta"][modern.CAPABILITIES_MEMBER]
        else:
            named = revision(version)
            if version is None:
                raise HeaderMismatch(f"header {VERSION} must be present")
            if named is None:
                raise modern.unsupported(version)
            if not named.stateless:
                raise HeaderMismatch(f"header {VERSION} and params._meta name different revisions")
            if message.is_response:
                raise BadRequest("this revision has no responses from clients", reason="response-not-expected")
            known = named
        self.revision = known
        self.context.revision = known.name

    def _check_rate(self, message: Message, now: float) -> None:
        assert self.admission is not None
        if message.method == "tools/call":
            name = message.params.get("name")
            if isinstance(name, str):
                self.site.limiter.admit_tool(self.admission.client, self.admission.policy_name, name, now)

    def _client_response(self, message: Message) -> Message:
        """Tie a client's response to the server's request that it answers; anything else was not asked for."""
        method = self.session.answer_server_request(message.id) if self.session is not None else None
        if method is None or message.id is None:
            raise BadRequest("this response answers no request of the server", reason="response-not-expected")
        self._method = method
        envelope = classify(message.document)
        return Message(envelope, message.document, Sender.CLIENT, Call(message.id, method))

    def _judged(self, message: Message, outcome: Outcome, now: float) -> Forward:
        if outcome.error is not None:
            raise outcome.error
        passed = outcome.message
        if passed is None:
            raise Refusal(outcome.reason or "the message was withheld", reason="dropped")
        if self.call is not None and outcome.changed:
            # A hook may have written the name anew: a resource URI in its normal form.
            self.call = self.context.call = Call(
                self.call.id, self.call.method, _name_of(self.call.method, passed.params)
            )
        fields = self._base_fields()
        params = passed.params
        if self.revision is not None and self.revision.mirrored:
            fields.update(fields_of.param_fields(self.head.fields))
            if self.call is not None:
                fields.update(fields_of.mirrored_fields(self.call.method, params))
        body = dumps(passed.document)
        self._enter("stream" if passed.method == "subscriptions/listen" else "call")
        session = self.session
        if session is not None and self.call is not None:
            session.open_call(self.call, self._token)
            self._opened = True
        self._accept(passed)
        if session is not None and passed.method == "notifications/cancelled":
            cancelled = params.get("requestId")
            if cancelled is not None and is_request_id(cancelled):
                session.close_call(cancelled)
        return Forward("POST", fields, body)

    # -- the upstream's answer ----------------------------------------------------------------------------------------

    def answer_head(self, status: int, fields: Fields, now: float) -> Answer | Reply:
        """The upstream's status and header fields: what to do with the body.  Raises UpstreamError."""
        kind = self._check_answer_head(status, fields)
        if self.call is None:
            return self._one_way_answer(status)
        self._answer_status = status
        if status < 300:
            if status in (202, 204) or kind not in (JSON, EVENT_STREAM):
                raise UpstreamProtocolError(
                    "the upstream answered a request with neither JSON nor an event stream",
                    reason="upstream-media-type",
                )
            if self.call.method == "initialize":
                self._bind(fields, now)
            if kind == EVENT_STREAM:
                self._open_stream()
                self._status = 200
                return Answer.STREAM
            return Answer.COLLECT
        if kind == JSON:
            return Answer.COLLECT
        raise self._plain_failure(status)

    def _one_way_answer(self, status: int) -> Reply:
        if status < 300:
            self.outcome = "accepted"
            self._status = 202
            return Reply(202)  # rule 2.9: no body
        raise self._plain_failure(status)

    def _bind(self, fields: Fields, now: float) -> None:
        ids = fields.getall(SESSION_ID, ())
        if not ids:
            return
        if len(ids) > 1:
            raise UpstreamProtocolError("the upstream gave two session ids", reason="upstream-session")
        assert self.admission is not None
        session = self.site.sessions.bind(ids[0], self.admission.client, self.upstream, now)
        session.capabilities = self.context.client_capabilities
        self.session = self._binding = session

    @property
    def answer_fields(self) -> dict[str, str]:
        """Header fields of an answer whose body comes from the upstream."""
        return {SESSION_ID: self._binding.id} if self._binding is not None else {}

    def collect(self, chunk: bytes, now: float) -> None:
        """Bytes of a JSON answer; raises UpstreamTooLarge."""
        if self.first_byte is None:
            self.first_byte = now
        self._collected += len(chunk)
        self._parts.append(chunk)
        limit = self.site.config.limits.max_message_size
        if self._collected > limit:
            raise UpstreamTooLarge(f"the upstream's answer is larger than {limit} bytes", key="limits.max_message_size")

    def finish(self, now: float) -> Reply | None:
        """A JSON answer is all there; None while a hook is being asked. Raises UpstreamError."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        call = self.call
        assert call is not None
        try:
            document = parse(body, self.site.json_limits, twins=Twins.PROTOCOL)
            envelope = classify(document)
        except PeerError as error:
            if self._answer_status >= 300:
                raise self._plain_failure(self._answer_status) from error
            raise from_upstream(error) from error
        failed = self._answer_status >= 300
        if envelope.kind is Kind.ERROR and envelope.id != call.id and (failed or envelope.id is None):
            # An error that could not read the id (null, absent, or some servers' "server-error") answers this request:
            # there is no other one in the exchange.
            document = {"jsonrpc": "2.0", "id": call.id, "error": document["error"]}
            body = dumps(document)
            envelope = classify(document)
        if envelope.kind not in (Kind.RESULT, Kind.ERROR) or not same_id(envelope.id, call.id):
            raise UpstreamProtocolError("the upstream's answer is not for this request", reason="upstream-answer-id")
        message = Message(envelope, document, Sender.SERVER, call)
        return self._judge(message, lambda outcome: self._collected_judged(message, body, outcome))  # type: ignore[no-any-return]

    def _collected_judged(self, message: Message, body: bytes, outcome: Outcome) -> Reply:
        assert self.call is not None
        status = 200 if self._answer_status < 300 else self._answer_status
        passed = outcome.message
        if passed is None:
            self._note_blocked(message, outcome)
            assert outcome.error is not None
            self._answer_out(message, outcome.error)
            body = dumps(outcome.error.to_document(self.call.id, self.request))
        else:
            self._answer_out(message)
            if outcome.changed:
                body = dumps(passed.document)
        self._status = status
        self.bytes_out += len(body)
        return Reply(status, {"Content-Type": JSON, **self.answer_fields}, body)

    def _owns_progress(self, token: object) -> bool:
        if self._token is not None and same_id(token, self._token):
            return True
        return super()._owns_progress(token)

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        call = self.call
        if call is not None and (same_id(id, call.id) or (id is None and kind is Kind.ERROR)):
            return call
        return None

    def _stray_answer(self) -> bytes:
        return self._broken(
            UpstreamProtocolError("the upstream's answer is not for this request", reason="upstream-answer-id")
        )

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        call = self.call
        assert call is not None
        self.done = True
        self.error = error
        self.outcome = "answered" if error is None else "withheld"
        if message.kind is Kind.ERROR and error is None:
            self.outcome = "upstream-error"
        if call.method == "initialize":
            self._note_initialized(message)
        if self.session is not None:
            self.session.close_call(call.id)

    def _note_initialized(self, message: Message) -> None:
        if self._binding is None:
            return
        if message.kind is Kind.RESULT:
            named = message.result.get("protocolVersion")
            self._binding.revision = named if isinstance(named, str) else None
        else:
            self.site.sessions.forget(self._binding)

    def end(self) -> bytes:
        """The upstream's event stream has ended: what the client still must be told."""
        if self.done:
            return b""
        call, session = self.call, self.session
        assert call is not None
        if self._resumable and (self.revision is None or not self.revision.stateless):
            # The server closed the connection, not the stream: the client comes back for the answer (rule 4.4).
            self.outcome = "resumable"
            return b""
        if call.method == "subscriptions/listen":
            self.outcome = "stream-ended"  # rule 7.9: the client listens again
            return b""
        if session is not None and call.id not in session.calls:
            self.outcome = "cancelled"  # the client said so; nobody waits for an answer
            return b""
        return self._broken(
            UpstreamProtocolError("the upstream's stream ended before the answer", reason="upstream-no-answer")
        )

    def _broken(self, error: GatewayError) -> bytes:
        if self.done:
            return b""
        call = self.call
        assert call is not None
        self.done = True
        self._frames.clear()
        self.error = error
        self.outcome = error.reason
        if self.session is not None:
            self.session.close_call(call.id)
        data = sse.encode(dumps(error.to_document(call.id, self.request)), event=b"message")
        self.bytes_out += len(data)
        return data

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed after its stream had begun: the last event for the client.

        A stream that can be resumed just ends: its client comes back for the answer (rules 4.4, 5.3).
        """
        if self._resumable and isinstance(error, UpstreamError) and not (self.revision and self.revision.stateless):
            self.outcome = "resumable"
            return b""
        return self._broken(error)

    def drain(self) -> bytes:
        """An error for a call; a subscription ends as its server would end it (rule 7.6)."""
        call = self.call
        if self.done or call is None:
            return b""
        if self._resumable:
            self.outcome = "resumable"
            return b""
        if self.is_listening:
            self.done = True
            self.outcome = "draining"
            result = {"resultType": "complete", "_meta": {modern.SUBSCRIPTION_ID: call.id}}
            return sse.encode(dumps({"jsonrpc": "2.0", "id": call.id, "result": result}), event=b"message")
        return self._broken(Draining("the gateway is stopping"))

    def close(self, now: float, outcome: str | None = None) -> None:
        if self._opened and not self._resumable and self.session is not None and self.call is not None:
            # Without an event id nobody can come back for the answer.
            self.session.close_call(self.call.id)
        super().close(now, outcome)


def _name_of(method: str, params: dict[str, Any]) -> str | None:
    known = METHODS.get(method)
    name = params.get(known.name) if known is not None and known.name is not None else None
    return name if isinstance(name, str) else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
