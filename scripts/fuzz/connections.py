"""Whole connections: a gateway and its upstream in this process, and bytes sent to the gateway's own port."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from gateway.app import Gateway
from gateway.config.load import validate
from gateway.harness.script import Event, Received, Steps, json_answer, sse_answer, status_answer
from gateway.harness.upstream import ScriptedUpstream
from gateway.wire.strict import dumps

from .damage import damaged
from .grammar import JSON_TOKENS, message
from .seeds import corpus
from .target import Failure, Target, choices, cut

__all__ = ["Connections", "responses"]

# Those of the corpus, so that its requests go all the way.
HOST = "gw.example.com"
TOKEN = "alice-test-token-0000000000000000000000001"  # noqa: S105 - of this target alone
TOOLS = ["get_weather", "search_docs", "add_numbers", "create_note", "echo", "fetch_url"]
# Whatever is sent, the gateway ends the connection by its own deadlines; this is for when it does not.
PATIENCE = 30.0
DEADLINES = {
    "header_timeout": 0.5,
    "body_idle_timeout": 0.5,
    "body_timeout": 1,
    "connection_idle_timeout": 0.5,
    "stream_idle_timeout": 0.5,
    "first_byte_timeout": 5,
    "drain_timeout": 1,
}
_TOKENS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\r\n ", b"\0", b"GET ", b"POST ", b"DELETE ", b"OPTIONS ",
    b"PUT ", b"CONNECT ", b"TRACE ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"get ", b"/up/mcp", b"/mcp", b"/up/sse",
    b"/up/messages?x=1", b"*", b"http://gw.example.com/mcp", b"//", b"/../", b"%00", b"%2e%2e", b"?", b"#",
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/1.10", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n", b"Content-Length: 1e3\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length : 4\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding: xchunked\r\n",
    b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
    b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Host: x\r\n", b"Host: gw.example.com\r\n", b"Origin: null\r\n",
    b"Accept: text/html\r\n", b"Content-Type: text/plain\r\n", b"Content-Encoding: gzip\r\n", b"Mcp-Session-Id: x\r\n",
    b"MCP-Protocol-Version: 2026-07-28\r\n", b"Last-Event-ID: 1\r\n", b"Authorization: Basic eDp5\r\n",
    b"Cookie: a=b\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;x=y\r\n", b"ffffffffffffffff1\r\n", b"-1\r\n", b"0x5\r\n",
    b"X: " + b"y" * 200 + b"\r\n", b"X: y\r\n" * 120, b"X\r\n", b": y\r\n",
)  # fmt: skip


class Connections(Target):
    """Requests as clients write them, damaged, some behind one another; several hundred connections at once."""

    name = "http"
    invariant = (
        "whatever is sent to the data port, every answer is well-formed HTTP and none is a 500, nothing is logged as "
        "an error, no request reaches the upstream without a line in the audit, and the gateway goes on"
    )
    batch = 250
    tries = 40

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._folder = tempfile.TemporaryDirectory()
        self._audit = Path(self._folder.name) / "audit.jsonl"
        self._stack = AsyncExitStack()
        self._log = _Log()
        logging.getLogger().addHandler(self._log)
        self._upstream = ScriptedUpstream(_answer)
        self._runner.run(self._start())
        return self

    async def _start(self) -> None:
        await self._stack.enter_async_context(self._upstream)
        config = validate(_configuration(self._upstream.url, self._audit), source="fuzz")
        self._gateway = await self._stack.enter_async_context(Gateway(config))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
        logging.getLogger().removeHandler(self._log)
        self._folder.cleanup()

    def make(self, source: random.Random) -> bytes:
        request = source.choice(corpus("http")) if source.random() < 0.3 else _request(source)
        if source.random() < 0.2:
            request += _request(source)
        return damaged(request, source, _TOKENS) if source.random() < 0.6 else request

    def check(self, data: bytes) -> None:
        self._runner.run(self._check([data]))

    def check_all(self, seed: int, indexes: Sequence[int]) -> Failure | None:
        inputs = [self.input(seed, index) for index in indexes]
        try:
            self._runner.run(self._check(inputs))
        except Exception as error:
            # Which of them it was: each one alone.
            for index in indexes:
                found = super().check_all(seed, [index])
                if found is not None:
                    return found
            return Failure(self.name, indexes[0], b"", f"not one of these {len(indexes)} inputs alone: {error!r}")
        return None

    async def _check(self, inputs: Sequence[bytes]) -> None:
        self._log.lines.clear()
        for data, answer in zip(inputs, await asyncio.gather(*map(self._exchange, inputs)), strict=True):
            # The answer to HEAD has the length of a body and no body; 431s that no request was made of are its too.
            statuses = responses(answer) if b"HEAD" not in data else re.findall(rb"HTTP/1.[01] (\d+)", answer)
            self.counts.update(str(int(status)) for status in statuses)
            self.counts["no answer"] += not statuses
            assert 500 not in map(int, statuses), f"500 for {data!r}"
        good = await self._exchange(_post(b'{"jsonrpc":"2.0","id":7,"method":"ping"}', [b"Connection: close"]))
        assert responses(good) == [200], f"the gateway does not go on: {good!r}"
        assert not self._log.lines, "\n".join(self._log.lines)
        self._check_audit()

    async def _exchange(self, data: bytes) -> bytes:
        """What comes back until the gateway ends the connection."""
        received = bytearray()
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.config.listen.port)
            try:
                source = choices(data)
                for piece in cut(data, source) if source.random() < 0.5 else (data,):
                    if writer.is_closing() or reader.at_eof():
                        break
                    writer.write(piece)
                    if len(piece) > 8:
                        await asyncio.sleep(0)
                while piece := await reader.read(65536):
                    received += piece
            except ConnectionError:
                # It was ended while bytes were on their way, and what was sent last may be lost with it.
                del received[:]
            finally:
                writer.close()
        return bytes(received)

    def _check_audit(self) -> None:
        records = map(json.loads, self._audit.read_text().splitlines())
        accepted = Counter(each.get("method") for each in records if each["event"] == "request.accepted")
        arrived: Counter[str | None] = Counter()
        for received in (*self._upstream.requests, *self._upstream.incomplete):
            documents = received.message if isinstance(received.message, list) else [received.message]
            if received.method == "POST":
                arrived.update(each.get("method") if isinstance(each, dict) else "not JSON" for each in documents)
        # The gateway tells an upstream itself what nobody waits for any more.
        del arrived["notifications/cancelled"]
        missing = arrived - accepted
        assert not missing, f"upstream, and not in the audit: {missing}"
        assert not self._upstream.malformed, f"upstream, and not HTTP: {self._upstream.malformed}"
        self.counts["reached the upstream"] += arrived.total()
        self._upstream.requests.clear()
        self._upstream.incomplete.clear()
        self._upstream.connections[:] = [each for each in self._upstream.connections if each.left is None]
        # The next batch is compared with what is written from now on.
        with self._audit.open("r+b") as file:
            file.truncate()


class _Log(logging.Handler):
    """What is logged as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.lines.append(logging.Formatter().format(record))


def responses(data: bytes) -> list[int]:
    """The statuses of the responses that ``data`` consists of; AssertionError for anything that is not HTTP/1.1, or
    HTTP/1.0 where the client speaks that."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.([01]) ([1-5]\d\d) [\x20-\x7e]*", start)
        assert end and match, f"not a response: {head!r}"
        fields = [re.fullmatch(rb"([!#-'*+.^-z|~0-9A-Z-]+): ?([\t\x20-\x7e]*)", line) for line in lines]
        assert all(fields), f"not header fields: {lines!r}"
        named = {each[1].lower(): each[2] for each in fields if each}
        assert len(named) == len(fields), f"a field twice: {lines!r}"
        status = int(match[2])
        found.append(status)
        if named.get(b"transfer-encoding") == b"chunked":
            assert match[1] == b"1" and b"content-length" not in named, "framed twice, or not for this client"
            data = _after_chunks(data)
        elif match[1] == b"0" and b"content-length" not in named:
            data = b""  # up to the end of the connection
        elif status >= 200 and status not in (204, 304):
            length = named.get(b"content-length")
            assert length is not None and length.isdigit(), f"not framed: {head!r}"
            assert len(data) >= int(length), f"cut short: {head!r}"
            if named.get(b"content-type", b"").startswith(b"application/json"):
                json.loads(data[: int(length)])
            data = data[int(length) :]
    return found


def _after_chunks(data: bytes) -> bytes:
    while True:
        line, end, data = data.partition(b"\r\n")
        assert end and re.fullmatch(rb"[0-9a-fA-F]{1,8}", line), f"not a chunk: {line!r}"
        size = int(line, 16)
        assert data[size : size + 2] == b"\r\n", "a chunk of another length than it says"
        data = data[size + 2 :]
        if not size:
            return data


def _configuration(url: str, audit: Path) -> dict[str, Any]:
    policy = {
        "allowed_upstreams": ["*"],
        "allowed_tools": TOOLS,
        "allowed_resources": ["*"],
        "allowed_prompts": ["*"],
        "max_requests_per_minute": None,
        "max_concurrent_calls": 10_000,
        "max_concurrent_streams": 10_000,
    }
    return {
        "listen": {"port": 0, "hosts": [HOST], "allowed_origins": ["https://app.example.com"]},
        "admin": {"port": 0},
        "upstreams": {"up": {"url": url, "connections": 1000}},
        "clients": {"alice": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "policy": "alice"}},
        "policies": {"alice": policy},
        "hooks": ["policy", "arguments", "injection", "sanitize"],
        "audit": {"path": str(audit), "max_file_size": "1GiB"},
        "limits": DEADLINES,
    }


def _answer(received: Received) -> Steps:
    """The upstream: a result for each request, as an event stream for every other."""
    if received.method != "POST":
        return status_answer(405)(received)
    if isinstance(received.message, list) or received.rpc_method is None or received.id is None:
        return status_answer(202)(received)
    if received.rpc_method == "initialize":
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        return json_answer(about)(received)
    result = {"content": [{"type": "text", "text": "It is sunny."}]}
    if len(received.body) % 2:
        return json_answer(result)(received)
    return sse_answer(Event({"jsonrpc": "2.0", "id": received.id, "result": result}))(received)


def _request(source: random.Random) -> bytes:
    if source.random() < 0.1:
        method = source.choice((b"GET", b"DELETE", b"OPTIONS", b"PUT"))
        return b"\r\n".join((method + b" /mcp HTTP/1.1", *_fields(), b"\r\n"))
    body = dumps(message(source))
    if source.random() < 0.2:
        body = damaged(body, source, JSON_TOKENS)
    more = []
    if source.random() < 0.5:
        more.append(b"Connection: close")
    if source.random() < 0.3:
        more.append(b"MCP-Protocol-Version: " + source.choice((b"2025-11-25", b"2026-07-28", b"2025-03-26")))
    if source.random() < 0.2:
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut(body, source)]
        head = (
            b"POST /mcp HTTP/1.1",
            *_fields(),
            b"Content-Type: application/json",
            *more,
            b"Transfer-Encoding: chunked",
        )
        return b"\r\n".join((*head, b"", b"".join((*pieces, b"0\r\n\r\n"))))
    return _post(body, more)


def _post(body: bytes, more: Sequence[bytes]) -> bytes:
    length = b"Content-Length: %d" % len(body)
    head = (b"POST /mcp HTTP/1.1", *_fields(), b"Content-Type: application/json", *more, length)
    return b"\r\n".join((*head, b"", body))


def _fields() -> tuple[bytes, ...]:
    return (
        b"Host: " + HOST.encode(),
        b"Authorization: Bearer " + TOKEN.encode(),
        b"Accept: application/json, text/event-stream",
    )
