# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Link}: one connection to one peer, from established to gone.

A link is its peer's liveness, a visit by the pulse, what its transport remembers, and its cleanups.
The mix-in or the wrapper of a protocol makes one for each connection and tells it what happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.causes import (
    Cause,
    ClosedHere,
    PeerClosed,
    SendFailed,
)
from ..core.diagnosis import describeError
from ..core.proof import LinkFacts
from ..core.settings import MIN_BOUND, Heartbeat
from ..core.text import printable, textOf
from ..logs import SafeLogger
from ..timing.monotonic import clockInMemory
from ..transport.compat import markErrorHandled
from ..transport.connection import ObservedUnixConnection
from ..transport.instrument import findObserved, instrument, removeObserver
from ..transport.keepalive import applyKeepAlive
from ..transport.layers import (
    bytesBufferedAbove,
    bytesBufferedBelow,
    findConnection,
    forwardInterfaces,
    isClosingLocally,
    isInMemory,
    isServerSide,
)
from ..transport.proxyheader import awaitHeader, awaitsHeader, isHealthCheck
from ..transport.tls import (
    certificateOf,
    flushHandshakeBuffer,
    forwardHandshake,
    handshakeDone,
    handshakeRejected,
    usesTLS,
)
from .cleanups import Cleanup, runCleanups
from .config import peerName, plainAddress
from .handshake import HandshakeTimeout
from .state import LinkState
from .teardown import Teardown
from .watch import Mode, PeerWatch
from .writes import WriteTracker

if TYPE_CHECKING:
    from ..batching.batcher import Batcher
    from ..core.detector import FailureDetector
    from ..core.wire.negotiation import Negotiated
    from ..core.wire.pings import SharedPing
    from ..logs import LogRateLimit
    from ..timing.wheel import TimerWheel
    from ..transport.connection import ObservedConnection
    from ..transport.keepalive import Applied
    from .config import LinkConfig, Ping
    from .interfaces import OuterProtocol, PingLimit, Session
    from .owner import LinkOwner

_log = SafeLogger()


_MAX_WRAPPERS = 8
"""Protocols around one another that are looked through."""


class Link:
    """
    One connection to one peer, from established to gone.

    @ivar generation: its number among the links of its factory or service; never reused.
    @ivar protocol: the protocol that speaks over it.
    @ivar state: a L{LinkState}, equal to its name: C{"new"}, C{"handshaking"}, C{"alive"},
        C{"suspected"}, C{"closing"} or C{"gone"}.
    @ivar hasReceivedData: whether the protocol has taken the peer's first bytes, without raising.
    @ivar keepAlive: what the operating system was told, and what it can not do; L{None} if nothing.
    @ivar session: what the built-in protocol knows of the connection; L{None} in other protocols,
        and until it has said hello.
    @ivar owner: who hears of its turns; may be handed on.
    @ivar writes: the progress of what waits to be sent; L{None} while nothing does.
    """

    __slots__ = (
        "__weakref__",
        "_handshakeTimeout",
        "_outerProtocol",
        "_teardown",
        "_establishedAt",
        "_peerWatch",
        "_config",
        "_transport",
        "generation",
        "keepAlive",
        "owner",
        "protocol",
        "session",
        "hasReceivedData",
        "state",
        "writes",
    )

    def __init__(
        self,
        terms: LinkConfig,
        owner: LinkOwner,
        protocol: Any,
        outerProtocol: OuterProtocol,
        ping: Ping | None = None,
    ) -> None:
        """
        @param outerProtocol: what the transport speaks to.  It is told that the connection is lost,
            if the transport never says so.
        @param ping: in place of the terms' own.
        """
        self._config = terms
        self.owner = owner
        self._outerProtocol = outerProtocol
        self._peerWatch = PeerWatch(terms.heartbeat, ping or terms.ping)
        self._transport: Any = None
        self._establishedAt = 0.0
        self._handshakeTimeout: HandshakeTimeout | None = None
        # What few links have at a time, none has a place for until then.
        self.writes: WriteTracker | None = None
        self._teardown: Teardown | None = None
        self.session: Session | None = None
        self.generation = next(terms.generations)
        self.protocol = protocol
        self.state = LinkState.NEW
        self.keepAlive: Applied | None = None
        self.hasReceivedData = False

    def __repr__(self) -> str:
        return f"<Link {self.generation} to {self._peerName or 'a peer'} {self.state}>"

    # What is known of it.

    @property
    def peer(self) -> Any:
        """
        The peer's address; L{None} before there is a connection, and where the transport has none,
        as that of a child process.  An IPv4 address is one, also where the socket has it mapped
        into IPv6.
        """
        getPeer = getattr(self._transport, "getPeer", None)
        try:
            return None if getPeer is None else plainAddress(getPeer())
        except BaseException:
            # The transport of Twisted's ProcessEndpoint raises NotImplementedError.
            return None

    @property
    def _peerName(self) -> str | None:
        peer = self.peer
        return None if peer is None else peerName(peer)

    @property
    def seconds(self) -> Callable[[], float]:
        """
        Its clock's.
        """
        return self._config.clock.seconds

    @property
    def clock(self) -> IReactorTime:
        """
        What tells it the time, and makes its delayed calls.
        """
        return self._config.clock

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of its clock.
        """
        return self._config.batcher.wheel

    @property
    def transport(self) -> Any:
        """
        What it was established over; L{None} before.
        """
        return self._transport

    @property
    def detector(self) -> FailureDetector:
        """
        What decides from the peer's silence.
        """
        return self._peerWatch.detector

    @property
    def batcher(self) -> Batcher:
        """
        Batches the quiet links of its clock.
        """
        return self._config.batcher

    @property
    def heartbeat(self) -> Heartbeat | None:
        """
        How its peer is watched; L{None} if the peer's silence proves nothing.
        """
        return self._peerWatch.heartbeat

    @property
    def drawPhase(self) -> Callable[[], float] | None:
        """
        Draws the phase of a link among many; L{None} where there are not many.
        """
        return self._config.phase

    @property
    def configuredHeartbeat(self) -> Heartbeat | None:
        """
        How its peer is watched unless the peer's own promises say otherwise.
        """
        return self._config.heartbeat

    @property
    def cause(self) -> Cause | None:
        """
        Why it ended; L{None} until it is known.
        """
        return None if self._teardown is None else self._teardown.cause

    @property
    def refused(self) -> bool:
        """
        Whether a server did not admit the peer.
        """
        return self._teardown is not None and self._teardown.refused

    @property
    def silence(self) -> float:
        """
        Seconds since the last byte was received from the peer; at its end, once it has a cause.
        """
        decidedAt = None if self._teardown is None else self._teardown.decidedAt
        until = self.seconds() if decidedAt is None else decidedAt
        return max(0.0, until - self.detector.heardAt)

    @property
    def bound(self) -> float | None:
        """
        Seconds from the last received byte to the verdict; L{None} if silence proves nothing.
        """
        watch = self._peerWatch
        heartbeat = watch.heartbeat
        return None if heartbeat is None or watch.kind == "keepalive" else heartbeat.bound

    @property
    def age(self) -> float:
        """
        Seconds since it was established.
        """
        return self.seconds() - self._establishedAt

    @property
    def proofHeard(self) -> bool:
        """
        Whether the peer has said what proves the link: its hello in the built-in protocol, in
        others anything that the protocol took without raising.
        """
        if self._carrier is not None:
            # Its hello came before the carried protocol was built.
            return True
        speaker = self._speaker
        return self.hasReceivedData if speaker is None else speaker.agreement is not None

    def facts(self, *, prepared: bool) -> LinkFacts:
        """
        What is known of the link once it has a cause, for L{isProven}.

        @param prepared: whether the link was prepared.
        """
        ending = self.teardown
        assert ending.cause is not None
        until = self.seconds() if ending.decidedAt is None else ending.decidedAt
        return LinkFacts(
            cause=ending.cause,
            upFor=until - self._establishedAt,
            prepared=prepared,
            builtIn=self._speaker is not None,
            heard=self.proofHeard,
            hookFailed=ending.hookFailed,
            raised=ending.raised,
        )

    @property
    def _carrier(self) -> Link | None:
        """
        The link of the tunnel that carries this one; L{None} where there is none.
        """
        carrier = getattr(self._transport, "carrierLink", None)
        return carrier if isinstance(carrier, Link) else None

    @property
    def _speaker(self) -> Link | None:
        """
        The link of this connection that speaks the built-in protocol: this one, that of a tunnel
        below, or that of a protocol inside of a wrapper that is not this package's.  L{None} where
        nothing speaks it.
        """
        if self.session is not None:
            return self
        if self._carrier is not None:
            return self._carrier
        kept: Link | None = None if self._teardown is None else self._teardown.speaker
        if kept is not None:
            return kept
        layer: object = self.protocol
        for _ in range(_MAX_WRAPPERS):
            # As twisted.protocols.policies.ProtocolWrapper and TLS name it.
            layer = getattr(layer, "__dict__", {}).get("wrappedProtocol")
            link = getattr(layer, "__dict__", {}).get("link")
            if isinstance(link, Link) and link.session is not None:
                return link
        return None

    @property
    def watch(self) -> str:
        """
        How it is watched: C{"ping"}, C{"passive"}, or C{"keepalive"}, where nothing can make the
        peer speak and silence therefore proves nothing.
        """
        return self._peerWatch.kind

    @property
    def isServerSide(self) -> bool:
        """
        Whether the peer has connected to this end.
        """
        return isServerSide(findConnection(self._transport))

    @property
    def isHealthCheck(self) -> bool:
        """
        Whether no peer is behind it: a load balancer before C{haproxy:} has said that it has made
        the connection for itself (LOCAL).
        """
        return isHealthCheck(self._transport)

    @property
    def rtt(self) -> float | None:
        """
        Seconds that the last ping took to be answered; L{None} before the first.
        """
        return self.detector.rtt

    @property
    def certificate(self) -> Any:
        """
        The peer's TLS certificate, as an C{OpenSSL.crypto.X509}; L{None} without one, and once the
        link has ended.
        """
        return certificateOf(self._transport)

    # What the outer protocol tells it, in this order.

    def connectionMade(self, transport: Any) -> None:
        """
        The connection is there; the protocol does not know yet.
        """
        now = self._establishedAt = self.seconds()
        self._transport = transport
        watch = self._peerWatch
        watch.detector.heardAt = now
        forwardInterfaces(transport, self._outerProtocol)
        connection = instrument(transport, watch.detector, self.seconds, self)
        watch.attach(self, connection)
        if connection is None and isInMemory(transport):
            self._config = replace(self._config, clock=clockInMemory(self._config.clock))
        elif connection is not None and connection.writeTracked:
            # By the link of a tunnel below.
            self.writeStarted()
        if self._config.keepAlive is not None:
            self.keepAlive = applyKeepAlive(transport, self._config.keepAlive)
        proxied = awaitHeader(transport, self._readyIfComplete)
        if proxied and self._config.proxied is not None:
            self._config.proxied(self)
        handshakes = self.isHandshakingTLS
        if handshakes:
            forwardHandshake(transport, self._outerProtocol)
        if proxied or handshakes:
            self.state = LinkState.HANDSHAKING
            limit = self._config.limits.connectTimeout
            if limit is not None:
                self._handshakeTimeout = HandshakeTimeout(self, limit)
        else:
            self._established(now)

    def protocolConnected(self) -> None:
        """
        The protocol has been told, too.
        """
        if self.state is LinkState.ALIVE:
            self._ready()

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is complete.
        """
        if self.state is LinkState.HANDSHAKING and not handshakeRejected(self._transport):
            flushHandshakeBuffer(self._transport)
            self._readyIfComplete()

    def _readyIfComplete(self) -> None:
        """
        Begin, unless a TLS handshake or the header of a load balancer is still waited for.
        """
        if self.state is not LinkState.HANDSHAKING:
            return
        if self.isHandshakingTLS or awaitsHeader(self._transport):
            return
        self._stopHandshakeTimeout()
        self._established(self.seconds())
        self._ready()

    def _stopHandshakeTimeout(self) -> None:
        timeout, self._handshakeTimeout = self._handshakeTimeout, None
        if timeout is not None:
            timeout.cancel()

    @property
    def isHandshakingTLS(self) -> bool:
        """
        Whether the TLS handshake is not complete yet.
        """
        return usesTLS(self._transport) and not handshakeDone(self._transport)

    def _ready(self) -> None:
        self.owner.linkReady(self)

    def dataReceived(self) -> None:
        """
        Bytes came from the peer, and are delivered next.  Where a L{ObservedConnection} sees them
        first, only the first chunk has to be told; otherwise L{dataDelivered} follows once it is
        delivered.
        """
        self.detector.heardAt = self.seconds()

    def firstDataReceived(self) -> None:
        """
        The protocol has taken the peer's first bytes, without raising.
        """
        self.hasReceivedData = True
        if self.session is None:
            self.owner.linkProven(self)

    @property
    def isUp(self) -> bool:
        """
        Whether it is up, as far as anybody knows.
        """
        return self.state.isUp

    @property
    def cleaned(self) -> bool:
        """
        Whether it has ended, and its cleanups have run.
        """
        return self._teardown is not None and self._teardown.cleaned

    @property
    def outerProtocol(self) -> OuterProtocol:
        """
        What the transport speaks to: the protocol itself, or what wraps it.
        """
        return self._outerProtocol

    @property
    def outermost(self) -> Any:
        """
        What the transport speaks to, with all that stands around the protocol.
        """
        return self._outerProtocol

    @property
    def built(self) -> Any:
        """
        What the factory has built: the protocol, or wrappers of Twisted's around it.
        """
        return self.protocol

    @property
    def observesReads(self) -> bool:
        """
        Whether each chunk is seen on the socket, and the outer protocol need not tell.
        """
        return self._peerWatch.connection is not None

    def dataHandled(self) -> None:
        """
        The protocol has been told of bytes, and has returned.
        """

    def mayHaveMissedData(self) -> bool:
        """
        Whether bytes may have come that were not heard, where no socket tells of them.
        """
        return False

    @property
    def closeTimeout(self) -> float | None:
        """
        Seconds that a polite close may go without progress; L{None} for no limit.
        """
        return self._config.limits.closeTimeout

    @property
    def isNotifyingProtocol(self) -> bool:
        """
        Whether the protocol is being told that the connection is lost.
        """
        if self.state is not LinkState.GONE or self._teardown is None:
            return False
        return not self._teardown.protocolNotified

    @property
    def observesLoss(self) -> bool:
        """
        Whether the connection says beforehand what it tells the protocol, see L{dataArriving} and
        L{connectionLosing}.
        """
        return self._observed is not None

    @property
    def _observed(self) -> ObservedConnection | ObservedUnixConnection | None:
        """
        The connection that tells this link of each call before it makes it.
        """
        connection = findObserved(self._transport)
        isOthers = (
            isinstance(connection, ObservedUnixConnection) and connection.observer is not self
        )
        return None if isOthers else connection

    def _tellOfNext(self) -> None:
        """
        Hear of the next chunk before it is delivered.
        """
        connection = self._peerWatch.connection
        if connection is not None:
            connection.notifyOnRead = True

    # What the session of the built-in protocol asks of it, and tells it.

    @property
    def agreement(self) -> Negotiated | None:
        """
        What this end's hello and the peer's come to; L{None} until the peer has said hello, and in
        other protocols.
        """
        return None if self.session is None else self.session.negotiated

    @property
    def name(self) -> str:
        """
        What the peer calls itself, once a server has heard it.
        """
        return "" if self.session is None else self.session.peerName

    @property
    def pingLimit(self) -> PingLimit | None:
        """
        What counts the peer's pings; L{None} if it may send any number.
        """
        return self._config.pingLimit

    def startSession(self, session: Session) -> None:
        """
        Speak through this session from here on: this end has said hello.
        """
        # The protocol says how to ping by setSharedPing, once its reader is between two frames.
        self._peerWatch.pinger = None
        self.session = session
        self.promiseChanged()

    def promiseChanged(self) -> None:
        """
        Look again at when this end has to speak next.
        """
        # A batch visits once in an interval, which may be too late for the new promise.
        self._peerWatch.withdraw()
        self._peerWatch.reschedule()

    def helloReceived(self) -> None:
        """
        Tell the owner that the peer's hello was read.
        """
        self.owner.linkProven(self)

    def watchPassively(self, within: float | None) -> None:
        """
        Watch the peer passively, because it has promised to speak by itself.

        @param within: seconds, the bound; L{None} if the peer has taken its promise back, so that
            its silence proves nothing.
        """
        watch = self._peerWatch
        watch.trusted = within is not None
        bound = None if within is None else max(MIN_BOUND, within)
        watch.reconfigure(None if bound is None else Heartbeat.forPassivePeer(bound))

    def watchActively(self) -> None:
        """
        Ping the peer within the same bound, because it has not promised to speak in time.
        """
        watch, bound = self._peerWatch, self.bound
        if bound is not None:
            watch.trusted = False
            watch.reconfigure(Heartbeat.within(max(MIN_BOUND, bound)))

    def setSharedPing(self, ping: SharedPing | None, inPlaceOf: Ping) -> None:
        """
        Set the bytes to ping with when the protocol need not see the pong.

        @param ping: L{None} while the protocol has to see all bytes, as in the middle of a frame.
        @param inPlaceOf: the protocol's own ping, which does the same.
        """
        watch = self._peerWatch
        if watch.ping is inPlaceOf:
            watch.pinger = ping

    def pongReceived(self) -> None:
        """
        Record the pong that answers the last ping: set the round-trip time, and mark all sent bytes
        as acknowledged.
        """
        self._peerWatch.pongReceived()

    def connectionLost(self, reason: Failure) -> Failure:
        """
        The transport let go of the connection.

        @return: what to tell the protocol.
        """
        self._stopHandshakeTimeout()
        cause = self.teardown.connectionLost(reason)
        self._stopWatching()
        self.state = LinkState.GONE
        told = reason.value
        if isinstance(cause, ConnectionDone) and not isinstance(told, ConnectionDone):
            # What may have been cut off must not look complete.
            return reason
        if not isinstance(told, ConnectionClosed):
            # TLS's own error, or what the protocol raised: no cause is a kind of that.
            return reason
        return Failure(cause)

    def protocolNotified(self) -> None:
        """
        The protocol has been told, too.
        """
        assert self.cause is not None
        self.teardown.protocolNotified = True
        watch = self._peerWatch
        writes = self.writes
        if writes is not None:
            self.writeProgressed()
            self.writes = None
            for waiting in writes.takeAll():
                _failQuietly(waiting, self.cause)
        connection = watch.connection or self._observed
        if connection is not None:
            removeObserver(connection, self)
        watch.detach()
        self.owner.linkLost(self, self.cause)

    # What its owner does.

    def belongsTo(self, terms: LinkConfig) -> bool:
        """
        Whether it is a link of the factory or service that has these terms, or had them once.
        """
        return self._config.generations is terms.generations

    def announceConnected(self) -> None:
        """
        Say that the link is in use.
        """
        self._config.events.emit("connected", self, failed=self._connectedFailed)

    def cleanUp(self, limit: LogRateLimit | None = None) -> Deferred[None]:
        """
        Tell the observers that the link has ended, and run its cleanups, the last added first.

        @param limit: limits how many ends of links that never were a peer's are logged; L{None} to
            log this one in any case.
        @return: fires when all of them have finished, or C{Limits.cleanupTimeout} is over.
        """
        return self.teardown.cleanUp(limit)

    def cleanUpStranger(self) -> None:
        """
        L{cleanUp} after a link that has ended before anybody knew who was there: a port scan, or a
        health check.  Of those that end alike the log has one event in L{STRANGER_INTERVAL}.
        """
        self.cleanUp(self._config.strangers)

    def probe(self) -> Deferred[bool]:
        """
        Make the peer speak now.

        @return: fires with whether it lives: L{True} once it says anything, or where its silence
            proves nothing; L{False} once the link has ended, and that is when the peer has said
            nothing for the C{timeout} of the heartbeat from now on, if not before.
        """
        if not self.isUp:
            return succeed(False)
        return self._peerWatch.probe(self._config.heartbeat)

    def pause(self) -> None:
        """
        Read no more for now.  What the peer says meanwhile is no silence.
        """
        # An observed connection sees each pause, also those of others.
        self._peerWatch.pausedUnseen = not self.observesReads
        self._transport.pauseProducing()

    def resume(self) -> None:
        """
        Read again.
        """
        watch = self._peerWatch
        if watch.pausedUnseen:
            watch.pausedUnseen = False
            watch.detector.heardAt = self.seconds()
        self._transport.resumeProducing()

    def whenGone(self) -> Deferred[Cause]:
        """
        Fires with the cause once the link has ended and been cleaned up.
        """
        return self.teardown.whenCleaned()

    # What the user does.

    def addCleanup(self, f: Callable[..., object], *arguments: object, **keywords: object) -> None:
        """
        Call C{f} once when the link has ended, before the next attempt; the last added is the
        first called.  On a link whose cleanups have begun, it is called now.

        @param f: may return a Deferred or a coroutine.
        """
        name = printable(textOf(getattr(f, "__qualname__", None) or f))
        cleanup = Cleanup(name, partial(f, *arguments, **keywords))
        if not self.teardown.addCleanup(cleanup):
            config = self._config
            runCleanups([cleanup], config.clock, config.limits.cleanupTimeout, self)

    def send(self, data: bytes) -> Deferred[None]:
        """
        Write to the peer.

        @return: fires when the bytes have been handed to the kernel; fails with the link's cause
            if it ends first, and with L{SendFailed} if C{Limits.maxBuffered} bytes wait already,
            in which case nothing is written.  Nobody has to listen to it.
        """
        if self.cause is not None:
            return _failed(self.cause)
        if not isinstance(data, bytes | bytearray | memoryview):
            return self.sendFailed(TypeError(f"{type(data).__name__} is no bytes"))
        limit = self._config.limits.maxBuffered
        if limit is not None and self.bytesBuffered + len(data) > limit:
            words = f"{self.bytesBuffered} bytes wait to be sent, and maxBuffered is {limit}"
            return _failed(SendFailed(words))
        try:
            self._transport.write(data)
        except BaseException as error:
            return self.sendFailed(error)
        if self.session is not None:
            self.session.markSent()
        return self.whenSent()

    def writeDirect(self, transport: Any, data: bytes) -> None:
        """
        Write a hello, a ping, or the answer to one: a few bytes, and many links that have some.

        @param transport: the protocol's own; if it is the connection itself, they go straight to
            the kernel, unless something waits before them, there or here.  What waits has to be
            looked at, and L{writeStarted} sees to that.
        """
        watch = self._peerWatch
        connection = watch.connection
        if connection is not None and connection.batch is not None:
            watch.interrupt()
        direct = connection is not None and transport is connection and watch.mode >= Mode.DIRECT
        if direct and watch.allArrived():
            transport.writeDirect(data)
        else:
            transport.write(data)

    def sendFailed(
        self, error: BaseException, what: str = "the message could not be encoded"
    ) -> Deferred[None]:
        """
        Something could not be sent: the stream has a hole, so the link ends.

        @return: fails with L{SendFailed}.
        """
        cause = SendFailed(f"{what}: {describeError(error)}")
        cause.__cause__ = error
        self.abort(cause)
        return _failed(cause)

    def close(
        self, cause: Cause | None = None, within: float | None = None, *, lingers: bool = True
    ) -> Deferred[Cause]:
        """
        Close politely, see L{PoliteClose}: what was written before reaches a peer
        that reads.  Abort after C{Limits.closeTimeout} without progress.

        @param cause: kept, unless it had one already; L{ClosedHere} if L{None}.
        @param within: seconds, in place of C{Limits.closeTimeout}.
        @param lingers: L{False} to close the socket once it has been flushed, whatever the peer has
            read: for a server that has no room for more of these.
        @return: as L{whenGone}.
        """
        if not self.state.isEnding:
            self._peerWatch.withdraw()
            timeout = within or self._config.limits.closeTimeout
            self.teardown.close(cause or ClosedHere(), timeout, lingers=lingers)
        return self.whenGone()

    def release(self) -> None:
        """
        End the link now if it is closing politely, because another link waits for its end.  Its
        connection is still closed politely.
        """
        if self._teardown is not None:
            self._teardown.release()

    def abort(self, cause: Cause) -> None:
        """
        End it at once.

        @param cause: kept, unless it had one already.
        """
        if self.state not in (LinkState.NEW, LinkState.GONE):
            self.teardown.abort(cause)

    @property
    def bytesBuffered(self) -> int:
        """
        Bytes that wait in this process to be sent; 0 where the transport does not say.
        """
        watch = self._peerWatch
        connection = watch.connection
        if connection is None:
            return bytesBufferedBelow(self._transport) + bytesBufferedAbove(self._transport)
        if watch.mode >= Mode.DIRECT and not connection.TLS:
            return connection.bytesBuffered()
        return connection.bytesBuffered() + bytesBufferedAbove(self._transport)

    @property
    def bytesAcked(self) -> int:
        """
        Bytes that the peer's kernel has acknowledged; 0 where the transport does not say.
        """
        connection = self._peerWatch.connection
        return 0 if connection is None else connection.bytesAcked()

    @property
    def isBufferFull(self) -> bool:
        """
        Whether C{Limits.maxBuffered} bytes wait to be sent.
        """
        limit = self._config.limits.maxBuffered
        return limit is not None and self.bytesBuffered > limit

    # What the connection tells it.

    def activity(self) -> None:
        self._peerWatch.interrupt()

    def writeStarted(self) -> None:
        watch = self._peerWatch
        watch.writeStarted()
        if watch.connection is not None and self.state is not LinkState.CLOSING:
            writes = self.trackedWrites()
            writes.begin()
            watch.ackedMark = writes.ackedMark

    def writeProgressed(self) -> None:
        writes, connection = self.writes, self._peerWatch.connection
        if writes is None:
            if connection is not None:
                connection.notifyOnWriteProgress = False
            return
        if writes.hasUnmarked and not bytesBufferedAbove(self._transport):
            writes.mark()
        sent = writes.takeSent()
        self.dropIdleWrites()
        for waiting in sent:
            waiting.callback(None)

    def dataDelivered(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.  A
        peer whose last bytes end the link, a goodbye for example, has neither recovered nor
        answered.
        """
        watch = self._peerWatch
        if (watch.detector.suspected or watch.isProbed) and self.isUp and not self.noticeClose():
            watch.dataDelivered()

    def peerClosedWrite(self) -> None:
        self._peerWatch.peerClosedWrite()

    def dataArriving(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        watch = self._peerWatch
        if watch.connection is None:
            watch.detector.heardAt = self.seconds()

    def connectionLosing(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        if self.state is not LinkState.GONE:
            self.connectionLost(reason)
            self.protocolNotified()

    # What its watch and its tracker of writes tell it.

    def _established(self, now: float) -> None:
        """
        Watch the peer from now on.
        """
        self.state = LinkState.ALIVE
        self._establishedAt = now
        self._peerWatch.begin(now)

    def peerSuspected(self) -> None:
        self.state = LinkState.SUSPECTED
        self._config.events.emit("suspected", self)

    def peerRecovered(self) -> None:
        self.state = LinkState.ALIVE
        self._config.events.emit("recovered", self)

    def peerSilent(self, diagnose: Callable[[], Cause], now: float) -> None:
        self.teardown.recordDiagnosis(diagnose, now)
        self.enterClosing()
        self.wheel.callSoon(self._abortDecided)

    def pingFailed(self, error: BaseException) -> None:
        _log.failure("{link} could not send its ping", link=self)
        self.sendFailed(error, "the ping failed")

    def _abortDecided(self) -> None:
        assert self.cause is not None
        self.abort(self.cause)

    def trackedWrites(self) -> WriteTracker:
        """
        The tracker of its writes, which is there from now on.
        """
        if self.writes is None:
            watch = self._peerWatch
            assert watch.connection is not None
            stall = self._config.limits.sendStall
            self.writes = WriteTracker(self, watch.connection, self.wheel, stall, watch.ackedMark)
        return self.writes

    def dropIdleWrites(self) -> None:
        """
        Forget the tracker of its writes, if nothing waits any more.
        """
        writes = self.writes
        if writes is not None and writes.isIdle:
            self._peerWatch.ackedMark = writes.ackedMark
            self.writes = None

    @property
    def queueMatters(self) -> bool:
        return self._peerWatch.kind == "keepalive"

    def writesDrained(self) -> None:
        self.dropIdleWrites()
        self._peerWatch.findMode()

    def writesStalled(self, cause: Cause) -> None:
        self.abort(cause)

    def whenSent(self) -> Deferred[None]:
        """
        @return: fires when all that has been written so far has been handed to the kernel; fails
            with the link's cause if it ends first.
        """
        if self._peerWatch.connection is None:
            return succeed(None)
        # What a layer above the connection makes of the message, and when, is not known yet.
        above = usesTLS(self._transport) or bytesBufferedAbove(self._transport)
        return self.trackedWrites().wait(not above)

    # Ending.

    def enterClosing(self) -> None:
        """
        Enter the state C{closing}, if the link is not in it.  The peer is watched no more.
        """
        if self.state is not LinkState.CLOSING:
            self.state = LinkState.CLOSING
            self._stopHandshakeTimeout()
            self._stopWatching()
            self._peerWatch.failProbes()
            self.owner.linkClosing(self)

    def _stopWatching(self) -> None:
        self._peerWatch.stop()
        if self.writes is not None:
            self.writes.stop()

    def noticeClose(self) -> bool:
        """
        Find out whether the application or the peer's TLS has begun a polite close.
        """
        connection = self._peerWatch.connection
        cause: Cause
        if isClosingLocally(self._transport):
            cause = ClosedHere()
        elif connection is not None and connection.disconnecting:
            # Not our side, so it was TLS, at the other's close_notify.
            cause = PeerClosed("the peer closed the connection (close_notify)")
        else:
            return False
        self.teardown.closingElsewhere(cause)
        return True

    @property
    def teardown(self) -> Teardown:
        """
        The end of the link.  It is made when it is first needed.
        """
        if self._teardown is None:
            self._teardown = Teardown(self)
        return self._teardown

    def recordCause(self, cause: Cause) -> None:
        """
        Keep the first cause, and chain a later one to it.
        """
        self.teardown.recordCause(cause, self.seconds())

    def markRefused(self, cause: Cause) -> None:
        """
        L{recordCause} of a server that does not admit the peer.
        """
        self.teardown.refused = True
        self.recordCause(cause)

    def _connectedFailed(self, failure: Failure) -> None:
        self.teardown.hookFailed = True
        if self.state is LinkState.GONE:
            return
        error = failure.value
        if isinstance(error, Cause) or error is None:
            self.abort(error or ClosedHere())
        else:
            cause = ClosedHere(f"the connected hook raised {describeError(error)}")
            cause.__cause__ = error
            self.abort(cause)

    # Telling.

    def eventFields(self) -> dict[str, object]:
        """
        Return what the log's events say of the link, as it is now.
        """
        heartbeat = self._peerWatch.heartbeat
        return {
            "generation": self.generation,
            "peer": self._peerName,
            "silence": round(self.silence, 3),
            "bound": None if heartbeat is None else heartbeat.bound,
        }


def _failed(cause: Cause) -> Deferred[None]:
    failed: Deferred[None] = Deferred()
    _failQuietly(failed, cause)
    return failed


def _failQuietly(deferred: Deferred[None], cause: Cause) -> None:
    """
    Fail a Deferred that its receiver may well have thrown away: the cause is told to the hooks and
    in the log, so it is no unhandled error if nobody hears it here.
    """
    deferred.errback(Failure(cause))
    markErrorHandled(deferred)
