# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatFactory}: watches the connections of any factory, which is not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import Declaration, directlyProvides, implementer, providedBy

from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig, changedSettings
from ..link.link import Link
from ..link.owner import UnmanagedOwner
from ..link.state import LinkState
from ..logs import STRANGER_INTERVAL, LogRateLimit
from ..timing.monotonic import clockFor
from ..transport.layers import MAX_WRAPPERS
from .delivery import DELIVERIES, deliverData, deliverEnd, deliverHandshake
from .mixedlink import MixedInLink, giveLink
from .mixin import HeartbeatMixin, pingOf
from .overrides import setOwn
from .proxy import ProtocolProxy, proxyOf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..link.config import Ping
    from ..link.hooks import Hooks
    from ..link.owner import LinkOwner


@lru_cache(maxsize=256)
def _listening(provided: Any) -> Any:
    """
    Return what a wrapper provides, around a protocol that provides this.
    """
    return Declaration(IHandshakeListener, provided)


class WrappedProtocol(ProtocolProxy):
    """
    A proxy that tells a link of the transport's calls to the protocol.  It changes no byte.

    @ivar link: the link.
    """

    link: Link

    # The protocol's connectionMade, if another one was set over it.
    _heartbeatMade: Callable[[], object] | None = None

    def __init__(self, protocol: Any, config: LinkConfig, owner: LinkOwner) -> None:
        super().__init__(protocol)
        self.heartbeatRenew(config, owner)

    def heartbeatRenew(self, config: LinkConfig, owner: LinkOwner) -> None:
        """
        Watch the next connection by a new link.
        """
        setOwn(self, "link", Link(config, owner, self._heartbeatProtocol, self))
        if not isinstance(self.dataReceived, partial):
            # Otherwise the application has set its own.
            setOwn(self, "dataReceived", self._heartbeatData)

    @property
    def __providedBy__(self) -> Any:
        # Not stored, because the protocol may be given further interfaces at any time.
        return _listening(providedBy(self._heartbeatProtocol))

    def makeConnection(self, transport: Any) -> None:
        self.link.connectionMade(transport)
        self._heartbeatProtocol.makeConnection(transport)
        self.link.protocolConnected()

    def connectionMade(self) -> None:
        """
        Connect the protocol.  Some transports call this, and not L{makeConnection}.
        """
        self._heartbeatConnect(self._heartbeatMade or self._heartbeatProtocol.connectionMade)

    def _heartbeatConnect(self, made: Callable[[], object]) -> None:
        isNew = self.link.state is LinkState.NEW
        if isNew:
            self.link.connectionMade(self._heartbeatProtocol.transport)
        made()
        if isNew:
            self.link.protocolConnected()

    def handshakeCompleted(self) -> None:
        deliverHandshake(self.link, self._heartbeatHandshake)

    def _heartbeatHandshake(self) -> None:
        if IHandshakeListener.providedBy(self._heartbeatProtocol):
            self._heartbeatProtocol.handshakeCompleted()

    def dataReceived(self, data: bytes) -> object:
        return self._heartbeatProtocol.dataReceived(data)

    def _heartbeatData(self, data: bytes) -> object:
        if self.link.observesReads and self.dataReceived == self._heartbeatData:
            del self.dataReceived
        return deliverData(self.link, self._heartbeatProtocol.dataReceived, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.dataReceived == self._heartbeatData:
            # The bound method refers to the wrapper. The cycle would need the garbage collector.
            del self.dataReceived
        deliverEnd(self.link, self._heartbeatProtocol.connectionLost, reason)

    def __setattr__(self, name: str, value: object) -> None:
        hear = DELIVERIES.get(name)
        if name == "connectionMade":
            self._heartbeatCoverMade(cast(Callable[[], object], value))
        elif hear is None:
            super().__setattr__(name, value)
        else:
            # The new method need not call the old one, so the link must be told before it.
            setOwn(self, name, partial(self._heartbeatHear, hear, value))

    def _heartbeatHear(self, hear: Callable[..., object], method: object, *given: object) -> object:
        return hear(self.link, method, *given)

    def _heartbeatCoverMade(self, made: Callable[[], object]) -> None:
        """
        Put a method in the place of C{connectionMade}.  The protocol gets it as well, because the
        protocol's C{makeConnection} calls it there.
        """
        if self._heartbeatMade is None:
            # The new method may call this one by way of the proxy.
            setOwn(self, "_heartbeatMade", self._heartbeatProtocol.connectionMade)
        self._heartbeatProtocol.connectionMade = made
        setOwn(self, "connectionMade", partial(self._heartbeatConnect, made))

    def __delattr__(self, name: str) -> None:
        if name == "connectionMade" and self._heartbeatMade is not None:
            del self._heartbeatProtocol.connectionMade
        super().__delattr__(name)


class _InnerLink(MixedInLink):
    """
    The link of a mixed-in protocol inside of wrappers of Twisted's.
    """

    __slots__ = ("_wrapper",)

    def __init__(
        self, config: LinkConfig, owner: LinkOwner, protocol: HeartbeatMixin, wrapper: Any
    ) -> None:
        super().__init__(config, owner, protocol, protocol, pingOf(type(protocol)))
        self._wrapper = wrapper

    @property
    def built(self) -> Any:
        return self._wrapper

    @property
    def outermost(self) -> Any:
        return self._wrapper


def _isMixedIn(protocol: object) -> bool:
    """
    Whether C{HeartbeatMixin} is mixed into a protocol itself.
    """
    return isinstance(protocol, HeartbeatMixin) and not isinstance(protocol, ProtocolProxy)


_TWISTED_WRAPPERS = ("twisted.protocols.policies", "twisted.protocols.tls")
"""Modules whose C{makeConnection} connects the wrapped protocol in the same call."""


def _mixedInInside(protocol: Any) -> HeartbeatMixin | None:
    """
    Return the mixed-in protocol inside of wrappers around one another, as of C{WrappingFactory},
    C{ThrottlingFactory}, C{TimeoutFactory} and C{TLSMemoryBIOFactory}.

    @return: L{None} if there is none, if another factory of this package has given it a link, or if
        a wrapper has a C{makeConnection} of its own.  That may connect its protocol later or never,
        and a link that waited for it would not hear of the end of the connection.
    """
    layer = protocol
    for _ in range(MAX_WRAPPERS):
        kind = type(layer)
        if not issubclass(kind, ProtocolWrapper):
            return None
        if kind.makeConnection.__module__ not in _TWISTED_WRAPPERS:
            return None
        layer = layer.wrappedProtocol
        if _isMixedIn(layer):
            link = layer.link
            return layer if link is None or link.state is LinkState.GONE else None
    return None


def attachLink(protocol: Any, config: LinkConfig, owner: LinkOwner) -> tuple[Any, Link]:
    """
    Give a protocol a link.  A mixed-in protocol gets a L{MixedInLink}, also inside of wrappers of
    Twisted's.  Any other is wrapped in a L{WrappedProtocol}.  Wrappers are wrapped, too, if a ping
    was given, because the ping takes what the factory has built.

    @return: the protocol that the transport is to speak to, and the link.
    """
    if _isMixedIn(protocol):
        ping = config.ping or pingOf(type(protocol))
        link = MixedInLink(config, owner, protocol, protocol, ping)
        giveLink(protocol, link)
        return protocol, link
    inner = _mixedInInside(protocol) if config.ping is None else None
    if inner is not None:
        link = _InnerLink(config, owner, inner, protocol)
        giveLink(inner, link)
        return protocol, link
    wrapped = proxyOf(WrappedProtocol, protocol, config, owner)
    return wrapped, wrapped.link


def holds(wrapper: object, protocol: object, depth: int = 3) -> bool:
    """
    Find out whether a wrapper of any kind has a protocol among its attributes, or inside of other
    protocols there; true for a wrapper with C{__slots__}, which does not tell.

    @param depth: how many protocols inside of one another are looked through.
    """
    if not hasattr(wrapper, "__dict__"):
        return True
    for held in [*vars(wrapper).values()]:
        isWrapper = depth > 0 and hasattr(type(held), "dataReceived")
        if held is protocol or isWrapper and holds(held, protocol, depth - 1):
            return True
    return False


def defaultLinkName(factory: object) -> str:
    """
    Return what the log calls the links of a factory without a name.
    """
    protocol = getattr(factory, "protocol", None)
    return getattr(protocol, "__name__", None) or type(factory).__name__


@implementer(IProtocolFactory)
class HeartbeatFactory:
    """
    Watches every connection of another factory, on either side.

    It provides what the wrapped factory provides, and forwards unknown attributes.
    """

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        *,
        heartbeat: Heartbeat | None = Heartbeat(),
        keepAlive: KeepAlive | None = KeepAlive(),
        limits: Limits | None = Limits(),
        hooks: Hooks | None = None,
        ping: Ping | None = None,
        clock: IReactorTime | None = None,
        name: str | None = None,
    ) -> None:
        """
        @param heartbeat: L{None} to prove nothing by silence.
        @param keepAlive: L{None} to leave the operating system's options alone.
        @param limits: L{None} for none.
        @param hooks: called besides the log: one L{LinkHooks}, or a list of several.
        @param ping: takes the protocol and makes the peer speak; may be an C{async def}.
        @param clock: the global reactor's, if L{None}.
        @param name: what the log calls its links.
        """
        self.wrappedFactory = wrappedFactory
        self._clock = clock
        self._strangers = LogRateLimit(STRANGER_INTERVAL)
        self._settings: dict[str, Any] = {
            "heartbeat": heartbeat,
            "keepAlive": keepAlive,
            "limits": limits or Limits.off(),
            "hooks": hooks,
            "ping": ping,
            "name": name or defaultLinkName(wrappedFactory),
            "strangers": self._strangers,
        }
        self._linkConfig: LinkConfig | None = None
        directlyProvides(self, providedBy(wrappedFactory))

    @property
    def linkConfig(self) -> LinkConfig:
        """
        The settings that all its links share.
        """
        if self._linkConfig is None:
            # Made at first use, because clockFor(None) imports the global reactor, which installs
            # one. The application may still choose.
            self._linkConfig = LinkConfig(clock=clockFor(self._clock), **self._settings)
        return self._linkConfig

    def changeSettings(self, **settings: Any) -> None:
        """
        Use other settings for the links that begin from now on.  The others keep those that they
        began with, because their peers may rely on them.

        @param settings: C{heartbeat}, C{keepAlive}, C{limits}, C{hooks} and C{ping}, as for the
            constructor; what is not given stays as it is.
        @raise TypeError: for any other name; then nothing is changed.
        """
        self._change(changedSettings(settings))

    def _change(self, settings: Mapping[str, Any]) -> None:
        """
        @param settings: fields of L{LinkConfig}.
        """
        self._settings |= settings
        if self._linkConfig is not None:
            self._linkConfig = replace(self._linkConfig, **settings)

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else attachLink(protocol, self.linkConfig, self.owner())[0]

    def doStart(self) -> None:
        self._strangers.start()
        self.wrappedFactory.doStart()

    def doStop(self) -> None:
        self._strangers.stop()
        self.wrappedFactory.doStop()

    def owner(self) -> LinkOwner:
        """
        Return the owner of the next link.
        """
        return UnmanagedOwner()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrappedFactory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.wrappedFactory!r}>"
