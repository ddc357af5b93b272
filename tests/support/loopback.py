# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Real sockets on loopback, plain or TLS: a place to listen, endpoints that lead there, and an end of
all that was opened.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest_twisted
import trustme
from OpenSSL import crypto
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IListeningPort,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat import Backoff, Heartbeat, HeartbeatClientService

from .virtualnetwork import Kept, Recorder

T = TypeVar("T")

NAME = "peer.example"
"""What the certificate is for."""

QUICK = Heartbeat(interval=0.2, timeout=0.2)

SOON = Backoff(initial=0.02, maximum=0.05, jitter=None, spread=0)

AMPLE = 5.0
"""Seconds after which a wait for what must come is a failure."""


def within(deferred: Deferred[T], seconds: float = AMPLE) -> Deferred[T]:
    """
    Fail a wait that takes too long.
    """
    from twisted.internet import reactor

    return deferred.addTimeout(seconds, reactor)


def wait(seconds: float) -> Deferred[None]:
    """
    Let so much real time pass, where what is tested is that nothing happens in it.
    """
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, seconds)


@cache
def authority() -> trustme.CA:
    """
    Who vouches for the peer.
    """
    return trustme.CA()


@cache
def serverOptions() -> CertificateOptions:
    """
    A server that proves itself to be C{NAME}.
    """
    issued = authority().issue_cert(NAME)
    chain = [
        crypto.load_certificate(crypto.FILETYPE_PEM, part.bytes())
        for part in issued.cert_chain_pems
    ]
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, issued.private_key_pem.bytes())
    return CertificateOptions(privateKey=key, certificate=chain[0], extraCertChain=chain[1:])


def clientOptions(name: str = NAME) -> Any:
    """
    A client that asks for that proof.
    """
    root = Certificate.loadPEM(authority().cert_pem.bytes())
    return optionsForClientTLS(name, trustRoot=root)


class Certificates:
    """
    Files for the strings of endpoints with TLS.

    @ivar pem: the server's key and certificate, for C{NAME}.
    @ivar roots: the folder with the authority's.
    """

    def __init__(self, folder: Path) -> None:
        self.pem = folder / "server.pem"
        authority().issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        self.roots = folder / "roots"
        self.roots.mkdir()
        authority().cert_pem.write_to_path(str(self.roots / "authority.pem"))


@implementer(IHandshakeListener)
class Peer(Kept):
    """
    An accepted connection, which does nothing by itself.

    @ivar lost: fires when it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: Deferred[None] = Deferred()
        self.heard: DeferredQueue[bytes] = DeferredQueue()

    def connectionMade(self) -> None:
        """
        Tell the listener.
        """
        if not ISSLTransport.providedBy(self.transport):
            self.factory.accepted.put(self)

    def handshakeCompleted(self) -> None:
        """
        Tell the listener.
        """
        self.factory.accepted.put(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        super().dataReceived(data)
        self.heard.put(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell.
        """
        super().connectionLost(reason)
        self.lost.callback(None)


class Peers(Factory):
    """
    @ivar accepted: the connections as they come.
    """

    protocol = Peer
    noisy = False

    def __init__(self) -> None:
        self.accepted: DeferredQueue[Any] = DeferredQueue()


class Loopback:
    """
    All the real sockets of one test.
    """

    def __init__(self, secured: bool = False) -> None:
        self.secured = secured
        self._ports: list[IListeningPort] = []
        self._services: list[HeartbeatClientService] = []
        self._ends: list[Callable[[], object]] = []

    def listen(
        self, factory: Factory, *, secured: bool | None = None, window: int | None = None
    ) -> int:
        """
        @param window: bytes that a peer's kernel takes in for it; the system's own rule if L{None}.
        @return: the port's number.
        """
        from twisted.internet import reactor

        if self.secured if secured is None else secured:
            port = reactor.listenSSL(0, factory, serverOptions(), interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        if window is not None:
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._ports.append(port)
        number: int = port.getHost().port
        return number

    def deafPort(self, backlog: int) -> int:
        """
        A port whose process never accepts: its kernel does, until the queue is full.
        """
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        self.atEnd(listening.close)
        number: int = listening.getsockname()[1]
        return number

    def endpoint(self, port: int, name: str = NAME) -> IStreamClientEndpoint:
        """
        The way to a port.
        """
        from twisted.internet import reactor

        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return wrapClientTLS(clientOptions(name), plain) if self.secured else plain

    def service(self, endpoint: Any, factory: Any, **settings: Any) -> HeartbeatClientService:
        """
        A service that has been started.
        """
        settings = {"retryPolicy": SOON, **settings}
        service = HeartbeatClientService(endpoint, factory, **settings)
        self._services.append(service)
        service.startService()
        return service

    def atEnd(self, end: Callable[[], object]) -> None:
        """
        Call that, too, at the end.
        """
        self._ends.append(end)

    def close(self) -> Deferred[Any]:
        """
        End all.
        """
        endings = [service.stopService() for service in self._services]
        endings += [maybeDeferred(end) for end in self._ends]
        endings += [maybeDeferred(port.stopListening) for port in self._ports]
        return gatherResults(endings)


@contextmanager
def opened(secured: bool) -> Iterator[Loopback]:
    """
    For a fixture.
    """
    loopback = Loopback(secured)
    yield loopback
    pytest_twisted.blockon(within(loopback.close(), 10))


def connectedPair(
    loopback: Loopback,
    hooks: Recorder,
    factory: Any,
    *,
    window: int | None = None,
    **settings: Any,
) -> Deferred[tuple[HeartbeatClientService, Any]]:
    """
    A service, and the peer that has accepted its connection.
    """
    peers = Peers()
    endpoint = loopback.endpoint(loopback.listen(peers, window=window))
    connected = hooks.next("connected")
    service = loopback.service(endpoint, factory, hooks=hooks, **settings)
    both = gatherResults([peers.accepted.get(), connected])
    return within(both.addCallback(lambda results: (service, results[0])))
