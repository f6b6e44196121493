"""``python -m scripts.fuzz``: checks properties of everything that reads foreign bytes on very many inputs.

Exit status 0 when all of them hold and memory does not grow, 1 otherwise, 2 when the options are wrong.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .run import DEFAULTS, TARGETS, Figures, Grown, Stuck, fuzz

BINARIES = Path(sys.executable).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit status."""
    options = _options(arguments)
    # Node.js may have come into the project's own environment.
    os.environ["PATH"] = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    targets = options.target or list(TARGETS)
    if options.file is not None or options.index is not None:
        return _one(targets[0], options)
    for name in targets:
        print(f"{name}: {TARGETS[name].invariant}", flush=True)
        try:
            figures = fuzz(name, options.inputs or DEFAULTS[name], options.seed, options.processes, _say)
            _show(figures)
            if figures.failure is not None:
                failure = figures.failure
                print(f"\nFAILED {name}, input {failure.index}, as small as it became:\n  {failure.input!r}\n")
                print(f"{failure.what}\nAgain: {_again(options.seed, name, failure.index)}")
                return 1
            figures.check_growth()
        except Stuck as stuck:
            print(f"FAILED {stuck}\nAgain: {_again(options.seed, name, stuck.index)}")
            return 1
        except Grown as grown:
            print(f"FAILED {grown}")
            return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.fuzz", description=__doc__)
    parser.add_argument(
        "--target", action="append", choices=list(TARGETS), help="check this alone; may be repeated (default: all)"
    )
    parser.add_argument("--inputs", type=_positive, metavar="N", help="inputs of each target (default: see the page)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other inputs (default: 1)")
    parser.add_argument(
        "--processes", type=_positive, default=os.cpu_count() or 1, metavar="N", help="default: one a core"
    )
    parser.add_argument("--index", type=int, metavar="N", help="only the input of this number, of one target")
    parser.add_argument("--file", type=Path, help="only the bytes of this file, as an input of one target")
    options = parser.parse_args(arguments)
    if (options.file is not None or options.index is not None) and len(options.target or ()) != 1:
        parser.error("--file and --index need exactly one --target")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _show(figures: Figures) -> None:
    rate = figures.inputs / max(figures.seconds, 0.001)
    _say(f"{figures.inputs:,} inputs in {figures.seconds:.0f} s, {rate:,.0f} a second")
    _say(", ".join(f"{outcome} {count:,}" for outcome, count in figures.counts.most_common(12)))
    if figures.growth is None:
        _say("memory: too few inputs to say whether it grows")
    else:
        shown = ", ".join(f"{warm >> 20} to {end >> 20} MiB" for warm, end in figures.memory)
        _say(f"memory after the warm-up: {shown}; {figures.growth:+.1%} at most")


def _one(name: str, options: argparse.Namespace) -> int:
    with TARGETS[name]() as target:
        data = options.file.read_bytes() if options.file is not None else target.input(options.seed, options.index)
        print(f"{name}: {data!r}", flush=True)
        target.check(data)  # whatever is wrong is shown in full
    print(f"  holds: {dict(target.counts)}")
    return 0


def _again(seed: int, name: str, index: int) -> str:
    return f"make fuzz FUZZ_ARGS={shlex.quote(f'--target {name} --seed {seed} --index {index}')}"


if __name__ == "__main__":
    sys.exit(main())
