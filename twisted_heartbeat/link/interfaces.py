# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link needs from what is around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.python.failure import Failure

if TYPE_CHECKING:
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
    @ivar goodbyeSaid: whether either end has said goodbye, so that this end says nothing more.
    """

    negotiated: Negotiated | None
    peerName: str
    expectedPong: bytes | None
    lastSentAt: float
    goodbyeSaid: bool

    @property
    def localHello(self) -> Promise:
        """What this end has promised."""

    def markSent(self) -> None:
        """Note that this end has just said something."""

    def promiseDue(self, pingedAt: float) -> float:
        """
        When this end has to say something, because the peer would otherwise take it for dead.

        @param pingedAt: when this end last pinged, which is a word, too.
        """

    def keepPromise(self, now: float) -> None:
        """Say something, because that is due."""

    def sendGoodbye(self) -> None:
        """Say that this end closes the connection."""


class OuterProtocol(Protocol):
    """
    The protocol that the transport calls: the protocol itself, or its wrapper.
    """

    def connectionLost(self, reason: Failure) -> None:
        """As C{IProtocol}."""
