# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{import twisted_heartbeat} costs a fresh interpreter over what any client with Twisted's own
service has loaded: which modules, and how many calls.  C{benchmarks/footprint.py} measures the time
and the memory, beside other packages.
"""

from __future__ import annotations

from functools import cache

import pytest

from ..support.interpreter import callsOf, loadedBy

PACKAGE = "twisted_heartbeat"

TWISTED = [
    "twisted.internet.protocol",
    "twisted.internet.endpoints",
    "twisted.application.internet",
]

# What only some users have a use for, and load by its own name.
LATER = ["__main__", "checkin", "cli", "demo", "endpoints", "tap", "testing"]

IMPORT_BUDGET = 1.18
"""
The calls that the import makes, as a multiple of those of Twisted's own.  Calls can be counted on a
busy machine and time can not: 1.14 of the calls took 1.20 of the time (C{benchmarks/footprint.py}).
A further module costs 0.0007 of them, because Python looks for its file.
"""


loadedBefore = cache(loadedBy)
"""Each of the tests compares with the same."""


def addedBy(statement: str) -> set[str]:
    """
    The modules that a statement loads over those of L{TWISTED}.
    """
    before = f"import {', '.join(TWISTED)}"
    return loadedBy(f"{before}\n{statement}") - loadedBefore(before)


def burdens(loaded: set[str]) -> list[str]:
    """
    What of this an idle process should not have to carry, one sentence each.
    """
    ours = {name for name in loaded if name.split(".")[0] == PACKAGE}
    found = [f"{name} is not ours" for name in sorted(loaded - ours)]
    found += [
        f"{name} is not for all"
        for name in sorted(ours)
        if any(f"{name}.".startswith(f"{PACKAGE}.{later}.") for later in LATER)
    ]
    return found


def test_importIsLight() -> None:
    """
    To import the package loads its own modules and nothing else that a client of Twisted's own has
    not loaded, nor those that serve the command line, endpoint strings, or tests.
    """
    loaded = addedBy(f"import {PACKAGE}")
    assert PACKAGE in loaded
    assert burdens(loaded) == []


@pytest.mark.parametrize(
    ("statement", "burden"),
    [
        (f"import {PACKAGE}, sqlite3", "sqlite3 is not ours"),
        (f"import {PACKAGE}.tap", f"{PACKAGE}.tap is not for all"),
        (f"import {PACKAGE}.testing", f"{PACKAGE}.testing.pipe is not for all"),
    ],
)
def test_burdenIsSeen(statement: str, burden: str) -> None:
    """
    The check above can fail: what comes from elsewhere is found, and what is not for all.
    """
    assert burden in burdens(addedBy(statement))


def importShare(statement: str) -> float:
    """
    The calls of L{TWISTED}'s import and a statement after it, as a multiple of the former.
    """
    twisted = f"import {', '.join(TWISTED)}"
    alone, together = callsOf(twisted, statement)
    return together / alone


def test_importKeepsItsBudget() -> None:
    """
    To import the package after Twisted makes at most L{IMPORT_BUDGET} of Twisted's own calls.
    """
    assert importShare(f"import {PACKAGE}") <= IMPORT_BUDGET


def test_slowImportIsSeen() -> None:
    """
    The check above can fail: an import that does more is over the budget.
    """
    assert (
        importShare(f"import {PACKAGE}.tap, {PACKAGE}.testing, asyncio, xmlrpc.server")
        > IMPORT_BUDGET
    )
