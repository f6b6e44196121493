"""A case as the file has it: its bytes, and what is expected of them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ALTERNATIVES", "Case", "Unusable", "load", "load_context", "materialize"]

TRANSPORTS = ("http", "jsonrpc", "sse", "tool_def", "result")
OUTCOMES = ("reject", "allow", "redact", "flag")
ALTERNATIVES = {
    "or_neutralized": "neutralized",
    "or_rejected": "reject",
    "or_redacted": "redact",
    "or_flagged": "flag",
    "or_allowed": "allow",
}
# Every field is either played or judged; an unknown one could mean anything, so a case with one is not passed over.
FIELDS = {
    "id", "category", "transport", "input", "input_encoding", "expected", "why", "status", "status_any", "jsonrpc_code",
    "must_contain", "must_not_contain", "upstream_must_not_contain", "audit_must_not_contain",
    "audit_must_not_have_line", "metrics_must_not_contain", "era", "side", "headers", "auth", "setup", "chunks", "pace",
    "max_ms", "max_memory_growth_mb", "difficulty", "partial", *ALTERNATIVES,
}  # fmt: skip


class Unusable(Exception):
    """A file that cannot be read as what it should be; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the file.  ``data`` is the bytes of the input, ``fields`` the rest as it was written."""

    id: str
    category: str
    transport: str
    expected: str
    data: bytes
    fields: Mapping[str, Any]

    @property
    def hard(self) -> bool:
        """Content detection beyond exact matching: reported apart, and no failure."""
        return bool(self.fields.get("difficulty") == "hard")

    @property
    def benign(self) -> bool:
        """Honest traffic, which has to pass."""
        return self.expected == "allow"

    @property
    def era(self) -> str:
        """``modern`` (2026-07-28) or ``legacy`` (2025-11-25, with a session)."""
        return str(self.fields.get("era") or "modern")

    @property
    def asks(self) -> bool:
        """Whether the input is what a client sends, and not what a server answers."""
        return self.transport == "jsonrpc" or (self.transport == "http" and self.fields.get("side") != "upstream")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What is acceptable, the first choice first."""
        return (self.expected, *(outcome for key, outcome in ALTERNATIVES.items() if self.fields.get(key)))

    def words(self, field: str) -> tuple[str, ...]:
        """The strings of a field that holds one or several."""
        value = self.fields.get(field)
        return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def load(path: Path) -> list[Case]:
    """All cases of a file, one JSON object a line.  Raises Unusable."""
    cases = []
    try:
        # Only line feeds end lines: a case may hold every other line separator as text.
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                cases.append(_case(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise Unusable(f"{path}:{number}: {type(error).__name__}: {error}") from None
    if len({case.id for case in cases}) != len(cases):
        raise Unusable(f"{path}: an id comes twice")
    if not cases:
        raise Unusable(f"{path}: no cases")
    return cases


def _case(fields: dict[str, Any]) -> Case:
    if unknown := set(fields) - FIELDS:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    if fields["transport"] not in TRANSPORTS or fields["expected"] not in OUTCOMES:
        raise ValueError(f"transport {fields['transport']!r}, expected {fields['expected']!r}")
    if fields.get("era") not in (None, "legacy", "modern") or fields.get("side") not in (None, "client", "upstream"):
        raise ValueError(f"era {fields.get('era')!r}, side {fields.get('side')!r}")
    return Case(
        id=fields["id"],
        category=fields["category"],
        transport=fields["transport"],
        expected=fields["expected"],
        data=materialize(fields),
        fields=fields,
    )


def materialize(fields: Mapping[str, Any]) -> bytes:
    """The exact bytes of an input.  Raises ValueError."""
    encoding, value = fields.get("input_encoding", "text"), fields["input"]
    match encoding:
        case "text":
            return bytes(value.encode("utf-8"))
        case "base64":
            return base64.b64decode(value, validate=True)
        case "segments":
            return _segments(json.loads(value) if isinstance(value, str) else value)
    raise ValueError(f"input_encoding {encoding!r}")


def _segments(segments: list[dict[str, Any]]) -> bytes:
    parts: list[bytes] = []
    for segment in segments:
        match segment:
            case {"s": text}:
                parts.append(text.encode())
            case {"b64": text}:
                parts.append(base64.b64decode(text))
            case {"repeat": text, "n": times}:
                parts.append(text.encode() * times)
            case {"seq": text, "n": times}:
                parts.append("".join(text.replace("{i}", str(i)) for i in range(times)).encode())
            case {"gzip": inner}:
                parts.append(gzip.compress(_segments(inner), 9, mtime=0))
            case _:
                raise ValueError(f"a segment with {sorted(segment)}")
    return b"".join(parts)


def load_context(path: Path) -> dict[str, Any]:
    """The scenario that every case assumes.  Raises Unusable."""
    try:
        context = json.loads(path.read_text("utf-8"))["context"]
        assert isinstance(context["clients"], dict)
        assert isinstance(context["listener"]["host_names"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise Unusable(f"{path}: {type(error).__name__}: {error}") from None
    return dict(context)
