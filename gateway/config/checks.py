"""What can only be judged by looking at several sections at once: mistakes, and things that are legal but risky."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .document import Key
from .values import is_loopback, is_wildcard

if TYPE_CHECKING:
    from .model import Config

__all__ = ["Declared", "Finding", "problems", "warnings"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake: the path of its key, one sentence, and the paths of further keys that it follows from."""

    path: Key
    message: str
    follows_from: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Declared:
    """Names that the file declares, also those whose own section is wrong: no reference to them is a mistake."""

    upstreams: frozenset[str]
    policies: frozenset[str]


def problems(config: Config, declared: Declared | None = None) -> tuple[Finding, ...]:
    """Every mistake that spans sections.  ``declared`` are the names of the sections as written."""
    if declared is None:
        declared = Declared(frozenset(config.upstreams), frozenset(config.policies))
    return (
        *_ports(config),
        *_references(config, declared),
        *_clients(config),
        *_hooks(config),
        *_limits(config),
    )


def _ports(config: Config) -> Iterator[Finding]:
    if config.admin.port and config.admin.port == config.listen.port:
        yield Finding(("admin", "port"), "the data port and the admin port must differ", (("listen", "port"),))


def _unknown(path: Key, what: str, name: str, known: frozenset[str]) -> Finding:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
    return Finding(path, f"there is no {what} named {name}; {hint}")


def _references(config: Config, declared: Declared) -> Iterator[Finding]:
    upstreams = declared.upstreams
    if not upstreams:
        yield Finding(("upstreams",), "at least one is needed")
    default = config.listen.default_upstream
    if default is not None and default not in upstreams:
        yield _unknown(("listen", "default_upstream"), "upstream", default, upstreams)
    for name, client in config.clients.items():
        if client.policy not in declared.policies:
            yield _unknown(("clients", name, "policy"), "policy", client.policy, declared.policies)
    for name, policy in config.policies.items():
        for position, upstream in enumerate(policy.allowed_upstreams):
            if upstream != "*" and upstream not in upstreams:
                yield _unknown(("policies", name, "allowed_upstreams", position), "upstream", upstream, upstreams)
        for upstream in policy.rate_limits.upstreams:
            if upstream not in upstreams:
                yield _unknown(
                    ("policies", name, "rate_limits", "upstreams", upstream), "upstream", upstream, upstreams
                )


def _clients(config: Config) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    anonymous: str | None = None
    for name, client in config.clients.items():
        path: Key = ("clients", name)
        for token in client.all_tokens:
            owner = owners.setdefault(token.sha256, name)
            if owner != name:
                yield Finding(path, f"has the same token as the client {owner}")
        if client.all_tokens:
            continue
        policy = config.policies.get(client.policy)
        if policy is not None and policy.require_auth:
            yield Finding(
                path,
                f"has no token; give it one (mcpgw token {name}), or let the policy {client.policy} say "
                "require_auth: false so that everybody without a token is this client",
                (("policies", client.policy),),
            )
        elif anonymous is not None:
            yield Finding(
                path,
                f"has no token, as {anonymous}; only one client can be the anonymous one",
                (("clients", anonymous),),
            )
        else:
            anonymous = name


def _hooks(config: Config) -> Iterator[Finding]:
    names: set[str] = set()
    for position, entry in enumerate(config.hooks):
        path: Key = ("hooks", position)
        if entry.name in names:
            yield Finding(path, f"there are two hooks named {entry.name}; give one another name")
        names.add(entry.name)
        if entry.kind == "policy":
            if "*" not in entry.methods:
                yield Finding((*path, "methods"), "the policy hook must see every message; leave methods out")
            if set(entry.directions) != {"client", "server"}:
                yield Finding((*path, "directions"), "the policy hook must see every message; leave directions out")
        for pattern in entry.upstreams:
            if config.upstreams and not fnmatch.filter(config.upstreams, pattern):
                yield Finding((*path, "upstreams"), f"no upstream is named {pattern}", (("upstreams",),))
    bare = [name for name in config.upstreams if not any(entry.kind == "policy" for entry in config.hooks_for(name))]
    if bare:
        yield Finding(("hooks",), f"the policy hook is missing: nothing would be refused on {', '.join(bare)}")


def _limits(config: Config) -> Iterator[Finding]:
    if config.limits.inline_message > config.limits.max_message_size:
        yield Finding(
            ("limits", "inline_message"), "must not exceed limits.max_message_size", (("limits", "max_message_size"),)
        )


def warnings(config: Config) -> tuple[str, ...]:
    """Sentences with the key in front: what a start-up should say aloud."""
    return tuple(_warnings(config))


def _warnings(config: Config) -> Iterator[str]:
    listen, admin = config.listen, config.admin
    for position, entry in enumerate(config.hooks):
        if entry.kind == "policy" and entry.mode == "shadow":
            yield f"hooks.{position}.mode: THE POLICY IS NOT ENFORCED: shadow only records what would be refused"
    anonymous = config.anonymous_client
    if anonymous is not None:
        if not is_loopback(listen.host):
            yield (
                f"clients.{anonymous}: everybody who reaches {listen.host} is this client: its policy "
                f"{config.clients[anonymous].policy} says require_auth: false"
            )
    else:
        for name, policy in config.policies.items():
            if not policy.require_auth:
                yield f"policies.{name}.require_auth: has no effect: every client has a token"
    if not config.clients:
        yield "clients: none: every request will be refused"
    if is_wildcard(listen.host) and listen.public_url is None and not listen.hosts:
        yield f"listen.public_url: not set while listening on {listen.host}: only loopback names are accepted as Host"
    if not is_loopback(admin.host) and admin.token_sha256 is None:
        yield f"admin.host: whoever reaches {admin.host} can read health, metrics and the list of servers"
    for name, upstream in config.upstreams.items():
        host = urlsplit(upstream.url).hostname or ""
        if upstream.headers and upstream.url.startswith("http://") and not is_loopback(host):
            yield f"upstreams.{name}.url: its headers cross the network in clear; use https"
        if not any({"*", name} & set(policy.allowed_upstreams) for policy in config.policies.values()):
            yield f"upstreams.{name}: no policy allows it"
    used = {client.policy for client in config.clients.values()}
    for name in config.policies:
        if name not in used:
            yield f"policies.{name}: no client has it"
    if config.audit.mode != "required":
        yield f"audit.mode: {config.audit.mode}: calls may go unrecorded"
