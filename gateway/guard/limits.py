"""How much a client may ask for: requests per minute, and calls and streams at once.

Buckets exist for what the configuration names, never for what a peer says, so memory does not grow with traffic.
Time is an argument (seconds of a monotonic clock); nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..config import Client, Policy, Rate
from ..protocol.errors import RateLimited, TooManyConcurrent
from .glob import Globs

__all__ = ["Bucket", "Concurrency", "Limiter"]

# A token is this many units, and a rate of n per minute gives n units each microsecond.  Whole numbers: no rounding
# adds up over millions of requests, and what was promised by take() is exact.
_TOKEN = 60_000_000


class Bucket:
    """A token bucket: full at first, ``burst`` tokens at most, ``rate_per_minute`` new ones a minute.

    In any window of t seconds at most ``burst + rate_per_minute * t / 60`` are taken.  A clock that stands still or
    goes back adds nothing.
    """

    __slots__ = ("_capacity", "_enough", "_latest", "_level", "_rate")

    def __init__(self, rate_per_minute: int, burst: int) -> None:
        if rate_per_minute < 1 or burst < 1:
            raise ValueError("a bucket needs a rate and a burst of at least 1")
        self._rate = rate_per_minute
        self._capacity = burst * _TOKEN
        self._level = self._capacity
        # A microsecond early is in time: `now` loses that much when it is cut to microseconds.  What is taken early is
        # owed, so it does not add up.
        self._enough = _TOKEN - min(rate_per_minute, _TOKEN - 1)
        self._latest = 0

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0.0 when there is one.  A take() after just that long gets it."""
        time = int(now * 1_000_000)
        if time > self._latest:
            if self._level < self._capacity:
                level = self._level + (time - self._latest) * self._rate
                self._level = level if level < self._capacity else self._capacity
            self._latest = time
        if self._level >= self._enough:
            return 0.0
        missing = -((self._level - _TOKEN) // self._rate)
        return (self._latest - time + missing) / 1_000_000

    def take(self, now: float) -> float:
        """Take a token and return 0.0; or take none and return the seconds until there is one."""
        wait = self.wait(now)
        if wait == 0.0:
            self._level -= _TOKEN
        return wait

    def __repr__(self) -> str:
        return f"<Bucket {self._level / _TOKEN:.3f} of {self._capacity // _TOKEN}, {self._rate} a minute>"


@dataclass(frozen=True, slots=True)
class _Limit:
    """A bucket, what it counts, and the configuration key that made it."""

    bucket: Bucket
    what: str
    key: str


@dataclass(frozen=True, slots=True)
class _Account:
    """The limits of one client.  ``requests`` is by upstream: the policy's own bucket and the upstream's."""

    requests: dict[str, tuple[_Limit, ...]]
    elsewhere: tuple[_Limit, ...]
    tools: tuple[tuple[Globs, _Limit], ...]


class Limiter:
    """The rate limits of all clients.

    A request is charged to every bucket that concerns it or, when one of them is empty, to none.
    """

    __slots__ = ("_accounts",)

    def __init__(self, policies: Mapping[str, Policy], clients: Mapping[str, Client]) -> None:
        globs = {
            name: {pattern: Globs((pattern,)) for pattern in policy.rate_limits.tools}
            for name, policy in policies.items()
        }
        self._accounts: dict[tuple[str, str], _Account] = {
            (name, client.policy): _account(client.policy, policies[client.policy], globs[client.policy])
            for name, client in clients.items()
        }

    def admit(self, client: str, policy_name: str, upstream: str, now: float) -> None:
        """Charge a request to the client's bucket, and to its bucket for this upstream where the policy has one.

        Raises RateLimited.  ``client`` and ``policy_name`` are configured names that belong together: KeyError if not.
        """
        account = self._accounts[client, policy_name]
        limits = account.requests.get(upstream)
        _charge(account.elsewhere if limits is None else limits, now)

    def limits_tools(self, client: str, policy_name: str) -> bool:
        """Whether the client has limits for tools at all."""
        return bool(self._accounts[client, policy_name].tools)

    def admit_tool(self, client: str, policy_name: str, tool: str, now: float) -> None:
        """Charge a call to every bucket of ``rate_limits.tools`` whose pattern matches; raises RateLimited.

        The request itself was charged by :meth:`admit` and stays so when the tool's bucket is empty.
        """
        tools = self._accounts[client, policy_name].tools
        _charge(tuple([limit for patterns, limit in tools if tool in patterns]), now)


class Concurrency:
    """How many calls and GET streams each client has under way."""

    __slots__ = ("_calls", "_most_calls", "_most_streams", "_streams")

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._most_calls: dict[str, int] = {name: policy.max_concurrent_calls for name, policy in policies.items()}
        self._most_streams: dict[str, int] = {name: policy.max_concurrent_streams for name, policy in policies.items()}
        self._calls: dict[str, int] = {}
        self._streams: dict[str, int] = {}

    @property
    def calls(self) -> Mapping[str, int]:
        """Calls under way by client; clients without any are absent."""
        return MappingProxyType(self._calls)

    @property
    def streams(self) -> Mapping[str, int]:
        """Open streams by client; clients without any are absent."""
        return MappingProxyType(self._streams)

    def enter_call(self, client: str, policy_name: str) -> None:
        """A call begins; raises TooManyConcurrent.  Each call that entered must leave, once."""
        limit = self._most_calls[policy_name]
        count = self._calls.get(client, 0)
        if count >= limit:
            raise _too_many(limit, "calls", f"policies.{policy_name}.max_concurrent_calls")
        self._calls[client] = count + 1

    def leave_call(self, client: str) -> None:
        """A call ended; raises ValueError when none had begun."""
        _leave(self._calls, client)

    def enter_stream(self, client: str, policy_name: str) -> None:
        """A stream opens; raises TooManyConcurrent.  Each stream that entered must leave, once."""
        limit = self._most_streams[policy_name]
        count = self._streams.get(client, 0)
        if count >= limit:
            raise _too_many(limit, "streams", f"policies.{policy_name}.max_concurrent_streams")
        self._streams[client] = count + 1

    def leave_stream(self, client: str) -> None:
        """A stream closed; raises ValueError when none was open."""
        _leave(self._streams, client)


def _account(name: str, policy: Policy, globs: Mapping[str, Globs]) -> _Account:
    key = f"policies.{name}"
    own: tuple[_Limit, ...] = ()
    if policy.max_requests_per_minute is not None:
        bucket = _bucket(policy.max_requests_per_minute, policy.burst)
        own = (_Limit(bucket, "requests", f"{key}.max_requests_per_minute"),)

    def limit(rate: Rate, what: str, section: str) -> _Limit:
        bucket = _bucket(rate.max_requests_per_minute, rate.burst)
        return _Limit(bucket, what, f"{key}.rate_limits.{section}.max_requests_per_minute")

    requests = {
        upstream: (*own, limit(rate, "requests to this upstream", f"upstreams.{upstream}"))
        for upstream, rate in policy.rate_limits.upstreams.items()
    }
    tools = tuple(
        (globs[pattern], limit(rate, "calls of this tool", f"tools.{pattern}"))
        for pattern, rate in policy.rate_limits.tools.items()
    )
    return _Account(requests, own, tools)


def _bucket(rate: int, burst: int | None) -> Bucket:
    return Bucket(rate, burst or max(1, rate // 6))


def _charge(limits: tuple[_Limit, ...], now: float) -> None:
    if len(limits) == 1 and limits[0].bucket.take(now) == 0.0:
        return
    longest, slowest = 0.0, None
    for limit in limits:
        wait = limit.bucket.wait(now)
        if wait > longest:
            longest, slowest = wait, limit
    if slowest is not None:
        raise RateLimited(
            f"too many {slowest.what}, try again in {math.ceil(longest)} s",
            key=slowest.key,
            headers={"Retry-After": str(math.ceil(longest))},
            data={"retry_after_ms": math.ceil(longest * 1000)},
        )
    for limit in limits:
        limit.bucket.take(now)


def _too_many(limit: int, what: str, key: str) -> TooManyConcurrent:
    return TooManyConcurrent(
        f"more than {limit} {what} at once", key=key, headers={"Retry-After": "1"}, data={"retry_after_ms": 1000}
    )


def _leave(counts: dict[str, int], client: str) -> None:
    count = counts.pop(client, 0)
    if count == 0:
        raise ValueError("left more often than entered")
    if count > 1:
        counts[client] = count - 1
