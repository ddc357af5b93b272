# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Pings and pongs that go straight to the kernel: only where nothing waits before them, and with the
same ends and the same verdicts as by C{transport.write}.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import classImplements

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    Heartbeat,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    KeepAliveExpired,
    Limits,
    NetworkUnreachable,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    SendFailed,
    SendStalled,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.link.state import LinkState
from twisted_heartbeat.link.teardown import Teardown
from twisted_heartbeat.timing.wheel import TimerWheel
from twisted_heartbeat.transport.connection import ObservedConnection
from twisted_heartbeat.transport.instrument import instrument
from twisted_heartbeat.transport.layers import Buffering

from ..support.countingsockets import Kernel, Scene
from ..support.loopback import QUICK, Loopback, Peer, Peers, connectedPair, wait, within
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

onLinux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells what its kernel knows"
)

PING = b"ping, 12 of it"
FULL = [errno.EAGAIN, errno.ENOBUFS]
ENDS = [
    (errno.ECONNRESET, PeerReset),
    (errno.EPIPE, SendFailed),
    (errno.ETIMEDOUT, KeepAliveExpired),
]


def failure(number: int) -> OSError:
    """
    What the kernel says.
    """
    return OSError(number, os.strerror(number))


class Told:
    """
    Counts how often something begins to wait.
    """

    began = 0

    def writeStarted(self) -> None:
        """
        See C{ConnectionObserver}, and so the others.
        """
        self.began += 1

    def writeProgressed(self) -> None:
        pass

    def dataDelivered(self) -> None:
        pass

    def peerClosedWrite(self) -> None:
        pass

    def connectionLosing(self) -> None:
        pass

    def connectionLostUnnoticed(self, reason: Any) -> None:
        pass


@pytest.fixture
def told() -> Told:
    """
    Who is told of sending.
    """
    return Told()


@pytest.fixture
def scene(told: Told) -> Scene:
    """
    An observed connection without a link.
    """
    scene = Scene(Factory.forProtocol(Kept), Clock())
    instrument(scene.connection, FailureDetector(None, 0.0), scene.clock.seconds, told)
    scene.forget()
    return scene


# The observed connection.


def test_straight(scene: Scene, told: Told) -> None:
    """
    Where nothing waits, it is one C{send}; it is counted, and nobody has to look at the buffer.
    """
    scene.connection.writeDirect(PING)
    assert scene.socket.calls == ["send"]
    assert scene.socket.sent == PING
    assert scene.reactor.calls == []
    assert (scene.connection.bytesSent, scene.connection.bytesBuffered(), told.began) == (
        len(PING),
        0,
        0,
    )


def test_partial(scene: Scene, told: Told) -> None:
    """
    What the kernel does not take waits as if written, once, and in order.
    """
    scene.socket.answers = [5]
    scene.connection.writeDirect(PING)
    assert scene.socket.sent == PING[:5]
    assert (scene.connection.bytesSent, scene.connection.bytesBuffered()) == (5, len(PING) - 5)
    assert told.began == 1
    scene.connection.writeDirect(b"more")
    scene.flush()
    assert scene.socket.sent == PING + b"more"
    assert scene.connection.bytesSent == len(PING) + 4


@pytest.mark.parametrize("number", FULL)
def test_full(scene: Scene, told: Told, number: int) -> None:
    """
    A kernel that takes nothing now is no error: all of it waits, and is looked at.
    """
    scene.socket.answers = [failure(number)]
    scene.connection.writeDirect(PING)
    assert (scene.connection.bytesBuffered(), scene.connection.lastErrno, told.began) == (
        len(PING),
        0,
        1,
    )
    scene.flush()
    assert scene.socket.sent == PING
    assert scene.protocol.losses == 0


@pytest.mark.parametrize("taken", [None, 3])
def test_order(scene: Scene, taken: int | None) -> None:
    """
    Behind what waits, whole or in part, it waits too.
    """
    scene.connection.write(b"a message")
    if taken is not None:
        scene.socket.answers = [taken]
        scene.connection.doWrite()
    calls = len(scene.socket.calls)
    scene.connection.writeDirect(PING)
    assert len(scene.socket.calls) == calls
    scene.flush()
    assert scene.socket.sent == b"a message" + PING


@pytest.mark.parametrize("number", [number for number, _ in ENDS])
def test_firstErrorIsKept(scene: Scene, number: int) -> None:
    """
    An error is not raised, and ends the connection at its next write; the errno is the first, not
    the one with which the kernel answers the second time (promise 11).
    """
    scene.socket.answers = [failure(number), failure(errno.EPIPE)]
    scene.connection.writeDirect(PING)
    assert scene.protocol.losses == 0
    assert scene.reactor.calls == ["addWriter"]
    scene.flush()
    assert scene.protocol.losses == 1
    assert scene.protocol.reason.check(ConnectionLost)
    assert scene.connection.lastErrno == number
    assert scene.socket.sent == b""


@pytest.mark.parametrize(
    ("number", "end", "finished"),
    [
        (errno.ECONNRESET, ConnectionLost, False),
        (errno.EPIPE, ConnectionDone, True),
        (None, ConnectionDone, True),
    ],
)
def test_endAfterAnError(scene: Scene, number: int | None, end: Any, finished: bool) -> None:
    """
    The kernel tells an error once, and then the end of the stream: a reset that the send has met is
    no FIN.  After a FIN it is C{EPIPE}, and that is one.
    """
    if number is not None:
        scene.socket.answers = [failure(number)]
        scene.connection.writeDirect(PING)
    scene.receive(b"")
    assert scene.protocol.reason.check(end)
    assert scene.connection.finReceived is finished


def test_closing(scene: Scene) -> None:
    """
    Of a connection that is being closed politely what is written still goes out, before the end.
    """
    scene.connection.loseConnection()
    scene.connection.writeDirect(PING)
    assert scene.socket.calls == []
    scene.flush()
    assert scene.socket.sent == PING
    assert scene.protocol.reason.check(ConnectionDone)


def test_halfClosing(scene: Scene) -> None:
    """
    Before a half-close has come to pass it goes out by C{write}; after that it goes nowhere.
    """
    scene.connection.loseWriteConnection()
    scene.connection.writeDirect(PING)
    assert scene.socket.calls == []
    scene.flush()
    assert scene.socket.calls == ["send", "shutdown"]
    scene.connection.writeDirect(PING)
    assert scene.socket.calls == ["send", "shutdown"]
    assert scene.connection.bytesBuffered() == 0


def test_over(scene: Scene) -> None:
    """
    After an abort, and after the end, nothing is sent.
    """
    scene.connection.abortConnection()
    scene.connection.writeDirect(PING)
    scene.clock.advance(0)
    assert scene.protocol.losses == 1
    scene.connection.writeDirect(PING)
    assert "send" not in scene.socket.calls


def test_secured(scene: Scene) -> None:
    """
    Once the connection has become TLS, it is for TLS to write.
    """

    class Layer(Kept):
        written = b""

        def write(self, data: bytes) -> None:
            self.written += data

    scene.connection.protocol = layer = Layer()
    scene.connection.TLS = True
    scene.connection.writeDirect(PING)
    assert layer.written == PING
    assert scene.socket.calls == []


# The link, in virtual time.

BEAT = Heartbeat(interval=2.0, timeout=2.0)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    One that says what is wanted.
    """
    return Kernel(monkeypatch)


class Later(Buffering):
    """
    A layer that hands on what it is given a turn later.
    """

    def __init__(self, scene: Scene) -> None:
        self.transport = scene.connection
        self._clock = scene.clock

    def write(self, data: bytes) -> None:
        """
        See C{ITransport}.
        """
        self.waiting += len(data)
        self._clock.callLater(0.005, self._pass, data)

    def _pass(self, data: bytes) -> None:
        self.waiting -= len(data)
        self.transport.write(data)


def served(
    hooks: Recorder | None = None, above: Any = None, factory: Any = None, **settings: Any
) -> Scene:
    """
    An accepted peer of the built-in protocol, in virtual time.
    """
    clock = Clock()
    settings = {"heartbeat": BEAT, "keepAlive": None, **settings}
    server = HeartbeatServerFactory(factory, clock=clock, hooks=hooks, **settings)
    scene = Scene(server, clock, above)
    clock.advance(0.01)
    scene.begin("a peer")
    return scene


def afterThat(scene: Scene, seconds: float) -> None:
    """
    Let time pass, with the reactor's turns to write.
    """
    for _ in range(round(seconds * 20)):
        scene.clock.advance(0.05)
        if scene.connection.connected:
            scene.flush()


def test_linkSendsStraight(kernel: Kernel) -> None:
    """
    Pings, and the answers to them, take the direct way, and the kernel is not asked how much
    waits where a pong has told.
    """
    scene = served()
    scene.beat()
    for _ in range(3):
        scene.beat()
    assert "addWriter" not in scene.reactor.calls
    assert scene.socket.calls == ["send", "recv"] * 4
    scene.receive(wire.encodePing(7))
    assert scene.socket.sent == wire.encodePong(7)
    assert "addWriter" not in scene.reactor.calls


def test_behindWhatTheKernelHolds(kernel: Kernel) -> None:
    """
    Where something waits in the kernel, before a closed window or on a slow net, a ping is written
    as ever, so that it is known from when on the buffer drains (promise 6).
    """
    scene = served()
    scene.beat()
    scene.protocol.sendMessage(b"much")
    scene.flush()
    scene.forget()
    kernel.queued = 16
    scene.untilSent()
    assert scene.reactor.calls == ["addWriter"]
    assert scene.socket.sent == b""
    assert scene.connection.writeTracked
    kernel.queued = 0
    scene.flush()
    scene.answer()
    scene.forget()
    scene.untilSent()
    assert "addWriter" not in scene.reactor.calls


@pytest.mark.parametrize("answers", [True, False])
def test_verdict(kernel: Kernel, answers: bool) -> None:
    """
    A peer that is cut off is C{PeerSilent}, and one whose kernel has taken the ping is C{PeerHung},
    both within the bound after their last byte and the 50 ms (promise 3).
    """
    hooks = Recorder()
    scene = served(hooks)
    scene.beat()
    scene.forget()
    heardAt, arrived = scene.clock.seconds(), scene.connection.bytesSent
    kernel.sinceAck = 0.5 if answers else 3.5
    while not hooks.told("disconnected"):
        scene.clock.advance(0.01)
        kernel.queued = 0 if answers else scene.connection.bytesSent - arrived
        assert scene.clock.seconds() < heardAt + 10
    [cause] = hooks.told("disconnected")
    assert type(cause) is (PeerHung if answers else PeerSilent)
    assert BEAT.bound <= scene.clock.seconds() - heardAt <= BEAT.bound + 0.05
    # Only the second ping of the two waits behind another.
    assert scene.reactor.calls.count("addWriter") == (0 if answers else 1)


def scenesOfOneServer(hooks: Recorder, clock: Clock) -> list[Scene]:
    """
    Peers of one server that all speak in one instant.
    """
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=BEAT, keepAlive=None, clock=clock)
    scenes = [Scene(server, clock) for _ in range(20)]
    for number, scene in enumerate(scenes):
        scene.begin(f"peer {number}")
    return scenes


def cutOff(kernel: Kernel, scenes: list[Scene]) -> None:
    """
    They are silent from now on, in time up to the tick in which their verdicts fall.
    """
    [first, *_] = scenes
    arrived = first.connection.bytesSent
    kernel.sinceAck = BEAT.bound
    while all(scene.protocol.link.isUp for scene in scenes):
        first.clock.advance(0.01)
        kernel.queued = first.connection.bytesSent - arrived
        assert first.clock.seconds() < 3 * BEAT.bound


def test_verdictsBeforeDiagnoses(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of many peers that fall silent in one instant each verdict falls before the kernel is asked for
    a way to any of them, because to ask takes longer than to decide (promise 3).
    """
    hooks, clock = Recorder(), Clock()
    scenes = scenesOfOneServer(hooks, clock)
    undecided = []

    def ask(connection: object) -> int:
        undecided.append(sum(scene.protocol.link.isUp for scene in scenes))
        return errno.ENETUNREACH

    monkeypatch.setattr("twisted_heartbeat.link.silence.routeErrno", ask)
    cutOff(kernel, scenes)
    for _ in scenes:
        clock.advance(0)
    assert undecided == [0] * len(scenes)
    causes = hooks.told("disconnected")
    assert [type(cause) for cause in causes] == [NetworkUnreachable] * len(scenes)
    assert {cause.evidence.simultaneousVerdicts for cause in causes} == {len(scenes)}
    for scene in scenes:
        assert BEAT.bound <= scene.protocol.link.silence <= BEAT.bound + 0.05


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """
    What the wheel is to call soon, and here never calls.
    """
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr(TimerWheel, "callSoon", lambda wheel, call: calls.append(call))
    return calls


def test_callsOfVerdicts(kernel: Kernel, calls: list[Callable[[], None]]) -> None:
    """
    Each verdict leaves one call, which ends its link, and a server has one for all of them.
    """
    scenes = scenesOfOneServer(Recorder(), Clock())
    cutOff(kernel, scenes)
    assert len(calls) == len(scenes) + 1


def test_lostBeforeItsDiagnosis(kernel: Kernel, calls: list[Callable[[], None]]) -> None:
    """
    What becomes of a connection right after the verdict does not change the cause, and is chained
    to it (promise 8).
    """
    hooks = Recorder()
    scene = served(hooks)
    cutOff(kernel, [scene])
    scene.connection.lastErrno = errno.ECONNRESET
    scene.lose(CONNECTION_LOST)
    for call in calls:
        call()
    [cause] = hooks.told("disconnected")
    assert type(cause) is PeerSilent
    assert type(cause.__cause__) is PeerReset


def test_blamedBeforeItsDiagnosis() -> None:
    """
    A cause that is found out later has its place in the order all the same, and is found out once.
    """
    link: Any = SimpleNamespace(
        config=SimpleNamespace(wheel=TimerWheel(Clock())), state=LinkState.CLOSING
    )
    teardown, found = Teardown(link), [PeerSilent("first")]
    teardown.peerSilent(found.pop, 1.0)
    later = ClosedHere("later")
    teardown.recordCause(later, 2.0)
    assert str(teardown.cause) == "first"
    assert teardown.cause is not None and teardown.cause.__cause__ is later
    assert teardown.decidedAt == 1.0
    blamed, silent = Teardown(link), PeerSilent()
    blamed.recordCause(later, 1.0)
    blamed.peerSilent(lambda: silent, 2.0)
    assert blamed.cause is later and later.__cause__ is silent


@pytest.mark.parametrize("asked", [False, True])
def test_finIsNoAnswer(kernel: Kernel, asked: bool) -> None:
    """
    A FIN is no byte: a suspected peer that sends one has not recovered, a peer that was asked
    whether it lives has not answered, and its silence goes on from its last byte.
    """
    hooks = Recorder()
    scene = served(hooks)
    scene.beat()
    heardAt, told = scene.protocol.link.peerWatch.detector.heardAt, []
    while "suspected" not in hooks.names:
        scene.clock.advance(0.01)
        scene.flush()
    if asked:
        scene.protocol.link.probe().addCallback(told.append)
    scene.receive(b"")
    assert hooks.names == ["connected", "suspected", "disconnected"]
    [cause] = hooks.told("disconnected")
    assert type(cause) is PeerClosed
    assert told == ([False] if asked else [])
    assert scene.protocol.link.silence == pytest.approx(scene.clock.seconds() - heardAt)


class HalfClosing(HeartbeatProtocol):
    """
    Goes on after the peer has closed its half.
    """

    def readConnectionLost(self) -> None:
        """
        Nothing follows.
        """

    def writeConnectionLost(self) -> None:
        """
        Not used.
        """


classImplements(HalfClosing, IHalfCloseableProtocol)


@pytest.mark.parametrize("closesFirst", [False, True])
def test_halfCloseIsNoAnswer(kernel: Kernel, closesFirst: bool) -> None:
    """
    Where the protocol goes on after a FIN, a peer that was asked whether it lives can not answer
    any more: the link is closed, and the peer has not recovered.
    """
    hooks, told = Recorder(), []
    scene = served(hooks, factory=Factory.forProtocol(HalfClosing))
    scene.beat()
    link = scene.protocol.link
    if closesFirst:
        scene.receive(b"")
        scene.clock.advance(60)
        assert link.isUp
    link.probe().addCallback(told.append)
    if not closesFirst:
        scene.receive(b"")
    assert told == [False]
    scene.flush()
    if closesFirst:
        # The kernel says it again.
        scene.receive(b"")
    assert hooks.names == ["connected", "disconnected"]
    assert type(link.cause) is PeerClosed


def test_slowReaderIsNoViolator(kernel: Kernel) -> None:
    """
    A peer whose buffer is full is not ended for its pings: the last of those that came meanwhile is
    answered when the buffer has drained, and the others take no room.
    """
    scene = served(limits=Limits(maxBuffered=1000, sendStall=None), serverLimits=None)
    link = scene.protocol.link
    scene.protocol.sendMessage(b"x" * 980)
    for token in range(1, 1001):
        scene.receive(wire.encodePing(token))
    assert link.isUp
    assert link.bytesBuffered < 1000 + 2 * len(wire.encodePong(1))
    assert isinstance(scene.protocol.sendMessage(b"one more").result.value, SendFailed)
    scene.flush()
    scene.receive(wire.encodePing(1001))
    scene.flush()
    frames = wire.FrameReader().receive(scene.socket.sent)
    assert [frame.token for frame in frames if isinstance(frame, wire.Pong)] == [1, 1000, 1001]


def test_slowReaderLeaves(kernel: Kernel) -> None:
    """
    Nothing is left of a ping that was not answered when its link ends.
    """
    hooks = Recorder()
    scene = served(hooks, limits=Limits(maxBuffered=1000))
    scene.protocol.sendMessage(b"x" * 980)
    for token in (1, 2):
        scene.receive(wire.encodePing(token))
    scene.receive(b"")
    assert hooks.names == ["connected", "disconnected"]


def test_noFalseExcuse(kernel: Kernel) -> None:
    """
    A kernel that acknowledges this and that but never the ping, as behind a closed window, buys its
    process no time: nothing was before the ping that could have drained.
    """
    hooks = Recorder()
    scene = served(hooks)
    for _ in range(3):
        # Until nobody looks at what was sent at the beginning.
        scene.beat()
    scene.receive(wire.encodePing(7))
    scene.forget()
    scene.untilSent()
    assert scene.reactor.calls == []
    kernel.queued, kernel.sinceAck = len(scene.socket.sent), 0.0
    heardAt = scene.protocol.link.peerWatch.detector.heardAt
    while not hooks.told("disconnected"):
        scene.clock.advance(0.01)
        assert scene.clock.seconds() < heardAt + 10
    assert scene.clock.seconds() - heardAt <= BEAT.bound + 0.05


def test_aLateBeginningIsNoExcuse(kernel: Kernel) -> None:
    """
    Where a layer above hands a ping on a turn later, as TLS does, that the buffer then begins to
    fill is no progress: a peer that is cut off is found within the bound (promise 3).
    """
    hooks = Recorder()
    scene = served(hooks, above=Later, limits=Limits(sendStall=2.0))
    for _ in range(3):
        scene.forget()
        scene.beat()
    heardAt, arrived = scene.protocol.link.peerWatch.detector.heardAt, scene.connection.bytesSent
    while not hooks.told("disconnected"):
        scene.clock.advance(0.01)
        scene.flush()
        kernel.queued = scene.connection.bytesSent - arrived
        assert scene.clock.seconds() < heardAt + 10
    assert scene.clock.seconds() - heardAt <= BEAT.bound + 0.05


def test_unsentAfterStartTLS(kernel: Kernel) -> None:
    """
    What waits in a TLS that has come under way is counted as unsent.
    """
    scene = served()
    link = scene.protocol.link
    assert link.bytesBuffered == 0

    class Waiting(Buffering):
        waiting = 100

    scene.connection.protocol = Waiting()
    scene.connection.TLS = True
    assert link.bytesBuffered == 100


def test_nothingAfterAGoodbye(kernel: Kernel) -> None:
    """
    Where a link is closed in the beat in which its peer is suspected, nothing follows the goodbye.
    """
    hooks = Recorder()
    scene = served(hooks)
    for _ in range(3):
        scene.beat()
    scene.forget()
    hooks.then["suspected"] = lambda: scene.protocol.link.close() and None
    while "suspected" not in hooks.names:
        scene.clock.advance(0.05)
    scene.flush()
    frames = list(wire.FrameReader().receive(scene.socket.sent))
    assert [type(frame) for frame in frames] == [wire.Ping, wire.Ping, wire.Goodbye]


def test_politeCloseIsNotOverlooked(kernel: Kernel) -> None:
    """
    Whoever closes the connection past its link, while the peer goes on speaking and takes nothing,
    is found by a visit, and the close is bounded.
    """
    hooks = Recorder()
    scene = served(hooks, limits=Limits(sendStall=None, closeTimeout=1.0))
    for _ in range(3):
        scene.beat()
    scene.connection.loseConnection()
    for _ in range(60):
        scene.clock.advance(0.1)
        if scene.connection.connected:
            scene.protocol.link.peerWatch.detector.heardAt = scene.clock.seconds()
    assert hooks.names[-1] == "disconnected"


def test_watchedByProgressAlone(kernel: Kernel) -> None:
    """
    Where silence proves nothing, an answer that waits in the kernel alone is looked at: the link
    ends with C{SendStalled}, which no ping would find.
    """
    hooks = Recorder()
    scene = served(hooks, heartbeat=None, limits=Limits(sendStall=4.0))
    assert scene.protocol.link.watch == "keepalive"
    scene.receive(wire.encodePing(7))
    assert scene.reactor.calls == ["addWriter"]
    scene.flush()
    kernel.queued = 12
    afterThat(scene, 5.0)
    [cause] = hooks.told("disconnected")
    assert isinstance(cause, SendStalled)


def test_wordTakenBack(kernel: Kernel) -> None:
    """
    The same holds for what went out while silence did prove something, once it does no more.
    """
    hooks = Recorder()
    scene = served(hooks, heartbeat=None, limits=Limits(sendStall=4.0))
    scene.receive(wire.encodePing(7, hold=60.0))
    scene.flush()
    assert scene.protocol.link.watch == "passive"
    afterThat(scene, 1.0)
    scene.forget()
    scene.receive(wire.encodePing(8, hold=60.0))
    assert scene.reactor.calls == []
    kernel.queued = 12
    assert not scene.connection.writeTracked
    scene.protocol.link.peerWatch.reconfigure(None, trusted=False)
    assert scene.protocol.link.watch == "keepalive"
    afterThat(scene, 5.0)
    [cause] = hooks.told("disconnected")
    assert isinstance(cause, SendStalled)


def test_anotherTransport(kernel: Kernel) -> None:
    """
    What a protocol's own transport is not the connection itself, it is written to.
    """
    scene = served()
    scene.beat()

    class Between:
        written = b""

        def write(self, data: bytes) -> None:
            self.written += data

    scene.protocol.transport = between = Between()
    scene.receive(wire.encodePing(7))
    assert between.written == wire.encodePong(7)
    assert scene.socket.sent == b""


# On real sockets.


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """
    What has been sent by the direct way.
    """
    sent: list[bytes] = []
    writeDirect = ObservedConnection.writeDirectUnchecked

    def noted(self: ObservedConnection, data: bytes) -> None:
        sent.append(data)
        writeDirect(self, data)

    monkeypatch.setattr(ObservedConnection, "writeDirectUnchecked", noted)
    return sent


class BrokenSocket:
    """
    A socket whose first C{send} fails, and every later one with C{EPIPE}, as the kernel does it.
    """

    def __init__(self, real: Any, number: int) -> None:
        self._real = real
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send(self, data: bytes) -> int:
        number, self._number = self._number, errno.EPIPE
        raise failure(number)


@pytest.mark.parametrize(("number", "kind"), ENDS, ids=[kind.__name__ for _, kind in ENDS])
@pytest_twisted.ensureDeferred
async def test_errnoOfAPing(
    plain: Loopback, direct: list[bytes], number: int, kind: type[Cause]
) -> None:
    """
    The errno that a ping meets names the cause (promise 11).
    """
    hooks, factory = Recorder(), Factory.forProtocol(HeartbeatProtocol)
    service, peer = await connectedPair(plain, hooks, factory)
    await within(peer.heard.get())
    assert service.link is not None
    connection = service.link.protocol.transport
    ended = hooks.next("disconnected")
    connection.socket = BrokenSocket(connection.socket, number)
    service.link.protocol.sendPing()
    cause = await within(ended)
    # The hello went before it.
    assert len(direct) == 2
    assert type(cause) is kind
    assert f"[errno {number}]" in str(cause)


@pytest_twisted.ensureDeferred
async def test_resetMetByAPing(plain: Loopback, direct: list[bytes]) -> None:
    """
    A reset that a ping meets first, in the same turn in which the reactor would read it, is
    C{PeerReset} all the same, and no clean close.
    """
    hooks, factory = Recorder(), Factory.forProtocol(HeartbeatProtocol)
    service, peer = await connectedPair(plain, hooks, factory)
    await within(peer.heard.get())
    assert service.link is not None
    ended = hooks.next("disconnected")
    # The socket is closed when the protocol hears of it.
    peer.lost.addCallback(lambda _: service.link.protocol.sendPing())
    peer.transport.abortConnection()
    cause = await within(ended)
    # The hello went before it.
    assert len(direct) == 2
    assert type(cause) is PeerReset
    assert f"[errno {errno.ECONNRESET}]" in str(cause)


@onLinux
@pytest_twisted.ensureDeferred
async def test_hungPeer(plain: Loopback, direct: list[bytes]) -> None:
    """
    A peer that takes a ping and says nothing is C{PeerHung}, found by pings of the direct way.
    """
    hooks, factory = Recorder(), Factory.forProtocol(HeartbeatProtocol)
    await connectedPair(plain, hooks, factory, heartbeat=QUICK)
    assert type(await within(hooks.next("disconnected"))) is PeerHung
    assert len(direct) >= 2


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest_twisted.ensureDeferred
async def test_overTLS(
    plain: Loopback, secured: Loopback, direct: list[bytes], secure: bool
) -> None:
    """
    Two ends keep each other alive by the direct way; over TLS nothing takes it, and the heart beats
    as well.
    """
    place, hooks = secured if secure else plain, Recorder()
    endpoint = place.endpoint(place.listen(Factory.forProtocol(HeartbeatProtocol)))
    connected = hooks.next("connected")
    beating = Factory.forProtocol(HeartbeatProtocol)
    place.service(endpoint, beating, hooks=hooks, heartbeat=Heartbeat(interval=0.2, timeout=10))
    link = await within(connected)
    for _ in range(500):
        if link.rtt is not None:
            break
        await wait(0.01)
    assert link.rtt is not None
    assert bool(direct) is not secure


class Turning(HeartbeatProtocol):
    """
    Becomes TLS under way, before it has said anything.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        from ..support.loopback import clientOptions

        transport: Any = self.transport
        transport.startTLS(clientOptions(), normal=True)
        super().connectionMade()


class TurningPeer(Peer):
    """
    The other end of it.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        from ..support.loopback import serverOptions

        transport: Any = self.transport
        transport.startTLS(serverOptions())


@pytest_twisted.ensureDeferred
async def test_afterStartTLS(plain: Loopback) -> None:
    """
    After C{startTLS} a ping is secret, too, and arrives.
    """
    peers = Peers()
    peers.protocol = TurningPeer
    endpoint = plain.endpoint(plain.listen(peers))
    factory = Factory.forProtocol(Turning)
    service = plain.service(endpoint, factory, heartbeat=Heartbeat(interval=0.2, timeout=10))
    peer = await within(peers.accepted.get())
    pings: list[wire.Frame] = []
    reader = wire.FrameReader()
    while not pings:
        frames = reader.receive(await within(peer.heard.get()))
        pings += [frame for frame in frames if isinstance(frame, wire.Ping)]
    assert service.link is not None
    assert isinstance(service.link.protocol.transport, ObservedConnection)
    assert service.link.protocol.transport.TLS


class Own:
    """
    A user's own ping, in three writes.
    """

    fails = False

    def __call__(self, protocol: Any) -> None:
        """
        See L{Ping<twisted_heartbeat.link.config.Ping>}.
        """
        transport = protocol.transport
        transport.write(b"1")
        transport.writeSequence([b"2", b"3"])
        transport.write(b"4")
        if self.fails:
            raise ValueError("no ping")


def wrappedScene(ping: Any) -> Scene:
    """
    A protocol that knows nothing of its ping, whose peer has spoken.
    """
    clock = Clock()
    factory = HeartbeatFactory(
        Factory.forProtocol(Protocol), clock=clock, heartbeat=BEAT, keepAlive=None, ping=ping
    )
    scene = Scene(factory, clock)
    scene.receive(b"hello")
    scene.forget()
    return scene


@pytest.mark.parametrize("takes", [None, 0, errno.EAGAIN])
def test_ownPingKeepsItsOrder(kernel: Kernel, takes: int | None) -> None:
    """
    The bytes of a user's own ping arrive in their order, whatever of them goes straight to the
    kernel; and a write after it goes as ever.
    """
    scene = wrappedScene(Own())
    if takes is not None:
        scene.socket.answers = [takes if takes == 0 else OSError(takes, "full")]
    scene.untilSent()
    scene.connection.write(b"5")
    scene.flush()
    assert scene.socket.sent == b"12345"
    assert scene.connection.write.__func__ is type(scene.connection).write


def test_ownPingFails(kernel: Kernel, loggedErrors: Any) -> None:
    """
    A user's own ping that raises ends its link, and leaves the transport's C{write} as it was.
    """
    own = Own()
    own.fails = True
    scene = wrappedScene(own)
    scene.untilSent()
    assert isinstance(scene.protocol.link.cause, SendFailed)
    assert len(loggedErrors.flush(ValueError)) == 1
    assert scene.connection.write.__func__ is type(scene.connection).write


def test_ownPingBehindWhatWaitsHere(kernel: Kernel) -> None:
    """
    A ping that waits in this process, behind what drains, is not held against the peer, though its
    kernel has all that it was given; once it has left, the peer has its timeout (promise 6).
    """
    scene = wrappedScene(lambda protocol: protocol.transport.write(b"?"))
    link, connection = scene.protocol.link, scene.connection
    steps = round(3 * BEAT.bound / 0.05)
    connection.write(bytes(1000 * steps))
    for _ in range(steps):
        scene.clock.advance(0.05)
        scene.socket.answers = [1000]
        connection.doWrite()
        assert link.isUp
    scene.flush()
    assert scene.socket.sent[-1:] == b"?"
    scene.clock.pump([0.05] * round((BEAT.timeout + 0.2) / 0.05))
    assert not link.isUp


def test_whoeverStandsBeforeAWriteIsAsked(kernel: Kernel) -> None:
    """
    Where somebody has put a C{write} of his own before the transport's, a ping goes through that.
    """
    scene = wrappedScene(Own())
    seen = []
    usual = scene.connection.write

    def write(data: bytes) -> None:
        seen.append(data)
        usual(data)

    scene.connection.write = write
    scene.untilSent()
    assert seen == [b"1", b"4"]
    assert scene.connection.write is write


def test_whoeverStoodThereBeforeTheLinkStays(kernel: Kernel) -> None:
    """
    A C{write} that somebody has put on a connection before there is a link on it stays there.
    """
    put: list[Any] = []

    def above(scene: Scene) -> Any:
        put.append(lambda data: None)
        [scene.connection.write] = put
        return scene.connection

    clock = Clock()
    factory = HeartbeatFactory(Factory.forProtocol(Protocol), clock=clock, keepAlive=None)
    scene = Scene(factory, clock, above)
    assert scene.connection.write is put[0]


def test_endThatSomebodyElseHears(kernel: Kernel) -> None:
    """
    Whoever puts a C{connectionLost} of his own on a mixed-in protocol is called, once, and the link
    ends all the same.
    """
    scene = served()
    heard: list[Any] = []
    scene.protocol.connectionLost = heard.append
    scene.lose(ConnectionLost())
    assert len(heard) == 1
    assert scene.protocol.link.state == "gone"


@pytest_twisted.ensureDeferred
async def test_wrappedIsDirect(plain: Loopback, direct: list[bytes]) -> None:
    """
    A user's own ping, written as ever, goes straight to the kernel, too.
    """
    hooks = Recorder()

    def ping(protocol: Any) -> None:
        protocol.transport.write(b"?")

    _, peer = await connectedPair(plain, hooks, KeptFactory(), heartbeat=QUICK, ping=ping)
    assert await within(peer.heard.get()) == b"?"
    assert direct[:1] == [b"?"]
