from __future__ import annotations

from typing import Any

import pytest
from mcp_types.methods import INPUT_REQUIRED_METHODS as SDK_INPUT_REQUIRED
from mcp_types.methods import SERVER_NOTIFICATIONS, SERVER_REQUESTS

from gateway.protocol.answers import (
    INPUT_REQUIRED_METHODS,
    LOG_LEVEL,
    TASKS_EXTENSION,
    Subscription,
    check_error,
    check_notification,
    check_result,
    check_server_request,
)
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.message import Call
from gateway.protocol.modern import SUBSCRIPTION_ID
from gateway.protocol.revisions import LEGACY, REVISIONS, SUPPORTED

MODERN = REVISIONS["2026-07-28"]
EVERYTHING = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}},
    "roots": {},
    "tasks": {"list": {}, "cancel": {}},
    "extensions": {TASKS_EXTENSION: {}},
}
ASK = {"name": {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {}}}}


def judge(result: dict[str, Any], method: str = "tools/call", capabilities: Any = EVERYTHING) -> Any:
    return check_result(MODERN, Call(1, method), {}, capabilities, result)


def refused(*args: Any, **rest: Any) -> bool:
    with pytest.raises(UpstreamProtocolError) as caught:
        judge(*args, **rest)
    assert caught.value.reason == "upstream-result"
    return True


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LEGACY, None])
def test_results_of_sessions_have_no_type(name: str | None) -> None:
    revision = None if name is None else REVISIONS[name]
    for result in ({"resultType": "anything"}, {"result_type": 1}, {}):
        assert check_result(revision, Call(1, "tools/list"), {}, {}, result) is None


@pytest.mark.parametrize("result", [{}, {"content": []}, {"resultType": "complete", "ttlMs": 5}])
def test_complete_results_pass_and_so_do_older_servers(result: dict[str, Any]) -> None:
    assert judge(result) is None
    assert judge(result, "x-extension/method", {}) is None


@pytest.mark.parametrize("kind", ["done", "Complete", "", None, 1, [], {}])
def test_results_of_no_known_type(kind: Any) -> None:
    assert refused({"resultType": kind})


@pytest.mark.parametrize(
    "member",
    ["result_type", "ResultType", "resulttype", "input_requests", "request_state", "re\u017fultType", "result-type"],
)
def test_spellings_that_only_some_clients_read(member: str) -> None:
    assert refused({member: "complete"})


def test_input_is_asked_for_where_it_may_be() -> None:
    """Rule 7.11."""
    assert set(INPUT_REQUIRED_METHODS) == set(SDK_INPUT_REQUIRED)
    asking = {"resultType": "input_required", "inputRequests": ASK, "requestState": "s"}
    for method in ("tools/call", "prompts/get", "resources/read"):
        assert judge(asking, method) is None
    for method in ("tools/list", "completion/complete", "server/discover", "tasks/get", "subscriptions/listen"):
        assert refused(asking, method)


@pytest.mark.parametrize(
    ("members", "passes"),
    [
        ({"inputRequests": ASK}, True),
        ({"requestState": "s"}, True),
        ({"requestState": ""}, True),
        ({}, False),
        ({"requestState": None}, False),
        ({"requestState": {}}, False),
        ({"inputRequests": None}, False),
        ({"inputRequests": [ASK]}, False),
        ({"inputRequests": {"a": None}}, False),
        ({"inputRequests": {"a": {}}}, False),
        ({"inputRequests": {"a": {"method": ["roots/list"]}}}, False),
        ({"inputRequests": {"a": {"method": "roots/list"}}}, True),
        ({"inputRequests": {"a": {"method": "roots/list", "params": None}}}, False),
        ({"inputRequests": {"a": {"method": "ping"}}}, False),
        ({"inputRequests": {"a": {"method": "tools/call"}}}, False),
        ({"inputRequests": {"a": {"method": "tasks/list"}}}, False),
        ({"inputRequests": {**ASK, "b": {"method": "ui/open-link"}}}, False),
    ],
)
def test_what_asks_for_input(members: dict[str, Any], passes: bool) -> None:
    result = {"resultType": "input_required", **members}
    assert judge(result) is None if passes else refused(result)


@pytest.mark.parametrize(
    ("request_", "capabilities", "passes"),
    [
        ({"method": "roots/list"}, {"roots": {}}, True),
        ({"method": "roots/list"}, {"sampling": {}, "roots": None}, False),
        ({"method": "sampling/createMessage", "params": {}}, {"sampling": {}}, True),
        ({"method": "sampling/createMessage", "params": {}}, {}, False),
        ({"method": "sampling/createMessage", "params": {"tools": [{}]}}, {"sampling": {}}, False),
        ({"method": "sampling/createMessage", "params": {"toolChoice": {}}}, {"sampling": {}}, False),
        ({"method": "sampling/createMessage", "params": {"tools": [{}]}}, {"sampling": {"tools": {}}}, True),
        ({"method": "elicitation/create", "params": {}}, {"elicitation": {}}, True),
        ({"method": "elicitation/create", "params": {"mode": "form"}}, {"elicitation": {"form": {}}}, True),
        ({"method": "elicitation/create", "params": {}}, {"elicitation": {"url": {}}}, False),
        ({"method": "elicitation/create", "params": {"mode": "url"}}, {"elicitation": {}}, False),
        ({"method": "elicitation/create", "params": {"mode": "url"}}, {"elicitation": {"url": {}}}, True),
        ({"method": "elicitation/create", "params": {"mode": "x"}}, {"elicitation": {"url": {}, "x": {}}}, False),
        ({"method": "elicitation/create", "params": {"mode": ["url"]}}, EVERYTHING, False),
    ],
)
def test_input_needs_what_was_declared(request_: dict[str, Any], capabilities: Any, passes: bool) -> None:
    """Rules 3.3 and 7.12: the same for a request inside a result, inside a task, and of its own."""
    for method, result in (
        ("tools/call", {"resultType": "input_required", "inputRequests": {"a": request_}}),
        ("tasks/get", {"resultType": "complete", "status": "input_required", "inputRequests": {"a": request_}}),
    ):
        assert judge(result, method, capabilities) is None if passes else refused(result, method, capabilities)
    of_its_own = check_server_request(REVISIONS["2025-11-25"], capabilities, request_["method"], request_.get("params"))
    assert of_its_own is passes


def test_tasks_need_the_extension() -> None:
    """Rules 7.1 and 11.4."""
    task = {"resultType": "task", "taskId": "t", "status": "working"}
    assert judge(task) is None
    for capabilities in ({}, {"tasks": {}}, {"extensions": {}}, {"extensions": {TASKS_EXTENSION: None}}):
        assert refused(task, capabilities=capabilities)
    assert refused(task, "prompts/get")
    assert refused({"resultType": "task"})
    assert refused({"resultType": "task", "taskId": 7})


def test_servers_that_were_written_by_the_examples_are_corrected() -> None:
    task = {"taskId": "t", "status": "completed", "result": {}}
    assert judge({"resultType": "task", **task}, "tasks/get") == {"resultType": "complete", **task}
    assert refused({"resultType": "task", **task, "inputRequests": ASK}, "tasks/get", capabilities={})


def test_the_end_of_a_subscription_names_it() -> None:
    for id, named, passes in ((1, 1, True), (1, "1", False), (1, True, False), ("1", "1", True), (1, None, False)):
        result = {"resultType": "complete", "_meta": {SUBSCRIPTION_ID: named}}
        if passes:
            assert check_result(MODERN, Call(id, "subscriptions/listen"), {}, {}, result) is None
        else:
            with pytest.raises(UpstreamProtocolError):
                check_result(MODERN, Call(id, "subscriptions/listen"), {}, {}, result)


def test_url_elicitation_required_is_one_revisions_own() -> None:
    """Rules 7.22 and 7.23."""
    for name in SUPPORTED:
        assert check_error(REVISIONS[name], {"code": -32042, "message": ""}) is (name == "2025-11-25")
        assert check_error(REVISIONS[name], {"code": -32002, "message": ""})
        assert check_error(REVISIONS[name], {"code": 1, "message": ""})
    assert not check_error(None, {"code": -32042, "message": ""})


# -- requests and notifications of the server ---------------------------------------------------------------------------


def test_requests_exist_where_the_official_sdk_has_them() -> None:
    methods = {name for name, _ in SERVER_REQUESTS}
    for name in SUPPORTED:
        passing = {method for method in methods if check_server_request(REVISIONS[name], EVERYTHING, method)}
        assert passing == {method for method, version in SERVER_REQUESTS if version == name}


def test_requests_that_do_not_pass() -> None:
    revision = REVISIONS["2025-11-25"]
    assert check_server_request(revision, {}, "ping")
    assert not check_server_request(revision, {}, "roots/list")
    assert check_server_request(revision, {"tasks": {}}, "tasks/get")
    assert not check_server_request(revision, {"tasks": {}}, "tasks/list")
    assert not check_server_request(REVISIONS["2025-06-18"], EVERYTHING, "tasks/get")
    assert not check_server_request(revision, EVERYTHING, "tools/call")
    assert not check_server_request(revision, EVERYTHING, "ui/open-link")
    assert not check_server_request(None, EVERYTHING, "ui/initialize")
    assert check_server_request(revision, {}, "x/extension")  # the policy names it or not
    assert not check_server_request(MODERN, EVERYTHING, "x/extension")


def notified(name: str | None, method: str, stream: Any = "post", params: Any = None, **meta: Any) -> bool:
    revision = None if name is None else REVISIONS[name]
    call = None if stream == "get" else Call(1, "subscriptions/listen" if stream == "listen" else "tools/call")
    return check_notification(revision, call, {"_meta": meta}, params or {}, method, stream)


def test_notifications_exist_where_the_official_sdk_has_them() -> None:
    methods = {name for name, _ in SERVER_NOTIFICATIONS}
    for name in LEGACY:
        for stream in ("post", "get"):
            passing = {method for method in methods if notified(name, method, stream)}
            assert passing == {method for method, version in SERVER_NOTIFICATIONS if version == name}
    assert notified("2025-11-25", "notifications/tasks/status")
    assert not notified("2025-06-18", "notifications/tasks/status")
    assert not notified("2025-11-25", "notifications/tasks")
    assert not notified("2025-11-25", "notifications/initialized")
    assert not notified("2025-11-25", "tools/call")
    assert notified(None, "notifications/message")
    for name in (*SUPPORTED, None):
        assert not notified(name, "ui/notifications/tool-input")
    for name in LEGACY:
        assert notified(name, "notifications/x-extension")


def test_a_stateless_answer_carries_what_belongs_to_its_request() -> None:
    """Rules 7.2, 7.3, 7.25."""
    name = "2026-07-28"
    assert notified(name, "notifications/message", **{LOG_LEVEL: "info"})
    assert not notified(name, "notifications/message")
    assert not notified(name, "notifications/message", **{LOG_LEVEL: None})
    for token, told, passes in ((1, 1, True), ("a", "a", True), (1, "1", False), (1, True, False), (None, None, False)):
        assert notified(name, "notifications/progress", params={"progressToken": told}, progressToken=token) is passes
    for method in (
        "notifications/tools/list_changed",
        "notifications/resources/updated",
        "notifications/cancelled",
        "notifications/tasks",
        "notifications/subscriptions/acknowledged",
        "notifications/elicitation/complete",
    ):
        assert not notified(name, method, **{LOG_LEVEL: "info"})
    assert notified(name, "notifications/x-extension")
    assert not notified(name, "notifications/message", "get", **{LOG_LEVEL: "info"})
    assert not check_notification(MODERN, Call(1, "tools/call"), {"_meta": "text"}, {}, "notifications/message", "post")


# -- subscriptions ----------------------------------------------------------------------------------------------------

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
WANTED = {
    "toolsListChanged": True,
    "promptsListChanged": False,
    "resourceSubscriptions": ["file:///a", "file:///d/", 7],
}


def named(id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"_meta": {SUBSCRIPTION_ID: id}, **params}


def subscription(wanted: Any = None, id: Any = 1, acknowledged: bool = True) -> Subscription:
    params = {"notifications": WANTED if wanted is None else wanted, "_meta": {LOG_LEVEL: "debug", "progressToken": 1}}
    opened = Subscription(Call(id, "subscriptions/listen"), params)
    if acknowledged:
        assert opened.admits(ACKNOWLEDGED, named(id))
    return opened


def test_the_acknowledgement_comes_first_and_once() -> None:
    """Rule 7.7."""
    opened = subscription(acknowledged=False)
    assert not opened.admits("notifications/tools/list_changed", named())
    assert not opened.admits(ACKNOWLEDGED, named("1"))
    assert not opened.admits(ACKNOWLEDGED, {})
    assert opened.admits(ACKNOWLEDGED, named(notifications={}))
    assert opened.admits("notifications/tools/list_changed", named())
    assert not opened.admits(ACKNOWLEDGED, named())
    assert opened.admits("notifications/tools/list_changed", named())


@pytest.mark.parametrize("id", [1, 0, -1, "1", "", "a"])
def test_every_message_names_the_subscription(id: Any) -> None:
    """Rule 7.7."""
    for told in (1, 0, -1, "1", "", "a", True, False, None, 1.0):
        same = type(told) is type(id) and told == id
        assert subscription(id=id).admits("notifications/tools/list_changed", named(told)) is same
        assert subscription(id=id).admits("notifications/cancelled", {"requestId": told}) is same


@pytest.mark.parametrize(
    ("method", "params", "passes"),
    [
        ("notifications/tools/list_changed", {}, True),
        ("notifications/prompts/list_changed", {}, False),
        ("notifications/resources/list_changed", {}, False),
        ("notifications/resources/updated", {"uri": "file:///a"}, True),
        ("notifications/resources/updated", {"uri": "file:///a/b"}, True),
        ("notifications/resources/updated", {"uri": "file:///a#b"}, True),
        ("notifications/resources/updated", {"uri": "file:///ab"}, False),
        ("notifications/resources/updated", {"uri": "file:///d/e"}, True),
        ("notifications/resources/updated", {"uri": "file:///d"}, False),
        ("notifications/resources/updated", {"uri": 7}, False),
        ("notifications/resources/updated", {}, False),
        ("notifications/tasks", {"taskId": "t"}, False),
        ("notifications/message", {}, False),
        ("notifications/progress", {"progressToken": 1}, False),
        ("notifications/x-extension", {}, False),
        ("notifications/elicitation/complete", {}, False),
    ],
)
def test_only_what_was_subscribed_to(method: str, params: dict[str, Any], passes: bool) -> None:
    """Rule 7.8."""
    assert subscription().admits(method, named(**params)) is passes
    request = {"notifications": WANTED}
    listen = Call(1, "subscriptions/listen")
    assert check_notification(MODERN, listen, request, named(**params), method, "listen") is passes


def test_subscriptions_to_tasks() -> None:
    opened = subscription({"taskIds": ["t1"]})
    assert opened.admits("notifications/tasks", named(taskId="t1"))
    for task in ("t2", None, ["t1"]):
        assert not opened.admits("notifications/tasks", named(taskId=task))
    for wanted in ({"taskIds": "t1"}, {"toolsListChanged": 1}, [], "text"):
        assert not subscription(wanted).admits("notifications/tasks", named(taskId="t1"))
        assert not subscription(wanted).admits("notifications/tools/list_changed", named())
