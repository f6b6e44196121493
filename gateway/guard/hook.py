"""The hook interface: what judges a message, and what it may say.

A hook sees every message - requests, notifications, progress, log messages, server requests, results, errors - in both
directions, on POST, GET and resumed streams, one at a time and in order (rules 14.1-14.23).  Built-in hooks use nothing
that is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..config import Policy
from ..protocol.errors import Refusal
from ..protocol.message import Call, Message

__all__ = ["PASS", "AsyncHook", "Block", "Drop", "Exchange", "Finding", "Hold", "Hook", "Pass", "Replace", "Verdict"]


class Pass:
    """Let the message through as it is.  Use the one instance, ``PASS``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PASS"


PASS: Final = Pass()


@dataclass(frozen=True, slots=True)
class Replace:
    """Let this message through instead.  Kind, id and method must be those of the original."""

    message: Message


@dataclass(frozen=True, slots=True)
class Drop:
    """Withhold a notification; nobody is told.  On anything that needs an answer this counts as a Block."""

    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """Withhold the message and answer its request with this error.

    ``ends``: nothing more of the server's stream passes either, and all requests that wait for it get the error.
    """

    error: Refusal
    ends: bool = False


@dataclass(slots=True, eq=False)
class Hold:
    """Keep back a server's notification for now, while messages that are none of its business overtake it.

    ``until``   when it has to go at the latest, by ``exchange.now``.  The hook may change it later: one whose time has
                come goes before the message that is being judged.  It goes sooner when the answer does, when the
                stream ends, and when too much is held.
    ``release`` is called once, when it goes, and says what becomes of it: any other verdict.  What hooks further down
                the chain have to say comes after that.
    """

    until: float
    release: Callable[[], Verdict]


Verdict = Pass | Replace | Drop | Block | Hold


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth recording that a hook saw: it reaches the audit record and the metrics, never the peers.

    ``rule`` comes from configuration or code, never from a message: it becomes a metric label.
    ``action`` is what was done: ``redact``, ``block``, ``flag`` or ``strip``.
    ``place`` is where it was, as a JSON pointer without values, such as ``/result/content/0/text``.
    """

    hook: str
    rule: str
    action: str
    place: str
    count: int = 1


class Exchange:
    """What a hook may know of the exchange that a message belongs to: a client's HTTP request and all that answers it.

    ``request``  the audit id of the exchange
    ``client``   the authenticated client's name in the configuration
    ``upstream`` the upstream's name in the configuration
    ``policy``   the client's policy, ``policy_name`` its name
    ``revision`` the protocol revision spoken, such as ``2025-11-25``; None before it is known (initialize)
    ``call``     the client's request that this exchange serves; None for notifications, responses and GET streams
    ``client_capabilities`` what the client declared
    ``now``      what time it is: monotonic seconds, as of the read that brought the message
    ``state``    room for a hook's own data, by hook name; lives as long as the exchange
    """

    # One is made for each exchange: no dataclass, whose making is not compiled.
    __slots__ = (
        "call", "client", "client_capabilities", "findings", "now", "policy", "policy_name", "request", "revision",
        "state", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        request: str,
        client: str,
        upstream: str,
        policy_name: str,
        policy: Policy,
        revision: str | None = None,
        call: Call | None = None,
        client_capabilities: Mapping[str, Any] | None = None,
        now: float = 0.0,
    ) -> None:
        self.request = request
        self.client = client
        self.upstream = upstream
        self.policy_name = policy_name
        self.policy = policy
        self.revision = revision
        self.call = call
        self.client_capabilities: Mapping[str, Any] = {} if client_capabilities is None else client_capabilities
        self.findings: list[Finding] = []
        self.state: dict[str, Any] = {}
        self.now = now

    def apart(self) -> Exchange:
        """The same exchange with findings of its own."""
        other = Exchange(
            self.request, self.client, self.upstream, self.policy_name, self.policy, self.revision, self.call,
            self.client_capabilities, self.now,
        )  # fmt: skip
        other.state = self.state
        return other

    def note(self, finding: Finding) -> None:
        """Record a finding with this exchange."""
        self.findings.append(finding)


class Hook(Protocol):
    """Judges one message, at once: no IO, no clock of its own.  An exception blocks the message."""

    name: str

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Called once for each message that the hook's ``directions`` and ``methods`` select."""
        ...


class AsyncHook(Protocol):
    """Judges one message after asking somebody.  Needs a ``timeout``; no verdict in time blocks the message.

    Messages of the same stream wait their turn; other streams go on.
    """

    name: str

    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """As for Hook, but may await."""
        ...
