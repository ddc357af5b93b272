# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Runs the demo and draws what it printed: the picture at the top of the README.

The events of the first two faults are kept, and the table of all.  Run it with
C{python docs/record_demo.py [FILE]}.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parent / "_static" / "demo.svg"
COMMAND = "python -m twisted_heartbeat"
STYLES = {
    r"\bFAULT .*": "bold yellow",
    r"\bsuspected\b": "yellow",
    r"\bdisconnected\b": "red",
    r"\bconnected\b": "green",
    r"\bPeer\w+|\bConnectFailed\b": "bold",
    r"\bkept\b": "bold green",
    r"\bbroken\b": "bold red",
    r"^ *[\d.]+ s ": "dim",
}
SHOWN = 2
"""Faults whose events are shown."""


def excerpt(lines: Iterable[str]) -> list[str]:
    """
    Choose the lines of the picture: the events of some faults, the table, and the last line.
    """
    events: list[str] = []
    rest: list[str] = []
    for line in lines:
        (rest if rest or line.startswith("fault ") else events).append(line)
    faults = [place for place, line in enumerate(events) if "FAULT" in line]
    table = rest[: rest.index("")]
    return [*events[: faults[SHOWN]], "   ...", "", *table, "", rest[-1]]


def draw(lines: Iterable[str]) -> str:
    """
    Draw lines of a terminal as an SVG picture.
    """
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in lines:
        text = Text(line)
        for pattern, style in STYLES.items():
            text.highlight_regex(pattern, style)
        console.print(text, no_wrap=True, overflow="ellipsis")
    return console.export_svg(title="")


def main() -> None:
    """
    The command.
    """
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    command = [sys.executable, *COMMAND.split()[1:]]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    into.write_text(draw(excerpt(run.stdout.splitlines())), encoding="utf-8")


if __name__ == "__main__":
    main()
