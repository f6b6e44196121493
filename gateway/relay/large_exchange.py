"""An exchange whose answer may be too large to hold, and goes out while it arrives.  Sans-IO.

``large`` reads and judges such an answer; here is what the exchange has to say to it, and what it does at its end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..guard.chain import Outcome
from ..guard.windows import Withheld
from ..protocol.errors import GatewayError, UpstreamProtocolError, from_upstream
from ..protocol.message import Call, Message, Sender
from ..wire.envelope import Kind, classify, is_request_id
from ..wire.errors import PeerError
from .incoming import Incoming
from .large import WHOLE, LargeAnswer, scout

__all__ = ["LargeExchange"]


class LargeExchange(Incoming):
    """Begins, goes on with and ends an answer in parts; ``Post`` and ``AnsweredExchange`` know where it stands.

    ``streams_large`` whether the client's transport takes an answer in parts
    ``is_streaming``  a JSON answer goes on as a stream, with the header fields ``stream_fields``
    ``is_mid_event``  an event or document is out in part: no comment may be written, and a failure can only be told by
                      cutting the connection
    ``must_abort``    the connection is to be cut
    """

    streams_large = True
    is_streaming = False
    stream_fields: dict[str, str]  # once it is streaming
    is_mid_event = False
    must_abort = False
    _large: LargeAnswer | None = None

    def _large_answer(self, beginning: bytes) -> LargeAnswer | None:
        """An answer that is let out while it arrives, by its first bytes; None for what has to be held.  Raises
        PeerError."""
        most = self.site.max_result_sizes[self.upstream]
        if not self.streams_large or self.is_listening:
            return None
        if most is not None and most <= self.site.max_message_size:
            return None  # it can be held, so that an error can say what was wrong
        found = scout(beginning, self.site.json_limits)
        if found is None:
            return None
        call = self._large_call(found.id)
        if call is None or call.method in WHOLE:
            return None
        document: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id, "result": {}}
        message = Message(classify(document), document, Sender.SERVER, call)
        streamed = self.site.chains[self.upstream].windows(message, self.context)
        if streamed is None:
            return None
        return LargeAnswer(
            call,
            streamed,
            self.site.json_limits,
            too_large=partial(self._check_size, most),
            members=self.site.config.limits.streamed_members,
            rewrite=partial(self._rewritten, call),
        )

    def _large_call(self, id: object) -> Call | None:
        """The request that a large answer belongs to, whose id may not have come yet."""
        return self._call_of(id, Kind.RESULT) if is_request_id(id) else None  # type: ignore[arg-type]

    def _rewritten(self, call: Call, name: str, value: Any) -> Any:
        """A member of a result as the client gets it."""
        if name == "resultType" and value == "task" and call.method.startswith("tasks/"):
            return "complete"  # as ``check_result`` corrects it
        document: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id, "result": {name: value}}
        sealed = self._sealed(Message(classify(document), document, Sender.SERVER, call))
        return sealed["result"][name]

    def _large_part(self, large: LargeAnswer, chunk: bytes) -> bytes:
        """The next bytes of an answer; raises GatewayError."""
        try:
            return large.feed(chunk)
        except PeerError as error:
            raise from_upstream(error) from error
        except Withheld as withheld:
            refusal = withheld.verdict.error
            self._note_blocked(large.head, Outcome(None, decision="block", error=refusal, reason=refusal.reason))
            raise refusal from withheld
        finally:
            self._keep_findings()

    def _large_end(self, large: LargeAnswer) -> bytes:
        """The last bytes of an answer that is all there; raises GatewayError."""
        try:
            outline = large.finish()
        except PeerError as error:
            raise from_upstream(error) from error
        checked = self._by_the_rules(outline)
        kind = outline.result.get("resultType")
        corrected = {**outline.result, "resultType": "complete"} if kind == "task" else None
        if checked is not outline and checked.result != corrected:
            raise UpstreamProtocolError("the upstream's result is not one of this revision", reason="upstream-result")
        outcome = large.streamed.judge(outline, self.context)
        self._keep_findings()
        if outcome.message is None or outcome.changed:
            self._note_blocked(outline, outcome)
            raise outcome.error or UpstreamProtocolError("the answer was withheld", reason="upstream-result")
        self._learn_task(checked.document)
        data = large.last()
        self._answer_out(outline)
        return data

    def _cut(self, error: GatewayError) -> bytes:
        """What the client has got in part can only be told to be wrong by cutting its connection."""
        self.done = True
        self.must_abort = True
        self.error = error
        self.outcome = error.reason
        return b""
