"""The admin port: health, readiness, metrics, what is served.  Nothing of it is reachable on the data port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..wire.strict import dumps
from .site import Site
from .upstream import Pool

__all__ = ["Admin"]

# How long the result of reaching out to the upstreams is good for, in seconds: probes come often and from many places.
FRESH = 2.0

# Where nobody but this machine's programs gets at the port, and a browser's pages must not either.
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class Admin:
    """Handles the requests of the admin port."""

    def __init__(self, site: Site, pools: Mapping[str, Pool]) -> None:
        self._site = site
        self._pools = pools
        own = site.config.admin.host
        self._is_private = own in _LOOPBACK
        self._hosts = {*_LOOPBACK, own}
        self._lock = asyncio.Lock()
        self._checked: tuple[float, dict[str, bool]] | None = None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._is_private and _host_name(request) not in self._hosts:
            return _json(421, {"error": "this Host is not served here"})  # a page whose name was bound to this address
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "the admin port has GET only"}, {"Allow": "GET, HEAD"})
        match request.raw_path.partition("?")[0]:
            case "/healthz":
                return _json(200, {"status": "ok"})
            case "/readyz":
                return await self._ready()
            case "/metrics":
                body, content_type = self._site.metrics.render()
                return web.Response(body=body, headers={"Content-Type": content_type})
            case "/servers":
                return await self._servers()
            case _:
                return _json(404, {"error": "known paths: /healthz, /readyz, /metrics, /servers"})

    async def _reachable(self) -> dict[str, bool]:
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._checked is None or loop.time() - self._checked[0] > FRESH:
                results = await asyncio.gather(*(pool.reachable() for pool in self._pools.values()))
                self._checked = loop.time(), dict(zip(self._pools, results, strict=True))
            return self._checked[1]

    async def _ready(self) -> web.Response:
        """200 when calls can be served: not draining, audit writable, and at least one upstream reachable.

        One dead upstream of several does not take the others out of service; the body says which it is.
        """
        upstreams = await self._reachable()
        audit = self._site.audit.check()
        ready = not self._site.draining and audit is None and any(upstreams.values())
        return _json(
            200 if ready else 503,
            {
                "ready": ready,
                "draining": self._site.draining,
                "audit": audit or "ok",
                "upstreams": {name: "ok" if up else "unreachable" for name, up in upstreams.items()},
            },
        )

    async def _servers(self) -> web.Response:
        upstreams = await self._reachable()
        config = self._site.config
        return _json(
            200,
            {
                "servers": [
                    {
                        "name": name,
                        "endpoint": f"{config.listen.base_url}/{name}/mcp",
                        "transport": config.upstreams[name].transport,
                        "reachable": upstreams[name],
                        "hooks": [f"{entry.name} ({entry.mode})" for entry in config.hooks_for(name)],
                        "calls": pool.calls,
                        "streams": pool.streams,
                        "idle_connections": pool.idle_connections,
                    }
                    for name, pool in self._pools.items()
                ],
                "sessions": len(self._site.sessions),
            },
        )


def _host_name(request: web.BaseRequest) -> str:
    """The Host field without its port and brackets."""
    host = request.headers.get("Host", "").lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]")


def _json(status: int, document: Any, fields: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=dumps(document) + b"\n", headers={"Content-Type": "application/json", **(fields or {})}
    )
