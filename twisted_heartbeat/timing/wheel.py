# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TimerWheel}: one delayed call of the reactor that serves thousands of timers.

I{Problem.}  Each link has a timer that is moved at every ping.  C{reactor.callLater} keeps its
calls in a heap: ten thousand links would move ten thousand of its entries in every interval.

I{Idea.}  A hashed timing wheel (Varghese and Lauck, 1987).  Timers lie in slots of 1/64 s.  To
schedule a timer is to append it to the list of a slot, and the wheel has one delayed call, for the
first slot.  The slot that a timer refers to is the one that counts: a timer that moves leaves its
entry in the old slot behind, and the visit passes that over.

I{Invariants.}

  - A timer is never visited early, and at most one slot late, plus what the reactor is late.
  - A timer is visited at most once in a tick.  Between two looks at a silent peer the reactor has
    to poll the peer's socket; otherwise data that has arrived in time would not count.
  - What a visit schedules waits for the next tick, even if it is due.
  - An exception ends the timer or the call that raised it, and nothing else.

I{A tick} visits, in this order: the timers of L{TimerWheel.scheduleRemaining} that are still in
their mapping; all other timers that are due; the calls of L{TimerWheel.atEndOfTick}; at most
L{TimerWheel.CALLS_PER_TICK} calls of L{TimerWheel.callSoon}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..logs import SafeLogger, guarded
from .monotonic import InertClock, MonotonicClock

_log = SafeLogger()

_T = TypeVar("_T")


def reactorStopped(clock: IReactorTime) -> bool:
    """
    Whether the reactor of a clock has stopped for good.  Virtual time has no reactor.
    """
    return isinstance(clock, MonotonicClock) and clock.reactorStopped


class Timer(Protocol):
    """
    An object that the wheel visits.

    @ivar slot: belongs to the wheel; L{None} at first, and while no visit is scheduled.
    """

    slot: Slot | None

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        Do what is due.

        @param lateness: seconds by which the visit is late.
        @return: when to visit this timer next; L{None} for never.
        """


class Slot:
    """
    The timers that are visited together.

    @ivar latest: the latest of their times.  The slot is visited then, so that no timer is visited
        early, and a timer alone in its slot is visited exactly on time.
    @ivar pending: mappings of L{TimerWheel.scheduleRemaining}.
    """

    __slots__ = ("latest", "pending", "timers")

    def __init__(self) -> None:
        self.latest = 0.0
        self.timers: list[Timer] = []
        # One shared object, because few slots have any.
        self.pending: Sequence[Mapping[Any, Any]] = ()


class TimerWheel:
    """
    The timers of one clock.

    @ivar ticking: whether visits are being made.
    @ivar timerCount: timers that are scheduled, those of L{scheduleRemaining} not counted.
    @ivar seconds: tells the time of the clock.
    @ivar tickObservers: called in each tick with the seconds by which it is late.
    """

    PER_SECOND = 64
    """Slots."""

    CALLS_PER_TICK = 4
    """
    Calls of L{callSoon} in one tick.  Such a call ends a link, which runs user code.  A thousand of
    them in one tick would delay the visits of all other timers.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._order: list[int] = []
        self._call: IDelayedCall | None = None
        self._calledFor = 0.0
        self._soon: deque[Callable[[], None]] = deque()
        self._atEnd: list[Callable[[], None]] = []
        self._shared: dict[object, Any] = {}
        self.ticking = False
        self.timerCount = 0
        self.seconds = clock.seconds
        self.tickObservers: tuple[Callable[[float], object], ...] = ()

    def shared(self, kind: Callable[..., _T], *arguments: object) -> _T:
        """
        Return the object of this kind that all users of the wheel share.

        @param kind: makes it from the arguments when it is asked for the first time.
        """
        found: _T | None = self._shared.get(kind)
        if found is None:
            found = self._shared[kind] = kind(*arguments)
        return found

    def schedule(self, timer: Timer, when: float) -> None:
        """
        Visit a timer then, in place of any visit that was scheduled for it before.

        @param when: seconds of the clock.
        """
        slot = self._slotFor(when)
        if timer.slot is not slot:
            if timer.slot is None:
                self.timerCount += 1
            # The entry in the slot that it leaves stays, and is passed over.
            timer.slot = slot
            slot.timers.append(timer)
        if not self.ticking:
            self._setCall()

    def scheduleRemaining(self, pending: Mapping[Any, Timer], when: float) -> None:
        """
        Visit the timers that are values of this mapping at that time.  If the mapping is empty by
        then, no visit is made, and the process is not woken.

        @param when: seconds of the clock.
        """
        slot = self._slotFor(when)
        slot.pending = [*slot.pending, pending]

    def _slotFor(self, when: float) -> Slot:
        number = int(when * self.PER_SECOND)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = Slot()
            heappush(self._order, number)
        if when > slot.latest:
            slot.latest = when
        return slot

    def cancel(self, timer: Timer) -> None:
        """
        Cancel the visit of a timer.  Its entry stays in its slot until the slot is due.
        """
        if timer.slot is None:
            return
        timer.slot = None
        self.timerCount -= 1
        if not self.timerCount and not self.ticking:
            self._setCall()

    def discard(self, timer: Timer) -> None:
        """
        Cancel the visit of a timer, and remove its entry.  This is O(n) in the timers of the slot:
        it is meant for timers that are cancelled soon after they were scheduled, in great numbers,
        which would otherwise stay in memory until they are due.
        """
        slot = timer.slot
        if slot is not None:
            slot.timers.remove(timer)
            if not slot.timers and not slot.pending:
                # Its number stays in the order, and is passed over.
                self._slots.pop(int(slot.latest * self.PER_SECOND), None)
            self.cancel(timer)

    def callSoon(self, call: Callable[[], None]) -> None:
        """
        Call this at the end of this tick or of a later one; the next ticks follow at once.
        """
        self._soon.append(call)
        if not self.ticking:
            self._setCall()

    def atEndOfTick(self, call: Callable[[], None]) -> None:
        """
        Call this when the timers of this tick have been visited.  Outside of a tick: of the next.
        """
        self._atEnd.append(call)

    def _setCall(self) -> None:
        if not self.timerCount:
            self._slots.clear()
            self._order.clear()
        if self._soon:
            when = self._clock.seconds()
        elif self.timerCount:
            when = self._first().latest
        else:
            if self._call is not None:
                call, self._call = self._call, None
                call.cancel()
            return
        delay = max(0.0, when - self._clock.seconds())
        if self._call is None:
            self._call = self._clock.callLater(delay, self._tick)
        elif when != self._calledFor:
            self._call.reset(delay)
        self._calledFor = when

    def _first(self) -> Slot:
        """
        Return the first slot that has a timer to visit.
        """
        while True:
            slot = self._slots.get(self._order[0])
            if slot is not None and (slot.timers or any(slot.pending)):
                return slot
            self._slots.pop(heappop(self._order), None)

    def _tick(self) -> None:
        self._call = None
        now = self._clock.seconds()
        for observer in self.tickObservers:
            guarded(_log, "An observer of the timer wheel failed", observer, now - self._calledFor)
        self.ticking = True
        try:
            # All that are due are taken out first: what a visit schedules waits for the next tick.
            due = []
            while self._order:
                slot = self._slots.get(self._order[0])
                if slot is not None:
                    if slot.latest > now:
                        break
                    due.append(slot)
                self._slots.pop(heappop(self._order), None)
            if any(slot.pending for slot in due):
                self._visitPending(due, now)
            for slot in due:
                self._visit(slot, now)
            calls, self._atEnd = self._atEnd, []
            for call in calls:
                guarded(_log, "A call at the end of a tick failed", call)
            for _ in range(min(len(self._soon), self.CALLS_PER_TICK)):
                guarded(_log, "A call of the timer wheel failed", self._soon.popleft())
        finally:
            # Otherwise one failure would stop all timers.
            self.ticking = False
            self._setCall()

    def _visitPending(self, slots: list[Slot], now: float) -> None:
        """
        Visit what L{scheduleRemaining} asked for.  These come first, and their own visits are
        cancelled; otherwise one of them could be visited twice in this tick.
        """
        remaining = {
            id(timer): (timer, slot.latest)
            for slot in slots
            for pending in slot.pending
            for timer in pending.values()
        }
        for timer, latest in remaining.values():
            self.cancel(timer)
            own = timer.slot = Slot()
            own.latest = latest
            own.timers.append(timer)
            self.timerCount += 1
            self._visit(own, now)

    def _visit(self, slot: Slot, now: float) -> None:
        lateness = now - slot.latest
        # Timers that share a slot mostly share the next one as well.
        number = -1
        following: Slot | None = None
        for timer in slot.timers:
            if timer.slot is not slot:
                continue
            timer.slot = None
            self.timerCount -= 1
            try:
                again = timer.onTimer(now, lateness)
                if again is None:
                    continue
                # What is no time fails here or below: a Decimal, a string; infinity, NaN.
                again += 0.0
                if timer.slot is None and following and int(again * self.PER_SECOND) == number:
                    # As schedule does, without a call.
                    self.timerCount += 1
                    timer.slot = following
                    following.timers.append(timer)
                    if again > following.latest:
                        following.latest = again
                else:
                    self.schedule(timer, again)
                    number, following = int(again * self.PER_SECOND), timer.slot
            except BaseException:
                # A timer that fails must not stop all others.
                _log.failure("{timer} failed, and is not visited again", timer=timer)


class _InertTimerWheel(TimerWheel):
    """
    The timer wheel of L{InertClock}: it makes no visits, and keeps no timers.
    """

    def schedule(self, timer: Timer, when: float) -> None:
        pass

    def callSoon(self, call: Callable[[], None]) -> None:
        pass


_timerWheels: dict[int, tuple[IReactorTime, TimerWheel]] = {}
"""Those of clocks that accept no attribute, by the clock's identity."""


def timerWheelFor(clock: IReactorTime) -> TimerWheel:
    """
    Return the timer wheel of a clock, which is always the same.
    """
    found: TimerWheel | None = getattr(clock, "_twistedHeartbeatTimerWheel", None)
    if found is not None:
        return found
    if id(clock) in _timerWheels:
        return _timerWheels[id(clock)][1]
    made = _InertTimerWheel(clock) if isinstance(clock, InertClock) else TimerWheel(clock)
    with suppress(AttributeError, TypeError):
        clock._twistedHeartbeatTimerWheel = made  # type: ignore[attr-defined]
    if getattr(clock, "_twistedHeartbeatTimerWheel", None) is not made:
        # The clock has no place for attributes, or forwards them to something else.
        _timerWheels[id(clock)] = clock, made
    return made
