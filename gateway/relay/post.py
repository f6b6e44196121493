"""A POST: what the client sends (``intake``), and what answers it, exactly once.  Sans-IO, see ``exchange``."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..guard.chain import Outcome
from ..guard.hook import Verdict
from ..protocol import headers as fields_of
from ..protocol import modern
from ..protocol.errors import (
    Draining,
    GatewayError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    from_upstream,
)
from ..protocol.headers import SESSION_ID, Fields
from ..protocol.message import Call, Message, Sender
from ..protocol.revisions import revision
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, RequestId, classify
from ..wire.errors import PeerError
from ..wire.places import Mark
from ..wire.strict import Twins, dumps, parse
from .answer import EVENT_STREAM_FIELDS
from .exchange import EVENT_STREAM, JSON, Answer, Forward, Reply, same_id
from .gate import Head
from .intake import Intake
from .site import Site

__all__ = ["Post"]


class Post(Intake):
    """A POST: one message of the client (rule 2.1), or a batch of them."""

    # What the upstream may still send is not needed for the answer.
    enough = False
    _answer_status = 200
    _collected = 0
    _upstream_session: str | None = None
    _opened_session: Session | None = None
    # The events of an answer to initialize, which are held until it is known what session they open.
    _held: bytearray | None = None

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        # Of a JSON answer that is let out while it arrives, what goes first.
        self._first = b""
        self._answers: list[Any] = []
        self._unread: list[Any] = []

    def answer_head(self, status: int, fields: Fields, now: float) -> Answer | Reply:
        """The upstream's status and header fields: what to do with the body.  Raises UpstreamError."""
        kind = self._check_answer_head(status, fields)
        if not self.calls:
            return self._one_way_answer(status)
        self._answer_status = status
        if status < 300:
            if status in (202, 204) or kind not in (JSON, EVENT_STREAM):
                raise UpstreamProtocolError(
                    "the upstream answered a request with neither JSON nor an event stream",
                    reason="upstream-media-type",  # rule 2.11
                )
            if self.call is not None and self.call.method == "initialize":
                self._read_session(fields)
            if kind == JSON:
                most = self.site.max_result_sizes[self.upstream]
                if most is not None:
                    length = fields.get("Content-Length") or ""
                    if len(length) <= 15 and length.isdecimal():
                        self._check_size(most, int(length))
                return Answer.COLLECT
            self._open_stream()
            self._status = 200
            if self._upstream_session is None:
                return Answer.STREAM
            self._held = bytearray()
            return Answer.COLLECT
        if kind == JSON:
            return Answer.COLLECT
        raise self._plain_failure(status)

    def _one_way_answer(self, status: int) -> Reply:
        if status >= 300:
            raise self._plain_failure(status)
        self.outcome = "accepted"
        if self._refused:
            self._status = 200
            return Reply(200, {"Content-Type": JSON}, dumps(self._refused))
        self._status = 202
        return Reply(202)  # rule 2.9: no body

    def _error_document(self, error: GatewayError, id: RequestId | None) -> Any:
        if not self._refused and not (self._is_batch and self.calls):
            return error.to_document(id, self.request)  # of a batch, too, in which nobody waits for an answer
        return [*self._refused, *(error.to_document(each, self.request) for each in self.calls)]

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _read_session(self, fields: Fields) -> None:
        """A session id counts on the answer to initialize only (rule 3.4)."""
        ids = fields.getall(SESSION_ID, ())
        if len(ids) > 1:
            raise UpstreamProtocolError("the upstream gave two session ids", reason="upstream-session")
        if ids:
            if not fields_of.is_session_id(ids[0]):
                raise UpstreamProtocolError("the upstream's session id is not one", reason="upstream-session")
            self._upstream_session = ids[0]

    @property
    def answer_fields(self) -> dict[str, str]:
        """Header fields of an answer whose body comes from the upstream."""
        return {SESSION_ID: self._opened_session.id} if self._opened_session is not None else {}

    def _note_initialized(self, message: Message) -> None:
        if message.kind is not Kind.RESULT:
            return
        named = message.result["protocolVersion"]
        self.revision = revision(named)
        if self._upstream_session is not None:
            assert self.client is not None
            self._opened_session = self.session = self.site.sessions.bind(
                self._upstream_session, self.client, self.upstream, named, self.context.client_capabilities
            )

    # -- one JSON document --------------------------------------------------------------------------------------------

    def collect(self, chunk: bytes, now: float) -> None:
        """Bytes of an answer that is needed whole; raises UpstreamTooLarge."""
        self.now = now
        if self.first_byte is None:
            self.first_byte = now
        self._collected += len(chunk)
        limit = self.site.max_message_size
        if self._collected > limit:
            raise UpstreamTooLarge(f"the upstream's answer is larger than {limit} bytes", key="limits.max_message_size")
        if self._held is None:
            self._body += chunk
            if self._may_part and self._collected > self.site.inline_message:
                self._begin_streaming()
            if not self.is_streaming:
                self._check_size(self.site.max_result_sizes[self.upstream], self._collected)
        else:
            self._held += self.receive(chunk, now)
            self.enough = self.done

    def _begin_streaming(self) -> None:
        """Let out an answer while it arrives, if that can be done; raises GatewayError."""
        self._may_part = False
        if self._answer_status != 200 or self._is_batch or self.call is None:
            return
        body = bytes(self._body)
        try:
            self._large = self._large_answer(body)
        except PeerError:
            return  # it is refused when it is all there
        if self._large is None:
            return
        self._first = self._large_part(self._large, body)
        self._body.clear()
        self.is_streaming = self.is_mid_event = True
        self.stream_fields = {"Content-Type": JSON, **self.answer_fields}
        self._status = 200

    def receive(self, chunk: bytes, now: float) -> bytes:
        """As for AnsweredExchange; also the bytes of a JSON answer, once ``is_streaming``."""
        if not self.is_streaming:
            return super().receive(chunk, now)
        assert self._large is not None
        self.now = self.context.now = now
        data, self._first = self._first, b""
        try:
            return self._counted(data + self._large_part(self._large, chunk) if chunk else data)
        except GatewayError as error:
            return self._cut(error)

    def _large_call(self, id: object) -> Call | None:
        if id is Mark.UNKNOWN and not self._is_batch:
            return self.call if self.calls else None
        return super()._large_call(id)

    def finish(self, now: float) -> Reply | None:
        """What was to be collected is there; None while a hook is being asked.  Raises UpstreamError."""
        if self._held is not None:
            return self._finish_held()
        body = bytes(self._body)
        self._body.clear()
        try:
            document = parse(body, self.site.json_limits, twins=Twins.PROTOCOL)
            if type(document) is list and self._is_batch:
                self._unread = document[::-1]
                return self._finish_next()
            envelope = classify(document)
        except PeerError as error:
            if self._answer_status >= 300:
                raise self._plain_failure(self._answer_status) from error
            raise from_upstream(error) from error
        if self._is_batch and envelope.id in self.calls:
            self._unread = [document]
            return self._finish_next()
        if self._is_batch and envelope.kind is Kind.ERROR:
            # A server that takes no batches says so once: that is the answer to each request.
            self._unread = [{"jsonrpc": "2.0", "id": id, "error": document["error"]} for id in reversed(self.calls)]
            return self._finish_next()
        call = self.call
        if call is None:
            raise _not_for_this()
        if (
            envelope.kind is Kind.ERROR
            and not same_id(envelope.id, call.id)
            and (self._answer_status >= 300 or envelope.id is None)
        ):
            # An error that could not read the id (null, absent, or some servers' "server-error") answers this request:
            # there is no other one in the exchange.
            document = {"jsonrpc": "2.0", "id": call.id, "error": document["error"]}
            body = dumps(document)
            envelope = classify(document)
        if envelope.kind not in (Kind.RESULT, Kind.ERROR) or not same_id(envelope.id, call.id):
            raise _not_for_this()
        message = self._by_the_rules(Message(envelope, document, Sender.SERVER, call))
        if message.document is not document:
            body = dumps(message.document)
        outcome = self._ask(message)
        if outcome is None:
            self._then = partial(self._finish_judged, message, body)
            return None
        return self._finish_judged(message, body, outcome)

    def _finish_judged(self, message: Message, body: bytes, outcome: Outcome) -> Reply:
        document = self._answer_document(message, outcome)
        if document is not message.document:
            body = dumps(document)
        self._status = 200 if self._answer_status < 300 else self._answer_status
        self.bytes_out += len(body)
        return Reply(self._status, {"Content-Type": JSON, **self.answer_fields}, body)

    def _answer_document(self, message: Message, outcome: Outcome) -> dict[str, Any]:
        """What the client gets for an answer, which is on its way out now."""
        passed = outcome.message
        if passed is not None:
            self._learn_task(passed.document)
            document = self._sealed(passed)
            self._answer_out(message)
            return document
        self._note_blocked(message, outcome)
        assert outcome.error is not None and message.call is not None
        self._answer_out(message, outcome.error)
        return outcome.error.to_document(message.call.id, self.request)

    def _finish_next(self) -> Reply | None:
        """The answers of a batch, one after the other; at last all of them, with an error for each request without."""
        self._next = self._finish_next
        while self._unread:
            document = self._unread.pop()
            try:
                envelope = classify(document)
            except PeerError as error:
                raise from_upstream(error) from error
            call = self._call_of(envelope.id, envelope.kind)
            if call is None or envelope.kind not in (Kind.RESULT, Kind.ERROR):
                raise _not_for_this()
            message = self._by_the_rules(Message(envelope, document, Sender.SERVER, call))
            self._judge(message, partial(self._keep_answer, message))
            if self.pending is not None:
                return None
        self._next = None
        lacking = UpstreamProtocolError("the upstream did not answer this request", reason="upstream-no-answer")
        missing = [lacking.to_document(id, self.request) for id in self.calls]
        body = dumps([*self._refused, *self._answers, *missing])
        self.calls.clear()
        self.done = True
        self.outcome = self.outcome or lacking.reason
        self._status = 200
        self.bytes_out += len(body)
        return Reply(200, {"Content-Type": JSON}, body)

    def _keep_answer(self, message: Message, outcome: Outcome) -> None:
        self._answers.append(self._answer_document(message, outcome))
        self.done = False

    def _finish_held(self) -> Reply | None:
        assert self._held is not None
        if self.pending is None:
            self._held += self._counted(self._relay())
        if self.pending is not None:
            return None
        self._held += self.end()
        return Reply(200, {**EVENT_STREAM_FIELDS, **self.answer_fields}, bytes(self._held))

    def resume(self, verdict: Verdict | BaseException) -> Any:
        """As for Exchange; where events are held, ``finish`` gives the Reply."""
        result = super().resume(verdict)
        if self._held is None:
            return result
        self._held += self._counted(result or b"")
        if self.pending is None:
            self._held += self._counted(self._relay())
        self.enough = self.done
        return None

    # -- what belongs here --------------------------------------------------------------------------------------------

    def _relay(self) -> bytes:
        if not self._refused or self.done:
            return super()._relay()
        # A batch's refusals go first: the answers of the others may take their time.
        return self._refusals_out() + super()._relay()

    def _refusals_out(self) -> bytes:
        refused, self._refused = self._refused, []
        return b"".join(sse.encode(dumps(each), event=b"message") for each in refused)

    def _owns_progress(self, token: object) -> bool:
        return any(same_id(token, each) for each in self._tokens) or super()._owns_progress(token)

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        if id is None:
            return self.call if kind is Kind.ERROR else None
        call = self.calls.get(id)
        return call if call is not None and same_id(id, call.id) else None

    def _stray_answer(self, frame: sse.Frame) -> bytes:
        return self._broken(_not_for_this())

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        call = message.call
        assert call is not None
        self.calls.pop(call.id, None)
        self.done = not self.calls
        self.error = error
        if error is not None:
            self.outcome = "withheld"
        else:
            self.outcome = "upstream-error" if message.kind is Kind.ERROR else "answered"
        if self.session is not None:
            self.site.sessions.close_call(self.session, call.id)
        if call.method == "initialize" and error is None:
            self._note_initialized(message)

    def _sealed(self, message: Message) -> dict[str, Any]:
        """A result whose ``requestState`` is bound to this caller and this request (rule 7.14)."""
        if message.kind is not Kind.RESULT or self.revision is None or not self.revision.stateless:
            return message.document
        state = message.result.get("requestState")
        if state is None or message.call is None:
            return message.document
        assert self.client is not None
        sealed = self.site.states.seal(state, self.client, self.upstream, message.call, self._params)
        return {**message.document, "result": {**message.result, "requestState": sealed}}

    def end(self) -> bytes:
        """The upstream's event stream has ended: what the client must still be told."""
        if self.done:
            return b""
        if self.is_streaming and self._large is not None:
            try:
                return self._counted(self._first + self._large_end(self._large))
            except GatewayError as broken:
                return self._cut(broken)
        if self.is_mid_event:
            return self._cut(
                UpstreamProtocolError("the upstream's stream ended in its answer", reason="upstream-truncated")
            )
        if self._resumable and self._held is None:
            # The server closed the connection, not the stream: the client comes back for the answer (rule 4.4).
            self.outcome = "resumable"
            return self._counted(self._last_held())
        if self.is_listening:
            self.outcome = "stream-ended"  # rule 7.9: the client listens again
            return self._counted(self._last_held())
        session = self.session
        if session is not None and all(self.site.sessions.is_cancelled(session, id) for id in self.calls):
            self.outcome = "cancelled"  # the client said so; nobody waits for an answer
            return self._counted(self._refusals_out() + self._last_held())
        error = UpstreamProtocolError("the upstream's stream ended before the answer", reason="upstream-no-answer")
        return self._counted(self._broken(error))

    def cancellations(self) -> list[Forward]:
        """As for AnsweredExchange, in a session (rule 7.24); initialize, which has none yet, cannot be cancelled."""
        session = self.session
        if session is None:
            return []
        note: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        waiting = [id for id in self.calls if not self.site.sessions.is_cancelled(session, id)]
        bodies = [dumps({**note, "params": {"requestId": id}}) for id in waiting]
        return [Forward("POST", self._base_fields(), body) for body in bodies]

    def _broken(self, error: GatewayError) -> bytes:
        if self.done:
            return b""
        self.done = True
        self._frames.clear()
        held = self._last_held()
        self.error = error
        self.outcome = error.reason
        errors = (sse.encode(dumps(error.to_document(id, self.request)), event=b"message") for id in self.calls)
        return self._refusals_out() + held + b"".join(errors)

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed after its stream had begun: the last events for the client.

        A stream that can be resumed just ends: its client comes back for the answer (rules 4.4, 5.3).
        """
        if self.is_mid_event:
            return self._cut(error)
        if self._resumable and isinstance(error, UpstreamError):
            self.outcome = "resumable"
            return self._counted(self._last_held())
        return self._counted(self._broken(error))

    def drain(self) -> bytes:
        """An error for a call; a subscription ends as its server would end it (rule 7.6)."""
        if self.done:
            return b""
        if self.is_mid_event:
            return self._cut(Draining("the gateway is stopping"))
        if self._resumable:
            self.outcome = "resumable"
            return self._counted(self._last_held())
        if self.is_listening:
            held = self._last_held()
            self.done = True
            self.outcome = "draining"
            assert self.call is not None
            result = {"resultType": "complete", "_meta": {modern.SUBSCRIPTION_ID: self.call.id}}
            document = {"jsonrpc": "2.0", "id": self.call.id, "result": result}
            return self._counted(held + sse.encode(dumps(document), event=b"message"))
        return self._counted(self._broken(Draining("the gateway is stopping")))

    def close(self, now: float, outcome: str | None = None) -> None:
        if self.session is not None:
            sessions = self.site.sessions
            for id in self._opened:
                # With an event id the client can come back for the answer, if it still wants one.
                if self.done or not self._resumable or sessions.is_cancelled(self.session, id):
                    sessions.close_call(self.session, id)
        super().close(now, outcome)


def _not_for_this() -> UpstreamProtocolError:
    return UpstreamProtocolError("the upstream's answer is not for this request", reason="upstream-answer-id")
