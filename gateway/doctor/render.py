"""The report as text for people, and the configuration as YAML."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from .report import GROUPS, Level, Report

__all__ = ["render"]

_WIDTH = 118
_LABELS = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "warning", Level.PROBLEM: "PROBLEM"}


def render(report: Report) -> str:
    """Groups with a line for each finding, what to configure, and what was done."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"mcpgw doctor: {report.url}"
    for group in GROUPS:
        findings = [each for each in report.findings if each.group == group]
        if not findings:
            continue
        yield ""
        yield group
        for each in findings:
            yield from _wrapped(f"  {_LABELS[each.level]:<8}", each.text)
    yield ""
    yield "What to configure"
    if report.configuration:
        yield from ("  " + line for line in _yaml(report.configuration))
    elif not report.servable:
        yield "  Nothing yet: the gateway cannot serve this as it is."
    for note in report.notes:
        yield from _wrapped("  - ", note)
    yield ""
    yield f"Result: {verdict(report)}"
    ended = "" if not report.opened else f" {report.ended} of {report.opened} sessions were ended with DELETE."
    yield f"{report.requests} requests were sent. No tool was called, no resource read.{ended}"


def verdict(report: Report) -> str:
    """One sentence."""
    if not report.servable:
        if any(each.check == "credentials" for each in report.findings):
            return "nothing can be told without credentials that the server accepts."
        return "a gateway cannot serve this."
    speaks = ", ".join(f"{name} ({how})" for name, how in sorted(report.speaks.items()))
    problems = sum(each.level is Level.PROBLEM for each in report.findings)
    count = {0: "", 1: " 1 problem is named above."}.get(problems, f" {problems} problems are named above.")
    return f"a gateway can serve this: {speaks}.{count}"


def _wrapped(start: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, _WIDTH - len(start), break_long_words=False, break_on_hyphens=False) or [""]
    yield start + lines[0]
    for line in lines[1:]:
        yield " " * len(start) + line


def _yaml(value: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """Mappings of texts, truths and mappings.  Texts are quoted as JSON has them, which is YAML."""
    for name, each in value.items():
        # Bare where no reader takes it for anything but text.
        bare = re.fullmatch("(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z_][A-Za-z_-]*", name)
        start = "  " * depth + (name if bare else json.dumps(name)) + ":"
        if isinstance(each, dict):
            yield start
            yield from _yaml(each, depth + 1)
        else:
            yield f"{start} {json.dumps(each)}"
