# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Names that check in, in the presence table and its stores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from twisted_heartbeat import Check, MemoryStore, PeerState, PresenceTable, SQLiteStore
from twisted_heartbeat.checkin.monitor import CheckInMonitor
from twisted_heartbeat.core.checkins import SavedDeadline, Signal
from twisted_heartbeat.core.pingapi import CheckInRequest

from ..support.checkins import letPass
from ..support.loopback import wait, within

CHECK = Check(period=100.0, grace=20.0)


@pytest.fixture(params=["memory", "SQLite"])
def makeStore(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """
    Makes a store; the same one again each time, as a restart does.
    """
    if request.param == "SQLite":
        return lambda: SQLiteStore(tmp_path / "presence.db")
    store = MemoryStore()
    return lambda: store


def saved(name: str, deadline: float = 5.0, created: bool = False) -> SavedDeadline:
    """
    A deadline with all fields.
    """
    return SavedDeadline(
        name=name, period=60.0, grace=30.5, deadline=deadline, savedAt=4.0, created=created
    )


@pytest_twisted.ensureDeferred
async def test_deadlinesComeBack(makeStore: Callable[[], Any]) -> None:
    """
    What was saved last of each name comes back unchanged, also from a store that is opened again;
    each server has its own names.
    """
    store = makeStore()
    assert await store.loadDeadlines("one") == []
    await store.saveDeadlines("one", [saved("a"), saved("b", created=True)], [])
    await store.saveDeadlines("two", [saved("a", 9.0)], ["b", "c"])
    await store.saveDeadlines("one", [saved("b", 7.0, True)], ["c"])
    await store.close()
    store = makeStore()
    found = await store.loadDeadlines("one")
    assert sorted(found, key=lambda one: one.name) == [saved("a"), saved("b", 7.0, True)]
    await store.saveDeadlines("one", [], ["a", "b"])
    assert await store.loadDeadlines("one") == []
    assert await store.loadDeadlines("two") == [saved("a", 9.0)]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_serverAndTableShareAStore(makeStore: Callable[[], Any]) -> None:
    """
    In real time: a server and a table with one store are stopped and started again.  A name that
    was up is unknown then, and is down when the deadline of before has passed.
    """
    check = Check(period=0.6, grace=0.6)
    for restarted in (False, True):
        store = makeStore()
        table = PresenceTable(store=store)
        monitor = CheckInMonitor({"job": check}, hooks=table, store=store)
        # The server starts first, and finds the store closed.
        monitor.startService()
        table.startService()
        await within(table.whenLoaded())
        await wait(0.1)
        if restarted:
            peer = table.peer("http/job")
            assert peer is not None and peer.state is PeerState.UNKNOWN
            await wait(1.2)
            peer = table.peer("http/job")
            assert peer is not None and peer.state is PeerState.DOWN
            assert peer.cause == "CheckInMissed"
        else:
            monitor.checkIn(CheckInRequest(name="job"))
            peer = table.peer("http/job")
            assert peer is not None and peer.state is PeerState.UP
            await wait(0.1)
            # As a crash would: nothing is told of the end.
            monitor._events._observers = ()
        await within(monitor.stopService())
        await within(table.stopService())


def test_tableOfCheckIns() -> None:
    """
    A name is up, suspect, down with its cause, and up again; one that was never heard is down when
    its bound has passed, and one whose first word is a failure is down at once, without having been
    up.  A proven name stands for itself.
    """
    clock = Clock()
    table = PresenceTable(clock=clock)
    checks = dict.fromkeys(("job", "never", "failing"), CHECK)
    monitor = CheckInMonitor(checks, hooks=table, clock=clock, isProven=lambda name: name == "job")
    table.startService()
    monitor.startService()
    monitor.checkIn(CheckInRequest(name="job"))
    monitor.checkIn(CheckInRequest(name="failing", signal=Signal.FAIL, status=3))
    states = []
    for seconds in (1.0, 100.0, 20.0):
        letPass(clock, seconds)
        states.append({name: peer.state.value for name, peer in table.peers.items()})
    assert states == [
        {"job": "up", "http/failing": "down"},
        {"job": "suspect", "http/failing": "down"},
        {"job": "down", "http/failing": "down", "http/never": "down"},
    ]
    failing, never = table.peer("http/failing"), table.peer("http/never")
    assert failing is not None and failing.cause == "CheckInFailed"
    assert never is not None and never.cause == "CheckInMissed"
    monitor.checkIn(CheckInRequest(name="job"))
    monitor.checkIn(CheckInRequest(name="never"))
    letPass(clock, 1.0)
    assert [table.peers[name].state.value for name in ("job", "http/never")] == ["up", "up"]
    changes: Any = []
    table.changes(0).addCallback(changes.extend)
    assert [(one.name, one.state.value) for one in changes if one.name == "http/never"] == [
        ("http/never", "down"),
        ("http/never", "up"),
    ]
    monitor.stopService()
    table.stopService()
    letPass(clock, 20.0)
    assert clock.getDelayedCalls() == []
