# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{unreachable}: whether the kernel has a route to a peer.
"""

from __future__ import annotations

import socket
from errno import EADDRNOTAVAIL
from typing import Any

from .tcpinfo import pendingErrno


def unreachable(connection: socket.socket) -> int:
    """
    Ask our own kernel whether it knows of no way to the peer.  Nothing is sent.

    An established connection is never told that its route has gone.  But the kernel remembers what
    routers and neighbours said of it, as the pending error (C{sk_err_soft}, which C{SO_ERROR}
    yields); and to connect a datagram socket is to ask the routing table.

    @return: an error number, as in the C{errno} module; 0 if there is a way, for all it knows.
    """
    pending = pendingErrno(connection)
    if pending:
        return pending
    try:
        here, there = connection.getsockname(), connection.getpeername()
        with socket.socket(connection.family, socket.SOCK_DGRAM) as asking:
            if not _sameRoutingTable(asking, connection):
                return 0
            return _bound(asking, here) or _connected(asking, there)
    except OSError:
        return 0


def _bound(asking: socket.socket, here: tuple[Any, ...]) -> int:
    try:
        # The port is not ours to share; a link-local address needs its scope.
        asking.bind((here[0], 0, *here[2:]))
    except OSError as error:
        return EADDRNOTAVAIL if error.errno == EADDRNOTAVAIL else 0
    return 0


def _connected(asking: socket.socket, there: tuple[Any, ...]) -> int:
    try:
        asking.connect(there)
    except OSError as error:
        return error.errno or 0
    return 0


_ROUTING = [
    (option, size)
    for name, size in (("SO_MARK", 4), ("SO_BINDTODEVICE", 16))
    if (option := getattr(socket, name, None)) is not None
]
"""What has the kernel look into another routing table, socket(7), and the size of its value."""


def _sameRoutingTable(asking: socket.socket, connection: socket.socket) -> bool:
    """
    @return: whether both ask the same table.
    """
    for option, size in _ROUTING:
        value = connection.getsockopt(socket.SOL_SOCKET, option, size)
        if value.strip(b"\0"):
            try:
                asking.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError:
                return False
    return True
