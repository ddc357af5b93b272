# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CloseProgress}: decides how long a polite close may take, and when it is complete.
"""

from __future__ import annotations

from enum import Enum

from .liveness import PUNCTUAL

LONGEST_CLOSE = 12
"""A polite close takes at most this many times its timeout, whatever the progress."""

LINGER = 1.0
"""
Seconds that a connection without a goodbye is kept open once the peer's kernel has acknowledged all
bytes, while bytes of the peer are still arriving.
"""

_LOOKS = 8
"""Looks at the progress within one timeout, so that progress is noticed at most 1/8 of it late."""

_SHORTEST_LOOK = 0.005
"""Seconds between two looks at a connection whose close is about to be complete."""


class CloseStep(Enum):
    """
    What to do with a connection that is being closed.
    """

    WAIT = "wait"
    FINISH = "finish"
    ABORT = "abort"


class CloseProgress:
    """
    The progress of one polite close.

    Only bytes of this side that the peer's kernel newly acknowledges are progress.  Received bytes
    are none, because a peer that sends and never reads would otherwise hold the connection open.

    @ivar due: when to call L{decide} next, in seconds.
    """

    __slots__ = (
        "_acknowledged",
        "_awaitsPeer",
        "_completedAt",
        "_lastLookAt",
        "_latest",
        "_progressedAt",
        "_timeout",
        "due",
    )

    def __init__(self, now: float, timeout: float, acknowledged: int, *, awaitsPeer: bool) -> None:
        """
        @param timeout: seconds without progress after which the connection is aborted.
        @param acknowledged: bytes that the peer's kernel has acknowledged so far.
        @param awaitsPeer: whether the peer closes the connection, because it is told goodbye.
        """
        self._timeout = timeout
        self._awaitsPeer = awaitsPeer
        self._acknowledged = acknowledged
        self._latest = now + LONGEST_CLOSE * timeout
        self._progressedAt = now
        self._completedAt: float | None = None
        self._lastLookAt: float | None = None
        self.due = self._nextLook(now)

    def decide(
        self, now: float, lateness: float, acknowledged: int, *, complete: bool, unread: bool
    ) -> CloseStep:
        """
        Decide what to do now.

        @param lateness: seconds by which this look is late, because this process did not run.
        @param acknowledged: bytes that the peer's kernel has acknowledged.
        @param complete: whether these are all bytes, and the FIN has been sent.
        @param unread: whether bytes of the peer wait to be read, or are still expected.
        """
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self._progressed(now)
        if complete and self._completedAt is None:
            self._completedAt = now
            self._progressed(now)
        finishes = self._completedAt is not None and not self._awaitsPeer
        if finishes and not unread:
            return CloseStep.FINISH
        if now >= self._deadline:
            if self._lastLookAt is None:
                # The reactor reads once more first, because the peer's FIN may have come meanwhile.
                # A process that did not run has sent nothing either: it gets that time again.
                away = min(lateness, self._timeout) if lateness > PUNCTUAL else 0.0
                self._lastLookAt = self.due = now + away
            elif now >= self._lastLookAt:
                return CloseStep.FINISH if finishes else CloseStep.ABORT
        else:
            self.due = self._nextLook(now)
        return CloseStep.WAIT

    def _progressed(self, now: float) -> None:
        self._progressedAt = now
        if now < self._latest:
            self._lastLookAt = None

    @property
    def _deadline(self) -> float:
        lingers = self._completedAt is not None and not self._awaitsPeer
        patience = min(LINGER, self._timeout) if lingers else self._timeout
        return min(self._progressedAt + patience, self._latest)

    def _nextLook(self, now: float) -> float:
        longest = self._timeout / _LOOKS
        if not self._awaitsPeer:
            # Nothing tells this process that an acknowledgement has come.
            longest = min(longest, max(_SHORTEST_LOOK, (now - self._progressedAt) / 2))
        return min(self._deadline, now + longest)
