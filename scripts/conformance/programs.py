"""The programs that are needed: installed from the lock file, started on free ports of loopback, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import signal
import sys
import sysconfig
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["BUILD", "PROJECT", "Failed", "everything", "gateway", "install", "run", "suite", "typescript"]

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
BUILD = PROJECT / "build" / "conformance"
PACKAGES = BUILD / "node_modules"
# The suite needs Node.js 22 or later, which the lock file brings: systems have older ones.
NODE = PACKAGES / "node" / "bin" / "node"
LOOPBACK = PROJECT / "tests" / "end_to_end" / "sdk" / "ts" / "loopback.cjs"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
INSTALL_TIMEOUT = 300.0
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something that is needed could not be had; the message says what, with its last words."""


async def install() -> None:
    """Have the packages of package-lock.json in build/conformance.  No network is needed when they are there already.

    Raises Failed.
    """
    stamp = BUILD / "installed.json"
    lock = (HERE / "package-lock.json").read_bytes()
    if stamp.exists() and stamp.read_bytes() == lock:
        return
    if shutil.which("npm") is None:
        raise Failed("npm is needed: it comes with Node.js, see https://nodejs.org/")
    print("installing the suite into build/conformance", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, BUILD / name)
    code, words = await run("npm", "ci", "--no-audit", "--no-fund", seconds=INSTALL_TIMEOUT, cwd=BUILD)
    if code != 0 or not NODE.exists():
        raise Failed(f"npm could not install the suite, is there a network?\n{words[-2000:]}")
    stamp.write_bytes(lock)


async def suite(*arguments: str | Path, seconds: float, env: Mapping[str, str] | None = None) -> tuple[int | None, str]:
    """Call the suite: as ``run``."""
    program = PACKAGES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    return await run(NODE, program, *arguments, seconds=seconds, env=env)


async def run(
    *command: str | Path, seconds: float, cwd: Path = PROJECT, env: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit status and output; no status when it took longer than that many seconds.  Its children end with it."""
    child = await _start(command, PIPE, cwd, env)
    try:
        async with asyncio.timeout(seconds):
            words, _ = await child.communicate()
    except TimeoutError:
        return None, f"{Path(command[0]).name} took longer than {seconds:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    return child.returncode, words.decode(errors="replace")


@contextlib.asynccontextmanager
async def everything(logs: Path) -> AsyncIterator[str]:
    """The project's own server on the Python SDK, with all that the suite asks for: its URL."""
    command = (sys.executable, "-m", "tests.everything_server", "--port", "0")
    async with _started(command, logs / "everything.log", r"^ready (\S+)$") as url:
        yield url


@contextlib.asynccontextmanager
async def typescript(logs: Path) -> AsyncIterator[str]:
    """The reference server on the TypeScript SDK, kept to the loopback interface: its URL."""
    server = PACKAGES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    command = (NODE, "--require", LOOPBACK, server, "streamableHttp")
    async with _started(command, logs / "server-everything.log", r"^listening on (\S+)$", {"PORT": "0"}) as url:
        yield f"{url}/mcp"


@contextlib.asynccontextmanager
async def gateway(logs: Path, upstream: str) -> AsyncIterator[str]:
    """The gateway in front of a server: the URL for clients."""
    command = (Path(sysconfig.get_path("scripts")) / "mcpgw", "serve", "--config", HERE / "gateway.yaml")
    env = {"CONFORMANCE_UPSTREAM": upstream, "CONFORMANCE_AUDIT": str(logs / "audit.jsonl")}
    async with _started(command, logs / "gateway.log", r"^conformance (\S+)$", env) as url:
        yield url


@contextlib.asynccontextmanager
async def _started(
    command: Sequence[str | Path], log: Path, ready: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """A child process that has said where it listens, and has ended when the block is left.  Raises Failed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        child = await _start(command, out, PROJECT, env)
    try:
        yield await _announced(child, log, re.compile(ready, re.MULTILINE))
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await child.wait()
        except TimeoutError:
            print(f"{log.stem} did not stop within {STOP_TIMEOUT:g} s and was killed", file=sys.stderr)
            child.kill()
            await child.wait()


async def _announced(child: Process, log: Path, ready: re.Pattern[str]) -> str:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                # What follows the last line end is not complete yet.
                found = ready.search(_words(log).rpartition("\n")[0])
                if found:
                    return found[1]
                if child.returncode is not None:
                    break
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise Failed(f"{log.stem} did not start:\n{_words(log)[-2000:]}")


def _words(log: Path) -> str:
    return log.read_text(errors="replace")


async def _start(
    command: Sequence[str | Path], out: int | IO[bytes], cwd: Path, env: Mapping[str, str] | None
) -> Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=out,
        stderr=STDOUT,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        # Ctrl-C is for this program alone, which then ends its children in order.
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    # Even a run that was killed leaves nothing behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
