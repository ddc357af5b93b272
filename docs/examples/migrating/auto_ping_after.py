# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The same client with one ping for all: this package's, sent as a WebSocket ping."""

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.endpoints import HostnameEndpoint

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Sensor(WebSocketClientProtocol):
    """Your protocol."""

    def onOpen(self):
        self.sendMessage(b"sensor-17")


def start(reactor, host, port, within=8.0):
    """Keep a sensor connected."""
    factory = WebSocketClientFactory(f"ws://{host}:{port}/")
    factory.protocol = Sensor
    service = HeartbeatClientService(
        HostnameEndpoint(reactor, host, port),
        factory,
        prepareConnection=lambda sensor: sensor.is_open,
        heartbeat=Heartbeat.within(within),
        ping=lambda sensor: sensor.sendPing(),
    )
    service.startService()
    return service
