# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
From an errno, a loss or a silence to the L{Cause} of a link's end.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from twisted.internet.error import (
    ConnectionAborted,
    ConnectionClosed,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)

from .causes import (
    Cause,
    ClosedHere,
    ConnectFailed,
    HandshakeFailed,
    HostUnreachable,
    KeepAliveExpired,
    LinkLost,
    NetworkUnreachable,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
    RetryPace,
    SendFailed,
)
from .text import printable, textOf

if TYPE_CHECKING:
    from .evidence import Evidence


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
    return _chained(ClosedHere(f"the protocol raised {describeError(error)}"), error)


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
    if named is not None and named.pace is RetryPace.SLOW:
        return _chained(named, error)
    cause = ConnectFailed("" if error is None else describeError(error))
    if isinstance(error, ConnectionRefusedError):
        cause.fleetWide = True
    elif isinstance(error, (DNSLookupError, NoRouteError)):
        cause.pace = RetryPace.SLOW
    return _chained(cause, error)


def _causeOfTls(error: BaseException, refused: str, handshaking: bool) -> Cause:
    """
    Whatever else follows, such as the reset of one who has refused our certificate and closed.
    """
    words = describeError(error)
    # In TLS 1.3 a client's handshake is over before the server has looked at its certificate.
    if handshaking or "alert" in words:
        return _handshakeFailed(error, refused)
    return ProtocolViolation(words)


def _handshakeFailed(error: BaseException | None, refused: str) -> HandshakeFailed:
    why = "it was cut off" if error is None else describeError(error)
    because = f" ({refused})" if refused else ""
    return HandshakeFailed(f"the TLS handshake failed: {why}{because}")


def _isTls(error: BaseException) -> bool:
    """
    Whether pyOpenSSL raised it: a list of what OpenSSL has to say, from the outermost in.
    """
    return type(error).__module__.partition(".")[0] == "OpenSSL"


def describeError(error: BaseException) -> str:
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
