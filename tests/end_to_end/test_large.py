"""Results of any size through a gateway process: cleaned, whole, and in bounded memory."""

from __future__ import annotations

import json

import pytest

from gateway.harness.script import Chunk, End, Head, answer_with
from gateway.harness.upstream import ScriptedUpstream
from scripts.large_result import measure

from .test_relay import CALL, STREAM_HEAD, of_call

MIB = 2**20


@pytest.mark.parametrize("sse", [False, True], ids=["json", "event"])
async def test_a_result_of_64_mib_takes_no_more_memory_than_a_small_one(sse):
    figures = await measure(64 * MIB, secrets=99, sse=sse)
    seen = figures.seen
    assert seen.whole
    assert seen.size > 63 * MIB
    assert (seen.redacted, seen.leaked) == (99, 0)
    assert seen.first_before_last
    assert figures.peak_rss - figures.idle_rss < 16 * MIB


LANES = pytest.mark.parametrize("listen", [{}, {"short_lane": False}], ids=["short", "long"])
TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
PROSE = "The quick brown fox jumps over the lazy dog. " * 2000
OPENING = '{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"'
JSON_HEAD = Head(200, {"Content-Type": "application/json"})


@LANES
@pytest.mark.parametrize("sse", [False, True], ids=["json", "event"])
@pytest.mark.parametrize(
    ("late", "rule", "blocked"),
    [
        ('"}],}}', "upstream-protocol-error", False),
        ('"}]},"id":8}', "upstream-protocol-error", False),
        (f'{TOKEN} {PROSE}"}}]}}}}', "content-blocked", True),
    ],
    ids=["broken", "twice", "blocks"],
)
async def test_what_is_wrong_late_cuts_the_connection(serve, listen, sse, late, rule, blocked):
    """Bytes are out by then, so that the client can only be told by getting no whole answer."""
    opening = ("event: message\ndata: " if sse else "") + OPENING
    parts = [opening, *[PROSE] * 8, late + ("\n\n" if sse else "")]
    steps = [Chunk(part.encode()) for part in parts]
    script = answer_with(STREAM_HEAD if sse else JSON_HEAD, *steps, End())
    hooks = ["policy", {"kind": "sanitize", "options": {"actions": {"github-token": "block"}}}]
    async with ScriptedUpstream(of_call(script)) as upstream:
        gateway = await serve(upstream.url, hooks=hooks, listen=listen)
        async with gateway.client() as client:
            response = await client.post(CALL)
            body = await response.read(within=20)
            assert response.status == 200
            assert response.complete is False
            assert await client.closed(within=5)
        assert body.startswith(opening.encode())
        assert TOKEN.encode() not in body
        with pytest.raises(ValueError):
            json.loads(body.partition(b"data: ")[2] if sse else body)
        finished = gateway.records("request.finished")[-1]
        assert finished["outcome"] == finished["rule"] == rule
        assert (gateway.records("message.blocked") != []) is blocked
