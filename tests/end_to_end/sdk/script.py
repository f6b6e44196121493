"""What the clients are told to do: one script for each server, the same for every SDK and on every way.

A step is a JSON object: ``do`` is a verb that the client programs know, ``as`` the name that its outcome is kept under.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ANSWERS", "Era", "Server", "Step", "session"]

Era = Literal["legacy", "modern"]
Server = Literal["weather", "everything"]
Step = dict[str, Any]

# What the test user fills in when the server asks.
ANSWERS: dict[Server, dict[str, Any]] = {"weather": {"day": 2, "outdoors": True}, "everything": {"name": "Ada"}}


def _call(kept_as: str, name: str, arguments: dict[str, Any] | None = None, **more: Any) -> Step:
    return {"do": "call", "as": kept_as, "name": name, "arguments": arguments or {}, **more}


def _lists() -> list[Step]:
    return [
        {"do": "list", "what": what, "as": f"list-{what}"} for what in ("tools", "resources", "templates", "prompts")
    ]


def _weather(era: Era) -> list[Step]:
    station = "weather://station/OSL"
    steps = [
        *_lists(),
        _call("structured", "get_forecast", {"city": "Berlin"}),
        _call("tool-error", "get_observations", {"station": "XXX"}),
        _call("unknown-tool", "no_such_tool"),
        _call("progress", "stream_forecast", {"city": "Oslo", "steps": 6, "interval_ms": 100}, progress=True),
        {"do": "logs", "count": 1, "seconds": 1},
        _call("large", "get_report", {"kilobytes": 300}),
        {"do": "read", "uri": station},
        {"do": "read", "uri": "weather://station/XXX", "as": "read-unknown"},
        {"do": "prompt", "name": "travel_brief", "arguments": {"city": "Oslo"}},
        {
            "do": "complete",
            "ref": {"type": "ref/prompt", "name": "travel_brief"},
            "argument": {"name": "city", "value": "b"},
        },
        {
            "do": "complete",
            "ref": {"type": "ref/resource", "uri": "weather://station/{id}"},
            "argument": {"name": "id", "value": "o"},
            "as": "complete-template",
        },
        _call("elicitation", "plan_trip", {"city": "Oslo"}),
        _call("sampling", "summarize_forecast", {"city": "Oslo"}),
        {"do": "read", "uri": "weather://runs", "as": "runs-before"},
        _call("cancel", "stream_forecast", {"city": "Oslo", "steps": 100}, progress=True, cancelAfter=0.3),
        {"do": "until", "uri": "weather://runs", "text": '"running": 0', "seconds": 2, "as": "runs-after"},
    ]
    if era == "legacy":
        steps.append({"do": "ping"})
    else:
        refresh = _call("refresh", "refresh_station", {"station": "OSL"})
        steps.append({"do": "watch", "uri": station, "by": refresh})
    return [*steps, {"do": "close"}]


def _everything() -> list[Step]:
    static = "demo://resource/static/document/features.md"
    return [
        *_lists(),
        _call("echo", "echo", {"message": "snowman \u2603"}),
        _call("structured", "get-structured-content", {"location": "Chicago"}),
        _call("image", "get-tiny-image"),
        _call("tool-error", "get-sum", {"a": "one"}),
        _call("progress", "trigger-long-running-operation", {"duration": 0.6, "steps": 6}, progress=True),
        {"do": "read", "uri": "demo://resource/dynamic/text/7"},
        {"do": "read", "uri": "demo://resource/dynamic/blob/7", "as": "read-blob"},
        {"do": "read", "uri": "demo://nothing", "as": "read-unknown"},
        {"do": "prompt", "name": "args-prompt", "arguments": {"city": "Oslo"}},
        {
            "do": "complete",
            "ref": {"type": "ref/prompt", "name": "completable-prompt"},
            "argument": {"name": "department", "value": "E"},
        },
        _call("elicitation", "trigger-elicitation-request"),
        _call("sampling", "trigger-sampling-request", {"prompt": "Hello"}),
        _call("roots", "get-roots-list"),
        {"do": "level", "level": "debug"},
        {"do": "subscribe", "uri": static},
        _call("updates-on", "toggle-subscriber-updates"),
        {"do": "updates", "count": 1, "seconds": 2},
        _call("logs-on", "toggle-simulated-logging"),
        {"do": "logs", "count": 1, "seconds": 2},
        _call("cancel", "trigger-long-running-operation", {"duration": 5, "steps": 10}, progress=True, cancelAfter=0.3),
        _call("after-cancel", "echo", {"message": "still here"}),
        {"do": "ping"},
        {"do": "close"},
    ]


def session(server: Server, era: Era) -> list[Step]:
    """A whole session with the server, in the era that it is going to be held in."""
    return _weather(era) if server == "weather" else _everything()
