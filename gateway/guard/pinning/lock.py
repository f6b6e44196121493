"""Lock files: which definitions of an upstream somebody has approved, who, and when.

They are made for version control: JSON, one member a line, sorted, so that what changed is what a diff shows.  Each
entry holds the definition itself; reading a file checks that the digest is that of the definition, so that what was
read by people is what is let through.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import re2  # type: ignore[import-untyped]

from ...wire.errors import PeerError
from ...wire.strict import Limits, Twins, parse
from ..controls import SUSPECT_RE2
from .definition import FAMILIES, INSTRUCTIONS, digest

__all__ = ["DEFAULT_FOLDER", "Key", "Lock", "LockError", "Pin", "lock_file", "pretty", "read", "read_folder", "write"]

DEFAULT_FOLDER = "config/pins"
_SUFFIX = ".lock"
_VERSION = 1
# An upstream's list is at most a message, limits.max_message_size; a lock is its text with indentation.
_MAX_BYTES = 256 << 20
_LIMITS = Limits(depth=200, nodes=10_000_000, number_chars=308)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)

Key = tuple[str, str]
"""The word of a family and a name; the name of instructions is empty."""


class LockError(ValueError):
    """A lock file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One approved definition.  ``approved_at`` is UTC in ISO 8601."""

    definition: Any
    digest: str
    approved_by: str
    approved_at: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The approved definitions of an upstream."""

    pins: Mapping[Key, Pin]


def lock_file(folder: str | Path, upstream: str) -> Path:
    """Where an upstream's lock is."""
    return Path(folder, upstream + _SUFFIX)


def read(path: Path) -> Lock | None:
    """The lock, or None where there is no such file.  Raises LockError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise LockError(f"{path}: larger than {_MAX_BYTES} bytes")
    try:
        return _parse(content)
    except (LockError, PeerError) as error:
        raise LockError(f"{path}: {error}") from None


def read_folder(folder: Path) -> dict[str, Lock]:
    """The locks of a folder, by upstream; none where there is no such folder.  Raises LockError."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX and _NAME.fullmatch(path.stem))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LockError(f"{folder}: cannot be read: {error.strerror}") from None
    locks = {path.stem: read(path) for path in paths}
    return {upstream: lock for upstream, lock in locks.items() if lock is not None}


# Each upstream's hook reads the locks of all; equal bytes are parsed once.
@functools.lru_cache(maxsize=256)
def _parse(content: bytes) -> Lock:
    document = parse(content, _LIMITS, twins=Twins.PROTOCOL)
    if type(document) is not dict or document.get("version") != _VERSION:
        raise LockError(f"expected an object with version {_VERSION}")
    pins: dict[Key, Pin] = {}
    for family in FAMILIES:
        entries = document.get(family.listing or family.word, [])
        if family is INSTRUCTIONS:
            entries = [entries] if entries else []
        if type(entries) is not list:
            raise LockError(f"expected a list: {family.listing}")
        for position, entry in enumerate(entries):
            where = f"{family.listing or family.word}.{position}"
            name, pin = _entry(entry, where, named=bool(family.listing))
            if (family.word, name) in pins:
                raise LockError(f"{where}: the same name once more")
            pins[family.word, name] = pin
    unknown = document.keys() - {"version", *(family.listing or family.word for family in FAMILIES)}
    if unknown:
        raise LockError(f"unknown members: {', '.join(sorted(unknown))}")
    return Lock(MappingProxyType(pins))


def _entry(entry: Any, where: str, *, named: bool) -> tuple[str, Pin]:
    members = ("digest", "approved_by", "approved_at")
    if type(entry) is not dict or not all(type(entry.get(member)) is str for member in members):
        raise LockError(f"{where}: expected {', '.join(members)}, and the definition")
    pin = Pin(entry.get("definition"), *(entry[member] for member in members))
    name = pin.definition.get("name") if named and type(pin.definition) is dict else ""
    if type(name) is not str or named != (type(pin.definition) is dict):
        raise LockError(f"{where}: the definition is none")
    if digest(pin.definition) != pin.digest:
        raise LockError(f"{where}: the digest is not that of the definition; approve it again")
    return name, pin


def write(path: Path, lock: Lock) -> None:
    """Replace the file in one step: whoever reads it meanwhile reads the old one or the new one.  Raises OSError."""
    document: dict[str, Any] = {"version": _VERSION}
    for family in FAMILIES:
        entries = [
            {
                **({"name": name} if family.listing else {}),
                "digest": pin.digest,
                "approved_by": pin.approved_by,
                "approved_at": pin.approved_at,
                "definition": pin.definition,
            }
            for (word, name), pin in sorted(lock.pins.items())
            if word == family.word
        ]
        if entries:
            document[family.listing or family.word] = entries if family.listing else entries[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(pretty(_ordered(document)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _ordered(value: Any) -> Any:
    """Definitions with their members sorted; the rest in the order of writing."""
    if type(value) is dict:
        return {name: _sorted(each) if name == "definition" else _ordered(each) for name, each in value.items()}
    return [_ordered(each) for each in value] if type(value) is list else value


def _sorted(value: Any) -> Any:
    if type(value) is dict:
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if type(value) is list else value


_UNSEEN = re2.compile(SUSPECT_RE2 + r"|[\x{d800}-\x{dfff}]|\p{C}|[^\P{Z} ]")


def pretty(document: Any, *, ordered: bool = False) -> str:
    """JSON for people: indented, and with an escape for every character that they would not see."""
    document = _sorted(document) if ordered else document
    lines = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False).split("\n")
    return "\n".join(_UNSEEN.sub(_escape, line) for line in lines)


def _escape(match: Any) -> str:
    return json.dumps(match.group())[1:-1]
