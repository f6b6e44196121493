"""An upstream's event stream, frame by frame, as the client gets it.  Sans-IO.

What a message on it may be is in ``incoming``; an answer that is too large to hold, in ``large_exchange``.

Unchanged frames pass byte for byte (rule 2.21); a frame that a hook changed is written anew with the same event, id and
retry.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..guard.chain import Outcome, Pending
from ..guard.hook import Verdict
from ..guard.limits import Bucket
from ..protocol.answers import Subscription
from ..protocol.errors import GatewayError, UpstreamError, UpstreamProtocolError, from_upstream
from ..protocol.message import Message, Sender
from ..protocol.sessions import Session
from ..wire import sse
from ..wire.envelope import Kind, classify
from ..wire.errors import LimitExceeded, PeerError
from ..wire.strict import Twins, dumps, parse
from .exchange import EVENT_STREAM, Exchange
from .gate import Head
from .held import HeldMessage, HeldMessages
from .large_exchange import LargeExchange
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


class AnsweredExchange(LargeExchange):
    """An exchange whose answer may be an event stream of the upstream's."""

    # When messages that a hook holds back must be let go, by ``flush``; None when nothing is held.
    held_until: float | None = None
    _decoder: sse.Decoder | None = None
    # An event with an id has passed: the client can come back for what it has not got (rule 5.3).
    _resumable = False
    _may_part = True  # the event that is not complete has not been looked at yet
    # Each takes a connection: an upstream that asks without end is left without answers.
    _refusals: Bucket | None = None

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        self._frames: deque[sse.Frame] = deque()
        self._kept = HeldMessages()
        # What goes before the next frame: messages that were held, and the one that waited for them.  Few, if any:
        # a list, because an empty deque takes ten times as much of an idle stream.
        self._due: list[Callable[[], bytes | None]] = []

    def _open_stream(self) -> None:
        limit = self.site.max_message_size
        self._decoder = sse.Decoder(limit, limit)
        if self.is_listening and self.call is not None:
            self._subscription = Subscription(self.call, self._params)

    def receive(self, chunk: bytes, now: float) -> bytes:
        """Bytes of the upstream's event stream: bytes for the client.  Frames of one read leave in one write."""
        assert self._decoder is not None
        self.now = self.context.now = now
        if self.first_byte is None:
            self.first_byte = now
        try:
            frames = self._decoder.feed(chunk)
        except PeerError as error:
            if self.is_mid_event:
                return self._cut(from_upstream(error))
            return self._counted(self._broken(from_upstream(error)))
        if self.is_mid_event:
            self._frames.extend(frames)
            return self._counted(self._go_on())
        if frames:
            self._may_part = True
        if len(frames) > MAX_EMPTY and sum(not frame.data for frame in frames) > MAX_EMPTY:
            flood = UpstreamProtocolError("the upstream floods its stream with empty events", reason="upstream-flood")
            return self._counted(self._broken(flood))
        self._frames.extend(frames)
        data = self._relay()
        if self._may_part and self._decoder.waiting > self.site.inline_message:
            data += self._part_event()
        return self._counted(data)

    def flush(self, now: float) -> bytes:
        """The messages that are held, once ``held_until`` has come; all of them at ``math.inf``."""
        if now < math.inf:
            self.now = self.context.now = now
        self._due.extend(partial(self._release, each) for each in self._kept.due(now))
        return self._counted(self._relay())

    def resume_stream(self, verdict: Verdict | BaseException) -> bytes:
        """``resume`` for a hook that was asked about a message on a stream, and the frames that waited behind it."""
        data: bytes = self.resume(verdict) or b""
        if self.pending is None:
            data += self._relay()
        return self._counted(data)

    # -- an event that is too large to hold ----------------------------------------------------------------------------

    def _part_event(self) -> bytes:
        """An event is too large to hold: what goes out of it now, if it can go out in parts."""
        assert self._decoder is not None
        if self.done or self.pending is not None or self._frames or self._due:
            return b""
        self._may_part = False
        opened = self._decoder.open_event()
        if opened is None:
            return b""
        head, beginning = opened
        if head.event not in (None, b"", b"message"):
            return b""
        try:
            large = self._large_answer(beginning)
            if large is None:
                return b""
            data = self._large_part(large, beginning)
        except PeerError:
            return b""  # it is refused when it is all there
        except GatewayError as error:
            return self._broken(error)
        self.site.metrics.frame(self.upstream)
        held = self._last_held()  # before an answer everything
        self._decoder.begin_parts()
        self._large = large
        self.is_mid_event = True
        fields = self._write(sse.Frame(b"\0", b"", head.event, head.id, head.retry, unknown=True), None)
        return held + fields.removesuffix(b"\n\n") + data

    def _go_on(self) -> bytes:
        """A read while an event is out in part, and the frames behind it if it has ended."""
        assert self._decoder is not None
        data = self._event_part(self._decoder.part, self._decoder.ended)
        return data if self.is_mid_event or self.done else data + self._relay()

    def _event_part(self, part: bytes, ended: sse.Frame | None) -> bytes:
        """More of the event that is out in part; ``ended`` is what followed its data."""
        assert self._large is not None
        try:
            data = self._large_part(self._large, part) if part else b""
            if ended is None:
                return data
            if ended.data is not None or ended.event not in (None, b"", b"message"):
                raise UpstreamProtocolError(
                    "the upstream sent a large event in more than one line", reason="upstream-event"
                )
            data += self._large_end(self._large)
        except GatewayError as error:
            return self._cut(error)
        self._large = None
        self.is_mid_event = False
        self._may_part = True
        if ended.id is None and ended.retry is None:
            return data + b"\n\n"
        fields = self._write(sse.Frame(b"\0", b"", None, ended.id, ended.retry, unknown=True), None)
        return data + b"\n" + fields.removesuffix(b"data: \n\n") + b"\n"

    # -- frames -------------------------------------------------------------------------------------------------------

    def _relay(self) -> bytes:
        out = []
        frames, due = self._frames, self._due
        while not self.done and self.pending is None:
            if due:
                data = due.pop(0)()
            elif frames:
                data = self._frame(frames.popleft())
            else:
                if self._kept.messages:
                    due.extend(partial(self._release, each) for each in self._kept.due(self.now))
                if due:
                    continue
                break
            if data is not None:
                out.append(data)
        if self._kept.messages or self.held_until is not None:
            self.held_until = None if self.done else self._kept.until
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
                self._check_size(self.site.max_result_sizes[self.upstream], len(frame.data))
                message = self._by_the_rules(Message(envelope, document, Sender.SERVER, call))
            except UpstreamError as forbidden:
                return self._broken(forbidden)
            rewritten = rewritten or message.document is not document
        outcome = self._ask(message)
        if outcome is None:
            self._then = lambda outcome: self._emit(message, frame, outcome, rewritten)
            return None
        return self._emit(message, frame, outcome, rewritten)

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
        if self.done and message.is_response:
            return b""  # the stream was ended by what went before it
        if outcome.held is not None:
            self._kept.add(message, frame, outcome.held, rewritten)
        if self._kept.messages:
            # What is due goes first, and before an answer everything: nothing comes after it (rule 7.25).
            due = self._kept.due(math.inf if message.is_response else self.now)
            if due:
                if outcome.held is None:
                    self._due.insert(0, partial(self._emit, message, frame, outcome, rewritten))
                self._due[:0] = [partial(self._release, each) for each in due]
                return b""
        if outcome.held is not None:
            return b""
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

    def _release(self, kept: HeldMessage) -> bytes | None:
        """Let go a message that was held; None while a hook further down is being asked about it."""
        self._kept.remove(kept)
        outcome = kept.held.release()

        def then(outcome: Outcome) -> bytes:
            return self._emit(kept.message, kept.frame, outcome, kept.rewritten)

        if isinstance(outcome, Pending):
            self.pending, self._then = outcome, then
            return None
        data: bytes = self._settle(outcome, then)
        return data

    def _last_held(self) -> bytes:
        """All that is still held, when nothing more will come.  A hook that would have to ask has no time left."""
        if not self._kept.messages:
            return b""
        out = []
        self.pending = self._then = None
        self.held_until = None
        while self._kept.messages or self._due:
            self._due.extend(partial(self._release, each) for each in self._kept.due(math.inf))
            data = self._due.pop(0)()
            out.append(self._unasked() if data is None else data)
        return b"".join(out)

    def _unasked(self) -> bytes:
        data: bytes = b""
        while self.pending is not None:
            data = Exchange.resume(self, TimeoutError()) or b""
        return data

    def _withheld(self, message: Message, frame: sse.Frame, outcome: Outcome) -> bytes:
        self._note_blocked(message, outcome)
        if outcome.ends and outcome.error is not None:
            return self._broken(outcome.error)
        if message.is_response:
            error = outcome.error
            assert error is not None and message.call is not None
            self._answer_out(message, error)
            return self._write(frame, error.to_document(message.call.id, self.request))
        if message.kind is Kind.REQUEST and outcome.error is not None:
            if self._refusals is None:
                self._refusals = Bucket(60, 20)
            if self._refusals.take(self.now) == 0.0:
                self.blocked_requests.append(outcome.error.to_document(message.id, self.request))
        return self._move_on(frame)

    def _write(self, frame: sse.Frame, document: dict[str, Any] | None) -> bytes:
        """A frame for the client: byte for byte as it came, but for what must change.

        ``document`` takes the place of the data.  An event id is bound to the session (rule 5.6).  Fields that the
        standard does not know, and ids with a NUL, are ignored by clients and judged by nobody: they do not pass.
        """
        id = frame.id
        if self._kept.messages or self._kept.cursor is not None:
            id = self._kept.take_cursor(id)
            if id is None and frame.id is not None and not frame.data:
                return sse.comment() if frame.retry is None else b"retry: %d\n\n" % frame.retry
        if id is not None and self.bound is not None:
            id = self._own_event_id(self.bound, id) if id else id
            if id is not None:
                self._resumable = id != b""  # an empty one takes the cursor away
        lacks = id is not None and frame.id is None
        if (
            document is not None
            or frame.unknown
            or lacks
            or (id is None and (frame.id is not None or b"\0" in frame.raw))
        ):
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
        if frame.id is None and (self._kept.messages or self._kept.cursor is None):
            return b""
        return self._write(sse.Frame(sse.encode(b"", id=frame.id, retry=frame.retry), b"", None, frame.id), None)
