# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A presence table whose store fails, hangs or is slow: presence goes on in memory, loudly, and the
store catches up (promise 24).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from twisted_heartbeat import (
    Gap,
    PeerClosed,
    PeerState,
    PresenceLimits,
    PresenceTable,
    SQLiteStore,
    StoreError,
)
from twisted_heartbeat.presence import changelog, sqlite, writer

from ..support.presence import FailingStore, FakeWatched, Subscriber, Watcher
from .test_subscriptions import flap
from .test_table import resultOf

UP, DOWN, UNKNOWN = PeerState.UP, PeerState.DOWN, PeerState.UNKNOWN

FULL = sqlite3.OperationalError("database or disk is full")


@pytest.fixture
def store() -> FailingStore:
    """
    A store that fails when the test says so.
    """
    return FailingStore()


def saidOf(events: list[Any], words: str) -> list[Any]:
    """
    The logged events whose formats have these words.
    """
    return [event for event in events if words in (event.get("log_format") or "")]


def strangers(watcher: Watcher, count: int) -> None:
    """
    Peers without a name come and go, each from an address of its own.
    """
    for _ in range(count):
        link = FakeWatched()
        watcher.table.connected(link)
        watcher.table.disconnected(link, PeerClosed())
        watcher.advance(0.01)


def test_changesAreWrittenTogether(store: FailingStore) -> None:
    """
    Changes gather for a short time, and what comes during a write is written by the next one.
    """
    watcher = Watcher(store)
    flap(watcher, 50)
    watcher.advance(0.04)
    assert "append" not in store.calls
    store.hold.add("append")
    watcher.advance(0.02)
    flap(watcher, 50)
    watcher.advance(60)
    assert store.calls.count("append") == 1
    store.release()
    watcher.advance(1)
    assert store.calls.count("append") == 2
    assert [c.number for c in resultOf(store.changes(0, 1000))] == list(range(1, 201))


def test_fullDisk(store: FailingStore, events: list[Any], loggedErrors: Any) -> None:
    """
    While the disk is full all are told as ever; the log says so once a minute; and when there is
    room the store has every change, in order.
    """
    watcher = Watcher(store)
    flap(watcher)
    watcher.advance(1)
    store.error = FULL
    for _ in range(30):
        flap(watcher)
        watcher.advance(5)
    assert watcher.hooks.numbers == list(range(1, 63))
    assert watcher.stateOf("tcp/a") is DOWN
    said = saidOf(events, "The presence store could not")
    assert 2 <= len(said) <= 3
    assert said[0]["log_level"].name == "critical"
    assert [c.number for c in resultOf(watcher.table.changes(0))] == watcher.hooks.numbers
    store.error = None
    watcher.advance(31)
    assert len(saidOf(events, "The presence store works again")) == 1
    assert [c.number for c in resultOf(store.changes(0, 1000))] == watcher.hooks.numbers
    later = watcher.restart()
    assert later.stateOf("tcp/a") is DOWN


def test_failedRecordsAreWrittenLater(store: FailingStore, events: list[Any]) -> None:
    """
    The records and the cursors of a call that failed are written by a later one, unless there are
    newer ones by then.
    """
    watcher = Watcher(store)
    mail = Subscriber()
    watcher.table.subscribe("mail", mail)
    watcher.advance(2)
    store.hold.add("append")
    link, other = FakeWatched("a"), FakeWatched("b")
    watcher.table.connected(link)
    watcher.table.connected(other)
    watcher.advance(1)
    watcher.table.disconnected(link, PeerClosed())
    watcher.advance(1)
    store.error = FULL
    store.release()
    watcher.advance(100)
    store.error = None
    watcher.advance(31)
    assert resultOf(store.cursor("mail")) == 3
    kept = {record.change.name: record.change.state for record in resultOf(store.load()).peers}
    assert kept == {"tcp/a": DOWN, "tcp/b": UP}


def test_retriesBecomeRare(store: FailingStore, events: list[Any]) -> None:
    """
    A store that fails for hours is tried every half minute, however much happens.
    """
    watcher = Watcher(store)
    store.error = FULL
    flap(watcher)
    for _ in range(10):
        watcher.advance(31)
    store.calls.clear()
    for _ in range(600):
        flap(watcher)
        watcher.advance(1)
    assert 19 <= store.calls.count("append") <= 21
    store.error = None
    watcher.advance(31)


def test_finalErrorIsRetriedRarely(store: FailingStore, events: list[Any]) -> None:
    """
    A store that says that only a person can mend it is not tried again at once.
    """
    watcher = Watcher(store)
    store.error = StoreError("taken over")
    flap(watcher)
    for _ in range(120):
        watcher.advance(1)
    assert store.calls.count("append") == 4
    store.error = None
    watcher.advance(31)


def test_storeFailsForTooLong(store: FailingStore, events: list[Any]) -> None:
    """
    Only so many changes wait for the store.  In place of the oldest the history has a gap, and the
    records of all peers are right.
    """
    watcher = Watcher(store, limits=PresenceLimits(backlog=100))
    up = FakeWatched("up")
    watcher.table.connected(up)
    flap(watcher)
    watcher.advance(1)
    store.error = FULL
    for count in range(300):
        flap(watcher, name=f"peer-{count % 5}")
        watcher.advance(1)
    assert watcher.hooks.numbers == list(range(1, 604))
    store.error = None
    watcher.advance(31)
    found = resultOf(store.changes(0, 1000))
    gap = found[3]
    kept = [change.number for change in found[4:]]
    assert [change.number for change in found[:3]] == [1, 2, 3]
    assert gap == Gap(4, kept[0] - 1) and kept == list(range(kept[0], 604)) and len(kept) >= 99
    assert resultOf(watcher.table.history("tcp/peer-1"))[0] == gap
    later = watcher.restart()
    assert {name: later.stateOf(name) for name in later.table.peers} == {
        "tcp/up": UNKNOWN,
        "tcp/a": DOWN,
        **{f"tcp/peer-{count}": DOWN for count in range(5)},
    }


def test_strangersDoNotGatherWhileTheStoreFails(
    store: FailingStore, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Strangers that come and go while the store cannot be written leave no more behind than its limit
    (promise 17).  A peer that is there in the end is stored; the last that has gone is not.
    """
    watcher = Watcher(store, limits=PresenceLimits(backlog=100))
    store.error = FULL
    last = FakeWatched()
    watcher.table.connected(last)
    watcher.table.connected(FakeWatched("stays"))
    strangers(watcher, 1000)
    watcher.table.disconnected(last, PeerClosed())
    forgotten: list[str] = []
    append = store.append

    def spy(changes: Any, peers: Any, names: Any) -> Any:
        forgotten.extend(names)
        return append(changes, peers, names)

    monkeypatch.setattr(store, "append", spy)
    store.error = None
    watcher.advance(31)
    assert len(set(forgotten)) == 100
    assert f"tcp/192.0.2.1:{last.peer.port}" in forgotten  # type: ignore[union-attr]
    assert [record.change.name for record in resultOf(store.load()).peers] == ["tcp/stays"]


def test_strangersDoNotGatherWhileTheStoreCannotBeRead(
    store: FailingStore, events: list[Any]
) -> None:
    """
    Nor do they leave more than the limit of those that are gone while the store cannot be read; and
    when it is read, all that are there are stored (promise 17).
    """
    store.error = FULL
    watcher = Watcher(store, limits=PresenceLimits(gone=10))
    watcher.table.connected(FakeWatched("stays"))
    strangers(watcher, 1000)
    assert len(watcher.table.peers) == 11
    assert not watcher.table._tracker.unsaved
    store.error = None
    watcher.advance(31)
    assert [record.change.name for record in resultOf(store.load()).peers] == ["tcp/stays"]


def test_historyWithoutStore(store: FailingStore, events: list[Any]) -> None:
    """
    While the store cannot be read, questions are answered from memory, behind a gap.
    """
    first = Watcher(store)
    flap(first, 2)
    watcher = first.restart()
    flap(watcher)
    watcher.advance(1)
    store.error = FULL
    flap(watcher)
    start = 1_000_001
    history = resultOf(watcher.table.history("tcp/a"))
    assert history[0] == Gap(1, 4)
    assert [change.number for change in history[1:]] == list(range(start, start + 4))
    assert resultOf(watcher.table.changes(2, limit=2))[0] == Gap(3, 4)
    assert [c.number for c in resultOf(watcher.table.changes(start))] == [
        start + 1,
        *range(start + 2, start + 4),
    ]
    store.error = None
    watcher.advance(31)


def test_lockedAtTheStart(store: FailingStore, events: list[Any]) -> None:
    """
    If the store cannot be read at the start, the table knows who is alive nevertheless, says so
    loudly, tries again, and then tells what has become of all.
    """
    first = Watcher(store)
    first.table.connected(FakeWatched("a"))
    first.stop()
    store.error = sqlite3.OperationalError("database is locked")
    watcher = Watcher(store, clock=first.clock)
    flap(watcher, name="b")
    watcher.table.connected(FakeWatched("c"))
    watcher.advance(5)
    assert (watcher.stateOf("tcp/b"), watcher.stateOf("tcp/c")) == (DOWN, UP)
    assert len(saidOf(events, "The presence store could not {what}")) == 1
    asked = watcher.table.changes(0)
    store.error = None
    watcher.advance(5)
    assert sorted((c.name, c.state) for c in watcher.hooks.told) == [
        ("tcp/a", UNKNOWN),
        ("tcp/b", DOWN),
        ("tcp/c", UP),
    ]
    assert [c.number for c in resultOf(asked)] == [1, *watcher.hooks.numbers]


def test_unusableStore(store: FailingStore, events: list[Any]) -> None:
    """
    A store that only a person can mend is said loudly, once, to the log and to who waits for it.
    """
    store.error = StoreError("presence.db is damaged")
    watcher = Watcher(store, start=False)
    watcher.start()
    failures: list[Any] = []
    watcher.table.whenLoaded().addErrback(failures.append)
    watcher.table.connected(FakeWatched("a"))
    watcher.advance(600)
    assert failures[0].check(StoreError)
    assert watcher.stateOf("tcp/a") is UP and watcher.hooks.told == []
    [said] = saidOf(events, "The presence store cannot be used")
    assert said["log_level"].name == "critical" and store.calls.count("load") == 1
    store.error = None
    watcher.stop()
    watcher.start()
    watcher.advance()
    assert watcher.hooks.states == [UP]


def test_hungStoreDelaysNobody(store: FailingStore, events: list[Any], loggedErrors: Any) -> None:
    """
    A store that does not answer delays no subscriber, and the end of the service only for a time;
    the log says what was lost.
    """
    watcher = Watcher(store)
    store.hold |= {"append", "close"}
    flap(watcher, 3)
    watcher.advance(600)
    assert watcher.hooks.numbers == [1, 2, 3, 4, 5, 6]
    stopped = watcher.table.stopService()
    watcher.advance(writer.CLOSE_TIMEOUT + 0.1)
    watcher.advance(writer.CLOSE_TIMEOUT + 0.1)
    assert stopped.called and watcher.clock.getDelayedCalls() == []
    [said] = saidOf(events, "changes are not in the presence store")
    assert said["count"] == 6


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_closeThatRaises(
    store: FailingStore,
    monkeypatch: pytest.MonkeyPatch,
    loggedErrors: Any,
    error: type[BaseException],
) -> None:
    """
    A store that raises when it is closed, in place of a Deferred that fails, does not make the end
    of the service fail.
    """

    def close() -> Any:
        raise error("no disk")

    monkeypatch.setattr(store, "close", close)
    watcher = Watcher(store)
    flap(watcher)
    watcher.advance()
    assert resultOf(watcher.table.stopService()) is None
    assert len(loggedErrors.flush(error)) == 1


def test_stopWhileItFails(store: FailingStore, events: list[Any]) -> None:
    """
    A service that is stopped while its store fails tries once more, says what is lost, and ends.
    """
    watcher = Watcher(store)
    store.error = FULL
    flap(watcher)
    watcher.advance(100)
    watcher.stop()
    assert len(saidOf(events, "changes are not in the presence store")) == 1
    store.error = None
    watcher.start()
    watcher.advance(1)
    later = watcher.restart()
    assert later.stateOf("tcp/a") is DOWN and later.hooks.told == []


def test_stopWritesWhatWaits(store: FailingStore) -> None:
    """
    A service that is stopped writes what waits, also behind a write that is under way.
    """
    watcher = Watcher(store)
    store.hold.add("append")
    flap(watcher)
    watcher.advance(1)
    flap(watcher)
    stopped = watcher.table.stopService()
    watcher.advance()
    assert not stopped.called
    store.release()
    assert stopped.called
    assert [c.number for c in resultOf(store.changes(0, 10))] == [1, 2, 3, 4]


def test_stopWhileLoading(store: FailingStore) -> None:
    """
    A service that is stopped while its store is read ends at once, and can be started again.
    """
    store.hold.add("load")
    watcher = Watcher(store)
    watcher.stop()
    store.release()
    watcher.start()
    flap(watcher)
    watcher.advance()
    assert watcher.hooks.numbers == [1, 2]
    watcher.stop()


def test_withoutNumbersSubscribersWait(
    store: FailingStore, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When the store fails for so long that the reserved numbers run out, the states go on, and the
    subscribers are told the outcome when there are numbers again.
    """
    monkeypatch.setattr(changelog, "NUMBERS", 10)
    watcher = Watcher(store)
    flap(watcher)
    watcher.advance(1)
    store.error = FULL
    flap(watcher, 5)
    link = FakeWatched("b")
    watcher.table.connected(link)
    watcher.table.connected(FakeWatched())
    watcher.advance(1)
    assert watcher.hooks.numbers == list(range(1, 11))
    assert watcher.stateOf("tcp/b") is UP
    flap(watcher, 5)
    for _ in range(2):
        watcher.table.disconnected(link, PeerClosed())
    store.error = None
    watcher.advance(31)
    assert watcher.hooks.numbers == list(range(1, 11 + len(watcher.hooks.told[10:])))
    last = {change.name: change.state for change in watcher.hooks.told}
    assert (last["tcp/a"], last["tcp/b"]) == (DOWN, DOWN)
    assert all(c.state is not c.previous for c in watcher.hooks.told)


def test_noNumbersFromAnUnusableStore(
    store: FailingStore, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A store that only a person can mend is asked for numbers seldom, however much happens; the log
    says so once a minute, without a traceback; and when it is mended, there are numbers.
    """
    monkeypatch.setattr(changelog, "NUMBERS", 10)
    watcher = Watcher(store)
    watcher.advance(1)
    store.error = StoreError("taken over")
    store.calls.clear()
    for _ in range(120):
        flap(watcher)
        watcher.advance(1)
    said = saidOf(events, "The presence store could not")
    assert len([event for event in said if event["what"] == "reserve numbers"]) == 2
    assert 3 <= store.calls.count("reserve") <= 5
    assert saidOf(events, "A task of the presence table failed") == []
    assert watcher.hooks.numbers == list(range(1, 11))
    store.error = None
    watcher.advance(31)
    flap(watcher)
    watcher.advance(1)
    assert watcher.hooks.numbers[-1] > 10


def test_moreFallWithoutNumbersThanAreKept(store: FailingStore) -> None:
    """
    Of the peers that fall while there are no numbers, too, only so many are kept.
    """
    store.hold.add("load")
    watcher = Watcher(store, limits=PresenceLimits(gone=2))
    for name in "abcdef":
        flap(watcher, name=name)
    store.release()
    watcher.advance(1)
    assert list(watcher.table.peers) == ["tcp/e", "tcp/f"]
    assert [change.name for change in watcher.hooks.told] == ["tcp/e", "tcp/f"]
    assert watcher.restart().table.peers.keys() == {"tcp/e", "tcp/f"}


def test_cursorsAreWrittenSeldom(store: FailingStore) -> None:
    """
    The cursors of named subscribers are written together with changes, or once a second.
    """
    watcher = Watcher(store)
    mail = Subscriber()
    watcher.table.subscribe("mail", mail)
    watcher.advance(2)
    store.calls.clear()
    for _ in range(10):
        flap(watcher, 5)
        watcher.advance(0.5)
    assert store.calls.count("setCursor") <= 20
    watcher.advance(2)
    assert resultOf(store.cursor("mail")) == 100


# With a file.


async def until(condition: Any, seconds: float = 20.0) -> None:
    """
    Wait in real time for what a thread does.
    """
    from twisted.internet import reactor

    for _ in range(int(seconds * 100)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not happen")


@pytest_twisted.ensureDeferred
async def test_lockedFileCatchesUp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    """
    While another program holds a lock on the file, subscribers are told; afterwards the file has
    all changes.
    """
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.02)
    path = tmp_path / "presence.db"
    hooks = Subscriber()
    running = PresenceTable(store=SQLiteStore(path), hooks=hooks)
    running.startService()
    await running.whenLoaded()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        link = FakeWatched("a")
        running.connected(link)
        running.disconnected(link, PeerClosed())
    await until(lambda: saidOf(events, "The presence store could not"))
    assert hooks.numbers == [1, 2, 3, 4, 5, 6]
    assert other.execute("SELECT count(*) FROM changes").fetchall() == [(0,)]
    other.execute("ROLLBACK")
    await until(lambda: saidOf(events, "The presence store works again"))
    assert other.execute("SELECT number FROM changes").fetchall() == [(n,) for n in range(1, 7)]
    other.close()
    await running.stopService()


@pytest_twisted.ensureDeferred
async def test_takenOverTableGoesOn(tmp_path: Path, events: list[Any]) -> None:
    """
    A table whose file a second watcher has taken over goes on in memory, and says why.
    """
    path = tmp_path / "presence.db"
    hooks = Subscriber()
    first = PresenceTable(store=SQLiteStore(path), hooks=hooks)
    second = PresenceTable(store=SQLiteStore(path))
    for running in (first, second):
        running.startService()
        await running.whenLoaded()
    first.connected(FakeWatched("a"))
    await until(lambda: saidOf(events, "The presence store could not"))
    [said] = saidOf(events, "The presence store could not")
    assert "taken over" in str(said["error"]) and hooks.states == [UP]
    for running in (first, second):
        await running.stopService()
