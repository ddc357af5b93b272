# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MixedInLink}: the link of a protocol that C{HeartbeatMixin} is mixed into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from ..link.link import Link
from ..link.state import LinkState
from ..logs import SafeLogger
from ..transport.compat import replaceProtocol
from ..transport.connection import ObservedUnixConnection
from ..transport.instrument import findObserved
from .delivery import deliverEnd
from .overrides import DeliveryCover, setOwn

if TYPE_CHECKING:
    from .interfaces import MixedIn
    from .mixin import HeartbeatMixin

_log = SafeLogger()


def giveLink(protocol: HeartbeatMixin, link: MixedInLink) -> None:
    """
    Watch a protocol's next connection by this link.
    """
    setOwn(protocol, "link", link)
    DeliveryCover(link, "connectionMade").lay()


_uncovered: set[tuple[type, str]] = set()
"""Methods that cannot be covered and were logged, each with the class of the protocol."""


class MixedInLink(Link):
    """
    The link of a protocol that C{HeartbeatMixin} is mixed into.

    It covers the protocol's methods, see L{twisted_heartbeat.protocol.overrides}.
    """

    __slots__ = ()

    def isOver(self, transport: object) -> bool:
        """
        Whether the link has been established over this transport.
        """
        return self.state is not LinkState.NEW and self.transport is transport

    def connectionMade(self, transport: Any) -> None:
        super().connectionMade(transport)
        if self.observesLoss:
            self._tellOfNext()
        else:
            self.__coverNext()

    def protocolConnected(self) -> None:
        if not self.observesLoss:
            self.__coverNext()
        super().protocolConnected()

    def dataArriving(self) -> None:
        super().dataArriving()
        if self.state is LinkState.HANDSHAKING or not self.hasReceivedData:
            self.__coverNext()
            self._tellOfNext()

    def dataHandled(self) -> None:
        if not self.observesLoss:
            self.__coverNext()

    def mayHaveMissedData(self) -> bool:
        return not self.observesLoss and self.__coverNext()

    @property
    def observesLoss(self) -> bool:
        """
        Whether the connection calls L{dataArriving} and L{connectionLosing} before it calls the
        protocol.
        """
        connection = findObserved(self.transport)
        if isinstance(connection, ObservedUnixConnection):
            # It tells its first link only.
            return connection.observer is self
        return connection is not None

    def _tellOfNext(self) -> None:
        """
        Ask the connection for L{dataArriving} and L{dataDelivered} of the next chunk.
        """
        connection = self.peerWatch.connection
        if connection is not None:
            connection.notifyOnRead = True

    def connectionLosing(self) -> None:
        connection = self.peerWatch.connection or findObserved(self.transport)
        # The connection makes one call more to its protocol, and then forgets it.
        if connection is None or not replaceProtocol(connection, self.protocol, self):
            self.__cover("connectionLost")

    def connectionLost(self, reason: object, lost: Callable[[Any], object] | None = None) -> None:
        """
        Stand in for the protocol when the connection is lost.

        @param lost: the protocol's method; L{None} for the present one.
        """
        protocol: MixedIn = self.protocol
        if self.state is not LinkState.GONE:
            protocol._heartbeatEnded()
        deliverEnd(self, lost or self.protocol.connectionLost, reason)

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        protocol: MixedIn = self.protocol
        if self.state is not LinkState.GONE:
            protocol._heartbeatEnded()
        super().connectionLostUnnoticed(reason)

    def loseProtocol(self, reason: Failure) -> None:
        self.__cover("connectionLost")
        super().loseProtocol(reason)

    def openedByHello(self) -> None:
        """
        Tell the owner that the link is ready, because the protocol has received the hello that it
        L{waits for<HeartbeatProtocol._readyAtHello>}.
        """
        if self.isUp:
            super()._ready()

    def _ready(self) -> None:
        # The class is asked, because an instance may have a __getattr__ that knows any name.
        if getattr(type(self.protocol), "_readyAtHello", False):
            self.protocol.awaitHello()
        else:
            super()._ready()

    def __coverNext(self) -> bool:
        """
        Cover the methods that the transport may call next, unless they are covered.

        @return: whether bytes may have come of which the link was not told.
        """
        if self.state is LinkState.GONE:
            return False
        if self.state is LinkState.HANDSHAKING:
            self.__cover("handshakeCompleted")
        if not self.observesLoss:
            self.__cover("connectionLost")
        return not (self.hasReceivedData and self.observesReads) and self.__cover("dataReceived")

    def __cover(self, name: str) -> bool:
        """
        Cover a method, unless it is covered.

        @return: whether it was not covered.
        """
        protocol = self.protocol
        if isinstance(getattr(protocol, name), DeliveryCover):
            return False
        if not DeliveryCover(self, name).lay():
            self.__leaveUncovered(name)
        return True

    def __leaveUncovered(self, name: str) -> None:
        """
        Rely on what a socket tells: all, except that the protocol took its first bytes.  Over any
        other transport the peer's silence proves nothing then.
        """
        notSpoken = name == "dataReceived" and not self.hasReceivedData
        if notSpoken and (self.observesReads or self.observesLoss):
            self.firstDataReceived()
        uncovered = (type(self.protocol), name)
        if uncovered not in _uncovered:
            _uncovered.add(uncovered)
            _log.warn(
                "{kind}.{method} can not be covered, so links hear of it from sockets only",
                kind=type(self.protocol).__name__,
                method=name,
            )
