# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{IdlePoller}: reads the parked connections, behind one descriptor that the reactor polls.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.context import get as contextOf
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from zope.interface import implementer

from ..logs import SafeLogger, guarded
from ..transport.compat import disconnectSelectable

if TYPE_CHECKING:
    from .interfaces import ParkableConnection, Pollable

_log = SafeLogger()


_IN = getattr(select, "EPOLLIN", 1)

MAX_POLLS_PER_TURN = 4
"""Polls before the reactor has its turn.  Peers that were pinged in one instant answer while the
first answers are read."""

PONG_BUFFER_SIZE = 400
"""Bytes: room for any pong, small enough for Python's own allocator.  C{bufferSize} would have it
ask the system for memory at each read."""


def readParked(connection: ParkableConnection, context: dict[str, Any]) -> Any:
    """
    Read a parked connection, as C{doRead} of C{IReadDescriptor}: what comes is most likely a pong,
    which the protocol need not see.

    @param context: the log's.  Its C{"system"} is set before the protocol is called.
    """
    batch = connection.batch
    try:
        data = connection.socket.recv(PONG_BUFFER_SIZE)
    except OSError as error:
        return connection.readFailed(error)
    if not data:
        batch.release(connection)
        context["system"] = connection.logPrefix()
        return connection.deliver(b"")
    detector = connection.detector
    detector.heardAt = now = connection.seconds()
    waiting = batch.waiting
    if data == batch.pong and waiting.pop(connection, None) is not None:
        detector.rtt = now - detector.pingedAt
        if not waiting:
            # An empty dictionary keeps its room, and the next round has use for that.
            waiting.clear()
        return None
    if not batch.acceptsData(connection, now):
        batch.release(connection)
    if len(data) == PONG_BUFFER_SIZE:
        data += _readRest(connection)
    context["system"] = connection.logPrefix()
    return connection.deliver(data)


def _readRest(connection: ParkableConnection) -> bytes:
    try:
        rest: bytes = connection.socket.recv(connection.bufferSize)
        return rest
    except OSError as error:
        # What has come is delivered first.  The next read meets the end, if it is one.
        connection.readFailed(error)
        return b""


@implementer(IReadDescriptor)
class IdlePoller:
    """
    A nested epoll that polls and reads parked connections, in a reactor that polls it.  Source:
    epoll(7), "If an epoll file descriptor has events waiting, then it will indicate as being
    readable".

    It holds a descriptor only while it has a connection.
    """

    def __init__(self, reactor: Any, read: Callable[[Any, dict[str, Any]], Any] = readParked):
        """
        @param read: reads one connection.
        """
        self._reactor = reactor
        self._read = read
        # By descriptor, which are small numbers: a dictionary would keep each of them as an object.
        self._parked: list[Any] = []
        self._count = 0
        self._epoll: Any = None

    def __repr__(self) -> str:
        return f"<IdlePoller of {self.parked}>"

    @property
    def parked(self) -> list[Any]:
        """
        The connections that it reads.
        """
        return [one for one in self._parked if one is not None]

    def add(self, one: Pollable) -> None:
        """
        Read a connection that the reactor does not read.

        @raise OSError: if the system has no descriptor to spare.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
        number = one.fileno()
        try:
            # Each time, because reactor.removeAll does not tell the readers that it removes.
            self._reactor.addReader(self)
            self._epoll.register(number, _IN)
            self._parked += [None] * (number + 1 - len(self._parked))
            self._parked[number] = one
            self._count += 1
        finally:
            self._closeUnlessUsed()

    def remove(self, one: Pollable) -> None:
        """
        Stop reading a connection.
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
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def doRead(self) -> None:
        # The reactor has made it for this call.  It serves all connections, where the reactor would
        # make one for each.
        context = contextOf(ILogContext)
        for _ in range(MAX_POLLS_PER_TURN):
            if self._epoll is None or not self._readOnce(context):
                break

    def _readOnce(self, context: dict[str, Any]) -> int:
        """
        @return: the number of connections that had something to read.
        """
        ready = self._epoll.poll(0, self._count)
        for number, event in ready:
            one = self._parked[number]
            if one is None:
                # It was removed while the connections before it were read.
                continue
            try:
                # As the reactor does: data is read first, and the read after it meets the end.
                why = self._read(one, context) if event & _IN else CONNECTION_DONE
            except BaseException as error:
                # As the reactor does: an error ends this connection and no other.
                _log.failure("{one} failed at what it read", one=one)
                why = error
            if why is not None:
                # Otherwise an error of its protocol would end the reading of all others.
                guarded(_log, "{one} failed at its end", self._lose, one, why, one=one)
        return len(ready)

    def _lose(self, one: Pollable, why: BaseException) -> None:
        # The reactor would not find it among its own readers.
        one.stopReading()
        disconnectSelectable(self._reactor, one, why)

    def connectionLost(self, reason: Failure) -> None:
        for one in self.parked:
            guarded(_log, "{one} failed at its end", one.connectionLost, reason, one=one)

    def logPrefix(self) -> str:
        return "twisted_heartbeat"


def idlePollerFor(reactor: Any) -> IdlePoller | None:
    """
    Return the poller of a reactor; L{None} for a reactor that does not itself use epoll.
    """
    found: IdlePoller | None = getattr(reactor, "_twistedHeartbeatIdlePoller", None)
    if found is None:
        # Where the module is not loaded, no reactor of it is in use.
        module = sys.modules.get("twisted.internet.epollreactor")
        if module is not None and isinstance(reactor, module.EPollReactor):
            found = reactor._twistedHeartbeatIdlePoller = IdlePoller(reactor)
    return found
