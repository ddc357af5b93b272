# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A line protocol: the client mixes the heartbeat in, and the server is left as it is.

    python line_hub.py serve tcp:7000
    python line_hub.py connect tcp:127.0.0.1:7000
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatMixin


class Hub(LineReceiver):
    """The server, as you have it."""

    subscribers = set()

    def lineReceived(self, line):
        command, _, text = line.partition(b" ")
        if command == b"subscribe":
            self.subscribers.add(self)
        elif command == b"publish":
            for subscriber in self.subscribers:
                subscriber.sendLine(b"news " + text)
        else:
            self.sendLine(b"what?")

    def connectionLost(self, reason):
        self.subscribers.discard(self)


class Subscriber(HeartbeatMixin, LineReceiver):
    """The client, and how it makes the server speak."""

    def sendPing(self):
        # The hub does not know this word. Its "what?" is as good as any other answer.
        self.sendLine(b"ping")

    def connectionMade(self):
        self.sendLine(b"subscribe")

    def lineReceived(self, line):
        kind, _, text = line.decode().partition(" ")
        if kind == "news":
            print(f"heard {text}", flush=True)


def connect(reactor, hub, within):
    """Keep a subscriber connected."""
    HeartbeatClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Subscriber),
        heartbeat=Heartbeat.within(within),
    ).startService()


def main(reactor, what, where, within="8"):
    """Serve, or connect, until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    if what == "serve":
        serverFromString(reactor, where).listen(Factory.forProtocol(Hub))
    else:
        connect(reactor, where, float(within))
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
