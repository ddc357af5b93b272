# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Door 2: wrap any factory, unchanged.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from .core.settings import Heartbeat, KeepAlive, Limits
from .net.clock import clockFor
from .net.hooks import LinkHooks
from .net.link import Link, Owner, Unowned
from .net.terms import Ping, Terms
from .protocol import HeartbeatMixin, MixedInLink


class WrappedProtocol:
    """
    Stands between a transport and a protocol that knows nothing of it.

    It provides what the protocol provides, forwards what it does not know, and changes no byte.
    What is set on it is set on the protocol, but for the methods that the transport calls:
    C{prepareConnection}, and whoever awaits an endpoint, is handed the wrapper and takes it for the
    protocol.

    @ivar link: the link.
    """

    _protocol: Any
    link: Link

    def __init__(self, protocol: Any, terms: Terms, owner: Owner) -> None:
        self._keep("_protocol", protocol)
        self._keep("link", Link(terms, owner, protocol, self))
        self._keep("dataReceived", self._dataHeard)
        directlyProvides(self, IHandshakeListener, providedBy(protocol))

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        self.link.established(transport)
        self._protocol.makeConnection(transport)
        self.link.protocolConnected()

    def handshakeCompleted(self) -> None:
        """
        See C{IHandshakeListener}.
        """
        self.link.handshaken()
        if IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self._protocol.dataReceived(data)

    def _dataHeard(self, data: bytes) -> None:
        link = self.link
        link.heard()
        if link.hearsByItself and self.dataReceived == self._dataHeard:
            del self.dataReceived
        self._protocol.dataReceived(data)
        if not link.spoken:
            link.spokeFirst()

    def connectionLost(self, reason: Failure) -> None:
        """
        See C{IProtocol}.
        """
        if self.link.state == "gone":
            return
        self.__dict__.pop("dataReceived", None)
        reason = self.link.lost(reason)
        try:
            self._protocol.connectionLost(reason)
        finally:
            self.link.ended()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def __setattr__(self, name: str, value: object) -> None:
        # What the transport calls here is replaced here: whoever gets it, and sets what calls it,
        # stands between the transport and the wrapper.
        if name == "__provides__" or hasattr(type(self), name):
            self._keep(name, value)
        else:
            setattr(self._protocol, name, value)

    def _keep(self, name: str, value: object) -> None:
        """
        Set it on the wrapper itself.
        """
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._protocol!r}>"


def withLink(protocol: Any, terms: Terms, owner: Owner) -> Any:
    """
    Give a protocol a link.

    @return: what the transport shall speak to: the protocol itself, if it has a place for a link,
        else a L{WrappedProtocol}.
    """
    if isinstance(protocol, HeartbeatMixin):
        ping = terms.ping or protocol.ping()
        protocol.link = MixedInLink(terms, owner, protocol, protocol, ping)
        return protocol
    return WrappedProtocol(protocol, terms, owner)


def nameOf(factory: object) -> str:
    """
    What the log calls the links of a factory that has been given no name.
    """
    protocol = getattr(factory, "protocol", None)
    return getattr(protocol, "__name__", None) or type(factory).__name__


_MAX_WRAPPERS = 8
"""Endpoints around one another that are looked through."""

_PLACES = ("_hostText", "_host", "_path", "_executable")
"""Where Twisted's endpoints keep what they lead to."""


def placeOf(endpoint: object) -> str:
    """
    Where an endpoint leads to, for the log: a host and port, a path, or a program.

    @return: C{""} where the endpoint does not say.
    """
    layer = endpoint
    for _ in range(_MAX_WRAPPERS):
        fields: dict[str, Any] = getattr(layer, "__dict__", {})
        place = next((fields[name] for name in _PLACES if fields.get(name)), None)
        if place is not None:
            text = place.decode("utf-8", "replace") if isinstance(place, bytes) else str(place)
            port = fields.get("_port")
            return text if port is None else f"{text}:{port}"
        layer = fields.get("_wrappedEndpoint")
    return ""


class HeartbeatFactory:
    """
    Watches every connection of another factory, on either side.

    It provides what the wrapped factory provides, and forwards what it does not know.
    """

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        *,
        heartbeat: Heartbeat | None = Heartbeat(),
        keepAlive: KeepAlive | None = KeepAlive(),
        limits: Limits | None = Limits(),
        hooks: LinkHooks | None = None,
        ping: Ping | None = None,
        clock: IReactorTime | None = None,
        name: str | None = None,
    ) -> None:
        """
        @param heartbeat: L{None} to prove nothing by silence.
        @param keepAlive: L{None} to leave the operating system's options alone.
        @param limits: L{None} for none.
        @param ping: takes the protocol and makes the peer speak; may be an C{async def}.
        @param clock: the global reactor's, if L{None}.
        @param name: what the log calls its links.
        """
        self.wrappedFactory = wrappedFactory
        self._clock = clock
        self._settings: dict[str, Any] = {
            "heartbeat": heartbeat,
            "keepAlive": keepAlive,
            "limits": limits or Limits.off(),
            "hooks": hooks or LinkHooks(),
            "ping": ping,
            "name": name or nameOf(wrappedFactory),
        }
        self._terms: Terms | None = None
        directlyProvides(self, providedBy(wrappedFactory))

    @property
    def terms(self) -> Terms:
        """
        What its links have in common.
        """
        if self._terms is None:
            # Not before it is used: the global reactor is installed by its first import.
            self._terms = Terms(clock=clockFor(self._clock), **self._settings)
        return self._terms

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        """
        See C{IProtocolFactory}.
        """
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else withLink(protocol, self.terms, self.owner())

    def owner(self) -> Owner:
        """
        Who hears of the next link's turns.
        """
        return Unowned()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrappedFactory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.wrappedFactory!r}>"
