# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ChangeLog}: stores what the tracker has recorded, and tells the subscribers.

It is open from the time that the store has been read until it is stopped.  Only then do the tracker
have numbers, and the subscribers anything to hear.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorTime

from ..core.presence import (
    Change,
    Gap,
    PeerPresence,
    PeerRecord,
    PresenceLimits,
    StoredPresence,
)
from ..logs import SafeLogger
from .backlog import Backlog
from .outcome import Outcome
from .reader import ChangeReader
from .store import StoreError
from .storeretries import untilDone
from .subscriptions import Subscriptions
from .tasks import Tasks
from .writer import StoreWriter, closeStore

if TYPE_CHECKING:
    from ..core.presencetracker import PresenceTracker
    from ..core.witnesses import Moment
    from .store import PresenceStore
    from .subscribers import Subscribers

_log = SafeLogger()

NUMBERS = 1_000_000
"""
Numbers that are reserved at a time.  While the store fails, at least half as many changes can still
be told; then the subscribers wait for the store.
"""


class _Open(NamedTuple):
    """
    What there is while the log is open.
    """

    backlog: Backlog
    writer: StoreWriter
    reader: ChangeReader
    subscriptions: Subscriptions


class ChangeLog:
    """
    The changes of a table, in its store and on their way to its subscribers.

    @ivar latestRestored: the highest number that the store had when it was read; 0 before.
    """

    def __init__(
        self,
        tracker: PresenceTracker,
        store: PresenceStore,
        limits: PresenceLimits,
        subscribers: Subscribers,
        *,
        clock: Callable[[], IReactorTime],
        moment: Callable[[], Moment],
        present: Callable[[], Sequence[PeerPresence]],
        publish: Callable[[], None],
    ) -> None:
        """
        @param clock: returns the clock, from the start on.
        @param moment: tells the time.
        @param present: returns all peers as they are now.
        @param publish: called when the tracker has news; calls L{publish} in turn.
        """
        self.latestRestored = 0
        self._tracker = tracker
        self._store = store
        self._limits = limits
        self._moment = moment
        self._present = present
        self._publish = publish
        self._subscribers = subscribers
        self._clock = clock
        self._loading: Outcome | None = None
        self._open: _Open | None = None
        self._reserving = False
        self._lock = DeferredLock()
        self._tasks = Tasks()

    @property
    def isOpen(self) -> bool:
        """
        Whether changes are recorded.
        """
        return self._open is not None

    def start(self) -> None:
        """
        Read the store, and open.
        """
        self._loading = Outcome()
        self._tasks.run(self._load(self._loading))

    def stop(self) -> Deferred[None]:
        """
        Tell nothing any more, write what is not stored, and close the store.

        @return: fires when that is done, or after a time.
        """
        self._tasks.cancel()
        opened, self._open = self._open, None
        if opened is not None:
            opened.subscriptions.stop()
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.fail(RuntimeError("the presence table was stopped"))
        return Deferred.fromCoroutine(self._close(None if opened is None else opened.writer))

    def whenOpen(self) -> Deferred[None]:
        """
        Wait until changes are recorded.

        @return: fails with L{StoreError} if the store cannot be used, and with C{RuntimeError} if
            the log was not started, or is stopped first.
        """
        if self._loading is None:
            return fail(RuntimeError("the presence table is not running"))
        return self._loading.wait()

    def read(
        self, ask: Callable[[ChangeReader], Coroutine[Any, Any, list[Change | Gap]]]
    ) -> Deferred[list[Change | Gap]]:
        """
        Ask the reader, as soon as the log is open.
        """

        async def read() -> list[Change | Gap]:
            await self.whenOpen()
            self._publish()
            assert self._open is not None
            return await ask(self._open.reader)

        return Deferred.fromCoroutine(read())

    def attachSubscribers(self) -> None:
        """
        Begin to tell the subscribers that are not told yet.
        """
        opened = self._open
        if opened is not None:
            attach = self._subscribers.attach(opened.subscriptions, self._store, opened.writer)
            for coroutine in attach:
                self._tasks.run(coroutine)

    def publish(self) -> None:
        """
        Take what the tracker has recorded, and pass it on.
        """
        opened, tracker = self._open, self._tracker
        if opened is None:
            return
        changes, tracker.changes = tracker.changes, []
        if tracker.unsaved:
            names, tracker.unsaved = tracker.unsaved, {}
            forgotten = [name for name in names if name not in tracker.peers]
            opened.writer.add(changes, list(self._records(names)), forgotten)
        if changes:
            opened.backlog.extend(changes)
            opened.subscriptions.wake()
        if not self._reserving and tracker.numbersLeft <= NUMBERS // 2:
            self._reserving = True
            self._tasks.run(self._reserve())

    def _records(self, names: Iterable[str]) -> Iterator[PeerRecord]:
        for name in names:
            peer = self._tracker.peers.get(name)
            if peer is not None and peer.change is not None:
                yield PeerRecord(change=peer.change, bound=peer.bound, lastHeard=peer.lastHeard)

    # The store.

    async def _load(self, loading: Outcome) -> None:
        await self._lock.acquire()
        try:
            stored = await untilDone(self._clock(), self._store.load, "be read")
            reserve = partial(self._store.reserve, NUMBERS)
            first = await untilDone(self._clock(), reserve, "reserve numbers")
        except StoreError as error:
            _log.critical(
                "The presence store cannot be used: {error}. The table knows who is alive, but no "
                "change is recorded, stored or told",
                error=error,
            )
            loading.fail(error)
        else:
            self._begin(stored, first)
            loading.succeed()
        finally:
            self._lock.release()

    def _begin(self, stored: StoredPresence, first: int) -> None:
        """
        Go on from what the store holds.
        """
        moment = self._moment()
        last = max((record.change.at for record in stored.peers), default=moment.at)
        if moment.at < last:
            _log.warn(
                "The clock is {behind} s behind the last change in the presence store: the times "
                "of new changes may lie before those of old ones, the numbers do not",
                behind=round(last - moment.at, 1),
            )
        self._tracker.restore(stored, moment)
        self.latestRestored = stored.latest
        limit = self._limits.backlog
        backlog = Backlog(self._tracker.latest, limit)
        writer = StoreWriter(self._store, self._clock(), limit)
        reader = ChangeReader(self._store, writer, backlog)
        subscriptions = Subscriptions(
            self._clock(),
            backlog,
            self._limits.hookTimeout,
            self._present,
            reader.changes,
            writer.setCursor,
        )
        self._open = _Open(backlog, writer, reader, subscriptions)
        self.attachSubscribers()
        self._tracker.numbersReserved(first, NUMBERS)
        self._publish()

    async def _reserve(self) -> None:
        """
        Reserve more numbers, well before they are needed.
        """
        try:
            reserve = partial(self._store.reserve, NUMBERS)
            first = await untilDone(self._clock(), reserve, "reserve numbers", final=())
            self._tracker.numbersReserved(first, NUMBERS)
        finally:
            self._reserving = False
        self._publish()

    async def _close(self, writer: StoreWriter | None) -> None:
        await self._lock.acquire()
        try:
            await closeStore(self._store, writer, self._clock())
        finally:
            self._lock.release()
