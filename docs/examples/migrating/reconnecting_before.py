# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""A client kept up by Twisted's ReconnectingClientFactory."""

from twisted.internet.protocol import ReconnectingClientFactory
from twisted.protocols.basic import LineReceiver


class Sensor(LineReceiver):
    """Your protocol."""

    def lineReceived(self, line):
        """What the hub says."""

    def connectionMade(self):
        self.factory.resetDelay()
        self.sendLine(b"sensor-17")


class SensorFactory(ReconnectingClientFactory):
    """Makes them."""

    protocol = Sensor
    maxDelay = 60


def start(reactor, host, port):
    """Keep a sensor connected."""
    return reactor.connectTCP(host, port, SensorFactory())
