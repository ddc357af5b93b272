# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{FaultProxy}: the TCP proxy, and the connections through it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from random import random as systemRandom
from typing import Any, cast

from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .faults import (
    AcceptThenClose,
    HangHandshake,
    StreamFault,
    Toward,
    Which,
    endsToward,
    requireFault,
)
from .pipe import Pipe
from .port import ProxyPort
from .side import ProxySide
from .validation import require, requireAddress, requireNumber, requireTarget

_log = Logger()


class ProxiedConnection:
    """
    One connection through a L{FaultProxy}, until both of its sockets are closed.

    @ivar peer: the client's address.
    """

    def __init__(self, proxy: FaultProxy, peer: IPv4Address | IPv6Address) -> None:
        self.peer = peer
        self._proxy = proxy
        self._client = client = ProxySide(lambda: proxy._accepted(self), self._sideGone)
        self._server = server = ProxySide(lambda: None, self._sideGone)
        pipe = partial(Pipe, proxy._clock, proxy._random, proxy._maxBuffered)
        client.outgoing = server.incoming = pipe(client, server)
        server.outgoing = client.incoming = pipe(server, client)
        self._toward = {"server": server, "client": client}
        self._connecting: Deferred[Any] | None = None
        self._over: Deferred[None] = Deferred()

    def inject(self, fault: StreamFault, *, toward: Toward = "both") -> None:
        """
        Set a fault on this connection alone.

        @raise ValueError: if the fault does not act on existing connections, or for a wrong
            direction.
        """
        requireFault(fault, StreamFault)
        ends = endsToward(toward)
        if isinstance(fault, AcceptThenClose | HangHandshake):
            raise ValueError(f"{fault!r} acts on new connections only: inject it into the proxy")
        for end in ends:
            self._toward[end].incoming.inject(fault)

    def heal(self) -> None:
        """Lift all faults of this connection."""
        for end in self._toward.values():
            end.incoming.heal()

    def reset(self, *, toward: Toward = "both") -> None:
        """
        Send RST (C{SO_LINGER} of 0 seconds). If RST is sent toward one end only, the other end
        keeps a half-open connection until what it sends is answered with RST as well.

        @raise ValueError: for a wrong direction.
        """
        for end in endsToward(toward):
            self._toward[end].abort()
        if self._connecting is not None:
            self._connecting.cancel()

    def halfClose(self, *, toward: Toward) -> None:
        """
        Send FIN behind the bytes on their way. What the other end sends afterwards is discarded,
        except its RST.

        @raise ValueError: for a wrong direction.
        """
        for end in endsToward(toward):
            self._toward[end].incoming.end()

    def _connect(self, target: IStreamClientEndpoint) -> None:
        factory = Factory.forProtocol(lambda: self._server)
        factory.noisy = False
        self._connecting = target.connect(factory)
        self._connecting.addErrback(self._connectFailed)
        self._connecting.addBoth(self._connectEnded)

    def _connectFailed(self, reason: Failure) -> None:
        _log.info("Fault proxy could not reach its target: {reason}", reason=reason.value)
        self._server.gone = True
        self._client.abort()

    def _connectEnded(self, _: object) -> None:
        self._connecting = None
        self._sideGone()

    def _close(self) -> None:
        self._server.gone = True
        self._client.close()

    def _hang(self) -> None:
        # The server side never connects, so nothing leaves the pipe toward it.
        self._server.gone = True

    def _sideGone(self) -> None:
        if self._client.gone and self._server.gone and not self._over.called:
            self._client.incoming.empty()
            self._client.outgoing.empty()
            self._proxy._connections.remove(self)
            self._over.callback(None)


class FaultProxy:
    """
    A TCP proxy that misbehaves on request. Until a fault is set it forwards everything, FIN, RST
    and back-pressure included. The client gets RST if the target cannot be reached.

    @ivar connectionsMade: how many connections have been accepted so far.
    """

    def __init__(
        self,
        reactor: Any,
        target: tuple[str, int] | IStreamClientEndpoint,
        *,
        interface: str = "127.0.0.1",
        port: int = 0,
        maxBuffered: int = 65536,
        clock: IReactorTime | None = None,
        random: Callable[[], float] = systemRandom,
    ) -> None:
        """
        @param reactor: the reactor to run on.
        @param target: where connections go: an IP address and a port, or any endpoint.
        @param interface: the IP address to listen on.
        @param port: the port to listen on; 0 lets the kernel choose.
        @param maxBuffered: how many bytes may wait per direction of a connection before the proxy
            stops reading from the sender.
        @param clock: measures the waits; the reactor by default.
        @param random: returns a number from 0 up to 1; C{random.Random(7).random} makes jitter
            repeatable.

        @raise ValueError: for a wrong target, interface, port or C{maxBuffered}.
        """
        if not IStreamClientEndpoint.providedBy(target):
            requireTarget(target, 'an ("address", port) tuple or a stream client endpoint')
            target = _clientEndpoint(reactor, *target)
        requireAddress("the proxy", interface, port, lowestPort=0)
        requireNumber("maxBuffered", maxBuffered, 1, kind=int)
        self._reactor = reactor
        self._target = target
        self._interface = interface
        self._maxBuffered = maxBuffered
        self._clock: IReactorTime = reactor if clock is None else clock
        self._random = random
        self._listeningPort = ProxyPort(reactor, _ProxyFactory(self), interface, port)
        self._faults: dict[str, dict[type, StreamFault]] = {"server": {}, "client": {}}
        self._welcome: StreamFault | None = None
        self._connections: list[ProxiedConnection] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.connectionsMade = 0

    @property
    def port(self) -> int:
        """The port number to connect to, known once L{listen} has fired."""
        return self._listeningPort.port

    @property
    def description(self) -> str:
        """The client endpoint description that leads to this proxy, for C{clientFromString}."""
        host = self._interface.replace(":", r"\:")
        return f"tcp:host={host}:port={self.port}"

    @property
    def connections(self) -> tuple[ProxiedConnection, ...]:
        """The connections with an open socket, oldest first."""
        return tuple(self._connections)

    def endpoint(self) -> IStreamClientEndpoint:
        """Make a client endpoint that leads to this proxy."""
        return _clientEndpoint(self._reactor, self._interface, self.port)

    def listen(self) -> Deferred[IPv4Address | IPv6Address]:
        """
        Start.

        @return: fires with the address listened on, or fails with
            L{twisted.internet.error.CannotListenError}.
        """
        return self._listeningPort.open().addCallback(lambda _: self._listeningPort.getHost())

    def whenConnectionsMade(self, count: int) -> Deferred[None]:
        """
        Wait for a client to connect, or to reconnect.

        @return: fires once C{connectionsMade} has reached C{count}. It has no timeout of its own:
            use C{addTimeout}.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._tellWaiting()
        return waiting

    def inject(
        self, fault: StreamFault, *, toward: Toward = "both", connections: Which = "all"
    ) -> None:
        """
        Set a fault; it replaces an earlier fault of its kind.

        @param toward: the direction that the fault acts on. L{AcceptThenClose} and L{HangHandshake}
            have none.
        @param connections: act on existing connections, on new connections, or on all.

        @raise ValueError: if C{fault} is no L{StreamFault}, or for a wrong C{toward} or
            C{connections}.
        """
        requireFault(fault, StreamFault)
        ends = endsToward(toward)
        allowed = connections in ("all", "existing", "new")
        require(allowed, "connections", connections, '"all", "existing" or "new"')
        if isinstance(fault, AcceptThenClose | HangHandshake):
            meaning = f'"all" or "new" for {fault!r}'
            require(connections != "existing", "connections", connections, meaning)
            self._welcome = fault
            return
        for end in ends:
            if connections != "existing":
                self._faults[end][type(fault)] = fault
        if connections != "new":
            for connection in self.connections:
                connection.inject(fault, toward=toward)

    def heal(self) -> Deferred[None]:
        """
        Lift all faults, L{refuse} included.

        @return: fires once the port listens, which is at once unless it was refusing.
        """
        self._welcome = None
        for faults in self._faults.values():
            faults.clear()
        for connection in self.connections:
            connection.heal()
        return self._listeningPort.reopen()

    def reset(self, *, toward: Toward = "both") -> None:
        """
        Send RST on all connections that exist; see L{ProxiedConnection.reset}.

        @raise ValueError: for a wrong direction.
        """
        endsToward(toward)
        for connection in self.connections:
            connection.reset(toward=toward)

    def halfClose(self, *, toward: Toward) -> None:
        """
        Send FIN on all connections that exist; see L{ProxiedConnection.halfClose}.

        @raise ValueError: for a wrong direction.
        """
        endsToward(toward)
        for connection in self.connections:
            connection.halfClose(toward=toward)

    def refuse(self) -> Deferred[None]:
        """
        Close the port, so that the kernel refuses new connections. Existing connections stay open,
        and the port number stays reserved.

        @return: fires once the kernel refuses.
        """
        return self._listeningPort.refuse()

    def accept(self) -> Deferred[None]:
        """
        Lift L{refuse}, on the same port.

        @return: fires once the port listens.
        """
        return self._listeningPort.reopen()

    @inlineCallbacks
    def close(self) -> Generator[Deferred[Any], None, None]:
        """
        Stop listening and reset all connections.

        @return: fires once no socket and no delayed call of the proxy is left.
        """
        yield self._listeningPort.close()
        left = self.connections
        for connection in left:
            connection.reset()
        yield gatherResults([connection._over for connection in left])

    def _accepted(self, connection: ProxiedConnection) -> None:
        self._connections.append(connection)
        self.connectionsMade += 1
        for end, faults in self._faults.items():
            for fault in faults.values():
                connection.inject(fault, toward=cast(Toward, end))
        if isinstance(self._welcome, AcceptThenClose):
            connection._close()
        elif isinstance(self._welcome, HangHandshake):
            connection._hang()
        else:
            connection._connect(self._target)
        self._tellWaiting()

    def _tellWaiting(self) -> None:
        for entry in tuple(self._waiting):
            count, waiting = entry
            if self.connectionsMade >= count:
                self._waiting.remove(entry)
                waiting.callback(None)


class _ProxyFactory(Factory):
    noisy = False

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: Any) -> Protocol:
        return ProxiedConnection(self._proxy, addr)._client


def _clientEndpoint(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    kind = TCP6ClientEndpoint if isIPv6Address(host) else TCP4ClientEndpoint
    return cast(IStreamClientEndpoint, kind(reactor, host, port))
