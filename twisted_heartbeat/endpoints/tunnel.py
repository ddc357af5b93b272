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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from ..core import wire
from ..core.causes import ClosedHere, HandshakeFailed, PeerClosed, ProtocolViolation
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..timing.deadline import PeerDeadline, cancelCalls
from ..transport.layers import abort
from .tunneltransport import TunnelTransport

if TYPE_CHECKING:
    from ..protocol.mixedlink import MixedInLink

_log = SafeLogger()


_MISSING_PREFIX = "no hello came: does the other end have the heartbeat: prefix?"


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
        self._known.openedByHello()
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
        if self._known.hasReceivedData:
            self._known.abort(ProtocolViolation(f"no HELLO came within {bound:g} s"))

    def _cancelled(self, _: object) -> None:
        self._waiting = None
        if self._known.state == "new":
            # Its transport exists, and has not called connectionMade.
            abort(self.transport)
        else:
            self._known.abort(ClosedHere())

    # From the peer.

    def _newReader(self) -> wire.FrameReader:
        return wire.StreamingReader()

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
            self._known.recordCause(PeerClosed("the peer has ended its data"))
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
        self._known.markSent()

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
        if not self._known.state.isEnding:
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
        if not link.state.isEnding:
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
            cause.add(_MISSING_PREFIX)

    @property
    def _known(self) -> MixedInLink:
        assert self.link is not None
        return self.link

    def _later(self, delay: float, f: Callable[..., object], *arguments: object) -> IDelayedCall:
        return self._known.clock.callLater(delay, f, *arguments)


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
