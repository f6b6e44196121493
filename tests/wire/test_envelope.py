"""Which of the four shapes a document has, or why it has none."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.envelope import MAX_SAFE_INTEGER, Envelope, Kind, classify, is_request_id
from gateway.wire.errors import EnvelopeError

V = {"jsonrpc": "2.0"}


@pytest.mark.parametrize(
    ("members", "envelope"),
    [
        ({"id": 1, "method": "m"}, Envelope(Kind.REQUEST, 1, "m")),
        ({"id": "", "method": "m", "params": {}}, Envelope(Kind.REQUEST, "", "m")),
        ({"id": -MAX_SAFE_INTEGER, "method": "m"}, Envelope(Kind.REQUEST, -MAX_SAFE_INTEGER, "m")),
        ({"method": "m"}, Envelope(Kind.NOTIFICATION, None, "m")),
        ({"id": 0, "result": {}}, Envelope(Kind.RESULT, 0, None)),
        ({"id": 1, "error": {"code": 1, "message": "m", "data": [1]}}, Envelope(Kind.ERROR, 1, None)),
        ({"id": None, "error": {"code": 1, "message": "m"}}, Envelope(Kind.ERROR, None, None)),
        ({"error": {"code": 1, "message": "m"}}, Envelope(Kind.ERROR, None, None)),
    ],
)
def test_shapes(members: dict[str, Any], envelope: Envelope) -> None:
    assert classify(V | members) == envelope


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "batch"),
        ([V], "batch"),
        (1, "not-an-object"),
        (None, "not-an-object"),
        ({}, "jsonrpc-version"),
        ({"jsonrpc": 2.0, "method": "m"}, "jsonrpc-version"),
        ({"jsonrpc": "2", "method": "m"}, "jsonrpc-version"),
        (V, "no-shape"),
        (V | {"id": 1}, "no-shape"),
        (V | {"method": "m", "result": {}}, "unexpected-member"),
        (V | {"method": "m", "Method": "m"}, "unexpected-member"),
        (V | {"method": ""}, "method-type"),
        (V | {"method": ["m"]}, "method-type"),
        (V | {"method": "m", "params": []}, "params-type"),
        (V | {"method": "m", "params": None}, "params-type"),
        (V | {"method": "m", "id": None}, "id-type"),
        (V | {"method": "m", "id": True}, "id-type"),
        (V | {"method": "m", "id": 1.0}, "id-type"),
        (V | {"method": "m", "id": {}}, "id-type"),
        (V | {"method": "m", "id": MAX_SAFE_INTEGER + 1}, "id-type"),
        (V | {"id": 1, "result": {}, "error": {}}, "result-and-error"),
        (V | {"id": 1, "result": {}, "x": 1}, "unexpected-member"),
        (V | {"id": 1, "result": []}, "result-type"),
        (V | {"result": {}}, "id-missing"),
        (V | {"id": None, "result": {}}, "id-type"),
        (V | {"id": 1, "error": {"code": 1, "message": "m"}, "params": {}}, "unexpected-member"),
        (V | {"id": 1, "error": "x"}, "error-shape"),
        (V | {"id": 1, "error": {"code": True, "message": "m"}}, "error-shape"),
        (V | {"id": 1, "error": {"code": 1}}, "error-shape"),
        (V | {"id": 1, "error": {"code": 1, "message": "m", "x": 1}}, "error-shape"),
        (V | {"id": [], "error": {"code": 1, "message": "m"}}, "id-type"),
    ],
)
def test_what_has_no_shape(document: Any, reason: str) -> None:
    """Rules 2.12, 2.14, 2.16 and 2.19."""
    with pytest.raises(EnvelopeError) as caught:
        classify(document)
    assert caught.value.reason == reason


def test_messages_name_members_safely() -> None:
    with pytest.raises(EnvelopeError, match=r"'\\x1b\[31m'"):
        classify(V | {"method": "m", "\x1b[31m": 1})


def test_request_ids() -> None:
    """Rule 2.12."""
    assert is_request_id("") and is_request_id(0)
    assert not any(map(is_request_id, (None, True, 0.0, [], MAX_SAFE_INTEGER + 1)))
