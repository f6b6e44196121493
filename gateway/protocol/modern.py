"""Revision 2026-07-28 and its like: each request says for itself what it speaks.

The order of checks is the reference server's: members of ``_meta`` present, then headers against the body, then
whether the revision is served (rule 6.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .errors import HeaderMismatch, InvalidParams, UnsupportedRevision
from .headers import VERSION, McpFields, check_mirrored
from .revisions import MODERN, SUPPORTED, Revision, revision

__all__ = ["CAPABILITIES_MEMBER", "SUBSCRIPTION_ID", "VERSION_MEMBER", "check_request", "speaks_modern", "unsupported"]

VERSION_MEMBER: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_MEMBER: Final = "io.modelcontextprotocol/clientCapabilities"
SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"


def speaks_modern(fields: McpFields, params: dict[str, Any]) -> bool:
    """Whether a message belongs to a stateless revision: its header or its body says so (rules 6.24, 6.25).

    A header with a revision that nobody knows is read as modern: those are the rules that refuse it with what is
    supported (rule 6.3).
    """
    if fields.version is not None:
        known = fields.revision
        if known is None or known.stateless:
            return True
    meta = params.get("_meta")
    return isinstance(meta, dict) and VERSION_MEMBER in meta


def check_request(
    fields: McpFields, method: str, params: dict[str, Any], supported: Sequence[str] = SUPPORTED
) -> Revision:
    """The revision of a stateless request, which must be one of ``supported``.

    Raises InvalidParams, HeaderMismatch or UnsupportedRevision (rules 6.1-6.10).
    """
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        raise InvalidParams("params._meta is missing: a request of this revision carries its envelope there")
    named = meta.get(VERSION_MEMBER)
    if not isinstance(named, str):
        raise InvalidParams(f'params._meta needs a string "{VERSION_MEMBER}"')
    if not isinstance(meta.get(CAPABILITIES_MEMBER), dict):
        raise InvalidParams(f'params._meta needs an object "{CAPABILITIES_MEMBER}"')
    if fields.version != named:
        raise HeaderMismatch(f"header {VERSION} must be present and equal params._meta's protocolVersion")
    check_mirrored(fields, method, params)
    known = revision(named)
    if known is None or not known.stateless or named not in supported:
        raise unsupported(named, supported)
    return known


def unsupported(requested: str, supported: Sequence[str] = SUPPORTED) -> UnsupportedRevision:
    """The error for a revision that is not served, with what is (rules 6.3, 6.26).

    Where stateless revisions are served, they alone are named: whoever reads this asks without a session.
    """
    supported = [each for each in supported if each in MODERN] or supported
    return UnsupportedRevision(
        "this protocol revision is not supported here; supported: " + (", ".join(supported) or "none"),
        data={"supported": list(supported), "requested": requested[:64]},
    )
