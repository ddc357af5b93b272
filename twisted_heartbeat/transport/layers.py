# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The stack of transports and protocols of a connection: finding a layer, and asking all of them.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProcessTransport,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from .compat import (
    PlainConnection,
    bypassedConnection,
    bytesBufferedIn,
    bytesBufferedInTLS,
    protocolBehindEndpoint,
)

MAX_WRAPPERS = 16
"""How many wrappers of a transport, a protocol or an endpoint are looked through."""


def findConnection(transport: object) -> tcp.Connection | None:
    """
    Find the TCP or UNIX connection under a stack of wrappers.

    @return: L{None} if there is none, or it is under more than 16 wrappers.
    """
    layer: Any = transport
    for _ in range(MAX_WRAPPERS + 1):
        if isinstance(layer, tcp.Connection):
            return layer
        # After startTLS the TLS layer's transport is a stand-in for the connection.
        layer = bypassedConnection(layer) or getattr(layer, "transport", None)
    return None


_IN_MEMORY = (
    ("twisted.internet.testing", "StringTransport"),
    ("twisted.internet.protocol", "FileWrapper"),
    ("twisted.test.iosim", "FakeTransport"),
)
"""Twisted's transports for unit tests, by module and class."""


def isInMemory(transport: object) -> bool:
    """
    Find out whether one of Twisted's transports for unit tests is under a stack of wrappers.  No
    reactor reads those.  Others without a connection, such as a process's, are not in memory.
    """
    # If its module is not loaded, there is no such transport.
    kinds = tuple(getattr(sys.modules.get(module), name, ()) for module, name in _IN_MEMORY)
    layer: Any = transport
    for _ in range(MAX_WRAPPERS + 1):
        if isinstance(layer, kinds):
            return True
        layer = getattr(layer, "transport", None)
    return False


_FORWARDED = (IHalfCloseableProtocol, IFileDescriptorReceiver, IHandshakeListener)


def forwardInterfaces(transport: object) -> None:
    """
    Make the wrapper of Twisted's client endpoints declare the interfaces of what it carries.

    The wrapper forwards three optional interfaces, but declares only the last of them
    (C{directlyProvides} in a loop, L{twisted.internet.endpoints}).  A protocol that listens to its
    handshake would no longer be half-closeable.  What the wrapper carries may be a proxy around the
    protocol, as that of Twisted's C{ClientService}.
    """
    between = getattr(transport, "wrappedProtocol", None) or getattr(transport, "protocol", None)
    carried = protocolBehindEndpoint(between)
    if carried is None:
        return
    for interface in _FORWARDED:
        if interface.providedBy(carried) and not interface.providedBy(between):
            alsoProvides(between, interface)


def isServerSide(connection: object) -> bool:
    """
    Find out whether a port of this process has accepted the connection.
    """
    return isinstance(connection, tcp.Server)


def isClosingLocally(transport: Any) -> bool:
    """
    Find out whether this side has begun to close the connection.

    After C{startTLS} the connection closes itself in answer to the peer's close_notify, so that
    only its TLS layer knows which side began.
    """
    if getattr(transport, "TLS", False):
        # The TLS layer's methods, which startTLS puts on the connection, outlive its loss.
        shown = getattr(transport, "getPeerCertificate", None)
        transport = getattr(shown, "__self__", transport)
    return bool(getattr(transport, "disconnecting", False))


class Relay:
    """
    Stands in for a protocol, and forwards everything that a subclass does not override.

    @ivar protocol: the protocol.
    """

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def connectionLost(self, reason: Failure) -> None:
        self.protocol.connectionLost(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.protocol, name)


class Buffering:
    """
    A layer above the connection that holds bytes until the connection has room for them.

    @ivar waiting: the number of these bytes.
    """

    waiting = 0


def isReadingPaused(transport: object) -> bool:
    """
    Find out whether reading is paused on a connection that does not record it: one on a UNIX
    socket.  The reactor lists all its readers for this, so ask only when a peer is silent.
    """
    connection: Any = findConnection(transport)
    if connection is None or not connection.connected:
        return False
    return connection not in connection.reactor.getReaders()


def bytesBuffered(transport: object, connection: PlainConnection | None) -> int:
    """
    Count the bytes that wait in this process to be sent; 0 if the transport does not tell.

    @param connection: the observed connection under the transport; L{None} to find another one.
    """
    if connection is None:
        found = findConnection(transport)
        below = 0 if found is None else bytesBufferedIn(found)
    else:
        below = connection.bytesBuffered()
        if transport is connection and not connection.TLS:
            return below
    return below + bytesBufferedAbove(transport)


def bytesBufferedAbove(transport: object) -> int:
    """
    Count the bytes that wait in TLS and other layers above the connection.
    """
    total = 0
    layer: Any = transport
    for _ in range(MAX_WRAPPERS):
        if isinstance(layer, tcp.Connection):
            layer = layer.protocol if layer.TLS else None
        if isinstance(layer, Relay):
            layer = layer.protocol
        if layer is None:
            break
        if isinstance(layer, Buffering):
            total += layer.waiting
        if isinstance(layer, TLSMemoryBIOProtocol):
            total += bytesBufferedInTLS(layer)
            if isinstance(getattr(layer, "transport", None), tcp.Connection):
                break
        layer = getattr(layer, "transport", None)
    return total


def abort(transport: Any) -> None:
    """
    End a connection at once, by C{abortConnection} of the nearest layer that has it.

    A process is killed, because a process that hangs does not notice that its pipes are closed, and
    would run beside the next one.  Any other transport gets C{loseConnection}.
    """
    layer = transport
    for _ in range(MAX_WRAPPERS + 1):
        if layer is None:
            break
        aborting = getattr(layer, "abortConnection", None)
        if aborting is not None:
            aborting()
            return
        if IProcessTransport.providedBy(layer):
            # Killing a program of another user is not permitted.
            with suppress(ProcessExitedAlready, OSError):
                layer.signalProcess("KILL")
            break
        layer = getattr(layer, "transport", None)
    transport.loseConnection()
