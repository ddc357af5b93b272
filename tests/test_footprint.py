# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{import twisted_heartbeat} loads, in a fresh interpreter, over what any client with Twisted's
own service has loaded.  What that takes of time and memory, C{benchmarks/footprint.py} measures.
"""

from __future__ import annotations

import pytest

from .interpreter import loadedBy

PACKAGE = "twisted_heartbeat"

TWISTED = [
    "twisted.internet.protocol",
    "twisted.internet.endpoints",
    "twisted.application.internet",
]

# What only some users have a use for, and load by its own name.
LATER = ["__main__", "endpoints", "tap", "testing", "tunnel"]

MOST_MODULES = 28
"""Of the package's own.  Each is a file to find and to read; one more needs a reason."""


def addedBy(statement: str) -> set[str]:
    """
    The modules that a statement loads over those of L{TWISTED}.
    """
    before = f"import {', '.join(TWISTED)}"
    return loadedBy(f"{before}\n{statement}") - loadedBy(before)


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
    if not found and len(ours) > MOST_MODULES:
        found.append(f"{len(ours)} modules are more than {MOST_MODULES}")
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


def test_oneModuleMoreIsSeen() -> None:
    """
    The check above can fail: more modules than there are now are found.
    """
    loaded = addedBy(f"import {PACKAGE}")
    grown = loaded | {f"{PACKAGE}.more{number}" for number in range(MOST_MODULES)}
    assert burdens(loaded) == []
    assert burdens(grown) == [f"{len(grown)} modules are more than {MOST_MODULES}"]
