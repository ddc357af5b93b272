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
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from ..core.causes import Cause, ClosedHere, PeerClosed
from ..core.diagnosis import describeError, isOwnException
from ..logs import SafeLogger, guarded
from ..transport.instrument import findObserved, removeObserver
from ..transport.layers import abort, findConnection, isClosingLocally
from .cleanups import Cleanup, runCleanups
from .loss import causeOfLostLink, failureToTell
from .politeclose import CloseStep, PoliteClose
from .proof import speakerOf
from .state import LinkState

if TYPE_CHECKING:
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
        "_notified",
        "_waiters",
        "cleaned",
        "decidedAt",
        "hookFailed",
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
        self._notified = self.cleaned = False
        self.speaker: Link | None = None

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

    def peerSilent(self, diagnose: Callable[[], Cause], now: float) -> None:
        """
        End the link soon, because its peer was silent for the whole bound.

        @param diagnose: returns the cause.  It is called when the cause is needed, see
            L{diagnosisOf<twisted_heartbeat.link.silence.diagnosisOf>}.
        """
        link = self._link
        assert link is not None
        self.decidedAt = now
        if self.cause is None:
            self._diagnose = diagnose
        else:
            self.recordCause(diagnose(), now)
        self._enterClosing(link)
        link.config.wheel.callSoon(self._abort)

    def markRefused(self, cause: Cause) -> None:
        """
        Record the cause of a server that does not admit the peer.
        """
        link = self._link
        assert link is not None
        self.refused = True
        self.recordCause(cause, link.config.seconds())

    def connectedFailed(self, failure: Failure) -> None:
        """
        End the link, because a C{connected} hook has failed.
        """
        self.hookFailed = True
        link, error = self._link, failure.value
        if link is None:
            return
        cause = error if isinstance(error, Cause) else ClosedHere()
        if error is not None and error is not cause:
            cause = ClosedHere(f"the connected hook raised {describeError(error)}")
            cause.__cause__ = error
        link.abort(cause)

    # Closing.

    def close(self, cause: Cause, timeout: float | None, *, lingers: bool) -> None:
        """
        Close politely, as L{Link.close}.

        @param timeout: seconds without progress, after which the link is aborted; L{None} for no
            limit.
        """
        link = self._link
        assert link is not None
        transport = link.transport
        if link.session is not None:
            words = "{link} could not say goodbye"
            guarded(_log, words, link.session.sendGoodbye, link=link)
        self.recordCause(cause, link.config.seconds())
        connection = findConnection(transport)
        self._limitClosing(link, timeout)
        if timeout is None or connection is None or not lingers:
            transport.loseConnection()
            return
        # The peer closes first, where it is told goodbye.
        awaitsPeer = link.session is not None
        self._closing = PoliteClose(
            connection, link.config.seconds(), timeout, self._closingChanged, awaitsPeer=awaitsPeer
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
        self.recordCause(cause, link.config.seconds())
        self._limitClosing(link, link.config.limits.closeTimeout)
        self._due = min(self._due, link.peerWatch.detector.deadline)
        self._schedule(link)

    def abort(self, cause: Cause) -> None:
        """
        End the link at once, as L{Link.abort}.
        """
        link = self._link
        assert link is not None
        self.recordCause(cause, link.config.seconds())
        self._enterClosing(link)
        self._abort()

    def _abort(self) -> None:
        link = self._link
        if link is None or link.state is LinkState.GONE or self._abortTurnsLeft is not None:
            return
        # A silence is diagnosed by the connection, which is open for the last time.
        assert self.cause is not None
        self._abortTurnsLeft = _TURNS_UNTIL_LOST
        self._due = link.config.seconds()
        link.config.wheel.schedule(self, self._due)
        guarded(_log, "{link} could not be aborted", abort, link.transport, link=link)

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

    def _enterClosing(self, link: Link) -> None:
        """
        Enter the state C{closing}, if the link is not in it.  The peer is watched no more.
        """
        if link.state is not LinkState.CLOSING:
            link.state = LinkState.CLOSING
            self._stopWatching(link)
            if link.peerWatch.probes is not None:
                link.peerWatch.probes.tell(False)
            link.owner.linkClosing(link)

    def _stopWatching(self, link: Link) -> None:
        """
        Watch neither the handshake nor the peer nor the writes any more.
        """
        handshake, link.handshake = link.handshake, None
        if handshake is not None:
            handshake.cancel()
        link.peerWatch.stop()
        if link.writes is not None:
            link.writes.stop()

    def _limitClosing(self, link: Link, timeout: float | None) -> None:
        self._enterClosing(link)
        self._graceGiven = False
        self._due = link.config.seconds() + (timeout or inf)
        self._schedule(link)

    def _schedule(self, link: Link) -> None:
        if self._due < inf and (self.slot is None or self._due < self.slot.latest):
            link.config.wheel.schedule(self, self._due)

    def _closingChanged(self) -> None:
        """
        Look at the polite close in the reactor's next turn.
        """
        link, closing = self._link, self._closing
        if link is None:
            return
        if closing is not None and not (closing.over and link.state is LinkState.GONE):
            self._due = min(self._due, link.config.seconds())
            link.config.wheel.schedule(self, self._due)
        else:
            # The connection of a link that was released before.
            self._closing = None
            link.config.wheel.cancel(self)
            if self.cleaned:
                self._link = None

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
                self._abort()
            else:
                self._graceGiven = True
                self._due = now + min(lateness, link.config.limits.closeTimeout or 0.0)
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
            link.config.wheel.callSoon(closing.finish)
        elif link.state is LinkState.GONE:
            abort(link.transport)
        else:
            self._abort()

    def _loseConnection(self, link: Link) -> None:
        """
        Tell the protocol that the connection is lost, in place of the transport.
        """
        assert self.cause is not None
        words = "The protocol of {link} failed at its end"
        guarded(_log, words, link.loseProtocol, Failure(self.cause), link=link)

    # The end.

    def connectionLost(self, reason: Failure) -> Failure:
        """
        Record the cause, because the connection is lost.

        @return: the failure to tell the protocol.
        """
        link = self._link
        assert link is not None
        connection, error = link.peerWatch.connection, reason.value
        speaker = speakerOf(link)
        if speaker is not None and speaker is not link:
            # Kept, because a wrapper forgets its protocol when it has told it of the end.
            self.speaker = speaker
            # It knows more than its transport said, a goodbye's code for example.
            error = speaker.cause or error
        decided = self.cause is not None
        failed = connection is not None and (connection.lastErrno or connection.protocolError)
        # That a connection was aborted, and nothing else, tells nothing new of a link with a cause.
        if not decided or failed or type(error) is not ConnectionAborted:
            if connection is not None and not isinstance(error, Cause):
                error = connection.protocolError or error
            self.raised = isOwnException(error)
            self.recordCause(causeOfLostLink(link, error), link.config.seconds())
        assert self.cause is not None
        if self.cause.evidence is None and connection is not None:
            self.cause.evidence = connection.evidence
        self._closing = None
        self._due = inf
        link.config.wheel.cancel(self)
        self._stopWatching(link)
        link.state = LinkState.GONE
        return failureToTell(self.cause, reason, decided=decided)

    @property
    def isNotifyingProtocol(self) -> bool:
        """
        Whether the protocol is being told that the connection is lost.
        """
        return self._link is not None and self._link.state is LinkState.GONE and not self._notified

    def protocolNotified(self) -> None:
        """
        Fail what waits for the link, and tell the owner, after the protocol was told of the loss.
        """
        link, cause = self._link, self.cause
        assert link is not None and cause is not None
        self._notified = True
        if link.writes is not None:
            link.writes.fail(cause)
        observed = link.peerWatch.connection or findObserved(link.transport)
        if observed is not None:
            removeObserver(observed, link)
        if link.peerWatch.probes is not None:
            link.peerWatch.probes.tell(False)
        # Otherwise link and watch refer to each other.
        link.peerWatch.link = cast(Any, None)
        link.owner.linkLost(link, cause)

    def addCleanup(self, cleanup: Cleanup, link: Link) -> None:
        """
        Add a cleanup, or run it if the cleanups have begun.
        """
        if self._cleanups is not None:
            self._cleanups.append(cleanup)
        else:
            runCleanups([cleanup], link.config.clock, link.config.limits.cleanupTimeout, link)

    def cleanUp(self, limit: LogRateLimit | None = None) -> Deferred[None]:
        """
        Tell the observers that the link has ended, and run its cleanups, the last added first.

        @param limit: limits how many ends of strangers' links are logged; L{None} to log this end
            in any case.
        @return: fires when all of them have finished, or C{Limits.cleanupTimeout} is over.
        """
        cleanups, self._cleanups = self._cleanups, None
        if cleanups is None:
            return succeed(None)
        link, cause = self._link, self.cause
        assert link is not None and cause is not None
        link.logLimit = limit
        # A wrapper and its link refer to each other: no collector shall be needed for them.
        del link.outerProtocol
        event, config = "refused" if self.refused else "disconnected", link.config
        first = Cleanup(f"{event} hook", partial(config.events.emit, event, link, cause))
        steps = [first, *reversed(cleanups)]
        done = runCleanups(steps, config.clock, config.limits.cleanupTimeout, link)
        return done.addCallback(self._finish)

    def whenCleaned(self) -> Deferred[Cause]:
        """
        @return: fires with the cause once the cleanups have run.
        """
        if self.cleaned:
            assert self.cause is not None
            return succeed(self.cause)
        waiter: Deferred[Cause] = Deferred(self._forgetWaiter)
        self._waiters.append(waiter)
        return waiter

    def _finish(self, _: object) -> None:
        self.cleaned = True
        if self._closing is None:
            self._link = None
        waiters, self._waiters = self._waiters, []
        assert self.cause is not None
        for waiter in waiters:
            # The callback of one may have cancelled another.
            if not waiter.called:
                waiter.callback(self.cause)

    def _forgetWaiter(self, cancelled: Deferred[Cause]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter is not cancelled]


def noticeClose(link: Link) -> bool:
    """
    Find out whether the application or the peer's TLS has begun a polite close of a link.
    """
    connection = link.peerWatch.connection
    cause: Cause
    if isClosingLocally(link.transport):
        cause = ClosedHere()
    elif connection is not None and connection.disconnecting:
        # This side has not closed, so TLS has, at the peer's close_notify.
        cause = PeerClosed("the peer closed the connection (close_notify)")
    else:
        return False
    link.teardown.closingElsewhere(cause)
    return True
