# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PresenceTable}: who is alive, over all carriers.

The table is an observer: the setting C{hooks} of a service, factory or monitor takes it like any
L{LinkHooks}.  It puts together

 - L{PresenceTracker}, which decides which state each peer has;
 - a L{ChangeLog}, which brings its changes to the L{PresenceStore} and to the application;
 - L{PeersView}, which shows the table as a mapping.

A fact takes this way::

    link.events -> table.connected -> tracker.connected -> change log
                                                            |-> writer -> store
                                                            '-> backlog -> subscriptions -> hooks

The tracker decides from the first fact on.  Changes are recorded, stored and told from the time the
store has been read until the service is stopped.

What this process has closed itself (L{ClosedHere}) ends a turn of the reactor later.  When an
application stops, its services close what they watch before or after the table is stopped, but in
the same turn; otherwise each restart would be a fall of all peers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..core.causes import ClosedHere
from ..core.presence import (
    Change,
    Gap,
    PeerPresence,
    PeerState,
    PresenceLimits,
)
from ..core.presencetracker import PresenceTracker
from ..core.text import printable, textOf
from ..core.validation import isCount, isNumber, require
from ..core.witnesses import Moment
from ..link.events import observersOf
from ..link.hooks import LinkHooks
from ..logs import SafeLogger, guarded
from ..timing.monotonic import clockFor
from ..timing.wallclock import WallClock
from ..timing.wheel import timerWheelFor
from .changelog import ChangeLog
from .memory import MemoryStore
from .subscribers import Subscribers
from .view import PeersView
from .watched import numberOrNone, witnessOf

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..timing.wheel import Slot
    from .hooks import PresenceHooks, SubscribedHooks
    from .store import PresenceStore

_log = SafeLogger()

STALL = 0.5
"""Seconds of lateness from which the timer shows that this process could hear no peer."""

LOOK_EVERY = 1.0
"""Seconds between two visits of the timer while peers have deadlines, to notice each stall."""


class PresenceTable(LinkHooks, Service):
    """
    One table of all peers: up, suspect, down or unknown.

    @ivar peers: the peers by name, as a mapping to L{PeerPresence}.
    """

    def __init__(
        self,
        *,
        store: PresenceStore | None = None,
        hooks: SubscribedHooks | None = None,
        grace: float = 0.0,
        merge: bool = False,
        limits: PresenceLimits | None = None,
        clock: IReactorTime | None = None,
        wallClock: Callable[[], float] = time.time,
    ) -> None:
        """
        @param store: where changes are kept; in memory by default.
        @param hooks: one L{PresenceHooks}, or several.
        @param grace: seconds from the end of a peer's last link or session until the peer is
            L{down<PeerState.DOWN>}.  Until then it is L{suspect<PeerState.SUSPECT>}.
        @param merge: whether equal names on different carriers are one peer although they are not
            proven.
        @param limits: the default L{PresenceLimits} if L{None}.
        @param clock: decides when time is over; the global reactor's monotonic time by default.
        @param wallClock: returns seconds since 1970, for people to read.
        @raise ValueError: if C{grace} is not a number, 0 or more.
        """
        self._requireGrace(grace)
        limits = limits or PresenceLimits()
        self._merge = bool(merge)
        self._givenClock = clock
        self._wallClock = WallClock(wallClock)
        self._tracker = PresenceTracker(grace, limits)
        self._watched: dict[int, Any] = {}
        self._anonymous: Iterator[int] = count(1)
        self._view = PeersView(self._tracker, self._watched, self._moment)
        self.peers: Mapping[str, PeerPresence] = self._view
        self._subscribers = Subscribers(observersOf(hooks))
        self._changeLog = ChangeLog(
            self._tracker,
            MemoryStore() if store is None else store,
            limits,
            self._subscribers,
            clock=lambda: self._clock,
            moment=self._moment,
            present=self._view.all,
            publish=self._publish,
        )
        self._warned = False
        self._excused = False
        self._call: IDelayedCall | None = None
        self._closedHere: dict[int, tuple[Any, Cause]] = {}
        self.slot: Slot | None = None

    def _requireGrace(self, grace: float) -> None:
        require(isNumber(grace) and grace >= 0, self, "grace", grace, "a number, 0 or more")

    def changeSettings(self, *, grace: float, merge: bool) -> None:
        """
        Use other settings.  The grace time holds at once; C{merge} holds for the links, sessions
        and check-ins that begin from now on.

        @raise ValueError: as for the constructor; then nothing is changed.
        """
        self._requireGrace(grace)
        self._merge = bool(merge)
        self._tracker.setGrace(grace)
        self._setTimer()

    # What is asked.

    def peer(self, name: str) -> PeerPresence | None:
        """
        Return one peer; L{None} if the table does not have it.

        @param name: the name in the table, such as C{tcp/pump-3} if the name is not proven.
        """
        return self.peers.get(name)

    def states(self) -> dict[str, PeerState]:
        """
        Return the state of each peer, by name: what L{peers} says of it, and much sooner.
        """
        return self._view.states()

    def counts(self) -> Counter[tuple[str, str]]:
        """
        Count the peers by state and carrier.  A peer with several carriers counts under each.
        """
        return self._view.counts()

    @property
    def latest(self) -> int:
        """
        The number of the last change; 0 before the first.
        """
        return self._tracker.latest

    @property
    def isLoaded(self) -> bool:
        """
        Whether the store has been read and the service runs, so that changes are recorded.
        """
        return self._changeLog.isOpen

    @property
    def latestRestored(self) -> int:
        """
        The highest number that the store had when it was read; 0 before.
        """
        return self._changeLog.latestRestored

    def whenLoaded(self) -> Deferred[None]:
        """
        Wait until the store has been read, so that changes are recorded.

        @return: fails with L{StoreError} if the store cannot be used, and with C{RuntimeError} if
            the service is not running, or is stopped first.
        """
        return self._changeLog.whenOpen()

    def changes(self, since: int, limit: int = 1000) -> Deferred[list[Change | Gap]]:
        """
        Read the changes with a number above C{since}, also those that are not stored yet.

        @param limit: changes to return at most.
        @return: fires with them, in the order of their numbers.  A L{Gap} stands for changes that
            are not kept any more.  Fails as L{whenLoaded} does.
        @raise ValueError: if C{since} is below 0, or C{limit} is below 1.
        """
        require(isCount(since) or since == 0, self, "changes(since)", since, "0 or more")
        require(isCount(limit), self, "changes(limit)", limit, "1 or more")
        return self._changeLog.read(lambda reader: reader.changes(since, limit))

    def history(self, name: str, limit: int = 100) -> Deferred[list[Change | Gap]]:
        """
        Read the last changes of one peer, also those that are not stored yet.

        @param name: the peer's name in the table.
        @param limit: changes to return at most.
        @return: as of L{changes}.
        @raise ValueError: if C{limit} is below 1.
        """
        require(isCount(limit), self, "history(limit)", limit, "1 or more")
        return self._changeLog.read(lambda reader: reader.history(name, limit))

    def subscribe(self, name: str, hook: PresenceHooks, since: int | None = None) -> None:
        """
        Tell a subscriber of all changes, from where it has left off.  Its cursor is kept in the
        store, so that it goes on from there after a restart.

        @param name: names the cursor.
        @param since: the number of a change: those after it are told, and the stored cursor is
            ignored.  If L{None} and there is no cursor, the changes from now on are told.
        @raise ValueError: if there is a subscriber of that name, or C{since} is below 0.
        """
        self._subscribers.subscribe(name, hook, since)
        self._changeLog.attachSubscribers()

    def unsubscribe(self, name: str) -> None:
        """
        Tell a subscriber nothing any more.  Its cursor stays.

        @raise KeyError: if there is no subscriber of that name.
        """
        self._subscribers.unsubscribe(name)

    def addHook(self, hook: PresenceHooks) -> None:
        """
        Tell a subscriber without a name of all changes from now on, as those of the setting
        C{hooks}.  Its cursor is not stored.
        """
        self._subscribers.add(hook)
        self._changeLog.attachSubscribers()

    def removeHook(self, hook: PresenceHooks) -> None:
        """
        Tell a subscriber without a name nothing any more.

        @raise ValueError: if the object is not a subscriber.
        """
        self._subscribers.remove(hook)

    def forget(self, name: str) -> bool:
        """
        Remove a peer that nothing hears.  If it was not down, it is down first.

        @return: whether there was one.
        """
        found = self._tracker.forget(name, self._moment())
        self._publish()
        return found

    # What it is told, as an observer of links, sessions and check-ins.

    def connected(self, link: Any) -> None:
        self._observe("connected", self._connected, link)

    def suspected(self, link: Any) -> None:
        self._observe("suspected", self._tracker.suspected, id(link))

    def recovered(self, link: Any) -> None:
        self._observe("recovered", self._tracker.recovered, id(link))

    def disconnected(self, link: Any, cause: Cause) -> None:
        if isinstance(cause, ClosedHere) and self.running and id(link) in self._watched:
            self._closedHere[id(link)] = link, cause
            self._publishSoon()
            return
        if id(link) in self._watched:
            self._observe("disconnected", self._disconnected, link, cause)
        elif getattr(link, "isExpected", False):
            self._observe("disconnected", self._missed, link, cause)

    def _observe(self, event: str, take: Callable[..., None], *facts: object) -> None:
        """
        Take a fact, and pass on what follows.  It never raises, because a link whose C{connected}
        fails would be ended.
        """
        if not (self.running or self._warned):
            self._warned = True
            _log.warn("The presence table is not running, and tells nobody of {event}", event=event)
        words = "The presence table failed at {event}"
        guarded(_log, words, take, *facts, self._moment(), event=event)
        if self.running:
            self._publishSoon()

    def _connected(self, watched: Any, moment: Moment) -> None:
        if id(watched) in self._closedHere:
            self._endClosed()
        witness = witnessOf(watched, self._merge, self._anonymous)
        self._watched[id(watched)] = watched
        self._tracker.connected(id(watched), witness, moment)

    def _disconnected(self, watched: Any, cause: BaseException, moment: Moment) -> None:
        silence = numberOrNone(watched.silence)
        lastHeard = None if silence is None else moment.at - silence
        reason = printable(textOf(cause))
        self._tracker.disconnected(id(watched), type(cause).__name__, reason, lastHeard, moment)
        del self._watched[id(watched)]

    def _missed(self, watched: Any, cause: BaseException, moment: Moment) -> None:
        witness = witnessOf(watched, self._merge, self._anonymous)
        reason = printable(textOf(cause))
        self._tracker.missed(witness, type(cause).__name__, reason, moment)

    # What follows from it.

    @cached_property
    def _clock(self) -> IReactorTime:
        # Not before it is used, because the import of the global reactor installs it.
        return clockFor(self._givenClock)

    def _moment(self) -> Moment:
        return Moment(self._clock.seconds(), self._wallClock())

    def _publishSoon(self) -> None:
        """
        Publish once for all facts of this turn of the reactor, which may be ten thousand.
        """
        if self._call is None:
            self._call = self._clock.callLater(0, self._publishCalled)

    def _publishCalled(self) -> None:
        self._call = None
        self._endClosed()
        self._publish()

    def _endClosed(self) -> None:
        """
        Take the ends of what this process has closed itself.
        """
        closed, self._closedHere = self._closedHere, {}
        for link, cause in closed.values():
            self._observe("disconnected", self._disconnected, link, cause)

    def _publish(self) -> None:
        """
        Pass on what the tracker has recorded: to the store, to the subscribers, and to the timer.
        """
        self._setTimer()
        self._changeLog.publish()

    def _setTimer(self) -> None:
        due = self._visitAt(self._clock.seconds())
        if self.running and due < inf and (self.slot is None or due < self.slot.latest):
            timerWheelFor(self._clock).schedule(self, due)

    def _visitAt(self, now: float) -> float:
        """
        Return when to look next: early enough to notice a stall long before a deadline.
        """
        due = self._tracker.due
        return due if due == inf else min(due, now + LOOK_EVERY)

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        Move the peers whose deadline has passed to DOWN; called by the timer wheel.
        """
        if lateness > STALL and not self._excused:
            # Once in a stall: a process that is always late would never find a dead peer.
            self._excused = True
            self._tracker.excuse(now, lateness)
        else:
            self._excused = False
            self._tracker.advance(self._moment())
            self._publish()
        due = self._visitAt(now)
        return due if due < inf else None

    # The service.

    def startService(self) -> None:
        """
        Read the store, and begin to record and to tell changes.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._warned = True
        self._setTimer()
        self._changeLog.start()

    def stopService(self) -> Deferred[None]:
        """
        Tell nothing any more, write what is not stored, and close the store.

        @return: fires when that is done, or after 15 s.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._publish()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        timerWheelFor(self._clock).cancel(self)
        # What ends from now on ends because this process does.
        self._tracker.suspend()
        self._endClosed()
        return self._changeLog.stop()
