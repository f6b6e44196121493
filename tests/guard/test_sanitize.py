from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.edit import Edits, Text, pointer, strings
from gateway.guard.hook import PASS, Block, Exchange, Finding, Replace, Verdict
from gateway.guard.ruleset import RulesError
from gateway.guard.sanitize import SanitizeHook
from gateway.protocol.errors import ContentBlocked
from gateway.protocol.message import Message, Sender
from tests.guard.messages import answer, error, exchange, notification, request, result

DATA = Path(__file__).parent / "data"
GITHUB = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
AWS = "AK" + "IAT3STFAKE5K2Y7ZQX"
HOOK = SanitizeHook()


def cases(file: str) -> list[Any]:
    lines = (DATA / file).read_text().splitlines()
    return [pytest.param(case, id=case["id"]) for case in map(json.loads, lines)]


def run(message: Message, hook: SanitizeHook = HOOK) -> tuple[Any, Exchange, Verdict]:
    """The document that goes on (None: withheld), the exchange with its findings, the verdict."""
    at = exchange()
    before = copy.deepcopy(message.document)
    verdict = hook.on_message(message, at)
    assert message.document == before
    document = verdict.message.document if isinstance(verdict, Replace) else message.document
    return None if isinstance(verdict, Block) else document, at, verdict


def found(at: Exchange) -> list[tuple[str, str, str, int]]:
    return [(finding.rule, finding.action, finding.place, finding.count) for finding in at.findings]


def texts(document: Any) -> str:
    return "\n".join(text.text for text in strings(document))


@pytest.mark.parametrize("case", cases("results.jsonl"))
def test_results(case: Any) -> None:
    document, at, verdict = run(answer(case["document"], "tools/call"), SanitizeHook(results="strip"))
    if case["expected"] == "allow":
        assert verdict is PASS
        assert not at.findings
    else:
        assert isinstance(verdict, Replace)
        assert at.findings
        assert not any(absent in texts(document) for absent in case["absent"])
        assert all(present in texts(document) for present in case["present"])


@pytest.mark.parametrize("case", cases("tools.jsonl"))
def test_tool_definitions(case: Any) -> None:
    document, at, verdict = run(result("tools/list", tools=[case["tool"]]))
    if case["expected"] == "allow":
        assert verdict is PASS
        assert not at.findings
    else:
        assert isinstance(verdict, Replace)
        assert {finding.action for finding in at.findings} == {"strip"}
        assert not any(absent in texts(document) for absent in case["absent"])


# -- where it looks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (result("tools/call", content=[{"type": "text", "text": f"a {GITHUB} b"}]), "/result/content/0/text"),
        (
            result("tools/call", structuredContent={"a": [[{"b": f"a {GITHUB} b"}]]}),
            "/result/structuredContent/a/0/0/b",
        ),
        (result("tools/call", _meta={"vendor/x": f"a {GITHUB} b"}), "/result/_meta/vendor~1x"),
        (result("resources/read", contents=[{"uri": "a://b", "text": f"a {GITHUB} b"}]), "/result/contents/0/text"),
        (result("prompts/get", messages=[{"content": {"text": f"a {GITHUB} b"}}]), "/result/messages/0/content/text"),
        (result("tools/list", tools=[{"name": "x", "description": f"a {GITHUB} b"}]), "/result/tools/0/description"),
        (result("initialize", instructions=f"a {GITHUB} b"), "/result/instructions"),
        (result("vendor/thing", a=f"a {GITHUB} b"), "/result/a"),
        (error(message=f"a {GITHUB} b"), "/error/message"),
        (error(data={"trace": [f"a {GITHUB} b"]}), "/error/data/trace/0"),
        (notification("notifications/message", level="info", data=f"a {GITHUB} b"), "/params/data"),
        (notification("notifications/progress", progressToken="p", message=f"a {GITHUB} b"), "/params/message"),
        (request("elicitation/create", Sender.SERVER, message=f"a {GITHUB} b"), "/params/message"),
    ],
)
def test_every_message_of_a_server(message: Message, place: str) -> None:
    document, at, _ = run(message)
    assert GITHUB not in texts(document)
    assert "a [redacted:github-token] b" in texts(document)
    assert at.findings == [Finding("sanitize", "github-token", "redact", place)]


def test_messages_of_clients_are_not_looked_at() -> None:
    assert run(request("tools/call", name="x", arguments={"text": GITHUB}))[2] is PASS
    assert run(result("sampling/createMessage", Sender.CLIENT, text=GITHUB))[2] is PASS


def test_nothing_found_nothing_copied() -> None:
    message = result("tools/call", content=[{"type": "text", "text": "sunny"}], structuredContent={"a": [1, None, 1.5]})
    assert run(message)[2] is PASS


def test_what_is_not_changed_is_shared_with_the_original() -> None:
    other = {"big": ["x"] * 10}
    message = result("tools/call", content=[{"text": AWS}, other], structuredContent=other)
    document = run(message)[0]
    assert document["result"]["structuredContent"] is other
    assert document["result"]["content"][1] is other
    assert list(document) == ["jsonrpc", "id", "result"]


def test_member_names_are_redacted_in_place_and_none_is_lost() -> None:
    inner = {"z": 1, GITHUB: {"token": "hunter2", GITHUB: 1}, "[redacted:github-token]": 2, GITHUB[:-1]: 3, "a": 4}
    document, at, _ = run(result("tools/call", structuredContent=inner))
    assert list(document["result"]["structuredContent"].items()) == [
        ("z", 1),
        ("[redacted:github-token]-2", {"token": "[redacted:secret-member]", "[redacted:github-token]": 1}),
        ("[redacted:github-token]", 2),
        ("[redacted:github-token]-3", 3),
        ("a", 4),
    ]
    assert not any(GITHUB in finding.place for finding in at.findings)
    assert ("secret-member", "redact", "/result/structuredContent/[redacted:github-token]/token", 1) in found(at)


def test_several_secrets_in_one_text_are_counted() -> None:
    document, at, _ = run(result("tools/call", content=[{"text": f"{AWS} {GITHUB} {AWS} end"}]))
    assert document["result"]["content"][0]["text"] == (
        "[redacted:aws-access-key-id] [redacted:github-token] [redacted:aws-access-key-id] end"
    )
    assert set(found(at)) == {
        ("github-token", "redact", "/result/content/0/text", 1),
        ("aws-access-key-id", "redact", "/result/content/0/text", 2),
    }


def test_findings_are_bounded() -> None:
    _, at, _ = run(result("tools/call", content=[AWS] * 1000))
    assert len(at.findings) <= 34
    assert sum(finding.count for finding in at.findings) == 1000
    assert at.findings[-1].place == ""


# -- members whose name says it all -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "PASSWD", "api_key", "apiKey", "API-Key", "client_secret", "access_token", "privateKey",
     "credentials", "Authorization", "aws.secret.access.key", "private key"],
)  # fmt: skip
def test_members_with_a_secrets_name(name: str) -> None:
    hook = SanitizeHook()
    for _ in range(2):
        document, at, _ = run(result("tools/call", structuredContent={"cfg": {name: "hunter2", "region": "eu"}}), hook)
        assert document["result"]["structuredContent"]["cfg"] == {name: "[redacted:secret-member]", "region": "eu"}
        assert [finding.rule for finding in at.findings] == ["secret-member"]


@pytest.mark.parametrize(
    "content",
    [
        {"password": 7, "token": None, "secret": True, "credentials": ["x"], "apikey": {}},
        {"password": "", "secret": "********", "token": "xxxxxxxxxxxxxxxxxxxxxxxx"},
        {"token": "[redacted:github-token]"},
        {"maxTokens": "5", "tokens": "12", "tokenCount": "9", "nextPageToken": "abc", "hasPassword": "yes", "key": "k"},
        {"passwordPolicy": "strong", "secretName": "db", "public_key": "MFkw", "keyboard": "us"},
    ],
)
def test_members_without_a_secret(content: dict[str, Any]) -> None:
    assert run(result("tools/call", structuredContent=content))[2] is PASS


def test_what_the_protocol_itself_says_is_never_touched() -> None:
    jwt = "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiJmYWtlLXVzZXIifQ.RkFLRXNpZ25hdHVyZQ"
    meta = {"io.modelcontextprotocol/subscriptionId": jwt, "progressToken": GITHUB, "traceparent": jwt}
    assert run(result("tools/call", nextCursor=jwt, requestState=jwt, _meta=meta))[2] is PASS
    assert run(notification("notifications/progress", progressToken=GITHUB, progress=1, _meta=meta))[2] is PASS
    # Only where the protocol puts them: the same names in a server's own data hide nothing.
    assert isinstance(run(result("tools/call", structuredContent={"nextCursor": jwt, "requestState": jwt}))[2], Replace)


def test_schemas_that_define_a_password_are_not_touched() -> None:
    schema = {
        "type": "object",
        "properties": {"password": {"type": "string", "description": "The password"}, "token": True},
        "required": ["password"],
        "x-labels": {"password": "Your password"},
    }
    assert (
        run(result("tools/list", tools=[{"name": "login", "inputSchema": schema, "outputSchema": schema}]))[2] is PASS
    )
    asking = request("elicitation/create", Sender.SERVER, message="?", requestedSchema=schema)
    assert run(asking)[2] is PASS


# -- members of JSON that is text -------------------------------------------------------------------------------------

LOGIN = {
    "user": "amélie",
    "password": 'co"rr\\ect\\"ho\n\\',
    "Api-Key": "q\\\\",
    "token": "",
    "secret": 7,
    "tokens": "5",
}
REDACTED = LOGIN | {"password": "[redacted:secret-member]", "Api-Key": "[redacted:secret-member]"}


def nest(content: Any, levels: int) -> Any:
    """The content as JSON, as a string of JSON, and so on."""
    for _ in range(levels):
        content = {"a": json.dumps(content), "b": "password"}
    return content


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize("indent", [None, 1])
def test_the_text_twin_of_structured_content(levels: int, indent: int | None) -> None:
    text = json.dumps(nest(LOGIN, levels), indent=indent)
    document, at, _ = run(result("tools/call", content=[{"type": "text", "text": text}], structuredContent=LOGIN))
    assert json.loads(document["result"]["content"][0]["text"]) == nest(REDACTED, levels)
    assert document["result"]["structuredContent"] == REDACTED
    assert ("secret-member", "redact", "/result/content/0/text", 2) in found(at)


@given(st.text(), st.text(), st.integers(0, 3), st.booleans())
def test_any_value_of_a_text_twin(secret: str, other: str, levels: int, ascii_only: bool) -> None:
    text = json.dumps(nest({"x": other, "password": secret, "y": secret}, levels), ensure_ascii=ascii_only)
    document = run(result("tools/call", a=text), SanitizeHook(definitions="off", results="off"))[0]
    for _ in range(levels):
        text = json.loads(text)["a"]
        document = {"result": json.loads(document["result"]["a"])}
    after = document["result"] if levels else document["result"]["a"]
    after = json.loads(after["a"] if levels else after)
    kept = not secret or len(set(secret)) < 2 or "password" in (secret.lower(), other.lower())
    assert (after["x"], after["y"]) == (other, secret)
    assert kept or after["password"] in ("[redacted:secret-member]", secret)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('log: {"password":"hunter2"} end', 'log: {"password":"[redacted:secret-member]"} end'),
        ('"client_secret" : "a1b2" and "x": "y"', '"client_secret" : "[redacted:secret-member]" and "x": "y"'),
        ('cut off {"password": "hunt', 'cut off {"password": "[redacted:secret-member]'),
        ('{"password": "hunt\nnext line', '{"password": "[redacted:secret-member]\nnext line'),
        (r'say("{\"token\": \"abc")', r'say("{\"token\": \"[redacted:secret-member]")'),
        ('{"token": "' + GITHUB + '"}', '{"token": "[redacted:secret-member]"}'),
        ('{"token": "a1b2"} ' + GITHUB, '{"token": "[redacted:secret-member]"} [redacted:github-token]'),
    ],
)
def test_members_in_texts(text: str, expected: str) -> None:
    document, _, _ = run(result("tools/call", content=[{"text": text}]))
    assert document["result"]["content"][0]["text"] == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "", "token": null, "secret": 7, "credentials": ["x"]}',
        '{"password": "********", "token": "xxxxxxxxxxxxxxxxxxxxxxxx", "secret": "[redacted:github-token]"}',
        '{"nextPageToken": "abc", "hasPassword": "yes", "tokens": "5", "x": "password", "y": ": "}',
        'the "password": is asked for, "token" too; password: hunter2, password=hunter2',
        'def token(self): return {"required": ["password"], "password": {"type": "string"}}',
    ],
)
def test_texts_without_a_member(text: str) -> None:
    assert run(result("tools/call", content=[{"text": text}]))[2] is PASS


def test_members_in_texts_take_the_same_options() -> None:
    message = result("tools/call", a='{"password": "hunter2", "Türcode": "4711"}')
    assert run(message, SanitizeHook(disable=["secret-member"]))[2] is PASS
    _, at, verdict = run(message, SanitizeHook(actions={"secret-member": "flag"}))
    assert verdict is PASS
    assert found(at) == [("secret-member", "flag", "/result/a", 1)]
    assert run(message, SanitizeHook(actions={"secret-member": "block"}))[0] is None
    document, _, _ = run(message, SanitizeHook(members=["türcode"]))
    assert json.loads(document["result"]["a"])["Türcode"] == "[redacted:secret-member]"
    schema = {"properties": {"x": {"default": '{"password": "hunter2"}'}}}
    assert run(result("tools/list", tools=[{"name": "a", "inputSchema": schema}]))[2] is PASS


def test_a_member_in_a_text_with_something_invisible_inside() -> None:
    document, _, _ = run(result("initialize", instructions='{"pass\u200bword": "hunter2"}'))
    assert document["result"]["instructions"] == '{"password": "[redacted:secret-member]"}'


@pytest.mark.parametrize("content", [{"token": GITHUB}, {"x": json.dumps({"token": GITHUB})}])
def test_a_rule_that_blocks_goes_before_the_members_name(content: Any) -> None:
    document, at, _ = run(result("tools/call", a=content), SanitizeHook(actions={"github-token": "block"}))
    assert document is None
    assert ("github-token", "block") in {(finding.rule, finding.action) for finding in at.findings}


# -- how much of it -----------------------------------------------------------------------------------------------------

HOSTILE = [
    '"password":"' * 90_000,
    '"password":"' + "\\" * 1_000_000,
    ("\\" * 50 + '"password' + "\\" * 50 + '":') * 9_000,
    '"password":"x ' + '"a' * 500_000,
    '\\"' * 500_000 + '"password":"x',
    '"password"' + " " * 1_000_000 + ':"x',
    ('"password"' + " " * 50) * 20_000,
    '\\"password\\":\\"x' * 60_000,
    "".join("\\" * size + '"password' + "\\" * size + '":' + "\\" * size + '"x' for size in range(700)),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_end(text: str) -> None:
    # Each of these takes milliseconds; one that went back would take hours.
    hook = SanitizeHook()
    document, _, verdict = run(result("tools/call", content=[{"text": text}]), hook)
    if isinstance(verdict, Replace):
        assert run(answer(document, "tools/call"), hook)[2] is PASS


@pytest.mark.parametrize(
    "hit",
    [GITHUB, {"password": "hunter2"}, '{"password": "hunter2"}', {GITHUB: 1}],
    ids=["rule", "member", "text", "name"],
)
def test_too_many_secrets(hit: Any) -> None:
    hook = SanitizeHook(max_hits=10)
    assert isinstance(run(result("tools/call", content=[hit] * 10), hook)[2], Replace)
    verdict = run(result("tools/call", content=[hit] * 11), hook)[2]
    assert isinstance(verdict, Block)
    assert isinstance(verdict.error, ContentBlocked)
    assert (verdict.error.reason, verdict.error.key) == ("too-many-secrets", "hooks")


def test_matches_that_change_nothing_count_less() -> None:
    for hook, text in (
        (SanitizeHook(max_hits=1), '"password": "****" '),
        (SanitizeHook(max_hits=1), "ghp_" + "x" * 36 + " "),
        (SanitizeHook(max_hits=1, action="flag"), AWS + " "),
    ):
        assert run(result("tools/call", a=text * 20), hook)[2] is PASS
        assert isinstance(run(result("tools/call", a=text * 21), hook)[2], Block)


def test_many_members_that_come_to_the_same_name() -> None:
    names = {f"x{chr(0x200B) * number}": number for number in range(300)}
    document = run(result("tools/call", structuredContent=names), SanitizeHook(results="strip"))[0]
    assert list(document["result"]["structuredContent"].values()) == list(range(300))


# -- invisible characters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        result("tools/list", tools=[{"name": "a", "inputSchema": {"properties": {"x\u200b": {"title": "\x1b[8mx"}}}}]),
        result("prompts/list", prompts=[{"name": "a", "description": "\u202ex\u200b"}]),
        result("resources/list", resources=[{"uri": "a://b", "title": "x\x00\u202e"}]),
        result("resources/templates/list", resourceTemplates=[{"uriTemplate": "a://{b}", "name": "x\u200b\u202e"}]),
        result("initialize", instructions="x\x07", serverInfo={"name": "x\u202e"}),
        result("server/discover", instructions="x\u2066"),
    ],
)
def test_definitions_are_stripped(message: Message) -> None:
    document, at, verdict = run(message)
    assert isinstance(verdict, Replace)
    assert {finding.action for finding in at.findings} == {"strip"}
    assert not set(texts(document)) & set("\x00\x07\x1b\u200b\u202e\u2066")


def test_results_are_flagged_unless_told_otherwise() -> None:
    message = result("tools/call", content=[{"text": "good\x1b[2J\u202e"}])
    _, at, verdict = run(message)
    assert verdict is PASS
    assert set(found(at)) == {
        ("terminal-controls", "flag", "/result/content/0/text", 1),
        ("bidi-controls", "flag", "/result/content/0/text", 1),
    }
    document, at, _ = run(message, SanitizeHook(results="strip"))
    assert document["result"]["content"][0]["text"] == "good"
    assert not run(message, SanitizeHook(results="off"))[1].findings
    assert not run(message, SanitizeHook(disable=["terminal-controls", "bidi-controls"]))[1].findings
    listing = result("tools/list", tools=[{"name": "a\u202e"}])
    assert run(listing, SanitizeHook(definitions="flag"))[2] is PASS
    assert not run(listing, SanitizeHook(definitions="off"))[1].findings


def test_a_secret_with_something_invisible_inside_is_found_once_that_is_gone() -> None:
    split = GITHUB[:10] + "\u200b" + GITHUB[10:]
    document, at, _ = run(result("initialize", instructions=f"use {split} here"))
    assert document["result"]["instructions"] == "use [redacted:github-token] here"
    assert {finding.rule for finding in at.findings} == {"invisible-characters", "github-token"}


# -- options ----------------------------------------------------------------------------------------------------------


def test_further_members() -> None:
    message = result("tools/call", structuredContent={"Door_Code": "4711 open"})
    assert run(message)[2] is PASS
    document, _, _ = run(message, SanitizeHook(members=["door code"]))
    assert document["result"]["structuredContent"] == {"Door_Code": "[redacted:secret-member]"}


def test_members_can_be_switched_off() -> None:
    hook = SanitizeHook(disable=["secret-member"])
    assert run(result("tools/call", structuredContent={"password": "hunter2"}), hook)[2] is PASS


def test_rules_can_be_switched_off() -> None:
    assert run(result("tools/call", a=GITHUB), SanitizeHook(disable=["github-token"]))[2] is PASS


@pytest.mark.parametrize(
    "hook", [SanitizeHook(action="block"), SanitizeHook(actions={"github-token": "block", "secret-member": "block"})]
)
@pytest.mark.parametrize("content", [{"a": GITHUB}, {"password": "hunter2"}])
def test_blocking(hook: SanitizeHook, content: dict[str, Any]) -> None:
    document, at, verdict = run(result("tools/call", structuredContent=content), hook)
    assert document is None
    assert isinstance(verdict, Block)
    assert isinstance(verdict.error, ContentBlocked)
    assert verdict.error.data == {"rule": at.findings[0].rule}
    assert [finding.action for finding in at.findings] == ["block"]
    assert "hunter2" not in verdict.error.message


def test_flagging() -> None:
    hook = SanitizeHook(action="flag")
    _, at, verdict = run(result("tools/call", a=GITHUB, password="hunter2"), hook)
    assert verdict is PASS
    assert {(finding.rule, finding.action) for finding in at.findings} == {
        ("github-token", "flag"),
        ("secret-member", "flag"),
    }


def test_an_operators_rules(project: Path) -> None:
    file = str(project / "config" / "rules" / "example.yaml")
    hook = SanitizeHook(rules_files=file)
    document, at, _ = run(result("tools/call", a="by ACME-000000 at x.corp.acme.example"), hook)
    assert document["result"]["a"] == "by [redacted:acme-employee-number] at x.corp.acme.example"
    assert {(finding.rule, finding.action) for finding in at.findings} == {
        ("acme-employee-number", "redact"),
        ("acme-internal-host", "flag"),
    }
    assert isinstance(run(result("tools/call", a="Project Bluebird"), hook)[2], Block)
    hook = SanitizeHook(rules_files=[file], actions={"acme-secret-project": "flag"})
    assert run(result("tools/call", a="Project Bluebird"), hook)[2] is PASS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"disable": ["github-tokn"]}, "did you mean 'github-token'?"),
        ({"actions": {"jwt": "block"}}, "actions: there is no rule 'jwt'"),
        ({"actions": {"github-token": "drop"}}, "actions.github-token: expected redact, block or flag"),
        ({"action": "strip"}, "action: expected redact, block or flag"),
        ({"definitions": "redact"}, "definitions: expected strip, flag or off"),
        ({"results": True}, "results: expected strip, flag or off"),
        ({"members": [7]}, "members: expected a list of names"),
        ({"max_hits": 0}, "max_hits: expected a whole number"),
        ({"max_hits": True}, "max_hits: expected a whole number"),
        ({"rules_files": "missing.yaml"}, "cannot read the rules file"),
    ],
)
def test_options_that_cannot_be_used_say_why(options: Any, expected: str) -> None:
    with pytest.raises(RulesError) as caught:
        SanitizeHook(**options)
    assert expected in str(caught.value)


def test_what_is_remembered_of_member_names_is_bounded() -> None:
    hook = SanitizeHook()
    for start in range(0, 20_000, 1000):
        run(result("tools/call", **{f"k{number}": 1 for number in range(start, start + 1000)}), hook)
    run(result("tools/call", **{"k" * 1000: 1}), hook)
    assert len(hook._harmless) <= 8192
    assert "k" * 1000 not in hook._harmless


# -- any document -----------------------------------------------------------------------------------------------------

_texts = st.sampled_from([GITHUB, AWS, f"x{AWS} {GITHUB}", "\u202ex", "password"])
_names = st.text(max_size=4) | st.just(GITHUB) | st.just("token")
_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=12,
)


def shape(node: Any) -> Any:
    """Everything but the strings."""
    if isinstance(node, dict):
        return [shape(value) for value in node.values()]
    if isinstance(node, list):
        return [shape(value) for value in node]
    return None if isinstance(node, str) else node


@given(_json)
def test_any_document_keeps_its_shape_and_loses_its_secrets(content: Any) -> None:
    message = result("tools/call", structuredContent=content)
    document, at, verdict = run(message, SHARED)
    assert shape(document) == shape(message.document)
    assert GITHUB not in texts(document)
    assert "\u202e" not in texts(document)
    assert bool(at.findings) == isinstance(verdict, Replace)
    # What came out is clean.
    again = answer(document, "tools/call")
    assert run(again, SHARED)[2] is PASS


SHARED = SanitizeHook(results="strip")


def test_edits() -> None:
    document = {"a": {"b": ["x", "y"]}, "c": "z"}
    edits = Edits()
    assert not edits
    edits.set(Text(("a", "b"), 1, "Y"))
    edits.set(Text((), "c", "C", is_name=True))
    assert edits
    changed = edits.apply(document)
    assert changed == {"a": {"b": ["x", "Y"]}, "C": "z"}
    assert document == {"a": {"b": ["x", "y"]}, "c": "z"}


def test_pointers_are_escaped_and_bounded() -> None:
    assert pointer(("result", "a/b~c", 0, "\u202e")) == "/result/a~1b~0c/0/\\u202e"
    assert len(pointer(("x" * 10_000,))) == 256
