"""The end of a text that could still become part of a match when more text follows.

RE2 matches whole patterns only.  So each rule gets a second program, of everything that a match of it can begin with:
of ``ab[0-9]{3}`` these are ``a``, ``ab``, ``ab[0-9]`` and ``ab[0-9]{2}``, searched at the end of the text alone.  For
that the pattern is read as far as it takes to know what follows what; characters, classes and escapes stay as they are
written.  RE2 runs such a program backwards from the end, and stops where nothing can begin any more.

A beginning counts once it holds one of the rule's keywords in full: nearly every text ends with the first letter of
one, and no keyword is a secret.  A rule without keywords counts from ``SHORTEST`` bytes on.  Whoever needs to find a
secret whose keyword was cut in two keeps the last ``CONTEXT`` bytes of what has gone before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import re2  # type: ignore[import-untyped]

from .ruleset import Rule, RulesError, after_escapes

__all__ = ["CONTEXT", "LIMIT", "SHORTEST", "Tails", "beginnings"]

# How far back from its end a text is looked at, in bytes: a JSON Web Token of ordinary size fits.
LIMIT = 1024

# What stands before a keyword, and all but the last byte of it, fit in this: the longest lead of the rules that come
# with the gateway is the scheme of a URL, 21 bytes.
CONTEXT = 64

# Of a match of a rule without keywords, so much is no secret yet.
SHORTEST = 4

# RE2 keeps each program and its DFA within this.
_MEMORY = 64 << 20

# One element of a pattern: an escape, a class, a group's beginning, or a character.
_ELEMENT = re.compile(
    r"\\Q(?s:.*?)(?:\\E|\Z)|\\[pP](?:\{[^}]*\}|.)|\\x\{[^}]*\}|\\x[0-9A-Fa-f]{2}|\\[0-7]{1,3}|\\(?s:.)"
    r"|\[\^?\]?(?:\\(?s:.)|\[:\^?[a-z]+:\]|[^\]\\])*\]"
    r"|\(\?P?<\w+>|\(\?[a-zA-Z-]*[:)]|(?s:.)"
)
_COUNT = re.compile(r"(?:[*+?]|\{([0-9]+)(,?)([0-9]*)\})\??")

# Whether these hold at the end of the text depends on what follows, or does not.
_OPEN_EDGES = frozenset((r"\b", r"\B"))
_EDGES = frozenset(("^", "$", r"\A", r"\z"))


class Tails:
    """Rules, compiled for the ends of texts.  Raises RulesError."""

    __slots__ = ("_keywords", "_match", "_owners", "_programs", "_set")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._keywords = tuple(tuple(word.lower().encode() for word in rule.keywords) for rule in rules)
        self._owners: list[int] = []
        options = _options()
        options.case_sensitive = False
        self._set = re2.Set.SearchSet(options)
        self._programs = [_program(rule) for rule in rules]
        for index, rule in enumerate(rules):
            for needle in map(re2.escape, rule.keywords) if rule.keywords else _needles(rule):
                self._set.Add(needle.encode())
                self._owners.append(index)
        try:
            self._set.Compile()
        except re2.error as error:
            raise RulesError("the rules are too many or too large together; give them keywords") from error
        self._match = self._set.Match

    def candidates(self, text: bytes) -> tuple[int, ...]:
        """The rules, by their position among those given, that could match in the text or go on behind it."""
        hits = self._match(text)
        return tuple(sorted({self._owners[hit] for hit in hits})) if hits else ()

    def start(self, text: bytes, limit: int = LIMIT) -> int:
        """From which offset on the text could become part of a match when more follows; its length if from none.

        Never more than ``limit`` bytes before the end.  Linear in ``limit``.
        """
        return min((start for _, start in self.open(text, limit)), default=len(text))

    def open(self, text: bytes, limit: int = LIMIT, candidates: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """The rules that could go on behind the text, and where each would begin."""
        offset = max(0, len(text) - limit)
        # One character before it, so that an edge of a word is where it is.
        window = text[offset - 1 :] if offset else text
        found = []
        for index in self.candidates(window) if candidates is None else candidates:
            program = self._programs[index]
            match = None if program is None else program.search(window)
            if match is not None and self.counts(index, match[0]):
                found.append((index, max(offset, len(text) - len(match[0]))))
        return found

    def counts(self, index: int, beginning: bytes) -> bool:
        """Whether so much of a match says more than that there may be one."""
        keywords = self._keywords[index]
        if not keywords:
            return len(beginning) >= SHORTEST
        lower = beginning.lower()
        return any(word in lower for word in keywords)


def _options() -> Any:
    options = re2.Options()
    # Otherwise the library writes the pattern to stderr.
    options.log_errors = False
    options.max_mem = _MEMORY
    return options


def _program(rule: Rule) -> Any:
    """What finds the beginnings of matches at the end of a text, the empty one at least; None where there are none."""
    pattern = beginnings(after_escapes(rule.pattern))
    if pattern is None:
        return None
    try:
        return re2.compile(f"(?:{pattern})\\z".encode(), _options())
    except re2.error as error:
        raise RulesError(f"rule {rule.id}: the pattern is too large; make its repetitions smaller") from error


def _needles(rule: Rule) -> Iterable[str]:
    """For the first pass, where there are no keywords: matches, and beginnings that count."""
    yield rule.pattern
    begun = beginnings(rule.pattern, SHORTEST)
    if begun is not None:
        yield f"(?:{begun})\\z"


def beginnings(pattern: str, least: int = 0) -> str | None:
    """A pattern of what a match of the RE2 pattern can begin with that could go on; None where it cannot.

    ``least`` leaves out those of fewer characters, as far as they are easily told.
    """
    return _begin(_Reader(pattern).read(), least)


# A pattern, read: how it is written, whole; and its parts.
#   ("atom", text)                   one character
#   ("edge", text)                   none
#   ("sequence", text, parts)
#   ("choice", text, parts)
#   ("repeat", text, part, most)     most is None where there is no end
_Node = tuple[Any, ...]


def _begin(node: _Node, least: int) -> str | None:
    """What ends where the node is still under way; None if it never is."""
    match node[0]:
        case "atom":
            return "" if not least else None
        case "edge":
            return "" if not least and node[1] in _OPEN_EDGES else None
        case "choice":
            parts = [part for part in (_begin(each, least) for each in node[2]) if part is not None]
            return f"(?:{'|'.join(parts)})" if parts else None
        case "repeat":
            return _begin_repeat(node[2], node[3], least)
        case _:
            return _begin_sequence(node[2], least)


def _begin_repeat(part: _Node, most: int | None, least: int) -> str | None:
    is_atom = part[0] == "atom"
    inner = _begin(part, 0)
    fewest = least if is_atom else 0
    if inner is None or (most is not None and most - 1 < fewest):
        return None
    before = f"(?:{part[1]}){{{fewest},{'' if most is None else most - 1}}}" if most != 1 else ""
    return before + inner


def _begin_sequence(parts: Sequence[_Node], least: int) -> str | None:
    """In halves, so that groups nest no deeper than the logarithm of the length."""
    if not parts:
        return None
    if len(parts) == 1:
        return _begin(parts[0], least)
    middle = len(parts) // 2
    first = _begin_sequence(parts[:middle], least)
    rest = least and int(least - min(least, _longest(parts[:middle])))
    second = _begin_sequence(parts[middle:], rest)
    if second is not None:
        second = "".join(part[1] for part in parts[:middle]) + second
    if first is None or second is None:
        return second if first is None else first
    return f"(?:{first}|{second})"


def _longest(parts: Sequence[_Node]) -> float:
    """How many characters a sequence has at most."""
    return sum(map(_longest_part, parts))


def _longest_part(node: _Node) -> float:
    match node[0]:
        case "atom":
            return 1
        case "edge":
            return 0
        case "choice":
            return max(map(_longest_part, node[2]))
        case "repeat":
            return math.inf if node[3] is None else node[3] * _longest_part(node[2])
        case _:
            return _longest(node[2])


class _Reader:
    """Reads RE2 syntax that RE2 has accepted."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._flags = ""

    def read(self) -> _Node:
        """A choice of sequences, up to the end of its group."""
        outer = self._flags
        branches: list[list[_Node]] = [[]]
        while self._at < len(self._pattern):
            found = _ELEMENT.match(self._pattern, self._at)
            assert found is not None
            text = found[0]
            self._at = found.end()
            if text == ")":
                break
            if text == "|":
                branches.append([])
            elif text.startswith("(?") and text.endswith(")"):
                self._flags = _merged(self._flags, text[2:-1])
            elif text.startswith(r"\Q"):
                quoted = [self._atom(re2.escape(each)) for each in text[2:].removesuffix(r"\E")]
                branches[-1] += [*quoted[:-1], *map(self._counted, quoted[-1:])]
            else:
                branches[-1].append(self._counted(self._element(text)))
        self._flags = outer
        sequences = [("sequence", f"(?:{''.join(part[1] for part in parts)})", parts) for parts in branches]
        if len(sequences) == 1:
            return sequences[0]
        return ("choice", f"(?:{'|'.join(each[1] for each in sequences)})", sequences)

    def _element(self, text: str) -> _Node:
        if text[0] == "(":
            outer = self._flags
            if text.endswith(":"):
                self._flags = _merged(self._flags, text[2:-1])
            node = self.read()
            self._flags = outer
            return node
        if text in _EDGES or text in _OPEN_EDGES:
            return ("edge", text)
        return self._atom(text)

    def _atom(self, text: str) -> _Node:
        return ("atom", f"(?{self._flags}:{text})" if self._flags else text)

    def _counted(self, node: _Node) -> _Node:
        found = _COUNT.match(self._pattern, self._at)
        if found is None:
            return node
        self._at = found.end()
        most = 1 if found[0][0] == "?" else None
        if found[1] is not None and not (found[2] and not found[3]):
            most = int(found[3] or found[1])
        return ("repeat", f"(?:{node[1]}){found[0]}", node, most)


def _merged(flags: str, more: str) -> str:
    """Flags as they are after more of them: ``i`` and ``s-i`` are ``s-i``."""
    on: set[str] = set()
    off: set[str] = set()
    for each in (flags, more):
        plus, _, minus = each.partition("-")
        on = (on | set(plus)) - set(minus)
        off = (off - set(plus)) | set(minus)
    return "".join(sorted(on)) + ("-" + "".join(sorted(off)) if off else "")
