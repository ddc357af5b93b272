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
 4. All has arrived, and the link drops the tracker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..core.causes import SendFailed, SendStalled
from ..core.detector import NEVER
from ..core.diagnosis import describeError
from ..transport.compat import markErrorHandled
from ..transport.layers import bytesBufferedAbove
from ..transport.tcpinfo import readEvidence
from ..transport.tls import usesTLS
from .teardown import noticeClose

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..timing.wheel import Slot
    from ..transport.connection import ObservedConnection
    from .link import Link

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
        "ackedMark",
        "drainedAt",
        "movedAt",
        "slot",
    )

    def __init__(self, link: Link, connection: ObservedConnection) -> None:
        self._link = link
        self._connection = connection
        self._stall = link.config.limits.sendStall
        self.slot: Slot | None = None
        self.movedAt = self._lookedAt = link.config.seconds()
        self.drainedAt = NEVER
        self.ackedMark = link.peerWatch.ackedMark
        # No list until a caller waits.
        self._waiting: list[tuple[int | None, Deferred[None]]] | None = None

    @classmethod
    def of(cls, link: Link, connection: ObservedConnection) -> WriteTracker:
        """
        Return the write tracker of a link.  It is made if there is none.
        """
        if link.writes is None:
            link.writes = cls(link, connection)
        return link.writes

    def dropIfIdle(self) -> None:
        """
        Remove this tracker from its link, if all has arrived and no caller waits.
        """
        connection = self._connection
        tracked = connection.writeTracked or self._waiting
        if not tracked and self.ackedMark == connection.bytesSent:
            self._link.peerWatch.ackedMark = self.ackedMark
            self._link.writes = None

    # The stall.

    def begin(self) -> None:
        """
        Watch the transport's buffer, because something waits there.
        """
        config = self._link.config
        self.movedAt = self._lookedAt = config.seconds()
        self.ackedMark = self._link.peerWatch.ackedMark = self._connection.bytesAcked()
        if self._stall is not None:
            config.wheel.schedule(self, self._nextLook(self._stall))

    def onTimer(self, now: float, lateness: float) -> float | None:
        connection, stall = self._connection, self._stall
        if stall is None or not connection.writeTracked or noticeClose(self._link):
            return None
        self._lookedAt = now
        acked = self.progressed(now)
        if acked == connection.bytesSent:
            # The kernel has room, so this process offered nothing.
            self.movedAt = self.drainedAt = now
        elif lateness > stall / STALL_LOOKS:
            self.movedAt = min(now, self.movedAt + lateness)
        # Where silence is watched, a full kernel queue alone is no stall: the ping waits there too.
        queueMatters = self._link.peerWatch.kind == "keepalive"
        if not connection.bytesBuffered() and not (queueMatters and acked < connection.bytesSent):
            self.drained()
            return None
        if now < self.movedAt + stall:
            return self._nextLook(stall)
        waiting = connection.bytesSent - acked + connection.bytesBuffered()
        words = f"{waiting} bytes wait, and none was taken for {now - self.movedAt:.3f} s"
        if connection.connected:
            connection.evidence = readEvidence(connection.socket)
        self._link.abort(SendStalled(words, evidence=connection.evidence))
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
        self.movedAt = self._link.config.seconds()
        self.dropIfIdle()

    def drained(self) -> None:
        """
        Watch the buffer no more, because it is empty.
        """
        self._connection.writeTracked = False
        self._link.config.wheel.cancel(self)
        self.dropIfIdle()
        self._link.peerWatch.findMode()

    def stop(self) -> None:
        """
        Leave the timer wheel, because the link is ending.
        """
        self._link.config.wheel.cancel(self)

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

    def handedOver(self) -> None:
        """
        Fire the Deferreds of what has been handed to the kernel.
        """
        waiting, connection = self._waiting, self._connection
        if waiting and waiting[-1][0] is None and not bytesBufferedAbove(self._link.transport):
            # The layers above are done, so the connection has now all that callers wait for.
            whole = connection.bytesSent + connection.bytesBuffered()
            waiting = [(whole if mark is None else mark, each) for mark, each in waiting]
            self._waiting = waiting
        sent = []
        while waiting and (mark := waiting[0][0]) is not None and mark <= connection.bytesSent:
            sent.append(waiting.pop(0)[1])
        connection.notifyOnWriteProgress = bool(waiting)
        self.dropIfIdle()
        for each in sent:
            each.callback(None)

    def fail(self, cause: Cause) -> None:
        """
        Fail the Deferreds of what was not handed to the kernel, because the link has ended.
        """
        self.handedOver()
        self._link.writes = None
        waiting, self._waiting = self._waiting, None
        for _, each in waiting or ():
            failQuietly(each, cause)


def send(link: Link, data: bytes) -> Deferred[None]:
    """
    Write to a link's peer, as L{Link.send<twisted_heartbeat.link.link.Link.send>}.
    """
    if link.cause is not None:
        return failed(link.cause)
    if not isinstance(data, bytes | bytearray | memoryview):
        return sendFailed(link, TypeError(f"{type(data).__name__} is no bytes"))
    limit, waiting = link.config.limits.maxBuffered, link.bytesBuffered
    if limit is not None and waiting + len(data) > limit:
        return failed(SendFailed(f"{waiting} bytes wait to be sent, and maxBuffered is {limit}"))
    try:
        link.transport.write(data)
    except BaseException as error:
        return sendFailed(link, error)
    if link.session is not None:
        link.session.markSent()
    return whenSent(link)


def whenSent(link: Link) -> Deferred[None]:
    """
    Wait until the kernel has taken all that has been written to a link so far.

    @return: fails with the link's cause if the link ends first.
    """
    connection = link.peerWatch.connection
    if connection is None:
        return succeed(None)
    # A layer above the connection may add bytes to the message, and write it later.
    above = usesTLS(link.transport) or bytesBufferedAbove(link.transport)
    return WriteTracker.of(link, connection).wait(not above)


def sendFailed(
    link: Link, error: BaseException, what: str = "the message could not be encoded"
) -> Deferred[None]:
    """
    End a link, because bytes that could not be sent leave a hole in the stream.

    @return: fails with L{SendFailed}.
    """
    cause = SendFailed(f"{what}: {describeError(error)}")
    cause.__cause__ = error
    link.abort(cause)
    return failed(cause)


def failed(cause: Cause) -> Deferred[None]:
    """
    Return a Deferred that has failed, see L{failQuietly}.
    """
    deferred: Deferred[None] = Deferred()
    failQuietly(deferred, cause)
    return deferred


def failQuietly(deferred: Deferred[None], cause: Cause) -> None:
    """
    Fail a Deferred that its receiver may ignore.  The hooks and the log tell the cause, so that an
    ignored failure must not be logged once more as an unhandled error.
    """
    deferred.errback(Failure(cause))
    markErrorHandled(deferred)
