"""A client on one raw connection: it sends exactly the bytes it is given, and shows exactly what came back.

Above that it can build correct MCP requests of both eras, so that a test changes only the one thing that it is about.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from .connection import Connection, cut
from .http1 import HeaderSource, pairs
from .response import Response, read_response

__all__ = ["LEGACY", "MODERN", "RawClient", "Unasked", "header_text", "http_request", "notification", "request"]

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
# What a method is about, for Mcp-Name (rules 6.6 and 6.7).
NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


class Unasked(Exception):
    """Bytes that arrived although every response had been read; ``data`` holds them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"{len(data)} bytes that no request asked for: {data[:200]!r}")
        self.data = data


def request(method: str, params: dict[str, Any] | None = None, *, id: str | int = 1) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": id, "method": method} | ({} if params is None else {"params": params})


def notification(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params})


def header_text(value: str) -> str:
    """A value as a mirrored header carries it: as it is when it is plain ASCII, else ``=?base64?...?=`` (rule 6.8)."""
    if re.fullmatch(r"(?!\s)[\x20-\x7e]*(?<!\s)", value) and not re.fullmatch(r"=\?base64\?.*\?=", value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def http_request(method: str, target: str, headers: HeaderSource = (), body: bytes | None = None) -> bytes:
    """The bytes of a request.  Content-Length is added when there is a body, unless the headers frame it already."""
    fields = list(pairs(headers))
    framed = {name.lower() for name, _ in fields} & {"content-length", "transfer-encoding"}
    if body is not None and not framed:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


class RawClient:
    """``async with RawClient(url) as client``: one connection, made by the block or by the first bytes.

    ``token``     sent as a bearer token when given
    ``session``   Mcp-Session-Id, remembered by :meth:`initialize`;  ``revision`` the negotiated one, likewise
    ``timeout``   seconds that each await takes at most, unless a call says otherwise
    ``read_ahead`` unread bytes above which the socket is left unread: a slow client is one that does not call read

    Every ``post``, ``get`` and ``delete`` first looks for bytes that nobody asked for, and raises :class:`Unasked`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        session: str | None = None,
        revision: str | None = None,
        timeout: float = 5.0,
        read_ahead: int = 64 * 1024,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http":
            raise ValueError(f"{url} is not an http URL; this client speaks no TLS")
        self.url = url
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.authority = parts.netloc
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.token = token
        self.session = session
        self.revision = revision
        self.timeout = timeout
        self.connection = Connection(read_ahead=read_ahead)
        self._read_ahead = read_ahead
        self._connected = False
        self._method = "GET"
        self._response: Response | None = None
        self._last_id = 0

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def sibling(self) -> RawClient:
        """Another connection of the same caller: same address, token, session and revision."""
        return RawClient(
            self.url,
            token=self.token,
            session=self.session,
            revision=self.revision,
            timeout=self.timeout,
            read_ahead=self._read_ahead,
        )

    # -- the connection -----------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Opens the connection unless it is open.  Raises OSError."""
        if not self._connected:
            async with asyncio.timeout(self.timeout):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self.connection, self.host, self.port)
            self._connected = True

    async def close(self) -> None:
        """Closes the connection: FIN, or RST where the kernel still holds unread bytes.  Safe to call again."""
        await self.connection.close()

    async def reset(self) -> None:
        """RST."""
        await self.connection.reset()

    def half_close(self) -> None:
        """FIN in one direction: no more requests, responses still come."""
        self.connection.send_fin()

    async def closed(self, within: float | None = None) -> str:
        """How the peer left, "fin" or "reset"; waits for it.  Unread bytes stay readable."""
        async with asyncio.timeout(self.timeout if within is None else within):
            await self.connection.gone.wait()
        return self.connection.how or "self"

    async def unasked(self, wait: float = 0.0) -> bytes:
        """Bytes beyond the response; waits up to ``wait`` seconds for the first.  They stay unread."""
        await self._finish_response()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self.connection.wait_readable()
        return self.connection.unread

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def send(
        self, data: bytes, *, sizes: Iterable[int] = (), every: int | None = None, pause: float = 0.0
    ) -> None:
        """Exactly these bytes; in pieces of ``sizes``, then of ``every`` bytes, ``pause`` seconds apart, if asked.

        ``within`` bounds each piece.  Raises ConnectionResetError when the peer is gone.
        """
        await self.connect()
        whole = not sizes and every is None
        for piece in (data,) if whole else cut(data, sizes, every):
            async with asyncio.timeout(self.timeout + pause):
                await (self.connection.write(piece) if whole else self.connection.write_pieces((piece,), pause))

    async def response(self, within: float | None = None, *, method: str | None = None) -> Response:
        """The next response, as soon as its head is there.  An event stream before it must have been read, any other
        body is read now.

        ``method`` of the request that it answers, where :meth:`post` and its like did not send it.
        Raises ConnectionClosed, ConnectionResetError, BadHttp, TimeoutError.
        """
        await self._finish_response()
        self._response = await read_response(
            self.connection, method=method or self._method, within=self.timeout if within is None else within
        )
        return self._response

    async def exchange(self, data: bytes, *, within: float | None = None) -> Response:
        """Sends bytes, gives the response."""
        self._method = data.split(b" ", 1)[0].decode("latin-1")
        await self.send(data)
        return await self.response(within)

    # -- MCP ----------------------------------------------------------------------------------------------------------

    def next_id(self) -> int:
        """1, 2, 3, ..."""
        self._last_id += 1
        return self._last_id

    def build(
        self,
        message: Any = None,
        *,
        method: str = "POST",
        modern: bool = False,
        headers: Mapping[str, str | None] | None = None,
        extra: HeaderSource = (),
        capabilities: dict[str, Any] | None = None,
        meta: bool = True,
        token: str | None = None,
        session: str | None = None,
        revision: str | None = None,
    ) -> bytes:
        """The bytes of a correct MCP request; a test then names what is to be wrong.

        ``message``  a document; for a modern request a copy of it gets the required ``_meta`` members, unless it has
                     them or ``meta`` is False (rule 6.1).  Bytes are sent as they are.
        ``headers``  replaces a header of the same name, case-insensitively, where it stood; None removes it
        ``extra``    pairs that come after all others, duplicates included
        ``token`` ``session`` ``revision``  instead of the client's own; "" leaves the header out
        """
        token = self.token if token is None else token
        session = self.session if session is None else session
        revision = (MODERN if modern else self.revision) if revision is None else revision
        body: bytes | None = None
        document = message
        if isinstance(message, bytes):
            body = message
            document = None
        elif message is not None:
            if modern and meta and isinstance(message, dict) and "method" in message:
                document = _with_meta(message, revision or MODERN, capabilities or {})
            body = orjson.dumps(document)
        fields: dict[str, str] = {"Host": self.authority}
        if token:
            fields["Authorization"] = f"Bearer {token}"
        fields["Accept"] = "text/event-stream" if method == "GET" else "application/json, text/event-stream"
        if body is not None:
            fields["Content-Type"] = "application/json"
        if revision:
            fields["MCP-Protocol-Version"] = revision
        if modern and isinstance(document, dict) and "id" in document and isinstance(document.get("method"), str):
            fields["Mcp-Method"] = document["method"]
            name = (document.get("params") or {}).get(NAMED_BY.get(document["method"], ""))
            if isinstance(name, str):
                fields["Mcp-Name"] = header_text(name)
        if session and not modern:
            fields["Mcp-Session-Id"] = session
        return http_request(method, self.target, (*_changed(fields, headers or {}), *pairs(extra)), body)

    async def post(self, message: Any, *, within: float | None = None, **build: Any) -> Response:
        """Sends a message (see :meth:`build` for the options), gives the response."""
        return await self._ask(self.build(message, **build), within)

    async def get(self, *, last_event_id: str | None = None, within: float | None = None, **build: Any) -> Response:
        """Opens the GET stream (rules 4.7 and 5.3), or gives the refusal."""
        extra = (*pairs(build.pop("extra", ())), *((("Last-Event-ID", last_event_id),) if last_event_id else ()))
        return await self._ask(self.build(method="GET", extra=extra, **build), within)

    async def delete(self, *, within: float | None = None, **build: Any) -> Response:
        """Ends the session (rule 3.8)."""
        return await self._ask(self.build(method="DELETE", **build), within)

    async def call(self, method: str, params: dict[str, Any] | None = None, **build: Any) -> Any:
        """Sends a request with the next id, reads the whole answer, gives the JSON-RPC result or error document.

        LookupError when the answer holds none, AssertionError when it has another id.
        """
        message = request(method, params, id=self.next_id())
        document = await (await self.post(message, **build)).answer()
        if document.get("id") != message["id"]:
            raise AssertionError(f"asked with id {message['id']!r}, answered {document!r}")
        return document

    async def notify(self, method: str, params: dict[str, Any] | None = None, **build: Any) -> Response:
        """Sends a notification, reads the whole answer."""
        response = await self.post(notification(method, params), **build)
        await response.read()
        return response

    async def initialize(
        self, *, revision: str = LEGACY, capabilities: dict[str, Any] | None = None, **build: Any
    ) -> dict[str, Any]:
        """Opens a legacy session: initialize, then notifications/initialized (rules 3.1-3.5).

        Remembers session and negotiated revision, gives the InitializeResult.  AssertionError when it is refused.
        """
        params = {
            "protocolVersion": revision,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "raw-client", "version": "1"},
        }
        response = await self.post(request("initialize", params, id=self.next_id()), session="", revision="", **build)
        document = await response.answer()
        if "result" not in document:
            raise AssertionError(f"initialize was answered {response.status} {document!r}")
        self.session = response.header("mcp-session-id")
        self.revision = document["result"]["protocolVersion"]
        accepted = await self.notify("notifications/initialized", **build)
        if accepted.status != 202:
            raise AssertionError(f"notifications/initialized was answered {accepted.status}")
        return dict(document["result"])

    async def _ask(self, data: bytes, within: float | None) -> Response:
        await self.connect()
        await self._finish_response()
        if stray := await self.unasked():
            raise Unasked(stray)
        return await self.exchange(data, within=within)

    async def _finish_response(self) -> None:
        if self._response is not None and self._response.complete is None:
            if self._response.is_stream:
                raise RuntimeError("read the event stream first, or ask on another connection: sibling()")
            await self._response.read()


def _with_meta(message: dict[str, Any], revision: str, capabilities: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params") or {}
    required = {META + "protocolVersion": revision, META + "clientCapabilities": capabilities}
    return message | {"params": params | {"_meta": required | (params.get("_meta") or {})}}


def _changed(fields: dict[str, str], changes: Mapping[str, str | None]) -> list[tuple[str, str]]:
    new = {name.lower(): (name, value) for name, value in changes.items()}
    kept = [new.pop(name.lower(), (name, value)) for name, value in fields.items()]
    return [(name, value) for name, value in (*kept, *new.values()) if value is not None]
