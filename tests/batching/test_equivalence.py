# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A batched link behaves as it would individually, and batching can be switched off.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twisted_heartbeat.batching.batcher import SWITCH, Batcher, NullBatcher, batcherFor
from twisted_heartbeat.core.quiet import minSilenceBeforePing

from ..support.countingsockets import Kernel
from ..support.fleet import PROTOCOLS, SLOT, Conditions, Fleet

CLOSE = 4 * SLOT
"""Seconds by which two instants may differ."""


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    A kernel that has no errors, and talker scans for any number of links.
    """
    monkeypatch.setattr(Batcher, "MIN_FOR_SCAN", 0)
    return Kernel(monkeypatch)


CONDITIONS = st.builds(
    Conditions,
    pinger=st.sampled_from(sorted(PROTOCOLS)),
    phase=st.sampled_from([None, 0.1, 0.4, 0.75, 0.95]),
    accepted=st.booleans(),
    epoll=st.booleans(),
    timeout=st.sampled_from([1.0, 2.0, 6.0]),
)

EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.tuples(st.just("talk"), st.integers(1, 16)),
    st.tuples(
        st.sampled_from(["answer", "say", "answer and say", "write", "ping", "reply"]), st.just(0)
    ),
    st.tuples(st.sampled_from(["pause", "resume", "probe", "close", "FIN"]), st.just(0)),
)
"""What happens, and how many sixteenths of a second it takes."""


UNUSUAL = {"pause", "resume", "probe", "close", "FIN"}
"""What makes a verdict come earlier, later or never."""


def isPingedEarlier(conditions: Conditions) -> bool:
    """
    Whether a round pings a link before its own interval is over: without a phase, it is pinged at
    the last of the common places before that.
    """
    return conditions.phase is None and conditions.accepted and conditions.epoll


def settle(fleets: list[Fleet]) -> None:
    """
    Let time pass until nothing is due in any fleet.
    """
    while any(fleet.isDecisive() for fleet in fleets):
        for fleet in fleets:
            fleet.wait(1 / 16)


def happen(fleets: list[Fleet], event: str, sixteenths: int) -> None:
    """
    Have an event happen to both fleets at a time at which nothing is due in either.
    """
    if event == "wait":
        for fleet in fleets:
            fleet.wait(sixteenths / 16)
        return
    for _ in range(12 if event == "talk" else 1):
        settle(fleets)
        for fleet in fleets:
            fleet.first.happen("say" if event == "talk" else event)
            fleet.wait(sixteenths / 16)


def assertAlike(batched: Fleet, individual: Fleet) -> None:
    """
    Check that the hooks were told the same at the same times, and that the links agree.
    """
    assert batched.hooks.names == individual.hooks.names
    for (_, one), (_, other) in zip(batched.hooks.moments, individual.hooks.moments, strict=True):
        assert abs(one - other) <= CLOSE
    for member, alone in zip(batched.peers, individual.peers, strict=True):
        assert member.own.heard == alone.own.heard
        assert member.link.state == alone.link.state
        assert type(member.link.cause) is type(alone.link.cause)
        if member.link.state != "gone":
            its, other = member.link.peerWatch.detector, alone.link.peerWatch.detector
            if not isPingedEarlier(batched.conditions) or member is batched.first:
                assert abs(its.heardAt - other.heardAt) <= CLOSE
                assert abs(its.deadline - other.deadline) <= CLOSE


def assertPingedAlike(batched: Fleet, individual: Fleet) -> None:
    """
    Check that the peers were pinged at the same times.
    """
    for member, alone in zip(batched.peers, individual.peers, strict=True):
        assert len(member.pingedAt) == len(alone.pingedAt)
        for one, other in zip(member.pingedAt, alone.pingedAt, strict=True):
            assert abs(one - other) <= CLOSE


PAUSED_TALKER = [("talk", 2), ("talk", 2), ("talk", 16), ("wait", 3), ("say", 0), ("pause", 0)]


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, st.lists(EVENTS, max_size=20))
@example(Conditions("built in", 0.75, False, False, timeout=1.0), PAUSED_TALKER)
def test_batchedEqualsIndividual(conditions: Conditions, events: list[tuple[str, int]]) -> None:
    """
    Whatever a peer says, a user does and whenever: the peers of batched links are suspected, told
    as recovered and found dead, for the same cause, when they would be individually; their
    protocols hear the same, and they have the same deadlines.

    The pings come at the same times, too, with two exceptions.  After an answer that took more than
    a quarter of the interval, an individual link is pinged at another quarter, and a round of the
    built-in protocol keeps to its place.  Without a phase, a round pings a little earlier; an
    answer to that ping would come earlier as well, so that there the first peer never answers.

    No ping comes while the last word is fresh, and a silent peer is found dead within the bound.
    """
    batched, individual = fleets = [Fleet(conditions), Fleet(conditions.individual())]
    assert not any(peer.isParked or peer.isScanned for peer in individual.peers)
    for fleet in fleets:
        # From here on the events have it answer.
        fleet.first.answers = False
    earlier = isPingedEarlier(conditions)
    if earlier:
        # A last word at the same time on both sides.
        happen(fleets, "say", 0)
    heartbeat = batched.first.link.heartbeat
    isUsual = not UNUSUAL.intersection(event for event, _ in events)
    for event, sixteenths in [*events, ("wait", int(32 * heartbeat.bound))]:
        if earlier and event.startswith("answer"):
            continue
        heardAt, pings = batched.first.link.peerWatch.detector.heardAt, len(batched.first.pingedAt)
        happen(fleets, event, sixteenths)
        # While reading is paused, each visit moves the deadline by a part of the timeout.
        settle(fleets)
        assertAlike(batched, individual)
        if event == "wait" and isUsual:
            # The ping of a probe is sent early, and once more soon after it.
            silences = [when - heardAt for when in batched.first.pingedAt[pings:]]
            assert all(silence > minSilenceBeforePing(heartbeat) for silence in silences)
        if not earlier and conditions.pinger != "built in":
            assertPingedAlike(batched, individual)
    assert not any(peer.isParked or peer.isScanned for peer in individual.peers)
    if isUsual:
        died = [when for name, when in batched.hooks.moments if name == "disconnected"]
        [silence] = [when - batched.first.link.peerWatch.detector.heardAt for when in died]
        assert heartbeat.bound <= silence <= heartbeat.bound + CLOSE


TALK = [("talk", 6), ("talk", 6)]


@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("phase", [None, 0.75])
@pytest.mark.parametrize("pinger", PROTOCOLS)
def test_batchedSideIsBatched(
    pinger: str, phase: float | None, accepted: bool, epoll: bool
) -> None:
    """
    The property above compares something: peers that only answer are in a ping round where the
    reactor uses epoll, unless this side has made the connection and there is no phase; and peers
    that speak often are in a talker scan.
    """
    fleet = Fleet(Conditions(pinger, phase, accepted, epoll, timeout=2.0))
    isParked = epoll and (accepted or phase is not None)
    assert [peer.isParked for peer in fleet.peers] == [isParked] * 2
    for event, sixteenths in TALK:
        happen([fleet], event, sixteenths)
    assert fleet.first.isScanned
    assert fleet.peers[1].isParked is isParked


@pytest.mark.parametrize("pinger", PROTOCOLS)
def test_silentPeerIsFoundDead(pinger: str) -> None:
    """
    The verdict of a batched link comes within the bound, and none of its pings before three
    quarters of the interval have passed in silence.
    """
    for epoll, events in itertools.product([True, False], [[], TALK]):
        fleet = Fleet(Conditions(pinger, 0.4, True, epoll, timeout=2.0))
        fleet.first.answers = False
        for event, sixteenths in events:
            happen([fleet], event, sixteenths)
        pings = len(fleet.first.pingedAt)
        lastSaidAt = fleet.first.link.peerWatch.detector.heardAt
        heartbeat = fleet.first.link.heartbeat
        fleet.wait(2 * heartbeat.bound)
        assert fleet.hooks.names == ["suspected", "disconnected"]
        [_, (_, diedAt)] = fleet.hooks.moments
        assert heartbeat.bound <= diedAt - lastSaidAt <= heartbeat.bound + CLOSE
        pingedAt = fleet.first.pingedAt[pings]
        assert pingedAt - lastSaidAt > minSilenceBeforePing(heartbeat)


# Switching it off.


@pytest.mark.parametrize(
    ("value", "kind"),
    [("off", NullBatcher), (" OFF ", NullBatcher), ("on", Batcher), ("", Batcher)],
)
def test_environmentSwitchesBatchingOff(
    monkeypatch: pytest.MonkeyPatch, value: str, kind: type[Batcher]
) -> None:
    """
    An operator who suspects batching switches it off without a change of code.
    """
    monkeypatch.setenv(SWITCH, value)
    clock = Clock()
    assert type(batcherFor(clock)) is kind
    assert batcherFor(clock) is batcherFor(clock)


@pytest.mark.parametrize("value", ["on", "off"])
def test_parameterComesBeforeTheEnvironment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """
    A test that asks for batching, or for none, has it in any environment.
    """
    monkeypatch.setenv(SWITCH, value)
    clock = Clock()
    assert type(batcherFor(clock, True)) is Batcher
    assert type(batcherFor(clock, False)) is NullBatcher


def test_clientLinkNeverEntersTheBatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A link that this side has opened, in a process with few timers, is not even offered.
    """
    monkeypatch.setattr(Batcher, "MIN_FOR_SCAN", 32)
    for name in ("offer", "interrupt", "withdraw"):

        def fail(*arguments: Any, name: str = name) -> None:
            raise AssertionError(f"{name} was called")

        monkeypatch.setattr(Batcher, name, fail)
    fleet = Fleet(Conditions("mixed in", None, False, True, timeout=2.0))
    for event, sixteenths in [*TALK, ("write", 1), ("reply", 1), ("probe", 4), ("close", 4)]:
        happen([fleet], event, sixteenths)
    assert fleet.first.link.state == "gone"


def test_withdrawIsIdempotent() -> None:
    """
    To withdraw or interrupt a link that is in no batch changes nothing.
    """
    fleet = Fleet(Conditions("wrapped", 0.75, True, True, timeout=2.0))
    link, batcher = fleet.first.link, batcherFor(fleet.clock)
    member = link.peerWatch
    assert fleet.first.isParked
    batcher.withdraw(member)
    assert not fleet.first.isParked
    due = link.peerWatch.detector.due
    batcher.withdraw(member)
    batcher.interrupt(member)
    assert link.peerWatch.detector.due == due and link.state == "alive"


def test_interruptLeavesTheTalkerScan() -> None:
    """
    A direct write of this side's own does not end a talker scan, and ends a ping round.
    """
    fleet = Fleet(Conditions("built in", 0.75, True, True, timeout=2.0))
    for event, sixteenths in TALK:
        happen([fleet], event, sixteenths)
    talker, quiet = fleet.peers
    assert talker.isScanned and quiet.isParked
    for peer in fleet.peers:
        peer.happen("ping")
    assert talker.isScanned and not quiet.isParked
    happen([fleet], "write", 0)
    assert not talker.isScanned
