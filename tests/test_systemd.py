"""gateway.systemd against a real socket, and the unit against systemd's own tools."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import systemd
from gateway.config import Limits


class Manager:
    """The service manager's end: a datagram socket that NOTIFY_SOCKET names."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def received(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@mcpgw-test-{uuid.uuid4()}")
    yield manager
    manager.socket.close()


def test_notify_sends_one_datagram(manager: Manager) -> None:
    assert systemd.notify("READY=1\nMAINPID=7", manager.environ)
    assert manager.received() == ["READY=1", "MAINPID=7"]


def test_the_states_of_a_service(manager: Manager) -> None:
    assert systemd.ready("listening on 127.0.0.1:8080", manager.environ)
    assert manager.received() == ["READY=1", "STATUS=listening on 127.0.0.1:8080"]
    assert systemd.ready("two\nSTOPPING=1 lines", manager.environ)
    assert manager.received() == ["READY=1", "STATUS=two STOPPING=1 lines"]
    assert systemd.stopping(environ=manager.environ)
    assert manager.received() == ["STOPPING=1"]


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "@mcpgw-nobody-listens"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    assert not systemd.notify("READY=1", {"NOTIFY_SOCKET": address})


def test_the_environment_of_the_process_is_the_default(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("WATCHDOG=1")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    assert systemd.notify("WATCHDOG=1")


def test_the_watchdog_is_fed_twice_per_interval() -> None:
    assert systemd.watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert systemd.watchdog_interval({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}) == 0.25


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "\N{ARABIC-INDIC DIGIT FIVE}"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(environ: dict[str, str]) -> None:
    assert systemd.watchdog_interval(environ) is None


# -- the unit ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit(project: Path) -> Path:
    return project / "config" / "systemd" / "mcpgw.service"


@pytest.fixture(scope="module")
def analyze(needs: Callable[[str, str], str]) -> str:
    return needs("systemd-analyze", "apt-get install systemd")


def settings(unit: Path) -> dict[str, str]:
    lines = (line for line in unit.read_text().splitlines() if re.match(r"[A-Z]\w*=", line))
    return dict(line.split("=", 1) for line in lines)


def test_systemd_accepts_the_unit(unit: Path, analyze: str, tmp_path: Path) -> None:
    # Verification wants the program to exist: the unit is checked as it is but for the folder of its environment.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/mcpgw/bin/", f"{Path(sys.executable).parent}/"))
    done = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60)
    # An unknown or misspelt setting is a warning with exit code 0.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_sandboxed(unit: Path, analyze: str) -> None:
    command = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    level = re.search(r"Overall exposure level for mcpgw.service: ([\d.]+)", done.stdout)
    assert level is not None
    assert float(level[1]) <= 2.0


def test_the_unit_fits_the_gateway(unit: Path) -> None:
    service = settings(unit)
    assert service["ExecStart"] == "/opt/mcpgw/bin/mcpgw serve --config /etc/mcpgw/gateway.yaml"
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    assert float(service["WatchdogSec"]) > 0
    # Calls may go on for the drain time; then the audit file is closed.  SIGKILL must not come before that.
    assert float(service["TimeoutStopSec"]) >= Limits().drain_timeout + 10
    assert int(service["LimitNOFILE"]) >= 2 * Limits().max_connections


# What the gateway's extension modules do under the unit's MemoryDenyWriteExecute, without systemd: the kernel's own
# switch for the same is prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), Linux 6.3.
_MDWE = """
import ctypes, mmap, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit(3)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    sys.exit("not in force")
import aiohttp, jiter, orjson, pydantic, re2, uvloop, yaml
rules = re2.Set.SearchSet()
rules.Add(r"AKIA[0-9A-Z]{16}")
rules.Compile()
assert rules.Match("key AKIAIOSFODNN7EXAMPLE") == [0]
assert orjson.loads(orjson.dumps({"a": 1})) == jiter.from_json(b'{"a": 1}')
pydantic.create_model("M", a=(int, ...))(a=1)
yaml.load("a: 1", yaml.CSafeLoader)
uvloop.new_event_loop().close()
import gateway.app
"""


def test_memory_deny_write_execute() -> None:
    done = subprocess.run([sys.executable, "-c", _MDWE], capture_output=True, text=True, timeout=60)
    if done.returncode == 3:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert done.returncode == 0, done.stderr
