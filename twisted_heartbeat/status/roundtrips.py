# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{RoundTrips}: the round-trip times of the last quarter of an hour, for the line on the page.

The table knows the last round-trip time of each peer.  From the first look at the page until an
hour after the last one, that is noted every L{_EVERY} seconds: 60 numbers of 4 bytes for each peer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isnan, nan
from time import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from ..core.presence import PeerPresence

_EVERY = 15.0
"""Seconds from one sample to the next."""

_KEPT = 60
"""Samples of each peer."""

_SLICE = 500
"""Peers in one turn of the reactor."""

_LOOKED_AT = 3600.0
"""Seconds from the last request to the end of sampling."""


class RoundTrips:
    """
    Samples the round-trip times of a presence table.
    """

    def __init__(self, presence: Any, clock: IReactorTime) -> None:
        self._presence = presence
        self._clock = clock
        self._samples: dict[str, array[float]] = {}
        self._call: IDelayedCall | None = None
        self._until = 0.0
        self._sampledAt = 0.0

    def keepSampling(self) -> None:
        """
        Sample from now on, until L{keepSampling} was not called for an hour.
        """
        self._until = self._clock.seconds() + _LOOKED_AT
        if self._call is None:
            self._begin()

    def stop(self) -> None:
        """
        Sample no more.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def of(self, name: str) -> dict[str, object]:
        """
        Return the samples of one peer, the oldest first; C{None} where the time was not known.
        """
        samples = self._samples.get(name, ())
        values = [None if isnan(value) else round(value, 6) for value in samples]
        return {"every": _EVERY, "until": round(self._sampledAt, 3), "values": values}

    def _begin(self) -> None:
        if self._clock.seconds() > self._until:
            self._call = None
            self._samples.clear()
            return
        self._sampledAt = time()
        peers = self._presence.peers
        for name in [name for name in self._samples if name not in peers]:
            del self._samples[name]
        self._sample(list(peers), 0, self._clock.seconds() + _EVERY)

    def _sample(self, names: Sequence[str], start: int, nextAt: float) -> None:
        peers, samples = self._presence.peers, self._samples
        end = start + _SLICE
        for name in names[start:end]:
            peer: PeerPresence | None = peers.get(name)
            if peer is None:
                continue
            kept = samples.get(name)
            if kept is None:
                kept = samples[name] = array("f")
            kept.append(nan if peer.rtt is None else peer.rtt)
            if len(kept) > _KEPT:
                del kept[0]
        if end < len(names):
            self._call = self._clock.callLater(0, self._sample, names, end, nextAt)
        else:
            delay = max(0.0, nextAt - self._clock.seconds())
            self._call = self._clock.callLater(delay, self._begin)
