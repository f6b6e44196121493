"""What the server does with requests that are wrong.  The gateway refuses them all; whoever goes round it may not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..protocol.headers import METHOD, VERSION
from ..protocol.modern import VERSION_MEMBER
from ..wire.strict import dumps
from .client import EVENT_STREAM, Reply
from .report import Level
from .visit import ALONE, Dialect, Visit

__all__ = ["PROBES", "STATELESS_PROBES"]

_FOREIGN = "https://mcpgw-doctor.invalid"
_NO_REVISION = "1999-01-01"
_NO_METHOD = "mcpgw-doctor/no-such-method"

Probe = Callable[[Visit, Dialect], Awaitable[None]]


async def accept(visit: Visit, dialect: Dialect) -> None:
    """Without Accept (rule 2.2)."""
    reply = await visit.ask(dialect, dialect.idle_method, without=("Accept",))
    if reply.result is not None:
        visit.say("accept", Level.OK, f"{dialect.revision}: answers without an Accept header, too")
    else:
        visit.say("accept", Level.OK, f"{dialect.revision}: wants an Accept header ({visit.describe(reply)})")


async def media_type(visit: Visit, dialect: Dialect) -> None:
    """JSON that is called text/plain, which a web page may send anywhere without asking (rule 2.3)."""
    reply = await visit.ask(dialect, dialect.idle_method, fields={"Content-Type": "text/plain"})
    if reply.result is not None:
        visit.say(
            "media-type",
            Level.WARNING,
            f"{dialect.revision}: takes text/plain, which a web page can send without asking (rule 2.3)",
            ALONE,
        )
    else:
        visit.say("media-type", Level.OK, f"{dialect.revision}: refuses text/plain ({visit.describe(reply)})")


async def origin(visit: Visit, dialect: Dialect) -> None:
    """A foreign Origin (rules 1.5, 1.6)."""
    reply = await visit.ask(dialect, dialect.idle_method, fields={"Origin": _FOREIGN})
    if reply.result is not None:
        visit.say(
            "origin",
            Level.WARNING,
            f"{dialect.revision}: takes requests of any web page: a foreign Origin is answered (rule 1.5)",
            ALONE,
        )
    elif reply.status == 403:
        visit.say("origin", Level.OK, f"{dialect.revision}: a foreign Origin gets 403")
    else:
        visit.say("origin", Level.OK, f"{dialect.revision}: refuses a foreign Origin ({visit.describe(reply)})")


async def method(visit: Visit, dialect: Dialect) -> None:
    """A method that does not exist: -32601, and 404 in 2026-07-28 (rule 6.22)."""
    reply = await visit.ask(dialect, _NO_METHOD)
    good = reply.code == -32601 and (reply.status == 404 or not dialect.stateless)
    wanted = "404 with -32601 (rule 6.22)" if dialect.stateless else "-32601"
    if good:
        visit.say("method", Level.OK, f"{dialect.revision}: an unknown method gets {visit.describe(reply)}")
    else:
        text = f"{dialect.revision}: an unknown method gets {visit.describe(reply)}, not {wanted}"
        visit.say("method", Level.NOTE, text)


async def duplicate_member(visit: Visit, dialect: Dialect) -> None:
    """The same member twice: which one counts is what a policy could be deceived with (rule 2.19)."""
    first, last = visit.next_id(), visit.next_id()
    body = dumps(dialect.document(last, dialect.idle_method)).replace(b"{", b'{"id":%d,' % first, 1)
    reply = await visit.ask(dialect, dialect.idle_method, body=body)
    taken = {each["id"]: name for each in reply.messages for id, name in ((first, "first"), (last, "last"))
             if isinstance(each, dict) and "result" in each and each.get("id") == id}  # fmt: skip
    if taken:
        which = next(iter(taken.values()))
        visit.say(
            "duplicate-member",
            Level.NOTE,
            f"{dialect.revision}: takes the {which} of two equal members; the gateway refuses such a message "
            "(rule 2.19)",
        )
    else:
        text = f"{dialect.revision}: refuses a member that is there twice ({visit.describe(reply)})"
        visit.say("duplicate-member", Level.OK, text)


async def syntax(visit: Visit, dialect: Dialect) -> None:
    """A body that is not JSON: 400 (rule 2.4)."""
    reply = await visit.ask(dialect, dialect.idle_method, body=b'{"jsonrpc":')
    _expect(visit, dialect, reply, "syntax", "what is not JSON", 400, None)


async def version(visit: Visit, dialect: Dialect) -> None:
    """A revision that does not exist: 400 (rules 3.11, 6.3)."""
    document = dialect.document(visit.next_id(), dialect.idle_method)
    if dialect.stateless:
        document["params"]["_meta"][VERSION_MEMBER] = _NO_REVISION
    reply = await visit.ask(dialect, dialect.idle_method, fields={VERSION: _NO_REVISION}, document=document)
    code = -32022 if dialect.stateless else None
    _expect(visit, dialect, reply, "version", "a revision that does not exist", 400, code)


async def envelope(visit: Visit, dialect: Dialect) -> None:
    """A request of 2026-07-28 without its envelope: 400 and -32602 (rule 6.1)."""
    document = dialect.document(visit.next_id(), dialect.idle_method)
    document["params"] = {}
    reply = await visit.ask(dialect, dialect.idle_method, document=document)
    _expect(visit, dialect, reply, "envelope", "a request without _meta", 400, -32602)


async def mirrored_header(visit: Visit, dialect: Dialect) -> None:
    """Headers that say something else than the body: 400 and -32020 (rules 6.5, 6.10)."""
    reply = await visit.ask(dialect, "server/discover", fields={METHOD: "tools/list"})
    _expect(visit, dialect, reply, "mirrored-header", "an Mcp-Method that is not the body's method", 400, -32020)
    reply = await visit.ask(dialect, "server/discover", without=(METHOD,))
    _expect(visit, dialect, reply, "mirrored-header", "a request without Mcp-Method", 400, -32020)


async def get_modern(visit: Visit, dialect: Dialect) -> None:
    """GET in 2026-07-28: 405 (rule 1.3)."""
    fields = {VERSION: dialect.revision, "Accept": EVENT_STREAM}
    reply = await visit.client.send("GET", fields=fields, listen=0.5)
    if reply.status == 405:
        visit.say("get-modern", Level.OK, f"{dialect.revision}: GET gets 405")
    else:
        text = f"{dialect.revision}: GET gets {visit.describe(reply)}, not 405 (rule 1.3)"
        visit.say("get-modern", Level.NOTE, text)


def _expect(visit: Visit, dialect: Dialect, reply: Reply, check: str, what: str, status: int, code: int | None) -> None:
    """Say whether a wrong request was refused as it should be."""
    wanted = f"{status}" + ("" if code is None else f" with {code}")
    if reply.status == status and (code is None or reply.code == code):
        visit.say(check, Level.OK, f"{dialect.revision}: {what} gets {wanted}")
    elif reply.result is not None:
        text = f"{dialect.revision}: {what} is answered like any other request, not with {wanted}"
        visit.say(check, Level.WARNING, text)
    else:
        text = f"{dialect.revision}: {what} gets {visit.describe(reply)}, not {wanted}"
        visit.say(check, Level.NOTE, text)


# In either era, by the check that they belong to.
PROBES: dict[str, Probe] = {
    "accept": accept,
    "media-type": media_type,
    "origin": origin,
    "method": method,
    "duplicate-member": duplicate_member,
    "syntax": syntax,
    "version": version,
}
STATELESS_PROBES: dict[str, Probe] = {
    "envelope": envelope,
    "mirrored-header": mirrored_header,
    "get-modern": get_modern,
}
