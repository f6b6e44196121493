"""One look at one upstream of a configuration: asked, and compared with its lock file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from ..config import Config, HookEntry
from ..guard.pinning.lock import DEFAULT_FOLDER, Lock, lock_file, read_folder
from ..guard.pins import Names
from .compare import Item, compare
from .offer import fetch

__all__ = ["Look", "look", "pinned"]

# Seconds for each request: somebody sits and waits.
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """What is offered beside what is approved; ``path`` is where the lock is or will be."""

    items: list[Item]
    lock: Lock | None
    path: Path


def pinned(config: Config) -> list[str]:
    """The upstreams on which the hook ``pins`` runs; all where it runs on none, because that comes before it."""
    return [name for name in config.upstreams if _entry(config, name)] or list(config.upstreams)


def look(config: Config, upstream: str) -> Look:
    """Ask the upstream and read the locks.  Raises OfferError and LockError."""
    entry = _entry(config, upstream)
    folder = DEFAULT_FOLDER if entry is None else str(entry.options.get("folder", DEFAULT_FOLDER))
    locks = read_folder(Path(folder))
    offer = asyncio.run(fetch(config.upstreams[upstream], config.limits, patience=_PATIENCE))
    lock = locks.get(upstream)
    items = compare(offer.definitions, lock, Names(locks, without=upstream))
    return Look(items, lock, lock_file(folder, upstream))


def _entry(config: Config, upstream: str) -> HookEntry | None:
    return next((entry for entry in config.hooks_for(upstream) if entry.kind == "pins"), None)
