# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What two hellos come to: for each direction, who has to hear what, and who has to ask for it.

As STOMP's C{heart-beat} header does, each end computes it from the same two hellos, to the same
result.
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
    What is agreed on for what one end says and the other hears.

    @ivar within: seconds within which the listener has to hear something; 0 if it does not watch.
    @ivar unsolicitedInterval: seconds within which the speaker says something by itself, in time
        for that; 0 if it does not.
    """

    within: float
    unsolicitedInterval: float

    @property
    def pinged(self) -> bool:
        """
        Whether the listener has to ping: it watches one who would not speak in time by itself.
        """
        return self.within > 0 and not self.unsolicitedInterval


@dataclass(frozen=True, slots=True)
class Negotiated:
    """
    What two hellos come to, seen from one end.

    @ivar outgoing: for what this end says.
    @ivar incoming: for what it hears.
    """

    outgoing: Direction
    incoming: Direction

    @classmethod
    def of(cls, mine: Hello, theirs: Hello) -> Negotiated:
        """
        @param mine: what this end has said.
        @param theirs: what it has heard.
        """
        return _negotiated(mine.needs, mine.offers, theirs.needs, theirs.offers)


@lru_cache(maxsize=256)
def _negotiated(needs: float, offers: float, theirNeeds: float, theirOffers: float) -> Negotiated:
    """
    One for all the links of a fleet: they differ in little but their names.
    """
    return Negotiated(_direction(offers, theirNeeds), _direction(theirOffers, needs))


def _direction(offers: float, needs: float) -> Direction:
    return Direction(needs, offers if 0 < offers <= needs else 0.0)
