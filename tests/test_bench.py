"""The benchmark's pieces: the stub answers, the load generator tells right from wrong, the figures have their names."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.harness.client import RawClient, http_request
from scripts.bench import chart, table
from scripts.bench.goals import GOALS, judged
from scripts.bench.processes import NotStarted, Program, cores, unused_ports
from scripts.bench.programs import compiled
from scripts.bench.subjects import SUBJECTS

KEYS = {
    "calls_per_s",
    "cpu_us_per_call",
    "p50_ms",
    "p99_ms",
    "sse_events_per_s",
    "first_event_added_ms",
    "big_mb_per_s",
    "peak_rss_mib",
    "kib_per_idle_stream",
}


@pytest.fixture(autouse=True)
def compiler(needs: Callable[[str, str], str]) -> str:
    return needs("cc", "apt-get install gcc libc6-dev")


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[int]:
    (port,) = unused_ports(1)
    with Program([compiled("stub"), str(port)], tmp_path, cores()[1], os.environ) as program:
        program.await_port(port, 10)
        yield port


def load(*arguments: object, stdin: Any = subprocess.DEVNULL) -> dict[str, Any]:
    command = [str(compiled("load")), *map(str, arguments)]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def is_right(found: dict[str, Any]) -> bool:
    return not any(found[key] for key in ("wrong_status", "wrong_body", "broken", "unanswered"))


async def ask(port: int, body: dict[str, Any], chunked: bool = False) -> tuple[int, bytes]:
    data = json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Host": "127.0.0.1"}
    async with RawClient(f"http://127.0.0.1:{port}/mcp") as client:
        if chunked:
            pieces = [data[at : at + 10] for at in range(0, len(data), 10)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            await client.send(http_request("POST", "/mcp", {**fields, "Transfer-Encoding": "chunked"}) + framed)
        else:
            await client.send(http_request("POST", "/mcp", fields, data))
        response = await client.response()
        return response.status, await response.read()


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": "abc"}}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_stub_answers_calls(stub: int, chunked: bool) -> None:
    status, body = await ask(stub, call("get_weather", city="Oslo"), chunked)
    answer = json.loads(body)
    assert (status, answer["id"]) == (200, 7)
    assert "sunny in Oslo" in answer["result"]["content"][0]["text"]


async def test_the_stub_makes_events(stub: int) -> None:
    _, body = await ask(stub, call("get_events", count=20, rate=1000))
    *events, result = [json.loads(data) for data in re.findall(rb"^data: (.*)$", body, re.MULTILINE)]
    assert [event["params"]["progress"] for event in events] == list(range(1, 21))
    assert {event["params"]["progressToken"] for event in events} == {"abc"}
    assert result["result"]["content"][0]["text"] == "made 20 events"


@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("events", [0, 1])
async def test_the_stub_makes_reports(stub: int, size: int, events: int) -> None:
    _, body = await ask(stub, call("get_report", bytes=size, events=events))
    assert body.startswith(b"event: message\ndata: ") == bool(events)
    text = body[body.index(b'"text":"') + 8 : body.index(b'"}],"isError"')]
    assert len(text) == size
    assert json.loads(b'"' + text + b'"')


def test_the_load_counts_what_is_right(stub: int) -> None:
    found = load("calls", stub, "/mcp", 4, 0.1)
    assert is_right(found)
    assert found["done"] > 4
    for arguments, done, events in (
        (("flood", stub, "/mcp", 5, 300), 5, 1500),
        (("first", stub, "/mcp", 3), 3, 9),
        (("report", stub, "/mcp", 1_000_000, 2, 0), 2, 0),
        (("report", stub, "/mcp", 1_000_000, 2, 1), 2, 0),
        (("idle", stub, "/mcp", 10), 10, 0),
    ):
        found = load(*arguments)
        assert is_right(found), found
        assert (found["done"], found["events"]) == (done, events)


WEATHER = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"It is 21 degrees"}],"isError":false}}'


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "wrong_body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(WEATHER), WEATHER), "wrong_body"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "wrong_status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "broken"),
        (b"", "broken"),
    ],
)
def test_the_load_counts_what_is_wrong(answer: bytes, counted: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        found = load("calls", listener.getsockname()[1], "/mcp", 1, 0)
        thread.join(10)
    assert (found["done"], found[counted]) == (0, 1)


def test_a_changed_report_is_not_the_right_one(stub: int) -> None:
    # Between the two, one byte of the text becomes another.
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, socket.create_connection(("127.0.0.1", stub)) as upstream:
                upstream.sendall(connection.recv(4096))
                received = b""
                while len(received) < 100_000:
                    received += upstream.recv(65536)
                connection.sendall(received[:60_000] + b"#" + received[60_001:])

        thread = threading.Thread(target=serve)
        thread.start()
        found = load("report", listener.getsockname()[1], "/mcp", 100_000, 1, 0)
        thread.join(10)
    assert (found["done"], found["wrong_body"]) == (0, 1)


def test_a_program_that_ends_is_told(tmp_path: Path) -> None:
    with (
        Program(
            [sys.executable, "-c", "print('no'); raise SystemExit(3)"], tmp_path, cores()[0], os.environ
        ) as program,
        pytest.raises(NotStarted, match=r"status 3: no"),
    ):
        program.await_port(unused_ports(1)[0], 10)


def test_all_that_a_program_started_ends_with_it(tmp_path: Path) -> None:
    with Program(["sh", "-c", "sleep 100 & echo $!; wait"], tmp_path, cores()[0], os.environ) as program:
        while not program.words().strip():
            program.must_run()
        child = int(program.words())
        assert Path(f"/proc/{child}").exists()
        assert program.resident() > 0
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_look_writes_all_figures(tmp_path: Path, project: Path) -> None:
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.bench", "--quick", "--subjects", "direct", "--only", "calls,big"),
            *("--json", figures, "--chart", picture),
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "direct" in done.stdout
    document = json.loads(figures.read_text())
    assert set(document) == {"subjects", "goals", "failures", "machine", "run"}
    direct = document["subjects"]["direct"]
    assert set(direct["calls_per_s"]) == {"1", "16", "64", "256"}
    assert direct["big_mb_per_s"] > 0
    assert [goal["met"] for goal in document["goals"]] == [None] * len(GOALS)
    assert ET.parse(picture).getroot().tag.endswith("svg")


def results() -> dict[str, dict[str, Any]]:
    levels = {"1": 2.0, "16": 4.0}
    measured: dict[str, Any] = {
        "calls_per_s": levels,
        "cpu_us_per_call": levels,
        "p50_ms": levels,
        "p99_ms": levels,
        "sse_events_per_s": {"1": 5.0, "50": 6.0},
        "flood_cpu_us_per_event": {"tenth": 2.0, "1": 2.2, "50": 3.0},
        "first_event_ms": 1.0,
        "first_event_added_ms": 0.5,
        "event_p50_ms": {"1": 1.0, "1000": 2.0},
        "event_p99_ms": {"1": 1.0, "1000": 2.0},
        "cpu_us_per_event": {"1": 30.0, "1000": 60.0},
        "big_mb_per_s": 199.0,
        "big": {
            "10MB": {"mb_per_s": 199.0, "peak_rss_mib": 3.0, "cpu_ms_per_mb": 2.0},
            "1GB": {"mb_per_s": 150.0, "peak_rss_mib": 12.0, "cpu_ms_per_mb": 2.5},
            "1GB-event": {"refused": "limits.max_message_size"},
        },
        "peak_rss_mib": 12.0,
        "kib_per_idle_stream": 18.0,
    }
    return {subject.name: dict(measured) for subject in SUBJECTS}


def test_goals_are_ratios_within_one_run() -> None:
    found = results()
    found["aiohttp-relay"]["cpu_us_per_call"] = {"16": 10.0}
    by_name = {goal["goal"]: goal for goal in judged(found)}
    assert by_name["full lane: calls per CPU second / aiohttp-relay"]["measured"] == 2.5
    assert by_name["full lane: calls per CPU second / aiohttp-relay"]["met"] is True
    assert by_name["short lane: calls per CPU second / aiohttp-relay"]["met"] is False
    assert by_name["10 MB result"]["met"] is False
    assert by_name["largest result, memory above idle"]["met"] is True
    assert by_name["CPU per event, most streams / one"]["measured"] == 2.0
    del found["nginx"]
    assert [goal["met"] for goal in judged(found) if "nginx" in goal["goal"]] == [None]


def test_tables_and_chart_show_what_there_is() -> None:
    found = results()
    del found["nginx"]["sse_events_per_s"]
    text = table.text(found, judged(found), {"haproxy": "haproxy is not installed"})
    assert "refused" in text
    assert "MISSED" in text
    assert text.endswith("FAILED haproxy: haproxy is not installed")
    drawn = ET.fromstring(chart.svg(found))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "gateway-durable" in texts
    assert set(found["gateway"]) >= KEYS
