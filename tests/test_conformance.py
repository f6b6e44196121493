"""What counts as a difference between two runs of the conformance suite."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from scripts.conformance.__main__ import problems
from scripts.conformance.checks import Check, Checks, Difference, Expected, differences, read, read_expected, totals
from scripts.conformance.play import OWN_SERVER, TYPESCRIPT, Subject

REVISION = "2025-11-25"
PASSED = Check("ping", "ping", "SUCCESS")
FAILED = Check("ping", "ping", "FAILURE")
DIFFERENCE = Difference("server", REVISION, "ping", "ping", "SUCCESS", "FAILURE")


def write(folder: Path, scenario: str, *statuses: str) -> None:
    path = folder / f"{scenario}-2026-01-02T03-04-05-678Z" / "checks.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"id": "a", "status": status} for status in statuses]))


def test_checks_are_known_by_their_scenario(tmp_path: Path) -> None:
    write(tmp_path, "server-tools-list", "SUCCESS", "SUCCESS", "FAILURE")
    write(tmp_path, "server-server-initialize", "SUCCESS")
    found = read(tmp_path)
    assert found[Check("tools-list", "a", "SUCCESS")] == 2
    assert found[Check("server-initialize", "a", "SUCCESS")] == 1
    assert totals(found) == "3 / 1"


def test_a_check_differs_by_status_and_by_number() -> None:
    direct: Checks = Counter({PASSED: 2})
    assert differences("server", REVISION, direct, direct) == []
    [other] = differences("server", REVISION, direct, Counter({PASSED: 1, FAILED: 1}))
    assert (other.direct, other.gateway) == ("SUCCESS+SUCCESS", "FAILURE+SUCCESS")
    [missing] = differences("server", REVISION, direct, Counter())
    assert (missing.direct, missing.gateway) == ("SUCCESS+SUCCESS", "-")


@pytest.mark.parametrize(
    ("direct", "gateway", "is_better"),
    [("FAILURE", "SUCCESS", True), ("SUCCESS", "FAILURE", False), ("-", "SUCCESS", False), ("SUCCESS", "-", False)],
)
def test_what_is_better(direct: str, gateway: str, is_better: bool) -> None:
    assert Difference("server", REVISION, "ping", "ping", direct, gateway).is_better is is_better


def found_problems(subject: Subject, direct: Checks, lasting: list[Difference], expected: list[Expected]) -> list[str]:
    found = {subject.key: {"direct": {REVISION: direct}, "gateway": {REVISION: direct}}}
    return [line.split()[0] for line in problems([subject], found, lasting, expected)]


def test_what_makes_a_run_fail() -> None:
    one: Checks = Counter({PASSED: 1})
    reason = Expected("server", "*", "ping", "ping", "because")
    assert found_problems(OWN_SERVER, one, [], []) == []
    assert found_problems(OWN_SERVER, one, [DIFFERENCE], []) == ["DIFFERS"]
    assert found_problems(OWN_SERVER, one, [DIFFERENCE], [reason]) == []
    assert found_problems(OWN_SERVER, one, [], [reason]) == ["STALE"]
    assert found_problems(TYPESCRIPT, one, [], [reason]) == []
    assert found_problems(OWN_SERVER, Counter({FAILED: 1}), [], []) == ["FAILS"]
    assert found_problems(TYPESCRIPT, Counter({FAILED: 1}), [], []) == []
    assert found_problems(TYPESCRIPT, Counter(), [], []) == ["NOTHING"]


def test_every_expected_difference_has_a_reason(project: Path) -> None:
    for entry in read_expected(project / "scripts" / "conformance" / "expected-differences.yaml"):
        assert len(entry.reason) > 20
        assert entry.of in ("server", "typescript", "client")
