"""What is counted runs, and a comparison says what it should; the counting itself is `make bench-instructions`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.instructions import __main__ as command
from scripts.instructions.count import NotCounted, read_totals
from scripts.instructions.throughput import KINDS, SIZES, rate
from scripts.instructions.workload import WORKLOADS

HERE = {"python": "3.11.7 GCC", "machine": "x86_64", "valgrind": "3.19.0", "packages": {"jiter": "0.12"}}


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_do_what_they_say(name: str, tmp_path: Path) -> None:
    operation = WORKLOADS[name].make(tmp_path)
    operation()
    operation()


def test_the_baseline_knows_every_workload() -> None:
    baseline = json.loads(command.BASELINE.read_text())
    assert baseline["instructions"].keys() == WORKLOADS.keys()
    assert set(baseline["packages"]) == set(command.PACKAGES)


def test_a_regression_fails(capsys: pytest.CaptureFixture[str]) -> None:
    baseline = {"instructions": {"a": 1000, "b": 1000}}
    assert command.show({"a": 1050, "b": 500, "new": 7}, baseline, 0.05) == 0
    assert command.show({"a": 1051, "b": 500}, baseline, 0.05) == 1
    assert "FAILED more than 5% above the baseline: a" in capsys.readouterr().out


def test_other_machines_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "baseline.json"
    with pytest.raises(NotCounted, match="there is no"):
        command.read_baseline(file, HERE)
    file.write_text(json.dumps({**HERE, "packages": {"jiter": "0.11"}, "instructions": {}}))
    command.read_baseline(file, HERE)
    assert "jiter is 0.12, the baseline has 0.11" in capsys.readouterr().err
    for what in ("python", "machine"):
        with pytest.raises(NotCounted, match=f"the baseline is of {what}"):
            command.read_baseline(file, {**HERE, what: "another"})


def test_counts_are_the_difference_of_two_parts(tmp_path: Path) -> None:
    names = list(WORKLOADS)[:2]
    once = {name: WORKLOADS[name].times * 500 + 99 for name in names}
    for position, name in enumerate(names):
        twice = once[name] + WORKLOADS[name].times * 500
        for number, total in enumerate((12345, once[name], twice), 3 * position + 1):
            tmp_path.joinpath(f"callgrind.{number}").write_text(f"desc: x\ntotals: {total}\n")
    assert read_totals(tmp_path / "callgrind", names) == dict.fromkeys(names, 500)
    tmp_path.joinpath("callgrind.6").unlink()
    with pytest.raises(NotCounted, match=r"callgrind\.6"):
        read_totals(tmp_path / "callgrind", names)


@pytest.mark.parametrize("kind", KINDS)
def test_throughput_has_texts_of_every_size(kind: str) -> None:
    assert [len(KINDS[kind](size).encode()) // size for size in SIZES[:2]] in ([1, 1], [0, 0])
    assert rate(kind, 4096) > 0
