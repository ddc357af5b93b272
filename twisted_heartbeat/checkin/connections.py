# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Connections}: the connections over which check-ins are sent.

They are Twisted's pool, with three additions.  All of them can be aborted: the pool itself closes a
connection politely, which over TLS waits for the answer of a server that may be gone.  The answer
to a request is only drained, up to a limit, because nothing in it is of interest.  And a connection
that brings too much for one answer is aborted: Twisted keeps a header of any size.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are drained.  A longer answer ends its connection."""

MAX_RECEIVED = 4 * MAX_ANSWER
"""Bytes that a connection may bring for one request, header included."""


@implementer(IStreamClientEndpoint)
class _TrackedEndpoint:
    """
    An endpoint whose connections are noted.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, made: WeakSet[Any]) -> None:
        self._endpoint = endpoint
        self._made = made

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        # Otherwise the log has two lines for each connection.
        protocolFactory.noisy = False  # type: ignore[attr-defined]

        def note(protocol: Any) -> Any:
            self._made.add(protocol)
            _limitAnswers(protocol)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(note)


def _limitAnswers(protocol: Any) -> None:
    """
    Abort a connection when it brings more than L{MAX_RECEIVED} for one request.
    """
    send, receive = protocol.request, protocol.dataReceived
    size = 0

    def request(*arguments: Any) -> Any:
        nonlocal size
        size = 0
        return send(*arguments)

    def dataReceived(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MAX_RECEIVED:
            protocol.transport.abortConnection()
        else:
            receive(data)

    protocol.request, protocol.dataReceived = request, dataReceived


@implementer(IAgentEndpointFactory)
class Connections:
    """
    A pool of connections.

    @ivar client: sends requests over them.
    """

    def __init__(self, reactor: Any, connectTimeout: float, policy: IPolicyForHTTPS | None) -> None:
        """
        @param connectTimeout: seconds.
        @param policy: checks a server's certificate; by default as a browser does, with the
            system's authorities.
        """
        self._reactor = reactor
        self._connectTimeout = connectTimeout
        self._policy = BrowserLikePolicyForHTTPS() if policy is None else policy
        self._made: WeakSet[Any] = WeakSet()
        self._pool = HTTPConnectionPool(reactor)
        self.client = HTTPClient(Agent.usingEndpointFactory(reactor, self, self._pool))

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        Return the endpoint for a URL.
        """
        endpoint: Any = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=self._connectTimeout
        )
        if uri.scheme == b"https":
            options = self._policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(options, endpoint)
        return _TrackedEndpoint(endpoint, self._made)

    def abort(self) -> None:
        """
        Abort all connections.
        """
        for protocol in list(self._made):
            # Twisted's TLS cannot abort what is lost already.
            if protocol.state != "CONNECTION_LOST":
                protocol.transport.abortConnection()

    def close(self) -> Deferred[None]:
        """
        Abort all connections, and forget them.

        @return: fires when those are gone that no request used.
        """
        self.abort()
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class _Drain(Protocol):
    """
    Counts what comes, and throws it away.
    """

    def __init__(self, drained: Deferred[Any]) -> None:
        self._drained: Deferred[Any] | None = drained
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER and self.transport is not None:
            self.transport.loseConnection()
            self._fire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Without a length the end of the connection is the end of the answer.
        self._fire(None if reason.check(ResponseDone, PotentialDataLoss) else reason)

    def _fire(self, failure: Failure | None = None) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(failure)


def drain(response: Any) -> Deferred[None]:
    """
    Read an answer to its end, or to L{MAX_ANSWER}.

    @return: fires then; fails if the connection is lost before.
    """
    drained: Deferred[Any] = Deferred()
    response.deliverBody(_Drain(drained))
    return drained
