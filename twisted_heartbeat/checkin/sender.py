# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckInSender}: sends one check-in, until it is taken or there is no more sense in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import IPolicyForHTTPS

from ..core.backoff import Backoff
from ..core.counters import Counters
from ..core.diagnosis import describeError
from ..core.text import printable
from ..logs import SafeLogger
from ..timing.monotonic import clockFor
from ..timing.wheel import timerWheelFor
from .connections import Connections, drain

if TYPE_CHECKING:
    from collections.abc import Coroutine

MAX_BODY = 100_000
"""Bytes of a body that are sent, unless the server has said that it keeps less."""

LONGEST_WAIT = 3600.0
"""Seconds.  A server that asks for a longer wait with C{Retry-After} gets this."""

CLOSE_TIME = 1.0
"""Seconds that the connections have to close when all of them are aborted."""

_RETRIED = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
"""Answers below 500 after which the same request may succeed."""

_log = SafeLogger()

Body = str | bytes | Mapping[str, object]
"""What is sent with a check-in: text, bytes, or an object for JSON."""


class NotTaken(Exception):
    """
    The server did not take a check-in.

    @ivar isFinal: whether the same request would be answered in the same way.
    @ivar retryAfter: seconds that the server asked to wait; 0 if it did not ask.
    """

    def __init__(self, status: int, retryAfter: float) -> None:
        super().__init__(f"the server answered {status}")
        self.isFinal = status < 500 and status not in _RETRIED
        self.retryAfter = retryAfter


class CheckInSender:
    """
    Sends check-ins to one URL.

    @ivar place: the URL without its path and query, which may hold a token.
    @ivar failures: requests in a row that were not taken.
    @ivar lastTaken: when one was taken last, in seconds of the clock; L{None} before the first.
    @ivar runs: jobs that are under way.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        method: str,
        token: str | None,
        retryPolicy: Backoff,
        policy: IPolicyForHTTPS | None,
        client: Any,
        reactor: Any,
    ) -> None:
        """
        The parameters are those of C{CheckIn}.

        @raise ValueError: if the URL is none.  The text does not repeat it.
        """
        self._url = _checkedURL(url)
        self.place = f"{self._url.scheme}://{self._url.netloc}"
        self.failures = 0
        self.lastTaken: float | None = None
        self.runs = 0
        self._lastReason = ""
        self._timeout = timeout
        self._method = method
        self._headers = {"User-Agent": "twisted_heartbeat"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._retryPolicy = retryPolicy
        self._policy = policy
        self._client = client
        self._reactor = reactor
        self._connections: Connections | None = None
        self._maxBody = MAX_BODY

    @property
    def clock(self) -> IReactorTime:
        """
        What the time is measured with.
        """
        return clockFor(self._reactor)

    def send(
        self,
        action: str = "",
        *,
        run: str | None = None,
        body: Body = b"",
        retry: bool = True,
        untilCancelled: bool = False,
    ) -> Deferred[bool]:
        """
        Send a check-in.

        @param action: what follows the name in the path: nothing for success, C{"start"},
            C{"fail"}, C{"log"}, or an exit status.
        @param run: the run id.
        @param retry: whether to send it again if it is not taken.
        @param untilCancelled: whether it is sent again although the policy is exhausted.
        @return: whether it was taken.  It fails only if it is cancelled.
        """
        url = self._urlFor(action, run)
        return Deferred.fromCoroutine(self._deliver(url, body, retry, untilCancelled))

    def overtaken(self) -> None:
        """
        Note that a check-in was not taken before the next one was due.
        """
        self._failed(TimeoutError())

    def close(self) -> Deferred[Any]:
        """
        Abort all requests, and close all connections.

        @return: fires when they are closed.
        """
        connections, self._connections = self._connections, None
        if connections is None:
            return succeed(None)
        # Otherwise a connection that does not close would leave calls in the clock.
        closed = connections.close().addTimeout(CLOSE_TIME, self.clock)
        return closed.addErrback(lambda _: None)

    async def _deliver(self, url: str, body: Body, retry: bool, untilCancelled: bool) -> bool:
        began, attempt = self.clock.seconds(), 0
        while True:
            attempt += 1
            try:
                await self._request(url, body)
            except (CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                self._failed(error)
                final = isinstance(error, NotTaken) and error.isFinal
                wait = max(self._retryPolicy(attempt), getattr(error, "retryAfter", 0.0))
                # The server may have asked for a longer wait than the policy has.
                elapsed = self.clock.seconds() - began + wait
                exhausted = self._retryPolicy.exhausted(attempt, elapsed)
                if final or not retry or (exhausted and not untilCancelled):
                    return False
            else:
                self._taken()
                return True
            await deferLater(self.clock, wait)

    def _request(self, url: str, body: Body) -> Deferred[None]:
        """
        Send one request.  Whatever becomes of it, it ends within the timeout, and at once if it is
        cancelled.
        """
        exchange = _abandonable(self._exchange(url, body))
        exchange.addTimeout(self._timeout, self.clock)
        return exchange.addErrback(self._abandoned)

    def _abandoned(self, failure: Failure) -> Failure:
        if failure.check(TimeoutError, CancelledError) and self._connections is not None:
            # A request that is cancelled while its answer comes leaves its connection open.
            self._connections.abort()
        return failure

    async def _exchange(self, url: str, body: Body) -> None:
        # With a reactor, so that treq does not import the global one.
        options: dict[str, Any] = {"headers": dict(self._headers), "reactor": self.clock}
        if self._method == "POST":
            data, kind = _encoded(body)
            options["data"] = data[-self._maxBody :] if self._maxBody else b""
            options["headers"]["Content-Type"] = kind
        client = self._client if self._client is not None else self._ownConnections().client
        # A redirect could lead the token to another host, or out of TLS.
        response = await client.request(
            self._method, url, allow_redirects=False, unbuffered=True, **options
        )
        self._noteBodyLimit(response.headers)
        await drain(response)
        if not 200 <= response.code < 300:
            raise NotTaken(response.code, _retryAfter(response.headers))

    def _ownConnections(self) -> Connections:
        if self._connections is None:
            reactor = self._reactor
            if reactor is None:
                from twisted.internet import reactor
            self._connections = Connections(reactor, self._timeout, self._policy)
        return self._connections

    def _urlFor(self, action: str, run: str | None) -> str:
        path = self._url.path.rstrip("/") + (f"/{action}" if action else "")
        query = [self._url.query] if self._url.query else []
        if run is not None:
            query.append(urlencode({"rid": run}))
        return urlunsplit((self._url.scheme, self._url.netloc, path, "&".join(query), ""))

    def _noteBodyLimit(self, headers: Any) -> None:
        limit = _number(headers, "Ping-Body-Limit")
        if limit is not None:
            self._maxBody = min(int(limit), MAX_BODY)

    def _count(self, result: str) -> None:
        timerWheelFor(self.clock).shared(Counters).sentCheckIns[result] += 1

    def _taken(self) -> None:
        self._count("taken")
        if self.failures or self.lastTaken is None:
            words = "{place}: check-ins are taken"
            words += ", after {failures} that were not" if self.failures else ""
            _log.info(words, place=self.place, failures=self.failures)
        self.failures = 0
        self.lastTaken = self.clock.seconds()

    def _failed(self, error: BaseException) -> None:
        self._count("refused" if isinstance(error, NotTaken) else "failed")
        self.failures += 1
        reason, last = _describe(error), self._lastReason
        isFinal = isinstance(error, NotTaken) and error.isFinal
        if self.failures == 1 or (isFinal and reason != last):
            words = "{place}: a check-in was not taken: {reason}"
            _log.warn(words, place=self.place, reason=reason)
        self._lastReason = reason


def _checkedURL(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
        isGood = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and port != 0
            and "@" not in parts.netloc
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        isGood = False
    if not isGood:
        raise ValueError(
            "CheckIn.url: it must be a URL of printable ASCII characters, with http:// or https:// "
            "and a host, and without a user (use token=)"
        )
    return parts


def _encoded(body: Body) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "text/plain; charset=utf-8"
    if isinstance(body, str):
        return body.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    return json.dumps(body, default=str).encode("ascii"), "application/json"


def _number(headers: Any, name: str) -> float | None:
    values = headers.getRawHeaders(name.lower().encode("ascii")) or [b""]
    text = values[0].strip()
    return float(text) if text.isdigit() and len(text) < 10 else None


def _retryAfter(headers: Any) -> float:
    # The form with a date is not read: this clock and the server's may differ.
    return min(_number(headers, "Retry-After") or 0.0, LONGEST_WAIT)


def _describe(error: BaseException) -> str:
    """
    Describe why a request failed.  Twisted's own exceptions hold a list of failures.
    """
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reasons = getattr(error, "reasons", None) if isinstance(error, _SEVERAL) else None
    inner = [each.value for each in reasons or () if isinstance(each.value, BaseException)]
    return printable("; ".join(describeError(each) for each in inner) or describeError(error))


_SEVERAL = (RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived)


def _abandonable(exchange: Coroutine[Any, Any, None]) -> Deferred[None]:
    """
    Run a request.  If it is cancelled, its caller goes on at once, with C{CancelledError}; by
    itself, a request of Twisted's fails with what its connection makes of that.
    """

    def abandon(outer: Deferred[None]) -> None:
        outer.errback(CancelledError())
        running.cancel()

    def finish(result: Any) -> None:
        if not outer.called:
            outer.callback(result)

    outer: Deferred[None] = Deferred(abandon)
    running = Deferred.fromCoroutine(exchange)
    running.addBoth(finish)
    return outer
