# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Tunnel}: another protocol's stream, in the frames of the built-in protocol, on a watched link.

Outside is L{Tunnel}, which speaks over the connection and is what its transport knows.  Inside is
L{TunnelTransport}, which is what the carried protocol knows: to it the tunnel is a connection like
any other.

The carried protocol can pause the reading of the connection, and then no ping is read either.  The
link speaks by itself then, often enough for the peer's bound: to be slow is not to be dead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet._newtls import startTLS
from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import (
    alsoProvides,
    directlyProvidedBy,
    directlyProvides,
    implementer,
    providedBy,
)

from .core import wire
from .core.causes import ClosedHere, HandshakeFailed, PeerClosed, ProtocolViolation
from .net.deadline import PeerDeadline, cancelCalls
from .net.link import Link
from .net.reports import SafeLogger, guarded
from .net.transport import Buffering, abort, closesHere
from .protocol import HeartbeatProtocol, MixedInLink

_log = SafeLogger()

MAX_BODY = 64 * 1024
"""
Bytes of a frame's body: what Twisted's transports read, and buffer, at a time.  So what comes from
another transport is never cut, and a ping waits behind no more than two of them.
"""

_ONE_END = "no hello came: does the other end have the heartbeat: prefix?"


class EndpointHistory:
    """
    What the tunnels of one endpoint have in common.

    @ivar helloReceived: whether a hello has come on any of them, ever.
    """

    __slots__ = ("helloReceived",)

    def __init__(self) -> None:
        self.helloReceived = False


@implementer(IPushProducer)
class Tunnel(HeartbeatProtocol):
    """
    The end of a tunnel, as its connection knows it.

    The carried protocol is built and connected when the peer has said hello, so that whoever does
    not speak the built-in protocol never reaches it.
    """

    inside: TunnelTransport
    transport: Any

    _readyAtHello = True

    def __init__(
        self, factory: IProtocolFactory, address: Any, clock: Any, history: EndpointHistory
    ) -> None:
        """
        @param factory: makes the carried protocol.
        @param address: what it is made for.
        @param clock: tells the time.
        @param history: that of the endpoint.
        """
        self.clock = clock
        self._history = history
        self._factory = factory
        self._address = address
        self._waiting: Deferred[Any] | None = None
        self._lost: Failure | None = None
        self._flowing = False
        self._opened = False
        self._paused = False
        self._peerEnded = False
        self._released = False
        self._held: deque[wire.Frame] = deque()
        self._helloCall: PeerDeadline | None = None
        self._endedCall: IDelayedCall | None = None

    # The beginning.

    def connectionMade(self) -> None:
        """
        Say hello, and wait for the peer's.
        """
        super().connectionMade()
        self.inside = TunnelTransport(self)
        self.transport.registerProducer(self, True)

    def whenOpen(self) -> Deferred[Any]:
        """
        @return: fires with the carried protocol once it is connected; fails if that never comes
            about.  To cancel it is to abort the connection.
        """
        if self._lost is not None:
            return fail(self._lost)
        if self._opened:
            return succeed(self.inside.protocol)
        self._waiting = Deferred(self._cancelled)
        return self._waiting

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Build the carried protocol, and connect it.
        """
        self._history.helloReceived = True
        cancelCalls(self._helloCall)
        try:
            protocol = self._factory.buildProtocol(self._address)
            if protocol is None:
                raise NoProtocol
        except BaseException:
            self._refuse(Failure())
        else:
            self._open(protocol)

    def _open(self, protocol: Any) -> None:
        self._opened = self._flowing = True
        self.inside.protocol = protocol
        protocol.makeConnection(self.inside)
        self._known.opened()
        if ISSLTransport.providedBy(self.inside) and IHandshakeListener.providedBy(protocol):
            protocol.handshakeCompleted()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(protocol)

    def _refuse(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(failure)
        elif not failure.check(NoProtocol):
            _log.failure("{link} could not build a protocol", failure, link=self.link)
        self._close()

    def awaitHello(self) -> None:
        """
        The link is ready, its TLS handshake and the header of a load balancer included: the peer's
        hello has to come within the bound.
        """
        bound = self._known.bound
        if bound is not None:
            self._helloCall = PeerDeadline(self._known.clock, bound, self._noHello, bound)

    def _noHello(self, bound: float) -> None:
        self._helloCall = None
        # Of one who has said nothing at all the verdict is due in this instant.
        if self._known.spoken:
            self._known.abort(ProtocolViolation(f"no HELLO came within {bound:g} s"))

    def _cancelled(self, _: object) -> None:
        self._waiting = None
        if self._known.state == "new":
            # Its transport exists, and has not called connectionMade.
            abort(self.transport)
        else:
            self._known.abort(ClosedHere())

    # From the peer.

    def _newReader(self) -> wire.Reader:
        return wire.Pieces()

    def frameReceived(self, frame: wire.Frame) -> None:
        """
        See L{HeartbeatProtocol.frameReceived}.
        """
        if isinstance(frame, wire.Data) and self._flowing:
            self.inside.protocol.dataReceived(frame.message)
        elif isinstance(frame, wire.Data | wire.End | wire.Goodbye):
            self._pass(frame)
        else:
            super().frameReceived(frame)

    def _pass(self, frame: wire.Frame) -> None:
        if self._paused:
            self._held.append(frame)
        elif isinstance(frame, wire.Goodbye):
            # It waits for this side to close, which the super does.
            self._release()
            super().frameReceived(frame)
        elif self._opened and not self.inside.disconnecting:
            if isinstance(frame, wire.Data):
                self.inside.protocol.dataReceived(frame.message)
            else:
                self._finished()

    def _finished(self) -> None:
        self._peerEnded, self._flowing = True, False
        half = IHalfCloseableProtocol(self.inside.protocol, None)
        if half is None:
            self._known.blame(PeerClosed("the peer has ended its data"))
            self.depart()
        else:
            half.readConnectionLost()

    def pauseReading(self) -> None:
        """
        The carried protocol wants no more for now.
        """
        if self._lost is None and not self._paused and not self.inside.disconnecting:
            self._paused, self._flowing = True, False
            self._known.pause()

    def resumeReading(self) -> None:
        """
        It wants more again.
        """
        if self._lost is not None or not self._paused:
            return
        self._paused = False
        while self._held and not self._paused:
            self._pass(self._held.popleft())
        if not self._paused and self._lost is None:
            self._flowing = not self._peerEnded and not self.inside.disconnecting
            self._known.resume()

    def stopReading(self) -> None:
        """
        It wants nothing more at all; but the peer's goodbye is waited for.
        """
        self._flowing = False
        self._held.clear()
        self.resumeReading()

    # To the peer.

    def pauseProducing(self) -> None:
        """
        See C{IPushProducer}: the connection's buffer is full.
        """
        self.inside.block()

    def resumeProducing(self) -> None:
        """
        See C{IPushProducer}: it is empty.
        """
        self.inside.unblock()

    def stopProducing(self) -> None:
        """
        See C{IProducer}: the connection is lost.
        """
        self.inside.lost()

    def spoke(self) -> None:
        """
        Data has been sent.
        """
        self._known.spoke()

    def sendEnd(self) -> None:
        """
        Say that no more data comes.
        """
        self.transport.write(wire.encode(wire.End()))
        # As from any transport, not from inside of the call that asks for it.
        self._endedCall = self._later(0, self._ended)

    def _ended(self) -> None:
        half = IHalfCloseableProtocol(self.inside.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    # The end.

    def depart(self) -> None:
        """
        Close, once the carried protocol has written its last.  The link says goodbye, and the peer
        closes.
        """
        if self._known.state not in ("closing", "gone"):
            self.inside.finish()
            self.stopReading()
            self._close()

    def abort(self) -> None:
        """
        End it at once.
        """
        self._known.abort(ClosedHere())

    def _close(self) -> None:
        link = self._known
        if link.state not in ("closing", "gone"):
            self._release()
            link.close()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self.inside.finish()
            # Twisted's transports do not close under a producer.
            self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        """
        See C{IProtocol}.
        """
        self._lost = reason = reason or connectionDone
        self._flowing = False
        self._held.clear()
        cancelCalls(self._helloCall, self._endedCall)
        if not self._history.helloReceived:
            self._suspectOneEnd()
        if hasattr(self, "inside"):
            self.inside.lost()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)
        if self._opened:
            self.inside.protocol.connectionLost(reason)

    def _suspectOneEnd(self) -> None:
        """
        Name the likeliest mistake in the cause of a link, as long as no hello has ever come at this
        endpoint.  A peer that had the prefix once has another problem.
        """
        cause = self._known.cause
        if cause is not None and not isinstance(cause, ClosedHere | HandshakeFailed):
            cause.add(_ONE_END)

    @property
    def _known(self) -> MixedInLink:
        assert self.link is not None
        return self.link

    def _later(self, delay: float, f: Callable[..., object], *arguments: object) -> IDelayedCall:
        return self._known.clock.callLater(delay, f, *arguments)


@implementer(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
class TunnelTransport(Buffering):
    """
    The end of a tunnel, as the protocol that it carries knows it.

    It provides and forwards what the connection below does, but for the passing of descriptors.
    What the connection has no room for waits here, so that a ping never waits behind more than one
    buffer of the connection.

    @ivar transport: the connection below.
    @ivar protocol: what is carried; TLS, after L{startTLS}.
    """

    connected = True
    disconnected = False
    disconnecting = False
    producer: Any = None
    streamingProducer = False
    TLS = False

    protocol: Any = None

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self.transport: Any = tunnel.transport
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._blocked = False
        self._producerPaused = False
        self._ending = False
        self._ended = False
        below = [i for i in providedBy(self.transport) if not i.isOrExtends(IUNIXTransport)]
        directlyProvides(self, *below)

    # What is written.

    def write(self, data: bytes) -> None:
        """
        See C{ITransport}.

        @raise TypeError: if it is no bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not data or self._ended:
            return
        if self._blocked or self._queue or len(data) > MAX_BODY:
            self._queue.append(data)
            self.waiting += len(data)
            self._pump()
            if self._queue:
                self._pauseProducer()
        else:
            self._send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        See C{ITransport}.
        """
        self.write(b"".join(data))

    def _pump(self) -> None:
        while self._queue and not self._blocked:
            body = self._next()
            self.waiting -= len(body)
            self._send(body)

    def _send(self, body: bytes) -> None:
        self.transport.writeSequence((wire.encodeDataHeader(len(body)), body))
        self._tunnel.spoke()

    def _next(self) -> bytes:
        """
        Take from the queue what is sent in one frame: no more than that is ever copied.
        """
        data = self._queue[0]
        body = data[self._offset : self._offset + MAX_BODY]
        self._offset += len(body)
        if self._offset == len(data):
            self._queue.popleft()
            self._offset = 0
        return body

    def block(self) -> None:
        """
        There is no room in the connection's buffer.
        """
        self._blocked = True
        self._pauseProducer()

    def unblock(self) -> None:
        """
        There is again.
        """
        self._blocked = False
        self._pump()
        if not self._blocked and not self._queue and self._producerPaused:
            self._producerPaused = False
            self.producer.resumeProducing()
        self._settle()

    def _settle(self) -> None:
        """
        Do what had to wait until all was sent.
        """
        if self._queue or self._producerPaused or not self.connected:
            return
        if self._ending and not self._ended:
            self._ended = True
            self._tunnel.sendEnd()
        if self.disconnecting and self.producer is None:
            self._tunnel.depart()

    # Who writes.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        See C{IConsumer}.

        @raise RuntimeError: if there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never "
                "unregistered."
            )
        if not self.connected:
            producer.stopProducing()
            return
        self.streamingProducer = streaming
        self.producer = producer if streaming else _PullToPush(producer, self)
        if not streaming:
            self.producer.startStreaming()

    def unregisterProducer(self) -> None:
        """
        See C{IConsumer}.
        """
        producer, self.producer = self.producer, None
        self._producerPaused = False
        if isinstance(producer, _PullToPush):
            producer.stopStreaming()
        self._settle()

    def _pauseProducer(self) -> None:
        if self.producer is not None and not self._producerPaused:
            self._producerPaused = True
            self.producer.pauseProducing()

    # What is read.

    def pauseProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self._tunnel.pauseReading()

    def resumeProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self._tunnel.resumeReading()

    # TLS inside.

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """
        See C{ITLSTransport}: TLS between the two carried protocols, inside of the frames.
        """
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        provided = directlyProvidedBy(self)
        startTLS(self, contextFactory, normal, TunnelTransport)
        alsoProvides(self, provided)
        for name in _SECURED:
            setattr(self, name, getattr(self.protocol, name))
        if producer is not None:
            self.registerProducer(getattr(producer, "_producer", producer), streaming)

    # The end.

    def loseConnection(self) -> None:
        """
        See C{ITransport}.
        """
        if self.connected and not self.disconnecting:
            if self.TLS and not closesHere(self):
                words = "the peer closed the connection (close_notify)"
                self.carrierLink.blame(PeerClosed(words))
            self.disconnecting = True
            self._tunnel.stopReading()
            self._settle()

    def loseWriteConnection(self) -> None:
        """
        See C{IHalfCloseableDescriptor}.
        """
        if not self._ended:
            self._ending = True
            self._settle()

    def abortConnection(self) -> None:
        """
        See C{ITCPTransport}.
        """
        self._tunnel.abort()

    def stopProducing(self) -> None:
        """
        See C{IProducer}.
        """
        self.loseConnection()

    def stopConsuming(self) -> None:
        """
        As every transport of Twisted's.
        """
        self.unregisterProducer()
        self.loseConnection()

    def finish(self) -> None:
        """
        Nothing more is taken, from either side.
        """
        self.disconnecting = self._ended = True
        self._queue.clear()
        self.waiting = 0

    def lost(self) -> None:
        """
        The connection is lost.
        """
        self.finish()
        self.connected, self.disconnected = False, True
        producer, self.producer = self.producer, None
        if producer is not None:
            # What it raises must not keep the carried protocol from its own end.
            guarded(_log, "{producer} failed at its end", producer.stopProducing, producer=producer)

    # What the connection knows.

    @property
    def carrierLink(self) -> Link:
        """
        The tunnel's own link.
        """
        return self._tunnel._known

    def getPeer(self) -> Any:
        """
        See C{ITransport}.
        """
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """
        See C{ITransport}.
        """
        return self.transport.getHost()

    def __getattr__(self, name: str) -> Any:
        if name == "sendFileDescriptor":
            raise AttributeError("a tunnel carries no descriptors")
        return getattr(self.transport, name)


_SECURED = (
    "write",
    "writeSequence",
    "loseConnection",
    "registerProducer",
    "unregisterProducer",
)
"""What goes through TLS once there is some."""


class TunnelFactory:
    """
    Makes the ends of tunnels.

    It provides what the carried factory provides, and forwards what it does not know.

    @ivar latest: the last one that it made.
    """

    def __init__(self, factory: Any, clock: Any, history: EndpointHistory | None = None) -> None:
        """
        @param factory: makes the carried protocols.
        @param clock: tells the time to the tunnels.
        @param history: that of the endpoint; a new one if L{None}.
        """
        self._factory = factory
        self._clock = clock
        self._history = history or EndpointHistory()
        self.latest: Tunnel | None = None
        directlyProvides(self, providedBy(factory))

    def buildProtocol(self, addr: Any) -> Tunnel:
        """
        See C{IProtocolFactory}.
        """
        self.latest = Tunnel(self._factory, addr, self._clock, self._history)
        return self.latest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"
