# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
One run of the kernel suite for the whole session, and its tables at the end; see L{Kernel}.  What
the tests of the session do not ask for is not run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from . import pauses, table, variants
from .bare_trials import BareTrial
from .kernel import Kernel
from .network import whyNot
from .rows import ROWS, Row
from .trials import Trial, runUntilSure

STAGGER = 1.6
"""Seconds between the beginnings of two rows, so that their connecting does not disturb others."""

BARE = "bare"

EXPERIMENTS: dict[str, tuple[float, Callable[[Kernel], Any]]] = {
    "own process stopped for 60 s": (0.0, pauses.stopProcess),
    "own wall clock stepped by an hour": (6.0, pauses.stepClock),
    "own reactor blocked in dataReceived": (
        22.0, partial(pauses.blockReactor, place="dataReceived")),
    "own reactor blocked in a delayed call": (27.0, partial(pauses.blockReactor, place="timer")),
    "own reactor blocked in a call from a thread": (
        35.0, partial(pauses.blockReactor, place="thread")),
    "1,000 links fall silent at once": (60.0, pauses.dropCrowd),
}  # fmt: skip
"""What runs beside the rows, and seconds after which it begins, lest all begin at once."""

BEGIN = 3.0
"""Seconds after which the rows begin: until then processes start."""

VARIANTS = {"poll": 30.0, "select": 40.0, "asyncio": 52.0, variants.IPV6: 12.0}
"""Seconds after which their rows begin."""

_RUN = pytest.StashKey[Kernel]()


def _wanted(session: pytest.Session, parameter: str) -> list[Any]:
    """
    What the tests of this session want of one kind.
    """
    return [
        item.callspec.params[parameter]
        for item in session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and parameter in item.callspec.params
    ]


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """
    The run of this session, with all that its tests want under way.
    """
    reason = whyNot()
    if reason is not None:
        pytest.skip(reason)
    run = Kernel()
    request.config.stash[_RUN] = run
    try:
        _begin(run, request.session)
        yield run
    finally:
        run.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """
    End the run with the last test of this folder: what its processes go on reporting is read by
    threads of this one, whose memory the tests of other folders would count as theirs.
    """
    run = item.config.stash.get(_RUN, None)
    if run is not None and (nextitem is None or nextitem.path.parent != item.path.parent):
        run.close()


def _begin(run: Kernel, session: pytest.Session) -> None:
    wantedRows, wantedExperiments = _wanted(session, "row"), _wanted(session, "experiment")
    rows = [row for row in ROWS if row in wantedRows]
    names = [name for name in EXPERIMENTS if name in wantedExperiments]
    others = [name for name in VARIANTS if name in _wanted(session, "variant")]
    alone = len(rows) + len(names) + len(others) == 1
    for name in names:
        wait, experiment = EXPERIMENTS[name]
        run.begin(name, partial(_later, 0.0 if alone else wait, partial(experiment, run)))
    for name in others:
        variant = partial(variants.run, run, name)
        run.begin(name, partial(_later, 0.0 if alone else VARIANTS[name], variant))
    if rows:
        _beginRows(run, rows)
    if len(rows) == len(ROWS):
        run.begin(BARE, BareTrial(run, rows).run)


def _later(seconds: float, call: Callable[[], Any]) -> Any:
    time.sleep(seconds)
    return call()


def _beginRows(run: Kernel, rows: list[Row]) -> None:
    watcher, peer = run.watcher(), run.peer()
    run.rowsWatcher = watcher
    for number, row in enumerate(rows):

        def makeTrial(prefix: str, row: Row = row) -> Trial:
            [lane] = run.lanes(1)
            return Trial(row, lane, run.journal, watcher, peer, run.peer, prefix=prefix)

        begin = BEGIN + number * STAGGER
        run.begin(row.name, partial(_later, begin, partial(runUntilSure, makeTrial)))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """
    Show what was measured and, if asked to, write it into the page.
    """
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    finished = run.finished()
    bare = finished.get(BARE, {})
    faults = table.faultTable(
        [(row, finished[row.name]) for row in ROWS if row.name in finished], bare
    )
    own = table.pauseTable({name: finished[name] for name in EXPERIMENTS if name in finished})
    for name, lines in {"faults": faults, "own": own}.items():
        if len(lines) > 1:
            terminalreporter.section(f"kernel suite: {name}")
            terminalreporter.write_line(table.asText(lines))
            if os.environ.get(table.WRITE):
                table.write(name, lines)
    if os.environ.get(table.WRITE):
        table.write("left", table.leftTable(ROWS))
