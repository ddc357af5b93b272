# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A device to try the gateway with: python toy_pump.py [PORT]
"""

import os
import sys

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol, LinkHooks


class Pump(HeartbeatProtocol):
    """The gateway, as the pump sees it."""

    name = "pump-3"

    def messageReceived(self, message):
        """Take what the gateway says; a real pump would obey."""
        print("the gateway says", message.decode(), flush=True)

    def report(self):
        """Send a reading. If it cannot be sent, the link ends, and its end says why."""
        self.sendMessage(b"21.5").addErrback(lambda failure: None)


class Reports(LinkHooks):
    """Sends a reading every five seconds while there is a link."""

    def connected(self, link):
        """Begin, and stop when the link ends."""
        print("connected", flush=True)
        reports = LoopingCall(link.protocol.report)
        reports.start(5.0)
        link.addCleanup(reports.stop)

    def disconnected(self, link, cause):
        """Say why."""
        print(f"{type(cause).__name__}: {cause}", flush=True)


if __name__ == "__main__":
    gateway = TCP4ClientEndpoint(
        reactor, "127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7001
    )
    service = HeartbeatClientService(
        gateway, Factory.forProtocol(Pump), heartbeat=Heartbeat.within(8.0), hooks=Reports()
    )
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    print(f"the pump is process {os.getpid()}", flush=True)
    reactor.run()
