"""What comes back from an upstream: its status and header fields, and its event stream, frame by frame.  Sans-IO.

Unchanged frames pass byte for byte; a frame that a hook changed is written anew with the same event, id and retry.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..guard.chain import Outcome
from ..guard.hook import Verdict
from ..protocol import headers as fields_of
from ..protocol.errors import (
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamProtocolError,
    from_upstream,
)
from ..protocol.headers import Fields
from ..protocol.message import Call, Message, Sender
from ..wire import sse
from ..wire.envelope import Kind, RequestId, classify
from ..wire.errors import PeerError
from ..wire.strict import Twins, dumps, parse
from .exchange import EVENT_STREAM, JSON, Answer, Exchange, Forward, Reply, same_id
from .gate import Head
from .site import Site

__all__ = ["EVENT_STREAM_FIELDS", "AnsweredExchange"]

# Rule 4.10 for X-Accel-Buffering; no-transform keeps compressing proxies from buffering.
EVENT_STREAM_FIELDS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}

# Statuses that mean something to an MCP client's own logic when they come from its server (rules 1.11, 3.7, 6.20).
_TELLING = frozenset((400, 404, 405, 406, 409, 410, 413, 415, 422))


class AnsweredExchange(Exchange):
    """An exchange whose answer comes from the upstream; ``Post`` and ``Get`` say what may answer what."""

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        # Errors that the upstream must get for requests of its own that were blocked: the shell posts what
        # ``take_blocked`` returns.
        self.blocked_requests: list[dict[str, Any]] = []
        self._frames: deque[sse.Frame] = deque()
        self._decoder: sse.Decoder | None = None
        # An event with an id has passed: the client can come back for what it has not got (rule 5.3).
        self._resumable = False

    def _check_answer_head(self, status: int, fields: Fields) -> str:
        """The media type of an answer whose framing is beyond doubt (stack: what a lenient parser lets through)."""
        if not 200 <= status <= 599:
            raise UpstreamProtocolError("the upstream's status is not one", reason="upstream-status")
        if fields.getall("Transfer-Encoding", ["chunked"]) != ["chunked"]:
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
            raise UpstreamBusy(
                "the upstream asks to come back later", headers={"Retry-After": wait} if wait.isdecimal() else None
            )
        if status == 404 and self.session is not None:
            self.site.sessions.forget(self.session)  # rule 3.7: the client must initialize again
        return kind

    def _plain_failure(self, status: int) -> UpstreamError:
        """An HTTP error without a JSON-RPC body: the status passes where an MCP client reads it."""
        error = UpstreamProtocolError(f"the upstream answered with HTTP status {status}", reason="upstream-status")
        if status in _TELLING:
            error.status = status
        return error

    def _open_stream(self) -> None:
        limit = self.site.config.limits.max_message_size
        self._decoder = sse.Decoder(limit, limit)

    def receive(self, chunk: bytes, now: float) -> bytes:
        """Bytes of the upstream's event stream; returns bytes for the client. Frames of one read leave in one write."""
        assert self._decoder is not None
        if self.first_byte is None:
            self.first_byte = now
        try:
            self._frames.extend(self._decoder.feed(chunk))
        except PeerError as error:
            return self._broken(from_upstream(error))
        return self._relay()

    @property
    def is_listening(self) -> bool:
        """Whether this is a subscription, which has no natural end."""
        return self.call is not None and self.call.method == "subscriptions/listen"

    def take_blocked(self) -> list[Forward]:
        """What to tell the upstream about requests of its own that were blocked, each in a POST of its own."""
        taken, self.blocked_requests = self.blocked_requests, []
        return [Forward("POST", self._base_fields(), dumps(each)) for each in taken]

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

    def _relay(self) -> bytes:
        out = []
        frames = self._frames
        while frames and not self.done:
            frame = frames.popleft()
            data = self._frame(frame)
            if data is not None:
                out.append(data)
            if self.pending is not None:
                break
        broken = self._decoder.error if self._decoder is not None and not frames else None
        if broken is not None and not self.done and self.pending is None:
            # A limit that was exceeded behind the frames of this read.
            out.append(self._broken(from_upstream(broken)))
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        self.bytes_out += len(data)
        return data

    def resume_stream(self, verdict: Verdict | BaseException) -> bytes:
        """``resume`` for a hook that was asked about a message on a stream, and the frames that waited behind it."""
        data: bytes = self.resume(verdict) or b""
        self.bytes_out += len(data)
        if self.pending is None:
            data += self._relay()
        return data

    def _frame(self, frame: sse.Frame) -> bytes | None:
        """One frame of the upstream: what the client gets for it, or None while a hook is being asked."""
        if frame.id is not None:
            self._resumable = True
        if not frame.data:
            # Comments keep the line alive (rule 4.11); an id with empty data primes a stream (rule 4.3).
            return frame.raw
        if frame.event not in (None, b"", b"message"):
            # Clients ignore event types that they do not know, so this would bypass the policy (rule 4.13).
            self.site.metrics.dropped_frame(self.upstream, "event-type")
            return b""
        try:
            document = parse(frame.data, self.site.json_limits, twins=Twins.PROTOCOL)
            envelope = classify(document)
        except PeerError as error:
            return self._broken(from_upstream(error))
        self.site.metrics.frame(self.upstream)
        # Clients ignore unknown fields, so nothing judges them: such a frame is written anew without them.
        rewritten = frame.unknown
        if envelope.kind is Kind.REQUEST or envelope.kind is Kind.NOTIFICATION:
            message = Message(envelope, document, Sender.SERVER)
            if not self._expected(message):
                return self._unexpected(message)
        else:
            call = self._call_of(envelope.id, envelope.kind)
            if call is None:
                return self._stray_answer()
            if envelope.id is None:  # an error that could not name its request: this exchange has only one
                document = {"jsonrpc": "2.0", "id": call.id, "error": document["error"]}
                envelope = classify(document)
                rewritten = True
            message = Message(envelope, document, Sender.SERVER, call)
        data: bytes | None = self._judge(message, lambda outcome: self._emit(message, frame, outcome, rewritten))
        return data

    def _expected(self, message: Message) -> bool:
        """Whether a server's request or notification belongs on this stream."""
        if message.kind is Kind.REQUEST:
            return self.revision is None or self.revision.server_requests
        if message.method == "notifications/progress":
            return self._owns_progress(message.params.get("progressToken"))
        return True

    def _owns_progress(self, token: object) -> bool:
        session = self.session
        return session is not None and any(same_id(token, each) for each in session.progress_tokens.values())

    def _unexpected(self, message: Message) -> bytes:
        if message.kind is Kind.REQUEST:  # rule 7.2
            return self._broken(
                UpstreamProtocolError(
                    "the upstream sent a request, which this revision does not have", reason="upstream-request"
                )
            )
        self.site.metrics.dropped_frame(self.upstream, "progress-token")  # rule 7.25
        return b""

    def _emit(self, message: Message, frame: sse.Frame, outcome: Outcome, rewritten: bool) -> bytes:
        """What a judged message of the server becomes on the client's stream."""
        passed = outcome.message
        if passed is None:
            return self._withheld(message, frame, outcome)
        if message.kind is Kind.REQUEST:
            if self.session is not None and message.id is not None and message.method is not None:
                self.session.open_server_request(message.id, message.method)
        elif message.is_response:
            self._answer_out(message)
        if outcome.changed or rewritten:
            return sse.encode(dumps(passed.document), event=frame.event, id=frame.id, retry=frame.retry)
        return frame.raw

    def _withheld(self, message: Message, frame: sse.Frame, outcome: Outcome) -> bytes:
        self._note_blocked(message, outcome)
        if message.is_response:
            error = outcome.error
            assert error is not None and message.call is not None
            self._answer_out(message, error)
            return sse.encode(
                dumps(error.to_document(message.call.id, self.request)),
                event=frame.event,
                id=frame.id,
                retry=frame.retry,
            )
        if message.kind is Kind.REQUEST and outcome.error is not None and message.id is not None:
            self.blocked_requests.append(outcome.error.to_document(message.id, self.request))
        # The cursor of a resumable stream moves on all the same: an id with empty data dispatches nothing.
        if frame.id is not None:
            return sse.encode(b"", id=frame.id, retry=frame.retry)
        return b""

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

    def _call_of(self, id: RequestId | None, kind: Kind) -> Call | None:
        """The request that a response on this stream answers, or None for a response that has no business here."""
        raise NotImplementedError

    def _stray_answer(self) -> bytes:
        raise NotImplementedError

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        """An answer goes to the client now."""
        raise NotImplementedError

    def _broken(self, error: GatewayError) -> bytes:
        """The upstream broke the protocol: nothing more of its stream passes."""
        raise NotImplementedError
