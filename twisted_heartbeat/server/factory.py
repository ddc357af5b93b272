# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServerFactory}: a server that watches its peers, and drains.

 - L{Admission} is a newcomer's way in: hello, decision, name.
 - L{PeerRegistry} counts the links, and owns those that are admitted.
 - L{NameQueue} decides who holds a name.

When the server is full, up to L{MAX_POLITE_REFUSALS} newcomers are told why they are refused, which
takes a connection each until they have read it.  Further connections are I{rejected}: aborted at
once, over TLS before any handshake, with one event of the log a second.  So are all connections
while the server drains.
"""

from __future__ import annotations

import random
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel

from ..core import wire
from ..core.causes import ClosedHere
from ..core.settings import ServerLimits
from ..link.addresses import networkOf, peerName
from ..link.config import changedSettings
from ..link.state import LinkState
from ..protocol.heartbeat import HeartbeatProtocol
from ..protocol.rejected import RejectedConnection
from ..protocol.wrapper import HeartbeatFactory, attachLink
from ..timing.deadline import cancelCalls
from .admission import Admission
from .names import NameQueue
from .ratelimit import PingRateLimit
from .registry import MAX_POLITE_REFUSALS, LimitReached, PeerRegistry, sayGoodbye

if TYPE_CHECKING:
    from ..link.link import Link
    from .admission import Admit


class HeartbeatServerFactory(HeartbeatFactory):
    """
    A factory that watches the peers that connect to it.

    A peer of the built-in protocol is admitted once it has said hello, C{admit} has agreed, and its
    name is free.  A peer of any other protocol is admitted once it is connected, TLS handshake
    included, and C{admit} has agreed.  It is then one of the L{peers}, the hook C{connected} is
    called, and what the peer has said meanwhile is delivered.

    @ivar peers: the links of the admitted peers, by generation.
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
        @param wrappedFactory: makes the protocols; L{HeartbeatProtocol}s if L{None}.
        @param serverLimits: L{None} for none.
        @param admit: takes a peer's address, its TLS certificate (C{OpenSSL.crypto.X509}, L{None}
            without one) and its L{hello<wire.Hello>} (L{None} from a protocol that has none).
            Returns L{None} or L{True} to admit the peer; L{False} or the reason, a C{str}, to
            refuse it; or a Deferred or a coroutine of that.  If it fails, the peer is refused.
        @param settings: as for L{HeartbeatFactory}.
        """
        super().__init__(wrappedFactory or Factory.forProtocol(HeartbeatProtocol), **settings)
        self._settings["phase"] = random.random
        self.serverLimits = serverLimits or ServerLimits.off()
        self.admit = admit
        self._names = NameQueue()
        self._registry = PeerRegistry(lambda: self.serverLimits, self._names)
        self._settings["proxied"] = self._registry.awaitHeader
        self._settings["pingLimit"] = self._pingLimit()
        self.peers = self._registry.peers
        self._draining = False

    def changeSettings(self, **settings: Any) -> None:
        """
        Use other settings.  C{serverLimits} and C{admit} hold at once: no link is dropped because
        more are connected than may be now.  All others, and the limit of a peer's pings, hold for
        the links that begin from now on, see L{HeartbeatFactory.changeSettings}.

        @param settings: as for the constructor; what is not given stays as it is.
        @raise TypeError: for a name that cannot be changed; then nothing is changed.
        """
        own = {name: settings.pop(name) for name in ("serverLimits", "admit") if name in settings}
        changed = changedSettings(settings)
        if "serverLimits" in own:
            self.serverLimits = own["serverLimits"] or ServerLimits.off()
            changed["pingLimit"] = self._pingLimit()
            self._registry.countNetworks()
        self.admit = own.get("admit", self.admit)
        self._change(changed)

    def _pingLimit(self) -> PingRateLimit | None:
        perSecond = self.serverLimits.pingsPerSecond
        if perSecond is None:
            return None
        return PingRateLimit(perSecond, partial(self._registry.endFlood, perSecond))

    def named(self, name: str) -> Link | None:
        """
        Return the link to the peer of a name.

        @return: one of the L{peers}; L{None} if none of them has that name.
        """
        link = self._names.holder(name)
        return link if link is not None and link.isUp and link.generation in self.peers else None

    @property
    def strangers(self) -> int:
        """
        The number of connections that ended before a hello, or that never were a peer's: port
        scans, and the health checks of load balancers.
        """
        return self._registry.strangers

    def doStart(self) -> None:
        # A server that listens again is no longer draining.
        self._draining = False
        self._registry.refusalLog.start()
        super().doStart()

    def doStop(self) -> None:
        self._registry.refusalLog.stop()
        super().doStop()

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        counted = self.serverLimits.peersPerAddress is not None and not self._registry.proxied
        network = networkOf(addr) if counted else None
        reason = self._registry.refusalReason(network)
        if self._draining or (reason and len(self._registry.overLimit) >= MAX_POLITE_REFUSALS):
            return self._reject(addr, reason or "the server is closing")
        protocol: Any = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        admission = Admission(self, self._registry, self._names)
        linked, link = attachLink(protocol, self.linkConfig, admission)
        admission.link = link
        self._limitMessages(link.protocol)
        # Added before its handshake: if that hangs, close() and drain() still end the link.
        self._registry.add(link, network, overLimit=bool(reason))
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
        Admit no further peer, say goodbye to all, wait until they have left, and close the links
        that are left.  The caller stops the ports, before this call.

        @param retryAfter: seconds after which the peers are welcome again.
        @param spread: seconds, from then on, over which the peers spread their attempts.
        @param grace: seconds to wait for the peers; at most half of C{Limits.closeTimeout}.
        @param reason: what the peers are told.
        @return: fires when all links are gone and cleaned up, see L{close}.
        @raise ValueError: if a value is negative, not finite or too long; then nothing is done.
        """
        goodbye = wire.Goodbye(reason, retryAfter, spread)
        wire.encode(goodbye)
        limit = self.linkConfig.limits.closeTimeout
        wait = grace if limit is None else min(grace, limit / 2)
        if not 0 <= wait < inf:
            raise ValueError(f"grace is {grace!r}: it must be 0 seconds or more, and finite")
        self._draining = True
        links = self._established()
        for link in links:
            told = link.isUp and sayGoodbye(link, goodbye)
            if not (told and wait and link.generation in self.peers):
                link.close()
        gone = DeferredList([link.whenGone() for link in links])
        if not gone.called:
            left = None if limit is None else limit - wait
            call = self.linkConfig.clock.callLater(wait, _closeAll, links, left)
            gone.addCallback(lambda _: cancelCalls(call))
        return gone

    def _established(self) -> list[Link]:
        return [link for link in self._registry.links if link.state is not LinkState.NEW]

    def _reject(self, addr: Any, reason: str) -> RejectedConnection:
        config = self.linkConfig
        config.batcher.counters.turnedAway += 1
        if isinstance(reason, LimitReached):
            config.events.counters.limits[reason.limit] += 1

        def announce(others: int) -> None:
            cause, peer = ClosedHere(f"refused: {reason}"), peerName(addr)
            log = config.events.log
            log.write("refused", LogLevel.warn, peer=peer, cause=cause, others=others)

        self._registry.refusalLog.log(ClosedHere, config.seconds(), config.wheel, announce)
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
