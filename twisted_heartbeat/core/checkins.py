# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckInDetector}: is a name that checks in well?  Facts and C{now} go in; a L{CheckInEvent} comes
out.

I{Problem.}  A job that runs now and then has no connection to watch.  It says "I am here" in a
request that ends at once, and the silence after it is the only sign that the job has stopped.

I{Idea.}  A name has a period, in which it checks in, and a grace time.  Their sum is its bound.

B{Rules.}  They are those of the ping API of healthchecks.io, page "Pinging API".

 1. A I{success} proves that the name is well.  The next is expected within the period.
 2. After the period without a success the name is suspected.  After the grace time comes the
    verdict, with the cause C{CheckInMissed}.
 3. A I{fail} is a verdict at once, with the cause C{CheckInFailed}.  So is an exit status other
    than 0.  Only a success ends what a verdict began.
 4. A I{start} says that a run has begun.  The run has the grace time to end, in a success or a
    fail.  While it is under way the name is not suspected.
 5. Runs at the same time differ by their run id.  A success with a run id ends that run; a success
    without one, or a fail, ends them all.
 6. A I{log} changes nothing.
 7. After the deadline the reactor is left to poll its sockets L{LAST_LOOKS} times, so that no name
    dies whose request had arrived.
 8. Time in which this process did not run is not the name's.  L{CheckInDetector.excuse} moves the
    deadline by it, by one bound at most in one silence.

I{States.}  C{new} until the first check-in of this process; C{alive}; C{suspected}; C{gone} after a
verdict.  A detector never returns from C{gone}: the next success begins the next generation, with
a L{CheckInDetector.successor}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import inf

from .settings import MIN_BOUND
from .validation import isCount, isNumber, require, requirePositive

LONGEST = 366 * 86400.0
"""Seconds: the longest period, and the longest grace time.  A year, as the API has it."""

LAST_LOOKS = 3
"""
Polls of the reactor between a deadline and its verdict.  The first accepts a connection that has
arrived, the second reads its TLS handshake or its request, the third a request after that.
"""

MAX_RUNS = 16
"""Runs of one name at a time.  The one that began first is forgotten for the next."""

STALLED = 1.0
"""Seconds.  A timer that is later than this shows that this process did not run."""


class Signal(StrEnum):
    """
    What a check-in says.
    """

    SUCCESS = "success"
    START = "start"
    FAIL = "fail"
    LOG = "log"


class CheckState(StrEnum):
    """
    The state of a checked name.  The values are those of a link's state.
    """

    NEW = "new"
    ALIVE = "alive"
    SUSPECTED = "suspected"
    GONE = "gone"


class CheckInEvent(Enum):
    """
    What has become of a name.
    """

    NOTHING = "nothing"
    """Nothing that an observer is told of."""

    CONNECTED = "connected"
    """It is well, and was not known to be."""

    RECOVERED = "recovered"
    """It was suspected, and has checked in."""

    SUSPECTED = "suspected"
    """Its period is over."""

    LAST_LOOK = "lastLook"
    """Its deadline has passed.  Let the reactor poll its sockets, then decide again."""

    MISSED = "missed"
    """The verdict: no check-in came in time, or a run did not end in time."""

    FAILED = "failed"
    """The verdict: a check-in said so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """
    How often a name has to check in.

    @ivar period: seconds from one success to the next.
    @ivar grace: seconds beyond the period until the verdict; also the longest time from the start
        of a run to its end.
    @raise ValueError: if one is not a number above 0 and of a year at most, or their sum is below
        0.2 s.
    """

    period: float = 86400.0
    grace: float = 3600.0

    def __post_init__(self) -> None:
        requirePositive(self, "period", "grace")
        for field in ("period", "grace"):
            value = getattr(self, field)
            require(value <= LONGEST, self, field, value, f"at most {LONGEST:.0f} seconds")
        allowed = f"at least {MIN_BOUND} seconds (period + grace)"
        require(self.bound >= MIN_BOUND * 0.999, self, "bound", self.bound, allowed)

    @property
    def bound(self) -> float:
        """
        The longest time in seconds from a success to the verdict.
        """
        return self.period + self.grace


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckInLimits:
    """
    What check-ins may take of a server.  L{None} switches a limit off.

    @ivar body: bytes that are kept of a check-in's body.  The rest is thrown away as it comes.
    @ivar created: names that check-ins may create with C{create=1}.  If there is no more room, a
        new name takes the place of the created name that is gone and was heard longest ago.
    @ivar perName: check-ins of one name in a minute.
    @ivar perAddress: requests from one IPv4 address, or from one IPv6 network of 64 bits, in a
        minute, whatever becomes of them.
    @ivar addresses: addresses whose requests are counted.  The one that was heard longest ago is
        forgotten for the next.
    @ivar shortest: seconds: the shortest period, and the shortest grace time, that a check-in may
        ask for with C{create=1}.
    @ivar requestTime: seconds in which a request has to arrive, body included.
    @ivar connections: connections at a time to the site that C{CheckInResource.site} makes.
    @raise ValueError: if a number is not whole and 1 or more, or a time is not above 0.
    """

    body: int = 10_000
    created: int = 1_000
    perName: int | None = 60
    perAddress: int | None = 600
    addresses: int = 10_000
    shortest: float = 1.0
    requestTime: float | None = 30.0
    connections: int | None = 1_000

    def __post_init__(self) -> None:
        requirePositive(self, "shortest")
        requirePositive(self, "requestTime", orNone=True)
        for field in ("created", "body"):
            value = getattr(self, field)
            holds = isNumber(value) and value >= 0 and value == int(value)
            require(holds, self, field, value, "a whole number, 0 or more")
        require(
            isCount(self.addresses), self, "addresses", self.addresses, "a whole number above 0"
        )
        for field in ("perName", "perAddress", "connections"):
            value = getattr(self, field)
            allowed = "a whole number, 1 or more, or None to switch it off"
            require(value is None or isCount(value), self, field, value, allowed)


class CheckInDetector:
    """
    The detector of one name.  All times are seconds of one monotonic clock.

    @ivar check: its period and grace time.
    @ivar state: where it is.
    @ivar heardAt: when it last checked in, in any way; at first, when its watch began.
    @ivar due: when L{decide} has to be called next.
    @ivar duration: seconds that the last run took whose start was known; L{None} before the first.
    """

    __slots__ = (
        "_excused",
        "_expectedFrom",
        "_looks",
        "_runs",
        "_watchedFrom",
        "check",
        "due",
        "duration",
        "heardAt",
        "state",
    )

    def __init__(self, check: Check, now: float, remaining: float | None = None) -> None:
        """
        @param remaining: seconds until the deadline, if the name has been watched before; one bound
            by default.
        """
        self.check = check
        self.state = CheckState.NEW
        self.heardAt = now
        self.duration: float | None = None
        self._expectedFrom = now if remaining is None else now + remaining - check.bound
        self._runs: dict[str | None, float] = {}
        # Runs that began before a verdict have no deadline any more.
        self._watchedFrom = now
        self._excused = 0.0
        self._looks = 0
        self._setDue()

    def successor(self, now: float) -> CheckInDetector:
        """
        Return the detector of the next generation.  It knows the runs that are under way.
        """
        following = CheckInDetector(self.check, now)
        following._runs = dict(self._runs)
        following.duration = self.duration
        return following

    @property
    def deadline(self) -> float:
        """
        When the verdict is due if no check-in comes.  Infinite after the verdict.
        """
        if self.state is CheckState.GONE:
            return inf
        return min(self._suspicion, self._firstStart()) + self.check.grace + self._excused

    @property
    def runs(self) -> Mapping[str | None, float]:
        """
        When the runs that are under way began, by run id; L{None} is the id of a run without one.
        """
        return self._runs

    @property
    def overdueRun(self) -> float | None:
        """
        When the run began whose end has to come before the next success is due; L{None} without
        such a run.
        """
        first = self._firstStart()
        return first if first < self._suspicion else None

    @property
    def _suspicion(self) -> float:
        return self._expectedFrom + self.check.period

    def _firstStart(self) -> float:
        return min(filter(self._isWatched, self._runs.values()), default=inf)

    def _isWatched(self, startedAt: float) -> bool:
        return startedAt >= self._watchedFrom

    def _setDue(self) -> None:
        self._looks = 0
        mayBeSuspected = self.state is CheckState.ALIVE and self._firstStart() == inf
        self.due = self._suspicion + self._excused if mayBeSuspected else self.deadline

    def checkIn(self, signal: Signal, now: float, run: str | None = None) -> CheckInEvent:
        """
        Note a check-in.  One that begins the next generation is given to the L{successor}.

        @param run: its run id.
        """
        self.heardAt = now
        if signal is Signal.LOG:
            return CheckInEvent.NOTHING
        if signal is Signal.START:
            self._startRun(run, now)
        else:
            self._endRuns(signal, run, now)
        if self.state is CheckState.GONE:
            return CheckInEvent.NOTHING
        if signal is Signal.FAIL:
            self.end()
            return CheckInEvent.FAILED
        was, self.state = self.state, CheckState.ALIVE
        if signal is Signal.SUCCESS:
            if self._firstStart() == inf:
                self._excused = 0.0
            self._expectedFrom = now - self._excused
        self._setDue()
        if was is CheckState.NEW:
            return CheckInEvent.CONNECTED
        return CheckInEvent.RECOVERED if was is CheckState.SUSPECTED else CheckInEvent.NOTHING

    def _startRun(self, run: str | None, now: float) -> None:
        self._runs.pop(run, None)
        if len(self._runs) == MAX_RUNS:
            # The mapping is in the order of the starts.
            del self._runs[next(iter(self._runs))]
        self._runs[run] = now

    def _endRuns(self, signal: Signal, run: str | None, now: float) -> None:
        startedAt = self._runs.pop(run, None)
        if startedAt is not None:
            self.duration = now - startedAt
        if signal is Signal.FAIL or run is None:
            self._runs.clear()

    def end(self) -> None:
        """
        Stop, without a verdict.
        """
        self.state = CheckState.GONE
        self.due = inf

    def change(self, check: Check, now: float) -> None:
        """
        Apply another period and grace time.  The name has at least its new grace time from now on,
        because it could not know that it is expected sooner.
        """
        self.check = check
        self._excused = min(self._excused, check.bound)
        if self.state is CheckState.GONE:
            return
        if self._firstStart() + self._excused < now:
            # A run that is under way may have been given more time to end.
            self._watchedFrom = now
        self._expectedFrom = max(self._expectedFrom, now - check.period - self._excused)
        self._setDue()

    def excuse(self, seconds: float) -> None:
        """
        Move the deadline, because this process did not run for so long.

        In one silence the first stall is excused as a whole, and more of them until one bound is
        excused.  Otherwise a process that is always late would never find a dead name.
        """
        self._excused = min(self._excused + seconds, max(self.check.bound, seconds))
        if self.state is not CheckState.GONE:
            # A name that is suspected already stays so.
            self._setDue()

    def decide(self, now: float, lateness: float = 0.0) -> CheckInEvent:
        """
        Decide what to do now.

        @param lateness: seconds by which the timer is late.
        """
        if now < self.due:
            return CheckInEvent.NOTHING
        if lateness > STALLED and self._excused < self.check.bound:
            # The stall timer calls L{excuse} in the same tick.
            self.due = now
            return CheckInEvent.NOTHING
        if now < self.deadline:
            self.state = CheckState.SUSPECTED
            self._setDue()
            return CheckInEvent.SUSPECTED
        if self._looks < LAST_LOOKS:
            self._looks += 1
            self.due = now
            return CheckInEvent.LAST_LOOK
        self.end()
        return CheckInEvent.MISSED


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedDeadline:
    """
    What is kept of one name.  Times are wall time, in seconds since 1970.

    @ivar period: what it was created with.
    @ivar grace: the same.
    @ivar deadline: when its verdict was due; in the past after a verdict.
    @ivar savedAt: when this was written.
    @ivar created: whether a check-in has created the name.
    """

    name: str
    period: float
    grace: float
    deadline: float
    savedAt: float
    created: bool


def remainingAfterRestart(check: Check, deadline: float, savedAt: float, now: float) -> float:
    """
    Return the seconds from now to a deadline that an earlier process has saved.

    That process may have stopped long ago, and in between no check-in could be received: the name
    has at least its grace time.  A clock that was set forward meanwhile must not make a name wait
    for ever: it has at most its bound.  A clock before C{savedAt} is wrong now or was wrong then,
    so that nothing is known, and the name has its bound.

    @param deadline: in seconds since 1970, as C{savedAt} and C{now}.
    """
    if now < savedAt:
        return check.bound
    return min(max(deadline - now, check.grace), check.bound)
