# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SQLiteStore}: keeps presence in a file.

I{Threads.}  All work is done by the one thread of a C{ConnectionPool}, so that the reactor never
waits for the disk.

I{Crashes.}  Each call that writes is one transaction.  The file uses a write-ahead log
(U{https://sqlite.org/wal.html}), with C{synchronous=FULL}: when a transaction is reported as done,
the log is on the disk, so that it survives a power failure, too.  Other programs may read the file
at the same time.

I{One writer.}  The store that has loaded the file last owns it, by a random token in the file that
each transaction compares.  An older process that has not ended yet could otherwise add changes
behind the numbers of the new one.

I{Numbers.}  The end of the reserved numbers is in the table C{meta}, and only grows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from os import PathLike, fspath
from secrets import token_hex
from typing import Any, TypeVar

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..core.checkins import SavedDeadline
from ..core.presence import Change, Gap, PeerRecord, PeerState, StoredPresence, numberOf
from ..core.validation import isCount, require
from .store import StoreError

_T = TypeVar("_T")

_Connection = Any
"""A C{sqlite3.Connection}, in the wrapper of C{adbapi}."""

APPLICATION_ID = 0x54484250
"""Marks the files of this store (C{PRAGMA application_id}): the letters THBP."""

SCHEMA_VERSION = 1
"""C{PRAGMA user_version} of a file of this version."""

BUSY_TIMEOUT = 5.0
"""Seconds for which the thread waits for another program's lock on the file."""

_CHANGE = """
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    previous TEXT NOT NULL,
    carrier TEXT NOT NULL,
    source TEXT NOT NULL,
    generation INTEGER NOT NULL,
    address TEXT NOT NULL,
    cause TEXT,
    reason TEXT NOT NULL,
    bound REAL,
    named INTEGER NOT NULL
"""
"""The columns of a change, in the order of L{_values}."""

_SCHEMA = (
    f"CREATE TABLE changes ({_CHANGE}, PRIMARY KEY (number))",
    "CREATE INDEX changesOfPeer ON changes (name, number)",
    # Changes that are lost: those from first to last.
    "CREATE TABLE gaps (last INTEGER PRIMARY KEY, first INTEGER NOT NULL)",
    f"CREATE TABLE peers ({_CHANGE}, longestBound REAL, lastHeard REAL, PRIMARY KEY (name))",
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, number INTEGER NOT NULL)",
    # reserved: the highest number that is reserved; deleted: the highest that was deleted, because
    # only so many changes are kept; owner: see "One writer".
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL)",
    "INSERT INTO meta VALUES ('reserved', 0), ('deleted', 0), ('owner', '')",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_DEADLINES = """
    CREATE TABLE IF NOT EXISTS deadlines (
        source TEXT NOT NULL,
        name TEXT NOT NULL,
        period REAL NOT NULL,
        grace REAL NOT NULL,
        deadline REAL NOT NULL,
        savedAt REAL NOT NULL,
        created INTEGER NOT NULL,
        PRIMARY KEY (source, name)
    )
"""
"""The table of the names that check in.  Files of earlier versions do not have it."""

_TABLES = {"changes", "gaps", "peers", "cursors", "meta"}
_KEYS = {"reserved", "deleted", "owner"}
"""What each file has."""

_ADD_CHANGE = f"INSERT OR REPLACE INTO changes VALUES ({', '.join('?' * 13)})"
_ADD_PEER = f"INSERT OR REPLACE INTO peers VALUES ({', '.join('?' * 15)})"


class SQLiteStore:
    """
    A L{PresenceStore<twisted_heartbeat.presence.store.PresenceStore>} in an SQLite file; and a
    L{DeadlineStore<twisted_heartbeat.checkin.store.DeadlineStore>} in the same file, which may be
    used without a table.
    """

    def __init__(
        self, path: str | PathLike[str], *, keep: int = 100_000, reactor: Any = None
    ) -> None:
        """
        @param path: the file, which is made if it is not there.  Its folder must exist, and be on a
            local disk.
        @param keep: the number of changes that are kept.
        @param reactor: the global reactor if L{None}.
        @raise ValueError: if C{keep} is not a whole number, 1 or more.
        """
        require(isCount(keep), self, "keep", keep, "a whole number, 1 or more")
        self.path = fspath(path)
        self._keep = int(keep)
        self._reactor = reactor
        self._pool: ConnectionPool | None = None
        self._owner = token_hex(16)
        self._kept = 0

    def __repr__(self) -> str:
        return f"<SQLiteStore {self.path}>"

    # The contract.

    def load(self) -> Deferred[StoredPresence]:
        return self._run(_load)

    def reserve(self, count: int) -> Deferred[int]:
        return self._write(_reserve, count)

    def append(
        self,
        changes: Sequence[Change | Gap],
        peers: Collection[PeerRecord] = (),
        forgotten: Collection[str] = (),
    ) -> Deferred[None]:
        return self._write(self._append, changes, peers, forgotten)

    def changes(self, since: int, limit: int) -> Deferred[list[Change | Gap]]:
        return self._run(_changes, since, limit)

    def history(self, name: str, limit: int) -> Deferred[list[Change | Gap]]:
        return self._run(_history, name, limit)

    def cursor(self, name: str) -> Deferred[int | None]:
        return self._run(_cursor, name)

    def setCursor(self, name: str, number: int) -> Deferred[None]:
        return self._write(_setCursor, name, number)

    def loadDeadlines(self, source: str) -> Deferred[Sequence[SavedDeadline]]:
        return self._run(_deadlinesOf, source)

    def saveDeadlines(
        self, source: str, saved: Sequence[SavedDeadline], forgotten: Collection[str]
    ) -> Deferred[None]:
        return self._write(_saveDeadlines, source, saved, forgotten)

    def close(self) -> Deferred[None]:
        pool, self._pool = self._pool, None
        if pool is None:
            return succeed(None)

        def closePool(_: object) -> None:
            pool.close()

        # The thread writes the log back into the file, so that the reactor has only to close it.
        return self._runIn(pool, _checkpoint).addBoth(closePool)

    # In the thread.

    def _run(self, work: Callable[..., _T], *arguments: object) -> Deferred[_T]:
        """
        Do work in the thread.  It takes the connection.
        """
        if self._pool is None:
            self._pool = ConnectionPool(
                "sqlite3",
                self.path,
                timeout=BUSY_TIMEOUT,
                # Transactions begin and end where this module says so.
                isolation_level=None,
                # The pool closes the connection from the thread of the reactor.
                check_same_thread=False,
                cp_min=1,
                cp_max=1,
                cp_openfun=self._open,
                cp_reactor=self._reactor,
            )
        return self._runIn(self._pool, work, *arguments)

    def _runIn(
        self, pool: ConnectionPool, work: Callable[..., _T], *arguments: object
    ) -> Deferred[_T]:
        run: Deferred[_T] = pool.runWithConnection(work, *arguments)
        return run.addErrback(self._translate)

    def _write(self, work: Callable[..., _T], *arguments: object) -> Deferred[_T]:
        """
        Do work in the thread, in a transaction of the owner's.
        """
        return self._run(self._owned, work, *arguments)

    def _owned(self, connection: _Connection, work: Callable[..., _T], *arguments: object) -> _T:
        connection.execute("BEGIN IMMEDIATE")
        if _meta(connection, "owner") != self._owner:
            raise StoreError(f"{self.path} was taken over by another watcher")
        return work(connection, *arguments)

    def _translate(self, failure: Failure) -> Failure:
        """
        Turn an error that no second try can mend into a L{StoreError}.
        """
        error = failure.value
        # Subclasses are transient errors (locked, disk full) or faults of this module.  A row that
        # cannot be decoded raises ValueError.
        if type(error) is sqlite3.DatabaseError or isinstance(error, ValueError):
            failure = Failure(StoreError(f"{self.path} is damaged, or is no SQLite file: {error}"))
        return failure

    def _open(self, connection: sqlite3.Connection) -> None:
        """
        Prepare a connection that the pool has made.
        """
        try:
            self._check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            if not _tablesOf(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute(_DEADLINES)
            _setMeta(connection, "owner", self._owner)
            [(self._kept,)] = connection.execute("SELECT count(*) FROM changes")
            connection.commit()
        except BaseException:
            # The pool does not keep it, and makes another one next time.
            connection.close()
            raise

    def _check(self, connection: _Connection) -> None:
        """
        Raise an error unless the file is new, or a whole one of this version.
        """
        [(found,)] = connection.execute("PRAGMA application_id")
        [(version,)] = connection.execute("PRAGMA user_version")
        if found != APPLICATION_ID and (found or version or _tablesOf(connection)):
            raise StoreError(f"{self.path} is the database of another program")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer version of this package: "
                f"its schema is {version}, and this version knows {SCHEMA_VERSION}"
            )
        faults = [text for (text,) in connection.execute("PRAGMA integrity_check(1)")]
        if faults != ["ok"]:
            raise StoreError(f"{self.path} is damaged: {' '.join(faults)}")
        if found == APPLICATION_ID:
            self._checkSchema(connection)

    def _checkSchema(self, connection: _Connection) -> None:
        """
        Raise an error if a file of this store lacks what each of them has.
        """
        missing = _TABLES - {name for (name,) in _tablesOf(connection)}
        if not missing:
            keys = {key for (key,) in connection.execute("SELECT key FROM meta")}
            missing = _KEYS - keys
        if missing:
            raise StoreError(f"{self.path} is damaged: it lacks {', '.join(sorted(missing))}")

    def _append(
        self,
        connection: _Connection,
        changes: Sequence[Change | Gap],
        peers: Iterable[PeerRecord],
        forgotten: Iterable[str],
    ) -> None:
        # Iterators, because to make ten thousand rows at once would hold up the reactor, while
        # SQLite lets go of the interpreter after each row.
        rows = (_values(change) for change in changes if isinstance(change, Change))
        gaps = ((change.last, change.first) for change in changes if isinstance(change, Gap))
        records = ((*_values(one.change), one.bound, one.lastHeard) for one in peers)
        connection.executemany(_ADD_CHANGE, rows)
        connection.executemany("INSERT OR REPLACE INTO gaps VALUES (?, ?)", gaps)
        connection.executemany(_ADD_PEER, records)
        connection.executemany("DELETE FROM peers WHERE name = ?", ((name,) for name in forgotten))
        self._kept += len(changes)
        # To delete a tenth at a time costs less than to delete a few at each call.
        if self._kept > self._keep + self._keep // 10:
            self._deleteOldest(connection)

    def _deleteOldest(self, connection: _Connection) -> None:
        query = "SELECT number FROM changes ORDER BY number DESC LIMIT 1 OFFSET ?"
        for (number,) in connection.execute(query, [self._keep]).fetchall():
            connection.execute("DELETE FROM changes WHERE number <= ?", [number])
            connection.execute("DELETE FROM gaps WHERE last <= ?", [number])
            _setMeta(connection, "deleted", number)
        [(self._kept,)] = connection.execute("SELECT count(*) FROM changes")


def _load(connection: _Connection) -> StoredPresence:
    peers = [
        PeerRecord(change=_changeOf(row[:-2]), bound=row[-2], lastHeard=row[-1])
        for row in connection.execute("SELECT * FROM peers ORDER BY number")
    ]
    falls: dict[str, list[float]] = {}
    query = "SELECT name, at FROM changes WHERE state = ? ORDER BY number"
    for name, at in connection.execute(query, [PeerState.DOWN.value]):
        falls.setdefault(name, []).append(at)
    query = (
        "SELECT max(ifnull((SELECT max(number) FROM changes), 0),"
        " ifnull((SELECT max(last) FROM gaps), 0), ?)"
    )
    [(latest,)] = connection.execute(query, [_meta(connection, "deleted")])
    return StoredPresence(peers=peers, latest=latest, falls=falls)


def _checkpoint(connection: _Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _tablesOf(connection: _Connection) -> list[Any]:
    return list(connection.execute("SELECT name FROM sqlite_master"))


def _meta(connection: _Connection, key: str) -> Any:
    [(value,)] = connection.execute("SELECT value FROM meta WHERE key = ?", [key])
    return value


def _setMeta(connection: _Connection, key: str, value: object) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", [value, key])


def _reserve(connection: _Connection, count: int) -> int:
    reserved: int = _meta(connection, "reserved")
    _setMeta(connection, "reserved", reserved + count)
    return reserved + 1


def _changes(connection: _Connection, since: int, limit: int) -> list[Change | Gap]:
    found: list[Change | Gap] = []
    deleted: int = _meta(connection, "deleted")
    if since < deleted:
        found.append(Gap(since + 1, deleted))
    query = "SELECT * FROM changes WHERE number > ? ORDER BY number LIMIT ?"
    found += map(_changeOf, connection.execute(query, [since, limit]))
    query = "SELECT first, last FROM gaps WHERE last > ? ORDER BY last LIMIT ?"
    found += [Gap(*row) for row in connection.execute(query, [since, limit])]
    return sorted(found, key=numberOf)[:limit]


def _history(connection: _Connection, name: str, limit: int) -> list[Change | Gap]:
    query = "SELECT * FROM changes WHERE name = ? ORDER BY number DESC LIMIT ?"
    found: list[Change | Gap] = [*map(_changeOf, connection.execute(query, [name, limit]))]
    query = "SELECT first, last FROM gaps ORDER BY last DESC LIMIT ?"
    found += [Gap(*row) for row in connection.execute(query, [limit])]
    return sorted(found, key=numberOf)[-limit:]


def _cursor(connection: _Connection, name: str) -> int | None:
    for (number,) in connection.execute("SELECT number FROM cursors WHERE name = ?", [name]):
        return int(number)
    return None


def _setCursor(connection: _Connection, name: str, number: int) -> None:
    connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", [name, number])


def _deadlinesOf(connection: _Connection, source: str) -> list[SavedDeadline]:
    query = "SELECT name, period, grace, deadline, savedAt, created FROM deadlines WHERE source = ?"
    return [
        SavedDeadline(
            name=row[0],
            period=row[1],
            grace=row[2],
            deadline=row[3],
            savedAt=row[4],
            created=bool(row[5]),
        )
        for row in connection.execute(query, [source])
    ]


def _saveDeadlines(
    connection: _Connection,
    source: str,
    saved: Sequence[SavedDeadline],
    forgotten: Iterable[str],
) -> None:
    rows = (
        (source, one.name, one.period, one.grace, one.deadline, one.savedAt, one.created)
        for one in saved
    )
    connection.executemany("INSERT OR REPLACE INTO deadlines VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    names = ((source, name) for name in forgotten)
    connection.executemany("DELETE FROM deadlines WHERE source = ? AND name = ?", names)


def _values(change: Change) -> tuple[object, ...]:
    return (
        change.number,
        change.at,
        change.name,
        change.state.value,
        change.previous.value,
        change.carrier,
        change.source,
        change.generation,
        change.address,
        change.cause,
        change.reason,
        change.bound,
        change.isNamed,
    )


def _changeOf(row: Sequence[Any]) -> Change:
    return Change(
        number=row[0],
        at=row[1],
        name=row[2],
        state=PeerState(row[3]),
        previous=PeerState(row[4]),
        carrier=row[5],
        source=row[6],
        generation=row[7],
        address=row[8],
        cause=row[9],
        reason=row[10],
        bound=row[11],
        isNamed=bool(row[12]),
    )
