# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 5: what belongs to a new link is restored before the link counts as connected."""

import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory, HeartbeatMixin

readings = {}


class Sensor(HeartbeatMixin, LineReceiver):
    def __init__(self):
        self.subscribed = Deferred()

    def sendPing(self):
        self.sendLine(b"ping")

    def lineReceived(self, line):
        print("the hub says:", line.decode())
        kind, _, rest = line.decode().partition(" ")
        if kind == "subscribed":
            self.subscribed.callback(None)
        elif kind == "reading":
            pump, _, value = rest.partition(" ")
            readings[pump] = float(value)
        elif line == b"are you there?":  # for step 6
            self.sendLine(b"yes")


class SensorFactory(HeartbeatClientFactory):
    protocol = Sensor
    heartbeat = Heartbeat.within(6.0)

    async def prepareConnection(self, sensor):
        sensor.sendLine(b"hello sensor-17")
        sensor.sendLine(b"subscribe pumps")
        await sensor.subscribed
        sensor.link.addCleanup(readings.clear)


startLogging(sys.stdout)
reactor.connectTCP("127.0.0.1", 7000, SensorFactory())
reactor.run()
