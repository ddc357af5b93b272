# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.requestrate}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.core.requestrate import RequestRate


def test_aMinutesWorthAtOnceThenEvenly() -> None:
    """
    A sender may make a minute's requests at once.  Then each has to wait for its share.
    """
    rate = RequestRate(6, keys=10)
    assert [rate.spend("a", 100.0) for _ in range(6)] == [0.0] * 6
    assert rate.spend("a", 100.0) == 10.0
    assert rate.spend("a", 109.0) == 1.0
    assert rate.spend("a", 110.0) == 0.0
    assert rate.spend("a", 110.0) == 10.0


def test_sendersHaveTheirOwnAllowance() -> None:
    """
    One that floods takes nothing from another.
    """
    rate = RequestRate(1, keys=10)
    rate.spend("a", 0.0)
    assert rate.spend("a", 0.0) > 0.0
    assert rate.spend("b", 0.0) == 0.0


def test_memoryIsBounded() -> None:
    """
    Of more senders than it may keep, it forgets the one that was seen longest ago.
    """
    rate = RequestRate(1, keys=100)
    for number in range(10_000):
        assert rate.spend(str(number), 0.0) == 0.0
    assert len(rate) == 100
    assert rate.spend("9999", 0.0) > 0.0
    assert rate.spend("0", 0.0) == 0.0


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 20))
def test_noMinuteHasMoreThanTwice(gaps: list[float], perMinute: int) -> None:
    """
    Whatever the times, no minute has more than the saved minute's worth and its own.
    """
    rate, now, allowed = RequestRate(perMinute, keys=1), 0.0, []
    for gap in gaps:
        now += gap
        if rate.spend("a", now) == 0.0:
            allowed.append(now)
    for at in allowed:
        assert sum(at <= one < at + 60 for one in allowed) <= 2 * perMinute


@given(st.integers(1, 1000), st.integers(1, 500))
def test_aSteadyRateIsNeverRefused(perMinute: int, count: int) -> None:
    """
    Requests at the rate itself are all allowed, for as long as they last.
    """
    rate = RequestRate(perMinute, keys=1)
    assert all(rate.spend("a", number * 60 / perMinute) == 0.0 for number in range(count))
