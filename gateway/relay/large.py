"""An answer that is too large to hold: read, judged and let out while it arrives.  Sans-IO.

What comes in goes three ways.  ``wire.incremental`` reads it, as strictly as ``strict.parse`` reads a whole message,
and says how far it is settled; so far the hooks (``guard.windows``) judge it; and members of the result that say what
kind of result it is are taken out, for the rules of the protocol look at them (``finish``).  What is not settled waits:
a member that is not whole, or the rest of a long string's escape.

The document's last bracket waits for the very end.  Whatever turns out to be wrong before that - the id of another
request, a result beside an error, broken JSON, a hook's no - leaves the client with a document that is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..guard.chain import Streamed
from ..guard.windows import LongText
from ..protocol.errors import UpstreamProtocolError
from ..protocol.message import Call, Message, Sender
from ..wire.envelope import Kind, classify
from ..wire.errors import LimitExceeded
from ..wire.incremental import Container, Member, Reader
from ..wire.names import fold
from ..wire.places import Mark
from ..wire.strict import Limits, Twins, dumps, parse
from .exchange import same_id

__all__ = ["WHOLE", "LargeAnswer", "scout"]

# Results that are lists, open a session or end a subscription: what is done with them needs all of them.
WHOLE = frozenset((
    "initialize", "server/discover", "subscriptions/listen", "tools/list", "prompts/list", "resources/list",
    "resources/templates/list", "tasks/list", "completion/complete",
))  # fmt: skip

# A string that is longer is judged as it streams; shorter ones, and all else that is not settled, wait.
LONG = 64 * 1024

# What may wait: a name and a string of that length, and what stands between them.
_MOST = 4 * LONG

# More values than this are not counted: none of them is held.
_NODES = 1 << 62

_RESULT = Container(("result",), None)
_MEMBERS = frozenset(("resulttype", "inputrequests", "requeststate", "task", "taskid"))


def _is_wanted(name: bytes) -> bool:
    """Whether a member of a result says what kind of result it is, in the spelling of any client."""
    return len(name) <= 64 and fold(name.decode()).replace("_", "").replace("-", "") in _MEMBERS


def scout(data: bytes, limits: Limits) -> Reader | None:
    """What is known of an answer by its beginning; None unless that shows a result.  Raises PeerError."""
    reader = Reader(limits, Twins.PROTOCOL, no_strings=True)
    reader.feed(data)
    is_result = reader.has_result and not reader.has_error and reader.method is Mark.UNKNOWN
    return reader if is_result else None


class LargeAnswer:
    """One answer to ``call``; ``head`` is what is known of it at first.

    ``too_large`` raises UpstreamTooLarge for a number of bytes that is more than allowed
    ``members``   how many names of open objects may be held (``limits.streamed_members``)
    ``rewrite``   what becomes of a member of the result that is taken out, by its name and value
    """

    def __init__(
        self,
        call: Call,
        streamed: Streamed,
        limits: Limits,
        *,
        too_large: Callable[[int], None],
        members: int,
        rewrite: Callable[[str, Any], Any],
    ) -> None:
        self.call = call
        self.streamed = streamed
        self._limits = limits
        self._too_large = too_large
        self._rewrite = rewrite
        self._reader = Reader(
            Limits(limits.depth, _NODES, limits.number_chars),
            Twins.PROTOCOL,
            window=LONG,
            no_strings=True,
            wanted=_is_wanted,
            most_names=members,
        )
        document: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id, "result": {}}
        self.head = Message(classify(document), document, Sender.SERVER, call)
        self._result: dict[str, Any] = {}
        self._rest = bytearray()  # what waits
        self._base = 0  # its offset
        self._container = Container((), None)  # open there
        self._in_name = True
        self._text: LongText | None = None  # the string that is open there, if it is a long one

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes: what may be let out now.  Raises PeerError, UpstreamError and Withheld."""
        reader = self._reader
        self._rest += chunk
        size = self._base + len(self._rest)
        self._too_large(size)
        out: list[bytes] = []
        for event in reader.feed(chunk):
            if type(event) is Member:
                self._pass(event.start, _RESULT, out)
                self._member(event, out)
        self._check_envelope()
        settled = reader.settled
        if reader.is_complete:
            settled = self._base + max(0, self._rest.rfind(b"}"))
        string = reader.open_string
        if string is not None and not reader.keeps and size - string.start > LONG:
            if self._text is None or string.start >= self._base:
                self._pass(string.start, reader.container, out)
                self._text = self.streamed.contents.text(reader.container, string)
                out.append(self._take(1))
            self._pass_text(out)
        else:
            self._pass(settled, reader.container, out)
        if len(self._rest) > _MOST:
            raise LimitExceeded(
                "too-large", "a member of the result is larger than it may be here", limit="limits.inline_message"
            )
        return b"".join(out)

    def finish(self) -> Message:
        """The answer has ended: its outline.  Raises PeerError, UpstreamProtocolError."""
        self._reader.finish()
        envelope = self._reader.envelope()
        if envelope.kind is not Kind.RESULT or not same_id(envelope.id, self.call.id):
            raise _not_for_this()
        document = {"jsonrpc": "2.0", "id": envelope.id, "result": self._result}
        return Message(envelope, document, Sender.SERVER, self.call)

    def last(self) -> bytes:
        """What waited for the end."""
        return self._take(len(self._rest))

    def _check_envelope(self) -> None:
        reader = self._reader
        if reader.has_error or reader.method is not Mark.UNKNOWN:
            raise UpstreamProtocolError("the upstream's answer is more than a result", reason="upstream-answer-kind")
        if reader.id is not Mark.UNKNOWN and not same_id(reader.id, self.call.id):
            raise _not_for_this()

    def _take(self, size: int) -> bytes:
        data = bytes(memoryview(self._rest)[:size])
        del self._rest[:size]
        self._base += size
        return data

    def _pass(self, offset: int, container: Container, out: list[bytes]) -> None:
        """Let out what is before an offset, where a container is open."""
        if self._text is not None:
            self._pass_text(out)
        if offset > self._base:
            raw = self._take(offset - self._base)
            out.append(self.streamed.contents.block(raw, self._container, in_name=self._in_name))
        self._container = container
        self._in_name = self._text is None

    def _pass_text(self, out: list[bytes]) -> None:
        """As much of the long string as is there."""
        text = self._text
        assert text is not None
        string = self._reader.open_string
        end = _string_end(self._rest) if string is None or string.start >= self._base else -1
        if end >= 0:
            out += (text.feed(self._take(end), True), self._take(1))
            self._text = None
            self._in_name = False
        else:
            out.append(text.feed(self._take(self._reader.position - self._base), False))

    def _member(self, member: Member, out: list[bytes]) -> None:
        raw = self._take(member.end - member.start)
        value = parse(b"{%b}" % raw, self._limits, twins=Twins.PROTOCOL)[member.name]
        changed = self._rewrite(member.name, value)
        self._result[member.name] = value
        if changed is not value:
            raw = dumps(member.name) + b":" + dumps(changed)
        out.append(self.streamed.contents.block(raw, _RESULT, in_name=True))


def _string_end(rest: bytearray) -> int:
    """Where the quote is that ends the string which the bytes begin in, or -1."""
    end = rest.find(b'"')
    if rest.find(b"\\", 0, len(rest) if end < 0 else end) < 0:
        return end
    # A run of backslashes begins where an escape begins, so that they can be taken in pairs.
    return rest.replace(b"\\\\", b"  ").replace(b'\\"', b"  ").find(b'"')


def _not_for_this() -> UpstreamProtocolError:
    return UpstreamProtocolError("the upstream's answer is not for this request", reason="upstream-answer-id")
