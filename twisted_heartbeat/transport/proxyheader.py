# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The PROXY protocol's header (C{haproxy:}), in which a load balancer names the client's address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp

from .compat import callOnProxyHeader, isProxyLayer, proxyHeaderOf
from .layers import MAX_WRAPPERS


def _proxyLayer(transport: object) -> Any:
    """
    Return the layer of Twisted's C{haproxy:} under a transport; L{None} if there is none.
    """
    layer: Any = transport
    for _ in range(MAX_WRAPPERS):
        if layer is None or isinstance(layer, tcp.Connection):
            break
        if isProxyLayer(layer):
            return layer
        layer = getattr(layer, "transport", None)
    return None


def awaitHeader(transport: object, received: Callable[[], None]) -> bool:
    """
    Call a function once a transport has read the load balancer's header, and before any byte that
    follows the header is delivered.

    @return: whether there is a header to wait for.
    """
    layer = _proxyLayer(transport)
    if layer is None or proxyHeaderOf(layer) is not None:
        return False
    callOnProxyHeader(layer, received)
    return True


def awaitsHeader(transport: object) -> bool:
    """
    Find out whether the header is still to come.
    """
    layer = _proxyLayer(transport)
    return layer is not None and proxyHeaderOf(layer) is None


def clientAddress(transport: object) -> Any:
    """
    Return the address that the load balancer's header tells; L{None} without one.
    """
    return getattr(proxyHeaderOf(_proxyLayer(transport)), "source", None)


_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20"
"""The first bytes of a header of version 2 with the command LOCAL (PROXY protocol, 2.2)."""


def isHealthCheck(transport: object) -> bool:
    """
    Find out whether the load balancer connected for itself, as the command LOCAL says.
    """
    header = proxyHeaderOf(_proxyLayer(transport))
    return header is not None and header.header.startswith(_LOCAL)
