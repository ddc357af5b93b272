# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerWatch}: one peer, watched individually.

A watch joins what one peer's liveness needs: the L{FailureDetector}, which decides; the ping, which
makes the peer speak; the connection, which stamps what it receives into C{detector.heardAt}; and
this end's own promise to speak.  The timer wheel calls L{PeerWatch.onTimer} when one of them is
due, and that is the whole of the ordinary path::

    onTimer -> detector.decide -> ping | suspect | recover | silent

The watch tells its link when the peer is suspected or has recovered, and the link's teardown of a
silence that has lasted for the whole bound.

L{Mode} says what may be assumed of the connection.  From C{STEADY} on nothing but heartbeats goes
on, as on most of many links: the fast C{decideFast} is asked first, pings go straight to the
kernel, and from C{BATCHABLE} on the watch may be suspended because a batch does its work.  A write
through the transport's buffer ends both; they begin again when the buffer is empty.
"""

from __future__ import annotations

from math import inf
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred

from ..batching.places import commonPhase
from ..core.detector import NEVER, Decision, FailureDetector
from ..core.quiet import checksSuspended
from ..core.wire.pings import SharedPing
from ..logs import SafeLogger
from ..transport.layers import isReadingPaused, isServerSide
from .mode import Mode
from .probes import closeFinished
from .silence import diagnosisOf
from .teardown import noticeClose
from .usercode import startPing
from .writes import WriteTracker, sendFailed

if TYPE_CHECKING:
    from ..batching.pinground import LastPing, Pinger
    from ..core.settings import Heartbeat
    from ..timing.wheel import Slot
    from ..transport.connection import ObservedConnection
    from .config import Ping
    from .link import Link
    from .probes import PendingProbes

_log = SafeLogger()

_OFF, _OBSERVED, _DIRECT = Mode.OFF, Mode.OBSERVED, Mode.DIRECT
_STEADY, _BATCHABLE = Mode.STEADY, Mode.BATCHABLE


class PeerWatch:
    """
    The watch of one link's peer.

    @ivar link: the L{Link}; L{None} before there is a connection, and once the link has ended.
    @ivar detector: decides from silence; the connection assigns its C{heardAt}.
    @ivar connection: the connection under the transport; L{None} if it does not tell of its bytes.
    @ivar mode: what may be assumed of the connection, a number of L{Mode}.
    @ivar heartbeat: how the peer is watched; L{None} if its silence proves nothing.
    @ivar kind: how the peer is watched: C{"ping"}, C{"passive"}, or C{"keepalive"} if nothing can
        make the peer speak and its silence therefore proves nothing.
    @ivar ping: makes the peer speak; L{None} where nothing can.
    @ivar pinger: what a batch pings with; L{None} while no batch may.
    @ivar probes: the callers that wait for the peer's next word; L{None} before the first.
    @ivar ackedMark: bytes of the connection that are known to have arrived.
    @ivar lastPingEnd: the number of bytes sent up to the end of the last ping.
    @ivar pausedUnseen: whether reading was paused on a transport that does not remember it.
    """

    __slots__ = (
        "_firstPingEnd",
        "link",
        "ackedMark",
        "connection",
        "detector",
        "heartbeat",
        "kind",
        "lastPingEnd",
        "mode",
        "pausedUnseen",
        "ping",
        "pinger",
        "probes",
        "slot",
    )

    def __init__(self, heartbeat: Heartbeat | None, ping: Ping | None) -> None:
        # Set when there is a connection: a link and its watch refer to each other, and the
        # collector would be needed for each link that never gets one.
        self.link: Link = cast(Any, None)
        self.probes: PendingProbes | None = None
        self._firstPingEnd = self.lastPingEnd = self.ackedMark = 0
        self.connection: ObservedConnection | None = None
        self.detector = FailureDetector(None, 0.0)
        self.heartbeat = heartbeat
        self.mode: int = _OFF
        self.pausedUnseen = False
        self.ping = ping
        self.pinger: Pinger | None = ping
        self.slot: Slot | None = None
        self.kind = _kindOf(heartbeat, ping)

    def __repr__(self) -> str:
        return f"<PeerWatch of {self.link!r}>"

    @property
    def awaitsData(self) -> bool:
        """
        Whether the peer is suspected, or callers wait for its next word.
        """
        probes = self.probes
        return self.detector.suspected or (probes is not None and bool(probes.waiting))

    # Its beginning and its end.

    def begin(self, now: float) -> None:
        """
        Watch the peer from now on.
        """
        self.mode = _OBSERVED
        if self.kind != "keepalive":
            self._watchFrom(now)

    def reconfigure(self, heartbeat: Heartbeat | None, *, trusted: bool) -> None:
        """
        Watch the peer by other times from its last word on.

        @param trusted: whether the peer has promised to speak by itself.
        """
        self.withdraw()
        wasDirect = self.mode >= _DIRECT
        self.heartbeat = heartbeat
        self.kind = _kindOf(heartbeat, self.ping, trusted=trusted)
        if self.mode == _OFF:
            return
        if self.detector.suspected:
            # The settings came from the peer, and the detector forgets that it was suspected.
            self.link.peerRecovered()
            if self.mode == _OFF:
                # A hook has ended the link.
                return
        self._watchFrom(self.detector.heardAt)
        connection = self.connection
        if wasDirect and self.mode == _OBSERVED and connection and not connection.writeTracked:
            # What lies in the kernel's queue was no matter until now.
            connection.writeTracked = True
            self.link.writeStarted()

    def _watchFrom(self, heardAt: float) -> None:
        draw, heartbeat = self.link.config.phase, self.heartbeat
        phase = None
        if draw is not None and heartbeat is not None and heartbeat.interval is not None:
            phase = commonPhase(draw(), heardAt, heartbeat.interval)
        # The same object, because the connection stamps what it receives there.
        self.detector.begin(heartbeat, heardAt, phase)
        self.findMode()
        self.reschedule()

    def findMode(self) -> None:
        """
        Find out what may be assumed of the connection.
        """
        connection = self.connection
        if self.mode == _OFF:
            return
        if connection is None or connection is not self.link.transport or self.kind == "keepalive":
            self.mode = _OBSERVED
        elif connection.writeTracked or not connection.isPlainAndOpen:
            self.mode = _DIRECT
        elif self.link.config.phase is not None or isServerSide(connection):
            self.mode = _BATCHABLE
        else:
            self.mode = _STEADY

    def writeStarted(self) -> None:
        """
        Note that something waits in the transport's buffer.
        """
        self.withdraw()
        if self.mode > _DIRECT:
            self.mode = _DIRECT

    def stop(self) -> None:
        """
        Watch no more, because the link is ending.
        """
        if self.mode == _OFF:
            return
        self.withdraw()
        self.mode = _OFF
        self.link.config.wheel.cancel(self)

    # What is due.

    def onTimer(self, now: float, lateness: float) -> float | None:
        detector = self.detector
        if self.mode >= _STEADY:
            connection = self.connection
            assert connection is not None
            if connection.batch is not None:
                self.interrupt()
            batcher = self.link.config.batcher
            # A link that this side has opened, in a process with few timers, is never batched.
            many = batcher.scans or batcher.wheel.timerCount >= batcher.MIN_FOR_SCAN
            if (self.mode == _BATCHABLE or many) and batcher.offer(self, now, lateness):
                return self._nextInBatch(connection, now)
            pings = detector.decideFast(now, lateness)
            if pings:
                if self.kind == "ping":
                    self.sendPing(now)
                return self._next()
            decided = pings is False
        else:
            decided = False
            # A close that another party begins ends C{STEADY}, because it writes.
            if noticeClose(self.link):
                return None
        if not decided and now >= detector.due:
            self.decide(now, lateness)
        if self.mode == _OFF:
            # A hook or a ping may have ended the link.
            return None
        session = self.link.session
        if session is not None and now >= session.promiseDue(detector.pingedAt):
            session.keepPromise(now)
        return self._next()

    def decide(self, now: float, lateness: float) -> None:
        """
        Look at the peer, and do what the detector decides.
        """
        detector = self.detector
        if self.connection is None and self.link.mayHaveMissedData():
            detector.heardAt = now
        # No local delay can excuse a peer that is not yet expected to speak.
        expected = not detector.hasSpokenSincePing or self.kind != "ping"
        localDelayUntil = self._localDelayUntil(now) if expected else None
        decision = detector.decide(now, lateness, localDelayUntil)
        if decision is Decision.PING or decision is Decision.PING_AGAIN:
            if self.kind == "ping":
                self.sendPing(now)
        elif decision is Decision.SUSPECT:
            if self.connection is not None:
                # The next chunk is the recovery, and must be told at once.
                self.connection.notifyOnRead = True
            if self.kind == "ping":
                self.sendPing(now)
            if self.mode != _OFF and detector.suspected:
                self.link.peerSuspected()
        elif decision is Decision.RECOVERED:
            self.link.peerRecovered()
        elif decision is Decision.VERDICT:
            self.link.teardown.peerSilent(diagnosisOf(self, self.link.config, now), now)

    def _next(self) -> float | None:
        """
        When to look again; L{None} if nothing is due.
        """
        if self.mode == _OFF:
            return None
        due, session = self.detector.due, self.link.session
        if session is not None:
            promiseDue = session.promiseDue(self.detector.pingedAt)
            due = due if due < promiseDue else promiseDue
        return due if due < inf else None

    def reschedule(self) -> None:
        """
        Schedule the visit of the timer wheel sooner, if something has become due sooner.
        """
        when = self._next()
        if when is not None and (self.slot is None or when < self.slot.latest):
            self.link.config.wheel.schedule(self, when)

    # Ping.

    def sendPing(self, now: float) -> None:
        """
        Make the peer speak.
        """
        link, ping = self.link, self.ping
        if ping is None:
            return
        # The built-in protocol writes directly by itself.
        direct = self.mode >= _STEADY and type(self.pinger) is not SharedPing and self.allArrived()
        connection = self.connection if direct else None
        try:
            if connection is None:
                answer = ping(link.protocol)
            else:
                answer = connection.withDirectWrites(ping, link.protocol)
            if type(answer) is CoroutineType:
                # It has written nothing before it is started.
                if connection is None:
                    answer = startPing(answer)
                else:
                    answer = connection.withDirectWrites(startPing, answer)
        except BaseException as error:
            _log.failure("{link} could not send its ping", link=link)
            sendFailed(link, error, "the ping failed")
            return
        config = link.config
        self.detector.pingedAt = config.seconds()
        config.batcher.counters.pings += 1
        if self.connection is not None:
            sent = self.connection.bytesSent
            # A steady connection has nothing in its buffer.
            unsent = link.bytesBuffered if self.mode < _STEADY else 0
            # No sum where there is nothing to add: the same int object then serves both fields.
            self.lastPingEnd = sent + unsent if unsent else sent
            if not self.detector.suspected:
                self._firstPingEnd = self.lastPingEnd
        if direct and self.mode < _STEADY and link.session is None:
            # The ping was written through the buffer.  In a round it would end the round each time.
            self.pinger = None
        # Most pings return None; isinstance would be the dearest call here.
        if answer is not None and isinstance(answer, Deferred):
            # An error answer is an answer too; what the peer did not send is no life.
            answer.addBoth(self._pingAnswered, now)

    def _pingAnswered(self, result: object, pingedAt: float) -> None:
        if self.mode != _OFF and self.detector.heardAt > pingedAt:
            self.detector.rtt = self.link.config.seconds() - pingedAt

    def pongReceived(self) -> None:
        """
        Record the pong that matches the last ping: set the round-trip time, and mark all that was
        sent as acknowledged.
        """
        self.detector.rtt = self.link.config.seconds() - self.detector.pingedAt
        connection = self.connection
        if self.mode < _DIRECT or connection is None or connection.bytesSent != self.lastPingEnd:
            return
        self._arrived(connection)
        if connection.writeTracked and not self.link.bytesBuffered:
            WriteTracker.of(self.link, connection).drained()

    def allArrived(self) -> bool:
        """
        Find out whether the peer's kernel has all that was sent.  After a pong the kernel need not
        be asked.
        """
        connection = self.connection
        if connection is not None and connection.bytesSent != self.ackedMark:
            if connection.bytesAcked() != connection.bytesSent:
                return False
            self._arrived(connection)
        return True

    def _arrived(self, connection: ObservedConnection) -> None:
        self.ackedMark = connection.bytesSent
        writes = self.link.writes
        if writes is not None:
            writes.arrived()

    # Suspicion and verdict.

    def _localDelayUntil(self, now: float) -> float | None:
        """
        The last time at which the silence may have been caused locally: reading was paused, or the
        ping was still queued behind data that has drained since.
        """
        connection = self.connection
        if connection is None:
            paused = self.pausedUnseen or isReadingPaused(self.link.transport)
            return now if paused else None
        if connection.paused:
            return now
        writes = self.link.writes
        acked = connection.bytesAcked() if writes is None else writes.progressed(now)
        if self.kind == "ping" and acked < self._firstPingEnd:
            if writes is None and acked != self.ackedMark:
                writes = WriteTracker.of(self.link, connection)
                writes.progressed(now)
            if writes is not None and writes.drainedAt > self.detector.pingedAt:
                return max(writes.drainedAt, connection.resumedAt)
        return connection.resumedAt

    def dataDelivered(self) -> None:
        """
        Note that the peer has spoken while it was suspected or probed.
        """
        if self.detector.suspected:
            self.decide(self.link.config.seconds(), 0.0)
        probes = self.probes
        if probes is not None and probes.waiting and self.mode != _OFF:
            probes.answered(self.link.config.seconds())

    def peerClosedWrite(self) -> None:
        """
        Note that the peer has closed its half: from here on its silence proves nothing.
        """
        self.withdraw()
        suspected = self.detector.suspected
        self.detector.peerHalfClosed()
        if self.probes is not None and self.probes.waiting:
            closeFinished(self)
        elif suspected:
            self.link.peerRecovered()

    # Reading is paused.

    def pause(self) -> None:
        """
        Stop reading.  The time until L{resume} is no silence of the peer's.
        """
        # An observed connection records each pause, also the application's.
        self.pausedUnseen = self.connection is None
        self.link.transport.pauseProducing()

    def resume(self) -> None:
        """
        Read again after L{pause}.
        """
        if self.pausedUnseen:
            self.pausedUnseen = False
            self.detector.heardAt = self.link.config.seconds()
        self.link.transport.resumeProducing()

    # What a batcher sees of it, see BatchMember.

    @property
    def sharesHeartbeat(self) -> bool:
        return self.heartbeat is self.link.config.heartbeat

    @property
    def promisedWithin(self) -> float:
        session = self.link.session
        return inf if session is None else session.localHello.promisedWithin

    def isQuiet(self) -> bool:
        connection, session = self.connection, self.link.session
        if connection is None or (session is not None and session.expectedPong is not None):
            return False
        return connection.bytesSent == self.lastPingEnd

    def resumed(self, last: LastPing | None) -> None:
        connection = self.connection
        if last is not None and connection is not None:
            # What waits, if anything, is what has ended the stay; or a part of the ping.
            waits = self.link.bytesBuffered if last.isBeingSent else 0
            self._firstPingEnd = self.lastPingEnd = self.ackedMark = connection.bytesSent + waits
            if last.isUnanswered:
                self.ackedMark -= last.size
                session = self.link.session
                if session is not None:
                    session.expectedPong = last.pong
        self.reschedule()

    def _nextInBatch(self, connection: ObservedConnection, now: float) -> float | None:
        """
        What L{onTimer} returns for a watch that is in a batch now.
        """
        session = self.link.session
        if connection.batch is not None:
            # Shared constants: thousands of parked links must not each keep numbers of their own.
            if session is not None:
                session.lastSentAt = NEVER
            self._firstPingEnd = self.lastPingEnd = self.ackedMark = 0
            return None
        # A talker scan looks at the peer; only this end's own promise can be due here.
        if session is not None and now >= session.promiseDue(self.detector.pingedAt):
            session.keepPromise(now)
        return self._next()

    def interrupt(self) -> None:
        """
        Leave the ping round, because something other than a ping or its pong goes on.
        """
        if self.connection is not None and self.connection.batch is not None:
            self.link.config.batcher.interrupt(self)

    def withdraw(self) -> None:
        """
        Leave any batch.
        """
        connection, detector = self.connection, self.detector
        if connection is None or self.mode < _STEADY:
            return
        batcher = self.link.config.batcher
        isScanned = batcher.scans and detector.due == inf and checksSuspended(detector)
        if isScanned or connection.batch is not None:
            batcher.withdraw(self)


def _kindOf(heartbeat: Heartbeat | None, ping: Ping | None, *, trusted: bool = False) -> str:
    """
    How to watch a peer, see L{PeerWatch.kind}.

    @param trusted: whether the peer has promised to speak by itself.
    """
    if heartbeat is not None and (trusted or heartbeat.interval is None):
        return "passive"
    return "keepalive" if heartbeat is None or ping is None else "ping"
