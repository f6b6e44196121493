from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gateway.config import HookEntry, Policy
from gateway.guard.chain import Chain, Outcome, Pending
from gateway.guard.hook import PASS, Block, Drop, Exchange, Finding, Replace, Verdict
from gateway.guard.loading import BUILT_IN, HookConfigError, build
from gateway.protocol.errors import ContentBlocked, HookFailed, InvalidParams, PolicyDenied
from gateway.protocol.message import Message, Sender
from gateway.wire.envelope import classify
from tests.guard.messages import error, exchange, notification, request, result

HERE = "tests.guard.test_chain"
SEEN: list[tuple[str, Any]] = []


class Scripted:
    """Returns, or raises, what its options say."""

    name = "scripted"

    def __init__(self, verdict: Any = PASS, note: str | None = None, mark: str | None = None) -> None:
        self.verdict = verdict
        self.note = note
        self.mark = mark

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        SEEN.append((self.name, message.document))
        if self.note:
            exchange.note(Finding(self.name, self.note, "flag", "/x"))
        if self.mark:
            return Replace(
                message.with_document({**message.document, "params": {"marks": [*marks(message), self.mark]}})
            )
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return self.verdict() if callable(self.verdict) else self.verdict  # type: ignore[no-any-return]


class Asking(Scripted):
    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().on_message(message, exchange)


class Nameless:
    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return PASS


class Frozen(Nameless):
    __slots__ = ()
    name = property(lambda self: "frozen")


class NoHook:
    pass


not_a_class = 7


def marks(message: Message) -> list[str]:
    return list(message.params.get("marks", []))


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


def entry(kind: str = "Scripted", name: str = "", **members: Any) -> HookEntry:
    options = {key: members.pop(key) for key in ("verdict", "note", "mark") if key in members}
    kind = kind if ":" in kind or kind in BUILT_IN else f"{HERE}:{kind}"
    return HookEntry(kind=kind, name=name or "one", options=options, **members)


def judge(*entries: HookEntry, message: Message | None = None, at: Exchange | None = None) -> Outcome | Pending:
    return build(entries, "weather").judge(message or request("tools/call", name="a"), at or exchange())


def outcome(*entries: HookEntry, message: Message | None = None, at: Exchange | None = None) -> Outcome:
    made = judge(*entries, message=message, at=at)
    assert isinstance(made, Outcome)
    return made


def test_a_chain_without_hooks_passes() -> None:
    message = request("ping")
    assert Chain().judge(message, exchange()) == Outcome(message, False, "pass", None, None, None)
    assert repr(Chain()) == "<Chain empty>"


def test_hooks_run_in_order_and_see_what_their_predecessors_left() -> None:
    made = outcome(entry(name="a", mark="a"), entry(name="b"), entry(name="c", mark="c"))
    assert made.message is not None
    assert marks(made.message) == ["a", "c"]
    assert (made.changed, made.decision, made.hook) == (True, "replace", "c")
    assert [name for name, _ in SEEN] == ["a", "b", "c"]
    assert SEEN[1][1]["params"] == {"marks": ["a"]}


def test_a_block_ends_the_chain() -> None:
    denied = PolicyDenied("no", reason="because")
    made = outcome(entry(name="a", mark="a"), entry(name="b", verdict=Block(denied)), entry(name="c"))
    assert made == Outcome(None, False, "block", denied, "b", "because")
    assert [name for name, _ in SEEN] == ["a", "b"]


def test_a_notification_may_be_dropped_and_nothing_else() -> None:
    drop = entry(verdict=Drop("quiet"))
    made = outcome(drop, message=notification("notifications/message"))
    assert made == Outcome(None, False, "drop", None, "one", "quiet")
    for message in (request("ping"), result("tools/call"), error()):
        made = outcome(drop, message=message)
        assert (made.decision, made.reason) == ("block", "quiet")
        assert isinstance(made.error, ContentBlocked)


def test_the_same_document_is_no_change() -> None:
    message = request("ping")
    made = outcome(entry(verdict=Replace(message)), message=message)
    assert made.message is message
    assert (made.changed, made.decision) == (False, "pass")


@pytest.mark.parametrize(
    "verdict",
    [RuntimeError("hunter2"), RecursionError(), KeyError("hunter2"), None, True, "PASS", Block(InvalidParams("x"))],  # type: ignore[arg-type]
)
def test_a_hook_that_fails_blocks_and_the_log_does_not_quote_the_message(
    verdict: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        made = outcome(entry(verdict=verdict), entry(name="after"))
    assert isinstance(made.error, HookFailed)
    assert (made.message, made.decision, made.hook, made.reason) == (None, "block", "one", "hook-failed")
    assert len(caplog.records) == 1
    assert "hook one" in caplog.text
    assert "hunter2" not in caplog.text
    if isinstance(verdict, BaseException):
        assert type(verdict).__name__ in caplog.text
        assert "on_message" in caplog.text
    assert [name for name, _ in SEEN] == ["one"]


def changed(**members: Any) -> Replace:
    document = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {}, **members}
    document = {key: value for key, value in document.items() if value is not None}
    original = request("tools/call")
    return Replace(
        Message(classify({"jsonrpc": "2.0", "id": 1, "method": "x"}), document, Sender.SERVER, original.call)
    )


@pytest.mark.parametrize(
    "verdict",
    [
        changed(id=8), changed(id="7"), changed(method="tools/list"), changed(id=None), changed(extra=1),
        changed(method=None, params=None, result={}), changed(jsonrpc="1.0"),
        lambda: Replace("text"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_replacement_with_another_envelope_is_a_failure(verdict: Replace) -> None:
    made = outcome(entry(verdict=verdict), message=request("tools/call"))
    assert isinstance(made.error, HookFailed)


def test_a_replacement_keeps_sender_and_call_of_the_original() -> None:
    made = outcome(entry(verdict=changed(params={"a": 1})), message=request("tools/call"))
    assert made.message is not None
    assert (made.message.sender, made.message.id, made.message.method) == (Sender.CLIENT, 7, "tools/call")
    assert made.message.params == {"a": 1}


def test_replacing_a_response() -> None:
    original = result("tools/call", a=1)
    better = original.with_document({**original.document, "result": {"a": 2}})
    made = outcome(entry(verdict=Replace(better)), message=original)
    assert made.message is not None
    assert made.message.result == {"a": 2}
    assert made.message.call is original.call
    worse = original.with_document({"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "x"}})
    assert outcome(entry(verdict=Replace(worse)), message=original).decision == "block"


# -- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "message", "selected"),
    [
        ({"directions": ("client",)}, request("tools/call"), True),
        ({"directions": ("server",)}, request("tools/call"), False),
        ({"directions": ("server",)}, result("tools/call"), True),
        ({"methods": ("tools/*",)}, request("tools/call"), True),
        ({"methods": ("tools/*",)}, request("prompts/get"), False),
        ({"methods": ("tools/*",)}, result("tools/list"), True),
        ({"methods": ("tools/call", "ping")}, error(method="tools/call"), True),
        ({"methods": ("tools/?all",)}, error(method="tools/list"), False),
        ({}, request("\u0442ools/call\n"), True),
        ({"methods": ("tools/*",)}, request("tools/\u0441all"), False),
        ({"upstreams": ("weather",)}, request("ping"), True),
        ({"upstreams": ("we*",)}, request("ping"), True),
        ({"upstreams": ("docs",)}, request("ping"), False),
    ],
)
def test_selection(selection: dict[str, Any], message: Message, selected: bool) -> None:
    chain = build([entry(**selection)], "weather")
    for _ in range(2):
        SEEN.clear()
        chain.judge(message, exchange())
        assert bool(SEEN) == selected


def test_an_error_that_answers_nothing_known_is_seen_by_hooks_for_every_method() -> None:
    document = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "?"}}
    message = Message(classify(document), document, Sender.SERVER)
    outcome(entry(name="every"), entry(name="some", methods=("tools/*",)), message=message)
    assert [name for name, _ in SEEN] == ["every"]


def test_what_is_remembered_of_selections_is_bounded() -> None:
    chain = build([entry()], "weather")
    for number in range(3000):
        chain.judge(request(f"m/{number}"), exchange())
    chain.judge(request("m" * 1000), exchange())
    assert len(chain._of_clients) <= 512
    assert len(SEEN) == 3001


# -- shadow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"verdict": Block(PolicyDenied("no", reason="because"))}, [("because", "shadow-block")]),
        ({"verdict": Drop("quiet")}, [("quiet", "shadow-block")]),
        ({"mark": "x"}, [("replace", "shadow-replace")]),
        ({"verdict": ValueError()}, [("hook-failed", "shadow-block")]),
        ({"verdict": "nonsense"}, [("hook-failed", "shadow-block")]),
        ({"note": "seen"}, [("seen", "shadow-flag")]),
        ({"note": "seen", "mark": "x"}, [("seen", "shadow-flag"), ("replace", "shadow-replace")]),
    ],
)
def test_a_shadow_records_and_changes_nothing(options: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    at = exchange()
    message = request("tools/call")
    made = outcome(entry(mode="shadow", **options), entry(name="after"), message=message, at=at)
    assert made == Outcome(message)
    assert [(finding.rule, finding.action) for finding in at.findings] == expected
    assert all(finding.hook == "one" for finding in at.findings)
    assert SEEN[-1] == ("after", message.document)


def test_a_shadow_drop_of_a_notification_is_recorded_as_one() -> None:
    at = exchange()
    outcome(entry(mode="shadow", verdict=Drop("quiet")), message=notification("notifications/message"), at=at)
    assert at.findings == [Finding("one", "quiet", "shadow-drop", "")]


def test_people_see_what_runs() -> None:
    chain = build(
        [entry("policy", name="policy"), entry(mode="shadow"), entry(name="x", upstreams=("docs",))], "weather"
    )
    assert chain.names == ("policy", "one (shadow)")
    assert repr(chain) == "<Chain policy, one (shadow)>"


# -- asking somebody --------------------------------------------------------------------------------------------------


async def finish(made: Outcome | Pending) -> Outcome:
    while isinstance(made, Pending):
        try:
            async with asyncio.timeout(made.timeout):
                verdict = await made.awaitable()
        except Exception as failure:
            made = made.fail(failure)
        else:
            made = made.resume(verdict)
    return made


async def test_an_async_hook_stops_the_chain_until_it_answers() -> None:
    made = judge(
        entry(name="a", mark="a"), entry("Asking", name="b", timeout="2s", mark="b"), entry(name="c", mark="c")
    )
    assert isinstance(made, Pending)
    assert (made.hook, made.timeout) == ("b", 2.0)
    assert [name for name, _ in SEEN] == ["a"]
    done = await finish(made)
    assert done.message is not None
    assert marks(done.message) == ["a", "b", "c"]
    assert (done.decision, done.changed, done.hook) == ("replace", True, "c")


async def test_an_async_hook_may_block() -> None:
    denied = PolicyDenied("no")
    done = await finish(judge(entry("Asking", timeout=1, verdict=Block(denied)), entry(name="after")))
    assert done.error is denied
    assert [name for name, _ in SEEN] == ["one"]


async def test_an_async_hook_that_passes_changes_nothing() -> None:
    message = request("ping")
    done = await finish(judge(entry("Asking", timeout=1), entry("Asking", name="two", timeout=1), message=message))
    assert done == Outcome(message)


def test_no_verdict_in_time_blocks(caplog: pytest.LogCaptureFixture) -> None:
    made = judge(entry("Asking", timeout=1))
    assert isinstance(made, Pending)
    done = made.fail(TimeoutError())
    assert isinstance(done, Outcome)
    assert isinstance(done.error, HookFailed)
    assert done.reason == "hook-timeout"
    assert "within 1 s" in caplog.text


async def test_an_async_hook_that_raises_blocks() -> None:
    done = await finish(judge(entry("Asking", timeout=1, verdict=OSError("hunter2"))))
    assert done.reason == "hook-failed"


async def test_an_async_shadow_is_asked_and_ignored() -> None:
    at = exchange()
    message = request("ping")
    shadow = entry("Asking", timeout=1, mode="shadow", note="seen", verdict=Drop("no"))
    done = await finish(judge(shadow, entry(name="after"), message=message, at=at))
    assert done == Outcome(message)
    assert [finding.action for finding in at.findings] == ["shadow-flag", "shadow-block"]
    failed = judge(shadow, entry(name="after"), message=message, at=at)
    assert isinstance(failed, Pending)
    assert failed.fail(TimeoutError()) == Outcome(message)


# -- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "key", "text"),
    [
        (HookEntry(kind="polcy", name="x"), "hooks.1.kind", "did you mean 'policy'?"),
        (HookEntry(kind="zzz", name="x"), "hooks.1.kind", "policy, sanitize"),
        (HookEntry(kind="no.such.module:X", name="x"), "hooks.1.kind", "cannot import module 'no.such.module'"),
        (HookEntry(kind=f"{HERE}:Scriptd", name="x"), "hooks.1.kind", "did you mean 'Scripted'?"),
        (HookEntry(kind=f"{HERE}:not_a_class", name="x"), "hooks.1.kind", "not a class"),
        (HookEntry(kind=f"{HERE}:NoHook", name="x"), "hooks.1.kind", "on_message(message, exchange)"),
        (HookEntry(kind=f"{HERE}:Asking", name="x"), "hooks.1.timeout", "needs a timeout"),
        (HookEntry(kind=f"{HERE}:Frozen", name="x"), "hooks.1.name", "does not let its name be set"),
        (HookEntry(kind="policy", name="x", options={"a": 1}), "hooks.1.options.a", "no options"),
        (
            HookEntry(kind="sanitize", name="x", options={"membrs": []}),
            "hooks.1.options.membrs",
            "did you mean 'members'?",
        ),
        (
            HookEntry(kind="sanitize", name="x", options={"disable": ["jwt"]}),
            "hooks.1.options",
            "disable: there is no rule",
        ),
        (
            HookEntry(kind="config.examples.hooks.spending_limit:SpendingLimit", name="x"),
            "hooks.1.options.limit",
            "needs the option 'limit'",
        ),
        (
            HookEntry(kind="config.examples.hooks.spending_limit:SpendingLimit", name="x", options={"limit": -1}),
            "hooks.1.options",
            "must not be negative",
        ),
    ],
)
def test_what_cannot_be_loaded_says_what_was_expected(wrong: HookEntry, key: str, text: str) -> None:
    with pytest.raises(HookConfigError) as caught:
        build([entry(), wrong], "weather")
    assert caught.value.key == key
    assert text in caught.value.message


def test_a_hook_without_a_name_gets_the_configurations() -> None:
    kind = f"{HERE}:Nameless"
    assert build([HookEntry.model_validate(kind)], "weather").names == (kind,)
    assert build([HookEntry.model_validate(f"{HERE}:Scripted")], "weather").names == ("scripted",)


def test_the_default_hooks_together() -> None:
    chain = build([HookEntry.model_validate("policy"), HookEntry.model_validate("sanitize")], "weather")
    assert chain.names == ("policy", "sanitize")
    at = exchange(Policy(allowed_tools=("get_*",)))
    assert isinstance(chain.judge(request("tools/call", name="get_weather"), at), Outcome)
    made = chain.judge(result("tools/list", tools=[{"name": "get_a", "description": "\u202ex"}, {"name": "b"}]), at)
    assert isinstance(made, Outcome)
    assert made.message is not None
    assert made.message.result == {"tools": [{"name": "get_a", "description": "x"}]}
    assert (made.decision, made.hook) == ("replace", "sanitize")


# -- the example ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "decision"),
    [
        ({"amount": 10}, "pass"),
        ({"amount": 1000.0}, "pass"),
        ({"amount": 1000.01}, "block"),
        ({"amount": "5"}, "block"),
        ({"amount": True}, "block"),
        ({"other": 5000}, "pass"),
        (None, "pass"),
    ],
)
def test_the_spending_limit_example(arguments: Any, decision: str) -> None:
    kind = "config.examples.hooks.spending_limit:SpendingLimit"
    hook = HookEntry(kind=kind, name=kind, directions=("client",), methods=("tools/call",), options={"limit": 1000})
    at = exchange()
    made = outcome(hook, message=request("tools/call", name="pay", arguments=arguments), at=at)
    assert made.decision == decision
    assert bool(at.findings) == (decision == "block")
