# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The views of the demo: what a terminal of 80 columns shows.
"""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from twisted_heartbeat import CheckInMissed
from twisted_heartbeat.demo.results import FaultResult
from twisted_heartbeat.demo.settings import LONGEST_BOUND
from twisted_heartbeat.demo.views import Plain, RichView

EMPTY = FaultResult("peer gone 3 s", LONGEST_BOUND, silent=True, expected=CheckInMissed)
FILLED = replace(
    EMPTY, cause=CheckInMissed, detectedAfter=LONGEST_BOUND, cleanups=1, refused=17, backAfter=0.99
)
UNCLEAR = replace(FILLED, backAfter=1.1, late=[0.2])


def shown(*results: FaultResult) -> list[str]:
    """
    The lines of a table on a terminal of 80 columns.
    """
    pytest.importorskip("rich")
    from rich.console import Console

    demo: Any = SimpleNamespace(results=results)
    console = Console(width=80, file=io.StringIO())
    RichView(demo, console).end()
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_filledRowMovesNothing() -> None:
    """
    A row with the longest cells, of the longest bound, takes one line of 80 columns, and its
    columns are those of an empty row.
    """
    before, after = shown(EMPTY, EMPTY), shown(FILLED, UNCLEAR)
    assert len(before) == len(after)
    assert before[:-2] == after[:-2]
    cells = ["peer gone 3 s", "CheckInMissed", "15.00 (14.25-15.05)", "1 (1)"]
    starts = [after[-2].index(cell) for cell in cells]
    assert starts[1:] == [before[1].index(name) for name in ("cause", "detected", "cleanups")]
    assert [line.split()[-1] for line in after[-2:]] == ["kept", "unclear"]


def test_plainTableFits(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without rich, too, the longest row takes one line of 80 columns.
    """
    demo: Any = SimpleNamespace(results=[FILLED, UNCLEAR])
    Plain(demo).end()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80


def test_longWordsStandBelowTheirBeginning() -> None:
    """
    Words that are longer than the line go on below where they began.
    """
    pytest.importorskip("rich")
    from rich.console import Console

    demo: Any = SimpleNamespace(results=[])
    console = Console(width=80, file=io.StringIO())
    view = RichView(demo, console)
    view.say("disconnected", " ".join(["word"] * 20))
    first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.index("word") == second.index("word") == 22
    assert second[:22].strip() == ""
