# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Calls of the application's coroutines and cancellers.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import NotConnectingError
from twisted.python.failure import Failure

from ..logs import SafeLogger

_log = SafeLogger()


def startPing(coroutine: CoroutineType[Any, Any, Any]) -> Deferred[Any]:
    """
    Run what a ping that is an C{async def} has returned.

    @return: fires with the ping's answer, or its failure.
    @raise BaseException: what the ping raises before it waits for anything, as a plain function
        would.
    """
    answer = Deferred.fromCoroutine(coroutine)
    failures: list[Failure] = []
    if answer.called and isinstance(answer.result, Failure):
        answer.addErrback(failures.append)
        failures[0].raiseException()
    return answer


def cancel(deferred: Deferred[Any]) -> None:
    """
    Cancel a Deferred of the user's, whatever its canceller raises.
    """
    try:
        deferred.cancel()
    except NotConnectingError:
        # The canceller of Twisted's endpoints, once the connection is made.
        pass
    except BaseException:
        _log.failure("A canceller failed")
