"""Going through the strings of a message in which something may be: what is found, and what takes its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from .blocks import Joined
from .controls import clean
from .detect import Budget, Detector, TooManyMatches, encode, is_stand_in
from .disguise import Disguises
from .edit import Edits, Place, Text, pointer
from .hook import Exchange, Finding
from .members import EmbeddedMembers, normalise
from .normalise import pack, unpack
from .ruleset import Action, Rule

__all__ = ["SCHEMAS", "SECRET_MEMBER", "Controls", "Notes", "Search"]

Controls = Literal["strip", "flag", "off"]

# The rule that goes by the name of a member instead of by a pattern.
SECRET_MEMBER = "secret-member"  # noqa: S105
_MEMBER_PLACEHOLDER = b"[redacted:secret-member]"

# Below these a member called "password" defines one, it does not hold one.
SCHEMAS = frozenset(("inputSchema", "outputSchema", "requestedSchema"))
# What is base64 by the protocol: resources, images and sound.
_BASE64_MEMBERS = frozenset(("blob", "data"))
# Distinct places noted per message; beyond that only the number grows, so that a message cannot flood the record.
_MAX_PLACES = 32


# What a first look under disguises may cost; see ``Budget``.
_LOOK = 1000


class Search:
    """What a hook looks for, and what it does with it.

    ``rules``    are those of the detector, ``actions`` what is done with their matches, and with ``SECRET_MEMBER``
    ``members``  normalised names of members whose text is a secret; ``embedded`` finds them in JSON that is text
    ``harmless`` names of members that are known to be none of these
    ``ignored``  kinds of characters that are left alone
    """

    __slots__ = (
        "_actions", "_blocking", "_detector", "_disguises", "_embedded", "_ignored", "_members", "_rules", "harmless",
    )  # fmt: skip

    def __init__(
        self,
        detector: Detector,
        rules: tuple[Rule, ...],
        actions: Mapping[str, Action],
        members: frozenset[str],
        embedded: EmbeddedMembers | None,
        ignored: frozenset[str],
    ) -> None:
        self._detector = detector
        self._disguises = Disguises(detector, embedded)
        self._rules = rules
        self._actions = actions
        self._blocking = frozenset(index for index, rule in enumerate(rules) if actions[rule.id] == "block")
        self._members = members
        self._embedded = embedded
        self._ignored = ignored
        self.harmless: set[str] = set()

    def rule_action(self, index: int) -> tuple[str, Action]:
        """The id of a rule, or of the one by member names for ``Detector.MEMBERS``, and what is done with a match."""
        rule = SECRET_MEMBER if index == Detector.MEMBERS else self._rules[index].id
        return rule, self._actions[rule]

    def placeholder(self, index: int) -> bytes:
        """What takes the place of a match."""
        return b"[redacted:%b]" % self.rule_action(index)[0].encode()

    def is_clear(self, candidates: Iterable[int], texts: Iterable[str]) -> bool:
        """Whether there is nothing in texts of which the first passes know only that something may be in disguise."""
        if not all(mark in (Detector.FOLDED, Detector.PACKED) for mark in candidates):
            return False
        try:
            # Nothing goes on across this.
            return not self._disguises.uncover("\n|\n".join(texts), Budget(_LOOK))
        except TooManyMatches:
            return False

    def run(
        self,
        found: list[Text],
        characters: Controls,
        candidates: tuple[int, ...],
        edits: Edits,
        notes: Notes,
        budget: Budget,
    ) -> str | None:
        """Fills edits and notes.  The rule that blocks the message, if one does.  Raises TooManyMatches."""
        rules = tuple(index for index in candidates if index >= 0)
        controls: Controls = "off"
        if Detector.CONTROLS in candidates:
            controls = characters
        # Invisible characters first: a token with one inside is found once it is gone.
        stripped = controls != "off" and self._clean(found, controls, edits, notes)
        encoded = [encode(entry.text) for entry in found]
        has_embedded = Detector.MEMBERS in candidates
        if stripped:
            candidates = self._detector.first_pass(b"\n".join(encoded))
            rules = tuple(index for index in candidates if index >= 0)
            has_embedded = Detector.MEMBERS in candidates
        blocked = self._find_disguised(found, encoded, candidates, edits, notes, budget)
        # Rules that block look at the text as it came, before a member's name has it redacted.
        blocking = tuple(index for index in rules if index in self._blocking)
        for index in self._detector.locate(blocking, encoded):
            redaction = self._detector.redact(blocking, encoded[index], budget)
            for rule, count in redaction.counts.items() if redaction is not None else ():
                notes.add(rule, "block", found[index].path, found[index].member, count)
                blocked = blocked or rule
        blocked = self._find_members(found, edits, notes, budget) or blocked
        if has_embedded:
            blocked = self._find_embedded(found, encoded, edits, notes, budget) or blocked
        rules = tuple(index for index in rules if index not in self._blocking)
        for index in self._detector.locate(rules, encoded):
            entry = found[index]
            if edits.is_final(entry):
                continue
            redaction = self._detector.redact(rules, encoded[index], budget)
            if redaction is None:
                continue
            for rule, count in redaction.counts.items():
                notes.add(rule, self._actions[rule], entry.path, entry.member, count)
            if redaction.text != entry.text:
                edits.set(entry.with_text(redaction.text))
        return blocked

    def _clean(self, found: list[Text], controls: Controls, edits: Edits, notes: Notes) -> bool:
        """Strips or flags control and invisible characters.  Whether a text was changed."""
        stripped = False
        for index, entry in enumerate(found):
            text, kinds = clean(entry.text)
            kinds = kinds - self._ignored
            if not kinds:
                continue
            for kind in kinds:
                notes.add(kind, controls, entry.path, entry.member)
            if controls == "strip":
                found[index] = entry.with_text(text)
                edits.set(found[index])
                stripped = True
        return stripped

    def find_split(
        self,
        joined: Joined,
        found: list[Text],
        candidates: tuple[int, ...],
        edits: Edits,
        notes: Notes,
        budget: Budget,
    ) -> str | None:
        """Redacts secrets that go on from one block of a result to the next.  The rule, if it blocks."""
        blocked = None
        cuts: dict[Place, list[tuple[int, int, int]]] = {}
        for rule, parts in self._disguises.split(joined, candidates, budget):
            name, action = self.rule_action(rule)
            blocked = name if action == "block" else blocked
            for place, first, last in parts:
                notes.add(name, action, place[:-1], place[-1])
                if action == "redact":
                    cuts.setdefault(place, []).append((first, last, rule))
        for index, entry in enumerate(found) if cuts else ():
            spans = cuts.get((*entry.path, entry.member), ()) if not entry.is_name else ()
            if spans:
                found[index] = entry.with_text(self._cut(entry.text, sorted(spans)))
                edits.set(found[index])
        return blocked

    def _find_disguised(
        self,
        found: list[Text],
        encoded: list[bytes],
        candidates: tuple[int, ...],
        edits: Edits,
        notes: Notes,
        budget: Budget,
    ) -> str | None:
        """Redacts secrets under an encoding, an escape or other characters.  The rule, if it blocks."""
        blocked = None
        for index in self._detector.locate(self._disguises.marks(candidates), encoded):
            entry = found[index]
            data = unpack(entry.text) if entry.member in _BASE64_MEMBERS and not entry.is_name else None
            text = None if data is None else _as_text(data)
            if text is not None:
                # By the protocol this is base64, and base64 it stays.
                inner = [entry.with_text(text)]
                changes = Edits()
                marks = self._detector.first_pass(encode(text))
                blocked = self.run(inner, "off", marks, changes, notes, budget) or blocked
                after = changes.get(inner[0])
                cleaned = entry.text if after is None else pack(encode(after))
            else:
                cuts: list[tuple[int, int, int]] = []
                for start, end, rules in self._disguises.uncover(entry.text, budget):
                    for rule in rules:
                        name, action = self.rule_action(rule)
                        notes.add(name, action, entry.path, entry.member)
                        blocked = name if action == "block" else blocked
                    redacting = [rule for rule in rules if self.rule_action(rule)[1] == "redact"]
                    cuts += ((start, end, rule) for rule in redacting[:1])
                cleaned = self._cut(entry.text, cuts)
            if cleaned != entry.text:
                found[index] = entry.with_text(cleaned)
                encoded[index] = encode(cleaned)
                edits.set(found[index])
        return blocked

    def _cut(self, text: str, spans: Iterable[tuple[int, int, int]]) -> str:
        """The text with placeholders for stretches of it, which are in order."""
        pieces: list[str] = []
        last = 0
        for start, end, rule in spans:
            if start >= last:
                pieces += (text[last:start], self.placeholder(rule).decode())
                last = end
        return "".join((*pieces, text[last:]))

    def _find_members(self, found: list[Text], edits: Edits, notes: Notes, budget: Budget) -> str | None:
        """Redacts the text of members whose name says that it is a secret.  The rule, if it blocks."""
        action = self._actions[SECRET_MEMBER]
        blocked = None
        for entry in found:
            if entry.is_name or type(entry.member) is not str or entry.member in self.harmless:
                continue
            if normalise(entry.member) not in self._members or not SCHEMAS.isdisjoint(entry.path):
                continue
            if not entry.text or is_stand_in(encode(entry.text)):
                continue
            budget.spend(action == "redact")
            notes.add(SECRET_MEMBER, action, entry.path, entry.member)
            if action == "redact":
                edits.set(entry.with_text(_MEMBER_PLACEHOLDER.decode()), final=True)
            elif action == "block":
                blocked = SECRET_MEMBER
        return blocked

    def _find_embedded(
        self, found: list[Text], encoded: list[bytes], edits: Edits, notes: Notes, budget: Budget
    ) -> str | None:
        """The same for members of JSON that is text; what is around their values stays.  The rule, if it blocks."""
        if self._embedded is None:
            return None
        action = self._actions[SECRET_MEMBER]
        blocked = None
        for index, entry in enumerate(found):
            # Two quotes and a colon are the least that there is.
            if entry.is_name or ":" not in entry.text or edits.is_final(entry) or not SCHEMAS.isdisjoint(entry.path):
                continue
            text = encoded[index]
            pieces: list[bytes] = []
            count = last = 0
            for start, end in self._embedded.values(text):
                secret = text[start:end]
                # Many backslashes are few characters, but escapes of something else.
                if b"\\" not in secret and is_stand_in(secret):
                    budget.spend(False)
                    continue
                budget.spend(action == "redact")
                count += 1
                pieces += (text[last:start], _MEMBER_PLACEHOLDER)
                last = end
            if not count:
                continue
            notes.add(SECRET_MEMBER, action, entry.path, entry.member, count)
            if action == "redact":
                encoded[index] = b"".join((*pieces, text[last:]))
                found[index] = entry.with_text(encoded[index].decode("utf-8", "surrogatepass"))
                edits.set(found[index])
            elif action == "block":
                blocked = SECRET_MEMBER
        return blocked


class Notes:
    """Findings of one message, counted by rule and place, and bounded."""

    __slots__ = ("_counts", "_hook")

    def __init__(self, hook: str) -> None:
        self._hook = hook
        self._counts: dict[tuple[str, str, Place | None], int] = {}

    def add(self, rule: str, action: str, path: Place, member: str | int, count: int = 1) -> None:
        key: tuple[str, str, Place | None] = (rule, action, (*path, member))
        if key not in self._counts and len(self._counts) >= _MAX_PLACES:
            key = (rule, action, None)
        self._counts[key] = self._counts.get(key, 0) + count

    def write(self, exchange: Exchange, edits: Edits) -> None:
        for (rule, action, place), count in self._counts.items():
            text = "" if place is None else pointer(edits.renamed(place))
            exchange.note(Finding(self._hook, rule, action, text, count))


def _as_text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
