# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Driver}: carries out the orders of a supervision.

One after the other, after the transition that gave them.  What user code calls while an order is
carried out only adds to the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from ..core import commands as orders
from ..core.backoff import Backoff, requestedDelay
from ..core.causes import GoodbyeCode, PeerClosed
from ..core.diagnosis import causeOfFailure
from ..core.reconnector import Reconnector, State
from ..logs import SafeLogger, guarded
from ..timing.deadline import cancelCalls
from ..timing.wheel import reactorStopped

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.commands import Command, Retry
    from ..core.reconnector import GiveUpTest
    from ..link.config import LinkConfig
    from ..link.link import Link

_log = SafeLogger()


_SLOWER = 3
"""How many times a peer can have the interval doubled: the bound that the user asked for grows with
it."""

_OVERSLEPT = 0.25
"""Seconds by which a wait may end late."""


class Driver:
    """
    Carries out orders.

    @ivar supervision: who gives them.
    """

    def __init__(self, terms: LinkConfig, exhausted: GiveUpTest) -> None:
        self.terms = terms
        self.supervision = Reconnector(exhausted)
        self.link: Link | None = None
        self._slower = 0
        self._queue: deque[Command] = deque()
        self._busy = False
        self._wait: IDelayedCall | None = None
        self._carry: dict[type, Callable[[Any], None]] = {
            orders.Attempt: self._attempt,
            orders.CancelAttempt: lambda order: self.cancelAttempt(),
            orders.Prepare: lambda order: self.prepare(),
            orders.CancelPrepare: lambda order: self.cancelPrepare(),
            orders.Announce: lambda order: self.announce(),
            orders.Abort: lambda order: self._abort(order.cause),
            orders.Close: lambda order: self.closeLink(),
            orders.CleanUp: lambda order: self._cleanUp(),
            orders.ReportFailure: lambda order: self.reportFailure(order.cause),
            orders.ChooseDelay: self._chooseDelay,
            orders.Wait: self._startWait,
            orders.CancelWait: lambda order: self._cancelWait(),
            orders.GiveUp: lambda order: self._giveUp(order.cause),
            orders.Stopped: lambda order: self.stopped(),
        }

    @property
    def now(self) -> float:
        """
        Seconds of the links' clock.
        """
        return self.terms.clock.seconds()

    def obey(self, given: Iterable[Command]) -> None:
        """
        Carry out orders, after those that are under way.
        """
        self._queue.extend(given)
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                order = self._queue.popleft()
                carry, kind = self._carry[type(order)], type(order).__name__
                guarded(_log, "The order {order} failed", carry, order, order=kind)
        finally:
            self._busy = False

    def retryNow(self) -> None:
        """
        Cut a wait short.
        """
        if self.supervision.state is State.WAITING:
            self._cancelWait()
            self._waited()

    def linkEnded(self, cause: Cause, *, proven: bool) -> None:
        """
        The link that had been reported as connected has ended.
        """
        if isinstance(cause, PeerClosed) and cause.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS:
            self._pingLess()
        self.obey(self.supervision.lost(cause, self.now, proven=proven))

    # What the drivers differ in.

    def attempt(self, number: int) -> None:
        """
        See L{orders.Attempt<twisted_heartbeat.core.commands.Attempt>}.
        """
        raise NotImplementedError

    def cancelAttempt(self) -> None:
        """
        See L{CancelAttempt<twisted_heartbeat.core.commands.CancelAttempt>}.
        """
        raise NotImplementedError

    def delay(self, attempt: int, cause: Cause) -> float:
        """
        Seconds to wait.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """
        See L{Prepare<twisted_heartbeat.core.commands.Prepare>}.
        """
        self.obey(self.supervision.prepared())

    def cancelPrepare(self) -> None:
        """
        See L{CancelPrepare<twisted_heartbeat.core.commands.CancelPrepare>}.
        """

    def announce(self) -> None:
        """
        See L{Announce<twisted_heartbeat.core.commands.Announce>}.
        """
        if self.link is not None:
            self.link.announceConnected()

    def closeLink(self) -> None:
        """
        See L{Close<twisted_heartbeat.core.commands.Close>}.
        """
        if self.link is not None:
            self.link.close()

    def reportFailure(self, cause: Cause) -> None:
        """
        See L{ReportFailure<twisted_heartbeat.core.commands.ReportFailure>}.
        """

    def gaveUp(self, cause: Cause) -> None:
        """
        See L{GiveUp<twisted_heartbeat.core.commands.GiveUp>}.
        """

    def stopped(self) -> None:
        """
        See L{Stopped<twisted_heartbeat.core.commands.Stopped>}.
        """

    # What they share.

    def _pingLess(self) -> None:
        """
        The links that follow ping half as often.
        """
        heartbeat = self.terms.heartbeat
        if heartbeat is None or heartbeat.interval is None:
            return
        if self._slower < _SLOWER:
            self._slower += 1
            heartbeat = heartbeat.slower
            self.terms = replace(self.terms, heartbeat=heartbeat)
            words = "{link}: the peer is pinged too often: from here on the interval is"
        else:
            words = "{link}: the peer is pinged too often, but the interval stays at"
        _log.warn(
            words + " {interval:g} s, and the bound {bound:g} s",
            link=self.terms.name,
            interval=heartbeat.interval,
            bound=heartbeat.bound,
        )

    def _attempt(self, order: orders.Attempt) -> None:
        words = "Attempt {attempt} could not begin"
        error = guarded(_log, words, self.attempt, order.number, attempt=order.number)
        if error is not None:
            # A connector calls the user's factory before it connects.
            self.obey(self.supervision.failed(causeOfFailure(error), self.now))
        self.terms.events.emit("connecting", order.number)

    def _abort(self, cause: Cause) -> None:
        if self.link is not None:
            self.link.abort(cause)

    def _cleanUp(self) -> None:
        link, self.link = self.link, None
        if link is None:
            self._cleaned()
        else:
            link.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

    def _cleaned(self) -> None:
        self.obey(self.supervision.cleaned(self.now))

    def _chooseDelay(self, order: orders.ChooseDelay) -> None:
        delay = self._draw(order.attempt, order.cause)
        self.obey(self.supervision.chosen(delay, self.now))

    def _draw(self, attempt: int, cause: Cause) -> float:
        try:
            delay = float(self.delay(attempt, cause))
            if not (isfinite(delay) and delay >= 0):
                raise ValueError(f"the retry policy returned {delay!r} seconds")
        except BaseException:
            words = "The retry policy failed; the default is used for attempt {attempt}"
            _log.failure(words, attempt=attempt)
            delay = Backoff().delay(attempt, cause)
        return delay

    def _startWait(self, order: orders.Wait) -> None:
        if reactorStopped(self.terms.clock):
            # No attempt follows, so none is announced.
            return
        retry = order.retry
        self._wait = self.terms.clock.callLater(retry.delay, self._wakened, retry)
        self.terms.events.emit("retrying", retry)

    def _wakened(self, retry: Retry) -> None:
        """
        The wait is over, unless this process overslept it.  Then so did its other clients, and all
        would try in one instant, so it is drawn anew, once.
        """
        late = getattr(self.terms.clock, "lateness", 0.0) > _OVERSLEPT
        if late and retry.cause.fleetWide and not requestedDelay(retry.cause):
            again = self._draw(retry.attempt, retry.cause)
            self._wait = self.terms.clock.callLater(again, self._waited)
        else:
            self._waited()

    def _waited(self) -> None:
        self._wait = None
        self.obey(self.supervision.waited())

    def _cancelWait(self) -> None:
        cancelCalls(self._wait)
        self._wait = None

    def _giveUp(self, cause: Cause) -> None:
        self.gaveUp(cause)
        self.terms.events.emit("gaveUp", cause)
