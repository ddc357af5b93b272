# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{readOut}: the last look at a UDP socket before a verdict; and L{enlargeBuffer}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import SO_RCVBUF, SOL_SOCKET, socket
from typing import Any

_READ_AT_ONCE = 256 * 1024
"""Bytes that Twisted's port reads in one call, its C{maxThroughput}, unless there are fewer."""

BUFFER = 8 * 1024 * 1024
"""
Bytes of the kernel's buffer that are asked for.  Linux counts some 800 for a heartbeat, so its
default, 208 KiB, holds 28 ms of ten thousand peers at 1 Hz.
"""

_SO_RCVBUFFORCE = 33
"""Of Linux: ignores the limit C{net.core.rmem_max}, for root.  Source: socket(7)."""


def enlargeBuffer(port: socket) -> None:
    """
    Ask the kernel for room for datagrams that come while this process does something else.  It
    grants no more than its own limit, C{net.core.rmem_max}.
    """
    for option in (SO_RCVBUF, _SO_RCVBUFFORCE):
        # The second is refused to all but root, and other systems may not know it.
        with suppress(OSError):
            if port.getsockopt(SOL_SOCKET, SO_RCVBUF) < BUFFER:
                port.setsockopt(SOL_SOCKET, option, BUFFER)


def readOut(port: Any) -> None:
    """
    Read all that the kernel holds for a port.  That is no more than the size of its buffer, however
    fast more arrives, so that a flood cannot keep this from ending.

    @param port: a port of Twisted's; any other transport is left to the reactor's polls.
    """
    doRead: Callable[[], None] | None = getattr(port, "doRead", None)
    if doRead is not None:
        # A failure of the socket shows at the reactor's next poll, too.
        with suppress(OSError):
            size = port.getHandle().getsockopt(SOL_SOCKET, SO_RCVBUF)
            for _ in range(1 + size // _READ_AT_ONCE):
                doRead()
