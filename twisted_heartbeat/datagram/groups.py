# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Multicast: L{joinGroups} for monitors, L{sendFrom} for senders; and L{Zone}.

Twisted's C{joinGroup} takes only IPv4 groups in its older versions, so the socket is asked.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address, ip_address
from typing import Any


def joinGroups(port: socket.socket, groups: Collection[str]) -> None:
    """
    Join multicast groups on a socket.

    @param groups: IP addresses, each with the name of an interface if it matters:
        C{"239.255.84.71%eth0"}, C{"ff02::8471%eth0"}.  Otherwise the system chooses it.
    @raise OSError: if the system refuses, or there is no such interface.
    @raise ValueError: if a group is no IP address.
    """
    for group in groups:
        host, _, interface = group.partition("%")
        address = ip_address(host)
        index = socket.if_nametoindex(interface) if interface else 0
        if isinstance(address, IPv4Address):
            # struct ip_mreqn, ip(7): the group, the address of the interface, its index.
            membership = struct.pack("@4s4si", address.packed, bytes(4), index)
            port.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            # struct ipv6_mreq, ipv6(7).
            membership = struct.pack("@16sI", address.packed, index)
            port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)


def sendFrom(port: socket.socket, interface: str) -> None:
    """
    Send to IPv4 multicast groups by the interface that has this address.  An IPv6 group names its
    interface itself.
    """
    if interface and ":" not in interface:
        local = socket.inet_aton(interface)
        port.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)


class Zone:
    """
    The interface that link-local IPv6 addresses belong to (RFC 4007).

    Twisted removes the interface from the address of a received datagram, and without it a host
    with several cannot reply.  It is known if all addresses that the user has given name the same
    one.
    """

    def __init__(self, addresses: Collection[str]) -> None:
        zones = {address.partition("%")[2] for address in addresses} - {""}
        self._zone = zones.pop() if len(zones) == 1 else ""

    def complete(self, address: tuple[str, int]) -> tuple[Any, ...]:
        """
        Return an address as a socket takes it.  Python takes the interface from the fourth item
        alone, and not from the host.

        @raise OSError: if there is no such interface now.
        """
        host, _, zone = address[0].partition("%")
        if not zone and host.startswith("fe80:"):
            zone = self._zone
        return (host, address[1], 0, socket.if_nametoindex(zone)) if zone else address
