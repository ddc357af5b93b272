# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A peer's way into a server, in virtual time: hello, decision, name; refused, replaced or admitted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import (
    ClosedHere,
    HandshakeFailed,
    Heartbeat,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    Link,
    PeerClosed,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
    ServerLimits,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.link.addresses import networkOf
from twisted_heartbeat.server.admission import Admission
from twisted_heartbeat.server.ratelimit import PingRateLimit

from ..conftest import LoggedErrors
from ..support.virtualnetwork import FakeTransport, KeptFactory, Recorder

HEARTBEAT = Heartbeat(interval=20.0, timeout=15.0)


class Listener(HeartbeatProtocol):
    """
    A protocol of the user that keeps what it receives.
    """

    name = "server"

    def __init__(self) -> None:
        self.told: list[Any] = []

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Keep it.
        """
        self.told.append(hello.name)

    def messageReceived(self, message: bytes) -> None:
        """
        Keep it.
        """
        self.told.append(message)


class Client:
    """
    A peer, seen from its own end.
    """

    def __init__(self, harness: ServerHarness, host: str, certificate: Any) -> None:
        self.protocol: Any = harness.server.buildProtocol(IPv4Address("TCP", host, 4000))
        self.transport = Wire(harness.clock, self.protocol)
        self.transport.peerAddr = IPv4Address("TCP", host, 4000)
        self.transport.certificate = certificate
        self.protocol.makeConnection(self.transport)

    @property
    def link(self) -> Link:
        """
        The server's.
        """
        link = self.protocol.link
        assert isinstance(link, Link)
        return link

    def say(self, *frames: wire.Frame) -> None:
        """
        Send frames, in one piece.
        """
        self.transport.deliver(b"".join(map(wire.encode, frames)))

    def heard(self, kind: Any) -> list[Any]:
        """
        The frames of a kind, or of several, that it has got so far.
        """
        frames = wire.FrameReader().receive(self.transport.value())
        return [frame for frame in frames if isinstance(frame, kind)]

    def answer(self) -> None:
        """
        Answer the last ping.
        """
        self.say(wire.Pong(self.heard(wire.Ping)[-1].token))

    @property
    def goodbyeCode(self) -> GoodbyeCode | None:
        """
        The code of the last goodbye that the peer got.
        """
        goodbyes = self.heard(wire.Goodbye)
        return goodbyes[-1].code if goodbyes else None


class Wire(FakeTransport):
    """
    A transport that may have a certificate, and that can be paused.
    """

    certificate: Any = None
    paused = False

    def getPeerCertificate(self) -> Any:
        """
        As over TLS.
        """
        return self.certificate

    def pauseProducing(self) -> None:
        """
        Note it.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        Note it.
        """
        self.paused = False


class ServerHarness:
    """
    A server, and its clock.
    """

    def __init__(self, factory: Any = None, **settings: Any) -> None:
        self.clock = Clock()
        self.hooks = Recorder()
        settings = {"heartbeat": HEARTBEAT, "keepAlive": None, **settings}
        factory = factory or Factory.forProtocol(Listener)
        self.server = HeartbeatServerFactory(
            factory, hooks=self.hooks, clock=self.clock, **settings
        )
        # A ping of the ordinary watch would be taken for one that a newcomer has caused.
        self.server._settings["phase"] = lambda: 0.9

    def arrives(
        self, name: str | None = None, host: str = "192.0.2.1", certificate: Any = None
    ) -> Client:
        """
        A peer connects, and says hello if it has a name.
        """
        client = Client(self, host, certificate)
        if name is not None:
            client.say(wire.Hello(name))
        return client

    def passes(self, seconds: float) -> None:
        """
        Time passes in steps.
        """
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """
    What is logged for an operator: the structured events, and the warnings.
    """
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("event") or event["log_level"].name == "warn":
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def reasons(events: list[LogEvent], name: str) -> list[str]:
    """
    The reasons that the events of one name give.
    """
    return [event["reason"] for event in events if event.get("event") == name]


@cache
def certificates() -> tuple[Any, Any, Any]:
    """
    One peer's certificate, the same key in a renewed one, and another peer's.
    """
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    one, other = (
        crypto.load_certificate(
            crypto.FILETYPE_PEM,
            authority.issue_cert("pump.example", key_type=trustme.KeyType.ECDSA)
            .cert_chain_pems[0]
            .bytes(),
        )
        for _ in range(2)
    )
    renewed = crypto.load_certificate(
        crypto.FILETYPE_PEM, crypto.dump_certificate(crypto.FILETYPE_PEM, one)
    )
    return one, renewed, other


def kept(server: HeartbeatServerFactory) -> dict[str, Any]:
    """
    The tables of a server that are not empty.
    """
    attributes = vars(server._registry) | vars(server._names)
    tables = {name: one for name, one in attributes.items() if isinstance(one, dict | set)}
    assert "peers" in tables
    return {name: table for name, table in tables.items() if table}


def admissions(client: Client) -> list[Any]:
    """
    The admissions of a peer that are not garbage yet.
    """
    found = [one for one in gc.get_objects() if type(one) is Admission]
    return [one for one in found if one.link is client.link]


# Hello.


def test_admittedWithItsHello() -> None:
    """
    A peer is among the C{peers}, and C{connected} is called, once it has said hello and not before;
    then the hello and the messages that came with it are delivered, in order.
    """
    harness = ServerHarness()
    client = harness.arrives()
    assert harness.server.peers == {}
    assert harness.hooks.names == []
    client.say(wire.Hello("pump"), wire.Data(b"one"), wire.Data(b"two"))
    assert harness.server.peers == {1: client.link}
    assert harness.hooks.events == [("connected", client.link)]
    assert client.protocol.told == ["pump", b"one", b"two"]
    assert client.link.name == "pump"
    client.say(wire.Data(b"three"))
    assert client.protocol.told[-1] == b"three"
    client.transport.lose()


def test_admittedAndForgotten() -> None:
    """
    Of a peer that is in, its server keeps the link, in one table, and whose its name is; of its way
    in nothing is left, also if it was decided on, or had to wait for its name.
    """
    decisions: list[Deferred[Any]] = []

    def admit(*facts: Any) -> Deferred[Any]:
        decisions.append(Deferred())
        return decisions[-1]

    harness = ServerHarness(admit=admit)
    ghost, client = harness.arrives("pump"), harness.arrives("pump")
    assert len(admissions(ghost)) == len(admissions(client)) == 1
    for decision in decisions:
        decision.callback(None)
    assert admissions(ghost) == []
    assert len(admissions(client)) == 1
    ghost.transport.lose()
    harness.clock.advance(0)
    assert harness.server.named("pump") is client.link
    assert admissions(client) == []
    assert kept(harness.server) == {"peers": {2: client.link}, "_last": {"pump": client.link}}
    client.transport.lose()
    assert kept(harness.server) == {}


def test_helloIsThereWhenConnected() -> None:
    """
    The C{connected} hook can read the peer's hello, and find the link by its name.
    """
    harness = ServerHarness()
    seen: list[Any] = []

    def look() -> None:
        [link] = harness.server.peers.values()
        seen.extend([link.protocol.hello.name, harness.server.named("pump") is link])

    harness.hooks.then["connected"] = look
    harness.arrives("pump").transport.lose()
    assert seen == ["pump", True]


def test_noHelloWithinItsTimeout(events: list[LogEvent]) -> None:
    """
    A peer that says no hello within C{helloTimeout} is ended with C{ProtocolViolation}, though it
    speaks: byte by byte, or with pings.  C{connected} was never called, and of those that end so
    within a minute the log has one event.
    """
    harness = ServerHarness(serverLimits=ServerLimits(helloTimeout=5))
    slow, pinging = harness.arrives(), harness.arrives()
    hello = wire.encode(wire.Hello("slow"))
    for index in range(4):
        slow.transport.deliver(hello[index : index + 1])
        pinging.say(wire.Ping(index))
        harness.passes(1.125)
    assert slow.transport.open and pinging.transport.open
    harness.passes(1)
    assert not slow.transport.open and not pinging.transport.open
    assert harness.hooks.names == ["disconnected"] * 2
    assert {type(cause) for cause in harness.hooks.told("disconnected")} == {ProtocolViolation}
    assert reasons(events, "disconnected") == ["no hello within 5 s"]
    assert len(pinging.heard(wire.Pong)) == 4
    assert harness.clock.getDelayedCalls() == []


def test_helloInTimeIsReadFirst() -> None:
    """
    A peer that says hello in time is not ended later because of it; a hello that came while this
    process was stopped is read first.
    """
    harness = ServerHarness(serverLimits=ServerLimits(helloTimeout=5))
    client = harness.arrives("pump")
    late = harness.arrives()
    harness.clock.advance(300)
    late.say(wire.Hello("late"))
    client.say(wire.Pong(1))
    harness.clock.advance(0)
    assert {link.name for link in harness.server.peers.values()} == {"pump", "late"}
    client.transport.lose()
    late.transport.lose()


def test_secondHelloBeforeADecision() -> None:
    """
    A peer that says hello again while it is decided on has broken the protocol.
    """
    harness = ServerHarness(admit=lambda *facts: Deferred())
    client = harness.arrives("pump")
    client.say(wire.Hello("pump"))
    harness.clock.advance(0)
    assert type(harness.hooks.told("disconnected")[0]) is ProtocolViolation


# How many.


def test_peersLimitRefusesOneMore(events: list[LogEvent]) -> None:
    """
    One more than C{peers} is refused, and told so; the others stay, and when one has left there is
    room again.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=2))
    first, second = harness.arrives("a"), harness.arrives("b")
    third = harness.arrives("c")
    harness.clock.advance(0)
    assert third.goodbyeCode is GoodbyeCode.REFUSED
    assert not third.transport.open
    assert harness.hooks.names == ["connected", "connected", "refused"]
    [reason] = reasons(events, "refused")
    assert reason == "refused: 2 peers are connected, and no more than 2 may be"
    assert set(harness.server.peers) == {1, 2}
    first.transport.lose()
    fourth = harness.arrives("d")
    assert harness.server.named("d") is fourth.link
    second.transport.lose()
    fourth.transport.lose()


def test_peersPerAddress(events: list[LogEvent]) -> None:
    """
    The same for those from one address; others are welcome.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peersPerAddress=2))
    clients = [harness.arrives(name) for name in ("a", "b", "c")]
    clients.append(harness.arrives("d", host="192.0.2.2"))
    harness.clock.advance(0)
    assert [client.transport.open for client in clients] == [True, True, False, True]
    [reason] = reasons(events, "refused")
    assert reason == "refused: 2 peers are connected from 192.0.2.1, and no more than 2 may be"
    clients[0].transport.lose()
    clients.append(harness.arrives("e"))
    assert clients[-1].transport.open
    for client in clients:
        client.transport.lose()
    assert kept(harness.server) == {}


def test_peersPerAddressSwitchedOn() -> None:
    """
    The limit counts the peers that are connected when it is switched on, and drops none of them.
    It can be switched off again.
    """
    harness = ServerHarness()
    early = [harness.arrives(name) for name in "abc"]
    harness.server.changeSettings(serverLimits=ServerLimits(peersPerAddress=3))
    late = harness.arrives("late")
    harness.clock.advance(0)
    assert [client.transport.open for client in (*early, late)] == [True, True, True, False]
    early[0].transport.lose()
    assert harness.arrives("next").transport.open
    harness.server.changeSettings(serverLimits=ServerLimits())
    assert harness.arrives("later").transport.open
    harness.server.close()
    harness.clock.advance(0)
    assert kept(harness.server) == {}


@pytest.mark.parametrize("name", ["friend", "foe", None])
def test_leavesRoomAtItsAddress(name: str | None) -> None:
    """
    However far a peer has come, admitted, refused or before its hello, when it has gone it is no
    longer counted where it came from; nor is one for whom there was no room.
    """
    limits = ServerLimits(peersPerAddress=2)
    harness = ServerHarness(
        serverLimits=limits, admit=lambda address, shown, hello: hello.name != "foe"
    )
    for _ in range(3):
        clients = [harness.arrives("other"), harness.arrives(name), harness.arrives("one more")]
        assert clients[0].transport.open
        assert clients[2].goodbyeCode is GoodbyeCode.REFUSED
        for client in clients:
            client.transport.lose()
        harness.clock.advance(0)
        assert kept(harness.server) == {}


def test_fewAreToldWhyTheRestIsRejected(events: list[LogEvent]) -> None:
    """
    Of the peers for which there is no room only some at a time are told why.  The rest is rejected,
    which is one event of the log in a second, however many they are.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=1, helloTimeout=5))
    harness.arrives("in")
    silent = [harness.arrives() for _ in range(32)]
    for _ in range(100):
        protocol: Any = harness.server.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
        transport = FakeTransport(harness.clock, protocol)
        protocol.makeConnection(transport)
        assert transport.aborting
    assert len(reasons(events, "refused")) == 1
    assert all(client.transport.open for client in silent)
    harness.passes(6)
    assert not any(client.transport.open for client in silent)
    harness.server.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
    harness.server.peers[1].abort(ClosedHere())
    harness.clock.advance(0)
    assert len(harness.server._registry.overLimit) == 1


def test_ghostIsAskedBeforeThereIsNoRoom() -> None:
    """
    A peer that comes back to a full server before its old link is known dead waits as it would
    elsewhere, and takes its ghost's place; a peer of another name is refused.
    """
    for limits in (ServerLimits(peers=2), ServerLimits(peersPerAddress=2)):
        harness = ServerHarness(serverLimits=limits)
        ghost, other = harness.arrives("pump"), harness.arrives("valve")
        harness.passes(3)
        client = harness.arrives("pump")
        assert len(ghost.heard(wire.Ping)) == 1
        assert harness.arrives("lamp").goodbyeCode is GoodbyeCode.REFUSED
        for _ in range(16):
            harness.passes(1)
            other.say(wire.Data(b"here"))
        assert harness.server.named("pump") is client.link
        assert set(harness.server.peers) == {2, 3}
        assert harness.arrives("lamp").goodbyeCode is GoodbyeCode.REFUSED
        client.transport.lose()
        other.transport.lose()
        harness.passes(0.125)
        assert kept(harness.server) == {}


def test_livePeerOfAFullServerKeepsItsName() -> None:
    """
    Where the holder of the name lives, the newcomer is refused.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=1))
    peer = harness.arrives("pump")
    impostor = harness.arrives("pump")
    peer.answer()
    assert impostor.goodbyeCode is GoodbyeCode.NAME_IN_USE
    assert harness.server.peers == {1: peer.link}
    peer.transport.lose()


def test_placeOfAGhostIsTakenAtOnce() -> None:
    """
    No other peer can take the place of a ghost while its cleanups run.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=1))
    ghost = harness.arrives("pump")
    cleaning: Deferred[None] = Deferred()
    ghost.link.addCleanup(lambda: cleaning)
    client = harness.arrives("pump")
    ghost.transport.lose()
    assert harness.arrives("lamp").goodbyeCode is GoodbyeCode.REFUSED
    cleaning.callback(None)
    harness.passes(0.125)
    assert harness.server.named("pump") is client.link
    assert len(harness.server.peers) == 1
    client.transport.lose()


def test_ghostElsewhereMakesNoRoomHere() -> None:
    """
    A ghost at another address makes no room at the newcomer's, which is full.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peersPerAddress=1))
    ghost = harness.arrives("pump", host="192.0.2.2")
    other = harness.arrives("valve")
    assert harness.arrives("pump").goodbyeCode is GoodbyeCode.REFUSED
    assert ghost.heard(wire.Ping) == []
    ghost.transport.lose()
    other.transport.lose()
    harness.clock.advance(0)


def test_roomAtTheHelloCounts() -> None:
    """
    A peer that connects to a full server is let in if there is room by the time of its hello, as
    where it closes its old connection in between.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=1))
    old, new = harness.arrives("pump"), harness.arrives()
    old.transport.lose()
    harness.clock.advance(0)
    new.say(wire.Hello("pump"))
    assert harness.server.named("pump") is new.link
    new.transport.lose()


def test_noMoreThanSomeWaitForTheirGhosts() -> None:
    """
    On a full server no more than 32 newcomers at a time wait for their ghosts; the rest is cut off.
    """
    harness = ServerHarness(serverLimits=ServerLimits(peers=40))
    for number in range(40):
        harness.arrives(f"pump-{number}")
    clients = [harness.arrives(f"pump-{number}") for number in range(32)]
    protocol: Any = harness.server.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
    transport = FakeTransport(harness.clock, protocol)
    protocol.makeConnection(transport)
    assert transport.aborting
    assert all(client.transport.open for client in clients)
    harness.passes(15.25)
    assert [harness.server.named(client.link.name) for client in clients] == [
        client.link for client in clients
    ]
    harness.server.close()
    harness.clock.advance(0)


# Strangers.


def test_strangersAreCountedAndRarelyLogged(events: list[LogEvent]) -> None:
    """
    Strangers that leave before their hello are counted.  The hooks hear of each, and the log has
    one event in a minute of all that end alike, at level info where they have only left.
    """
    harness = ServerHarness()
    ends = [PeerClosed(), PeerReset(), HandshakeFailed()]
    for number in range(90):
        harness.arrives().transport.lose(ends[number % 3])
        harness.passes(1)
    assert harness.server.strangers == 90
    assert harness.hooks.names == ["disconnected"] * 90
    told = [(event["cause"], event["log_level"].name, event["others"]) for event in events]
    assert told == [
        ("PeerClosed", "info", 0),
        ("PeerReset", "info", 0),
        ("HandshakeFailed", "warn", 0),
        ("PeerClosed", "info", 19),
        ("PeerReset", "info", 19),
        ("HandshakeFailed", "warn", 19),
    ]


def test_lastStrangersAreLoggedInTheEnd(events: list[LogEvent]) -> None:
    """
    The last strangers of a minute are told when it is over, by a timer that the stop of the last
    port cancels; what is left then is told at once.
    """
    harness = ServerHarness()
    harness.server.doStart()
    harness.server.doStart()
    for _ in range(5):
        harness.arrives().transport.lose(PeerClosed())
    harness.arrives().transport.lose(PeerReset())
    harness.passes(59)
    harness.arrives().transport.lose(PeerReset())
    assert [event["others"] for event in events] == [0, 0]
    harness.passes(1.1)
    assert [(event["cause"], event["others"]) for event in events[2:]] == [
        ("PeerClosed", 3),
        ("PeerReset", 0),
    ]
    harness.passes(120)
    assert len(events) == 4
    harness.arrives().transport.lose(PeerClosed())
    for _ in range(2):
        harness.arrives().transport.lose(PeerClosed())
    harness.server.doStop()
    assert [event["others"] for event in events[4:]] == [0]
    harness.server.doStop()
    assert [event["others"] for event in events[4:]] == [0, 1]
    assert harness.clock.getDelayedCalls() == []
    for _ in range(2):
        harness.arrives().transport.lose(PeerClosed())
    assert harness.clock.getDelayedCalls() == []


def test_lastRejectedAreLoggedAtTheStop(events: list[LogEvent]) -> None:
    """
    So are the last peers that were rejected because the server drains.
    """
    harness = ServerHarness()
    harness.server.doStart()
    harness.server.drain()
    for _ in range(3):
        harness.server.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
    assert [event["others"] for event in events] == [0]
    harness.passes(1.1)
    assert [(event["event"], event["others"]) for event in events] == [
        ("refused", 0),
        ("refused", 1),
    ]
    harness.server.doStop()
    assert harness.clock.getDelayedCalls() == []


def test_knownPeersAreNoStrangers(events: list[LogEvent]) -> None:
    """
    The end of a peer that has said hello is logged each time, admitted or not.
    """
    deciding: Deferred[None] = Deferred()
    harness = ServerHarness(
        admit=lambda address, shown, hello: deciding if hello.name == "late" else None
    )
    for name in ("pump", "late") * 3:
        harness.arrives(name).transport.lose()
    assert harness.server.strangers == 0
    assert len(reasons(events, "disconnected")) == 6


ADDRESSES = {
    "IPv4": (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
    "IPv6": (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
    "IPv6 with a scope": (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
    "IPv4 in IPv6": (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
    "UNIX": (UNIXAddress(b"/run/hb.sock"), None),
}


@pytest.mark.parametrize(("address", "network"), ADDRESSES.values(), ids=ADDRESSES)
def test_networkOfAnAddress(address: Any, network: str | None) -> None:
    """
    An IPv6 host can choose among the addresses of its network, so they count as one.
    """
    assert networkOf(address) == network


# Who decides.


def test_admitGetsAddressCertificateAndHello() -> None:
    """
    C{admit} is told the address, the certificate and the hello.
    """
    told: list[Any] = []
    harness = ServerHarness(admit=lambda *facts: told.append(facts))
    [certificate, _, _] = certificates()
    client = harness.arrives("pump", certificate=certificate)
    [(address, shown, hello)] = told
    assert (address.host, shown, hello.name) == ("192.0.2.1", certificate, "pump")
    assert client.link.generation in harness.server.peers
    client.transport.lose()


async def coroutine(answer: object) -> object:
    """
    An answer after all.
    """
    return answer


def later(answer: object) -> Deferred[Any]:
    """
    An answer that is there already.
    """
    deferred: Deferred[Any] = Deferred()
    deferred.callback(answer)
    return deferred


@pytest.mark.parametrize("how", [lambda answer: answer, later, coroutine])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, None),
        (True, None),
        (False, "not admitted"),
        ("", "not admitted"),
        ("unknown", "unknown"),
    ],
)
def test_answersOfAdmit(
    answer: object, reason: str | None, how: Callable[[object], object], events: list[LogEvent]
) -> None:
    """
    A plain value, a Deferred or a coroutine: C{None} and C{True} admit; C{False} and a reason
    refuse, and the peer is told that, and the log.
    """
    harness = ServerHarness(admit=lambda *facts: how(answer))
    client = harness.arrives("pump")
    client.say(wire.Data(b"now"))
    harness.clock.advance(0)
    if reason is None:
        assert client.protocol.told == ["pump", b"now"]
        client.transport.lose()
        return
    assert harness.hooks.names == ["refused"]
    assert client.protocol.told == []
    [goodbye] = client.heard(wire.Goodbye)
    assert (goodbye.reason, goodbye.code) == (reason, GoodbyeCode.REFUSED)
    assert reasons(events, "refused") == [f"refused: {reason}"]
    assert not client.transport.open


@pytest.mark.parametrize("fault", [lambda *facts: 1 / 0, lambda *facts: 17])
def test_failingAdmitRefuses(fault: Callable[..., object], loggedErrors: LoggedErrors) -> None:
    """
    If C{admit} raises, or returns what is no answer, the peer is refused.  The error is logged, and
    the peer is not told.
    """
    harness = ServerHarness(admit=fault)
    client = harness.arrives("pump")
    harness.clock.advance(0)
    assert not client.transport.open
    assert [goodbye.reason for goodbye in client.heard(wire.Goodbye)] == ["not admitted"]
    assert len(loggedErrors.flush(ZeroDivisionError, TypeError)) == 1


def test_longReasonIsTruncatedBetweenLetters() -> None:
    """
    A reason that is too long for a goodbye is cut, and not in the middle of a letter.
    """
    harness = ServerHarness(admit=lambda *facts: "ü" * 600 + "\ud800")
    client = harness.arrives("pump")
    [goodbye] = client.heard(wire.Goodbye)
    assert goodbye.reason == "ü" * 512
    harness.clock.advance(0)


def test_nothingIsDeliveredBeforeADecision() -> None:
    """
    While it is decided, a peer's pings are answered and its messages kept; no more is read than
    C{maxHeld} and what has come already; and all is delivered once it is admitted.
    """
    decision: Deferred[Any] = Deferred()
    harness = ServerHarness(admit=lambda *facts: decision, serverLimits=ServerLimits(maxHeld=1000))
    client = harness.arrives("pump")
    client.say(wire.Data(b"a" * 400), wire.Ping(7))
    assert client.heard(wire.Pong) == [wire.Pong(7)]
    assert not client.transport.paused
    client.say(wire.Data(b"b" * 600))
    assert client.transport.paused
    assert client.protocol.told == []
    assert harness.server.peers == {}
    decision.callback(None)
    assert client.protocol.told == ["pump", b"a" * 400, b"b" * 600]
    assert not client.transport.paused
    client.transport.lose()


def test_heldPeerHearsFromUs() -> None:
    """
    A peer that has to wait for its admission, and has sent so much that it is not read meanwhile,
    hears from the server within three quarters of what its hello says that it needs (promise 19).
    """
    decision: Deferred[Any] = Deferred()
    serverLimits = ServerLimits(maxHeld=1000, admissionTimeout=60)
    harness = ServerHarness(admit=lambda *facts: decision, serverLimits=serverLimits)
    client = harness.arrives()
    client.say(wire.Hello("pump", needs=8), wire.Data(b"a" * 2000))
    assert client.transport.paused
    client.transport.clear()
    spoke = 0
    for second in range(1, 41):
        harness.passes(1)
        if client.heard(wire.Pong | wire.Ping):
            spoke = second
            client.transport.clear()
        assert second - spoke <= 6
    decision.callback(None)
    assert client.protocol.told == ["pump", b"a" * 2000]
    client.transport.lose()


def test_noDecisionWithinItsTimeout(events: list[LogEvent]) -> None:
    """
    A peer is refused if there is no decision within C{admissionTimeout}; the decision is cancelled,
    and a result that comes later changes nothing.
    """
    decision: Deferred[Any] = Deferred()
    harness = ServerHarness(
        admit=lambda *facts: decision, serverLimits=ServerLimits(admissionTimeout=3)
    )
    client = harness.arrives("pump")
    harness.passes(2.875)
    assert client.transport.open
    harness.passes(0.5)
    assert not client.transport.open
    assert client.goodbyeCode is GoodbyeCode.REFUSED
    assert reasons(events, "refused") == ["refused: no decision within 3 s"]
    assert decision.called
    decision.callback(None)
    assert harness.hooks.names == ["refused"]


def test_leftBeforeADecision() -> None:
    """
    A peer that leaves while it is decided on is gone: the decision is cancelled, and C{connected}
    is not called.
    """
    cancelled: list[Any] = []
    harness = ServerHarness(admit=lambda *facts: Deferred(cancelled.append))
    client = harness.arrives("pump")
    client.transport.lose()
    assert len(cancelled) == 1
    assert harness.hooks.names == ["disconnected"]
    assert harness.server._names._last == {}
    assert harness.clock.getDelayedCalls() == []


def test_refusedIsNotDelivered() -> None:
    """
    Nothing that a refused peer still says reaches the user.
    """
    harness = ServerHarness(admit=lambda *facts: "no")
    client = harness.arrives()
    client.say(wire.Hello("pump"), wire.Data(b"one"))
    client.say(wire.Data(b"two"), wire.Data(b"three"))
    assert client.protocol.told == []
    harness.clock.advance(0)


def test_cleanupsOfARefusedLink() -> None:
    """
    What was to be cleaned up of a refused link is cleaned up, once.
    """
    harness = ServerHarness(admit=lambda *facts: "no")
    client = harness.arrives()
    ran: list[str] = []
    client.link.addCleanup(ran.append, "cleaned up")
    client.say(wire.Hello("pump"))
    harness.clock.advance(0)
    assert ran == ["cleaned up"]
    assert harness.hooks.names == ["refused"]


def test_userCodeFailsOnWhatWasHeld(loggedErrors: LoggedErrors) -> None:
    """
    A protocol that raises on a message that was held ends its own link, as on any other.
    """

    class Raising(Listener):
        def messageReceived(self, message: bytes) -> None:
            raise LookupError("no such thing")

    decision: Deferred[Any] = Deferred()
    harness = ServerHarness(Factory.forProtocol(Raising), admit=lambda *facts: decision)
    client = harness.arrives()
    client.say(wire.Hello("pump"), wire.Data(b"one"), wire.Data(b"two"))
    decision.callback(None)
    harness.clock.advance(0)
    [cause] = harness.hooks.told("disconnected")
    assert "LookupError" in str(cause)
    assert len(loggedErrors.flush(LookupError)) == 1


# Protocols that know no hello.


class Lines(HeartbeatMixin, LineReceiver):
    """
    A protocol of the user's, with the mix-in.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def sendPing(self) -> None:
        """
        Make the peer speak.
        """
        self.sendLine(b"ping")

    def lineReceived(self, line: bytes) -> None:
        """
        Keep it.
        """
        self.lines.append(line)


def linesOf(protocol: Any) -> list[bytes]:
    """
    What a protocol of the user's has got, mixed in or wrapped.
    """
    if isinstance(protocol, Lines):
        return protocol.lines
    received: bytes = protocol.received
    return received.split(b"\r\n")[:-1]


@pytest.fixture(params=["mixed in", "wrapped"])
def factory(request: pytest.FixtureRequest) -> Any:
    """
    Makes protocols that know no hello.
    """
    return Factory.forProtocol(Lines) if request.param == "mixed in" else KeptFactory()


def test_protocolWithoutAHelloIsAdmittedAtOnce(factory: Any) -> None:
    """
    A peer of a protocol without a hello is admitted as soon as it is connected.
    """
    harness = ServerHarness(factory)
    client = harness.arrives()
    assert harness.hooks.events == [("connected", client.link)]
    client.transport.deliver(b"one\r\n")
    assert linesOf(client.link.protocol) == [b"one"]
    client.transport.lose()


def test_forgottenWithoutAHello(factory: Any) -> None:
    """
    Of its way in, too, nothing is left, whether it was decided on or not.
    """
    harness = ServerHarness(factory)
    client = harness.arrives()
    assert admissions(client) == []
    assert kept(harness.server) == {"peers": {1: client.link}}
    decision: Deferred[Any] = Deferred()
    harness.server.admit = lambda *facts: decision
    other = harness.arrives()
    assert len(admissions(other)) == 1
    decision.callback(None)
    assert admissions(other) == []
    for one in (client, other):
        one.transport.lose()
    assert kept(harness.server) == {}


def test_decidedWithoutAHello(factory: Any) -> None:
    """
    It is decided on address and certificate; meanwhile nothing of what it says is delivered, and
    then all is.
    """
    decision: Deferred[Any] = Deferred()
    told: list[Any] = []

    def admit(*facts: Any) -> Deferred[Any]:
        told.append(facts)
        return decision

    harness = ServerHarness(factory, admit=admit, serverLimits=ServerLimits(maxHeld=100))
    client = harness.arrives()
    assert told == [(client.transport.peerAddr, None, None)]
    client.transport.deliver(b"one\r\ntw")
    client.transport.deliver(b"o\r\n" + b"x" * 100 + b"\r\n")
    assert client.transport.paused
    assert linesOf(client.link.protocol) == []
    assert client.link.silence == 0
    decision.callback(None)
    assert linesOf(client.link.protocol) == [b"one", b"two", b"x" * 100]
    assert not client.transport.paused
    client.transport.deliver(b"three\r\n")
    assert linesOf(client.link.protocol)[-1] == b"three"
    client.transport.lose()


def test_refusedWithoutAHello(factory: Any) -> None:
    """
    One that is refused is closed, and nothing that it says is delivered.
    """
    harness = ServerHarness(factory, admit=lambda *facts: "no")
    client = harness.arrives()
    protocol = client.link.protocol
    client.transport.deliver(b"one\r\n")
    harness.clock.advance(0)
    assert not client.transport.open
    assert linesOf(protocol) == []
    assert harness.hooks.names == ["refused"]


def test_noRoomWithoutAHello(factory: Any) -> None:
    """
    A peer for which there is no room is closed at once.
    """
    harness = ServerHarness(factory, serverLimits=ServerLimits(peers=1))
    first, second = harness.arrives(), harness.arrives()
    harness.clock.advance(0)
    assert first.transport.open and not second.transport.open
    assert harness.hooks.names == ["connected", "refused"]
    first.transport.lose()


# Ghosts.


def test_ghostIsReplaced(events: list[LogEvent]) -> None:
    """
    A peer that comes back before its old link is known dead: the old one is pinged at once, and
    when it has said nothing for its C{timeout} it is aborted, its cleanups finish, and then the new
    one is connected and has the name.
    """
    harness = ServerHarness()
    ghost = harness.arrives("pump")
    harness.passes(5)
    cleaning: Deferred[None] = Deferred()
    ghost.link.addCleanup(lambda: cleaning)
    pings = len(ghost.heard(wire.Ping))
    client = harness.arrives("pump")
    assert len(ghost.heard(wire.Ping)) == pings + 1
    harness.passes(14.875)
    assert ghost.transport.open
    assert harness.server.named("pump") is ghost.link
    harness.passes(0.25)
    assert not ghost.transport.open
    assert isinstance(harness.hooks.told("disconnected")[0], PeerSilent)
    assert "newcomer" in reasons(events, "disconnected")[0]
    assert harness.server.peers == {}
    assert harness.server.named("pump") is None
    cleaning.callback(None)
    harness.clock.advance(0)
    assert harness.server.named("pump") is client.link
    assert harness.hooks.told("connected") == [ghost.link, client.link]
    assert harness.server.peers == {2: client.link}
    client.transport.lose()


def test_livePeerKeepsItsName(events: list[LogEvent]) -> None:
    """
    A live peer keeps its name: it answers the ping, and the newcomer is refused, and told that the
    name is in use; the old link is not affected.
    """
    harness = ServerHarness()
    peer = harness.arrives("pump")
    harness.passes(5)
    impostor = harness.arrives("pump")
    harness.passes(0.125)
    peer.answer()
    harness.clock.advance(0)
    assert impostor.goodbyeCode is GoodbyeCode.NAME_IN_USE
    assert not impostor.transport.open
    assert harness.server.peers == {1: peer.link}
    assert harness.server.named("pump") is peer.link
    assert harness.hooks.names == ["connected", "refused"]
    assert reasons(events, "refused") == [
        "refused: the name 'pump' is in use by generation 1, which answers"
    ]
    assert peer.link.peerWatch.detector.deadline == pytest.approx(5.125 + HEARTBEAT.bound)
    peer.transport.lose()


def test_anyByteOfALivePeerCounts() -> None:
    """
    Any byte of the old link's peer is life, a message or half of a frame.
    """
    harness = ServerHarness()
    peer = harness.arrives("pump")
    impostor = harness.arrives("pump")
    peer.transport.deliver(wire.encode(wire.Data(b"..."))[:3])
    assert impostor.goodbyeCode is GoodbyeCode.NAME_IN_USE
    peer.transport.lose()
    harness.clock.advance(0)


def test_impostorsAreCheap() -> None:
    """
    However often newcomers claim its name, a live peer is pinged for that no more than once a
    second.
    """
    harness = ServerHarness()
    peer = harness.arrives("pump")
    for _ in range(20):
        impostor = harness.arrives("pump")
        if impostor.transport.open:
            peer.answer()
        harness.clock.advance(0)
        assert not impostor.transport.open
    assert len(peer.heard(wire.Ping)) == 1
    peer.transport.lose()


def test_silentPeerIsNotAskedTwice() -> None:
    """
    Where a ping is unanswered already, no other is sent, and the verdict comes within the timeout
    from there (promises 2 and 3).
    """
    harness = ServerHarness()
    ghost = harness.arrives("pump")
    while not ghost.heard(wire.Ping):
        harness.passes(0.125)
    harness.passes(1)
    claimedAt = harness.clock.seconds()
    client = harness.arrives("pump")
    assert len(ghost.heard(wire.Ping)) == 1
    assert ghost.link.peerWatch.detector.deadline == claimedAt + HEARTBEAT.timeout < HEARTBEAT.bound
    ghost.transport.lose()
    harness.clock.advance(0)
    assert harness.server.named("pump") is client.link
    client.transport.lose()


@pytest.mark.parametrize("interval", [20.0, 60.0])
@pytest.mark.parametrize("silence", [1.0, 18.0, 25.5, 34.0])
def test_ghostHasItsTimeoutAtMost(silence: float, interval: float) -> None:
    """
    However long a ghost has been silent, pinged, suspected or neither, a newcomer has its name
    within the timeout.
    """
    harness = ServerHarness(heartbeat=Heartbeat(interval=interval, timeout=15.0))
    ghost = harness.arrives("pump")
    harness.passes(silence)
    client = harness.arrives("pump")
    harness.passes(15.125)
    assert harness.server.named("pump") is client.link
    assert not ghost.transport.open
    client.transport.lose()


def test_goodbyeIsNoAnswer() -> None:
    """
    A device that opens its new connection before it says goodbye on its old one is let in.
    """
    harness = ServerHarness()
    ghost = harness.arrives("pump")
    harness.passes(5)
    client = harness.arrives("pump")
    ghost.say(wire.Goodbye("reconnecting"))
    harness.passes(0.25)
    assert harness.server.named("pump") is client.link
    assert harness.hooks.names == ["connected", "disconnected", "connected"]
    client.transport.lose()


def test_goodbyeOfASuspectedPeer() -> None:
    """
    A suspected peer that says goodbye has not recovered.
    """
    harness = ServerHarness()
    client = harness.arrives("pump")
    while "suspected" not in harness.hooks.names:
        harness.passes(0.125)
    client.say(wire.Goodbye("leaving"))
    harness.passes(0.25)
    assert harness.hooks.names == ["connected", "suspected", "disconnected"]


def test_sameCertificateTakesOverAtOnce(events: list[LogEvent]) -> None:
    """
    With the same TLS identity, that is the same public key, renewed certificate or not, a peer
    takes its name over at once; the old link ends with C{ClosedHere}, and no peer was pinged.
    """
    one, renewed, _ = certificates()
    harness = ServerHarness()
    ghost = harness.arrives("pump", certificate=one)
    client = harness.arrives("pump", certificate=renewed)
    harness.clock.advance(0)
    harness.clock.advance(0)
    assert not ghost.transport.open
    assert ghost.heard(wire.Ping) == []
    assert harness.server.named("pump") is client.link
    assert harness.hooks.names == ["connected", "disconnected", "connected"]
    assert type(harness.hooks.told("disconnected")[0]) is ClosedHere
    assert reasons(events, "disconnected") == [
        "replaced by generation 2, with the same certificate"
    ]
    client.transport.lose()


@pytest.mark.parametrize("shown", [(0, 2), (0, None), (None, 0)])
def test_otherCertificateDoesNot(shown: tuple[int | None, int | None]) -> None:
    """
    With another TLS identity, or without one on either side, the old link is asked.
    """
    ours, theirs = (None if index is None else certificates()[index] for index in shown)
    harness = ServerHarness()
    peer = harness.arrives("pump", certificate=ours)
    impostor = harness.arrives("pump", certificate=theirs)
    assert len(peer.heard(wire.Ping)) == 1
    peer.answer()
    assert impostor.goodbyeCode is GoodbyeCode.NAME_IN_USE
    peer.transport.lose()
    harness.clock.advance(0)


def test_lateEventsOfTheOldGeneration() -> None:
    """
    What the old link still says or does, once it is replaced, changes nothing of the new one.
    """
    one, renewed, _ = certificates()
    harness = ServerHarness()
    ghost = harness.arrives("pump", certificate=one)
    transport = ghost.transport
    client = harness.arrives("pump", certificate=renewed)
    harness.passes(0.25)
    before = list(harness.hooks.events)
    ghost.protocol.connectionLost(None)
    ghost.link.abort(ClosedHere())
    ghost.link.close()
    transport.lose()
    harness.passes(0.25)
    assert harness.server.named("pump") is client.link
    assert harness.server.peers == {2: client.link}
    assert harness.hooks.events == before
    client.transport.lose()
    assert harness.server._names._last == {}


def test_manyOfOneName() -> None:
    """
    If many newcomers come with the name of a ghost at once, one of them gets it, and the others are
    told that it is in use.
    """
    harness = ServerHarness()
    ghost = harness.arrives("pump")
    clients = [harness.arrives("pump") for _ in range(300)]
    for _ in range(160):
        harness.passes(0.125)
        for client in clients:
            if client.transport.open and client.heard(wire.Ping):
                client.answer()
    assert not ghost.transport.open
    [holder] = [client for client in clients if client.transport.open]
    assert harness.server.named("pump") is holder.link
    others = [client.goodbyeCode for client in clients if client is not holder]
    assert set(others) == {GoodbyeCode.NAME_IN_USE}
    holder.transport.lose()
    assert harness.server._names._last == {}


def test_newcomerLeavesWhileTheGhostIsAsked() -> None:
    """
    A newcomer that leaves before the name is settled leaves nothing behind, and the next one in the
    row takes its place.
    """
    harness = ServerHarness()
    harness.arrives("pump")
    first = harness.arrives("pump")
    second = harness.arrives("pump")
    first.transport.lose()
    harness.passes(16)
    assert harness.server.named("pump") is second.link
    second.transport.lose()
    assert harness.server._names._last == {}


def test_nameNotFreeInTime(events: list[LogEvent]) -> None:
    """
    Where the old link can not be proven dead within C{admissionTimeout}, the newcomer is told that
    the name is in use.
    """
    harness = ServerHarness(serverLimits=ServerLimits(admissionTimeout=4))
    ghost = harness.arrives("pump")
    client = harness.arrives("pump")
    harness.passes(4.5)
    assert client.goodbyeCode is GoodbyeCode.NAME_IN_USE
    assert ghost.transport.open
    assert "did not become free within 4 s" in reasons(events, "refused")[0]
    ghost.transport.lose()


def test_ghostOfAPassivePeer() -> None:
    """
    Also where peers are to speak by themselves and are not pinged otherwise, the old link is pinged
    for a newcomer: a live one answers, and a dead one is found when its bound is over.
    """
    harness = ServerHarness(heartbeat=Heartbeat(interval=None, timeout=8.0))
    peer = harness.arrives("pump")
    impostor = harness.arrives("pump")
    peer.answer()
    assert impostor.goodbyeCode is GoodbyeCode.NAME_IN_USE
    harness.passes(2)
    client = harness.arrives("pump")
    harness.passes(5.875)
    assert peer.transport.open
    harness.passes(0.5)
    assert not peer.transport.open
    assert harness.server.named("pump") is client.link
    client.transport.lose()


def test_silenceProvesNothing() -> None:
    """
    Without a heartbeat nothing proves an old link dead, so it keeps its name.
    """
    harness = ServerHarness(heartbeat=None)
    peer = harness.arrives("pump")
    client = harness.arrives("pump")
    assert client.goodbyeCode is GoodbyeCode.NAME_IN_USE
    peer.transport.lose()
    harness.clock.advance(0)


def test_namelessPeersNeverConflict() -> None:
    """
    Peers without a name are never in conflict with each other.
    """
    harness = ServerHarness()
    clients = [harness.arrives("") for _ in range(3)]
    assert len(harness.server.peers) == 3
    assert harness.server.named("") is None
    for client in clients:
        client.transport.lose()


# Pings, messages, buffers.


def test_tooManyPings(events: list[LogEvent]) -> None:
    """
    A peer that goes on pinging at more than C{pingsPerSecond} is told goodbye with "too many
    pings", and its link ends with C{ProtocolViolation}.
    """
    harness = ServerHarness(serverLimits=ServerLimits(pingsPerSecond=10))
    client, sent = harness.arrives("pump"), 0
    while client.goodbyeCode is None:
        client.say(*[wire.Ping(1)] * 2)
        sent += 2
        harness.passes(0.125)
    # Three seconds' worth, and ten for each second; sixteen came in each.
    assert sent == pytest.approx(30 * 16 / 6, abs=2)
    assert client.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    assert client.transport.value().endswith(b"too many pings")
    [cause] = harness.hooks.told("disconnected")
    assert type(cause) is ProtocolViolation
    assert "more than 10 pings in a second" in str(cause)


@pytest.mark.parametrize("later", [ServerLimits(pingsPerSecond=500), None])
def test_tooManyPingsForTheLimitOfTheLink(later: ServerLimits | None) -> None:
    """
    A link ends by the limit that it began with, also after that of the server has changed, and its
    cause names that limit.
    """
    harness = ServerHarness(serverLimits=ServerLimits(pingsPerSecond=10))
    client = harness.arrives("pump")
    harness.server.changeSettings(serverLimits=later)
    client.say(*[wire.Ping(1)] * 31)
    assert client.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    harness.passes(0.125)
    [cause] = harness.hooks.told("disconnected")
    assert "more than 10 pings in a second" in str(cause)


@pytest.mark.parametrize(("quiet", "most"), [(0, 30), (5, 80), (120, 1230), (3600, 1230)])
def test_floodOfPings(quiet: float, most: int) -> None:
    """
    A flood ends after three seconds' worth of pings, and one more for each second in which the peer
    sent none, up to two minutes'.
    """
    harness = ServerHarness(serverLimits=ServerLimits(pingsPerSecond=10), heartbeat=None)
    client = harness.arrives("pump")
    harness.clock.advance(quiet)
    client.say(*[wire.Ping(1)] * 2000)
    assert client.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    assert len(client.heard(wire.Pong)) == most
    harness.clock.advance(0)


def test_pingsAreCountedByTheSession() -> None:
    """
    A peer's session keeps the count of its pings, and the server nothing; a peer that never pings
    is not counted.
    """
    harness = ServerHarness(serverLimits=ServerLimits(pingsPerSecond=10))
    client, quiet = harness.arrives("pump"), harness.arrives("valve")
    harness.passes(5)
    client.say(*[wire.Ping(1)] * 10)
    assert set(kept(harness.server)) == {"peers", "_last"}
    assert client.link.session._pingsEmptyAt == pytest.approx(harness.clock.seconds() - 7.0)
    assert quiet.link.session._pingsEmptyAt is None
    client.transport.lose()
    quiet.transport.lose()
    assert kept(harness.server) == {}


def test_pingsBeforeTheHello() -> None:
    """
    They are counted, too, and the count goes on when the peer is admitted.
    """
    harness = ServerHarness(serverLimits=ServerLimits(pingsPerSecond=10))
    flood, client = harness.arrives(), harness.arrives()
    flood.say(*[wire.Ping(1)] * 31)
    assert flood.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    client.say(*[wire.Ping(1)] * 20)
    client.say(wire.Hello("pump"), *[wire.Ping(1)] * 10)
    assert harness.server.named("pump") is client.link
    assert client.goodbyeCode is None
    client.say(wire.Ping(1))
    assert client.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    harness.clock.advance(0)
    assert kept(harness.server) == {}


@pytest.mark.parametrize("delay", [0.0, 1.0, 60.0, 300.0])
@pytest.mark.parametrize("perSecond", [1, 8, 20])
def test_pingsThatPiledUp(perSecond: int, delay: float) -> None:
    """
    Pings that arrive all at once, because this process did not run, did not read, or the network
    held them back, are no offence, again and again (promise 7).
    """
    harness = ServerHarness(heartbeat=None)
    client = harness.arrives("pump")
    for _ in range(3):
        for _ in range(30):
            harness.clock.advance(1.0)
            client.say(*[wire.Ping(1)] * perSecond)
        harness.clock.advance(delay)
        client.say(*[wire.Ping(1)] * round(perSecond * delay))
        assert client.transport.open
    client.transport.lose()


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, PingRateLimit.SAVED)), max_size=20),
)
def test_rateThatIsKeptNeverPassesTheLimit(
    perSecond: int, holds: list[tuple[float, float]]
) -> None:
    """
    A peer that sends C{perSecond} pings a second, on a network that delivers and holds back for any
    time up to C{SAVED}, never meets the limit.
    """
    passed: list[object] = []
    limit = PingRateLimit(perSecond, passed.append)
    now, emptyAt, arrived = 0.0, None, 0
    for flows, held in holds:
        instants = [now + number / perSecond for number in range(1, int(flows * perSecond) + 1)]
        now += flows + held
        for when in [*instants, now]:
            while arrived < int(when * perSecond):
                watch = SimpleNamespace(detector=SimpleNamespace(heardAt=when))
                link: Any = SimpleNamespace(peerWatch=watch, establishedAt=0.0)
                emptyAt = limit.spend(link, emptyAt)
                assert passed == []
                arrived += 1


def test_messageOverMaxMessageEndsTheLink(events: list[LogEvent]) -> None:
    """
    A message longer than C{maxMessage} ends its link, as soon as its length is known, with
    C{ProtocolViolation}.  The protocol's own limit holds where that is lower.
    """
    harness = ServerHarness(serverLimits=ServerLimits(maxMessage=10))
    client = harness.arrives("pump")
    client.say(wire.Data(bytes(10)))
    client.transport.deliver(wire.encode(wire.Data(bytes(11)))[: wire.HEADER_SIZE])
    harness.clock.advance(0)
    assert client.protocol.told == ["pump", bytes(10)]
    assert type(harness.hooks.told("disconnected")[0]) is ProtocolViolation
    assert "a body of 11 bytes: at most 10" in reasons(events, "disconnected")[0]

    class Strict(Listener):
        maxMessage = 5

    harness = ServerHarness(Factory.forProtocol(Strict), serverLimits=ServerLimits(maxMessage=10))
    client = harness.arrives("pump")
    assert client.protocol.maxMessage == 5
    client.transport.lose()


def test_serverLimitsNoneLimitsNothing() -> None:
    """
    With C{serverLimits=None} nothing is limited: no hello, no decision, and pings without end.
    """
    harness = ServerHarness(serverLimits=None, admit=lambda *facts: Deferred(), heartbeat=None)
    silent, undecided = harness.arrives(), harness.arrives("pump")
    undecided.say(*[wire.Data(bytes(1000))] * 200, *[wire.Ping(1)] * 1000)
    harness.clock.advance(1e6)
    assert silent.transport.open and undecided.transport.open
    assert not undecided.transport.paused
    assert harness.clock.getDelayedCalls() == []
    silent.transport.lose()
    undecided.transport.lose()


# Draining.


def drained(harness: ServerHarness, **how: Any) -> list[Any]:
    """
    Drain it, and note when that is done.
    """
    done: list[Any] = []
    harness.server.drain(**how).addCallback(done.append)
    return done


def test_drainTellsAllAndClosesTheRest() -> None:
    """
    All are told goodbye, and when to come back; what they still say is delivered.  Those that do
    not leave are closed after the grace, and those that were not admitted yet at once.  It fires
    when all are gone; no further peer is admitted.
    """
    harness = ServerHarness()
    leaving, staying, arriving = harness.arrives("a"), harness.arrives("b"), harness.arrives()
    done = drained(harness, retryAfter=2, spread=30, grace=1)
    for client in (leaving, staying, arriving):
        assert client.heard(wire.Goodbye) == [wire.Goodbye("closing", 2, 30)]
    staying.say(wire.Data(b"last words"))
    assert staying.protocol.told == ["b", b"last words"]
    leaving.transport.lose()
    late: Any = harness.server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    transport = FakeTransport(harness.clock, late)
    late.makeConnection(transport)
    assert transport.aborting
    harness.passes(0.875)
    assert staying.transport.open and not arriving.transport.open
    assert done == []
    harness.passes(0.25)
    assert not staying.transport.open
    assert len(done) == 1
    assert {type(cause) for cause in harness.hooks.told("disconnected")} == {ClosedHere}
    assert len(staying.heard(wire.Goodbye)) == 1
    assert harness.clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", ["drain", "close", "goodbye"])
def test_closingNewcomerGetsNoName(how: str, loggedErrors: LoggedErrors) -> None:
    """
    A newcomer that has to wait for a name, and whose link begins to close meanwhile, is not
    connected when the name becomes free.
    """
    harness = ServerHarness(limits=Limits(closeTimeout=4))
    holder, newcomer = harness.arrives("a"), harness.arrives("a")
    for client in (holder, newcomer):
        client.transport.stuck = True
    if how == "goodbye":
        newcomer.say(wire.Goodbye("never mind"))
    else:
        getattr(harness.server, how)()
    harness.clock.advance(0)
    holder.transport.stuck = False
    holder.transport.lose()
    for _ in range(3):
        harness.clock.advance(0)
    assert len(harness.hooks.told("connected")) == 1
    assert loggedErrors.flush() == []
    harness.passes(5)
    assert kept(harness.server) == {}


def test_closedInTheOrderOfArrival() -> None:
    """
    Whether it is admitted or not, who came first is closed first.
    """
    harness = ServerHarness()
    clients = [harness.arrives(name) for name in ("a", None, "b", None)]
    ended: list[int] = []
    for client in clients:
        client.link.addCleanup(ended.append, client.link.generation)
    harness.server.close()
    harness.clock.advance(0)
    assert ended == [1, 2, 3, 4]
    assert kept(harness.server) == {}


def test_drainEndsAsSoonAsAllAreGone() -> None:
    """
    If all peers leave by themselves, the rest of the grace is not waited for.  Without peers the
    Deferred fires at once, at each call.
    """
    harness = ServerHarness()
    clients = [harness.arrives(name) for name in "abc"]
    done = drained(harness)
    for client in clients:
        client.transport.lose()
    assert len(done) == 1
    assert harness.clock.getDelayedCalls() == []
    assert len(drained(harness)) == 1


def test_drainIsBounded() -> None:
    """
    Peers that take no byte, so that no polite close comes to an end, do not hold it up: it fires
    within C{closeTimeout}, the grace included (promise 9).
    """
    harness = ServerHarness(limits=Limits(closeTimeout=4))
    stuck = harness.arrives("a")
    stuck.transport.stuck = True
    done = drained(harness, grace=60)
    harness.passes(3.875)
    assert done == []
    harness.passes(0.375)
    assert len(done) == 1
    assert harness.clock.getDelayedCalls() == []


def test_drainWaitsForCleanups() -> None:
    """
    It fires when all cleanups have run.
    """
    harness = ServerHarness()
    cleaning: Deferred[None] = Deferred()
    client = harness.arrives("a")
    client.link.addCleanup(lambda: cleaning)
    done = drained(harness)
    client.transport.lose()
    assert done == []
    cleaning.callback(None)
    assert len(done) == 1


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"spread": -1}, "spread is -1"),
        ({"retryAfter": float("inf")}, "retryAfter is inf"),
        ({"grace": -1}, "grace is -1"),
        ({"reason": "x" * 2000}, "reason is 2000"),
    ],
)
def test_drainChecksItsArguments(how: dict[str, Any], names: str) -> None:
    """
    A wrong value is one sentence, and nothing has begun.
    """
    harness = ServerHarness()
    client = harness.arrives("a")
    with pytest.raises(ValueError, match=names):
        harness.server.drain(**how)
    assert harness.arrives("b").link.generation in harness.server.peers
    client.transport.lose()
    harness.server.peers[2].protocol.transport.lose()


def test_drainWithoutAGoodbye() -> None:
    """
    Peers of a protocol that has no goodbye are closed at once.
    """
    harness = ServerHarness(KeptFactory())
    client = harness.arrives()
    done = drained(harness, grace=2)
    harness.clock.advance(0)
    assert not client.transport.open
    assert len(done) == 1


def test_drainedServerListensAgain() -> None:
    """
    A factory that listens again after it was drained admits again.
    """
    harness = ServerHarness()
    drained(harness)
    harness.server.doStart()
    client = harness.arrives("a")
    assert harness.server.named("a") is client.link
    client.transport.lose()
    harness.server.doStop()


def test_lostPeerIsNotRefused() -> None:
    """
    A peer that was admitted and goes is C{disconnected}; C{refused} is for those who were not.
    """
    harness = ServerHarness()
    harness.arrives("a").transport.lose()
    assert harness.hooks.names == ["connected", "disconnected"]
    assert type(harness.hooks.told("disconnected")[0]) is PeerClosed


@pytest.mark.parametrize("when", ["init", "connectionMade"])
def test_methodsSetOnTheInstanceAreKept(when: str) -> None:
    """
    What a peer says before it is admitted is held back from methods that were set on the instance,
    too, and these are there once it is.
    """

    class Line(HeartbeatMixin, LineReceiver):
        def __init__(self) -> None:
            self.told: list[Any] = []
            self.setOnes("init")

        def connectionMade(self) -> None:
            self.setOnes("connectionMade")

        def setOnes(self, now: str) -> None:
            if now == when:
                self.dataReceived = self.told.append  # type: ignore[method-assign]

    class Framed(Listener):
        def __init__(self) -> None:
            super().__init__()
            self.setOnes("init")

        def connectionMade(self) -> None:
            super().connectionMade()
            self.setOnes("connectionMade")

        def setOnes(self, now: str) -> None:
            if now == when:
                self.frameReceived = self.told.append  # type: ignore[method-assign]

    for kind, words in ((Line, b"hello\r\n"), (Framed, wire.Hello("one"))):
        decision: Deferred[None] = Deferred()
        clock = Clock()
        server = HeartbeatServerFactory(
            Factory.forProtocol(kind),
            admit=lambda *arguments, decision=decision: decision,  # type: ignore[misc]
            clock=clock,
        )
        protocol: Any = server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4000))
        transport = Wire(clock, protocol)
        protocol.makeConnection(transport)
        data = words if isinstance(words, bytes) else wire.encode(words)
        transport.deliver(data)
        assert protocol.told == []
        decision.callback(None)
        assert protocol.told == [words]
        transport.deliver(b"x" if kind is Line else wire.encode(wire.Data(b"x")))
        assert protocol.told[1:] == [b"x" if kind is Line else wire.Data(b"x")]
        transport.lose()


def test_whatCanNotBeHeldBack(loggedErrors: LoggedErrors) -> None:
    """
    A peer whose protocol has a method that can not be replaced does not come in undecided: its link
    ends, and the log says why.
    """

    class Fixed(HeartbeatMixin, LineReceiver):
        @property
        def dataReceived(self) -> Any:
            return super().dataReceived

    clock = Clock()
    server = HeartbeatServerFactory(
        Factory.forProtocol(Fixed), admit=lambda *arguments: Deferred(), clock=clock
    )
    protocol: Any = server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4000))
    transport = Wire(clock, protocol)
    said: list[LogEvent] = []
    globalLogPublisher.addObserver(said.append)
    protocol.makeConnection(transport)
    globalLogPublisher.removeObserver(said.append)
    clock.advance(0)
    assert not transport.open
    assert any("can not be held back" in event.get("words", "") for event in said)
