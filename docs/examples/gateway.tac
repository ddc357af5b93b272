# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A gateway's link to its server, kept up for as long as the gateway runs: twistd -ny gateway.tac
"""

import os
import time

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_heartbeat import (
    Backoff,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    LinkHooks,
)

SERVER = os.environ.get("SERVER", "tcp:server.example:8470")

log = Logger()


class Uplink(HeartbeatProtocol):
    """What the gateway speaks with its server."""

    name = "gateway-7"

    def messageReceived(self, message):
        log.info("the server says {message!r}", message=message)

    def report(self):
        self.sendMessage(b"up for %d s" % time.monotonic())


class Hooks(LinkHooks):
    """What is done when the link comes up, and undone when it ends."""

    def connected(self, link):
        reports = LoopingCall(link.protocol.report)
        reports.start(60)
        link.addCleanup(reports.stop)


application = Application("gateway")

uplink = HeartbeatClientService(
    clientFromString(reactor, SERVER),
    Factory.forProtocol(Uplink),
    Backoff(maximum=30),
    heartbeat=Heartbeat.within(8),
    hooks=Hooks(),
    name="uplink",
)
uplink.setServiceParent(application)
