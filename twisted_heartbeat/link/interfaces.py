# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link needs from what is around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ..core.causes import Cause, SendStalled
    from .link import Link


class Owner(Protocol):
    """
    Who made a link, and wants to hear of its turns.
    """

    def linkReady(self, link: Link) -> None:
        """The link is established, its TLS handshake included."""

    def linkProven(self, link: Link) -> None:
        """The peer has said what proves the link, see L{Link.proofHeard}, unless its end revokes
        that."""

    def linkLost(self, link: Link, cause: Cause) -> None:
        """The link has ended: have it L{cleaned up<Link.cleanUp>}."""

    def linkClosing(self, link: Link) -> None:
        """The link has begun to close, and is not usable any more."""

    def pingLimitReached(self, link: Link) -> None:
        """The peer has sent as many pings as it had left, and one more."""


class WatchListener(Protocol):
    """
    What a L{PeerWatch<twisted_heartbeat.link.watch.PeerWatch>} tells its link.
    """

    def peerSuspected(self) -> None:
        """The peer has not answered a ping for half of the timeout."""

    def peerRecovered(self) -> None:
        """The suspected peer has spoken, or no longer needs to."""

    def peerSilent(self, diagnose: Callable[[], Cause], now: float) -> None:
        """
        The peer was silent for the whole bound.

        @param diagnose: returns the cause.  It asks the kernel, which takes longer than to decide;
            a thousand peers may be found dead in one tick.
        """

    def pingFailed(self, error: BaseException) -> None:
        """The ping raised, so the stream may have a hole.  Called inside of C{except}."""


class WriteListener(Protocol):
    """
    What a L{WriteTracker<twisted_heartbeat.link.writes.WriteTracker>} needs from its link.

    @ivar queueMatters: whether bytes in the kernel's send queue alone count as waiting.
    """

    @property
    def queueMatters(self) -> bool:
        """See above."""

    def noticeClose(self) -> bool:
        """Find out whether another party has begun to close the connection."""

    def writesDrained(self) -> None:
        """Nothing waits in the transport's buffer any more."""

    def writesStalled(self, cause: SendStalled) -> None:
        """The peer's kernel has taken nothing for C{Limits.sendStall}."""


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
