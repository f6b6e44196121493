"""The examination: which probe follows which, and what is tidied up."""

from __future__ import annotations

import asyncio
import contextlib

from ..config import Limits, Upstream
from ..protocol.revisions import LEGACY
from ..relay.upstream import POOL_IDLE
from . import connections, credentials, eras, sessions, strictness
from .advice import conclude
from .client import Client, NoReply
from .definitions import definitions
from .reach import reach
from .report import Level, Report, Shown
from .sse import http_sse
from .visit import Dialect, Visit

__all__ = ["IDLE", "examine"]

# An idle connection is watched for a little longer than the gateway would keep it.
IDLE = POOL_IDLE + 0.5
# So many requests may run into their timeout before nothing more is asked.
_REQUESTS_IN_VAIN = 12


async def examine(upstream: Upstream, limits: Limits, *, patience: float = 10.0, idle: float = IDLE) -> Report:
    """Examine the server at ``upstream.url`` with its headers.

    ``patience`` is in seconds and for each request, ``idle`` for how long an idle connection is watched.  Raises
    nothing for what the server does: whatever goes wrong is in the report.
    """
    report = Report(upstream.url)
    async with Client(upstream, limits, patience, patience * _REQUESTS_IN_VAIN) as client:
        visit = Visit(client, report, Shown(upstream.headers))
        if await reach(visit):
            try:
                await _eras(visit)
                if visit.dialects or visit.sse:
                    await visit.run("open", credentials.without_credentials)
                if visit.dialects:
                    await _details(visit, idle)
            finally:
                await _leave(visit)
            connections.anomalies(visit)
            credentials.challenge(visit)
            _complain(visit)
        conclude(visit, upstream)
    return report


async def _eras(visit: Visit) -> None:
    await visit.run("discover", eras.discover)
    await visit.run("initialize", eras.newest_session)
    await visit.run("sse-transport", http_sse)


async def _details(visit: Visit, idle: float) -> None:
    """Everything that needs a way to speak to the server.  The idle connection is watched meanwhile."""
    preferred = visit.dialects[0]
    legacy = visit.dialect(stateless=False)
    watching = asyncio.create_task(
        visit.run("keep-alive", lambda visit: connections.keep_alive(visit, preferred, idle))
    )
    try:
        second = None if legacy is None else await _second(visit, legacy)
        await visit.run("answers", sessions.answers)
        if legacy is not None:
            await visit.run("session", sessions.session_id)
            await visit.run("get-stream", sessions.get_stream)
            await visit.run("resume", sessions.resume)
            await visit.run("session-missing", sessions.missing_and_unknown)
        for dialect in visit.dialects:
            await _wrong_requests(visit, dialect)
        await visit.run("list", definitions)
        await watching  # it may use the session that is about to be ended
        if legacy is not None:
            await visit.run("session-end", sessions.end)
            await _older(visit, legacy, second)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _wrong_requests(visit: Visit, dialect: Dialect) -> None:
    probes = {**strictness.PROBES, **(strictness.STATELESS_PROBES if dialect.stateless else {})}
    for check, probe in probes.items():
        await visit.run(check, lambda visit, probe=probe: probe(visit, dialect))  # type: ignore[misc]
    await visit.run("batch", lambda visit: sessions.batch(visit, dialect))


async def _second(visit: Visit, legacy: Dialect) -> str | None:
    """Open a second session beside the first one, as the next client of a gateway would.

    Returns its revision if it was refused.
    """
    revision = _beside(legacy)
    with contextlib.suppress(NoReply):
        if await eras.negotiate(visit, revision) is not None:
            return None
    return revision


async def _older(visit: Visit, legacy: Dialect, refused: str | None) -> None:
    """The other revisions, one session at a time."""
    for revision in reversed(LEGACY):
        if revision == legacy.revision or (revision == _beside(legacy) and refused is None):
            continue

        async def probe(visit: Visit, revision: str = revision) -> None:
            dialect = await eras.negotiate(visit, revision)
            if dialect is None:
                return
            if revision == refused and legacy.session is not None:
                visit.say(
                    "one-session",
                    Level.WARNING,
                    "refuses a second session while the first one is open, and opens it afterwards",
                    "Every client of the gateway opens a session of its own: this server serves one client at a time.",
                )
            if dialect.revision == "2025-03-26":
                await sessions.batch(visit, dialect)
            await eras.end_session(visit, dialect)

        await visit.run("initialize", probe)


def _beside(legacy: Dialect) -> str:
    """The newest revision that is not the first session's."""
    return next(each for each in reversed(LEGACY) if each != legacy.revision)


async def _leave(visit: Visit) -> None:
    """End whatever session is still open."""
    visit.client.extend()
    for dialect in tuple(visit.sessions):
        await eras.end_session(visit, dialect)


def _complain(visit: Visit) -> None:
    """Where no era answered: say what that looks like."""
    if visit.dialects or visit.sse or visit.refused is not None:
        return
    last = next(iter(visit.replies), None)
    if last is None:
        text = "no MCP server answers here: no request got an HTTP answer"
    elif last.kind.startswith("text/html") and last.status < 300:
        text = "this is a web page, not an MCP endpoint"
    elif last.status == 404:
        text = "there is nothing at this path (404)"
    elif 300 <= last.status < 400:
        text = "a redirect is all that there is"
    else:
        text = f"no MCP server answers here: server/discover gives {visit.describe(last)}"
    found = last is not None and last.status < 500
    advice = "The endpoint's path is often /mcp, of old servers /sse." if found else None
    visit.say("answer", Level.PROBLEM, text, advice)
