"""The gateway's configuration, as the context describes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.guard.loading import BUILT_IN

from .approval import approve

__all__ = ["LISTER", "MAIN", "configuration"]

MAIN = "main"
"""The upstream that ``/mcp`` serves."""

LISTER = "lister"
"""A client of the runner's own that may see every tool: what a list lacks for it was not left out by its policy."""

LONG_AGO = "2020-01-01T00:00:00Z"
# The context's name of a limit, and ours.
LIMITS = {
    "header_bytes": "max_header_size",
    "header_fields": "max_header_count",
    "target_bytes": "max_target_size",
    "json_depth": "json_depth",
    "json_nodes": "json_nodes",
    "number_chars": "json_number_chars",
    "upstream_result_bytes": "max_message_size",
    "header_timeout_s": "header_timeout",
    "body_idle_timeout_s": "body_idle_timeout",
}


def configuration(
    context: Mapping[str, Any],
    tokens: Mapping[str, str],
    upstreams: Mapping[str, str],
    approved: Mapping[str, Mapping[str, Sequence[Any]]],
    prompts: Sequence[Any],
    folder: Path,
) -> dict[str, Any]:
    """What ``mcpgw serve`` is given.

    ``tokens``    of all clients, by name
    ``upstreams`` their URLs, by name; the first is :data:`MAIN`
    ``approved``  the tools that somebody has approved, by upstream, of upstreams that know of each other
    ``prompts``   likewise of :data:`MAIN`
    ``folder``    for the audit file and the like
    """
    folder.mkdir(parents=True, exist_ok=True)
    limits = context.get("limits", {})
    return {
        "listen": {
            "port": 0,
            "hosts": context["listener"]["host_names"],
            "allowed_origins": context["listener"].get("allowed_origins", []),
            "default_upstream": MAIN,
        },
        "admin": {"port": 0},
        "upstreams": {name: {"url": url} for name, url in upstreams.items()},
        "clients": {name: _client(name, tokens[name], context["clients"].get(name, {})) for name in tokens},
        "policies": {name: _policy(context["clients"].get(name), limits) for name in tokens},
        "hooks": list(_hooks(context, approved, prompts, folder)),
        "audit": {"path": str(folder / "audit.jsonl")},
        "limits": {ours: limits[theirs] for theirs, ours in LIMITS.items() if theirs in limits} | {"drain_timeout": 0},
    }


def _client(name: str, token: str, described: Mapping[str, Any]) -> dict[str, Any]:
    known = {"sha256": hashlib.sha256(token.encode()).hexdigest()}
    if described.get("expired"):
        known["expires"] = LONG_AGO
    return {"policy": name, "tokens": [known]}


def _policy(described: Mapping[str, Any] | None, limits: Mapping[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = {"allowed_upstreams": ["*"], "max_requests_per_minute": None, "max_concurrent_calls": 1000}
    if "body_bytes" in limits:
        policy["max_request_size"] = limits["body_bytes"]
    if described is None:
        return policy | {"allowed_tools": ["*"]}
    for kind in ("tools", "prompts", "resources"):
        policy[f"allowed_{kind}"] = described.get(kind, [])
    return policy


def _hooks(
    context: Mapping[str, Any],
    approved: Mapping[str, Mapping[str, Sequence[Any]]],
    prompts: Sequence[Any],
    folder: Path,
) -> Iterable[Any]:
    rules = context.get("rules", {})
    yield "policy"
    # Before anything that changes definitions: what was approved is what the server sends.  Cases must not know of each
    # other's tools, so each has a folder of locks of its own.
    for group, tools in approved.items() if "tool_definitions" in rules else ():
        if approve(folder / "pins" / group, tools, {MAIN: prompts}):
            options = {"folder": str(folder / "pins" / group)}
            yield {"kind": "pins", "name": f"pins-{group}", "upstreams": list(tools), "options": options}
    if "arguments" in BUILT_IN:
        yield {"kind": "arguments", "options": _arguments(rules)}
    # Before invisible characters are stripped: what they spell is read too.
    if "inbound_injection" in rules:
        yield {"kind": "injection", "options": {"action": rules["inbound_injection"]}}
    sanitize = {
        "action": rules.get("inbound_secrets", "redact"),
        "definitions": "strip",
        "results": "strip" if "strip" in str(rules.get("invisible_and_terminal_controls")) else "flag",
    }
    yield {"kind": "sanitize", "options": sanitize}


def _arguments(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the hook for arguments: a rule for each ``TOOL.MEMBER`` that the context names."""
    options: dict[str, Any] = {"rules": []}
    if "outbound_secrets" in rules:
        options["secrets"] = rules["outbound_secrets"]
    # The rest of the sentence is what the hook does anyway: http and https, public addresses alone.
    if egress := re.match(r"([\w.-]+)\.(\w+):", str(rules.get("egress", ""))):
        options["rules"].append({"tools": [egress[1]], "egress": {"members": [egress[2]]}})
    for place, judged in rules.get("argument_pattern", {}).items():
        tool, _, member = place.rpartition(".")
        patterns = {f"{kind}_patterns": {member: pattern} for kind, pattern in judged.items()}
        options["rules"].append({"tools": [tool]} | patterns)
    return options
