from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config import Policy
from gateway.guard.hook import PASS, Block, Drop, Finding, Replace, Verdict
from gateway.guard.policy import PolicyHook, upstream_allowed
from gateway.protocol.errors import ContentBlocked, MethodNotFound, PolicyDenied
from gateway.protocol.message import Message, Sender
from gateway.wire.envelope import classify
from tests.guard.messages import answer, error, exchange, notification, request, result

ALICE = Policy(
    allowed_upstreams=("weather",),
    allowed_tools=("get_weather", "search_docs", "add_numbers", "create_note", "echo", "fetch_url"),
    allowed_prompts=("summarize",),
    allowed_resources=("file:///allowed/", "https://docs.example.com/public/"),
)
BOB = Policy(allowed_tools=("get_weather",))
EVERYTHING = Policy(allowed_tools=("*",), allowed_prompts=("*",), allowed_resources=("*",))


def judge(message: Message, policy: Policy = ALICE, **capabilities: Any) -> Verdict:
    return PolicyHook().on_message(message, exchange(policy, capabilities))


def refusal(verdict: Verdict) -> Any:
    assert isinstance(verdict, Block)
    return verdict.error


# -- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "delete_repo", "Delete_Repo", "delete_repo ", "delete\u200b_repo", "get_we\u0430ther", "GET_WEATHER",
        "get_weather\x00", "get_weather\nrun_shell", "\uff47et_weather", "get_weather ", "get_weather/..", "",
        "admin.reset", ["get_weather"], {"name": "get_weather"}, None, 7, True,
    ],
)  # fmt: skip
def test_a_tool_that_is_not_named_is_denied(name: Any) -> None:
    assert refusal(judge(request("tools/call", name=name))).reason == "tool-not-allowed"


def test_no_name_no_call() -> None:
    assert refusal(judge(request("tools/call"))).reason == "tool-not-allowed"


def test_named_tools_pass_whatever_their_arguments_mention() -> None:
    assert judge(request("tools/call", name="get_weather", arguments={"city": "Oslo"})) is PASS
    assert judge(request("tools/call", name="search_docs", arguments={"query": "how does delete_repo work?"})) is PASS
    assert judge(request("tools/call", name="create_note", arguments={"text": "never run rm -rf /"})) is PASS


def test_one_clients_policy_is_not_anothers() -> None:
    hook = PolicyHook()
    call = request("tools/call", name="create_note")
    assert hook.on_message(call, exchange(ALICE, name="alice")) is PASS
    assert isinstance(hook.on_message(call, exchange(BOB, name="bob")), Block)
    # A reload keeps the name and changes the policy.
    assert isinstance(hook.on_message(call, exchange(BOB, name="alice")), Block)
    assert hook.on_message(call, exchange(ALICE, name="alice")) is PASS


def test_a_denied_call_without_an_id_is_denied_too() -> None:
    verdict = judge(notification("tools/call", Sender.CLIENT, name="delete_repo"))
    assert isinstance(refusal(verdict), MethodNotFound)
    assert isinstance(refusal(judge(notification("tools/call", Sender.CLIENT, name="get_weather"))), MethodNotFound)


def test_the_answer_says_what_was_denied_by_which_key() -> None:
    denied = refusal(judge(request("tools/call", name="delete_repo")))
    assert isinstance(denied, PolicyDenied)
    assert denied.to_document(7, "r1") == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {
            "code": -31403,
            "message": "policy 'default' does not allow tool 'delete_repo'",
            "data": {
                "origin": "gateway",
                "reason": "tool-not-allowed",
                "key": "policies.default.allowed_tools",
                "request": "r1",
            },
        },
    }


def test_names_in_answers_are_escaped_and_bounded() -> None:
    message = refusal(judge(request("tools/call", name="\x1b[2J\u202e" + "x" * 100_000))).message
    assert message.isascii()
    assert "\x1b" not in message
    assert len(message) < 120


def test_prompts() -> None:
    assert judge(request("prompts/get", name="summarize")) is PASS
    assert refusal(judge(request("prompts/get", name="other"))).reason == "prompt-not-allowed"


# -- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["tools/Call", "tools/call ", "tools/explode", "tools\u2215call", "sampling/createMessage", "rpc.discover"],
)
def test_what_is_no_method_of_a_client_is_not_found(method: str) -> None:
    denied = refusal(judge(request(method, name="delete_repo")))
    assert isinstance(denied, MethodNotFound)
    assert denied.code == -32601


@pytest.mark.parametrize(
    "method",
    ["initialize", "server/discover", "ping", "tools/list", "prompts/list", "resources/list", "logging/setLevel",
     "resources/templates/list", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"],
)  # fmt: skip
def test_core_methods_that_name_nothing_pass(method: str) -> None:
    assert judge(request(method)) is PASS


@pytest.mark.parametrize(
    "method", ["initialized", "cancelled", "progress", "roots/list_changed", "tasks/status"]
)  # fmt: skip
def test_core_notifications_pass(method: str) -> None:
    assert judge(notification(f"notifications/{method}", Sender.CLIENT)) is PASS


def test_a_notification_with_an_id_is_not_found() -> None:
    assert isinstance(refusal(judge(request("notifications/initialized"))), MethodNotFound)
    assert isinstance(refusal(judge(notification("notifications/made_up", Sender.CLIENT))), MethodNotFound)


def test_methods_can_be_narrowed_but_the_conversation_stays_possible() -> None:
    policy = Policy(allowed_methods=("tools/*",), allowed_tools=("*",))
    assert judge(request("tools/list"), policy) is PASS
    assert judge(request("initialize"), policy) is PASS
    assert judge(request("ping"), policy) is PASS
    denied = refusal(judge(request("resources/list"), policy))
    assert (denied.reason, denied.key) == ("method-not-allowed", "policies.default.allowed_methods")
    assert isinstance(denied, PolicyDenied)


def test_methods_of_extensions_must_be_written_out() -> None:
    assert isinstance(refusal(judge(request("vendor/export"), EVERYTHING)), MethodNotFound)
    assert isinstance(
        refusal(judge(request("vendor/export"), Policy(allowed_methods=("*", "vendor/*")))), MethodNotFound
    )
    assert judge(request("vendor/export"), Policy(allowed_methods=("*", "vendor/export"))) is PASS


def test_answers_of_the_client_pass() -> None:
    assert judge(result("sampling/createMessage", Sender.CLIENT, role="assistant")) is PASS


# -- resources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
def test_resources_are_judged_and_forwarded_in_normal_form(method: str) -> None:
    assert judge(request(method, uri="file:///allowed/readme.md")) is PASS
    assert refusal(judge(request(method, uri="file:///etc/passwd"))).reason == "resource-not-allowed"
    refused = refusal(judge(request(method, uri="file:///allowed/../etc/passwd")))
    assert refused.reason == "uri-refused"
    assert "dot segment" in refused.message
    verdict = judge(request(method, uri="HTTPS://DOCS.example.com:443/public/a", _meta={"a": 1}))
    assert isinstance(verdict, Replace)
    assert verdict.message.params == {"uri": "https://docs.example.com/public/a", "_meta": {"a": 1}}
    for uri in (None, 7, ["file:///allowed/a"]):
        assert isinstance(judge(request(method, uri=uri)), Block)


@pytest.mark.parametrize("spelling", ["resource_subscriptions", "ResourceSubscriptions", "resourcesubscriptions"])
def test_other_spellings_of_the_filter_are_denied(spelling: str) -> None:
    wanted = {"toolsListChanged": True, spelling: ["file:///allowed/a", "file:///etc/passwd"]}
    assert isinstance(judge(request("subscriptions/listen", notifications=wanted)), Block)


def test_what_may_not_be_listened_to_is_taken_out_of_the_request() -> None:
    """Rules 7.7 and 7.8: the acknowledgement then says what is so."""
    mixed = {"resourceSubscriptions": ["file:///etc/passwd", "file:///allowed/a", 7], "toolsListChanged": True}
    verdict = judge(request("subscriptions/listen", notifications=mixed))
    assert isinstance(verdict, Replace)
    assert verdict.message.params["notifications"] == {**mixed, "resourceSubscriptions": ["file:///allowed/a"]}
    none = {"resourceSubscriptions": ["file:///etc/passwd"], "toolsListChanged": True}
    verdict = judge(request("subscriptions/listen", notifications=none))
    assert isinstance(verdict, Replace)
    assert verdict.message.params["notifications"] == {"resourceSubscriptions": [], "toolsListChanged": True}
    only = {"resourceSubscriptions": ["file:///etc/passwd"], "toolsListChanged": False}
    assert isinstance(judge(request("subscriptions/listen", notifications=only)), Block)


def test_listening_to_allowed_resources_passes_in_normal_form() -> None:
    listen = "subscriptions/listen"
    assert judge(request(listen, notifications={"toolsListChanged": True})) is PASS
    assert judge(request(listen)) is PASS
    assert judge(request(listen, notifications={"resourceSubscriptions": ["file:///allowed/a"]})) is PASS
    verdict = judge(request(listen, notifications={"x": 1, "resourceSubscriptions": ["FILE:///allowed/a"]}))
    assert isinstance(verdict, Replace)
    assert verdict.message.params["notifications"] == {"x": 1, "resourceSubscriptions": ["file:///allowed/a"]}
    assert isinstance(judge(request(listen, notifications={"resourceSubscriptions": "file:///allowed/a"})), Block)
    assert isinstance(judge(request(listen, notifications={"resource_subscriptions": ["file:///allowed/a"]})), Block)


@pytest.mark.parametrize(
    ("reference", "passes"),
    [
        ({"type": "ref/prompt", "name": "summarize"}, True),
        ({"type": "ref/prompt", "name": "other"}, False),
        ({"type": "ref/resource", "uri": "file:///allowed/{path}"}, True),
        ({"type": "ref/resource", "uri": "file:///allowed/readme.md"}, True),
        ({"type": "ref/resource", "uri": "file:///{+path}"}, False),
        ({"type": "ref/resource", "uri": "db://{table}"}, False),
        ({"type": "ref/resource"}, False),
        ({"type": "ref/tool", "name": "get_weather"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_completion_is_judged_by_what_it_completes(reference: Any, passes: bool) -> None:
    verdict = judge(request("completion/complete", ref=reference, argument={"name": "path", "value": "a"}))
    assert (verdict is PASS) == passes


def test_completion_results_pass() -> None:
    assert judge(result("completion/complete", completion={"values": ["a"]})) is PASS


# -- lists ------------------------------------------------------------------------------------------------------------


def test_lists_hold_what_the_client_may_use_in_their_order() -> None:
    """Rule 7.21."""
    tools = [{"name": name, "x": 1} for name in ("delete_repo", "echo", "get_we\u0430ther", "get_weather")] + [7, {}]
    at = exchange(ALICE)
    verdict = PolicyHook().on_message(
        result("tools/list", tools=tools, nextCursor="", ttlMs=5, cacheScope="public", _meta={"a": 1}), at
    )
    assert isinstance(verdict, Replace)
    assert json.dumps(verdict.message.result) == json.dumps(
        {"tools": [tools[1], tools[3]], "nextCursor": "", "ttlMs": 5, "cacheScope": "private", "_meta": {"a": 1}}
    )
    assert at.findings == [Finding("policy", "list-filtered", "redact", "/result/tools", 4)]


@pytest.mark.parametrize(
    ("method", "member", "name", "kept", "removed"),
    [
        ("prompts/list", "prompts", "name", "summarize", "other"),
        ("resources/list", "resources", "uri", "file:///allowed/a", "file:///etc/passwd"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", "file:///allowed/{p}", "file:///{p}"),
    ],
)
def test_all_lists_are_filtered(method: str, member: str, name: str, kept: str, removed: str) -> None:
    verdict = judge(result(method, **{member: [{name: removed}, {name: kept}, {name: 7}]}))
    assert isinstance(verdict, Replace)
    assert verdict.message.result[member] == [{name: kept}]


def test_a_page_without_anything_to_remove_is_private_too() -> None:
    """Rule 7.19."""
    page: dict[str, Any] = {"tools": [{"name": "echo"}], "cacheScope": "public"}
    verdict = judge(result("tools/list", **page))
    assert isinstance(verdict, Replace)
    assert verdict.message.result == {**page, "cacheScope": "private"}
    assert judge(result("tools/list", **page), EVERYTHING) is PASS
    assert judge(result("tools/list", tools=[{"name": "echo"}])) is PASS
    assert judge(result("tools/list")) is PASS


@pytest.mark.parametrize(
    "members", [{"resourceTemplates": {}}, {"resource_templates": [{"uriTemplate": "file:///{p}"}]}]
)
def test_a_list_in_another_form_is_withheld(members: dict[str, Any]) -> None:
    assert isinstance(refusal(judge(result("resources/templates/list", **members))), ContentBlocked)


def test_other_results_pass() -> None:
    assert judge(result("tools/call", content=[], tools=[{"name": "delete_repo"}])) is PASS
    assert judge(error()) is PASS


# -- what upstreams ask and tell --------------------------------------------------------------------------------------

FORM = {"mode": "form", "message": "Which city?", "requestedSchema": {"type": "object"}}
URL = {"mode": "url", "message": "Sign in", "url": "https://login.example.com/x?y=z"}


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "passes"),
    [
        ("ping", {}, {}, True),
        ("roots/list", {}, {"roots": {}}, True),
        ("roots/list", {}, {}, False),
        ("sampling/createMessage", {"messages": []}, {"sampling": {}}, True),
        ("sampling/createMessage", {"messages": []}, {"elicitation": {}}, False),
        ("elicitation/create", FORM, {"elicitation": {}}, True),
        ("elicitation/create", FORM, {"elicitation": {"form": {}}}, True),
        ("elicitation/create", {"message": "?"}, {"elicitation": {"form": {}}}, True),
        ("elicitation/create", FORM, {"elicitation": {"url": {}}}, False),
        ("elicitation/create", FORM, {}, False),
        ("elicitation/create", URL, {"elicitation": {"url": {}}}, True),
        ("elicitation/create", URL, {"elicitation": {"form": {}}}, False),
        ("elicitation/create", {**FORM, "mode": "other"}, {"elicitation": {"form": {}, "url": {}}}, False),
        ("elicitation/create", {**URL, "url": "javascript:fetch(1)"}, {"elicitation": {"url": {}}}, False),
        ("elicitation/create", {**URL, "url": "https://bank@evil.example"}, {"elicitation": {"url": {}}}, False),
        ("elicitation/create", {**URL, "url": None}, {"elicitation": {"url": {}}}, False),
        ("tasks/get", {"taskId": "1"}, {"tasks": {}}, True),
        ("tasks/get", {"taskId": "1"}, {}, False),
        ("tools/call", {"name": "get_weather"}, {}, False),
        ("vendor/ask", {}, {}, False),
    ],
)  # fmt: skip
def test_requests_of_the_server(method: str, params: Any, capabilities: Any, passes: bool) -> None:
    verdict = judge(request(method, Sender.SERVER, **params), **capabilities)
    assert (verdict is PASS) == passes
    # The same inside a result that asks for input (rule 7.12), and inside a task.
    asks = {"q": {"method": method, "params": params}}
    verdict = judge(result("tools/call", resultType="input_required", inputRequests=asks), **capabilities)
    assert (verdict is PASS) == passes
    verdict = judge(notification("notifications/tasks", taskId="1", inputRequests=asks), **capabilities)
    assert (verdict is PASS) == passes


def test_the_policy_may_narrow_what_servers_ask() -> None:
    policy = Policy(allowed_server_requests=("elicitation/*", "vendor/ask"))
    denied = refusal(judge(request("sampling/createMessage", Sender.SERVER), policy, sampling={}))
    assert denied.key == "policies.default.allowed_server_requests"
    assert denied.reason == "server-request-not-allowed"
    assert judge(request("elicitation/create", Sender.SERVER, **FORM), policy, elicitation={}) is PASS
    assert judge(request("vendor/ask", Sender.SERVER), policy) is PASS
    assert judge(request("ping", Sender.SERVER), policy) is PASS


@pytest.mark.parametrize(
    "body",
    [
        {"inputRequests": []},
        {"inputRequests": {"q": 7}},
        {"inputRequests": {"q": {"method": 7}}},
        {"inputRequests": {"q": {"method": "ping", "params": []}}},
        {"input_requests": {"q": {"method": "roots/list", "params": {}}}},
    ],
)
def test_input_requests_in_another_form_are_withheld(body: dict[str, Any]) -> None:
    verdict = judge(result("tools/call", resultType="input_required", **body), roots={})
    assert refusal(verdict).reason == "input-requests-malformed"


def test_an_error_that_asks_to_open_urls_is_judged_as_an_elicitation() -> None:
    """Rules 7.23 and 9.5."""
    ask = error(-32042, "open", {"elicitations": [URL]})
    assert judge(ask, elicitation={"url": {}}) is PASS
    assert isinstance(judge(ask, elicitation={}), Block)
    assert judge(error(-32042, "open", "?")) is PASS
    assert isinstance(judge(error(-32042, "open", {"elicitations": [7]}), elicitation={"url": {}}), Block)


def test_updates_of_denied_resources_are_dropped() -> None:
    updated = "notifications/resources/updated"
    assert judge(notification(updated, uri="file:///allowed/a")) is PASS
    assert judge(notification(updated, uri="file:///etc/passwd")) == Drop("resource-not-allowed")
    assert judge(notification(updated)) == Drop("resource-not-allowed")


def test_other_notifications_of_the_server_pass_if_they_are_ones() -> None:
    assert judge(notification("notifications/progress", progressToken="p", progress=1)) is PASS
    assert judge(notification("notifications/vendor/thing")) is PASS
    assert judge(notification("notifications/initialized")) == Drop("not-a-server-notification")
    assert judge(notification("tools/call", name="get_weather")) == Drop("not-a-server-notification")


def test_an_error_that_answers_nothing_known_passes() -> None:
    document = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "?"}}
    assert judge(Message(classify(document), document, Sender.SERVER)) is PASS
    assert judge(answer({"jsonrpc": "2.0", "id": 7, "result": {}}, "vendor/x")) is PASS


def test_upstreams() -> None:
    assert upstream_allowed(ALICE, "weather")
    assert not upstream_allowed(ALICE, "Weather")
    assert not upstream_allowed(BOB, "weather")
    assert upstream_allowed(Policy(allowed_upstreams=("*",)), "anything")
