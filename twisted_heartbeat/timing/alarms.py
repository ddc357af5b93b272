# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{alarmFor}: wakes the reactor at an instant of monotonic time, by a timerfd, a thread, or a delayed
call.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
    IReadDescriptor,
)
from twisted.python.failure import Failure
from twisted.python.log import Logger
from zope.interface import implementer

from ..logs import SafeLogger, Shortage
from .deadline import cancelCalls

_log = SafeLogger()


class Alarm(Protocol):
    """
    Wakes a reactor at an instant of monotonic time.
    """

    def set(self, delay: float) -> None:
        """Ring once, in C{delay} seconds from now, and not when it was set to ring before."""

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
class _TimerFd(Logger):
    """
    An alarm that is a file descriptor.  Source: timerfd_create(2), Linux 2.6.25.

    C{os.timerfd_create} came with Python 3.13; for older versions the C library is called.

    Trial calls C{reactor.removeAll} after each test class, and reports the readers it removes as
    left behind.  A call that one test leaves behind would dirty every test after it.  Therefore the
    alarm is one of the reactor's internal readers, like its waker.  In a reactor without internal
    readers the alarm is added again whenever it is set.

    What is logged by a call of the clock gets the prefix C{-}, as from a call of the reactor's.
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
        # Adding a reader twice changes nothing, and removeAll does not tell the readers it removes.
        self._internalReaders.add(self)
        self._reactor.addReader(self)

    def set(self, delay: float) -> None:
        self.keep()
        # A value of zero would disarm the timer.
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
            # The alarm was set again after it had rung.
            return
        self._ring()

    def connectionLost(self, reason: Failure) -> None:
        """
        Be a reader again.  The reactor has removed the alarm at its shutdown (C{disconnectAll}), or
        because a call raised, and the pending calls still have to be made.
        """
        if self._descriptor >= 0:
            self.keep()


class _ThreadAlarm:
    """
    An alarm for systems without timerfd: a thread that sleeps on a monotonic condition.

    After C{fork} the child process has only the thread that forked.  An alarm of the parent's would
    never ring in the child, so its thread is started again there.
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
        # Each thread has a condition of its own, because the old one may be locked after a fork.
        self._condition = Condition()
        self._thread = Thread(target=self._run, name="twisted_heartbeat clock", daemon=True)
        self._thread.start()

    @classmethod
    def forked(cls) -> None:
        """
        Start the threads again in a child process.
        """
        for alarm in list(cls._open):
            if not alarm._closed:
                alarm._start()

    def set(self, delay: float) -> None:
        with self._condition:
            self._rings = monotonic() + delay
            self._condition.notify()

    def keep(self) -> None:
        # The reactor has no list of threads from which an alarm could be removed.
        pass

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
    An alarm for a process without a spare descriptor or thread: a delayed call of the reactor.  A
    step of the wall clock moves it.
    """

    def __init__(self, reactor: IReactorTime, ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._call: IDelayedCall | None = None

    def set(self, delay: float) -> None:
        self.close()
        self._call = self._reactor.callLater(delay, self._ring)

    def keep(self) -> None:
        # Trial cancels all calls of the reactor after a test that has left one behind.
        call = self._call
        if call is not None and not call.active():
            self.set(max(0.0, call.getTime() - self._reactor.seconds()))

    def close(self) -> None:
        cancelCalls(self._call)


_noTimerFd = Shortage(_log, "No timerfd ({error}): a thread keeps the time instead", monotonic)
_noThread = Shortage(_log, "No thread ({error}): steps of the wall clock move timers", monotonic)


def alarmFor(reactor: Any, ring: Callable[[], None]) -> Alarm:
    """
    Return the best alarm that the system has to spare for a reactor.

    @param ring: called by the reactor at the instant that was set.
    """
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
