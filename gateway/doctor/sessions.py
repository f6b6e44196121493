"""Sessions and streams of the revisions before 2026-07-28: ids, GET streams, resumption, DELETE, batches."""

from __future__ import annotations

import uuid
from typing import Any

from ..protocol.headers import LAST_EVENT_ID, SESSION_ID, is_session_id
from ..wire.strict import dumps
from .client import EVENT_STREAM, Reply
from .eras import end_session
from .report import Level
from .visit import ALONE, Dialect, Visit

__all__ = ["answers", "batch", "end", "get_stream", "missing_and_unknown", "resume", "session_id"]

# How long a stream is listened to that may have nothing to say.
_LISTEN = 1.0
_LEAST_ID = 16  # characters; 96 bits in base64


async def session_id(visit: Visit) -> None:
    """Whether there are sessions, and whether their ids can be guessed (rules 3.4, 3.13)."""
    dialect = _legacy(visit)
    if dialect.session is None:
        visit.say("session", Level.OK, "gives out no Mcp-Session-Id: every request stands for itself")
        return
    if not is_session_id(dialect.session):
        visit.say("session", Level.PROBLEM, "its session ids have characters that the gateway refuses (rule 3.4)")
        return
    others = [each.session for each in visit.sessions if each is not dialect]
    if dialect.session in others:
        visit.say("session", Level.PROBLEM, "gives the same session id twice: its clients share a session (rule 3.4)")
    elif len(dialect.session) < _LEAST_ID:
        visit.say(
            "session",
            Level.WARNING,
            f"its session ids are {len(dialect.session)} characters long, which may be guessed (rule 3.13)",
        )
    else:
        visit.say("session", Level.OK, f"gives out session ids of {len(dialect.session)} characters")


async def answers(visit: Visit) -> None:
    """ping and what its answer looks like: JSON or an event stream, event ids, priming, retry (rules 4.3, 5.1)."""
    for dialect in visit.dialects:
        reply = await visit.ask(dialect, "tools/list" if dialect.stateless else "ping")
        era = dialect.revision
        if reply.answer is None or reply.trouble is not None:
            why = reply.trouble or visit.describe(reply)
            if not dialect.stateless:
                visit.say("answers", Level.PROBLEM, f"{era}: ping is not answered: {why}")
            continue
        form = "an event stream" if reply.is_stream else "JSON"
        visit.say("answers", Level.OK, f"{era}: answers in {form}")
        if reply.is_stream:
            _events(visit, dialect, reply)


def _events(visit: Visit, dialect: Dialect, reply: Reply) -> None:
    frames = reply.frames
    ids = [each.id for each in frames if each.id is not None]
    retry = next((each.retry for each in frames if each.retry is not None), None)
    strange = {each.event for each in frames if each.data and each.event not in (None, b"", b"message")}
    if strange:
        name = visit.shown(min(filter(None, strange)).decode("utf-8", "replace"), 40)
        visit.say("event-ids", Level.WARNING, f"sends events of type {name}, which the gateway drops (rule 4.13)")
    if not reply.complete:
        visit.say("answers", Level.WARNING, f"{dialect.revision}: streams stay open after the answer (rule 4.5)")
    if not ids:
        visit.say("event-ids", Level.OK, f"{dialect.revision}: events carry no ids; what breaks off is lost")
        return
    if dialect.stateless:
        visit.say("event-ids", Level.NOTE, f"{dialect.revision}: events carry ids, which mean nothing there (rule 5.7)")
        return
    primed = frames[0].id is not None and not frames[0].data
    text = "events carry ids" + (", streams begin with a priming event" if primed else "")
    visit.say("event-ids", Level.OK, text + (f", retry after {retry} ms" if retry is not None else ""))
    if len(set(ids)) < len(ids):
        visit.say("event-ids", Level.WARNING, "the same event id comes twice on one stream (rule 5.1)")


async def get_stream(visit: Visit) -> None:
    """GET within the session: an event stream or 405 (rule 1.4), and what is on it before anything happens."""
    dialect = _legacy(visit)
    reply = await _get(visit, dialect)
    if reply.is_stream:
        primed = ", with a priming event" if any(each.id is not None for each in reply.frames) else ""
        closed = ", and ends at once" if reply.complete else ""
        level = Level.NOTE if closed else Level.OK
        visit.say("get-stream", level, f"GET opens a stream for the server's own messages{primed}{closed}")
        if any(isinstance(each, dict) and ("result" in each or "error" in each) for each in reply.messages):
            visit.say("get-stream", Level.WARNING, "the GET stream carries an answer that nobody asked for (rule 4.7)")
    elif reply.status == 405:
        visit.say("get-stream", Level.OK, "GET gives 405: the server has no stream of its own")
    else:
        visit.say("get-stream", Level.WARNING, f"GET gives {visit.describe(reply)}, not a stream or 405 (rule 1.4)")


async def resume(visit: Visit) -> None:
    """Whether a GET with Last-Event-ID brings what followed that event (rules 5.3, 5.4).  Needs event ids."""
    dialect = _legacy(visit)
    reply = await visit.ask(dialect, "tools/list")
    position = next((at for at, each in enumerate(reply.frames) if each.id), None)
    if position is None:
        return
    cursor = reply.frames[position].id or b""
    later = [each for each in reply.frames[position + 1 :] if each.data]
    resumed = await _get(visit, dialect, {LAST_EVENT_ID: cursor.decode("latin-1")})
    if not resumed.is_stream:
        visit.say("resume", Level.NOTE, f"does not resume streams: {visit.describe(resumed)}")
        return
    resumed.id = reply.id
    if not later:
        visit.say("resume", Level.OK, "takes Last-Event-ID; nothing was left to be replayed")
    elif resumed.answer is not None:
        visit.say("resume", Level.OK, "resumes streams: GET with Last-Event-ID replays what followed")
    else:
        visit.say("resume", Level.WARNING, "events carry ids, but GET with Last-Event-ID replays nothing (rule 5.4)")


async def missing_and_unknown(visit: Visit) -> None:
    """No session id is 400, an unknown one 404 (rules 3.6, 3.7).  Nothing to ask where there are no sessions."""
    dialect = _legacy(visit)
    if dialect.session is None:
        return
    reply = await visit.ask(dialect, "ping", without=(SESSION_ID,))
    if reply.status == 400:
        visit.say("session-missing", Level.OK, "a request without a session gets 400")
    elif reply.result is not None:
        visit.say("session-missing", Level.NOTE, "a request without a session is answered all the same (rule 3.6)")
    else:
        visit.say("session-missing", Level.NOTE, f"without a session: {visit.describe(reply)}, not 400 (rule 3.6)")
    reply = await visit.ask(Dialect(dialect.revision, str(uuid.uuid4())), "ping")
    _unknown(visit, reply, "an unknown session")


def _unknown(visit: Visit, reply: Reply, what: str) -> None:
    if reply.status == 404:
        visit.say("session-unknown", Level.OK, f"{what} gets 404")
    elif reply.result is not None:
        visit.say("session-unknown", Level.WARNING, f"{what} is served like any other (rule 3.7)")
    else:
        visit.say(
            "session-unknown",
            Level.WARNING,
            f"{what} gets {visit.describe(reply)}, not 404: clients do not learn that they have to "
            "initialize again (rule 3.7)",
            "Expect clients to fail until they are restarted when this server has been restarted.",
        )


async def end(visit: Visit) -> None:
    """DELETE, and whether the session is gone then (rule 3.8)."""
    dialect = _legacy(visit)
    if dialect.session is None:
        return
    reply = await end_session(visit, dialect)
    if reply is None:
        visit.say("session-end", Level.WARNING, "DELETE is not answered")
        return
    if reply.status == 405:
        visit.say(
            "session-end",
            Level.NOTE,
            "DELETE gives 405: the server keeps sessions until it forgets them by itself",
        )
        return
    if reply.status >= 300:
        visit.say("session-end", Level.WARNING, f"DELETE gives {visit.describe(reply)}, not 2xx or 405 (rule 3.8)")
        return
    visit.say("session-end", Level.OK, f"DELETE ends the session ({reply.status})")
    _unknown(visit, await visit.ask(dialect, "ping"), "a session that was ended")


async def batch(visit: Visit, dialect: Dialect) -> None:
    """Two pings in one body: right in 2025-03-26 alone (rules 2.5, 2.8)."""
    pings = [dialect.document(visit.next_id(), dialect.idle_method) for _ in range(2)]
    reply = await visit.client.send(
        "POST", dumps(pings), dialect.fields(dialect.idle_method), until=lambda reply: len(reply.messages) >= 2
    )
    served = sum(isinstance(each, dict) and "result" in each for each in reply.messages)
    if dialect.revision == "2025-03-26":
        if served == 2:
            visit.say("batch-2025-03-26", Level.OK, "2025-03-26: answers batches")
        else:
            text = f"2025-03-26: does not answer a batch (rule 2.6): {visit.describe(reply)}"
            visit.say("batch-2025-03-26", Level.NOTE, text)
    elif served:
        visit.say(
            "batch",
            Level.WARNING,
            f"{dialect.revision}: executes a batch, which this revision does not have (rule 2.8)",
            ALONE,
        )
    else:
        visit.say("batch", Level.OK, f"{dialect.revision}: refuses batches ({visit.describe(reply)})")


async def _get(visit: Visit, dialect: Dialect, fields: dict[str, str] | None = None) -> Reply:
    more: dict[str, Any] = {"Accept": EVENT_STREAM, **dialect.fields("GET"), **(fields or {})}
    return await visit.client.send("GET", fields=more, listen=_LISTEN)


def _legacy(visit: Visit) -> Dialect:
    dialect = visit.dialect(stateless=False)
    assert dialect is not None
    return dialect
