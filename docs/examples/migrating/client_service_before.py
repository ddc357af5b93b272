# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""A client kept up by Twisted's ClientService."""

from twisted.application.internet import ClientService
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class Sensor(LineReceiver):
    """Your protocol."""

    def lineReceived(self, line):
        """What the hub says."""


def introduce(sensor):
    """Say who this is, on each new connection."""
    sensor.sendLine(b"sensor-17")


def start(reactor, hub):
    """Keep a sensor connected."""
    service = ClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Sensor),
        prepareConnection=introduce,
    )
    service.startService()
    return service
