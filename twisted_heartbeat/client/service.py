# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService}: keeps one link up, as C{ClientService} does, less its faults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from ..core.backoff import Backoff, requestedDelay
from ..core.causes import ClosedHere
from ..core.proof import isProven
from ..core.reconnector import State
from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.cleanups import linkInCleanup
from ..link.config import LinkConfig
from ..logs import SafeLogger
from ..protocol.wrapper import defaultLinkName, placeOf
from ..timing.deadline import cancelCalls
from ..timing.monotonic import clockFor
from .attempt import EndpointAttempt, Preparation, failureOf
from .driver import Driver
from .rounds import ANSWER_WITHIN, AttemptRound

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.config import Ping
    from ..link.hooks import Hooks
    from ..link.link import Link
    from .attempt import PrepareConnection

_log = SafeLogger()


RetryPolicy = Callable[[int], float]
"""Failed attempts in a row -> seconds to wait."""


class _PreparingDriver(Driver):
    """
    A driver that calls C{prepareConnection} with each new link.

    @ivar prepareConnection: L{None} if there is nothing to prepare.
    """

    prepareConnection: PrepareConnection | None = None
    _preparation: Preparation | None = None

    def prepare(self) -> None:
        if self.prepareConnection is None or self.link is None:
            self.obey(self.supervision.prepared())
            return
        self._preparation = Preparation(
            self.terms,
            lambda: self.obey(self.supervision.prepared()),
            lambda cause: self.obey(self.supervision.rejected(cause)),
        )
        self._preparation.begin(self.prepareConnection, self.link.outermost)

    def cancelPrepare(self) -> None:
        if self._preparation is not None:
            self._preparation.cancel()


class _ServiceDriver(_PreparingDriver):
    """
    Connects endpoints, and serves those who wait for a connection.

    @ivar failure: what the last attempt failed with, as it was raised.
    @ivar started: whether the service has been started or stopped, ever.
    """

    def __init__(
        self,
        terms: LinkConfig,
        endpoints: Sequence[IStreamClientEndpoint],
        factory: IProtocolFactory,
        policy: RetryPolicy,
        prepareConnection: PrepareConnection | None,
    ) -> None:
        backoff = policy if isinstance(policy, Backoff) else Backoff()
        super().__init__(
            # However long the cleanups of a link took, its loss alone is no reason to give up.
            terms,
            lambda failures, attempts, elapsed: (
                attempts > 0 and backoff.exhausted(attempts, elapsed)
            ),
        )
        self._endpoints = endpoints
        self._factory = factory
        self._policy = policy
        self._stableAfter = backoff.stableAfter
        self.prepareConnection = prepareConnection
        self._first = 0
        self._answeredAt = 0.0
        self._current: EndpointAttempt | AttemptRound | None = None
        self._round: AttemptRound | None = None
        self._roundsWithLosers: set[AttemptRound] = set()
        self._waiters: list[tuple[Deferred[Any], int | None]] = []
        self._stopWaiters: list[Deferred[None]] = []
        self.failure: Failure | None = None
        self.started = False
        self._wasWanted = False

    # What the service asks for.

    def start(self) -> None:
        self.started = self._wasWanted = True
        self._first = 0
        self.obey(self.supervision.start())

    def stop(self) -> Deferred[None]:
        self.started = True
        stopped: Deferred[None] = Deferred()
        self._stopWaiters.append(stopped)
        self.obey(self.supervision.stop())
        cleaning = linkInCleanup()
        if not stopped.called and cleaning is not None and cleaning.belongsTo(self.terms):
            # The hook or cleanup that asks is what the stop waits for.  If it has not returned by
            # the next turn, it waits for the stop.
            timer = self.terms.clock.callLater(0, _fire, [stopped], None)
            stopped.addCallback(lambda _: cancelCalls(timer))
        return stopped

    def reconnectNow(self) -> None:
        """
        Begin an attempt now, unless there is a link, or one is under way that may be answered yet.
        """
        if self.supervision.state is State.WAITING:
            self.retryNow()
        elif self.now - self._answeredAt >= ANSWER_WITHIN:
            self.obey(self.supervision.renew())

    def whenConnected(self, failAfterFailures: int | None) -> Deferred[Any]:
        state = self.supervision.state
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

    # What an attempt comes to.

    def attemptConnected(self, link: Link) -> None:
        self.link = link
        self._current = None
        self._answeredAt = self.now
        if self._round is not None and self._round.losersLeft:
            self._roundsWithLosers.add(self._round)
        self.obey(self.supervision.connected())

    def attemptFailed(self, cause: Cause, failure: Failure) -> None:
        self._current = self._round = None
        self.failure = failure
        self.obey(self.supervision.failed(cause, self.now))

    def linkLost(self, link: Link, cause: Cause) -> None:
        used = self.supervision.state is State.CONNECTED
        proven = isProven(link.facts(prepared=used), self._stableAfter)
        round, self._round = self._round, None
        if proven:
            self._first = 0
        elif used and round is not None and round.winner is not None:
            # What answers there proves nothing, so the next round begins behind it.
            self._first = (self._first + round.winner.position + 1) % len(self._endpoints)
        if not used:
            self.failure = failureOf(cause)
        self.linkEnded(cause, proven=proven)

    # The orders.

    def attempt(self, number: int) -> None:
        self._answeredAt = self.now
        endpoints = self._endpoints
        if len(endpoints) == 1:
            attempt = self._current = EndpointAttempt(self)
            attempt.begin(endpoints[0], self._factory)
        else:
            round = AttemptRound(self, self.prepareConnection, self._losersGone)
            self._current = self._round = round
            round.begin([*endpoints[self._first :], *endpoints[: self._first]], self._factory)

    def cancelAttempt(self) -> None:
        if self._current is not None:
            self._current.cancel(ClosedHere())

    def delay(self, attempt: int, cause: Cause) -> float:
        if type(self._policy) is Backoff:
            return self._policy.delay(attempt, cause)
        delay = self._policy(attempt)
        # It knows no causes.  So it may wait for longer than a goodbye has asked for, but not less.
        wish = requestedDelay(cause)
        return max(delay, wish) if wish else delay

    def prepare(self) -> None:
        if self._round is not None:
            # The winner was prepared in the round: that is why it has won.
            self.obey(self.supervision.prepared())
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
        if self.supervision.state is State.STOPPED and self._wasWanted:
            self._fireWaiters(Failure(CancelledError()))
        waiters, self._stopWaiters = self._stopWaiters, []
        _fire(waiters, None)

    def _losersGone(self, round: AttemptRound) -> None:
        self._roundsWithLosers.discard(round)
        if self.supervision.state is State.STOPPED:
            self.stopped()

    def _fireWaiters(self, result: object) -> None:
        waiters, self._waiters = self._waiters, []
        _fire([waiter for waiter, _ in waiters], result)


def _fire(waiters: Sequence[Deferred[Any]], result: object) -> None:
    for waiter in waiters:
        # The callback of one may have cancelled another.
        if not waiter.called:
            waiter.callback(result)


def _defaultName(factory: IProtocolFactory, endpoints: Sequence[IStreamClientEndpoint]) -> str:
    """
    A name by which an operator can tell the links of several services apart.
    """
    places = [place for place in map(placeOf, endpoints) if place]
    name = defaultLinkName(factory)
    return f"{name} to {', '.join(places)}" if places else name


class HeartbeatClientService(Service):
    """
    Keeps one link up: connects, watches, names the cause when it ends, cleans up, tries again.

    A superset of L{twisted.application.internet.ClientService}: the same arguments mean the same.
    With C{heartbeat=None, keepAlive=None, limits=None} it behaves as that does, less its faults.
    """

    _log = SafeLogger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint | Sequence[IStreamClientEndpoint],
        factory: IProtocolFactory,
        retryPolicy: RetryPolicy | None = None,
        clock: IReactorTime | None = None,
        prepareConnection: PrepareConnection | None = None,
        *,
        heartbeat: Heartbeat | None = Heartbeat(),
        keepAlive: KeepAlive | None = KeepAlive(),
        limits: Limits | None = Limits(),
        hooks: Hooks | None = None,
        ping: Ping | None = None,
        name: str | None = None,
    ) -> None:
        """
        @param endpoint: where to connect to; or a list of such.  A round tries each of them once:
            the next when one has failed, or after a second without an answer.  The first to be
            prepared wins.
        @param factory: makes the protocols.
        @param retryPolicy: failed attempts in a row -> seconds to wait; L{Backoff} by default,
            which also knows the cause.
        @param clock: tells the time; the global reactor's monotonic time by default.
        @param prepareConnection: takes the protocol of a new connection, before anybody else gets
            it.  It may return a Deferred; what it raises rejects the connection, and so does
            C{Limits.connectTimeout}.
        @param heartbeat: L{None} to prove nothing by silence.
        @param keepAlive: L{None} to leave the operating system's options alone.
        @param limits: L{None} for none.
        @param hooks: called besides the log: one L{LinkHooks}, or a list of several.
        @param ping: takes the protocol and makes the peer speak; may be an C{async def}.
        @param name: what the log calls its links; by default the protocol's name and the places
            that the endpoints lead to.
        @raise ValueError: if the list of endpoints is empty.
        """
        endpoints: list[Any] = list(endpoint) if isinstance(endpoint, list | tuple) else [endpoint]
        if not endpoints:
            raise ValueError("endpoint is an empty list: there must be at least one")
        self._endpoints = endpoints
        self._factory = factory
        self._policy = Backoff() if retryPolicy is None else retryPolicy
        self._clock = clock
        self._prepareConnection = prepareConnection
        self._settings: dict[str, Any] = {
            "heartbeat": heartbeat,
            "keepAlive": keepAlive,
            "limits": limits or Limits.off(),
            "hooks": hooks,
            "ping": ping,
            "name": name or _defaultName(factory, endpoints),
        }
        self._lazyDriver: _ServiceDriver | None = None

    @property
    def _driver(self) -> _ServiceDriver:
        # Not before it is used: the global reactor is installed by its first import.
        if self._lazyDriver is None:
            self._lazyDriver = _ServiceDriver(
                LinkConfig(clock=clockFor(self._clock), **self._settings),
                self._endpoints,
                self._factory,
                self._policy,
                self._prepareConnection,
            )
        return self._lazyDriver

    @property
    def state(self) -> str:
        """
        Where it stands: the value of a L{State}, C{"connected"} or C{"waiting"} for example.
        """
        return str(self._driver.supervision.state)

    @property
    def link(self) -> Link | None:
        """
        The link that is up, or being prepared or closed; L{None} if there is none.
        """
        return self._driver.link

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[Any]:
        """
        See L{twisted.application.internet.ClientService.whenConnected}.

        @param failAfterFailures: fail after so many failed attempts; L{None} for only when the
            service is stopped or gives up.
        """
        return self._driver.whenConnected(failAfterFailures)

    def whenDisconnected(self) -> Deferred[Any]:
        """
        Fires with the cause when the present link has ended and been cleaned up; at once, with
        L{None}, if there is none.
        """
        link = self._driver.link
        return succeed(None) if link is None else link.whenGone()

    def reconnectNow(self) -> None:
        """
        Try to connect now: cut the wait for the next attempt short, or replace an attempt that has
        had no answer for a second.  While there is a link, nothing happens.
        """
        self._driver.reconnectNow()

    def startService(self) -> None:
        """
        See C{IService}.  After giving up, it tries again.
        """
        if self.running and self._driver.supervision.state is not State.GAVE_UP:
            self._log.warn("Duplicate ClientService.startService {log_source}")
            return
        super().startService()  # type: ignore[no-untyped-call]
        self._driver.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop trying, and close the link.

        @return: fires when nothing is left.  L{Limits} bounds the close (C{closeTimeout}) and the
            cleanups (C{cleanupTimeout}).  Where the C{disconnected} hook or a cleanup waits for
            this, this does not wait for them.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._driver.stop()
