# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{BareTrial}: the same rows with bare Twisted in the watcher's place, all at once, and for as long
as the suite has time.  Nothing is mended: what is measured is how long it takes to notice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .cells import BARE_LOADS, Cell
from .faults import Peer
from .kernel import Kernel
from .network import Lane
from .rows import Row
from .trials import SPEAKS_WITHIN, cellsOf

WAIT_LIMIT = 50.0
"""Seconds for which bare Twisted is given the chance to notice."""


@dataclass(frozen=True)
class Noticed:
    """
    What bare Twisted made of a fault on one cell.

    @ivar reason: what C{connectionLost} was told; L{None} if nothing was noticed.
    @ivar seconds: after which.
    @ivar attempts: whether the fault strikes attempts, and not a link.
    @ivar taken: connections that were taken for good while the fault lasted.
    @ivar ended: how many of them ended.
    @ivar failed: attempts that were taken for failed.
    @ivar watched: seconds for which it was watched.
    """

    cell: Cell
    reason: str | None
    seconds: float
    attempts: bool
    taken: int
    ended: int
    failed: int
    watched: float = WAIT_LIMIT


class BareTrial:
    """
    All rows, with bare Twisted.
    """

    def __init__(self, kernel: Kernel, rows: list[Row]) -> None:
        self._kernel = kernel
        self._journal = kernel.journal
        self._rows = rows
        self._peers: list[Peer] = []
        self._struck: list[float] = []

    def run(self) -> dict[str, list[Noticed]]:
        """
        Connect all, strike all, wait.

        @return: by row.
        """
        kernel, lanes = self._kernel, self._kernel.lanes(len(self._rows))
        bare, shared = kernel.bare(), kernel.peer()
        for row, lane in zip(self._rows, lanes, strict=True):
            cells = cellsOf(row, lane, BARE_LOADS, prefix="bare-", mended=False)
            process = kernel.peer() if row.ownPeer else shared
            self._peers.append(Peer(process, cells, kernel.peer))
        everyone = [cell for peer in self._peers for cell in peer.cells]
        bare.tell("meet", [cell for cell in everyone if cell.side == "server"])
        for peer in self._peers:
            peer.tell("meet")
        bare.tell("meet", [cell for cell in everyone if cell.side == "client"])
        self._journal.wait(
            lambda: all(self._journal.of(cell, "spoke") for cell in everyone), SPEAKS_WITHIN
        )
        time.sleep(1.0)
        self._strikeAll(lanes)
        time.sleep(WAIT_LIMIT)
        return {
            row.name: [self._noticed(row, cell, struck) for cell in peer.cells]
            for row, peer, struck in zip(self._rows, self._peers, self._struck, strict=True)
        }

    def _strikeAll(self, lanes: list[Lane]) -> None:
        for row, lane, peer in zip(self._rows, lanes, self._peers, strict=True):
            self._struck.append(time.monotonic())
            row.fault.strike(lane, peer)
            row.fault.follow(lane, peer)

    def _noticed(self, row: Row, cell: Cell, struck: float) -> Noticed:
        def after(name: str) -> list[float]:
            return [event["at"] for event in self._journal.of(cell, name) if event["at"] > struck]

        lost = [e for e in self._journal.of(cell, "protocolLost") if e["at"] > struck]
        return Noticed(
            cell=cell,
            reason=lost[0]["reason"] if lost else None,
            seconds=lost[0]["at"] - struck if lost else WAIT_LIMIT,
            attempts=row.strikesAttempts,
            taken=len(after("connected")),
            ended=len(lost) - 1,
            failed=len(after("attemptFailed")),
        )
