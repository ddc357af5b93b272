# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The server that C{storm.py} kills: it sends back what it receives, and knows its connections.

Run by C{storm.py}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from workerprocess import serveCommands

HOST = "127.0.0.1"


class Served(Protocol):
    """
    An accepted connection.
    """

    factory: Broker

    def connectionMade(self) -> None:
        """
        Record the peer's port.
        """
        self._port = self.transport.getPeer().port
        self.factory.ports.add(self._port)

    def dataReceived(self, data: bytes) -> None:
        """
        Send the data back.
        """
        self.transport.write(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """
        Remove the peer's port.
        """
        self.factory.ports.discard(self._port)


class Broker(Factory):
    """
    Listens, and records its connections.

    @ivar ports: the ports of the connected peers.
    """

    protocol = Served
    noisy = False

    def __init__(self) -> None:
        self.ports: set[int] = set()

    def listen(self, port: int, backlog: int) -> int:
        """
        Listen on a port.

        @param port: 0 for any free port.
        @return: its number.
        """
        from twisted.internet import reactor

        listening = reactor.listenTCP(port, self, backlog=backlog, interface=HOST)
        return listening.getHost().port

    def connected(self) -> list[int]:
        """
        The ports of the accepted connections that are not lost.
        """
        return list(self.ports)


if __name__ == "__main__":
    broker = Broker()
    serveCommands({"listen": broker.listen, "connected": broker.connected})
