# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""A client that pings with a LoopingCall."""

from twisted.application.internet import ClientService
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver


class Sensor(LineReceiver):
    """Pings, and hangs up if the last ping has not been answered."""

    interval = 4.0
    answered = True

    def connectionMade(self):
        self.sendLine(b"sensor-17")
        self.pinging = LoopingCall(self.ping)
        self.pinging.start(self.interval)

    def ping(self):
        if not self.answered:
            self.transport.loseConnection()
            return
        self.answered = False
        self.sendLine(b"ping")

    def lineReceived(self, line):
        self.answered = True

    def connectionLost(self, reason):
        self.pinging.stop()


def start(reactor, hub):
    """Keep a sensor connected."""
    service = ClientService(clientFromString(reactor, hub), Factory.forProtocol(Sensor))
    service.startService()
    return service
