"""What the doctor found: one line each, under the name of its check."""

from __future__ import annotations

import base64
import binascii
import contextlib
import enum
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..guard.controls import clean

__all__ = ["CHECKS", "GROUPS", "Finding", "Level", "Report", "Shown"]

HIDDEN = "[hidden]"
# What is shorter is no secret, and cannot be told from ordinary text.
_LEAST_SECRET = 4
_MOST_SHOWN = 200


class Level(enum.Enum):
    """``PROBLEM`` does not work through the gateway as it is; ``WARNING`` works and needs a look; ``NOTE`` is worth
    knowing; ``OK`` is as the specification has it."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


GROUPS = (
    "Connection",
    "Protocol",
    "Credentials",
    "Sessions and streams",
    "What it does with wrong requests",
    "HTTP",
    "Definitions",
)

# Every check, with its group.  docs/doctor.md says what each is for.
CHECKS: Mapping[str, str] = {
    check: group
    for group, checks in zip(
        GROUPS,
        (
            ("reachable", "tls", "certificate", "plain-http"),
            ("answer", "discover", "initialize", "revisions", "sse-transport", "server", "one-session"),
            ("credentials", "challenge", "open"),
            (
                "session", "initialized", "answers", "event-ids", "get-stream", "resume", "session-missing",
                "session-unknown", "session-end", "batch-2025-03-26",
            ),
            (
                "accept", "media-type", "origin", "method", "duplicate-member", "syntax", "version", "envelope",
                "mirrored-header", "batch", "get-modern",
            ),
            (
                "keep-alive", "idle", "redirect", "content-type", "compression", "framing", "repeated-header",
                "cookies", "unasked",
            ),
            (
                "list", "list-size", "cache-hints", "tool-names", "tool-schemas", "header-parameters", "characters",
                "json",
            ),
        ),
        strict=True,
    )
    for check in checks
}  # fmt: skip


class Shown:
    """Makes text of strangers fit to be shown: without our secrets, without what nobody sees, and short.

    ``headers`` are the configured header fields, whose values must not come back out, however a server quotes them.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        words = {each for value in headers.values() for each in _secrets(value)}
        longest_first = sorted(words, key=len, reverse=True)
        self._secret = re.compile("|".join(map(_spelled, longest_first)), re.IGNORECASE) if longest_first else None

    def hide(self, text: str) -> str:
        """The text with every secret replaced."""
        return text if self._secret is None else self._secret.sub(HIDDEN, text)

    def __call__(self, value: object, most: int = _MOST_SHOWN) -> str:
        """A value of the server as it may stand in a line.  Cut only after hiding: half a secret is one, too."""
        text = clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[0]
        text = self.hide(" ".join(self.hide(text).split()))
        text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
        return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _spelled(word: str) -> str:
    """A pattern for a word whose characters may be escaped as in URLs, JSON or HTML, each for itself."""
    return "".join(
        each
        if each.isalnum()
        else f"(?:{re.escape(each)}|%{ord(each):02x}|{re.escape(html.escape(each))}|"
        rf"&#0*{ord(each)};|&#x0*{ord(each):x};|\\u{ord(each):04x}|\\{re.escape(each)})"
        for each in word
    )


def _secrets(value: str) -> Iterable[str]:
    """A header's value, and what a server may take out of it: the credentials behind a scheme, user and password."""
    scheme, _, rest = value.partition(" ")
    found = [value, rest.strip()]
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            found += base64.b64decode(rest, validate=True).decode().split(":", 1)
    for piece in re.split(r"[;,]\s*", value):
        found += [piece, piece.partition("=")[2]]
    found += [part for each in tuple(found) for part in re.split(r"[\s,;=\"]+", each) if len(part) > 8]
    return [each for each in found if len(each) >= _LEAST_SECRET]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.  ``advice`` is what to do about it, for the notes below the configuration."""

    check: str
    level: Level
    text: str
    advice: str | None = None

    @property
    def group(self) -> str:
        """The heading that it stands under."""
        return CHECKS[self.check]


@dataclass(slots=True)
class Report:
    """All that was found out about the server at ``url``.

    ``servable``   a gateway can serve it: one of its eras answered in a way that the gateway accepts
    ``speaks``     revision -> how it was answered: "stateless", "sessions", "no sessions" or "sse"
    ``upstream``   the keys of an ``upstreams:`` entry for it; ``name`` is what to call it, ``limits`` keys beside it
    ``requests``   how many were sent;  ``opened`` and ``ended`` count sessions
    """

    url: str
    findings: list[Finding] = field(default_factory=list)
    servable: bool = False
    speaks: dict[str, str] = field(default_factory=dict)
    name: str = "server"
    upstream: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    requests: int = 0
    opened: int = 0
    ended: int = 0

    def add(self, check: str, level: Level, text: str, advice: str | None = None) -> None:
        """Note something; the same finding again is dropped."""
        assert check in CHECKS
        finding = Finding(check, level, text, advice)
        if finding not in self.findings:
            self.findings.append(finding)

    @property
    def notes(self) -> list[str]:
        """What to do about the findings, each once, problems first."""
        order = (Level.PROBLEM, Level.WARNING, Level.NOTE, Level.OK)
        advice = (each.advice for level in order for each in self.findings if each.level is level)
        return list(dict.fromkeys(each for each in advice if each is not None))

    def to_document(self) -> dict[str, Any]:
        """The report for machines, as docs/doctor.md describes it."""
        return {
            "url": self.url,
            "servable": self.servable,
            "speaks": self.speaks,
            "findings": [
                {"group": each.group, "check": each.check, "level": each.level.value, "text": each.text}
                | ({} if each.advice is None else {"advice": each.advice})
                for each in self.findings
            ],
            "configuration": self.configuration,
            "notes": self.notes,
            "requests": self.requests,
            "sessions": {"opened": self.opened, "ended": self.ended},
        }

    @property
    def configuration(self) -> dict[str, Any]:
        """What to write into the gateway's configuration; empty where nothing would help."""
        if not self.upstream:
            return {}
        return {"upstreams": {self.name: self.upstream}} | ({"limits": self.limits} if self.limits else {})
