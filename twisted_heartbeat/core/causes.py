# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Why a link ended: one exception class per cause, and how to retry after it.

Each subclasses the Twisted error that the same event has always been reported as, so that
existing C{reason.check(ConnectionLost)} code keeps working.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionClosed,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)


class Pace(Enum):
    """
    How a cause is retried.
    """

    NOW = "now"
    """With backoff, and nothing more."""

    SLOWLY = "slowly"
    """What is wrong will not be gone in a second: a route, a name, a certificate."""

    NEVER = "never"
    """Nothing but a person can mend it."""


class Parting(IntEnum):
    """
    What a goodbye means to whoever hears it.  An unknown number is read as L{CLOSING}.
    """

    CLOSING = 0
    """Nothing is wrong; come back as usual."""

    REFUSED = 1
    """You may not be here: come back slowly, if at all."""

    NAME_IN_USE = 2
    """Another link has your name, and its peer is alive: come back slowly."""

    TOO_MANY_PINGS = 3
    """Ping half as often from now on."""


@dataclass(slots=True)
class Fall:
    """
    The links that one tick of the pulse found dead.

    @ivar links: how many.
    """

    links: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What the kernel knew when the link ended.  A field is L{None} where it does not say.

    Source: C{struct tcp_info}, C{linux/tcp.h}.

    @ivar sinceAck: seconds since the peer's kernel last acknowledged anything.
    @ivar sinceData: seconds since the peer's kernel last delivered data.
    @ivar unacknowledged: bytes in our kernel's queue that the peer's has not acknowledged.
    @ivar unanswered: segments on their way that the peer's kernel has not acknowledged.
    @ivar retransmits: times in a row that the oldest of them was sent again.
    @ivar window: bytes that the peer's kernel is ready to take; 0 from one that does not read.
    @ivar probes: keepalive or zero window probes in a row without an answer.
    @ivar rtt: the kernel's smoothed round-trip time, in seconds.
    """

    sinceAck: float | None = None
    sinceData: float | None = None
    unacknowledged: int | None = None
    unanswered: int | None = None
    retransmits: int | None = None
    window: int | None = None
    probes: int | None = None
    rtt: float | None = None
    _fall: Fall = field(default_factory=lambda: Fall(1), repr=False, compare=False)

    @property
    def kernelAnswers(self) -> bool:
        """
        Whether the peer's kernel has acknowledged all that it was asked to: what still waits in
        ours, waits because the peer's has no room.
        """
        answered = self.unanswered == 0 and self.retransmits == 0 and self.probes == 0
        return answered and (not self.unacknowledged or self.window == 0)

    @property
    def fellTogether(self) -> int:
        """
        How many links the same tick found dead, this one included: many mean one fault of the
        network, not many dead peers.
        """
        return self._fall.links


class Cause(Exception):
    """
    Why a link ended, or an attempt failed.

    @ivar summary: what L{str} says where there are no words.  It is no docstring, because
        C{python -OO} has none.
    @ivar pace: how to retry.
    @ivar fleetWide: whether everybody who is connected to the same peer is likely to see it in
        the same instant, so that their first retries have to be spread.
    @ivar turnedAway: whether the peer does not want us: to have heard it say so proves no link.
    @ivar evidence: what the kernel knew, or L{None} where the platform does not say.
    @ivar parting: what the goodbye meant that one of the two sides has said; L{None} if neither
        has.
    @ivar comeBackAfter: seconds after which, by that goodbye, the other side is welcome again.
    """

    summary: str = "Why a link ended, or an attempt failed."
    pace: Pace = Pace.NOW
    fleetWide: bool = False
    turnedAway: bool = False
    evidence: Evidence | None = None
    parting: Parting | None = None
    comeBackAfter: float = 0.0
    osError: int | None = None

    def __init__(self, words: str = "", *, evidence: Evidence | None = None) -> None:
        """
        @param words: what happened, for a reader of the log.  They may hold what the peer has said:
            see L{printable}.
        """
        self.words = printable(textOf(words))
        Exception.__init__(self, self.words)
        if evidence is not None:
            self.evidence = evidence

    def add(self, words: str) -> None:
        """
        Say more of what happened.
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


class PeerHung(PeerSilent):
    """
    The peer's kernel answers, its process does not.
    """

    summary = "The peer's kernel answers, its process does not."


class KeepAliveExpired(Cause, ConnectionLost):
    """
    The system's keepalive or retransmission got no answer (ETIMEDOUT).
    """

    summary = "The system's keepalive or retransmission got no answer (ETIMEDOUT)."


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
    pace = Pace.SLOWLY


class NetworkUnreachable(Cause, ConnectionLost, NoRouteError):
    """
    No way to the peer's network (ENETUNREACH).
    """

    summary = "No way to the peer's network (ENETUNREACH)."
    pace = Pace.SLOWLY


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


class LinkLost(Cause, ConnectionLost):
    """
    The connection was lost, and the transport does not say why.
    """

    summary = "The connection was lost, and the transport does not say why."
    fleetWide = True


class PeerClosed(Cause, ConnectionDone):
    """
    The peer closed the connection (FIN).

    @ivar parting: what its goodbye meant; L{None} if it has said none.
    @ivar comeBackAfter: seconds after which the peer wishes to see us again.
    @ivar spread: seconds, counted from then, over which all whom it has told so should spread.
    """

    summary = "The peer closed the connection (FIN)."
    fleetWide = True

    def __init__(
        self,
        words: str = "",
        *,
        evidence: Evidence | None = None,
        parting: Parting | None = None,
        comeBackAfter: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        super().__init__(words, evidence=evidence)
        self.parting = parting
        self.comeBackAfter = comeBackAfter
        self.spread = spread
        if parting in (Parting.REFUSED, Parting.NAME_IN_USE):
            self.turnedAway = True
            self.pace = Pace.SLOWLY


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
    pace = Pace.SLOWLY


class ProtocolViolation(Cause, ConnectionLost):
    """
    The peer broke the protocol, or passed a limit.
    """

    summary = "The peer broke the protocol, or passed a limit."
    pace = Pace.SLOWLY


class PermanentFailure(Cause, ConnectError):
    """
    Raised by the user to stop retrying: no further attempt can succeed.
    """

    summary = "Raised by the user to stop retrying: no further attempt can succeed."
    pace = Pace.NEVER


_BY_ERRNO: dict[int, type[Cause]] = {
    errno.ECONNRESET: PeerReset,
    errno.ETIMEDOUT: KeepAliveExpired,
    errno.EHOSTUNREACH: HostUnreachable,
    errno.EHOSTDOWN: HostUnreachable,
    errno.ENETUNREACH: NetworkUnreachable,
    errno.ENETDOWN: NetworkUnreachable,
    errno.EPIPE: SendFailed,
}


def causeOfErrno(number: int) -> Cause | None:
    """
    The cause that an operating system's error number names.

    @param number: as in the C{errno} module.
    @return: L{None} for a number that says nothing of the peer.
    """
    found = _BY_ERRNO.get(number)
    return None if found is None else found(f"{found.summary.rstrip('.')} [errno {number}]")


_NO_WAY: dict[int, type[Cause]] = {
    errno.EHOSTUNREACH: HostUnreachable,
    errno.EHOSTDOWN: HostUnreachable,
    errno.EACCES: HostUnreachable,
    errno.ENETUNREACH: NetworkUnreachable,
    errno.ENETDOWN: NetworkUnreachable,
    errno.EINVAL: NetworkUnreachable,
    errno.EADDRNOTAVAIL: NetworkUnreachable,
}
"""
What the routing table answers where there is no way to the peer: C{prohibit} is EACCES,
C{blackhole} EINVAL, an address of our own that has gone EADDRNOTAVAIL (measured on Linux 6.18).
"""


def causeOfSilence(number: int, evidence: Evidence | None, *, hung: bool, words: str) -> Cause:
    """
    Why a peer said nothing for the whole bound.

    @param number: what our own kernel says of the way to it, as in the C{errno} module; 0 if there
        is one.
    @param hung: whether the peer's kernel answers.
    @param words: for how long it was silent.
    """
    noWay = _NO_WAY.get(number)
    if noWay is not None:
        return noWay(f"{words}; {noWay.summary} [errno {number}]", evidence=evidence)
    if hung:
        return PeerHung(f"{words}; the peer's kernel answers", evidence=evidence)
    return PeerSilent(words, evidence=evidence)


def causeOfLoss(
    error: BaseException | None,
    *,
    number: int | None = None,
    finished: bool = False,
    closedHere: bool = False,
    handshaking: bool = False,
    reactorStopped: bool = False,
    refused: str = "",
) -> Cause:
    """
    Why an established connection was lost.

    @param error: what Twisted passed to C{connectionLost}.
    @param number: the error number that the kernel gave, where it is known.
    @param finished: whether the peer's FIN had come.
    @param closedHere: whether this side had asked for the close.
    @param handshaking: whether a TLS handshake was under way.
    @param reactorStopped: whether this side's reactor has stopped.  It disconnects all that is
        still open then, and says C{ConnectionLost}.
    @param refused: why the peer's certificate was, in words.
    """
    if isinstance(error, Cause):
        return error
    if error is not None and _isTls(error):
        return _chained(_causeOfTls(error, refused, handshaking), error)
    # A reset that follows a FIN is EPIPE on Linux, and says no more than that.
    named = causeOfErrno(number) if number and not (finished and number == errno.EPIPE) else None
    if named is not None:
        return _chained(named, error)
    if reactorStopped and not finished and isinstance(error, ConnectionLost):
        return _chained(ClosedHere("the reactor of this side has stopped"), error)
    if handshaking and not isinstance(error, ConnectionAborted):
        return _chained(_handshakeFailed(error, refused), error)
    if closedHere or isinstance(error, ConnectionAborted):
        return _chained(ClosedHere(), error)
    if isinstance(error, ConnectionDone) or (finished and isinstance(error, ConnectionClosed)):
        return _chained(PeerClosed(), error)
    if error is None or isinstance(error, ConnectionClosed):
        return _chained(LinkLost(), error)
    return _chained(ClosedHere(f"the protocol raised {inWords(error)}"), error)


def isOwnException(error: BaseException | None) -> bool:
    """
    Whether a connection was lost because the protocol raised: neither Twisted nor TLS did.

    @param error: what Twisted passed to C{connectionLost}.
    """
    known = isinstance(error, Cause | ConnectionClosed)
    return not (error is None or known or _isTls(error))


def causeOfFailure(error: BaseException | None) -> Cause:
    """
    Why an attempt failed.

    @param error: what the endpoint, or C{prepareConnection}, failed with.
    """
    if isinstance(error, Cause):
        return error
    number = getattr(error, "osError", None)
    named = causeOfErrno(number) if isinstance(number, int) else None
    if named is not None and named.pace is Pace.SLOWLY:
        return _chained(named, error)
    cause = ConnectFailed("" if error is None else inWords(error))
    if isinstance(error, ConnectionRefusedError):
        cause.fleetWide = True
    elif isinstance(error, (DNSLookupError, NoRouteError)):
        cause.pace = Pace.SLOWLY
    return _chained(cause, error)


def _causeOfTls(error: BaseException, refused: str, handshaking: bool) -> Cause:
    """
    Whatever else follows, such as the reset of one who has refused our certificate and closed.
    """
    words = inWords(error)
    # In TLS 1.3 a client's handshake is over before the server has looked at its certificate.
    if handshaking or "alert" in words:
        return _handshakeFailed(error, refused)
    return ProtocolViolation(words)


def _handshakeFailed(error: BaseException | None, refused: str) -> HandshakeFailed:
    why = "it was cut off" if error is None else inWords(error)
    because = f" ({refused})" if refused else ""
    return HandshakeFailed(f"the TLS handshake failed: {why}{because}")


def _isTls(error: BaseException) -> bool:
    """
    Whether pyOpenSSL raised it: a list of what OpenSSL has to say, from the outermost in.
    """
    return type(error).__module__.partition(".")[0] == "OpenSSL"


def inWords(error: BaseException) -> str:
    """
    An error for a reader: its class's name, and what it says.
    """
    if _isTls(error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return printable(f"TLS: {', '.join(str(entry[-1]) for entry in error.args[0])}")
    said = printable(" ".join(textOf(error).split()))
    name = type(error).__name__
    return f"{name}: {said}" if said else name


def _chained(cause: Cause, error: BaseException | None) -> Cause:
    cause.__cause__ = error
    return cause


# Text from elsewhere.

MAX_PRINTED = 1024
"""Characters of one text that are printed.  A goodbye's reason, 1,024 bytes, is never cut."""

_CUT = "..."


def printable(text: str) -> str:
    """
    Escape every character of a text that is not printable, and cut the text at L{MAX_PRINTED}.

    A peer's text, or a user's exception, may hold escape sequences that rewrite the lines of a
    terminal, line breaks that forge a second event, and bidirectional marks that reorder what is
    read.  This is the only place where they are escaped.  It is applied where text becomes a
    cause's words, an error in words, or a field of the log.

    Printable is what C{str.isprintable} says: no control and format characters, surrogates, unused
    characters (Unicode categories Cc, Cf, Cs, Co, Cn), and no separators but the space (Zl, Zp,
    Zs).  Each other one is written as in a Python string, C{\\x1b} or C{\\u202e}.

    @return: the text itself where nothing has to change.
    """
    if len(text) > MAX_PRINTED:
        text = text[: MAX_PRINTED - len(_CUT)] + _CUT
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def textOf(value: object) -> str:
    """
    What C{str} makes of somebody else's object.  An object for which C{str} fails is named by its
    class instead: no log line and no cause may fail for it.
    """
    try:
        return str(value)
    except BaseException:
        return f"<{type(value).__name__}: str() failed>"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
