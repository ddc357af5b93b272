# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Tasks}: what the table does in the background.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..logs import SafeLogger

_log = SafeLogger()


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
