# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Uplink}: one monitor, as its sender sees it.

An acknowledgement repeats the session and the sequence number of the heartbeat that it answers.  It
is news of the monitor only if it is of this session and answers a later heartbeat than those before
it.  The sender has drawn its session at its start, so that no recorded acknowledgement counts.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from .packet import Packet
from .session import Look

REMEMBERED = 16
"""The latest heartbeats whose acknowledgements are accepted."""


class Answer(Enum):
    """
    What an acknowledgement is.
    """

    NOTHING = "nothing"
    HEARD = "heard"
    RECOVERED = "recovered"
    BEGAN = "began"


class Uplink:
    """
    One monitor, as its sender sees it.  Times are running time, in seconds.

    @ivar bound: seconds without an acknowledgement until the monitor counts as dead.
    @ivar applied: the bound that the monitor applies to this sender; L{None} until it has said so.
    @ivar heardAt: when the last acknowledgement came, or the watch began.
    @ivar alive: whether it acknowledges.
    @ivar watched: whether its silence is being measured.
    @ivar suspected: whether it is suspected.
    @ivar inRow: heartbeats in a row that it has acknowledged.
    @ivar rtt: seconds from the last acknowledged heartbeat to its acknowledgement.
    @ivar sent: heartbeats that were sent to it.
    @ivar acknowledged: how many of them it has acknowledged.
    @ivar due: when to call L{decide} next.
    """

    __slots__ = (
        "_acked",
        "_looking",
        "_period",
        "_sentAt",
        "acknowledged",
        "alive",
        "applied",
        "bound",
        "due",
        "heardAt",
        "inRow",
        "rtt",
        "sent",
        "suspected",
        "watched",
    )

    def __init__(self, bound: float, period: float) -> None:
        self.bound = bound
        self._period = period
        self.applied: float | None = None
        self.heardAt = 0.0
        self.alive = self.watched = self.suspected = self._looking = False
        self.inRow = self.sent = self.acknowledged = 0
        self.rtt: float | None = None
        self.due = inf
        self._acked = -1
        self._sentAt: dict[int, float] = {}

    def beginWatch(self, now: float) -> None:
        """
        Begin to measure its silence, unless that is being done.
        """
        if not self.watched:
            self.watched = True
            self.suspected = self._looking = False
            self.heardAt = now
            self.due = now + self.bound if not self.alive else self._suspectAt

    def beginSession(self) -> None:
        """
        Forget the numbers of the session before: those of a new one begin again.
        """
        self._acked = -1
        self._sentAt.clear()

    def setPeriod(self, period: float) -> None:
        """
        Take the seconds between two heartbeats, which have become fewer: it is due sooner.
        """
        self._period = period
        if self.alive and not self.suspected:
            self.due = min(self.due, self._suspectAt)

    def endWatch(self) -> None:
        """
        Stop: the sender has left it.
        """
        self.watched = self.alive = self.suspected = False
        self.inRow = 0
        self.due = inf

    def sending(self, sequence: int, now: float) -> None:
        """
        Note that a heartbeat leaves for it.
        """
        self.sent += 1
        self._sentAt[sequence] = now
        if len(self._sentAt) > REMEMBERED:
            del self._sentAt[next(iter(self._sentAt))]

    @property
    def unanswered(self) -> bool:
        """
        Whether it has acknowledged none of the last two heartbeats.
        """
        latest = list(self._sentAt)[-2:]
        return len(latest) == 2 and self._acked < latest[0]

    def heard(self, packet: Packet, now: float) -> Answer:
        """
        Take an authentic acknowledgement of this session.
        """
        sequence = packet.sequence
        if sequence <= self._acked or sequence not in self._sentAt:
            return Answer.NOTHING
        self.inRow = self.inRow + 1 if sequence == self._acked + 1 else 1
        self._acked = sequence
        self.acknowledged += 1
        self.rtt = now - self._sentAt[sequence]
        self.applied = packet.bound / 1000
        self.heardAt = now
        self._looking = False
        recovered, self.suspected = self.suspected, False
        if not self.alive:
            self.alive = self.watched = True
            self.due = self._suspectAt
            return Answer.BEGAN
        return Answer.RECOVERED if recovered else Answer.HEARD

    @property
    def _suspectAt(self) -> float:
        return self.heardAt + (self.bound + min(self._period, self.bound)) / 2

    def decide(self, now: float) -> Look:
        """
        Decide what to do now, and set C{due}.  L{Look.SUSPECT} is for a monitor that has
        acknowledged before.
        """
        if not self.watched:
            self.due = inf
            return Look.NOTHING
        deadline = self.heardAt + self.bound
        if now >= deadline:
            self.due = now
            if not self._looking:
                self._looking = True
                return Look.LAST_LOOK
            self.watched = self._looking = False
            self.due = inf
            return Look.VERDICT
        self._looking = False
        self.due = deadline
        if self.alive and not self.suspected:
            if now >= self._suspectAt:
                self.suspected = True
                return Look.SUSPECT
            self.due = self._suspectAt
        return Look.NOTHING
