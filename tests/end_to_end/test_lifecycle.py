"""Starting, the admin port, and stopping."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from gateway.app import Gateway
from gateway.config.load import validate
from gateway.guard.hook import PASS
from gateway.harness.client import request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import Event, Hang, Head, answer_with, status_answer
from gateway.harness.upstream import ScriptedUpstream, unused_port
from gateway.protocol.errors import AuditUnavailable
from gateway.relay.server import assert_c_parser

from .conftest import configuration, until

SLOW = request("tools/call", {"name": "slow", "arguments": {"until": "go"}}, id=7)


async def fetch(gateway, path):
    async with aiohttp.ClientSession() as session, session.get(gateway.gateway.admin_url + path) as response:
        return response.status, await response.text()


async def test_admin_port(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        assert await fetch(gateway, "/healthz") == (200, '{"status":"ok"}\n')
        status, body = await fetch(gateway, "/readyz")
        assert (status, json.loads(body)["upstreams"]) == (200, {"up": "ok"})
        status, body = await fetch(gateway, "/servers")
        [server] = json.loads(body)["servers"]
        assert (server["name"], server["endpoint"], server["hooks"]) == (
            "up",
            gateway.url(),
            ["policy (enforce)", "sanitize (enforce)"],
        )
        async with gateway.client() as client:
            await client.call("tools/call", {"name": "echo"}, modern=True)
        status, body = await fetch(gateway, "/metrics")
        assert 'mcpgw_calls_total{client="alice",method="tools/call",outcome="answered",upstream="up"} 1.0' in body
        assert (await fetch(gateway, "/nothing"))[0] == 404
        assert (await fetch(gateway, "/up/mcp"))[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("evil.example", 421),
        ("evil.example:9090", 421),
    ],
)
async def test_pages_of_a_browser_do_not_read_the_admin_port(serve, host, status):
    """DNS rebinding: the page's own name leads to this address, and the browser says so in Host."""
    gateway = await serve(f"http://127.0.0.1:{unused_port()}/mcp")
    url = gateway.gateway.admin_url + "/healthz"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": host}) as response:
        assert response.status == status


async def test_not_ready_without_an_upstream(serve):
    gateway = await serve(f"http://127.0.0.1:{unused_port()}/mcp")
    status, body = await fetch(gateway, "/readyz")
    assert (status, json.loads(body)["upstreams"]) == (503, {"up": "unreachable"})


async def test_one_dead_upstream_does_not_stop_the_others(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve({"up": upstream.url, "down": f"http://127.0.0.1:{unused_port()}/mcp"})
        assert (await fetch(gateway, "/readyz"))[0] == 200
        async with gateway.client() as client:
            assert "result" in await client.call("tools/call", {"name": "echo"}, modern=True)


async def test_stopping_ends_streams_and_waits_for_calls(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, limits={"drain_timeout": 5})
        async with gateway.client() as client, gateway.client() as caller:
            await client.initialize()
            stream = await client.get()
            await caller.send(caller.build(SLOW, modern=True))
            answer = await caller.response()
            handler = gateway.gateway.handler
            gateway.gateway.site.draining = True
            draining = asyncio.create_task(handler.drain(5))
            assert await stream.frame() is None
            assert stream.complete  # a clean end: the last chunk was there
            async with gateway.client() as late:
                refused = await late.post(request("ping", id=1))
                assert refused.status == 503
                assert (await refused.json())["error"]["data"]["reason"] == "draining"
            assert (await fetch(gateway, "/readyz"))[0] == 503
            assert not draining.done()
            upstream.signal("go")
            assert (await answer.answer())["id"] == 7
            await draining


@pytest.mark.parametrize(
    "steps", [(Hang(),), (Head(200, {"Content-Type": "text/event-stream"}), Event(b"", id=None), Hang())]
)
async def test_stopping_ends_calls_that_do_not_end(serve, steps):
    async with ScriptedUpstream(answer_with(*steps)) as upstream:
        gateway = await serve(upstream.url, limits={"drain_timeout": "200ms"})
        async with gateway.client() as client:
            await client.send(client.build(request("tools/call", {"name": "get_it"}, id=7)))
            await upstream.received()
            await until(lambda: gateway.gateway.handler.relays)
            await gateway.gateway.handler.drain(0.2)
            document = await (await client.response()).answer()
            assert (document["id"], document["error"]["data"]["reason"]) == (7, "draining")


async def test_start_and_stop_are_recorded(serve, tmp_path):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url)
        await gateway.gateway.__aexit__(None, None, None)
        assert [each["event"] for each in gateway.audit()] == ["started", "stopped"]


async def test_it_does_not_start_without_a_record(tmp_path):
    """And leaves no port open behind it."""
    (tmp_path / "file").write_text("")
    config = validate(configuration(tmp_path / "file" / "audit.jsonl", {"up": "http://127.0.0.1:9/mcp"}), source="test")
    gateway = Gateway(config)
    with pytest.raises(AuditUnavailable):
        await gateway.__aenter__()
    for port in (gateway.config.listen.port, gateway.config.admin.port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


class Asks:
    """A hook of a test that asks somebody, who takes a moment."""

    name = "asks"

    async def on_message(self, message, exchange):
        await asyncio.sleep(0.3)
        return PASS


async def test_an_initialize_that_a_hook_asks_about_is_answered_by_an_open_stream(serve):
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}

    def initialize(received):
        yield Head(200, {"Content-Type": "text/event-stream", "Mcp-Session-Id": "s1"})
        yield Event({"jsonrpc": "2.0", "id": received.id, "result": result})
        yield Hang()

    script = {"initialize": initialize, "notifications/initialized": status_answer(202)}
    async with ScriptedUpstream(script) as upstream:
        hook = {"kind": f"{__name__}:Asks", "timeout": "5s", "directions": ["server"]}
        gateway = await serve(upstream.url, hooks=["policy", hook])
        async with gateway.client() as client:
            assert await client.initialize() == result


async def test_stopping_while_a_hook_is_being_asked(serve):
    async with ScriptedMcp() as upstream:
        hook = {"kind": f"{__name__}:Asks", "timeout": "5s", "directions": ["client"]}
        gateway = await serve(upstream.url, hooks=["policy", hook], limits={"drain_timeout": 0})
        async with gateway.client() as client:
            await client.send(client.build(SLOW, modern=True))
            await until(lambda: gateway.gateway.handler.relays)
            await gateway.gateway.handler.drain(0)
            document = await (await client.response()).answer()
            assert (document["id"], document["error"]["data"]["reason"]) == (7, "draining")


def test_the_pure_python_parser_is_refused(monkeypatch):
    """It accepts requests that the C parser refuses, and a platform without a binary wheel gets it silently."""
    from aiohttp import http_parser

    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(RuntimeError, match="pure-Python HTTP parser"):
        assert_c_parser()
