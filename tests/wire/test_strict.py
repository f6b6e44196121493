"""Strict JSON: what is read, and why the rest is not."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import JsonRefused, JsonSyntaxError, LimitExceeded, PeerError
from gateway.wire.strict import MAX_DEPTH, MAX_NUMBER_CHARS, Limits, Twins, dumps, parse
from tests.wire.documents import GENEROUS, TEXTS


def refused(data: bytes, limits: Limits = GENEROUS, twins: Twins = Twins.ANY) -> PeerError:
    with pytest.raises(PeerError) as caught:
        parse(data, limits, twins=twins)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b' [1, 2.5e3, -0, true, false, null, "\\u00e9\\ud83d\\ude00"]\r\n\t',
        '{"é": "漢"}'.encode(),
        b'"\\u0000"',
        b"1e-400",
        b'{"":1}',
        b"123456789012345678901234567890",
        b'{"a":{"A":1},"b":[{"A":1}]}',
        b"1" * 128,
        b'{"__proto__":1}',
    ],
)
def test_what_is_read(data: bytes) -> None:
    for twins in Twins:
        assert parse(data, GENEROUS, twins=twins) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", JsonSyntaxError, "syntax"),
        (b"{} {}", JsonSyntaxError, "syntax"),
        (b"[1,]", JsonSyntaxError, "syntax"),
        (b"// x\n{}", JsonSyntaxError, "syntax"),
        (b"NaN", JsonSyntaxError, "syntax"),
        (b"-Infinity", JsonSyntaxError, "syntax"),
        (b"01", JsonSyntaxError, "syntax"),
        (b"\xa0{}", JsonSyntaxError, "not-utf8"),
        ("\u00a0{}".encode(), JsonSyntaxError, "syntax"),
        (b'"\x00"', JsonSyntaxError, "syntax"),
        (b'"\xff"', JsonSyntaxError, "not-utf8"),
        (b'"\xc0\xaf"', JsonSyntaxError, "not-utf8"),
        (b'{"\xed\xa0\x80":1}', JsonSyntaxError, "not-utf8"),
        (b"\xef\xbb\xbf{}", JsonSyntaxError, "bom"),
        ("{}".encode("utf-16"), JsonSyntaxError, "not-utf8"),
        ("{}".encode("utf-16-le"), JsonSyntaxError, "syntax"),
        ("{}".encode("utf-32-be"), JsonSyntaxError, "syntax"),
        (b'{"method":1,"method":1}', JsonRefused, "duplicate-member"),
        (b'[{"a":{"m\\u0065":1,"me":1}}]', JsonRefused, "duplicate-member"),
        (b'{"a":{"method":1,"Method":1}}', JsonRefused, "folded-member"),
        ('{"params":1,"param\u017f":1}'.encode(), JsonRefused, "folded-member"),
        (b'{"params":1,"param\\u017f":1}', JsonRefused, "folded-member"),
        ('{"uri":1,"ur\u0131":1}'.encode(), JsonRefused, "folded-member"),
        ('{"uri":1,"ur\u0130":1}'.encode(), JsonRefused, "folded-member"),
        (b'{"a\\u0000b":1}', JsonRefused, "nul-member"),
        (b'"\\ud800"', JsonRefused, "lone-surrogate"),
        (b'"\\ud800\\u0041"', JsonRefused, "lone-surrogate"),
        (b'"\\ud800x"', JsonRefused, "lone-surrogate"),
        (b'{"\\udc00":1}', JsonRefused, "lone-surrogate"),
        (b"1e400", JsonRefused, "not-finite"),
        (b'{"a":[-1e400]}', JsonRefused, "not-finite"),
        (b"[" * 65 + b"]" * 65, LimitExceeded, "depth"),
        (b"[" * 100_000, LimitExceeded, "depth"),
        (b'{"a":' * 100_000, LimitExceeded, "depth"),
        (b"1" * 129, LimitExceeded, "number-length"),
        (b"[0." + b"1" * 200_000 + b"]", LimitExceeded, "number-length"),
        (b"1" * 200_000, LimitExceeded, "number-length"),
        (b"[" + b"1," * 250_000 + b"1]", LimitExceeded, "nodes"),
    ],
)
def test_what_is_refused(data: bytes, kind: type[PeerError], reason: str) -> None:
    """Rules 2.4, 2.19 and 2.20."""
    error = refused(data)
    assert (type(error), error.reason) == (kind, reason)
    keys = {"depth": "limits.json_depth", "nodes": "limits.json_nodes", "number-length": "limits.json_number_chars"}
    assert error.limit == keys.get(reason)


def test_answers_may_hold_twins_that_are_no_names_of_the_protocol() -> None:
    assert parse(b'{"Date":1,"date":2}', GENEROUS, twins=Twins.PROTOCOL) == {"Date": 1, "date": 2}
    assert refused(b'{"Date":1,"date":2,"text":1,"Text":2}', twins=Twins.PROTOCOL).reason == "folded-member"
    assert refused(b'{"Date":1,"Date":2}', twins=Twins.PROTOCOL).reason == "duplicate-member"


def test_limits_are_inclusive() -> None:
    limits = Limits(depth=2, nodes=4, number_chars=3)
    for data in (b"[[1,2]]", b'{"a":[-12],"b":[]}', b'["a,b","[{1234"]', b"[[],[ ],{}]", b"-12"):
        parse(data, limits, twins=Twins.ANY)
    assert refused(b"[[[]]]", limits).reason == "depth"
    assert refused(b"[1,2,3,4]", limits).reason == "nodes"
    assert refused(b"[[],[],{},[]]", limits).reason == "nodes"
    assert refused(b'{"a":[1],"b":[2]}', limits).reason == "nodes"
    assert refused(b"-123", limits).reason == "number-length"
    assert refused(b'["1234", 1.23]', limits).reason == "number-length"


@pytest.mark.parametrize(
    "wrong",
    [{"depth": 0}, {"depth": MAX_DEPTH + 1}, {"nodes": 0}, {"number_chars": 0}, {"number_chars": MAX_NUMBER_CHARS + 1}],
)
def test_limits_beyond_the_parser_are_a_mistake(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limits(**{"depth": 1, "nodes": 1, "number_chars": 1} | wrong)


def test_the_largest_limits_are_this_modules_own() -> None:
    limits = Limits(MAX_DEPTH, 10**9, MAX_NUMBER_CHARS)
    for deepest in (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH):
        parse(deepest, limits, twins=Twins.ANY)
    assert refused(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), limits).reason == "depth"
    assert math.isfinite(float(parse(b"9" * MAX_NUMBER_CHARS, limits, twins=Twins.ANY)))


@given(TEXTS)
def test_errors_never_repeat_values(data: bytes) -> None:
    data = data.replace(b'"', b'"s3cr3t', 1)
    try:
        parse(data, GENEROUS, twins=Twins.ANY)
    except JsonRefused:
        pass  # may name a member
    except PeerError as error:
        assert "s3cr3t" not in error.message


def test_a_duplicates_name_is_cut_and_escaped() -> None:
    member = b'"\\u001b at line 1 column 2%b":1' % (b"x" * 50)
    message = refused(b"{" + member + b"," + member + b"}").message
    assert message.startswith(r"member '\\u{1b} at line 1 column 2xxx")
    assert message.endswith("xxx...' occurs twice in one object at line 1 column 160")


# -- writing

WRITABLE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(WRITABLE)
def test_what_is_written_is_read_again(document: Any) -> None:
    assert json.loads(dumps(document)) == document


def test_integers_keep_every_digit() -> None:
    digits = b"1" * 128
    assert dumps({"n": [int(digits)], "é": "é"}) == b'{"n":[' + digits + b'],"\xc3\xa9":"\xc3\xa9"}'


@pytest.mark.parametrize("document", [object(), {"a": "\ud800"}, {1: 2**70, "x": object()}])
def test_what_no_json_can_say_is_not_written(document: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        dumps(document)


# -- time and space


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data",
    [
        b"[" + b'"' + b"1" * 128 + b'x",' * 100_000 + b"0]",
        b'["' + b"1" * 8_000_000 + b'"]',
        b'"' * 8_000_000,
        b"[" + b'"",' * 240_000 + b"0]",
        b"[],[]" * 1_000_000,
        b"[" + b"{}," * 2_000_000 + b"{}]",
        b'{"a":"' + b"\\\\" * 4_000_000,
    ],
)
def test_large_texts_take_linear_time(data: bytes) -> None:
    with contextlib.suppress(PeerError):
        parse(data, GENEROUS, twins=Twins.ANY)
