# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{NameQueue} alone: its links are fakes, which end and answer when the test says so.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_heartbeat.server.names import NameQueue
from twisted_heartbeat.timing.wheel import timerWheelFor


class FakeLink:
    """
    What a queue needs of a link.

    @ivar probes: what L{probe} has returned.
    @ivar released: how often the link was to end because another waits.
    """

    certificate = None
    isUp = True
    released = 0

    def __init__(self, generation: int, name: str, clock: Clock) -> None:
        self.generation = generation
        self.name = name
        self.wheel = timerWheelFor(clock)
        self.probes: list[Deferred[bool]] = []

    def probe(self) -> Deferred[bool]:
        """
        Return a probe that the test answers.
        """
        self.probes.append(Deferred())
        return self.probes[-1]

    def release(self) -> None:
        """
        Count it.
        """
        self.released += 1


class FakeClaimant:
    """
    A newcomer, which is granted its name or told that it is in use.

    @ivar outcome: C{"waits"}, C{"granted"}, C{"in use"} or C{"left"}.
    """

    def __init__(self, queue: NameQueue, link: FakeLink) -> None:
        self.queue = queue
        self.link: Any = link
        self.outcome = "waits"
        queue.claim(self)

    @property
    def awaitsName(self) -> bool:
        """
        Whether nothing has been decided.
        """
        return self.outcome == "waits" and self.link.isUp

    def nameGranted(self) -> None:
        """
        Become the holder.
        """
        self.outcome = "granted"

    def nameInUse(self, holder: Any) -> None:
        """
        Leave, as an admission does.
        """
        self.outcome = "in use"
        self.queue.leave(self.link)

    def end(self) -> None:
        """
        The link ends.
        """
        self.link.isUp = False
        if self.outcome == "waits":
            self.outcome = "left"
        self.queue.leave(self.link)


class QueueHarness:
    """
    A queue, and the newcomers that claim names of it.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue = NameQueue()
        self.came: list[FakeClaimant] = []

    def comes(self, name: str = "pump") -> FakeClaimant:
        """
        A newcomer claims a name.
        """
        link = FakeLink(len(self.came) + 1, name, self.clock)
        self.came.append(FakeClaimant(self.queue, link))
        return self.came[-1]

    @property
    def outcomes(self) -> list[str]:
        """
        The outcome of each newcomer.
        """
        return [claimant.outcome for claimant in self.came]

    def turn(self) -> None:
        """
        The reactor's next turn.
        """
        self.clock.advance(0)

    def isEmpty(self) -> bool:
        """
        Whether the queue keeps nothing.
        """
        queue = self.queue
        return not (queue._last or queue._ahead or queue._behind)


def test_freeNameIsGrantedAtOnce() -> None:
    """
    The first link that claims a name has it within the call, each name for itself; a link without a
    name has a conflict with none.
    """
    harness = QueueHarness()
    for name in ("pump", "valve", "", ""):
        harness.comes(name)
    assert harness.outcomes == ["granted"] * 4
    assert harness.queue.holder("pump") is harness.came[0].link
    assert harness.queue.holder("unknown") is None
    for claimant in harness.came:
        claimant.end()
    assert harness.isEmpty()


@pytest.mark.parametrize("isAlive", [True, False])
def test_holderIsProbed(isAlive: bool) -> None:
    """
    A newcomer is told that its name is in use if the holder answers; otherwise it waits until the
    holder has left the queue.
    """
    harness = QueueHarness()
    holder, newcomer = harness.comes(), harness.comes()
    [probe] = holder.link.probes
    assert newcomer.outcome == "waits"
    probe.callback(isAlive)
    assert newcomer.outcome == ("in use" if isAlive else "waits")
    holder.end()
    harness.turn()
    assert newcomer.outcome == ("in use" if isAlive else "granted")
    newcomer.end()
    assert harness.isEmpty()


def test_closingHolderIsReleased() -> None:
    """
    A holder that has begun to close is not probed again, but released; the name is granted when it
    has left the queue, and not before.
    """
    harness = QueueHarness()
    holder, newcomer = harness.comes(), harness.comes()
    holder.link.isUp = False
    harness.queue.linkClosing(holder.link)
    assert holder.link.released == 0
    harness.turn()
    assert (holder.link.released, len(holder.link.probes)) == (1, 1)
    assert newcomer.outcome == "waits"
    harness.queue.leave(holder.link)
    harness.turn()
    assert newcomer.outcome == "granted"


def test_lateAnswerIsIgnored() -> None:
    """
    The answer of a link that is no longer ahead refuses no newcomer: its queue has moved since.
    """
    harness = QueueHarness()
    first, second, third = (harness.comes() for _ in range(3))
    [late] = second.link.probes
    second.end()
    assert harness.queue.next(first.link) is third.link
    late.callback(True)
    harness.turn()
    assert third.outcome == "waits"
    assert len(first.link.probes) == 2


def test_leavingRunsNoOthersCode() -> None:
    """
    A thousand newcomers whose links end one by one, each because of the one ahead, need no deep
    stack: what follows from a leave comes in a later call.
    """
    harness = QueueHarness()
    for _ in range(1000):
        harness.comes()
    for claimant in harness.came[:-1]:
        claimant.end()
    assert harness.came[-1].outcome == "waits"
    harness.turn()
    assert harness.came[-1].outcome == "granted"
    harness.came[-1].end()
    assert harness.isEmpty()


@given(st.lists(st.tuples(st.sampled_from(["come", "end", "answer", "turn"]), st.integers(0, 99))))
def test_oneHolderInAnyOrderOfEvents(events: list[tuple[str, int]]) -> None:
    """
    In any order of arrivals, ends and answers: at most one link that is up has been granted the
    name; the newcomers that wait are queued in the order in which they came; and when all links
    ahead have ended, the last one has the name.
    """
    harness = QueueHarness()
    for event, number in events:
        up = [claimant for claimant in harness.came if claimant.link.isUp]
        if event == "come":
            harness.comes()
        elif event == "turn":
            harness.turn()
        elif event == "end" and up:
            up[number % len(up)].end()
        elif event == "answer":
            probes = [probe for one in up for probe in one.link.probes if not probe.called]
            if probes:
                probes[number % len(probes)].callback(True)
        here = [
            one for one in harness.came if one.link.isUp and one.outcome in ("granted", "waits")
        ]
        assert [one.outcome for one in here].count("granted") <= 1
        queued, link = [], harness.queue.holder("pump")
        while link is not None:
            queued.append(link)
            link = harness.queue.next(link)
        assert queued == [one.link for one in here]
    for claimant in harness.came[:-1]:
        if claimant.link.isUp:
            claimant.end()
    for _ in harness.came:
        harness.turn()
    if harness.came and harness.came[-1].link.isUp and harness.came[-1].outcome != "in use":
        assert harness.came[-1].outcome == "granted"
        harness.came[-1].end()
    assert harness.isEmpty()
