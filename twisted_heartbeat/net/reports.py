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
from math import inf
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from ..core.causes import printable, textOf

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


class LogRateLimit:
    """
    Lets one event of a kind into the log in an interval, and counts the others.

    @ivar interval: seconds.
    """

    __slots__ = ("_logged", "interval")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._logged: dict[object, tuple[float, int]] = {}

    def others(self, kind: object, now: float) -> int | None:
        """
        @param kind: of which there may be a few.
        @return: how many events of the kind were left out since the last one that was logged;
            L{None} if this one is to be left out as well.
        """
        since, others = self._logged.get(kind, (-inf, 0))
        if now < since + self.interval:
            self._logged[kind] = since, others + 1
            return None
        self._logged[kind] = now, 0
        return others
