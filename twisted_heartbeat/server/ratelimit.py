# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PingRateLimit}: how many pings a peer may send.
"""

from __future__ import annotations

from math import floor

_ROUNDING = 1e-6
"""Of a ping: more than any sum of floats is wrong by."""


class PingRateLimit:
    """
    A token bucket for the pings of each peer.

    Pings that were sent at a lawful rate may arrive all at once: this process was stopped or busy,
    reading was paused, or the network held them back.  So not the pings of one second are counted.
    A peer may send C{perSecond} pings for each second since it connected, and L{BURST} seconds'
    worth beside; what it has not used for more than L{SAVED} seconds is lost.  However its pings
    are delayed by up to L{SAVED} seconds, a peer that keeps to the rate therefore never passes the
    limit, and a flood ends after C{(BURST + SAVED) * perSecond} pings at most.

    @ivar perSecond: the rate.
    """

    BURST = 3.0
    """Seconds' worth of pings that a new peer may send at once."""

    SAVED = 120.0
    """Seconds for which unused pings are kept."""

    __slots__ = ("perSecond",)

    def __init__(self, perSecond: int) -> None:
        self.perSecond = perSecond

    def grant(self, emptyAt: float, now: float) -> tuple[int, float]:
        """
        Take up to a second's worth of pings out of one peer's bucket.

        @param emptyAt: when the bucket was last empty, in seconds; L{BURST} before the connection
            to begin with.  That is all there is to know of a bucket.
        @return: how many the peer may send before the bucket is asked again, none if it is empty;
            and the new C{emptyAt}.
        """
        emptyAt = max(emptyAt, now - self.BURST - self.SAVED)
        there = floor((now - emptyAt) * self.perSecond + _ROUNDING)
        granted = min(self.perSecond, there)
        return granted, emptyAt + granted / self.perSecond
