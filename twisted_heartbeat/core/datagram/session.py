# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerSession}: one peer in one session, from its first accepted datagram to its end.

B{Only forward.}  A datagram whose MAC is good is news of the peer only if:

 1. it is of the session that is accepted, which is alive, and its sequence number is above the
    highest so far; or
 2. it is the answer to a challenge that this monitor made for this sender within the last seconds,
    and it is of another session than those that the peer left, or its number is above the highest.

A number that is not above the highest changes nothing but the statistics.  Anything else that is
authentic is challenged: a new session, the session of a peer that is dead or has said goodbye, and
a datagram that was under way for longer than the whole bound.  So a recorded datagram never makes a
dead peer look alive, even if only the recorder has received it.

B{The verdict} falls when the bound has passed since the last news, in running time, and after the
socket was read once more.  B{The suspicion} comes earlier: when the next heartbeat is overdue by
half of what the bound leaves for it.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from .cookies import LIFE
from .estimator import ArrivalEstimator
from .packet import Packet
from .window import SequenceWindow

MAX_LEFT = 64
"""Sessions that are remembered for a peer that has left them.  Beyond that the oldest goes."""

LEFT_LIFE = 2 * LIFE
"""
Seconds for which a dead peer, or a session that was left, is remembered: longer than a cookie is
valid, so that no recorded answer brings it back.
"""


class Look(Enum):
    """
    What L{PeerSession.decide} decides.
    """

    NOTHING = "nothing"
    SUSPECT = "suspect"
    LAST_LOOK = "lastLook"
    """Read all that has arrived, because the bound is over.  Then decide again."""

    VERDICT = "verdict"


class News(Enum):
    """
    What an authentic datagram is to a session.
    """

    HEARD = "heard"
    RECOVERED = "recovered"
    """Heard, and the peer was suspected."""

    BEGIN = "begin"
    """It begins another session, or this one anew."""

    CHALLENGE = "challenge"
    LATE = "late"
    """It is of this session, and came after a later one."""

    OLD = "old"
    """It is of a session that the peer has left."""


class PeerSession:
    """
    One peer in one session.  Times are running time, in seconds.

    @ivar name: the peer's.
    @ivar keyId: the key of the last accepted datagram.
    @ivar address: where the last accepted datagram came from.
    @ivar bound: the bound that holds.
    @ivar asked: the bound that the peer has asked for last, in milliseconds.
    @ivar heardAt: when the last datagram was accepted.
    @ivar longestSilence: the longest time between two accepted datagrams.
    @ivar suspected: whether the peer is suspected.
    @ivar alive: whether there was neither a verdict nor a goodbye.
    @ivar endedAt: when it ended.
    @ivar due: when to call L{decide} next.
    """

    __slots__ = (
        "_counted",
        "_looking",
        "_second",
        "address",
        "alive",
        "asked",
        "bound",
        "due",
        "endedAt",
        "estimator",
        "heardAt",
        "interval",
        "keyId",
        "left",
        "longestSilence",
        "name",
        "session",
        "suspected",
        "window",
    )

    def __init__(self, packet: Packet, address: object, bound: float, now: float) -> None:
        self.name = packet.name.decode()
        self.session = packet.session
        self.keyId = packet.keyId
        self.address = address
        self.bound = bound
        self.asked = packet.bound
        self.interval = min(packet.interval / 1000, bound)
        self.heardAt = now
        self.longestSilence = 0.0
        self.suspected = self._looking = False
        self.alive = True
        self.endedAt = inf
        self.window = SequenceWindow(packet.sequence)
        self.estimator = ArrivalEstimator(now, packet.sent, self.interval)
        # By session: until when it is remembered.
        self.left: dict[int, float] = {}
        self._second = int(now)
        self._counted = 0
        self.due = self.suspectAt

    # What is received.

    def judge(self, packet: Packet, answered: bool, now: float) -> News:
        """
        Decide by the rules above what an authentic datagram is, and take it if it is news of this
        session while that is alive.

        @param answered: whether it answers a challenge, or none is needed.
        """
        if packet.session != self.session:
            if now < self.left.get(packet.session, now):
                return News.OLD
            return News.BEGIN if answered else News.CHALLENGE
        if packet.sequence <= self.window.highest:
            self.window.late(packet.sequence)
            return News.LATE
        if not self.alive:
            return News.BEGIN if answered else News.CHALLENGE
        if not self.advance(packet.sequence, packet.sent, packet.interval, now):
            if not answered:
                return News.CHALLENGE
            self.estimator.begin(now, packet.sent, self.interval)
            self.advance(packet.sequence, packet.sent, packet.interval, now)
        # A heartbeat that is itself so late that the next is overdue ends no suspicion.
        if self.suspected and now < self.suspectAt:
            self.suspected = False
            return News.RECOVERED
        return News.HEARD

    def advance(self, sequence: int, sent: int, interval: int, now: float) -> bool:
        """
        Take a heartbeat of this session that is later than all before.

        @return: L{False}, with nothing changed, if it was held back for longer than the bound.
        """
        bound = self.bound
        following = interval / 1000
        if following > bound:
            following = bound
        if not self.estimator.heard(now, sent, following, bound):
            return False
        self.window.advance(sequence)
        silence = now - self.heardAt
        if silence > self.longestSilence:
            self.longestSilence = silence
        self.heardAt = now
        self.interval = following
        self._looking = False
        return True

    def setBound(self, bound: float) -> bool:
        """
        Take the bound of the heartbeat that was heard last.

        @return: whether the peer is due sooner than it was.
        """
        isShorter = bound < self.bound
        self.bound = bound
        if isShorter:
            self.due = min(self.due, self.suspectAt, self.deadline)
        return isShorter

    def isWithin(self, perSecond: int, now: float) -> bool:
        """
        Count a heartbeat, and return whether it is within the peer's limit for this second.
        """
        if now >= self._second + 1:
            self._second, self._counted = int(now), 0
        self._counted += 1
        return self._counted <= perSecond

    def succeed(self, former: PeerSession, now: float, memory: float) -> None:
        """
        Take over what has to be remembered of the peer's session before this one.

        @param memory: seconds for which the sessions that the peer left are remembered.
        """
        left = {session: until for session, until in former.left.items() if now < until}
        if former.session != self.session:
            left[former.session] = now + memory
        self.left = dict(list(left.items())[-MAX_LEFT:])

    # What time brings.

    @property
    def suspectAt(self) -> float:
        """
        When to suspect the peer: halfway between the next arrival and the verdict.
        """
        return self.estimator.expected + (self.bound - self.interval) / 2

    @property
    def deadline(self) -> float:
        """
        When the verdict is due.
        """
        return self.heardAt + self.bound

    def decide(self, now: float) -> Look:
        """
        Decide what to do now, and set L{due}.
        """
        if not self.alive:
            self.due = inf
            return Look.NOTHING
        if now >= self.deadline:
            self.due = now
            if not self._looking:
                self._looking = True
                return Look.LAST_LOOK
            self.end(now)
            return Look.VERDICT
        self._looking = False
        suspectAt = self.suspectAt
        if self.suspected or now >= suspectAt:
            self.due = self.deadline
            if self.suspected:
                return Look.NOTHING
            self.suspected = True
            return Look.SUSPECT
        self.due = min(suspectAt, self.deadline)
        return Look.NOTHING

    def end(self, now: float) -> None:
        """
        End: a verdict, a goodbye, or a new session.
        """
        self.alive = False
        self.endedAt = now
        self.due = inf

    # What the network did.

    @property
    def received(self) -> int:
        """
        Datagrams of this session that have come, duplicates not counted.
        """
        return self.window.received

    @property
    def lost(self) -> int:
        """
        Datagrams of this session that have not come, or not yet.
        """
        return self.window.lost

    @property
    def loss(self) -> float:
        """
        The part of the latest 64 datagrams that has not come, from 0 to 1.
        """
        return self.window.loss

    @property
    def reordered(self) -> int:
        """
        Datagrams that came after a later one.
        """
        return self.window.reordered

    @property
    def duplicates(self) -> int:
        """
        Datagrams that came once more, or more than 64 too late.
        """
        return self.window.duplicates

    @property
    def jitter(self) -> float:
        """
        The mean deviation of the delay, in seconds (RFC 3550, 6.4.1).
        """
        return self.estimator.jitter

    @property
    def slack(self) -> float:
        """
        The gap to the bound: seconds by which the longest silence so far was shorter than that.
        """
        return self.bound - self.longestSilence
