# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PingRateLimit}: how many pings a peer may send.

Problem: pings that were sent at a lawful rate may arrive all at once, because this process was
stopped or busy, because reading was paused, or because the network held them back.  A count of the
pings of one second would then end a link whose peer did nothing wrong.

Idea: a token bucket.  A peer may send C{perSecond} pings for each second since it connected, and
L{BURST<PingRateLimit.BURST>} seconds' worth more.  What it does not use is kept for
L{SAVED<PingRateLimit.SAVED>} seconds.

Invariants:

 - A peer that keeps to the rate never passes the limit, if its pings are delayed by no more than
   C{SAVED} seconds.
 - A flood ends after C{(BURST + SAVED) * perSecond} pings at most.

Cost: a bucket is one number, the time at which it was last empty.
"""

from __future__ import annotations

from math import floor

_ROUNDING = 1e-6
"""Of a ping: more than the rounding error of any sum of times."""


class PingRateLimit:
    """
    The arithmetic of token buckets for pings.

    @ivar perSecond: the rate, in pings per second.
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

        @param emptyAt: when the bucket was last empty, in seconds.  A new peer's was empty L{BURST}
            seconds before it connected.
        @return: how many pings the peer may send before the bucket is asked again, 0 if it is
            empty; and the new C{emptyAt}.
        """
        emptyAt = max(emptyAt, now - self.BURST - self.SAVED)
        saved = floor((now - emptyAt) * self.perSecond + _ROUNDING)
        granted = min(self.perSecond, saved)
        return granted, emptyAt + granted / self.perSecond
