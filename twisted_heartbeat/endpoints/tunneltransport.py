# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TunnelTransport}: the transport that a tunnel shows to the protocol it carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ITransport,
    IUNIXTransport,
)
from zope.interface import (
    alsoProvides,
    directlyProvidedBy,
    directlyProvides,
    implementer,
    providedBy,
)

from ..core import wire
from ..core.causes import PeerClosed
from ..logs import SafeLogger, guarded
from ..transport.compat import pullProducerOf, pushProducerFor, startTLSOn
from ..transport.layers import Buffering, isClosingLocally

if TYPE_CHECKING:
    from ..link.link import Link
    from .tunnel import Tunnel

_log = SafeLogger()


MAX_BODY = 64 * 1024
"""
Bytes of a frame's body: what Twisted's transports read, and buffer, at a time.  So what comes from
another transport is never cut, and a ping waits behind no more than two of them.
"""


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
        self.producer = producer if streaming else pushProducerFor(producer, self)
        if not streaming:
            self.producer.startStreaming()

    def unregisterProducer(self) -> None:
        """
        See C{IConsumer}.
        """
        producer, self.producer = self.producer, None
        self._producerPaused = False
        if pullProducerOf(producer) is not None:
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
        startTLSOn(self, contextFactory, normal, TunnelTransport)
        alsoProvides(self, provided)
        for name in _SECURED:
            setattr(self, name, getattr(self.protocol, name))
        if producer is not None:
            self.registerProducer(pullProducerOf(producer) or producer, streaming)

    # The end.

    def loseConnection(self) -> None:
        """
        See C{ITransport}.
        """
        if self.connected and not self.disconnecting:
            if self.TLS and not isClosingLocally(self):
                words = "the peer closed the connection (close_notify)"
                self.carrierLink.recordCause(PeerClosed(words))
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
