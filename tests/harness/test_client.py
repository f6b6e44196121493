"""The raw client: exact bytes out, faithful bytes in, and nothing that arrives goes unnoticed."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.harness import (
    MODERN,
    BadHttp,
    Close,
    ConnectionClosed,
    End,
    Event,
    Head,
    Json,
    RawClient,
    Reset,
    ScriptedUpstream,
    Send,
    Unasked,
    WaitFor,
    answer_with,
    header_text,
    http_request,
    json_answer,
    notification,
    request,
    sse_answer,
    status_answer,
)

STREAM = Head(200, {"Content-Type": "text/event-stream"})


# -- what it sends ----------------------------------------------------------------------------------------------------


def lines(data: bytes) -> list[str]:
    return data.split(b"\r\n\r\n")[0].decode().split("\r\n")


def body(data: bytes) -> object:
    return orjson.loads(data.split(b"\r\n\r\n", 1)[1])


def test_a_legacy_request() -> None:
    client = RawClient("http://127.0.0.1:1/up/mcp?x=1", token="t", session="s", revision="2025-06-18")
    data = client.build(request("tools/call", {"name": "echo"}))
    assert lines(data) == [
        "POST /up/mcp?x=1 HTTP/1.1",
        "Host: 127.0.0.1:1",
        "Authorization: Bearer t",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        "MCP-Protocol-Version: 2025-06-18",
        "Mcp-Session-Id: s",
        "Content-Length: 71",
    ]
    assert body(data) == {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}


def test_a_modern_request() -> None:
    client = RawClient("http://h/mcp", session="s")
    message = request("tools/call", {"name": "écho", "_meta": {"progressToken": 1}}, id="a")
    data = client.build(message, modern=True, capabilities={"sampling": {}})
    assert lines(data)[1:-1] == [
        "Host: h",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"MCP-Protocol-Version: {MODERN}",
        "Mcp-Method: tools/call",
        "Mcp-Name: =?base64?w6ljaG8=?=",
    ]
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
        "progressToken": 1,
    }
    assert body(data) == message | {"params": {"name": "écho", "_meta": meta}}
    assert "_meta" not in body_params(client.build(message | {"params": {}}, modern=True, meta=False))


def body_params(data: bytes) -> dict[str, object]:
    document = body(data)
    assert isinstance(document, dict)
    return dict(document["params"])


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("resources/read", {"uri": "a://b"}, "a://b"),
        ("prompts/get", {"name": "p"}, "p"),
        ("tasks/get", {"taskId": "1"}, "1"),
        ("tools/list", {"name": "x"}, None),
        ("tools/call", {"name": 5}, None),
    ],
)
def test_what_a_modern_request_is_about(method: str, params: dict[str, object], name: str | None) -> None:
    head = lines(RawClient("http://h/mcp").build(request(method, params), modern=True))
    assert [line.split(": ")[1] for line in head if line.startswith("Mcp-Name")] == ([name] if name else [])


def test_modern_notifications_mirror_nothing() -> None:
    head = lines(RawClient("http://h/mcp").build(notification("notifications/x"), modern=True))
    assert not [line for line in head if line.startswith(("Mcp-Method", "Mcp-Name"))]


def test_headers_replaced_removed_and_doubled() -> None:
    client = RawClient("http://h/mcp", token="t", revision="r")
    changes = {"host": "evil", "Accept": None, "Origin": "http://o"}
    data = client.build(b"raw", token="", revision="", headers=changes, extra=[("Mcp-Name", "a"), ("Mcp-Name", "b")])
    assert data == (
        b"POST /mcp HTTP/1.1\r\nhost: evil\r\nContent-Type: application/json\r\nOrigin: http://o\r\n"
        b"Mcp-Name: a\r\nMcp-Name: b\r\nContent-Length: 3\r\n\r\nraw"
    )


def test_framing_that_the_test_wrote_is_left_alone() -> None:
    assert http_request("POST", "/", {"content-length": "9"}, b"x") == b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx"
    assert b"ontent-" not in http_request("POST", "/", {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain ~", "plain ~"),
        ("", ""),
        (" edge", "=?base64?IGVkZ2U=?="),
        ("edge\t", "=?base64?ZWRnZQk=?="),
        ("line\nbreak", "=?base64?bGluZQpicmVhaw==?="),
        ("end\n", "=?base64?ZW5kCg==?="),
        ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
        ("=?BASE64?x?=", "=?BASE64?x?="),
        ("=?base64?x", "=?base64?x"),
    ],
)
def test_header_values(value: str, text: str) -> None:
    assert header_text(value) == text


async def test_pieces_and_pacing() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        data = client.build(request("a"))
        before = asyncio.get_running_loop().time()
        await client.send(data, sizes=(10, 20), every=40, pause=0.01)
        assert asyncio.get_running_loop().time() - before >= 0.01 * (2 + (len(data) - 30) // 40)
        assert (await client.response()).status == 200
        assert upstream.requests[0].raw_head + upstream.requests[0].body == data


async def test_sending_to_a_peer_that_does_not_read_is_bounded() -> None:
    script = ScriptedUpstream({}, on_head=lambda _received: [WaitFor("read")], receive_buffer=4096)
    async with script as upstream, RawClient(upstream.url, timeout=0.2) as client:
        with pytest.raises(TimeoutError):
            await client.send(http_request("POST", "/mcp", {"Content-Length": "100000000"}) + b"x" * 100_000_000)
        await client.reset()


# -- what it reads ----------------------------------------------------------------------------------------------------


async def test_a_response_as_it_came() -> None:
    raw = b"HTTP/1.1 299 Very  odd\r\nA: 1\r\na:\t2 \r\nX: \xff\r\nContent-Length: 2\r\n\r\n"
    async with ScriptedUpstream(answer_with(Send(raw + b"{}"))) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert (response.version, response.status, response.reason) == ("HTTP/1.1", 299, "Very  odd")
        assert response.headers == (("A", "1"), ("a", "2"), ("X", "\xff"), ("Content-Length", "2"))
        assert response.raw_head == raw
        assert await response.messages() == [{}]
        assert response.complete
        assert "299" in repr(response)


async def test_interim_heads() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with ScriptedUpstream(answer_with(Send(early), Json({}))) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert (response.status, [hint.status for hint in response.interim]) == (200, [103])


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("GET", 304)])
async def test_responses_without_a_body(method: str, status: int) -> None:
    script = answer_with(Head(status, {"Content-Length": "5"}, chunked=False))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.exchange(http_request(method, "/mcp"))
        assert response.complete
        assert await response.read() == b""


async def test_trailers_and_chunk_extensions() -> None:
    chunks = b"2;a=b\r\n{}\r\n000\r\nX: y\r\n\r\n"
    async with ScriptedUpstream(answer_with(Head(), Send(chunks))) as upstream, RawClient(upstream.url) as client:
        assert await (await client.post(request("a"))).json() == {}
        assert await client.unasked() == b""


@pytest.mark.parametrize("head", [b"HTTP/1.1 abc\r\n\r\n", b"ICY 200 OK\r\n\r\n", b"x" * 300_000])
async def test_what_is_no_response(head: bytes) -> None:
    async with ScriptedUpstream(answer_with(Send(head))) as upstream, RawClient(upstream.url) as client:
        with pytest.raises(BadHttp) as caught:
            await client.post(request("a"))
        assert caught.value.raw
        assert head.startswith(caught.value.raw)


async def test_a_body_that_ends_with_the_connection() -> None:
    for end in (Close(), Reset()):
        script = answer_with(Head(chunked=False), Send(b"some"), end)
        async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
            response = await client.post(request("a"))
            assert await response.read() == b"some"
            assert response.complete is (end == Close())


async def test_a_timeout_loses_nothing() -> None:
    # The waits fall within a chunk size, within a chunk, and between a chunk and the CRLF that ends it.
    pieces = (b"0\r\ndata: 12345", b"67890", b"\r\n2\r\n\n\n\r", b"\n0\r\n\r\n")
    steps = [step for number, piece in enumerate(pieces) for step in (WaitFor(str(number)), Send(piece))]
    async with ScriptedUpstream(answer_with(STREAM, Send(b"1"), *steps)) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        for number in range(4):
            if number < 3:
                with pytest.raises(TimeoutError):
                    await response.frame(within=0.02)
            upstream.signal(str(number))
        assert [frame.data async for _, frame in response.frames()] == [b"1234567890"]
        assert response.complete


async def test_times_are_those_of_the_arrival() -> None:
    loop = asyncio.get_running_loop()
    script = answer_with(STREAM, Event({"n": 1}), WaitFor("go"), Event({"n": 2}), End())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        await asyncio.sleep(0.05)
        middle = loop.time()
        upstream.signal("go")
        await asyncio.sleep(0.05)
        # Both have been waiting in the buffer; each keeps its own time.
        (first, _), (second, _) = [item async for item in response.frames()]
        assert response.time <= first < middle <= second < loop.time() - 0.02


async def test_a_loop_that_was_left_goes_on_with_the_next_frame() -> None:
    script = sse_answer(*({"n": n} for n in range(6)))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        seen = []
        for _ in range(2):
            async for _, frame in response.frames():
                seen.append(orjson.loads(frame.data or b"")["n"])
                if len(seen) % 2 == 0:
                    break
        assert await response.messages() == [{"jsonrpc": "2.0", "n": 4}, {"jsonrpc": "2.0", "n": 5}]
        assert seen == [0, 1, 2, 3]
        assert await response.frame() is None


async def test_answers_that_are_missing_or_anothers() -> None:
    script = {"none": sse_answer({"method": "n"}), "other": answer_with(Json({"jsonrpc": "2.0", "id": 9, "result": 1}))}
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        with pytest.raises(LookupError):
            await client.call("none")
        with pytest.raises(AssertionError, match="id 2"):
            await client.call("other")


# -- what nobody asked for --------------------------------------------------------------------------------------------


async def test_a_response_before_any_request() -> None:
    async with ScriptedUpstream({}, on_connect=[Json({"early": True})]) as upstream, RawClient(upstream.url) as client:
        assert b"early" in await client.unasked(wait=5)
        with pytest.raises(Unasked) as caught:
            await client.post(request("a"))
        assert caught.value.data == client.connection.unread


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_bytes_after_the_response(extra: bytes) -> None:
    async with ScriptedUpstream(answer_with(Json({}), Send(extra))) as upstream, RawClient(upstream.url) as client:
        assert await (await client.post(request("a"))).json() == {}
        assert await client.unasked(wait=5) == extra
        with pytest.raises(Unasked):
            await client.get()


async def test_one_response_after_the_other() -> None:
    script = {"s": sse_answer(WaitFor("go")), "*": json_answer({"a": 1})}
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        await client.post(request("a"))
        response = await client.post(request("s"))  # The first was short, and is read on the way.
        for ask in (client.response(), client.unasked(), client.post(request("a"))):
            with pytest.raises(RuntimeError):
                await ask
        async with client.sibling() as other:
            assert (await other.call("b"))["result"] == {"a": 1}
        upstream.signal("go")
        assert await response.read() == b""


# -- the connection ---------------------------------------------------------------------------------------------------


async def test_writing_after_the_peer_has_gone() -> None:
    async with ScriptedUpstream({}, on_connect=[Reset()]) as upstream, RawClient(upstream.url) as client:
        await client.closed()
        with pytest.raises(ConnectionResetError):
            await client.send(b"x")
        with pytest.raises(ConnectionResetError):
            await client.response()


async def test_an_answer_that_never_comes() -> None:
    async with ScriptedUpstream(answer_with(Close())) as upstream, RawClient(upstream.url) as client:
        with pytest.raises(ConnectionClosed):
            await client.post(request("a"))


async def test_closing_twice_or_unopened_is_harmless() -> None:
    client = RawClient("http://127.0.0.1/mcp")
    await client.close()
    async with ScriptedUpstream(status_answer(202)) as upstream:
        client = RawClient(upstream.url)
        await client.notify("a")  # connects by itself
        await client.close()
        await client.reset()
        assert await client.closed() == "self"


def test_only_http() -> None:
    with pytest.raises(ValueError, match="TLS"):
        RawClient("https://127.0.0.1/mcp")
