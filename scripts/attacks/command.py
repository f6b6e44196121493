"""The command line, the order in which cases are played, and the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .case import Case, Unusable, load, load_context
from .judge import faults
from .play import Stage, stage
from .subject import NotStarted

__all__ = ["Outcome", "main", "run", "totals"]

# More gateways than processors only wait for each other.
GATEWAYS = 3
# Cases that are slow on purpose; each has a gateway of its own, so that they do not hold up the others.
SLOW_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: ``faults`` is empty when it was as expected."""

    case: Case
    faults: tuple[str, ...]
    seen: str

    @property
    def good(self) -> bool:
        """Whether it was as expected."""
        return not self.faults


async def run(cases: Sequence[Case], context: Mapping[str, Any], folder: Path) -> list[Outcome]:
    """Plays all cases.  Those with a bound on time or memory are played alone, at the end.  Raises NotStarted."""
    slow = [case for case in cases if case.fields.get("pace") is not None]
    alone = [case for case in cases if case not in slow and {"max_ms", "max_memory_growth_mb"} & set(case.fields)]
    rest = [case for case in cases if case not in slow and case not in alone]
    found: dict[str, Outcome] = {}
    places = asyncio.Semaphore(SLOW_AT_ONCE)

    async def play(on: Stage, case: Case) -> None:
        found[case.id] = await _play(on, case)

    async def slowly(number: int, case: Case) -> None:
        async with places, stage([case], context, folder / f"slow-{number}") as on:
            await play(on, case)

    waiting = iter(rest)

    async def some(number: int) -> None:
        async with stage(rest, context, folder / str(number)) as on:
            # One iterator for all: whoever is free takes the next case.
            for case in waiting:
                await play(on, case)

    # Whatever is measured must have the processors for itself; only what waits for the clock may go on meanwhile.
    async with asyncio.TaskGroup() as group:
        for number, case in enumerate(slow):
            group.create_task(slowly(number, case))
        async with asyncio.TaskGroup() as others:
            for number in range(min(GATEWAYS, len(rest))):
                others.create_task(some(number))
        if alone:
            async with stage(alone, context, folder / "alone") as on:
                await on.warm()
                for case in alone:
                    await play(on, case)
    return [found[case.id] for case in cases]


async def _play(on: Stage, case: Case) -> Outcome:
    wrong: list[str] = []
    lines: list[str] = []
    for way, seen in zip(("", "as an event: "), await on.play(case), strict=False):
        wrong += [way + fault for fault in faults(case, seen)]
        lines.append(seen.problem or seen.summary())
    return Outcome(case, tuple(wrong), " | ".join(dict.fromkeys(lines)))


def totals(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Attacks and how many of them were stopped, benign cases and how many passed; hard ones apart."""
    counted: Counter[str] = Counter()
    for outcome in outcomes:
        kind = ("benign", "passed") if outcome.case.benign else ("attacks", "stopped")
        prefix = "hard_" if outcome.case.hard else ""
        counted[prefix + kind[0]] += 1
        counted[prefix + kind[1]] += outcome.good
    keys = [hard + key for hard in ("", "hard_") for key in ("attacks", "stopped", "benign", "passed")]
    return {key: counted[key] for key in keys}


def report(outcomes: Sequence[Outcome], verbose: bool) -> Iterable[str]:
    """The lines that are printed."""
    categories = dict.fromkeys(outcome.case.category for outcome in outcomes)
    width = max(map(len, categories))
    yield f"{'':{width}}  attacks stopped  benign passed"
    for category in categories:
        mine = [outcome for outcome in outcomes if outcome.case.category == category]
        yield _row(category, width, totals(mine))
        for outcome in mine:
            if not outcome.good or verbose:
                yield from _explained(outcome, verbose)
    yield _row("all", width, totals(outcomes))


def _row(title: str, width: int, counted: Mapping[str, int]) -> str:
    stopped = f"{counted['stopped']}/{counted['attacks']}" if counted["attacks"] else "-"
    passed = f"{counted['passed']}/{counted['benign']}" if counted["benign"] else "-"
    line = f"{title:{width}}  {stopped:>15}  {passed:>13}"
    hard = counted["hard_attacks"] + counted["hard_benign"]
    return line + (f"   hard: {counted['hard_stopped'] + counted['hard_passed']}/{hard}" if hard else "")


def _explained(outcome: Outcome, verbose: bool) -> Iterable[str]:
    case = outcome.case
    word = "ok  " if outcome.good else "hard" if case.hard else "MISS"
    yield f"  {word} {case.id} ({' or '.join(case.outcomes)})" + "".join(f"\n       {each}" for each in outcome.faults)
    if verbose or not outcome.good:
        yield f"       seen: {outcome.seen}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="corpus.py", description=__doc__)
    parser.add_argument("--cases", required=True, type=Path, metavar="FILE", help="the cases, one JSON object a line")
    parser.add_argument("--context", required=True, type=Path, metavar="FILE", help="the scenario that they assume")
    parser.add_argument("--category", metavar="C", help="only this category")
    parser.add_argument("--verbose", action="store_true", help="show every case, not only the misses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write totals and every case's outcome")
    options = parser.parse_args(arguments)
    try:
        cases, context = load(options.cases), load_context(options.context)
    except Unusable as error:
        parser.error(str(error))
    chosen = [case for case in cases if options.category in (None, case.category)]
    if not chosen:
        parser.error(f"no category {options.category!r}; there are {', '.join(sorted({c.category for c in cases}))}")
    try:
        with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
            outcomes = asyncio.run(run(chosen, context, Path(folder)))
    except ExceptionGroup as group:
        failed, others = group.split(NotStarted)
        if failed is None or others is not None:
            raise
        print(_leaf(failed), file=sys.stderr)
        return 2
    print("\n".join(report(outcomes, options.verbose)))
    if options.json is not None:
        options.json.write_text(json.dumps(_document(outcomes), indent=1, ensure_ascii=False) + "\n")
    return 0 if all(outcome.good or outcome.case.hard for outcome in outcomes) else 1


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    categories = dict.fromkeys(outcome.case.category for outcome in outcomes)
    return {
        "totals": totals(outcomes),
        "categories": {
            category: totals(outcome for outcome in outcomes if outcome.case.category == category)
            for category in categories
        },
        "cases": [
            {
                "id": outcome.case.id,
                "category": outcome.case.category,
                "expected": outcome.case.expected,
                "hard": outcome.case.hard,
                "good": outcome.good,
                "faults": list(outcome.faults),
                "seen": outcome.seen,
            }
            for outcome in outcomes
        ],
    }
