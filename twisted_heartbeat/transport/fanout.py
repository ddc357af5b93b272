# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two links of one connection, one above the other: both are told what the connection sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ..core.detector import Liveness
    from .connection import Sender, Witness


class _Hearers:
    """
    Stands for the L{Liveness} of two links of one connection, one above the other.
    """

    __slots__ = ("_above", "_below")

    def __init__(self, below: Any, above: Liveness) -> None:
        self._below = below
        self._above = above

    def _heard(self, now: float) -> None:
        self._below.heardAt = self._above.heardAt = now

    heardAt = property(None, _heard)


class _Senders:
    """
    Tells the same two.
    """

    __slots__ = ("_above", "_below", "_witness")

    def __init__(self, witness: Witness, below: Sender, above: Sender) -> None:
        self._witness = witness
        self._below = below
        self._above = above

    def sendBegan(self) -> None:
        self._below.sendBegan()
        self._above.sendBegan()

    def sendProgressed(self) -> None:
        self._below.sendProgressed()
        awaited = self._witness.awaited
        self._above.sendProgressed()
        self._witness.awaited = self._witness.awaited or awaited

    def suspectSpoke(self) -> None:
        self._below.suspectSpoke()
        self._above.suspectSpoke()

    def chunkComes(self) -> None:
        self._below.chunkComes()
        self._above.chunkComes()

    def leaveRound(self) -> None:
        self._below.leaveRound()
        self._above.leaveRound()

    def peerFinished(self) -> None:
        self._below.peerFinished()
        self._above.peerFinished()

    def connectionEnds(self) -> None:
        self._below.connectionEnds()
        self._above.connectionEnds()

    def lostUnheard(self, reason: Failure) -> None:
        self._above.lostUnheard(reason)
        self._below.lostUnheard(reason)
