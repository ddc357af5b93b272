# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.detector}: exact instants, then peers of every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_heartbeat.core.detector import Decision, FailureDetector
from twisted_heartbeat.core.quiet import hasPhase, park, quietSince, resume
from twisted_heartbeat.core.settings import Heartbeat

NOTHING, PING, SUSPECT, PING_AGAIN, RECOVERED, LOOK, VERDICT = Decision

HEARTBEAT = Heartbeat(interval=20.0, timeout=16.0)
"""Its instants, counted from the last byte: ping 20, suspicion 28, verdict 36."""


def looks(
    detector: FailureDetector, until: float, step: Callable[[float], None] = lambda now: None
) -> list[tuple[float, Decision]]:
    """
    Look whenever something is due, on the exact instant, and note all that comes of it.
    """
    found = []
    while detector.due <= until and detector.due < inf:
        now = detector.due
        step(now)
        decision = detector.decide(now)
        if decision is not NOTHING:
            found.append((now, decision))
    return found


# Exact instants.


def test_silentPeer() -> None:
    """
    The peer is pinged after the interval, suspected at half of the timeout, looked at once more
    and declared dead on the bound, and each of these once.
    """
    detector = FailureDetector(HEARTBEAT, 100.0)
    assert looks(detector, inf) == [
        (120.0, PING),
        (128.0, SUSPECT),
        (136.0, LOOK),
        (136.0, VERDICT),
    ]


@pytest.mark.parametrize("bound", [0.2, 0.21, 1.0, 8.0, 35.0, 1e6])
def test_boundIsHonoured(bound: float) -> None:
    """
    Bounds from 0.2 s up are honoured with no rounding.
    """
    detector = FailureDetector(Heartbeat.within(bound), 0.0)
    found = looks(detector, inf)
    assert [decision for _, decision in found] == [PING, SUSPECT, LOOK, VERDICT]
    assert found[0][0] == pytest.approx(bound * 4 / 7)
    assert found[1][0] == pytest.approx(bound * 11 / 14)
    assert found[-1][0] == pytest.approx(bound, rel=1e-12)


def test_nothingIsDecidedEarly() -> None:
    """
    A look before something is due changes nothing, however often it comes.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    for tenths in range(200):
        assert detector.decide(tenths / 10) is NOTHING
    assert looks(detector, inf)[0] == (20.0, PING)
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert detector.decide(20.0) is PING
    assert [detector.decide(20.0 + tenths / 10) for tenths in range(80)] == [NOTHING] * 80
    assert detector.decide(28.0) is SUSPECT
    assert [detector.decide(28.0 + tenths / 10) for tenths in range(80)] == [NOTHING] * 80
    assert detector.decide(36.0) is LOOK


def test_noPingWhileTrafficIsFresh() -> None:
    """
    A peer that speaks at least once in an interval is never pinged.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)

    def speaks(now: float) -> None:
        detector.heardAt = now - 0.1

    assert looks(detector, 1000.0, speaks) == []


@pytest.mark.parametrize(
    ("heardAt", "told"),
    [(20.5, []), (27.9, []), (28.1, [RECOVERED]), (35.9, [RECOVERED])],
)
def test_anyByteResets(heardAt: float, told: list[Decision]) -> None:
    """
    Any received byte proves life, and everything begins anew from the instant it came.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, heardAt)
    detector.heardAt = heardAt
    found = looks(detector, inf)
    assert [decision for _, decision in found if decision is RECOVERED] == told
    assert found[-4:] == [
        (pytest.approx(heardAt + 20.0), PING),
        (pytest.approx(heardAt + 28.0), SUSPECT),
        (pytest.approx(heardAt + 36.0), LOOK),
        (pytest.approx(heardAt + 36.0), VERDICT),
    ]


def test_byteFoundByTheLastLook() -> None:
    """
    Whatever the socket held at the deadline is life: no link dies before it was polled once more.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert looks(detector, 35.99)[-1] == (28.0, SUSPECT)
    assert detector.decide(36.0) is LOOK
    detector.heardAt = 36.0
    assert detector.decide(36.0) is RECOVERED
    assert detector.due == 56.0


def test_recoveryIsToldAtAnyLook() -> None:
    """
    A suspected peer that speaks is told as recovered at the next look, due or not, and once.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 30.0)
    assert detector.suspected
    detector.heardAt = 30.0
    assert detector.decide(30.0) is RECOVERED
    assert not detector.suspected
    assert looks(detector, 50.0) == [(50.0, PING)]


def test_suspected() -> None:
    """
    A peer is suspected from half of the timeout to the verdict.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    seen = []
    for now in (20.0, 28.0, 36.0):
        detector.decide(now)
        seen.append((now, detector.suspected))
    assert seen == [(20.0, False), (28.0, True), (36.0, True)]


def test_deadline() -> None:
    """
    The deadline is always told: the bound after the last byte.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert detector.deadline == 36.0
    looks(detector, 28.0)
    assert detector.deadline == 36.0
    detector.heardAt = 29.0
    assert detector.deadline == 65.0
    assert detector.hasSpokenSincePing


@given(
    st.sampled_from([None, 0.0, 0.3, 0.9]),
    st.lists(st.floats(min_value=0.1, max_value=30.0), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_glancesAsItDecides(phase: float | None, steps: list[float], words: list[bool]) -> None:
    """
    What C{decideFast} says of a peer is what C{decide} would have said, and when to look again,
    too.
    """
    one, other = (FailureDetector(HEARTBEAT, 0.0, phase) for _ in range(2))
    now = 0.0
    for step, spoke in zip(steps, words, strict=False):
        now += step
        if spoke:
            one.heardAt = other.heardAt = now - step / 2
        pings = one.decideFast(now)
        plain = other.hasSpokenSincePing and not other.suspected
        decision = other.decide(now)
        assert pings is ((decision is PING) if plain else None)
        if pings is None:
            assert one.decide(now) is decision
        assert (one.due, one.deadline) == pytest.approx((other.due, other.deadline))
        if decision is VERDICT:
            break


def test_noGlanceWithoutAHeartbeat() -> None:
    """
    Where silence proves nothing, once the peer is dead, and to one who comes late, a decideFast
    says nothing.
    """
    assert FailureDetector(None, 0.0).decideFast(1.0) is None
    dead = FailureDetector(HEARTBEAT, 0.0)
    looks(dead, inf)
    dead.heardAt = 40.0
    assert dead.decideFast(41.0) is None
    late = FailureDetector(HEARTBEAT, 0.0)
    assert late.decideFast(21.0, 1.0) is None
    assert late.decide(21.0, 1.0) is PING


def oneAmongMany() -> FailureDetector:
    """
    ParkedConnection at 10 s, its place, and at rest 20 s later.
    """
    detector = FailureDetector(HEARTBEAT, 0.0, 0.5)
    assert detector.decide(10.0) is PING
    detector.heardAt = 10.1
    assert quietSince(detector, 30.0) == 30.0
    park(detector)
    return detector


def test_rests() -> None:
    """
    One rests when it is due again, one among many at its place, and it has only answered: not where
    it was not asked, has not answered, has spoken since, or is suspected.
    """
    assert oneAmongMany().due == inf
    alone = FailureDetector(HEARTBEAT, 0.0)
    assert quietSince(alone, 20.0) is None
    alone.decide(20.0)
    alone.heardAt = 20.5
    assert quietSince(alone, 40.4) is None
    assert quietSince(alone, 40.51) == 40.5
    assert quietSince(alone, 40.6) is None
    park(alone)
    assert alone.due == inf and not hasPhase(alone)
    other = FailureDetector(HEARTBEAT, 0.0, 0.5)
    assert quietSince(other, 10.0) is None
    other.decide(10.0)
    assert quietSince(other, 30.0) is None
    other.heardAt = 20.0
    assert quietSince(other, 30.0) is None
    other.heardAt = 10.1
    assert quietSince(other, 30.0) == quietSince(other, 30.01) == 30.0
    assert quietSince(other, 29.99) is None
    other.suspected = True
    assert quietSince(other, 30.0) is None


@pytest.mark.parametrize("late", [0.0, 4.0])
def test_resumes(late: float) -> None:
    """
    One that was at rest, and does not answer, is as one that was asked then: it has its whole
    timeout, and the bound, too.
    """
    detector = oneAmongMany()
    detector.heardAt = 190.1
    resume(detector, 210.0, 210.0 + late, answered=False)
    deadline = max(190.1 + HEARTBEAT.bound, 210.0 + late + HEARTBEAT.timeout)
    assert detector.deadline == pytest.approx(deadline)
    assert detector.decide(detector.deadline - HEARTBEAT.timeout / 2) is SUSPECT
    assert detector.decide(detector.deadline) is LOOK
    assert detector.decide(detector.deadline) is VERDICT


def test_resumesAfterAnAnswer() -> None:
    """
    One that was at rest, and has answered, is pinged when its place comes again.
    """
    detector = oneAmongMany()
    detector.heardAt = 210.1
    resume(detector, 210.0, 210.0, answered=True)
    assert detector.hasSpokenSincePing and detector.due == 230.0
    assert detector.decide(229.9) is NOTHING
    assert detector.decide(230.0) is PING


@pytest.mark.parametrize("answered", [False, True])
def test_resumesAlone(answered: bool) -> None:
    """
    One without a place that was at rest is pinged when the interval is over, as it was before.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    detector.decide(20.0)
    detector.heardAt = 20.5
    park(detector)
    detector.heardAt = 43.0 if answered else 20.5
    resume(detector, 40.0, 40.5, answered=answered)
    assert not hasPhase(detector)
    assert detector.deadline == detector.heardAt + HEARTBEAT.bound
    if answered:
        assert detector.due == 63.0
        assert detector.decide(62.9) is NOTHING
        assert detector.decide(63.0) is PING
    else:
        assert detector.decide(detector.deadline - HEARTBEAT.timeout / 2) is SUSPECT
        assert detector.decide(detector.deadline) is LOOK


def test_deadIsDead() -> None:
    """
    After the verdict nothing is due, and nothing more is decided.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, inf)
    assert detector.due == inf
    detector.heardAt = 37.0
    assert [detector.decide(now) for now in (37.0, 60.0, 1e9)] == [NOTHING] * 3


# Silence that proves nothing, or that needs no ping.


def test_withoutAHeartbeat() -> None:
    """
    Without a heartbeat nothing is ever due.
    """
    detector = FailureDetector(None, 0.0)
    assert (detector.due, detector.deadline) == (inf, inf)
    assert detector.decide(1e9) is NOTHING
    assert not detector.suspected


def test_passive() -> None:
    """
    A peer that speaks by itself is never pinged, and the timeout alone is the bound.
    """
    detector = FailureDetector(Heartbeat(interval=None, timeout=30.0), 0.0)
    assert detector.deadline == 30.0
    assert looks(detector, inf) == [(15.0, SUSPECT), (30.0, LOOK), (30.0, VERDICT)]


def test_passiveByteResets() -> None:
    """
    Each byte of such a peer moves the verdict.
    """
    detector = FailureDetector(Heartbeat(interval=None, timeout=30.0), 0.0)
    looks(detector, 20.0)
    detector.heardAt = 20.0
    assert looks(detector, inf)[1:] == [(35.0, SUSPECT), (50.0, LOOK), (50.0, VERDICT)]


@pytest.mark.parametrize("heartbeat", [HEARTBEAT, Heartbeat(interval=None, timeout=36.0)])
@pytest.mark.parametrize("mutedAt", [5.0, 21.0, 30.0])
def test_muted(heartbeat: Heartbeat, mutedAt: float) -> None:
    """
    A peer that has closed its half is not dead for its silence from there on.
    """
    detector = FailureDetector(heartbeat, 0.0)
    looks(detector, mutedAt)
    detector.peerHalfClosed()
    assert (detector.due, detector.deadline, detector.suspected) == (inf, inf, False)
    assert detector.decide(1000.0) is NOTHING


def test_longTimeout() -> None:
    """
    A timeout of many intervals does not keep the next ping waiting: a peer that answers is pinged
    once an interval.
    """
    detector = FailureDetector(Heartbeat(interval=1.0, timeout=10.0), 0.0)
    pinged = []
    for _ in range(4):
        [(now, decision)] = looks(detector, detector.due)
        assert decision is PING
        pinged.append(now)
        detector.heardAt = now + 0.25
        while detector.due <= now + 1.0:
            assert detector.decide(detector.due) is NOTHING
    assert pinged == [1.0, 2.25, 3.5, 4.75]


# One among many.


def test_firstPingComesInItsPlace() -> None:
    """
    A peer that is one of many is pinged first at its place in the interval, whatever it has said
    since it came, and after that once an interval at the same place; the bound stays what it is.
    """
    detector = FailureDetector(HEARTBEAT, 100.0, phase=0.25)
    detector.heardAt = 101.0
    pinged = []
    for _ in range(5):
        [(now, decision)] = looks(detector, detector.due)
        assert decision is PING
        pinged.append(now)
        detector.heardAt = now + 0.5
        assert detector.decide(now + 0.5) is NOTHING
    assert pinged == [105.0, 125.0, 145.0, 165.0, 185.0]
    assert looks(detector, inf) == [
        (205.0, PING),
        (pytest.approx(213.5), SUSPECT),
        (pytest.approx(221.5), LOOK),
        (pytest.approx(221.5), VERDICT),
    ]


@given(
    phase=st.floats(min_value=0, max_value=1, exclude_max=True),
    words=st.lists(st.floats(min_value=0.01, max_value=60.0), max_size=20),
)
def test_placesKeepThePromises(phase: float, words: list[float]) -> None:
    """
    Wherever a peer's place is: but for the first, no ping comes before 0.75 of the interval is
    silent, nor after the whole of it; and the verdict falls on the bound (promises 2 and 3).
    """
    detector = FailureDetector(HEARTBEAT, 0.0, phase)
    now, first = 0.0, True
    for pause in words:
        heardAt = now
        for at, decision in looks(detector, now + min(pause, 35.9)):
            if decision is PING:
                assert at - heardAt <= 20.0 + 1e-9
                assert first or at - heardAt > 15.0 - 1e-9
                first = False
            assert decision is not VERDICT
        now += min(pause, 35.9)
        detector.heardAt = now
        detector.decide(now)
    found = {decision: at for at, decision in looks(detector, inf)}
    assert found[VERDICT] == pytest.approx(now + 36.0)
    assert found[PING] <= now + 20.0 + 1e-9


def spreadOf(detectors: list[FailureDetector], since: float, width: float) -> list[int]:
    """
    How many of their next pings fall into each tenth of so many seconds.
    """
    tenths = [0] * 10
    for detector in detectors:
        now, decision = looks(detector, detector.due)[0]
        assert decision is PING
        detector.heardAt = now + 0.01
        detector.decide(now + 0.01)
        tenths[min(9, int((now - since) / width * 10))] += 1
    return tenths


def test_massReconnect() -> None:
    """
    A thousand peers that come in one instant, and say hello, are pinged all over the interval, the
    first time and ever after.
    """
    draw = Random(5).random
    detectors = [FailureDetector(HEARTBEAT, 0.0, draw()) for _ in range(1000)]
    for detector in detectors:
        detector.heardAt = 0.1
    for turn in range(3):
        tenths = spreadOf(detectors, turn * 20.0, 20.0)
        assert min(tenths) > 60 and max(tenths) < 140


def test_massAnswer() -> None:
    """
    A thousand peers that speak in one instant, as after a broadcast, are not pinged in one instant
    an interval later, but all over the last quarter of it.
    """
    draw = Random(5).random
    detectors = [FailureDetector(HEARTBEAT, 0.0, draw()) for _ in range(1000)]
    spreadOf(detectors, 0.0, 20.0)
    for detector in detectors:
        detector.heardAt = 25.0
        detector.decide(25.0)
    tenths = spreadOf(detectors, 40.0, 5.0)
    assert min(tenths) > 60 and max(tenths) < 140


def test_passiveHasNoPlace() -> None:
    """
    A peer that is never pinged has no use for a place.
    """
    detector = FailureDetector(Heartbeat(interval=None, timeout=30.0), 0.0, phase=0.5)
    assert looks(detector, inf) == [(15.0, SUSPECT), (30.0, LOOK), (30.0, VERDICT)]


# Asked before its time.


@pytest.mark.parametrize("phase", [None, 0.5])
def test_asked(phase: float | None) -> None:
    """
    A peer that is asked now has so long from here, and is suspected, looked at and dead as
    after any ping.
    """
    detector = FailureDetector(HEARTBEAT, 0.0, phase)
    assert detector.probe(2.0, 16.0) is PING
    assert detector.probe(2.0, 16.0) is NOTHING
    assert detector.deadline == 18.0
    assert looks(detector, inf) == [(10.0, SUSPECT), (18.0, LOOK), (18.0, VERDICT)]


@pytest.mark.parametrize("heardAt", [0.0, 2.0, 9.0, 17.9])
def test_askedAndAnswers(heardAt: float) -> None:
    """
    Any word of it, even in the instant of its last one, and all is as if it had not been asked.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    detector.probe(2.0, 16.0)
    looks(detector, max(2.0, heardAt))
    detector.heardAt = heardAt
    assert detector.hasSpokenSincePing
    assert detector.deadline == heardAt + 36.0


def test_askedNeverPostpones() -> None:
    """
    Where the peer has been asked already, or is to speak by itself, its verdict comes no later for
    being asked.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 21.0)
    assert detector.probe(25.0, 16.0) is NOTHING
    assert detector.deadline == 36.0
    passive = FailureDetector(Heartbeat(interval=None, timeout=30.0), 0.0)
    passive.probe(10.0, 30.0)
    assert passive.deadline == pytest.approx(30.0)
    assert FailureDetector(None, 0.0).probe(1.0, 16.0) is NOTHING


@pytest.mark.parametrize(
    ("lookedAt", "askedAt", "within", "told"),
    [
        (20.0, 21.0, 8.0, [(21.0, SUSPECT), (29.0, LOOK), (29.0, VERDICT)]),
        (28.0, 29.0, 4.0, [(33.0, LOOK), (33.0, VERDICT)]),
        (28.0, 29.0, 30.0, [(36.0, LOOK), (36.0, VERDICT)]),
        (35.0, 35.5, 8.0, [(36.0, LOOK), (36.0, VERDICT)]),
    ],
    ids=["pinged", "suspected", "later than the bound", "at the bound"],
)
def test_askedWhileAPingIsUnanswered(
    lookedAt: float, askedAt: float, within: float, told: list[tuple[float, Decision]]
) -> None:
    """
    A peer that has not answered a ping is not pinged again, and its verdict falls C{within} seconds
    from then on, or sooner.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, lookedAt)
    assert detector.probe(askedAt, within) is NOTHING
    assert looks(detector, inf) == told


def test_hastenedAndAnswers() -> None:
    """
    A word of a peer whose deadline was brought forward sets its whole bound again.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 20.0)
    detector.probe(21.0, 2.0)
    detector.heardAt = 22.5
    assert detector.deadline == 22.5 + 36.0
    assert VERDICT not in [decision for _, decision in looks(detector, 50.0)]


def test_hastenedIsExcused() -> None:
    """
    Our own pause is not the silence of a peer whose deadline was brought forward (promise 7).
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 20.0)
    detector.probe(21.0, 8.0)
    assert detector.decide(25.0, 0.0, 25.0) is NOTHING
    assert detector.deadline == 25.0 + 16.0


def test_askedWhileAway() -> None:
    """
    A process that was away over the deadline asks again, as after any ping (promise 7).
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    detector.probe(2.0, 16.0)
    assert detector.decide(80.0, 62.0) is PING_AGAIN
    assert looks(detector, inf) == [(88.0, SUSPECT), (96.0, LOOK), (96.0, VERDICT)]


# This process's own stalls.


def test_stallBeforeThePing() -> None:
    """
    A process that slept through the whole bound asks first: the peer gets its whole timeout.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert detector.decide(80.0, 60.0) is PING
    assert looks(detector, inf) == [(88.0, SUSPECT), (96.0, LOOK), (96.0, VERDICT)]


def test_stallOverTheDeadline() -> None:
    """
    A process that slept over the deadline asks again, and finds a dead peer within one more bound.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 20.0)
    assert detector.decide(88.0, 60.0) is PING_AGAIN
    assert looks(detector, inf) == [(96.0, SUSPECT), (104.0, LOOK), (104.0, VERDICT)]


def test_stallOverTheDeadlineOfASuspectedPeer() -> None:
    """
    So it does with a suspected peer, of which it says no second time that it is suspected.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 28.0)
    assert detector.decide(88.0, 59.0) is PING_AGAIN
    assert looks(detector, inf) == [(104.0, LOOK), (104.0, VERDICT)]


def test_stallAfterStall() -> None:
    """
    A process that was away for longer than the bound once more has not listened: it asks once more.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 20.0)
    assert detector.decide(88.0, 60.0) is PING_AGAIN
    assert detector.decide(188.0, 92.0) is PING_AGAIN
    assert looks(detector, inf)[-1] == (204.0, VERDICT)


def test_liveAfterAStallOverTheDeadline() -> None:
    """
    A peer that answers after such a stall is told as recovered, if it had been suspected.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 28.0)
    told = [detector.decide(88.0, 59.0)]
    detector.heardAt = 88.1
    told += [decision for _, decision in looks(detector, 100.0)]
    assert told.count(RECOVERED) == 1
    assert VERDICT not in told


def test_stallWhileSuspected() -> None:
    """
    What came during a stall is read before anything is decided on it.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 28.0)
    detector.heardAt = 90.0
    assert detector.decide(90.0, 61.0) is RECOVERED
    assert detector.due == 110.0


@pytest.mark.parametrize("lateness", [0.001, 0.015, 0.025])
@pytest.mark.parametrize("bound", [0.2, 1.0, 35.0])
def test_littleLatenessDoesNotMoveTheBound(lateness: float, bound: float) -> None:
    """
    A timer that is late by a little is no stall: the verdict still comes within 50 ms.
    """
    detector = FailureDetector(Heartbeat.within(bound), 0.0)
    verdict = lateVerdict(detector, lateness)
    assert bound <= verdict <= bound + 0.05


@pytest.mark.parametrize(
    ("bound", "lateness"),
    [
        (bound, lateness)
        for bound in (0.2, 1.0, 8.0, 35.0)
        for lateness in (0.01, 0.026, 0.04, 0.2, 0.9, 7.0, 30.0)
        if lateness < max(bound, 1.0)
    ],
)
def test_processThatIsAlwaysLate(bound: float, lateness: float) -> None:
    """
    A process that is slow at each look finds a dead peer all the same: within one more bound, and
    the lateness of the looks that it takes.
    """
    detector = FailureDetector(Heartbeat.within(bound), 0.0)
    assert bound <= lateVerdict(detector, lateness) <= 2 * bound + 6 * lateness


def lateVerdict(detector: FailureDetector, lateness: float) -> float:
    """
    When the verdict falls on a silent peer if each look is late by so much.
    """
    now = 0.0
    for _ in range(1000):
        now = max(now, detector.due) + lateness
        if detector.decide(now, lateness) is VERDICT:
            return now
    return inf


def test_peerAskedLateHasItsWholeTimeout() -> None:
    """
    A ping that leaves late is no silence of the peer's: its timeout runs from there.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert detector.decide(21.9, 1.9) is PING
    assert detector.deadline >= 21.9 + 16.0 - 0.025


def test_lateLookAtTheDeadlineDecidesNothing() -> None:
    """
    After the last look it does not matter how late the next one is: the socket has been read.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 35.0)
    assert detector.decide(36.0) is LOOK
    assert detector.decide(99.0, 63.0) is VERDICT


# Silence that is ours: a ping that waits behind bulk data, reading that is paused.


def test_excused() -> None:
    """
    The timeout runs from the last instant at which the silence was ours, not the peer's.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    assert detector.decide(20.0) is PING
    assert detector.decide(28.0, 0.0, 25.0) is NOTHING
    assert (detector.deadline, detector.due) == (41.0, 33.0)
    assert detector.decide(33.0, 0.0, 25.0) is SUSPECT
    assert detector.decide(41.0, 0.0, 25.0) is LOOK
    assert detector.decide(41.0, 0.0, 25.0) is VERDICT


def test_excusedForAsLongAsItLasts() -> None:
    """
    While reading is paused nobody is dead; one timeout after it is resumed, a silent peer is.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    now = 0.0
    while now < 500.0:
        now = max(now, detector.due)
        assert detector.decide(now, 0.0, now) in (NOTHING, PING)
    verdict = [detector.decide(detector.due, 0.0, 500.0) for _ in range(40)]
    assert verdict.count(VERDICT) == 1
    assert detector.deadline <= 520.0 + 16.0


def test_passiveExcused() -> None:
    """
    A peer that speaks by itself is not suspected while reading is paused, and has its whole timeout
    from there.
    """
    detector = FailureDetector(Heartbeat(interval=None, timeout=30.0), 0.0)
    assert detector.decide(15.0, 0.0, 15.0) is NOTHING
    assert detector.decide(30.0, 0.0, 20.0) is NOTHING
    assert (detector.deadline, detector.due) == (50.0, 35.0)
    assert not detector.suspected
    assert detector.decide(35.0, 0.0, 20.0) is SUSPECT


def test_excuseOfASuspectedPeer() -> None:
    """
    A suspicion that turns out to be our own doing is taken back.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 28.0)
    assert detector.decide(29.0, 0.0, 29.0) is RECOVERED
    assert not detector.suspected
    assert detector.deadline == 45.0


def test_excuseAtTheLastLook() -> None:
    """
    Even at the last look the excuse counts.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    looks(detector, 35.0)
    assert detector.decide(36.0) is LOOK
    assert detector.decide(36.0, 0.0, 36.0) is RECOVERED
    assert detector.deadline == 52.0


def test_oldExcuseExcusesNothing() -> None:
    """
    What was ours before the ping is no excuse for the silence after it.
    """
    detector = FailureDetector(HEARTBEAT, 0.0)
    found = []
    while (now := detector.due) < inf:
        found.append((now, detector.decide(now, 0.0, 19.0)))
    assert [one for one in found if one[1] is not NOTHING] == [
        (20.0, PING),
        (28.0, SUSPECT),
        (36.0, LOOK),
        (36.0, VERDICT),
    ]


# Peers of every kind, on a process of every kind.

PRECISION = 0.025
"""Seconds: no two instants of a busy process are told apart more finely than this."""


@dataclass
class World:
    """
    A peer, and a process that watches it: one look per visit, as the wheel makes them.

    The process stalls as it is told: whatever falls into a stall happens at its end, the pings
    that it had just sent too, for they leave with its next turn.

    @ivar stalls: when it is away, from and until.
    @ivar delays: how long the peer takes for each ping, the last for all further ones; it does
        not answer a ping for which this is infinite.
    @ivar late: how late its timers are, in turn.
    """

    heartbeat: Heartbeat
    stalls: list[tuple[float, float]]
    delays: list[float]
    late: list[float]
    pings: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    verdict: float = inf

    def run(self, until: float) -> None:
        detector = FailureDetector(self.heartbeat, 0.0)
        now, turn = 0.0, 0
        while now < until and self.verdict == inf:
            due = max(now, detector.due)
            heard = min(self.answers, default=inf)
            read = self._awake(max(now, heard))
            # What came is read first, whenever both fall together: a reactor polls, then calls.
            if read <= self._awake(due + self._late(turn)):
                self.answers.remove(heard)
                now = detector.heardAt = read
                continue
            now = self._awake(due + self._late(turn))
            turn += 1
            decision = detector.decide(now, max(0.0, now - detector.due), self._excuse(now))
            if decision in (PING, SUSPECT, PING_AGAIN):
                self._ping(now)
            elif decision is VERDICT:
                self.verdict = now

    def _late(self, turn: int) -> float:
        return self.late[turn % len(self.late)]

    def _awake(self, instant: float) -> float:
        for start, end in self.stalls:
            if start <= instant < end:
                return end
        return instant

    def _ping(self, now: float) -> None:
        leaves = self._awake(now + 1e-6)
        self.pings.append(leaves)
        delay = self.delays[min(len(self.pings), len(self.delays)) - 1]
        if delay < inf:
            self.answers.append(leaves + delay)

    def _excuse(self, now: float) -> float | None:
        """
        As the link sees it: the last ping, if it waited in the process's own buffer.
        """
        return None if not self.pings or self.pings[-1] > now else self._left(self.pings[-1])

    def _left(self, ping: float) -> float | None:
        return ping if any(end == ping for _, end in self.stalls) else None


BOUNDS = st.one_of(st.just(0.2), st.floats(min_value=0.2, max_value=40.0))


@st.composite
def stalls(draw: st.DrawFn, bound: float) -> list[tuple[float, float]]:
    """
    Some instants at which a process goes away, for up to two bounds, one after the other.
    """
    found, now = [], 0.0
    for _ in range(draw(st.integers(0, 5))):
        start = now + draw(st.floats(0.0, 1.5)) * bound
        now = start + draw(st.one_of(st.floats(0.0, 0.2), st.floats(0.2, 2.0))) * bound
        found.append((start, now))
        now += 1e-3
    return found


@st.composite
def livingWorlds(draw: st.DrawFn) -> World:
    """
    A peer that answers each ping within less than the timeout.
    """
    heartbeat = Heartbeat.within(draw(BOUNDS))
    slowest = heartbeat.timeout - PRECISION - 1e-3
    delays = draw(st.lists(st.floats(0.0, slowest), min_size=1, max_size=8))
    late = draw(st.lists(st.floats(0.0, 0.016), min_size=1, max_size=8))
    return World(heartbeat, draw(stalls(heartbeat.bound)), delays, late)


@given(livingWorlds())
@settings(max_examples=200)
def test_livePeerIsNeverDeclaredDead(world: World) -> None:
    """
    A peer that answers each ping within less than the timeout is never declared dead, whatever
    this process does meanwhile.
    """
    world.run(12 * world.heartbeat.bound)
    assert world.verdict == inf
    assert len(world.pings) >= 1


@st.composite
def dyingWorlds(draw: st.DrawFn) -> World:
    """
    A peer that answers some pings, and then none.
    """
    heartbeat = Heartbeat.within(draw(BOUNDS))
    slowest = heartbeat.timeout - PRECISION - 1e-3
    delays = draw(st.lists(st.floats(0.0, slowest), max_size=3))
    late = draw(st.lists(st.floats(0.0, 0.016), min_size=1, max_size=8))
    return World(heartbeat, [], [*delays, inf], late)


@given(dyingWorlds())
@settings(max_examples=150)
def test_deadPeerIsFoundWithinTheBound(world: World) -> None:
    """
    A peer that answers no more is declared dead no earlier than 0.95 of the bound after its last
    byte, and no later than the bound and 50 ms.
    """
    bound = world.heartbeat.bound
    heard: list[float] = [0.0]
    world.answers = Noted(heard)
    world.run(12 * bound + 1.0)
    assert 0.95 * bound <= world.verdict - heard[-1] <= bound + 0.05


class Noted(list[float]):
    """
    Answers on their way; each is noted when it is read.
    """

    def __init__(self, heard: list[float]) -> None:
        super().__init__()
        self._heard = heard

    def remove(self, value: float) -> None:
        super().remove(value)
        self._heard.append(value)


@given(st.data())
@settings(max_examples=150)
def test_deadPeerIsFoundByAStalledProcess(data: st.DataObject) -> None:
    """
    A process that was away finds a dead peer within one more bound of the one it was away in, and
    never before 0.95 of the bound has passed.
    """
    heartbeat = Heartbeat.within(data.draw(BOUNDS))
    bound = heartbeat.bound
    away = data.draw(stalls(bound))
    world = World(heartbeat, away, [inf], [0.0])
    world.run(100 * bound)
    assert 0.95 * bound <= world.verdict
    last = max((end for _, end in away), default=0.0)
    assert world.verdict <= max(last, bound) + bound + 0.05


@given(st.floats(0.2, 40.0), st.lists(st.floats(0.0, 0.99), min_size=1, max_size=30))
@settings(max_examples=100)
def test_passivePeerThatSpeaks(timeout: float, gaps: list[float]) -> None:
    """
    A peer that speaks by itself within each timeout is never declared dead, and is afterwards.
    """
    detector = FailureDetector(Heartbeat(interval=None, timeout=timeout), 0.0)
    now = 0.0
    for gap in gaps:
        now += gap * timeout
        assert VERDICT not in [decision for _, decision in looks(detector, now)]
        detector.heardAt = now
    assert looks(detector, inf)[-1] == (pytest.approx(now + timeout), VERDICT)
