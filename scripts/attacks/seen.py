"""What a case left behind: on both sides of the gateway, in its records, and in its memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from gateway.harness.script import Received

from .wire import Answered, documents

__all__ = ["Listing", "Seen", "excerpt"]


@dataclass(slots=True)
class Listing:
    """What one server offered, what it had been approved to offer, and what a client was then shown.

    ``shown`` is None where the client got an error instead.
    """

    offered: list[dict[str, Any]]
    approved: list[dict[str, Any]]
    shown: list[dict[str, Any]] | None


@dataclass(slots=True)
class Seen:
    """All that a case left behind.

    ``asked``     the client's message, where an honest reader finds one in what was sent
    ``responses`` what the client received, ``raw`` the bytes of it; ``closed``: the gateway ended the connection
    ``arrived``   what the upstream received; ``given`` the results that it gave, ``sent`` its documents where the case
                  says what it sends
    ``restored``  request states as the client got them, with what the upstream got back for each
    ``problem``   what kept the case from being played to its end
    ``amiss``     what went wrong beside it
    """

    asked: Any = None
    responses: list[Answered] = field(default_factory=list)
    raw: bytes = b""
    closed: bool = False
    arrived: list[Received] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    restored: dict[str, str] = field(default_factory=dict)
    listings: list[Listing] = field(default_factory=list)
    audit: str = ""
    log: str = ""
    metrics: str = ""
    ms: float = 0.0
    growth: int | None = None
    problem: str | None = None
    amiss: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was seen, in a line."""
        parts = [f"{each.status} {excerpt(each.body)}" for each in self.responses] or ["no answer"]
        if self.arrived:
            parts.append(f"upstream got {len(self.arrived)}: {excerpt(self.arrived[-1].body)}")
        if found := [record["findings"] for record in self.records() if record.get("findings")]:
            parts.append(f"findings {excerpt(json.dumps(found).encode())}")
        parts.append(f"{self.ms:.0f} ms")
        if self.growth is not None:
            parts.append(f"memory +{self.growth / 1024**2:.1f} MB")
        return "; ".join(parts)

    def records(self) -> list[dict[str, Any]]:
        """The audit records."""
        found = []
        for line in self.audit.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                found.append(record)
        return found

    def documents(self) -> list[Any]:
        """All JSON documents that the client received.  Raises ValueError when one is none."""
        return [document for each in self.responses for document in documents(each.headers, each.body)]


def excerpt(data: bytes, size: int = 160) -> str:
    """The beginning of some bytes, on one line."""
    text = data[: size + 1].decode(errors="backslashreplace").replace("\r", " ").replace("\n", " ")
    return text if len(data) <= size else text[:size] + "…"
