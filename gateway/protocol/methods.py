"""The core methods of MCP in all its revisions: who sends them and when, what they name, and what their lists hold.

One table for all revisions (2024-11-05 to 2026-07-28, with the tasks of 2025-11-25 and of the tasks extension).  A
policy must know every method that any upstream may understand, so it asks whether a name is in the table; whether a
peer may send it in the revision that is spoken is what ``exists`` says (rule 6.22).

The last column is what a client must have declared before its server may ask (rules 3.3, 7.12).  Whatever judges such a
request, on a stream or inside a result, asks ``missing_capability``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..wire.envelope import Kind
from .message import Sender
from .revisions import LEGACY, MODERN, SUPPORTED, Revision

__all__ = ["LIFECYCLE", "METHODS", "Listing", "Method", "declares", "exists", "method_known", "missing_capability"]


@dataclass(frozen=True, slots=True)
class Listing:
    """Where the result of a list method holds its entries: ``result[member]``, each known by its ``name`` member."""

    member: str
    name: str


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the specification.

    ``senders``    who may send it, in any revision
    ``kind``       ``Kind.REQUEST`` or ``Kind.NOTIFICATION``
    ``client``, ``server``  the names of the revisions in which that side may send it
    ``name``       the member of ``params`` that says what it is about (``name``, ``uri``, ``taskId``), or None
    ``listing``    what its result lists, or None
    ``capability`` what a client must have declared before a server may ask this of it, such as ``tasks.list``; or None
    """

    senders: frozenset[Sender]
    kind: Kind
    client: frozenset[str]
    server: frozenset[str]
    name: str | None = None
    listing: Listing | None = None
    capability: str | None = None


_ELICITATION = ("2025-06-18", "2025-11-25")
_D = ("2025-11-25",)


def _method(kind: Kind, client: Iterable[str], server: Iterable[str], **rest: Any) -> Method:
    spoken = {Sender.CLIENT: frozenset(client), Sender.SERVER: frozenset(server)}
    senders = frozenset(sender for sender, revisions in spoken.items() if revisions)
    return Method(senders, kind, spoken[Sender.CLIENT], spoken[Sender.SERVER], **rest)


def _request(client: Iterable[str] = (), server: Iterable[str] = (), **rest: Any) -> Method:
    return _method(Kind.REQUEST, client, server, **rest)


def _notification(client: Iterable[str] = (), server: Iterable[str] = (), **rest: Any) -> Method:
    return _method(Kind.NOTIFICATION, client, server, **rest)


# A dict by type: looking up is what it is for, several times a message.
METHODS: Final[dict[str, Method]] = {
    "initialize": _request(LEGACY),
    "server/discover": _request(MODERN),
    "ping": _request(LEGACY, LEGACY),
    "tools/list": _request(SUPPORTED, listing=Listing("tools", "name")),
    "tools/call": _request(SUPPORTED, name="name"),
    "prompts/list": _request(SUPPORTED, listing=Listing("prompts", "name")),
    "prompts/get": _request(SUPPORTED, name="name"),
    "resources/list": _request(SUPPORTED, listing=Listing("resources", "uri")),
    "resources/templates/list": _request(SUPPORTED, listing=Listing("resourceTemplates", "uriTemplate")),
    "resources/read": _request(SUPPORTED, name="uri"),
    "resources/subscribe": _request(LEGACY, name="uri"),
    "resources/unsubscribe": _request(LEGACY, name="uri"),
    "subscriptions/listen": _request(MODERN),
    "completion/complete": _request(SUPPORTED),
    "logging/setLevel": _request(LEGACY),
    # In 2026-07-28 these three are no messages: they stand inside a result (rule 7.12).
    "sampling/createMessage": _request(server=LEGACY, capability="sampling"),
    "elicitation/create": _request(server=_ELICITATION, capability="elicitation"),
    "roots/list": _request(server=LEGACY, capability="roots"),
    # 2025-11-25: either side may be the one that runs a task.  In 2026-07-28 only a server does (rule 11.4).
    "tasks/get": _request((*_D, *MODERN), _D, name="taskId", capability="tasks"),
    "tasks/result": _request(_D, _D, name="taskId", capability="tasks"),
    "tasks/list": _request(_D, _D, listing=Listing("tasks", "taskId"), capability="tasks.list"),
    "tasks/cancel": _request((*_D, *MODERN), _D, name="taskId", capability="tasks.cancel"),
    "tasks/update": _request(MODERN, name="taskId"),
    "notifications/initialized": _notification(LEGACY),
    "notifications/cancelled": _notification(SUPPORTED, SUPPORTED),
    "notifications/progress": _notification(LEGACY, SUPPORTED),
    "notifications/roots/list_changed": _notification(LEGACY),
    "notifications/message": _notification(server=SUPPORTED),
    "notifications/tools/list_changed": _notification(server=SUPPORTED),
    "notifications/prompts/list_changed": _notification(server=SUPPORTED),
    "notifications/resources/list_changed": _notification(server=SUPPORTED),
    "notifications/resources/updated": _notification(server=SUPPORTED, name="uri"),
    "notifications/subscriptions/acknowledged": _notification(server=MODERN),
    "notifications/elicitation/complete": _notification(server=_D),
    "notifications/tasks/status": _notification(_D, _D, name="taskId"),
    "notifications/tasks": _notification(server=MODERN, name="taskId"),
}

# Without these there is no conversation at all: they open it, keep it alive and give it up, and reach nothing else.
LIFECYCLE: frozenset[str] = frozenset(
    ("initialize", "server/discover", "ping", "notifications/initialized", "notifications/cancelled")
)


def exists(method: str, revision: Revision | None, sender: Sender = Sender.CLIENT) -> bool:
    """Whether the specification has the method, from that sender, in that revision; None asks for any revision."""
    known = METHODS.get(method)
    if known is None:
        return False
    revisions = known.client if sender is Sender.CLIENT else known.server
    return bool(revisions) if revision is None else revision.name in revisions


def method_known(revision: Revision | None, method: str) -> bool:
    """False for a method of MCP that clients do not have in the revision: removed ones, later ones (rule 6.22).

    A method that no revision has may be an extension's: that is True, and left to the policy, which lets it pass only
    where it is written out.
    """
    return method not in METHODS or exists(method, revision)


def declares(capabilities: Mapping[str, Any], *path: str) -> bool:
    """Whether capabilities hold the member at the path, such as ``("tasks", "list")``.  A null is as good as absent."""
    found: Any = capabilities
    for member in path:
        found = found.get(member) if isinstance(found, Mapping) else None
    return found is not None


def missing_capability(method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> str | None:
    """What the client would have to declare for a server to send it this request, or None if it may (rules 3.3, 7.12).

    The words are ours, never the peer's: ``sampling``, ``elicitation in mode url``.
    """
    known = METHODS.get(method)
    if known is None or known.capability is None:
        return None
    if not declares(capabilities, *known.capability.split(".")):
        return known.capability
    if method == "elicitation/create":
        return _missing_mode(params.get("mode", "form"), capabilities["elicitation"])
    if method == "sampling/createMessage" and (params.get("tools") or params.get("toolChoice")) is not None:
        # 2025-11-25 client/sampling: no tools for a client that did not declare them.
        return None if declares(capabilities, "sampling", "tools") else "sampling.tools"
    return None


def _missing_mode(mode: Any, capability: Any) -> str | None:
    modes = capability if isinstance(capability, Mapping) else {}
    if mode == "form":
        # An empty capability means form mode: that is how it was declared before there were modes.
        return None if declares(modes, "form") or not declares(modes, "url") else "elicitation in mode form"
    if mode == "url":
        return None if declares(modes, "url") else "elicitation in mode url"
    return "elicitation in a mode that does not exist"
