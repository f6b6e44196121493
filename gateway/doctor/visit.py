"""What all probes share: the client, the report, and how a request of each era is made."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..protocol.headers import METHOD, SESSION_ID, VERSION
from ..protocol.modern import CAPABILITIES_MEMBER, VERSION_MEMBER
from ..protocol.revisions import MODERN, REVISIONS
from ..wire.strict import dumps
from .client import Client, NoReply, Reply
from .report import Level, Report, Shown

__all__ = ["ALONE", "NEWEST_MODERN", "Dialect", "Visit"]

NEWEST_MODERN = MODERN[-1]

# One piece of advice for all that a server should refuse and does not.
ALONE = (
    "Let nobody but the gateway reach this server: bind it to loopback, or give the two a network of their own. The "
    "gateway refuses what the server is too lenient about, and that helps only who has to come through it."
)

_CLIENT_INFO = {"name": "mcpgw-doctor", "version": "1"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the server is spoken to: a revision, and the session that was opened where it has sessions."""

    revision: str
    session: str | None = None

    @property
    def stateless(self) -> bool:
        """Whether requests carry their own envelope (rule 6.1)."""
        return self.revision in MODERN

    @property
    def idle_method(self) -> str:
        """A request that changes nothing and that every server of the era has to answer."""
        return "server/discover" if self.stateless else "ping"

    def fields(self, method: str) -> dict[str, str]:
        """The header fields that go with a request."""
        fields = {}
        if REVISIONS[self.revision].version_header if self.revision in REVISIONS else True:
            fields[VERSION] = self.revision
        if self.stateless:
            fields[METHOD] = method
        if self.session is not None:
            fields[SESSION_ID] = self.session
        return fields

    def document(self, id: int, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A JSON-RPC request."""
        document: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
        if self.stateless:
            meta = {
                VERSION_MEMBER: self.revision,
                CAPABILITIES_MEMBER: {},
                "io.modelcontextprotocol/clientInfo": _CLIENT_INFO,
            }
            document["params"] = {**(params or {}), "_meta": meta}
        elif params is not None:
            document["params"] = dict(params)
        return document


@dataclass(slots=True)
class Visit:
    """One examination.  Probes are functions of it; what they learn for each other stands here.

    ``dialects`` how the server can be spoken to, in the order of preference
    ``sessions`` that are open now, each to be ended
    ``sse``      whether it speaks the HTTP+SSE transport at this URL
    ``refused``  the 401 or 403 that was met first
    """

    client: Client
    report: Report
    shown: Shown
    dialects: list[Dialect] = field(default_factory=list)
    sessions: list[Dialect] = field(default_factory=list)
    capabilities: dict[str, Any] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    sse: bool = False
    refused: Reply | None = None
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def say(self, check: str, level: Level, text: str, advice: str | None = None) -> None:
        """Add a finding."""
        self.report.add(check, level, text, advice)

    def next_id(self) -> int:
        """An id that has not been used."""
        return next(self._ids)

    def dialect(self, *, stateless: bool) -> Dialect | None:
        """The dialect of that era, if the server has it."""
        return next((each for each in self.dialects if each.stateless is stateless), None)

    async def run(self, check: str, probe: Callable[[Visit], Awaitable[None]]) -> None:
        """Run a probe.  Whatever goes wrong in it is a finding under ``check``, and the others go on."""
        try:
            await probe(self)
        except NoReply as error:
            self.say(check, Level.WARNING, f"could not be found out: {error}")
        except Exception as error:
            # A strange answer that no probe has thought of.  Its text may quote what the server sent.
            name = type(error).__name__
            self.say(check, Level.WARNING, f"could not be found out: the answer was too strange ({name})")

    async def ask(
        self,
        dialect: Dialect,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        body: bytes | None = None,
        document: dict[str, Any] | None = None,
        **how: Any,
    ) -> Reply:
        """A request and its reply.  ``fields`` replace header fields, ``document`` or ``body`` the whole message; of a
        ``body``, no answer is looked for by its id.  Raises NoReply."""
        id: int | None = None
        if body is None:
            document = document or dialect.document(self.next_id(), method, params)
            id = document["id"]
        reply = await self.client.send(
            "POST",
            dumps(document) if body is None else body,
            {**dialect.fields(method), **(fields or {})},
            until=lambda reply: _answers(reply, id),
            **how,
        )
        reply.id = id
        self.replies.append(reply)
        return reply

    def describe(self, reply: Reply) -> str:
        """What a reply was, in a few words."""
        if reply.error is not None:
            code = reply.code if reply.code is not None else "without a code"
            return f"HTTP {reply.status}, error {code}: {self.shown(reply.error.get('message', ''), 120)}"
        if reply.result is not None:
            return f"HTTP {reply.status} and a result"
        # Hidden before it is cut.
        kind = self.shown(reply.fields.get("Content-Type", ""), 60).partition(";")[0]
        kind = f" ({kind})" if kind else ""
        return f"HTTP {reply.status}{kind}" + (", no answer in it" if reply.status < 300 and reply.kind else "")


def _answers(reply: Reply, id: int | None) -> bool:
    if id is None:
        return any(isinstance(each, dict) and "method" not in each for each in reply.messages)
    reply.id = id
    return reply.answer is not None
