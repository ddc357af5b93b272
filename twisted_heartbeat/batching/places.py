# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The common places of an interval, at which quiet links are pinged together.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from ..core.detector import LATENESS_TOLERANCE

if TYPE_CHECKING:
    from ..core.settings import Heartbeat


PLACES = 32
"""Places in an interval."""

_INSIDE = 1 / 128
"""Seconds: half of a slot of the timer wheel."""


def commonPhase(drawn: float, now: float, interval: float) -> float:
    """
    Return the phase nearest to C{drawn} that lies at one of L{PLACES} places in the interval.  The
    links of one place are pinged together, and wake a sleeping machine once.

    @param drawn: from 0 to 1.
    @param now: seconds of the clock that all links share.
    """
    step = interval / PLACES
    place = placeBefore(now + drawn * interval + _INSIDE, interval)
    if place <= now:
        place += step
    elif place > now + interval:
        place -= step
    return min(1.0, max(0.0, (place - now) / interval))


def placeBefore(when: float, interval: float) -> float:
    """
    Return the last place that is no later than C{when}.
    """
    step = interval / PLACES
    # Inside of a slot: at its border, a rounding error would divide the links of a place.
    return floor((when - _INSIDE) / step) * step + _INSIDE


def lastPlace(heartbeat: Heartbeat, due: float, now: float) -> tuple[float, float]:
    """
    Move C{due} on by whole intervals to the last time that is not after C{now}.

    @return: that time, and when the pings of then are taken to be sent: at the same time, unless
        they are late.
    """
    assert heartbeat.interval is not None
    due += (now - due) // heartbeat.interval * heartbeat.interval
    return due, now if now - due > LATENESS_TOLERANCE else due
