# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Certificates that are renewed while the process runs.

A port keeps its socket and its endpoint for as long as it listens.  Its TLS settings are in a
context factory, which Twisted asks for a context in each new handshake.  A L{RenewableContext} is
put in its place before the port listens, so that the factory behind it can be exchanged.  A client
connects anew for each attempt, so that for it the whole endpoint is exchanged.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLContextFactory, IStreamClientEndpoint
from zope.interface import implementer

from ..transport.compat import contextFactoryOfEndpoint, setContextFactoryOfEndpoint
from .config.resolver import innermost


@implementer(IOpenSSLContextFactory)
class RenewableContext:
    """
    Returns the contexts of another context factory.

    @ivar current: that factory.
    """

    def __init__(self, current: Any) -> None:
        self.current = current

    def getContext(self) -> Any:
        return self.current.getContext()


class RenewableListener:
    """
    A server endpoint whose certificate can be renewed while it listens.

    @ivar endpoint: the endpoint.
    """

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self._context: RenewableContext | None = None
        inner = innermost(endpoint)
        contextFactory = contextFactoryOfEndpoint(inner)
        if contextFactory is not None:
            self._context = RenewableContext(contextFactory)
            setContextFactoryOfEndpoint(inner, self._context)

    @property
    def hasExpired(self) -> bool:
        """
        Whether the certificate has expired, by this machine's clock.
        """
        current = None if self._context is None else self._context.current
        hasExpired = getattr(getattr(current, "certificate", None), "has_expired", None)
        return hasExpired is not None and bool(hasExpired())

    def renew(self, other: Any) -> bool:
        """
        Use the certificate of another endpoint for new handshakes.

        @param other: made from the same text.  It is one that is known if its files could not be
            read again.
        @return: whether there is a certificate that is not yet in use.
        """
        renewed = contextFactoryOfEndpoint(innermost(other))
        # The first endpoint has our own context, since it listens.
        if self._context is None or renewed in (self._context, self._context.current):
            return False
        self._context.current = renewed
        return True


@implementer(IStreamClientEndpoint)
class RenewableClient:
    """
    A client endpoint that can be exchanged between two attempts.

    @ivar current: the endpoint of the next attempt.
    """

    def __init__(self, current: Any) -> None:
        self.current = current

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self.current.connect(protocolFactory)
        return connecting
