# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PoliteClose}: closes a connection so that a peer that reads gets all that was written before.

B{The problem.}  A TCP socket that is closed while received bytes are unread, or that receives bytes
after it was closed, answers with RST (RFC 1122, 4.2.2.13; RFC 2525, 2.17).  With that, this kernel
throws away what it has not sent yet: the goodbye, and messages that were already handed to it.  A
peer that is told of the RST by a failed write may never read what it has received.

B{The idea.}  The socket stays open for reading until nothing can be lost any more:

 1. Write the goodbye, where the protocol has one; over TLS also close_notify.
 2. Flush, then send FIN (C{shutdown(SHUT_WR)}) on the connection under TLS.
 3. Read on, and throw away what comes, so that the peer is never blocked by it.
 4. Close.  After a goodbye the peer closes first, and its FIN ends the connection.  Without one,
    close once the peer's kernel has acknowledged all bytes and nothing is unread.

L{CloseProgress} bounds all of that.

B{How.}  C{loseConnection()} is called on the outermost layer, as without this module.  Twisted
flushes, and then calls C{_postLoseConnection} on the connection (C{twisted.internet.abstract}).  An
attribute of the instance takes its place there, so that FIN is sent in place of C{close()}.  The
connection counts as C{disconnecting} from the start.  So another C{loseConnection()}, by TLS at the
peer's close_notify for example, changes nothing.  The connection's protocol is replaced by
L{PoliteClose} itself, which throws received bytes away.  Under TLS it passes them on, because TLS
may have to read in order to write, and what comes out of TLS is thrown away.

B{Where not.}  In a tunnel, whose own link does all this, and during a TLS handshake, this is a
plain C{loseConnection()}, bounded by the same L{CloseProgress}.  Without a timeout, and where no
TCP or UNIX connection of Twisted's is under the transport, the link calls C{loseConnection()}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import Any

from OpenSSL.SSL import RECEIVED_SHUTDOWN, SENT_SHUTDOWN
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.detector import LATENESS_TOLERANCE
from ..transport.closing import bytesUnacknowledged, closeableStack
from ..transport.compat import (
    holdSocketOpen,
    isAborting,
    isTLSLost,
    isWriteClosed,
    markWriteClosed,
    releaseSocket,
)
from ..transport.connection import ObservedConnection
from ..transport.layers import Relay
from ..transport.tcpinfo import hasUnreadBytes

LONGEST_CLOSE = 12
"""A polite close takes at most this many times its timeout, whatever the progress."""

LINGER = 1.0
"""
Seconds that a connection without a goodbye is kept open once the peer's kernel has acknowledged all
bytes, while bytes of the peer are still arriving.
"""

_LOOKS = 8
"""Looks at the progress within one timeout, so that progress is noticed at most 1/8 of it late."""

_SHORTEST_LOOK = 0.005
"""Seconds between two looks at a connection whose close is about to be complete."""


class CloseStep(Enum):
    """
    What to do with a connection that is being closed.
    """

    WAIT = "wait"
    FINISH = "finish"
    ABORT = "abort"


class CloseProgress:
    """
    The progress of one polite close.

    Only bytes of this side that the peer's kernel newly acknowledges are progress.  Received bytes
    are none, because a peer that sends and never reads would otherwise hold the connection open.

    @ivar due: when to call L{decide} next, in seconds.
    """

    __slots__ = (
        "_acknowledged",
        "_awaitsPeer",
        "_completedAt",
        "_lastLookAt",
        "_latest",
        "_progressedAt",
        "_timeout",
        "due",
    )

    def __init__(self, now: float, timeout: float, acknowledged: int, *, awaitsPeer: bool) -> None:
        """
        @param timeout: seconds without progress after which the connection is aborted.
        @param acknowledged: bytes that the peer's kernel has acknowledged so far.
        @param awaitsPeer: whether the peer closes the connection, because it is told goodbye.
        """
        self._timeout = timeout
        self._awaitsPeer = awaitsPeer
        self._acknowledged = acknowledged
        self._latest = now + LONGEST_CLOSE * timeout
        self._progressedAt = now
        self._completedAt: float | None = None
        self._lastLookAt: float | None = None
        self.due = self._nextLook(now)

    def decide(
        self, now: float, lateness: float, acknowledged: int, *, complete: bool, unread: bool
    ) -> CloseStep:
        """
        Decide what to do now.

        @param lateness: seconds by which this look is late, because this process did not run.
        @param acknowledged: bytes that the peer's kernel has acknowledged.
        @param complete: whether these are all bytes, and the FIN has been sent.
        @param unread: whether bytes of the peer wait to be read, or are still expected.
        """
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self._progressed(now)
        if complete and self._completedAt is None:
            self._completedAt = now
            self._progressed(now)
        finishes = self._completedAt is not None and not self._awaitsPeer
        if finishes and not unread:
            return CloseStep.FINISH
        if now >= self._deadline:
            if self._lastLookAt is None:
                # The reactor reads once more first, because the peer's FIN may have come meanwhile.
                # A process that did not run has sent nothing either: it gets that time again.
                away = min(lateness, self._timeout) if lateness > LATENESS_TOLERANCE else 0.0
                self._lastLookAt = self.due = now + away
            elif now >= self._lastLookAt:
                return CloseStep.FINISH if finishes else CloseStep.ABORT
        else:
            self.due = self._nextLook(now)
        return CloseStep.WAIT

    def _progressed(self, now: float) -> None:
        self._progressedAt = now
        if now < self._latest:
            self._lastLookAt = None

    @property
    def _deadline(self) -> float:
        lingers = self._completedAt is not None and not self._awaitsPeer
        patience = min(LINGER, self._timeout) if lingers else self._timeout
        return min(self._progressedAt + patience, self._latest)

    def _nextLook(self, now: float) -> float:
        longest = self._timeout / _LOOKS
        if not self._awaitsPeer:
            # Nothing tells this process that an acknowledgement has come.
            longest = min(longest, max(_SHORTEST_LOOK, (now - self._progressedAt) / 2))
        return min(self._deadline, now + longest)


class _Discard(Relay):
    """
    Stands in for the protocol above TLS, and throws away what it would receive.
    """

    def dataReceived(self, data: bytes) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class PoliteClose(Relay):
    """
    One connection that is being closed.  It stands in for the connection's protocol.
    """

    def __init__(
        self,
        connection: Any,
        now: float,
        timeout: float,
        changed: Callable[[], object],
        *,
        awaitsPeer: bool,
    ) -> None:
        """
        @param connection: the TCP or UNIX connection under the transport.
        @param timeout: seconds, as for L{CloseProgress}.
        @param changed: called when L{look} has news, or the connection is lost.
        @param awaitsPeer: whether the peer is told goodbye, and closes the connection itself.
        """
        super().__init__(getattr(connection, "protocol", None))
        self._connection = connection
        self._tls: Any = None
        self._changed = changed
        self._finSent = False
        self._peerFinished = False
        self._progress = CloseProgress(now, timeout, self._acknowledged(), awaitsPeer=awaitsPeer)

    def begin(self, transport: Any) -> None:
        """
        Close a transport.
        """
        connection = self._connection
        stack = closeableStack(transport)
        if stack is None:
            transport.loseConnection()
            return
        self._tls = stack.tls
        if self._tls is not None:
            self._tls.wrappedProtocol = _Discard(self._tls.wrappedProtocol)
        connection.protocol = self
        holdSocketOpen(connection, self._flushed)
        if isWriteClosed(connection):
            # The protocol has closed its half before.  Twisted would close the socket at once.
            connection.disconnecting = 1
            self._finSent = True
        else:
            transport.loseConnection()
        self._proceed()

    @property
    def over(self) -> bool:
        """
        Whether the connection is lost.
        """
        return not self._connection.connected

    @property
    def due(self) -> float:
        """
        When to L{look} next, in seconds.
        """
        return self._progress.due

    def look(self, now: float, lateness: float) -> CloseStep:
        """
        See L{CloseProgress.decide}.
        """
        self._proceed()
        return self._progress.decide(
            now,
            lateness,
            self._acknowledged(),
            complete=self._isComplete(),
            unread=self._isUnread(),
        )

    def finish(self) -> None:
        """
        Close the socket: nothing can be lost any more.
        """
        if self._connection.connected:
            self._connection.connectionLost(Failure(CONNECTION_DONE))

    # The progress.

    def _acknowledged(self) -> int:
        """
        A number that grows by the bytes that the peer's kernel acknowledges.
        """
        connection = self._connection
        if isinstance(connection, ObservedConnection):
            return connection.bytesAcked()
        return -bytesUnacknowledged(connection)

    def _isComplete(self) -> bool:
        # The kernel's send queue counts the FIN as a byte, from shutdown() on until it is
        # acknowledged (tcp_ioctl, tcp_send_fin).
        return self._finSent and bytesUnacknowledged(self._connection) <= 1

    def _isUnread(self) -> bool:
        if self._tls is not None and not self._peerNotified():
            # The peer answers close_notify with its own.  If that found the socket closed, RST
            # would destroy what the peer has not read.
            return True
        return self._finSent and hasUnreadBytes(self._connection)

    # TLS.

    def _hasNotified(self) -> bool:
        """
        Whether nothing more comes from TLS: close_notify has been written, or TLS is over.
        """
        return self._tlsIsOver() or bool(self._tlsState() & SENT_SHUTDOWN)

    def _peerNotified(self) -> bool:
        return self._tlsIsOver() or bool(self._tlsState() & RECEIVED_SHUTDOWN)

    def _tlsIsOver(self) -> bool:
        return isTLSLost(self._tls) or self._tls.getHandle() is None

    def _tlsState(self) -> int:
        state: int = self._tls.getHandle().get_shutdown()
        return state

    # What the connection does.

    def _proceed(self) -> None:
        """
        Take the next step, if it is due, and read on.
        """
        connection = self._connection
        if getattr(connection, "protocol", None) is not self or isAborting(connection):
            return
        if self._tls is not None and self._hasNotified():
            # Not by a layer's own method: those above have been called, and TLS has its own.
            FileDescriptor.loseConnection(connection)
        if connection.disconnecting and not self._peerFinished:
            # It may have been paused, before or since.
            connection.startReading()

    def _flushed(self) -> object:
        """
        Send FIN, in place of C{FileDescriptor._postLoseConnection}.
        """
        if self._peerFinished:
            return CONNECTION_DONE
        connection = self._connection
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The connection is lost already, and the next read reports the error.
            pass
        # As doWrite does it: what is written from here on is ignored, and not sent into an error.
        markWriteClosed(connection)
        self._finSent = True
        self._proceed()
        self._changed()
        return None

    def dataReceived(self, data: bytes) -> None:
        if self._tls is not None:
            if not self._tlsIsOver():
                self.protocol.dataReceived(data)
            self._proceed()
        elif not self._connection.disconnecting:
            # A layer above has more to write first, and may have to read for that.
            self.protocol.dataReceived(data)

    def readConnectionLost(self) -> None:
        """
        The peer has sent FIN: what it has not read by now, it will read from its kernel.
        """
        self._peerFinished = True
        if self._finSent:
            self.finish()
        else:
            FileDescriptor.loseConnection(self._connection)

    def writeConnectionLost(self) -> None:
        """
        Not called: L{_flushed} closes this half.
        """

    def connectionLost(self, reason: Failure) -> None:
        # It refers to this, and this to it.
        releaseSocket(self._connection)
        self.protocol.connectionLost(reason)
        self._changed()
