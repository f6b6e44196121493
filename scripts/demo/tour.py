"""The tour: a client on the official SDK talks to a weather server through the gateway, and sees what the gateway does.

Each step checks what it shows, so that what is printed is true or the exit status is 1.  The tour goes to stdout,
progress to stderr.  On a terminal the gateway stays up afterwards, until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from .page import Page
from .stage import Stage, StageError, opened

__all__ = ["main"]

TOUR_TIMEOUT = 60.0


class TourError(Exception):
    """Something was not as the tour says."""


class _Guest:
    """One MCP client, and what its HTTP exchanges were like."""

    def __init__(self, client: Client, statuses: list[int], headers: list[httpx2.Headers], asked: list[str]) -> None:
        self.client = client
        self.statuses = statuses
        self.headers = headers
        self.asked = asked

    async def call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        result = await self.client.call_tool(name, arguments)
        _check(not result.is_error, f"{name} failed: {_text(result)}")
        return result

    async def refused(self, name: str, arguments: dict[str, Any]) -> MCPError:
        try:
            await self.client.call_tool(name, arguments)
        except MCPError as error:
            return error
        raise TourError(f"{name} should have been refused")


@contextlib.asynccontextmanager
async def _connected(url: str, token: str, mode: str = "auto") -> AsyncIterator[_Guest]:
    statuses: list[int] = []
    headers: list[httpx2.Headers] = []
    asked: list[str] = []

    async def note(response: httpx2.Response) -> None:
        statuses.append(response.status_code)
        headers.append(response.headers)

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"day": 2, "outdoors": True})

    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, event_hooks={"response": [note]}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, elicitation_callback=answer) as client,
    ):
        yield _Guest(client, statuses, headers, asked)


class Tour:
    """The steps, in the order in which they are told."""

    def __init__(self, stage: Stage, page: Page) -> None:
        self.stage = stage
        self.page = page
        self.audit_begin = stage.audit.stat().st_size if stage.audit.exists() else 0
        self.denied_request = ""

    async def run(self) -> None:
        """All of them.  Raises TourError at the first that does not hold."""
        async with _connected(self.stage.endpoint, self.stage.demo_token) as guest:
            await self.allowed(guest)
            await self.denied(guest)
            await self.limited()
            await self.redacted(guest)
            await self.streamed(guest)
        self.recorded()

    async def allowed(self, guest: _Guest) -> None:
        page = self.page
        page.heading("allowed", "what the policy names passes, in every revision of the protocol")
        async with _connected(self.stage.endpoint, self.stage.demo_token, "legacy") as older:
            for client in (guest.client, older.client):
                info = client.server_info
                _check(info is not None and info.name == "weather", "the server behind the gateway is not the weather")
                opening = "initialize" if client is older.client else "server/discover"
                page.said("connected", f"MCP {client.protocol_version} ({opening})")
            _check(guest.client.protocol_version == "2026-07-28", "the newest revision was not agreed on")
            _check(older.client.protocol_version == "2025-11-25", "the older revision was not agreed on")
            await older.call("get_forecast", {"city": "Oslo", "days": 1})
        async with _connected(self.stage.weather, self.stage.weather_token) as direct:
            every = [tool.name for tool in (await direct.client.list_tools()).tools]
        tools = [tool.name for tool in (await guest.client.list_tools()).tools]
        hidden = [name for name in every if name not in tools]
        _check("delete_station" in hidden and "get_forecast" in tools, "the list of tools was not filtered")
        page.said("tools/list", f"{len(tools)} of {len(every)} tools: {', '.join(tools)}")
        page.said("not listed", ", ".join(hidden))
        forecast = (await guest.call("get_forecast", {"city": "Berlin", "days": 3})).structured_content or {}
        days = [f"{day['sky']} {day['low_celsius']}..{day['high_celsius']} C" for day in forecast["days"]]
        page.said("tools/call", f"get_forecast Berlin: {', '.join(days)}", "green")

    async def denied(self, guest: _Guest) -> None:
        page = self.page
        page.heading("denied", "what the policy does not name is refused, with the reason, and the session lives on")
        error = await guest.refused("delete_station", {"station": "OSL"})
        _check(_from_gateway(error), f"not the gateway's own error: {error}")
        _check(guest.statuses[-1] == 200, f"a refusal should be HTTP 200, not {guest.statuses[-1]}")
        self.denied_request = str(error.data.get("request", ""))
        page.said("tools/call", "delete_station")
        page.said("answer", f"{error.code} {error.message}", "red")
        page.said("because of", str(error.data.get("key")))
        try:
            await guest.client.read_resource("internal://maintenance")
        except MCPError as refusal:
            _check(_from_gateway(refusal), f"not the gateway's own error: {refusal}")
            page.said("and", f"resources/read internal://maintenance: {refusal.code} {refusal.message}", "red")
        else:
            raise TourError("a resource outside the policy could be read")
        await guest.call("get_forecast", {"city": "Oslo"})
        page.said("afterwards", "the same session: get_forecast Oslo is answered", "green")
        status = await self._knock(self.stage.endpoint, None)
        _check(status == 401, f"a call without a token should be HTTP 401, not {status}")
        page.said("no token", "HTTP 401", "red")
        status = await self._knock(self.stage.weather, self.stage.demo_token)
        _check(status == 401, f"the client's token should mean nothing to the server, which said HTTP {status}")
        page.said("round it", "the client's token at the weather server itself: HTTP 401; it knows the gateway's only")

    @staticmethod
    async def _knock(url: str, token: str | None) -> int:
        headers = {"Accept": "application/json, text/event-stream"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with httpx2.AsyncClient() as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            return (await http.post(url, json=body, headers=headers)).status_code

    async def limited(self) -> None:
        page = self.page
        page.heading("limited", "a second client has a small bucket; the first one is not affected")
        async with _connected(self.stage.endpoint, self.stage.guest_token) as guest:
            answered = 0
            error = None
            while error is None and answered < 50:
                try:
                    await guest.call("get_observations", {"station": "OSL"})
                    answered += 1
                except MCPError as refusal:
                    error = refusal
            _check(answered > 0, f"not one call of the second client was answered: {error}")
            if error is None:
                raise TourError(f"the rate limit was not reached in {answered} calls")
            _check(guest.statuses[-1] == 429, f"over the limit should be HTTP 429, not {guest.statuses[-1]}")
            _check(_from_gateway(error), f"the client does not learn why: {error}")
            wait = guest.headers[-1].get("retry-after", "")
            _check(wait.isdigit(), f"Retry-After should be a number of seconds, not {wait!r}")
            page.said("answered", f"{answered} calls of get_observations", "green")
            page.said("then", f"HTTP 429, Retry-After: {wait}", "yellow")
            page.said("the client", f"sees {error.code} {error.message}", "yellow")

    async def redacted(self, guest: _Guest) -> None:
        page = self.page
        page.heading("redacted", "secrets in what a server answers do not reach the client")
        async with _connected(self.stage.weather, self.stage.weather_token) as direct:
            leaked = (await direct.call("get_station_config", {"station": "OSL"})).structured_content or {}
        result = await guest.call("get_station_config", {"station": "OSL"})
        seen = result.structured_content or {}
        for secret in (leaked["upload"]["aws_access_key_id"], leaked["upload"]["password"]):
            _check(secret not in result.model_dump_json(), "a secret of the server reached the client")
        _check(seen["station"] == "OSL" and seen["upload"]["bucket"] == "observations", "more was taken than secrets")
        for label, document, colour in (("server says", leaked, "red"), ("client sees", seen, "green")):
            page.said(label, json.dumps(document["upload"]), colour)

    async def streamed(self, guest: _Guest) -> None:
        page = self.page
        page.heading("streamed", "progress passes as it is made, and the server can ask in mid-call")
        began = time.perf_counter()
        arrivals: list[float] = []

        async def show(progress: float, total: float | None, message: str | None) -> None:
            arrivals.append(time.perf_counter() - began)
            page.said(f"{arrivals[-1]:8.3f} s", f"{progress:g}/{total:g}  {message}")

        await guest.client.call_tool("stream_forecast", {"city": "Oslo"}, progress_callback=show)
        ended = time.perf_counter() - began
        page.said(f"{ended:8.3f} s", "result", "green")
        _check(len(arrivals) == 10, f"{len(arrivals)} of 10 progress notifications arrived")
        # They are sent 200 ms apart: what is buffered arrives together.
        _check(arrivals[-1] - arrivals[0] > 1.2, "the progress notifications were held back and arrived together")
        plan = await guest.call("plan_trip", {"city": "Oslo"})
        _check(len(guest.asked) == 1, "the server's question did not reach the client")
        page.said("asked", f"{guest.asked[0]}  (day 2, outdoors)")
        page.said("answer", _text(plan), "green")

    def recorded(self) -> None:
        page = self.page
        page.heading("recorded", "each decision is one line of the audit file, arguments as shapes and digests only")
        with self.stage.audit.open("rb") as file:
            file.seek(self.audit_begin)
            lines = [json.loads(line) for line in file]
        calls = [line for line in lines if line.get("method") == "tools/call"]
        wanted = {"request.refused": 0, "request.finished": 0}
        for line in calls:
            if line["event"] in wanted:
                wanted[line["event"]] += 1
        _check(all(wanted.values()), f"the audit file lacks finished or refused calls: {wanted}")
        _check(
            any(line.get("request") == self.denied_request for line in calls),
            "the denied call is not in the audit file under the id that the client was told",
        )
        # The refused calls of the second client are many and alike.
        for line in [line for line in calls if line.get("client") == "demo" and line["event"] in wanted]:
            page.said(line["time"][11:23], _summary(line), "red" if line["event"] == "request.refused" else None)
        page.said("one whole", json.dumps(next(line for line in calls if line.get("request") == self.denied_request)))


def _summary(line: dict[str, Any]) -> str:
    """An audit record in a few words."""
    words = [line["event"], line.get("revision", ""), line.get("name", ""), line.get("outcome", "")]
    if "ms" in line:
        words.append(f"{line['ms'].get('last', 0):g} ms")
    words += [f"{found['action']} {found['rule']}" for found in line.get("findings", []) if "rule" in found]
    words.append(line.get("key", ""))
    return "  ".join(word for word in words if word)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise TourError(otherwise)


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def _from_gateway(error: MCPError) -> bool:
    return isinstance(error.data, dict) and error.data.get("origin") == "gateway"


def _first(error: BaseException) -> BaseException:
    """The one that matters of the groups that task groups make."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _stay(stage: Stage, page: Page) -> None:
    """Tells how to go on, and waits for Ctrl-C."""
    settings = {
        "mcpServers": {
            "weather": {
                "type": "http",
                "url": stage.endpoint,
                "headers": {"Authorization": f"Bearer {stage.demo_token}"},
            }
        }
    }
    page.heading("yours", "the gateway stays up; connect a client of your own")
    page.said("endpoint", stage.endpoint)
    page.said("token", stage.demo_token)
    page.said("admin", f"{stage.admin}/metrics")
    page.line()
    page.line(json.dumps(settings, indent=2))
    page.line()
    page.line(page.paint("Ctrl-C ends it.", "dim"))
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def main() -> int:
    """Exit status 0 if everything was as told, 1 if not."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: sys.exit(128 + signum))
    page = Page()
    try:
        print("starting the weather server and the gateway", file=sys.stderr)
        with opened() as stage:
            print(f"ready: {stage.endpoint}", file=sys.stderr)
            tour = Tour(stage, page)
            asyncio.run(asyncio.wait_for(tour.run(), TOUR_TIMEOUT))
            page.line()
            page.line(page.paint("Everything was as it should be.", "green"))
            if page.is_terminal and sys.stdin.isatty():
                _stay(stage, page)
    except KeyboardInterrupt:
        return 130
    except StageError as error:
        print(f"FAILED to start: {error}", file=sys.stderr)
        return 1
    except (TourError, MCPError, TimeoutError, httpx2.HTTPError, OSError, BaseExceptionGroup) as error:
        cause = _first(error)
        if isinstance(cause, BrokenPipeError):
            # The reader has gone, as `make run | head` does; Python must not find that out again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = str(cause) if isinstance(cause, TourError) else f"{type(cause).__name__}: {cause}"
        print(f"FAILED: {reason}", file=sys.stderr)
        return 1
    return 0
