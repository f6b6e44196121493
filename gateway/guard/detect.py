"""Finding secrets in text: one pass that says which rules could match, then only those rules.

The first pass is an RE2 Set over all keywords, about 0.8 GB/s and one DFA whatever the number of rules.  Everything is
done on UTF-8 bytes: RE2 works on bytes, and mapping its offsets to characters would cost more than the search.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import re2  # type: ignore[import-untyped]

from .controls import SUSPECT_RE2
from .ruleset import Rule, RulesError, compile_pattern, is_anchored

__all__ = ["Budget", "Detector", "Redaction", "TooManyMatches", "encode", "is_placeholder"]

# RE2 keeps its DFA within this; the default of 8 MiB is too small for a few hundred rules without keywords.
_SET_MEMORY = 64 << 20

# Matches that change nothing and cost as much as one that does, as far as a message's budget goes.
_OTHERS_PER_HIT = 20

# Texts that are gone through at once, so that a message that runs out of its budget does so early.
_TEXTS_AT_ONCE = 1000

_STAND_INS = frozenset((b"password", b"passwd", b"pass", b"secret", b"token", b"pwd"))


def encode(text: str) -> bytes:
    """UTF-8, also of lone surrogates, which only come from documents that were not read from the wire."""
    return text.encode("utf-8", "surrogatepass")


class TooManyMatches(Exception):
    """A message holds more matches than are gone through."""


class Budget:
    """What matches of one message may cost together.

    Each secret that is replaced counts, and of other matches - stand-ins, those that are only counted - each twenty.
    """

    __slots__ = ("_left",)

    def __init__(self, hits: int) -> None:
        self._left = hits * _OTHERS_PER_HIT

    def spend(self, is_hit: bool) -> None:
        """Counts one match.  Raises TooManyMatches."""
        self._left -= _OTHERS_PER_HIT if is_hit else 1
        if self._left < 0:
            raise TooManyMatches


@dataclass(frozen=True, slots=True)
class Redaction:
    """What became of one text: the new text, and how often each rule matched."""

    text: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Compiled:
    id: str
    program: Any
    group: int
    replacement: bytes
    redacts: bool
    skip_placeholders: bool
    anchored: bool


class Detector:
    """Rules, compiled.  ``redacting`` names the rules whose matches are replaced; the others are only counted.

    ``members`` is a further pattern for the first pass, of members in JSON that is text.
    """

    __slots__ = ("_owners", "_rules", "_set")

    # What ``first_pass`` answers for control and invisible characters.
    CONTROLS = -1
    # And for ``members``.
    MEMBERS = -2

    def __init__(self, rules: Sequence[Rule], redacting: Iterable[str] = (), members: str | None = None) -> None:
        replaced = frozenset(redacting)
        self._rules = tuple(_compile(rule, rule.id in replaced) for rule in rules)
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _SET_MEMORY
        # Looser than the rules themselves, so that a keyword is found however it is written.
        options.case_sensitive = False
        self._set = re2.Set.SearchSet(options)
        self._owners: list[int] = []
        for index, rule in enumerate(rules):
            for needle in map(re2.escape, rule.keywords) if rule.keywords else (rule.pattern,):
                self._add(needle, index)
        self._add(SUSPECT_RE2, self.CONTROLS)
        if members is not None:
            self._add(members, self.MEMBERS)
        try:
            self._set.Compile()
        except re2.error as error:
            raise RulesError("the rules are too many or too large together; give them keywords") from error
        for index, rule in enumerate(rules):
            # A set that ran out of memory would find nothing and say nothing.
            for word in rule.keywords:
                if index not in self.first_pass(encode(word)):
                    raise RulesError("the rules are too many or too large together; give them keywords")

    def _add(self, needle: str, owner: int) -> None:
        self._set.Add(needle.encode())
        self._owners.append(owner)

    def first_pass(self, text: bytes) -> tuple[int, ...]:
        """Which rules could match somewhere in the text, in their order; MEMBERS and CONTROLS first."""
        hits = self._set.Match(text)
        if hits is None:
            return ()
        return tuple(sorted({self._owners[hit] for hit in hits}))

    def second_pass(self, candidates: Iterable[int], text: bytes) -> tuple[int, ...]:
        """Those candidates that do match somewhere, or of which only single strings can tell."""
        return tuple(
            candidate
            for candidate in candidates
            if candidate < 0
            or self._rules[candidate].anchored
            or self._rules[candidate].program.search(text) is not None
        )

    def locate(self, candidates: Iterable[int], texts: Sequence[bytes]) -> Iterator[int]:
        """Indexes of those texts that a candidate rule may match, in order.  Linear in their total length."""
        rules = tuple(self._rules[candidate] for candidate in candidates)
        for start in range(0, len(texts), _TEXTS_AT_ONCE) if rules else ():
            part = texts[start : start + _TEXTS_AT_ONCE]
            yield from (start + index for index in _locate(rules, part))

    def redact(self, candidates: Iterable[int], text: bytes, budget: Budget) -> Redaction | None:
        """The text with what the candidate rules find in it replaced; None when they find nothing.

        Raises TooManyMatches.
        """
        counts: dict[str, int] = {}
        for candidate in candidates:
            rule = self._rules[candidate]
            pieces: list[bytes] = []
            end = 0
            count = 0
            for match in rule.program.finditer(text):
                start, stop = match.span(rule.group)
                if start < 0 or start == stop:
                    continue
                secret = text[start:stop]
                if secret.startswith(b"[redacted:") or (rule.skip_placeholders and is_placeholder(secret)):
                    budget.spend(False)
                    continue
                budget.spend(rule.redacts)
                count += 1
                pieces += (text[end:start], rule.replacement)
                end = stop
            if count:
                counts[rule.id] = count
                if rule.redacts:
                    pieces.append(text[end:])
                    text = b"".join(pieces)
        return Redaction(text.decode("utf-8", "surrogatepass"), counts) if counts else None


def _locate(rules: Iterable[_Compiled], texts: Sequence[bytes]) -> list[int]:
    starts = list(itertools.accumulate((len(text) + 1 for text in texts), initial=0))
    joined = b"\n".join(texts)
    found: set[int] = set()
    for rule in rules:
        if rule.anchored:
            found.update(index for index, text in enumerate(texts) if rule.program.search(text) is not None)
            continue
        match = rule.program.search(joined)
        while match is not None:
            # A match that crosses texts is none, but one inside any of them may hide behind it.
            first = bisect.bisect_right(starts, match.start()) - 1
            last = min(bisect.bisect_right(starts, match.end() - 1), len(texts))
            found.update(range(first, last))
            # One match in a text is enough to know.
            match = rule.program.search(joined, starts[last]) if last < len(texts) else None
    return sorted(found)


def is_placeholder(secret: bytes) -> bool:
    """Whether a match is plainly a stand-in, such as ``ghp_xxxx``, ``AKIA...EXAMPLE`` or ``****``."""
    if len(secret) < 16:
        return len(set(secret)) < 2 or secret.lower() in _STAND_INS
    return len(set(secret[-16:])) < 5 or b"EXAMPLE" in secret.upper()


def _compile(rule: Rule, redacts: bool) -> _Compiled:
    program = compile_pattern(rule.pattern, f"rule {rule.id}")
    return _Compiled(
        rule.id,
        program,
        1 if program.groups else 0,
        b"[redacted:" + rule.id.encode() + b"]",
        redacts,
        rule.skip_placeholders,
        # These mean the edges of one string, but the first passes see many strings joined.
        is_anchored(rule.pattern),
    )
