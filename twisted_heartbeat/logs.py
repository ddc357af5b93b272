# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The package's logger, calls of user code, and limits on events that could repeat without end.

User code (hooks, pings, cleanups, cancellers, protocols, observers of the log) may raise anything,
also C{SystemExit} and the other exceptions that are no C{Exception}.  Twisted's reactor and its
Deferreds log all of them and go on, and so does this package: each call of user code is inside of
L{guarded}, of C{maybeDeferred}, or of an C{except BaseException} that logs the failure.  Otherwise
an exception in the code of one link would end the watching of all others.

What a peer says reaches the log in names, addresses and exceptions.  L{SafeLogger} escapes control
and bidirectional characters in all of them, so that a peer cannot forge events.

A peer, or a machine that is short of something, can cause one event thousands of times a second.
L{LogRateLimit}, L{Shortage} and L{RepeatedFailures} let the first one into the log, count the
others, and tell their number later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from .core.text import printable, textOf

WARNING_INTERVAL = 60.0
"""Seconds between two warnings of one L{Shortage}."""

STRANGER_INTERVAL = 60.0
"""Seconds between two events of the log about strangers that ended for the same cause."""


class _EscapedFailure(Failure):
    """
    A failure whose traceback is escaped: the text of an exception may hold a peer's words.
    """

    @classmethod
    def of(cls, failure: Failure) -> _EscapedFailure:
        """
        Return a copy of a failure.  Observers can still ask for its type and its value.
        """
        escaped = cls.__new__(cls)
        escaped.__dict__.update(failure.__dict__)
        return escaped

    def getTraceback(self, *arguments: Any, **keywords: Any) -> str:
        traceback = super().getTraceback(*arguments, **keywords)
        text = safe_str(self.value)
        if "\n" in text:
            # As lines of their own they could be taken for events.
            traceback = traceback.replace(text, printable(text))
        return "".join(f"{printable(line)}\n" for line in traceback.split("\n")[:-1])


class SafeLogger(Logger):
    """
    A logger that never raises, and escapes what it writes.

    Twisted's logger handles an C{Exception} of an observer.  Any other exception, such as
    C{SystemExit}, it passes to its caller, whose work would end there.
    """

    def emit(self, level: Any, format: str | None = None, **fields: Any) -> None:
        with suppress(BaseException):
            failure = fields.pop("log_failure", None)
            for name, value in fields.items():
                text = textOf(value)
                if not text.isprintable():
                    fields[name] = printable(text)
            if failure is not None:
                fields["log_failure"] = _EscapedFailure.of(failure)
            super().emit(level, format, **fields)


def guarded(
    log: Logger, words: str, call: Callable[..., object], *arguments: object, **fields: Any
) -> BaseException | None:
    """
    Call user code, and log what it raises.

    @param words: the format of the log's event.
    @param fields: the event's fields.
    @return: the exception; L{None} without one.
    """
    try:
        call(*arguments)
    except BaseException as error:
        log.failure(words, **fields)
        return error
    return None


class _Recurring:
    """
    Something that occurs again and again.  It is logged at once, then once in
    L{WARNING_INTERVAL}, and at once where it is another than the last.
    """

    _event = "event"

    def __init__(self, log: Logger, words: str, seconds: Callable[[], float]) -> None:
        """
        @param words: the format of the log's event.
        @param seconds: tells the time.
        """
        self._log = log
        self._words = words
        self._seconds = seconds
        self._last: str | None = None
        self._loggedAt = 0.0
        self._unsaid = 0

    def _occurred(self, what: str) -> tuple[str, int] | None:
        """
        @return: the format of the event to log, and the number of those that were left out since
            the last one; L{None} if this one is left out.
        """
        now = self._seconds()
        if what == self._last and now < self._loggedAt + WARNING_INTERVAL:
            self._unsaid += 1
            return None
        unsaid, self._unsaid, self._loggedAt, self._last = self._unsaid, 0, now, what
        note = f" ({{unsaid}} times since the last {self._event})" if unsaid else ""
        return self._words + note, unsaid


class Shortage(_Recurring):
    """
    A warning that the machine is short of something, such as file descriptors.  Its format has a
    place for C{error}, and all errors count as the same shortage.

    Thousands of links meet the same shortage in each interval.  A warning for each would flood the
    log for as long as the shortage lasts.
    """

    _event = "warning"

    def met(self, error: object) -> None:
        """
        Warn, or count a warning that is left out.
        """
        event = self._occurred("")
        if event is not None:
            words, unsaid = event
            self._log.warn(words, error=error, unsaid=unsaid)


class RepeatedFailures(_Recurring):
    """
    The failures of a call that is made again and again, such as a function of the user's for each
    heartbeat.
    """

    def failed(self, error: BaseException, **fields: Any) -> None:
        """
        Log an exception that is being handled, or count it.

        @param fields: the event's fields.
        """
        event = self._occurred(f"{type(error).__name__}: {textOf(error)}")
        if event is not None:
            words, unsaid = event
            self._log.failure(words, unsaid=unsaid, **fields)


class _Wheel(Protocol):
    """
    What a limit needs of L{TimerWheel<twisted_heartbeat.timing.wheel.TimerWheel>}, which is above
    this module.
    """

    def schedule(self, timer: Any, when: float, /) -> None:
        """Call C{timer.onTimer} at that time."""

    def discard(self, timer: Any, /) -> None:
        """Cancel it."""


class _Suppressed:
    """
    Events of one kind that were suppressed.

    @ivar since: when an event of the kind was last logged, in seconds.
    @ivar count: the number of events that were suppressed since then.
    @ivar logLast: logs the last of them; L{None} if the next event of the kind tells their number.
    """

    __slots__ = ("count", "logLast", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.logLast: Callable[[int], object] | None = None

    def tell(self) -> None:
        """
        Log the last event, with the number of the others.
        """
        logLast, others = self.logLast, self.count - 1
        if logLast is not None:
            self.count, self.logLast = 0, None
            logLast(others)


class LogRateLimit:
    """
    A limit of one event of each kind per interval.

    The first event of a kind is logged at once.  Events that follow within the interval are
    suppressed and counted.  What happens then depends on whether the limit is in use, which it is
    from L{start} to L{stop}:

     - in use, a timer logs the last event at the end of the interval, with the number of the
       others;
     - otherwise the next event of the kind tells their number.  A timer would outlive the port.

    @ivar interval: seconds.
    @ivar slot: belongs to the timer wheel.
    """

    __slots__ = ("_kinds", "_users", "_wheel", "interval", "slot")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.slot: Any = None
        self._kinds: dict[object, _Suppressed] = {}
        self._wheel: _Wheel | None = None
        self._users = 0

    def start(self) -> None:
        """
        Note that a port begins to listen.
        """
        self._users += 1

    def stop(self) -> None:
        """
        Note that a port has stopped.  After the last port, log what was suppressed, and cancel the
        timer.
        """
        self._users = max(0, self._users - 1)
        if not self._users:
            for kind in self._kinds.values():
                kind.tell()
            if self._wheel is not None:
                self._wheel.discard(self)

    def log(self, kind: object, now: float, wheel: _Wheel, log: Callable[[int], object]) -> None:
        """
        Log an event, unless an event of its kind was logged less than an interval ago.

        @param kind: each kind is kept, so that there must not be many.
        @param log: logs the event.  It takes the number of events of the kind that were suppressed
            since the last one that was logged.
        """
        found = self._kinds.get(kind)
        if found is None or now >= found.since + self.interval:
            self._kinds[kind] = _Suppressed(now)
            log(0 if found is None else found.count)
            return
        found.count += 1
        if not self._users:
            # The event holds its link, and nothing would ever let go of it.
            return
        found.logLast = log
        due = found.since + self.interval
        if self.slot is None or due < self.slot.latest:
            self._wheel = wheel
            wheel.schedule(self, due)

    def onTimer(self, now: float, lateness: float) -> float | None:
        for kind in self._kinds.values():
            if kind.logLast is not None and now >= kind.since + self.interval:
                kind.since = now
                kind.tell()
        waiting = [kind.since for kind in self._kinds.values() if kind.logLast is not None]
        return min(waiting) + self.interval if waiting else None
