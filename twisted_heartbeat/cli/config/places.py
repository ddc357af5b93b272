# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{sharedPlaces}: parts of a configuration that would listen at one place.

The second of them could not listen, which a start would find only after the first had begun.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from ...transport.compat import interfaceOfEndpoint, pathOfEndpoint, portOfEndpoint
from .faults import Fault, keyText
from .resolver import Objects, innermost
from .values import HTTP, Config, Listen, Part, Reference, Status, UDPMonitor

_ALL = ("0.0.0.0", "::")
"""The addresses that stand for all of their family."""


def sharedPlaces(config: Config, objects: Objects) -> Iterator[Fault]:
    """
    Yield the fault of each part that would listen where an earlier one does.
    """
    taken: dict[Any, list[tuple[str, Part]]] = {}
    for part in config.parts:
        found = _placeOf(part, objects)
        if found is None:
            continue
        where, host = found
        others = taken.setdefault(where, [])
        for address, other in others:
            if _overlap(host, address):
                words = f"listens where {keyText(other.path)} does: {part.label}"
                yield Fault(part.path, words)
                break
        others.append((host, part))


def _placeOf(part: Part, objects: Objects) -> tuple[Any, str] | None:
    """
    Return where a part listens: the kind of socket with its port or path, and the address; L{None}
    if it does not listen, or if the system chooses the port.
    """
    if isinstance(part, UDPMonitor):
        host, port = part.place
        return (("udp", port), _plain(host)) if port else None
    if not isinstance(part, Listen | HTTP | Status):
        return None
    endpoint = innermost(objects[Reference("listen", part.endpoint)])
    path, port = pathOfEndpoint(endpoint), portOfEndpoint(endpoint)
    if path is not None:
        return ("unix", os.path.abspath(path)), ""
    host = interfaceOfEndpoint(endpoint) or ""
    return (("tcp", port), _plain(host)) if port else None


def _plain(host: str) -> str:
    """
    Return an address in the one form that all its spellings have; a name as it is.
    """
    try:
        return str(ip_address(host or "0.0.0.0"))
    except ValueError:
        return host


def _overlap(one: str, other: str) -> bool:
    """
    Whether the same port cannot be listened on at two addresses.
    """
    if "::" in (one, other) and _takesBothFamilies():
        return True
    isOneFamily = (":" in one) == (":" in other)
    return one == other or (isOneFamily and (one in _ALL or other in _ALL))


def _takesBothFamilies() -> bool:
    """
    Whether a socket that listens at C{::} takes IPv4 as well, as on Linux; see ipv6(7).
    """
    try:
        with socket.socket(socket.AF_INET6) as fresh:
            return not fresh.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False
