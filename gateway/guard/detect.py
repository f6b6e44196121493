"""Finding secrets in text: one pass that says which rules could match, then only those rules.

The first pass is an RE2 Set over all keywords, about 0.8 GB/s and one DFA whatever the number of rules.  Everything is
done on UTF-8 bytes: RE2 works on bytes, and mapping its offsets to characters would cost more than the search.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import re2  # type: ignore[import-untyped]

from .checks import CHECKS, entropy
from .controls import SUSPECT_RE2
from .members import EmbeddedMembers
from .normalise import BASE64_RE2, FOLDED_RE2, Normaliser
from .prefilter import Engine, prefilter
from .ruleset import Allowance, Rule, RulesError, after_escapes, compile_pattern, is_anchored, is_of_octets

__all__ = [
    "Budget", "Detector", "Match", "Redaction", "TooManyMatches", "encode", "is_placeholder", "is_stand_in",
]  # fmt: skip

# Matches that change nothing and cost as much as one that does, as far as a message's budget goes.
_OTHERS_PER_HIT = 20

_UNDONE_PER_OTHER = 50

# Texts that are gone through at once, so that a message that runs out of its budget does so early.
_TEXTS_AT_ONCE = 1000

# How much of a line an allowance sees on each side of a match.
_LINE_OCTETS = 512

_STAND_INS = frozenset((b"password", b"passwd", b"pass", b"secret", b"token", b"pwd"))


def encode(text: str) -> bytes:
    """UTF-8, also of lone surrogates, which only come from documents that were not read from the wire."""
    return text.encode("utf-8", "surrogatepass")


class TooManyMatches(Exception):
    """A message holds more matches than are gone through."""


class Budget:
    """What matches of one message may cost together.

    Each secret that is replaced counts, of other matches - stand-ins, those that are only counted - each twenty, and of
    disguises each thousand.
    """

    __slots__ = ("_left",)

    def __init__(self, hits: int) -> None:
        self._left = float(hits * _OTHERS_PER_HIT)

    def spend(self, is_hit: bool) -> None:
        """Counts one match.  Raises TooManyMatches."""
        self._left -= _OTHERS_PER_HIT if is_hit else 1
        if self._left < 0:
            raise TooManyMatches

    def spend_undone(self, count: int) -> None:
        """Counts escapes and encodings that were undone to look under them.  Raises TooManyMatches."""
        self._left -= count / _UNDONE_PER_OTHER
        if self._left < 0:
            raise TooManyMatches


@dataclass(frozen=True, slots=True)
class Redaction:
    """What became of one text: the new text, and how often each rule matched."""

    text: str
    counts: dict[str, int]


class Match(NamedTuple):
    """Where a rule matches, in octets; ``rule`` is its index."""

    start: int
    end: int
    rule: int


@dataclass(frozen=True, slots=True)
class _Allowed:
    programs: tuple[Any, ...]
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class _Compiled:
    id: str
    program: Any
    groups: tuple[int, ...]
    replacement: bytes
    redacts: bool
    rule: Rule
    allowed: tuple[_Allowed, ...]
    anchored: bool


class Detector:
    """Rules, compiled.  ``redacting`` names the rules whose matches are replaced; the others are only counted.

    ``members`` are looked for in the first pass too, in JSON that is text; ``engine`` is what makes that pass.
    """

    __slots__ = ("_markers", "_members", "_owners", "_prefilter", "_rules")

    # What ``first_pass`` answers for control and invisible characters.
    CONTROLS: Final = -1
    # And for ``members``.
    MEMBERS: Final = -2
    # And for escapes and wide forms, and for base64, under which secrets may be: see ``disguise``.
    FOLDED: Final = -3
    PACKED: Final = -4

    def __init__(
        self,
        rules: Sequence[Rule],
        redacting: Iterable[str] = (),
        members: EmbeddedMembers | None = None,
        engine: Engine = "re2",
    ) -> None:
        replaced = frozenset(redacting)
        self._rules = tuple(_compile(rule, rule.id in replaced) for rule in rules)
        self._members = members
        needles: list[str] = []
        self._owners: list[int] = []

        foreign: set[int] = set()

        def add(needle: str, owner: int, is_plain: bool = True) -> None:
            if not is_plain:
                foreign.add(len(needles))
            needles.append(needle)
            self._owners.append(owner)

        for index, rule in enumerate(rules):
            if rule.prefilter is not None:
                add(after_escapes(rule.prefilter), index, is_of_octets(rule.prefilter))
            elif not rule.keywords:
                add(after_escapes(rule.pattern), index, is_of_octets(rule.pattern))
            for word in rule.keywords if rule.prefilter is None else ():
                add(re2.escape(word), index)
        add(SUSPECT_RE2, self.CONTROLS)
        if members is not None:
            add(members.pattern, self.MEMBERS)
        normalisers: frozenset[Normaliser] = frozenset().union(*(rule.normalise for rule in rules))
        marks = {self.CONTROLS: SUSPECT_RE2}
        if normalisers - {"base64", "zero-width"}:
            marks[self.FOLDED] = FOLDED_RE2
            add(FOLDED_RE2, self.FOLDED)
        if "base64" in normalisers:
            marks[self.PACKED] = BASE64_RE2
            add(BASE64_RE2, self.PACKED)
        self._markers = {mark: _compile(Rule("mark", "(?i)" + pattern), False) for mark, pattern in marks.items()}
        self._prefilter = prefilter(engine, needles, foreign)
        # A set that ran out of memory would find nothing and say nothing.
        probes = [(index, word) for index, rule in enumerate(rules) if rule.prefilter is None for word in rule.keywords]
        for index, word in [*probes, (self.CONTROLS, "\x00")]:
            if index not in self.first_pass(encode(word)):
                raise RulesError("the rules are too many or too large together; give them keywords")

    def first_pass(self, text: bytes) -> tuple[int, ...]:
        """Which rules could match somewhere in the text, in their order; before them the marks, which are negative."""
        hits = self._prefilter.matches(text)
        if not hits:
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
        """Indexes of those texts that a candidate may match, in order.  Linear in their total length.

        Of the marks, those of characters and disguises can be located as rules are.
        """
        rules = tuple(self._rules[index] if index >= 0 else self._markers[index] for index in candidates)
        for start in range(0, len(texts), _TEXTS_AT_ONCE) if rules else ():
            part = texts[start : start + _TEXTS_AT_ONCE]
            yield from (start + index for index in _locate(rules, part))

    def matches(self, candidates: Iterable[int], text: bytes, budget: Budget) -> Iterator[Match]:
        """Where the candidate rules match, rule by rule; stand-ins and honest matches are left out.

        Raises TooManyMatches.
        """
        for candidate in candidates:
            rule = self._rules[candidate]
            for found in rule.program.finditer(text):
                start, end = _secret(rule, found)
                if start == end:
                    continue
                accepted = _accept(rule, found, text, start, end)
                budget.spend(accepted > 0 and rule.redacts)
                if accepted:
                    yield Match(start, start + accepted, candidate)

    def spans(self, rule: int, text: bytes, offset: int, budget: Budget) -> Iterator[tuple[int, int, int, int]]:
        """Where one rule matches from an offset on, which has no match under way: where the match begins and ends, and
        where the secret does that is in it.  Stand-ins and honest matches are counted.  Raises TooManyMatches."""
        compiled = self._rules[rule]
        for found in compiled.program.finditer(text, offset):
            start, end = _secret(compiled, found)
            accepted = _accept(compiled, found, text, start, end) if start < end else 0
            if accepted:
                yield found.start(), found.end(), start, start + accepted
            else:
                budget.spend(False)

    def prefix_end(self, rule: int, text: bytes) -> int | None:
        """Where a match ends that the text begins with; None where it does not."""
        found = self._rules[rule].program.match(text)
        return None if found is None else int(found.end())

    def redact(self, candidates: Iterable[int], text: bytes, budget: Budget) -> Redaction | None:
        """The text with what the candidate rules find in it replaced; None when they find nothing.

        Raises TooManyMatches.
        """
        counts: dict[str, int] = {}
        text = self.redact_octets(candidates, text, budget, counts)
        return Redaction(text.decode("utf-8", "surrogatepass"), counts) if counts else None

    def redact_octets(self, candidates: Iterable[int], text: bytes, budget: Budget, counts: dict[str, int]) -> bytes:
        """The same for what need not be UTF-8; adds to the counts how often each rule matched."""
        for candidate in candidates:
            rule = self._rules[candidate]
            pieces: list[bytes] = []
            last = count = 0
            for start, end, _ in self.matches((candidate,), text, budget):
                count += 1
                pieces += (text[last:start], rule.replacement)
                last = end
            if count:
                counts[rule.id] = counts.get(rule.id, 0) + count
                if rule.redacts:
                    pieces.append(text[last:])
                    text = b"".join(pieces)
        return text

    def normalisers(self, rule: int) -> frozenset[Normaliser]:
        """Under which disguises a rule looks."""
        return self._rules[rule].rule.normalise


def _secret(rule: _Compiled, match: Any) -> tuple[int, int]:
    """Where in a match the secret is; an empty stretch where there is none."""
    for group in rule.groups:
        start, end = match.span(group)
        if start < end:
            return start, end
    return 0, 0


def _accept(rule: _Compiled, match: Any, text: bytes, start: int, end: int) -> int:
    """How many octets from the start are a secret; 0 for what is honest."""
    secret = text[start:end]
    if secret.startswith(b"[redacted:") or (rule.rule.skip_placeholders and is_placeholder(secret)):
        return 0
    if rule.rule.entropy and entropy(secret) <= rule.rule.entropy:
        return 0
    if any(_is_allowed(allowed, match, text, secret) for allowed in rule.allowed):
        return 0
    return end - start if rule.rule.check is None else CHECKS[rule.rule.check](secret)


def _is_allowed(allowed: _Allowed, match: Any, text: bytes, secret: bytes) -> bool:
    allowance = allowed.allowance
    target = secret
    if allowance.target != "secret":
        first, last = match.span()
        if allowance.target == "line":
            first = text.rfind(b"\n", max(first - _LINE_OCTETS, 0), first) + 1 or max(first - _LINE_OCTETS, 0)
            behind = text.find(b"\n", last, last + _LINE_OCTETS)
            last = behind if behind >= 0 else last + _LINE_OCTETS
        target = text[first:last]
    by_pattern = any(program.search(target) is not None for program in allowed.programs)
    lower = secret.lower()
    by_word = any(word.encode() in lower for word in allowance.words)
    if allowance.both and allowance.patterns and allowance.words:
        return by_pattern and by_word
    return by_pattern or by_word


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


def is_stand_in(secret: bytes) -> bool:
    """Whether the text of a member is a placeholder, ours or somebody else's."""
    return secret.startswith(b"[redacted:") or is_placeholder(secret)


def _compile(rule: Rule, redacts: bool) -> _Compiled:
    program = compile_pattern(after_escapes(rule.pattern), f"rule {rule.id}")
    groups = (rule.group,) if rule.group is not None else tuple(range(1, program.groups + 1)) or (0,)
    return _Compiled(
        rule.id,
        program,
        (*groups, 0) if rule.whole_if_empty else groups,
        b"[redacted:" + rule.id.encode() + b"]",
        redacts,
        rule,
        tuple(
            _Allowed(tuple(compile_pattern(pattern, f"rule {rule.id}") for pattern in allowance.patterns), allowance)
            for allowance in rule.allowed
        ),
        # These mean the edges of one string, but the first passes see many strings joined.
        is_anchored(rule.pattern),
    )
