# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{RunningTime}: a clock that stands still while this process does not read.

I{Problem.}  The kernel keeps datagrams for a process that is stopped, suspended or blocked, but
only as many as its buffer holds: with the usual 208 KiB, under three hundred heartbeats.  A
thousand peers fill that in a second.  After a stall, a living peer's heartbeats may be lost.

I{Idea.}  The bounds of all peers run in the time in which this process could read.  A timer that is
late by more than L{STALL} tells of a stall, from when it was due until now.  A timer that is always
scheduled, and due once in L{METER_PERIOD}, notices each stall that matters.  What is read after a
stall may be read before that timer fires, so L{RunningTime.read} looks at it, too.

I{Invariants.}  A process that runs as it should is never late by L{STALL}, so its running time is
the clock's.  Otherwise running time is behind by the length of the stalls; what it lacks of a stall
before the first late timer was due is at most L{METER_PERIOD}.
"""

from __future__ import annotations

from math import inf

STALL = 0.05
"""Seconds.  A timer that is later than this shows a stall."""

METER_PERIOD = 0.25
"""Seconds."""


class RunningTime:
    """
    The seconds in which this process ran.

    @ivar lost: seconds in which it did not.  The clock's time less this is the running time.
    @ivar due: when the timer is due that notices stalls, in seconds of the clock.
    """

    __slots__ = ("_creditedUntil", "due", "lost")

    def __init__(self) -> None:
        self.lost = 0.0
        self.due = inf
        self._creditedUntil = -inf

    def read(self, clock: float) -> float:
        """
        Return the running time when something is read.

        @param clock: seconds of the clock.
        """
        if clock > self.due + STALL:
            self._stalled(self.due, clock)
        return clock - self.lost

    def timerFired(self, clock: float, lateness: float) -> float:
        """
        Note that a timer has fired.

        @param lateness: seconds by which it is late.
        @return: the running time.
        """
        if lateness > STALL:
            self._stalled(clock - lateness, clock)
        return clock - self.lost

    def paused(self, since: float, clock: float) -> None:
        """
        Note that nothing could be read since then, because there was no socket.
        """
        self._stalled(since, clock)

    def _stalled(self, since: float, clock: float) -> None:
        # Many timers are late by one stall, and it counts once.
        self.lost += max(0.0, clock - max(since, self._creditedUntil))
        self._creditedUntil = clock
