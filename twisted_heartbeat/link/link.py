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
from math import inf
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..batching.places import commonPhase
from ..core.causes import (
    Cause,
    ClosedHere,
    PeerClosed,
    SendFailed,
    SendStalled,
)
from ..core.detector import NEVER, Decision, FailureDetector
from ..core.diagnosis import causeOfSilence, describeError
from ..core.evidence import VerdictCounter
from ..core.proof import LinkFacts
from ..core.quiet import checksSuspended
from ..core.settings import MIN_BOUND, Heartbeat
from ..core.text import printable, textOf
from ..logs import SafeLogger
from ..timing.monotonic import clockInMemory
from ..timing.wheel import timerWheelFor
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
    isReadingPaused,
    isServerSide,
)
from ..transport.proxyheader import awaitHeader, awaitsHeader, isHealthCheck
from ..transport.routes import routeErrno
from ..transport.tcpinfo import readEvidence
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
from .usercode import startPing
from .writes import STALL_LOOKS, Sending

if TYPE_CHECKING:
    from ..batching.pinground import LastPing, Pinger
    from ..core.evidence import Evidence, VerdictBatch
    from ..core.wire.negotiation import Negotiated
    from ..core.wire.pings import SharedPing
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot, TimerWheel
    from ..transport.connection import ObservedConnection
    from ..transport.keepalive import Applied
    from .config import LinkConfig, Ping
    from .interfaces import OuterProtocol, PingLimit, Session
    from .owner import LinkOwner

_log = SafeLogger()


_MAX_WRAPPERS = 8
"""Protocols around one another that are looked through."""

PROBE_RESULT_TTL = 1.0
"""Seconds for which a peer that has answered need not be asked again."""


class PendingProbes:
    """
    Those who want to know whether the peer lives, and when one was last told that it does.
    """

    __slots__ = ("lastAnswerAt", "waiting")

    def __init__(self) -> None:
        self.lastAnswerAt = NEVER
        self.waiting: list[Deferred[bool]] = []

    def tell(self, lives: bool) -> None:
        """
        Tell all.
        """
        asked, self.waiting = self.waiting, []
        for one in asked:
            one.callback(lives)


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
    """

    __slots__ = (
        "__weakref__",
        "_probes",
        "_direct",
        "_handshakeTimeout",
        "_outerProtocol",
        "_teardown",
        "_establishedAt",
        "_heartbeat",
        "_lastPingEnd",
        "_ackedMark",
        "_pinger",
        "_pausedUnseen",
        "_ping",
        "_firstPingEnd",
        "_writes",
        "_steady",
        "_config",
        "_transport",
        "_trusted",
        "_connection",
        "generation",
        "keepAlive",
        "detector",
        "owner",
        "protocol",
        "session",
        "slot",
        "hasReceivedData",
        "state",
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
        self._ping = ping or terms.ping
        self._heartbeat = terms.heartbeat
        self._trusted = False
        self._pausedUnseen = False
        self._transport: Any = None
        self._connection: ObservedConnection | None = None
        self._direct: ObservedConnection | None = None
        self._steady: ObservedConnection | None = None
        self._pinger: Pinger | None = self._ping
        self._establishedAt = 0.0
        self._handshakeTimeout: HandshakeTimeout | None = None
        self._firstPingEnd = 0
        self._lastPingEnd = 0
        self._ackedMark = 0
        # What few links have at a time, none has a place for until then.
        self._writes: Sending | None = None
        self._teardown: Teardown | None = None
        self._probes: PendingProbes | None = None
        self.session: Session | None = None
        self.slot: Slot | None = None
        self.generation = next(terms.generations)
        self.protocol = protocol
        self.state = LinkState.NEW
        self.keepAlive: Applied | None = None
        self.hasReceivedData = False
        self.detector = FailureDetector(None, 0.0)

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
    def _wheel(self) -> TimerWheel:
        return timerWheelFor(self._config.clock)

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
        heartbeat = self._heartbeat
        return None if heartbeat is None or self.watch == "keepalive" else heartbeat.bound

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
        heartbeat = self._heartbeat
        if heartbeat is not None and (self._trusted or heartbeat.interval is None):
            return "passive"
        return "keepalive" if heartbeat is None or self._ping is None else "ping"

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
        self.detector = FailureDetector(None, now)
        forwardInterfaces(transport, self._outerProtocol)
        self._connection = instrument(transport, self.detector, self.seconds, self)
        if self._connection is None and isInMemory(transport):
            self._config = replace(self._config, clock=clockInMemory(self._config.clock))
        elif self._connection is not None and self._connection.writeTracked:
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
            self._startWatching(now)

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
        self._startWatching(self.seconds())
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
        return self._connection is not None

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
        if self._connection is not None:
            self._connection.notifyOnRead = True

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
        self._pinger = None
        self.session = session
        self.promiseChanged()

    def promiseChanged(self) -> None:
        """
        Look again at when this end has to speak next.
        """
        # A batch visits once in an interval, which may be too late for the new promise.
        self._withdraw()
        self._revisit()

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
        self._trusted = within is not None
        bound = None if within is None else max(MIN_BOUND, within)
        self._watchBy(None if bound is None else Heartbeat.forPassivePeer(bound))

    def watchActively(self) -> None:
        """
        Ping the peer within the same bound, because it has not promised to speak in time.
        """
        if self.bound is not None:
            self._trusted = False
            self._watchBy(Heartbeat.within(max(MIN_BOUND, self.bound)))

    def setSharedPing(self, ping: SharedPing | None, inPlaceOf: Ping) -> None:
        """
        Set the bytes to ping with when the protocol need not see the pong.

        @param ping: L{None} while the protocol has to see all bytes, as in the middle of a frame.
        @param inPlaceOf: the protocol's own ping, which does the same.
        """
        if self._ping is inPlaceOf:
            self._pinger = ping

    def pongReceived(self) -> None:
        """
        Record the pong that answers the last ping: set the round-trip time, and mark all sent bytes
        as acknowledged.
        """
        self.detector.rtt = self.seconds() - self.detector.pingedAt
        witness = self._direct
        if witness is not None and witness.bytesSent == self._lastPingEnd:
            # The pong says so, and the kernel need not be asked.
            self._arrived(witness)
            if witness.writeTracked and not self.bytesBuffered:
                self._unwatch(witness)

    def connectionLost(self, reason: Failure) -> Failure:
        """
        The transport let go of the connection.

        @return: what to tell the protocol.
        """
        self._stopHandshakeTimeout()
        cause = self.teardown.connectionLost(reason)
        self._withdraw()
        self.state = LinkState.GONE
        self._wheel.cancel(self)
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
        witness = self._connection
        if witness is not None:
            self.writeProgressed()
            witness.notifyOnWriteProgress = False
        connection = self._connection or self._observed
        if connection is not None:
            removeObserver(connection, self)
        sending, self._writes = self._writes, None
        for waiting in () if sending is None else sending.givenUp():
            _failQuietly(waiting, self.cause)
        if self._probes is not None:
            self._probes.tell(False)
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
        now = self.seconds()
        self._withdraw()
        if not self.isUp:
            return succeed(False)
        asking = self._probes = self._probes or PendingProbes()
        # After a FIN no bound runs either, but the peer can no longer answer.
        finished = self._connection is not None and self._connection.finReceived
        unwatched = self.detector.deadline == inf
        if not finished and (unwatched or now < asking.lastAnswerAt + PROBE_RESULT_TTL):
            return succeed(True)
        asked: Deferred[bool] = Deferred()
        asking.waiting.append(asked)
        if self._connection is not None:
            self._connection.notifyOnRead = True
        heartbeat = self._config.heartbeat
        if self._ping is not None and heartbeat is not None:
            if self.detector.probe(now, heartbeat.timeout) is Decision.PING:
                self._pingWith(now, self._ping)
            self._revisit()
        return asked

    def pause(self) -> None:
        """
        Read no more for now.  What the peer says meanwhile is no silence.
        """
        # A witness sees each pause, also those of others.
        self._pausedUnseen = self._connection is None
        self._transport.pauseProducing()

    def resume(self) -> None:
        """
        Read again.
        """
        if self._pausedUnseen:
            self._pausedUnseen = False
            self.detector.heardAt = self.seconds()
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
        self.activity()
        witness = self._direct
        if transport is not witness or witness is None or not self._allArrived(witness):
            transport.write(data)
        else:
            witness.writeDirect(data)

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
            self._withdraw()
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
            self._withdraw()
            self.teardown.abort(cause)

    @property
    def bytesBuffered(self) -> int:
        """
        Bytes that wait in this process to be sent; 0 where the transport does not say.
        """
        witness = self._connection
        if witness is None:
            return bytesBufferedBelow(self._transport) + bytesBufferedAbove(self._transport)
        plain = witness is self._direct and not witness.TLS
        above = 0 if plain else bytesBufferedAbove(self._transport)
        return witness.bytesBuffered() + above

    @property
    def bytesAcked(self) -> int:
        """
        Bytes that the peer's kernel has acknowledged; 0 where the transport does not say.
        """
        return 0 if self._connection is None else self._connection.bytesAcked()

    @property
    def isBufferFull(self) -> bool:
        """
        Whether C{Limits.maxBuffered} bytes wait to be sent.
        """
        limit = self._config.limits.maxBuffered
        return limit is not None and self.bytesBuffered > limit

    # What the pulse and the transport tell it.

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        steady = self._steady
        if steady is not None and self.state == "alive":
            # Nothing but heartbeats goes on, as on most of many links.
            if steady.batch is not None:
                # It has not answered its round's ping in time.
                self.activity()
            if self._isBatched(steady, now, lateness):
                if steady.batch is not None:
                    return None
                # It is in a talker scan, and is visited because of its own promise alone.
                speakBy = self._promiseDue
                if now < speakBy:
                    return speakBy if speakBy < inf else None
                self._keepPromise(now)
                return self._next()
            liveness = self.detector
            pings = liveness.decideFast(now, lateness)
            if pings is False and self.session is None:
                return liveness.due
            if pings is not None:
                if pings:
                    self._sendPing(now)
                elif now >= self._promiseDue:
                    self._keepPromise(now)
                return self._next()
        if self.state.isEnding or self._isClosing():
            return None
        if now >= self.detector.due:
            self._check(now, lateness)
        if not self.state.isEnding and now >= self._stallLook():
            self._lookAtSending(now, lateness)
        if now >= self._promiseDue:
            self._keepPromise(now)
        return self._next()

    # What a batcher sees of it, see BatchMember.

    @property
    def heartbeat(self) -> Heartbeat | None:
        return self._heartbeat

    @property
    def sharesHeartbeat(self) -> bool:
        return self._heartbeat is self._config.heartbeat

    @property
    def connection(self) -> ObservedConnection | None:
        return self._direct

    @property
    def pinger(self) -> Pinger | None:
        return self._pinger

    @property
    def promisedWithin(self) -> float:
        return inf if self.session is None else self.session.localHello.promisedWithin

    def isQuiet(self) -> bool:
        connection = self._direct
        if connection is None:
            return False
        if self.session is not None and self.session.expectedPong is not None:
            return False
        return connection.bytesSent == self._lastPingEnd

    def sendPing(self, now: float) -> None:
        if self._ping is not None:
            self._pingWith(now, self._ping)

    def resumed(self, last: LastPing | None) -> None:
        connection = self._direct
        if last is not None and connection is not None:
            # What waits, if anything, is what has ended its stay; or a part of the ping.
            waits = self.bytesBuffered if last.isBeingSent else 0
            self._firstPingEnd = self._lastPingEnd = self._ackedMark = connection.bytesSent + waits
            if last.isUnanswered:
                self._ackedMark -= last.size
                if self.session is not None:
                    self.session.expectedPong = last.pong
        self._revisit()

    def _isBatched(self, steady: ObservedConnection, now: float, lateness: float) -> bool:
        """
        Offer this link to the batcher.  A link that this side has opened, in a process with few
        timers, would never be batched, and does not enter the batcher.

        @return: whether it is in a batch.
        """
        batcher = self._config.batcher
        many = batcher.scans or batcher.wheel.timerCount >= batcher.MIN_FOR_SCAN
        if not (many or self._config.phase is not None or isServerSide(steady)):
            return False
        if not batcher.offer(self, now, lateness):
            return False
        if steady.batch is not None:
            # Shared constants: thousands of parked links must not each keep numbers of their own.
            if self.session is not None:
                self.session.lastSentAt = NEVER
            self._firstPingEnd = self._lastPingEnd = self._ackedMark = 0
        return True

    def activity(self) -> None:
        """
        Leave the ping round, because something else than a ping or its pong goes on.
        """
        if self._direct is not None and self._direct.batch is not None:
            self._config.batcher.interrupt(self)

    def _withdraw(self) -> None:
        """
        Leave any batch.
        """
        isParked = self._direct is not None and self._direct.batch is not None
        if isParked or checksSuspended(self.detector):
            self._config.batcher.withdraw(self)

    def writeStarted(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        self._withdraw()
        self._steady = None
        witness = self._connection
        if witness is not None and self.state != "closing":
            self._ackedMark = witness.bytesAcked()
            self._writeTracker.begin(self.seconds())
            if self._config.limits.sendStall is not None:
                self._revisit()

    def writeProgressed(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        witness = self._connection
        if witness is not None:
            for waiting in self._settleSends(witness):
                waiting.callback(None)

    def dataDelivered(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.  A
        peer whose last bytes end the link, a goodbye for example, has neither recovered nor
        answered.
        """
        asking = self._probes
        asked = asking is not None and bool(asking.waiting)
        if not (asked or self.state == "suspected") or not self.isUp or self._isClosing():
            return
        if self.state == "suspected":
            self._check(self.seconds(), 0.0)
        if asking is not None and asked and self.isUp:
            asking.lastAnswerAt = self.seconds()
            asking.tell(True)

    def peerClosedWrite(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        self._withdraw()
        self.detector.peerHalfClosed()
        if self.state == "suspected":
            self._recover()

    def dataArriving(self) -> None:
        """
        See L{ConnectionObserver<twisted_heartbeat.transport.connection.ConnectionObserver>}.
        """
        if self._connection is None:
            self.detector.heardAt = self.seconds()

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

    # Looking at the peer.

    def _startWatching(self, now: float) -> None:
        """
        Begin to listen.
        """
        self.state = LinkState.ALIVE
        self._establishedAt = now
        if self.watch == "keepalive":
            return
        self._mayBeDirect()
        self._watchFrom(now)

    def _watchBy(self, heartbeat: Heartbeat | None) -> None:
        self._withdraw()
        self._heartbeat = heartbeat
        self._mayBeDirect()
        if self.isUp:
            self._watchFrom(self.detector.heardAt)

    def _mayBeDirect(self) -> None:
        """
        Find out whether what waits in the kernel alone is no matter, see L{_isWaiting}.
        """
        before, self._direct = self._direct, None
        if self.watch != "keepalive" and self._connection is self._transport:
            self._direct = self._connection
        elif before is not None and not before.writeTracked:
            # It was no matter until now.
            before.writeTracked = True
            self.writeStarted()
        self._maySteady()

    def _maySteady(self) -> None:
        """
        Find out whether nothing but heartbeats goes on.  It stays so until something is written
        through the transport's buffer, as whoever closes it politely does, too.
        """
        witness = self._direct
        isSteady = witness is not None and not witness.writeTracked and witness.isPlainAndOpen
        self._steady = witness if isSteady else None

    def _watchFrom(self, heardAt: float) -> None:
        draw, heartbeat = self._config.phase, self._heartbeat
        phase = None
        if draw is not None and heartbeat is not None and heartbeat.interval is not None:
            phase = commonPhase(draw(), heardAt, heartbeat.interval)
        # The same object, for it is the one that the witness tells.
        self.detector.begin(heartbeat, heardAt, phase)
        self._revisit()

    def _keepPromise(self, now: float) -> None:
        """
        Say something, unless the peer does not take what was said before: what waits for it is
        itself a word once it moves, and heartbeats behind it would only pile up.
        """
        session = self.session
        if session is None:
            return
        session.lastSentAt = now
        if self.isUp and not self.bytesBuffered:
            try:
                session.sendHeartbeat()
            except BaseException as error:
                _log.failure("{link} could not speak", link=self)
                self.sendFailed(error, "the heartbeat failed")

    @property
    def _promiseDue(self) -> float:
        """
        When this end has to say something, unless the peer is to take it for dead.
        """
        session = self.session
        if session is None:
            return inf
        pingedAt, lastSentAt = self.detector.pingedAt, session.lastSentAt
        spokeAt = pingedAt if pingedAt > lastSentAt else lastSentAt
        return spokeAt + session.localHello.promisedWithin

    def _check(self, now: float, lateness: float) -> None:
        liveness = self.detector
        if self._connection is None and self.mayHaveMissedData():
            liveness.heardAt = now
        pings = liveness.hasSpokenSincePing and self.watch == "ping"
        localDelayUntil = None if pings else self._localDelayUntil(now)
        decision = liveness.decide(now, lateness, localDelayUntil)
        if decision in (Decision.PING, Decision.PING_AGAIN):
            self._sendPing(now)
        elif decision is Decision.SUSPECT:
            self._suspect(now)
        elif decision is Decision.RECOVERED:
            self._recover()
        elif decision is Decision.VERDICT:
            self._verdict(now)

    def _localDelayUntil(self, now: float) -> float | None:
        """
        The latest instant at which the silence was ours and not the peer's.
        """
        witness = self._connection
        if witness is None:
            return now if self._pausedUnseen or isReadingPaused(self._transport) else None
        if witness.paused:
            return now
        waits = self.watch == "ping" and self._progressed(witness, now) < self._firstPingEnd
        drainedAt = NEVER if self._writes is None else self._writes.drainedAt
        if waits and drainedAt > self.detector.pingedAt:
            # The ping itself waits behind bulk data, and that has drained since.
            return max(drainedAt, witness.resumedAt)
        return witness.resumedAt

    def _progressed(self, witness: ObservedConnection, now: float) -> int:
        """
        Note whether the peer's kernel has taken more than at the last look, and since when.
        """
        delivered = witness.bytesAcked()
        if delivered != self._ackedMark:
            evidence = readEvidence(witness.socket)
            sinceAck = 0.0 if evidence is None else evidence.sinceAck or 0.0
            self._ackedMark = delivered
            self._writeTracker.moved(now - sinceAck)
        return delivered

    def _sendPing(self, now: float) -> None:
        if self._ping is not None and self.watch == "ping":
            self._pingWith(now, self._ping)

    def _pingWith(self, now: float, ping: Ping) -> None:
        steady = self._steady
        if steady is not None and not self._allArrived(steady):
            steady = None
        try:
            if steady is not None:
                answer = steady.withDirectWrites(ping, self.protocol)
            else:
                answer = ping(self.protocol)
            if type(answer) is CoroutineType:
                # It has written nothing before it is started.
                start = startPing
                answer = start(answer) if steady is None else steady.withDirectWrites(start, answer)
        except BaseException as error:
            _log.failure("{link} could not send its ping", link=self)
            self.sendFailed(error, "the ping failed")
            return
        self.detector.pingedAt = self.seconds()
        if self._connection is not None:
            sent = self._connection.bytesSent
            # If it still is, nothing waits.
            unsent = self.bytesBuffered if self._steady is None else 0
            # No sum where there is nothing to add: the same number serves both.
            self._lastPingEnd = sent + unsent if unsent else sent
            if self.state != "suspected":
                self._firstPingEnd = self._lastPingEnd
        if steady is not None and self._steady is None and self.session is None:
            # It goes another way, and would each time have its link leave the round.
            self._pinger = None
        # Most often there is none, and to ask what it is takes longest of all here.
        if answer is not None and isinstance(answer, Deferred):
            # An error answer is an answer too; what the peer did not send is no life.
            answer.addBoth(self._pingAnswered, now)

    def _pingAnswered(self, result: object, pingedAt: float) -> None:
        if self.state.isUp and self.detector.heardAt > pingedAt:
            self.detector.rtt = self.seconds() - pingedAt

    def _suspect(self, now: float) -> None:
        self.state = LinkState.SUSPECTED
        if self._connection is not None:
            self._connection.notifyOnRead = True
        self._sendPing(now)
        if self.state == "suspected":
            self._config.events.emit("suspected", self)

    def _recover(self) -> None:
        self.state = LinkState.ALIVE
        self._config.events.emit("recovered", self)

    def _verdict(self, now: float) -> None:
        heartbeat = self._heartbeat
        assert heartbeat is not None
        silence = now - self.detector.heardAt
        words = f"nothing received for {silence:.3f} s, the bound is {heartbeat.bound:g} s"
        if self._probes is not None and self._probes.waiting:
            words = f"nothing received for {silence:.3f} s, though a newcomer with its name came"
        evidence = self._evidence(self._wheel.shared(VerdictCounter).count(now))
        hung = evidence is not None and self._isHung(evidence, silence)
        self.teardown.recordDiagnosis(partial(self._diagnose, evidence, hung, words), now)
        self.enterClosing()
        self._wheel.callSoon(self._abortDecided)

    def _diagnose(self, evidence: Evidence | None, hung: bool, words: str) -> Cause:
        witness = self._connection
        asks = evidence is not None and not hung and witness is not None and witness.connected
        number = routeErrno(witness.socket) if asks and witness is not None else 0
        return causeOfSilence(number, evidence, hung=hung, words=words)

    def _abortDecided(self) -> None:
        assert self.cause is not None
        self.abort(self.cause)

    def _isHung(self, evidence: Evidence, silence: float) -> bool:
        """
        Whether the peer's kernel has answered since its process last did.
        """
        sent = 0 if self._connection is None else self._connection.bytesSent
        delivered = sent - (evidence.bytesUnacknowledged or 0)
        if self.watch == "ping" and delivered >= self._lastPingEnd:
            return True
        # Nothing is open, though the ping has not been taken: it waits before a closed window. Or
        # nobody was asked, and the kernels have met all the same.
        fresh = evidence.sinceAck is not None and evidence.sinceAck < silence / 2
        return evidence.kernelAnswers and (evidence.window == 0 or fresh)

    def _evidence(self, fall: VerdictBatch | None = None) -> Evidence | None:
        witness = self._connection
        if witness is None or not witness.connected:
            return None
        witness.evidence = readEvidence(witness.socket, fall)
        return witness.evidence

    # Looking at what is sent.

    def _stallLook(self) -> float:
        """
        When to look at the send buffer next.
        """
        witness, stall = self._connection, self._config.limits.sendStall
        if witness is None or stall is None or not witness.writeTracked:
            return inf
        return self._writeTracker.nextLook(stall)

    def _lookAtSending(self, now: float, lateness: float) -> None:
        witness, stall = self._connection, self._config.limits.sendStall
        assert witness is not None and stall is not None
        sending = self._writeTracker
        sending.lookedAt = now
        delivered = self._progressed(witness, now)
        if delivered == witness.bytesSent:
            # The kernel has room: it was this process that offered nothing.
            sending.movedAt = sending.drainedAt = now
        elif lateness > stall / STALL_LOOKS:
            sending.movedAt = min(now, sending.movedAt + lateness)
        if not self._isWaiting(witness, delivered):
            self._unwatch(witness)
        elif now >= sending.movedAt + stall:
            waiting = witness.bytesSent - delivered + witness.bytesBuffered()
            words = f"{waiting} bytes wait, and none was taken for {now - sending.movedAt:.3f} s"
            self.abort(SendStalled(words, evidence=self._evidence()))

    def _allArrived(self, witness: ObservedConnection) -> bool:
        """
        Whether the peer's kernel has all that was sent.  After a pong there is no need to ask.
        """
        if witness.bytesSent != self._ackedMark:
            delivered = witness.bytesAcked()
            if delivered != witness.bytesSent:
                return False
            self._arrived(witness)
        return True

    def _arrived(self, witness: ObservedConnection) -> None:
        """
        The peer's kernel has all that was sent.
        """
        self._ackedMark = witness.bytesSent
        if self._writes is not None:
            self._writes.movedAt = self.seconds()
            self._restSending(witness)

    def _isWaiting(self, witness: ObservedConnection, delivered: int) -> bool:
        """
        Whether something waits to be sent.  What waits in the kernel alone is no matter where
        silence is watched, too: then it is the ping that waits there.
        """
        return witness.bytesBuffered() > 0 or (
            self.watch == "keepalive" and delivered < witness.bytesSent
        )

    def whenSent(self) -> Deferred[None]:
        """
        @return: fires when all that has been written so far has been handed to the kernel; fails
            with the link's cause if it ends first.
        """
        witness = self._connection
        if witness is None:
            return succeed(None)
        # What a layer above the connection makes of the message, and when, is not known yet.
        above = usesTLS(self._transport) or bytesBufferedAbove(self._transport)
        witness.notifyOnWriteProgress = True
        return self._writeTracker.wait(
            None if above else witness.bytesSent + witness.bytesBuffered()
        )

    def _settleSends(self, witness: ObservedConnection) -> list[Deferred[None]]:
        """
        Take out the sends that have been handed to the kernel.
        """
        sending = self._writes
        if sending is None:
            witness.notifyOnWriteProgress = False
            return []
        if sending.unmarked and not bytesBufferedAbove(self._transport):
            sending.mark(witness.bytesSent + witness.bytesBuffered())
        settled = sending.settled(witness.bytesSent)
        witness.notifyOnWriteProgress = sending.awaited
        self._restSending(witness)
        return settled

    @property
    def _writeTracker(self) -> Sending:
        """
        The L{Sending}, which is there from now on.
        """
        if self._writes is None:
            self._writes = Sending(self.seconds())
        return self._writes

    def _unwatch(self, witness: ObservedConnection) -> None:
        """
        Nothing waits any more.
        """
        witness.writeTracked = False
        self._restSending(witness)
        self._maySteady()

    def _restSending(self, witness: ObservedConnection) -> None:
        """
        Forget the L{Sending} until something waits again.  Not before all has arrived: what has
        drained may yet excuse the peer.
        """
        sending = self._writes
        if sending is None or witness.writeTracked or sending.awaited:
            return
        if self._ackedMark == witness.bytesSent:
            self._writes = None

    # Ending.

    def enterClosing(self) -> None:
        """
        Enter the state C{closing}, if the link is not in it.  The peer is watched no more.
        """
        if self.state is not LinkState.CLOSING:
            self.state = LinkState.CLOSING
            self._stopHandshakeTimeout()
            self._wheel.cancel(self)
            if self._probes is not None:
                self._probes.tell(False)
            self.owner.linkClosing(self)

    def _isClosing(self) -> bool:
        """
        Find out whether the application or the peer's TLS has begun a polite close.
        """
        connection = self._connection
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

    # Telling and timing.

    def eventFields(self) -> dict[str, object]:
        """
        Return what the log's events say of the link, as it is now.
        """
        return {
            "generation": self.generation,
            "peer": self._peerName,
            "silence": round(self.silence, 3),
            "bound": None if self._heartbeat is None else self._heartbeat.bound,
        }

    def _next(self) -> float | None:
        if self.state.isEnding:
            return None
        when = min(self.detector.due, self._stallLook(), self._promiseDue)
        return when if when < inf else None

    def _revisit(self) -> None:
        """
        Have the pulse come when something is due next, if that has become sooner.
        """
        when = self._next()
        if when is not None and (self.slot is None or when < self.slot.latest):
            self._wheel.schedule(self, when)


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
