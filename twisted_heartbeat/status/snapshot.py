# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
All peers of a presence table as JSON, encoded slice by slice.

Ten thousand peers take tens of milliseconds to encode.  So only a slice is encoded in one turn of
the reactor, when the connection has room for it, and all requests of one second share the slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from .encoding import encode, peerFields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.web.http import Request

    from ..core.presence import PeerPresence

_SLICE = 200
"""Peers in one slice."""

_SHARED_FOR = 1.0
"""Seconds for which requests share a snapshot."""


class Snapshot:
    """
    The peers of a table at one moment.

    @ivar latest: the number of the last change that the snapshot contains.
    """

    def __init__(self, latest: int, peers: Mapping[str, PeerPresence]) -> None:
        self.latest = latest
        self._peers = peers
        self._names: Sequence[str] = list(peers)
        self._slices: list[bytes] = []

    def slice(self, number: int) -> bytes | None:
        """
        Return the peers of a slice, with commas between them; L{None} after the last one.
        """
        if number < len(self._slices):
            return self._slices[number]
        names = self._names[number * _SLICE : (number + 1) * _SLICE]
        if not names:
            return None
        # A peer that is gone by now is left out: the change that says so follows in the stream.
        found = [peer for name in names if (peer := self._peers.get(name)) is not None]
        encoded = encode([peerFields(peer) for peer in found])[1:-1]
        self._slices.append(encoded)
        return encoded


class Snapshots:
    """
    Takes the snapshots of a table.
    """

    def __init__(self, presence: Any, clock: IReactorTime) -> None:
        self._presence = presence
        self._clock = clock
        self._last: Snapshot | None = None
        self._takenAt = 0.0

    def take(self) -> Snapshot:
        """
        Return a snapshot that is at most L{_SHARED_FOR} seconds old.
        """
        now = self._clock.seconds()
        if self._last is None or now - self._takenAt > _SHARED_FOR:
            self._last = Snapshot(self._presence.latest, self._presence.peers)
            self._takenAt = now
        return self._last


@implementer(IPushProducer)
class Download:
    """
    Writes a snapshot to a client, as fast as its connection takes it: one slice in each turn of the
    reactor.
    """

    def __init__(
        self,
        request: Request,
        head: Mapping[str, object],
        snapshot: Snapshot,
        clock: IReactorTime,
    ) -> None:
        """
        @param head: the fields before the peers.
        """
        self._request = request
        self._head = encode(head)[:-1] + b',"peers":['
        self._snapshot = snapshot
        self._clock = clock
        self._next = 0
        self._isEmpty = True
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """
        Begin.
        """
        self._request.write(self._head)
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        if self._call is None:
            self._call = self._clock.callLater(0, self._writeSlice)

    def pauseProducing(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def stopProducing(self) -> None:
        self.pauseProducing()

    def _writeSlice(self) -> None:
        # Before it is written, because that may pause this producer.
        self._call = self._clock.callLater(0, self._writeSlice)
        peers = self._snapshot.slice(self._next)
        self._next += 1
        if peers is None:
            self.pauseProducing()
            self._request.unregisterProducer()
            self._request.write(b"]}")
            self._request.finish()
        elif peers:
            separator = b"" if self._isEmpty else b","
            self._isEmpty = False
            self._request.write(separator + peers)
