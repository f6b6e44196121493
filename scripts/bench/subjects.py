"""What is measured: each subject is a program between the load and the stub, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .programs import BUILD, HERE, find

__all__ = [
    "SUBJECTS",
    "TOKEN",
    "Place",
    "Subject",
    "accepts",
    "environment",
    "gateway",
    "rules_file",
    "warm",
    "with_hooks",
]

TOKEN = "bench-" + "0" * 26
MCPGW = Path(sys.executable).parent / "mcpgw"
MANY = 100_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subject is started: its folder, its port, one more for its own use, and the stub's port."""

    folder: Path
    port: int
    admin_port: int
    upstream_port: int

    @property
    def upstream(self) -> str:
        """The stub's endpoint."""
        return f"http://127.0.0.1:{self.upstream_port}/mcp"


def environment(*, compiled: bool = False) -> dict[str, str]:
    """For the programs that are started.  The gateway is the one that lies beside the benchmark, with its core compiled
    (docs/compiled.md) or as plain Python."""
    project = HERE.parents[1]
    if compiled and not (project / "build" / "compiled").exists():
        raise FileNotFoundError("the core is not compiled yet: make compiled")
    return {**os.environ, "PYTHONPATH": str(project / "build" / "compiled" if compiled else project)}


Command = Callable[[Place], Sequence[str | Path]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of the table.

    ``about``       what it is
    ``command``     writes what it needs into its folder and says what to run; None: nothing stands between
    ``needs``       a program without which it is left out
    ``path``        of its endpoint
    ``fields``      header fields that its clients send
    ``is_loose``    it says the same in other bytes than the server
    ``environment`` gives what it is started with
    ``prepare``     run once before it is started, with the configuration written; raises OSError or SubprocessError
    """

    name: str
    about: str
    command: Command | None
    needs: str | None = None
    path: str = "/mcp"
    fields: Mapping[str, str] = field(default_factory=dict)
    is_loose: bool = False
    prepare: Callable[[Place], None] | None = None
    environment: Callable[[], Mapping[str, str]] = environment


# -- proxies that understand nothing -----------------------------------------------------------------------------------

NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit; worker_rlimit_nofile 20000; {user}
events {{ worker_connections 10000; }}
http {{
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    client_max_body_size 0; client_body_buffer_size 64k; keepalive_requests 1000000000; keepalive_timeout 3600s;
    upstream stub {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_read_timeout 3600s;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 9000
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    http-reuse always
    option http-no-delay
frontend data
    bind 127.0.0.1:{port} backlog 4096
    default_backend stub
backend stub
    server stub 127.0.0.1:{upstream}
"""


def _nginx(place: Place) -> Sequence[str | Path]:
    file = place.folder / "nginx.conf"
    file.write_text(
        NGINX.format(port=place.port, upstream=place.upstream_port, user="user root;" if os.geteuid() == 0 else "")
    )
    return [find("nginx") or "nginx", "-p", place.folder, "-e", "stderr", "-c", file]


def _haproxy(place: Place) -> Sequence[str | Path]:
    file = place.folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=place.port, upstream=place.upstream_port))
    return [find("haproxy") or "haproxy", "-f", file]


def _relay(name: str) -> Command:
    return lambda place: [sys.executable, HERE / f"{name}.py", str(place.port), str(place.upstream_port)]


# -- the gateway -------------------------------------------------------------------------------------------------------

DEFAULT_HOOKS: tuple[Any, ...] = ("policy", "pins", "sanitize")
ALL_HOOKS: tuple[Any, ...] = ("policy", "arguments", "pins", "injection", "sanitize")


def _configuration(place: Place, hooks: Sequence[Any], audit: str, listen: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "listen": {"port": place.port, **listen},
        "admin": {"port": place.admin_port},
        "upstreams": {"bench": {"url": place.upstream, "connections": 20_000, "streams": 20_000}},
        "clients": {"bench": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}},
        "policies": {
            "default": {
                "allowed_upstreams": ["bench"],
                "allowed_tools": ["get_*"],
                "allowed_resources": ["weather://**"],
                # A rate that is judged and never reached.
                "max_requests_per_minute": 1_000_000_000,
                "burst": 100_000_000,
                "max_concurrent_calls": MANY,
                "max_concurrent_streams": MANY,
            }
        },
        "hooks": list(hooks),
        "audit": {"path": "audit.jsonl", "mode": audit},
        "limits": {"max_connections": 20_000, "max_sessions": 20_000, "drain_timeout": 0},
    }


def gateway(
    name: str,
    about: str,
    hooks: Sequence[Any] = DEFAULT_HOOKS,
    audit: str = "best_effort",
    listen: Mapping[str, Any] | None = None,
    *,
    compiled: bool = True,
) -> Subject:
    """The gateway as the process that operators start, with these hooks."""

    def write(place: Place) -> Path:
        file = place.folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(_configuration(place, hooks, audit, listen or {}), sort_keys=False))
        return file

    def approve(place: Place) -> None:
        file = write(place)
        if any(_kind(hook) == "pins" for hook in hooks):
            command = [MCPGW, "pins", "approve", "--config", file, "bench", "--all", "--by", "bench"]
            subprocess.run(command, cwd=place.folder, env=environment(), check=True, capture_output=True, timeout=60)

    return Subject(
        name,
        about,
        lambda place: [MCPGW, "serve", "--config", write(place)],
        fields={"Authorization": f"Bearer {TOKEN}"},
        prepare=approve,
        environment=lambda: environment(compiled=compiled),
    )


def _kind(hook: Any) -> str:
    return str(hook["kind"] if isinstance(hook, dict) else hook)


def with_hooks(*hooks: Any) -> Subject:
    """The gateway with just these hooks, to see what each costs."""
    names = [_kind(hook).rpartition(":")[2] for hook in hooks]
    return gateway(f"gateway[{','.join(names)}]", "hooks: " + ", ".join(names), hooks)


def rules_file(count: int) -> Path:
    """A file with that many rules of one's own for secrets, none of which ever matches."""
    rules = [
        {
            "id": f"bench-{number}",
            "pattern": rf"\bBENCH{number:04}-[0-9a-f]{{16}}\b",
            "keywords": [f"BENCH{number:04}-"],
        }
        for number in range(count)
    ]
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "rules.yaml"
    file.write_text(yaml.safe_dump({"rules": rules}))
    return file


def accepts(folder: Path, listen: Mapping[str, Any]) -> bool:
    """Whether ``mcpgw check`` takes these keys of the section ``listen``: the rest is known to be right."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "accepts.yaml"
    place = Place(folder, 8080, 9090, 9001)
    file.write_text(yaml.safe_dump(_configuration(place, ("policy",), "off", listen)))
    command = [MCPGW, "check", file]
    return subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=60).returncode == 0


SUBJECTS: tuple[Subject, ...] = (
    Subject("direct", "load and stub, nothing between them", None),
    Subject("nginx", "nginx, one worker, unbuffered", _nginx, needs="nginx"),
    Subject("haproxy", "haproxy, one thread", _haproxy, needs="haproxy"),
    Subject("raw-relay", "asyncio protocols on both sides, no rules", _relay("relay_raw")),
    Subject("aiohttp-relay", "bare aiohttp, tuned, no rules", _relay("relay_aiohttp")),
    gateway("gateway", "policy, pins, sanitize, rate limit, audit best_effort"),
    gateway("gateway-full-lane", "the same without the short lane", listen={"short_lane": False}),
    gateway("gateway-python", "as gateway, without the compiled core", compiled=False),
    gateway("gateway-all", "every built-in hook", ALL_HOOKS),
    gateway("gateway-durable", "as gateway, audit required", audit="required"),
)


def warm(port: int, subject: Subject) -> None:
    """One list and one call, so that definitions are known and lazy things are done.  Raises OSError."""
    for number, method, params in (
        (1, "tools/list", {}),
        (2, "tools/call", {"name": "get_weather", "arguments": {"city": "Oslo"}}),
    ):
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{subject.path}",
            body,
            {
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                "Mcp-Protocol-Version": "2025-11-25",
                **subject.fields,
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            text = answer.read()
            if b'"result"' not in text:
                raise OSError(f"{method} was answered with {text[:300]!r}")
