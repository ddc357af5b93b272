# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Subscriptions}: tells the subscribers of a table what has changed.

Each subscriber has a cursor: the number of the last change that it was told.  It is told the next
change when it has finished with the one before.  So a slow or failing subscriber delays no other
subscriber, and needs no queue of its own: the next change is found in the backlog, which all share.

A subscriber whose next change is not in the backlog any more reads on from the store.  If the store
does not have it either, it is told of the gap and of the present table, and goes on from there.

Changes are told in turns of the reactor of their own, for at most L{TURN} seconds each: neither a
verdict nor a ping waits for a thousand hooks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..core.presence import Change, Gap, PeerPresence
from ..link.usercode import cancel
from ..logs import SafeLogger
from .backlog import Backlog
from .hooks import PresenceHooks

_log = SafeLogger()

TURN = 0.0005
"""Seconds for which the subscribers are told in one turn of the reactor."""

TOLD_PER_TURN = 500
"""Changes that are told in one turn.  In virtual time no seconds pass."""

PAGE = 500
"""Changes that are read from the backlog or the store at a time."""

MIN_RETRY_DELAY = 1.0
MAX_RETRY_DELAY = 60.0
"""Seconds before a subscriber that failed is told again; each delay is twice the one before."""


class Subscription:
    """
    One subscriber.

    @ivar hook: what is called.
    @ivar name: names the cursor in the store; L{None} if the cursor is not stored.
    @ivar cursor: the number of the last change that the subscriber has been told.
    """

    def __init__(self, of: Subscriptions, hook: PresenceHooks, name: str | None) -> None:
        self._of = of
        self.hook = hook
        self.name = name
        self.cursor = 0
        self._page: deque[Change] = deque()
        self._gap = False
        self._waiting: Deferred[Any] | None = None
        self._call: IDelayedCall | None = None
        self._delay = 0.0
        self._ended = False

    @property
    def isReady(self) -> bool:
        """
        Whether the subscriber can be told something now.
        """
        if self._ended or self._waiting is not None or self._call is not None:
            return False
        return bool(self._page) or self._gap or self.cursor < self._of.backlog.latest

    def tellNext(self) -> None:
        """
        Tell the next change, or read on.
        """
        if self._gap:
            backlog = self._of.backlog
            gap = Gap(self.cursor + 1, backlog.latest)
            self._tell(partial(self.hook.missed, gap, self._of.present()), gap.last, gap)
            return
        if not self._page:
            backlog = self._of.backlog
            if self.cursor < backlog.base:
                self._read(backlog.base)
                return
            self._page.extend(backlog.after(self.cursor, PAGE))
        change = self._page[0]
        self._tell(partial(self.hook.changed, change), change.number, change)

    def end(self) -> None:
        """
        Tell nothing any more.
        """
        self._ended = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            cancel(waiting)

    # Telling.

    def _tell(self, call: Callable[[], object], number: int, what: Change | Gap) -> None:
        try:
            result = call()
        except BaseException:
            self._failed(Failure(), what)
            return
        if isinstance(result, CoroutineType):
            result = Deferred.fromCoroutine(result)
        if not isinstance(result, Deferred):
            self._told(number)
            return
        self._await(result, partial(self._told, number), partial(self._failed, what=what))

    def _await(
        self,
        deferred: Deferred[Any],
        done: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """
        Wait for a Deferred, at most for the time of a hook.
        """

        def finish(result: object) -> None:
            if self._waiting is not deferred:
                # It was given up, and has finished since.
                return
            self._waiting = None
            call, self._call = self._call, None
            if call is not None:
                call.cancel()
            if isinstance(result, Failure):
                failed(result)
            else:
                done()
            self._of.wake()

        def giveUp() -> None:
            self._call = None
            self._waiting = None
            cancel(deferred)
            failed(Failure(TimeoutError(f"not finished after {self._of.hookTimeout} s")))
            self._of.wake()

        self._waiting = deferred
        deferred.addBoth(finish)
        if self._waiting is deferred:
            self._call = self._of.clock.callLater(self._of.hookTimeout, giveUp)

    def _told(self, number: int) -> None:
        if self._ended:
            return
        self._delay = 0.0
        self.cursor = number
        if self._gap:
            self._gap = False
        else:
            self._page.popleft()
        if self.name is not None:
            self._of.setCursor(self.name, number)

    def _failed(self, failure: Failure, what: Change | Gap) -> None:
        if self._ended:
            return
        self._delay = min(MAX_RETRY_DELAY, max(MIN_RETRY_DELAY, self._delay * 2))
        _log.failure(
            "The presence subscriber {name} failed at {what}. It is told again in {delay} s",
            failure,
            name=self.name or self.hook,
            what=what,
            delay=self._delay,
        )
        self._call = self._of.clock.callLater(self._delay, self._retry)

    def _retry(self) -> None:
        self._call = None
        self._of.wake()

    # Reading on from the store.

    def _read(self, base: int) -> None:
        """
        @param base: the backlog had all changes above this number before the store is read.
        """
        found: list[Change | Gap] = []

        async def read() -> None:
            found.extend(await self._of.read(self.cursor, PAGE))

        def done() -> None:
            if any(isinstance(change, Gap) for change in found):
                self._gap = True
            elif found:
                self._page.extend(change for change in found if isinstance(change, Change))
            else:
                self.cursor = max(self.cursor, base)

        def failed(failure: Failure) -> None:
            # What happens now must not wait until the store can be read again.
            self._gap = True
            _log.warn("The presence store could not be read: {error}", error=failure.value)

        self._await(Deferred.fromCoroutine(read()), done, failed)


class Subscriptions:
    """
    All subscribers of a table.

    @ivar backlog: the last changes.
    @ivar clock: tells the time.
    @ivar hookTimeout: seconds that a hook may take.
    @ivar present: returns all peers as they are now.
    @ivar read: reads changes above a number from the store.
    @ivar setCursor: stores the cursor of a named subscriber.
    """

    def __init__(
        self,
        clock: IReactorTime,
        backlog: Backlog,
        hookTimeout: float,
        present: Callable[[], Sequence[PeerPresence]],
        read: Callable[[int, int], Coroutine[Any, Any, list[Change | Gap]]],
        setCursor: Callable[[str, int], None],
    ) -> None:
        self.clock = clock
        self.backlog = backlog
        self.hookTimeout = hookTimeout
        self.present = present
        self.read = read
        self.setCursor = setCursor
        self._all: list[Subscription] = []
        self._call: IDelayedCall | None = None

    def add(self, hook: PresenceHooks, name: str | None, cursor: int) -> Subscription:
        """
        Tell a subscriber all changes above its cursor.
        """
        added = Subscription(self, hook, name)
        added.cursor = cursor
        self._all.append(added)
        self.wake()
        return added

    def remove(self, subscription: Subscription) -> None:
        """
        Tell a subscriber nothing any more.
        """
        if subscription in self._all:
            self._all.remove(subscription)
            subscription.end()

    def wake(self) -> None:
        """
        Tell what there is to tell, in the next turn of the reactor.
        """
        if self._call is None and self._all:
            self._call = self.clock.callLater(0, self._turn)

    def stop(self) -> None:
        """
        Tell nothing any more.
        """
        subscriptions, self._all = self._all, []
        for subscription in subscriptions:
            subscription.end()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _turn(self) -> None:
        self._call = None
        until = self.clock.seconds() + TURN
        left = TOLD_PER_TURN
        ready = [one for one in self._all if one.isReady]
        while ready:
            for subscription in ready:
                # One that was told before may have removed this one.
                if subscription.isReady:
                    subscription.tellNext()
                left -= 1
            if left <= 0 or self.clock.seconds() >= until:
                self.wake()
                return
            ready = [one for one in self._all if one.isReady]
