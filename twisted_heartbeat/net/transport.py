# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What Twisted's transports drop or lack: errno, send progress, evidence, an end that always comes.

Twisted's TCP connection returns one C{CONNECTION_LOST} for every C{OSError}, tells nobody how much
of its buffer has been sent, and does not say when bytes came.  L{bearWitness} gives the connection
under any stack of wrappers the methods that do, by making it an instance of a subclass.  A
subclass, and no wrapper and no attribute of functions, because it costs the paths of a byte
nothing but what is written here, and no memory but the fields.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EADDRNOTAVAIL, EAGAIN, ENOBUFS, EPIPE, EWOULDBLOCK
from functools import cache
from math import inf
from time import monotonic
from types import MethodType
from typing import Any, NamedTuple, Protocol, cast

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import (
    ConnectionClosed,
    ConnectionDone,
    ConnectionLost,
    ProcessExitedAlready,
)
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProcessTransport,
    ISSLTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.util import untilConcludes
from zope.interface import alsoProvides

from ..core.causes import Evidence, Fall
from ..core.liveness import Liveness
from .nestedpoll import nestedPollFor
from .reports import SafeLogger, Shortage
from .round import Round

_log = SafeLogger()

_noNestedPoll = Shortage(_log, "Links can not be in rounds: {error}", monotonic)

_MAX_WRAPPERS = 16

_FULL = (EWOULDBLOCK, EAGAIN, ENOBUFS)
"""What the kernel says when it takes no more for now."""


_FEW = 400
"""Bytes: room for any pong, in what Python has at hand, where C{bufferSize} has it ask for more."""


class Sender(Protocol):
    """
    Who is told of a connection's sending.
    """

    def sendBegan(self) -> None:
        """Something waits to be sent, for the first time since L{Witness.watched} was cleared."""

    def sendProgressed(self) -> None:
        """Bytes were handed to the kernel while L{Witness.awaited} was set."""

    def suspectSpoke(self) -> None:
        """The peer said something while L{Witness.suspected} was set, and it was delivered."""

    def chunkComes(self) -> None:
        """Bytes are about to be delivered.  A L{Witness} says so where L{Witness.suspected} was
        set, an L{ObservedSocket} each time."""

    def leaveRound(self) -> None:
        """Something else than a pong is about to happen while L{Witness.round} is set."""

    def peerFinished(self) -> None:
        """The peer has closed its half: it will not speak again, and is not dead for that."""

    def connectionEnds(self) -> None:
        """The connection is about to say that it is lost."""

    def lostUnheard(self, reason: Failure) -> None:
        """The connection was lost, and whoever should have said so had handed it to another."""


class Witness(tcp.Connection):
    """
    A TCP connection that remembers what it saw.

    @ivar number: the C{errno} with which it was lost; 0 if there was none.
    @ivar evidence: what the kernel knew when it was lost.
    @ivar finished: whether the peer has sent its FIN.
    @ivar refused: why the peer's certificate was, in words.
    @ivar raised: what the protocol raised, if it was lost for that; TLS keeps it to itself.
    @ivar sent: bytes handed to the kernel.
    @ivar reading: whether it is read.
    @ivar round: in which its link is, so that nothing but pongs is expected; L{None} if in none.
    @ivar suspected: whether the sender wants to know of the next chunk.
    @ivar watched: whether the sender is going to look at the progress anyway.
    @ivar awaited: whether the sender wants to know of every progress.
    @ivar paused: whether reading is paused.
    @ivar resumedAt: when reading was last resumed, in the link's seconds.
    """

    liveness = Liveness(None, 0.0)
    seconds: Callable[[], float] = staticmethod(monotonic)
    sender: Sender | None = None

    number = 0
    evidence: Evidence | None = None
    finished = False
    refused = ""
    raised: BaseException | None = None
    sent = 0
    reading = True
    round: Round | None = None
    suspected = False
    watched = False
    awaited = False
    paused = False
    resumedAt = -inf

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]
        # As tcp.Connection's doRead and _dataReceived, but for what is the purpose of this module.
        # In one piece, because the call that this saves pays for half of the stamp.
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return self._notRead(error)
        if not data:
            return self._finReceived()
        self.liveness.heardAt = self.seconds()
        if self.suspected:
            self._deliver(data)
        else:
            self.protocol.dataReceived(data)
        return None

    def readQuietly(self, context: dict[str, Any]) -> Any:
        """
        As C{doRead}, in a round: what comes is most likely a pong, and the protocol need not see
        it.  See L{Quiet<twisted_heartbeat.net.nestedpoll.Quiet>}.
        """
        round = self.round
        try:
            data = self.socket.recv(_FEW)
        except OSError as error:
            return self._notRead(error)
        if not data:
            self._leaveRound()
            context["system"] = self.logPrefix()
            return self._finReceived()
        liveness = self.liveness
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
        if len(data) == _FEW:
            data += self._readOn()
        context["system"] = self.logPrefix()
        self._deliver(data)
        return None

    def _readOn(self) -> bytes:
        try:
            return self.socket.recv(self.bufferSize)
        except OSError as error:
            # What has come is delivered first; the next to read meets the end, if it is one.
            self._notRead(error)
            return b""

    def _notRead(self, error: OSError) -> ConnectionLost | None:
        if error.errno in (EWOULDBLOCK, EAGAIN):
            return None
        self.number = self.number or error.errno or 0
        return CONNECTION_LOST

    def _deliver(self, data: bytes) -> None:
        """
        Deliver a chunk, and then tell the sender if it has asked for the next one.  In this order,
        because the chunk may hold the peer's goodbye or its close_notify, which are no answer.
        """
        waits, self.suspected = self.suspected, False
        if waits and self.sender is not None:
            self.sender.chunkComes()
        self.protocol.dataReceived(data)
        if waits and self.sender is not None:
            self.sender.suspectSpoke()

    def _finReceived(self) -> ConnectionLost | ConnectionDone:
        """
        Note that the peer has sent FIN.  The peer's kernel sends it, also for a process that has
        died, and it holds no byte: it is no sign of life, and answers no ping.
        """
        if self.number not in (0, EPIPE):
            # No FIN: the kernel tells an error once, and has told it to sendNow.
            return CONNECTION_LOST
        self.finished = True
        return CONNECTION_DONE

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        # As in tcp.Connection, but for the count and the errno.
        try:
            size: int = untilConcludes(self.socket.send, memoryview(data)[: self.SEND_LIMIT])
        except OSError as error:
            if error.errno in _FULL:
                return 0
            self.number = self.number or error.errno or 0
            return CONNECTION_LOST
        self.sent += size
        return size

    def sendNow(self, data: bytes) -> None:
        """
        Write a few bytes: straight to the kernel where nothing waits before them, which saves two
        changes of what the reactor polls for, and a turn.  In every other case as C{write}.
        """
        if self._tempDataLen or self.dataBuffer or not self.plainlyOpen:
            self._writeAsEver(data)
        else:
            self.sendPlainly(data)

    def sendPlainly(self, data: bytes) -> None:
        """
        The same for whoever knows that nothing waits, and that the connection is plainly open.

        What the kernel does not take goes as C{write}.  After an error this meets it again, or
        another, or none, and ends the connection as ever; the first is the one that is kept.
        """
        try:
            size = self.socket.send(data)
        except OSError as error:
            if error.errno not in _FULL:
                self.number = self.number or error.errno or 0
            size = 0
        self.sent += size
        if size < len(data):
            self._writeAsEver(data[size:])

    def _writeAsEver(self, data: bytes) -> None:
        # By the class, for on the instance it may be sendNow.
        type(self).write(self, data)  # type: ignore[no-untyped-call]

    def sendsNow(self, act: Callable[[Any], object], argument: Any) -> object:
        """
        Call something whose C{write}s here are to be L{sendNow}: a ping of the user's own.
        """
        if not self.writesItself:
            return act(argument)
        self.write = self.sendNow  # type: ignore[method-assign]
        try:
            return act(argument)
        finally:
            del self.write

    @property
    def writesItself(self) -> bool:
        """
        Whether nobody stands before its C{write}.
        """
        write = self.write
        return isinstance(write, MethodType) and write.__func__ is type(self).write

    @property
    def plainlyOpen(self) -> bool:
        """
        Whether what is written goes to the kernel as it is.
        """
        closing = self.disconnecting or self._writeDisconnecting or self._writeDisconnected
        return bool(self.connected and not closing and not self._aborting and not self.TLS)

    def doWrite(self) -> Any:
        result = FileDescriptor.doWrite(self)
        if self.awaited and self.sender is not None:
            self.sender.sendProgressed()
        return result

    def startWriting(self) -> None:
        if not self.watched and self.sender is not None:
            self.watched = True
            self.sender.sendBegan()
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
        if self.round is not None and self.sender is not None:
            self.sender.leaveRound()

    @property
    def mayRest(self) -> bool:
        """
        Whether it can be in a round.
        """
        if self.watched or not self.reading or self.finished or not self.plainlyOpen:
            return False
        if isinstance(self.liveness, _Hearers):
            # Two links at once have no round.
            return False
        return nestedPollFor(self.reactor) is not None

    def rest(self, round: Round) -> bool:
        """
        Be in a round from here on, and be read in the reactor's place.

        @return: whether the system has a descriptor to spare for that.
        """
        poll = nestedPollFor(self.reactor)
        assert poll is not None
        try:
            poll.add(self)
        except OSError as error:
            _noNestedPoll.met(error)
            return False
        self.reactor.removeReader(self)
        self.round = round
        return True

    def rouse(self) -> None:
        """
        Be in none, and be read by the reactor itself.  So is whoever writes by way of it: where one
        descriptor reads and another writes, whoever comes first meets the end, and what was
        received before it would be lost.
        """
        poll = nestedPollFor(self.reactor)
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
        if self.sender is not None and halfCloseable:
            self.sender.peerFinished()
        super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if hasattr(self, "socket"):
            # The reactor may have found the error before any call could return it.
            self.number = self.number or _pendingError(self.socket)
        if reason.type is ConnectionLost:
            _readToEnd(self)
        if hasattr(self, "socket"):
            if self.evidence is None:
                self.evidence = evidenceOf(self.socket)
            self.refused = certificateRefused(self)
            if not isinstance(reason.value, ConnectionClosed):
                self.raised = reason.value
        if self.sender is not None:
            self.sender.connectionEnds()
        try:
            super().connectionLost(reason)
        except BaseException:
            _tellConnector(self, reason)
            raise
        finally:
            if self.sender is not None:
                self.sender.lostUnheard(reason)

    def unsent(self) -> int:
        """
        Bytes that wait in this process, TLS's own not counted.
        """
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def delivered(self) -> int:
        """
        Bytes that the peer's kernel has acknowledged; where the system does not say, those that
        were handed to ours.
        """
        return self.sent - (_queued(self.socket) or 0 if self.connected else 0)


def _readToEnd(connection: Any) -> None:
    """
    Deliver what a lost connection has received.

    Twisted drops a connection as soon as a write fails, or when the reactor reports an error while
    reading is paused.  What the peer said last, a goodbye for example, may still be unread then.
    """
    try:
        while connection.connected and not connection._aborting and hasUnread(connection):
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


class ObservedSocket(tcp.Connection):
    """
    A connection that is read in another way than TCP, a UNIX socket.  It is read to its end, and
    tells its link beforehand what it tells the protocol.

    @ivar sender: the link that is told; L{None} for none.
    """

    sender: Sender | None = None

    def _dataReceived(self, data: bytes | None) -> ConnectionDone | None:
        if data and self.sender is not None:
            self.sender.chunkComes()
        end = super()._dataReceived(data)
        if data and self.sender is not None:
            self.sender.suspectSpoke()
        return end

    def connectionLost(self, reason: Failure) -> None:
        if reason.type is ConnectionLost:
            _readToEnd(self)
        if self.sender is not None:
            self.sender.connectionEnds()
        try:
            super().connectionLost(reason)
        except BaseException:
            _tellConnector(self, reason)
            raise
        finally:
            if self.sender is not None:
                self.sender.lostUnheard(reason)


class _Hearers:
    """
    Stands for the L{Liveness} of two links of one connection, one above the other.
    """

    __slots__ = ("_above", "_below")

    def __init__(self, below: Any, above: Liveness) -> None:
        self._below = below
        self._above = above

    def _heard(self, now: float) -> None:
        self._below.heardAt = self._above.heardAt = now

    heardAt = property(None, _heard)


class _Senders:
    """
    Tells the same two.
    """

    __slots__ = ("_above", "_below", "_witness")

    def __init__(self, witness: Witness, below: Sender, above: Sender) -> None:
        self._witness = witness
        self._below = below
        self._above = above

    def sendBegan(self) -> None:
        self._below.sendBegan()
        self._above.sendBegan()

    def sendProgressed(self) -> None:
        self._below.sendProgressed()
        awaited = self._witness.awaited
        self._above.sendProgressed()
        self._witness.awaited = self._witness.awaited or awaited

    def suspectSpoke(self) -> None:
        self._below.suspectSpoke()
        self._above.suspectSpoke()

    def chunkComes(self) -> None:
        self._below.chunkComes()
        self._above.chunkComes()

    def leaveRound(self) -> None:
        self._below.leaveRound()
        self._above.leaveRound()

    def peerFinished(self) -> None:
        self._below.peerFinished()
        self._above.peerFinished()

    def connectionEnds(self) -> None:
        self._below.connectionEnds()
        self._above.connectionEnds()

    def lostUnheard(self, reason: Failure) -> None:
        self._above.lostUnheard(reason)
        self._below.lostUnheard(reason)


def connectionUnder(transport: object) -> tcp.Connection | None:
    """
    The TCP or UNIX connection under a stack of wrappers.

    @return: L{None} if there is none, or it is under more than 16 of them.
    """
    layer: Any = transport
    for _ in range(_MAX_WRAPPERS + 1):
        if isinstance(layer, tcp.Connection):
            return layer
        # Twisted's stand-in for a connection after startTLS forwards every name but its own.
        layer = getattr(layer, "_connection", None) or getattr(layer, "transport", None)
    return None


_IN_MEMORY = (
    ("twisted.internet.testing", "StringTransport"),
    ("twisted.internet.protocol", "FileWrapper"),
    ("twisted.test.iosim", "FakeTransport"),
)
"""Twisted's transports for unit tests, by module and class."""


def isInMemory(transport: object) -> bool:
    """
    Whether one of Twisted's transports for unit tests is under a stack of wrappers: no reactor ever
    reads it.  Other transports without a connection, such as a process's, are not in memory.
    """
    # A module that is not loaded has made no transport.
    kinds = tuple(getattr(sys.modules.get(module), name, ()) for module, name in _IN_MEMORY)
    layer: Any = transport
    for _ in range(_MAX_WRAPPERS + 1):
        if isinstance(layer, kinds):
            return True
        layer = getattr(layer, "transport", None)
    return False


_LATER = ("sent", "round", "watched", "dataBuffer", "offset")
"""What every connection comes to have once it has written."""

_witnesses: dict[type[tcp.Connection], type[tcp.Connection]] = {}


def _witnessing(kind: type[tcp.Connection]) -> type[tcp.Connection]:
    if kind not in _witnesses:
        # A UNIX socket receives in another way, and has no error that this could save.
        base = Witness if kind.doRead is tcp.Connection.doRead else ObservedSocket
        _witnesses[kind] = type(kind.__name__, (base, kind), {"__module__": kind.__module__})
    return _witnesses[kind]


def _becomes(connection: tcp.Connection, kind: type[tcp.Connection]) -> bool:
    """
    Make a connection an instance of a subclass of its class.

    @return: whether it is one now.  Not if its class has another layout, of C{__slots__}; then it
        is watched as a transport that is no socket.
    """
    try:
        object.__setattr__(connection, "__class__", kind)
    except TypeError as error:
        _log.warn("{one} does not tell of its bytes: {error}", one=connection, error=error)
        return False
    return True


def _bearNextOnes(
    connection: tcp.Connection, before: type[tcp.Connection], kind: type[tcp.Connection]
) -> None:
    """
    Have the port that accepted a connection make the next ones such from the start.  A class that
    is assigned has Python give each a dictionary in place of plain fields, which makes every look
    at a field slower, and each connection larger.
    """
    port = getattr(connection, "server", None)
    if isinstance(port, tcp.Port) and port.transport is before:
        port.transport = cast(Any, kind)


def bearWitness(
    transport: object, liveness: Liveness, seconds: Callable[[], float], sender: Sender
) -> Witness | None:
    """
    Have the connection under a transport remember what it sees.

    @param liveness: whose C{heardAt} is assigned for each chunk.
    @param sender: is told beside whoever is already, as the link of a tunnel below this one.
    @return: L{None} if there is no TCP connection of Twisted's under it.  A UNIX socket tells the
        sender what L{ObservedSocket} says, if it tells no other.
    """
    connection = connectionUnder(transport)
    if connection is None:
        return None
    if not isinstance(connection, Witness | ObservedSocket):
        before = type(connection)
        kind = _witnessing(before)
        if not _becomes(connection, kind):
            return None
        _bearNextOnes(connection, before, kind)
    if isinstance(connection, ObservedSocket):
        connection.sender = connection.sender or sender
        return None
    assert isinstance(connection, Witness)
    below = connection.sender
    if below is not None:
        below.leaveRound()
    connection.liveness = cast(
        Liveness, liveness if below is None else _Hearers(connection.liveness, liveness)
    )
    connection.sender = sender if below is None else _Senders(connection, below, sender)
    connection.seconds = seconds
    # Python lays the fields of a class out by its first instances: a name that comes later costs
    # each of them a dictionary of its own, more than twice as large.
    for name in _LATER:
        setattr(connection, name, getattr(connection, name))
    if connection.writesItself:
        # This one comes and goes, see sendsNow.
        connection.write = connection.write  # type: ignore[method-assign]
        del connection.write
    return connection


def observedUnder(transport: object) -> Witness | ObservedSocket | None:
    """
    The connection that tells a link of each call before it makes it: the transport itself, or what
    is right below its TLS.  What other layers tell a protocol, and when, is not known.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = getattr(transport, "transport", None)
    return transport if isinstance(transport, Witness | ObservedSocket) else None


def _proxyLayer(transport: object) -> Any:
    """
    The layer of Twisted's C{haproxy:} under a transport; L{None} if there is none.
    """
    # Where nothing has loaded it, there is none, and it need not be loaded for that.
    module = sys.modules.get("twisted.protocols.haproxy._wrapper")
    kind: Any = getattr(module, "HAProxyProtocolWrapper", None)
    layer: Any = transport
    for _ in range(_MAX_WRAPPERS if kind is not None else 0):
        if layer is None or isinstance(layer, tcp.Connection):
            break
        if isinstance(layer, kind):
            return layer
        layer = getattr(layer, "transport", None)
    return None


@cache
def _awaitingHeader(kind: Any) -> Any:
    """
    A subclass of Twisted's layer that says when it has read the header.  Twisted tells nobody, and
    delivers what follows the header in the same call.
    """

    class AwaitingHeader(kind):  # type: ignore[misc]
        @property
        def _proxyInfo(self) -> None:
            return None

        @_proxyInfo.setter
        def _proxyInfo(self, info: object) -> None:
            if info is not None:
                waiting = self.__dict__.pop("_heartbeatsWaiting")
                # From here on it is Twisted's own again, and costs nothing.
                self.__class__ = kind
                self._proxyInfo = info
                for received in waiting:
                    received()

    AwaitingHeader.__name__ = kind.__name__
    return AwaitingHeader


def awaitHeader(transport: object, received: Callable[[], None]) -> bool:
    """
    Call something once a transport has read the header in which a load balancer says whose
    connection it is, and before anything that follows it is delivered.

    @return: whether there is a header to wait for.
    """
    layer = _proxyLayer(transport)
    if layer is None or layer._proxyInfo is not None:
        return False
    if not hasattr(layer, "_heartbeatsWaiting"):
        layer._heartbeatsWaiting = []
        kind: Any = type(layer)
        layer.__class__ = _awaitingHeader(kind)
    layer._heartbeatsWaiting.append(received)
    return True


def awaitsHeader(transport: object) -> bool:
    """
    Whether such a header has not come yet.
    """
    layer = _proxyLayer(transport)
    return layer is not None and layer._proxyInfo is None


_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20"
"""How a header of version 2 with the command LOCAL begins (PROXY protocol, 2.2)."""


def isHealthCheck(transport: object) -> bool:
    """
    Whether a load balancer has made the connection for itself, as it says by LOCAL.
    """
    info = getattr(_proxyLayer(transport), "_proxyInfo", None)
    return info is not None and info.header.startswith(_LOCAL)


_FORWARDED = (IHalfCloseableProtocol, IFileDescriptorReceiver, IHandshakeListener)


def declareForwarded(transport: object, protocol: object) -> None:
    """
    Have what stands between a transport and a protocol declare what the protocol provides.

    The wrapper of Twisted's client endpoints forwards three optional interfaces, but declares the
    last of them alone (C{directlyProvides} in a loop, L{twisted.internet.endpoints}), so that a
    protocol that listens to its handshake would no longer be half-closeable.
    """
    between = getattr(transport, "wrappedProtocol", None) or getattr(transport, "protocol", None)
    if getattr(between, "_wrappedProtocol", None) is protocol:
        for interface in _FORWARDED:
            if interface.providedBy(protocol) and not interface.providedBy(between):
                alsoProvides(between, interface)


def forwardHandshake(transport: object, protocol: object) -> None:
    """
    Have the layers between TLS and a protocol tell the protocol that the handshake is complete.

    L{twisted.protocols.policies.ProtocolWrapper} and its subclasses do not, so that a link above
    them would wait for its handshake for ever.

    @param protocol: provides C{IHandshakeListener}.
    """
    above, layer = protocol, transport
    for _ in range(_MAX_WRAPPERS):
        if layer is None or isinstance(layer, TLSMemoryBIOProtocol | tcp.Connection):
            break
        if not IHandshakeListener.providedBy(layer):
            _tellOfHandshake(layer, above)
        above, layer = layer, getattr(layer, "transport", None)
    declareForwarded(_tlsLayer(layer), above)


def _tellOfHandshake(layer: Any, above: Any) -> None:
    def handshakeCompleted() -> None:
        # It refers to the layer, and the layer to it.
        layer.__dict__.pop("handshakeCompleted", None)
        above.handshakeCompleted()

    try:
        layer.handshakeCompleted = handshakeCompleted
        alsoProvides(layer, IHandshakeListener)
    except (AttributeError, TypeError) as error:
        _log.warn("{one} does not tell of its TLS handshake: {error}", one=layer, error=error)


def isAccepted(connection: object) -> bool:
    """
    Whether a port has accepted it.
    """
    return isinstance(connection, tcp.Server)


def isSecured(transport: object) -> bool:
    """
    Whether a transport speaks TLS.
    """
    return isinstance(transport, TLSMemoryBIOProtocol) or ISSLTransport.providedBy(transport)


def handshakeDone(transport: object) -> bool:
    """
    Whether there is no TLS handshake to wait for.
    """
    return getattr(_tlsLayer(transport), "_handshakeDone", True)


def handshakeRejected(transport: object) -> bool:
    """
    Whether the peer's certificate has been refused.  Twisted before 24.7 says that the handshake
    is complete all the same.
    """
    return getattr(_tlsLayer(transport), "_aborted", False)


def sendHeldBack(transport: object) -> None:
    """
    Send what was written before the TLS handshake was complete.  Twisted does it after it has told
    the protocol, and lets what that writes there overtake it, if it is enough
    (L{twisted.protocols.tls}).
    """
    layer: Any = _tlsLayer(transport)
    if getattr(layer, "_appSendBuffer", None):
        layer._unbufferPendingWrites()


_NOT_SAID = (0, 1)
"""X509_V_OK; and X509_V_ERR_UNSPECIFIED, where it was not OpenSSL that refused it."""


def certificateRefused(transport: object) -> str:
    """
    Why OpenSSL refused the peer's certificate, in words; nothing if it did not, or is not asked.

    Source: SSL_get_verify_result(3ssl).  pyOpenSSL has no public name for it.
    """
    connection = getattr(_tlsLayer(transport), "_tlsConnection", None)
    if connection is None:
        return ""
    try:
        from OpenSSL._util import ffi, lib

        code = lib.SSL_get_verify_result(connection._ssl)
        words = lib.X509_verify_cert_error_string(code)
        return "" if code in _NOT_SAID else str(ffi.string(words).decode())
    except (ImportError, AttributeError, TypeError):
        # The transport may be a mock.
        return ""


def certificateOf(transport: object) -> Any:
    """
    The certificate that the peer has shown, as an C{OpenSSL.crypto.X509}; L{None} if it was not
    asked for one, there is no TLS, or it is over.
    """
    layer = _tlsLayer(transport)
    shown = getattr(layer, "getPeerCertificate", None)
    over = getattr(layer, "_tlsConnection", shown) is None
    return None if shown is None or over else shown()


def publicKeyOf(certificate: Any) -> bytes:
    """
    What identifies the holder of a certificate: its public key (C{SubjectPublicKeyInfo}, RFC 5280,
    DER).  That the peer has the private one, its handshake has proven.
    """
    from OpenSSL.crypto import FILETYPE_ASN1, dump_publickey

    return dump_publickey(FILETYPE_ASN1, certificate.get_pubkey())


def closesHere(transport: Any) -> bool:
    """
    Whether this side has begun to close the connection.

    After C{startTLS} the connection closes itself in answer to the peer's close_notify, so that
    only its TLS layer knows which side began.
    """
    if getattr(transport, "TLS", False):
        # Where startTLS has put the layer's own methods, they outlive the loss of the connection.
        shown = getattr(transport, "getPeerCertificate", None)
        transport = getattr(shown, "__self__", transport)
    return bool(getattr(transport, "disconnecting", False))


def _tlsLayer(transport: object) -> object:
    if isinstance(transport, tcp.Connection):
        # After startTLS; until it is lost.
        return getattr(transport, "protocol", None)
    return transport


class Relay:
    """
    Stands in for a protocol of which nothing else is to change.

    @ivar protocol: that protocol.
    """

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def connectionLost(self, reason: Failure) -> None:
        """See C{IProtocol}."""
        self.protocol.connectionLost(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.protocol, name)


class Buffering:
    """
    A layer above the connection that keeps bytes back until there is room for them.

    @ivar waiting: how many.
    """

    waiting = 0


def notRead(transport: object) -> bool:
    """
    Find out whether reading is paused on a connection that does not remember it: one on a UNIX
    socket.  The reactor lists all that it reads, so ask only when a peer is silent.
    """
    connection: Any = connectionUnder(transport)
    if connection is None or not connection.connected:
        return False
    return connection not in connection.reactor.getReaders()


def unsentBelow(transport: object) -> int:
    """
    Bytes that wait in the connection under a transport; 0 if there is none.
    """
    connection = connectionUnder(transport)
    if connection is None:
        return 0
    return len(connection.dataBuffer) - connection.offset + connection._tempDataLen


def unsentAbove(transport: object) -> int:
    """
    Bytes that wait in TLS and in other layers, above the connection.
    """
    total = 0
    layer: Any = transport
    for _ in range(_MAX_WRAPPERS):
        if isinstance(layer, tcp.Connection):
            layer = layer.protocol if layer.TLS else None
        if isinstance(layer, Relay):
            layer = layer.protocol
        if layer is None:
            break
        if isinstance(layer, Buffering):
            total += layer.waiting
        if isinstance(layer, TLSMemoryBIOProtocol):
            total += sum(map(len, layer._appSendBuffer)) + _aggregated(layer)
            if isinstance(getattr(layer, "transport", None), tcp.Connection):
                break
        layer = getattr(layer, "transport", None)
    return total


def _aggregated(layer: TLSMemoryBIOProtocol) -> int:
    """
    Bytes that TLS keeps until the end of the reactor's turn.  Twisted counts them; to add up
    thousands of pongs for each further ping would make a flood of pings quadratic.
    """
    aggregator: Any = getattr(layer, "_aggregator", None)
    left: int | None = getattr(aggregator, "_bufferLeft", None)
    return 0 if left is None else aggregator.MAX_BUFFER_SIZE - left


class CloseableStack(NamedTuple):
    """
    A transport that closes when its connection does.

    @ivar connection: the TCP or UNIX connection.
    @ivar tls: the one TLS layer on it; L{None} if there is none.
    """

    connection: Any
    tls: Any


def closeableStack(transport: Any) -> CloseableStack | None:
    """
    Find what a polite close has to deal with.

    @return: L{None} if a layer closes in its own way (a tunnel, a second TLS layer), or if the
        connection cannot be half-closed now (a TLS handshake, another close under way).
    """
    tls: Any = None
    layer = transport
    for _ in range(_MAX_WRAPPERS + 1):
        if layer is None or isinstance(layer, Buffering):
            return None
        if isinstance(layer, TLSMemoryBIOProtocol):
            if tls is not None:
                return None
            tls = layer
        if isinstance(layer, tcp.Connection):
            break
        layer = getattr(layer, "transport", None)
    else:
        return None
    if layer.TLS:
        if tls is not None:
            return None
        tls = layer.protocol
    isOpen = layer.connected and not layer.disconnecting and not layer._aborting
    canHalfClose = hasattr(FileDescriptor, "_postLoseConnection")
    canClose = isOpen and canHalfClose and handshakeDone(tls)
    return CloseableStack(layer, tls) if canClose else None


def hasUnread(connection: Any) -> bool:
    """
    Whether bytes have come that have not been read.  The peer's FIN is none.
    """
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def unacknowledged(connection: Any) -> int:
    """
    Bytes that the peer's kernel has not acknowledged, those that wait in this process included.
    On a UNIX socket there is one kernel, which has acknowledged what it has taken.
    """
    waiting = unsentBelow(connection)
    if isinstance(connection, Witness) and connection.connected:
        waiting += _queued(connection.socket) or 0
    return waiting


def abort(transport: Any) -> None:
    """
    End a connection at once.  C{abortConnection} is not on C{ITransport}: the nearest layer that
    has it is asked.  A process is killed, because one that hangs does not see that its pipes are
    closed, and stays beside the next.  Anything else has to do with the polite close.
    """
    layer = transport
    for _ in range(_MAX_WRAPPERS + 1):
        if layer is None:
            break
        aborting = getattr(layer, "abortConnection", None)
        if aborting is not None:
            aborting()
            return
        if IProcessTransport.providedBy(layer):
            # A program that runs as another user may not be killed.
            with suppress(ProcessExitedAlready, OSError):
                layer.signalProcess("KILL")
            break
        layer = getattr(layer, "transport", None)
    transport.loseConnection()


# The kernel's knowledge.

_TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform.startswith("linux") else None

# struct tcp_info as of Linux 2.6, which every later kernel only adds to: eight bytes, of which the
# third counts retransmits and the fourth probes, then 32-bit numbers.
_INFO = struct.Struct("=8B24I")
# Linux 5.4 added the peer's window, at this place.
_WINDOW = struct.Struct("=I")
_WINDOW_AT = 228
_RETRANSMITS, _PROBES = 2, 3
_UNACKED = 8 + 4
_SINCE_DATA = 8 + 11
_SINCE_ACK = 8 + 12
_RTT = 8 + 15

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows has neither.

    def _queued(connection: socket.socket) -> int | None:
        return None

else:

    def _queued(connection: socket.socket) -> int | None:
        """
        Bytes in the kernel's send queue, tcp(7): SIOCOUTQ.
        """
        try:
            # Into room of ours, for to have it made from bytes takes twice as long.
            number = bytearray(4)
            ioctl(connection, TIOCOUTQ, number)
            return int.from_bytes(number, sys.byteorder)
        except OSError:
            return None


def _pendingError(connection: socket.socket) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:
        return 0


def _info(connection: socket.socket) -> bytes:
    """
    C{struct tcp_info}, as much of it as this kernel fills; nothing where there is no such call.
    """
    if _TCP_INFO is None:
        return b""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _WINDOW_AT + _WINDOW.size)
    except OSError:
        return b""


def evidenceOf(connection: socket.socket, fall: Fall | None = None) -> Evidence | None:
    """
    What the kernel knows of a connection now.

    @return: L{None} where it does not say.
    """
    raw = _info(connection)
    if len(raw) < _INFO.size:
        return None
    info = _INFO.unpack_from(raw)
    hasWindow = len(raw) >= _WINDOW_AT + _WINDOW.size
    return Evidence(
        sinceAck=info[_SINCE_ACK] / 1e3,
        sinceData=info[_SINCE_DATA] / 1e3,
        unacknowledged=_queued(connection),
        unanswered=info[_UNACKED],
        retransmits=info[_RETRANSMITS],
        window=_WINDOW.unpack_from(raw, _WINDOW_AT)[0] if hasWindow else None,
        probes=info[_PROBES],
        rtt=info[_RTT] / 1e6,
        _fall=fall or Fall(1),
    )


def unreachable(connection: socket.socket) -> int:
    """
    Ask our own kernel whether it knows of no way to the peer.  Nothing is sent.

    An established connection is never told that its route has gone.  But the kernel remembers what
    routers and neighbours said of it, as the pending error (C{sk_err_soft}, which C{SO_ERROR}
    yields); and to connect a datagram socket is to ask the routing table.

    @return: an error number, as in the C{errno} module; 0 if there is a way, for all it knows.
    """
    pending = _pendingError(connection)
    if pending:
        return pending
    try:
        here, there = connection.getsockname(), connection.getpeername()
        with socket.socket(connection.family, socket.SOCK_DGRAM) as asking:
            if not _routeAlike(asking, connection):
                return 0
            return _bound(asking, here) or _connected(asking, there)
    except OSError:
        return 0


def _bound(asking: socket.socket, here: tuple[Any, ...]) -> int:
    try:
        # The port is not ours to share; a link-local address needs its scope.
        asking.bind((here[0], 0, *here[2:]))
    except OSError as error:
        return EADDRNOTAVAIL if error.errno == EADDRNOTAVAIL else 0
    return 0


def _connected(asking: socket.socket, there: tuple[Any, ...]) -> int:
    try:
        asking.connect(there)
    except OSError as error:
        return error.errno or 0
    return 0


_ROUTING = [
    (option, size)
    for name, size in (("SO_MARK", 4), ("SO_BINDTODEVICE", 16))
    if (option := getattr(socket, name, None)) is not None
]
"""What has the kernel look into another routing table, socket(7), and the size of its value."""


def _routeAlike(asking: socket.socket, connection: socket.socket) -> bool:
    """
    @return: whether both ask the same table.
    """
    for option, size in _ROUTING:
        value = connection.getsockopt(socket.SOL_SOCKET, option, size)
        if value.strip(b"\0"):
            try:
                asking.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError:
                return False
    return True
