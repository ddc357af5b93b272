# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The README's client in the classic shape. It needs a server at port 7000 that answers lines."""

import sys

from twisted.internet import reactor
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory, HeartbeatMixin


class Sensor(HeartbeatMixin, LineReceiver):
    def sendPing(self):
        self.sendLine(b"ping")  # anything that makes the hub speak: even an error answer will do

    def lineReceived(self, line):
        print("the hub says", line)


startLogging(sys.stdout)
factory = HeartbeatClientFactory(heartbeat=Heartbeat.within(8))
factory.protocol = Sensor
reactor.connectTCP("127.0.0.1", 7000, factory)
reactor.run()
