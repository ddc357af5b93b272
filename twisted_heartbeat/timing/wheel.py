# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TimerWheel}: the timer wheel, one timer for all links of a reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..batching.pinground import CustomPingRound, PingRound
from ..batching.talkers import TalkerScan
from ..core.evidence import VerdictBatch
from ..core.wire.pings import SharedPing
from ..logs import SafeLogger, guarded
from .monotonic import InertClock, MonotonicClock

if TYPE_CHECKING:
    from ..batching.pinground import Pinger
    from ..core.detector import FailureDetector
    from ..core.settings import Heartbeat

_log = SafeLogger()


def reactorStopped(clock: IReactorTime) -> bool:
    """
    Whether the reactor of a clock has stopped for good.  Virtual time has no reactor.
    """
    return isinstance(clock, MonotonicClock) and clock.reactorStopped


class Timer(Protocol):
    """
    What the pulse visits.

    @ivar slot: the pulse's own mark; L{None} to begin with.
    """

    slot: Slot | None

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        Do what is due.

        @param lateness: seconds by which the visit comes late.
        @return: when to come again; L{None} for never.
        """


class Slot:
    """
    The visits that fall together.

    @ivar latest: the latest of their times: when it comes, all of them are due, so that one alone
        is visited on its exact instant, and none is ever visited early.
    @ivar pending: those that are visited as well, unless they have been taken out by then.
    """

    __slots__ = ("latest", "pending", "timers")

    def __init__(self) -> None:
        self.latest = 0.0
        self.timers: list[Timer] = []
        # Few have any.
        self.pending: Sequence[dict[Any, Any]] = ()


class TimerWheel:
    """
    The single timer that serves all links of a reactor.

    Visits are kept in slots of 1/64 s, so that setting one costs a list's append and ten thousand
    of them cost one delayed call; a visit comes at most one slot late.

    @ivar ticking: whether visits are being made.
    """

    PER_SECOND = 64

    CALLS_PER_TICK = 4
    """
    What a tick has to end takes long, for it ends in user code.  A thousand ends in one tick would
    keep the others from being looked at on their instants.
    """

    MIN_FOR_SCAN = 32
    """
    So many visits are no crowd: by itself, each link has its process wake once in an interval, and
    a crowd has it wake four times.
    """

    SIMULTANEOUS = 0.1
    """Seconds: verdicts that follow each other closer than this belong to one fall."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._order: list[int] = []
        self._count = 0
        self._call: IDelayedCall | None = None
        self._calledFor = 0.0
        self.ticking = False
        self.seconds = clock.seconds
        self._rounds: list[PingRound] = []
        self._crowds: dict[int, TalkerScan] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._verdicts = VerdictBatch()
        self._lastVerdictAt = -inf

    def schedule(self, one: Timer, when: float) -> None:
        """
        Visit it then, and not when it was to be visited before.
        """
        slot = self._slotFor(when)
        if one.slot is not slot:
            if one.slot is None:
                self._count += 1
            # Its place in the slot that it leaves stays, and is passed over.
            one.slot = slot
            slot.timers.append(one)
        if not self.ticking:
            self._setCall()

    def _slotFor(self, when: float) -> Slot:
        number = int(when * self.PER_SECOND)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = Slot()
            heappush(self._order, number)
        if when > slot.latest:
            slot.latest = when
        return slot

    def cancel(self, one: Timer) -> None:
        """
        Do not visit it any more.
        """
        if one.slot is None:
            return
        one.slot = None
        self._count -= 1
        if not self._count and not self.ticking:
            self._setCall()

    def discard(self, one: Timer) -> None:
        """
        As L{cancel}, and keep neither it nor an empty slot until that is due.  That is a look
        through the slot: for those who leave soon, and so find few there.
        """
        slot = one.slot
        if slot is not None:
            slot.timers.remove(one)
            if not slot.timers and not slot.pending:
                # Its number stays in the order, and is passed over.
                self._slots.pop(int(slot.latest * self.PER_SECOND), None)
            self.cancel(one)

    def callSoon(self, errand: Callable[[], None]) -> None:
        """
        Call it at the end of this tick or of one of the next, which follow at once.
        """
        self._calls.append(errand)
        if not self.ticking:
            self._setCall()

    def begin(self, round: PingRound, suspicious: float) -> None:
        """
        Have a round send its pings at the end of the tick that is under way, one right after the
        other: a machine that is woken by the first of many packets is awake for the next.

        @param suspicious: when to visit those who wait then.
        """
        self._rounds.append(round)
        slot = self._slotFor(suspicious)
        slot.pending = [*slot.pending, round.waiting]

    def roundLike(self, means: Pinger, heartbeat: Heartbeat, due: float) -> PingRound | None:
        """
        The round of this tick for those who were due about then, if there is one.

        @param means: what they ping with: one object for all of them.
        """
        for round in self._rounds:
            alike = round.means is means and round.heartbeat is heartbeat
            if alike and abs(round.due - due) * self.PER_SECOND <= 1:
                return round
        return None

    def roundFor(
        self, means: Pinger, heartbeat: Heartbeat, due: float, askedAt: float
    ) -> PingRound:
        """
        The same, or a new one.

        @param askedAt: when they are asked, if that is late; else when they had to be, at the
            latest.
        """
        round = self.roundLike(means, heartbeat, due)
        if round is None:
            kind = PingRound if isinstance(means, SharedPing) else CustomPingRound
            round = kind(self, means, heartbeat, due, askedAt)
        # A round has no bound but that of each.
        round.askedAt = min(round.askedAt, askedAt)
        if round.slot is None:
            # It is new, or all have left it since.
            self.schedule(round, round.again)
        return round

    def talkerScanFor(self, heartbeat: Heartbeat, now: float) -> TalkerScan | None:
        """
        The crowd for those who are watched so, and have just spoken; L{None} if there is none, and
        they are but few.
        """
        # Not by its value, which takes long to hash.
        crowd = self._crowds.get(id(heartbeat))
        if crowd is None or crowd.slot is None:
            if self._count < self.MIN_FOR_SCAN:
                return None
            # Those that are empty are visited no more.
            self._crowds = {at: one for at, one in self._crowds.items() if one.slot is not None}
            crowd = self._crowds[id(heartbeat)] = TalkerScan(heartbeat, now)
            self.schedule(crowd, crowd.due)
        return crowd

    def leaveTalkerScan(self, heartbeat: Heartbeat, liveness: FailureDetector) -> bool:
        """
        @return: whether it was in one.
        """
        crowd = self._crowds.get(id(heartbeat))
        if crowd is None or not crowd.leave(liveness):
            return False
        if crowd.empty:
            self.cancel(crowd)
        return True

    def verdictBatch(self, now: float) -> VerdictBatch:
        """
        The fall that a verdict of this instant belongs to.
        """
        if now - self._lastVerdictAt > self.SIMULTANEOUS:
            self._verdicts = VerdictBatch()
        self._lastVerdictAt = now
        self._verdicts.links += 1
        return self._verdicts

    def _setCall(self) -> None:
        if not self._count:
            self._slots.clear()
            self._order.clear()
        if self._calls:
            when = self._clock.seconds()
        elif self._count:
            when = self._first().latest
        else:
            if self._call is not None:
                call, self._call = self._call, None
                call.cancel()
            return
        delay = max(0.0, when - self._clock.seconds())
        if self._call is None:
            self._call = self._clock.callLater(delay, self._tick)
        elif when != self._calledFor:
            self._call.reset(delay)
        self._calledFor = when

    def _first(self) -> Slot:
        """
        The first slot that has somebody to be visited.
        """
        while True:
            slot = self._slots.get(self._order[0])
            if slot is not None and (slot.timers or any(slot.pending)):
                return slot
            self._slots.pop(heappop(self._order), None)

    def _tick(self) -> None:
        self._call = None
        now = self._clock.seconds()
        self.ticking = True
        try:
            # All that are due, and before any is worked off: what that adds waits for the next
            # tick.
            due = self._due(now)
            self._visitLeft(due, now)
            for slot in due:
                self._visit(slot, now)
            self._post()
            for _ in range(min(len(self._calls), self.CALLS_PER_TICK)):
                guarded(_log, "An errand of the pulse failed", self._calls.popleft())
        finally:
            # The links that are left have to be visited even if something has failed.
            self.ticking = False
            self._setCall()

    def _post(self) -> None:
        rounds, self._rounds = self._rounds, []
        for round in rounds:
            try:
                round.post()
            except BaseException:
                _log.failure("A round of pings failed")

    def _due(self, now: float) -> list[Slot]:
        due = []
        while self._order:
            slot = self._slots.get(self._order[0])
            if slot is not None:
                if slot.latest > now:
                    break
                due.append(slot)
            self._slots.pop(heappop(self._order), None)
        return due

    def _visitLeft(self, slots: list[Slot], now: float) -> None:
        """
        They come before all others, and so are not among these: none may be visited twice in one
        tick, for between two looks at a silent peer its socket has to be polled.
        """
        left = {
            id(one): (one, slot.latest)
            for slot in slots
            for some in slot.pending
            for one in some.values()
        }
        for one, latest in left.values():
            self.cancel(one)
            own = one.slot = Slot()
            own.latest = latest
            own.timers.append(one)
            self._count += 1
            self._visit(own, now)

    def _visit(self, slot: Slot, now: float) -> None:
        lateness = now - slot.latest
        # Those who share a slot mostly share the next one as well.
        number = -1
        following: Slot | None = None
        for one in slot.timers:
            if one.slot is not slot:
                continue
            one.slot = None
            self._count -= 1
            try:
                again = one.onTimer(now, lateness)
            except BaseException:
                # One that fails must not take the pulse from all others.
                words = "{one} failed at its beat, and is not visited again"
                _log.failure(words, one=one)
                continue
            if again is None:
                continue
            if one.slot is None and following and int(again * self.PER_SECOND) == number:
                # As visit does.
                self._count += 1
                one.slot = following
                following.timers.append(one)
                if again > following.latest:
                    following.latest = again
            else:
                self.schedule(one, again)
                number, following = int(again * self.PER_SECOND), one.slot


class _InertTimerWheel(TimerWheel):
    """
    The pulse of L{InertClock}: it visits nothing, and keeps nothing of what asks for a visit.
    """

    def schedule(self, one: Timer, when: float) -> None:
        pass

    def callSoon(self, errand: Callable[[], None]) -> None:
        pass


_timerWheels: dict[int, tuple[IReactorTime, TimerWheel]] = {}
"""Those of clocks that keep no attribute, by the clock's identity."""


def timerWheelFor(clock: IReactorTime) -> TimerWheel:
    """
    The one pulse of a clock.
    """
    found: TimerWheel | None = getattr(clock, "_twistedHeartbeatTimerWheel", None)
    if found is not None:
        return found
    if id(clock) in _timerWheels:
        return _timerWheels[id(clock)][1]
    made = _InertTimerWheel(clock) if isinstance(clock, InertClock) else TimerWheel(clock)
    with suppress(AttributeError, TypeError):
        clock._twistedHeartbeatTimerWheel = made  # type: ignore[attr-defined]
    if getattr(clock, "_twistedHeartbeatTimerWheel", None) is not made:
        # The clock has no place for attributes, or forwards them to something else.
        _timerWheels[id(clock)] = clock, made
    return made
