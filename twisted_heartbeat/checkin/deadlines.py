# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DeadlineKeeper}: keeps the deadlines of names in a store, so that they outlive the process.

A store may be slow or fail.  No check-in waits for it: names that have changed are collected, and
saved together a second later, one save at a time.  A save that fails is repeated.  What a crash
loses is the last second, and a deadline that is a second old is still a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.checkins import (
    Check,
    CheckInDetector,
    CheckState,
    SavedDeadline,
    remainingAfterRestart,
)
from ..core.pingapi import isName
from ..logs import SafeLogger, Shortage

if TYPE_CHECKING:
    from ..timing.wheel import Slot, TimerWheel
    from .checkedname import CheckedName
    from .store import DeadlineStore

_log = SafeLogger()


class DeadlineKeeper:
    """
    Loads deadlines, and saves those that have changed.

    @ivar slot: belongs to the timer wheel.
    """

    SAVE_AFTER = 1.0
    """Seconds from the first change to its save, and from a failed save to the next."""

    TIMEOUT = 10.0
    """Seconds that the store has for a load, and for the last save."""

    def __init__(
        self,
        store: DeadlineStore,
        source: str,
        wheel: TimerWheel,
        clock: IReactorTime,
        describe: Callable[[str], SavedDeadline | None],
    ) -> None:
        """
        @param source: the name of the server.
        @param describe: returns what is to be saved of a name; L{None} if the name is gone by then.
        """
        self.slot: Slot | None = None
        self._store = store
        self._source = source
        self._wheel = wheel
        self._clock = clock
        self._describe = describe
        self._changed: set[str] = set()
        self._underWay: set[str] = set()
        self._forgotten: set[str] = set()
        self._loading: Deferred[Any] | None = None
        self._saving: Deferred[None] | None = None
        self._closed = False
        words = "The deadlines of check-ins could not be saved: {error}"
        self._unsaved = Shortage(_log, words, wheel.seconds)

    def load(self) -> Deferred[Mapping[str, SavedDeadline]]:
        """
        Return what the store knows, by name.  Nothing, if it fails or takes too long.
        """
        self._loading = loading = maybeDeferred(self._store.loadDeadlines, self._source)
        loading.addTimeout(self.TIMEOUT, self._clock)
        return loading.addCallbacks(_byName, _notLoaded)

    def changed(self, name: str) -> None:
        """
        Note that what is to be saved of a name has changed.
        """
        self._forgotten.discard(name)
        self._changed.add(name)
        self._saveSoon()

    def forget(self, name: str) -> None:
        """
        Note that a name is to be forgotten.
        """
        self._changed.discard(name)
        self._forgotten.add(name)
        self._saveSoon()

    def close(self) -> Deferred[None]:
        """
        Save the rest.

        @return: fires when it is saved, or the time is over.
        """
        self._closed = True
        self._wheel.cancel(self)
        # As they are now: the caller ends its names next.
        last = {name: self._describe(name) for name in self._changed | self._underWay}
        self._describe = last.get
        if self._loading is not None:
            self._loading.cancel()
        before = succeed(None) if self._saving is None else self._afterThis()
        saved = before.addCallback(lambda _: self._save())
        return saved.addTimeout(self.TIMEOUT, self._clock).addErrback(self._failedToClose)

    def onTimer(self, now: float, lateness: float) -> None:
        self._save()

    def _saveSoon(self) -> None:
        if self.slot is None and self._saving is None and not self._closed:
            self._wheel.schedule(self, self._wheel.seconds() + self.SAVE_AFTER)

    def _afterThis(self) -> Deferred[None]:
        """
        Return a Deferred that fires after the save that is under way.
        """
        assert self._saving is not None
        after: Deferred[None] = Deferred()
        # A Deferred that was cancelled passes over its callback.
        self._saving.addCallback(after.callback)
        return after

    def _save(self) -> Deferred[None]:
        changed, self._changed = self._changed, set()
        self._underWay = changed
        forgotten, self._forgotten = self._forgotten, set()
        found = {name: self._describe(name) for name in changed}
        saved = [deadline for deadline in found.values() if deadline is not None]
        if not saved and not forgotten:
            return succeed(None)

        def failed(failure: Failure) -> None:
            self._unsaved.met(failure.value)
            # What has changed once more meanwhile is newer.
            self._changed |= changed - self._forgotten
            self._forgotten |= forgotten - self._changed

        def finished(result: None) -> None:
            self._saving, self._underWay = None, set()
            if self._changed or self._forgotten:
                self._saveSoon()

        save = self._store.saveDeadlines
        saving = maybeDeferred(save, self._source, saved, frozenset(forgotten))
        self._saving = saving.addErrback(failed)
        self._saving.addCallback(finished)
        return self._afterThis() if self._saving is not None else succeed(None)

    def _failedToClose(self, failure: Failure) -> None:
        failure.trap(TimeoutError, CancelledError)
        self._unsaved.met(failure.value)


def _byName(saved: Sequence[SavedDeadline]) -> Mapping[str, SavedDeadline]:
    return {deadline.name: deadline for deadline in saved if isName(deadline.name)}


def _notLoaded(failure: Failure) -> Mapping[str, SavedDeadline]:
    if not failure.check(CancelledError):
        _log.failure("The deadlines of check-ins could not be loaded: names begin anew", failure)
    return {}


def checkOf(saved: SavedDeadline) -> Check | None:
    """
    Return the period and grace time that were saved; L{None} if they are out of range.
    """
    try:
        return Check(period=saved.period, grace=saved.grace)
    except ValueError:
        return None


def toSave(name: CheckedName, now: float, wallNow: float) -> SavedDeadline:
    """
    Return what is to be saved of a name.
    """
    remaining = 0.0 if name.state is CheckState.GONE else name.detector.deadline - now
    return SavedDeadline(
        name=name.name,
        period=name.check.period,
        grace=name.check.grace,
        deadline=wallNow + remaining,
        savedAt=wallNow,
        created=name.created,
    )


def restored(
    check: Check, saved: SavedDeadline | None, now: float, wallNow: float
) -> CheckInDetector:
    """
    Return the detector of a name after a restart.
    """
    if saved is None:
        return CheckInDetector(check, now)
    remaining = remainingAfterRestart(check, saved.deadline, saved.savedAt, wallNow)
    return CheckInDetector(check, now, remaining)
