# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The clients for C{storm.py}, all of one kind, on one reactor: each keeps one idle connection.

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
"""Seconds between two lots of clients that are started."""


class StormClient(Protocol):
    """
    An idle connection.
    """

    clients: StormClients

    def connectionMade(self) -> None:
        """
        It believes that it is connected.
        """
        self.port = self.transport.getHost().port
        self.clients.up.add(self)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """
        It knows that it is not.
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
        """
        See C{IStreamClientEndpoint}.
        """
        self._attempts.append(monotonic())
        return self._endpoint.connect(factory)


class StormClients:
    """
    All of one kind.

    @ivar up: those that believe that they are connected.
    @ivar attempts: when each attempt to connect was made.
    """

    def __init__(self, kind: str) -> None:
        self._start: Callable[[int], None] = KINDS[kind].__get__(self)
        self.up: set[StormClient] = set()
        self.attempts: list[float] = []
        self._kept: list[Any] = []

    def begin(self, port: int, count: int, rate: int) -> None:
        """
        Start so many, at so many a second.
        """
        from twisted.internet import reactor

        lot = min(count, max(1, int(rate * A_TENTH)))
        for _ in range(lot):
            self._start(port)
        if count > lot:
            reactor.callLater(A_TENTH, self.begin, port, count - lot, rate)

    def settle(self) -> None:
        """
        All are connected.  Let the collector not go through a whole fleet in the midst of a storm:
        a process of so many clients is the benchmark's, and nobody else's.
        """
        gc.collect()
        gc.freeze()
        self.attempts.clear()

    def believing(self) -> list[int]:
        """
        The ports of those who believe that they are connected.
        """
        return [customer.port for customer in self.up]

    def tried(self) -> list[float]:
        """
        When each attempt was made since the last time that this was asked.
        """
        tried, self.attempts[:] = self.attempts.copy(), []
        return tried

    # How each kind begins.

    def ours(self, port: int) -> None:
        """
        A protocol that knows nothing, and C{ping=}.
        """
        self._serve(HeartbeatClientService, port, heartbeat=Heartbeat.within(8), ping=ask)

    def twistedService(self, port: int) -> None:
        """
        Twisted's, by its defaults.
        """
        self._serve(ClientService, port)

    def twistedFactory(self, port: int) -> None:
        """
        Twisted's, by its defaults.
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
    As its manual has it used: the delay is reset when a connection is made.

    @ivar attempts: where to note each.
    """

    noisy = False
    attempts: list[float]

    def startedConnecting(self, connector: Any) -> None:
        """
        See C{ClientFactory}.
        """
        self.attempts.append(monotonic())

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        self.resetDelay()
        return super().buildProtocol(addr)


def ask(protocol: Any) -> None:
    """
    Make the broker speak.
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
