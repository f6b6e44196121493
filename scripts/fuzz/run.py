"""A run: processes that share the inputs of a target, what they say on the way, and how their memory grows."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

from .configurations import Configurations
from .connections import Connections
from .documents import Documents
from .event_streams import EventStreams
from .json_texts import JsonTexts
from .messages import Messages
from .target import Failure, Target

__all__ = ["DEFAULTS", "TARGETS", "Figures", "Grown", "Stuck", "fuzz"]

TARGETS: Mapping[str, type[Target]] = {
    each.name: each for each in (JsonTexts, EventStreams, Messages, Documents, Configurations, Connections)
}
# Inputs where nobody says how many: as many of each as take a few minutes on two processors, all together.
DEFAULTS: Mapping[str, int] = {
    "json": 1_000_000,
    "sse": 200_000,
    "messages": 200_000,
    "guard": 50_000,
    "config": 10_000,
    "http": 20_000,
}

# A third of the inputs fills what is bounded: caches, arenas, the interpreter's own.
WARM_UP = 1 / 3
MAX_GROWTH = 0.05
# Below this, a process has not seen enough to say that its memory has settled.
ENOUGH = 5_000
PATIENCE = 120.0
_REPORT_INTERVAL = 0.5
_PROGRESS_INTERVAL = 10.0


class Stuck(Exception):
    """A check that did not end, or ended its process.  ``index`` is its input's or that of the first of its batch."""

    def __init__(self, target: str, index: int, what: str) -> None:
        super().__init__(f"{target}: input {index} or one soon after it {what}")
        self.index = index


class Grown(Exception):
    """A process whose resident memory grew by more than MAX_GROWTH after it had warmed up."""


@dataclass
class Figures:
    """What became of one target: inputs, seconds, outcomes, and of each process the resident memory in bytes after its
    warm-up and at its end."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, int]] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def growth(self) -> float | None:
        """Of the process that grew most; None where too few inputs were seen to say."""
        return max((end / warm - 1 for warm, end in self.memory), default=None)

    def check_growth(self) -> None:
        """Raises Grown."""
        if self.growth is not None and self.growth > MAX_GROWTH:
            raise Grown(
                f"{self.target}: memory grew by {self.growth:.1%} after the warm-up, by {MAX_GROWTH:.0%} at most"
            )


def fuzz(target: str, inputs: int, seed: int, processes: int, say: Callable[[str], None]) -> Figures:
    """Check so many inputs of a target; ends early with the first failure.  Raises Stuck."""
    context = multiprocessing.get_context("spawn")
    figures = Figures(target)
    started = last = time.monotonic()
    shares = [range(inputs)[share::processes] for share in range(processes)]
    workers = {_start(context, target, seed, share): share for share in shares if share}
    done = dict.fromkeys(workers, 0)
    heard = dict.fromkeys(workers, started)
    open_ends = {worker.end: worker for worker in workers}
    try:
        while open_ends:
            for end in wait(open_ends, timeout=1.0):
                assert isinstance(end, Connection)
                worker = open_ends[end]
                heard[worker] = time.monotonic()
                try:
                    report: int | Figures = end.recv()
                except EOFError:
                    index = workers[worker][done[worker]]
                    raise Stuck(target, index, "ended its process: see above") from None
                if isinstance(report, int):
                    done[worker] = report
                    continue
                del open_ends[end]
                done[worker] = report.inputs
                figures.counts += report.counts
                figures.memory += report.memory
                if report.failure is not None:
                    figures.failure = report.failure
                    return figures
            now = time.monotonic()
            for worker in open_ends.values():
                if now - heard[worker] > PATIENCE:
                    raise Stuck(target, workers[worker][done[worker]], f"is not done after {PATIENCE:g} s")
            if now - last >= _PROGRESS_INTERVAL:
                last = now
                total = sum(done.values())
                say(f"{target}: {total:,} of {inputs:,} inputs, {total / (now - started):,.0f} a second")
        return figures
    finally:
        figures.inputs = sum(done.values())
        figures.seconds = time.monotonic() - started
        for worker in workers:
            worker.stop()


@dataclass(frozen=True, eq=False)
class _Worker:
    process: SpawnProcess
    end: Connection[Any, Any]

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.end.close()


def _start(context: SpawnContext, target: str, seed: int, share: range) -> _Worker:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(target, seed, share, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(name: str, seed: int, share: range, end: Connection[Any, Any]) -> None:
    """A process: its share of the inputs, batch by batch."""
    figures = Figures(name)
    warm = 0
    with TARGETS[name]() as target:
        reported = time.monotonic()
        while figures.inputs < len(share) and figures.failure is None:
            batch = share[figures.inputs : figures.inputs + target.batch]
            # Where it is stuck is shown on standard error before the parent gives up.
            faulthandler.dump_traceback_later(PATIENCE * 0.9)
            figures.failure = target.check_all(seed, batch)
            figures.inputs += len(batch)
            if not warm and figures.inputs >= len(share) * WARM_UP:
                warm = _resident()
            if time.monotonic() - reported > _REPORT_INTERVAL:
                reported = time.monotonic()
                end.send(figures.inputs)
        faulthandler.cancel_dump_traceback_later()
        figures.counts = target.counts
        if warm and len(share) >= ENOUGH:
            figures.memory.append((warm, _resident()))
    end.send(figures)
    end.close()


def _resident() -> int:
    """Resident memory in bytes, without what is free and only not given back yet."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
