# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 1: Twisted's ReconnectingClientFactory, and nothing else."""

import sys

from twisted.internet import reactor
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging


class Sensor(LineReceiver):
    def connectionMade(self):
        self.factory.resetDelay()
        self.sendLine(b"hello sensor-17")

    def lineReceived(self, line):
        print("the hub says:", line.decode())

    def connectionLost(self, reason):
        print("lost:", reason.getErrorMessage())


class SensorFactory(ReconnectingClientFactory):
    protocol = Sensor


startLogging(sys.stdout)
reactor.connectTCP("127.0.0.1", 7000, SensorFactory())
reactor.run()
