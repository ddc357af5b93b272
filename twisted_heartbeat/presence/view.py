# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeersView}: the table as a mapping, from names to L{PeerPresence}.

Silence and round-trip times change with each byte that a peer sends.  They are read from the
watched objects when somebody asks, so that a ping costs the table nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.presence import PeerPresence
from ..core.presencetracker import PresenceTracker
from ..core.witnesses import Moment, TrackedPeer
from .watched import numberOrNone


class PeersView(Mapping[str, PeerPresence]):
    """
    All peers as they are at the moment of each look.
    """

    def __init__(
        self,
        tracker: PresenceTracker,
        watched: Mapping[Any, Any],
        moment: Callable[[], Moment],
    ) -> None:
        """
        @param watched: the watched objects, by the keys of their witnesses.
        @param moment: tells the time.
        """
        self._tracker = tracker
        self._watched = watched
        self._moment = moment

    def __getitem__(self, name: str) -> PeerPresence:
        return self._presenceOf(name, self._tracker.peers[name], self._moment())

    def __contains__(self, name: object) -> bool:
        return name in self._tracker.peers

    def __iter__(self) -> Iterator[str]:
        return iter(self._tracker.peers)

    def __len__(self) -> int:
        return len(self._tracker.peers)

    def all(self) -> list[PeerPresence]:
        """
        Return all peers, at one moment.
        """
        moment = self._moment()
        peers = self._tracker.peers.items()
        return [self._presenceOf(name, peer, moment) for name, peer in peers]

    def _presenceOf(self, name: str, peer: TrackedPeer, moment: Moment) -> PeerPresence:
        watched = [self._watched[key] for key in peer.witnesses]
        newest = next(reversed(peer.witnesses.values()), peer.last)
        silence = min(_numbers(watched, "silence"), default=None)
        losses = _numbers(watched, "losses")
        carriers = {witness.carrier for witness in peer.witnesses.values()} or {newest.carrier}
        return PeerPresence(
            name=name,
            state=peer.state,
            since=peer.since,
            carriers=tuple(sorted(carriers)),
            lastHeard=peer.lastHeard if silence is None else moment.at - silence,
            bound=max(_numbers(watched, "bound"), default=None) if watched else peer.bound,
            rtt=min(_numbers(watched, "rtt"), default=None),
            losses=int(sum(losses)) if losses else None,
            address=newest.address,
            cause=peer.cause,
            reason=peer.reason,
            falls=self._tracker.fallsOf(peer, moment.now),
            isNamed=newest.isNamed,
        )


def _numbers(watched: Iterable[Any], field: str) -> list[float]:
    """
    Return the numbers that these objects have in a field.
    """
    values = (numberOrNone(getattr(one, field, None)) for one in watched)
    return [value for value in values if value is not None]
