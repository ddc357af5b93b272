# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PingRateLimit}: how many pings a peer may send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..link.link import Link

_ROUNDING = 1e-6
"""Of a ping: more than the error of any sum of floats."""


class PingRateLimit:
    """
    A token bucket for the pings of each peer.

    Pings that were sent at a lawful rate may arrive all at once: this process was stopped or busy,
    reading was paused, or the network held them back.  Therefore the pings of one second are not
    counted by themselves.  A peer may send C{perSecond} pings for each second since it connected,
    and L{BURST} seconds' worth beside.  What it has not used for more than L{SAVED} seconds is
    lost.  A peer that keeps to the rate never passes the limit, however its pings are delayed by up
    to L{SAVED} seconds.  A flood ends after C{(BURST + SAVED) * perSecond} pings at most.

    One object serves all peers of a server.  A peer's bucket is one number, which its session
    keeps: when the bucket was last empty.

    @ivar perSecond: the rate.
    """

    BURST = 3.0
    """Seconds' worth of pings that a new peer may send at once."""

    SAVED = 120.0
    """Seconds for which unused pings are kept."""

    __slots__ = ("_passed", "perSecond")

    def __init__(self, perSecond: int, passed: Callable[[Link], object]) -> None:
        """
        @param passed: takes the link of a peer that has passed the limit, and ends it.
        """
        self.perSecond = perSecond
        self._passed = passed

    def spend(self, link: Link, emptyAt: float | None) -> float:
        """
        Take a ping out of the bucket of a link's peer.  If the bucket is empty, the link ends.

        @param emptyAt: when the bucket was last empty, in seconds, as the last call has returned;
            L{None} for the first ping.
        """
        now = link.peerWatch.detector.heardAt
        if emptyAt is None:
            emptyAt = link.establishedAt - self.BURST
        full = now - self.BURST - self.SAVED
        after = (emptyAt if emptyAt > full else full) + 1 / self.perSecond
        if after <= now:
            return after
        if after < now + _ROUNDING / self.perSecond:
            # Without this, the rounding of floats would end the link of a peer that keeps the rate.
            return now
        self._passed(link)
        return after
