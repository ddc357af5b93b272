# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{readOut}: the last look at a UDP socket before a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

_READ_AT_ONCE = 256 * 1024
"""Bytes that Twisted's port reads in one call, its C{maxThroughput}, unless there are fewer."""


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
