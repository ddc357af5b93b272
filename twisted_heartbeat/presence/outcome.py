# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Outcome}: the result of a task, for any number of waiting callers.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Outcome:
    """
    The result of a task, for any number of waiting callers.
    """

    def __init__(self) -> None:
        self._isKnown = False
        self._error: Exception | None = None
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """
        Wait for the outcome.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._isKnown:
            self._tell()
        return waiting

    def succeed(self) -> None:
        """
        The task has succeeded.
        """
        self._isKnown = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """
        The task has failed, or what it has led to is over.
        """
        self._isKnown, self._error = True, error
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if self._error is None:
                each.callback(None)
            else:
                each.errback(self._error)
