"""The ``policy`` hook: what a client may ask for, and what an upstream may ask of the client.  Default deny.

Requests are judged by what they name.  Lists are filtered to what the client may use, so that agents do not plan with
tools they cannot call; the control is the judgement of the call, not the filter (rules 7.19, 7.21).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from ..config import Policy
from ..protocol.errors import ContentBlocked, MethodNotFound, PolicyDenied, Refusal
from ..protocol.message import Message, Sender
from ..protocol.methods import LIFECYCLE, METHODS, Listing, missing_capability
from ..wire.envelope import Kind
from ..wire.names import Cleared
from .glob import Globs
from .hook import PASS, Block, Drop, Exchange, Finding, Pass, Replace, Verdict
from .uri import UriPatterns, UriRefused, normalise, normalise_template

__all__ = ["PolicyHook", "upstream_allowed"]

# What is asked for with each message, at hand.
_CLIENT: Final = Sender.CLIENT
_REQUEST: Final = Kind.REQUEST
_RESULT: Final = Kind.RESULT
_NOTIFICATION: Final = Kind.NOTIFICATION

# JSON-RPC code of 2025-11-25's URLElicitationRequired: its data asks the client to open URLs (rule 7.23).
_URL_ELICITATION_REQUIRED = -32042


# Lists, which hold what each client may use.
_FILTERED = frozenset(("tools/list", "prompts/list", "resources/list", "resources/templates/list"))


class _Subject(NamedTuple):
    """What is refused: what it is called in the sentence, the policy's list that it is not on, a stable slug."""

    what: str
    member: str
    reason: str


_METHOD = _Subject("method", "allowed_methods", reason="method-not-allowed")
_TOOL = _Subject("tool", "allowed_tools", reason="tool-not-allowed")
_PROMPT = _Subject("prompt", "allowed_prompts", reason="prompt-not-allowed")
_RESOURCE = _Subject("resource", "allowed_resources", reason="resource-not-allowed")
_TEMPLATE = _Subject("resource template", "allowed_resources", reason="resource-template-not-allowed")
_REFERENCE = _Subject("completion reference", "allowed_prompts", reason="completion-reference-not-allowed")
_SERVER_REQUEST = _Subject("server request", "allowed_server_requests", reason="server-request-not-allowed")

# A URL that a person is asked to open: rule 9.5 forbids javascript:, data: and file:, and user information before the
# host is only ever used to pass one host off as another.
_WEB_URL = re.compile(r"https?://[^\s\\/?#@\x00-\x20\x7f-\x9f]+(?:[/?#][^\s\\\x00-\x20\x7f-\x9f]*)?", re.IGNORECASE)


def upstream_allowed(policy: Policy, upstream: str) -> bool:
    """Whether clients of the policy may use the upstream at all; the relay asks before anything else."""
    return "*" in policy.allowed_upstreams or upstream in policy.allowed_upstreams


class PolicyHook:
    """Judges every message by ``exchange.policy``.  Takes no options: policies are in the section ``policies``."""

    name = "policy"
    judges_envelope = True

    def __init__(self) -> None:
        self._rules: dict[str, _Rules] = {}

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Blocks what the policy does not name; filters lists; writes resource URIs in normal form."""
        rules = self._rules.get(exchange.policy_name)
        if rules is None or rules.policy is not exchange.policy:
            # Names of policies come from the configuration, so this holds one entry for each.
            rules = self._rules[exchange.policy_name] = _Rules(exchange.policy_name, exchange.policy)
        if message.sender is _CLIENT:
            # Responses answer requests of the server that were judged when they went the other way.
            return PASS if message.is_response else rules.judge_call(message)
        kind = message.kind
        if kind is _RESULT:
            return self._judge_result(message, exchange, rules)
        if kind is _REQUEST:
            refusal = rules.refuse_server_request(message.method, message.params, exchange.client_capabilities)
            return PASS if refusal is None else Block(refusal)
        if kind is _NOTIFICATION:
            return _judge_notification(message, exchange, rules)
        return _judge_error(message, exchange, rules)

    def windows(self, message: Message, exchange: Exchange) -> Pass | None:
        """Lists are filtered whole; of other results nothing matters but what asks the client for input."""
        return None if message.method in _FILTERED else PASS

    def _judge_result(self, message: Message, exchange: Exchange, rules: _Rules) -> Verdict:
        result = message.result
        refusal = _refuse_input_requests(result, exchange, rules)
        if refusal is not None:
            return Block(refusal)
        narrowing = rules.filters.get(message.method or "")
        return PASS if narrowing is None else narrowing.filter(message, result, exchange, self.name)


class _Rules:
    """One policy, compiled."""

    __slots__ = (
        "_judges",
        "_requests",
        "filters",
        "methods",
        "name",
        "policy",
        "prompts",
        "resources",
        "server_requests",
        "tools",
    )

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.methods = Globs(policy.allowed_methods)
        self.tools = Globs(policy.allowed_tools)
        self.prompts = Globs(policy.allowed_prompts)
        self.resources = UriPatterns(policy.allowed_resources)
        self.server_requests = Globs(policy.allowed_server_requests)
        self._judges: Mapping[str, Callable[[Message], Verdict]] = {
            "tools/call": self._judge_tool,
            "prompts/get": self._judge_prompt,
            "resources/read": self._judge_resource,
            "resources/subscribe": self._judge_resource,
            "resources/unsubscribe": self._judge_resource,
            "subscriptions/listen": self._judge_listen,
            "completion/complete": self._judge_completion,
        }
        # Requests whose method is allowed, and what else there is to judge of them.
        self._requests = {
            name: self._judges.get(name)
            for name, method in METHODS.items()
            if Sender.CLIENT in method.senders
            and method.kind is Kind.REQUEST
            and (name in LIFECYCLE or name in self.methods)
        }
        self.filters = {
            "tools/list": _Filter("tools/list", self.tools.__contains__, "*" in policy.allowed_tools),
            "prompts/list": _Filter("prompts/list", self.prompts.__contains__, "*" in policy.allowed_prompts),
            "resources/list": _Filter("resources/list", self._allows_uri, "*" in policy.allowed_resources),
            "resources/templates/list": _Filter(
                "resources/templates/list", self._allows_template, "*" in policy.allowed_resources
            ),
        }

    # -- what a client sends ----------------------------------------------------------------------------------------

    def judge_call(self, message: Message) -> Verdict:
        """A request or notification of the client."""
        name = message.method or ""
        if message.kind is _REQUEST and name in self._requests:
            judge = self._requests[name]
            return PASS if judge is None else judge(message)
        method = METHODS.get(name)
        if method is not None and Sender.CLIENT in method.senders:
            if method.kind is not message.kind:
                # A request without an id would be executed without an answer (and without a trace in the client).
                return Block(MethodNotFound(f"{name} is a {method.kind.value}, not a {message.kind.value}"))
            if name not in LIFECYCLE and name not in self.methods:
                return self._deny(_METHOD, name)
            judge = self._judges.get(name)
            return PASS if judge is None else judge(message)
        if self.methods.has_literal(name) and method is None:
            return PASS
        return Block(
            MethodNotFound(
                f"{_quote(name)} is not a method of MCP; a method of an extension must be written out in the policy",
                key=self._key("allowed_methods"),
            )
        )

    def _judge_tool(self, message: Message) -> Verdict:
        name = message.params.get("name")
        return PASS if name in self.tools else self._deny(_TOOL, name)

    def _judge_prompt(self, message: Message) -> Verdict:
        name = message.params.get("name")
        return PASS if name in self.prompts else self._deny(_PROMPT, name)

    def _judge_resource(self, message: Message) -> Verdict:
        uri = message.params.get("uri")
        normal = self.resources.judge(uri)
        if normal is None:
            return self._deny(_RESOURCE, uri)
        return PASS if normal == uri else _with_params(message, {"uri": normal})

    def _judge_listen(self, message: Message) -> Verdict:
        wanted = message.params.get("notifications")
        if type(wanted) is not dict:
            return PASS
        # Servers on some SDKs read resource_subscriptions as well: any spelling but the specification's is refused.
        uris: Any = []
        for member in wanted:
            if _fold(member) == "resourcesubscriptions":
                uris = wanted[member] if member == "resourceSubscriptions" else None
                if uris is None:
                    return self._deny(_RESOURCE, None)
        if type(uris) is not list:
            return self._deny(_RESOURCE, None)
        # Each is judged like a read (rule 7.8), and taken out of the request: so the acknowledgement, which says what
        # the server will notify of, stays true (rule 7.7).
        normals = [normal for uri in uris if (normal := self.resources.judge(uri)) is not None]
        if normals == uris:
            return PASS
        if not normals and not any(value for member, value in wanted.items() if member != "resourceSubscriptions"):
            return self._deny(_RESOURCE, uris[0])
        return _with_params(message, {"notifications": {**wanted, "resourceSubscriptions": normals}})

    def _judge_completion(self, message: Message) -> Verdict:
        reference = message.params.get("ref")
        if type(reference) is not dict:
            return self._deny(_REFERENCE, None)
        kind = reference.get("type")
        if kind == "ref/prompt":
            name = reference.get("name")
            return PASS if name in self.prompts else self._deny(_PROMPT, name)
        if kind == "ref/resource":
            uri = reference.get("uri")
            normal = self.resources.judge(uri, template=True)
            if normal is None:
                return self._deny(_TEMPLATE, uri, normalise_template)
            return PASS if normal == uri else _with_params(message, {"ref": {**reference, "uri": normal}})
        return self._deny(_REFERENCE, kind)

    def _allows_uri(self, uri: Any) -> bool:
        return self.resources.judge(uri) is not None

    def _allows_template(self, uri: Any) -> bool:
        return self.resources.judge(uri, template=True) is not None

    # -- what an upstream sends ---------------------------------------------------------------------------------------

    def refuse_server_request(
        self, name: str | None, params: Mapping[str, Any], capabilities: Mapping[str, Any]
    ) -> Refusal | None:
        """Why the upstream may not ask this of the client, or None."""
        name = name or ""
        method = METHODS.get(name)
        if method is None or Sender.SERVER not in method.senders or method.kind is not Kind.REQUEST:
            if method is None and self.server_requests.has_literal(name):
                return None
            return MethodNotFound(
                f"{_quote(name)} is not a request that MCP servers make", key=self._key("allowed_server_requests")
            )
        if name != "ping" and name not in self.server_requests:
            return self._refusal(_SERVER_REQUEST, name)
        missing = missing_capability(name, params, capabilities)
        if missing is not None:
            return PolicyDenied(
                f"the client did not declare the capability {missing!r} that {name} needs",
                reason="capability-not-declared",
            )
        return _refuse_url(params) if name == "elicitation/create" else None

    # -- refusals -----------------------------------------------------------------------------------------------------

    def _key(self, member: str) -> str:
        return f"policies.{self.name}.{member}"

    def _refusal(self, subject: _Subject, name: Any) -> Refusal:
        shown = _quote(name) if type(name) is str else "without a name"
        return PolicyDenied(
            f"policy {self.name!r} does not allow {subject.what} {shown}",
            reason=subject.reason,
            key=self._key(subject.member),
        )

    def _deny(self, subject: _Subject, name: Any, reading: Callable[[str], object] = normalise) -> Verdict:
        refusal = self._refusal(subject, name)
        if subject.member == "allowed_resources" and type(name) is str:
            try:
                reading(name)
            except UriRefused as error:
                refusal = PolicyDenied(f"{refusal.message}: {error}", reason="uri-refused", key=refusal.key)
        return Block(refusal)


def _judge_notification(message: Message, exchange: Exchange, rules: _Rules) -> Verdict:
    method = METHODS.get(message.method or "")
    if method is not None and (method.kind is not Kind.NOTIFICATION or Sender.SERVER not in method.senders):
        return Drop("not-a-server-notification")
    if message.method == "notifications/resources/updated":
        # Also of a sub-resource of what was subscribed to, so the subscription's judgement does not cover it.
        return PASS if rules.resources.judge(message.params.get("uri")) is not None else Drop("resource-not-allowed")
    refusal = _refuse_input_requests(message.params, exchange, rules)
    return PASS if refusal is None else Block(refusal)


def _judge_error(message: Message, exchange: Exchange, rules: _Rules) -> Verdict:
    error = message.document["error"]
    if error["code"] != _URL_ELICITATION_REQUIRED:
        return PASS
    data = error.get("data")
    elicitations = data.get("elicitations") if type(data) is dict else None
    for elicitation in elicitations if type(elicitations) is list else ():
        params = elicitation if type(elicitation) is dict else {}
        refusal = rules.refuse_server_request("elicitation/create", params, exchange.client_capabilities)
        if refusal is not None:
            return Block(refusal)
    return PASS


def _refuse_input_requests(body: Mapping[str, Any], exchange: Exchange, rules: _Rules) -> Refusal | None:
    """Requests of the server inside a result or a task (rules 7.12, 11.4), judged like requests of their own."""
    if _asks_nothing(body):
        return None
    for member in body:
        # Clients on some SDKs read input_requests as well.
        if _fold(member) != "inputrequests":
            continue
        requests = body[member]
        if member != "inputRequests" or type(requests) is not dict:
            return ContentBlocked("the server's input requests are malformed", reason="input-requests-malformed")
        for request in requests.values():
            method = request.get("method") if type(request) is dict else None
            params = request.get("params", {}) if type(request) is dict else {}
            if type(method) is not str or type(params) is not dict:
                return ContentBlocked("the server's input requests are malformed", reason="input-requests-malformed")
            refusal = rules.refuse_server_request(method, params, exchange.client_capabilities)
            if refusal is not None:
                return refusal
    return None


def _refuse_url(params: Mapping[str, Any]) -> Refusal | None:
    """Why nobody may be asked to open the URL of an elicitation (rule 9.5), or None."""
    if params.get("mode") == "url":
        url = params.get("url")
        if type(url) is not str or _WEB_URL.fullmatch(url) is None:
            return ContentBlocked(
                "the server asks the client to open something that is no web URL", reason="url-refused"
            )
    return None


class _Filter:
    """What of a list the client may see.  ``allows`` judges an entry's name."""

    __slots__ = ("_allows", "_is_everything", "_listing")

    def __init__(self, method: str, allows: Callable[[Any], bool], is_everything: bool) -> None:
        self._listing = cast("Listing", METHODS[method].listing)
        self._allows = allows
        self._is_everything = is_everything

    def filter(self, message: Message, result: dict[str, Any], exchange: Exchange, hook: str) -> Verdict:
        """The list without what the client may not use; order and all other members stay (rule 7.21)."""
        member = self._listing.member
        entries = result.get(member, [])
        if type(entries) is not list or any(_fold(other) == member.lower() and other != member for other in result):
            return Block(ContentBlocked("the server's list is malformed", reason="list-malformed"))
        name = self._listing.name
        kept = [entry for entry in entries if type(entry) is dict and self._allows(entry.get(name))]
        removed = len(entries) - len(kept)
        # The same for every page, whether or not this one lost an entry (rule 7.19).
        narrow = result.get("cacheScope") == "public" and (removed > 0 or not self._is_everything)
        if not removed and not narrow:
            return PASS
        changed = dict(result)
        if removed:
            changed[member] = kept
            exchange.note(Finding(hook, "list-filtered", "redact", "/result/" + member, removed))
        if narrow:
            changed["cacheScope"] = "private"
        return Replace(message.with_document({**message.document, "result": changed}))


def _with_params(message: Message, members: dict[str, Any]) -> Replace:
    return Replace(message.with_document({**message.document, "params": {**message.params, **members}}))


def _fold(member: str) -> str:
    return member.replace("_", "").replace("-", "").casefold()


_asks_nothing = Cleared(lambda member: _fold(member) == "inputrequests")


def _quote(name: Any) -> str:
    """A peer's text for a message: escaped and bounded, so that it neither floods a log nor moves a terminal."""
    text = ascii(name)
    return text if len(text) <= 64 else text[:60] + "..." + text[0]
