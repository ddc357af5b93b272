# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
When the next heartbeat is expected, and how often a living peer is suspected by that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import accumulate, pairwise
from math import sqrt
from pathlib import Path

import pytest

from twisted_heartbeat.core.datagram.estimator import ArrivalEstimator

RECORDING = Path(__file__).parents[3] / "benchmarks" / "traces.json"
COUNT = 8000

Arrivals = list[tuple[int, float]]
"""The number of a heartbeat, which is when it was sent, and when it arrived."""


def forward(arrivals: Arrivals) -> Arrivals:
    """
    What is left when late datagrams count for nothing.
    """
    found, highest = [], -1
    for number, at in sorted(arrivals, key=lambda arrival: arrival[1]):
        if number > highest:
            found.append((number, at))
            highest = number
    return found


def synthetic(delay: Callable[[random.Random], float], loss: float) -> Arrivals:
    """
    Heartbeats that are each delayed and lost by themselves.
    """
    draw = random.Random(5)
    numbers = (number for number in range(COUNT) if draw.random() >= loss)
    return forward([(number, number + delay(draw)) for number in numbers])


def recorded() -> Arrivals:
    """
    The trace of an overloaded machine, stretched to a heartbeat a second.
    """
    steps = json.loads(RECORDING.read_text(encoding="utf-8"))["arrivals"]
    return forward([(n, total / 10_000) for n, total in enumerate(accumulate(steps))])


TRACES: dict[str, Callable[[], Arrivals]] = {
    "normal": lambda: synthetic(lambda draw: max(0.0, draw.gauss(0.1, 0.03)), 0.0),
    "normal, 20 % lost": lambda: synthetic(lambda draw: max(0.0, draw.gauss(0.1, 0.03)), 0.2),
    "exponential": lambda: synthetic(lambda draw: draw.expovariate(5.0), 0.0),
    "exponential, 40 % lost": lambda: synthetic(lambda draw: draw.expovariate(5.0), 0.4),
    "heavy tail, 5 % lost": lambda: synthetic(lambda draw: 0.05 * draw.paretovariate(1.5), 0.05),
    "recorded": recorded,
}


@pytest.mark.parametrize("name", TRACES)
def test_suspectsNoMoreThanFixedTimeout(name: str) -> None:
    """
    At the same mean detection time, a living peer is suspected no more often than by a fixed
    timeout, within what chance does to both.
    """
    arrivals = TRACES[name]()
    number, at = arrivals[0]
    estimator = ArrivalEstimator(at, number * 1000, 1.0)
    expected = [estimator.expected]
    for number, at in arrivals[1:]:
        assert estimator.heard(at, number * 1000, 1.0, 1e9)
        expected.append(estimator.expected)
    pairs = list(zip(pairwise(arrivals), expected, strict=False))
    delay = sum(at - number for (number, at), _ in pairwise(arrivals)) / len(pairs)
    fewer = 0
    for margin in (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5):
        ours = sum(at < due + margin < after for ((_, at), (_, after)), due in pairs)
        detection = sum(max(at, due + margin) - number for ((number, at), _), due in pairs)
        timeout = detection / len(pairs) - delay
        fixed = sum(after - at > timeout for ((_, at), (_, after)), _ in pairs)
        assert ours <= fixed + 2 * sqrt(fixed) + 2
        fewer += ours < fixed
    assert fewer >= 3


def test_expectedNeedsNoCommonClock() -> None:
    """
    The sender's clock may begin anywhere, and run over.
    """
    begin = 2**32 - 2500
    estimator = ArrivalEstimator(10.0, begin, 1.0)
    for second in range(1, 10):
        assert estimator.heard(10.0 + second, (begin + 1000 * second) % 2**32, 1.0, 3.0)
        assert estimator.expected == pytest.approx(11.0 + second)
    assert estimator.jitter == pytest.approx(0.0, abs=1e-6)


def test_jitter() -> None:
    """
    The jitter is that of RFC 3550: it settles at the mean difference of two delays.
    """
    estimator = ArrivalEstimator(0.0, 0, 1.0)
    for second in range(1, 200):
        estimator.heard(second + 0.03 * (second % 2), second * 1000, 1.0, 3.0)
    assert estimator.jitter == pytest.approx(0.03, rel=0.01)


def test_heldBack() -> None:
    """
    A heartbeat that was under way for too long, or whose sender's clock was set back, is refused,
    and changes nothing.
    """
    estimator = ArrivalEstimator(0.0, 5000, 1.0)
    assert estimator.heard(1.0, 6000, 1.0, 3.0)
    expected = estimator.expected
    assert not estimator.heard(5.1, 7000, 1.0, 3.0)
    assert not estimator.heard(2.0, 4000, 1.0, 3.0)
    assert estimator.expected == expected
    assert estimator.heard(4.9, 7000, 1.0, 3.0)
