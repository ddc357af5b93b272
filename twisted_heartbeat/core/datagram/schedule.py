# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Schedule}: when a sender sends; and how often it has to, for the loss that the user allows for.

Heartbeat C{i} leaves at C{T0 + i * period - U(0, period / 4)}.  The jitter keeps a fleet apart (RFC
5880, 6.8.7).  It is drawn around a fixed grid, because jitter that adds up would shift the grid,
and a monitor could no longer tell a late datagram from a lost one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, log

from ..validation import isNumber

EARLY = 0.25
"""The part of the period by which a heartbeat may leave early."""

MIN_PERIOD = 3.0
"""Seconds between heartbeats unless the user asks for more of them (RFC 8085, 3.1.3)."""

PER_BOUND = 6
"""Periods in a bound."""

RARE = 1e-6
"""The rate of false verdicts that C{allowLoss} keeps to: at most one for this many heartbeats."""


def sendsWithin(bound: float, period: float) -> int:
    """
    Return how many heartbeats leave for sure within a bound after any heartbeat.  That one may have
    left early, and the last of them late.
    """
    return max(0, floor(bound / period - EARLY + 1e-9))


def falseVerdicts(loss: float, sends: int) -> float:
    """
    Return the probability that, after a heartbeat that was received, all of the next C{sends} are
    lost: the highest rate of false verdicts at this rate of loss.
    """
    return float(loss**sends)


def sendsFor(loss: float) -> int:
    """
    Return how many heartbeats a bound must have at this loss, so that false verdicts are L{RARE}.
    """
    return 1 if loss == 0 else max(1, ceil(log(RARE) / log(loss) - 1e-9))


def periodFor(bound: float, every: float | None = None, allowLoss: float | None = None) -> float:
    """
    Return the seconds between two heartbeats.

    @param bound: the sender's.
    @param every: what the user asks for; L{None} for C{max(3 s, bound / 6)}, or as often as
        C{allowLoss} needs.
    @param allowLoss: the rate of loss that must not lead to false verdicts, from 0 to below 1.
    @raise ValueError: if so many heartbeats do not fit into the bound.
    """
    if every is not None and not (isNumber(every) and every > 0):
        raise ValueError(f"every is {every!r}: it must be a number of seconds above 0, or None")
    if allowLoss is not None and not (isNumber(allowLoss) and 0 <= allowLoss < 1):
        raise ValueError(f"allowLoss is {allowLoss!r}: it must be a number from 0 to below 1")
    needed = 1 if allowLoss is None else sendsFor(allowLoss)
    period = every
    if period is None:
        period = max(MIN_PERIOD, min(bound / PER_BOUND, bound / (needed + EARLY)))
    found = sendsWithin(bound, period)
    if found < needed:
        raise ValueError(
            f"a bound of {bound:g} s has room for {found} heartbeats, one each {period:g} s, "
            + (
                "but there must be one at least"
                if allowLoss is None
                else f"but a loss of {allowLoss:g} needs {needed}"
            )
            + f": raise the bound to {(needed + EARLY) * period:.4g} s, "
            f"or set every to {bound / (needed + EARLY):.4g} s or less"
        )
    return period


class Schedule:
    """
    The grid of one sender.
    """

    __slots__ = ("_index", "_origin", "_random", "period")

    def __init__(self, period: float, now: float, random: Callable[[], float]) -> None:
        """
        @param random: draws a number from 0 up to 1.
        """
        self.period = period
        self._random = random
        # So that the first leaves at once, but for its jitter.
        self._origin = now + EARLY * period
        self._index = -1

    def following(self, now: float) -> float:
        """
        Return when the next heartbeat leaves.  Those that this process has slept through are left
        out.
        """
        upcoming = floor((now - self._origin) / self.period) + 1
        self._index = max(self._index + 1, upcoming)
        return max(now, self.latest - self._random() * EARLY * self.period)

    @property
    def latest(self) -> float:
        """
        When that heartbeat leaves at the latest.
        """
        return self._origin + self._index * self.period
