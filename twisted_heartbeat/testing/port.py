# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ProxyPort}: the listening port of a proxy.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from typing import Any, cast

from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory


class ProxyPort:
    """A listening port that can refuse, and open again on the same number."""

    def __init__(self, reactor: Any, factory: Factory, interface: str, port: int) -> None:
        self._reactor = reactor
        self._factory = factory
        self._interface = interface
        self._lock = DeferredLock()
        self._listening: IListeningPort | None = None
        self._reserved: socket.socket | None = None
        self.port = port

    def open(self) -> Deferred[None]:
        """Listen."""
        return self._lock.run(self._open)

    def reopen(self) -> Deferred[None]:
        """Listen again after L{refuse}."""
        return self._lock.run(self._reopen)

    def refuse(self) -> Deferred[None]:
        """Close the port, so that the kernel refuses, and keep its number."""
        return self._lock.run(self._refuse)

    def close(self) -> Deferred[None]:
        """Close the port for good."""
        return self._lock.run(self._shut)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address listened on."""
        assert self._listening is not None
        return cast(IPv4Address | IPv6Address, self._listening.getHost())

    def _open(self) -> None:
        if self._listening is None:
            self._release()
            self._listening = self._reactor.listenTCP(
                self.port, self._factory, backlog=1024, interface=self._interface
            )
            self.port = self.getHost().port

    def _reopen(self) -> None:
        if self._reserved is not None:
            self._open()

    @inlineCallbacks
    def _refuse(self) -> Generator[Deferred[None], None, None]:
        if self._listening is not None:
            yield self._shut()
            self._reserve()

    @inlineCallbacks
    def _shut(self) -> Generator[Deferred[Any], None, None]:
        self._release()
        listening, self._listening = self._listening, None
        if listening is not None:
            yield maybeDeferred(listening.stopListening)

    def _reserve(self) -> None:
        # Bound but not listening, so the kernel refuses. If the number were left free, another
        # program could take it. A client that retries could even get it as its own port, and
        # connect to itself.
        family = socket.AF_INET6 if isIPv6Address(self._interface) else socket.AF_INET
        self._reserved = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((self._interface, self.port))

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
