# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Batcher}: the one contract through which links enter and leave their batches.
"""

from __future__ import annotations

import os
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from ..core.counters import Counters
from ..core.detector import LATENESS_TOLERANCE
from ..core.quiet import (
    checksSuspended,
    hasPhase,
    isTalkative,
    park,
    quietSince,
    resume,
)
from ..core.wire.pings import SharedPing
from ..logs import SafeLogger, Shortage
from ..timing.wheel import timerWheelFor
from ..transport.layers import isServerSide
from .pinground import CustomPingRound, PingRound
from .places import lastPlace, placeBefore
from .poller import idlePollerFor
from .talkers import TalkerScan

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from ..core.settings import Heartbeat
    from ..timing.wheel import TimerWheel
    from .interfaces import BatchMember
    from .pinground import Pinger

_log = SafeLogger()

_pollerShortage = Shortage(_log, "Links can not be in ping rounds: {error}", monotonic)

SWITCH = "TWISTED_HEARTBEAT_BATCHING"
"""The environment variable that switches batching off where it is C{"off"}."""


class Batcher:
    """
    The batches of one clock.

    @ivar wheel: the timer wheel of that clock.
    @ivar counters: the counters of that clock.
    @ivar begun: the rounds whose pings are sent at the end of the tick that is under way.
    @ivar scans: the talker scans, by the identity of their heartbeats, because to hash a heartbeat
        takes long.
    """

    MIN_FOR_SCAN = 32
    """
    Below this number of timers a scan does not pay: a link on its own timer wakes the process once
    in an interval, a scan four times.
    """

    def __init__(self, wheel: TimerWheel) -> None:
        self.wheel = wheel
        self.begun: dict[PingRound, None] = {}
        self.scans: dict[int, TalkerScan] = {}
        self.counters = wheel.shared(Counters)

    def offer(self, member: BatchMember, now: float, lateness: float) -> bool:
        """
        Batch a link that is visited, if its peer does nothing but answer or speaks often.

        @param lateness: seconds by which the visit is late.
        @return: whether it is in a batch now.  Its detector then needs no visits before
            L{BatchMember.resumed}.
        """
        detector = member.detector
        if detector.due == inf and checksSuspended(detector):
            # It is in a scan, and is visited because of its own promise.
            return True
        return self._joinRound(member, now, now - lateness) or self._joinScan(member, now)

    def interrupt(self, member: BatchMember) -> None:
        """
        End the link's stay in a ping round, if it is in one: something else than a ping and its
        pong is sent or received.
        """
        connection = member.connection
        batch: PingRound | None = None if connection is None else connection.batch
        if batch is None:
            return
        pinged, answered = batch.hasPinged(connection), connection not in batch.waiting
        last = batch.leave(connection)
        poller = idlePollerFor(connection.reactor)
        assert poller is not None
        poller.remove(connection)
        connection.unpark()
        if pinged:
            resume(member.detector, batch.due, batch.askedAt, answered=answered)
        else:
            # The ping is still due.
            resume(member.detector, batch.previousDue, batch.previousDue, answered=True)
        member.resumed(last)

    def withdraw(self, member: BatchMember) -> None:
        """
        End the link's stay in any batch.
        """
        self.interrupt(member)
        heartbeat = member.heartbeat
        if heartbeat is None or not checksSuspended(member.detector):
            return
        scan = self.scans.get(id(heartbeat))
        if scan is not None and scan.remove(member):
            if scan.isEmpty:
                self.wheel.cancel(scan)
            member.resumed(None)

    def _joinRound(self, member: BatchMember, now: float, due: float) -> bool:
        place = quietSince(member.detector, due)
        if place is None or not member.isQuiet():
            return False
        pinger, heartbeat, connection = member.pinger, member.heartbeat, member.connection
        if pinger is None or heartbeat is None or connection is None or not connection.canPark:
            return False
        poller = idlePollerFor(connection.reactor)
        if poller is None:
            return False
        placed = hasPhase(member.detector)
        if not placed and not isServerSide(connection):
            # It is most likely the only one.
            return False
        interval = heartbeat.interval or 0.0
        if member.promisedWithin < interval + LATENESS_TOLERANCE:
            return False
        place, askedAt = lastPlace(heartbeat, place, now)
        if not placed:
            place = placeBefore(place, interval)
        batch = self.roundFor(pinger, heartbeat, place, askedAt)
        try:
            poller.add(connection)
        except OSError as error:
            _pollerShortage.met(error)
            return False
        connection.park(batch)
        park(member.detector)
        batch.join(connection, member)
        return True

    def roundFor(
        self, pinger: Pinger, heartbeat: Heartbeat, due: float, askedAt: float
    ) -> PingRound:
        """
        Return the round of this tick for links that ping so, and were due about then.

        @param askedAt: when their pings are sent, if that is late; otherwise when they were due.
        """
        for known in self.begun:
            if known.isLike(pinger, heartbeat, due):
                batch = known
                break
        else:
            kind = PingRound if isinstance(pinger, SharedPing) else CustomPingRound
            batch = kind(self, pinger, heartbeat, due, askedAt)
        # No member's bound may begin later than its own ping was due.
        batch.askedAt = min(batch.askedAt, askedAt)
        if batch.slot is None:
            # It is new, or all members have left it in this tick.
            self.wheel.schedule(batch, batch.nextDue)
        return batch

    def _joinScan(self, member: BatchMember, now: float) -> bool:
        heartbeat = member.heartbeat
        if heartbeat is None or not isTalkative(member.detector, now):
            return False
        if not member.sharesHeartbeat:
            # A peer with a promise of its own is watched like no other.
            return False
        scan = self.scanFor(heartbeat, now)
        return scan is not None and scan.add(member)

    def scanFor(self, heartbeat: Heartbeat, now: float) -> TalkerScan | None:
        """
        Return the talker scan for links that are watched so; L{None} if there are too few links.
        """
        scan = self.scans.get(id(heartbeat))
        if scan is None or scan.slot is None:
            if self.wheel.timerCount < self.MIN_FOR_SCAN:
                return None
            # Empty ones are scanned no more.
            self.scans = {key: one for key, one in self.scans.items() if one.slot is not None}
            scan = self.scans[id(heartbeat)] = TalkerScan(heartbeat, now)
            self.wheel.schedule(scan, scan.due)
        return scan


class NullBatcher(Batcher):
    """
    Batches nothing: each link is watched individually.  The results are the same, and cost more.
    """

    def offer(self, member: BatchMember, now: float, lateness: float) -> bool:
        return False


def batcherFor(clock: IReactorTime, enabled: bool | None = None) -> Batcher:
    """
    Return the batcher of a clock.

    @param enabled: L{False} for one that batches nothing; L{None} to leave that to the
        environment, see L{SWITCH}.
    """
    if enabled is None:
        enabled = os.environ.get(SWITCH, "").strip().lower() != "off"
    wheel = timerWheelFor(clock)
    return wheel.shared(Batcher if enabled else NullBatcher, wheel)
