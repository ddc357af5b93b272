# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Quiet peers that are asked by a ping of the user's own are asked together, in L{CustomPingRound}s:
at the instants and with the verdicts of those that are watched by themselves, and all they say is
heard.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.context import get as contextOf
from twisted.python.failure import Failure
from twisted.python.log import ILogContext

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatFactory,
    HeartbeatMixin,
    Limits,
    PeerClosed,
    PeerReset,
    SendFailed,
    SendStalled,
)
from twisted_heartbeat.batching.batcher import batcherFor
from twisted_heartbeat.batching.pinground import CustomPingRound
from twisted_heartbeat.batching.poller import idlePollerFor, readParked

from ..support.countingsockets import Accepted, Connection, Kernel, RestingScene
from ..support.loopback import Loopback, opened, wait, within
from ..support.roundcrew import BEAT, CLOSE, RoundCrew, inRound

STEP = RoundCrew.STEP

LAST = 16.0 - 2.0 / 32 + STEP
"""
When they are asked last before they have L{settled}: at the common place before the one at which
their interval is over.
"""

PHASE = 1.0 - 1 / 32
"""The same, where they have a place from the beginning."""


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    One that says what is wanted.
    """
    return Kernel(monkeypatch)


class Own(Protocol):
    """
    A protocol of a user's.

    @ivar heard: the chunks that it has received.
    @ivar then: what it does with each.
    @ivar answered: those who want to know of the next.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}, and so the other.
        """
        self.heard: list[bytes] = []
        self.answered: list[Deferred[bytes]] = []
        self.then: Callable[[bytes], object] = lambda data: None

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        self.then(data)
        answered, self.answered = self.answered, []
        for one in answered:
            one.callback(data)

    def ask(self) -> None:
        """
        A ping.
        """
        self.transport.write(b"?")

    def askOften(self) -> None:
        """
        One in two writes.
        """
        self.transport.write(b"")
        self.transport.write(b"?")

    def call(self) -> Deferred[bytes]:
        """
        One whose answer is awaited.
        """
        self.ask()
        answer: Deferred[bytes] = Deferred()
        self.answered.append(answer)
        return answer

    async def askAsync(self) -> None:
        """
        One that is a coroutine.
        """
        self.ask()

    async def callAsync(self) -> bytes:
        """
        One that is a coroutine, and awaits its answer.
        """
        return await self.call()


class Mixed(HeartbeatMixin, Own):
    """
    A mixed-in protocol.
    """

    def sendPing(self) -> None:
        """
        See L{HeartbeatMixin}.
        """
        self.ask()


class MixedAsync(Mixed):
    """
    The same with a coroutine.
    """

    async def sendPing(self) -> None:  # type: ignore[override]
        """
        See L{HeartbeatMixin}.
        """
        self.ask()


class Peer(RestingScene):
    """
    One that answers each ping in the turn in which it comes, as long as it C{answers}.

    @ivar askedAt: when it was.
    @ivar owes: whether it has not answered the last.
    """

    def __init__(self, factory: Any, clock: Clock, kind: type[Connection], rounds: bool) -> None:
        super().__init__(factory, clock, rounds, kind)
        self.answers = True
        self.owes = False
        self.askedAt: list[float] = []

    def forget(self) -> None:
        """
        See L{Scene}.
        """
        super().forget()
        self.askedAt.clear()
        self.own.heard.clear()

    def turn(self) -> None:
        """
        The reactor's turn, and then the peer's.
        """
        self.flush()
        sent, self.socket.sent = self.socket.sent, b""
        for _ in range(sent.count(b"?")):
            self.askedAt.append(self.clock.seconds())
            self.owes = True
        if self.owes and self.answers:
            self.say(b"!")

    def say(self, data: bytes) -> None:
        """
        It says something; whatever it is, it no longer owes anything.
        """
        if self.connection.connected and self.connection.reading:
            self.owes = False
            self.receive(data)

    @property
    def own(self) -> Any:
        """
        The user's protocol.
        """
        return getattr(self.protocol, "_protocol", self.protocol)


class Server(RoundCrew):
    """
    A server, and its peers, who all are due in one instant.
    """

    LAST = LAST

    def __init__(
        self,
        peers: int = 1,
        *,
        rounds: bool = True,
        protocol: type[Own] = Own,
        kind: type[Connection] = Accepted,
        phase: float | None = None,
        **settings: Any,
    ) -> None:
        """
        @param rounds: whether there can be any.
        @param phase: where their place in the interval is; they have none if L{None}.
        """
        super().__init__()
        settings = {"heartbeat": BEAT, "keepAlive": None, **settings}
        if protocol is Own:
            settings.setdefault("ping", Own.ask)
        factory = HeartbeatFactory(
            Factory.forProtocol(protocol), clock=self.clock, hooks=self.hooks, **settings
        )
        if phase is not None:
            # As HeartbeatServerFactory has it.
            factory._settings["phase"] = lambda: phase
        self._peer = lambda: Peer(factory, self.clock, kind, rounds)
        for _ in range(peers):
            self.join()
        self.forget()

    def join(self) -> None:
        """
        One more connects.
        """
        self.peers.append(self._peer())
        self.peers[-1].say(b"hello")

    def stall(self, seconds: float) -> None:
        """
        This process does nothing for so long: what is due comes late, and what arrives waits.
        """
        self.clock.advance(seconds)
        self.turn()

    def untilAsked(self) -> None:
        """
        Let time pass until the first of them owes an answer.
        """
        self.peers[0].answers = False
        while not self.peers[0].owes:
            assert self.clock.seconds() < 1000
            self.wait(STEP)


def settled(peers: int = 1, **settings: Any) -> Server:
    """
    One whose peers are in a round, if there can be any.
    """
    server = Server(peers, **settings)
    server.settle()
    assert server.hooks.names == []
    server.forget()
    return server


# Who is in.

WAYS: dict[str, dict[str, Any]] = {
    "wrapped": {},
    "mixed in": {"protocol": Mixed},
    "in two writes": {"ping": Own.askOften},
    "with an answer": {"ping": Own.call},
    "a coroutine": {"ping": Own.askAsync},
    "a coroutine that awaits its answer": {"ping": Own.callAsync},
    "a coroutine, mixed in": {"protocol": MixedAsync},
    "a function that returns a coroutine": {"ping": lambda own: own.askAsync()},
    "at a place": {"phase": PHASE},
}


@pytest.mark.parametrize("way", WAYS)
def test_joins(way: str) -> None:
    """
    Peers that only answer are in one round after some beats.  Their pings keep to the interval and
    go straight to the kernel, and their answers are delivered.
    """
    server = settled(2, **WAYS[way])
    assert inRound(*server.peers)
    assert server.peers[0].connection.batch is server.peers[1].connection.batch
    server.wait(10.0)
    for peer in server.peers:
        assert peer.askedAt == server.places(5)
        assert [call for call in peer.socket.calls if call == "recv"] == ["recv"] * 5
        assert peer.own.heard == [b"!"] * 5
        assert peer.reactor.calls == []


def test_notWhoeverIsAlone() -> None:
    """
    The connection of a client is in no round, has no place, and is asked when the interval is over.
    """
    server = Server(kind=Connection)
    [peer] = server.peers
    server.wait(10.0)
    assert not inRound(peer)
    assert peer.askedAt == [pytest.approx(2.0 * count, abs=4 * STEP) for count in range(1, 6)]


def test_notBefore() -> None:
    """
    Without a place a peer is not asked before the interval is over, as long as it does anything but
    answer; one that does nothing else may be asked at the common place before that.
    """
    server = Server()
    [peer] = server.peers
    for _ in range(3):
        server.wait(1.75)
        peer.say(b"a word")
    assert peer.askedAt == []
    server.wait(20.0)
    first, second, *others = [b - a for a, b in pairwise([5.25, *peer.askedAt])]
    assert 2.0 <= first <= 2.0 + STEP and 2.0 <= second <= 2.0 + STEP
    assert inRound(peer)
    assert 2.0 - 2.0 / 32 - STEP <= others[0] <= 2.0
    assert set(others[1:]) == {2.0}


def test_comeTogether() -> None:
    """
    Peers that come into a round at other instants of one place are in one round from the next ping
    on.
    """
    server = Server(0)
    for _ in range(3):
        server.wait(2 * STEP)
        server.join()
    server.settle()
    assert inRound(*server.peers)
    assert len({id(peer.connection.batch) for peer in server.peers}) == 1
    assert len({tuple(peer.askedAt[-3:]) for peer in server.peers}) == 1
    server.peers[0].answers = False
    server.wait(BEAT.bound)
    assert [peer.link.state for peer in server.peers] == ["gone", "alive", "alive"]
    assert inRound(*server.peers[1:])


def test_notTogether() -> None:
    """
    Those that are asked in another way are in another round, though they are due with the others.
    """
    server = Server()
    other = HeartbeatFactory(
        Factory.forProtocol(Own),
        clock=server.clock,
        heartbeat=BEAT,
        keepAlive=None,
        ping=lambda protocol: protocol.ask(),
    )
    server.peers.append(Peer(other, server.clock, Accepted, True))
    server.peers[1].say(b"hello")
    server.settle()
    one, another = server.peers
    assert inRound(one, another)
    assert one.connection.batch is not another.connection.batch


def test_logged() -> None:
    """
    What a protocol logs while it is delivered an answer is said to be its connection's.
    """
    server = settled()
    [peer] = server.peers
    context: dict[str, Any] = {}
    peer.socket.arrived = b"a word"
    assert readParked(peer.connection, context) is None
    assert context == {"system": peer.connection.logPrefix()}
    assert peer.own.heard == [b"a word"]


@pytest.mark.parametrize("ping", [Own.call, Own.callAsync])
def test_rtt(ping: Any) -> None:
    """
    Where a ping's answer is awaited, its round-trip time is known in a round, too.
    """
    server = settled(ping=ping)
    [peer] = server.peers
    server.untilAsked()
    server.wait(0.0625)
    peer.answers = True
    peer.turn()
    assert inRound(peer)
    assert peer.link.rtt == 0.0625


# Who does not answer.


@pytest.mark.parametrize("protocol", [Own, Mixed])
@pytest.mark.parametrize("timeout", [1.0, 2.0, 6.0])
def test_silence(timeout: float, protocol: type[Own]) -> None:
    """
    A peer that falls silent is suspected, asked again and found dead at the instants at which it
    would be out of a round, and the others notice nothing (promise 3).
    """
    seen = []
    heartbeat = Heartbeat(interval=2.0, timeout=timeout)
    for rounds in (True, False):
        server = settled(3, rounds=rounds, heartbeat=heartbeat, protocol=protocol)
        assert not rounds or inRound(*server.peers)
        silent = server.peers[1]
        silent.answers = False
        server.wait(12.0)
        assert [name for name, _ in server.hooks.moments] == ["suspected", "disconnected"]
        assert [peer.link.state for peer in server.peers] == ["alive", "gone", "alive"]
        seen.append((server.hooks.moments, [("asked", when) for when in silent.askedAt]))
    for one, other in zip(*seen, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        for (_, when), (_, then) in zip(one, other, strict=True):
            assert abs(when - then) <= CLOSE
    death = seen[0][0][-1][1]
    assert LAST + 2.0 + timeout <= death + 2.0 <= LAST + 4.0 + timeout + 0.05


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


# Who says something else.


@pytest.mark.parametrize("seconds", [0.0, 0.0625, 0.125, 0.25, 1.0, 1.5, 1.75])
def test_message(seconds: float) -> None:
    """
    Whatever a peer says is delivered.  If it is soon after the ping, the peer need not leave; if it
    is later, the peer is asked when the interval is over, as one that is in no round.
    """
    server = settled(2)
    one, other = server.peers
    server.wait(1.0 + seconds)
    server.forget()
    one.say(b"a message")
    assert one.own.heard == [b"a message"]
    assert one.link.peerWatch.detector.heardAt == server.clock.seconds()
    assert inRound(one) is (seconds < 0.125) and inRound(other)
    lastSentAt = server.clock.seconds()
    server.wait(2.0 + STEP)
    least = 2.0 - seconds if seconds < 0.125 else 2.0
    assert least <= one.askedAt[0] - lastSentAt <= least + STEP
    server.comesBack()


@pytest.mark.parametrize("size", [399, 400, 401, 5000])
def test_largeMessage(size: int) -> None:
    """
    A message of any size is delivered whole.
    """
    server = settled()
    [peer] = server.peers
    peer.say(b"x" * size)
    assert b"".join(peer.own.heard) == b"x" * size
    server.comesBack()


def test_answerInPieces() -> None:
    """
    An answer may come in pieces, and is delivered in these.
    """
    server = settled()
    [peer] = server.peers
    server.untilAsked()
    peer.say(b"an ")
    server.wait(0.0625)
    peer.say(b"answer")
    assert peer.own.heard == [b"an ", b"answer"]
    assert inRound(peer)
    server.comesBack()


@pytest.mark.parametrize("what", ["end", "reset"])
@pytest.mark.parametrize("owes", [False, True])
def test_end(what: str, owes: bool) -> None:
    """
    A peer that closes, or whose connection is reset, is gone at once, its cause named, and no other
    is touched.
    """
    server = settled(2)
    one, other = server.peers
    if owes:
        server.untilAsked()
    if what == "end":
        one.receive(b"")
    else:

        def recv(size: int, flags: int = 0) -> bytes:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

        one.socket.recv = recv  # type: ignore[method-assign]
        one.read()
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is (PeerClosed if what == "end" else PeerReset)
    assert not inRound(one) and inRound(other)
    server.comesBack()


def test_finIsNoAnswer() -> None:
    """
    A FIN from a peer that owes an answer is none: its silence goes on from its last byte.
    """
    server = settled(2)
    one = server.peers[0]
    server.untilAsked()
    heardAt = one.link.peerWatch.detector.heardAt
    one.receive(b"")
    assert one.link.peerWatch.detector.heardAt == heardAt
    server.comesBack()


# What this side does.


def test_replies() -> None:
    """
    A protocol that answers what it receives is watched by itself until it is quiet again, and its
    bytes are sent in their order.
    """
    server = settled(2)
    one, other = server.peers
    one.own.then = lambda data: one.own.transport.write(b"re: " + data)
    one.say(b"a message")
    assert not inRound(one) and inRound(other)
    one.flush()
    assert one.socket.sent == b"re: a message"
    one.own.then = lambda data: None
    server.comesBack()


def test_raises(loggedErrors: Any) -> None:
    """
    A protocol that raises at what it receives loses its connection, as ever, and no other does.
    """
    server = settled(2)
    one, other = server.peers

    def fail(data: bytes) -> None:
        raise ValueError(data)

    one.own.then = fail
    with pytest.raises(ValueError, match="a message"):
        one.receive(b"a message")
    # As the poll does, see test_nestedpoll.py.
    one.connection.stopReading()
    one.connection.connectionLost(Failure(ValueError()))
    assert server.hooks.names == ["disconnected"]
    assert not inRound(one) and inRound(other)
    loggedErrors.flush(ValueError)
    server.comesBack()


@pytest.mark.parametrize("act", ["close", "abort", "lose", "pause"])
def test_leaves(act: str) -> None:
    """
    A link that is closed, aborted, lost or paused is asked no more, and the others are.
    """
    server = settled(2)
    one, other = server.peers
    if act == "close":
        one.link.close()
    elif act == "abort":
        one.connection.abortConnection()
    elif act == "lose":
        one.connection.connectionLost(Failure(ConnectionLost()))
    else:
        one.link.peerWatch.pause()
    assert not inRound(one) and inRound(other)
    server.wait(8.0)
    assert server.hooks.names == ([] if act == "pause" else ["disconnected"])
    assert len(other.askedAt) == 4
    if act == "pause":
        one.link.peerWatch.resume()
    server.comesBack()


def test_allAreLost() -> None:
    """
    Where the last of a round has gone, nothing is due any more.
    """
    server = settled(2)
    for peer in server.peers:
        peer.connection.connectionLost(Failure(ConnectionLost()))
    assert server.clock.getDelayedCalls() == []


# What a ping does.


@pytest.mark.parametrize("answer", [0, OSError(errno.EAGAIN, "full")], ids=["nothing", "full"])
def test_fullBuffer(answer: int | OSError) -> None:
    """
    A ping that the kernel does not take is sent later, once, and the others are asked all the same.
    """
    server = settled(3)
    one = server.peers[1]
    one.socket.answers = [answer]
    server.wait(1.0)
    assert [peer.askedAt for peer in server.peers] == [server.places(1)] * 3
    assert one.socket.calls == ["send", "send", "recv"]
    assert not inRound(one)
    assert inRound(server.peers[0], server.peers[2])


@pytest.mark.parametrize("ping", [Own.ask, Own.askAsync])
def test_pingFails(ping: Any, loggedErrors: Any) -> None:
    """
    A ping that raises ends its own link, is logged, and the others are asked all the same.
    """
    server = settled(3, ping=ping)

    def fail() -> None:
        raise ZeroDivisionError("no ping")

    failing = server.peers[1]
    failing.own.transport = type("Broken", (), {"write": lambda self, data: fail()})()
    server.wait(1.0)
    [cause] = server.hooks.told("disconnected")
    assert type(cause) is SendFailed
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    assert [peer.askedAt for peer in server.peers] == [server.places(1), [], server.places(1)]
    server.comesBack()


@pytest.mark.parametrize("other", [0, 1, 2])
@pytest.mark.parametrize("act", ["write", "close", "ask", "pause"])
def test_pingActsOnALink(act: str, other: int) -> None:
    """
    Whatever a ping does to its own link or to another of its round, be that asked before it or
    after it: each that is still there is asked once in the interval, and nobody is taken to have
    been asked who was not.
    """
    pinging: list[Peer] = []

    def ping(protocol: Own) -> None:
        protocol.ask()
        if pinging and protocol is pinging[0].own:
            pinging.clear()
            if act == "write":
                server.peers[other].own.transport.write(b"a word")
            elif act == "close":
                server.peers[other].link.close()
            elif act == "ask":
                server.peers[other].link.probe()
            else:
                server.peers[other].link.peerWatch.pause()

    server = settled(3, ping=ping)
    assert inRound(*server.peers)
    pinging.append(server.peers[1])
    server.wait(1.5)
    there = [peer for peer in server.peers if act != "close" or peer is not server.peers[other]]
    for peer in there:
        if act == "ask" and peer is server.peers[other]:
            # Whoever wants to know it at once asks once more.
            assert 1 <= len(peer.askedAt) <= 2
        else:
            assert len(peer.askedAt) == 1
    assert server.hooks.names == (["disconnected"] if act == "close" else [])
    if act == "pause":
        server.peers[other].link.peerWatch.resume()
    server.comesBack()


def test_pingThatGoesAnotherWay() -> None:
    """
    Where a ping does not go straight to the kernel, its link is in no round: it would leave it each
    time.
    """
    # What is written so is looked after for less than an interval.
    limits = Limits(sendStall=0.5)
    server = settled(ping=lambda own: own.transport.writeSequence([b"?"]), limits=limits)
    [peer] = server.peers
    assert not inRound(peer)
    server.wait(10.0)
    assert len(peer.askedAt) == 5
    assert "nest" not in peer.reactor.calls
    assert server.hooks.names == []


def test_pingThatComesLater() -> None:
    """
    A ping that is sent in a later turn is one, too, and whoever answers it lives.
    """
    server = Server(2)

    def ping(protocol: Own) -> None:
        server.clock.callLater(0, protocol.ask)

    server = Server(2, ping=ping)
    server.wait(40.0)
    assert server.hooks.names == []
    assert all(18 <= len(peer.askedAt) <= 20 for peer in server.peers)
    server.peers[0].answers = False
    heardAt = server.peers[0].link.peerWatch.detector.heardAt
    server.wait(BEAT.bound + 0.05)
    assert server.hooks.names == ["suspected", "disconnected"]
    assert heardAt + BEAT.bound <= server.hooks.moments[-1][1]


def test_unacknowledged(kernel: Kernel) -> None:
    """
    A peer that speaks, but whose kernel no longer takes what it is sent, is found within the same
    time as out of a round: each ping looks at what has become of the last.
    """
    deaths = []
    for rounds in (True, False):
        kernel.queued = 0
        server = settled(rounds=rounds, limits=Limits(sendStall=5.0), phase=PHASE)
        [peer] = server.peers
        assert not rounds or inRound(peer)
        kernel.queued = 1
        # It takes no more than what is sent now, and what follows waits here.
        began = server.clock.seconds()
        peer.flush = lambda: None  # type: ignore[method-assign]
        while not server.hooks.names:
            assert server.clock.seconds() < began + 20.0
            server.wait(STEP)
            if server.clock.seconds() % 2.0 == LAST % 2.0 + STEP:
                peer.say(b"I am here")
        [cause] = server.hooks.told("disconnected")
        assert type(cause) is SendStalled
        deaths.append(server.clock.seconds() - began)
    together, single = deaths
    assert abs(together - single) <= CLOSE


def test_leavesUnacknowledged(kernel: Kernel) -> None:
    """
    One that leaves while its kernel has not taken the last ping is not taken to have: the next one
    waits here, where it is looked after.
    """
    server = settled()
    [peer] = server.peers
    server.untilAsked()
    kernel.queued = 1
    server.wait(1.0)
    peer.say(b"a late message")
    assert not inRound(peer)
    peer.reactor.calls.clear()
    server.wait(2.0)
    assert peer.reactor.calls == ["addWriter", "removeWriter"]


def test_askedWhenTheFirstHadToBe() -> None:
    """
    Those who come into a round together are taken to have been asked when the first of them had to
    be, so that the bound of none begins later than its own ping was due.
    """
    batcher = batcherFor(Clock())
    one, other = (batcher.roundFor(Own.ask, BEAT, 10.0, askedAt) for askedAt in (10.06, 10.05))
    assert one is other
    assert one.askedAt == 10.05


# This process was away.


@pytest.mark.parametrize("seconds", [1.25, 2.5, 3.75, 14.5, 20.25, 1000.25])
def test_stall(seconds: float) -> None:
    """
    Where this process was away, nobody is suspected for that, and the peers come to rest again.
    """
    server = settled(3)
    server.stall(seconds)
    assert all(len(peer.askedAt) == 1 for peer in server.peers)
    server.wait(4.0)
    assert server.hooks.names == []
    server.comesBack()


# On real sockets.


class Looking(Own):
    """
    Keeps the log's context in which it has heard each chunk, and counts those in a round.
    """

    def connectionMade(self) -> None:
        """
        See L{Own}, and so the other.
        """
        super().connectionMade()
        self.contexts: set[str] = set()
        self.inRounds = 0

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        context: Any = contextOf(ILogContext)
        self.contexts.add(context["system"])
        transport: Any = self.transport
        self.inRounds += type(transport.batch) is CustomPingRound


class LookingMixed(HeartbeatMixin, Looking):
    """
    The same, mixed in.
    """

    heartbeat = Heartbeat(interval=0.2, timeout=1.0)
    keepAlive = None

    def sendPing(self) -> None:
        """
        See L{HeartbeatMixin}.
        """
        self.ask()


class Answering(Protocol):
    """
    The peer.
    """

    answers = True

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        if self.answers:
            self.transport.write(b"!" * data.count(b"?"))


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """
    Real sockets, and a real kernel.
    """
    monkeypatch.undo()
    with opened(False) as place:
        yield place


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("mixed", [False, True], ids=["wrapped", "mixed in"])
async def test_onARealReactor(loopback: Loopback, mixed: bool) -> None:
    """
    Over real sockets a peer that only answers comes into a round, its answers are delivered in the
    context for the log that Twisted's own reading has, and once it is silent it is found dead.
    """
    from twisted.internet import reactor

    if idlePollerFor(reactor) is None:
        pytest.skip("the reactor does not use epoll")
    made: list[Any] = []

    class Keeping(LookingMixed if mixed else Looking):  # type: ignore[misc]
        def connectionMade(self) -> None:
            super().connectionMade()
            made.append(self)

    factory: Any = Factory.forProtocol(Keeping)
    if not mixed:
        factory = HeartbeatFactory(
            factory, heartbeat=LookingMixed.heartbeat, keepAlive=None, ping=Own.ask
        )
    endpoint = loopback.endpoint(loopback.listen(factory))
    client = loopback.service(endpoint, Factory.forProtocol(Answering), heartbeat=None)
    await within(client.whenConnected())
    peer: Any = client.link.protocol
    # It may leave in between: a busy machine is late by more than a sixteenth of the interval.
    for _ in range(1000):
        if made and made[0].inRounds >= 3:
            break
        await wait(0.01)
    [own] = made
    connection = own.transport
    assert own.inRounds >= 3
    assert set(own.heard) == {b"!"}
    assert own.contexts == {connection.logPrefix()}
    peer.answers = False
    for _ in range(1000):
        if not connection.connected:
            break
        await wait(0.01)
    assert not connection.connected and connection.batch is None


# Anything at all.

WAITS = st.tuples(st.just("wait"), st.integers(1, 320))
ACTS = st.tuples(st.sampled_from(["answer", "say", "write", "reply"]), st.just(0))
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
    elif not peer.connection.connected:
        return
    elif event == "answer":
        if peer.owes:
            peer.say(b"!")
    elif event == "say":
        peer.say(b"a message")
    elif event == "reply":
        peer.own.then = lambda data: peer.own.transport.write(b"re: " + data)
        peer.say(b"a question")
        peer.own.then = lambda data: None
        server.turn()
    elif event == "write":
        peer.own.transport.write(b"a word")
        server.turn()


@settings(max_examples=40)
@given(
    TIMEOUTS,
    st.sampled_from([None, PHASE]),
    st.lists(st.one_of(WAITS, ACTS, STALLS), max_size=15),
)
def test_stalls(timeout: float, phase: float | None, events: list[tuple[str, int]]) -> None:
    """
    Whatever happens, and however long this process is away, one that answers is never suspected,
    and one that falls silent is found dead, but not before its bound is over.
    """
    heartbeat = Heartbeat(interval=2.0, timeout=timeout)
    with pytest.MonkeyPatch.context() as patch:
        Kernel(patch)
        server = settled(2, heartbeat=heartbeat, phase=phase)
        for event, steps in events:
            happen(server, event, steps)
        server.wait(STEP)
        assert server.hooks.names == []
        server.peers[0].answers = False
        began = server.clock.seconds()
        server.wait(2 * heartbeat.bound + timeout + 0.05)
        assert server.hooks.names == ["suspected", "disconnected"]
        heardAt = server.peers[0].link.peerWatch.detector.heardAt
        assert began - STEP <= heardAt + heartbeat.bound <= server.hooks.moments[-1][1]
        assert server.peers[1].link.state == "alive"
