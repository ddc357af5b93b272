# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the watcher's own process goes through: it is stopped, blocked, its clock is stepped, and a
thousand of its links fall silent at once.
"""

from __future__ import annotations

import pytest

from .kernel import Kernel
from .pauses import Found, findFaketime

WITHIN = 240.0

BLOCKED = [
    f"own reactor blocked in {place}"
    for place in ("dataReceived", "a delayed call", "a call from a thread")
]


def _require(found: Found) -> None:
    assert not found.complaints, "\n".join(found.complaints[:20])


@pytest.mark.parametrize("experiment", ["own process stopped for 60 s"])
def test_ownProcessStopped(experiment: str, kernel: Kernel) -> None:
    """
    Own process stopped for 60 s: no verdict on a peer that lives, and one within one more bound on
    a peer that is dead (promises 4, 7).
    """
    _require(kernel.result(experiment, WITHIN))


@pytest.mark.parametrize("experiment", BLOCKED)
def test_ownReactorBlocked(experiment: str, kernel: Kernel) -> None:
    """
    Own reactor blocked for longer than the bound, in C{dataReceived}, in a delayed call, in a call
    from a thread: no verdict on a peer that lives, and one within one more bound on a peer that is
    dead (promises 4, 7).
    """
    _require(kernel.result(experiment, WITHIN))


@pytest.mark.skipif(
    findFaketime() is None, reason="Stepping one process's clock needs libfaketime (faketime)."
)
@pytest.mark.parametrize("experiment", ["own wall clock stepped by an hour"])
def test_wallClockStepped(experiment: str, kernel: Kernel) -> None:
    """
    The wall clock steps by an hour either way: no live link dies, detection is not frozen, and
    neither is the wait before a retry (promise 5).
    """
    _require(kernel.result(experiment, WITHIN))


@pytest.mark.parametrize("experiment", ["1,000 links fall silent at once"])
def test_crowdFallsSilent(experiment: str, kernel: Kernel) -> None:
    """
    A thousand links fall silent in one tick: their verdicts keep the bound, and the evidence of
    each says how many fell together (promise 7).
    """
    _require(kernel.result(experiment, WITHIN))
