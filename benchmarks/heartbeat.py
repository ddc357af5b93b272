# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a heartbeat costs the side that pings: processor time for each ping and its pong, and memory
for each link.

The contestants are the servers of C{heartbeatservers.py}, each in a process of its own on one core.
This process is the load, on another core.  It connects the given number of idle peers, spread over
whole seconds, and answers each ping.  It reads the server's processor clock before and after a few
seconds of that.
The floor is a raw epoll loop in Python that sends and receives the same bytes; and one in C, where
there is a compiler.  The load tells how busy it was itself, and gives up when that was too much.

Memory is what the private pages of the server have grown by since it had served a few peers, after
all of them were pinged for a while; what the kernel keeps is the same for all.  It is compared with
a server that never pings.

Run it with C{python benchmarks/heartbeat.py [--links N ...] [--only NAME ...] [--json FILE]}.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import clock_gettime, monotonic, process_time

from heartbeatservers import BACKLOG, HOST, SERVERS
from peerload import NEVER_LINGER, SLOWEST, most, pongOf
from report import Comparison, Goal, inTurns, parserFor, report

from twisted_heartbeat.core import wire

BASE = "epoll"
GOALS = {"ours": Goal(1.5, "ratio")}
MEMORY_GOALS = {name: Goal(1024, "over") for name in ("ours", "mixin", "wrapped")}
KEPT = Goal(0.9, least=True)
"""Who pings less often than that does not keep the rate that is asked for."""

FEW = 50
"""Memory up to this number of links is not counted as a link's memory."""

SETTLE = 1.0
"""Seconds, after the last peer was pinged first, until measuring begins."""

CONNECTS_A_SECOND = 3000

AHEAD = BACKLOG - 500
"""Links that may wait for their first ping: more could overflow a slow server's accept queue."""

BUSIEST = 90.0
"""Percent of its core that the load may take; otherwise the load would be what is measured."""

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = wire.encode(wire.Hello())


def pongFrameOf(data: bytes) -> bytes:
    """
    The answer to a ping of a WebSocket: the same bytes, masked with nothing.
    """
    if data.startswith(b"HTTP/"):
        data = data.partition(b"\r\n\r\n")[2]
    if data[:1] != b"\x89":
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
        Connect a number of further peers, answering meanwhile.

        Pings follow the connections, so these take whole seconds: no part of the second is fuller
        than another.

        @param pings: whether to go on until each has been pinged once.
        @param aSecond: how many to connect in a second, at most.
        """
        began = monotonic()
        before = len(self._sockets)
        whole = before + count
        rate = count / ceil(count / aSecond)
        while len(self._pinged if pings else self._sockets) < whole:
            passed = monotonic() - began
            if passed > SLOWEST:
                raise SystemExit(f"only {len(self._pinged)} of {whole} were pinged in time")
            due = min(whole, before + int(passed * rate))
            if pings:
                due = min(due, len(self._pinged) + AHEAD)
            for _ in range(due - len(self._sockets)):
                self._open()
            self._serve(0.002)

    def serve(self, seconds: float) -> None:
        """
        Answer for a number of seconds.
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


@dataclass
class Turn:
    """
    What one turn of one contestant came to.

    @ivar cost: microseconds of processor time for each ping and its pong; 0 if none was sent.
    @ivar size: bytes of memory for each link.
    @ivar rate: pings for each link and second.
    @ivar load: percent of its core that the load took.
    """

    cost: float
    size: float
    rate: float
    load: float


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
        port = server.stdout.readline()
        if not port:
            raise SystemExit(f"{' '.join(command[-2:])} did not start")
        yield server.pid, int(port)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def measure(command: list[str], name: str, links: int, window: int, core: int) -> Turn:
    """
    Start it, connect, let it ping for a number of seconds, and end it.
    """
    pings = name != "silent"
    with serving(command, core) as (pid, port):
        peers = Peers(port, name)
        try:
            peers.connect(FEW, pings=pings)
            before = ownMemory(pid)
            peers.connect(links, pings=pings)
            peers.serve(SETTLE)
            began, used = monotonic(), processorClock(pid)
            own, answered = process_time(), peers.answered
            peers.serve(window if pings else 0)
            used, answered = processorClock(pid) - used, peers.answered - answered
            own, passed = process_time() - own, monotonic() - began
            grown = ownMemory(pid) - before
        finally:
            # First, otherwise it reports an error for the others.
            os.kill(pid, signal.SIGKILL)
            peers.close()
    if not pings:
        return Turn(0, grown / links, 0, 0)
    if not answered:
        raise SystemExit(f"{name} has stopped pinging")
    rate = answered / passed / (links + FEW)
    return Turn(used / answered * 1e6, grown / links, rate, 100 * own / passed)


@contextmanager
def commands(only: list[str] | None) -> Iterator[dict[str, list[str]]]:
    """
    How to start each.
    """
    here = Path(__file__).resolve().parent
    found = {name: [sys.executable, str(here / "heartbeatservers.py"), name] for name in SERVERS}
    with TemporaryDirectory() as folder:
        compiler = shutil.which("cc")
        if compiler is not None:
            floor = Path(folder) / "floor"
            subprocess.run([compiler, "-O2", "-o", floor, here / "floor.c"], check=True)
            found["C"] = [str(floor)]
        elif only is None or "C" in only:
            print("without the floor in C: there is no cc", file=sys.stderr)
        yield {name: found[name] for name in found if only is None or name in only}


def compare(links: int, turns: int, window: int, only: list[str] | None) -> list[Comparison]:
    """
    All of them, at one number of links.
    """
    if most(links + FEW) < links + FEW:
        raise SystemExit(f"{links} links need more descriptors than a process may have here")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("the server and the load need a core each, and there is only one")
    with commands(only) as found:
        words = f"{links} links"
        cost = Comparison(f"{words}: a ping and its pong", "us of CPU", BASE, GOALS)
        memory = Comparison(f"{words}: memory of one", "bytes", "silent", MEMORY_GOALS)
        kept = dict.fromkeys(found, KEPT)
        rate = Comparison(f"{words}: pings for each in a second", "Hz", goals=kept)
        load = Comparison(f"{words}: how busy the load was", "% of its core")
        os.sched_setaffinity(0, {cores[-1]})
        for name in inTurns(list(found), turns=turns):
            turn = measure(found[name], name, links, window, cores[0])
            print(f"{links} {name}: {turn}", file=sys.stderr, flush=True)
            if turn.load > BUSIEST:
                raise SystemExit(f"the load was {turn.load:.0f} % busy: {name} was not measured")
            memory.add(name, turn.size)
            if name != "silent":
                cost.add(name, turn.cost)
                rate.add(name, turn.rate)
                load.add(name, turn.load)
        os.sched_setaffinity(0, cores)
    return [cost, memory, rate, load]


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, links=[500], turns=1)
    parser.add_argument("--links", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--window",
        type=int,
        default=2,
        help="seconds of each turn's measuring; whole ones, for some ping in bursts",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[*SERVERS, "C"],
        help=f"only these of {', '.join(SERVERS)}, C",
    )
    options = parser.parse_args()
    found = []
    for links in options.links:
        found += compare(links, options.turns, options.window, options.only)
    report("heartbeat", found, options.json, cores=sorted(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
