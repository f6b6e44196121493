"""Messages through the gateway as a client and a server see them: bytes, headers, order, one answer each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp_sse_client.client import EventSource

from gateway.harness.client import request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import (
    Chunk,
    Close,
    End,
    Event,
    Hang,
    Head,
    Json,
    Repeat,
    Reset,
    Send,
    Signal,
    WaitFor,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)
from gateway.harness.upstream import ScriptedUpstream, unused_port

from .conftest import ALICE, BOB, until

CALL = request("tools/call", {"name": "get_it", "arguments": {"city": "Oslo"}}, id=7)
STREAM_HEAD = Head(200, {"Content-Type": "text/event-stream"})


def answer(text: str = "fine", id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}}


# Larger than is held, and no result, which could be larger.
LARGE_ERROR = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "x" * 300_000}}


def of_call(script: Any) -> dict[str, Any]:
    """A script for a stateless old server: tools/call as given, everything else refused."""
    return {"tools/call": script}


# -- what passes ------------------------------------------------------------------------------------------------------


async def test_a_json_answer_passes_byte_for_byte(serve):
    """Rules 2.11 and 2.21."""
    body = b'{ "result" : {"content":[], "n": 1.0, "big":12345678901234567890,"e":"\\u0041"}, "id":7,"jsonrpc":"2.0"}'
    async with (
        ScriptedUpstream(of_call(answer_with(Json(body)))) as upstream,
        (await serve(upstream.url)).client() as c,
    ):
        response = await c.post(CALL)
        assert response.status == 200
        assert response.header("content-type") == "application/json"
        assert await response.read() == body


async def test_events_pass_byte_for_byte(serve):
    """Rules 2.21, 4.10 and 4.12."""
    raw = (
        b": hello\n\n"
        b"retry: 500\r\ndata:\r\n\r\n"
        b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message",\ndata:  "params":'
        b'{"level":"info","data":"\\u00e9"}}\n\n'
        b'data:{"jsonrpc":"2.0","id":7,"result":{"content":[]}}\n\n'
    )
    for size in (1, 7, len(raw)):
        pieces = [Chunk(raw[at : at + size]) for at in range(0, len(raw), size)]
        async with (
            ScriptedUpstream(of_call(answer_with(STREAM_HEAD, *pieces, End()))) as upstream,
            (await serve(upstream.url)).client() as client,
        ):
            response = await client.post(CALL)
            assert response.header("content-type") == "text/event-stream"
            assert response.header("cache-control") == "no-cache, no-transform"
            assert response.header("x-accel-buffering") == "no"
            assert await response.read() == raw
            assert response.complete


async def test_an_independent_client_reads_the_events(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize()
            headers = {
                "Authorization": f"Bearer {ALICE}",
                "Mcp-Session-Id": client.session,
                "MCP-Protocol-Version": client.revision,
            }
            messages = [
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/message",
                    "params": {"level": "info", "data": n * "\u2028x"},
                }
                for n in range(5)
            ]
            for message in messages:
                upstream.push(message)
            seen = []
            async with (
                aiohttp.ClientSession() as session,
                EventSource(gateway.url(), session=session, headers=headers) as source,
            ):
                async for event in source:
                    seen.append((event.type, json.loads(event.data)))
                    if len(seen) == len(messages):
                        break
            assert seen == [("message", message) for message in messages]


async def test_a_request_is_written_anew(serve):
    body = (
        b'{ "id" : 7,\n "method":"tools\\/call", "jsonrpc":"2.0", "params" : {"name":"get_it","arguments":{"x":1.50}} }'
    )
    async with ScriptedUpstream(of_call(json_answer({}))) as upstream, (await serve(upstream.url)).client() as client:
        await (await client.post(body)).read()
        received = await upstream.received()
    assert (
        received.body
        == b'{"id":7,"method":"tools/call","jsonrpc":"2.0","params":{"name":"get_it","arguments":{"x":1.5}}}'
    )


async def test_headers_travel_by_allow_list(serve):
    """Rules 2.2 and 8.12: the caller's token ends here, the upstream's own takes its place."""
    async with ScriptedUpstream(
        of_call(json_answer({}, headers={"Set-Cookie": "a=b", "X-Secret": "1", "Server": "x"}))
    ) as upstream:
        gateway = await serve(upstream.url, upstreams={"up": {"headers": {"Authorization": "Bearer upstream-key"}}})
        async with gateway.client() as client:
            response = await client.post(
                CALL,
                extra=[
                    ("Cookie", "c=d"),
                    ("X-Forwarded-For", "1.2.3.4"),
                    ("X-Upstream-Authorization", "no"),
                    ("TE", "trailers"),
                ],
            )
            await response.read()
        received = await upstream.received()
    names = {name.lower() for name, _ in received.headers}
    assert names == {
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "authorization",
        "content-type",
        "content-length",
    }
    assert received.header_values("authorization") == ["Bearer upstream-key"]
    assert received.header("accept-encoding") == "identity"
    back = {name.lower() for name, _ in response.headers}
    assert back == {"content-type", "content-length", "date", "server"}
    assert response.header("server") == "mcpgw"


async def test_progress_arrives_while_the_call_is_open(serve):
    """The upstream sends each event only after the client has got the one before: nothing may be held back."""
    steps: list[Any] = [STREAM_HEAD]
    for number in range(10):
        steps += [
            Event(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": "p", "progress": number},
                }
            ),
            WaitFor(f"got {number}"),
        ]
    call = request("tools/call", {"name": "get_it", "_meta": {"progressToken": "p"}}, id=7)
    script = of_call(answer_with(*steps, Event(answer()), End()))
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call)
        for number in range(10):
            _, frame = await response.frame()
            assert json.loads(frame.data)["params"]["progress"] == number
            upstream.signal(f"got {number}")
        assert (await response.answer()) == answer()


@pytest.mark.parametrize(("tool", "kind"), [("elicit", "elicitation/create"), ("sample", "sampling/createMessage")])
async def test_a_question_in_mid_call_is_answered_by_another_post(serve, tool, kind):
    """Rule 4.1."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize(capabilities={"elicitation": {}, "sampling": {}})
            response = await client.post(request("tools/call", {"name": tool, "arguments": {}}, id=9))
            _, frame = await response.frame()
            question = json.loads(frame.data)
            assert question["method"] == kind
            async with client.sibling() as other:
                reply = {
                    "jsonrpc": "2.0",
                    "id": question["id"],
                    "result": {"action": "accept", "content": {"name": "Ada"}},
                }
                accepted = await other.post(reply)
                assert (accepted.status, await accepted.read()) == (202, b"")
                forged = await other.post({**reply, "id": "another"})
                assert forged.status == 400
                assert (await forged.json())["error"]["data"]["reason"] == "response-not-expected"
            document = await response.answer()
            assert "Ada" in document["result"]["content"][0]["text"]


async def test_a_question_that_the_client_cannot_answer_is_refused_for_it(serve):
    """Rule 3.3."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize(capabilities={})
            document = await client.call("tools/call", {"name": "elicit", "arguments": {}})
        # The server got an error for its question, and ended its call with it.
        assert "-31403" in document["result"]["content"][0]["text"]
        assert [each["decision"] for each in gateway.records("message.blocked")] == ["block"]


async def test_keep_alive_comments_between_events(serve):
    """Rule 4.11."""
    script = of_call(answer_with(STREAM_HEAD, WaitFor("quiet"), Event(answer()), End()))
    async with ScriptedUpstream(script) as upstream:
        gateway = await serve(upstream.url, limits={"keepalive_interval": "50ms"})
        async with gateway.client() as client:
            response = await client.post(CALL)
            for _ in range(3):
                _, frame = await response.frame()
                assert frame.raw == b": keep-alive\n\n"
            upstream.signal("quiet")
            assert await response.answer() == answer()


# -- one answer, always -----------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Any, int, int, str]] = {
    # name: script, HTTP status, code, reason
    "closed without answer": (answer_with(Close()), 502, -31502, "upstream-closed"),
    "reset": (answer_with(Reset()), 502, -31502, "upstream-reset"),
    "not HTTP": (answer_with(Send(b"\x00\x01garbage\r\n\r\n"), Close()), 502, -31502, "upstream-http"),
    "not JSON": (answer_with(Json(b"nonsense")), 502, -31502, "upstream-protocol-error"),
    "html": (
        status_answer(200, headers={"Content-Type": "text/html"}, body=b"<p>"),
        502,
        -31502,
        "upstream-media-type",
    ),
    "no content": (status_answer(202), 502, -31502, "upstream-media-type"),
    "other id": (answer_with(Json(answer(id=8))), 502, -31502, "upstream-answer-id"),
    "id of another type": (answer_with(Json(answer(id="7"))), 502, -31502, "upstream-answer-id"),
    "a request as answer": (answer_with(Json(request("ping"))), 502, -31502, "upstream-answer-id"),
    "batch": (answer_with(Json(b"[]")), 502, -31502, "upstream-protocol-error"),
    "duplicate member": (
        answer_with(Json(b'{"jsonrpc":"2.0","id":7,"result":{},"result":{}}')),
        502,
        -31502,
        "upstream-protocol-error",
    ),
    "result and error": (
        answer_with(Json(b'{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}')),
        502,
        -31502,
        "upstream-protocol-error",
    ),
    "short body": (
        answer_with(
            Head(200, {"Content-Type": "application/json", "Content-Length": "500"}, chunked=False), Send(b"{"), Close()
        ),
        502,
        -31502,
        "upstream-truncated",
    ),
    "bad chunk": (
        answer_with(Head(200, {"Content-Type": "application/json"}), Send(b"zz\r\n{}\r\n"), Close()),
        502,
        -31502,
        None,
    ),
    "redirect": (status_answer(307, headers={"Location": "http://127.0.0.1:1/"}), 502, -31502, "upstream-redirect"),
    "unauthorized": (
        status_answer(401, headers={"WWW-Authenticate": "Bearer"}),
        502,
        -31502,
        "upstream-refused-credentials",
    ),
    "server error": (status_answer(500, body=b"Traceback: /secret/path"), 502, -31502, "upstream-status"),
    "busy": (status_answer(503, headers={"Retry-After": "3"}), 503, -31503, "upstream-busy"),
    "bad request": (status_answer(400, body=b"no"), 400, -31502, "upstream-status"),
    "compressed": (
        answer_with(
            Head(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}), Chunk(b"\x1f\x8b"), End()
        ),
        502,
        -31502,
        "upstream-encoding",
    ),
    "two media types": (
        answer_with(
            Head(200, [("Content-Type", "application/json"), ("Content-Type", "text/html")]), Chunk(b"{}"), End()
        ),
        502,
        -31502,
        None,
    ),
    "too much": (answer_with(Json(LARGE_ERROR)), 502, -31502, "upstream-too-large"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_of_the_upstream_gets_one_answer(serve, fault):
    """Rules 2.11, 2.14, 5.8, 9.1 and 10.11."""
    script, status, code, reason = FAULTS[fault]
    async with ScriptedUpstream({"tools/call": script, "ping": json_answer({})}) as upstream:
        gateway = await serve(upstream.url, limits={"max_message_size": "256KiB"})
        async with gateway.client() as client:
            response = await client.post(CALL)
            document = await response.json()
            assert (response.status, document["id"], document["error"]["code"]) == (status, 7, code), document
            data = document["error"]["data"]
            assert data["origin"] == "gateway"
            assert reason in (None, data["reason"]), document
            assert "secret" not in json.dumps(document)
            assert str(upstream.port) not in json.dumps(document)
            # the client's next call works
            assert (await client.call("ping"))["result"] == {}
        assert len([each for each in upstream.requests if each.rpc_method == "tools/call"]) == 1
        finished = gateway.records("request.finished")[0]
        assert finished["outcome"] == data["reason"]
        assert finished["request"] == data["request"]


async def test_an_upstream_that_is_not_there(serve):
    gateway = await serve(f"http://127.0.0.1:{unused_port()}/mcp")
    async with gateway.client() as client:
        response = await client.post(CALL)
        document = await response.json()
    assert (response.status, document["id"], document["error"]["data"]["reason"]) == (502, 7, "upstream-unreachable")


@pytest.mark.parametrize(
    ("steps", "key"),
    [
        ((Hang(),), "limits.first_byte_timeout"),
        ((Head(200, {"Content-Type": "application/json"}), Chunk(b"{"), Hang()), "limits.idle_timeout"),
    ],
)
async def test_a_hanging_upstream(serve, steps, key):
    async with ScriptedUpstream(of_call(answer_with(*steps))) as upstream:
        gateway = await serve(upstream.url, limits={"first_byte_timeout": "200ms", "idle_timeout": "200ms"})
        async with gateway.client() as client:
            response = await client.post(CALL)
            document = await response.json()
        assert (response.status, document["id"], document["error"]["data"]["key"]) == (504, 7, key)
        await upstream.deserted()


GOOD = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "one"}}

STREAM_FAULTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "ends before the answer": ((End(),), "upstream-no-answer"),
    "dies": ((Close(),), "upstream-truncated"),
    "is reset": ((Reset(),), None),
    "silence": ((Hang(),), "upstream-timeout"),
    "not JSON": ((Event(b"{nope"), End()), "upstream-protocol-error"),
    "other id": ((Event(answer(id=8)), End()), "upstream-answer-id"),
    "batch": ((Event(b"[]"), End()), "upstream-protocol-error"),
    "too large": ((Event(LARGE_ERROR), End()), "upstream-too-large"),
    "endless line": ((Chunk(b"data: "), Repeat(Chunk(b"x" * 1000), 400), End()), "upstream-too-large"),
    "not UTF-8": ((Event(b'{"jsonrpc":"2.0","id":7,"result":{"a":"\xff"}}'), End()), "upstream-protocol-error"),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_each_fault_within_a_stream_gets_one_answer(serve, fault):
    """Rules 2.14, 4.2 and 4.5."""
    steps, reason = STREAM_FAULTS[fault]
    async with ScriptedUpstream(of_call(answer_with(STREAM_HEAD, Event(GOOD), *steps))) as upstream:
        gateway = await serve(upstream.url, limits={"max_message_size": "256KiB", "idle_timeout": "300ms"})
        async with gateway.client() as client:
            response = await client.post(CALL)
            first, last = await response.messages()
            assert first == GOOD
            assert last["id"] == 7
            assert reason in (None, last["error"]["data"]["reason"])
            assert response.complete
        await until(lambda: upstream.open_connections <= gateway.gateway.pools["up"].idle_connections)


async def test_nothing_passes_after_the_answer(serve):
    script = of_call(sse_answer(answer("first"), answer("second"), GOOD))
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(CALL)
        assert await response.messages() == [answer("first")]
        assert response.complete


async def test_a_stream_that_can_be_resumed_is_just_closed(serve):
    """Rule 4.4: the server closed the connection, not the stream; no error is made up for the client."""
    script = of_call(answer_with(STREAM_HEAD, Event(b"", id="1", retry=10), End()))
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(CALL)
        assert await response.messages() == []
        assert response.complete


async def test_errors_without_an_id_get_the_clients(serve):
    """Rules 2.15 and 10.13."""
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"bad"}}'
    async with (
        ScriptedUpstream(of_call(answer_with(Json(body, 400)))) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        response = await client.post(CALL)
        assert response.status == 400
        assert await response.json() == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32600, "message": "bad"}}


async def test_an_error_of_the_upstream_passes(serve):
    script = of_call(error_answer(-32602, "no such city", data={"city": 1}))
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        assert (await client.call("tools/call", {"name": "get_it"}))["error"]["message"] == "no such city"


async def test_a_poisoned_connection_is_not_used_again(serve):
    """A second, unasked-for response on an idle connection must not answer the next request."""
    async with ScriptedUpstream(of_call(json_answer({"n": "honest"}))) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            assert (await client.call("tools/call", {"name": "get_it"}))["result"] == {"n": "honest"}
            poison = b'{"jsonrpc":"2.0","id":2,"result":{"n":"poison"}}'
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(poison)
            await upstream.inject([Send(head + poison)])
            for _ in range(3):
                assert (await client.call("tools/call", {"name": "get_it"}))["result"] == {"n": "honest"}
        assert upstream.connections_made == 2


async def test_connections_are_reused(serve):
    async with ScriptedUpstream({"tools/call": sse_answer(answer(), answer()), "ping": json_answer({})}) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            for _ in range(20):
                assert (await client.call("ping"))["result"] == {}
        assert upstream.connections_made == 1


# -- clients that go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before", [(), (STREAM_HEAD, Event(GOOD)), (Head(200, {"Content-Type": "application/json"}), Chunk(b"{"))]
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_goes_takes_its_upstream_request_along(serve, before, how):
    async with ScriptedUpstream(of_call(answer_with(*before, Signal("there"), Hang()))) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.send(client.build(CALL))
            await upstream.signalled("there")
            await getattr(client, how)()
            async with asyncio.timeout(1):
                await upstream.closed(0)
        await until(lambda: gateway.records("request.finished"))
        assert gateway.records("request.finished")[0]["outcome"] == "client-gone"
        assert not gateway.gateway.handler.relays
        assert gateway.gateway.pools["up"].calls == 0


async def test_a_client_that_does_not_read_stops_the_upstream(serve):
    """Back-pressure end to end: the kernel's buffers fill, ours do not."""
    event = Event(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 60_000}}
    )
    async with ScriptedUpstream(
        of_call(answer_with(STREAM_HEAD, Repeat(event, 2000), Event(answer()), End()))
    ) as upstream:
        gateway = await serve(upstream.url, limits={"write_timeout": "1s"})
        async with gateway.client(read_ahead=1024) as client:
            await client.send(client.build(CALL))
            await client.response()
            await until(lambda: gateway.records("request.finished"), 10)
            assert upstream.bytes_sent < 60_000_000
            assert gateway.records("request.finished")[0]["outcome"] == "client-gone"


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_belongs_to_its_caller(serve):
    """Rules 3.7, 3.8 and 3.13."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as alice, gateway.client(BOB) as bob:
            await alice.initialize()
            assert (await alice.call("tools/list"))["result"]["tools"]
            count = len(upstream.requests)
            unknown = await bob.post(request("tools/list", id=1), session="no-such-session", revision="2025-11-25")
            foreign = await bob.post(request("tools/list", id=1), session=alice.session, revision="2025-11-25")
            assert unknown.status == foreign.status == 404
            one, other = await unknown.json(), await foreign.json()
            one["error"]["data"].pop("request"), other["error"]["data"].pop("request")
            assert one == other
            for refused in (
                await bob.get(session=alice.session, revision="2025-11-25"),
                await bob.delete(session=alice.session, revision="2025-11-25"),
                await bob.get(session=alice.session, revision="2025-11-25", last_event_id="1"),
            ):
                assert refused.status == 404
                await refused.read()
            assert len(upstream.requests) == count
            assert (await alice.call("tools/list"))["result"]["tools"]
            assert (await alice.delete()).status == 200
            assert (await alice.post(request("ping", id=5))).status == 404
            assert alice.session is not None and alice.session not in json.dumps(gateway.audit())


async def test_the_negotiated_revision_holds(serve):
    """Rule 3.10."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize()
            response = await client.post(request("tools/list", id=3), revision="2025-06-18")
            assert response.status == 400
            assert (await response.json())["error"]["data"]["reason"] == "revision-changed"


async def test_the_get_stream_carries_notifications(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize()
            async with client.sibling() as listener:
                stream = await listener.get()
                assert stream.status == 200
                upstream.push({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                _, frame = await stream.frame()
                assert json.loads(frame.data)["method"] == "notifications/tools/list_changed"
                upstream.push({"jsonrpc": "2.0", "id": 99, "result": {}})  # rule 4.7: no answers here
                upstream.push({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})
                _, frame = await stream.frame()
                assert json.loads(frame.data)["method"] == "notifications/prompts/list_changed"
                upstream.push(None)
                assert await stream.frame() is None
                assert stream.complete


async def test_an_answer_on_a_resumed_stream_is_judged(serve):
    """Rule 5.5: the answer of a call whose POST ended comes on a GET, and meets the same hooks."""
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    script = {
        "initialize": json_answer({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}, headers={"Mcp-Session-Id": "s1"}),
        "tools/call": answer_with(STREAM_HEAD, Event(b"", id="1", retry=10), End()),
        "notifications/initialized": status_answer(202),
    }  # fmt: skip
    resumed = answer_with(STREAM_HEAD, Event(answer(f"the token is {token}"), id="2"), End())
    async with ScriptedUpstream(
        lambda received: resumed(received) if received.method == "GET" else script[received.rpc_method](received)
    ) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize()
            first = await client.post(CALL)
            _, priming = await first.frame()
            assert await first.frame() is None
            last = priming.id.decode()
            foreign = await client.get(last_event_id="1")
            assert (foreign.status, (await foreign.json())["error"]["data"]["reason"]) == (400, "unknown-event-id")
            stream = await client.get(last_event_id=last)
            [document] = await stream.messages()
            assert document["id"] == 7
            assert token not in json.dumps(document)
            assert "[redacted:" in document["result"]["content"][0]["text"]
            assert [each.header("last-event-id") for each in upstream.requests if each.method == "GET"] == ["1"]


# -- 2026-07-28 -------------------------------------------------------------------------------------------------------


async def test_a_stateless_call(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            document = await client.call("tools/call", {"name": "echo", "arguments": {"text": "hi"}}, modern=True)
            assert document["result"]["content"][0]["text"] == "hi"
            received = upstream.requests[-1]
            assert received.header("mcp-method") == "tools/call"
            assert received.header("mcp-name") == "echo"
            assert received.header("mcp-session-id") is None


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Mcp-Method": "tools/list"}, -32020),
        ({"Mcp-Name": "get_other"}, -32020),
        ({"Mcp-Name": None}, -32020),
        ({"Mcp-Name": "=?base64?@@@?="}, -32020),
        ({"MCP-Protocol-Version": "2025-11-25"}, -32020),
        ({"MCP-Protocol-Version": None}, -32020),
    ],
)
async def test_mirrored_headers_must_agree_with_the_body(serve, headers, code):
    """Rules 6.2, 6.5, 6.6, 6.8, 6.10 and 6.11."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            response = await client.post(CALL, modern=True, headers=headers)
            document = await response.json()
            assert (response.status, document["id"], document["error"]["code"]) == (400, 7, code)
        assert not upstream.requests


async def test_an_unknown_revision_is_refused_with_what_is_supported(serve):
    """Rule 6.3."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            response = await client.post(CALL, modern=True, revision="2031-01-01")
            document = await response.json()
            assert (response.status, document["error"]["code"]) == (400, -32022)
            assert "2026-07-28" in document["error"]["data"]["supported"]
        assert not upstream.requests
