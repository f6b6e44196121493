from __future__ import annotations

from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, SERVER_NOTIFICATIONS, SERVER_REQUESTS

from gateway.protocol.headers import NAME_MEMBERS
from gateway.protocol.message import Sender
from gateway.protocol.methods import LIFECYCLE, METHODS
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
