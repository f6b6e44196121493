"""``python -m scripts.instructions.workload NAME...``: does fixed work over and over, to be counted by callgrind.

Each workload is done N times and then twice as often.  Between these parts stands a call of ``getppid``, which nothing
else here makes: callgrind writes down its count whenever it sees one.  The difference of the two parts is what N times
cost, and what surrounds them cancels out.
"""

from __future__ import annotations

import datetime
import gc
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from multidict import CIMultiDict

from gateway.config.load import validate
from gateway.config.model import Policy
from gateway.guard.hook import Exchange
from gateway.guard.sanitize import SanitizeHook
from gateway.protocol.message import Call, Message, Sender
from gateway.record.audit import Audit
from gateway.record.entry import entry
from gateway.relay.exchange import Answer
from gateway.relay.gate import Head
from gateway.relay.post import Post
from gateway.relay.site import Site
from gateway.wire.envelope import classify
from gateway.wire.incremental import Reader
from gateway.wire.sse import Decoder
from gateway.wire.strict import Limits, Twins, parse

__all__ = ["MARK", "WORKLOADS", "Workload"]

# The function at whose calls callgrind writes its count, and how often that is in one workload.
MARK = "getppid"
# The interpreter specialises code that has run a few times, and memories fill.
WARM_UP = 40

TOKEN = "workload-token-0000000000000000000000001"  # noqa: S105 - of this program alone
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LIMITS = Limits(depth=64, nodes=250_000, number_chars=128)
PROSE = (
    "The harbour lies at the end of the old road. In the morning the boats come back, and whoever wants fish has to be "
    "there before nine; later there is only what nobody wanted. "
)

Operation = Callable[[], object]


class Workload(NamedTuple):
    """``make`` gives the operation, for which it may leave files in a folder; ``times`` is N."""

    make: Callable[[Path], Operation]
    times: int


# -- the exchange core ------------------------------------------------------------------------------------------------


def _site(folder: Path) -> Site:
    policy = {"allowed_upstreams": ["up"], "allowed_tools": ["get_*"], "max_requests_per_minute": None}
    document = {
        "upstreams": {"up": {"url": "http://127.0.0.1:9/mcp"}},
        "clients": {"alice": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}},
        "policies": {"default": policy},
        "hooks": [
            "policy",
            "arguments",
            {"kind": "pins", "options": {"folder": str(folder / "pins"), "learn": True}},
            "sanitize",
        ],
        "audit": {"path": str(folder / "audit.jsonl"), "mode": "best_effort"},
    }
    site = Site.of(validate(document, source="workload"))
    site.audit.open()
    return site


def _post(site: Site, body: bytes) -> Post:
    """A client's message that has been judged and would go upstream now."""
    fields = {
        "Host": "127.0.0.1:8080",
        "Authorization": f"Bearer {TOKEN}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    head = Head("POST", "/up/mcp", (1, 1), CIMultiDict(fields), "127.0.0.1")
    exchange = Post(site, head, "r-1", 1.0)
    exchange.upstream = site.gate.route(head)
    exchange.admit(site.gate.identify(head, NOW), 1.0)
    exchange.feed(body)
    assert exchange.complete(1.0) is not None
    return exchange


def _json_answer(site: Site, request: Mapping[str, Any], answer: Mapping[str, Any]) -> Operation:
    body, answer_body = _dumps(request), _dumps(answer)
    fields = CIMultiDict({"Content-Type": "application/json", "Content-Length": str(len(answer_body))})

    def exchange() -> None:
        post = _post(site, body)
        assert post.answer_head(200, fields, 1.0) is Answer.COLLECT
        post.collect(answer_body, 1.0)
        reply = post.finish(1.0)
        assert reply is not None and reply.body == answer_body
        post.close(1.0)

    return exchange


CALL = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {"name": "get_weather", "arguments": {"city": "Oslo"}, "_meta": {"progressToken": "p"}},
}
RESULT = {
    "jsonrpc": "2.0",
    "id": 7,
    "result": {"content": [{"type": "text", "text": "It is 21 degrees and sunny in Oslo today."}], "isError": False},
}
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_TOOL = {"name": "get_weather", "description": "The weather of a city.", "inputSchema": _SCHEMA}


def _listed(folder: Path) -> Site:
    """A site whose upstream has shown its tools, so that calls are judged by what is known of them."""
    site = _site(folder)
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    _json_answer(site, request, {"jsonrpc": "2.0", "id": 1, "result": {"tools": [_TOOL]}})()
    return site


def _call(folder: Path) -> Operation:
    return _json_answer(_listed(folder), CALL, RESULT)


def _streamed_call(folder: Path) -> Operation:
    site, body = _listed(folder), _dumps(CALL)
    fields = CIMultiDict({"Content-Type": "text/event-stream"})
    steps = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "p", "progress": step}}
        for step in range(10)
    ]
    events = [b"event: message\ndata: " + _dumps(each) + b"\n\n" for each in (*steps, RESULT)]

    def exchange() -> None:
        post = _post(site, body)
        assert post.answer_head(200, fields, 1.0) is Answer.STREAM
        for event in events:
            assert post.receive(event, 1.0)
        assert post.done
        post.end()
        post.close(1.0)

    return exchange


# -- its parts --------------------------------------------------------------------------------------------------------


def _parse(size: int) -> Callable[[Path], Operation]:
    data = _dumps(_result(size, lambda number: f"{PROSE[number % 90 :][:60]} {number}"))
    return lambda _: lambda: parse(data, LIMITS, twins=Twins.PROTOCOL)


def _events(_: Path) -> Operation:
    stream = b"".join(b"event: message\ndata: " + _dumps({**CALL, "id": number}) + b"\n\n" for number in range(1000))

    def decode() -> None:
        assert len(Decoder(1 << 20, 1 << 20).feed(stream)) == 1000

    return decode


def _sanitize(size: int) -> Callable[[Path], Operation]:
    document = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": _prose(size)}]}}
    message = Message(classify(document), document, Sender.SERVER, Call(7, "tools/call", "get_weather"))
    policy = Policy()

    def make(_: Path) -> Operation:
        hook = SanitizeHook()
        return lambda: hook.on_message(message, Exchange("r-1", "alice", "up", "default", policy))

    return make


def _audit(folder: Path) -> Operation:
    audit = Audit(folder / "audit.jsonl", "best_effort")
    audit.open()

    def write() -> None:
        record = entry(
            "request.accepted", request="r-1", client="alice", upstream="up", revision="2025-11-25",
            method="tools/call", name="get_weather", decision="allow",
            arguments=({"city": "string(4)"}, "sha256:" + "0" * 64), bytes_in=106,
        )  # fmt: skip
        audit.write(record)

    return write


def _read(_: Path) -> Operation:
    data = _dumps(_result(100_000, lambda number: _prose(200) + str(number)))

    def read() -> None:
        reader = Reader(LIMITS, Twins.PROTOCOL, every_string=True)
        for at in range(0, len(data), 16384):
            reader.feed(data[at : at + 16384])
        reader.finish()

    return read


def _result(size: int, text: Callable[[int], str]) -> Mapping[str, Any]:
    """A result of about so many bytes."""
    blocks: list[Any] = []
    document = {"jsonrpc": "2.0", "id": 7, "result": {"content": blocks, "isError": False}}
    while not blocks or len(_dumps(document)) < size:
        blocks.append({"type": "text", "text": text(len(blocks))})
    return document


def _prose(size: int) -> str:
    return (PROSE * (size // len(PROSE) + 1))[:size]


def _dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


WORKLOADS: Mapping[str, Workload] = {
    "call, JSON answer": Workload(_call, 20),
    "call, 10 progress events": Workload(_streamed_call, 10),
    "strict.parse, 300 B": Workload(_parse(300), 200),
    "strict.parse, 10 KB": Workload(_parse(10_000), 20),
    "sse.Decoder, 1000 events": Workload(_events, 2),
    "sanitize, 300 B": Workload(_sanitize(300), 100),
    "sanitize, 10 KB": Workload(_sanitize(10_000), 20),
    "audit, one entry": Workload(_audit, 100),
    "Reader, 100 KB": Workload(_read, 1),
}


def _run(workload: Workload) -> None:
    with tempfile.TemporaryDirectory() as folder:
        operation = workload.make(Path(folder))
        for _ in range(max(3, min(WARM_UP, 2 * workload.times))):
            operation()
        # A collection in one part and not in the other would be what is measured.
        gc.collect()
        gc.disable()
        os.getppid()
        for _ in range(workload.times):
            operation()
        os.getppid()
        for _ in range(2 * workload.times):
            operation()
        os.getppid()
        gc.enable()


def main(names: Sequence[str]) -> None:
    """Does the workloads of these names, in this order."""
    for name in names:
        _run(WORKLOADS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
