# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServerFactory}: watches many peers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory

from .core.causes import Cause
from .net.link import Link, Owner
from .protocol import HeartbeatProtocol
from .wrapping import HeartbeatFactory


class HeartbeatServerFactory(HeartbeatFactory):
    """
    Watches whoever connects.

    @ivar peers: the links that it watches, by generation.
    """

    def __init__(self, wrappedFactory: IProtocolFactory | None = None, **settings: Any) -> None:
        """
        @param wrappedFactory: makes the protocols; those of the built-in protocol if L{None}.
        @param settings: as for L{HeartbeatFactory}.
        """
        super().__init__(wrappedFactory or Factory.forProtocol(HeartbeatProtocol), **settings)
        self.peers: dict[int, Link] = {}
        self._links: dict[int, Link] = {}

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        """
        See C{IProtocolFactory}.
        """
        protocol: Any = super().buildProtocol(addr)
        if protocol is not None:
            # Known from here, so that a link whose handshake hangs is closed with the others.
            self._links[protocol.link.generation] = protocol.link
        return protocol  # type: ignore[no-any-return]

    def owner(self) -> Owner:
        """
        It owns its links itself.
        """
        return self

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self.peers[link.generation] = link
        link.announceConnected()

    def linkSpoke(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self._links.pop(link.generation, None)
        self.peers.pop(link.generation, None)
        link.cleanUp()

    def _established(self) -> list[Link]:
        return [link for link in self._links.values() if link.state != "new"]

    def close(self) -> Deferred[Any]:
        """
        Close all links, politely.

        @return: fires when all of them are gone and cleaned up: within C{Limits.closeTimeout} and
            C{Limits.cleanupTimeout}.
        """
        return DeferredList([link.close() for link in self._established()])
