# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Ways to tell a dead peer from a late one, on one event loop, in virtual time.

Each hears arrivals, says when it wants to look next, and when it looks may find the peer dead.
L{replay} feeds them a trace as a reactor would: while the process does not run nothing is read, and
after that timers come before reads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf, sqrt
from statistics import NormalDist
from typing import Protocol

from twisted_heartbeat.core.detector import Decision, FailureDetector
from twisted_heartbeat.core.settings import Heartbeat

INTERVAL = 1.0
"""Seconds between two heartbeats of the peer."""

WINDOW = 1000
"""The number of last arrivals that the adaptive detectors learn from."""


class Detector(Protocol):
    """
    What is replayed.

    @ivar due: when to look.
    """

    due: float

    def heard(self, now: float) -> None:
        """A heartbeat has been read."""

    def look(self, now: float, lateness: float) -> bool:
        """Whether the peer is dead."""


class Fixed:
    """
    A timeout, as C{TimeoutMixin} has it.
    """

    def __init__(self, bound: float, now: float) -> None:
        self._bound = bound
        self.due = now + bound

    def heard(self, now: float) -> None:
        """
        It begins anew.
        """
        self.due = now + self._bound

    def look(self, now: float, lateness: float) -> bool:
        """
        A timer that has not been reset.
        """
        return True


class Chen:
    """
    The expected arrival, and a margin after it, here so much that the bound comes out.

    Source: Chen, Toueg, Aguilera, I{On the Quality of Service of Failure Detectors}, 2002.
    """

    def __init__(self, bound: float, now: float) -> None:
        self._margin = bound - INTERVAL
        self._count = 0
        self._offsets: deque[float] = deque()
        self._sum = 0.0
        self.due = now + bound

    def heard(self, now: float) -> None:
        """
        When the next is expected, by the mean of how late the last ones were.
        """
        offset = now - INTERVAL * self._count
        self._count += 1
        self._offsets.append(offset)
        self._sum += offset
        if len(self._offsets) > WINDOW:
            self._sum -= self._offsets.popleft()
        expected = self._sum / len(self._offsets) + INTERVAL * self._count
        self.due = expected + self._margin

    def look(self, now: float, lateness: float) -> bool:
        """
        The margin is over.
        """
        return True


class Phi:
    """
    The probability of so late an arrival, by a normal distribution of the last intervals; dead at
    phi 8, that is at one in 10**8.  Its detection time follows from that, and not from a bound.

    Source: Hayashibara et al., I{The phi accrual failure detector}, 2004; the least deviation and
    the first estimate are Akka's.
    """

    threshold = 8.0
    deviations = NormalDist().inv_cdf(1 - 10**-threshold)
    least = 0.1 * INTERVAL

    def __init__(self, bound: float, now: float) -> None:
        self._before: float | None = None
        self._intervals: deque[float] = deque()
        self._sum = self._squares = 0.0
        for first in (0.75 * INTERVAL, 1.25 * INTERVAL):
            self._learn(first)
        self.due = now + bound

    def heard(self, now: float) -> None:
        """
        When phi will be 8, if nothing else comes.
        """
        if self._before is not None:
            self._learn(now - self._before)
        self._before = now
        count = len(self._intervals)
        mean = self._sum / count
        deviation = sqrt(max(0.0, self._squares / count - mean * mean))
        self.due = now + mean + max(self.least, deviation) * self.deviations

    def look(self, now: float, lateness: float) -> bool:
        """
        Phi is 8.
        """
        return True

    def _learn(self, interval: float) -> None:
        self._intervals.append(interval)
        self._sum += interval
        self._squares += interval * interval
        if len(self._intervals) > WINDOW:
            oldest = self._intervals.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest


class Ours:
    """
    The package's own L{FailureDetector}.
    """

    def __init__(self, bound: float, now: float) -> None:
        self._liveness = FailureDetector(
            Heartbeat(interval=INTERVAL, timeout=bound - INTERVAL), now
        )

    @property
    def due(self) -> float:
        """
        As the pulse would visit it.
        """
        return self._liveness.due

    def heard(self, now: float) -> None:
        """
        The one assignment.
        """
        self._liveness.heardAt = now

    def look(self, now: float, lateness: float) -> bool:
        """
        As the link does.
        """
        return self._liveness.decide(now, lateness) is Decision.VERDICT


DETECTORS: dict[str, Callable[[float, float], Detector]] = {
    "twisted_heartbeat": Ours,
    "fixed timeout": Fixed,
    "Chen": Chen,
    "phi accrual (8)": Phi,
}


@dataclass(frozen=True)
class Trace:
    """
    What happens to one who watches a peer that lives.

    @ivar arrivals: when its heartbeats come, in seconds, in order.
    @ivar stalls: from when to when this process does not run, in order.
    """

    arrivals: Sequence[float]
    stalls: Sequence[tuple[float, float]] = ()

    def runs(self, when: float) -> float:
        """
        When what happens then is noticed.
        """
        at = bisect_right(self.stalls, (when, inf)) - 1
        return max(when, self.stalls[at][1]) if at >= 0 else when


@dataclass
class Record:
    """
    How a detector did.

    @ivar mistakes: for each time that the living peer was found dead: seconds until it was heard.
    @ivar detections: seconds from the last byte to the verdict, had the peer died there.
    """

    mistakes: list[float] = field(default_factory=list)
    detections: list[float] = field(default_factory=list)


def replay(
    trace: Trace, detector: Callable[[float, float], Detector], bound: float, every: int = 50
) -> Record:
    """
    Have a detector watch a trace.  After a mistake it begins anew with the next arrival.

    @param every: the peer's death is tried once in this number of arrivals.
    """
    record = Record()
    start = trace.runs(trace.arrivals[0])
    watching: Detector | None = detector(bound, start)
    wrongSince = 0.0
    for number, arrival in enumerate(trace.arrivals):
        read = trace.runs(arrival)
        if watching is not None:
            verdict = _watch(trace, watching, read)
            if verdict is not None:
                watching, wrongSince = None, verdict
        if watching is None:
            record.mistakes.append(read - wrongSince)
            watching = detector(bound, read)
        watching.heard(read)
        if number % every == every - 1:
            died = _watch(Trace(()), deepcopy(watching), inf)
            assert died is not None
            record.detections.append(died - read)
    return record


def _watch(trace: Trace, detector: Detector, until: float) -> float | None:
    """
    Let it look whenever it wants to, until the next arrival is read.

    @return: the time of its verdict.
    """
    looked = -inf
    while (now := trace.runs(detector.due)) <= until:
        # Of one instant timers come first, but after them all is read once before they come again.
        if now == until == looked:
            return None
        if detector.look(now, now - detector.due):
            return now
        looked = now
    return None
