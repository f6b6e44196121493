"""Every rule of docs/protocol.md is shown by a test, or says why not; and the document's table says which."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from scripts import rules


def test_every_rule_has_a_test_or_a_reason() -> None:
    known = rules.kept()  # refuses citations of rules that there are not
    assert len(known) > 200
    assert rules.contradictions(known) == []
    assert all(each.reason for each in known.values() if not each.tests)


def test_the_table_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert rules.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rule 2.13", [["2.13"]]),
        ("Rules 6.2, 6.5-6.7 and 7.1: so", [["6.2", "6.5", "6.6", "6.7", "7.1"]]),
        ("rules 5.4 to\n    5.6", [["5.4", "5.5", "5.6"]]),
        ("# (rules 7.3,\n# 7.8). And rule 1.10.", [["7.3", "7.8"], ["1.10"]]),
        ("by the ruleset 1.2, as rule 14 and section 2.4 say", []),
        ("rule 2.17, 3 times", [["2.17"]]),
    ],
)
def test_citations(text: str, expected: list[list[str]]) -> None:
    assert [[rules.name(rule) for rule in found] for _, found in rules.cited(text)] == expected


@pytest.mark.parametrize("text", ["rules 6.9-6.2", "rules 6.9 to 7.2"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(rules.Wrong):
        list(rules.cited(text))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with three rules."""
    files = {
        "docs/protocol.md": "# P\n\n|#|Rule|\n|---|---|\n|1.1|a|\n|1.2|b|\n- 2.1 c\n",
        "docs/rules.yaml": '"2.1": later\n',
        "gateway/a.py": '"""Does as rule 1.1 says, and rules 1.2\nto 2."""\n\nTEXT = "rule 2.1"\n',
        "tests/test_a.py": '"""Rule 2.1."""\n\n\ndef test_one():\n    """Rule 1.1."""\n\n\n# rule 1.2\n@mark(1)\ndef test_two():\n    pass  # rules 1.1, 1.2\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(rules, "PROJECT", tmp_path)
    monkeypatch.setattr(rules, "DOCUMENT", tmp_path / "docs" / "protocol.md")
    monkeypatch.setattr(rules, "REASONS", tmp_path / "docs" / "rules.yaml")
    return tmp_path


def test_what_counts_as_shown(house: Path) -> None:
    """A module's docstring shows nothing, nor does a text that code uses."""
    assert rules.main(["--check"]) == 1
    assert rules.main([]) == 0
    assert rules.main(["--check"]) == 0
    made = rules.DOCUMENT.read_text().partition(rules.TITLE)[2]
    rows = [line for line in made.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| 1.1 | a.py | test_a.py: test_one, test_two |",
        "| 1.2 | a.py | test_a.py: test_two |",
        "| 2.1 |  | later |",
    ]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("tests/test_a.py", "def test_one():\n    # rule 9.9\n    pass\n", "tests/test_a.py:2: there is no rule 9.9"),
        ("docs/rules.yaml", '"2.1, 2.2": later\n', "rules.yaml: there is no rule 2.2"),
        ("docs/rules.yaml", "", "rule 2.1 has neither a test nor a reason"),
        ("docs/rules.yaml", '"1.1, 2.1": later\n', "rule 1.1 has a test and a reason"),
        ("docs/rules.yaml", "2.1: later\n", "write rules in quotation marks"),
        ("docs/rules.yaml", '"2.1": a\n"2.1-2.1": b\n', "rule 2.1 has two reasons"),
        ("docs/protocol.md", "|1.1|\n|1.2|\n|1.1|\n- 2.1 c\n", "rules that stand twice: 1.1"),
    ],
)
def test_what_does_not_add_up(
    house: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, problem: str
) -> None:
    house.joinpath(file).write_text(textwrap.dedent(text))
    assert rules.main([]) == 1
    assert problem in capsys.readouterr().err
