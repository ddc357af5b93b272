# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Link}: one connection to one peer, from established to gone.

A link is its peer's liveness, a visit by the pulse, what its transport remembers, and its cleanups.
Every door makes one for each connection and tells it what happens; nothing here knows the doors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from ..core.causes import (
    Cause,
    ClosedHere,
    HandshakeFailed,
    PeerClosed,
    PeerReset,
    SendFailed,
)
from ..core.detector import NEVER
from ..core.diagnosis import causeOfLoss, describeError, isOwnException
from ..core.proof import LinkFacts
from ..core.settings import MIN_BOUND, Heartbeat
from ..core.text import printable, textOf
from ..logs import SafeLogger, guarded
from ..timing.monotonic import clockInMemory
from ..timing.wheel import reactorStopped
from ..transport.compat import markErrorHandled
from ..transport.connection import ObservedUnixConnection
from ..transport.instrument import findObserved, instrument, removeObserver
from ..transport.keepalive import applyKeepAlive
from ..transport.layers import (
    abort,
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
    certificateRefused,
    flushHandshakeBuffer,
    forwardHandshake,
    handshakeDone,
    handshakeRejected,
    usesTLS,
)
from .config import peerName, plainAddress
from .politeclose import CloseStep, PoliteClose
from .teardown import Ending
from .usercode import runCleanups
from .watch import Mode, PeerWatch
from .writes import WriteTracker

if TYPE_CHECKING:
    from ..batching.batcher import Batcher
    from ..core.detector import FailureDetector
    from ..core.evidence import Evidence
    from ..core.wire.negotiation import Negotiated
    from ..core.wire.pings import SharedPing
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot, TimerWheel
    from ..transport.connection import ObservedConnection
    from ..transport.keepalive import Applied
    from .config import LinkConfig, Ping
    from .interfaces import Door, HeartbeatSender, Owner

_log = SafeLogger()


_MAX_WRAPPERS = 8
"""Protocols around one another that are looked through."""

_TURNS_UNTIL_LOST = 2
"""Turns of the reactor after which a transport that was told to abort is done without."""

_inCleanup: ContextVar[Link | None] = ContextVar("_inCleanup", default=None)


def linkInCleanup() -> Link | None:
    """
    The link whose C{disconnected} hook or cleanup calls this, also after it has awaited something;
    L{None} if none does, or its cleanups are over.
    """
    link = _inCleanup.get()
    return None if link is None or link.cleaned else link


class UnmanagedOwner:
    """
    The owner of a link that nobody prepares and nobody replaces, until it is connected.
    """

    def linkReady(self, link: Link) -> None:
        """
        Ready is as good as connected.
        """
        if not link.isHealthCheck:
            link.owner = _CONNECTED
            link.announceConnected()

    def linkProven(self, link: Link) -> None:
        """
        Nothing follows.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        Nothing follows but the cleanups.
        """
        if link.isServerSide:
            link.cleanUpStranger()
        else:
            link.cleanUp()

    def linkClosing(self, link: Link) -> None:
        """
        Nothing follows.
        """

    def pingLimitReached(self, link: Link) -> None:
        """
        It may ping as often as it likes.
        """
        link.pingsLeft = -1


class _Connected(UnmanagedOwner):
    """
    The same, once the link is connected.
    """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        Nothing follows but the cleanups.
        """
        link.cleanUp()


_CONNECTED = _Connected()


class Link:
    """
    One connection to one peer, from established to gone.

    @ivar generation: its number among the links of its factory or service; never reused.
    @ivar protocol: the protocol that speaks over it.
    @ivar state: C{"new"}, C{"handshaking"}, C{"alive"}, C{"suspected"}, C{"closing"} or C{"gone"}.
    @ivar hasReceivedData: whether the protocol has taken the peer's first bytes, without raising.
    @ivar keepAlive: what the operating system was told, and what it can not do; L{None} if nothing.
    @ivar agreement: what this end's hello and the peer's come to, in a protocol that has such a
        thing; L{None} until the peer has said its own.
    @ivar expectedPong: the bytes that answer the last ping, in a protocol that has such a thing;
        L{None} once they have come.
    @ivar heartbeatSender: how the protocol speaks by itself, where there is such a thing.
    @ivar name: what the peer calls itself, once a server has heard it.
    @ivar owner: who hears of its turns; may be handed on.
    @ivar pingsLeft: counts the peer's pings down; at 0, where it begins, the owner hears of the
        next; below that nobody counts.
    @ivar lastSentAt: when this end last said something other than a ping, in seconds.
    @ivar writes: the progress of what waits to be sent; L{None} while nothing does.
    """

    __slots__ = (
        "__weakref__",
        "_deadline",
        "_outerProtocol",
        "_teardown",
        "_establishedAt",
        "_peerWatch",
        "_config",
        "_transport",
        "agreement",
        "generation",
        "keepAlive",
        "heartbeatSender",
        "name",
        "owner",
        "pingsLeft",
        "expectedPong",
        "protocol",
        "slot",
        "lastSentAt",
        "hasReceivedData",
        "state",
        "writes",
    )

    def __init__(
        self,
        terms: LinkConfig,
        owner: Owner,
        protocol: Any,
        door: Door,
        ping: Ping | None = None,
    ) -> None:
        """
        @param door: what hears that the connection is lost, if the transport never says so.
        @param ping: in place of the terms' own.
        """
        self._config = terms
        self.owner = owner
        self._outerProtocol = door
        self._peerWatch = PeerWatch(terms.heartbeat, ping or terms.ping)
        self._transport: Any = None
        self._establishedAt = 0.0
        self._deadline = inf
        # What few links have at a time, none has a place for until then.
        self.writes: WriteTracker | None = None
        self._teardown: Ending | None = None
        self.heartbeatSender: HeartbeatSender | None = None
        self.slot: Slot | None = None
        self.generation = next(terms.generations)
        self.protocol = protocol
        self.state = "new"
        self.expectedPong: bytes | None = None
        self.keepAlive: Applied | None = None
        self.agreement: Negotiated | None = None
        self.name = ""
        self.pingsLeft = 0
        self.lastSentAt = NEVER
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
        if self.heartbeatSender is not None:
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
            if isinstance(link, Link) and link.heartbeatSender is not None:
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

    # What the door tells it, in this order.

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
        handshakes = self._handshakes
        if handshakes:
            forwardHandshake(transport, self._outerProtocol)
        if proxied or handshakes:
            self.state = "handshaking"
            self._deadline = now + (self._config.limits.connectTimeout or inf)
            self._revisit()
        else:
            self._established(now)

    def protocolConnected(self) -> None:
        """
        The protocol has been told, too.
        """
        if self.state == "alive":
            self._ready()

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is complete.
        """
        if self.state == "handshaking" and not handshakeRejected(self._transport):
            flushHandshakeBuffer(self._transport)
            self._readyIfComplete()

    def _readyIfComplete(self) -> None:
        """
        Begin, unless a TLS handshake or the header of a load balancer is still waited for.
        """
        if self.state != "handshaking" or self._handshakes or awaitsHeader(self._transport):
            return
        self._deadline = inf
        self._established(self.seconds())
        self._ready()

    @property
    def _handshakes(self) -> bool:
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
        if self.heartbeatSender is None:
            self.owner.linkProven(self)

    @property
    def isUp(self) -> bool:
        """
        Whether it is up, as far as anybody knows.
        """
        return self.state in ("alive", "suspected")

    @property
    def cleaned(self) -> bool:
        """
        Whether it has ended, and its cleanups have run.
        """
        return self._teardown is not None and self._teardown.cleaned

    @property
    def outerProtocol(self) -> Door:
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
        Whether each chunk is seen on the socket, and the door need not tell.
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
        Whether its end is being told to the protocol.
        """
        return self.state == "gone" and self._teardown is not None and not self._teardown.told

    @property
    def observesLoss(self) -> bool:
        """
        Whether the connection says beforehand what it tells the door, see L{dataArriving} and
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

    # What a protocol that has such things tells it.

    def watchPassively(self, within: float | None) -> None:
        """
        The peer has given its word to speak by itself: watch it by that, passively.

        @param within: seconds, the bound; L{None} if it has taken its word back, so that its
            silence proves nothing.
        """
        watch = self._peerWatch
        watch.trusted = within is not None
        bound = None if within is None else max(MIN_BOUND, within)
        watch.reconfigure(None if bound is None else Heartbeat.forPassivePeer(bound))

    def watchActively(self) -> None:
        """
        The peer has not given its word, or no good one: ping it, within the same bound.
        """
        if self.bound is not None:
            watch, bound = self._peerWatch, self.bound
            watch.trusted = False
            watch.reconfigure(Heartbeat.within(max(MIN_BOUND, bound)))

    def helloReceived(self, agreement: Negotiated) -> None:
        """
        The peer's hello was read.

        @param agreement: what it and this end's hello come to.
        """
        self.agreement = agreement
        self.owner.linkProven(self)

    def setHeartbeatSender(self, manner: HeartbeatSender) -> None:
        """
        This end has said how it will speak by itself.
        """
        # What it pings with it says by setSharedPing.
        self._peerWatch.pinger = None
        self.lastSentAt = self.seconds()
        self.changeHeartbeatSender(manner)

    def changeHeartbeatSender(self, manner: HeartbeatSender) -> None:
        """
        Speak by itself in another manner from here on, because the peer has said what it needs.
        """
        self._peerWatch.withdraw()
        self.heartbeatSender = manner
        self._peerWatch.reschedule()

    def markSent(self) -> None:
        """
        This end has just said something.
        """
        self.lastSentAt = self.seconds()

    def pingReceived(self) -> None:
        """
        The peer has pinged.
        """
        if self.pingsLeft > 0:
            self.pingsLeft -= 1
        elif not self.pingsLeft:
            self.owner.pingLimitReached(self)

    def setSharedPing(self, beats: SharedPing | None, inPlaceOf: Ping) -> None:
        """
        How to ping without the protocol, which need not see the pongs.

        @param beats: L{None} while the protocol is in the middle of something, and has to see all.
        @param inPlaceOf: the protocol's own ping, which does the same.
        """
        watch = self._peerWatch
        if watch.ping is inPlaceOf:
            watch.pinger = beats

    def pongReceived(self) -> None:
        """
        The ping was answered in so many words.
        """
        self.expectedPong = None
        self._peerWatch.pongReceived()

    def connectionLost(self, reason: Failure) -> Failure:
        """
        The transport let go of the connection.

        @return: what to tell the protocol.
        """
        cause = self._causeOf(reason)
        self._peerWatch.stop()
        if self.writes is not None:
            self.writes.stop()
        self.teardown.closing = None
        self.state = "gone"
        self.wheel.cancel(self)
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
        self.teardown.told = True
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
        self._announce("connected", watch=self.watch)
        self._config.callHook("connected", self, failed=self._connectedFailed)

    def cleanUp(self, limit: LogRateLimit | None = None) -> Deferred[None]:
        """
        Say that it is gone, and run its cleanups, last in first out.

        @param limit: that of the log for links that never were a peer's: not each end of such a
            link is logged.  L{None} to log this one in any case.
        @return: fires when they have run, or their time is over.
        """
        ending = self.teardown
        cleanups, ending.cleanups = ending.cleanups, None
        if cleanups is None:
            return succeed(None)
        # A wrapper and its link refer to each other: no collector shall be needed for them.
        del self._outerProtocol
        cause = ending.cause
        assert cause is not None
        name = "refused" if ending.refused else "disconnected"
        if limit is None:
            self._announceEnd(name, cause)
        else:
            announce = partial(self._announceEnd, name, cause)
            limit.log(type(cause), self.seconds(), self.wheel, announce)

        def lastHook() -> object:
            return getattr(self._config.hooks, name)(self, cause)

        lastHook.__qualname__ = f"{name} hook"
        done = self._runSteps([lastHook, *reversed(cleanups)])
        return done.addCallback(lambda _: ending.tell())

    def cleanUpStranger(self) -> None:
        """
        L{cleanUp} after a link that has ended before anybody knew who was there: a port scan, or a
        health check.  Of those that end alike the log has one event in L{STRANGER_INTERVAL}.
        """
        self.cleanUp(self._config.strangers)

    def _announceEnd(self, event: str, cause: Cause, others: int | None = None) -> None:
        fields: dict[str, object] = {} if others is None else {"others": others}
        if self.refused:
            self._announce(event, LogLevel.warn, cause=cause, name=self.name, **fields)
        else:
            # Port scans and health checks leave in these ways, and need no warning.
            usual = (ClosedHere, PeerClosed, PeerReset) if fields else ClosedHere
            level = LogLevel.info if isinstance(cause, usual) else LogLevel.warn
            evidence = _fieldsOf(cause.evidence)
            self._announce(event, level, cause=cause, evidence=evidence, **fields)

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

        def cleanup() -> object:
            return f(*arguments, **keywords)

        cleanup.__qualname__ = printable(textOf(getattr(f, "__qualname__", None) or f))
        cleanups = self.teardown.cleanups
        if cleanups is None:
            self._runSteps([cleanup])
        else:
            cleanups.append(cleanup)

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
        if self.heartbeatSender is not None:
            self.markSent()
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
        if self.state not in ("closing", "gone"):
            self._peerWatch.withdraw()
            self._sendGoodbye()
            self.recordCause(cause or ClosedHere())
            self._beginClose(within or self._config.limits.closeTimeout, lingers)
        return self.whenGone()

    def _beginClose(self, timeout: float | None, lingers: bool) -> None:
        transport = self._transport
        connection = findConnection(transport)
        self._closeWithin(timeout)
        if timeout is None or connection is None or not lingers:
            transport.loseConnection()
            return
        # A protocol that says goodbye has the peer close.
        awaitsPeer = self.heartbeatSender is not None
        closing = self.teardown.closing = PoliteClose(
            connection, self.seconds(), timeout, self._closingChanged, awaitsPeer=awaitsPeer
        )
        closing.begin(transport)
        self._closingChanged()

    def release(self) -> None:
        """
        End the link now if it is closing politely, because another link waits for its end.  The
        connection goes on closing by itself.
        """
        ending = self.teardown
        closing = ending.closing
        if self.state == "closing" and ending.abortTurnsLeft is None and closing is not None:
            assert ending.cause is not None
            self.connectionLosing()
            words = "The protocol of {link} failed at its end"
            guarded(
                _log, words, self._outerProtocol.connectionLost, Failure(ending.cause), link=self
            )
            if not closing.over:
                ending.closing = closing
                self._revisit()

    def abort(self, cause: Cause) -> None:
        """
        End it at once.

        @param cause: kept, unless it had one already.
        """
        if self.state in ("new", "gone"):
            return
        self.recordCause(cause)
        self._enterClosing()
        ending = self.teardown
        if ending.abortTurnsLeft is not None:
            return
        ending.abortTurnsLeft = _TURNS_UNTIL_LOST
        self._deadline = self.seconds()
        self._revisit()
        guarded(_log, "{link} could not be aborted", abort, self._transport, link=self)

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

    # What the pulse and the transport tell it.

    def onTimer(self, now: float, lateness: float) -> float | None:
        if self.state == "gone" and not self._closesOn:
            return None
        if now >= self._deadline:
            self._overdue(now, lateness)
        return self._next()

    def activity(self) -> None:
        self._peerWatch.interrupt()

    def writeStarted(self) -> None:
        watch = self._peerWatch
        watch.writeStarted()
        if watch.connection is not None and self.state != "closing":
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
        if self.state != "gone":
            self.connectionLost(reason)
            self.protocolNotified()

    # What its watch and its tracker of writes tell it.

    def _established(self, now: float) -> None:
        """
        Watch the peer from now on.
        """
        self.state = "alive"
        self._establishedAt = now
        self._peerWatch.begin(now)

    def peerSuspected(self) -> None:
        self.state = "suspected"
        self._announce("suspected", LogLevel.warn)
        self._config.callHook("suspected", self)

    def peerRecovered(self) -> None:
        self.state = "alive"
        self._announce("recovered")
        self._config.callHook("recovered", self)

    def peerSilent(self, diagnose: Callable[[], Cause], now: float) -> None:
        self.teardown.blameLater(diagnose, now)
        self._enterClosing()
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

    def noticeClose(self) -> bool:
        """
        Whether somebody else has begun to close it politely.  No byte will be heard any more, and
        Twisted waits for ever on a buffer that can not drain, so it gets the same limit.
        """
        witness = self._peerWatch.connection
        if isClosingLocally(self._transport):
            self.recordCause(ClosedHere())
        elif witness is not None and witness.disconnecting:
            # Not our side, so it was TLS, at the other's close_notify.
            self.recordCause(PeerClosed("the peer closed the connection (close_notify)"))
        else:
            return False
        self._closeWithin(self._config.limits.closeTimeout)
        self._deadline = min(self._deadline, self.detector.deadline)
        self._revisit()
        return True

    def _grantGrace(self, now: float, lateness: float, limit: float | None) -> bool:
        """
        Put off a deadline of the peer's, once, as
        L{PeerDeadline<twisted_heartbeat.timing.deadline.PeerDeadline>} does.

        @return: whether it was put off.
        """
        ending = self.teardown
        if ending.graceGiven:
            return False
        ending.graceGiven = True
        self._deadline = now + min(lateness, limit or 0.0)
        return True

    def _closeWithin(self, limit: float | None) -> None:
        self._enterClosing()
        self.teardown.graceGiven = False
        self._deadline = self.seconds() + (limit or inf)
        self._revisit()

    def _enterClosing(self) -> None:
        if self.state != "closing":
            self.state = "closing"
            self._peerWatch.stop()
            if self.writes is not None:
                self.writes.stop()
            self._peerWatch.failProbes()
            self.owner.linkClosing(self)

    @property
    def _closesOn(self) -> bool:
        """
        Whether the connection is still closing although the link has ended, see L{release}.
        """
        closing = None if self._teardown is None else self._teardown.closing
        return closing is not None and not closing.over

    def _closingChanged(self) -> None:
        """
        Look at the polite close in the reactor's next turn.
        """
        if self.state == "closing" or self._closesOn:
            self._deadline = min(self._deadline, self.seconds())
            self._revisit()
        else:
            self.wheel.cancel(self)

    def _lookAtClosing(self, closing: PoliteClose, now: float, lateness: float) -> None:
        step = closing.look(now, lateness)
        if step is CloseStep.WAIT:
            self._deadline = closing.due
            return
        self._deadline = inf
        if step is CloseStep.FINISH:
            self.wheel.callSoon(closing.finish)
        elif self.state == "gone":
            abort(self._transport)
        else:
            assert self.cause is not None
            self.abort(self.cause)

    def _overdue(self, now: float, lateness: float) -> None:
        limits = self._config.limits
        if self.state == "handshaking":
            if not self._handshakes:
                # Not every layer above TLS tells of the handshake.
                self.handshakeCompleted()
            limit = limits.connectTimeout
            if self.state == "handshaking" and not self._grantGrace(now, lateness, limit):
                what = "TLS handshake" if self._handshakes else "header of a load balancer"
                self.abort(HandshakeFailed(f"no {what} within {limit:g} s"))
            return
        ending = self.teardown
        assert ending.cause is not None
        if ending.abortTurnsLeft is None and ending.closing is not None:
            self._lookAtClosing(ending.closing, now, lateness)
        elif ending.abortTurnsLeft is None:
            if not self._grantGrace(now, lateness, limits.closeTimeout):
                self.abort(ending.cause)
        elif ending.abortTurnsLeft > 1:
            ending.abortTurnsLeft -= 1
        else:
            self._deadline = inf
            self.connectionLosing()
            words = "The protocol of {link} failed at its end"
            guarded(
                _log, words, self._outerProtocol.connectionLost, Failure(ending.cause), link=self
            )

    @property
    def teardown(self) -> Ending:
        """
        The L{Ending}, which is there from now on.
        """
        if self._teardown is None:
            self._teardown = Ending()
        return self._teardown

    def recordCause(self, cause: Cause) -> None:
        """
        The first cause wins; a later one is chained to it.
        """
        self.teardown.blame(cause, self.seconds())

    def markRefused(self, cause: Cause) -> None:
        """
        L{recordCause} a server that does not admit the peer.
        """
        self.teardown.refused = True
        self.recordCause(cause)

    def _causeOf(self, reason: Failure) -> Cause:
        witness = self._peerWatch.connection
        raised = None if witness is None else witness.protocolError
        error = raised or reason.value
        self.teardown.raised = isOwnException(error)
        speaker = self._speaker
        if speaker is not None and speaker is not self:
            # Kept, because a wrapper forgets its protocol when it has told it of the end.
            self.teardown.speaker = speaker
            # It knows more than its transport said, a goodbye's code for example.
            error = speaker.cause or error
        found = causeOfLoss(
            error,
            number=None if witness is None else witness.lastErrno,
            finished=witness is not None and witness.finReceived,
            closedHere=isClosingLocally(self._transport),
            handshaking=self.state == "handshaking" and usesTLS(self._transport),
            reactorStopped=reactorStopped(self._config.clock),
            refused=certificateRefused(self._transport) or getattr(witness, "certificateError", ""),
        )
        self.recordCause(found)
        cause = self.cause
        assert cause is not None
        if cause.evidence is None and witness is not None:
            cause.evidence = witness.evidence
        return cause

    def _sendGoodbye(self) -> None:
        if self.heartbeatSender is not None:
            words = "{link} could not say goodbye"
            guarded(_log, words, self.heartbeatSender.sendGoodbye, self.protocol, link=self)

    def _runSteps(self, cleanups: list[Callable[[], object]]) -> Deferred[None]:
        steps = [(cleanup.__qualname__, cleanup) for cleanup in cleanups]
        limits = self._config.limits
        token = _inCleanup.set(self)
        try:
            running: Deferred[None] = runCleanups(steps, self._config.clock, limits.cleanupTimeout)
        finally:
            _inCleanup.reset(token)
        return running

    def _connectedFailed(self, failure: Failure) -> None:
        self.teardown.hookFailed = True
        if self.state == "gone":
            return
        error = failure.value
        if isinstance(error, Cause) or error is None:
            self.abort(error or ClosedHere())
        else:
            cause = ClosedHere(f"the connected hook raised {describeError(error)}")
            cause.__cause__ = error
            self.abort(cause)

    # Telling and timing.

    def _announce(self, event: str, level: Any = LogLevel.info, **fields: object) -> None:
        heartbeat = self._peerWatch.heartbeat
        self._config.announce(
            event,
            level,
            generation=self.generation,
            peer=self._peerName,
            silence=round(self.silence, 3),
            bound=None if heartbeat is None else heartbeat.bound,
            **fields,
        )

    def _next(self) -> float | None:
        if self.state == "gone" and not self._closesOn:
            return None
        return self._deadline if self._deadline < inf else None

    def _revisit(self) -> None:
        """
        Have the pulse come when something is due next, if that has become sooner.
        """
        when = self._next()
        if when is not None and (self.slot is None or when < self.slot.latest):
            self.wheel.schedule(self, when)


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


def _fieldsOf(evidence: Evidence | None) -> dict[str, object] | None:
    """
    Evidence as a log can hold it.
    """
    if evidence is None:
        return None
    return {
        "sinceAck": evidence.sinceAck,
        "sinceData": evidence.sinceData,
        "bytesUnacknowledged": evidence.bytesUnacknowledged,
        "retransmits": evidence.retransmits,
        "window": evidence.window,
        "probes": evidence.probes,
        "rtt": evidence.rtt,
        "simultaneousVerdicts": evidence.simultaneousVerdicts,
    }
