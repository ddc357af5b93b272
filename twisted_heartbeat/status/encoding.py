# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Peers and changes as JSON.

All of it is ASCII: what a peer says is escaped, so that a terminal can show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from ..core.presence import PeerState

if TYPE_CHECKING:
    from ..core.presence import Change, PeerPresence

Fields = dict[str, object]

_WITH_PEERS = 50
"""Changes that are told together with their peers."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def encode(value: object) -> bytes:
    """
    Encode plain values as JSON, on one line.
    """
    return _encode(value).encode("ascii")


def peerFields(peer: PeerPresence) -> Fields:
    """
    Return what is shown of a peer.  Times are seconds since 1970.
    """
    return {
        "name": peer.name,
        "state": peer.state.value,
        "since": _rounded(peer.since, 3),
        "carriers": list(peer.carriers),
        "lastHeard": _rounded(peer.lastHeard, 3),
        "bound": _rounded(peer.bound, 3),
        "rtt": _rounded(peer.rtt, 6),
        "losses": peer.losses,
        "address": peer.address,
        "cause": peer.cause,
        "reason": peer.reason,
        "falls": peer.falls,
    }


def changeFields(change: Change) -> Fields:
    """
    Return what is shown of a change.
    """
    return {
        "number": change.number,
        "at": _rounded(change.at, 3),
        "name": change.name,
        "state": change.state.value,
        "previous": change.previous.value,
        "carrier": change.carrier,
        "source": change.source,
        "generation": change.generation,
        "address": change.address,
        "cause": change.cause,
        "reason": change.reason,
        "bound": _rounded(change.bound, 3),
    }


def encodeChanges(changes: Iterable[Change], peers: Mapping[str, PeerPresence]) -> bytes:
    """
    Encode changes together with the peers that they are about, as these are now.  A reader need not
    find out what a change means for the peer, and a repeated change does no harm.

    The peers of more than L{_WITH_PEERS} changes are left out: in a storm they would take most of
    the time and of the bytes, and a change says all but the numbers of its peer.
    """
    changes = list(changes)
    last = {change.name: change for change in changes}
    if len(changes) > _WITH_PEERS:
        found: list[PeerPresence] = []
        gone = [name for name, change in last.items() if _isForgotten(change)]
    else:
        present = {name: peers.get(name) for name in last}
        found = [peer for peer in present.values() if peer is not None]
        gone = [name for name, peer in present.items() if peer is None]
    rest = encode({"peers": [peerFields(peer) for peer in found], "gone": gone})
    told = ",".join(map(_encodeChange, changes))
    return b'{"changes":[' + told.encode("ascii") + b"]," + rest[1:]


def _encodeChange(change: Change) -> str:
    """
    Encode what L{changeFields} returns.  A template takes less than half of the time of the encoder
    for the mapping, and a storm is ten thousand changes (C{benchmarks/status.py}).
    """
    at = _rounded(change.at, 3)
    common = _encodeCommon(
        change.state,
        change.previous,
        change.carrier,
        change.source,
        change.cause,
        change.bound,
    )
    return (
        f'{{"number":{change.number},"at":{"null" if at is None else at},'
        f'"name":{_encode(change.name)},"generation":{change.generation},'
        f'"address":{_encode(change.address)},"reason":{_encode(change.reason)},{common}'
    )


@lru_cache(256)
def _encodeCommon(
    state: PeerState,
    previous: PeerState,
    carrier: str,
    source: str,
    cause: str | None,
    bound: float | None,
) -> str:
    """
    Encode what many changes have in common, with the closing brace.
    """
    fields = {
        "state": state.value,
        "previous": previous.value,
        "carrier": carrier,
        "source": source,
        "cause": cause,
        "bound": _rounded(bound, 3),
    }
    return _encode(fields)[1:]


def _isForgotten(change: Change) -> bool:
    return change.state is PeerState.DOWN and not change.isNamed


def _rounded(number: float | None, digits: int) -> float | None:
    if number is None or number != number or number in (inf, -inf):
        # JSON has none of these.
        return None
    return round(number, digits)
