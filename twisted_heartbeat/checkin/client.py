# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckIn}: tells a web server "I am here", by the ping API of healthchecks.io.

Check-ins are due on a fixed grid, and each has until the next one is due: it is repeated with
backoff until it is taken, or the next one takes its place.  So a server that is slow or down delays
nothing, and a check-in that was lost is repeated before its successor.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from math import floor
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS

from ..core.backoff import Backoff
from ..core.text import textOf
from ..core.validation import require, requirePositive
from ..link.hooks import LinkHooks
from ..logs import RepeatedFailures, SafeLogger
from ..timing.deadline import cancelCalls
from .sender import Body, CheckInSender

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link

RETRIES = Backoff(initial=1.0, maximum=30.0, maxElapsed=60.0)

_ROUNDING = 1e-6
"""Of an interval: more than the error of any sum of floats."""

_log = SafeLogger()


class CheckIn(Service):
    """
    Tells a web server at intervals that this process is alive; and when a job starts and ends.

    @ivar interval: seconds from one check-in to the next; L{None} if only jobs are reported.
    @ivar timeout: seconds for each request.
    """

    def __init__(
        self,
        url: str,
        *,
        interval: float | None = 60.0,
        timeout: float = 10.0,
        method: str = "POST",
        body: Body | Callable[[], Body] | None = None,
        token: str | None = None,
        retryPolicy: Backoff = RETRIES,
        policy: IPolicyForHTTPS | None = None,
        client: Any = None,
        reactor: Any = None,
    ) -> None:
        """
        @param url: the server's URL for success, C{https://host/ping/NAME} for example.  Its query,
            such as C{?create=1}, is sent with each check-in.
        @param method: C{"POST"} or C{"GET"}.  A GET has no body.
        @param body: what is sent with the check-ins of the interval, or a function that returns it;
            by default a small JSON object with host, process id, number and interval.
        @param token: sent as a bearer token.  It may stand in the URL instead.
        @param retryPolicy: how long to wait after a request that was not taken.  Its C{maxAttempts}
            and C{maxElapsed} bound the report of a job; a check-in of the interval is repeated
            until the next is due, at most.
        @param policy: checks a server's certificate; by default as a browser does, with the
            system's authorities.
        @param client: a C{treq.client.HTTPClient} to use in place of connections of its own.
        @param reactor: makes connections and tells the time; the global reactor by default.
        @raise ValueError: if a value is not what is stated here.  The text never repeats the URL.
        """
        self.interval = interval
        self.timeout = timeout
        requirePositive(self, "interval", orNone=True)
        requirePositive(self, "timeout")
        require(method in ("GET", "POST"), self, "method", method, '"GET" or "POST"')
        self._sender = CheckInSender(
            url,
            timeout=timeout,
            method=method,
            token=token,
            retryPolicy=retryPolicy,
            policy=policy,
            client=client,
            reactor=reactor,
        )
        self._body: Any = self._defaultBody if body is None else body
        words = "{place}: the function that returns the body failed"
        self._noBody = RepeatedFailures(_log, words, monotonic)
        self._origin = 0.0
        self._number = 0
        self._call: IDelayedCall | None = None
        self._sending: Deferred[Any] | None = None
        self._sources: list[_LinkSource] = []

    @property
    def place(self) -> str:
        """
        The URL without its path and query, which may hold a token.
        """
        return self._sender.place

    @property
    def failures(self) -> int:
        """
        How many requests in a row were not taken.
        """
        return self._sender.failures

    @property
    def sinceTaken(self) -> float | None:
        """
        Seconds since a check-in was taken; L{None} before the first.
        """
        taken = self._sender.lastTaken
        return None if taken is None else self._sender.clock.seconds() - taken

    def startService(self) -> None:
        """
        Check in now, and at each interval from now.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._begin()

    def stopService(self) -> Deferred[Any]:
        """
        Stop, and abort a request that is under way.

        @return: fires when the connections are closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._end()
        return self._sender.close()

    def linkHooks(self) -> LinkHooks:
        """
        Return hooks for a client or a server of this package.  From now on, check-ins are sent only
        while it has a link that is up.  With the hooks of several, each must have one.
        """
        source = _LinkSource(self._linksChanged)
        self._sources.append(source)
        self._linksChanged()
        return source

    def run(self) -> Run:
        """
        Return a context manager for one run of a job::

            async with checkIn.run():
                await job()

        It reports the start; then success, or failure with the end of the traceback.  C{SystemExit}
        is reported as its exit status.  Whatever becomes of a report, the job is not disturbed: the
        start is sent beside it, and no exception comes of either.  The end is sent again until it
        is taken or the C{retryPolicy} is exhausted.  The service need not be started.
        """
        return Run(self, self._sender)

    def _defaultBody(self) -> Body:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "number": self._number,
            "interval": self.interval,
        }

    @property
    def _isDue(self) -> bool:
        return bool(self.running) and all(source.links for source in self._sources)

    def _linksChanged(self) -> None:
        if not self._isDue:
            self._end()
        elif self._call is None:
            self._begin()

    def _begin(self) -> None:
        if self.interval is not None and self._isDue and self._call is None:
            self._origin = self._sender.clock.seconds()
            self._checkIn(self.interval)

    def _end(self) -> None:
        cancelCalls(self._call)
        self._call = None
        self._endSending()

    def _endSending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()

    def _checkIn(self, interval: float) -> None:
        """
        Begin the check-in that is due, in place of one that is under way.
        """
        if self._sending is not None and not self._sending.called:
            self._sender.overtaken()
        self._endSending()
        clock = self._sender.clock
        elapsed = clock.seconds() - self._origin
        # After a stall, those that were missed are left out.
        following = (floor(elapsed / interval + _ROUNDING) + 1) * interval
        self._call = clock.callLater(max(0.0, following - elapsed), self._checkIn, interval)
        self._number += 1
        self._sending = self._sender.send(body=self._bodyNow(), untilCancelled=True)
        self._sending.addErrback(self._notSent)

    def _bodyNow(self) -> Body:
        try:
            body: Body = self._body() if callable(self._body) else self._body
        except BaseException as error:
            self._noBody.failed(error, place=self.place)
            return b""
        return body

    def _notSent(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{place}: a check-in failed", failure, place=self.place)


class _LinkSource(LinkHooks):
    """
    Keeps the links of one client or server that are up.

    @ivar links: the links, by identity.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.links: dict[int, Link] = {}
        self._changed = changed

    def connected(self, link: Link) -> None:
        self.links[id(link)] = link
        self._changed()

    def disconnected(self, link: Link, cause: Cause) -> None:
        # A link may end that was never connected.
        if self.links.pop(id(link), None) is not None:
            self._changed()


class Run:
    """
    One run of a job: an asynchronous context manager.

    @ivar id: the run id.
    """

    def __init__(self, checkIn: CheckIn, sender: CheckInSender) -> None:
        self.id = str(uuid4())
        self._checkIn = checkIn
        self._sender = sender
        self._starting: Deferred[Any] | None = None

    async def __aenter__(self) -> Run:
        self._sender.runs += 1
        # Not sent again: what is lost with it is only the duration.
        self._starting = self._send("start", retry=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        ending = Deferred.fromCoroutine(self._report(error))
        # While a coroutine is closed it can wait for nothing.
        if not isinstance(error, GeneratorExit):
            await ending

    async def _report(self, error: BaseException | None) -> None:
        """
        Report the end, and close the connections after it unless others use them.

        It is a coroutine of its own, so that it goes on if the job's is closed.
        """
        action, body = _result(error)
        assert self._starting is not None
        try:
            # A start that arrived after its end would never end.
            await self._starting
            # A cancelled job should end soon.
            await self._send(action, body, retry=not isinstance(error, CancelledError))
        finally:
            self._sender.runs -= 1
            if not self._checkIn.running and not self._sender.runs:
                await self._sender.close()

    def log(self, body: Body) -> Deferred[bool]:
        """
        Send a line for the server's log, which changes nothing.

        @return: whether it was taken.
        """
        return self._send("log", body)

    def _send(self, action: str, body: Body = b"", retry: bool = True) -> Deferred[Any]:
        return maybeDeferred(self._sender.send, action, run=self.id, body=body, retry=retry)


def _result(error: BaseException | None) -> tuple[str, Body]:
    """
    Return what to report of a job: what follows the name in the path, and the body.
    """
    if error is None:
        return "", b""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = (error.code or 0) & 0xFF
        return str(status), b""
    try:
        return "fail", "".join(traceback.format_exception(error))
    except BaseException:
        return "fail", textOf(error)
