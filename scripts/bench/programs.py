"""What the benchmark needs beyond Python: the stub and the load generator, compiled here, and what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["BUILD", "HERE", "Missing", "compiled", "find"]

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11")


class Missing(Exception):
    """Something that the benchmark cannot do without is not there; the message says what."""


def compiled(name: str) -> Path:
    """The program ``NAME.c`` of this folder, compiled unless that has been done.  Raises Missing."""
    source, target = HERE / f"{name}.c", BUILD / name
    newest = max(source.stat().st_mtime, (HERE / "traffic.h").stat().st_mtime)
    if target.exists() and target.stat().st_mtime > newest:
        return target
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Missing("a C compiler is needed (Debian, Ubuntu: apt-get install gcc libc6-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    # Under another name first: a compiler that was interrupted leaves nothing that looks finished.
    partial = BUILD / f"{name}.partial"
    done = subprocess.run([compiler, *FLAGS, "-o", partial, source], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{source.name} could not be compiled:\n{done.stderr}")
    partial.replace(target)
    return target


def find(program: str) -> str | None:
    """Where a program is, also one that only root's path has."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=path)
