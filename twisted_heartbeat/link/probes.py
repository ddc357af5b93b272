# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{probe}: make a peer speak now; and L{PendingProbes}: the callers that wait for its next word.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from ..core.causes import PeerClosed
from ..core.detector import NEVER, Decision

if TYPE_CHECKING:
    from ..core.settings import Heartbeat
    from .watch import PeerWatch

PROBE_RESULT_TTL = 1.0
"""Seconds for which a peer that has answered a probe is not probed again."""


class PendingProbes:
    """
    The probes of one peer.

    @ivar waiting: fire with whether the peer lives.
    """

    __slots__ = ("_answeredAt", "waiting")

    def __init__(self) -> None:
        self._answeredAt = NEVER
        self.waiting: list[Deferred[bool]] = []

    def isAnswerFresh(self, now: float) -> bool:
        """
        Whether the peer has answered a probe within L{PROBE_RESULT_TTL}.
        """
        return now < self._answeredAt + PROBE_RESULT_TTL

    def wait(self) -> Deferred[bool]:
        """
        Return a Deferred that fires with whether the peer lives.
        """
        probed: Deferred[bool] = Deferred()
        self.waiting.append(probed)
        return probed

    def answered(self, now: float) -> None:
        """
        Tell all callers that the peer lives.
        """
        self._answeredAt = now
        self.tell(True)

    def tell(self, lives: bool) -> None:
        """
        Fire all Deferreds that wait.
        """
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(lives)


def probe(watch: PeerWatch, heartbeat: Heartbeat | None, now: float) -> Deferred[bool]:
    """
    Make a peer speak now.

    @param heartbeat: how the link was to be watched; its C{timeout} is the probe's.
    @return: as of L{Link.probe<twisted_heartbeat.link.link.Link.probe>}.
    """
    watch.withdraw()
    connection, detector = watch.connection, watch.detector
    probes = watch.probes = watch.probes or PendingProbes()
    if connection is not None and connection.finReceived:
        probed = probes.wait()
        closeFinished(watch)
        return probed
    if detector.deadline == inf or probes.isAnswerFresh(now):
        return succeed(True)
    if connection is not None:
        connection.notifyOnRead = True
    probed = probes.wait()
    if watch.ping is not None and heartbeat is not None:
        if detector.probe(now, heartbeat.timeout) is Decision.PING:
            watch.sendPing(now)
        watch.reschedule()
    return probed


def closeFinished(watch: PeerWatch) -> None:
    """
    Close a link whose peer is probed and has closed its half: it cannot answer any more.
    """
    cause = PeerClosed("the peer has closed its half, so that it cannot answer a probe")
    watch.link.recordCause(cause)
    watch.link.close(cause)
