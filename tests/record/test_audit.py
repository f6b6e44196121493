from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import AuditUnavailable
from gateway.record.audit import MAX_FIELD_CHARS, Audit, Mode, _bounded, _encode, is_usual


class Clock:
    def __init__(self) -> None:
        self.now = 1795348800.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "audit.jsonl"


@contextlib.contextmanager
def opened(path: Path, mode: Mode = "required", size: int = 10**6, keep: int = 3, **more: Any) -> Iterator[Audit]:
    audit = Audit(path, mode, size, keep, **more)
    audit.open()
    try:
        yield audit
    finally:
        audit.close()


@contextlib.contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file may grow beyond ``size``: the kernel writes what fits, then fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def whole(path: Path) -> list[dict[str, Any]]:
    """Every line must be a record."""
    data = path.read_bytes()
    assert data.isascii() and (not data or data.endswith(b"\n"))
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def readable(path: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The records, and the lines that are none."""
    records, rest = [], []
    for line in path.read_bytes().split(b"\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            rest.append(line)
    return records, [line for line in rest if line]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [record["seq"] for record in records]


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_record_is_a_line_with_time_and_number(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as audit:
        assert audit.write({"event": "started"}) == 1
        clock.now += 61.0
        assert audit.write({"event": "stopped", "status": 0}) == 2
        assert (audit.records, audit.failures, audit.drops) == (2, 0, 0)
        assert repr(audit) == f"<Audit {path} required seq=2>"
    assert path.read_bytes() == (
        b'{"time":"2026-11-22T12:00:00.250Z","seq":1,"event":"started"}\n'
        b'{"time":"2026-11-22T12:01:01.250Z","seq":2,"event":"stopped","status":0}\n'
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text",
    [
        'a"\n{"event":"forged"}',
        "\r\n\x00\x1b[2J\x07\x7f\x9b31m",
        "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
        "\u202eevil\u200b\ufeff",
        "\ud800 alone \udfff",
        "\N{SNAKE}\N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_no_text_forges_a_line_or_moves_a_terminal(path: Path, text: str) -> None:
    with opened(path) as audit:
        audit.write({"event": "request.refused", "name": text, text: [text, {text: text}]})
    data = path.read_bytes()
    assert data.count(b"\n") == 1 and len(data.decode("ascii").splitlines()) == 1
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    assert whole(path)[0]["name"] == text
    assert whole(path)[0][text] == [text, {text: text}]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=20), children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=30).filter(lambda name: name not in ("time", "seq")), json_values, max_size=6))
def test_whatever_is_recorded_is_one_line_of_printable_ascii(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    with opened(path) as audit:
        audit.write(fields)
        audit.write(fields)
    data = path.read_bytes()
    assert data.count(b"\n") == 2 and all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in data)
    assert numbers(whole(path)) == [1, 2]


def test_long_fields_are_cut_and_marked(path: Path) -> None:
    deep: Any = "bottom"
    for _ in range(20):
        deep = {"in": deep}
    with opened(path) as audit:
        audit.write({"name": "x" * 10**6, "many": list(range(100)), "wide": {str(n): n for n in range(100)}, "d": deep})
    assert path.stat().st_size < 3000
    [record] = whole(path)
    assert record["name"] == "x" * MAX_FIELD_CHARS + f"...({10**6 - MAX_FIELD_CHARS})"
    assert record["many"] == [*range(64), "...(36)"]
    assert record["wide"]["63"] == 63 and record["wide"]["..."] == 36 and len(record["wide"]) == 65
    assert json.dumps(record["d"]).count("in") == 8 and "bottom" not in json.dumps(record["d"])


def test_a_subclass_of_str_is_recorded_as_its_text(path: Path) -> None:
    class Name(str):
        __slots__ = ()

    with opened(path) as audit:
        audit.write({"event": "request.accepted", "name": Name("tools")})
    assert whole(path)[0]["name"] == "tools"


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}, 1j])
def test_what_is_not_json_is_a_defect(path: Path, value: object) -> None:
    with opened(path) as audit:
        with pytest.raises(TypeError, match="does not belong"):
            audit.write({"event": "started", "value": value})
        assert audit.write({"event": "started"}) == 1


@pytest.mark.parametrize("name", ["time", "seq"])
def test_time_and_number_cannot_be_given(path: Path, name: str) -> None:
    with opened(path) as audit, pytest.raises(TypeError, match="own"):
        audit.write({name: 7})


def test_mode_off_writes_nothing(path: Path) -> None:
    with opened(path, "off") as audit:
        assert audit.write({"event": "started"}) == 0
        assert audit.check() is None
    assert not path.parent.exists()


# -- going on after a stop --------------------------------------------------------------------------------------------


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    for _ in range(3):
        with opened(path) as audit:
            audit.write({"event": "started"})
            audit.write({"event": "stopped"})
    assert numbers(whole(path)) == [1, 2, 3, 4, 5, 6]


def test_a_torn_last_line_is_terminated_and_recorded(path: Path) -> None:
    with opened(path) as audit:
        audit.write({"event": "started"})
    with path.open("ab") as file:
        file.write(b'{"time":"2026-11-22T12:00:00.250Z","seq":2,"eve')
    with opened(path) as audit:
        assert audit.write({"event": "started"}) == 4
    records, rest = readable(path)
    assert len(rest) == 1
    assert [(record["seq"], record["event"]) for record in records] == [(1, "started"), (3, "repaired"), (4, "started")]
    assert records[1]["torn"] == [2]
    with opened(path) as audit:
        assert audit.write({"event": "started"}) == 5


@pytest.mark.parametrize("junk", [b"", b"\n", b"garbage\n" * 50_000, b"x" * 200_000, b"[]\n7\n" + b'{"seq":"9"}\n{}\n'])
def test_the_last_number_is_found_behind_anything(path: Path, junk: bytes) -> None:
    with opened(path) as audit:
        for _ in range(7):
            audit.write({"event": "started"})
    with path.open("ab") as file:
        file.write(junk)
    with opened(path) as audit:
        number = audit.write({"event": "started"})
    assert number == (10 if junk and not junk.endswith(b"\n") else 8)
    assert readable(path)[0][-1]["seq"] == number


_WRITER = """
import sys
from gateway.record.audit import Audit
audit = Audit(sys.argv[1], max_file_size=20_000, keep_files=100)
audit.open()
while True:
    print(audit.write({"event": "request.accepted", "name": "x" * 200}), flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: list[int] = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline()) for _ in range(150)]
            process.kill()
            # The last line may have lost its end when the process was killed.
            acknowledged += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    files = [*sorted(path.parent.glob("audit.jsonl.*"), key=lambda file: -int(file.suffix[1:])), path]
    assert len(files) > 3
    recorded = [number for file in files for number in numbers(readable(file)[0])]
    assert recorded == sorted(set(recorded))
    assert set(acknowledged) <= set(recorded)


# -- rotation ---------------------------------------------------------------------------------------------------------


def generations(path: Path) -> dict[str, list[int]]:
    return {file.name: numbers(whole(file)) for file in sorted(path.parent.iterdir())}


def test_a_full_file_becomes_the_youngest_older_one(path: Path, clock: Clock) -> None:
    with opened(path, size=130, clock=clock) as audit:
        for _ in range(5):
            audit.write({"event": "started"})
        assert generations(path) == {"audit.jsonl": [5], "audit.jsonl.1": [3, 4], "audit.jsonl.2": [1, 2]}
        for _ in range(4):
            audit.write({"event": "started"})
    assert generations(path) == {
        "audit.jsonl": [9],
        "audit.jsonl.1": [7, 8],
        "audit.jsonl.2": [5, 6],
        "audit.jsonl.3": [3, 4],
    }


def test_a_record_larger_than_a_file_has_one_to_itself(path: Path) -> None:
    with opened(path, size=100) as audit:
        for _ in range(3):
            audit.write({"event": "started", "name": "x" * 200})
    assert generations(path) == {"audit.jsonl": [3], "audit.jsonl.1": [2], "audit.jsonl.2": [1]}


def test_numbers_go_on_when_a_rotation_was_the_last_thing_done(path: Path) -> None:
    with opened(path) as audit:
        audit.write({"event": "started"})
    path.rename(f"{path}.1")
    with opened(path) as audit:
        assert audit.write({"event": "started"}) == 2


def test_a_rotation_that_fails_loses_nothing(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with opened(path, size=130, clock=clock) as audit:
        audit.write({"event": "started"})
        obstacle = path.parent / "audit.jsonl.1"
        obstacle.mkdir()
        (path.parent / "audit.jsonl.2").mkdir()
        (path.parent / "audit.jsonl.3").mkdir()
        (path.parent / "audit.jsonl.3" / "inside").touch()
        for _ in range(9):
            audit.write({"event": "started"})
        assert numbers(whole(path)) == [*range(1, 11)]
        assert caplog.text.count("could not be rotated and goes on growing") == 1
        assert audit.check() is None
        (path.parent / "audit.jsonl.3" / "inside").unlink()
        for name in ("audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"):
            (path.parent / name).rmdir()
        audit.write({"event": "started"})
        assert generations(path) == {"audit.jsonl": [*range(1, 12)]}
        clock.now += 61
        audit.write({"event": "started"})
        assert generations(path) == {"audit.jsonl": [12], "audit.jsonl.1": [*range(1, 12)]}


def test_a_gap_that_a_failed_rotation_left_is_filled_before_anything_is_overwritten(path: Path, clock: Clock) -> None:
    with opened(path, size=100, clock=clock) as audit:
        for _ in range(4):
            audit.write({"event": "started"})
        Path(f"{path}.2").rename(f"{path}.4")
        audit.write({"event": "started"})
    assert generations(path) == {
        "audit.jsonl": [5],
        "audit.jsonl.1": [4],
        "audit.jsonl.2": [3],
        "audit.jsonl.3": [1],
        "audit.jsonl.4": [2],
    }


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_and_recovers_without_a_restart(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as audit:
        audit.write({"event": "request.accepted"})
        with full_at(path.stat().st_size + 30):
            for _ in range(3):
                with pytest.raises(AuditUnavailable) as caught:
                    audit.write({"event": "request.accepted"})
            assert audit.check() is not None
        assert (caught.value.status, caught.value.key) == (503, "audit.path")
        assert caught.value.headers == {"Retry-After": "1"}
        assert str(path) not in str(caught.value)
        assert (audit.records, audit.failures, audit.drops) == (1, 4, 0)
        assert audit.write({"event": "request.finished"}) == 4
        assert audit.check() is None
    records, rest = readable(path)
    assert len(rest) == 1 and len(rest[0]) == 30
    assert [(record["seq"], record["event"]) for record in records] == [
        (1, "request.accepted"),
        (3, "repaired"),
        (4, "request.finished"),
    ]
    assert records[1]["torn"] == [2] and records[1]["failed"] == 4


@pytest.mark.parametrize("room", [*range(0, 70, 3), 62, 63, 64])
def test_wherever_a_write_ends_records_do_not_merge(path: Path, clock: Clock, room: int) -> None:
    with opened(path, clock=clock) as audit:
        audit.write({"event": "started"})
        acknowledged = [1]
        for more in (room, room + 40, room + 90, room + 200):
            with full_at(path.stat().st_size + more):
                for _ in range(3):
                    with contextlib.suppress(AuditUnavailable):
                        acknowledged.append(audit.write({"event": "started"}))
        acknowledged.append(audit.write({"event": "stopped"}))
        torn = {number for record in readable(path)[0] for number in record.get("torn", ())}
    records, rest = readable(path)
    recorded = numbers(records)
    assert set(acknowledged) <= set(recorded) - torn
    assert recorded == sorted(set(recorded))
    # Every number is a record or was named as torn.
    assert set(recorded) | torn == set(range(1, recorded[-1] + 1))
    assert len(rest) <= len(torn)


def test_check_probes_after_a_failure(path: Path) -> None:
    with opened(path) as audit:
        audit.write({"event": "started"})
        with full_at(path.stat().st_size):
            with pytest.raises(AuditUnavailable):
                audit.write({"event": "request.accepted"})
            assert audit.check() == "File too large"
        assert audit.check() is None
        assert audit.check() is None
    records = whole(path)
    assert [record["event"] for record in records] == ["started", "resumed"]
    assert records[1]["failed"] == 2


def test_a_record_that_is_not_required_is_dropped_and_counted(path: Path) -> None:
    with opened(path) as audit:
        with full_at(0):
            assert audit.write({"event": "request.finished"}, required=False) == 0
        assert (audit.records, audit.failures, audit.drops) == (0, 1, 1)
        assert audit.write({"event": "request.accepted"}) == 2


def test_best_effort_counts_drops_and_says_so_once_a_minute(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with opened(path, "best_effort", clock=clock) as audit:
        with full_at(0):
            for _ in range(120):
                assert audit.write({"event": "request.accepted"}) == 0
                clock.now += 1
        assert audit.drops == 120
        assert [record.getMessage() for record in caplog.records] == [
            f"audit records cannot be written to {path}: File too large ({counts} records lost so far)"
            for counts in ("1 failures, 0", "62 failures, 61")
        ]
        assert audit.write({"event": "request.accepted"}) == 2
    assert whole(path)[0]["failed"] == 120


def test_a_file_that_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "var").write_text("a file where a folder should be")
    path = tmp_path / "var" / "audit.jsonl"
    with pytest.raises(AuditUnavailable):
        Audit(path).open()
    audit = Audit(path, "best_effort")
    audit.open()
    assert audit.check() in ("Not a directory", "File exists")
    assert audit.write({"event": "started"}) == 0
    assert audit.drops == 1
    (tmp_path / "var").unlink()
    assert audit.write({"event": "started"}) == 2
    audit.close()
    assert [record["event"] for record in whole(path)] == ["resumed", "started"]


def test_only_a_regular_file_will_do(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(AuditUnavailable):
            Audit(path).open()
        assert Audit(path).check() in ("is not a regular file", "Is a directory")


@pytest.mark.parametrize("how", ["renamed", "deleted", "replaced"])
def test_a_file_that_is_taken_away_is_begun_anew(path: Path, how: str) -> None:
    with opened(path) as audit:
        audit.write({"event": "started"})
        if how == "renamed":
            path.rename(f"{path}-2026-11-22")
        elif how == "deleted":
            path.unlink()
        else:
            Path(f"{path}.new").write_bytes(b'{"seq":41}\n')
            Path(f"{path}.new").rename(path)
        assert audit.write({"event": "stopped"}) == (42 if how == "replaced" else 2)
    assert whole(path)[-1]["event"] == "stopped"


def test_a_file_that_is_truncated_under_its_feet_goes_on(path: Path) -> None:
    with opened(path) as audit:
        for _ in range(3):
            audit.write({"event": "started"})
        os.truncate(path, 0)
        audit.write({"event": "stopped"})
    assert numbers(whole(path)) == [4]


def test_a_file_that_was_closed_opens_again(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as audit:
        audit.write({"event": "started"})
        with full_at(path.stat().st_size + 5), pytest.raises(AuditUnavailable):
            audit.write({"event": "started"})
        audit.close()
        audit.close()
        assert audit.write({"event": "stopped"}) == 4
    assert readable(path)[0][1]["torn"] == [2]


@pytest.mark.parametrize(("size", "keep"), [(0, 1), (1, 0)])
def test_bounds_that_make_no_sense(path: Path, size: int, keep: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Audit(path, "required", size, keep)


# -- together ---------------------------------------------------------------------------------------------------------


class Later:
    """An event loop's ``call_later``, called by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((seconds, call))

    def pass_by(self) -> None:
        due, self.due = self.due, []
        for _, call in due:
            call()


@contextlib.contextmanager
def collected(path: Path, clock: Clock, size: int = 10**6) -> Iterator[tuple[Audit, Later]]:
    with opened(path, "best_effort", size, clock=clock) as audit:
        later = Later()
        audit.batch(later)
        yield audit, later


def test_records_that_may_be_lost_are_written_together(path: Path, clock: Clock) -> None:
    with collected(path, clock) as (audit, later):
        assert audit.write({"event": "request.accepted"}) == 0
        clock.now += 0.125
        audit.write({"event": "request.finished"})
        assert path.read_bytes() == b"" and audit.records == 0
        assert [seconds <= 0.05 for seconds, _ in later.due] == [True]
        later.pass_by()
        assert path.read_bytes() == (
            b'{"time":"2026-11-22T12:00:00.250Z","seq":1,"event":"request.accepted"}\n'
            b'{"time":"2026-11-22T12:00:00.375Z","seq":2,"event":"request.finished"}\n'
        )
        assert (audit.records, audit.sequence, later.due) == (2, 2, [])
        for write_now in (audit.flush, audit.check, audit.close):
            audit.write({"event": "started"})
            write_now()
            assert whole(path)[-1]["event"] == "started"
        later.pass_by()
    assert numbers(whole(path)) == [1, 2, 3, 4, 5]


def test_no_more_than_a_bound_is_held(path: Path, clock: Clock) -> None:
    with collected(path, clock) as (audit, later):
        for _ in range(1000):
            audit.write({"event": "request.accepted", "name": "x" * 200})
        assert 1000 - audit.records < 64 * 1024 / 200
        assert len(later.due) == 1
    assert numbers(whole(path)) == [*range(1, 1001)]


def test_what_is_written_together_fills_files_like_single_records(path: Path, clock: Clock) -> None:
    with collected(path, clock, 130) as (audit, later):
        for _ in range(5):
            audit.write({"event": "started"})
        later.pass_by()
    assert generations(path) == {"audit.jsonl": [5], "audit.jsonl.1": [3, 4], "audit.jsonl.2": [1, 2]}


@pytest.mark.parametrize("room", [0, 1, 61, 62, 63, 100, 186, 240])
def test_what_of_several_records_is_lost_is_known(path: Path, clock: Clock, room: int) -> None:
    with collected(path, clock) as (audit, later):
        audit.write({"event": "started"})
        later.pass_by()
        with full_at(path.stat().st_size + room):
            for _ in range(5):
                audit.write({"event": "started"})
            later.pass_by()
        length = len(b'{"time":"2026-11-22T12:00:00.250Z","seq":1,"event":"started"}\n')
        assert (audit.records, audit.failures) == (1 + min(5, room // length), 1)
        assert audit.records + audit.drops == 6
        audit.write({"event": "stopped"})
        audit.flush()
    records, rest = readable(path)
    torn = [number for record in records for number in record.get("torn", ())]
    assert sorted({*numbers(records), *torn}) == [*range(1, records[-1]["seq"] + 1)]
    assert len(torn) == (1 if room % length else 0) and len(rest) <= len(torn)
    assert records[-1]["event"] == "stopped"


@pytest.mark.parametrize("mode", ["required", "off"])
def test_what_is_required_never_waits(path: Path, clock: Clock, mode: Mode) -> None:
    with opened(path, mode, clock=clock) as audit:
        later = Later()
        audit.batch(later)
        for required in (True, False):
            audit.write({"event": "request.accepted"}, required=required)
        assert audit.records == (2 if mode == "required" else 0)
        assert later.due == []


@given(fields=st.dictionaries(st.text(max_size=5), json_values, max_size=70))
def test_what_is_usual_needs_neither_a_cut_nor_an_escape(fields: dict[str, Any]) -> None:
    """The short way and the long way come to the same line."""
    try:
        line = orjson.dumps(fields)
    except TypeError:
        return
    if is_usual(line):
        assert _encode({name: _bounded(value, 0) for name, value in fields.items()}) == line + b"\n"
