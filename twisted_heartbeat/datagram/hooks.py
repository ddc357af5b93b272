# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DatagramHooks}: what the application is told of the peers of a monitor, or of the monitors of a
sender.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..link.hooks import LinkHooks

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .peer import DatagramPeer


class DatagramHooks(LinkHooks):
    """
    The hooks of L{LinkHooks<twisted_heartbeat.LinkHooks>} for datagrams, and one more.  Objects
    without that method can be hooks, too.

    The hooks get a L{DatagramPeer}, or in a sender a L{Monitor}, where those of links get a link.
    None of them is waited for.
    """

    def readingReceived(self, peer: DatagramPeer, reading: bytes) -> object:
        """
        A heartbeat had a payload.  It is told once, also if the datagram was duplicated; a reading
        whose datagram was lost, or was overtaken by a later one, is not told.

        @param reading: 1 to 512 bytes.
        """

    def connected(self, peer: DatagramPeer) -> object:  # type: ignore[override]
        """
        A peer has proven that it lives now, in a session that is new.
        """

    def suspected(self, peer: DatagramPeer) -> object:  # type: ignore[override]
        """
        The next heartbeat is overdue by half of what the bound leaves for it.
        """

    def recovered(self, peer: DatagramPeer) -> object:  # type: ignore[override]
        """
        A suspected peer was heard.
        """

    def disconnected(self, peer: DatagramPeer, cause: Cause) -> object:  # type: ignore[override]
        """
        A peer is silent, has said goodbye, or has restarted.
        """


def readingHooks(hooks: tuple[object, ...]) -> list[Callable[[DatagramPeer, bytes], object]]:
    """
    Return the methods of these hooks that take readings.
    """
    found = (getattr(each, "readingReceived", None) for each in hooks)
    return [each for each in found if each is not None]
