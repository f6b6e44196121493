"""A gateway on one lane between a scripted upstream and raw clients, and all that could be seen of what it did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.app import SHORT_LANE, Gateway
from gateway.config.load import validate
from gateway.harness.client import RawClient
from gateway.harness.response import Response
from gateway.harness.script import Received
from gateway.harness.upstream import ScriptedUpstream
from gateway.relay import server

from .conftest import ALICE, Running, configuration, until

__all__ = ["LaneName", "Side", "differences", "on_lane", "plain", "shown"]

LaneName = Literal["short", "full"]

# What differs from run to run: ids of the record, sealed ids, ports.
_REQUEST_ID = re.compile(r"\b[0-9a-f]{10}-[0-9a-f]+\b")
_SEALED = re.compile(r"[A-Za-z0-9_.~+/-]{40,}={0,2}")
_SERVER_ID = re.compile(r"server-[0-9a-f]{8}")
_PORT = re.compile(r"127\.0\.0\.1:[0-9]+")
_RETRY = re.compile(r'(?<="retry_after_ms":)[0-9]+')
_KEEP_ALIVE = ": keep-alive\n\n"
# Of a record: when, in which order, how long, for whom among many.
_RANDOM = ("time", "seq", "ms", "request", "session", "previous", "hash", "version")


class Side:
    """``client()`` makes a raw client, ``note`` writes down what it saw, ``seen`` is all of it."""

    def __init__(self, running: Running, upstream: ScriptedUpstream) -> None:
        self.running = running
        self.gateway = running.gateway
        self.upstream = upstream
        self.notes: list[Any] = []
        self._clients: list[RawClient] = []

    def client(self, token: str = ALICE, **options: Any) -> RawClient:
        """A client that is closed with the side."""
        client = self.running.client(token, **options)
        self._clients.append(client)
        return client

    def note(self, what: Any) -> None:
        """Keep something that has to be the same on both lanes."""
        self.notes.append(plain(what))

    async def take(self, client: RawClient, *, method: str | None = None) -> Response:
        """Read the next response to its end, and keep it."""
        response = await client.response(method=method)
        await response.read()
        self.note(shown(response))
        return response

    async def ask(self, client: RawClient, data: Any, **build: Any) -> Response:
        """Send a message, or bytes that are a whole request, and keep the response."""
        raw = data if isinstance(data, bytes) else client.build(data, **build)
        await client.send(raw)
        return await self.take(client, method=raw.split(b" ", 1)[0].decode())

    @property
    def server(self) -> server.DataServer:
        """The data port's server."""
        found = self.gateway._runners[0].server
        assert isinstance(found, server.DataServer)
        return found

    @property
    def lanes(self) -> int:
        """How many exchanges went over the short lane."""
        return self.server.lanes.begun

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        handler = self.gateway.handler
        return not handler.relays and not any(pool.calls or pool.streams for pool in self.gateway.pools.values())

    async def settle(self) -> None:
        """Until nothing is under way, and the record says so."""
        await until(lambda: self.idle, 10.0)

    def seen(self) -> dict[str, Any]:
        """What clients, the upstream and the record saw."""
        return {
            "clients": self.notes,
            "upstream": [_received(each) for each in self.upstream.requests],
            "cut short": [_received(each) for each in self.upstream.incomplete],
            "audit": [_record(each) for each in self.running.audit() if each["event"] not in ("started", "stopped")],
        }

    async def close_clients(self) -> None:
        """Close what is still open."""
        for each in self._clients:
            await each.close()


def shown(response: Response) -> dict[str, Any]:
    """A response that has been read, without what time it was."""
    fields = sorted((name.lower(), value) for name, value in response.headers if name.lower() != "date")
    return {
        "status": response.status,
        "reason": response.reason,
        "version": response.version,
        "fields": fields,
        "body": response.body_raw.decode("utf-8", "backslashreplace").replace(_KEEP_ALIVE, ""),
        "whole": response.complete,
    }


def _received(request: Received) -> dict[str, Any]:
    fields = sorted((name, "ID" if name.lower() == "mcp-session-id" else value) for name, value in request.headers)
    return plain(
        {"line": f"{request.method} {request.target}", "fields": fields, "body": request.body.decode("latin-1")}
    )


def _record(record: dict[str, Any]) -> dict[str, Any]:
    return plain({name: value for name, value in record.items() if name not in _RANDOM})


def plain(value: Any) -> Any:
    """Without what differs from run to run."""
    match value:
        case str():
            return _SERVER_ID.sub(
                "server-ID",
                _SEALED.sub("SEALED", _PORT.sub("HOST", _REQUEST_ID.sub("REQUEST", _RETRY.sub("0", value)))),
            )
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value


@contextlib.asynccontextmanager
async def on_lane(
    lane: LaneName,
    upstream: ScriptedUpstream,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    **sections: Any,
) -> AsyncIterator[Side]:
    """A gateway on that lane before an upstream, which it starts; at the end nothing of it is left."""
    monkeypatch.delenv(SHORT_LANE, raising=False)
    audit = folder / lane / "audit.jsonl"
    sections.setdefault("hooks", ["policy"])
    limits = {"drain_timeout": 1, **sections.pop("limits", {})}
    listen = {"short_lane": lane == "short", **sections.pop("listen", {})}
    async with upstream:
        document = configuration(audit, {"up": upstream.url}, limits=limits, listen=listen, **sections)
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(Gateway(validate(document, source="test")))
            side = Side(Running(gateway, audit), upstream)
            stack.push_async_callback(side.close_clients)

            yield side
            await side.close_clients()
            await side.settle()
            await until(lambda: not side.server.connections)
    await asyncio.sleep(0)
    gc.collect(0)


def differences(full: Any, short: Any, path: str = "") -> list[str]:
    """Where what was seen is not alike, a line each."""
    if full == short:
        return []
    if isinstance(full, dict) and isinstance(short, dict) and full.keys() == short.keys():
        return [line for key in full for line in differences(full[key], short[key], f"{path}/{key}")]
    if isinstance(full, list) and isinstance(short, list) and len(full) == len(short):
        pairs = enumerate(zip(full, short, strict=True))
        return [line for n, (one, other) in pairs for line in differences(one, other, f"{path}/{n}")]
    return [f"{path}: full {str(full)[:500]}, short {str(short)[:500]}"]
