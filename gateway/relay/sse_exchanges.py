"""The exchanges of an HTTP+SSE client: those of streamable HTTP, but for where an answer goes and who waits for it."""

from __future__ import annotations

from typing import Any

from ..protocol.errors import GatewayError, UpstreamProtocolError
from ..protocol.message import Message
from ..wire.envelope import RequestId
from .exchange import Exchange
from .gate import Head
from .get import Get
from .post import Post
from .site import Site

__all__ = ["Listening", "Opening", "Posting"]


class Opening(Exchange):
    """The GET that opens a session: it holds the client's place for a stream, and is in the record."""

    def open(self) -> None:
        """Judge the request; raises GatewayError."""
        self._method = "http/get"
        self._check_upstream()
        self._enter("stream")
        self._accept()
        self._status = 200


class Posting(Post):
    """A POST of a message, whose answer may still be under way when the POST is over.

    Whoever holds it closes it; it is closed when the last one has.
    """

    streams_large = False
    holders = 1

    @property
    def names_id(self) -> bool:
        """Whether an error can name the request that it answers."""
        return self._early_id() is not None

    @property
    def initializes(self) -> bool:
        """Whether it says that the client is ready (rule 3.5)."""
        return self._method == "notifications/initialized"

    def accept(self) -> None:
        """The POST is answered with 202, whatever becomes of the message."""
        self._status = 202

    def unanswered(self) -> bytes:
        """The upstream's stream has ended for good: the error that the client gets instead of the answer."""
        return self._broken(
            UpstreamProtocolError("the upstream's stream ended before the answer", reason="upstream-no-answer")
        )

    def close(self, now: float, outcome: str | None = None) -> None:
        """As for every exchange, once nobody holds it any more."""
        self.holders -= 1
        if not self.holders:
            super().close(now, outcome)


class Listening(Get):
    """A GET of a stream of the upstream's, merged into the client's, which holds the client's place already.

    ``answered`` are the ids of requests whose answers came on it, because it was a resumed one.
    """

    streams_large = False

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        self.answered: list[RequestId] = []

    def _enter(self, kind: Any) -> None:
        pass

    def _answer_out(self, message: Message, error: GatewayError | None = None) -> None:
        super()._answer_out(message, error)
        if message.call is not None:
            self.answered.append(message.call.id)
