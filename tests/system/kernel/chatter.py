# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Chatter}: what both watchers, ours and bare Twisted's, say to the peer.
"""

from __future__ import annotations

from typing import Any

from cells import CROWD, PEER_NAME, Cell
from reports import report
from twisted.internet import ssl
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

FLOOD = b"f" * 131072
"""More than a transport of Twisted's holds before it asks its producer to pause."""

MESSAGE = b"d" * 1000
EVERY = 0.2
BACKLOG = 2000


@implementer(IPushProducer)
class Flood:
    """
    Keeps a send buffer full.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def resumeProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self._transport.write(FLOOD)

    def pauseProducing(self) -> None:
        """
        See C{IPushProducer}.
        """

    def stopProducing(self) -> None:
        """
        See C{IPushProducer}.
        """


class Chatter(Protocol):
    """
    Says what its cell's load is, and reports the peer's first word.

    @ivar cell: set by the factory.
    @ivar onData: called once, from within C{dataReceived}.
    """

    cell: Cell
    onData: Any = None
    _spoken = False
    _over = False

    def connectionMade(self) -> None:
        """
        Begin to talk.
        """
        if self.cell.load == "data":
            self._talk()
        elif self.cell.load in ("full", "stall"):
            flood = Flood(self.transport)
            self.transport.registerProducer(flood, True)  # type: ignore[union-attr]
            flood.resumeProducing()

    def _talk(self) -> None:
        from twisted.internet import reactor

        if not self._over:
            self.transport.write(MESSAGE)  # type: ignore[union-attr]
            reactor.callLater(EVERY, self._talk)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """
        Report the first word.
        """
        if not self._spoken:
            self._spoken = True
            report("spoke", cell=self.cell.name)
        if self.onData is not None:
            onData, self.onData = self.onData, None
            onData()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        Stop talking.
        """
        self._over = True
        if self.cell.row != CROWD:
            report("protocolLost", cell=self.cell.name, reason=type(reason.value).__name__)


class Certificates:
    """
    What TLS needs on the watcher's side.
    """

    def __init__(self, folder: str) -> None:
        with open(f"{folder}/watcher.pem", "rb") as file:
            pem = file.read()
        self._own = ssl.PrivateCertificate.loadPEM(pem).options()
        with open(f"{folder}/ca.pem", "rb") as file:
            ca = ssl.Certificate.loadPEM(file.read())
        self._trusting = ssl.optionsForClientTLS(PEER_NAME, trustRoot=ca)

    def clientEndpoints(self, reactor: Any, cell: Cell) -> list[Any]:
        """
        The ways to a peer that is the server.
        """
        ways: list[Any] = []
        for address in cell.there:
            way = _clientEndpoint(reactor, address, cell)
            if cell.secure:
                way = wrapClientTLS(self._trusting, way)
            ways.append(way)
        return ways

    def listen(self, reactor: Any, cell: Cell, factory: Any) -> Any:
        """
        Listen for a peer that is the client.

        @return: a Deferred of the port.
        """
        if cell.secure:
            factory = TLSMemoryBIOFactory(self._own, False, factory)
        kind = TCP6ServerEndpoint if ":" in cell.here else TCP4ServerEndpoint
        return kind(reactor, cell.port, backlog=BACKLOG, interface=cell.here).listen(factory)


def _clientEndpoint(reactor: Any, address: str, cell: Cell) -> Any:
    if ":" in address:
        return TCP6ClientEndpoint(reactor, address, cell.port)
    return TCP4ClientEndpoint(reactor, address, cell.port, bindAddress=(cell.here, 0))
