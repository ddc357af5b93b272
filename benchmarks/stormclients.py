# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The clients of C{storm.py}, all of one kind, on one reactor: each keeps one idle connection.

Run by C{storm.py}, as C{python benchmarks/stormclients.py KIND}.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from broker import HOST
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import (
    Factory,
    Protocol,
    ReconnectingClientFactory,
    connectionDone,
)
from workerprocess import serveCommands
from zope.interface import implementer

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import Heartbeat, HeartbeatClientService  # noqa: E402

A_TENTH = 0.1
"""Seconds between two batches of clients that are started."""


class StormClient(Protocol):
    """
    An idle connection.
    """

    clients: StormClients

    def connectionMade(self) -> None:
        """
        Record that this client believes it is connected.
        """
        self.port = self.transport.getHost().port
        self.clients.up.add(self)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """
        Record that this client knows it is not connected.
        """
        self.clients.up.discard(self)


@implementer(IStreamClientEndpoint)
class Counted:
    """
    An endpoint that notes when it is asked for a connection.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, attempts: list[float]) -> None:
        self._endpoint = endpoint
        self._attempts = attempts

    def connect(self, factory: Any) -> Deferred[Any]:
        self._attempts.append(monotonic())
        return self._endpoint.connect(factory)


class StormClients:
    """
    All clients of one kind.

    @ivar up: the clients that believe they are connected.
    @ivar attempts: the instant of each attempt to connect.
    """

    def __init__(self, kind: str) -> None:
        self._start: Callable[[int], None] = KINDS[kind].__get__(self)
        self.up: set[StormClient] = set()
        self.attempts: list[float] = []
        self._kept: list[Any] = []

    def begin(self, port: int, count: int, rate: int) -> None:
        """
        Start a number of clients, at a rate per second.
        """
        from twisted.internet import reactor

        lot = min(count, max(1, int(rate * A_TENTH)))
        for _ in range(lot):
            self._start(port)
        if count > lot:
            reactor.callLater(A_TENTH, self.begin, port, count - lot, rate)

    def settle(self) -> None:
        """
        All clients are connected.  Exempt them from garbage collection: only the benchmark has so
        many clients in one process, and collecting them would delay the storm.
        """
        gc.collect()
        gc.freeze()
        self.attempts.clear()

    def believing(self) -> list[int]:
        """
        The ports of the clients that believe they are connected.
        """
        return [customer.port for customer in self.up]

    def tried(self) -> list[float]:
        """
        The instants of the attempts since the last call.
        """
        tried, self.attempts[:] = self.attempts.copy(), []
        return tried

    # How a client of each kind starts.

    def ours(self, port: int) -> None:
        """
        An ordinary protocol, with C{ping=}.
        """
        self._serve(HeartbeatClientService, port, heartbeat=Heartbeat.within(8), ping=ask)

    def twistedService(self, port: int) -> None:
        """
        Twisted's, with its default settings.
        """
        self._serve(ClientService, port)

    def twistedFactory(self, port: int) -> None:
        """
        Twisted's, with its default settings.
        """
        from twisted.internet import reactor

        factory = Reconnecting()
        factory.protocol = self._protocol()
        factory.attempts = self.attempts
        self._kept.append(reactor.connectTCP(HOST, port, factory))

    def _serve(self, kind: Any, port: int, **settings: Any) -> None:
        from twisted.internet import reactor

        endpoint = Counted(TCP4ClientEndpoint(reactor, HOST, port), self.attempts)
        factory = Factory.forProtocol(self._protocol())
        factory.noisy = False
        service = kind(endpoint, factory, **settings)
        service.startService()
        self._kept.append(service)

    def _protocol(self) -> type[StormClient]:
        if self._ofThese is None:
            self._ofThese = type("StormClient", (StormClient,), {"clients": self})
        return self._ofThese

    _ofThese: type[StormClient] | None = None


class Reconnecting(ReconnectingClientFactory):
    """
    Used as in Twisted's manual: the delay is reset when a connection is made.

    @ivar attempts: the list that each attempt is appended to.
    """

    noisy = False
    attempts: list[float]

    def startedConnecting(self, connector: Any) -> None:
        self.attempts.append(monotonic())

    def buildProtocol(self, addr: Any) -> Any:
        self.resetDelay()
        return super().buildProtocol(addr)


def ask(protocol: Any) -> None:
    """
    Ping: make the broker send a byte.
    """
    protocol.transport.write(b"?")


KINDS = {
    "twisted_heartbeat": StormClients.ours,
    "ClientService": StormClients.twistedService,
    "ReconnectingClientFactory": StormClients.twistedFactory,
}


if __name__ == "__main__":
    clients = StormClients(sys.argv[1])
    serveCommands(
        {
            "begin": clients.begin,
            "settle": clients.settle,
            "believing": clients.believing,
            "tried": clients.tried,
        }
    )
