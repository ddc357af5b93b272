# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A WebSocket client on autobahn, without autobahn's auto-ping.

    python autobahn_client.py ws://127.0.0.1:8765/
"""

import sys

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Subscriber(WebSocketClientProtocol):
    """The client, as you have it."""

    def onOpen(self):
        self.sendMessage(b"subscribe")

    def onMessage(self, payload, isBinary):
        print(f"heard {payload.decode()}", flush=True)


def main(reactor, url="ws://127.0.0.1:8765/", within="8"):
    """Keep a subscriber connected until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    factory = WebSocketClientFactory(url)
    factory.protocol = Subscriber
    endpoint = HostnameEndpoint(reactor, factory.host, factory.port)
    if factory.isSecure:
        endpoint = wrapClientTLS(optionsForClientTLS(factory.host), endpoint)
    HeartbeatClientService(
        endpoint,
        factory,
        # Not connected before the server has accepted the upgrade.
        prepareConnection=lambda subscriber: subscriber.is_open,
        heartbeat=Heartbeat.within(float(within)),
        ping=lambda subscriber: subscriber.sendPing(),
    ).startService()
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
