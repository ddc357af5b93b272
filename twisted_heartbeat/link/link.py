# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Link}: one connection to one peer, from established to gone.

The mix-in or the wrapper of a protocol makes one link for each connection, and tells it what the
transport tells the protocol.  A link holds the state, the public methods and the owner.  What else
it needs it delegates:

 - L{PeerWatch}: is the peer alive?
 - L{WriteTracker}: what waits to be sent, and does it progress?
 - L{Teardown}: the cause, the close and the cleanups.
 - the session of the built-in protocol, and the events for the log and the hooks.

A L{WriteTracker} and a L{Teardown} exist only while they are needed, because a server has thousands
of idle links.
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
    certifiedNames,
    flushHandshakeBuffer,
    forwardHandshake,
    handshakeDone,
    handshakeRejected,
    usesTLS,
)
from .cleanups import Cleanup, runCleanups
from .config import peerName, plainAddress, streamCarrier
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
"""How many protocols inside of one another are searched for the built-in one."""


class Link:
    """
    One connection to one peer, from established to gone.

    @ivar generation: the number among the links of the same factory or service; never reused.
    @ivar protocol: the protocol that speaks over the link.
    @ivar state: a L{LinkState}, equal to its name: C{"new"}, C{"handshaking"}, C{"alive"},
        C{"suspected"}, C{"closing"} or C{"gone"}.
    @ivar hasReceivedData: whether the protocol has taken the peer's first bytes, without raising.
    @ivar keepAlive: the options that the operating system has set, and those that it lacks; L{None}
        if none were asked for.
    @ivar session: the session of the built-in protocol; L{None} in other protocols, and until this
        end has said hello.
    @ivar owner: is told of the link's turns; may be replaced.
    @ivar writes: the progress of the bytes that wait to be sent; L{None} while none wait.
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
        config: LinkConfig,
        owner: LinkOwner,
        protocol: Any,
        outerProtocol: OuterProtocol,
        ping: Ping | None = None,
    ) -> None:
        """
        @param outerProtocol: the protocol that the transport calls.  The link tells it of the loss
            if the transport never does.
        @param ping: replaces the ping of the configuration.
        """
        self._config = config
        self.owner = owner
        self._outerProtocol = outerProtocol
        self._peerWatch = PeerWatch(config.heartbeat, ping or config.ping)
        self._transport: Any = None
        self._establishedAt = 0.0
        self._handshakeTimeout: HandshakeTimeout | None = None
        self.writes: WriteTracker | None = None
        self._teardown: Teardown | None = None
        self.session: Session | None = None
        self.generation = next(config.generations)
        self.protocol = protocol
        self.state = LinkState.NEW
        self.keepAlive: Applied | None = None
        self.hasReceivedData = False

    def __repr__(self) -> str:
        return f"<Link {self.generation} to {self._peerName or 'a peer'} {self.state}>"

    # Its facts.

    @property
    def peer(self) -> Any:
        """
        The peer's address; L{None} before there is a connection, and for transports without one,
        such as a child process's.  An IPv4 address that the socket has mapped into IPv6 is an IPv4
        address here.
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
        The clock's C{seconds}.
        """
        return self._config.clock.seconds

    @property
    def clock(self) -> IReactorTime:
        """
        The clock of the link: time in seconds, and delayed calls.
        """
        return self._config.clock

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the clock.
        """
        return self._config.batcher.wheel

    @property
    def transport(self) -> Any:
        """
        The transport; L{None} before there is a connection.
        """
        return self._transport

    @property
    def detector(self) -> FailureDetector:
        """
        The failure detector of the peer.
        """
        return self._peerWatch.detector

    @property
    def batcher(self) -> Batcher:
        """
        The batcher of quiet links of the clock.
        """
        return self._config.batcher

    @property
    def carrier(self) -> str:
        """
        What the link runs over: C{"tls"}, C{"tcp"}, C{"unix"}, or C{"stream"} for any other
        transport, such as a child process's pipes.
        """
        return "tls" if usesTLS(self._transport) else streamCarrier(self.peer)

    @property
    def source(self) -> str:
        """
        The name of the factory or service that the link belongs to; C{""} without one.
        """
        return self._config.name or ""

    @property
    def logLimit(self) -> LogRateLimit | None:
        """
        Limits how many ends of links are logged; L{None} to log this link's in any case.
        """
        return self.teardown.logLimit

    @property
    def heartbeat(self) -> Heartbeat | None:
        """
        The interval and timeout in force; L{None} if the peer's silence proves nothing.
        """
        return self._peerWatch.heartbeat

    @property
    def drawPhase(self) -> Callable[[], float] | None:
        """
        Draws the phase of a link among many, from 0 to 1; L{None} if a link is pinged when its own
        interval is over.
        """
        return self._config.phase

    @property
    def configuredHeartbeat(self) -> Heartbeat | None:
        """
        The interval and timeout of the configuration.  The peer's own promises may replace them.
        """
        return self._config.heartbeat

    @property
    def cause(self) -> Cause | None:
        """
        Why the link ended; L{None} until that is known.
        """
        return None if self._teardown is None else self._teardown.cause

    @property
    def refused(self) -> bool:
        """
        Whether this side's server has not admitted the peer.
        """
        return self._teardown is not None and self._teardown.refused

    @property
    def silence(self) -> float:
        """
        Seconds from the last received byte until now, or until the link's cause was known.
        """
        decidedAt = None if self._teardown is None else self._teardown.decidedAt
        until = self.seconds() if decidedAt is None else decidedAt
        return max(0.0, until - self.detector.heardAt)

    @property
    def bound(self) -> float | None:
        """
        Seconds from the last received byte to the verdict; L{None} if the peer's silence proves
        nothing.
        """
        watch = self._peerWatch
        heartbeat = watch.heartbeat
        return None if heartbeat is None or watch.kind == "keepalive" else heartbeat.bound

    @property
    def age(self) -> float:
        """
        Seconds since the link was established.
        """
        return self.seconds() - self._establishedAt

    @property
    def proofHeard(self) -> bool:
        """
        Whether the peer has sent what proves the link: its hello in the built-in protocol, and in
        other protocols any bytes that the protocol took without raising.
        """
        if self._carrier is not None:
            # Its hello came before the carried protocol was built.
            return True
        speaker = self._speaker
        return self.hasReceivedData if speaker is None else speaker.agreement is not None

    def facts(self, *, prepared: bool) -> LinkFacts:
        """
        Return the facts from which C{isProven} decides, once the link has a cause.

        @param prepared: whether C{prepareConnection} has succeeded.
        """
        ending = self.teardown
        assert ending.cause is not None and ending.decidedAt is not None
        return LinkFacts(
            cause=ending.cause,
            upFor=ending.decidedAt - self._establishedAt,
            prepared=prepared,
            builtIn=self._speaker is not None,
            heard=self.proofHeard,
            hookFailed=ending.hookFailed,
            raised=ending.raised,
        )

    @property
    def _carrier(self) -> Link | None:
        """
        The link of the tunnel that carries this link; L{None} outside of a tunnel.
        """
        carrier = getattr(self._transport, "carrierLink", None)
        return carrier if isinstance(carrier, Link) else None

    @property
    def _speaker(self) -> Link | None:
        """
        The link of this connection that speaks the built-in protocol: this link, the link of a
        tunnel below, or the link of a protocol inside of another package's wrapper.  L{None} if no
        protocol of the connection speaks it.
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
            # The attribute's name in twisted.protocols.policies.ProtocolWrapper and in TLS.
            layer = getattr(layer, "__dict__", {}).get("wrappedProtocol")
            link = getattr(layer, "__dict__", {}).get("link")
            if isinstance(link, Link) and link.session is not None:
                return link
        return None

    @property
    def watch(self) -> str:
        """
        How the peer is watched: C{"ping"}, C{"passive"}, or C{"keepalive"} if no ping can make the
        peer speak, so that its silence proves nothing.
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
        Whether no peer is behind the connection, because a load balancer before C{haproxy:} has
        made it for itself (LOCAL).
        """
        return isHealthCheck(self._transport)

    @property
    def rtt(self) -> float | None:
        """
        Seconds from the last ping to its answer; L{None} before the first.
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
        Begin with a connection of which the protocol has not been told yet.
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
            # The link of a tunnel below has asked to be told of writing.
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
        Tell the owner that the link is ready, after the protocol was told of the connection.
        """
        if self.state is LinkState.ALIVE:
            self._ready()

    def handshakeCompleted(self) -> None:
        """
        Begin to watch the peer, after the TLS handshake.
        """
        if self.state is LinkState.HANDSHAKING and not handshakeRejected(self._transport):
            flushHandshakeBuffer(self._transport)
            self._readyIfComplete()

    def _readyIfComplete(self) -> None:
        """
        Begin to watch the peer, unless the TLS handshake or the header of a load balancer has not
        come yet.
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
        Record that bytes have come from the peer, before the protocol receives them.  An observed
        connection records them by itself, so that only its first chunk is told here.  For any other
        transport each chunk is told, and L{dataDelivered} follows.
        """
        self.detector.heardAt = self.seconds()

    def firstDataReceived(self) -> None:
        """
        Record that the protocol has taken the peer's first bytes without raising.
        """
        self.hasReceivedData = True
        if self.session is None:
            self.owner.linkProven(self)

    @property
    def isUp(self) -> bool:
        """
        Whether the link is in use: alive or suspected.
        """
        return self.state.isUp

    @property
    def cleaned(self) -> bool:
        """
        Whether the link has ended and its cleanups have run.
        """
        return self._teardown is not None and self._teardown.cleaned

    @property
    def outerProtocol(self) -> OuterProtocol:
        """
        The protocol that the transport calls: the protocol itself, or its wrapper.
        """
        return self._outerProtocol

    @property
    def outermost(self) -> Any:
        """
        The protocol that the transport calls, with all wrappers around it.
        """
        return self._outerProtocol

    @property
    def built(self) -> Any:
        """
        The protocol that the factory has built, with wrappers of Twisted's around it.
        """
        return self.protocol

    @property
    def observesReads(self) -> bool:
        """
        Whether the connection records each chunk, so that the outer protocol need not tell.
        """
        return self._peerWatch.connection is not None

    def dataHandled(self) -> None:
        """
        Do what has to follow a delivery to the protocol.
        """

    def mayHaveMissedData(self) -> bool:
        """
        Find out whether bytes may have come of which the link was not told.
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
        Whether the connection calls L{dataArriving} and L{connectionLosing} before it calls the
        protocol.
        """
        return self._observed is not None

    @property
    def _observed(self) -> ObservedConnection | ObservedUnixConnection | None:
        """
        The connection that tells this link of each call to the protocol beforehand; L{None} if
        there is none.
        """
        connection = findObserved(self._transport)
        isOthers = (
            isinstance(connection, ObservedUnixConnection) and connection.observer is not self
        )
        return None if isOthers else connection

    def _tellOfNext(self) -> None:
        """
        Ask the connection for L{dataArriving} and L{dataDelivered} of the next chunk.
        """
        connection = self._peerWatch.connection
        if connection is not None:
            connection.notifyOnRead = True

    # For the session of the built-in protocol.

    @property
    def agreement(self) -> Negotiated | None:
        """
        What the two hellos have negotiated; L{None} until the peer has said hello, and in other
        protocols.
        """
        return None if self.session is None else self.session.negotiated

    @property
    def name(self) -> str:
        """
        The name in the peer's hello, on a server; C{""} without one.
        """
        return "" if self.session is None else self.session.peerName

    @property
    def isAuthenticated(self) -> bool:
        """
        Whether the peer has proven its L{name}: this side has verified the peer's TLS certificate,
        and the certificate carries the name.
        """
        name = self.name
        return bool(name) and name in certifiedNames(self._transport)

    @property
    def pingLimit(self) -> PingLimit | None:
        """
        Limits the peer's pings; L{None} for no limit.
        """
        return self._config.pingLimit

    def startSession(self, session: Session) -> None:
        """
        Keep the session of the built-in protocol, because this end has said hello.
        """
        # The protocol says how to ping by setSharedPing, once its reader is between two frames.
        self._peerWatch.pinger = None
        self.session = session
        self.promiseChanged()

    def promiseChanged(self) -> None:
        """
        Schedule the next heartbeat of this end anew, because its promise has changed.
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
        Record the cause, because the connection is lost.

        @return: the failure to tell the protocol.
        """
        self._stopHandshakeTimeout()
        cause = self.teardown.connectionLost(reason)
        self._stopWatching()
        self.state = LinkState.GONE
        told = reason.value
        if isinstance(cause, ConnectionDone) and not isinstance(told, ConnectionDone):
            # A stream that may have been cut off must not look complete to the protocol.
            return reason
        if not isinstance(told, ConnectionClosed):
            # TLS's own error, or the protocol's exception: no cause subclasses these.
            return reason
        return Failure(cause)

    def protocolNotified(self) -> None:
        """
        Fail what waits for the link, and tell the owner, after the protocol was told of the loss.
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

    # For the owner.

    def belongsTo(self, config: LinkConfig) -> bool:
        """
        Whether this is a link of the factory or service that has, or once had, this configuration.
        """
        return self._config.generations is config.generations

    def announceConnected(self) -> None:
        """
        Tell the observers that the link is connected.
        """
        self._config.events.emit("connected", self, failed=self._connectedFailed)

    def cleanUp(self, limit: LogRateLimit | None = None) -> Deferred[None]:
        """
        Tell the observers that the link has ended, and run its cleanups, the last added first.

        @param limit: limits how many ends of strangers' links are logged; L{None} to log this end
            in any case.
        @return: fires when all of them have finished, or C{Limits.cleanupTimeout} is over.
        """
        return self.teardown.cleanUp(limit)

    def cleanUpStranger(self) -> None:
        """
        Clean up after a link whose peer never said what it is: a port scan, or a health check.  Of
        strangers that end alike the log has one event in an interval.
        """
        self.cleanUp(self._config.strangers)

    def probe(self) -> Deferred[bool]:
        """
        Make the peer speak now, and find out whether it lives.

        @return: fires with L{True} when the peer sends anything, and at once if its silence proves
            nothing.  Fires with L{False} when the link ends, which it does if the peer sends
            nothing for the C{timeout} of the heartbeat from now.
        """
        if not self.isUp:
            return succeed(False)
        return self._peerWatch.probe(self._config.heartbeat)

    def pause(self) -> None:
        """
        Stop reading.  The time until L{resume} is no silence of the peer's.
        """
        # An observed connection records each pause, also the application's.
        self._peerWatch.pausedUnseen = not self.observesReads
        self._transport.pauseProducing()

    def resume(self) -> None:
        """
        Read again after L{pause}.
        """
        watch = self._peerWatch
        if watch.pausedUnseen:
            watch.pausedUnseen = False
            watch.detector.heardAt = self.seconds()
        self._transport.resumeProducing()

    def whenGone(self) -> Deferred[Cause]:
        """
        Wait for the end of the link.

        @return: fires with the cause when the link has ended and its cleanups have run.
        """
        return self.teardown.whenCleaned()

    # For the user.

    def addCleanup(self, f: Callable[..., object], *arguments: object, **keywords: object) -> None:
        """
        Call C{f} once when the link has ended, before the next attempt.  The cleanup that was added
        last is called first.  If the link's cleanups have begun, C{f} is called now.

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

        @return: fires when the kernel has taken the bytes.  Fails with the link's cause if the link
            ends first, and with L{SendFailed}, with nothing written, if C{Limits.maxBuffered} bytes
            wait already.  A failure that the caller ignores is not logged as unhandled.
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
        Write a hello, a ping or a pong.  If no bytes wait before it, and the protocol's transport
        is the connection itself, it is handed to the kernel at once.  That saves the reactor two
        changes of its poll set and a turn (C{benchmarks/heartbeat.py}).

        @param transport: the protocol's own.
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
        End the link, because bytes that could not be sent leave a hole in the stream.

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
        Close politely: what was written before reaches a peer that reads.  Abort after
        C{Limits.closeTimeout} without progress.

        @param cause: the cause, unless the link has one already; L{None} for L{ClosedHere}.
        @param within: seconds, in place of C{Limits.closeTimeout}.
        @param lingers: L{False} to close the socket as soon as it is flushed, whatever the peer has
            read, because a server keeps only few connections for peers that it has refused.
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
        End the link at once.

        @param cause: the cause, unless the link has one already.
        """
        if self.state not in (LinkState.NEW, LinkState.GONE):
            self.teardown.abort(cause)

    @property
    def bytesBuffered(self) -> int:
        """
        Bytes that wait in this process to be sent; 0 if the transport does not tell.
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
        Bytes that the peer's kernel has acknowledged; 0 if the transport does not tell.
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

    # For the connection: the methods of ConnectionObserver.

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
        # A peer whose last bytes end the link, a goodbye for example, has not recovered.
        watch = self._peerWatch
        if (watch.detector.suspected or watch.isProbed) and self.isUp and not self.noticeClose():
            watch.dataDelivered()

    def peerClosedWrite(self) -> None:
        self._peerWatch.peerClosedWrite()

    def dataArriving(self) -> None:
        watch = self._peerWatch
        if watch.connection is None:
            watch.detector.heardAt = self.seconds()

    def connectionLosing(self) -> None:
        pass

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        if self.state is not LinkState.GONE:
            self.connectionLost(reason)
            self.protocolNotified()

    # For the watch and the write tracker: the methods of WatchListener and WriteListener.

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
        Return the write tracker.  It is made if there is none.
        """
        if self.writes is None:
            watch = self._peerWatch
            assert watch.connection is not None
            stall = self._config.limits.sendStall
            self.writes = WriteTracker(self, watch.connection, self.wheel, stall, watch.ackedMark)
        return self.writes

    def dropIdleWrites(self) -> None:
        """
        Drop the write tracker if no bytes and no caller wait any more.
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
        Wait until the kernel has taken all that has been written so far.

        @return: fails with the link's cause if the link ends first.
        """
        if self._peerWatch.connection is None:
            return succeed(None)
        # A layer above the connection may add bytes to the message, and write it later.
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
            # This side has not closed, so TLS has, at the peer's close_notify.
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
        Record the cause of a server that does not admit the peer.
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
        Return the fields that all events of the link have in the log.
        """
        heartbeat = self._peerWatch.heartbeat
        return {
            "carrier": self.carrier,
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
    Fail a Deferred that its receiver may ignore.  The hooks and the log tell the cause, so that an
    ignored failure must not be logged once more as an unhandled error.
    """
    deferred.errback(Failure(cause))
    markErrorHandled(deferred)
