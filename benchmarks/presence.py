# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a presence table costs the reactor: while peers come and go a thousand times a second, and when
ten thousand fall at once.

A process beside it writes the time into a pipe every millisecond.  How much later the reactor reads
it is how long the reactor was blocked.  That includes what the machine adds, which the turns
without a table show; on a machine that is busy, C{chrt -f 10} keeps other programs from the core.
The processor time of each turn of the reactor includes neither that, nor the time for which another
thread has the interpreter.  Turns without a table, with a store in memory and with one in an SQLite
file follow one another.

Run it with C{python benchmarks/presence.py [--seconds S] [--peers N] [--json FILE]}.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, thread_time
from typing import Any

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import percentile  # noqa: E402
from report import Comparison, Goal, inTurns, parserFor, report  # noqa: E402
from twisted.internet.address import IPv4Address  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import LoopingCall, deferLater, react  # noqa: E402

from twisted_heartbeat import (  # noqa: E402
    Change,
    MemoryStore,
    PeerSilent,
    PresenceHooks,
    PresenceTable,
    SQLiteStore,
)

RATE = 1000
"""Changes a second."""

NAMES = 500
"""Peers that make them."""

BLOCKED = 1.0
"""Milliseconds that 99 % of the reads may be late."""

TOLD = 0.5
DURABLE = 2.0
"""Seconds until all peers that fall at once are told, and are in the file."""

PATIENCE = 60.0
"""Seconds after which a measurement is given up."""

PROBE = """
import os, struct, sys, time
while True:
    try:
        os.write(1, struct.pack("d", time.monotonic()))
    except BrokenPipeError:
        break
    time.sleep(0.001)
"""


class Watched:
    """
    A peer of a monitor.
    """

    carrier = "udp"
    source = "sensors"
    peer = IPv4Address("UDP", "192.0.2.1", 7000)
    bound = 8.0
    silence = 1.0
    rtt = 0.02
    isAuthenticated = True
    isServerSide = True

    def __init__(self, number: int) -> None:
        self.name = f"sensor-{number}"
        self.generation = number


class Told(PresenceHooks):
    """
    A subscriber that counts.
    """

    def __init__(self) -> None:
        self.count = 0

    def changed(self, change: Change) -> None:
        """
        Count it.
        """
        self.count += 1


class Probe:
    """
    The process that writes the time, and how late the reactor has read it.

    @ivar late: milliseconds.
    """

    def __init__(self, reactor: Any) -> None:
        self.late: list[float] = []
        self._reactor = reactor
        self._process = subprocess.Popen([sys.executable, "-c", PROBE], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """
        See C{IFileDescriptor}.
        """
        return self._pipe.fileno()

    def logPrefix(self) -> str:
        """
        See C{ILoggingContext}.
        """
        return "probe"

    def connectionLost(self, reason: Any) -> None:
        """
        See C{IFileDescriptor}.
        """

    def doRead(self) -> None:
        """
        Compare the times that have come with the present one.
        """
        data = os.read(self.fileno(), 65536)
        now = monotonic()
        self.late += [1000 * (now - then) for (then,) in struct.iter_unpack("d", data)]

    def stop(self) -> None:
        """
        End the process.
        """
        self._reactor.removeReader(self)
        self._process.kill()
        self._process.wait()
        self._pipe.close()


class Turns:
    """
    The processor time of each turn of the reactor, in its own thread.

    @ivar spent: milliseconds.
    """

    def __init__(self, reactor: Any) -> None:
        self.spent: list[float] = []
        self._reactor = reactor
        self._poll = reactor.doIteration
        self._last = thread_time()
        reactor.doIteration = self._iterate

    def _iterate(self, delay: float) -> None:
        now = thread_time()
        self.spent.append(1000 * (now - self._last))
        self._last = now
        self._poll(delay)

    def stop(self) -> None:
        """
        Measure no more.
        """
        self._reactor.doIteration = self._poll


class Stores:
    """
    The contestants: what a table keeps its changes in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def make(self, name: str) -> Any:
        """
        Make a store, empty.
        """
        if name == "in memory":
            return MemoryStore()
        self._count += 1
        return SQLiteStore(self._folder / f"{self._count}.db")


async def until(reactor: Any, condition: Callable[[], bool]) -> float:
    """
    Wait, a millisecond at a time.

    @return: the time at which it was so.
    """
    deadline = monotonic() + PATIENCE
    while not condition():
        if monotonic() > deadline:
            raise SystemExit(f"it took more than {PATIENCE:g} s")
        await deferLater(reactor, 0.001)
    return monotonic()


async def began(store: Any) -> tuple[PresenceTable, Told]:
    """
    Start a table with two subscribers, of which one is named.
    """
    told = Told()
    table = PresenceTable(store=store, hooks=told)
    table.startService()
    table.subscribe("named", Told())
    await table.whenLoaded()
    return table, told


class Traffic:
    """
    Peers that come and go, L{RATE} times a second in all.
    """

    def __init__(self, table: PresenceTable | None) -> None:
        self._table = table
        self._peers = [Watched(number) for number in range(NAMES)]
        self._began = monotonic()
        self.count = 0

    def go(self) -> None:
        """
        Do what is due.
        """
        due = int((monotonic() - self._began) * RATE)
        while self.count < due:
            peer = self._peers[self.count % NAMES]
            goes = self.count // NAMES % 2
            self.count += 1
            if self._table is None:
                continue
            if goes:
                self._table.disconnected(peer, PeerSilent())
            else:
                self._table.connected(peer)


async def blocked(reactor: Any, store: Any, seconds: float) -> tuple[list[float], list[float]]:
    """
    Measure how late the reactor reads, while peers come and go.

    @param store: L{None} for no table at all.
    @return: milliseconds by which each read was late; milliseconds that each turn has computed.
    """
    table, told = (None, None) if store is None else await began(store)
    probe = Probe(reactor)
    await until(reactor, lambda: len(probe.late) > 100)
    traffic = Traffic(table)
    call = LoopingCall(traffic.go)
    call.start(1 / RATE)
    probe.late.clear()
    turns = Turns(reactor)
    await deferLater(reactor, seconds)
    late = list(probe.late)
    turns.stop()
    call.stop()
    probe.stop()
    if table is not None and told is not None:
        await until(reactor, lambda: told.count == traffic.count)
        await table.stopService()
    return late, turns.spent


async def fall(reactor: Any, store: Any, peers: int) -> tuple[float, float, float]:
    """
    Let all peers fall in one turn of the reactor.

    @return: seconds until the table has decided, all are told, and all are in the store.
    """
    table, told = await began(store)
    links = [Watched(number) for number in range(peers)]
    for link in links:
        table.connected(link)
    await until(reactor, lambda: told.count == peers)
    await stored(reactor, store, peers)
    start = monotonic()
    for link in links:
        table.disconnected(link, PeerSilent())
    decided = monotonic() - start
    toldAt = Deferred.fromCoroutine(until(reactor, lambda: told.count == 2 * peers))
    storedAt = Deferred.fromCoroutine(stored(reactor, store, 2 * peers))
    result = decided, await toldAt - start, await storedAt - start
    await table.stopService()
    return result


async def stored(reactor: Any, store: Any, number: int) -> float:
    """
    Wait until a change is in the store.

    @return: the time at which that was known.
    """
    deadline = monotonic() + PATIENCE
    while not await store.changes(number - 1, 1):
        if monotonic() > deadline:
            raise SystemExit(f"change {number} was not stored in {PATIENCE:g} s")
        await deferLater(reactor, 0.01)
    return monotonic()


STORES = ["in memory", "SQLite"]


async def measure(reactor: Any, options: Any, folder: Path) -> list[Comparison]:
    """
    Let all take turns.
    """
    stores = Stores(folder)
    late = f"{RATE} changes a second: the reactor is late"
    goal = {"SQLite": Goal(BLOCKED)}
    half = Comparison(f"{late}, half of the reads", "ms", base="no table")
    most = Comparison(f"{late}, 99 % of the reads", "ms", base="no table", goals=goal)
    longest = Comparison(f"{late}, at most", "ms", base="no table")
    turn = f"{RATE} changes a second: a turn of the reactor computes"
    spent = Comparison(f"{turn}, 99 % of them", "ms", base="no table")
    for name in inTurns(["no table", *STORES], turns=options.turns):
        store = None if name == "no table" else stores.make(name)
        reads, turns = await blocked(reactor, store, options.seconds)
        spent.add(name, percentile(turns, 0.99))
        half.add(name, percentile(reads, 0.5))
        most.add(name, percentile(reads, 0.99))
        longest.add(name, max(reads))
    together = f"{options.peers} peers fall at once"
    decided = Comparison(f"{together}: the table has decided", "s")
    told = Comparison(f"{together}: all are told", "s", goals=dict.fromkeys(STORES, Goal(TOLD)))
    durable = Comparison(f"{together}: all are stored", "s", goals={"SQLite": Goal(DURABLE)})
    for name in inTurns(STORES, turns=options.turns):
        times = await fall(reactor, stores.make(name), options.peers)
        for comparison, value in zip((decided, told, durable), times, strict=True):
            comparison.add(name, value)
    return [half, most, longest, spent, decided, told, durable]


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, seconds=0.5, peers=500, turns=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = await measure(reactor, options, Path(folder))
        report("presence", found, options.json, rate=RATE, peers=options.peers)

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
