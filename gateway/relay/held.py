"""Messages of one stream that hooks hold back for now, in the order in which they came, and the stream's cursor.

**Event ids.**  A client that comes back gets what follows the last id that it has seen (rule 5.3), so no id may go out
while a message that came before it is still held: that one would be lost.  Nor may other messages wait for it.  So as
long as anything is held, ids are kept back, and whatever goes last takes the newest one along.  What a client then gets
twice, if its connection breaks in between, it would otherwise not have got at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..guard.chain import Held
from ..protocol.message import Message
from ..wire import sse

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "HeldMessage", "HeldMessages"]

# What of one stream is held at most; beyond that the oldest go.  Hooks hold for moments: this is for upstreams that
# want to be remembered.
MAX_MESSAGES = 64
MAX_BYTES = 256 * 1024


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message, the frame that it came in, without its id, and the hooks that it has still before it.

    ``rewritten`` whether it is to be written anew in any case
    ``is_due``    its time has come, and it has not been let go yet
    """

    message: Message
    frame: sse.Frame
    held: Held
    rewritten: bool
    is_due: bool = False


class HeldMessages:
    """What is held of one stream.

    ``messages`` what is held, in order
    ``cursor``   the newest event id that came while something was held, until it goes out
    """

    __slots__ = ("_size", "cursor", "messages")

    def __init__(self) -> None:
        self.cursor: bytes | None = None
        self.messages: list[HeldMessage] = []
        self._size = 0

    @property
    def until(self) -> float | None:
        """When the next one has to go, in monotonic seconds; None when nothing waits for a time."""
        return min((each.held.until for each in self.messages if not each.is_due), default=None)

    def add(self, message: Message, frame: sse.Frame, held: Held, rewritten: bool) -> None:
        """One more."""
        if frame.id is not None:
            self.cursor = frame.id
            data = frame.data or b""
            raw = sse.encode(data, event=frame.event, retry=frame.retry)
            frame = sse.Frame(raw, data, frame.event, None, frame.retry)
        self.messages.append(HeldMessage(message, frame, held, rewritten))
        self._size += len(frame.raw)

    def due(self, now: float) -> list[HeldMessage]:
        """Those whose time has come since the last call, in order."""
        found = []
        count, size = len(self.messages), self._size
        for each in self.messages:
            if count > MAX_MESSAGES or size > MAX_BYTES or each.held.until <= now:
                if not each.is_due:
                    each.is_due = True
                    found.append(each)
                count -= 1
                size -= len(each.frame.raw)
        return found

    def remove(self, message: HeldMessage) -> None:
        """One goes."""
        self.messages.remove(message)
        self._size -= len(message.frame.raw)

    def take_cursor(self, id: bytes | None) -> bytes | None:
        """The id that goes out with a frame, whose own is ``id``."""
        if self.messages:
            if id is not None:
                self.cursor = id
            return None
        if id is None:
            id = self.cursor
        self.cursor = None
        return id
