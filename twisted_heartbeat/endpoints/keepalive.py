# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The C{keepalive:} prefix: it sets the operating system's options on each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zope.interface import directlyProvides, providedBy

from ..core.settings import KeepAlive
from ..logs import SafeLogger
from ..protocol.overrides import MethodCover, setOwn
from ..protocol.proxy import ProtocolProxy, proxyOf
from ..transport.keepalive import applyKeepAlive
from .prefix import Prefix, numbersOf

_log = SafeLogger()


KEEPALIVE = Prefix(
    "keepalive", ("idle", "interval", "count", "userTimeout"), "keepalive:tcp:8080:idle=30"
)


class KeepAliveFactory:
    """
    Sets keepalive on each connection of another factory.

    It provides what that factory provides, and forwards unknown attributes.  Its protocols are that
    factory's own, or a proxy of a protocol whose methods can not be covered.
    """

    def __init__(self, factory: Any, apply: Callable[[Any], None]) -> None:
        """
        @param apply: takes a transport.
        """
        self._factory = factory
        self._apply = apply
        directlyProvides(self, providedBy(factory))

    def buildProtocol(self, addr: Any) -> Any:
        protocol = self._factory.buildProtocol(addr)
        if protocol is None or _UntilConnected(protocol, self._apply).cover():
            return protocol
        return proxyOf(_ConnectedProxy, protocol, self._apply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"


class _UntilConnected:
    """
    Covers the methods that connect a protocol, until one of them is called, see
    L{MethodCover<twisted_heartbeat.protocol.overrides.MethodCover>}.

    Most transports call C{makeConnection}.  Some set C{protocol.transport} themselves and call
    C{connectionMade} alone.
    """

    def __init__(self, protocol: Any, connected: Callable[[Any], object]) -> None:
        """
        @param connected: called once with the transport, after the protocol has been told.  So the
            endpoint's settings win over those that the protocol makes in C{connectionMade}.
        """
        self._protocol = protocol
        self._connected = connected
        self._covers: dict[str, MethodCover] = {}

    def cover(self) -> bool:
        """
        Cover the methods.

        @return: whether the protocol can be covered.  If not, nothing is changed.
        """
        for name, cover in (
            ("makeConnection", self._makeConnection),
            ("connectionMade", self._connectionMade),
        ):
            if not hasattr(self._protocol, name):
                continue
            self._covers[name] = MethodCover(self._protocol, name, cover)
            if not self._covers[name].lay():
                self._lift()
                return False
        return True

    def _lift(self) -> dict[str, MethodCover]:
        covers, self._covers = self._covers, {}
        for cover in covers.values():
            cover.lift()
        return covers

    def _makeConnection(self, transport: Any) -> None:
        self._lift()["makeConnection"].covered(transport)
        self._connected(transport)

    def _connectionMade(self) -> None:
        self._lift()["connectionMade"].covered()
        self._connected(self._protocol.transport)


class _ConnectedProxy(ProtocolProxy):
    """
    Stands before a protocol whose methods can not be covered.
    """

    _heartbeatConnected: Callable[[Any], object]

    def __init__(self, protocol: Any, connected: Callable[[Any], object]) -> None:
        super().__init__(protocol)
        setOwn(self, "_heartbeatConnected", connected)

    def makeConnection(self, transport: Any) -> None:
        self._heartbeatProtocol.makeConnection(transport)
        self._heartbeatConnected(transport)

    def connectionMade(self) -> None:
        self._heartbeatProtocol.connectionMade()
        self._heartbeatConnected(self._heartbeatProtocol.transport)


class _KeepAliveSetter:
    """
    Sets the options, and warns once where the transport has none.
    """

    def __init__(self, keepAlive: KeepAlive, words: str) -> None:
        self._keepAlive = keepAlive
        self._words = words
        self._said = False

    def apply(self, transport: Any) -> None:
        applied = applyKeepAlive(transport, self._keepAlive)
        if not applied.enabled and not self._said:
            self._said = True
            reason = " ".join(applied.missing)
            _log.warn("{endpoint}: {reason}", endpoint=self._words, reason=reason)

    def wrap(self, factory: Any) -> KeepAliveFactory:
        return KeepAliveFactory(factory, self.apply)


def keepAliveWrapper(own: Mapping[str, str], reactor: Any, words: str) -> Callable[[Any], Any]:
    """
    Return the wrapper of the factories behind C{keepalive:}.

    @param own: the arguments of the prefix, as text.
    @param words: the whole string, for the log.
    @raise ValueError: if an argument is not allowed.
    """
    return _KeepAliveSetter(KeepAlive(**numbersOf(own)), words).wrap
