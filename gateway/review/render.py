"""A review in lines for people: what changed as a diff, everything invisible as an escape, and colours on request."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from ..guard.pinning.lock import pretty
from ..guard.pinning.scan import BOMB
from .compare import Item, Status

__all__ = ["render"]

_COLOURS = {"+": "green", "-": "red", "@": "cyan", "!": "yellow"}
# Beyond this, finding out what is the same takes longer than reading it.
_MAX_LINES = 4000


def render(upstream: str, items: Sequence[Item], *, colour: bool) -> Iterator[str]:
    """A line that counts, then each definition that is not as it was approved.  Colours are those of terminals."""
    counts = Counter(item.status for item in items)
    counted = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    yield _style(f"{upstream}: {counted or 'nothing offered'}", colour, bold=True)
    for item in items:
        if item.status is Status.APPROVED and not item.faults:
            continue
        yield ""
        yield _style(f"{item.status.value} {item.family.word} {_quote(item.name)}".rstrip(), colour, bold=True)
        for line in (*_remarks(item), *_diff(item)):
            yield _style(line, colour, fg=_COLOURS.get(line[:1]))


def _remarks(item: Item) -> Iterator[str]:
    for rule in item.faults:
        yield f"! {rule}: withheld, also when approved"
    for rule in item.flags:
        yield f"! {rule}"
    for upstream, name in item.alike:
        yield f"! {'same name as' if name == item.name else 'looks like'} {_quote(name)} of {upstream}"


def _diff(item: Item) -> Iterator[str]:
    if item.status is Status.APPROVED:
        return
    if BOMB in item.faults:
        yield "! too large to be shown"
        return
    old = [] if item.pin is None else _lines(item.pin.definition)
    new = [] if item.offered is None else _lines(item.offered)
    if item.pin is not None:
        yield f"  approved by {_plain(item.pin.approved_by)}, {_plain(item.pin.approved_at)}"
    if len(old) + len(new) > _MAX_LINES:
        yield from (f"-{line}" for line in old)
        yield from (f"+{line}" for line in new)
        return
    for line in difflib.unified_diff(old, new, lineterm="", n=3):
        if not line.startswith(("---", "+++")):
            yield line


def _lines(definition: Any) -> list[str]:
    return pretty(definition, ordered=True).split("\n")


def _quote(name: str) -> str:
    return pretty(name) if name else ""


def _plain(text: str) -> str:
    return pretty(text)[1:-1]


def _style(line: str, colour: bool, *, fg: str | None = None, bold: bool | None = None) -> str:
    return click.style(line, fg=fg, bold=bold) if colour and (fg or bold) else line
