# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""A WebSocket client with autobahn's auto-ping."""

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.protocol import ReconnectingClientFactory


class Sensor(WebSocketClientProtocol):
    """Your protocol."""

    def onOpen(self):
        self.factory.resetDelay()
        self.sendMessage(b"sensor-17")


class SensorFactory(WebSocketClientFactory, ReconnectingClientFactory):
    """Makes them."""

    protocol = Sensor


def start(reactor, host, port, interval=5.0, timeout=3.0):
    """Keep a sensor connected."""
    factory = SensorFactory(f"ws://{host}:{port}/")
    factory.setProtocolOptions(autoPingInterval=interval, autoPingTimeout=timeout)
    return reactor.connectTCP(host, port, factory)
