"""Several copies of the gateway with the same keys: any of them serves any session."""

from __future__ import annotations

import base64
import json
import os

from gateway.harness.client import request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import End, Event, Head, Send, answer_with, json_answer, status_answer
from gateway.harness.upstream import ScriptedUpstream

from .conftest import BOB

STREAM_HEAD = Head(200, {"Content-Type": "text/event-stream"})


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


async def test_two_copies_serve_one_session_alternately(serve):
    old, new = key(), key()
    async with ScriptedMcp() as upstream:
        # In the middle of a rotation: one copy seals with the new key already, both open with either.
        one = await serve(upstream.url, sealing={"keys": [new, old]})
        other = await serve(upstream.url, sealing={"keys": [old, new]})
        async with one.client() as here:
            await here.initialize(capabilities={"elicitation": {}})
            async with other.client(session=here.session, revision=here.revision) as there:
                for client in (here, there, here, there):
                    assert (await client.call("tools/list"))["result"]["tools"]
                # A question that goes out on one copy is answered on the other.
                for asking, answering in ((here, there), (there, here)):
                    stream = await asking.post(request("tools/call", {"name": "elicit", "arguments": {}}, id="e"))
                    _, frame = await stream.frame()
                    reply = {"action": "accept", "content": {"name": "Ada"}}
                    asked = json.loads(frame.data)["id"]
                    accepted = await answering.post({"jsonrpc": "2.0", "id": asked, "result": reply})
                    assert accepted.status == 202
                    assert "Ada" in (await stream.answer())["result"]["content"][0]["text"]
                # Another caller's session is unknown on every copy.
                async with other.client(BOB, session=here.session, revision=here.revision) as bob:
                    assert (await bob.post(request("tools/list"))).status == 404
                # What one copy ended, the other learns from the upstream.
                assert (await here.delete()).status == 200
                assert (await there.post(request("tools/list"))).status == 404
                assert (await here.post(request("tools/list"))).status == 404


async def test_a_stream_begun_on_one_copy_is_resumed_on_the_other(serve):
    shared = [key()]
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    result = {"content": [{"type": "text", "text": f"the token is {token}"}]}
    script = {
        "initialize": json_answer(
            {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}, headers={"Mcp-Session-Id": "s1"}
        ),
        "notifications/initialized": status_answer(202),
        "tools/call": answer_with(STREAM_HEAD, Event(b"", id="e 1", retry=10), End()),
        "GET": answer_with(STREAM_HEAD, Event({"jsonrpc": "2.0", "id": 7, "result": result}, id="e 2"), End()),
    }
    async with ScriptedUpstream(script) as upstream:
        one = await serve(upstream.url, sealing={"keys": shared})
        other = await serve(upstream.url, sealing={"keys": shared})
        async with one.client() as here:
            await here.initialize()
            stream = await here.post(request("tools/call", {"name": "get_it"}, id=7))
            _, frame = await stream.frame()
            async with other.client(session=here.session, revision=here.revision) as there:
                resumed = await there.get(last_event_id=frame.id.decode())
                document = await resumed.answer()
        assert upstream.requests[-1].header("last-event-id") == "e 1"
        # The other copy knows what was asked for, so the answer met the same hooks.
        assert document["id"] == 7
        assert "[redacted:" in document["result"]["content"][0]["text"]


async def test_copies_with_other_keys_know_nothing(serve):
    async with ScriptedMcp() as upstream:
        one, other = await serve(upstream.url), await serve(upstream.url)
        async with one.client() as here:
            await here.initialize()
            async with other.client(session=here.session, revision=here.revision) as there:
                count = len(upstream.requests)
                assert (await there.post(request("tools/list"))).status == 404
                assert len(upstream.requests) == count


async def test_the_upstreams_session_id_stays_inside(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.initialize()
            [own] = upstream.sessions
            assert own not in client.session
            assert own not in json.dumps(gateway.audit())
            assert client.session not in json.dumps(gateway.audit())


async def test_an_initialize_that_is_answered_by_a_stream(serve):
    """The session id is in the head of the answer, and what it says is in the body."""
    result = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {}}

    def initialize(received):
        yield Head(200, {"Content-Type": "text/event-stream", "Mcp-Session-Id": "s1"})
        yield Event(b"", id="1", retry=5)
        yield Event({"jsonrpc": "2.0", "id": received.id, "result": result}, id="2")
        yield Send(b"")  # and the stream stays open

    script = {
        "initialize": initialize,
        "notifications/initialized": status_answer(202),
        "response": status_answer(202),
        "*": json_answer({}),
    }
    async with ScriptedUpstream(script) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            assert await client.initialize(revision="2025-03-26") == result
            # negotiated, so a batch is understood
            response = await client.post([request("tools/list", id=1), request("prompts/list", id=2)])
            assert response.status in (200, 502)
            assert json.loads(upstream.requests[-1].body)[0]["id"] == 1
