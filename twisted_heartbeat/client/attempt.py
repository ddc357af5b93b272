# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{EndpointAttempt}: one try to connect an endpoint, and the link that it leads to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from ..link.state import LinkState
from ..link.usercode import cancel
from ..protocol.wrapper import attachLink
from ..timing.deadline import PeerDeadline, cancelCalls

if TYPE_CHECKING:
    from ..link.config import LinkConfig
    from ..link.link import Link


class AttemptOwner(LinkOwner):
    """
    The driver or round that makes an attempt.  It is told the result once, and owns the link that
    the attempt has led to.

    @ivar config: what its links have in common.
    """

    config: LinkConfig

    def attemptConnected(self, link: Link) -> None:
        """
        Handle that the attempt has led to a link.
        """
        raise NotImplementedError

    def attemptFailed(self, cause: Cause, failure: Failure) -> None:
        """
        Handle that the attempt has failed, and nothing is left of it.
        """
        raise NotImplementedError


def failureOf(cause: Cause) -> Failure:
    """
    Return the failure that a caller of C{whenConnected} gets: the error that was raised, if the
    cause only stands for it; otherwise the cause.
    """
    raised = cause.__cause__
    # A later cause is chained to the first one, and was not raised.
    standsFor = type(cause) is ConnectFailed and not isinstance(raised, Cause)
    return Failure(raised if standsFor and raised is not None else cause)


class EndpointAttempt(LinkOwner):
    """
    One try of a service to connect.  It owns its link until the attempt is complete.

    The attempt is complete when both the endpoint's Deferred has fired and the link is up, or
    cleaned up.  Either may come first.
    """

    def __init__(self, owner: AttemptOwner) -> None:
        self._owner = owner
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
        limit = self._owner.config.limits.connectTimeout
        if limit is not None:
            self._timer = PeerDeadline(self._owner.config.clock, limit, self._timedOut, limit)
        self._connecting = maybeDeferred(self._connect, endpoint, AttemptFactory(factory, self))
        self._connecting.addCallbacks(self._endpointConnected, self._endpointFailed)

    @staticmethod
    def _connect(endpoint: IStreamClientEndpoint, factory: Any) -> Any:
        return endpoint.connect(factory)

    def cancel(self, cause: Cause) -> None:
        """
        Cancel the attempt.  L{AttemptOwner.attemptFailed} follows when nothing is left of it.
        """
        if self._reported or self._over:
            return
        self._cause = self._cause or cause
        if self._link is not None and self._link.state is not LinkState.NEW:
            # The endpoint is likely to be inside of makeConnection, where it can not be cancelled.
            self._link.abort(self._cause)
        elif self._building:
            # While an endpoint asks for a protocol it can not be cancelled.  It will get none; an
            # endpoint that ignores that is cancelled in the next turn.
            self._cancelTimer()
            self._timer = self._owner.config.clock.callLater(0, self._cancelEndpoint)
        else:
            self._cancelEndpoint()

    def build(self, factory: IProtocolFactory, addr: Any) -> Any:
        """
        Build the protocol and its link.

        @return: the protocol for the transport.
        @raise NoProtocol: if the factory builds none, or the attempt is over.  L{None} would not
            do, because over TLS Twisted's endpoints do not check for it, and hang.
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
        linked, self._link = attachLink(protocol, self._owner.config, self)
        return linked

    def linkReady(self, link: Link) -> None:
        if self._cause is not None:
            link.abort(self._cause)
        self._reportWhenComplete()

    def linkLost(self, link: Link, cause: Cause) -> None:
        self._cause = self._cause or cause
        link.teardown.cleanUp()
        link.whenGone().addCallback(lambda _: self._cancelEndpoint())

    def _cancelEndpoint(self) -> None:
        if not self._endpointDone and self._connecting is not None:
            cancel(self._connecting)
            # Cancelling fires the Deferred, unless its canceller has raised.
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
            link.owner = self._owner
            self._owner.attemptConnected(link)

    def _failWhenComplete(self) -> None:
        """
        Report the failure once the endpoint is done, and the link, if there was one, cleaned up.
        """
        link = self._link
        linkDone = link is None or link.cleaned or link.state is LinkState.NEW
        if self._endpointDone and linkDone and not self._over:
            self._over = True
            self._cancelTimer()
            assert self._cause is not None
            self._owner.attemptFailed(self._cause, self._failure or failureOf(self._cause))

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
    Stands between an endpoint and the user's factory, and provides the same interfaces.
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
