# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerRegistry}: who is in a server, and who is on the way in.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..core import wire
from ..core.causes import GoodbyeCode, ProtocolViolation
from ..logs import LogRateLimit
from ..timing.wheel import timerWheelFor
from .admission import sayGoodbye
from .networks import networkOf
from .ratelimit import PingRateLimit

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link
    from .admission import Admission, AdmissionPolicy


MAX_POLITE_REFUSALS = 32
"""
Peers for which there is no room that are kept at a time, until they have read why, or until the
holder of their name has ended.  Others beside them are cut off.
"""

CUT_OFF_INTERVAL = 1.0
"""Seconds between two events of the log about peers that were cut off."""


class PeerRegistry:
    """
    Who is in a server, and who is on the way in.  It owns the links of those who are in.

    They may be many, so what only some have is kept in tables, by generation: a place in a row, a
    count of their pings, where they are.

    Those who want one name stand in a row, of which the first alone may be in.

    @ivar peers: the links of those who are in, by generation.
    @ivar pending: the links of those who are counted, and not yet in.
    @ivar overLimit: the links that are refused, that were pinging too often, or for which there is
        no room, until they are gone.
        They are not counted.
    @ivar closing: the other links that are closing: they count for no limit, and have no name.
    @ivar proxied: whether links have come by way of a load balancer, so that where a peer is can be
        told no sooner than its link is ready.
    @ivar strangers: how many have left before their hello, or without ever being a peer.
    @ivar cutOffs: limits the events about peers that are cut off.
    @ivar claims: the last of those who want a name, by name.
    @ivar ahead: the one right ahead in the row, by generation.
    """

    def __init__(self, server: AdmissionPolicy) -> None:
        self._server = server
        self.peers: dict[int, Link] = {}
        self.pending: dict[int, Link] = {}
        self.overLimit: dict[int, Link] = {}
        self.closing: dict[int, Link] = {}
        self.claims: dict[str, Link] = {}
        self.ahead: dict[int, Link] = {}
        self.proxied = False
        self.strangers = 0
        self.cutOffs = LogRateLimit(CUT_OFF_INTERVAL)
        self._behind: dict[int, Admission] = {}
        self._networks: dict[int, str] = {}
        self._there: Counter[str] = Counter()
        self._bucketsEmptyAt: dict[int, float] = {}
        self._newlyClosing: list[Link] = []

    # Who is there.

    def add(self, link: Link, network: str | None, *, crowds: bool) -> None:
        """
        One more is on the way in.

        @param network: where the peer is, if those who are there are counted.
        @param crowds: whether there is no room for it.
        """
        if crowds:
            self.overLimit[link.generation] = link
        else:
            self._count(link, network)

    def admit(self, link: Link) -> None:
        """
        It is in, and its way in is behind it.
        """
        self.peers[link.generation] = self.pending.pop(link.generation)
        if not self.pending:
            # An empty dictionary keeps its room, and a crowd needs much.
            self.pending.clear()
        link.owner = self
        link.announceConnected()

    def refuse(self, link: Link) -> bool:
        """
        Count a link among the refused.

        @return: whether its connection can be kept open until the peer has read why.
        """
        self.overLimit[link.generation] = link
        return len(self.overLimit) <= MAX_POLITE_REFUSALS

    def forget(self, link: Link) -> None:
        """
        It is gone, and only its place in the row is left.
        """
        generation = link.generation
        self._uncount(link)
        self.overLimit.pop(generation, None)
        self.closing.pop(generation, None)
        self._bucketsEmptyAt.pop(generation, None)

    def strangerLeft(self, link: Link) -> None:
        """
        Count a link that has ended before its peer was known, and clean up after it.
        """
        self.strangers += 1
        link.cleanUpStranger()

    # How many there may be.

    def full(self, network: str | None, without: Link | None = None) -> str:
        """
        Why there is no room for one more.

        @param network: where it is.
        @param without: a link that is to be thought away.
        """
        limits, here, there = self._server.serverLimits, self.here, self.there(network)
        if without is not None and self._isCounted(without):
            here -= 1
            there -= network is not None and self._networks.get(without.generation) == network
        if limits.peers is not None and here >= limits.peers:
            return f"{here} peers are connected, and no more than {limits.peers} may be"
        if limits.peersPerAddress is not None and there >= limits.peersPerAddress:
            most = limits.peersPerAddress
            return f"{there} peers are connected from {network}, and no more than {most} may be"
        return ""

    def seat(self, link: Link) -> str:
        """
        Count a link for which there was no room, if there is room by now.

        @return: why there is still none.
        """
        if link.generation not in self.overLimit:
            return ""
        network = self._networkOf(link)
        full = self.full(network)
        if not full:
            del self.overLimit[link.generation]
            self._count(link, network)
        return full

    def crowded(self, link: Link) -> bool:
        """
        Whether it is one of too many for which there is no room.
        """
        return link.generation in self.overLimit and len(self.overLimit) > MAX_POLITE_REFUSALS

    def mayReplace(self, link: Link) -> bool:
        """
        Whether there would be room for a link if the holder of its name, which may be the same
        peer's ghost, were gone.
        """
        holder = self._firstIn(link.name) if link.name else None
        return holder is not None and not self.full(self._networkOf(link), holder)

    def awaitHeader(self, link: Link) -> None:
        """
        Do not count a link at the address of its load balancer.
        """
        self.proxied = True
        if self._isCounted(link):
            self._uncount(link)
            self._count(link, None)

    def headerReceived(self, link: Link) -> None:
        """
        Count a link at its peer's own address, if there is room.
        """
        self._uncount(link)
        self.overLimit[link.generation] = link
        self.seat(link)

    def _networkOf(self, link: Link) -> str | None:
        counts = self._server.serverLimits.peersPerAddress is not None
        return networkOf(link.peer) if counts and not link.isHealthCheck else None

    def _isCounted(self, link: Link) -> bool:
        return link.generation in self.peers or link.generation in self.pending

    def _count(self, link: Link, network: str | None) -> None:
        self.pending[link.generation] = link
        if network is not None:
            self._networks[link.generation] = network
            self._there[network] += 1

    def _uncount(self, link: Link) -> None:
        generation = link.generation
        if not self._isCounted(link):
            return
        self.peers.pop(generation, None)
        self.pending.pop(generation, None)
        network = self._networks.pop(generation, None)
        if network is not None:
            self._there[network] -= 1
            if not self._there[network]:
                del self._there[network]
        heir = self._behind.get(generation)
        if heir is not None:
            # At once, because its place could otherwise be gone before its cleanups have finished.
            self.seat(heir.link)

    @property
    def links(self) -> list[Link]:
        """
        All of them, the first that came first.
        """
        links = self.peers | self.pending | self.overLimit | self.closing
        return [links[generation] for generation in sorted(links)]

    @property
    def here(self) -> int:
        """
        How many there are, without those that are refused or closing.
        """
        return len(self.peers) + len(self.pending)

    def there(self, network: str | None) -> int:
        """
        How many of them are in a network.
        """
        return 0 if network is None else self._there[network]

    # Whose a name is.

    def named(self, name: str) -> Link | None:
        """
        Who is in, and has that name.
        """
        link = self._firstIn(name)
        return link if link is not None and link.isUp and link.generation in self.peers else None

    def _firstIn(self, name: str) -> Link | None:
        """
        The first in the row of those who want a name.
        """
        link = self.claims.get(name)
        while link is not None and link.generation in self.ahead:
            link = self.ahead[link.generation]
        return link

    def claim(self, claimant: Admission) -> None:
        """
        One more wants its name, if it has one.
        """
        link = claimant.link
        if link.name:
            ahead = self.claims.get(link.name)
            if ahead is not None:
                self._stand(claimant, ahead)
            self.claims[link.name] = link

    def leaveRow(self, link: Link) -> None:
        """
        It wants its name no more.
        """
        ahead = self.ahead.pop(link.generation, None)
        behind = self._behind.pop(link.generation, None)
        if ahead is not None:
            del self._behind[ahead.generation]
        if behind is not None:
            del self.ahead[behind.link.generation]
            if ahead is not None:
                self._stand(behind, ahead)
            # Not from here: those who stand in one row may be many.
            timerWheelFor(self._server.terms.clock).callSoon(behind.settle)
        elif ahead is not None:
            self.claims[link.name] = ahead
        elif self.claims.get(link.name) is link:
            del self.claims[link.name]

    def _stand(self, claimant: Admission, ahead: Link) -> None:
        self.ahead[claimant.link.generation] = ahead
        self._behind[ahead.generation] = claimant

    # What the links of those who are in tell their owner.

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """

    def linkProven(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self.forget(link)
        link.cleanUp()
        if link.name:
            # Whoever is to have its name has to wait for its cleanups.
            link.whenGone().addCallback(lambda _: self.leaveRow(link))

    def linkClosing(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        # Not from here: the caller may be going through the peers.
        self._newlyClosing.append(link)
        if len(self._newlyClosing) == 1:
            timerWheelFor(self._server.terms.clock).callSoon(self._uncountClosing)

    def _uncountClosing(self) -> None:
        """
        Count the links that have begun to close no more, and have each that is next for one of
        their names wait for the cleanups only.
        """
        links, self._newlyClosing = self._newlyClosing, []
        for link in links:
            generation = link.generation
            if link.state == "closing":
                self._uncount(link)
                if generation not in self.overLimit:
                    self.closing[generation] = link
            behind = self._behind.get(generation)
            if behind is not None:
                timerWheelFor(link.clock).callSoon(behind.settle)

    def pingLimitReached(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.  The first comes here, too:
        those who never ping are not counted.
        """
        most = self._server.serverLimits.pingsPerSecond
        if most is None:
            link.pingsLeft = -1
            return
        limit, now = PingRateLimit(most), link.seconds()
        emptyAt = self._bucketsEmptyAt.get(link.generation, now - link.age - limit.BURST)
        granted, self._bucketsEmptyAt[link.generation] = limit.grant(emptyAt, now)
        if granted:
            # This one is the first of them.
            link.pingsLeft = granted - 1
            return
        words = f"the peer sent more than {most} pings in a second, and has none saved"
        link.recordCause(ProtocolViolation(words))
        sayGoodbye(link, wire.Goodbye("too many pings", code=GoodbyeCode.TOO_MANY_PINGS))
        link.close(lingers=self.refuse(link))
