# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The L{Cause} of an error number, a silence, a lost connection or a failed attempt.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
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
    Return the cause that an error number of the operating system names.

    @param number: as in the C{errno} module.
    @return: L{None} for a number that says nothing about the peer.
    """
    found = _BY_ERRNO.get(number)
    return None if found is None else _numbered(found, found.summary.rstrip("."), number)


def _numbered(
    kind: type[Cause], words: str, number: int, evidence: Evidence | None = None
) -> Cause:
    """
    Return a cause with an error number, in words and as C{osError}.
    """
    cause = kind(f"{words} [errno {number}]", evidence=evidence)
    cause.osError = number
    return cause


_NO_ROUTE: dict[int, type[Cause]] = {
    errno.EHOSTUNREACH: HostUnreachable,
    errno.EHOSTDOWN: HostUnreachable,
    errno.EACCES: HostUnreachable,
    errno.ENETUNREACH: NetworkUnreachable,
    errno.ENETDOWN: NetworkUnreachable,
    errno.EINVAL: NetworkUnreachable,
    errno.EADDRNOTAVAIL: NetworkUnreachable,
}
"""
The answers of the routing table where there is no route to the peer.  C{prohibit} is EACCES,
C{blackhole} is EINVAL, and a local address that is gone is EADDRNOTAVAIL (measured on Linux 6.18).
"""


def causeOfSilence(
    evidence: Evidence,
    silence: float,
    words: str,
    *,
    pingArrived: bool,
    askRoute: Callable[[], int],
) -> Cause:
    """
    Return the cause of a silence that has lasted for the whole bound.

    @param silence: seconds since the process of the peer last spoke.
    @param words: the same in words.
    @param pingArrived: whether the peer's kernel has acknowledged the last ping.
    @param askRoute: returns this host's answer about the route to the peer, as in the C{errno}
        module; 0 if there is a route.  It is called unless the peer's kernel answers.
    """
    # An unacknowledged ping may wait before a closed window.  Where no ping was sent, the kernels
    # may still have met since.
    fresh = evidence.sinceAck is not None and evidence.sinceAck < silence / 2
    if pingArrived or (evidence.kernelAnswers and (evidence.window == 0 or fresh)):
        return PeerHung(f"{words}; the peer's kernel answers", evidence=evidence)
    number = askRoute()
    noRoute = _NO_ROUTE.get(number)
    if noRoute is not None:
        return _numbered(noRoute, f"{words}; {noRoute.summary}", number, evidence)
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
    Return the cause of an established connection's end.

    The order of the tests decides.  The kernel's error number comes before the reason that Twisted
    gives, because Twisted's reason is often only C{ConnectionLost}.

    @param error: the reason that Twisted passed to C{connectionLost}.
    @param number: the error number of the kernel; L{None} where it is not known, unless C{error}
        has it as C{osError}.
    @param finished: whether the peer's FIN had come.
    @param closedHere: whether this side had asked for the close.
    @param handshaking: whether a TLS handshake was under way.
    @param reactorStopped: whether this side's reactor has stopped.  It then ends every connection
        with C{ConnectionLost}.
    @param refused: why the peer's certificate was refused, in words.
    """
    if isinstance(error, Cause):
        return error
    if error is not None and isTlsError(error):
        return _chained(_causeOfTls(error, refused, handshaking), error)
    if number is None:
        number = getattr(error, "osError", None)
    # A reset that follows a FIN is EPIPE on Linux, so EPIPE would hide that the peer has closed.
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
    Whether a connection was lost because the protocol raised, and not Twisted or TLS.

    @param error: the reason that Twisted passed to C{connectionLost}.
    """
    known = isinstance(error, Cause | ConnectionClosed)
    return not (error is None or known or isTlsError(error))


def causeOfFailure(error: BaseException | None) -> Cause:
    """
    Return the cause of a failed attempt.

    @param error: the error of the endpoint, or of C{prepareConnection}.
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
    words = describeError(error)
    # In TLS 1.3 a client's handshake is over before the server has checked the client's
    # certificate, so a refusal comes afterwards, as an alert.
    if handshaking or "alert" in words:
        return _handshakeFailed(error, refused)
    return ProtocolViolation(words)


def _handshakeFailed(error: BaseException | None, refused: str) -> HandshakeFailed:
    why = "it was cut off" if error is None else describeError(error)
    because = f" ({refused})" if refused else ""
    return HandshakeFailed(f"the TLS handshake failed: {why}{because}")


def isTlsError(error: BaseException) -> bool:
    """
    Whether pyOpenSSL raised an error.  Its argument is OpenSSL's list of errors, the outermost
    first.
    """
    return type(error).__module__.partition(".")[0] == "OpenSSL"


def describeError(error: BaseException) -> str:
    """
    Describe an error for a reader of the log: the name of its class, and its text.
    """
    if isTlsError(error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return printable(f"TLS: {', '.join(str(entry[-1]) for entry in error.args[0])}")
    said = printable(" ".join(textOf(error).split()))
    name = type(error).__name__
    return f"{name}: {said}" if said else name


def _chained(cause: Cause, error: BaseException | None) -> Cause:
    cause.__cause__ = error
    return cause
