# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link needs from what is around it.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.python.failure import Failure


class HeartbeatSender(Protocol):
    """
    How a protocol speaks by itself: alike on all links of a factory.

    @ivar promisedWithin: seconds after this end's last word in which it has to say something,
        whatever is paused, held back or queued here; C{inf} if the peer relies on nothing.
    """

    @property
    def promisedWithin(self) -> float:
        """See above."""

    def sendHeartbeat(self, protocol: Any) -> object:
        """Say something."""

    def sendGoodbye(self, protocol: Any) -> object:
        """Say goodbye to the peer."""


class Door(Protocol):
    """
    Through which a link's protocol hears that it is lost.
    """

    def connectionLost(self, reason: Failure) -> None:
        """As C{IProtocol}."""
