# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A WebSocket client on twisted.web.websocket, which can ping and never does by itself.

    python websocket_client.py ws://127.0.0.1:8765/
"""

import sys
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.websocket import WebSocketClientEndpoint
from zope.interface import implementer

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Subscriber:
    """The client, as you have it."""

    @classmethod
    def buildProtocol(cls, url):
        return cls()

    def negotiationStarted(self, transport):
        self.transport = transport

    def negotiationFinished(self):
        self.transport.sendTextMessage("subscribe")

    def textMessageReceived(self, message):
        print(f"heard {message}", flush=True)

    def bytesMessageReceived(self, data):
        pass

    def pongReceived(self, payload):
        pass

    def connectionLost(self, reason):
        pass


@implementer(IAgentEndpointFactory)
class WebSockets(Factory):
    """
    Has twisted.web.websocket run over the connections of a service.

    WebSocketClientEndpoint wants to connect by itself. The endpoint that it gets for that is this
    factory: it takes the protocol, and is done connecting when the service says so.
    """

    def __init__(self, url, factory):
        self.url = url
        self.factory = factory

    def buildProtocol(self, addr):
        endpoint = WebSocketClientEndpoint(self, self.url)
        self.connected = Deferred()
        self.negotiated = Deferred.fromCoroutine(endpoint.connect(self.factory))
        return self.wire

    def endpointForURI(self, uri):
        return self

    def connect(self, wires):
        self.wire = wires.buildProtocol(None)
        return self.connected

    def negotiate(self, wire):
        """Fires with the client's protocol; fails if the server rejects it."""
        self.connected.callback(wire)
        return self.negotiated

    def ping(self, wire):
        """There is no ping before the server has accepted."""
        if self.negotiated.called:
            wire.ping()


def main(reactor, url="ws://127.0.0.1:8765/", within="8"):
    """Keep a subscriber connected until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    endpoint = HostnameEndpoint(reactor, parts.hostname, parts.port or (443 if secure else 80))
    if secure:
        endpoint = wrapClientTLS(optionsForClientTLS(parts.hostname), endpoint)
    webSockets = WebSockets(url, Subscriber)
    HeartbeatClientService(
        endpoint,
        webSockets,
        prepareConnection=webSockets.negotiate,
        heartbeat=Heartbeat.within(float(within)),
        ping=webSockets.ping,
        name="Subscriber",
    ).startService()
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
