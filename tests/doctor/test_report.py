"""What the report says, in which words, and that its documentation names every check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.doctor import Report, render
from gateway.doctor.report import CHECKS, GROUPS, Level, Shown
from tests.test_docs import quoted, tables


def test_every_check_is_documented(project: Path) -> None:
    rows = {
        column: [quoted(row[column])[0] for row in rows]
        for _, rows in tables((project / "docs" / "doctor.md").read_text("utf-8"))
        for column in ("Check", "Level", "Member")
        if rows and column in rows[0]
    }
    assert rows["Check"] == list(CHECKS)
    assert rows["Level"] == [level.value for level in Level]
    assert rows["Member"] == list(Report("http://x/").to_document())


def test_every_check_is_made(project: Path) -> None:
    sources = "".join(path.read_text("utf-8") for path in (project / "gateway" / "doctor").glob("*.py"))
    table = (project / "gateway" / "doctor" / "report.py").read_text("utf-8")
    unused = [check for check in CHECKS if sources.count(f'"{check}"') - table.count(f'"{check}"') == 0]
    assert unused == []


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("Bearer abcd1234", "token abcd1234 is bad", "token [hidden] is bad"),
        ("Bearer abcd1234", "Bearer abcd1234", "[hidden]"),
        ("Bearer abcd1234", "ABCD1234", "[hidden]"),
        ("a b/c=d", "a%20b%2Fc%3dd, a b\\u002fc=d, a&#32;b/c=d", "[hidden], [hidden], [hidden]"),
        ("Basic dXNlcjpwYXNzd29yZA==", "password of user", "[hidden] of [hidden]"),
        ("abcd\u200b1234", "plain", "plain"),
        ("abcd1234", "abcd\u200b1234", "[hidden]"),
        ("x1", "x1 stays: it is no secret", "x1 stays: it is no secret"),
        ("abcd1234", "a\x1b[31mred\r\n  b\x00", "ared b"),
    ],
)
def test_what_strangers_say_is_made_fit_to_be_shown(value: str, text: str, shown: str) -> None:
    assert Shown({"X": value})(text) == shown


def test_nothing_is_cut_before_it_is_hidden() -> None:
    shown = Shown({"X": "abcdefgh" * 8})("x" * 190 + "abcdefgh" * 8)
    assert len(shown) == 198
    assert "abcd" not in shown
    assert Shown({})({"a": "\u00fc" * 500}).endswith("\N{HORIZONTAL ELLIPSIS}")


def test_the_notes_begin_with_problems_and_do_not_repeat() -> None:
    report = Report("http://127.0.0.1/mcp")
    report.add("origin", Level.WARNING, "lenient", "B")
    report.add("media-type", Level.WARNING, "lenient", "B")
    report.add("tls", Level.PROBLEM, "broken", "A")
    report.add("tls", Level.PROBLEM, "broken", "A")
    assert report.notes == ["A", "B"]
    assert len(report.findings) == 3
    lines = render(report).splitlines()
    assert [line for line in lines if line in GROUPS] == ["Connection", "What it does with wrong requests"]
    assert "  PROBLEM broken" in lines
    assert "  - A" in lines
    assert json.loads(json.dumps(report.to_document()))["notes"] == ["A", "B"]
