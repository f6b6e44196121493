"""The ``sanitize`` hook: what upstreams send, without secrets and without characters that nobody sees.

It reads decoded strings, member names too, so that ``\\u0041KIA`` and ``AKIA`` are the same.  A message in which
nothing is found is not copied, and its original bytes go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, get_args

from ..config.units import duration
from ..protocol.errors import ContentBlocked
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind
from .blocks import Joined, join
from .controls import BIDI, INVISIBLE, TERMINAL
from .detect import Budget, Detector, TooManyMatches, encode, is_stand_in
from .edit import Edits, Place, Text, strings
from .flows import Flows, Held, OnSplit, Seams, Split
from .hook import PASS, Block, Exchange, Pass, Replace, Verdict
from .members import DEFAULT_MEMBERS, EmbeddedMembers, normalise
from .prefilter import check_engine
from .ruleset import (
    Action,
    RulesError,
    check_action,
    check_known,
    default_rules,
    optional_rules,
    read_rules,
    select,
)
from .search import SCHEMAS, SECRET_MEMBER, Controls, Notes, Search
from .streamed import SanitizedWindows
from .windows import Windows

__all__ = ["SECRET_MEMBER", "Controls", "SanitizeHook"]

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

# What is asked for with each message, at hand.
_CLIENT: Final = Sender.CLIENT
_NOTIFICATION: Final = Kind.NOTIFICATION

# Member names known to be harmless; peers choose them, so the number is bounded.
_MEMORY = 8192


class SanitizeHook:
    """Redacts secrets and strips invisible characters from what an upstream sends.

    ``members``       further member names whose text is a secret; case, ``_``, ``-``, ``.`` and spaces do not matter
    ``rules_files``   files with further rules, relative to the working directory
    ``action``        what is done with a match of a rule that does not say: ``redact``, ``block`` or ``flag``
    ``actions``       what is done with matches of certain rules, by rule id
    ``enable``        ids of rules that are only used when asked for: cards, accounts, addresses, telephone numbers
    ``disable``       ids of rules that are not used
    ``engine``        what makes the first pass over a message: ``re2`` or ``hyperscan``
    ``definitions``   control and invisible characters in what defines tools, prompts, resources and the server:
                      ``strip``, ``flag`` or ``off``
    ``results``       the same for everything else that an upstream sends
    ``max_hits``      how many secrets a message may hold; one with more is blocked, because going through it would hold
                      up everybody else's
    ``max_hold``      how long a notification is held whose text may be the beginning of a secret: a duration; 0: never
    ``on_split``      what is done when a secret goes on whose beginning is out: ``flag``, or ``end`` the stream
    """

    name = "sanitize"

    def __init__(
        self,
        *,
        members: Any = (),
        rules_files: Any = (),
        action: Any = "redact",
        actions: Any = None,
        enable: Any = (),
        disable: Any = (),
        engine: Any = "re2",
        definitions: Any = "strip",
        results: Any = "flag",
        max_hits: Any = 1000,
        max_hold: Any = "50ms",
        on_split: Any = "flag",
    ) -> None:
        files = (rules_files,) if isinstance(rules_files, str) else tuple(rules_files)
        enabled = _names(enable, "enable")
        check_known(enabled, [rule.id for rule in optional_rules()], "enable")
        rules = [
            *default_rules(),
            *(rule for rule in optional_rules() if rule.id in enabled),
            *(rule for file in files for rule in read_rules(Path(file))),
        ]
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
        self._detector = Detector(chosen, redacting, self._embedded, check_engine(engine, "engine"))
        self._ignored_controls = frozenset(disabled)
        self._definitions = _controls(definitions, "definitions")
        self._results = _controls(results, "results")
        if type(max_hits) is not int or max_hits < 1:
            raise RulesError("max_hits: expected a whole number of 1 or more")
        self._max_hits = max_hits
        self._search = Search(
            self._detector, chosen, self._actions, self._members, self._embedded, self._ignored_controls
        )
        self._harmless = self._search.harmless
        hold = _duration(max_hold, "max_hold")
        self._seams = Seams(self._detector, chosen, self._actions, _is_protocol, hold, _on_split(on_split), max_hits)

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Passes, replaces or blocks a message of the server; passes those of the client."""
        if message.sender is _CLIENT:
            return PASS
        if message.kind is _NOTIFICATION and "params" in message.document:
            return self._judge_flow(message, exchange)
        return self._judge(message, exchange)

    def _judge_flow(self, message: Message, exchange: Exchange) -> Verdict:
        """A notification, whose strings may go on with those of earlier ones."""
        flows = exchange.state.get(self.name)
        if flows is None:
            flows = exchange.state[self.name] = Flows(self._seams, self.name)

        def release(held: Held) -> Verdict:
            passed = flows.let_go(held)
            if held.blocked is not None:
                return self._block(held.blocked)
            verdict = self._judge(passed, exchange)
            return Replace(passed) if verdict is PASS and passed is not message else verdict

        try:
            held = flows.take(message, exchange, release)
        except TooManyMatches:
            return self._too_many()
        except Split as split:
            return Block(
                ContentBlocked(
                    f"a secret, rule {split.rule!r} of hook {self.name!r}, was cut in two by the server's messages",
                    reason="split-secret",
                    key="hooks",
                    data={"rule": split.rule},
                ),
                ends=True,
            )
        if held is None:
            return self._judge(message, exchange)
        return held.hold or release(held)

    def _judge(self, message: Message, exchange: Exchange) -> Verdict:
        """One message by itself."""
        texts: list[str] = []
        suspicious = self._collect(message.document, texts)
        joined = join(message.document)
        if joined is not None:
            texts.append(joined.text)
        text = encode("\n".join(texts))
        candidates = self._detector.first_pass(text)
        if candidates:
            candidates = self._detector.second_pass(candidates, text)
        if not suspicious and (not candidates or self._search.is_clear(candidates, texts)):
            return PASS
        return self._examine(message, exchange, candidates, joined)

    def _collect(self, document: dict[str, Any], texts: list[str]) -> bool:
        """Every string of the message, names and values; True when a member's name says that its text is a secret."""
        harmless = self._harmless
        suspicious = False
        stack: list[Any] = [document]
        while stack:
            node = stack.pop()
            # Twice the same for values: iterators that serve objects and arrays alike take as long as all the rest.
            if type(node) is dict:
                members: dict[str, Any] = node
                are_harmless = True
                for name, value in members.items():
                    if name not in harmless:
                        are_harmless = False
                    texts.append(name)
                    kind = type(value)
                    if kind is str:
                        texts.append(value)
                    elif kind is dict or kind is list:
                        stack.append(value)
                if not are_harmless:
                    suspicious |= self._learn(members)
            else:
                values: list[Any] = node
                for value in values:
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
                found |= type(value) is str and value != "" and not is_stand_in(encode(value))
            elif len(member) <= 128:
                if len(self._harmless) >= _MEMORY:
                    self._harmless.clear()
                self._harmless.add(member)
        return found

    def _examine(
        self, message: Message, exchange: Exchange, candidates: tuple[int, ...], joined: Joined | None
    ) -> Verdict:
        """The long way, for a message in which something may be."""
        edits = Edits()
        notes = Notes(self.name)
        try:
            is_definition = message.kind is Kind.RESULT and message.method in _DEFINITIONS
            characters = self._definitions if is_definition else self._results
            found = [entry for entry in strings(message.document) if not _is_protocol(entry.path, entry.member)]
            budget = Budget(self._max_hits)
            blocked = (
                self._search.find_split(joined, found, candidates, edits, notes, budget) if joined is not None else None
            )
            blocked = self._search.run(found, characters, candidates, edits, notes, budget) or blocked
        except TooManyMatches:
            notes.write(exchange, edits)
            return self._too_many()
        notes.write(exchange, edits)
        if blocked is not None:
            return self._block(blocked)
        return Replace(message.with_document(edits.apply(message.document))) if edits else PASS

    def _block(self, rule: str) -> Block:
        return Block(
            ContentBlocked(
                f"the server's message matches rule {rule!r} of hook {self.name!r} and was withheld",
                key="hooks",
                data={"rule": rule},
            )
        )

    def _too_many(self) -> Block:
        return Block(
            ContentBlocked(
                f"the server's message holds more secrets than hook {self.name!r} goes through and was withheld",
                reason="too-many-secrets",
                key="hooks",
            )
        )

    # -- a result that is too large to hold ---------------------------------------------------------------------------

    def windows(self, message: Message, exchange: Exchange) -> Windows | Pass:
        """As ``windows`` says: answers of the server in windows."""
        return SanitizedWindows(self, exchange) if message.sender is Sender.SERVER else PASS

    def judge_strings(self, found: list[Text], exchange: Exchange, budget: Budget) -> tuple[Edits, Block | None]:
        """Some of the strings of a result: what becomes of them, or why nothing may pass."""
        edits = Edits()
        notes = Notes(self.name)
        found = [entry for entry in found if not _is_protocol(entry.path, entry.member)]
        candidates = self._detector.first_pass(b"\n".join(encode(entry.text) for entry in found))
        verdict = None
        try:
            blocked = self._search.run(found, self._results, candidates, edits, notes, budget)
            verdict = self._block(blocked) if blocked is not None else None
        except TooManyMatches:
            verdict = self._too_many()
        notes.write(exchange, edits)
        return edits, verdict

    def leaves_alone(self, path: Place, member: str | int) -> bool:
        """Whether a string is the protocol's own."""
        return _is_protocol(path, member)

    def is_secret(self, path: Place, member: str | int) -> bool:
        """Whether the name of a member says that its text is a secret."""
        return type(member) is str and normalise(member) in self._members and SCHEMAS.isdisjoint(path)

    def embedded_values(self, text: bytes, path: Place) -> Iterable[tuple[int, int]]:
        """Where the values of secret members are in a text that is JSON."""
        return () if self._embedded is None or not SCHEMAS.isdisjoint(path) else self._embedded.values(text)

    def rule_action(self, index: int) -> tuple[str, Action]:
        """As ``Search`` has it."""
        return self._search.rule_action(index)

    def placeholder(self, index: int) -> bytes:
        """As ``Search`` has it."""
        return self._search.placeholder(index)


def _is_protocol(path: Place, member: str | int) -> bool:
    if len(path) > 2:
        return False
    if not path or (path in _BODIES and member in _PROTOCOL_MEMBERS):
        return True
    return path in _METAS and (
        member in _PROTOCOL_META or (type(member) is str and member.startswith(_PROTOCOL_META_PREFIX))
    )


def _names(value: Any, option: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if type(name) is not str or not name:
            raise RulesError(f"{option}: expected a list of names")
    return names


def _controls(value: Any, option: str) -> Controls:
    for each in get_args(Controls):
        if value == each:
            return each  # type: ignore[no-any-return]
    raise RulesError(f"{option}: expected strip, flag or off, not {value!r}")


def _duration(value: object, option: str) -> float:
    try:
        return duration(value)
    except ValueError as error:
        raise RulesError(f"{option}: {error}") from error


def _on_split(value: Any) -> OnSplit:
    for each in get_args(OnSplit):
        if value == each:
            return each  # type: ignore[no-any-return]
    raise RulesError(f"on_split: expected flag or end, not {value!r}")
