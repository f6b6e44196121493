"""Sizes, durations and plain numbers as people write them, and back again."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

__all__ = [
    "Count", "Duration", "OptionalDuration", "OptionalSize", "PortNumber", "Size", "Switch",
    "duration", "format_size", "optional_size", "size", "switch", "whole_number",
]  # fmt: skip

_SIZES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB)?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)?", re.ASCII)
# No leading zero: YAML 1.1 reads 012 as ten, YAML 1.2 as twelve.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)


def size(value: object) -> int:
    """Bytes of ``64KiB``, ``1MiB``, ``1GiB``, ``512B``, or of a number of bytes.  Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a size such as 64KiB, 1MiB or a number of bytes")
    return int(match[1]) * _SIZES[match[2] or ""]


def optional_size(value: object) -> int | None:
    """``unlimited`` (None), or what ``size`` understands, but 0.  Raises ValueError."""
    if value is None or value == "unlimited":
        return None
    if value in (0, "0"):
        raise ValueError("expected a size of 1 or more, or unlimited")
    return size(value)


def duration(value: object) -> float:
    """Seconds of ``250ms``, ``5s``, ``2m``, ``1h``, ``30d``, or of a number of seconds.  Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 250ms, 5s, 2m, 1h or a number of seconds")
    return float(match[1]) * _DURATIONS[match[2] or ""]


def whole_number(value: object) -> int:
    """An integer, also as text (an environment variable's value is text).  Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("expected a whole number")


def switch(value: object) -> bool:
    """``true`` or ``false``, also as text.  ``yes``, ``no``, ``on`` and ``off`` are text.  Raises ValueError."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("expected true or false")


def format_size(value: int) -> str:
    """The shortest exact way to write a number of bytes: ``1MiB``, ``1500``."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return str(value)


Size = Annotated[int, BeforeValidator(size), Field(ge=1)]
"""A positive number of bytes."""

OptionalSize = Annotated[int | None, BeforeValidator(optional_size)]
"""A positive number of bytes, or None for as many as there are."""

Duration = Annotated[float, BeforeValidator(duration), Field(gt=0)]
"""A positive number of seconds."""

OptionalDuration = Annotated[float, BeforeValidator(duration), Field(ge=0)]
"""A number of seconds where 0 has a meaning of its own."""

Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
"""A positive whole number."""

PortNumber = Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=65535)]
"""A TCP port; 0 = any free one."""

Switch = Annotated[bool, BeforeValidator(switch)]
"""True or false."""
