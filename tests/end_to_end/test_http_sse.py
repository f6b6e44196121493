"""The HTTP+SSE transport of 2024-11-05 on both sides, in all pairings with streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.harness import (
    Chunk,
    Close,
    Comment,
    Event,
    Hang,
    Head,
    Json,
    Repeat,
    Reset,
    ScriptedMcp,
    ScriptedSse,
    ScriptedUpstream,
    Signal,
    SseClient,
    Tool,
    Wait,
    WaitFor,
    notification,
    request,
    status_answer,
    unused_port,
)

from .conftest import ALICE, BOB, until

CLIENTS = ("http", "sse")
UPSTREAMS = ("http", "sse")
PAIRINGS = [pytest.param(client, upstream, id=f"{client}-{upstream}") for client in CLIENTS for upstream in UPSTREAMS]
CAPABILITIES = {"elicitation": {}, "sampling": {}}


def server(kind: str, **options: Any) -> ScriptedMcp | ScriptedSse:
    return ScriptedSse(**options) if kind == "sse" else ScriptedMcp(**options)


def sse_url(gateway: Any, upstream: str = "up") -> str:
    return gateway.url(upstream).removesuffix("/mcp") + "/sse"


class Peer:
    """A client of either transport: what it sends, and one queue of all that it is sent."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.readers: set[asyncio.Task[None]] = set()
        self.last_id = 0

    def read(self, messages: AsyncIterator[Any]) -> None:
        async def forward() -> None:
            async for message in messages:
                self.queue.put_nowait(message)

        task = asyncio.create_task(forward())
        self.readers.add(task)
        self.stack.push_async_callback(self.stop, task)

    async def stop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def next(self, within: float = 5) -> dict[str, Any]:
        async with asyncio.timeout(within):
            return await self.queue.get()

    async def until_answer(self, id: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What came before the answer, and the answer."""
        before: list[dict[str, Any]] = []
        while True:
            message = await self.next()
            if message.get("id") == id and "method" not in message:
                return before, message
            before.append(message)

    async def call(self, method: str, params: Any = None) -> dict[str, Any]:
        return (await self.until_answer(await self.start(method, params)))[1]

    async def start(self, method: str, params: Any = None, id: Any = None) -> Any:
        self.last_id += 1
        id = self.last_id if id is None else id
        await self.send(request(method, params, id=id))
        return id

    async def send(self, message: Any) -> int:
        raise NotImplementedError

    async def initialize(self, revision: str = "2024-11-05") -> dict[str, Any]:
        raise NotImplementedError


class HttpPeer(Peer):
    """Streamable HTTP: a connection for each message, and a GET stream where there is one."""

    def __init__(self, stack: contextlib.AsyncExitStack, gateway: Any, token: str, upstream: str) -> None:
        super().__init__(stack)
        self.client = gateway.client(token, upstream)

    async def initialize(self, revision: str = "2024-11-05") -> dict[str, Any]:
        await self.stack.enter_async_context(self.client)
        result = await self.client.initialize(revision=revision, capabilities=CAPABILITIES)
        self.last_id = 1
        listener = await self.stack.enter_async_context(self.client.sibling())
        response = await listener.get()
        if response.status == 200:
            self.read(self.documents(response))
        return result

    async def documents(self, response: Any) -> AsyncIterator[Any]:
        if not response.is_stream:
            for document in await response.messages():
                yield document
            return
        async for _, frame in response.frames():
            if frame.data:
                yield json.loads(frame.data)

    async def send(self, message: Any) -> int:
        connection = await self.stack.enter_async_context(self.client.sibling())
        response = await connection.post(message)
        self.read(self.documents(response))
        return int(response.status)


class SsePeer(Peer):
    """HTTP+SSE."""

    def __init__(self, stack: contextlib.AsyncExitStack, gateway: Any, token: str, upstream: str) -> None:
        super().__init__(stack)
        self.client = SseClient(sse_url(gateway, upstream), token=token)

    async def initialize(self, revision: str = "2024-11-05") -> dict[str, Any]:
        await self.stack.enter_async_context(self.client)
        result = await self.client.initialize(revision=revision, capabilities=CAPABILITIES)
        self.last_id = 1
        self.read(self.documents())
        return result

    async def documents(self) -> AsyncIterator[Any]:
        while (message := await self.client.message()) is not None:
            yield message

    async def send(self, message: Any) -> int:
        return int((await self.client.post(message)).status)


@pytest.fixture
async def peer():
    async with contextlib.AsyncExitStack() as stack:

        async def make(kind: str, gateway: Any, token: str = ALICE, upstream: str = "up", **options: Any) -> Peer:
            made = (SsePeer if kind == "sse" else HttpPeer)(stack, gateway, token, upstream)
            await made.initialize(**options)
            return made

        yield make


@pytest.fixture
def connect(serve):
    """``gateway = await connect({"up": server}, ...)``: configured for each server's own transport."""

    async def start(*servers: Any, **sections: Any) -> Any:
        named = dict(zip(("up", "two"), servers, strict=False))
        for name, each in named.items():
            if "/sse" in each.url:
                sections.setdefault("upstreams", {}).setdefault(name, {})["transport"] = "sse"
        return await serve({name: each.url for name, each in named.items()}, **sections)

    return start


# -- every pairing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_initialize_list_and_call(connect, peer, client, upstream):
    async with server(upstream) as up:
        gateway = await connect(up)
        p = await peer(client, gateway, revision="2025-06-18")
        tools = (await p.call("tools/list"))["result"]["tools"]
        assert {"echo", "slow"} <= {each["name"] for each in tools}
        answer = await p.call("tools/call", {"name": "echo", "arguments": {"text": "grüße"}})
        assert answer["result"]["content"][0]["text"] == "grüße"
        # Ids keep their type.
        id = await p.start("tools/call", {"name": "echo", "arguments": {"text": "1"}}, id="1")
        assert (await p.until_answer(id))[1]["id"] == "1"
        finished = [each for each in gateway.records("request.finished") if each.get("method") == "tools/call"]
        assert [each["outcome"] for each in finished] == ["answered", "answered"]
        assert {each["session"] for each in finished} != {None}


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_progress_comes_in_order_while_the_call_is_open(connect, peer, client, upstream):
    async def tool(call: Any) -> AsyncIterator[Any]:
        for done in range(1, 6):
            yield call.progress(done, 5)
        yield Signal("half")
        yield WaitFor("go")
        yield call.text("done")

    async with server(upstream, tools={"slow": Tool(tool)}) as up:
        p = await peer(client, await connect(up))
        id = await p.start("tools/call", {"name": "slow", "_meta": {"progressToken": "t"}})
        seen = [(await p.next())["params"]["progress"] for _ in range(5)]
        assert seen == [1, 2, 3, 4, 5]
        up.signal("go")
        assert await p.until_answer(id) == (
            [],
            {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "done"}]}},
        )


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
@pytest.mark.parametrize(("tool", "method"), [("elicit", "elicitation/create"), ("sample", "sampling/createMessage")])
async def test_the_server_asks_in_the_middle_of_a_call(connect, peer, client, upstream, tool, method):
    async with server(upstream) as up:
        p = await peer(client, await connect(up))
        id = await p.start("tools/call", {"name": tool})
        question = await p.next()
        assert question["method"] == method
        assert await p.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}) == 202
        _, answer = await p.until_answer(id)
        assert json.loads(answer["result"]["content"][0]["text"]) == {"action": "decline"}


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_a_denied_call_is_an_error_with_its_id(connect, peer, client, upstream):
    async with server(upstream) as up:
        gateway = await connect(up)
        p = await peer(client, gateway)
        answer = await p.call("tools/call", {"name": "denied_tool"})
        assert (answer["error"]["code"], answer["error"]["data"]["origin"]) == (-31403, "gateway")
        assert not [each for each in up.requests if each.rpc_method == "tools/call"]
        assert (await p.call("tools/call", {"name": "echo", "arguments": {"text": "on"}}))["result"]
        assert [each["rule"] for each in gateway.records("request.refused")] == ["tool-not-allowed"]


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_the_servers_own_messages_arrive(connect, peer, client, upstream):
    async with server(upstream) as up:
        p = await peer(client, await connect(up))
        changed = notification("notifications/tools/list_changed")
        if client == "sse":
            await until(lambda: up.sessions and (upstream == "sse" or next(iter(up.sessions.values())).listening))
        up.push(changed)
        assert await p.next() == changed


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_a_cancelled_call_gets_no_answer(connect, peer, client, upstream):
    async with server(upstream) as up:
        gateway = await connect(up)
        p = await peer(client, gateway)
        id = await p.start("tools/call", {"name": "slow", "arguments": {"until": "never"}})
        assert await p.send(notification("notifications/cancelled", {"requestId": id})) == 202
        assert (await p.call("tools/call", {"name": "echo", "arguments": {"text": "on"}}))["result"]
        assert up.requests[-2].rpc_method == "notifications/cancelled"
        if upstream == "sse":
            await until(
                lambda: [each for each in gateway.records("request.finished") if each["outcome"] == "cancelled"]
            )


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_an_upstream_that_dies_in_a_call_gives_one_error_with_its_id(connect, peer, client, upstream):
    for last in (Close(), Reset()):

        async def tool(call: Any, last: Any = last) -> AsyncIterator[Any]:
            yield call.progress(1, 2)
            yield last

        async with server(upstream, tools={"slow": Tool(tool)}) as up:
            p = await peer(client, await connect(up))
            id = await p.start("tools/call", {"name": "slow", "_meta": {"progressToken": 1}})
            assert (await p.next())["method"] == "notifications/progress"
            before, answer = await p.until_answer(id)
            assert before == []
            assert answer["error"]["code"] == -31502
            assert p.queue.empty()


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_two_sessions_never_mix(connect, peer, client, upstream):
    async def tool(call: Any) -> AsyncIterator[Any]:
        for done in range(1, 4):
            yield call.progress(done, 3)
            yield Wait(0.001)
        yield call.text(str(call.arguments["text"]))

    async with server(upstream, tools={"echo": Tool(tool)}) as up:
        gateway = await connect(up)
        peers = [await peer(client, gateway, token) for token in (ALICE, BOB, ALICE)]

        async def talk(p: Peer, name: str) -> None:
            for number in range(10):
                params = {"name": "echo", "arguments": {"text": f"{name}{number}"}, "_meta": {"progressToken": "same"}}
                before, answer = await p.until_answer(await p.start("tools/call", params, id=number))
                assert answer["result"]["content"][0]["text"] == f"{name}{number}"
                assert [each["params"]["progress"] for each in before] == [1, 2, 3]

        await asyncio.gather(*(talk(p, name) for p, name in zip(peers, "abc", strict=True)))


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_many_calls_at_once_in_one_session(connect, peer, client, upstream):
    async def tool(call: Any) -> AsyncIterator[Any]:
        yield Wait(0.001 * (7 - call.arguments["n"] % 7))
        yield call.text(str(call.arguments["n"]))

    async with server(upstream, tools={"echo": Tool(tool)}) as up:
        p = await peer(client, await connect(up))
        ids: list[Any] = [each if each % 2 else str(each) for each in range(40)]
        await asyncio.gather(
            *(p.start("tools/call", {"name": "echo", "arguments": {"n": int(id)}}, id=id) for id in ids)
        )
        answers = [await p.next() for _ in ids]
        assert {(each["id"], each["result"]["content"][0]["text"]) for each in answers} == {(id, str(id)) for id in ids}
        assert p.queue.empty()


@pytest.mark.parametrize(("client", "upstream"), PAIRINGS)
async def test_nothing_is_left_when_the_client_ends_its_session(connect, client, upstream):
    async with server(upstream) as up, contextlib.AsyncExitStack() as stack:
        gateway = await connect(up)
        p = (SsePeer if client == "sse" else HttpPeer)(stack, gateway, ALICE, "up")
        await p.initialize()
        await p.start("tools/call", {"name": "slow", "arguments": {"until": "never"}})
        await until(lambda: up.requests[-1].rpc_method == "tools/call")
        left = asyncio.get_running_loop().time()
        if client == "http":
            async with p.client.sibling() as last:
                assert (await last.delete()).status == 200
        await stack.aclose()
        await until(lambda: not up.sessions)
        assert asyncio.get_running_loop().time() - left < 1
        await until(lambda: not gateway.gateway.handler.relays)
        pool = gateway.gateway.pools["up"]
        await until(lambda: (pool.calls, pool.streams) == (0, 0))


# -- the client's side ------------------------------------------------------------------------------------------------


async def test_the_stream_begins_with_its_endpoint(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            assert client.response.header("content-type") == "text/event-stream"
            assert client.response.header("x-accel-buffering") == "no"
            assert client.response.header("cache-control") == "no-cache, no-transform"
            parts = urlsplit(client.endpoint)
            assert parts.path == "/up/messages"
            assert parts.query.startswith("session_id=")
            assert len(parts.query) > 50
        base = gateway.url().removesuffix("/up/mcp")
        async with SseClient(base + "/sse", token=ALICE) as client:
            assert urlsplit(client.endpoint).path == "/up/messages"


async def test_the_endpoint_keeps_the_path_that_clients_use(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url, listen={"public_url": "https://gateway.example/gw"})
        url = f"http://127.0.0.1:{gateway.gateway.config.listen.port}/up/sse"
        async with SseClient(url, token=ALICE) as client:
            assert urlsplit(client.endpoint).path == "/gw/up/messages"


async def test_a_session_belongs_to_its_client_and_upstream(serve):
    async with ScriptedMcp() as up, ScriptedMcp() as two:
        gateway = await serve({"up": up.url, "two": two.url})
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            ping = request("ping", id=99)
            unknown = SseClient(sse_url(gateway), token=ALICE)
            unknown.sender = gateway.client()
            unknown.sender.target = "/up/messages?session_id=" + "A" * 43
            other = SseClient(sse_url(gateway))
            other.sender = gateway.client(BOB)
            other.sender.target = client.sender.target
            elsewhere = SseClient(sse_url(gateway))
            elsewhere.sender = gateway.client()
            elsewhere.sender.target = client.sender.target.replace("/up/", "/two/")
            bodies = set()
            for each in (unknown, other, elsewhere):
                async with each.sender:
                    response = await each.post(ping)
                    document = await response.json()
                    assert (response.status, document["error"]["data"]["reason"]) == (404, "unknown-session")
                    del document["error"]["data"]["request"]
                    bodies.add(json.dumps(document))
            assert len(bodies) == 1
            assert (await client.call("ping"))["result"] == {}
        assert client.endpoint.partition("=")[2] not in json.dumps(gateway.audit())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"token": ""}, 401),
        ({"token": "wrong-token-0000000000000000000000000000"}, 401),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {"Origin": "https://evil.example"}}, 403),
        ({"headers": {"Host": "evil.example"}}, 421),
        ({"message": b"{"}, 400),
        ({"message": b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]'}, 400),
        ({"message": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"' + b"x" * 1_100_000 + b'"}'}, 413),
        ({"method": "GET"}, 405),
        ({"method": "DELETE"}, 405),
    ],
)
async def test_what_is_wrong_with_a_post_is_its_own_answer(serve, change, status):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            message = change.pop("message", request("ping", id=5))
            if "method" in change:
                message = None
            assert (await client.post(message, **change)).status == status
            await client.sender.close()
            client.sender = client.sender.sibling()
            assert (await client.call("ping"))["result"] == {}
            assert [each for each in client.messages if each.get("id") == 5] == []


async def test_queries(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            target = client.sender.target
            for query, status in (("", 400), (target.partition("?")[2] + "&x=1", 400), ("access_token=x", 400)):
                client.sender.target = "/up/messages" + (f"?{query}" if query else "")
                assert (await client.post(request("ping", id=5))).status == status


async def test_a_stream_is_refused_like_every_request(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(
            {"up": up.url, "two": up.url},
            policies={"all": {"max_concurrent_streams": 1}, "little": {"allowed_upstreams": ["two"]}},
        )
        for method, token, headers, status in (
            ("GET", "", {}, 401),
            ("GET", ALICE, {"Accept": "application/json"}, 406),
            ("GET", ALICE, {"Origin": "https://evil.example"}, 403),
            ("GET", BOB, {}, 403),
            ("POST", ALICE, {}, 405),
        ):
            async with gateway.client(token) as client:
                client.target = "/up/sse"
                message = request("initialize") if method == "POST" else None
                response = await client.exchange(client.build(message, method=method, headers=headers))
                assert response.status == status, (method, token)
        async with SseClient(sse_url(gateway), token=ALICE), gateway.client() as client:
            client.target = "/up/sse"
            assert (await client.get()).status == 429


async def test_preflight(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url, listen={"allowed_origins": ["https://app.example"]})
        for path, method in (("/up/sse", "GET"), ("/up/messages", "POST")):
            async with gateway.client() as client:
                client.target = path
                headers = {"Origin": "https://app.example", "Access-Control-Request-Method": method}
                response = await client.exchange(client.build(method="OPTIONS", headers=headers, token=""))
                assert response.status == 204
                assert response.header("access-control-allow-methods") == method
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            response = await client.post(request("ping"), headers={"Origin": "https://app.example"})
            assert (response.status, response.header("access-control-allow-origin")) == (202, "https://app.example")


async def test_a_rate_limit_is_an_error_on_the_stream(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url, policies={"all": {"max_requests_per_minute": 1, "burst": 2}})
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            assert "result" in await client.call(
                "initialize",
                {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
            )
            answer = await client.call("ping")
            assert answer["error"]["code"] == -31429
            # What has no id cannot be answered there.
            assert (await client.notify("notifications/initialized")).status == 429


async def test_an_upstream_that_cannot_be_reached(serve):
    gateway = await serve(f"http://127.0.0.1:{unused_port()}/mcp")
    async with SseClient(sse_url(gateway), token=ALICE) as client:
        answer = await client.call("initialize", {"protocolVersion": "2024-11-05"})
        assert answer["error"]["data"]["reason"] == "upstream-unreachable"


async def test_the_stream_ends_when_the_upstream_forgets_the_session(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            await until(lambda: next(iter(up.sessions.values())).listening)
            up.sessions.clear()
            assert (await client.call("ping"))["error"]["message"] == "no such session"
            await client.ended()
            assert client.response.complete


async def test_keep_alive_comments(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url, limits={"keepalive_interval": "50ms"})
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            frame = (await client.response.frame())[1]
            assert (frame.data, frame.comments) == (None, (b"keep-alive",))


async def test_a_stream_that_the_upstream_closes_is_resumed(serve):
    """Rule 4.4: a client of HTTP+SSE cannot come back for the answer; the gateway does."""
    answer = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "late"}]}}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    stream = Head(200, {"Content-Type": "text/event-stream"})

    def script(received: Any) -> Any:
        if received.method == "GET":
            last = received.header("last-event-id")
            if last is None:
                return [stream, Hang()]
            if last == "1":  # nothing yet
                return [stream, Event(b"", id="2", retry=10), Chunk(b""), Close()]
            return [stream, Event(answer, id="3"), Hang()]
        if received.rpc_method == "initialize":
            return [Json({"jsonrpc": "2.0", "id": received.id, "result": about}, headers={"Mcp-Session-Id": "s"})]
        if received.rpc_method == "tools/call":
            return (
                [stream, Event(b"", id="1", retry=10), Chunk(b""), Close()]
                if received.id == 7
                else [stream, Event(b"", id="9", retry=10), Close()]
            )
        return status_answer(202)(received)

    async with ScriptedUpstream(script) as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            await client.ask("tools/call", {"name": "echo"}, id=7)
            assert await client.answer(7) == answer
            resumed = [each.header("last-event-id") for each in up.requests if each.method == "GET"]
            assert [each for each in resumed if each] == ["1", "2"]


async def test_a_client_that_takes_nothing_is_cut_off(serve):
    async def tool(call: Any) -> AsyncIterator[Any]:
        for _ in range(400):
            yield {
                "jsonrpc": "2.0",
                "method": "notifications/message",
                "params": {"level": "info", "data": "x" * 100_000},
            }
        yield call.text("done")

    for up in (ScriptedMcp(tools={"echo": Tool(tool)}), ScriptedSse(tools={"echo": Tool(tool)})):
        async with up:
            kind = "sse" if isinstance(up, ScriptedSse) else "streamable-http"
            gateway = await serve(up.url, limits={"write_timeout": "300ms"}, upstreams={"up": {"transport": kind}})
            async with SseClient(sse_url(gateway), token=ALICE, read_ahead=1024) as client:
                await client.initialize()
                await client.ask("tools/call", {"name": "echo"})
                await until(lambda up=up: not up.sessions)
                await until(lambda gateway=gateway: not gateway.gateway.handler.relays)


async def test_shutdown_lets_calls_end_and_closes_streams(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url, limits={"drain_timeout": 5})
        async with SseClient(sse_url(gateway), token=ALICE) as idle, SseClient(sse_url(gateway), token=ALICE) as busy:
            await idle.initialize()
            await busy.initialize()
            id = await busy.ask("tools/call", {"name": "slow", "arguments": {"until": "go"}})
            await until(lambda: up.requests[-1].rpc_method == "tools/call")
            gateway.gateway.site.draining = True
            draining = asyncio.create_task(gateway.gateway.handler.drain(5))
            await idle.ended()
            assert idle.response.complete
            assert (await busy.post(request("ping", id=50))).status == 503
            up.signal("go")
            assert "result" in await busy.answer(id)
            await busy.ended()
            assert busy.response.complete
            await draining
            assert not up.sessions


async def test_shutdown_answers_what_is_not_done(serve):
    async with ScriptedMcp() as up:
        gateway = await serve(up.url)
        async with SseClient(sse_url(gateway), token=ALICE) as client:
            await client.initialize()
            id = await client.ask("tools/call", {"name": "slow", "arguments": {"until": "never"}})
            await until(lambda: up.requests[-1].rpc_method == "tools/call")
            gateway.gateway.site.draining = True
            await gateway.gateway.handler.drain(0.1)
            assert (await client.answer(id))["error"]["data"]["reason"] == "draining"
            await client.ended()


# -- the upstream's side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://evil.example/messages?session_id={id}",
        "//evil.example/messages",
        "https://127.0.0.1/messages",
        "http://127.0.0.1:1/messages",
        "http://user@127.0.0.1/messages",
        "\\\\evil.example/messages",
        "/mess ages",
        "http://[::1/messages",
        "",
        None,
    ],
)
async def test_an_endpoint_elsewhere_is_never_followed(connect, endpoint):
    async with ScriptedSse(endpoint=endpoint) as up:
        gateway = await connect(up, limits={"first_byte_timeout": 1})
        async with gateway.client() as client:
            document = await client.call("initialize", {"protocolVersion": "2024-11-05"})
            expected = "upstream-timeout" if endpoint is None else "upstream-endpoint"
            assert document["error"]["data"]["reason"] == expected
        assert [each.method for each in up.requests] == ["GET"]
        await up.deserted()
        assert gateway.gateway.pools["up"].streams == 0


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([Json({"a": 1})], "upstream-protocol-error"),
        (
            [Head(200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}), Chunk(b"x")],
            "upstream-encoding",
        ),
        ([Head(401, {"Content-Length": "0"}, chunked=False)], "upstream-refused-credentials"),
        ([Head(302, {"Location": "/x", "Content-Length": "0"}, chunked=False)], "upstream-redirect"),
        ([Head(404, {"Content-Length": "0"}, chunked=False)], "upstream-status"),
        (
            [Head(200, {"Content-Type": "text/event-stream"}), Event({"a": 1}, event="message"), Hang()],
            "upstream-endpoint",
        ),
        ([Head(200, {"Content-Type": "text/event-stream"}), Comment("hi"), Chunk(b""), Close()], "upstream-endpoint"),
        ([Reset()], "upstream-reset"),
    ],
)
async def test_a_stream_that_is_none(connect, steps, reason):
    async with ScriptedUpstream({"GET": steps}, path="/sse") as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            document = await client.call("initialize", {"protocolVersion": "2024-11-05"})
            assert document["error"]["data"]["reason"] == reason
        assert {each.method for each in up.requests} == {"GET"}
        pool = gateway.gateway.pools["up"]
        assert (pool.calls, pool.streams, pool.sessions) == (0, 0, {})


@pytest.mark.parametrize("answer_last", [False, True])
async def test_it_does_not_matter_when_the_upstream_answers_a_post(connect, peer, answer_last):
    async with ScriptedSse(answer_last=answer_last) as up:
        p = await peer("http", await connect(up))
        id = await p.start("tools/call", {"name": "elicit"})
        question = await p.next()
        assert await p.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}) == 202
        assert "accept" in (await p.until_answer(id))[1]["result"]["content"][0]["text"]


async def test_a_message_that_the_upstream_refuses(connect):
    accept = {
        "tools/call": status_answer(500),
        "ping": status_answer(404),
        "notifications/roots/list_changed": status_answer(500),
    }
    async with ScriptedSse(accept=accept) as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            await client.initialize(revision="2024-11-05")
            response = await client.post(request("tools/call", {"name": "echo"}, id=7))
            document = await response.json()
            assert (response.status, document["id"], document["error"]["data"]["reason"]) == (502, 7, "upstream-status")
            assert (await client.notify("notifications/roots/list_changed")).status == 502
            assert (await client.post(request("ping", id=8))).status == 404
            assert (await client.post(request("tools/list", id=9))).status == 404
        await until(lambda: not up.sessions)


async def test_a_session_that_is_not_there(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            response = await client.post(request("tools/list", id=1))
            assert (response.status, (await response.json())["error"]["data"]["reason"]) == (400, "session-missing")
            assert (await client.get()).status == 405
            await client.initialize(revision="2024-11-05")
            up.push(None)
            await until(lambda: not up.sessions)
            await until(lambda: not gateway.gateway.pools["up"].sessions)
            assert (await client.post(request("tools/list", id=2))).status == 404


async def test_stateless_revisions_are_refused_with_what_is_supported(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            response = await client.post(request("tools/list", id=1), modern=True)
            document = await response.json()
            assert (response.status, document["error"]["code"]) == (400, -32022)
            assert "2026-07-28" not in document["error"]["data"]["supported"]
            assert "2024-11-05" in document["error"]["data"]["supported"]
        assert not up.requests


async def test_what_comes_before_anybody_listens_is_kept(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up)
        async with gateway.client() as client, gateway.client() as listener:
            await client.initialize(revision="2024-11-05")
            for level in ("info", "error"):
                up.push(notification("notifications/message", {"level": level, "data": 1}))
            await client.call("ping")
            listener.session = client.session
            stream = await listener.get()
            levels = [json.loads((await stream.frame())[1].data)["params"]["level"] for _ in range(2)]
            assert levels == ["info", "error"]
            async with client.sibling() as second:
                assert (await second.get()).status == 409


async def test_a_message_that_is_not_json_ends_the_session(connect, peer):
    async with ScriptedSse() as up:
        p = await peer("http", await connect(up))
        ids = [await p.start("tools/call", {"name": "slow", "arguments": {"until": "never"}}) for _ in range(2)]
        up.push(Event(b"{", event="message"))
        answers = [await p.next() for _ in ids]
        assert {each["id"] for each in answers} == set(ids)
        assert {each["error"]["code"] for each in answers} == {-31502}
        await until(lambda: not up.sessions)


async def test_answers_to_nothing_are_dropped(connect, peer):
    async with ScriptedSse() as up:
        p = await peer("http", await connect(up))
        id = await p.start("tools/call", {"name": "slow", "arguments": {"until": "go"}}, id=7)
        for other in ("7", 8, None, 7.0, True):
            up.push({"jsonrpc": "2.0", "id": other, "result": {"content": []}})
        up.push(Event(b'{"x":1}', event="other"))
        up.signal("go")
        before, answer = await p.until_answer(id)
        assert (before, answer["result"]["content"][0]["text"]) == ([], "late")


async def test_event_ids_of_the_upstream_do_not_pass(connect, peer):
    """Nothing can be resumed, so nothing may say that it could: a broken stream is an error at once."""

    async def tool(call: Any) -> AsyncIterator[Any]:
        yield Event(call.progress(1, 2), id="5", retry=1000)
        yield Close()

    async with ScriptedSse(tools={"slow": Tool(tool)}) as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            await client.initialize(revision="2024-11-05")
            response = await client.post(request("tools/call", {"name": "slow", "_meta": {"progressToken": 1}}, id=7))
            raw = await response.read()
            assert b"id: " not in raw
            assert b"upstream-no-answer" in raw or b"upstream-truncated" in raw or b"upstream-closed" in raw


async def test_a_client_that_does_not_read_holds_up_its_own_session_only(connect):
    """Back-pressure: what the upstream can send is bounded, and other sessions go on."""
    flood = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 50_000}}

    async with ScriptedSse(send_buffer=64 * 1024) as up:
        gateway = await connect(up, limits={"write_timeout": "2s"})
        async with gateway.client(read_ahead=1024) as slow, gateway.client() as quick:
            await slow.initialize(revision="2024-11-05")
            await slow.send(slow.build(request("tools/call", {"name": "slow", "arguments": {"until": "never"}}, id=7)))
            await until(lambda: up.requests[-1].rpc_method == "tools/call")
            up.push(Repeat(Event(flood, event="message"), 2_000))
            await quick.initialize(revision="2024-11-05")
            for _ in range(10):
                assert (await quick.call("ping"))["result"] == {}
                await asyncio.sleep(0.1)
            assert up.bytes_sent < 20_000_000
            # The one that takes nothing is given up; its session goes on without it, and can be ended.
            await until(lambda: gateway.gateway.pools["up"].calls == 0)
            async with slow.sibling() as last:
                assert (await last.delete()).status == 200
            await until(lambda: len(up.sessions) == 1)


async def test_idle_sessions_end(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up, limits={"session_idle_timeout": "300ms"})
        async with gateway.client() as idle, gateway.client() as listening, gateway.client() as stream:
            await idle.initialize(revision="2024-11-05")
            await listening.initialize(revision="2024-11-05")
            stream.session = listening.session
            assert (await stream.get()).status == 200
            await until(lambda: len(up.sessions) == 1)
            await asyncio.sleep(0.5)
            assert (await listening.call("ping"))["result"] == {}
            assert (await idle.post(request("ping", id=5))).status == 404


async def test_the_oldest_idle_session_makes_room(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up, upstreams={"up": {"streams": 2}})
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(gateway.client()) for _ in range(3)]
            for client in clients:
                await client.initialize(revision="2024-11-05")
            statuses = [(await client.post(request("ping", id=5))).status for client in clients]
            assert statuses == [404, 200, 200]
            await until(lambda: len(up.sessions) == 2)


async def test_a_failed_initialize_leaves_no_session(connect):
    async def refuse(received: Any) -> Any:
        return None

    class Refusing(ScriptedSse):
        async def _answer_request(self, received: Any, session: Any) -> None:
            error = {"code": -32000, "message": "no"}
            session.outbox.put_nowait({"jsonrpc": "2.0", "id": received.id, "error": error})

    async with Refusing() as up:
        gateway = await connect(up)
        async with gateway.client() as client:
            assert (await client.call("initialize", {"protocolVersion": "2024-11-05"}))["error"]["code"] == -32000
        await until(lambda: not up.sessions)
        assert not gateway.gateway.pools["up"].sessions


async def test_the_configured_headers_travel_and_the_clients_do_not(connect):
    async with ScriptedSse() as up:
        gateway = await connect(up, upstreams={"up": {"headers": {"X-Key": "secret"}}})
        async with gateway.client() as client:
            await client.initialize(revision="2024-11-05")
        assert {each.header("x-key") for each in up.requests} == {"secret"}
        assert {each.header("authorization") for each in up.requests} == {None}
        assert {each.header("mcp-session-id") for each in up.requests} == {None}
