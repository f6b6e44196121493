"""The short lane and the full lane side by side: the same bytes in, the same out, and the same in the record."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import SHORT_LANE, Gateway
from gateway.config import ConfigErrors
from gateway.config.load import validate
from gateway.harness.client import RawClient, notification, request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.response import Response
from gateway.harness.script import (
    Chunk,
    Close,
    Comment,
    End,
    Event,
    Hang,
    Head,
    Received,
    Repeat,
    Reset,
    Script,
    Send,
    Signal,
    SplitAt,
    Step,
    Steps,
    WaitFor,
    answer_with,
    json_answer,
    sse_answer,
    status_answer,
)
from gateway.harness.upstream import ScriptedUpstream
from gateway.relay.lane import Lane as ShortLane

from .conftest import ALICE, BOB, configuration, digest, until
from .lanes import Side, differences, on_lane, plain, shown
from .peers import META, MODERN, note, session_server

STREAM = Head(200, {"Content-Type": "text/event-stream"})
BARE_STREAM = {"Content-Type": "text/event-stream"}
CALL = request("tools/call", {"name": "get_it", "arguments": {"city": "Oslo"}}, id=7)


def result(text: str = "fine", id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}}


def json_of(data: bytes) -> Any:
    return json.loads(data)


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


FINE = compact(result())
Play = Callable[[Side], Awaitable[None]]


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await until(
        lambda: not [task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()]
    )


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_task_is_left: None):
    """``sides = await both(make, play)``: plays it against a gateway on either lane, and shows that all was alike."""

    async def run(
        make: Callable[[], ScriptedUpstream] | Script,
        play: Play,
        *,
        short: bool | None = True,
        but: str | None = None,
        **sections: Any,
    ) -> dict[str, Any]:
        seen = {}
        for lane in ("full", "short"):
            upstream = ScriptedUpstream(make) if isinstance(make, dict) else make()
            async with on_lane(lane, upstream, tmp_path, monkeypatch, **json.loads(json.dumps(sections))) as side:
                await play(side)
                await side.close_clients()
                await side.settle()
                seen[lane] = side.seen()
                if short is not None:
                    assert bool(side.lanes) is (short and lane == "short"), f"{side.lanes} exchanges on the short lane"
        found = [each for each in differences(seen["full"], seen["short"]) if but is None or but not in each]
        assert not found, "\n".join(found)
        return seen["short"]

    return run


def of_call(answer: Any) -> dict[str, Any]:
    return {"tools/call": answer}


def framed(body: bytes, *fields: str, status: str = "200 OK") -> Send:
    """An answer, byte for byte."""
    lines = [f"HTTP/1.1 {status}", *fields, "", ""]
    return Send("\r\n".join(lines).encode() + body)


JSON_TYPE = "Content-Type: application/json"


def whole(body: bytes = FINE, *fields: str, status: str = "200 OK") -> Send:
    return framed(body, JSON_TYPE, f"Content-Length: {len(body)}", *fields, status=status)


EVENTS = b"".join(
    [
        b": hello\n\n",
        b"retry: 500\r\ndata:\r\n\r\n",
        b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message",\n',
        b'data:  "params":{"level":"info","data":"\\u00e9"}}\n\n',
        b"data:" + FINE + b"\n\n",
    ]
)
LARGE = compact(result("x" * 100_000))
ERROR = compact({"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "no"}})


def chunks(data: bytes, size: int) -> list[Step]:
    return [Chunk(data[at : at + size]) for at in range(0, len(data), size)]


ANSWERS: dict[str, list[Step]] = {
    "json": [whole()],
    "json in two pieces": [SplitAt((40,), every=10_000, pause=0.01), whole()],
    "json byte by byte": [SplitAt(every=1), whole()],
    "json large": [whole(LARGE)],
    "json large, broken": [SplitAt((90_000,), pause=0.02), whole(LARGE[:-1] + b"]")],
    "json large, cut": [Head(200, {"Content-Type": "application/json", "Content-Length": str(len(LARGE))}, False), Send(LARGE[:80_000]), SplitAt((1,), pause=0.02), Send(b"xx"), Close()],
    "json large, ended early": [Head(200, {"Content-Type": "application/json"}), Chunk(LARGE[:90_000]), End()],
    "json large, ended early, in steps": [Head(200, {"Content-Type": "application/json"}), Chunk(LARGE[:80_000]), SplitAt(every=10_000, pause=0.01), Chunk(LARGE[80_000:90_000]), End()],
    "json chunked": [Head(200, {"Content-Type": "application/json"}), *chunks(FINE, 9), End()],
    "json with trailers": [Head(200, {"Content-Type": "application/json"}), Chunk(FINE), Send(b"0\r\nX-Sum: 1\r\n\r\n")],
    "json until the end": [framed(FINE, JSON_TYPE), Close()],
    "json, Connection: close": [whole(FINE, "Connection: close"), Close()],
    "json, HTTP/1.0": [Send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(FINE) + FINE), Close()],
    "json, cut": [framed(FINE[:20], JSON_TYPE, f"Content-Length: {len(FINE)}"), Close()],
    "json, reset": [framed(FINE[:20], JSON_TYPE, f"Content-Length: {len(FINE)}"), Reset()],
    "json, broken": [whole(FINE[:-2])],
    "json, empty": [whole(b"")],
    "json, wrong id": [whole(compact(result(id=8)))],
    "json, id of another type": [whole(compact(result(id="7")))],
    "json, null id error": [whole(compact({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "x"}}))],
    "json, a batch": [whole(b"[" + FINE + b"]")],
    "json, a request": [whole(compact(request("ping", id=7)))],
    "json, a secret": [whole(compact(result("the token is ghp_" + "a1B2c3D4e5F6" * 3)))],
    "json, charset": [framed(FINE, "Content-Type: application/json; charset=utf-8", f"Content-Length: {len(FINE)}")],
    "json, charset utf-16": [framed(FINE, "Content-Type: application/json; charset=utf-16", f"Content-Length: {len(FINE)}")],
    "json, capital type": [framed(FINE, "Content-Type: Application/JSON", f"Content-Length: {len(FINE)}")],
    "json, compressed": [whole(FINE, "Content-Encoding: gzip")],
    "json, two types": [whole(FINE, "Content-Type: text/plain")],
    "json, two lengths": [whole(FINE, "Content-Length: 3")],
    "json, length and chunks": [whole(FINE, "Transfer-Encoding: chunked")],
    "json, session id unasked": [whole(FINE, "Mcp-Session-Id: s1", "Set-Cookie: a=b", "X-Powered-By: x")],
    "json, huge": [whole(compact(result("x" * 1_500_000)))],
    "json, length never reached": [framed(FINE, JSON_TYPE, "Content-Length: 99999999999"), Close()],
    "json, slow head": [Send(b"HTTP/1.1 200 OK\r\nContent-Ty"), SplitAt(every=7, pause=0.002), Send(b"pe: application/json\r\nContent-Length: %d\r\n\r\n" % len(FINE) + FINE)],
    "bare LF": [Send(b"HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: %d\n\n" % len(FINE) + FINE)],
    "continue first": [Send(b"HTTP/1.1 100 Continue\r\n\r\n"), whole()],
    "continue first, in one": [Send(b"HTTP/1.1 100 Continue\r\n\r\n" + whole().data)],
    "hints first": [Send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), SplitAt(every=9000, pause=0.01), whole()],
    "switching": [Send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), whole()],
    "no content": [framed(b"", status="204 No Content")],
    "no content, with a body": [framed(FINE, JSON_TYPE, f"Content-Length: {len(FINE)}", status="204 No Content")],
    "accepted": [framed(b"", "Content-Length: 0", status="202 Accepted")],
    "not modified": [framed(b"", status="304 Not Modified")],
    "text": [framed(b"hello", "Content-Type: text/plain", "Content-Length: 5")],
    "html 500": [framed(b"<html>", "Content-Type: text/html", "Content-Length: 6", status="500 Internal Server Error")],
    "json error": [whole(ERROR)],
    "json error 400": [whole(ERROR, status="400 Bad Request")],
    "json error 404": [whole(ERROR, status="404 Not Found")],
    "json error 500": [whole(ERROR, status="500 Internal Server Error")],
    "json 400, no error": [whole(b"{}", status="400 Bad Request")],
    "plain 404": [framed(b"no", "Content-Length: 2", status="404 Not Found")],
    "redirect": [framed(b"", "Location: http://127.0.0.1:1/", "Content-Length: 0", status="302 Found")],
    "redirect 307": [framed(b"", "Location: /x", "Content-Length: 0", status="307 Temporary Redirect")],
    "unauthorized": [framed(b"", "WWW-Authenticate: Basic", "Content-Length: 0", status="401 Unauthorized")],
    "busy": [framed(b"", "Retry-After: 7", "Content-Length: 0", status="429 Too Many Requests")],
    "unavailable": [framed(b"", "Retry-After: soon", "Content-Length: 0", status="503 Service Unavailable")],
    "odd status": [framed(b"", "Content-Length: 0", status="999 Odd")],
    "no http": [Send(b"hello\r\n\r\n"), Close()],
    "nothing": [Close()],
    "reset": [Reset()],
    "half a head": [Send(b"HTTP/1.1 200 OK\r\nContent-"), Close()],
    "long head": [whole(FINE, "X-Long: " + "x" * 40_000)],
    "many fields": [whole(FINE, *(f"X-{n}: {n}" for n in range(300)))],
    "twice in one": [Send(whole().data + whole(compact(result("second"))).data)],
    "twice": [whole(), SplitAt(every=100_000, pause=0.01), whole(compact(result("later")))],
    "one and a part": [Send(whole().data + b"HTTP/1.1 200 OK\r\nContent-")],
    "one and a line": [Send(whole().data + b"\r\n")],
    "events": [STREAM, Chunk(EVENTS), End()],
    "events byte by byte": [STREAM, *chunks(EVENTS, 1), End()],
    "events in sevens": [STREAM, *chunks(EVENTS, 7), End()],
    "events in many reads": [STREAM, SplitAt(every=13, pause=0.001), Chunk(EVENTS), End()],
    "events in one read": [Send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(EVENTS) + EVENTS + b"\r\n0\r\n\r\n")],
    "events with a length": [framed(EVENTS, "Content-Type: text/event-stream", f"Content-Length: {len(EVENTS)}")],
    "events until the end": [framed(EVENTS, "Content-Type: text/event-stream"), Close()],
    "events, cut in a chunk": [STREAM, Comment("a"), Send(b"ff\r\ndata: {"), Close()],
    "events, cut by reset": [STREAM, Event(notification("notifications/message", {"level": "info", "data": "x"})), SplitAt((1,), pause=0.02), Send(b"5\r\ndat"), Reset()],
    "events, ended without an answer": [STREAM, Comment("a"), End()],
    "events, ended with half an event": [STREAM, Chunk(b"data: {"), End()],
    "events, answer without its end": [STREAM, Chunk(EVENTS), Close()],
    "events, no answer and more": [STREAM, Event(result()), Event(result("second")), Event(notification("notifications/message", {"level": "info", "data": "x"})), End()],
    "events, wrong id": [STREAM, Event(result(id=8)), End()],
    "events, broken json": [STREAM, Chunk(b"data: {,}\n\n"), End()],
    "events, ids": [STREAM, Event(b"", id="1", retry=10), Event(result(), id="2"), End()],
    "events, an id and no answer": [STREAM, Event(b"", id="1", retry=10), End()],
    "events, large": [STREAM, Chunk(b"data: " + LARGE + b"\n\n"), End()],
    "events, large in parts": [STREAM, *chunks(b"data: " + LARGE + b"\n\n", 8000), End()],
    "events, large and ended early": [STREAM, Chunk(b"data: " + LARGE[:90_000]), End()],
    "events, large and cut": [STREAM, Chunk(b"data: " + LARGE[:80_000]), SplitAt((1,), pause=0.02), Send(b"2\r\nxx"), Close()],
    "events, large and broken": [STREAM, SplitAt((90_000,), pause=0.02), Chunk(b"data: " + LARGE[:-1] + b"]\n\n"), End()],
    "events, huge": [STREAM, Chunk(b"data: " + compact(result("x" * 1_500_000)) + b"\n\n"), End()],
    "events, a secret": [STREAM, Event(result("the token is ghp_" + "a1B2c3D4e5F6" * 3)), End()],
    "events, a flood of nothing": [STREAM, Repeat(Chunk(b"\n\n:\n\n"), 3000), Event(result()), End()],
    "events, a request": [STREAM, Event(request("sampling/createMessage", {"messages": [], "maxTokens": 1}, id="s")), Event(result()), End()],
    "events, a batch": [STREAM, Event([notification("notifications/message", {"level": "info", "data": "x"}), result()]), End()],
    "events, trailers": [STREAM, Event(result()), Send(b"0\r\nX-Sum: 1\r\n\r\n")],
    "events, bad chunk": [STREAM, Comment("a"), Send(b"zz\r\n")],
    "events, Connection: close": [Head(200, {**BARE_STREAM, "Connection": "close"}), Event(result()), End(), Close()],
    "events with status 400": [Head(400, BARE_STREAM), Event(result()), End()],
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_an_upstream_may_answer(both, name):
    """Each twice on one connection: what was learnt from the first must not change the second."""

    async def play(side: Side) -> None:
        client = side.client()
        for _ in range(3):
            try:
                await side.ask(client, CALL)
            except ConnectionError as error:
                side.note(type(error).__name__)
                client = side.client()

    hooks = ["policy", "sanitize"] if "secret" in name or "large" in name else ["policy"]
    await both(of_call(answer_with(*ANSWERS[name])), play, limits={"max_message_size": "1MiB"}, hooks=hooks)


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS: dict[str, dict[str, Any]] = {
    "nothing wrong": {},
    "no token": {"token": ""},
    "wrong token": {"token": "wrong"},
    "two tokens": {"extra": [("Authorization", "Bearer x")]},
    "another scheme": {"headers": {"Authorization": "Basic YTpi"}},
    "foreign origin": {"headers": {"Origin": "https://evil.example"}},
    "own origin": {"headers": {"Origin": "http://localhost:1"}},
    "foreign host": {"headers": {"Host": "evil.example"}},
    "no host": {"headers": {"Host": None}},
    "two hosts": {"extra": [("Host", "evil.example")]},
    "repeated field": {"extra": [("Mcp-Session-Id", "a"), ("mcp-session-id", "b")]},
    "accepts html": {"headers": {"Accept": "text/html"}},
    "accepts json only": {"headers": {"Accept": "application/json"}},
    "accepts nothing": {"headers": {"Accept": None}},
    "text": {"headers": {"Content-Type": "text/plain"}},
    "no type": {"headers": {"Content-Type": None}},
    "latin": {"headers": {"Content-Type": "application/json; charset=latin-1"}},
    "compressed": {"headers": {"Content-Encoding": "zstd"}},
    "unknown revision": {"revision": "1999-01-01"},
    "revision": {"revision": "2025-06-18"},
    "unknown session": {"session": "unknown"},
    "many fields": {"extra": [(f"X-{n}", "x" * 90) for n in range(90)]},
    "odd field": {"extra": [("X-Odd", "\xe4\xf6")]},
    "two lengths": {"extra": [("Content-Length", "1"), ("Content-Length", "1")]},
    "cookies and a client's own fields": {"extra": [("Cookie", "a=b"), ("X-Forwarded-For", "1.2.3.4"), ("Last-Event-ID", "1")]},
    "upgrade": {"extra": [("Upgrade", "websocket"), ("Connection", "upgrade")]},
    "expectation": {"extra": [("Expect", "100-continue")]},
    "odd expectation": {"extra": [("Expect", "200-ok")]},
    "connection: close": {"extra": [("Connection", "close")]},
    "connection: keep-alive": {"extra": [("Connection", "keep-alive")]},
    "chunks and a length": {"extra": [("Transfer-Encoding", "chunked")]},
    "put": {"method": "PUT"},
    "lower-case post": {"method": "post"},
    "a get": {"method": "GET"},
    "a delete": {"method": "DELETE"},
    "modern": {"modern": True},
    "modern, other method": {"modern": True, "headers": {"Mcp-Method": "tools/list"}},
    "modern, other name": {"modern": True, "headers": {"Mcp-Name": "other"}},
    "modern, no meta": {"modern": True, "meta": False},
    "modern, a session": {"modern": True, "extra": [("Mcp-Session-Id", "a")]},
}  # fmt: skip

BODIES: dict[str, Any] = {
    "unknown method": request("no/such", id=7),
    "not permitted": request("tools/call", {"name": "denied_it", "arguments": {}}, id=7),
    "no name": request("tools/call", {"arguments": {}}, id=7),
    "params no object": {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": [1]},
    "no version": {"id": 7, "method": "tools/list"},
    "null id": {"jsonrpc": "2.0", "id": None, "method": "tools/list"},
    "fraction": b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}',
    "text id": request("tools/call", {"name": "get_it", "arguments": {}}, id="seven"),
    "a notification": notification("notifications/cancelled", {"requestId": 1}),
    "an initialized": notification("notifications/initialized"),
    "a response": {"jsonrpc": "2.0", "id": "x", "result": {}},
    "an error": {"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "x"}},
    "half": b'{"jsonrpc":"2.0","id":7,"method":"tools/ca',
    "no json": b"hello",
    "empty": b"",
    "blank": b"\r\n\r\n",
    "a mark": b"\xef\xbb\xbf{}",
    "no text": b'{"jsonrpc":"2.0","id":7,"method":"\xff"}',
    "a twin": b'{"jsonrpc":"2.0","id":7,"id":8,"method":"tools/list"}',
    "nan": b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":NaN}}',
    "deep": b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":' + b"[" * 600 + b"]" * 600 + b"}",
    "a batch": [CALL],
    "an empty batch": [],
    "an id twice": [CALL, CALL],
    "spaces and slashes": b'{ "id" : 7,\n "method":"tools\\/call", "jsonrpc":"2.0", "params" : {"name":"get_it","arguments":{"x":1.50}} }',
    "a ping": request("ping", id=7),
    "large": request("tools/call", {"name": "get_it", "arguments": {"x": "y" * 60_000}}, id=7),
    "larger": request("tools/call", {"name": "get_it", "arguments": {"x": "y" * 200_000}}, id=7),
    "too large": request("tools/call", {"name": "get_it", "arguments": {"x": "y" * 1_200_000}}, id=7),
}  # fmt: skip


async def twice(side: Side, raw: Callable[[RawClient], bytes], times: int = 3) -> None:
    """The same request on one connection, as long as that lasts."""
    client = side.client(timeout=8)
    for _ in range(times):
        data = raw(client)
        try:
            await client.send(data)
            await side.take(client, method=data.split(b" ", 1)[0].decode())
        except ConnectionError as error:
            side.note(type(error).__name__)
            client = side.client()


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_a_head_may_say(both, name):
    await both(
        {**of_call(json_answer({"content": []})), "*": status_answer(405)},
        lambda side: twice(side, lambda client: client.build(CALL, **REFUSALS[name])),
        short=None,
    )


@pytest.mark.parametrize("name", BODIES)
async def test_what_a_body_may_say(both, name):
    answer = json_answer({"content": []})
    await both(
        {"tools/call": answer, "tools/list": answer, "*": status_answer(202)},
        lambda side: twice(side, lambda client: client.build(BODIES[name])),
        short=None,
    )


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18"])
async def test_batches(both, revision):
    def answer(received: Received) -> Steps:
        many = received.message if isinstance(received.message, list) else [received.message]
        return [whole(compact([result(id=each["id"]) for each in many if "id" in each]))]

    async def play(side: Side) -> None:
        calls = [{**CALL, "id": 1}, {**CALL, "id": 2}, notification("notifications/initialized")]
        denied = request("tools/call", {"name": "denied_it"}, id=3)
        for message in (calls, [*calls, denied], [denied], calls[2:], [request("initialize", {}, id=1)]):
            await twice(side, lambda client, message=message: client.build(message, revision=revision), 2)

    await both({"*": answer, **of_call(answer)}, play)


@pytest.mark.parametrize(
    "section",
    [
        {"policies": {"all": {"max_requests_per_minute": 1, "burst": 1}}},
        {"policies": {"all": {"max_request_size": 60}}},
        {"policies": {"all": {"deny_status": 403, "allowed_tools": []}}},
        {"policies": {"all": {"allowed_upstreams": []}}},
        {"limits": {"max_header_size": 300}},
        {"limits": {"inline_message": 100}},
        {"upstreams": {"up": {"headers": {"Authorization": "Bearer own", "X-Own": "1", "User-Agent": "me"}}}},
        {"upstreams": {"up": {"force_close": True}}},
        {"upstreams": {"up": {"max_result_size": 20}}},
    ],
    ids=str,
)
async def test_what_a_configuration_may_say(both, section):
    await both(
        of_call(json_answer({"content": []})),
        lambda side: twice(side, lambda client: client.build(CALL, modern=True), 4),
        short=None,
        **section,
    )


async def test_what_the_paths_are(both):
    async def play(side: Side) -> None:
        for target in (
            "/mcp",
            "/up/mcp?x=1",
            "/up/mcp?access_token=x",
            "/none/mcp",
            "/up/mcp/",
            "//up/mcp",
            "/up/sse",
            "/up/%6dcp",
        ):

            def raw(client: RawClient, target: str = target) -> bytes:
                return client.build(CALL).replace(b"/up/mcp", target.encode(), 1)

            await twice(side, raw, 2)
        absolute = side.client()
        await side.ask(absolute, absolute.build(CALL).replace(b"/up/mcp", absolute.url.encode(), 1))

    await both(of_call(json_answer({"content": []})), play)


# -- how requests come ------------------------------------------------------------------------------------------------

FINE_ANSWERS: dict[str, Any] = {
    **of_call(lambda received: [whole(compact(result(id=received.id)))]),
    "*": status_answer(202),
}


def waits_for_go(*ids: int) -> dict[str, Any]:
    """Answers; those with these ids come when somebody signals ``go``."""

    def answer(received: Received) -> Steps:
        waits = [WaitFor("go")] if received.id in ids else []
        return [*waits, whole(compact(result(id=received.id)))]

    return {**FINE_ANSWERS, **of_call(answer)}


def numbered(client: RawClient, number: int, **build: Any) -> bytes:
    return client.build({**CALL, "id": number}, **build)


@pytest.mark.parametrize("learnt", [False, True], ids=["first", "after others"])
async def test_a_request_in_two_reads(both, learnt):
    """Wherever it is cut: in the request line, a field, between CR and LF, at the end of the head, in the body."""

    async def play(side: Side) -> None:
        client = side.client()
        raw = client.build(CALL)
        end = raw.index(b"\r\n\r\n")
        for at in (
            1,
            5,
            20,
            raw.index(b"\r\n") + 1,
            raw.index(b"\r\n") + 2,
            end,
            end + 1,
            end + 2,
            end + 3,
            end + 4,
            end + 5,
            len(raw) - 1,
        ):
            if at == 1 or not learnt:
                client = side.client()
            if learnt:
                await side.ask(client, raw)
            await client.send(raw, sizes=[at])
            await side.take(client)
            await side.ask(client, raw)

    await both(FINE_ANSWERS, play)


@pytest.mark.parametrize("count", [2, 3, 20, 45])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "events"])
async def test_pipelined_in_one_write(both, count, stream):
    answers = of_call(sse_answer({"result": {"content": []}})) if stream else FINE_ANSWERS

    async def play(side: Side) -> None:
        client = side.client()
        for first in (0, count):
            await client.send(b"".join(numbered(client, first + n) for n in range(count)))
            for _ in range(count):
                await side.take(client)

    await both(answers, play, short=None)


@pytest.mark.parametrize("more", [1, 2, 20])
async def test_sent_while_a_call_is_under_way(both, more):
    """What comes early waits its turn, whole requests and parts of one."""

    async def play(side: Side) -> None:
        client = side.client()
        await client.send(numbered(client, 0))
        await side.upstream.received()
        for n in range(more):
            await client.send(numbered(client, n + 1), every=90, pause=0.001)
        last = numbered(client, more + 1)
        await client.send(last[:50])
        side.upstream.signal("go")
        for _ in range(more + 1):
            await side.take(client)
        await client.send(last[50:])
        await side.take(client)
        await side.ask(client, numbered(client, more + 2))

    await both(waits_for_go(0), play)


async def test_refused_while_pipelined(both):
    """Exchanges that end at once, one after the other, with something waiting each time."""

    async def play(side: Side) -> None:
        client = side.client()
        await client.send(numbered(client, 0))
        await side.upstream.received()
        kinds: list[dict[str, Any]] = [
            {"token": "x"},
            {},
            {"headers": {"Accept": "text/html"}},
            {"session": "x"},
            {"method": "GET"},
        ]
        for n in range(40):
            await client.send(numbered(client, n + 1, **kinds[n % 5]), every=1000)
        side.upstream.signal("go")
        for _ in range(41):
            await side.take(client)

    await both(waits_for_go(0), play)


async def test_garbage_behind_an_early_request(both):
    """A request that came whole is served, whatever comes behind it while another one is under way."""

    async def play(side: Side) -> None:
        client = side.client(timeout=20)
        await client.send(numbered(client, 0))
        await side.upstream.received()
        (connection,) = side.server.connections
        for early in (numbered(client, 1), b"NOT HTTP\r\n\r\n"):
            before = len(connection.early or ()) + len(connection._messages)
            await client.send(early)
            await until(lambda before=before: len(connection.early or ()) + len(connection._messages) > before)
        side.upstream.signal("go")
        for _ in range(3):
            await side.take(client)

    await both(waits_for_go(0), play)


async def test_more_than_a_buffer_early(both):
    """A client that goes on sending is not read any more, and nothing of it is lost."""
    large = request("tools/call", {"name": "get_it", "arguments": {"x": "y" * 50_000}})

    async def play(side: Side) -> None:
        client = side.client(timeout=20)
        await client.send(numbered(client, 0))
        await side.upstream.received()
        sending = asyncio.create_task(client.send(b"".join(client.build({**large, "id": n + 1}) for n in range(60))))
        (connection,) = side.server.connections
        await until(lambda: connection._buffer_paused or connection._reading_paused)
        side.upstream.signal("go")
        for _ in range(61):
            await side.take(client)
        await sending

    await both(waits_for_go(0), play)


async def test_one_connection_for_everything(both):
    """The lanes take turns on one connection."""

    async def play(side: Side) -> None:
        client = side.client()
        document = compact(CALL)
        chunked = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        plain = numbered(client, 1)
        for _ in range(2):
            await side.ask(client, plain)
            await side.ask(client, client.build(method="GET"))
            await side.ask(client, client.build(method="DELETE", session="x"))
            await side.ask(client, client.build(method="OPTIONS", headers={"Authorization": None}))
            await side.ask(client, plain)
            await side.ask(client, client.build(notification("notifications/initialized")))
            await side.ask(client, plain.replace(b"/up/mcp", b"/nothing", 1))
            await side.ask(client, b"\r\n" + plain)
            await side.ask(client, plain)
            await side.ask(client, client.build(CALL, token="x"))
            await side.ask(
                client,
                plain,
            )
            await client.send(client.build(CALL, extra=[("Expect", "100-continue")]))
            await side.take(client)
            await side.ask(client, plain)
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(document), document)
        await side.ask(client, client.build(chunks, headers=chunked, extra=[("Transfer-Encoding", "chunked")]))
        side.note(await client.closed())

    await both(FINE_ANSWERS, play)


@pytest.mark.parametrize(
    "first",
    [b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"GARBAGE\r\n\r\n", b"\x00", b"POST /up/mcp HTTP/1.1\r\n\r\n", b" "],
    ids=repr,
)
@pytest.mark.parametrize("how", ["before", "beside", "after"])
async def test_bytes_that_are_no_request(both, first, how):
    async def play(side: Side) -> None:
        for learnt in (False, True):
            client = side.client()
            raw = numbered(client, 1)
            try:
                if learnt:
                    await side.ask(client, raw)
                if how == "before":
                    await client.send(first + raw)
                elif how == "after":
                    await client.send(raw + first)
                else:
                    await client.send(first + raw, sizes=[len(first)], pause=0.005)
                await side.take(client)
                await client.send(raw)
                await side.take(client)
            except ConnectionError as error:
                side.note(type(error).__name__)

    await both(FINE_ANSWERS, play, short=None)


async def test_a_body_that_looks_like_a_request(both):
    """What stands in a body is never a head, wherever the reads part."""

    async def play(side: Side) -> None:
        client = side.client()
        inner = numbered(client, 2)
        await side.ask(client, inner)  # known from here on
        quoted = client.build(inner)  # a request whose body is that request
        end = quoted.index(b"\r\n\r\n") + 4
        for sizes in ([end], [end + 1], [], [5, end - 5]):
            other = side.client()
            await side.ask(other, inner)
            await other.send(quoted, sizes=sizes)
            await side.take(other)
            await side.ask(other, inner)
        # A length that takes in the next request.
        swallowing = client.build(compact(CALL) + inner)
        await client.send(swallowing, sizes=[len(swallowing) - len(inner)])
        await side.take(client)
        # A length that is too short: the rest is no request.
        await client.send(client.build(compact(CALL), headers={"Content-Length": "3"}, extra=[("Content-Length", "3")]))
        await side.take(client)

    await both(FINE_ANSWERS, play)


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9"])
@pytest.mark.parametrize("connection", [None, "close", "keep-alive", "Upgrade"])
async def test_versions(both, version, connection):
    async def play(side: Side) -> None:
        client = side.client()
        for _ in range(2):
            raw = client.build(CALL, extra=[("Connection", connection)] if connection else [])
            try:
                await client.send(raw.replace(b"HTTP/1.1", version, 1))
                await side.take(client)
            except ConnectionError as error:
                side.note(type(error).__name__)

    await both(FINE_ANSWERS, play, short=None)
    if version == b"HTTP/1.1":
        await both(of_call(sse_answer({"result": {"content": []}})), play, short=None)


# -- clients that leave, and clients that do not read -----------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("when", ["waiting", "collecting", "streaming", "early"])
@pytest.mark.parametrize("in_session", [False, True], ids=["stateless", "session"])
async def test_a_client_that_leaves(both, leave, when, in_session):
    scripts: dict[str, list[Step]] = {
        "waiting": [Hang()],
        "collecting": [Send(whole().data[:-5]), Hang()],
        "streaming": [
            STREAM,
            Event(b"", id="1"),
            Event(notification("notifications/message", {"level": "info", "data": "x"})),
            Hang(),
        ],
        "early": [Hang()],
    }
    server = session_server({"tools/call": answer_with(*scripts[when])})

    async def play(side: Side) -> None:
        client = side.client()
        if in_session:
            await client.initialize()
        await client.send(client.build(CALL))
        await side.upstream.received(3 if in_session else 1)
        if when == "streaming":
            response = await client.response()
            for _ in range(2):
                await response.frame()
        if when == "early":
            await client.send(client.build(CALL) + client.build(CALL)[:30])
        left = getattr(client, leave)()
        if leave != "half_close":
            await left
        await side.upstream.deserted()
        await side.settle()

    await both(lambda: ScriptedUpstream(server), play)


async def test_a_client_that_does_not_read(both):
    """The upstream is not read any more either; memory is bounded by buffers."""
    note = notification("notifications/message", {"level": "info", "data": "x" * 2000})
    script = of_call(answer_with(STREAM, Repeat(Event(note), 12_000), Event(result()), End()))

    async def play(side: Side) -> None:
        client = side.client(read_ahead=1024, timeout=30)
        await client.send(client.build(CALL))
        response = await client.response()
        sent = -1
        while side.upstream.bytes_sent != sent:
            sent = side.upstream.bytes_sent
            await asyncio.sleep(0.1)
        assert sent < 12_000 * 2000
        await response.read()
        side.note([len(response.body_raw), response.complete])
        await side.ask(client, client.build(request("ping", id=1)))

    await both(script, play)


async def test_a_client_that_reads_nothing_is_cut(both):
    note = notification("notifications/message", {"level": "info", "data": "x" * 2000})
    script = of_call(answer_with(STREAM, Repeat(Event(note), 40_000), Hang()))

    async def play(side: Side) -> None:
        client = side.client(read_ahead=1024)
        await client.send(client.build(CALL))
        await side.upstream.received()
        await side.upstream.deserted()
        await side.settle()

    # How much it took before is up to the kernel.
    await both(script, play, limits={"write_timeout": "200ms"}, but="/bytes/out")


# -- time -------------------------------------------------------------------------------------------------------------

SILENT: dict[str, list[Step]] = {
    "before the head": [Hang()],
    "in the head": [Send(b"HTTP/1.1 200 OK\r\n"), Hang()],
    "after continue": [Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Hang()],
    "in the document": [Send(whole().data[:-5]), Hang()],
    "before the document": [Send(whole().data[: -len(FINE)]), Hang()],
    "in a large document": [Send(whole(LARGE).data[:80_000]), Hang()],
    "on the stream": [STREAM, Comment("a"), Hang()],
    "in an event": [STREAM, Chunk(b"data: {"), Hang()],
    "in a large event": [STREAM, Chunk(b"data: " + LARGE[:80_000]), Hang()],
    "with an id": [STREAM, Event(b"", id="1"), Hang()],
    "after the answer": [STREAM, Event(result()), Hang()],
    "after the answer, with a length": [Head(200, {**BARE_STREAM, "Content-Length": "9999"}, False), Send(b"data: " + FINE + b"\n\n"), Hang()],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "in_session"),
    [(name, each) for name in SILENT for each in (False, True) if not each or "after" not in name],
)
async def test_an_upstream_that_falls_silent(both, name, in_session):
    server = session_server({"tools/call": answer_with(*SILENT[name])})

    async def play(side: Side) -> None:
        client = side.client()
        if in_session:
            await client.initialize()
        await side.ask(client, CALL)
        await side.settle()
        await side.upstream.deserted()

    limits = {"first_byte_timeout": "150ms", "idle_timeout": "150ms", "keepalive_interval": "40ms"}
    await both(lambda: ScriptedUpstream(server), play, limits=limits)


async def test_comments_keep_a_stream_open(both):
    script = of_call(answer_with(STREAM, Comment("hello"), WaitFor("go"), Event(result()), End()))

    async def play(side: Side) -> None:
        client = side.client()
        await client.send(client.build(CALL))
        response = await client.response()
        await response.frame()
        for _ in range(3):
            _, frame = await response.frame()
            assert frame.raw == b": keep-alive\n\n"
        side.upstream.signal("go")
        side.note(await response.answer())

    await both(script, play, limits={"keepalive_interval": "20ms"})


@pytest.mark.parametrize(
    "steps", [[WaitFor("go"), whole()], [STREAM, WaitFor("go"), Event(result()), End()]], ids=["json", "events"]
)
async def test_a_long_call_is_no_idle_connection(both, steps):
    async def play(side: Side) -> None:
        client = side.client()
        await client.send(client.build(CALL))
        await side.upstream.received()
        (connection,) = side.server.connections
        for _ in range(3):
            await asyncio.sleep(0.1)
            assert connection.connected
        side.upstream.signal("go")
        await side.take(client)
        side.note(await client.closed())

    await both(of_call(answer_with(*steps)), play, limits={"connection_idle_timeout": "60ms"})


async def test_a_header_that_does_not_come(both):
    """Also after other requests, and after what was refused at once; but a connection that is idle is no late header."""

    async def play(side: Side) -> None:
        for before in ([], [{}], [{"token": "x"}], [{}, {"token": "x"}, {}], [{"token": "x"}, {"token": "x"}]):
            client = side.client()
            for build in before:
                await side.ask(client, client.build(CALL, **build))
            await client.send(client.build(CALL)[:40])
            await side.take(client)
            side.note(await client.closed())

    await both(FINE_ANSWERS, play, limits={"header_timeout": "80ms"}, short=None)


@pytest.mark.parametrize(
    "build", [{}, {"token": "x"}, {"method": "GET"}, {"headers": {"Accept": "text/html"}}], ids=str
)
async def test_an_idle_connection_is_no_late_header(both, build):
    async def play(side: Side) -> None:
        client = side.client()
        for _ in range(2):
            await side.ask(client, client.build(CALL, **build))
            await asyncio.sleep(0.15)
            (connection,) = side.server.connections
            assert connection.connected
        side.note(client.connection.unread)

    await both(FINE_ANSWERS, play, limits={"header_timeout": "50ms"}, short=None)


async def test_too_many_connections(both):
    async def play(side: Side) -> None:
        clients = [side.client() for _ in range(2)]
        for client in clients:
            await side.ask(client, CALL)
        third = side.client()
        with pytest.raises(ConnectionError):
            await third.send(third.build(CALL))
            await third.response()
        await clients[0].close()
        await until(lambda: len(side.server.connections) < 2)
        await side.ask(side.client(), CALL)

    await both(FINE_ANSWERS, play, limits={"max_connections": 2})


async def test_too_many_at_once(both):
    script = of_call(answer_with(WaitFor("go"), whole()))

    async def play(side: Side) -> None:
        one = side.client()
        await one.send(one.build(CALL))
        await side.upstream.received()
        await side.ask(side.client(), CALL)
        await side.ask(side.client(BOB), request("tools/call", {"name": "echo"}, id=7))
        side.upstream.signal("go")
        await side.take(one)

    await both(script, play, policies={"all": {"max_concurrent_calls": 1}}, upstreams={"up": {"connections": 1}})


# -- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json", [True, False], ids=["json", "events"])
@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_session(both, json, revision):
    async def play(side: Side) -> None:
        client = side.client()
        side.note(await client.initialize(revision=revision, capabilities={"elicitation": {}, "sampling": {}}))
        for message in (
            request("tools/list", id=1),
            request("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id=2),
            request("tools/call", {"name": "progress", "arguments": {"count": 4}, "_meta": {"progressToken": 3}}, id=3),
            request("tools/call", {"name": "fail", "arguments": {}}, id=4),
            request("tools/call", {"name": "big", "arguments": {"bytes": 200_000}}, id=5),
            request("ping", id=6),
            notification("notifications/cancelled", {"requestId": 1}),
            request("no/such", id=7),
        ):
            await side.ask(client, message)
            await side.ask(client, message)
        stream = await client.post(request("tools/call", {"name": "elicit", "arguments": {}}, id="e"))
        _, frame = await stream.frame()
        asked = json_of(frame.data)
        other = side.client(session=client.session, revision=client.revision)
        await side.ask(other, {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})
        await side.ask(other, {"jsonrpc": "2.0", "id": "forged", "result": {"action": "decline"}})
        side.note(await stream.answer())
        listening = side.client(session=client.session, revision=client.revision)
        await listening.send(listening.build(method="GET"))
        response = await listening.response()
        side.upstream.push(notification("notifications/message", {"level": "info", "data": "x"}))
        _, frame = await response.frame()
        side.note(frame.raw.decode())
        side.upstream.push(None)
        await response.read()
        foreign = side.client(BOB, session=client.session, revision=client.revision)
        await side.ask(foreign, request("ping", id=1))
        await side.ask(client, request("ping", id=1), revision="2024-11-05")
        await side.ask(client, client.build(method="DELETE"))
        for _ in range(2):
            await side.ask(client, request("ping", id=1))

    await both(lambda: ScriptedMcp(json=json), play, hooks=["policy", "sanitize"])


@pytest.mark.parametrize("held", [False, True], ids=["json", "events"])
async def test_initialize(both, held):
    """The session id goes out with the head, so the events of this answer are held until it is known."""
    opened = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    headers = {"Mcp-Session-Id": "s1"}
    steps = [note("before"), {"result": opened}, Hang() if held else note("after")]
    script = {
        "initialize": sse_answer(*steps, headers=headers) if held else json_answer(opened, headers=headers),
        "ping": lambda received: json_answer({})(received) if received.header("mcp-session-id") == "s1" else [Close()],
    }

    async def play(side: Side) -> None:
        for _ in range(2):
            client = side.client()
            side.note(await client.initialize())
            await side.ask(client, request("ping", id=1))

    await both(script, play)


async def test_modern_calls_and_subscriptions(both):
    def listening(received: Received) -> Steps:
        meta = {META + "subscriptionId": received.id}
        acknowledged = notification(
            "notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": {"toolsListChanged": True}}
        )
        changed = notification("notifications/tools/list_changed", {"_meta": meta})
        return [STREAM, Event(acknowledged), WaitFor("go"), Event(changed), Hang()]

    async def play(side: Side) -> None:
        client = side.client()
        for name in ("echo", "progress", "elicit", "denied_it"):
            await side.ask(client, request("tools/call", {"name": name, "arguments": {}}, id=7), **MODERN)
        listener = side.client()
        message = request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="sub")
        await listener.send(listener.build(message, **MODERN))
        response = await listener.response()
        side.note((await response.frame())[1].raw.decode())
        side.upstream.signal("go")
        side.note((await response.frame())[1].raw.decode())
        assert side.gateway.pools["up"].streams == 1
        await listener.close()
        await side.settle()

    await both(lambda: ScriptedMcp(methods={"subscriptions/listen": listening}), play)


# -- upstreams and their connections ----------------------------------------------------------------------------------


async def test_an_upstream_that_closes_idle_connections(both):
    async def play(side: Side) -> None:
        client = side.client()
        for n in range(4):
            await side.ask(client, numbered(client, n))
            await side.upstream.idle()
            if n % 2:
                await side.upstream.inject([Close()])
                await until(lambda: not side.upstream.open_connections)
        side.note(side.upstream.connections_made)

    await both(FINE_ANSWERS, play)


@pytest.mark.parametrize(
    "unasked",
    [
        whole(compact(result("unasked"))),
        Send(whole(compact(result("unasked"))).data[:30]),
        Send(whole(compact(result("unasked"))).data[:-3]),
        Send(b"\r\n"),
        Send(b"x"),
        Send(b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["answer", "half a head", "half a body", "line", "byte", "continue"],
)
@pytest.mark.parametrize("learnt", [1, 2, 3])
async def test_an_answer_that_nobody_asked_for(both, unasked, learnt):
    """It must never become the answer to the next request, whether the head of the last was parsed or known."""

    async def play(side: Side) -> None:
        client = side.client()
        for _ in range(learnt):
            await side.ask(client, numbered(client, 7))
        await side.upstream.idle()
        await side.upstream.inject([unasked])
        connection = side.upstream.connections[0]
        await asyncio.sleep(0.02)
        response = await side.ask(client, numbered(client, 7))
        assert b"unasked" not in response.body_raw
        for _n in range(2):
            response = await side.ask(client, numbered(client, 7))
            assert b"unasked" not in response.body_raw
        await until(lambda: not connection.open)

    await both(FINE_ANSWERS, play)


async def test_heads_that_are_alike(both):
    """A known head says what the parser made of it; everything else of an answer is looked at each time."""
    bodies = [
        FINE,
        FINE.replace(b"fine", b"FINE"),
        compact(result("nice", 8)),
        FINE[:-1] + b"]",
        b" " * len(FINE),
        FINE,
    ]

    def answer(received: Received) -> Steps:
        n = int(received.params["arguments"]["n"])
        assert len(bodies[n]) == len(FINE)
        return [whole(bodies[n])]

    async def play(side: Side) -> None:
        client = side.client()
        for n in [0, 0, *range(6), 0]:
            await side.ask(client, request("tools/call", {"name": "get_it", "arguments": {"n": n}}, id=7))

    await both(of_call(answer), play)


async def test_a_known_head_and_a_body_in_another_read(both):
    end = len(whole().data) - len(FINE)
    cuts = [(), (), (end,), (end + 5,), (10,), ()]

    async def play(side: Side) -> None:
        client = side.client()
        for _ in range(6):
            await side.ask(client, CALL)

    turn = itertools.count()
    await both(of_call(lambda _: [SplitAt(cuts[next(turn) % 6], pause=0.01), whole()]), play)


# -- stopping ---------------------------------------------------------------------------------------------------------

UNDER_WAY: dict[str, list[Step]] = {
    "waiting": [Signal("there"), Hang()],
    "collecting": [Send(whole().data[:-5]), Signal("there"), Hang()],
    "streaming": [STREAM, Event(note("x")), Signal("there"), Hang()],
    "large": [STREAM, Chunk(b"data: " + LARGE[:90_000]), Signal("there"), Hang()],
    "ends in time": [STREAM, Event(note("x")), Signal("there"), WaitFor("draining"), Event(result()), End()],
    "answers in time": [Signal("there"), WaitFor("draining"), whole()],
}  # fmt: skip


@pytest.mark.parametrize("name", UNDER_WAY)
async def test_a_gateway_that_stops(both, name):
    async def play(side: Side) -> None:
        client = side.client()
        await client.send(client.build(CALL))
        await side.upstream.signalled("there")
        idle = side.client()
        await side.ask(idle, request("ping", id=1))
        gateway = side.gateway
        gateway.site.draining = True
        draining = asyncio.create_task(gateway.handler.drain(0.2))
        await side.ask(idle, request("ping", id=1))
        side.upstream.signal("draining")
        try:
            await side.take(client)
        except ConnectionError as error:
            side.note(type(error).__name__)
        await draining
        assert not gateway.handler.relays

    await both({**FINE_ANSWERS, **of_call(answer_with(*UNDER_WAY[name]))}, play, limits={"keepalive_interval": "5s"})


# -- what is remembered of heads --------------------------------------------------------------------------------------


async def test_a_token_that_expires_between_two_requests(tmp_path, monkeypatch):
    """A head that passed once passes until its token expires, and no longer."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1.5)
    clients = {"alice": {"token_sha256": None, "tokens": [{"sha256": digest(ALICE), "expires": soon.isoformat()}]}}
    async with on_lane("short", ScriptedUpstream(FINE_ANSWERS), tmp_path, monkeypatch, clients=clients) as side:
        client = side.client()
        raw = client.build(CALL)
        for _ in range(3):
            assert (await side.ask(client, raw)).status == 200
        assert len(side.server.lanes.known) == 1

        async def expired() -> bool:
            return (await side.ask(client, raw)).status == 401

        async with asyncio.timeout(5):
            while not await expired():
                await asyncio.sleep(0.05)
        assert datetime.datetime.now(datetime.UTC) >= soon
        assert await expired()


async def test_whose_request_it_is(tmp_path, monkeypatch):
    """A known head serves any connection, and everything else is that connection's own: address, session, limits."""
    policies = {"all": {"max_requests_per_minute": 60, "burst": 4}}
    make = ScriptedUpstream(FINE_ANSWERS)
    async with on_lane("short", make, tmp_path, monkeypatch, policies=policies) as side:
        raw = side.client().build(CALL)
        statuses = []
        for last in (1, 2, 3, 4, 5, 6):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", side.gateway.config.listen.port, local_addr=(f"127.0.0.{last}", 0)
            )
            writer.write(raw)
            statuses.append((await reader.readuntil(b"\r\n")).split()[1])
            writer.close()
            await writer.wait_closed()
        await side.settle()
        assert statuses == [b"200"] * 4 + [b"429"] * 2
        remotes = [each["remote"] for each in side.running.records("request.") if each["event"] != "request.accepted"]
        assert remotes == [f"127.0.0.{last}" for last in range(1, 7)]
        assert len(side.server.lanes.known) == 1
        # One byte of another token is another head.
        other = side.client("x" * len(ALICE))
        assert (await side.ask(other, CALL)).status == 401
        assert len(side.server.lanes.known) == 2


async def test_heads_are_not_remembered_without_bound(tmp_path, monkeypatch):
    async with on_lane("short", ScriptedUpstream(FINE_ANSWERS), tmp_path, monkeypatch) as side:
        client = side.client()
        for n in range(1100):
            raw = client.build(CALL, token="x", extra=[("X-N", str(n))])
            await client.send(raw)
            assert (await client.response()).status == 401
        assert 0 < len(side.server.lanes.known) <= 1024
        before = len(side.server.lanes.known)
        await side.ask(client, client.build(CALL, extra=[("X-Long", "x" * 3000)]))
        assert len(side.server.lanes.known) == before


# -- the same stream of bytes, in any reads ---------------------------------------------------------------------------


@pytest.fixture
async def two(tmp_path, monkeypatch, no_task_is_left):
    """A gateway on either lane, each before an upstream that says what it got."""

    def say(received: Received) -> Steps:
        return [whole(compact(result(received.body.decode(), received.id)))]

    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                on_lane(lane, ScriptedUpstream({**FINE_ANSWERS, **of_call(say)}), tmp_path, monkeypatch)
            )
            for lane in ("full", "short")
        ]


def pieces() -> Iterator[tuple[list[int], list[float]]]:
    """Sequences of requests (as numbers of kinds) with the places where the reads part."""
    chosen = random.Random(7)
    for _ in range(60):
        kinds = [chosen.randrange(9) for _ in range(chosen.randrange(2, 7))]
        yield kinds, [chosen.random() for _ in range(chosen.randrange(6))]


def one_of(kind: int, client: RawClient, n: int) -> bytes:
    quoted = request("tools/call", {"name": "get_it", "arguments": {"x": numbered(client, 1).decode()}}, id=n)
    kinds: list[Callable[[], bytes]] = [
        lambda: numbered(client, n),
        lambda: numbered(client, n, token="x"),
        lambda: client.build(notification("notifications/initialized")),
        lambda: client.build(method="GET"),
        lambda: b"\r\n" + numbered(client, n),
        lambda: numbered(client, n).replace(b"/up/mcp", b"/no/mcp", 1),
        lambda: client.build(quoted),
        lambda: client.build(compact(CALL) + b" " * n),
        lambda: client.build(b"GET /up/mcp HTTP/1.1\r\n\r\n"),
    ]
    return kinds[kind]()


async def test_any_split_of_the_same_bytes(two):
    """Requests of every kind one after the other, parted anywhere: the same exchanges on both lanes, in this order."""
    for kinds, cuts in pieces():
        seen = []
        for side in two:
            async with side.client(timeout=10) as client:
                raw = b"".join(one_of(kind, client, n) for n, kind in enumerate(kinds))
                places = [0, *sorted({int(each * len(raw)) for each in cuts} - {0}), len(raw)]
                await client.send(raw, sizes=[after - before for before, after in itertools.pairwise(places)])
                seen.append([plain(shown(await read_whole(client))) for _ in kinds])
        assert seen[0] == seen[1], (kinds, cuts)
    assert two[1].lanes
    assert not two[0].lanes


async def read_whole(client: RawClient) -> Response:
    response = await client.response()
    await response.read()
    return response


# -- nothing is left --------------------------------------------------------------------------------------------------


async def test_nothing_is_left_after_a_thousand_exchanges(tmp_path, monkeypatch):
    quick = [
        name
        for name, steps in ANSWERS.items()
        if not any(isinstance(each, SplitAt | Repeat) for each in steps) and "huge" not in name and "large" not in name
    ]

    def answer(received: Received) -> Steps:
        return ANSWERS[quick[int(received.params["arguments"]["n"]) % len(quick)]]

    async with on_lane(
        "short", ScriptedUpstream(of_call(answer)), tmp_path, monkeypatch, limits={"max_message_size": "1MiB"}
    ) as side:
        numbers = iter(range(1000))

        async def one() -> None:
            client = side.client()
            for n in numbers:
                message = request("tools/call", {"name": "get_it", "arguments": {"n": n}}, id=7)
                try:
                    await client.send(client.build(message, **({"token": "x"} if n % 10 == 3 else {})))
                    if n % 10 == 7:
                        await client.close()
                        client = side.client()
                        continue
                    response = await client.response()
                    await response.read()
                except ConnectionError:
                    client = side.client()

        await asyncio.gather(*(one() for _ in range(8)))
        await side.settle()
        pool = side.gateway.pools["up"]
        assert side.lanes >= 900
        assert (pool.calls, pool.streams) == (0, 0)
        assert not side.gateway.handler.relays
        await until(lambda: not pool._tasks)
        await side.upstream.idle()
        await until(lambda: side.upstream.open_connections == pool.idle_connections)
        assert pool.idle_connections <= 8
        for connection in side.server.connections:
            assert connection.side.lane is None
            assert connection.side.alarm._due is None
            assert not connection.early
        assert len(side.server.lanes.known) <= 1024
        assert len(pool._known._heads) <= 256
        held = sum(len(each.connector._acquired) for each in (pool._calls_session, pool._streams_session))
        assert held == pool.idle_connections
        await side.close_clients()
        await until(lambda: not side.server.connections)
        gc.collect()
        left = [each for each in gc.get_objects() if isinstance(each, ShortLane)]
        assert not left


# -- the switch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["on", "off", None])
@pytest.mark.parametrize("configured", [True, False])
async def test_the_environment_stands_above_the_configuration(tmp_path, monkeypatch, named, configured):
    if named is None:
        monkeypatch.delenv(SHORT_LANE, raising=False)
    else:
        monkeypatch.setenv(SHORT_LANE, named)
    document = configuration(
        tmp_path / "audit.jsonl", {"up": "http://127.0.0.1:1/mcp"}, listen={"short_lane": configured}
    )
    async with Gateway(validate(document, source="test")) as gateway:
        assert gateway.config.listen.short_lane is (configured if named is None else named == "on")
        assert bool(gateway._runners[0].server.lanes.pools) is gateway.config.listen.short_lane


@pytest.mark.parametrize("named", ["", "yes", "ON"])
def test_a_lane_that_does_not_exist(tmp_path, monkeypatch, named):
    monkeypatch.setenv(SHORT_LANE, named)
    config = validate(configuration(tmp_path / "audit.jsonl", {"up": "http://127.0.0.1:1/mcp"}), source="test")
    with pytest.raises(ConfigErrors, match="expected on or off"):
        Gateway(config)
