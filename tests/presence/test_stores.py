# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The stores of presence: the contract, which each of them keeps, and what an SQLite file may be like.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from twisted_heartbeat import Change, Gap, MemoryStore, PeerState, SQLiteStore, StoreError
from twisted_heartbeat.core.presence import PeerRecord, StoredPresence
from twisted_heartbeat.presence import sqlite

UP, DOWN = PeerState.UP, PeerState.DOWN


def changeOf(number: int, name: str = "a", state: PeerState = UP, **fields: Any) -> Change:
    """
    A change with all fields.
    """
    fields = {"cause": "PeerSilent", "reason": "no answer", "bound": 8.5, **fields}
    return Change(
        number=number,
        at=1000.0 + number,
        name=name,
        state=state,
        previous=PeerState.UNKNOWN,
        carrier="udp",
        source="sensors",
        generation=7,
        address="192.0.2.1:7",
        **fields,
    )


def recordOf(change: Change) -> PeerRecord:
    """
    The record of a peer whose last change that is.
    """
    return PeerRecord(change=change, bound=30.0, lastHeard=999.5)


@pytest.fixture(params=["memory", "SQLite"])
def makeStore(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """
    Makes a store that keeps so many changes.
    """
    if request.param == "memory":
        return MemoryStore
    return lambda keep=100: SQLiteStore(tmp_path / "presence.db", keep=keep)


# The contract.


@pytest_twisted.ensureDeferred
async def test_newStoreIsEmpty(makeStore: Callable[..., Any]) -> None:
    """
    A new store holds nothing.
    """
    store = makeStore()
    assert await store.load() == StoredPresence(peers=[])
    assert await store.changes(0, 10) == []
    assert await store.history("a", 10) == []
    assert await store.cursor("mail") is None
    await store.close()


@pytest_twisted.ensureDeferred
async def test_changesComeBack(makeStore: Callable[..., Any]) -> None:
    """
    What was appended comes back unchanged, in order, also after the store was closed.
    """
    store = makeStore()
    await store.load()
    changes = [
        changeOf(1),
        changeOf(2, "b", cause=None, reason="", bound=None),
        Gap(3, 5),
        changeOf(6, "ä ☃", DOWN, isNamed=False),
        changeOf(7, "b", DOWN),
    ]
    await store.append(changes[:2], [recordOf(changes[0]), recordOf(changes[1])])
    await store.append(changes[2:], [recordOf(changes[4])], ["a"])
    await store.close()
    stored = await store.load()
    assert list(stored.peers) == [recordOf(changes[4])]
    assert stored.latest == 7
    assert stored.falls == {"ä ☃": [1006.0], "b": [1007.0]}
    assert await store.changes(0, 10) == changes
    assert await store.changes(1, 2) == changes[1:3]
    assert await store.changes(4, 1) == [Gap(3, 5)]
    assert await store.changes(5, 10) == changes[3:]
    assert await store.history("b", 10) == [changes[1], Gap(3, 5), changes[4]]
    assert await store.history("b", 1) == [changes[4]]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_sameChangesTwice(makeStore: Callable[..., Any]) -> None:
    """
    Changes that come again, because the answer to the first call was lost, are kept once, also if
    others come with them, and if the oldest of them were deleted meanwhile.
    """
    store = makeStore(keep=10)
    await store.load()
    early, late = [changeOf(1), Gap(2, 3)], [changeOf(4), changeOf(5, "b", DOWN)]
    await store.append(early, [recordOf(changeOf(1))])
    await store.append([*early, *late], map(recordOf, late))
    await store.append(late, map(recordOf, late))
    assert await store.changes(0, 10) == [*early, *late]
    assert await store.history("a", 10) == [*early, late[0]]
    stored = await store.load()
    assert (stored.latest, stored.falls) == (5, {"b": [1005.0]})
    many = [changeOf(number) for number in range(6, 40)]
    for _ in range(2):
        await store.append(many, [recordOf(many[-1])])
    found = await store.changes(0, 100)
    assert found[1:] == many[-len(found[1:]) :]
    assert found[0] == Gap(1, found[1].number - 1)
    await store.close()


@pytest_twisted.ensureDeferred
async def test_recordsAreReplaced(makeStore: Callable[..., Any]) -> None:
    """
    The records of peers are replaced, and come in the order of their last changes.
    """
    store = makeStore()
    await store.load()
    first, second, third = changeOf(1, "a"), changeOf(2, "b"), changeOf(3, "a", DOWN)
    await store.append([first, second], [recordOf(first), recordOf(second)])
    await store.append([third], [recordOf(third)])
    assert [one.change for one in (await store.load()).peers] == [second, third]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_numbersAreReservedOnce(makeStore: Callable[..., Any]) -> None:
    """
    No number is reserved twice, also after the store was closed without having used any.
    """
    store = makeStore()
    await store.load()
    assert [await store.reserve(10), await store.reserve(5)] == [1, 11]
    await store.close()
    await store.load()
    assert await store.reserve(1) == 16
    await store.close()


@pytest_twisted.ensureDeferred
async def test_cursorsAreKept(makeStore: Callable[..., Any]) -> None:
    """
    Each named subscriber has a cursor, which may also go back.
    """
    store = makeStore()
    await store.load()
    for name, number in [("mail", 5), ("page", 7), ("mail", 3)]:
        await store.setCursor(name, number)
    await store.close()
    await store.load()
    assert [await store.cursor(name) for name in ("mail", "page", "sms")] == [3, 7, None]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_onlySoManyChangesAreKept(makeStore: Callable[..., Any]) -> None:
    """
    The oldest changes are deleted, in place of which a reader finds a gap; the records and the
    highest number stay.
    """
    store = makeStore(keep=10)
    await store.load()
    numbers = list(range(2, 200, 2))
    for number in numbers:
        change = changeOf(number, "ab"[number % 4 // 2])
        await store.append([change], [recordOf(change)])
    found = await store.changes(5, 1000)
    kept = [change.number for change in found[1:]]
    assert found[0] == Gap(6, kept[0] - 2)
    assert kept == numbers[-len(kept) :] and 10 <= len(kept) <= 11
    assert await store.changes(196, 10) == [changeOf(198, "b")]
    stored = await store.load()
    assert (len(stored.peers), stored.latest) == (2, 198)
    await store.close()


@pytest_twisted.ensureDeferred
async def test_latestOfAnEmptiedStore(makeStore: Callable[..., Any]) -> None:
    """
    The highest number is known although the last that came was a gap.
    """
    store = makeStore()
    await store.load()
    await store.append([changeOf(1), Gap(2, 9)])
    assert (await store.load()).latest == 9
    await store.close()


# What a file may be like.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    Where the file is.
    """
    return tmp_path / "presence.db"


async def filled(path: Path, count: int = 500) -> None:
    """
    Make a file with some changes in it.
    """
    store = SQLiteStore(path)
    await store.load()
    changes = [changeOf(number, f"peer-{number}") for number in range(1, count + 1)]
    await store.append(changes, map(recordOf, changes))
    await store.close()


async def errorOf(path: Path) -> str:
    """
    What a store says about a file that it cannot use.
    """
    store = SQLiteStore(path)
    with pytest.raises(StoreError) as caught:
        await store.load()
    await store.close()
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_fileOfSomethingElse(path: Path) -> None:
    """
    A file that is no database is left alone, with an error that says so.
    """
    path.write_text("name = pump-3\n" * 1000)
    assert "is damaged, or is no SQLite file" in await errorOf(path)
    assert path.read_text() == "name = pump-3\n" * 1000


@pytest_twisted.ensureDeferred
async def test_databaseOfAnotherProgram(path: Path) -> None:
    """
    The database of another program is left alone, with an error that says so.
    """
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE changes (number INTEGER)")
    connection.close()
    before = path.read_bytes()
    assert "is the database of another program" in await errorOf(path)
    assert path.read_bytes() == before


@pytest_twisted.ensureDeferred
async def test_fileOfANewerVersion(path: Path) -> None:
    """
    A file that a newer version has written is left alone, with an error that names both versions.
    """
    await filled(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    assert "newer version of this package: its schema is 2, and this version knows 1" in (
        await errorOf(path)
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
@pytest_twisted.ensureDeferred
async def test_fileCutShort(path: Path, share: float) -> None:
    """
    A file whose end is missing is found at the start, and not used.
    """
    await filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in await errorOf(path)


@pytest_twisted.ensureDeferred
async def test_damagedPage(path: Path) -> None:
    """
    A file with garbage in the middle is found at the start, and not used.
    """
    await filled(path)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2 // 4096 * 4096
    whole[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(bytes(whole))
    assert "damaged" in await errorOf(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DROP TABLE peers", "it lacks peers"),
        ("DELETE FROM meta WHERE key != 'owner'", "it lacks deleted, reserved"),
        ("UPDATE peers SET state = 'asleep'", "'asleep' is not a valid PeerState"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_contentsThatNoStoreWrites(path: Path, damage: str, words: str) -> None:
    """
    A whole SQLite file whose contents another program has changed is found at the start, and not
    used: no second try would mend it.
    """
    await filled(path, 2)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    error = await errorOf(path)
    assert "damaged" in error
    assert words in error


@pytest_twisted.ensureDeferred
async def test_emptyFileIsNew(path: Path) -> None:
    """
    An empty file is a new one: SQLite leaves one behind if it is killed before its first write.
    """
    path.touch()
    store = SQLiteStore(path)
    assert await store.load() == StoredPresence(peers=[])
    await store.close()


@pytest_twisted.ensureDeferred
async def test_missingFolder(tmp_path: Path) -> None:
    """
    A folder that is not there may come (a disk that is mounted later), so that this is no final
    error.
    """
    store = SQLiteStore(tmp_path / "disk" / "presence.db")
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        await store.load()
    (tmp_path / "disk").mkdir()
    assert await store.load() == StoredPresence(peers=[])
    await store.close()


@pytest_twisted.ensureDeferred
async def test_lockedFile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While another program holds a lock, writing fails after a time, and reading works.
    """
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    store = SQLiteStore(path)
    await store.load()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await store.append([changeOf(1)])
    assert await store.changes(0, 10) == []
    other.execute("ROLLBACK")
    other.close()
    await store.append([changeOf(1)])
    assert await store.changes(0, 10) == [changeOf(1)]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_fullDiskKeepsAllOrNothing(path: Path) -> None:
    """
    A call that the disk has no room for leaves nothing behind, and the store works as before.
    """
    store = SQLiteStore(path)
    await store.load()
    await store.append([changeOf(1)], [recordOf(changeOf(1))])
    await store._run(lambda connection: connection.execute("PRAGMA max_page_count = 14"))
    many = [changeOf(number, "x" * 500) for number in range(2, 200)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await store.append(many, [recordOf(changeOf(199))])
    assert await store.changes(0, 10) == [changeOf(1)]
    await store.append([changeOf(200)])
    assert [change.number for change in await store.changes(0, 10)] == [1, 200]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_secondWatcherTakesOver(path: Path) -> None:
    """
    When a second watcher opens the file, the first can write no more, and says so; otherwise its
    changes would come behind the numbers of the second.
    """
    first, second = SQLiteStore(path), SQLiteStore(path)
    await first.load()
    await first.append([changeOf(1)])
    await second.load()
    for write in (
        lambda: first.append([changeOf(2)]),
        lambda: first.reserve(1),
        lambda: first.setCursor("mail", 1),
    ):
        with pytest.raises(StoreError, match="was taken over by another watcher"):
            await write()
    await second.append([changeOf(2)])
    assert len(await first.changes(0, 10)) == 2
    await first.close()
    await second.close()


@pytest_twisted.ensureDeferred
async def test_anotherProgramReads(path: Path) -> None:
    """
    Another program can read the file while the store has it open.
    """
    store = SQLiteStore(path)
    await store.load()
    await store.append([changeOf(1)], [recordOf(changeOf(1))])
    other = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert other.execute("SELECT name, state FROM peers").fetchall() == [("a", "up")]
    assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    other.close()
    await store.close()


@pytest_twisted.ensureDeferred
async def test_nothingIsLeftBeside(path: Path) -> None:
    """
    A store that was closed leaves one file; closing it twice, or before it was opened, does no
    harm.
    """
    store = SQLiteStore(path)
    await store.close()
    await store.load()
    await store.append([changeOf(1)])
    await store.close()
    await store.close()
    assert [each.name for each in path.parent.iterdir()] == ["presence.db"]
    assert repr(store) == f"<SQLiteStore {path}>"


def test_settingsAreChecked(path: Path) -> None:
    """
    A store is told how many changes to keep, in a whole number.
    """
    with pytest.raises(ValueError, match=r"SQLiteStore\.keep is 0: it must be"):
        SQLiteStore(path, keep=0)
