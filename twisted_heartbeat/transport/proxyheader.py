# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The header in which a load balancer says whose connection it forwards (C{haproxy:}).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet import tcp

from .layers import _MAX_WRAPPERS


def _proxyLayer(transport: object) -> Any:
    """
    The layer of Twisted's C{haproxy:} under a transport; L{None} if there is none.
    """
    # Where nothing has loaded it, there is none, and it need not be loaded for that.
    module = sys.modules.get("twisted.protocols.haproxy._wrapper")
    kind: Any = getattr(module, "HAProxyProtocolWrapper", None)
    layer: Any = transport
    for _ in range(_MAX_WRAPPERS if kind is not None else 0):
        if layer is None or isinstance(layer, tcp.Connection):
            break
        if isinstance(layer, kind):
            return layer
        layer = getattr(layer, "transport", None)
    return None


@cache
def _awaitingHeader(kind: Any) -> Any:
    """
    A subclass of Twisted's layer that says when it has read the header.  Twisted tells nobody, and
    delivers what follows the header in the same call.
    """

    class AwaitingHeader(kind):  # type: ignore[misc]
        @property
        def _proxyInfo(self) -> None:
            return None

        @_proxyInfo.setter
        def _proxyInfo(self, info: object) -> None:
            if info is not None:
                waiting = self.__dict__.pop("_heartbeatsWaiting")
                # From here on it is Twisted's own again, and costs nothing.
                self.__class__ = kind
                self._proxyInfo = info
                for received in waiting:
                    received()

    AwaitingHeader.__name__ = kind.__name__
    return AwaitingHeader


def awaitHeader(transport: object, received: Callable[[], None]) -> bool:
    """
    Call something once a transport has read the header in which a load balancer says whose
    connection it is, and before anything that follows it is delivered.

    @return: whether there is a header to wait for.
    """
    layer = _proxyLayer(transport)
    if layer is None or layer._proxyInfo is not None:
        return False
    if not hasattr(layer, "_heartbeatsWaiting"):
        layer._heartbeatsWaiting = []
        kind: Any = type(layer)
        layer.__class__ = _awaitingHeader(kind)
    layer._heartbeatsWaiting.append(received)
    return True


def awaitsHeader(transport: object) -> bool:
    """
    Whether such a header has not come yet.
    """
    layer = _proxyLayer(transport)
    return layer is not None and layer._proxyInfo is None


_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20"
"""How a header of version 2 with the command LOCAL begins (PROXY protocol, 2.2)."""


def isHealthCheck(transport: object) -> bool:
    """
    Whether a load balancer has made the connection for itself, as it says by LOCAL.
    """
    info = getattr(_proxyLayer(transport), "_proxyInfo", None)
    return info is not None and info.header.startswith(_LOCAL)
