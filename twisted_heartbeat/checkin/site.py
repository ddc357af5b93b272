# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckInSite}: a web site for check-ins, with limits for what arrives.

A resource of C{twisted.web} is asked when the whole request is there.  Before that, Twisted stores
a body of any size in a temporary file, parses forms, and restarts its timeout with every byte.
Here a body is cut as it comes, a form is a body like any other, and a request has to arrive within
one time limit.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer_only

from ..timing.deadline import cancelCalls

if TYPE_CHECKING:
    from collections import Counter

    from ..core.checkins import CheckInLimits
    from ..core.counters import SourceCounters

_IDLE_TIME = 300.0
"""Seconds that a connection may wait for its next request."""

_CLOSE_TIME = 1.0
"""Seconds from a polite close to an abort, when the site stops."""


class CheckInRequestBody(Request):
    """
    A request whose body is cut as it comes.
    """

    def gotLength(self, length: int | None) -> None:
        channel: Any = self.channel
        self._room: int = channel.site.limits.body
        self._isCut = False
        self._passed: Counter[str] = channel.site.counters.limits
        self._kept = self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._kept.write(data[: self._room])
        if len(data) > self._room and not self._isCut:
            self._isCut = True
            self._passed["body"] += 1
        self._room = max(0, self._room - len(data))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # Twisted would parse a form, and refuse one that is cut.  curl calls every body a form.
        self.requestHeaders.removeHeader(b"content-type")
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]


class CheckInChannel(HTTPChannel):
    """
    A connection on which each request has to arrive within one time limit.
    """

    site: CheckInSite
    transport: Any
    requestFactory = CheckInRequestBody
    _isReceiving = False

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels[self] = None
        self._expectRequest()

    def dataReceived(self, data: bytes) -> None:
        self.site.counters.checkIns.receivedBytes += len(data)
        if not self._isReceiving:
            self._expectRequest()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _expectRequest(self) -> None:
        self._isReceiving = True
        self.setTimeout(self.site.limits.requestTime)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        """
        Leave the timeout as it is.  Twisted calls this for each piece of a request.
        """

    def headerReceived(self, line: bytes) -> bool:
        try:
            isGood: bool = super().headerReceived(line)  # type: ignore[no-untyped-call]
        except ValueError:
            # Python refuses to read a length of thousands of digits, and Twisted would log that.
            self.loseConnection()  # type: ignore[no-untyped-call]
            return False
        return isGood

    def requestDone(self, request: Any) -> None:
        self._isReceiving = False
        super().requestDone(request)  # type: ignore[no-untyped-call]
        if not self._isReceiving:
            # Otherwise the next request is there already.
            self.setTimeout(_IDLE_TIME)  # type: ignore[no-untyped-call]

    def timeoutConnection(self) -> None:
        if self._isReceiving:
            self.site.counters.limits["requestTime"] += 1
        # Twisted's own logs one line for each, which a flood would repeat without end.
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.pop(self, None)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.site.channelLost()


@implementer_only(IProtocolFactory)
class CheckInSite(Site):
    """
    The site.  It writes no access log: the events of its resource are the log.  It speaks HTTP/1.1
    and negotiates no other protocol over TLS, because the limits are those of L{CheckInChannel}.

    @ivar limits: see C{CheckInLimits}.
    @ivar channels: the connections that are open, in the order in which they came.
    @ivar counters: what comes, and the limits that it passes, are counted there.
    """

    noisy = False
    protocol = CheckInChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        limits: CheckInLimits,
        clock: IReactorTime,
        counters: SourceCounters,
    ) -> None:
        """
        @param clock: what the timeouts are measured with.
        """
        super().__init__(  # type: ignore[no-untyped-call]
            resource, CheckInRequestBody, timeout=_IDLE_TIME, reactor=clock
        )
        self.limits = limits
        self.counters = counters
        self.channels: dict[CheckInChannel, None] = {}
        self._clock = clock
        self._drained: list[Deferred[None]] = []
        self._aborting: Any = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        limit = self.limits.connections
        if limit is not None and len(self.channels) >= limit:
            # Not the newcomer: idle connections could otherwise shut out all new ones.
            self.counters.limits["connections"] += 1
            oldest = next(iter(self.channels))
            del self.channels[oldest]
            oldest.transport.abortConnection()
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        """
        Write no access log.
        """

    def stopFactory(self) -> None:
        """
        Close no access log.
        """

    def drain(self) -> Deferred[None]:
        """
        Close all connections: with what was answered written, and at the latest a second later.

        @return: fires when none is left.
        """
        if not self.channels:
            return succeed(None)
        for channel in tuple(self.channels):
            channel.setTimeout(None)  # type: ignore[no-untyped-call]
            channel.loseConnection()  # type: ignore[no-untyped-call]
        if self.channels and self._aborting is None:
            self._aborting = self._clock.callLater(_CLOSE_TIME, self._abort)
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self.channelLost()
        return drained

    def channelLost(self) -> None:
        """
        Note that a connection is gone.
        """
        if self.channels or not self._drained:
            return
        cancelCalls(self._aborting)
        self._aborting = None
        drained, self._drained = self._drained, []
        for each in drained:
            each.callback(None)

    def _abort(self) -> None:
        for channel in tuple(self.channels):
            channel.transport.abortConnection()
