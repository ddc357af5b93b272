# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A gateway: devices below, a hub above.

Messages are text. A device says "VALUE". The gateway tells the hub "here NAME", "gone NAME" and
"reading NAME VALUE". The hub says "welcome" when it is ready, and "set NAME VALUE", which goes to
the device. While the hub cannot be heard, the devices are told "hold"; afterwards, "go". A hub that
loses the gateway forgets what it was told, because the gateway tells all of it again.
"""

import re

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    LinkHooks,
)


class Device(HeartbeatProtocol):
    """One device, as the gateway sees it."""

    def messageReceived(self, message):
        """Take a reading."""
        self.factory.gateway.read(self.link.name, message.decode())


class Uplink(HeartbeatProtocol):
    """The hub, as the gateway sees it."""

    name = "gateway"

    def __init__(self):
        self.welcomed = Deferred()

    def messageReceived(self, message):
        """Take a command."""
        command, _, rest = message.decode().partition(" ")
        if command == "welcome" and not self.welcomed.called:
            self.welcomed.callback(None)
        elif command == "set":
            name, _, value = rest.partition(" ")
            self.factory.gateway.set(name, value)


def admit(address, certificate, hello):
    """Refuse a device whose name cannot stand in a message to the hub."""
    return None if re.fullmatch(r"[\w.-]+", hello.name) else "a name without spaces is needed"


class DeviceHooks(LinkHooks):
    """What the coming of a device begins, its end undoes."""

    def __init__(self, gateway):
        self._gateway = gateway

    def connected(self, link):
        """A device has come, for the first time or again."""
        link.addCleanup(self._gateway.forget, link.name)
        self._gateway.tellHub("here", link.name)
        state = b"hold" if self._gateway.hub is None else b"go"
        link.protocol.sendMessage(state).addErrback(lambda failure: None)


class Gateway(MultiService):
    """
    The whole gateway, as a service.

    C{readings} has the latest reading of each device that can be heard, and of no other. C{hub} is
    the protocol of the link to the hub while there is one.
    """

    def __init__(self, listen, hub, heartbeat=None):
        super().__init__()
        heartbeat = heartbeat or Heartbeat.within(8.0)
        self.readings = {}
        self.hub = None
        self.devices = HeartbeatServerFactory(
            self._factory(Device),
            heartbeat=heartbeat,
            hooks=DeviceHooks(self),
            admit=admit,
            name="devices",
        )
        self.port = StreamServerEndpointService(listen, self.devices)
        self.uplink = HeartbeatClientService(
            hub,
            self._factory(Uplink),
            prepareConnection=self.restore,
            heartbeat=heartbeat,
            name="uplink",
        )
        for service in (self.port, self.uplink):
            service.setServiceParent(self)

    def _factory(self, protocol):
        factory = Factory.forProtocol(protocol)
        factory.gateway = self
        return factory

    async def restore(self, uplink):
        """Bring a new link to the hub up to date before it counts."""
        await uplink.welcomed
        uplink.link.addCleanup(self.loseHub)
        # From here on changes go to the hub by themselves, so nothing falls between.
        self.hub = uplink
        for link in self.devices.peers.values():
            self.tellHub("here", link.name)
            if link.name in self.readings:
                self.tellHub("reading", link.name, self.readings[link.name])
        self.tellDevices(b"go")

    def loseHub(self):
        """Put the devices into a safe state, because the hub does not watch them now."""
        self.hub = None
        self.tellDevices(b"hold")

    def read(self, name, value):
        """Keep a reading, and pass it on."""
        self.readings[name] = value
        self.tellHub("reading", name, value)

    def set(self, name, value):
        """Pass a command on to a device; without the device it is answered."""
        link = self.devices.named(name)
        if link is None:
            self.tellHub("gone", name)
        else:
            link.protocol.sendMessage(f"set {value}".encode()).addErrback(lambda failure: None)

    def forget(self, name):
        """Drop what a device has said: it is no longer true."""
        self.readings.pop(name, None)
        self.tellHub("gone", name)

    def tellHub(self, *words):
        """Tell the hub, if it is there. What it misses, the next restore makes up for."""
        if self.hub is not None:
            self.hub.sendMessage(" ".join(words).encode()).addErrback(lambda failure: None)

    def tellDevices(self, message):
        """Tell all devices."""
        for link in self.devices.peers.values():
            link.protocol.sendMessage(message).addErrback(lambda failure: None)

    def stopService(self):
        """Stop listening, tell the devices when to come back, and leave the hub."""
        return gatherResults([super().stopService(), self.devices.drain()])
