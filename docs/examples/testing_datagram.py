# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A UDP question that is asked again until it is answered. Run with: pytest testing_datagram.py
"""

from __future__ import annotations

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall

from twisted_heartbeat.testing import Drop, Duplicate


class Asker(DatagramProtocol):
    """Your client."""

    def ask(self, address):
        self.answer = Deferred()
        self.asking = LoopingCall(self.transport.write, b"question", address)
        self.asking.start(0.05)
        return self.answer

    def datagramReceived(self, datagram, addr):
        if self.asking.running:
            self.asking.stop()
            self.answer.callback(datagram)


class Answerer(DatagramProtocol):
    """The server it talks to."""

    asked = 0

    def datagramReceived(self, datagram, addr):
        self.asked += 1
        self.transport.write(b"answer", addr)


@pytest_twisted.async_yield_fixture
async def line(datagramFaultProxy):
    """The proxy, the server behind it, and the client."""
    answerer, asker = Answerer(), Asker()
    ports = [reactor.listenUDP(0, one, interface="127.0.0.1") for one in (answerer, asker)]
    proxy = await datagramFaultProxy(("127.0.0.1", ports[0].getHost().port))
    yield proxy, answerer, asker
    for port in ports:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_asksAgain(line):
    """Each first answer is lost on the way back."""
    proxy, answerer, asker = line
    proxy.inject(Drop(), toward="client")
    reactor.callLater(0.08, proxy.heal)
    assert await asker.ask(proxy.address).addTimeout(5, reactor) == b"answer"
    assert answerer.asked > 1


@pytest_twisted.ensureDeferred
async def test_bearsDuplicates(line):
    """Every datagram comes twice, and the second answer does no harm."""
    proxy, _, asker = line
    proxy.inject(Duplicate())
    for _ in range(2):
        assert await asker.ask(proxy.address).addTimeout(5, reactor) == b"answer"
