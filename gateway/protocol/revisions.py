"""The protocol revisions and what sets them apart, as one table.

Everything that depends on a revision asks this table; nobody compares version strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["ASSUMED", "LEGACY", "MODERN", "REVISIONS", "SUPPORTED", "Revision", "between", "revision"]


@dataclass(frozen=True, slots=True)
class Revision:
    """One dated revision of the specification.

    ``stateless``      no initialize, no session, every request carries its own envelope in ``_meta`` (rules 6.1, 6.23)
    ``version_header`` clients send MCP-Protocol-Version after initialize (rule 3.10)
    ``mirrored``       Mcp-Method and Mcp-Name mirror the body and must agree with it (rules 6.5, 6.6)
    ``batches``            a body or an event may be an array of messages (rules 2.5, 2.8, 4.9)
    ``server_requests``    the server may send requests to the client on a stream (rules 4.1, 7.2)
    """

    name: str
    stateless: bool = False
    version_header: bool = True
    mirrored: bool = False
    batches: bool = False
    server_requests: bool = True


_BY_NAME: Final[dict[str, Revision]] = {
    each.name: each
    for each in (
        Revision("2024-11-05", version_header=False),
        Revision("2025-03-26", version_header=False, batches=True),
        Revision("2025-06-18"),
        Revision("2025-11-25"),
        Revision("2026-07-28", stateless=True, mirrored=True, server_requests=False),
    )
}
REVISIONS = MappingProxyType(_BY_NAME)

SUPPORTED: Final = tuple(REVISIONS)
LEGACY: Final = tuple(name for name, each in REVISIONS.items() if not each.stateless)
MODERN: Final = tuple(name for name, each in REVISIONS.items() if each.stateless)

# What a request without the version header speaks when nothing else says so (rules 3.11, 6.24).
ASSUMED: Final = REVISIONS["2025-03-26"]


def revision(name: str | None) -> Revision | None:
    """The revision of that name, or None for one that is not known here."""
    return _BY_NAME.get(name) if name is not None else None


def between(*bounds: tuple[str | None, str | None]) -> tuple[str, ...]:
    """The revisions that lie within all of the bounds, each (oldest, newest), None for open ends; oldest first."""
    dates = SUPPORTED
    for oldest, newest in bounds:
        dates = tuple(
            date for date in dates if (oldest is None or date >= oldest) and (newest is None or date <= newest)
        )
    return dates
