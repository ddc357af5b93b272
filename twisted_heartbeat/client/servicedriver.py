# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ServiceDriver}: executes the commands of a service's reconnector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure

from ..core.backoff import Backoff, requestedDelay
from ..core.causes import ClosedHere
from ..core.proof import isProven
from ..core.reconnector import State
from ..link.cleanups import linkInCleanup
from ..link.proof import factsOf
from ..timing.deadline import cancelCalls
from .attempt import AttemptOwner, EndpointAttempt, failureOf
from .driver import Driver
from .rounds import ANSWER_WITHIN, AttemptRound

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.config import LinkConfig
    from ..link.link import Link
    from .preparation import PrepareConnection


RetryPolicy = Callable[[int], float]
"""Takes the failed attempts in a row, and returns the seconds to wait."""


class ServiceDriver(Driver, AttemptOwner):
    """
    Connects endpoints, and fires the Deferreds that wait for a connection or for the stop.

    @ivar failure: the failure of the last attempt, as it was raised.
    @ivar started: whether the service has ever been started or stopped.
    """

    def __init__(
        self,
        config: LinkConfig,
        endpoints: Sequence[IStreamClientEndpoint],
        factory: IProtocolFactory,
        policy: RetryPolicy,
        prepareConnection: PrepareConnection | None,
    ) -> None:
        super().__init__(
            # The loss of a link alone is no reason to give up, however long its cleanups took.
            config,
            lambda failures, attempts, elapsed: (
                attempts > 0 and self._backoff.exhausted(attempts, elapsed)
            ),
        )
        self._endpoints = endpoints
        self._factory = factory
        self._policy = policy
        self._backoff = _backoffOf(policy)
        self.prepareConnection = prepareConnection
        self._answeredAt = 0.0
        self._current: EndpointAttempt | AttemptRound | None = None
        self._round: AttemptRound | None = None
        self._rest: AttemptRound | None = None
        self._roundsWithLosers: set[AttemptRound] = set()
        self._waiters: list[tuple[Deferred[Any], int | None]] = []
        self._stopWaiters: list[Deferred[None]] = []
        self.failure: Failure | None = None
        self.started = False
        self._wasWanted = False

    # Requests of the service.

    def changeSettings(self, policy: RetryPolicy, settings: Mapping[str, Any]) -> None:
        self._policy = policy
        self._backoff = _backoffOf(policy)
        self.config = replace(self.config, **settings)
        if "heartbeat" in settings:
            self._timesDoubled = 0

    def start(self) -> None:
        self.started = self._wasWanted = True
        self._rest = None
        self.execute(self.reconnector.start())

    def stop(self) -> Deferred[None]:
        self.started = True
        stopped: Deferred[None] = Deferred()
        self._stopWaiters.append(stopped)
        self.execute(self.reconnector.stop())
        cleaning = linkInCleanup()
        if (
            not stopped.called
            and cleaning is not None
            and cleaning.config.generations is self.config.generations
        ):
            # The stop waits for the hook or cleanup that has called this.  If that has not returned
            # by the next turn, it waits for the stop, and neither would ever end.
            timer = self.config.clock.callLater(0, _fire, [stopped], None)
            stopped.addCallback(lambda _: cancelCalls(timer))
        return stopped

    def reconnectNow(self) -> None:
        """
        Begin an attempt now, unless there is a link, or one is under way that may be answered yet.
        """
        if self.reconnector.state is State.WAITING:
            self.retryNow()
        elif self.config.seconds() - self._answeredAt >= ANSWER_WITHIN:
            self.execute(self.reconnector.renew())

    def whenConnected(self, failAfterFailures: int | None) -> Deferred[Any]:
        state = self.reconnector.state
        link = self.link
        if state is State.CONNECTED and link is not None and link.isUp:
            return succeed(link.built)
        if state is State.STOPPED and self.started:
            return fail(CancelledError())
        if state is State.GAVE_UP and self.failure is not None:
            return fail(self.failure)
        waiter: Deferred[Any] = Deferred(self._letGo)
        self._waiters.append((waiter, failAfterFailures))
        return waiter

    def _letGo(self, cancelled: Deferred[Any]) -> None:
        self._waiters = [entry for entry in self._waiters if entry[0] is not cancelled]

    # Results of an attempt.

    def attemptConnected(self, link: Link) -> None:
        self.link = link
        self._current = None
        self._answeredAt = self.config.seconds()
        if self._round is not None and self._round.losersLeft:
            self._roundsWithLosers.add(self._round)
        self.execute(self.reconnector.connected())

    def attemptFailed(self, cause: Cause, failure: Failure) -> None:
        self._current = self._round = None
        self.failure = failure
        self.execute(self.reconnector.failed(cause, self.config.seconds()))

    def linkLost(self, link: Link, cause: Cause) -> None:
        used = self.reconnector.state is State.CONNECTED
        proven = isProven(factsOf(link, prepared=used), self._backoff.stableAfter)
        round, self._round = self._round, None
        if used and not proven and round is not None:
            # The endpoint answers and proves nothing, as one does that is refused.
            self._rest = round.winnerFailed(cause)
            cause, _ = round.failure
        if not used:
            self.failure = failureOf(cause)
        self.execute(
            self.reconnector.lost(
                cause, self.config.seconds(), proven=proven, goesOn=self._rest is not None
            )
        )

    # The commands.

    def attempt(self, number: int) -> None:
        self._answeredAt = self.config.seconds()
        endpoints = self._endpoints
        if len(endpoints) == 1:
            attempt = self._current = EndpointAttempt(self)
            attempt.begin(endpoints[0], self._factory)
        else:
            round, self._rest = self._rest, None
            if round is None:
                round = AttemptRound(self, self.prepareConnection, self._losersGone)
                round.add(endpoints, self._factory)
            self._current = self._round = round
            round.begin()

    def cancelAttempt(self) -> None:
        if self._current is not None:
            self._current.cancel(ClosedHere())

    def delay(self, attempt: int, cause: Cause) -> float:
        if type(self._policy) is Backoff:
            return self._policy.delay(attempt, cause)
        delay = self._policy(attempt)
        # The policy knows no causes, so a goodbye's request only makes its delay longer.
        requested = requestedDelay(cause)
        return max(delay, requested) if requested else delay

    def prepare(self) -> None:
        if self._round is not None:
            # The winner of a round is prepared already.
            self.execute(self.reconnector.prepared())
        else:
            super().prepare()

    def announce(self) -> None:
        super().announce()
        link = self.link
        if link is not None and link.isUp:
            self._fireWaiters(link.built)

    def reportFailure(self, cause: Cause) -> None:
        failure = self.failure or failureOf(cause)
        ready = []
        notReady: list[tuple[Deferred[Any], int | None]] = []
        for waiter, remaining in self._waiters:
            if remaining is None:
                notReady.append((waiter, None))
            elif remaining <= 1:
                ready.append(waiter)
            else:
                notReady.append((waiter, remaining - 1))
        self._waiters = notReady
        _fire(ready, failure)

    def gaveUp(self, cause: Cause) -> None:
        self.failure = failureOf(cause)
        self._fireWaiters(self.failure)

    def stopped(self) -> None:
        if self._roundsWithLosers:
            return
        if self.reconnector.state is State.STOPPED and self._wasWanted:
            self._fireWaiters(Failure(CancelledError()))
        waiters, self._stopWaiters = self._stopWaiters, []
        _fire(waiters, None)

    def _losersGone(self, round: AttemptRound) -> None:
        self._roundsWithLosers.discard(round)
        if self.reconnector.state is State.STOPPED:
            self.stopped()

    def _fireWaiters(self, result: object) -> None:
        waiters, self._waiters = self._waiters, []
        _fire([waiter for waiter, _ in waiters], result)


def _backoffOf(policy: RetryPolicy) -> Backoff:
    return policy if isinstance(policy, Backoff) else Backoff()


def _fire(waiters: Sequence[Deferred[Any]], result: object) -> None:
    for waiter in waiters:
        # The callback of one may have cancelled another.
        if not waiter.called:
            waiter.callback(result)
