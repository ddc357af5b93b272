# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Thousands of random networks in virtual time: loss of 0 to 40 %, bursts, reordering, duplication and
jitter, between a sender and the pure core of a monitor.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import sqrt

import pytest

from twisted_heartbeat.core.datagram.registry import Effect
from twisted_heartbeat.core.datagram.schedule import Schedule, falseVerdicts, sendsWithin
from twisted_heartbeat.core.datagram.session import Look

from ...support.datagrams import Sensor, Watch

PERIOD = 1.0
BOUND = 6.0


@dataclass
class Channel:
    """
    A network: what becomes of a datagram.

    @ivar loss: the probability that it is lost.
    @ivar burst: the mean number of datagrams that a burst of losses takes; 1 for single losses.
    @ivar jitter: the most that it is delayed; beyond a period it overtakes or is overtaken.
    @ivar duplication: the probability that it comes twice.
    """

    draw: random.Random
    loss: float
    burst: float = 1.0
    jitter: float = 0.1
    duplication: float = 0.0
    inBurst: bool = False

    def arrivals(self, sent: float) -> Iterator[float]:
        """
        When it arrives, each time.
        """
        if self.burst > 1:
            # Gilbert's model: a burst ends with 1 / burst, and begins so often that the rate of
            # loss comes out.
            end = 1 / self.burst
            begin = end * self.loss / (1 - self.loss)
            self.inBurst = self.draw.random() < (1 - end if self.inBurst else begin)
            lost = self.inBurst
        else:
            lost = self.draw.random() < self.loss
        if not lost:
            for _ in range(2 if self.draw.random() < self.duplication else 1):
                yield sent + self.draw.uniform(0.0, self.jitter)


@dataclass
class Run:
    """
    What came of a run.

    @ivar heard: heartbeats that were accepted.
    @ivar verdicts: how long after the last accepted one each fell.
    @ivar falseVerdicts: those of them while the sender lived.
    """

    heard: int = 0
    falseVerdicts: int = 0
    verdicts: tuple[float, ...] = ()


def perform(channel: Channel, heartbeats: int, period: float = PERIOD) -> Run:
    """
    Send so many heartbeats, then die.
    """
    draw, watch, pump, run = channel.draw, Watch(), Sensor(bound=BOUND), Run()
    schedule = Schedule(period, 0.0, draw.random)
    order = count()
    events: list[tuple[float, int, bytes]] = []
    offset = draw.uniform(0.0, 2**22)
    at = schedule.following(0.0)
    lastHeard = None
    end = 0.0
    for _ in range(heartbeats):
        pump.interval = schedule.latest + period - at
        data = pump.heartbeat(at + offset)
        for arrival in channel.arrivals(at):
            heapq.heappush(events, (arrival, next(order), data))
        end = at
        at = schedule.following(at)
        while events and (events[0][0] <= at):
            lastHeard = _deliver(watch, pump, channel, events, order, run, lastHeard, offset)
    while events:
        lastHeard = _deliver(watch, pump, channel, events, order, run, lastHeard, offset)
    _verdicts(watch, run, end + 100 * BOUND, lastHeard, end)
    return run


def _deliver(watch, pump, channel, events, order, run, lastHeard, offset):  # type: ignore[no-untyped-def]
    at, _, data = heapq.heappop(events)
    _verdicts(watch, run, at, lastHeard, at)
    meaning = watch.receive(data, at)
    if meaning.effect is not Effect.NOTHING:
        run.heard += 1
        return at
    if meaning.reply:
        for there in channel.arrivals(at):
            answer = pump.answer(meaning.reply, there + offset)
            for back in channel.arrivals(there):
                heapq.heappush(events, (back, next(order), answer))
    return lastHeard


def _verdicts(watch: Watch, run: Run, until: float, lastHeard: float | None, alive: float) -> None:
    for at, _, look in watch.pass_(until):
        if look is Look.VERDICT:
            assert lastHeard is not None
            run.verdicts += (at - lastHeard,)
            run.falseVerdicts += at <= alive


@pytest.mark.parametrize("block", range(10))
def test_verdictFallsOnTheBound(block: int) -> None:
    """
    Promise 22: whatever the network does, a verdict falls at the bound after the last accepted
    heartbeat, neither before nor later; and a sender that dies gets one.
    """
    for seed in range(block * 150, block * 150 + 150):
        draw = random.Random(seed)
        channel = Channel(
            draw,
            loss=draw.choice([0.0, 0.01, 0.1, 0.2, 0.4]),
            burst=draw.choice([1.0, 1.0, 3.0]),
            jitter=draw.choice([0.0, 0.1, 0.7, 3.0]),
            duplication=draw.choice([0.0, 0.3]),
        )
        run = perform(channel, 40)
        assert all(after == pytest.approx(BOUND, abs=1e-6) for after in run.verdicts)
        assert run.verdicts or not run.heard


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_falseVerdictsAreBounded(loss: float) -> None:
    """
    Promise 22: with n heartbeats in a bound and a rate of loss p, at most p^n of the accepted
    heartbeats are followed by a false verdict.  (Within three standard deviations of chance.)
    """
    sends = sendsWithin(BOUND, PERIOD)
    assert sends == 5
    runs = [perform(Channel(random.Random(seed), loss), 500) for seed in range(24)]
    heard = sum(run.heard for run in runs)
    found = sum(run.falseVerdicts for run in runs)
    allowed = heard * falseVerdicts(loss, sends)
    assert found <= allowed + 3 * sqrt(allowed)
    assert heard > 24 * 500 * (1 - loss) * 0.9


def test_theNetworkIsMeasured() -> None:
    """
    Loss, duplication and reordering can be read for each peer.
    """
    watch, pump = Watch(), Sensor()
    peer = watch.meet(pump, 0.0)
    draw = random.Random(1)
    for second in range(1, 1000):
        data = pump.heartbeat(float(second))
        fate = draw.random()
        if fate < 0.2:
            continue
        watch.receive(data, second + 0.05)
        if fate < 0.3:
            watch.receive(data, second + 0.06)
    assert peer.lost == pytest.approx(200, abs=40)
    assert peer.loss == pytest.approx(0.2, abs=0.12)
    assert peer.duplicates == pytest.approx(100, abs=30)
    assert peer.received + peer.lost == 1000
    assert peer.longestSilence == pytest.approx(BOUND - peer.slack)
