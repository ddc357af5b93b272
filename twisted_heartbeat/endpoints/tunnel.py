# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Tunnel}: another protocol's stream, in the frames of the built-in protocol, on a watched link.

Problem: C{heartbeat:} watches the connection of a protocol that knows nothing of it, such as HTTP,
without a byte of that protocol being changed.

Idea: one end has two faces.  L{Tunnel} speaks the built-in protocol over the connection.
L{TunnelTransport} is the transport that the carried protocol knows.

States:

 1. I{Greeting}.  The hello is sent.  The peer's hello must come within the bound.
 2. I{Open}.  The peer's hello has come.  Only now the carried protocol is built and connected, so a
    peer without the prefix never reaches it.
 3. I{Paused}, and I{open} again.  The carried protocol has paused reading.  What the connection has
    delivered already is held.
 4. I{Peer ended}.  The peer sends no more data.  A carried protocol without half-closing is closed.
 5. I{Released}.  This end closes: the carried protocol's last bytes are written, then the goodbye.

Invariants:

 - A carried protocol that pauses reading also pauses the reading of pings.  The session then speaks
   by itself, often enough for the peer's bound, so a slow end is not taken for a dead one.
 - At most one buffer of the connection is before a ping, see L{TunnelTransport}.
 - A goodbye is held behind the data before it, so that no data is lost.

Cost: 12 bytes for each frame of at most 64 KiB, see C{benchmarks/tunnel.py}.
"""

from __future__ import annotations

from collections import deque
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
from ..link.state import LinkState
from ..logs import SafeLogger, guarded
from ..protocol.heartbeat import HeartbeatProtocol
from ..timing.deadline import PeerDeadline, cancelCalls
from ..transport.layers import abort
from ..transport.proxyheader import clientAddress
from .tunneltransport import TunnelTransport

if TYPE_CHECKING:
    from ..protocol.mixedlink import MixedInLink

_log = SafeLogger()


_MISSING_PREFIX = "no hello came: does the other end have the heartbeat: prefix?"


class EndpointHistory:
    """
    The history that all tunnels of one endpoint share.

    @ivar helloReceived: whether a hello has ever come on any of them.
    """

    __slots__ = ("helloReceived",)

    def __init__(self) -> None:
        self.helloReceived = False


@implementer(IPushProducer)
class Tunnel(HeartbeatProtocol):
    """
    The end of a tunnel that faces the connection.

    @ivar tunnelTransport: the end that faces the carried protocol; from C{connectionMade} on.
    """

    tunnelTransport: TunnelTransport
    transport: Any

    _readyAtHello = True

    def __init__(
        self, factory: IProtocolFactory, address: Any, clock: Any, history: EndpointHistory
    ) -> None:
        """
        @param factory: makes the carried protocol.
        @param address: passed to its C{buildProtocol}, unless a load balancer names the client's.
        @param clock: tells the time.
        @param history: the endpoint's.
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
        super().connectionMade()
        self.tunnelTransport = TunnelTransport(self)
        self.transport.registerProducer(self, True)

    def whenOpen(self) -> Deferred[Any]:
        """
        @return: fires with the carried protocol once it is connected; fails if the link ends
            before.  To cancel it aborts the connection.
        """
        if self._lost is not None:
            return fail(self._lost)
        if self._opened:
            return succeed(self.tunnelTransport.protocol)
        self._waiting = Deferred(self._cancelled)
        return self._waiting

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Build and connect the carried protocol.
        """
        self._history.helloReceived = True
        cancelCalls(self._helloCall)
        try:
            # The endpoint knows a load balancer's address only, and a server may count by it.
            address = clientAddress(self.transport) or self._address
            protocol = self._factory.buildProtocol(address)
            if protocol is None:
                raise NoProtocol
        except BaseException:
            self._refuse(Failure())
        else:
            self._open(protocol)

    def _open(self, protocol: Any) -> None:
        self._opened = self._flowing = True
        self.tunnelTransport.protocol = protocol
        protocol.makeConnection(self.tunnelTransport)
        self._requireLink().openedByHello()
        if ISSLTransport.providedBy(self.tunnelTransport) and IHandshakeListener.providedBy(
            protocol
        ):
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
        Give the peer's hello a deadline: the bound.  The link is ready, including its TLS handshake
        and the header of a load balancer.
        """
        bound = self._requireLink().bound
        if bound is not None:
            self._helloCall = PeerDeadline(
                self._requireLink().config.clock, bound, self._noHello, bound
            )

    def _noHello(self, bound: float) -> None:
        self._helloCall = None
        # If the peer has said nothing at all, the detector's verdict is due in this instant.
        if self._requireLink().hasReceivedData:
            self._requireLink().abort(ProtocolViolation(f"no HELLO came within {bound:g} s"))

    def _cancelled(self, _: object) -> None:
        self._waiting = None
        if self._requireLink().state is LinkState.NEW:
            # The transport exists, and has not called connectionMade yet.
            abort(self.transport)
        else:
            self._requireLink().abort(ClosedHere())

    # From the peer.

    def _newReader(self) -> wire.FrameReader:
        return wire.StreamingReader()

    def frameReceived(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Data) and self._flowing:
            self.tunnelTransport.protocol.dataReceived(frame.message)
        elif isinstance(frame, wire.Data | wire.End | wire.Goodbye):
            self._deliverFrame(frame)
        else:
            super().frameReceived(frame)

    def _deliverFrame(self, frame: wire.Frame) -> None:
        if self._paused:
            self._held.append(frame)
            session = self._requireLink().session
            if isinstance(frame, wire.Goodbye) and session is not None:
                # A word to a peer that has closed would be answered by a reset.
                session.goodbyeSaid = True
        elif isinstance(frame, wire.Goodbye):
            # The peer waits for this side to close, which the super does.
            self._release()
            super().frameReceived(frame)
        elif self._opened and not self.tunnelTransport.disconnecting:
            if isinstance(frame, wire.Data):
                self.tunnelTransport.protocol.dataReceived(frame.message)
            else:
                self._finished()

    def _finished(self) -> None:
        self._peerEnded, self._flowing = True, False
        half = IHalfCloseableProtocol(self.tunnelTransport.protocol, None)
        if half is None:
            self._requireLink().recordCause(PeerClosed("the peer has ended its data"))
            self.closeGracefully()
        else:
            half.readConnectionLost()

    def pauseReading(self) -> None:
        """
        Pause, because the carried protocol wants no more data for now.
        """
        if self._lost is None and not self._paused and not self.tunnelTransport.disconnecting:
            self._paused, self._flowing = True, False
            self._requireLink().peerWatch.pause()

    def resumeReading(self) -> None:
        """
        Deliver what was held, and read again.
        """
        if self._lost is not None or not self._paused:
            return
        self._paused = False
        while self._held and not self._paused:
            self._deliverFrame(self._held.popleft())
        if not self._paused and self._lost is None:
            self._flowing = not self._peerEnded and not self.tunnelTransport.disconnecting
            self._requireLink().peerWatch.resume()

    def stopReading(self) -> None:
        """
        Throw away all further data, and read on for the peer's goodbye.
        """
        self._flowing = False
        self._held.clear()
        self.resumeReading()

    # To the peer.

    def pauseProducing(self) -> None:
        self.tunnelTransport.block()

    def resumeProducing(self) -> None:
        self.tunnelTransport.unblock()

    def stopProducing(self) -> None:
        # The connection is lost.
        self._deliverHeld()
        self.tunnelTransport.lost()

    def _deliverHeld(self) -> None:
        """
        Deliver what is held, although the carried protocol pauses.  It came before the loss, and
        may end with a goodbye, which is then the cause.
        """
        held, self._held = self._held, deque()
        for frame in held:
            self._paused = False
            if not self._requireLink().state.isEnding:
                words = "The protocol of {link} failed at what it received before its end"
                guarded(_log, words, self._deliverFrame, frame, link=self.link)

    def markSent(self) -> None:
        """
        Note that this end has sent data, and need not speak by itself so soon.
        """
        session = self._requireLink().session
        if session is not None:
            session.markSent()

    def sendEnd(self) -> None:
        """
        Tell the peer that no more data comes.
        """
        self.transport.write(wire.encode(wire.End()))
        # As from any transport: not from inside the call that asks for it.
        self._endedCall = self._requireLink().config.clock.callLater(0, self._ended)

    def _ended(self) -> None:
        half = IHalfCloseableProtocol(self.tunnelTransport.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    # The end.

    def closeGracefully(self) -> None:
        """
        Close, after the carried protocol has written its last bytes.  The link says goodbye, and
        the peer closes.
        """
        if not self._requireLink().state.isEnding:
            self.tunnelTransport.finish()
            self.stopReading()
            self._close()

    def abort(self) -> None:
        """
        End the link at once.
        """
        # With a producer, TLS would write what waits after its end, and the carried protocol would
        # get TLS's error as its reason.
        self._release()
        self._requireLink().abort(ClosedHere())

    def _close(self) -> None:
        link = self._requireLink()
        if not link.state.isEnding:
            self._release()
            link.close()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self.tunnelTransport.finish()
            # Twisted's transports do not close while a producer is registered.
            self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        # autobahn's protocols that carry others pass None, for a verdict and for a close.
        self._lost = reason = reason or Failure(self._requireLink().cause)
        self._flowing = False
        self._held.clear()
        cancelCalls(self._helloCall, self._endedCall)
        if not self._history.helloReceived:
            self._suggestMissingPrefix()
        if hasattr(self, "tunnelTransport"):
            self.tunnelTransport.lost()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)
        if self._opened:
            self.tunnelTransport.protocol.connectionLost(reason)

    def _suggestMissingPrefix(self) -> None:
        """
        Name the likeliest mistake in the link's cause, unless a hello has ever come at this
        endpoint.  A peer that had the prefix once has another problem.
        """
        cause = self._requireLink().cause
        if cause is not None and not isinstance(cause, ClosedHere | HandshakeFailed):
            cause.add(_MISSING_PREFIX)

    def _requireLink(self) -> MixedInLink:
        assert self.link is not None
        return self.link


class TunnelFactory:
    """
    A factory of tunnels around another factory.

    It provides what the carried factory provides, and forwards unknown attributes.

    @ivar latest: the last tunnel that it made.
    """

    def __init__(self, factory: Any, clock: Any, history: EndpointHistory | None = None) -> None:
        """
        @param factory: makes the carried protocols.
        @param clock: tells the time to the tunnels.
        @param history: the endpoint's; a new one if L{None}.
        """
        self._factory = factory
        self._clock = clock
        self._history = history or EndpointHistory()
        self.latest: Tunnel | None = None
        directlyProvides(self, providedBy(factory))

    def buildProtocol(self, addr: Any) -> Tunnel:
        self.latest = Tunnel(self._factory, addr, self._clock, self._history)
        return self.latest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"
