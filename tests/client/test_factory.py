# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientFactory}, driven by connectors: made ones in virtual time, and Twisted's own on
loopback.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import pytest_twisted
from twisted.application.internet import TCPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NotConnectingError,
)
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_heartbeat import (
    ClosedHere,
    ConnectFailed,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatProtocol,
    Limits,
    PeerClosed,
    PeerSilent,
)

from ..support.loopback import NAME, QUICK, Loopback, Peers, clientOptions, wait, within
from ..support.virtualnetwork import PEER, FakeTransport, Kept, Recorder


class FakeConnector:
    """
    Connects when told, and tells the factory as Twisted's connectors do.

    @ivar state: C{"disconnected"}, C{"connecting"} or C{"connected"}.
    """

    def __init__(self, factory: Any, clock: Clock) -> None:
        self.factory = factory
        self.state = "disconnected"
        self.connects = 0
        self.transports: list[FakeTransport] = []
        self._clock = clock

    def connect(self) -> None:
        """
        See C{IConnector}.
        """
        if self.state != "disconnected":
            raise RuntimeError("can't connect in this state")
        self.state = "connecting"
        self.connects += 1
        self.factory.doStart()
        self.factory.startedConnecting(self)

    def stopConnecting(self) -> None:
        """
        See C{IConnector}.
        """
        if self.state != "connecting":
            raise NotConnectingError("we're not trying to connect")
        self.fail(ConnectionRefusedError())

    def succeed(self) -> FakeTransport | None:
        """
        The connection is made.
        """
        self.state = "connected"
        protocol = self.factory.buildProtocol(PEER)
        if protocol is None:
            self.lost(ConnectionLost())
            return None
        transport = FakeTransport(self._clock, _Told(protocol, self))
        self.transports.append(transport)
        protocol.makeConnection(transport)
        return transport

    def fail(self, error: Exception | None = None) -> None:
        """
        No connection is made.
        """
        self.state = "disconnected"
        self.factory.clientConnectionFailed(self, Failure(error or ConnectionRefusedError()))
        self.factory.doStop()

    def lost(self, error: Exception) -> None:
        """
        The connection is gone.
        """
        self.state = "disconnected"
        self.factory.clientConnectionLost(self, Failure(error))
        self.factory.doStop()


class _Told:
    """
    First the protocol is told of the loss, then the connector: as C{tcp.Client} does.
    """

    def __init__(self, protocol: Any, connector: FakeConnector) -> None:
        self._protocol = protocol
        self._connector = connector

    def connectionLost(self, reason: Failure) -> None:
        self._protocol.connectionLost(reason)
        self._connector.lost(reason.value)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


class Steady(HeartbeatClientFactory):
    """
    Without jitter and spread, so that instants are exact.
    """

    protocol = Kept
    jitter = None
    spread = 0.0
    noisy = False


class Scene:
    """
    One factory and its connector in virtual time.
    """

    def __init__(self, kind: type[HeartbeatClientFactory] = Steady, **settings: Any) -> None:
        self.clock = Clock()
        self.hooks = Recorder()
        self.factory = kind(hooks=self.hooks, **settings)
        self.factory.clock = self.clock
        self.connector = FakeConnector(self.factory, self.clock)

    def connected(self) -> FakeTransport:
        """
        The connector connects.
        """
        transport = self.connector.succeed()
        assert transport is not None
        return transport

    def start(self) -> None:
        """
        As C{reactor.connectTCP}.
        """
        self.connector.connect()

    def wait(self, seconds: float) -> None:
        """
        Time passes in steps.
        """
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)

    @property
    def delays(self) -> list[float]:
        """
        What the C{retrying} hook was told.
        """
        return [retry.delay for retry in self.hooks.told("retrying")]


def test_isReconnectingClientFactory() -> None:
    """
    It is one, for code that asks.
    """
    assert isinstance(HeartbeatClientFactory(), ReconnectingClientFactory)


def test_firstAttemptIsTheCallersOwn() -> None:
    """
    The first attempt is the caller's own; the hooks hear of it and of the link.
    """
    scene = Scene()
    scene.start()
    assert scene.hooks.events == [("connecting", 1)]
    assert scene.factory.link is None
    transport = scene.connected()
    assert scene.hooks.names == ["connecting", "connected"]
    assert scene.factory.link is scene.hooks.told("connected")[0]
    assert scene.connector.connects == 1
    scene.factory.stopTrying()
    transport.lose()


def test_reconnectsAfterLoss() -> None:
    """
    A lost link is cleaned up, and after the delay the connector connects again.
    """
    scene = Scene()
    scene.start()
    transport = scene.connected()
    link = scene.factory.link
    assert link is not None
    cleaning: Deferred[None] = Deferred()
    link.addCleanup(lambda: cleaning)
    transport.lose(ConnectionDone())
    scene.wait(5)
    assert scene.connector.connects == 1
    cleaning.callback(None)
    scene.wait(0.875)
    assert scene.connector.connects == 1
    scene.wait(0.25)
    assert scene.connector.connects == 2
    assert [type(cause) for cause in scene.hooks.told("disconnected")] == [PeerClosed]
    scene.connected()
    assert scene.factory.link is not None
    assert scene.factory.link.generation == 2
    scene.factory.stopTrying()
    scene.connector.transports[-1].lose()
    assert scene.clock.getDelayedCalls() == []


def test_attributesSetTheDelays() -> None:
    """
    C{initialDelay}, C{factor} and C{maxDelay} mean what they say, and C{delay} and C{retries} tell.
    """

    class Mine(Steady):
        initialDelay = 2.0
        factor = 3.0
        maxDelay = 20.0

    scene = Scene(Mine)
    scene.start()
    for _ in range(5):
        scene.connector.fail()
        scene.clock.advance(scene.delays[-1])
    assert scene.delays == [2, 6, 18, 20, 20]
    assert scene.factory.retries == 5
    assert scene.factory.delay == 20
    assert scene.connector.connects == 6
    scene.factory.stopTrying()


def test_instanceAttributes() -> None:
    """
    They may also be set on an instance, as with Twisted's own.
    """
    scene = Scene()
    scene.factory.initialDelay = 0.25
    scene.start()
    scene.connector.fail()
    assert scene.delays == [0.25]
    scene.factory.stopTrying()


def test_jitterIsFullOrAFraction() -> None:
    """
    C{jitter="full"} draws from 0 to the ceiling; a fraction varies it either way.
    """

    class Fraction(Steady):
        jitter = 0.5
        initialDelay = 10.0

    class Full(Steady):
        jitter = "full"
        initialDelay = 10.0

    for kind, low, high in ((Fraction, 5, 15), (Full, 0, 10)):
        drawn = []
        for _ in range(50):
            scene = Scene(kind)
            scene.start()
            scene.connector.fail()
            drawn += scene.delays
            scene.factory.stopTrying()
        assert low <= min(drawn) < max(drawn) <= high
        assert len(set(drawn)) > 10


@pytest.mark.parametrize("jitter", [0, False, None])
def test_anyFalseJitterMeansNone(jitter: Any) -> None:
    """
    Any false value means none, as in Twisted: the delays are what the attributes say.
    """
    kind = type("Exact", (Steady,), {"jitter": jitter, "initialDelay": 0.5, "spread": 12.0})
    scene = Scene(kind)
    scene.start()
    for _ in range(3):
        scene.connector.fail()
        scene.wait(10)
    assert scene.delays[:3] == [0.5, 1.0, 2.0]
    scene.factory.stopTrying()


def test_acceptThenClose() -> None:
    """
    A link that was not proven resets nothing: the delays grow (promise 13).
    """
    scene = Scene()
    scene.start()
    for _ in range(4):
        scene.connected().lose()
        scene.clock.advance(scene.delays[-1])
    assert scene.delays == [1, 2, 4, 8]
    scene.factory.stopTrying()


@pytest.mark.parametrize("proof", ["the peer spoke", "it lasted"])
def test_provenLinkResets(proof: str) -> None:
    """
    It calls C{resetDelay} itself when the link is proven: by the peer's first word at once, by
    lasting when it is lost at the latest.
    """
    resets: list[float] = []

    class Counting(Steady):
        def resetDelay(self) -> None:
            resets.append(self.clock.seconds())
            super().resetDelay()

    scene = Scene(Counting)
    scene.start()
    for _ in range(3):
        scene.connector.fail()
        scene.clock.advance(scene.delays[-1])
    assert resets == []
    transport = scene.connected()
    if proof == "the peer spoke":
        transport.deliver(b"hello")
        assert (scene.factory.retries, scene.factory.delay) == (0, 1)
        assert len(resets) == 1
    else:
        scene.clock.advance(10)
    transport.lose()
    assert len(resets) == 1
    assert scene.delays[-1] == 1
    scene.factory.stopTrying()


def test_maxRetries() -> None:
    """
    C{maxRetries=2} means two retries after the first attempt; then it gives up, and says so.
    """

    class Few(Steady):
        maxRetries = 2

    scene = Scene(Few)
    scene.start()
    for _ in range(3):
        scene.connector.fail()
        scene.wait(10)
    assert scene.connector.connects == 3
    # As in Twisted, a program that compares the two knows that it is over.
    assert scene.factory.retries == 3
    assert [type(cause) for cause in scene.hooks.told("gaveUp")] == [ConnectFailed]
    assert scene.clock.getDelayedCalls() == []


def test_stopTryingWhileWaiting() -> None:
    """
    C{stopTrying} during the wait: no further attempt, no delayed call.
    """
    scene = Scene()
    scene.start()
    scene.connector.fail()
    scene.factory.stopTrying()
    assert scene.clock.getDelayedCalls() == []
    scene.wait(100)
    assert scene.connector.connects == 1


def test_stopTryingWhileConnecting() -> None:
    """
    C{stopTrying} during an attempt: the connector stops, and nothing is tried again.
    """
    scene = Scene()
    scene.start()
    scene.factory.stopTrying()
    assert scene.connector.state == "disconnected"
    scene.wait(100)
    assert scene.connector.connects == 1
    assert scene.clock.getDelayedCalls() == []


def test_stopTryingWhileConnected() -> None:
    """
    C{stopTrying} leaves a link that is up as it is, watched; once lost, it is cleaned up and not
    replaced.
    """
    scene = Scene(heartbeat=Heartbeat(interval=4, timeout=4), ping=lambda protocol: None)
    scene.start()
    transport = scene.connected()
    link = scene.factory.link
    assert link is not None
    ran: list[str] = []
    link.addCleanup(ran.append, "cleaned up")
    scene.factory.stopTrying()
    assert transport.open
    scene.wait(10)
    assert not transport.open
    assert [type(cause) for cause in scene.hooks.told("disconnected")] == [PeerSilent]
    assert ran == ["cleaned up"]
    scene.wait(100)
    assert scene.connector.connects == 1
    assert scene.clock.getDelayedCalls() == []


def test_stopTryingFromInside() -> None:
    """
    C{stopTrying} from inside of any hook: no attempt after it, nothing left.
    """
    for name in ("connecting", "connected", "disconnected", "retrying"):
        scene = Scene()
        scene.hooks.then[name] = scene.factory.stopTrying
        scene.start()
        if scene.connector.state == "connecting":
            transport = scene.connected()
            transport.lose()
        scene.wait(100)
        assert scene.connector.connects == 1, name
        assert scene.clock.getDelayedCalls() == [], name


def test_retryConnectsAgainAfterADelay() -> None:
    """
    C{retry} has the connector connect again after a delay; without one it says what is missing.
    """
    scene = Scene()
    with pytest.raises(ValueError, match="no connector to retry"):
        scene.factory.retry()
    scene.factory.retry(scene.connector)  # type: ignore[arg-type]
    assert scene.connector.connects == 0
    scene.wait(1.25)
    assert scene.connector.connects == 1
    scene.factory.stopTrying()


def test_buildProtocolReturnsNone() -> None:
    """
    A factory that refuses makes a failed attempt, and the next comes (promise 16).
    """

    class Refusing(Steady):
        refusals = 1

        def buildProtocol(self, addr: Any) -> Any:
            if self.refusals:
                self.refusals -= 1
                return None
            return super().buildProtocol(addr)

    scene = Scene(Refusing)
    scene.start()
    assert scene.connector.succeed() is None
    scene.wait(1.25)
    scene.connected()
    assert scene.factory.link is not None
    scene.factory.stopTrying()
    scene.connector.transports[-1].lose()


def test_wrongAttribute(loggedErrors: Any) -> None:
    """
    An attribute that makes no sense is logged, in one sentence, and does not stop the retrying
    (promise 16).
    """
    scene = Scene()
    scene.factory.factor = 0.5
    scene.start()
    scene.connector.fail()
    [failure] = loggedErrors.flush(ValueError)
    assert "factor is 0.5" in str(failure.value)
    # The default delay after a refusal is drawn from 12 s.
    scene.wait(12.25)
    assert scene.connector.connects == 2
    loggedErrors.flush(ValueError)
    scene.factory.stopTrying()


def test_ordinarySubclass() -> None:
    """
    A subclass as they are written for C{ReconnectingClientFactory}, with a C{buildProtocol} of its
    own that calls C{resetDelay} and makes the protocol itself, goes on working.
    """

    class Old(Steady):
        def buildProtocol(self, addr: Any) -> Any:
            self.resetDelay()
            protocol = Kept()
            protocol.factory = self
            return protocol

        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            super().clientConnectionLost(connector, reason)

    scene = Scene(Old)
    scene.start()
    for _ in range(3):
        transport = scene.connected()
        transport.lose()
        scene.wait(2)
    assert scene.connector.connects == 4
    scene.factory.stopTrying()
    assert scene.clock.getDelayedCalls() == []


# On real sockets.


class Real(HeartbeatClientFactory):
    """
    Quick, and speaks the built-in protocol.
    """

    protocol = HeartbeatProtocol
    initialDelay = 0.02
    maxDelay = 0.05
    jitter = None
    spread = 0.0
    noisy = False


def connect(place: Loopback, port: int, factory: Any, name: str = NAME) -> Any:
    """
    C{reactor.connectTCP} or C{connectSSL}, undone at the end.
    """
    from twisted.internet import reactor

    if place.secured:
        connector = reactor.connectSSL("127.0.0.1", port, factory, clientOptions(name))
    else:
        connector = reactor.connectTCP("127.0.0.1", port, factory)

    async def end() -> None:
        factory.stopTrying()
        if factory.link is not None:
            await factory.link.close()
        connector.disconnect()

    place.atEnd(lambda: Deferred.fromCoroutine(end()))
    return connector


@pytest_twisted.ensureDeferred
async def test_silentPeerIsReplaced(loopback: Loopback) -> None:
    """
    On a real connector a silent peer is found within the bound, and replaced.
    """
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks, heartbeat=QUICK)
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    connect(loopback, loopback.listen(peers), factory)
    link = await within(connected)
    began = link.peerWatch.detector.heardAt
    again = hooks.next("connected")
    assert isinstance(await within(ended), PeerSilent)
    assert 0.95 * QUICK.bound <= time.monotonic() - began <= QUICK.bound + 1
    assert (await within(again)).generation == 2
    assert hooks.names.count("retrying") == 1


@pytest_twisted.ensureDeferred
async def test_refusedPortIsTriedAgainWithGrowingDelays(loopback: Loopback) -> None:
    """
    A port where nobody listens is tried again and again, with growing delays, until somebody does.
    """
    hooks = Recorder()
    factory = Real(hooks=hooks)
    port = loopback.listen(Peers())
    await within(loopback.close())
    connect(loopback, port, factory)
    first = await within(hooks.next("retrying"))
    second = await within(hooks.next("retrying"))
    assert (first.delay, second.delay) == (0.02, 0.04)
    assert isinstance(first.cause.__cause__, ConnectionRefusedError)


@pytest_twisted.ensureDeferred
async def test_closeOfLink(loopback: Loopback) -> None:
    """
    C{stopTrying} and C{link.close()} end it for good, politely.
    """
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks)
    connected = hooks.next("connected")
    connect(loopback, loopback.listen(peers), factory)
    link = await within(connected)
    peer = await within(peers.accepted.get())
    factory.stopTrying()
    assert isinstance(await within(link.close()), ClosedHere)
    await within(peer.lost)
    await wait(0.2)
    assert hooks.told("connecting") == [1]


@pytest_twisted.ensureDeferred
async def test_handshakeFailures() -> None:
    """
    A TLS handshake that hangs, or that shows a certificate for another name, is C{HandshakeFailed}
    within C{connectTimeout}, is never C{connected}, and is retried.
    """
    await handshakeFails(hanging=True)
    await handshakeFails(hanging=False)


async def handshakeFails(hanging: bool) -> None:
    """
    One of the two.
    """
    place = Loopback(secured=True)
    hooks = Recorder()
    factory = Real(hooks=hooks, limits=Limits(connectTimeout=0.3))
    port = place.listen(Peers(), secured=not hanging)
    began = time.monotonic()
    connect(place, port, factory, name=NAME if hanging else "other.example")
    first = await within(hooks.next("retrying"))
    assert type(first.cause).__name__ == "HandshakeFailed"
    if hanging:
        assert 0.95 * 0.3 <= time.monotonic() - began <= 0.3 + 1
    second = await within(hooks.next("retrying"))
    assert second.attempt == 2
    assert "connected" not in hooks.names
    await within(place.close())


@pytest_twisted.ensureDeferred
async def test_tcpClientService() -> None:
    """
    It works in a C{TCPClient} service of Twisted's.
    """
    place = Loopback()
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks)
    service = TCPClient("127.0.0.1", place.listen(peers), factory)
    connected = hooks.next("connected")
    service.startService()
    await within(connected)
    peer = await within(peers.accepted.get())
    again = hooks.next("connected")
    peer.transport.loseConnection()
    await within(again)
    factory.stopTrying()
    gone = factory.link.whenGone() if factory.link else None
    service.stopService()
    assert gone is not None
    await within(gone)
    await within(place.close())
