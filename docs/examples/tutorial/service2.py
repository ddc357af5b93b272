# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 2: the service of this package in its place, without a way to ping."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import HeartbeatClientService


class Sensor(LineReceiver):
    def connectionMade(self):
        self.sendLine(b"hello sensor-17")

    def lineReceived(self, line):
        print("the hub says:", line.decode())

    def connectionLost(self, reason):
        print("lost:", reason.getErrorMessage())


def main(reactor):
    startLogging(sys.stdout)
    hub = clientFromString(reactor, "tcp:127.0.0.1:7000")
    service = HeartbeatClientService(hub, Factory.forProtocol(Sensor))
    service.startService()
    return Deferred()


react(main)
