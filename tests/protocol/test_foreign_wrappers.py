# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Protocols of this package inside of wrappers of Twisted's: they have their link, as without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.application.internet import ClientService
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import (
    ProtocolWrapper,
    ThrottlingFactory,
    TimeoutFactory,
    WrappingFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from twisted_heartbeat import (
    ClosedHere,
    GoodbyeCode,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerSilent,
    ServerLimits,
)
from twisted_heartbeat.core import wire

from ..support.loopback import QUICK, Loopback, Peers, clientOptions, serverOptions, wait, within
from ..support.virtualnetwork import Kept, Recorder

Wrap = Callable[[Any], Any]


class LateWrapper(ProtocolWrapper):
    """
    Has a C{makeConnection} of its own, which might connect its protocol later.
    """

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]


class LateFactory(WrappingFactory):  # type: ignore[type-arg]
    protocol = LateWrapper


class Told(HeartbeatProtocol):
    """
    Keeps the messages that it gets.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def messageReceived(self, message: bytes) -> None:
        self.messages.append(message)


def named(name: str, protocol: type[HeartbeatProtocol] = Told) -> Factory:
    return Factory.forProtocol(type(name, (protocol,), {"name": name}))


def inTimeouts(factory: Any) -> Any:
    return TimeoutFactory(factory, 60)  # type: ignore[no-untyped-call]


def twice(factory: Any) -> Any:
    return WrappingFactory(inTimeouts(factory))


WRAPPERS: dict[str, Wrap] = {
    "wrapping": WrappingFactory,
    "throttling": ThrottlingFactory,
    "timeouts": inTimeouts,
    "two": twice,
}


class Both:
    """
    A server and a client whose factories are wrapped, each with its hooks.
    """

    def __init__(self, loopback: Loopback, server: Any, client: Any, **settings: Any) -> None:
        self.hooks, self.theirs = Recorder(), Recorder()
        self.server = HeartbeatServerFactory(server, heartbeat=QUICK, hooks=self.hooks, **settings)
        loopback.atEnd(self.server.close)
        self.connected = self.hooks.next("connected")
        self.disconnected = self.hooks.next("disconnected")
        endpoint = loopback.endpoint(loopback.listen(self.server))
        self.service = loopback.service(
            endpoint, client, hooks=self.theirs, heartbeat=QUICK, retryPolicy=lambda attempt: 60.0
        )


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest_twisted.ensureDeferred
async def test_goodbyeOfAService(loopback: Loopback, wrap: Wrap) -> None:
    """
    C{stopService} says goodbye, and the server has the client's name and its messages, also if both
    factories are wrapped.  What the service gives out is what its factory has built.
    """
    both = Both(loopback, wrap(named("server")), wrap(named("pump")))
    built = await within(both.service.whenConnected())
    assert isinstance(built, ProtocolWrapper)
    link = await within(both.connected)
    assert both.server.named("pump") is link
    ours: Any = both.service.link
    assert ours.watch == "ping" and isinstance(ours.protocol, Told)
    ours.protocol.sendMessage(b"x" * 100_000)
    await within(both.service.stopService())
    cause = await within(both.disconnected)
    assert cause.goodbyeCode is GoodbyeCode.CLOSING
    assert link.protocol.messages == [b"x" * 100_000]
    assert [type(cause) for cause in both.theirs.told("disconnected")] == [ClosedHere]


@pytest_twisted.ensureDeferred
async def test_serverRefusesByName(loopback: Loopback) -> None:
    """
    A wrapped peer is asked for its hello, admitted by it, and told why it is refused.
    """
    asked: list[wire.Hello | None] = []

    def admit(address: object, certificate: object, hello: wire.Hello | None) -> str:
        asked.append(hello)
        return "friends only"

    client = WrappingFactory(named("foe"))
    both = Both(loopback, ThrottlingFactory(named("server")), client, admit=admit)
    refused = both.hooks.next("refused")
    cause = await within(both.theirs.next("disconnected"))
    await within(refused)
    assert cause.goodbyeCode is GoodbyeCode.REFUSED and "friends only" in str(cause)
    assert [hello and hello.name for hello in asked] == ["foe"]
    assert both.hooks.names == ["refused"]


@pytest_twisted.ensureDeferred
async def test_drainSaysGoodbye(plain: Loopback) -> None:
    """
    C{drain} tells a wrapped peer when to come back.
    """
    both = Both(plain, WrappingFactory(named("server")), named("pump"))
    await within(both.connected)
    await within(both.service.whenConnected())
    ended = both.theirs.next("disconnected")
    await within(both.server.drain(retryAfter=3, spread=20, grace=0.1))
    cause = await within(ended)
    assert (cause.goodbyeCode, cause.retryAfter) == (GoodbyeCode.CLOSING, 3)


@pytest_twisted.ensureDeferred
async def test_limitsHold(plain: Loopback) -> None:
    """
    A server's limits are those of the protocol inside, too.
    """
    server = WrappingFactory(named("server"))
    both = Both(plain, server, named("pump"), serverLimits=ServerLimits(maxMessage=10))
    link = await within(both.connected)
    assert link.protocol.maxMessage == 10


@pytest_twisted.ensureDeferred
async def test_tlsAroundAWrapper(plain: Loopback) -> None:
    """
    TLS of the factory itself tells a wrapped protocol that its handshake is complete, though the
    wrapper between them does not listen for that.
    """
    server = TLSMemoryBIOFactory(serverOptions(), False, WrappingFactory(named("server")))
    client = TLSMemoryBIOFactory(clientOptions(), True, WrappingFactory(named("pump")))
    both = Both(plain, server, client)
    link = await within(both.connected)
    assert link.name == "pump"
    await within(both.service.stopService())
    assert (await within(both.disconnected)).goodbyeCode is GoodbyeCode.CLOSING


@pytest_twisted.ensureDeferred
async def test_handshakeReachesAnyProtocol(loopback: Loopback) -> None:
    """
    The same for a protocol that knows nothing of this package, in a wrapper outside of ours.
    """
    hooks = Recorder()
    connected = hooks.next("connected")
    server = WrappingFactory(HeartbeatFactory(Peers(), hooks=hooks, heartbeat=None))
    loopback.service(loopback.endpoint(loopback.listen(server)), Factory.forProtocol(Kept))
    link = await within(connected)
    await wait(0.02)
    assert link.state == "alive"


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Protocol):
    def readConnectionLost(self) -> None:
        """
        The peer will say no more.
        """

    def writeConnectionLost(self) -> None:
        """
        Not used.
        """


class MixedHalfCloseable(HeartbeatMixin, HalfCloseable):
    pass


@pytest.mark.parametrize("isMixedIn", [False, True], ids=["wrapped", "mixed in"])
def test_halfCloseableInAClientService(isMixedIn: bool) -> None:
    """
    A protocol inside of the proxy of Twisted's C{ClientService} stays half-closeable.
    """
    reactor: Any = MemoryReactorClock()
    plain = Factory.forProtocol(HalfCloseable)
    mixed = Factory.forProtocol(type("Mixed", (MixedHalfCloseable,), {"clock": reactor}))
    factory = mixed if isMixedIn else HeartbeatFactory(plain, clock=reactor)
    endpoint = TCP4ClientEndpoint(reactor, "192.0.2.1", 80)
    ClientService(endpoint, factory, clock=reactor).startService()
    outermost = reactor.tcpClients[0][2].buildProtocol(None)
    transport = StringTransport()
    transport.protocol = outermost  # type: ignore[attr-defined]
    outermost.makeConnection(transport)
    assert IHalfCloseableProtocol.providedBy(outermost)


@pytest_twisted.ensureDeferred
async def test_settingsHoldInside(plain: Loopback) -> None:
    """
    A protocol with the mix-in, inside of a wrapper, has one link, with the service's settings.
    """

    class Mixed(HeartbeatMixin, Kept):
        heartbeat = None

        def sendPing(self) -> None:
            self.transport.write(b"?")

    hooks = Recorder()
    ended = hooks.next("disconnected")
    factory = inTimeouts(Factory.forProtocol(Mixed))
    endpoint = plain.endpoint(plain.listen(Peers()))
    plain.service(endpoint, factory, hooks=hooks, heartbeat=QUICK, retryPolicy=lambda _: 60.0)
    assert isinstance(await within(ended), PeerSilent)
    assert hooks.names == ["connecting", "connected", "suspected", "disconnected"]


@pytest_twisted.ensureDeferred
async def test_linkOfAnotherFactoryStays(plain: Loopback) -> None:
    """
    A protocol inside of a wrapper keeps the link that a factory of this package has given to it.
    """
    server = HeartbeatServerFactory(named("server"), heartbeat=QUICK)
    hooks = Recorder()
    connected = hooks.next("connected")
    outside = HeartbeatFactory(WrappingFactory(server), heartbeat=None, hooks=hooks)
    endpoint = plain.endpoint(plain.listen(outside))
    service = plain.service(endpoint, named("pump"))
    link = await within(connected)
    while server.named("pump") is None:
        await wait(0.02)
    assert server.named("pump") is not link
    await within(service.stopService())
    while server.peers:
        await wait(0.02)


@pytest_twisted.ensureDeferred
async def test_pingTakesWhatWasBuilt(plain: Loopback) -> None:
    """
    A C{ping} that was given takes what the factory has built.
    """
    pinged: list[Any] = []
    factory = WrappingFactory(named("pump"))
    endpoint = plain.endpoint(plain.listen(HeartbeatServerFactory()))
    service = plain.service(endpoint, factory, heartbeat=QUICK, ping=pinged.append)
    built = await within(service.whenConnected())
    while not pinged:
        await wait(0.02)
    assert pinged[0] is built


@pytest_twisted.ensureDeferred
async def test_wrapperThatConnectsInItsOwnWay(plain: Loopback) -> None:
    """
    Around a wrapper with a C{makeConnection} of its own the link stays outside, as around any other
    protocol: it hears of the end of the connection whatever becomes of the protocol inside.
    """
    hooks = Recorder()
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    peers = Peers()
    endpoint = plain.endpoint(plain.listen(peers))
    plain.service(endpoint, LateFactory(named("pump")), hooks=hooks, retryPolicy=lambda _: 60.0)
    link = await within(connected)
    assert isinstance(link.protocol, LateWrapper)
    (await within(peers.accepted.get())).transport.loseConnection()
    await within(ended)
