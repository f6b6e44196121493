"""Each thing that a scripted upstream can do, right and wrong, as the raw client sees it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import orjson
import pytest

from gateway.harness import (
    BadHttp,
    Chunk,
    Close,
    Comment,
    ConnectionClosed,
    End,
    Event,
    Hang,
    Head,
    Json,
    RawClient,
    Received,
    Repeat,
    Reset,
    ScriptedUpstream,
    Send,
    Signal,
    SplitAt,
    Step,
    Wait,
    WaitFor,
    answer_with,
    error_answer,
    http_request,
    json_answer,
    notification,
    request,
    sse_answer,
    status_answer,
    unused_port,
)
from gateway.harness.script import Script

STREAM = Head(200, {"Content-Type": "text/event-stream"})


# -- what it is asked -------------------------------------------------------------------------------------------------


async def test_it_records_each_request_as_it_came() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        head = b"POST /mcp?a=b HTTP/1.1\r\nhost: x\r\nX-Two: 1\r\nx-two:2 \r\nContent-Length: 8\r\n\r\n"
        await client.exchange(head + b'{"id":7}')
        [received] = upstream.requests
    assert (received.method, received.target) == ("POST", "/mcp?a=b")
    assert received.headers == (("host", "x"), ("X-Two", "1"), ("x-two", "2"), ("Content-Length", "8"))
    assert received.header("X-TWO") == "1"
    assert received.header_values("x-two") == ["1", "2"]
    assert (received.body, received.message, received.id) == (b'{"id":7}', {"id": 7}, 7)
    assert received.connection == 0
    assert received.complete


async def test_a_chunked_request_in_single_bytes() -> None:
    body = b'5;x=y\r\n{"id"\r\nA\r\n:"chunked"\r\n1\r\n}\r\n0\r\nTrailer: t\r\n\r\n'
    data = http_request("POST", "/mcp", {"Host": "x", "Transfer-Encoding": "chunked"}) + body
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await client.send(data, every=1)
        assert await (await client.response(method="POST")).answer() == {
            "jsonrpc": "2.0",
            "id": "chunked",
            "result": {},
        }
        assert upstream.requests[0].body == b'{"id":"chunked"}'


async def test_pipelined_requests_on_one_connection_are_answered_in_order() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await client.send(client.build(request("a", id=1)) + client.build(request("a", id=2)))
        for id in (1, 2):
            assert (await (await client.response()).answer())["id"] == id
        assert upstream.connections_made == 1


async def test_a_body_that_was_cut_short_is_kept_apart() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await client.send(client.build(request("a"))[:-3])
        await upstream.connected()
        await client.close()
        await upstream.closed(0)
        await upstream.idle()
    assert upstream.requests == []
    [cut] = upstream.incomplete
    assert not cut.complete
    assert cut.body.startswith(b'{"jsonrpc"')


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
async def test_what_is_not_http_is_remembered(data: bytes) -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await client.send(data)
        assert await client.closed() == "fin"
        assert upstream.malformed[0].raw == data


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Content-Length": "-1"}, b"x"), ({"Transfer-Encoding": "chunked"}, b"0x5\r\nhello\r\n0\r\n\r\n")],
)
async def test_a_request_body_with_broken_framing(headers: dict[str, str], body: bytes) -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await client.send(http_request("POST", "/mcp", headers) + body)
        await client.closed()
        assert len(upstream.malformed) == 1
        assert upstream.requests == []


# -- scripts ----------------------------------------------------------------------------------------------------------


async def test_a_mapping_by_method() -> None:
    script: Script = {"known": json_answer({"a": 1}), "plain": [Json({"b": 2})], "GET": status_answer(204)}
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        assert (await client.call("known"))["result"] == {"a": 1}
        assert await (await client.post(request("plain"))).json() == {"b": 2}
        assert (await client.get()).status == 204
        assert (await client.call("unknown"))["error"]["code"] == -32601
        assert (await client.notify("unknown")).status == 202
        assert (await client.post({"jsonrpc": "2.0", "id": 1, "result": {}})).status == 202
        assert (await client.delete()).status == 405


async def test_a_mapping_with_defaults() -> None:
    script = {"response": status_answer(400), "*": error_answer(-1, "no", data={"d": 1}, status=418)}
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        assert (await client.post({"jsonrpc": "2.0", "id": 1, "result": {}})).status == 400
        response = await client.post(request("any", id="x"))
        assert response.status == 418
        error = {"code": -1, "message": "no", "data": {"d": 1}}
        assert await response.json() == {"jsonrpc": "2.0", "id": "x", "error": error}
        assert "id" not in await (await client.post(b"not json")).json()


async def test_a_script_may_be_an_async_generator_that_is_finished_when_the_peer_leaves() -> None:
    finished = asyncio.Event()

    async def script(received: Received) -> AsyncIterator[Step]:
        try:
            yield STREAM
            yield Event({"seen": received.rpc_method})
            yield Hang()
        finally:
            finished.set()

    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert await response.frame() is not None
        await client.close()
        await upstream.idle()
        assert finished.is_set()


async def test_a_script_that_raises_fails_the_block() -> None:
    def script(_received: Received) -> list[Step]:
        raise ZeroDivisionError

    async def run() -> None:
        async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
            await client.send(client.build(request("a")))
            await client.closed()

    with pytest.raises(ZeroDivisionError):
        await run()


async def test_waits_are_bounded() -> None:
    async def run() -> None:
        async with ScriptedUpstream(answer_with(WaitFor("never")), patience=0.05) as upstream:
            async with RawClient(upstream.url) as client:
                await client.send(client.build(request("a")))
                await client.closed()
            with pytest.raises(TimeoutError, match="request 2"):
                await upstream.received(2)

    with pytest.raises(TimeoutError, match="never"):
        await run()


async def test_signals_instead_of_sleeps() -> None:
    script = sse_answer(Signal("half"), {"method": "n"}, WaitFor("go"), {"result": {}})
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        await upstream.signalled("half")
        _, frame = await anext(response.frames())
        assert frame.data == b'{"jsonrpc":"2.0","method":"n"}'
        with pytest.raises(TimeoutError):
            await response.frame(within=0.05)
        upstream.signal("go")
        assert (await response.answer())["id"] == 1
        assert response.complete
        upstream.clear("go")
        response = await client.post(request("a"))
        with pytest.raises(TimeoutError):
            await response.answer(within=0.05)


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_every_part_of_an_event_stream() -> None:
    script = answer_with(
        STREAM,
        Comment("hello"),
        Comment(),
        Event(b"", id="1", retry=250),
        Event(b"two\nlines", event="named"),
        Event({"a": 1}),
        End(),
    )
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        frames = [frame async for _, frame in response.frames()]
    assert [(frame.comments, frame.data, frame.event, frame.id, frame.retry) for frame in frames] == [
        ((b"hello",), None, None, None, None),
        ((b"",), None, None, None, None),
        ((), b"", None, b"1", 250),
        ((), b"two\nlines", b"named", None, None),
        ((), b'{"a":1}', None, None, None),
    ]
    assert response.complete
    assert not response.partial_event


async def test_events_without_chunks_end_with_the_connection() -> None:
    script = answer_with(Head(200, {"Content-Type": "text/event-stream"}, chunked=False), Event({"a": 1}), Close())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert await response.messages() == [{"a": 1}]
        assert response.header("transfer-encoding") is None
        assert response.complete


@pytest.mark.parametrize("split", [SplitAt(every=1), SplitAt((1, 40, 3), every=7), SplitAt((100,))])
async def test_split_anywhere(split: SplitAt) -> None:
    script = answer_with(split, STREAM, Event({"text": "ü€😀"}), SplitAt(), Event({"b": 2}), End())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        pieces = [piece async for _, piece in response.pieces()]
        assert await response.messages() == [{"text": "ü€😀"}, {"b": 2}]
    assert b"".join(pieces) == response.body_raw
    if split.every == 1:
        assert len(pieces) > len(response.body_raw) // 2


async def test_a_byte_at_a_time_takes_its_time() -> None:
    script = answer_with(SplitAt(every=1, pause=0.01), Send(b"HTTP/1.1 204 x\r\n\r\n"))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        assert (await client.post(request("a"))).time - upstream.requests[0].time >= 0.17


async def test_wait() -> None:
    async with ScriptedUpstream(answer_with(Wait(0.05), Json({}))) as upstream, RawClient(upstream.url) as client:
        assert (await client.post(request("a"))).time - upstream.requests[0].time >= 0.05


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_refuse() -> None:
    with pytest.raises(ConnectionRefusedError):
        await RawClient(f"http://127.0.0.1:{unused_port()}/mcp").connect()


async def test_accept_and_hang_and_the_moment_the_peer_left() -> None:
    async with ScriptedUpstream(answer_with(Hang())) as upstream, RawClient(upstream.url) as client:
        with pytest.raises(TimeoutError):
            await client.post(request("a"), within=0.05)
        assert upstream.open_connections == 1
        before = asyncio.get_running_loop().time()
        await client.close()
        assert 0 <= await upstream.closed(0) - before < 1
        await upstream.deserted()
        assert upstream.connections[0].how == "fin"


async def test_a_client_that_resets() -> None:
    async with ScriptedUpstream(answer_with(Hang())) as upstream, RawClient(upstream.url) as client:
        await client.send(client.build(request("a")))
        await upstream.received()
        await client.reset()
        await upstream.closed(0)
        assert upstream.connections[0].how == "reset"


async def test_close_or_reset_before_any_request() -> None:
    async with ScriptedUpstream({}, on_connect=[Close()]) as upstream, RawClient(upstream.url) as client:
        assert await client.closed() == "fin"
        with pytest.raises(RuntimeError, match="by the upstream itself"):
            await upstream.closed(0)
    async with ScriptedUpstream({}, on_connect=[Reset()]) as upstream, RawClient(upstream.url) as client:
        assert await client.closed() == "reset"


@pytest.mark.parametrize(("end", "error"), [(Reset(), ConnectionResetError), (Close(), ConnectionClosed)])
async def test_the_end_within_the_headers(end: Step, error: type[Exception]) -> None:
    script = answer_with(Send(b"HTTP/1.1 200 OK\r\nContent-Ty"), end)
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        with pytest.raises(error):
            await client.post(request("a"))
        assert client.connection.unread == b"HTTP/1.1 200 OK\r\nContent-Ty"


EVENT = b'data: {"text":"\xe2\x82\xac"}\n\n'


@pytest.mark.parametrize("end", [Reset(), Close()])
@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (EVENT[:9], 0),  # within a line
        (EVENT[:16], 0),  # within a character
        (EVENT[:-1], 0),  # within an event
        (EVENT, 1),  # between events
        (EVENT + EVENT[:1], 1),
    ],
)
async def test_the_end_within_a_stream(end: Step, sent: bytes, events: int) -> None:
    script = answer_with(STREAM, Chunk(sent), end)
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        frames = [frame async for _, frame in response.frames()]
    assert len(frames) == events
    assert response.body_raw == sent
    assert response.complete is False
    assert isinstance(response.fault, ConnectionResetError if end == Reset() else ConnectionClosed)
    assert response.partial_event == (sent != EVENT)


async def test_reset_after_the_whole_answer() -> None:
    script = answer_with(Json({"a": 1}), Reset())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert await response.json() == {"a": 1}
        assert response.complete
        assert await client.closed() == "reset"


async def test_half_close_by_the_upstream() -> None:
    script = answer_with(Json({"a": 1}), Close(half=True))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        assert await (await client.post(request("a"))).json() == {"a": 1}
        assert await client.closed() == "fin"
        assert await client.unasked() == b""
        await client.send(client.build(request("b")))
        assert (await upstream.received(2)).rpc_method == "b"


async def test_half_close_by_the_client() -> None:
    script = answer_with(WaitFor("go"), Json({"a": 1}))
    async with ScriptedUpstream(script, half_open=True) as upstream, RawClient(upstream.url) as client:
        await client.send(client.build(request("a")))
        client.half_close()
        await upstream.closed(0)
        upstream.signal("go")
        assert await (await client.response()).json() == {"a": 1}


@pytest.mark.parametrize("length", ["3", "100", "x", "-1"])
async def test_a_wrong_content_length(length: str) -> None:
    script = answer_with(Json({"a": 1}, headers={"Content-Length": length}), WaitFor("read"), Close())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        upstream.signal("read")
        body = await response.read()
        if length == "3":
            assert (body, response.complete) == (b'{"a', True)
            assert await client.unasked() == b'":1}'
        else:
            assert response.complete is False
            assert isinstance(response.fault, ConnectionClosed if length == "100" else BadHttp)


@pytest.mark.parametrize("bad", [b"xyz\r\n", b"-5\r\nhello\r\n", b"5\r\nhello!\r\n", b"\r\n", b"1" * 5000])
async def test_chunk_errors(bad: bytes) -> None:
    script = answer_with(STREAM, Event({"a": 1}), Send(bad))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert await response.messages() == [{"a": 1}]
        assert response.complete is False
        assert isinstance(response.fault, BadHttp)


@pytest.mark.parametrize("status", [302, 401, 429, 500, 503, 299])
async def test_statuses(status: int) -> None:
    headers = {"Location": "http://127.0.0.1:1/", "Retry-After": "1"}
    script = status_answer(status, headers=headers, body=b"no")
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert (response.status, await response.read()) == (status, b"no")
        assert response.header("retry-after") == "1"
        assert (await client.post(request("a"))).status == status


async def test_gzip() -> None:
    script = answer_with(Head(headers={"Content-Encoding": "gzip"}), Chunk(gzip.compress(b"{}")), End())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        assert gzip.decompress(await (await client.post(request("a"))).read()) == b"{}"


async def test_another_id_and_two_answers() -> None:
    wrong = {"jsonrpc": "2.0", "id": 999, "result": {}}
    script = sse_answer(wrong, {"result": {"n": 1}}, {"result": {"n": 2}})
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        documents = await (await client.post(request("a", id="mine"))).messages()
    assert [(document["id"], document["result"].get("n")) for document in documents] == [
        (999, None),
        ("mine", 1),
        ("mine", 2),
    ]


async def test_duplicate_content_type() -> None:
    headers = (("Content-Type", "application/json"), ("content-type", "text/event-stream"), ("Content-Length", "0"))
    script = answer_with(Head(headers=headers, chunked=False))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        assert response.header_values("Content-Type") == ["application/json", "text/event-stream"]
        assert response.raw_head.count(b"ontent-") == 3


@pytest.mark.parametrize("by_script", [True, False])
async def test_a_second_response_on_the_idle_connection(by_script: bool) -> None:
    poison = Json({"jsonrpc": "2.0", "id": 2, "result": {"poison": True}})
    script = answer_with(Json({}), WaitFor("poison"), poison) if by_script else answer_with(Json({}))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        await (await client.post(request("a"))).read()
        assert await client.unasked() == b""
        if by_script:
            upstream.signal("poison")
        else:
            await upstream.inject([poison])
        assert b"poison" in await client.unasked(wait=5)
        response = await client.response()
        assert await response.json() == poison.document


async def test_a_flood_feels_back_pressure() -> None:
    script = answer_with(STREAM, Repeat(Event({"n": 1}), 1_000_000), End())
    async with ScriptedUpstream(script, send_buffer=32 * 1024) as upstream:
        async with RawClient(upstream.url, read_ahead=1) as client:
            response = await client.post(request("a"))
            sent = -1
            while sent != upstream.bytes_sent:
                sent = upstream.bytes_sent
                await asyncio.sleep(0.1)
            assert 0 < sent < 8 * 1024 * 1024
            while len(response.body_raw) < 1:
                await response.piece()
            count = 0
            async for _, frame in response.frames():
                assert frame.data == b'{"n":1}'
                count += 1
                if count == 50_000:
                    break
            assert upstream.bytes_sent > 50_000 * 15
        await upstream.closed(0)
        await upstream.idle()


async def test_a_flood_is_counted() -> None:
    script = answer_with(STREAM, Repeat(Event({"n": 1}), 12_345), End())
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        frames = [frame async for _, frame in response.frames()]
        assert len(frames) == 12_345
        await upstream.idle()
        assert upstream.bytes_sent == len(response.raw_head) + 12_345 * len(b'f\r\ndata: {"n":1}\n\n\r\n') + 5


async def test_an_endless_line_ends_with_the_peer() -> None:
    script = answer_with(STREAM, Chunk(b"data: "), Repeat(Chunk(b"x" * 65536), 10**9))
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url) as client:
        response = await client.post(request("a"))
        while len(response.body_raw) < 1_000_000:
            await response.piece()
        await client.reset()
        await upstream.closed(0)
        await upstream.idle()


async def test_an_answer_before_the_body() -> None:
    early = status_answer(413)
    upstream = ScriptedUpstream({}, on_head=lambda received: early(received) if received.target == "/mcp" else None)
    async with upstream, RawClient(upstream.url) as client:
        await client.send(http_request("POST", "/mcp", {"Content-Length": "1000000"}))
        assert (await client.response(method="POST")).status == 413
        await client.send(b"x" * 1_000_000)
        assert await client.closed() == "fin"
        assert (len(upstream.requests), len(upstream.incomplete)) == (0, 1)
        async with RawClient(upstream.origin + "/other") as other:
            assert (await other.notify("a")).status == 202


# -- nothing is left --------------------------------------------------------------------------------------------------


async def test_leaving_ends_everything() -> None:
    before = len(asyncio.all_tasks())
    async with ScriptedUpstream({"a": [STREAM, Hang()], "b": [Hang()]}) as upstream:
        clients = [RawClient(upstream.url) for _ in range(5)]
        for client, method in zip(clients, "aabb", strict=False):
            await client.send(client.build(request(method)))
        await clients[4].connect()
        await upstream.received(4)
        await upstream.connected(5)
        assert (upstream.connections_made, upstream.open_connections) == (5, 5)
    assert upstream.open_connections == 0
    for client in clients:
        assert await client.closed() == "fin"
        await client.close()
    assert len(asyncio.all_tasks()) == before
    with pytest.raises(ConnectionRefusedError):
        await RawClient(upstream.url).connect()


async def test_connections_that_come_while_it_stops() -> None:
    for turns in range(6):
        upstream = ScriptedUpstream({}, on_connect=[Hang()])
        async with upstream:
            client = RawClient(upstream.url)
            await client.connect()
            for _ in range(turns):
                await asyncio.sleep(0)
        assert await client.closed() in ("fin", "reset")
        await client.close()
        assert upstream.open_connections == 0


async def test_many_connections_one_after_another() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream:
        for _ in range(50):
            async with RawClient(upstream.url) as client:
                await client.call("a")
        await upstream.deserted()
        assert upstream.connections_made == 50


async def test_connections_describe_themselves() -> None:
    async with ScriptedUpstream(json_answer({})) as upstream, RawClient(upstream.url) as client:
        await (await client.post(notification("a"))).read()
        assert repr(upstream.connections[0]).startswith("<Connection 0 open unread=0 sent=")
        await client.close()
        await upstream.closed(0)
        assert "left by fin" in repr(upstream.connections[0])
        assert orjson.loads(upstream.requests[0].body)["method"] == "a"
