from __future__ import annotations

import inspect

import pytest

from gateway.protocol import errors
from gateway.wire.errors import EnvelopeError, JsonRefused, JsonSyntaxError, LimitExceeded, PeerError, SseError

LEAVES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, errors.GatewayError) and hasattr(each, "status")
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_codes(leaf):
    """Rule 2.17: the specification's own codes, or outside of what JSON-RPC reserves."""
    assert 200 <= leaf.status <= 599
    assert leaf.code in (-32700, -32600, -32601, -32602, -32020, -32021, -32022) or not -32768 <= leaf.code <= -32000
    assert leaf.__doc__


def test_the_document_of_an_error():
    error = errors.PolicyDenied("no", reason="tool-not-allowed", key="policies.a.allowed_tools", data={"n": 1})
    assert error.to_document("x", "r-1") == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": -31403,
            "message": "no",
            "data": {
                "origin": "gateway", "reason": "tool-not-allowed", "key": "policies.a.allowed_tools", "request": "r-1", "n": 1,
            },
        },
    }  # fmt: skip
    assert "id" not in error.to_document(None)  # rule 2.15
    assert error.to_document(0)["id"] == 0


@pytest.mark.parametrize(
    ("error", "of_client", "of_upstream"),
    [
        (JsonSyntaxError("syntax", "m"), (400, -32700), (502, -31502)),
        (JsonRefused("duplicate-member", "m"), (400, -32600), (502, -31502)),
        (EnvelopeError("batch", "m"), (400, -32600), (502, -31502)),
        (LimitExceeded("depth", "m", limit="limits.json_depth"), (400, -32600), (502, -31502)),
        (LimitExceeded("too-large", "m", limit="limits.max_message_size"), (413, -31413), (502, -31502)),
        (SseError("x", "m"), (400, -32600), (502, -31502)),
    ],
)
def test_who_is_at_fault(error: PeerError, of_client, of_upstream):
    client, upstream = errors.from_client(error), errors.from_upstream(error)
    assert (client.status, client.code) == of_client
    assert (upstream.status, upstream.code) == of_upstream
    assert client.key == error.limit
