from __future__ import annotations

import random
import re
import string
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from gateway.guard.hook import Finding
from gateway.record.audit import Audit
from gateway.record.metrics import OUTCOMES, Metrics

CLIENTS, UPSTREAMS = ("alice", "bob"), ("weather", "files")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"mcpgw_{name}", labels)


def series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in metrics.registry.collect())


def test_a_call_from_start_to_end() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    metrics.call_started("weather")
    metrics.call_started("weather")
    assert value(metrics, "calls_in_flight", upstream="weather") == 2
    metrics.call_finished("alice", "weather", "tools/call", "answered", 0.004, 1.5)
    metrics.call_finished("alice", "weather", "tools/call", "upstream-timeout", None, 120.0)
    assert value(metrics, "calls_in_flight", upstream="weather") == 0
    labels = {"client": "alice", "upstream": "weather", "method": "tools/call"}
    assert value(metrics, "calls_total", outcome="answered", **labels) == 1
    assert value(metrics, "calls_total", outcome="upstream-timeout", **labels) == 1
    times = {"upstream": "weather", "method": "tools/call"}
    assert value(metrics, "request_first_byte_seconds_count", **times) == 1
    assert value(metrics, "request_first_byte_seconds_bucket", le="0.005", **times) == 1
    assert value(metrics, "request_seconds_count", **times) == 2
    assert value(metrics, "request_seconds_sum", **times) == 121.5


def test_everything_else() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    metrics.decision("alice", "weather", "policy", "block")
    metrics.finding(Finding("secrets", "aws-key", "redact", "/result", 3))
    metrics.finding(Finding("secrets", "aws-key", "flag", "/result", 3))
    metrics.response(200)
    metrics.refusal("upstream-status")
    metrics.rate_limited("bob")
    metrics.connection_refused()
    metrics.stream_opened("files", "get")
    metrics.stream_opened("files", "get")
    metrics.stream_closed("files", "get")
    metrics.frame("files")
    metrics.frame("files", "client")
    metrics.dropped_frame("files", "event-type")
    metrics.bytes_relayed("files", 10, 200)
    metrics.bytes_relayed("files", 0, 0)
    metrics.upstream_error("files", "upstream-unreachable")
    metrics.hooks_configured("files", [("policy", "enforce"), ("secrets", "shadow")])
    metrics.watch_sessions(lambda: 7)
    assert value(metrics, "decisions_total", client="alice", upstream="weather", hook="policy", decision="block") == 1
    assert value(metrics, "findings_total", hook="secrets", rule="aws-key", action="redact") == 1
    assert value(metrics, "findings_total", hook="secrets", rule="aws-key", action="flag") == 1
    assert value(metrics, "redactions_total", hook="secrets", rule="aws-key") == 3
    assert value(metrics, "http_responses_total", status="200") == 1
    assert value(metrics, "refusals_total", reason="upstream-status") == 1
    assert value(metrics, "rate_limited_total", client="bob") == 1
    assert value(metrics, "connections_refused_total") == 1
    assert value(metrics, "open_streams", upstream="files", kind="get") == 1
    assert value(metrics, "frames_total", upstream="files", direction="server") == 1
    assert value(metrics, "frames_total", upstream="files", direction="client") == 1
    assert value(metrics, "dropped_frames_total", upstream="files", reason="event-type") == 1
    assert value(metrics, "bytes_total", upstream="files", direction="client") == 10
    assert value(metrics, "bytes_total", upstream="files", direction="server") == 200
    assert value(metrics, "upstream_errors_total", upstream="files", reason="upstream-unreachable") == 1
    assert value(metrics, "config_hooks", upstream="files", hook="secrets", mode="shadow") == 1
    assert value(metrics, "sessions") == 7


def test_labels_that_are_not_known_become_other_and_missing_ones_none() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    metrics.call_finished("mallory", "elsewhere", "tools/Call", "owned", None, 1.0)
    metrics.call_finished(None, "weather", None, "answered", None, 1.0)
    metrics.decision(None, "weather", None, "explode")
    metrics.response(799)
    metrics.refusal("no slug\n")
    unknown = {"client": "other", "upstream": "other", "method": "other", "outcome": "other"}
    assert value(metrics, "calls_total", **unknown) == 1
    absent = {"client": "none", "upstream": "weather", "method": "none", "outcome": "answered"}
    assert value(metrics, "calls_total", **absent) == 1
    assert value(metrics, "decisions_total", client="none", upstream="weather", hook="none", decision="other") == 1
    assert value(metrics, "http_responses_total", status="other") == 1
    assert value(metrics, "refusals_total", reason="other") == 1


def test_names_of_peers_add_no_series() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    choice = random.Random(7)

    def name() -> str:
        return "".join(choice.choices(string.ascii_letters + ' \n"é', k=12))

    def burst(count: int) -> None:
        for _ in range(count):
            a, b, c, d = name(), name(), name(), name()
            metrics.call_started(a)
            metrics.call_finished(a, b, c, d, 0.1, 0.2)
            metrics.decision(a, b, c, d)
            metrics.finding(Finding(a, b, c, d))
            metrics.response(choice.randrange(10**9))
            metrics.refusal(a)
            metrics.rate_limited(a)
            metrics.stream_opened(a, b)
            metrics.stream_closed(a, b)
            metrics.frame(a, b)
            metrics.dropped_frame(a, b)
            metrics.bytes_relayed(a, 1, 1)
            metrics.upstream_error(a, b)
            metrics.hooks_configured(a, [(b, c)])

    burst(2000)
    before = series(metrics)
    burst(100_000)
    assert series(metrics) == before
    assert before < 10_000


def test_the_most_series_that_can_be() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    for client in (*CLIENTS, None, "?"):
        for upstream in (*UPSTREAMS, "?"):
            for outcome in (*OUTCOMES, "?"):
                metrics.call_finished(client, upstream, "tools/call", outcome, 0.1, 0.1)
    calls = [family for family in metrics.collect() if family.name == "mcpgw_calls"]
    assert len(calls[0].samples) == 4 * 3 * len(OUTCOMES | {"other"})


def test_audit_counts_are_read_from_the_audit(tmp_path: Path) -> None:
    metrics = Metrics()
    assert value(metrics, "audit_records_total") == 0
    audit = Audit(tmp_path / "audit.jsonl")
    metrics.watch_audit(audit)
    audit.write({"event": "started"})
    assert value(metrics, "audit_records_total") == 1
    metrics.watch_audit(SimpleNamespace(records=5, failures=3, drops=2))
    assert (value(metrics, "audit_failures_total"), value(metrics, "audit_drops_total")) == (3, 2)
    audit.close()


def test_instances_share_nothing() -> None:
    one, two = Metrics(CLIENTS, UPSTREAMS), Metrics(CLIENTS, UPSTREAMS)
    one.response(200)
    assert value(two, "http_responses_total", status="200") is None


def test_what_is_rendered_can_be_read() -> None:
    metrics = Metrics(CLIENTS, UPSTREAMS)
    metrics.call_started("weather")
    metrics.call_finished("alice", "weather", "tools/call", "answered", 0.01, 0.02)
    text, media_type = metrics.render()
    assert media_type.startswith("text/plain; version=")
    assert b"_created" not in text
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert families["mcpgw_calls"].samples[0].labels["client"] == "alice"
    assert families["mcpgw_build_info"].samples[0].value == 1


def test_every_metric_is_documented(project: Path) -> None:
    page = (project / "docs" / "metrics.md").read_text()
    documented = dict(re.findall(r"^### `(mcpgw_\w+)(?:\{[^}]*\})?`\n\n(.+)$", page, re.MULTILINE))
    labels = {name: re.findall(r"\w+", each) for name, each in re.findall(r"^### `(mcpgw_\w+)\{([^}]*)\}`", page, re.M)}
    metrics = Metrics()
    exposed = {}
    for family in metrics.registry.collect():
        assert family.documentation.endswith(".")
        name = family.name + ("_total" if family.type == "counter" else "")
        exposed[name] = family.documentation
        assert labels.get(name, []) == list(family._labelnames), name  # type: ignore[attr-defined]
    assert set(documented) == set(exposed)
    sections = re.split(r"^### ", page, flags=re.M)[1:]
    assert all("```promql\n" in section for section in sections)
