# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The table of what was measured: for the end of the session, and for C{docs/faults.md}.

C{python tests/system/kernel/table.py --write} runs the suite and puts its tables into that page.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bare_trials import Noticed
    from .pauses import Found
    from .rows import Row
    from .trials import Outcome

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "faults.md"

WRITE = "KERNEL_SUITE_WRITE"
"""The environment variable that has the session write its tables into the page."""

COLUMNS = {
    "idle": "idle",
    "data": "data in flight",
    "full": "full send buffer",
    "stall": "full, sendStall 1 s",
    "quick": "idle, bound 0.7 s",
    "keepalive": "keepalive alone",
}

BEGIN, END = "<!-- measured: {} -->", "<!-- end of {} -->"

Table = list[list[str]]


def faultTable(
    results: Sequence[tuple[Row, list[Outcome]]], bare: dict[str, list[Noticed]]
) -> Table:
    """
    A line for each fault.
    """
    head = ["fault", *COLUMNS.values(), "back after", "bare Twisted"]
    lines = []
    for row, outcomes in results:
        loads = [_ofLoad([o for o in outcomes if o.cell.load == load]) for load in COLUMNS]
        backs = [outcome.back for outcome in outcomes if outcome.back is not None]
        noticed = bareWords(bare[row.name]) if row.name in bare else ""
        lines.append([row.title, *loads, _range(backs), noticed])
    return [head, *lines]


def _ofLoad(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return ""
    said = [(outcome.cause or "no verdict").split(" or ") for outcome in outcomes]
    causes = sorted({cause for causes in said for cause in causes})
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    wrong = " (!)" if any(outcome.complaints for outcome in outcomes) else ""
    return f"{' or '.join(causes)} {_range(seconds)}".strip() + wrong


def _range(seconds: Iterable[float]) -> str:
    """
    From the least to the most, in seconds.
    """
    ordered = sorted(f"{each:.2f}" for each in seconds)
    if not ordered:
        return ""
    least, most = ordered[0], ordered[-1]
    return f"{least} s" if least == most else f"{least}–{most} s"


def bareWords(noticed: list[Noticed]) -> str:
    """
    What bare Twisted made of a row.
    """
    byWords: dict[str, list[Noticed]] = {}
    for each in noticed:
        words = _wordsOfAttempts(each) if each.attempts else _words(each)
        byWords.setdefault(words, []).append(each)
    if len(byWords) == 1:
        return next(iter(byWords))
    parts = [f"{_whose(group, noticed)}: {words}" for words, group in byWords.items()]
    return "; ".join(parts)


def _words(each: Noticed) -> str:
    if each.reason is None:
        return f"nothing noticed in {each.watched:.0f} s"
    return f"{each.reason} {'at once' if each.seconds < 1.5 else f'after {each.seconds:.0f} s'}"


def _wordsOfAttempts(each: Noticed) -> str:
    """
    How new connections, none of which is any good, are taken.
    """
    if each.cell.side == "server":
        return "each connection taken for good" + ("" if each.ended else ", without end")
    if not each.taken:
        return f"{each.failed} failed attempts in {each.watched:.0f} s"
    if each.ended:
        return f"{each.taken} connections taken for good in {each.watched:.0f} s"
    return f"connection taken for good, nothing noticed in {each.watched:.0f} s"


def _whose(group: list[Noticed], everyone: list[Noticed]) -> str:
    """
    What those of a group have in common, and no more than that.
    """
    parts = []
    for get in (
        lambda one: one.cell.load,
        lambda one: "TLS" if one.cell.secure else "plain",
        lambda one: one.cell.side,
    ):
        values = list(dict.fromkeys(get(one) for one in group))
        if len(values) < len({get(one) for one in everyone}):
            parts.append("/".join(values))
    return " ".join(parts) or "else"


def pauseTable(results: dict[str, Found]) -> Table:
    """
    A line for each thing that happened to the watcher itself.
    """
    lines = []
    for name, found in results.items():
        figures = [
            f"{what}: {value:.0f}" if value == int(value) else f"{what}: {value:.2f} s"
            for what, value in found.figures.items()
        ]
        lines.append([name, "no" if found.complaints else "yes", "; ".join(figures)])
    return [["what happened", "as promised", "longest"], *lines]


def leftTable(rows: Iterable[Row]) -> Table:
    """
    A line for each fault that does not strike all kinds of connections.
    """
    return [["fault", "what is left out, and why"], *([r.title, r.left] for r in rows if r.left)]


def asText(table: Table) -> str:
    """
    For a terminal.
    """
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]])  # noqa: B905
        for line in table
    )


def asMarkdown(table: Table) -> str:
    """
    For the page.
    """
    head, *lines = (f"| {' | '.join(line)} |" for line in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *lines])


def write(name: str, table: Table) -> None:
    """
    Put a table into its place in the page.

    @raise ValueError: if the page has no such place.
    """
    page = PAGE.read_text(encoding="utf-8")
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE} has no place for the table {name!r}")
    page = f"{before}{begin}\n\n{asMarkdown(table)}\n\n{end}{after}"
    PAGE.write_text(page, encoding="utf-8")


def main() -> int:
    """
    Run the suite.

    @return: its exit code.
    """
    environment = dict(os.environ)
    if "--write" in sys.argv[1:]:
        environment[WRITE] = "1"
    command = [sys.executable, "-m", "pytest", "-q", str(FOLDER)]
    return subprocess.run(command, env=environment, cwd=FOLDER.parent.parent).returncode


if __name__ == "__main__":
    sys.exit(main())
