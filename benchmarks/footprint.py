# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the package costs a process that does nothing: processor time, memory and modules of its
import, and how often it wakes while its links are idle.

B{The import} is that of a fresh interpreter each time, whose modules were all compiled before, as
those of an installed program are.  I{Twisted} is what a client imports that has Twisted's own
service and no heartbeat: C{twisted.internet.protocol}, C{twisted.internet.endpoints} and
C{twisted.application.internet}.  TLS comes with these where it is installed, so it makes no row of
its own.  The interpreter's own start is in all the figures.

B{Wakeups} are the kernel's own count of how often a process had gone to sleep and was woken:
C{voluntary_ctxt_switches}, proc_pid_status(5), of all its threads.  Each process is real, and so
are its connections; this process is at their other ends, and answers each ping at once.  As idle
processes do not disturb each other, all run at the same time, so that each turn is the same for
all; and it is as long as some intervals.  Many links came one after another in the course of an
interval: links that connect in one instant share their wakeups with any timers.

Run it with C{python benchmarks/footprint.py [--links N] [--turns N] [--json FILE]}.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic, sleep

from heartbeat import HELLO, Peers, ownMemory, serving
from heartbeatservers import HOST
from peerload import SLOWEST, most, pongOf
from report import Comparison, inTurns, parserFor, report

CHECKOUT = Path(__file__).resolve().parents[1]

# The import.

TWISTED = """
import twisted.internet.protocol, twisted.internet.endpoints
import twisted.application.internet
"""
IMPORTS = {
    "Python": "",
    "Twisted": TWISTED,
    "ours over that": f"{TWISTED}import twisted_heartbeat",
    "ours": "import twisted_heartbeat",
    "autobahn": "import autobahn.twisted.websocket",
    "websockets": "import websockets.asyncio.client, websockets.asyncio.server",
}

TELL = """
import sys, time
print(time.process_time(), len(sys.modules), flush=True)
sys.stdin.read()
"""
"""What an interpreter does after its imports, so that it can be looked at."""


def imported(statements: str, compiled: str) -> tuple[float, int, int]:
    """
    A fresh interpreter that runs them.

    @param compiled: the folder for the byte code: that of an environment may be missing, and then
        it is the compiler that is measured.
    @return: milliseconds of processor time, bytes of its own memory, and modules.
    """
    environment = {
        **os.environ,
        # What is measured is the checkout that this lies in, installed or not.
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONPYCACHEPREFIX": compiled,
        "PYTHONDONTWRITEBYTECODE": "",
    }
    child = subprocess.Popen(
        [sys.executable, "-c", statements + TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=compiled,
        env=environment,
    )
    with child:
        assert child.stdout is not None
        told = child.stdout.readline().split()
        if not told:
            raise SystemExit(f"{statements!r} failed")
        seconds, modules = told
        memory = ownMemory(child.pid)
    return 1000 * float(seconds), memory, int(modules)


def compareImports(turns: int) -> list[Comparison]:
    """
    All of them.
    """
    spent = Comparison("import: processor time", "ms", "Twisted")
    memory = Comparison("import: memory of its own", "kB", "Twisted")
    modules = Comparison("import: modules", "loaded", "Twisted")
    with TemporaryDirectory() as compiled:
        for statements in IMPORTS.values():
            imported(statements, compiled)
        for name in inTurns(list(IMPORTS), turns=turns):
            milliseconds, size, count = imported(IMPORTS[name], compiled)
            spent.add(name, milliseconds)
            memory.add(name, size / 1000)
            modules.add(name, count)
    return [spent, memory, modules]


# Wakeups.

KINDS = ["silent", "ours", "TimeoutMixin", "autobahn", "websockets"]

TO_OURS = "ours, to ours"
"""A client of ours whose peer is a server of ours, and not one that only answers."""

ONE_LINK = "a client with one link"
FIGURES = ["wakeups", "pings for each link"]

SETTLE = 1
"""Intervals, after each link's first ping, until counting begins."""


@dataclass(frozen=True)
class Idle:
    """
    A process with nothing to do.

    @ivar name: which one.
    @ivar role: what it does, in words.
    @ivar links: how many it has.
    @ivar pid: its process.
    @ivar answered: how many of its pings have been answered; L{None} if it has none, or no process
        counts them.
    """

    name: str
    role: str
    links: int
    pid: int
    answered: Callable[[], int] | None


class Answering:
    """
    The other end of one client.

    @ivar port: where it waits for that.
    @ivar answered: how many pings have been.
    """

    def __init__(self, name: str) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._greeting = HELLO if name == "ours" else b""
        self._answer = serverAnswer if name in ("autobahn", "websockets") else pongOf
        self.port: int = self._listener.getsockname()[1]
        self.answered = 0

    def run(self, done: Event) -> None:
        """
        Answer until it is done.

        @raise SystemExit: if the client has gone before.
        """
        with self._accept() as one:
            one.settimeout(0.2)
            one.sendall(self._greeting)
            while not done.is_set():
                try:
                    data = one.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    raise SystemExit("a client has closed its connection")
                answer = self._answer(data)
                one.sendall(answer)
                self.answered += bool(answer) and not answer.startswith(b"HTTP")

    def _accept(self) -> socket.socket:
        with self._listener:
            self._listener.settimeout(SLOWEST)
            return self._listener.accept()[0]


def serverAnswer(data: bytes) -> bytes:
    """
    What the server of a WebSocket answers to its client's upgrade, or to a ping, RFC 6455.
    """
    if data.startswith(b"GET"):
        key = data.lower().partition(b"sec-websocket-key:")
        at = len(key[0]) + len(key[1])
        word = data[at:].split(maxsplit=1)[0]
        accept = b64encode(sha1(word + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
    if data[:1] != b"\x89":
        return b""
    mask, masked = data[2:6], data[6:]
    payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
    return bytes([0x8A, len(payload)]) + payload


def wakeupsOf(pid: int) -> int:
    """
    How often the threads of a process have gone to sleep by themselves so far.
    """
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "voluntary_ctxt_switches":
                found += int(value)
    return found


def isConnected(port: int) -> bool:
    """
    Whether a peer is connected to a port of this host, proc_net_tcp(5).
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


@contextmanager
def client(name: str, port: int, timing: Sequence[str]) -> Iterator[int]:
    """
    A client's process.
    """
    script = Path(__file__).with_name("clients.py")
    process = subprocess.Popen([sys.executable, str(script), name, str(port), *timing])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


class Scene:
    """
    All the processes, and the threads that are at the other ends.
    """

    def __init__(self, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timing = [str(interval), str(timeout)]
        self._stack = ExitStack()
        self._done = Event()
        self._threads: list[Future[None]] = []
        self._ports: list[int] = []
        self.idle: list[Idle] = []

    def __enter__(self) -> Scene:
        pool = ThreadPoolExecutor(max_workers=32)
        self._stack.enter_context(pool)
        self._submit = pool.submit
        return self

    def __exit__(self, *about: object) -> None:
        self._done.set()
        self._stack.close()

    def addClient(self, name: str) -> None:
        """
        One with one link.
        """
        peer = Answering(name)
        self._threads.append(self._submit(peer.run, self._done))
        pid = self._stack.enter_context(client(name, peer.port, self._timingOf(name)))
        answered = None if name == "silent" else lambda: peer.answered
        self.idle.append(Idle(name, ONE_LINK, 1, pid, answered))

    def addClientOfOurs(self) -> None:
        """
        One whose peer is a server of ours.
        """
        _, port = self._stack.enter_context(self._serving("ours"))
        pid = self._stack.enter_context(client("ours", port, self._timing))
        deadline = monotonic() + SLOWEST
        while not isConnected(port) and monotonic() < deadline:
            sleep(0.1)
        self._ports.append(port)
        self.idle.append(Idle(TO_OURS, ONE_LINK, 1, pid, None))

    def addServer(self, name: str, links: int) -> None:
        """
        One with many.
        """
        pid, port = self._stack.enter_context(self._serving(name))
        peers = Peers(port, name)

        def run() -> None:
            try:
                peers.connect(links, pings=False, aSecond=links / self._interval)
                while not self._done.is_set():
                    peers.serve(0.2)
            finally:
                peers.close()

        self._threads.append(self._submit(run))
        answered = None if name == "silent" else lambda: peers.answered
        self.idle.append(Idle(name, f"a server with {links} links", links, pid, answered))

    def wait(self) -> None:
        """
        Until each of their pings has been answered once, and nothing else is new to them.

        @raise SystemExit: if that takes too long.
        """
        deadline = monotonic() + SLOWEST + 2 * self._interval
        while any(idle.answered and idle.answered() < idle.links for idle in self.idle):
            self.check()
            if monotonic() > deadline:
                raise SystemExit("not all were pinged in time")
            sleep(0.1)
        sleep(SETTLE * self._interval)
        self.check()

    def check(self) -> None:
        """
        @raise SystemExit: if a link has been lost.
        """
        for thread in self._threads:
            if thread.done():
                thread.result()
        if not all(isConnected(port) for port in self._ports):
            raise SystemExit("a client of ours has lost its connection")

    def _timingOf(self, name: str) -> list[str]:
        return [] if name == "silent" else self._timing

    def _serving(self, name: str) -> AbstractContextManager[tuple[int, int]]:
        script = Path(__file__).with_name("heartbeatservers.py")
        return serving([sys.executable, str(script), name, *self._timingOf(name)])


def compareWakeups(
    links: int, turns: int, intervals: int, interval: float, timeout: float, only: list[str] | None
) -> list[Comparison]:
    """
    All of them, with one link and with many.

    @param intervals: how many of them a turn lasts.
    """
    kinds = [name for name in KINDS if only is None or name in only]
    links = most(links * len(kinds)) // len(kinds)
    with Scene(interval, timeout) as scene:
        for name in kinds:
            scene.addClient(name)
            scene.addServer(name, links)
        if "ours" in kinds:
            scene.addClientOfOurs()
        scene.wait()
        return count(scene, turns, intervals * interval)


def count(scene: Scene, turns: int, seconds: float) -> list[Comparison]:
    """
    Count for a number of turns.
    """
    found: dict[tuple[str, str], Comparison] = {}
    for role in dict.fromkeys(idle.role for idle in scene.idle):
        wakeups, pings = (f"{role}: {figure}" for figure in FIGURES)
        found["wakeups", role] = Comparison(wakeups, "a minute", "TimeoutMixin")
        found["pings", role] = Comparison(pings, "a minute")
    # Without a gap between the turns, in which what keeps step with them might hide.
    since, before = monotonic(), [_counted(idle) for idle in scene.idle]
    for _ in range(turns):
        sleep(max(0.0, since + seconds - monotonic()))
        now, after = monotonic(), [_counted(idle) for idle in scene.idle]
        minutes = (now - since) / 60
        for idle, old, new in zip(scene.idle, before, after, strict=True):
            woken, answered = new[0] - old[0], new[1] - old[1]
            found["wakeups", idle.role].add(idle.name, woken / minutes)
            if idle.answered is not None:
                found["pings", idle.role].add(idle.name, answered / minutes / idle.links)
        since, before = now, after
        scene.check()
    return list(found.values())


def _counted(idle: Idle) -> tuple[int, int]:
    return wakeupsOf(idle.pid), 0 if idle.answered is None else idle.answered()


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, links=100, imports=3, turns=1, interval=2.0, timeout=1.5)
    parser.add_argument("--links", type=int, default=1000, help="of those that have many")
    parser.add_argument("--imports", type=int, default=9, metavar="TURNS")
    parser.add_argument("--turns", type=int, default=3, help="of counting wakeups")
    parser.add_argument("--intervals", type=int, default=2, help="the length of each of these")
    parser.add_argument("--interval", type=float, default=20.0, help="seconds between pings")
    parser.add_argument("--timeout", type=float, default=15.0, help="seconds for the answer")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these have links")
    options = parser.parse_args()
    found = compareImports(options.imports)
    found += compareWakeups(
        options.links,
        options.turns,
        options.intervals,
        options.interval,
        options.timeout,
        options.only,
    )
    report("footprint", found, options.json, interval=options.interval, timeout=options.timeout)


if __name__ == "__main__":
    main()
