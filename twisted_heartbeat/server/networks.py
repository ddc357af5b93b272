# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{networkOf}: the network that a limit per address counts by.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from ..link.config import plainAddress


def networkOf(address: Any) -> str | None:
    """
    Whose a peer's address is: one IPv4 address, or one IPv6 network of 64 bits, which is what one
    host has to choose its address from (RFC 4291, 2.5.4).

    @return: L{None} for an address that has no host, such as a UNIX socket's.
    """
    host: str | None = getattr(plainAddress(address), "host", None)
    if host is None or ":" not in host:
        return host
    try:
        number = int(IPv6Address(host.partition("%")[0]))
    except ValueError:
        # A load balancer's header may hold anything.
        return host
    return f"{IPv6Address(number >> 64 << 64)}/64"
