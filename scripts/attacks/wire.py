"""Bytes out, bytes in: what a case sends, how it is cut and paced, and what was received, read by readers of our own.

Nothing of the gateway's own parsing is used here: a judge that shares an error with the judged sees nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gateway.harness.client import RawClient
from gateway.harness.connection import Connection, ConnectionClosed
from gateway.harness.http1 import BadHttp, Body, Headers, header, read_head

__all__ = ["Answered", "NotPlayable", "Sending", "documents", "events", "exchange", "fed", "has_error", "is_answer",
           "sending", "strict", "strings"]  # fmt: skip

# How long after an answer a second one, which nobody should get, is waited for.
GRACE = 0.04
MAX_PAUSED_PIECES = 4096


class NotPlayable(Exception):
    """A case asks for something that this program cannot do."""


@dataclass(frozen=True, slots=True)
class Sending:
    """How bytes leave: pieces of ``sizes``, then of ``every`` bytes, ``pause`` seconds apart; ``hold``: no end after
    them, and none is waited for."""

    sizes: tuple[int, ...] = ()
    every: int | None = None
    pause: float = 0.0


def sending(fields: Mapping[str, Any], length: int, offset: int = 0) -> Sending:
    """What ``chunks`` and ``pace`` say about an input of ``length`` bytes that begins at ``offset`` of what is sent.

    Raises NotPlayable.
    """
    chunks, pace = fields.get("chunks"), fields.get("pace")
    if pace is not None:
        if not isinstance(pace, dict) or set(pace) - {"bytes_per_s", "then"} or pace.get("then") not in (None, "hold"):
            raise NotPlayable(f"pace {pace!r}")
        return Sending(every=1, pause=1.0 / pace["bytes_per_s"])
    if chunks is None:
        return Sending()
    if chunks == "each-byte":
        # With a pause, so that the other process finds them one by one; a large input would take too long so.
        return Sending((offset,) if offset else (), every=1, pause=0.0005 if length <= MAX_PAUSED_PIECES else 0.0)
    if isinstance(chunks, list) and all(isinstance(at, int) for at in chunks):
        edges = sorted({0, *(offset + at for at in chunks if 0 < at < length)})
        return Sending(tuple(b - a for a, b in pairwise(edges)), pause=0.005)
    raise NotPlayable(f"chunks {chunks!r}")


@dataclass(slots=True)
class Answered:
    """An HTTP response as far as it came.  ``whole``: it ended as its framing promised."""

    status: int
    head: bytes
    headers: Headers
    body: bytes
    whole: bool


@dataclass(slots=True)
class Received:
    """All that came back on a connection.  ``closed``: the gateway ended it; ``ms`` until the last of it."""

    responses: list[Answered] = field(default_factory=list)
    raw: bytes = b""
    closed: bool = False
    ms: float = 0.0
    problem: str | None = None


async def exchange(url: str, data: bytes, how: Sending, *, patience: float, endless: bool = False) -> Received:
    """Sends bytes on a connection of their own and reads until nothing more comes.

    ``patience`` in seconds bounds the wait for the first answer and for the end of each; ``endless`` answers are left
    after a moment.
    """
    got = Received()
    client = RawClient(url, timeout=patience, read_ahead=64 * 1024 * 1024)
    await client.connect()
    connection = client.connection
    begun = asyncio.get_running_loop().time()
    sender = asyncio.create_task(_send(client, data, how))
    try:
        method = data.split(b" ", 1)[0].decode("latin-1")
        await _read(connection, got, method, patience, endless)
        if connection.left is not None:
            got.closed = True
        got.ms = 1000 * (max(connection.taken, connection.left or 0.0, begun) - begun)
        got.raw += connection.unread
    finally:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender
        await client.close()
    return got


async def _send(client: RawClient, data: bytes, how: Sending) -> None:
    # A gateway that has said no need not listen to the rest.
    with contextlib.suppress(ConnectionError, TimeoutError):
        await client.send(data, sizes=how.sizes, every=how.every, pause=how.pause)


async def _read(connection: Connection, got: Received, method: str, patience: float, endless: bool) -> None:
    while True:
        first = not got.responses
        try:
            async with asyncio.timeout(patience if first else GRACE):
                if not await connection.wait_readable():
                    return
                if not first:
                    await asyncio.sleep(0)
            async with asyncio.timeout(patience):
                head = await read_head(connection)
        except TimeoutError:
            if first:
                got.problem = f"no answer within {patience:g} s"
            return
        except (ConnectionError, BadHttp) as error:
            got.raw += getattr(error, "partial", b"") + getattr(error, "raw", b"")
            return
        got.raw += head.raw
        if not re.fullmatch(r"\d{3}", head.start[1]):
            got.problem = "an answer without a status"
            return
        status = int(head.start[1])
        if status < 200:
            continue
        answered = Answered(status, head.raw, head.headers, b"", True)
        got.responses.append(answered)
        if method != "HEAD" and status not in (204, 304):
            await _read_body(connection, got, answered, patience, endless)
            if not answered.whole:
                return


async def _read_body(connection: Connection, got: Received, answered: Answered, patience: float, endless: bool) -> None:
    body = Body(connection, answered.headers, until_close=True)
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(GRACE if endless else patience):
            while piece := await body.piece():
                parts.append(piece)
    except TimeoutError:
        answered.whole = False
        if not endless:
            got.problem = f"an answer that did not end within {patience:g} s"
    except (ConnectionError, BadHttp):
        answered.whole = False
    answered.body = b"".join(parts)
    got.raw += answered.body


# -- reading -----------------------------------------------------------------------------------------------------------


async def fed(data: bytes, *, request: bool) -> tuple[tuple[str, str, str], Headers, bytes] | None:
    """A request or response as an honest reader finds it in bytes: start line, header fields, body.

    None where it finds none.
    """
    connection = Connection()
    connection.data_received(data)
    connection.eof_received()
    try:
        head = await read_head(connection)
        body = Body(connection, head.headers, until_close=not request)
        parts = []
        while piece := await body.piece():
            parts.append(piece)
    except (BadHttp, ConnectionClosed, ValueError):
        return None
    return head.start, head.headers, b"".join(parts)


def events(body: bytes) -> list[bytes]:
    """The data of each event of a stream, as WHATWG's HTML Standard, 9.2.6, has it; an unfinished event is none."""
    found: list[bytes] = []
    data: list[bytes] | None = None
    lines = re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        if not line:
            if data is not None:
                found.append(b"\n".join(data))
            data = None
        elif name == b"data":
            data = [*(data or []), value.removeprefix(b" ")]
    return found


class _Twice(ValueError):
    """An object with two members of one name."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Twice("a member comes twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def strict(data: bytes) -> Any:
    """JSON of RFC 8259 without duplicate members, NaN and infinities.  Raises ValueError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("too deep") from None


def documents(headers: Headers, body: bytes) -> list[Any]:
    """The JSON documents of a response's body or of its events.  Raises ValueError."""
    kind = (header(headers, "content-type") or "").split(";")[0].strip().lower()
    if kind == "text/event-stream":
        return [strict(data) for data in events(body) if data]
    return [strict(body)] if body and kind == "application/json" else []


def strings(document: Any) -> Iterator[str]:
    """Every string of a document, names of members too."""
    stack = [document]
    while stack:
        match stack.pop():
            case str(text):
                yield text
            case list(items):
                stack.extend(items)
            case dict(members):
                yield from members
                stack.extend(members.values())


def is_answer(document: Any) -> bool:
    """Whether a document is a JSON-RPC response."""
    return isinstance(document, dict) and "method" not in document and ("result" in document or "error" in document)


def has_error(document: Any) -> bool:
    """Whether a document is a JSON-RPC error response."""
    return is_answer(document) and isinstance(document.get("error"), dict) and "result" not in document
