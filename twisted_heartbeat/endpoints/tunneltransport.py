# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TunnelTransport}: the transport that a tunnel shows to the protocol that it carries.
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
Bytes of a frame's body: as many as Twisted's transports read, and buffer, at a time.  So a chunk
from another transport is never cut, and a ping waits behind at most two frames.
"""


@implementer(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
class TunnelTransport(Buffering):
    """
    The end of a tunnel that faces the carried protocol.

    It provides what the connection below provides, and forwards unknown attributes to it, except
    for the passing of descriptors.  Data that the connection has no room for waits here, so that a
    ping never waits behind more than one buffer of the connection.

    @ivar transport: the connection below.
    @ivar protocol: the carried protocol; TLS, after L{startTLS}.
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
        @raise TypeError: if C{data} is not bytes.
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
        self.write(b"".join(data))

    def _pump(self) -> None:
        while self._queue and not self._blocked:
            body = self._next()
            self.waiting -= len(body)
            self._send(body)

    def _send(self, body: bytes) -> None:
        self.transport.writeSequence((wire.encodeDataHeader(len(body)), body))
        self._tunnel.markSent()

    def _next(self) -> bytes:
        """
        Take the body of one frame from the queue.  No more than that is ever copied.
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
        Queue from here on, because the connection's buffer is full.
        """
        self._blocked = True
        self._pauseProducer()

    def unblock(self) -> None:
        """
        Send what was queued, because the connection's buffer is empty again.
        """
        self._blocked = False
        self._pump()
        if not self._blocked and not self._queue and self._producerPaused:
            self._producerPaused = False
            self.producer.resumeProducing()
        self._settle()

    def _settle(self) -> None:
        """
        End or close, once all data has been sent.
        """
        if self._queue or self._producerPaused or not self.connected:
            return
        if self._ending and not self._ended:
            self._ended = True
            self._tunnel.sendEnd()
        if self.disconnecting and self.producer is None:
            self._tunnel.closeGracefully()

    # Who writes.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        @raise RuntimeError: if a producer is registered already.
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
        self._tunnel.pauseReading()

    def resumeProducing(self) -> None:
        self._tunnel.resumeReading()

    # TLS inside.

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """
        Start TLS between the two carried protocols, inside of the frames.
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
        if self.connected and not self.disconnecting:
            if self.TLS and not isClosingLocally(self):
                words = "the peer closed the connection (close_notify)"
                self.carrierLink.recordCause(PeerClosed(words))
            self.disconnecting = True
            self._tunnel.stopReading()
            self._settle()

    def loseWriteConnection(self) -> None:
        if not self._ended:
            self._ending = True
            self._settle()

    def abortConnection(self) -> None:
        self._tunnel.abort()

    def stopProducing(self) -> None:
        self.loseConnection()

    def stopConsuming(self) -> None:
        self.unregisterProducer()
        self.loseConnection()

    def finish(self) -> None:
        """
        Take no more data, from either side.
        """
        self.disconnecting = self._ended = True
        self._queue.clear()
        self.waiting = 0

    def lost(self) -> None:
        """
        Stop the producer, because the connection is lost.
        """
        self.finish()
        self.connected, self.disconnected = False, True
        producer, self.producer = self.producer, None
        if producer is not None:
            # If the producer raises, the carried protocol must still hear of the end.
            guarded(_log, "{producer} failed at its end", producer.stopProducing, producer=producer)

    # What the connection knows.

    @property
    def carrierLink(self) -> Link:
        """
        The tunnel's own link, see L{twisted_heartbeat.link.proof}.
        """
        return self._tunnel._requireLink()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
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
"""Methods that go through TLS after L{TunnelTransport.startTLS}."""
