# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 4: what the link has brought goes with it."""

import sys

from twisted.internet import reactor
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory, HeartbeatMixin

readings = {}
"""The latest reading of each pump. A reading is true only while the hub can be heard."""


def forget():
    print("forgotten:", sorted(readings))
    readings.clear()


class Sensor(HeartbeatMixin, LineReceiver):
    def sendPing(self):
        self.sendLine(b"ping")

    def connectionMade(self):
        self.sendLine(b"hello sensor-17")
        self.sendLine(b"subscribe pumps")
        self.link.addCleanup(forget)

    def lineReceived(self, line):
        print("the hub says:", line.decode())
        kind, _, rest = line.decode().partition(" ")
        if kind == "reading":
            pump, _, value = rest.partition(" ")
            readings[pump] = float(value)


class SensorFactory(HeartbeatClientFactory):
    protocol = Sensor
    heartbeat = Heartbeat.within(6.0)


startLogging(sys.stdout)
reactor.connectTCP("127.0.0.1", 7000, SensorFactory())
reactor.run()
