# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeersView}: the table as a mapping, from names to L{PeerPresence}.

Silence and round-trip times change with each byte that a peer sends.  They are read from the
watched objects when a caller asks, so that a ping costs the table nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.presence import PeerPresence, PeerState
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

    def states(self) -> dict[str, PeerState]:
        """
        Return the state of each peer.  This takes a fiftieth of the time of L{all}.
        """
        return {name: peer.state for name, peer in self._tracker.peers.items()}

    def counts(self) -> Counter[tuple[str, str]]:
        """
        Count the peers by state and carrier.  A peer with several carriers counts under each.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for peer in self._tracker.peers.values():
            carriers = {witness.carrier for witness in peer.witnesses.values()}
            for carrier in carriers or {peer.last.carrier}:
                counts[peer.state.value, carrier] += 1
        return counts

    def _presenceOf(self, name: str, peer: TrackedPeer, moment: Moment) -> PeerPresence:
        newest = next(reversed(peer.witnesses.values()), peer.last)
        carriers: tuple[str, ...] = (newest.carrier,)
        silence = rtt = losses = None
        if len(peer.witnesses) == 1:
            # Nearly all peers.  What follows for several takes twice as long.
            watched = self._watched[next(iter(peer.witnesses))]
            silence, rtt = numberOrNone(watched.silence), numberOrNone(watched.rtt)
            losses, bound = numberOrNone(_lossesOf(watched)), numberOrNone(watched.bound)
        elif peer.witnesses:
            several = [self._watched[key] for key in peer.witnesses]
            carriers = tuple(sorted({witness.carrier for witness in peer.witnesses.values()}))
            silence = min(_numbers(one.silence for one in several), default=None)
            rtt = min(_numbers(one.rtt for one in several), default=None)
            lost = _numbers(map(_lossesOf, several))
            losses = sum(lost) if lost else None
            bound = max(_numbers(one.bound for one in several), default=None)
        else:
            bound = peer.bound
        return PeerPresence(
            name=name,
            state=peer.state,
            since=peer.since,
            carriers=carriers,
            lastHeard=peer.lastHeard if silence is None else moment.at - silence,
            bound=bound,
            rtt=rtt,
            losses=None if losses is None else int(losses),
            address=newest.address,
            cause=peer.cause,
            reason=peer.reason,
            falls=self._tracker.fallsOf(peer, moment.now),
            isNamed=newest.isNamed,
        )


def _lossesOf(watched: Any) -> object:
    """
    Return the messages of a peer's that were lost; L{None} where they are not counted, as on links.
    """
    return getattr(watched, "lost", None)


def _numbers(values: Iterable[object]) -> list[float]:
    """
    Return the numbers among these values.
    """
    numbers = map(numberOrNone, values)
    return [number for number in numbers if number is not None]
