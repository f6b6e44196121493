"""What an operator has approved before a case begins: lock files, as ``mcpgw pins`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.guard.loading import BUILT_IN

__all__ = ["approve"]


def approve(folder: Path, tools: Mapping[str, Sequence[Any]], prompts: Mapping[str, Sequence[Any]]) -> bool:
    """Writes the locks of these definitions by upstream; False where the gateway has no hook that would read them."""
    if "pins" not in BUILT_IN:
        return False
    from gateway.guard.pinning.definition import PROMPT, TOOL, digest
    from gateway.guard.pinning.lock import Lock, Pin, lock_file, write

    folder.mkdir(parents=True, exist_ok=True)
    for upstream, approved in tools.items():
        pins = {}
        entries = [(TOOL, entry) for entry in approved] + [(PROMPT, entry) for entry in prompts.get(upstream, ())]
        for family, entry in entries:
            definition = family.pinned(entry)
            name, known = definition.get("name"), digest(definition)
            if isinstance(name, str) and known is not None:
                pins[family.word, name] = Pin(definition, known, "operator", "2026-01-01T00:00:00Z")
        write(lock_file(folder, upstream), Lock(pins))
    return True
