# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 2: TimeoutMixin, which gives up a hub that is merely quiet."""

import sys

from twisted.internet import reactor
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.log import startLogging


class Sensor(LineReceiver, TimeoutMixin):
    def connectionMade(self):
        self.factory.resetDelay()
        self.sendLine(b"hello sensor-17")
        self.setTimeout(6.0)

    def lineReceived(self, line):
        self.resetTimeout()
        print("the hub says:", line.decode())

    def connectionLost(self, reason):
        self.setTimeout(None)
        print("lost:", reason.getErrorMessage())


class SensorFactory(ReconnectingClientFactory):
    protocol = Sensor


startLogging(sys.stdout)
reactor.connectTCP("127.0.0.1", 7000, SensorFactory())
reactor.run()
