# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a fleet of clients does to a broker that dies and comes back.

  - Simulated, see C{fleet.py}: ten thousand clients, a broker that is down for two minutes and then
    accepts five hundred a second; the six policies, each by a few seeds.
  - Real, over loopback: a few thousand clients whose server's process is killed; three seconds
    later another listens in its place, with the backlog that is Twisted's default.  When the queue
    of a listening socket overflows, Linux lets clients believe that they are connected which the
    server never accepts.  These phantoms are counted: the ports of the clients that believe, less
    the ports that the server has accepted.

Run it with C{python benchmarks/storm.py [--clients N] [--only NAME ...] [--json FILE]}.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import POLICIES, Outage, Storm, run  # noqa: E402
from report import Comparison, Goal, inTurns, parserFor, report  # noqa: E402
from workerprocess import WorkerProcess  # noqa: E402

OURS = "twisted_heartbeat"
REAL = [OURS, "ClientService", "ReconnectingClientFactory"]

DOWN = 3.0
"""Seconds between the death of the real server and the next."""

PROCESSES = 2
"""Processes for the clients, so that none is too slow for its share."""

BACKLOG = 50
"""As C{listenTCP} has it by default."""

AMPLE_BACKLOG = 4096
STARTS_A_SECOND = 1500
SLOWEST = 60.0
"""Seconds in which all must be connected before it begins."""

WAIT_LIMIT = 75.0
"""
Seconds after the server's return at which the rest are given up.  The kernel of a server that has
answered a SYN repeats that for 63 s, and who is accepted then was no phantom.
"""

QUIET = 3.0
"""Seconds for which all must be well before it is believed."""


# Simulated.


def simulate(
    outage: Outage, seeds: int, only: list[str]
) -> tuple[list[Comparison], dict[str, Any]]:
    """
    @return: the figures, and the attempts in each second, and the return, of one storm of each.
    """
    words = f"{outage.clients} clients, {outage.down:g} s down, {outage.accepts}/s accepted"
    first, busiest, back, recovery, each = figures = [
        Comparison(f"{words}: {what}", unit, goals=goals)
        for what, unit, goals in [
            ("attempts in the first second", "% of the fleet", {OURS: Goal(10)}),
            ("busiest second", "% of the fleet", {OURS: Goal(10)}),
            ("busiest second after the return", "% of the fleet", {OURS: Goal(3.5)}),
            ("99 % are back after", "s", {OURS: Goal(55)}),
            ("attempts of each client", "", {}),
        ]
    ]
    curves = {}
    for name in only:
        for seed in range(seeds):
            storm = run(outage, POLICIES[name], seed)
            first.add(name, 100 * storm.first)
            busiest.add(name, 100 * storm.busiest)
            back.add(name, 100 * storm.busiestAfterReturn)
            recovery.add(name, storm.recovery(0.99))
            each.add(name, storm.each)
            curves.setdefault(name, curvesOf(storm))
            print(f"simulated {name}, seed {seed}", file=sys.stderr, flush=True)
    return figures, curves


def curvesOf(storm: Storm) -> dict[str, list[float]]:
    """
    What a chart of a storm shows.
    """
    outage = storm.outage
    seconds = range(int(outage.down) + 480)
    recovered = Counter(int(after) for after in storm.recovered)
    back = 0.0
    curve = []
    for second in range(480):
        back += 100 * recovered[second] / outage.clients
        curve.append(round(back, 2))
    return {
        "attempts": [round(100 * storm.attempts[second] / outage.clients, 2) for second in seconds],
        "back": curve,
    }


# Real.


@dataclass
class Aftermath:
    """
    What came of a real one.

    @ivar attempts: in each second since the loss.
    @ivar phantoms: clients that believe at the end that they are connected, and are not.
    @ivar missing: clients that the server has not accepted at the end, including the phantoms.
    @ivar back: seconds from the server's return until all were; L{None} if they never were.
    """

    clients: int
    attempts: Counter[int]
    phantoms: int
    missing: int
    back: float | None

    @property
    def busiest(self) -> float:
        """
        The most attempts in one second, in percent of the fleet.
        """
        return 100 * max(self.attempts.values(), default=0) / self.clients


@contextmanager
def children(kind: str) -> Iterator[tuple[list[WorkerProcess], WorkerProcess, WorkerProcess]]:
    """
    The clients, the server, and the one that comes after it.
    """
    started: list[WorkerProcess] = []
    try:
        for script, *arguments in [["stormclients.py", kind]] * PROCESSES + [["broker.py"]] * 2:
            started.append(WorkerProcess(script, *arguments))
        *workers, broker, successor = started
        yield workers, broker, successor
    finally:
        for child in started:
            child.kill()


def askAll(children: list[WorkerProcess], command: str, **arguments: Any) -> list[Any]:
    """
    Ask all of them at the same time.
    """
    for child in children:
        child.tell(command, **arguments)
    return [child.answer() for child in children]


def kill(kind: str, clients: int) -> Aftermath:
    """
    Kill a server with a number of connected clients of one kind.
    """
    with children(kind) as (workers, broker, successor):
        port = broker.ask("listen", port=0, backlog=AMPLE_BACKLOG)
        share, rate = clients // PROCESSES, STARTS_A_SECOND // PROCESSES
        askAll(workers, "begin", port=port, count=share, rate=rate)
        clients, began = share * PROCESSES, monotonic()
        while len(broker.ask("connected")) < clients:
            if monotonic() - began > SLOWEST:
                raise SystemExit(f"not all of {clients} clients were connected in {SLOWEST:g} s")
            sleep(0.2)
        askAll(workers, "settle")
        killed = monotonic()
        broker.kill()
        sleep(max(0.0, killed + DOWN - monotonic()))
        successor.ask("listen", port=port, backlog=BACKLOG)
        return follow(workers, successor, clients, killed)


def follow(
    workers: list[WorkerProcess], broker: WorkerProcess, clients: int, killed: float
) -> Aftermath:
    """
    Wait until all are back, or patience is at its end.
    """
    returned = monotonic()
    attempts: Counter[int] = Counter()
    well: float | None = None
    while True:
        sleep(0.5)
        for tried in askAll(workers, "tried"):
            attempts.update(int(when - killed) for when in tried)
        *believing, connected = askAll(workers, "believing") + [broker.ask("connected")]
        phantoms = len(set().union(*believing) - set(connected))
        missing = clients - len(connected)
        now = monotonic()
        if phantoms or missing:
            well = None
        elif well is None:
            well = now
        if now - returned > WAIT_LIMIT or (well is not None and now - well > QUIET):
            back = None if well is None else well - returned
            return Aftermath(clients, attempts, phantoms, missing, back)


def storms(clients: int, turns: int, only: list[str]) -> tuple[list[Comparison], dict[str, Any]]:
    """
    @return: the figures, and the attempts in each second of one storm of each.
    """
    words = f"{clients} real clients, killed and back after {DOWN:g} s"
    phantoms, missing, busiest, back = figures = [
        Comparison(f"{words}: {what}", unit, goals=goals)
        for what, unit, goals in [
            ("phantoms at the end", "clients", {OURS: Goal(0)}),
            ("not back at the end", "clients", {OURS: Goal(0)}),
            ("busiest second", "% of the fleet", {OURS: Goal(10)}),
            ("all back after, where they were", "s", {}),
        ]
    ]
    curves: dict[str, list[float]] = {}
    for name in inTurns(only, turns=turns):
        storm = kill(name, clients)
        phantoms.add(name, storm.phantoms)
        missing.add(name, storm.missing)
        busiest.add(name, storm.busiest)
        if storm.back is not None:
            back.add(name, storm.back)
        seconds = range(max(storm.attempts, default=0) + 1)
        curves[name] = [round(100 * storm.attempts[second] / clients, 2) for second in seconds]
        print(f"real {name}: {storm}", file=sys.stderr, flush=True)
    return figures, curves


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, clients=300, simulated=1000, seeds=1)
    parser.add_argument("--clients", type=int, default=8000, help="of the real storm")
    parser.add_argument("--turns", type=int, default=1, help="real storms of each kind")
    parser.add_argument("--simulated", type=int, default=10_000, help="clients of the simulated")
    parser.add_argument("--seeds", type=int, default=5, help="simulated storms of each policy")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=POLICIES, default=[*POLICIES])
    options = parser.parse_args()
    found, curves = [], {}
    if options.simulated:
        figures, curves["simulated"] = simulate(
            Outage(clients=options.simulated), options.seeds, options.only
        )
        found += figures
    if options.clients:
        figures, curves["real"] = storms(
            options.clients, options.turns, [name for name in REAL if name in options.only]
        )
        found += figures
    report("storm", found, options.json, curves=curves)


if __name__ == "__main__":
    main()
