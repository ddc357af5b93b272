# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkOwner}: what a link tells the object that made it.  L{UnmanagedOwner} owns the links that no
client and no server manages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..transport.proxyheader import isHealthCheck

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .link import Link


class LinkOwner:
    """
    The owner of a link.  A subclass overrides what it needs; L{linkLost} it must.

    Each method is called once for a link.  A link may be handed on to another owner by assigning
    C{link.owner}.
    """

    __slots__ = ()

    def linkReady(self, link: Link) -> None:
        """
        Handle that the link is established, with its TLS handshake.
        """

    def linkProven(self, link: Link) -> None:
        """
        Handle that the peer has sent what proves the link, see L{twisted_heartbeat.link.proof}.
        The way in which the link ends may revoke that.
        """

    def linkClosing(self, link: Link) -> None:
        """
        Handle that the link has begun to close.  It can no longer be used.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        Handle that the link has ended.  The owner calls C{link.teardown.cleanUp()}, now or later.
        """
        raise NotImplementedError


class UnmanagedOwner(LinkOwner):
    """
    The owner of a link of the mix-in or of C{HeartbeatFactory}, until the link is connected.
    """

    __slots__ = ()

    def linkReady(self, link: Link) -> None:
        if isHealthCheck(link.transport):
            return
        session = link.session
        if session is not None and session.negotiated is None and link.isServerSide:
            # Otherwise a port scan would have two events in the log for each connection.
            link.owner = _GREETING
        else:
            _connect(link)

    def linkLost(self, link: Link, cause: Cause) -> None:
        link.teardown.cleanUp(link.config.strangers if link.isServerSide else None)


class _GreetingOwner(UnmanagedOwner):
    """
    The owner of an accepted link of the built-in protocol, until its peer says hello.
    """

    __slots__ = ()

    def linkProven(self, link: Link) -> None:
        _connect(link)


class _ConnectedOwner(UnmanagedOwner):
    """
    The owner of the same link once it is connected.
    """

    __slots__ = ()

    def linkLost(self, link: Link, cause: Cause) -> None:
        link.teardown.cleanUp()


_GREETING = _GreetingOwner()
_CONNECTED = _ConnectedOwner()


def _connect(link: Link) -> None:
    link.owner = _CONNECTED
    link.announceConnected()
