"""Starts the weather server and the gateway for the tour, and ends them, whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["PROJECT", "Stage", "StageError", "opened"]

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = Path("config") / "gateway.yaml"
AUDIT = PROJECT / "var" / "audit.jsonl"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
_PR_SET_PDEATHSIG = 1


class StageError(Exception):
    """Something did not start; the message says what and shows its last words."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and the secrets of this run: made anew every time, so that none is ever in a file."""

    gateway: str
    admin: str
    weather: str
    audit: Path = AUDIT
    demo_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    guest_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    weather_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def endpoint(self) -> str:
        """What MCP clients of the weather server use."""
        return f"{self.gateway}/weather/mcp"

    def environment(self) -> dict[str, str]:
        """What config/gateway.yaml takes from the environment."""
        return {
            "MCPGW_PORT": self.gateway.rpartition(":")[2],
            "MCPGW_ADMIN_PORT": self.admin.rpartition(":")[2],
            "WEATHER_URL": self.weather,
            "WEATHER_TOKEN": self.weather_token,
            "MCPGW_DEMO_TOKEN_SHA256": hashlib.sha256(self.demo_token.encode()).hexdigest(),
            "MCPGW_GUEST_TOKEN_SHA256": hashlib.sha256(self.guest_token.encode()).hexdigest(),
        }


@contextlib.contextmanager
def opened() -> Iterator[Stage]:
    """Server and gateway, ready to be called; both have ended when the block is left.

    Raises StageError when one does not start.
    """
    ports = _ports(8080, 9090, 9001)
    gateway, admin, weather = (f"http://127.0.0.1:{port}" for port in ports)
    stage = Stage(gateway, admin, f"{weather}/mcp")
    environment = stage.environment()
    server = [sys.executable, str(PROJECT / "scripts" / "demo" / "weather_server.py"), "--port", str(ports[2])]
    with _child("the weather server", server, environment) as (process, log):
        _await(process, log, "the weather server", lambda: "ready" in _words(log))
        command = [str(Path(sysconfig.get_path("scripts")) / "mcpgw"), "serve", "--config", str(CONFIG)]
        with _child("the gateway", command, environment) as (process, log):
            _await(process, log, "the gateway", lambda: _is_ready(f"{admin}/readyz"))
            yield stage


def _ports(*preferred: int) -> list[int]:
    """The preferred ports, with any free one in the place of one that is taken.  All differ."""
    with contextlib.ExitStack() as held:
        found = []
        for port in preferred:
            try:
                listener = socket.create_server(("127.0.0.1", port))
            except OSError:
                listener = socket.create_server(("127.0.0.1", 0))
            held.enter_context(listener)
            found.append(int(listener.getsockname()[1]))
        return found


@contextlib.contextmanager
def _child(
    name: str, command: list[str], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT,
            env={**os.environ, **environment},
            # Ctrl-C is for the tour alone, which then ends its children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                print(f"{name} did not stop within {STOP_TIMEOUT:g} s and was killed", file=sys.stderr)
                process.kill()
                process.wait()


def _end_with_parent() -> None:
    # Even a tour that was killed leaves nothing behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _words(log: IO[bytes]) -> str:
    # The children write to the same open file: read it without moving their place in it.
    return os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - always http on loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def _await(process: subprocess.Popen[bytes], log: IO[bytes], name: str, is_ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while not is_ready():
        if process.poll() is not None:
            raise StageError(f"{name} ended with status {process.returncode}:\n{_words(log)[-2000:]}")
        if time.monotonic() > end:
            raise StageError(f"{name} was not ready within {START_TIMEOUT:g} s:\n{_words(log)[-2000:]}")
        time.sleep(0.05)
