"""What the server has sent, kept for a while, so that a client that lost its stream can ask for the rest."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage

__all__ = ["RecentEvents"]


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    stream: str
    # None: the priming event, which carries nothing.
    message: JSONRPCMessage | None


class RecentEvents(EventStore):
    """The last ``limit`` events of all streams.  An event that has been forgotten cannot be resumed from."""

    def __init__(self, limit: int = 2000) -> None:
        self._events: deque[_Event] = deque(maxlen=limit)
        self._numbers = itertools.count(1)

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Remember one event; returns its id."""
        event = _Event(next(self._numbers), stream_id, message)
        self._events.append(event)
        return str(event.number)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what followed on the stream of that event; returns the stream, None if the event is not known."""
        known = {str(event.number): event for event in self._events}
        last = known.get(last_event_id)
        if last is None:
            return None
        for event in known.values():
            if event.stream == last.stream and event.number > last.number and event.message is not None:
                await send_callback(EventMessage(event.message, str(event.number)))
        return last.stream
