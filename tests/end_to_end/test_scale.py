"""Many streams at once: nothing lost, nothing misplaced, nothing left."""

from __future__ import annotations

import asyncio
import json
import resource

from gateway.harness.client import request
from gateway.harness.mcp_server import ScriptedMcp

from .conftest import until

STREAMS = 500
CALLS = 50
EVENTS = 20


async def test_many_streams_and_calls(serve):
    async with ScriptedMcp(patience=60) as upstream:
        gateway = await serve(upstream.url, upstreams={"up": {"streams": 1000}})
        tasks = len(asyncio.all_tasks())
        clients = []
        for first in range(0, STREAMS, 50):  # in steps, as a listen queue wants it
            clients += await asyncio.gather(*(_listener(gateway) for _ in range(first, first + 50)))
        known = gateway.gateway.site.sessions
        sessions = {client.session: known.find(client.session, "alice", "up").upstream_id for client, _ in clients}
        assert set(sessions.values()) == set(upstream.sessions)
        assert len(sessions) == STREAMS
        assert gateway.metric("mcpgw_open_streams", upstream="up", kind="get") == STREAMS

        # each stream gets events of its own, in order, while 50 calls stream beside them
        for number in range(EVENTS):
            for index, (client, _) in enumerate(clients):
                upstream.push(_numbered(index, number), sessions[client.session])
        reading = [_read(stream, index) for index, (_, stream) in enumerate(clients)]
        calling = [_call(gateway, index) for index in range(CALLS)]
        await asyncio.gather(*reading, *calling)

        for client, _ in clients:
            await client.close()
        await until(lambda: not gateway.gateway.handler.relays, 10)
        await until(lambda: gateway.gateway.pools["up"].streams == 0 and gateway.gateway.pools["up"].calls == 0)
        assert gateway.metric("mcpgw_open_streams", upstream="up", kind="get") == 0
        await until(lambda: upstream.open_connections <= gateway.gateway.pools["up"].idle_connections, 10)
        # The scripted server has a task for each of its connections.
        await until(lambda: len(asyncio.all_tasks()) <= tasks + upstream.open_connections + 2, 10)

        # idle is idle: no timer or task spins on
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(0.5)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.25


async def _listener(gateway):
    client = gateway.client(timeout=30)
    await client.initialize()
    other = client.sibling()
    await client.close()
    stream = await other.get()
    assert stream.status == 200
    return other, stream


def _numbered(index, number):
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": [index, number]}}


async def _read(stream, index):
    for number in range(EVENTS):
        _, frame = await stream.frame(within=30)
        assert json.loads(frame.data)["params"]["data"] == [index, number]


async def _call(gateway, index):
    async with gateway.client(timeout=30) as client:
        token = f"token-{index}"
        params = {
            "name": "progress",
            "arguments": {"count": EVENTS, "seconds": 0.01},
            "_meta": {"progressToken": token},
        }
        response = await client.post(request("tools/call", params, id=1), modern=True)
        messages = await response.messages()
        assert [each["params"]["progress"] for each in messages[:-1]] == list(range(1, EVENTS + 1))
        assert {each["params"]["progressToken"] for each in messages[:-1]} == {token}
        assert messages[-1]["id"] == 1


async def test_equal_ids_of_many_callers_never_cross(serve):
    """Every client uses id 1; the upstream answers in reverse order."""
    async with ScriptedMcp(patience=30) as upstream:
        gateway = await serve(upstream.url)

        async def one(number):
            async with gateway.client(timeout=30) as client:
                params = {"name": "echo", "arguments": {"text": f"mine {number}"}}
                document = await client.call("tools/call", params, modern=True)
                assert document["result"]["content"][0]["text"] == f"mine {number}"

        for _ in range(4):
            await asyncio.gather(*(one(number) for number in range(100)))
