# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ObservedConnection}: a TCP connection that records facts which Twisted's transports drop.

Twisted's TCP connection returns one C{CONNECTION_LOST} for every C{OSError}, does not report how
much of its buffer was sent, and does not record when bytes came.  This subclass keeps the errno,
the byte counts, the time of the last byte and the kernel's evidence, and it reports each loss.
L{twisted_heartbeat.transport.instrument} makes existing connections instances of it.

Some methods repeat Twisted's code in place of calling it, because one more call for each chunk
costs half as much as the time stamp itself (C{benchmarks/datapath.py}).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, ECONNRESET, ENOBUFS, EPIPE, EWOULDBLOCK
from math import inf
from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionClosed, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.util import untilConcludes

from ..core.detector import FailureDetector
from ..logs import SafeLogger
from .compat import PlainConnection, isAborting
from .fanout import DetectorFanout
from .tcpinfo import hasEnded, hasUnreadBytes, pendingErrno, readEvidence, sendQueueSize
from .tls import certificateRefused

if TYPE_CHECKING:
    from ..core.evidence import Evidence

_log = SafeLogger()

WOULD_BLOCK = (EWOULDBLOCK, EAGAIN, ENOBUFS)
"""The errno of a C{send} for which the kernel has no room now."""


class ConnectionObserver(Protocol):
    """
    Receives the reports of an observed connection; a link implements it.
    """

    def writeStarted(self) -> None:
        """Bytes wait to be sent, for the first time since L{ObservedConnection.writeTracked} was
        cleared."""

    def writeProgressed(self) -> None:
        """Bytes were handed to the kernel while L{ObservedConnection.notifyOnWriteProgress} was
        set."""

    def dataDelivered(self) -> None:
        """Bytes that came while L{ObservedConnection.notifyOnRead} was set were delivered."""

    def dataArriving(self) -> None:
        """
        Bytes are about to be delivered.  An L{ObservedConnection} calls this only while
        L{ObservedConnection.notifyOnRead} is set, an L{ObservedUnixConnection} each time.
        """

    def activity(self) -> None:
        """Something other than a ping or its pong is about to happen while
        L{ObservedConnection.batch} is set."""

    def peerClosedWrite(self) -> None:
        """The peer has closed its half.  It sends nothing more, and may still be alive."""

    def connectionLosing(self) -> None:
        """The connection is about to report its loss to its protocol."""

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        """The connection is lost, and its protocol has been told.  The link may not have been,
        if another protocol took the connection over."""


class ObservedConnection(PlainConnection):
    """
    A TCP connection that records its errors, its bytes and its end.

    @ivar detector: its C{heardAt} is assigned for each chunk.
    @ivar seconds: the clock for that.
    @ivar observer: receives the reports; L{None} for none.
    @ivar lastErrno: the C{errno} with which it was lost; 0 if there was none.
    @ivar evidence: the kernel's state of the connection when it was lost.
    @ivar finReceived: whether the peer has sent its FIN.
    @ivar certificateError: why OpenSSL rejected the peer's certificate; C{""} if it did not.
    @ivar protocolError: the exception of the protocol that ended the connection, which TLS does
        not report.
    @ivar bytesSent: bytes handed to the kernel.
    @ivar reading: whether the connection is read.
    @ivar batch: the ping round that it is parked in; L{None} while the reactor reads it.
    @ivar notifyOnRead: whether the observer is told of the next chunk.
    @ivar writeTracked: whether the observer checks the progress by itself, so that it is not told
        of the start of writing.
    @ivar notifyOnWriteProgress: whether the observer is told of each progress.
    @ivar paused: whether reading is paused.
    @ivar resumedAt: when reading was last resumed, in L{seconds}.
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
    batch: Any = None
    notifyOnRead = False
    writeTracked = False
    notifyOnWriteProgress = False
    paused = False
    resumedAt = -inf

    def doRead(self) -> BaseException | None:  # type: ignore[override]
        # doRead and _dataReceived of tcp.Connection in one, plus the time stamp: the call that this
        # saves pays for half of the stamp.
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return self.readFailed(error)
        if not data:
            return self._peerSentFin()
        self.detector.heardAt = self.seconds()
        try:
            if self.notifyOnRead:
                self._deliverNotifying(data)
            else:
                self.protocol.dataReceived(data)
        except BaseException as error:
            # As the reactor does, which would not escape the peer's words in the exception's text.
            _log.failure("{connection} failed at what it read", connection=self)
            return error
        return None

    def readFailed(self, error: OSError) -> ConnectionLost | None:
        """
        Note an error of C{recv}, and return what C{doRead} returns for it.
        """
        if error.errno in (EWOULDBLOCK, EAGAIN):
            return None
        self.lastErrno = self.lastErrno or error.errno or 0
        return CONNECTION_LOST

    def deliver(self, data: bytes) -> ConnectionLost | ConnectionDone | None:
        """
        Handle what was read while the connection was parked, and return what C{doRead} returns.

        @param data: no bytes for the end of the stream.
        """
        if not data:
            return self._peerSentFin()
        self._deliverNotifying(data)
        return None

    def _deliverNotifying(self, data: bytes) -> None:
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
        Record that the peer has sent FIN.  The peer's kernel sends it, also for a process that has
        died, and it holds no byte.  So it is no sign of life, and answers no ping.
        """
        if self.lastErrno not in (0, EPIPE):
            # No FIN: the kernel reports an error once, and has reported it to writeDirect.
            return CONNECTION_LOST
        self.finReceived = True
        return CONNECTION_DONE

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        # As in tcp.Connection, plus the count and the errno.
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
        Write a few bytes straight to the kernel if no others wait before them; otherwise as
        C{write}. A direct write saves two changes of the reactor's poll set, and one turn.
        """
        if self.canWriteDirect:
            self.writeDirectUnchecked(data)
        else:
            self._writeBuffered(data)

    def writeDirectUnchecked(self, data: bytes) -> None:
        """
        Write a few bytes straight to the kernel.  The caller knows that C{canWriteDirect} is true.

        Bytes the kernel does not accept are written through the transport's buffer.  If C{send}
        failed, the buffered write fails too and closes the connection; the errno of the first
        failure is kept.
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
        # By the class, because on the instance it may be writeDirect.
        type(self).write(self, data)  # type: ignore[no-untyped-call]

    def withDirectWrites(self, act: Callable[[Any], object], argument: Any) -> object:
        """
        Call a function, and make its C{write}s direct: a custom ping.  See the background block of
        L{twisted_heartbeat.transport.instrument}.
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
        Whether the application has put no C{write} of its own on the instance.
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
        if self.batch is None:
            self.reactor.addReader(self)

    def stopReading(self) -> None:
        self.reading = False
        if self.batch is not None and self.observer is not None:
            self.observer.activity()
        self.reactor.removeReader(self)

    def startTLS(self, ctx: object, normal: bool = True) -> None:
        if self.batch is not None and self.observer is not None:
            self.observer.activity()
        super().startTLS(ctx, normal)  # type: ignore[no-untyped-call]

    @property
    def canPark(self) -> bool:
        """
        Whether nothing but pings and pongs is to be expected: it is read, plain and open, and
        nothing waits to be sent.
        """
        if self.writeTracked or not self.reading or self.finReceived or not self.isPlainAndOpen:
            return False
        # A round has no place for two links of one connection.
        return not isinstance(self.detector, DetectorFanout)

    def park(self, batch: object) -> None:
        """
        Take the connection from the reactor, because another poller reads it now.

        @param batch: is kept as L{batch}.
        """
        self.reactor.removeReader(self)
        self.batch = batch

    def unpark(self) -> None:
        """
        Return the connection to the reactor.

        This must happen before the reactor writes to it: if the other poller reads while the
        reactor writes, either may see the end of the connection first, and data received before
        that would be lost.
        """
        self.batch = None
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
        if not self.finReceived:
            # The reactor takes an event without input for a FIN.  Of a reset, too, Linux can show
            # the error before the end (tcp_done_with_error and tcp_poll, net/ipv4/tcp.c).
            self.lastErrno = self.lastErrno or pendingErrno(self.socket)
            end = self._peerSentFin()
            if end is CONNECTION_LOST:
                self.connectionLost(Failure(end))
                return
        # Unless the protocol is half-closeable, the FIN ends the connection at once, and a
        # suspected peer has not recovered.
        halfCloseable = IHalfCloseableProtocol(self.protocol, None) is not None
        if self.observer is not None and halfCloseable:
            self.observer.peerClosedWrite()
        super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if hasattr(self, "socket"):
            # The reactor may have reported the error before any call could return it.
            self.lastErrno = self.lastErrno or pendingErrno(self.socket)
            if self.lastErrno == EPIPE:
                # The answer to data after a FIN is a reset, and then EPIPE may be met before the
                # FIN is read. A server that accepts and closes would look like a failed send.
                self.finReceived = self.finReceived or hasEnded(self)
        if reason.type is ConnectionLost:
            _deliverRest(self)
        if hasattr(self, "socket"):
            if self.evidence is None:
                self.evidence = readEvidence(self.socket)
            if isinstance(self.protocol, TLSMemoryBIOProtocol):
                self.certificateError = certificateRefused(self)
            if not isinstance(reason.value, ConnectionClosed):
                self.protocolError = reason.value
        _reportLoss(self, super().connectionLost, reason)

    def bytesAcked(self) -> int:
        """
        Count the bytes that the peer's kernel has acknowledged; on systems that do not report it,
        the bytes handed to this kernel.
        """
        return self.bytesSent - (sendQueueSize(self.socket) or 0 if self.connected else 0)


def _deliverRest(connection: Any) -> None:
    """
    Deliver the bytes that a lost connection has received and not read.

    Twisted drops a connection as soon as a write fails, or when the reactor reports an error while
    reading is paused.  The peer's last bytes, for example a goodbye, may still be unread then.
    """
    try:
        while connection.connected and not isAborting(connection) and hasUnreadBytes(connection):
            if connection.doRead() is not None:
                break
    except BaseException:
        _log.failure("{one} failed at what it received before its end", one=connection)


def _reportLoss(connection: Any, lost: Callable[[Failure], object], reason: Failure) -> None:
    """
    Lose a connection, and tell its observer before and after.

    @param lost: the C{connectionLost} of Twisted's own class.
    """
    if connection.observer is not None:
        connection.observer.connectionLosing()
    try:
        lost(reason)
    except BaseException:
        _tellConnector(connection, reason)
        raise
    finally:
        if connection.observer is not None:
            connection.observer.connectionLostUnnoticed(reason)


def _tellConnector(connection: Any, reason: Failure) -> None:
    """
    Tell the connector, if there is one, that its connection is lost.

    Twisted does not do so if the protocol's C{connectionLost} raises, and then the connector could
    never connect again.
    """
    connector = getattr(connection, "connector", None)
    if connector is not None and connector.state == "connected":
        connector.connectionLost(reason)


class ObservedUnixConnection(tcp.Connection):
    """
    A connection with a C{doRead} of its own: a UNIX socket.  It tells its observer of each chunk
    and of its loss before it tells the protocol, and delivers all received bytes.

    @ivar observer: receives the reports; L{None} for none.
    @ivar wasReset: whether reading has failed.
    """

    observer: ConnectionObserver | None = None
    wasReset = False

    def doRead(self) -> BaseException | None:  # type: ignore[override]
        end = super().doRead()
        if end is CONNECTION_LOST:
            self.wasReset = True
        return end

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
            if self.wasReset:
                # Twisted drops the errno. On a stream it can only be this: the peer has closed, and
                # left bytes unread (af_unix.c, unix_release_sock).
                lost = ConnectionLost()
                lost.osError = ECONNRESET  # type: ignore[attr-defined]
                reason = Failure(lost)
        _reportLoss(self, super().connectionLost, reason)
