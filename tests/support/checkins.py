# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the tests of check-ins share: virtual time that passes from call to call, hooks that note what
they are told, and a store in memory that can be slow or fail.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_heartbeat import Cause, LinkHooks
from twisted_heartbeat.core.checkins import SavedDeadline


class PollingClock(Clock):
    """
    Virtual time that makes calls as a reactor does: what a call adds waits for the next poll, even
    if it is due.
    """

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


def letPass(clock: Clock, seconds: float) -> None:
    """
    Let virtual time pass, and make each call in its own instant.
    """
    end = clock.seconds() + seconds
    while True:
        due = min((call.getTime() for call in clock.getDelayedCalls()), default=end)
        if due >= end:
            break
        clock.advance(max(0.0, due - clock.seconds()))
    clock.advance(max(0.0, end - clock.seconds()))


class Told(LinkHooks):
    """
    Notes what it is told.

    @ivar events: when, what, of which name, and for what cause.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.events: list[tuple[float, str, str, str | None]] = []
        self.causes: list[Cause] = []

    def _note(self, event: str, name: Any, cause: Cause | None = None) -> None:
        kind = None if cause is None else type(cause).__name__
        self.events.append((self._clock.seconds(), event, name.name, kind))
        if cause is not None:
            self.causes.append(cause)

    def connected(self, link: Any) -> None:
        self._note("connected", link)

    def suspected(self, link: Any) -> None:
        self._note("suspected", link)

    def recovered(self, link: Any) -> None:
        self._note("recovered", link)

    def disconnected(self, link: Any, cause: Cause) -> None:
        self._note("disconnected", link, cause)

    def names(self) -> list[tuple[str, str]]:
        """
        What was told, without the times: the event and the name.
        """
        return [(event, name) for _, event, name, _ in self.events]


class Memory:
    """
    A store of deadlines in memory.

    @ivar saved: what was saved last, by name.
    @ivar saves: the number of saves.
    @ivar failing: raised by each call; L{None} to work.
    @ivar held: the calls that have not been answered, if C{hold} is set.
    """

    def __init__(self, *saved: SavedDeadline) -> None:
        self.saved = {one.name: one for one in saved}
        self.saves = 0
        self.failing: Exception | None = None
        self.hold = False
        self.held: list[Deferred[Any]] = []

    def _answer(self, result: Any) -> Deferred[Any]:
        if self.failing is not None:
            raise self.failing
        if not self.hold:
            return succeed(result)
        waiting: Deferred[Any] = Deferred()
        self.held.append(waiting)
        return waiting.addCallback(lambda _: result)

    def loadDeadlines(self, source: str) -> Deferred[Sequence[SavedDeadline]]:
        """
        All that was saved.
        """
        return self._answer(list(self.saved.values()))

    def saveDeadlines(
        self, source: str, saved: Sequence[SavedDeadline], forgotten: Collection[str]
    ) -> Deferred[None]:
        """
        Keep these.
        """
        self.saves += 1
        answer = self._answer(None)
        self.saved |= {one.name: one for one in saved}
        for name in forgotten:
            self.saved.pop(name, None)
        return answer
