"""What comes back from an upstream: its status and header fields, and its event stream, frame by frame.  Sans-IO.

Unchanged frames pass byte for byte (rule 2.21); a frame that a hook changed is written anew with the same event, id and
retry.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..guard.chain import Outcome
from ..guard.hook import Verdict
from ..guard.limits import Bucket
from ..protocol import headers as fields_of
from ..protocol.answers import Stream, Subscription, check_error, check_notification, check_result
from ..protocol.errors import (
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamProtocolError,
    from_upstream,
)
from ..protocol.headers import Fields
from ..protocol.message import Call, Message, Sender
from ..protocol.params import without_invalid
from ..protocol.revisions import LEGACY, SUPPORTED
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, RequestId, classify
from ..wire.errors import LimitExceeded, PeerError
from ..wire.strict import Twins, dumps, parse
from .exchange import EVENT_STREAM, JSON, Answer, Exchange, Forward, Reply
from .gate import Head
from .site import Site

__all__ = ["EVENT_STREAM_FIELDS", "AnsweredExchange"]

# Rule 4.10 for X-Accel-Buffering; no-transform keeps compressing proxies from buffering.
EVENT_STREAM_FIELDS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}

# Frames without data in one read: an honest upstream sends one in a while, and each takes as long as a message.
MAX_EMPTY = 1000

# RFC 9110, 10.2.3: what is passed on of Retry-After.
_SECONDS = re.compile(r"[0-9]{1,9}")

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
        self._subscription: Subscription | None = None
        # The parameters that went upstream with the client's request.
        self._params: dict[str, Any] = {}
        # Each takes a connection: an upstream that asks without end is left without answers.
        self._refusals = Bucket(60, 20)
        # What time it is, as far as the shell has said.
        self.now = now
        # An event with an id has passed: the client can come back for what it has not got (rule 5.3).
        self._resumable = False

    def _check_answer_head(self, status: int, fields: Fields) -> str:
        """The media type of an answer whose framing is beyond doubt (aiohttp's response parser is lenient)."""
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

    def _open_stream(self) -> None:
        limit = self.site.config.limits.max_message_size
        self._decoder = sse.Decoder(limit, limit)
        if self.is_listening and self.call is not None:
            self._subscription = Subscription(self.call, self._params)

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

    def answer_head(self, status: int, fields: Fields, now: float) -> Answer | Reply:
        """The upstream's status and header fields: what to do with the body.  Raises UpstreamError."""
        raise NotImplementedError

    def receive(self, chunk: bytes, now: float) -> bytes:
        """Bytes of the upstream's event stream: bytes for the client.  Frames of one read leave in one write."""
        assert self._decoder is not None
        self.now = now
        if self.first_byte is None:
            self.first_byte = now
        try:
            frames = self._decoder.feed(chunk)
        except PeerError as error:
            return self._counted(self._broken(from_upstream(error)))
        if len(frames) > MAX_EMPTY and sum(not frame.data for frame in frames) > MAX_EMPTY:
            flood = UpstreamProtocolError("the upstream floods its stream with empty events", reason="upstream-flood")
            return self._counted(self._broken(flood))
        self._frames.extend(frames)
        return self._counted(self._relay())

    def resume_stream(self, verdict: Verdict | BaseException) -> bytes:
        """``resume`` for a hook that was asked about a message on a stream, and the frames that waited behind it."""
        data: bytes = self.resume(verdict) or b""
        if self.pending is None:
            data += self._relay()
        return self._counted(data)

    def end(self) -> bytes:
        """The upstream's event stream has ended: what the client must still be told."""
        raise NotImplementedError

    def fail(self, error: GatewayError) -> bytes:
        """The upstream failed after its stream had begun: the last bytes for the client."""
        raise NotImplementedError

    def drain(self) -> bytes:
        """The gateway stops: the last bytes for the client."""
        raise NotImplementedError

    # -- frames -------------------------------------------------------------------------------------------------------

    def _relay(self) -> bytes:
        out = []
        frames = self._frames
        while frames and not self.done and self.pending is None:
            data = self._frame(frames.popleft())
            if data is not None:
                out.append(data)
        broken = self._decoder.error if self._decoder is not None and not frames else None
        if broken is not None and not self.done and self.pending is None:
            # A limit that was exceeded behind the frames of this read.
            out.append(self._broken(from_upstream(broken)))
        return out[0] if len(out) == 1 else b"".join(out)

    def _counted(self, data: bytes) -> bytes:
        """Bytes that leave for the client now."""
        self.bytes_out += len(data)
        return data

    def _frame(self, frame: sse.Frame) -> bytes | None:
        """One frame of the upstream: what the client gets for it, or None while a hook is being asked."""
        if frame.event not in (None, b"", b"message"):
            # Clients ignore event types that they do not know, so this would bypass the policy (rule 4.13).
            self.site.metrics.dropped_frame(self.upstream, "event-type")
            return self._move_on(frame)
        if not frame.data:
            # Comments keep the line alive (rule 4.11); an id with empty data primes a stream (rule 4.3).
            return self._write(frame, None)
        try:
            document = parse(frame.data, self.site.json_limits, twins=Twins.PROTOCOL)
            if type(document) is list and document and self.revision is not None and self.revision.batches:
                return self._take_apart(frame, document)
            envelope = classify(document)
        except PeerError as error:
            return self._broken(from_upstream(error))
        self.site.metrics.frame(self.upstream)
        rewritten = False
        if envelope.kind is Kind.REQUEST or envelope.kind is Kind.NOTIFICATION:
            message = Message(envelope, document, Sender.SERVER)
            if not self._expected(message):
                return self._unexpected(message, frame)
        else:
            call = self._call_of(envelope.id, envelope.kind)
            if call is None:
                return self._stray_answer(frame)
            if envelope.id is None:  # an error that could not name its request: this exchange has only one
                document = {"jsonrpc": "2.0", "id": call.id, "error": document["error"]}
                envelope = classify(document)
                rewritten = True
            try:
                message = self._by_the_rules(Message(envelope, document, Sender.SERVER, call))
            except UpstreamError as error:
                return self._broken(error)
            rewritten = rewritten or message.document is not document
        data: bytes | None = self._judge(message, lambda outcome: self._emit(message, frame, outcome, rewritten))
        return data

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

    def _learn_task(self, document: dict[str, Any]) -> None:
        """Whose a task is that this answer creates (rule 11.2); raises UpstreamProtocolError for another client's."""
        assert self.client is not None
        self.site.tasks.learn(self.client, self.upstream, document, self.now)

    def _take_apart(self, frame: sse.Frame, batch: list[Any]) -> bytes:
        """A batch (rule 4.9) becomes an event for each of its messages; the last one has the id.  Raises PeerError."""
        if len(batch) > self.site.config.limits.max_batch:
            raise LimitExceeded("too-large", "a batch has too many messages", limit="limits.max_batch")
        for each in batch:
            if type(each) is list:
                classify(each)  # raises: a batch within a batch would be written and read anew at each level
        parts = [sse.Frame(b"", dumps(each), frame.event) for each in batch]
        parts[-1].id, parts[-1].retry = frame.id, frame.retry
        for part in parts:
            part.raw = sse.encode(part.data or b"", event=part.event, id=part.id, retry=part.retry)
        self._frames.extendleft(reversed(parts))
        return b""

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

    def _unexpected(self, message: Message, frame: sse.Frame) -> bytes:
        if message.kind is Kind.REQUEST:  # rule 7.2
            return self._broken(
                UpstreamProtocolError(
                    "the upstream sent a request, which this revision does not have", reason="upstream-request"
                )
            )
        self.site.metrics.dropped_frame(self.upstream, "not-expected")  # rules 7.3, 7.8, 7.25
        return self._move_on(frame)

    def _emit(self, message: Message, frame: sse.Frame, outcome: Outcome, rewritten: bool) -> bytes:
        """What a judged message of the server becomes on the client's stream."""
        passed = outcome.message
        if passed is None:
            return self._withheld(message, frame, outcome)
        document = passed.document
        if message.is_response:
            try:
                self._learn_task(document)
            except UpstreamError as error:
                return self._broken(error)
            document = self._sealed(passed)
        elif self.bound is not None:
            document = self._with_own_ids(passed, self.bound)
        changed = rewritten or outcome.changed or document is not passed.document
        data = self._write(frame, document if changed else None)
        if message.is_response:
            # Only now: what a hook made of it may be no JSON, and then it has not been answered.
            self._answer_out(message)
        return data

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

    def _withheld(self, message: Message, frame: sse.Frame, outcome: Outcome) -> bytes:
        self._note_blocked(message, outcome)
        if message.is_response:
            error = outcome.error
            assert error is not None and message.call is not None
            self._answer_out(message, error)
            return self._write(frame, error.to_document(message.call.id, self.request))
        if message.kind is Kind.REQUEST and outcome.error is not None and self._refusals.take(self.now) == 0.0:
            self.blocked_requests.append(outcome.error.to_document(message.id, self.request))
        return self._move_on(frame)

    def _write(self, frame: sse.Frame, document: dict[str, Any] | None) -> bytes:
        """A frame for the client: byte for byte as it came, but for what must change.

        ``document`` takes the place of the data.  An event id is bound to the session (rule 5.6).  Fields that the
        standard does not know, and ids with a NUL, are ignored by clients and judged by nobody: they do not pass.
        """
        id = frame.id
        if id is not None and self.bound is not None:
            id = self._own_event_id(self.bound, id) if id else id
            if id is not None:
                self._resumable = id != b""  # an empty one takes the cursor away
        if document is not None or frame.unknown or (id is None and (frame.id is not None or b"\0" in frame.raw)):
            data = dumps(document) if document is not None else frame.data
            if data is None and id is None and frame.retry is None:
                return sse.comment()
            return sse.encode(data if data is not None else b"", event=frame.event, id=id, retry=frame.retry)
        if id is not frame.id and id is not None:
            return sse.with_id(frame, id)
        return frame.raw

    def _own_event_id(self, bound: Session, id: bytes) -> bytes | None:
        return self.site.sessions.seal_event_id(bound, id, self.call)

    def _move_on(self, frame: sse.Frame) -> bytes:
        """What is left of a frame that does not pass: the cursor of a resumable stream moves on all the same, for an id
        with empty data dispatches nothing."""
        if frame.id is None:
            return b""
        return self._write(sse.Frame(sse.encode(b"", id=frame.id, retry=frame.retry), b"", None, frame.id), None)

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
