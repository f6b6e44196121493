"""Revision 2026-07-28, and what all revisions carry besides: sections 6, 7, 11, 12 and 13 of docs/protocol.md, over raw
sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.harness.client import header_text, notification, request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import (
    End,
    Event,
    Json,
    Received,
    WaitFor,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
)
from gateway.harness.upstream import ScriptedUpstream

from .conftest import BOB
from .peers import ALL_CAPABILITIES, META, MODERN, STREAM, call, note, result, session_server, text_result

VERSION, CAPABILITIES = META + "protocolVersion", META + "clientCapabilities"
COMPLETE = {"resultType": "complete"}


def done(text: str = "fine") -> dict[str, Any]:
    return {**COMPLETE, **text_result(text)}


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({VERSION: "2026-07-28", CAPABILITIES: {}}, None),
        ({VERSION: "2026-07-28", CAPABILITIES: {}, META + "clientInfo": {"name": "c", "version": "1"}}, None),
        ({VERSION: "2026-07-28"}, -32602),
        ({CAPABILITIES: {}}, -32602),
        ({VERSION: 20260728, CAPABILITIES: {}}, -32602),
        ({VERSION: "2026-07-28", CAPABILITIES: []}, -32602),
        ({VERSION: "2026-07-29", CAPABILITIES: {}}, -32020),
        ({VERSION: "2026-07-28 ", CAPABILITIES: {}}, -32020),
    ],
)
async def test_the_envelope(serve, meta, code):
    """Rules 6.1, 6.2, 6.10, 6.11 and 10.8: what is refused is answered with the request's id and a code of MCP."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call(_meta=meta), modern=True, meta=False)
        document = await response.answer()
        assert document["id"] == 7
        if code is None:
            assert "result" in document
        else:
            assert (response.status, document["error"]["code"]) == (400, code)
            assert not upstream.requests


async def test_versions_that_nobody_speaks(serve):
    """Rules 6.3, 6.4 and 10.8: a newer one is refused, not passed on; missing members and mismatches come first."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for version in ("2027-01-01", "2026-07-29", "x"):
            response = await client.post(call(), modern=True, revision=version)
            error = (await response.answer())["error"]
            assert (response.status, error["code"]) == (400, -32022)
            assert (error["data"]["supported"], error["data"]["requested"]) == (["2026-07-28"], version)
            mismatch = await client.post(call(), modern=True, revision=version, headers={"Mcp-Method": "ping"})
            assert (await mismatch.answer())["error"]["code"] == -32020
        assert not upstream.requests


@pytest.mark.parametrize("name", ["echo", " echo", "echo ", "\u00e9cho", "=?base64?ZWNobw==?=", "", "e\tcho"])
async def test_names_in_headers(serve, name):
    """Rules 6.5, 6.6, 6.8, 6.9 and 6.19: compared as what they mean; whether such a name is allowed comes after."""
    async with ScriptedUpstream({"prompts/get": json_answer(COMPLETE)}) as upstream:
        async with (await serve(upstream.url)).client() as client:
            get = request("prompts/get", {"name": name}, id=7)
            document = await (await client.post(get, modern=True)).answer()
            assert "result" in document or document["error"]["code"] == -31403
            if "result" in document:
                sent = upstream.requests.pop()
                assert (sent.header("mcp-method"), sent.header("mcp-name")) == ("prompts/get", header_text(name))
            for wrong in (
                {"Mcp-Name": "another"},
                {"Mcp-Name": None},
                {"Mcp-Method": "Prompts/Get"},
                {"Mcp-Method": None},
            ):
                response = await client.post(get, modern=True, headers=wrong)
                assert (response.status, (await response.answer())["error"]["code"]) == (400, -32020)
        assert not upstream.requests


@pytest.mark.parametrize(
    "value",
    [
        "=?BASE64?ZWNobw==?=",
        "=?base64?ZWNobw?=",
        "=?base64?ZWNobx==?=",
        "=?base64?/w==?=",
        "=?base64?ZWNobw==",
        "ECHO",
        "echo, echo",
    ],
)
async def test_names_in_headers_that_do_not_say_it(serve, value):
    """Rules 6.8, 6.9 and 6.10."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call(), modern=True, headers={"Mcp-Name": value})
        assert (response.status, (await response.answer())["error"]["code"]) == (400, -32020)
        assert not upstream.requests


async def test_names_of_tasks_in_headers(serve):
    """Rule 6.7."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for headers in ({"Mcp-Name": None}, {"Mcp-Name": "t2"}):
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                response = await client.post(request(method, {"taskId": "t1"}, id=7), **MODERN, headers=headers)
                assert (response.status, (await response.answer())["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize("name", ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "mcp-param-city"])
async def test_headers_that_stand_twice(serve, name):
    """Rule 6.18."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        same = {
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
            "MCP-Protocol-Version": "2026-07-28",
            "mcp-param-city": "Oslo",
        }
        extra = [(name, same[name]), (name.upper(), same[name])]
        response = await client.post(call(), modern=True, extra=extra)
        assert (response.status, (await response.answer())["error"]["code"]) == (400, -32020)
        assert not upstream.requests


async def test_headers_decide_nothing(serve):
    """Rules 6.12 and 6.13: the policy judges the body; in a session these headers mean nothing and go no further."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        lies = [("Mcp-Method", "ping"), ("Mcp-Name", "echo"), ("Mcp-Param-Tenant", "me")]
        denied = await client.post(request("tools/call", {"name": "denied_it"}, id=7), extra=lies)
        assert (await denied.answer())["error"]["code"] == -31403
        passed = await client.post(call(), extra=[("Mcp-Method", "tools/call"), ("Mcp-Name", "denied_it")])
        assert "result" in await passed.answer()
        assert not [
            name
            for name, _ in upstream.requests[-1].headers
            if name.lower().startswith(("mcp-method", "mcp-name", "mcp-param"))
        ]
        large = await client.post(call(), modern=True, extra=[("Mcp-Param-A", "x" * 20_000)])
        assert large.status == 431


async def test_fields_for_others_pass(serve):
    """Rules 6.14 and 6.19: also where Connection asks to take them out."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        extra = [
            ("Mcp-Param-City", "=?base64?w5g=?="),
            ("mcp-param-x", "1"),
            ("Connection", "keep-alive, mcp-name, mcp-param-city"),
        ]
        assert "result" in await (await client.post(call(), modern=True, extra=extra)).answer()
        sent = upstream.requests[-1]
        assert (sent.header("mcp-param-city"), sent.header("mcp-param-x"), sent.header("mcp-name")) == (
            "=?base64?w5g=?=",
            "1",
            "echo",
        )


async def test_arguments_in_headers(serve):
    """Rules 6.15, 6.16, 6.17 and 6.10: checked as soon as a list has shown them; a tool with a wrong mark is left out."""

    def tool(name: str, **properties: Any) -> dict[str, Any]:
        return {"name": name, "inputSchema": {"type": "object", "properties": properties}}

    marked = tool("echo", city={"type": "string", "x-mcp-header": "City"}, n={"type": "integer", "x-mcp-header": "N"})
    broken = tool("get_it", n={"type": "number", "x-mcp-header": "N"})
    script = {"tools/list": json_answer({**COMPLETE, "tools": [marked, broken]}), "tools/call": json_answer(done())}
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        listed = await client.call("tools/list", modern=True)
        assert listed["result"]["tools"] == [marked]
        cases: list[tuple[dict[str, Any], list[tuple[str, str]], bool]] = [
            ({"city": "Oslo", "n": 42}, [("Mcp-Param-City", "Oslo"), ("Mcp-Param-N", "42.0")], True),
            ({"city": "Oslo", "n": None}, [("Mcp-Param-City", "=?base64?T3Nsbw==?=")], True),
            ({"city": "Oslo"}, [], False),
            ({"city": "Oslo"}, [("Mcp-Param-City", "Bergen")], False),
            ({}, [("Mcp-Param-City", "Oslo")], False),
            ({"n": 9007199254740993}, [("Mcp-Param-N", "9007199254740992")], False),
        ]
        for arguments, extra, passes in cases:
            response = await client.post(
                request("tools/call", {"name": "echo", "arguments": arguments}, id=7), modern=True, extra=extra
            )
            document = await response.answer()
            assert ("result" in document) is passes, (arguments, extra)
            if not passes:
                assert (response.status, document["error"]["code"]) == (400, -32020)
        assert upstream.requests[1].header("mcp-param-n") == "42"


async def test_what_the_hooks_change_is_said_in_the_headers(serve):
    """Rule 6.19."""
    script = {"resources/read": json_answer({**COMPLETE, "contents": []})}
    async with ScriptedUpstream(script) as upstream:
        gateway = await serve(upstream.url, policies={"all": {"allowed_resources": ["file:///open/**"]}})
        async with gateway.client() as client:
            read = request("resources/read", {"uri": "FILE:///open/%61"}, id=7)
            assert "result" in await (await client.post(read, modern=True)).answer()
        sent = upstream.requests[-1]
        assert sent.params["uri"] == sent.header("mcp-name") == "file:///open/a"


REMOVED = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
    "no/such",
    "roots/list",
]


async def test_methods_that_there_are_not(serve):
    """Rules 6.22, 6.20 and 11.6."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        for method in REMOVED:
            response = await client.post(request(method, {"uri": "file:///x"}, id=7), modern=True)
            document = await response.answer()
            assert (response.status, document["id"], document["error"]["code"]) == (404, 7, -32601)
            assert not upstream.requests, method


async def test_methods_of_the_other_era(serve):
    """Rules 6.25 and 11.6: a session has none of the newer ones, and no result of theirs."""
    task = {"resultType": "task", "taskId": "t1", "status": "working"}
    async with (
        ScriptedUpstream(session_server({"tools/call": json_answer(task)})) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        await client.initialize(capabilities=ALL_CAPABILITIES)
        count = len(upstream.requests)
        for method in ("server/discover", "subscriptions/listen", "tasks/update"):
            response = await client.post(request(method, {"taskId": "t1"}, id=7))
            assert (response.status, (await response.answer())["error"]["code"]) == (200, -32601)
        assert len(upstream.requests) == count


async def test_the_era_is_one_for_header_and_body(serve):
    """Rules 6.24, 6.25 and 3.12: without either it is an old request; with one of them alone it is refused."""
    async with ScriptedMcp(stateful=False) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize()
        assert "result" in await (await client.post(call(), revision="")).answer()
        assert upstream.requests[-1].header("mcp-protocol-version") is None
        count = len(upstream.requests)
        for build in (
            {"modern": True, "headers": {"MCP-Protocol-Version": None}},
            {"modern": True, "headers": {"MCP-Protocol-Version": "2025-11-25"}},
        ):
            response = await client.post(call(), **build)
            assert (response.status, (await response.answer())["error"]["code"]) == (400, -32020)
        response = await client.post(call(), modern=True, meta=False)
        assert (response.status, (await response.answer())["error"]["code"]) == (400, -32602)
        assert len(upstream.requests) == count


async def test_sessions_mean_nothing(serve):
    """Rules 6.23 and 6.27: an id that comes along is neither read nor passed on, here or there."""
    script = {"tools/call": json_answer(done(), headers={"Mcp-Session-Id": "s1"})}
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call(), modern=True, extra=[("Mcp-Session-Id", "anything")])
        assert "result" in await response.answer()
        assert response.header("mcp-session-id") is None
        assert upstream.requests[-1].header("mcp-session-id") is None


async def test_who_shares_a_connection_shares_nothing_else(serve):
    """Rule 6.27: callers take turns on one connection to the upstream and one to the gateway."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            for token in (None, BOB, None):
                tools = await (await client.post(request("tools/list", id=7), modern=True, token=token)).answer()
                assert (len(tools["result"]["tools"]) == 1) is (token == BOB)
        assert upstream.connections_made == 1


async def test_capabilities_that_a_server_needs(serve):
    """Rule 6.28: its error passes, status and data too."""
    data = {"requiredCapabilities": {"elicitation": {"form": {}}}}
    script = {"tools/call": error_answer(-32021, "needed", data=data, status=400)}
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        response = await client.post(call(), modern=True)
        assert (response.status, (await response.answer())["error"]) == (
            400,
            {"code": -32021, "message": "needed", "data": data},
        )


async def test_what_a_client_calls_itself_changes_nothing(serve):
    """Rule 6.29: nor do members of _meta that nobody knows (rule 6.31), which pass in both directions."""
    answered = {
        **done(),
        "_meta": {META + "serverInfo": {"name": "any", "version": "0"}, "org.example/x": [1], META + "later": 1},
    }
    async with (
        ScriptedUpstream({"tools/call": json_answer(answered)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        for name in ("admin", "mcpgw", "echo"):
            meta = {META + "clientInfo": {"name": name, "version": "9"}, "org.example/y": {"a": 1}, META + "later": 2}
            denied = await client.post(request("tools/call", {"name": "denied_it", "_meta": meta}, id=7), modern=True)
            assert (await denied.answer())["error"]["code"] == -31403
            assert (await (await client.post(call(_meta=meta), modern=True)).answer())["result"] == answered
            assert upstream.requests[-1].params["_meta"].items() >= meta.items()


async def test_discovery_passes(serve):
    """Rules 6.30 and 7.16: with the server's own name and its hints."""
    async with ScriptedMcp() as upstream, (await serve(upstream.url)).client() as client:
        found = (await client.call("server/discover", {}, modern=True))["result"]
        assert found["_meta"][META + "serverInfo"]["name"] == "scripted-mcp"
        assert (found["ttlMs"], found["cacheScope"]) == (0, "private")


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (done(), True),
        (text_result("an older server"), True),
        ({"resultType": "Complete"}, False),
        ({"resultType": "later"}, False),
        ({"resultType": None}, False),
        ({"resultType": "input_required"}, False),
        ({"resultType": "input_required", "requestState": "s"}, True),
        ({"resultType": "input_required", "inputRequests": {"a": {"method": "ping"}}}, False),
        ({"resultType": "task", "taskId": "t"}, False),
    ],
)
async def test_types_of_results(serve, answer, passes):
    """Rules 7.1, 7.11, 7.12 and 11.4: for a client that declared nothing."""
    async with (
        ScriptedUpstream({"tools/call": json_answer(answer)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        document = await (await client.post(call(), modern=True)).answer()
        assert ("result" in document) is passes, document


async def test_methods_that_ask_for_no_input(serve):
    """Rule 7.11."""
    asks = {"resultType": "input_required", "requestState": "s"}
    async with (
        ScriptedUpstream({"tools/list": json_answer(asks)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        assert (await client.call("tools/list", modern=True))["error"]["data"]["reason"] == "upstream-result"


async def test_notifications_belong_to_their_request(serve):
    """Rules 7.2, 7.3 and 7.25: log messages for who asked for them, progress under the request's own token."""

    def progress(token: Any, n: int = 1) -> dict[str, Any]:
        return notification("notifications/progress", {"progressToken": token, "progress": n})

    changed = notification("notifications/tools/list_changed")
    events = (note("log"), progress("mine"), progress("other"), progress(None), changed, {"result": done()})
    async with (
        ScriptedUpstream({"tools/call": sse_answer(*events)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        for meta, passed in (
            ({}, []),
            ({META + "logLevel": "info"}, [note("log")]),
            ({"progressToken": "mine"}, [progress("mine")]),
        ):
            response = await client.post(call(_meta=meta), modern=True)
            assert (await response.messages())[:-1] == passed


async def test_a_server_has_no_requests(serve):
    """Rules 7.2 and 2.14: what comes after one is not read."""
    events = (request("roots/list", id="q"), {"result": done()})
    async with (
        ScriptedUpstream({"tools/call": sse_answer(*events)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        [document] = await (await client.post(call(), **MODERN)).messages()
        assert (document["id"], document["error"]["data"]["reason"]) == (7, "upstream-request")
        assert len(upstream.requests) == 1


SUBSCRIBED = {"_meta": {META + "subscriptionId": 7}}
ACKNOWLEDGED = notification(
    "notifications/subscriptions/acknowledged", {"notifications": {"toolsListChanged": True}, **SUBSCRIBED}
)
TOOLS_CHANGED = notification("notifications/tools/list_changed", SUBSCRIBED)
LISTEN = request(
    "subscriptions/listen", {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}}, id=7
)


async def test_what_comes_on_a_subscription(serve):
    """Rules 7.3, 7.7 and 7.8: after the acknowledgement, what was asked for, and named after the request."""
    updated = [
        notification("notifications/resources/updated", {"uri": f"file:///{name}", **SUBSCRIBED}) for name in "ab"
    ]
    events = (
        TOOLS_CHANGED,
        ACKNOWLEDGED,
        notification("notifications/tools/list_changed", {"_meta": {META + "subscriptionId": "7"}}),
        notification("notifications/tools/list_changed"),
        notification("notifications/prompts/list_changed", SUBSCRIBED),
        notification("notifications/progress", {"progressToken": 1, "progress": 1, **SUBSCRIBED}),
        notification("notifications/message", {"level": "info", "data": "x", **SUBSCRIBED}),
        *updated,
        TOOLS_CHANGED,
        {"result": {**COMPLETE, **SUBSCRIBED}},
    )
    async with (
        ScriptedUpstream({"subscriptions/listen": sse_answer(*events)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        messages = await (await client.post(LISTEN, modern=True)).messages()
        assert messages == [
            ACKNOWLEDGED,
            updated[0],
            TOOLS_CHANGED,
            {"jsonrpc": "2.0", "id": 7, "result": {**COMPLETE, **SUBSCRIBED}},
        ]


async def test_how_a_subscription_ends(serve):
    """Rules 7.6 and 7.9: by the server's word, which passes; or without one, and then none is made up."""
    cancelled = notification("notifications/cancelled", {"requestId": 7, "reason": "going"})
    for events, expected in (((ACKNOWLEDGED,), [ACKNOWLEDGED]), ((ACKNOWLEDGED, cancelled), [ACKNOWLEDGED, cancelled])):
        async with (
            ScriptedUpstream({"subscriptions/listen": sse_answer(*events)}) as upstream,
            (await serve(upstream.url)).client() as client,
        ):
            response = await client.post(LISTEN, modern=True)
            assert await response.messages() == expected
            assert response.complete


async def test_a_subscription_has_time(serve):
    """Rules 7.10 and 4.11: no limit for calls ends it, and comments keep its line open."""
    script = {
        "subscriptions/listen": answer_with(STREAM, Event(ACKNOWLEDGED), WaitFor("later"), Event(TOOLS_CHANGED), End())
    }
    async with ScriptedUpstream(script) as upstream:
        gateway = await serve(upstream.url, limits={"idle_timeout": "50ms", "keepalive_interval": "30ms"})
        async with gateway.client() as client:
            response = await client.post(LISTEN, modern=True)
            frames = [(await response.frame())[1] for _ in range(6)]
            assert [frame.raw for frame in frames[1:]] == [b": keep-alive\n\n"] * 5
            upstream.signal("later")
            assert [json.loads(frame.data) async for _, frame in response.frames() if frame.data] == [TOOLS_CHANGED]


async def test_nothing_is_cached(serve):
    """Rules 7.17 and 7.18: whatever a server says of how long its answer holds, it is asked each time."""
    count = iter(range(10))

    def answer(received: Received) -> Any:
        return json_answer(
            {**COMPLETE, "tools": [], "ttlMs": 600_000, "cacheScope": "public", "nextCursor": str(next(count))}
        )(received)

    async with ScriptedUpstream({"tools/list": answer}) as upstream:
        gateway = await serve(upstream.url)
        for token, cursor in ((None, "0"), (None, "1"), (BOB, "2")):
            async with gateway.client(*([token] if token else [])) as client:
                assert (await client.call("tools/list", modern=True))["result"]["nextCursor"] == cursor
        assert len(upstream.requests) == 3


async def test_pages_of_what_a_client_may_see(serve):
    """Rules 7.16, 7.19, 7.20 and 7.21: an empty page may have a next one, every page is private, the order stays."""
    pages = {None: ["b", "echo", "a"], "": ["x"], "two": ["echo"]}
    nexts = {None: "", "": "two"}

    def answer(received: Received) -> Any:
        cursor = received.params.get("cursor")
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in pages[cursor]]
        more = {"nextCursor": nexts[cursor]} if cursor in nexts else {}
        return json_answer({**COMPLETE, "tools": tools, "ttlMs": 5, "cacheScope": "public", **more})(received)

    async with ScriptedUpstream({"tools/list": answer}) as upstream, (await serve(upstream.url)).client(BOB) as client:
        seen = []
        cursor: dict[str, Any] = {}
        for _ in range(3):
            page = (await client.call("tools/list", cursor, modern=True))["result"]
            seen.append([tool["name"] for tool in page["tools"]])
            assert (page["ttlMs"], page["cacheScope"]) == (5, "private")
            cursor = {"cursor": page.get("nextCursor")}
        assert seen == [["echo"], [], ["echo"]]
        assert cursor == {"cursor": None}


async def test_each_try_is_paid_for(serve):
    """Rule 7.15: a next try is a request of its own, with its own place in the limits and in the record."""
    asks = {"resultType": "input_required", "requestState": "s"}
    async with ScriptedUpstream({"tools/call": json_answer(asks)}) as upstream:
        gateway = await serve(upstream.url, policies={"all": {"max_requests_per_minute": 2, "burst": 2}})
        async with gateway.client() as client:
            state = (await (await client.post(call(), modern=True)).answer())["result"]["requestState"]
            for status in (200, 429):
                response = await client.post(call(requestState=state, inputResponses={}), modern=True)
                await response.read()
                assert response.status == status
        assert len(gateway.records("request.accepted")) == 2


async def test_old_progress_of_a_task(serve):
    """Rules 11.1 and 11.3: the token lives on after the call has become a task, and tasks/cancel is what ends one."""
    progress = notification(
        "notifications/progress",
        {"progressToken": "p", "progress": 1, "_meta": {META + "related-task": {"taskId": "t1"}}},
    )
    script = session_server(
        {
            "tools/call": json_answer({"task": {"taskId": "t1", "status": "working"}}),
            "tasks/cancel": json_answer({"taskId": "t1", "status": "cancelled"}),
            "GET": sse_answer(progress),
        }
    )
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        await client.initialize(capabilities=ALL_CAPABILITIES)
        await (await client.post(call(task={"ttl": 1}, _meta={"progressToken": "p"}))).read()
        assert await (await client.get()).messages() == [progress]
        assert (await client.call("tasks/cancel", {"taskId": "t1"}))["result"]["status"] == "cancelled"


# -- extensions -------------------------------------------------------------------------------------------------------


async def test_apps(serve):
    """Rules 12.1, 12.2, 12.3 and 12.5: what is said of them passes as it is; their resources and calls are judged like
    any other, and a tool stays when its page is hidden."""
    ui = {"extensions": {META + "ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}}
    tool = {
        "name": "echo",
        "inputSchema": {"type": "object"},
        "_meta": {"ui": {"resourceUri": "ui://app/page", "csp": {"connectDomains": ["https://a.example"]}}},
    }
    page = b'{"jsonrpc":"2.0","id":8,"result":{"contents":[{"uri":"ui://app/page","mimeType":"text/html;profile=mcp-app","text":"<script>a<\\/script>","_meta":{"ui":{"permissions":{}}}}]}}'
    script = session_server(
        {
            "tools/list": json_answer({"tools": [tool]}),
            "resources/read": answer_with(Json(page)),
            "tools/call": json_answer(text_result("fine")),
        }
    )
    for allowed in (["ui://app/**"], []):
        async with ScriptedUpstream(script) as upstream:
            gateway = await serve(upstream.url, policies={"all": {"allowed_resources": allowed}})
            async with gateway.client() as client:
                await client.initialize(capabilities=ui)
                assert upstream.requests[0].params["capabilities"] == ui
                assert (await client.call("tools/list"))["result"]["tools"] == [tool]
                response = await client.post(request("resources/read", {"uri": "ui://app/page"}, id=8))
                assert (await response.read() == page) is bool(allowed)
                assert await (await client.post(call())).answer() == result("fine")
                denied = await client.call("tools/call", {"name": "denied_it", "_meta": {"ui": {}}})
                assert denied["error"]["code"] == -31403


async def test_what_frames_say_to_their_host(serve):
    """Rule 12.4: it is no business of a connection's."""
    frame = notification("ui/notifications/initialized", {})
    async with (
        ScriptedUpstream({"tools/call": sse_answer(frame, {"result": done()})}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        for modern in (False, True):
            messages = await (await client.post(call(), modern=modern)).messages()
            assert [each.get("id") for each in messages] == [7]
            refused = await client.call("ui/initialize", {}, modern=modern)
            assert refused["error"]["code"] == -32601
        assert len(upstream.requests) == 2


TRACES = {
    "good": {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=1",
        "baggage": "user=x",
    },
    "bad": {"traceparent": "nonsense", "tracestate": ",,,", "baggage": ""},
    "worse": {"traceparent": 1, "tracestate": None},
}


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("kind", TRACES)
async def test_traces(serve, kind, modern):
    """Rules 13.1, 13.2, 13.3, 13.4 and 13.5: they pass as they are in every revision, and fail no call."""
    answered = {**done(), "_meta": TRACES[kind]}
    async with (
        ScriptedUpstream({"tools/call": json_answer(answered)}) as upstream,
        (await serve(upstream.url)).client() as client,
    ):
        document = await (await client.post(call(_meta=TRACES[kind]), modern=modern)).answer()
        assert document["result"] == answered
        assert upstream.requests[-1].params["_meta"].items() >= TRACES[kind].items()


async def test_nobody_cancels_by_message_in_the_stateless_revision(serve):
    """Rule 7.5: 202 and nothing more; an id that a client makes up may be another client's at a shared upstream."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        for token in (None, BOB):
            async with gateway.client(*([token] if token else [])) as client:
                cancel = notification("notifications/cancelled", {"requestId": 7})
                response = await client.post(cancel, modern=True)
                assert (response.status, await response.read()) == (202, b"")
        assert not upstream.requests
