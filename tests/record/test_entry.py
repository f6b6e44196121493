from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.hook import Finding
from gateway.record.entry import audit_name, describe_arguments, entry

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=30) | st.dictionaries(st.text(), children, max_size=30),
    max_leaves=300,
)


def test_a_record_holds_what_is_known() -> None:
    assert entry("started") == {"event": "started"}
    assert entry(
        "request.finished",
        request="r1",
        client="demo",
        bytes_in=0,
        bytes_out=17,
        first=0.0012345,
        last=1.5,
        outcome="answered",
        status=200,
        findings=[Finding("sanitize", "ansi", "strip", "/result/content/0/text", 2)],
    ) == {
        "event": "request.finished",
        "request": "r1",
        "client": "demo",
        "bytes": {"in": 0, "out": 17},
        "ms": {"first": 1.234, "last": 1500.0},
        "outcome": "answered",
        "status": 200,
        "findings": [
            {"hook": "sanitize", "rule": "ansi", "action": "strip", "place": "/result/content/0/text", "count": 2}
        ],
    }
    assert entry("request.refused", bytes_out=5, last=0.25, arguments=({"city": "string(4)"}, "sha256:0")) == {
        "event": "request.refused",
        "bytes": {"out": 5},
        "ms": {"last": 250.0},
        "arguments": {"shape": {"city": "string(4)"}, "digest": "sha256:0"},
    }
    assert entry("request.refused", bytes_in=5, first=0.25)["bytes"] == {"in": 5}


def test_findings_beyond_a_bound_are_counted() -> None:
    listed = entry("request.finished", findings=[Finding("h", "r", "flag", "/p")] * 100)["findings"]
    assert isinstance(listed, list)
    assert len(listed) == 33 and listed[-1] == {"omitted": 68}


def test_the_shape_holds_types_and_sizes() -> None:
    shape, digest = describe_arguments(
        {
            "city": "Oslo",
            "days": 3,
            "at": 1.5,
            "now": True,
            "no": None,
            "tags": ["a", "bb", 3, {}, 5, 6],
            "in": {"x": ""},
        }
    )
    assert shape == {
        "city": "string(4)",
        "days": "integer",
        "at": "number",
        "now": "boolean",
        "no": "null",
        "tags": ["string(1)", "string(2)", "integer", {}, "...(2)"],
        "in": {"x": "string(0)"},
    }
    assert digest.startswith("sha256:") and len(digest) == 71
    assert describe_arguments("x")[0] == "string(1)"
    assert describe_arguments(None)[0] == "null"


def test_the_shape_is_bounded_in_depth_and_width() -> None:
    assert describe_arguments([[[[["x"], {"y": 1}]]]])[0] == [[[["array(1)", "object(1)"]]]]
    wide, _ = describe_arguments({f"member{n}": n for n in range(1000)})
    assert len(wide) == 17 and wide["..."] == 984
    many, _ = describe_arguments(
        {str(n): {str(m): {str(k): [0] * 9 for k in range(9)} for m in range(9)} for n in range(9)}
    )
    assert len(json.dumps(many)) < 2000
    long, _ = describe_arguments({"n" * 1000: 1})
    assert long == {"n" * 64: "integer"}


def test_equal_arguments_have_equal_digests_whatever_their_order() -> None:
    one, two = describe_arguments({"b": 1, "a": {"y": 2, "x": 3}}), describe_arguments({"a": {"x": 3, "y": 2}, "b": 1})
    assert one[1] == two[1] == "sha256:" + hashlib.sha256(b'{"a":{"x":3,"y":2},"b":1}').hexdigest()
    assert describe_arguments({"b": 1})[1] != describe_arguments({"b": 2})[1]
    assert (
        describe_arguments({"n": 10**40})[1] == describe_arguments({"n": 10**40})[1] != describe_arguments({"n": 1})[1]
    )


@given(st.dictionaries(st.sampled_from(["city", "days", "deep"]), json_values))
def test_a_shape_is_small_and_holds_no_value(arguments: dict[str, object]) -> None:
    shape, _ = describe_arguments({"secret": "hunter2-hunter2", "list": ["hunter2"], "in": {"n": 1234567}, **arguments})
    text = json.dumps(shape)
    assert "hunter2" not in text and "1234567" not in text
    nodes, stack = 0, [shape]
    while stack:
        node = stack.pop()
        nodes += 1
        stack += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    assert nodes <= 64 + 40


def test_names_that_nobody_declared_are_digests() -> None:
    assert audit_name("get weather", known=True) == "get weather"
    assert audit_name("get weather", known=False) == "sha256:" + hashlib.sha256(b"get weather").hexdigest()[:16]
    assert audit_name("get_weather", known=False) == "get_weather"
    assert audit_name("x" * 65, known=False).startswith("sha256:")
    assert audit_name("\ud800", known=False).startswith("sha256:")


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_a_description_does_not_grow_with_the_arguments(size: int) -> None:
    shape, _ = describe_arguments({"notes": "x" * size, "rows": [{"n": n} for n in range(size)]})
    assert shape["rows"][4] == f"...({size - 4})"
    assert len(json.dumps(shape)) < 200
