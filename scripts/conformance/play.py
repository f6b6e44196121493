"""One subject of the suite, a server or a client, played with in one way: directly, or with the gateway between."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .checks import Check, Checks, read
from .programs import PROJECT, Failed, everything, gateway, suite, typescript

__all__ = ["CLIENT", "OWN_SERVER", "TYPESCRIPT", "Subject", "Via", "given"]

Via = Literal["direct", "gateway"]
TIMEOUT = 180.0
REVISIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
# How a client gets a token is between it and whoever gives tokens: the gateway takes its own alone, and sends none on.
NOT_PLAYED = "auth/"


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that the suite plays with.

    ``key``       what expected-differences.yaml calls it
    ``title``     what the table calls it
    ``start``     starts the server and gives its URL; None for the client
    ``perfect``   whether every check has to pass without the gateway
    ``revisions`` that it speaks
    """

    key: str
    title: str
    start: Callable[[Path], AbstractAsyncContextManager[str]] | None
    perfect: bool = False
    revisions: tuple[str, ...] = REVISIONS

    async def play(self, via: Via, folder: Path, only: Collection[tuple[str, str]] = ()) -> dict[str, Checks]:
        """What the suite finds, by revision.  ``only`` those scenarios (revision, scenario), all if there are none.

        Raises Failed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        if self.start is None:
            return await self._play_client(via, folder, only)
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(self.start(folder))
            if via == "gateway":
                url = await stack.enter_async_context(gateway(folder, url))
            return await self._play_server(url, folder, only)

    async def _play_server(self, url: str, folder: Path, only: Collection[tuple[str, str]]) -> dict[str, Checks]:
        for revision, which in sorted(only) or [(revision, "") for revision in self.revisions]:
            chosen = ("--scenario", which) if which else ("--suite", "all")
            output = ("--output-dir", folder / revision)
            code, words = await suite(
                "server", "--url", url, *chosen, "--spec-version", revision, *output, seconds=TIMEOUT
            )
            _keep(folder / f"{revision}.log", code, words)
        return {revision: read(folder / revision) for revision in self.revisions}

    async def _play_client(self, via: Via, folder: Path, only: Collection[tuple[str, str]]) -> dict[str, Checks]:
        # The suite takes the command apart at spaces, so that it must not hold a path.
        command = (
            "python -m tests.everything_server.client" if via == "direct" else "python -m scripts.conformance.through"
        )
        found: dict[str, Checks] = {revision: Counter() for revision in self.revisions}
        all_of_them = [(revision, which) for revision in self.revisions for which in await _scenarios(revision)]
        for revision, which in sorted(only) or all_of_them:
            output = folder / revision
            options = ("--scenario", which, "--spec-version", revision, "--output-dir", output)
            env = {"CONFORMANCE_LOGS": str(output)}
            code, words = await suite("client", "--command", command, *options, seconds=TIMEOUT, env=env)
            _keep(output / f"{which}.log", code, words)
            # Beside its checks the suite judges how the client ended.
            found[revision][Check(which, "overall", "PASSED" if code == 0 else "FAILED")] += 1
        return {revision: checks + read(folder / revision) for revision, checks in found.items()}


async def _scenarios(revision: str) -> list[str]:
    code, words = await suite("list", "--client", "--spec-version", revision, seconds=TIMEOUT)
    if code != 0:
        raise Failed(f"the suite does not list its scenarios:\n{words[-2000:]}")
    names = re.findall(r"^ *- (\S+) \[", words, re.MULTILINE)
    return [name for name in names if not name.startswith(NOT_PLAYED)]


def _keep(log: Path, code: int | None, words: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(words)
    if code is None:
        raise Failed(f"{words}; what it said so far is in {log.relative_to(PROJECT)}")


def given(url: str) -> Subject:
    """A server that is there already."""

    @contextlib.asynccontextmanager
    async def start(folder: Path) -> AsyncIterator[str]:
        yield url

    return Subject("upstream", url, start)


OWN_SERVER = Subject("server", "server (Python SDK, tests/everything_server)", everything, perfect=True)
# It does not know 2026-07-28: there the gateway answers much in its stead, and better.
TYPESCRIPT = Subject("typescript", "server (TypeScript SDK, server-everything)", typescript, revisions=REVISIONS[:3])
CLIENT = Subject("client", "client (Python SDK)", None, perfect=True)
