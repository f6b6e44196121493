"""One HTTP exchange with the server, bounded in time and in size, and what came back, right or wrong.

The settings are those of ``gateway.relay.upstream``: no cookies, no redirects, no decompression, no proxy, no request
sent twice.  Each exchange has a connection of its own, so that a server whose keep-alive is broken answers
all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .. import __version__
from ..config import Limits, Upstream
from ..protocol.headers import media_type
from ..relay.connections import Connector
from ..relay.upstream import READ_SIZE
from ..wire import sse, strict
from ..wire.envelope import classify
from ..wire.errors import LimitExceeded, PeerError

__all__ = ["EVENT_STREAM", "JSON", "Client", "NoReply", "Reply"]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

# What ends a stream after its answer should come at once.
_LINGER = 1.0


class NoReply(Exception):
    """No HTTP answer came.  The text says why, without an address; ``late`` is True for a timeout."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


@dataclass(slots=True)
class Reply:
    """An HTTP answer.

    ``body``      its bytes, empty for an event stream, whose ``frames`` are then here
    ``messages``  the JSON documents in it, in order, read leniently
    ``trouble``   why the gateway would refuse the answer, None where it would not
    ``complete``  whether its end was seen
    ``id``        the JSON-RPC id that was asked with, None for what has none
    """

    status: int
    fields: CIMultiDictProxy[str]
    body: bytes = b""
    frames: list[sse.Frame] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    trouble: str | None = None
    complete: bool = False
    id: int | None = None

    @property
    def kind(self) -> str:
        """The media type, lower-case; "" for none."""
        return media_type(self.fields.get("Content-Type"))[0]

    @property
    def is_stream(self) -> bool:
        """Whether it is an event stream."""
        return self.status < 300 and self.kind == EVENT_STREAM

    @property
    def answer(self) -> dict[str, Any] | None:
        """The JSON-RPC response to the request; an error without a readable id is one, too (rule 2.15)."""
        for each in self.messages:
            if not isinstance(each, dict):
                continue
            if "error" in each and (each.get("id") is None or self.status >= 300):
                return each
            if ("result" in each or "error" in each) and type(each.get("id")) is int and each["id"] == self.id:
                return each
        return None

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, of a 2xx answer alone; None where there is none."""
        answer = self.answer
        if answer is None or self.status >= 300 or not isinstance(answer.get("result"), dict):
            return None
        result: dict[str, Any] = answer["result"]
        return result

    @property
    def error(self) -> dict[str, Any] | None:
        """The JSON-RPC error; None where there is none."""
        answer = self.answer
        error = None if answer is None else answer.get("error")
        return error if isinstance(error, dict) else None

    @property
    def code(self) -> int | None:
        """The JSON-RPC error's code."""
        code = None if self.error is None else self.error.get("code")
        return code if type(code) is int else None


class Client:
    """Sends requests to one server.  ``async with Client(...) as client``.

    ``timeout``  seconds for one request, from the connection to the last byte that is waited for
    ``budget``   seconds for all of them together; after it, every request fails at once
    ``configured`` the header fields that go with every request
    ``heads``    status and header fields of every answer so far
    """

    def __init__(self, upstream: Upstream, limits: Limits, timeout: float, budget: float) -> None:
        self.url = URL(upstream.url, encoded=True)
        self.limits = limits
        self.timeout = timeout
        self.heads: list[tuple[int, CIMultiDictProxy[str]]] = []
        self.requests = 0
        self._json = strict.Limits(limits.json_depth, limits.json_nodes, limits.json_number_chars)
        self.configured = dict(upstream.headers)
        self._end = asyncio.get_running_loop().time() + budget
        self._session = self.session(Connector(limit=0, force_close=True))

    def session(self, connector: Connector) -> ClientSession:
        """A session with the gateway's settings; the caller closes it."""
        session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=ClientTimeout(total=None, sock_connect=self.limits.connect_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=READ_SIZE,
            max_line_size=self.limits.max_header_size,
            max_field_size=self.limits.max_header_size,
            max_headers=self.limits.max_header_count,
        )
        session._retry_connection = False
        return session

    def extend(self) -> None:
        """Allow one more request's time, to tidy up."""
        self._end = max(self._end, asyncio.get_running_loop().time() + self.timeout)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        body: bytes | None = None,
        fields: Mapping[str, str] | None = None,
        *,
        without: tuple[str, ...] = (),
        url: URL | None = None,
        session: ClientSession | None = None,
        within: float | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """One request; the block is entered with the head of the answer and has ``within`` seconds altogether.

        ``without`` names fields that are left out though a client has to send them.  Raises NoReply, also from within.
        """
        headers = CIMultiDict(
            {
                "Accept": f"{JSON}, {EVENT_STREAM}",
                "Accept-Encoding": "identity",
                "User-Agent": f"mcpgw-doctor/{__version__}",
                **({} if body is None else {"Content-Type": JSON}),
            }
        )
        headers.update(self.configured)
        headers.update(fields or {})
        for name in without:
            headers.popall(name, None)
        left = self._end - asyncio.get_running_loop().time()
        if left <= 0:
            raise NoReply("not asked: the time for all requests is over", late=True)
        self.requests += 1
        try:
            async with asyncio.timeout(min(left, self.timeout if within is None else within)):
                response = await (session or self._session).request(
                    method, url or self.url, data=body, headers=headers, allow_redirects=False
                )
                try:
                    self.heads.append((response.status, response.headers))
                    yield response
                finally:
                    response.close() if session is None else response.release()
        except TimeoutError:
            raise NoReply("no answer in time", late=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(reason(error)) from error

    async def send(
        self,
        method: str,
        body: bytes | None = None,
        fields: Mapping[str, str] | None = None,
        *,
        until: Callable[[Reply], bool] | None = None,
        listen: float | None = None,
        **how: Any,
    ) -> Reply:
        """One exchange.  Of an event stream, frames are read until its end, ``until(reply)``, or ``listen`` seconds.

        Raises NoReply where not even the head came; a body that breaks off is ``complete = False``.
        """
        reply: Reply | None = None
        try:
            async with self.open(method, body, fields, **how) as response:
                reply = Reply(response.status, response.headers)
                reply.trouble = head_trouble(reply)
                if reply.is_stream:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(listen):
                            await self._read_stream(response, reply, until)
                else:
                    await self._read_body(response, reply)
        except NoReply as error:
            if reply is None:
                raise
            if reply.trouble is None and not (reply.is_stream and until is None):
                reply.trouble = "its answer never ended" if error.late else "its answer broke off"
        return reply

    async def _read_body(self, response: ClientResponse, reply: Reply) -> None:
        parts, size, most = [], 0, self.limits.max_message_size
        async for chunk in response.content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size > most:
                reply.trouble = f"an answer is larger than {most} bytes (limits.max_message_size)"
                return
        reply.body = b"".join(parts)
        reply.complete = True
        if reply.kind == JSON:
            self._read_message(reply.body, reply)

    async def _read_stream(self, response: ClientResponse, reply: Reply, until: Callable[[Reply], bool] | None) -> None:
        most = self.limits.max_message_size
        decoder = sse.Decoder(most, most)
        chunks = response.content.iter_any()
        try:
            async for chunk in chunks:
                self._read_frames(decoder.feed(chunk), reply)
                if until is not None and until(reply):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LINGER):
                            async for rest in chunks:
                                self._read_frames(decoder.feed(rest), reply)
                            reply.complete = True
                    return
            reply.complete = True
        except LimitExceeded:
            reply.trouble = f"an event is larger than {most} bytes (limits.max_message_size)"

    def _read_frames(self, frames: list[sse.Frame], reply: Reply) -> None:
        for frame in frames:
            reply.frames.append(frame)
            if frame.data and frame.event in (None, b"", b"message"):
                self._read_message(frame.data, reply)

    def _read_message(self, data: bytes, reply: Reply) -> None:
        try:
            document = strict.parse(data, self._json, twins=strict.Twins.PROTOCOL)
            if isinstance(document, dict):
                classify(document)
        except PeerError as error:
            reply.trouble = reply.trouble or f"its JSON is refused ({error.reason}): {error.message}"
            try:
                document = json.loads(data)
            except (ValueError, RecursionError):
                return
        reply.messages.extend(document if isinstance(document, list) else [document])


def head_trouble(reply: Reply) -> str | None:
    """Why the gateway refuses an answer for its status and header fields, as ``relay.answer`` does."""
    fields = reply.fields
    encoding = fields.get("Content-Encoding", "identity").lower()
    kind, parameters = media_type(fields.get("Content-Type"))
    if not 200 <= reply.status <= 599:
        return "its status is none that HTTP has"
    if fields.getall("Transfer-Encoding", ["chunked"]) != ["chunked"]:
        return "its transfer coding is not plainly chunked"
    if encoding != "identity":
        return "it compresses its answers though nobody asked"
    if len(fields.getall("Content-Type", ())) > 1:
        return "its answers have two Content-Types"
    if kind in (JSON, EVENT_STREAM) and parameters.get("charset", "utf-8") not in ("utf-8", "utf8"):
        return "its charset is not UTF-8"
    if 300 <= reply.status < 400:
        return "it redirects"
    return None


def reason(error: BaseException) -> str:
    """An exception of the client session in words, without names, addresses or what the server sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        certificate = error.certificate_error
        text = certificate.verify_message if isinstance(certificate, ssl.SSLCertVerificationError) else "invalid"
        return f"its certificate is refused: {text}"
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or 'no such address'})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    return "the connection broke"
