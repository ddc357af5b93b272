# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A protocol behind the mix-in works as it does without: its own methods are called, and what is set
on the instance stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.logger import formatEvent, globalLogPublisher
from twisted.mail.imap4 import IMAP4Client, IMAP4Server
from twisted.mail.pop3 import POP3
from twisted.mail.smtp import SMTP
from twisted.names.dns import DNSProtocol
from twisted.protocols.basic import LineReceiver
from twisted.protocols.ftp import FTP, FTPFactory
from twisted.protocols.memcache import MemCacheProtocol
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.words.protocols.irc import IRCClient
from zope.interface import implementer

from twisted_heartbeat import Heartbeat, HeartbeatMixin, Limits, PeerClosed, PeerSilent
from twisted_heartbeat.protocol.mixin import pingOf

from ..support.loopback import Loopback, Peers, opened, wait, within
from ..support.virtualnetwork import FakeTransport, Recorder

QUICK = Heartbeat.within(0.5)


@pytest.fixture
def hooks() -> Recorder:
    """
    What the link told.
    """
    return Recorder()


@pytest.fixture(params=["plain", "TLS", "UNIX"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Any], Any]]:
    """
    Listens with a factory, and returns the endpoint to connect to.
    """
    from twisted.internet import reactor

    with opened(request.param == "TLS") as loopback:

        def listen(factory: Factory) -> Any:
            if request.param != "UNIX":
                return loopback.endpoint(loopback.listen(factory)), loopback
            path = str(tmp_path / "socket")
            port = reactor.listenUNIX(path, factory)
            loopback.atEnd(port.stopListening)
            return UNIXClientEndpoint(reactor, path), loopback

        yield listen


class Sensor(HeartbeatMixin, Protocol):
    """
    Any protocol with the mix-in.

    @ivar got: what its own dataReceived was told.
    """

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def sendPing(self) -> None:
        """
        Make the peer speak.
        """
        self.transport.write(b"ping")

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.got.append(data)


class Setting(Sensor):
    """
    Sets methods on the instance.

    @ivar own: what those were told.
    """

    when = "never"

    def __init__(self) -> None:
        super().__init__()
        self.own: list[object] = []
        self.setOnes("init")

    def setOnes(self, now: str) -> None:
        """
        Set them, if it is time.
        """
        if now == self.when:
            self.dataReceived = self.own.append  # type: ignore[method-assign]
            self.connectionLost = self.own.append  # type: ignore[method-assign]

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        self.setOnes("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        super().dataReceived(data)
        self.setOnes("dataReceived")


TIMES = ["init", "connectionMade", "outside", "dataReceived"]


@pytest.mark.parametrize("when", TIMES)
@pytest_twisted.ensureDeferred
async def test_methodsSetOnTheInstanceOverSockets(
    when: str, place: Callable[[Any], Any], hooks: Recorder
) -> None:
    """
    Methods that are set on the instance, whenever that is, get all that they would get without the
    mix-in; the link hears the peer, and the end, which has its true cause.
    """

    class Kind(Setting):
        pass

    Kind.when = when
    peers = Peers()
    endpoint, loopback = place(peers)
    service = loopback.service(
        endpoint, Factory.forProtocol(Kind), hooks=hooks, heartbeat=QUICK, limits=Limits()
    )
    protocol = await within(service.whenConnected())
    protocol.setOnes("outside")
    peer = await within(peers.accepted.get())
    for number in range(6):
        if number:
            await within(peer.heard.get())
        peer.transport.write(b"pong")
    ended = hooks.next("disconnected")
    await within(peer.heard.get())
    assert hooks.names == ["connecting", "connected"]
    assert protocol.link.hasReceivedData
    peer.transport.loseConnection()
    cause = await within(ended)
    assert type(cause) is PeerClosed
    assert b"pong" in protocol.own
    assert [one.value for one in protocol.own if isinstance(one, Failure)] == [cause]
    assert protocol.got == ([b"pong"] if when == "dataReceived" else [])


def connected(
    kind: Callable[[], Any], made: type[StringTransport] | None = None
) -> tuple[Any, Any, Clock]:
    """
    A protocol on a transport in memory, in virtual time.
    """
    clock = Clock()
    protocol = kind()
    protocol.clock = clock
    protocol.callLater = clock.callLater
    transport: Any = FakeTransport(clock, protocol) if made is None else made()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    transport.clear()
    return protocol, transport, clock


@pytest.mark.parametrize("when", TIMES)
def test_methodsSetOnTheInstanceInMemory(when: str, hooks: Recorder) -> None:
    """
    The same where no socket tells the link of anything: a peer that answers lives, and one that
    does not is found.
    """

    class Kind(Setting):
        heartbeat = Heartbeat(interval=2, timeout=2)

    Kind.when, Kind.hooks = when, hooks
    protocol, transport, clock = connected(Kind)
    protocol.setOnes("outside")
    for _ in range(80):
        clock.advance(0.25)
        if transport.value():
            transport.clear()
            transport.deliver(b"pong")
    assert hooks.names == ["connected"]
    assert b"pong" in protocol.own
    clock.pump([0.25] * 24)
    assert not transport.open
    assert [type(cause) for cause in hooks.told("disconnected")] == [PeerSilent]
    assert sum(isinstance(one, Failure) for one in protocol.own) == 1


def test_setAgainAndAgain(hooks: Recorder) -> None:
    """
    A protocol whose C{dataReceived} is another one after each chunk is heard each time.
    """

    class States(Sensor):
        heartbeat = Heartbeat(interval=2, timeout=2)

        def connectionMade(self) -> None:
            self.even()

        def even(self, data: bytes = b"") -> None:
            self.got.append(data)
            self.dataReceived = self.odd  # type: ignore[method-assign]

        def odd(self, data: bytes) -> None:
            self.got.append(data)
            self.dataReceived = self.even  # type: ignore[method-assign]

    States.hooks = hooks
    protocol, transport, clock = connected(States)
    for number in range(40):
        clock.advance(1)
        transport.deliver(b"%d" % number)
    assert protocol.got == [b"", *(b"%d" % number for number in range(40))]
    assert hooks.names == ["connected"]
    assert protocol.link.silence == 0
    transport.lose()


def test_setInFrontOfTheClasss(hooks: Recorder) -> None:
    """
    A method that is set, and calls what was there before it, is no loop: each is called once.
    """
    protocol, transport, _ = connected(Sensor)
    seen: list[object] = []

    def inFrontOf(method: Callable[[Any], object]) -> Callable[[Any], None]:
        def before(argument: Any) -> None:
            seen.append(argument)
            method(argument)

        return before

    lost: list[Failure] = []
    protocol.connectionLost = lost.append
    for _ in range(2):
        protocol.dataReceived = inFrontOf(protocol.dataReceived)
        protocol.connectionLost = inFrontOf(protocol.connectionLost)
    transport.deliver(b"a")
    transport.deliver(b"b")
    transport.lose()
    assert protocol.got == [b"a", b"b"]
    assert seen[:4] == [b"a", b"a", b"b", b"b"]
    assert len(lost) == 1
    assert seen[4:] == lost * 2
    assert protocol.link.state == "gone"


def test_nothingIsLeftOnTheInstance(hooks: Recorder) -> None:
    """
    A second connection of the same instance finds the methods as the application left them.
    """
    protocol, transport, _ = connected(Sensor)
    protocol.dataReceived = mine = protocol.got.append
    transport.deliver(b"1")
    transport.lose()
    second = FakeTransport(protocol.clock, protocol)
    protocol.makeConnection(second)
    second.deliver(b"2")
    assert protocol.got == [b"1", b"2"]
    second.lose()
    protocol.makeConnection(third := FakeTransport(protocol.clock, protocol))
    protocol.dataReceived = mine
    del protocol.dataReceived
    third.deliver(b"3")
    assert protocol.got == [b"1", b"2", b"3"]
    third.lose()


class AnswersToAnyName(Protocol):
    """
    Has every attribute that it is asked for, as proxies of remote objects do.
    """

    def __getattr__(self, name: str) -> object:
        return ("remote", name)

    def dataReceived(self, data: bytes) -> None:
        """
        Throw it away.
        """


def test_protocolThatHasEveryAttribute(hooks: Recorder) -> None:
    """
    Its link is in use as soon as it is connected, like any other.
    """

    class Watched(HeartbeatMixin, AnswersToAnyName):
        heartbeat = Heartbeat(interval=None, timeout=2)

    Watched.hooks = hooks
    _, transport, _ = connected(Watched)
    assert hooks.names == ["connected"]
    transport.lose()


class Forwards(Protocol):
    """
    Forwards the attributes that are set, as programs do that decide late what they speak.
    """

    def __init__(self) -> None:
        object.__setattr__(self, "inner", Protocol())
        object.__setattr__(self, "got", [])

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("transport", "connected", "clock", "callLater"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.got.append(data)  # type: ignore[attr-defined]


def test_protocolThatForwardsItsAttributes(hooks: Recorder) -> None:
    """
    The mix-in depends on no C{__setattr__} of the protocol's.
    """

    class Watched(HeartbeatMixin, Forwards):
        heartbeat = Heartbeat(interval=None, timeout=2)

    Watched.hooks = hooks
    protocol, transport, clock = connected(Watched)
    for _ in range(5):
        clock.advance(0.5)
        transport.deliver(b"x")
    assert hooks.names == ["connected"]
    assert protocol.got == [b"x"] * 5
    clock.pump([0.25] * 12)
    assert hooks.names == ["connected", "suspected", "disconnected"]


@pytest_twisted.ensureDeferred
async def test_silentPeerIsFound(place: Callable[[Any], Any], hooks: Recorder) -> None:
    """
    A peer that spoke and is silent from then on is dead after the bound, and not much later.
    """
    peers = Peers()
    endpoint, loopback = place(peers)
    service = loopback.service(
        endpoint, Factory.forProtocol(Sensor), hooks=hooks, heartbeat=QUICK, limits=Limits()
    )
    protocol = await within(service.whenConnected())
    peer = await within(peers.accepted.get())
    peer.transport.write(b"pong")
    link = protocol.link
    assert isinstance(await within(hooks.next("disconnected")), PeerSilent)
    assert 0.95 * QUICK.bound <= link.silence < QUICK.bound + 0.3
    assert protocol.got == [b"pong"]


@pytest_twisted.ensureDeferred
async def test_methodThatCanNotBeCovered(place: Callable[[Any], Any], hooks: Recorder) -> None:
    """
    A C{dataReceived} that is a property of the class is heard on the socket, and the log says once
    that it could not be covered.
    """

    class Fixed(Sensor):
        @property
        def dataReceived(self) -> Any:  # type: ignore[override]
            return self.got.append

    peers = Peers()
    endpoint, loopback = place(peers)
    said: list[Any] = []
    globalLogPublisher.addObserver(said.append)
    loopback.atEnd(lambda: globalLogPublisher.removeObserver(said.append))
    service = loopback.service(
        endpoint, Factory.forProtocol(Fixed), hooks=hooks, heartbeat=QUICK, limits=Limits()
    )
    protocol = await within(service.whenConnected())
    peer = await within(peers.accepted.get())
    for _ in range(4):
        await within(peer.heard.get())
        peer.transport.write(b"pong")
    assert hooks.names == ["connecting", "connected"]
    assert set(protocol.got) == {b"pong"}
    assert protocol.link.silence < QUICK.bound
    assert sum("can not be covered" in (formatEvent(event) or "") for event in said) == 1


# The protocol's own methods.


@implementer(IHandshakeListener)
class Begins(Protocol):
    """
    Begins when its handshake is complete.
    """

    begun = 0

    def handshakeCompleted(self) -> None:
        """
        Begin.
        """
        self.begun += 1


class HasItsOwn(Protocol):
    """
    Pinger another handshake, and does not declare the interface.
    """

    begun = 0

    def handshakeCompleted(self) -> None:
        """
        Never called by a transport.
        """
        self.begun += 1


def test_handshakeOfTheProtocolIsCalled() -> None:
    """
    The mix-in passes on C{handshakeCompleted}, to a protocol that declares the interface.
    """

    class Watched(HeartbeatMixin, Begins):
        pass

    class Other(HeartbeatMixin, HasItsOwn):
        pass

    for kind, begun in ((Watched, 1), (Other, 0)):
        protocol, transport, _ = connected(kind)
        protocol.handshakeCompleted()
        assert protocol.begun == begun
        transport.lose()


@pytest.mark.parametrize("first", [True, False])
@pytest_twisted.ensureDeferred
async def test_handshakeOverTLS(first: bool, secured: Loopback) -> None:
    """
    Over TLS it is called once, whether the mix-in stands before the protocol or behind it, and a
    C{handshakeCompleted} that is set on the instance is called in its place.
    """

    class Before(HeartbeatMixin, Begins):
        pass

    class Behind(Begins, HeartbeatMixin):
        pass

    class Own(Before):
        def __init__(self) -> None:
            self.told: list[str] = []
            self.handshakeCompleted = lambda: self.told.append("own")

    made: list[Any] = []
    for kind in (Before if first else Behind, Own):
        endpoint = secured.endpoint(secured.listen(peers := Peers()))
        made.append(await within(endpoint.connect(Factory.forProtocol(kind))))
        await within(peers.accepted.get())
        link = made[-1].link
        while link.state == "handshaking":
            await wait(0.01)
        assert link.state == "alive"
    assert made[0].begun == 1
    assert (made[1].begun, made[1].told) == (0, ["own"])
    for one in made:
        one.transport.abortConnection()
        await within(one.link.whenGone())


def test_pingOfTheProtocolIsItsOwn() -> None:
    """
    The mix-in has no public C{ping}: C{IRCClient.ping} asks a user.
    """

    class Bot(HeartbeatMixin, IRCClient):
        heartbeatInterval = None  # type: ignore[assignment]

        def sendPing(self) -> None:
            self.sendLine("PING heartbeat")

    bot, transport, _ = connected(Bot)
    bot.ping("alice", "hello")
    assert b"PRIVMSG alice :\x01PING hello\x01" in transport.value()
    transport.lose()


def test_sendPingOfTheProtocolIsReached() -> None:
    """
    A C{sendPing} of the protocol behind the mix-in is called with its own arguments; it is the ping
    if it needs none.
    """

    class Speaks(Protocol):
        def sendPing(self, payload: bytes = b"") -> None:
            self.transport.write(b"ping:" + payload)  # type: ignore[union-attr]

    class Demands(Protocol):
        def sendPing(self, payload: bytes) -> None:
            self.transport.write(b"ping:" + payload)  # type: ignore[union-attr]

    for behind, watch in ((Speaks, "ping"), (Demands, "keepalive")):
        kind: Any = type("Watched", (HeartbeatMixin, behind), {})
        protocol, transport, clock = connected(kind)
        protocol.sendPing(b"x")
        assert transport.value() == b"ping:x"
        assert protocol.link.watch == watch
        assert (pingOf(kind) is None) == (watch == "keepalive")
        transport.lose()


def test_callLaterOfTheProtocolIsReached() -> None:
    """
    C{DNSProtocol.callLater} takes arguments for what it calls.
    """

    class Watched(HeartbeatMixin, DNSProtocol):
        pass

    called: list[object] = []
    clock = Clock()
    protocol: Any = Watched(None)
    protocol.clock = clock
    assert protocol.timeOut is None
    DNSProtocol.callLater, before = (  # type: ignore[method-assign]
        lambda self, period, f, *arguments: clock.callLater(period, f, *arguments),
        DNSProtocol.callLater,
    )
    try:
        protocol.callLater(1, called.append, "argument")
    finally:
        DNSProtocol.callLater = before  # type: ignore[method-assign]
    clock.advance(1)
    assert called == ["argument"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (IMAP4Server, b"* BYE Autologout; connection idle too long\r\n"),
        (SMTP, b"421 "),
        (HTTPChannel, b""),
        (IMAP4Client, b""),
        (FTP, b""),
        (POP3, b""),
        (MemCacheProtocol, b""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_timeoutOfTheProtocolIsCalled(kind: Any, said: bytes, first: bool) -> None:
    """
    The C{timeoutConnection} of each of Twisted's protocols is called, and the connection closes as
    without the mix-in.
    """
    bases = (HeartbeatMixin, kind) if first else (kind, HeartbeatMixin)
    watched: Any = type("Watched", bases, {})

    def make(made: Any) -> Any:
        protocol = made()
        if kind is FTP:
            protocol.factory = FTPFactory()
        return protocol

    protocol, transport, clock = connected(lambda: make(watched), StringTransportWithDisconnection)
    plain, bare, ticking = make(kind), StringTransportWithDisconnection(), Clock()
    plain.callLater, bare.protocol = ticking.callLater, plain
    plain.makeConnection(bare)
    bare.clear()
    for one, time in ((protocol, clock), (plain, ticking)):
        one.setTimeout(60)
        time.pump([1.0] * 61)
    assert said in bare.value()
    assert transport.value() == bare.value()
    assert not transport.connected
    assert protocol.link.state == "gone"
    assert not [call for call in clock.getDelayedCalls() if call not in ticking.getDelayedCalls()]


def test_timeOutOfTheClassHolds() -> None:
    """
    C{POP3.timeOut} and C{IMAP4Server.timeOut} are not hidden.
    """
    for kind in (POP3, IMAP4Server):
        watched: Any = type("Watched", (HeartbeatMixin, kind), {})
        assert watched.timeOut == kind.timeOut
        assert kind.timeOut


class Closes(Protocol, TimeoutMixin):
    """
    Says goodbye when it times out, and closes politely.
    """

    goesOn = False

    def timeoutConnection(self) -> None:
        """
        See C{TimeoutMixin}.
        """
        self.transport.write(b"bye")  # type: ignore[union-attr]
        if self.goesOn:
            self.setTimeout(7)
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]


class Going(Closes):
    """
    Starts its timeout again instead.
    """

    goesOn = True


def test_timeoutIsBounded(hooks: Recorder) -> None:
    """
    A link whose protocol closes politely when it times out is aborted after C{closeTimeout}.
    """

    class Watched(HeartbeatMixin, Closes):
        limits = Limits(closeTimeout=2)

    Watched.hooks = hooks
    protocol, transport, clock = connected(Watched)
    transport.stuck = True
    protocol.setTimeout(7)
    clock.pump([0.5] * 14)
    assert transport.value() == b"bye"
    assert transport.open
    clock.pump([0.5] * 3)
    assert not transport.aborting
    clock.pump([0.5] * 2)
    assert transport.aborting
    assert not transport.open
    [cause] = hooks.told("disconnected")
    assert type(cause) is PeerSilent
    assert "resetTimeout was not called for 7 s" in str(cause)


@pytest.mark.parametrize("returns", [True, False], ids=["returns the call", "returns nothing"])
def test_timeoutWithACallLaterOfItsOwn(returns: bool) -> None:
    """
    A C{callLater} with the arguments of C{TimeoutMixin}'s, whether or not it returns the call, is
    what times out and what bounds the close.
    """

    class Watched(HeartbeatMixin, Closes):
        limits = Limits(closeTimeout=2)

    protocol, transport, _ = connected(Watched)
    transport.stuck = True
    own = Clock()

    def callLater(period: float, func: Any) -> Any:
        call = own.callLater(period, func)
        return call if returns else None

    protocol.callLater = callLater
    protocol.setTimeout(7)
    own.advance(6.9)
    assert transport.value() == b""
    own.advance(0.2)
    assert transport.value() == b"bye"
    own.advance(2)
    assert transport.aborting


@pytest.mark.parametrize("said", [None, OSError(), ConnectionDone()], ids=repr)
def test_lossWithoutAFailure(said: object) -> None:
    """
    What is said of the loss of a connection reaches the protocol as it is where it is no
    C{Failure}: programs say L{None}, and tests an exception.
    """

    class Watched(HeartbeatMixin, Protocol):
        lost: Any = None

        def connectionLost(self, reason: Any = connectionDone) -> None:
            self.lost = [reason]

    protocol, _, clock = connected(Watched)
    protocol.connectionLost(said)
    assert protocol.lost == [said]
    assert protocol.link.state == "gone"
    assert clock.getDelayedCalls() == []


def test_coverPassesForTheMethod() -> None:
    """
    What stands in the place of a protocol's method has that method's attributes: C{addCleanup} of
    trial asks for its name.
    """

    class Watched(HeartbeatMixin, Protocol):
        pass

    protocol, _, _ = connected(Watched)
    assert protocol.connectionLost.__name__ == "connectionLost"
    assert protocol.connectionLost.__self__ is protocol


def test_protocolCallsItsOwnMethodWithMore() -> None:
    """
    A call with arguments that no transport passes is the protocol's own, as of Twisted's HTTP/2. It
    reaches the protocol, and ends no link.
    """

    class Watched(HeartbeatMixin, Protocol):
        def __init__(self) -> None:
            self.lost: list[bool] = []

        def connectionLost(self, reason: Any = connectionDone, final: bool = True) -> Any:
            self.lost.append(final)
            return "told"

    protocol, transport, clock = connected(Watched)
    assert protocol.connectionLost(connectionDone, final=False) == "told"
    assert protocol.connectionLost(connectionDone, False) == "told"
    assert protocol.link.state != "gone"
    transport.lose()
    assert protocol.lost == [False, False, True]
    assert protocol.link.state == "gone"
    assert clock.getDelayedCalls() == []


class Handing(Protocol):
    """
    Passes a connection to one protocol, and from the first bytes on to another in its place, as
    Twisted's HTTP does for HTTP/2. The protocols are told of no TLS handshake.

    @ivar kinds: the two.
    @ivar told: both, in their order.
    """

    def __init__(self, *kinds: Callable[[], Any]) -> None:
        self.kinds = kinds
        self.told: list[Any] = []

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        self.transport = transport
        self.told.append(self.kinds[len(self.told)]())
        self.told[-1].makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        if len(self.told) == 1:
            self.makeConnection(self.transport)
        self.told[-1].dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        See C{IProtocol}.
        """
        self.told[-1].connectionLost(reason)


@pytest_twisted.ensureDeferred
async def test_protocolIsReplacedOnItsTransport(
    place: Callable[[Any], Any], hooks: Recorder
) -> None:
    """
    A live connection outlasts C{connectTimeout} when its protocol has handed it to another before
    it could hear of the TLS handshake. The links of both end with the connection.
    """

    class Watched(Sensor):
        heartbeat = None
        limits = Limits(connectTimeout=0.2)

        def sendPing(self) -> None:
            """
            Not needed.
            """

    Watched.hooks = hooks
    handing = Handing(Watched, Watched)
    factory = Factory()
    factory.buildProtocol = lambda addr: handing  # type: ignore[method-assign]
    endpoint, _ = place(factory)
    client = await within(endpoint.connect(Peers()))
    client.transport.write(b"a")
    await within(hooks.next("connected"))
    await wait(0.5)
    assert hooks.told("disconnected") == []
    client.transport.loseConnection()
    await within(gatherResults([one.link.whenGone() for one in handing.told]))
    assert [type(one.link.cause) for one in handing.told] == [PeerClosed, PeerClosed]


def test_timeoutThatStartsAgain() -> None:
    """
    A C{timeoutConnection} that sets the timeout again does not end the link.
    """

    class Watched(HeartbeatMixin, Going):
        pass

    protocol, transport, clock = connected(Watched)
    protocol.setTimeout(7)
    clock.pump([0.5] * 60)
    assert transport.value() == b"bye" * 4
    assert not transport.aborting
    transport.lose()
    assert clock.getDelayedCalls() == []


def test_setTimeoutOfTheProtocolIsReached() -> None:
    """
    C{setTimeout} and C{resetTimeout} of the protocol's own class are called.
    """

    class Own(Protocol, TimeoutMixin):
        told: list[object] = []

        def setTimeout(self, period: Any) -> Any:
            self.told.append(period)
            return super().setTimeout(period)

        def resetTimeout(self) -> None:
            self.told.append("reset")
            super().resetTimeout()

    class Watched(HeartbeatMixin, Own):
        pass

    protocol, transport, clock = connected(Watched)
    protocol.setTimeout(3)
    clock.advance(2)
    protocol.resetTimeout()
    clock.advance(2)
    assert transport.open
    clock.advance(1)
    clock.advance(0)
    assert not transport.open
    assert protocol.told == [3, "reset"]


# Behind the protocol.


def test_behindTheProtocol(hooks: Recorder) -> None:
    """
    The mix-in watches also where it stands behind the protocol's class, in a class and in those
    that inherit from it, with a C{makeConnection} of their own or without.
    """

    class Behind(LineReceiver, HeartbeatMixin):
        heartbeat = Heartbeat(interval=None, timeout=2)

    class Inherits(Behind):
        def makeConnection(self, transport: Any) -> None:
            super().makeConnection(transport)

    class OwnMakes(LineReceiver, HeartbeatMixin):
        heartbeat = Heartbeat(interval=None, timeout=2)

        def makeConnection(self, transport: Any) -> None:
            LineReceiver.makeConnection(self, transport)

    class Makes(LineReceiver):
        def makeConnection(self, transport: Any) -> None:
            super().makeConnection(transport)

    class Twice(Makes, Behind):
        pass

    for kind in (Behind, Inherits, OwnMakes, Twice):
        kind.hooks = hooks
        hooks.events.clear()
        protocol, transport, clock = connected(kind)
        assert protocol.connected
        assert protocol.link.watch == "passive"
        assert protocol.link.generation == 1
        clock.pump([0.25] * 10)
        assert hooks.names == ["connected", "suspected", "disconnected"]
        assert not transport.open


def test_mixinFirstIsLeftAlone() -> None:
    """
    Where the mix-in stands first no C{makeConnection} is added to the class.
    """

    class First(HeartbeatMixin, LineReceiver):
        pass

    assert "makeConnection" not in vars(First)
    assert First.makeConnection is HeartbeatMixin.makeConnection


def test_endIsToldOnce(hooks: Recorder) -> None:
    """
    A transport that lets go late, after the link was done without it, tells nobody again.
    """
    lost: list[Failure] = []

    class Watched(HeartbeatMixin, Protocol):
        heartbeat = Heartbeat(interval=None, timeout=1)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            lost.append(reason)

    class Stuck(FakeTransport):
        def abortConnection(self) -> None:
            self.aborting = True

    Watched.hooks = hooks
    protocol, transport, clock = connected(Watched)
    transport.__class__ = Stuck
    clock.pump([0.25] * 12)
    assert hooks.names == ["connected", "suspected", "disconnected"]
    assert len(lost) == 1
    transport.lose()
    assert len(lost) == 1
