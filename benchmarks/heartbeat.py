# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a heartbeat costs the side that pings: processor time for each ping and its pong, and memory
for each link.

The contestants are servers, see C{contestants.py}, each in a process of its own on one core.  This
process is the load, on another core: it connects so many idle peers, answers each ping, and reads
the server's processor clock before and after a few seconds of that.  The floor is a raw epoll loop
in Python that sends and receives the same bytes; and one in C, where there is a compiler.

Memory is what the server's own pages have grown by; what the kernel keeps is the same for all.

Run it with C{python benchmarks/heartbeat.py [--links N ...] [--only NAME ...] [--json FILE]}.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import clock_gettime, monotonic

from contestants import CONTESTANTS, HOST
from report import Comparison, Goal, inTurns, parserFor, report

from twisted_heartbeat.core import wire

BASE = "epoll"
GOALS = {"ours": Goal(1.5, "ratio")}
MEMORY_GOALS = {"ours": Goal(1024, "over"), "wrapped": Goal(1024, "over")}

SETTLE = 1.5
"""Seconds, after the last connection, until measuring begins."""

SLOWEST = 60.0
"""Seconds in which all must be connected."""

CONNECTS_A_SECOND = 4000

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = wire.encode(wire.Hello())

NEVER_LINGER = struct.pack("ii", 1, 0)


def pongOf(data: bytes) -> bytes:
    """
    The answer to what a server of the built-in protocol sent, which has no other length.
    """
    return b"\1\3\0\0" + data[4:] if len(data) == 12 and data[1] == 2 else b""


def pongFrameOf(data: bytes) -> bytes:
    """
    The answer to a ping of a WebSocket: the same bytes, masked with nothing.
    """
    if data[0] != 0x89:
        return b""
    return bytes([0x8A, 0x80 | data[1], 0, 0, 0, 0]) + data[2:]


class Peers:
    """
    The load.

    @ivar answered: how many pings have been.
    """

    def __init__(self, port: int, name: str) -> None:
        self._to = (HOST, port)
        self._greeting = {"ours": HELLO, "autobahn": UPGRADE, "websockets": UPGRADE}.get(name, b"")
        self._answer = pongFrameOf if self._greeting is UPGRADE else pongOf
        self._poller = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._pinged: set[int] = set()
        self.answered = 0

    def connect(self, count: int, *, pings: bool, aSecond: float = CONNECTS_A_SECOND) -> None:
        """
        Connect so many more, answering meanwhile.

        @param pings: whether to go on until each has been pinged once.
        @param aSecond: how many to connect in a second.
        """
        began = monotonic()
        whole = len(self._sockets) + count
        while len(self._pinged if pings else self._sockets) < whole:
            passed = monotonic() - began
            if passed > SLOWEST:
                raise SystemExit(f"only {len(self._pinged)} of {whole} were pinged in time")
            due = min(whole, whole - count + int(passed * aSecond))
            for _ in range(due - len(self._sockets)):
                self._open()
            self._serve(0.002)

    def serve(self, seconds: float) -> None:
        """
        Answer for so long.
        """
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            self._serve(0.01)

    def close(self) -> None:
        """
        Be gone, leaving nothing in TIME_WAIT.
        """
        for one in self._sockets.values():
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NEVER_LINGER)
            one.close()
        self._poller.close()

    def _open(self) -> None:
        one = socket.create_connection(self._to, timeout=SLOWEST)
        one.setblocking(False)
        if self._greeting:
            one.send(self._greeting)
        self._sockets[one.fileno()] = one
        self._poller.register(one, select.EPOLLIN)

    def _serve(self, seconds: float) -> None:
        for number, _ in self._poller.poll(seconds, 4096):
            one = self._sockets[number]
            data = one.recv(65536)
            if not data:
                raise SystemExit("the server has closed a connection")
            answer = self._answer(data)
            if answer:
                one.send(answer)
                self.answered += 1
                self._pinged.add(number)


def processorClock(pid: int) -> float:
    """
    Seconds of processor time that another process has used, clock_getcpuclockid(3).
    """
    return clock_gettime((~pid << 3) | 2)


def ownMemory(pid: int) -> int:
    """
    Bytes of the pages that are a process's own, proc_pid_smaps(5).
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return 1024 * sum(kilobytes)


@contextmanager
def serving(command: list[str], core: int | None = None) -> Iterator[tuple[int, int]]:
    """
    A server, and the port that it listens on.

    @param core: the only one that it may use; any if L{None}.
    """
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        yield server.pid, int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def measure(command: list[str], name: str, links: int, window: float, core: int) -> list[float]:
    """
    @return: microseconds of processor time for each ping and pong, bytes for each link, and pings
        for each link and second.
    """
    pings = name != "silent"
    with serving(command, core) as (pid, port):
        peers = Peers(port, name)
        try:
            # What the first few bring with them is not theirs.
            peers.connect(50, pings=pings)
            before = ownMemory(pid)
            peers.connect(links, pings=pings)
            peers.serve(SETTLE if pings else 0.2)
            began, used, answered = monotonic(), processorClock(pid), peers.answered
            peers.serve(window if pings else 0)
            used, answered = processorClock(pid) - used, peers.answered - answered
            passed = monotonic() - began
            grown = ownMemory(pid) - before
        finally:
            # First, lest it complain of the others.
            os.kill(pid, signal.SIGKILL)
            peers.close()
    return [
        used / answered * 1e6 if pings else 0.0,
        grown / links,
        answered / passed / (links + 50),
    ]


@contextmanager
def commands(only: list[str] | None) -> Iterator[dict[str, list[str]]]:
    """
    How to start each.
    """
    here = Path(__file__).resolve().parent
    found = {name: [sys.executable, str(here / "contestants.py"), name] for name in CONTESTANTS}
    with TemporaryDirectory() as folder:
        compiler = shutil.which("cc")
        if compiler is not None:
            floor = Path(folder) / "floor"
            subprocess.run([compiler, "-O2", "-o", floor, here / "floor.c"], check=True)
            found["C"] = [str(floor)]
        yield {name: found[name] for name in found if only is None or name in only}


def compare(links: int, turns: int, window: float, only: list[str] | None) -> list[Comparison]:
    """
    All of them, at one number of links.
    """
    cost = Comparison(f"{links} links: a ping and its pong", "us of CPU", BASE, GOALS)
    memory = Comparison(f"{links} links: memory of one", "bytes", "silent", MEMORY_GOALS)
    rate = Comparison(f"{links} links: pings for each in a second", "Hz")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    with commands(only) as found:
        for name in inTurns(list(found), turns=turns):
            spent, size, pinged = measure(found[name], name, links, window, cores[0])
            memory.add(name, size)
            if name != "silent":
                cost.add(name, spent)
                rate.add(name, pinged)
            print(f"{links} {name}: {spent:.1f} us, {size:.0f} bytes", file=sys.stderr, flush=True)
    os.sched_setaffinity(0, cores)
    return [cost, memory, rate]


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__)
    parser.add_argument("--links", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--window", type=float, default=3.0, help="seconds of each turn's measuring"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these contestants")
    options = parser.parse_args()
    found = []
    for links in options.links:
        found += compare(links, options.turns, options.window, options.only)
    report("heartbeat", found, options.json, cores=sorted(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
