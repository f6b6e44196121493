"""A site without sockets, and exchanges on it that are driven like a playbook: bytes in, bytes and decisions out."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.config.load import validate
from gateway.relay.exchange import Forward
from gateway.relay.gate import Head
from gateway.relay.get import Get
from gateway.relay.post import Post
from gateway.relay.site import Site

TOKEN = "playbook-token-0000000000000000000000001"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
EVENT_STREAM = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}


class Playbook:
    """Makes exchanges of one caller; ``clock`` is what time it is."""

    def __init__(self, site: Site, audit: Path) -> None:
        self.site = site
        self.clock = 100.0
        self._audit = audit

    def head(self, method: str = "POST", target: str = "/up/mcp", **fields: str) -> Head:
        headers = CIMultiDict(
            {
                "Host": "127.0.0.1:8080",
                "Authorization": f"Bearer {TOKEN}",
                "Accept": "application/json, text/event-stream",
                **({"Content-Type": "application/json"} if method == "POST" else {}),
            }
        )
        headers.update({name.replace("_", "-"): value for name, value in fields.items()})
        return Head(method, target, (1, 1), headers, "127.0.0.1")

    def start(self, kind: type[Any], head: Head) -> Any:
        exchange = kind(self.site, head, "r-1", self.clock)
        exchange.upstream = self.site.gate.route(head)
        exchange.admit(self.site.gate.identify(head, NOW), self.clock)
        return exchange

    def post(self, message: Any, **fields: str) -> tuple[Post, Forward | None]:
        """A POST whose message has been judged."""
        exchange = self.start(Post, self.head(**fields))
        exchange.feed(message if isinstance(message, bytes) else json.dumps(message).encode())
        return exchange, exchange.complete(self.clock)

    def get(self, **fields: str) -> tuple[Get, Forward]:
        exchange = self.start(Get, self.head("GET", **fields))
        return exchange, exchange.open(self.clock)

    def session(self, id: str = "s-1", revision: str = "2025-11-25", capabilities: Any = None) -> str:
        """Open a session by an initialize that the upstream answers."""
        params = {
            "protocolVersion": revision,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "p", "version": "1"},
        }
        exchange, _ = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        exchange.answer_head(200, CIMultiDict({**JSON, "Mcp-Session-Id": id}), self.clock)
        result = {"protocolVersion": revision, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        exchange.collect(json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode(), self.clock)
        reply = exchange.finish(self.clock)
        assert reply is not None
        exchange.close(self.clock)
        return reply.fields["Mcp-Session-Id"]

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._audit.read_text().splitlines()]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Playbook]]:
    """``book = play(hooks=[...])``: a playbook on a site of its own."""
    sites = []

    def make(**sections: Any) -> Playbook:
        audit = tmp_path / f"audit-{len(sites)}.jsonl"
        document = {
            "upstreams": {"up": {"url": "http://127.0.0.1:9/mcp"}},
            "clients": {"alice": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}},
            "policies": {
                "default": {
                    "allowed_upstreams": ["up"],
                    "allowed_tools": ["get_*"],
                    "allowed_resources": ["*"],
                    "allowed_prompts": ["*"],
                    "max_requests_per_minute": None,
                }
            },
            "audit": {"path": str(audit)},
            **sections,
        }
        site = Site.of(validate(document, source="test"))
        site.audit.open()
        sites.append(site)
        return Playbook(site, audit)

    yield make
    for site in sites:
        site.audit.close()
