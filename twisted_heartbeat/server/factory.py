# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServerFactory}: watches many peers.
"""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel

from ..core import wire
from ..core.causes import ClosedHere
from ..core.settings import ServerLimits
from ..link.config import peerName
from ..protocol.heartbeat import HeartbeatProtocol
from ..protocol.wrapper import HeartbeatFactory, attachLink
from ..timing.deadline import cancelCalls
from ..timing.wheel import timerWheelFor
from ..transport.layers import abort
from .admission import Admission, sayGoodbye
from .networks import networkOf
from .registry import MAX_POLITE_REFUSALS, PeerRegistry

if TYPE_CHECKING:
    from ..link.link import Link
    from .admission import Admit


class RejectedConnection(Protocol):
    """
    For who is not even told why.
    """

    def connectionMade(self) -> None:
        # Not by returning no protocol: over TLS Twisted does not check for that.
        abort(self.transport)


class HeartbeatServerFactory(HeartbeatFactory):
    """
    Watches whoever connects, and is admitted.

    A peer of the built-in protocol is admitted once it has said hello, C{admit} has not said no,
    and its name is free; any other as soon as it is connected, TLS handshake included, unless
    C{admit} says no.  Then it is one of the L{peers}, the hook C{connected} is called, and what it
    has said meanwhile is delivered.

    @ivar peers: the links that it watches, by generation.
    """

    def __init__(
        self,
        wrappedFactory: IProtocolFactory | None = None,
        *,
        serverLimits: ServerLimits | None = ServerLimits(),
        admit: Admit | None = None,
        **settings: Any,
    ) -> None:
        """
        @param wrappedFactory: makes the protocols; those of the built-in protocol if L{None}.
        @param serverLimits: L{None} for none.
        @param admit: takes a peer's address, its TLS certificate (C{OpenSSL.crypto.X509}, L{None}
            without one) and its L{hello<wire.Hello>} (L{None} from a protocol that has none), and
            says whether it may come in: L{None} or L{True} if it may, L{False} or the reason, a
            C{str}, if not; or a Deferred or a coroutine of that.  If it fails, the peer is refused.
        @param settings: as for L{HeartbeatFactory}.
        """
        super().__init__(wrappedFactory or Factory.forProtocol(HeartbeatProtocol), **settings)
        self._settings["phase"] = random.random
        self.serverLimits = serverLimits or ServerLimits.off()
        self.admit = admit
        self._roll = PeerRegistry(self)
        self._settings["proxied"] = self._roll.awaitHeader
        self.claims = self._roll.claims
        self.peers = self._roll.peers
        self._draining = False

    def named(self, name: str) -> Link | None:
        """
        The link to the peer that calls itself so.

        @return: one of the L{peers}; L{None} if there is none of that name.
        """
        return self._roll.named(name)

    @property
    def strangers(self) -> int:
        """
        How many connections have ended before a hello, or without ever being a peer's: port scans,
        and the health checks of load balancers.
        """
        return self._roll.strangers

    def doStart(self) -> None:
        """
        See C{IProtocolFactory}.  Whoever listens again is no longer draining.
        """
        self._draining = False
        self._roll.cutOffs.start()
        super().doStart()

    def doStop(self) -> None:
        """
        See C{IProtocolFactory}.
        """
        self._roll.cutOffs.stop()
        super().doStop()

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        """
        See C{IProtocolFactory}.
        """
        counted = self.serverLimits.peersPerAddress is not None and not self._roll.proxied
        network = networkOf(addr) if counted else None
        full = self._roll.full(network)
        if self._draining or (full and len(self._roll.overLimit) >= MAX_POLITE_REFUSALS):
            return self._cutOff(addr, full or "the server is closing")
        protocol: Any = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        admission = Admission(self, self._roll)
        linked, link = attachLink(protocol, self.terms, admission)
        admission.link = link
        self._limitMessages(link.protocol)
        # Known from here, so that a link whose handshake hangs is closed with the others.
        self._roll.add(link, network, crowds=bool(full))
        return linked  # type: ignore[no-any-return]

    def close(self) -> Deferred[Any]:
        """
        Close all links, politely.

        @return: fires when all of them are gone and cleaned up, see L{Limits} for how long that
            takes.
        """
        return DeferredList([link.close() for link in self._established()])

    def drain(
        self,
        *,
        retryAfter: float = 1.0,
        spread: float = 12.0,
        grace: float = 0.5,
        reason: str = "closing",
    ) -> Deferred[Any]:
        """
        Close all links so that nobody is surprised: admit nobody any more, say goodbye to all, wait
        for them to go, and then close the rest.  To stop its ports, before, is the caller's part.

        @param retryAfter: seconds after which the peers are welcome again.
        @param spread: seconds, from then on, over which they are to spread.
        @param grace: seconds to wait for them; at most half of C{Limits.closeTimeout}.
        @return: fires when all are gone and cleaned up, as that of L{close}.
        @raise ValueError: if a value is negative, not finite or too long; then nothing is done.
        """
        goodbye = wire.Goodbye(reason, retryAfter, spread)
        wire.encode(goodbye)
        limit = self.terms.limits.closeTimeout
        patience = grace if limit is None else min(grace, limit / 2)
        if not 0 <= patience < inf:
            raise ValueError(f"grace is {grace!r}: it must be 0 seconds or more, and finite")
        self._draining = True
        links = self._established()
        for link in links:
            told = link.isUp and sayGoodbye(link, goodbye)
            if not (told and patience and link.generation in self.peers):
                link.close()
        gone = DeferredList([link.whenGone() for link in links])
        if not gone.called:
            left = None if limit is None else limit - patience
            call = self.terms.clock.callLater(patience, _closeAll, links, left)
            gone.addCallback(lambda _: cancelCalls(call))
        return gone

    def _established(self) -> list[Link]:
        return [link for link in self._roll.links if link.state != "new"]

    def _cutOff(self, addr: Any, why: str) -> RejectedConnection:
        """
        Not each is told of in the log: they may be many, and come again and again.
        """
        clock = self.terms.clock

        def announce(others: int) -> None:
            cause, peer = ClosedHere(f"refused: {why}"), peerName(addr)
            self.terms.announce("refused", LogLevel.warn, peer=peer, cause=cause, others=others)

        self._roll.cutOffs.log(ClosedHere, clock.seconds(), timerWheelFor(clock), announce)
        return RejectedConnection()

    def _limitMessages(self, protocol: Any) -> None:
        most = self.serverLimits.maxMessage
        if most is None or not isinstance(protocol, HeartbeatProtocol):
            return
        if most < protocol.maxMessage:
            protocol.maxMessage = most


def _closeAll(links: list[Link], within: float | None) -> None:
    for link in links:
        link.close(within=within)
