# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How often a living peer is found dead: traces of arrivals, see C{traces.py}, replayed through a
fixed timeout, Chen's detector, phi accrual and the package's own, see C{detectors.py}, all asked
for the same bound.

Counted are mistakes, how long each lasted until the peer was heard, and the time that it takes to
find a dead one: from the last byte, for that is what the bound is counted from.

Run it with C{python benchmarks/falseverdicts.py [--bound SECONDS] [--json FILE]}.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detectors import DETECTORS, replay  # noqa: E402
from report import Comparison, Goal, parserFor, report  # noqa: E402
from traces import TRACES  # noqa: E402

OURS = "twisted_heartbeat"


def compare(name: str, bound: float, count: int, seeds: int) -> list[Comparison]:
    """
    All detectors on one kind of trace.
    """
    words = f"{name}, bound {bound:g} s"
    # Stalls of the recorded trace are real silence; in the other traces each fault is known.
    goals: dict[str, Goal] = {OURS: Goal(0)} if name in ("normal", "own stalls") else {}
    mistakes = Comparison(f"{words}: mistakes", "in 10,000 heartbeats", "fixed timeout", goals)
    lasted = Comparison(f"{words}: a mistake lasts", "s")
    detection = Comparison(f"{words}: a dead peer is found after", "s")
    for seed in range(seeds):
        trace = TRACES[name](random.Random(seed), count)
        for detector, make in DETECTORS.items():
            record = replay(trace, make, bound)
            mistakes.add(detector, 10_000 * len(record.mistakes) / len(trace.arrivals))
            for duration in record.mistakes:
                lasted.add(detector, duration)
            for duration in record.detections:
                detection.add(detector, duration)
    return [mistakes, lasted, detection]


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, count=2000, seeds=1)
    parser.add_argument("--bound", type=float, default=3.0, help="seconds; a heartbeat takes one")
    parser.add_argument("--count", type=int, default=20_000, help="heartbeats of each trace")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.bound < 1.5:
        parser.error(f"--bound is {options.bound:g}: it must be at least 1.5")
    found: list[Comparison] = []
    curves: dict[str, Any] = {}
    for name in TRACES:
        seeds = 1 if name == "recorded" else options.seeds
        figures = compare(name, options.bound, options.count, seeds)
        found += figures
        mistakes, _, detection = (figure.rows() for figure in figures)
        curves[name] = {
            detector: [row["median"], detection[detector]["median"]]
            for detector, row in mistakes.items()
        }
    report("falseverdicts", found, options.json, bound=options.bound, curves=curves)


if __name__ == "__main__":
    main()
