# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Quiet peers are pinged together, in L{PingRound}s: the same pings, the same instants and the same
verdicts as one by one, and whoever does anything else is watched by itself.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from math import floor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    Heartbeat,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    PeerReset,
    ProtocolViolation,
    SendFailed,
)
from twisted_heartbeat.batching import batcher
from twisted_heartbeat.batching.batcher import batcherFor
from twisted_heartbeat.batching.poller import idlePollerFor
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.link.watch import PeerWatch
from twisted_heartbeat.logs import SafeLogger, Shortage
from twisted_heartbeat.timing.wheel import Slot, TimerWheel, timerWheelFor
from twisted_heartbeat.transport.instrument import instrument

from ..support.countingsockets import Kernel, RestingScene
from ..support.loopback import serverOptions
from ..support.roundcrew import BEAT, CLOSE, RoundCrew, inRound

STEP = RoundCrew.STEP

PHASE = 0.75
"""Where in the interval all are due."""

LAST = 15.5 + STEP
"""When they are pinged last before they have L{settled}."""


def failure(number: int) -> OSError:
    """
    What the kernel says.
    """
    return OSError(number, os.strerror(number))


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    One that says what is wanted.
    """
    return Kernel(monkeypatch)


class Talker(HeartbeatProtocol):
    """
    Keeps the messages that it receives.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        self.messages: list[bytes] = []
        super().connectionMade()

    def messageReceived(self, message: bytes) -> None:
        """
        Keep it.
        """
        self.messages.append(message)


class Peer(RestingScene):
    """
    One that answers each ping in the turn in which it comes, as long as it C{answers}.

    @ivar taken: when it was sent anything, and what, in bytes.
    @ivar frames: the same, in frames.
    @ivar owed: the token of the last ping that it has not answered; L{None} if there is none.
    """

    def __init__(self, factory: Any, clock: Clock, rounds: bool) -> None:
        super().__init__(factory, clock, rounds)
        self.answers = True
        self.taken: list[tuple[float, bytes]] = []
        self.frames: list[wire.Frame] = []
        self.owed: int | None = None
        self._reader = wire.FrameReader()

    @property
    def pingedAt(self) -> list[float]:
        """
        When it was sent a ping, and nothing else.
        """
        return [when for when, data in self.taken if data[:2] == wire.encodePing(1)[:2]]

    def forget(self) -> None:
        """
        See L{Scene}.
        """
        super().forget()
        self.taken.clear()
        self.frames.clear()

    def turn(self) -> None:
        """
        The reactor's turn, and then the peer's.
        """
        self.flush()
        sent, self.socket.sent = self.socket.sent, b""
        if sent:
            self.taken.append((self.clock.seconds(), sent))
        for frame in self._reader.receive(sent):
            self.frames.append(frame)
            if isinstance(frame, wire.Ping):
                self.owed = frame.token
        if self.answers and self.owed is not None:
            self.pong()

    def pong(self, before: bytes = b"", behind: bytes = b"") -> None:
        """
        It says a pong, the one that it owes if it owes one.
        """
        if self.connection.connected and self.connection.reading:
            token, self.owed = self.owed or 0, None
            self.receive(before + wire.encodePong(token) + behind)

    def say(self, message: bytes) -> None:
        """
        It sends a message.
        """
        if self.connection.connected and self.connection.reading:
            self.receive(wire.encode(wire.Data(message)))


class Server(RoundCrew):
    """
    A server, and its peers, who all are due in one instant.
    """

    LAST = LAST

    def __init__(self, peers: int = 1, *, rounds: bool = True, **settings: Any) -> None:
        """
        @param rounds: whether there can be any.
        """
        super().__init__()
        settings = {"heartbeat": BEAT, "keepAlive": None, **settings}
        self._factory = HeartbeatServerFactory(
            Factory.forProtocol(Talker), clock=self.clock, hooks=self.hooks, **settings
        )
        self._phase = PHASE
        self._factory._settings["phase"] = lambda: self._phase
        self._rounds = rounds
        for _ in range(peers):
            self.join(PHASE)

    def join(self, phase: float) -> None:
        """
        One more connects.
        """
        self._phase = phase
        peer = Peer(self._factory, self.clock, self._rounds)
        peer.begin(f"peer {len(self.peers)}")
        self.peers.append(peer)

    def stall(self, seconds: float) -> None:
        """
        This process does nothing for so long: what is due comes late, and what arrives waits.
        """
        self.clock.advance(seconds)

    def untilPinged(self) -> None:
        """
        Let time pass until the first of them owes an answer.
        """
        while self.peers[0].owed is None:
            assert self.clock.seconds() < 1000
            self.wait(STEP)

    def answerLate(self, seconds: float) -> None:
        """
        Let time pass until the first of them is pinged, and answers so much later.
        """
        first = self.peers[0]
        first.answers = False
        self.untilPinged()
        self.wait(seconds)
        first.answers = True
        self.turn()


def settled(peers: int = 1, **settings: Any) -> Server:
    """
    One whose peers are in a round, if there can be any.
    """
    server = Server(peers, **settings)
    server.settle()
    server.forget()
    return server


# Who is in.


def test_joins() -> None:
    """
    A peer that only answers is in a round after some beats, and its pings keep to the interval.
    """
    server = Server()
    [peer] = server.peers
    assert peer.connection.batch is None
    server.settle()
    assert inRound(peer)
    assert sorted(peer.reactor.calls[-2:]) == ["nest", "removeReader"]
    before = peer.pingedAt[-1]
    server.forget()
    server.wait(10.0)
    assert peer.pingedAt == [before + 2.0 * count for count in range(1, 6)]
    assert peer.socket.calls == ["send", "recv"] * 5
    assert peer.reactor.calls == []


def test_notWithoutAPoll() -> None:
    """
    Where the reactor does not use epoll, there is no round, and the pings come all the same.
    """
    server = settled(rounds=False)
    [peer] = server.peers
    assert idlePollerFor(peer.reactor) is None
    assert peer.connection.batch is None
    server.wait(10.0)
    assert peer.pingedAt == server.places(5)
    assert peer.reactor.calls == []


def test_together() -> None:
    """
    Those who are due together share one round, and each is sent the same bytes, once.
    """
    server = settled(3)
    assert inRound(*server.peers)
    [shared] = {id(peer.connection.batch) for peer in server.peers}
    server.wait(4.0)
    assert [peer.taken for peer in server.peers] == [server.peers[0].taken] * 3
    assert [peer.socket.calls for peer in server.peers] == [["send", "recv"] * 2] * 3
    assert server.peers[0].pingedAt == server.places(2)
    first, second = (data for _, data in server.peers[0].taken)
    assert first != second


def test_notTogether() -> None:
    """
    Those who are due at other times are in another round.
    """
    server = Server(1)
    server.join(0.25)
    server.settle()
    one, other = server.peers
    assert inRound(one, other)
    assert one.connection.batch is not other.connection.batch
    assert (other.pingedAt[-1] - one.pingedAt[-1]) % 2.0 == 1.0


def test_keepsItsPlace() -> None:
    """
    Peers that have come in one instant, as after a restart, stay spread over the interval: each
    comes into a round at its own place, and no two of these here share one.
    """
    count = 32
    server = Server(0, heartbeat=Heartbeat(interval=20.0, timeout=15.0))
    for number in range(count):
        server.join((number + 0.5) / count)
    server.wait(100.0)
    server.forget()
    server.wait(20.0)
    assert inRound(*server.peers)
    instants = Counter(when for peer in server.peers for when in peer.pingedAt)
    assert set(instants.values()) == {1}
    assert len(instants) == count


class Busy:
    """
    What the wheel visits at the end of each of its slots, as it does where many links are busy.
    """

    slot: Slot | None = None

    def onTimer(self, now: float, lateness: float) -> float:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        return (floor(now * TimerWheel.PER_SECOND) + 1.99) / TimerWheel.PER_SECOND


@pytest.mark.parametrize("rounds", [True, False])
def test_doesNotDrift(rounds: bool) -> None:
    """
    Pings keep to the interval for as long as a peer only answers, whatever else the wheel has to
    visit about that time.
    """
    heartbeat = Heartbeat(interval=2.003, timeout=2.0)
    server = Server(rounds=rounds, heartbeat=heartbeat)
    [peer] = server.peers
    server.wait(20.0)
    timerWheelFor(server.clock).schedule(Busy(), server.clock.seconds())
    server.forget()
    server.wait(200.0)
    assert not rounds or inRound(peer)
    assert len(peer.pingedAt) in (99, 100)
    first, last = peer.pingedAt[0], peer.pingedAt[-1]
    exact = (len(peer.pingedAt) - 1) * 2.003
    assert abs(last - first - exact) <= 2 / TimerWheel.PER_SECOND


def test_comesLater() -> None:
    """
    One that comes to rest where there is a round already is pinged with it, at the same instants.
    """
    server = settled(2)
    server.wait(1.25)
    server.peers[1].say(b"a message")
    assert inRound(server.peers[0]) and not inRound(server.peers[1])
    server.comesBack()
    assert server.peers[0].pingedAt == server.peers[1].pingedAt


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
def test_noRoomInThePoll(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """
    Where the system has no descriptor to spare for another poll, or no room in it, a link goes on
    as it was: it is read, pinged, and found dead when it is.
    """
    server = Server()
    [peer] = server.peers

    def fail(one: Any) -> None:
        raise failure(number)

    monkeypatch.setattr(peer.reactor._twistedHeartbeatIdlePoller, "add", fail)
    server.settle()
    assert peer.connection.batch is None
    readings = [call for call in peer.reactor.calls if call.endswith("Reader")]
    assert not readings or readings[-1] == "addReader"
    server.forget()
    server.wait(10.0)
    assert peer.pingedAt == server.places(5)
    peer.answers = False
    server.wait(5.0)
    assert server.hooks.names == ["suspected", "disconnected"]


def test_shortageIsSaidOnce(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As long as the system has no descriptor to spare that is said at once and then once a minute,
    with how often it was met, and not once for each link and interval.
    """
    now = [0.0]
    warned: list[Any] = []
    shortage = Shortage(SafeLogger(observer=warned.append), "Short: {error}", lambda: now[0])
    monkeypatch.setattr(batcher, "_pollerShortage", shortage)
    server = Server(3)
    for peer in server.peers:
        monkeypatch.setattr(peer.reactor._twistedHeartbeatIdlePoller, "add", _fail)
    server.wait(20.0)
    assert len(warned) == 1
    now[0] = 61.0
    server.wait(10.0)
    [_, second] = map(formatEvent, warned)
    assert second.startswith("Short: [Errno 24]") and " times since the last" in second
    assert shortage._unsaid > 0


def _fail(one: Any) -> None:
    raise failure(errno.EMFILE)


# Who does not answer.


@pytest.mark.parametrize("timeout", [1.0, 2.0, 5.0])
def test_silence(timeout: float) -> None:
    """
    A peer that falls silent is suspected and found dead at the instants at which it would be out of
    a round, and the others notice nothing (promise 3).
    """
    seen = []
    for rounds in (True, False):
        server = settled(3, rounds=rounds, heartbeat=Heartbeat(interval=2.0, timeout=timeout))
        assert not rounds or inRound(*server.peers)
        server.peers[1].answers = False
        server.wait(12.0)
        seen.append(server.hooks.moments)
        assert [peer.link.state for peer in server.peers] == ["alive", "gone", "alive"]
        for other in (server.peers[0], server.peers[2]):
            assert other.pingedAt == server.places(6)
            assert other.socket.calls == ["send", "recv"] * 6
            assert not rounds or inRound(other) and other.reactor.calls == []
    together, single = seen
    assert [name for name, _ in together] == ["suspected", "disconnected"]
    assert [name for name, _ in single] == ["suspected", "disconnected"]
    for (_, when), (_, then) in zip(together, single, strict=True):
        assert abs(when - then) <= CLOSE
    assert LAST + 2.0 + timeout <= together[1][1] <= LAST + 2.0 + timeout + 0.05


def test_recovers() -> None:
    """
    One that answers after it was suspected has recovered, and is in a round again later.
    """
    server = settled(2)
    server.peers[0].answers = False
    server.wait(2.5)
    assert server.hooks.names == ["suspected"]
    server.peers[0].answers = True
    server.wait(STEP)
    assert server.hooks.names == ["suspected", "recovered"]
    server.comesBack()


def test_slowAnswer() -> None:
    """
    An answer that comes after the place at which the silence was looked at, but in time, is no
    suspicion.
    """
    server = settled(1, heartbeat=Heartbeat(interval=2.0, timeout=6.0))
    [peer] = server.peers
    for _ in range(3):
        server.answerLate(1.75)
        assert peer.link.rtt == 1.75
    assert server.hooks.names == []


# Who says something else.


def test_message() -> None:
    """
    A message is delivered, and whoever has sent it is watched by itself until it is quiet again.
    """
    server = settled(2)
    one, other = server.peers
    one.say(b"a message")
    assert one.protocol.messages == [b"a message"]
    assert not inRound(one) and inRound(other)
    assert one.reactor.calls == ["leaveNest", "addReader"]
    server.comesBack()


@pytest.mark.parametrize("size", [387, 388, 389, 5000])
def test_largeMessage(size: int) -> None:
    """
    A message of any size is delivered whole.
    """
    server = settled()
    [peer] = server.peers
    peer.say(b"x" * size)
    assert peer.protocol.messages == [b"x" * size]
    server.comesBack()


@pytest.mark.parametrize("first", ["pong", "message"])
def test_messageBesideThePong(first: str) -> None:
    """
    A message that comes in one chunk with the pong is delivered, and the pong counts.
    """
    server = settled()
    [peer] = server.peers
    peer.answers = False
    server.untilPinged()
    server.wait(0.25)
    message = wire.encode(wire.Data(b"a message"))
    peer.pong(**{"behind" if first == "pong" else "before": message})
    assert peer.protocol.messages == [b"a message"]
    assert not inRound(peer)
    assert peer.link.rtt == 0.25
    peer.answers = True
    server.comesBack()


def test_pongInPieces() -> None:
    """
    A pong that comes in two chunks is one.
    """
    server = settled()
    [peer] = server.peers
    peer.answers = False
    server.untilPinged()
    pong = wire.encodePong(peer.owed or 0)
    peer.owed = None
    peer.receive(pong[:5])
    server.wait(0.25)
    peer.receive(pong[5:])
    assert peer.link.rtt == 0.25
    assert not inRound(peer)
    peer.answers = True
    server.comesBack()


def test_pongTwice() -> None:
    """
    A pong that comes a second time is passed on to the protocol, and does no harm.
    """
    server = settled()
    [peer] = server.peers
    seen: list[bytes] = []
    dataReceived = peer.protocol.dataReceived

    def noted(data: bytes) -> None:
        seen.append(data)
        dataReceived(data)

    peer.protocol.dataReceived = noted
    peer.answers = False
    server.untilPinged()
    pong = wire.encodePong(peer.owed or 0)
    peer.owed = None
    peer.receive(pong)
    assert seen == [] and inRound(peer)
    peer.receive(pong)
    assert seen == [pong] and not inRound(peer)
    assert peer.link.state == "alive"
    peer.answers = True
    server.comesBack()


def test_pongOfNothing() -> None:
    """
    A pong that nobody has asked for is life, but no answer to the ping.
    """
    server = settled()
    [peer] = server.peers
    rtt = peer.link.rtt
    peer.answers = False
    server.untilPinged()
    server.wait(0.5)
    peer.receive(wire.encodePong(0))
    assert not inRound(peer)
    assert peer.link.rtt == rtt
    assert peer.link.peerWatch.detector.heardAt == server.clock.seconds()
    assert peer.link.peerWatch.detector.deadline == server.clock.seconds() + BEAT.bound


def test_ping() -> None:
    """
    A peer's own ping is answered at once, and whoever asks is watched by itself for a while.
    """
    server = settled()
    [peer] = server.peers
    peer.receive(wire.encodePing(7))
    assert not inRound(peer)
    server.turn()
    assert peer.frames == [wire.Pong(7)]
    assert "addWriter" not in peer.reactor.calls
    server.comesBack()


def test_garbage() -> None:
    """
    What is no frame ends its own link, and no other.
    """
    server = settled(2)
    server.peers[0].receive(b"GET / HTTP/1.1\r\n\r\n")
    server.wait(STEP)
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is ProtocolViolation
    assert inRound(server.peers[1])
    server.comesBack()


@pytest.mark.parametrize("end", [b"", wire.encode(wire.Goodbye("enough"))])
def test_politeEnd(end: bytes) -> None:
    """
    A peer that closes politely, with a goodbye or without, is C{PeerClosed}.
    """
    server = settled(2)
    peer = server.peers[0]
    peer.receive(end)
    server.wait(STEP)
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is PeerClosed
    assert peer.reactor.calls.count("leaveNest") == 1
    assert inRound(server.peers[1])
    server.comesBack()


# What the kernel says.


@pytest.mark.parametrize("answer", [0, 5, failure(errno.EAGAIN), failure(errno.ENOBUFS)], ids=repr)
def test_fullBuffer(answer: int | OSError) -> None:
    """
    A ping of which the kernel takes a part, or nothing, is written as ever, once, and its link is
    watched by itself; the others are pinged all the same.
    """
    server = settled(3)
    server.peers[1].socket.answers = [answer]
    server.wait(1.0)
    assert server.peers[1].socket.calls == ["send", "send", "recv"]
    assert [peer.taken for peer in server.peers] == [server.peers[0].taken] * 3
    assert not inRound(server.peers[1])
    assert inRound(server.peers[0], server.peers[2])
    assert server.hooks.names == []
    server.comesBack()


def test_fullBufferForEver(kernel: Kernel) -> None:
    """
    Where the kernel goes on to take nothing of a ping, the verdict comes within the bound.
    """
    server = settled(2)
    peer = server.peers[0]
    heardAt = peer.link.peerWatch.detector.heardAt
    peer.socket.answers = [failure(errno.EAGAIN)]
    peer.flush = lambda: None  # type: ignore[method-assign]
    kernel.queued = 12
    server.wait(4.0)
    name, when = server.hooks.moments[-1]
    assert name == "disconnected"
    assert heardAt + BEAT.bound <= when <= heardAt + BEAT.bound + 0.05
    assert inRound(server.peers[1])


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ECONNRESET, PeerReset), (errno.EPIPE, SendFailed)]
)
def test_sendError(number: int, kind: type[Cause]) -> None:
    """
    The error that a ping meets ends its link, and its errno names the cause (promise 11).
    """
    server = settled(2)
    peer = server.peers[0]
    peer.socket.answers = [failure(number), failure(errno.EPIPE)]
    server.wait(1.0)
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is kind
    assert f"[errno {number}]" in str(cause)
    assert inRound(server.peers[1])
    server.comesBack()


def failing(peer: Peer, *chunks: bytes | OSError) -> None:
    """
    Have the peer's socket give these, and then the end.
    """
    left = list(chunks)

    def recv(size: int, flags: int = 0) -> bytes:
        if flags:
            # To peek is no read.
            return left[0] if left and isinstance(left[0], bytes) else b""
        chunk = left.pop(0) if left else b""
        if isinstance(chunk, OSError):
            raise chunk
        assert len(chunk) <= size
        return chunk

    peer.socket.recv = recv  # type: ignore[method-assign]


def test_readError() -> None:
    """
    So does the one that a read meets.
    """
    server = settled(2)
    peer = server.peers[0]
    failing(peer, failure(errno.ECONNRESET))
    peer.read()
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is PeerReset
    assert f"[errno {errno.ECONNRESET}]" in str(cause)
    assert inRound(server.peers[1])


def test_nothingToRead() -> None:
    """
    Where there is nothing to read after all, nothing has happened.
    """
    server = settled()
    [peer] = server.peers
    heardAt = peer.link.peerWatch.detector.heardAt
    failing(peer, failure(errno.EAGAIN))
    peer.read()
    assert inRound(peer)
    assert peer.link.peerWatch.detector.heardAt == heardAt


def test_resetBehindAMessage() -> None:
    """
    A reset that comes right behind a message is one, whatever the message's size (promise 11).
    """
    server = settled()
    [peer] = server.peers
    chunk = wire.encode(wire.Data(b"x" * 388))
    assert len(chunk) == 400
    failing(peer, chunk, failure(errno.ECONNRESET))
    peer.read()
    assert peer.protocol.messages == [b"x" * 388]
    if peer.connection.connected:
        peer.read()
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is PeerReset


# What this side does.


@pytest.mark.parametrize("seconds", [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75])
def test_userWrites(seconds: float) -> None:
    """
    Whoever is sent a message is watched by itself, and later in a round again, at its old place.
    """
    server = settled(2)
    one, other = server.peers
    server.wait(seconds)
    server.forget()
    handed = one.protocol.sendMessage(b"a message")
    assert not inRound(one) and inRound(other)
    server.turn()
    assert handed.called
    assert one.frames == [wire.Data(b"a message")]
    server.comesBack()
    assert one.pingedAt == other.pingedAt


def test_userWritesBehindThePing(kernel: Kernel) -> None:
    """
    Bytes that are written behind a ping, and drain slowly, are no excuse for a peer that does not
    answer it: the verdict is within the bound, as out of a round (promise 3).
    """
    moments = []
    for rounds in (True, False):
        kernel.queued = 0
        server = settled(rounds=rounds, limits=Limits(sendStall=60.0, maxBuffered=None))
        [peer] = server.peers
        peer.answers = False
        server.untilPinged()
        assert not rounds or inRound(peer)
        server.wait(0.25)
        peer.protocol.sendMessage(bytes(100_000))
        peer.turn()
        kernel.sinceAck = 0.0
        kernel.queued = 100_000
        while "disconnected" not in server.hooks.names and server.clock.seconds() < 40.0:
            kernel.queued = max(0, kernel.queued - 50)
            server.wait(STEP)
        moments.append(server.hooks.moments)
    together, single = moments
    for name, when in (single[-1], together[-1]):
        assert name == "disconnected"
        assert LAST + BEAT.bound <= when <= LAST + BEAT.bound + 0.05


def test_close() -> None:
    """
    A link that is closed while it is in a round says goodbye, and is C{ClosedHere}.
    """
    server = settled(2)
    peer = server.peers[0]
    gone = peer.link.close()
    assert not inRound(peer)
    server.wait(STEP)
    assert [type(frame) for frame in peer.frames] == [wire.Goodbye]
    assert gone.called
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is ClosedHere
    server.comesBack()


def test_closePastTheLink() -> None:
    """
    So is one whose transport is closed past it, but for the goodbye.
    """
    server = settled(2)
    peer = server.peers[0]
    peer.connection.loseConnection()
    server.wait(4.0)
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is ClosedHere
    server.comesBack()


def test_abort() -> None:
    """
    A link that is aborted while it is in a round has that cause, at once.
    """
    server = settled(2)
    peer = server.peers[0]
    cause = ClosedHere("for a reason")
    peer.link.abort(cause)
    server.wait(STEP)
    assert server.hooks.told("disconnected") == [cause]
    assert not inRound(peer)
    server.comesBack()


def test_abortPastTheLink() -> None:
    """
    A transport that is aborted past its link is not read and not pinged any more.
    """
    server = settled(2)
    peer = server.peers[0]
    peer.connection.abortConnection()
    assert not inRound(peer)
    server.wait(STEP)
    assert server.hooks.names == ["disconnected"]
    server.comesBack()


def test_lost() -> None:
    """
    A connection that is lost while it is in a round ends once, and the others go on.
    """
    server = settled(3)
    peer = server.peers[1]
    peer.connection.connectionLost(Failure(ConnectionLost()))
    assert server.hooks.names == ["disconnected"]
    assert not inRound(peer)
    assert inRound(server.peers[0], server.peers[2])
    server.comesBack()


def test_allAreLost() -> None:
    """
    Where the last of a round has gone, nothing is due any more.
    """
    server = settled(2)
    for peer in server.peers:
        peer.connection.connectionLost(Failure(ConnectionLost()))
    assert server.clock.getDelayedCalls() == []


def test_joinedAgain() -> None:
    """
    A round that all have left is due again for whoever joins it in the same tick.
    """
    server = settled()
    [peer] = server.peers
    wheel = timerWheelFor(server.clock)
    wheel.ticking = True
    now, beats = server.clock.seconds(), wire.SharedPing(0.0)
    round = batcherFor(server.clock).roundFor(beats, BEAT, now, now)
    assert round.slot is not None
    round.join(peer.connection, peer.link)
    round.leave(peer.connection)
    assert round.slot is None
    assert batcherFor(server.clock).roundFor(beats, BEAT, now, now) is round
    assert round.slot is not None


@pytest.mark.parametrize("owing", [False, True])
def test_pause(owing: bool) -> None:
    """
    A peer that is not read meanwhile is in no round, and what it does not say is no silence.
    """
    server = settled(2)
    peer = server.peers[0]
    if owing:
        peer.answers = False
        server.untilPinged()
        peer.answers = True
    peer.connection.pauseProducing()
    assert not inRound(peer)
    assert "addReader" not in peer.reactor.calls
    server.wait(20.0)
    assert "disconnected" not in server.hooks.names
    assert inRound(server.peers[1])
    peer.reactor.calls.clear()
    peer.connection.resumeProducing()
    assert peer.reactor.calls == ["addReader"]
    server.wait(STEP)
    assert "disconnected" not in server.hooks.names
    server.comesBack()


@pytest.mark.parametrize("owing", [False, True])
@pytest.mark.parametrize("lives", [False, True])
def test_ask(owing: bool, lives: bool) -> None:
    """
    Whoever is asked whether it lives is pinged at once, unless it has been, and has to answer
    within the timeout.
    """
    server = settled(2)
    peer = server.peers[0]
    server.wait(0.5)
    peer.answers = False
    if owing:
        server.untilPinged()
    before = server.clock.seconds()
    answers: list[bool] = []
    peer.link.probe().addCallback(answers.append)
    assert not inRound(peer)
    server.wait(STEP)
    assert peer.owed is not None and len(peer.pingedAt) == 1
    peer.answers = lives
    server.wait(BEAT.timeout + 0.05)
    assert answers == [lives]
    assert ("disconnected" in server.hooks.names) is not lives
    if not lives:
        assert server.hooks.moments[-1][1] <= before + BEAT.timeout + 0.05
    server.comesBack()


def test_watchedByAnother() -> None:
    """
    A connection that a second heartbeat comes to watch is in no round from then on.
    """
    server = settled(2)
    peer = server.peers[0]
    detector = FailureDetector(None, 0.0)

    class Other:
        """
        Is told.
        """

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: None

    other: Any = Other()
    instrument(peer.connection, detector, server.clock.seconds, other)
    assert not inRound(peer)
    peer.say(b"a message")
    assert detector.heardAt == peer.link.peerWatch.detector.heardAt == server.clock.seconds()
    assert peer.protocol.messages == [b"a message"]
    server.settle()
    assert not inRound(peer)


def test_startTLS() -> None:
    """
    Once its connection has become TLS, nothing is sent to a peer in the clear.
    """
    server = settled(2)
    peer = server.peers[0]
    peer.connection._tlsClientDefault = False
    peer.connection.startTLS(serverOptions(), normal=True)
    server.wait(3.0)
    assert peer.taken == []
    assert not inRound(peer)
    assert inRound(server.peers[1])


# What is known meanwhile.


def test_rtt() -> None:
    """
    The round-trip time is the last pong's, in a round and after it.
    """
    server = settled(2)
    peer = server.peers[0]
    assert peer.link.rtt == 0.0
    for rtt in (0.25, 0.125):
        server.answerLate(rtt)
        assert inRound(peer)
        assert peer.link.rtt == rtt
    peer.say(b"a message")
    assert not inRound(peer)
    assert peer.link.rtt == 0.125
    server.answerLate(0.5)
    assert peer.link.rtt == 0.5


def test_silenceOfALink() -> None:
    """
    How long a peer has been silent, and its deadline, are known in a round as they are out of it.
    """
    server = settled()
    [peer] = server.peers
    heardAt = server.clock.seconds() - 1.0
    assert peer.link.silence == 1.0
    assert peer.link.peerWatch.detector.deadline == heardAt + BEAT.bound
    assert peer.link.state == "alive" and peer.link.watch == "ping"
    peer.answers = False
    server.wait(1.5)
    assert inRound(peer)
    assert peer.link.silence == 2.5
    assert peer.link.peerWatch.detector.deadline == heardAt + BEAT.bound


# This process was away.


@pytest.mark.parametrize("seconds", [1.25, 2.5, 3.75, 14.5, 20.25, 1000.25])
def test_stall(seconds: float) -> None:
    """
    Where this process was away, nobody is suspected for that, and the pings come at their old
    places again.
    """
    server = settled(3)
    server.stall(seconds)
    server.turn()
    assert all(len(peer.pingedAt) == 1 for peer in server.peers)
    server.wait(2.5)
    server.forget()
    server.wait(20.0)
    assert server.hooks.names == []
    for peer in server.peers:
        assert len(peer.pingedAt) == 10
        assert {when % 2.0 for when in peer.pingedAt} == {LAST % 2.0}
    assert inRound(*server.peers)


@pytest.mark.parametrize("seconds", [2.5, 3.5, 14.5, 20.25, 1000.25])
def test_stallBeforeThePongs(seconds: float) -> None:
    """
    Where it was away while their pongs waited unread, nobody is suspected who has answered, and
    nobody is found dead who is only asked again (promise 4).
    """
    server = settled(3)
    for peer in server.peers:
        peer.answers = False
    server.untilPinged()
    assert inRound(*server.peers)
    server.stall(seconds)
    for peer in server.peers:
        # The pong of the ping before the stall.
        peer.pong()
        peer.answers = True
    server.wait(STEP)
    assert "disconnected" not in server.hooks.names
    if seconds > BEAT.bound:
        assert server.hooks.names == []
    server.wait(4.0)
    server.forget()
    server.wait(20.0)
    assert server.hooks.names == []
    for peer in server.peers:
        assert len(peer.pingedAt) == 10
        # Its place, or one of the quarters of the interval from there.
        [place] = {when % 2.0 for when in peer.pingedAt}
        assert (place - LAST) % 0.5 == 0.0
    assert inRound(*server.peers)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0, 5.0, 40.0])
@pytest.mark.parametrize("timeout", [2.0, 6.0])
def test_twoLooks(monkeypatch: pytest.MonkeyPatch, seconds: float, timeout: float) -> None:
    """
    Between two looks at one link its socket is polled: none is visited twice in one tick, however
    late.
    """
    ticks = 0
    visits: Counter[tuple[int, int]] = Counter()
    tick, beat = TimerWheel._tick, PeerWatch.onTimer

    def countedTick(self: TimerWheel) -> None:
        nonlocal ticks
        ticks += 1
        tick(self)

    def countedBeat(self: PeerWatch, now: float, lateness: float) -> float | None:
        visits[ticks, id(self)] += 1
        return beat(self, now, lateness)

    monkeypatch.setattr(TimerWheel, "_tick", countedTick)
    monkeypatch.setattr(PeerWatch, "onTimer", countedBeat)
    server = settled(4, heartbeat=Heartbeat(interval=2.0, timeout=timeout))
    assert inRound(*server.peers)
    visits.clear()
    server.peers[0].answers = server.peers[1].answers = False
    for _ in range(6):
        server.stall(seconds)
        server.turn()
        server.wait(3 * STEP)
    server.wait(2 * (2.0 + timeout))
    assert set(visits.values()) == {1}
    assert [peer.link.state for peer in server.peers] == ["gone", "gone", "alive", "alive"]


# Anything at all.

WAITS = st.tuples(st.just("wait"), st.integers(1, 320))
ACTS = st.tuples(st.sampled_from(["pong", "data", "both", "write", "ping"]), st.just(0))
STALLS = st.tuples(st.just("stall"), st.integers(1, 2000))
TIMEOUTS = st.sampled_from([1.0, 2.0, 6.0])


def happen(server: Server, event: str, steps: int) -> None:
    """
    Have it happen to the first of the peers.
    """
    peer = server.peers[0]
    if event == "wait":
        server.wait(steps * STEP)
    elif event == "stall":
        server.stall(steps * STEP)
        server.turn()
    elif not peer.connection.connected:
        return
    elif event == "pong":
        peer.pong()
    elif event == "data":
        peer.say(b"a message")
    elif event == "both":
        peer.pong(behind=wire.encode(wire.Data(b"a message")))
    elif event == "ping":
        peer.receive(wire.encodePing(7))
    elif event == "write":
        peer.protocol.sendMessage(b"a message")
        server.turn()


@settings(max_examples=40)
@given(TIMEOUTS, st.lists(st.one_of(WAITS, ACTS, STALLS), max_size=15))
def test_stalls(timeout: float, events: list[tuple[str, int]]) -> None:
    """
    Whatever happens, and however long this process is away, one that answers is never suspected,
    and one that falls silent is found dead, but not before its bound is over.
    """
    heartbeat = Heartbeat(interval=2.0, timeout=timeout)
    with pytest.MonkeyPatch.context() as patch:
        Kernel(patch)
        server = settled(2, heartbeat=heartbeat)
        assert inRound(*server.peers)
        for event, steps in events:
            happen(server, event, steps)
        server.wait(STEP)
        assert server.hooks.names == []
        server.peers[0].answers = False
        heardAt = server.peers[0].link.peerWatch.detector.heardAt
        # A ping may be under way that has been sent late.
        server.wait(heartbeat.bound + timeout + 0.05)
        assert server.hooks.names == ["suspected", "disconnected"]
        assert server.hooks.moments[-1][1] >= heardAt + heartbeat.bound
        assert server.peers[1].link.state == "alive"
