from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.record import line
from gateway.record.audit import Audit
from gateway.record.entry import describe_arguments, entry

WHO: dict[str, Any] = {
    "client": "alice",
    "session": "sha256:0123456789abcdef",
    "upstream": "weather",
    "revision": "2025-11-25",
    "method": "tools/call",
    "name": "get_forecast",
    "remote": "::1",
}

words = st.text(max_size=20) | st.text(alphabet='ab"\\\x7f\n', max_size=5) | st.just("x" * 300)
arguments = st.dictionaries(words, st.recursive(st.none() | st.integers() | words, lambda inner: st.lists(inner)))


def about(*, accepted: bool = True, **changed: Any) -> line.About | None:
    who = {**WHO, **changed}
    return line.describe(*(who[each] for each in WHO), accepted)


def record(text: bytes) -> Any:
    return json.loads(b"{" + text + b"}")


@pytest.mark.parametrize("missing", [{}, {"session": None}, {"name": None, "remote": None}, {"revision": None}])
def test_a_line_says_what_an_entry_says(missing: dict[str, None]) -> None:
    common = about(**missing)
    assert common is not None
    who = {**WHO, **missing}
    called = {"city": "Oslo", "days": 3}
    accepted = line.accepted("r-1", common, called)
    assert accepted is not None
    described = entry("request.accepted", request="r-1", decision="allow", arguments=describe_arguments(called), **who)
    assert list(record(accepted).items()) == list(described.items())
    finished = line.finished("r-1", common, "answered", 200, 153, 2345, 0.0012345, 231.0)
    described = entry(
        "request.finished", request="r-1", outcome="answered", status=200, bytes_in=153, bytes_out=2345,
        first=0.0012345, last=231.0, **who,
    )  # fmt: skip
    assert list(record(finished).items()) == list(described.items())


@pytest.mark.parametrize("name", ['"', "\\", "\x7f", "\n", "é", "\ud800", "x" * 300])
def test_what_has_to_be_cut_or_escaped_is_left_to_an_entry(name: str) -> None:
    assert about(name=name) is None
    assert about(remote=name) is None
    common = about()
    assert common is not None
    if len(name) == 1 and name != "\ud800":
        assert line.accepted("r-1", common, {name: 1}) is None


@pytest.mark.parametrize("name", ['"', "\\", "\x7f", "\n", "é", "\ud800", "x" * 300])
def test_what_nobody_declared_is_written_as_its_digest(name: str) -> None:
    for common in (about(name=name, accepted=False), about(method=name)):
        assert common is not None
        assert '"sha256:' in common[0].replace(WHO["session"], "")
    assert about(name="plain", accepted=False) == about(name="plain")


@given(arguments)
def test_no_argument_gets_further_than_an_entry_would(
    tmp_path_factory: pytest.TempPathFactory, called: dict[str, Any]
) -> None:
    common = about()
    assert common is not None
    text = line.accepted("r-1", common, called)
    described = entry("request.accepted", request="r-1", decision="allow", arguments=describe_arguments(called), **WHO)
    if text is None:
        return
    path: Path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    audit = Audit(path, clock=lambda: 0.0)
    audit.write(text)
    audit.write(described)
    audit.close()
    one, other = path.read_bytes().splitlines()
    assert one.replace(b'"seq":1', b'"seq":2') == other


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3000):
        assert about(name=f"tool-{number}") is not None
        assert about(name="long-" * 100 + str(number)) is None
        assert line.accepted("r-1", ("", ""), {"text": "x" * number}) is not None
        assert line.accepted("r-1", ("", ""), {f"{number}-{each}-{'long' * 10}": 1 for each in range(16)}) is not None
    for known in (line._known, line._shapes):
        assert len(known) <= line._MAX_KNOWN
    assert all(sum(len(each or "") for each in key) <= line._MAX_CHARS for key in line._known)
    assert all(len(each) <= line._MAX_CHARS for each in line._shapes)
