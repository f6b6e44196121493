"""What a peer may make the gateway remember, write or work, has a bound: one peer's flood is not everybody's outage."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from gateway.guard.hook import PASS, Exchange, Finding, Replace, Verdict
from gateway.protocol.errors import UpstreamBusy
from gateway.protocol.message import Message
from gateway.record.entry import MAX_FINDINGS
from gateway.relay.answer import MAX_EMPTY

from .conftest import EVENT_STREAM
from .test_exchange import CALL, NOTE, RESULT, documents, event, streaming


class Noting:
    name = "noting"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        exchange.note(Finding("noting", "seen", "flag", "/params"))
        return PASS


def test_findings_of_a_stream_without_end(play):
    book = play(hooks=["policy", {"kind": f"{__name__}:Noting", "directions": ["server"]}])
    exchange, _ = book.get()
    exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock)
    for _ in range(10 * MAX_FINDINGS):
        exchange.receive(event(NOTE), book.clock)
    assert exchange.context.findings == []
    exchange.close(book.clock)
    *listed, rest = book.audit()[-1]["findings"]
    assert (len(listed), rest) == (MAX_FINDINGS, {"omitted": 9 * MAX_FINDINGS})
    labels = {"hook": "noting", "rule": "seen", "action": "flag"}
    assert book.site.metrics.registry.get_sample_value("mcpgw_findings_total", labels) == 10 * MAX_FINDINGS


def test_long_ids_are_not_remembered(play):
    """Neither those of a server's questions nor those of calls that a resumable stream leaves open."""
    book = play()
    id = book.session()
    exchange = streaming(book, {**CALL, "id": "i" * 60_000}, Mcp_Session_Id=id)
    for number in range(3):
        question = {"jsonrpc": "2.0", "id": f"{number}" + "q" * 100_000, "method": "ping"}
        assert documents(exchange.receive(event(question, id=b"1"), book.clock))
    exchange.close(book.clock, "client-gone")
    assert not len(book.site.sessions)
    assert not book.site.sessions._asked


def test_an_event_id_that_could_not_be_sent_back_is_left_out(play):
    """It holds the request's id, which the client chose; so a stream of small events stays a stream of small events."""
    book = play()
    exchange = streaming(book, {**CALL, "id": "i" * 60_000}, Mcp_Session_Id=book.session())
    out = exchange.receive(b"id: 1\n\n" + event(NOTE, id=b"2"), book.clock)
    assert b"id: " not in out
    assert documents(out) == [NOTE]
    assert documents(exchange.end())  # nobody can come back for the answer, so it ends here


def test_an_empty_event_id_is_no_cursor(play):
    book = play()
    exchange = streaming(book, Mcp_Session_Id=book.session())
    assert exchange.receive(b"id: 1\ndata:\n\n", book.clock)
    assert exchange.receive(b"id:\ndata:\n\n", book.clock) == b"id:\ndata:\n\n"
    assert documents(exchange.end())


def test_a_batch_within_a_batch_is_none(play):
    book = play()
    exchange = streaming(book, Mcp_Session_Id=book.session(revision="2025-03-26"))
    [error] = documents(exchange.receive(event([NOTE, [NOTE]]), book.clock))
    assert error["error"]["data"]["detail"] == "batch"


def test_a_batch_of_an_upstream_has_the_same_bound(play):
    book = play(limits={"max_batch": 2})
    id = book.session(revision="2025-03-26")
    exchange = streaming(book, Mcp_Session_Id=id)
    assert documents(exchange.receive(event([NOTE, NOTE]), book.clock)) == [NOTE, NOTE]
    [error] = documents(exchange.receive(event([NOTE, NOTE, NOTE]), book.clock))
    assert error["error"]["data"]["key"] == "limits.max_batch"


def test_a_flood_of_empty_events_ends_the_stream(play):
    exchange = streaming(book := play())
    assert not documents(exchange.receive(b":\n\n" * MAX_EMPTY, book.clock))
    [error] = documents(exchange.receive(b":\n\n" * (MAX_EMPTY + 1), book.clock))
    assert error["error"]["data"]["reason"] == "upstream-flood"


def test_questions_without_end_are_not_all_answered(play):
    """Each answer takes a connection to the upstream."""
    book = play()
    exchange = streaming(book, Mcp_Session_Id=book.session())
    question = event({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}})
    exchange.receive(question * 500, book.clock)
    assert len(exchange.take_blocked()) == 20
    exchange.receive(question * 500, book.clock + 2)
    assert len(exchange.take_blocked()) == 2


def test_bytes_are_counted_once(play):
    book = play()
    exchange = streaming(book)
    out = exchange.receive(event(NOTE), book.clock) + exchange.receive(b"data: nonsense\n\n", book.clock)
    assert exchange.bytes_out == len(out)
    exchange = streaming(book)
    out = exchange.receive(event(RESULT), book.clock)
    assert exchange.bytes_out == len(out)


@pytest.mark.parametrize(("wait", "passed"), [("120", True), ("\u0663", False), ("9" * 5000, False), ("soon", False)])
def test_what_of_retry_after_passes(play, wait, passed):
    book = play()
    exchange, _ = book.post(CALL)
    with pytest.raises(UpstreamBusy) as busy:
        exchange.answer_head(503, CIMultiDict({"Retry-After": wait}), book.clock)
    assert busy.value.headers == ({"Retry-After": wait} if passed else {})


def test_progress_of_others_is_not_everybodys(play):
    """A server without sessions has one stream for all callers (rule 7.25)."""
    book = play()
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    for fields, passed in (({}, []), ({"Mcp_Session_Id": book.session()}, [progress])):
        exchange, _ = book.get(**fields)
        exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock)
        assert documents(exchange.receive(event(progress), book.clock)) == passed


def test_an_event_type_without_data_does_not_pass(play):
    exchange = streaming(book := play())
    assert exchange.receive(b"event: endpoint\ndata:\n\nevent: x\n\n", book.clock) == b""


def test_what_a_hook_makes_of_an_answer_may_be_no_json(play):
    """Then the call has not been answered, and still gets its answer."""
    book = play(hooks=["policy", {"kind": f"{__name__}:Breaking", "directions": ["server"]}])
    exchange = streaming(book)
    with pytest.raises(TypeError):
        exchange.receive(event(RESULT), book.clock)
    [error] = documents(exchange.fail(UpstreamBusy("any")))
    assert error["id"] == CALL["id"]


class Breaking:
    name = "breaking"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return Replace(message.with_document({**message.document, "result": {"content": {1, 2}}}))


def test_a_broken_stream_ends_its_call(play):
    """Also where it could have been resumed: the client has its answer, and may use the id again."""
    book = play()
    id = book.session()
    exchange = streaming(book, Mcp_Session_Id=id)
    exchange.receive(b"id: 1\ndata:\n\n", book.clock)
    assert documents(exchange.receive(b"data: nonsense\n\n", book.clock))
    exchange.close(book.clock)
    book.post(CALL, Mcp_Session_Id=id)


def test_a_call_that_is_not_remembered_is_not_taken_for_cancelled(play):
    book = play(limits={"max_sessions": 1})
    exchange = streaming(book, Mcp_Session_Id=book.session("s-1"))
    streaming(book, Mcp_Session_Id=book.session("s-2"))
    [error] = documents(exchange.end())
    assert error["error"]["data"]["reason"] == "upstream-no-answer"


def test_capabilities_with_large_integers(play):
    """More than 64 bits, which orjson does not write."""
    book = play()
    id = book.session(capabilities={"experimental": {"x": 10**30}})
    assert json.loads(book.post(CALL, Mcp_Session_Id=id)[1].body) == CALL


def test_cancelling_needs_no_place(play):
    """A client whose places are all taken must be able to give one up."""
    policy = {"allowed_upstreams": ["up"], "allowed_tools": ["*"], "max_concurrent_calls": 1}
    book = play(policies={"default": policy})
    id = book.session()
    book.post(CALL, Mcp_Session_Id=id)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    _, forward = book.post(cancel, Mcp_Session_Id=id)
    assert forward.method == "POST"
