from __future__ import annotations

from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, SERVER_NOTIFICATIONS, SERVER_REQUESTS

from gateway.protocol.headers import NAME_MEMBERS
from gateway.protocol.message import Sender
from gateway.protocol.methods import LIFECYCLE, METHODS, exists, method_known, missing_capability
from gateway.protocol.revisions import REVISIONS, SUPPORTED
from gateway.wire.envelope import Kind


def test_every_method_of_every_revision_is_known() -> None:
    for table, sender, kind in (
        (CLIENT_REQUESTS, Sender.CLIENT, Kind.REQUEST),
        (CLIENT_NOTIFICATIONS, Sender.CLIENT, Kind.NOTIFICATION),
        (SERVER_REQUESTS, Sender.SERVER, Kind.REQUEST),
        (SERVER_NOTIFICATIONS, Sender.SERVER, Kind.NOTIFICATION),
    ):
        for name, _ in table:
            assert sender in METHODS[name].senders, name
            assert METHODS[name].kind is kind, name


def test_no_method_is_made_up() -> None:
    sdk = {
        name
        for table in (CLIENT_REQUESTS, CLIENT_NOTIFICATIONS, SERVER_REQUESTS, SERVER_NOTIFICATIONS)
        for name, _ in table
    }
    # The SDK leaves tasks out: those of 2025-11-25 and of the extension.
    tasks = {name for name in METHODS if name.startswith(("tasks/", "notifications/tasks"))}
    assert set(METHODS) - tasks == sdk


def test_names_are_where_the_headers_mirror_them_from() -> None:
    for method, member in NAME_MEMBERS.items():
        assert METHODS[method].name == member


def test_lifecycle_is_part_of_the_protocol() -> None:
    assert set(METHODS) >= LIFECYCLE


def test_methods_are_those_of_the_official_sdk_in_every_revision() -> None:
    for tables, sender in (
        ((CLIENT_REQUESTS, CLIENT_NOTIFICATIONS), Sender.CLIENT),
        ((SERVER_REQUESTS, SERVER_NOTIFICATIONS), Sender.SERVER),
    ):
        sdk = {pair for table in tables for pair in table}
        for method in METHODS:
            if method.startswith(("tasks/", "notifications/tasks")):
                continue
            ours = {name for name in SUPPORTED if exists(method, REVISIONS[name], sender)}
            assert ours == {version for name, version in sdk if name == method}, method
            assert exists(method, None, sender) is bool(ours)


def test_tasks_of_two_kinds() -> None:
    """Rules 11.1, 11.4: those of 2025-11-25, which either side may run, and those of the extension."""
    tasks = {name for name in METHODS if name.startswith(("tasks/", "notifications/tasks"))}

    def of(name: str, sender: Sender) -> set[str]:
        return {method for method in tasks if exists(method, REVISIONS[name], sender)}

    both = {"tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "notifications/tasks/status"}
    assert of("2025-11-25", Sender.CLIENT) == of("2025-11-25", Sender.SERVER) == both
    assert of("2026-07-28", Sender.CLIENT) == {"tasks/get", "tasks/update", "tasks/cancel"}
    assert of("2026-07-28", Sender.SERVER) == {"notifications/tasks"}
    assert not of("2025-06-18", Sender.CLIENT) | of("2025-06-18", Sender.SERVER)


def test_removed_methods_are_not_known() -> None:
    """Rule 6.22."""
    modern, legacy = REVISIONS["2026-07-28"], REVISIONS["2025-11-25"]
    removed = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    for method in removed:
        assert not method_known(modern, method)
        assert method_known(legacy, method)
    for method in ("server/discover", "subscriptions/listen", "tasks/update"):
        assert method_known(modern, method)
        assert not method_known(legacy, method)
    assert not method_known(legacy, "sampling/createMessage")
    assert method_known(modern, "x/extension")
    assert method_known(None, "initialize")
    assert not exists("x/extension", None)


def test_capabilities_are_asked_for_what_servers_may_ask() -> None:
    for method, known in METHODS.items():
        asks = Sender.SERVER in known.senders and known.kind is Kind.REQUEST and method != "ping"
        assert (known.capability is not None) is asks, method
        assert missing_capability(method, {}, {}) == known.capability
    assert missing_capability("x/extension", {}, {}) is None
    assert missing_capability("roots/list", {}, {"roots": None}) == "roots"
    assert missing_capability("tasks/list", {}, {"tasks": True}) == "tasks.list"
