"""The gateway as a process under a service manager: what it announces, and how it stops with streams open."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.harness.client import RawClient, request
from gateway.harness.script import Event, Signal, WaitFor, json_answer, sse_answer
from gateway.harness.upstream import ScriptedUpstream

TOKEN = "service-test-token"
WATCHDOG = 0.4  # seconds; the gateway pings at half of it
START, STOP = 20.0, 10.0  # seconds of patience on a busy machine

# The unit's MemoryDenyWriteExecute, as the kernel offers it to any process (Linux 6.3; a no-op before): inherited by
# the gateway, so that everything here runs under it.
_UNDER_MDWE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"

INITIALIZED = json_answer(
    {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "scripted", "version": "1"},
    },
    headers={"Mcp-Session-Id": "upstream-session"},
)


class Manager:
    """The service manager's end of NOTIFY_SOCKET: remembers every state with the time of its arrival."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(str(path))
        self.received: list[tuple[float, str]] = []

    async def state(self, name: str, within: float) -> float:
        """When the next datagram with this line arrives."""
        async with asyncio.timeout(within):
            while True:
                datagram = (await asyncio.get_running_loop().sock_recv(self.socket, 4096)).decode()
                self.received.append((time.monotonic(), datagram))
                if name in datagram.split("\n"):
                    return self.received[-1][0]


@dataclass(frozen=True, slots=True)
class Service:
    """A running gateway."""

    process: asyncio.subprocess.Process
    manager: Manager
    data: str
    admin: str

    async def stopped(self) -> int:
        """The exit code."""
        async with asyncio.timeout(STOP):
            return await self.process.wait()


Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path, free_port: Callable[[], int]) -> Start:
    """``async with start(upstream, drain_timeout=...) as service``."""

    @asynccontextmanager
    async def start(upstream: ScriptedUpstream, **limits: float) -> AsyncIterator[Service]:
        data, admin = free_port(), free_port()
        configuration = {
            "listen": {"port": data},
            "admin": {"port": admin},
            "upstreams": {"scripted": {"url": upstream.url}},
            "clients": {"tester": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}},
            "policies": {"default": {"allowed_upstreams": ["scripted"], "allowed_tools": ["*"]}},
            "audit": {"path": str(tmp_path / "audit.jsonl")},
            "limits": limits,
        }
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps(configuration))
        manager = Manager(tmp_path / "notify")
        mcpgw = Path(sys.executable).parent / "mcpgw"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _UNDER_MDWE, str(mcpgw), "serve", "--config", str(file)),
            cwd=tmp_path,
            env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))},
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            await manager.state("READY=1", START)
            yield Service(process, manager, f"http://127.0.0.1:{data}/scripted/mcp", f"http://127.0.0.1:{admin}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            manager.socket.close()

    return start


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    script = {
        "initialize": INITIALIZED,
        "GET": sse_answer(Event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}), WaitFor("never")),
        "tools/call": sse_answer(Signal("called"), WaitFor("answer"), {"result": {"content": []}}),
    }
    async with ScriptedUpstream(script) as upstream:
        yield upstream


async def refused(url: str) -> None:
    """Until nobody listens there any more."""
    async with asyncio.timeout(STOP):
        for _ in range(1000):
            try:
                async with RawClient(url):
                    await asyncio.sleep(0.01)
            except OSError:
                return
    pytest.fail("the gateway still accepts connections")


async def test_ready_means_that_it_serves(start: Start, upstream: ScriptedUpstream) -> None:
    async with start(upstream) as service:
        async with RawClient(service.data, token=TOKEN) as client:
            assert (await client.initialize())["serverInfo"]["name"] == "scripted"
        for path in ("/healthz", "/readyz"):
            async with RawClient(service.admin + path) as client:
                assert (await client.get()).status == 200
        service.process.send_signal(signal.SIGTERM)
        assert await service.stopped() == 0


async def test_the_watchdog_is_fed(start: Start, upstream: ScriptedUpstream) -> None:
    async with start(upstream) as service:
        for _ in range(3):
            await service.manager.state("WATCHDOG=1", START)
        assert service.process.returncode is None


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_stream_ends_at_once_and_whole(
    start: Start, upstream: ScriptedUpstream, order: signal.Signals
) -> None:
    # Nothing is under way on a GET stream: waiting for the whole drain time would only delay the restart.
    async with start(upstream, drain_timeout=30) as service, RawClient(service.data, token=TOKEN) as client:
        await client.initialize()
        stream = await client.get()
        frame = await stream.frame(START)
        assert frame is not None
        service.process.send_signal(order)
        await service.manager.state("STOPPING=1", STOP)
        async for _ in stream.frames(STOP):
            pass
        assert stream.complete, stream.fault  # the last chunk arrived
        assert await service.stopped() == 0


async def test_a_call_may_end_while_the_gateway_drains(start: Start, upstream: ScriptedUpstream) -> None:
    async with start(upstream, drain_timeout=30) as service, RawClient(service.data, token=TOKEN) as client:
        await client.initialize()
        asked = asyncio.create_task(client.post(request("tools/call", {"name": "slow"}, id="a")))
        await upstream.signalled("called")
        service.process.send_signal(signal.SIGTERM)
        await service.manager.state("STOPPING=1", STOP)
        await refused(service.data)
        async with RawClient(service.admin + "/readyz") as probe:
            assert (await probe.get()).status == 503
        upstream.signal("answer")
        stream = await asked
        assert await stream.answer(STOP) == {"jsonrpc": "2.0", "id": "a", "result": {"content": []}}
        assert stream.complete, stream.fault
        assert await service.stopped() == 0


async def test_a_call_that_outlasts_the_drain_is_answered(start: Start, upstream: ScriptedUpstream) -> None:
    async with start(upstream, drain_timeout=0.5) as service, RawClient(service.data, token=TOKEN) as client:
        await client.initialize()
        asked = asyncio.create_task(client.post(request("tools/call", {"name": "slow"}, id=7)))
        await upstream.signalled("called")
        service.process.send_signal(signal.SIGTERM)
        stopping = await service.manager.state("STOPPING=1", STOP)
        stream = await asked
        answer = await stream.answer(STOP)
        assert (answer["id"], answer["error"]["data"]["reason"]) == (7, "draining")
        assert stream.complete, stream.fault
        assert await service.stopped() == 0
        # The unit allows 20 s beyond the drain; nothing here needs more than a moment.
        assert time.monotonic() - stopping < 0.5 + 5
