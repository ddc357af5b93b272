# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The server of C{verdicts.py} and C{scale.py}: it watches its peers, and reports their ends.

They run it as C{python benchmarks/watchserver.py INTERVAL TIMEOUT}.
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
    Records the ends of links.

    @ivar told: for each end the peer's port, the instant of the hook, the peer's silence in seconds
        at the verdict, and the cause's name.
    """

    def __init__(self) -> None:
        self.told: list[tuple[int, float, float, str]] = []

    def disconnected(self, link: Any, cause: Any) -> None:
        self.told.append((link.peer.port, monotonic(), link.silence, type(cause).__name__))


class Server:
    """
    The commands.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._ends = Ends()
        self._factory = HeartbeatServerFactory(heartbeat=heartbeat, hooks=self._ends)
        self._paused = self._collects = 0.0
        gc.callbacks.append(self._collecting)

    def listen(self) -> int:
        """
        Listen.

        @return: the port.
        """
        from twisted.internet import reactor

        most(0)
        port = reactor.listenTCP(0, self._factory, backlog=BACKLOG, interface=HOST)
        return port.getHost().port

    def count(self) -> int:
        """
        The number of watched peers.
        """
        return len(self._factory.peers)

    def ended(self) -> list[tuple[int, float, float, str]]:
        """
        The ends since the last call.
        """
        told, self._ends.told = self._ends.told, []
        return told

    def paused(self) -> float:
        """
        The longest pause by Python's garbage collector since the last call, in seconds.
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
        The processor time so far, in seconds.
        """
        return process_time()

    def memory(self) -> int:
        """
        The private memory of this process in bytes, proc_pid_smaps(5).
        """
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    interval, timeout = map(float, sys.argv[1:])
    server = Server(Heartbeat(interval=interval, timeout=timeout))
    names = ["listen", "count", "ended", "paused", "spent", "memory"]
    serveCommands({name: getattr(server, name) for name in names})
