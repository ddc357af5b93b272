# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Monotonic time and the pulse.

Twisted's C{reactor.seconds} is wall time, and so are its delayed calls: a step of the system's
clock, as NTP makes on a box without a real-time clock, fires them all at once or freezes them.
L{MonotonicClock} is an C{IReactorTime} that no step moves.

L{Pulse} is the single timer that serves all links of a reactor.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf, nextafter
from threading import Condition, Thread
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
    IReadDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.causes import Fall
from ..core.liveness import Liveness
from ..core.settings import Heartbeat
from ..core.wire import Beats
from .crowd import Crowd
from .deadline import cancelCalls
from .reports import SafeLogger, Shortage, guarded
from .round import AskedRound, Means, Round

_log = SafeLogger()


class _Alarm(Protocol):
    """
    Wakes a reactor at an instant of monotonic time, whatever the wall clock does meanwhile.
    """

    def set(self, delay: float) -> None:
        """Ring in so many seconds, and forget what was set before."""

    def keep(self) -> None:
        """Ring as was set, also if the alarm was removed from the reactor."""

    def close(self) -> None:
        """Never ring again."""


class _ITimerSpec(ctypes.Structure):
    """
    C{struct itimerspec}, timerfd_create(2).
    """

    _fields_ = [
        ("intervalSeconds", ctypes.c_long),
        ("intervalNanoseconds", ctypes.c_long),
        ("valueSeconds", ctypes.c_long),
        ("valueNanoseconds", ctypes.c_long),
    ]


_CLOCK_MONOTONIC = 1


@implementer(IReadDescriptor)
class _TimerFd:
    """
    An alarm that is a file descriptor.  Source: timerfd_create(2), Linux 2.6.25.

    C{os.timerfd_create} is Python 3.13's; until then the C library is called by its name.

    C{reactor.removeAll}, which trial calls after each test class, takes readers out of the reactor,
    and trial blames the test for them.  A call that one test has left would so dirty every test
    after it.  Therefore this is one of the reactor's internal readers, as its waker is.  Where a
    reactor has none, it is put back whenever a call is set.
    """

    def __init__(self, reactor: IReactorFDSet, ring: Callable[[], None]) -> None:
        """
        @raise OSError: if the system has no descriptor to spare.
        @raise AttributeError: if the C library has no such call.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._settime = self._libc.timerfd_settime
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, flags)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._ring = ring
        self._reactor = reactor
        self._internalReaders: set[Any] = getattr(reactor, "_internalReaders", set())
        try:
            self.keep()
        except BaseException:
            os.close(self._descriptor)
            raise

    def keep(self) -> None:
        # Adding a reader again changes nothing, and removeAll says nothing to those it removes.
        self._internalReaders.add(self)
        self._reactor.addReader(self)

    def set(self, delay: float) -> None:
        self.keep()
        # A value of zero would disarm it.
        nanoseconds = max(1, int(delay * 1e9))
        spec = _ITimerSpec(0, 0, *divmod(nanoseconds, 1_000_000_000))
        if self._settime(self._descriptor, 0, ctypes.byref(spec), None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        self._internalReaders.discard(self)
        self._reactor.removeReader(self)
        os.close(self._descriptor)
        self._descriptor = -1

    def fileno(self) -> int:
        return int(self._descriptor)

    def doRead(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            # It was set anew after it had rung.
            return
        self._ring()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has removed it: at its shutdown, by C{disconnectAll}, or because something was
        raised while it rang.  The calls that are pending still have to be made.
        """
        if self._descriptor >= 0:
            self.keep()

    def logPrefix(self) -> str:
        return "twisted_heartbeat clock"


class _ThreadAlarm:
    """
    An alarm for every other system: a thread that sleeps on a monotonic condition.

    A child process made by C{fork} has no thread but the one that forked, so that an alarm of the
    parent's never rings there unless its thread is started again.
    """

    _open: WeakSet[_ThreadAlarm] = WeakSet()

    def __init__(self, reactor: IReactorFromThreads, ring: Callable[[], None]) -> None:
        """
        @raise RuntimeError: if the system has no thread to spare.
        """
        self._reactor = reactor
        self._ring = ring
        self._rings: float | None = None
        self._closed = False
        self._start()
        self._open.add(self)

    def _start(self) -> None:
        # A condition of its own for each thread: after a fork the old one may be locked for ever.
        self._condition = Condition()
        self._thread = Thread(target=self._run, name="twisted_heartbeat clock", daemon=True)
        self._thread.start()

    @classmethod
    def forked(cls) -> None:
        """
        Start the threads again, in a child process.
        """
        for alarm in list(cls._open):
            if not alarm._closed:
                alarm._start()

    def set(self, delay: float) -> None:
        with self._condition:
            self._rings = monotonic() + delay
            self._condition.notify()

    def keep(self) -> None:
        """
        Nothing to do: the reactor has no list of threads to remove it from.
        """

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._condition:
            while not self._closed:
                if self._rings is None:
                    self._condition.wait()
                elif (delay := self._rings - monotonic()) > 0:
                    self._condition.wait(delay)
                else:
                    self._rings = None
                    self._reactor.callFromThread(self._ringUnlessClosed)

    def _ringUnlessClosed(self) -> None:
        if not self._closed:
            self._ring()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ThreadAlarm.forked)


class _CallAlarm:
    """
    An alarm for a process that has neither a descriptor nor a thread left: one of the reactor's own
    delayed calls.  A step of the wall clock moves it.
    """

    def __init__(self, reactor: IReactorTime, ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._call: IDelayedCall | None = None

    def set(self, delay: float) -> None:
        self.close()
        self._call = self._reactor.callLater(delay, self._ring)

    def keep(self) -> None:
        """
        Nothing to do: a cancelled call is one that was not wanted.
        """

    def close(self) -> None:
        cancelCalls(self._call)


_noTimerFd = Shortage(_log, "No timerfd ({error}): a thread keeps the time instead", monotonic)
_noThread = Shortage(_log, "No thread ({error}): steps of the wall clock move timers", monotonic)


def _alarmFor(reactor: Any, ring: Callable[[], None]) -> _Alarm:
    if sys.platform.startswith("linux") and IReactorFDSet.providedBy(reactor):
        try:
            return _TimerFd(reactor, ring)
        except (OSError, AttributeError) as error:
            _noTimerFd.met(error)
    try:
        return _ThreadAlarm(reactor, ring)
    except RuntimeError as error:
        _noThread.met(error)
    return _CallAlarm(reactor, ring)


@implementer(IReactorTime)
class MonotonicClock:
    """
    Seconds and delayed calls that no step of the system's clock moves, on one reactor.

    It holds a descriptor (or a thread) only while a call is pending.

    The clock is C{CLOCK_MONOTONIC}: on Linux it stands still while the box is suspended, so a
    suspended box finds its links as old as it left them.

    @ivar lateness: seconds by which the call that is being made comes late.
    """

    def __init__(self, reactor: Any) -> None:
        self.lateness = 0.0
        self._reactor = reactor
        self._entries: list[tuple[float, int, DelayedCall]] = []
        self._numbers = count()
        self._passedOver = 0
        self._alarm: _Alarm | None = None
        self._alarmedFor = inf
        self._rang = -inf
        self._ringing = False
        self._shutdownBegun = False
        reactor.addSystemEventTrigger("before", "shutdown", self._beginShutdown)

    seconds = staticmethod(monotonic)

    @property
    def reactorStopped(self) -> bool:
        """
        Whether the reactor has stopped for good, and disconnects what is still open.  While its
        triggers C{before} the shutdown are waited for, it still runs.
        """
        return self._shutdownBegun and not self._reactor.running

    def _beginShutdown(self) -> None:
        self._shutdownBegun = True

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        See C{IReactorTime.callLater}.  A call with a delay of 0 runs after the reactor has polled
        its descriptors once more.

        @raise ValueError: if the delay is negative, or not finite.
        """
        if not 0 <= delay < inf:
            raise ValueError(
                f"callLater({delay!r}): the delay must be 0 seconds or more, and finite"
            )
        # What is added while the clock rings waits for the next ring, and so for the next poll.
        when = max(monotonic() + delay, nextafter(self._rang, inf))
        call = DelayedCall(when, callable, args, kw, self._cancelled, self._moved, monotonic)
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """
        See C{IReactorTime.getDelayedCalls}.
        """
        return list({id(entry[2]): entry[2] for entry in self._entries if _holds(entry)}.values())

    def _push(self, call: DelayedCall) -> None:
        heappush(self._entries, (call.time, next(self._numbers), call))
        self._setAlarm()

    def _cancelled(self, call: DelayedCall) -> None:
        call.cancelled = 1
        self._passOver()
        self._setAlarm()

    def _moved(self, call: DelayedCall) -> None:
        self._passOver()
        self._push(call)

    def _passOver(self) -> None:
        """
        An entry holds no longer.  It stays where it is until most of them are such, for to take one
        out costs as much as all: ten thousand clients have as many attempts to give a limit.
        """
        self._passedOver += 1
        if self._passedOver * 2 > len(self._entries):
            self._entries = [entry for entry in self._entries if _holds(entry)]
            heapify(self._entries)
            self._passedOver = 0

    def _setAlarm(self) -> None:
        if self._ringing:
            return
        while self._entries and not _holds(self._entries[0]):
            heappop(self._entries)
        if not self._entries:
            self._alarmedFor = inf
            if self._alarm is not None:
                alarm, self._alarm = self._alarm, None
                alarm.close()
            return
        if self._alarm is None:
            self._alarm = _alarmFor(self._reactor, self._ring)
        when = self._entries[0][0]
        if when != self._alarmedFor:
            self._alarmedFor = when
            self._alarm.set(max(0.0, when - monotonic()))
        else:
            self._alarm.keep()

    def _ring(self) -> None:
        now = self._rang = monotonic()
        self._alarmedFor = inf
        self._ringing = True
        try:
            while self._entries and self._entries[0][0] <= now:
                self._fall(heappop(self._entries))
        finally:
            self._ringing = False
            self.lateness = 0.0
            self._setAlarm()

    def _fall(self, entry: tuple[float, int, DelayedCall]) -> None:
        """
        The time of an entry has come.
        """
        call = entry[2]
        if not _holds(entry):
            return
        if call.delayed_time > 0:
            call.activate_delay()
            self._push(call)
        else:
            self.lateness = self._rang - entry[0]
            self._run(call)

    def _run(self, call: DelayedCall) -> None:
        call.called = 1
        try:
            call.func(*call.args, **call.kw)
        except BaseException:
            # As the reactor does with its own calls.
            _log.failure("A delayed call failed: {call}", call=call)
        finally:
            del call.func, call.args, call.kw


@implementer(IReactorTime)
class UntimedClock:
    """
    Tells the same time as L{MonotonicClock}, and never makes a call.

    It serves the links over a transport in memory, as in a unit test of a protocol.  Nothing is
    received there unless the test delivers it, so that a timer could only find the test's peer
    dead, and would make the test's reactor dirty.
    """

    seconds = staticmethod(monotonic)

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        See C{IReactorTime.callLater}.

        @return: a call that can be cancelled and moved like any other.
        """
        return DelayedCall(monotonic() + delay, callable, args, kw, _ignored, _ignored, monotonic)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """
        See C{IReactorTime.getDelayedCalls}.
        """
        return []


def _ignored(call: DelayedCall) -> None:
    """
    Called when a call that is never made was cancelled or moved.
    """


_UNTIMED = UntimedClock()


def untimed(clock: IReactorTime) -> IReactorTime:
    """
    The clock of a link over a transport in memory.  Virtual time stays: a test that brings a clock
    of its own wants the timers.

    @param clock: the clock that the link would have elsewhere.
    """
    return _UNTIMED if isinstance(clock, MonotonicClock) else clock


def reactorStopped(clock: IReactorTime) -> bool:
    """
    Whether the reactor of a clock has stopped for good.  Virtual time has no reactor.
    """
    return isinstance(clock, MonotonicClock) and clock.reactorStopped


def _holds(entry: tuple[float, int, DelayedCall]) -> bool:
    """
    Whether the call of an entry is still to be made at its time.
    """
    when, _, call = entry
    return call.time == when and call.active()


def clockFor(reactor: Any = None) -> IReactorTime:
    """
    The clock for a reactor: its one monotonic clock, or the thing itself when time is virtual.

    @param reactor: a reactor, or an C{IReactorTime} such as L{twisted.internet.task.Clock}; the
        global reactor if L{None}.
    """
    if reactor is None:
        from twisted.internet import reactor
    if not isinstance(reactor, ReactorBase):
        return reactor  # type: ignore[no-any-return]
    found: MonotonicClock | None = getattr(reactor, "_twistedHeartbeatClock", None)
    if found is None:
        found = MonotonicClock(reactor)
        reactor._twistedHeartbeatClock = found  # type: ignore[attr-defined]
    return found


class Beating(Protocol):
    """
    What the pulse visits.

    @ivar slot: the pulse's own mark; L{None} to begin with.
    """

    slot: Slot | None

    def beat(self, now: float, lateness: float) -> float | None:
        """
        Do what is due.

        @param lateness: seconds by which the visit comes late.
        @return: when to come again; L{None} for never.
        """


class Slot:
    """
    The visits that fall together.

    @ivar latest: the latest of their times: when it comes, all of them are due, so that one alone
        is visited on its exact instant, and none is ever visited early.
    @ivar unless: those that are visited as well, unless they have been taken out by then.
    """

    __slots__ = ("latest", "unless", "visits")

    def __init__(self) -> None:
        self.latest = 0.0
        self.visits: list[Beating] = []
        # Few have any.
        self.unless: Sequence[dict[Any, Any]] = ()


class Pulse:
    """
    The single timer that serves all links of a reactor.

    Visits are kept in slots of 1/64 s, so that setting one costs a list's append and ten thousand
    of them cost one delayed call; a visit comes at most one slot late.

    @ivar ticking: whether visits are being made.
    """

    PER_SECOND = 64

    ERRANDS_A_TICK = 4
    """
    What a tick has to end takes long, for it ends in user code.  A thousand ends in one tick would
    keep the others from being looked at on their instants.
    """

    FEW = 32
    """
    So many visits are no crowd: by itself, each link has its process wake once in an interval, and
    a crowd has it wake four times.
    """

    TOGETHER = 0.1
    """Seconds: verdicts that follow each other closer than this belong to one fall."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._order: list[int] = []
        self._members = 0
        self._call: IDelayedCall | None = None
        self._calledFor = 0.0
        self.ticking = False
        self.seconds = clock.seconds
        self._rounds: list[Round] = []
        self._crowds: dict[int, Crowd] = {}
        self._errands: deque[Callable[[], None]] = deque()
        self._fall = Fall()
        self._fell = -inf

    def visit(self, one: Beating, when: float) -> None:
        """
        Visit it then, and not when it was to be visited before.
        """
        slot = self._slotFor(when)
        if one.slot is not slot:
            if one.slot is None:
                self._members += 1
            # Its place in the slot that it leaves stays, and is passed over.
            one.slot = slot
            slot.visits.append(one)
        if not self.ticking:
            self._setCall()

    def _slotFor(self, when: float) -> Slot:
        number = int(when * self.PER_SECOND)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = Slot()
            heappush(self._order, number)
        if when > slot.latest:
            slot.latest = when
        return slot

    def leave(self, one: Beating) -> None:
        """
        Do not visit it any more.
        """
        if one.slot is None:
            return
        one.slot = None
        self._members -= 1
        if not self._members and not self.ticking:
            self._setCall()

    def forget(self, one: Beating) -> None:
        """
        As L{leave}, and keep neither it nor an empty slot until that is due.  That is a look
        through the slot: for those who leave soon, and so find few there.
        """
        slot = one.slot
        if slot is not None:
            slot.visits.remove(one)
            if not slot.visits and not slot.unless:
                # Its number stays in the order, and is passed over.
                self._slots.pop(int(slot.latest * self.PER_SECOND), None)
            self.leave(one)

    def soon(self, errand: Callable[[], None]) -> None:
        """
        Call it at the end of this tick or of one of the next, which follow at once.
        """
        self._errands.append(errand)
        if not self.ticking:
            self._setCall()

    def begin(self, round: Round, suspicious: float) -> None:
        """
        Have a round send its pings at the end of the tick that is under way, one right after the
        other: a machine that is woken by the first of many packets is awake for the next.

        @param suspicious: when to visit those who wait then.
        """
        self._rounds.append(round)
        slot = self._slotFor(suspicious)
        slot.unless = [*slot.unless, round.waiting]

    def roundLike(self, means: Means, heartbeat: Heartbeat, due: float) -> Round | None:
        """
        The round of this tick for those who were due about then, if there is one.

        @param means: what they ping with: one object for all of them.
        """
        for round in self._rounds:
            alike = round.means is means and round.heartbeat is heartbeat
            if alike and abs(round.due - due) * self.PER_SECOND <= 1:
                return round
        return None

    def roundFor(self, means: Means, heartbeat: Heartbeat, due: float, askedAt: float) -> Round:
        """
        The same, or a new one.

        @param askedAt: when they are asked, if that is late; else when they had to be, at the
            latest.
        """
        round = self.roundLike(means, heartbeat, due)
        if round is None:
            kind = Round if isinstance(means, Beats) else AskedRound
            round = kind(self, means, heartbeat, due, askedAt)
        # A round has no bound but that of each.
        round.askedAt = min(round.askedAt, askedAt)
        if round.slot is None:
            # It is new, or all have left it since.
            self.visit(round, round.again)
        return round

    def crowdFor(self, heartbeat: Heartbeat, now: float) -> Crowd | None:
        """
        The crowd for those who are watched so, and have just spoken; L{None} if there is none, and
        they are but few.
        """
        # Not by its value, which takes long to hash.
        crowd = self._crowds.get(id(heartbeat))
        if crowd is None or crowd.slot is None:
            if self._members < self.FEW:
                return None
            # Those that are empty are visited no more.
            self._crowds = {at: one for at, one in self._crowds.items() if one.slot is not None}
            crowd = self._crowds[id(heartbeat)] = Crowd(heartbeat, now)
            self.visit(crowd, crowd.due)
        return crowd

    def leaveCrowd(self, heartbeat: Heartbeat, liveness: Liveness) -> bool:
        """
        @return: whether it was in one.
        """
        crowd = self._crowds.get(id(heartbeat))
        if crowd is None or not crowd.leave(liveness):
            return False
        if crowd.empty:
            self.leave(crowd)
        return True

    def fall(self, now: float) -> Fall:
        """
        The fall that a verdict of this instant belongs to.
        """
        if now - self._fell > self.TOGETHER:
            self._fall = Fall()
        self._fell = now
        self._fall.links += 1
        return self._fall

    def _setCall(self) -> None:
        if not self._members:
            self._slots.clear()
            self._order.clear()
        if self._errands:
            when = self._clock.seconds()
        elif self._members:
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
        The first slot that has somebody to be visited.
        """
        while True:
            slot = self._slots.get(self._order[0])
            if slot is not None and (slot.visits or any(slot.unless)):
                return slot
            self._slots.pop(heappop(self._order), None)

    def _tick(self) -> None:
        self._call = None
        now = self._clock.seconds()
        self.ticking = True
        try:
            # All that are due, and before any is worked off: what that adds waits for the next
            # tick.
            due = self._due(now)
            self._visitLeft(due, now)
            for slot in due:
                self._visit(slot, now)
            self._post()
            for _ in range(min(len(self._errands), self.ERRANDS_A_TICK)):
                guarded(_log, "An errand of the pulse failed", self._errands.popleft())
        finally:
            # The links that are left have to be visited even if something has failed.
            self.ticking = False
            self._setCall()

    def _post(self) -> None:
        rounds, self._rounds = self._rounds, []
        for round in rounds:
            try:
                round.post()
            except BaseException:
                _log.failure("A round of pings failed")

    def _due(self, now: float) -> list[Slot]:
        due = []
        while self._order:
            slot = self._slots.get(self._order[0])
            if slot is not None:
                if slot.latest > now:
                    break
                due.append(slot)
            self._slots.pop(heappop(self._order), None)
        return due

    def _visitLeft(self, slots: list[Slot], now: float) -> None:
        """
        They come before all others, and so are not among these: none may be visited twice in one
        tick, for between two looks at a silent peer its socket has to be polled.
        """
        left = {
            id(one): (one, slot.latest)
            for slot in slots
            for some in slot.unless
            for one in some.values()
        }
        for one, latest in left.values():
            self.leave(one)
            own = one.slot = Slot()
            own.latest = latest
            own.visits.append(one)
            self._members += 1
            self._visit(own, now)

    def _visit(self, slot: Slot, now: float) -> None:
        lateness = now - slot.latest
        # Those who share a slot mostly share the next one as well.
        number = -1
        following: Slot | None = None
        for one in slot.visits:
            if one.slot is not slot:
                continue
            one.slot = None
            self._members -= 1
            try:
                again = one.beat(now, lateness)
            except BaseException:
                # One that fails must not take the pulse from all others.
                words = "{one} failed at its beat, and is not visited again"
                _log.failure(words, one=one)
                continue
            if again is None:
                continue
            if one.slot is None and following and int(again * self.PER_SECOND) == number:
                # As visit does.
                self._members += 1
                one.slot = following
                following.visits.append(one)
                if again > following.latest:
                    following.latest = again
            else:
                self.visit(one, again)
                number, following = int(again * self.PER_SECOND), one.slot


class _StillPulse(Pulse):
    """
    The pulse of L{UntimedClock}: it visits nothing, and keeps nothing of what asks for a visit.
    """

    def visit(self, one: Beating, when: float) -> None:
        pass

    def soon(self, errand: Callable[[], None]) -> None:
        pass


_pulses: dict[int, tuple[IReactorTime, Pulse]] = {}
"""Those of clocks that keep no attribute, by the clock's identity."""


def pulseFor(clock: IReactorTime) -> Pulse:
    """
    The one pulse of a clock.
    """
    found: Pulse | None = getattr(clock, "_twistedHeartbeatPulse", None)
    if found is not None:
        return found
    if id(clock) in _pulses:
        return _pulses[id(clock)][1]
    made = _StillPulse(clock) if isinstance(clock, UntimedClock) else Pulse(clock)
    with suppress(AttributeError, TypeError):
        clock._twistedHeartbeatPulse = made  # type: ignore[attr-defined]
    if getattr(clock, "_twistedHeartbeatPulse", None) is not made:
        # The clock has no place for attributes, or forwards them to something else.
        _pulses[id(clock)] = clock, made
    return made
