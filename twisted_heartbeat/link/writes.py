# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{WriteTracker}: what a link has to send, how far that has come, and when it stalls.

Two parties wait for written bytes: the callers of C{send}, for their Deferreds, and
C{Limits.sendStall}, for a peer whose kernel takes nothing.  From most of thousands of links nothing
waits, so a link makes its tracker when something does, and drops it when all has arrived.

States of a tracker, by what waits:

 1. C{connection.writeTracked}: bytes went through the transport's buffer, and are not seen to have
    left it.  Only then is the tracker on the timer wheel, for the stall limit.
 2. Nothing is in the buffer, but some Deferred has not fired, because TLS still holds its bytes.
 3. Nothing waits here, but bytes in the kernel's queue are unacknowledged: what the tracker has
    seen to drain may yet explain why a ping is unanswered.
 4. All has arrived: L{WriteTracker.isIdle}, and the link drops the tracker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from ..core.causes import SendStalled
from ..core.detector import NEVER
from ..transport.tcpinfo import readEvidence

if TYPE_CHECKING:
    from ..timing.wheel import Slot, TimerWheel
    from ..transport.connection import ObservedConnection
    from .interfaces import WriteListener

STALL_LOOKS = 8
"""Looks at a send buffer in each C{Limits.sendStall}."""


class WriteTracker:
    """
    The progress of one link's writes.  All times are seconds of the link's clock.

    @ivar ackedMark: bytes that the peer's kernel had acknowledged at the last look.
    @ivar movedAt: when either kernel last took something, or had room.
    @ivar drainedAt: the same, but not reset when more is written.
    """

    __slots__ = (
        "_connection",
        "_link",
        "_lookedAt",
        "_stall",
        "_waiting",
        "_wheel",
        "ackedMark",
        "drainedAt",
        "movedAt",
        "slot",
    )

    def __init__(
        self,
        link: WriteListener,
        connection: ObservedConnection,
        wheel: TimerWheel,
        stall: float | None,
        ackedMark: int,
    ) -> None:
        """
        @param stall: C{Limits.sendStall}.
        """
        self._link = link
        self._connection = connection
        self._wheel = wheel
        self._stall = stall
        self.slot: Slot | None = None
        self.movedAt = self._lookedAt = wheel.seconds()
        self.drainedAt = NEVER
        self.ackedMark = ackedMark
        # No list until a caller waits.
        self._waiting: list[tuple[int | None, Deferred[None]]] | None = None

    # The stall.

    def begin(self) -> None:
        """
        Watch the transport's buffer, because something waits there.
        """
        self.movedAt = self._lookedAt = self._wheel.seconds()
        self.ackedMark = self._connection.bytesAcked()
        if self._stall is not None:
            self._wheel.schedule(self, self._nextLook(self._stall))

    def onTimer(self, now: float, lateness: float) -> float | None:
        connection, stall = self._connection, self._stall
        if stall is None or not connection.writeTracked or self._link.noticeClose():
            return None
        self._lookedAt = now
        acked = self.progressed(now)
        if acked == connection.bytesSent:
            # The kernel has room, so this process offered nothing.
            self.movedAt = self.drainedAt = now
        elif lateness > stall / STALL_LOOKS:
            self.movedAt = min(now, self.movedAt + lateness)
        # Where silence is watched, a full kernel queue alone is no stall: the ping waits there too.
        if not connection.bytesBuffered() and not (
            self._link.queueMatters and acked < connection.bytesSent
        ):
            self.drained()
            return None
        if now < self.movedAt + stall:
            return self._nextLook(stall)
        waiting = connection.bytesSent - acked + connection.bytesBuffered()
        words = f"{waiting} bytes wait, and none was taken for {now - self.movedAt:.3f} s"
        if connection.connected:
            connection.evidence = readEvidence(connection.socket)
        self._link.writesStalled(SendStalled(words, evidence=connection.evidence))
        return None

    def _nextLook(self, stall: float) -> float:
        return min(self._lookedAt + stall / STALL_LOOKS, self.movedAt + stall)

    def progressed(self, now: float) -> int:
        """
        Note whether the peer's kernel has taken more than at the last look, and since when.

        @return: bytes that it has acknowledged.
        """
        connection = self._connection
        acked = connection.bytesAcked()
        if acked != self.ackedMark:
            evidence = readEvidence(connection.socket)
            since = now - (0.0 if evidence is None else evidence.sinceAck or 0.0)
            self.ackedMark = acked
            self.movedAt = max(self.movedAt, since)
            self.drainedAt = max(self.drainedAt, since)
        return acked

    def arrived(self) -> None:
        """
        Note that the peer's kernel has all that was sent.
        """
        self.ackedMark = self._connection.bytesSent
        self.movedAt = self._wheel.seconds()

    def drained(self) -> None:
        """
        Watch the buffer no more, because it is empty.
        """
        self._connection.writeTracked = False
        self._wheel.cancel(self)
        self._link.writesDrained()

    def stop(self) -> None:
        """
        Leave the timer wheel, because the link is ending.
        """
        self._wheel.cancel(self)

    @property
    def isIdle(self) -> bool:
        """
        Whether all has arrived, and no caller waits.
        """
        connection = self._connection
        return (
            not connection.writeTracked
            and not self._waiting
            and self.ackedMark == connection.bytesSent
        )

    # The callers of send.

    def wait(self, whole: bool) -> Deferred[None]:
        """
        Return a Deferred that fires once what has been written so far has been sent.

        @param whole: whether the connection has all of it; otherwise a layer above the connection
            is still at work, and how many bytes it makes of it is not known yet.
        """
        connection = self._connection
        connection.notifyOnWriteProgress = True
        mark = connection.bytesSent + connection.bytesBuffered() if whole else None
        waiting: Deferred[None] = Deferred()
        self._waiting = self._waiting or []
        self._waiting.append((mark, waiting))
        return waiting

    @property
    def hasUnmarked(self) -> bool:
        """
        Whether a caller waits for bytes that the connection did not have yet.
        """
        return bool(self._waiting and self._waiting[-1][0] is None)

    def mark(self) -> None:
        """
        Note that the connection has now all that callers wait for.
        """
        whole = self._connection.bytesSent + self._connection.bytesBuffered()
        self._waiting = [(whole if mark is None else mark, d) for mark, d in self._waiting or ()]

    def takeSent(self) -> list[Deferred[None]]:
        """
        Take out the Deferreds of what has been handed to the kernel.
        """
        sent, waiting, size = [], self._waiting, self._connection.bytesSent
        while waiting and (mark := waiting[0][0]) is not None and mark <= size:
            sent.append(waiting.pop(0)[1])
        self._connection.notifyOnWriteProgress = bool(waiting)
        return sent

    def takeAll(self) -> list[Deferred[None]]:
        """
        Take out all Deferreds, because the link has ended.
        """
        waiting, self._waiting = self._waiting, None
        return [deferred for _, deferred in waiting or ()]
