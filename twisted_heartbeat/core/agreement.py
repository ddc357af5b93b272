# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What two hellos come to: for each direction, who has to hear what, and who has to ask for it.

As STOMP's C{heart-beat} header does, each end computes it from the same two hellos, to the same
result.
"""

from __future__ import annotations

from dataclasses import dataclass

from .wire import Hello


@dataclass(frozen=True, slots=True)
class Direction:
    """
    What is agreed on for what one end says and the other hears.

    @ivar within: seconds within which the listener has to hear something; 0 if it does not watch.
    @ivar unasked: seconds within which the speaker says something by itself, in time for that; 0
        if it does not.
    """

    within: float
    unasked: float

    @property
    def pinged(self) -> bool:
        """
        Whether the listener has to ping: it watches one who would not speak in time by itself.
        """
        return self.within > 0 and not self.unasked


@dataclass(frozen=True, slots=True)
class Agreement:
    """
    What two hellos come to, seen from one end.

    @ivar outgoing: for what this end says.
    @ivar incoming: for what it hears.
    """

    outgoing: Direction
    incoming: Direction

    @classmethod
    def of(cls, mine: Hello, theirs: Hello) -> Agreement:
        """
        @param mine: what this end has said.
        @param theirs: what it has heard.
        """
        return cls(_direction(mine, theirs), _direction(theirs, mine))


def _direction(speaker: Hello, listener: Hello) -> Direction:
    timely = 0 < speaker.offers <= listener.needs
    return Direction(listener.needs, speaker.offers if timely else 0.0)
