"""A whole gateway in this process, on the production runner, with real sockets on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.config.load import validate
from gateway.harness.client import RawClient

ALICE = "alice-test-token-000000000000000000001"
BOB = "bob-test-token-00000000000000000000002"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Running:
    """A gateway under test: ``url(upstream)``, ``client(...)``, ``audit()``."""

    def __init__(self, gateway: Gateway, audit: Path) -> None:
        self.gateway = gateway
        self._audit = audit

    def url(self, upstream: str = "up") -> str:
        return self.gateway.endpoint(upstream)

    def client(self, token: str = ALICE, upstream: str = "up", **options: Any) -> RawClient:
        return RawClient(self.url(upstream), token=token, **options)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._audit.read_text().splitlines()]

    def records(self, event: str = "request.") -> list[dict[str, Any]]:
        return [each for each in self.audit() if each["event"].startswith(event)]

    def metric(self, name: str, **labels: str) -> float:
        return self.gateway.site.metrics.registry.get_sample_value(name, labels) or 0.0


def configuration(audit: Path, urls: dict[str, str], **sections: Any) -> dict[str, Any]:
    """Two clients with tokens: alice may do everything with every upstream but call ``denied_*``, bob only echo."""
    document: dict[str, Any] = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "upstreams": {name: {"url": url} for name, url in urls.items()},
        "clients": {
            "alice": {"token_sha256": digest(ALICE), "policy": "all"},
            "bob": {"token_sha256": digest(BOB), "policy": "little"},
        },
        "policies": {
            "all": {
                "allowed_upstreams": ["*"],
                "allowed_tools": ["echo", "progress", "slow", "big", "fail", "elicit", "sample", "get_*"],
                "allowed_resources": ["*"],
                "allowed_prompts": ["*"],
                "max_requests_per_minute": None,
                "max_concurrent_calls": 1000,
                "max_concurrent_streams": 1000,
            },
            "little": {"allowed_upstreams": ["*"], "allowed_tools": ["echo"], "max_requests_per_minute": None},
        },
        "audit": {"path": str(audit)},
    }
    for name, section in sections.items():
        _merge(document, name, section)
    return document


def _merge(into: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, dict) and isinstance(into.get(key), dict):
        for name, each in value.items():
            _merge(into[key], name, each)
    else:
        into[key] = value


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """``gateway = await serve({"up": url}, limits={...})``; closed, and shown to leave nothing, at the end."""
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:

        async def start(urls: dict[str, str] | str, **sections: Any) -> Running:
            named = {"up": urls} if isinstance(urls, str) else urls
            audit = tmp_path / "audit" / "audit.jsonl"
            sections.setdefault("limits", {}).setdefault("drain_timeout", 1)
            config = validate(configuration(audit, named, **sections), source="test")
            return Running(await stack.enter_async_context(Gateway(config)), audit)

        yield start
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert not left, left
    gc.collect()


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for a condition that another part of the test brings about; fails after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
