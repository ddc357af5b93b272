# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The hub of the tutorial, as a stranger may have written it: python hub.py [PORT]

It knows nothing of heartbeats. It answers each line, and speaks by itself only to subscribers.
"""

import os
import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

EVERY = 15.0
"""Seconds between two readings."""


class Hub(LineReceiver):
    """One client of the hub."""

    name = "a stranger"
    subscribers = set()

    def lineReceived(self, line):
        command, _, rest = line.decode().partition(" ")
        if command == "hello":
            self.name = rest
            print(self.name, "is here")
            self.sendLine(b"welcome")
        elif command == "subscribe":
            self.subscribers.add(self)
            print(self.name, "subscribes to", rest)
            self.sendLine(b"subscribed " + rest.encode())
        else:
            self.sendLine(b"what?")

    def connectionLost(self, reason):
        self.subscribers.discard(self)
        print(self.name, "is gone")


def publish():
    """Send a reading to every subscriber."""
    for subscriber in Hub.subscribers:
        subscriber.sendLine(b"reading pump-3 21.5")


if __name__ == "__main__":
    startLogging(sys.stdout)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7000
    reactor.listenTCP(port, Factory.forProtocol(Hub))
    LoopingCall(publish).start(EVERY)
    print(f"the hub is process {os.getpid()}, at port {port}")
    reactor.run()
