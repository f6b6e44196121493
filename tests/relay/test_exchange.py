"""The exchange as a playbook: what goes in, what comes out, in order.  No socket, no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.guard.hook import PASS, Block, Drop, Exchange, Replace, Verdict
from gateway.protocol.errors import (
    BadRequest,
    GatewayError,
    HookFailed,
    InvalidParams,
    PolicyDenied,
    TooManyConcurrent,
    UnknownSession,
    UnsupportedRevision,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from gateway.protocol.message import Message
from gateway.relay.exchange import Answer, Reply
from gateway.wire import sse

from .conftest import EVENT_STREAM, JSON

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "get_it", "arguments": {}}}
RESULT = {"jsonrpc": "2.0", "id": 7, "result": {"content": []}}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}


def event(document: Any, **more: Any) -> bytes:
    return sse.encode(json.dumps(document).encode(), **more)


def streaming(book, message=CALL, **fields):
    exchange, _ = book.post(message, **fields)
    assert exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock) is Answer.STREAM
    return exchange


def documents(data: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in sse.Decoder(10**7, 10**7).feed(data) if frame.data]


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_call_from_head_to_record(play):
    book = play()
    exchange, forward = book.post(CALL)
    assert forward.body == json.dumps(CALL, separators=(",", ":")).encode()
    assert [each["event"] for each in book.audit()] == ["request.accepted"]  # before a byte leaves
    assert exchange.answer_head(200, CIMultiDict(JSON), book.clock) is Answer.COLLECT
    body = json.dumps(RESULT).encode()
    exchange.collect(body[:10], book.clock + 1)
    exchange.collect(body[10:], book.clock + 2)
    reply = exchange.finish(book.clock + 2)
    assert reply is not None
    assert (reply.status, reply.fields, reply.body) == (200, {"Content-Type": "application/json"}, body)
    exchange.close(book.clock + 2)
    exchange.close(book.clock + 9, "client-gone")  # says nothing new
    _, finished = book.audit()
    assert (finished["outcome"], finished["ms"]) == ("answered", {"first": 1000.0, "last": 2000.0})
    assert book.site.concurrency.calls == {}


def test_what_is_refused_is_not_accepted(play):
    book = play()
    with pytest.raises(PolicyDenied):
        book.post({**CALL, "params": {"name": "drop_it"}})
    assert book.audit() == []


def test_places_are_given_back(play):
    book = play(policies={"default": {"allowed_upstreams": ["up"], "allowed_tools": ["*"], "max_concurrent_calls": 1}})
    exchange, _ = book.post(CALL)
    with pytest.raises(TooManyConcurrent):
        book.post(CALL)
    exchange.close(book.clock)
    book.post(CALL)


def test_an_id_cannot_be_used_twice_at_once_in_a_session(play):
    """Rule 2.13; and ending the refused one leaves the first one's entry alone."""
    book = play()
    id = book.session()
    first, _ = book.post(CALL, Mcp_Session_Id=id)
    for _ in range(2):
        with pytest.raises(BadRequest) as refused:
            book.post(CALL, Mcp_Session_Id=id)
        assert refused.value.reason == "id-in-use"
    first.close(book.clock)
    book.post(CALL, Mcp_Session_Id=id)


def test_a_client_response_must_answer_a_question(play):
    book = play()
    id = book.session(capabilities={"roots": {}})
    reply = {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}
    with pytest.raises(BadRequest):
        book.post(reply, Mcp_Session_Id=id)
    exchange = streaming(book, Mcp_Session_Id=id)
    question = event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
    [asked] = documents(exchange.receive(question, book.clock))
    assert asked["method"] == "roots/list"
    assert asked["id"] != "q"  # it says whose it is
    answered, forward = book.post({**reply, "id": asked["id"]}, Mcp_Session_Id=id)
    assert json.loads(forward.body) == reply
    assert forward.fields["Mcp-Session-Id"] == "s-1"
    accepted = answered.answer_head(202, CIMultiDict(), book.clock)
    assert isinstance(accepted, Reply)
    assert (accepted.status, accepted.fields, accepted.body) == (202, {}, b"")
    other = book.session("s-2", capabilities={"roots": {}})
    with pytest.raises(BadRequest):
        book.post({**reply, "id": asked["id"]}, Mcp_Session_Id=other)
    cancelled = event({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})
    [note] = documents(exchange.receive(cancelled, book.clock))
    assert note["params"]["requestId"] == asked["id"]


# -- streams ----------------------------------------------------------------------------------------------------------


def test_frames_of_one_read_leave_in_one_write(play):
    exchange = streaming(book := play())
    data = b": hi\n\n" + event(NOTE) + b"retry: 5\n\n"
    assert exchange.receive(data, book.clock) == data
    assert not exchange.done
    assert exchange.receive(event(RESULT), book.clock) == event(RESULT)
    assert exchange.done
    assert exchange.receive(event(RESULT), book.clock) == b""
    assert exchange.end() == b""


@given(cuts=st.lists(st.integers(0, 400)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_chunking_gives_the_same_bytes(play, cuts):
    book = play()
    exchange = streaming(book)
    data = event(NOTE) + b": c\r\n\r\n" + event(NOTE, event=b"message") + event(RESULT)
    at, out = 0, b""
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        out += exchange.receive(data[at:cut], book.clock)
        at = cut
    assert out == data
    exchange.close(book.clock)


@given(junk=st.binary(max_size=200), valid=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_whatever_an_upstream_sends_the_call_gets_exactly_one_answer(play, junk, valid):
    book = play()
    exchange = streaming(book)
    out = exchange.receive(junk, book.clock)
    if valid:
        out += exchange.receive(b"\n\n" + event(RESULT), book.clock)
    out += exchange.end()
    resumable = exchange.outcome == "resumable"
    answers = [each for each in documents(out) if "id" in each]
    assert [each["id"] for each in answers] == ([] if resumable else [7])
    exchange.close(book.clock)


def test_a_broken_upstream_ends_in_one_error(play):
    book = play()
    exchange = streaming(book)
    out = exchange.receive(event(NOTE) + b"data: {nope\n\n" + event(RESULT), book.clock)
    note, error = documents(out)
    assert note == NOTE
    assert (error["id"], error["error"]["code"]) == (7, -31502)
    assert exchange.fail(UpstreamTimeout("late")) == b""  # it has been answered
    exchange.close(book.clock)
    assert book.audit()[-1]["outcome"] == "upstream-protocol-error"


def test_a_resumable_stream_ends_without_an_error(play):
    """Rules 4.4 and 5.3; a stateless revision has no resumption, so there it is an error (rule 5.8)."""
    book = play()
    exchange = streaming(book)
    exchange.receive(b"id: 1\ndata:\n\n", book.clock)
    assert exchange.fail(UpstreamProtocolError("broken off")) == b""
    exchange.close(book.clock)
    assert book.audit()[-1]["outcome"] == "resumable"
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    modern = {**CALL, "params": {**CALL["params"], "_meta": meta}}
    headers = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/call", "Mcp_Name": "get_it"}
    exchange = streaming(book, modern, **headers)
    exchange.receive(b"id: 1\ndata:\n\n", book.clock)
    [error] = documents(exchange.fail(UpstreamProtocolError("broken off")))
    assert error["id"] == 7


def test_a_cancelled_call_ends_quietly(play):
    """The client waits no longer: no error is made up for it (rule 4.6)."""
    book = play()
    id = book.session()
    exchange = streaming(book, Mcp_Session_Id=id)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    _, forward = book.post(cancel, Mcp_Session_Id=id)
    assert json.loads(forward.body) == cancel
    assert exchange.end() == b""
    exchange.close(book.clock)
    assert book.audit()[-1]["outcome"] == "cancelled"


@pytest.mark.parametrize(("token", "passes"), [("mine", True), ("other", False), (None, False)])
def test_progress_belongs_to_its_request(play, token, passes):
    """Rule 7.25: another caller's token is another caller's business."""
    book = play()
    call = {**CALL, "params": {**CALL["params"], "_meta": {"progressToken": "mine"}}}
    exchange = streaming(book, call)
    progress = event(
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
    )
    assert exchange.receive(progress, book.clock) == (progress if passes else b"")


def test_what_clients_ignore_does_not_pass(play):
    """Rule 4.13: event types and fields that nobody reads would carry text past the policy."""
    book = play()
    exchange = streaming(book)
    assert exchange.receive(event(NOTE, event=b"endpoint"), book.clock) == b""
    out = exchange.receive(b"secret: x\nid: a\0b\n" + event(NOTE), book.clock)
    assert documents(out) == [NOTE]
    assert b"secret" not in out
    assert b"\0" not in out
    assert exchange.receive(b"secret: x\n\n", book.clock) == b":\n\n"


def test_a_server_request_in_a_stateless_revision_ends_the_stream(play):
    """Rule 7.2."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
    }
    modern = {**CALL, "params": {**CALL["params"], "_meta": meta}}
    book = play()
    exchange = streaming(book, modern, MCP_Protocol_Version="2026-07-28", Mcp_Method="tools/call", Mcp_Name="get_it")
    [error] = documents(exchange.receive(event({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}), book.clock))
    assert (error["id"], error["error"]["data"]["reason"]) == (7, "upstream-request")


def test_a_subscription_ends_as_its_server_would_end_it(play):
    """Rule 7.6 on the gateway's own shutdown, rule 7.9 on the upstream's disappearance."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    listen = {
        "jsonrpc": "2.0",
        "id": "sub",
        "method": "subscriptions/listen",
        "params": {"_meta": meta, "notifications": {"toolsListChanged": True}},
    }
    book = play()
    exchange = streaming(book, listen, MCP_Protocol_Version="2026-07-28", Mcp_Method="subscriptions/listen")
    [final] = documents(exchange.drain())
    assert final["result"] == {"resultType": "complete", "_meta": {"io.modelcontextprotocol/subscriptionId": "sub"}}
    other = streaming(book, listen, MCP_Protocol_Version="2026-07-28", Mcp_Method="subscriptions/listen")
    assert other.end() == b""


def test_a_get_stream(play):
    book = play()
    id = book.session()
    exchange, forward = book.get(Mcp_Session_Id=id)
    assert forward.fields == {"Mcp-Session-Id": "s-1"}
    assert exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock) is Answer.STREAM
    assert exchange.receive(event(RESULT), book.clock) == b""  # rule 4.7: nobody asked
    assert exchange.receive(event(NOTE), book.clock) == event(NOTE)
    assert exchange.receive(b"data: nonsense\n\n", book.clock) == b""
    assert exchange.done


def test_a_stream_is_resumed_by_whom_it_belongs_to(play):
    """Rules 5.4 to 5.6: the event id leads back to the stream's own request, in its own session only."""
    book = play()
    id, other = book.session("s-1"), book.session("s-2")
    exchange = streaming(book, Mcp_Session_Id=id)
    out = exchange.receive(event(NOTE, id=b"e-1"), book.clock)
    [frame] = sse.Decoder(10**6, 10**6).feed(out)
    assert frame.raw.endswith(b"\n".join([b"data: " + json.dumps(NOTE).encode(), b"", b""]))
    assert b"e-1" not in frame.id
    assert exchange.end() == b""  # the client comes back
    exchange.close(book.clock)
    for session, last in ((other, frame.id.decode()), (id, "e-1"), (id, frame.id.decode()[:-1])):
        with pytest.raises(BadRequest) as refused:
            book.get(Mcp_Session_Id=session, Last_Event_ID=last)
        assert refused.value.reason == "unknown-event-id"
    resumed, forward = book.get(Mcp_Session_Id=id, Last_Event_ID=frame.id.decode())
    assert forward.fields["Last-Event-ID"] == "e-1"
    resumed.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock)
    assert resumed.receive(event({**RESULT, "id": 8}), book.clock) == b""
    assert resumed.receive(event(RESULT), book.clock) == event(RESULT)
    assert resumed.receive(event(RESULT), book.clock) == b""


# -- hooks ------------------------------------------------------------------------------------------------------------


class Speaks:
    """A hook of a test: gives the verdict that the message's text names."""

    name = "speaks"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        text = message.params.get("data") if message.method == "notifications/message" else None
        if text == "drop":
            return Drop("not wanted")
        if text == "change":
            return Replace(message.with_document({**message.document, "params": {"level": "info", "data": "changed"}}))
        if text == "raise":
            raise RuntimeError(text)
        if message.is_response and message.document.get("result", {}).get("bad"):
            return Block(PolicyDenied("bad", reason="bad"))
        return PASS


class Asks(Speaks):
    """The same, after asking somebody."""

    name = "asks"

    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:  # type: ignore[override]
        return Speaks.on_message(self, message, exchange)


SPEAKS = ["policy", f"{__name__}:Speaks"]
ASKS = ["policy", {"kind": f"{__name__}:Asks", "timeout": "1s"}]


def note(text: str) -> dict[str, Any]:
    return {**NOTE, "params": {"level": "info", "data": text}}


def test_verdicts_on_a_stream(play):
    book = play(hooks=SPEAKS)
    exchange = streaming(book)
    assert exchange.receive(event(note("drop")), book.clock) == b""
    # the cursor of a resumable stream moves on, without a message
    [frame] = sse.Decoder(10**6, 10**6).feed(exchange.receive(event(note("drop"), id=b"5"), book.clock))
    assert (frame.data, frame.id is not None) == (b"", True)
    [changed] = documents(exchange.receive(event(note("change"), id=b"6", event=b"message"), book.clock))
    assert changed["params"]["data"] == "changed"
    assert exchange.receive(event(note("raise")), book.clock) == b""  # fails closed
    [error] = documents(exchange.receive(event({**RESULT, "result": {"bad": True}}), book.clock))
    assert (error["id"], error["error"]["data"]["reason"]) == (7, "bad")
    assert [each["rule"] for each in book.audit() if each["event"] == "message.blocked"] == [
        "not wanted",
        "not wanted",
        "hook-failed",
        "bad",
    ]


async def test_a_hook_that_asks_holds_up_its_own_stream_and_keeps_the_order(play):
    book = play(hooks=ASKS)
    exchange, forward = book.post(CALL)
    assert forward is None
    assert book.audit() == []
    forward = exchange.resume(await exchange.pending.awaitable())
    assert json.loads(forward.body) == CALL
    exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock)
    first, second, third = event(note("one")), event(note("drop")), event(RESULT)
    out = exchange.receive(b": first\n\n" + first + second + third, book.clock)
    assert out == b": first\n\n"
    while exchange.pending is not None:
        out += exchange.resume_stream(await exchange.pending.awaitable())
    assert out == b": first\n\n" + first + third
    assert exchange.done


def test_no_verdict_in_time_blocks(play):
    book = play(hooks=ASKS)
    exchange, _ = book.post(CALL)
    with pytest.raises(HookFailed) as refused:
        exchange.resume(TimeoutError())
    assert refused.value.reason == "hook-timeout"
    reply = exchange.refuse(refused.value)
    assert (reply.status, json.loads(reply.body)["id"]) == (200, 7)


# -- heads of answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [
        (99, JSON, "upstream-status"),
        (999, JSON, "upstream-status"),
        (200, {**JSON, "Transfer-Encoding": "gzip, chunked"}, "upstream-framing"),
        (200, {**JSON, "Content-Encoding": "br"}, "upstream-encoding"),
        (200, {"Content-Type": "application/json; charset=utf-16"}, "upstream-media-type"),
        (200, {}, "upstream-media-type"),
        (302, {"Location": "http://127.0.0.1/"}, "upstream-redirect"),
        (403, JSON, "upstream-refused-credentials"),
    ],
)
def test_answers_that_cannot_be_used(play, status, fields, reason):
    book = play()
    exchange, _ = book.post(CALL)
    with pytest.raises(GatewayError) as failed:
        exchange.answer_head(status, CIMultiDict(fields), book.clock)
    assert failed.value.reason == reason


def test_a_session_id_is_taken_from_initialize_only(play):
    """Rule 3.4."""
    book = play()
    exchange, _ = book.post(CALL)
    exchange.answer_head(200, CIMultiDict({**JSON, "Mcp-Session-Id": "stolen"}), book.clock)
    exchange.collect(json.dumps(RESULT).encode(), book.clock)
    assert exchange.finish(book.clock).fields == {"Content-Type": "application/json"}


def test_an_upstream_404_ends_the_session(play):
    """Rule 3.7: the status passes, so that the client initializes again."""
    book = play()
    id = book.session()
    exchange, _ = book.post(CALL, Mcp_Session_Id=id)
    with pytest.raises(UpstreamProtocolError) as failed:
        exchange.answer_head(404, CIMultiDict(), book.clock)
    assert exchange.refuse(failed.value).status == 404
    with pytest.raises(UnknownSession):
        book.post(CALL, Mcp_Session_Id=id)


# -- revisions ------------------------------------------------------------------------------------------------------------


def initialize(asked):
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "p", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}


def limited(play, **bounds):
    policy = {"allowed_upstreams": ["up"], "allowed_tools": ["*"], "max_requests_per_minute": None, **bounds}
    return play(policies={"default": policy})


def test_what_initialize_asks_for_is_lowered_and_never_raised(play):
    """Rule 3.2."""
    book = limited(play, min_revision="2025-03-26", max_revision="2025-06-18")
    for asked, sent in (("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("2025-11-25", "2025-06-18")):
        _, forward = book.post(initialize(asked))
        assert json.loads(forward.body)["params"]["protocolVersion"] == sent
    with pytest.raises(UnsupportedRevision) as refused:
        book.post(initialize("2024-11-05"))
    assert refused.value.data["supported"] == ["2025-03-26", "2025-06-18"]


def test_what_the_upstream_negotiates_must_be_spoken_here(play):
    """Rule 3.2."""
    book = limited(play, min_revision="2025-06-18")
    exchange, _ = book.post(initialize("2025-11-25"))
    exchange.answer_head(200, CIMultiDict(JSON), book.clock)
    result = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {}}
    exchange.collect(json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode(), book.clock)
    with pytest.raises(UpstreamProtocolError) as failed:
        exchange.finish(book.clock)
    assert failed.value.reason == "upstream-revision"


def test_a_policy_may_allow_the_stateless_revision_only(play):
    """Rule 6.26: the error says what is supported."""
    book = limited(play, min_revision="2026-07-28")
    for message in (initialize("2025-11-25"), CALL):
        with pytest.raises(UnsupportedRevision) as refused:
            book.post(message)
        assert refused.value.data["supported"] == ["2026-07-28"]


def test_discovery_says_what_is_spoken_here(play):
    """Rule 6.30."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    book = limited(play, min_revision="2025-11-25")
    discover = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}
    exchange, _ = book.post(discover, MCP_Protocol_Version="2026-07-28", Mcp_Method="server/discover")
    exchange.answer_head(200, CIMultiDict(JSON), book.clock)
    result = {"resultType": "complete", "supportedVersions": ["2025-06-18", "2025-11-25", "2026-07-28"], "ttlMs": 5}
    exchange.collect(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode(), book.clock)
    answer = json.loads(exchange.finish(book.clock).body)
    assert answer["result"] == {**result, "supportedVersions": ["2025-11-25", "2026-07-28"]}


def test_a_request_state_comes_back_as_it_was(play):
    """Rules 7.13 and 7.14."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    headers = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/call", "Mcp_Name": "get_it"}
    call = {**CALL, "params": {**CALL["params"], "_meta": meta}}
    book = play()
    exchange, _ = book.post(call, **headers)
    exchange.answer_head(200, CIMultiDict(JSON), book.clock)
    asks = {
        "resultType": "input_required",
        "requestState": "inner",
        "inputRequests": {
            "q": {
                "method": "elicitation/create",
                "params": {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}},
            }
        },
    }
    exchange.collect(json.dumps({"jsonrpc": "2.0", "id": 7, "result": asks}).encode(), book.clock)
    sealed = json.loads(exchange.finish(book.clock).body)["result"]["requestState"]
    assert "inner" not in sealed
    again = {
        **call,
        "id": 8,
        "params": {**call["params"], "inputResponses": {"q": {"action": "accept"}}, "requestState": sealed},
    }
    _, forward = book.post(again, **headers)
    assert json.loads(forward.body)["params"]["requestState"] == "inner"
    other = {**again, "params": {**again["params"], "arguments": {"city": "Oslo"}}}
    with pytest.raises(InvalidParams):
        book.post(other, **headers)


# -- batches --------------------------------------------------------------------------------------------------------------

LIST = {"jsonrpc": "2.0", "id": "l", "method": "tools/list"}
DENIED = {"jsonrpc": "2.0", "id": "d", "method": "tools/call", "params": {"name": "drop_it"}}


def test_a_batch_is_judged_message_by_message(play):
    """Rules 2.5 and 2.6."""
    book = play()
    id = book.session(revision="2025-03-26")
    exchange, forward = book.post(
        [CALL, DENIED, LIST, {"jsonrpc": "2.0", "method": "notifications/x"}], Mcp_Session_Id=id
    )
    assert json.loads(forward.body) == [CALL, LIST]
    exchange.answer_head(200, CIMultiDict(JSON), book.clock)
    listed = {
        "jsonrpc": "2.0",
        "id": "l",
        "result": {"tools": [{"name": "get_it", "inputSchema": {}}, {"name": "drop_it", "inputSchema": {}}]},
    }
    exchange.collect(json.dumps([listed, RESULT]).encode(), book.clock)
    answers = {each["id"]: each for each in json.loads(exchange.finish(book.clock).body)}
    assert answers["d"]["error"]["data"]["reason"] == "tool-not-allowed"
    assert [tool["name"] for tool in answers["l"]["result"]["tools"]] == ["get_it"]
    assert answers[7] == RESULT
    exchange.close(book.clock)
    events = [(each["event"], each.get("method")) for each in book.audit()[-5:]]
    assert events.count(("request.accepted", "tools/call")) == 1
    assert events.count(("request.accepted", "tools/list")) == 1
    assert events[-1] == ("request.finished", "batch")


def test_a_batch_answered_by_a_stream(play):
    """Rules 2.5 and 4.9."""
    book = play()
    id = book.session(revision="2025-03-26")
    exchange = streaming(book, [CALL, DENIED, LIST], Mcp_Session_Id=id)
    listed = {"jsonrpc": "2.0", "id": "l", "result": {"tools": []}}
    out = exchange.receive(event([NOTE, RESULT]), book.clock)
    assert not exchange.done
    out += exchange.receive(event(listed), book.clock)
    assert exchange.done
    refused, *rest = documents(out)
    assert (refused["id"], rest) == ("d", [NOTE, RESULT, listed])


def test_every_request_of_a_batch_gets_its_answer(play):
    book = play()
    id = book.session(revision="2025-03-26")
    exchange = streaming(book, [CALL, LIST], Mcp_Session_Id=id)
    exchange.receive(event(RESULT), book.clock)
    [error] = documents(exchange.end())
    assert (error["id"], error["error"]["data"]["reason"]) == ("l", "upstream-no-answer")
    exchange, _ = book.post([CALL, DENIED], Mcp_Session_Id=id)
    failed = json.loads(exchange.refuse(UpstreamTimeout("late")).body)
    assert sorted((each["id"] for each in failed), key=str) == [7, "d"]


def test_a_server_that_takes_no_batches_answers_each_request(play):
    book = play()
    id = book.session(revision="2025-03-26")
    exchange, _ = book.post([CALL, LIST], Mcp_Session_Id=id)
    exchange.answer_head(400, CIMultiDict(JSON), book.clock)
    error = {"code": -32600, "message": "no batches here"}
    exchange.collect(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), book.clock)
    answers = json.loads(exchange.finish(book.clock).body)
    assert answers == [{"jsonrpc": "2.0", "id": id, "error": error} for id in (7, "l")]


def test_a_batch_of_nothing_but_refusals_does_not_leave(play):
    book = play()
    id = book.session(revision="2025-03-26")
    _, reply = book.post([DENIED], Mcp_Session_Id=id)
    assert isinstance(reply, Reply)
    assert [each["id"] for each in json.loads(reply.body)] == ["d"]


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [[CALL]],
        [CALL, CALL],
        [CALL, {"jsonrpc": "2.0", "id": 1, "result": {}}],
        [initialize("2025-03-26")],
        [LIST | {"id": number} for number in range(51)],
        [7],
    ],
)
def test_batches_that_are_none(play, batch):
    """Rules 2.5 and 2.7."""
    book = play()
    id = book.session(revision="2025-03-26")
    with pytest.raises(BadRequest):
        book.post(batch, Mcp_Session_Id=id)


def test_batches_elsewhere(play):
    """Rule 2.8: some servers would execute them all the same."""
    book = play()
    for revision in ("2024-11-05", "2025-06-18", "2025-11-25"):
        id = book.session(f"s-{revision}", revision)
        for headers in ({"Mcp_Session_Id": id}, {"Mcp_Session_Id": id, "MCP_Protocol_Version": "2025-03-26"}, {}):
            with pytest.raises(BadRequest):
                book.post([LIST], **headers)
