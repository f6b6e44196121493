"""Plays cases, one at a time on each gateway, so that whatever is seen meanwhile belongs to the case."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.harness.script import Chunk, Close, End, Head, Json, Received, Send, SplitAt, Steps
from gateway.harness.upstream import ScriptedUpstream

from .callers import Callers
from .case import Case
from .offers import tool_upstreams
from .seen import Listing, Seen
from .server import Server
from .settings import LISTER, MAIN, configuration
from .subject import Subject, gateway
from .wire import NotPlayable, Sending, documents, events, exchange, fed, sending, strict
from .wire import Received as Exchanged

__all__ = ["Stage", "stage"]

SLACK = 3.0
SETTLE = 2.0


class Stage:
    """A gateway with its server behind it, and what plays cases on them."""

    def __init__(self, subject: Subject, upstream: ScriptedUpstream, server: Server, context: Mapping[str, Any],
                 tokens: Mapping[str, str]) -> None:  # fmt: skip
        self.subject = subject
        self._upstream = upstream
        self._server = server
        self._pending = context.get("pending_request_for_sse_and_result", {})
        self._callers = Callers(subject.url, context, tokens)
        self._patience = SLACK + max(
            [float(context.get("limits", {}).get(key, 10)) for key in ("header_timeout_s", "body_idle_timeout_s")]
        )

    async def play(self, case: Case) -> list[Seen]:
        """Plays a case; a message of the server is played in each of the ways in which it can be sent."""
        ways = ("json", "sse") if case.transport == "result" else ("",)
        return [await self._play(case, way) for way in ways]

    async def _play(self, case: Case, way: str) -> Seen:
        seen = Seen()
        try:
            data = await self._callers.filled(case)
            measured = "max_memory_growth_mb" in case.fields
            self._server.answers.clear()
            self._upstream.requests.clear()
            self._upstream.incomplete.clear()
            self._upstream.malformed.clear()
            mark = self.subject.written()
            before = self.subject.memory()
            if measured:
                self.subject.forget_peak()
            if case.transport == "tool_def":
                await self._tools(case, data, seen)
            elif case.asks:
                await self._request(case, data, seen)
            else:
                await self._answer(case, data, seen, way)
            if measured:
                seen.growth = max(0, self.subject.peak() - before)
            await self._settle(mark, seen)
            if "metrics_must_not_contain" in case.fields:
                seen.metrics = await self.subject.metrics()
        except NotPlayable as error:
            seen.problem = f"cannot be played: {error}"
        except OSError as error:
            seen.problem = f"the gateway cannot be reached: {error}"
        finally:
            self._server.instead = lambda _received: None
        return seen

    async def _settle(self, mark: tuple[int, int], seen: Seen) -> None:
        """Waits until everything that was begun has been recorded as ended."""
        deadline = asyncio.get_running_loop().time() + SETTLE
        while True:
            seen.audit, seen.log = self.subject.since(mark)
            events_ = [record.get("event") for record in seen.records()]
            ended = events_.count("request.accepted") <= events_.count("request.finished")
            if ended and (events_ or not seen.arrived):
                break
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await self._upstream.idle()

    async def warm(self) -> None:
        """Has the gateway do once what it does the first time only, so that it is not measured."""
        params = {"name": "get_weather", "arguments": {"text": "x" * 100_000}}
        call = self._callers.post(LISTER, {"id": 1, "method": "tools/call", "params": params})
        for _ in range(3):
            await exchange(self.subject.url, call, Sending(), patience=SLACK)

    # -- what clients send ---------------------------------------------------------------------------------------------

    async def _request(self, case: Case, data: bytes, seen: Seen) -> None:
        offset = 0
        if case.transport == "jsonrpc":
            seen.asked = _read(data)
            head = self._callers.head(case, len(data))
            offset, data = len(head), head + data
        else:
            read = await fed(data, request=True)
            seen.asked = _read(read[2]) if read is not None and read[0][0] == "POST" else None
        how = sending(case.fields, len(data) - offset, offset)
        setup = case.fields.get("setup")
        if setup is None:
            await self._exchange(case, data, how, seen)
            self._arrivals(seen)
            seen.given = list(self._server.answers)
        elif setup == "concurrent-same-id":
            await self._concurrently(case, data, how, seen)
        else:
            raise NotPlayable(f"setup {setup!r}")

    async def _exchange(self, case: Case, data: bytes, how: Sending, seen: Seen) -> None:
        patience = self._patience
        if "max_ms" in case.fields:
            patience = max(SLACK, case.fields["max_ms"] / 1000 + SLACK)
        endless = data.startswith(b"GET ")
        _into(seen, await exchange(self.subject.url, data, how, patience=patience, endless=endless))

    async def _concurrently(self, case: Case, data: bytes, how: Sending, seen: Seen) -> None:
        """Another client's request with the same id overtakes the case's at the same upstream."""
        mine = self._callers.of(case)
        other = self._callers.other(mine, LISTER)
        arrived: list[Received] = []
        first, overtaken = asyncio.Event(), asyncio.Event()

        def answer(received: Received) -> Steps:
            arrived.append(received)
            name = str(mine) if len(arrived) == 1 else other
            step = Json({"jsonrpc": "2.0", "id": received.id, "result": _text(f"{name.upper()}-DATA")})
            first.set()
            return _after(overtaken, step) if len(arrived) == 1 else (step,)

        self._server.instead = answer
        call = asyncio.create_task(self._exchange(case, data, how, seen))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SLACK):
                await first.wait()
        id_ = seen.asked.get("id") if isinstance(seen.asked, dict) else None
        theirs = await exchange(
            self.subject.url, self._callers.pending(other, case.era, id_), Sending(), patience=SLACK
        )
        overtaken.set()
        await call
        self._arrivals(seen)
        # The other client's request is the setup's, not the case's.
        seen.arrived = [received for received in seen.arrived if received not in arrived[1:2]]
        seen.given = [_text(f"{str(mine).upper()}-DATA")]
        found = [document for each in theirs.responses for document in documents(each.headers, each.body)]
        if found != [{"jsonrpc": "2.0", "id": id_, "result": _text(f"{other.upper()}-DATA")}]:
            seen.amiss.append(f"{other} received {found!r}"[:300])

    def _arrivals(self, seen: Seen) -> None:
        seen.arrived = [*self._upstream.requests, *self._upstream.incomplete]
        seen.arrived += [
            Received("?", "?", (), b"", 0, 0.0, complete=False, raw_head=each.raw) for each in self._upstream.malformed
        ]

    # -- what servers answer -------------------------------------------------------------------------------------------

    async def _answer(self, case: Case, data: bytes, seen: Seen, way: str) -> None:
        client = str(self._pending.get("client", "alice"))
        id_ = self._pending.get("id", 7)
        seen.asked = {"id": id_}
        how = sending(case.fields, len(data))
        if case.transport == "http":
            steps: list[Any] = [*_cut(how), Send(data), Close()]
            seen.sent = await _documents(data)
        elif way == "json":
            steps = [Head(200, {"Content-Type": "application/json"}), *_chunks(data, how), End()]
            seen.sent = _sent([data])
        else:
            body = data
            if way == "sse":
                # A document in an event has a line for each of its own.
                body = b"".join(b"data: " + line + b"\n" for line in re.split(rb"\r\n|\r|\n", data)) + b"\n"
            steps = [Head(200, {"Content-Type": "text/event-stream"}), *_chunks(body, how), End()]
            seen.sent = _sent(events(body))
        self._server.instead = lambda received: steps if received.id is not None else None
        await self._exchange(case, self._callers.pending(client, case.era, id_), Sending(), seen)
        self._arrivals(seen)
        if [received.id for received in seen.arrived] != [id_]:
            seen.amiss.append("the pending request did not reach the upstream as it was")
        await self._bring_back(client, case, id_, seen)

    async def _bring_back(self, client: str, case: Case, id_: Any, seen: Seen) -> None:
        """A request state is opaque: the client may get another one, if the server gets its own back for it."""
        theirs = next((state for sent in seen.sent if (state := _state(sent)) is not None), None)
        try:
            ours = next((state for document in seen.documents() if (state := _state(document)) is not None), None)
        except ValueError:
            return
        if theirs is None or ours is None or ours == theirs:
            return
        self._server.instead = lambda _received: None
        self._upstream.requests.clear()
        answers = {"inputResponses": {}, "requestState": ours}
        await exchange(
            self.subject.url,
            self._callers.pending(client, case.era, id_, **answers),
            Sending(),
            patience=self._patience,
        )
        if [received.params.get("requestState") for received in self._upstream.requests] == [theirs]:
            seen.restored = {ours: theirs}

    # -- tools ---------------------------------------------------------------------------------------------------------

    async def _tools(self, case: Case, data: bytes, seen: Seen) -> None:
        seen.asked = {"id": 1}
        for name, (offered, approved) in tool_upstreams(case).items():
            self._server.tools[name] = offered
            ask = self._callers.post(LISTER, {"id": 1, "method": "tools/list"}, path=f"/{name}/mcp")
            got = await exchange(self.subject.url, ask, Sending(), patience=self._patience)
            _into(seen, got)
            found = [document for each in got.responses for document in documents(each.headers, each.body)]
            shown = None
            if len(found) == 1 and isinstance(found[0].get("result"), dict):
                shown = found[0]["result"].get("tools")
            elif got.problem is None and (len(found) != 1 or "error" not in found[0]):
                seen.amiss.append("tools/list was answered with neither a list nor an error")
            seen.listings.append(Listing(offered, approved, shown))
        self._arrivals(seen)


def _read(data: bytes) -> Any:
    try:
        return strict(data)
    except ValueError:
        return None


def _text(text: str) -> dict[str, Any]:
    return {"resultType": "complete", "content": [{"type": "text", "text": text}]}


def _state(document: Any) -> Any:
    """The request state of a result."""
    result = document.get("result") if isinstance(document, dict) else None
    return result.get("requestState") if isinstance(result, dict) else None


async def _after(event: asyncio.Event, step: Json) -> AsyncIterator[Any]:
    await event.wait()
    yield step


def _into(seen: Seen, got: Exchanged) -> None:
    seen.responses += got.responses
    seen.raw += got.raw
    seen.closed = got.closed
    seen.ms += got.ms
    seen.problem = seen.problem or got.problem


def _sent(texts: Sequence[bytes]) -> list[Any]:
    return [document for document in map(_read, texts) if document is not None]


async def _documents(data: bytes) -> list[Any]:
    read = await fed(data, request=False)
    if read is None:
        return []
    try:
        return documents(read[1], read[2])
    except ValueError:
        return []


def _cut(how: Sending) -> list[SplitAt]:
    return [] if how == Sending() else [SplitAt(how.sizes, how.every, how.pause)]


def _chunks(data: bytes, how: Sending) -> list[Any]:
    """Each piece of a body as an HTTP chunk, and a write, of its own."""
    edges = [0]
    for size in how.sizes:
        edges.append(edges[-1] + size)
    if how.every is not None:
        edges += range(edges[-1] + how.every, len(data), how.every)
    edges = [edge for edge in edges if edge < len(data)] + [len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    if how == Sending():
        return [Chunk(piece) for piece in pieces if piece]
    return [SplitAt(every=1 << 30, pause=how.pause), *(Chunk(piece) for piece in pieces if piece)]


@contextlib.asynccontextmanager
async def stage(cases: Sequence[Case], context: Mapping[str, Any], folder: Path) -> AsyncIterator[Stage]:
    """A gateway of its own with what these cases need behind it."""
    tokens = {name: described["token"] for name, described in context["clients"].items()}
    tokens[LISTER] = f"{LISTER}-token-0123456789abcdef0123456789abcdef"
    denied = context.get("upstream_tools_that_exist_but_are_denied", [])
    names = dict.fromkeys([*(n for each in context["clients"].values() for n in each.get("tools", [])), *denied])
    prompts = dict.fromkeys(name for each in context["clients"].values() for name in each.get("prompts", []))
    server = Server([_definition(name) for name in names], [{"name": name} for name in prompts])
    # Scripts that hold back an answer end with their peer; nothing here waits longer than a case may take.
    async with ScriptedUpstream(server.respond, patience=120.0) as upstream:
        urls = {MAIN: f"{upstream.origin}/{MAIN}/mcp"}
        approved = {MAIN: {MAIN: server.usual_tools}}
        for case in cases:
            if servers := tool_upstreams(case):
                urls |= {name: f"{upstream.origin}/{name}/mcp" for name in servers}
                approved[next(iter(servers))] = {name: tools for name, (_, tools) in servers.items()}
        settings = configuration(context, tokens, urls, approved, server.usual_prompts, folder)
        async with gateway(settings, folder) as subject:
            yield Stage(subject, upstream, server, context, tokens)


def _definition(name: str) -> dict[str, Any]:
    return {"name": name, "description": f"The tool {name}.", "inputSchema": {"type": "object"}}
