# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Every fault of the kernel suite.
"""

from __future__ import annotations

import pytest

from .kernel import Kernel
from .rows import ROWS, Row
from .variants import ROWS_OF

WITHIN = 180.0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, kernel: Kernel) -> None:
    """
    A fault is found within the bound and no sooner than 0.95 of it, or as soon as the kernel tells,
    has its true cause, ends and cleans up each link once, and the link is back when it is mended
    (promises 3, 8 to 11, 13, 15): plain and over TLS, watched by the client and by the server,
    idle, with data in flight and with a full send buffer.
    """
    outcomes = kernel.result(row.name, WITHIN)
    complaints = [complaint for outcome in outcomes for complaint in outcome.complaints]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("variant", list(ROWS_OF))
def test_variant(variant: str, kernel: Kernel) -> None:
    """
    The faults are named alike on each of Twisted's reactors and over IPv6, client and server, plain
    and TLS: what the kernel says gets through all of them (promise 11).
    """
    outcomes = kernel.result(variant, WITHIN)
    complaints = [complaint for outcome in outcomes for complaint in outcome.complaints]
    assert not complaints, "\n".join(complaints)


def test_bareTwisted(kernel: Kernel) -> None:
    """
    What bare Twisted does in the same rows is measured, too, and it needs what is promised here: it
    has not noticed a cut cable, nor a stopped peer, when all rows are done.
    """
    noticed = kernel.result("bare", WITHIN)
    for row in ("cut", "stopped"):
        assert noticed[row]
        assert all(each.reason is None for each in noticed[row]), noticed[row]


def test_nothingIsLeft(kernel: Kernel) -> None:
    """
    When all rows are done and every service is stopped, no socket and no delayed call is left, and
    no error was logged (promise 12).
    """
    for row in ROWS:
        kernel.result(row.name, WITHIN)
    kernel.rowsWatcher.tell("left")
    left = kernel.journal.last(kernel.rowsWatcher.pid, "left")
    assert left is not None
    assert (left["sockets"], left["calls"]) == ([], [])
    assert kernel.journal.all("error") == []
