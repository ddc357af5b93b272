# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerRegistry}: the links of a server, and how many of them there may be.

Each link is in a table, by generation:

 - C{pending}: counted, and not yet admitted;
 - C{peers}: counted, and admitted;
 - C{overLimit}: not counted, because there was no room or because it is refused;
 - C{closing}: not counted any more, because it has begun to close.

A new link begins in C{pending}, or in C{overLimit} if the server is full.  From there it moves to
C{pending} if there is room when its peer has said hello.  A link that begins to close leaves the
counted tables in the reactor's next turn, and every table when it has ended.

A link that is counted may have a newcomer of the same name behind it, see L{NameQueue}.  When it is
counted no longer, its place goes to that newcomer at once; otherwise other newcomers could take the
place while its cleanups run.

A server may have tens of thousands of links.  Their networks, which count only where networks are
limited, are therefore kept in a dictionary, and not on the link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core import wire
from ..core.causes import GoodbyeCode, ProtocolViolation
from ..link.addresses import networkOf
from ..link.owner import LinkOwner
from ..link.state import LinkState
from ..logs import LogRateLimit
from ..protocol.heartbeat import HeartbeatProtocol
from ..transport.proxyheader import awaitsHeader, isHealthCheck

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.settings import ServerLimits
    from ..link.link import Link
    from .names import NameQueue


MAX_POLITE_REFUSALS = 32
"""
Links over the limit whose connections are kept open at a time, until the peer has read why it is
refused, or until the holder of its name has ended.  Further ones are closed at once.
"""

REFUSAL_LOG_INTERVAL = 1.0
"""Seconds between two events of the log about connections that were closed at once."""


class PeerRegistry(LinkOwner):
    """
    The links of a server, and the owner of those that are admitted.

    @ivar peers: the admitted links, by generation.
    @ivar pending: the links that are counted and not yet admitted.
    @ivar overLimit: the links for which there is no room, that are refused, or that pinged too
        often.
    @ivar closing: the other links that are closing.
    @ivar proxied: whether links have come through a load balancer.  The address of a new connection
        may then be the load balancer's, so that a link is counted by its network only once it is
        ready.
    @ivar strangers: the number of links that ended before their peer said hello, or that never were
        a peer's.
    @ivar refusalLog: limits the events about connections that are closed at once.
    """

    def __init__(self, limits: Callable[[], ServerLimits], names: NameQueue) -> None:
        """
        @param limits: returns the limits that hold at this time.
        """
        self._limits = limits
        self._names = names
        self.peers: dict[int, Link] = {}
        self.pending: dict[int, Link] = {}
        self.overLimit: dict[int, Link] = {}
        self.closing: dict[int, Link] = {}
        self.proxied = False
        self.strangers = 0
        self.refusalLog = LogRateLimit(REFUSAL_LOG_INTERVAL)
        self._networks: dict[int, str] = {}
        self._connectedFrom: Counter[str] = Counter()
        self._newlyClosing: list[Link] = []

    # The tables.

    def add(self, link: Link, network: str | None, *, overLimit: bool) -> None:
        """
        Add a new link.

        @param network: the peer's, where the peers of a network are counted.
        @param overLimit: whether there is no room for the link.
        """
        if overLimit:
            self.overLimit[link.generation] = link
        else:
            self._count(link, network)

    def admit(self, link: Link) -> None:
        """
        Move a link from the pending to the admitted ones, take over its ownership, and announce it
        as connected.
        """
        self.peers[link.generation] = self.pending.pop(link.generation)
        if not self.pending:
            # An emptied dictionary keeps the size that thousands of newcomers gave it.
            self.pending.clear()
        link.owner = self
        link.announceConnected()

    def refuse(self, link: Link, goodbye: wire.Goodbye) -> None:
        """
        Say goodbye, and close a link.  Unless too many are over the limit, its connection stays
        open until the peer has read the goodbye.
        """
        sayGoodbye(link, goodbye)
        self.overLimit[link.generation] = link
        link.close(lingers=not self.isOverfull)

    def forget(self, link: Link) -> None:
        """
        Remove a link that has ended.
        """
        generation = link.generation
        self._uncount(link)
        self.overLimit.pop(generation, None)
        self.closing.pop(generation, None)

    def strangerLeft(self, link: Link) -> None:
        """
        Count and clean up a link that has ended before its peer was known.
        """
        self.strangers += 1
        link.teardown.cleanUp(link.config.strangers)

    @property
    def links(self) -> list[Link]:
        """
        All links, the oldest first.
        """
        links = self.peers | self.pending | self.overLimit | self.closing
        return [links[generation] for generation in sorted(links)]

    # The limits.

    def refusalReason(self, network: str | None, without: Link | None = None) -> str:
        """
        Return why there is no room for one more link; an empty string if there is room.

        @param network: the new link's.
        @param without: a link that is not to be counted.
        """
        limits = self._limits()
        connected = len(self.peers) + len(self.pending)
        connectedFrom = 0 if network is None else self._connectedFrom[network]
        if without is not None and self._isCounted(without):
            connected -= 1
            isNear = network is not None and self._networks.get(without.generation) == network
            connectedFrom -= isNear
        if limits.peers is not None and connected >= limits.peers:
            words = f"{connected} peers are connected, and no more than {limits.peers} may be"
            return LimitReached(words, "peers")
        most = limits.peersPerAddress
        if most is not None and connectedFrom >= most:
            words = f"{connectedFrom} peers are connected from {network}"
            return LimitReached(f"{words}, and no more than {most} may be", "peersPerAddress")
        return ""

    def countNetworks(self) -> None:
        """
        Count the networks of all links anew, because the limits have changed.
        """
        self._networks.clear()
        self._connectedFrom.clear()
        for link in (*self.peers.values(), *self.pending.values()):
            if not awaitsHeader(link.transport):
                self._enterNetwork(link, self._networkOf(link))

    def reserve(self, link: Link) -> str:
        """
        Count a link that was over the limit, if there is room now.

        @return: why there is no room; an empty string if the link is counted.
        """
        if link.generation not in self.overLimit:
            return ""
        network = self._networkOf(link)
        reason = self.refusalReason(network)
        if not reason:
            del self.overLimit[link.generation]
            self._count(link, network)
        return reason

    def mayReplaceHolder(self, link: Link) -> bool:
        """
        Whether there would be room for a link without the holder of its name, which may be the
        ghost of the same peer.
        """
        holder = self._names.holder(link.name) if link.name else None
        return holder is not None and not self.refusalReason(self._networkOf(link), holder)

    @property
    def isOverfull(self) -> bool:
        """
        Whether more links are over the limit than may be told why.
        """
        return len(self.overLimit) > MAX_POLITE_REFUSALS

    # The load balancer's header.

    def awaitHeader(self, link: Link) -> None:
        """
        Do not count a link in the network of its load balancer.
        """
        self.proxied = True
        if self._isCounted(link):
            self._uncount(link)
            self._count(link, None)

    def headerReceived(self, link: Link) -> None:
        """
        Count a link in its peer's own network, if there is room.
        """
        self._uncount(link)
        self.overLimit[link.generation] = link
        self.reserve(link)

    def _networkOf(self, link: Link) -> str | None:
        counts = self._limits().peersPerAddress is not None
        return networkOf(link.peer) if counts and not isHealthCheck(link.transport) else None

    def _isCounted(self, link: Link) -> bool:
        return link.generation in self.peers or link.generation in self.pending

    def _count(self, link: Link, network: str | None) -> None:
        self.pending[link.generation] = link
        self._enterNetwork(link, network)

    def _enterNetwork(self, link: Link, network: str | None) -> None:
        if network is not None:
            self._networks[link.generation] = network
            self._connectedFrom[network] += 1

    def _uncount(self, link: Link) -> None:
        generation = link.generation
        if not self._isCounted(link):
            return
        self.peers.pop(generation, None)
        self.pending.pop(generation, None)
        network = self._networks.pop(generation, None)
        if network is not None:
            self._connectedFrom[network] -= 1
            if not self._connectedFrom[network]:
                del self._connectedFrom[network]
        successor = self._names.next(link)
        if successor is not None:
            self.reserve(successor)

    # What an admitted link tells its owner.

    def linkLost(self, link: Link, cause: Cause) -> None:
        self.forget(link)
        link.teardown.cleanUp()
        if link.name:
            # Sooner, the next holder of the name would be connected during these cleanups.
            link.whenGone().addCallback(lambda _: self._names.leave(link))

    def linkClosing(self, link: Link) -> None:
        # Not from here: the caller may be iterating over the peers.
        self._newlyClosing.append(link)
        if len(self._newlyClosing) == 1:
            link.wheel.callSoon(self._uncountClosing)

    def _uncountClosing(self) -> None:
        links, self._newlyClosing = self._newlyClosing, []
        for link in links:
            if link.state is LinkState.CLOSING:
                self._uncount(link)
                if link.generation not in self.overLimit:
                    self.closing[link.generation] = link
            self._names.linkClosing(link)

    def endFlood(self, perSecond: int, link: Link) -> None:
        """
        Close the link of a peer that has passed its L{PingRateLimit}.

        @param perSecond: the limit that the link began with.
        """
        words = f"the peer sent more than {perSecond} pings in a second, and has none saved"
        link.recordCause(ProtocolViolation(words).withLimit("pingsPerSecond"))
        self.refuse(link, wire.Goodbye("too many pings", code=GoodbyeCode.TOO_MANY_PINGS))


class LimitReached(str):
    """
    Why there is no room for a peer, in words.

    @ivar limit: the field of L{ServerLimits<twisted_heartbeat.core.settings.ServerLimits>}.
    """

    limit: str

    def __new__(cls, words: str, limit: str) -> LimitReached:
        made = super().__new__(cls, words)
        made.limit = limit
        return made


def sayGoodbye(link: Link, goodbye: wire.Goodbye) -> bool:
    """
    Send a goodbye to a link's peer, if its protocol is the built-in one.

    @return: whether it is.
    """
    if not isinstance(link.protocol, HeartbeatProtocol):
        return False
    link.protocol.sayGoodbye(goodbye)
    return True
