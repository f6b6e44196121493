"""Two real servers, the gateway in front of both, and the sessions that five real clients have with them.

A session is held once and its transcript kept; the tests then look at one thing each.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from tests.end_to_end.sdk import processes
from tests.end_to_end.sdk.script import ANSWERS, Era, Server, Step, session

__all__ = ["CLIENTS", "Lab", "Outcome", "Transcript", "Via"]

HERE = Path(__file__).parent
Via = Literal["direct", "gateway"]
Outcome = dict[str, Any]
Transcript = dict[str, Outcome]

# The SDK's client programs, with the era that each is asked for.
CLIENTS: dict[str, tuple[list[str], Era]] = {
    "python-legacy": ([sys.executable, str(HERE / "python_client.py")], "legacy"),
    "python-modern": ([sys.executable, str(HERE / "python_client.py")], "modern"),
    "ts1-legacy": (["node", str(HERE / "ts" / "client1.mjs")], "legacy"),
    "ts2-legacy": (["node", str(HERE / "ts" / "client2.mjs")], "legacy"),
    "ts2-modern": (["node", str(HERE / "ts" / "client2.mjs")], "modern"),
}

# One for each thing that the gateway can say no to.
POLICIES: dict[str, dict[str, Any]] = {
    "open": {"max_requests_per_minute": None},
    "narrow": {
        "allowed_tools": ["get_*", "stream_forecast"],
        "allowed_resources": ["weather://**"],
        "max_requests_per_minute": None,
        "max_request_size": "64KiB",
    },
    # Ten in a second, once the burst is used up.
    "limited": {"max_requests_per_minute": 600, "burst": 8},
}


@dataclass
class Lab:
    """What has been started so far.  Nothing is started before a test needs it."""

    logs: Path
    stack: contextlib.ExitStack
    needs: Callable[[str, str], str]
    upstream_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    tokens: dict[str, str] = field(default_factory=lambda: {name: secrets.token_urlsafe(24) for name in POLICIES})
    urls: dict[str, str] = field(default_factory=dict)
    transcripts: dict[tuple[str, ...], Transcript] = field(default_factory=dict)

    @functools.cached_property
    def node(self) -> str:
        """Node.js, with the packages that the tests need; skips the test where that cannot be had."""
        how = "Node.js 20 or later with npm; `make test` brings them, so does https://nodejs.org/"
        node, npm = self.needs("node", how), self.needs("npm", how)
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20).stdout
        if int(version.lstrip("v").split(".")[0]) < 20:
            pytest.skip(f"SKIPPED-NEEDS: {how}; {node} is {version.strip()}")
        problem = processes.install(npm)
        if problem is not None:
            pytest.skip(f"SKIPPED-NEEDS: packages from npm: `npm ci` in tests/end_to_end/sdk/ts failed: {problem}")
        return node

    def upstream(self, server: Server) -> str:
        """The URL of a server itself."""
        if server not in self.urls:
            start = (
                processes.weather_server(self.logs, self.upstream_token)
                if server == "weather"
                else processes.everything_server(self.logs, self.node)
            )
            self.urls[server] = self.stack.enter_context(start)
        return self.urls[server]

    def through_gateway(self, server: Server) -> str:
        """The URL of a server behind the gateway."""
        self.upstream(server)
        if "gateway" not in self.urls:
            ports = processes.free_port(), processes.free_port()
            base, admin = (f"http://127.0.0.1:{port}" for port in ports)
            path = self.logs / "gateway.yaml"
            path.write_text(yaml.safe_dump(self._configuration(*ports)))
            start = processes.gateway(self.logs, path, admin, {"WEATHER_TOKEN": self.upstream_token})
            self.stack.enter_context(start)
            self.urls["gateway"] = base
        return f"{self.urls['gateway']}/{server}/mcp"

    def _configuration(self, port: int, admin: int) -> dict[str, Any]:
        upstreams: dict[str, Any] = {
            "weather": {
                "url": self.upstream("weather"),
                "headers": {"Authorization": "Bearer ${WEATHER_TOKEN}"},
            }
        }
        # Without Node.js the Python SDK still has one server to be tested with.
        with contextlib.suppress(pytest.skip.Exception):
            upstreams["everything"] = {"url": self.upstream("everything")}
        everyone = {
            "allowed_upstreams": list(upstreams),
            "allowed_tools": ["*"],
            "allowed_resources": ["*"],
            "allowed_prompts": ["*"],
        }
        return {
            "listen": {"port": port},
            "admin": {"port": admin},
            "upstreams": upstreams,
            "clients": {
                name: {"policy": name, "token_sha256": hashlib.sha256(token.encode()).hexdigest()}
                for name, token in self.tokens.items()
            },
            "policies": {name: {**everyone, **policy} for name, policy in POLICIES.items()},
            "audit": {"path": str(self.logs / "audit.jsonl")},
        }

    def run(self, client: str, url: str, token: str | None, server: Server, steps: list[Step]) -> Transcript:
        """Hold one session; what came of each step, by its name."""
        command, era = CLIENTS[client]
        if command[0] == "node":
            command = [self.node, *command[1:]]
        script = {"url": url, "era": era, "token": token, "content": ANSWERS[server], "steps": steps}
        done = subprocess.run([*command, json.dumps(script)], capture_output=True, text=True, timeout=60, cwd=HERE)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        told = {line["step"]: line for line in lines}
        assert done.returncode == 0 and "open" in told, f"{client} failed:\n{done.stderr[-4000:]}"
        missing = {step.get("as", step["do"]) for step in steps} - set(told)
        assert not missing or "error" in told["open"], f"{missing} did not happen:\n{done.stderr[-4000:]}"
        return told

    def transcript(self, client: str, server: Server, via: Via) -> Transcript:
        """The whole session of a client with a server, one way or the other."""
        key = client, server, via
        if key not in self.transcripts:
            era: Era = CLIENTS[client][1] if server == "weather" else "legacy"
            token = self.upstream_token if via == "direct" else self.tokens["open"]
            url = self.upstream(server) if via == "direct" else self.through_gateway(server)
            self.transcripts[key] = self.run(client, url, token, server, session(server, era))
        return self.transcripts[key]
