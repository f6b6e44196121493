"""What an upstream offers: all pages of its tools and prompts, and its instructions, asked for as the gateway would.

Revision 2026-07-28 is tried first, then a session of the newest earlier one, within the upstream's bounds.  No tool is
called and no prompt is fetched.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..config import Limits, Upstream
from ..doctor.client import Client, NoReply, Reply
from ..doctor.visit import Dialect
from ..guard.pinning.definition import INSTRUCTIONS, PROMPT, TOOL, Family
from ..guard.pinning.lock import Key
from ..protocol.headers import SESSION_ID
from ..protocol.methods import declares
from ..protocol.revisions import LEGACY, MODERN, between
from ..relay.connections import Connector
from ..wire.strict import dumps

__all__ = ["Offer", "OfferError", "fetch"]

# More than any list that a client could use; a server that pages without end is none.
_MAX_PAGES = 200


class OfferError(Exception):
    """The upstream could not be asked, or its answers cannot be used.  The text is ours."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered: the members that are pinned, by family and name; and the revision that was spoken."""

    definitions: Mapping[Key, Any]
    revision: str


async def fetch(upstream: Upstream, limits: Limits, *, patience: float) -> Offer:
    """Ask an upstream; ``patience`` in seconds is for each request, ten times as much for all.  Raises OfferError."""
    if upstream.transport != "streamable-http":
        raise OfferError(f"the transport {upstream.transport} is not spoken here")
    tls: ssl.SSLContext | bool = True
    try:
        if upstream.tls_ca is not None:
            tls = ssl.create_default_context(cafile=upstream.tls_ca)
    except OSError as error:
        raise OfferError(f"tls_ca cannot be used: {error.strerror or 'no certificates in it'}") from None
    async with Client(upstream, limits, patience, budget=10 * patience) as client:
        asking = _Asking(client, upstream)
        asking.how["session"] = client.session(Connector(limit=0, force_close=True, ssl=tls))
        async with asking.how["session"]:
            try:
                return await asking.everything()
            except NoReply as error:
                raise OfferError(str(error)) from None
            finally:
                await asking.end()


class _Asking:
    """One conversation."""

    def __init__(self, client: Client, upstream: Upstream) -> None:
        self.how: dict[str, Any] = {}
        self._client = client
        self._revisions = between((upstream.min_revision, upstream.max_revision))
        self._fields = {
            name: value
            for name, value in {"User-Agent": f"mcpgw/{__version__}"}.items()
            if name.lower() not in {each.lower() for each in upstream.headers}
        }
        self._ids = itertools.count(1)
        self._dialect: Dialect | None = None

    async def everything(self) -> Offer:
        dialect, opening = await self._open()
        self._dialect = dialect
        capabilities = opening.get("capabilities")
        definitions: dict[Key, Any] = {}
        instructions = opening.get("instructions")
        if instructions not in (None, ""):
            if not isinstance(instructions, str):
                raise OfferError("its instructions are no text")
            definitions[INSTRUCTIONS.word, ""] = instructions
        for family in (TOOL, PROMPT):
            announced = isinstance(capabilities, dict) and declares(capabilities, family.listing)
            for entry in await self._list(dialect, family, announced):
                name = entry.get("name") if isinstance(entry, dict) else None
                if not isinstance(name, str):
                    raise OfferError(f"its {family.listing} hold one without a name")
                pinned = family.pinned(entry)
                if definitions.setdefault((family.word, name), pinned) != pinned:
                    raise OfferError(f"it lists two different {family.listing} of the name {ascii(name)[:80]}")
        return Offer(definitions, dialect.revision)

    async def end(self) -> None:
        """Give the session back; whatever comes of it."""
        if self._dialect is not None and self._dialect.session is not None:
            self._client.extend()
            try:
                await self._client.send("DELETE", fields=self._dialect.fields("DELETE"), listen=1.0, **self.how)
            except NoReply:
                return

    async def _open(self) -> tuple[Dialect, dict[str, Any]]:
        modern = next((each for each in reversed(self._revisions) if each in MODERN), None)
        if modern is not None:
            dialect = Dialect(modern)
            reply = await self._ask(dialect, "server/discover")
            versions = (reply.result or {}).get("supportedVersions")
            if reply.result is not None and isinstance(versions, list) and modern in versions:
                _check(reply, "server/discover")
                return dialect, reply.result
        legacy = next((each for each in reversed(self._revisions) if each in LEGACY), None)
        if legacy is None:
            raise OfferError(f"does not speak {modern}")
        params = {
            "protocolVersion": legacy,
            "capabilities": {},
            "clientInfo": {"name": "mcpgw", "version": __version__},
        }
        reply = await self._send(Dialect(legacy), "initialize", params, {})
        result = _check(reply, "initialize")
        revision = result.get("protocolVersion")
        if revision not in LEGACY or revision not in self._revisions:
            raise OfferError("negotiates a revision that is not spoken with it")
        dialect = self._dialect = Dialect(str(revision), reply.fields.get(SESSION_ID))
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        fields = {**dialect.fields("notifications/initialized"), **self._fields}
        await self._client.send("POST", dumps(done), fields, listen=1.0, **self.how)
        return dialect, result

    async def _list(self, dialect: Dialect, family: Family, announced: bool) -> list[Any]:
        method = f"{family.listing}/list"
        entries: list[Any] = []
        cursors: set[str] = set()
        cursor = None
        for _ in range(_MAX_PAGES):
            reply = await self._ask(dialect, method, {} if cursor is None else {"cursor": cursor})
            if reply.error is not None and not announced:
                return []
            result = _check(reply, method)
            page = result.get(family.listing)
            if not isinstance(page, list):
                raise OfferError(f"answers {method} without a list")
            entries += page
            cursor = result.get("nextCursor")
            if cursor is None:
                return entries
            if not isinstance(cursor, str) or cursor in cursors:
                raise OfferError(f"answers {method} with pages that never end")
            cursors.add(cursor)
        raise OfferError(f"answers {method} with more than {_MAX_PAGES} pages")

    async def _ask(self, dialect: Dialect, method: str, params: dict[str, Any] | None = None) -> Reply:
        return await self._send(dialect, method, params, dialect.fields(method))

    async def _send(
        self, dialect: Dialect, method: str, params: dict[str, Any] | None, fields: Mapping[str, str]
    ) -> Reply:
        document = dialect.document(next(self._ids), method, params)

        def answered(reply: Reply) -> bool:
            reply.id = document["id"]
            return reply.answer is not None

        body = dumps(document)
        reply = await self._client.send("POST", body, {**fields, **self._fields}, until=answered, **self.how)
        reply.id = document["id"]
        return reply


def _check(reply: Reply, method: str) -> dict[str, Any]:
    """The result of a reply that the gateway would let pass; raises OfferError for any other."""
    if reply.status in (401, 403):
        raise OfferError(f"refuses its credentials (HTTP {reply.status}): look at the headers of the upstream")
    if reply.trouble is not None:
        raise OfferError(f"{method}: {reply.trouble}")
    if reply.result is None:
        code = "" if reply.code is None else f", error {reply.code}"
        raise OfferError(f"{method} gives no result: HTTP {reply.status}{code}")
    return reply.result
