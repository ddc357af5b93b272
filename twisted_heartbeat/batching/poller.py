# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{IdlePoller}: one descriptor for the reactor, behind which are the quiet connections.

Of what Twisted does with an event before it reads (it looks up the descriptor, copies the log's
context, and calls eleven functions), a pong needs nothing.  An epoll is itself a descriptor that
can be polled, so those of whom nothing but pongs is expected are in one of their own.
"""

from __future__ import annotations

import select
import sys
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.context import get as contextOf
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from zope.interface import implementer

from ..logs import SafeLogger, guarded
from ..transport.compat import disconnectSelectable

_log = SafeLogger()


_IN = getattr(select, "EPOLLIN", 1)

MAX_POLLS_PER_TURN = 4
"""So often it polls, at most, before the reactor has its turn."""


class Quiet(Protocol):
    """
    A connection that is read here.
    """

    def fileno(self) -> int:
        """Its descriptor."""

    def readParked(self, context: dict[str, Any]) -> Any:
        """
        As C{doRead} of C{IReadDescriptor}.

        @param context: the log's: whoever hands something on puts his C{"system"} into it.
        """

    def stopReading(self) -> None:
        """Have whatever reads it L{remove<IdlePoller.remove>} it."""

    def connectionLost(self, reason: Failure) -> None:
        """As C{IReadDescriptor}."""


@implementer(IReadDescriptor)
class IdlePoller:
    """
    Polls and reads quiet connections, on behalf of a reactor that polls it.  Source: epoll(7), "If
    an epoll file descriptor has events waiting, then it will indicate as being readable".

    It holds a descriptor only while it has a connection.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        # By descriptor, which are small numbers: a dictionary would keep each of them as an object.
        self._parked: list[Quiet | None] = []
        self._count = 0
        self._epoll: Any = None

    def __repr__(self) -> str:
        return f"<IdlePoller of {self.parked}>"

    @property
    def parked(self) -> list[Quiet]:
        """
        Those that it reads.
        """
        return [one for one in self._parked if one is not None]

    def add(self, one: Quiet) -> None:
        """
        Read a connection that the reactor does not read.

        @raise OSError: if the system has no descriptor to spare.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
        number = one.fileno()
        try:
            # Again and again, because removeAll says nothing to those it removes: see the clock's
            # alarm.
            self._reactor.addReader(self)
            self._epoll.register(number, _IN)
            self._parked += [None] * (number + 1 - len(self._parked))
            self._parked[number] = one
            self._count += 1
        finally:
            self._closeUnlessUsed()

    def remove(self, one: Quiet) -> None:
        """
        Do not read it any more.
        """
        self._parked[one.fileno()] = None
        self._count -= 1
        self._epoll.unregister(one.fileno())
        self._closeUnlessUsed()

    def _closeUnlessUsed(self) -> None:
        if not self._count:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    def fileno(self) -> int:
        """
        See C{IReadDescriptor}, and so the others.
        """
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def doRead(self) -> None:
        # Made by the reactor for this call.  It serves all of them, where it makes one for each.
        context = contextOf(ILogContext)
        # Those who were asked in one instant answer while the first of them are read.
        for _ in range(MAX_POLLS_PER_TURN):
            if self._epoll is None or not self._readOnce(context):
                break

    def _readOnce(self, context: dict[str, Any]) -> int:
        """
        @return: how many had something to read.
        """
        ready = self._epoll.poll(0, self._count)
        for number, event in ready:
            one = self._parked[number]
            if one is None:
                # It has left since.
                continue
            try:
                # As the reactor: what has come is read, and the end is met there.
                why = one.readParked(context) if event & _IN else CONNECTION_DONE
            except BaseException as error:
                # As the reactor, too: whatever it is, it ends this connection and no other.
                _log.failure("{one} failed at what it read", one=one)
                why = error
            if why is not None:
                # What its protocol raises at its end would end the reading of all others.
                guarded(_log, "{one} failed at its end", self._lose, one, why, one=one)
        return len(ready)

    def _lose(self, one: Quiet, why: BaseException) -> None:
        # Here is what the reactor would not find among its own.
        one.stopReading()
        disconnectSelectable(self._reactor, one, why)

    def connectionLost(self, reason: Failure) -> None:
        for one in self.parked:
            guarded(_log, "{one} failed at its end", one.connectionLost, reason, one=one)

    def logPrefix(self) -> str:
        return "twisted_heartbeat"


def idlePollerFor(reactor: Any) -> IdlePoller | None:
    """
    The one of a reactor; L{None} for a reactor that does not itself use epoll.
    """
    found: IdlePoller | None = getattr(reactor, "_twistedHeartbeatIdlePoller", None)
    if found is None:
        # Where it is not loaded, nobody uses it.
        module = sys.modules.get("twisted.internet.epollreactor")
        if module is not None and isinstance(reactor, module.EPollReactor):
            found = reactor._twistedHeartbeatIdlePoller = IdlePoller(reactor)
    return found
