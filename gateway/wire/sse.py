"""Server-sent events as bytes: the WHATWG event stream format (rule 4.12), decoded push by push, and encoded.

A decoder for a relay has two duties that a browser's does not have.  It keeps the exact bytes of every frame, so that
a frame which nobody changed leaves as it came.  And it never waits: a blank line ends its frame at once, even when it
is a lone CR at the very end of a chunk, where nobody can know yet whether an LF will follow.  If the LF does follow, it
is swallowed, as the standard asks, and becomes the first byte of the next frame's ``raw``.  So every byte is in exactly
one ``raw``, in order; only to which of two neighbours that one LF belongs may depend on how the network cut the stream.
All other fields of a frame never depend on it.

Lines end in CR, LF or CRLF and in nothing else.  ``bytes.splitlines`` knows exactly these three; ``str.splitlines``
would also split on U+2028 and U+0085, which JSON strings may hold, and must never be used here.

Time is linear in the bytes fed, however they are cut: an unfinished frame is a bytearray that grows in place, and no
byte is searched twice for a blank line.  Memory is bounded by ``max_event`` and one chunk, however small the chunks are
(a list of them would cost forty bytes for each).

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re

from .errors import LimitExceeded, PeerError

__all__ = ["Decoder", "Frame", "comment", "encode", "with_id"]

_BOM = b"\xef\xbb\xbf"
_CR, _LF = 0x0D, 0x0A
_LINE_ENDS = (_CR, _LF)
# A line end followed by a blank line.  The look-ahead keeps the halves of one CRLF from counting as two line ends.
_find_blank_line = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)").search
_split_lines = re.compile(rb"\r\n|\n|\r").split
# Longer waits than 31,000 years are noise, and int() must not be handed a million digits.
_MAX_RETRY_DIGITS = 15


# An id field with its value, behind the line end before it.
_ID_FIELD = re.compile(rb"(\A|\r\n|[\r\n])id(?::[^\r\n]*)?(?=[\r\n])")


class Frame:
    """What stands between two blank lines.  Treat it as frozen.

    ``raw``       the exact bytes: fields, comments, unknown fields, and the blank line that ends them
    ``data``      the ``data`` fields joined by LF; None when there is none (only then no event is dispatched: comments,
                  ``id`` or ``retry`` alone, or a stray blank line); ``b""`` when there is one and it is empty
    ``event``     the last ``event`` field, None when there is none
    ``id``        the last ``id`` field without a NUL, None when there is none
    ``retry``     milliseconds, None when there is no ``retry`` of 1 to 15 digits
    ``comments``  the comment lines, without the colon and one space
    ``unknown``   whether there were fields that the standard does not know (names are case-sensitive)
    """

    __slots__ = ("comments", "data", "event", "id", "raw", "retry", "unknown")

    def __init__(
        self,
        raw: bytes,
        data: bytes | None = None,
        event: bytes | None = None,
        id: bytes | None = None,
        retry: int | None = None,
        comments: tuple[bytes, ...] = (),
        unknown: bool = False,
    ) -> None:
        self.raw = raw
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comments = comments
        self.unknown = unknown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._all() == other._all()

    def __repr__(self) -> str:
        return f"Frame{self._all()}"

    def _all(self) -> tuple[object, ...]:
        return self.raw, self.data, self.event, self.id, self.retry, self.comments, self.unknown


class Decoder:
    """Takes the bytes of one stream in any cutting and gives its frames, each as soon as its blank line is there.

    ``max_line`` and ``max_event`` are in bytes: of a line without its end, and of a frame without its blank line.
    A stream that exceeds one is broken for good: ``error`` is set at once, and raised by ``feed`` (immediately when it
    has no frames to return first, else by the next call) and by ``close``.

    An event whose data is one long line can be had while it arrives: ``open_event`` says whether there is one, and from
    ``begin_parts`` on each ``feed`` leaves its bytes in ``part``, until ``ended`` is what followed the data.
    """

    __slots__ = (
        "_at_start",
        "_bom",
        "_in_parts",
        "_line",
        "_max_event",
        "_max_line",
        "_pending",
        "_size",
        "_skip",
        "_swallow",
        "_trails",
        "ended",
        "error",
        "part",
    )

    def __init__(self, max_line: int, max_event: int) -> None:
        self.error: PeerError | None = None
        self._max_line = max_line
        self._max_event = max_event
        self._pending = bytearray()  # of the frame that is not complete yet; grows in place
        self._size = 0  # bytes of _pending that count
        self._line = 0  # bytes of the line that is not complete yet
        self._skip = 0  # 1 when _pending begins with an LF that belongs to the previous frame's last line end
        self._swallow = False  # the last byte was a CR: an LF now would be the other half of that line end
        self._at_start = True  # the next byte begins a line
        self._in_parts = False  # the data of an event is handed out as it comes
        self.part = b""
        self.ended: Frame | None = None
        self._trails = False  # the next frame is what follows such data
        self._bom: bytes | None = b""  # what may turn out to be a byte order mark; None once that is decided

    @property
    def partial(self) -> bool:
        """True while the beginning of a frame has arrived that no blank line has ended."""
        return self._size > 0 or bool(self._bom)

    @property
    def rest(self) -> bytes:
        """The bytes that no frame holds yet: all ``raw`` and this are the stream, but for the byte order mark."""
        return bytes(self._pending) + (self._bom or b"")

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, in order.  Raises LimitExceeded (see the class)."""
        if self.error is not None:
            raise self.error
        self.part, self.ended = b"", None
        if self._bom is not None:
            data = self._strip_bom(data)
        if not data:
            return []
        frames: list[Frame] = []
        try:
            if self._in_parts:
                data = self._feed_part(data)
            if data:
                self._feed(data, frames)
            if frames and self._trails:
                self.ended = frames.pop(0)
                self._trails = False
        except PeerError as error:
            self.error = error
            if not frames:
                raise
        return frames

    def close(self) -> None:
        """The stream has ended: a frame without its blank line is discarded, as the standard asks.  ``partial`` still
        tells whether there was one.  Raises LimitExceeded if ``feed`` could not raise it yet."""
        if self.error is not None:
            raise self.error
        self._pending = bytearray()

    @property
    def waiting(self) -> int:
        """How many bytes of an event have come that is not complete."""
        return len(self._pending)

    def open_event(self) -> tuple[Frame, bytes] | None:
        """The fields of the event that is not complete, and its data so far, if that is a line that is not complete and
        the first one."""
        pending = self._pending
        start = max(pending.rfind(b"\n"), pending.rfind(b"\r")) + 1
        if self._in_parts or self._at_start or not pending.startswith(b"data:", start):
            return None
        head = _frame(bytes(pending[:start]) + b"\n", self._skip)
        if head.data is not None:
            return None
        start += 6 if pending.startswith(b" ", start + 5) else 5
        return head, bytes(pending[start:])

    def begin_parts(self) -> None:
        """Hand out the rest of what ``open_event`` said as it comes."""
        self._in_parts = True
        self._pending = bytearray()
        self._size = self._line = self._skip = 0

    def _feed_part(self, data: bytes) -> bytes:
        """Bytes of an event's data; what follows it, if that has begun."""
        end = min((at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0), default=-1)
        if end < 0:
            self.part = data
            return b""
        self.part = data[:end]
        self._in_parts = False
        self._trails = True
        self._at_start = True
        self._swallow = False
        # The fields that follow are those of an event whose data is a comment.
        return b":" + data[end:]

    def _strip_bom(self, data: bytes) -> bytes:
        start = (self._bom or b"") + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._bom = start
            return b""
        self._bom = None
        return start.removeprefix(_BOM)

    def _feed(self, data: bytes, frames: list[Frame]) -> None:
        position = search = 0  # where the frame begins, and where its first line that is looked at does
        length = len(data)
        if self._swallow and data[0] == _LF:
            search = 1
            if not self._pending:
                self._skip = 1
        has_cr = b"\r" in data
        at_start = self._at_start
        while search < length:
            if at_start and data[search] in _LINE_ENDS:
                end = search + 2 if data[search : search + 2] == b"\r\n" else search + 1
            elif not has_cr:
                end = data.find(b"\n\n", search) + 2
                if end == 1:
                    break
            else:
                match = _find_blank_line(data, search)
                if match is None:
                    break
                end = match.end()
            raw = data[position:end]
            if len(raw) + self._size > self._max_event or len(raw) + self._line > self._max_line:
                self._measure(raw, search - position, complete=True)
            if self._pending:
                self._pending += raw
                raw = bytes(self._pending)
                self._pending = bytearray()
            frames.append(_frame(raw, self._skip))
            self._size = self._line = self._skip = 0
            at_start = True
            position = search = end
        if search < length:
            at_start = data[-1] in _LINE_ENDS
        self._at_start = at_start
        self._swallow = data[-1] == _CR
        if position < length:
            rest = data[position:] if position else data
            self._measure(rest, search - position, complete=False)
            self._pending += rest

    def _measure(self, piece: bytes, front: int, *, complete: bool) -> None:
        """Count a piece of a frame against both limits.  ``front`` is 1 when it begins with the LF of a line end whose
        CR came with an earlier chunk.  Neither that LF nor the blank line counts where it could end up in either of
        two frames: a verdict must not depend on the cutting."""
        size = self._size + len(piece) - (front if self._size == 0 else 0)
        if complete:
            size -= 2 if piece.endswith(b"\r\n") else 1
        if size > self._max_event:
            raise _too_large("an event")
        self._size = size
        ended = max(piece.rfind(b"\n"), piece.rfind(b"\r"))
        if self._line + len(piece) <= self._max_line:
            self._line = self._line + len(piece) - front if ended < front else len(piece) - ended - 1
            return
        lines = _split_lines(piece[front:])
        if self._line + len(lines[0]) > self._max_line or max(map(len, lines)) > self._max_line:
            raise _too_large("a line")
        self._line = self._line + len(lines[0]) if len(lines) == 1 else len(lines[-1])


def _too_large(what: str) -> LimitExceeded:
    return LimitExceeded(
        "too-large", f"{what} of the event stream is larger than allowed", limit="limits.max_message_size"
    )


def _frame(raw: bytes, skip: int) -> Frame:
    # What MCP servers send nearly always, in the two usual line ends, without looking at more than the ends.
    if raw.startswith(b"event: message\ndata: ") and raw.find(b"\n", 21) == len(raw) - 2 and b"\r" not in raw:
        return Frame(raw, raw[21:-2], b"message")
    if (
        raw.startswith(b"event: message\r\ndata: ")
        and raw.endswith(b"\r\n\r\n")
        and raw.find(b"\n", 22) == len(raw) - 3
        and raw.find(b"\r", 22) == len(raw) - 4
    ):
        return Frame(raw, raw[22:-4], b"message")
    frame = Frame(raw)
    data: list[bytes] = []
    comments: list[bytes] = []
    for line in (raw[skip:] if skip else raw).splitlines():
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            frame.event = value
        elif name == b"id":
            if b"\0" not in value:
                frame.id = value
        elif name == b"retry":
            if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                frame.retry = int(value)
        elif name:
            frame.unknown = True
        elif line:
            comments.append(value)
    if data:
        frame.data = b"\n".join(data)
    if comments:
        frame.comments = tuple(comments)
    return frame


def encode(data: bytes, *, event: bytes | None = None, id: bytes | None = None, retry: int | None = None) -> bytes:
    """One frame, LF only.  Every line end within ``data`` starts another ``data`` field, so that decoding gives LF for
    it; ``event`` and ``id`` must fit in one line (ValueError).  ``retry`` is in milliseconds."""
    lines = []
    if event is not None:
        lines.append(b"event: " + _one_line(event))
    if id is not None:
        if b"\0" in id:
            raise ValueError("an event id with NUL would be ignored")
        lines.append(b"id: " + _one_line(id))
    if retry is not None:
        lines.append(b"retry: %d" % retry)
    if b"\n" in data or b"\r" in data:
        lines.extend(b"data: " + line for line in _split_lines(data))
    else:
        lines.append(b"data: " + data)
    lines.append(b"\n")
    return b"\n".join(lines)


def comment(text: bytes = b"") -> bytes:
    """A comment with a blank line behind it: a keep-alive that every client ignores.  One line (ValueError)."""
    return b": " + _one_line(text) + b"\n\n" if text else b":\n\n"


def _one_line(text: bytes) -> bytes:
    if b"\n" in text or b"\r" in text:
        raise ValueError("a line end inside of a field would let its text forge other fields")
    return text


def with_id(frame: Frame, id: bytes) -> bytes:
    """The frame's exact bytes, but for the value of its ``id`` field."""
    return _ID_FIELD.sub(lambda match: match[1] + b"id: " + id, frame.raw)
