# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ProxySide}: one socket of a proxied connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .pipe import Pipe, StreamEnd


@implementer(IHalfCloseableProtocol)
class ProxySide(Protocol):
    """
    One socket of a proxied connection. It closes once it has both read and sent a FIN.

    Before it is connected it only accepts L{abort} and L{setReading}: a pipe delivers nothing
    until its consumer has asked for data.

    @ivar incoming: the pipe that delivers bytes to this socket.
    @ivar outgoing: the pipe that takes the bytes received here.
    @ivar gone: whether this socket is lost, or will never be connected.
    """

    incoming: Pipe
    outgoing: Pipe

    def __init__(self, made: Callable[[], None], lost: Callable[[], None]) -> None:
        self._made = made
        self._lost = lost
        # The transport, once connected. No single interface of Twisted has all methods used here.
        self._stream: Any = None
        self._reading = True
        self._finRead = False
        self._finSent = False
        self.gone = False

    def connectionMade(self) -> None:
        self._stream = self.transport
        # A target may be a UNIX socket, which has no TCP_NODELAY.
        if isinstance(self._stream.getHost(), IPv4Address | IPv6Address):
            self._stream.setTcpNoDelay(True)
        if not self._reading:
            self._stream.pauseProducing()
        self._stream.registerProducer(self.incoming, False)
        self._made()

    def dataReceived(self, data: bytes) -> None:
        self.outgoing.receive(data)

    def readConnectionLost(self) -> None:
        self._finRead = True
        self.outgoing.receive(StreamEnd.FIN)
        self._closeIfDone()

    def writeConnectionLost(self) -> None:
        """The FIN has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        if isinstance(reason.value, ConnectionDone):
            # A transport without half-close, such as TLS, reports a FIN only here.
            if not self._finRead:
                self.outgoing.receive(StreamEnd.FIN)
        elif not isinstance(reason.value, ConnectionAborted):
            self.outgoing.receive(StreamEnd.RST)
        self.incoming.resumeProducing()
        self._lost()

    def setReading(self, reading: bool) -> None:
        """Resume or pause reading."""
        changed, self._reading = reading != self._reading, reading
        if changed and self._stream is not None and not self.gone:
            if reading:
                self._stream.resumeProducing()
            else:
                self._stream.pauseProducing()

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def finish(self) -> None:
        """Send FIN."""
        if not self._finSent:
            self._finSent = True
            # A transport with a pull producer never sends its FIN.
            self._stream.unregisterProducer()
            self._stream.loseWriteConnection()
            self._closeIfDone()

    def close(self) -> None:
        """Send FIN, and stop reading."""
        self._stream.unregisterProducer()
        self._stream.loseConnection()

    def abort(self) -> None:
        """Send RST."""
        if self._stream is not None:
            self._stream.abortConnection()

    def _closeIfDone(self) -> None:
        if self._finRead and self._finSent:
            self._stream.loseConnection()
