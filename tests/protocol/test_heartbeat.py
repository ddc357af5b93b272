# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Mixing in: L{HeartbeatMixin} in protocols of one's own, and L{HeartbeatProtocol}; in virtual time
where time matters, on real loopback sockets where the transport does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from twisted_heartbeat import (
    ClosedHere,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    PeerSilent,
    ProtocolViolation,
    SendFailed,
    SendStalled,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.protocol.mixin import pingOf

from ..support.loopback import QUICK, Loopback, Peers, connectedPair, opened, wait, within
from ..support.virtualnetwork import PEER, FakeNetwork, FakeTransport, Recorder


@pytest.fixture
def hooks() -> Recorder:
    """
    What is told.
    """
    return Recorder()


class Talker(HeartbeatProtocol):
    """
    Keeps the messages that it gets.
    """

    name = "talker"

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.came: DeferredQueue[bytes] = DeferredQueue()
        self.reason: Failure | None = None

    def messageReceived(self, message: bytes) -> None:
        """
        Keep it.
        """
        self.messages.append(message)
        self.came.put(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep it.
        """
        super().connectionLost(reason)
        self.reason = reason


def connected(kind: type[Any], **attributes: Any) -> tuple[Any, FakeTransport, Clock, Recorder]:
    """
    A protocol in virtual time.
    """
    clock, hooks = Clock(), Recorder()
    body = {"clock": clock, "hooks": hooks, "heartbeat": Heartbeat(interval=4, timeout=4)}
    protocol: Any = type(kind.__name__, (kind,), {**body, **attributes})()
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    return protocol, transport, clock, hooks


def introduced(kind: type[Any], **attributes: Any) -> tuple[Any, FakeTransport, Clock, Recorder]:
    """
    A protocol in virtual time whose peer has said hello.
    """
    protocol, transport, clock, hooks = connected(kind, **attributes)
    transport.deliver(wire.encode(wire.Hello("peer")))
    transport.clear()
    return protocol, transport, clock, hooks


def framesOf(transport: FakeTransport) -> list[wire.Frame]:
    """
    What was written since the last look.
    """
    written = transport.value()
    transport.clear()
    return list(wire.FrameReader().receive(written))


def wait8(clock: Clock, seconds: float) -> None:
    """
    Time passes in steps.
    """
    for _ in range(round(seconds * 8)):
        clock.advance(0.125)


# The built-in protocol.


def test_hello() -> None:
    """
    A new link begins with a hello that names this side and its bound, within which it also speaks
    itself, since it pings.
    """
    _, transport, _, _ = connected(Talker)
    assert framesOf(transport) == [wire.Hello("talker", needs=8.0, offers=8.0)]
    transport.lose()


def test_helloReceived() -> None:
    """
    The other side's hello is kept and told.
    """
    told: list[wire.Hello] = []

    class Listening(Talker):
        def helloReceived(self, hello: wire.Hello) -> None:
            told.append(hello)

    protocol, transport, _, _ = connected(Listening)
    assert protocol.hello is None
    transport.deliver(wire.encode(wire.Hello("other", needs=3)))
    assert told == [wire.Hello("other", needs=3)]
    assert protocol.hello == told[0]
    transport.lose()


def test_pingIsAnswered() -> None:
    """
    A ping is answered with a pong that repeats its token.
    """
    _, transport, _, _ = connected(Talker)
    transport.clear()
    transport.deliver(wire.encodePing(77))
    assert framesOf(transport) == [wire.Pong(77)]
    transport.lose()


def test_silentPeerIsPinged() -> None:
    """
    After C{interval} of silence one ping is sent, once more when suspicion begins, and no other;
    then the verdict comes, and the protocol is told (promises 2 and 3).
    """
    protocol, transport, clock, hooks = connected(Talker)
    transport.clear()
    wait8(clock, 3.875)
    assert framesOf(transport) == []
    wait8(clock, 0.25)
    assert [type(frame) for frame in framesOf(transport)] == [wire.Ping]
    wait8(clock, 2)
    assert [type(frame) for frame in framesOf(transport)] == [wire.Ping]
    wait8(clock, 1.5)
    assert transport.open
    wait8(clock, 0.5)
    assert not transport.open
    assert framesOf(transport) == []
    assert type(protocol.reason.value) is PeerSilent
    assert hooks.names == ["connected", "suspected", "disconnected"]


def test_pongTellsTheRoundTrip() -> None:
    """
    The pong of the last ping gives C{link.rtt}; a pong of another gives none, but is life.
    """
    protocol, transport, clock, _ = connected(Talker)
    transport.clear()
    wait8(clock, 4.125)
    [ping] = framesOf(transport)
    assert isinstance(ping, wire.Ping)
    clock.advance(0.5)
    transport.deliver(wire.encodePong(ping.token + 1))
    assert protocol.link.rtt is None
    assert protocol.link.silence == 0
    clock.advance(0.25)
    transport.deliver(wire.encodePong(ping.token))
    assert 0.75 <= protocol.link.rtt <= 0.875
    transport.lose()


def test_unaskedPongTellsNoRoundTrip() -> None:
    """
    A pong that nobody has asked for answers no ping, not even where none was sent yet.
    """
    protocol, transport, _, _ = connected(Talker)
    transport.deliver(wire.encodePong(0))
    assert protocol.link.rtt is None
    transport.lose()


def test_everyFrameIsSeen() -> None:
    """
    A class that overrides C{frameReceived} sees the pong of its own ping, too, and what it passes
    on gives the round trip.
    """
    seen: list[wire.Frame] = []

    class Seeing(Talker):
        def frameReceived(self, frame: wire.Frame) -> None:
            seen.append(frame)
            super().frameReceived(frame)

    protocol, transport, clock, _ = introduced(Seeing)
    protocol.sendPing()
    pong = protocol.link.session.expectedPong
    clock.advance(0.5)
    transport.deliver(pong)
    assert seen == [wire.Hello("peer"), *wire.FrameReader().receive(pong)]
    assert protocol.link.rtt == 0.5
    transport.lose()


def test_aPongInAMessageIsNone() -> None:
    """
    The twelve bytes of an awaited pong in a chunk of their own, but inside of a message, are part
    of that.
    """
    protocol, transport, _, _ = introduced(Talker)
    protocol.sendPing()
    pong = wire.encodePong(1)
    for piece in (wire.encode(wire.Data(pong * 3))[:12], pong, pong, pong):
        transport.deliver(piece)
    assert protocol.messages == [pong * 3]
    assert protocol.link.rtt is None
    transport.lose()


def test_slowFrameIsLife() -> None:
    """
    A frame that comes byte by byte keeps the link alive (promise 1).
    """
    protocol, transport, clock, _ = introduced(Talker)
    for byte in wire.encode(wire.Data(b"slow")):
        wait8(clock, 7)
        transport.deliver(bytes([byte]))
    assert transport.open
    assert protocol.messages == [b"slow"]
    transport.lose()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n",
        b"\x00" * 12,
        wire.encode(wire.Data(bytes(100)))[:8] + b"\xff\xff\xff\xff",
        bytes([wire.VERSION, 99]) + bytes(10),
    ],
    ids=["HTTP", "zeros", "a huge length", "an unknown type"],
)
def test_garbage(garbage: bytes) -> None:
    """
    What can not be a frame ends the link with C{ProtocolViolation}, which says what it was; nothing
    after it is read, and nothing is raised (promise 17).
    """
    protocol, transport, clock, hooks = introduced(Talker)
    transport.deliver(wire.encode(wire.Data(b"before")) + garbage)
    transport.deliver(wire.encode(wire.Data(b"after")))
    assert transport.aborting
    clock.advance(0)
    assert protocol.messages == [b"before"]
    [cause] = hooks.told("disconnected")
    assert type(cause) is ProtocolViolation
    assert cause.words
    assert protocol.reason.value is cause
    assert protocol.reason.check(ConnectionLost)


def test_maxMessage() -> None:
    """
    A message longer than C{maxMessage} is a violation; one as long is not.
    """
    protocol, transport, clock, hooks = introduced(Talker, maxMessage=10)
    transport.deliver(wire.encode(wire.Data(bytes(10))))
    assert protocol.messages == [bytes(10)]
    transport.deliver(wire.encode(wire.Data(bytes(11))))
    clock.advance(0)
    assert type(hooks.told("disconnected")[0]) is ProtocolViolation


def test_goodbye() -> None:
    """
    A polite close says goodbye first; who hears it knows why the peer closed.
    """
    protocol, transport, clock, hooks = connected(Talker)
    transport.clear()
    protocol.link.close()
    [goodbye] = framesOf(transport)
    assert isinstance(goodbye, wire.Goodbye)
    clock.advance(0)
    other, transport, clock, hooks = connected(Talker)
    transport.deliver(wire.encode(wire.Goodbye("maintenance")))
    transport.lose(ConnectionDone())
    [cause] = hooks.told("disconnected")
    assert type(cause) is PeerClosed
    assert "maintenance" in str(cause)


def test_nothingAfterClose() -> None:
    """
    Once this side has closed, what still comes is not delivered.
    """

    class Once(Talker):
        def messageReceived(self, message: bytes) -> None:
            super().messageReceived(message)
            self.link.close()  # type: ignore[union-attr]

    protocol, transport, clock, _ = introduced(Once)
    transport.deliver(wire.encode(wire.Data(b"one")) + wire.encode(wire.Data(b"two")))
    assert protocol.messages == [b"one"]
    clock.advance(0)
    assert not transport.open


@pytest.mark.parametrize("message", ["text", 5, None])
def test_encoderError(message: Any) -> None:
    """
    A message that can not be encoded fails its C{sendMessage} with C{SendFailed}, which has what
    was raised, and ends the link; nothing of it is written.
    """
    protocol, transport, clock, hooks = connected(Talker)
    transport.clear()
    failed: list[Failure] = []
    protocol.sendMessage(message).addErrback(failed.append)
    assert transport.aborting
    assert transport.value() == b""
    clock.advance(0)
    assert type(failed[0].value) is SendFailed
    assert isinstance(failed[0].value.__cause__, TypeError)
    assert hooks.told("disconnected") == [failed[0].value]


def test_sendMessageWithoutListener() -> None:
    """
    Nobody has to listen to C{sendMessage}: its failure is no unhandled error.
    """
    protocol, transport, clock, _ = connected(Talker)
    protocol.sendMessage("text")
    clock.advance(0)
    protocol.sendMessage(b"too late")
    assert not transport.open


@pytest.mark.parametrize("way", ["alone", "wrapped", "server", "service"])
def test_forgottenConnectionMade(way: str, events: list[LogEvent]) -> None:
    """
    A subclass whose C{connectionMade} does not call its super says no hello: its links end at
    once, never connected, and one clear sentence is logged, once for the class.
    """

    class Forgetful(Talker):
        def connectionMade(self) -> None:
            self.made = True

    clock, hooks = Clock(), Recorder()
    Forgetful.clock, Forgetful.hooks = clock, hooks
    plain = Factory.forProtocol(Forgetful)
    settings: dict[str, Any] = {"clock": clock, "hooks": hooks}
    network = FakeNetwork(clock)
    endpoint = network.endpoint()
    service = HeartbeatClientService(endpoint, plain, lambda attempt: 1.0, **settings)
    factories = {
        "alone": lambda: plain,
        "wrapped": lambda: HeartbeatFactory(plain, **settings),
        "server": lambda: HeartbeatServerFactory(plain, **settings),
    }
    for number in range(2):
        if way == "service":
            service.startService()
            endpoint.attempts[number].succeed()
        else:
            protocol: Any = factories[way]().buildProtocol(PEER)
            transport = FakeTransport(clock, protocol)
            protocol.makeConnection(transport)
            assert transport.aborting
        clock.advance(0)
        clock.advance(1)
    if way == "service":
        service.stopService()
        clock.advance(0)
        clock.advance(1)
    assert "connected" not in hooks.names
    causes = [retry.cause for retry in hooks.told("retrying")] or hooks.told("disconnected")
    assert [type(cause) for cause in causes[:2]] == [ClosedHere] * 2
    [told] = [event["words"] for event in events if event["log_level"] is LogLevel.error]
    assert told in str(causes[0])
    assert "Forgetful.connectionMade must call super().connectionMade()" in told


def test_encodeMessage() -> None:
    """
    A subclass may send what it likes by overriding C{encodeMessage}.
    """

    class Texts(Talker):
        def encodeMessage(self, message: Any) -> bytes:
            return str(message).encode()

    protocol, transport, _, _ = connected(Texts)
    transport.clear()
    protocol.sendMessage(12)
    assert framesOf(transport) == [wire.Data(b"12")]
    transport.lose()


@pytest_twisted.ensureDeferred
async def test_messages(loopback: Loopback, hooks: Recorder) -> None:
    """
    Messages of any size arrive whole and in order, both ways, and C{sendMessage} fires when they
    have been handed over.
    """
    accepted: Deferred[Any] = Deferred()

    class Accepted(Talker):
        def connectionMade(self) -> None:
            super().connectionMade()
            accepted.callback(self)

    server = HeartbeatServerFactory(Factory.forProtocol(Accepted))
    service = loopback.service(
        loopback.endpoint(loopback.listen(server)), Factory.forProtocol(Talker), hooks=hooks
    )
    client = await within(service.whenConnected())
    peer = await within(accepted)
    sizes = [0, 1, 100_000, 1_000_000, 5]
    for end, other in ((client, peer), (peer, client)):
        sent = [end.sendMessage(bytes([size % 256]) * size) for size in sizes]
        for size in sizes:
            assert await within(other.came.get()) == bytes([size % 256]) * size
        for one in sent:
            await within(one)
    ended = hooks.next("disconnected")
    server.close()
    assert "goodbye" in str(await within(ended))


@pytest_twisted.ensureDeferred
async def test_nothingOvertakesTheHello(secured: Loopback, hooks: Recorder) -> None:
    """
    Over TLS, a large message that is sent as soon as the handshake is complete does not overtake
    what was written before it, as it does in Twisted (L{twisted.protocols.tls}).
    """
    theirs = Recorder()
    server = HeartbeatServerFactory(Factory.forProtocol(Talker), hooks=theirs)
    secured.atEnd(server.close)
    accepted, large = theirs.next("connected"), b"x" * 70_000
    client = secured.service(
        secured.endpoint(secured.listen(server)), Factory.forProtocol(Talker), hooks=hooks
    )
    hooks.then["connected"] = lambda: client.link and client.link.protocol.sendMessage(large)
    link = await within(accepted)
    assert await within(link.protocol.came.get()) == large
    assert link.protocol.hello.name == "talker"


@pytest_twisted.ensureDeferred
async def test_watchingBackOnASocket(loopback: Loopback, hooks: Recorder) -> None:
    """
    Only the server has a bound.  The client talks, so that it is never pinged, and the server has
    nothing to say; but it keeps the word of its hello, and the client, which goes by that, stays
    connected for more than twice the bound.
    """
    bound = Heartbeat(interval=0.4, timeout=0.8)
    server = HeartbeatServerFactory(Factory.forProtocol(Talker), heartbeat=bound)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    client = loopback.service(endpoint, Factory.forProtocol(Talker), hooks=hooks, heartbeat=None)
    protocol = await within(client.whenConnected())
    for _ in range(50):
        if protocol.link.watch == "passive":
            break
        await wait(0.1)
    assert protocol.link.bound == 1.2
    for _ in range(30):
        protocol.sendMessage(b"talk")
        await wait(0.1)
    assert protocol.link.isUp
    assert "disconnected" not in hooks.names
    assert [type(link.protocol) for link in server.peers.values()] == [Talker]


@pytest.fixture(params=["plain", "TLS", "UNIX"])
def joining(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """
    Takes a server and a client's settings, and has them connected over one kind of socket.
    """
    from twisted.internet import reactor

    path = str(tmp_path / "socket")
    if request.param == "UNIX" and sys.platform == "win32":
        pytest.skip("no UNIX sockets in Twisted here")

    def join(server: Any, **settings: Any) -> None:
        if request.param == "UNIX":
            place.atEnd(reactor.listenUNIX(path, server).stopListening)
            endpoint: Any = UNIXClientEndpoint(reactor, path)
        else:
            endpoint = place.endpoint(place.listen(server))
        place.atEnd(server.close)
        place.service(endpoint, Factory.forProtocol(Talker), **settings)

    with opened(request.param == "TLS") as place:
        yield join


@pytest_twisted.ensureDeferred
async def test_pausedReaderIsNotDead(joining: Any, hooks: Recorder) -> None:
    """
    A server that pauses the reading for more than twice the bound of its client, which is shorter
    than its own, is not dead to it, nor the client to the server (promise 19).
    """
    theirs = Recorder()
    server = HeartbeatServerFactory(
        Factory.forProtocol(Talker), heartbeat=Heartbeat.within(30), hooks=theirs
    )
    accepted = theirs.next("connected")
    joining(server, hooks=hooks, heartbeat=Heartbeat.within(1.2))
    link = await within(accepted)
    link.protocol.transport.pauseProducing()
    await wait(3)
    assert set(hooks.names) == {"connecting", "connected"}
    link.protocol.transport.resumeProducing()
    assert link.isUp


@pytest.mark.skipif(sys.platform == "win32", reason="no UNIX sockets in Twisted here")
@pytest_twisted.ensureDeferred
async def test_pausedOverUnixIsNoSilence(plain: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    Over a UNIX socket, too, what a peer says while this side has paused reading is no silence, and
    a peer that says nothing is found once this side reads again (promise 6).
    """
    from twisted.internet import reactor

    peers, path = Peers(), str(tmp_path / "socket")
    plain.atEnd(reactor.listenUNIX(path, peers).stopListening)
    connected = hooks.next("connected")
    plain.service(
        UNIXClientEndpoint(reactor, path), Factory.forProtocol(Talker), hooks=hooks, heartbeat=QUICK
    )
    link = await within(connected)
    link.protocol.transport.pauseProducing()
    await wait(1)
    assert link.isUp
    ended = hooks.next("disconnected")
    link.protocol.transport.resumeProducing()
    assert type(await within(ended)) is PeerSilent


@pytest_twisted.ensureDeferred
async def test_encoderErrorReconnects(loopback: Loopback, hooks: Recorder) -> None:
    """
    An encoder error closes the socket, names the cause, runs the cleanups and reconnects.
    """
    service, peer = await connectedPair(loopback, hooks, Factory.forProtocol(Talker))
    link = service.link
    assert link is not None
    ran: list[str] = []
    link.addCleanup(ran.append, "cleaned up")
    ended, again = hooks.next("disconnected"), hooks.next("connected")
    with pytest.raises(SendFailed, match="text|str"):
        await within(link.protocol.sendMessage("text"))
    assert type(await within(ended)) is SendFailed
    await within(peer.lost)
    assert (await within(again)).generation == 2
    assert ran == ["cleaned up"]


@pytest_twisted.ensureDeferred
async def test_unsentMessagesFail(loopback: Loopback, hooks: Recorder) -> None:
    """
    C{sendMessage} fails with the link's cause for whatever was not handed over.
    """
    service, peer = await connectedPair(
        loopback, hooks, Factory.forProtocol(Talker), limits=Limits(maxBuffered=None)
    )
    protocol = await within(service.whenConnected())
    peer.transport.pauseProducing()
    sends = [protocol.sendMessage(bytes(1_000_000)) for _ in range(20)]
    ended = hooks.next("disconnected")
    peer.transport.abortConnection()
    cause = await within(ended)
    outcomes = []
    for sent in sends:
        try:
            await within(sent)
            outcomes.append("sent")
        except ConnectionLost as error:
            assert error is cause
            outcomes.append("failed")
    assert outcomes[-1] == "failed"
    assert outcomes == sorted(outcomes, reverse=True)


@pytest_twisted.ensureDeferred
async def test_pingFlood(loopback: Loopback) -> None:
    """
    A peer that pings and does not read the answers ends its own link with C{SendStalled}: what it
    can make us keep is limited (promise 17).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(
        hooks=hooks, limits=Limits(maxBuffered=64 * 1024, sendStall=1.0), serverLimits=None
    )
    ended = hooks.next("disconnected")

    class Flood(Protocol):
        begun = False

        def dataReceived(self, data: bytes) -> None:
            # What it has not read comes once more at the end.
            if not self.begun:
                self.begun = True
                self.transport.pauseProducing()  # type: ignore[union-attr]
                self.transport.registerProducer(self, False)  # type: ignore[union-attr]

        def resumeProducing(self) -> None:
            self.transport.write(wire.encodePing(1) * 10_000)  # type: ignore[union-attr]

        def stopProducing(self) -> None:
            pass

    client = loopback.service(
        loopback.endpoint(loopback.listen(server)),
        Factory.forProtocol(Flood),
        limits=None,
        keepAlive=None,
        heartbeat=None,
    )
    most = 0
    while not ended.called:
        await wait(0.01)
        most = max([most, *(link.bytesBuffered for link in server._registry.links)])
    assert type(await ended) is SendStalled
    assert 48 * 1024 < most < 128 * 1024
    await within(client.stopService())
    await within(server.close())


# The mix-in.


class Sensor(HeartbeatMixin, LineReceiver):
    """
    A line protocol with a ping of its own.
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
        Answer.
        """
        self.lines.append(line)
        if line == b"ping":
            self.sendLine(b"pong")


@pytest_twisted.ensureDeferred
async def test_mixinOverLineReceiver(loopback: Loopback, hooks: Recorder) -> None:
    """
    A line protocol with the mix-in, against one with it and then against a silent one: kept alive,
    then found dead within the bound; it works with lines and raw data as before.
    """
    service, peer = await connectedPair(
        loopback, hooks, Factory.forProtocol(Sensor), heartbeat=QUICK
    )
    sensor = await within(service.whenConnected())
    assert sensor.link.watch == "ping"
    for _ in range(3):
        while not peer.received.endswith(b"ping\r\n"):
            await within(peer.heard.get())
        peer.received = b""
        peer.transport.write(b"po")
        await wait(0.02)
        peer.transport.write(b"ng\r\n")
    assert sensor.lines in ([b"pong"] * 3, [b"pong"] * 2)
    assert isinstance(await within(hooks.next("disconnected")), PeerSilent)


@pytest_twisted.ensureDeferred
async def test_mixinInPlainFactory(loopback: Loopback, hooks: Recorder) -> None:
    """
    In a factory that knows nothing of this package the class's own attributes hold; a silent client
    is found, and the protocol told.
    """
    ended = hooks.next("disconnected")

    class Watched(Sensor):
        heartbeat = QUICK

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            super().connectionLost(reason)
            self.factory.reason = reason

    Watched.hooks = hooks
    server: Any = Factory.forProtocol(Watched)
    loopback.service(
        loopback.endpoint(loopback.listen(server)),
        Peers(),
        heartbeat=None,
        retryPolicy=lambda attempt: 60.0,
    )
    await within(ended)
    assert isinstance(server.reason.value, PeerSilent)
    assert hooks.names == ["connected", "suspected", "disconnected"]


def test_mixinWithoutPing() -> None:
    """
    Without C{sendPing} silence proves nothing: the link says that keepalive watches it, and lives.
    """

    class Plain(HeartbeatMixin, Protocol):
        pass

    protocol, transport, clock, _ = connected(Plain)
    assert protocol.link.watch == "keepalive"
    assert protocol.link.bound is None
    assert pingOf(Plain) is None
    for _ in range(100):
        clock.advance(10)
    assert transport.open
    with pytest.raises(NotImplementedError, match="Plain has no sendPing"):
        protocol.sendPing()
    transport.lose()


def test_mixinPassive() -> None:
    """
    C{Heartbeat(interval=None)} needs no C{sendPing}: a peer that is known to speak is dead when it
    does not.
    """

    class Plain(HeartbeatMixin, Protocol):
        heartbeat = None

    protocol, transport, clock, hooks = connected(
        Plain, heartbeat=Heartbeat(interval=None, timeout=4)
    )
    wait8(clock, 3.875)
    assert transport.open
    wait8(clock, 0.375)
    assert not transport.open
    assert type(hooks.told("disconnected")[0]) is PeerSilent


def test_pingThatRaises(loggedErrors: Any) -> None:
    """
    A C{sendPing} that raises is logged and ends the link with C{SendFailed}: it can not be watched.
    """

    class Broken(Sensor):
        def sendPing(self) -> None:
            raise ZeroDivisionError("in sendPing")

    protocol, transport, clock, hooks = connected(Broken)
    wait8(clock, 4.25)
    assert not transport.open
    [cause] = hooks.told("disconnected")
    assert type(cause) is SendFailed
    assert isinstance(cause.__cause__, ZeroDivisionError)
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


def test_asyncPing() -> None:
    """
    A C{sendPing} that is an C{async def} runs: the peer that answers it lives.
    """

    class Asking(Sensor):
        async def sendPing(self) -> None:  # type: ignore[override]
            self.sendLine(b"ping")

    protocol, transport, clock, hooks = connected(Asking)
    for _ in range(10):
        wait8(clock, 4.125)
        assert transport.value() == b"ping\r\n"
        transport.clear()
        transport.deliver(b"pong\r\n")
    assert hooks.names == ["connected"]
    transport.lose()


def test_asyncPingThatRaises(loggedErrors: Any) -> None:
    """
    An C{async def} that raises before it awaits anything is handled as any ping that raises.
    """

    class Broken(Sensor):
        async def sendPing(self) -> None:  # type: ignore[override]
            raise ZeroDivisionError("in sendPing")

    protocol, transport, clock, hooks = connected(Broken)
    wait8(clock, 4.25)
    [cause] = hooks.told("disconnected")
    assert type(cause) is SendFailed
    assert isinstance(cause.__cause__, ZeroDivisionError)
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize("isAsync", [False, True], ids=["Deferred", "async def"])
def test_pingThatAnswers(isAsync: bool) -> None:
    """
    A C{sendPing} may return a Deferred, or be an C{async def}; its answer, or its failure, gives
    the round-trip time where the peer spoke, is no error, and is no life by itself.
    """
    answers: list[Deferred[None]] = []

    class Asking(Sensor):
        def sendPing(self) -> Deferred[None]:  # type: ignore[override]
            answers.append(Deferred())
            return answers[-1]

    class Awaiting(Sensor):
        async def sendPing(self) -> None:  # type: ignore[override]
            answers.append(Deferred())
            await answers[-1]

    protocol, transport, clock, hooks = connected(Awaiting if isAsync else Asking)
    wait8(clock, 4.125)
    clock.advance(0.25)
    transport.deliver(b"error\r\n")
    answers[0].errback(ValueError("the peer says no"))
    assert 0.25 <= protocol.link.rtt <= 0.375
    assert hooks.names == ["connected"]
    wait8(clock, 4.25)
    answers[1].errback(ConnectionAborted())
    wait8(clock, 4)
    assert not transport.open


def test_protocolOfItsOwn() -> None:
    """
    The mix-in calls C{connectionMade}, C{dataReceived} and C{connectionLost} of what it is mixed
    into once each, with the link there from the first of them on.
    """
    calls: list[Any] = []

    class Own(HeartbeatMixin, Protocol):
        def connectionMade(self) -> None:
            calls.append(("made", self.link is not None))

        def dataReceived(self, data: bytes) -> None:
            calls.append(data)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            calls.append("before")
            super().connectionLost(reason)
            calls.append("after")

    protocol, transport, clock, hooks = connected(Own)
    transport.deliver(b"one")
    transport.deliver(b"two")
    transport.lose()
    protocol.connectionLost(Failure(ConnectionLost()))
    assert calls == [("made", True), b"one", b"two", "before", "after"]
    assert hooks.names == ["connected", "disconnected"]
    assert clock.getDelayedCalls() == []


def test_methodsThatAreNoFunctions() -> None:
    """
    What a class has in place of these methods is called as Python would call it: one that is no
    function is not given the protocol.
    """
    received: list[bytes] = []
    reasons: list[Failure] = []

    class Recording(HeartbeatMixin, Protocol):
        dataReceived = received.append
        connectionLost = staticmethod(reasons.append)  # type: ignore[assignment]

    protocol, transport, clock, hooks = connected(Recording)
    transport.deliver(b"one")
    transport.deliver(b"two")
    transport.lose()
    protocol.connectionLost(Failure(ConnectionLost()))
    assert received == [b"one", b"two"]
    assert [type(reason.value) for reason in reasons] == [PeerClosed]
    assert hooks.names == ["connected", "disconnected"]
    assert clock.getDelayedCalls() == []


def test_connectionLostWithoutSuper() -> None:
    """
    A C{connectionLost} that does not call its super, as most of Twisted's need not, keeps nothing
    from ending: the hook is called, the cleanups run, nothing is left.
    """
    reasons: list[Failure] = []

    class Terse(Sensor):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            reasons.append(reason)

    protocol, transport, clock, hooks = connected(Terse)
    ran: list[str] = []
    protocol.link.addCleanup(ran.append, "cleaned up")
    transport.lose()
    assert hooks.names == ["connected", "disconnected"]
    assert ran == ["cleaned up"]
    assert [type(reason.value) for reason in reasons] == [PeerClosed]
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_handshakeCompletedWithoutSuper(secured: Loopback, hooks: Recorder) -> None:
    """
    Nor does a C{handshakeCompleted} that does not call its super keep the link from being
    connected.
    """

    class Terse(Sensor):
        def handshakeCompleted(self) -> None:
            completed.append(self)

    completed: list[Any] = []
    await connectedPair(secured, hooks, Factory.forProtocol(Terse))
    assert len(completed) == 1


# The TimeoutMixin's part.


class Timed(HeartbeatMixin, Protocol):
    """
    Uses the C{TimeoutMixin}'s part alone.
    """

    heartbeat = None

    def connectionMade(self) -> None:
        """
        Begin.
        """
        self.setTimeout(5)

    def dataReceived(self, data: bytes) -> None:
        """
        Go on.
        """
        self.resetTimeout()


def test_timeoutAborts() -> None:
    """
    The default C{timeoutConnection} aborts, and names the cause.
    """
    protocol, transport, clock, hooks = connected(Timed, heartbeat=None)
    clock.advance(4.9)
    assert transport.open
    clock.advance(0.1)
    clock.advance(0)
    assert transport.aborting
    [cause] = hooks.told("disconnected")
    assert type(cause) is PeerSilent
    assert "5 s" in str(cause)
    assert clock.getDelayedCalls() == []


def test_timeoutLooksAgain() -> None:
    """
    What has come in time is read before the timeout is held against the peer (promise 4), once for
    each C{resetTimeout}.
    """
    _, transport, clock, _ = connected(Timed, heartbeat=None)
    for _ in range(2):
        # The timer is due first, and then the reactor reads.
        clock.callLater(5, transport.deliver, b"x")
        clock.advance(5)
        assert transport.open
    clock.advance(5)
    clock.advance(0)
    assert transport.aborting


def test_resetTimeoutIsOneAssignment() -> None:
    """
    C{resetTimeout} moves no delayed call; the timeout comes C{timeOut} seconds after the last.
    """
    protocol, transport, clock, _ = connected(Timed, heartbeat=None)
    [call] = clock.getDelayedCalls()
    when = call.getTime()
    clock.advance(3)
    transport.deliver(b"x")
    assert [call.getTime() for call in clock.getDelayedCalls()] == [when]
    clock.advance(4.9)
    assert transport.open
    clock.advance(0.1)
    clock.advance(0)
    assert transport.aborting


def test_setTimeoutNone() -> None:
    """
    C{setTimeout(None)} ends it, returns the period before, and leaves no delayed call.
    """
    protocol, transport, clock, _ = connected(Timed, heartbeat=None)
    assert protocol.setTimeout(7) == 5
    assert protocol.setTimeout(None) == 7
    assert clock.getDelayedCalls() == []
    clock.advance(100)
    assert transport.open
    transport.lose()


def test_lostEndsTimeout() -> None:
    """
    A lost connection leaves no delayed call of a timeout behind (promise 12).
    """
    _, transport, clock, _ = connected(Timed, heartbeat=None)
    transport.lose()
    assert clock.getDelayedCalls() == []
