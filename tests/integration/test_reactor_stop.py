# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The reactor of a program stops while links are open: C{disconnectAll} ends them.  Each program runs
in a process of its own, because a reactor can not be started again.
"""

from __future__ import annotations

import json

import pytest

from ..support.interpreter import printedBy

PROGRAM = """
import json, sys, tempfile
from twisted.internet import reactor
from twisted.internet.endpoints import SSL4ClientEndpoint, clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogBeginner
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted_heartbeat import (
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    LinkHooks,
)

LINKS = 2
folder = tempfile.mkdtemp()
place, way = sys.argv[1:]
told, links = [], []

def observe(event):
    told.append((event.get("event"), event.get("cause"), event["log_level"].name))

globalLogBeginner.beginLoggingTo([observe], redirectStandardIO=False, discardBuffer=True)

class Hooks(LinkHooks):
    def connected(self, link):
        links.append(link)
        if len(links) == LINKS:
            reactor.callLater(0.05, reactor.stop)

    def retrying(self, retry):
        told.append(("hook retrying", None, None))

hooks = Hooks()
words = f"unix:{folder}/socket" if place == "unix" else "tcp:0:interface=127.0.0.1"

def where(port):
    if place == "unix":
        return f"unix:{folder}/socket"
    return f"tcp:127.0.0.1:{port.getHost().port}"

class Mixed(HeartbeatMixin, Protocol):
    hooks = hooks

    def sendPing(self):
        self.transport.write(b"?")

plain, mixed = Factory.forProtocol(Protocol), Factory.forProtocol(Mixed)
builtIn = Factory.forProtocol(HeartbeatProtocol)

def wrapped(factory):
    return HeartbeatFactory(factory, hooks=hooks, ping=lambda protocol: None)

class Client(HeartbeatClientFactory):
    hooks = hooks
    protocol = HeartbeatProtocol

def listening(port):
    if way == "factory":
        reactor.connectTCP("127.0.0.1", port.getHost().port, Client())
        return
    prefix = "heartbeat:" if way == "tunnel" else ""
    endpoint = clientFromString(reactor, prefix + where(port))
    if place == "tls":
        number = port.getHost().port
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", number, CertificateOptions())
    if way in ("mixed in", "wrapped"):
        endpoint.connect({"mixed in": mixed, "wrapped": wrapped(plain)}[way])
    else:
        factory = builtIn if way == "built in" else plain
        HeartbeatClientService(endpoint, factory, hooks=hooks).startService()

servers = {
    "mixed in": mixed,
    "wrapped": wrapped(plain),
    "tunnel": wrapped(plain),
}
prefix = "heartbeat:" if way == "tunnel" else ""
server = servers.get(way) or HeartbeatServerFactory(hooks=hooks)
if way == "handshake":
    # It says nothing, so that the client's TLS handshake hangs.
    port = reactor.listenTCP(0, plain, interface="127.0.0.1")
    listening(port)
    reactor.callLater(0.5, reactor.stop)
elif place == "tls":
    import trustme

    issued = trustme.CA().issue_cert("localhost")
    pem = b"".join(part.bytes() for part in (issued.private_key_pem, *issued.cert_chain_pems))
    options = PrivateCertificate.loadPEM(pem).options()
    listening(reactor.listenSSL(0, server, options, interface="127.0.0.1"))
else:
    serverFromString(reactor, prefix + words).listen(server).addCallback(listening)
reactor.callLater(20, reactor.stop)
reactor.run()
print(json.dumps(told))
"""

WAYS = [
    ("tcp", "built in"),
    ("unix", "built in"),
    ("tcp", "factory"),
    ("tcp", "mixed in"),
    ("unix", "mixed in"),
    ("tcp", "wrapped"),
    ("tcp", "tunnel"),
    ("unix", "tunnel"),
    ("tls", "built in"),
    ("tls", "wrapped"),
]
"""Kinds of sockets, and the ways to use the package on both ends."""


def eventsOf(program: str, *arguments: str) -> list[tuple[str | None, str | None, str | None]]:
    """
    The events that a program logs, each with its cause and its level.
    """
    return [tuple(event) for event in json.loads(printedBy(program, *arguments))]


@pytest.mark.parametrize(("place", "way"), WAYS)
def test_linksAreClosedHere(place: str, way: str) -> None:
    """
    A link that ends because this side's reactor stops was closed here, which is nothing to warn of,
    and no retry is announced.
    """
    told = eventsOf(PROGRAM, place, way)
    ends = [(cause, level) for event, cause, level in told if event == "disconnected"]
    assert len(ends) >= 2
    assert set(ends) == {("ClosedHere", "info")}, told
    assert not [event for event, _, _ in told if event and "retrying" in event]


def test_handshakeIsNoFailure() -> None:
    """
    A TLS handshake that the stop cuts off is no failure: no warning, and no retry announced.
    """
    told = eventsOf(PROGRAM, "tls", "handshake")
    assert ("connecting", None, "info") in told
    assert {level for _, _, level in told} == {"info"}, told
    assert not [event for event, _, _ in told if event and "retrying" in event]
