# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A hub to try the gateway with: python toy_hub.py [PORT]

It greets the gateway and prints what it says. What you type goes to the gateway: "set pump-3 40".
"""

import os
import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatProtocol, HeartbeatServerFactory, LinkHooks


class Gateway(HeartbeatProtocol):
    """The gateway, as the hub sees it."""

    def messageReceived(self, message):
        """Print what it says; a real hub would keep it until the gateway is gone."""
        print(message.decode(), flush=True)

    def tell(self, message):
        """Send a command. If it cannot be sent, the link ends, and its end says why."""
        self.sendMessage(message).addErrback(lambda failure: None)


class Attendance(LinkHooks):
    """Greets a gateway that has come."""

    def connected(self, link):
        """Let the gateway begin."""
        print(link.name, "is here", flush=True)
        link.addCleanup(print, link.name, "is gone", flush=True)
        link.protocol.tell(b"welcome")


class Keyboard(LineReceiver):
    """Sends each line that is typed to the gateway."""

    delimiter = b"\n"

    def __init__(self, server):
        self.server = server

    def lineReceived(self, line):
        """Tell all gateways."""
        for link in self.server.peers.values():
            link.protocol.tell(line)


if __name__ == "__main__":
    server = HeartbeatServerFactory(
        Factory.forProtocol(Gateway), heartbeat=Heartbeat.within(8.0), hooks=Attendance()
    )
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7000
    reactor.listenTCP(port, server, interface="127.0.0.1")
    StandardIO(Keyboard(server))
    print(f"the hub is process {os.getpid()}", flush=True)
    reactor.run()
