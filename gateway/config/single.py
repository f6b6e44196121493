"""The configuration of ``mcpgw run``: one upstream, one client, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .load import validate
from .model import Config

__all__ = ["single_upstream"]


def single_upstream(
    url: str,
    port: int,
    token_digest: str,
    *,
    host: str = "127.0.0.1",
    admin_port: int = 0,
    name: str = "server",
    headers: Mapping[str, str] | None = None,
    allowed_tools: Sequence[str] = ("*",),
    audit_path: str = "var/audit.jsonl",
) -> Config:
    """One upstream ``name`` at ``url`` and one client ``local`` with the token of ``token_digest`` (SHA-256, hex).

    The policy allows everything of the upstream but tools that ``allowed_tools`` does not match.  Raises ConfigErrors.
    """
    return validate(
        {
            "listen": {"host": host, "port": port},
            "admin": {"port": admin_port},
            "upstreams": {name: {"url": url, "headers": dict(headers or {})}},
            "clients": {"local": {"policy": "local", "token_sha256": token_digest}},
            "policies": {
                "local": {
                    "allowed_upstreams": [name],
                    "allowed_tools": list(allowed_tools),
                    "allowed_resources": ["*"],
                    "allowed_prompts": ["*"],
                }
            },
            "audit": {"path": audit_path},
        },
        source="command line",
    )
