"""The hooks that look into content: a verdict and nothing else, and what they change stays a message."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

from gateway.config import Policy
from gateway.guard.arguments import ArgumentsHook
from gateway.guard.edit import strings
from gateway.guard.hook import PASS, Block, Exchange, Hold, Hook, Replace
from gateway.guard.injection import InjectionHook
from gateway.guard.sanitize import SanitizeHook
from gateway.protocol.message import Call, Message, Sender
from gateway.wire.envelope import Kind, classify
from gateway.wire.errors import PeerError
from gateway.wire.strict import Limits, Twins, dumps, parse

from .damage import damaged
from .grammar import JSON_TOKENS, message
from .seeds import corpus
from .target import Target, choices

__all__ = ["Documents", "planted"]

_LIMITS = Limits(depth=64, nodes=250_000, number_chars=128)
_RULES = [
    {"tools": ["fetch_url"], "egress": {"members": ["url"]}},
    {"tools": ["*"], "deny_patterns": {"query": "(?:[a-z]+)+#secret#", "/a/*": "x"}},
]
# Made up, in the form that their rules ask for; in pieces, so that no scanner of this file takes them for real.
_SECRETS = (
    "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7",
    "AK" + "IAT3STFAKE5K2Y7ZQX",
)
# As words of their own: within others their rules do not see them.
_find_secret = re.compile(rf"(?<!\w)(?:{'|'.join(_SECRETS)})(?!\w)").search
_CONTENTS = ("content", "structuredContent")
_AROUND = (" ", "\n", "\t", ", ", " \u200b ", " é ", "; ")


def planted(source: random.Random) -> bytes:
    """A result with a secret somewhere in its text."""
    found = message(source)
    while "result" not in found:
        found = message(source)
    before, after = source.choice(_AROUND), source.choice(_AROUND)
    text = "It is" + before + source.choice(_SECRETS) + after + "in Oslo"
    place = source.randrange(3)
    content: list[Any] = []
    found["result"]["content"] = content
    if place == 0:
        content.append({"type": "text", "text": text})
    elif place == 1:
        found["result"]["structuredContent"] = {"a": [{"b": text}, found["result"].get("arguments")]}
    else:
        content.append({"type": "resource", "resource": {"uri": "file:///x", "text": text, "x": {text: 1}}})
    return dumps(found)


class Documents(Target):
    """``sanitize`` is the hook, or another one that is to be caught."""

    name = "guard"
    invariant = (
        "sanitize, injection and arguments give a verdict on any message and leave it as it was; what they replace it "
        "by is valid, of the same shape and envelope, without the secrets that were planted, and is not changed again"
    )

    def __init__(self, sanitize: Hook | None = None) -> None:
        super().__init__()
        self._sanitize = sanitize or SanitizeHook(results="strip")
        self._hooks: tuple[Hook, ...] = (
            self._sanitize,
            SanitizeHook(),
            SanitizeHook(action="block"),
            SanitizeHook(members=["city"], max_hits=2),
            InjectionHook(),
            InjectionHook(action="mark"),
            InjectionHook(action="block"),
            ArgumentsHook(rules=_RULES),
        )

    def make(self, source: random.Random) -> bytes:
        kind = source.random()
        if kind < 0.3:
            return planted(source)
        if kind < 0.7:
            return dumps(message(source))
        seed = source.choice(corpus("result", "jsonrpc"))
        return damaged(seed, source, JSON_TOKENS) if source.random() < 0.8 else seed

    def check(self, data: bytes) -> None:
        source = choices(data)
        try:
            document = parse(data, _LIMITS, twins=Twins.PROTOCOL)
            envelope = classify(document)
        except PeerError:
            self.counts["no message"] += 1
            return
        method = source.choice(("tools/call", "tools/list", "resources/read", "prompts/get", "initialize"))
        call = Call(7, method, "fetch_url") if envelope.method is None else None
        sender = Sender.SERVER if call is not None else source.choice(tuple(Sender))
        message = Message(envelope, document, sender, call)
        before = copy.deepcopy(document)
        for hook in self._hooks:
            exchange = Exchange("r-1", "alice", "weather", "default", Policy(), call=call)
            verdict = hook.on_message(message, exchange)
            if isinstance(verdict, Hold):
                assert envelope.kind is Kind.NOTIFICATION and sender is Sender.SERVER, "what must not wait is held"
                verdict = verdict.release()
                self.counts["held"] += 1
            self.counts[f"{hook.name}: {type(verdict).__name__}"] += 1
            assert repr(document) == repr(before), f"{hook.name} changed the document in its place"
            # What is recorded must be JSON, and bounded.
            assert (
                len(dumps([[each.rule, each.action, each.place, each.count] for each in exchange.findings])) < 1 << 16
            )
            if isinstance(verdict, Replace):
                changed = verdict.message.document
                _check_same_shape(document, changed, in_place=hook.name == "sanitize")
                assert repr(parse(dumps(changed), _LIMITS, twins=Twins.PROTOCOL)) == repr(changed), "not valid JSON"
                assert classify(changed) == envelope, "another envelope"
            else:
                assert verdict is PASS or isinstance(verdict, Block), f"{verdict!r} is no verdict for this message"
        if envelope.kind is Kind.RESULT:
            self._check_clean(message)

    def _check_clean(self, message: Message) -> None:
        exchange = Exchange("r-1", "alice", "weather", "default", Policy(), call=message.call)
        verdict = self._sanitize.on_message(message, exchange)
        if isinstance(verdict, Block):
            return
        passed = verdict.message if isinstance(verdict, Replace) else message
        for text in strings([passed.document["result"].get(member) for member in _CONTENTS]):
            assert not _find_secret(text.text), "a secret that was planted came through"
        again = self._sanitize.on_message(passed, exchange)
        assert not isinstance(again, Replace) or repr(again.message.document) == repr(passed.document), (
            "what was clean is changed again"
        )


def _check_same_shape(before: Any, after: Any, *, in_place: bool) -> None:
    """Strings may differ; members may be renamed.  A note may be put before a content, where that is what is asked."""
    level = [(before, after)]
    while level:
        one, other = level.pop()
        assert type(one) is type(other), f"{type(other).__name__} in the place of {type(one).__name__}"
        if isinstance(one, dict | list):
            if in_place or isinstance(one, dict):
                assert len(one) == len(other), "another number of members"
            if isinstance(one, dict):
                level += zip(one.values(), other.values(), strict=False)
            elif len(one) == len(other):
                level += zip(one, other, strict=True)
        elif not isinstance(one, str):
            assert one == other, "a value that is no string was changed"
