# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The same client without the LoopingCall: it only says how to ping."""

from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatMixin


class Sensor(HeartbeatMixin, LineReceiver):
    """Your protocol."""

    def connectionMade(self):
        self.sendLine(b"sensor-17")

    def sendPing(self):
        self.sendLine(b"ping")

    def lineReceived(self, line):
        """Take what the hub says. The answers to pings need not be told from the rest."""


def start(reactor, hub, within=8.0):
    """Keep a sensor connected."""
    service = HeartbeatClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Sensor),
        heartbeat=Heartbeat.within(within),
    )
    service.startService()
    return service
