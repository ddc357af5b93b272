# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The views of the demonstration: a live table on a terminal, or plain lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import LoopingCall

from .results import HEADINGS, LEGEND, NO_JOB, WIDTHS, judge
from .scenario import Demo
from .settings import BROKEN, INTERRUPTED, WAIT_LIMIT

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

    from .. import Heartbeat

EVENT_STYLES = {
    "FAULT": "bold yellow",
    "connected": "green",
    "disconnected": "red",
    "suspected": "yellow",
}
ROW_STYLES = {"kept": "green", "unclear": "yellow", "broken": "red"}


class Plain:
    """
    Shows the demo line by line.
    """

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._began = monotonic()

    def say(self, event: str, words: str) -> None:
        """
        Show an event.
        """
        print(f"{self._time()} {event:12}  {words}", flush=True)

    def end(self) -> None:
        """
        Show the results.
        """
        lines = [HEADINGS, *(result.cells() for result in self._demo.results)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * width for width in widths))
        print()
        for line in lines:
            print("  ".join(map(str.ljust, line, widths)).rstrip())

    def _time(self) -> str:
        return f"{monotonic() - self._began:5.2f} s"


class RichView(Plain):
    """
    Shows the demo line by line, drawn by rich.
    """

    def __init__(self, demo: Demo, console: Console) -> None:
        super().__init__(demo)
        self.console = console

    def say(self, event: str, words: str) -> None:
        self.console.print(self.line(event, words))

    def end(self) -> None:
        self.console.print(self.table())

    def line(self, event: str, words: str) -> Table:
        """
        Return an event as a line.
        """
        from rich.table import Table
        from rich.text import Text

        # The words have a column of their own, so that the lines of long words begin below it.
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(
            Text.assemble((self._time(), "dim"), " ", (f"{event:12}", EVENT_STYLES.get(event, ""))),
            Text(words, style="bold yellow" if event == "FAULT" else ""),
        )
        return line

    def table(self, *below: str) -> Group:
        """
        Return the results as a table, with lines below it.
        """
        from rich.box import SIMPLE
        from rich.console import Group
        from rich.table import Table

        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for heading, width in zip(HEADINGS, WIDTHS, strict=True):
            table.add_column(heading, min_width=width, no_wrap=True)
        for result in self._demo.results:
            cells = result.cells()
            table.add_row(*cells, style=ROW_STYLES.get(cells[-1]))
        return Group("", table, *below)


class LiveView(RichView):
    """
    Shows the events line by line, and below them the table, which is drawn anew all the time.
    """

    def __init__(self, demo: Demo) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(demo, Console(highlight=False))
        self._said: list[Table] = []
        self._live = Live(console=self.console, auto_refresh=False)
        self._live.start()
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.start(0.1, now=False)

    def say(self, event: str, words: str) -> None:
        # To draw takes ten milliseconds, by which timers that are due now would be late.
        self._said.append(self.line(event, words))

    def end(self) -> None:
        self._refreshing.stop()
        self._draw(self.table())
        self._live.stop()

    def _refresh(self) -> None:
        self._draw(self.table(self._gauge()))

    def _draw(self, table: Group) -> None:
        said, self._said = self._said, []
        self._live.update(table)
        if said:
            # Above the table, which is drawn after it.
            self.console.print(*said)
        else:
            self._live.refresh()

    def _gauge(self) -> str:
        service = self._demo.service
        if service is None or service.link is None or service.link.bound is None:
            return "no link" if service is None else f"no link, {service.state}"
        link, bound = service.link, service.link.bound
        filled = min(40, round(40 * link.silence / bound))
        bar = "\N{FULL BLOCK}" * filled + "\N{LIGHT SHADE}" * (40 - filled)
        return f"link {link.generation}, {link.state:9}  {bar}  silent for {link.silence:.1f} s"


async def show(
    reactor: Any, heartbeat: Heartbeat, view: Callable[[Demo], Plain] | None = None
) -> NoReturn:
    """
    Run the demo, and print the broken promises.

    @param view: by default, what the standard output can show.
    @raise SystemExit: always; with 0 if every result kept the promise.
    """
    if view is None:
        lively = sys.stdout.isatty() and find_spec("rich") is not None
        view = LiveView if lively else Plain
    demo = Demo(reactor, heartbeat, view)
    running = Deferred.fromCoroutine(demo.perform())

    def interrupt() -> Deferred[None]:
        running.cancel()
        return running

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    givenUp = None
    try:
        await running
    except CancelledError:
        raise SystemExit(INTERRUPTED) from None
    except TimeoutError:
        givenUp = f"Given up: what was to come next did not, in {WAIT_LIMIT:g} s."
    words, status = judge(demo.results)
    if givenUp is not None:
        words, status = [givenUp, *words], BROKEN
    print(LEGEND if demo.job is not None else LEGEND + NO_JOB, *words, sep="\n")
    raise SystemExit(status)
