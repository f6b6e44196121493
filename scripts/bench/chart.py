"""The results as a chart: a panel for each of the figures that matter most, a bar for each subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from .measures import Results

__all__ = ["svg"]

WIDTH, PANEL, BAR, GAP, TITLE = 1000, 480, 18, 6, 52
NAMES, VALUES = 140, 70
OURS, THEIRS, BARE = "#0b6e99", "#b8bec6", "#7d8794"
INK, FAINT = "#1f2933", "#6b7280"


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    hint: str
    value: Callable[[Results, str], Any]


def _calls(results: Results, name: str) -> float:
    return 1e6 / float(results[name]["cpu_us_per_call"]["16"])


PANELS = (
    _Panel("Calls per second of processor time", "16 connections; more is better", _calls),
    _Panel("Calls per second", "16 connections; more is better", lambda found, name: found[name]["calls_per_s"]["16"]),
    _Panel(
        "Processor time an event, us",
        "one stream, 1,000 events a second; less is better",
        lambda found, name: found[name]["cpu_us_per_event"]["1"],
    ),
    _Panel(
        "First event, ms later than direct",
        "median; less is better",
        lambda found, name: found[name]["first_event_added_ms"],
    ),
    _Panel("Result of 10 MB, MB/s", "more is better", lambda found, name: found[name]["big_mb_per_s"]),
    _Panel(
        "Idle session with its stream, KiB", "less is better", lambda found, name: found[name]["kib_per_idle_stream"]
    ),
)


def svg(results: Results) -> str:
    """The chart; panels without figures are left out."""
    panels = [(panel, bars) for panel in PANELS if (bars := _bars(panel, results))]
    parts, bottom = [], 16
    for row in range(0, len(panels), 2):
        pair = panels[row : row + 2]
        for column, (panel, bars) in enumerate(pair):
            parts += _drawn(panel, bars, 16 + column * (PANEL + 16), bottom)
        bottom += TITLE + max(len(bars) for _, bars in pair) * (BAR + GAP) + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" height="{bottom}" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{bottom}" fill="#ffffff"/>', *parts, "</svg>\n"])


def _bars(panel: _Panel, results: Results) -> list[tuple[str, float]]:
    bars = []
    for name in results:
        try:
            bars.append((name, float(panel.value(results, name))))
        except (KeyError, ZeroDivisionError):
            continue
    return bars


def _drawn(panel: _Panel, bars: list[tuple[str, float]], left: int, top: int) -> Iterator[str]:
    most = max(max(value for _, value in bars), 1e-9)
    room = PANEL - NAMES - VALUES
    yield f'<text x="{left}" y="{top + 14}" font-size="14" font-weight="600" fill="{INK}">{escape(panel.title)}</text>'
    yield f'<text x="{left}" y="{top + 31}" fill="{FAINT}">{escape(panel.hint)}</text>'
    for number, (name, value) in enumerate(bars):
        y = top + TITLE - 8 + number * (BAR + GAP)
        length = max(value, 0) / most * room
        colour = OURS if name.startswith("gateway") else BARE if name.endswith("-relay") else THEIRS
        yield f'<text x="{left + NAMES - 8}" y="{y + 13}" text-anchor="end" fill="{INK}">{escape(name)}</text>'
        yield f'<rect x="{left + NAMES}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
        yield f'<text x="{left + NAMES + length + 6:.1f}" y="{y + 13}" fill="{INK}">{_figure(value)}</text>'


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
