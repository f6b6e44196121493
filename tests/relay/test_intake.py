"""The client's half of a POST: what is refused, with which id, and what must not be."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from gateway.guard.hook import PASS, Exchange, Verdict
from gateway.protocol.errors import GatewayError, RateLimited, TooManyConcurrent
from gateway.protocol.message import Message
from gateway.relay.post import Post

from .conftest import JSON
from .test_exchange import CALL, DENIED, LIST, documents, streaming

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def feed(book, body: bytes, **fields):
    exchange = book.start(Post, book.head(**fields))
    for start in range(0, len(body), 16384):
        exchange.feed(body[start : start + 16384])
    return exchange


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get_it","arguments":{"x":"%s"}},"id":7}',
        b'{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},'
        b'"argument":{"name":"a","value":"%s"}}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1,"message":"%s"}}',
    ],
)
def test_a_large_message_may_have_its_members_in_any_order(play, body):
    """An early verdict is one on what cannot change any more."""
    book = play()
    assert feed(book, body % (b"x" * 100_000)).complete(book.clock) is not None


@pytest.mark.parametrize("params", [{"name": "get_it", "_meta": []}, {"name": "get_it", "access_token": "x"}])
def test_a_refusal_names_the_request(play, params):
    book = play()
    exchange = feed(book, json.dumps({**CALL, "params": params}).encode())
    with pytest.raises(GatewayError) as refused:
        exchange.complete(book.clock)
    assert json.loads(exchange.refuse(refused.value).body)["id"] == CALL["id"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "get_it", "request_state": "forged"}),
        ("tools/call", {"name": "get_it", "RequestState": "forged"}),
        ("tools/call", {"name": "get_it", "Arguments": {}}),
        ("tools/call", {"name": "get_it", "argument\u017f": {}}),
        ("subscriptions/listen", {"Notifications": {"resourceSubscriptions": ["secret://x"]}}),
    ],
)
def test_members_that_only_some_servers_read(play, method, params):
    """Rule 2.19: what is not judged under its name must not be read under it."""
    book = play()
    fields = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": method, "Mcp_Name": "get_it"}
    with pytest.raises(GatewayError) as refused:
        book.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}, **fields)
    assert refused.value.reason == "folded-member"


# -- batches ----------------------------------------------------------------------------------------------------------


def policy(**more):
    return {"default": {"allowed_upstreams": ["up"], "allowed_tools": ["get_*"], **more}}


def test_a_refused_batch_names_all_its_requests(play):
    book = play(policies=policy(max_requests_per_minute=600, burst=4))
    exchange = feed(
        book,
        json.dumps([{**CALL, "id": number} for number in range(6)]).encode(),
        Mcp_Session_Id=book.session(revision="2025-03-26"),
    )
    with pytest.raises(RateLimited) as refused:
        exchange.complete(book.clock)
    assert [each["id"] for each in json.loads(exchange.refuse(refused.value).body)] == [0, 1, 2, 3, 4, 5]


def test_a_refused_batch_without_requests_gets_one_error(play):
    book = play(policies=policy(max_requests_per_minute=600, burst=2))
    note = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
    exchange = feed(book, json.dumps([note] * 3).encode(), Mcp_Session_Id=book.session(revision="2025-03-26"))
    with pytest.raises(RateLimited) as refused:
        exchange.complete(book.clock)
    assert json.loads(exchange.refuse(refused.value).body)["error"]["data"]["reason"] == "rate-limited"


def test_each_request_of_a_batch_takes_a_place(play):
    book = play(policies=policy(max_requests_per_minute=None, max_concurrent_calls=3))
    id = book.session(revision="2025-03-26")
    calls = [{**CALL, "id": number} for number in range(4)]
    exchange = feed(book, json.dumps(calls).encode(), Mcp_Session_Id=id)
    with pytest.raises(TooManyConcurrent):
        exchange.complete(book.clock)
    exchange.close(book.clock)
    assert book.site.concurrency.calls == {}
    exchange, _ = book.post(calls[:3], Mcp_Session_Id=id)
    assert book.site.concurrency.calls == {"alice": 3}
    exchange.close(book.clock)
    assert book.site.concurrency.calls == {}


def test_refusals_of_a_batch_are_not_lost_with_its_stream(play):
    book = play()
    id = book.session(revision="2025-03-26")
    exchange = streaming(book, [CALL, DENIED, LIST], Mcp_Session_Id=id)
    assert {each["id"] for each in documents(exchange.end())} == {CALL["id"], DENIED["id"], LIST["id"]}


class Asking:
    name = "asking"

    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        raise NotImplementedError  # its verdict is told to the exchange


@pytest.mark.parametrize("asks", [False, True])
def test_a_batch_of_any_length(play, asks):
    """What is under way on the stack does not grow with it."""
    asking = {"kind": f"{__name__}:Asking", "timeout": "1s", "methods": ["tools/call"]}
    book = play(
        hooks=["policy", asking] if asks else ["policy"],
        limits={"max_batch": 500},
        policies=policy(max_requests_per_minute=None, max_concurrent_calls=500),
    )
    id = book.session(revision="2025-03-26")
    calls = [{**CALL, "id": number} for number in range(400)]
    exchange, forward = book.post(calls, Mcp_Session_Id=id)
    while forward is None:
        forward = exchange.resume(PASS)
    assert json.loads(forward.body) == calls
    exchange.answer_head(200, CIMultiDict(JSON), book.clock)
    answers = [{"jsonrpc": "2.0", "id": number, "result": {}} for number in range(400)]
    exchange.collect(json.dumps(answers).encode(), book.clock)
    reply = exchange.finish(book.clock)
    while reply is None:
        reply = exchange.resume(PASS)
    assert json.loads(reply.body) == answers
