# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link needs from what is around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ..core.causes import Cause, SendStalled
    from ..core.wire.negotiation import Negotiated
    from .link import Link


class PingLimit(Protocol):
    """
    Counts the pings that each of many peers sends.
    """

    def spend(self, link: Link, emptyAt: float | None) -> float:
        """
        Count a ping of a link's peer, and end the link if its peer had none left.

        @param emptyAt: what the last call has returned; L{None} for the first ping.
        """


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
    """

    @property
    def queueMatters(self) -> bool:
        """Whether bytes in the kernel's send queue alone count as waiting."""

    def noticeClose(self) -> bool:
        """Find out whether another party has begun to close the connection."""

    def writesDrained(self) -> None:
        """Nothing waits in the transport's buffer any more."""

    def writesStalled(self, cause: SendStalled) -> None:
        """The peer's kernel has taken nothing for C{Limits.sendStall}."""


class Promise(Protocol):
    """
    How soon this end has to speak by itself.
    """

    @property
    def promisedWithin(self) -> float:
        """
        Seconds after this end's last word within which it has to speak again, whatever is paused,
        held back or queued here; C{inf} if the peer relies on nothing.
        """


class Session(Protocol):
    """
    What a link needs from the built-in protocol, see
    L{HeartbeatSession<twisted_heartbeat.protocol.session.HeartbeatSession>}.

    @ivar negotiated: what both hellos come to.
    @ivar peerName: what the peer calls itself.
    @ivar expectedPong: the bytes that answer the last ping; L{None} once they have come.
    @ivar lastSentAt: when this end last said something other than a ping, in seconds.
    """

    negotiated: Negotiated | None
    peerName: str
    expectedPong: bytes | None
    lastSentAt: float

    @property
    def localHello(self) -> Promise:
        """What this end has promised."""

    def markSent(self) -> None:
        """Note that this end has just said something."""

    def sendHeartbeat(self) -> None:
        """Send a heartbeat that the peer need not answer."""

    def sendGoodbye(self) -> None:
        """Say that this end closes the connection."""


class OuterProtocol(Protocol):
    """
    The protocol that the transport calls: the protocol itself, or its wrapper.
    """

    def connectionLost(self, reason: Failure) -> None:
        """As C{IProtocol}."""
