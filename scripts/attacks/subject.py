"""The gateway under test: a process of its own, with its audit file, its log, its metrics and its memory in sight."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from gateway.harness.client import RawClient, http_request
from gateway.harness.upstream import unused_port

__all__ = ["NotStarted", "Subject", "gateway"]

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
PROC = Path("/proc")


class NotStarted(Exception):
    """The gateway could not be started; the message has its last words."""


class Subject:
    """A running gateway: ``url`` of its data port without a path, ``pid``, and what it writes."""

    def __init__(self, process: Process, url: str, admin_port: int, folder: Path) -> None:
        self.pid = process.pid
        self.url = url
        self._admin = f"http://127.0.0.1:{admin_port}/metrics"
        self._files = (folder / "audit.jsonl", folder / "gateway.log")

    def written(self) -> tuple[int, int]:
        """Sizes of the audit file and the log: a mark for :meth:`since`."""
        audit, log = (file.stat().st_size if file.exists() else 0 for file in self._files)
        return audit, log

    def since(self, mark: tuple[int, int]) -> tuple[str, str]:
        """What was written to the audit file and to the log after the mark."""
        audit, log = (_tail(file, start) for file, start in zip(self._files, mark, strict=True))
        return audit, log

    async def metrics(self) -> str:
        """The metrics page."""
        async with RawClient(self._admin) as client:
            await client.send(http_request("GET", "/metrics", {"Host": client.authority}))
            return (await (await client.response()).read()).decode()

    def memory(self) -> int:
        """Resident memory in bytes."""
        return self._status("VmRSS")

    def forget_peak(self) -> None:
        """Lets :meth:`peak` begin anew."""
        PROC.joinpath(str(self.pid), "clear_refs").write_text("5")

    def peak(self) -> int:
        """Most resident memory since :meth:`forget_peak`, in bytes."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        text = PROC.joinpath(str(self.pid), "status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


def _tail(file: Path, start: int) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode(errors="replace")


@contextlib.asynccontextmanager
async def gateway(configuration: dict[str, Any], folder: Path) -> AsyncIterator[Subject]:
    """Starts ``mcpgw serve`` in a folder of its own; ends it with the block.  Raises NotStarted."""
    admin_port = unused_port()
    configuration = configuration | {"admin": {"port": admin_port}}
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False))
    with (folder / "gateway.log").open("wb") as log:
        command = (Path(sys.executable).parent / "mcpgw", "serve", "--config", file)
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log, cwd=folder)
    try:
        yield Subject(process, await _address(process, folder), admin_port, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _address(process: Process, folder: Path) -> str:
    """The data port, from the first endpoint that the gateway prints."""
    line = b""
    if process.stdout is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                line = await process.stdout.readline()
    found = re.search(r"http://[\d.]+:\d+", line.decode())
    if found is None:
        words = (folder / "gateway.log").read_text(errors="replace")[-2000:]
        raise NotStarted(f"the gateway did not start:\n{words}")
    return found[0]
