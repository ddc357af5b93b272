# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link needs from the protocol that C{HeartbeatMixin} is mixed into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class MixedIn(Protocol):
    """
    What its link calls of a protocol that C{HeartbeatMixin} is mixed into, see
    L{MixedInLink<twisted_heartbeat.protocol.mixedlink.MixedInLink>}.

    The names are private and long, because the class is the application's, which may use any other.

    @cvar _readyAtHello: whether the link is in use only once the peer has said hello.  Then
        L{awaitHello} is called in place of the owner's C{linkReady}, and the protocol answers by
        L{openedByHello<twisted_heartbeat.protocol.mixedlink.MixedInLink.openedByHello>}.
    """

    def _heartbeatConnect(self, transport: Any, connect: Callable[[Any], object]) -> None:
        """
        Establish the link over a transport, and tell the protocol.

        @param connect: the protocol's own C{makeConnection}, or what stands for it.
        """

    def _heartbeatEnded(self) -> None:
        """Cancel what waits for the connection, because the connection is lost."""

    def awaitHello(self) -> None:
        """Give the peer's hello a deadline.  Only where C{_readyAtHello} is set."""
