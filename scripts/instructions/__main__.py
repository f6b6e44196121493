"""``python -m scripts.instructions``: instructions of the core on fixed inputs, beside those of the last release.

Exit status 0 when no workload takes more than the tolerance above the baseline, 1 otherwise, 2 when nothing could be
compared.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..environment import install_packages
from .count import NotCounted, count, valgrind_version
from .workload import WORKLOADS

BASELINE = Path(__file__).parent / "baseline.json"
TOLERANCE = 5.0
# What the core is made of besides itself.
PACKAGES = ("aiohttp", "google-re2", "jiter", "jsonschema-rs", "multidict", "orjson", "prometheus-client", "pydantic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit status."""
    options = _options(arguments)
    if shutil.which("valgrind") is None:
        install_packages("valgrind")
    names = options.only or list(WORKLOADS)
    try:
        here = _circumstances()
        baseline = None if options.update and not options.only else read_baseline(BASELINE, here)
        counted = count(names)
    except NotCounted as problem:
        print(f"FAILED {problem}", file=sys.stderr)
        return 2
    if options.update:
        kept = baseline["instructions"] if baseline is not None else {}
        BASELINE.write_text(json.dumps({**here, "instructions": {**kept, **counted}}, indent=2) + "\n")
    return show(counted, baseline, options.tolerance / 100)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.instructions", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), metavar="NAME", help="may be repeated")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="PERCENT", help="default: 5")
    parser.add_argument("--update", action="store_true", help="write what is counted as the new baseline")
    return parser.parse_args(arguments)


def _circumstances() -> dict[str, Any]:
    """What instruction counts depend on besides the code."""
    return {
        "python": f"{platform.python_version()} {platform.python_compiler()}",
        "machine": platform.machine(),
        "valgrind": valgrind_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def read_baseline(file: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline, where it can be compared with.  Raises NotCounted."""
    if not file.exists():
        raise NotCounted(f"there is no {file.name}: make bench-instructions INSTRUCTIONS_ARGS=--update writes one")
    baseline: dict[str, Any] = json.loads(file.read_text())
    for what in ("python", "machine"):
        if baseline[what] != here[what]:
            raise NotCounted(
                f"the baseline is of {what} {baseline[what]}, this is {here[what]}: their counts cannot be compared"
            )
    for name, version in {"valgrind": baseline["valgrind"], **baseline["packages"]}.items():
        now = {"valgrind": here["valgrind"], **here["packages"]}.get(name)
        if now != version:
            print(f"note: {name} is {now}, the baseline has {version}; that alone may change a count", file=sys.stderr)
    return baseline


def show(counted: Mapping[str, int], baseline: Mapping[str, Any] | None, tolerance: float) -> int:
    """Prints the table; the exit status."""
    print(f"{'workload':<28}{'baseline':>14}{'now':>14}{'ratio':>8}")
    above = []
    for name, now in counted.items():
        before = baseline["instructions"].get(name) if baseline is not None else None
        ratio = now / before if before else None
        print(f"{name:<28}{f'{before:,}' if before else '-':>14}{now:>14,}{f'{ratio:.3f}' if ratio else '-':>8}")
        if ratio is not None and ratio > 1 + tolerance:
            above.append(name)
    if above:
        print(f"FAILED more than {tolerance:.0%} above the baseline: {', '.join(above)}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
