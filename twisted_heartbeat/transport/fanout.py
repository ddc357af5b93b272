# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two links of one connection, one above the other: both are told what the connection sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ..core.detector import FailureDetector
    from .connection import ConnectionObserver, ObservedConnection


class DetectorFanout:
    """
    Stands for the L{FailureDetector} of two links of one connection, one above the other.
    """

    __slots__ = ("_above", "_below")

    def __init__(self, below: Any, above: FailureDetector) -> None:
        self._below = below
        self._above = above

    def _heard(self, now: float) -> None:
        self._below.heardAt = self._above.heardAt = now

    heardAt = property(None, _heard)


class ObserverFanout:
    """
    Tells the same two.
    """

    __slots__ = ("_above", "_below", "_witness")

    def __init__(
        self, witness: ObservedConnection, below: ConnectionObserver, above: ConnectionObserver
    ) -> None:
        self._witness = witness
        self._below = below
        self._above = above

    def without(self, observer: ConnectionObserver) -> ConnectionObserver:
        """
        Return the observer that is left when one of them goes.
        """
        below, above = self._below, self._above
        if observer is above:
            return below
        if observer is below:
            return above
        if isinstance(below, ObserverFanout):
            self._below = below.without(observer)
        return self

    def writeStarted(self) -> None:
        self._below.writeStarted()
        self._above.writeStarted()

    def writeProgressed(self) -> None:
        self._below.writeProgressed()
        awaited = self._witness.notifyOnWriteProgress
        self._above.writeProgressed()
        self._witness.notifyOnWriteProgress = self._witness.notifyOnWriteProgress or awaited

    def dataDelivered(self) -> None:
        self._below.dataDelivered()
        self._above.dataDelivered()

    def dataArriving(self) -> None:
        self._below.dataArriving()
        self._above.dataArriving()

    def activity(self) -> None:
        self._below.activity()
        self._above.activity()

    def peerClosedWrite(self) -> None:
        self._below.peerClosedWrite()
        self._above.peerClosedWrite()

    def connectionLosing(self) -> None:
        self._below.connectionLosing()
        self._above.connectionLosing()

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        self._above.connectionLostUnnoticed(reason)
        self._below.connectionLostUnnoticed(reason)
