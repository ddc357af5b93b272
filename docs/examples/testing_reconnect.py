# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A client that reconnects, and the tests that it does. Run with: pytest testing_reconnect.py
"""

from __future__ import annotations

import pytest_twisted
from twisted.application.internet import ClientService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin

from twisted_heartbeat.testing import BlackHole, Delay, Hold, Slice


class Reader(LineReceiver, TimeoutMixin):
    """Your client: it reads a ticker, and hangs up when that falls silent."""

    silenceLimit = 0.3

    def connectionMade(self):
        self.setTimeout(self.silenceLimit)

    def lineReceived(self, line):
        self.resetTimeout()
        self.factory.heard(line)

    def timeoutConnection(self):
        self.transport.abortConnection()

    def connectionLost(self, reason):
        self.setTimeout(None)


class ReaderFactory(Factory):
    """Collects what the client has read, over all its connections."""

    protocol = Reader

    def __init__(self):
        self.lines = []
        self.waiting = []

    def heard(self, line):
        self.lines.append(line)
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(line)

    def nextLine(self):
        self.waiting.append(Deferred())
        return self.waiting[-1].addTimeout(5, reactor)


def makeClient(endpoint, factory):
    """Make your client; the tests hand in another endpoint than your program does."""
    return ClientService(endpoint, factory, retryPolicy=lambda attempt: 0.05)


class Ticker(LineReceiver):
    """The server it talks to."""

    def connectionMade(self):
        self.ticks = LoopingCall(self.sendLine, b"tick")
        self.ticks.start(0.05)

    def connectionLost(self, reason):
        self.ticks.stop()


# faultProxy is a fixture that comes with twisted_heartbeat; it closes its proxies after the test.
@pytest_twisted.async_yield_fixture
async def line(faultProxy):
    """The proxy and the client's factory, with the client connected through the proxy."""
    port = reactor.listenTCP(0, Factory.forProtocol(Ticker), interface="127.0.0.1")
    proxy = await faultProxy(("127.0.0.1", port.getHost().port))
    factory = ReaderFactory()
    client = makeClient(proxy.endpoint(), factory)
    client.startService()
    await factory.nextLine()
    yield proxy, factory
    proxy.reset()
    await client.stopService()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_findsASilentCut(line):
    """A firewall forgets the connection and tells neither end."""
    proxy, factory = line
    proxy.inject(BlackHole(), connections="existing")
    await proxy.whenConnectionsMade(2).addTimeout(5, reactor)
    assert await factory.nextLine() == b"tick"


@pytest_twisted.ensureDeferred
async def test_comesBackAfterAReset(line):
    """The server's host has restarted."""
    proxy, factory = line
    proxy.reset()
    await proxy.whenConnectionsMade(2).addTimeout(5, reactor)
    assert await factory.nextLine() == b"tick"


@pytest_twisted.ensureDeferred
async def test_waitsForTheServer(line):
    """The server is down for a while; it comes back on the same port."""
    proxy, factory = line
    await proxy.refuse()
    proxy.reset()
    await deferLater(reactor, 0.2)
    await proxy.accept()
    assert await factory.nextLine() == b"tick"
    assert proxy.connectionsMade == 2


@pytest_twisted.ensureDeferred
async def test_forgivesAShortCut(line):
    """The cable is out for less than the limit: nothing is lost, no reconnect."""
    proxy, factory = line
    proxy.inject(Hold())
    await deferLater(reactor, 0.1)
    proxy.heal()
    assert await factory.nextLine() == b"tick"
    assert proxy.connectionsMade == 1


@pytest_twisted.ensureDeferred
async def test_bearsABadLine(line):
    """Slow, uneven, and in single bytes: no line is torn, and the client stays."""
    proxy, factory = line
    proxy.inject(Delay(seconds=0.05, jitter=0.02))
    proxy.inject(Slice(size=1), toward="client")
    for _ in range(3):
        assert await factory.nextLine() == b"tick"
    assert proxy.connectionsMade == 1
