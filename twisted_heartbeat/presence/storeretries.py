# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StoreRetries}: the retries of a store that fails; and L{untilDone}, which calls a store so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..logs import WARNING_INTERVAL, SafeLogger
from .store import StoreError

_log = SafeLogger()

_T = TypeVar("_T")

MIN_RETRY_DELAY = 0.5
MAX_RETRY_DELAY = 30.0
"""Seconds before a failed call is tried again; each delay is twice the one before."""


class StoreRetries:
    """
    The delays between the tries of a store that fails, and what the log has of it.

    @ivar isFailing: whether the last try failed.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._delay = 0.0
        self._loggedAt: float | None = None
        self.isFailing = False

    def failed(self, error: BaseException, what: str) -> float:
        """
        Log a failure: the first one, and then one in L{WARNING_INTERVAL}.

        @param what: what could not be done.
        @return: the seconds after which to try again.
        """
        now = self._clock.seconds()
        self.isFailing = True
        self._delay = min(MAX_RETRY_DELAY, max(MIN_RETRY_DELAY, self._delay * 2))
        if isinstance(error, StoreError):
            self._delay = MAX_RETRY_DELAY
        if self._loggedAt is None or now >= self._loggedAt + WARNING_INTERVAL:
            self._loggedAt = now
            _log.critical(
                "The presence store could not {what}: {error}. Presence goes on in memory, and "
                "what is not stored is lost if this process ends",
                what=what,
                error=error,
            )
        return self._delay

    def succeeded(self) -> None:
        """
        Log that the store works again, if it did not.
        """
        self.isFailing = False
        self._delay = 0.0
        if self._loggedAt is not None:
            self._loggedAt = None
            _log.warn("The presence store works again")


async def untilDone(
    clock: IReactorTime,
    call: Callable[[], Deferred[_T]],
    what: str,
    final: type[StoreError] | tuple[()] = StoreError,
) -> _T:
    """
    Call a store until it succeeds.

    @param what: what the call does, for the log.
    @param final: the errors after which it is not called again; they are raised.
    @raise StoreError: if the store cannot be used.
    """
    retries = StoreRetries(clock)
    while True:
        try:
            result = await call()
        except (CancelledError, GeneratorExit):
            raise
        except final:
            raise
        except BaseException as error:
            await deferLater(clock, retries.failed(error, what))
        else:
            retries.succeeded()
            return result
