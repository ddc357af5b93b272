# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{routeErrno}: whether the kernel has a route to a peer.
"""

from __future__ import annotations

import socket
from errno import EADDRNOTAVAIL
from typing import Any

from .tcpinfo import pendingErrno


def routeErrno(connection: socket.socket) -> int:
    """
    Ask this host's kernel whether the peer is unreachable.  Nothing is sent.

    The kernel does not report a lost route on an established connection.  But it keeps errors from
    routers and neighbours as the pending error (C{sk_err_soft}, which C{SO_ERROR} returns).  And
    connecting a datagram socket looks the address up in the routing table.

    @return: an error number, as in the C{errno} module; 0 if the kernel knows of no obstacle.
    """
    pending = pendingErrno(connection)
    if pending:
        return pending
    try:
        local, peer = connection.getsockname(), connection.getpeername()
        with socket.socket(connection.family, socket.SOCK_DGRAM) as probe:
            if not _sameRoutingTable(probe, connection):
                return 0
            return _bindErrno(probe, local) or _connectErrno(probe, peer)
    except OSError:
        return 0


def _bindErrno(probe: socket.socket, local: tuple[Any, ...]) -> int:
    try:
        # Port 0, because the connection's own port is in use.  A link-local address needs its
        # scope.
        probe.bind((local[0], 0, *local[2:]))
    except OSError as error:
        return EADDRNOTAVAIL if error.errno == EADDRNOTAVAIL else 0
    return 0


def _connectErrno(probe: socket.socket, peer: tuple[Any, ...]) -> int:
    try:
        probe.connect(peer)
    except OSError as error:
        return error.errno or 0
    return 0


_ROUTING = [
    (option, size)
    for name, size in (("SO_MARK", 4), ("SO_BINDTODEVICE", 16))
    if (option := getattr(socket, name, None)) is not None
]
"""The options that select another routing table, socket(7), and the size of their values."""


def _sameRoutingTable(probe: socket.socket, connection: socket.socket) -> bool:
    """
    Copy the connection's routing options to a probing socket.

    @return: whether both now use the same routing table.
    """
    for option, size in _ROUTING:
        value = connection.getsockopt(socket.SOL_SOCKET, option, size)
        if value.strip(b"\0"):
            try:
                probe.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError:
                return False
    return True
