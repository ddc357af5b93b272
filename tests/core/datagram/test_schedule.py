# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
When a sender sends.
"""

from __future__ import annotations

import random

import pytest

from twisted_heartbeat.core.datagram.schedule import (
    EARLY,
    RARE,
    Schedule,
    falseVerdicts,
    periodFor,
    sendsFor,
    sendsWithin,
)


@pytest.mark.parametrize("seed", range(20))
def test_staysOnItsGrid(seed: int) -> None:
    """
    Heartbeat i leaves at T0 + i * period - U(0, period / 4); the jitter never adds up, and the next
    one never leaves later than was said.
    """
    draw = random.Random(seed)
    schedule = Schedule(3.0, 100.0, draw.random)
    origin = 100.0 + 3.0 * EARLY
    now = schedule.following(100.0)
    assert 100.0 <= now <= origin
    early = []
    for index in range(1, 2000):
        # A timer is a little late.
        now = schedule.following(now + draw.uniform(0.0, 0.02))
        place = origin + index * 3.0
        assert schedule.latest == pytest.approx(place)
        assert place - 3.0 * EARLY <= now <= place + 1e-9
        early.append(place - now)
    assert 0.3 < sum(early) / len(early) < 0.45


def test_stallLeavesNoBacklog() -> None:
    """
    After a stall the next heartbeat is at its place in the grid; those in between are left out.
    """
    schedule = Schedule(3.0, 0.0, lambda: 0.0)
    assert schedule.following(0.0) == 0.75
    assert schedule.following(0.75) == 3.75
    assert schedule.following(100.0) == 102.75
    assert schedule.following(102.75) == 105.75


@pytest.mark.parametrize(
    ("bound", "every", "allowLoss", "period", "sends"),
    [
        (35.0, None, None, 35 / 6, 5),
        (18.0, None, None, 3.0, 5),
        (9.0, None, None, 3.0, 2),
        (8.0, 1.0, None, 1.0, 7),
        (60.0, None, 0.1, 60 / 6.25, 6),
        (60.0, None, 0.2, 60 / 9.25, 9),
        (60.0, None, 0.4, 60 / 16.25, 16),
        (8.0, 0.4, 0.4, 0.4, 19),
        (60.0, None, 0.0, 10.0, 5),
    ],
)
def test_period(
    bound: float, every: float | None, allowLoss: float | None, period: float, sends: int
) -> None:
    """
    The period is three seconds, or a sixth of the bound, or as short as the loss needs.
    """
    found = periodFor(bound, every, allowLoss)
    assert found == pytest.approx(period)
    assert sendsWithin(bound, found) == sends


@pytest.mark.parametrize(
    ("bound", "every", "allowLoss", "words"),
    [
        (3.0, None, None, "raise the bound to 3.75 s, or set every to 2.4 s or less"),
        (20.0, None, 0.4, "a loss of 0.4 needs 16: raise the bound to 48.75 s, or set every to"),
        (20.0, 3.0, 0.4, "room for 6 heartbeats"),
        (20.0, 0.0, None, "every is 0.0"),
        (20.0, None, 1.0, "allowLoss is 1.0"),
        (20.0, None, -0.1, "allowLoss is -0.1"),
        (20.0, None, True, "allowLoss is True"),
    ],
)
def test_refusedPeriod(
    bound: float, every: float | None, allowLoss: float | None, words: str
) -> None:
    """
    What does not fit into the bound is refused with a sentence that says what would.
    """
    with pytest.raises(ValueError, match=words):
        periodFor(bound, every, allowLoss)


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_sendsForLoss(loss: float) -> None:
    """
    So many heartbeats make a false verdict rare, and one fewer would not.
    """
    needed = sendsFor(loss)
    assert falseVerdicts(loss, needed) <= RARE * 1.0001
    assert falseVerdicts(loss, needed - 1) > RARE
