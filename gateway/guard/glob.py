"""Glob patterns over names, in time linear in the name whatever the pattern.

``*`` stands for any run of characters, ``?`` for one, everything else for itself; case matters.  Patterns become one
RE2 alternation: RE2 has no backtracking, so no pattern of an operator and no name of a peer can make it slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import re2  # type: ignore[import-untyped]

__all__ = ["MAX_NAME_CHARS", "GlobError", "Globs", "is_plain_name", "to_re2"]

# The specification's bound for tool names; longer ones are matched by nothing.
MAX_NAME_CHARS = 128

# Printable ASCII without a space at either edge.  The specification's own alphabet for tools is narrower, but says
# SHOULD; outside this set two names can look the same, or be trimmed to the same, and a policy must not guess.
_PLAIN = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?", re.ASCII)

# Decisions that are remembered; peers choose the names, so the number is bounded.
_MEMORY = 4096


class GlobError(ValueError):
    """A pattern that cannot be used.  The text says why."""


def is_plain_name(name: object) -> bool:
    """True for a name that a policy can speak of: a string of 1 to 128 printable ASCII characters, no edge spaces."""
    return type(name) is str and _PLAIN.fullmatch(name) is not None


def to_re2(pattern: str, *, run: str = ".*", one: str = ".", deep: str | None = None) -> str:
    """The pattern as RE2 syntax, unanchored.

    ``run`` is what ``*`` becomes, ``one`` what ``?`` becomes, ``deep`` what ``**`` becomes (None: two runs).
    """
    parts = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "*":
            if deep is not None and pattern.startswith("**", position):
                parts.append(deep)
                position += 1
            else:
                parts.append(run)
        elif character == "?":
            parts.append(one)
        else:
            parts.append(re2.escape(character))
        position += 1
    return "".join(parts)


def alternation(patterns: Iterable[str]) -> Any:
    """One anchored RE2 program for several RE2 patterns.  Raises GlobError where they are too many or too long."""
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        return re2.compile(r"\A(?:" + "|".join(patterns) + r")\z", options)
    except re2.error as error:
        raise GlobError("the patterns are too many or too long to compile") from error


class Globs:
    """A set of glob patterns over plain names.

    A name that is not plain (see :func:`is_plain_name`) is matched by nothing, not even by ``*``.
    """

    __slots__ = ("_literals", "_memory", "_program", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        for pattern in self.patterns:
            if not pattern:
                raise GlobError("an empty pattern matches nothing; leave it out")
        wild = [pattern for pattern in self.patterns if "*" in pattern or "?" in pattern]
        self._literals = frozenset(self.patterns).difference(wild)
        self._program = alternation(map(to_re2, wild)) if wild else None
        self._memory: dict[str, bool] = {}

    def __contains__(self, name: object) -> bool:
        if type(name) is not str:
            return False
        known = self._memory.get(name)
        if known is None:
            known = is_plain_name(name) and (
                name in self._literals or (self._program is not None and self._program.search(name) is not None)
            )
            # A name beyond the bound is not worth remembering: it would hold a peer's megabyte.
            if len(name) <= MAX_NAME_CHARS:
                if len(self._memory) >= _MEMORY:
                    self._memory.clear()
                self._memory[name] = known
        return known

    def has_literal(self, name: str) -> bool:
        """Whether the name itself is written among the patterns, without wildcards."""
        return name in self._literals

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def __repr__(self) -> str:
        return f"Globs({list(self.patterns)!r})"
