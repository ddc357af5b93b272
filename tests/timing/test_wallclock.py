# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The application's wall time, and what stands for it while it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from twisted_heartbeat import Check, PeerState, PresenceTable
from twisted_heartbeat.checkin.monitor import CheckInMonitor
from twisted_heartbeat.core.pingapi import CheckInRequest
from twisted_heartbeat.timing.wallclock import WallClock


def failing(kind: type[BaseException]) -> Callable[[], float]:
    """
    Return a clock that raises.
    """

    def read() -> float:
        raise kind("no fix")

    return read


@pytest.mark.parametrize("kind", [OSError, SystemExit, KeyboardInterrupt])
def test_systemsTimeStandsForOneThatFails(kind: type[BaseException]) -> None:
    """
    While the application's clock raises, the time is the system's, and the log says so once.
    """
    found: list[LogEvent] = []
    globalLogPublisher.addObserver(found.append)
    clock = WallClock(failing(kind))
    began = time()
    times = [clock() for _ in range(3)]
    globalLogPublisher.removeObserver(found.append)
    assert all(began <= one <= time() for one in times)
    assert [event["error"] for event in found] == [f"{kind.__name__}: no fix"]
    assert WallClock(lambda: 7)() == 7.0
    assert WallClock(lambda: "soon")() >= began  # type: ignore[arg-type,return-value]


def test_factsAreKeptWhileItFails() -> None:
    """
    A table whose wall clock fails still takes what it is told, and so does a server of check-ins;
    otherwise a C{connected} that fails would end the link.
    """
    clock = Clock()
    table = PresenceTable(clock=clock, wallClock=failing(RuntimeError))
    table.startService()
    settings: dict[str, Any] = {"clock": clock, "wallClock": failing(SystemExit)}
    monitor = CheckInMonitor({"job": Check(period=9, grace=9)}, hooks=table, **settings)
    monitor.startService()
    monitor.checkIn(CheckInRequest(name="job"))
    assert table.states() == {"http/job": PeerState.UP}
    clock.pump([0.5] * 19)
    assert table.states() == {"http/job": PeerState.SUSPECT}
    monitor.stopService()
    table.stopService()
    clock.advance(1)
