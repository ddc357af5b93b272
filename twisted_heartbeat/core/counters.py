# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What is counted without an event for each: L{Counters} for a clock, L{SourceCounters} for a factory,
service or monitor.
"""

from __future__ import annotations

from collections import Counter


class Counters:
    """
    The counts of one clock since this process began.

    @ivar pings: pings that were sent.
    @ivar turnedAway: connections that were closed unheard because a server was full or closing.
    @ivar sentCheckIns: requests of C{CheckIn}, by what became of them.
    """

    __slots__ = ("pings", "sentCheckIns", "turnedAway")

    def __init__(self) -> None:
        self.pings = 0
        self.turnedAway = 0
        self.sentCheckIns: Counter[str] = Counter()


class DatagramCounters:
    """
    The datagrams of one monitor or sender.

    @ivar received: datagrams that were received, ignored or not.
    @ivar receivedBytes: their bytes.
    @ivar sent: datagrams that were handed to the kernel.
    @ivar sentBytes: their bytes.
    @ivar ignored: datagrams that were ignored or challenged, by reason.
    """

    __slots__ = ("ignored", "received", "receivedBytes", "sent", "sentBytes")

    def __init__(self) -> None:
        self.received = self.receivedBytes = self.sent = self.sentBytes = 0
        self.ignored: dict[str, int] = {}


class CheckInCounters:
    """
    The check-ins at one server.

    @ivar received: check-ins that were taken, by their signal.
    @ivar receivedBytes: what came to the sites that C{CheckInResource.site} has made.
    @ivar refused: requests that were refused, by reason.
    """

    __slots__ = ("received", "receivedBytes", "refused")

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.receivedBytes = 0
        self.refused: Counter[str] = Counter()


class SourceCounters:
    """
    The counts of one factory, service or monitor.

    @ivar limits: how often a limit was passed without the end of a link, by the setting.
    """

    __slots__ = ("checkIns", "datagrams", "limits")

    def __init__(self) -> None:
        self.limits: Counter[str] = Counter()
        self.datagrams = DatagramCounters()
        self.checkIns = CheckInCounters()
