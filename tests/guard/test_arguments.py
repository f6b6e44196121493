from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import HookEntry
from gateway.guard.arguments import ArgumentsHook
from gateway.guard.hook import PASS, Block, Exchange
from gateway.guard.loading import HookConfigError, build
from gateway.protocol.message import Call, Message, Sender
from gateway.wire.envelope import classify
from tests.guard.messages import answer, error, exchange, notification, request, result

# What is not linear would not end before this.
pytestmark = pytest.mark.timeout(20)

DATA = Path(__file__).parent / "data"
GITHUB = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"

# The scenario of the cases in data/arguments.jsonl.
SCENARIO = {
    "rules": [
        {"tools": ["fetch_url"], "egress": {"members": ["url"]}},
        {"tools": ["search_docs"], "deny_patterns": {"query": "(?:[a-z]+)+#secret#"}},
    ]
}


def cases() -> list[Any]:
    return [
        pytest.param(case, id=case["id"])
        for case in map(json.loads, (DATA / "arguments.jsonl").read_text().splitlines())
    ]


def call(tool: str = "transfer", client: str = "alice", **arguments: Any) -> tuple[Message, Exchange]:
    at = exchange()
    at.client = client
    return request("tools/call", name=tool, arguments=arguments), at


def judge(hook: ArgumentsHook, message: Message, at: Exchange | None = None) -> str:
    """``pass``, or the reason of the Block."""
    before = copy.deepcopy(message.document)
    verdict = hook.on_message(message, at or exchange())
    assert message.document == before
    if verdict is PASS:
        return "pass"
    assert isinstance(verdict, Block)
    assert verdict.error.key is not None
    assert verdict.error.key.startswith("hooks.arguments")
    return verdict.error.reason


def findings(at: Exchange) -> list[tuple[str, str, str, int]]:
    return [(each.rule, each.action, each.place, each.count) for each in at.findings]


@pytest.mark.parametrize("case", cases())
def test_cases(case: Any) -> None:
    document = case["document"]
    at = exchange()
    if "method" in document:
        message = Message(classify(document), document, Sender.CLIENT)
    else:
        message = answer(document, "tools/call")
    verdict = ArgumentsHook(**SCENARIO).on_message(message, at)
    if case["id"] in ("server-initiated-02", "server-initiated-04"):
        # What was not declared, and URLs that are none, are refused by the hook policy.
        return
    if case["expected"] == "allow":
        assert verdict is PASS
        assert not at.findings
    else:
        assert isinstance(verdict, Block)
        assert at.findings
    assert not any(word in str(at.findings) for word in ("ghp_", "AKIA"))


def test_without_anything_to_do_nothing_is_done() -> None:
    hook = ArgumentsHook(schema="off", output_schema="off", secrets="off", server_requests={"secret_forms": "off"})
    message = Message(classify({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}), {}, Sender.CLIENT)
    assert hook.on_message(message, exchange()) is PASS


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schema": "on"}, "schema: "),
        ({"shema": "block"}, "shema: unknown option; did you mean 'schema'?"),
        ({"rules": [{"tools": ["a"]}]}, "rules.0: a rule needs"),
        ({"rules": [{"when": "true"}]}, "rules.0.tools: "),
        ({"rules": [{"tools": "a", "when": "true"}]}, "rules.0.tools: "),
        ({"rules": [{"tools": [""], "when": "true"}]}, "rules.0.tools: an empty pattern"),
        (
            {"rules": [{"tools": ["a"], "whem": "true", "when": "true"}]},
            "rules.0.whem: unknown option; did you mean 'when'?",
        ),
        ({"rules": [{"tools": ["a"], "when": "args.x <="}]}, "rules.0.when: not a CEL expression"),
        ({"rules": [{"tools": ["a"], "when": "arg.x > 1"}]}, "not of 'arg'; did you mean 'args'?"),
        (
            {"rules": [{"tools": ["a"], "when": "args.x.startWith('a')"}]},
            "no function 'startWith'; did you mean 'startsWith'?",
        ),
        ({"rules": [{"tools": ["a"], "deny_patterns": {"q": "(?=a)"}}]}, "rules.0.deny_patterns.q: not RE2 syntax"),
        ({"rules": [{"tools": ["a"], "deny_patterns": {"q": "a{1000}{20}"}}]}, "rules.0.deny_patterns.q: "),
        (
            {"rules": [{"tools": ["a"], "require_patterns": {"q": "a)|(b"}}]},
            "rules.0.require_patterns.q: not RE2 syntax",
        ),
        ({"rules": [{"tools": ["a"], "deny_patterns": {"": "x"}}]}, "rules.0.deny_patterns"),
        ({"rules": [{"tools": ["a"], "egress": {}}]}, "rules.0.egress.members: "),
        (
            {"rules": [{"tools": ["a"], "egress": {"members": ["u"], "schemes": ["file"]}}]},
            "rules.0.egress.schemes.0: ",
        ),
        ({"rules": [{"tools": ["a"], "egress": {"members": ["u"], "alow": []}}]}, "did you mean 'allow'?"),
        (
            {"rules": [{"tools": ["a"], "egress": {"members": ["u"], "private": ["*.corp"]}}]},
            "rules.0.egress.private.0: ",
        ),
        ({"server_requests": {"secret_forms": "no"}}, "server_requests.secret_forms: "),
        ({"rules_files": ["nowhere.yaml"]}, "nowhere.yaml"),
        ({"disable": ["no-such-rule"]}, "disable: there is no rule"),
    ],
)
def test_options_are_checked_when_the_hook_is_built(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        ArgumentsHook(**options)
    assert said in str(caught.value)
    with pytest.raises(HookConfigError) as refused:
        build([HookEntry.model_validate({"kind": "arguments", "options": options})], "weather")
    assert refused.value.key == "hooks.0.options"
    assert said in refused.value.message


# -- rules -------------------------------------------------------------------------------------------------------------


def test_a_rule_is_for_tools_upstreams_and_clients() -> None:
    rule = {"tools": ["pay*"], "upstreams": ["weather"], "clients": ["a*"], "when": "false", "reason": "not here"}
    hook = ArgumentsHook(rules=[rule])
    for _ in range(2):
        assert judge(hook, *call("payout")) == "argument-condition"
        assert judge(hook, *call("refund")) == "pass"
        assert judge(hook, *call("payout", client="bob")) == "pass"
    assert judge(ArgumentsHook(rules=[{**rule, "upstreams": ["billing"]}]), *call("payout")) == "pass"


def test_a_refusal_names_its_rule_and_says_its_reason() -> None:
    hook = ArgumentsHook(
        rules=[{"tools": ["x"], "when": "true"}, {"tools": ["*"], "when": "false", "reason": "ask ops"}]
    )
    verdict = hook.on_message(*call())
    assert isinstance(verdict, Block)
    assert (verdict.error.message, verdict.error.key) == ("ask ops", "hooks.arguments.options.rules.1")


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ({"url": "https://a.example.com/"}, "pass"),
        ({}, "pass"),
        ({"url": None}, "pass"),
        ({"url": "https://example.net/"}, "argument-egress"),
        ({"URL": "http://127.0.0.1/"}, "argument-egress"),
        ({"url": ["https://a.example.com/", "http://127.0.0.1/"]}, "argument-egress"),
        ({"url": {"href": "http://127.0.0.1/"}}, "argument-egress"),
        ({"url": 2130706433}, "argument-egress"),
        ({"other": "http://127.0.0.1/"}, "pass"),
        ({"items": [{"link": "https://a.example.com/"}, {"link": "http://10.0.0.1/"}]}, "argument-egress"),
        ({"items": {"a": {"link": "http://10.0.0.1/"}}}, "argument-egress"),
        ({"a/b": "http://10.0.0.1/"}, "argument-egress"),
        ({"list": ["", "http://10.0.0.1/"]}, "argument-egress"),
        ({"list": [1]}, "pass"),
    ],
)
def test_urls(arguments: dict[str, Any], outcome: str) -> None:
    members = ["url", "/items/*/link", "/a~1b", "/list/1"]
    hook = ArgumentsHook(rules=[{"tools": ["*"], "egress": {"members": members, "allow": ["*.example.com"]}}])
    assert judge(hook, *call(**arguments)) == outcome


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ({"path": "/srv/data/a"}, "pass"),
        ({}, "argument-pattern"),
        ({"path": None}, "argument-pattern"),
        ({"path": []}, "argument-pattern"),
        ({"path": 5}, "argument-pattern"),
        ({"path": "/srv/data/a\n/etc"}, "argument-pattern"),
        ({"path": "x/srv/data/a"}, "argument-pattern"),
        ({"path": ["/srv/data/a", "/etc"]}, "argument-pattern"),
        ({"path": "/srv/data/a", "PATH": "/etc"}, "argument-pattern"),
        ({"path": "/srv/data/a", "query": "drop\ntable"}, "argument-pattern"),
        ({"path": "/srv/data/a", "query": {"drop table": 1}}, "argument-pattern"),
        ({"path": "/srv/data/a", "query": [[True, 1.5]]}, "argument-pattern"),
        ({"path": "/srv/data/a", "query": "table drop"}, "pass"),
    ],
)
def test_patterns(arguments: dict[str, Any], outcome: str) -> None:
    rule = {
        "tools": ["*"],
        "require_patterns": {"path": "/srv/data/.*"},
        "deny_patterns": {"query": "(?i)drop.*table|^true$"},
    }
    assert judge(ArgumentsHook(rules=[rule]), *call(**arguments)) == outcome


def test_patterns_are_linear() -> None:
    hook = ArgumentsHook(**SCENARIO)
    assert judge(hook, *call("search_docs", query="a" * 400_000)) == "pass"


@pytest.mark.parametrize(
    ("when", "arguments", "outcome"),
    [
        ('args.amount <= 1000 && client == "alice"', {"amount": 1000}, "pass"),
        ('args.amount <= 1000 && client == "ops"', {"amount": 1}, "argument-condition"),
        ("args.amount <= 1000", {"amount": 1000.5}, "argument-condition"),
        ("args.amount <= 1000", {"amount": "1"}, "condition-failed"),
        ("args.amount <= 1000", {"amount": None}, "condition-failed"),
        ("args.amount <= 1000", {}, "condition-failed"),
        ("args.amount <= 1000", {"amount": -(10**30)}, "condition-failed"),
        ("!has(args.amount) || args.amount <= 1000", {}, "pass"),
        ("args.amount", {"amount": 1}, "condition-failed"),
        ("args.amount", {"amount": True}, "pass"),
        ("args.items.all(each, each.n < 3)", {"items": [{"n": 1}, {"n": 2}]}, "pass"),
        ("args.items.all(each, each.n < 3)", {"items": [{"n": 1}, {"n": 3}]}, "argument-condition"),
        ("args.items.size() < 3", {"items": [0] * 6000}, "condition-failed"),
        ("size(args.text) > 0", {"text": "x" * 70_000}, "condition-failed"),
        ('tool == "transfer" && upstream == "weather" && method == "tools/call"', {"text": "x" * 70_000}, "pass"),
        ('args.to.matches("^(a+)+$")', {"to": "a" * 50_000 + "!"}, "argument-condition"),
    ],
)
def test_conditions(when: str, arguments: dict[str, Any], outcome: str) -> None:
    assert judge(ArgumentsHook(rules=[{"tools": ["*"], "when": when}]), *call(**arguments)) == outcome


@pytest.mark.parametrize(
    "params",
    [
        {"name": "a", "arguments": []},
        {"name": "a", "arguments": "x"},
        {"name": "a", "Arguments": {}},
        {"name": "a", "arguments": {}, "argumentS": {}},
        {"name": "a", "arguments": {}, "NAME": "b"},
        {"arguments": {}},
    ],
)
def test_arguments_that_another_reader_finds_elsewhere_are_refused(params: dict[str, Any]) -> None:
    message = request("tools/call", **params)
    assert judge(ArgumentsHook(), message) == "argument-shape"


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        request("tools/call", name="a", arguments={"x": [GITHUB]}),
        request("tools/call", name="a", arguments={GITHUB: 1}),
        request("tools/call", name="a", arguments={"x": GITHUB[:9] + "\u200b" + GITHUB[9:]}),
        request("tools/call", name="a", inputResponses={"q": {"action": "accept", "content": {"x": GITHUB}}}),
        request("prompts/get", name="a", arguments={"x": GITHUB}),
        request("completion/complete", ref={}, argument={"name": "q", "value": GITHUB}),
        request("resources/read", uri=f"x://y?k={GITHUB}"),
        result("elicitation/create", Sender.CLIENT, action="accept", content={"x": GITHUB}),
    ],
)  # fmt: skip
def test_secrets_do_not_leave(message: Message) -> None:
    at = exchange()
    assert judge(ArgumentsHook(), message, at) == "argument-secret"
    assert [(rule, action) for rule, action, _, _ in findings(at)] == [("github-token", "block")]
    assert GITHUB not in str(findings(at))
    at = exchange()
    assert judge(ArgumentsHook(secrets="flag"), message, at) == "pass"
    assert at.findings[0].action == "flag"
    at = exchange()
    assert judge(ArgumentsHook(secrets="off"), message, at) == "pass"
    assert not at.findings


def test_a_secret_is_found_at_its_place() -> None:
    at = exchange()
    judge(ArgumentsHook(), request("tools/call", name="a", arguments={"x": [f"a {GITHUB}", "b"]}), at)
    assert findings(at) == [("github-token", "block", "/params/arguments/x/0", 1)]


def test_a_rule_may_let_secrets_through_for_its_tools() -> None:
    hook = ArgumentsHook(rules=[{"tools": ["rotate_*"], "secrets": "off"}])
    assert judge(hook, *call("rotate_key", key=GITHUB)) == "pass"
    assert judge(hook, *call("echo", key=GITHUB)) == "argument-secret"
    assert judge(ArgumentsHook(disable=["github-token"]), *call("echo", key=GITHUB)) == "pass"


def test_many_secrets_are_refused_even_where_they_are_flagged() -> None:
    assert judge(ArgumentsHook(secrets="flag"), *call("echo", keys=[GITHUB] * 5000)) == "argument-secret"


def test_stand_ins_and_words_pass() -> None:
    assert judge(ArgumentsHook(), *call("echo", a="ghp_" + "x" * 36, b="my password is in the vault")) == "pass"


# -- what servers ask --------------------------------------------------------------------------------------------------


def form(message: str = "Please", **fields: Any) -> dict[str, Any]:
    return {"message": message, "requestedSchema": {"type": "object", "properties": fields}}


TEXT = {"type": "string"}


def ways(params: dict[str, Any]) -> list[Message]:
    requests = {"q": {"method": "elicitation/create", "params": params}}
    return [
        request("elicitation/create", Sender.SERVER, **params),
        result("tools/call", resultType="input_required", inputRequests=requests),
        notification("notifications/tasks", inputRequests=requests),
    ]


@pytest.mark.parametrize(
    "params",
    [
        form(password=TEXT),
        form(aws_secret_access_key=TEXT),
        form(awsSecretAccessKey=TEXT),
        form(x={**TEXT, "title": "API key"}),
        form(x={**TEXT, "title": "One-time code"}),
        form(x={**TEXT, "title": "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24"}),
        form(x={**TEXT, "title": "pass\u200bword"}),
        form(x={**TEXT, "description": "Enter the verification code that we sent you"}),
        form(x={**TEXT, "description": "Your GitHub personal access token"}),
        form(otp={"type": "integer"}),
        form(pin={"type": "integer"}),
        form(token={}),
        form("Session expired. Re-enter your AWS secret access key to continue.", value=TEXT),
        form("Please provide your\nseed phrase", value=TEXT),
        form("API key?", value=TEXT),
        form("Bitte Passwort eingeben. Passwort:", value=TEXT),
        form("密码:", value=TEXT),
        form("x " * 9000 + "Enter your password.", value=TEXT),
        form(**{f"f{number}": TEXT for number in range(600)}),
    ],
)
def test_forms_that_ask_for_secrets(params: dict[str, Any]) -> None:
    for message in ways(params):
        at = exchange()
        assert judge(ArgumentsHook(), message, at) == "secret-form"
        assert at.findings[0].action == "block"
        at = exchange()
        assert judge(ArgumentsHook(server_requests={"secret_forms": "flag"}), message, at) == "pass"
        assert [(each.rule, each.action) for each in at.findings] == [("secret-form", "flag")]
        assert judge(ArgumentsHook(server_requests={"secret_forms": "off"}), message) == "pass"


@pytest.mark.parametrize(
    "params",
    [
        form("Which city do you mean?", city=TEXT),
        form("Do you want to reset your password?", confirm={"type": "boolean"}),
        form("Your name", name=TEXT, email={"type": "string", "format": "email"}),
        form("Do not enter your password here. Which branch?", branch=TEXT),
        form(max_tokens={"type": "integer"}, passenger=TEXT, keyboard=TEXT, pinned=TEXT, compass=TEXT, secretary=TEXT),
        form(x={**TEXT, "description": "Postal code"}),
        form(credentials={"enum": ["work", "home"]}),
        form(primary_key=TEXT, api_version=TEXT, country_code=TEXT),
        {"mode": "url", "url": "https://login.example.com/", "message": "Enter your password"},
        {"message": "x"},
        {"message": 5, "requestedSchema": {"properties": {"a": 5}}},
    ],
)
def test_ordinary_forms_pass(params: dict[str, Any]) -> None:
    for message in ways(params):
        at = exchange()
        assert judge(ArgumentsHook(), message, at) == "pass"
        assert not at.findings


def test_urls_lead_to_known_hosts() -> None:
    hook = ArgumentsHook(server_requests={"elicitation_hosts": ["login.example.com", "*.auth.example"]})
    for url in ("https://login.example.com/a", "https://LOGIN.example.com.:444", "https://a.auth.example"):
        for message in ways({"mode": "url", "url": url}):
            assert judge(hook, message) == "pass"
    for url in (
        "https://login.example.com.evil.net/",
        "https://login.example.com@evil.net/",
        "https://l\u043egin.example.com/",
        "",
        None,
    ):
        for message in ways({"mode": "url", "url": url}):
            assert judge(hook, message) == "elicitation-host"
            assert judge(ArgumentsHook(), message) == "pass"
    assert judge(hook, error(-32042, data={"elicitations": [{"url": "https://evil.net/"}]})) == "elicitation-host"
    assert judge(hook, error(-32042, data={"elicitations": [{"url": "https://login.example.com/"}]})) == "pass"


def test_hostile_forms_take_no_time() -> None:
    for text in ("not " * 1000, "your " * 1000, "enter password " * 400, "n't " * 1000 + "password"):
        for message in ways(
            form(text, **{f"f{number}": {"type": "string", "description": text} for number in range(10)})
        ):
            judge(ArgumentsHook(), message)


def test_of_several_questions_each_is_judged() -> None:
    questions = {
        "a": {"method": "elicitation/create", "params": form(city=TEXT)},
        "b": {"method": "roots/list"},
        "c": {"method": "elicitation/create", "params": form(password=TEXT)},
        "d": 5,
    }
    assert judge(ArgumentsHook(), result("tools/call", inputRequests=questions)) == "secret-form"


# -- schemas, as the hook uses them ------------------------------------------------------------------------------------

TOOL = {
    "name": "transfer",
    "inputSchema": {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
    "outputSchema": {"type": "object", "required": ["id"]},
}


def test_arguments_fit_the_schema_that_was_listed() -> None:
    hook = ArgumentsHook()
    assert judge(hook, *call(amount="1")) == "pass"
    assert judge(hook, result("tools/list", tools=[TOOL, 5, {"name": 5}, {}])) == "pass"
    assert judge(hook, *call(amount=1)) == "pass"
    message, at = call(amount="hunter2")
    verdict = hook.on_message(message, at)
    assert isinstance(verdict, Block)
    assert verdict.error.message == "the arguments do not fit the tool's inputSchema: at '/amount', keyword 'type'"
    assert (verdict.error.reason, verdict.error.key) == ("argument-schema", "hooks.arguments.options.schema")
    assert findings(at) == [("argument-schema", "block", "/params/arguments/amount", 1)]
    verdict = hook.on_message(*call())
    assert isinstance(verdict, Block)
    assert "required member 'amount' is missing" in verdict.error.message
    # Arguments may be absent; then they are empty.
    assert judge(hook, request("tools/call", name="transfer")) == "argument-schema"
    assert judge(hook, *call("other", amount="1")) == "pass"
    hook.on_message(result("tools/list", tools=[{**TOOL, "inputSchema": {"type": "object"}}]), exchange())
    assert judge(hook, *call(amount="1")) == "pass"


def test_a_misfit_can_be_flagged() -> None:
    hook = ArgumentsHook(schema="flag")
    hook.on_message(result("tools/list", tools=[TOOL]), exchange())
    message, at = call(amount="1")
    assert judge(hook, message, at) == "pass"
    assert findings(at) == [("argument-schema", "flag", "/params/arguments/amount", 1)]


def test_a_tool_with_an_unusable_schema_is_not_called() -> None:
    hook = ArgumentsHook()
    tool = {"name": "transfer", "inputSchema": {"$ref": "http://127.0.0.1:9/x"}}
    hook.on_message(result("tools/list", tools=[tool]), exchange())
    verdict = hook.on_message(*call())
    assert isinstance(verdict, Block)
    assert (
        verdict.error.message
        == "the arguments cannot be checked: the tool's inputSchema refers to something outside of itself"
    )


def test_results_fit_their_schema() -> None:
    def output(**members: Any) -> Message:
        document = {"jsonrpc": "2.0", "id": 7, "result": {"content": [], **members}}
        return Message(classify(document), document, Sender.SERVER, Call(7, "tools/call", "transfer"))

    for mode, outcome in (("block", "output-schema"), ("flag", "pass"), ("off", "pass")):
        hook = ArgumentsHook(output_schema=mode)
        hook.on_message(result("tools/list", tools=[TOOL]), exchange())
        assert judge(hook, output(structuredContent={"id": 1})) == "pass"
        assert judge(hook, output()) == "pass"
        assert judge(hook, output(structuredContent={}, isError=True)) == "pass"
        at = exchange()
        assert judge(hook, output(structuredContent={"x": "hunter2"}), at) == outcome
        expected = [] if mode == "off" else [("output-schema", mode, "/result/structuredContent", 1)]
        assert findings(at) == expected
