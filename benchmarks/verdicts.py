# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How soon a thousand dead peers are found among ten thousand, and whether the others are left alone.

A server of this package, in a process of its own on one core, watches as many loopback peers as
there are descriptors for; then a tenth of them fall silent at once, their connections open.  For
each the verdict is the time from the last byte that was received to the decision; and what is told
is the time from the last byte that the peer has I{sent} to the call of the hook, by the one
monotonic clock of the machine.

The rest of the ten thousand, and for comparison all of them, are watched in virtual time, where no
scheduler adds anything.

Run it with C{python benchmarks/verdicts.py [--links N] [--json FILE]}.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import percentile  # noqa: E402
from peerload import PeerLoad, most  # noqa: E402
from report import Comparison, Goal, parserFor, report  # noqa: E402
from virtual import watch  # noqa: E402
from workerprocess import WorkerProcess  # noqa: E402

from twisted_heartbeat import Heartbeat  # noqa: E402

HEARTBEAT = Heartbeat(interval=1.0, timeout=1.5)
SETTLE = 3.0
"""Seconds for which the peers are watched before the cut, and after it."""

LATEST = 50.0
"""Milliseconds after the bound."""


@dataclass
class Cut:
    """
    The result of cutting peers off.

    @ivar verdicts: milliseconds that each verdict came after the bound.
    @ivar told: milliseconds that the hook was told after the bound, from the last byte sent.
    @ivar missed: peers that were not found dead.
    @ivar disturbed: healthy ones that were, or that lost their connection.
    @ivar repeated: peers whose end was reported more than once.
    @ivar paused: milliseconds, the longest that Python's collector held the server up meanwhile.
    """

    links: int
    verdicts: list[float]
    told: list[float]
    missed: int
    disturbed: int
    repeated: int
    paused: float = 0.0


@contextmanager
def loadedServer(links: int) -> Iterator[tuple[WorkerProcess, PeerLoad, float]]:
    """
    Start a server on one core, and its peers in this process on another.

    @return: and the seconds that it took to accept them.
    """
    cores = sorted(os.sched_getaffinity(0))
    server = WorkerProcess(
        "watchserver.py", str(HEARTBEAT.interval), str(HEARTBEAT.timeout), core=cores[0]
    )
    os.sched_setaffinity(0, {cores[-1]})
    try:
        load = PeerLoad(server.ask("listen"))
        took = load.connect(links, lambda: server.ask("count"))
        yield server, load, took
        load.leave()
    finally:
        os.sched_setaffinity(0, cores)
        server.kill()


def cutTenth(server: WorkerProcess, load: PeerLoad, links: int) -> Cut:
    """
    Have a tenth of them fall silent, and wait until all verdicts must have come.
    """
    load.serve(SETTLE)
    server.ask("ended")
    server.ask("paused")
    before = load.lost
    sentAt = load.silence(links // 10)
    load.serve(HEARTBEAT.bound + SETTLE)
    ended = server.ask("ended")
    bound = HEARTBEAT.bound
    fell = {port: end for port, *end in ended if port in sentAt}
    times = Counter(port for port, *_ in ended)
    return Cut(
        links,
        verdicts=[1000 * (silence - bound) for _, silence, _ in fell.values()],
        told=[1000 * (at - sentAt[port] - bound) for port, (at, *_) in fell.items()],
        missed=len(sentAt) - len(fell),
        disturbed=len(times.keys() - sentAt.keys()) + load.lost - before,
        repeated=sum(count > 1 for count in times.values()),
        paused=1000 * server.ask("paused"),
    )


def inVirtualTime(links: int) -> Cut:
    """
    The same without a machine.
    """
    silences, disturbed = watch(HEARTBEAT, links, links // 10, seed=1)
    found = [1000 * (silence - HEARTBEAT.bound) for silence in silences if silence < float("inf")]
    return Cut(links, found, found, len(silences) - len(found), disturbed, 0)


def figures(cuts: dict[str, Cut]) -> list[Comparison]:
    """
    What is reported of each.
    """
    after = "ms after the bound"
    rows: list[tuple[str, str, float | None, Any]] = [
        ("verdicts", after, None, lambda cut: cut.verdicts),
        ("the earliest verdict", after, None, lambda cut: [min(cut.verdicts)]),
        ("99 % of the verdicts by", after, None, lambda cut: [percentile(cut.verdicts, 0.99)]),
        ("the last verdict", after, LATEST, lambda cut: [max(cut.verdicts)]),
        ("the last hook told", after, None, lambda cut: [max(cut.told)]),
        ("the collector's longest pause", "ms", None, lambda cut: [cut.paused]),
        ("dead ones not found", "links", 0, lambda cut: [cut.missed]),
        ("healthy ones disturbed", "links", 0, lambda cut: [cut.disturbed]),
        ("told more than once", "links", 0, lambda cut: [cut.repeated]),
    ]
    found = []
    for title, unit, goal, values in rows:
        goals = {} if goal is None else {name: Goal(goal) for name in cuts}
        comparison = Comparison(f"a tenth cut at once: {title}", unit, goals=goals)
        for name, cut in cuts.items():
            for value in values(cut):
                comparison.add(name, value)
        found.append(comparison)
    return found


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, links=500)
    parser.add_argument("--links", type=int, default=10_000)
    options = parser.parse_args()
    real = most(options.links)
    with loadedServer(real) as (server, load, _):
        cuts = {f"{real} real": cutTenth(server, load, real)}
    if real < options.links:
        rest = options.links - real
        cuts[f"{rest} virtual"] = inVirtualTime(rest)
    cuts[f"{options.links} virtual"] = inVirtualTime(options.links)
    curves = {name: sorted(round(value, 3) for value in cut.verdicts) for name, cut in cuts.items()}
    report("verdicts", figures(cuts), options.json, bound=HEARTBEAT.bound, curves=curves)


if __name__ == "__main__":
    main()
