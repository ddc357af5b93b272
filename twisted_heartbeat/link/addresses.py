# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The addresses of peers: in their usual form, in the log, and the networks by which limits count.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from ..core.text import printable, textOf


def plainAddress(address: Any) -> Any:
    """
    Return an address in its usual form, so that it can be compared as text.

    IPv4 mapped into IPv6 (C{::ffff:192.0.2.1}, see RFC 4291, 2.5.5.2) becomes IPv4.  A socket that
    listens on C{::} has such addresses for its IPv4 peers.  Other IPv6 addresses become as short as
    RFC 5952 says.  Twisted's reader of load balancers' headers writes all eight groups.
    """
    if not isinstance(address, IPv6Address):
        return address
    host, percent, zone = address.host.partition("%")
    try:
        number = ipaddress.IPv6Address(host)
    except ValueError:
        # A load balancer's header may hold anything.
        return address
    if number.ipv4_mapped is not None:
        return IPv4Address(address.type, str(number.ipv4_mapped), address.port)
    usual = f"{number}{percent}{zone}"
    if usual == address.host:
        return address
    return IPv6Address(address.type, usual, address.port, address.flowInfo, address.scopeID)


def peerName(address: object) -> str:
    """
    Return what the log calls an address.
    """
    address = plainAddress(address)
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return printable(textOf(address) if host is None else f"{host}:{port}")


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
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        # The host of a load balancer's header need not be an address.
        return host
    return f"{ipaddress.IPv6Address(number >> 64 << 64)}/64"
