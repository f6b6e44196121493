"""nginx and haproxy before the gateway: whatever two parsers may disagree on, nothing reaches the upstream that the
record does not list, nobody gets another one's answer, and streams pass as they come.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.harness.client import RawClient, request
from gateway.harness.http1 import BadHttp
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import End, Event, Hang, Head, Json, Received, Steps, WaitFor, chunk_bytes, status_answer
from gateway.harness.sse_client import SseClient
from gateway.harness.upstream import ScriptedUpstream
from gateway.record.entry import describe_arguments
from scripts.attacks.case import load

from .conftest import ALICE, BOB, digest, until
from .fronts import FRONTS, Needs, front
from .mutations import HOST, Case, call, cases, post

WAYS = ("direct", *FRONTS)
CORPUS = Path(__file__).parents[1] / "corpus" / "corpus_open.jsonl"
CORPUS_TOKEN = "alice-test-token-0000000000000000000000001"
CORPUS_TOOLS = ["get_weather", "search_docs", "add_numbers", "create_note", "fetch_url"]
TABLE = cases(ALICE, BOB)
LISTEN = {"listen": {"hosts": [HOST.decode(), "gw.example.com", "gw.example.com:443"]}}
STREAM = Head(200, {"Content-Type": "text/event-stream"})

# Connections at once; and seconds without a byte after which a connection has said all that it will say.
AT_ONCE = 48
FIRST, QUIET = 1.5, 0.25

# What can end a conversation on a raw connection.
OVER = (BadHttp, ConnectionError, TimeoutError, ValueError)


@pytest.fixture
def reach(serve, needs, tmp_path):
    """``async with reach(way, upstream.url, **sections) as (gateway, port)``: where clients of that way connect."""

    @contextlib.asynccontextmanager
    async def start(way: str, url: str, **sections: Any) -> AsyncIterator[tuple[Any, int]]:
        gateway = await serve(url, **LISTEN | sections)
        config = gateway.gateway.config
        assert config.audit.mode == "required"
        if way == "direct":
            yield gateway, config.listen.port
            return
        async with front(way, needs, tmp_path / way, [config.listen.port], [config.admin.port]) as (port, _):
            yield gateway, port

    return start


def client_at(port: int, token: str = ALICE, path: str = "/mcp", **options: Any) -> RawClient:
    """A client that asks for the public name."""
    client = RawClient(f"http://127.0.0.1:{port}{path}", token=token, **options)
    client.authority = HOST.decode()
    return client


# -- smuggling --------------------------------------------------------------------------------------------------------

SMUGGLING = {
    "policies": {
        "all": {"allowed_tools": ["echo"]},
        "little": {"allowed_tools": ["echo"], "max_concurrent_calls": 1000},
        "corpus": {"allowed_upstreams": ["*"], "allowed_tools": CORPUS_TOOLS, "max_requests_per_minute": None},
    },
    "clients": {"corpus": {"token_sha256": digest(CORPUS_TOKEN), "policy": "corpus"}},
    # Who waits for the rest of a request that does not come shall not hold up the test.
    "limits": {"header_timeout": "1s", "body_idle_timeout": "1s"},
}


def echo(received: Received) -> Steps:
    """What the call's argument is, whoever calls."""
    arguments = received.params.get("arguments") or {}
    content = [{"type": "text", "text": str(arguments.get("mark"))}]
    return [Json({"jsonrpc": "2.0", "id": received.id, "result": {"content": content}})]


@dataclass(slots=True)
class Said:
    """What came back for a case: the texts of the answers on its connection, in order; ``raw`` is all of it.
    ``victim`` is what another caller got on a connection of its own just afterwards."""

    answers: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    raw: bytes = b""
    victim: bytes = b""


async def hear(client: RawClient, said: Said, method: str) -> None:
    """Everything that comes until the connection ends or falls silent."""
    within = FIRST
    with contextlib.suppress(*OVER):
        while True:
            response = await client.response(within, method=method)
            said.statuses.append(response.status)
            said.raw += response.raw_head + await response.read()
            said.answers += re.findall(r'"text":"([^"]*)"', response.body_raw.decode("latin-1"))
            within, method = QUIET, "POST"
    said.raw += client.connection.unread


async def play(port: int, case: Case, pause: float | None = None) -> Said:
    """Sends a case, an honest request after it on the same connection, and one of another caller's on another.

    ``pause``: what is hidden comes so many seconds after the rest.
    """
    said = Said()
    async with client_at(port) as client:
        with contextlib.suppress(*OVER):
            await client.send(case.data, sizes=() if pause is None else (case.cut,), pause=pause or 0.0)
        await hear(client, said, "HEAD" if case.data.startswith(b"HEAD ") else "POST")
        if client.connection.left is None:
            with contextlib.suppress(*OVER):
                await client.send(post(ALICE.encode(), call(case.mark("after"))))
            await hear(client, said, "POST")
    async with client_at(port) as client:
        response = await client.exchange(post(BOB.encode(), call(case.mark("victim"))))
        said.victim = await response.read()
    return said


async def play_all(port: int, table: Iterable[Case], pause: float | None = None) -> dict[Case, Said]:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> tuple[Case, Said]:
        async with free:
            return case, await play(port, case, pause)

    return dict(await asyncio.gather(*(one(case) for case in table)))


def misheard(case: Case, said: Said) -> list[str]:
    """What a caller got that is not its own, or not in the order in which it asked."""
    faults = []
    if {int(number) for number in re.findall(rb"\bm(\d+)-", said.raw)} - {case.number}:
        faults.append("another one's answer on its connection")
    order = [case.mark(part) for part in ("carrier", "hidden", "after")]
    known = [order.index(text) for text in said.answers if text in order]
    if len(known) != len(said.answers) or known != sorted(set(known)):
        faults.append(f"answers {said.answers}")
    if case.outcome == "passes" and case.mark("carrier") in said.answers and set(said.statuses) != {200}:
        faults.append("an honest request after it was refused")
    if json.loads(said.victim).get("result", {}).get("content") != [{"type": "text", "text": case.mark("victim")}]:
        faults.append(f"the next caller got {said.victim!r}")
    return faults


def reached(upstream: ScriptedUpstream) -> Counter[str]:
    """The marks of all calls that the upstream got."""
    return Counter(str((each.params.get("arguments") or {}).get("mark")) for each in upstream.requests)


def misled(way: str, case: Case, marks: Counter[str], *, apart: bool = False) -> list[str]:
    """What reached the upstream and must not have, or the other way round.  ``apart``: what is hidden came later."""
    faults = []
    if case.mark("denied") in marks:
        faults.append("the denied call reached the upstream")
    if any(marks[case.mark(part)] > 1 for part in ("carrier", "hidden", "after", "victim")):
        faults.append("a call reached the upstream twice")
    ran = case.mark("carrier") in marks
    if way == "direct" and ran != (case.outcome == "passes") and not (apart and case.last):
        faults.append("the carrier " + ("passed" if ran else "was refused"))
    if case.through and not ran:
        faults.append("an honest request was refused")
    refused = way == "direct" and case.outcome == "refused"
    if (case.alone or refused) and case.mark("hidden") in marks:
        faults.append("the hidden call reached the upstream")
    return faults


def owner(arguments: Any) -> str:
    text = arguments.get("mark", "") if isinstance(arguments, dict) else ""
    return "corpus" if not text else "bob" if text.endswith("-victim") else "alice"


def unlisted(upstream: ScriptedUpstream, records: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Requests of the upstream, as (client, method, digest of the arguments), beyond those of the record."""
    got: Counter[tuple[str, ...]] = Counter()
    for each in upstream.requests:
        arguments = each.params.get("arguments")
        got[owner(arguments), each.rpc_method or each.method, describe_arguments(arguments)[1]] += 1
    listed = Counter(
        (each["client"], each.get("method") or each["http"], each["arguments"]["digest"]) for each in records
    )
    return sorted((got - listed).elements())


SENT_UPSTREAM = {
    "host", "accept", "accept-encoding", "content-type", "content-length", "mcp-protocol-version", "mcp-method",
    "mcp-name", "user-agent",
}  # fmt: skip


def check_wire(upstream: ScriptedUpstream) -> None:
    """Each request that the upstream got is whole, framed in one way, and has the gateway's own fields."""
    assert upstream.malformed == []
    assert upstream.incomplete == []
    for each in upstream.requests:
        assert (each.method, each.target) == ("POST", "/mcp")
        assert each.header_values("content-length") == [str(len(each.body))]
        names = {name.lower() for name, _ in each.headers if not name.lower().startswith("mcp-param-")}
        assert names <= SENT_UPSTREAM, each.raw_head
        assert all(32 <= byte < 127 or byte in b"\r\n" for byte in each.raw_head), each.raw_head


async def all_finished(gateway: Any) -> list[dict[str, Any]]:
    """The records of what was let through, once all of it has ended."""
    await until(lambda: len(gateway.records("request.accepted")) == len(gateway.records("request.finished")), 20)
    return gateway.records("request.accepted")


@pytest.mark.parametrize("pause", [None, 0.01], ids=["at-once", "in-two"])
@pytest.mark.parametrize("way", WAYS)
async def test_nothing_reaches_the_upstream_that_the_record_does_not_list(reach, way, pause):
    async with (
        ScriptedUpstream({"tools/call": echo}) as upstream,
        reach(way, upstream.url, **SMUGGLING) as (gateway, port),
    ):
        assert len(TABLE) > 400
        said = await play_all(port, TABLE, pause)
        records = await all_finished(gateway)
        marks, apart = reached(upstream), pause is not None
        faults = {case: misheard(case, said[case]) + misled(way, case, marks, apart=apart) for case in TABLE}
        wrong = [f"{case.name}: {each} {said[case].statuses}" for case, each in faults.items() if each]
        assert not wrong, "\n".join(wrong)
        assert unlisted(upstream, records) == []
        check_wire(upstream)
        assert len(upstream.requests) == len(records)


@pytest.mark.parametrize(
    "trailer",
    ["X-Checksum: 1", "Mcp-Session-Id: another", "Authorization: Bearer another", "Mcp-Param-Region: another"],
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_trailer_field_stays_with_its_request(reach, way, trailer):
    """It is no header field of the next request, on the same connection or on one that a front shares among callers."""
    body = call("mark")
    chunks = chunk_bytes(body) + b"0\r\n" + trailer.encode() + b"\r\n\r\n"
    head = post(ALICE.encode(), b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    async with (
        ScriptedUpstream({"tools/call": echo}) as upstream,
        reach(way, upstream.url) as (_, port),
    ):
        message = request("tools/call", {"name": "echo", "arguments": {}})
        for _ in range(3):
            async with client_at(port) as client, client_at(port, BOB) as other:
                # haproxy shares connections that have served more than one request.
                assert (await client.exchange(post(ALICE.encode(), body))).status == 200
                assert (await client.exchange(head + chunks)).status == 200
                for _ in range(3):
                    assert (await other.post(message, modern=True)).status == 200, "another caller's"
                if client.connection.left is None:
                    assert (await client.post(message, modern=True)).status == 200
        for each in upstream.requests:
            assert b"another" not in each.raw_head


@pytest.mark.parametrize("way", WAYS)
async def test_requests_of_the_corpus(reach, way):
    """The attacks that are bytes of a connection, as they are."""
    kinds = ("smuggling", "http-hygiene", "origin-host-cors", "auth", "header-body-mismatch")
    corpus = [each for each in load(CORPUS) if each.transport == "http" and each.category in kinds]
    framing = [each for each in corpus if each.category == "smuggling"]
    others = [each for each in corpus if each.category != "smuggling"]
    assert len(framing) >= 18
    async with (
        ScriptedUpstream({"tools/call": echo}) as upstream,
        reach(way, upstream.url, **SMUGGLING) as (gateway, port),
    ):

        async def send(data: bytes) -> Said:
            said = Said()
            async with client_at(port) as client:
                with contextlib.suppress(*OVER):
                    await client.send(data)
                await hear(client, said, data.split(b" ", 1)[0].decode())
            return said

        await asyncio.gather(*(send(each.data) for each in framing))
        records = await all_finished(gateway)
        honest = sum(each.benign for each in framing)
        either = sum("neutralized" in each.outcomes for each in framing)
        assert honest <= len(upstream.requests) <= honest + (0 if way == "direct" else either)
        await asyncio.gather(*(send(each.data) for each in others))
        records = await all_finished(gateway)
        assert len(upstream.requests) > honest
        assert unlisted(upstream, records) == []
        check_wire(upstream)
        bodies = b"".join(each.body for each in upstream.requests)
        assert b"delete_repo" not in bodies
        assert b"run_shell" not in bodies


@pytest.mark.parametrize("way", WAYS)
async def test_without_the_gateway_all_of_it_is_noticed(needs, tmp_path, way):
    """The same requests with nothing that judges them: the denied calls arrive, and the checks above say so."""
    table = [case for case in TABLE if case.through]
    assert len(table) > 15
    async with contextlib.AsyncExitStack() as stack:
        script = {"tools/call": echo, "GET": status_answer(200)}  # and haproxy asks for its health
        upstream = await stack.enter_async_context(ScriptedUpstream(script))
        port = upstream.port
        if way != "direct":
            port, _ = await stack.enter_async_context(front(way, needs, tmp_path / way, [port], [port]))
        said = await play_all(port, table)
        marks = reached(upstream)
        faults = {case: misled(way, case, marks) for case in table}
        followed = [case for case in table if case.mark("denied").encode() in case.data and not case.alone]
        assert len(followed) > 10
        for case in followed:
            assert "the denied call reached the upstream" in faults[case], case.name
            assert case.mark("hidden") in marks
        for case in table:
            assert case.mark("carrier") in marks
            assert said[case].answers
        assert len(unlisted(upstream, [])) == len(upstream.requests)
        with pytest.raises(AssertionError):
            check_wire(upstream)
        # Several callers' requests share connections, so an answer could go astray.
        if way != "direct":
            assert upstream.connections_made < len(upstream.requests)


async def test_answers_that_are_anothers_are_noticed():
    """An upstream that says everything twice: what comes second is the answer to somebody else's request."""
    kept: list[Json] = []

    def late(received: Received) -> Steps:
        kept.extend(echo(received))
        return kept[-2:]

    [case] = [case for case in TABLE if case.name == "pipelined"]
    async with ScriptedUpstream({"tools/call": late}) as upstream:
        assert misheard(case, await play(upstream.port, case)) != []


# -- what has to pass -------------------------------------------------------------------------------------------------

PARAMS = {"name": "echo", "arguments": {"mark": "call"}, "_meta": {"progressToken": "p"}}
CALL = request("tools/call", PARAMS, id=7)
RESULT = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}


def progress(received: Received, number: int) -> Event:
    params = {"progressToken": received.params["_meta"]["progressToken"], "progress": number}
    return Event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


@pytest.mark.parametrize("way", WAYS)
async def test_events_pass_one_by_one(reach, way):
    """The upstream says the next one only when the client has the one before."""

    def stream(received: Received) -> Steps:
        yield STREAM
        for number in range(3):
            yield progress(received, number)
            yield WaitFor(f"seen {number}")
        yield Event({"jsonrpc": "2.0", "id": received.id, "result": RESULT})
        yield End()

    async with (
        ScriptedUpstream({"tools/call": stream}) as upstream,
        reach(way, upstream.url) as (_, port),
        client_at(port) as client,
    ):
        response = await client.post(CALL, modern=True)
        assert response.header("content-type") == "text/event-stream"
        for number in range(3):
            _, frame = await response.frame()
            assert json.loads(frame.data)["params"] == {"progressToken": "p", "progress": number}
            upstream.signal(f"seen {number}")
        assert (await response.answer())["id"] == 7
        assert await response.frame() is None
        assert response.complete


@pytest.mark.parametrize("began", [True, False], ids=["in-a-stream", "before-the-answer"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_goes_ends_its_call(reach, way, began):
    def wait(received: Received) -> Steps:
        if began:
            yield STREAM
            yield progress(received, 1)
        yield Hang()

    async with (
        ScriptedUpstream({"tools/call": wait}) as upstream,
        reach(way, upstream.url) as (gateway, port),
    ):
        async with client_at(port) as client:
            if began:
                response = await client.post(CALL, modern=True)
                await response.frame()
            else:
                await client.send(client.build(CALL, modern=True))
                await upstream.received()
        await upstream.closed(0)
        await until(lambda: gateway.records("request.finished"))
        [finished] = gateway.records("request.finished")
        assert finished["outcome"] == "client-gone"


@pytest.mark.parametrize("way", WAYS)
async def test_refusals_pass_as_they_are(reach, way):
    """The status, the fields and the JSON of 401, 404, 413 and 429; no page of the front's own."""
    policies = {"all": {"max_requests_per_minute": 1, "burst": 3, "max_request_size": "64KiB"}}
    async with (
        ScriptedUpstream({"tools/call": echo}) as upstream,
        reach(way, upstream.url, policies=policies) as (gateway, port),
    ):
        async with client_at(port, token="nobody's") as stranger:
            refused = await stranger.post(CALL)
            assert refused.status == 401
            assert refused.header("www-authenticate").startswith("Bearer")
            assert (await refused.json())["error"]["data"]["reason"]
        async with client_at(port, path="/elsewhere") as client:
            assert (await client.post(CALL)).status == 404
        async with client_at(port) as client:
            refused = await client.post(call("x" * 70_000))
            assert refused.status == 413
            assert (await refused.json())["error"]["data"]["key"] == "policies.all.max_request_size"
        async with client_at(port) as client:
            refused = None
            while refused is None or refused.status != 429:
                refused = await client.post(CALL)
                await refused.read()
                assert len(upstream.requests) <= 3
            assert int(refused.header("retry-after")) >= 1
            document = await refused.json()
            assert (document["id"], document["error"]["code"]) == (7, -31429)
        assert unlisted(upstream, gateway.records("request.accepted")) == []


@pytest.mark.parametrize("way", WAYS)
async def test_large_bodies_pass_both_ways(reach, way):
    """A request at the limit, with a length and in chunks, and answers of several megabytes in either form."""
    size = 1024 * 1024
    body = call("x" * ((size - len(call(""))) // 2))
    text = "y" * 4_000_000
    assert size - 2 < len(body) <= size

    def answer(received: Received) -> Steps:
        document = {"jsonrpc": "2.0", "id": received.id, "result": {"content": [{"type": "text", "text": text}]}}
        return [STREAM, Event(document), End()] if len(upstream.requests) == 1 else [Json(document)]

    async with (
        ScriptedUpstream({"tools/call": answer}) as upstream,
        reach(way, upstream.url, policies={"all": {"max_request_size": size}}) as (_, port),
        client_at(port, timeout=20) as client,
    ):
        head = post(ALICE.encode(), b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        chunked = head + b"".join(chunk_bytes(body[at : at + 5000]) for at in range(0, size, 5000)) + chunk_bytes(b"")
        for data, is_stream in ((post(ALICE.encode(), body), True), (chunked, False)):
            response = await client.exchange(data)
            assert response.is_stream == is_stream
            assert (await response.answer())["result"]["content"][0]["text"] == text
            assert upstream.requests[-1].params == json.loads(body)["params"]


# -- several copies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", FRONTS)
async def test_copies_share_sessions(serve, needs, tmp_path, way):
    """Any copy serves a session, and both do."""
    keys = [base64.b64encode(bytes(range(32))).decode()]
    async with ScriptedMcp() as upstream:
        copies = [await serve(upstream.url, **LISTEN, sealing={"keys": keys}) for _ in range(2)]
        async with copied(way, needs, tmp_path, copies) as (port, _):
            async with client_at(port) as client:
                await client.initialize()
            for _ in range(12):
                async with client_at(port, session=client.session, revision=client.revision) as other:
                    assert (await other.call("tools/list"))["result"]["tools"]
        assert all(calls(copy) for copy in copies)


@pytest.mark.parametrize("way", FRONTS)
async def test_http_sse_sticks_to_a_copy(serve, needs, tmp_path, way):
    """The stream and each POST meet in one copy, whichever connection they come on; and no log has the session's id."""
    async with ScriptedMcp() as upstream:
        copies = [await serve(upstream.url, **LISTEN) for _ in range(2)]
        async with copied(way, needs, tmp_path, copies) as (port, log):
            for token in (ALICE, BOB):
                client = SseClient(f"http://127.0.0.1:{port}/up/sse", token=token)
                client.stream.authority = HOST.decode()
                async with client:
                    client.sender.authority = HOST.decode()
                    await client.initialize()
                    for _ in range(8):
                        # A new connection for each.
                        await client.sender.close()
                        client.sender = RawClient(client.endpoint, token=token)
                        client.sender.authority = HOST.decode()
                        assert (await client.call("tools/list"))["result"]["tools"]
            await until(lambda: "/messages" in log.read_text())
            assert "session_id" not in log.read_text()


@contextlib.asynccontextmanager
async def copied(way: str, needs: Needs, folder: Path, copies: list[Any]) -> AsyncIterator[tuple[int, Path]]:
    """A front before several gateways."""
    configs = [copy.gateway.config for copy in copies]
    ports, admin = [each.listen.port for each in configs], [each.admin.port for each in configs]
    async with front(way, needs, folder / way, ports, admin) as started:
        yield started


def calls(gateway: Any) -> float:
    """How many requests a gateway has answered with 200."""
    return gateway.metric("mcpgw_http_responses_total", status="200")
