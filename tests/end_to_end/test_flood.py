"""Upstreams that send events as fast as they can: everybody else has their turn all the same."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import pytest

from gateway.guard.hook import PASS, Exchange, Verdict
from gateway.harness.client import request
from gateway.harness.script import Chunk, Hang, Received, Repeat, Steps, event_bytes
from gateway.harness.script import Event as Sent
from gateway.harness.upstream import ScriptedUpstream
from gateway.protocol.message import Message, Sender
from gateway.relay.pump import TURN

from .test_relay import CALL, STREAM_HEAD, answer

FLOODS = 20
LANES = pytest.mark.parametrize("listen", [{}, {"short_lane": False}], ids=["short", "long"])


def progress(number: int) -> bytes:
    params = {"progressToken": "t", "progress": number}
    return event_bytes(Sent({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))


FLOOD = request("tools/call", {"name": "get_flood", "arguments": {}, "_meta": {"progressToken": "t"}}, id=7)
# Far more than is judged at once, in one write.
BURST = b"".join(progress(number) for number in range(1000, 3000))
MOST = TURN // len(progress(1000)) + 1


class Turns:
    """A hook that counts what is judged of each exchange between two turns of the loop.

    It stands in for a clock: how long a turn is depends on the machine, what is done in it does not.
    """

    name = "turns"
    counting: bool
    judged: Counter[str]
    most: Counter[str]
    total: Counter[str]

    def __init__(self) -> None:
        # What the test that has made the gateway reads.
        Turns.counting = True
        Turns.judged, Turns.most, Turns.total = Counter(), Counter(), Counter()

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        if message.sender is Sender.SERVER:
            self.judged[exchange.request] += 1
        return PASS

    @classmethod
    def turn(cls) -> None:
        cls.total += cls.judged
        cls.most |= cls.judged
        cls.judged.clear()
        if cls.counting:
            asyncio.get_running_loop().call_soon(cls.turn)


def script(received: Received) -> Steps:
    if received.params["name"] == "get_flood":
        return [STREAM_HEAD, Repeat(Chunk(BURST), 1000), Hang()]
    return [STREAM_HEAD, Sent(answer())]


@LANES
async def test_an_honest_call_among_floods(serve, listen):
    async with ScriptedUpstream({"tools/call": script}) as upstream:
        hooks = ["policy", {"kind": f"{__name__}:Turns"}, "sanitize"]
        gateway = await serve(upstream.url, listen=listen, hooks=hooks)
        Turns.turn()

        async def drown() -> None:
            async with gateway.client() as client:
                response = await client.post(FLOOD)
                while await response.frame() is not None:
                    pass

        floods = [asyncio.create_task(drown()) for _ in range(FLOODS)]
        try:
            async with asyncio.timeout(30):
                while len(Turns.total) < FLOODS or min(Turns.total.values()) < 2 * MOST:
                    assert not any(flood.done() for flood in floods)
                    await asyncio.sleep(0)
            async with gateway.client() as client:
                response = await client.post(CALL)
                assert [each["id"] for each in await response.messages()] == [7]
            assert not any(flood.done() for flood in floods)
        finally:
            Turns.counting = False
            for flood in floods:
                flood.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        # Of a stream that takes its turn before this hook does, and after it the next time, two turns are counted.
        assert max(Turns.most.values()) <= 2 * MOST < BURST.count(b"\n\n")


@LANES
async def test_a_flood_arrives_whole_and_in_order(serve, listen):
    def all_of_it(received: Received) -> Steps:
        return [STREAM_HEAD, Chunk(BURST), Chunk(BURST), Sent(answer())]

    async with ScriptedUpstream({"tools/call": all_of_it}) as upstream:
        gateway = await serve(upstream.url, listen=listen)
        async with gateway.client() as client:
            response = await client.post(FLOOD)
            messages = await response.messages()
    assert [each["params"]["progress"] for each in messages[:-1]] == 2 * [*range(1000, 3000)]
    assert messages[-1] == answer()


@LANES
async def test_a_connection_that_is_not_accepted_is_named_so(serve, listen):
    """The kernel drops what comes to a full backlog: the connection is what is late, not the answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        held: list[Any] = [await _begun(port) for _ in range(8)]
        try:
            gateway = await serve(f"http://127.0.0.1:{port}/mcp", listen=listen, limits={"connect_timeout": 0.2})
            async with gateway.client() as client:
                document = await (await client.post(CALL)).json()
        finally:
            for each in held:
                each.close()
    assert document["error"]["code"] == -31504
    assert document["error"]["data"]["key"] == "limits.connect_timeout"


async def _begun(port: int) -> socket.socket:
    """A connection that is accepted by the kernel, or never."""
    begun = socket.socket()
    begun.setblocking(False)
    begun.connect_ex(("127.0.0.1", port))
    await asyncio.sleep(0)
    return begun
