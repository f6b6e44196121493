"""A weather MCP server on the official SDK: what the demonstration and the interop tests put behind the gateway.

It serves every protocol revision that the SDK knows on one endpoint, ``http://127.0.0.1:PORT/mcp``, and holds one of
each thing that a gateway has to carry: structured results, progress, log messages, questions to the user, sampling,
resources, templates, prompts, completion, subscriptions.  The weather is computed from the names: nothing is fetched,
and the same question always has the same answer.

With ``WEATHER_TOKEN`` in the environment it accepts only requests that carry this token, so that a caller who goes
round the gateway gets nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import socket
import sys
import warnings
import zlib
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import (
    AcceptedElicitation,
    AssistantMessage,
    Context,
    Elicit,
    ElicitationResult,
    MCPServer,
    Message,
    Resolve,
    Sample,
    UserMessage,
)
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    CreateMessageResult,
    LoggingLevel,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["build", "main"]

STATIONS = {
    "BER": ("Berlin", 34),
    "LIS": ("Lisbon", 2),
    "OSL": ("Oslo", 23),
    "SYD": ("Sydney", 39),
}
SKIES = ("clear", "cloudy", "rain", "fog", "snow", "storm")
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


class Day(BaseModel):
    """One day of a forecast."""

    day: int = Field(description="Days from today")
    sky: str
    high_celsius: int
    low_celsius: int


class Forecast(BaseModel):
    """What get_forecast answers."""

    city: str
    days: list[Day]


class Observation(BaseModel):
    """What get_observations answers."""

    station: str
    city: str
    temperature_celsius: float
    humidity_percent: int
    wind_kmh: int


class TripAnswers(BaseModel):
    """What plan_trip asks the user for."""

    day: int = Field(ge=0, le=6, description="Days from today")
    outdoors: bool = Field(description="Will you be outdoors?")


def _number(*parts: object, below: int) -> int:
    """A number in 0..below-1 that depends on the parts alone."""
    return zlib.crc32("/".join(map(str, parts)).encode()) % below


def _day(city: str, day: int) -> Day:
    low = _number(city.lower(), day, "low", below=25) - 5
    sky = SKIES[_number(city.lower(), day, "sky", below=len(SKIES))]
    return Day(day=day, sky=sky, low_celsius=low, high_celsius=low + 3 + _number(city.lower(), day, "high", below=9))


def _observation(station: str) -> Observation:
    city, altitude = STATIONS[station]
    return Observation(
        station=station,
        city=city,
        temperature_celsius=_number(station, altitude, "temperature", below=300) / 10,
        humidity_percent=40 + _number(station, "humidity", below=60),
        wind_kmh=_number(station, "wind", below=80),
    )


def _station(station: str) -> str:
    if station not in STATIONS:
        raise ToolError(f"no such station: {station}; there are {', '.join(sorted(STATIONS))}")
    return station


async def _log(context: Context, level: LoggingLevel, text: str) -> None:
    with warnings.catch_warnings():
        # Deprecated in 2026-07-28, and still what clients of every revision have to be served.
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        await context.log(level, text, logger_name="weather")


async def ask_for_trip(city: str) -> Elicit[TripAnswers]:
    return Elicit(f"When are you going to {city}?", TripAnswers)


async def ask_for_summary(city: str) -> Sample:
    days = "; ".join(f"day {d.day}: {d.sky}, {d.low_celsius} to {d.high_celsius} C" for d in _days(city, 3))
    question = SamplingMessage(role="user", content=TextContent(type="text", text=f"Summarise for {city}: {days}"))
    return Sample([question], max_tokens=100, system_prompt="You write one short sentence.")


def _days(city: str, count: int) -> list[Day]:
    return [_day(city, day) for day in range(count)]


def build() -> MCPServer:
    """The server with everything registered."""
    server = MCPServer(
        "weather",
        title="Weather",
        version="1.0.0",
        instructions="Forecasts and observations. Stations are named by three letters.",
        log_level="WARNING",
    )
    runs = {"started": 0, "finished": 0, "cancelled": 0}
    _add_tools(server, runs)
    _add_asking_tools(server)
    _add_risky_tools(server)
    _add_resources(server, runs)
    _add_prompts(server)
    return server


def _add_tools(server: MCPServer, runs: dict[str, int]) -> None:
    @server.tool(annotations=READ_ONLY)
    def get_forecast(city: str, days: Annotated[int, Field(ge=1, le=14)] = 3) -> Forecast:
        """The forecast for a city."""
        return Forecast(city=city, days=_days(city, days))

    @server.tool(annotations=READ_ONLY)
    def get_observations(station: str) -> Observation:
        """What a station measures now."""
        return _observation(_station(station))

    @server.tool(annotations=READ_ONLY)
    async def stream_forecast(
        city: str,
        context: Context,
        steps: Annotated[int, Field(ge=1, le=500)] = 10,
        interval_ms: Annotated[int, Field(ge=0, le=60_000)] = 200,
    ) -> Forecast:
        """A forecast computed step by step: a progress notification for each, a log message at the end."""
        runs["started"] += 1
        try:
            for step in range(1, steps + 1):
                await asyncio.sleep(interval_ms / 1000)
                await context.report_progress(step, steps, f"model run {step} of {steps} for {city}")
        except asyncio.CancelledError:
            runs["cancelled"] += 1
            raise
        runs["finished"] += 1
        await _log(context, "info", f"{steps} model runs for {city} are done")
        return Forecast(city=city, days=_days(city, 3))

    @server.tool(annotations=READ_ONLY)
    async def get_report(kilobytes: Annotated[int, Field(ge=1, le=32_768)] = 1) -> str:
        """A long report of the size that is asked for."""
        line = "".join(f"{name} {_observation(name).temperature_celsius:5.1f} C; " for name in sorted(STATIONS))
        return (line * (kilobytes * 1024 // len(line) + 1))[: kilobytes * 1024]

    @server.tool()
    async def refresh_station(station: str, context: Context) -> str:
        """Measure again, and tell everyone who has subscribed to the station."""
        await context.notify_resource_updated(f"weather://station/{_station(station)}")
        return f"{station} has been measured again"


def _add_asking_tools(server: MCPServer) -> None:
    # The SDK sends the question the way the revision has it: as a request of the server up to 2025-11-25, and as an
    # input_required result from 2026-07-28 on.
    @server.tool()
    async def plan_trip(city: str, answers: Annotated[ElicitationResult[TripAnswers], Resolve(ask_for_trip)]) -> str:
        """Advice for a trip; asks the user when it will be."""
        if not isinstance(answers, AcceptedElicitation):
            return f"No plan for {city}: the user said {answers.action}."
        day = _day(city, answers.data.day)
        wet = answers.data.outdoors and day.sky in ("rain", "storm", "snow")
        advice = "take an umbrella" if wet else "go as you are"
        return f"{city} on day {day.day}: {day.sky}, {day.low_celsius} to {day.high_celsius} C; {advice}."

    @server.tool()
    async def summarize_forecast(city: str, summary: Annotated[CreateMessageResult, Resolve(ask_for_summary)]) -> str:
        """A summary that the client's own model writes."""
        text = summary.content.text if isinstance(summary.content, TextContent) else "(no text)"
        return f"{summary.model} says: {text}"


def _add_risky_tools(server: MCPServer) -> None:
    @server.tool(annotations=READ_ONLY)
    def get_station_config(station: str) -> dict[str, Any]:
        """How a station is set up.  Carelessly, it tells the credentials too."""
        return {
            "station": _station(station),
            "interval_seconds": 60,
            "upload": {
                "bucket": "observations",
                "aws_access_key_id": "AKIA" + "QYLPMN5HHHFPZAM2",  # made up; in two parts for scanners of source code
                "password": "correct-horse-battery-staple",
            },
        }

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def delete_station(station: str) -> str:
        """Take a station out of service."""
        return f"{_station(station)} is out of service"


def _add_resources(server: MCPServer, runs: dict[str, int]) -> None:
    @server.resource("weather://stations", mime_type="application/json")
    def stations() -> str:
        """All stations."""
        return json.dumps({name: city for name, (city, _) in sorted(STATIONS.items())})

    @server.resource("weather://station/{id}", mime_type="application/json")
    def station(id: str) -> str:
        """What one station measures now."""
        if id not in STATIONS:
            raise ResourceNotFoundError(f"no such station: {id}")
        return _observation(id).model_dump_json()

    @server.resource("weather://runs", mime_type="application/json")
    def model_runs() -> str:
        """How many streamed forecasts were started, finished and cancelled, and how many run now."""
        return json.dumps({**runs, "running": runs["started"] - runs["finished"] - runs["cancelled"]})

    @server.resource("internal://maintenance", mime_type="text/plain")
    def maintenance() -> str:
        """Notes of the operators, which clients have no business with."""
        return "The fence at OSL is broken."


def _add_prompts(server: MCPServer) -> None:
    @server.prompt()
    def travel_brief(city: str, style: str = "short") -> list[Message]:
        """A briefing for a traveller."""
        return [
            UserMessage(f"Write a {style} weather briefing for {city}."),
            AssistantMessage(f"Today in {city}: {_day(city, 0).sky}."),
        ]

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if argument.name == "city":
            values = sorted(city for city, _ in STATIONS.values())
        elif argument.name == "id":
            values = sorted(STATIONS)
        else:
            return None
        return Completion(values=[value for value in values if value.lower().startswith(argument.value.lower())])


class _TokenRequired:
    """Turns away every request that does not carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self.expected):
                refusal = PlainTextResponse("the weather server takes calls from the gateway only", 401)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


class _Announced(uvicorn.Server):
    """Says on stderr when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"ready http://127.0.0.1:{port}/mcp", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.  Exit status 1 when the port is taken."""
    parser = argparse.ArgumentParser(description="A weather MCP server for the demonstration.")
    parser.add_argument("--port", type=int, default=9001, help="0 = any free port (default: %(default)s)")
    port = parser.parse_args(arguments).port
    app: ASGIApp = build().streamable_http_app()
    if token := os.environ.get("WEATHER_TOKEN"):
        app = _TokenRequired(app, token)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        return 1
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    _Announced(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
