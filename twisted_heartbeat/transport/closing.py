# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The layers of a transport that a polite close acts on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet import tcp
from twisted.protocols.tls import TLSMemoryBIOProtocol

from .compat import bytesBufferedIn, canHoldSocketOpen, isAborting
from .connection import ObservedConnection
from .layers import MAX_WRAPPERS, Buffering
from .tcpinfo import sendQueueSize
from .tls import isHandshakingTLS


class CloseableStack(NamedTuple):
    """
    The layers of a transport that closes together with its connection.

    @ivar connection: the TCP or UNIX connection.
    @ivar tls: the one TLS layer on it; L{None} if there is none.
    """

    connection: Any
    tls: Any


def closeableStack(transport: Any) -> CloseableStack | None:
    """
    Find the layers that a polite close acts on.

    @return: L{None} if a layer has a close of its own (a tunnel, a second TLS layer), or if the
        connection cannot be half-closed now (a TLS handshake, a close in progress).
    """
    tls: Any = None
    layer = transport
    for _ in range(MAX_WRAPPERS + 1):
        if layer is None or isinstance(layer, Buffering):
            return None
        if isinstance(layer, TLSMemoryBIOProtocol):
            if tls is not None:
                return None
            tls = layer
        if isinstance(layer, tcp.Connection):
            break
        layer = getattr(layer, "transport", None)
    else:
        return None
    if layer.TLS:
        if tls is not None:
            return None
        tls = layer.protocol
    isOpen = layer.connected and not layer.disconnecting and not isAborting(layer)
    canClose = isOpen and canHoldSocketOpen() and not isHandshakingTLS(tls)
    return CloseableStack(layer, tls) if canClose else None


def bytesUnacknowledged(connection: Any) -> int:
    """
    Count the bytes that the peer's kernel has not acknowledged, including those that wait in this
    process.  A UNIX socket has one kernel, which acknowledges what it accepts.
    """
    waiting = bytesBufferedIn(connection)
    if isinstance(connection, ObservedConnection) and connection.connected:
        waiting += sendQueueSize(connection.socket) or 0
    return waiting
