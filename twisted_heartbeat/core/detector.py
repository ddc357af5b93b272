# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Is the peer alive?  Facts and C{now} go in; ping, suspect, verdict come out.

A hand-written class with deadlines and not a state machine of states, because its hot input, a
received chunk, has to cost one assignment: L{FailureDetector.heardAt}.
"""

from __future__ import annotations

from enum import Enum
from math import inf, nextafter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Heartbeat


class Decision(Enum):
    """
    What a look at the peer comes to.
    """

    NOTHING = "nothing"
    """Look again when L{FailureDetector.due} says so."""

    PING = "ping"
    """The peer is silent: make it speak."""

    SUSPECT = "suspect"
    """The ping went unanswered for half of the timeout: say so, and send it once more."""

    PING_AGAIN = "pingAgain"
    """This process was away, and perhaps never asked: ask again, as if for the first time."""

    RECOVERED = "recovered"
    """A suspected peer spoke."""

    LOOK = "look"
    """The bound is over: poll the socket once more, then decide."""

    VERDICT = "verdict"
    """The peer is dead."""


class Stage(Enum):
    """
    How far the detector has got with a silent peer.
    """

    FRESH = 0
    PINGED = 1
    PINGED_AGAIN = 2
    LOOKING = 3
    DEAD = 4


FRESH, PINGED, PINGED_AGAIN, LOOKING, DEAD = Stage

LATENESS_TOLERANCE = 0.025
"""Seconds.  A look that comes no later than this after its time is not late."""

_STALL_THRESHOLD = 1.0
"""Seconds.  One who comes later than this, and than the bound, was away; others are but slow."""

FRESH_FRACTION = 0.75
"""
Of the interval: so long a word is fresh to one who watches many, and no ping follows it.  What is
left of the interval is the room in which the pings to many peers are kept apart.
"""


NEVER = -inf
"""Before all time.  One object for all, where an expression would make each its own."""


class FailureDetector:
    """
    What is known of one peer's life.

    @ivar heardAt: when the last byte came, in seconds of the link's clock.  Whoever receives
        assigns it; that is all a received chunk costs.
    @ivar due: when L{decide} next has something to say.
    @ivar suspected: whether it has said that the peer is suspected, and not yet that it recovered.
    @ivar pingedAt: when the last ping was sent.
    @ivar rtt: seconds that the last ping took to be answered; L{None} before the first.
    """

    __slots__ = (
        "_pingDueAt",
        "_deadline",
        "_heartbeat",
        "_phaseDueAt",
        "_heardAtPing",
        "_stage",
        "due",
        "heardAt",
        "pingedAt",
        "rtt",
        "suspected",
    )

    def __init__(self, heartbeat: Heartbeat | None, now: float, phase: float | None = None) -> None:
        """
        @param heartbeat: as for L{begin}, and so the others.
        """
        self.pingedAt = 0.0
        self.rtt: float | None = None
        self.begin(heartbeat, now, phase)

    def begin(self, heartbeat: Heartbeat | None, now: float, phase: float | None = None) -> None:
        """
        Forget what was due, and expect the peer to speak from now on.

        @param heartbeat: L{None} if silence proves nothing; then nothing is ever due.
        @param now: when the link was established: the bound runs from here.
        @param phase: this peer's place among many that are watched, from 0 to 1.  Its pings keep
            to that place in the interval, whatever makes many peers speak in one instant: the
            first comes as soon as its place does, the others after more than 0.75 of the interval
            in silence, and never after more than the whole.  L{None} for a peer that is alone,
            which is pinged when the interval is over.
        """
        self._heartbeat = heartbeat
        interval = None if heartbeat is None else heartbeat.interval
        self._phaseDueAt = None if phase is None or interval is None else now + phase * interval
        self._stage = FRESH
        self._heardAtPing = self._pingDueAt = NEVER
        self.suspected = False
        self._deadline = inf
        self.heardAt = now
        self.due = inf if heartbeat is None else self._firstLook(heartbeat)

    @property
    def hasSpokenSincePing(self) -> bool:
        """
        Whether the peer spoke since it was last asked to.
        """
        return self._stage is FRESH or self.heardAt != self._heardAtPing

    @property
    def deadline(self) -> float:
        """
        When the verdict falls if the peer says nothing more.
        """
        if self._heartbeat is None:
            return inf
        return self.heardAt + self._heartbeat.bound if self.hasSpokenSincePing else self._deadline

    def decideFast(self, now: float, lateness: float = 0.0) -> bool | None:
        """
        What L{decide} comes to where a peer has spoken since it was last asked and the look is
        punctual.  Most looks are such, and of ten thousand links each second has as many: so all of
        it stands here in one piece, and says again what C{_decideFresh} says.

        @return: whether to ping; L{None} if it is not so plain, and L{decide} has to be asked.
        """
        heartbeat, heardAt = self._heartbeat, self.heardAt
        if heartbeat is None or self.suspected or heardAt == self._heardAtPing:
            return None
        interval, place = heartbeat.interval, self._pingDueAt
        if interval is None or self._stage is DEAD:
            return None
        if self._phaseDueAt is None:
            due = heardAt + interval
        elif 0.0 <= heardAt - place < interval * (1 - FRESH_FRACTION):
            # Its place in the interval that follows.
            due = place + interval
        else:
            due = self._firstLook(heartbeat)
        if now < due:
            self.due = due
            return False
        if lateness > LATENESS_TOLERANCE:
            return None
        timeout = heartbeat.timeout
        self._stage = PINGED
        self._pingDueAt = due
        if self._phaseDueAt is not None:
            # As good as its first one, and no number of its own.
            self._phaseDueAt = due
        self._heardAtPing = heardAt
        self._deadline = deadline = heardAt + (interval + timeout)
        suspicion, again = deadline - (timeout - heartbeat.suspectAfter), due + interval
        self.due = suspicion if suspicion < again else again
        return True

    def peerHalfClosed(self) -> None:
        """
        The peer has closed its half: from here on its silence proves nothing.
        """
        self._heartbeat = None
        self._stage = FRESH
        self.suspected = False
        self.due = inf

    def probe(self, now: float, within: float) -> Decision:
        """
        Have the peer speak now, though its interval is not over.

        @param within: seconds after which the verdict falls, if that is sooner.
        @return: L{Decision.PING}; or L{Decision.NOTHING} if it has been asked already, or nothing
            that it does not say proves anything.  A ping that is unanswered already is not sent
            again, but its answer has to come by then as well.
        """
        if self._heartbeat is None or self._stage is DEAD:
            return Decision.NOTHING
        deadline = min(self.deadline, now + within)
        if not self.hasSpokenSincePing:
            self._hasten(deadline, self._heartbeat)
            return Decision.NOTHING
        # Where time is coarse, the answer may come in the instant of the word before it.
        self._heardAtPing = self.heardAt = nextafter(self.heardAt, -inf)
        self._expectBy(deadline, self._heartbeat)
        self._lookBy(now + FRESH_FRACTION * (self._heartbeat.interval or inf))
        return Decision.PING

    def decide(
        self, now: float, lateness: float = 0.0, localDelayUntil: float | None = None
    ) -> Decision:
        """
        Look at the peer.

        @param now: seconds.
        @param lateness: seconds by which this look comes late: so long this process did not read.
        @param localDelayUntil: the latest instant at which the silence since the ping was ours:
            the ping still waited in a buffer that drains, or reading was paused.
        """
        if self._heartbeat is None or self._stage is DEAD:
            return Decision.NOTHING
        if self._stage is FRESH or self.heardAt != self._heardAtPing:
            return self._decideFresh(self._heartbeat, now, lateness, localDelayUntil)
        return self._decideExpected(self._heartbeat, now, lateness, localDelayUntil)

    def _decideExpected(
        self, heartbeat: Heartbeat, now: float, lateness: float, localDelayUntil: float | None
    ) -> Decision:
        timeout = heartbeat.timeout
        if localDelayUntil is not None and localDelayUntil + timeout > self._deadline:
            return self._postpone(localDelayUntil + timeout, heartbeat)
        return self._decideSilent(heartbeat, now, lateness)

    def _decideFresh(
        self, heartbeat: Heartbeat, now: float, lateness: float, localDelayUntil: float | None
    ) -> Decision:
        self._stage = FRESH
        self.due = self._firstLook(heartbeat)
        if self.suspected:
            return self._recovered()
        if now < self.due:
            return Decision.NOTHING
        self._pingDueAt = self.due
        self._heardAtPing = self.heardAt
        bound = self.heardAt + heartbeat.bound
        if heartbeat.interval is None:
            self._expectBy(bound, heartbeat)
            return self._decideExpected(heartbeat, now, lateness, localDelayUntil)
        # A peer that was asked late has its whole timeout all the same; but a timer that is late
        # by a little does not move the bound.
        late = lateness > LATENESS_TOLERANCE
        again = self.due + heartbeat.interval
        self._expectBy(max(bound, now + heartbeat.timeout) if late else bound, heartbeat)
        self._lookBy(again)
        return Decision.PING

    def _firstLook(self, heartbeat: Heartbeat) -> float:
        if heartbeat.interval is None:
            return self.heardAt + heartbeat.suspectAfter
        latest = self.heardAt + heartbeat.interval
        if self._phaseDueAt is None:
            return latest
        if self._pingDueAt == NEVER:
            return self._phaseDueAt
        return latest - (latest - self._phaseDueAt) % (heartbeat.interval * (1 - FRESH_FRACTION))

    def _expectBy(self, deadline: float, heartbeat: Heartbeat) -> None:
        self._stage = PINGED
        self._deadline = deadline
        self.due = _suspicionBefore(deadline, heartbeat)

    def _hasten(self, deadline: float, heartbeat: Heartbeat) -> None:
        """
        Bring the deadline of an unanswered ping forward.
        """
        if self._stage is not LOOKING and deadline < self._deadline:
            self._deadline = deadline
            suspicion = _suspicionBefore(deadline, heartbeat)
            self.due = min(self.due, deadline if self.suspected else suspicion)

    def _lookBy(self, when: float) -> None:
        """
        Look no later than then, for the answer may have come by now, and the next ping be due.
        """
        self.due = min(self.due, when)

    def _recovered(self) -> Decision:
        self.suspected = False
        return Decision.RECOVERED

    def _postpone(self, deadline: float, heartbeat: Heartbeat) -> Decision:
        stage = self._stage
        self._expectBy(deadline, heartbeat)
        if stage is PINGED_AGAIN:
            self._stage = stage
        return self._recovered() if self.suspected else Decision.NOTHING

    def _decideSilent(self, heartbeat: Heartbeat, now: float, lateness: float) -> Decision:
        if self._stage is LOOKING:
            # Whatever had arrived by the deadline has been read since, however late this look is.
            self._stage = DEAD
            self.due = inf
            return Decision.VERDICT
        if now >= self._deadline:
            if self._wasAway(heartbeat, lateness):
                # By no more than this was the ping late to leave.
                self._expectBy(now + min(lateness, heartbeat.timeout), heartbeat)
                self._stage = PINGED_AGAIN
                return Decision.PING_AGAIN
            self._stage = LOOKING
            self.due = now
            return Decision.LOOK
        suspicion = _suspicionBefore(self._deadline, heartbeat)
        if now < suspicion:
            self.due = suspicion
            return Decision.NOTHING
        self.due = self._deadline
        if self.suspected:
            return Decision.NOTHING
        self.suspected = True
        return Decision.SUSPECT

    def _wasAway(self, heartbeat: Heartbeat, lateness: float) -> bool:
        """
        Whether this process was away when the deadline passed, so that perhaps the ping never left
        or its answer found nobody.  A process that is always a little late is told so once in a
        silence only, lest it never find a dead peer.
        """
        if self._stage is PINGED_AGAIN:
            return lateness > max(heartbeat.bound, _STALL_THRESHOLD)
        return lateness > max(LATENESS_TOLERANCE, heartbeat.timeout / 8)


def _suspicionBefore(deadline: float, heartbeat: Heartbeat) -> float:
    """
    Return when an unanswered ping with this deadline makes its peer suspected.
    """
    return deadline - (heartbeat.timeout - heartbeat.suspectAfter)
