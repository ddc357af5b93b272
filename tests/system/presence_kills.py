# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Kill a watcher with SIGKILL at random moments, start it again, and check its store each time.

Run as a program::

    python presence_kills.py FOLDER KILLS SEED

Each watcher is a process of its own: a reactor, a L{PresenceTable} with an L{SQLiteStore}, and
peers that come and go at random.  It is forked from a process that has loaded the package and no
reactor, because otherwise the imports would take most of the time.  It writes two files with
C{write(2)}, which survive it: each change that the store has reported as kept, and each change that
the named subscriber was told.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet import default  # noqa: F401  (loaded before the forks, as the next is)
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool  # noqa: F401

from twisted_heartbeat import (
    Change,
    Gap,
    PeerReset,
    PeerState,
    PresenceHooks,
    PresenceTable,
    SQLiteStore,
)
from twisted_heartbeat.presence import changelog, writer

NAMES = "abcdef"

LONGEST = 0.1
"""Seconds for which a watcher lives at most, once it has begun, or has read its store."""

Line = list[Any]
"""A change in a file: number, name, previous state, state."""


def lineOf(change: Change) -> Line:
    """
    Return what the files have of a change.
    """
    return [change.number, change.name, change.previous.value, change.state.value]


class Record:
    """
    A file of changes, each of which is in it before the next instruction of this process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, changes: Sequence[Change | Gap]) -> None:
        """
        Add changes.
        """
        lines = [json.dumps(lineOf(each)) for each in changes if isinstance(each, Change)]
        os.write(self._descriptor, "".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """
        Close the file.
        """
        os.close(self._descriptor)

    def read(self) -> list[Line]:
        """
        Return all, but for a line that the kill has cut off.
        """
        lines = [line for line in self._path.read_text().splitlines() if line[-1] == "]"]
        # All at once, because they are read after each kill.
        whole: list[Line] = json.loads(f"[{','.join(lines)}]")
        return whole


class ReportingStore(SQLiteStore):
    """
    A store that records what it has reported as kept.
    """

    kept: Record

    def append(self, changes: Any, peers: Any = (), forgotten: Collection[str] = ()) -> Any:
        def report(result: object) -> None:
            self.kept.add(changes)

        return super().append(changes, peers, forgotten).addCallback(report)


class Mail(PresenceHooks):
    """
    The named subscriber.
    """

    def __init__(self, told: Record) -> None:
        self._told = told

    def changed(self, change: Change) -> None:
        self._told.add([change])


class Watched:
    """
    A link, a datagram peer or a checked name.
    """

    rtt = None
    silence = 0.0
    isServerSide = True
    peer = None

    def __init__(self, chance: random.Random, generation: int) -> None:
        self.name = chance.choice(NAMES)
        self.carrier = chance.choice(["tcp", "udp", "http"])
        self.isAuthenticated = self.carrier != "tcp"
        self.source = self.carrier
        self.generation = generation
        self.bound = chance.choice([0.02, 0.05, 5.0])


class Traffic:
    """
    Peers that come and go.
    """

    def __init__(self, table: PresenceTable, chance: random.Random) -> None:
        self._table = table
        self._chance = chance
        self._links: list[Watched] = []
        self._count = 0

    def happen(self) -> None:
        """
        One thing happens.
        """
        what = self._chance.choice(["connect", "connect", "suspect", "recover", "end", "end"])
        if what == "connect" and len(self._links) < 12:
            self._count += 1
            self._links.append(Watched(self._chance, self._count))
            self._table.connected(self._links[-1])
        elif self._links:
            link = self._chance.choice(self._links)
            if what == "suspect":
                self._table.suspected(link)
            elif what == "recover":
                self._table.recovered(link)
            elif what == "end":
                self._links.remove(link)
                self._table.disconnected(link, PeerReset())


class Scene:
    """
    The folder of all watchers of one run of this program.
    """

    def __init__(self, folder: Path) -> None:
        self.database = folder / "presence.db"
        self.kept = Record(folder / "kept")
        self.told = Record(folder / "told")

    def close(self) -> None:
        """
        Close the files.
        """
        self.kept.close()
        self.told.close()

    def watch(self, seed: int, ready: int | None = None) -> int:
        """
        Run a watcher.

        @param ready: a descriptor to close when it has read its store; it is then busy until it is
            killed.  If L{None}, nothing happens, and it ends by itself.
        """
        chance = random.Random(seed)
        writer.COMMIT_DELAY = chance.choice([0.0, 0.002, 0.05])
        writer.CURSOR_DELAY = chance.choice([0.0, 0.02, 1.0])
        changelog.NUMBERS = chance.choice([60, 1_000_000])
        from twisted.internet import reactor
        from twisted.internet.task import LoopingCall

        store = ReportingStore(self.database)
        store.kept = self.kept
        table = PresenceTable(store=store, grace=chance.choice([0.0, 0.01]))
        traffic = Traffic(table, chance)

        def start() -> None:
            table.startService()
            table.subscribe("mail", Mail(self.told), since=None if self.told.read() else 0)
            busy = LoopingCall(lambda: [traffic.happen() for _ in range(chance.randint(0, 6))])
            if ready is None:
                reactor.callLater(0.5, end)
            else:
                busy.start(0.002)
                table.whenLoaded().addCallback(lambda _: os.close(ready))

        def end() -> None:
            stopped: Deferred[None] = table.stopService()
            stopped.addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(start)
        reactor.run()
        return 0

    def check(self) -> None:
        """
        Check the database against what was reported, as the next watcher will find it.
        """
        connection = sqlite3.connect(self.database)
        try:
            if not connection.execute("SELECT name FROM sqlite_master").fetchall():
                assert self.kept.read() == []
                return
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT * FROM gaps").fetchall() == []
            query = "SELECT number, name, previous, state FROM changes ORDER BY number"
            stored = [list(row) for row in connection.execute(query)]
            records = dict(connection.execute("SELECT name, number FROM peers"))
            [(reserved,)] = connection.execute("SELECT value FROM meta WHERE key = 'reserved'")
        finally:
            connection.close()
        byNumber = {line[0]: line for line in stored}
        for line in self.kept.read():
            assert byNumber.get(line[0]) == line, f"{line} was reported as stored, and is not"
        last: dict[str, Line] = {}
        for line in stored:
            _, name, previous, state = line
            before = last[name][3] if name in last else PeerState.UNKNOWN.value
            assert (before, previous != state) == (previous, True), f"{line} follows {before}"
            last[name] = line
        assert records == {name: line[0] for name, line in last.items()}
        for line in self.told.read():
            # One that was told and then lost must not be another one now.
            assert byNumber.get(line[0], line) == line, f"the number of {line} was used twice"
            assert line[0] <= reserved

    def checkTold(self) -> None:
        """
        Check that the subscriber was told everything: after a kill again from its cursor on, and
        otherwise once and in order.
        """
        connection = sqlite3.connect(self.database)
        stored = {number for (number,) in connection.execute("SELECT number FROM changes")}
        connection.close()
        seen: dict[int, Line] = {}
        for line in self.told.read():
            assert seen.setdefault(line[0], line) == line, f"{line} has the number of another"
        assert stored <= seen.keys(), f"never told: {sorted(stored - seen.keys())[:10]}"


def forked(work: Callable[[], int]) -> int:
    """
    Do work in a process of its own.

    @return: the process's id.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        status = work()
    finally:
        os._exit(status)


def killOne(scene: Scene, chance: random.Random) -> None:
    """
    Start a watcher, and kill it: mostly while it works, sometimes while it starts.
    """
    seed, waits = chance.getrandbits(32), chance.random() < 0.7
    isReady, ready = os.pipe()
    process = forked(lambda: scene.watch(seed, ready))
    os.close(ready)
    if waits:
        assert os.read(isReady, 1) == b""
    time.sleep(chance.uniform(0, LONGEST))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(isReady)


def main(folder: Path, kills: int, seed: int) -> None:
    """
    Kill so many watchers, and then let two end by themselves.
    """
    scene, chance = Scene(folder), random.Random(seed)
    for _ in range(kills):
        before = len(scene.told.read())
        killOne(scene, chance)
        scene.check()
        order = [line[0] for line in scene.told.read()[before:]]
        assert order == sorted(set(order)), f"told out of order: {order}"
    told = []
    for _ in range(2):
        process = forked(lambda: scene.watch(seed))
        assert os.waitpid(process, 0)[1] == 0
        scene.check()
        scene.checkTold()
        told.append(len(scene.told.read()))
    numbers = [line[0] for line in scene.told.read()]
    assert len(set(numbers[told[0] :])) == len(numbers[told[0] :])
    assert not set(numbers[: told[0]]) & set(numbers[told[0] :]), "told twice by a clean restart"
    print(json.dumps({"kept": len(scene.kept.read()), "told": len(numbers)}))


def end() -> NoReturn:
    """
    Run this program.
    """
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    sys.exit()


if __name__ == "__main__":
    end()
