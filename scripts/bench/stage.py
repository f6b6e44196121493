"""The stub, the subjects in front of it, and the load: what runs while something is measured."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import NotStarted, Program, cores, unused_ports
from .programs import BUILD, compiled, find
from .subjects import Place, Subject, environment, warm

__all__ = ["Failed", "Running", "Stage", "opened"]

START_TIMEOUT = 30.0
LOAD_TIMEOUT = 150.0
# Seconds in which one more paced stream can be opened, and the least for all; what happens meanwhile is not measured.
OPENING = 0.01
OPENING_ALL = 0.5
WRONG = ("wrong_status", "wrong_body", "broken", "unanswered")


class Failed(Exception):
    """A subject's answers were not right; the message shows one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A subject that has been started, with the port to call; ``program`` is None for the direct one."""

    subject: Subject
    port: int
    program: Program | None

    def environment(self) -> dict[str, str]:
        """What the load generator is given."""
        fields = {"Mcp-Protocol-Version": "2025-11-25", **self.subject.fields}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return {**os.environ, "BENCH_FIELDS": lines} | ({"BENCH_LOOSE": "1"} if self.subject.is_loose else {})

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return self.program.cpu() if self.program else 0.0


class Stage:
    """The stub's port, and the subjects that run; those that failed are out, with the reason."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.running: dict[str, Running] = {}
        self.failed: dict[str, str] = {}
        self._load = compiled("load")

    def command(self, running: Running, kind: str, *arguments: object) -> list[str]:
        """The load generator's command line."""
        return [str(self._load), kind, str(running.port), running.subject.path, *map(str, arguments)]

    def load(self, running: Running, kind: str, *arguments: object) -> dict[str, Any]:
        """What the load generator found, with ``cpu``: seconds that the subject used for it.

        Raises Failed when an answer was wrong or missing.
        """
        before = running.cpu()
        done = subprocess.run(
            self.command(running, kind, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=running.environment(),
            check=False,
            timeout=LOAD_TIMEOUT,
            preexec_fn=on_other_core,
        )
        if done.returncode != 0:
            raise Failed(f"load {kind}: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found["cpu"] = running.cpu() - before
        judge(kind, found)
        return found

    def paced(self, running: Running, streams: int, pace: float, seconds: float) -> dict[str, Any]:
        """Streams with ``pace`` events a second altogether; ``cpu`` is that of ``seconds`` after all were opened.

        Raises Failed when an answer was wrong or missing.
        """
        whole = OPENING_ALL + OPENING * streams + seconds
        begun = time.monotonic()
        with subprocess.Popen(
            self.command(running, "streams", streams, pace / streams, whole),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=running.environment(),
            preexec_fn=on_other_core,
        ) as load:
            try:
                assert load.stdout is not None
                if not select.select([load.stdout], [], [], whole)[0] or load.stdout.readline() != b"open\n":
                    raise Failed(f"load streams: {streams} streams were not open in time")
                # Those opened first must not end before the last figure is taken.
                if (late := time.monotonic() - begun) > whole - seconds:
                    raise Failed(f"load streams: opening {streams} streams took {late:.1f} s")
                before, start = running.cpu(), time.monotonic()
                time.sleep(seconds)
                cpu, passed = running.cpu() - before, time.monotonic() - start
                text, _ = load.communicate(timeout=LOAD_TIMEOUT)
            finally:
                load.kill()
        found: dict[str, Any] = json.loads(text)
        found["cpu"] = cpu * seconds / passed
        judge("streams", found)
        return found

    def drop(self, name: str, reason: object) -> None:
        """Takes a subject out of the rest of this stage, and says so."""
        self.running.pop(name, None)
        self.blame(name, reason)

    def blame(self, name: str, reason: object) -> None:
        """A figure of the subject is missing, and this is why."""
        self.failed.setdefault(name, str(reason))
        print(f"bench: FAILED {name}: {reason}", file=sys.stderr, flush=True)


def judge(kind: str, found: dict[str, Any]) -> None:
    """Raises Failed if the load generator counted anything but right answers."""
    if any(found[key] for key in WRONG) or found["done"] == 0:
        counts = ", ".join(f"{key} {found[key]}" for key in ("done", *WRONG))
        raise Failed(f"load {kind}: {counts}; the first: {found['example']}")


def on_other_core() -> None:
    """For a child that is not what is measured."""
    os.sched_setaffinity(0, cores()[1])


@contextlib.contextmanager
def opened(subjects: Iterable[Subject]) -> Iterator[Stage]:
    """Starts the stub and the subjects that can be started; all have ended when the block is left."""
    measured, others = cores()
    folder = BUILD / "run"
    with contextlib.ExitStack() as ending:
        (port,) = unused_ports(1)
        stub = ending.enter_context(Program([compiled("stub"), str(port)], folder / "stub", others, environment()))
        stub.await_port(port, START_TIMEOUT)
        stage = Stage(port)
        started = []
        for subject in subjects:
            if subject.command is None:
                stage.running[subject.name] = Running(subject, port, None)
            elif subject.needs is not None and find(subject.needs) is None:
                stage.failed[subject.name] = f"{subject.needs} is not installed"
            else:
                with _failures(stage, subject):
                    started.append(_start(subject, folder, port, measured, ending))
        for running in started:
            assert running.program is not None
            with _failures(stage, running.subject):
                running.program.await_port(running.port, START_TIMEOUT)
                warm(running.port, running.subject)
                stage.running[running.subject.name] = running
        yield stage


@contextlib.contextmanager
def _failures(stage: Stage, subject: Subject) -> Iterator[None]:
    try:
        yield
    except (NotStarted, OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        stage.drop(subject.name, said.decode(errors="replace").strip()[-1000:] or error)


def _start(subject: Subject, folder: Path, upstream: int, core: set[int], ending: contextlib.ExitStack) -> Running:
    port, admin_port = unused_ports(2)
    place = Place(folder / subject.name, port, admin_port, upstream)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True)
    if subject.prepare is not None:
        subject.prepare(place)
    assert subject.command is not None
    program = Program(subject.command(place), place.folder, core, subject.environment())
    ending.enter_context(program)
    return Running(subject, port, program)
