from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import InvalidParams, UpstreamProtocolError
from gateway.protocol.methods import METHODS
from gateway.protocol.revisions import REVISIONS
from gateway.protocol.tasks import TaskOwners

MODERN = REVISIONS["2026-07-28"]


def started(task: Any, modern: bool = False) -> dict[str, Any]:
    result = {"resultType": "task", "taskId": task} if modern else {"task": {"taskId": task, "status": "working"}}
    return {"jsonrpc": "2.0", "id": 1, "result": result}


def owners(capacity: int = 100, ttl: float = 60) -> TaskOwners:
    return TaskOwners(capacity, ttl)


def is_own(ledger: TaskOwners, client: str, task: Any, now: float = 0, upstream: str = "up") -> bool:
    try:
        ledger.check(client, upstream, task, now)
    except InvalidParams:
        return False
    return True


@pytest.mark.parametrize("modern", [False, True])
def test_a_task_answers_to_the_client_that_started_it(modern: bool) -> None:
    """Rules 9.3, 11.2 and 11.5."""
    ledger = owners()
    ledger.learn("alice", "up", started("t1", modern), 0)
    assert is_own(ledger, "alice", "t1")
    assert not is_own(ledger, "bob", "t1")
    assert not is_own(ledger, "alice", "t1", upstream="other")
    assert not is_own(ledger, "alice", "t2")
    for task in (None, 1, ["t1"], {"t1": 1}):
        assert not is_own(ledger, "alice", task)


def test_unknown_and_anothers_are_the_same() -> None:
    """Rule 11.2: nothing tells whether the id exists; the status is that of any -32602 in the revision."""
    ledger = owners()
    ledger.learn("alice", "up", started("t1"), 0)
    for revision, status in ((None, 200), (REVISIONS["2025-11-25"], 200), (MODERN, 400)):
        answers = []
        for task in ("t1", "none"):
            with pytest.raises(InvalidParams) as caught:
                ledger.check("bob", "up", task, 0, revision=revision)
            assert caught.value.status == status
            answers.append(caught.value.to_document(7, "r"))
        assert answers[0] == answers[1]
        assert answers[0]["error"]["code"] == -32602


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"error": {"code": 1, "message": "no"}},
        {"result": {}},
        {"result": []},
        {"result": {"task": "t1"}},
        {"result": {"task": {"taskId": 1}}},
        {"result": {"taskId": "t1"}},
        {"result": {"resultType": "complete", "taskId": "t1"}},
        {"result": {"resultType": "task", "task": {"taskId": "t1"}}},
        {"result": {"content": [{"task": {"taskId": "t1"}}]}},
    ],
)
def test_other_answers_start_nothing(document: dict[str, Any]) -> None:
    ledger = owners()
    ledger.learn("alice", "up", document, 0)
    assert len(ledger) == 0


def test_an_id_is_given_out_once() -> None:
    ledger = owners(ttl=60)
    ledger.learn("alice", "up", started("t1"), 0)
    ledger.learn("alice", "up", started("t1"), 1)
    ledger.learn("bob", "other", started("t1"), 1)
    with pytest.raises(UpstreamProtocolError):
        ledger.learn("bob", "up", started("t1"), 30)
    assert is_own(ledger, "alice", "t1", 30)
    ledger.learn("bob", "up", started("t1"), 91)
    assert is_own(ledger, "bob", "t1", 91)
    assert not is_own(ledger, "alice", "t1", 91)
    assert len(ledger) == 1  # the one on the other upstream had run out, too


def test_use_keeps_a_task() -> None:
    ledger = owners(ttl=60)
    ledger.learn("alice", "up", started("used"), 0)
    ledger.learn("alice", "up", started("idle"), 0)
    assert is_own(ledger, "alice", "used", 50)
    assert is_own(ledger, "alice", "used", 100)
    assert not is_own(ledger, "alice", "idle", 100)
    ledger.learn("alice", "up", started("new"), 100)
    assert len(ledger) == 2


def test_no_client_pushes_anothers_tasks_out() -> None:
    ledger = owners(capacity=10)
    for number in range(3):
        ledger.learn("alice", "up", started(f"a{number}"), number)
    for number in range(50):
        ledger.learn("mallory", "up", started(f"m{number}"), 3 + number)
    assert len(ledger) == 10
    assert [is_own(ledger, "alice", f"a{number}", 53) for number in range(3)] == [True] * 3
    assert [number for number in range(50) if is_own(ledger, "mallory", f"m{number}", 53)] == list(range(43, 50))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["t1", "t2", "t3", "t4"]), st.integers(0, 30)), max_size=30
    ),
    st.integers(1, 4),
)
def test_a_task_has_one_owner_and_memory_a_bound(steps: list[tuple[str, str, int]], capacity: int) -> None:
    ledger = owners(capacity, ttl=40)
    now = 0
    for client, task, wait in steps:
        now += wait
        try:
            ledger.learn(client, "up", started(task), now)
        except UpstreamProtocolError:
            assert not is_own(ledger, client, task, now)
        else:
            assert is_own(ledger, client, task, now)
        assert sum(is_own(ledger, each, task, now) for each in "abc") == 1
        assert len(ledger) <= capacity


def test_requests_are_checked_by_what_they_name() -> None:
    ledger = owners()
    ledger.learn("alice", "up", started("t1"), 0)
    for method, known in METHODS.items():
        if known.name == "taskId":
            ledger.check_request("alice", "up", method, {"taskId": "t1"}, 0)
            for params in ({"taskId": "t2"}, {}, {"taskId": None}):
                with pytest.raises(InvalidParams):
                    ledger.check_request("alice", "up", method, params, 0)
    ledger.check_request("alice", "up", "tools/call", {"name": "t", "taskId": "t2"}, 0)
    ledger.check_request("alice", "up", "tasks/list", {}, 0)


def test_a_subscription_to_tasks_is_checked_like_reading_them() -> None:
    ledger = owners()
    ledger.learn("alice", "up", started("t1"), 0)

    def listen(client: str, wanted: Any) -> None:
        ledger.check_request(client, "up", "subscriptions/listen", {"notifications": wanted}, 0, revision=MODERN)

    listen("alice", {"taskIds": ["t1"], "toolsListChanged": True})
    listen("bob", {"taskIds": []})
    listen("bob", {"resourceSubscriptions": ["t1"]})
    listen("bob", None)
    for client, wanted in (
        ("bob", {"taskIds": ["t1"]}),
        ("alice", {"taskIds": ["t1", "t2"]}),
        ("alice", {"taskIds": "t1"}),
        ("alice", {"task_ids": ["t1"]}),
        ("alice", {"TaskIDs": ["t1"]}),
    ):
        with pytest.raises(InvalidParams):
            listen(client, wanted)


def test_a_list_shows_the_clients_own() -> None:
    ledger = owners()
    for client, task in (("alice", "a1"), ("bob", "b1"), ("alice", "a2")):
        ledger.learn(client, "up", started(task), 0)
    tasks = [{"taskId": task} for task in ("a2", "b1", "x", "a1")]
    page = {"tasks": [*tasks, "a1", {}, {"taskId": ["a1"]}], "nextCursor": "n", "_meta": {}}
    assert ledger.filter_list("alice", "up", page) == {
        "tasks": [{"taskId": "a2"}, {"taskId": "a1"}],
        "nextCursor": "n",
        "_meta": {},
    }
    assert ledger.filter_list("carol", "up", page) == {"tasks": [], "nextCursor": "n", "_meta": {}}
    assert ledger.filter_list("bob", "up", {"tasks": [{"taskId": "b1"}]}) is None
    assert ledger.filter_list("bob", "up", {}) is None
    for malformed in ({"tasks": {}}, {"tasks": [], "Tasks": []}, {"TASKS": [{"taskId": "b1"}]}):
        with pytest.raises(UpstreamProtocolError):
            ledger.filter_list("alice", "up", malformed)


def test_notifications_reach_the_owner_only() -> None:
    ledger = owners()
    ledger.learn("alice", "up", started("t1"), 0)
    assert ledger.owns_notification("alice", "up", {"taskId": "t1", "status": "completed"})
    for client, params in (
        ("bob", {"taskId": "t1"}),
        ("alice", {"taskId": "t2"}),
        ("alice", {}),
        ("alice", {"taskId": []}),
    ):
        assert not ledger.owns_notification(client, "up", params)


def test_ids_that_are_too_long_to_keep_are_refused():
    ledger = owners()
    with pytest.raises(UpstreamProtocolError):
        ledger.learn("alice", "up", started("x" * 1025), 0)
    assert len(ledger) == 0
    ledger.learn("alice", "up", started("x" * 1024), 0)
    assert is_own(ledger, "alice", "x" * 1024)
