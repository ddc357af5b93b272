# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The views of the demonstration: a live table on a terminal, or plain lines.
"""

from __future__ import annotations

import sys
from collections import deque
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import LoopingCall

from .results import HEADINGS, LEGEND, WIDTHS, judge
from .scenario import Demo
from .settings import BROKEN, INTERRUPTED, WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Heartbeat

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
        print(self._line(event, words), flush=True)

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

    def _line(self, event: str, words: str) -> str:
        return f"{monotonic() - self._began:6.2f} s  {event:12}  {words}"


class LiveView(Plain):
    """
    Shows the demo as a live table, drawn by rich.
    """

    def __init__(self, demo: Demo) -> None:
        from rich.live import Live

        super().__init__(demo)
        self._lines: deque[str] = deque(maxlen=6)
        self._live = Live(auto_refresh=False)
        self._live.start()
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.start(0.1, now=False)

    def say(self, event: str, words: str) -> None:
        self._lines.append(self._line(event, words))

    def end(self) -> None:
        self._refreshing.stop()
        self._live.update(self._table())
        self._live.stop()

    def _refresh(self) -> None:
        from rich.console import Group
        from rich.text import Text

        lines = (Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines)
        self._live.update(Group(self._table(), self._gauge(), "", *lines), refresh=True)

    def _table(self) -> Any:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for heading, width in zip(HEADINGS, WIDTHS, strict=True):
            table.add_column(heading, min_width=width, no_wrap=heading != "cause named")
        for result in self._demo.results:
            cells = result.cells()
            table.add_row(*cells, style=ROW_STYLES.get(cells[-1]))
        return table

    def _gauge(self) -> str:
        service = self._demo.service
        if service is None or service.link is None or service.link.bound is None:
            return "no link" if service is None else f"no link, {service.state}"
        link, bound = service.link, service.link.bound
        filled = min(40, round(40 * link.silence / bound))
        bar = "\N{FULL BLOCK}" * filled + "\N{LIGHT SHADE}" * (40 - filled)
        return f"link {link.generation}, {link.state:9}  {bar}  silent for {link.silence:.1f} s"


async def show(reactor: Any, heartbeat: Heartbeat) -> NoReturn:
    """
    Run the demo, and print the broken promises.

    @raise SystemExit: always; with 0 if every result kept the promise.
    """
    lively = sys.stdout.isatty() and find_spec("rich") is not None
    demo = Demo(reactor, heartbeat, LiveView if lively else Plain)
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
    print(LEGEND, *words, sep="\n")
    raise SystemExit(status)
