"""Runs workloads under callgrind and reads what it counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .workload import MARK, WORKLOADS

__all__ = ["NotCounted", "count", "read_totals", "valgrind_version"]

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT = 900.0


class NotCounted(Exception):
    """callgrind did not run, or not to the end."""


def valgrind_version() -> str:
    """Such as ``3.19.0``.  Raises NotCounted where there is none."""
    program = shutil.which("valgrind")
    if program is None:
        raise NotCounted("valgrind is not installed: apt-get install valgrind")
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return output.strip().removeprefix("valgrind-")


def count(names: Sequence[str]) -> dict[str, int]:
    """Instructions of one operation of each workload.  Raises NotCounted."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = (
            "valgrind", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={out}",
            sys.executable, "-m", "scripts.instructions.workload", *names,
        )  # fmt: skip
        # Hashes decide in what order sets are walked.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if done.returncode != 0:
            raise NotCounted(f"callgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return read_totals(out, names)


def read_totals(out: Path, names: Sequence[str]) -> dict[str, int]:
    """The same from callgrind's files: three of each workload, of which the first holds what came before it, the second
    N operations and the third 2 N.  Raises NotCounted."""
    parts = [_total(Path(f"{out}.{number}")) for number in range(1, 3 * len(names) + 1)]
    found = {}
    for position, name in enumerate(names):
        once, twice = parts[3 * position + 1], parts[3 * position + 2]
        found[name] = (twice - once) // WORKLOADS[name].times
    return found


def _total(file: Path) -> int:
    match = re.search(r"^totals: (\d+)$", file.read_text(), re.MULTILINE) if file.exists() else None
    if match is None:
        raise NotCounted(f"callgrind wrote no {file.name}: does the C library call {MARK} by another name?")
    return int(match[1])
