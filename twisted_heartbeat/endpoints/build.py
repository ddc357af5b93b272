# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{clientFor} and L{serverFor}: the endpoint that a prefixed string describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from zope.interface import implementer

from .heartbeat import HEARTBEAT, TunnelLinks, heartbeatWrapper
from .keepalive import KEEPALIVE, keepAliveWrapper
from .prefix import refuseRepeated, wholeDescription

if TYPE_CHECKING:
    from .prefix import Parse, Prefix


@implementer(IStreamClientEndpoint)
class PrefixedClient:
    """
    A client endpoint behind a prefix.
    """

    def __init__(self, wrappedEndpoint: Any, wrap: Callable[[Any], Any]) -> None:
        """
        @param wrap: takes a factory, and returns it wrapped.
        """
        self._wrappedEndpoint = wrappedEndpoint
        self._wrap = wrap

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        factory = self._wrap(protocolFactory)
        connecting: Deferred[Any] = self._wrappedEndpoint.connect(factory)
        if isinstance(factory, TunnelLinks):
            connecting.addCallback(factory.opened)
        return connecting


@implementer(IStreamServerEndpoint)
class PrefixedServer:
    """
    A server endpoint behind a prefix.
    """

    def __init__(self, wrappedEndpoint: Any, wrap: Callable[[Any], Any]) -> None:
        """
        @param wrap: takes a factory, and returns it wrapped.
        """
        self._wrappedEndpoint = wrappedEndpoint
        self._wrap = wrap

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        listening: Deferred[Any] = self._wrappedEndpoint.listen(self._wrap(protocolFactory))
        return listening


_PREFIXES: dict[str, tuple[Prefix, Callable[..., Any]]] = {
    KEEPALIVE.word: (KEEPALIVE, keepAliveWrapper),
    HEARTBEAT.word: (HEARTBEAT, heartbeatWrapper),
}


def _parsed(
    word: str, parse: Parse, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """
    @return: the endpoint behind the prefix, and what wraps its factories.
    """
    prefix, settings = _PREFIXES[word]
    refuseRepeated(word, wholeDescription())
    description, own = prefix.split(arguments, keywords)
    wrap = settings(own, reactor, f"{word}:{description}")
    return prefix.inner(parse, reactor, description), wrap


def clientFor(
    word: str, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> PrefixedClient:
    """
    Build the client endpoint that a prefix and the string behind it describe.

    @param word: C{"keepalive"} or C{"heartbeat"}.
    @param arguments: positional arguments that Twisted's parser has found behind the prefix.
    @param keywords: the others.
    @raise ValueError: if the string describes no endpoint.
    """
    return PrefixedClient(*_parsed(word, clientFromString, reactor, arguments, keywords))


def serverFor(
    word: str, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> PrefixedServer:
    """
    Build the server endpoint; all else as for L{clientFor}.
    """
    return PrefixedServer(*_parsed(word, serverFromString, reactor, arguments, keywords))
