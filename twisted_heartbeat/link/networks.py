# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{networkOf}: the network by which a limit for each address counts.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from .config import plainAddress


def networkOf(address: Any) -> str | None:
    """
    Return the network of a peer: its IPv4 address, or the first 64 bits of its IPv6 address.  An
    IPv6 host can choose any address of its /64 (RFC 4291, 2.5.4), so that a limit per address would
    not limit it.

    @return: L{None} for an address that has no host, such as a UNIX socket's.
    """
    host: str | None = getattr(plainAddress(address), "host", None)
    if host is None or ":" not in host:
        return host
    try:
        number = int(IPv6Address(host.partition("%")[0]))
    except ValueError:
        # The host of a load balancer's header need not be an address.
        return host
    return f"{IPv6Address(number >> 64 << 64)}/64"
