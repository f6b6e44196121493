"""Processes of a run: started in a group of their own, kept on one core, measured by what /proc says, and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["NotStarted", "Program", "cores", "unused_ports"]

PROC = Path("/proc")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT = 10.0
_PR_SET_PDEATHSIG = 1


class NotStarted(Exception):
    """A program could not be started, or ended at once; the message has its last words."""


def cores() -> tuple[set[int], set[int]]:
    """The core of what is measured, and the core of load and stub; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, {usable[1] if len(usable) > 1 else usable[0]}


def unused_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses at the moment; all differ."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


class Program:
    """A running program and all that it started.  Its output goes to ``FOLDER/output``.

    Used as a context manager, it has ended when the block is left.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, core: set[int], environment: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                # Ctrl-C is for the benchmark, which then ends the group; what the group starts stays on its core.
                start_new_session=True,
                preexec_fn=lambda: _settle(core),
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        # Also what the program left behind.
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def words(self) -> str:
        """What the program has printed, the last of it."""
        return self.output.read_text(errors="replace")[-2000:]

    def must_run(self) -> None:
        """Raises NotStarted if the program has ended."""
        if self._process.poll() is not None:
            raise NotStarted(f"it ended with status {self._process.returncode}: {self.words().strip()}")

    def await_port(self, port: int, timeout: float) -> None:
        """Returns when something listens; raises NotStarted."""
        end = time.monotonic() + timeout
        while True:
            self.must_run()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            if time.monotonic() > end:
                raise NotStarted(f"nothing listens on its port after {timeout:g} s: {self.words().strip()}")
            time.sleep(0.02)

    # -- what it takes -------------------------------------------------------------------------------------------------

    def _pids(self) -> Iterator[int]:
        """The processes of the session that the program began."""
        for entry in PROC.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    # After the name, which may hold anything: state, parent, group, session.
                    if int(_stat(entry)[3]) == self._process.pid:
                        yield int(entry.name)

    def cpu(self) -> float:
        """Seconds of processor time that its processes have used, in nanoseconds where the kernel counts them."""
        return sum(map(_cpu, self._pids()))

    def resident(self) -> int:
        """Bytes of memory that its processes hold."""
        return sum(_status(pid, "VmRSS") for pid in self._pids())

    def forget_peak(self) -> None:
        """Lets :meth:`peak` begin anew."""
        for pid in self._pids():
            with contextlib.suppress(OSError):
                PROC.joinpath(str(pid), "clear_refs").write_text("5")

    def peak(self) -> int:
        """Most bytes of memory since :meth:`forget_peak`; of several processes, the sum of their peaks."""
        return sum(_status(pid, "VmHWM") for pid in self._pids())


def _settle(core: set[int]) -> None:
    os.sched_setaffinity(0, core)
    # Even a benchmark that was killed leaves nothing behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stat(folder: Path) -> list[str]:
    return folder.joinpath("stat").read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    folder = PROC / str(pid)
    with contextlib.suppress(OSError, ValueError, IndexError):
        # utime and stime come in ticks of 10 ms; the scheduler's own count is finer, but forgets threads that ended.
        ticks = _stat(folder)
        coarse = (int(ticks[11]) + int(ticks[12])) * TICK
        fine = sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in folder.joinpath("task").iterdir())
        return fine / 1e9 if abs(fine / 1e9 - coarse) < 2 * TICK + 0.01 * coarse else coarse
    return 0.0


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", PROC.joinpath(str(pid), "status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
