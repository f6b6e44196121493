"""What has to be true of every session, whichever SDK holds it, with and without the gateway.

The classes are collected by the test modules, which say which clients they are about.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from tests.end_to_end.sdk.lab import CLIENTS, Lab, Outcome, Transcript, Via
from tests.end_to_end.sdk.script import Server, Step

__all__ = ["Everything", "Refusals", "Weather"]

WAYS: tuple[Via, ...] = ("direct", "gateway")


class _Session:
    clients: ClassVar[tuple[str, ...]]
    server: ClassVar[Server]

    @pytest.fixture(params=WAYS)
    def via(self, request: pytest.FixtureRequest) -> Via:
        way: Via = request.param
        return way

    @pytest.fixture
    def told(self, lab: Lab, client: str, via: Via) -> Transcript:
        return lab.transcript(client, self.server, via)

    def test_progress_arrives_while_the_call_runs(self, told: Transcript) -> None:
        progress = value(told["progress"])["progress"]
        assert [(note["progress"], note["total"]) for note in progress] == [(step, 6) for step in range(1, 7)]
        # Sent 100 ms apart.  A relay that buffers delivers them together.
        assert progress[-1]["at"] - progress[0]["at"] > 0.3

    def test_a_cancelled_call_ends_at_once(self, told: Transcript) -> None:
        assert "error" in told["cancel"]
        assert told["cancel"]["seconds"] < 2

    def test_a_large_session_has_no_unexpected_errors(self, told: Transcript) -> None:
        assert {name for name, outcome in told.items() if "error" in outcome} == {"read-unknown", "cancel"}

    def test_the_server_asks_the_user_in_mid_call(self, told: Transcript) -> None:
        assert [question["method"] for question in value(told["elicitation"])["asked"]] == ["elicitation/create"]

    def test_the_server_samples_the_clients_model_in_mid_call(self, told: Transcript) -> None:
        assert value(told["sampling"])["asked"] == [{"method": "sampling/createMessage"}]
        assert "Sunny." in value(told["sampling"])["text"]

    def test_an_unknown_resource_is_refused_by_the_server(self, told: Transcript) -> None:
        assert told["read-unknown"]["error"]["code"] == -32602

    def test_the_session_is_ended_by_delete(self, told: Transcript) -> None:
        deletes = [exchange["status"] for exchange in told["close"]["exchanges"] if exchange["http"] == "DELETE"]
        assert deletes == ([200] if value(told["open"])["revision"] < "2026-07-28" else [])

    def test_the_gateway_makes_no_difference(self, lab: Lab, client: str) -> None:
        direct, relayed = (lab.transcript(client, self.server, via) for via in WAYS)
        assert {name: comparable(outcome) for name, outcome in relayed.items() if name in self.same} == {
            name: comparable(outcome) for name, outcome in direct.items() if name in self.same
        }

    same: ClassVar[frozenset[str]] = frozenset(
        {
            *("open", "list-tools", "list-resources", "list-templates", "list-prompts", "structured", "tool-error"),
            *("read-unknown", "prompt", "complete", "elicitation", "sampling", "ping", "close"),
        }
    )


class Weather(_Session):
    """The server on the Python SDK, in the era that the client prefers."""

    server = "weather"
    same = _Session.same | {"unknown-tool", "large", "read", "complete-template", "watch"}

    def test_the_revision_is_the_one_that_both_prefer(self, told: Transcript, client: str) -> None:
        wanted = "2026-07-28" if client.endswith("modern") else "2025-11-25"
        assert value(told["open"])["revision"] == wanted
        assert value(told["open"])["server"] == "weather"

    def test_structured_content(self, told: Transcript) -> None:
        forecast = value(told["structured"])
        assert [day["day"] for day in forecast["structured"]["days"]] == [0, 1, 2]
        assert json.loads(forecast["text"]) == forecast["structured"]

    def test_a_tools_own_error_is_a_result(self, told: Transcript) -> None:
        assert value(told["tool-error"])["isError"] is True
        assert "no such station: XXX" in value(told["tool-error"])["text"]

    def test_a_large_result_arrives_whole(self, told: Transcript) -> None:
        assert len(value(told["large"])["text"]) == 300 * 1024

    def test_log_messages(self, told: Transcript) -> None:
        assert [log["data"] for log in value(told["logs"])["logs"]] == ["6 model runs for Oslo are done"]

    def test_a_cancellation_reaches_the_server(self, told: Transcript) -> None:
        before, after = (json.loads(value(told[name])["text"]) for name in ("runs-before", "runs-after"))
        assert after["cancelled"] == before["cancelled"] + 1
        assert after["running"] == 0

    def test_completion(self, told: Transcript) -> None:
        assert value(told["complete"])["values"] == ["Berlin"]
        assert value(told["complete-template"])["values"] == ["OSL"]

    def test_subscriptions(self, told: Transcript) -> None:
        # This server has them in 2026-07-28 alone.
        watched = value(told["watch"])["updates"] if "watch" in told else None
        modern = value(told["open"])["revision"] == "2026-07-28"
        assert watched == (["weather://station/OSL"] if modern else None)


class Everything(_Session):
    """The reference server on the TypeScript SDK: it knows revisions up to 2025-11-25, and every client falls back."""

    server = "everything"
    same = _Session.same | {"echo", "image", "roots", "level", "subscribe", "updates", "after-cancel"}

    def test_the_revision_is_the_latest_that_the_server_has(self, told: Transcript) -> None:
        assert value(told["open"])["revision"] == "2025-11-25"
        assert value(told["open"])["server"] == "mcp-servers/everything"

    def test_text_beyond_ascii(self, told: Transcript) -> None:
        assert value(told["echo"])["text"] == "Echo: snowman \u2603"

    def test_the_server_asks_for_roots_on_the_get_stream(self, told: Transcript) -> None:
        assert "file:///srv/interop" in value(told["roots"])["text"]

    def test_resource_updates_on_the_get_stream(self, told: Transcript) -> None:
        assert value(told["updates"])["updates"] == ["demo://resource/static/document/features.md"]

    def test_log_messages_on_the_get_stream(self, told: Transcript) -> None:
        assert value(told["logs"])["logs"]

    def test_the_session_lives_on_after_a_cancellation(self, told: Transcript) -> None:
        assert value(told["after-cancel"])["text"] == "Echo: still here"


def _forecast(**more: Any) -> Step:
    return {"do": "call", "name": "get_forecast", "arguments": {"city": "Oslo", "days": 1}, **more}


REFUSED: dict[str, tuple[Step, str]] = {
    # name -> (step, the reason that the gateway gives)
    "tool": ({"do": "call", "name": "delete_station", "arguments": {"station": "OSL"}}, "tool-not-allowed"),
    "resource": ({"do": "read", "uri": "internal://maintenance"}, "resource-not-allowed"),
    "oversized": (_forecast(pad=100_000), "request-too-large"),
    "very-oversized": (_forecast(pad=8_000_000), "request-too-large"),
    "truncated": (_forecast(spoil={"body": "truncated"}), "syntax"),
    "ambiguous": (_forecast(spoil={"body": "duplicate"}), "duplicate-member"),
    "unauthenticated": (_forecast(spoil={"token": "wrong"}), "invalid-token"),
}


class Refusals:
    """What the gateway refuses arrives as the gateway's own words, at once, and the session lives on."""

    clients: ClassVar[tuple[str, ...]]

    @pytest.fixture
    def told(self, lab: Lab, client: str) -> Transcript:
        steps: list[Step] = [{"do": "list", "what": "tools"}, {"do": "list", "what": "resources", "as": "resources"}]
        for name, (step, _) in REFUSED.items():
            steps += [{**step, "as": name}, _forecast(**{"as": f"after-{name}"})]
        return self._kept(lab, client, "narrow", steps)

    @staticmethod
    def _kept(lab: Lab, client: str, who: str, steps: list[Step]) -> Transcript:
        key = client, who, "gateway"
        if key not in lab.transcripts:
            url = lab.through_gateway("weather")
            lab.transcripts[key] = lab.run(client, url, lab.tokens[who], "weather", steps)
        return lab.transcripts[key]

    def test_lists_hold_only_what_is_allowed(self, told: Transcript) -> None:
        tools = value(told["list"])["names"]
        assert "get_forecast" in tools
        assert all(name.startswith("get_") or name == "stream_forecast" for name in tools)
        assert value(told["resources"])["names"] == ["weather://stations", "weather://runs"]

    @pytest.mark.parametrize("name", REFUSED)
    def test_a_refusal_says_why_at_once(self, told: Transcript, name: str) -> None:
        said = json.dumps(told[name]["error"])
        assert "gateway" in said
        assert REFUSED[name][1] in said
        assert told[name]["seconds"] < 1

    @pytest.mark.parametrize("name", REFUSED)
    def test_the_session_lives_on_after_a_refusal(self, told: Transcript, name: str) -> None:
        assert value(told[f"after-{name}"])["structured"]["city"] == "Oslo"

    def test_the_rate_limit_says_so_and_passes_again_later(self, lab: Lab, client: str) -> None:
        steps: list[Step] = [
            {"do": "repeat", "times": 100, "step": _forecast()},
            {"do": "pause", "seconds": 0.3},
            _forecast(**{"as": "later"}),
        ]
        told = self._kept(lab, client, "limited", steps)
        burst = value(told["repeat"])
        assert 0 < burst["done"] < 100
        assert "rate-limited" in json.dumps(burst["error"])
        assert value(told["later"])["structured"]["city"] == "Oslo"

    def test_without_a_token_nothing_opens(self, lab: Lab, client: str) -> None:
        told = lab.run(client, lab.through_gateway("weather"), None, "weather", [])
        assert "unauthenticated" in json.dumps(told["open"]["error"])
        assert told["open"]["seconds"] < 1
        assert {exchange["status"] for exchange in told["open"]["exchanges"]} == {401}


def value(outcome: Outcome) -> dict[str, Any]:
    """What a step gave; fails the test where it gave an error."""
    assert "value" in outcome, outcome
    result: dict[str, Any] = outcome["value"]
    return result


def comparable(outcome: Outcome) -> object:
    """An outcome without what differs from one run to the next."""
    return {name: outcome[name] for name in ("value", "error") if name in outcome}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once for each client that its class names."""
    if "client" in metafunc.fixturenames and metafunc.cls is not None:
        clients: tuple[str, ...] = metafunc.cls.clients
        assert set(clients) <= set(CLIENTS)
        metafunc.parametrize("client", clients)
