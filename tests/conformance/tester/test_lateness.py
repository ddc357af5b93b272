# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The conformance tester knows by how much it is late itself.
"""

from __future__ import annotations

import time

import pytest
from twisted.internet.task import Clock

from twisted_heartbeat.conformance.play import Lateness


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """
    Stands still while its time is moved by C{rightNow}, as a reactor does that is blocked.
    """
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.seconds)
    return clock


def test_punctual(clock: Clock) -> None:
    """
    A tester that is called when it asks to be is not late.
    """
    lateness = Lateness(clock)
    lateness.start()
    clock.pump([0.05] * 20)
    assert lateness.since(0.0) == 0.0


def test_lateLooksAddUp(clock: Clock) -> None:
    """
    Each look that was late counts from the time on at which it was noticed.
    """
    lateness = Lateness(clock)
    lateness.start()
    clock.advance(0.35)
    clock.advance(0.45)
    assert lateness.since(0.0) == pytest.approx(0.7)
    assert lateness.since(0.5) == pytest.approx(0.4)


def test_lookThatIsDueCounts(clock: Clock) -> None:
    """
    After a stall, a scenario that goes on before the tester has looked knows of the stall already.
    """
    lateness = Lateness(clock)
    lateness.start()
    clock.rightNow += 0.95
    assert lateness.since(0.0) == pytest.approx(0.9)
    clock.advance(0.0)
    assert lateness.since(0.0) == pytest.approx(0.9)


def test_nothingIsDueOnceItIsOver(clock: Clock) -> None:
    """
    A tester that has stopped is not late.
    """
    lateness = Lateness(clock)
    lateness.start()
    lateness.stop()
    clock.rightNow += 1.0
    assert lateness.since(0.0) == 0.0
