# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Step 6: the hub watches its clients as well. It serves the sensors of step 5."""

import sys

from hub import Hub
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatServerFactory


class WatchedHub(Hub):
    def lineReceived(self, line):
        if line != b"yes":
            Hub.lineReceived(self, line)


def ask(hub):
    hub.sendLine(b"are you there?")


startLogging(sys.stdout)
server = HeartbeatServerFactory(
    Factory.forProtocol(WatchedHub), heartbeat=Heartbeat.within(6.0), ping=ask, name="hub"
)
reactor.listenTCP(7000, server)
print("the hub is ready")
reactor.run()
