# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Length-prefixed strings: both ends are left as they are, and both factories are wrapped.

    python int32_hub.py serve tcp:7000
    python int32_hub.py connect tcp:127.0.0.1:7000
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.basic import Int32StringReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatServerFactory


class Peer(Int32StringReceiver):
    """What both ends of this protocol do: an echo is asked for by a word, and is answered."""

    def stringReceived(self, string):
        kind, _, text = string.partition(b" ")
        if kind == b"echo?":
            self.sendString(b"echo " + text)
        else:
            self.received(kind, text)


class Hub(Peer):
    """The server, as you have it."""

    subscribers = set()

    def received(self, kind, text):
        if kind == b"subscribe":
            self.subscribers.add(self)
        elif kind == b"publish":
            for subscriber in self.subscribers:
                subscriber.sendString(b"news " + text)

    def connectionLost(self, reason):
        self.subscribers.discard(self)


class Subscriber(Peer):
    """The client, as you have it."""

    def connectionMade(self):
        self.sendString(b"subscribe")

    def received(self, kind, text):
        if kind == b"news":
            print(f"heard {text.decode()}", flush=True)


def ping(peer):
    """Make either end speak."""
    peer.sendString(b"echo? ")


def serve(reactor, where, within):
    """Watch every client."""
    hub = Factory.forProtocol(Hub)
    watched = HeartbeatServerFactory(hub, heartbeat=Heartbeat.within(within), ping=ping)
    serverFromString(reactor, where).listen(watched)


def connect(reactor, hub, within):
    """Keep a subscriber connected."""
    HeartbeatClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Subscriber),
        heartbeat=Heartbeat.within(within),
        ping=ping,
    ).startService()


def main(reactor, what, where, within="8"):
    """Serve, or connect, until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    {"serve": serve, "connect": connect}[what](reactor, where, float(within))
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
