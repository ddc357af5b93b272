# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckInMonitor}: watches names that check in.

It knows nothing of HTTP: L{CheckInResource<twisted_heartbeat.checkin.resource.CheckInResource>}
hands it the check-ins.  It has the timers, tells the observers, and keeps the deadlines in a store.

I{Timers.}  Each name is a timer of the wheel.  A check-in moves the deadline and not the timer,
because the entry that a moved timer leaves behind stays until it is due, here perhaps a day later.
The visit finds that nothing is due yet, and schedules the next.

I{Stalls.}  Once in a second a further timer looks whether it is late.  If it is, this process did
not run, and could receive no check-in.  All deadlines move by that time.

I{Memory.}  It is bounded by the names of the operator and C{CheckInLimits.created}, and for each
name by C{CheckInLimits.body} and the runs that a detector keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime

from ..core.causes import Cause, CheckInFailed, CheckInMissed, ClosedHere
from ..core.checkins import (
    STALLED,
    Check,
    CheckInDetector,
    CheckInEvent,
    CheckInLimits,
    CheckState,
    Signal,
)
from ..core.evidence import Evidence, VerdictCounter
from ..core.pingapi import BadCheckIn, CheckInRequest, isName
from ..link.addresses import peerName, plainAddress
from ..link.events import LinkEvents
from ..timing.monotonic import clockFor
from ..timing.wallclock import WallClock
from ..timing.wheel import timerWheelFor
from .checkedname import CheckedName, ReceivedCheckIn
from .deadlines import DeadlineKeeper, checkOf, restored, toSave

if TYPE_CHECKING:
    from ..core.checkins import SavedDeadline
    from ..link.hooks import Hooks
    from ..timing.wheel import Slot, TimerWheel
    from .store import DeadlineStore

HOOKS_TIMEOUT = 10.0
"""Seconds that the hooks may take when the service stops."""

_MAX_TAIL = 300
"""Characters of a failed job's output that its cause quotes."""


class UnknownName(Exception):
    """
    No check has this name, and none is to be created.
    """


class NoRoom(UnknownName):
    """
    As many names were created as may be.
    """


class CheckInMonitor(Service):
    """
    Watches names that check in.

    @ivar source: what the log calls it, and what its names have as C{source}.
    @ivar isReady: whether it runs, and the saved deadlines are there.
    @ivar counters: what it counts.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        default: Check = Check(),
        limits: CheckInLimits = CheckInLimits(),
        hooks: Hooks | None = None,
        store: DeadlineStore | None = None,
        isProven: Callable[[str], bool] = lambda name: False,
        source: str = "check-ins",
        clock: IReactorTime | None = None,
        wallClock: Callable[[], float] = time.time,
    ) -> None:
        """
        The other parameters are those of C{CheckInResource}.

        @param isProven: whether each client that may check in under a name is proven to have it.
        @raise ValueError: if a check has a name that no request can have.
        """
        self.source = source
        self.isReady = False
        self._checks = _checked(checks)
        self._default = default
        self._limits = limits
        self._clock = clock
        self._wallClock = WallClock(wallClock)
        self._store = store
        self._isProven = isProven
        self._events = LinkEvents(source, None, hooks)
        self.counters = self._events.counters
        self._names: dict[str, CheckedName] = {}
        self._created = 0
        self._generations = count(1)
        self._stallTimer: _StallTimer | None = None
        self._keeper: DeadlineKeeper | None = None

    @property
    def names(self) -> Mapping[str, CheckedName]:
        """
        All names, each with its latest generation.
        """
        return self._names

    @cached_property
    def clock(self) -> IReactorTime:
        """
        What the time is measured with.
        """
        # Not before it is used, because the import of the global reactor installs it.
        return clockFor(self._clock)

    @cached_property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the clock.
        """
        return timerWheelFor(self.clock)

    def setChecks(self, checks: Mapping[str, Check]) -> None:
        """
        Watch these names in place of the former ones.  A name that stays keeps its state, and one
        that check-ins have created is the operator's from now on.  A name that is no longer to be
        watched ends with C{ClosedHere} if it is up.

        @raise ValueError: as for a new monitor; then nothing is changed.
        """
        former, self._checks = self._checks, _checked(checks)
        if not self.isReady:
            # They are watched as soon as the store has been read.
            return
        for name in former.keys() - self._checks.keys():
            watched = self._names.pop(name)
            self._forget(name)
            self._end(watched, "it is no longer to check in")
        now = self.wheel.seconds()
        for name, check in self._checks.items():
            found = self._names.get(name)
            if found is None:
                self._watch(name, CheckInDetector(check, now), created=False)
                continue
            self._created -= found.created
            found.created = False
            if found.check != check:
                found.detector.change(check, now)
                self._schedule(found)
            self._changed(found)

    def startService(self) -> None:
        """
        Begin to watch, as soon as the store has told what it knows.
        """
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        if self._store is None:
            self._begin({})
            return
        self._keeper = DeadlineKeeper(self._store, self.source, self.wheel, self.clock, self._saved)
        self._keeper.load().addCallback(self._begin)

    def stopService(self) -> Deferred[Any]:
        """
        Stop watching.  Names that are up end with C{ClosedHere}.

        @return: fires when the deadlines are saved and the hooks have finished, or their time is
            over.
        """
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        wasReady, self.isReady = self.isReady, False
        if self._stallTimer is not None:
            self.wheel.cancel(self._stallTimer)
            self._stallTimer = None
        pending: list[Deferred[Any]] = []
        if self._keeper is not None:
            # Before the ends below, which must not be saved: the names themselves have not ended.
            pending.append(self._keeper.close())
            self._keeper = None
        if wasReady:
            pending += self._endAll()
        return DeferredList(pending)

    def _endAll(self) -> list[Deferred[Any]]:
        names, self._names, self._created = list(self._names.values()), {}, 0
        ended = [self._end(name, "check-ins are no longer received") for name in names]
        ending = [told for told in ended if told is not None]
        if not ending:
            return []
        told = DeferredList(ending).addTimeout(HOOKS_TIMEOUT, self.clock)
        return [told.addErrback(lambda _: None)]

    def _end(self, name: CheckedName, reason: str) -> Deferred[None] | None:
        """
        End a name that is not watched any more.

        @return: fires when the hooks have finished; L{None} if there is nothing to tell.
        """
        self.wheel.discard(name)
        wasUp = name.state in (CheckState.ALIVE, CheckState.SUSPECTED)
        name.detector.end()
        return self._events.emit("disconnected", name, ClosedHere(reason)) if wasUp else None

    def _begin(self, saved: Mapping[str, SavedDeadline]) -> None:
        """
        @param saved: what the store knows.
        """
        if not self.running:
            return
        now, wallNow = self.wheel.seconds(), self._wallClock()
        for name, check in self._checks.items():
            self._watch(name, restored(check, saved.get(name), now, wallNow), created=False)
        for name in saved.keys() - self._checks.keys():
            deadline = saved[name]
            created = checkOf(deadline) if deadline.created else None
            if created is not None and self._created < self._limits.created:
                self._watch(name, restored(created, deadline, now, wallNow), created=True)
            else:
                self._forget(name)
        self._stallTimer = _StallTimer(self)
        self.wheel.schedule(self._stallTimer, now + STALLED)
        self.isReady = True

    # Check-ins.

    def checkIn(
        self,
        request: CheckInRequest,
        *,
        address: Any = None,
        body: bytes = b"",
    ) -> bool:
        """
        Note a check-in.

        @param address: from where it came.
        @return: whether it has created the name.
        @raise UnknownName: if it is not known and not created.
        @raise BadCheckIn: if the name cannot have the period that it asks for.
        """
        now = self.wheel.seconds()
        found = self._names.get(request.name)
        name = self._create(request, now) if found is None else found
        signal = request.signal
        if signal is Signal.SUCCESS and name.state is CheckState.GONE:
            name = self._watch(name.name, name.detector.successor(now), created=name.created)
        name.peer = plainAddress(address)
        name.last = ReceivedCheckIn(
            signal=signal,
            status=request.status,
            run=request.run,
            body=body[: self._limits.body],
            address=None if address is None else peerName(address),
        )
        self.counters.checkIns.received[signal.value] += 1
        event = name.detector.checkIn(signal, now, request.run)
        self._schedule(name)
        self._changed(name)
        self._tell(name, event)
        return found is None

    def _create(self, request: CheckInRequest, now: float) -> CheckedName:
        if not request.create:
            raise UnknownName
        check = self._checkFor(request)
        if self._created >= self._limits.created:
            self.counters.limits["created"] += 1
            self._makeRoom()
        return self._watch(request.name, CheckInDetector(check, now), created=True)

    def _checkFor(self, request: CheckInRequest) -> Check:
        period = self._default.period if request.period is None else request.period
        grace = self._default.grace if request.grace is None else request.grace
        shortest = self._limits.shortest
        for field, asked in (("period", request.period), ("grace", request.grace)):
            if asked is not None and asked < shortest:
                raise BadCheckIn(f"invalid {field}: it must be {shortest:g} seconds or more")
        try:
            return Check(period=period, grace=grace)
        except ValueError:
            raise BadCheckIn("invalid period or grace: it is too long") from None

    def _makeRoom(self) -> None:
        """
        Forget the created name that is gone and was heard longest ago.

        @raise NoRoom: if there is none.
        """
        gone = [
            name for name in self._names.values() if name.created and name.state is CheckState.GONE
        ]
        if not gone:
            raise NoRoom
        oldest = min(gone, key=lambda name: name.detector.heardAt)
        del self._names[oldest.name]
        self._created -= 1
        self._forget(oldest.name)

    def _watch(self, name: str, detector: CheckInDetector, *, created: bool) -> CheckedName:
        """
        Begin a generation of a name.
        """
        if name not in self._names:
            self._created += created
        watched = CheckedName(self, name, next(self._generations), detector, created)
        watched.isAuthenticated = self._isProven(name)
        self._names[name] = watched
        self._schedule(watched)
        self._changed(watched)
        return watched

    # Timers.

    def _schedule(self, name: CheckedName) -> None:
        due = name.detector.due
        if name.slot is None or due < name.slot.latest or name.state is CheckState.GONE:
            # An entry that stays would keep the name and its body, perhaps for a day.
            self.wheel.discard(name)
            if name.state is not CheckState.GONE:
                self.wheel.schedule(name, due)

    def nameDue(self, name: CheckedName, now: float, lateness: float) -> float | None:
        """
        Decide about a name whose timer has fired.

        @return: when to visit it next; L{None} after the verdict.
        """
        event = name.detector.decide(now, lateness)
        if event is CheckInEvent.MISSED:
            self._changed(name)
        self._tell(name, event)
        # An observer may have stopped the service.
        return name.detector.due if self.isReady and name.state is not CheckState.GONE else None

    def excuse(self, seconds: float) -> None:
        """
        Move all deadlines by the time for which this process did not run.
        """
        for name in self._names.values():
            name.detector.excuse(seconds)
            self._changed(name)

    # What is told, and kept.

    def _tell(self, name: CheckedName, event: CheckInEvent) -> None:
        if event in (CheckInEvent.CONNECTED, CheckInEvent.RECOVERED, CheckInEvent.SUSPECTED):
            self._events.emit(event.value, name)
        elif event is CheckInEvent.MISSED:
            batch = self.wheel.shared(VerdictCounter).count(self.wheel.seconds())
            self._events.emit("disconnected", name, _missed(name, Evidence(_batch=batch)))
        elif event is CheckInEvent.FAILED:
            self._events.emit("disconnected", name, _failed(name))

    def _changed(self, name: CheckedName) -> None:
        if self._keeper is not None:
            self._keeper.changed(name.name)

    def _forget(self, name: str) -> None:
        if self._keeper is not None:
            self._keeper.forget(name)

    def _saved(self, name: str) -> SavedDeadline | None:
        """
        Return what is to be saved of a name; L{None} if it is not known any more.
        """
        found = self._names.get(name)
        if found is None:
            return None
        return toSave(found, self.wheel.seconds(), self._wallClock())


def _checked(checks: Mapping[str, Check]) -> dict[str, Check]:
    for name, check in checks.items():
        if not isName(name):
            allowed = "letters, digits, '-', '_' and '.'; no number, and not start, fail or log"
            raise ValueError(f"checks has the name {name!r}: it must consist of {allowed}")
        if not isinstance(check, Check):
            raise ValueError(f"checks[{name!r}] is {check!r}: it must be a Check")
    return dict(checks)


class _StallTimer:
    """
    Looks once in a second whether this process has run.

    @ivar slot: belongs to the timer wheel.
    """

    def __init__(self, monitor: CheckInMonitor) -> None:
        self.slot: Slot | None = None
        self._monitor = monitor

    def onTimer(self, now: float, lateness: float) -> float:
        if lateness > STALLED:
            self._monitor.excuse(lateness)
        return now + STALLED


def _missed(name: CheckedName, evidence: Evidence) -> Cause:
    address = None if name.last is None else name.last.address
    check, began = name.check, name.detector.overdueRun
    if name.last is None:
        # In this process: it may have checked in before a restart.
        words = f"it has not checked in since its watch began, {name.silence:.1f} s ago"
    elif began is not None:
        ago = name.seconds() - began
        words = f"a run that began {ago:.1f} s ago has not ended within {check.grace:g} s"
    else:
        words = f"no success within {check.period:g} s and a grace time of {check.grace:g} s"
    return CheckInMissed(words, evidence=evidence, address=address)


def _failed(name: CheckedName) -> Cause:
    last = name.last
    assert last is not None
    words = "it said fail" if last.status is None else f"exit status {last.status}"
    lines = last.body.decode("utf-8", "replace").strip().splitlines()
    if lines:
        words += f": {lines[-1].strip()[:_MAX_TAIL]}"
    return CheckInFailed(words, status=last.status, address=last.address)
