# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Sending}: what of a link's waits to be sent, how it progresses, and who waits for that.

Apart from the link, because from most of thousands of links nothing waits.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..core.detector import NEVER

STALL_LOOKS = 8
"""A send buffer is looked at so many times in C{Limits.sendStall}."""


class Sending:
    """
    How far it has come.  All times are seconds of the link's clock.

    @ivar movedAt: when the peer's kernel, or ours, has last taken something, or there was room.
    @ivar drainedAt: the same, as far as it has been seen to go on since the ping.
    @ivar lookedAt: when it was last looked at.
    """

    __slots__ = ("_waiting", "drainedAt", "lookedAt", "movedAt")

    def __init__(self, now: float) -> None:
        self.begin(now)
        self.drainedAt = NEVER
        # No list before anybody waits.
        self._waiting: list[tuple[int | None, Deferred[None]]] | None = None

    def begin(self, now: float) -> None:
        """
        Something waits.
        """
        self.movedAt = self.lookedAt = now

    def moved(self, when: float) -> None:
        """
        The peer's kernel has taken something.
        """
        self.movedAt = max(self.movedAt, when)
        self.drainedAt = max(self.drainedAt, when)

    def nextLook(self, stall: float) -> float:
        """
        When to look again, if it is to be noticed that nothing moves for so long.
        """
        return min(self.lookedAt + stall / STALL_LOOKS, self.movedAt + stall)

    # Who waits for it.

    @property
    def awaited(self) -> bool:
        """
        Whether anybody does.
        """
        return bool(self._waiting)

    def wait(self, mark: int | None) -> Deferred[None]:
        """
        @param mark: bytes of the connection that have to be sent for it; L{None} if that is not
            known yet, for a layer above it is still at work.
        @return: fires when they have been.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting = self._waiting or []
        self._waiting.append((mark, waiting))
        return waiting

    @property
    def unmarked(self) -> bool:
        """
        Whether it is not known of somebody what he waits for.
        """
        return bool(self._waiting and self._waiting[-1][0] is None)

    def mark(self, whole: int) -> None:
        """
        It is known now.

        @param whole: bytes that were handed to the connection.
        """
        self._waiting = [(whole if mark is None else mark, d) for mark, d in self._waiting or ()]

    def settled(self, sent: int) -> list[Deferred[None]]:
        """
        Take out those who have waited for no more than has been sent.
        """
        settled, waiting = [], self._waiting
        while waiting and (mark := waiting[0][0]) is not None and mark <= sent:
            settled.append(waiting.pop(0)[1])
        return settled

    def givenUp(self) -> list[Deferred[None]]:
        """
        Take out all.
        """
        waiting, self._waiting = self._waiting, None
        return [one for _, one in waiting or ()]
