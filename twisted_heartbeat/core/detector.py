# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{FailureDetector}: is the peer alive?  Facts and C{now} go in; a L{Decision} comes out.

B{Theory of operation.}

 1. Every received byte is life: the read path assigns C{heardAt}, and does nothing else.
 2. When the peer was silent for the interval, decide PING.  At most one ping is unanswered.
 3. When the ping is unanswered for C{Heartbeat.suspectAfter}, decide SUSPECT.  The ping is sent
    once more.  When the peer speaks, decide RECOVERED.
 4. At the deadline, decide LAST_LOOK, and VERDICT at the next call.  In between the reactor has
    polled the socket, so that no peer dies whose answer had arrived.
 5. A local delay is no silence of the peer's.  It moves the deadline: reading was paused, the ping
    waited behind data that drains, or this process was stalled when the deadline passed.

The detector is a class with deadlines and no state machine, because its hot input, a received
chunk, must cost one assignment.
"""

from __future__ import annotations

from enum import Enum
from math import inf, nextafter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Heartbeat


class Decision(Enum):
    """
    What the caller has to do.
    """

    NOTHING = "nothing"
    """Nothing.  Decide again at L{FailureDetector.due}."""

    PING = "ping"
    """Send a ping, because the peer is silent."""

    SUSPECT = "suspect"
    """Report the peer as suspected, and send the ping once more."""

    PING_AGAIN = "pingAgain"
    """Send the ping again, because this process was stalled when its answer was due."""

    RECOVERED = "recovered"
    """Report that a suspected peer has spoken."""

    LAST_LOOK = "lastLook"
    """Let the reactor poll the socket once more, because the bound is over.  Then decide again."""

    VERDICT = "verdict"
    """Declare the peer dead."""


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
"""Seconds by which a timer may be late without consequence."""

_STALL_THRESHOLD = 1.0
"""Seconds.  A process that is later than this, and than the bound, was stalled, not just slow."""

FRESH_FRACTION = 0.75
"""
The part of the interval in which a peer of many is not pinged after it has spoken.  In the rest of
the interval the pings to many peers are kept apart.
"""


NEVER = -inf
"""An instant before all others.  Thousands of detectors share this object."""


class FailureDetector:
    """
    The failure detector of one peer.  All times are seconds of the link's clock.

    @ivar heardAt: when the last byte came.  The read path assigns it.
    @ivar due: when L{decide} has to be called next.
    @ivar suspected: whether the peer is suspected.
    @ivar pingedAt: when the last ping was sent.
    @ivar rtt: seconds from the last ping to its answer; L{None} before the first.
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
        The parameters are those of L{begin}.
        """
        self.pingedAt = 0.0
        self.rtt: float | None = None
        self.begin(heartbeat, now, phase)

    def begin(self, heartbeat: Heartbeat | None, now: float, phase: float | None = None) -> None:
        """
        Start anew: the bound runs from C{now}.

        @param heartbeat: L{None} if the peer's silence proves nothing.  Then nothing is ever due.
        @param phase: the place of the peer's pings in the interval, from 0 to 1.  It keeps the
            pings to many peers apart, also if all peers speak in one instant.  The first ping is
            due at that place, each other after 0.75 to 1 interval of silence.  L{None} for a ping
            whenever one interval of silence is over.
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
        Whether the peer has spoken since the last ping.
        """
        return self._stage is FRESH or self.heardAt != self._heardAtPing

    @property
    def deadline(self) -> float:
        """
        When the verdict is due if the peer stays silent.
        """
        if self._heartbeat is None:
            return inf
        return self.heardAt + self._heartbeat.bound if self.hasSpokenSincePing else self._deadline

    def decideFast(self, now: float, lateness: float = 0.0) -> bool | None:
        """
        Decide the commonest case: the peer has spoken since the last ping, and the timer is
        punctual.  This repeats C{_decideFresh} in one function, because ten thousand links are due
        each second (C{benchmarks/timers.py}).

        @return: whether to ping; L{None} in any other case, for which L{decide} has to be called.
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
            # The same place in the next interval.
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
            # The place at which the ping was due serves as well, and needs no further float.
            self._phaseDueAt = due
        self._heardAtPing = heardAt
        self._deadline = deadline = heardAt + (interval + timeout)
        suspicion, again = deadline - heartbeat.suspectBefore, due + interval
        self.due = suspicion if suspicion < again else again
        return True

    def peerHalfClosed(self) -> None:
        """
        Stop, because the peer has closed its half: from here on its silence proves nothing.
        """
        self._heartbeat = None
        self._stage = FRESH
        self.suspected = False
        self.due = inf

    def probe(self, now: float, within: float) -> Decision:
        """
        Make the peer speak now, although its interval is not over.

        @param within: seconds from C{now} after which the verdict is due, unless it is due sooner.
        @return: L{Decision.PING}; or L{Decision.NOTHING} if a ping is unanswered already, or the
            peer's silence proves nothing.  C{within} holds for the unanswered ping, too.
        """
        if self._heartbeat is None or self._stage is DEAD:
            return Decision.NOTHING
        deadline = min(self.deadline, now + within)
        if not self.hasSpokenSincePing:
            self._hasten(deadline, self._heartbeat)
            return Decision.NOTHING
        # On a coarse clock the answer may come in the same instant as the bytes before it.
        self._heardAtPing = self.heardAt = nextafter(self.heardAt, -inf)
        self._expectBy(deadline, self._heartbeat)
        self._lookBy(now + FRESH_FRACTION * (self._heartbeat.interval or inf))
        return Decision.PING

    def decide(
        self, now: float, lateness: float = 0.0, localDelayUntil: float | None = None
    ) -> Decision:
        """
        Decide what to do now.

        @param lateness: seconds by which the timer is late, because this process did not run.
        @param localDelayUntil: the last time at which the silence since the ping may have been
            caused locally: the ping waited in a buffer that drains, or reading was paused.
        """
        if self._heartbeat is None or self._stage is DEAD:
            return Decision.NOTHING
        if self._stage is FRESH or self.heardAt != self._heardAtPing:
            return self._decideFresh(self._heartbeat, now, lateness, localDelayUntil)
        return self._decideSilent(self._heartbeat, now, lateness, localDelayUntil)

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
            return self._decideSilent(heartbeat, now, lateness, localDelayUntil)
        # A late ping leaves the peer its whole timeout.  A timer that is a little late must not
        # move the bound.
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
        self.due = deadline - heartbeat.suspectBefore

    def _hasten(self, deadline: float, heartbeat: Heartbeat) -> None:
        """
        Bring the deadline of an unanswered ping forward.
        """
        if self._stage is not LOOKING and deadline < self._deadline:
            self._deadline = deadline
            suspicion = deadline - heartbeat.suspectBefore
            self.due = min(self.due, deadline if self.suspected else suspicion)

    def _lookBy(self, when: float) -> None:
        """
        Decide no later than at C{when}, because the peer may have answered by then, and the next
        ping may be due.
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

    def _decideSilent(
        self, heartbeat: Heartbeat, now: float, lateness: float, localDelayUntil: float | None
    ) -> Decision:
        if localDelayUntil is not None and localDelayUntil + heartbeat.timeout > self._deadline:
            return self._postpone(localDelayUntil + heartbeat.timeout, heartbeat)
        if self._stage is LOOKING:
            # All that had arrived by the deadline has been read since, however late this call is.
            self._stage = DEAD
            self.due = inf
            return Decision.VERDICT
        if now >= self._deadline:
            # A process that was stalled may not have sent its ping, or not read the answer.  This
            # counts once in a silence; otherwise a process that is always a little late would never
            # declare a peer dead.
            tolerated = max(LATENESS_TOLERANCE, heartbeat.timeout / 8)
            if self._stage is PINGED_AGAIN:
                tolerated = max(heartbeat.bound, _STALL_THRESHOLD)
            if lateness > tolerated:
                # The ping was sent at most this much too late.
                self._expectBy(now + min(lateness, heartbeat.timeout), heartbeat)
                self._stage = PINGED_AGAIN
                return Decision.PING_AGAIN
            self._stage = LOOKING
            self.due = now
            return Decision.LAST_LOOK
        suspicion = self._deadline - heartbeat.suspectBefore
        if now < suspicion:
            self.due = suspicion
            return Decision.NOTHING
        self.due = self._deadline
        if self.suspected:
            return Decision.NOTHING
        self.suspected = True
        return Decision.SUSPECT
