"""The scripted MCP server: both eras, every tool, and each refusal that it owes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.harness import (
    LEGACY,
    MODERN,
    Comment,
    RawClient,
    Response,
    ScriptedMcp,
    Tool,
    ToolCall,
    json_answer,
    request,
)
from gateway.harness.mcp_tools import Documents

META = "io.modelcontextprotocol/"


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_legacy_session_from_beginning_to_end() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        result = await client.initialize(capabilities={"sampling": {}})
        assert (result["protocolVersion"], client.revision) == (LEGACY, LEGACY)
        assert list(server.sessions) == [client.session]
        assert server.sessions[str(client.session)].capabilities == {"sampling": {}}
        assert (await client.call("ping"))["result"] == {}
        tools = (await client.call("tools/list"))["result"]["tools"]
        assert [entry["name"] for entry in tools] == ["echo", "progress", "slow", "big", "fail", "elicit", "sample"]
        assert (await client.call("tools/call", tool("echo", text="hi")))["result"] == {
            "content": [{"type": "text", "text": "hi"}]
        }
        assert (await client.delete()).status == 200
        assert (await client.post(request("ping"))).status == 404
        assert [received.rpc_method for received in server.requests[:2]] == ["initialize", "notifications/initialized"]
        assert {received.header("mcp-session-id") for received in server.requests[1:]} == {client.session}


@pytest.mark.parametrize(("asked", "given"), [("2025-03-26", "2025-03-26"), ("1999-01-01", LEGACY)])
async def test_negotiation(asked: str, given: str) -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        assert (await client.initialize(revision=asked))["protocolVersion"] == given


async def test_without_sessions() -> None:
    async with ScriptedMcp(stateful=False) as server, RawClient(server.url) as client:
        await client.initialize()
        assert client.session is None
        assert (await client.call("tools/call", tool("echo", text="hi")))["result"]["content"][0]["text"] == "hi"
        assert (await client.delete()).status == 405


async def test_refusals() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        await client.initialize()
        assert (await client.post(request("ping"), session="")).status == 400
        assert (await client.post(request("ping"), session="other")).status == 404
        assert (await client.post(request("ping"), revision="2025-03-26")).status == 400
        assert (await client.post(b"[]")).status == 400
        assert (await client.post({"jsonrpc": "2.0", "id": "x", "result": {}})).status == 400
        assert (await client.exchange(client.build(method="PUT"))).status == 405
        assert (await client.call("nothing"))["error"]["code"] == -32601
        assert (await client.call("tools/call", tool("nothing")))["error"]["code"] == -32602
        with pytest.raises(AssertionError, match="initialize"):
            await client.initialize(headers={"MCP-Protocol-Version": MODERN})


async def test_the_get_stream() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        with pytest.raises(LookupError):
            server.push(None)
        await client.initialize()
        server.push({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        stream = await client.get()
        async with client.sibling() as other:
            assert (await other.get()).status == 409
        server.push(Comment("alive"))
        server.push(None, client.session)
        frames = [frame async for _, frame in stream.frames()]
        assert frames[0].event == b"message"
        assert frames[1].comments == (b"alive",)
        assert stream.complete
        async with client.sibling() as other:
            stream = await other.get()
            assert (await client.delete()).status == 200
            assert await stream.messages() == []


# -- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json", [False, True])
async def test_answers_as_json_or_as_a_stream(json: bool) -> None:
    async with ScriptedMcp(json=json) as server, RawClient(server.url) as client:
        await client.initialize()
        response = await client.post(request("tools/call", tool("big", bytes=100_000)))
        assert response.is_stream is not json
        assert len((await response.answer())["result"]["content"][0]["text"]) == 100_000
        response = await client.post(request("tools/call", tool("fail")))
        assert (await response.answer())["result"]["isError"] is True


@pytest.mark.parametrize("json", [False, True])
async def test_progress(json: bool) -> None:
    async with ScriptedMcp(json=json) as server, RawClient(server.url) as client:
        await client.initialize()
        params = tool("progress", count=3, seconds=0.01)
        response = await client.post(request("tools/call", params | {"_meta": {"progressToken": "p"}}))
        times = [arrived async for arrived, _ in response.frames()]
        assert len(times) == 4
        assert times[2] - times[0] >= 0.015
        assert b'"progressToken":"p","progress":3,"total":3' in response.body_raw
        assert len(await (await client.post(request("tools/call", params))).messages()) == 1


async def test_slow_waits_for_its_signal() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        await client.initialize()
        response = await client.post(request("tools/call", tool("slow", until="now")))
        with pytest.raises(TimeoutError):
            await response.frame(within=0.02)
        server.signal("now")
        assert (await response.answer())["result"]["content"][0]["text"] == "late"


@pytest.mark.parametrize(
    ("name", "method", "reply"),
    [
        ("elicit", "elicitation/create", {"result": {"action": "accept", "content": {"name": "Ada"}}}),
        ("sample", "sampling/createMessage", {"error": {"code": -1, "message": "no"}}),
    ],
)
async def test_questions_to_the_client(name: str, method: str, reply: dict[str, Any]) -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client, client.sibling() as other:
        await client.initialize()
        other.session, other.revision = client.session, client.revision
        response = await client.post(request("tools/call", tool(name)))
        _, frame = await anext(response.frames())
        question = orjson.loads(frame.data or b"")
        assert question["method"] == method
        answer = {"jsonrpc": "2.0", "id": question["id"]} | reply
        assert (await other.post(answer)).status == 202
        text = (await response.answer())["result"]["content"][0]["text"]
        assert orjson.loads(text) == next(iter(reply.values()))
        assert (await other.post(answer)).status == 400


async def test_tools_and_methods_of_ones_own() -> None:
    async def twice(call: ToolCall) -> Documents:
        yield {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
        yield call.text(call.arguments["text"] * 2)

    tools = {"twice": Tool(twice, "Doubles", more={"annotations": {"readOnlyHint": True}})}
    methods = {"resources/read": json_answer({"contents": []})}
    async with ScriptedMcp(tools=tools, methods=methods) as server, RawClient(server.url) as client:
        await client.initialize()
        assert (await client.call("tools/list"))["result"]["tools"] == [
            {
                "name": "twice",
                "description": "Doubles",
                "inputSchema": {"type": "object", "properties": {}},
                "annotations": {"readOnlyHint": True},
            }
        ]
        assert (await client.call("tools/call", tool("twice", text="ab")))["result"]["content"][0]["text"] == "abab"
        assert (await client.call("resources/read", {"uri": "a"}))["result"] == {"contents": []}


async def test_a_client_that_leaves_ends_its_call() -> None:
    before = len(asyncio.all_tasks())
    async with ScriptedMcp() as server:
        async with RawClient(server.url) as client:
            await client.initialize()
            await client.post(request("tools/call", tool("elicit")))
        await server.idle()
        await server.deserted()
    assert len(asyncio.all_tasks()) == before


# -- 2026-07-28 -------------------------------------------------------------------------------------------------------


async def test_modern_requests() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        result = (await client.call("server/discover", modern=True))["result"]
        assert result["supportedVersions"][0] == MODERN
        assert result["resultType"] == "complete"
        result = (await client.call("tools/list", modern=True))["result"]
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        result = (await client.call("tools/call", tool("echo", text="hi"), modern=True))["result"]
        assert result == {"resultType": "complete", "content": [{"type": "text", "text": "hi"}]}
        assert (await client.notify("notifications/x", modern=True)).status == 202
        assert server.sessions == {}


async def test_modern_questions() -> None:
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        result = (await client.call("tools/call", tool("elicit"), modern=True))["result"]
        assert result["resultType"] == "input_required"
        assert result["inputRequests"]["reply"]["method"] == "elicitation/create"
        again = tool("elicit") | {"inputResponses": {"reply": {"action": "decline"}}}
        result = (await client.call("tools/call", again, modern=True))["result"]
        assert orjson.loads(result["content"][0]["text"]) == {"action": "decline"}


async def test_modern_refusals() -> None:
    async def refused(response: Response) -> tuple[int, int]:
        return response.status, (await response.answer())["error"]["code"]

    call = request("tools/call", tool("écho"))
    old = {META + "protocolVersion": "2027-01-01"}
    async with ScriptedMcp() as server, RawClient(server.url) as client:
        ask = client.post
        assert await refused(await ask(call, modern=True, meta=False)) == (400, -32602)
        assert await refused(await ask(call, modern=True, headers={"Mcp-Method": None})) == (400, -32020)
        assert await refused(await ask(call, modern=True, headers={"Mcp-Name": "echo"})) == (400, -32020)
        assert await refused(await ask(call, modern=True, extra=[("Mcp-Method", "tools/call")])) == (400, -32020)
        assert await refused(await ask(call, modern=True, revision="")) == (400, -32020)
        message = request("tools/list", {"_meta": old})
        assert await refused(await ask(message, modern=True, revision="2027-01-01")) == (400, -32022)
        assert await refused(await ask(request("ping"), modern=True)) == (404, -32601)
        assert await refused(await ask({"jsonrpc": "2.0", "id": 1, "result": {}}, modern=True)) == (400, -32600)
        assert await refused(await ask(call, modern=True)) == (200, -32602)
        assert (await client.get(modern=True)).status == 405
        assert (await client.delete(modern=True)).header("allow") == "POST"
