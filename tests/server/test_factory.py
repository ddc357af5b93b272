# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServerFactory} on real sockets: many peers, each watched independently.
"""

from __future__ import annotations

import socket
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import (
    ClosedHere,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
)
from twisted_heartbeat.core import wire

from ..conftest import LoggedErrors
from ..support.loopback import NAME, QUICK, Loopback, Peers, authority, wait, within
from ..support.virtualnetwork import Kept, KeptFactory, Recorder


class Greeter(Kept):
    """
    A client that says hello, and nothing more.
    """

    def connectionMade(self) -> None:
        """
        Say it.
        """
        self.transport.write(wire.encode(wire.Hello("greeter")))  # type: ignore[union-attr]


def talker() -> Factory:
    """
    Makes clients that speak the built-in protocol.
    """
    return Factory.forProtocol(HeartbeatProtocol)


@pytest_twisted.ensureDeferred
async def test_peersHoldsTheLinksThatAreUp(loopback: Loopback) -> None:
    """
    C{peers} holds the links that are up, by generation, from C{connected} to C{disconnected}.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    assert server.peers == {}
    links = []
    services = []
    for _ in range(3):
        connected = hooks.next("connected")
        services.append(loopback.service(endpoint, talker()))
        links.append(await within(connected))
    assert server.peers == {link.generation: link for link in links}
    assert [link.generation for link in links] == [1, 2, 3]
    ended = hooks.next("disconnected")
    await within(services[1].stopService())
    assert type(await within(ended)) is PeerClosed
    assert sorted(server.peers) == [1, 3]


@pytest_twisted.ensureDeferred
async def test_garbageEndsOneLinkAlone(loopback: Loopback) -> None:
    """
    Garbage from a peer ends that link with C{ProtocolViolation}; another on the same server stays
    up, and is still watched (promise 17).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=QUICK)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    connected = hooks.next("connected")
    loopback.service(endpoint, talker(), heartbeat=QUICK)
    good = await within(connected)
    ended = hooks.next("disconnected")
    bad: Any = KeptFactory()
    service = loopback.service(endpoint, bad, retryPolicy=lambda attempt: 60.0)
    await within(service.whenConnected())
    bad.built[0].transport.write(b"GET / HTTP/1.1\r\n\r\n")
    cause = await within(ended)
    assert type(cause) is ProtocolViolation
    assert isinstance(await within(service.whenDisconnected()), (PeerReset, type(None)))
    await wait(2 * QUICK.bound)
    assert list(server.peers.values()) == [good]
    assert good.state == "alive"
    assert len(hooks.told("disconnected")) == 1


class Quoting(HeartbeatProtocol):
    """
    Quotes each message in an exception.
    """

    def messageReceived(self, message: bytes) -> None:
        """
        Fail.
        """
        raise LookupError(f"no command {message.decode()}")


class QuotingLine(LineReceiver):
    """
    The same for lines.
    """

    def lineReceived(self, line: bytes) -> None:
        """
        Fail.
        """
        raise LookupError(f"no command {line.decode()}")


@pytest.mark.parametrize("kind", [Quoting, QuotingLine])
@pytest_twisted.ensureDeferred
async def test_exceptionThatQuotesThePeer(
    kind: type[Any], loopback: Loopback, loggedErrors: LoggedErrors
) -> None:
    """
    What a protocol raises ends its link and is logged, with the peer's words in it escaped.
    """
    written = StringIO(newline="")
    observer = textFileLogObserver(written)
    globalLogPublisher.addObserver(observer)
    loopback.atEnd(lambda: globalLogPublisher.removeObserver(observer))
    hooks = Recorder()
    server = HeartbeatServerFactory(Factory.forProtocol(kind), hooks=hooks)
    loopback.atEnd(server.close)
    ended = hooks.next("disconnected")
    endpoint = loopback.endpoint(loopback.listen(server))
    client: Any = await within(endpoint.connect(Factory.forProtocol(Kept)))
    loopback.atEnd(client.transport.abortConnection)
    said = b"\x1b[2J\xe2\x80\xae"
    frames = wire.encode(wire.Hello()) + wire.encode(wire.Data(said))
    client.transport.write(frames if kind is Quoting else said + b"\r\n")
    cause = await within(ended)
    assert "LookupError: no command \\x1b[2J\\u202e" in str(cause)
    assert loggedErrors.flush(LookupError)
    assert "LookupError: no command \\x1b[2J\\u202e" in written.getvalue()
    assert "\x1b" not in written.getvalue()


@pytest_twisted.ensureDeferred
async def test_silentClientIsFound(loopback: Loopback) -> None:
    """
    A client that says nothing after its hello is found within the bound, and its resources are
    cleaned up.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=QUICK)
    loopback.atEnd(server.close)
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    loopback.service(
        loopback.endpoint(loopback.listen(server)),
        Factory.forProtocol(Greeter),
        heartbeat=None,
        retryPolicy=lambda attempt: 60.0,
    )
    link = await within(connected)
    ran: list[str] = []
    link.addCleanup(ran.append, "cleaned up")
    began = link.peerWatch.detector.heardAt
    assert isinstance(await within(ended), PeerSilent)
    assert 0.95 * QUICK.bound <= time.monotonic() - began <= QUICK.bound + 1
    await within(link.whenGone())
    assert ran == ["cleaned up"]
    assert server.peers == {}


@pytest_twisted.ensureDeferred
async def test_closeSaysGoodbyeToAll(loopback: Loopback) -> None:
    """
    C{close} says goodbye to all, and fires when all are gone and cleaned up.
    """
    hooks, clientHooks = Recorder(), Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    endpoint = loopback.endpoint(loopback.listen(server))
    ended = clientHooks.next("disconnected")
    for _ in range(2):
        connected = hooks.next("connected")
        loopback.service(endpoint, talker(), hooks=clientHooks, retryPolicy=lambda attempt: 60.0)
        await within(connected)
    await within(server.close())
    assert server.peers == {}
    assert [type(cause) for cause in hooks.told("disconnected")] == [ClosedHere] * 2
    cause = await within(ended)
    assert type(cause) is PeerClosed
    assert "goodbye" in str(cause)


@pytest_twisted.ensureDeferred
async def test_closeIsBounded(loopback: Loopback) -> None:
    """
    C{close} fires within C{closeTimeout} even if a peer does not read (promise 9).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(
        KeptFactory(), hooks=hooks, limits=Limits(closeTimeout=0.4, maxBuffered=None)
    )
    connected = hooks.next("connected")
    client: Any = KeptFactory()
    service = loopback.service(
        loopback.endpoint(loopback.listen(server)), client, retryPolicy=lambda attempt: 60.0
    )
    link = await within(connected)
    await within(service.whenConnected())
    client.built[0].transport.pauseProducing()
    link.protocol.transport.write(bytes(20_000_000))
    await wait(0.05)
    began = time.monotonic()
    await within(server.close())
    assert 0.95 * 0.4 <= time.monotonic() - began <= 0.4 + 1
    assert type(hooks.told("disconnected")[0]) is ClosedHere


@pytest_twisted.ensureDeferred
async def test_hangingHandshakeOfClient(secured: Loopback) -> None:
    """
    A client that connects and never begins its TLS handshake is ended within C{connectTimeout}; it
    was never among the peers, and C{connected} was not called.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, limits=Limits(connectTimeout=0.3))
    ended = hooks.next("disconnected")
    port = secured.listen(server)
    client = socket.create_connection(("127.0.0.1", port))
    secured.atEnd(client.close)
    await within(ended)
    assert hooks.names == ["disconnected"]
    assert type(hooks.told("disconnected")[0]).__name__ == "HandshakeFailed"
    assert hooks.told("disconnected")[0].limit == "connectTimeout"
    assert server.peers == {}


@pytest_twisted.ensureDeferred
async def test_closeDuringHandshake(secured: Loopback) -> None:
    """
    C{close} also ends a connection whose TLS handshake has not been completed.
    """
    server = HeartbeatServerFactory(hooks=Recorder(), limits=Limits(closeTimeout=0.3))
    port = secured.listen(server)
    client = socket.create_connection(("127.0.0.1", port))
    secured.atEnd(client.close)
    await wait(0.1)
    await within(server.close())


@pytest_twisted.ensureDeferred
async def test_wrappedFactoryUnchanged(plain: Loopback) -> None:
    """
    Any factory can be watched; it builds its protocols itself, and they are told of their end.
    """
    hooks = Recorder()
    factory: Any = KeptFactory()
    server = HeartbeatServerFactory(factory, hooks=hooks)
    plain.atEnd(server.close)
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    service = plain.service(plain.endpoint(plain.listen(server)), Peers())
    link = await within(connected)
    assert link.protocol is factory.built[0]
    await within(service.stopService())
    await within(ended)
    assert factory.built[0].losses == 1


# Who may come in, over real sockets.


class Named(HeartbeatProtocol):
    """
    A client with a name.
    """

    name = "pump"


def named(name: str) -> Factory:
    """
    Makes clients of that name.
    """
    return Factory.forProtocol(type("Named", (Named,), {"name": name}))


@pytest_twisted.ensureDeferred
async def test_sameCertificate(secured: Loopback) -> None:
    """
    A peer that comes back with its TLS certificate, before its old link is known dead, has its name
    at once; what the old connection still says is dropped.
    """
    from twisted.internet import reactor

    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    secured.atEnd(server.close)
    trusted = Certificate.loadPEM(authority().cert_pem.bytes())
    issued = authority().issue_cert("pump.example").private_key_and_cert_chain_pem
    own = PrivateCertificate.loadPEM(issued.bytes())
    port = reactor.listenSSL(  # type: ignore[attr-defined]
        0,
        server,
        PrivateCertificate.loadPEM(
            authority().issue_cert(NAME).private_key_and_cert_chain_pem.bytes()
        ).options(trusted),
        interface="127.0.0.1",
    )
    secured.atEnd(port.stopListening)
    options = optionsForClientTLS(NAME, trustRoot=trusted, clientCertificate=own)
    plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    links = []
    for _ in range(2):
        connected = hooks.next("connected")
        secured.service(
            wrapClientTLS(options, plain), named("pump"), retryPolicy=lambda attempt: 60.0
        )
        links.append(await within(connected))
    assert server.named("pump") is links[1]
    assert server.peers == {2: links[1]}
    assert links[0].state == "gone"
    assert hooks.names == ["connected", "disconnected", "connected"]
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    assert links[0].certificate is None
    shown = Certificate(links[1].certificate)
    assert shown.getPublicKey().matches(own.getPublicKey())


@pytest_twisted.ensureDeferred
async def test_liveNameIsKept(loopback: Loopback) -> None:
    """
    Two devices with one name: the first keeps it, the second is told so each time that it comes.
    """
    hooks, second = Recorder(), Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    connected = hooks.next("connected")
    loopback.service(endpoint, named("pump"))
    link = await within(connected)
    refused, ended = hooks.next("refused"), second.next("disconnected")
    loopback.service(endpoint, named("pump"), hooks=second, retryPolicy=lambda attempt: 60.0)
    assert "the name 'pump' is in use" in str(await within(refused))
    assert "in use" in str(await within(ended))
    assert server.named("pump") is link
    assert hooks.names == ["connected", "refused"]


async def opensBeforeItCloses(place: Loopback, server: Any, hooks: Recorder, way: Any) -> None:
    """
    A device connects, connects again, and closes its first connection.
    """
    devices = []
    connected = hooks.next("connected")
    for number in (1, 2):
        devices.append(await within(way.connect(Factory.forProtocol(Greeter))))
        place.atEnd(devices[-1].transport.abortConnection)
        if number == 1:
            await within(connected)
    connected = hooks.next("connected")
    while server._names._last["greeter"].generation == 1:
        await wait(0.01)
    devices[0].transport.loseConnection()
    link = await within(connected)
    assert server.named("greeter") is link
    assert hooks.names == ["connected", "disconnected", "connected"]


@pytest_twisted.ensureDeferred
async def test_opensBeforeItCloses(loopback: Loopback) -> None:
    """
    A device that opens its new connection before it closes its old one is let in: neither a FIN nor
    a close_notify answers the ping that asks whether the old one lives.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    loopback.atEnd(server.close)
    way = loopback.endpoint(loopback.listen(server))
    await opensBeforeItCloses(loopback, server, hooks, way)


@pytest_twisted.ensureDeferred
async def test_opensBeforeItClosesOnUNIX(plain: Loopback, tmp_path: Path) -> None:
    """
    The same on a UNIX socket.
    """
    from twisted.internet import reactor

    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    plain.atEnd(server.close)
    path = str(tmp_path / "hb.sock")
    port = await UNIXServerEndpoint(reactor, path).listen(server)
    plain.atEnd(port.stopListening)
    await opensBeforeItCloses(plain, server, hooks, UNIXClientEndpoint(reactor, path))


@pytest_twisted.ensureDeferred
async def test_refusedHearsWhy(loopback: Loopback) -> None:
    """
    A peer that is refused hears why; another one, beside it, is let in.
    """
    hooks, theirs = Recorder(), Recorder()

    async def admit(address: Any, certificate: Any, hello: wire.Hello) -> str | None:
        await wait(0.02)
        return None if hello.name == "friend" else "friends only"

    server = HeartbeatServerFactory(hooks=hooks, admit=admit)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    ended, connected = theirs.next("disconnected"), hooks.next("connected")
    loopback.service(endpoint, named("foe"), hooks=theirs, retryPolicy=lambda attempt: 60.0)
    assert "friends only" in str(await within(ended))
    loopback.service(endpoint, named("friend"))
    assert (await within(connected)).name == "friend"
    assert [str(cause) for cause in hooks.told("refused")] == ["refused: friends only"]


@pytest_twisted.ensureDeferred
async def test_drainingServerRejectsBeforeTLS(loopback: Loopback) -> None:
    """
    A draining server rejects a new connection at once, over TLS before any handshake.
    """
    from twisted.internet import reactor

    server = HeartbeatServerFactory(hooks=Recorder())
    port = loopback.listen(server)
    await within(server.drain())
    clients = Peers()
    way = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    loopback.service(way, clients, retryPolicy=lambda attempt: 60.0)
    client = await within(clients.accepted.get())
    await within(client.lost)
    assert server._registry.links == []


@pytest_twisted.ensureDeferred
async def test_drainTellsWhenToComeBack(loopback: Loopback) -> None:
    """
    C{drain} tells every peer when to come back, and fires when all are gone.
    """
    hooks = Recorder()
    goodbyes: list[wire.Goodbye] = []

    class Listening(HeartbeatProtocol):
        def frameReceived(self, frame: wire.Frame) -> None:
            if isinstance(frame, wire.Goodbye):
                goodbyes.append(frame)
            super().frameReceived(frame)

    server = HeartbeatServerFactory(hooks=hooks)
    endpoint = loopback.endpoint(loopback.listen(server))
    for _ in range(3):
        connected = hooks.next("connected")
        factory = Factory.forProtocol(Listening)
        loopback.service(endpoint, factory, retryPolicy=lambda attempt: 60.0)
        await within(connected)
    await within(server.drain(retryAfter=3, spread=20, grace=0.1))
    assert server.peers == {}
    assert goodbyes == [wire.Goodbye("closing", 3, 20)] * 3
