# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerDeadline}: the time that a peer has for something; and L{cancelCalls}.

A process that was stopped, suspended or blocked in a callback finds its timers due when it goes on,
before it has read what the peer said in time.  So a deadline that has passed is put off once: until
the reactor has polled its sockets, and by as long as this process was away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PeerDeadline:
    """
    Calls something when a peer has not done in time what is expected of it.
    """

    __slots__ = ("_arguments", "_call", "_clock", "_due", "_limit", "_passed")

    def __init__(
        self, clock: IReactorTime, limit: float, passed: Callable[..., object], *arguments: object
    ) -> None:
        """
        @param limit: seconds that the peer has.
        @param passed: is called with C{arguments} when they are over, unless L{cancel} was called.
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
        The peer has done it, or it is not waited for any more.
        """
        self._call.cancel()

    def _putOff(self) -> None:
        late = max(0.0, self._clock.seconds() - self._due)
        passed: Any = self._passed
        self._call = self._clock.callLater(min(late, self._limit), passed, *self._arguments)


def cancelCalls(*calls: IDelayedCall | PeerDeadline | None) -> None:
    """
    Cancel delayed calls and deadlines, those that have not been made or cancelled yet.
    """
    for call in calls:
        if call is not None and call.active():
            call.cancel()
