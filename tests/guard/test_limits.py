from __future__ import annotations

import contextlib
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Client, Policy, Rate, RateLimits
from gateway.guard.limits import Bucket, Concurrency, Limiter
from gateway.protocol.errors import RateLimited, TooManyConcurrent

rates = st.integers(1, 100_000)
bursts = st.integers(1, 50)
# From a machine that has just started to one that has run for years.
starts = st.floats(0, 1e8)
steps = st.lists(st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 0.001), st.floats(0, 300)), max_size=60)


def times(start: float, steps: list[float]) -> list[float]:
    return list(itertools.accumulate(steps, initial=start))


# -- one bucket -------------------------------------------------------------------------------------------------------


def test_a_bucket_is_full_at_first_and_fills_at_its_rate() -> None:
    bucket = Bucket(60, 3)
    assert [bucket.take(1000.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1000.0) == pytest.approx(1.0, abs=2e-6)
    assert bucket.take(1000.5) == pytest.approx(0.5, abs=2e-6)
    assert bucket.take(1001.0) == 0
    assert bucket.take(1001.0) > 0
    assert [bucket.take(9999.0) for _ in range(4)] == [0, 0, 0, pytest.approx(1.0, abs=2e-6)]
    assert repr(bucket) == "<Bucket 0.000 of 3, 60 a minute>"


@given(rates, bursts, starts)
def test_the_whole_burst_is_granted_at_once(rate: int, burst: int, start: float) -> None:
    bucket = Bucket(rate, burst)
    assert [bucket.take(start) for _ in range(burst)] == [0.0] * burst
    assert bucket.take(start) > 0


@given(rates, bursts, starts, steps)
def test_no_window_admits_more_than_burst_and_rate(rate: int, burst: int, start: float, steps: list[float]) -> None:
    bucket = Bucket(rate, burst)
    admitted = [now for now in times(start, steps) for _ in range(burst + 2) if bucket.take(now) == 0.0]
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            window = admitted[last] - begin + 1e-6
            assert last - first + 1 <= burst + rate * window / 60


@given(rates, bursts, starts, steps)
def test_what_a_refusal_promises_is_kept(rate: int, burst: int, start: float, steps: list[float]) -> None:
    bucket = Bucket(rate, burst)
    ahead = 0.0
    for step in steps:
        now = start + ahead
        wait = bucket.take(now)
        if wait:
            # One token, the microsecond that an earlier one was taken too soon, and rounding up to a whole one.
            assert wait <= 60 / rate + 2.1e-6
            early = now + wait - 4e-6
            if early > now:
                assert bucket.wait(early) > 0
            assert bucket.take(now + wait) == 0.0
            ahead += wait
        ahead += step


@given(rates, bursts, starts, st.lists(st.floats(-1e6, 0), max_size=50))
def test_a_clock_that_stands_still_or_goes_back_admits_no_more(
    rate: int, burst: int, start: float, back: list[float]
) -> None:
    bucket = Bucket(rate, burst)
    admitted = sum(bucket.take(max(0.0, start + step)) == 0.0 for step in [0.0, *back] for _ in range(3))
    assert admitted <= burst


@given(rates, bursts, st.lists(st.floats(0, 1000), min_size=2, max_size=60))
def test_a_clock_that_jumps_admits_no_more_than_its_whole_span(rate: int, burst: int, clock: list[float]) -> None:
    bucket = Bucket(rate, burst)
    admitted = sum(bucket.take(now) == 0.0 for now in clock for _ in range(3))
    assert admitted <= burst + rate * (max(clock) - min(clock) + 1e-6) / 60


def test_a_refusal_after_the_clock_went_back_counts_from_where_it_was() -> None:
    bucket = Bucket(60, 1)
    assert bucket.take(100.0) == 0
    wait = bucket.take(40.0)
    assert wait == pytest.approx(61.0, abs=2e-6)
    assert bucket.take(40.0 + wait) == 0


def test_nothing_rounds_over_hours() -> None:
    bucket = Bucket(7, 3)
    assert sum(bucket.take(1e6 + tenth / 10) == 0.0 for tenth in range(360_001)) == 3 + 7 * 600


def test_looking_takes_nothing() -> None:
    bucket = Bucket(60, 1)
    assert [bucket.wait(5.0) for _ in range(9)] == [0.0] * 9
    assert bucket.take(5.0) == 0.0


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_that_never_fills_is_refused(rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bucket(rate, burst)


# -- the limits of clients --------------------------------------------------------------------------------------------

POLICIES = {
    "default": Policy(
        max_requests_per_minute=60,
        burst=5,
        rate_limits=RateLimits(
            tools={
                "delete_*": Rate(max_requests_per_minute=6, burst=2),
                "delete_repo": Rate(max_requests_per_minute=1, burst=1),
            },
            upstreams={"slow": Rate(max_requests_per_minute=30, burst=2)},
        ),
    ),
    "unlimited": Policy(max_requests_per_minute=None),
    "plain": Policy(max_requests_per_minute=12),
}
CLIENTS = {
    "alice": Client(),
    "bob": Client(),
    "root": Client(policy="unlimited"),
    "carol": Client(policy="plain"),
}


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(POLICIES, CLIENTS)


def admitted(limiter: Limiter, client: str, upstream: str, now: float, tries: int = 20) -> int:
    count = 0
    for _ in range(tries):
        with contextlib.suppress(RateLimited):
            limiter.admit(client, CLIENTS[client].policy, upstream, now)
            count += 1
    return count


def test_a_refusal_names_the_key_and_when_to_come_back(limiter: Limiter) -> None:
    assert admitted(limiter, "alice", "fast", 0.0) == 5
    with pytest.raises(RateLimited) as caught:
        limiter.admit("alice", "default", "fast", 0.25)
    error = caught.value
    assert error.status == 429
    assert error.key == "policies.default.max_requests_per_minute"
    assert error.headers == {"Retry-After": "1"}
    assert error.data["retry_after_ms"] == 750
    limiter.admit("alice", "default", "fast", 0.25 + error.data["retry_after_ms"] / 1000)


def test_clients_do_not_share_a_bucket(limiter: Limiter) -> None:
    assert admitted(limiter, "alice", "fast", 0.0) == 5
    assert admitted(limiter, "bob", "fast", 0.0) == 5


def test_no_limit_and_the_default_burst(limiter: Limiter) -> None:
    assert admitted(limiter, "root", "fast", 0.0, 5000) == 5000
    assert admitted(limiter, "carol", "fast", 0.0) == 2


def test_an_upstreams_bucket_is_charged_together_with_the_clients(limiter: Limiter) -> None:
    assert admitted(limiter, "alice", "slow", 0.0) == 2
    with pytest.raises(RateLimited) as caught:
        limiter.admit("alice", "default", "slow", 0.0)
    assert caught.value.key == "policies.default.rate_limits.upstreams.slow.max_requests_per_minute"
    assert caught.value.headers == {"Retry-After": "2"}
    # The refused ones cost nothing elsewhere: three of five are left.
    assert admitted(limiter, "alice", "fast", 0.0) == 3


def test_the_longest_wait_is_told(limiter: Limiter) -> None:
    assert admitted(limiter, "alice", "slow", 0.0) == 2
    assert admitted(limiter, "alice", "fast", 0.0) == 3
    with pytest.raises(RateLimited) as caught:
        limiter.admit("alice", "default", "slow", 0.0)
    assert caught.value.key == "policies.default.rate_limits.upstreams.slow.max_requests_per_minute"
    limiter.admit("alice", "default", "slow", 2.1)


def test_a_tool_is_charged_to_every_pattern_that_matches(limiter: Limiter) -> None:
    for _ in range(100):
        limiter.admit_tool("alice", "default", "get_repo", 0.0)
        limiter.admit_tool("root", "unlimited", "delete_repo", 0.0)
    limiter.admit_tool("alice", "default", "delete_repo", 0.0)
    with pytest.raises(RateLimited) as caught:
        limiter.admit_tool("alice", "default", "delete_repo", 0.0)
    assert caught.value.key == "policies.default.rate_limits.tools.delete_repo.max_requests_per_minute"
    assert caught.value.headers == {"Retry-After": "60"}
    # Refused by one bucket, so the other one still has its second token.
    limiter.admit_tool("alice", "default", "delete_branch", 0.0)
    with pytest.raises(RateLimited) as caught:
        limiter.admit_tool("alice", "default", "delete_branch", 0.0)
    assert caught.value.key == "policies.default.rate_limits.tools.delete_*.max_requests_per_minute"


def test_names_make_no_buckets(limiter: Limiter) -> None:
    with pytest.raises(KeyError):
        limiter.admit("mallory", "default", "fast", 0.0)
    with pytest.raises(KeyError):
        limiter.admit("alice", "unlimited", "fast", 0.0)
    for number in range(100):
        limiter.admit("root", "unlimited", f"upstream-{number}", 0.0)
    assert admitted(limiter, "alice", "unheard-of", 0.0) == 5
    assert admitted(limiter, "alice", "unheard-of-either", 0.0) == 0


@given(st.lists(st.tuples(st.sampled_from(["fast", "slow"]), st.floats(0, 3)), max_size=60))
def test_a_charge_is_all_or_nothing(requests: list[tuple[str, float]]) -> None:
    """What the limiter admits is what two buckets say that are asked first and charged only together."""
    limiter, own, slow = Limiter(POLICIES, CLIENTS), Bucket(60, 5), Bucket(30, 2)
    now = 0.0
    for upstream, step in requests:
        now += step
        concerned = [own, slow] if upstream == "slow" else [own]
        waits = [bucket.wait(now) for bucket in concerned]
        if any(waits):
            with pytest.raises(RateLimited) as caught:
                limiter.admit("alice", "default", upstream, now)
            assert caught.value.headers["Retry-After"] == str(math.ceil(max(waits)))
        else:
            limiter.admit("alice", "default", upstream, now)
            for bucket in concerned:
                bucket.take(now)


# -- at once ----------------------------------------------------------------------------------------------------------


def test_calls_and_streams_at_once_are_counted_apart() -> None:
    concurrency = Concurrency({"default": Policy(max_concurrent_calls=2, max_concurrent_streams=1)})
    concurrency.enter_call("alice", "default")
    concurrency.enter_call("alice", "default")
    concurrency.enter_call("bob", "default")
    concurrency.enter_stream("alice", "default")
    assert dict(concurrency.calls) == {"alice": 2, "bob": 1}
    assert dict(concurrency.streams) == {"alice": 1}
    with pytest.raises(TooManyConcurrent) as caught:
        concurrency.enter_call("alice", "default")
    assert (caught.value.status, caught.value.key) == (429, "policies.default.max_concurrent_calls")
    assert caught.value.headers == {"Retry-After": "1"}
    with pytest.raises(TooManyConcurrent) as caught:
        concurrency.enter_stream("alice", "default")
    assert caught.value.key == "policies.default.max_concurrent_streams"
    concurrency.leave_call("alice")
    concurrency.enter_call("alice", "default")
    for client in ("alice", "alice", "bob"):
        concurrency.leave_call(client)
    concurrency.leave_stream("alice")
    assert (dict(concurrency.calls), dict(concurrency.streams)) == ({}, {})


def test_leaving_more_often_than_entering_is_a_defect() -> None:
    concurrency = Concurrency({"default": Policy()})
    with pytest.raises(ValueError, match="more often"):
        concurrency.leave_call("alice")
    concurrency.enter_stream("alice", "default")
    concurrency.leave_stream("alice")
    with pytest.raises(ValueError, match="more often"):
        concurrency.leave_stream("alice")
