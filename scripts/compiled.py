"""The package with its core compiled (docs/compiled.md): in build/compiled, or as a wheel in dist.

    python scripts/compiled.py            build/compiled, unless it is up to date
    python scripts/compiled.py --wheel    dist/mcpgw-VERSION-PYTHON-PLATFORM.whl

Needs a C compiler and Python's header files.  ccache is used where it is installed: with it, only what has changed is
compiled anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BUILD = PROJECT / "build"
COMPILED = BUILD / "compiled"
STAMP = COMPILED / "stamp"
# Longer than the slowest machine that anybody would use.
TIMEOUT = 3600


def main(arguments: list[str]) -> None:
    if arguments == ["--wheel"]:
        wheel()
    elif not arguments:
        tree()
    else:
        sys.exit(f"usage: python scripts/compiled.py [--wheel], not {' '.join(arguments)}")


def tree() -> None:
    """Make build/compiled anew where a source has changed."""
    digest = _digest()
    if STAMP.exists() and STAMP.read_text() == digest:
        return
    print("compiling the core into build/compiled: about two minutes the first time", file=sys.stderr, flush=True)
    fresh = BUILD / "compiled.new"
    shutil.rmtree(fresh, ignore_errors=True)
    _run(sys.executable, "setup.py", "-q", "build", "--build-lib", fresh, "--build-temp", BUILD / "objects")
    (fresh / STAMP.name).write_text(digest)
    shutil.rmtree(COMPILED, ignore_errors=True)
    fresh.rename(COMPILED)


def wheel() -> None:
    """Make a wheel for this Python and this platform."""
    # What an earlier build left there would be packed, too.
    for left in (*BUILD.glob("lib*"), *BUILD.glob("bdist*")):
        shutil.rmtree(left)
    _run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."
    )
    for each in sorted((PROJECT / "dist").glob("*.whl")):
        print(each.relative_to(PROJECT))


def _digest() -> str:
    """Of all that the result depends on."""
    digest = hashlib.sha256(sys.version.encode())
    package = (path for path in (PROJECT / "gateway").rglob("*") if path.suffix in (".py", ".yaml"))
    for path in sorted((PROJECT / "setup.py", PROJECT / "setup.cfg", *package)):
        digest.update(f"\0{path.relative_to(PROJECT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _run(*command: str | Path) -> None:
    """Run a part of the build; what it prints is shown where it fails."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        sys.exit(f"Python's header files are needed and {header} is not there: on Debian, apt-get install python3-dev")
    compiler = "ccache cc" if shutil.which("ccache") else "cc"
    environment = {"CC": compiler, **os.environ, "MCPGW_COMPILE": "1"}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}\nthe core could not be compiled: see above")


if __name__ == "__main__":
    main(sys.argv[1:])
