"""What the doctor finds out about servers that are right, wrong, strict, broken, or none."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import yaml

from gateway.config import Limits, load, single_upstream
from gateway.doctor import Report, examine, render
from gateway.harness import (
    Close,
    End,
    Event,
    Hang,
    Head,
    Json,
    Received,
    Reset,
    ScriptedMcp,
    ScriptedUpstream,
    Send,
    Step,
    Tool,
    ToolCall,
    Wait,
    answer_with,
    error_answer,
    json_answer,
    sse_answer,
    status_answer,
    unused_port,
)

META = "io.modelcontextprotocol/"
NEVER = {"tools/call", "resources/read", "prompts/get", "completion/complete"}


async def doctor(
    url: str,
    headers: dict[str, str] | None = None,
    limits: Limits | None = None,
    patience: float = 3,
    idle: float = 0.1,
) -> Report:
    config = single_upstream(url, 0, "0" * 64, headers=headers)
    return await examine(config.upstreams["server"], limits or config.limits, patience=patience, idle=idle)


def said(report: Report, check: str) -> list[tuple[str, str]]:
    return [(each.level.value, each.text) for each in report.findings if each.check == check]


def levels(report: Report, check: str) -> set[str]:
    return {level for level, _ in said(report, check)}


def problems(report: Report) -> list[str]:
    return [each.text for each in report.findings if each.level.value == "problem"]


def failed(report: Report) -> list[str]:
    return [each.text for each in report.findings if "could not be found out" in each.text]


def legacy(**answers: Any) -> dict[str, Any]:
    """A server of 2025-11-25 without sessions.  Names of methods are written with ``__`` for the slash."""
    opening = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "plain", "version": "1"},
    }
    script = {
        "initialize": json_answer(opening),
        "ping": json_answer({}),
        "tools/list": json_answer({"tools": []}),
    }
    return script | {name.replace("__", "/"): answer for name, answer in answers.items()}


MODERN = {
    "server/discover": json_answer(
        {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {META + "serverInfo": {"name": "New & Shiny", "version": "2"}},
        }
    ),
    "tools/list": json_answer({"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}),
    "*": error_answer(-32601, "Method not found", status=404),
    "GET": status_answer(405),
}


# -- eras --------------------------------------------------------------------------------------------------------------


async def test_a_server_of_all_revisions() -> None:
    async with ScriptedMcp() as server:
        report = await doctor(server.url)
        assert server.sessions == {}
        assert NEVER.isdisjoint({each.rpc_method for each in server.requests})
        assert all(each.target == "/mcp" for each in server.requests)
    assert report.servable
    assert (problems(report), failed(report)) == ([], [])
    assert report.speaks == {
        "2026-07-28": "stateless",
        "2025-11-25": "sessions",
        "2025-06-18": "sessions",
        "2025-03-26": "sessions",
    }
    assert (report.opened, report.ended) == (4, 4)
    assert report.requests == len(server.requests)
    assert report.configuration == {"upstreams": {"scripted-mcp": {"url": server.url}}}
    ok = {"session", "get-stream", "session-missing", "session-unknown", "session-end", "keep-alive", "idle"}
    ok |= {"syntax", "version", "envelope", "mirrored-header", "batch", "get-modern", "method", "content-type"}
    assert {check: levels(report, check) for check in ok} == {check: {"ok"} for check in ok}
    # The scripted server is lenient about these.
    assert levels(report, "origin") == levels(report, "media-type") == {"warning"}
    assert levels(report, "duplicate-member") == {"note"}
    shown = render(report)
    assert "No tool was called" in shown
    assert "4 of 4 sessions were ended" in shown


async def test_a_server_without_sessions() -> None:
    async with ScriptedMcp(stateful=False) as server:
        report = await doctor(server.url)
    assert report.servable
    assert report.speaks["2025-11-25"] == "no sessions"
    assert (report.opened, report.ended) == (0, 0)
    assert levels(report, "session") == {"ok"}
    assert said(report, "session-unknown") == []
    assert failed(report) == []


async def test_a_stateless_server_alone() -> None:
    async with ScriptedUpstream(MODERN) as server:
        report = await doctor(server.url)
    assert report.servable
    assert report.speaks == {"2026-07-28": "stateless"}
    entry = report.configuration["upstreams"]["new-shiny"]
    assert entry == {"url": server.url, "min_revision": "2026-07-28"}
    assert (problems(report), failed(report)) == ([], [])


async def test_a_stateless_server_of_another_revision() -> None:
    refusal = error_answer(-32022, "unsupported", data={"supported": ["2030-01-01"]}, status=400)
    async with ScriptedUpstream(refusal) as server:
        report = await doctor(server.url)
    assert not report.servable
    [(level, text)] = said(report, "discover")
    assert level == "warning"
    assert "2030-01-01" in text


async def test_a_server_without_a_stream_of_its_own() -> None:
    async with ScriptedUpstream(legacy()) as server:
        report = await doctor(server.url)
    assert report.servable
    assert said(report, "get-stream") == [("ok", "GET gives 405: the server has no stream of its own")]
    assert levels(report, "initialize") == {"ok", "note"}
    assert report.speaks == {"2025-11-25": "no sessions"}
    assert levels(report, "discover") == {"note"}


@pytest.mark.parametrize("status", [404, 500, 200])
async def test_a_get_that_is_neither_a_stream_nor_405(status: int) -> None:
    async with ScriptedUpstream(legacy(GET=status_answer(status))) as server:
        report = await doctor(server.url)
    assert levels(report, "get-stream") == {"warning"}
    assert report.servable


async def test_a_revision_that_nobody_knows() -> None:
    opening = json_answer({"protocolVersion": "2024-10-07", "capabilities": {}})
    async with ScriptedUpstream(legacy(initialize=opening)) as server:
        report = await doctor(server.url)
    assert not report.servable
    assert "2024-10-07" in said(report, "initialize")[0][1]


async def test_a_server_that_refuses_newer_revisions_rather_than_negotiate() -> None:
    def initialize(received: Received) -> Iterable[Step]:
        if received.params["protocolVersion"] != "2025-03-26":
            return error_answer(-32602, "Unsupported", data={"supported": ["2025-03-26"]}, status=400)(received)
        return json_answer({"protocolVersion": "2025-03-26", "capabilities": {}})(received)

    async with ScriptedUpstream(legacy(initialize=initialize)) as server:
        report = await doctor(server.url)
    assert report.servable
    assert report.speaks == {"2025-03-26": "no sessions"}
    assert said(report, "one-session") == []


class SseServer(ScriptedUpstream):
    """HTTP+SSE of 2024-11-05: answers come on the GET stream."""

    def __init__(self, endpoint: str, **script: Any) -> None:
        self._endpoint = endpoint
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._results = {
            "initialize": {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "old"},
            },
            "tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]},
        }
        super().__init__(self._speak, path="/sse", **script)

    async def _speak(self, received: Received) -> Any:
        if received.method == "POST" and received.target.startswith("/message"):
            if received.id is not None:
                result = self._results[received.rpc_method or ""]
                self._answers.put_nowait({"jsonrpc": "2.0", "id": received.id, "result": result})
            yield Head(202, {"Content-Length": "0"}, chunked=False)
            return
        if received.method != "GET":
            yield Head(405, {"Content-Length": "0"}, chunked=False)
            return
        yield Head(200, {"Content-Type": "text/event-stream"})
        yield Event(self._endpoint.encode(), event="endpoint")
        while True:
            yield Event(await self._answers.get(), event="message")


async def test_the_transport_of_2024_11_05() -> None:
    async with SseServer("/message?session_id=1") as server:
        report = await doctor(server.url)
    assert report.servable
    assert report.speaks == {"2024-11-05": "sse"}
    assert report.configuration == {"upstreams": {"old": {"url": server.url, "transport": "sse"}}}
    assert ("ok", "1 tool names within the rules") in said(report, "tool-names")
    assert failed(report) == []


@pytest.mark.parametrize(
    "endpoint", ["http://elsewhere.invalid/message", "//elsewhere.invalid/x", "file:///etc/passwd"]
)
async def test_an_endpoint_elsewhere_is_not_used(endpoint: str) -> None:
    async with SseServer(endpoint) as server:
        report = await doctor(server.url)
        assert {each.target for each in server.requests} == {"/sse"}
    assert not report.servable
    assert levels(report, "sse-transport") == {"problem"}


# -- what is no MCP server ---------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    report = await doctor(f"http://127.0.0.1:{unused_port()}/mcp")
    assert not report.servable
    assert [each.check for each in report.findings] == ["reachable"]
    assert "connection refused" in problems(report)[0]
    assert report.configuration == {}


async def test_a_name_that_does_not_resolve() -> None:
    report = await doctor(f"http://{'x' * 64}.invalid/mcp")  # a label too long: no resolver is asked
    assert not report.servable
    assert "does not resolve" in problems(report)[0]


async def test_tls_where_there_is_none() -> None:
    async with ScriptedUpstream({}, on_connect=[Send(b"HTTP/1.1 400 Bad Request\r\n\r\n")]) as server:
        report = await doctor(server.url.replace("http:", "https:"))
    assert not report.servable
    [(level, text)] = said(report, "tls")
    assert level == "problem"
    assert "is it plain http?" in text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status_answer(200, headers={"Content-Type": "text/html"}, body=b"<html>hello"), "web page"),
        (status_answer(404), "nothing at this path"),
        (status_answer(500, body=b"oops"), "HTTP 500"),
        (answer_with(Send(b"220 smtp.example.com ESMTP\r\n"), Close()), "no request got an HTTP answer"),
        (answer_with(Reset()), "no request got an HTTP answer"),
        (answer_with(Close()), "no request got an HTTP answer"),
        (
            answer_with(Head(200, {"Content-Type": "application/json", "Content-Length": "9"}, chunked=False), Reset()),
            "",
        ),
    ],
    ids=["html", "404", "500", "smtp", "reset", "closed", "truncated"],
)
async def test_no_mcp_server(answer: Callable[[Received], Any], words: str) -> None:
    async with ScriptedUpstream(answer) as server:
        report = await doctor(server.url)
    assert not report.servable
    [(level, text)] = said(report, "answer")
    assert level == "problem"
    assert words in text
    assert "cannot serve" in render(report)


async def test_silence_ends() -> None:
    async with ScriptedUpstream(answer_with(Hang())) as server:
        report = await doctor(server.url, patience=0.2)
    assert not report.servable
    assert report.requests <= 4


async def test_a_server_that_falls_silent() -> None:
    """After its first answers; what is left is told to be unknown, and all of it ends."""
    async with ScriptedUpstream(legacy(ping=[Hang()], tools__list=[Hang()])) as server:
        report = await doctor(server.url, patience=0.1)
    assert report.servable
    assert failed(report)


async def test_an_answer_that_trickles_is_not_waited_for() -> None:
    def trickle(_: Received) -> Any:
        async def steps() -> Any:
            yield Head(200, {"Content-Type": "text/event-stream"})
            while True:
                yield Event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
                yield Wait(0.01)

        return steps()

    async with ScriptedUpstream(trickle) as server:
        report = await doctor(server.url, patience=0.2)
    assert not report.servable


async def test_redirects_are_shown_and_not_followed() -> None:
    async with ScriptedMcp() as other:
        async with ScriptedUpstream(status_answer(307, headers={"Location": other.url})) as server:
            report = await doctor(server.url)
        assert other.requests == []
    assert not report.servable
    assert said(report, "redirect") == [("problem", f"redirects (307) to {other.url}")]
    assert any(f"mcpgw doctor {other.url}" in note for note in report.notes)


STRANGE: list[Any] = [
    [],
    "text",
    7,
    None,
    {},
    {"jsonrpc": "2.0"},
    {"jsonrpc": "2.0", "id": 1, "result": 5},
    {"jsonrpc": "2.0", "id": True, "result": {}},
    {"jsonrpc": "2.0", "id": None, "error": "no"},
    {"jsonrpc": "2.0", "id": None, "error": {"code": "x", "message": 5, "data": []}},
    [{"jsonrpc": "2.0", "id": 1, "result": {}}],
    b'{"a":' * 3000,
    b"\xff\xfe{}",
    b'{"jsonrpc":"2.0","id":1,"id":1,"result":{}}',
]


@pytest.mark.parametrize("document", STRANGE, ids=lambda document: repr(document)[:40])
async def test_strange_answers_are_no_server(document: Any) -> None:
    async with ScriptedUpstream(answer_with(Json(document))) as server:
        report = await doctor(server.url)
    assert not report.servable
    assert render(report)


RESULTS: list[dict[str, Any]] = [
    {},
    {"supportedVersions": "2026-07-28", "protocolVersion": 5},
    {"supportedVersions": [1, None, "2026-07-28"], "protocolVersion": "2025-11-25", "capabilities": []},
    {
        "supportedVersions": ["2026-07-28"],
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": None, "prompts": 1, "resources": {}},
        "serverInfo": [],
        "_meta": 3,
        "instructions": {"a": ["b\u200b"]},
        "tools": [None, 1, "x", {"name": None}, {"name": 5}, {"name": "", "inputSchema": 7}],
        "prompts": {},
        "resources": [[], {"uri": []}],
        "nextCursor": 5,
    },
]


@pytest.mark.parametrize("result", RESULTS, ids=["empty", "types", "capabilities", "everything"])
async def test_strange_results_stop_no_probe(result: dict[str, Any]) -> None:
    """The same result to whatever is asked."""
    async with ScriptedUpstream(json_answer(result)) as server:
        report = await doctor(server.url)
    assert failed(report) == []
    assert render(report)


async def test_a_list_without_an_end() -> None:
    endless = json_answer({"tools": [], "nextCursor": "again"})
    async with ScriptedUpstream(legacy(tools__list=endless)) as server:
        report = await doctor(server.url)
    assert ("note", "tools/list has more than 20 pages; the rest was not read") in said(report, "list")


# -- connections and header fields -------------------------------------------------------------------------------------


def with_fields(*fields: tuple[str, str]) -> dict[str, Any]:
    """The server of ``legacy``, each answer with further header fields."""

    def changed(answer: Callable[[Received], Any]) -> Callable[[Received], Any]:
        def steps(received: Received) -> list[Step]:
            [step] = answer(received)
            return [Json(step.document, step.status, fields)]

        return steps

    return {name: changed(answer) for name, answer in legacy().items()}


@pytest.mark.parametrize(
    ("fields", "check", "level"),
    [
        ([("Content-Type", "application/json"), ("Content-Type", "text/html")], "content-type", "problem"),
        ([("Content-Type", "application/json; charset=utf-16")], "content-type", "problem"),
        ([("Content-Encoding", "gzip")], "compression", "problem"),
        ([("Set-Cookie", "lb=7f; Path=/")], "cookies", "note"),
        ([("Mcp-Session-Id", "a" * 32), ("Mcp-Session-Id", "b" * 32)], "repeated-header", "problem"),
        ([("Mcp-Session-Id", "short")], "session", "problem"),
        ([("Mcp-Session-Id", "b\u00f6se" * 10)], "session", "problem"),
    ],
    ids=["two-types", "charset", "gzip", "cookie", "two-sessions", "same-session", "session-characters"],
)
async def test_odd_header_fields(fields: list[tuple[str, str]], check: str, level: str) -> None:
    async with ScriptedUpstream(with_fields(*fields)) as server:
        report = await doctor(server.url)
    assert level in levels(report, check)
    assert failed(report) == []


async def test_compressed_answers_cannot_be_served() -> None:
    def compressed(received: Received) -> list[Step]:
        [step] = list(legacy()["initialize"](received))
        body = gzip.compress(b"{}")
        return [Json(body, 200, {"Content-Encoding": "gzip", "Content-Type": "application/json"})] if step else []

    async with ScriptedUpstream(compressed) as server:
        report = await doctor(server.url)
    assert not report.servable
    assert levels(report, "compression") == {"problem"}


def second(*steps: Step, answered: bool = False) -> Callable[[Received], Any]:
    """Answers the first request of a connection, and does this at the next, after an answer or in its place."""
    seen: set[int] = set()

    def answer(received: Received) -> Any:
        if received.connection in seen:
            return [*(json_answer({})(received) if answered else ()), *steps]
        seen.add(received.connection)
        return json_answer({})(received)

    return answer


def closing(*steps: Step, headers: dict[str, str] | None = None) -> Callable[[Received], Any]:
    """A whole answer, and then this."""
    return lambda received: [Json({"jsonrpc": "2.0", "id": received.id, "result": {}}, 200, headers or {}), *steps]


@pytest.mark.parametrize(
    ("ping", "check", "level", "force_close"),
    [
        (closing(), "keep-alive", "ok", False),
        (closing(headers={"Connection": "close"}), "keep-alive", "note", False),
        (closing(Close()), "keep-alive", "warning", True),
        (second(Reset()), "keep-alive", "problem", True),
        (second(Hang()), "keep-alive", "problem", True),
        (closing(Send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), "unasked", "problem", True),
        (closing(Wait(0.02), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), "unasked", "problem", True),
        (second(Wait(0.2), Close(), answered=True), "idle", "warning", True),
    ],
    ids=["kept", "announced", "closed", "reset", "hangs", "unasked", "unasked-later", "idle"],
)
async def test_keep_alive(ping: Any, check: str, level: str, force_close: bool) -> None:
    async with ScriptedUpstream(legacy(ping=ping)) as server:
        report = await doctor(server.url, patience=1, idle=0.6)
    assert levels(report, check) == {level}
    assert report.servable
    [entry] = report.configuration["upstreams"].values()
    assert entry.get("force_close", False) is force_close


# -- sessions and streams ----------------------------------------------------------------------------------------------


class Stateful:
    """A server of sessions, with what is to be wrong with it."""

    def __init__(self, *, most: int = 10, unknown: int = 404, delete: int = 200, batches: bool = False) -> None:
        self.live: set[str] = set()
        self.opened = 0
        self._most, self._unknown, self._delete, self._batches = most, unknown, delete, batches

    def __call__(self, received: Received) -> Any:
        if received.rpc_method == "initialize":
            if len(self.live) >= self._most:
                return error_answer(-32600, "Invalid Request: Server already initialized", status=400)(received)
            self.opened += 1
            id = f"{self.opened:032x}"
            self.live.add(id)
            result = {"protocolVersion": received.params["protocolVersion"], "capabilities": {"tools": {}}}
            return json_answer(result, headers={"Mcp-Session-Id": id})(received)
        id = received.header("Mcp-Session-Id") or ""
        if id not in self.live:
            return error_answer(-32000, "no such session", status=400 if not id else self._unknown)(received)
        if received.method == "DELETE":
            if self._delete < 300:
                self.live.discard(id)
            return status_answer(self._delete)(received)
        if received.method == "GET":
            return self._get(received)
        if isinstance(received.message, list):
            results = [{"jsonrpc": "2.0", "id": each["id"], "result": {}} for each in received.message]
            return [Json(results)] if self._batches else error_answer(-32600, "no batches", status=400)(received)
        return self._stream(received)

    def _get(self, received: Received) -> Any:
        return status_answer(405)(received)

    def _stream(self, received: Received) -> Any:
        if received.id is None:
            return status_answer(202)(received)
        return json_answer({"tools": []} if received.rpc_method == "tools/list" else {})(received)


async def test_one_session_at_a_time() -> None:
    server = Stateful(most=1)
    async with ScriptedUpstream(server) as upstream:
        report = await doctor(upstream.url)
    assert levels(report, "one-session") == {"warning"}
    assert server.live == set()
    assert (report.opened, report.ended) == (4, 4)
    assert failed(report) == []


async def test_a_server_that_does_not_say_404() -> None:
    async with ScriptedUpstream(Stateful(unknown=400)) as upstream:
        report = await doctor(upstream.url)
    assert levels(report, "session-unknown") == {"warning"}


async def test_a_server_that_keeps_its_sessions() -> None:
    async with ScriptedUpstream(Stateful(delete=405)) as upstream:
        report = await doctor(upstream.url)
    assert levels(report, "session-end") == {"note"}
    assert (report.opened, report.ended) == (4, 0)


async def test_batches_where_there_should_be_none() -> None:
    async with ScriptedUpstream(Stateful(batches=True)) as upstream:
        report = await doctor(upstream.url)
    assert levels(report, "batch") == {"warning"}
    assert said(report, "batch-2025-03-26") == [("ok", "2025-03-26: answers batches")]


@pytest.mark.parametrize("replays", [True, False])
async def test_resumption(replays: bool) -> None:
    class Resumable(Stateful):
        def _stream(self, received: Received) -> Any:
            if received.id is None:
                return status_answer(202)(received)
            self.answer = {"jsonrpc": "2.0", "id": received.id, "result": {"tools": []}}
            return sse_answer(Event(b"", id="1", retry=500), Event(self.answer, id="2"))(received)

        def _get(self, received: Received) -> Any:
            replayed = [Event(self.answer, id="2")] if replays and received.header("Last-Event-ID") == "1" else []
            return [Head(200, {"Content-Type": "text/event-stream"}), *replayed, End()]

    async with ScriptedUpstream(Resumable()) as upstream:
        report = await doctor(upstream.url)
    assert said(report, "event-ids") == [
        ("ok", "events carry ids, streams begin with a priming event, retry after 500 ms")
    ]
    assert levels(report, "resume") == {"ok" if replays else "warning"}


async def test_events_of_unknown_types() -> None:
    strange = sse_answer(Event({"x": 1}, event="custom\u200b"), {"result": {}})
    async with ScriptedUpstream(legacy(ping=strange)) as server:
        report = await doctor(server.url)
    assert ("warning", "sends events of type custom, which the gateway drops (rule 4.13)") in said(report, "event-ids")


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_credentials_are_asked_for_and_nothing_is_fetched() -> None:
    async with ScriptedUpstream(status_answer(200)) as metadata:
        challenge = f'Bearer resource_metadata="{metadata.url}", scope="mcp"'
        async with ScriptedUpstream(status_answer(401, headers={"WWW-Authenticate": challenge})) as server:
            report = await doctor(server.url)
        assert metadata.requests == []
    assert not report.servable
    assert levels(report, "credentials") == {"problem"}
    assert challenge in said(report, "challenge")[0][1]
    [entry] = report.configuration["upstreams"].values()
    assert entry["headers"] == {"Authorization": "Bearer ${SERVER_TOKEN}"}
    assert "without credentials" in render(report)


SECRET = 'k3y/"+=s3cret.Value'


@pytest.mark.parametrize(
    "value", [SECRET, f"Bearer {SECRET}", "Basic dXNlcjpzM2NyZXQuVmFsdWU=", f"a={SECRET}; b=s3cret.Value-2"]
)
async def test_a_secret_never_comes_back_out(value: str) -> None:
    """However the server quotes it: in texts, names, header fields, escaped, in capitals, cut in the middle."""
    words = ["s3cret.value", "k3y"]

    def forms(received: Received) -> list[str]:
        told = received.header("X-Secret") or ""
        bare = told.partition(" ")[2] or told
        plain = ["user", "s3cret.Value"] if told.startswith("Basic") else []
        return [told, bare, bare.upper(), told.replace("/", "%2F").replace('"', "%22").replace("+", "%2B"), *plain]

    def answer(received: Received) -> Any:
        text = " | ".join(forms(received))
        padded = "x" * 110 + text
        fields = (
            ("Set-Cookie", f"{(forms(received)[1])}=1"),
            ("WWW-Authenticate", text),
            ("Location", "https://example.com/" + forms(received)[1].replace('"', "%22")),
        )
        if received.method != "POST":
            return status_answer(403, headers=fields)(received)
        if received.rpc_method == "initialize":
            result: dict[str, Any] = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}, text: {}},
                "serverInfo": {"name": text, "version": padded},
                "instructions": text,
            }
            return json_answer(result, headers=fields)(received)
        if received.rpc_method == "tools/list":
            tools = [{"name": each + "\u200b" * (number % 2)} for number, each in enumerate((*forms(received), padded))]
            return json_answer({"tools": tools}, headers=fields)(received)
        if received.rpc_method == "server/discover":
            return status_answer(307, headers=fields)(received)
        return error_answer(-32000, padded, data={"supported": [text, padded]}, status=401, headers=fields)(received)

    async with ScriptedUpstream(answer) as server:
        report = await doctor(server.url, {"X-Secret": value})
    assert report.servable
    assert failed(report) == []
    for shown in (render(report), str(report.to_document())):
        assert "[hidden]" in shown or "hidden" in report.name
        for word in words if not value.startswith("Basic") else words[:1]:
            assert word not in shown.lower()
    [entry] = report.configuration["upstreams"].values()
    assert "${" in entry["headers"]["X-Secret"]


async def test_whether_credentials_make_a_difference() -> None:
    async with ScriptedMcp() as server:
        report = await doctor(server.url, {"Authorization": "Bearer t0ken"})
    assert levels(report, "open") == {"warning"}

    def guarded(received: Received) -> Any:
        if received.header("Authorization") != "Bearer t0ken":
            return status_answer(401)(received)
        return server_script[received.rpc_method or "*"](received)

    server_script = {"*": status_answer(405), "notifications/initialized": status_answer(202), **legacy()}
    server_script = {key: server_script.get(key, server_script["*"]) for key in (*server_script, "server/discover")}
    server_script |= {"mcpgw-doctor/no-such-method": error_answer(-32601, "no")}
    async with ScriptedUpstream(guarded) as upstream:
        report = await doctor(upstream.url, {"Authorization": "Bearer t0ken"})
    assert levels(report, "open") == {"ok"}
    assert report.servable


# -- definitions -------------------------------------------------------------------------------------------------------


async def _never(call: ToolCall) -> Any:
    raise AssertionError("a tool was called")
    yield {}


def tool(**more: Any) -> Tool:
    return Tool(_never, "A tool", more=more)


async def test_definitions() -> None:
    number = {"type": "object", "properties": {"n": {"type": "number", "x-mcp-header": "N"}}}
    good = {"type": "object", "properties": {"s": {"type": "string", "x-mcp-header": "S"}}}
    tools = {
        "fine": tool(inputSchema=good),
        "Fine": tool(),
        "has space": tool(),
        "hidden": tool(description="Say\U000e0041\U000e0042 hello"),
        "header": tool(inputSchema=number),
        "bare": tool(inputSchema=None),
    }
    async with ScriptedMcp(tools=tools) as server:
        report = await doctor(server.url)
    names = [text for _, text in said(report, "tool-names")]
    assert any("has space" in text for text in names)
    assert any("differ in case alone: fine" in text for text in names)
    assert said(report, "characters") == [("warning", "tool hidden: invisible-characters")]
    assert said(report, "header-parameters") == [("warning", "x-mcp-header breaks rule 6.17 in header")]
    assert said(report, "tool-schemas") == [("warning", "no inputSchema of type object: bare")]


async def test_a_list_that_is_too_large() -> None:
    limits = Limits(max_message_size=2000)
    entry = {"name": "x" * 100, "inputSchema": {"type": "object"}}
    async with ScriptedUpstream(legacy(tools__list=json_answer({"tools": [entry] * 30}))) as server:
        report = await doctor(server.url, limits=limits)
    assert levels(report, "list") == {"problem"}
    assert "limits.max_message_size" in said(report, "list")[0][1]
    assert report.configuration["limits"] == {"max_message_size": "8000"}


async def test_json_that_the_gateway_refuses() -> None:
    twice = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[],"tools":[]}}'
    script = legacy(tools__list=lambda received: [Json(twice % received.id)])
    async with ScriptedUpstream(script) as server:
        report = await doctor(server.url)
    [(level, text), *_] = said(report, "list")
    assert level == "problem"
    assert "duplicate-member" in text


# -- what to configure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weather", "\u0442\u0435\u0441\u0442", "7up", "A.B C", "-", "x" * 100, "true", ""])
async def test_the_configuration_loads(name: str, tmp_path: Any) -> None:
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": name, "version": "1"}}
    script = legacy(initialize=json_answer(opening), ping=second(Reset()))
    headers = {"Authorization": "Bearer t0ken-1", "X-API-Key": "k3y-1"}
    async with ScriptedUpstream(script) as server:
        report = await doctor(server.url, headers)
    lines = render(report).split("What to configure\n")[1].split("\n  -")[0].split("\n\n")[0]
    [(written, entry)] = yaml.safe_load(lines)["upstreams"].items()
    assert entry["force_close"] is True
    rest = "clients: {me: {token_sha256: " + "a" * 64 + "}}\npolicies: {default: {allowed_upstreams: ['*']}}\n"
    file = tmp_path / "gateway.yaml"
    file.write_text("\n".join(line[2:] for line in lines.splitlines()) + "\n" + rest)
    variables = [value.partition("${")[2].rstrip("}") for value in entry["headers"].values()]
    upstream = load(file, dict.fromkeys(variables, "value")).upstreams[str(written)]
    assert upstream.url == server.url
    assert upstream.headers == {"Authorization": "Bearer value", "X-API-Key": "value"}
