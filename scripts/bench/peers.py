"""Other gateways for MCP, from PyPI and npm, each in a folder of its own below build/bench-peers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .programs import BUILD, HERE
from .subjects import Place, Subject

__all__ = ["PEERS"]

FOLDER = BUILD.parent / "bench-peers"
INSTALL_TIMEOUT = 300


def _python(package: str) -> None:
    """A virtual environment with the package.  Raises OSError or SubprocessError."""
    folder = FOLDER / package
    if not (folder / "installed").exists():
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package)
        (folder / "installed").touch()


def _node(package: str) -> None:
    """A folder with the package in its node_modules.  Raises OSError or SubprocessError."""
    folder = FOLDER / "npm"
    if not (folder / "node_modules" / package).exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        _run(npm, "install", "--silent", "--no-save", "--prefix", folder, package)


def _run(*command: str | Path) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=INSTALL_TIMEOUT)


def _mcp_proxy(place: Place) -> Sequence[str | Path]:
    program = FOLDER / "mcp-proxy" / "bin" / "mcp-proxy"
    # It speaks HTTP on one side and stdio on the other, so two of them make a relay.
    client = (program, "--log-level", "ERROR", "--transport", "streamablehttp", place.upstream)
    return [program, "--log-level", "ERROR", "--stateless", "--port", str(place.port), "--", *client]


def _fastmcp(place: Place) -> Sequence[str | Path]:
    python = FOLDER / "fastmcp" / "bin" / "python"
    return [python, HERE / "peer_fastmcp.py", str(place.port), place.upstream]


def _npm(place: Place) -> Sequence[str | Path]:
    # Modules are looked for beside the file that wants them.
    script = FOLDER / "npm" / "peer_npm.mjs"
    shutil.copy(HERE / "peer_npm.mjs", script)
    return ["node", script, str(place.port), place.upstream]


PEERS = (
    Subject(
        "peer-npm-mcp-proxy",
        "npm mcp-proxy, its HTTP server and proxy on the TypeScript SDK",
        _npm,
        needs="node",
        is_loose=True,
        prepare=lambda _: _node("mcp-proxy"),
    ),
    Subject(
        "peer-pypi-mcp-proxy",
        "PyPI mcp-proxy, twice: HTTP to stdio to HTTP",
        _mcp_proxy,
        is_loose=True,
        prepare=lambda _: _python("mcp-proxy"),
    ),
    Subject(
        "peer-fastmcp",
        "PyPI fastmcp, create_proxy",
        _fastmcp,
        is_loose=True,
        prepare=lambda _: _python("fastmcp"),
    ),
)
