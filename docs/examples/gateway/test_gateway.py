# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the gateway does when a device or the hub is lost: pytest test_gateway.py
"""

import pytest
import pytest_twisted
from gateway import Gateway
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol
from twisted_heartbeat.testing import BlackHole

HEARTBEAT = Heartbeat.within(0.6)
WITHIN = 20.0
"""Seconds after which a wait is a failure."""


class Talker(HeartbeatProtocol):
    """A device or a hub, as far as a test needs it. Its factory has a queue of what it hears."""

    def connectionMade(self):
        super().connectionMade()
        self.factory.connected.put(self)

    def messageReceived(self, message):
        self.factory.heard.put(message.decode())


class Pump(Talker):
    """The device."""

    name = "pump-3"


class Hub(Talker):
    """The hub, which greets."""

    def connectionMade(self):
        super().connectionMade()
        self.sendMessage(b"welcome")


def talkers(protocol):
    """Make a factory of them."""
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    factory.connected, factory.heard = DeferredQueue(), DeferredQueue()
    return factory


async def hears(factory, message):
    """Wait until a message comes, and skip the others."""
    from twisted.internet import reactor

    while await factory.heard.get().addTimeout(WITHIN, reactor) != message:
        pass


class AnyPort(TCP4ServerEndpoint):
    """A server's endpoint that tells which port it got."""

    def listen(self, factory):
        factory.noisy = False
        listening = super().listen(factory)
        self.port = Deferred()
        listening.addCallback(lambda port: self.port.callback(port) or port)
        return listening


class Site:
    """A gateway between a hub and a device, each behind a proxy that can break."""

    async def start(self, reactor, faultProxy):
        self.hub = talkers(Hub)
        self.hubPort = reactor.listenTCP(0, self.hub, interface="127.0.0.1")
        self.above = await faultProxy(("127.0.0.1", self.hubPort.getHost().port))
        listen = AnyPort(reactor, 0, interface="127.0.0.1")
        self.gateway = Gateway(listen, self.above.endpoint(), HEARTBEAT)
        self.gateway.startService()
        port = await listen.port
        self.below = await faultProxy(("127.0.0.1", port.getHost().port))
        self.pump = talkers(Pump)
        self.device = HeartbeatClientService(
            self.below.endpoint(), self.pump, lambda attempt: 0.1, heartbeat=HEARTBEAT
        )
        self.device.startService()
        await hears(self.hub, "here pump-3")

    async def stop(self):
        await self.device.stopService()
        await self.gateway.stopService()
        await self.hubPort.stopListening()


@pytest.fixture
def site(faultProxy):
    """The whole site."""
    from twisted.internet import reactor

    made = Site()
    pytest_twisted.blockon(Deferred.fromCoroutine(made.start(reactor, faultProxy)))
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@pytest_twisted.ensureDeferred
async def test_readingsAndCommandsPass(site):
    """A reading reaches the hub, and a command the device."""
    (await site.pump.connected.get()).sendMessage(b"21.5")
    await hears(site.hub, "reading pump-3 21.5")
    (await site.hub.connected.get()).sendMessage(b"set pump-3 40")
    await hears(site.pump, "set 40")


@pytest_twisted.ensureDeferred
async def test_deviceThatFallsSilentIsForgotten(site):
    """The hub is told, the reading is gone, and both are back with the device."""
    (await site.pump.connected.get()).sendMessage(b"21.5")
    await hears(site.hub, "reading pump-3 21.5")
    site.below.inject(BlackHole(), connections="existing")
    await hears(site.hub, "gone pump-3")
    assert site.gateway.readings == {}
    await hears(site.hub, "here pump-3")


@pytest_twisted.ensureDeferred
async def test_hubThatFallsSilentPutsDevicesOnHold(site):
    """The devices are told of the loss and of the return, and the hub gets the state again."""
    (await site.pump.connected.get()).sendMessage(b"21.5")
    await hears(site.hub, "reading pump-3 21.5")
    site.above.inject(BlackHole(), connections="existing")
    await hears(site.pump, "hold")
    await hears(site.hub, "here pump-3")
    await hears(site.hub, "reading pump-3 21.5")
    await hears(site.pump, "go")


@pytest_twisted.ensureDeferred
async def test_commandWithoutDeviceIsAnswered(site):
    """The hub learns that there is no such device."""
    (await site.hub.connected.get()).sendMessage(b"set pump-9 40")
    await hears(site.hub, "gone pump-9")


@pytest_twisted.ensureDeferred
async def test_deviceWithASpaceInItsNameIsRefused(site):
    """A name that the hub would misread never reaches it."""
    from twisted.internet import reactor

    class Spaced(Talker):
        name = "pump 3"

        def connectionLost(self, reason):
            super().connectionLost(reason)
            self.factory.heard.put(str(reason.value))

    spaced = talkers(Spaced)
    device = HeartbeatClientService(site.below.endpoint(), spaced, heartbeat=HEARTBEAT)
    device.startService()
    cause = await spaced.heard.get().addTimeout(WITHIN, reactor)
    await device.stopService()
    assert "a name without spaces" in cause
