# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server for C{storm.py} to kill: sends back what it receives, and knows whom it has accepted.

Run by C{storm.py}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from workerprocess import serveCommands

HOST = "127.0.0.1"


class Served(Protocol):
    """
    One that was accepted.
    """

    factory: Broker

    def connectionMade(self) -> None:
        """
        It is known by its port.
        """
        self._port = self.transport.getPeer().port
        self.factory.ports.add(self._port)

    def dataReceived(self, data: bytes) -> None:
        """
        Whatever it is, it is answered.
        """
        self.transport.write(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """
        It is gone.
        """
        self.factory.ports.discard(self._port)


class Broker(Factory):
    """
    @ivar ports: the ports of those who are connected.
    """

    protocol = Served
    noisy = False

    def __init__(self) -> None:
        self.ports: set[int] = set()

    def listen(self, port: int, backlog: int) -> int:
        """
        @param port: 0 for any that is free.
        @return: its number.
        """
        from twisted.internet import reactor

        listening = reactor.listenTCP(port, self, backlog=backlog, interface=HOST)
        return listening.getHost().port

    def connected(self) -> list[int]:
        """
        The ports of those whom it has accepted and not lost.
        """
        return list(self.ports)


if __name__ == "__main__":
    broker = Broker()
    serveCommands({"listen": broker.listen, "connected": broker.connected})
