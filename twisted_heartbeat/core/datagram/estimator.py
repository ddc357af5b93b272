# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ArrivalEstimator}: when the next heartbeat of a peer should arrive.

I{Problem.}  A timeout that starts with the last arrival inherits the delay of that one datagram:
after a quick one it is too short, and suspects a peer whose next datagram is merely as slow as most
are.

I{Idea.}  NFD-E of Chen, Toueg and Aguilera, I{On the Quality of Service of Failure Detectors}
(2002), section 5.  Each heartbeat says when it was sent, by the sender's own clock, and when the
next one follows.  The mean of (arrival - sent) over the last L{WINDOW} heartbeats is the offset of
that clock plus the mean delay, so that the next arrival is expected at (next sending + mean).  The
clocks need not agree; they drift apart by less than a millisecond within the window.

I{Invariant.}  Only suspicion goes by this.  The verdict never goes by a clock of the sender's.
"""

from __future__ import annotations

from collections import deque

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

    __slots__ = ("_base", "_offset", "_offsets", "_sent", "_sum", "expected", "jitter")

    def __init__(self, now: float, sent: int, interval: float) -> None:
        self.jitter = 0.0
        self._begin(now, sent, interval)

    def _begin(self, now: float, sent: int, interval: float) -> None:
        # Offsets are counted from the first, so that their sum stays small and exact.
        self._base = now - sent / 1000
        self._sent = sent
        self._offset = self._sum = 0.0
        self._offsets = deque((0.0,))
        self.expected = now + interval

    def lateness(self, now: float, sent: int) -> float:
        """
        Return by how much longer a datagram was under way than the quickest of the window.
        """
        ahead = (sent - self._sent) % _WRAP
        if ahead >= _BACKWARD:
            return 0.0
        return now - (self._sent + ahead) / 1000 - self._base - min(self._offsets)

    def heard(self, now: float, sent: int, interval: float) -> None:
        """
        Take a heartbeat that is later than all before.

        @param sent: the milliseconds of the sender's clock in it.
        @param interval: when the next follows, as the sender has said.
        """
        ahead = (sent - self._sent) % _WRAP
        if ahead >= _BACKWARD:
            # The clock of the sender was set back.
            self._begin(now, sent, interval)
            return
        # The number grows on past its 32 bits.
        self._sent += ahead
        offset = now - self._sent / 1000 - self._base
        self.jitter += (abs(offset - self._offset) - self.jitter) / 16
        self._offset = offset
        offsets = self._offsets
        offsets.append(offset)
        self._sum += offset
        if len(offsets) > WINDOW:
            self._sum -= offsets.popleft()
        self.expected = self._base + self._sum / len(offsets) + self._sent / 1000 + interval
