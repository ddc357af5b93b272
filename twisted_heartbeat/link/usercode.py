# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Calls of hooks, pings and cleanups.  What they raise is logged, and ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.error import NotConnectingError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..logs import SafeLogger
from ..timing.deadline import cancelCalls

_log = SafeLogger()


def runHook(
    name: str,
    hook: Callable[..., object],
    *arguments: object,
    failed: Callable[[Failure], None] | None = None,
) -> Deferred[None]:
    """
    Call a hook, and log what it raises.

    @param failed: called with that, once it is logged.
    @return: fires with L{None} when the hook has finished, however it did.
    """

    def logged(failure: Failure) -> None:
        _log.failure("The hook {hook} failed", failure, hook=name)
        if failed is not None:
            failed(failure)

    return maybeDeferred(hook, *arguments).addCallbacks(lambda _: None, logged)


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


def runCleanups(
    steps: Iterable[tuple[str, Callable[[], object]]],
    clock: IReactorTime,
    timeout: float | None,
) -> Deferred[None]:
    """
    Run each step after the other has finished, whatever the others raise.

    @param steps: what each is called, and what it does.
    @param timeout: seconds for all of them.  When they are over, the step under way is cancelled,
        and those that are left are started but not waited for.
    @return: always fires, with L{None}.
    """
    left = iter(steps)
    overdue: list[str] = []
    for name, step in left:
        running = _start(name, step, overdue)
        if not running.called or running.paused:
            return _runSlowly(name, running, left, overdue, clock, timeout)
    return succeed(None)


@inlineCallbacks
def _runSlowly(
    name: str,
    running: Deferred[Any],
    left: Iterator[tuple[str, Callable[[], object]]],
    overdue: list[str],
    clock: IReactorTime,
    timeout: float | None,
) -> Any:
    """
    The same, from the first step on that takes its time.  Apart, because most never do, and a
    thousand links may end at once.
    """
    deadline = None if timeout is None else clock.seconds() + timeout
    while True:
        yield running if deadline is None else _finished(running, name, overdue, clock, deadline)
        following = next(left, None)
        if following is None:
            return
        name, step = following
        running = _start(name, step, overdue)


def _start(name: str, step: Callable[[], object], overdue: list[str]) -> Deferred[Any]:
    """
    @param overdue: the steps that were cancelled, because their time was over.
    """
    return maybeDeferred(step).addErrback(_logStep, name, overdue)


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


def _logStep(failure: Failure, name: str, overdue: list[str]) -> None:
    if name in overdue and failure.check(CancelledError):
        return
    _log.failure("The cleanup {cleanup} failed", failure, cleanup=name)


def _finished(
    running: Deferred[Any], name: str, overdue: list[str], clock: IReactorTime, deadline: float
) -> Deferred[None]:
    """
    Fires when C{running} does, or at the deadline, even if it ignores being cancelled.
    """
    finished: Deferred[None] = Deferred()

    def done(_: object) -> None:
        cancelCalls(timer)
        if not finished.called:
            finished.callback(None)

    def late() -> None:
        _log.error("The cleanup {cleanup} did not finish in time", cleanup=name)
        overdue.append(name)
        cancel(running)
        done(None)

    timer: IDelayedCall | None = None
    running.addCallback(done)
    if not finished.called:
        timer = clock.callLater(max(0.0, deadline - clock.seconds()), late)
    return finished
