# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the status page costs the process that it shows, with 10,000 peers, and how soon it is seen.

B{Reactor time} is this process's own processor time, less what the same changes cost while nobody
looks.  The clients are in another process.  I{Changes} come at a hundred a second, one in a
hundred peers; in I{the storm} all peers fall in one instant, and its row is the dearest second.
I{The list} is C{/presence.json}, and I{the scrape} C{/metrics}.

B{First paint} is the browser's own figure: from the navigation to the first rows of the list, in
Chromium without a window (Debian: chromium, chromium-driver, and selenium).  Without these the row
is missing.

Run it with C{python benchmarks/status.py [--peers N] [--clients N] [--turns N] [--json FILE]}.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from time import process_time
from typing import Any

from report import Comparison, Goal, parserFor, report
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.web.client import Agent, readBody
from twisted.web.server import Site

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from tests.status.fleet import Fleet  # noqa: E402
from twisted_heartbeat import HeartbeatMetrics, StatusResource  # noqa: E402

PER_SECOND = 100
"""Changes."""

UPDATE_GOAL, PAINT_GOAL = 50.0, 1000.0
"""Milliseconds of reactor time in a second, and until the first paint."""

READER = """
import selectors, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
poll = selectors.DefaultSelector()
for _ in range(count):
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(b"GET /events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    poll.register(one, selectors.EVENT_READ)
print("reading", flush=True)
while True:
    for key, _ in poll.select():
        if not key.fileobj.recv(1 << 20):
            sys.exit()
"""
"""Clients that read all that comes."""


class Scene:
    """
    A fleet whose page is served.
    """

    def __init__(self, reactor: Any, peers: int) -> None:
        self.reactor = reactor
        self.metrics = HeartbeatMetrics()
        self.fleet = Fleet(reactor, hooks=[self.metrics])
        self.names = [f"sensor-{number}" for number in range(peers)]
        self.fleet.up(*self.names)
        self.resource = StatusResource(self.fleet.table, metrics=self.metrics, clock=reactor)
        self._port = reactor.listenTCP(0, Site(self.resource), interface="127.0.0.1")
        self.number = self._port.getHost().port
        self._turn = cycle(self.names)

    @contextmanager
    def clients(self, count: int) -> Iterator[None]:
        """
        So many streams, read by another process.
        """
        command = [sys.executable, "-c", READER, str(self.number), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            try:
                yield
            finally:
                reader.kill()

    def change(self) -> None:
        """
        Let one peer fall, or come back.
        """
        name = next(self._turn)
        if name in self.fleet.watched:
            self.fleet.down(name)
        else:
            self.fleet.up(name)

    async def spent(self, seconds: float) -> float:
        """
        Wait.

        @return: milliseconds of processor time in each second meanwhile.
        """
        began = process_time()
        await deferLater(self.reactor, seconds)
        return 1000 * (process_time() - began) / seconds

    async def changing(self, seconds: float) -> float:
        """
        The same, with changes.
        """
        changes = LoopingCall(lambda: [self.change() for _ in range(PER_SECOND // 20)])
        changes.start(0.05)
        spent = await self.spent(seconds)
        changes.stop()
        return spent

    async def storm(self) -> float:
        """
        Let all peers fall in one instant, and wait until they are told.

        @return: milliseconds of processor time in the dearest second after the fall itself.
        """
        self.fleet.up(*[name for name in self.names if name not in self.fleet.watched])
        await deferLater(self.reactor, 6)
        # Otherwise Python's collector looks at all objects in some storms, and in others not.
        gc.collect()
        self.fleet.down(*self.names)
        # The table tells its subscribers in the first half of a second.
        return max([await self.spent(1.0) for _ in range(6)])

    async def get(self, path: str) -> float:
        """
        Get something.

        @return: milliseconds of processor time, those of this client included.
        """
        began = process_time()
        url = f"http://127.0.0.1:{self.number}/{path}".encode()
        answer = await Agent(self.reactor).request(b"GET", url)  # type: ignore[no-untyped-call]
        await readBody(answer)
        return 1000 * (process_time() - began)

    async def end(self) -> None:
        """
        Stop.
        """
        self.resource.close()
        await self._port.stopListening()
        await self.fleet.stop()


async def compareUpdates(scene: Scene, clients: int, turns: int) -> list[Comparison]:
    """
    What the streams cost.
    """
    goal = {f"{clients} clients": Goal(UPDATE_GOAL, "over")}
    steady = Comparison(f"{PER_SECOND} changes a second, each second", "ms", "nobody looks", goal)
    storm = Comparison("storm, its dearest second", "ms", "nobody looks", goal)
    for _ in range(turns):
        steady.add("nobody looks", await scene.changing(2.0))
        storm.add("nobody looks", await scene.storm())
        with scene.clients(clients):
            await deferLater(scene.reactor, 0.5)
            steady.add(f"{clients} clients", await scene.changing(2.0))
            storm.add(f"{clients} clients", await scene.storm())
        await deferLater(scene.reactor, 0.5)
    return [steady, storm]


async def compareAnswers(scene: Scene, turns: int) -> list[Comparison]:
    """
    What the other answers cost.
    """
    scene.fleet.up(*[name for name in scene.names if name not in scene.fleet.watched])
    await deferLater(scene.reactor, 2)
    found = Comparison("one answer", "ms")
    for _ in range(turns):
        found.add("the list", await scene.get("presence.json"))
        found.add("the scrape", await scene.get("metrics"))
        # Otherwise the next list would be the same snapshot.
        await deferLater(scene.reactor, 1.1)
    return [found]


async def comparePaints(scene: Scene, turns: int) -> list[Comparison]:
    """
    How soon the page is seen.
    """
    from tests.status.browser import MISSING, Browser

    if MISSING or find_spec("selenium") is None:
        print("No first paint: chromium, chromedriver or selenium is not installed.")
        return []
    paint = Comparison("first paint", "ms", goals={"rows": Goal(PAINT_GOAL)})
    browser = Browser()
    try:
        for _ in range(turns):
            await browser.open(f"http://127.0.0.1:{scene.number}/")
            marks = "performance.getEntriesByName"
            for mark in ("first-paint", "rows"):
                await browser.until(f"{marks}('{mark}').length > 0")
            paint.add("empty page", await browser.run(f"{marks}('first-paint')[0].startTime"))
            paint.add("rows", await browser.run(f"{marks}('rows')[0].startTime"))
    finally:
        browser.quit()
    return [paint]


async def measure(reactor: Any, options: Any) -> None:
    """
    Measure, print, write.
    """
    scene = Scene(reactor, options.peers)
    await deferLater(reactor, 1)
    found = await compareAnswers(scene, options.turns)
    found += await comparePaints(scene, options.turns)
    found += await compareUpdates(scene, options.clients, options.turns)
    await scene.end()
    report("status", found, options.json, peers=options.peers, clients=options.clients)


def main(arguments: list[str]) -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, peers=500, clients=2, turns=1)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=20, help="open streams")
    parser.add_argument("--turns", type=int, default=5)
    react(measure, [parser.parse_args(arguments)])


if __name__ == "__main__":
    main(sys.argv[1:])
