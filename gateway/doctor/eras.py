"""Which revisions the server speaks: 2026-07-28 by asking it, the earlier ones by opening sessions."""

from __future__ import annotations

from typing import Any

from ..protocol.headers import SESSION_ID
from ..protocol.revisions import LEGACY, SUPPORTED
from ..wire.strict import dumps
from .client import NoReply, Reply
from .report import Level
from .visit import NEWEST_MODERN, Dialect, Visit

__all__ = ["discover", "end_session", "initialize", "introduce", "negotiate", "newest_session", "refusal"]

_UNSUPPORTED = -32022
_REFUSALS = frozenset((401, 403, 407))
_INFO = {"clientInfo": {"name": "mcpgw-doctor", "version": "1"}, "capabilities": {}}


async def discover(visit: Visit) -> None:
    """server/discover at 2026-07-28 (rules 6.1-6.3, 6.30)."""
    dialect = Dialect(NEWEST_MODERN)
    reply = await visit.ask(dialect, "server/discover")
    result = reply.result
    if result is None:
        refusal(visit, reply)
        data = (reply.error or {}).get("data")
        if reply.code == _UNSUPPORTED and isinstance(data, dict):
            visit.say(
                "discover",
                Level.WARNING,
                f"it is stateless, but without {NEWEST_MODERN}: it has {visit.shown(data.get('supported'))}",
            )
        elif not _explained(reply):
            visit.say("discover", Level.NOTE, f"does not speak {NEWEST_MODERN}: {visit.describe(reply)}")
        return
    versions = result.get("supportedVersions")
    listed = [each for each in versions if isinstance(each, str)] if isinstance(versions, list) else []
    if reply.trouble is not None:
        visit.say("discover", Level.PROBLEM, f"answers server/discover, but {reply.trouble}")
        return
    if NEWEST_MODERN not in listed:
        # Some servers of earlier revisions answer whatever they are asked.
        visit.say(
            "discover", Level.WARNING, f"answers server/discover, but without {NEWEST_MODERN} in supportedVersions"
        )
        return
    visit.dialects.append(dialect)
    visit.report.speaks[NEWEST_MODERN] = "stateless"
    unknown = [each for each in listed if each not in SUPPORTED]
    text = f"speaks {NEWEST_MODERN} without sessions; supportedVersions: {visit.shown(', '.join(listed))}"
    visit.say("discover", Level.OK, text)
    if unknown:
        visit.say(
            "revisions", Level.NOTE, f"has revisions that the gateway does not have: {visit.shown(', '.join(unknown))}"
        )
    meta = result.get("_meta")
    info = meta.get("io.modelcontextprotocol/serverInfo") if isinstance(meta, dict) else None
    introduce(visit, info, result.get("capabilities"))
    lacking = [each for each in ("resultType", "ttlMs", "cacheScope") if each not in result]
    if lacking:
        visit.say("cache-hints", Level.NOTE, f"server/discover lacks {', '.join(lacking)} (rules 7.1, 7.16)")


async def newest_session(visit: Visit) -> None:
    """initialize with the newest revision that has sessions; with older ones while it is refused for the revision's
    sake (rules 3.1, 3.2)."""
    for revision in reversed(LEGACY):
        reply, dialect = await initialize(visit, revision)
        if dialect is not None:
            visit.dialects.append(dialect)
            result = reply.result or {}
            introduce(visit, result.get("serverInfo"), result.get("capabilities"))
            return
        refusal(visit, reply)
        if reply.result is not None or _explained(reply):
            return
        visit.say("initialize", Level.NOTE, f"initialize with {revision} is refused: {_why_not(visit, reply)}")
        if reply.error is None or reply.status not in (200, 400):
            return


async def negotiate(visit: Visit, revision: str) -> Dialect | None:
    """initialize with another revision; None where it was refused."""
    reply, dialect = await initialize(visit, revision)
    if dialect is None and reply.result is None:
        visit.say("initialize", Level.NOTE, f"initialize with {revision} is refused: {_why_not(visit, reply)}")
    return dialect


async def initialize(visit: Visit, revision: str) -> tuple[Reply, Dialect | None]:
    """Open a session, or find that there are none.  The dialect is None where the gateway could not open one."""
    id = visit.next_id()
    document = {
        "jsonrpc": "2.0",
        "id": id,
        "method": "initialize",
        "params": {"protocolVersion": revision, **_INFO},
    }
    reply = await visit.client.send("POST", dumps(document), until=lambda reply: _answered(reply, id))
    reply.id = id
    visit.replies.append(reply)
    result = reply.result
    if result is None:
        return reply, None
    session = reply.fields.get(SESSION_ID)
    negotiated = result.get("protocolVersion")
    dialect = Dialect(negotiated if isinstance(negotiated, str) else revision, session)
    if session is not None:
        visit.sessions.append(dialect)
        visit.report.opened += 1
    if reply.trouble is not None:
        visit.say("initialize", Level.PROBLEM, f"opens sessions, but {reply.trouble}")
        return reply, None
    if negotiated not in LEGACY:
        visit.say(
            "initialize",
            Level.PROBLEM,
            f"initialize with {revision} was answered with {visit.shown(negotiated)}, which the gateway does not have",
        )
        return reply, None
    visit.report.speaks.setdefault(dialect.revision, "no sessions" if session is None else "sessions")
    if negotiated == revision:
        visit.say("initialize", Level.OK, f"initialize with {revision}: negotiates it")
    else:
        visit.say("initialize", Level.NOTE, f"initialize with {revision}: negotiates {negotiated} instead")
    done = await visit.client.send(
        "POST",
        dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        dialect.fields("notifications/initialized"),
        listen=1.0,
    )
    if done.status == 202 and not done.body:
        visit.say("initialized", Level.OK, "accepts notifications with HTTP 202 and no body")
    elif done.status < 300:
        visit.say("initialized", Level.NOTE, f"accepts notifications with {visit.describe(done)}, not a bare 202")
    else:
        visit.say("initialized", Level.PROBLEM, f"refuses notifications/initialized: {visit.describe(done)} (rule 2.9)")
    return reply, dialect


async def end_session(visit: Visit, dialect: Dialect) -> Reply | None:
    """DELETE; forgets the session whatever the answer is.  None where there is none."""
    if dialect not in visit.sessions:
        return None
    visit.sessions.remove(dialect)
    try:
        reply = await visit.client.send("DELETE", fields=dialect.fields("DELETE"), listen=1.0)
    except NoReply:
        return None
    if reply.status < 300:
        visit.report.ended += 1
    return reply


def refusal(visit: Visit, reply: Reply) -> None:
    """Remember an answer that is about credentials."""
    if reply.status in _REFUSALS and visit.refused is None:
        visit.refused = reply


def _explained(reply: Reply) -> bool:
    """Whether an answer is about redirects or credentials, which findings of their own are about."""
    return 300 <= reply.status < 400 or reply.status in _REFUSALS


def introduce(visit: Visit, info: Any, capabilities: Any) -> None:
    """Who the server is and what it offers, as its first answer says it."""
    capabilities = capabilities if isinstance(capabilities, dict) else {}
    first = not visit.capabilities
    visit.capabilities = {**capabilities, **visit.capabilities}
    if not first or not isinstance(info, dict):
        return
    named = " ".join(visit.shown(info[each], 60) for each in ("name", "version") if each in info)
    offers = ", ".join(visit.shown(each, 40) for each in capabilities) or "nothing"
    visit.say("server", Level.OK, f'calls itself "{named}"; capabilities: {offers}')
    if isinstance(info.get("name"), str):
        visit.report.name = visit.shown(info["name"], 60)


def _why_not(visit: Visit, reply: Reply) -> str:
    supported = (reply.error or {}).get("data")
    text = visit.describe(reply)
    if isinstance(supported, dict) and isinstance(supported.get("supported"), list):
        text += f"; it has {visit.shown(supported['supported'])}"
    return text if reply.trouble is None else f"{text}; {reply.trouble}"


def _answered(reply: Reply, id: int) -> bool:
    reply.id = id
    return reply.answer is not None
