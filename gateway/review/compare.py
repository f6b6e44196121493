"""An offer beside a lock: what is new, changed, gone or as approved, and the lock that an approval makes."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..guard.pinning.definition import FAMILIES, Family
from ..guard.pinning.lock import Key, Lock, Pin
from ..guard.pinning.scan import examine
from ..guard.pins import Names
from ..wire.strict import dumps

__all__ = ["Item", "Status", "approve", "compare", "state_of"]

_FAMILIES = {family.word: family for family in FAMILIES}


class Status(enum.Enum):
    """What became of a definition since it was approved."""

    APPROVED = "approved"
    NEW = "new"
    CHANGED = "changed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Item:
    """One definition.

    ``offered``  as the upstream has it now, None where it is gone
    ``pin``      as it was approved, None where it never was
    ``digest``   of what is offered, None where it has none
    ``faults``   why it is withheld even when approved
    ``flags``    why somebody should look at it
    ``alike``    upstreams and names of definitions there that it could be taken for
    """

    family: Family
    name: str
    status: Status
    offered: Any = None
    pin: Pin | None = None
    digest: str | None = None
    faults: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    alike: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> Key:
        """As in a lock."""
        return self.family.word, self.name

    @property
    def is_open(self) -> bool:
        """Whether clients do not get it as it is."""
        return self.status in (Status.NEW, Status.CHANGED) or bool(self.faults)


def compare(definitions: Mapping[Key, Any], lock: Lock | None, others: Names) -> list[Item]:
    """Every definition that is offered or was approved, sorted: instructions, prompts, tools, each by name."""
    pins: Mapping[Key, Pin] = {} if lock is None else lock.pins
    return [_item(key, definitions.get(key), pins.get(key), others) for key in sorted(definitions.keys() | pins.keys())]


def _item(key: Key, offered: Any, pin: Pin | None, others: Names) -> Item:
    word, name = key
    family = _FAMILIES[word]
    if offered is None:
        return Item(family, name, Status.GONE, pin=pin)
    known = examine(family, offered)
    if pin is not None and pin.digest == known.digest:
        return Item(family, name, Status.APPROVED, offered, pin, known.digest, known.faults)
    status = Status.NEW if pin is None else Status.CHANGED
    alike = tuple(others.find(family, name))
    return Item(family, name, status, offered, pin, known.digest, known.faults, known.flags, alike)


def state_of(items: Iterable[Item]) -> str:
    """A short digest of all that is offered, by which an approval can say what it was that somebody looked at."""
    offered = [[*item.key, item.digest] for item in items if item.offered is not None]
    return hashlib.sha256(dumps(offered)).hexdigest()[:16]


def approve(lock: Lock | None, items: Iterable[Item], *, by: str, at: str) -> Lock:
    """The lock with these items as they are offered now; without those that are gone."""
    pins = {} if lock is None else dict(lock.pins)
    for item in items:
        if item.status is Status.GONE:
            pins.pop(item.key, None)
        elif item.status is not Status.APPROVED and item.digest is not None:
            pins[item.key] = Pin(item.offered, item.digest, by, at)
    return Lock(MappingProxyType(pins))
