"""A GET, the server's own stream or a resumed one, and a DELETE.  Sans-IO, see ``exchange``."""

from __future__ import annotations

from ..protocol import headers as fields_of
from ..protocol.errors import (
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    UnknownSession,
    UpstreamError,
    UpstreamProtocolError,
)
from ..protocol.headers import LAST_EVENT_ID, SESSION_ID, VERSION, Fields
from ..protocol.message import Call, Message
from ..protocol.revisions import revision
from ..wire.envelope import Kind, RequestId
from .answer import AnsweredExchange
from .exchange import EVENT_STREAM, Answer, Forward, Reply

__all__ = ["Get"]


class Get(AnsweredExchange):
    """A GET: the server's own stream, or a resumed one (rules 1.4, 4.7, 5.3).  DELETE shares its way upstream."""

    def open(self, now: float) -> Forward:
        """Judge the request; raises GatewayError."""
        named = revision(self.head.fields.get(VERSION))
        if named is not None and named.stateless:
            raise MethodNotAllowed("this revision has POST only", headers={"Allow": "POST"})  # rule 1.3
        self._method = f"http/{self.head.method.lower()}"
        self._find_session(now)
        if self.session is None and self.head.method == "DELETE":
            raise BadRequest(f"header {SESSION_ID} is missing", reason="session-missing")
        self._check_upstream()
        fields = self._base_fields()
        last = self.head.fields.get(LAST_EVENT_ID)
        if last is not None and self.head.method == "GET":
            if self.session is None:
                raise UnknownSession("a stream is resumed within its session")
            if not fields_of.is_clean(last):
                raise BadRequest(f"header {LAST_EVENT_ID} holds characters that cannot be forwarded")
            fields[LAST_EVENT_ID] = last
        if self.head.method == "GET":
            self._enter("stream")
        self._accept()
        return Forward(self.head.method, fields)

    def answer_head(self, status: int, fields: Fields, now: float) -> Answer | Reply:
        """As for Post: STREAM, or the Reply of a refused stream or a DELETE.  Raises UpstreamError."""
        kind = self._check_answer_head(status, fields)
        if self.head.method == "DELETE":
            if status < 300 and self.session is not None:
                self.site.sessions.forget(self.session)
                self.outcome = "answered"
                self._status = 200
                return Reply(200)
            raise self._plain_failure(status)
        if status < 300:
            if kind != EVENT_STREAM:
                raise UpstreamProtocolError(
                    "the upstream answered a stream request without an event stream", reason="upstream-media-type"
                )
            self._open_stream()
            self._status = 200
            return Answer.STREAM
        raise self._plain_failure(status)

    def _plain_failure(self, status: int) -> UpstreamError:
        error = super()._plain_failure(status)
        if status == 405:
            error.headers["Allow"] = "POST"  # rule 1.4: a server without a stream of its own says so
        return error

    def _owns_progress(self, token: object) -> bool:
        return self.session is None or super()._owns_progress(token)

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        """A resumed stream delivers answers: to requests of this session that have none yet (rules 4.7, 5.5)."""
        if self.session is None or id is None:
            return None
        return self.session.calls.get(id)

    def _stray_answer(self) -> bytes:
        self.site.metrics.dropped_frame(self.upstream, "stray-answer")
        return b""

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        if self.session is not None and message.call is not None:
            self.session.close_call(message.call.id)

    def _broken(self, error: GatewayError) -> bytes:
        self.done = True
        self._frames.clear()
        self.error = error
        self.outcome = error.reason
        return b""

    def end(self) -> bytes:
        """The upstream's stream has ended; the client may open it again."""
        self.outcome = self.outcome or "stream-ended"
        return b""

    def drain(self) -> bytes:
        """The stream just ends; the client may open it again elsewhere."""
        self.outcome = "draining"
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed: the stream just ends, nobody waits for an answer on it."""
        return self._broken(error)
