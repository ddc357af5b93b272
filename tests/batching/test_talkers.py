# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Peers that speak often are gone through together, in L{TalkerScan}s: the same pings, the same
instants and the same verdicts as one by one, and whoever is in one is not looked at by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    Heartbeat,
    HeartbeatFactory,
    HeartbeatProtocol,
    Limits,
    Link,
    LinkHooks,
    PeerSilent,
)
from twisted_heartbeat.batching.batcher import Batcher, batcherFor
from twisted_heartbeat.batching.talkers import TalkerScan
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.detector import Decision, FailureDetector
from twisted_heartbeat.core.quiet import (
    checksSuspended,
    isTalkative,
    minSilenceBeforePing,
    park,
    quietSince,
    resumeChecks,
    suspendChecks,
)
from twisted_heartbeat.link.watch import PeerWatch
from twisted_heartbeat.timing.wheel import TimerWheel, timerWheelFor

from ..support.countingsockets import Kernel, Scene
from ..support.loopback import serverOptions
from ..support.virtualnetwork import Kept

STEP = 0.5 / TimerWheel.PER_SECOND
"""Seconds; all times here are multiples of it, so that sums of them are exact."""

CLOSE = 2 / TimerWheel.PER_SECOND
"""Seconds by which an instant may differ."""

BEAT = Heartbeat(interval=2.0, timeout=2.0)
"""Its patience is 1.5; a scan is gone through every 0.5, and whoever leaves has been silent for
more than 1.0."""

LONG = Heartbeat(interval=20.0, timeout=16.0)
"""Its patience is 15."""

PASSIVE = Heartbeat(interval=None, timeout=16.0)
"""Its patience is 8."""

SETTLED = 6.0
"""Seconds after which a peer that speaks often is in a scan, however it is watched."""

PHASES = [None, 0.1, 0.75]


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    One that says what is wanted; and the fewest are a scan.
    """
    monkeypatch.setattr(Batcher, "MIN_FOR_SCAN", 0)
    return Kernel(monkeypatch)


# What is known of one peer.


@pytest.mark.parametrize(
    ("heartbeat", "seconds"),
    [(BEAT, 1.5), (LONG, 15.0), (PASSIVE, 0.0), (LONG.withDoubledInterval, 30.0)],
)
def test_patience(heartbeat: Heartbeat, seconds: float) -> None:
    """
    Nothing is due before three quarters of the interval have passed in silence, whatever the place
    of the peer; where nobody pings, that says nothing.
    """
    assert minSilenceBeforePing(heartbeat) == seconds
    for twentieth in range(20):
        detector = FailureDetector(heartbeat, 0.0, twentieth / 20)
        if detector.decide(detector.due) is Decision.PING:
            detector.heardAt = detector.due
            detector.decide(detector.due)
        assert detector.due >= detector.heardAt + seconds


@pytest.mark.parametrize("heartbeat", [BEAT, LONG])
def test_speaksOften(heartbeat: Heartbeat) -> None:
    """
    Whoever has spoken within half of the patience may be one of those who need not be asked.
    """
    half = minSilenceBeforePing(heartbeat) / 2
    detector = FailureDetector(heartbeat, 100.0)
    assert isTalkative(detector, 100.0)
    assert isTalkative(detector, 100.0 + half - STEP)
    assert not isTalkative(detector, 100.0 + half)
    detector.heardAt = 100.0 + half
    assert isTalkative(detector, 100.0 + half)


def test_settles() -> None:
    """
    One that has spoken settles, if its patience lasts for so long, and nothing is due any more.
    """
    for heartbeat in (BEAT, LONG, PASSIVE):
        detector = FailureDetector(heartbeat, 100.0)
        first, until = detector.due, 100.0 + minSilenceBeforePing(heartbeat)
        assert not suspendChecks(detector, until + STEP)
        assert not checksSuspended(detector) and detector.due == first
        assert suspendChecks(detector, until)
        assert checksSuspended(detector) and detector.due == inf
        assert detector.deadline == 100.0 + heartbeat.bound
        resumeChecks(detector)
        assert not checksSuspended(detector) and detector.due == first


def test_doesNotSettleBeforeItsFirstPing() -> None:
    """
    One that has a place among many is pinged when it comes first, whatever it says; then it may
    settle.
    """
    detector = FailureDetector(LONG, 0.0, 0.25)
    for now in (0.0, 2.0, 4.5):
        detector.heardAt = now
        assert not suspendChecks(detector, now)
        assert detector.due == 5.0
    assert detector.decide(5.0) is Decision.PING
    assert not suspendChecks(detector, 5.0)
    detector.heardAt = 5.5
    assert suspendChecks(detector, 5.5 + 15.0)


def test_doesNotSettleUnanswered() -> None:
    """
    One that has not answered its ping does not settle; once it has, it does, and it is pinged after
    the interval again.
    """
    detector = FailureDetector(LONG, 0.0)
    assert detector.decide(20.0) is Decision.PING
    assert not suspendChecks(detector, 20.0)
    assert detector.due == 28.0
    detector.heardAt = 21.0
    assert suspendChecks(detector, 36.0)
    resumeChecks(detector)
    assert detector.due == 41.0
    assert detector.decideFast(40.9) is False
    assert detector.decideFast(41.0) is True


def test_doesNotSettleAsked() -> None:
    """
    Nor does one that was asked to speak before its time.
    """
    detector = FailureDetector(LONG, 0.0)
    assert suspendChecks(detector, 5.0)
    resumeChecks(detector)
    assert detector.probe(1.0, 16.0) is Decision.PING
    assert not suspendChecks(detector, 1.0)
    detector.heardAt = 1.0
    assert suspendChecks(detector, 16.0)


def test_doesNotSettleSuspected() -> None:
    """
    A suspected peer does not settle before it is told that it has recovered.
    """
    detector = FailureDetector(LONG, 0.0)
    detector.decide(20.0)
    assert detector.decide(28.0) is Decision.SUSPECT
    assert not suspendChecks(detector, 28.0)
    detector.heardAt = 29.0
    assert not suspendChecks(detector, 29.0)
    assert detector.decide(29.0) is Decision.RECOVERED
    assert suspendChecks(detector, 44.0)


def test_neverSettles() -> None:
    """
    Where silence proves nothing, or the verdict has fallen, nobody settles, and nothing is ever due
    however often one is told to be looked at again.
    """
    muted = FailureDetector(LONG, 0.0)
    assert suspendChecks(muted, 15.0)
    muted.peerHalfClosed()
    dead = FailureDetector(LONG, 0.0)
    for now in (20.0, 28.0, 36.0, 36.0):
        decision = dead.decide(now)
    assert decision is Decision.VERDICT
    dead.heardAt = 36.0
    for detector in (muted, dead, FailureDetector(None, 0.0)):
        assert not suspendChecks(detector, 0.0)
        assert not checksSuspended(detector)
        resumeChecks(detector)
        assert detector.due == inf
    assert not isTalkative(FailureDetector(None, 0.0), 0.0)


def test_restIsNotSettled() -> None:
    """
    Whoever rests in a round is not taken for one that has settled, though nothing is due there
    either.
    """
    detector = FailureDetector(LONG, 0.0, 0.25)
    detector.decide(5.0)
    detector.heardAt = 5.1
    assert quietSince(detector, 25.0) == 25.0
    park(detector)
    assert not checksSuspended(detector)
    resumeChecks(detector)
    assert detector.due == inf


WORDS = st.lists(st.floats(min_value=0.1, max_value=14.0), min_size=1, max_size=6)


@given(
    st.sampled_from([BEAT, LONG, PASSIVE]),
    st.none() | st.floats(min_value=0.0, max_value=1.0),
    st.floats(min_value=0.001, max_value=0.7),
    WORDS,
)
def test_unsettlesAsIfNever(
    heartbeat: Heartbeat, phase: float | None, answer: float, words: list[float]
) -> None:
    """
    After it has settled, has spoken, and is looked at by itself again, a peer is due exactly when
    it would be if it had never settled.
    """
    one, other = (FailureDetector(heartbeat, 0.0, phase) for _ in range(2))
    now = 0.0
    if phase is not None and heartbeat.interval is not None:
        now = one.due
        assert one.decide(now) is other.decide(now)
    for word in [answer, *words]:
        now += word / 15.0 * minSilenceBeforePing(heartbeat)
        one.heardAt = other.heardAt = now
        other.decide(now)
        assert checksSuspended(one) or suspendChecks(one, now + minSilenceBeforePing(heartbeat) / 3)
    resumeChecks(one)
    assert one.due == other.due
    assert one.deadline == other.deadline
    assert one.hasSpokenSincePing and not one.suspected
    due = other.due
    assert one.decide(due) is other.decide(due)
    assert (one.due, one.deadline) == (other.due, other.deadline)


# A scan alone.


class Member:
    """
    A link of which nothing but its detector is known.

    @ivar left: how often it was told to be visited by itself.
    """

    def __init__(self, heardAt: float = 0.0, heartbeat: Heartbeat = BEAT) -> None:
        self.detector = FailureDetector(heartbeat, 0.0)
        self.detector.heardAt = heardAt
        self.left = 0

    def resumed(self, last: object) -> None:
        """
        See L{BatchMember<twisted_heartbeat.batching.interfaces.BatchMember>}.
        """
        assert not checksSuspended(self.detector)
        self.left += 1


def joined(scan: TalkerScan, *members: Member) -> None:
    """
    Have them join.
    """
    for member in members:
        assert scan.add(member)
        assert checksSuspended(member.detector)


def test_goesThrough() -> None:
    """
    Every third of the patience a scan is gone through: who has spoken in the last two stays, and
    the others are told, once, and due on their own instants.
    """
    scan = TalkerScan(BEAT, 0.0)
    assert scan.due == 0.5
    quiet, rare, busy = members = [Member() for _ in range(3)]
    joined(scan, *members)
    assert scan.onTimer(0.5, 0.0) == scan.due == 1.0
    rare.detector.heardAt = busy.detector.heardAt = 0.5
    # Silent for two of them, and no longer.
    assert scan.onTimer(1.0, 0.0) == 1.5
    assert all(checksSuspended(member.detector) for member in members)
    busy.detector.heardAt = 1.5
    assert scan.onTimer(1.5, 0.0) == 2.0
    assert [member.left for member in members] == [1, 0, 0]
    assert quiet.detector.due == 2.0
    assert scan.onTimer(2.0, 0.0) == 2.5
    assert [member.left for member in members] == [1, 1, 0]
    assert rare.detector.due == 2.5
    assert checksSuspended(busy.detector)


def test_isEmpty() -> None:
    """
    A scan that has nobody, or nobody any more, is visited no more.
    """
    assert TalkerScan(BEAT, 0.0).onTimer(0.5, 0.0) is None
    scan = TalkerScan(BEAT, 0.0)
    members = [Member() for _ in range(3)]
    joined(scan, *members)
    assert scan.onTimer(1.25, 0.75) is None
    assert [member.left for member in members] == [1, 1, 1]
    scan = TalkerScan(BEAT, 0.0)
    joined(scan, members[0])
    assert scan.remove(members[0])
    assert scan.onTimer(0.5, 0.0) is None


def test_leaves() -> None:
    """
    Whoever leaves by itself is due again, and is not told; one that is not in it is left alone.
    """
    scan = TalkerScan(BEAT, 0.0)
    one, other, stranger = (Member() for _ in range(3))
    joined(scan, one, other)
    assert scan.remove(one)
    assert one.detector.due == 2.0 and one.left == 0
    assert not scan.remove(one)
    before = stranger.detector.due
    assert not scan.remove(stranger)
    assert stranger.detector.due == before
    assert checksSuspended(other.detector)
    assert scan.onTimer(0.5, 0.0) == 1.0
    joined(scan, one)
    assert scan.onTimer(1.5, 0.5) is None
    assert (one.left, other.left) == (1, 1)


def test_doesNotAdmit() -> None:
    """
    One that may be due before the scan is gone through again is not taken in.
    """
    scan = TalkerScan(BEAT, 10.0)
    late = Member(10.5 - 1.5 - STEP)
    assert not scan.add(late)
    assert not scan.remove(late)
    assert late.detector.due < inf
    joined(scan, Member(10.5 - 1.5))


def test_comesLate() -> None:
    """
    A scan that is gone through late lets go whoever may be due by the next time, and is gone
    through again a third of the patience from then on.
    """
    scan = TalkerScan(BEAT, 0.0)
    quiet, busy = Member(), Member()
    joined(scan, quiet, busy)
    busy.detector.heardAt = 99.5
    assert scan.onTimer(100.0, 99.5) == 100.5
    assert (quiet.left, busy.left) == (1, 0)
    assert quiet.detector.due == 2.0


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["join", "leave", "speak"]), st.integers(0, 11)), max_size=20
        ),
        max_size=12,
    )
)
def test_nobodyIsLost(events: list[list[tuple[str, int]]]) -> None:
    """
    In whatever order they come and go, each is in the scan once or not at all, and whoever is in
    it is told of its end, or leaves; nobody who has to be looked at is kept.
    """
    scan = TalkerScan(BEAT, 0.0)
    members = [Member() for _ in range(12)]
    there: set[int] = set()
    left = Counter[int]()
    now = 0.0
    for some in events:
        for event, number in some:
            member = members[number]
            if event == "speak":
                member.detector.heardAt = now
            elif event == "leave":
                assert scan.remove(member) is (number in there)
                there.discard(number)
            elif number not in there and scan.add(member):
                there.add(number)
        now = scan.due
        silent = {number for number in there if members[number].detector.heardAt < now - 1.0}
        there -= silent
        left.update(silent)
        again = scan.onTimer(now, 0.0)
        assert (again is None) is (not there)
        assert Counter({n: m.left for n, m in enumerate(members) if m.left}) == left
        assert {n for n, m in enumerate(members) if checksSuspended(m.detector)} == there
        # None of those who stay can be due before it is gone through again.
        assert all(members[n].detector.heardAt + 1.5 >= now + 0.5 for n in there)
        if again is None:
            scan = TalkerScan(BEAT, now)


def test_lieInOrder() -> None:
    """
    A scan that many have joined is gone through in the order in which they lie in memory, and all
    are still there, once.
    """
    members = sorted((Member() for _ in range(100)), key=lambda one: -id(one.detector))
    scan = TalkerScan(BEAT, 0.0)
    joined(scan, *members)
    scan.onTimer(0.5, 0.0)
    order = [id(one) for one in scan._members]
    assert order == sorted(id(one.detector) for one in members)
    # A few that come later are no reason to sort all again.
    few = [Member(0.5) for _ in range(10)]
    joined(scan, *few)
    scan.onTimer(1.0, 0.0)
    assert [id(one) for one in scan._members][:100] == order
    assert all(scan._members[one.detector] is one for one in [*members, *few])
    assert len(scan._members) == 110
    assert not any(one.left for one in [*members, *few])


# Links in virtual time.


@implementer(IHalfCloseableProtocol)
class HalfKept(Kept):
    """
    Goes on after the peer has closed its half.
    """

    def readConnectionLost(self) -> None:
        """
        See C{IHalfCloseableProtocol}, and so the other.
        """

    def writeConnectionLost(self) -> None:
        pass


class Moments(LinkHooks):
    """
    Notes what happens to one peer, and when.
    """

    def __init__(self, clock: Clock) -> None:
        self.noted: list[tuple[str, float]] = []
        self.link: Any = None
        self.cause: Cause | None = None
        self._clock = clock

    def note(self, name: str) -> None:
        """
        It has happened now.
        """
        self.noted.append((name, self._clock.seconds()))

    def connected(self, link: Link) -> None:
        self.link = link

    def suspected(self, link: Link) -> None:
        self.note("suspected")

    def recovered(self, link: Link) -> None:
        self.note("recovered")

    def disconnected(self, link: Link, cause: Cause) -> None:
        self.cause = cause
        self.note("disconnected")


class Peer(Scene):
    """
    One that says a word as often as it is told to.

    @ivar every: seconds; L{None} if it says nothing by itself.
    @ivar answers: whether it answers pings.
    @ivar moments: what has happened to it.
    @ivar frames: what the built-in protocol has sent to it, and when.
    @ivar written: what anything else has, without the pings.
    @ivar lastSentAt: when it has last said anything.
    """

    def __init__(
        self,
        clock: Clock,
        heartbeat: Heartbeat,
        phase: float | None,
        protocol: type[Any],
        limits: Limits | None = Limits(),
        batching: bool = True,
    ) -> None:
        self.moments = Moments(clock)
        self.plain = not issubclass(protocol, HeartbeatProtocol)
        factory = HeartbeatFactory(
            Factory.forProtocol(protocol),
            clock=clock,
            heartbeat=heartbeat,
            keepAlive=None,
            hooks=self.moments,
            limits=limits,
            ping=(lambda protocol: protocol.transport.write(b"?")) if self.plain else None,
        )
        factory._settings["batching"] = batching
        if phase is not None:
            factory._settings["phase"] = lambda: phase
        super().__init__(factory, clock)
        self.every: float | None = 0.5
        self.answers = False
        self.frames: list[tuple[float, wire.Frame]] = []
        self.written = b""
        self.lastSentAt = clock.seconds()
        self._reader = wire.FrameReader()
        if not self.plain:
            self.begin()

    @property
    def link(self) -> Any:
        """
        The link to it.
        """
        return self.moments.link

    @property
    def names(self) -> list[str]:
        """
        What has happened to it.
        """
        return [name for name, _ in self.moments.noted]

    def say(self) -> None:
        """
        It says something.
        """
        self._say(b"x" if self.plain else wire.encode(wire.Data(b"x")))

    def _say(self, data: bytes) -> None:
        if self.connection.connected and self.connection.reading:
            self.lastSentAt = self.clock.seconds()
            self.receive(data)

    def turn(self) -> None:
        """
        The reactor's turn, and then the peer's.
        """
        self.flush()
        self.closeBack()
        sent, self.socket.sent = self.socket.sent, b""
        if sent:
            self._take(sent)
        if self.every is not None and self.clock.seconds() >= self.lastSentAt + self.every:
            self.say()

    def _take(self, sent: bytes) -> None:
        pong = b""
        if self.plain:
            self.written += sent.replace(b"?", b"")
            pings = sent.count(b"?")
            pong = b"!"
        else:
            pings = 0
            for frame in self._reader.receive(sent):
                self.frames.append((self.clock.seconds(), frame))
                if isinstance(frame, wire.Ping):
                    pings += 1
                    pong = wire.encodePong(frame.token)
        for _ in range(pings):
            self.moments.note("ping")
        if pings and self.answers:
            self._say(pong)


class Watch:
    """
    Those who watch some peers, in one clock.
    """

    def __init__(
        self,
        *phases: float | None,
        scans: bool = True,
        heartbeat: Heartbeat = BEAT,
        protocol: type[Any] = Kept,
        limits: Limits | None = Limits(),
    ) -> None:
        """
        @param phases: of each of the peers.
        @param scans: whether there are any.
        """
        self.clock = Clock()
        self.heartbeat = heartbeat
        self.wheel: Any = timerWheelFor(self.clock)
        self.batcher = batcherFor(self.clock, scans)
        self.peers = [
            Peer(self.clock, heartbeat, phase, protocol, limits, scans) for phase in phases
        ]

    def wait(self, seconds: float) -> None:
        """
        Let time pass, in steps.
        """
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            for peer in self.peers:
                peer.turn()

    def forget(self) -> None:
        """
        Count anew.
        """
        for peer in self.peers:
            peer.moments.noted.clear()
            peer.frames.clear()
            peer.written = b""

    @property
    def members(self) -> list[Any]:
        """
        The links that are in a scan.
        """
        scans = self.batcher.scans.values()
        found = {
            detector: watch.link for scan in scans for detector, watch in scan._members.items()
        }
        assert all(link.peerWatch.detector is detector for detector, link in found.items())
        links = [peer.link for peer in self.peers]
        assert {one for one in links if checksSuspended(one.peerWatch.detector)} == set(
            found.values()
        )
        return list(found.values())

    def holds(self, *peers: Peer) -> bool:
        """
        Whether these are in a scan, and nobody else.
        """
        return set(self.members) == {peer.link for peer in peers}


def settled(*phases: float | None, **options: Any) -> Watch:
    """
    One whose peers are in a scan, if there can be any.
    """
    watch = Watch(*phases, **options)
    watch.wait(SETTLED)
    if options.get("scans", True):
        assert watch.holds(*watch.peers)
    watch.forget()
    return watch


def comesBack(watch: Watch, *peers: Peer) -> None:
    """
    After some beats these are in a scan, and nothing happens to anybody.
    """
    for peer in peers:
        peer.every = 0.5
    watch.wait(8 * watch.heartbeat.bound)
    watch.forget()
    watch.wait(4 * watch.heartbeat.bound)
    assert watch.holds(*peers)
    assert [peer.names for peer in watch.peers] == [[]] * len(watch.peers)


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[PeerWatch]]:
    """
    How often each link is visited by itself.
    """
    counted = Counter[PeerWatch]()
    beat = PeerWatch.onTimer

    def countedBeat(self: PeerWatch, now: float, lateness: float) -> float | None:
        counted[self] += 1
        return beat(self, now, lateness)

    monkeypatch.setattr(PeerWatch, "onTimer", countedBeat)
    yield counted
    counted.clear()


@pytest.mark.parametrize("phase", PHASES)
def test_isNotVisited(visits: Counter[Link], phase: float | None) -> None:
    """
    A peer that speaks four times in an interval is in a scan, gets no ping, and is not visited by
    itself at all.
    """
    watch = settled(phase, phase, None)
    assert len(watch.batcher.scans) == 1
    visits.clear()
    watch.wait(100.0)
    assert watch.holds(*watch.peers)
    assert [peer.names for peer in watch.peers] == [[], [], []]
    assert not visits


def test_speaksRarely() -> None:
    """
    A peer that speaks once in three quarters of the interval is in no scan, and gets no ping
    either.
    """
    watch = Watch(None, 0.5)
    for peer in watch.peers:
        peer.every = 1.4
    watch.wait(SETTLED)
    watch.forget()
    for _ in range(100):
        watch.wait(0.25)
        for peer in watch.peers:
            assert peer.link.peerWatch.detector.deadline >= watch.clock.seconds() + 0.5
    assert [peer.names for peer in watch.peers] == [[], []]


@pytest.mark.parametrize("timeout", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("phase", PHASES)
def test_silence(phase: float | None, timeout: float) -> None:
    """
    A peer that falls silent is pinged, suspected and found dead on its instants, as if there were
    no scans, and the others notice nothing (promise 3).
    """
    seen = []
    for scans in (True, False):
        heartbeat = Heartbeat(interval=2.0, timeout=timeout)
        watch = settled(phase, phase, None, scans=scans, heartbeat=heartbeat)
        first, peer, last = watch.peers
        peer.every = None
        lastSentAt = peer.lastSentAt
        watch.wait(heartbeat.bound + 1.0)
        seen.append(peer.moments.noted)
        assert first.names == last.names == []
        assert isinstance(peer.moments.cause, PeerSilent)
        if scans:
            assert watch.holds(first, last)
        if phase is None:
            instants = {name: when - lastSentAt for name, when in reversed(peer.moments.noted)}
            assert abs(instants["ping"] - 2.0) <= CLOSE
            assert abs(instants["suspected"] - 2.0 - timeout / 2) <= CLOSE
        else:
            assert 1.5 < peer.moments.noted[0][1] - lastSentAt <= 2.0 + CLOSE
        assert 0 <= peer.moments.noted[-1][1] - lastSentAt - heartbeat.bound <= CLOSE
    together, single = seen
    names = ["ping", "suspected", "ping", "disconnected"]
    assert sorted(name for name, _ in together) == sorted(names)
    assert [name for name, _ in together] == [name for name, _ in single]
    for (_, when), (_, then) in zip(together, single, strict=True):
        assert abs(when - then) <= CLOSE


@pytest.mark.parametrize("phase", PHASES)
def test_shortBound(phase: float | None) -> None:
    """
    The shortest bound is kept in a scan, too, and whoever speaks often enough is never pinged.
    """
    heartbeat = Heartbeat.within(0.2)
    watch = Watch(phase, phase, heartbeat=heartbeat)
    silent, busy = watch.peers
    silent.every = busy.every = 0.03125
    watch.wait(1.0)
    assert watch.holds(silent, busy)
    watch.forget()
    watch.wait(1.0)
    silent.every = None
    watch.wait(0.5)
    assert busy.names == []
    assert silent.names[-1] == "disconnected"
    assert 0.2 <= silent.moments.noted[-1][1] - silent.lastSentAt <= 0.2 + CLOSE


@pytest.mark.parametrize("phase", PHASES)
def test_recovers(phase: float | None) -> None:
    """
    One that speaks again after it was suspected has recovered, and is in a scan again later.
    """
    watch = settled(phase, phase)
    peer = watch.peers[0]
    peer.every = None
    while "suspected" not in peer.names:
        watch.wait(STEP)
    assert watch.holds(watch.peers[1])
    peer.say()
    assert peer.names[-1] == "recovered"
    comesBack(watch, *watch.peers)


@pytest.mark.parametrize("phase", PHASES)
def test_onlyAnswers(phase: float | None) -> None:
    """
    One that falls silent, but answers, is pinged from then on, and never suspected.
    """
    watch = settled(phase)
    [peer] = watch.peers
    peer.every = None
    peer.answers = True
    watch.wait(20.0)
    assert set(peer.names) == {"ping"}
    assert 9 <= len(peer.names) <= 12
    comesBack(watch, peer)


def test_passive() -> None:
    """
    A peer that nothing can ask, but that has to speak, is suspected and found dead on its instants.
    """
    seen = []
    for scans in (True, False):
        watch = Watch(None, scans=scans, heartbeat=Heartbeat(interval=None, timeout=4.0))
        watch.wait(10.0)
        [peer] = watch.peers
        assert peer.names == []
        peer.every = None
        watch.wait(5.0)
        seen.append(peer.moments.noted)
        assert peer.names == ["suspected", "disconnected"]
        assert 4.0 <= peer.moments.noted[-1][1] - peer.lastSentAt <= 4.0 + CLOSE
    for (_, when), (_, then) in zip(*seen, strict=True):
        assert abs(when - then) <= CLOSE


@pytest.mark.parametrize("count", [1, 30, 40])
def test_fewAreNoScan(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """
    There is a scan only where it saves anything: a few links are looked at by themselves, an
    interval after what was then their last word.  Whoever is left of many is a scan still.
    """
    monkeypatch.setattr(Batcher, "MIN_FOR_SCAN", 32)
    watch = Watch(*[None] * count)
    watch.wait(SETTLED)
    if count < 32:
        assert watch.members == []
        looks: list[float] = []
        tick = watch.wheel._tick
        watch.wheel._tick = lambda: (looks.append(watch.clock.seconds()), tick())
        watch.wheel._call.func = watch.wheel._tick
        watch.wait(10 * 2.0)
        # Its last word was half a second old at each.
        assert len(looks) <= 20.0 / 1.5 + 1
        return
    assert watch.holds(*watch.peers)
    for peer in watch.peers[1:]:
        peer.connection.connectionLost(Failure(ConnectionLost()))
    watch.wait(SETTLED)
    assert watch.holds(watch.peers[0])


def test_watchedAlike() -> None:
    """
    Only those who are watched by the same heartbeat are gone through together, and when the last of
    one scan has gone, another serves whoever comes next.
    """
    watch = settled(None, None)
    other = Peer(watch.clock, Heartbeat(interval=4.0, timeout=2.0), None, Kept)
    watch.peers.append(other)
    watch.wait(2 * SETTLED)
    assert watch.holds(*watch.peers)
    assert sorted(len(scan._members) for scan in watch.batcher.scans.values()) == [1, 2]
    for peer in watch.peers[:2]:
        peer.connection.connectionLost(Failure(ConnectionLost()))
    watch.wait(1.0)
    assert watch.holds(other)
    one = Peer(watch.clock, BEAT, None, Kept)
    watch.peers[:2] = [one]
    watch.wait(SETTLED)
    assert watch.holds(one, other)
    assert len(watch.batcher.scans) == 2
    one.every = None
    watch.wait(5.0)
    assert 4.0 <= one.moments.noted[-1][1] - one.lastSentAt <= 4.0 + CLOSE


# What takes a link out.


@pytest.mark.parametrize("phase", PHASES)
def test_writes(phase: float | None) -> None:
    """
    A link that is written to by way of its transport's buffer is watched by itself, and comes back.
    """
    watch = settled(phase, phase)
    peer = watch.peers[0]
    peer.link.send(b"data")
    assert watch.holds(watch.peers[1])
    assert peer.link.peerWatch.slot is not None
    watch.wait(STEP)
    assert peer.written == b"data"
    comesBack(watch, *watch.peers)


@pytest.mark.parametrize("limits", [Limits(), None])
@pytest.mark.parametrize("phase", PHASES)
def test_writesToTheSilent(phase: float | None, limits: Limits | None) -> None:
    """
    Whether something was written to it or not, and whether what is sent is looked at or not, one
    that falls silent in a scan is found dead on its instant.
    """
    watch = settled(phase, limits=limits)
    [peer] = watch.peers
    peer.every = None
    watch.wait(0.75)
    peer.link.send(b"data")
    watch.wait(4.0)
    assert peer.names[-1] == "disconnected"
    assert 4.0 <= peer.moments.noted[-1][1] - peer.lastSentAt <= 4.0 + CLOSE


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("phase", PHASES)
def test_asks(phase: float | None, lives: bool) -> None:
    """
    A peer in a scan that is asked whether it lives is pinged at once, and has to answer within the
    timeout.
    """
    watch = settled(phase, phase)
    peer = watch.peers[0]
    peer.every = None
    peer.answers = lives
    before = watch.clock.seconds()
    answers: list[bool] = []
    peer.link.probe().addCallback(answers.append)
    assert watch.holds(watch.peers[1])
    watch.wait(STEP)
    assert peer.names == ["ping"]
    watch.wait(BEAT.timeout + CLOSE)
    assert answers == [lives]
    if lives:
        assert "suspected" not in peer.names
        comesBack(watch, *watch.peers)
    else:
        assert peer.names[-1] == "disconnected"
        assert peer.moments.noted[-1][1] <= before + BEAT.timeout + CLOSE
        comesBack(watch, watch.peers[1])


def test_asksAgain() -> None:
    """
    Whoever is asked so soon again that nobody need ask it is watched by itself from then on, and
    found dead on its instant.
    """
    watch = settled(None)
    [peer] = watch.peers
    answers: list[bool] = []
    peer.link.probe().addCallback(answers.append)
    watch.wait(1.25)
    assert watch.holds(peer)
    peer.link.probe().addCallback(answers.append)
    assert answers == [True, True]
    assert watch.members == []
    peer.every = None
    watch.wait(BEAT.bound)
    assert peer.names[-1] == "disconnected"
    assert 4.0 <= peer.moments.noted[-1][1] - peer.lastSentAt <= 4.0 + CLOSE


def test_closes() -> None:
    """
    A link that is closed while it is in a scan is C{ClosedHere}, and nobody keeps it there.
    """
    watch = settled(None, None)
    peer = watch.peers[0]
    gone = peer.link.close()
    assert watch.holds(watch.peers[1])
    watch.wait(STEP)
    assert gone.called
    assert type(peer.moments.cause) is ClosedHere
    comesBack(watch, watch.peers[1])


def test_closesStuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One whose peer takes nothing any more is aborted at the limit for that, though it was in a
    scan.
    """
    watch = settled(None)
    [peer] = watch.peers
    monkeypatch.setattr(peer, "flush", lambda: None)
    peer.connection.doWrite = lambda: None
    peer.link.close(within=1.0)
    watch.wait(1.0 + CLOSE)
    assert peer.names == ["disconnected"]
    assert watch.members == []


def test_closesPastTheLink() -> None:
    """
    So is one whose transport is closed past it.
    """
    watch = settled(None)
    [peer] = watch.peers
    peer.connection.loseConnection()
    assert watch.members == []
    watch.wait(BEAT.bound)
    assert type(peer.moments.cause) is ClosedHere


@pytest.mark.parametrize("pastTheLink", [True, False])
def test_aborts(pastTheLink: bool) -> None:
    """
    A link that is aborted while it is in a scan ends at once, and is in none.
    """
    watch = settled(None, None)
    peer = watch.peers[0]
    if pastTheLink:
        peer.connection.abortConnection()
    else:
        peer.link.abort(ClosedHere("for a reason"))
    watch.wait(STEP)
    assert peer.names == ["disconnected"]
    comesBack(watch, watch.peers[1])


def test_halfClose() -> None:
    """
    The silence of a peer that has closed its half proves nothing, though it was in a scan.
    """
    watch = settled(None, 0.1, protocol=HalfKept)
    peer = watch.peers[1]
    peer.connection.readConnectionLost(Failure(ConnectionDone()))
    assert watch.holds(watch.peers[0])
    peer.every = None
    watch.wait(10 * BEAT.bound)
    assert peer.names == []
    assert peer.link.state == "alive"
    assert watch.holds(watch.peers[0])
    peer.connection.connectionLost(Failure(ConnectionLost()))
    assert peer.names == ["disconnected"]


def test_lost() -> None:
    """
    Of connections that are lost while they are in a scan nobody is left there, and nothing is due
    any more.
    """
    watch = settled(None, 0.1, 0.75)
    for number, peer in enumerate(watch.peers, 1):
        peer.connection.connectionLost(Failure(ConnectionLost()))
        assert watch.holds(*watch.peers[number:])
        assert peer.link.peerWatch.slot is None
    assert all(not scan._members for scan in watch.batcher.scans.values())
    assert watch.clock.getDelayedCalls() == []
    assert [peer.names for peer in watch.peers] == [["disconnected"]] * 3


def test_trusts() -> None:
    """
    A link that is watched by its peer's own word from here on is in the scan of the others no
    more, and its bound is that word.
    """
    watch = settled(None, None)
    peer = watch.peers[0]
    peer.link.peerWatch.reconfigure(Heartbeat.forPassivePeer(8.0), trusted=True)
    assert watch.holds(watch.peers[1])
    watch.wait(20.0)
    assert peer.names == []
    assert watch.holds(watch.peers[1])
    peer.every = None
    watch.wait(8.5)
    assert peer.names == ["suspected", "disconnected"]
    assert 8.0 <= peer.moments.noted[-1][1] - peer.lastSentAt <= 8.0 + CLOSE


def test_trustIsTakenBack() -> None:
    """
    Nor is one whose peer has taken its word back, and its silence proves nothing.
    """
    watch = settled(None, None)
    peer = watch.peers[0]
    peer.link.peerWatch.reconfigure(None, trusted=False)
    peer.every = None
    assert watch.holds(watch.peers[1])
    watch.wait(20.0)
    assert peer.names == []
    assert watch.holds(watch.peers[1])


def test_startsTLS() -> None:
    """
    Once its connection has become TLS, nothing is sent to a peer in the clear, and it is found dead
    on its instant.
    """
    watch = settled(None, None)
    peer = watch.peers[0]
    peer.connection._tlsClientDefault = False
    peer.connection.startTLS(serverOptions(), normal=True)
    peer.every = None
    lastSentAt = peer.lastSentAt
    watch.wait(4.25)
    assert peer.names == ["suspected", "disconnected"]
    assert peer.written == b""
    assert 4.0 <= peer.moments.noted[-1][1] - lastSentAt <= 4.0 + CLOSE
    assert watch.holds(watch.peers[1])


def test_pauses() -> None:
    """
    What a peer does not say while it is not read is no silence, though it was in a scan.
    """
    watch = settled(None, 0.1)
    peer = watch.peers[0]
    peer.connection.pauseProducing()
    watch.wait(5 * BEAT.bound)
    assert watch.holds(watch.peers[1])
    assert "disconnected" not in peer.names
    peer.connection.resumeProducing()
    comesBack(watch, *watch.peers)


# This end's own word.


class Silent(HeartbeatProtocol):
    """
    Gives its word, as every one does, and says nothing else.
    """


@pytest.mark.parametrize("every", [0.5, 0.9375])
@pytest.mark.parametrize("phase", PHASES)
def test_keepsItsWord(visits: Counter[Link], phase: float | None, every: float) -> None:
    """
    A link that has given its word to speak by itself keeps it while it is in a scan, stays there,
    and is visited for that alone.
    """
    watch = settled(phase, phase, protocol=Silent)
    peer = watch.peers[0]
    assert peer.link.session.localHello.promisedWithin == 3.0
    peer.every = every
    visits.clear()
    for _ in range(240):
        watch.wait(0.25)
        assert watch.holds(*watch.peers)
    assert "ping" not in peer.names
    assert {type(frame) for _, frame in peer.frames} == {wire.Pong}
    instants = [when for when, _ in peer.frames]
    assert 19 <= len(instants) <= 21
    assert all(abs(later - when - 3.0) <= CLOSE for when, later in pairwise(instants))
    assert visits[peer.link.peerWatch] == len(instants)


@pytest.mark.parametrize("phase", PHASES)
def test_silenceOfOneThatHasOurWord(phase: float | None) -> None:
    """
    One that falls silent is pinged, suspected and found dead on its instants, though its link was
    to be visited only for its own word.
    """
    seen = []
    for scans in (True, False):
        watch = settled(phase, phase, scans=scans, protocol=Silent)
        peer = watch.peers[0]
        peer.every = None
        watch.wait(5.0)
        seen.append(peer.moments.noted)
        assert 4.0 <= peer.moments.noted[-1][1] - peer.lastSentAt <= 4.0 + CLOSE
        assert watch.peers[1].names == []
    together, single = seen
    assert [name for name, _ in together] == [name for name, _ in single]
    for (_, when), (_, then) in zip(together, single, strict=True):
        assert abs(when - then) <= CLOSE


def test_saysGoodbye() -> None:
    """
    A link of the built-in protocol that is closed in a scan says goodbye.
    """
    watch = settled(None, None, protocol=Silent)
    peer = watch.peers[0]
    peer.link.close()
    assert watch.holds(watch.peers[1])
    watch.wait(STEP)
    assert [type(frame) for _, frame in peer.frames] == [wire.Goodbye]
    assert peer.names == ["disconnected"]


def test_wordBehindBulk(kernel: Kernel) -> None:
    """
    A word that the kernel can not take leaves all the same, as soon as it can, and the link comes
    back.
    """
    watch = settled(None, protocol=Silent)
    [peer] = watch.peers
    peer.socket.answers = [0]
    while not peer.frames:
        assert watch.clock.seconds() < SETTLED + 4.0
        watch.wait(STEP)
    assert watch.members == []
    comesBack(watch, peer)


# This process was away.


@pytest.mark.parametrize("seconds", [0.75, 1.25, 2.5, 3.75, 4.25, 14.5, 20.25, 1000.25])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("protocol", [Kept, Silent])
def test_stall(protocol: type[Any], phase: float | None, seconds: float) -> None:
    """
    Where this process was away while words waited in the sockets, nobody is suspected or declared
    dead for that, and all are in a scan again (promise 4).
    """
    watch = settled(phase, phase, None, protocol=protocol)
    for _ in range(3):
        watch.clock.advance(seconds)
        for peer in watch.peers:
            peer.say()
        watch.wait(2.25)
    for peer in watch.peers:
        assert set(peer.names) <= {"ping"}
    comesBack(watch, *watch.peers)


@pytest.mark.parametrize("seconds", [1.25, 3.75, 20.25])
@pytest.mark.parametrize("phase", PHASES)
def test_stallBeforeSilence(phase: float | None, seconds: float) -> None:
    """
    One that has fallen silent while this process was away is found dead all the same: its bound
    begins anew once, and no more.
    """
    watch = settled(phase, None)
    silent, busy = watch.peers
    silent.every = None
    lastSentAt = silent.lastSentAt
    watch.clock.advance(seconds)
    busy.say()
    back = watch.clock.seconds()
    watch.wait(2 * BEAT.bound)
    assert silent.names[-1] == "disconnected"
    assert lastSentAt + BEAT.bound <= silent.moments.noted[-1][1] <= back + BEAT.bound + CLOSE
    assert "suspected" not in busy.names and "disconnected" not in busy.names
