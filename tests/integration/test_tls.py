# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
TLS on real loopback sockets (promises 13, 15, 18): whom a client trusts, whom a server lets in, and
what becomes of those whose certificate is wrong.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IPushProducer
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    TLSVersion,
    optionsForClientTLS,
)
from twisted.protocols.policies import ProtocolWrapper, TimeoutFactory, WrappingFactory
from zope.interface import implementer

from twisted_heartbeat import (
    Backoff,
    ClosedHere,
    HandshakeFailed,
    HeartbeatClientFactory,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerSilent,
    Retry,
)
from twisted_heartbeat.transport.layers import findConnection

from ..support.loopback import (
    NAME,
    Loopback,
    Peers,
    authority,
    clientOptions,
    connectedPair,
    opened,
    within,
)
from ..support.modules import imported
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

CHECKOUT = Path(__file__).parents[2]

TLS_CLIENT = CHECKOUT / "docs" / "examples" / "tls_client.py"

DAY = timedelta(days=1)

SLOW = Backoff()
"""The default, whose delays are recorded here and not waited for."""


@pytest.fixture
def place() -> Iterator[Loopback]:
    """
    Real sockets with TLS.
    """
    with opened(True) as loopback:
        yield loopback


@pytest.fixture
def hooks() -> Recorder:
    """
    What is told.
    """
    return Recorder()


@cache
def stranger() -> trustme.CA:
    """
    Vouches for people, too, but nobody here has asked it to.
    """
    return trustme.CA()


@cache
def example() -> Any:
    """
    The module that the page shows.
    """
    return imported(TLS_CLIENT)


def certificateOf(issuer: trustme.CA) -> Certificate:
    return Certificate.loadPEM(issuer.cert_pem.bytes())


def identity(issuer: trustme.CA, name: str = NAME, **validity: datetime) -> PrivateCertificate:
    """
    Somebody's key and certificate.
    """
    issued = issuer.issue_cert(name, **validity)
    return PrivateCertificate.loadPEM(issued.private_key_and_cert_chain_pem.bytes())


def kept(folder: Path, name: str, pem: trustme.Blob) -> str:
    """
    The path of a file with that in it.
    """
    path = folder / name
    path.write_bytes(pem.bytes())
    return str(path)


def listen(place: Loopback, factory: Factory, options: Any) -> int:
    """
    A server with a certificate of the test's choice.

    @return: the port's number.
    """
    from twisted.internet import reactor

    port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
    place.atEnd(port.stopListening)
    number: int = port.getHost().port
    return number


def wayTo(port: int, options: Any) -> Any:
    from twisted.internet import reactor

    return wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port))


async def refusals(place: Loopback, hooks: Recorder, endpoint: Any, count: int = 3) -> list[Retry]:
    """
    The first so many retries of a service whose attempts come to nothing; no delay is waited for.
    """
    service = place.service(endpoint, KeptFactory(), hooks=hooks, retryPolicy=SLOW)
    retries = []
    for _ in range(count):
        retries.append(await within(hooks.next("retrying")))
        service.reconnectNow()
    await within(service.stopService())
    return retries


def isSlow(delays: list[float]) -> bool:
    """
    Whether they are of the kind that follows on a certificate: never soon, and ever later.
    """
    return delays[0] >= SLOW.spread / 2 and all(a <= b for a, b in pairwise(delays))


# Whom a client trusts.


@pytest_twisted.ensureDeferred
async def test_ownAuthority(place: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    An endpoint string with C{trustRoots=} connects to a server whose certificate is of an authority
    in that folder, and for that name.
    """
    from twisted.internet import reactor

    kept(tmp_path, "own.pem", authority().cert_pem)
    port = listen(place, Peers(), identity(authority()).options())
    way = rf"tls:{NAME}:{port}:trustRoots={tmp_path}:endpoint=tcp\:127.0.0.1\:{port}"
    connected = hooks.next("connected")
    place.service(clientFromString(reactor, way), KeptFactory(), hooks=hooks)
    assert (await within(connected)).state == "alive"
    assert hooks.names == ["connecting", "connected"]


@pytest_twisted.ensureDeferred
async def test_endpointStringChecksTheName(
    place: Loopback, hooks: Recorder, tmp_path: Path
) -> None:
    """
    The name in an endpoint string is checked with nothing more said: the same authority, vouching
    for another, is refused.
    """
    from twisted.internet import reactor

    kept(tmp_path, "own.pem", authority().cert_pem)
    port = listen(place, Peers(), identity(authority()).options())
    way = rf"tls:other.example:{port}:trustRoots={tmp_path}:endpoint=tcp\:127.0.0.1\:{port}"
    [retry] = await refusals(place, hooks, clientFromString(reactor, way), 1)
    assert type(retry.cause) is HandshakeFailed
    assert "other.example" in str(retry.cause)
    assert "connected" not in hooks.names


@pytest_twisted.ensureDeferred
async def test_systemsAuthorities(
    place: Loopback, hooks: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With nothing said of authorities, those of the system count, and C{SSL_CERT_FILE} names them.
    """
    monkeypatch.setenv("SSL_CERT_FILE", kept(tmp_path, "own.pem", authority().cert_pem))
    port = listen(place, Peers(), identity(authority()).options())
    connected = hooks.next("connected")
    place.service(wayTo(port, example().checked(NAME)), KeptFactory(), hooks=hooks)
    await within(connected)
    assert "retrying" not in hooks.names


@pytest_twisted.ensureDeferred
async def test_pinnedAuthority(
    place: Loopback, hooks: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With a pinned authority no other counts, not even one that the system trusts (promise 18).
    """
    monkeypatch.setenv("SSL_CERT_FILE", kept(tmp_path, "public.pem", stranger().cert_pem))
    options = example().pinned(NAME, kept(tmp_path, "own.pem", authority().cert_pem))
    good = listen(place, Peers(), identity(authority()).options())
    bad = listen(place, Peers(), identity(stranger()).options())
    connected = hooks.next("connected")
    place.service(wayTo(good, options), KeptFactory(), hooks=hooks)
    await within(connected)
    others = Recorder()
    [retry] = await refusals(place, others, wayTo(bad, options), 1)
    assert type(retry.cause) is HandshakeFailed
    assert "unable to get local issuer certificate" in str(retry.cause)
    assert "connected" not in others.names


# What becomes of a wrong certificate.


@cache
def wrongServer(fault: str) -> CertificateOptions:
    """
    A server that C{clientOptions} must not believe.
    """
    now = datetime.now(UTC)
    made: dict[str, Callable[[], PrivateCertificate]] = {
        "name": lambda: identity(authority(), "other.example"),
        "authority": lambda: identity(stranger()),
        "expired": lambda: identity(authority(), not_before=now - 2 * DAY, not_after=now - DAY),
        "early": lambda: identity(authority(), not_before=now + DAY, not_after=now + 2 * DAY),
    }
    return made[fault]().options()


WORDS = {
    "name": NAME,
    "authority": "unable to get local issuer certificate",
    "expired": "certificate has expired",
    "early": "certificate is not yet valid",
}


@pytest.mark.parametrize("fault", WORDS)
@pytest_twisted.ensureDeferred
async def test_wrongCertificate(place: Loopback, hooks: Recorder, fault: str) -> None:
    """
    A wrong certificate is C{HandshakeFailed} with the reason in words, never connected, never
    proven, and backed off slowly and ever more so (promises 13, 15, 18).
    """
    port = listen(place, Peers(), wrongServer(fault))
    retries = await refusals(place, hooks, wayTo(port, clientOptions()))
    for retry in retries:
        assert type(retry.cause) is HandshakeFailed
        assert WORDS[fault] in str(retry.cause)
    assert [retry.attempt for retry in retries] == [1, 2, 3]
    assert isSlow([retry.delay for retry in retries])
    assert "connected" not in hooks.names


@pytest.mark.parametrize("fault", WORDS)
@pytest_twisted.ensureDeferred
async def test_whenConnectedFails(place: Loopback, fault: str) -> None:
    """
    Who waits in C{whenConnected(failAfterFailures=1)} is told why, after one attempt.
    """
    port = listen(place, Peers(), wrongServer(fault))
    service = place.service(wayTo(port, clientOptions()), KeptFactory(), retryPolicy=SLOW)
    with pytest.raises(HandshakeFailed) as raised:
        await within(service.whenConnected(failAfterFailures=1))
    assert WORDS[fault] in str(raised.value)


class Recorded(HeartbeatClientFactory):
    """
    Chooses its delays as ever, and does not wait for them.
    """

    protocol = Kept
    noisy = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.chosen: list[float] = []

    def nextDelay(self, attempt: int, cause: Any) -> float:
        """
        Record it.
        """
        self.chosen.append(super().nextDelay(attempt, cause))
        return 0.0


def connectSSL(place: Loopback, port: int, factory: Recorded) -> None:
    """
    C{reactor.connectSSL}, undone at the end.
    """
    from twisted.internet import reactor

    connector = reactor.connectSSL("127.0.0.1", port, factory, clientOptions())

    async def end() -> None:
        factory.stopTrying()
        if factory.link is not None:
            await factory.link.close()
        connector.disconnect()

    place.atEnd(lambda: Deferred.fromCoroutine(end()))


@pytest_twisted.ensureDeferred
async def test_factoryOverSSL(place: Loopback, hooks: Recorder) -> None:
    """
    C{HeartbeatClientFactory} under C{reactor.connectSSL} connects to a server that proves its name.
    """
    connected = hooks.next("connected")
    server = identity(authority())
    connectSSL(place, listen(place, Peers(), server.options()), Recorded(hooks=hooks))
    link = await within(connected)
    shown = Certificate.peerFromTransport(link.protocol.transport)
    assert shown.digest("sha256") == server.digest("sha256")
    assert "retrying" not in hooks.names


@pytest.mark.parametrize("fault", WORDS)
@pytest_twisted.ensureDeferred
async def test_factoryWrongCertificate(place: Loopback, hooks: Recorder, fault: str) -> None:
    """
    Under C{reactor.connectSSL} a wrong certificate comes to the same: named in words, never
    connected, slowly and ever more so (promises 13, 15, 18).
    """
    factory = Recorded(hooks=hooks)
    connectSSL(place, listen(place, Peers(), wrongServer(fault)), factory)
    for attempt in (1, 2, 3):
        retry = await within(hooks.next("retrying"))
        assert type(retry.cause) is HandshakeFailed
        assert WORDS[fault] in str(retry.cause)
        assert retry.attempt == attempt
    assert isSlow(factory.chosen)
    assert "connected" not in hooks.names


@implementer(IOpenSSLServerConnectionCreator)
class Presented:
    """
    A certificate that can be changed while the server listens.
    """

    def __init__(self, options: CertificateOptions) -> None:
        self.options = options

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """
        Twisted asks for each connection.
        """
        return SSL.Connection(self.options.getContext(), None)


@pytest_twisted.ensureDeferred
async def test_comesBackByItself(place: Loopback, hooks: Recorder) -> None:
    """
    A certificate that was not yet valid, as to a box whose clock is not yet set, and then is,
    leads to a link without anybody's doing (promise 15).
    """
    presented = Presented(wrongServer("early"))
    port = listen(place, Peers(), presented)
    place.service(wayTo(port, clientOptions()), KeptFactory(), hooks=hooks)
    for _ in range(2):
        await within(hooks.next("retrying"))
    presented.options = identity(authority()).options()
    await within(hooks.next("connected"))
    assert all(type(retry.cause) is HandshakeFailed for retry in hooks.told("retrying"))


# Mutual TLS.


def watching(place: Loopback, hooks: Recorder) -> int:
    """
    A port where a server lets in whom its authority vouches for, and watches them.
    """
    factory = HeartbeatServerFactory(hooks=hooks)
    place.atEnd(factory.close)
    return listen(place, factory, identity(authority()).options(certificateOf(authority())))


def mutualOptions(folder: Path) -> Any:
    """
    The options of a client that has a certificate of its own, with two names.
    """
    issued = authority().issue_cert("sensor-17.example", common_name="sensor-17")
    return example().mutual(
        NAME,
        kept(folder, "ca.pem", authority().cert_pem),
        kept(folder, "client.pem", issued.private_key_and_cert_chain_pem),
    )


@pytest_twisted.ensureDeferred
async def test_mutual(place: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    With a certificate of its own the client is let in, and the server's C{connected} hook can read
    that certificate from the link (promise 18).
    """
    server = Recorder()
    port = watching(place, server)
    options = mutualOptions(tmp_path)
    connected = hooks.next("connected")
    factory = Factory.forProtocol(HeartbeatProtocol)
    place.service(wayTo(port, options), factory, hooks=hooks)
    link = await within(server.next("connected"))
    shown = Certificate.peerFromTransport(link.protocol.transport)
    assert shown.getSubject().commonName == b"sensor-17"
    await within(connected)
    assert "retrying" not in hooks.names


PROOFS = {
    "common name": ("sensor-17", True),
    "DNS name": ("sensor-17.example", True),
    "another's name": ("sensor-18", False),
    "part of the name": ("sensor", False),
    "no name": ("", False),
}


@pytest.mark.parametrize(("name", "proven"), PROOFS.values(), ids=PROOFS)
@pytest_twisted.ensureDeferred
async def test_certificateProvesName(
    place: Loopback, tmp_path: Path, name: str, proven: bool
) -> None:
    """
    The name in a peer's hello is authenticated if the client certificate that the server has
    verified carries it, as its common name or as an alternative name; and no other.
    """
    server = Recorder()
    port = watching(place, server)
    options = mutualOptions(tmp_path)
    factory = Factory.forProtocol(HeartbeatProtocol)
    factory.protocol = type("Named", (HeartbeatProtocol,), {"name": name})
    place.service(wayTo(port, options), factory)
    link = await within(server.next("connected"))
    assert (link.name, link.isAuthenticated) == (name, proven)


@pytest_twisted.ensureDeferred
async def test_unverifiedCertificateProvesNothing(place: Loopback) -> None:
    """
    A server that asks for certificates and takes any does not take their names for proven; nor does
    a server that asks for none.
    """
    anybody = identity(authority()).options(certificateOf(authority()))
    anybody.getContext().set_verify(SSL.VERIFY_PEER, lambda *arguments: True)
    own = stranger().issue_cert("sensor-17")
    shown = PrivateCertificate.loadPEM(own.private_key_and_cert_chain_pem.bytes())

    class Named(HeartbeatProtocol):
        name = "sensor-17"

    for options in (anybody, identity(authority()).options()):
        server = Recorder()
        factory = HeartbeatServerFactory(hooks=server)
        place.atEnd(factory.close)
        port = listen(place, factory, options)
        client = optionsForClientTLS(
            NAME, trustRoot=certificateOf(authority()), clientCertificate=shown
        )
        place.service(wayTo(port, client), Factory.forProtocol(Named))
        link = await within(server.next("connected"))
        assert (link.name, link.isAuthenticated) == ("sensor-17", False)


@pytest_twisted.ensureDeferred
async def test_mutualByEndpointString(place: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    C{certificate=} and C{privateKey=} in an endpoint string do the same, from one file.
    """
    from twisted.internet import reactor

    server = Recorder()
    port = watching(place, server)
    kept(tmp_path, "ca.pem", authority().cert_pem)
    issued = authority().issue_cert("sensor-17.example")
    own = kept(tmp_path, "client.key", issued.private_key_and_cert_chain_pem)
    way = (
        rf"tls:{NAME}:{port}:trustRoots={tmp_path}:certificate={own}:privateKey={own}"
        rf":endpoint=tcp\:127.0.0.1\:{port}"
    )
    letIn = server.next("connected")
    factory = Factory.forProtocol(HeartbeatProtocol)
    place.service(clientFromString(reactor, way), factory, hooks=hooks)
    await within(letIn)
    assert "retrying" not in hooks.names


@cache
def wrongClient(fault: str) -> PrivateCertificate | None:
    """
    What a client may show in place of a good certificate.
    """
    now = datetime.now(UTC)
    if fault == "none":
        return None
    if fault == "authority":
        return identity(stranger(), "sensor-17.example")
    return identity(authority(), "sensor-17.example", not_before=now - 2 * DAY, not_after=now - DAY)


ALERTS = {
    "none": "certificate required",
    "authority": "unknown ca",
    "expired": "certificate expired",
}


@pytest.mark.parametrize("fault", ALERTS)
@pytest_twisted.ensureDeferred
async def test_notLetIn(place: Loopback, hooks: Recorder, fault: str) -> None:
    """
    Without a good certificate of its own the client, whose TLS 1.3 handshake is over before the
    server has looked, may be connected for an instant; then it is C{HandshakeFailed} with the
    alert in words, not proven, and slow. For the server it never was connected.
    """
    server = Recorder()
    port = watching(place, server)
    options = optionsForClientTLS(
        NAME, trustRoot=certificateOf(authority()), clientCertificate=wrongClient(fault)
    )
    retries = await refusals(place, hooks, wayTo(port, options))
    for retry in retries:
        assert type(retry.cause) is HandshakeFailed
        assert ALERTS[fault] in str(retry.cause)
    assert [retry.attempt for retry in retries] == [1, 2, 3]
    assert isSlow([retry.delay for retry in retries])
    assert "connected" not in server.names
    assert {type(cause) for cause in server.told("disconnected")} == {HandshakeFailed}


@pytest_twisted.ensureDeferred
async def test_notLetInByOlderTls(place: Loopback, hooks: Recorder) -> None:
    """
    In TLS 1.2 the server looks at the client's certificate within the handshake: never connected.
    """
    port = watching(place, Recorder())
    options = optionsForClientTLS(
        NAME,
        trustRoot=certificateOf(authority()),
        extraCertificateOptions={"lowerMaximumSecurityTo": TLSVersion.TLSv1_2},
    )
    retries = await refusals(place, hooks, wayTo(port, options))
    assert {type(retry.cause) for retry in retries} == {HandshakeFailed}
    assert isSlow([retry.delay for retry in retries])
    assert "connected" not in hooks.names


@pytest_twisted.ensureDeferred
async def test_preparedMeansLetIn(place: Loopback, hooks: Recorder) -> None:
    """
    A C{prepareConnection} that waits for the server's first word keeps a link that TLS 1.3 lets
    live for an instant from being connected.
    """
    options = optionsForClientTLS(NAME, trustRoot=certificateOf(authority()))
    service = place.service(
        wayTo(watching(place, Recorder()), options),
        KeptFactory(),
        hooks=hooks,
        retryPolicy=SLOW,
        prepareConnection=lambda protocol: Deferred(),
    )
    with pytest.raises(HandshakeFailed, match=ALERTS["none"]):
        await within(service.whenConnected(failAfterFailures=1))
    assert "connected" not in hooks.names


# Closing.


@pytest_twisted.ensureDeferred
async def test_closeNotifyAnswered(place: Loopback, hooks: Recorder) -> None:
    """
    A peer that answers close_notify is gone well before C{closeTimeout}.
    """
    service, peer = await connectedPair(place, hooks, KeptFactory(), limits=Limits(closeTimeout=5))
    began = time.monotonic()
    await within(service.stopService())
    assert time.monotonic() - began < 1
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_closeNotifyUnanswered(place: Loopback, hooks: Recorder) -> None:
    """
    If the peer never answers close_notify, C{stopService} fires within C{closeTimeout}, and no
    socket is left (promise 9).
    """
    factory = KeptFactory()
    limits = Limits(closeTimeout=0.5)
    service, peer = await connectedPair(place, hooks, factory, limits=limits)
    connection = findConnection(factory.built[0].transport)
    assert connection is not None and hasattr(connection, "socket")
    peer.transport.pauseProducing()
    began = time.monotonic()
    await within(service.stopService())
    assert 0.95 * 0.5 <= time.monotonic() - began <= 0.5 + 0.5
    assert not hasattr(connection, "socket")
    assert [type(cause) for cause in hooks.told("disconnected")] == [ClosedHere]
    peer.transport.abortConnection()
    await within(peer.lost)


@implementer(IPushProducer)
class Idle:
    """
    Produces nothing.
    """

    def resumeProducing(self) -> None:
        """
        Nothing waits.
        """

    def pauseProducing(self) -> None:
        """
        Nothing comes.
        """

    def stopProducing(self) -> None:
        """
        Nothing is left.
        """


@pytest_twisted.ensureDeferred
async def test_abortedAfterWrite(place: Loopback, hooks: Recorder) -> None:
    """
    A protocol with a producer that has written right before the verdict is told of the verdict, and
    not of TLS's error about the late write.
    """
    factory = KeptFactory()
    service, _ = await connectedPair(place, hooks, factory)
    ended = hooks.next("disconnected")
    [protocol] = factory.built
    protocol.transport.registerProducer(Idle(), True)
    protocol.transport.write(b"x")
    assert service.link is not None
    service.link.abort(PeerSilent("nothing came"))
    assert type(await within(ended)) is PeerSilent
    assert protocol.reason.type is PeerSilent


@pytest_twisted.ensureDeferred
async def test_serverCloseNotifyUnanswered(place: Loopback, hooks: Recorder) -> None:
    """
    The same for a server that closes all its links: C{close} fires within C{closeTimeout}.
    """
    server = Recorder()
    limits = Limits(closeTimeout=0.5)
    watched = HeartbeatServerFactory(KeptFactory(), hooks=server, limits=limits)
    port = listen(place, watched, identity(authority()).options())
    factory = KeptFactory()
    both = [hooks.next("connected"), server.next("connected")]
    place.service(wayTo(port, clientOptions()), factory, hooks=hooks)
    for one in both:
        await within(one)
    factory.built[0].transport.pauseProducing()
    connection = findConnection(server.told("connected")[0].protocol.transport)
    began = time.monotonic()
    await within(watched.close())
    assert 0.95 * 0.5 <= time.monotonic() - began <= 0.5 + 0.5
    assert not hasattr(connection, "socket")
    assert watched.peers == {}
    factory.built[0].transport.abortConnection()
    await within(hooks.next("disconnected"))


# The page's example.


class Reader(ProcessProtocol):
    """
    Reads a program's first line.

    @ivar line: fires with it, or with all that it said if it ends before.
    @ivar ended: fires when the program has.
    """

    def __init__(self) -> None:
        self._said = b""
        self.line: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Keep it, and what it complains of, too.
        """
        self._said += data
        if b"\n" in self._said and not self.line.called:
            self.line.callback(self._said.partition(b"\n")[0])

    def processEnded(self, reason: Any) -> None:
        """
        Tell.
        """
        self.ended.callback(None)
        if not self.line.called:
            self.line.callback(self._said)


async def firstLine(place: Loopback, *arguments: object) -> bytes:
    """
    What the example says first.
    """
    from twisted.internet import reactor

    reader = Reader()
    command = [sys.executable, str(TLS_CLIENT), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = reactor.spawnProcess(reader, sys.executable, command, env=env)
    try:
        return await within(reader.line, 20)
    finally:
        if not reader.ended.called:
            process.signalProcess("TERM")
        await within(reader.ended, 10)


@pytest_twisted.ensureDeferred
async def test_example(place: Loopback, tmp_path: Path) -> None:
    """
    The page's example runs as it stands: connected with a certificate, and told why without.
    """
    factory = HeartbeatServerFactory()
    place.atEnd(factory.close)
    local = identity(authority(), "localhost")
    port = listen(place, factory, local.options(certificateOf(authority())))
    authorityPath = kept(tmp_path, "ca.pem", authority().cert_pem)
    strangerPath = kept(tmp_path, "stranger.pem", stranger().cert_pem)
    issued = authority().issue_cert("sensor-17.example")
    own = kept(tmp_path, "client.pem", issued.private_key_and_cert_chain_pem)
    said = await firstLine(place, "localhost", port, authorityPath, own)
    assert said == b"connected to 127.0.0.1"
    said = await firstLine(place, "localhost", port, strangerPath, own)
    assert b"TLS handshake failed" in said and b"certificate verify failed" in said


def wrapped(factory: Any, layers: int) -> Any:
    """
    A factory inside of so many of Twisted's wrappers, which do not tell of a TLS handshake.
    """
    for _ in range(layers):
        factory = WrappingFactory(factory)
    return factory


@pytest.mark.parametrize("layers", [1, 2])
@pytest_twisted.ensureDeferred
async def test_handshakeBelowForeignWrappers(place: Loopback, hooks: Recorder, layers: int) -> None:
    """
    A link above wrappers that do not tell of the TLS handshake hears of it all the same, at both
    ends, and before any message.
    """
    ours = Recorder()
    server = HeartbeatServerFactory(hooks=ours)
    port = place.listen(wrapped(server, layers))
    accepted, connected = ours.next("connected"), hooks.next("connected")

    class Inside(HeartbeatProtocol):
        pass

    # The link of the service, because the protocol inside has it.
    inside = wrapped(Factory.forProtocol(Inside), layers)
    place.service(place.endpoint(port), inside, hooks=hooks)
    link = await within(accepted)
    assert (await within(connected)).protocol.__class__ is Inside
    assert link.state == "alive"
    assert list(server.peers.values()) == [link]
    # The layers forget what they were given for that.
    assert "handshakeCompleted" not in vars(link.protocol.transport)


@pytest_twisted.ensureDeferred
async def test_silentAfterHandshakeBelowAWrapper(place: Loopback, hooks: Recorder) -> None:
    """
    A peer that says nothing after its TLS handshake has completed it, below a wrapper, too.
    """
    factory = HeartbeatFactory(Factory.forProtocol(Kept), hooks=hooks)
    connected = hooks.next("connected")
    port = place.listen(TimeoutFactory(factory, None))
    place.service(place.endpoint(port), KeptFactory())
    assert (await within(connected)).state == "alive"


class TakesNoAttribute(ProtocolWrapper):
    """
    A layer above TLS that can not be made to tell of the handshake.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "handshakeCompleted":
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest_twisted.ensureDeferred
async def test_layerThatTellsOfNoHandshake(place: Loopback, hooks: Recorder) -> None:
    """
    If a layer above TLS can not tell of the handshake, the link looks for itself before it aborts
    the connection for want of one.
    """
    limits = Limits(connectTimeout=0.3)
    factory = HeartbeatFactory(Factory.forProtocol(Kept), hooks=hooks, limits=limits)
    layers = WrappingFactory(factory)
    layers.protocol = TakesNoAttribute
    connected = hooks.next("connected")
    place.service(place.endpoint(place.listen(layers)), KeptFactory())
    assert (await within(connected)).state == "alive"
    assert hooks.names == ["connected"]
