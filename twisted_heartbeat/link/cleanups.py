# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The cleanups of a link: what is called once when the link has ended.

Cleanups run one after the other.  What one of them raises is logged, and the next one runs.  They
have C{Limits.cleanupTimeout} together, and each may have a shorter timeout of its own.  A cleanup
whose time is over is cancelled.  Once the common time is over, the cleanups that are left are
called, but not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..logs import SafeLogger
from ..timing.deadline import cancelCalls
from .usercode import cancel

if TYPE_CHECKING:
    from .link import Link

_log = SafeLogger()

_inCleanup: ContextVar[Link | None] = ContextVar("_inCleanup", default=None)


def linkInCleanup() -> Link | None:
    """
    Return the link whose C{disconnected} hook or cleanup calls this, also after it has awaited
    something.

    @return: L{None} if none does, or its cleanups have run.
    """
    link = _inCleanup.get()
    return None if link is None or link.cleaned else link


class Cleanup(NamedTuple):
    """
    One call at the end of a link.

    @ivar name: what the log calls it.
    @ivar call: may return a Deferred or a coroutine.
    @ivar timeout: seconds that it may take; L{None} for no limit but that of all.
    """

    name: str
    call: Callable[[], object]
    timeout: float | None = None


def runCleanups(
    cleanups: Iterable[Cleanup],
    clock: IReactorTime,
    timeout: float | None,
    link: Link | None = None,
) -> Deferred[None]:
    """
    Run each cleanup after the other has finished.

    @param timeout: seconds for all of them; L{None} for no limit.
    @param link: what L{linkInCleanup} returns in a cleanup.
    @return: always fires, with L{None}.
    """
    left = iter(cleanups)
    overdue: set[Cleanup] = set()
    token = _inCleanup.set(link)
    try:
        for cleanup in left:
            running = maybeDeferred(cleanup.call).addErrback(_failed, cleanup, overdue)
            if not running.called or running.paused:
                return _runSlowly(cleanup, running, left, overdue, clock, timeout)
    finally:
        _inCleanup.reset(token)
    return succeed(None)


@inlineCallbacks
def _runSlowly(
    cleanup: Cleanup,
    running: Deferred[Any],
    left: Iterator[Cleanup],
    overdue: set[Cleanup],
    clock: IReactorTime,
    timeout: float | None,
) -> Any:
    """
    Run the cleanups from the first one on that does not finish at once.  It is apart from
    L{runCleanups}, because most do, and a thousand links may end at once.
    """
    deadline = None if timeout is None else clock.seconds() + timeout
    while True:
        limits = [] if cleanup.timeout is None else [cleanup.timeout]
        if deadline is not None:
            limits.append(max(0.0, deadline - clock.seconds()))
        yield _finished(running, cleanup, overdue, clock, min(limits)) if limits else running
        following = next(left, None)
        if following is None:
            return
        cleanup = following
        running = maybeDeferred(cleanup.call).addErrback(_failed, cleanup, overdue)


def _failed(failure: Failure, cleanup: Cleanup, overdue: set[Cleanup]) -> None:
    """
    @param overdue: the cleanups that were cancelled because their time was over.
    """
    if cleanup not in overdue or not failure.check(CancelledError):
        _log.failure("The cleanup {cleanup} failed", failure, cleanup=cleanup.name)


def _finished(
    running: Deferred[Any],
    cleanup: Cleanup,
    overdue: set[Cleanup],
    clock: IReactorTime,
    limit: float,
) -> Deferred[None]:
    """
    Cancel a cleanup that takes too long.

    @return: fires when it has finished, and after C{limit} seconds even if it ignores that.
    """
    finished: Deferred[None] = Deferred()

    def done(_: object) -> None:
        cancelCalls(timer)
        if not finished.called:
            finished.callback(None)

    def late() -> None:
        _log.error("The cleanup {cleanup} did not finish in time", cleanup=cleanup.name)
        overdue.add(cleanup)
        cancel(running)
        done(None)

    timer: IDelayedCall | None = None
    running.addCallback(done)
    if not finished.called:
        timer = clock.callLater(limit, late)
    return finished
