"""Clients that are not ours against the scripted peers: what they accept was not made to fit our own reader."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import mcp
import pytest
from aiohttp_sse_client.client import EventSource
from mcp.types import ElicitResult, TextContent

from gateway.harness import (
    MODERN,
    Chunk,
    Close,
    Comment,
    End,
    Event,
    Hang,
    Head,
    Json,
    Reset,
    ScriptedMcp,
    ScriptedUpstream,
    SplitAt,
    WaitFor,
    answer_with,
    json_answer,
    request,
    sse_answer,
)

STREAM = Head(200, {"Content-Type": "text/event-stream"})


async def test_aiohttp_reads_json_on_one_kept_connection() -> None:
    async with ScriptedUpstream(json_answer({"a": 1})) as upstream, aiohttp.ClientSession() as session:
        for id in range(3):
            async with session.post(upstream.url, json=request("m", id=id)) as response:
                assert await response.json() == {"jsonrpc": "2.0", "id": id, "result": {"a": 1}}
        assert upstream.connections_made == 1
        assert [received.id for received in upstream.requests] == [0, 1, 2]


async def test_aiohttp_sends_a_chunked_body() -> None:
    async def body() -> object:
        yield b'{"id":'
        yield b"5}"

    async with ScriptedUpstream(json_answer({})) as upstream, aiohttp.ClientSession() as session:
        async with session.post(upstream.url, data=body()) as response:
            assert (await response.json())["id"] == 5
        assert upstream.requests[0].header("transfer-encoding") == "chunked"


@pytest.mark.parametrize("every", [None, 1])
async def test_aiohttp_reads_a_stream(every: int | None) -> None:
    script = answer_with(SplitAt(every=every), STREAM, Comment("x"), Event({"a": "€"}), End())
    async with (
        ScriptedUpstream(script) as upstream,
        aiohttp.ClientSession() as session,
        session.post(upstream.url, json=request("m")) as response,
    ):
        assert response.content_type == "text/event-stream"
        assert (await response.read()).decode() == ': x\n\ndata: {"a":"€"}\n\n'


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_aiohttp_notices_a_stream_that_was_cut(end: Close | Reset) -> None:
    script = answer_with(STREAM, Chunk(b"data: 1"), end)
    async with (
        ScriptedUpstream(script) as upstream,
        aiohttp.ClientSession() as session,
        session.post(upstream.url, json=request("m")) as response,
    ):
        with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
            await response.read()


async def test_aiohttp_takes_a_response_that_nobody_asked_for() -> None:
    """Why the gateway looks at a pooled connection before it uses it: aiohttp's own pool does not."""
    poison = Json({"jsonrpc": "2.0", "id": 2, "result": {"poison": True}})
    script = answer_with(Json({}), WaitFor("poison"), poison)
    async with ScriptedUpstream(script) as upstream, aiohttp.ClientSession() as session:
        async with session.post(upstream.url, json=request("m", id=1)) as response:
            await response.read()
        upstream.signal("poison")
        await upstream.idle()
        async with session.post(upstream.url, json=request("m", id=2)) as response:
            assert await response.json() == poison.document


async def test_the_upstream_notices_that_aiohttp_gave_up() -> None:
    async with ScriptedUpstream(answer_with(Hang())) as upstream, aiohttp.ClientSession() as session:
        timeout = aiohttp.ClientTimeout(total=0.05)
        with pytest.raises(TimeoutError):
            await session.post(upstream.url, json=request("m"), timeout=timeout)
        assert await upstream.closed(0) > upstream.requests[0].time


async def test_an_event_source_reads_an_answer() -> None:
    script = sse_answer(
        Comment("hello"),
        Event({"n": 1}, event="message", id="7", retry=100),
        Event(b"two\nlines"),
        {"result": {"last": True}},
        Hang(),
    )
    async with ScriptedUpstream(script) as upstream, aiohttp.ClientSession() as session:
        source = EventSource(upstream.url, option={"method": "POST"}, session=session, json=request("m", id="s"))
        async with asyncio.timeout(5), source:
            events = [await anext(source) for _ in range(3)]
        await upstream.deserted()
    assert [(event.type, event.data, event.last_event_id) for event in events[:2]] == [
        ("message", '{"n":1}', "7"),
        (None, "two\nlines", "7"),
    ]
    assert json.loads(events[2].data) == {"jsonrpc": "2.0", "id": "s", "result": {"last": True}}


@pytest.mark.parametrize("mode", ["legacy", "auto", MODERN])
async def test_the_official_sdk_talks_to_the_scripted_server(mode: str) -> None:
    async def user(_context: object, _params: object) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": "Ada"})

    progress: list[float] = []

    async def report(done: float, _total: float | None, _message: str | None) -> None:
        progress.append(done)

    async with ScriptedMcp() as server, asyncio.timeout(20):
        async with mcp.Client(server.url, mode=mode, elicitation_callback=user) as client:
            assert "echo" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("echo", {"text": "hi"})
            assert isinstance(result.content[0], TextContent)
            assert result.content[0].text == "hi"
            await client.call_tool("progress", {"count": 2}, progress_callback=report)
            assert progress == [1, 2]
            result = await client.call_tool("elicit", {})
            assert isinstance(result.content[0], TextContent)
            assert "Ada" in result.content[0].text
        assert len(server.sessions) == 0
