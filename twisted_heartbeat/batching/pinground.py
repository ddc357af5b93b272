# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PingRound}: the parked links that are pinged together, interval after interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.quiet import ANSWER_WINDOW
from ..core.wire.pings import SharedPing
from .places import lastPlace

if TYPE_CHECKING:
    from ..core.settings import Heartbeat
    from ..timing.wheel import Slot
    from .batcher import Batcher
    from .interfaces import BatchMember, ParkableConnection


Pinger = SharedPing | Callable[[Any], object]
"""What a link pings with: shared bytes of the built-in protocol, or a callable of the user's own
that takes the protocol."""


class LastPing:
    """
    The last ping that a round has sent on a connection, for the link that leaves the round.

    @ivar pong: the bytes that answer it.
    @ivar size: bytes of the ping.
    @ivar isUnanswered: whether the pong is still expected.
    @ivar isBeingSent: whether the link leaves because this ping could not be written at once.
    """

    # No dataclass: to make one takes longer than to import all of this package's batching.
    __slots__ = ("isBeingSent", "isUnanswered", "pong", "size")

    def __init__(self, pong: bytes, size: int, isUnanswered: bool, isBeingSent: bool) -> None:
        self.pong = pong
        self.size = size
        self.isUnanswered = isUnanswered
        self.isBeingSent = isBeingSent


class PingRound:
    """
    Parked links whose pings are due at the same time and have the same bytes.

    The timer of a round is due once in an interval.  It lets go the members that have not answered,
    and has the next pings sent at the end of the tick.

    @ivar pinger: what they ping with.
    @ivar heartbeat: how they are watched.
    @ivar due: when the last pings were due, in seconds of the clock.
    @ivar askedAt: when they were sent, if that was late; otherwise the same.
    @ivar pong: the bytes that answer them; L{None} where they are unknown.
    @ivar waiting: the members that have not answered, by their connections.
    @ivar pinging: the connection whose ping is being sent.
    """

    __slots__ = (
        "_batcher",
        "_members",
        "_ping",
        "_sent",
        "askedAt",
        "due",
        "heartbeat",
        "pinger",
        "pinging",
        "pong",
        "slot",
        "waiting",
    )

    def __init__(
        self, batcher: Batcher, pinger: Pinger, heartbeat: Heartbeat, due: float, askedAt: float
    ) -> None:
        self._batcher = batcher
        self._members: dict[ParkableConnection, BatchMember] = {}
        self._ping = b""
        self.pong: bytes | None = None
        self.pinger: Any = pinger
        self.heartbeat = heartbeat
        self.slot: Slot | None = None
        self.pinging: ParkableConnection | None = None
        self._begin(due, askedAt)

    def isLike(self, pinger: Pinger, heartbeat: Heartbeat, due: float) -> bool:
        """
        Whether a link that pings so, and was due then, belongs to this round.
        """
        if self.pinger is not pinger or self.heartbeat is not heartbeat:
            return False
        return abs(self.due - due) * self._batcher.wheel.PER_SECOND <= 1

    def hasPinged(self, connection: ParkableConnection) -> bool:
        """
        Whether the last ping of a member has been sent.
        """
        return self._sent

    def acceptsData(self, connection: ParkableConnection, now: float) -> bool:
        """
        Note that a member has received something that is not L{pong}.

        @return: whether it stays a member.
        """
        return False

    def join(self, connection: ParkableConnection, member: BatchMember) -> None:
        """
        Add a member whose ping is due now.
        """
        self._members[connection] = self.waiting[connection] = member

    def leave(self, connection: ParkableConnection) -> LastPing | None:
        """
        Remove a member.

        @return: L{None} where the bytes of the pings are unknown.
        """
        del self._members[connection]
        isUnanswered = self.waiting.pop(connection, None) is not None and self._sent
        if not self._members:
            self._batcher.wheel.cancel(self)
        if self.pong is None:
            return None
        return LastPing(self.pong, len(self._ping), isUnanswered, self.pinging is connection)

    def release(self, connection: ParkableConnection) -> None:
        """
        Let go a member that has received something else than a pong.
        """
        self._batcher.interrupt(self._members[connection])

    def onTimer(self, now: float, lateness: float) -> float | None:
        if self.waiting:
            for member in list(self.waiting.values()):
                self._batcher.interrupt(member)
        if not self._members:
            return None
        # Not the time of its slot, which other timers may have made later.
        due, askedAt = lastPlace(self.heartbeat, self.nextDue, now)
        for other in self._batcher.begun:
            if other.isLike(self.pinger, self.heartbeat, due):
                self._mergeInto(other, askedAt)
                return None
        self._begin(due, askedAt)
        return due + (self.heartbeat.interval or 0.0)

    def _mergeInto(self, other: PingRound, askedAt: float) -> None:
        other.askedAt = min(other.askedAt, askedAt)
        members, self._members = self._members, {}
        for connection, member in members.items():
            connection.batch = other
            other.join(connection, member)

    @property
    def previousDue(self) -> float:
        """
        When the pings before the last ones were due.
        """
        return self.due - (self.heartbeat.interval or 0.0)

    @property
    def nextDue(self) -> float:
        """
        When the next pings are due.
        """
        return self.due + (self.heartbeat.interval or 0.0)

    def sendPings(self) -> None:
        """
        Send the pings of all members.
        """
        del self._batcher.begun[self]
        self._sent = True
        ping, seconds = self._ping, self._batcher.wheel.seconds
        sent = 0
        for connection in list(self.waiting):
            # An error on one connection may end the stay of another.
            if connection in self.waiting:
                connection.detector.pingedAt = seconds()
                self.pinging = connection
                connection.writeDirectUnchecked(ping)
                sent += 1
        self._batcher.counters.pings += sent
        self.pinging = None

    def _begin(self, due: float, askedAt: float) -> None:
        self.due, self.askedAt = due, askedAt
        self._prepare()
        self._sent = False
        self.waiting: dict[ParkableConnection, BatchMember] = self._members.copy()
        # At the end of the tick, one right after the other: a machine that is woken by the first
        # packet is then still awake for the others.
        self._batcher.begun[self] = None
        self._batcher.wheel.atEndOfTick(self.sendPings)
        # No member is suspected sooner, because each was due within an interval of its last word.
        self._batcher.wheel.scheduleRemaining(self.waiting, askedAt + self.heartbeat.suspectAfter)

    def _prepare(self) -> None:
        self.pinger.advance()
        self._ping, self.pong = self.pinger.ping, self.pinger.pong


class CustomPingRound(PingRound):
    """
    A ping round whose pings are made by a callable of the user's own.

    The answer's bytes are unknown, so any data within L{ANSWER_WINDOW} of the ping counts as the
    answer, and all data is delivered.  A peer that sends data later leaves the round; otherwise it
    would be pinged although it has just spoken.
    """

    __slots__ = ("_acceptsUntil", "_unasked")

    def hasPinged(self, connection: ParkableConnection) -> bool:
        return self._sent and connection not in self._unasked

    def acceptsData(self, connection: ParkableConnection, now: float) -> bool:
        waiting = self.waiting
        if waiting.pop(connection, None) is not None and not waiting:
            waiting.clear()
        return now < self._acceptsUntil

    def leave(self, connection: ParkableConnection) -> LastPing | None:
        last = super().leave(connection)
        self._unasked.pop(connection, None)
        return last

    def sendPings(self) -> None:
        del self._batcher.begun[self]
        # What the ping of one link does may make another link leave.
        self._unasked: dict[ParkableConnection, BatchMember] = self.waiting.copy()
        self._sent = True
        seconds = self._batcher.wheel.seconds
        for connection, member in self.waiting.copy().items():
            if self._unasked.pop(connection, None) is not None:
                self.pinging = connection
                member.sendPing(seconds())
        # A dictionary that has been emptied keeps its room.
        self.pinging, self._unasked = None, {}

    def _prepare(self) -> None:
        self._unasked = {}
        self._acceptsUntil = self.due + ANSWER_WINDOW * (self.heartbeat.interval or 0.0)
