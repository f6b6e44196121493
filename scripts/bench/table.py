"""The results as a table of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .measures import PACE, Results

__all__ = ["text"]

GONE = "-"


def text(results: Results, goals: Sequence[dict[str, Any]], failures: dict[str, str]) -> str:
    """The whole of what is printed."""
    parts = [
        _section("Small tools/call", _calls(results)),
        _section("Small tools/call, p50 / p99 in ms", _waits(results)),
        _section("Event streams, as fast as they come; the first event of a short one", _streams(results)),
        _section(
            f"Event streams, {PACE:,} events a second altogether: p50 / p99 in ms, CPU us an event", _paced(results)
        ),
        _section("Large results", _large(results)),
        _section("Idle", _idle(results)),
        _hooks(results.get("gateway", {})),
        _section("Goals", _goals(goals)),
    ]
    lines = [f"FAILED {name}: {reason}" for name, reason in failures.items()]
    return "\n\n".join([part for part in parts if part] + (["\n".join(lines)] if lines else []))


def _section(title: str, rows: list[list[str]]) -> str:
    """A title and aligned columns; nothing where there is but a header."""
    if len(rows) < 2 or all(cell == GONE for row in rows[1:] for cell in row[1:]):
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([f"== {title}", lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _get(found: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _figure(value: Any) -> str:
    if value is None:
        return GONE
    if isinstance(value, str):
        return value
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _at(results: Results, key: str) -> list[str]:
    """The numbers of connections or streams for which there are figures."""
    return sorted({at for found in results.values() for at in found.get(key, {})}, key=int)


def _ratio(found: dict[str, Any], base: dict[str, Any], key: str, at: str) -> str:
    ours, theirs = _get(found, key, at), _get(base, key, at)
    return f"{theirs / ours:.2f}" if ours and theirs else GONE


def _slashed(values: Iterable[Any]) -> str:
    figures = [_figure(value) for value in values]
    return GONE if all(figure == GONE for figure in figures) else " / ".join(figures)


def _calls(results: Results) -> list[list[str]]:
    levels = _at(results, "calls_per_s")
    head = ["connections:", *(f"calls/s {at}" for at in levels)]
    head += [f"CPU us {at}" for at in levels] + ["x aiohttp"]
    base = results.get("aiohttp-relay", {})
    rows = [head]
    for name, found in results.items():
        row = [name, *(_figure(_get(found, "calls_per_s", at)) for at in levels)]
        row += [_figure(_get(found, "cpu_us_per_call", at)) for at in levels]
        rows.append([*row, _ratio(found, base, "cpu_us_per_call", "16")])
    return rows


def _waits(results: Results) -> list[list[str]]:
    levels = _at(results, "p50_ms")
    rows = [["connections:", *levels]]
    return rows + [
        [name, *(_slashed((_get(found, "p50_ms", at), _get(found, "p99_ms", at))) for at in levels)]
        for name, found in results.items()
    ]


def _streams(results: Results) -> list[list[str]]:
    floods = _at(results, "sse_events_per_s")
    head = ["streams:", *(f"events/s {at}" for at in floods), *(f"CPU us {at}" for at in floods)]
    head += ["first p50 / p99 ms", "added ms"]
    rows = [head]
    for name, found in results.items():
        row = [name, *(_figure(_get(found, "sse_events_per_s", at)) for at in floods)]
        row += [_figure(_get(found, "flood_cpu_us_per_event", at)) for at in floods]
        row += [_slashed((found.get("first_event_ms"), found.get("first_event_p99_ms")))]
        rows.append([*row, _figure(found.get("first_event_added_ms"))])
    return rows


def _paced(results: Results) -> list[list[str]]:
    paced = _at(results, "event_p50_ms")
    rows = [["streams:", *(f"ms {at}" for at in paced), *(f"CPU us {at}" for at in paced)]]
    for name, found in results.items():
        row = [name]
        row += [_slashed((_get(found, "event_p50_ms", at), _get(found, "event_p99_ms", at))) for at in paced]
        rows.append([*row, *(_figure(_get(found, "cpu_us_per_event", at)) for at in paced)])
    return rows


def _large(results: Results) -> list[list[str]]:
    labels = list(dict.fromkeys(label for found in results.values() for label in found.get("big", {})))
    rows = [["subject", *(head for label in labels for head in (f"{label} MB/s", "1st byte ms", "+MiB"))]]
    for name, found in results.items():
        row = [name]
        for label in labels:
            if "refused" in found.get("big", {}).get(label, {}):
                row += ["refused", GONE, GONE]
            else:
                row += [
                    _figure(_get(found, "big", label, key)) for key in ("mb_per_s", "first_byte_ms", "peak_rss_mib")
                ]
        rows.append(row)
    return rows


def _idle(results: Results) -> list[list[str]]:
    keys = ("idle_rss_mib", "kib_per_idle_stream", "idle_cpu_percent")
    rows = [["subject", "idle MiB", "KiB a session + stream", "idle CPU %"]]
    return rows + [[name, *(_figure(found.get(key)) for key in keys)] for name, found in results.items()]


def _hooks(found: dict[str, Any]) -> str:
    if "cpu_us_per_hook" not in found:
        return ""
    rows = [["CPU us a call", ""], ["policy alone", _figure(found["cpu_us_policy_alone"])]]
    rows += [[f"+ {name}", _figure(value)] for name, value in found["cpu_us_per_hook"].items()]
    rows += [["+ a rule of one's own", f"{found['cpu_us_per_rule']:.3f}" if "cpu_us_per_rule" in found else GONE]]
    return _section("What a hook adds (gateway)", rows)


def _goals(goals: Sequence[dict[str, Any]]) -> list[list[str]]:
    said = {True: "met", False: "MISSED", None: "not measured"}
    return [["goal", "target", "measured", ""]] + [
        [
            goal["goal"],
            f"{goal['bound']} {goal['target']:g} {goal['unit']}",
            _figure(goal["measured"]),
            said[goal["met"]],
        ]
        for goal in goals
    ]
