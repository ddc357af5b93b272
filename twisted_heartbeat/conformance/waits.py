# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How long the end that connects waits before it comes back: the table of C{docs/wire-protocol.md},
under I{Coming back}.
"""

from __future__ import annotations

from dataclasses import dataclass

USUAL, SPREAD, SLOW = "usual", "spread", "slow"

FIRST = 1.0
"""Seconds: the width of the first wait.  Each further failure doubles it."""

LONGEST = 60.0
"""Seconds: the longest wait without a hint."""

SPREAD_FACTOR = 12
"""How much wider a wait is that is spread, or slow."""

STABLE = 10.0
"""Seconds after which a violation, or a GOODBYE with 0 or 3, leaves a connection proven."""

MIN_HINT = 1.0
"""Seconds: a hint of less in all is ignored."""

_MANY = 20
"""Failures after which a wait grows no more."""


def waitRange(pace: str, failures: int) -> tuple[float, float]:
    """
    Return the shortest and the longest wait in seconds.

    @param failures: in a row, 1 or more.
    """
    width = min(LONGEST, FIRST * 2.0 ** min(failures - 1, _MANY))
    if pace == USUAL:
        return 0.0, width
    wide = min(LONGEST, SPREAD_FACTOR * width)
    if pace == SLOW:
        return wide / 2, wide
    return (FIRST / 10 if failures == 1 else min(SPREAD_FACTOR * FIRST, wide / 2)), wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """
    How a connection has ended, as the end that connects sees it.

    @ivar pace: how its wait is drawn, without a hint.
    @ivar earliest: when the wait may have begun, in seconds.
    @ivar latest: when the wait has begun at the latest.
    @ivar proven: whether the end leaves the connection proven; L{None} if that can not be told.
    @ivar retryAfter: the hint, in seconds.
    @ivar spread: of the hint, in seconds.
    """

    pace: str
    earliest: float
    latest: float
    proven: bool | None
    retryAfter: float = 0.0
    spread: float = 0.0

    @property
    def hasHint(self) -> bool:
        """
        Whether there is a hint that counts.
        """
        return self.retryAfter + self.spread >= MIN_HINT

    def wait(self, failures: int | None, scale: float) -> tuple[float, float]:
        """
        Return the shortest and the longest wait that the table allows, in seconds.

        @param failures: in a row, this end among them; L{None} if that is not known.
        @param scale: seconds that the peer takes for one.  A hint is in real ones.
        """
        count = (1, _MANY) if failures is None else (failures, failures)
        least = min(waitRange(self.pace, each)[0] for each in count) * scale
        most = max(waitRange(self.pace, each)[1] for each in count) * scale
        if not self.hasHint:
            return least, most
        first, last = self.retryAfter, self.retryAfter + self.spread
        return (max(least, first), max(most, last)) if self.pace == SLOW else (first, last)
