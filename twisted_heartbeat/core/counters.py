# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Counters}: what is counted without an event for each.
"""

from __future__ import annotations


class Counters:
    """
    The counts of one clock since this process began.

    @ivar pings: pings that were sent.
    @ivar turnedAway: connections that were closed unheard because a server was full or closing.
    """

    __slots__ = ("pings", "turnedAway")

    def __init__(self) -> None:
        self.pings = 0
        self.turnedAway = 0
