"""The endpoint, its POST bodies and what the gateway answers itself: sections 1, 2, 8, 9 and 10 of docs/protocol.md,
with clients and servers that no SDK would be."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from gateway.harness.client import notification, request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import (
    End,
    Event,
    Hang,
    Json,
    Signal,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)
from gateway.harness.upstream import ScriptedUpstream

from .conftest import ALICE, BOB, until
from .peers import ALL_CAPABILITIES, MODERN, STREAM, call, note, result, session_server, text_result

# -- the endpoint -----------------------------------------------------------------------------------------------------


async def test_one_path_for_everything(serve):
    """Rules 1.1 and 1.2: and the same under the default upstream's short path."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, listen={"default_upstream": "up"})
        for target in ("/up/mcp", "/mcp"):
            async with gateway.client() as client:
                client.target = target
                await client.initialize()
                assert (await client.call("ping"))["result"] == {}
                async with client.sibling() as listener:
                    listener.target = target
                    stream = await listener.get()
                    assert (stream.status, stream.header("content-type")) == (200, "text/event-stream")
                assert (await client.delete()).status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_stateless_revision_has_post_alone(serve, method):
    """Rule 1.3."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        response = await client.exchange(client.build(method=method, revision="2026-07-28"))
        assert (response.status, response.header("allow")) == (405, "POST")
        await response.read()
        assert not upstream.requests


async def test_a_get_is_answered_as_the_server_answers(serve):
    """Rule 1.4: an event stream, or 405, or the server's 404; and nothing that is neither."""
    cases = {405: (405, "POST"), 404: (404, None), 400: (400, None), 501: (502, None)}
    for status, expected in cases.items():
        async with (
            ScriptedUpstream({"GET": status_answer(status)}) as upstream,
            (await serve(upstream.url)).client() as client,
        ):
            response = await client.get()
            assert (response.status, response.header("allow")) == expected
    async with ScriptedUpstream({"GET": json_answer({})}) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.get()
        document = await response.json()
        assert (response.status, document["error"]["data"]["reason"]) == (502, "upstream-media-type")


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
async def test_origin_is_checked_on_every_method(serve, method, origin):
    """Rules 1.5 and 1.6: with good credentials and without."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        for token in (ALICE, ""):
            async with gateway.client(token) as client:
                body = call() if method == "POST" else None
                response = await client.exchange(client.build(body, method=method, extra=[("Origin", origin)]))
                assert (response.status, (await response.json())["error"]["data"]["reason"]) == (
                    403,
                    "origin-not-allowed",
                )
        assert not upstream.connections


async def test_an_allowed_origin_stays_here(serve):
    """Rule 1.8: the upstream, which knows other names of itself, does not see it."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, listen={"allowed_origins": ["https://app.example"]})
        async with gateway.client() as client:
            own = "http://" + client.authority
            for origin in ("https://app.example", own):
                response = await client.post(call(), modern=True, extra=[("Origin", origin)])
                assert "result" in await response.answer()
        assert [each.header("origin") for each in upstream.requests] == [None, None]
        assert {each.header("host") for each in upstream.requests} == {upstream.origin.removeprefix("http://")}


async def test_who_is_served_where(serve):
    """Rules 1.7, 3.13, 8.1 and 9.7: on loopback unless told otherwise, and every request by whom it says it is from."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        assert gateway.gateway.site.config.listen.host == "127.0.0.1"
        async with gateway.client() as client:
            await client.initialize()
            count = len(upstream.requests)
            for token, challenge in (("", "Bearer"), ("nobody", 'error="invalid_token"')):
                for method in ("POST", "GET", "DELETE"):
                    body = request("ping", id=1) if method == "POST" else None
                    response = await client.exchange(client.build(body, method=method, token=token))
                    assert response.status == 401
                    assert challenge in (response.header("www-authenticate") or "")
                    await response.read()
            assert len(upstream.requests) == count


# -- bodies -----------------------------------------------------------------------------------------------------------


async def test_each_message_has_a_post_of_its_own(serve):
    """Rules 2.1 and 2.2: here as there; the gateway accepts both kinds of answers, whatever its client's words are."""
    messages = [request("ping", id=1), notification("notifications/initialized"), request("tools/list", id=2)]
    async with ScriptedUpstream({"ping": json_answer({}), "tools/list": json_answer({"tools": []})}) as upstream:
        async with (await serve(upstream.url)).client() as client:
            for message in messages:
                await (await client.post(message, headers={"Accept": "text/*;q=0.5, */*;q=0.1"})).read()
        assert [each.message for each in upstream.requests] == messages
        for each in upstream.requests:
            assert {kind.strip() for kind in each.header("accept").split(",")} == {
                "application/json",
                "text/event-stream",
            }


@pytest.mark.parametrize("status", [400, 403, 404, 500])
async def test_a_notification_that_the_server_refuses(serve, status):
    """Rule 2.9: accepted is 202 without a body, refused is an error without an id."""
    script = session_server(
        {"notifications/initialized": status_answer(202), "notifications/progress": status_answer(status)}
    )
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        response = await client.post(notification("notifications/progress", {"progressToken": 1, "progress": 1}))
        document = await response.json()
        assert response.status == (status if status in (400, 404) else 502)
        assert "id" not in document


async def test_one_way_messages_of_the_stateless_revision(serve):
    """Rule 2.10: no Mcp-Method is demanded of a notification; there are no responses of clients."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        note_ = notification("notifications/cancelled", {"requestId": 1})
        response = await client.post(note_, modern=True, headers={"Mcp-Method": None})
        assert (response.status, await response.read()) == (202, b"")
        response = await client.post({"jsonrpc": "2.0", "id": 1, "result": {}}, modern=True)
        assert (response.status, (await response.json())["error"]["code"]) == (400, -32600)
        assert not [each for each in upstream.requests if "result" in each.message]


async def test_an_answer_keeps_its_shape(serve):
    """Rule 2.11: JSON stays JSON, a stream stays a stream."""
    kinds = {
        "application/json": json_answer(text_result("fine")),
        "text/event-stream": sse_answer({"result": text_result("fine")}),
    }
    for kind, answer in kinds.items():
        async with ScriptedUpstream({"tools/call": answer}) as upstream, (await serve(upstream.url)).client() as client:
            response = await client.post(call())
            assert response.header("content-type") == kind
            assert await response.answer() == result("fine")


IDS: dict[str, bool] = {
    "0": True,
    "-1": True,
    '"a"': True,
    '""': True,
    "9007199254740991": True,
    "9007199254740992": False,
    "18446744073709551616": False,
    "null": False,
    "true": False,
    "1.0": False,
    "1e3": False,
    "[1]": False,
    "{}": False,
}


async def test_ids(serve):
    """Rules 2.12 and 2.16: whatever holds an id is a request; one with an id that is none is never accepted."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for id in IDS:
            body = b'{"jsonrpc":"2.0","id":%s,"method":"notifications/progress"}' % id.encode()
            if IDS[id]:
                response = await client.post(body.replace(b"notifications/progress", b"no/such"))
                assert (await response.json())["id"] == json.loads(id)
            else:
                response = await client.post(body)
                assert (response.status, (await response.json())["error"]["data"]["reason"]) == (400, "id-type")
            assert not upstream.requests, id


async def test_codes_of_the_server_pass(serve):
    """Rules 2.17, 2.18 and 7.22: also those that newer revisions have no more; ours say that they are ours."""
    for code in (-32002, -32000, -32602, -32603, 7, -32020):
        async with (
            ScriptedUpstream({"resources/read": error_answer(code, "no")}) as upstream,
            (await serve(upstream.url)).client() as client,
        ):
            read = request("resources/read", {"uri": "file:///x"}, id=7)
            for modern in (False, True):
                document = await (await client.post(read, modern=modern)).answer()
                assert document["error"] == {"code": code, "message": "no"}
            own = await (await client.post(request("tools/call", {"name": "denied_it"}, id=8))).answer()
            assert own["error"]["data"]["origin"] == "gateway"
            assert not -32768 <= own["error"]["code"] <= -32000


TWINS = {
    "method": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","method":"ping","params":{"name":"echo"}}',
    "escaped": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","n\u0061me":"denied_it"}}',
    "params": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"},"params":{"name":"denied_it"}}',
    "id": rb'{"jsonrpc":"2.0","id":7,"id":8,"method":"tools/call","params":{"name":"echo"}}',
    "deep": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"a":[{"b":1,"b":2}]}}}',
    "_meta": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","_meta":{"a":1,"a":2}}}',
    "upper case": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","NAME":"denied_it"}}',
    "another case alone": rb'{"jsonrpc":"2.0","id":7,"Method":"tools/call","params":{"name":"denied_it"}}',
    "Params alone": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","Params":{"name":"denied_it"}}',
    "long s": '{"jsonrpc":"2.0","id":7,"method":"tools/call","param\u017f":{"name":"denied_it"}}'.encode(),
    "Kelvin": '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","toKen":1,"to\u212aen":2}}'.encode(),
    "NUL": rb'{"jsonrpc":"2.0","id":7,"method":"ping","method\u0000":"tools/call","params":{"name":"denied_it"}}',
    "NUL in params": rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","name\u0000":"denied_it"}}',
}


async def test_one_member_one_name(serve):
    """Rule 2.19: nobody behind the gateway can read another message than the one that was judged."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for case in TWINS:
            response = await client.post(TWINS[case])
            document = await response.json()
            assert (response.status, document["error"]["code"]) == (400, -32600), document
            assert not upstream.requests, case


NUMBERS = {
    "NaN": (b"NaN", -32700),
    "Infinity": (b"-Infinity", -32700),
    "too large": (b"1e400", None),
    "too many digits": (b"1" * 200, None),
    "lone surrogate": (b'"\\ud800"', -32600),
    "too deep": (b"[" * 100 + b"]" * 100, -32600),
    "much too deep": (b"[" * 50_000, None),
}


async def test_what_parsers_read_differently(serve):
    """Rules 2.4 and 2.20."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for case in NUMBERS:
            value, code = NUMBERS[case]
            response = await client.post(
                b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"x":'
                + value
                + b"}}}"
            )
            document = await response.json()
            assert response.status == 400, case
            assert code in (None, document["error"]["code"])
            assert document["error"]["code"] in (-32700, -32600)
            assert not upstream.requests, case


async def test_values_arrive_as_they_were(serve):
    """Rule 2.21: large integers, order of members, keywords of JSON Schema; an answer's very bytes."""
    arguments = b'{"z":1,"a":12345678901234567890123,"f":0.1,"m":-0.0,"e":"\\u00e9\\u2028","n":null}'
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":' + arguments + b"}}"
    tools = b'{"jsonrpc": "2.0", "id": 8, "result": {"tools": [{"name": "echo", "inputSchema": {"$schema": "x", "$defs": {"a": {"const": 1.0}}, "type": "object", "minimum": 1e2}}]}}'
    script = {"tools/call": json_answer({}), "tools/list": answer_with(Json(tools))}
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client(BOB) as client:
        await (await client.post(body)).read()
        sent = upstream.requests[0].body
        read = json.loads(sent)["params"]["arguments"]
        assert (list(read.items()), repr(read["m"])) == (list(json.loads(arguments).items()), "-0.0")
        assert b"12345678901234567890123" in sent
        assert await (await client.post(request("tools/list", id=8))).read() == tools


@pytest.mark.parametrize("revision", [None, "2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"])
async def test_batches_are_refused_where_there_are_none(serve, revision):
    """Rules 2.6, 2.8 and 10.7: whatever the header says, and with whatever in it."""
    script = session_server(revision=revision or "2025-11-25")
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        if revision not in (None, "2026-07-28"):
            await client.initialize(revision=revision)
        count = len(upstream.requests)
        for header in {revision or "", "2025-03-26"}:
            for batch in ([call()], [call(), note("x")], [], [result("x")]):
                response = await client.post(batch, revision=header)
                document = await response.json()
                assert (response.status, document["error"]["code"]) == (400, -32600)
        assert len(upstream.requests) == count


# -- what the gateway itself answers ----------------------------------------------------------------------------------


async def test_a_denial_sends_no_client_elsewhere(serve):
    """Rules 1.11, 6.20 and 10.4: 400, 404 and 405 would make a client fall back to another transport or revision."""
    denied = (
        ("tools/call", {"name": "denied_it"}),
        ("resources/read", {"uri": "file:///x"}),
        ("prompts/get", {"name": "x"}),
    )
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"allowed_resources": [], "allowed_prompts": []}})
        async with gateway.client() as client:
            await client.initialize()
            for modern in (False, True):
                for method, params in denied:
                    response = await client.post(request(method, params, id=7), modern=modern)
                    document = await response.answer()
                    assert (response.status, document["id"], document["error"]["code"]) == (200, 7, -31403)


async def test_a_denial_of_what_has_no_id(serve):
    """Rules 2.9 and 10.5."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for modern in (False, True):
            response = await client.post(notification("tools/call", {"name": "echo"}), modern=modern)
            document = await response.json()
            assert response.status in (403, 404)
            assert "id" not in document
        assert not upstream.requests


async def test_no_session_and_the_wrong_one(serve):
    """Rules 3.6, 10.9 and 10.10: a server that wants a session says so itself, since some give none."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        assert (await client.post(request("tools/list", id=1))).status == 400
        assert (await client.delete()).status == 400
        assert (await client.post(request("tools/list", id=1), session="other")).status == 404
        response = await client.post(request("tools/list", id=1), modern=True, extra=[("Mcp-Session-Id", "other")])
        assert "result" in await response.answer()


async def test_a_call_that_takes_too_long(serve):
    """Rule 10.11: 504 with the request's id, in both eras."""
    async with ScriptedUpstream({"tools/call": answer_with(Hang())}) as upstream:
        gateway = await serve(upstream.url, limits={"first_byte_timeout": "100ms"})
        async with gateway.client() as client:
            for modern in (False, True):
                response = await client.post(call(), modern=modern)
                assert (response.status, (await response.json())["id"]) == (504, 7)


async def test_a_record_holds_no_secret(serve, caplog):
    """Rules 9.8 and 8.12: nor does the log; and the caller's token ends here."""
    caplog.set_level(logging.DEBUG)
    asks = {"resultType": "input_required", "requestState": "state-of-the-server"}
    async with ScriptedUpstream(session_server({"tools/call": json_answer(asks)})) as upstream:
        gateway = await serve(upstream.url, upstreams={"up": {"headers": {"X-Api-Key": "upstream-secret"}}})
        async with gateway.client() as client:
            await client.initialize()
            await client.call("tools/call", {"name": "echo", "arguments": {"text": "argument-text"}})
            document = await (
                await client.post(call("argument-text"), **MODERN, extra=[("Mcp-Param-City", "param-text")])
            ).answer()
            again = call("argument-text", requestState=document["result"]["requestState"])
            await (await client.post(again, **MODERN)).read()
            session = client.session
        await until(lambda: len(gateway.records("request.finished")) == 5)
        written = json.dumps(gateway.audit()) + caplog.text
        for secret in (
            ALICE,
            session,
            's1"',
            "upstream-secret",
            "argument-text",
            "param-text",
            "state-of-the-server",
            document["result"]["requestState"],
        ):
            assert secret not in written
        for each in upstream.requests:
            assert ALICE not in str(each.headers)
            assert each.header("x-api-key") == "upstream-secret"


async def test_nothing_is_fetched_but_what_is_asked_for(serve):
    """Rules 9.1, 9.4 and 7.27: no redirect, no URL of an elicitation, no $ref of a schema, no icon."""
    async with ScriptedUpstream(status_answer(200)) as trap:
        tool = {
            "name": "echo",
            "icons": [{"src": trap.url}],
            "inputSchema": {"$ref": trap.url, "type": "object", "allOf": [{"$ref": trap.url}]},
        }
        elicit = request(
            "elicitation/create", {"mode": "url", "url": trap.url, "message": "m", "elicitationId": "e"}, id="q"
        )
        script = session_server(
            {
                "tools/list": json_answer({"tools": [tool]}),
                "tools/call": answer_with(STREAM, Event(elicit), Event(result("done")), End()),
                "ping": status_answer(307, headers={"Location": trap.url}),
            }
        )
        async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
            await client.initialize(capabilities=ALL_CAPABILITIES)
            assert (await client.call("tools/list"))["result"]["tools"] == [tool]
            question, _ = await (await client.post(call())).messages()
            assert question["params"] == elicit["params"]
            assert "error" in await client.call("ping")
        assert not trap.connections


async def test_what_a_tool_says_of_itself_changes_nothing(serve):
    """Rule 9.7."""
    tool = {"name": "denied_it", "inputSchema": {}, "annotations": {"readOnlyHint": True, "destructiveHint": False}}
    async with (
        ScriptedUpstream({"tools/list": json_answer({"tools": [tool]})}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        assert (await client.call("tools/list"))["result"]["tools"] == []
        assert (await client.call("tools/call", {"name": "denied_it"}))["error"]["code"] == -31403
        assert [each.rpc_method for each in upstream.requests] == ["tools/list"]


async def test_an_unknown_tool_is_the_servers_to_refuse(serve):
    """Rule 7.28: in the server's own way, an error or a result that is one."""
    for answer in (
        error_answer(-32602, "Unknown tool: get_x"),
        json_answer({**text_result("no such tool"), "isError": True}),
    ):
        async with ScriptedUpstream({"tools/call": answer}) as upstream, (await serve(upstream.url)).client() as client:
            document: Any = await client.call("tools/call", {"name": "get_x"})
            assert document.get("error", {}).get("message") == "Unknown tool: get_x" or document["result"]["isError"]


async def test_a_client_that_goes_before_the_answer(serve):
    """Rules 7.4 and 4.6: in both eras the upstream's request ends with it at once; in a session nobody says for the
    client that it has cancelled."""
    for modern in (False, True):
        async with ScriptedUpstream(session_server({"tools/call": answer_with(Signal("there"), Hang())})) as upstream:
            gateway = await serve(upstream.url)
            async with gateway.client() as client:
                if not modern:
                    await client.initialize()
                await client.send(client.build(call(), modern=modern))
                await upstream.signalled("there")
                await client.close()
                await upstream.deserted()
            await until(lambda: not gateway.gateway.handler.relays)  # noqa: B023
            await asyncio.sleep(0)
            assert "notifications/cancelled" not in [each.rpc_method for each in upstream.requests]
