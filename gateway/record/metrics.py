"""Metrics for Prometheus, one registry per instance.

A label says a name of the configuration, a word of a fixed list, or ``other`` (``none`` where there is nothing to say);
never what a peer sent.  Names of hooks, rules and reasons are made by code and configuration but not listed anywhere:
the first ones of each kind become labels, up to a bound.  So the number of series has a bound that no traffic moves.

Counting happens several times a call and showing a few times a minute: so what is counted are plain numbers of one
thread, which become Prometheus' own objects when somebody asks.
"""

from __future__ import annotations

import http
import platform
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from .. import __version__
from ..protocol.errors import GatewayError
from ..protocol.methods import METHODS
from .audit import AuditCounts
from .entry import Found

__all__ = ["NONE", "OTHER", "OUTCOMES", "Metrics"]

OTHER = "other"
NONE = "none"

# From a relay's own share (loopback: below 1 ms) to a tool that works for minutes.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_MAX_HOOKS = 50
_MAX_WORDS = 200
_SLUG = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)

T = TypeVar("T")
S = TypeVar("S", bound="_Counter | _Gauge | _Histogram")
Label = Callable[[str | None], str]


def _reasons(base: type[GatewayError]) -> Iterator[str]:
    yield base.reason
    for leaf in base.__subclasses__():
        yield from _reasons(leaf)


OUTCOMES = frozenset(
    (
        "accepted", "answered", "cancelled", "client-gone", "draining", "resumable", "stream-ended", "unanswered",
        "upstream-error", "withheld", *_reasons(GatewayError),
    )
)  # fmt: skip
"""What may become of a call: the relay's words, and the reasons that ``protocol.errors`` fixes for each error."""


class _Fixed(dict[str | None, str]):
    """A label whose values are all known."""

    def __init__(self, values: Iterable[str]) -> None:
        super().__init__((value, value) for value in (*values, OTHER, NONE))
        self[None] = NONE

    def __call__(self, value: str | None) -> str:
        return self.get(value, OTHER)


class _Learned(_Fixed):
    """A label whose values code and configuration make: the first ``most`` that look like a name."""

    def __init__(self, most: int, values: Iterable[str] = ()) -> None:
        super().__init__(values)
        self._most = most

    def __call__(self, value: str | None) -> str:
        label = self.get(value)
        if label is not None:
            return label
        if value is None or len(self) >= self._most or _SLUG.fullmatch(value) is None:
            return OTHER
        self[value] = value
        return value


class _Number:
    """One series of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class _Distribution:
    """One series of a histogram: how many values are at most as large as each bound and larger than the one before."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(_SECONDS, value)] += 1
        self.sum += value


class _Series(dict[tuple[str | None, ...], T], Generic[T]):
    """The series of a metric by their labels.  What is not a label as it stands is looked up anew each time, so that
    peers cannot fill this."""

    def __init__(self, name: str, help: str, kind: type[T], labels: dict[str, Label]) -> None:
        super().__init__()
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self._kind = kind
        self._label = tuple(labels.values())

    def __missing__(self, values: tuple[str | None, ...]) -> T:
        labels = tuple(label(value) for label, value in zip(self._label, values, strict=True))
        if labels != values:
            return self[labels]
        child = self[values] = self._kind()
        return child


class _Counter(_Series[_Number]):
    def collect(self) -> Metric:
        family = CounterMetricFamily(f"mcpgw_{self.name}", self.help, labels=self.labels)
        for labels, child in self.items():
            family.add_metric([str(label) for label in labels], child.value)
        return family


class _Gauge(_Series[_Number]):
    def collect(self) -> Metric:
        family = GaugeMetricFamily(f"mcpgw_{self.name}", self.help, labels=self.labels)
        for labels, child in self.items():
            family.add_metric([str(label) for label in labels], child.value)
        return family


class _Histogram(_Series[_Distribution]):
    def collect(self) -> Metric:
        family = HistogramMetricFamily(f"mcpgw_{self.name}", self.help, labels=self.labels)
        for labels, child in self.items():
            buckets = list(zip(_BOUNDS, map(float, accumulate(child.counts)), strict=True))
            family.add_metric([str(label) for label in labels], buckets, child.sum)
        return family


_BOUNDS = (*map(floatToGoString, _SECONDS), "+Inf")


class Metrics:
    """What the gateway counts.  ``clients`` and ``upstreams`` are the configured names.

    Each method counts one thing that happened, in less than a microsecond; docs/metrics.md says what each series means.
    """

    def __init__(self, clients: Iterable[str] = (), upstreams: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        client, upstream, method, outcome = _Fixed(clients), _Fixed(upstreams), _Fixed(METHODS), _Fixed(OUTCOMES)
        hook, rule = _Learned(_MAX_HOOKS), _Learned(_MAX_WORDS)
        action = _Fixed(("redact", "block", "flag", "strip"))
        decision = _Fixed(("pass", "replace", "drop", "block"))
        reason, why_dropped = _Learned(_MAX_WORDS, _reasons(GatewayError)), _Learned(_MAX_WORDS)
        direction = _Fixed(("client", "server"))

        def counter(name: str, help: str, **labels: Label) -> _Counter:
            return registered(_Counter(name, help, _Number, labels))

        def gauge(name: str, help: str, **labels: Label) -> _Gauge:
            return registered(_Gauge(name, help, _Number, labels))

        def histogram(name: str, help: str, **labels: Label) -> _Histogram:
            return registered(_Histogram(name, help, _Distribution, labels))

        self._families: list[_Counter | _Gauge | _Histogram] = []

        def registered(series: S) -> S:
            self._families.append(series)
            return series

        self._calls = counter(
            "calls",
            "Client messages that the gateway let through, by what became of them.",
            client=client,
            upstream=upstream,
            method=method,
            outcome=outcome,
        )
        self._decisions = counter(
            "decisions",
            "Messages that a hook replaced, dropped or blocked.",
            client=client,
            upstream=upstream,
            hook=hook,
            decision=decision,
        )
        self._findings = counter("findings", "What hooks found worth recording.", hook=hook, rule=rule, action=action)
        self._redactions = counter("redactions", "Places in messages that hooks made unreadable.", hook=hook, rule=rule)
        self._responses = counter(
            "http_responses",
            "HTTP answers given to clients.",
            status=_Fixed(str(status.value) for status in http.HTTPStatus),
        )
        self._refusals = counter("refusals", "Errors that the gateway itself answered with.", reason=reason)
        self._connections_refused = counter("connections_refused", "Connections closed because there were too many.")
        self._connections_refused[()].value = 0.0  # the only one without labels, and so there from the start
        self._rate_limited = counter("rate_limited", "Requests refused for a rate or a number at once.", client=client)
        self._first_byte = histogram(
            "request_first_byte_seconds",
            "From the head of a request to the first byte of its answer.",
            upstream=upstream,
            method=method,
        )
        self._seconds = histogram(
            "request_seconds",
            "From the head of a request to the last byte of its answer.",
            upstream=upstream,
            method=method,
        )
        self._open_streams = gauge(
            "open_streams", "Event streams open to clients.", upstream=upstream, kind=_Fixed(("get", "post"))
        )
        self._calls_in_flight = gauge("calls_in_flight", "Calls under way.", upstream=upstream)
        self._frames = counter(
            "frames", "Event stream frames that held a message, by sender.", upstream=upstream, direction=direction
        )
        self._dropped_frames = counter(
            "dropped_frames", "Frames of upstreams that were withheld.", upstream=upstream, reason=why_dropped
        )
        self._bytes = counter("bytes", "Bytes of bodies, by sender.", upstream=upstream, direction=direction)
        self._upstream_errors = counter(
            "upstream_errors", "Calls that an upstream failed.", upstream=upstream, reason=reason
        )
        self._config_hooks = gauge(
            "config_hooks",
            "1 for each hook that runs on an upstream.",
            upstream=upstream,
            hook=hook,
            mode=_Fixed(("enforce", "shadow")),
        )
        self._sessions: Callable[[], int] = int
        self._audit: AuditCounts | None = None
        self.registry.register(self)

    # -- requests -----------------------------------------------------------------------------------------------------

    def call_started(self, upstream: str) -> None:
        """A call goes to its upstream; call_finished must follow."""
        self._calls_in_flight[(upstream,)].value += 1

    def call_finished(
        self,
        client: str | None,
        upstream: str,
        method: str | None,
        outcome: str,
        first_byte: float | None,
        total: float,
    ) -> None:
        """A call ended.  ``outcome`` is one of OUTCOMES; times in seconds, ``first_byte`` None where there was none."""
        self._calls_in_flight[(upstream,)].value -= 1
        self._calls[client, upstream, method, outcome].value += 1
        if first_byte is not None:
            self._first_byte[upstream, method].observe(first_byte)
        self._seconds[upstream, method].observe(total)

    def response(self, status: int) -> None:
        """An HTTP answer was given."""
        self._responses[(str(status),)].value += 1

    def refusal(self, reason: str) -> None:
        """The gateway answered with an error of its own; ``reason`` is the error's."""
        self._refusals[(reason,)].value += 1

    def rate_limited(self, client: str | None) -> None:
        """A request was refused with 429."""
        self._rate_limited[(client,)].value += 1

    def connection_refused(self) -> None:
        """A connection was closed because there were ``limits.max_connections`` already."""
        self._connections_refused[()].value += 1

    # -- messages -----------------------------------------------------------------------------------------------------

    def decision(self, client: str | None, upstream: str, hook: str | None, decision: str) -> None:
        """A hook decided about a message."""
        self._decisions[client, upstream, hook, decision].value += 1

    def finding(self, found: Found) -> None:
        """A hook noted something; what it redacted is counted place by place."""
        self._findings[found.hook, found.rule, found.action].value += 1
        if found.action == "redact":
            self._redactions[found.hook, found.rule].value += found.count

    # -- streams ------------------------------------------------------------------------------------------------------

    def stream_opened(self, upstream: str, kind: str) -> None:
        """An event stream to a client begins; ``kind`` is ``get`` or ``post``.  stream_closed must follow."""
        self._open_streams[upstream, kind].value += 1

    def stream_closed(self, upstream: str, kind: str) -> None:
        """An event stream to a client ended."""
        self._open_streams[upstream, kind].value -= 1

    def frame(self, upstream: str, direction: str = "server") -> None:
        """A frame with a message was read; ``direction`` is its sender, ``client`` or ``server``."""
        self._frames[upstream, direction].value += 1

    def dropped_frame(self, upstream: str, reason: str) -> None:
        """A frame of the upstream was withheld because it had no business on its stream."""
        self._dropped_frames[upstream, reason].value += 1

    def bytes_relayed(self, upstream: str, from_client: int, from_server: int) -> None:
        """Bytes of bodies that passed."""
        if from_client:
            self._bytes[upstream, "client"].value += from_client
        if from_server:
            self._bytes[upstream, "server"].value += from_server

    def upstream_error(self, upstream: str, reason: str) -> None:
        """An upstream failed a call; ``reason`` is the error's."""
        self._upstream_errors[upstream, reason].value += 1

    # -- state --------------------------------------------------------------------------------------------------------

    def hooks_configured(self, upstream: str, hooks: Iterable[tuple[str, str]]) -> None:
        """Which hooks run on an upstream: pairs of name and mode (``enforce`` or ``shadow``)."""
        for hook, mode in hooks:
            self._config_hooks[upstream, hook, mode].value = 1.0

    def watch_sessions(self, count: Callable[[], int]) -> None:
        """Where the number of open sessions is read from."""
        self._sessions = count

    def watch_audit(self, audit: AuditCounts) -> None:
        """Whose counts ``mcpgw_audit_*`` are."""
        self._audit = audit

    # -- exposition ---------------------------------------------------------------------------------------------------

    def render(self) -> tuple[bytes, str]:
        """Everything in the Prometheus text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Everything, for Prometheus: what is counted here, and what is counted elsewhere anyway."""
        for family in self._families:
            yield family.collect()
        yield GaugeMetricFamily("mcpgw_sessions", "Sessions that are open.", value=self._sessions())
        build = GaugeMetricFamily(
            "mcpgw_build_info", "Always 1; the labels say what runs.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        audit = self._audit
        for name, help, value in (
            ("records", "Audit records written.", 0 if audit is None else audit.records),
            ("failures", "Writes to the audit file that failed.", 0 if audit is None else audit.failures),
            ("drops", "Audit records that were lost.", 0 if audit is None else audit.drops),
        ):
            yield CounterMetricFamily(f"mcpgw_audit_{name}", help, value=value)
