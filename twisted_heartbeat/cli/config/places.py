# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{sharedPlaces}: parts of a configuration that would listen at one place.

The second of them could not listen, which a start would find only after the first had begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...transport.compat import interfaceOfEndpoint, pathOfEndpoint, portOfEndpoint
from .faults import Fault, keyText
from .resolver import Objects, innermost
from .values import HTTP, Config, Listen, Part, Reference, Status, UDPMonitor

_ALL = ("", "0.0.0.0", "::")
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
            if host == address or host in _ALL or address in _ALL:
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
        return (("udp", ":" in host, port), host) if port else None
    if not isinstance(part, Listen | HTTP | Status):
        return None
    endpoint = innermost(objects[Reference("listen", part.endpoint)])
    path, port = pathOfEndpoint(endpoint), portOfEndpoint(endpoint)
    if path is not None:
        return ("unix", path), ""
    host = interfaceOfEndpoint(endpoint) or ""
    return (("tcp", ":" in host, port), host) if port else None
