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
from typing import Final

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
_SECONDS: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)

_MAX_HOOKS = 50
_MAX_WORDS = 200
_SLUG = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)

Values = tuple[str | None, ...]


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


class _Label:
    """A label: the values that are known, and with ``most`` the first ones that look like a name, up to so many."""

    __slots__ = ("_known", "_most")

    def __init__(self, values: Iterable[str] = (), most: int = 0) -> None:
        self._known: dict[str | None, str] = {value: value for value in (*values, OTHER, NONE)}
        self._known[None] = NONE
        self._most = most

    def of(self, value: str | None) -> str:
        """What stands in the series for a value."""
        label = self._known.get(value)
        if label is not None:
            return label
        if value is None or len(self._known) >= self._most or _SLUG.fullmatch(value) is None:
            return OTHER
        self._known[value] = value
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


class _Series:
    """The series of a metric by their labels.  What is not a label as it stands is looked up anew each time, so that
    peers cannot fill this."""

    __slots__ = ("_labels", "help", "name", "names")

    def __init__(self, name: str, help: str, labels: dict[str, _Label]) -> None:
        self.name = f"mcpgw_{name}"
        self.help = help
        self.names = tuple(labels)
        self._labels = tuple(labels.values())

    def labels_of(self, values: Values) -> Values:
        """What stands in the series for these values."""
        return tuple([label.of(value) for label, value in zip(self._labels, values, strict=True)])

    def collect(self) -> Metric:
        """All series, for Prometheus."""
        raise NotImplementedError


class _Counter(_Series):
    __slots__ = ("_numbers",)

    def __init__(self, name: str, help: str, labels: dict[str, _Label]) -> None:
        super().__init__(name, help, labels)
        self._numbers: dict[Values, _Number] = {}

    def at(self, values: Values) -> _Number:
        """The number of one series."""
        found = self._numbers.get(values)
        if found is None:
            labels = self.labels_of(values)
            found = self._numbers.get(labels)
            if found is None:
                found = self._numbers[labels] = _Number()
        return found

    def collect(self) -> Metric:
        return self._filled(CounterMetricFamily(self.name, self.help, labels=self.names))

    def _filled(self, family: CounterMetricFamily | GaugeMetricFamily) -> Metric:
        for labels, number in self._numbers.items():
            family.add_metric([str(label) for label in labels], number.value)
        return family


class _Gauge(_Counter):
    __slots__ = ()

    def collect(self) -> Metric:
        return self._filled(GaugeMetricFamily(self.name, self.help, labels=self.names))


class _Histogram(_Series):
    __slots__ = ("_distributions",)

    def __init__(self, name: str, help: str, labels: dict[str, _Label]) -> None:
        super().__init__(name, help, labels)
        self._distributions: dict[Values, _Distribution] = {}

    def at(self, values: Values) -> _Distribution:
        """The distribution of one series."""
        found = self._distributions.get(values)
        if found is None:
            labels = self.labels_of(values)
            found = self._distributions.get(labels)
            if found is None:
                found = self._distributions[labels] = _Distribution()
        return found

    def collect(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.help, labels=self.names)
        for labels, found in self._distributions.items():
            buckets = list(zip(_BOUNDS, map(float, accumulate(found.counts)), strict=True))
            family.add_metric([str(label) for label in labels], buckets, found.sum)
        return family


_BOUNDS = (*map(floatToGoString, _SECONDS), "+Inf")


class _Ends:
    """The series in which calls with the same labels end; ``first`` once one of them had a first byte."""

    __slots__ = ("calls", "first", "in_flight", "seconds")

    def __init__(self, in_flight: _Number, calls: _Number, seconds: _Distribution) -> None:
        self.in_flight = in_flight
        self.calls = calls
        self.seconds = seconds
        self.first: _Distribution | None = None


class Metrics:
    """What the gateway counts.  ``clients`` and ``upstreams`` are the configured names.

    Each method counts one thing that happened, in less than a microsecond; docs/metrics.md says what each series means.
    """

    def __init__(self, clients: Iterable[str] = (), upstreams: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._families: list[_Series] = []
        client, upstream, method, outcome = _Label(clients), _Label(upstreams), _Label(METHODS), _Label(OUTCOMES)
        hook, rule = _Label(most=_MAX_HOOKS), _Label(most=_MAX_WORDS)
        action = _Label(("redact", "block", "flag", "strip"))
        decision = _Label(("pass", "replace", "drop", "block"))
        reason, why_dropped = _Label(_reasons(GatewayError), most=_MAX_WORDS), _Label(most=_MAX_WORDS)
        direction = _Label(("client", "server"))
        self._calls = self._counter(
            "calls",
            "Client messages that the gateway let through, by what became of them.",
            client=client,
            upstream=upstream,
            method=method,
            outcome=outcome,
        )
        self._decisions = self._counter(
            "decisions",
            "Messages that a hook replaced, dropped or blocked.",
            client=client,
            upstream=upstream,
            hook=hook,
            decision=decision,
        )
        self._findings = self._counter(
            "findings", "What hooks found worth recording.", hook=hook, rule=rule, action=action
        )
        self._redactions = self._counter(
            "redactions", "Places in messages that hooks made unreadable.", hook=hook, rule=rule
        )
        self._responses = self._counter(
            "http_responses",
            "HTTP answers given to clients.",
            status=_Label(str(status.value) for status in http.HTTPStatus),
        )
        self._refusals = self._counter("refusals", "Errors that the gateway itself answered with.", reason=reason)
        self._connections_refused = self._counter(
            "connections_refused", "Connections closed because there were too many."
        )
        self._connections_refused.at(())  # the only one without labels, and so there from the start
        self._rate_limited = self._counter(
            "rate_limited", "Requests refused for a rate or a number at once.", client=client
        )
        self._first_byte = self._histogram(
            "request_first_byte_seconds",
            "From the head of a request to the first byte of its answer.",
            upstream=upstream,
            method=method,
        )
        self._seconds = self._histogram(
            "request_seconds",
            "From the head of a request to the last byte of its answer.",
            upstream=upstream,
            method=method,
        )
        self._open_streams = self._gauge(
            "open_streams", "Event streams open to clients.", upstream=upstream, kind=_Label(("get", "post"))
        )
        self._calls_in_flight = self._gauge("calls_in_flight", "Calls under way.", upstream=upstream)
        self._frames = self._counter(
            "frames", "Event stream frames that held a message, by sender.", upstream=upstream, direction=direction
        )
        self._dropped_frames = self._counter(
            "dropped_frames", "Frames of upstreams that were withheld.", upstream=upstream, reason=why_dropped
        )
        self._bytes = self._counter("bytes", "Bytes of bodies, by sender.", upstream=upstream, direction=direction)
        self._upstream_errors = self._counter(
            "upstream_errors", "Calls that an upstream failed.", upstream=upstream, reason=reason
        )
        self._config_hooks = self._gauge(
            "config_hooks",
            "1 for each hook that runs on an upstream.",
            upstream=upstream,
            hook=hook,
            mode=_Label(("enforce", "shadow")),
        )
        self._ends: dict[Values, _Ends] = {}
        self._sessions: Callable[[], int] = int
        self._audit: AuditCounts | None = None
        self.registry.register(self)

    def _counter(self, name: str, help: str, **labels: _Label) -> _Counter:
        made = _Counter(name, help, labels)
        self._families.append(made)
        return made

    def _gauge(self, name: str, help: str, **labels: _Label) -> _Gauge:
        made = _Gauge(name, help, labels)
        self._families.append(made)
        return made

    def _histogram(self, name: str, help: str, **labels: _Label) -> _Histogram:
        made = _Histogram(name, help, labels)
        self._families.append(made)
        return made

    # -- requests -----------------------------------------------------------------------------------------------------

    def call_started(self, upstream: str) -> None:
        """A call goes to its upstream; call_finished must follow."""
        self._calls_in_flight.at((upstream,)).value += 1

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
        key = (client, upstream, method, outcome)
        ends = self._ends.get(key) or self._find_ends(client, upstream, method, outcome)
        ends.in_flight.value -= 1
        ends.calls.value += 1
        if first_byte is not None:
            if ends.first is None:
                ends.first = self._first_byte.at((upstream, method))
            ends.first.observe(first_byte)
        ends.seconds.observe(total)

    def _find_ends(self, client: str | None, upstream: str, method: str | None, outcome: str) -> _Ends:
        key = (client, upstream, method, outcome)
        in_flight, seconds = self._calls_in_flight.at((upstream,)), self._seconds.at((upstream, method))
        ends = _Ends(in_flight, self._calls.at(key), seconds)
        if self._calls.labels_of(key) == key:
            self._ends[key] = ends
        return ends

    def response(self, status: int) -> None:
        """An HTTP answer was given."""
        self._responses.at((str(status),)).value += 1

    def refusal(self, reason: str) -> None:
        """The gateway answered with an error of its own; ``reason`` is the error's."""
        self._refusals.at((reason,)).value += 1

    def rate_limited(self, client: str | None) -> None:
        """A request was refused with 429."""
        self._rate_limited.at((client,)).value += 1

    def connection_refused(self) -> None:
        """A connection was closed because there were ``limits.max_connections`` already."""
        self._connections_refused.at(()).value += 1

    # -- messages -----------------------------------------------------------------------------------------------------

    def decision(self, client: str | None, upstream: str, hook: str | None, decision: str) -> None:
        """A hook decided about a message."""
        self._decisions.at((client, upstream, hook, decision)).value += 1

    def finding(self, found: Found) -> None:
        """A hook noted something; what it redacted is counted place by place."""
        self._findings.at((found.hook, found.rule, found.action)).value += 1
        if found.action == "redact":
            self._redactions.at((found.hook, found.rule)).value += found.count

    # -- streams ------------------------------------------------------------------------------------------------------

    def stream_opened(self, upstream: str, kind: str) -> None:
        """An event stream to a client begins; ``kind`` is ``get`` or ``post``.  stream_closed must follow."""
        self._open_streams.at((upstream, kind)).value += 1

    def stream_closed(self, upstream: str, kind: str) -> None:
        """An event stream to a client ended."""
        self._open_streams.at((upstream, kind)).value -= 1

    def frame(self, upstream: str, direction: str = "server") -> None:
        """A frame with a message was read; ``direction`` is its sender, ``client`` or ``server``."""
        self._frames.at((upstream, direction)).value += 1

    def dropped_frame(self, upstream: str, reason: str) -> None:
        """A frame of the upstream was withheld because it had no business on its stream."""
        self._dropped_frames.at((upstream, reason)).value += 1

    def bytes_relayed(self, upstream: str, from_client: int, from_server: int) -> None:
        """Bytes of bodies that passed."""
        if from_client:
            self._bytes.at((upstream, "client")).value += from_client
        if from_server:
            self._bytes.at((upstream, "server")).value += from_server

    def upstream_error(self, upstream: str, reason: str) -> None:
        """An upstream failed a call; ``reason`` is the error's."""
        self._upstream_errors.at((upstream, reason)).value += 1

    # -- state --------------------------------------------------------------------------------------------------------

    def hooks_configured(self, upstream: str, hooks: Iterable[tuple[str, str]]) -> None:
        """Which hooks run on an upstream: pairs of name and mode (``enforce`` or ``shadow``)."""
        for hook, mode in hooks:
            self._config_hooks.at((upstream, hook, mode)).value = 1.0

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
