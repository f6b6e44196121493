"""Connections and header fields: whether they are kept alive and for how long, and what is odd about the answers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import ClientSession, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from multidict import MultiMapping
from yarl import URL

from ..protocol.headers import SESSION_ID, media_type
from ..relay.connections import Connector, UpstreamConnection
from ..relay.upstream import POOL_IDLE
from ..wire.strict import dumps
from .client import EVENT_STREAM, JSON, NoReply
from .report import Level
from .visit import Dialect, Visit

__all__ = ["anomalies", "keep_alive"]

# Longer than any watch: it is the server that is to close the connection.
_FOREVER = 600.0

_BROKEN = "`force_close: true`: a new connection for every request, since this server does not keep them properly."


class _Watched(Connector):
    """Remembers whether the connection that came back last held bytes that nobody had asked for."""

    held = False

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        self.held = protocol.should_close
        super()._release(key, protocol, should_close=should_close)
        assert isinstance(protocol, UpstreamConnection)
        protocol.in_use = True  # what comes unasked is to be seen, not cut off


async def keep_alive(visit: Visit, dialect: Dialect, idle: float) -> None:
    """Two requests on one connection, then ``idle`` seconds of silence, as the gateway's pool has them."""
    session = visit.client.session(_Watched(limit=0, keepalive_timeout=_FOREVER))
    try:
        await _twice(visit, dialect, session)
        await _watch(visit, session, idle)
    finally:
        await session.close()


async def _twice(visit: Visit, dialect: Dialect, session: ClientSession) -> None:
    for number in (1, 2):
        body = dumps(dialect.document(visit.next_id(), dialect.idle_method))
        before = _idle_connection(session)
        try:
            async with visit.client.open("POST", body, dialect.fields(dialect.idle_method), session=session) as reply:
                async for _ in reply.content.iter_any():
                    pass
        except NoReply as error:
            if number == 1:
                raise
            visit.say("keep-alive", Level.PROBLEM, f"the second request on a connection fails: {error}", _BROKEN)
            visit.report.upstream["force_close"] = True
            return
        # What was pushed behind the answer arrives with it, or a moment later.
        await asyncio.sleep(0.05)
        after = _idle_connection(session)
        if after is None or not after.is_connected():
            if reply.version is not None and reply.version.minor == 0:
                visit.say("keep-alive", Level.NOTE, "speaks HTTP/1.0: each call costs a connection")
            elif reply.headers.get("Connection", "").lower() == "close":
                visit.say("keep-alive", Level.NOTE, "closes the connection after each answer: each call costs another")
            elif isinstance(session.connector, _Watched) and session.connector.held:
                _unasked(visit)
            else:
                text = "closes the connection after each answer without saying so"
                visit.say("keep-alive", Level.WARNING, text, _BROKEN)
                visit.report.upstream["force_close"] = True
            return
        if after.should_close:
            _unasked(visit)
            return
        if number == 2:
            same = before is after
            text = "keeps connections alive" if same else "takes a second request only on a new connection"
            visit.say("keep-alive", Level.OK if same else Level.NOTE, text)


def _unasked(visit: Visit) -> None:
    text = "sends bytes behind an answer, which could be taken for the next one; its connections are not used again"
    visit.say("unasked", Level.PROBLEM, text, _BROKEN)
    visit.report.upstream["force_close"] = True


async def _watch(visit: Visit, session: ClientSession, idle: float) -> None:
    connection = _idle_connection(session)
    closed = None if connection is None else connection.closed
    if closed is None:
        return
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.wait((closed,), timeout=idle)
    if not closed.done():
        visit.say("idle", Level.OK, f"keeps an idle connection for {idle:g} s at least")
        return
    after = loop.time() - started
    text = f"closes an idle connection after {after:.1f} s"
    if after <= POOL_IDLE:
        visit.report.upstream["force_close"] = True
        visit.say(
            "idle",
            Level.WARNING,
            f"{text}; the gateway would reuse it for {POOL_IDLE:g} s, and a call may meet the closing",
            "`force_close: true`, or a longer keep-alive timeout of the server (5 s or more).",
        )
    else:
        visit.say("idle", Level.OK, text)


def _idle_connection(session: ClientSession) -> ResponseHandler | None:
    """The connection that waits in the session's pool."""
    assert isinstance(session.connector, TCPConnector)
    return next((each[0] for waiting in session.connector._conns.values() for each in waiting), None)


def anomalies(visit: Visit) -> None:
    """What is odd about the header fields of all answers so far.  Asks nothing."""
    for status, fields in visit.client.heads:
        if 300 <= status < 400:
            _redirect(visit, status, fields)
        kinds = fields.getall("Content-Type", ())
        if len(kinds) > 1:
            visit.say(
                "content-type", Level.PROBLEM, "answers with two Content-Types, of which peers read different ones"
            )
        kind, parameters = media_type(kinds[0] if kinds else None)
        if (
            status < 300
            and kind in (JSON, EVENT_STREAM)
            and parameters.get("charset", "utf-8") not in ("utf-8", "utf8")
        ):
            visit.say("content-type", Level.PROBLEM, "answers in a charset that is not UTF-8 (rule 2.4)")
        if fields.get("Content-Encoding", "identity").lower() != "identity":
            visit.say(
                "compression",
                Level.PROBLEM,
                f"compresses though it is asked not to ({visit.shown(fields['Content-Encoding'], 40)})",
                "Switch compression off for this path, in the server or the proxy before it: the gateway has to read "
                "what it relays, and refuses compressed answers.",
            )
        if fields.getall("Transfer-Encoding", ["chunked"]) != ["chunked"]:
            visit.say("framing", Level.PROBLEM, "its transfer coding is not plainly chunked")
        if len(fields.getall(SESSION_ID, ())) > 1:
            visit.say("repeated-header", Level.PROBLEM, f"sends {SESSION_ID} twice in one answer")
        if "Set-Cookie" in fields:
            # Hidden first: a cookie's name may be cut out of a secret.
            names = {visit.shown(value).partition("=")[0].strip() for value in fields.getall("Set-Cookie")}
            visit.say(
                "cookies",
                Level.NOTE,
                f"sets cookies ({', '.join(sorted(names))}), which the gateway never sends back",
                "If a load balancer before the server finds sessions by cookie, let it find them by Mcp-Session-Id: "
                "the gateway keeps no cookies.",
            )
    if not any(each.check in CHECKED_HEADERS for each in visit.report.findings):
        visit.say("content-type", Level.OK, "the header fields of all answers are in order")


CHECKED_HEADERS = frozenset(("redirect", "content-type", "compression", "framing", "repeated-header", "cookies"))


def _redirect(visit: Visit, status: int, fields: MultiMapping[str]) -> None:
    location: Any = fields.get("Location")
    where = "nowhere" if location is None else visit.shown(location)
    if location is not None and visit.shown.hide(location) == location:
        with contextlib.suppress(ValueError):
            where = visit.shown(str(visit.client.url.join(URL(location))))
    visit.say(
        "redirect",
        Level.PROBLEM,
        f"redirects ({status}) to {where}",
        None
        if location is None
        else f"The gateway follows no redirects. If you trust the address, examine it: mcpgw doctor {where}",
    )
