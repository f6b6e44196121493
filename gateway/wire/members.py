"""Enumerations that are asked for several times a message."""

from __future__ import annotations

import enum
from typing import TypeVar

__all__ = ["direct"]

E = TypeVar("E", bound=enum.Enum)


def direct(kind: type[E]) -> type[E]:
    """The enumeration with its members as plain attributes of the class.

    Up to CPython 3.11 each access runs code of ``enum``, which takes four times as long; later ones do this themselves.
    """
    for member in kind:
        type.__setattr__(kind, member.name, member)
    return kind
