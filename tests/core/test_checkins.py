# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.checkins}: exact instants, then a model that keeps the whole
history of a name and decides from that.
"""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from twisted_heartbeat.core.checkins import (
    LAST_LOOKS,
    MAX_RUNS,
    Check,
    CheckInDetector,
    CheckInEvent,
    CheckInLimits,
    CheckState,
    Signal,
    remainingAfterRestart,
)

SUCCESS, START, FAIL, LOG = Signal
NOTHING, CONNECTED, RECOVERED, SUSPECTED, LOOK, MISSED, FAILED = CheckInEvent

CHECK = Check(period=100.0, grace=20.0)
"""Its instants, counted from a success: suspicion 100, verdict 120."""

A, B = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


def alive(at: float = 0.0) -> CheckInDetector:
    """
    A name that has checked in.
    """
    detector = CheckInDetector(CHECK, at)
    assert detector.checkIn(SUCCESS, at) is CONNECTED
    return detector


def events(detector: CheckInDetector, until: float = inf) -> list[tuple[float, CheckInEvent]]:
    """
    Decide whenever something is due, on the exact instant.
    """
    found = []
    while detector.due <= until and detector.due < inf:
        now = detector.due
        event = detector.decide(now)
        if event is not NOTHING and event is not LOOK:
            found.append((now, event))
    return found


# Exact instants.


def test_silentNameIsSuspectedThenMissed() -> None:
    """
    Suspected on the period, the verdict on period and grace, and each of these once.
    """
    detector = alive(1000.0)
    assert events(detector) == [(1100.0, SUSPECTED), (1120.0, MISSED)]
    assert detector.state is CheckState.GONE


@pytest.mark.parametrize(
    ("check", "instants"),
    [
        (Check(period=200.0, grace=30.0), (200.0, 230.0)),
        (Check(period=60.0, grace=5.0), (60.0, 65.0)),
        (Check(period=10.0, grace=5.0), (50.0, 55.0)),
    ],
    ids=["longer", "shorter", "over already"],
)
def test_otherPeriod(check: Check, instants: tuple[float, float]) -> None:
    """
    Another period counts from the last success, but the name has its grace time from the change on.
    """
    detector = alive()
    detector.change(check, 50.0)
    assert events(detector) == list(zip(instants, (SUSPECTED, MISSED), strict=True))
    detector.change(CHECK, 300.0)
    assert (detector.state, detector.due) == (CheckState.GONE, inf)
    assert detector.successor(300.0).deadline == 420.0


def test_otherGraceDuringARun() -> None:
    """
    A run that began under a longer grace time is not overdue because of a shorter one.
    """
    detector = alive()
    detector.checkIn(START, 10.0)
    detector.change(Check(period=100.0, grace=5.0), 20.0)
    assert events(detector) == [(100.0, SUSPECTED), (105.0, MISSED)]


def test_reactorIsPolledBeforeTheVerdict() -> None:
    """
    After the deadline the reactor polls its sockets several times, and a check-in that comes with
    one of these polls saves the name.
    """
    for polls in range(1, LAST_LOOKS + 1):
        detector = alive()
        events(detector, 119.0)
        for _ in range(polls):
            assert detector.decide(120.0) is LOOK
            assert detector.due == 120.0
        assert detector.checkIn(SUCCESS, 120.0) is RECOVERED
        assert detector.due == 220.0


def test_recoveredNameHasItsWholePeriod() -> None:
    """
    A suspected name that checks in recovers, and its period begins anew.
    """
    detector = alive()
    assert events(detector, 110.0) == [(100.0, SUSPECTED)]
    assert detector.checkIn(SUCCESS, 110.0) is RECOVERED
    assert events(detector) == [(210.0, SUSPECTED), (230.0, MISSED)]


def test_nameThatWasNeverHeardIsMissedButNotSuspected() -> None:
    """
    A name that the operator expects is missed when its bound has passed since the watch began.
    """
    assert events(CheckInDetector(CHECK, 5.0)) == [(125.0, MISSED)]


def test_failIsAVerdictAtOnce() -> None:
    """
    A fail ends a name that is up or new; for one that is gone already it changes nothing.
    """
    for detector in (alive(), CheckInDetector(CHECK, 0.0)):
        assert detector.checkIn(FAIL, 1.0) is FAILED
        assert detector.due == inf
        assert detector.checkIn(FAIL, 2.0) is NOTHING
        assert detector.heardAt == 2.0


def test_logChangesNothing() -> None:
    """
    A log is heard, and moves no deadline: it can not keep alive a job that does not succeed.
    """
    detector = alive()
    assert detector.checkIn(LOG, 99.0) is NOTHING
    assert detector.heardAt == 99.0
    assert events(detector) == [(100.0, SUSPECTED), (120.0, MISSED)]


def test_runHasTheGraceTimeToEnd() -> None:
    """
    A run that does not end is missed after the grace time, long before the period is over.
    """
    detector = alive()
    assert detector.checkIn(START, 30.0) is NOTHING
    assert detector.overdueRun == 30.0
    assert events(detector) == [(50.0, MISSED)]


def test_lateStartDoesNotMoveTheDeadline() -> None:
    """
    A run that starts in the grace time ends the suspicion, and has no more time than without it.
    """
    detector = alive()
    events(detector, 110.0)
    assert detector.checkIn(START, 110.0) is RECOVERED
    assert detector.overdueRun is None
    assert events(detector) == [(120.0, MISSED)]


def test_startIsNoSuccess() -> None:
    """
    What is gone stays so when a run starts: a job that always fails is not well in between.
    """
    detector = alive()
    detector.checkIn(FAIL, 1.0)
    assert detector.checkIn(START, 2.0) is NOTHING
    assert detector.state is CheckState.GONE
    following = detector.successor(5.0)
    assert following.checkIn(SUCCESS, 5.0) is CONNECTED
    assert following.duration == 3.0


def test_runsAreToldApartByTheirIds() -> None:
    """
    A success with a run id ends that run only, and each duration is its own.
    """
    detector = alive()
    detector.checkIn(START, 10.0, A)
    detector.checkIn(START, 12.0, B)
    detector.checkIn(SUCCESS, 15.0, B)
    assert detector.duration == 3.0
    assert detector.runs == {A: 10.0}
    assert detector.deadline == 30.0
    detector.checkIn(SUCCESS, 16.0, A)
    assert detector.duration == 6.0
    assert detector.deadline == 136.0


@pytest.mark.parametrize(("signal", "run"), [(SUCCESS, None), (FAIL, None), (FAIL, A)])
def test_whatEndsAllRuns(signal: Signal, run: str | None) -> None:
    """
    A success without a run id ends all runs, and so does any fail.
    """
    detector = alive()
    detector.checkIn(START, 10.0, A)
    detector.checkIn(START, 11.0, B)
    detector.checkIn(START, 12.0)
    detector.checkIn(signal, 15.0, run)
    assert detector.runs == {}


def test_unknownRunEndsNoOther() -> None:
    """
    A success with a run id that has not started counts, and has no duration.
    """
    detector = alive()
    detector.checkIn(START, 10.0, A)
    detector.checkIn(SUCCESS, 11.0, B)
    assert detector.duration is None
    assert detector.deadline == 30.0


def test_runFromBeforeAVerdictHasNoDeadline() -> None:
    """
    After a run was missed, a success of another does not bring the same verdict again; the late
    run's duration is still known when it ends.
    """
    detector = alive()
    detector.checkIn(START, 10.0, A)
    assert events(detector) == [(30.0, MISSED)]
    following = detector.successor(40.0)
    following.checkIn(SUCCESS, 40.0, B)
    assert following.deadline == 160.0
    following.checkIn(SUCCESS, 50.0, A)
    assert following.duration == 40.0


def test_runsAreBounded() -> None:
    """
    Starts that never end take no more than their share of memory.
    """
    detector = alive()
    for number in range(3 * MAX_RUNS):
        detector.checkIn(START, float(number), f"{number:036d}")
    assert len(detector.runs) == MAX_RUNS
    assert min(detector.runs.values()) == 2.0 * MAX_RUNS


def test_stallMovesTheDeadline() -> None:
    """
    Time in which this process did not run is not the name's: the late timer decides nothing, and
    the excuse moves the deadline.
    """
    detector = alive()
    events(detector, 100.0)
    assert detector.decide(150.0, lateness=30.0) is NOTHING
    detector.excuse(30.0)
    assert events(detector) == [(150.0, MISSED)]


@pytest.mark.parametrize("stall", [150.0, 3600.0])
def test_stallLongerThanTheBound(stall: float) -> None:
    """
    A stall is excused as a whole, however long it was: the name has the time that it had left.
    """
    detector = alive()
    events(detector, 50.0)
    assert detector.decide(50.0 + stall, lateness=stall) is NOTHING
    detector.excuse(stall)
    assert detector.state is CheckState.ALIVE
    assert events(detector) == [(100.0 + stall, SUSPECTED), (120.0 + stall, MISSED)]


def test_excusesEnd() -> None:
    """
    A process that is always late still finds the dead: one bound is all that a silence is excused.
    """
    detector = alive()
    now = 0.0
    for _ in range(100):
        now += 60.0
        detector.excuse(60.0)
        while detector.due <= now:
            detector.decide(now, lateness=60.0)
            if detector.state is CheckState.GONE:
                break
    assert detector.state is CheckState.GONE
    assert now > 2 * CHECK.bound


def test_excuseIsForOneSilence() -> None:
    """
    The next check-in has no more time because of an earlier stall.
    """
    detector = alive()
    detector.excuse(50.0)
    detector.checkIn(SUCCESS, 60.0)
    assert detector.deadline == 180.0


@pytest.mark.parametrize(
    ("deadline", "savedAt", "now", "remaining"),
    [
        (1060.0, 1000.0, 1010.0, 50.0),
        (1060.0, 1000.0, 1059.0, CHECK.grace),
        (1060.0, 1000.0, 9999.0, CHECK.grace),
        (9999.0, 1000.0, 1010.0, CHECK.bound),
        (1060.0, 1000.0, 999.9, CHECK.bound),
    ],
    ids=["usual", "soon", "passed while it was down", "too far", "clock set back"],
)
def test_deadlineAfterARestart(
    deadline: float, savedAt: float, now: float, remaining: float
) -> None:
    """
    A saved deadline holds, with a grace time at least and one bound at most; with a clock before
    the time of saving nothing is known.
    """
    assert remainingAfterRestart(CHECK, deadline, savedAt, now) == remaining
    detector = CheckInDetector(CHECK, 7.0, remaining)
    assert events(detector) == [(7.0 + remaining, MISSED)]


# Settings.


@pytest.mark.parametrize(
    "values",
    [
        {"period": 0},
        {"period": -1.0},
        {"grace": inf},
        {"grace": "3"},
        {"period": 1e9},
        {"period": 0.05, "grace": 0.05},
    ],
)
def test_wrongCheckIsRefused(values: dict[str, float]) -> None:
    """
    A wrong value is one sentence that names the field.
    """
    with pytest.raises(ValueError, match=r"^Check\.(period|grace|bound) is "):
        Check(**values)


@pytest.mark.parametrize(
    "values",
    [{"body": -1}, {"created": 1.5}, {"perName": 0}, {"addresses": 0}, {"requestTime": 0}],
)
def test_wrongLimitIsRefused(values: dict[str, float]) -> None:
    """
    A wrong limit is one sentence that names the field.
    """
    with pytest.raises(ValueError, match=rf"^CheckInLimits\.{next(iter(values))} is "):
        CheckInLimits(**values)  # type: ignore[arg-type]


# The model.


class Model(RuleBasedStateMachine):
    """
    The history of one name is kept as a list, and what should be true of the name is found from
    the whole list each time.  The detector keeps only what it needs.
    """

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.detector = CheckInDetector(CHECK, 0.0)
        self.history: list[tuple[float, Signal, str | None]] = []
        self.watchedFrom = 0.0
        self.gone = self.up = False

    @rule(
        seconds=st.floats(0, 60),
        signal=st.sampled_from(list(Signal)),
        run=st.sampled_from([None, A, B]),
    )
    def checkIn(self, seconds: float, signal: Signal, run: str | None) -> None:
        self.pass_(seconds)
        if self.gone and signal is SUCCESS:
            self.detector = self.detector.successor(self.now)
            self.watchedFrom, self.gone, self.up = self.now, False, False
        event = self.detector.checkIn(signal, self.now, run)
        self.history.append((self.now, signal, run))
        if self.gone or signal is LOG:
            assert event is NOTHING
        elif signal is FAIL:
            assert event is FAILED
            self.gone, self.up = True, False
        else:
            assert (event is CONNECTED) == (not self.up)
            self.up = True

    @rule(seconds=st.floats(0, 150))
    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while self.detector.due <= end:
            self.now = self.detector.due
            due = self.deadline()
            event = self.detector.decide(self.now)
            if event is MISSED:
                assert self.now == pytest.approx(due)
                self.gone, self.up = True, False
            elif event is SUSPECTED:
                assert self.up
                assert not any(at >= self.watchedFrom for at in self.openRuns().values())
                assert self.now == pytest.approx(self.successAt() + CHECK.period)
        self.now = end
        if not self.gone:
            assert end <= self.deadline() + 1e-6

    def successAt(self) -> float:
        """
        The last success since the watch began, or that begin.
        """
        successes = [at for at, signal, _ in self.history if signal is SUCCESS]
        return max([self.watchedFrom, *successes])

    def openRuns(self) -> dict[str | None, float]:
        """
        The runs that have started and not ended.
        """
        found: dict[str | None, float] = {}
        for at, signal, run in self.history:
            if signal is START:
                found[run] = at
            elif signal is FAIL or (signal is SUCCESS and run is None):
                found = {}
            elif signal is SUCCESS:
                found.pop(run, None)
        return found

    def deadline(self) -> float:
        """
        When the verdict has to come.
        """
        starts = [at for at in self.openRuns().values() if at >= self.watchedFrom]
        return min([self.successAt() + CHECK.period, *starts]) + CHECK.grace

    @invariant()
    def agrees(self) -> None:
        assert (self.detector.state is CheckState.GONE) == self.gone
        assert (self.detector.state is CheckState.NEW) == (not self.gone and not self.up)
        assert dict(self.detector.runs) == self.openRuns()
        if not self.gone:
            assert self.detector.deadline == pytest.approx(self.deadline())


TestModel = Model.TestCase


@given(
    st.lists(st.floats(0.1, 99.9), min_size=1, max_size=30),
)
def test_punctualNameIsNeverSuspected(gaps: list[float]) -> None:
    """
    No name that succeeds within its period is ever suspected, whatever the gaps are.
    """
    detector, now = alive(), 0.0
    for gap in gaps:
        assert events(detector, now + gap) == []
        now += gap
        assert detector.checkIn(SUCCESS, now) is NOTHING
