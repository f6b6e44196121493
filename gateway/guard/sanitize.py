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
from .detect import Detector, encode, is_placeholder
from .edit import Edits, Place, pointer, strings
from .hook import PASS, Block, Exchange, Finding, Replace, Verdict
from .ruleset import Action, Rule, RulesError, check_action, check_known, default_rules, read_rules, select

__all__ = ["DEFAULT_MEMBERS", "SECRET_MEMBER", "Controls", "SanitizeHook"]

Controls = Literal["strip", "flag", "off"]

# The rule that goes by the name of a member instead of by a pattern.
SECRET_MEMBER = "secret-member"  # noqa: S105

# Members whose text is a secret, whatever it looks like: in lower case, without "_", "-", "." and spaces.  Names that
# honest data uses for other things - key, tokens, nextPageToken, hasPassword - are left out.
DEFAULT_MEMBERS = frozenset(
    (
        "password", "passwd", "pwd", "passphrase", "dbpassword", "databasepassword", "userpassword",
        "adminpassword", "rootpassword", "masterpassword", "mysqlpassword", "postgrespassword", "pgpassword",
        "redispassword", "smtppassword", "ldappassword", "secret", "secretkey", "clientsecret", "appsecret",
        "sharedsecret", "webhooksecret", "sessionsecret", "jwtsecret", "signingsecret", "token", "accesstoken",
        "refreshtoken", "idtoken", "authtoken", "bearertoken", "sessiontoken", "securitytoken", "apitoken",
        "bottoken", "githubtoken", "gitlabtoken", "slacktoken", "npmtoken", "apikey", "apisecret",
        "secretaccesskey", "awssecretaccesskey", "accesskeysecret", "accountkey", "storagekey", "privatekey",
        "sshprivatekey", "signingkey", "encryptionkey", "masterkey", "credential", "credentials",
        "authorization", "proxyauthorization", "xapikey", "xauthtoken", "setcookie", "connectionstring",
    )
)  # fmt: skip

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
        self._detector = _detector(chosen, self._actions)
        self._members: frozenset[str] = frozenset()
        if SECRET_MEMBER not in disabled:
            self._members = DEFAULT_MEMBERS | {_normalise(member) for member in _names(members, "members")}
        self._ignored_controls = frozenset(disabled)
        self._definitions = _controls(definitions, "definitions")
        self._results = _controls(results, "results")
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
            if _normalise(member) in self._members:
                found |= type(node[member]) is str
            elif len(member) <= 128:
                if len(self._harmless) >= _MEMORY:
                    self._harmless.clear()
                self._harmless.add(member)
        return found

    def _examine(self, message: Message, exchange: Exchange, candidates: tuple[int, ...]) -> Verdict:
        """The long way, for a message in which something may be."""
        has_controls = candidates[:1] == (Detector.CONTROLS,)
        rules = candidates[1:] if has_controls else candidates
        controls: Controls = "off"
        if has_controls:
            is_definition = message.kind is Kind.RESULT and message.method in _DEFINITIONS
            controls = self._definitions if is_definition else self._results
        found = [entry for entry in strings(message.document) if not _is_protocol(entry.path, entry.member)]
        edits = Edits()
        notes = _Notes(self.name)
        # Invisible characters first: a token with one inside is found once it is gone.
        stripped: set[int] = set()
        if controls != "off":
            for index, entry in enumerate(found):
                text, kinds = clean(entry.text)
                kinds = kinds - self._ignored_controls
                if not kinds:
                    continue
                for kind in kinds:
                    notes.add(kind, controls, entry.path, entry.member)
                if controls == "strip":
                    found[index] = entry.with_text(text)
                    stripped.add(index)
                    edits.set(found[index])
        blocked = self._find_members(found, edits, notes)
        encoded = [encode(entry.text) for entry in found]
        if stripped:
            rules = tuple(index for index in self._detector.first_pass(b"\n".join(encoded)) if index >= 0)
        for index in self._detector.locate(rules, encoded) if rules else ():
            entry = found[index]
            redaction = self._detector.redact(rules, encoded[index])
            if redaction is None or edits.is_final(entry):
                continue
            for rule, count in redaction.counts.items():
                action = self._actions[rule]
                notes.add(rule, action, entry.path, entry.member, count)
                if action == "block":
                    blocked = blocked or rule
            if redaction.text != entry.text:
                edits.set(entry.with_text(redaction.text))
        notes.write(exchange, edits)
        if blocked is not None:
            error = ContentBlocked(
                f"the server's message matches rule {blocked!r} of hook {self.name!r} and was withheld",
                key="hooks",
                data={"rule": blocked},
            )
            return Block(error)
        return Replace(message.with_document(edits.apply(message.document))) if edits else PASS

    def _find_members(self, found: list[Any], edits: Edits, notes: _Notes) -> str | None:
        """Redacts the text of members whose name says that it is a secret.  The rule, if it blocks."""
        action = self._actions[SECRET_MEMBER]
        blocked = None
        for entry in found:
            if entry.is_name or type(entry.member) is not str or entry.member in self._harmless:
                continue
            if _normalise(entry.member) not in self._members or not _SCHEMAS.isdisjoint(entry.path):
                continue
            if not entry.text or entry.text.startswith("[redacted:") or is_placeholder(encode(entry.text)):
                continue
            notes.add(SECRET_MEMBER, action, entry.path, entry.member)
            if action == "redact":
                edits.set(entry.with_text(f"[redacted:{SECRET_MEMBER}]"), final=True)
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


def _detector(rules: tuple[Rule, ...], actions: Mapping[str, Action]) -> Detector:
    return Detector(rules, (rule.id for rule in rules if actions[rule.id] == "redact"))


def _is_protocol(path: Place, member: str | int) -> bool:
    if len(path) > 2:
        return False
    if not path or (path in _BODIES and member in _PROTOCOL_MEMBERS):
        return True
    return path in _METAS and (
        member in _PROTOCOL_META or (type(member) is str and member.startswith(_PROTOCOL_META_PREFIX))
    )


def _normalise(member: str) -> str:
    return member.casefold().replace("_", "").replace("-", "").replace(".", "").replace(" ", "")


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
