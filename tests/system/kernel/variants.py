# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A few rows, one of each kind of cause, on Twisted's other reactors, and over IPv6.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .kernel import Kernel
from .rows import ROWS, Row
from .trials import Outcome, Trial, runUntilSure

IPV6 = "ipv6"

ROWS_OF = {
    "poll": ("cut", "hushed", "unreachable", "fin", "rst", "rebooted"),
    "select": ("cut", "hushed", "unreachable", "fin", "rst", "rebooted"),
    "asyncio": ("cut", "hushed", "unreachable", "fin", "rst", "rebooted"),
    IPV6: ("cut", "hushed", "rst"),
}

LOADS = ("idle", "data", "keepalive")

STAGGER = 0.7


def run(kernel: Kernel, variant: str) -> list[Outcome]:
    """
    Run them.

    @param variant: a reactor, as C{twist --reactor} names it, or L{IPV6}.
    """
    reactor = "epoll" if variant == IPV6 else variant
    watcher, peer = kernel.watcher(reactor=reactor), kernel.peer()
    rows = [row for row in ROWS if row.name in ROWS_OF[variant]]

    def trial(row: Row, prefix: str) -> Trial:
        [lane] = kernel.lanes(1)
        return Trial(
            row, lane, kernel.journal, watcher, peer, kernel.peer,
            loads=LOADS, prefix=f"{prefix}{variant}-", ipv6=variant == IPV6,
        )  # fmt: skip

    def later(number: int) -> list[Outcome]:
        time.sleep(number * STAGGER)
        return runUntilSure(partial(trial, rows[number]))

    with ThreadPoolExecutor(len(rows)) as threads:
        outcomes = list(threads.map(later, range(len(rows))))
    watcher.end()
    peer.end()
    return [outcome for each in outcomes for outcome in each]
