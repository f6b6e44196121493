from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.protocol import headers
from gateway.protocol.errors import BadRequest, HeaderMismatch, NotAcceptable, UnsupportedMediaType


@given(st.text())
def test_any_name_survives_the_header(text):
    """Rule 6.8: what is written is clean ASCII and reads back as it was."""
    value = headers.encode_mirrored(text)
    assert headers.is_clean(value)
    assert value == value.strip(" ")
    assert headers.decode_mirrored(value) == text


@pytest.mark.parametrize("value", ["get_weather", "", "a b", "=?BASE64?eA==?=", "=?base64?eA==", "eA==?="])
def test_what_is_not_the_sentinel_is_literal(value):
    assert headers.decode_mirrored(value) == value


@pytest.mark.parametrize(
    "payload",
    ["@@@", "eA=", "eA", "eB==", "_-==", "/w==", "e A==", "eA==eA=="],
)
def test_base64_that_is_not_canonical_is_refused(payload):
    with pytest.raises(HeaderMismatch):
        headers.decode_mirrored(f"=?base64?{payload}?=")


def mirrored(**fields: str) -> headers.McpFields:
    return headers.McpFields(CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}))


def test_mirrored_headers():
    headers.check_mirrored(mirrored(mcp_method="tools/call", MCP_NAME="x"), "tools/call", {"name": "x"})
    headers.check_mirrored(mirrored(Mcp_Method="tools/list"), "tools/list", {})
    headers.check_mirrored(mirrored(Mcp_Method="tasks/get", Mcp_Name="t"), "tasks/get", {"taskId": "t"})  # rule 6.7
    for fields, method, params in (
        (mirrored(), "tools/list", {}),
        (mirrored(Mcp_Method="Tools/list"), "tools/list", {}),
        (mirrored(Mcp_Method="tools/call"), "tools/call", {"name": "x"}),
        (mirrored(Mcp_Method="resources/read", Mcp_Name="a://c"), "resources/read", {"uri": "a://b"}),
    ):
        with pytest.raises(HeaderMismatch):
            headers.check_mirrored(fields, method, params)
    with pytest.raises(BadRequest):
        headers.check_mirrored(mirrored(Mcp_Method="tools/call", Mcp_Name="x"), "tools/call", {"name": ["x"]})


def test_params_are_forwarded_and_the_rest_is_not():
    """Rule 6.14."""
    fields = CIMultiDict({"mcp-param-City": "Oslo", "X-Other": "1", "Mcp-Session-Id": "s"})
    assert headers.param_fields(fields) == {"mcp-param-City": "Oslo"}
    with pytest.raises(HeaderMismatch):
        headers.param_fields(CIMultiDict([("Mcp-Param-A", "1"), ("mcp-param-a", "2")]))
    with pytest.raises(HeaderMismatch):
        headers.param_fields(CIMultiDict({"Mcp-Param-A": "\udcff"}))


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0.5,application/json;q=0.9", True),
        ("*/*", True),
        ("application/*, text/*", True),
        ("APPLICATION/JSON, Text/Event-Stream", True),
        ("application/json", False),
        ("text/event-stream", False),
        ("application/json, text/event-stream;q=0", False),
        ("application/json, text/event-stream;q=0.000", False),
        ("application/jsonp, text/event-streams", False),
        ("", False),
    ],
)
def test_accept(accept, accepted):
    """Rule 2.2."""
    fields = CIMultiDict({"Accept": accept})
    if accepted:
        headers.check_accept(fields, "application/json", "text/event-stream")
    else:
        with pytest.raises(NotAcceptable):
            headers.check_accept(fields, "application/json", "text/event-stream")


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/json; charset=utf-16", False),
        ("application/json-rpc", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_content_type(value, accepted):
    """Rules 2.3 and 2.22."""
    fields = CIMultiDict({"Content-Type": value})
    if accepted:
        headers.check_content_type(fields)
    else:
        with pytest.raises(UnsupportedMediaType):
            headers.check_content_type(fields)


@pytest.mark.parametrize("name", headers.SINGLE_FIELDS)
def test_fields_that_may_stand_once(name):
    """Rule 6.18."""
    fields = CIMultiDict([(name, "a"), (name.lower(), "a")])
    with pytest.raises(HeaderMismatch):
        headers.check_single(fields)


@pytest.mark.parametrize(
    ("id", "valid"),
    [("abc", True), ("!~", True), ("", False), ("a b", False), ("a\x7f", False), ("é", False), ("x" * 2000, False)],
)
def test_session_ids(id, valid):
    """Rule 3.4."""
    assert headers.is_session_id(id) is valid
