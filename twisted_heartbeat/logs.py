# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What user code raises, and warnings that could repeat without end, on their way to the log.

User code (hooks, pings, cleanups, cancellers, protocols, observers of the log) may raise anything,
also C{SystemExit} and the other exceptions that are no C{Exception}.  Twisted's reactor and its
Deferreds log all of them and go on, and so does this package: each call of user code is inside of
L{guarded}, of C{maybeDeferred}, or of an C{except BaseException} that logs the failure.  Otherwise
what one link's code raises would end the watching of all others.
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
"""Seconds between two warnings about one shortage of the machine's."""

STRANGER_INTERVAL = 60.0
"""Seconds between two events of the log about strangers that ended alike."""


class _EscapedFailure(Failure):
    """
    A failure as the log writes it: what an exception says may be what a peer has said.
    """

    @classmethod
    def of(cls, failure: Failure) -> _EscapedFailure:
        """
        The same failure, so that it can still be asked what it is.
        """
        escaped = cls.__new__(cls)
        escaped.__dict__.update(failure.__dict__)
        return escaped

    def getTraceback(self, *arguments: Any, **keywords: Any) -> str:
        written = super().getTraceback(*arguments, **keywords)
        said = safe_str(self.value)
        if "\n" in said:
            # Its lines could pass for events of their own.
            written = written.replace(said, printable(said))
        return "".join(f"{printable(line)}\n" for line in written.split("\n")[:-1])


def _printableField(value: object) -> object:
    """
    A field of an event: itself, unless it would be written with characters that are not printable.
    """
    text = textOf(value)
    return value if text.isprintable() else printable(text)


class SafeLogger(Logger):
    """
    A logger that never raises, and escapes what it writes.  Twisted's lets pass what an
    observer raises that is no C{Exception}, and that would end the work of the caller.
    """

    def emit(self, level: Any, format: str | None = None, **fields: Any) -> None:
        with suppress(BaseException):
            failure = fields.pop("log_failure", None)
            fields = {name: _printableField(value) for name, value in fields.items()}
            if failure is not None:
                fields["log_failure"] = _EscapedFailure.of(failure)
            super().emit(level, format, **fields)


def guarded(
    log: Logger, words: str, call: Callable[..., object], *arguments: object, **fields: Any
) -> BaseException | None:
    """
    Call user code, and log whatever it raises.

    @param words: the format of the log's event.
    @param fields: the event's fields.
    @return: what was raised.
    """
    try:
        call(*arguments)
    except BaseException as error:
        log.failure(words, **fields)
        return error
    return None


class Shortage:
    """
    Warns that the machine is short of something: at once, then once in L{WARNING_INTERVAL}.

    Thousands of links meet one shortage once in each interval, and a line for each would flood the
    log for as long as it lasts.
    """

    def __init__(self, log: Logger, words: str, seconds: Callable[[], float]) -> None:
        """
        @param words: the format of the log's event, with a place for C{error}.
        @param seconds: tells the time.
        """
        self._log = log
        self._words = words
        self._seconds = seconds
        self._warnedAt: float | None = None
        self._unsaid = 0

    def met(self, error: Exception) -> None:
        """
        The machine was short of it.
        """
        now = self._seconds()
        if self._warnedAt is not None and now < self._warnedAt + WARNING_INTERVAL:
            self._unsaid += 1
            return
        unsaid, self._unsaid, self._warnedAt = self._unsaid, 0, now
        words = self._words + (" ({unsaid} times since the last warning)" if unsaid else "")
        self._log.warn(words, error=error, unsaid=unsaid)


class _Wheel(Protocol):
    """
    The pulse of the links, see L{TimerWheel<twisted_heartbeat.timing.wheel.TimerWheel>}.
    """

    def schedule(self, one: Any, when: float) -> None:
        """Call C{one.beat} then."""

    def discard(self, one: Any) -> None:
        """Do not call it any more."""


class _LeftOut:
    """
    Events of one kind that were left out.

    @ivar since: when one of the kind was last logged, in seconds.
    @ivar count: how many have been left out since then.
    @ivar log: logs the last of them, if that is not left to the next event; else L{None}.
    """

    __slots__ = ("count", "log", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.log: Callable[[int], object] | None = None

    def tell(self) -> None:
        """
        Log the last event in place of all that were left out.
        """
        log, others = self.log, self.count - 1
        if log is not None:
            self.count, self.log = 0, None
            log(others)


class LogRateLimit:
    """
    Lets one event of a kind into the log in an interval.

    The others are left out and counted.  When the interval is over, the last of them is logged with
    their number, if the limit is in use; otherwise the next event of the kind tells the number.  A
    limit is in use from L{start} to L{stop}, so that no timer outlives the listening.

    @ivar interval: seconds.
    @ivar slot: the mark of the pulse.
    """

    __slots__ = ("_kinds", "_pulse", "_users", "interval", "slot")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.slot: Any = None
        self._kinds: dict[object, _LeftOut] = {}
        self._pulse: _Wheel | None = None
        self._users = 0

    def start(self) -> None:
        """
        A port begins to listen.
        """
        self._users += 1

    def stop(self) -> None:
        """
        A port has stopped.  With the last one, the limit logs what was left out, and cancels its
        timer.
        """
        self._users = max(0, self._users - 1)
        if not self._users:
            for kind in self._kinds.values():
                kind.tell()
            if self._pulse is not None:
                self._pulse.discard(self)

    def log(self, kind: object, now: float, pulse: _Wheel, log: Callable[[int], object]) -> None:
        """
        Log an event, unless one of its kind was logged less than an interval ago.

        @param kind: of which there may be a few.
        @param log: logs the event.  It takes the number of events of the kind that were left out
            since the last one that was logged.
        """
        found = self._kinds.get(kind)
        if found is None or now >= found.since + self.interval:
            self._kinds[kind] = _LeftOut(now)
            log(0 if found is None else found.count)
            return
        found.count += 1
        if not self._users:
            # The event would be kept, and with it the link, until another of its kind comes.
            return
        found.log = log
        due = found.since + self.interval
        if self.slot is None or due < self.slot.latest:
            self._pulse = pulse
            pulse.schedule(self, due)

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        for kind in self._kinds.values():
            if kind.log is not None and now >= kind.since + self.interval:
                kind.since = now
                kind.tell()
        left = [kind.since for kind in self._kinds.values() if kind.log is not None]
        return min(left) + self.interval if left else None
