# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The same client, and it knows within 8 s whether its hub is there."""

from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory


class Sensor(LineReceiver):
    """Your protocol."""

    def lineReceived(self, line):
        """What the hub says."""

    def connectionMade(self):
        self.sendLine(b"sensor-17")


class SensorFactory(HeartbeatClientFactory):
    """Makes them."""

    protocol = Sensor
    maxDelay = 60


def start(reactor, host, port, within=8.0):
    """Keep a sensor connected."""
    factory = SensorFactory(
        heartbeat=Heartbeat.within(within),
        ping=lambda sensor: sensor.sendLine(b"ping"),
    )
    return reactor.connectTCP(host, port, factory)
