"""The audit file: one JSON object a line, in ASCII, append-only.

A line is complete and acknowledged, or ``write`` has raised.  What can go wrong is a write that ends in the middle
(disk full, IO error, a killed process): the torn line stays, is terminated before anything else is written, and the
record ``repaired`` after it says which sequence number is not to be believed.  Every line uses up one sequence number,
so a reader who finds a gap knows that something was taken away.

One process writes a file; it may be renamed or deleted under its feet, which is noticed at the next write.

Where records may be lost anyway (mode ``best_effort``) and somebody has a clock to offer (``batch``), they are
collected for a moment and written together.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from ..protocol.errors import AuditUnavailable

__all__ = ["MAX_FIELD_CHARS", "Audit", "AuditCounts", "Mode", "is_usual"]

_log = logging.getLogger(__name__)

Mode = Literal["required", "best_effort", "off"]

MAX_FIELD_CHARS = 256
_MAX_ENTRIES = 64
_MAX_DEPTH = 8

# How many bytes, and for how many seconds, records are collected before they are written together.
_MAX_BATCH = 64 * 1024
_BATCH_AGE = 0.05

# What the usual record is made with: anything that is no JSON by itself fails, and takes the long way.
_STRICT = (
    orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_BLOCK_CHARS = MAX_FIELD_CHARS // 2

# A full disk fails every record: once a minute says it as well as a thousand times a second.
_SILENCE = 60.0
_ROTATION_PAUSE = 60.0
_MAX_TORN = 32

# Far more than a record can be; a file without a line end in that much is not ours.
_TAIL = 4 * 1024 * 1024
_BLOCK = 64 * 1024


class AuditCounts(Protocol):
    """What metrics read from an audit file."""

    @property
    def records(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def drops(self) -> int: ...


class Audit:
    """An audit file.

    ``records``  records written since the start
    ``failures`` writes that failed
    ``drops``    records that were lost because nobody was told: mode ``best_effort``, or ``required=False``
    ``sequence`` the number of the last line
    """

    __slots__ = (
        "_broken_line", "_clock", "_failed_in_a_row", "_fd", "_head", "_identity", "_is_due", "_keep_files", "_later",
        "_max_file_size", "_millisecond", "_mode", "_path", "_rotate_again", "_second", "_silent_until", "_size",
        "_start", "_torn", "_waiting", "_waiting_size", "drops", "failures", "records", "sequence",
    )  # fmt: skip

    def __init__(
        self,
        path: str | Path,
        mode: Mode = "required",
        max_file_size: int = 64 * 1024 * 1024,
        keep_files: int = 10,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``max_file_size`` in bytes; ``keep_files`` older files stay beside the current one, as PATH.1 (the youngest)
        and so on.  ``clock`` gives seconds since the epoch.  Nothing is opened yet."""
        if keep_files < 1 or max_file_size < 1:
            raise ValueError("an audit file needs at least one older file and one byte")
        self._path = Path(path)
        self._mode = mode
        self._max_file_size = max_file_size
        self._keep_files = keep_files
        self._clock = clock
        self._fd = -1
        self._identity = (0, 0)
        self._size = 0
        # Whether the file ends in the middle of a line, and the numbers of such lines that no record has named yet.
        self._broken_line = False
        self._torn: list[int] = []
        self._failed_in_a_row = 0
        self._silent_until = 0.0
        self._rotate_again = 0.0
        self._second = -1
        self._millisecond = -1
        self._head = b""
        self._start = b""
        # Records that are collected, without their numbers: how many lines there are is known when they are written.
        self._later: Callable[[float, Callable[[], None]], object] | None = None
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_size = 0
        self._is_due = False
        self.records = 0
        self.failures = 0
        self.drops = 0
        self.sequence = 0

    def open(self) -> None:
        """Open or create the file, go on from its last sequence number, repair a torn last line.

        Raises AuditUnavailable in mode ``required``.  In mode ``best_effort`` the next write tries again.
        """
        if self._mode == "off":
            return
        try:
            self._prepare()
        except OSError as error:
            self._failed(error, self._mode == "required")

    def batch(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        """Write records together from now on, in mode ``best_effort``; in the others this does nothing.

        ``later(seconds, call)`` is to call back once, as an event loop's ``call_later`` does.  Records wait for
        that, at most 50 ms, or until they are 64 KiB; ``flush``, ``check`` and ``close`` write them at once.
        """
        if self._mode == "best_effort":
            self._later = later

    def write(self, entry: Mapping[str, object] | bytes, *, required: bool = True) -> int:
        """Append a record and return its sequence number; the line is with the operating system when this returns.

        Raises AuditUnavailable when that failed, the mode is ``required`` and so is this record; otherwise the loss is
        counted in ``drops`` and 0 is returned.  Mode ``off`` writes nothing and returns 0, and so does a record that
        is collected (``batch``).  Raises TypeError for a value that is not JSON.  Strings beyond 256 characters are cut
        and marked.  Bytes are the members of a record in JSON that ``is_usual``, ready to be written.
        """
        if self._mode == "off":
            return 0
        line = (self._beginning(), b",%b}\n" % entry if isinstance(entry, bytes) else _rest(entry))
        if self._later is not None:
            self._waiting.append(line)
            self._waiting_size += len(line[1])
            if self._waiting_size >= _MAX_BATCH:
                self.flush()
            elif not self._is_due:
                self._is_due = True
                self._later(_BATCH_AGE, self._flush_late)
            return 0
        try:
            self._prepare()
            self._write_lines([line])
        except OSError as error:
            self._failed(error, required and self._mode == "required")
            self.drops += 1
            return 0
        return self.sequence

    def flush(self) -> None:
        """Write what is collected.  Never raises OSError; what could not be written is counted in ``drops``."""
        lines, self._waiting, self._waiting_size = self._waiting, [], 0
        if not lines:
            return
        written = 0
        try:
            self._prepare()
            before = self.records
            try:
                self._write_lines(lines)
            finally:
                written = self.records - before
        except OSError as error:
            self._failed(error, False)
        self.drops += len(lines) - written

    def check(self) -> str | None:
        """None when the next record can be written, as far as can be known, else why not.

        After a failure this tries: the record ``resumed`` (or ``repaired``) says that the audit trail goes on.
        """
        if self._mode == "off":
            return None
        self.flush()
        try:
            self._prepare()
        except OSError as error:
            self._failed(error, False)
            return _cause(error)
        return None

    def close(self) -> None:
        """Write what is collected and close the file.  A later write would open it again."""
        self.flush()
        self._close_file()

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- records ------------------------------------------------------------------------------------------------------

    def _flush_late(self) -> None:
        self._is_due = False
        self.flush()

    def _write_lines(self, lines: list[tuple[bytes, bytes]]) -> None:
        """Number the lines and write them: at once where they fit into the file, else one by one."""
        number = self.sequence
        data = b"".join([b"%b%d%b" % (start, number + at, rest) for at, (start, rest) in enumerate(lines, 1)])
        if self._size + len(data) > self._max_file_size:
            if len(lines) > 1:
                for line in lines:
                    self._write_lines([line])
                return
            if self._size:
                self._rotate()
        before = self._size
        try:
            self._append(data)
        except OSError:
            written = data[: self._size - before]
            whole = written.count(b"\n")
            self.sequence += whole
            self.records += whole
            if len(written) > written.rfind(b"\n") + 1:
                self.sequence += 1
                if len(self._torn) < _MAX_TORN:
                    self._torn.append(self.sequence)
            raise
        self.sequence += len(lines)
        self.records += len(lines)

    def _append(self, data: bytes) -> None:
        """All bytes, or OSError.  The one place that writes: what makes a record durable belongs here."""
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            if written:
                self._size += written
                self._broken_line = view[written - 1] != 0x0A
            view = view[written:]

    def _beginning(self) -> bytes:
        """A line up to its number.  The time is RFC 3339 in UTC with milliseconds."""
        now = self._clock()
        second = int(now)
        millisecond = int((now - second) * 1000)
        # The records of a millisecond begin alike, and the two of a quick call are often of the same one.
        if millisecond != self._millisecond or second != self._second:
            if second != self._second:
                self._second = second
                self._head = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
            self._millisecond = millisecond
            self._start = b'%b.%03dZ","seq":' % (self._head, millisecond)
        return self._start

    # -- the file -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make sure that the open file is the one at the path, and that it ends with a line end."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - half the time of Path.stat, and this is done for each record
        except FileNotFoundError:
            status = None
        if status is None or self._fd < 0 or (status.st_dev, status.st_ino) != self._identity:
            self._open_file()
        else:
            self._size = status.st_size
        if self._broken_line or self._torn or self._failed_in_a_row:
            self._recover()

    def _recover(self) -> None:
        if self._broken_line:
            self._append(b"\n")
        record: dict[str, object] = {"event": "repaired", "torn": self._torn} if self._torn else {"event": "resumed"}
        if self._failed_in_a_row:
            record["failed"] = self._failed_in_a_row
        torn = len(self._torn)
        self._write_lines([(self._beginning(), _rest(record))])
        del self._torn[:torn]
        self._failed_in_a_row = 0

    def _open_file(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not blocking: a FIFO at this path must not hold up the gateway before it is refused.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("is not a regular file")
            last, torn = _last_sequence(fd, status.st_size)
            if last is None:
                last = self._last_sequence_before()
        except BaseException:
            os.close(fd)
            raise
        self._close_file()
        identity = (status.st_dev, status.st_ino)
        known = self._broken_line and identity == self._identity
        self._fd = fd
        self._identity = identity
        self._size = status.st_size
        self._broken_line = torn
        self.sequence = max(self.sequence, last)
        if torn and not known:
            self.sequence += 1
            self._torn.append(self.sequence)

    def _last_sequence_before(self) -> int:
        """The last number of the youngest older file: a rotation may have been the last thing that was done."""
        try:
            fd = os.open(self._older(1), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return 0
        try:
            return _last_sequence(fd, os.fstat(fd).st_size)[0] or 0
        finally:
            os.close(fd)

    def _older(self, age: int) -> str:
        return f"{self._path}.{age}"

    def _rotate(self) -> None:
        """Begin a new file.  When that fails the current one goes on, larger than it should be, until it works."""
        now = self._clock()
        if 0 <= self._rotate_again - now <= _ROTATION_PAUSE:
            return
        try:
            # Only up to the first gap, which a rotation that failed half-way may have left: nothing is lost then.
            ages = range(1, self._keep_files)
            free = next((age for age in ages if not Path(self._older(age)).exists()), self._keep_files)
            for age in range(free, 1, -1):
                os.replace(self._older(age - 1), self._older(age))  # noqa: PTH105 - as _prepare
            os.replace(self._path, self._older(1))  # noqa: PTH105
            try:
                self._open_file()
            except OSError:
                os.replace(self._older(1), self._path)  # noqa: PTH105
                raise
        except OSError as error:
            _log.error("%s could not be rotated and goes on growing: %s", self._path, _cause(error))
            self._rotate_again = now + _ROTATION_PAUSE

    # -- failures -----------------------------------------------------------------------------------------------------

    def _failed(self, error: OSError, fatal: bool) -> None:
        self.failures += 1
        self._failed_in_a_row += 1
        now = self._clock()
        if not 0 <= self._silent_until - now <= _SILENCE:
            self._silent_until = now + _SILENCE
            _log.error(
                "audit records cannot be written to %s: %s (%d failures, %d records lost so far)",
                self._path, _cause(error), self.failures, self.drops,
            )  # fmt: skip
        if fatal:
            raise AuditUnavailable(
                "the request cannot be recorded, so it is not served", key="audit.path", headers={"Retry-After": "1"}
            ) from error

    def __repr__(self) -> str:
        return f"<Audit {self._path} {self._mode} seq={self.sequence}>"


def _cause(error: OSError) -> str:
    return error.strerror or str(error)


def _rest(record: Mapping[str, object]) -> bytes:
    """A line behind its number.  Raises TypeError for a value that is not JSON."""
    if "time" in record or "seq" in record:
        raise TypeError("time and seq are the audit file's own")
    try:
        line = orjson.dumps(record, option=_STRICT)
    except orjson.JSONEncodeError:
        line = b""
    if not is_usual(line):
        line = _encode({name: _bounded(value, 0) for name, value in record.items()})
    return b"," + line[1:] if record else line[1:]


def is_usual(line: bytes) -> bool:
    """Whether it is plain that nothing of a line, or of a part of one, has to be cut or escaped: without a look at its
    values, and so False for some of which that is true all the same."""
    # Octets are looked for as numbers: for bytes, ``in`` first makes an error of its own and drops it.
    if not line.isascii() or 0x5C in line or 0x7F in line:
        return False
    size = len(line)
    if size > _MAX_ENTRIES and line.count(b",") >= _MAX_ENTRIES:
        return False
    if size - len(line.translate(None, b"{[")) > _MAX_DEPTH:
        return False
    # A string that is too long would leave one of these blocks without a quotation mark.
    for start in range(0, size - _BLOCK_CHARS, _BLOCK_CHARS):
        if line.find(b'"', start, start + _BLOCK_CHARS) < 0:
            return False
    return size > 0


def _encode(record: Mapping[str, object]) -> bytes:
    """One line of ASCII.  What terminals and line splitters act on (ESC, U+0085, U+2028) comes out escaped."""
    try:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        line = b"\xff"  # lone surrogates, or integers beyond 64 bit
    if not line.isascii():
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    return line.replace(b"\x7f", b"\\u007f") if b"\x7f" in line else line


def _bounded(value: Any, depth: int) -> Any:
    """The value with strings cut at 256 characters, and at most 64 entries in an object or array, 8 levels deep."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= MAX_FIELD_CHARS else _cut(value)
    if kind is int or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, str):
        return _bounded(value[:], depth)
    if depth == _MAX_DEPTH:
        return "..."
    if kind is dict:
        if len(value) > _MAX_ENTRIES:
            value = {**dict(list(value.items())[:_MAX_ENTRIES]), "...": len(value) - _MAX_ENTRIES}
        return {
            name if len(name) <= MAX_FIELD_CHARS else _cut(name): _bounded(member, depth + 1)
            for name, member in value.items()
        }
    if kind is list or kind is tuple:
        items = [_bounded(item, depth + 1) for item in value[:_MAX_ENTRIES]]
        if len(value) > _MAX_ENTRIES:
            items.append(f"...({len(value) - _MAX_ENTRIES})")
        return items
    raise TypeError(f"{kind.__name__} does not belong in an audit record")


def _cut(text: str) -> str:
    return f"{text[:MAX_FIELD_CHARS]}...({len(text) - MAX_FIELD_CHARS})"


def _last_sequence(fd: int, size: int) -> tuple[int | None, bool]:
    """The last number in a file (None when there is none), and whether the file ends in the middle of a line."""
    tail = b""
    position = size
    torn = False
    while position > 0 and len(tail) < _TAIL:
        length = min(_BLOCK, position)
        position -= length
        tail = os.pread(fd, length, position) + tail
        torn = not tail.endswith(b"\n")
        lines = tail.split(b"\n")
        # The first piece may be the end of a line; the last one is empty, or the torn line.
        for line in reversed(lines[0 if position == 0 else 1 : -1]):
            number = _sequence_of(line)
            if number is not None:
                return number, torn
    return None, torn


def _sequence_of(line: bytes) -> int | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    number = record.get("seq") if type(record) is dict else None
    return number if type(number) is int else None
