# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The common phases of an interval, at which quiet links are pinged together.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from ..core.detector import LATENESS_TOLERANCE

if TYPE_CHECKING:
    from ..core.settings import Heartbeat


PLACES = 32
"""In an interval."""

_INSIDE = 1 / 128
"""Seconds: half of a slot of the pulse."""


def commonPhase(drawn: float, now: float, interval: float) -> float:
    """
    The phase nearest to one that was drawn that has its place in common with others: there are
    L{PLACES} in each interval, so that those who share one are pinged together, and wake a sleeping
    machine once.

    @param drawn: from 0 to 1.
    @param now: seconds of the clock of all.
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
    The last of the common places that is no later than this.
    """
    step = interval / PLACES
    # Where slots begin, an error in the last digit would tear one apart.
    return floor((when - _INSIDE) / step) * step + _INSIDE


def lastPlace(heartbeat: Heartbeat, due: float, now: float) -> tuple[float, float]:
    """
    When those were last due who once were, and when they are asked: at the same time, as far as
    their bound goes, unless it is late.
    """
    assert heartbeat.interval is not None
    due += (now - due) // heartbeat.interval * heartbeat.interval
    return due, now if now - due > LATENESS_TOLERANCE else due
