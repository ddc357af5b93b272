# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the table does in the background, with a store that may fail: L{Tasks}, L{untilDone} and
L{StoreTrouble}.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..logs import WARNING_INTERVAL, SafeLogger
from .store import StoreError

_log = SafeLogger()

_T = TypeVar("_T")

MIN_RETRY_DELAY = 0.5
MAX_RETRY_DELAY = 30.0
"""Seconds before a failed call is tried again; each delay is twice the one before."""


class Tasks:
    """
    Coroutines that run until they end, or are cancelled together.
    """

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """
        Run a coroutine, and log it if it fails.
        """
        task = Deferred.fromCoroutine(coroutine)

        def finish(result: object) -> None:
            self._running.discard(task)
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("A task of the presence table failed", result)

        self._running.add(task)
        task.addBoth(finish)

    def cancel(self) -> None:
        """
        Cancel all that run.
        """
        for task in list(self._running):
            task.cancel()


class StoreTrouble:
    """
    The delays between the tries of a store that fails, and what the log has of it.

    @ivar isOn: whether the last try failed.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._delay = 0.0
        self._loggedAt: float | None = None
        self.isOn = False

    def met(self, error: BaseException, what: str) -> float:
        """
        Log a failure: the first one, and then one in L{WARNING_INTERVAL}.

        @param what: what could not be done.
        @return: the seconds after which to try again.
        """
        now = self._clock.seconds()
        self.isOn = True
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

    def over(self) -> None:
        """
        Log that the store works again, if it did not.
        """
        self.isOn = False
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
    trouble = StoreTrouble(clock)
    while True:
        try:
            result = await call()
        except (CancelledError, GeneratorExit):
            raise
        except final:
            raise
        except BaseException as error:
            await deferLater(clock, trouble.met(error, what))
        else:
            trouble.over()
            return result
