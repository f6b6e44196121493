"""What the short lane remembers and where it parts from the full one, without sockets; tests/end_to_end/test_lanes.py
has the rest."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.load import validate
from gateway.relay.alarm import Alarm
from gateway.relay.endpoint import Endpoint
from gateway.relay.server import DataServer
from gateway.relay.site import Site
from gateway.relay.upstream import Pool
from gateway.relay.upstream_side import KnownAnswers

from .conftest import TOKEN

# -- the timer --------------------------------------------------------------------------------------------------------


class Clock:
    """An event loop as far as a timer sees it."""

    class Handle:
        def __init__(self, when: float, call: Any) -> None:
            self._when, self.call, self.cancelled = when, call, False

        def when(self) -> float:
            return self._when

        def cancel(self) -> None:
            self.cancelled = True

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Clock.Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> Clock.Handle:
        self.handles.append(Clock.Handle(when, call))
        return self.handles[-1]

    def advance(self, to: float) -> None:
        while due := [each for each in self.waiting if each.when() <= to]:
            first = min(due, key=Clock.Handle.when)
            self.now = max(self.now, first.when())
            self.handles.remove(first)
            first.call()
        self.now = to

    @property
    def waiting(self) -> list[Clock.Handle]:
        return [each for each in self.handles if not each.cancelled]


@given(st.lists(st.tuples(st.sampled_from(["set", "clear", "wait"]), st.integers(0, 20)), max_size=30))
def test_an_alarm_goes_off_when_it_was_set_for_last(steps):
    """Never early, never late, once, and with one timer of the loop at most."""
    clock = Clock()
    alarm = Alarm(cast(asyncio.AbstractEventLoop, clock))
    rung: list[tuple[float, float]] = []
    expected: list[tuple[float, float]] = []
    due: float | None = None
    for what, amount in steps:
        if what == "set":
            due = clock.now + amount
            alarm.set(due, lambda due=due: rung.append((clock.now, due)))
        elif what == "clear":
            due = None
            alarm.clear()
        else:
            until = clock.now + amount
            if due is not None and due <= until:
                expected.append((due, due))
                due = None
            clock.advance(until)
        assert len(clock.waiting) <= 1
    assert rung == expected
    alarm.close()
    assert not clock.waiting


# -- known heads of answers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


def parsed(loop: asyncio.AbstractEventLoop, data: bytes) -> list[Any] | None:
    """What aiohttp's parser makes of an answer: its messages, or None for an error."""
    protocol = ResponseHandler(loop)
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.data_received(data)
    return None if protocol.exception() is not None else [each for each, _ in protocol._buffer]


ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])
BODIES = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"{}", b" ", b"HTTP/1.1 200 OK\r\n\r\n", b"x", b"\r\n\r\n"]), max_size=6
)


@st.composite
def answers(draw):
    """Two answers with the same head, such as it is: bare line feeds, lengths that lie, bodies like heads."""
    body = b"".join(draw(BODIES))
    length = max(0, len(body) + draw(st.sampled_from([0, 0, 0, -4, -2, 2, 4])))
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % length, b""]
    head = b"".join(line + draw(ENDS) for line in lines)
    other = b"".join(draw(BODIES))
    return draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"])) + head, body, other


@given(answers())
@example((b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\n\r\n", b"\r\n\n", b""))
def test_a_known_head_says_what_the_parser_says(loop, given_answers):
    """Whatever was learnt from one answer: where the memory knows another, the parser reads the same in it."""
    head, body, other = given_answers
    for second in (body, other, other[: len(body)], other.ljust(len(body))):
        known = KnownAnswers()
        first = parsed(loop, head + body)
        if first is not None and len(first) == 1:
            known.learn(head + body, *first[0])
        found = known.find(head + second)
        if found is None:
            continue
        answer, read = found
        again = parsed(loop, head + second)
        assert again is not None and len(again) == 1
        message, payload = again[0]
        assert (message.code, message.headers, payload.read_nowait(-1)) == (answer.status, answer.headers, read)
        assert payload.is_eof()


def test_only_plain_answers_are_remembered(loop):
    """And no more of them than a bound, whatever an upstream writes."""
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n%b\r\n{}"
    for fields in (b"Connection: close\r\n", b"Content-Encoding: gzip\r\n", b"X: " + b"x" * 3000 + b"\r\n"):
        known = KnownAnswers()
        (message,) = parsed(loop, plain % fields) or []
        known.learn(plain % fields, *message)
        assert known.find(plain % fields) is None
    known = KnownAnswers()
    for n in range(1000):
        data = plain % (b"X: %d\r\n" % n)
        (message,) = parsed(loop, data) or []
        known.learn(data, *message)
        assert known.find(data) is not None
    assert len(known._heads) <= 256


# -- one stream of bytes, in any reads --------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A client's end of a connection: keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture(scope="module")
def sites(loop, tmp_path_factory) -> Iterator[dict[str, Endpoint]]:
    """An endpoint for each lane, where every call is refused, so that no upstream is needed."""
    endpoints = {}
    for lane in ("full", "short"):
        audit: Path = tmp_path_factory.mktemp(lane) / "audit.jsonl"
        config = validate(
            {
                "listen": {"port": 8080},
                "upstreams": {"up": {"url": "http://127.0.0.1:1/mcp"}},
                "clients": {"alice": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "policy": "nothing"}},
                "policies": {"nothing": {"allowed_upstreams": ["*"], "max_requests_per_minute": None}},
                "audit": {"path": str(audit)},
                "hooks": ["policy"],
            },
            source="test",
        )
        site = Site.of(config)
        site.audit.open()

        async def pool(config: Any = config) -> Pool:
            return Pool("up", config.upstreams["up"], config.limits)

        endpoints[lane] = Endpoint(site, {"up": loop.run_until_complete(pool())})
    yield endpoints
    for each in endpoints.values():
        loop.run_until_complete(each.pools["up"].close())
        each.site.audit.close()


def message(id: int, method: str = "tools/call") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": "x"}}).encode()


def http(body: bytes, *fields: bytes, target: bytes = b"/up/mcp", length: bool = True) -> bytes:
    lines = [
        b"POST " + target + b" HTTP/1.1",
        b"Host: 127.0.0.1:8080",
        b"Authorization: Bearer " + TOKEN.encode(),
        b"Accept: application/json, text/event-stream",
        b"Content-Type: application/json",
        *([b"Content-Length: %d" % len(body)] if length else []),
        *fields,
    ]
    return b"\r\n".join([*lines, b"", body])


PLAIN = http(message(1))
REQUESTS = [
    PLAIN,
    http(message(2, "no/such")),
    http(PLAIN),
    http(b"{}" + PLAIN),
    http(b"\r\n\r\n"),
    http(b""),
    http(b"", length=False),
    b"\r\n" + PLAIN,
    http(message(3), target=b"/none/mcp"),
    http(message(4), b"Accept: text/html"),
    http(message(5), b"Expect: 100-continue"),
    b"GET /up/mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    b"OPTIONS /up/mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
]
_VARYING = re.compile(rb"Date: [^\r]*\r\n|[0-9a-f]{10}-[0-9a-f]+")
_SERVER = re.compile(rb"\r\nServer: [^\r]*\r\n")
_FIELDS = re.compile(rb"(?:[A-Za-z-]+: [^\r]*\r\n)+")


def server_of(endpoint: Endpoint, lanes: bool) -> DataServer:
    return DataServer(endpoint.site, endpoint, {"/up/mcp": endpoint.pools["up"]} if lanes else {})


async def exchanges(server: DataServer, reads: list[bytes], count: int) -> list[bytes]:
    """What a client gets for these reads: its answers, without the time and the order of header fields."""
    connection, wire = server(), Wire()
    connection.connection_made(wire)
    await asyncio.sleep(0)
    for each in reads:
        connection.data_received(each)
        await asyncio.sleep(0)
    for _ in range(2000):
        await asyncio.sleep(0)
        if wire.closed or wire.written.count(b"\r\nServer: ") >= count:
            break
    connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not server.endpoint.relays
    plain = _SERVER.sub(b"\r\nServer: mcpgw\r\n", _VARYING.sub(b"", bytes(wire.written)))
    plain = _FIELDS.sub(lambda fields: b"".join(sorted(fields[0].splitlines(keepends=True))), plain)
    return plain.split(b"HTTP/1.1 ")


@given(
    st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=6),
    st.lists(st.floats(0, 1, exclude_max=True), max_size=6),
    st.booleans(),
)
def test_any_split_of_the_same_bytes(loop, sites, kinds, cuts, at_requests):
    """Requests one after the other, parted anywhere: the same answers on both lanes."""
    requests = [REQUESTS[kind] for kind in kinds]
    raw = b"".join(requests)
    places = {0, len(raw), *(int(each * len(raw)) for each in cuts)}
    if at_requests:
        places |= {len(b"".join(requests[:n])) for n in range(len(requests))}
    order = sorted(places)
    reads = [raw[start:end] for start, end in itertools.pairwise(order)]
    answers = {}
    for lane, endpoint in sites.items():

        async def play(endpoint: Endpoint = endpoint, lane: str = lane) -> list[bytes]:
            server = server_of(endpoint, lane == "short")
            return await exchanges(server, reads, len(requests))

        answers[lane] = loop.run_until_complete(play())
    assert answers["short"] == answers["full"]
    assert len(answers["full"]) > 1


QUOTED = http(PLAIN)
HEAD = len(QUOTED) - len(PLAIN)
REMEMBERED = {
    "one": ([PLAIN], 1),
    "again": ([PLAIN, PLAIN], 1),
    "two": ([PLAIN, QUOTED], 2),
    "in two reads": ([PLAIN[:50], PLAIN[50:]], 0),
    "after one in two reads": ([PLAIN[:50], PLAIN[50:], PLAIN], 0),
    "two in a read": ([PLAIN + PLAIN], 0),
    "after two in a read": ([PLAIN + PLAIN, PLAIN], 0),
    "a body like a request": ([QUOTED[:HEAD], PLAIN], 0),
    "a known one and a part": ([PLAIN, PLAIN + PLAIN[:30], PLAIN[30:]], 1),
    "an unknown one and a part": ([PLAIN + PLAIN[:30], PLAIN[30:], PLAIN], 0),
    "a part that is a whole request": ([http(b"", length=False)[:-2], b"\r\n", PLAIN], 0),
    "after what is no plain request": ([REQUESTS[-1], PLAIN], 0),
    "a stranger's": ([PLAIN.replace(TOKEN.encode(), b"x" * len(TOKEN))], 1),
    "too long": ([http(message(1), b"X-Long: " + b"x" * 3000)], 0),
}


@pytest.mark.parametrize("name", REMEMBERED)
def test_what_is_remembered_of_requests(loop, sites, name):
    """Only what stood where a head must, and was a whole request in one read."""
    reads, most = REMEMBERED[name]

    async def play() -> tuple[list[bytes], int]:
        server = server_of(sites["short"], True)
        return await exchanges(server, reads, 99), len(server.lanes.known)

    answers, remembered = loop.run_until_complete(play())
    assert remembered == most
    assert len(answers) > 1


def test_the_memory_of_requests_is_bounded(loop, sites):
    async def play() -> int:
        server = server_of(sites["short"], True)
        await exchanges(server, [http(message(1), b"X-N: %d" % n) for n in range(1500)], 1500)
        return len(server.lanes.known)

    assert 0 < loop.run_until_complete(play()) <= 1024
