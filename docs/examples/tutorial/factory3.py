# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 3: a ping, so that only a hub that does not answer is given up."""

import sys

from twisted.internet import reactor
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory, HeartbeatMixin


class Sensor(HeartbeatMixin, LineReceiver):
    def sendPing(self):
        self.sendLine(b"ping")  # its "what?" is an answer, too

    def connectionMade(self):
        self.sendLine(b"hello sensor-17")

    def lineReceived(self, line):
        print("the hub says:", line.decode())

    def connectionLost(self, reason):
        print("lost:", reason.getErrorMessage())


class SensorFactory(HeartbeatClientFactory):
    protocol = Sensor
    heartbeat = Heartbeat.within(6.0)


startLogging(sys.stdout)
reactor.connectTCP("127.0.0.1", 7000, SensorFactory())
reactor.run()
