# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Runs the demo and draws what it shows in a terminal: the picture at the top of the README.

The events of the first two faults are kept, and the table of all.  Run it with
C{python docs/record_demo.py [FILE]}; it needs the extras "demo" and "http".
"""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text
from twisted.internet.task import react

from twisted_heartbeat import Heartbeat
from twisted_heartbeat.demo.main import STARTING
from twisted_heartbeat.demo.results import KEPT
from twisted_heartbeat.demo.scenario import Demo
from twisted_heartbeat.demo.views import RichView, show

PICTURE = Path(__file__).resolve().parent / "_static" / "demo.svg"
COMMAND = "python -m twisted_heartbeat"
WIDTH = 112
"""Columns."""

SHOWN = 2
"""Faults whose events are shown."""


class Picture(RichView):
    """
    Draws what a terminal shows at the end, less the events of most faults.
    """

    def __init__(self, demo: Demo) -> None:
        console = Console(
            record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False
        )
        super().__init__(demo, console)
        self._faults = 0
        console.print(Text(f"$ {COMMAND}", style="bold"))
        console.print(STARTING)

    def say(self, event: str, words: str) -> None:
        self._faults += event == "FAULT"
        if self._faults <= SHOWN:
            super().say(event, words)

    def end(self) -> None:
        self.console.print("   ...")
        super().end()
        self.console.print("", KEPT, sep="\n")

    def svg(self) -> str:
        """
        Return the picture.
        """
        return self.console.export_svg(title="")


def main() -> None:
    """
    The command.

    @raise SystemExit: with the status of the demo, if it did not end as the picture says.
    """
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    pictures: list[Picture] = []

    def view(demo: Demo) -> Picture:
        pictures.append(Picture(demo))
        return pictures[0]

    try:
        react(partial(show, view=view), (Heartbeat.within(2),))
    except SystemExit as exited:
        if exited.code:
            raise
    into.write_text(pictures[0].svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
