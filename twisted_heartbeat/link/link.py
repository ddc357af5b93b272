# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Link}: one connection to one peer, from established to gone.

The mix-in or the wrapper of a protocol makes one link for each connection, and tells it what the
transport tells the protocol.  A link has the state, the public methods and the owner.  Its rooms do
the rest; a caller that needs a room takes it from the link:

 - C{config}: the settings, the clock and the observers of all links of one factory or service.
 - C{peerWatch}, a L{PeerWatch}: is the peer alive?
 - C{session}: the state of the built-in protocol, where the protocol speaks that.
 - C{writes}, a L{WriteTracker}: what waits to be sent, and does it progress?
 - C{teardown}, a L{Teardown}: the cause, the close, the loss and the cleanups.
 - C{handshake}, a L{Handshake}: what has to come before the link is up.

A L{WriteTracker}, a L{Teardown} and a L{Handshake} exist only while they are needed, because a
server has thousands of idle links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..core.causes import Cause, ClosedHere
from ..core.text import printable, textOf
from ..timing.monotonic import clockInMemory
from ..transport.instrument import instrument
from ..transport.keepalive import applyKeepAlive
from ..transport.layers import bytesBuffered, forwardInterfaces, isInMemory
from ..transport.tcpinfo import bytesReceived
from ..transport.tls import certificateOf
from .addresses import peerName
from .cleanups import Cleanup
from .handshake import Handshake
from .probes import probe
from .state import LinkState
from .teardown import Teardown, noticeClose
from .watch import PeerWatch
from .watched import WatchedLink
from .writes import WriteTracker, send

if TYPE_CHECKING:
    from ..core.wire.negotiation import Negotiated
    from ..logs import LogRateLimit
    from ..transport.keepalive import Applied
    from .config import LinkConfig, Ping
    from .interfaces import OuterProtocol, Session
    from .owner import LinkOwner


class Link(WatchedLink):
    """
    One connection to one peer, from established to gone.  What observers are told of it is in
    L{WatchedLink}.

    @ivar generation: the number among the links of the same factory or service; never reused.
    @ivar protocol: the protocol that speaks over the link.
    @ivar state: a L{LinkState}, equal to its name: C{"new"}, C{"handshaking"}, C{"alive"},
        C{"suspected"}, C{"closing"} or C{"gone"}.
    @ivar transport: the transport; L{None} before there is a connection.
    @ivar keepAlive: the options that the operating system has set, and those that it lacks; L{None}
        if none were asked for.
    @ivar establishedAt: when the link was established, in seconds of its clock.
    @ivar hasReceivedData: whether the protocol has taken the peer's first bytes, without raising.
    @ivar config: what all links of its factory or service have in common.
    @ivar owner: is told of the link's turns; may be replaced.
    @ivar outerProtocol: the protocol that the transport calls: the protocol itself, or its wrapper.
    @ivar handshake: what has to come before the link is up; L{None} if nothing has.
    @ivar peerWatch: the watch of the peer.
    @ivar session: the session of the built-in protocol; L{None} in other protocols, and until this
        end has said hello.
    @ivar writes: the progress of the bytes that wait to be sent; L{None} while none wait.
    @ivar logLimit: limits how many ends of links are logged; L{None} to log this link's in any
        case.
    """

    __slots__ = (
        "__weakref__",
        "_teardown",
        "config",
        "establishedAt",
        "generation",
        "handshake",
        "hasReceivedData",
        "keepAlive",
        "logLimit",
        "outerProtocol",
        "owner",
        "peerWatch",
        "protocol",
        "session",
        "state",
        "transport",
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
        @param ping: replaces the ping of the configuration.
        """
        self.config = config
        self.owner = owner
        self.protocol = protocol
        self.outerProtocol = outerProtocol
        self.generation = next(config.generations)
        self.state = LinkState.NEW
        self.transport: Any = None
        self.establishedAt = 0.0
        self.hasReceivedData = False
        self.keepAlive: Applied | None = None
        self.peerWatch = PeerWatch(config.heartbeat, ping or config.ping)
        self.session: Session | None = None
        self.writes: WriteTracker | None = None
        self.handshake: Handshake | None = None
        self.logLimit: LogRateLimit | None = None
        self._teardown: Teardown | None = None

    def __repr__(self) -> str:
        peer = "a peer" if self.peer is None else peerName(self.peer)
        return f"<Link {self.generation} to {peer} {self.state}>"

    @property
    def agreement(self) -> Negotiated | None:
        """
        What the two hellos have negotiated; L{None} until the peer has said hello, and in other
        protocols.
        """
        return None if self.session is None else self.session.negotiated

    @property
    def certificate(self) -> Any:
        """
        The peer's TLS certificate, as an C{OpenSSL.crypto.X509}; L{None} without one, and once the
        link has ended.
        """
        return certificateOf(self.transport)

    @property
    def cause(self) -> Cause | None:
        """
        Why the link ended; L{None} until that is known.
        """
        return None if self._teardown is None else self._teardown.cause

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
    def teardown(self) -> Teardown:
        """
        The end of the link.  It is made when it is first needed.
        """
        if self._teardown is None:
            self._teardown = Teardown(self)
        return self._teardown

    @property
    def outermost(self) -> Any:
        """
        The protocol that the transport calls, with all wrappers around it.
        """
        return self.outerProtocol

    @property
    def traffic(self) -> tuple[int | None, int | None]:
        """
        The bytes that were received and sent on the connection, with those of TLS; L{None} where
        they are not counted.
        """
        connection = self.peerWatch.connection
        if connection is None:
            return None, None
        received = bytesReceived(connection.socket) if connection.connected else None
        return received, connection.bytesSent

    @property
    def built(self) -> Any:
        """
        The protocol that the factory has built, with wrappers of Twisted's around it.
        """
        return self.protocol

    # What the outer protocol tells the link, in this order.  The loss it tells the teardown.

    def connectionMade(self, transport: Any) -> None:
        """
        Begin with a connection of which the protocol has not been told yet.
        """
        config, watch = self.config, self.peerWatch
        now = self.establishedAt = watch.detector.heardAt = config.seconds()
        self.transport = transport
        forwardInterfaces(transport)
        connection = instrument(transport, watch.detector, config.seconds, self)
        watch.link, watch.connection = self, connection
        if connection is None and isInMemory(transport):
            self.config = replace(config, clock=clockInMemory(config.clock))
        elif connection is not None and connection.writeTracked:
            # The link of a tunnel below has asked to be told of writing.
            self.writeStarted()
        if config.keepAlive is not None:
            self.keepAlive = applyKeepAlive(transport, config.keepAlive)
        if Handshake.isNeeded(transport):
            self.handshake = Handshake(self)
            self.handshake.begin()
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
        if self.handshake is not None:
            self.handshake.completed()

    def handshakeOver(self) -> None:
        """
        Begin to watch the peer, because nothing has to come before that any more.
        """
        self.handshake = None
        self._established(self.config.seconds())
        self._ready()

    def _established(self, now: float) -> None:
        self.state = LinkState.ALIVE
        self.establishedAt = now
        self.peerWatch.begin(now)

    def _ready(self) -> None:
        self.owner.linkReady(self)

    def dataReceived(self) -> None:
        """
        Record that bytes have come from the peer, before the protocol receives them.  An observed
        connection records them by itself, so that only its first chunk is told here.  For any other
        transport each chunk is told, and L{dataDelivered} follows.
        """
        self.peerWatch.detector.heardAt = self.config.seconds()

    def firstDataReceived(self) -> None:
        """
        Record that the protocol has taken the peer's first bytes without raising.
        """
        self.hasReceivedData = True
        if self.session is None:
            self.owner.linkProven(self)

    @property
    def observesReads(self) -> bool:
        """
        Whether the connection records each chunk, so that the outer protocol need not tell.
        """
        return self.peerWatch.connection is not None

    def dataHandled(self) -> None:
        """
        Do what has to follow a delivery to the protocol.
        """

    def mayHaveMissedData(self) -> bool:
        """
        Find out whether bytes may have come of which the link was not told.
        """
        return False

    def loseProtocol(self, reason: Failure) -> None:
        """
        Tell the protocol that the connection is lost, because the transport does not.
        """
        self.outerProtocol.connectionLost(reason)

    # For the owner.

    def announceConnected(self) -> None:
        """
        Tell the observers that the link is connected.
        """
        self.config.events.emit(
            "connected", self, failed=lambda failure: self.teardown.connectedFailed(failure)
        )

    def probe(self) -> Deferred[bool]:
        """
        Make the peer speak now, and find out whether it lives.

        @return: fires with L{True} when the peer sends anything, and at once if its silence proves
            nothing.  Fires with L{False} when the link ends.  It does so if the peer sends nothing
            for the C{timeout} of the heartbeat from now, or has closed its half.
        """
        if not self.isUp:
            return succeed(False)
        return probe(self.peerWatch, self.config.heartbeat, self.config.seconds())

    def whenGone(self) -> Deferred[Cause]:
        """
        Wait for the end of the link.

        @return: fires with the cause when the link has ended and its cleanups have run.
        """
        return self.teardown.whenCleaned()

    def recordCause(self, cause: Cause) -> None:
        """
        Keep the first cause, and chain a later one to it.
        """
        self.teardown.recordCause(cause, self.config.seconds())

    # For the user.

    def addCleanup(self, f: Callable[..., object], *arguments: object, **keywords: object) -> None:
        """
        Call C{f} once when the link has ended, before the next attempt.  The cleanup that was added
        last is called first.  If the link's cleanups have begun, C{f} is called now.

        @param f: may return a Deferred or a coroutine.
        """
        name = printable(textOf(getattr(f, "__qualname__", None) or f))
        cleanup = Cleanup(name, partial(f, *arguments, **keywords))
        self.teardown.addCleanup(cleanup, self)

    def send(self, data: bytes) -> Deferred[None]:
        """
        Write to the peer.

        @return: fires when the kernel has taken the bytes.  Fails with the link's cause if the link
            ends first, and with C{SendFailed}, with nothing written, if C{Limits.maxBuffered} bytes
            wait already.  A failure that the caller ignores is not logged as unhandled.
        """
        return send(self, data)

    @property
    def bytesBuffered(self) -> int:
        """
        Bytes that wait in this process to be sent; 0 if the transport does not tell.
        """
        return bytesBuffered(self.transport, self.peerWatch.connection)

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
            self.peerWatch.withdraw()
            timeout = within or self.config.limits.closeTimeout
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

    # For the connection: the methods of ConnectionObserver.

    def activity(self) -> None:
        self.peerWatch.interrupt()

    def writeStarted(self) -> None:
        connection = self.peerWatch.connection
        self.peerWatch.writeStarted()
        if connection is not None and self.state is not LinkState.CLOSING:
            WriteTracker.of(self, connection).begin()

    def writeProgressed(self) -> None:
        connection = self.peerWatch.connection
        if self.writes is not None:
            self.writes.handedOver()
        elif connection is not None:
            connection.notifyOnWriteProgress = False

    def dataArriving(self) -> None:
        if not self.observesReads:
            self.dataReceived()

    def dataDelivered(self) -> None:
        # A peer whose last bytes end the link, a goodbye for example, has not recovered.
        if self.peerWatch.awaitsData and self.isUp and not noticeClose(self):
            self.peerWatch.dataDelivered()

    def peerClosedWrite(self) -> None:
        self.peerWatch.peerClosedWrite()

    def connectionLosing(self) -> None:
        pass

    def connectionLostUnnoticed(self, reason: Failure) -> None:
        if self.state is not LinkState.GONE:
            self.teardown.connectionLost(reason)
            self.teardown.protocolNotified()

    # For the watch.

    def peerSuspected(self) -> None:
        """
        Handle that the peer has not answered a ping for half of the timeout.
        """
        self.state = LinkState.SUSPECTED
        self.config.events.emit("suspected", self)

    def peerRecovered(self) -> None:
        """
        Handle that the suspected peer has spoken, or no longer needs to.
        """
        self.state = LinkState.ALIVE
        self.config.events.emit("recovered", self)
