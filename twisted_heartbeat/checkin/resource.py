# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckInResource}: a C{twisted.web} resource that receives check-ins.

A request passes these checks in this order.  Each is cheaper than the next, and no answer reveals
what a later check would find:

  - its method (405), its address's rate (429), its form (400);
  - its token (401), which is compared before the name is looked up: without the token no client
    learns which names there are;
  - its name's rate (429), the name itself (404), and the check-in (200, or 201).
"""

from __future__ import annotations

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from ..core.checkins import Check, CheckInLimits
from ..core.pingapi import BadCheckIn, CheckInRequest, isAction, parseRequest
from ..core.requestrate import RequestRate
from ..link.addresses import networkOf, peerName
from ..logs import STRANGER_INTERVAL, LogRateLimit, SafeLogger
from .monitor import CheckInMonitor, NoRoom, UnknownName
from .site import CheckInSite
from .tokens import Tokens

if TYPE_CHECKING:
    from ..link.hooks import Hooks
    from .checkedname import CheckedName
    from .store import DeadlineStore
    from .tokens import TokenSource

_log = SafeLogger()

_METHODS = (b"GET", b"HEAD", b"POST")

_NOT_READY_FOR = 5
"""Seconds after which a client may try again while the service has not started."""

_HIDDEN = b"***"

REFUSALS = {
    "method": "",
    "notReady": "",
    "perAddress": "too many requests from one address",
    "form": "",
    "token": "a wrong token, or none",
    "perName": "too many check-ins of one name",
    "unknownName": "",
    "noRoom": "",
}
"""Why requests are refused; and how the log tells of it, where it does."""


class CheckInResource(Service, Resource):
    """
    Receives check-ins, and watches the names that check in.

    It is a resource, to be put at C{/ping} of any site; and a service, which has to be started.
    L{site} makes a site for it alone.

    Events are those of links, with the carrier C{"http"}.  C{connected}: a name that was not known
    to be well has checked in.  C{suspected}: its period is over.  C{recovered}: it has checked in
    after that.  C{disconnected}: the verdict, with the cause C{CheckInMissed} or C{CheckInFailed}.
    A name that never checks in has a verdict, too, without a C{connected} before it.

    @ivar names: all names, each with its latest generation.
    """

    isLeaf = True

    def __init__(
        self,
        *,
        checks: Mapping[str, Check],
        tokens: TokenSource | None,
        hooks: Hooks | None = None,
        limits: CheckInLimits = CheckInLimits(),
        default: Check = Check(),
        store: DeadlineStore | None = None,
        source: str = "check-ins",
        clock: IReactorTime | None = None,
        wallClock: Callable[[], float] = time.time,
    ) -> None:
        """
        @param checks: the period and the grace time of each name that is watched from the start.
        @param tokens: the tokens of each name; or a function from a name to its tokens; or the path
            of a file with a name and a token in each line.  The tokens of the name C{*} hold for
            all names that have none of their own.  L{None} lets every client check in.
        @param hooks: called besides the log: one L{LinkHooks}, or a list of several.
        @param limits: what check-ins may take of this process.
        @param default: the period and grace time of a name that is created and asks for none.
        @param store: keeps the deadlines across restarts; L{None} to begin anew.
        @param source: what the log calls this server.
        @param clock: tells the time; the global reactor's monotonic time by default.
        @param wallClock: tells the wall time, in seconds since 1970, for the store.
        @raise ValueError: if a name or a token is not of the form that it has to have.
        @raise OSError: if the file of tokens cannot be read.
        """
        Resource.__init__(self)
        self._tokens = Tokens(tokens, time.monotonic)
        self._monitor = CheckInMonitor(
            checks,
            isProven=self._tokens.prove,
            default=default,
            limits=limits,
            hooks=hooks,
            store=store,
            source=source,
            clock=clock,
            wallClock=wallClock,
        )
        self._limits = limits
        self._counters = self._monitor.counters
        self._addresses = _rate(limits.perAddress, limits.addresses)
        self._perName = _rate(limits.perName, len(checks) + limits.created)
        self._refusals = LogRateLimit(STRANGER_INTERVAL)

    def setChecks(self, checks: Mapping[str, Check]) -> None:
        """
        Watch these names in place of the former ones, without an interruption for those that stay.
        A changed period holds at once, but a name has at least its grace time from now on.

        @param checks: as for the constructor.
        @raise ValueError: as for the constructor; then nothing is changed.
        """
        self._monitor.setChecks(checks)
        if self._perName is not None:
            self._perName.keys = max(1, len(checks) + self._limits.created)

    @property
    def names(self) -> Mapping[str, CheckedName]:
        """
        All names, each with its latest generation.
        """
        return self._monitor.names

    def site(self) -> CheckInSite:
        """
        Return a site that serves this resource at C{/ping}, with limits for what arrives before a
        resource is asked: the body, the time for a request, and the number of connections.
        """
        root = Resource()
        root.putChild(b"ping", self)
        return CheckInSite(root, self._limits, self._monitor.clock, self._counters)

    def startService(self) -> None:
        """
        Begin to watch.  Until then, and until the store has been read, requests are answered with
        503.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._refusals.start()
        self._monitor.startService()

    def stopService(self) -> Deferred[Any]:
        """
        Stop watching.  Names that are up end with C{ClosedHere}.

        @return: fires when the deadlines are saved and the hooks have finished.
        """
        if self.running:
            self._refusals.stop()
        super().stopService()  # type: ignore[no-untyped-call]
        return self._monitor.stopService()

    # Requests.

    def render(self, request: Request) -> bytes:
        path, query = list(request.postpath or ()), request.uri.partition(b"?")[2]
        _hideToken(request, path)
        status, words = self._answer(request, path, query)
        body = words.encode("ascii")
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"ping-body-limit", b"%d" % self._limits.body)
        # What the API's own pages show.  The answer has nothing in it.
        request.setHeader(b"access-control-allow-origin", b"*")
        return b"" if request.method == b"HEAD" else body

    def _answer(self, request: Request, path: list[bytes], query: bytes) -> tuple[int, str]:
        if request.method not in _METHODS:
            request.setHeader(b"allow", b", ".join(_METHODS))
            self._refuse(request, "method")
            return HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed"
        if not self._monitor.isReady:
            self._refuse(request, "notReady")
            return self._tryLater(request, HTTPStatus.SERVICE_UNAVAILABLE, _NOT_READY_FOR)
        network = networkOf(request.getClientAddress())
        wait = self._spend(self._addresses, network)
        if wait:
            self._refuse(request, "perAddress")
            return self._tryLater(request, HTTPStatus.TOO_MANY_REQUESTS, wait)
        try:
            if not path or path == [b""]:
                raise UnknownName
            asked = parseRequest(path, query)
            return self._admit(request, asked)
        except BadCheckIn as error:
            self._refuse(request, "form")
            return HTTPStatus.BAD_REQUEST, str(error)
        except UnknownName as error:
            self._refuse(request, "noRoom" if isinstance(error, NoRoom) else "unknownName")
            return HTTPStatus.NOT_FOUND, "not found"

    def _admit(self, request: Request, asked: CheckInRequest) -> tuple[int, str]:
        token = _tokenOf(request) if asked.token is None else asked.token
        try:
            isAdmitted = self._tokens.admit(asked.name, token)
        except BaseException:
            self._limitLog("tokens", partial(_logTokens, Failure()))
            self._refuse(request, "notReady")
            return self._tryLater(request, HTTPStatus.SERVICE_UNAVAILABLE, _NOT_READY_FOR)
        if not isAdmitted:
            self._refuse(request, "token")
            request.responseHeaders.setRawHeaders(
                b"www-authenticate", [b'Bearer realm="check-ins"', b'Basic realm="check-ins"']
            )
            return HTTPStatus.UNAUTHORIZED, "unauthorized"
        if asked.name in self.names or asked.create:
            wait = self._spend(self._perName, asked.name)
            if wait:
                self._refuse(request, "perName")
                return self._tryLater(request, HTTPStatus.TOO_MANY_REQUESTS, wait)
        created = self._monitor.checkIn(
            asked,
            address=request.getClientAddress(),
            body=self._bodyOf(request),
        )
        return (HTTPStatus.CREATED, "Created") if created else (HTTPStatus.OK, "OK")

    def _bodyOf(self, request: Request) -> bytes:
        if request.content is None:
            return b""
        # In another site than that of L{site} the body may be longer.
        body: bytes = request.content.read(self._limits.body + 1)
        if len(body) > self._limits.body:
            self._counters.limits["body"] += 1
        return body[: self._limits.body]

    def _spend(self, rate: RequestRate | None, key: str | None) -> float:
        if rate is None or key is None:
            return 0.0
        return rate.spend(key, self._monitor.wheel.seconds())

    def _tryLater(self, request: Request, status: HTTPStatus, seconds: float) -> tuple[int, str]:
        request.setHeader(b"retry-after", b"%d" % max(1, ceil(seconds)))
        return status, status.phrase.lower()

    def _refuse(self, request: Request, reason: str) -> None:
        """
        Count that a request was refused.  Some reasons are logged: the first time, then once a
        minute with the number of the others.

        @param reason: one of L{REFUSALS}.
        """
        self._counters.checkIns.refused[reason] += 1
        if reason in ("perAddress", "perName"):
            self._counters.limits[reason] += 1
        words = REFUSALS[reason]
        if not words:
            return
        peer = peerName(request.getClientAddress())

        def write(others: int) -> None:
            _log.warn(
                "{link}: a check-in was refused: {reason} [{peer}], and {others} others",
                link=self._monitor.source,
                reason=words,
                peer=peer,
                others=others,
            )

        self._limitLog(reason, write)

    def _limitLog(self, kind: str, write: Callable[[int], object]) -> None:
        wheel = self._monitor.wheel
        self._refusals.log(kind, wheel.seconds(), wheel, write)


def _logTokens(failure: Failure, others: int) -> None:
    words = "The function that returns the tokens of a name failed"
    _log.failure(words + (", and {others} times more" if others else ""), failure, others=others)


def _rate(perMinute: int | None, keys: int) -> RequestRate | None:
    return None if perMinute is None else RequestRate(perMinute, max(1, keys))


def _tokenOf(request: Request) -> str | None:
    """
    Return the token of the header C{Authorization}: RFC 6750, or RFC 7617, where it is the
    password, or the user if there is no password.
    """
    header: bytes = request.getHeader(b"authorization") or b""
    kind, _, credentials = header.decode("utf-8", "replace").partition(" ")
    credentials = credentials.strip()
    if kind.lower() == "bearer":
        return credentials
    if kind.lower() != "basic":
        return None
    try:
        user, _, password = b64decode(credentials, validate=True).decode("utf-8").partition(":")
    except (Base64Error, ValueError):
        return None
    return password or user


def _hideToken(request: Request, path: list[bytes]) -> None:
    """
    Hide what may be a token from the site's own log, which writes the request's URI.
    """
    shown = list(path)
    last = shown[-1].decode("latin-1") if shown else ""
    if len(shown) > 2 or (len(shown) == 2 and last and not isAction(last)):
        shown[0] = _HIDDEN
    whole = [*(request.prepath or ()), *shown]
    escaped = "/".join(quote(segment, safe="*") for segment in whole)
    request.uri = request.path = f"/{escaped}".encode("ascii")
