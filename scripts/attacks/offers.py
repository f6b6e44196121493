"""Cases about tools: what each server offers, and what it had been approved to offer."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from .case import Case

__all__ = ["Offer", "tool_upstreams"]


Offer = tuple[list[Any], list[Any]]
"""The tools that a server offers, and those that it had been approved to offer."""


def tool_upstreams(case: Case) -> dict[str, Offer]:
    """The upstreams that a case about tools needs, by name; none for other cases."""
    if case.transport != "tool_def":
        return {}
    # Names of upstreams are short and plain; the checksum keeps them apart.
    plain = re.sub(r"[^a-z0-9]+", "-", case.id.lower()).strip("-")[:40].strip("-") or "case"
    plain += f"-{zlib.crc32(case.id.encode()):08x}"
    return {f"{plain}-s{number}": offer for number, offer in enumerate(_offers(case.data))}


def _offers(data: bytes) -> list[Offer]:
    document = json.loads(data)
    match document:
        case {"servers": dict(servers)}:
            return [(list(tools), list(tools)) for tools in servers.values()]
        case {"approved": approved, "offered": offered}:
            return [(_listed(offered), _listed(approved))]
    return [(_listed(document), _listed(document))]


def _listed(tools: Any) -> list[Any]:
    return list(tools) if isinstance(tools, list) else [tools]
