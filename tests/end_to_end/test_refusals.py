"""What is refused: the documented status, code and key; nothing reaches the upstream; one line in the audit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.harness.client import RawClient, http_request, notification, request
from gateway.harness.mcp_server import ScriptedMcp

from .conftest import ALICE, BOB, until

ECHO = request("tools/call", {"name": "echo", "arguments": {"text": "hi"}}, id=7)

CASES: dict[str, tuple[Any, dict[str, Any], int, int, str, str | None]] = {
    # name: message, build options, status, code, reason, key
    "denied tool": (
        request("tools/call", {"name": "denied_it"}, id=7),
        {},
        200,
        -31403,
        "tool-not-allowed",
        "policies.all.allowed_tools",
    ),
    "a tool call that is a notification": (
        notification("tools/call", {"name": "denied_it"}),
        {},
        403,
        -32601,
        "method-not-found",
        None,
    ),
    "unknown method": (
        request("no/such", {}, id=7),
        {},
        200,
        -32601,
        "method-not-found",
        "policies.all.allowed_methods",
    ),
    "unknown method, stateless": (
        request("no/such", {}, id=7),
        {"modern": True},
        404,
        -32601,
        "method-not-found",
        "policies.all.allowed_methods",
    ),
    "no token": (ECHO, {"token": ""}, 401, -31401, "unauthenticated", None),
    "unknown token": (ECHO, {"token": ALICE + "x"}, 401, -31401, "invalid-token", None),
    "two tokens": (ECHO, {"extra": [("Authorization", f"Bearer {BOB}")]}, 401, -31401, "invalid-token", None),
    "basic": (ECHO, {"headers": {"Authorization": "Basic YWxpY2U6eA=="}}, 401, -31401, "unauthenticated", None),
    "bad origin": (
        ECHO,
        {"extra": [("Origin", "https://evil.example")]},
        403,
        -31403,
        "origin-not-allowed",
        "listen.allowed_origins",
    ),
    "null origin": (ECHO, {"extra": [("Origin", "null")]}, 403, -31403, "origin-not-allowed", "listen.allowed_origins"),
    "bad host": (ECHO, {"headers": {"Host": "evil.example"}}, 421, -31421, "host-not-allowed", "listen.hosts"),
    "host with userinfo": (ECHO, {"headers": {"Host": "gw@evil"}}, 421, -31421, "host-not-allowed", "listen.hosts"),
    "plain text": (ECHO, {"headers": {"Content-Type": "text/plain"}}, 415, -31415, "unsupported-media-type", None),
    "no media type": (ECHO, {"headers": {"Content-Type": None}}, 415, -31415, "unsupported-media-type", None),
    "utf-16": (
        ECHO,
        {"headers": {"Content-Type": "application/json; charset=utf-16"}},
        415,
        -31415,
        "unsupported-media-type",
        None,
    ),
    "compressed": (ECHO, {"extra": [("Content-Encoding", "GZIP")]}, 415, -31415, "unsupported-media-type", None),
    "accepts only JSON": (ECHO, {"headers": {"Accept": "application/json"}}, 406, -31406, "not-acceptable", None),
    "accepts nothing": (ECHO, {"headers": {"Accept": None}}, 406, -31406, "not-acceptable", None),
    "not JSON": (b"{nope", {}, 400, -32700, "syntax", None),
    "empty": (b"", {}, 400, -32700, "syntax", None),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":7,"method":"\xff"}', {}, 400, -32700, "not-utf8", None),
    "BOM": (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":7,"method":"ping"}', {}, 400, -32700, "bom", None),
    "duplicate member": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping","m\\u0065thod":"ping"}',
        {},
        400,
        -32600,
        "duplicate-member",
        None,
    ),
    "folded member": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping","Method":"ping"}',
        {},
        400,
        -32600,
        "folded-member",
        None,
    ),
    "too deep": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":' + b"[" * 70 + b"]" * 70 + b"}}",
        {},
        400,
        -32600,
        "depth",
        "limits.json_depth",
    ),
    "batch": ([ECHO], {}, 400, -32600, "batch", None),
    "no id type": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', {}, 400, -32600, "id-type", None),
    "null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', {}, 400, -32600, "id-type", None),
    "request and response": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping","result":{}}',
        {},
        400,
        -32600,
        "unexpected-member",
        None,
    ),
    "positional params": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["echo"]}',
        {},
        400,
        -32600,
        "params-type",
        None,
    ),
    "unasked response": ({"jsonrpc": "2.0", "id": 1, "result": {}}, {}, 400, -32600, "response-not-expected", None),
    "unasked response, stateless": (
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"modern": True},
        400,
        -32600,
        "response-not-expected",
        None,
    ),
    "unknown session": (ECHO, {"session": "nope"}, 404, -31404, "unknown-session", None),
    "repeated session": (
        ECHO,
        {"extra": [("Mcp-Session-Id", "a"), ("Mcp-Session-Id", "b")]},
        400,
        -32020,
        "header-repeated",
        None,
    ),
    "too large": (
        request("tools/call", {"name": "echo", "arguments": {"text": "x" * 5000}}, id=7),
        {},
        413,
        -31413,
        "request-too-large",
        "policies.all.max_request_size",
    ),
    "missing _meta": (ECHO, {"modern": True, "meta": False}, 400, -32602, "invalid-params", None),
}


@pytest.mark.parametrize("case", CASES)
async def test_refused(serve, case):
    """Rules 2.2, 2.3, 2.4, 2.12, 2.15, 2.18, 2.19, 2.22, and 10.1, 10.2, 10.4, 10.6, 10.8, 10.9, 10.12."""
    message, build, status, code, reason, key = CASES[case]
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"max_request_size": "4KiB"}})
        async with gateway.client() as client:
            response = await client.post(message, **build)
            document = await response.json()
            data = document["error"]["data"]
            assert (response.status, document["error"]["code"], data["reason"], data.get("key")) == (
                status,
                code,
                reason,
                key,
            )
            assert data["origin"] == "gateway"
            assert response.header("content-type") == "application/json"
        assert not upstream.requests
        [record] = gateway.records()
        assert record["event"] == "request.refused"
        assert (record["rule"], record["status"]) == (reason, status)
        # The id: there when the message was well formed and read, absent where it was not; never null.
        assert document.get("id", "absent") is not None
        if isinstance(message, dict) and "method" in message and reason not in ("host-not-allowed", "header-repeated"):
            assert document.get("id") == message.get("id")
        if isinstance(message, dict) and "method" not in message:
            assert "id" not in document  # the id of a response is the server's


async def test_401_carries_a_challenge(serve):
    """Rules 8.1, 8.9 and 10.2."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client("") as client:
            response = await client.post(ECHO)
            assert response.header("www-authenticate").startswith("Bearer")
            assert "error=" not in response.header("www-authenticate")
            await response.read()
            bad = await client.post(ECHO, token="wrong")
            assert 'error="invalid_token"' in bad.header("www-authenticate")


async def test_rate_limit(serve):
    """Rules 9.7 and 10.12."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"max_requests_per_minute": 6, "burst": 2}})
        async with gateway.client() as client:
            for _ in range(2):
                assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)
            response = await client.post(ECHO, modern=True)
            document = await response.json()
            assert (response.status, document["error"]["code"], document["id"]) == (429, -31429, 7)
            assert document["error"]["data"]["key"] == "policies.all.max_requests_per_minute"
            assert 1 <= int(response.header("retry-after")) <= 10
        assert len(upstream.requests) == 2
        # another client has a bucket of its own
        async with gateway.client(BOB) as client:
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)


async def test_rate_limit_of_a_tool(serve):
    limits = {"tools": {"ec*": {"max_requests_per_minute": 1, "burst": 1}}}
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"rate_limits": limits}})
        async with gateway.client() as client:
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)
            response = await client.post(ECHO, modern=True)
            document = await response.json()
            assert (response.status, document["id"]) == (429, 7)
            assert document["error"]["data"]["key"].startswith("policies.all.rate_limits.tools.")
            assert "result" in await client.call("tools/call", {"name": "big"}, modern=True)


async def test_too_many_calls_at_once(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"max_concurrent_calls": 1}})
        async with gateway.client() as one, gateway.client() as other:
            slow = request("tools/call", {"name": "slow", "arguments": {"until": "go"}}, id=1)
            await one.send(one.build(slow, modern=True))
            await upstream.received()
            response = await other.post(ECHO, modern=True)
            document = await response.json()
            assert (response.status, document["id"], document["error"]["data"]["reason"]) == (
                429,
                7,
                "too-many-concurrent",
            )
            assert document["error"]["data"]["key"] == "policies.all.max_concurrent_calls"
            upstream.signal("go")
            assert (await (await one.response()).answer())["id"] == 1
            assert "result" in await other.call("tools/call", {"name": "echo"}, modern=True)


async def test_upstream_not_allowed(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(
            {"up": upstream.url, "other": upstream.url}, policies={"all": {"allowed_upstreams": ["other"]}}
        )
        async with gateway.client() as client:
            response = await client.post(ECHO)
            document = await response.json()
            assert (response.status, document["id"], document["error"]["data"]["reason"]) == (
                200,
                7,
                "upstream-not-allowed",
            )
            stream = await client.get()
            assert stream.status == 403
            await stream.read()
        assert not upstream.requests


async def test_deny_status_403(serve):
    """Rule 10.4."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, policies={"all": {"deny_status": 403}})
        async with gateway.client() as client:
            response = await client.post(request("tools/call", {"name": "denied_it"}, id=7))
            assert (response.status, (await response.json())["id"]) == (403, 7)


async def test_lists_show_what_may_be_used(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        for modern in (False, True):
            async with gateway.client(BOB) as bob:
                if not modern:
                    await bob.initialize()
                tools = (await bob.call("tools/list", modern=modern))["result"]["tools"]
                assert [tool["name"] for tool in tools] == ["echo"]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/mcp/",
        "//mcp",
        "/%6dcp",
        "/mcp%00",
        "/up/mcp/../mcp",
        "/metrics",
        "/healthz",
        "/readyz",
        "/servers",
        "/admin/x",
    ],
)
async def test_only_the_endpoints_are_there(serve, target):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            client.target = target
            response = await client.post(ECHO)
            assert response.status == 404
            await response.read()
        assert not upstream.requests


async def test_tokens_in_the_query_are_refused(serve):
    """Rule 8.11."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            client.target += f"?access_token={ALICE}"
            response = await client.post(ECHO)
            assert (response.status, (await response.json())["error"]["data"]["reason"]) == (400, "token-in-query")
        assert ALICE not in json.dumps(gateway.audit())


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "HEAD"])
async def test_other_http_methods(serve, method):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            response = await client.exchange(client.build(method=method))
            assert response.status == 405
            assert "POST" in response.header("allow")


RAW: dict[str, tuple[str, tuple[int, ...]]] = {
    "both framings": (
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    "two lengths": (
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        (400,),
    ),
    "gzip, chunked": (
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    "HTTP/1.0 chunked": ("POST /mcp HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
    "HTTP/2.0": ("POST /mcp HTTP/2.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", (400,)),
    "no host": ("POST /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n", (400, 421)),
    "two hosts": ("POST /mcp HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", (400,)),
    "absolute target": ("POST http://evil.example/mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", (421,)),
    "upgrade": ("GET /mcp HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", (400,)),
    "bare LF": ("POST /mcp HTTP/1.1\nHost: {host}\n\n", (400,)),
    "long header": ("POST /mcp HTTP/1.1\r\nHost: {host}\r\nX: " + "a" * 40_000 + "\r\n\r\n", (431,)),
    "long target": ("POST /" + "a" * 40_000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n", (414, 431)),
    "many headers": ("POST /mcp HTTP/1.1\r\nHost: {host}\r\n" + "X: 1\r\n" * 500 + "\r\n", (431,)),
    "much header": (
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\n" + "".join(f"X{n}: {'a' * 1000}\r\n" for n in range(30)) + "\r\n",
        (431,),
    ),
}


@pytest.mark.parametrize("case", RAW)
async def test_http_that_cannot_be_relied_on(serve, case):
    text, statuses = RAW[case]
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            response = await client.exchange(text.format(host=client.authority).encode())
            body = await response.read()
            assert response.status in statuses, body
            assert json.loads(body)["error"]["data"]["origin"] == "gateway"
            assert b"aaaa" not in body
            assert response.header("server") == "mcpgw"
        assert not upstream.requests
        assert [each["event"] for each in gateway.records()] == ["request.refused"]


async def test_an_absolute_target_that_names_this_server(serve):
    """RFC 9112 3.2.2: a server must accept it, though only clients of forward proxies send it."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            data = client.build(ECHO, modern=True).replace(
                b"POST /", b"POST http://" + client.authority.encode() + b"/", 1
            )
            assert (await (await client.exchange(data)).answer())["id"] == 7


async def test_a_header_that_does_not_end(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, limits={"header_timeout": "200ms"})
        async with gateway.client() as client:
            await client.send(b"POST /mcp HTTP/1.1\r\nHost: x\r\n")
            response = await client.response()
            assert response.status == 408
            await client.closed()
        assert [each["rule"] for each in gateway.records()] == ["header-timeout"]


async def test_a_body_that_does_not_come(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, limits={"body_idle_timeout": "200ms"})
        async with gateway.client() as client:
            await client.send(client.build(ECHO)[:-5])
            response = await client.response()
            document = await response.json()
            assert (response.status, document["error"]["data"]["key"]) == (408, "limits.body_idle_timeout")


async def test_a_large_request_is_refused_before_it_has_arrived(serve):
    """Its envelope says what it is; the rest need not come (and here never does)."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            message = request("tools/call", {"name": "denied_it", "arguments": {"text": "x" * 500_000}}, id=7)
            await client.send(client.build(message)[:150_000])
            response = await client.response()
            document = await response.json()
            assert (response.status, document["id"], document["error"]["data"]["reason"]) == (
                200,
                7,
                "tool-not-allowed",
            )
        assert not upstream.requests


async def test_a_large_request_that_is_allowed_arrives_whole(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            text = "x" * 500_000
            document = await client.call("tools/call", {"name": "echo", "arguments": {"text": text}}, modern=True)
            assert document["result"]["content"][0]["text"] == text


async def test_expect_100_continue(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            data = client.build(ECHO, modern=True, extra=[("Expect", "100-continue")])
            head, _, body = data.partition(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")
            assert await client.connection.read_until(b"\r\n\r\n", 1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(body)
            assert (await (await client.response()).answer())["id"] == 7
        async with gateway.client("") as client:  # not invited
            data = client.build(ECHO, extra=[("Expect", "100-continue")])
            await client.send(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            assert (await client.response()).status == 401


async def test_cors(serve):
    origin = "https://app.example.com"
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, listen={"allowed_origins": [origin]})
        async with gateway.client() as client:
            preflight = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization, mcp-param-city"),
            ]
            response = await client.exchange(client.build(method="OPTIONS", token="", extra=preflight))
            assert response.status == 204
            assert response.header("access-control-allow-origin") == origin
            assert "mcp-param-city" in response.header("access-control-allow-headers")
            assert response.header("access-control-allow-credentials") is None
            response = await client.post(ECHO, modern=True, extra=[("Origin", origin)])
            assert response.header("access-control-allow-origin") == origin
            assert "Mcp-Session-Id" in response.header("access-control-expose-headers")
            await response.read()
            evil = [("Origin", "https://app.example.com.evil.example"), ("Access-Control-Request-Method", "POST")]
            response = await client.exchange(client.build(method="OPTIONS", token="", extra=evil))
            assert response.status == 403
            assert response.header("access-control-allow-origin") is None


async def test_anonymous_only_by_explicit_policy(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(
            upstream.url,
            clients={"guest": {"policy": "open"}},
            policies={"open": {"require_auth": False, "allowed_upstreams": ["up"], "allowed_tools": ["echo"]}},
        )
        async with gateway.client("") as client:
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)
            assert (await client.post(ECHO, token="wrong", modern=True)).status == 401
        assert {each["client"] for each in gateway.records() if "client" in each} == {"guest"}


async def test_no_record_no_call(serve, tmp_path):
    """audit.mode required: where the record cannot be written, nothing leaves; and it recovers by itself."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)
            count = len(upstream.requests)
            folder, aside = tmp_path / "audit", tmp_path / "aside"
            folder.rename(aside)
            folder.write_text("a file where the folder was")
            response = await client.post(ECHO, modern=True)
            document = await response.json()
            assert (response.status, document["id"], document["error"]["data"]["reason"]) == (
                503,
                7,
                "audit-unavailable",
            )
            assert len(upstream.requests) == count
            folder.unlink()
            aside.rename(folder)
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)


async def test_the_audit_holds_no_values(serve):
    """Rule 9.8."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            await client.call("tools/call", {"name": "echo", "arguments": {"text": "very-private"}}, modern=True)
        await until(lambda: gateway.records("request.finished"))
        accepted, finished = gateway.records()
        assert "very-private" not in json.dumps([accepted, finished])
        assert accepted["arguments"]["shape"] == {"text": "string(12)"}
        assert (accepted["client"], accepted["upstream"], accepted["method"], accepted["name"]) == (
            "alice",
            "up",
            "tools/call",
            "echo",
        )
        assert finished["outcome"] == "answered"
        assert finished["request"] == accepted["request"]
        assert finished["revision"] == "2026-07-28"
        assert finished["bytes"]["in"] > 0 and finished["bytes"]["out"] > 0


async def test_secrets_are_redacted_in_every_kind_of_message(serve):
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    from gateway.harness.script import error_answer, json_answer, sse_answer
    from gateway.harness.upstream import ScriptedUpstream

    log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": {"note": token}}}
    final = {
        "result": {
            "content": [{"type": "text", "text": f"a {token} b"}],
            "structuredContent": {"password": "hunter2-x"},
        }
    }
    answers = {
        "tools/call": sse_answer(log, final),
        "resources/read": json_answer({"contents": [{"uri": "x://y", "text": token}]}),
        "prompts/get": error_answer(-32602, f"bad {token}", data={"why": token}),
    }
    async with ScriptedUpstream(answers) as upstream:
        gateway = await serve(upstream.url)
        async with gateway.client() as client:
            for method, params in (
                ("tools/call", {"name": "get_it"}),
                ("resources/read", {"uri": "x://y"}),
                ("prompts/get", {"name": "p"}),
            ):
                response = await client.post(request(method, params, id=7))
                body = await response.read()
                assert response.status == 200
                assert token.encode() not in body
                assert b"hunter2-x" not in body
                assert b"[redacted:" in body
        await until(lambda: len(gateway.records("request.finished")) == 3)
        assert all(each["findings"] for each in gateway.records("request.finished"))


async def test_a_raw_client_is_not_needed_for_a_plain_400(serve):
    """A request line alone, as a port scanner sends it."""
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        client = RawClient(gateway.url())
        async with client:
            response = await client.exchange(http_request("GET", "/", {"Host": client.authority}))
            assert response.status == 404
        await asyncio.sleep(0)
