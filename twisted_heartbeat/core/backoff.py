# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Backoff}: how long to wait before the next attempt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from .causes import PeerClosed, RetryPace
from .validation import isCount, isNumber, require, requirePositive

if TYPE_CHECKING:
    from .causes import Cause


MAX_REQUESTED_DELAY = 3600.0
"""Seconds.  A goodbye that asks for a longer delay, or a longer spread, gets this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """
    How long to wait before the next attempt: exponential, with full jitter, inside a cap.

    An instance is callable, attempt -> seconds, so that it also serves as the C{retryPolicy} of
    Twisted's C{ClientService}.

    Full jitter is M{uniform(0, ceiling)}: see Marc Brooker, I{Exponential Backoff And Jitter}, AWS
    Architecture Blog, 2015.

    @ivar initial: seconds; the ceiling of the first draw.
    @ivar maximum: seconds; no draw is longer.
    @ivar factor: how much the ceiling grows with each attempt, 1 or more.
    @ivar jitter: C{"full"}; or a fraction from 0 to 1 by which the ceiling is varied either way;
        or L{None} to wait for the ceiling itself.
    @ivar spread: seconds; the first ceiling after a cause that a whole fleet sees in one instant,
        and the shortest wait from the second failure on, but at most half of the ceiling.  The
        default is above 10 s, so that chance brings no more than 10 % of a fleet in one second.
    @ivar stableAfter: seconds after which a link is proven even if the peer has not spoken; over
        the built-in protocol, after which a goodbye or a violation no longer revokes the proof.
    @ivar maxAttempts: failed attempts in a row after which it gives up, with several endpoints
        failed rounds; L{None} for never.
    @ivar maxElapsed: seconds since the first of these failures after which it gives up; L{None} for
        never.
    @raise ValueError: if a value is outside of the range that is stated here.
    """

    initial: float = 1.0
    maximum: float = 60.0
    factor: float = 2.0
    jitter: Literal["full"] | float | None = "full"
    spread: float = 12.0
    stableAfter: float = 10.0
    maxAttempts: int | None = None
    maxElapsed: float | None = None

    def __post_init__(self) -> None:
        requirePositive(self, "initial", "maximum")
        for field in ("spread", "stableAfter"):
            value = getattr(self, field)
            require(isNumber(value) and value >= 0, self, field, value, "a number, 0 or more")
        factorHolds = isNumber(self.factor) and self.factor >= 1
        require(factorHolds, self, "factor", self.factor, "a number, 1 or more")
        require(
            self.maximum >= self.initial,
            self,
            "maximum",
            self.maximum,
            f"at least initial, {self.initial!r}",
        )
        jitterHolds = (
            self.jitter is None
            or self.jitter == "full"
            or (isNumber(self.jitter) and 0 <= float(self.jitter) <= 1)
        )
        require(jitterHolds, self, "jitter", self.jitter, '"full", a fraction from 0 to 1, or None')
        attempts = self.maxAttempts
        allowed = "a whole number, 1 or more, or None to never give up"
        require(attempts is None or isCount(attempts), self, "maxAttempts", attempts, allowed)
        requirePositive(self, "maxElapsed", orNone=True)

    def __call__(self, attempt: int) -> float:
        """
        Return the seconds to wait, without regard to a cause.

        @param attempt: failed attempts in a row, 1 or more.
        """
        return self.delay(attempt)

    def delay(
        self,
        attempt: int,
        cause: Cause | None = None,
        draw: Callable[[], float] = random.random,
    ) -> float:
        """
        Return the seconds to wait after a cause.

        The delay that a goodbye has asked for replaces the usual delay.  L{MAX_REQUESTED_DELAY}
        limits it, C{maximum} does not.

        @param attempt: failed attempts in a row, 1 or more.
        @param cause: why the last attempt failed; L{None} where that is not known.
        @param draw: returns a random number from 0 to 1.
        """
        slow = cause is not None and cause.pace is RetryPace.SLOW
        jittered = self._jittered(attempt, cause, slow, draw)
        # Without a minimum, a peer that always asks for almost nothing would cause a hot loop.
        requested = requestedDelay(cause, draw, least=self.initial)
        return max(jittered, requested) if slow else requested or jittered

    def _jittered(
        self, attempt: int, cause: Cause | None, slow: bool, draw: Callable[[], float]
    ) -> float:
        fleetWide = cause is not None and cause.fleetWide and self.jitter is not None
        base = max(self.initial, self.spread) if slow or fleetWide else self.initial
        ceiling = min(self.maximum, _exponential(base, self.factor, attempt - 1))
        if self.jitter is None:
            return ceiling
        # A slow retry must never come soon, so its draw keeps to the upper half.
        floor = ceiling / 2 if slow else 0.0
        if fleetWide:
            floor = max(floor, self._fleetFloor(attempt, ceiling))
        if self.jitter == "full":
            return floor + (ceiling - floor) * draw()
        varied = ceiling * (1 + self.jitter * (2 * draw() - 1))
        return min(self.maximum, max(floor, varied))

    def _fleetFloor(self, attempt: int, ceiling: float) -> float:
        """
        Return the shortest wait of a client after a cause that the whole fleet sees.  The first
        wait is short: a tenth of C{initial}, because no peer is back sooner.  A client that was
        refused then leaves the spread to the clients that have not tried yet; otherwise both groups
        would come at once.
        """
        if attempt == 1:
            return min(self.initial, self.spread) / 10
        return min(self.spread, ceiling / 2)

    def exhausted(self, attempts: int, elapsed: float) -> bool:
        """
        Whether to give up.

        @param attempts: failed attempts in a row.
        @param elapsed: seconds since the first of them.
        """
        return attempts >= (self.maxAttempts or inf) or elapsed > (self.maxElapsed or inf)


def requestedDelay(
    cause: Cause | None, draw: Callable[[], float] = random.random, least: float = 0.0
) -> float:
    """
    Return the seconds that the peer's goodbye has asked to wait, with a draw from its spread.

    @param draw: returns a random number from 0 to 1.
    @param least: seconds; a request for less than this in all is ignored.
    @return: 0 if the cause is no goodbye, or asks for nothing.
    """
    if not isinstance(cause, PeerClosed):
        return 0.0
    after = min(cause.retryAfter, MAX_REQUESTED_DELAY)
    spread = min(cause.spread, MAX_REQUESTED_DELAY)
    return after + spread * draw() if after + spread >= least else 0.0


def _exponential(base: float, factor: float, times: int) -> float:
    try:
        return base * factor ** max(0, times)
    except OverflowError:
        return inf
