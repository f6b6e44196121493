"""The corpus of attacks and honest messages: what is stopped and what passes, and that the judge would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.attacks.case import ALTERNATIVES, Unusable, load, materialize

CORPUS = Path(__file__).parent / "corpus"
CASES = CORPUS / "corpus_open.jsonl"
CONTEXT = CORPUS / "corpus_context.json"
# What says how a case is played.  Everything else says what is expected.
PLAYED = (
    "id", "category", "transport", "input", "input_encoding", "expected", "headers", "auth", "side", "era", "chunks",
    "setup",
)  # fmt: skip


def corpus(project: Path, cases: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, project / "scripts" / "corpus.py", "--cases", cases, "--context", CONTEXT, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def played(project: Path, folder: Path, cases: Path) -> tuple[dict[str, Any], str]:
    """What ``--json`` says, and what was printed."""
    done = corpus(project, cases, "--json", folder / "result.json")
    assert done.returncode in (0, 1), done.stderr
    result = json.loads((folder / "result.json").read_text("utf-8"))
    failed = any(not case["good"] and not case["hard"] for case in result["cases"])
    assert done.returncode == failed, done.stderr
    return result, done.stdout


def test_the_corpus_is_stopped_and_passes_as_far_as_known(project: Path, tmp_path: Path) -> None:
    known = yaml.safe_load((CORPUS / "known_misses.yaml").read_text("utf-8")) or {}
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in known.values())
    result, printed = played(project, tmp_path, CASES)
    cases = {case["id"]: case for case in result["cases"]}
    assert len(cases) == len(load(CASES))
    missed = {name: case["faults"] for name, case in cases.items() if not case["good"] and not case["hard"]}
    assert {name: faults for name, faults in missed.items() if name not in known} == {}
    assert set(known) - set(missed) == set(), "as expected now: take them out of known_misses.yaml"
    totals = result["totals"]
    assert totals["attacks"] + totals["benign"] == len(cases) - totals["hard_attacks"] - totals["hard_benign"]
    assert f"{totals['stopped']}/{totals['attacks']}" in printed.splitlines()[-1]


# -- the judge ---------------------------------------------------------------------------------------------------------

# An outcome that contradicts another one, by transport.
CONTRARY = [
    ("http", "reject", "allow"),
    ("http", "allow", "reject"),
    ("http", "allow", "flag"),
    ("jsonrpc", "reject", "allow"),
    ("jsonrpc", "reject", "redact"),
    ("jsonrpc", "allow", "reject"),
    ("jsonrpc", "allow", "flag"),
    ("result", "reject", "allow"),
    ("result", "reject", "redact"),
    ("result", "allow", "reject"),
    ("result", "allow", "flag"),
    ("result", "redact", "allow"),
    ("result", "redact", "reject"),
    ("sse", "reject", "allow"),
    ("sse", "reject", "redact"),
    ("sse", "allow", "reject"),
    ("sse", "allow", "flag"),
    ("sse", "redact", "reject"),
    ("tool_def", "reject", "allow"),
    ("tool_def", "reject", "redact"),
    ("tool_def", "allow", "reject"),
    ("tool_def", "allow", "flag"),
    ("tool_def", "redact", "allow"),
]
# A value that nothing can satisfy, or that everything of the kind violates, by field; with the outcome that it needs.
WRONG: list[tuple[str, Any, tuple[str, ...]]] = [
    ("status", 299, ("reject", "allow")),
    ("status_any", [298, 299], ("reject", "allow")),
    ("jsonrpc_code", 1, ("reject",)),
    ("must_contain", ["nobody sends this 4711"], ("allow", "redact")),
    ("must_not_contain", ["jsonrpc"], ("allow", "redact")),
    ("upstream_must_not_contain", ["JSONRPC", "jsonrpc"], ("allow",)),
    ("audit_must_not_contain", ['"seq"'], ("reject", "allow")),
    ("audit_must_not_have_line", '{"event":"request.accepted","decision":"allow"}', ("allow",)),
    ("metrics_must_not_contain", ["mcpgw_"], ("reject",)),
    ("max_ms", 0, ("allow", "reject")),
    ("max_memory_growth_mb", -1, ("reject",)),
    ("setup", "no such setup", ("allow", "reject")),
    ("chunks", "no such chunks", ("allow",)),
    ("pace", {"no": "such pace"}, ("reject",)),
]
EACH = 2


def contradicted(known: set[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Cases with one wrong expectation each, and the field that it is in."""
    lines = [json.loads(line) for line in CASES.read_text("utf-8").split("\n") if line]
    # A paced case takes its time; one that is missed as it is says nothing when it is missed.
    good = [case for case in lines if not {"pace", "difficulty"} & set(case) and case["id"] not in known]
    for transport, expected, contrary in CONTRARY:
        fit = [case for case in good if (case["transport"], case["expected"]) == (transport, expected)]
        # What is acceptable as it is does not contradict.
        fit = [case for case in fit if contrary not in {ALTERNATIVES[key] for key in case if key in ALTERNATIVES}]
        assert fit, (transport, expected)
        for case in fit[:EACH]:
            plain = {key: value for key, value in case.items() if key in PLAYED}
            yield plain | {"id": f"{case['id']}-{contrary}", "expected": contrary}, "expected"
    good = [case for case in good if not ALTERNATIVES.keys() & case.keys()]
    for key, value, outcomes in WRONG:
        fit = [case for case in good if key in case and case["expected"] in outcomes]
        fit = fit or [case for case in good if case["transport"] == "http" and case["expected"] in outcomes]
        for case in fit[:EACH]:
            yield case | {"id": f"{case['id']}-{key}", key: value}, key


def test_every_wrong_expectation_is_noticed(project: Path, tmp_path: Path) -> None:
    known = set(yaml.safe_load((CORPUS / "known_misses.yaml").read_text("utf-8")) or {})
    wrong = [case for case, _ in contradicted(known)]
    file = tmp_path / "wrong.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in wrong))
    result, printed = played(project, tmp_path, file)
    assert [case["id"] for case in result["cases"] if case["good"]] == []
    assert all(f"MISS {case['id']} " in printed for case in wrong)
    assert result["totals"]["stopped"] == result["totals"]["passed"] == 0


def test_one_wrong_field_is_one_complaint(project: Path, tmp_path: Path) -> None:
    """Whatever else a case expects is judged as before: only the field that is wrong is complained of."""
    known = set(yaml.safe_load((CORPUS / "known_misses.yaml").read_text("utf-8")) or {})
    fields = ("status", "must_contain", "must_not_contain", "upstream_must_not_contain", "metrics_must_not_contain")
    wrong = [case for case, key in contradicted(known) if key in fields]
    file = tmp_path / "wrong.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in wrong))
    result, _ = played(project, tmp_path, file)
    for case in result["cases"]:
        assert case["faults"]
        assert len({fault.removeprefix("as an event: ") for fault in case["faults"]}) <= 2, case


# -- the file ----------------------------------------------------------------------------------------------------------


def test_inputs() -> None:
    segments = [{"s": "a"}, {"b64": "/w=="}, {"repeat": "xy", "n": 2}, {"seq": "{i},", "n": 3}]
    assert materialize({"input": json.dumps(segments), "input_encoding": "segments"}) == b"a\xffxyxy0,1,2,"
    packed = materialize({"input": json.dumps([{"gzip": [{"s": "a"}]}]), "input_encoding": "segments"})
    assert packed[:2] == b"\x1f\x8b"
    assert materialize({"input": "/w==", "input_encoding": "base64"}) == b"\xff"
    assert materialize({"input": "ü"}) == "ü".encode()


CASE = {"id": "1", "category": "c", "transport": "jsonrpc", "input": "{}", "expected": "reject"}


@pytest.mark.parametrize(
    "change",
    [
        {"must_contian": ["x"]},
        {"transport": "udp"},
        {"expected": "maybe"},
        {"era": "ancient"},
        {"side": "other"},
        {"input_encoding": "rot13"},
        {"input_encoding": "segments", "input": '[{"what": 1}]'},
    ],
)
def test_a_case_that_is_not_understood_is_no_case(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(CASE | change) + "\n")
    with pytest.raises(Unusable):
        load(file)


@pytest.mark.parametrize("text", ["", "{", json.dumps(CASE) + "\n" + json.dumps(CASE)])
def test_bad_files_are_bad_usage(project: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(text)
    assert corpus(project, file).returncode == 2


def test_an_unknown_category_is_bad_usage(project: Path) -> None:
    done = corpus(project, CASES, "--category", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "smuggling" in done.stderr
