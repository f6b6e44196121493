"""What every test may use: programs that may be missing, ports, a watch for blocking calls."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import blockbuster as _blockbuster
import hypothesis
import pytest

MISSING = "SKIPPED-NEEDS: "

# Programs of the project's own environment, such as Node.js where the system has none, are found first.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Derandomized: the same inputs on every machine, so that a red run can be repeated.  `HYPOTHESIS_PROFILE=search` looks
# further, with new inputs each time.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def needs() -> Callable[[str, str], str]:
    """``needs("node", "apt-get install nodejs")`` is the program's path, or skips the test with a line that nobody
    overlooks and that says how to get it."""

    def find(program: str, install: str) -> str:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{MISSING}{program} is not installed: {install}")
        return path

    return find


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that gives a port which nobody listens on.  Prefer port 0: another program may take this one."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    return find


@pytest.fixture
def blockbuster() -> Iterator[_blockbuster.BlockBuster]:
    """While it is in use, a blocking call inside the event loop raises BlockingError."""
    with _blockbuster.blockbuster_ctx() as watch:
        yield watch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-missing", action="store_true", help="fail when a test was skipped for a missing program")


def _missing(terminal: pytest.TerminalReporter) -> list[str]:
    reasons = (report.longrepr[2] for report in terminal.stats.get("skipped", []) if isinstance(report.longrepr, tuple))
    return sorted({line.removeprefix("Skipped: ") for line in reasons if MISSING in line})


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-missing") and exitstatus == 0 and terminal and _missing(terminal):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _missing(terminalreporter)
    if lines:
        terminalreporter.section("tests that did not run: a program is missing", sep="!", red=True, bold=True)
    for line in lines:
        terminalreporter.write_line(line, red=True, bold=True)
