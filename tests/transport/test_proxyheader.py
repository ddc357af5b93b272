# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Behind a load balancer that speaks the PROXY protocol: a peer is known by its own address, and a
health check is no peer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.protocols.basic import LineReceiver
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory

from twisted_heartbeat import (
    HandshakeFailed,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    Link,
    LinkHooks,
    PeerClosed,
    ServerLimits,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.endpoints.tunnel import TunnelFactory
from twisted_heartbeat.transport.proxyheader import isHealthCheck

from ..conftest import LoggedErrors
from ..support.loopback import Certificates, Loopback, wait, within
from ..support.virtualnetwork import FakeTransport, Kept, Recorder

BALANCER = IPv4Address("TCP", "10.0.0.1", 40000)
MARK = b"\r\n\r\n\x00\r\nQUIT\n"

LOCAL = MARK + b"\x20\x00\x00\x00"
UNKNOWN = b"PROXY UNKNOWN ? ? ? ?\r\n"
UNSPECIFIED = MARK + b"\x21\x00\x00\x00"
MAPPED = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.9 4000 7000\r\n"


def header(host: str = "192.0.2.7") -> bytes:
    """
    What a balancer says of a client.
    """
    return f"PROXY TCP4 {host} 10.0.0.9 4000 7000\r\n".encode()


def second(host: str = "192.0.2.7") -> bytes:
    """
    The same in version 2.
    """
    numbers = bytes(map(int, host.split("."))) + bytes([10, 0, 0, 9])
    return MARK + b"\x21\x11\x00\x0c" + numbers + b"\x0f\xa0\x1b\x58"


class Line(LineReceiver):
    """
    Keeps the lines, and says one first.
    """

    def connectionMade(self) -> None:
        """
        As SMTP does.
        """
        self.lines: list[bytes] = []
        self.sendLine(b"welcome")

    def lineReceived(self, line: bytes) -> None:
        """
        Keep it.
        """
        self.lines.append(line)


class MixedLine(HeartbeatMixin, Line):
    """
    The same, mixed in.
    """

    def sendPing(self) -> None:
        """
        Make the peer speak.
        """
        self.sendLine(b"ping")


class ServerHarness:
    """
    A server behind a balancer, in virtual time.
    """

    def __init__(self, protocol: type[Any] | None = Line, **settings: Any) -> None:
        self.clock = Clock()
        self.hooks = Recorder()
        wrapped = None if protocol is None else Factory.forProtocol(protocol)
        settings = {"ping": None, "keepAlive": None, **settings}
        self.server = HeartbeatServerFactory(
            wrapped, hooks=self.hooks, clock=self.clock, **settings
        )
        self.outside = HAProxyWrappingFactory(self.server)

    def connects(self, *chunks: bytes, directly: bool = False) -> FakeTransport:
        """
        The balancer connects, and sends these chunks; or a peer does that goes past it.
        """
        factory: Any = self.server if directly else self.outside
        protocol = factory.buildProtocol(BALANCER)
        transport = FakeTransport(self.clock, protocol)
        transport.peerAddr = BALANCER
        protocol.makeConnection(transport)
        for chunk in chunks:
            transport.deliver(chunk)
        self.clock.advance(0)
        return transport


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """
    The structured events.
    """
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("event"):
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize("protocol", [Line, MixedLine])
@pytest.mark.parametrize("said", [header(), second(), MAPPED], ids=["1", "2", "mapped"])
def test_connectedWithItsAddress(protocol: type[Any], said: bytes, events: list[LogEvent]) -> None:
    """
    A peer is connected when its header has come, before any byte of its own, by its own address:
    for C{admit}, the hooks and the log.
    """
    asked: list[Any] = []
    harness = ServerHarness(
        protocol, admit=lambda address, certificate, hello: asked.append(address)
    )
    transport = harness.connects(said[:20])
    assert (asked, harness.hooks.names) == ([], [])
    transport.deliver(said[20:])
    assert asked == [IPv4Address("TCP", "192.0.2.7", 4000)]
    [link] = harness.hooks.told("connected")
    assert link.peer.host == "192.0.2.7"
    transport.deliver(b"hello\r\n")
    assert link.protocol.lines == [b"hello"]
    transport.lose()
    assert [event["peer"] for event in events] == ["192.0.2.7:4000"] * 2


def test_headerAndBytesInOneChunk() -> None:
    """
    What follows the header in its chunk is delivered after C{connected}.
    """
    harness = ServerHarness()
    harness.hooks.then["connected"] = lambda: lines.append(
        harness.server.peers[1].protocol.lines[:]
    )
    lines: list[Any] = []
    harness.connects(header() + b"hello\r\n").lose()
    assert lines == [[]]
    assert harness.hooks.told("connected")[0].protocol.lines == [b"hello"]


def test_refusedByItsAddress() -> None:
    """
    C{admit} can refuse a client by its address, and nothing that it says is delivered.
    """
    harness = ServerHarness(
        admit=lambda address, certificate, hello: address.host != "203.0.113.66"
    )
    transport = harness.connects(header("203.0.113.66") + b"let me in\r\n")
    assert harness.hooks.names == ["refused"]
    assert not transport.open


@pytest.mark.parametrize("protocol", [Line, None], ids=["lines", "built in"])
@pytest.mark.parametrize("said", [b"", header()[:10], LOCAL], ids=["nothing", "a part", "LOCAL"])
def test_healthCheckIsNoPeer(protocol: Any, said: bytes, events: list[LogEvent]) -> None:
    """
    A connection without a complete header, or with LOCAL, is never C{connected}; many of them are
    counted, and are one event of the log in a minute.
    """
    harness = ServerHarness(protocol)
    for _ in range(30):
        harness.connects(*[said] if said else []).lose()
        assert harness.server.peers == {}
        harness.clock.advance(2.0)
    assert "connected" not in harness.hooks.names
    assert {type(cause) for cause in harness.hooks.told("disconnected")} == {PeerClosed}
    assert harness.server.strangers == 30
    [event] = events
    assert (event["event"], event["log_level"].name, event["others"]) == ("disconnected", "info", 0)
    harness.clock.advance(2.0)
    harness.connects().lose()
    assert events[1]["others"] == 29


def test_healthCheckIsServed() -> None:
    """
    The bytes of a health check reach the protocol, so that the balancer can check more than the
    port; it needs no room.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=1))
    harness.connects(header())
    transport = harness.connects(LOCAL + b"HELO\r\n")
    [link] = [link for link in harness.server._registry.links if isHealthCheck(link.transport)]
    assert link.protocol.lines == [b"HELO"]
    assert harness.hooks.names == ["connected"]
    transport.lose()


@pytest.mark.parametrize("said", [UNKNOWN, UNSPECIFIED], ids=["1", "2"])
def test_unknownAddressIsTheBalancers(said: bytes) -> None:
    """
    A header without an address leaves the connection's own, and its peer is one.
    """
    harness = ServerHarness()
    transport = harness.connects(said)
    [link] = harness.hooks.told("connected")
    assert link.peer == BALANCER
    transport.lose()


def test_noHeaderInTime() -> None:
    """
    A header that does not come is waited for as a TLS handshake is.
    """
    harness = ServerHarness(limits=Limits(connectTimeout=5))
    transport = harness.connects()
    harness.clock.advance(5)
    harness.clock.advance(0)
    assert not transport.open
    [cause] = harness.hooks.told("disconnected")
    assert type(cause) is HandshakeFailed
    assert "load balancer" in str(cause)


@pytest.mark.parametrize("protocol", [Line, None], ids=["lines", "built in"])
def test_countedByItsAddress(protocol: Any) -> None:
    """
    C{peersPerAddress} counts the peers' own addresses, from the first burst on, and never the
    balancer's.
    """
    harness = ServerHarness(protocol, serverLimits=ServerLimits(peersPerAddress=1), heartbeat=None)
    transports = [harness.connects() for _ in range(100)]
    for number, transport in enumerate(transports):
        hello = b"" if protocol else wire.encode(wire.Hello())
        transport.deliver(header(f"192.0.2.{number}") + hello)
        harness.clock.advance(0)
    assert len(harness.server.peers) == 100
    harness.connects(header("192.0.2.5") + hello)
    harness.clock.advance(0)
    [cause] = harness.hooks.told("refused")
    assert "1 peers are connected from 192.0.2.5" in str(cause)
    transports[5].lose()
    harness.connects(header("192.0.2.5") + hello)
    assert len(harness.server.peers) == 100


def test_countedByItsAddressInATunnel() -> None:
    """
    So it does where C{heartbeat:} stands before C{haproxy:}.  The server is asked for a protocol
    with the peer's own address; a peer of which the header says no address has the balancer's.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peersPerAddress=1), heartbeat=None)
    tunnels = TunnelFactory(harness.server, harness.clock)
    harness.outside = HAProxyWrappingFactory(
        HeartbeatFactory(tunnels, clock=harness.clock, heartbeat=None, keepAlive=None)
    )
    hello = wire.encode(wire.Hello())
    for said in (header("192.0.2.1"), second("192.0.2.2"), UNKNOWN, MAPPED):
        harness.connects(said + hello)
    admitted = [link.peer.host for link in harness.server.peers.values()]
    assert admitted == ["192.0.2.1", "192.0.2.2", BALANCER.host, "192.0.2.7"]
    for said in (header("192.0.2.7"), UNSPECIFIED):
        harness.connects(said + hello).lose()
    first, last = map(str, harness.hooks.told("refused"))
    assert "from 192.0.2.7" in first and f"from {BALANCER.host}" in last


def test_countedOnceTheHeaderIsThere() -> None:
    """
    C{peersPerAddress} that is switched on while connections wait for their headers counts each of
    them in its peer's network once its header is there, and those that are up at once.
    """
    harness = ServerHarness(heartbeat=None)
    hello = wire.encode(wire.Hello())
    harness.connects(header("192.0.2.1") + hello)
    waiting = [harness.connects() for _ in range(3)]
    harness.server.changeSettings(serverLimits=ServerLimits(peersPerAddress=1))
    for number, transport in enumerate(waiting, 1):
        transport.deliver(header(f"192.0.2.{number}") + hello)
    harness.clock.advance(0)
    assert [link.peer.host for link in harness.server.peers.values()] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    [cause] = harness.hooks.told("refused")
    assert "1 peers are connected from 192.0.2.1" in str(cause)


def test_manyOfOneAddressAreCutOff(events: list[LogEvent]) -> None:
    """
    Of the peers behind a balancer for which there is no room, no more are kept than without one.
    """
    harness = ServerHarness(None, serverLimits=ServerLimits(peersPerAddress=1))
    transports = [harness.connects(header()) for _ in range(100)]
    assert sum(transport.open for transport in transports) == 1 + 32
    assert len([event for event in events if event["event"] == "refused"]) == 1
    for transport in transports:
        transport.lose()
    tables = harness.server._registry
    assert not (tables.pending or tables.overLimit or tables._connectedFrom or tables._networks)


def test_connectionPastTheBalancer() -> None:
    """
    A factory that also listens beside the balancer counts a peer that comes that way by its own
    address.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peersPerAddress=1))
    harness.connects(header())
    harness.connects(directly=True)
    assert len(harness.server.peers) == 2
    harness.connects(directly=True)
    assert harness.hooks.names == ["connected", "connected", "refused"]


def test_wrappedFactoryThatIsNoServer() -> None:
    """
    The same holds for a wrapped factory that is no server.
    """
    clock, hooks = Clock(), Recorder()
    factory = HeartbeatFactory(Factory.forProtocol(Line), hooks=hooks, clock=clock, keepAlive=None)
    for said in (LOCAL, header()):
        protocol = HAProxyWrappingFactory(factory).buildProtocol(BALANCER)
        transport = FakeTransport(clock, protocol)
        protocol.makeConnection(transport)
        transport.deliver(said)
        transport.lose()
    assert hooks.names == ["disconnected", "connected", "disconnected"]


@pytest.mark.parametrize(
    "where", ["haproxy:tcp:0", "keepalive:haproxy:tcp:0", "haproxy:ssl:0:privateKey={0.pem}"]
)
@pytest_twisted.ensureDeferred
async def test_listensByEndpointStrings(where: str, plain: Loopback, tmp_path: Any) -> None:
    """
    The header is read on ports of endpoint strings, over real sockets, and inside of TLS.
    """
    from twisted.internet import reactor

    certificates = Certificates(tmp_path)
    hooks = Recorder()
    server = HeartbeatServerFactory(Factory.forProtocol(Line), hooks=hooks, ping=None)
    plain.atEnd(server.close)
    described = where.format(certificates) + ":interface=127.0.0.1"
    port = await serverFromString(reactor, described).listen(server)
    plain.atEnd(port.stopListening)
    number = port.getHost().port
    way = f"tcp:127.0.0.1:{number}"
    if "ssl" in where:
        way = f"tls:peer.example:{number}:trustRoots={certificates.roots}:endpoint=" + way.replace(
            ":", r"\:"
        )
    client: Any = await within(clientFromString(reactor, way).connect(Factory.forProtocol(Kept)))
    plain.atEnd(client.transport.abortConnection)
    await wait(0.1)
    assert hooks.names == []
    connected = hooks.next("connected")
    client.transport.write(header())
    link = await within(connected)
    assert link.peer.host == "192.0.2.7"


async def listening(plain: Loopback, where: str, factory: Any) -> int:
    """
    Listen at a place.

    @return: the port's number.
    """
    from twisted.internet import reactor

    endpoint = serverFromString(reactor, f"{where}:interface=127.0.0.1")
    port: Any = await endpoint.listen(factory)
    plain.atEnd(port.stopListening)
    return int(port.getHost().port)


async def visits(number: int, *chunks: bytes) -> None:
    """
    Connect, say these, and leave.
    """
    from twisted.internet import reactor

    way = clientFromString(reactor, f"tcp:127.0.0.1:{number}")
    client: Any = await within(way.connect(Factory.forProtocol(Kept)))
    for chunk in chunks:
        client.transport.write(chunk)
    client.transport.loseConnection()
    await wait(0.02)


STRANGERS = {
    "wrapped": ("haproxy:tcp:0", HeartbeatFactory(Factory.forProtocol(Line))),
    "mixed in": ("haproxy:tcp:0", Factory.forProtocol(MixedLine)),
    "built in": ("tcp:0", Factory.forProtocol(HeartbeatProtocol)),
    "built in, wrapped": ("tcp:0", HeartbeatFactory(Factory.forProtocol(HeartbeatProtocol))),
    "built in behind a balancer": (
        "haproxy:tcp:0",
        HeartbeatFactory(Factory.forProtocol(HeartbeatProtocol)),
    ),
    "tunnel": ("heartbeat:tcp:0", Factory.forProtocol(Line)),
    "tunnel behind a balancer": ("heartbeat:haproxy:tcp:0", Factory.forProtocol(Line)),
}


@pytest.mark.parametrize(("where", "factory"), STRANGERS.values(), ids=list(STRANGERS))
@pytest_twisted.ensureDeferred
async def test_strangersFloodNoLog(
    where: str, factory: Any, plain: Loopback, events: list[LogEvent]
) -> None:
    """
    Health checks and port scans are one event a minute at every way into a server.
    """
    number = await listening(plain, where, factory)
    for _ in range(4):
        await visits(number)
        if "haproxy" in where:
            await visits(number, LOCAL)
    [event] = events
    assert (event["event"], event["cause"]) == ("disconnected", "PeerClosed")
    assert (event["log_level"].name, event["others"]) == ("info", 0)


@pytest_twisted.ensureDeferred
async def test_connectedAtTheHello(plain: Loopback) -> None:
    """
    An accepted link of the built-in protocol is connected when its peer has said hello, also
    without a server's factory.
    """
    hooks = Recorder()
    factory = HeartbeatFactory(Factory.forProtocol(HeartbeatProtocol), hooks=hooks)
    number = await listening(plain, "tcp:0", factory)
    await visits(number, wire.encode(wire.Ping(1)))
    assert hooks.names == ["disconnected"]
    await visits(number, wire.encode(wire.Hello(name="pump")))
    assert hooks.names == ["disconnected", "connected", "disconnected"]
    [link] = hooks.told("connected")
    assert link.protocol.hello.name == "pump"


class Greeted(HeartbeatProtocol):
    """
    Counts the hellos that it is told of.
    """

    hellos = 0

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Count it.
        """
        Greeted.hellos += 1


class Broken(LinkHooks):
    """
    Cannot set up what a link needs.
    """

    def connected(self, link: Link) -> None:
        """
        Fail.
        """
        raise RuntimeError("no room")


@pytest_twisted.ensureDeferred
async def test_connectedFailsAtTheHello(plain: Loopback, loggedErrors: LoggedErrors) -> None:
    """
    If the C{connected} hook fails, the protocol is not told of the hello, because what it needs is
    not there.
    """
    hooks = Recorder()
    factory = HeartbeatFactory(Factory.forProtocol(Greeted), hooks=[Broken(), hooks])
    number = await listening(plain, "tcp:0", factory)
    await visits(number, wire.encode(wire.Hello()))
    [cause] = hooks.told("disconnected")
    assert "the connected hook raised RuntimeError: no room" in str(cause)
    assert Greeted.hellos == 0
    assert len(loggedErrors.flush(RuntimeError)) == 1


@pytest_twisted.ensureDeferred
async def test_helloInTimeInsideTLS(plain: Loopback, tmp_path: Any, events: list[LogEvent]) -> None:
    """
    Behind a balancer that speaks TLS, too, who only says something else than a hello is no peer.
    """
    from twisted.internet import reactor

    certificates = Certificates(tmp_path)
    where = f"heartbeat:haproxy:ssl:0:privateKey={certificates.pem}:within=0.4"
    number = await listening(plain, where, Factory.forProtocol(Line))
    way = (
        rf"tls:peer.example:{number}:trustRoots={certificates.roots}"
        rf":endpoint=tcp\:127.0.0.1\:{number}"
    )
    client: Any = await within(clientFromString(reactor, way).connect(Factory.forProtocol(Kept)))
    client.transport.write(header())
    for _ in range(20):
        client.transport.write(wire.encode(wire.Pong(0)))
        await wait(0.05)
    [event] = events
    assert event["cause"] == "ProtocolViolation"
    assert event["reason"].startswith("no HELLO came within 0.4 s")


ADDRESSES = [
    ("::ffff:192.0.2.7", IPv4Address("TCP", "192.0.2.7", 1)),
    ("0:0:0:0:0:ffff:c000:207", IPv4Address("TCP", "192.0.2.7", 1)),
    ("::ffff:192.0.2.7%eth0", IPv4Address("TCP", "192.0.2.7", 1)),
    ("2001:db8::1", IPv6Address("TCP", "2001:db8::1", 1)),
    ("2001:DB8:0:0:0:0:0:1", IPv6Address("TCP", "2001:db8::1", 1)),
    ("fe80::1%eth0", IPv6Address("TCP", "fe80::1%eth0", 1)),
    ("no:address", IPv6Address("TCP", "no:address", 1)),
]


@pytest.mark.parametrize(("host", "expected"), ADDRESSES, ids=[host for host, _ in ADDRESSES])
def test_usualFormOfAnAddress(host: str, expected: Any, events: list[LogEvent]) -> None:
    """
    An IPv4 address that is mapped into IPv6 is one for C{admit}, the link and the log, and IPv6 is
    written in one way; the user's protocol sees what the transport says.
    """
    asked: list[Any] = []
    harness = ServerHarness(
        admit=lambda address, certificate, hello: asked.append(address),
        serverLimits=ServerLimits(peersPerAddress=5),
    )
    address = IPv6Address("TCP", host, 1)
    protocol: Any = harness.server.buildProtocol(address)
    transport = FakeTransport(harness.clock, protocol)
    transport.peerAddr = address  # type: ignore[assignment]
    protocol.makeConnection(transport)
    assert asked == [expected]
    [link] = harness.hooks.told("connected")
    assert link.peer == expected
    assert events[0]["peer"] == f"{expected.host}:1"
    assert link.protocol.transport.getPeer() is address
    transport.lose()
