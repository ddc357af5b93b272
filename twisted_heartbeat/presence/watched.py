# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the table reads of a watched object: a link, the peer of a monitor, or a checked name.

I{Names.}

 - A name that is proven (C{isAuthenticated}) is the peer's name in the table, so that all carriers
   that prove it stand for one peer.  With C{merge=True} each name is taken for proven.
 - A name that is not proven is C{carrier/name}.  So an impostor on one carrier says nothing about
   the peer of another.
 - Without a name, the peer of a client goes by its source, the name of the service, likewise.
 - Any other peer is C{carrier/address}, or C{carrier/source#number} without an address of its own.
   It is forgotten when it is gone.

A proven name that begins like a name with a carrier has the character after that percent-encoded.
Otherwise the peer that has proven C{udp/a} and one that calls itself C{a} would be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.text import textOf
from ..core.witnesses import Witness
from ..link.addresses import peerName

if TYPE_CHECKING:
    from ..link.watched import Watched

CARRIERS = ("tcp", "tls", "unix", "stream", "udp", "http")

_LIKE_CARRIER = re.compile(rf"({'|'.join(CARRIERS)})([/%])")


def witnessOf(watched: Watched, merge: bool, numbers: Iterator[int]) -> Witness:
    """
    Return the witness that a watched object is.

    @param merge: as in L{nameOf}.
    @param numbers: as in L{nameOf}.
    """
    name, isNamed = nameOf(watched, merge, numbers)
    return Witness(
        name=name,
        carrier=plainText(watched.carrier),
        source=plainText(watched.source),
        generation=watched.generation,
        address=addressOf(watched),
        bound=numberOrNone(watched.bound),
        isNamed=isNamed,
    )


def numberOrNone(value: object) -> float | None:
    """
    Return a number of a watched object's; L{None} if it has none.
    """
    return float(value) if isinstance(value, int | float) else None


def nameOf(watched: Watched, merge: bool, numbers: Iterator[int]) -> tuple[str, bool]:
    """
    Return the name of a watched object in the table.

    @param merge: whether each name is taken for proven.
    @param numbers: tells peers apart that have neither a name nor an address.
    @return: the name; and whether the peer is kept when it is gone.
    """
    carrier, source = plainText(watched.carrier), plainText(watched.source)
    name = plainText(watched.name)
    proven = merge
    if name:
        proven = merge or bool(watched.isAuthenticated)
    elif not getattr(watched, "isServerSide", True):
        name = source
    if name and proven:
        return _LIKE_CARRIER.sub(_encode, name, count=1) if _LIKE_CARRIER.match(
            name
        ) else name, True
    if name:
        return f"{carrier}/{name}", True
    peer = watched.peer
    if getattr(peer, "host", None) is not None:
        return f"{carrier}/{addressOf(watched)}", False
    return f"{carrier}/{source}#{next(numbers)}", False


def addressOf(watched: Watched) -> str:
    """
    Return the address of a watched object as text; C{""} without one.
    """
    peer = watched.peer
    return "" if peer is None else peerName(peer)


def plainText(value: object) -> str:
    """
    Return text that every store can keep: what is no valid Unicode is escaped.
    """
    return textOf(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _encode(match: re.Match[str]) -> str:
    return f"{match[1]}%{ord(match[2]):02X}"
