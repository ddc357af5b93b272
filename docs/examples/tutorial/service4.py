# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 4: hooks, and what the link has brought goes with it."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientService, LinkHooks

readings = {}
"""The latest reading of each pump. A reading is true only while the hub can be heard."""


class Sensor(LineReceiver):
    def connectionMade(self):
        self.sendLine(b"hello sensor-17")
        self.sendLine(b"subscribe pumps")

    def lineReceived(self, line):
        print("the hub says:", line.decode())
        kind, _, rest = line.decode().partition(" ")
        if kind == "reading":
            pump, _, value = rest.partition(" ")
            readings[pump] = float(value)


class Lamp(LinkHooks):
    def connected(self, link):
        print("green")
        link.addCleanup(readings.clear)

    def suspected(self, link):
        print("yellow")

    def disconnected(self, link, cause):
        print("red:", type(cause).__name__, "with", sorted(readings))


def main(reactor):
    startLogging(sys.stdout)
    hub = clientFromString(reactor, "tcp:127.0.0.1:7000")
    service = HeartbeatClientService(
        hub,
        Factory.forProtocol(Sensor),
        heartbeat=Heartbeat.within(6.0),
        ping=lambda sensor: sensor.sendLine(b"ping"),
        hooks=Lamp(),
    )
    service.startService()
    return Deferred()


react(main)
