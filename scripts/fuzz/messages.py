"""Envelopes, header fields and the protocol's own checks: a value or an error of ours, nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from multidict import CIMultiDict

from gateway.protocol import answers, headers, modern
from gateway.protocol.errors import GatewayError, from_client, from_upstream
from gateway.protocol.message import Call, Message, Sender
from gateway.protocol.params import ToolHeaders, without_invalid
from gateway.protocol.revisions import SUPPORTED, revision
from gateway.protocol.tasks import TaskOwners
from gateway.wire.envelope import Kind, classify
from gateway.wire.errors import PeerError
from gateway.wire.strict import Limits, Twins, dumps, parse

from .damage import EDGES, damaged
from .grammar import JSON_TOKENS, document, message
from .seeds import corpus
from .target import Target, choices

__all__ = ["Messages"]

_LIMITS = Limits(depth=64, nodes=250_000, number_chars=128)
_FIELDS = (
    "Accept", "Content-Type", "Content-Encoding", "MCP-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name",
    "Mcp-Param-City", "mcp-param-city", "Mcp-Param-", "Mcp-Param-Ré", "Last-Event-ID", "Origin", "Expect",
)  # fmt: skip
_VALUES = (
    "", " ", "application/json", "application/json, text/event-stream", "application/json;charset=utf-16", "*/*;q=0",
    "text/*;q=0.0, application/*", "application/json;;;=;", '"', "2026-07-28", "2025-11-25", "2024-11-05", "x",
    "=?base64?YQ==?=", "=?base64?YQ?=", "=?base64??=", "=?base64?/w==?=", "=?base64?é?=", "tools/call", "tools/list",
    "get_weather", "é", "\0", "a\r\nb", "x" * 2000, "1", "1.0", "1e5", "9007199254740993", "-0.000", "9" * 5000, "true",
)  # fmt: skip


class Messages(Target):
    """One message with header fields, before everything in ``protocol`` that judges one."""

    name = "messages"
    invariant = "whatever a message and its header fields hold, each check gives a value, a PeerError or a GatewayError"

    def make(self, source: random.Random) -> bytes:
        kind = source.random()
        if kind < 0.7:
            data = dumps(message(source))
        elif kind < 0.85:
            data = dumps(document(source))
        else:
            return damaged(source.choice(corpus("jsonrpc", "result")), source, JSON_TOKENS)
        return damaged(data, source, JSON_TOKENS) if source.random() < 0.1 else data

    def check(self, data: bytes) -> None:
        source = choices(data)
        try:
            parsed = parse(data, _LIMITS, twins=Twins.PROTOCOL)
            envelope = classify(parsed)
        except PeerError as error:
            self.counts[error.reason] += 1
            for found in (from_client(error), from_upstream(error)):
                classify(parse(dumps(found.to_document(7, "r-1")), _LIMITS, twins=Twins.ANY))
            return
        self.counts[envelope.kind.value] += 1
        fields = CIMultiDict[str]()
        for _ in range(source.randint(0, 6)):
            fields.add(source.choice(_FIELDS), source.choice(_VALUES))
        known = revision(source.choice(SUPPORTED))
        _check_fields(fields, data, source)
        if envelope.method is not None:
            params = parsed.get("params", {})
            if source.random() < 0.5:  # what an honest client says of itself
                fields = CIMultiDict(headers.mirrored_fields(envelope.method, params))
                fields[headers.VERSION] = "2026-07-28"
            self._check_request(fields, envelope.method, params, known, source)
        if envelope.kind is Kind.RESULT:
            self._check_result(parsed["result"], known, source)
        elif envelope.kind is Kind.ERROR:
            answers.check_error(known, parsed["error"])
        repr(Message(envelope, parsed, Sender.CLIENT))

    def _check_request(
        self, fields: CIMultiDict[str], method: str, params: dict[str, Any], known: Any, source: random.Random
    ) -> None:
        said = headers.McpFields(fields)
        modern.speaks_modern(said, params)
        self._ours(modern.check_request, said, method, params)
        self._ours(headers.check_mirrored, said, method, params)
        mirrored = CIMultiDict(headers.mirrored_fields(method, params))
        if headers.NAME in mirrored:
            headers.check_mirrored(headers.McpFields(mirrored), method, params)
            assert headers.is_clean(mirrored[headers.NAME]), "a value that cannot be a header field"
        call = Call(7, method)
        stream = source.choice(("post", "get", "listen"))
        self._ours(answers.check_notification, known, call, params, params, method, stream)
        self._ours(answers.check_server_request, known, params, method, params)
        if method == "subscriptions/listen":
            answers.Subscription(call, params).admits("notifications/resources/updated", params)
        tasks = TaskOwners(4, 60.0)
        self._ours(tasks.learn, "alice", "up", {"result": params}, 1.0)
        self._ours(tasks.check_request, "alice", "up", method, params, 2.0)
        tasks.owns_notification("alice", "up", params)

    def _check_result(self, result: dict[str, Any], known: Any, source: random.Random) -> None:
        for method in ("tools/call", "tasks/get", "subscriptions/listen", "initialize"):
            self._ours(answers.check_result, known, Call(7, method), result, result, result)
        tasks = TaskOwners(4, 60.0)
        self._ours(tasks.filter_list, "alice", "up", result)
        tools = ToolHeaders(source.choice((10, 1000)))
        invalid = tools.learn(result)
        left = without_invalid(result)
        assert left is not None or not invalid, "invalid tools are left in the list"
        assert left is None or (without_invalid(left) is None and not ToolHeaders().learn(left)), "likewise"
        arguments = document(source)
        emitted = self._ours(tools.emit, CIMultiDict(), "get_weather", arguments)
        if emitted is not None:
            assert all(map(headers.is_clean, emitted.values())), emitted
            tools.check(CIMultiDict(emitted), "get_weather", arguments)

    def _ours(self, judge: Callable[..., Any], *arguments: Any) -> Any:
        """What it says, or None when it refuses."""
        try:
            return judge(*arguments)
        except (PeerError, GatewayError) as error:
            self.counts[f"{type(error).__name__}"] += 1
            return None


def _check_fields(fields: CIMultiDict[str], data: bytes, source: random.Random) -> None:
    for judge in (
        headers.check_single,
        headers.check_content_type,
        lambda each: headers.check_accept(each, "application/json", "text/event-stream"),
        headers.param_fields,
    ):
        try:
            judge(fields)
        except GatewayError as error:
            assert error.status >= 400, error
    text = damaged(data[:40], source, EDGES).decode(errors="replace")
    written = headers.encode_mirrored(text)
    assert headers.is_clean(written), "a value that cannot be a header field"
    assert headers.decode_mirrored(written) == text, "a value that comes back as another one"
