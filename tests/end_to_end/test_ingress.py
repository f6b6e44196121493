"""Every way by which a message can come in, in both directions, leads past the hooks: section 14 of docs/protocol.md.

A hook that blocks whatever holds the mark stands last in the chain.  Each test sends the mark by one way, next to
something harmless, and shows that the other side gets the harmless part and never the mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.guard.hook import PASS, Block, Exchange, Verdict
from gateway.harness.client import notification, request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.mcp_tools import Tool
from gateway.harness.script import (
    Answer,
    End,
    Event,
    Json,
    Received,
    WaitFor,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
)
from gateway.harness.sse_client import SseClient
from gateway.harness.sse_server import ScriptedSse
from gateway.harness.upstream import ScriptedUpstream
from gateway.protocol.errors import ContentBlocked
from gateway.protocol.message import Message

from .conftest import ALICE, BOB, until
from .peers import ALL_CAPABILITIES, META, MODERN, STREAM, call, note, result, session_server, text_result

MARK = "forbidden-fruit"
SEEN: list[tuple[str, str, str | None]] = []


class Watch:
    """Notes each message that it sees, and blocks those with the mark."""

    name = "watch"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        is_marked = MARK in json.dumps(message.document)
        SEEN.append((message.sender.value, message.kind.value, message.method))
        return Block(ContentBlocked("it holds the mark", reason="marked")) if is_marked else PASS


HOOKS = ["policy", "sanitize", f"{__name__}:Watch"]
POLICY = {
    "allowed_methods": ["*", "tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update"],
    "allowed_resources": ["file:///open/**"],
    "allowed_prompts": ["open_*"],
}


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


@pytest.fixture
def watched(serve):
    """``gateway = await watched(upstream)``: a gateway with the hook."""

    async def start(upstream: ScriptedUpstream) -> Any:
        return await serve(upstream.url, hooks=HOOKS, policies={"all": POLICY})

    return start


def is_refused(document: Any, reason: str = "marked") -> bool:
    return document["error"]["data"]["reason"] == reason


def got(upstream: ScriptedUpstream) -> str:
    return " ".join(each.body.decode() for each in upstream.requests)


# -- from the client --------------------------------------------------------------------------------------------------


async def test_a_posted_request(watched):
    """Rule 14.1."""
    async with ScriptedMcp() as upstream:
        gateway = await watched(upstream)
        for modern in (True, False):
            async with gateway.client() as client:
                if not modern:
                    await client.initialize()
                marked = await client.post(
                    request("tools/call", {"name": "echo", "arguments": {"text": MARK}}, id=7), modern=modern
                )
                assert is_refused(await marked.answer())
                denied = await client.post(request("tools/call", {"name": "denied_it"}, id=8), modern=modern)
                assert is_refused(await denied.answer(), "tool-not-allowed")
                assert "result" in await client.call("tools/call", {"name": "echo"}, modern=modern)
        assert MARK not in got(upstream)
        assert "denied_it" not in got(upstream)


async def test_a_posted_notification(watched):
    """Rules 14.2 and 2.9: a refusal of what nobody waits for is an HTTP error without an id."""
    async with ScriptedMcp() as upstream:
        async with (await watched(upstream)).client() as client:
            await client.initialize()
            refused = await client.post(
                notification("notifications/progress", {"progressToken": 1, "progress": 1, "message": MARK})
            )
            document = await refused.json()
            assert refused.status == 403
            assert is_refused(document)
            assert "id" not in document
            passed = await client.notify("notifications/roots/list_changed")
            assert (passed.status, passed.body_raw) == (202, b"")
        assert MARK not in got(upstream)
        assert ("client", "notification", "notifications/progress") in SEEN
        assert "roots/list_changed" in got(upstream)


async def test_a_posted_response(watched):
    """Rule 14.3: the hooks see the answer to the server's question, with the question's method."""
    async with ScriptedMcp() as upstream:
        async with (await watched(upstream)).client() as client:
            await client.initialize(capabilities=ALL_CAPABILITIES)
            response = await client.post(request("tools/call", {"name": "elicit"}, id=9))
            _, frame = await response.frame()
            question = json.loads(frame.data)
            async with client.sibling() as other:
                reply = {
                    "jsonrpc": "2.0",
                    "id": question["id"],
                    "result": {"action": "accept", "content": {"name": MARK}},
                }
                refused = await other.post(reply)
                assert refused.status == 403
                assert is_refused(await refused.json())
                accepted = await other.post({**reply, "result": {"action": "decline"}})
                assert accepted.status == 202
            assert "decline" in (await response.answer())["result"]["content"][0]["text"]
        assert MARK not in got(upstream)
        assert SEEN.count(("client", "result", "elicitation/create")) == 2


async def test_elements_of_a_batch(watched):
    """Rules 14.4 and 2.6: each is judged; what is refused is answered in its place, the others go on."""

    def answer(received: Received) -> Any:
        return [Json([result("fine", each["id"]) for each in received.message if "id" in each])]

    async with ScriptedUpstream(session_server({"batch": answer}, "2025-03-26")) as upstream:
        async with (await watched(upstream)).client() as client:
            await client.initialize(revision="2025-03-26")
            batch = [
                call("fine", 1),
                call(MARK, 2),
                request("tools/call", {"name": "denied_it"}, id=3),
                notification("notifications/progress", {"progressToken": 1, "progress": 1, "message": MARK}),
                notification("notifications/roots/list_changed"),
            ]
            response = await client.post(batch)
            documents = {each["id"]: each for each in await response.json()}
            assert documents[1] == result("fine", 1)
            assert is_refused(documents[2])
            assert is_refused(documents[3], "tool-not-allowed")
            sent = upstream.requests[-1].message
            assert [each["method"] for each in sent] == ["tools/call", "notifications/roots/list_changed"]
            # Nothing but notifications that are all refused: nothing leaves, and there is nothing to answer.
            count = len(upstream.requests)
            refused = await client.post([batch[3]])
            assert refused.status == 403
            assert len(upstream.requests) == count
        assert MARK not in got(upstream)


async def test_a_batch_of_responses(watched):
    """Rules 14.3 and 14.4."""
    asked = {"jsonrpc": "2.0", "id": "q", "method": "roots/list"}
    steps = answer_with(
        STREAM, Event(asked), Event({**asked, "id": "r"}), WaitFor("replied"), Event(result("done")), End()
    )
    script = session_server({"tools/call": steps, "batch": status_answer(202)}, "2025-03-26")
    async with ScriptedUpstream(script) as upstream:
        async with (await watched(upstream)).client() as client:
            await client.initialize(revision="2025-03-26", capabilities=ALL_CAPABILITIES)
            response = await client.post(call())
            ids = [json.loads((await response.frame())[1].data)["id"] for _ in range(2)]
            replies = [
                {"jsonrpc": "2.0", "id": ids[0], "result": {"roots": [{"uri": "file:///" + MARK}]}},
                {"jsonrpc": "2.0", "id": ids[1], "result": {"roots": []}},
            ]
            async with client.sibling() as other:
                assert (await other.post(replies)).status == 202
            upstream.signal("replied")
            assert (await response.answer())["result"]
        assert upstream.requests[-1].message == [{**replies[1], "id": "r"}]
        assert MARK not in got(upstream)


async def test_what_a_next_try_brings_back(watched):
    """Rules 14.5, 7.13, 7.14 and 7.15: a next try is a request like any other, and its state cannot be made up."""
    question = {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}},
    }
    asks = {"resultType": "input_required", "requestState": "inner state", "inputRequests": {"q": question}}

    def answers(received: Received) -> Any:
        done = {"resultType": "complete", **text_result("done")}
        return json_answer(done if "inputResponses" in received.params else asks)(received)

    async with ScriptedUpstream({"tools/call": answers}) as upstream:
        gateway = await watched(upstream)
        async with gateway.client() as client:
            modern = {"modern": True, "capabilities": ALL_CAPABILITIES}
            first = await (await client.post(call(), **modern)).answer()
            state = first["result"]["requestState"]
            assert "inner" not in state

            def again(name: str, text: str = "hello", sealed: Any = state, id: int = 8) -> dict[str, Any]:
                replies = {"q": {"action": "accept", "content": {"name": name}}}
                return call(text, id, inputResponses=replies, requestState=sealed)

            count = len(upstream.requests)
            assert is_refused(await (await client.post(again(MARK), **modern)).answer())
            for other in (
                again("Ada", "another argument"),
                again("Ada", sealed="inner state"),
                again("Ada", sealed=state[:-2]),
                again("Ada", sealed=1),
            ):
                response = await client.post(other, **modern)
                document = await response.answer()
                assert (response.status, document["error"]["code"]) == (400, -32602)
            async with gateway.client(BOB) as bob:  # and not by anybody else
                assert is_refused(await (await bob.post(again("Ada"), **modern)).answer(), "request-state")
            assert len(upstream.requests) == count
            last = await (await client.post(again("Ada"), **modern)).answer()
            assert last["result"]["content"][0]["text"] == "done"
            assert upstream.requests[-1].params["requestState"] == "inner state"
        assert MARK not in got(upstream)


def task_server(method: str, answer: Answer) -> dict[str, Answer]:
    """A server of 2026-07-28 whose every tool call is a task called t1."""
    started = {"resultType": "task", "taskId": "t1", "status": "working", "ttl": None}
    return {"tools/call": json_answer(started), method: answer}


async def test_input_for_a_task(watched):
    """Rules 14.6 and 11.4."""
    async with ScriptedUpstream(task_server("tasks/update", json_answer({"resultType": "complete"}))) as upstream:
        async with (await watched(upstream)).client() as client:
            started = await (await client.post(call(), **MODERN)).answer()
            assert started["result"]["taskId"] == "t1"
            for name, passes in ((MARK, False), ("Ada", True)):
                update = request(
                    "tasks/update",
                    {"taskId": "t1", "inputResponses": {"q": {"action": "accept", "content": {"name": name}}}},
                    id=8,
                )
                document = await (await client.post(update, **MODERN)).answer()
                assert ("result" in document) is passes, document
        assert MARK not in got(upstream)
        assert "Ada" in got(upstream)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_tasks_belong_to_who_started_them(watched, method):
    """Rules 14.7, 11.2, 11.5 and 9.2: an id that is known is not a right; another's is as one that there is not."""
    script = task_server(method, json_answer({"resultType": "complete", "taskId": "t1", "status": "working"}))
    async with ScriptedUpstream(script) as upstream:
        gateway = await watched(upstream)
        async with gateway.client() as alice, gateway.client(BOB) as bob:
            await (await alice.post(call(), **MODERN)).answer()
            count = len(upstream.requests)
            said = []
            for task in ("t1", "t2"):
                response = await bob.post(request(method, {"taskId": task}, id=8), **MODERN)
                document = await response.answer()
                assert (response.status, document["error"]["code"]) == (400, -32602)
                document["error"]["data"].pop("request")
                said.append(document)
            assert said[0] == said[1]
            assert len(upstream.requests) == count
            assert "result" in await (await alice.post(request(method, {"taskId": "t1"}, id=9), **MODERN)).answer()


async def test_tasks_of_a_session(watched):
    """Rules 14.7, 14.17, 11.1 and 11.2: 2025-11-25 has tasks/list and tasks/result besides."""
    texts = iter((MARK, "fine"))
    listed = {"tasks": [{"taskId": "t1", "status": "working"}, {"taskId": "t2", "status": "working"}], "nextCursor": ""}
    script = session_server(
        {
            "tools/call": json_answer({"task": {"taskId": "t1", "status": "working"}}),
            "tasks/list": json_answer(listed),
            "tasks/result": lambda received: json_answer(text_result(next(texts)))(received),
        }
    )
    async with ScriptedUpstream(script) as upstream:
        gateway = await watched(upstream)
        async with gateway.client() as client:
            await client.initialize(capabilities=ALL_CAPABILITIES)
            started = await (await client.post(call(task={"ttl": 1000}))).answer()
            assert started["result"]["task"]["taskId"] == "t1"
            document = await client.call("tasks/list")
            assert document["result"] == {**listed, "tasks": listed["tasks"][:1]}
            assert is_refused(await client.call("tasks/result", {"taskId": "t1"}))
            assert (await client.call("tasks/result", {"taskId": "t1"}))["result"] == text_result("fine")
            unknown = await client.call("tasks/result", {"taskId": "t2"})
            assert unknown["error"]["code"] == -32602
        assert [each.params for each in upstream.requests if each.rpc_method == "tasks/result"] == [
            {"taskId": "t1"}
        ] * 2


CLOSED, OPEN = "file:///closed/x", "file:///open/x"
REFERENCES: dict[str, tuple[str, Any, Any, bool]] = {
    # name: method, params that are refused, params that pass, whether in 2026-07-28
    "read": ("resources/read", {"uri": CLOSED}, {"uri": OPEN}, True),
    "read in a session": ("resources/read", {"uri": CLOSED}, {"uri": OPEN}, False),
    "subscribe": ("resources/subscribe", {"uri": CLOSED}, {"uri": OPEN}, False),
    "unsubscribe": ("resources/unsubscribe", {"uri": CLOSED}, {"uri": OPEN}, False),
    "prompt": ("prompts/get", {"name": "closed"}, {"name": "open_it"}, True),
    "completion of a prompt": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "closed"}, "argument": {"name": "a", "value": ""}},
        {"ref": {"type": "ref/prompt", "name": "open_it"}, "argument": {"name": "a", "value": ""}},
        True,
    ),
    "completion of a resource": (
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": "file:///closed/{x}"}, "argument": {"name": "x", "value": ""}},
        {"ref": {"type": "ref/resource", "uri": "file:///open/{x}"}, "argument": {"name": "x", "value": ""}},
        False,
    ),
    "subscription": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": [CLOSED]}},
        {"notifications": {"resourceSubscriptions": [OPEN]}},
        True,
    ),
    "subscription in another spelling": (
        "subscriptions/listen",
        {"notifications": {"resource_subscriptions": [CLOSED]}},
        {"notifications": {"resourceSubscriptions": [OPEN]}},
        True,
    ),
}


@pytest.mark.parametrize("case", REFERENCES)
async def test_what_a_request_names_is_judged(watched, case):
    """Rules 14.9 and 7.8: every way to name a resource or prompt is a way to ask for it."""
    method, closed, open_, modern = REFERENCES[case]
    build = MODERN if modern else {}
    ended = sse_answer({"result": {"resultType": "complete", "_meta": {META + "subscriptionId": 8}}})
    script = session_server(
        {method: ended if method == "subscriptions/listen" else json_answer({"resultType": "complete"})}
    )
    async with ScriptedUpstream(script) as upstream:
        async with (await watched(upstream)).client() as client:
            if not modern:
                await client.initialize()
            refused = await (await client.post(request(method, closed, id=7), **build)).answer()
            assert refused["error"]["code"] == -31403, refused
            passed = await (await client.post(request(method, open_, id=8), **build)).answer()
            assert "result" in passed, passed
        assert "closed" not in got(upstream)


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_the_transport_of_2024(serve, kind):
    """Rules 14.8 and 14.14, 1.9 and 1.10: what is POSTed to the message endpoint, and the events of the one stream, with
    a server of either transport behind."""

    async def marked(call: Any) -> Any:
        yield note(MARK)
        yield note("fine")
        yield call.text(MARK if call.arguments.get("text") == "twice" else "done")

    async with (
        ScriptedMcp(tools={"echo": Tool(marked)})
        if kind == "http"
        else ScriptedSse(tools={"echo": Tool(marked)}) as upstream
    ):
        transport = "streamable-http" if kind == "http" else "sse"
        gateway = await serve(
            upstream.url, hooks=HOOKS, policies={"all": POLICY}, upstreams={"up": {"transport": transport}}
        )
        async with SseClient(gateway.url().removesuffix("/mcp") + "/sse", token=ALICE) as client:
            assert client.endpoint.startswith(gateway.url().removesuffix("/mcp") + "/messages?session_id=")
            await client.initialize()
            for denied, reason in (
                (call(MARK, 5), "marked"),
                (request("tools/call", {"name": "denied_it"}, id=6), "tool-not-allowed"),
            ):
                assert (await client.post(denied)).status == 202
                assert is_refused(await client.answer(denied["id"]), reason)
            refused = await client.post(
                notification("notifications/progress", {"progressToken": 1, "progress": 1, "message": MARK})
            )
            assert refused.status == 403
            client.messages.clear()
            assert (await client.call("tools/call", {"name": "echo"}))["result"]["content"][0]["text"] == "done"
            assert [each for each in client.messages if "method" in each] == [note("fine")]
            assert is_refused(await client.call("tools/call", {"name": "echo", "arguments": {"text": "twice"}}))
            assert MARK not in json.dumps(client.messages)
        assert MARK not in got(upstream)
        assert "denied_it" not in got(upstream)


# -- from the server --------------------------------------------------------------------------------------------------


async def test_a_json_body(watched):
    """Rule 14.10."""
    texts = iter((MARK, "fine"))
    script = {"tools/call": lambda received: json_answer(text_result(next(texts)))(received)}
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        response = await client.post(call())
        body = await response.read()
        assert MARK.encode() not in body
        assert (response.status, is_refused(json.loads(body))) == (200, True)
        assert await (await client.post(call())).answer() == result("fine")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_batch_of_answers(watched, streaming):
    """Rules 14.10, 14.11 and 4.9: an array in a JSON body, and one in an event."""
    batch = [note(MARK), note("fine"), result(MARK, 1), result("fine", 2)]
    answer = answer_with(STREAM, Event(batch), End()) if streaming else answer_with(Json(batch[2:]))
    script = session_server({"batch": answer}, "2025-03-26")
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await client.initialize(revision="2025-03-26")
        response = await client.post([call(id=1), call(id=2)])
        messages = await response.messages()
        messages = messages if streaming else messages[0]
        assert MARK not in json.dumps(messages)
        if streaming:
            assert messages.pop(0) == note("fine")
        documents = {each["id"]: each for each in messages}
        assert is_refused(documents[1])
        assert documents[2] == result("fine", 2)


async def test_events_of_an_answer(watched):
    """Rule 14.11: notifications, progress and the result."""
    progress = notification("notifications/progress", {"progressToken": "p", "progress": 1, "message": MARK})
    script = {"tools/call": sse_answer(note(MARK), progress, note("fine"), {"result": text_result(MARK)})}
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        response = await client.post(call(_meta={"progressToken": "p"}))
        first, last = await response.messages()
        assert first == note("fine")
        assert is_refused(last)
        assert MARK.encode() not in response.body_raw
        assert [kind for sender, kind, _ in SEEN if sender == "server"] == ["notification"] * 3 + ["result"]


async def test_events_of_the_servers_own_stream(watched):
    """Rule 14.12; and rule 14.23: that a list has changed passes, and is seen."""
    async with ScriptedMcp() as upstream, (await watched(upstream)).client() as client:
        await client.initialize()
        async with client.sibling() as listener:
            stream = await listener.get()
            for message in (
                note(MARK),
                notification("notifications/tools/list_changed", {"_meta": {"x": MARK}}),
                notification("notifications/tools/list_changed"),
                None,
            ):
                upstream.push(message)
            assert await stream.messages() == [notification("notifications/tools/list_changed")]
            assert MARK.encode() not in stream.body_raw
        assert SEEN.count(("server", "notification", "notifications/tools/list_changed")) == 2


async def test_a_resumed_stream(watched):
    """Rules 14.13 and 5.5: the answer that comes on a GET is judged as what it is, a tools/call's."""
    resumed = iter((MARK, "fine"))

    def resume(received: Received) -> Any:
        return sse_answer(Event(note(MARK), id="2"), Event(result(next(resumed)), id="3"))(received)

    script = session_server({"tools/call": answer_with(STREAM, Event(b"", id="1"), End()), "GET": resume})
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await client.initialize()
        for passes in (False, True):
            SEEN.clear()
            first = await client.post(call())
            _, priming = await first.frame()
            assert await first.frame() is None
            stream = await client.get(last_event_id=priming.id.decode())
            [document] = await stream.messages()
            assert MARK.encode() not in stream.body_raw
            assert document == result("fine") if passes else is_refused(document)
            assert ("server", "result", "tools/call") in SEEN


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
@pytest.mark.parametrize("on", ["POST", "GET"])
async def test_a_request_of_the_server(watched, on, method):
    """Rules 14.15 and 4.1: it does not reach the client, and its server is told so."""
    asked = {"jsonrpc": "2.0", "id": "q", "method": method, "params": {"message": MARK, "messages": [], "maxTokens": 1}}
    posted = answer_with(STREAM, Event(asked), WaitFor("told"), Event(result("done")), End())
    script = session_server({"tools/call": posted, "GET": answer_with(STREAM, Event(asked), WaitFor("told"), End())})
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await client.initialize(capabilities=ALL_CAPABILITIES)
        response = await (client.post(call()) if on == "POST" else client.get())
        await until(lambda: any(each.message and "error" in each.message for each in upstream.requests))
        upstream.signal("told")
        assert await response.messages() == ([result("done")] if on == "POST" else [])
        [told] = [each.message for each in upstream.requests if each.message and "error" in each.message]
        assert (told["id"], told["error"]["data"]["reason"]) == ("q", "marked")
        assert ("server", "request", method) in SEEN


@pytest.mark.parametrize("kind", ["elicitation/create", "sampling/createMessage", "roots/list"])
async def test_requests_within_a_result(watched, kind):
    """Rules 14.16 and 7.12: what the client declared may be asked, if the hooks do not mind."""
    params = {
        "mode": "form",
        "message": MARK,
        "requestedSchema": {"type": "object", "properties": {}},
        "messages": [],
        "maxTokens": 1,
    }
    asks = {"resultType": "input_required", "inputRequests": {"q": {"method": kind, "params": params}}}
    async with (
        ScriptedUpstream({"tools/call": json_answer(asks)}) as upstream,
        (await watched(upstream)).client() as client,
    ):
        assert is_refused(await (await client.post(call(), **MODERN)).answer())
        undeclared = await (await client.post(call(), modern=True)).answer()
        assert is_refused(undeclared, "upstream-result")
        assert MARK not in json.dumps(undeclared)


@pytest.mark.parametrize("member", ["result", "inputRequests", "error"])
async def test_what_has_become_of_a_task(watched, member):
    """Rules 14.17 and 11.4: a task that is asked for holds a result, an error, or questions."""
    question = {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": MARK, "requestedSchema": {"type": "object", "properties": {}}},
    }
    holds = {"result": text_result(MARK), "inputRequests": {"q": question}, "error": {"code": 1, "message": MARK}}
    task = {"resultType": "complete", "taskId": "t1", "status": "working", member: holds[member]}
    script = task_server("tasks/get", json_answer(task))
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await (await client.post(call(), **MODERN)).answer()
        document = await (await client.post(request("tasks/get", {"taskId": "t1"}, id=8), **MODERN)).answer()
        assert is_refused(document)
        assert MARK not in json.dumps(document)


async def test_notifications_about_tasks(watched):
    """Rule 14.18: on a subscription, and on a session's stream; nobody hears of another's task."""
    subscribed = {"_meta": {META + "subscriptionId": 8}}

    def told(**params: Any) -> dict[str, Any]:
        return notification("notifications/tasks", {"status": "working", **params, **subscribed})

    acknowledged = notification(
        "notifications/subscriptions/acknowledged", {"notifications": {"taskIds": ["t1"]}, **subscribed}
    )
    events = (acknowledged, told(taskId="t1", statusMessage=MARK), told(taskId="t2"), told(taskId="t1"))
    script = task_server("subscriptions/listen", sse_answer(*events))
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await (await client.post(call(), **MODERN)).answer()
        listen = request("subscriptions/listen", {"notifications": {"taskIds": ["t1"]}}, id=8)
        assert await (await client.post(listen, **MODERN)).messages() == [acknowledged, told(taskId="t1")]

    def status(task: str, text: str) -> dict[str, Any]:
        return notification("notifications/tasks/status", {"taskId": task, "status": "working", "statusMessage": text})

    script = session_server(
        {
            "tools/call": json_answer({"task": {"taskId": "t3", "status": "working"}}),
            "GET": sse_answer(status("t3", MARK), status("t4", "another's"), status("t3", "fine")),
        }
    )
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        await client.initialize(capabilities=ALL_CAPABILITIES)
        await (await client.post(call(task={}))).answer()
        assert await (await client.get()).messages() == [status("t3", "fine")]


@pytest.mark.parametrize("streaming", [False, True])
async def test_errors(watched, streaming):
    """Rule 14.19: message and data."""
    errors = [{"code": -32602, "message": MARK}, {"code": -32603, "message": "m", "data": {"deep": [MARK]}}]
    for error in errors:
        answer = (
            sse_answer({"error": error})
            if streaming
            else error_answer(error["code"], error["message"], data=error.get("data"))
        )
        async with ScriptedUpstream({"tools/call": answer}) as upstream, (await watched(upstream)).client() as client:
            document = await (await client.post(call())).answer()
            assert is_refused(document)
            assert MARK not in json.dumps(document)


async def test_errors_that_ask_to_open_a_url(watched):
    """Rules 14.19, 7.23 and 9.5: -32042 is an elicitation by another name, in one revision alone."""
    for url, revision, passes in (
        ("https://a.example/x", "2025-11-25", True),
        ("javascript:alert(1)", "2025-11-25", False),
        (f"https://a.example/{MARK}", "2025-11-25", False),
        ("https://a.example/x", "2025-06-18", False),
    ):
        data = {"elicitations": [{"mode": "url", "url": url, "message": "m", "elicitationId": "e"}]}
        script = session_server({"tools/call": error_answer(-32042, "open it", data=data)}, revision)
        async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
            await client.initialize(revision=revision, capabilities=ALL_CAPABILITIES)
            document = await (await client.post(call())).answer()
            assert (document["error"]["code"] == -32042) is passes, (url, revision, document)
            assert passes or "elicitations" not in json.dumps(document)


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_bodies_of_http_errors(watched, status):
    """Rules 14.20 and 6.20."""
    texts = iter((MARK, "fine"))
    script = {"tools/call": lambda received: error_answer(-32602, next(texts), status=status)(received)}
    async with ScriptedUpstream(script) as upstream, (await watched(upstream)).client() as client:
        refused = await client.post(call(), modern=True)
        assert is_refused(await refused.answer())
        assert MARK.encode() not in refused.body_raw
        passed = await client.post(call(), modern=True)
        assert (passed.status, (await passed.answer())["error"]) == (status, {"code": -32602, "message": "fine"})


OPENINGS = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "serverInfo": {"name": "s", "version": "1"},
        "instructions": MARK,
    },
    "server/discover": {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {},
        "instructions": MARK,
        "ttlMs": 0,
        "cacheScope": "private",
    },
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("method", OPENINGS)
async def test_instructions(watched, method, streaming):
    """Rule 14.21: a session that was opened with words that must not pass is not opened."""
    headers = {"Mcp-Session-Id": "s1"} if method == "initialize" else {}
    answer = (
        sse_answer({"result": OPENINGS[method]}, headers=headers)
        if streaming
        else json_answer(OPENINGS[method], headers=headers)
    )
    async with ScriptedUpstream({method: answer}) as upstream, (await watched(upstream)).client() as client:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        response = await client.post(
            request(method, params if method == "initialize" else {}, id=7), modern=method != "initialize"
        )
        document = await response.answer()
        assert is_refused(document)
        assert MARK.encode() not in response.body_raw
        assert response.header("mcp-session-id") is None


@pytest.mark.parametrize("member", ["description", "inputSchema", "icons", "annotations", "_meta"])
async def test_definitions_of_tools(watched, member):
    """Rule 14.22: whatever a model or a person is shown of a tool."""
    values = {
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "description": MARK}}},
        "icons": [{"src": "https://a.example/" + MARK}],
    }
    tool = {
        "name": "get_it",
        "inputSchema": {"type": "object"},
        member: values.get(member, {"title": MARK} if member != "description" else MARK),
    }
    async with (
        ScriptedUpstream({"tools/list": json_answer({"tools": [tool]})}) as upstream,
        (await watched(upstream)).client() as client,
    ):
        document = await client.call("tools/list")
        assert is_refused(document)


async def test_secrets_and_invisible_text_in_definitions(serve):
    """Rules 14.21 and 14.22 with the hooks that every configuration has."""
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    tool = {"name": "get_it", "description": f"use {token}\u200b\u2060now", "inputSchema": {"type": "object"}}
    about = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "serverInfo": {"name": "s", "version": "1"},
        "instructions": f"say {token}\u202e",
    }
    script = session_server({"tools/list": json_answer({"tools": [tool]}), "initialize": json_answer(about)})
    async with ScriptedUpstream(script) as upstream, (await serve(upstream.url)).client() as client:
        opened = await client.initialize()
        listed = (await client.call("tools/list"))["result"]["tools"][0]["description"]
        for text in (opened["instructions"], listed):
            assert token not in text
            assert "[redacted:" in text
            assert not {"\u200b", "\u2060", "\u202e"} & set(text)


async def test_nothing_passes_that_no_hook_has_seen(watched):
    """All of one session: as many messages judged as were sent, in both directions."""
    async with ScriptedMcp() as upstream, (await watched(upstream)).client() as client:
        await client.initialize(capabilities=ALL_CAPABILITIES)
        async with client.sibling() as listener:
            stream = await listener.get()
            upstream.push(note("one"))
            await stream.frame()
            await client.call("tools/list")
            await client.call(
                "tools/call", {"name": "progress", "arguments": {"count": 3}, "_meta": {"progressToken": 1}}
            )
            upstream.push(None)
            assert await stream.frame() is None
        sent = [each for each in upstream.requests if each.method == "POST"]
        assert sum(sender == "client" for sender, _, _ in SEEN) == len(sent) == 4
        # three answers, three of progress, one on the stream
        assert sum(sender == "server" for sender, _, _ in SEEN) == 3 + 3 + 1
