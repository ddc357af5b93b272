# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StoreWriter}: brings what the table records into its store.

I{Problem.}  A store waits for a disk, which may be slow, full or locked.  Neither the reactor nor
the subscribers may wait for it.

I{Idea.}  What is to be written gathers in memory.  One call of C{append} at a time takes all of it
(group commit).  After a failure the same is tried again, later and later.

I{Invariants.}

  - Changes are written in order, and none before those ahead of it.
  - What a failed call should have written is written by a later one, or stands in a gap.
  - Changes and the records of their peers are written together, so that a record is never ahead of
    the changes.  Of each peer only the latest record waits.
  - What waits has a limit: of the changes, and of the peers whose records are to be deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..core.presence import Change, Gap, PeerRecord, firstNumberOf, numberOf
from ..logs import SafeLogger
from .store import PresenceStore
from .storeretries import StoreRetries

_log = SafeLogger()

COMMIT_DELAY = 0.05
"""Seconds for which changes gather, so that a commit, which waits for the disk, serves several."""

CLOSE_TIMEOUT = 7.5
"""Seconds for the last write, and for closing the store."""

CURSOR_DELAY = 1.0
"""Seconds for which the cursors of subscribers gather."""


class StoreWriter:
    """
    Writes changes, records and cursors, in the background.

    @ivar waiting: the changes that are not known to be stored, in order.
    """

    def __init__(self, store: PresenceStore, clock: IReactorTime, limit: int) -> None:
        """
        @param limit: changes that may wait; of more, the oldest are replaced by a gap.  And
            records that may wait to be deleted; of more, the oldest stay in the store.  The next
            start then takes their peers for down.
        """
        self._store = store
        self._clock = clock
        self._limit = limit
        self._retries = StoreRetries(clock)
        self.waiting: list[Change | Gap] = []
        self._records: dict[str, PeerRecord] = {}
        self._forgotten: dict[str, None] = {}
        self._cursors: dict[str, int] = {}
        self._call: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._inFlight = 0
        self._stopped = False

    def add(
        self,
        changes: Iterable[Change],
        records: Collection[PeerRecord],
        forgotten: Collection[str],
    ) -> None:
        """
        Write these soon.

        @param forgotten: the names of peers whose records are to be deleted.
        """
        self.waiting += changes
        self._dropOldest()
        self._replace({record.change.name: record for record in records}, forgotten)
        self._schedule()

    def setCursor(self, name: str, number: int) -> None:
        """
        Write the cursor of a subscriber soon.
        """
        self._cursors[name] = number
        self._schedule()

    async def flush(self) -> None:
        """
        Write all that waits now, once, and nothing later.
        """
        self._stopped = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if self._writing is not None:
            await self._writing
            if self._retries.isFailing:
                return
        await self._write()

    @property
    def _isEmpty(self) -> bool:
        return not (self.waiting or self._records or self._forgotten or self._cursors)

    def _replace(self, records: dict[str, PeerRecord], forgotten: Iterable[str]) -> None:
        """
        Let newer records, and newer deletions, wait in place of those of the same peers.
        """
        for name in records:
            self._forgotten.pop(name, None)
        for name in forgotten:
            self._records.pop(name, None)
            self._forgotten[name] = None
        self._records |= records
        excess = len(self._forgotten) - self._limit
        for name in list(islice(self._forgotten, max(0, excess))):
            del self._forgotten[name]

    def _dropOldest(self) -> None:
        """
        Replace the oldest changes by a gap if too many wait.  Those that are being written stay.
        """
        # To drop a tenth at a time costs less than to drop each one.
        if len(self.waiting) <= self._limit + self._limit // 10:
            return
        first, end = self._inFlight, len(self.waiting) - self._limit + 1
        dropped = self.waiting[first:end]
        if dropped:
            self.waiting[first:end] = [Gap(firstNumberOf(dropped[0]), numberOf(dropped[-1]))]

    def _schedule(self) -> None:
        """
        Set the call of the next write, unless a write is under way or has failed: its end sees to
        the rest.
        """
        if self._stopped or self._writing is not None or self._retries.isFailing or self._isEmpty:
            return
        delay = COMMIT_DELAY if self.waiting or self._records or self._forgotten else CURSOR_DELAY
        if self._call is None:
            self._call = self._clock.callLater(delay, self._begin)
        elif self._call.getTime() > self._clock.seconds() + delay:
            self._call.reset(delay)

    def _begin(self) -> None:
        self._call = None
        written = self._write()
        if not written.called:
            self._writing = written
        self._schedule()

    def _write(self) -> Deferred[None]:
        """
        @return: fires when the write has ended, also if it has failed.
        """
        if self._isEmpty:
            return succeed(None)
        return Deferred.fromCoroutine(self._writeAll())

    async def _writeAll(self) -> None:
        changes = list(self.waiting)
        records, self._records = self._records, {}
        forgotten, self._forgotten = self._forgotten, {}
        cursors, self._cursors = self._cursors, {}
        self._inFlight = len(changes)
        try:
            if changes or records or forgotten:
                await self._store.append(changes, list(records.values()), list(forgotten))
                del self.waiting[: len(changes)]
                records, forgotten = {}, {}
            for name in list(cursors):
                await self._store.setCursor(name, cursors[name])
                del cursors[name]
        except BaseException as error:
            # What has come since is newer.
            newer = self._records, self._forgotten
            self._records, self._forgotten = records, forgotten
            self._replace(*newer)
            self._cursors = cursors | self._cursors
            delay = self._retries.failed(error, f"write {len(self.waiting)} changes")
            if not self._stopped:
                self._call = self._clock.callLater(delay, self._begin)
        else:
            self._retries.succeeded()
        finally:
            self._inFlight = 0
            self._writing = None
        self._schedule()


async def closeStore(store: PresenceStore, writer: StoreWriter | None, clock: IReactorTime) -> None:
    """
    Write what waits, and close a store.  It never fails, and gives up when the time is over.

    @param writer: L{None} if nothing was ever to be written.
    """
    if writer is not None:
        await _bounded(Deferred.fromCoroutine(writer.flush()), clock)
        if writer.waiting:
            _log.critical(
                "The last {count} changes are not in the presence store",
                count=len(writer.waiting),
            )
    await _bounded(maybeDeferred(store.close), clock)


async def _bounded(deferred: Deferred[None], clock: IReactorTime) -> None:
    try:
        await deferred.addTimeout(CLOSE_TIMEOUT, clock)
    except BaseException:
        _log.failure("The presence store could not be closed")
