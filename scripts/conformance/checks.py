"""What the suite found, and where two runs of it differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Check", "Checks", "Difference", "Expected", "differences", "read", "read_expected", "totals"]

# A folder is named `[server-]SCENARIO-` and the time, which is this long.
_TIME = len("-2026-07-28T00-00-00-000Z")
_FAILED = ("FAILURE", "WARNING")


@dataclass(frozen=True, slots=True, order=True)
class Check:
    """One thing that the suite looked at."""

    scenario: str
    id: str
    status: str


# The same check can be made several times in one scenario.
Checks = Counter[Check]


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """A check that came out otherwise through the gateway; the statuses of all its occurrences, ``-`` for none."""

    of: str
    revision: str
    scenario: str
    check: str
    direct: str
    gateway: str

    @property
    def is_better(self) -> bool:
        """Whether the server itself fails, and nothing fails through the gateway."""
        return self.direct not in ("-", self.gateway) and set(self.gateway.split("+")) == {"SUCCESS"}

    def __str__(self) -> str:
        where = f"{self.of}, {self.revision}: {self.scenario}: {self.check}"
        return f"{where}: direct {self.direct}, through the gateway {self.gateway}"


@dataclass(frozen=True, slots=True)
class Expected:
    """An entry of expected-differences.yaml; ``revision`` may be ``*``."""

    of: str
    revision: str
    scenario: str
    check: str
    reason: str

    def is_about(self, difference: Difference) -> bool:
        """Whether the entry explains that difference."""
        return (
            self.of == difference.of
            and self.revision in ("*", difference.revision)
            and self.scenario == difference.scenario
            and self.check == difference.check
        )


def read(folder: Path) -> Checks:
    """All checks that a run has left in its folder."""
    found: Checks = Counter()
    for path in folder.rglob("checks.json"):
        scenario = path.parent.relative_to(folder).as_posix()[:-_TIME].removeprefix("server-")
        found.update(Check(scenario, check["id"], check["status"]) for check in json.loads(path.read_bytes()))
    return found


def read_expected(path: Path) -> list[Expected]:
    """The differences that have a reason.  Raises TypeError where an entry has a wrong or a missing member."""
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text()) or []
    # An unquoted revision is a date to YAML.
    return [Expected(**{name: str(value) for name, value in entry.items()}) for entry in entries]


def differences(of: str, revision: str, direct: Checks, through: Checks) -> list[Difference]:
    """Every check whose statuses are not the same both ways."""
    keys = sorted({(check.scenario, check.id) for check in (direct - through) + (through - direct)})
    return [
        Difference(of, revision, scenario, id, _statuses(direct, scenario, id), _statuses(through, scenario, id))
        for scenario, id in keys
    ]


def _statuses(checks: Checks, scenario: str, id: str) -> str:
    found = [check for check in checks.elements() if (check.scenario, check.id) == (scenario, id)]
    return "+".join(sorted(check.status for check in found)) or "-"


def totals(checks: Checks, statuses: Sequence[str] = ("SUCCESS", *_FAILED)) -> str:
    """Passed / failed, and warnings where there are some."""
    passed, failed, warnings = (_count(checks, (status,)) for status in statuses)
    return f"{passed} / {failed}" + (f" ({warnings} warnings)" if warnings else "")


def _count(checks: Checks, statuses: Iterable[str]) -> int:
    return sum(number for check, number in checks.items() if check.status in tuple(statuses))
