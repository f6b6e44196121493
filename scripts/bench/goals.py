"""What the gateway is meant to reach, as ratios and bounds within one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .measures import Results

__all__ = ["GOALS", "Goal", "judged"]

# Connections at which CPU per call is compared.
AT = "16"


@dataclass(frozen=True, slots=True)
class Goal:
    """``measure`` gives the figure, from the results by subject; KeyError means that it was not measured."""

    name: str
    target: float
    unit: str
    at_least: bool
    measure: Callable[[Results], float]

    def is_met(self, figure: float) -> bool:
        """Whether the figure is as good as it is meant to be."""
        return figure >= self.target if self.at_least else figure <= self.target


def _calls_per_cpu(subject: str, other: str) -> Callable[[Results], float]:
    """How many times the other's calls a subject makes of a second of processor time."""
    return lambda results: results[other]["cpu_us_per_call"][AT] / results[subject]["cpu_us_per_call"][AT]


def _per_event(results: Results) -> float:
    return float(results["gateway"]["cpu_us_per_event"]["1"] / results["aiohttp-relay"]["cpu_us_per_event"]["1"])


def _flat(key: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        figures = results["gateway"][key]
        return float(figures[max(figures, key=int)] / figures["1"])

    return ratio


def _linear(results: Results) -> float:
    figures = results["gateway"]["flood_cpu_us_per_event"]
    return float(figures["1"] / figures["tenth"])


def _largest(results: Results) -> dict[str, Any]:
    big = results["gateway"]["big"]
    return dict(big["1GB"] if "1GB" in big else big["100MB"])


GOALS = (
    Goal(
        "full lane: calls per CPU second / aiohttp-relay",
        0.85,
        "x",
        True,
        _calls_per_cpu("gateway-full-lane", "aiohttp-relay"),
    ),
    Goal(
        "short lane: calls per CPU second / aiohttp-relay", 3.0, "x", True, _calls_per_cpu("gateway", "aiohttp-relay")
    ),
    Goal("short lane: calls per CPU second / nginx (an aim)", 0.5, "x", True, _calls_per_cpu("gateway", "nginx")),
    Goal(
        "first event, added at the median", 1.0, "ms", False, lambda results: results["gateway"]["first_event_added_ms"]
    ),
    Goal("CPU per event / aiohttp-relay", 3.0, "x", False, _per_event),
    Goal("CPU per event, most streams / one", 1.5, "x", False, _flat("cpu_us_per_event")),
    Goal("delay of events, most streams / one", 3.0, "x", False, _flat("event_p50_ms")),
    Goal("CPU per event of a flood, ten times as many / one", 1.3, "x", False, _linear),
    Goal("10 MB result", 200.0, "MB/s", True, lambda results: results["gateway"]["big_mb_per_s"]),
    Goal("largest result, memory above idle", 16.0, "MiB", False, lambda results: _largest(results)["peak_rss_mib"]),
    Goal(
        "largest result, CPU per MB / 10 MB result",
        1.5,
        "x",
        False,
        lambda results: _largest(results)["cpu_ms_per_mb"] / results["gateway"]["big"]["10MB"]["cpu_ms_per_mb"],
    ),
    Goal("idle session with its stream", 20.0, "KiB", False, lambda results: results["gateway"]["kib_per_idle_stream"]),
)


def judged(results: Results) -> list[dict[str, Any]]:
    """Each goal with target, measured figure (None where it was not measured), and whether it is met."""
    found = []
    for goal in GOALS:
        try:
            figure = float(f"{goal.measure(results):.4g}")
        except (KeyError, ZeroDivisionError):
            figure = None
        found.append(
            {
                "goal": goal.name,
                "target": goal.target,
                "unit": goal.unit,
                "bound": "at least" if goal.at_least else "at most",
                "measured": figure,
                "met": None if figure is None else goal.is_met(figure),
            }
        )
    return found
