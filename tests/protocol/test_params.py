from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from multidict import CIMultiDict

from gateway.protocol.errors import HeaderMismatch
from gateway.protocol.params import ToolHeaders, without_invalid

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "query": {"type": "string"},
        "where": {"type": "object", "properties": {"tenant": {"type": "string", "x-mcp-header": "Tenant"}}},
    },
}


def listing(*tools: Any, **members: Any) -> dict[str, Any]:
    return {"tools": list(tools), **members}


def tool(name: Any = "sql", schema: Any = SCHEMA) -> dict[str, Any]:
    return {"name": name, "inputSchema": schema}


def known(*tools: Any) -> ToolHeaders:
    headers = ToolHeaders()
    assert headers.learn(listing(*(tools or [tool()]))) == []
    return headers


def annotated(**schema: Any) -> dict[str, Any]:
    return {"properties": {"a": schema}}


# -- annotations (rule 6.17) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        annotated(**{"type": "string", "x-mcp-header": ""}),
        annotated(**{"type": "string", "x-mcp-header": "a b"}),
        annotated(**{"type": "string", "x-mcp-header": "a\r\nX: 1"}),
        annotated(**{"type": "string", "x-mcp-header": "a\n"}),
        annotated(**{"type": "string", "x-mcp-header": "é"}),
        annotated(**{"type": "string", "x-mcp-header": 7}),
        annotated(**{"type": "string", "x-mcp-header": None}),
        annotated(**{"type": "number", "x-mcp-header": "A"}),
        annotated(**{"type": "object", "x-mcp-header": "A"}),
        annotated(**{"type": ["string", "null"], "x-mcp-header": "A"}),
        annotated(**{"x-mcp-header": "A"}),
        {"type": "string", "x-mcp-header": "Root"},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}},
        {"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}},
        {"properties": {"a": {"items": [{"type": "string", "x-mcp-header": "A"}]}}},
        {"properties": {"a": {"items": annotated(**{"type": "string", "x-mcp-header": "A"})}}},
        {"allOf": [annotated(**{"type": "string", "x-mcp-header": "A"})]},
        {"if": annotated(**{"type": "string", "x-mcp-header": "A"})},
        {"$defs": {"a": {"type": "string", "x-mcp-header": "A"}}},
        {"dependencies": {"b": annotated(**{"type": "string", "x-mcp-header": "A"})}},
        {"patternProperties": {"^a": {"type": "string", "x-mcp-header": "A"}}},
    ],
)
def test_a_tool_with_an_invalid_annotation_is_left_out(schema: Any) -> None:
    """Rule 6.17."""
    headers = known(tool("bad"))
    assert headers.learn(listing(tool("good"), tool("bad", schema))) == ["bad"]
    # It was valid before; nothing is checked or made by what it was.
    assert headers.emit(CIMultiDict(), "bad", {"region": "x"}) == {}
    headers.check(CIMultiDict(), "bad", {"region": "x"})
    page = listing(tool("good"), tool("bad", schema), tool("last", {}), nextCursor="n", ttlMs=1)
    assert without_invalid(page) == listing(tool("good"), tool("last", {}), nextCursor="n", ttlMs=1)
    assert without_invalid(listing(tool("bad", schema))) == listing()


@pytest.mark.parametrize(
    "schema",
    [SCHEMA, {}, None, True, [], {"properties": []}, {"properties": {"a": True}}, {"allOf": {}}, {"$defs": []},
     {"default": {"x-mcp-header": "A"}}, {"properties": {"a": {"enum": [{"x-mcp-header": "A"}]}}},
     {"properties": {"x-mcp-header": {"type": "string"}}}],
)  # fmt: skip
def test_a_tool_without_one_stays(schema: Any) -> None:
    assert ToolHeaders().learn(listing(tool("t", schema))) == []
    assert without_invalid(listing(tool("t", schema))) is None


@pytest.mark.parametrize("result", [{}, {"tools": None}, {"tools": ["x", None]}, {"tools": [{}, {"name": 1}]}])
def test_lists_that_are_none_are_left_alone(result: dict[str, Any]) -> None:
    assert ToolHeaders().learn(result) == []
    assert without_invalid(result) is None


_KEYWORDS = ("items", "contains", "not", "if", "additionalProperties")
_LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"]])},
    optional={"x-mcp-header": st.sampled_from(["A", "a", "B", "C-c", "", "x y", 3, None])},
)


def _larger(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "c"])
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, schemas, max_size=3),
            "$defs": st.dictionaries(names, schemas, max_size=2),
            "oneOf": st.lists(schemas, max_size=2),
            "default": st.just({"x-mcp-header": "D"}),
            **dict.fromkeys(_KEYWORDS, schemas),
        },
    )


SCHEMAS = st.recursive(_LEAVES, _larger, max_leaves=8)
ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda values: st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3),
    max_leaves=6,
)


@given(SCHEMAS)
def test_the_official_sdk_agrees_on_what_is_invalid(schema: Any) -> None:
    invalid = find_invalid_x_mcp_header(schema) is not None
    assert ToolHeaders().learn(listing(tool("t", schema))) == ["t"] * invalid
    assert (without_invalid(listing(tool("t", schema))) is not None) is invalid


# -- comparing (rules 6.10, 6.15, 6.16) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"Mcp-Param-Region": "us-west1"}, {"region": "us-west1"}),
        ({"mcp-param-region": "us-west1"}, {"region": "us-west1", "query": "SELECT"}),
        ({"Mcp-Param-Region": "=?base64?SGVsbG8sIOS4lueVjA==?="}, {"region": "Hello, 世界"}),
        ({"Mcp-Param-Region": "=?BASE64?eA==?="}, {"region": "=?BASE64?eA==?="}),
        ({"Mcp-Param-Region": ""}, {"region": ""}),
        ({}, {}),
        ({}, {"region": None}),
        ({}, {"region": {"a": 1}}),
        ({}, None),
        ({}, ["region"]),
        ({"Mcp-Param-Tenant": "t"}, {"where": {"tenant": "t"}}),
        ({}, {"where": "tenant"}),
        ({"Mcp-Param-Dry": "true"}, {"dry": True}),
        ({"Mcp-Param-Dry": "false"}, {"dry": False}),
        ({"Mcp-Param-Count": "42"}, {"count": 42}),
        ({"Mcp-Param-Count": "42.0"}, {"count": 42}),
        ({"Mcp-Param-Count": "42"}, {"count": 42.0}),
        ({"Mcp-Param-Count": "-7"}, {"count": -7}),
        ({"Mcp-Param-Count": "9007199254740993"}, {"count": 9007199254740993}),
        ({"Mcp-Param-Unknown": "x"}, {}),
    ],
)
def test_fields_that_say_what_the_arguments_say(fields: dict[str, str], arguments: Any) -> None:
    """Rules 6.15 and 6.16."""
    known().check(CIMultiDict(fields), "sql", arguments)


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"Mcp-Param-Region": "us-west1"}, {"region": "us-east1"}),
        ({"Mcp-Param-Region": "US-WEST1"}, {"region": "us-west1"}),
        ({"Mcp-Param-Region": "us-west1"}, {}),
        ({"Mcp-Param-Region": "us-west1"}, {"region": None}),
        ({"Mcp-Param-Region": "null"}, {"region": None}),
        ({"Mcp-Param-Region": "x"}, {"region": ["x"]}),
        ({"Mcp-Param-Region": ""}, {}),
        ({}, {"region": "us-west1"}),
        ({}, {"region": ""}),
        ({}, {"dry": False}),
        ({}, {"count": 0}),
        ({}, {"where": {"tenant": "t"}}),
        ({"Mcp-Param-Tenant": "t"}, {"tenant": "t"}),
        ({"Mcp-Param-Region": "=?base64?eA=?="}, {"region": "x"}),
        ({"Mcp-Param-Region": "\udcff"}, {"region": "\udcff"}),
        ({"Mcp-Param-Region": "a\tb"}, {"region": "a\tb"}),
        ({"Mcp-Param-Dry": "True"}, {"dry": True}),
        ({"Mcp-Param-Dry": "1"}, {"dry": True}),
        ({"Mcp-Param-Count": "1"}, {"count": True}),
        ({"Mcp-Param-Count": "42.5"}, {"count": 42}),
        ({"Mcp-Param-Count": "4.2e1"}, {"count": 42}),
        ({"Mcp-Param-Count": "+42"}, {"count": 42}),
        ({"Mcp-Param-Count": "٤٢"}, {"count": 42}),
        ({"Mcp-Param-Count": "9007199254740992"}, {"count": 9007199254740993}),
        ({"Mcp-Param-Count": "9" * 5000}, {"count": 1}),
    ],
)
def test_fields_that_contradict_the_arguments(fields: dict[str, str], arguments: Any) -> None:
    """Rules 6.10, 6.15 and 6.16."""
    with pytest.raises(HeaderMismatch):
        known().check(CIMultiDict(fields), "sql", arguments)


def test_a_recognised_field_stands_once() -> None:
    twice = CIMultiDict([("Mcp-Param-Region", "x"), ("mcp-param-region", "x")])
    with pytest.raises(HeaderMismatch) as caught:
        known().check(twice, "sql", {"region": "x"})
    assert caught.value.reason == "header-repeated"


def test_of_an_unknown_tool_nothing_is_checked() -> None:
    fields = CIMultiDict({"Mcp-Param-Region": "x"})
    known().check(fields, "other", {"region": "y"})
    assert known().emit(fields, "other", {"region": "y"}) == {"Mcp-Param-Region": "x"}


@given(SCHEMAS, ARGUMENTS, st.data())
def test_the_official_sdk_agrees_on_what_matches(schema: Any, arguments: Any, data: st.DataObject) -> None:
    if find_invalid_x_mcp_header(schema) is not None or not isinstance(arguments, dict):
        return
    tokens = list(x_mcp_header_map(schema).values())
    values = st.sampled_from(
        ["true", "false", "0", "1.0", "", *mcp_param_headers(x_mcp_header_map(schema), arguments).values()]
    )
    fields = (
        data.draw(st.dictionaries(st.sampled_from([f"Mcp-Param-{token}" for token in tokens]), values))
        if tokens
        else {}
    )
    refused = validate_mcp_param_headers(schema, arguments, fields) is not None
    headers = known(tool("t", schema))
    # Numbers with exponents have no form that all peers write, and are refused here.
    if "e" in "".join(fields.values()).replace("true", "").replace("false", ""):
        return
    try:
        headers.check(CIMultiDict(fields), "t", arguments)
    except HeaderMismatch:
        assert refused
    else:
        assert not refused


# -- making (rules 6.14, 6.19) --------------------------------------------------------------------------------------------


@given(SCHEMAS, ARGUMENTS)
def test_what_is_made_is_what_is_accepted(schema: Any, arguments: Any) -> None:
    headers = ToolHeaders()
    if headers.learn(listing(tool("t", schema))) or not isinstance(arguments, dict):
        return
    made = headers.emit(CIMultiDict(), "t", arguments)
    headers.check(CIMultiDict(made), "t", arguments)
    assert validate_mcp_param_headers(schema, arguments, made) is None


def test_what_goes_upstream_is_made_from_the_arguments() -> None:
    """Rule 6.19."""
    fields = CIMultiDict({"mcp-param-REGION": "old", "Mcp-Param-Other": "x", "Mcp-Param-Dry": "true", "X-Region": "y"})
    arguments = {"region": "neu ö", "count": 7.0, "dry": None}
    assert known().emit(fields, "sql", arguments) == {
        "Mcp-Param-Region": "=?base64?bmV1IMO2?=",
        "Mcp-Param-Count": "7",
        "Mcp-Param-Other": "x",
    }
    with pytest.raises(HeaderMismatch):
        known().emit(CIMultiDict({"Mcp-Param-Other": "a\rb"}), "sql", {})


# -- what is remembered -------------------------------------------------------------------------------------------------


def test_pages_add_up_and_later_lists_replace() -> None:
    headers = known(tool("one"))
    headers.learn(listing(tool("two")))
    for name in ("one", "two"):
        with pytest.raises(HeaderMismatch):
            headers.check(CIMultiDict(), name, {"region": "x"})
    headers.learn(listing(tool("one", {"properties": {"region": {"type": "string"}}})))
    headers.check(CIMultiDict(), "one", {"region": "x"})
    with pytest.raises(HeaderMismatch):
        headers.check(CIMultiDict(), "two", {"region": "x"})


def test_memory_is_bounded() -> None:
    schema = annotated(**{"type": "string", "x-mcp-header": "A"})
    headers = ToolHeaders(capacity=140)  # 14 characters each: t000, Mcp-Param-A, a
    for number in range(100):
        headers.learn(listing(tool(f"t{number:03}", schema)))
    held = [number for number in range(100) if headers.emit(CIMultiDict(), f"t{number:03}", {"a": "x"})]
    assert held == list(range(92, 100))
    headers.learn(listing(tool("t" * 200, schema)))
    assert headers.emit(CIMultiDict(), "t" * 200, {"a": "x"}) == {}
    assert headers.emit(CIMultiDict(), "t099", {"a": "x"}) == {"Mcp-Param-A": "x"}
