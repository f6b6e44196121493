"""The ``sanitize`` hook: what upstreams send, without secrets and without characters that nobody sees.

It reads decoded strings, member names too, so that ``\\u0041KIA`` and ``AKIA`` are the same.  A message in which
nothing is found is not copied, and its original bytes go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ..protocol.errors import ContentBlocked
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind
from .controls import BIDI, INVISIBLE, TERMINAL, clean
from .detect import Budget, Detector, TooManyMatches, encode, is_placeholder
from .edit import Edits, Place, Text, pointer, strings
from .hook import PASS, Block, Exchange, Finding, Replace, Verdict
from .members import DEFAULT_MEMBERS, EmbeddedMembers, normalise
from .ruleset import Action, RulesError, check_action, check_known, default_rules, read_rules, select

__all__ = ["SECRET_MEMBER", "Controls", "SanitizeHook"]

Controls = Literal["strip", "flag", "off"]

# The rule that goes by the name of a member instead of by a pattern.
SECRET_MEMBER = "secret-member"  # noqa: S105
_MEMBER_PLACEHOLDER = b"[redacted:secret-member]"

# Results that define what a model is told to work with (rule 14): invisible text there is an instruction in disguise.
_DEFINITIONS = frozenset(
    ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "initialize", "server/discover")
)
# Members of the protocol itself: opaque to us, and broken by any change (rules 7.13, 7.20, 7.25).
_PROTOCOL_MEMBERS = frozenset(
    (
        "nextCursor", "requestState", "progressToken", "requestId", "taskId", "elicitationId", "resultType",
        "cacheScope", "protocolVersion", "mimeType",
    )
)  # fmt: skip
_PROTOCOL_META = frozenset(("progressToken", "traceparent", "tracestate", "baggage"))
_PROTOCOL_META_PREFIX = "io.modelcontextprotocol/"
_BODIES = frozenset((("result",), ("params",)))
_METAS = frozenset((("result", "_meta"), ("params", "_meta")))
# Below these a member called "password" defines one, it does not hold one.
_SCHEMAS = frozenset(("inputSchema", "outputSchema", "requestedSchema"))

# Distinct places noted per message; beyond that only the number grows, so that a message cannot flood the record.
_MAX_PLACES = 32
# Member names known to be harmless; peers choose them, so the number is bounded.
_MEMORY = 8192


class SanitizeHook:
    """Redacts secrets and strips invisible characters from what an upstream sends.

    ``members``       further member names whose text is a secret; case, ``_``, ``-``, ``.`` and spaces do not matter
    ``rules_files``   files with further rules, relative to the working directory
    ``action``        what is done with a match of a rule that does not say: ``redact``, ``block`` or ``flag``
    ``actions``       what is done with matches of certain rules, by rule id
    ``disable``       ids of rules that are not used
    ``definitions``   control and invisible characters in what defines tools, prompts, resources and the server:
                      ``strip``, ``flag`` or ``off``
    ``results``       the same for everything else that an upstream sends
    ``max_hits``      how many secrets a message may hold; one with more is blocked, because going through it would hold
                      up everybody else's
    """

    name = "sanitize"

    def __init__(
        self,
        *,
        members: Iterable[str] = (),
        rules_files: str | Iterable[str] = (),
        action: str = "redact",
        actions: Mapping[str, str] | None = None,
        disable: Iterable[str] = (),
        definitions: str = "strip",
        results: str = "flag",
        max_hits: int = 1000,
    ) -> None:
        files = (rules_files,) if isinstance(rules_files, str) else tuple(rules_files)
        rules = [*default_rules(), *(rule for file in files for rule in read_rules(Path(file)))]
        known = [rule.id for rule in rules] + [SECRET_MEMBER, TERMINAL, INVISIBLE, BIDI]
        disabled = _names(disable, "disable")
        check_known(disabled, known, "disable")
        check_known(actions or {}, [*known[: len(rules)], SECRET_MEMBER], "actions")
        default = check_action(action, "action")
        own = {name: check_action(value, f"actions.{name}") for name, value in (actions or {}).items()}
        chosen = select(rules, disabled)
        self._actions: dict[str, Action] = {rule.id: own.get(rule.id) or rule.action or default for rule in chosen}
        self._actions[SECRET_MEMBER] = own.get(SECRET_MEMBER, default)
        self._members: frozenset[str] = frozenset()
        self._embedded: EmbeddedMembers | None = None
        if SECRET_MEMBER not in disabled:
            self._members = DEFAULT_MEMBERS | {normalise(member) for member in _names(members, "members")}
            self._embedded = EmbeddedMembers(self._members)
        redacting = (rule.id for rule in chosen if self._actions[rule.id] == "redact")
        self._detector = Detector(chosen, redacting, self._embedded.pattern if self._embedded else None)
        self._blocking = frozenset(index for index, rule in enumerate(chosen) if self._actions[rule.id] == "block")
        self._ignored_controls = frozenset(disabled)
        self._definitions = _controls(definitions, "definitions")
        self._results = _controls(results, "results")
        if type(max_hits) is not int or max_hits < 1:
            raise RulesError("max_hits: expected a whole number of 1 or more")
        self._max_hits = max_hits
        self._harmless: set[str] = set()

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Passes, replaces or blocks a message of the server; passes those of the client."""
        if message.sender is Sender.CLIENT:
            return PASS
        texts: list[str] = []
        suspicious = self._collect(message.document, texts)
        text = encode("\n".join(texts))
        candidates = self._detector.first_pass(text)
        if candidates:
            candidates = self._detector.second_pass(candidates, text)
        if not candidates and not suspicious:
            return PASS
        return self._examine(message, exchange, candidates)

    def _collect(self, document: dict[str, Any], texts: list[str]) -> bool:
        """Every string of the message, names and values; True when a member's name says that its text is a secret."""
        harmless = self._harmless
        suspicious = False
        stack: list[Any] = [document]
        while stack:
            node = stack.pop()
            if type(node) is dict:
                if not node.keys() <= harmless:
                    suspicious |= self._learn(node)
                texts.extend(node)
                node = node.values()
            for value in node:
                kind = type(value)
                if kind is str:
                    texts.append(value)
                elif kind is dict or kind is list:
                    stack.append(value)
        return suspicious

    def _learn(self, node: dict[str, Any]) -> bool:
        found = False
        for member in node:
            if member in self._harmless:
                continue
            if normalise(member) in self._members:
                value = node[member]
                found |= type(value) is str and value != "" and not _is_stand_in(encode(value))
            elif len(member) <= 128:
                if len(self._harmless) >= _MEMORY:
                    self._harmless.clear()
                self._harmless.add(member)
        return found

    def _examine(self, message: Message, exchange: Exchange, candidates: tuple[int, ...]) -> Verdict:
        """The long way, for a message in which something may be."""
        edits = Edits()
        notes = _Notes(self.name)
        try:
            blocked = self._search(message, candidates, edits, notes)
        except TooManyMatches:
            notes.write(exchange, edits)
            return Block(
                ContentBlocked(
                    f"the server's message holds more secrets than hook {self.name!r} goes through and was withheld",
                    reason="too-many-secrets",
                    key="hooks",
                )
            )
        notes.write(exchange, edits)
        if blocked is not None:
            error = ContentBlocked(
                f"the server's message matches rule {blocked!r} of hook {self.name!r} and was withheld",
                key="hooks",
                data={"rule": blocked},
            )
            return Block(error)
        return Replace(message.with_document(edits.apply(message.document))) if edits else PASS

    def _search(self, message: Message, candidates: tuple[int, ...], edits: Edits, notes: _Notes) -> str | None:
        """Fills edits and notes.  The rule that blocks the message, if one does.  Raises TooManyMatches."""
        rules = tuple(index for index in candidates if index >= 0)
        controls: Controls = "off"
        if Detector.CONTROLS in candidates:
            is_definition = message.kind is Kind.RESULT and message.method in _DEFINITIONS
            controls = self._definitions if is_definition else self._results
        budget = Budget(self._max_hits)
        found = [entry for entry in strings(message.document) if not _is_protocol(entry.path, entry.member)]
        # Invisible characters first: a token with one inside is found once it is gone.
        stripped = controls != "off" and self._clean(found, controls, edits, notes)
        encoded = [encode(entry.text) for entry in found]
        has_embedded = Detector.MEMBERS in candidates
        if stripped:
            candidates = self._detector.first_pass(b"\n".join(encoded))
            rules = tuple(index for index in candidates if index >= 0)
            has_embedded = Detector.MEMBERS in candidates
        # Rules that block look at the text as it came, before a member's name has it redacted.
        blocked = None
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

    def _clean(self, found: list[Text], controls: Controls, edits: Edits, notes: _Notes) -> bool:
        """Strips or flags control and invisible characters.  Whether a text was changed."""
        stripped = False
        for index, entry in enumerate(found):
            text, kinds = clean(entry.text)
            kinds = kinds - self._ignored_controls
            if not kinds:
                continue
            for kind in kinds:
                notes.add(kind, controls, entry.path, entry.member)
            if controls == "strip":
                found[index] = entry.with_text(text)
                edits.set(found[index])
                stripped = True
        return stripped

    def _find_members(self, found: list[Text], edits: Edits, notes: _Notes, budget: Budget) -> str | None:
        """Redacts the text of members whose name says that it is a secret.  The rule, if it blocks."""
        action = self._actions[SECRET_MEMBER]
        blocked = None
        for entry in found:
            if entry.is_name or type(entry.member) is not str or entry.member in self._harmless:
                continue
            if normalise(entry.member) not in self._members or not _SCHEMAS.isdisjoint(entry.path):
                continue
            if not entry.text or _is_stand_in(encode(entry.text)):
                continue
            budget.spend(action == "redact")
            notes.add(SECRET_MEMBER, action, entry.path, entry.member)
            if action == "redact":
                edits.set(entry.with_text(_MEMBER_PLACEHOLDER.decode()), final=True)
            elif action == "block":
                blocked = SECRET_MEMBER
        return blocked

    def _find_embedded(
        self, found: list[Text], encoded: list[bytes], edits: Edits, notes: _Notes, budget: Budget
    ) -> str | None:
        """The same for members of JSON that is text; what is around their values stays.  The rule, if it blocks."""
        if self._embedded is None:
            return None
        action = self._actions[SECRET_MEMBER]
        blocked = None
        for index, entry in enumerate(found):
            # Two quotes and a colon are the least that there is.
            if entry.is_name or ":" not in entry.text or edits.is_final(entry) or not _SCHEMAS.isdisjoint(entry.path):
                continue
            text = encoded[index]
            pieces: list[bytes] = []
            count = last = 0
            for start, end in self._embedded.values(text):
                secret = text[start:end]
                # Many backslashes are few characters, but escapes of something else.
                if b"\\" not in secret and _is_stand_in(secret):
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


class _Notes:
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


def _is_stand_in(secret: bytes) -> bool:
    return secret.startswith(b"[redacted:") or is_placeholder(secret)


def _is_protocol(path: Place, member: str | int) -> bool:
    if len(path) > 2:
        return False
    if not path or (path in _BODIES and member in _PROTOCOL_MEMBERS):
        return True
    return path in _METAS and (
        member in _PROTOCOL_META or (type(member) is str and member.startswith(_PROTOCOL_META_PREFIX))
    )


def _names(value: Iterable[str], option: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if type(name) is not str or not name:
            raise RulesError(f"{option}: expected a list of names")
    return names


def _controls(value: str, option: str) -> Controls:
    if value not in get_args(Controls):
        raise RulesError(f"{option}: expected strip, flag or off, not {value!r}")
    return value  # type: ignore[return-value]
