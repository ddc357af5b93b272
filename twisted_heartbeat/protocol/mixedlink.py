# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MixedInLink}: the link of a protocol that C{HeartbeatMixin} is mixed into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from ..link.link import Link
from ..link.state import LinkState
from ..logs import SafeLogger
from .overrides import _Cover, _put, coverMethod

if TYPE_CHECKING:
    from .mixin import HeartbeatMixin

_log = SafeLogger()


def giveLink(protocol: HeartbeatMixin, link: MixedInLink) -> None:
    """
    Have a protocol's next connection watched by this link.
    """
    _put(protocol, "link", link)
    coverMethod(protocol, "connectionMade", _Cover(link, "connectionMade"))


_uncovered: set[tuple[type, str]] = set()
"""Methods that cannot be covered and were logged, each with the class of the protocol."""


class MixedInLink(Link):
    """
    The link of a protocol that has a place for it.
    """

    __slots__ = ()

    def isOver(self, transport: object) -> bool:
        """
        Whether it has been established over this transport.
        """
        return self.state is not LinkState.NEW and self._transport is transport

    def connectionMade(self, transport: Any) -> None:
        super().connectionMade(transport)
        if self.observesLoss:
            self._tellOfNext()
        else:
            self.__listen()

    def protocolConnected(self) -> None:
        if not self.observesLoss:
            self.__listen()
        super().protocolConnected()

    def dataArriving(self) -> None:
        super().dataArriving()
        if self.state is LinkState.HANDSHAKING or not self.hasReceivedData:
            self.__listen()
            self._tellOfNext()

    def dataHandled(self) -> None:
        if not self.observesLoss:
            self.__listen()

    def mayHaveMissedData(self) -> bool:
        return not self.observesLoss and self.__listen()

    def connectionLosing(self) -> None:
        self.__cover("connectionLost")

    def openedByHello(self) -> None:
        """
        A protocol that L{waits for the peer's hello<HeartbeatProtocol._readyAtHello>} has it.
        """
        if self.isUp:
            super()._ready()

    def _ready(self) -> None:
        # Of the class: an instance may answer to any name.
        if getattr(type(self.protocol), "_readyAtHello", False):
            self.protocol.awaitHello()
        else:
            super()._ready()

    def connectionLost(self, reason: Failure) -> Failure:
        self.protocol._HeartbeatMixin__connectionEnded()
        return super().connectionLost(reason)

    def __listen(self) -> bool:
        """
        Cover what is called next, where that is not covered.

        @return: whether bytes may have come that were not heard.
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
        @return: whether it was not covered.
        """
        protocol = self.protocol
        if isinstance(getattr(protocol, name), _Cover):
            return False
        if not coverMethod(protocol, name, _Cover(self, name)):
            self.__leaveUncovered(name)
        return True

    def __leaveUncovered(self, name: str) -> None:
        """
        Do with what a socket tells, which is all but that the protocol took its first bytes; over
        any other transport the peer's silence proves nothing then.
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
