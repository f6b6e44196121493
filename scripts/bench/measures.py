"""What is measured, over all subjects in turn, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from .processes import NotStarted
from .stage import Failed, Running, Stage, judge, on_other_core, opened
from .subjects import Subject, rules_file, with_hooks

__all__ = ["KINDS", "Effort", "Results", "measure"]

KINDS = ("calls", "sse", "big", "idle", "hooks")

Results = dict[str, dict[str, Any]]

# Events a second, over all streams of a measurement; the measure of an event that users feel.
PACE = 1000
# Events of a stream that is soon over.
FEW = 4000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: ``rounds`` of everything, ``seconds`` for each figure, and how large things are."""

    rounds: int = 3
    seconds: float = 1.5
    connections: Sequence[int] = (1, 16, 64, 256)
    streams: Sequence[int] = (1, 50)
    many: Sequence[int] = (1, 50, 1000)
    first: int = 100
    large: int = 1_000_000_000
    sessions: int = 1000
    idle_seconds: float = 3.0

    @classmethod
    def quick(cls) -> Effort:
        """For a look: a round of each, not to be quoted."""
        return cls(1, 0.4, (1, 16, 64, 256), (1, 50), (1, 200), 30, 100_000_000, 200, 1.0)


def measure(subjects: Sequence[Subject], kinds: Iterable[str], effort: Effort) -> tuple[Results, dict[str, str]]:
    """The figures of every subject, and why some are missing."""
    results: Results = {subject.name: {"about": subject.about} for subject in subjects}
    failures: dict[str, str] = {}
    kinds = set(kinds)
    for kind, function in (("calls", _calls), ("sse", _streams), ("big", _reports), ("idle", _idle)):
        if kind in kinds:
            _say(kind)
            with opened(subjects) as stage:
                function(stage, results, effort)
                failures |= {**stage.failed, **failures}
    if "hooks" in kinds and any(subject.name == "gateway" for subject in subjects):
        _say("hooks")
        failures.update(_hooks(results, effort))
    return results, failures


def _say(text: str) -> None:
    print(f"bench: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class _Figures:
    """Figures of several rounds by subject and name; the median is what counts."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, figure: float, *names: str) -> None:
        self._figures[names].append(figure)

    def into(self, results: Results) -> None:
        for (subject, *names, last), figures in self._figures.items():
            place = results[subject]
            for name in names:
                place = place.setdefault(name, {})
            place[last] = _rounded(median(figures))


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


def _rounds(stage: Stage, rounds: int, one: Callable[[Running], None]) -> None:
    """A figure in each round, of one subject after the other.  A wrong answer ends it for the subject.

    Every other round goes backwards: who comes first must not always come first.
    """
    wrong: set[str] = set()
    for number in range(rounds):
        order = list(stage.running.items())
        for name, running in reversed(order) if number % 2 else order:
            if name in wrong:
                continue
            try:
                if running.program is not None:
                    running.program.must_run()
                one(running)
            except NotStarted as error:
                stage.drop(name, error)
            except (Failed, OSError, subprocess.SubprocessError) as error:
                wrong.add(name)
                stage.blame(name, error)


def _calls(stage: Stage, results: Results, effort: Effort) -> None:
    figures = _Figures()

    def warm_up(running: Running) -> None:
        stage.load(running, "calls", max(effort.connections), effort.seconds / 2)

    _rounds(stage, 1, warm_up)
    for connections in effort.connections:

        def one(running: Running, connections: int = connections) -> None:
            found = stage.load(running, "calls", connections, effort.seconds)
            name, at = running.subject.name, str(connections)
            figures.add(found["done"] / found["seconds"], name, "calls_per_s", at)
            figures.add(found["p50"] / 1e3, name, "p50_ms", at)
            figures.add(found["p99"] / 1e3, name, "p99_ms", at)
            if running.program is not None:
                figures.add(found["cpu"] / found["done"] * 1e6, name, "cpu_us_per_call", at)

        _rounds(stage, effort.rounds, one)
    figures.into(results)


def _streams(stage: Stage, results: Results, effort: Effort) -> None:
    figures = _Figures()

    amounts: dict[str, float] = {}

    def warm_up(running: Running) -> None:
        # How many events fit into the time: a stream that has begun is read to its end.
        found = stage.load(running, "flood", 1, FEW)
        amounts[running.subject.name] = max(FEW, FEW / found["seconds"] * effort.seconds)

    def flood_of(streams: int, share: float, at: str) -> Callable[[Running], None]:
        def flood(running: Running) -> None:
            name = running.subject.name
            if name not in amounts:
                return  # it has failed already
            found = stage.load(running, "flood", streams, int(amounts[name] * share / streams))
            if share == 1:
                figures.add(found["events"] / found["seconds"], name, "sse_events_per_s", at)
            if running.program is not None:
                figures.add(found["cpu"] / found["events"] * 1e6, name, "flood_cpu_us_per_event", at)

        return flood

    def paced_over(streams: int) -> Callable[[Running], None]:
        # The same number of events, over more and more streams.
        def paced(running: Running) -> None:
            name, at = running.subject.name, str(streams)
            found = stage.paced(running, streams, PACE, effort.seconds)
            figures.add(found["p50"] / 1e3, name, "event_p50_ms", at)
            figures.add(found["p99"] / 1e3, name, "event_p99_ms", at)
            if running.program is not None:
                figures.add(found["cpu"] / (PACE * effort.seconds) * 1e6, name, "cpu_us_per_event", at)

        return paced

    def first(running: Running) -> None:
        found = stage.load(running, "first", effort.first)
        figures.add(found["first_p50"] / 1e3, running.subject.name, "first_event_ms")
        figures.add(found["first_p99"] / 1e3, running.subject.name, "first_event_p99_ms")

    _rounds(stage, 1, warm_up)
    _rounds(stage, effort.rounds, first)
    _rounds(stage, effort.rounds, flood_of(1, 0.1, "tenth"))
    for streams in effort.streams:
        _rounds(stage, effort.rounds, flood_of(streams, 1, str(streams)))
    for streams in effort.many:
        _rounds(stage, effort.rounds if streams <= 100 else 1, paced_over(streams))
    figures.into(results)
    direct = results.get("direct", {})
    for name, found in results.items():
        if name != "direct" and "first_event_ms" in found and "first_event_ms" in direct:
            found["first_event_added_ms"] = _rounded(found["first_event_ms"] - direct["first_event_ms"])
        if name != "direct" and "event_p50_ms" in found and "event_p50_ms" in direct:
            found["event_added_ms"] = {
                at: _rounded(value - direct["event_p50_ms"][at]) for at, value in found["event_p50_ms"].items()
            }


def _reports(stage: Stage, results: Results, effort: Effort) -> None:
    figures = _Figures()
    refused: dict[tuple[str, str], str] = {}
    idle = {name: running.program.resident() for name, running in stage.running.items() if running.program}

    def one_of(label: str, size: int, times: int, as_event: int) -> Callable[[Running], None]:
        def one(running: Running) -> None:
            name = running.subject.name
            if (name, label) in refused:
                return
            if running.program is not None:
                running.program.forget_peak()
            try:
                found = stage.load(running, "report", size, times, as_event)
            except Failed as error:
                # A limit is an answer, too; the subject is measured on.
                refused[name, label] = str(error).partition("the first: ")[2][:200] or str(error)
                return
            figures.add(found["mb_per_s"], name, "big", label, "mb_per_s")
            figures.add(found["first_p50"] / 1e3, name, "big", label, "first_byte_ms")
            if running.program is not None:
                figures.add((running.program.peak() - idle[name]) / 2**20, name, "big", label, "peak_rss_mib")
                figures.add(found["cpu"] / found["bytes"] * 1e9, name, "big", label, "cpu_ms_per_mb")

        return one

    # The largest first: a process may keep what smaller ones made it take.
    sizes = [(_label(effort.large), effort.large, 1, 0, 1), (_label(effort.large) + "-event", effort.large, 1, 1, 1)]
    sizes += [("10MB", 10_000_000, 5, 0, effort.rounds), ("10MB-event", 10_000_000, 5, 1, effort.rounds)]
    for label, size, times, as_event, rounds in sizes:
        _rounds(stage, rounds, one_of(label, size, times, as_event))
    figures.into(results)
    for (name, label), reason in refused.items():
        results[name].setdefault("big", {})[label] = {"refused": reason}
    for found in results.values():
        big = found.get("big", {})
        if "mb_per_s" in big.get("10MB", {}):
            found["big_mb_per_s"] = big["10MB"]["mb_per_s"]
        for label in (_label(effort.large), "10MB"):
            if "peak_rss_mib" in big.get(label, {}):
                found["peak_rss_mib"] = big[label]["peak_rss_mib"]
                break


def _label(size: int) -> str:
    return f"{size // 1_000_000_000}GB" if size >= 1_000_000_000 else f"{size // 1_000_000}MB"


def _idle(stage: Stage, results: Results, effort: Effort) -> None:
    """Memory a session with its open stream takes; what all of them take when nothing happens."""

    def one(running: Running) -> None:
        if running.program is None:
            return
        found = results[running.subject.name]
        # What the first sessions make once for all is not a session's.
        _hold(stage, running, 20, 0.0)
        found["idle_rss_mib"] = _rounded(running.program.resident() / 2**20)
        memory, cpu = _hold(stage, running, effort.sessions, effort.idle_seconds)
        found["kib_per_idle_stream"] = _rounded(memory / effort.sessions / 1024)
        found["idle_cpu_percent"] = _rounded(cpu * 100)

    _rounds(stage, 1, one)


def _hold(stage: Stage, running: Running, sessions: int, seconds: float) -> tuple[float, float]:
    """Bytes that open sessions take, and the share of a core while nothing happens.  Raises Failed."""
    assert running.program is not None
    before = running.program.resident()
    with subprocess.Popen(
        stage.command(running, "idle", sessions),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=running.environment(),
        preexec_fn=on_other_core,
    ) as load:
        try:
            assert load.stdin is not None
            assert load.stdout is not None
            if not select.select([load.stdout], [], [], 120)[0] or load.stdout.readline().strip() != b"ready":
                raise Failed("the sessions were not opened in time")
            time.sleep(0.2)
            cpu, start = running.cpu(), time.monotonic()
            time.sleep(seconds)
            share = (running.cpu() - cpu) / max(time.monotonic() - start, 0.001)
            memory = running.program.resident() - before
            load.stdin.close()
            judge("idle", found := json.loads(load.stdout.read()))
            if found["done"] != sessions:
                raise Failed(f"{found['done']} of {sessions} sessions were opened: {found['example']}")
        finally:
            load.kill()
    return memory, share


HOOKS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("policy", ("policy",)),
    ("arguments", ("policy", "arguments")),
    ("pins", ("policy", "pins")),
    ("injection", ("policy", "injection")),
    ("sanitize", ("policy", "sanitize")),
    ("own", ("policy", "scripts.bench.own_hook:Nothing")),
)
RULES = 100


def _hooks(results: Results, effort: Effort) -> dict[str, str]:
    """What each hook adds to the policy alone, and each rule of one's own to sanitize, in CPU per call."""
    many = ("policy", {"kind": "sanitize", "options": {"rules_files": [str(rules_file(RULES))]}})
    variants = {name: with_hooks(*hooks) for name, hooks in HOOKS}
    variants["rules"] = with_hooks(*many)
    # Two with the same hooks need two folders.
    variants = {name: replace(subject, name=f"gateway+{name}") for name, subject in variants.items()}
    figures: dict[str, list[float]] = defaultdict(list)
    with opened(variants.values()) as stage:

        def one(running: Running) -> None:
            found = stage.load(running, "calls", 16, effort.seconds)
            figures[running.subject.name.partition("+")[2]].append(found["cpu"] / found["done"] * 1e6)

        def warm_up(running: Running) -> None:
            stage.load(running, "calls", 16, effort.seconds / 2)

        _rounds(stage, 1, warm_up)
        _rounds(stage, effort.rounds + 1, one)
        cost = {name: median(values) for name, values in figures.items()}
        found = results["gateway"]
        if "policy" in cost:
            found["cpu_us_policy_alone"] = _rounded(cost["policy"])
            found["cpu_us_per_hook"] = {
                name: _rounded(value - cost["policy"])
                for name, value in cost.items()
                if name not in {"policy", "rules"}
            }
        if "rules" in cost and "sanitize" in cost:
            found["cpu_us_per_rule"] = _rounded((cost["rules"] - cost["sanitize"]) / RULES)
        return stage.failed
