# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How the benchmarks take turns, and what they print and write.

The machine's speed drifts, so all that is compared takes turns in one run, and each is compared
with the base of its own turn; the median of these ratios is what counts, and the quartiles say how
sure it is.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Any

import twisted


def inTurns(names: Sequence[str], *, turns: int, seconds: float = 0.0) -> Iterator[str]:
    """
    Whose turn it is; each turn begins with another.

    @param turns: the fewest.
    @param seconds: for how long to go on with more of them.
    """
    deadline = monotonic() + seconds
    turn = 0
    while turn < turns or monotonic() < deadline:
        first = turn % len(names)
        yield from [*names[first:], *names[:first]]
        turn += 1


@dataclass(frozen=True)
class Goal:
    """
    What a figure may come to.

    @ivar limit: the highest value that will do.
    @ivar of: what it holds for: C{"median"}, C{"ratio"} to the base, or what is C{"over"} the base.
    @ivar least: whether it is the lowest value that will do, instead.
    """

    limit: float
    of: str = "median"
    least: bool = False

    def met(self, value: float) -> bool:
        """
        Whether a value will do.
        """
        return value >= self.limit if self.least else value <= self.limit

    @property
    def sign(self) -> str:
        """
        How a value that will do compares with the limit.
        """
        return ">=" if self.least else "<="


class Comparison:
    """
    One figure of several contestants.

    @ivar title: what was measured.
    @ivar unit: of what.
    @ivar base: the contestant that the others are compared with; L{None} to compare none.
    @ivar samples: what each turn came to, by contestant.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        base: str | None = None,
        goals: dict[str, Goal] | None = None,
    ) -> None:
        self.title = title
        self.unit = unit
        self.base = base
        self.goals = goals or {}
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """
        One more turn of a contestant.
        """
        self.samples.setdefault(name, []).append(value)

    def rows(self) -> dict[str, dict[str, Any]]:
        """
        What it comes to, by contestant.
        """
        return {name: self._row(name, values) for name, values in self.samples.items()}

    def _row(self, name: str, values: list[float]) -> dict[str, Any]:
        row: dict[str, Any] = {"turns": len(values), **_spread("", values)}
        base = self.samples.get(self.base or "")
        if base is not None and name != self.base:
            pairs = list(zip(values, base, strict=False))
            row |= _spread("over", [value - other for value, other in pairs])
            if all(base):
                row |= _spread("ratio", [value / other for value, other in pairs])
        goal = self.goals.get(name)
        if goal is not None and goal.of in row:
            row |= {"goal": goal.limit, "goalOf": goal.of, "goalSign": goal.sign}
            row["met"] = goal.met(row[goal.of])
        return row

    def table(self) -> str:
        """
        The same, for people.
        """
        rows = self.rows()
        width = max(map(len, [*rows, "contestant"]))
        heads = [f"{self.unit} (quartiles)", "x base (quartiles)", "over base", "goal", ""]
        lines = [self.title, "  " + "contestant".ljust(width) + _cells(heads)]
        lines += ["  " + name.ljust(width) + _cells(_told(row)) for name, row in rows.items()]
        return "\n".join(lines)


def _spread(name: str, values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    # Of two values the quartiles would lie outside of them.
    return {
        name or "median": round(median(values), 4),
        f"{name}Low" if name else "low": round(max(low, min(values)), 4),
        f"{name}High" if name else "high": round(min(high, max(values)), 4),
    }


def _told(row: dict[str, Any]) -> list[str]:
    def spread(middle: str, low: str, high: str, form: str) -> str:
        if middle not in row:
            return ""
        return f"{row[middle]:{form}} ({row[low]:{form}} .. {row[high]:{form}})"

    goal = f"{row['goalOf']} {row['goalSign']} {row['goal']:g}" if "goal" in row else ""
    return [
        spread("median", "low", "high", ",.4g" if row["median"] < 1000 else ",.0f"),
        spread("ratio", "ratioLow", "ratioHigh", ".2f"),
        f"{row['over']:+,.4g}" if "over" in row else "",
        goal,
        {True: "met", False: "MISSED", None: ""}[row.get("met")],
    ]


def _cells(cells: list[str]) -> str:
    widths = [30, 24, 13, 18, 8]
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def report(benchmark: str, found: Iterable[Comparison], path: Path | None, **about: Any) -> None:
    """
    Print the tables, and write the JSON.

    @param path: where to write; L{None} for nowhere.
    @param about: what else to say of the run.
    """
    found = list(found)
    print("\n\n".join(comparison.table() for comparison in found), flush=True)
    if path is None:
        return
    written = {
        "benchmark": benchmark,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "system": platform.platform(),
        **about,
        "comparisons": {
            each.title: {"unit": each.unit, "base": each.base, "rows": each.rows()}
            for each in found
        },
    }
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


class Quick(argparse.Action):
    """
    C{--quick}: sets other options, which may be given after it.
    """

    def __init__(self, *, quick: dict[str, Any], **keywords: Any) -> None:
        super().__init__(nargs=0, **keywords)
        self._quick = quick

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """
        See C{argparse.Action}.
        """
        for name, value in self._quick.items():
            setattr(namespace, name, value)


def parserFor(description: str | None, **quick: Any) -> argparse.ArgumentParser:
    """
    What all of the commands take.

    @param description: the first sentence of it is shown.
    @param quick: the options that make it a matter of seconds.
    """
    words = (description or "").strip().partition("\n\n")[0]
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    told = " ".join(f"--{name} {_option(value)}" for name, value in quick.items())
    parser.add_argument(
        "--quick",
        action=Quick,
        quick=quick,
        dest=argparse.SUPPRESS,
        help=f"only to see that it runs: {told}",
    )
    return parser


def _option(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
