# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MemoryStore}: keeps presence as long as the process lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice

from twisted.internet.defer import Deferred, succeed

from ..core.checkins import SavedDeadline
from ..core.presence import Change, Gap, PeerRecord, PeerState, StoredPresence, numberOf
from ..core.validation import isCount, require


class MemoryStore:
    """
    A L{PresenceStore<twisted_heartbeat.presence.store.PresenceStore>} in memory; and a
    L{DeadlineStore<twisted_heartbeat.checkin.store.DeadlineStore>}.
    """

    def __init__(self, keep: int = 10_000) -> None:
        """
        @param keep: the number of changes that are kept.
        @raise ValueError: if it is not a whole number, 1 or more.
        """
        require(isCount(keep), self, "keep", keep, "a whole number, 1 or more")
        self._keep = int(keep)
        self._changes: deque[Change | Gap] = deque()
        self._peers: dict[str, PeerRecord] = {}
        self._cursors: dict[str, int] = {}
        self._deadlines: dict[str, dict[str, SavedDeadline]] = {}
        self._reserved = 0
        self._deleted = 0

    def load(self) -> Deferred[StoredPresence]:
        falls: dict[str, list[float]] = {}
        for change in self._changes:
            if isinstance(change, Change) and change.state is PeerState.DOWN:
                falls.setdefault(change.name, []).append(change.at)
        peers = sorted(self._peers.values(), key=lambda record: record.change.number)
        return succeed(StoredPresence(peers=peers, latest=self._latest, falls=falls))

    @property
    def _latest(self) -> int:
        return numberOf(self._changes[-1]) if self._changes else self._deleted

    def reserve(self, count: int) -> Deferred[int]:
        first = self._reserved + 1
        self._reserved += count
        return succeed(first)

    def append(
        self,
        changes: Sequence[Change | Gap],
        peers: Collection[PeerRecord] = (),
        forgotten: Collection[str] = (),
    ) -> Deferred[None]:
        # The same ones may come twice.
        latest = self._latest
        self._changes.extend(change for change in changes if numberOf(change) > latest)
        while len(self._changes) > self._keep:
            self._deleted = numberOf(self._changes.popleft())
        for record in peers:
            self._peers[record.change.name] = record
        for name in forgotten:
            self._peers.pop(name, None)
        return succeed(None)

    def changes(self, since: int, limit: int) -> Deferred[list[Change | Gap]]:
        found: list[Change | Gap] = []
        if since < self._deleted:
            found.append(Gap(since + 1, self._deleted))
        later = (change for change in self._changes if numberOf(change) > since)
        found += islice(later, limit - len(found))
        return succeed(found)

    def history(self, name: str, limit: int) -> Deferred[list[Change | Gap]]:
        newest = (
            change
            for change in reversed(self._changes)
            if isinstance(change, Gap) or change.name == name
        )
        return succeed(list(islice(newest, limit))[::-1])

    def cursor(self, name: str) -> Deferred[int | None]:
        return succeed(self._cursors.get(name))

    def setCursor(self, name: str, number: int) -> Deferred[None]:
        self._cursors[name] = number
        return succeed(None)

    def loadDeadlines(self, source: str) -> Deferred[Sequence[SavedDeadline]]:
        return succeed(list(self._deadlines.get(source, {}).values()))

    def saveDeadlines(
        self, source: str, saved: Sequence[SavedDeadline], forgotten: Collection[str]
    ) -> Deferred[None]:
        kept = self._deadlines.setdefault(source, {})
        kept |= {one.name: one for one in saved}
        for name in forgotten:
            kept.pop(name, None)
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)
