"""A client of the HTTP+SSE transport of revision 2024-11-05: one raw connection for its stream, one for messages."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import orjson

from .client import RawClient, notification, request
from .response import Response

__all__ = ["SseClient"]


class SseClient:
    """``async with SseClient(url, token=...) as client``: the stream at ``url`` is open, and its endpoint known.

    ``stream``    the stream's connection, ``response`` its answer;  ``endpoint`` the address of messages
    ``sender``    the connection of messages
    ``messages``  all that came on the stream, in order
    Options are those of RawClient.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.stream = RawClient(url, **options)
        self.messages: list[dict[str, Any]] = []
        self.response: Response
        self.endpoint: str
        self.sender: RawClient
        self._options = options
        self._read = 0
        self._last_id = 0

    async def __aenter__(self) -> Self:
        self.response = await self.stream.get()
        if self.response.status != 200:
            raise AssertionError(f"the stream was answered {self.response.status} {await self.response.read()!r}")
        arrived = await self.response.frame()
        if arrived is None or arrived[1].event != b"endpoint" or arrived[1].data is None:
            raise AssertionError(f"the first event is {arrived!r}")
        self.endpoint = urljoin(self.stream.url, arrived[1].data.decode())
        self.sender = RawClient(self.endpoint, **self._options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes both connections."""
        await self.stream.close()
        if hasattr(self, "sender"):
            await self.sender.close()

    async def post(self, message: Any, **build: Any) -> Response:
        """Sends a message (options of RawClient.build), gives the POST's own response, read."""
        response = await self.sender.post(message, **build)
        await response.read()
        return response

    async def message(self, within: float | None = None) -> dict[str, Any] | None:
        """The next message of the stream, None at its end.  AssertionError for an event that is none."""
        while (arrived := await self.response.frame(within)) is not None:
            frame = arrived[1]
            if frame.data is None:
                continue
            if frame.event != b"message":
                raise AssertionError(f"not a message: {frame!r}")
            self.messages.append(orjson.loads(frame.data))
            return self.messages[-1]
        return None

    async def ask(self, method: str, params: dict[str, Any] | None = None, *, id: str | int | None = None) -> str | int:
        """Sends a request and reads its 202; gives its id, the next one unless told.  AssertionError without the
        202."""
        self._last_id += 1
        id = self._last_id if id is None else id
        response = await self.post(request(method, params, id=id))
        if response.status != 202:
            raise AssertionError(f"{method} was answered {response.status} {response.body_raw!r}")
        return id

    async def answer(self, id: str | int, within: float | None = None) -> dict[str, Any]:
        """Reads the stream until the answer to a request is there.  LookupError when the stream ends without."""
        for document in self.messages:
            if document.get("id") == id and "method" not in document:
                return document
        while (arrived := await self.message(within)) is not None:
            if arrived.get("id") == id and "method" not in arrived:
                return arrived
        raise LookupError(f"the stream ended without an answer to {id!r}")

    async def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request with the next id, and its answer."""
        return await self.answer(await self.ask(method, params))

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> Response:
        """Sends a notification, gives the POST's response."""
        return await self.post(notification(method, params))

    async def initialize(
        self, *, revision: str = "2024-11-05", capabilities: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """initialize, then notifications/initialized; gives the InitializeResult.  AssertionError when refused."""
        about = {"capabilities": capabilities or {}, "clientInfo": {"name": "sse-client", "version": "1"}}
        document = await self.call("initialize", {"protocolVersion": revision} | about)
        if "result" not in document:
            raise AssertionError(f"initialize was answered {document!r}")
        accepted = await self.notify("notifications/initialized")
        if accepted.status != 202:
            raise AssertionError(f"notifications/initialized was answered {accepted.status}")
        return dict(document["result"])

    async def ended(self, within: float | None = None) -> None:
        """Until the stream has ended, however it did."""
        with contextlib.suppress(ConnectionError):
            while await self.message(within) is not None:
                pass
