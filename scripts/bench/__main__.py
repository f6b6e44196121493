"""Measures the gateway and what else could stand in its place, all in one run.

    python -m scripts.bench [--quick] [--subjects A,B] [--only A,B] [--rounds N] [--peers] [--json FILE] [--chart FILE]

Prints tables, and writes the figures as JSON and a chart as SVG.  See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import chart, table
from .goals import judged
from .measures import KINDS, Effort, measure
from .peers import PEERS
from .programs import BUILD, Missing, compiled
from .subjects import SUBJECTS, Subject, accepts


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark: 0 = measured, 1 = something failed, 2 = wrong usage."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    try:
        for program in ("stub", "load"):
            compiled(program)
    except Missing as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    subjects = _chosen(given)
    effort = Effort.quick() if given.quick else Effort()
    if given.rounds:
        effort = replace(effort, rounds=given.rounds)
    results, failures = measure(subjects, given.only, effort)
    goals = judged(results)
    print(table.text(results, goals, failures))
    document = {
        "subjects": results,
        "goals": goals,
        "failures": failures,
        "machine": _machine(),
        "run": {"quick": given.quick, "rounds": effort.rounds, "seconds": round(time.monotonic() - start, 1)},
    }
    _write(given.json, json.dumps(document, indent=2) + "\n")
    _write(given.chart, chart.svg(results))
    return 1 if any(name in failures for name in ("direct", "gateway")) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description="Measures the gateway and its like.")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, for a look")
    parser.add_argument("--subjects", type=_words, default=[], metavar="A,B", help="these alone")
    parser.add_argument("--only", type=_kinds, default=list(KINDS), metavar="A,B", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each figure is taken; the median counts")
    parser.add_argument("--peers", action="store_true", help="other gateways too, installed from PyPI and npm")
    parser.add_argument("--json", type=Path, default=BUILD.parent / "bench.json", metavar="FILE", help="the figures")
    parser.add_argument("--chart", type=Path, default=BUILD.parent / "bench.svg", metavar="FILE", help="the chart")
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _kinds(text: str) -> list[str]:
    words = _words(text)
    if unknown := set(words) - set(KINDS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return words


def _chosen(given: argparse.Namespace) -> list[Subject]:
    known = [*SUBJECTS, *(PEERS if given.peers else ())]
    if unknown := set(given.subjects) - {subject.name for subject in known}:
        _parser().error(f"no such subject: {', '.join(sorted(unknown))}")
    chosen = [subject for subject in known if not given.subjects or subject.name in given.subjects]
    with tempfile.TemporaryDirectory() as folder:
        if not accepts(Path(folder), {"short_lane": False}):
            chosen = [subject for subject in chosen if subject.name != "gateway-full-lane"]
    return chosen


def _machine() -> dict[str, Any]:
    model = ""
    if (info := Path("/proc/cpuinfo")).exists():
        model = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), ""
        )
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
