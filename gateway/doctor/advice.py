"""From what was found to what should be configured: an ``upstreams:`` entry and whether there can be one."""

from __future__ import annotations

import re

from ..config import Upstream
from ..protocol.revisions import MODERN
from .visit import Visit

__all__ = ["conclude"]

_SCHEMES = frozenset(("bearer", "basic", "token", "apikey", "api-key"))


def conclude(visit: Visit, upstream: Upstream) -> None:
    """Fill in the report's verdict and its upstream entry."""
    report = visit.report
    report.servable = bool(visit.dialects) or visit.sse
    report.requests = visit.client.requests
    report.name = _name(report.name if report.name != "server" else (visit.client.url.host or ""))
    found, report.upstream = report.upstream, {}
    if not report.servable and visit.refused is None:
        return
    entry = report.upstream
    entry["url"] = upstream.url
    if visit.sse and not visit.dialects:
        entry["transport"] = "sse"
    headers = {name: _placeholder(report.name, name, value) for name, value in upstream.headers.items()}
    if not headers and visit.refused is not None and not report.servable:
        headers = {"Authorization": _placeholder(report.name, "Authorization", "Bearer x")}
    if headers:
        entry["headers"] = headers
    entry.update(found)
    if visit.dialects and all(each.stateless for each in visit.dialects) and not visit.sse:
        # Clients with sessions then get an error of the gateway's that names what there is (rule 6.26).
        entry["min_revision"] = MODERN[0]


def _name(text: str) -> str:
    """What to call the upstream: letters, digits and hyphens of what it calls itself."""
    first = text.lower()
    if re.fullmatch(r"[0-9.:\[\]]*", first):
        return "server"
    labels = [each for each in first.split(".") if each not in ("www", "mcp", "api")] if "." in first else [first]
    name = re.sub(r"[^a-z0-9]+", "-", labels[0] if labels else first).strip("-")
    return name[:63].strip("-") or "server"


def _placeholder(upstream: str, header: str, value: str) -> str:
    """A header's value as it stands in the configuration: from the environment, with its scheme where it has one."""
    prefix = re.sub(r"[^A-Z0-9]+", "_", upstream.upper()).strip("_")
    prefix = f"UPSTREAM_{prefix}" if prefix[:1].isdigit() else prefix
    scheme, space, _ = value.partition(" ")
    if space and scheme.lower() in _SCHEMES:
        return f"{scheme} ${{{prefix}_TOKEN}}"
    return f"${{{prefix}_{re.sub(r'[^A-Z0-9]+', '_', header.upper()).strip('_')}}}"
