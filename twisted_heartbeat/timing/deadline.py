# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerDeadline}: a time limit for a peer; and L{cancelCalls}.

After a process was stopped, suspended or blocked in a callback, its timers are due before it has
read what the peer sent in time.  Therefore a deadline that has passed is put off once: until the
reactor has polled its sockets, and by the time in which this process did not run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PeerDeadline:
    """
    Calls a function when a peer has not done in time what is expected of it.
    """

    __slots__ = ("_arguments", "_call", "_clock", "_due", "_limit", "_passed")

    def __init__(
        self, clock: IReactorTime, limit: float, passed: Callable[..., object], *arguments: object
    ) -> None:
        """
        @param limit: seconds that the peer has.
        @param passed: called with C{arguments} when the limit has passed, unless L{cancel} was
            called.
        """
        self._clock = clock
        self._limit = limit
        self._passed = passed
        self._arguments = arguments
        self._due = clock.seconds() + limit
        self._call: IDelayedCall = clock.callLater(limit, self._putOff)

    def active(self) -> bool:
        """
        Whether C{passed} may still be called.
        """
        return bool(self._call.active())

    def cancel(self) -> None:
        """
        Cancel the deadline, because the peer has kept it, or nothing waits for the peer any more.
        """
        self._call.cancel()

    def _putOff(self) -> None:
        late = max(0.0, self._clock.seconds() - self._due)
        passed: Any = self._passed
        self._call = self._clock.callLater(min(late, self._limit), passed, *self._arguments)


def cancelCalls(*calls: IDelayedCall | PeerDeadline | None) -> None:
    """
    Cancel those delayed calls and deadlines that have not been made or cancelled yet.
    """
    for call in calls:
        if call is not None and call.active():
            call.cancel()
