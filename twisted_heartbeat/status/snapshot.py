# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
All peers of a presence table as JSON, encoded slice by slice.

Ten thousand peers take more than a hundred milliseconds to encode.  So only a slice is encoded in
one turn of the reactor, when the connection has room for it, and all requests of one second share
the slices.  Each slice is a line, and the worst peers come first: a page can show them while the
others are still on their way.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ..core.presence import PeerState
from .encoding import encode, peerFields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.web.http import Request

    from ..core.presence import PeerPresence

_SLICE = 200
"""Peers in one slice."""

_WORST = {PeerState.DOWN: 0, PeerState.SUSPECT: 1, PeerState.UNKNOWN: 2, PeerState.UP: 3}

_SHARED_FOR = 1.0
"""Seconds for which requests share a snapshot."""


class Snapshot:
    """
    The peers of a table at one moment.

    @ivar latest: the number of the last change that the snapshot contains.
    @ivar counts: the number of peers in each state.
    """

    def __init__(self, presence: Any) -> None:
        self.latest: int = presence.latest
        states: Mapping[str, PeerState] = presence.states()
        found = Counter(states.values())
        self.counts = {state.value: found[state] for state in PeerState}
        self._peers: Mapping[str, PeerPresence] = presence.peers
        self._names: Sequence[str] = sorted(states, key=lambda name: _WORST[states[name]])
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
            self._last = Snapshot(self._presence)
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
        self._line = b"\n"
        self._snapshot = snapshot
        self._clock = clock
        self._next = 0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """
        Write the head, and go on as the connection takes it.
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
            self._request.write(b"\n]}")
            self._request.finish()
        elif peers:
            self._request.write(self._line + peers)
            self._line = b",\n"
