# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PingRound}: the links that are pinged together, interval after interval.

Of thousands of idle peers almost all do nothing but answer.  What they have in common is kept once,
and an interval of one of them costs a C{send}, a C{recv}, and its name in a dictionary: nothing is
looked at that lies elsewhere in memory.  Whoever does anything else, or does not answer, leaves its
round, and is watched by itself until it has come to rest again.

In an L{CustomPingRound} are those who are pinged by what the user has for that.  What such a ping
sends, and what the answer looks like, only the user knows: each is sent by him, and all that comes
is delivered; but none of them is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..core.detector import ANSWER_WINDOW
from ..core.wire.pings import SharedPing
from .places import lastPlace

if TYPE_CHECKING:
    from ..core.detector import FailureDetector
    from ..core.settings import Heartbeat


Pinger = SharedPing | Callable[[Any], object]
"""What to ping with: the built-in protocol's, or what the user has for it and takes a protocol."""


class Timing(Protocol):
    """
    Who has a round's pings sent, and has a look at those who do not answer: the pulse.
    """

    seconds: Callable[[], float]

    def begin(self, round: PingRound, suspicious: float) -> None:
        """Send at the end of this tick, and look then."""

    def cancel(self, one: Any) -> None:
        """Visit it no more."""

    def roundLike(self, means: Pinger, heartbeat: Heartbeat, due: float) -> PingRound | None:
        """One that has begun in this tick."""


class ParkedConnection(Protocol):
    """
    The connection of a member.
    """

    detector: FailureDetector
    round: PingRound | None

    def writeDirectUnchecked(self, data: bytes) -> None:
        """Send a ping."""


class Member(Protocol):
    """
    A link in a round.
    """

    def onTimer(self, now: float, lateness: float) -> float | None:
        """See L{Timer<twisted_heartbeat.timing.wheel.Timer>}."""

    def leaveRound(self) -> None:
        """L{PingRound.leave}, and be visited by itself."""

    def pingInTurn(self) -> None:
        """Make the peer speak, by the user's own ping."""


class PingRound:
    """
    Links that are due in one instant and ping alike.

    @ivar means: what they ping with.
    @ivar heartbeat: how they are watched.
    @ivar due: when they were last due, in seconds of their clock.
    @ivar askedAt: when they were asked, if that was late; else the same.
    @ivar pong: the bytes that answer the ping of then; L{None} where nobody knows them.
    @ivar waiting: those who have not answered, each by the connection that hears it.
    @ivar pinging: whose connection's ping is being sent.
    """

    __slots__ = (
        "_members",
        "_ping",
        "_pulse",
        "_sent",
        "askedAt",
        "due",
        "heartbeat",
        "means",
        "pinging",
        "pong",
        "slot",
        "waiting",
    )

    def __init__(
        self, pulse: Timing, means: Pinger, heartbeat: Heartbeat, due: float, askedAt: float
    ) -> None:
        self._pulse = pulse
        self._members: dict[ParkedConnection, Member] = {}
        self._ping = b""
        self.pong: bytes | None = None
        self.means: Any = means
        self.heartbeat = heartbeat
        self.slot: Any = None
        self.pinging: ParkedConnection | None = None
        self._begin(due, askedAt)

    @property
    def size(self) -> int:
        """
        Bytes of its ping, where these are known.
        """
        return len(self._ping)

    def asked(self, connection: ParkedConnection) -> bool:
        """
        Whether a member's ping of then has been sent.
        """
        return self._sent

    def keeps(self, connection: ParkedConnection, now: float) -> bool:
        """
        Note that something has come from a member that is not L{pong}.

        @return: whether it stays one.
        """
        return False

    def join(self, connection: ParkedConnection, link: Member) -> None:
        """
        Take in one that is due now, for as long as it only answers.
        """
        self._members[connection] = self.waiting[connection] = link

    def leave(self, connection: ParkedConnection) -> None:
        """
        It no longer is in it.
        """
        del self._members[connection]
        self.waiting.pop(connection, None)
        if not self._members:
            self._pulse.cancel(self)

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        for link in list(self.waiting.values()):
            link.leaveRound()
        if not self._members:
            return None
        # Not by its slot, which others may have made later.
        due, askedAt = lastPlace(self.heartbeat, self.again, now)
        like = self._pulse.roundLike(self.means, self.heartbeat, due)
        if like is not None:
            self._mergeInto(like, askedAt)
            return None
        self._begin(due, askedAt)
        return self.again

    def _mergeInto(self, other: PingRound, askedAt: float) -> None:
        """
        Have all in one that begins in the same instant.
        """
        other.askedAt = min(other.askedAt, askedAt)
        members, self._members = self._members, {}
        for connection, link in members.items():
            connection.round = other
            other.join(connection, link)

    @property
    def before(self) -> float:
        """
        When they were due before that.
        """
        return self.due - (self.heartbeat.interval or 0.0)

    @property
    def again(self) -> float:
        """
        When they are due next.
        """
        return self.due + (self.heartbeat.interval or 0.0)

    def post(self) -> None:
        """
        Ping all.
        """
        self._sent = True
        ping, seconds = self._ping, self._pulse.seconds
        for connection in list(self.waiting):
            if connection in self.waiting:
                connection.detector.pingedAt = seconds()
                self.pinging = connection
                connection.writeDirectUnchecked(ping)
        self.pinging = None

    def _begin(self, due: float, askedAt: float) -> None:
        self.due, self.askedAt = due, askedAt
        self._prepare()
        self._sent = False
        self.waiting: dict[ParkedConnection, Member] = self._members.copy()
        # Nobody's silence is suspicious sooner, for each was due within an interval of its word.
        self._pulse.begin(self, askedAt + self.heartbeat.timeout / 2)

    def _prepare(self) -> None:
        self.means.advance()
        self._ping, self.pong = self.means.ping, self.means.pong


class CustomPingRound(PingRound):
    """
    The same for links that share a ping of the user's own: that is what L{means} is.  Whatever a
    peer says soon after it may be what it asked for.  Whoever says anything later leaves, lest he
    be asked again although he has just spoken.
    """

    __slots__ = ("_unasked", "_until")

    def asked(self, connection: ParkedConnection) -> bool:
        """
        See L{PingRound}, and so the others.
        """
        return self._sent and connection not in self._unasked

    def keeps(self, connection: ParkedConnection, now: float) -> bool:
        waiting = self.waiting
        if waiting.pop(connection, None) is not None and not waiting:
            waiting.clear()
        return now < self._until

    def leave(self, connection: ParkedConnection) -> None:
        super().leave(connection)
        self._unasked.pop(connection, None)

    def post(self) -> None:
        # What one of them does in its ping may end another's rest.
        self._unasked: dict[ParkedConnection, Member] = self.waiting.copy()
        self._sent = True
        for connection, link in self.waiting.copy().items():
            if self._unasked.pop(connection, None) is not None:
                self.pinging = connection
                link.pingInTurn()
        # One that has been emptied keeps its room.
        self.pinging, self._unasked = None, {}

    def _prepare(self) -> None:
        self._unasked = {}
        self._until = self.due + ANSWER_WINDOW * (self.heartbeat.interval or 0.0)
