# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A polite close (promises 9 and 20): what was said last is heard by a peer that reads, and a peer
that does not read, or does not close, holds the close up for a bounded time.

The rules are tested in virtual time, what the kernels make of them on real sockets.
"""

from __future__ import annotations

import gc
import socket
import struct
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from twisted_heartbeat import (
    ClosedHere,
    GoodbyeCode,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    ServerLimits,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.link.politeclose import (
    LINGER,
    LONGEST_CLOSE,
    CloseProgress,
    CloseStep,
    PoliteClose,
)

from ..support.loopback import Loopback, Peer, Peers, connectedPair, serverOptions, wait, within
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

CLOSE = 0.3
SLACK = 1.0
"""Seconds that a busy machine may add."""

SIZE = 8 * 1024 * 1024
"""Bytes: more than both kernels hold."""

SLOW_RATE = SIZE / 1.0
"""Bytes a second that a slow reader takes, unless the machine is slower."""

BOUNDED = Limits(closeTimeout=CLOSE, maxBuffered=None)

# The rules.

WAIT, FINISH, ABORT = CloseStep.WAIT, CloseStep.FINISH, CloseStep.ABORT


class Closing:
    """
    A polite close in virtual time, looked at whenever that is due.

    @ivar acknowledged: bytes that the peer's kernel has acknowledged.
    """

    def __init__(self, *, awaitsPeer: bool, timeout: float = 4.0) -> None:
        self.now = 0.0
        self.acknowledged = 100
        self.complete = False
        self.unread = False
        self.progress = CloseProgress(0.0, timeout, 100, awaitsPeer=awaitsPeer)

    def look(self, lateness: float = 0.0) -> CloseStep:
        """
        Look at once.
        """
        return self.progress.decide(
            self.now, lateness, self.acknowledged, complete=self.complete, unread=self.unread
        )

    def run(self, act: Callable[[], object] = lambda: None) -> tuple[CloseStep, float]:
        """
        Do something before each look.

        @return: how it ends, and when.
        """
        for _ in range(10_000):
            assert self.progress.due >= self.now
            self.now = self.progress.due
            act()
            step = self.look()
            if step is not WAIT:
                return step, self.now
        raise AssertionError("it never ends")

    def acknowledge(self) -> None:
        """
        The peer's kernel takes one byte more.
        """
        self.acknowledged += 1


@pytest.mark.parametrize("awaitsPeer", [True, False])
def test_noProgress(awaitsPeer: bool) -> None:
    """
    A peer whose kernel acknowledges nothing is aborted after the timeout.
    """
    assert Closing(awaitsPeer=awaitsPeer).run() == (ABORT, 4.0)


def test_receivedBytesAreNoProgress() -> None:
    """
    A peer that only sends is aborted after the timeout all the same.
    """
    closing = Closing(awaitsPeer=True)
    closing.unread = True
    assert closing.run() == (ABORT, 4.0)


@pytest.mark.parametrize("awaitsPeer", [True, False])
def test_progress(awaitsPeer: bool) -> None:
    """
    The timeout runs from the last acknowledgement, which is noticed at most 1/8 of it late.
    """
    closing = Closing(awaitsPeer=awaitsPeer)
    closing.now = 3.0
    closing.acknowledge()
    assert closing.look() is WAIT
    assert closing.run() == (ABORT, 7.0)


@pytest.mark.parametrize("awaitsPeer", [True, False])
def test_longest(awaitsPeer: bool) -> None:
    """
    However steady the progress, all of it takes at most twelve times the timeout.
    """
    closing = Closing(awaitsPeer=awaitsPeer)
    assert closing.run(closing.acknowledge) == (ABORT, LONGEST_CLOSE * 4.0)


def test_completeAwaitsPeer() -> None:
    """
    Once all is acknowledged, the timeout runs once more for the peer's close.
    """
    closing = Closing(awaitsPeer=True)
    closing.now, closing.complete = 3.0, True
    assert closing.look() is WAIT
    assert closing.run() == (ABORT, 7.0)


def test_completeFinishes() -> None:
    """
    Without a goodbye, the connection is closed as soon as all is acknowledged and nothing is
    unread.
    """
    closing = Closing(awaitsPeer=False)
    assert closing.look() is WAIT
    closing.complete = True
    assert closing.look() is FINISH


@pytest.mark.parametrize(("timeout", "lingers"), [(4.0, LINGER), (0.5, 0.5)])
def test_lingers(timeout: float, lingers: float) -> None:
    """
    A peer that goes on sending holds that up for 1 s, or for the timeout if that is shorter.
    """
    closing = Closing(awaitsPeer=False, timeout=timeout)
    closing.complete = closing.unread = True
    assert closing.look() is WAIT
    assert closing.run() == (FINISH, lingers)


def test_lastLook() -> None:
    """
    The reactor reads once more before the abort; a process that did not run gets that time again.
    """
    closing = Closing(awaitsPeer=True)
    closing.now = 60.0
    assert closing.look(lateness=56.0) is WAIT
    assert closing.progress.due == 64.0
    closing.acknowledge()
    closing.now = 61.0
    assert closing.look() is WAIT
    assert Closing(awaitsPeer=True).progress.due < 4.0


# On real sockets.


class Speaker(HeartbeatProtocol):
    """
    Keeps the messages that it receives.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        factory: Any = self.factory
        factory.then(self)

    def messageReceived(self, message: bytes) -> None:
        self.messages.append(message)


class Speakers(Factory):
    """
    Makes them, and keeps them.

    @ivar named: what the next ones call themselves.
    @ivar then: what to do with each once it is connected.
    """

    then: Callable[[Any], object] = staticmethod(lambda protocol: None)

    protocol = Speaker
    noisy = False
    named = ""

    def __init__(self) -> None:
        self.built: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        assert protocol is not None
        protocol.name = self.named
        self.built.append(protocol)
        return protocol


class Place(Loopback):
    """
    A server and its clients, over one kind of connection.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        super().__init__(secured=kind.startswith("TLS"))
        self.kind = kind
        self._path = str(folder / "socket")

    def serve(self, factory: Any) -> Any:
        """
        @return: the endpoint that leads there.
        """
        from twisted.internet import reactor

        if self.kind == "UNIX":
            port = reactor.listenUNIX(self._path, factory)
            self.atEnd(port.stopListening)
            return UNIXClientEndpoint(reactor, self._path)
        if self.kind == "TLS 1.2":
            # The options are shared with other tests, the context is not.
            options = copy(serverOptions())
            options._context = None
            options.getContext().set_options(SSL.OP_NO_TLSv1_3)
            port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
            self.atEnd(port.stopListening)
            return self.endpoint(port.getHost().port)
        return self.endpoint(self.listen(factory))


KINDS = ["TCP", "TLS", "UNIX"]


def placeOf(kind: str, folder: Path) -> Iterator[Place]:
    place = Place(kind, folder)
    yield place
    pytest_twisted.blockon(within(place.close(), 10))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """
    Real sockets of each kind.
    """
    yield from placeOf(request.param, tmp_path)


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[Place]:
    """
    Plain TCP.
    """
    yield from placeOf("TCP", tmp_path)


@pytest.fixture
def tls12(tmp_path: Path) -> Iterator[Place]:
    """
    TLS 1.2.
    """
    yield from placeOf("TLS 1.2", tmp_path)


@pytest.fixture(params=["TCP", "TLS"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """
    TCP, plain and TLS.
    """
    yield from placeOf(request.param, tmp_path)


class Pair:
    """
    A client and a server of the built-in protocol, and the links between them.

    @ivar client: the client's protocol; C{server}: the server's.
    """

    def __init__(self, place: Place, **settings: Any) -> None:
        self.place = place
        self.hooks = {"client": Recorder(), "server": Recorder()}
        self.ours, self.theirs = Speakers(), Speakers()
        self.factory = HeartbeatServerFactory(self.theirs, hooks=self.hooks["server"], **settings)
        self._settings = settings

    async def connect(self, name: str = "") -> Pair:
        """
        Until both have said hello.
        """
        self.ours.named = name
        connected = [hooks.next("connected") for hooks in self.hooks.values()]
        endpoint = self.place.serve(self.factory)
        self.service = self.place.service(
            endpoint, self.ours, hooks=self.hooks["client"], retryPolicy=lambda _: 60.0
        )
        for waiting in connected:
            await within(waiting)
        self.client, self.server = self.ours.built[-1], self.theirs.built[-1]
        await until(lambda: self.client.hello is not None)
        return self


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """
    Let real time pass until something is true.
    """
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never comes true"
        await wait(0.005)


MESSAGES = [b"%03d" % number + bytes(997) for number in range(300)]


@pytest.mark.parametrize("closer", ["client", "server"])
@pytest_twisted.ensureDeferred
async def test_messagesArrive(place: Place, closer: str) -> None:
    """
    What was sent before C{close()} arrives, and the goodbye too: although the peer's own data is
    unread here, the peer goes on sending, and it reads later.
    """
    pair = await Pair(place).connect()
    here, there = pair.client, pair.server
    if closer == "server":
        here, there = there, here
    here.transport.pauseProducing()
    for _ in range(40):
        there.sendMessage(bytes(5000))
    there.transport.pauseProducing()
    await wait(0.05)
    # Its Deferred fails once the link is closing, and would stop the calls.
    sending = LoopingCall(lambda: there.sendMessage(b"command") and None)
    sending.start(0.02)
    there.link.addCleanup(sending.stop)
    for message in MESSAGES:
        here.sendMessage(message)
    gone = here.link.close()
    heard = there.link.whenGone()
    await wait(0.2)
    assert here.link.state == "closing"
    there.transport.resumeProducing()
    cause = await within(heard)
    assert there.messages == MESSAGES
    assert type(cause) is PeerClosed
    assert "goodbye: closing" in str(cause)
    assert type(await within(gone)) is ClosedHere


@pytest_twisted.ensureDeferred
async def test_messagesArriveOverTLS12(tls12: Place) -> None:
    """
    The same over TLS 1.2.
    """
    pair = await Pair(tls12).connect()
    assert pair.client.transport.getHandle().get_protocol_version_name() == "TLSv1.2"
    pair.server.transport.pauseProducing()
    for _ in range(40):
        pair.client.sendMessage(bytes(5000))
    for message in MESSAGES:
        pair.server.sendMessage(message)
    heard = pair.client.link.whenGone()
    gone = pair.server.link.close()
    assert "goodbye" in str(await within(heard))
    await within(gone)
    assert pair.client.messages == MESSAGES


@pytest_twisted.ensureDeferred
async def test_messagesArriveAfterSTARTTLS(tcp: Place) -> None:
    """
    The same after STARTTLS: close_notify and FIN come in this order.
    """
    from twisted.internet import reactor

    class Hub(Kept):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if data == b"start":
                self.transport.write(b"go")
                self.transport.startTLS(serverOptions())

    class Device(Kept):
        def connectionMade(self) -> None:
            self.transport.write(b"start")

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if self.received == b"go":
                from ..support.loopback import clientOptions

                self.transport.startTLS(clientOptions())
                self.transport.write(b"secret")

    hubs = KeptFactory()
    hubs.protocol = Hub
    hooks = Recorder()
    server = HeartbeatFactory(hubs, hooks=hooks)
    devices = KeptFactory()
    devices.protocol = Device
    number = tcp.listen(server)
    await within(TCP4ClientEndpoint(reactor, "127.0.0.1", number).connect(devices))
    [device] = devices.built
    await until(lambda: hubs.built and b"secret" in hubs.built[0].received)
    [hub] = hubs.built
    hub.transport.pauseProducing()
    device.transport.write(bytes(100_000))
    hub.transport.write(b"y" * 300_000)
    gone = hooks.told("connected")[0].close()
    await within(gone)
    await until(lambda: device.losses)
    assert device.received == b"go" + b"y" * 300_000
    assert device.reason.type.__name__ == "ConnectionDone"


@pytest_twisted.ensureDeferred
async def test_refusedWhileUploading(place: Place) -> None:
    """
    A device whose name is in use is told so, although it uploads more than the server holds.
    """
    pair = await Pair(place).connect("pump")
    second = Speakers()
    second.named = "pump"
    second.then = lambda protocol: [protocol.sendMessage(bytes(1000)) for _ in range(40)]
    hooks = Recorder()
    told = hooks.next("disconnected")
    endpoint = (
        UNIXClientEndpoint(_reactor(), place._path)
        if place.kind == "UNIX"
        else place.endpoint(place._ports[0].getHost().port)
    )
    place.service(endpoint, second, hooks=hooks, retryPolicy=lambda _: 60.0)
    cause = await within(told)
    assert type(cause) is PeerClosed
    assert cause.goodbyeCode is GoodbyeCode.NAME_IN_USE
    assert pair.factory.named("pump") is pair.server.link


@pytest_twisted.ensureDeferred
async def test_noMoreThanSomeLingerAfterTooManyPings(tcp: Place) -> None:
    """
    A link that is closing counts for no limit, so no more than 32 peers that pinged too often keep
    their connections open at a time (promise 17).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(
        Speakers(), hooks=hooks, serverLimits=ServerLimits(pingsPerSecond=1)
    )
    address = "127.0.0.1", tcp.listen(server)
    floods = []
    for _ in range(40):
        floods.append(socket.create_connection(address))
        floods[-1].sendall(wire.encode(wire.Hello()) + wire.encodePing(1) * 20)
    await until(lambda: len(hooks.told("disconnected")) == 40 - 32)
    await wait(0.1)
    assert len(hooks.told("disconnected")) == 40 - 32
    for flood in floods:
        assert b"too many pings" in flood.recv(4096)
        flood.close()
    await until(lambda: len(hooks.told("disconnected")) == 40)


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest_twisted.ensureDeferred
async def test_drain(place: Place) -> None:
    """
    C{drain()} tells a peer that uploads when to come back, and it gets what was sent before.
    """
    pair = await Pair(place).connect()
    pair.server.transport.pauseProducing()
    for _ in range(40):
        pair.client.sendMessage(bytes(5000))
    for message in MESSAGES:
        pair.server.sendMessage(message)
    heard = pair.client.link.whenGone()
    await within(pair.factory.drain(retryAfter=40, spread=2, grace=0.05, reason="restart"))
    cause = await within(heard)
    assert pair.client.messages == MESSAGES
    assert type(cause) is PeerClosed
    assert (cause.retryAfter, cause.spread) == (40, 2)


@pytest_twisted.ensureDeferred
async def test_closingLeavesPeersAndName(tcp: Place) -> None:
    """
    A link that is closing is none of the C{peers}, has no name and counts for no limit; a newcomer
    of its name is in after its cleanups, and the old connection goes on closing.
    """
    pair = await Pair(tcp, serverLimits=ServerLimits(peers=1)).connect("pump")
    old = pair.server.link
    order: list[str] = []
    await wait(0)
    old.addCleanup(order.append, "cleanup")
    pair.hooks["server"].then["connected"] = lambda: order.append("connected")
    pair.client.transport.pauseProducing()
    for message in MESSAGES:
        pair.server.sendMessage(message)
    old.close()
    assert pair.factory.named("pump") is None
    await wait(0.05)
    assert old.state == "closing"
    assert pair.factory.peers == {}
    second, hooks = Speakers(), Recorder()
    second.named = "pump"
    connected = hooks.next("connected")
    place = tcp.endpoint(tcp._ports[0].getHost().port)
    tcp.service(place, second, hooks=hooks, retryPolicy=lambda _: 60.0)
    await within(connected)
    await until(lambda: pair.factory.named("pump"))
    assert order == ["cleanup", "connected"]
    assert pair.factory.named("pump") is not old
    heard = pair.client.link.whenGone()
    pair.client.transport.resumeProducing()
    assert "goodbye" in str(await within(heard))
    assert pair.client.messages == MESSAGES


# Peers that do not play along.


@implementer(IHalfCloseableProtocol)
class Stubborn(Kept):
    """
    Reads, and never closes.

    @ivar finished: whether it has read FIN.
    """

    finished = False

    def readConnectionLost(self) -> None:
        self.finished = True

    def writeConnectionLost(self) -> None:
        pass


class StubbornPeers(Peers):
    """
    Accepts them.
    """

    protocol = Stubborn

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        self.accepted.put(protocol)
        return protocol


async def stubbornPair(place: Loopback, factory: Any, **settings: Any) -> tuple[Any, Any, Recorder]:
    """
    @return: the service, the peer that never closes, and the service's hooks.
    """
    peers, hooks = StubbornPeers(), Recorder()
    connected = hooks.next("connected")
    endpoint = place.endpoint(place.listen(peers))
    service = place.service(endpoint, factory, hooks=hooks, **settings)
    peer = await within(peers.accepted.get())
    await within(connected)
    return service, peer, hooks


@pytest_twisted.ensureDeferred
async def test_peerThatNeverCloses(tcp: Place) -> None:
    """
    After a goodbye, a peer that reads all and never closes is aborted after C{closeTimeout}.
    """
    service, peer, hooks = await stubbornPair(tcp, Speakers(), limits=BOUNDED)
    began = time.monotonic()
    await within(service.stopService())
    assert CLOSE <= time.monotonic() - began <= CLOSE + SLACK
    assert wire.encode(wire.Goodbye("closing")) in peer.received
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    peer.transport.abortConnection()


@pytest.mark.parametrize("builtIn", [True, False])
@pytest_twisted.ensureDeferred
async def test_peerThatNeverReads(stream: Place, builtIn: bool) -> None:
    """
    A peer that takes nothing of a full send buffer is aborted after C{closeTimeout}.
    """
    factory: Any = Speakers() if builtIn else KeptFactory()
    hooks = Recorder()
    service, peer = await connectedPair(stream, hooks, factory, limits=BOUNDED)
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(20 * 1024 * 1024))
    await wait(0.05)
    began = time.monotonic()
    await within(service.stopService())
    assert CLOSE <= time.monotonic() - began <= CLOSE + SLACK
    peer.transport.abortConnection()
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_peerThatOnlySends(tcp: Place) -> None:
    """
    Neither does a peer hold the close up by sending, whatever that is; it sees FIN, and no abort
    before its time.
    """
    service, peer, hooks = await stubbornPair(tcp, Speakers(), limits=BOUNDED)
    sending = LoopingCall(peer.transport.write, b"GET / HTTP/1.1\r\n\r\n" * 100)
    sending.start(0.01)
    began = time.monotonic()
    await within(service.stopService())
    assert CLOSE <= time.monotonic() - began <= CLOSE + SLACK
    sending.stop()
    assert peer.finished
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    peer.transport.abortConnection()


class Slow(Peer):
    """
    Reads at C{SLOW_RATE}, and catches up with what a busy machine has kept it from.

    @ivar taken: the number of bytes that it has read; to keep them all would be slow itself.
    """

    taken = 0
    _began = 0.0
    _resuming: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        self._began = self._began or time.monotonic()
        self.taken += len(data)
        # TLS delivers the records of one chunk one by one: they are one pause.
        early = self._began + self.taken / SLOW_RATE - time.monotonic()
        if early > 0 and self._resuming is None:
            self.transport.pauseProducing()
            self._resuming = _reactor().callLater(early, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self.transport.resumeProducing()


@pytest_twisted.ensureDeferred
async def test_slowReader(stream: Place) -> None:
    """
    A reader that is slow but steady gets everything, in longer than C{closeTimeout}.
    """
    hooks, factory, peers = Recorder(), KeptFactory(), Peers()
    peers.protocol = Slow
    connected = hooks.next("connected")
    limits = Limits(closeTimeout=0.5, maxBuffered=None)
    service = stream.service(stream.serve(peers), factory, hooks=hooks, limits=limits)
    peer = await within(peers.accepted.get())
    await within(connected)
    factory.built[0].transport.write(bytes(SIZE))
    began = time.monotonic()
    stopped = service.stopService()
    # The close itself ends by then, whatever the peer does.
    longest = LONGEST_CLOSE * 0.5
    await within(peer.lost, longest + SLACK)
    await within(stopped)
    assert time.monotonic() - began > 0.75
    assert peer.taken == SIZE


# Any other protocol.


@pytest_twisted.ensureDeferred
async def test_ordinaryProtocolIsQuick(tcp: Place) -> None:
    """
    Without a goodbye nobody waits for the peer's close: C{stopService} is over as soon as the
    peer's kernel has everything.
    """
    factory = KeptFactory()
    service, peer, _ = await stubbornPair(tcp, factory)
    factory.built[0].transport.write(b"last words")
    began = time.monotonic()
    await within(service.stopService())
    assert time.monotonic() - began < 0.5
    await until(lambda: peer.finished)
    assert peer.received == b"last words"
    peer.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_ordinaryProtocolOverAnyKind(place: Place) -> None:
    """
    So it is over TLS, with a peer that answers close_notify, and on a UNIX socket with one that
    does not even read.
    """
    hooks, factory, peers = Recorder(), KeptFactory(), Peers()
    connected = hooks.next("connected")
    service = place.service(place.serve(peers), factory, hooks=hooks)
    peer = await within(peers.accepted.get())
    await within(connected)
    if place.kind == "UNIX":
        peer.transport.pauseProducing()
    peer.transport.write(b"unread")
    factory.built[0].transport.write(b"last words")
    began = time.monotonic()
    await within(service.stopService())
    assert time.monotonic() - began < 0.5
    if place.kind == "UNIX":
        peer.transport.resumeProducing()
    await within(peer.lost)
    assert peer.received == b"last words"


@pytest_twisted.ensureDeferred
async def test_ordinaryProtocolThrowsAway(stream: Place) -> None:
    """
    What the peer's data is unread destroys nothing: it is read and thrown away, also where reading
    was paused, and the protocol does not get it.
    """
    hooks, factory = Recorder(), KeptFactory()
    service, peer = await connectedPair(stream, hooks, factory)
    [protocol] = factory.built
    protocol.transport.pauseProducing()
    peer.transport.write(bytes(200_000))
    await wait(0.05)
    peer.transport.pauseProducing()
    protocol.transport.write(b"x" * 300_000)
    stopped = service.stopService()
    await wait(0.05)
    peer.transport.resumeProducing()
    await within(stopped)
    await within(peer.lost)
    assert peer.received == b"x" * 300_000
    assert protocol.received == b""
    assert peer.reason.type.__name__ == "ConnectionDone"


@pytest_twisted.ensureDeferred
async def test_closeInTheMiddleOfAChunk(stream: Place) -> None:
    """
    A protocol that closes in C{dataReceived} gets nothing after that, over TLS too, and the
    connection ends in order on both sides.
    """
    hooks, factory = Recorder(), KeptFactory()

    class Closer(Kept):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            hooks.told("connected")[0].close()

    factory.protocol = Closer
    service, peer = await connectedPair(stream, hooks, factory)
    for _ in range(20):
        peer.transport.write(bytes(20_000))
    await within(hooks.next("disconnected"))
    await within(peer.lost)
    assert len(factory.built[0].received) <= 65536
    assert factory.built[0].reason.check(ClosedHere)
    assert type(hooks.told("disconnected")[0]) is ClosedHere


@implementer(IPullProducer)
class Producer:
    """
    Writes a few more pieces, and is done.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._left = 20

    def resumeProducing(self) -> None:
        self._left -= 1
        self._transport.write(bytes(30_000))
        if not self._left:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self._left = 0


@pytest_twisted.ensureDeferred
async def test_producer(tcp: Place) -> None:
    """
    FIN waits for a producer that is not done, as C{loseConnection()} does in Twisted.
    """
    hooks, factory = Recorder(), KeptFactory()
    service, peer = await connectedPair(tcp, hooks, factory)
    transport = factory.built[0].transport
    transport.registerProducer(Producer(transport), False)
    await within(service.stopService())
    await within(peer.lost)
    assert len(peer.received) == 600_000


@pytest_twisted.ensureDeferred
async def test_halfClosedBefore(tcp: Place) -> None:
    """
    A protocol that has closed its half loses nothing either when the link is closed.
    """
    hooks, factory = Recorder(), KeptFactory()
    service, peer = await connectedPair(tcp, hooks, factory)
    [protocol] = factory.built
    peer.transport.write(b"unread")
    protocol.transport.pauseProducing()
    peer.transport.pauseProducing()
    protocol.transport.write(b"x" * 100_000)
    protocol.transport.loseWriteConnection()
    await wait(0.05)
    stopped = service.stopService()
    peer.transport.resumeProducing()
    await within(stopped)
    await within(peer.lost)
    assert len(peer.received) == 100_000


@pytest_twisted.ensureDeferred
async def test_withoutTimeout(tcp: Place) -> None:
    """
    C{closeTimeout=None} is a plain C{loseConnection()}: a peer that never closes is not waited for.
    """
    limits = Limits(closeTimeout=None)
    service, peer, _ = await stubbornPair(tcp, Speakers(), limits=limits)
    await within(service.stopService(), 1.0)
    await until(lambda: peer.finished)
    peer.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_protocolsOwnLoseConnection(tcp: Place) -> None:
    """
    C{transport.loseConnection()}, called by the protocol, means what it means in Twisted: flush,
    and close at once.
    """
    factory = Speakers()
    service, peer, hooks = await stubbornPair(tcp, factory, retryPolicy=lambda _: 60.0)
    gone = hooks.next("disconnected")
    factory.built[0].transport.loseConnection()
    await within(gone, 1.0)
    await until(lambda: peer.finished)
    peer.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_nothingIsLeft(stream: Place) -> None:
    """
    A connection that was closed politely is freed without the collector.
    """
    hooks, factory = Recorder(), KeptFactory()
    service, peer = await connectedPair(stream, hooks, factory)
    await within(service.stopService())
    await within(peer.lost)
    # What fired these is still on the stack.
    await wait(0.01)
    assert not [one for one in gc.get_objects() if isinstance(one, PoliteClose)]


# Who reads a goodbye.


class Resetting(Protocol):
    """
    Says goodbye, and resets the connection.
    """

    def connectionMade(self) -> None:
        hello, goodbye = wire.Hello("hub"), wire.Goodbye("no room", code=GoodbyeCode.REFUSED)
        self.transport.write(wire.encode(hello) + wire.encode(goodbye))
        self.factory.accepted.put(self)

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.loseConnection()


@pytest.mark.parametrize("paused", [True, False])
@pytest_twisted.ensureDeferred
async def test_failedWriteReadsFirst(tcp: Place, paused: bool) -> None:
    """
    A goodbye that is in the receive buffer when a write fails is the cause, and no C{PeerReset}.
    """
    peers = Peers()
    peers.protocol = Resetting  # type: ignore[assignment]
    hooks, factory = Recorder(), Speakers()
    factory.then = lambda protocol: protocol.transport.pauseProducing()
    told = hooks.next("disconnected")
    endpoint = tcp.endpoint(tcp.listen(peers))
    tcp.service(endpoint, factory, hooks=hooks, retryPolicy=lambda _: 60.0)
    peer = await within(peers.accepted.get())
    await wait(0.05)
    peer.reset()
    await wait(0.05)
    [protocol] = factory.built
    if paused:
        protocol.sendMessage(b"into the void")
    else:
        # The reactor writes before it reads.
        protocol.transport.write(b"into the void")
        protocol.transport.doWrite()
        protocol.transport.resumeProducing()
    cause = await within(told)
    assert type(cause) is PeerClosed
    assert cause.goodbyeCode is GoodbyeCode.REFUSED


# A tunnel.


@pytest_twisted.ensureDeferred
async def test_tunnel(tcp: Place) -> None:
    """
    What a carried protocol has written before it closes arrives, although the other end is busy and
    its own data is unread here.
    """
    servers, clients = KeptFactory(), KeptFactory()
    port = await within(
        serverFromString(_reactor(), "heartbeat:tcp:0:interface=127.0.0.1").listen(servers)
    )
    tcp.atEnd(port.stopListening)
    where = f"heartbeat:tcp:127.0.0.1:{port.getHost().port}"
    near = await within(clientFromString(_reactor(), where).connect(clients))
    await until(lambda: servers.built and servers.built[0].transport)
    [far] = servers.built
    far.transport.pauseProducing()
    near.transport.pauseProducing()
    far.transport.write(bytes(300_000))
    await wait(0.05)
    near.transport.write(b"x" * 500_000)
    near.transport.loseConnection()
    await wait(0.2)
    far.transport.resumeProducing()
    await until(lambda: far.losses and near.losses)
    assert far.received == b"x" * 500_000
    assert far.reason.check(PeerClosed)
    assert near.reason.check(ClosedHere)


@pytest_twisted.ensureDeferred
async def test_goodbyeEndsWriting(tcp: Place) -> None:
    """
    What waits in this process when a goodbye is read is not sent, and its C{Deferred} says so: the
    peer would throw it away.  FIN follows at once.
    """
    peers = Peers()
    hooks, factory = Recorder(), Speakers()
    endpoint = tcp.endpoint(tcp.listen(peers))
    tcp.service(endpoint, factory, hooks=hooks, limits=BOUNDED, retryPolicy=lambda _: 60.0)
    peer = await within(peers.accepted.get())
    peer.transport.write(wire.encode(wire.Hello("hub")))
    peer.transport.pauseProducing()
    await until(lambda: factory.built and factory.built[0].hello)
    [protocol] = factory.built
    sending = protocol.sendMessage(bytes(SIZE))
    failed: list[Any] = []
    sending.addErrback(failed.append)
    told = hooks.next("disconnected")
    peer.transport.write(wire.encode(wire.Goodbye("restart")))
    await until(lambda: protocol.link.state == "closing")
    assert protocol.link.bytesBuffered == 0
    peer.transport.resumeProducing()
    cause = await within(told)
    assert type(cause) is PeerClosed
    assert [failure.value for failure in failed] == [cause]


@pytest_twisted.ensureDeferred
async def test_pausedTunnelReadsFirst(tcp: Place) -> None:
    """
    A reset takes nothing that was sent before it from a carried protocol that has paused reading:
    the data is delivered, and the goodbye behind it is the cause.
    """

    class Paused(Kept):
        def connectionMade(self) -> None:
            transport: Any = self.transport
            transport.pauseProducing()

    servers = KeptFactory()
    servers.protocol = Paused
    port = await within(
        serverFromString(_reactor(), "heartbeat:tcp:0:interface=127.0.0.1").listen(servers)
    )
    tcp.atEnd(port.stopListening)
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as peer:
        peer.sendall(wire.encode(wire.Hello()))
        await until(lambda: servers.built and servers.built[0].transport)
        goodbye = wire.Goodbye("no room", code=GoodbyeCode.REFUSED)
        peer.sendall(wire.encode(wire.Data(b"last words")) + wire.encode(goodbye))
        await wait(0.05)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    [far] = servers.built
    far.transport.write(b"into the void")
    await until(lambda: far.losses)
    assert far.received == b"last words"
    cause = far.transport.carrierLink.cause
    assert type(cause) is PeerClosed
    assert cause.goodbyeCode is GoodbyeCode.REFUSED
