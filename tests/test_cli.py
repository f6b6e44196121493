"""The command line: what it prints where, with which exit code; ``run`` and ``serve`` as real processes."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import itertools
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway import __version__
from gateway.cli import main
from gateway.config import load

DIGEST = "a" * 64

GOOD = f"""\
listen: {{port: 0}}
admin: {{port: 0}}
upstreams:
  weather: {{url: "http://127.0.0.1:1/mcp"}}
clients:
  demo: {{token_sha256: {DIGEST}}}
policies:
  default: {{allowed_upstreams: [weather], allowed_tools: ["get_*"]}}
audit: {{path: PATH}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(GOOD.replace("PATH", str(tmp_path / "audit.jsonl")))
    return path


def mcpgw(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


# -- check and token ---------------------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert mcpgw("--version").stdout == f"mcpgw, version {__version__}\n"
    shown = mcpgw("-h")
    assert shown.exit_code == 0
    assert [name for name in ("run", "serve", "check", "token") if f"\n  {name} " not in shown.stdout] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["check"],
        ["check", "a", "b"],
        ["token"],
        ["token", "a b"],
        ["token", "a\nb"],
        ["token", "demo", "--expires", "soon"],
        ["token", "demo", "--expires", "0"],
        ["token", "demo", "--expires", "99999999d"],
        ["run"],
        ["run", "--upstream", "ftp://x"],
        ["run", "--upstream", "http://x/", "--port", "65536"],
        ["run", "--upstream", "http://x/", "--host", "a b"],
        ["run", "--upstream", "http://x/", "--header", "X-A"],
        ["run", "--upstream", "http://x/", "--header", "X-A: "],
        ["run", "--upstream", "http://x/", "--header", "X-A: 1", "--header", "X-A: 2"],
        ["run", "--upstream", "http://x/", "--header", "X-A: 1", "--header", "x-a: 2"],
        ["run", "--upstream", "http://x/", "--header", "Host: y"],
        ["run", "--upstream", "http://x/", "--allow-tool", ""],
        ["serve", "--config", "nowhere.yaml"],
        ["check", "nowhere.yaml"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2_and_one_message_on_stderr(arguments: list[str]) -> None:
    result = mcpgw(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_check_explains(file: Path) -> None:
    result = mcpgw("check", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "upstream weather: http://127.0.0.1:1/mcp (streamable-http), served at /weather/mcp and /mcp" in lines
    assert "  hooks      policy -> sanitize" in lines
    assert "client demo: policy default, 1 token" in lines
    assert "  tools      get_*" in lines


def test_check_reports_everything_hooks_and_patterns_included(file: Path) -> None:
    text = file.read_text().replace("allowed_tools", "allowed_resources: [stations, 'weather://**'], allowed_tool")
    text += "hooks: [policy, sanitise, {kind: 'no.such:Hook', name: mine}]\n"
    file.write_text(text)
    result = mcpgw("check", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    problems = [line.removeprefix(f"{file}:") for line in result.stderr.splitlines()]
    assert [problem.partition(": ")[2].partition(": ")[0] for problem in problems] == [
        "policies.default.allowed_tool",
        "policies.default.allowed_resources.0",
        "hooks.1.kind",
        "hooks.2.kind",
    ]
    assert [problem.partition(":")[0] for problem in problems] == ["8", "8", "10", "10"]


@pytest.mark.parametrize("arguments", [[], ["--expires", "90d"]])
def test_a_token_and_what_to_paste(arguments: list[str], file: Path) -> None:
    result = mcpgw("token", "laptop", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = yaml.safe_load(result.stdout)
    assert re.fullmatch(r"mcpgw_[A-Za-z0-9_-]{43}", printed["token"])
    assert printed["sha256"] == hashlib.sha256(printed["token"].encode()).hexdigest()
    # Pasted as it is, it loads.
    snippet = result.stdout[result.stdout.index("clients:\n") + len("clients:\n") :]
    file.write_text(file.read_text().replace("clients:\n", "clients:\n" + snippet))
    [token] = load(file, {}).clients["laptop"].all_tokens
    assert token.sha256 == printed["sha256"]
    if arguments:
        left = token.expires - datetime.datetime.now(datetime.UTC) if token.expires else None
        assert left is not None
        assert datetime.timedelta(days=89) < left <= datetime.timedelta(days=90)
    else:
        assert token.expires is None


@pytest.mark.parametrize("client", ["1", "true", "null", "a.b", "12e3", "on", "-", "A_b-c"])
def test_a_snippet_names_the_client_whatever_yaml_makes_of_its_name(client: str, file: Path) -> None:
    result = mcpgw("token", client)
    if client == "-":
        assert result.exit_code == 2
        return
    snippet = result.stdout[result.stdout.index("clients:\n") + len("clients:\n") :]
    file.write_text(file.read_text().replace("clients:\n", "clients:\n" + snippet))
    assert client in load(file, {}).clients


def test_tokens_are_new_each_time() -> None:
    assert mcpgw("token", "a").stdout != mcpgw("token", "a").stdout


# -- run and serve -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """``mcpgw`` as a process of its own; ended when the block ends."""
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    with (
        (cwd / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=cwd) as started,
    ):
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def lines_until(started: subprocess.Popen[str], prefix: str) -> list[str]:
    """What the process printed up to a line; the test's own timeout bounds it."""
    assert started.stdout
    lines = []
    for line in started.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(prefix):
            return lines
    raise AssertionError(f"ended with {started.wait(20)} after {lines}")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_endpoints_and_ends_when_told_to(file: Path, tmp_path: Path, stop: signal.Signals) -> None:
    with process("serve", "--config", str(file), cwd=tmp_path) as gateway:
        [line] = lines_until(gateway, "weather ")
        assert re.fullmatch(r"weather http://127\.0\.0\.1:[1-9][0-9]*/weather/mcp", line)
        gateway.send_signal(stop)
        assert gateway.wait(30) == 0
    said = (tmp_path / "stderr").read_text()
    assert "client demo: policy default, 1 token" in said
    assert "Traceback" not in said


@pytest.mark.timeout(60)
def test_run_prints_what_one_needs_and_it_works(tmp_path: Path) -> None:
    """The upstream is not there, so the proof that the token works is who the gateway blames."""
    with process("run", "--upstream", "http://127.0.0.1:1/mcp", "--port", "0", cwd=tmp_path) as gateway:
        lines = lines_until(gateway, "curl ")
        values = dict(line.split(None, 1) for line in lines[:2])
        settings = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
        server = settings["mcpServers"]["server"]
        assert server == {
            "type": "http",
            "url": values["endpoint"],
            "headers": {"Authorization": f"Bearer {values['token']}"},
        }
        command = shlex.split(lines[-1])
        assert command[:3] == ["curl", "-sS", values["endpoint"]]
        headers = dict(text.split(": ", 1) for option, text in itertools.pairwise(command) if option == "-H")
        body = command[command.index("-d") + 1]
        assert (tmp_path / "var" / "audit.jsonl").exists()

        status, answer = _post(values["endpoint"], body, headers)
        assert status == 502
        assert answer["id"] == 1
        assert answer["error"]["data"]["reason"] == "upstream-unreachable"
        status, answer = _post(values["endpoint"], body, headers | {"Authorization": "Bearer mcpgw_wrong"})
        assert status == 401

        gateway.terminate()
        assert gateway.wait(30) == 0
    assert values["token"] not in (tmp_path / "stderr").read_text()


def _post(endpoint: str, body: str, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request("POST", parts.path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.timeout(60)
def test_a_port_that_is_taken_is_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process("run", "--upstream", "http://127.0.0.1:1/mcp", "--port", port, cwd=tmp_path) as gateway:
            assert gateway.wait(30) == 1
            assert gateway.stdout
            assert gateway.stdout.read() == ""
    said = (tmp_path / "stderr").read_text()
    assert "address already in use" in said.lower()
    assert "Traceback" not in said
