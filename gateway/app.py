"""A running gateway: opens the ports, serves until it is told to stop, ends what is under way, and leaves."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping

from aiohttp import web

from . import __version__, systemd
from .config import Config, ConfigErrors, Problem, explain
from .protocol.errors import AuditUnavailable
from .record.entry import entry
from .relay.admin import Admin
from .relay.endpoint import Endpoint
from .relay.server import DataServer, assert_c_parser, listen, start
from .relay.site import Site
from .relay.sse_upstream import open_pool
from .relay.upstream import Pool

__all__ = ["Gateway", "main", "serve"]

_log = logging.getLogger(__name__)

# Takes the place of ``listen.short_lane`` where it is set: "on" or "off".
SHORT_LANE = "MCPGW_SHORT_LANE"


class Gateway:
    """One process's gateway.  ``async with Gateway(config) as gateway`` serves until the block ends.

    ``config`` has the ports that were really opened, where the given one said 0, and the lane that ``MCPGW_SHORT_LANE``
    names.  Raises OSError, ConfigErrors.
    """

    def __init__(self, config: Config) -> None:
        assert_c_parser()
        config = _with_lane(config, os.environ)
        # Bound before anything is built from the configuration: with port 0 only now is it known what Host to expect.
        self._data_socket = listen(config.listen.host, config.listen.port)
        try:
            self._admin_socket = listen(config.admin.host, config.admin.port)
        except OSError:
            self._data_socket.close()
            raise
        self.config = _with_ports(config, self._data_socket.getsockname()[1], self._admin_socket.getsockname()[1])
        self.site = Site.of(self.config)
        self.pools: dict[str, Pool] = {}
        self.handler: Endpoint
        self._runners: list[web.BaseRunner] = []

    async def __aenter__(self) -> Gateway:
        try:
            return await self._open()
        except BaseException:
            self._data_socket.close()
            self._admin_socket.close()
            self.site.audit.close()
            raise

    async def _open(self) -> Gateway:
        config, site = self.config, self.site
        site.audit.open()
        site.audit.batch(asyncio.get_running_loop().call_later)
        site.audit.write({**entry("started"), "version": __version__})
        self.pools.update((name, open_pool(name, each, config.limits)) for name, each in config.upstreams.items())
        self.handler = Endpoint(site, self.pools)
        server = DataServer(site, self.handler, self._lanes() if config.listen.short_lane else {})
        admin = web.Server(Admin(site, self.pools), access_log=None, handler_cancellation=True)
        self._runners.append(await start(server, self._data_socket, 1.0))
        self._runners.append(await start(admin, self._admin_socket, 1.0))
        return self

    def _lanes(self) -> dict[str, Pool]:
        """The pools that have a short lane, by the paths of their endpoints."""
        lanes = {
            f"/{name}/mcp": pool
            for name, pool in self.pools.items()
            if pool.has_short_lane and not self.site.chains[name].asks
        }
        default = f"/{self.config.default_upstream}/mcp"
        return {**lanes, "/mcp": lanes[default]} if default in lanes else lanes

    async def __aexit__(self, *_: object) -> None:
        self.site.draining = True
        # New connections are refused, so that a load balancer goes elsewhere; the admin port goes on saying why.
        for site in list(self._runners[0].sites):
            await site.stop()
        await self.handler.drain(self.config.limits.drain_timeout)
        for runner in self._runners:
            await runner.cleanup()
        for pool in self.pools.values():
            await pool.close()
        self.site.audit.write(entry("stopped"), required=False)
        self.site.audit.close()

    def endpoint(self, upstream: str) -> str:
        """The URL at which clients find an upstream."""
        return f"{self.config.listen.base_url}/{upstream}/mcp"

    @property
    def admin_url(self) -> str:
        """Base URL of the admin port."""
        admin = self.config.admin
        host = f"[{admin.host}]" if ":" in admin.host else admin.host
        return f"http://{host}:{admin.port}"

    def describe(self) -> list[str]:
        """What is served where, for whom, with which hooks: a line each."""
        return explain(self.config)


def _with_lane(config: Config, environ: Mapping[str, str]) -> Config:
    named = environ.get(SHORT_LANE)
    if named is None:
        return config
    if named not in ("on", "off"):
        raise ConfigErrors([Problem("environment", None, SHORT_LANE, "expected on or off")])
    return config.model_copy(update={"listen": config.listen.model_copy(update={"short_lane": named == "on"})})


def _with_ports(config: Config, port: int, admin_port: int) -> Config:
    return config.model_copy(
        update={
            "listen": config.listen.model_copy(update={"port": port}),
            "admin": config.admin.model_copy(update={"port": admin_port}),
        }
    )


async def serve(config: Config, announce: Callable[[Gateway], None]) -> None:
    """Serve until SIGTERM or SIGINT; tells systemd, where it is there, what is going on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watchdog: asyncio.Task[None] | None = None
    async with Gateway(config) as gateway:
        announce(gateway)
        systemd.ready(f"serving {len(config.upstreams)} upstreams on {gateway.config.listen.base_url}")
        if (interval := systemd.watchdog_interval()) is not None:
            watchdog = asyncio.create_task(_watch(interval))
        await stop.wait()
        _log.info("stopping: waiting up to %g s for calls under way", config.limits.drain_timeout)
        systemd.stopping()
    if watchdog is not None:
        watchdog.cancel()
        await asyncio.gather(watchdog, return_exceptions=True)


async def _watch(interval: float) -> None:
    """Tell systemd that the event loop turns; if it hangs, this does not run and systemd restarts the process."""
    while True:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def main(config: Config, *, announce: Callable[[Gateway], None]) -> int:
    """Run a gateway in this process until it is told to stop.  Returns the exit code."""
    _start_logging(config)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(config, announce))
    except ConfigErrors as error:
        _log.error("cannot start: %s", error)
        return 2
    except OSError as error:
        _log.error("cannot start: %s", error)
        return 1
    except AuditUnavailable as error:
        _log.error("cannot start: audit.path %s: %s", config.audit.path, error.__cause__)
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: it halves the CPU of a call and changes nothing else."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _JsonLines(logging.Formatter):
    """One JSON object a line, pure ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _start_logging(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if config.logging.format == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=config.logging.level.upper(), handlers=[handler], force=True)
