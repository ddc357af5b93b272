# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 5: what belongs to a new link is restored before the link counts as connected."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientService

readings = {}


class Sensor(LineReceiver):
    def __init__(self):
        self.subscribed = Deferred()

    def lineReceived(self, line):
        print("the hub says:", line.decode())
        kind, _, rest = line.decode().partition(" ")
        if kind == "subscribed":
            self.subscribed.callback(None)
        elif kind == "reading":
            pump, _, value = rest.partition(" ")
            readings[pump] = float(value)


async def restore(sensor):
    sensor.sendLine(b"hello sensor-17")
    sensor.sendLine(b"subscribe pumps")
    await sensor.subscribed


def main(reactor):
    startLogging(sys.stdout)
    hub = clientFromString(reactor, "tcp:127.0.0.1:7000")
    service = HeartbeatClientService(
        hub,
        Factory.forProtocol(Sensor),
        prepareConnection=restore,
        heartbeat=Heartbeat.within(6.0),
        ping=lambda sensor: sensor.sendLine(b"ping"),
    )
    service.startService()
    return Deferred()


react(main)
