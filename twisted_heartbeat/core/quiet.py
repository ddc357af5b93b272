# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
When a detector needs no visits of its own, and how it goes on afterwards: what batching needs.

A L{FailureDetector} is visited when its C{due} says so.  There are two states in which something
else does that for many detectors at once, and C{due} is infinite:

  - I{parked}, from L{park} to L{resume}.  The peer does nothing but answer pings.  A ping round
    pings it, knows whether it has answered, and says so in L{resume}.
  - I{suspended}, from L{suspendChecks} to L{resumeChecks}.  The peer speaks so often that it is
    never pinged.  A talker scan looks at C{heardAt} before anything could be due.

In both the owner of the connection goes on to assign C{heardAt}.  These are functions of the
detector's module in a file of their own: they read and write its private fields.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .detector import DEAD, FRESH, FRESH_FRACTION, LATENESS_TOLERANCE, NEVER, PINGED

if TYPE_CHECKING:
    from .detector import FailureDetector
    from .settings import Heartbeat

_TALKATIVE_FRACTION = 0.5
"""Of L{minSilenceBeforePing}: a talkative peer has most likely spoken within that."""

ANSWER_WINDOW = 1 / 16
"""Of the interval.  What a peer says later than this after a ping is most likely no answer."""

_ROUNDING = 1e-6
"""Seconds: more than any sum of floats is wrong by."""


def minSilenceBeforePing(heartbeat: Heartbeat) -> float:
    """
    Return the seconds for which a peer may be silent before a ping can be due, whatever its phase:
    0 where the peer is never pinged.
    """
    return (heartbeat.interval or 0.0) * FRESH_FRACTION


def hasPhase(detector: FailureDetector) -> bool:
    """
    Whether the pings of this detector keep to a phase of the interval.
    """
    return detector._phaseDueAt is not None


def quietSince(detector: FailureDetector, due: float) -> float | None:
    """
    Find out whether the peer only answers pings: it has answered the last one, has said nothing
    since, and has to be pinged again.

    @param due: when this detector had to be visited, in seconds.
    @return: since when it has to be pinged, in seconds; L{None} if the peer does anything else.
    """
    heartbeat = detector._heartbeat
    if heartbeat is None or heartbeat.interval is None:
        return None
    if (
        detector._stage is not PINGED
        or detector.suspected
        or detector.heardAt == detector._heardAtPing
    ):
        return None
    first, latest = detector._firstLook(heartbeat), detector.heardAt + heartbeat.interval
    return min(first, due) if first - _ROUNDING < due <= latest + LATENESS_TOLERANCE else None


def park(detector: FailureDetector) -> None:
    """
    Stop the visits of a detector that is L{quietSince} some time.  The caller pings the peer now
    and then once in an interval, until it calls L{resume}.
    """
    detector.due = detector._deadline = inf
    detector._heardAtPing = detector._pingDueAt = NEVER
    if detector._phaseDueAt is not None:
        detector._phaseDueAt = NEVER


def resume(detector: FailureDetector, due: float, askedAt: float, *, answered: bool) -> None:
    """
    Go on after L{park}.

    @param due: when the last ping was due, in seconds.
    @param askedAt: when it was sent, if that was late; otherwise the same.
    @param answered: whether the peer has spoken since.
    """
    heartbeat = detector._heartbeat
    if heartbeat is None or heartbeat.interval is None:
        return
    detector._stage = PINGED
    detector._pingDueAt = due
    if detector._phaseDueAt is not None:
        detector._phaseDueAt = due
    if answered:
        detector._heardAtPing = NEVER
        last = detector.heardAt if detector._phaseDueAt is None else due
        detector.due = last + heartbeat.interval
    else:
        detector._heardAtPing = detector.heardAt
        # A peer that was pinged late has its whole timeout all the same.
        deadline = max(detector.heardAt + heartbeat.bound, askedAt + heartbeat.timeout)
        detector._expectBy(deadline, heartbeat)
        detector._lookBy(due + heartbeat.interval)


def isTalkative(detector: FailureDetector, now: float) -> bool:
    """
    Whether the peer has sent unsolicited data recently enough that it will probably never need a
    ping.
    """
    heartbeat = detector._heartbeat
    if heartbeat is None:
        return False
    if now - detector.heardAt >= minSilenceBeforePing(heartbeat) * _TALKATIVE_FRACTION:
        return False
    return detector.heardAt - detector.pingedAt > (heartbeat.interval or 0.0) * ANSWER_WINDOW


def suspendChecks(detector: FailureDetector, until: float) -> bool:
    """
    Stop the visits of a detector if nothing can be due before C{until}.  The caller must look at
    C{heardAt} by then, or call L{resumeChecks}.

    @param until: seconds.
    @return: L{False}, with nothing changed, if something could be due sooner.
    """
    heartbeat = detector._heartbeat
    if heartbeat is None or detector.suspected or detector._stage is DEAD:
        return False
    if not detector.hasSpokenSincePing:
        return False
    if detector._phaseDueAt is not None and detector._pingDueAt == NEVER:
        # The first ping of a phase is sent even if the peer has just spoken.
        return False
    if detector.heardAt + minSilenceBeforePing(heartbeat) < until:
        return False
    detector._stage = FRESH
    detector.due = inf
    return True


def checksSuspended(detector: FailureDetector) -> bool:
    """
    Whether nothing is due before L{resumeChecks}.
    """
    return detector.due == inf and detector._stage is FRESH and detector._heartbeat is not None


def resumeChecks(detector: FailureDetector) -> None:
    """
    Go on after L{suspendChecks}.
    """
    if detector._heartbeat is not None and checksSuspended(detector):
        detector.due = detector._firstLook(detector._heartbeat)
