"""Conditions in CEL, the Common Expression Language: ``args.amount <= 1000 && client == "ops"``.

A condition holds or it does not; an error, a result that is no boolean, and arguments beyond the bounds below are
errors, and whoever asks must deny (:class:`ConditionFailed`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import cel

__all__ = ["ROOTS", "Condition", "ConditionFailed"]

# What a condition may speak of.
ROOTS = ("args", "client", "upstream", "tool", "method")

# Converting arguments costs 0.1 ms for each thousand values, and everybody waits.
_MAX_VALUES = 5000
_MAX_CHARS = 65536
_MAX_SOURCE_CHARS = 4000
_INT64 = range(-(2**63), 2**63)

_FUNCTIONS = frozenset(
    ("bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek",
     "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "has", "int",
     "matches", "max", "min", "size", "startsWith", "string", "timestamp", "type", "uint")
)  # fmt: skip
# The names that macros bind, as in ``args.items.all(item, item.price < 10)``.
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")


class ConditionFailed(Exception):
    """The condition could not be evaluated.  The text says why, without any value."""


class Condition:
    """One condition, compiled.  Raises ValueError for one that cannot be used."""

    __slots__ = ("_program", "_roots")

    def __init__(self, source: str) -> None:
        if len(source) > _MAX_SOURCE_CHARS:
            raise ValueError(f"a condition has at most {_MAX_SOURCE_CHARS} characters")
        try:
            self._program = cel.compile(source)
        except Exception as error:
            raise ValueError(f"not a CEL expression: {_first_error(str(error))}") from error
        bound = set(_BOUND.findall(source))
        used = set(self._program.variables()) - bound
        for name in sorted(used.difference(ROOTS)):
            raise ValueError(f"a condition speaks of {', '.join(ROOTS)}, not of {name!r}{_hint(name, ROOTS)}")
        for name in self._program.functions():
            if name not in _FUNCTIONS and name.isidentifier() and not name.startswith("_"):
                raise ValueError(f"CEL has no function {name!r}{_hint(name, _FUNCTIONS)}")
        # Converting what is not used would be most of the work.
        self._roots = tuple(sorted(used))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds, given a value for each of ``ROOTS``.  Raises ConditionFailed."""
        used = {root: values[root] for root in self._roots}
        if "args" in used:
            _check_size(used["args"])
        try:
            answer = self._program.execute(used)
        except Exception as error:
            # Its text quotes values.
            raise ConditionFailed(type(error).__name__) from error
        if answer is True:
            return True
        if answer is False:
            return False
        raise ConditionFailed("the result is neither true nor false")


def _check_size(arguments: Any) -> None:
    values = chars = 0
    stack = [arguments]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is dict:
            chars += sum(map(len, node))
            stack.extend(node.values())
        elif kind is list:
            stack.extend(node)
        elif kind is str:
            chars += len(node)
        elif kind is int and node not in _INT64:
            # It would become a double, and compare as another number than the server sees.
            raise ConditionFailed("an integer is beyond 64 bits")
        values += 1
        if values + len(stack) > _MAX_VALUES or chars > _MAX_CHARS:
            raise ConditionFailed("the arguments are too large for a condition")


def _first_error(text: str) -> str:
    """The line of the compiler's report that says what is wrong."""
    lines = [line.partition("ERROR: ")[2] for line in text.splitlines() if "ERROR: " in line]
    return (lines or [text])[0].removeprefix("<input>:")[:200]


def _hint(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
