"""A GET, the server's own stream or a resumed one, and a DELETE.  Sans-IO, see ``exchange``."""

from __future__ import annotations

from ..protocol import headers as fields_of
from ..protocol.errors import (
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    UpstreamError,
    UpstreamProtocolError,
)
from ..protocol.headers import LAST_EVENT_ID, SESSION_ID, Fields
from ..protocol.message import Call, Message
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, RequestId
from .answer import AnsweredExchange
from .exchange import EVENT_STREAM, Answer, Forward, Reply, same_id
from .gate import Head
from .site import Site

__all__ = ["Get"]


class Get(AnsweredExchange):
    """A GET: the server's own stream, or a resumed one (rules 1.4, 4.7, 5.3).  DELETE shares its way upstream."""

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        # The request whose stream this one goes on with.
        self._resumed: Call | None = None

    def open(self, now: float) -> Forward:
        """Judge the request; raises GatewayError."""
        named = self.head.mcp.revision
        if named is not None and named.stateless:
            raise MethodNotAllowed("this revision has POST only", headers={"Allow": "POST"})  # rule 1.3
        self._method = f"http/{self.head.method.lower()}"
        self._find_session()
        if self.session is None and self.head.method == "DELETE":
            raise BadRequest(f"header {SESSION_ID} is missing", reason="session-missing")
        self._check_upstream()
        fields = self._base_fields()
        last = self.head.fields.get(LAST_EVENT_ID)
        if last is not None and self.head.method == "GET":
            assert self.bound is not None
            last, self._resumed = self.site.sessions.open_event_id(self.bound, last)
            if not fields_of.is_clean(last):
                raise BadRequest("this stream's event ids cannot be sent back to the upstream", reason="header-value")
            fields[LAST_EVENT_ID] = last
            self.context.call = self._resumed
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
        # Whose stream it is was settled when it was opened; but the stream of a server without sessions is everybody's.
        return self._resumed is not None or super()._owns_progress(token)

    def _own_event_id(self, bound: Session, id: bytes) -> bytes | None:
        return self.site.sessions.seal_event_id(bound, id, self._resumed)

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        """A resumed stream delivers the answer of its request, and no other stream delivers any (rules 4.7, 5.5)."""
        resumed = self._resumed
        return resumed if resumed is not None and same_id(id, resumed.id) else None

    def _stray_answer(self, frame: sse.Frame) -> bytes:
        self.site.metrics.dropped_frame(self.upstream, "stray-answer")
        return self._move_on(frame)

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        self._resumed = None
        if self.session is not None and message.call is not None:
            self.site.sessions.close_call(self.session, message.call.id)

    def _broken(self, error: GatewayError) -> bytes:
        self.must_abort = self.is_mid_event
        self.done = True
        self._frames.clear()
        held = self._last_held()
        self.error = error
        self.outcome = error.reason
        return held

    def end(self) -> bytes:
        """The upstream's stream has ended; the client may open it again."""
        self.outcome = self.outcome or "stream-ended"
        self.must_abort = self.is_mid_event
        return self._counted(self._last_held())

    def drain(self) -> bytes:
        """The stream just ends; the client may open it again elsewhere."""
        self.outcome = "draining"
        self.must_abort = self.is_mid_event
        return self._counted(self._last_held())

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed: the stream just ends, nobody waits for an answer on it."""
        return self._counted(self._broken(error))
