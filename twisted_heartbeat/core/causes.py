# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Cause}: why a link ended, as exception classes that subclass Twisted's own.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Self

from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, NoRouteError

from .text import printable, textOf

if TYPE_CHECKING:
    from .evidence import Evidence


class RetryPace(Enum):
    """
    How soon to retry after a cause.
    """

    NORMAL = "normal"
    """With the usual backoff."""

    SLOW = "slow"
    """Never soon, because a route, a name or a certificate is not mended in a second."""

    NEVER = "never"
    """Not at all, because only a person can mend the fault."""


class GoodbyeCode(IntEnum):
    """
    What a goodbye means to the peer that receives it.  An unknown number is read as L{CLOSING}.
    """

    CLOSING = 0
    """Nothing is wrong; come back as usual."""

    REFUSED = 1
    """You may not be here: come back slowly, if at all."""

    NAME_IN_USE = 2
    """Another link has your name, and its peer is alive: come back slowly."""

    TOO_MANY_PINGS = 3
    """Ping half as often from now on."""

    MOVED = 4
    """The sender of datagrams reports to another monitor from now on.  On a link: L{CLOSING}."""


class Cause(Exception):
    """
    Why a link ended, or an attempt failed.

    @ivar summary: what C{str} returns for a cause without words.  It can not be the docstring,
        because C{python -OO} removes docstrings.
    @ivar pace: how soon to retry.
    @ivar fleetWide: whether all clients of the same peer are likely to see this cause in the same
        instant, so that their first retries have to be spread.
    @ivar isVerdict: whether this side found the peer dead by it.  By any other cause the end was
        said or seen.
    @ivar rejectedByPeer: whether the peer has refused this side.  A refusal proves no link.
    @ivar evidence: what the kernel knew; L{None} where the platform does not say.
    @ivar goodbyeCode: the code of the goodbye, if one of the two sides has said goodbye.
    @ivar retryAfter: seconds after which, by that goodbye, a new link is welcome.
    @ivar osError: the error number, as Twisted's C{ConnectError} has it.
    @ivar limit: the setting whose limit the peer has passed, a field of L{Limits
        <twisted_heartbeat.core.settings.Limits>} or L{ServerLimits
        <twisted_heartbeat.core.settings.ServerLimits>}; L{None} if it has passed none.
    """

    summary: str = "Why a link ended, or an attempt failed."
    pace: RetryPace = RetryPace.NORMAL
    fleetWide: bool = False
    isVerdict: bool = False
    rejectedByPeer: bool = False
    evidence: Evidence | None = None
    goodbyeCode: GoodbyeCode | None = None
    retryAfter: float = 0.0
    osError: int | None = None
    limit: str | None = None

    def __init__(self, words: str = "", *, evidence: Evidence | None = None) -> None:
        """
        @param words: what happened, for a reader of the log.  Text of the peer's is made
            L{printable}.
        """
        self.words = printable(textOf(words))
        Exception.__init__(self, self.words)
        if evidence is not None:
            self.evidence = evidence

    def withLimit(self, limit: str | None) -> Self:
        """
        Name the limit that the peer has passed.

        @return: this cause.
        """
        self.limit = limit
        return self

    def add(self, words: str) -> None:
        """
        Add to the words of this cause.
        """
        self.words = f"{self}; {words}"
        self.args = (self.words,)

    def __str__(self) -> str:
        return self.words or self.summary


class PeerSilent(Cause, ConnectionLost):
    """
    The peer said nothing for the whole bound.
    """

    summary = "The peer said nothing for the whole bound."
    isVerdict = True


class PeerHung(PeerSilent):
    """
    The peer's kernel answers, its process does not.
    """

    summary = "The peer's kernel answers, its process does not."


class CheckInMissed(PeerSilent):
    """
    No check-in came within the period and the grace time, or a run did not end in time.

    @ivar address: the address of the last check-in, as text; L{None} if there was none.
    """

    summary = "No check-in came within the period and the grace time."

    def __init__(
        self, words: str = "", *, evidence: Evidence | None = None, address: str | None = None
    ) -> None:
        super().__init__(words, evidence=evidence)
        self.address = address


class CheckInFailed(Cause, ConnectionLost):
    """
    A check-in said that its job failed.

    @ivar status: the job's exit status; L{None} if it did not say.
    @ivar address: the address of the check-in, as text.
    """

    summary = "A check-in said that its job failed."

    def __init__(
        self, words: str = "", *, status: int | None = None, address: str | None = None
    ) -> None:
        super().__init__(words)
        self.status = status
        self.address = address


class KeepAliveExpired(Cause, ConnectionLost):
    """
    The system's keepalive or retransmission got no answer (ETIMEDOUT).
    """

    summary = "The system's keepalive or retransmission got no answer (ETIMEDOUT)."
    isVerdict = True


class PeerReset(Cause, ConnectionLost):
    """
    The peer's host no longer knows the connection (ECONNRESET).
    """

    summary = "The peer's host no longer knows the connection (ECONNRESET)."
    fleetWide = True


class HostUnreachable(Cause, ConnectionLost, NoRouteError):
    """
    No way to the peer's host (EHOSTUNREACH).
    """

    summary = "No way to the peer's host (EHOSTUNREACH)."
    pace = RetryPace.SLOW
    isVerdict = True


class NetworkUnreachable(Cause, ConnectionLost, NoRouteError):
    """
    No way to the peer's network (ENETUNREACH).
    """

    summary = "No way to the peer's network (ENETUNREACH)."
    pace = RetryPace.SLOW
    isVerdict = True


class SendFailed(Cause, ConnectionLost):
    """
    A message could not be encoded, or the kernel refused it (EPIPE).
    """

    summary = "A message could not be encoded, or the kernel refused it (EPIPE)."


class SendStalled(Cause, ConnectionLost):
    """
    The send buffer made no progress.
    """

    summary = "The send buffer made no progress."
    isVerdict = True
    limit = "sendStall"


class LinkLost(Cause, ConnectionLost):
    """
    The connection was lost, and the transport does not say why.
    """

    summary = "The connection was lost, and the transport does not say why."
    fleetWide = True


class PeerClosed(Cause, ConnectionDone):
    """
    The peer closed the connection (FIN).

    @ivar goodbyeCode: the code of the peer's goodbye; L{None} if the peer has sent none.
    @ivar retryAfter: seconds after which, by the goodbye, a new link is welcome.
    @ivar spread: seconds, counted from then, over which all peers with this goodbye should spread.
    """

    summary = "The peer closed the connection (FIN)."
    fleetWide = True

    def __init__(
        self,
        words: str = "",
        *,
        evidence: Evidence | None = None,
        goodbyeCode: GoodbyeCode | None = None,
        retryAfter: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        super().__init__(words, evidence=evidence)
        self.goodbyeCode = goodbyeCode
        self.retryAfter = retryAfter
        self.spread = spread
        if goodbyeCode in (GoodbyeCode.REFUSED, GoodbyeCode.NAME_IN_USE):
            self.rejectedByPeer = True
            self.pace = RetryPace.SLOW


class ClosedHere(Cause, ConnectionDone):
    """
    This side closed the connection.
    """

    summary = "This side closed the connection."


class ConnectFailed(Cause, ConnectError):
    """
    No connection was made, or it was rejected before it was used.
    """

    summary = "No connection was made, or it was rejected before it was used."


class HandshakeFailed(Cause, ConnectionLost, ConnectError):
    """
    The TLS handshake failed.
    """

    summary = "The TLS handshake failed."
    pace = RetryPace.SLOW


class ProtocolViolation(Cause, ConnectionLost):
    """
    The peer broke the protocol, or passed a limit.
    """

    summary = "The peer broke the protocol, or passed a limit."
    pace = RetryPace.SLOW


class PermanentFailure(Cause, ConnectError):
    """
    Raised by the user to stop retrying: no further attempt can succeed.
    """

    summary = "Raised by the user to stop retrying: no further attempt can succeed."
    pace = RetryPace.NEVER
