# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ArrivalEstimator}: when the next heartbeat of a peer should arrive, and which ones were held back.

I{Problem.}  A timeout that starts with the last arrival inherits the delay of that one datagram:
after a quick one it is too short, and suspects a peer whose next datagram is merely as slow as most
are.

I{Idea.}  NFD-E of Chen, Toueg and Aguilera, I{On the Quality of Service of Failure Detectors}
(2002), section 5.  Each heartbeat says when it was sent, by the sender's own clock, and when the
next one follows.  The mean of (arrival - sent) is the offset of that clock plus the mean delay, so
that the next arrival is expected at (next sending + mean).  The clocks need not agree.  The mean
goes over the first L{WINDOW} heartbeats, and from then on each new one weighs 1/32.  The paper's
window of the last 32 says the same, but to keep them for ten thousand peers costs cache misses.

I{Invariant.}  Only suspicion goes by this, and the challenge of what was held back.  The verdict
never goes by a clock of the sender's.
"""

from __future__ import annotations

WINDOW = 32
"""Heartbeats.  The number that the paper simulates with."""

_WRAP = 2**32
_BACKWARD = 2**31


class ArrivalEstimator:
    """
    The estimate for one session.  All times are in seconds, but for C{sent}.

    @ivar expected: when the next heartbeat should arrive.
    @ivar jitter: the mean deviation of the delay (RFC 3550, 6.4.1).
    """

    __slots__ = (
        "_base",
        "_count",
        "_least",
        "_mean",
        "_offset",
        "_sent",
        "expected",
        "jitter",
    )

    def __init__(self, now: float, sent: int, interval: float) -> None:
        self.jitter = 0.0
        self.begin(now, sent, interval)

    def begin(self, now: float, sent: int, interval: float) -> None:
        """
        Forget all but the jitter: this heartbeat is known to be fresh.
        """
        self._base = now - sent / 1000
        self._sent = sent
        # Relative to the first.
        self._offset = self._mean = self._least = 0.0
        self._count = 1
        self.expected = now + interval

    def heard(self, now: float, sent: int, interval: float, longest: float) -> bool:
        """
        Take a heartbeat that is later than all before.

        @param sent: the milliseconds of the sender's clock in it.
        @param interval: when the next follows, as the sender has said.
        @param longest: seconds by which it may have been under way for longer than the quickest.
        @return: L{False}, with nothing changed, if it was under way for longer.
        """
        # The number grows on past its 32 bits.
        ahead = (sent - self._sent) % _WRAP
        total = self._sent + ahead
        offset = now - total / 1000 - self._base
        if ahead >= _BACKWARD or offset - self._least > longest:
            # Held back, or the clock of the sender was set back.
            return False
        self._sent = total
        if offset < self._least:
            self._least = offset
        self.jitter += (abs(offset - self._offset) - self.jitter) / 16
        self._offset = offset
        if self._count < WINDOW:
            self._count += 1
        mean = self._mean = self._mean + (offset - self._mean) / self._count
        self.expected = now - offset + mean + interval
        return True
