from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.schema_cost import Graph
from gateway.guard.schemas import Schemas, SchemaUnusable

# What is not linear would not end before this.
pytestmark = pytest.mark.timeout(20)


def learned(schema: Any) -> Schemas:
    schemas = Schemas("inputSchema")
    schemas.learn([{"name": "t", "inputSchema": schema}])
    return schemas


def fits(schema: Any, value: Any) -> bool:
    return learned(schema).misfit("t", value) is None


def doubling(levels: int, between: str) -> dict[str, Any]:
    """Some hundred bytes for two to the power of levels."""
    definitions: dict[str, Any] = {
        f"a{level}": {between: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{levels}": {"type": "object"}}}


def below(levels: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"a{level}": {"allOf": [{"properties": {"c": {"$ref": f"#/$defs/a{level + 1}"}}} for _ in range(2)]}
        for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{levels}": {"type": "object"}}}


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = {"c": inner}
    return inner


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"c": schema}}
    return schema


REF = {"$ref": "#/$defs/n"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "http://127.0.0.1:9/x"}, "outside of itself"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "outside of itself"),
        ({"$id": "https://e.com/s", "$ref": "other.json"}, "outside of itself"),
        ({"$ref": "#/nowhere"}, "does not hold"),
        ({"$ref": "#/allOf/7", "allOf": []}, "does not hold"),
        ({"$ref": "#name", "$defs": {"x": {"$anchor": "name"}}}, "$anchor"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"properties": {"a": {"$id": "x"}}}, "another $id"),
        ({"$ref": "#/$defs/a/not", "$defs": {"a": {"$id": "x", "not": {"$ref": "#/not"}}}}, "another $id"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"id": "x"}}}, "another $id"),
        ({"$ref": "#"}, "without end"),
        ({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "without end"),
        (doubling(60, "allOf"), "too many schemas to one value"),
        (doubling(12, "anyOf"), "too many schemas to one value"),
        ({"unevaluatedProperties": False, **doubling(9, "oneOf")}, "too many schemas to one value"),
        (deep(40), "too deep"),
        ({"enum": list(range(30_000))}, "too large"),
        ({"description": "x" * 10_000_000}, "too large"),
        ({"properties": {f"p{number}": {} for number in range(5000)}}, "too many schemas"),
        ({"properties": {f"p{number}": {"pattern": "a"} for number in range(100)}}, "too many patterns"),
        ({"pattern": "^(?!a)"}, "look-around"),
        ({"patternProperties": {r"(a)\1": {}}}, "look-around"),
        ({"pattern": "((a{100}){100}){100}"}, "too large a one"),
        ({"type": "objekt"}, "not a valid JSON Schema"),
        ({"$schema": "http://evil.example/x"}, "not a valid JSON Schema"),
        (True, "no object"),
        ([], "no object"),
        ("x", "no object"),
    ],
)  # fmt: skip
def test_schemas_that_are_not_used(schema: Any, said: str) -> None:
    with pytest.raises(SchemaUnusable, match=said.replace("$", r"\$")):
        learned(schema).misfit("t", {})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object", "additionalProperties": False, "properties": {"a": {"type": "string"}}}, {"a": "x"}, {"b": 1}),
        ({"$defs": {"a": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}, {"x": 1}, {"x": "1"}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a/b": {"type": "integer"}}, "properties": {"x": {"$ref": "#/definitions/a~1b"}}}, {"x": 1}, {"x": ""}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}], "additionalItems": False}, [1], [1, 2]),
        ({"$id": "https://example.com/s", "$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}, [], {}),
        ({"pattern": r"^\p{L}{1,64}$"}, "é", "1"),
        ({"pattern": "^(a+)+$"}, "a", "a" * 20_000 + "!"),
        ({"properties": {"$ref": {"type": "string"}, "$id": {"type": "integer"}}}, {"$ref": "x"}, {"$id": "x"}),
        ({"maximum": 5}, 5, 10**40),
        ({"const": None}, None, 0),
        ({"$defs": {"n": {"type": "object", "properties": {"l": REF, "r": REF}}}, **REF}, {"l": {"r": {}}}, {"l": {"r": 1}}),
        ({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}, {"children": [{}]}, {"children": [1]}),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], ["a", "b"]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
    ],
)  # fmt: skip
def test_schemas_that_are_used(schema: Any, good: Any, bad: Any) -> None:
    assert fits(schema, good)
    assert not fits(schema, bad)


# In each, every value is reached twice from the one above it: ten levels are a thousand, sixty are no end.
EXPONENTIAL = [
    below(30),
    {"$defs": {"n": {"type": "object", "anyOf": [{"properties": {"c": REF}}, {"properties": {"c": REF}}]}}, **REF},
    {"$defs": {"n": {"type": "object", "oneOf": [{"properties": {"c": REF}}, {"additionalProperties": REF}]}}, **REF},
    {
        "$defs": {"n": {"type": "object", "if": {"properties": {"c": REF}}, "then": {"patternProperties": {".": REF}}}},
        **REF,
    },
    {"$defs": {"n": {"type": "object", "allOf": [{"properties": {"c": REF}}], "unevaluatedProperties": False}}, **REF},
    {"allOf": [{"properties": {"c": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]},
]


@pytest.mark.parametrize("schema", EXPONENTIAL)
def test_what_would_take_too_long_is_not_validated(schema: Any) -> None:
    schemas = learned(schema)
    for levels in (3, 6, 10):
        schemas.misfit("t", nested(levels))
        schemas.misfit("t", nested(levels, {}))
    with pytest.raises(SchemaUnusable, match="too long"):
        schemas.misfit("t", nested(60))


def test_large_values_are_validated_while_that_is_cheap() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}}
    assert fits(schema, [{"n": number} for number in range(50_000)])
    assert not fits(schema, [{"n": -number} for number in range(50_000)])
    many = {"items": {"allOf": [{"type": "integer"}] * 900}}
    assert fits(many, [1] * 100)
    with pytest.raises(SchemaUnusable, match="too long"):
        fits(many, [1] * 50_000)
    wide = {"patternProperties": {f"a{number}": {} for number in range(60)}}
    assert fits(wide, {f"m{number}": 1 for number in range(5000)})
    with pytest.raises(SchemaUnusable, match="too long"):
        fits({"items": {"enum": [[number] for number in range(9000)]}}, [1] * 5000)


def test_true_is_not_one() -> None:
    schemas = learned({"const": True})
    assert schemas.misfit("t", True) is None
    schemas.learn([{"name": "t", "inputSchema": {"const": 1}}])
    assert schemas.misfit("t", 1) is None
    assert schemas.misfit("t", True) is not None


def test_a_list_without_the_schema_forgets_it_and_one_without_the_tool_does_not() -> None:
    schemas = learned({"type": "array"})
    schemas.learn([{"name": "other", "inputSchema": {}}])
    assert schemas.misfit("t", 1) is not None
    schemas.learn([{"name": "t"}])
    assert schemas.misfit("t", 1) is None


def test_what_is_remembered_is_bounded() -> None:
    schemas = Schemas("inputSchema")
    large = {"enum": list(range(15_000))}
    schemas.learn([{"name": f"t{number}", "inputSchema": large} for number in range(100)])
    assert schemas.misfit("t0", 1) is None
    with pytest.raises(SchemaUnusable, match="too large together"):
        schemas.misfit("t99", 1)
    small = {"type": "integer"}
    schemas.learn([{"name": f"t{number}", "inputSchema": small} for number in range(100)])
    assert schemas.misfit("t99", 1) is None
    for number in range(6000):
        schemas.learn([{"name": f"u{number}", "inputSchema": small}])
    assert schemas.misfit("u5999", "") is not None
    assert schemas.misfit("t0", "") is None
    for number in range(5000, 5999):
        assert schemas.misfit(f"u{number}", "") is not None
    assert len(schemas._compiled) <= 128
    assert len(schemas._known) <= 4096


simple = st.sampled_from(
    [{"type": "integer"}, {"minimum": 2}, {"enum": [1, "a"]}, {}, {"required": ["a"]}, {"maxItems": 1}]
)
schemas_ = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries(
            {"additionalProperties": inner, "properties": st.dictionaries(st.sampled_from("ab"), inner)}
        ),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"prefixItems": st.lists(inner, min_size=1, max_size=2)}),
    ),
    max_leaves=12,
)
values = st.recursive(
    st.sampled_from([1, "a", None, 2.5]),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("abc"), v),
    max_leaves=8,
)


@given(schemas_, values)
def test_the_verdict_is_that_of_the_library(schema: Any, value: Any) -> None:
    assert fits(schema, value) == jsonschema_rs.validator_for(schema, offline=True).is_valid(value)
    graph = Graph(schema)
    cost = graph.cost(value, 10**9)
    assert cost >= 1
    # Counting ends early, and says that it did.
    assert graph.cost(value, 0) >= 1
    assert (graph.cost(value, cost - 1) > cost - 1) is True
