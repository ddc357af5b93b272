# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What Twisted's transports drop or lack: errno, send progress, evidence, an end that always comes.

Twisted's TCP connection returns one C{CONNECTION_LOST} for every C{OSError}, tells nobody how much
of its buffer has been sent, and does not say when bytes came.  L{instrument} gives the connection
under any stack of wrappers the methods that do, by making it an instance of a subclass.  A
subclass, and no wrapper and no attribute of functions, because it costs the paths of a byte
nothing but what is written here, and no memory but the fields.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, ENOBUFS, EPIPE, EWOULDBLOCK
from math import inf
from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionClosed, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.python.util import untilConcludes

from ..batching.poller import idlePollerFor
from ..core.detector import FailureDetector
from ..logs import SafeLogger, Shortage
from .compat import PlainConnection, isAborting
from .fanout import DetectorFanout
from .tcpinfo import hasUnreadBytes, pendingErrno, readEvidence, sendQueueSize
from .tls import certificateRefused

if TYPE_CHECKING:
    from ..batching.pinground import PingRound
    from ..core.evidence import Evidence

_log = SafeLogger()


_noIdlePoller = Shortage(_log, "Links can not be in rounds: {error}", monotonic)

WOULD_BLOCK = (EWOULDBLOCK, EAGAIN, ENOBUFS)
"""What the kernel says when it takes no more for now."""


PONG_BUFFER_SIZE = 400
"""Bytes: room for any pong, in what Python has at hand, where C{bufferSize} has it ask for more."""


class ConnectionObserver(Protocol):
    """
    Who is told of a connection's sending.
    """

    def writeStarted(self) -> None:
        """Something waits to be sent, for the first time since L{ObservedConnection.writeTracked}
        was cleared."""

    def writeProgressed(self) -> None:
        """Bytes were handed to the kernel while L{ObservedConnection.notifyOnWriteProgress} was
        set."""

    def dataDelivered(self) -> None:
        """The peer said something while L{ObservedConnection.notifyOnRead} was set, and it was
        delivered."""

    def dataArriving(self) -> None:
        """
        Bytes are about to be delivered.  An L{ObservedConnection} calls this only while
        L{ObservedConnection.notifyOnRead} is set, an L{ObservedUnixConnection} each time.
        """

    def leaveRound(self) -> None:
        """Something other than a pong is about to happen while L{ObservedConnection.round} is
        set."""

    def peerClosedWrite(self) -> None:
        """The peer has closed its half: it will not speak again, and is not dead for that."""

    def connectionLosing(self) -> None:
        """The connection is about to say that it is lost."""

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        """The connection was lost, and whoever should have said so had handed it to another."""


class ObservedConnection(PlainConnection):
    """
    A TCP connection that remembers what it saw.

    @ivar lastErrno: the C{errno} with which it was lost; 0 if there was none.
    @ivar evidence: what the kernel knew when it was lost.
    @ivar finReceived: whether the peer has sent its FIN.
    @ivar certificateError: why the peer's certificate was, in words.
    @ivar protocolError: what the protocol raised, if it was lost for that; TLS keeps it to itself.
    @ivar bytesSent: bytes handed to the kernel.
    @ivar reading: whether it is read.
    @ivar round: in which its link is, so that nothing but pongs is expected; L{None} if in none.
    @ivar notifyOnRead: whether the sender wants to know of the next chunk.
    @ivar writeTracked: whether the sender is going to look at the progress anyway.
    @ivar notifyOnWriteProgress: whether the sender wants to know of every progress.
    @ivar paused: whether reading is paused.
    @ivar resumedAt: when reading was last resumed, in the link's seconds.
    """

    detector = FailureDetector(None, 0.0)
    seconds: Callable[[], float] = staticmethod(monotonic)
    observer: ConnectionObserver | None = None

    lastErrno = 0
    evidence: Evidence | None = None
    finReceived = False
    certificateError = ""
    protocolError: BaseException | None = None
    bytesSent = 0
    reading = True
    round: PingRound | None = None
    notifyOnRead = False
    writeTracked = False
    notifyOnWriteProgress = False
    paused = False
    resumedAt = -inf

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]
        # As tcp.Connection's doRead and _dataReceived, but for what is the purpose of this module.
        # In one piece, because the call that this saves pays for half of the stamp.
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return self._readFailed(error)
        if not data:
            return self._peerSentFin()
        self.detector.heardAt = self.seconds()
        if self.notifyOnRead:
            self._deliver(data)
        else:
            self.protocol.dataReceived(data)
        return None

    def readParked(self, context: dict[str, Any]) -> Any:
        """
        As C{doRead}, in a round: what comes is most likely a pong, and the protocol need not see
        it.  See L{Quiet<twisted_heartbeat.batching.poller.Quiet>}.
        """
        round = self.round
        try:
            data = self.socket.recv(PONG_BUFFER_SIZE)
        except OSError as error:
            return self._readFailed(error)
        if not data:
            self._leaveRound()
            context["system"] = self.logPrefix()
            return self._peerSentFin()
        liveness = self.detector
        liveness.heardAt = now = self.seconds()
        if round is not None:
            waiting = round.waiting
            if data == round.pong and waiting.pop(self, None) is not None:
                liveness.rtt = now - liveness.pingedAt
                if not waiting:
                    # An empty dictionary keeps its room, and the next round has use for that.
                    waiting.clear()
                return None
            if not round.keeps(self, now):
                self._leaveRound()
        if len(data) == PONG_BUFFER_SIZE:
            data += self._readRest()
        context["system"] = self.logPrefix()
        self._deliver(data)
        return None

    def _readRest(self) -> bytes:
        try:
            return self.socket.recv(self.bufferSize)
        except OSError as error:
            # What has come is delivered first; the next to read meets the end, if it is one.
            self._readFailed(error)
            return b""

    def _readFailed(self, error: OSError) -> ConnectionLost | None:
        if error.errno in (EWOULDBLOCK, EAGAIN):
            return None
        self.lastErrno = self.lastErrno or error.errno or 0
        return CONNECTION_LOST

    def _deliver(self, data: bytes) -> None:
        """
        Deliver a chunk, and then tell the sender if it has asked for the next one.  In this order,
        because the chunk may hold the peer's goodbye or its close_notify, which are no answer.
        """
        waits, self.notifyOnRead = self.notifyOnRead, False
        if waits and self.observer is not None:
            self.observer.dataArriving()
        self.protocol.dataReceived(data)
        if waits and self.observer is not None:
            self.observer.dataDelivered()

    def _peerSentFin(self) -> ConnectionLost | ConnectionDone:
        """
        Note that the peer has sent FIN.  The peer's kernel sends it, also for a process that has
        died, and it holds no byte: it is no sign of life, and answers no ping.
        """
        if self.lastErrno not in (0, EPIPE):
            # No FIN: the kernel tells an error once, and has told it to writeDirect.
            return CONNECTION_LOST
        self.finReceived = True
        return CONNECTION_DONE

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        # As in tcp.Connection, but for the count and the errno.
        try:
            size: int = untilConcludes(self.socket.send, memoryview(data)[: self.SEND_LIMIT])
        except OSError as error:
            if error.errno in WOULD_BLOCK:
                return 0
            self.lastErrno = self.lastErrno or error.errno or 0
            return CONNECTION_LOST
        self.bytesSent += size
        return size

    def writeDirect(self, data: bytes) -> None:
        """
        Write a few bytes: straight to the kernel where nothing waits before them, which saves two
        changes of what the reactor polls for, and a turn.  In every other case as C{write}.
        """
        if self.canWriteDirect:
            self.writeDirectUnchecked(data)
        else:
            self._writeBuffered(data)

    def writeDirectUnchecked(self, data: bytes) -> None:
        """
        The same for whoever knows that nothing waits, and that the connection is plainly open.

        What the kernel does not take goes as C{write}.  After an error this meets it again, or
        another, or none, and ends the connection as ever; the first is the one that is kept.
        """
        try:
            size = self.socket.send(data)
        except OSError as error:
            if error.errno not in WOULD_BLOCK:
                self.lastErrno = self.lastErrno or error.errno or 0
            size = 0
        self.bytesSent += size
        if size < len(data):
            self._writeBuffered(data[size:])

    def _writeBuffered(self, data: bytes) -> None:
        # By the class, for on the instance it may be writeDirect.
        type(self).write(self, data)  # type: ignore[no-untyped-call]

    def withDirectWrites(self, act: Callable[[Any], object], argument: Any) -> object:
        """
        Call something whose C{write}s here are to be L{writeDirect}: a ping of the user's own.
        """
        if not self.writeIsUnpatched:
            return act(argument)
        self.write = self.writeDirect  # type: ignore[method-assign]
        try:
            return act(argument)
        finally:
            del self.write

    @property
    def writeIsUnpatched(self) -> bool:
        """
        Whether nobody stands before its C{write}.
        """
        write = self.write
        return isinstance(write, MethodType) and write.__func__ is type(self).write

    def doWrite(self) -> Any:
        result = FileDescriptor.doWrite(self)
        if self.notifyOnWriteProgress and self.observer is not None:
            self.observer.writeProgressed()
        return result

    def startWriting(self) -> None:
        if not self.writeTracked and self.observer is not None:
            self.writeTracked = True
            self.observer.writeStarted()
        self.reactor.addWriter(self)

    def startReading(self) -> None:
        if not self.reading:
            self.reading = True
        if self.round is None:
            self.reactor.addReader(self)

    def stopReading(self) -> None:
        self.reading = False
        self._leaveRound()
        self.reactor.removeReader(self)

    def startTLS(self, ctx: object, normal: bool = True) -> None:
        self._leaveRound()
        super().startTLS(ctx, normal)  # type: ignore[no-untyped-call]

    def _leaveRound(self) -> None:
        if self.round is not None and self.observer is not None:
            self.observer.leaveRound()

    @property
    def canPark(self) -> bool:
        """
        Whether it can be in a round.
        """
        if self.writeTracked or not self.reading or self.finReceived or not self.isPlainAndOpen:
            return False
        if isinstance(self.detector, DetectorFanout):
            # Two links at once have no round.
            return False
        return idlePollerFor(self.reactor) is not None

    def park(self, round: PingRound) -> bool:
        """
        Be in a round from here on, and be read in the reactor's place.

        @return: whether the system has a descriptor to spare for that.
        """
        poll = idlePollerFor(self.reactor)
        assert poll is not None
        try:
            poll.add(self)
        except OSError as error:
            _noIdlePoller.met(error)
            return False
        self.reactor.removeReader(self)
        self.round = round
        return True

    def unpark(self) -> None:
        """
        Be in none, and be read by the reactor itself.  So is whoever writes by way of it: where one
        descriptor reads and another writes, whoever comes first meets the end, and what was
        received before it would be lost.
        """
        poll = idlePollerFor(self.reactor)
        assert poll is not None
        self.round = None
        poll.remove(self)
        if self.reading:
            self.reactor.addReader(self)

    def pauseProducing(self) -> None:
        self.paused = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        self.paused = False
        self.resumedAt = self.seconds()
        super().resumeProducing()  # type: ignore[no-untyped-call]

    def readConnectionLost(self, reason: Failure) -> None:
        # Otherwise the FIN ends the connection at once, and a suspected peer has not recovered.
        halfCloseable = IHalfCloseableProtocol(self.protocol, None) is not None
        if self.observer is not None and halfCloseable:
            self.observer.peerClosedWrite()
        super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if hasattr(self, "socket"):
            # The reactor may have found the error before any call could return it.
            self.lastErrno = self.lastErrno or pendingErrno(self.socket)
        if reason.type is ConnectionLost:
            _deliverRest(self)
        if hasattr(self, "socket"):
            if self.evidence is None:
                self.evidence = readEvidence(self.socket)
            self.certificateError = certificateRefused(self)
            if not isinstance(reason.value, ConnectionClosed):
                self.protocolError = reason.value
        if self.observer is not None:
            self.observer.connectionLosing()
        try:
            super().connectionLost(reason)
        except BaseException:
            _tellConnector(self, reason)
            raise
        finally:
            if self.observer is not None:
                self.observer.connectionLostUnnoticed(reason)

    def bytesAcked(self) -> int:
        """
        Bytes that the peer's kernel has acknowledged; where the system does not say, those that
        were handed to ours.
        """
        return self.bytesSent - (sendQueueSize(self.socket) or 0 if self.connected else 0)


def _deliverRest(connection: Any) -> None:
    """
    Deliver what a lost connection has received.

    Twisted drops a connection as soon as a write fails, or when the reactor reports an error while
    reading is paused.  What the peer said last, a goodbye for example, may still be unread then.
    """
    try:
        while connection.connected and not isAborting(connection) and hasUnreadBytes(connection):
            if connection.doRead() is not None:
                break
    except BaseException:
        _log.failure("{one} failed at what it received before its end", one=connection)


def _tellConnector(connection: Any, reason: Failure) -> None:
    """
    Tell the connector, if there is one, that its connection is lost.

    Twisted does not if the protocol's C{connectionLost} raises, and the connector could never
    connect again.
    """
    connector = getattr(connection, "connector", None)
    if connector is not None and connector.state == "connected":
        connector.connectionLost(reason)


class ObservedUnixConnection(tcp.Connection):
    """
    A connection that is read in another way than TCP, a UNIX socket.  It is read to its end, and
    tells its link beforehand what it tells the protocol.

    @ivar observer: the link that is told; L{None} for none.
    """

    observer: ConnectionObserver | None = None

    def _dataReceived(self, data: bytes | None) -> ConnectionDone | None:
        if data and self.observer is not None:
            self.observer.dataArriving()
        end = super()._dataReceived(data)
        if data and self.observer is not None:
            self.observer.dataDelivered()
        return end

    def connectionLost(self, reason: Failure) -> None:
        if reason.type is ConnectionLost:
            _deliverRest(self)
        if self.observer is not None:
            self.observer.connectionLosing()
        try:
            super().connectionLost(reason)
        except BaseException:
            _tellConnector(self, reason)
            raise
        finally:
            if self.observer is not None:
                self.observer.connectionLostUnnoticed(reason)
