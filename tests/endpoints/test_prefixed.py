# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Twisted's own servers and clients, unchanged, behind C{heartbeat:} on real sockets, with faults in
between.
"""

from __future__ import annotations

import socket
import sys
from array import array
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted import version
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate
from twisted.logger import formatEvent
from twisted.protocols.amp import AMP, Command, String, UnhandledCommand
from twisted.protocols.portforward import ProxyFactory
from twisted.spread.pb import PBClientFactory, PBConnectionLost, PBServerFactory, Root
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseFailed,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from twisted_heartbeat import (
    Cause,
    ConnectFailed,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
)
from twisted_heartbeat.endpoints.build import clientFor
from twisted_heartbeat.testing import BlackHole, Delay, FaultProxy, Slice
from twisted_heartbeat.transport.layers import findConnection

from ..support.loopback import (
    NAME,
    QUICK,
    Certificates,
    Loopback,
    Peer,
    Peers,
    clientOptions,
    opened,
    serverOptions,
    wait,
    within,
)
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

BOUND = 1.0

MakeProxy = Callable[..., Deferred[FaultProxy]]


class Way:
    """
    From a client's endpoint to a server's, through a fault proxy, all with C{heartbeat:}.
    """

    def __init__(self, loopback: Loopback, makeProxy: MakeProxy, folder: Path) -> None:
        self.loopback = loopback
        self._makeProxy = makeProxy
        self._certificates = Certificates(folder)
        self.proxy: Any = None

    async def to(self, factory: Any) -> Any:
        """
        Listen.

        @return: the endpoint to connect to.
        """
        from twisted.internet import reactor

        how = f"interface=127.0.0.1:within={BOUND}"
        if self.loopback.secured:
            how = f"ssl:0:privateKey={self._certificates.pem}:{how}"
        else:
            how = f"tcp:0:{how}"
        port = await serverFromString(reactor, f"heartbeat:{how}").listen(factory)
        self.loopback.atEnd(port.stopListening)
        self.proxy = await self._makeProxy(("127.0.0.1", port.getHost().port))
        return clientFromString(reactor, self._description())

    def _description(self) -> str:
        number = self.proxy.port
        if self.loopback.secured:
            return (
                f"heartbeat:tls:{NAME}:{number}:trustRoots={self._certificates.roots}:"
                f"endpoint=tcp\\:127.0.0.1\\:{number}:within={BOUND}"
            )
        return f"heartbeat:tcp:127.0.0.1:{number}:within={BOUND}"


@pytest.fixture(params=["plain", "TLS"])
def way(request: pytest.FixtureRequest, faultProxy: MakeProxy, tmp_path: Path) -> Iterator[Way]:
    """
    A way without faults yet, plain and over TLS.
    """
    with opened(request.param == "TLS") as loopback:
        yield Way(loopback, faultProxy, tmp_path)


@pytest.fixture
def securedWay(faultProxy: MakeProxy, tmp_path: Path) -> Iterator[Way]:
    """
    The same, over TLS only.
    """
    with opened(True) as loopback:
        yield Way(loopback, faultProxy, tmp_path)


@pytest.fixture
def plainWay(faultProxy: MakeProxy, tmp_path: Path) -> Iterator[Way]:
    """
    The same, plain only.
    """
    with opened(False) as loopback:
        yield Way(loopback, faultProxy, tmp_path)


async def failureOf(deferred: Deferred[Any]) -> Exception:
    """
    What it fails with, in good time.
    """
    with pytest.raises(Exception) as raised:
        await within(deferred)
    error: Exception = raised.value
    return error


# The web.


@implementer(IAgentEndpointFactory)
class Always:
    """
    Leads every URI to one endpoint.
    """

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> Any:
        """
        See C{IAgentEndpointFactory}.
        """
        return self._endpoint


class Mirror(Resource):
    """
    Answers with what it is sent.
    """

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """
        Much, whatever is asked.
        """
        return b"<p>" + bytes(300_000)

    def render_POST(self, request: Any) -> bytes:
        """
        The same back.
        """
        body: bytes = request.content.read()
        return body


@pytest_twisted.ensureDeferred
async def test_web(way: Way) -> None:
    """
    A web server and its client: pages and uploads pass over one persistent connection, in slices; a
    line that dies under a request fails it within the bound, with the cause; the next request finds
    a new connection.
    """
    from twisted.internet import reactor

    if way.loopback.secured and (version.major, version.minor) < (25, 1):
        pytest.skip("this Twisted sets ALPN on a context that is in use, which pyOpenSSL refuses")
    endpoint = await way.to(Site(Mirror(), reactor=reactor))
    pool = HTTPConnectionPool(reactor, persistent=True)
    way.loopback.atEnd(pool.closeCachedConnections)
    agent = Agent.usingEndpointFactory(reactor, Always(endpoint), pool=pool)

    def request(method: bytes, body: bytes | None = None) -> Deferred[bytes]:
        upload = None if body is None else FileBodyProducer(BytesIO(body))
        asking = agent.request(method, b"http://peer.example/", bodyProducer=upload)
        return asking.addCallback(readBody)

    way.proxy.inject(Slice(size=1000, pause=0.0))
    assert len(await within(request(b"GET"))) == 300_003
    way.proxy.heal()
    assert await within(request(b"POST", b"x" * 200_000)) == b"x" * 200_000
    assert way.proxy.connectionsMade == 1
    await wait(2 * BOUND)
    assert len(await within(request(b"GET"))) == 300_003
    assert way.proxy.connectionsMade == 1
    way.proxy.inject(BlackHole(), connections="existing")
    error = await failureOf(request(b"POST", b"x"))
    assert isinstance(error, ResponseNeverReceived)
    assert error.reasons[0].check(PeerSilent)
    assert await within(request(b"POST", b"again")) == b"again"
    assert way.proxy.connectionsMade == 2


# AMP.


class Repeat(Command):
    """
    Say it again.
    """

    arguments = [(b"words", String())]
    response = [(b"words", String())]


class Parrot(AMP):
    """
    Can do that.
    """

    @Repeat.responder
    def repeat(self, words: bytes) -> dict[str, bytes]:
        """
        Do it.
        """
        return {"words": words}


@pytest_twisted.ensureDeferred
async def test_amp(way: Way) -> None:
    """
    AMP: calls and error answers pass, over a line that delays; an idle line lives; a dead one fails
    the call that waits, within the bound, with the cause.
    """
    endpoint = await way.to(Factory.forProtocol(Parrot))
    way.proxy.inject(Delay(seconds=0.05))
    amp = await within(endpoint.connect(Factory.forProtocol(AMP)))
    way.loopback.atEnd(amp.transport.abortConnection)
    assert await within(amp.callRemote(Repeat, words=b"hello")) == {"words": b"hello"}

    class Unknown(Command):
        pass

    assert isinstance(await failureOf(amp.callRemote(Unknown)), UnhandledCommand)
    await wait(2 * BOUND)
    assert await within(amp.callRemote(Repeat, words=b"still")) == {"words": b"still"}
    way.proxy.inject(BlackHole())
    assert isinstance(await failureOf(amp.callRemote(Repeat, words=b"lost")), PeerSilent)


# PB.


class Echoer(Root):
    """
    The root object.
    """

    def remote_echo(self, what: object) -> object:
        """
        The same back.
        """
        return what


@pytest_twisted.ensureDeferred
async def test_pb(way: Way) -> None:
    """
    Perspective Broker: objects pass; a call over a dead line fails within the bound.
    """
    endpoint = await way.to(PBServerFactory(Echoer()))
    client = PBClientFactory()
    root = client.getRootObject()
    await within(endpoint.connect(client))
    remote: Any = await within(root)
    thing = {"list": [1, 2.5, b"three"], "long": "x" * 100_000}
    assert await within(remote.callRemote("echo", thing)) == thing
    way.proxy.inject(BlackHole())
    error = await failureOf(remote.callRemote("echo", "lost"))
    assert isinstance(error, PBConnectionLost | ConnectionLost)


# A proxy of Twisted's own, which is nothing but producers and consumers.


class Echo(Peer):
    """
    Sends back what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.transport.write(data)  # type: ignore[union-attr]


class Collector(Kept):
    """
    Tells when it has so much.
    """

    wanted = 0
    complete: Deferred[None]

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.size = 0
        self.complete = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.parts.append(data)
        self.size += len(data)
        if self.size == self.wanted:
            self.complete.callback(None)


@pytest_twisted.ensureDeferred
async def test_portforward(way: Way) -> None:
    """
    Twisted's port forwarder, which hands the transports of its two sides to each other as
    producers, moves megabytes there and back, past a client that stops reading for longer than
    the bound.
    """
    peers = Peers()
    peers.protocol = Echo
    behind = way.loopback.listen(peers, secured=False)
    forwarding = ProxyFactory("127.0.0.1", behind)
    endpoint = await way.to(forwarding)
    client = await within(endpoint.connect(Factory.forProtocol(Collector)))
    way.loopback.atEnd(client.transport.abortConnection)
    sent = array("I", range(2_000_000)).tobytes()
    client.wanted = len(sent)
    client.transport.write(sent)
    while client.size < 100_000:
        await wait(0.01)
    client.transport.pauseProducing()
    stoppedAt = client.size
    await wait(2 * BOUND)
    assert client.losses == 0
    assert client.size == stoppedAt
    client.transport.resumeProducing()
    await within(client.complete, 30)
    assert b"".join(client.parts) == sent


# What passes through the stack.


@pytest_twisted.ensureDeferred
async def test_slowPeerLosesNothingAtTheClose(plainWay: Way) -> None:
    """
    What was written before a polite close arrives whole at a peer that reads late, though its own
    signs of life come meanwhile, and a closed socket would answer those with a reset.
    """
    peers = Peers()

    class Sender(Peer):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(bytes(6_000_000))  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]

    peers.protocol = Sender
    endpoint = await plainWay.to(peers)
    client = await within(endpoint.connect(Factory.forProtocol(Collector)))
    client.wanted = 6_000_000
    client.transport.pauseProducing()
    await wait(2.5 * BOUND)
    assert client.losses == 0
    client.transport.resumeProducing()
    await within(client.complete, 20)


@pytest_twisted.ensureDeferred
async def test_certificateShows(securedWay: Way) -> None:
    """
    Over TLS the program sees a TLS transport with its peer's certificate, and a protocol that waits
    for the handshake hears of it.
    """

    @implementer(IHandshakeListener)
    class Listening(Kept):
        handshakes = 0

        def handshakeCompleted(self) -> None:
            self.handshakes += 1

    endpoint = await securedWay.to(Peers())
    client = await within(endpoint.connect(Factory.forProtocol(Listening)))
    securedWay.loopback.atEnd(client.transport.abortConnection)
    assert ISSLTransport.providedBy(client.transport)
    assert Certificate.peerFromTransport(client.transport).serialNumber() > 0
    assert client.handshakes == 1
    client.transport.setTcpNoDelay(True)
    assert client.transport.getTcpNoDelay() is True


@pytest_twisted.ensureDeferred
async def test_abortAfterWrite(way: Way) -> None:
    """
    A program that aborts in the turn in which it has written gets C{ConnectionLost} as its reason,
    over TLS as well.
    """
    endpoint = await way.to(Peers())
    client = await within(endpoint.connect(Peers()))
    client.transport.write(b"x")
    client.transport.abortConnection()
    await within(client.lost)
    assert client.reason.check(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_startTLSInside(way: Way) -> None:
    """
    Two protocols that begin TLS between themselves do so inside of the tunnel, with a producer at
    work; they see each other's certificate, and their polite close is one.
    """
    peers = Peers()
    endpoint = await way.to(peers)
    client = await within(endpoint.connect(Factory.forProtocol(Collector)))
    peer = await within(peers.accepted.get())
    handshaken: Deferred[None] = Deferred()
    peer.handshakeCompleted = lambda: handshaken.callback(None)
    peer.transport.startTLS(serverOptions())
    client.transport.startTLS(clientOptions(), normal=True)
    client.transport.write(b"secret")
    await within(handshaken)
    assert await within(peer.heard.get()) == b"secret"
    assert Certificate.peerFromTransport(client.transport).serialNumber() > 0
    client.wanted = 1_000_000
    peer.transport.write(bytes(1_000_000))
    peer.transport.loseConnection()
    await within(client.complete, 20)
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_serviceAbove(way: Way) -> None:
    """
    A service with a heartbeat of its own above a tunnel: both stay up while all is well, a
    reset keeps its errno and evidence through the stack, a silence its verdict, and the service
    comes back after each.
    """
    hooks = Recorder()
    serving = HeartbeatServerFactory(heartbeat=QUICK)
    way.loopback.atEnd(serving.close)
    endpoint = await way.to(serving)
    connected = hooks.next("connected")
    service = way.loopback.service(
        endpoint, Factory.forProtocol(HeartbeatProtocol), hooks=hooks, heartbeat=QUICK
    )
    link = await within(connected)
    await wait(4 * QUICK.bound)
    assert hooks.told("disconnected") == []
    await within(link.protocol.sendMessage(bytes(500_000)))
    assert link.bytesBuffered == 0
    lost, again = hooks.next("disconnected"), hooks.next("connected")
    way.proxy.reset()
    cause: Cause = await within(lost)
    if not way.loopback.secured:
        assert isinstance(cause, PeerReset)
        assert "errno" in str(cause)
    if sys.platform == "linux":
        assert cause.evidence is not None
    await within(again)
    lost, again = hooks.next("disconnected"), hooks.next("connected")
    way.proxy.inject(BlackHole(), connections="existing")
    assert isinstance(await within(lost), PeerSilent)
    await within(again)
    assert service.state == "connected"


class Raising(Kept):
    """
    Raises at its first bytes.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        raise ZeroDivisionError("too much")


@pytest_twisted.ensureDeferred
async def test_carriedProtocolRaises(way: Way, loggedErrors: Any) -> None:
    """
    The cause of a service's link says what the protocol raised, through the tunnel below.
    """
    hooks = Recorder()
    greeting = Peers()
    endpoint = await way.to(greeting)
    connected, lost = hooks.next("connected"), hooks.next("disconnected")
    factory = Factory.forProtocol(Raising)
    way.loopback.service(endpoint, factory, hooks=hooks, retryPolicy=lambda _: 60.0)
    await within(connected)
    peer = await within(greeting.accepted.get())
    peer.transport.write(b"ready?")
    cause: Cause = await within(lost)
    assert str(cause) == "the protocol raised ZeroDivisionError: too much"
    loggedErrors.flush(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_strangers(plainWay: Way) -> None:
    """
    A plain client at a C{heartbeat:} server loses its connection, and a C{heartbeat:} client at a
    plain server fails to connect, both at the first word.
    """
    from twisted.internet import reactor

    await plainWay.to(KeptFactory())
    plain = clientFromString(reactor, f"tcp:127.0.0.1:{plainWay.proxy.port}")
    agent = Agent.usingEndpointFactory(reactor, Always(plain))
    asking = agent.request(b"GET", b"http://peer.example/")
    error = await failureOf(asking)
    assert isinstance(error, ResponseFailed)
    assert error.reasons[0].check(ConnectionLost)

    class Greeter(Peer):
        def connectionMade(self) -> None:
            self.transport.write(b"220 ready\r\n")  # type: ignore[union-attr]

    greeting = Peers()
    greeting.protocol = Greeter
    number = plainWay.loopback.listen(greeting)
    tunnel = clientFromString(reactor, f"heartbeat:tcp:127.0.0.1:{number}:within={BOUND}")
    error = await failureOf(tunnel.connect(KeptFactory()))
    assert isinstance(error, ProtocolViolation)
    assert "does the other end have the heartbeat: prefix?" in str(error)


def told(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """
    The events of links of one name.
    """
    return [event for event in events if event.get("event") == name]


@pytest.mark.parametrize("where", ["server", "client"])
@pytest_twisted.ensureDeferred
async def test_prefixAtOneEnd(where: str, plainWay: Way, events: list[dict[str, Any]]) -> None:
    """
    The prefix at one end alone is named in the log of that end, with the cause of the end, and in
    that of the other if that watches its links; neither tells of a connected tunnel.
    """
    from twisted.internet import reactor

    ask = "does the other end have the heartbeat: prefix?"
    plain: Any = HeartbeatFactory(Peers(), name="plain", heartbeat=None)
    if where == "server":
        await plainWay.to(KeptFactory())
        number = plainWay.proxy.port
        made = await within(clientFromString(reactor, f"tcp:127.0.0.1:{number}").connect(plain))
        made.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await within(made.lost)
    else:
        number = plainWay.loopback.listen(plain)
        tunnel = clientFromString(reactor, f"heartbeat:tcp:127.0.0.1:{number}:within={BOUND}")
        error = await failureOf(tunnel.connect(KeptFactory()))
        assert ask in str(error)
    await wait(0.05)
    [ended] = [one for one in told(events, "disconnected") if one["link"] != "plain"]
    assert ended["reason"].endswith(ask)
    assert {one["link"] for one in told(events, "connected")} == {"plain"}
    said = [formatEvent(event) for event in events]
    assert any("does this end lack the heartbeat: prefix?" in one for one in said)


@pytest.mark.parametrize("where", ["server", "client"])
@pytest_twisted.ensureDeferred
async def test_prefixOnceSeenIsNotAskedFor(
    where: str, plainWay: Way, events: list[dict[str, Any]]
) -> None:
    """
    Nobody is asked for the prefix once a hello has come on a link of the endpoint: neither a client
    whose server has gone, nor a server at which a stranger knocks.
    """
    from twisted.internet import reactor

    endpoint = await plainWay.to(KeptFactory())
    made = await within(endpoint.connect(Peers()))
    made.transport.loseConnection()
    await within(made.lost)
    if where == "server":
        plain = clientFromString(reactor, f"tcp:127.0.0.1:{plainWay.proxy.port}")
        stranger = await within(plain.connect(Peers()))
        stranger.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await within(stranger.lost)
    else:
        plainWay.proxy.inject(BlackHole())
        error = await failureOf(endpoint.connect(KeptFactory()))
        assert isinstance(error, PeerSilent)
        assert "prefix?" not in str(error)
    await wait(0.05)
    assert len(told(events, "disconnected")) >= 3
    assert not [event for event in told(events, "disconnected") if "prefix?" in event["reason"]]


@pytest_twisted.ensureDeferred
async def test_builtInProtocolMeetsATunnel(plainWay: Way, events: list[dict[str, Any]]) -> None:
    """
    A client of the built-in protocol at a tunnel that carries that protocol is told so, too.
    """
    serving = HeartbeatServerFactory(heartbeat=QUICK)
    plainWay.loopback.atEnd(serving.close)
    await plainWay.to(serving)
    hooks = Recorder()
    connected = hooks.next("connected")
    from twisted.internet import reactor

    plainWay.loopback.service(
        clientFromString(reactor, f"tcp:127.0.0.1:{plainWay.proxy.port}"),
        Factory.forProtocol(HeartbeatProtocol),
        hooks=hooks,
        heartbeat=QUICK,
    )
    await within(connected)
    await wait(0.2)
    said = [formatEvent(event) for event in events]
    assert any("does this end lack the heartbeat: prefix?" in one for one in said)


@pytest_twisted.ensureDeferred
async def test_linksOfAClientCountOn(way: Way, events: list[dict[str, Any]]) -> None:
    """
    The links of one C{heartbeat:} endpoint have numbers of their own, and the endpoint's name, in
    which its address is.
    """
    endpoint = await way.to(Peers())
    for number in (1, 2, 3):
        client = await within(endpoint.connect(KeptFactory()))
        mine = [one for one in told(events, "connected") if str(way.proxy.port) in one["link"]]
        assert [one["generation"] for one in mine] == list(range(1, number + 1))
        client.transport.loseConnection()
        while not client.losses:
            await wait(0.01)


@pytest.mark.parametrize("prefix", ["heartbeat", "keepalive", "keepalive:heartbeat"])
@pytest_twisted.ensureDeferred
async def test_endpointThatWrapsAnother(
    prefix: str, plainWay: Way, events: list[dict[str, Any]]
) -> None:
    """
    A prefix before an endpoint that carries the protocol in WebSocket messages, and never calls
    C{makeConnection}, does what it does elsewhere, at both ends.
    """
    pytest.importorskip("autobahn.twisted.websocket")
    from twisted.internet import reactor

    within1 = f":within={BOUND}" if "heartbeat" in prefix else ""
    idle = ":idle=7" if "keepalive" in prefix else ""
    quoted = r"autobahn:tcp\:0\:interface\=127.0.0.1:url=ws\://localhost\:1"
    peers = Peers()
    port = await serverFromString(reactor, f"{prefix}:{quoted}{within1}{idle}").listen(peers)
    plainWay.loopback.atEnd(port.stopListening)
    number = port.getHost().port
    where = rf"autobahn:tcp\:127.0.0.1\:{number}:url=ws\://localhost\:{number}"
    endpoint = clientFromString(reactor, f"{prefix}:{where}{within1}{idle}")
    factory = KeptFactory()
    fired = await within(endpoint.connect(factory))
    peer = await within(peers.accepted.get())
    [client] = factory.built
    if "heartbeat" in prefix:
        assert fired is client
        await wait(2 * BOUND)
        assert told(events, "disconnected") == []
    peer.transport.write(b"to the client")
    while client.received != b"to the client":
        await wait(0.01)
    client.transport.write(b"to the peer")
    assert await within(peer.heard.get()) == b"to the peer"
    if idle:
        for one in (client, peer):
            handle = findConnection(one.transport).socket  # type: ignore[union-attr]
            assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    if "heartbeat" in prefix:
        client.transport.loseConnection()
        await within(peer.lost)
    else:
        client.transport.loseConnection()
        while not (client.losses and peer.losses):
            await wait(0.01)


@pytest_twisted.ensureDeferred
async def test_endpointThatBuildsNothing(plainWay: Way) -> None:
    """
    An endpoint that connects something else than the tunnel is an error, and its connection is
    closed.
    """
    from twisted.internet import reactor

    @implementer(IStreamClientEndpoint)
    class Ignoring:
        def connect(self, factory: Any) -> Any:
            number = plainWay.loopback.listen(peers)
            plain = clientFromString(reactor, f"tcp:127.0.0.1:{number}")
            return plain.connect(KeptFactory())

    peers = Peers()
    endpoint = clientFor("heartbeat", reactor, ["tcp", "h", "1"], {})
    endpoint._wrappedEndpoint = Ignoring()
    error = await failureOf(endpoint.connect(KeptFactory()))
    assert isinstance(error, ConnectFailed)
    peer = await within(peers.accepted.get())
    await within(peer.lost)


@pytest.mark.skipif(sys.platform == "win32", reason="no UNIX sockets in Twisted here")
@pytest_twisted.ensureDeferred
async def test_overUnixSockets(plainWay: Way, tmp_path: Path) -> None:
    """
    Where nobody sees the bytes on the socket, a pause of this side is no silence of the peer's.
    """
    from twisted.internet import reactor

    peers = Peers()
    place = f"heartbeat:unix:{tmp_path}/s:within=0.6"
    port = await serverFromString(reactor, place).listen(peers)
    plainWay.loopback.atEnd(port.stopListening)
    client = await within(clientFromString(reactor, place).connect(Factory.forProtocol(Collector)))
    peer = await within(peers.accepted.get())
    client.wanted = 1_000_000
    peer.transport.write(bytes(1_000_000))
    client.transport.pauseProducing()
    await wait(1.5)
    assert client.losses == peer.losses == 0
    client.transport.resumeProducing()
    await within(client.complete)
    await wait(1.0)
    assert client.losses == peer.losses == 0
    client.transport.loseConnection()
    await within(peer.lost)
