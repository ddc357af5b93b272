# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService} and L{HeartbeatClientFactory}: two drivers of one supervision.

The service connects endpoints, the factory has a connector connect again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError, NotConnectingError
from twisted.internet.interfaces import (
    IConnector,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from .attempt import (
    ANSWER_WITHIN,
    AttemptRound,
    EndpointAttempt,
    Preparation,
    PrepareConnection,
    failureOf,
)
from .core.causes import Cause, ClosedHere, causeOfFailure
from .core.settings import Backoff, Heartbeat, KeepAlive, Limits, wishOf
from .core.supervision import State, isProven
from .net.clock import clockFor
from .net.driver import Driver
from .net.hooks import LinkHooks
from .net.link import Link, linkInCleanup
from .net.terms import Ping, Terms
from .wrapping import nameOf, placeOf, withLink

RetryPolicy = Callable[[int], float]
"""Failed attempts in a row -> seconds to wait."""


class _ServiceDriver(Driver):
    """
    Connects endpoints, and serves those who wait for a connection.

    @ivar failure: what the last attempt failed with, as it was raised.
    @ivar started: whether the service has been started or stopped, ever.
    """

    def __init__(
        self,
        terms: Terms,
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
        self._prepareConnection = prepareConnection
        self._first = 0
        self._answeredAt = 0.0
        self._current: EndpointAttempt | AttemptRound | None = None
        self._round: AttemptRound | None = None
        self._roundsWithLosers: set[AttemptRound] = set()
        self._preparation: Preparation | None = None
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
            stopped.addCallback(lambda _: timer.cancel() if timer.active() else None)
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
        if state is State.CONNECTED and link is not None and link.usable:
            return succeed(link.protocol)
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
            round = AttemptRound(self, self._prepareConnection, self._losersGone)
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
        wish = wishOf(cause)
        return max(delay, wish) if wish else delay

    def prepare(self) -> None:
        # In a round the winner was prepared: that is why it has won.
        if self._prepareConnection is None or self.link is None or self._round is not None:
            self.obey(self.supervision.prepared())
            return
        self._preparation = Preparation(
            self.terms,
            lambda: self.obey(self.supervision.prepared()),
            lambda cause: self.obey(self.supervision.rejected(cause)),
        )
        self._preparation.begin(self._prepareConnection, self.link.door)

    def cancelPrepare(self) -> None:
        if self._preparation is not None:
            self._preparation.cancel()

    def announce(self) -> None:
        super().announce()
        link = self.link
        if link is not None and link.usable:
            self._fireWaiters(link.protocol)

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
    name = nameOf(factory)
    return f"{name} to {', '.join(places)}" if places else name


class HeartbeatClientService(Service):
    """
    Keeps one link up: connects, watches, names the cause when it ends, cleans up, tries again.

    A superset of L{twisted.application.internet.ClientService}: the same arguments mean the same.
    With C{heartbeat=None, keepAlive=None, limits=None} it behaves as that does, less its faults.
    """

    _log = Logger()

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
        hooks: LinkHooks | None = None,
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
        @param hooks: who hears of all that.
        @param ping: takes the protocol and makes the peer speak.
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
            "hooks": hooks or LinkHooks(),
            "ping": ping,
            "name": name or _defaultName(factory, endpoints),
        }
        self._lazyDriver: _ServiceDriver | None = None

    @property
    def _driver(self) -> _ServiceDriver:
        # Not before it is used: the global reactor is installed by its first import.
        if self._lazyDriver is None:
            self._lazyDriver = _ServiceDriver(
                Terms(clock=clockFor(self._clock), **self._settings),
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

        @return: fires when nothing is left: within C{Limits.closeTimeout}, and
            C{Limits.cleanupTimeout} where there is something to clean up.  Where the
            C{disconnected} hook or a cleanup waits for it, it does not wait for them.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._driver.stop()


class _FactoryDriver(Driver):
    """
    Has a connector connect again.
    """

    def __init__(self, factory: HeartbeatClientFactory, terms: Terms) -> None:
        super().__init__(terms, lambda failures, attempts, elapsed: factory.exhausted(failures))
        self._factory = factory
        self._connectorIsConnecting = False
        self._resetFor: Link | None = None

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self._began()
        self.link = link
        self.obey(self.supervision.connected())

    def linkSpoke(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self._resetFor = link
        self._factory.resetDelay()

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        The connector says so, too, in a moment, and that counts.
        """
        self.link = link
        link.cleanUp()

    def pingsSpent(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        link.pingsLeft = -1

    def connecting(self) -> None:
        """
        The connector is connecting, on whoever's behest.
        """
        self._connectorIsConnecting = True
        try:
            self._began()
            self.retryNow()
        finally:
            self._connectorIsConnecting = False

    def failed(self, cause: Cause) -> None:
        """
        The connector has not connected, or is disconnected.
        """
        self._began()
        link = self.link
        if link is None or self.supervision.state is State.CONNECTING:
            self.link = None
            self._failOnce(link, cause)
        else:
            self._ended(link, link.cause or cause)

    def _ended(self, link: Link, cause: Cause) -> None:
        prepared = self.supervision.state is State.CONNECTED
        proven = isProven(link.facts(prepared=prepared), self._factory.stableAfter)
        wasReset = self._resetFor is link
        if proven and not wasReset:
            self._factory.resetDelay()
        elif wasReset and not proven:
            # The link was taken for proven when the peer had said what proves it.
            self.supervision.remember()
        self.linkEnded(cause, proven=proven)

    def _failOnce(self, link: Link | None, cause: Cause) -> None:
        """
        A link that never became ready has its cleanups, too, and they come first.
        """
        if link is None:
            self.obey(self.supervision.failed(cause, self.now))
        else:
            gone = link.whenGone()
            gone.addCallback(lambda why: self.obey(self.supervision.failed(why, self.now)))

    def _began(self) -> None:
        if self.supervision.state in (State.STOPPED, State.GAVE_UP):
            connecting, self._connectorIsConnecting = self._connectorIsConnecting, True
            self.obey(self.supervision.start())
            self._connectorIsConnecting = connecting

    # The orders.

    def attempt(self, number: int) -> None:
        if not self._connectorIsConnecting:
            connector = self._factory.connector
            assert connector is not None
            connector.connect()

    def cancelAttempt(self) -> None:
        # stopTrying has the connector stop by itself, and nothing is heard of that.
        self.obey(self.supervision.failed(ClosedHere(), self.now))

    def closeLink(self) -> None:
        """
        C{stopTrying} does not end a link that is up.
        """

    def delay(self, attempt: int, cause: Cause) -> float:
        return self._factory.nextDelay(attempt, cause)


class HeartbeatClientFactory(ReconnectingClientFactory):
    """
    Reconnects through its connector, for C{reactor.connectTCP}, C{connectSSL} and the like.

    Set C{protocol}, or override C{buildProtocol} and call this one's.

    @ivar initialDelay: seconds; the ceiling of the first draw.
    @ivar maxDelay: seconds; no draw is longer.
    @ivar factor: how much the ceiling grows with each attempt.
    @ivar jitter: as C{Backoff.jitter}.
    @ivar spread: as C{Backoff.spread}.
    @ivar stableAfter: as C{Backoff.stableAfter}.
    @ivar maxRetries: failed attempts in a row after which it gives up; L{None} for never.
    """

    maxDelay: Any = 60.0
    initialDelay = 1.0
    factor = 2.0
    jitter: Any = "full"
    spread = 12.0
    stableAfter = 10.0
    delay = initialDelay

    def __init__(
        self,
        *,
        heartbeat: Heartbeat | None = Heartbeat(),
        keepAlive: KeepAlive | None = KeepAlive(),
        limits: Limits | None = Limits(),
        hooks: LinkHooks | None = None,
        ping: Ping | None = None,
        name: str | None = None,
    ) -> None:
        """
        @param heartbeat: L{None} to prove nothing by silence.
        @param keepAlive: L{None} to leave the operating system's options alone.
        @param limits: L{None} for none.
        @param hooks: who hears of all that.
        @param ping: takes the protocol and makes the peer speak.
        @param name: what the log calls its links.
        """
        self.heartbeat = heartbeat
        self.keepAlive = keepAlive
        self.limits = limits
        self.hooks = hooks
        self.ping = ping
        self.name = name

    @property
    def link(self) -> Link | None:
        """
        The link that is up; L{None} if there is none.
        """
        return self._driver.link

    @property
    def backoff(self) -> Backoff:
        """
        The factory's own attributes as a backoff.

        @raise ValueError: if one of them makes no sense.
        """
        return Backoff(
            initial=self.initialDelay,
            maximum=max(self.maxDelay, self.initialDelay),
            factor=self.factor,
            jitter=self.jitter,
            spread=self.spread,
            stableAfter=self.stableAfter,
        )

    def exhausted(self, failures: int) -> bool:
        """
        Whether C{maxRetries} have been made.

        @param failures: failures in a row, the loss of a link before them included.
        """
        return self.maxRetries is not None and failures > self.maxRetries

    def nextDelay(self, attempt: int, cause: Cause) -> float:
        """
        Seconds to wait before the next attempt.
        """
        self.retries = attempt
        self.delay = min(self.initialDelay * self.factor ** min(attempt, 100), self.maxDelay)
        return self.backoff.delay(attempt, cause)

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        protocol = super().buildProtocol(addr)
        return None if protocol is None else withLink(protocol, self._driver.terms, self._driver)

    def startedConnecting(self, connector: IConnector) -> None:
        """
        See C{ClientFactory}.
        """
        super().startedConnecting(connector)
        self.connector = connector
        if self.continueTrying:
            self._driver.connecting()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure | None) -> None:
        """
        See C{ClientFactory}.
        """
        self._connectorFailed(connector, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure | None) -> None:
        """
        See C{ClientFactory}.
        """
        self._connectorFailed(connector, reason)

    def retry(self, connector: IConnector | None = None) -> None:
        """
        Have the connector connect again, after a suitable delay.

        @raise ValueError: if none is given and none is known.
        """
        if not self.continueTrying:
            return
        connector = connector or self.connector
        if connector is None:
            raise ValueError("no connector to retry")
        self._connectorFailed(connector, None)

    def resetDelay(self) -> None:
        """
        Forget the failures so far.  Called by itself when a link is proven.
        """
        self.delay = self.initialDelay
        self.retries = 0
        self.continueTrying = 1
        self._driver.supervision.forgive()

    def stopTrying(self) -> None:
        """
        Try no more.  A link that is up stays up.
        """
        self.continueTrying = 0
        self._driver.obey(self._driver.supervision.stop())
        if self.connector is not None:
            try:
                self.connector.stopConnecting()
            except NotConnectingError:
                pass

    @property
    def _driver(self) -> _FactoryDriver:
        if self._lazyDriver is None:
            terms = Terms(
                clock=clockFor(self.clock),
                heartbeat=self.heartbeat,
                keepAlive=self.keepAlive,
                limits=self.limits or Limits.off(),
                hooks=self.hooks or LinkHooks(),
                ping=self.ping,
                name=self.name or type(self).__name__,
            )
            self._lazyDriver = _FactoryDriver(self, terms)
        return self._lazyDriver

    _lazyDriver: _FactoryDriver | None = None

    def _connectorFailed(self, connector: IConnector, reason: Failure | None) -> None:
        if self.continueTrying:
            self.connector = connector
            error = ConnectError() if reason is None else reason.value
            self._driver.failed(causeOfFailure(error))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_lazyDriver", None)
        return state
