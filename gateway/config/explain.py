"""What a configuration means, in lines for people: the same text for ``mcpgw check`` and at start-up."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from .model import Client, Config, HookEntry, Policy
from .units import format_size

__all__ = ["explain"]


def explain(config: Config, now: datetime.datetime | None = None) -> list[str]:
    """What is served where, judged by what, for whom.  ``now`` (aware) decides which tokens have expired."""
    now = now or datetime.datetime.now(datetime.UTC)
    return list(_lines(config, now))


def _lines(config: Config, now: datetime.datetime) -> Iterator[str]:
    yield f"data port   {config.listen.base_url}  (listens on {config.listen.host}, port {_port(config.listen.port)})"
    yield f"admin port  {config.admin.host}, port {_port(config.admin.port)}"
    yield f"audit       {config.audit.path if config.audit.mode != 'off' else 'nothing'}  ({config.audit.mode})"
    for name, upstream in config.upstreams.items():
        paths = [f"/{name}/mcp", *(["/mcp"] if name == config.default_upstream else ())]
        yield f"upstream {name}: {upstream.url} ({upstream.transport}), served at {' and '.join(paths)}"
        yield f"  hooks      {' -> '.join(map(_hook, config.hooks_for(name)))}"
        if upstream.headers:
            yield f"  headers    {', '.join(upstream.headers)}"
    for name, client in config.clients.items():
        yield f"client {name}: policy {client.policy}, {_credentials(client, now)}"
        yield from _policy(config, config.policies[client.policy])
    for warning in config.warnings:
        yield f"warning: {warning}"


def _port(port: int) -> str:
    return str(port) if port else "any free one"


def _hook(entry: HookEntry) -> str:
    notes = []
    if entry.mode == "shadow":
        notes.append("shadow")
    if len(set(entry.directions)) == 1:
        notes.append(f"{entry.directions[0]} only")
    if "*" not in entry.methods:
        notes.append(", ".join(entry.methods))
    return entry.name + (f" ({'; '.join(notes)})" if notes else "")


def _credentials(client: Client, now: datetime.datetime) -> str:
    if not client.all_tokens:
        return "no token: everybody without one is this client"
    count = len(client.all_tokens)
    text = "1 token" if count == 1 else f"{count} tokens"
    expired = sum(token.is_expired(now) for token in client.all_tokens)
    ends = [token.expires for token in client.all_tokens if token.expires is not None and not token.is_expired(now)]
    if ends:
        text += f", the next one expires {min(ends).isoformat(timespec='minutes')}"
    return text + (f", {expired} expired" if expired else "")


def _policy(config: Config, policy: Policy) -> Iterator[str]:
    upstreams = tuple(config.upstreams) if "*" in policy.allowed_upstreams else policy.allowed_upstreams
    yield f"  upstreams  {_list(upstreams)}"
    for label, patterns in (
        ("tools", policy.allowed_tools),
        ("resources", policy.allowed_resources),
        ("prompts", policy.allowed_prompts),
    ):
        yield f"  {label:<10} {'all' if {'*', '**'} & set(patterns) else _list(patterns)}"
    if policy.allowed_methods != ("*",):
        yield f"  methods    {_list(policy.allowed_methods)}"
    if policy.allowed_server_requests != ("*",):
        yield f"  upstreams may ask for {_list(policy.allowed_server_requests)}"
    rate = policy.max_requests_per_minute
    yield (
        f"  limits     {'any rate' if rate is None else f'{rate} requests per minute, {policy.burst} at once'}; "
        f"{format_size(policy.max_request_size)} per request; {policy.max_concurrent_calls} calls and "
        f"{policy.max_concurrent_streams} streams at a time"
    )
    for what, rates in (("tool", policy.rate_limits.tools), ("upstream", policy.rate_limits.upstreams)):
        for name, limit in rates.items():
            yield f"             {limit.max_requests_per_minute} per minute, {limit.burst} at once, for {what} {name}"
    if policy.deny_status != 200:
        yield f"  refusals   HTTP {policy.deny_status}"


def _list(items: tuple[str, ...]) -> str:
    return ", ".join(items) or "none"
