# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server that watches whoever connects, for C{verdicts.py} and C{scale.py}, and what becomes of
them.

Run by them, as C{python benchmarks/watchserver.py INTERVAL TIMEOUT}.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from peerload import HOST, most
from workerprocess import serveCommands

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import (  # noqa: E402
    Heartbeat,
    HeartbeatServerFactory,
    LinkHooks,
)

BACKLOG = 4096


class Ends(LinkHooks):
    """
    Keeps the ends of links.

    @ivar told: for each the peer's port, when the hook was called, for how long the peer had been
        silent at the verdict, and the cause's name.
    """

    def __init__(self) -> None:
        self.told: list[tuple[int, float, float, str]] = []

    def disconnected(self, link: Any, cause: Any) -> None:
        """
        See L{LinkHooks}.
        """
        self.told.append((link.peer.port, monotonic(), link.silence, type(cause).__name__))


class Server:
    """
    What can be asked for.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._ends = Ends()
        self._factory = HeartbeatServerFactory(heartbeat=heartbeat, hooks=self._ends)
        self._paused = self._collects = 0.0
        gc.callbacks.append(self._collecting)

    def listen(self) -> int:
        """
        @return: the port.
        """
        from twisted.internet import reactor

        most(0)
        port = reactor.listenTCP(0, self._factory, backlog=BACKLOG, interface=HOST)
        return port.getHost().port

    def count(self) -> int:
        """
        How many peers it watches.
        """
        return len(self._factory.peers)

    def ended(self) -> list[tuple[int, float, float, str]]:
        """
        The ends since the last time that this was asked.
        """
        told, self._ends.told = self._ends.told, []
        return told

    def paused(self) -> float:
        """
        The longest that Python's collector has held everything up since this was last asked, in
        seconds.
        """
        paused, self._paused = self._paused, 0.0
        return paused

    def _collecting(self, phase: str, about: object) -> None:
        if phase == "start":
            self._collects = monotonic()
        else:
            self._paused = max(self._paused, monotonic() - self._collects)

    def spent(self) -> float:
        """
        Seconds of processor time so far.
        """
        return process_time()

    def memory(self) -> int:
        """
        Bytes of the pages that are this process's own, proc_pid_smaps(5).
        """
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    interval, timeout = map(float, sys.argv[1:])
    server = Server(Heartbeat(interval=interval, timeout=timeout))
    names = ["listen", "count", "ended", "paused", "spent", "memory"]
    serveCommands({name: getattr(server, name) for name in names})
