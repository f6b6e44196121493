"""Messages that a hook holds back, through a whole gateway: they go by themselves, and nothing else waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.guard.hook import PASS, Exchange, Verdict
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import End, Event, WaitFor, answer_with
from gateway.harness.upstream import ScriptedUpstream
from gateway.protocol.message import Message

from .test_relay import CALL, STREAM_HEAD, answer, of_call

TOKEN = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
PLACEHOLDER = "[redacted:github-token]"
FIRST, SECOND = f"the key is {TOKEN[:20]}", f"{TOKEN[20:]} or so"


class Asking:
    """A hook that would have to be awaited, so that the exchange takes the other of the two ways through the shell."""

    name = "asking"

    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return PASS


ASKING = {"kind": f"{__name__}:Asking", "timeout": "1s", "methods": ["no/such"]}


def hooks(*more: Any, **options: Any) -> list[Any]:
    return ["policy", {"kind": "sanitize", "options": options}, *more]


def progress(text: str, number: int) -> dict[str, Any]:
    params = {"progressToken": "t", "progress": number, "message": text}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def log(text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}


def with_token(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "params": {**message["params"], "_meta": {"progressToken": "t"}}}


async def texts(response: Any, count: int) -> list[str]:
    """What the next events say."""
    found = []
    while len(found) < count:
        _, frame = await response.frame()
        if frame.data:
            document = json.loads(frame.data)
            params = document.get("params", {})
            found.append(params.get("message", params.get("data", document.get("method", "answer"))))
    return found


@pytest.mark.parametrize("more", [(), (ASKING,)], ids=["short", "long"])
async def test_a_secret_in_two_events_and_a_question_between_them(serve, more):
    steps = (
        Event(progress(FIRST, 1)),
        Event({"jsonrpc": "2.0", "id": "q", "method": "ping"}),
        WaitFor("more"),
        Event(progress(SECOND, 2)),
        Event(answer()),
        End(),
    )
    async with ScriptedUpstream(of_call(answer_with(STREAM_HEAD, *steps))) as upstream:
        gateway = await serve(upstream.url, hooks=hooks(*more, max_hold="1m"))
        async with gateway.client() as client:
            response = await client.post(with_token(CALL))
            assert await texts(response, 1) == ["ping"]
            upstream.signal("more")
            assert await texts(response, 3) == [f"the key is {PLACEHOLDER}", " or so", "answer"]
    [finding] = gateway.records("request.finished")[0]["findings"]
    assert (finding["rule"], finding["action"], finding["place"]) == ("github-token", "redact", "/params/message")


@pytest.mark.parametrize("more", [(), (ASKING,)], ids=["short", "long"])
async def test_a_held_event_arrives_by_itself(serve, more):
    """The upstream says nothing more until the client has got it."""
    steps = (Event(progress(FIRST, 1)), WaitFor("more"), Event(progress(SECOND, 2)), Event(answer()), End())
    async with ScriptedUpstream(of_call(answer_with(STREAM_HEAD, *steps))) as upstream:
        gateway = await serve(upstream.url, hooks=hooks(*more, max_hold="20ms"))
        async with gateway.client() as client:
            response = await client.post(with_token(CALL))
            assert await texts(response, 1) == [FIRST]
            upstream.signal("more")
            assert await texts(response, 2) == [f"{PLACEHOLDER} or so", "answer"]
    findings = gateway.records("request.finished")[0]["findings"]
    assert [each["action"] for each in findings] == ["flag", "redact"]


@pytest.mark.parametrize("more", [(), (ASKING,)], ids=["short", "long"])
async def test_what_is_held_goes_before_the_end(serve, more):
    """An upstream that leaves before its answer: the client gets what there was, and an error of its own."""
    async with ScriptedUpstream(of_call(answer_with(STREAM_HEAD, Event(progress(FIRST, 1)), End()))) as upstream:
        gateway = await serve(upstream.url, hooks=hooks(*more, max_hold="1m"))
        async with gateway.client() as client:
            response = await client.post(with_token(CALL))
            assert await texts(response, 2) == [FIRST, "answer"]
            assert await response.frame() is None


async def test_a_secret_whose_beginning_is_out_may_end_the_stream(serve):
    steps = (Event(progress(FIRST, 1)), WaitFor("more"), Event(progress(SECOND, 2)), Event(answer()), End())
    async with ScriptedUpstream(of_call(answer_with(STREAM_HEAD, *steps))) as upstream:
        gateway = await serve(upstream.url, hooks=hooks(max_hold="20ms", on_split="end"))
        async with gateway.client() as client:
            response = await client.post(with_token(CALL))
            assert await texts(response, 1) == [FIRST]
            upstream.signal("more")
            error = (await response.answer())["error"]
            assert error["data"]["reason"] == "split-secret"
            assert TOKEN[20:] not in json.dumps(error)


async def test_on_the_servers_own_stream(serve):
    async with ScriptedMcp() as upstream:
        gateway = await serve(upstream.url, hooks=hooks(max_hold="20ms"))
        async with gateway.client() as client:
            await client.initialize()
            async with client.sibling() as listener:
                stream = await listener.get()
                upstream.push(log(FIRST))
                assert await texts(stream, 1) == [FIRST]
                upstream.push(log(SECOND))
                assert await texts(stream, 1) == [f"{PLACEHOLDER} or so"]
