# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server that watches thousands of loopback peers, each at a one second interval, on one core:
processor time for each ping and its pong, memory of each link, how soon a tenth that fall silent at
once are found, and how long it takes to accept all of them again after they were all lost.

Run it with C{python benchmarks/scale.py [--links N ...] [--json FILE]}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peerload import SLOWEST, PeerLoad, most  # noqa: E402
from report import Comparison, Goal, parserFor, report  # noqa: E402
from verdicts import LATEST, SETTLE, cutTenth, loadedServer  # noqa: E402
from workerprocess import WorkerProcess  # noqa: E402

FEW = 100
"""Memory up to this number of links is not counted as a link's memory."""

WINDOW = 5.0
"""Seconds for which processor time is measured."""


def measure(links: int) -> dict[str, float]:
    """
    @return: each figure, by its title.
    """
    with loadedServer(FEW) as (server, load, _):
        empty = server.ask("memory")
        took = load.connect(links, lambda: server.ask("count"))
        load.serve(SETTLE)
        memory = (server.ask("memory") - empty) / (links - FEW)
        spent, answered, began = server.ask("spent"), load.answered, monotonic()
        load.serve(WINDOW)
        spent, answered = server.ask("spent") - spent, load.answered - answered
        busy = spent / (monotonic() - began)
        cut = cutTenth(server, load, links)
        if not cut.verdicts:
            raise SystemExit("no peer was found dead")
        again = comeAgain(server, load, links)
    return {
        "a ping and its pong": spent / answered * 1e6,
        "of the core, at one ping a second each": 100 * busy,
        "memory of a link": memory,
        "the last verdict": max(cut.verdicts),
        "the collector's longest pause then": cut.paused,
        "dead ones not found": cut.missed,
        "healthy ones disturbed": cut.disturbed + cut.repeated,
        "accepted at first": links / took,
        "all accepted again": again,
    }


def comeAgain(server: WorkerProcess, load: PeerLoad, links: int) -> float:
    """
    All are lost at once, and come back.

    @return: seconds until all were accepted, from the first connect.
    """
    load.leave()
    deadline = monotonic() + SLOWEST
    while server.ask("count"):
        if monotonic() > deadline:
            raise SystemExit(f"links were left {SLOWEST:g} s after their loss")
        load.serve(0.05)
    return load.connect(links, lambda: server.ask("count"))


UNITS = {
    "a ping and its pong": ("us of CPU", None),
    "of the core, at one ping a second each": ("%", None),
    "memory of a link": ("bytes", None),
    "the last verdict": ("ms after the bound", LATEST),
    "the collector's longest pause then": ("ms", None),
    "dead ones not found": ("links", 0.0),
    "healthy ones disturbed": ("links", 0.0),
    "accepted at first": ("in a second", None),
    "all accepted again": ("s", None),
}


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, links=[500])
    parser.add_argument("--links", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    found = {title: Comparison(title, unit) for title, (unit, _) in UNITS.items()}
    for links in sorted({most(wanted) for wanted in options.links}):
        for _ in range(options.turns):
            for title, value in measure(links).items():
                goal = UNITS[title][1]
                if goal is not None:
                    found[title].goals[f"{links} links"] = Goal(goal)
                found[title].add(f"{links} links", value)
    report("scale", found.values(), options.json)


if __name__ == "__main__":
    main()
