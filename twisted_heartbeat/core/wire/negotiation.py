# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Negotiated}: how often each end sends by itself, and which end has to ping.

Each end computes it from the same two hellos, to the same result, as with the C{heart-beat} header
of STOMP 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frames import Hello


@dataclass(frozen=True, slots=True)
class Direction:
    """
    What the two ends have agreed on for one direction.

    @ivar within: seconds within which the receiver has to receive something; 0 if it does not watch
        the sender.
    @ivar unsolicitedInterval: seconds within which the sender sends something unsolicited, which is
        soon enough for the receiver; 0 if it does not.
    """

    within: float
    unsolicitedInterval: float

    @property
    def pinged(self) -> bool:
        """
        Whether the receiver has to ping, because it watches a sender that would not send soon
        enough by itself.
        """
        return self.within > 0 and not self.unsolicitedInterval


@dataclass(frozen=True, slots=True)
class Negotiated:
    """
    What two hellos agree on, seen from one end.

    @ivar outgoing: the direction from this end to the peer.
    @ivar incoming: the direction from the peer to this end.
    """

    outgoing: Direction
    incoming: Direction

    @classmethod
    def of(cls, mine: Hello, theirs: Hello) -> Negotiated:
        """
        Compute the agreement of two hellos.

        @param mine: what this end has sent, L{rounded<Hello.rounded>}.
        @param theirs: what this end has received.
        """
        return _negotiated(mine.needs, mine.offers, theirs.needs, theirs.offers)


@lru_cache(maxsize=256)
def _negotiated(needs: float, offers: float, theirNeeds: float, theirOffers: float) -> Negotiated:
    """
    Compute the agreement.  It is cached, because the hellos of a fleet differ in their names only.
    """
    return Negotiated(_direction(offers, theirNeeds), _direction(theirOffers, needs))


def _direction(offers: float, needs: float) -> Direction:
    return Direction(needs, offers if 0 < offers <= needs else 0.0)
