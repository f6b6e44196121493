"""What the gateway is told: sections, sizes and durations, reading and checking of files.

``load`` reads a file, ``single_upstream`` makes a configuration without one, ``explain`` says what one means.
"""

from __future__ import annotations

from .explain import explain
from .load import Check, ConfigErrors, Problem, load
from .model import (
    Admin,
    Audit,
    Client,
    Config,
    HookEntry,
    Limits,
    Listen,
    Logging,
    Policy,
    Rate,
    RateLimits,
    RevisionName,
    Sealing,
    Section,
    Token,
    Upstream,
)
from .single import single_upstream

__all__ = [
    "Admin", "Audit", "Check", "Client", "Config", "ConfigErrors", "HookEntry", "Limits", "Listen", "Logging",
    "Policy", "Problem", "Rate", "RateLimits", "RevisionName", "Sealing", "Section", "Token", "Upstream", "explain",
    "load", "single_upstream",
]  # fmt: skip
