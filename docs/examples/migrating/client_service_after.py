# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The same client, and it knows within 8 s whether its hub is there."""

from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Sensor(LineReceiver):
    """Your protocol."""

    def lineReceived(self, line):
        """What the hub says."""


def introduce(sensor):
    """Say who this is, on each new connection."""
    sensor.sendLine(b"sensor-17")


def start(reactor, hub, within=8.0):
    """Keep a sensor connected."""
    service = HeartbeatClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Sensor),
        prepareConnection=introduce,
        heartbeat=Heartbeat.within(within),
        ping=lambda sensor: sensor.sendLine(b"ping"),
    )
    service.startService()
    return service
