"""Sessions, their streams and what is resumed: sections 3, 4 and 5 of docs/protocol.md, over raw sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.harness.client import notification, request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import (
    Chunk,
    Close,
    Comment,
    End,
    Event,
    Hang,
    Json,
    Received,
    Signal,
    Wait,
    WaitFor,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)
from gateway.harness.upstream import ScriptedUpstream

from .conftest import BOB, until
from .peers import ALL_CAPABILITIES, META, STREAM, call, note, result, session_server, text_result

# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_the_gateway_says_nothing_of_its_own(serve):
    """Rules 3.1 and 7.26: initialize, initialized and ping are the peers' business; the server keeps their order."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        early = await client.post(request("tools/list", id=1))
        assert early.status == 400
        assert [each.rpc_method for each in upstream.requests] == ["tools/list"]
        await early.read()
        await client.initialize()
        assert (await client.call("ping"))["result"] == {}
        async with client.sibling() as listener:
            stream = await listener.get()
            upstream.push(request("ping", id="from the server"))
            _, frame = await stream.frame()
            asked = json.loads(frame.data)
            assert asked["method"] == "ping"
            reply = await client.post({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
            # The scripted server asked nothing that it remembers, but it got the answer under its own id.
            assert reply.status == 400
        sent = [each.message for each in upstream.requests if each.method == "POST"]
        assert [each.get("method") for each in sent] == [
            "tools/list",
            "initialize",
            "notifications/initialized",
            "ping",
            None,
        ]
        assert sent[-1]["id"] == "from the server"


async def test_which_answers_open_a_session(serve):
    """Rule 3.4: a result of initialize alone, with an id of visible ASCII; rule 3.2 for what it may name."""
    good = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
    cases = (
        (json_answer(good, headers={"Mcp-Session-Id": "!~"}), 200, True),
        (json_answer(good, status=400, headers={"Mcp-Session-Id": "s1"}), 400, False),
        (error_answer(-32602, "no", headers={"Mcp-Session-Id": "s1"}), 200, False),
        (json_answer(good, headers={"Mcp-Session-Id": "s 1"}), 502, False),
        (json_answer(good, headers=[("Mcp-Session-Id", "s1"), ("Mcp-Session-Id", "s2")]), 502, False),
        (json_answer({**good, "protocolVersion": "2031-01-01"}, headers={"Mcp-Session-Id": "s1"}), 502, False),
        (json_answer({**good, "protocolVersion": "2026-07-28"}, headers={"Mcp-Session-Id": "s1"}), 502, False),
    )
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    for answer, status, opens in cases:
        async with ScriptedUpstream({"initialize": answer}) as upstream, (await serve(upstream.url)).client() as client:
            response = await client.post(request("initialize", params, id=7))
            await response.read()
            assert (response.status, response.header("mcp-session-id") is not None) == (status, opens)


async def test_a_session_travels_on_every_request(serve):
    """Rules 3.5, 3.11 and 3.12: under the server's own id; and with no version header that the client did not send."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for revision in ("2025-03-26", "2025-06-18"):
            await client.initialize(revision=revision)
            upstream.requests.clear()
            [id] = upstream.sessions
            upstream.push(None)
            await client.call("ping", revision="")
            await (await client.get(revision="")).read()
            assert (await client.delete(revision="")).status == 200
            assert [(each.method, each.header("mcp-session-id")) for each in upstream.requests] == [
                (method, id) for method in ("POST", "GET", "DELETE")
            ]
            assert {each.header("mcp-protocol-version") for each in upstream.requests} == {None}


@pytest.mark.parametrize("version", ["2031-01-01", "2025-11-26", "draft", "2025-06-18"])
async def test_version_headers_that_a_session_does_not_have(serve, version):
    """Rules 3.10 and 3.11."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        count = len(upstream.requests)
        for response in (
            await client.post(request("ping", id=1), revision=version),
            await client.get(revision=version),
            await client.delete(revision=version),
        ):
            assert response.status == 400
            await response.read()
        assert len(upstream.requests) == count
        assert (await client.call("ping"))["result"] == {}


async def test_capabilities_that_were_not_declared(serve):
    """Rule 3.3: on a call's stream, on the server's own, and by the mode."""
    asked = [
        request("sampling/createMessage", {"messages": [], "maxTokens": 1}, id=1),
        request("roots/list", id=2),
        request(
            "elicitation/create",
            {"mode": "url", "url": "https://a.example", "message": "m", "elicitationId": "e"},
            id=3,
        ),
    ]
    script = session_server(
        {"tools/call": sse_answer(*asked, {"result": text_result("done")}), "GET": sse_answer(*asked)}
    )
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize(capabilities={"elicitation": {}})
        assert await (await client.post(call())).messages() == [result("done")]
        assert await (await client.get()).messages() == []
        await until(lambda: sum("error" in (each.message or {}) for each in upstream.requests) == 6)
        told = [each.message for each in upstream.requests if "error" in (each.message or {})]
        assert sorted(each["id"] for each in told) == [1, 1, 2, 2, 3, 3]


async def test_a_session_that_cannot_be_ended(serve):
    """Rule 3.8: 405 passes, and the session lives on; any success is one."""
    for status in (405, 200, 202, 204):
        script = session_server({"DELETE": status_answer(status), "ping": json_answer({})})
        async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
            await client.initialize()
            response = await client.delete()
            assert response.status == (405 if status == 405 else 200)
            await response.read()
            after = await client.post(request("ping", id=1))
            assert after.status == (200 if status == 405 else 404)


async def test_a_session_is_not_opened_inside_another(serve):
    """Rule 3.9."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        first = client.session
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        for id in (first, "never heard of"):
            response = await client.post(request("initialize", params, id=5), session=id)
            assert response.header("mcp-session-id") not in (None, first)
            await response.read()
        assert {each.header("mcp-session-id") for each in upstream.requests if each.rpc_method == "initialize"} == {
            None
        }
        assert (await client.call("ping"))["result"] == {}


async def test_a_stolen_session_id_is_worth_nothing(serve):
    """Rules 3.7, 3.13, 3.14 and 9.3: the upstream sees one caller; whose a session is, the gateway knows."""
    async with ScriptedMcp() as upstream:
        gateway = await serve({"up": upstream.url, "other": upstream.url})
        async with gateway.client() as alice, gateway.client(BOB) as bob, gateway.client(upstream="other") as elsewhere:
            await alice.initialize(capabilities=ALL_CAPABILITIES)
            upstream.push(Event(note("private"), id="1"))
            async with alice.sibling() as listener:
                stream = await listener.get()
                _, frame = await stream.frame()
                last = frame.id.decode()
            count = len(upstream.requests)
            stolen = {"session": alice.session, "revision": "2025-11-25"}
            for thief in (bob, elsewhere):
                injected = {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}
                for response in (
                    await thief.post(call(), **stolen),
                    await thief.post(injected, **stolen),
                    await thief.post(notification("notifications/cancelled", {"requestId": 1}), **stolen),
                    await thief.get(**stolen),
                    await thief.get(**stolen, last_event_id=last),
                    await thief.delete(**stolen),
                ):
                    assert response.status == 404
                    await response.read()
            assert len(upstream.requests) == count


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-11-25"])
async def test_what_is_no_message_passes(serve, revision):
    """Rules 4.3, 4.4, 4.11 and 4.12: priming events and retry as they come, nothing added, fields in their order; and
    whether there was an event field (2025-03-26's clients cannot read what they do not expect)."""
    raw = (
        b": a comment\n\nretry: 1500\n\n"
        b"data: " + json.dumps(note("one")).encode() + b"\n\n"
        b"event: message\r\ndata: " + json.dumps(note("two")).encode() + b"\r\n\r\n"
        b"data:" + json.dumps(result("done")).encode() + b"\n\n"
    )
    primed = b"id: e1\nretry: 20\ndata:\n\n"
    script = session_server(
        {"tools/call": answer_with(STREAM, Chunk(raw), End()), "GET": answer_with(STREAM, Chunk(primed), End())},
        revision,
    )
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize(revision=revision)
        response = await client.post(call())
        assert await response.read() == raw
        [(_, frame)] = [each async for each in (await client.get()).frames()]
        assert (frame.data, frame.retry, frame.event) == (b"", 20, None)
        assert frame.raw == primed.replace(b"e1", frame.id)


async def test_a_connection_that_ends_is_not_held(serve):
    """Rules 4.2, 4.4 and 4.5: after an id the client comes back by itself; without one it gets an error."""
    for steps, expected in (
        ((Event(b"", id="1", retry=10), End()), 0),
        ((Event(note("x"), id="1"), Close()), 1),
        ((Event(note("x")), End()), 2),
        ((Close(),), 1),
    ):
        script = session_server({"tools/call": answer_with(STREAM, *steps)})
        async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
            await client.initialize()
            response = await client.post(call())
            messages = await response.messages()
            assert response.complete
            assert len(messages) == expected
            if expected and "error" in messages[-1]:
                assert messages[-1]["id"] == 7


async def test_each_message_goes_down_one_stream(serve):
    """Rule 4.8: a second stream is the server's to refuse; nothing is copied to another session or stream."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as one, gateway.client() as other, gateway.client() as idle:
            await one.initialize()
            [first] = upstream.sessions
            await other.initialize()
            streams = [await one.get(), await other.get()]
            second = await idle.get(session=one.session, revision=one.revision)
            assert second.status == 409
            upstream.push(note("for one"), first)
            upstream.push(note("for the other"))
            for session in upstream.sessions:
                upstream.push(None, session)
            assert [await stream.messages() for stream in streams] == [[note("for one")], [note("for the other")]]


@pytest.mark.parametrize("batch", [[note("x")], [], [result("x")]])
@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
async def test_arrays_from_a_server_of_a_later_revision(serve, revision, batch):
    """Rule 4.9: in an event and in a body."""
    for answer in (sse_answer(Event(batch)), answer_with(Json(batch))):
        script = session_server({"tools/call": answer}, revision)
        async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
            await client.initialize(revision=revision)
            document = await (await client.post(call())).answer()
            assert (document["id"], document["error"]["data"]["origin"]) == (7, "gateway")


async def test_headers_of_every_stream(serve):
    """Rule 4.10."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        upstream.push(None)
        posted = await client.post(call())
        await posted.read()
        for response in (posted, await client.get()):
            assert response.header("x-accel-buffering") == "no"
            assert response.header("cache-control") == "no-cache, no-transform"
            await response.read()


async def test_keep_alives_stand_between_events(serve):
    """Rule 4.11: on the server's own stream too, and never in the middle of an event that arrives slowly."""
    raw = b"data: " + json.dumps(note("slow")).encode() + b"\n\n"
    script = session_server(
        {"GET": answer_with(STREAM, Comment("of the server"), Chunk(raw[:20]), WaitFor("rest"), Chunk(raw[20:]), End())}
    )
    async with ScriptedUpstream(script) as upstream:
        gateway = await serve(upstream.url, limits={"keepalive_interval": "30ms"})
        async with gateway.client() as client:
            await client.initialize()
            stream = await client.get()
            frames = [(await stream.frame())[1].raw for _ in range(3)]
            upstream.signal("rest")
            frames += [frame.raw async for _, frame in stream.frames()]
        assert frames[0] == b": of the server\n\n"
        assert [frame for frame in frames[1:] if frame != b": keep-alive\n\n"] == [raw]


async def test_who_cancels(serve):
    """Rule 4.6: the client's word passes, and a lost connection says nothing."""
    script = session_server({"tools/call": answer_with(STREAM, Event(note("x")), Signal("there"), Hang())})
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        response = await client.post(call())
        await response.frame()
        async with client.sibling() as other:
            assert (await other.notify("notifications/cancelled", {"requestId": 8})).status == 202
        await client.close()
        await upstream.closed(next(each.connection for each in upstream.requests if each.rpc_method == "tools/call"))
        told = [each.params for each in upstream.requests if each.rpc_method == "notifications/cancelled"]
        assert told == [{"requestId": 8}]


# -- resuming ---------------------------------------------------------------------------------------------------------


def resumable(received: Received) -> Any:
    """A server whose calls end before their answer, under the event ids 1 and 2; it replays whatever it is asked for."""
    if received.method == "GET":
        return sse_answer(
            Event(note("after " + (received.header("last-event-id") or "nothing")), id="3"),
            Event(result("late"), id="4"),
        )(received)
    script = {"tools/call": answer_with(STREAM, Event(b"", id="1", retry=10), Event(note("one"), id="2"), End())}
    return session_server(script)(received)


async def test_event_ids_are_the_servers_own_in_another_form(serve):
    """Rules 5.1, 5.2, 5.3, 5.4 and 5.5: one for one; each leads back to its own place on its own stream."""
    async with ScriptedUpstream(resumable) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        response = await client.post(call())
        ids = [frame.id.decode() async for _, frame in response.frames()]
        assert len(set(ids)) == 2
        for id, original in zip(ids, ("1", "2"), strict=True):
            messages = await (await client.get(last_event_id=id)).messages()
            assert messages == [note(f"after {original}"), result("late")]
            assert upstream.requests[-1].header("last-event-id") == original
        # Without an id it is the server's own stream, where no answer belongs.
        assert await (await client.get()).messages() == [note("after nothing")]


async def test_event_ids_of_others(serve):
    """Rules 5.6 and 3.14: a server that replays anything to anybody is not asked."""
    async with ScriptedUpstream(resumable) as upstream:
        gateway = await serve({"up": upstream.url, "other": upstream.url})
        async with gateway.client() as alice, gateway.client(BOB) as bob:
            await alice.initialize()
            response = await alice.post(call())
            id = [frame.id.decode() async for _, frame in response.frames()][-1]
            await bob.initialize()
            count = len(upstream.requests)
            for client, foreign in (
                (bob, id),
                (bob, "2"),
                (alice, "2"),
                (alice, id + "x"),
                (alice, "x" + id),
                (alice, id.upper()),
            ):
                refused = await client.get(last_event_id=foreign)
                assert (refused.status, (await refused.json())["error"]["data"]["reason"]) == (400, "unknown-event-id")
            assert len(upstream.requests) == count


async def test_nothing_is_resumed_without_sessions(serve):
    """Rule 5.7: an id is neither refused nor passed on."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call(), modern=True, extra=[("Last-Event-ID", "1")])
        assert "result" in await response.answer()
        assert upstream.requests[-1].header("last-event-id") is None


@pytest.mark.parametrize(
    "steps", [(Close(),), (STREAM, Event(note("x"), id="1"), Close()), (STREAM, Event(note("x"), id="1"), End())]
)
async def test_a_request_that_is_lost_is_not_sent_again(serve, steps):
    """Rule 5.8: the client hears of it, and asks anew if it wants to."""
    async with (
        ScriptedUpstream({"tools/call": answer_with(*steps)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        document = await (await client.post(call(_meta={META + "logLevel": "info"}), modern=True)).answer()
        assert (document["id"], document["error"]["code"]) == (7, -31502)
        await asyncio.sleep(0.02)
        assert len(upstream.requests) == 1


async def test_waits_are_short_enough(serve):
    """Rule 4.4: what a server sends is not held back for what it has still to send."""
    script = session_server(
        {"tools/call": answer_with(STREAM, Event(note("now")), WaitFor("seen"), Wait(0), Event(result("done")), End())}
    )
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        response = await client.post(call())
        _, frame = await response.frame()
        assert json.loads(frame.data) == note("now")
        upstream.signal("seen")
        assert await response.answer() == result("done")


async def test_a_deadline_of_the_gateways_own_is_told_to_the_server(serve):
    """Rule 7.24: in a session a lost connection says nothing (rule 4.6), so whoever stops waiting must say so."""
    for steps in ((Hang(),), (STREAM, Hang())):
        async with ScriptedUpstream(session_server({"tools/call": answer_with(*steps)})) as upstream:
            gateway = await serve(upstream.url, limits={"first_byte_timeout": "100ms", "idle_timeout": "100ms"})
            async with gateway.client() as client:
                await client.initialize()
                assert "error" in await (await client.post(call())).answer()
                await until(lambda: _cancelled(upstream) == [{"requestId": 7}])


def _cancelled(upstream):
    return [each.params for each in upstream.requests if each.rpc_method == "notifications/cancelled"]
