# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
AMP: a client that is found dead or proven alive by a server that knows nothing of it.

    python amp_hub.py serve tcp:7000
    python amp_hub.py connect tcp:127.0.0.1:7000
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.amp import AMP, Command, Unicode

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Subscribe(Command):
    """Have me hear the news."""

    arguments = [(b"who", Unicode())]


class Publish(Command):
    """News, to the hub and from the hub."""

    arguments = [(b"text", Unicode())]


class Hub(AMP):
    """The server, as you have it."""

    subscribers = {}

    @Subscribe.responder
    def subscribe(self, who):
        self.subscribers[self] = who
        return {}

    @Publish.responder
    def publish(self, text):
        for subscriber in self.subscribers:
            subscriber.callRemote(Publish, text=text).addErrback(lambda failure: None)
        return {}

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.subscribers.pop(self, None)


class Subscriber(AMP):
    """The client, as you have it."""

    @Publish.responder
    def publish(self, text):
        print(f"heard {text}", flush=True)
        return {}


class Ping(Command):
    """The hub does not know it. To be told so is as good as any other answer."""


def connect(reactor, hub, within):
    """Keep a subscriber connected."""
    HeartbeatClientService(
        clientFromString(reactor, hub),
        Factory.forProtocol(Subscriber),
        prepareConnection=lambda amp: amp.callRemote(Subscribe, who="sensor-17"),
        heartbeat=Heartbeat.within(within),
        ping=lambda amp: amp.callRemote(Ping),
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
