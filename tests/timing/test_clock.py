# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.timing.wheel}: the monotonic clock for some milliseconds on the real
reactor, the wheel in virtual time.
"""

from __future__ import annotations

import os
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable
from decimal import Decimal
from math import inf, nan
from time import monotonic, sleep
from typing import Any
from weakref import ref

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from twisted_heartbeat.core.evidence import VerdictCounter
from twisted_heartbeat.timing import alarms
from twisted_heartbeat.timing import monotonic as monotonicModule
from twisted_heartbeat.timing.monotonic import InertClock, MonotonicClock, clockFor
from twisted_heartbeat.timing.wheel import Slot, TimerWheel, timerWheelFor

from ..support.interpreter import printedBy

WAIT_LIMIT = 10.0
"""Seconds after which a wait has failed."""

EARLY = 0.001
"""Seconds by which a kernel may round a delay down."""


@pytest.fixture
def theReactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture(params=["best", "thread"])
def clock(request: pytest.FixtureRequest, theReactor: Any, monkeypatch: Any) -> MonotonicClock:
    """
    A clock of its own for the test, with each kind of alarm.
    """
    if request.param == "thread":
        monkeypatch.setattr(monotonicModule, "alarmFor", alarms._ThreadAlarm)
    return MonotonicClock(theReactor)


class Bell:
    """
    A Deferred that fires with the reactor's next turn, or fails after C{WAIT_LIMIT}, whatever the
    reactor's own clock shows.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.rung: Deferred[None] = Deferred()
        self._guard = threading.Timer(WAIT_LIMIT, reactor.callFromThread, [self._overdue])
        self._guard.daemon = True
        self._guard.start()

    def ring(self) -> None:
        self._guard.cancel()
        self._reactor.callFromThread(self.rung.callback, None)

    def _overdue(self) -> None:
        self.rung.errback(AssertionError(f"nothing came of it in {WAIT_LIMIT} s"))


def isIdle(clock: MonotonicClock) -> bool:
    return clock._alarm is None and clock.getDelayedCalls() == []


# The monotonic clock.


def test_providesReactorTime(clock: MonotonicClock) -> None:
    """
    It is an IReactorTime, so that it fits wherever a reactor's time does.
    """
    assert verifyObject(IReactorTime, clock)
    before = monotonic()
    assert before <= clock.seconds() <= monotonic()


@pytest_twisted.ensureDeferred
async def test_callsRunInOrder(clock: MonotonicClock, theReactor: Any) -> None:
    """
    Calls run with their arguments in the order of their times, none early, and at the end nothing
    is held any more.
    """
    ran: list[tuple[int, float]] = []

    def run(number: int, *, bell: Bell | None = None) -> None:
        ran.append((number, monotonic()))
        if bell is not None:
            bell.ring()

    delays = [0.02, 0.01, 0.015, 0.005]
    calls = [clock.callLater(delay, run, number) for number, delay in enumerate(delays)]
    times = [call.getTime() for call in calls]
    bell = Bell(theReactor)
    last = clock.callLater(0.03, run, 4, bell=bell)
    assert set(clock.getDelayedCalls()) == {*calls, last}
    await bell.rung
    assert [number for number, _ in ran] == [*sorted(range(4), key=lambda n: times[n]), 4]
    for number, at in ran[:-1]:
        assert at >= times[number] - EARLY
    assert isIdle(clock)


@pytest_twisted.ensureDeferred
async def test_cancel(clock: MonotonicClock, theReactor: Any) -> None:
    """
    A cancelled call does not run, says so, and takes nothing from the others.
    """
    ran: list[str] = []
    bell = Bell(theReactor)
    first = clock.callLater(0.005, ran.append, "first")
    clock.callLater(0.01, ran.append, "second")
    clock.callLater(0.02, bell.ring)
    assert first.active()
    first.cancel()
    assert not first.active()
    assert first not in clock.getDelayedCalls()
    with pytest.raises(AlreadyCancelled):
        first.cancel()
    await bell.rung
    assert ran == ["second"]


def test_cancelOfTheLastLeavesNothing(clock: MonotonicClock) -> None:
    """
    It holds a descriptor, or a thread, only while a call is pending.
    """
    threads = set(threading.enumerate())
    for _ in range(3):
        call = clock.callLater(60.0, lambda: None)
        assert not isIdle(clock)
        call.cancel()
        assert isIdle(clock)
    # Those of earlier tests may end meanwhile.
    assert set(threading.enumerate()) <= threads


class CountedAlarm:
    """
    An alarm that never rings, and counts how often it is set.
    """

    def __init__(self, reactor: Any, ring: Any) -> None:
        self.delays: list[float] = []
        self.closed = False

    def set(self, delay: float) -> None:
        self.delays.append(delay)

    def keep(self) -> None:
        """
        See C{set}, which is what is counted.
        """

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def mute(theReactor: Any, monkeypatch: Any) -> MonotonicClock:
    """
    A clock whose alarm only counts.
    """
    monkeypatch.setattr(monotonicModule, "alarmFor", CountedAlarm)
    return MonotonicClock(theReactor)


def test_manyCancelledCallsAreForgotten(mute: MonotonicClock) -> None:
    """
    Thousands of attempts each have a limit that is cancelled: what is kept of them never outgrows
    what is pending, and the alarm is set only when the next call is another.
    """
    pending = [mute.callLater(1000.0 + number, lambda: None) for number in range(100)]
    alarm: Any = mute._alarm
    for _ in range(2000):
        mute.callLater(5000.0, lambda: None).cancel()
    assert len(mute._entries) <= 2 * len(pending) + 1
    assert set(mute.getDelayedCalls()) == set(pending)
    assert len(alarm.delays) == 1
    for call in pending:
        call.cancel()
    assert isIdle(mute)
    assert alarm.closed


def test_cancelOfTheNextSetsTheAlarmForTheOneAfter(mute: MonotonicClock) -> None:
    """
    Nobody is woken for a call that was cancelled, or for the old time of one that was moved.
    """
    first = mute.callLater(1.0, lambda: None)
    second = mute.callLater(20.0, lambda: None)
    alarm: Any = mute._alarm
    first.cancel()
    assert alarm.delays[-1] == pytest.approx(20.0, abs=0.9)
    for seconds in (9.0, 8.0, 7.0):
        second.reset(seconds)
    assert alarm.delays[-1] == pytest.approx(7.0, abs=0.9)
    assert mute.getDelayedCalls() == [second]
    assert len(mute._entries) <= 3
    second.cancel()
    assert isIdle(mute)


@pytest_twisted.ensureDeferred
async def test_lateness(clock: MonotonicClock, theReactor: Any) -> None:
    """
    A call that comes late, because the reactor was held up, can see by how much; afterwards nothing
    is late.
    """
    told: list[float] = []
    bell = Bell(theReactor)

    def ring() -> None:
        told.append(clock.lateness)
        bell.ring()

    clock.callLater(0.01, ring)
    sleep(0.1)
    await bell.rung
    assert 0.09 - EARLY <= told[0] < WAIT_LIMIT
    assert clock.lateness == 0.0


@pytest_twisted.ensureDeferred
async def test_called(clock: MonotonicClock, theReactor: Any) -> None:
    """
    A call that has run is neither active nor to be cancelled.
    """
    bell = Bell(theReactor)
    call = clock.callLater(0, bell.ring)
    await bell.rung
    assert not call.active()
    with pytest.raises(AlreadyCalled):
        call.cancel()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("move", ["reset sooner", "reset later", "delay", "delay back"])
async def test_moved(clock: MonotonicClock, theReactor: Any, move: str) -> None:
    """
    A call that is moved runs at its new time, and only then.
    """
    start = monotonic()
    bell = Bell(theReactor)
    ran: list[float] = []

    def run() -> None:
        ran.append(monotonic() - start)
        bell.ring()

    call = clock.callLater(60.0 if move in ("reset sooner", "delay back") else 0.005, run)
    if move == "delay":
        call.delay(0.015)
    elif move == "delay back":
        call.delay(-59.98)
    else:
        call.reset(0.02)
    assert start + 0.02 - EARLY <= call.getTime() <= monotonic() + 0.02
    await bell.rung
    assert len(ran) == 1 and ran[0] >= 0.02 - EARLY
    assert isIdle(clock)


@pytest_twisted.ensureDeferred
async def test_movedWithinACall(clock: MonotonicClock, theReactor: Any) -> None:
    """
    A call may move, cancel and add others while it runs.
    """
    ran: list[str] = []
    bell = Bell(theReactor)

    def first() -> None:
        ran.append("first")
        cancelled.cancel()
        clock.callLater(0.005, ran.append, "added")
        later.reset(0.02)

    clock.callLater(0, first)
    cancelled = clock.callLater(0.01, ran.append, "cancelled")
    later = clock.callLater(60.0, lambda: (ran.append("later"), bell.ring()))
    await bell.rung
    assert ran == ["first", "added", "later"]
    assert isIdle(clock)


@pytest_twisted.ensureDeferred
async def test_zeroWaitsForAnotherPoll(clock: MonotonicClock, theReactor: Any) -> None:
    """
    What is added with no delay within a call runs after the reactor has polled once more: without
    that there is no last look.
    """
    order: list[str] = []
    bell = Bell(theReactor)

    def look() -> None:
        order.append("look")
        # The reactor calls this before its next poll.
        theReactor.callFromThread(order.append, "turn")
        clock.callLater(0, decide)

    def decide() -> None:
        order.append("decide")
        bell.ring()

    clock.callLater(0.005, look)
    await bell.rung
    assert order == ["look", "turn", "decide"]


@pytest_twisted.ensureDeferred
async def test_errorDoesNotStopOthers(
    clock: MonotonicClock, theReactor: Any, loggedErrors: Any
) -> None:
    """
    What a call raises is logged, and the others run.
    """
    bell = Bell(theReactor)
    clock.callLater(0.005, lambda: 1 / 0)
    clock.callLater(0.005, lambda: 1 / 0)
    clock.callLater(0.01, bell.ring)
    await bell.rung
    assert len(loggedErrors.flush(ZeroDivisionError)) == 2
    assert isIdle(clock)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError])
async def test_exitDoesNotStopOthers(
    clock: MonotonicClock, theReactor: Any, loggedErrors: Any, kind: type[BaseException]
) -> None:
    """
    So is what is no Exception, as the reactor does with what its own calls raise.
    """

    def leave() -> None:
        raise kind

    bell = Bell(theReactor)
    clock.callLater(0.005, leave)
    clock.callLater(0.01, bell.ring)
    await bell.rung
    assert len(loggedErrors.flush(kind)) == 1
    assert isIdle(clock)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", ["removed", "disconnected"])
@pytest.mark.parametrize("pending", [0.001, 60.0])
async def test_takenOutOfTheReactor(
    clock: MonotonicClock, theReactor: Any, how: str, pending: float
) -> None:
    """
    C{reactor.removeAll}, as trial calls it after a test class that has left something behind, and
    C{disconnectAll} do not stop the clock: what is set afterwards is called, whether that is before
    or after what was pending.
    """
    left = clock.callLater(pending, lambda: None)
    alarm: Any = clock._alarm
    if isinstance(alarm, alarms._TimerFd):
        theReactor.removeReader(alarm)
        if how == "disconnected":
            alarm.connectionLost(Failure(ConnectionLost()))
            assert alarm in theReactor.getReaders()
    sleep(0.002)
    bell = Bell(theReactor)
    clock.callLater(0.01, bell.ring)
    await bell.rung
    if left.active():
        left.cancel()
    assert isIdle(clock)


def test_callLeftBehindDirtiesNoOtherTest(clock: MonotonicClock, theReactor: Any) -> None:
    """
    C{reactor.removeAll}, by which trial finds what a test has left, does not name the clock: the
    call of one test would otherwise fail each one after it.
    """
    left = clock.callLater(60.0, lambda: None)
    readers = theReactor.getReaders()
    removed = theReactor.removeAll()
    for one in removed:
        theReactor.addReader(one)
    assert not [one for one in removed if isinstance(one, alarms._TimerFd)]
    assert set(theReactor.getReaders()) == set(readers)
    left.cancel()
    assert isIdle(clock)


def test_closedAlarmIsNotPutBack(theReactor: Any) -> None:
    """
    An alarm that was closed is not put back by a C{connectionLost} that comes late.
    """
    clock = MonotonicClock(theReactor)
    call = clock.callLater(60.0, lambda: None)
    alarm: Any = clock._alarm
    call.cancel()
    if isinstance(alarm, alarms._TimerFd):
        alarm.connectionLost(Failure(ConnectionLost()))
        assert alarm not in theReactor.getReaders()


FORKED = """
import os
from twisted.internet import selectreactor
selectreactor.install()
from twisted.internet import reactor
from twisted_heartbeat.timing import alarms, monotonic
monotonic.alarmFor = alarms._ThreadAlarm
pending = monotonic.clockFor(reactor).callLater(0.01, reactor.stop)
if os.fork() == 0:
    reactor.callLater(10, os._exit, 1)
    reactor.run()
    os._exit(0)
pending.cancel()
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked() -> None:
    """
    In a child process the thread that keeps the time is started again: a call that was pending when
    the process was forked is made there, too.
    """
    assert printedBy(FORKED).split() == ["0"]


def test_neitherDescriptorNorThread(theReactor: Any, monkeypatch: Any) -> None:
    """
    A process that has neither a descriptor nor a thread left has timers all the same.
    """

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    def refuseThread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(alarms, "_TimerFd", refuse)
    monkeypatch.setattr(alarms, "_ThreadAlarm", refuseThread)
    clock = MonotonicClock(theReactor)

    def rings() -> list[Any]:
        return [call for call in theReactor.getDelayedCalls() if call.func == clock._ring]

    far = clock.callLater(60.0, lambda: None)
    near = clock.callLater(30.0, lambda: None)
    assert isinstance(clock._alarm, alarms._CallAlarm)
    [ring] = rings()
    # As trial does after a test that has left a call behind.
    ring.cancel()
    later = clock.callLater(90.0, lambda: None)
    [again] = rings()
    assert again.getTime() == pytest.approx(ring.getTime(), abs=1.0)
    for call in (far, near, later):
        call.cancel()
    assert isIdle(clock)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has a timerfd")
def test_reactorThatDoesNotTakeTheDescriptor() -> None:
    """
    A timerfd that its reactor does not take is closed.
    """

    class Full:
        """
        A reactor.
        """

        def addReader(self, reader: Any) -> None:
            """
            As epoll_ctl(2) where the user has no watches left.
            """
            raise OSError(28, "No space left on device")

    before = os.listdir("/proc/self/fd")
    reactor: Any = Full()
    with pytest.raises(OSError, match="No space left"):
        alarms._TimerFd(reactor, lambda: None)
    assert os.listdir("/proc/self/fd") == before


def test_timeIsNoWallTime(clock: MonotonicClock) -> None:
    """
    The clock, and each call that it is asked for, tell the system's monotonic time.
    """
    before = monotonic()
    call = clock.callLater(10, lambda: None)
    times = [clock.seconds(), InertClock().seconds(), call.getTime() - 10]
    call.cancel()
    assert all(before <= time <= monotonic() for time in times)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_wallClockIsStepped(
    clock: MonotonicClock, theReactor: Any, monkeypatch: Any, step: float
) -> None:
    """
    A step of the wall clock by an hour either way, in the middle of a wait, neither fires a call
    early nor freezes it.
    """
    from twisted.python import runtime

    wall = runtime.seconds
    start = monotonic()
    ran: list[float] = []
    bell = Bell(theReactor)

    def run() -> None:
        ran.append(monotonic() - start)
        bell.ring()

    def takeTheStep() -> None:
        for owner in (runtime, theReactor):
            monkeypatch.setattr(owner, "seconds", lambda: wall() + step)

    # In a turn of its own, because a call of the clock would take the step before the alarm for the
    # next one is set.
    before = clock.callLater(0.01, theReactor.callFromThread, takeTheStep)
    clock.callLater(0.03, run)
    await bell.rung
    monkeypatch.undo()
    assert not before.active()
    assert 0.03 - EARLY <= ran[0] < WAIT_LIMIT / 2


@pytest.mark.parametrize("delay", [1e10, 1e300])
@pytest_twisted.ensureDeferred
async def test_longDelay(clock: MonotonicClock, theReactor: Any, delay: float) -> None:
    """
    A delay beyond what the kernel's timers can hold is kept, and hinders no other call.
    """
    bell = Bell(theReactor)
    never = clock.callLater(delay, lambda: None)
    clock.callLater(0.01, bell.ring)
    await bell.rung
    assert never.active()
    never.cancel()
    assert isIdle(clock)


@pytest.mark.parametrize("delay", [-0.001, -inf, nan])
def test_wrongDelay(clock: MonotonicClock, delay: float) -> None:
    """
    A wrong delay is one sentence with its value, and nothing is pending for it.
    """
    with pytest.raises(ValueError, match=r"callLater\(.*\): the delay must be 0 seconds or more"):
        clock.callLater(delay, lambda: None)
    assert isIdle(clock)


def test_oneClockForAReactor(theReactor: Any) -> None:
    """
    All links of a reactor share one clock and one wheel; virtual time is its own clock.
    """
    found: Any = clockFor(theReactor)
    assert isinstance(found, MonotonicClock)
    assert clockFor(theReactor) is found and clockFor() is found
    virtual = Clock()
    assert clockFor(virtual) is virtual
    assert timerWheelFor(found) is timerWheelFor(found)
    assert timerWheelFor(virtual) is timerWheelFor(virtual)
    assert timerWheelFor(virtual) is not timerWheelFor(Clock())


def test_noDescriptorToSpare(theReactor: Any, monkeypatch: Any) -> None:
    """
    Where no timerfd is to be had, a thread keeps the time.
    """

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(alarms, "_TimerFd", refuse)
    clock = MonotonicClock(theReactor)
    call = clock.callLater(60.0, lambda: None)
    assert isinstance(clock._alarm, alarms._ThreadAlarm)
    call.cancel()
    assert isIdle(clock)


# The wheel.

SLOT = 1 / TimerWheel.PER_SECOND

ALMOST = 1e-9
"""Seconds: sums of floats."""


class Visitor:
    """
    Notes its beats.

    @ivar then: what each beat does, and when it wants the next.
    """

    slot: Slot | None = None

    def __init__(self, then: Callable[[float], float | None] = lambda now: None) -> None:
        self.then = then
        self.beats: list[float] = []
        self.lateness: list[float] = []

    def onTimer(self, now: float, lateness: float) -> float | None:
        self.beats.append(now)
        self.lateness.append(lateness)
        return self.then(now)


def visitorsAt(wheel: TimerWheel, times: list[float]) -> list[Visitor]:
    visitors = [Visitor() for _ in times]
    for visitor, when in zip(visitors, times, strict=True):
        wheel.schedule(visitor, when)
    return visitors


def advanceTo(clock: Clock, when: float) -> None:
    """
    From one call to the next, as a reactor does that is on time.
    """
    while (calls := clock.getDelayedCalls()) and (first := min(c.getTime() for c in calls)) <= when:
        clock.advance(max(0.0, first - clock.seconds()))
    clock.advance(max(0.0, when - clock.seconds()))


@pytest.mark.parametrize("when", [0.001, 0.2, 1.0, 8.003, 35.0])
def test_loneVisitor(when: float) -> None:
    """
    A lone visitor is visited on its exact instant, once.
    """
    clock = Clock()
    [visitor] = visitorsAt(TimerWheel(clock), [when])
    advanceTo(clock, 100.0)
    assert visitor.beats == [pytest.approx(when, abs=ALMOST)]
    assert visitor.lateness == [pytest.approx(0.0, abs=ALMOST)]
    assert clock.getDelayedCalls() == []


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40))
def test_manyVisitors(times: list[float]) -> None:
    """
    No visitor is visited early, each once, none more than one slot late.
    """
    clock = Clock()
    visitors = visitorsAt(TimerWheel(clock), times)
    advanceTo(clock, 10.0)
    for visitor, when in zip(visitors, times, strict=True):
        [beat] = visitor.beats
        assert when - ALMOST <= beat <= when + SLOT + ALMOST
    assert clock.getDelayedCalls() == []


WHENS = st.one_of(st.none(), st.floats(0.0, 1.0))
MOVES = st.lists(st.tuples(st.integers(0, 3), WHENS), max_size=30)


@given(MOVES)
def test_visitorsThatMove(moves: list[tuple[int, float | None]]) -> None:
    """
    A visitor is visited when it was last told, however often it moved or left before; and there is
    one delayed call at most, none when there is nobody to visit.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    visitors = [Visitor() for _ in range(4)]
    last: dict[int, float] = {}
    for number, when in moves:
        if when is None:
            wheel.cancel(visitors[number])
            last.pop(number, None)
        else:
            wheel.schedule(visitors[number], when)
            last[number] = when
        assert len(clock.getDelayedCalls()) == (1 if last else 0)
    advanceTo(clock, 2.0)
    for number, visitor in enumerate(visitors):
        assert len(visitor.beats) == (number in last)
        for beat in visitor.beats:
            assert last[number] - ALMOST <= beat <= last[number] + SLOT + ALMOST
    assert clock.getDelayedCalls() == []


def test_tenThousandVisitors() -> None:
    """
    Ten thousand visitors cost one delayed call, before and after each beat.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    visitors = [Visitor(lambda now: now + 1.0) for _ in range(10_000)]
    for number, visitor in enumerate(visitors):
        wheel.schedule(visitor, 1.0 + number / 10_000)
    assert len(clock.getDelayedCalls()) == 1
    advanceTo(clock, 3.5)
    assert len(clock.getDelayedCalls()) == 1
    assert {len(visitor.beats) for visitor in visitors} <= {2, 3}
    for visitor in visitors:
        wheel.cancel(visitor)
    assert clock.getDelayedCalls() == []


def test_leave() -> None:
    """
    Who leaves is visited no more; the last one takes the delayed call along.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    one, other = visitorsAt(wheel, [1.0, 1.0])
    wheel.cancel(one)
    wheel.cancel(one)
    assert len(clock.getDelayedCalls()) == 1
    wheel.cancel(other)
    assert clock.getDelayedCalls() == []
    advanceTo(clock, 2.0)
    assert one.beats == other.beats == []


def test_forget() -> None:
    """
    Who leaves and is to be forgotten is kept nowhere, and the others of its slot are visited on
    their instant.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    one, other = visitorsAt(wheel, [1.0, 1.0])
    gone = ref(one)
    wheel.discard(one)
    wheel.discard(one)
    del one
    assert gone() is None
    advanceTo(clock, 2.0)
    assert len(other.beats) == 1
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("leave", [TimerWheel.cancel, TimerWheel.discard])
def test_leaveWithinABeat(leave: Callable[[TimerWheel, Visitor], None]) -> None:
    """
    A visitor may send others away, itself too, while it is visited.
    """
    clock = Clock()
    wheel = TimerWheel(clock)

    def leaveAll(now: float) -> None:
        for one in visitors:
            leave(wheel, one)

    visitors = [Visitor(leaveAll) for _ in range(3)]
    for one in visitors:
        wheel.schedule(one, 1.0)
    wheel.schedule(visitors[2], 2.0)
    advanceTo(clock, 3.0)
    assert [len(one.beats) for one in visitors] == [1, 0, 0]
    assert clock.getDelayedCalls() == []


def test_visitsWithinABeat() -> None:
    """
    A visitor may bring others while it is visited.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    other = Visitor()
    wheel.schedule(Visitor(lambda now: wheel.schedule(other, now + 0.5)), 1.0)
    advanceTo(clock, 2.0)
    assert other.beats == [pytest.approx(1.5)]


def test_visitorThatComesAgain() -> None:
    """
    A beat says when the next shall be, and that is kept for as long as it says so.
    """
    clock = Clock()
    visitor = Visitor(lambda now: now + 0.25 if now < 1.9 else None)
    TimerWheel(clock).schedule(visitor, 0.25)
    advanceTo(clock, 5.0)
    assert visitor.beats == [pytest.approx(0.25 * n) for n in range(1, 9)]
    assert clock.getDelayedCalls() == []


def test_comingAgainAtOnceWaitsForAnotherPoll() -> None:
    """
    A visit in the same instant comes by a delayed call of its own: the reactor polls in between.
    """
    clock = Clock()
    order: list[str] = []

    def then(now: float) -> float | None:
        order.append("beat")
        clock.callLater(0, order.append, "poll")
        return now if order.count("beat") < 3 else None

    TimerWheel(clock).schedule(Visitor(then), 1.0)
    advanceTo(clock, 2.0)
    assert order == ["beat", "poll", "beat", "poll", "beat", "poll"]


def test_visitInThePast() -> None:
    """
    What is overdue when it is asked for comes with the next poll, and is told how late it is.
    """
    clock = Clock()
    clock.advance(10.0)
    [visitor] = visitorsAt(TimerWheel(clock), [4.0])
    clock.advance(0)
    assert visitor.beats == [10.0]
    assert visitor.lateness == [6.0]


def test_latenessOfAStall() -> None:
    """
    After a stall each visitor is told how late it is visited, to within a slot.
    """
    clock = Clock()
    times = [1.0, 1.001, 2.0, 30.0, 61.0]
    visitors = visitorsAt(TimerWheel(clock), times)
    clock.advance(61.0)
    for visitor, when in zip(visitors, times, strict=True):
        [late] = visitor.lateness
        assert 61.0 - when - SLOT <= late <= 61.0 - when


def test_visitorThatFails(loggedErrors: Any) -> None:
    """
    A visitor that raises is logged and visited no more, and takes nothing from the others.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    failing = Visitor(lambda now: 1 / 0)
    others = [Visitor(lambda now: now + 1.0), Visitor(lambda now: now + 1.0)]
    for one in (others[0], failing, others[1]):
        wheel.schedule(one, 1.0)
    advanceTo(clock, 3.5)
    assert len(failing.beats) == 1
    assert [len(one.beats) for one in others] == [3, 3]
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize("wrong", [inf, -inf, nan, "soon", Decimal(2), object()])
def test_visitorThatReturnsNoTime(wrong: Any, loggedErrors: Any) -> None:
    """
    A visitor that returns what is no time is logged and visited no more, and takes nothing from the
    others, whether they come before or after it in its slot, or in later slots of the tick.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    failing = Visitor(lambda now: wrong)
    others = [Visitor(lambda now: now + 1.0) for _ in range(3)]
    for one in (others[0], failing, others[1]):
        wheel.schedule(one, 1.0)
    wheel.schedule(others[2], 1.0 + 2 * SLOT)
    clock.advance(1.5)
    advanceTo(clock, 4.0)
    assert len(failing.beats) == 1
    assert [len(one.beats) for one in others] == [3, 3, 3]
    assert wheel.timerCount == 3
    assert len(loggedErrors.flush()) == 1


def test_verdictsOfOneInstant() -> None:
    """
    Verdicts that follow each other closely belong to one batch; a later one begins another.
    """
    verdicts = TimerWheel(Clock()).shared(VerdictCounter)
    first = verdicts.count(1.0)
    assert verdicts.count(1.05) is first and verdicts.count(1.14) is first
    assert first.links == 3
    second = verdicts.count(1.5)
    assert second is not first
    assert (first.links, second.links) == (3, 1)


class Slotted:
    """
    A clock that has no place for attributes.
    """

    __slots__ = ("seconds", "callLater", "__weakref__")

    def __init__(self, clock: Clock) -> None:
        self.seconds = clock.seconds
        self.callLater = clock.callLater


def test_wheelOfAClockThatKeepsNothing() -> None:
    """
    A clock that has no place for attributes, and one that forwards them, has one wheel.
    """

    class Forwarding(Clock):
        def __setattr__(self, name: str, value: object) -> None:
            if name != "_twistedHeartbeatTimerWheel":
                super().__setattr__(name, value)

    for clock in (Slotted(Clock()), Forwarding()):
        assert timerWheelFor(clock) is timerWheelFor(clock)  # type: ignore[arg-type]
    assert timerWheelFor(Slotted(Clock())) is not timerWheelFor(Slotted(Clock()))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError])
def test_wheelGoesOnAfterAnExit(kind: type[BaseException], loggedErrors: Any) -> None:
    """
    What a visit, a soon call or one at the end of a tick raises is logged, and all others are
    visited.
    """
    clock = Clock()
    wheel = TimerWheel(clock)
    visited: list[str] = []

    class Fails:
        """
        One that fails at its visit.
        """

        slot: Slot | None = None

        def onTimer(self, now: float, lateness: float) -> float | None:
            """
            See L{Timer}.
            """
            raise kind

    class Goes(Fails):
        """
        One that is visited again and again.
        """

        def onTimer(self, now: float, lateness: float) -> float | None:
            """
            See L{Timer}.
            """
            visited.append("again")
            return now + 1

    def call() -> None:
        raise kind

    failing, going = Fails(), Goes()
    wheel.schedule(failing, 1.0)
    wheel.schedule(going, 1.0)
    wheel.callSoon(call)
    wheel.atEndOfTick(call)
    wheel.scheduleRemaining({}, 5.0)
    for _ in range(4):
        clock.advance(1.1)
    assert len(visited) >= 3
    assert len(loggedErrors.flush(kind)) == 3
    wheel.cancel(going)
    assert clock.getDelayedCalls() == []
