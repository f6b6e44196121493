"""Whether the server wants credentials, and whether those that it was given make a difference."""

from __future__ import annotations

from .report import Level
from .visit import ALONE, Visit

__all__ = ["challenge", "without_credentials"]


def challenge(visit: Visit) -> None:
    """What a 401, 403 or 407 asked for (rules 8.1, 8.4).  URLs in it are shown and never fetched."""
    reply = visit.refused
    if reply is None:
        return
    if visit.dialects or visit.sse:
        # What is refused is one way of several to speak to it.
        visit.say("credentials", Level.WARNING, f"one of its eras is refused with HTTP {reply.status}")
        return
    values = reply.fields.getall("WWW-Authenticate", ())
    asks = "; ".join(visit.shown(value) for value in values)
    if visit.client.configured:
        text = f"refuses the credentials that it was given (HTTP {reply.status})"
        advice = "Check the credentials: what --header gave is not accepted."
    else:
        text = f"wants credentials (HTTP {reply.status})"
        advice = "Give the gateway's credentials with --header 'Authorization: Bearer ...' and examine it again."
    visit.say("credentials", Level.PROBLEM, text, advice)
    if asks:
        visit.say("challenge", Level.NOTE, f"its challenge (nothing in it was fetched): {asks}")
    elif reply.status == 401:
        visit.say("challenge", Level.NOTE, "its 401 carries no WWW-Authenticate (rule 8.4)")


async def without_credentials(visit: Visit) -> None:
    """One request without the configured header fields: a server that answers it can be reached round the gateway."""
    if not visit.client.configured:
        visit.say(
            "open",
            Level.NOTE,
            "needs no credentials: whoever reaches it can go round the gateway",
            ALONE,
        )
        return
    names = tuple(visit.client.configured)
    if not visit.dialects:
        return
    dialect = visit.dialects[0]
    reply = await visit.ask(dialect, dialect.idle_method, without=names)
    if reply.result is not None:
        visit.say(
            "open",
            Level.WARNING,
            f"answers without {', '.join(names)} as well: whoever reaches it can go round the gateway",
            ALONE,
        )
    else:
        visit.say("open", Level.OK, f"refuses requests without {', '.join(names)} ({visit.describe(reply)})")
