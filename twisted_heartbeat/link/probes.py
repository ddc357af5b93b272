# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PendingProbes}: the callers that wait for a peer's next word.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..core.detector import NEVER

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
