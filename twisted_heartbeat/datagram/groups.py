# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{joinGroups}: membership in multicast groups.

Twisted's C{joinGroup} takes only IPv4 groups in its older versions, so the socket is asked.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address, ip_address


def joinGroups(port: socket.socket, groups: Collection[str], interface: str) -> None:
    """
    Join multicast groups on a socket.

    @param interface: the IP address of the interface to join on; C{""} or C{"::"} leaves that to
        the system.  An IPv6 group may name its interface itself: C{"ff02::1%eth0"}.
    @raise OSError: if the system refuses.
    @raise ValueError: if a group is no IP address.
    """
    for group in groups:
        host, _, zone = group.partition("%")
        address = ip_address(host)
        if isinstance(address, IPv4Address):
            local = socket.inet_aton(interface or "0.0.0.0")
            option = socket.IP_ADD_MEMBERSHIP
            port.setsockopt(socket.IPPROTO_IP, option, address.packed + local)
        else:
            index = socket.if_nametoindex(zone) if zone else 0
            membership = address.packed + struct.pack("@I", index)
            port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
