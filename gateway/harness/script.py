"""What a scripted peer does: steps, and builders that make the usual answers of them.

A script says everything.  No byte leaves that is not a step: no last chunk, no close, no status line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.client import responses
from typing import Any

import orjson

from ..wire import sse
from .http1 import Headers, HeaderSource, header, header_values, pairs

__all__ = [
    "Answer", "Chunk", "Close", "Comment", "End", "Event", "Hang", "Head", "Json", "Received", "Repeat", "Reset",
    "Script", "Send", "Signal", "SplitAt", "Step", "Wait", "WaitFor", "answer_with", "error_answer", "json_answer",
    "sse_answer", "status_answer",
]  # fmt: skip


@dataclass(frozen=True)
class Received:
    """A request as it came.

    ``headers``    pairs in the order sent, names as written
    ``connection`` number of the connection, from 0
    ``time``       when the head was complete, seconds of ``time.monotonic()``
    ``complete``   False when the body was cut short; ``body`` is what came of it
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    connection: int
    time: float
    complete: bool = True
    raw_head: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The first value of a field, or None."""
        return header(self.headers, name)

    def header_values(self, name: str) -> list[str]:
        """All values of a field."""
        return header_values(self.headers, name)

    @cached_property
    def message(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def id(self) -> Any:
        """The JSON-RPC id, None where there is none."""
        return self.message.get("id") if isinstance(self.message, dict) else None

    @property
    def rpc_method(self) -> str | None:
        """The JSON-RPC method; None for responses, batches and what is not JSON."""
        return self.message.get("method") if isinstance(self.message, dict) else None

    @property
    def params(self) -> dict[str, Any]:
        """The JSON-RPC params, an empty dict where there are none."""
        return (self.message.get("params") or {}) if isinstance(self.message, dict) else {}


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes, exactly."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """A status line and header fields; ``chunked`` adds Transfer-Encoding and makes Event and Comment chunks."""

    status: int = 200
    headers: HeaderSource = ()
    chunked: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """One HTTP chunk."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event, in a chunk of its own when the head was chunked.  ``data`` is bytes, or a document for JSON."""

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None


@dataclass(frozen=True, slots=True)
class Comment:
    """One SSE comment line and a blank line."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Json:
    """A whole answer: head with Content-Length, and the document (bytes are sent as they are)."""

    document: Any
    status: int = 200
    headers: HeaderSource = ()


@dataclass(frozen=True, slots=True)
class End:
    """The last chunk."""


@dataclass(frozen=True, slots=True)
class Close:
    """FIN.  ``half`` keeps the other direction open, so that the script goes on and more requests may come."""

    half: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RST.  What the peer's kernel has received before it can still be read there; what it has not is lost."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing, until the peer goes."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds of wall-clock time.  Prefer WaitFor."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Until somebody signals this name: the test, or another script."""

    name: str


@dataclass(frozen=True, slots=True)
class Signal:
    """Tells whoever waits for this name.  A name stays signalled until it is cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class SplitAt:
    """From here on, each step's bytes leave in pieces: first of these ``sizes``, then ``every`` bytes, with a drain and
    ``pause`` seconds between them.  ``SplitAt()`` ends it.  One byte a second is ``SplitAt(every=1, pause=1)``."""

    sizes: tuple[int, ...] = ()
    every: int | None = None
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Repeat:
    """A Send, Chunk, Event or Comment many times over, as fast as the peer reads."""

    step: Send | Chunk | Event | Comment
    times: int


Step = (
    Send | Head | Chunk | Event | Comment | Json | End | Close | Reset | Hang | Wait | WaitFor
    | Signal | SplitAt | Repeat
)  # fmt: skip
Steps = Iterable[Step] | AsyncIterator[Step]
Answer = Callable[[Received], Steps]
# By JSON-RPC method, "GET" and "DELETE" for those, "response" for a posted JSON-RPC response, "*" for the rest.
Script = Answer | Mapping[str, Answer | Iterable[Step]]


def head_bytes(head: Head) -> bytes:
    """The bytes of a Head step."""
    phrase = responses.get(head.status, "Unknown")
    fields = [f"HTTP/1.1 {head.status} {phrase}"]
    fields += [f"{name}: {value}" for name, value in pairs(head.headers)]
    if head.chunked:
        fields.append("Transfer-Encoding: chunked")
    return "\r\n".join((*fields, "", "")).encode("latin-1")


def answer_bytes(answer: Json) -> bytes:
    """The bytes of a Json step.  Its own Content-Type and Content-Length, right or wrong, take the default's place."""
    body = json_bytes(answer.document)
    given = pairs(answer.headers)
    usual = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    missing = tuple(pair for pair in usual if header(given, pair[0]) is None)
    return head_bytes(Head(answer.status, missing + given, chunked=False)) + body


def event_bytes(event: Event) -> bytes:
    """The bytes of an Event step, without a chunk around them."""
    name = None if event.event is None else event.event.encode()
    id_ = None if event.id is None else event.id.encode()
    return sse.encode(json_bytes(event.data), event=name, id=id_, retry=event.retry)


def json_bytes(document: Any) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return document if isinstance(document, bytes) else orjson.dumps(document)


def chunk_bytes(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer_with(*steps: Step) -> Answer:
    """These steps, whatever was asked."""
    return lambda _received: steps


def json_answer(result: Any, *, status: int = 200, headers: HeaderSource = ()) -> Answer:
    """A JSON-RPC result with the id of the request, as application/json."""
    return lambda received: [Json({"jsonrpc": "2.0", "id": received.id, "result": result}, status, headers)]


def error_answer(code: int, message: str, *, data: Any = None, status: int = 200, headers: HeaderSource = ()) -> Answer:
    """A JSON-RPC error with the id of the request, where it has one (rule 2.15), as application/json."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})

    def answer(received: Received) -> Steps:
        id = {} if received.id is None else {"id": received.id}
        return [Json({"jsonrpc": "2.0"} | id | {"error": error}, status, headers)]

    return answer


def status_answer(status: int, *, headers: HeaderSource = (), body: bytes = b"") -> Answer:
    """A bare HTTP answer with a Content-Length (none for 1xx, 204 and 304, which have no body)."""
    length = () if status < 200 or status in (204, 304) else (("Content-Length", str(len(body))),)
    return lambda _received: [Head(status, (*pairs(headers), *length), chunked=False), Send(body)]


def sse_answer(*messages: dict[str, Any] | Step, headers: HeaderSource = (), end: bool = True) -> Answer:
    """An event stream: a document becomes an Event, a step stays as it is, at last End (unless ``end`` is False).

    A document gets ``jsonrpc``, and the request's ``id`` when it is a result or an error without one.
    """

    def answer(received: Received) -> Iterable[Step]:
        yield Head(200, (("Content-Type", "text/event-stream"), *pairs(headers)))
        for message in messages:
            if not isinstance(message, dict):
                yield message
                continue
            answers = ("result" in message or "error" in message) and "id" not in message
            yield Event({"jsonrpc": "2.0"} | ({"id": received.id} if answers else {}) | message)
        if end:
            yield End()

    return answer
