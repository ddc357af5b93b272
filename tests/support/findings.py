# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the conformance tester finds of several peers, and its words for a test that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from twisted_heartbeat.conformance.play import Findings

TRIES = 5

Peer = TypeVar("Peer")
Found = TypeVar("Found", Findings, "Findings | None")


def examineAll(
    peers: Sequence[Peer],
    examine: Callable[[Peer], Coroutine[Deferred[Any], Any, Found]],
    isEnough: Callable[[Peer, Found], object] = lambda *_: True,
) -> dict[Peer, Found]:
    """
    Examine peers side by side.

    On a machine with much other work the tester is late, knows it, and finds nothing for certain.
    So a peer of which something is doubtful, or too little was found, is examined again, with less
    at a time.
    """
    results: dict[Peer, Found] = {}
    for _ in range(TRIES):
        runs: list[Deferred[Found]] = [ensureDeferred(examine(peer)) for peer in peers]
        results |= zip(peers, pytest_twisted.blockon(gatherResults(runs)), strict=True)
        peers = [
            peer
            for peer in peers
            if (found := results[peer]) and (found.doubtful or not isEnough(peer, found))
        ]
    return results


def faultsOf(findings: Findings) -> list[str]:
    """
    The checks that failed: the rule, the scenario and what came.
    """
    return [f"{c.rule.id}: {c.scenario}: {c.came}" for c in findings.checks if not c.holds]
