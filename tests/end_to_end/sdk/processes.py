"""The programs that the interop tests talk to, each a process of its own on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

__all__ = ["everything_server", "free_port", "gateway", "install", "program", "weather_server"]

HERE = Path(__file__).parent
TS = HERE / "ts"
PROJECT = HERE.parents[2]
START_TIMEOUT = 20.0


def free_port() -> int:
    """A port that nobody listened on a moment ago, for programs that cannot be asked which one they took."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def install(npm: str) -> str | None:
    """Have the packages of ts/package-lock.json.  Returns what went wrong, None if nothing did."""
    wanted, present = TS / "package-lock.json", TS / "node_modules" / ".package-lock.json"
    if present.exists() and present.stat().st_mtime >= wanted.stat().st_mtime:
        return None
    done = subprocess.run(
        [npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=TS, capture_output=True, text=True, timeout=100
    )
    if done.returncode == 0:
        present.touch()
        return None
    return (done.stderr.strip().splitlines() or ["npm ci failed"])[-1]


@contextlib.contextmanager
def program(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that writes to ``log`` and has ended when the block is left."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=PROJECT,
            env={**os.environ, **(env or {})},
            # A group of its own: `node` may be a program that starts the real one, and both must end.
            start_new_session=True,
        )
    try:
        yield child
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=10)


def _wait_for_line(child: subprocess.Popen[bytes], log: Path, start: str) -> str:
    """The rest of the line in ``log`` that begins with ``start``."""
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end and child.poll() is None:
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith(start) and line.endswith("\n"):
                return line[len(start) :].strip()
        time.sleep(0.02)
    raise AssertionError(f"{child.args!r} did not get ready:\n{log.read_text(errors='replace')[-4000:]}")


@contextlib.contextmanager
def weather_server(logs: Path, token: str) -> Iterator[str]:
    """The demonstration's server on the Python SDK: its URL."""
    log = logs / "weather.log"
    command = (sys.executable, PROJECT / "scripts" / "demo" / "weather_server.py", "--port", "0")
    with program(command, log, env={"WEATHER_TOKEN": token}) as child:
        yield _wait_for_line(child, log, "ready ")


@contextlib.contextmanager
def everything_server(
    logs: Path, node: str, transport: Literal["streamableHttp", "sse"] = "streamableHttp"
) -> Iterator[str]:
    """The reference server on the TypeScript SDK: its URL.  On its own it would listen on all interfaces."""
    log = logs / "everything.log"
    server = TS / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    command = (node, "--require", TS / "loopback.cjs", server, transport)
    with program(command, log, env={"PORT": "0"}) as child:
        yield _wait_for_line(child, log, "listening on ") + ("/sse" if transport == "sse" else "/mcp")


@contextlib.contextmanager
def gateway(logs: Path, configuration: Path, admin: str, env: Mapping[str, str]) -> Iterator[None]:
    """The gateway with this configuration, ready to serve."""
    log = logs / "gateway.log"
    command = (Path(sysconfig.get_path("scripts")) / "mcpgw", "serve", "--config", configuration)
    with program(command, log, env=env) as child:
        end = time.monotonic() + START_TIMEOUT
        while True:
            # URLError is an OSError; so is the HTTPError of a gateway that is not ready yet.
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{admin}/readyz", timeout=1):
                break
            if child.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the gateway did not get ready:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield
