"""The core methods of MCP in all its revisions: who sends them, what they name, and what their lists hold.

One table for all revisions (2024-11-05 to 2026-07-28, with the tasks of 2025-11-25 and of the tasks extension): a peer
that speaks a revision without a method answers for that itself (rule 6.22), but a policy must know every method that
any upstream may understand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..wire.envelope import Kind
from .message import Sender

__all__ = ["LIFECYCLE", "METHODS", "Listing", "Method"]


@dataclass(frozen=True, slots=True)
class Listing:
    """Where the result of a list method holds its entries: ``result[member]``, each known by its ``name`` member."""

    member: str
    name: str


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the specification.

    ``senders`` who may send it
    ``kind``    ``Kind.REQUEST`` or ``Kind.NOTIFICATION``
    ``name``    the member of ``params`` that says what it is about (``name``, ``uri``, ``taskId``), or None
    ``listing`` what its result lists, or None
    """

    senders: frozenset[Sender]
    kind: Kind
    name: str | None = None
    listing: Listing | None = None


_CLIENT = frozenset((Sender.CLIENT,))
_SERVER = frozenset((Sender.SERVER,))
_BOTH = _CLIENT | _SERVER


def _request(senders: frozenset[Sender], name: str | None = None, listing: Listing | None = None) -> Method:
    return Method(senders, Kind.REQUEST, name, listing)


def _notification(senders: frozenset[Sender], name: str | None = None) -> Method:
    return Method(senders, Kind.NOTIFICATION, name)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "initialize": _request(_CLIENT),
        "server/discover": _request(_CLIENT),
        "ping": _request(_BOTH),
        "tools/list": _request(_CLIENT, listing=Listing("tools", "name")),
        "tools/call": _request(_CLIENT, "name"),
        "prompts/list": _request(_CLIENT, listing=Listing("prompts", "name")),
        "prompts/get": _request(_CLIENT, "name"),
        "resources/list": _request(_CLIENT, listing=Listing("resources", "uri")),
        "resources/templates/list": _request(_CLIENT, listing=Listing("resourceTemplates", "uriTemplate")),
        "resources/read": _request(_CLIENT, "uri"),
        "resources/subscribe": _request(_CLIENT, "uri"),
        "resources/unsubscribe": _request(_CLIENT, "uri"),
        "subscriptions/listen": _request(_CLIENT),
        "completion/complete": _request(_CLIENT),
        "logging/setLevel": _request(_CLIENT),
        "sampling/createMessage": _request(_SERVER),
        "elicitation/create": _request(_SERVER),
        "roots/list": _request(_SERVER),
        # 2025-11-25: either side may be the one that runs a task.  ``tasks/update`` is the extension's (rule 11.4).
        "tasks/get": _request(_BOTH, "taskId"),
        "tasks/result": _request(_BOTH, "taskId"),
        "tasks/list": _request(_BOTH, listing=Listing("tasks", "taskId")),
        "tasks/cancel": _request(_BOTH, "taskId"),
        "tasks/update": _request(_CLIENT, "taskId"),
        "notifications/initialized": _notification(_CLIENT),
        "notifications/cancelled": _notification(_BOTH),
        "notifications/progress": _notification(_BOTH),
        "notifications/roots/list_changed": _notification(_CLIENT),
        "notifications/message": _notification(_SERVER),
        "notifications/tools/list_changed": _notification(_SERVER),
        "notifications/prompts/list_changed": _notification(_SERVER),
        "notifications/resources/list_changed": _notification(_SERVER),
        "notifications/resources/updated": _notification(_SERVER, "uri"),
        "notifications/subscriptions/acknowledged": _notification(_SERVER),
        "notifications/elicitation/complete": _notification(_SERVER),
        "notifications/tasks/status": _notification(_BOTH, "taskId"),
        "notifications/tasks": _notification(_SERVER, "taskId"),
    }
)

# Without these there is no conversation at all: they open it, keep it alive and give it up, and reach nothing else.
LIFECYCLE: frozenset[str] = frozenset(
    ("initialize", "server/discover", "ping", "notifications/initialized", "notifications/cancelled")
)
