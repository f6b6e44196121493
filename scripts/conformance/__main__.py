"""``python -m scripts.conformance``: plays the suite directly and through the gateway, and fails on differences.

Exit status 0 when there are none but those that have a reason, 1 otherwise, 2 when the suite could not be played.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from .checks import Checks, Difference, Expected, differences, read_expected, totals
from .play import CLIENT, OWN_SERVER, TYPESCRIPT, Subject, Via, given
from .programs import BUILD, HERE, PROJECT, Failed, install

RESULTS = BUILD / "results"
WAYS: tuple[Via, ...] = ("direct", "gateway")
Both = dict[Via, dict[str, Checks]]


async def compare(subjects: Sequence[Subject], folder: Path, only: Collection[Difference] = ()) -> dict[str, Both]:
    """What the suite finds of each subject, both ways; only the scenarios of these differences, if there are any.

    Several are played at a time, as many as there are processors.  A server that is there already is played with in
    one way at a time, so that one run does not see what the other does.
    """
    places = asyncio.Semaphore(max(2, os.cpu_count() or 1))
    found: dict[str, Both] = {subject.key: {} for subject in subjects}

    async def play(subject: Subject, via: Via) -> None:
        scenarios = {(d.revision, d.scenario) for d in only if d.of == subject.key}
        if only and not scenarios:
            found[subject.key][via] = {}
            return
        async with places:
            found[subject.key][via] = await subject.play(via, folder / subject.key / via, scenarios)

    async def both(subject: Subject) -> None:
        if subject.key == "upstream" or only:
            for via in WAYS:
                await play(subject, via)
        else:
            await asyncio.gather(*(play(subject, via) for via in WAYS))

    await asyncio.gather(*map(both, subjects))
    return found


def all_differences(found: dict[str, Both]) -> list[Difference]:
    """Of every subject and revision."""
    return [
        difference
        for key, both in found.items()
        for revision, direct in both["direct"].items()
        for difference in differences(key, revision, direct, both["gateway"][revision])
    ]


def table(subject: Subject, both: Both, differing: Sequence[Difference]) -> str:
    """A line for each revision that there is something to say of."""
    lines = [subject.title, f"  {'':12}{'direct':>18}{'through the gateway':>24}   differences"]
    for revision, direct in both["direct"].items():
        through = both["gateway"][revision]
        if direct or through:
            number = sum(d.of == subject.key and d.revision == revision for d in differing)
            lines.append(f"  {revision:12}{totals(direct):>18}{totals(through):>24}   {number or 'none'}")
    return "\n".join(lines)


def problems(
    subjects: Sequence[Subject], found: dict[str, Both], lasting: Sequence[Difference], expected: Sequence[Expected]
) -> list[str]:
    """Everything that makes the run fail."""
    # Of a server that nobody here has seen before, only what the gateway makes worse is a problem.
    wrong = [
        f"DIFFERS {d}"
        for d in lasting
        if not any(entry.is_about(d) for entry in expected) and not (d.of == "upstream" and d.is_better)
    ]
    played = {subject.key for subject in subjects}
    wrong += [
        f"STALE {entry} does not occur any more: take it out of expected-differences.yaml"
        for entry in expected
        if entry.of in played and not any(entry.is_about(d) for d in lasting)
    ]
    for subject in subjects:
        direct = found[subject.key]["direct"]
        if not any(direct.values()):
            wrong.append(f"NOTHING was checked of the {subject.title}")
        if subject.perfect:
            wrong += [
                f"FAILS without the gateway: {subject.title}, {revision}: {check.scenario}: {check.id}: {check.status}"
                for revision, checks in direct.items()
                for check in sorted(checks)
                if check.status in ("FAILURE", "WARNING", "FAILED")
            ]
    return wrong


async def play(subjects: Sequence[Subject]) -> int:
    """Play, compare and report."""
    start = time.monotonic()
    await install()
    expected = read_expected(HERE / "expected-differences.yaml")
    found = await compare(subjects, RESULTS)
    first = all_differences(found)
    lasting: list[Difference] = []
    if first:
        # Some checks measure time: what differs only while the machine is busy is not the gateway's doing.
        again = all_differences(await compare(subjects, RESULTS / "again", first))
        lasting = [difference for difference in first if difference in again]
    for subject in subjects:
        print(table(subject, found[subject.key], lasting), end="\n\n")
    for difference in first:
        reasons = [entry.reason for entry in expected if entry.is_about(difference)]
        if difference not in lasting:
            print(f"once only: {difference}")
        elif difference.of == "upstream" and difference.is_better:
            print(f"better: {difference}")
        elif reasons:
            print(f"expected: {difference}\n  {reasons[0]}")
    wrong = problems(subjects, found, lasting, expected)
    for line in wrong:
        print(line)
    print(f"{len(wrong)} problems; {time.monotonic() - start:.0f} s; details in {RESULTS.relative_to(PROJECT)}")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Exit status as above."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--upstream", metavar="URL", help="play with this server instead, of whatever make")
    upstream = parser.parse_args(arguments).upstream
    # Being told to stop ends everything that was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Programs of this environment are found first: Node.js may be one of them, and the suite calls `python`.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subjects = [given(upstream)] if upstream else [OWN_SERVER, CLIENT, TYPESCRIPT]
    try:
        return asyncio.run(play(subjects))
    except Failed as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
