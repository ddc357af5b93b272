# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Teardown}: the end of a link, from its cause to its last cleanup.

B{The problem.}  A link ends because its peer is silent, because a side closes it, or because the
transport loses the connection.  These overlap: a transport may lose the connection during a polite
close, and may never do so after an abort.  The cause, the protocol's C{connectionLost} and the
cleanups must still come exactly once.

B{The order}, whatever begins it:

 1. A cause is recorded.  The first one wins, and later ones are chained to it.
 2. The link is C{closing}: the teardown closes politely, aborts, or limits a close that another
    object has begun.  An abort is final.  If the transport has not lost the connection C{2} turns
    of the reactor after it, the teardown tells the protocol itself.
 3. The transport or the teardown calls C{connectionLost}.  The link is C{gone}.
 4. The owner calls L{Teardown.cleanUp}: observers, then the cleanups, the last added first.

B{The deadline.}  While the link is C{closing}, the teardown is a timer of its own.  A deadline of
the peer's is put off once, by the time in which this process did not run, and at least until the
reactor has polled the socket again.

B{Cost.}  A link has a teardown only from the first cleanup, waiter or cause on, because most of
thousands of links have none of these.  Link and teardown refer to each other until the end of step
4, so that no garbage collector is needed for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..core.diagnosis import causeOfLoss, isOwnException
from ..logs import SafeLogger, guarded
from ..timing.wheel import reactorStopped
from ..transport.layers import abort, findConnection, isClosingLocally
from ..transport.tls import certificateRefused, usesTLS
from .cleanups import Cleanup, runCleanups
from .politeclose import CloseStep, PoliteClose
from .state import LinkState

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot
    from .link import Link

_log = SafeLogger()

_TURNS_UNTIL_LOST = 2
"""Turns of the reactor that a transport has to lose a connection that it was told to abort."""


class Teardown:
    """
    The end of one link.

    @ivar decidedAt: when the cause was recorded, in seconds of the link's clock; L{None} until
        then.
    @ivar refused: whether a server did not admit the peer.
    @ivar hookFailed: whether a C{connected} hook failed.
    @ivar raised: whether the protocol raised, and that ended the link.
    @ivar speaker: another link of the connection, which speaks the built-in protocol; L{None} where
        there is none.
    @ivar protocolNotified: whether the protocol has been told that the connection is lost.
    @ivar logLimit: limits how many ends of such links are logged; L{None} for no limit.
    @ivar cleaned: whether the cleanups have run.
    @ivar slot: the timer wheel's mark.
    """

    __slots__ = (
        "_abortTurnsLeft",
        "_cause",
        "_cleanups",
        "_closing",
        "_diagnose",
        "_due",
        "_graceGiven",
        "_link",
        "_waiters",
        "cleaned",
        "decidedAt",
        "hookFailed",
        "logLimit",
        "protocolNotified",
        "raised",
        "refused",
        "slot",
        "speaker",
    )

    def __init__(self, link: Link) -> None:
        self._link: Link | None = link
        self._cause: Cause | None = None
        self._diagnose: Callable[[], Cause] | None = None
        self._due = inf
        self._graceGiven = False
        self._abortTurnsLeft: int | None = None
        self._closing: PoliteClose | None = None
        self._cleanups: list[Cleanup] | None = []
        self._waiters: list[Deferred[Cause]] = []
        self.slot: Slot | None = None
        self.decidedAt: float | None = None
        self.refused = self.hookFailed = self.raised = False
        self.protocolNotified = self.cleaned = False
        self.speaker: Any = None
        self.logLimit: LogRateLimit | None = None

    # The cause.

    @property
    def cause(self) -> Cause | None:
        """
        Why the link ends; L{None} until that is decided.
        """
        if self._diagnose is not None:
            diagnose, self._diagnose = self._diagnose, None
            self._cause = diagnose()
        return self._cause

    def recordCause(self, cause: Cause, now: float) -> None:
        """
        Keep the first cause, and chain a later one to it.
        """
        first = self.cause
        if first is None:
            self._cause = cause
            if self.decidedAt is None:
                self.decidedAt = now
        elif first is not cause and first.__cause__ is None:
            first.__cause__ = cause

    def recordDiagnosis(self, diagnose: Callable[[], Cause], now: float) -> None:
        """
        Record what C{diagnose} returns, and call that once the cause is needed.  To ask the kernel
        takes longer than to decide, and a thousand peers may be found dead in one tick.
        """
        self.decidedAt = now
        if self.cause is None:
            self._diagnose = diagnose
        else:
            self.recordCause(diagnose(), now)

    def _causeOfLoss(self, link: Link, reason: Failure) -> Cause:
        connection, transport = link._peerWatch.connection, link._transport
        raised = None if connection is None else connection.protocolError
        error = raised or reason.value
        self.raised = isOwnException(error)
        speaker = link._speaker
        if speaker is not None and speaker is not link:
            # Kept, because a wrapper forgets its protocol when it has told it of the end.
            self.speaker = speaker
            # It knows more than its transport said, a goodbye's code for example.
            error = speaker.cause or error
        found = causeOfLoss(
            error,
            number=None if connection is None else connection.lastErrno,
            finished=connection is not None and connection.finReceived,
            closedHere=isClosingLocally(transport),
            handshaking=link.state is LinkState.HANDSHAKING and usesTLS(transport),
            reactorStopped=reactorStopped(link.clock),
            refused=certificateRefused(transport) or getattr(connection, "certificateError", ""),
        )
        self.recordCause(found, link.seconds())
        cause = self.cause
        assert cause is not None
        if cause.evidence is None and connection is not None:
            cause.evidence = connection.evidence
        return cause

    # Closing.

    def close(self, cause: Cause, timeout: float | None, *, lingers: bool) -> None:
        """
        Close politely, as L{Link.close}.

        @param timeout: seconds without progress, after which the link is aborted; L{None} for no
            limit.
        """
        link = self._link
        assert link is not None
        transport = link._transport
        if link.session is not None:
            words = "{link} could not say goodbye"
            guarded(_log, words, link.session.sendGoodbye, link=link)
        self.recordCause(cause, link.seconds())
        connection = findConnection(transport)
        self._limitClosing(link, timeout)
        if timeout is None or connection is None or not lingers:
            transport.loseConnection()
            return
        # The peer closes first, where it is told goodbye.
        awaitsPeer = link.session is not None
        self._closing = PoliteClose(
            connection, link.seconds(), timeout, self._closingChanged, awaitsPeer=awaitsPeer
        )
        self._closing.begin(transport)
        self._closingChanged()

    def closingElsewhere(self, cause: Cause) -> None:
        """
        Limit a polite close that the application or the peer's TLS has begun.  Nothing is heard any
        more, and Twisted would wait for ever on a buffer that cannot drain.
        """
        link = self._link
        assert link is not None
        self.recordCause(cause, link.seconds())
        self._limitClosing(link, link.closeTimeout)
        self._due = min(self._due, link.detector.deadline)
        self._schedule(link)

    def abort(self, cause: Cause) -> None:
        """
        End the link at once, as L{Link.abort}.
        """
        link = self._link
        assert link is not None
        self.recordCause(cause, link.seconds())
        link.enterClosing()
        if self._abortTurnsLeft is not None:
            return
        self._abortTurnsLeft = _TURNS_UNTIL_LOST
        self._due = link.seconds()
        self._schedule(link)
        guarded(_log, "{link} could not be aborted", abort, link._transport, link=link)

    def release(self) -> None:
        """
        End the link now if it is closing politely, as L{Link.release}.
        """
        link, closing, due = self._link, self._closing, self._due
        if link is None or closing is None or self._abortTurnsLeft is not None:
            return
        if link.state is LinkState.CLOSING:
            self._loseConnection(link)
            if not closing.over:
                self._link, self._closing, self._due = link, closing, due
                self._schedule(link)

    def _limitClosing(self, link: Link, timeout: float | None) -> None:
        link.enterClosing()
        self._graceGiven = False
        self._due = link.seconds() + (timeout or inf)
        self._schedule(link)

    def _schedule(self, link: Link) -> None:
        if self._due < inf and (self.slot is None or self._due < self.slot.latest):
            link.wheel.schedule(self, self._due)

    def _closingChanged(self) -> None:
        """
        Look at the polite close in the reactor's next turn.
        """
        link, closing = self._link, self._closing
        if link is None:
            return
        if closing is not None and not (closing.over and link.state is LinkState.GONE):
            self._due = min(self._due, link.seconds())
            self._schedule(link)
        else:
            # The connection of a link that was released before.
            self._closing = None
            link.wheel.cancel(self)
            self._forgetLink()

    def onTimer(self, now: float, lateness: float) -> float | None:
        link = self._link
        if link is None:
            return None
        if now >= self._due:
            if self._abortTurnsLeft is not None:
                self._awaitLoss(link, self._abortTurnsLeft)
            elif self._closing is not None:
                self._lookAtClosing(link, self._closing, now, lateness)
            elif self._graceGiven:
                self._abortOverdue(link)
            else:
                self._graceGiven = True
                self._due = now + min(lateness, link.closeTimeout or 0.0)
        return self._due if self._due < inf else None

    def _awaitLoss(self, link: Link, turnsLeft: int) -> None:
        if turnsLeft > 1:
            self._abortTurnsLeft = turnsLeft - 1
        else:
            self._due = inf
            self._loseConnection(link)

    def _lookAtClosing(self, link: Link, closing: PoliteClose, now: float, lateness: float) -> None:
        step = closing.look(now, lateness)
        if step is CloseStep.WAIT:
            self._due = closing.due
            return
        self._due = inf
        if step is CloseStep.FINISH:
            link.wheel.callSoon(closing.finish)
        elif link.state is LinkState.GONE:
            abort(link._transport)
        else:
            self._abortOverdue(link)

    def _abortOverdue(self, link: Link) -> None:
        assert self.cause is not None
        link.abort(self.cause)

    def _loseConnection(self, link: Link) -> None:
        """
        Tell the protocol that the connection is lost, in place of the transport.
        """
        assert self.cause is not None
        link.connectionLosing()
        words = "The protocol of {link} failed at its end"
        guarded(_log, words, link.outerProtocol.connectionLost, Failure(self.cause), link=link)

    # The end.

    def connectionLost(self, reason: Failure) -> Cause:
        """
        Stop closing, because the connection is lost.

        @return: why.
        """
        link = self._link
        assert link is not None
        cause = self._causeOfLoss(link, reason)
        self._closing = None
        self._due = inf
        link.wheel.cancel(self)
        return cause

    def addCleanup(self, cleanup: Cleanup) -> bool:
        """
        Add a cleanup.

        @return: L{False}, with nothing changed, if the cleanups have begun.
        """
        if self._cleanups is None:
            return False
        self._cleanups.append(cleanup)
        return True

    def cleanUp(self, limit: LogRateLimit | None) -> Deferred[None]:
        """
        Tell the observers that the link has ended, and run its cleanups, as L{Link.cleanUp}.
        """
        cleanups, self._cleanups = self._cleanups, None
        if cleanups is None:
            return succeed(None)
        link, cause = self._link, self.cause
        assert link is not None and cause is not None
        self.logLimit = limit
        # A wrapper and its link refer to each other: no collector shall be needed for them.
        del link._outerProtocol
        event, config = "refused" if self.refused else "disconnected", link._config
        first = Cleanup(f"{event} hook", partial(config.events.emit, event, link, cause))
        steps = [first, *reversed(cleanups)]
        done = runCleanups(steps, config.clock, config.limits.cleanupTimeout, link)
        return done.addCallback(lambda _: self._finish())

    def whenCleaned(self) -> Deferred[Cause]:
        """
        @return: fires with the cause once the cleanups have run.
        """
        waiter: Deferred[Cause] = Deferred(self._forgetWaiter)
        self._waiters.append(waiter)
        if self.cleaned:
            self._notifyWaiters()
        return waiter

    def _finish(self) -> None:
        self.cleaned = True
        if self._closing is None:
            self._forgetLink()
        self._notifyWaiters()

    def _forgetLink(self) -> None:
        if self.cleaned:
            self._link = None

    def _notifyWaiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        assert self.cause is not None
        for waiter in waiters:
            # The callback of one may have cancelled another.
            if not waiter.called:
                waiter.callback(self.cause)

    def _forgetWaiter(self, cancelled: Deferred[Cause]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter is not cancelled]
