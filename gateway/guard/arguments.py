"""The ``arguments`` hook: what a call may say, and what a server may ask of a person.

Arguments are judged by the tool's own schema, by rules of the operator - where URLs lead, patterns, conditions - and by
the secrets in them.  Results are judged by the tool's output schema, and forms and URLs that a server puts before a
person by what they ask for.  Nothing is changed, only passed, flagged or refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..protocol.errors import ContentBlocked, PolicyDenied, Refusal
from ..protocol.message import Message, Sender
from ..wire.envelope import Kind
from .argument_options import Member, Mode, Rule, compile_deny, compile_require, read_options
from .conditions import Condition, ConditionFailed
from .controls import clean
from .detect import Budget, Detector, TooManyMatches, encode
from .edit import pointer, strings
from .egress import Egress, UrlRefused, read_url
from .forms import asked_secret, elicitations
from .glob import Globs
from .hook import PASS, Block, Exchange, Finding, Pass, Verdict
from .ruleset import check_known, default_rules, read_rules, select
from .schemas import Misfit, Schemas, SchemaUnusable

__all__ = ["ArgumentsHook"]

# What of a client's parameters carries content of its own to the server.
_CONTENT = ("arguments", "argument", "context", "uri", "inputResponses")
# Matches in one message that are gone through.
_MAX_MATCHES = 200
# Selections of rules that are remembered.  A client chooses the tool's name, so the number is bounded.
_MEMORY = 4096


class ArgumentsHook:
    """Judges arguments, structured results and elicitations.  Options: see docs/arguments.md.

    Raises ValueError for options that cannot be used, with the option's path.
    """

    name = "arguments"

    def __init__(self, **options: Any) -> None:
        read = read_options(options)
        self._input: Mode = read.input_schema
        self._output: Mode = read.output_schema
        self._inputs = Schemas("inputSchema")
        self._outputs = Schemas("outputSchema")
        self._secrets: Mode = read.secrets
        self._rules = tuple(_Rule(index, rule) for index, rule in enumerate(read.rules))
        self._selected: dict[tuple[str, str, str], tuple[_Rule, ...]] = {}
        rules = [*default_rules(), *(rule for file in read.rules_files for rule in read_rules(Path(file)))]
        check_known(read.disable, [rule.id for rule in rules], "disable")
        chosen = select(rules, read.disable)
        wants_secrets = self._secrets != "off" or any(rule.secrets not in (None, "off") for rule in self._rules)
        self._detector = Detector(chosen) if wants_secrets else None
        hosts = read.server_requests.elicitation_hosts
        self._hosts = None if "*" in hosts else Globs(host.lower() for host in hosts)
        self._forms: Mode = read.server_requests.secret_forms
        self._asks = self._hosts is not None or self._forms != "off"
        self._calls = self._input != "off" or bool(self._rules) or self._detector is not None

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Passes, flags or blocks; never changes a message."""
        if message.sender is Sender.CLIENT:
            return self._judge_client(message, exchange) if self._calls else PASS
        if self._asks:
            refusal = self._refuse_elicitation(message, exchange)
            if refusal is not None:
                return Block(refusal)
        if message.kind is Kind.RESULT:
            if message.method == "tools/list":
                self._learn(message.result.get("tools"))
            elif message.method == "tools/call" and self._output != "off":
                return self._judge_output(message, exchange)
        return PASS

    def windows(self, message: Message, exchange: Exchange) -> Pass | None:
        """Lists are learned, and results compared with their schema, whole."""
        if message.method == "tools/list" or (message.method == "tools/call" and self._output != "off"):
            return None
        return PASS

    # -- what a client sends ------------------------------------------------------------------------------------------

    def _judge_client(self, message: Message, exchange: Exchange) -> Verdict:
        rules: tuple[_Rule, ...] = ()
        if message.kind is Kind.REQUEST and message.method == "tools/call":
            params = message.params
            arguments = params.get("arguments")
            arguments = {} if arguments is None else arguments
            tool = params.get("name")
            if type(tool) is not str or type(arguments) is not dict or _has_twin(params):
                return self._refuse_shape(exchange)
            rules = self._select(exchange, tool)
            for rule in rules:
                refusal = rule.refuse(self.name, tool, arguments, exchange)
                if refusal is not None:
                    return Block(refusal)
            if self._input != "off":
                refusal = self._refuse_arguments(tool, arguments, exchange)
                if refusal is not None:
                    return Block(refusal)
        mode = self._secrets
        for rule in rules:
            mode = rule.secrets or mode
        if mode == "off" or self._detector is None:
            return PASS
        return self._judge_secrets(message, exchange, mode)

    def _select(self, exchange: Exchange, tool: str) -> tuple[_Rule, ...]:
        if not self._rules:
            return ()
        key = (exchange.upstream, exchange.client, tool)
        rules = self._selected.get(key)
        if rules is None:
            rules = tuple(rule for rule in self._rules if rule.selects(*key))
            if len(tool) <= 128:
                if len(self._selected) >= _MEMORY:
                    self._selected.clear()
                self._selected[key] = rules
        return rules

    def _refuse_shape(self, exchange: Exchange) -> Verdict:
        exchange.note(Finding(self.name, "argument-shape", "block", "/params"))
        return Block(
            PolicyDenied(
                "the call must have a name and, in a member spelled exactly so, arguments that are an object",
                reason="argument-shape",
                key=self._key(),
            )
        )

    def _refuse_arguments(self, tool: str, arguments: dict[str, Any], exchange: Exchange) -> Refusal | None:
        try:
            misfit = self._inputs.misfit(tool, arguments)
        except SchemaUnusable as error:
            text = f"the arguments cannot be checked: the tool's inputSchema {error}"
            misfit = Misfit("schema", (), None)
        else:
            if misfit is None:
                return None
            text = f"the arguments do not fit the tool's inputSchema{_explain(misfit)}"
        place = pointer(("params", "arguments", *misfit.place))
        exchange.note(Finding(self.name, "argument-schema", self._input, place))
        if self._input == "flag":
            return None
        return PolicyDenied(text, reason="argument-schema", key=self._key("schema"))

    def _judge_secrets(self, message: Message, exchange: Exchange, mode: Mode) -> Verdict:
        assert self._detector is not None
        if message.kind is Kind.RESULT:
            content = {"result": message.result}
        else:
            params = message.params
            content = {"params": {member: params[member] for member in _CONTENT if member in params}}
        texts = _texts(content)
        candidates = self._detector.first_pass(encode("\n".join(texts)))
        if not candidates:
            return PASS
        found = strings(content)
        if Detector.CONTROLS in candidates:
            # A token with invisible characters inside is found once they are gone.
            found = [entry.with_text(clean(entry.text)[0]) for entry in found]
            candidates = self._detector.first_pass(b"\n".join(encode(entry.text) for entry in found))
        chosen = tuple(index for index in candidates if index >= 0)
        encoded = [encode(entry.text) for entry in found]
        counts: dict[str, int] = {}
        places: set[str] = set()
        budget = Budget(_MAX_MATCHES)
        try:
            for index in self._detector.locate(chosen, encoded):
                redaction = self._detector.redact(chosen, encoded[index], budget)
                for rule, count in redaction.counts.items() if redaction is not None else ():
                    counts[rule] = counts.get(rule, 0) + count
                    # A secret that is a name would stand in the place itself.
                    places.add("" if found[index].is_name else pointer((*found[index].path, found[index].member)))
        except TooManyMatches:
            counts.setdefault("too-many-secrets", 1)
            mode = "block"
        if not counts:
            return PASS
        place = places.pop() if len(places) == 1 else ""
        for rule, count in counts.items():
            exchange.note(Finding(self.name, rule, mode, place or "/" + next(iter(content)), count))
        if mode == "flag":
            return PASS
        first = next(iter(counts))
        return Block(
            ContentBlocked(
                f"the message holds what looks like a secret (rule {first!r}) and was not sent to the server",
                reason="argument-secret",
                key=self._key("secrets"),
                data={"rule": first},
            )
        )

    # -- what a server sends ------------------------------------------------------------------------------------------

    def _learn(self, tools: Any) -> None:
        if type(tools) is list:
            if self._input != "off":
                self._inputs.learn(tools)
            if self._output != "off":
                self._outputs.learn(tools)

    def _judge_output(self, message: Message, exchange: Exchange) -> Verdict:
        result = message.result
        call = message.call
        if call is None or call.name is None or "structuredContent" not in result or result.get("isError") is True:
            return PASS
        try:
            misfit = self._outputs.misfit(call.name, result["structuredContent"])
        except SchemaUnusable as error:
            misfit = Misfit("schema", (), None)
            text = f"the tool's result cannot be checked: its outputSchema {error}"
        else:
            if misfit is None:
                return PASS
            text = "the tool's structured result does not fit its outputSchema"
        # Names in it are the server's own, so the place is only told where it has none.
        exchange.note(Finding(self.name, "output-schema", self._output, "/result/structuredContent"))
        if self._output == "flag":
            return PASS
        return Block(ContentBlocked(text, reason="output-schema", key=self._key("output_schema")))

    def _refuse_elicitation(self, message: Message, exchange: Exchange) -> Refusal | None:
        for place, params in elicitations(message.document):
            if params.get("mode") == "url":
                if self._hosts is not None and not _leads_to(params.get("url"), self._hosts):
                    exchange.note(Finding(self.name, "elicitation-host", "block", place))
                    return ContentBlocked(
                        "the server asks a person to open a URL of a host that is not allowed",
                        reason="elicitation-host",
                        key=self._key("server_requests.elicitation_hosts"),
                    )
            elif self._forms != "off" and asked_secret(params):
                exchange.note(Finding(self.name, "secret-form", self._forms, place))
                if self._forms == "block":
                    return ContentBlocked(
                        "the server asks a person to type a secret, such as a password or a key, into a form",
                        reason="secret-form",
                        key=self._key("server_requests.secret_forms"),
                    )
        return None

    def _key(self, option: str = "") -> str:
        return f"hooks.{self.name}" + (f".options.{option}" if option else "")


class _Rule:
    """One rule of the options, compiled."""

    __slots__ = ("_clients", "_condition", "_deny", "_egress", "_index", "_members", "_reason", "_require", "_tools",
                 "_upstreams", "secrets")  # fmt: skip

    def __init__(self, index: int, rule: Rule) -> None:
        self._index = index
        self._tools, self._upstreams, self._clients = Globs(rule.tools), Globs(rule.upstreams), Globs(rule.clients)
        self._egress: Egress | None = None
        self._members: tuple[Member, ...] = ()
        if rule.egress is not None:
            egress = rule.egress
            self._egress = Egress(egress.schemes, egress.allow, egress.deny, egress.private)
            self._members = tuple(map(Member, egress.members))
        self._deny = tuple((Member(name), compile_deny(text)) for name, text in rule.deny_patterns.items())
        self._require = tuple((Member(name), compile_require(text)) for name, text in rule.require_patterns.items())
        self._condition = Condition(rule.when) if rule.when is not None else None
        self._reason = rule.reason
        self.secrets = rule.secrets

    def selects(self, upstream: str, client: str, tool: str) -> bool:
        return tool in self._tools and upstream in self._upstreams and client in self._clients

    def refuse(self, hook: str, tool: str, arguments: dict[str, Any], exchange: Exchange) -> Refusal | None:
        """Why the arguments are not allowed, or None."""
        refusal = self._refuse_urls(arguments) or self._refuse_patterns(arguments)
        if refusal is None and self._condition is not None:
            refusal = self._refuse_condition(self._condition, tool, arguments, exchange)
        if refusal is not None:
            if self._reason is not None:
                refusal.message = self._reason
            refusal.key = f"hooks.{hook}.options.rules.{self._index}"
            exchange.note(Finding(hook, refusal.reason, "block", "/params/arguments"))
        return refusal

    def _refuse_urls(self, arguments: dict[str, Any]) -> Refusal | None:
        if self._egress is None:
            return None
        for member in self._members:
            for text in member.leaves(arguments):
                try:
                    if type(text) is not str:
                        raise UrlRefused("it is no text")
                    self._egress.check(text)
                except UrlRefused as error:
                    return PolicyDenied(f"the URL in {member.text!r} is not allowed: {error}", reason="argument-egress")
        return None

    def _refuse_patterns(self, arguments: dict[str, Any]) -> Refusal | None:
        for member, program in self._deny:
            for leaf in member.leaves(arguments, names=True):
                if program.search(_as_text(leaf)) is not None:
                    return PolicyDenied(
                        f"the argument {member.text!r} holds what must not be in it", reason="argument-pattern"
                    )
        for member, program in self._require:
            found = list(member.leaves(arguments))
            # Without it the server takes a value of its own, which nobody has looked at.
            if not found or not all(type(leaf) is str and program.search(leaf) is not None for leaf in found):
                return PolicyDenied(
                    f"the argument {member.text!r} is missing or not as it must be", reason="argument-pattern"
                )
        return None

    @staticmethod
    def _refuse_condition(
        condition: Condition, tool: str, arguments: dict[str, Any], exchange: Exchange
    ) -> Refusal | None:
        values = {
            "args": arguments,
            "client": exchange.client,
            "upstream": exchange.upstream,
            "tool": tool,
            "method": "tools/call",
        }
        try:
            if condition.holds(values):
                return None
        except ConditionFailed:
            return PolicyDenied("the condition for this call could not be evaluated", reason="condition-failed")
        return PolicyDenied("the condition for this call does not hold", reason="argument-condition")


def _as_text(leaf: Any) -> str:
    if type(leaf) is str:
        return leaf
    return "true" if leaf is True else "false" if leaf is False else str(leaf)


def _texts(content: Any) -> list[str]:
    texts: list[str] = []
    stack = [content]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is str:
            texts.append(node)
        elif kind is dict:
            texts.extend(node)
            stack.extend(node.values())
        elif kind is list:
            stack.extend(node)
    return texts


def _has_twin(params: dict[str, Any]) -> bool:
    """Whether a server that binds names loosely would find arguments, or a name, that were not judged."""
    return any(
        member.replace("_", "").replace("-", "").casefold() in ("arguments", "name")
        for member in params
        if member not in ("arguments", "name")
    )


def _leads_to(url: Any, hosts: Globs) -> bool:
    try:
        return type(url) is str and read_url(url).host in hosts
    except UrlRefused:
        return False


def _explain(misfit: Misfit) -> str:
    where = ascii(pointer(misfit.place)) if misfit.place else "the top level"
    if len(where) > 100:
        where = where[:96] + "..." + where[0]
    what = f"required member {misfit.missing!r} is missing" if misfit.missing else f"keyword {misfit.keyword!r}"
    return f": at {where}, {what}"
