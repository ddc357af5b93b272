# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{EndpointAttempt}: one try to connect an endpoint, and the link that it leads to.
L{AttemptRound}: one try of each of several endpoints, and the first link that is prepared.
L{Preparation}: one call of C{prepareConnection}, within a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from ..core.causes import Cause, ConnectFailed, HandshakeFailed
from ..core.diagnosis import causeOfFailure
from ..link.owner import LinkOwner
from ..link.usercode import cancel
from ..protocol.wrapper import attachLink
from ..timing.deadline import PeerDeadline, cancelCalls

if TYPE_CHECKING:
    from ..link.config import LinkConfig
    from ..link.link import Link


PrepareConnection = Callable[[Any], object]
"""Takes the protocol of a new connection.  It may return a Deferred or a coroutine."""


class AttemptOwner(Protocol):
    """
    Who makes an attempt, and hears once what it has come to.

    @ivar terms: what its links have in common.
    """

    terms: LinkConfig

    def attemptConnected(self, link: Link) -> None:
        """It has led to a link."""

    def attemptFailed(self, cause: Cause, failure: Failure) -> None:
        """It has come to nothing, and nothing is left of it."""

    def linkLost(self, link: Link, cause: Cause) -> None:
        """The link that it had led to has ended."""


def failureOf(cause: Cause) -> Failure:
    """
    What was raised, where the cause only stands for that.
    """
    raised = cause.__cause__
    # A later cause, which is chained to the first, is not what was raised.
    standsFor = type(cause) is ConnectFailed and not isinstance(raised, Cause)
    return Failure(raised if standsFor and raised is not None else cause)


class EndpointAttempt(LinkOwner):
    """
    One try of a service to connect, and the link that it leads to.  It owns that link.
    """

    def __init__(self, driver: AttemptOwner) -> None:
        self._driver = driver
        self._link: Link | None = None
        self._connecting: Deferred[Any] | None = None
        self._endpointDone = False
        self._reported = False
        self._over = False
        self._building = False
        self._cause: Cause | None = None
        self._failure: Failure | None = None
        self._timer: IDelayedCall | PeerDeadline | None = None

    def begin(self, endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> None:
        limit = self._driver.terms.limits.connectTimeout
        if limit is not None:
            self._timer = PeerDeadline(self._driver.terms.clock, limit, self._timedOut, limit)
        self._connecting = maybeDeferred(self._connect, endpoint, AttemptFactory(factory, self))
        self._connecting.addCallbacks(self._endpointConnected, self._endpointFailed)

    @staticmethod
    def _connect(endpoint: IStreamClientEndpoint, factory: Any) -> Any:
        return endpoint.connect(factory)

    def cancel(self, cause: Cause) -> None:
        """
        Give it up.
        """
        if self._reported or self._over:
            return
        self._cause = self._cause or cause
        if self._link is not None and self._link.state != "new":
            # An endpoint that has led to a link is likely to be inside of makeConnection.
            self._link.abort(self._cause)
        elif self._building:
            # While an endpoint asks for a protocol it can not be cancelled, but it will get none;
            # and if it makes nothing of that, it is cancelled after all.
            self._cancelTimer()
            self._timer = self._driver.terms.clock.callLater(0, self._cancelEndpoint)
        else:
            self._cancelEndpoint()

    def build(self, factory: IProtocolFactory, addr: Any) -> Any:
        """
        @return: what the transport shall speak to.
        @raise NoProtocol: if there is nothing, or it is too late.  It is raised, and not L{None}
            returned, because over TLS Twisted's endpoints do not check for that, and hang.
        """
        if self._over or self._cause is not None or self._link is not None:
            raise NoProtocol
        self._building = True
        try:
            protocol = factory.buildProtocol(addr)
        finally:
            self._building = False
        if protocol is None or self._cause is not None:
            raise NoProtocol
        linked, self._link = attachLink(protocol, self._driver.terms, self)
        return linked

    def linkReady(self, link: Link) -> None:
        if self._cause is not None:
            link.abort(self._cause)
        self._reportWhenComplete()

    def linkLost(self, link: Link, cause: Cause) -> None:
        if self._reported:
            self._driver.linkLost(link, cause)
            return
        self._cause = self._cause or cause
        link.cleanUp()
        link.whenGone().addCallback(lambda _: self._cancelEndpoint())

    def _cancelEndpoint(self) -> None:
        if not self._endpointDone and self._connecting is not None:
            cancel(self._connecting)
            # Cancelling fires it, unless its canceller has raised.
            self._endpointDone = True
        self._failWhenComplete()

    def _endpointConnected(self, protocol: object) -> None:
        self._endpointDone = True
        if self._link is None:
            self._cause = ConnectFailed("the endpoint connected without building a protocol")
        if self._cause is None:
            self._reportWhenComplete()
        else:
            self._failWhenComplete()

    def _endpointFailed(self, failure: Failure) -> None:
        self._endpointDone = True
        if self._cause is None:
            self._cause = causeOfFailure(failure.value)
            self._failure = failure
        if self._link is not None:
            self._link.abort(self._cause)
        self._failWhenComplete()

    def _reportWhenComplete(self) -> None:
        link = self._link
        if (
            self._endpointDone
            and not self._reported
            and not self._over
            and link is not None
            and link.isUp
        ):
            self._reported = True
            self._cancelTimer()
            self._driver.attemptConnected(link)

    def _failWhenComplete(self) -> None:
        """
        It has failed once the endpoint is done, and the link, if there was one, cleaned up.
        """
        link = self._link
        linkDone = link is None or link.cleaned or link.state == "new"
        if self._endpointDone and linkDone and not self._over:
            self._over = True
            self._cancelTimer()
            assert self._cause is not None
            self._driver.attemptFailed(self._cause, self._failure or failureOf(self._cause))

    def _timedOut(self, limit: float) -> None:
        self._timer = None
        handshaking = self._link is not None
        kind = HandshakeFailed if handshaking else ConnectFailed
        what = "TLS handshake" if handshaking else "connection"
        self.cancel(kind(f"no {what} within {limit:g} s"))

    def _cancelTimer(self) -> None:
        cancelCalls(self._timer)
        self._timer = None


class AttemptFactory:
    """
    Stands between an endpoint and the user's factory, and provides what that provides.
    """

    def __init__(self, factory: IProtocolFactory, attempt: EndpointAttempt) -> None:
        self._factory = factory
        self._attempt = attempt
        directlyProvides(self, providedBy(factory))

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        protocol: IProtocol | None = self._attempt.build(self._factory, addr)
        return protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"


class Preparation:
    """
    One call of C{prepareConnection}, which C{Limits.connectTimeout} bounds.
    """

    def __init__(
        self, terms: LinkConfig, prepared: Callable[[], None], rejected: Callable[[Cause], None]
    ) -> None:
        """
        @param prepared: called when the call has ended well.
        @param rejected: called with the cause when the call has failed, or has taken too long.
        """
        self._terms = terms
        self._prepared = prepared
        self._rejected = rejected
        self._calling: Deferred[Any] | None = None
        self._timer: PeerDeadline | None = None
        self._over = False

    def begin(self, prepareConnection: PrepareConnection, protocol: object) -> None:
        limit = self._terms.limits.connectTimeout
        if limit is not None:
            self._timer = PeerDeadline(self._terms.clock, limit, self._timedOut, limit)
        self._calling = maybeDeferred(prepareConnection, protocol)
        self._calling.addCallbacks(self._succeeded, self._failed)

    def cancel(self) -> None:
        """
        Give the call up.  Its result means nothing any more.
        """
        if self._finish() and self._calling is not None:
            cancel(self._calling)

    def _succeeded(self, result: object) -> None:
        if self._finish():
            self._prepared()

    def _failed(self, failure: Failure) -> None:
        if self._finish():
            self._rejected(causeOfFailure(failure.value))

    def _timedOut(self, limit: float) -> None:
        self.cancel()
        self._rejected(ConnectFailed(f"prepareConnection did not finish within {limit:g} s"))

    def _finish(self) -> bool:
        """
        @return: whether it was under way until now.
        """
        wasOver, self._over = self._over, True
        cancelCalls(self._timer)
        self._timer = None
        return not wasOver
