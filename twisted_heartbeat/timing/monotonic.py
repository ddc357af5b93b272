# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MonotonicClock}: delayed calls in monotonic time.

C{reactor.seconds()} is wall time: a step of the wall clock moves every delayed call of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf, nextafter
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ..logs import SafeLogger
from .alarms import alarmFor

if TYPE_CHECKING:
    from .alarms import Alarm

_log = SafeLogger()

_LONGEST_ALARM = 86400.0
"""
Seconds.  The kernel's timers and the waits of threads have limits.  An alarm for a call that is
later than this rings, finds nothing due, and is set again.
"""


@implementer(IReactorTime)
class MonotonicClock:
    """
    Seconds and delayed calls on one reactor that no step of the system's clock moves.

    The clock holds a descriptor (or a thread) only while a call is pending.  It is
    C{CLOCK_MONOTONIC}, which on Linux stands still while the machine is suspended.  So time in
    suspension ages no link.

    @ivar lateness: seconds by which the call that is being made is late.
    """

    def __init__(self, reactor: Any) -> None:
        self.lateness = 0.0
        self._reactor = reactor
        self._entries: list[tuple[float, int, DelayedCall]] = []
        self._numbers = count()
        self._stale = 0
        self._alarm: Alarm | None = None
        self._alarmedFor = inf
        self._rang = -inf
        self._ringing = False
        self._shutdownBegun = False
        reactor.addSystemEventTrigger("before", "shutdown", self._beginShutdown)

    seconds = staticmethod(monotonic)

    @property
    def reactorStopped(self) -> bool:
        """
        Whether the reactor has stopped for good, and disconnects what is still open.  It still runs
        while it waits for its triggers C{before} the shutdown.
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
        # A call that is added while the clock rings waits for the next ring, and so for the next
        # poll of the reactor.
        when = max(monotonic() + delay, nextafter(self._rang, inf))
        call = DelayedCall(when, callable, args, kw, self._cancelled, self._moved, monotonic)
        heappush(self._entries, (when, next(self._numbers), call))
        self._setAlarm()
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """
        See C{IReactorTime.getDelayedCalls}.
        """
        return list(
            {id(entry[2]): entry[2] for entry in self._entries if _isCurrent(entry)}.values()
        )

    def _cancelled(self, call: DelayedCall) -> None:
        call.cancelled = 1
        self._stale += 1
        self._setAlarm()

    def _moved(self, call: DelayedCall) -> None:
        self._stale += 1
        heappush(self._entries, (call.time, next(self._numbers), call))
        self._setAlarm()

    def _setAlarm(self) -> None:
        if self._ringing:
            return
        if self._stale * 2 > len(self._entries):
            # Stale entries stay in the heap until they are the majority, because the removal of one
            # is O(n), and ten thousand clients may each cancel a connect timeout.
            self._entries = [entry for entry in self._entries if _isCurrent(entry)]
            heapify(self._entries)
            self._stale = 0
        while self._entries and not _isCurrent(self._entries[0]):
            heappop(self._entries)
        if not self._entries:
            self._alarmedFor = inf
            if self._alarm is not None:
                alarm, self._alarm = self._alarm, None
                alarm.close()
            return
        if self._alarm is None:
            self._alarm = alarmFor(self._reactor, self._ring)
        when = self._entries[0][0]
        if when != self._alarmedFor:
            self._alarmedFor = when
            self._alarm.set(min(max(0.0, when - monotonic()), _LONGEST_ALARM))
        else:
            self._alarm.keep()

    def _ring(self) -> None:
        now = self._rang = monotonic()
        self._alarmedFor = inf
        self._ringing = True
        try:
            while self._entries and self._entries[0][0] <= now:
                entry = heappop(self._entries)
                call = entry[2]
                if not _isCurrent(entry):
                    continue
                if call.delayed_time > 0:
                    # It was delayed further meanwhile.
                    call.activate_delay()
                    heappush(self._entries, (call.time, next(self._numbers), call))
                    continue
                self.lateness = now - entry[0]
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except BaseException:
                    # The reactor handles failures of its own calls in the same way.
                    _log.failure("A delayed call failed: {call}", call=call)
                finally:
                    del call.func, call.args, call.kw
        finally:
            self._ringing = False
            self.lateness = 0.0
            self._setAlarm()


@implementer(IReactorTime)
class InertClock:
    """
    Tells the same time as L{MonotonicClock}, and never makes a call.

    It serves links over a transport in memory, as in a unit test of a protocol.  Bytes come there
    only when the test delivers them.  A timer could only declare the test's peer dead, and would
    make the test's reactor dirty.
    """

    seconds = staticmethod(monotonic)

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        Return a call that is never made, and can be cancelled and moved like any other.
        """
        return DelayedCall(monotonic() + delay, callable, args, kw, _ignored, _ignored, monotonic)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """
        See C{IReactorTime.getDelayedCalls}.
        """
        return []


def _ignored(call: DelayedCall) -> None:
    """
    Do nothing when a call that is never made is cancelled or moved.
    """


_INERT = InertClock()


def clockInMemory(clock: IReactorTime) -> IReactorTime:
    """
    Return the clock of a link over a transport in memory.  Virtual time is kept, because a test
    with a clock of its own wants the timers.

    @param clock: the clock that the link would have over another transport.
    """
    return _INERT if isinstance(clock, MonotonicClock) else clock


def _isCurrent(entry: tuple[float, int, DelayedCall]) -> bool:
    """
    Whether the call of an entry has still to be made at the entry's time.
    """
    when, _, call = entry
    return call.time == when and call.active()


def clockFor(reactor: Any = None) -> IReactorTime:
    """
    Return the clock for a reactor: its one monotonic clock, or the clock itself if time is virtual.

    @param reactor: a reactor, or an C{IReactorTime} such as L{twisted.internet.task.Clock}; the
        global reactor if L{None}.  A reactor in memory without time, such as Twisted's
        C{MemoryReactor} for unit tests, has the L{InertClock}.
    """
    if reactor is None:
        from twisted.internet import reactor
    if not isinstance(reactor, ReactorBase):
        return reactor if hasattr(reactor, "callLater") else _INERT
    found: MonotonicClock | None = getattr(reactor, "_twistedHeartbeatClock", None)
    if found is None:
        found = MonotonicClock(reactor)
        reactor._twistedHeartbeatClock = found  # type: ignore[attr-defined]
    return found
