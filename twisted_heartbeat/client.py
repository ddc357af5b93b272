# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService} and L{HeartbeatClientFactory}: two drivers of one supervision.

The service connects endpoints, the factory has a connector connect again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from itertools import count
from types import MethodType
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError, NotConnectingError
from twisted.internet.interfaces import (
    IConnector,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, ReconnectingClientFactory
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
from .core.supervision import State, Supervision, isProven
from .net.clock import clockFor
from .net.deadline import cancelCalls
from .net.driver import Driver
from .net.hooks import LinkHooks
from .net.link import Link, linkInCleanup
from .net.reports import SafeLogger
from .net.terms import Ping, Terms
from .wrapping import nameOf, placeOf, withLink

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
        if state is State.CONNECTED and link is not None and link.usable:
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
        wish = wishOf(cause)
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
        if link is not None and link.usable:
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
    name = nameOf(factory)
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

        @return: fires when nothing is left.  L{Limits} bounds the close (C{closeTimeout}) and the
            cleanups (C{cleanupTimeout}).  Where the C{disconnected} hook or a cleanup waits for
            this, this does not wait for them.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._driver.stop()


class _Declined(Protocol):
    """
    Aborts its connection.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class _ConnectorDriver(_PreparingDriver):
    """
    Has one connector of a factory connect again.

    A subclass of the factory may call C{connector.connect()} itself, or call C{retry} later, or
    never.  So the link is cleaned up when it ends, but the supervision decides on a retry only
    after L{retry} was called.  An attempt that this driver has not ordered begins a new
    supervision.
    """

    def __init__(self, factory: HeartbeatClientFactory, connectors: _Connectors) -> None:
        super().__init__(connectors.terms, self._exhausted)
        self._factory = factory
        self._connectors = connectors
        # Those that it uses may be slower.
        self._given = self.terms
        # None while the connector is idle: the application alone decides how long it is kept.
        self._connector: IConnector | None = None
        self._underWay = False
        self._ordered = False
        self._resetEarly = False
        self._ended: Link | None = None
        self._reason: Cause | None = None
        self._wanted: Cause | None = None

    def heedSettings(self) -> None:
        """
        Use the settings that the factory has now.
        """
        terms = self._connectors.terms
        if terms is not self._given:
            self._given = self.terms = terms
            self._slower = 0

    # What the connector does.

    def connecting(self, connector: IConnector) -> None:
        """
        The connector has begun an attempt.
        """
        self._connector = connector
        self._underWay = True
        self._connectors.unlinked[self] = None
        self._reason = self._wanted = None
        if self._ordered:
            return
        if self.supervision.state is State.WAITING:
            self.retryNow()
        else:
            self._begin()

    def disconnected(self, reason: Failure | None) -> None:
        """
        The connector has not connected, or its connection is lost.
        """
        self._notUnderWay()
        # The application's unit tests may pass anything.
        failure = reason if isinstance(reason, Failure) else Failure(ConnectError())
        if self.link is not None:
            self.link.lostUnheard(failure)
        self._reason = self._reason or causeOfFailure(failure.value)

    def settled(self) -> None:
        """
        The factory has handled that.
        """
        waits = self.supervision.state in (State.WAITING, State.DECIDING)
        if not self._underWay and self._wanted is None and not waits:
            self._connector = None

    def mayHaveConnected(self) -> bool:
        """
        Whether the connector may be the one that asks for a protocol now.
        """
        return _stateOf(self._connector, "connected") == "connected"

    def declined(self) -> Protocol | None:
        """
        The factory has no protocol for the connection.

        @return: what the transport shall speak to.  Over TLS it is a protocol that aborts, because
            C{TLSMemoryBIOFactory} does not check for L{None}: it raises, and the connector never
            hears that the connection is lost.
        """
        factory = getattr(self._connector, "factory", self._factory)
        return None if factory is self._factory else _Declined()

    # What the factory asks for.

    def retry(self, connector: IConnector) -> None:
        """
        Have the connector connect after a wait, and after the cleanups of its last link.
        """
        # Unless it has no state, the connector knows better than its driver.
        state = _stateOf(connector, "connecting" if self._underWay else "disconnected")
        if state != "disconnected":
            _log.warn(
                "retry() ignored: {connector} is connecting or connected, and will be retried "
                "when it is disconnected",
                connector=connector,
            )
            return
        self._notUnderWay()
        self._connector = connector
        self._wanted = self._reason or causeOfFailure(ConnectError())
        self._cleaned()

    def stopTrying(self) -> None:
        """
        End the wait or the attempt.  A link stays up.
        """
        self._wanted = None
        state = self.supervision.state
        if state is State.CONNECTING and self._underWay:
            try:
                if self._connector is not None:
                    self._connector.stopConnecting()
            except NotConnectingError:
                # It is connected, and there is nothing to stop.
                return
        if state in (State.CONNECTING, State.WAITING, State.DECIDING):
            self.obey(self.supervision.stop())
        self.settled()

    # What the link tells.

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self._underWay = True
        if self.supervision.state is not State.CONNECTING:
            self._begin()
        self.link = link
        self._resetEarly = False
        self.prepareConnection = self._factory.prepareConnection
        self.obey(self.supervision.connected())

    def linkSpoke(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        if link is self.link and self.supervision.state is State.CONNECTED:
            self._proveEarly()

    def linkClosing(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        self._ended, self._reason = link, cause
        self._connectors.heedReset()
        if link is self.link:
            self.linkEnded(cause, proven=self._wasProven(link, cause))
        else:
            # Its TLS handshake was not completed.
            link.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

    def pingsSpent(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.net.link.Owner>}.
        """
        link.pingsLeft = -1

    def _wasProven(self, link: Link, cause: Cause) -> bool:
        """
        Whether a link that has ended had been proven.
        """
        prepared = self.supervision.state is State.CONNECTED
        proven = isProven(link.facts(prepared=prepared), self._stableAfter)
        if proven and not self._resetEarly:
            self._connectors.linkProven(self)
        elif self._resetEarly and not proven:
            # The link was taken for proven when the peer had said what proves it.
            self.supervision.remember()
        return proven

    @property
    def _stableAfter(self) -> float:
        try:
            return _backoffOf(self._factory).stableAfter
        except (TypeError, ValueError):
            # The retry logs it.
            return Backoff().stableAfter

    def _proveEarly(self) -> None:
        """
        Reset the delay when the peer begins to speak, because applications read C{retries}.
        """
        self._resetEarly = True
        self._connectors.linkProven(self)

    # The orders.

    def attempt(self, number: int) -> None:
        if self._underWay:
            # The application has called connect().
            return
        if not self._factory.continueTrying:
            self.obey(self.supervision.stop())
            self.settled()
            return
        connector: Any = self._connector
        self._ordered = True
        try:
            connector.connect()
        except BaseException as error:
            _log.failure("{connector} does not connect", connector=connector)
            if not self._underWay and getattr(connector, "state", None) == "connecting":
                # The factory's startFactory has raised.  The connector was changing its state, and
                # in this one it would refuse to connect for ever.
                connector.state = "disconnected"
            self._notUnderWay()
            self.obey(self.supervision.failed(causeOfFailure(error), self.now))
        finally:
            self._ordered = False

    def cancelAttempt(self) -> None:
        # The connector was stopped before, or has no attempt under way.
        self.obey(self.supervision.failed(ClosedHere(), self.now))

    def announce(self) -> None:
        super().announce()
        link = self.link
        if link is not None and link.proofHeard and link.usable:
            self._proveEarly()

    def delay(self, attempt: int, cause: Cause) -> float:
        return self._factory.nextDelay(attempt, cause)

    def gaveUp(self, cause: Cause) -> None:
        self._connectors.tellRetries(self.supervision.failures)
        self._connector = None

    def _begin(self) -> None:
        """
        Begin a new supervision with an attempt that is under way already.
        """
        self._cancelWait()
        self.cancelPrepare()
        self._ended = self.link = None
        self.supervision = Supervision(self._exhausted)
        self.obey(self.supervision.start())

    def _notUnderWay(self) -> None:
        """
        The connector is disconnected.
        """
        self._underWay = False
        self._connectors.unlinked.pop(self, None)

    def _exhausted(self, failures: int, attempts: int, elapsed: float) -> bool:
        most = self._factory.maxRetries
        return most is not None and failures > most

    def _cleaned(self) -> None:
        """
        Go on if a retry is wanted and the last link is cleaned up.
        """
        if self._ended is not None:
            if not self._ended.cleaned:
                return
            # Its transport refers to the connector, which could otherwise never be dropped.
            self._ended = None
        cause, self._wanted = self._wanted, None
        if cause is None:
            return
        self._connectors.heedReset()
        supervision = self.supervision
        if supervision.state is State.CLEANING:
            self.obey(supervision.cleaned(self.now))
        elif supervision.state is State.CONNECTING:
            self.obey(supervision.failed(cause, self.now))
        else:
            self.obey(supervision.retry(cause, self.now))


_CONNECTOR_STATES = ("disconnected", "connecting", "connected")


def _stateOf(connector: object, default: str) -> str:
    """
    The state of a connector; the default if it does not say, as a mock in a unit test.
    """
    state = getattr(connector, "state", default)
    return state if isinstance(state, str) and state in _CONNECTOR_STATES else default


class _Connectors:
    """
    The connectors of one factory, and the driver of each.

    When the application drops a connector, its driver goes with it.

    @ivar generations: numbers the links of all of them.
    @ivar unlinked: those under way whose connectors have not asked for a protocol yet, the one that
        was first to connect first.
    @ivar toldRetries: the C{retries} that were last set on the factory.
    """

    def __init__(self, factory: HeartbeatClientFactory) -> None:
        self.generations = count(1)
        self.unlinked: dict[_ConnectorDriver, None] = {}
        self.toldRetries = 0
        self._factory = factory
        # The driver whose link is being proven.
        self._proving: _ConnectorDriver | None = None
        self._links = 0
        self._drivers: WeakKeyDictionary[IConnector, _ConnectorDriver] = WeakKeyDictionary()
        # Those of what can be no key there: an object() or None, in a unit test. Each is held with
        # its driver, because no other object may have its id.
        self._held: dict[int, tuple[object, _ConnectorDriver]] = {}
        # Those of links that have no connector, because an endpoint made them for example.
        self._loose: WeakSet[_ConnectorDriver] = WeakSet()
        self._settings: tuple[object, ...] = ()
        self._terms: Terms | None = None

    def __iter__(self) -> Iterator[_ConnectorDriver]:
        held = (driver for _, driver in self._held.values())
        return iter([*self._drivers.values(), *held, *self._loose])

    def of(self, connector: IConnector) -> _ConnectorDriver:
        """
        The driver of a connector.
        """
        _, driver = self._held.get(id(connector), (None, None))
        with suppress(TypeError):
            driver = driver or self._drivers.get(connector)
        if driver is None:
            driver = _ConnectorDriver(self._factory, self)
            try:
                self._drivers[connector] = driver
            except TypeError:
                self._held[id(connector)] = connector, driver
        driver.heedSettings()
        return driver

    def _expecting(self) -> _ConnectorDriver:
        """
        The driver of the connector that has just connected, and asks for a protocol.  A new one if
        it is none that has said so.

        A connector does not say which it is when it asks.  But it says that it is connected, and
        until then had no protocol.
        """
        for driver in self.unlinked:
            if driver.mayHaveConnected():
                del self.unlinked[driver]
                driver.heedSettings()
                return driver
        loose = _ConnectorDriver(self._factory, self)
        self._loose.add(loose)
        return loose

    def addLink(self, protocol: Any) -> Any:
        """
        Give a new protocol, if there is one, a link of the connector that asks for it.

        @return: what the transport shall speak to.
        """
        driver = self._expecting()
        self._links += 1
        if protocol is None:
            return driver.declined()
        return withLink(protocol, driver.terms, driver)[0]

    def build(self, build: Callable[[], Any]) -> Any:
        """
        Build a protocol, and give it a link unless L{addLink} was called meanwhile.
        """
        before = self._links
        protocol = build()
        return protocol if self._links != before else self.addLink(protocol)

    def linkProven(self, driver: _ConnectorDriver) -> None:
        """
        A link is proven: have the factory forget the failures of its connector.
        """
        before, continueTrying = self._proving, self._factory.continueTrying
        self._proving = None if driver in self._loose else driver
        try:
            self._factory.resetDelay()
        except BaseException:
            _log.failure("resetDelay of {factory} failed", factory=self._factory)
        finally:
            self._proving, self._factory.continueTrying = before, continueTrying

    def forgive(self) -> None:
        """
        Forget the failures of the connector whose link is being proven, else those of all.
        """
        self.toldRetries = 0
        for driver in self if self._proving is None else [self._proving]:
            driver.supervision.forgive()

    def tellRetries(self, retries: int) -> None:
        """
        Set C{retries} on the factory.
        """
        self.toldRetries = self._factory.retries = retries

    def heedReset(self) -> None:
        """
        Forget the failures if a subclass has reset C{retries} without L{forgive}, by calling the
        C{resetDelay} of L{ReconnectingClientFactory} for example.
        """
        if self.toldRetries and not self._factory.retries:
            self.forgive()

    @property
    def terms(self) -> Terms:
        """
        What their links have in common.
        """
        of = self._factory
        settings = of.clock, of.heartbeat, of.keepAlive, of.limits, of.hooks, of.ping, of.name
        if self._terms is None or settings != self._settings:
            self.requireSettings()
            self._settings = settings
            self._terms = Terms(
                clock=clockFor(of.clock),
                heartbeat=of.heartbeat,
                keepAlive=of.keepAlive,
                limits=of.limits or Limits.off(),
                hooks=of.hooks or LinkHooks(),
                ping=of.ping,
                # A subclass may have a method of this name, for example.
                name=of.name if of.name and isinstance(of.name, str) else type(of).__name__,
                generations=self.generations,
            )
        return self._terms

    def requireSettings(self) -> None:
        """
        Raise L{ValueError} for a setting of the wrong type.  A subclass may use its name for
        something else.
        """
        allowed = {
            "heartbeat": Heartbeat,
            "keepAlive": KeepAlive,
            "limits": Limits,
            "hooks": LinkHooks,
        }
        for field, kind in allowed.items():
            value = getattr(self._factory, field)
            if value is not None and not isinstance(value, kind):
                _complain(self._factory, field, value, f"a {kind.__name__} or None")
        for field in ("ping", "prepareConnection"):
            value = getattr(self._factory, field)
            if value is not None and not callable(value):
                _complain(self._factory, field, value, "a callable or None")
        if not callable(self._factory.nextDelay):
            _complain(self._factory, "nextDelay", self._factory.nextDelay, "a method")


def _complain(factory: object, field: str, value: object, allowed: str) -> NoReturn:
    raise ValueError(f"{type(factory).__name__}.{field} is {value!r}: it must be {allowed}")


_Method = Callable[..., Any]

_OBSERVES = "twistedHeartbeatObserves"
"""An attribute of the functions that L{_observe} makes."""


def _inheritedMethod(cls: type, name: str) -> _Method:
    """
    A method of a class, as a function: its own, or the next one in the order of the bases.
    """
    if name in vars(cls):
        own = vars(cls)[name]
        if not hasattr(own, "__get__"):
            # A functools.partial, for example, is not bound.
            return lambda self, *given: own(*given)
        return lambda self, *given: own.__get__(self, type(self))(*given)
    return lambda self, *given: getattr(super(cls, self), name)(*given)


def _isOutermost(factory: HeartbeatClientFactory, observed: _Method, name: str) -> bool:
    """
    Whether a connector has called this function, and not a subclass's method its base's.
    """
    own = vars(factory).get(name)
    if not hasattr(own, _OBSERVES):
        own = getattr(type(factory), name)
    return observed is getattr(own, "__func__", own)


def _observeConnector(method: _Method, name: str) -> _Method:
    """
    A method that tells the driver of a connector what that did, and then does what it did before.
    """

    def observed(self: HeartbeatClientFactory, connector: IConnector, *given: Any) -> Any:
        if not _isOutermost(self, observed, name):
            return method(self, connector, *given)
        driver = self._heartbeatConnectors.of(connector)
        if name == "startedConnecting":
            self.connector = connector
            driver.connecting(connector)
            return method(self, connector, *given)
        driver.disconnected(*given)
        try:
            return method(self, connector, *given)
        finally:
            driver.settled()

    return observed


def _observeProtocol(method: _Method, name: str) -> _Method:
    """
    A C{buildProtocol} that gives what was built before a link, if it has none.
    """

    def observed(self: HeartbeatClientFactory, addr: Any) -> Any:
        return self._heartbeatConnectors.build(lambda: method(self, addr))

    return observed


_OBSERVED = {
    "buildProtocol": _observeProtocol,
    "startedConnecting": _observeConnector,
    "clientConnectionFailed": _observeConnector,
    "clientConnectionLost": _observeConnector,
}


def _observe(method: _Method, name: str, like: Any) -> _Method:
    """
    Let the drivers see what connectors tell a factory.  Otherwise they would miss it wherever a
    subclass overrides a method, or another base has it, and does not call the next one:
    L{ReconnectingClientFactory} needs no such call.

    @param like: the method in whose place the result is put.
    """
    observed = wraps(like)(_OBSERVED[name](method, name))
    setattr(observed, _OBSERVES, True)
    return observed


def _observeClass(cls: type[HeartbeatClientFactory]) -> None:
    for name in _OBSERVED:
        before = getattr(cls, name)
        if not hasattr(before, _OBSERVES):
            setattr(cls, name, _observe(_inheritedMethod(cls, name), name, before))


def _observeInstance(factory: HeartbeatClientFactory) -> None:
    """
    The same for methods that the application has set on the factory itself.
    """
    for name in _OBSERVED.keys() & vars(factory).keys():
        before = vars(factory)[name]
        if not hasattr(before, _OBSERVES):
            observed = _observe(lambda self, *given, own=before: own(*given), name, before)
            setattr(factory, name, MethodType(observed, factory))


def _backoffOf(factory: HeartbeatClientFactory) -> Backoff:
    """
    The attributes of a factory as a backoff.

    @raise ValueError: if one of them makes no sense.
    """
    return Backoff(
        initial=factory.initialDelay,
        maximum=max(factory.maxDelay, factory.initialDelay),
        factor=factory.factor,
        # Twisted's takes any false value for none.
        jitter=factory.jitter or None,
        spread=factory.spread,
        stableAfter=factory.stableAfter,
    )


class _Overridable:
    """
    A property in whose place a subclass or an instance may set anything.
    """

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self._get = get
        self.__doc__ = get.__doc__

    def __get__(self, instance: Any, kind: type) -> Any:
        return self if instance is None else self._get(instance)


_OWN: Any = object()
"""In place of a setting: the class attribute holds."""


class HeartbeatClientFactory(ReconnectingClientFactory):
    """
    Reconnects through its connector, for C{reactor.connectTCP}, C{connectSSL} and the like.

    Set C{protocol}, or override C{buildProtocol}: what it returns is watched.  One factory may have
    several connectors.  Each has a supervision of its own, with its own delays and its own
    C{maxRetries}; C{connector}, C{delay} and C{retries} tell those of the latest.

    @cvar heartbeat: L{None} to prove nothing by silence.
    @cvar keepAlive: L{None} to leave the operating system's options alone.
    @cvar limits: L{None} for none.
    @cvar hooks: called besides the log; L{None} for none.
    @cvar ping: takes the protocol and makes the peer speak; a method, or a callable that was given
        to C{__init__}.
    @cvar name: what the log calls its links; the name of the class by default.
    @cvar prepareConnection: takes the protocol of a new connection; a method, or a callable that
        was set on the instance.  It may return a Deferred or be a coroutine.  What it raises
        rejects the connection, and so does C{Limits.connectTimeout} if it takes longer.  The link
        is C{connected} afterwards.
    @ivar initialDelay: seconds; the ceiling of the first draw.
    @ivar maxDelay: seconds; no draw is longer.
    @ivar factor: how much the ceiling grows with each attempt.
    @ivar jitter: as C{Backoff.jitter}.
    @ivar spread: as C{Backoff.spread}.
    @ivar stableAfter: as C{Backoff.stableAfter}.
    @ivar maxRetries: failed attempts in a row after which it gives up; L{None} for never.
    """

    heartbeat: Heartbeat | None = Heartbeat()
    keepAlive: KeepAlive | None = KeepAlive()
    limits: Limits | None = Limits()
    hooks: LinkHooks | None = None
    ping: Ping | None = None
    name: str | None = None
    prepareConnection: PrepareConnection | None = None

    maxDelay: Any = 60.0
    initialDelay = 1.0
    factor = 2.0
    jitter: Any = "full"
    spread = 12.0
    stableAfter = 10.0
    delay = initialDelay

    _lazyHeartbeatConnectors: _Connectors | None = None

    def __init__(
        self,
        *arguments: Any,
        heartbeat: Heartbeat | None = _OWN,
        keepAlive: KeepAlive | None = _OWN,
        limits: Limits | None = _OWN,
        hooks: LinkHooks | None = _OWN,
        ping: Ping | None = _OWN,
        name: str | None = _OWN,
        **keywords: Any,
    ) -> None:
        """
        The settings are set on the instance, in place of the class attributes of the same names.  A
        subclass need not call this.

        @param arguments: for the next class among the bases.
        @param keywords: for the next class among the bases.
        """
        super().__init__(*arguments, **keywords)
        given = {
            "heartbeat": heartbeat,
            "keepAlive": keepAlive,
            "limits": limits,
            "hooks": hooks,
            "ping": ping,
            "name": name,
        }
        vars(self).update({field: value for field, value in given.items() if value is not _OWN})

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _observeClass(cls)

    @_Overridable
    def link(self) -> Link | None:
        """
        The latest link that is up; L{None} if there is none.
        """
        links = [driver.link for driver in self._heartbeatConnectors if driver.link is not None]
        return max(links, key=lambda link: link.generation, default=None)

    def nextDelay(self, attempt: int, cause: Cause) -> float:
        """
        Seconds to wait before the next attempt.
        """
        self._heartbeatConnectors.tellRetries(attempt)
        self.delay = min(self.initialDelay * self.factor ** min(attempt, 100), self.maxDelay)
        return _backoffOf(self).delay(attempt, cause)

    def doStart(self) -> None:
        """
        See C{IProtocolFactory}.
        """
        # A class may have been given other methods since it was made.
        _observeClass(type(self))
        _observeInstance(self)
        self._heartbeatConnectors.requireSettings()
        super().doStart()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        return self._heartbeatConnectors.addLink(super().buildProtocol(addr))

    def retry(self, connector: IConnector | None = None) -> None:
        """
        Have the connector connect again, after a suitable delay and the cleanups of its last link.
        While it is connecting or connected, this only logs a warning.

        @raise ValueError: if none is given and none is known.
        """
        if not self.continueTrying:
            if self.noisy:
                _log.info("{connector} is not retried, as requested", connector=connector)
            return
        connector = self.connector if connector is None else connector
        if connector is None:
            raise ValueError("no connector to retry")
        self._heartbeatConnectors.of(connector).retry(connector)

    def resetDelay(self) -> None:
        """
        Forget the failures so far, and try again after the next loss even if C{stopTrying} was
        called before.  The factory calls this itself when a link is proven, for its connector
        alone, and then C{continueTrying} keeps its value.
        """
        super().resetDelay()  # type: ignore[no-untyped-call]
        self._heartbeatConnectors.forgive()

    def stopTrying(self) -> None:
        """
        Try no more, with any connector.  A link that is up stays up.
        """
        self.continueTrying = 0
        for driver in self._heartbeatConnectors:
            driver.stopTrying()
        super().stopTrying()  # type: ignore[no-untyped-call]

    @property
    def _heartbeatConnectors(self) -> _Connectors:
        # Not in __init__, because a subclass need not call that.
        if self._lazyHeartbeatConnectors is None:
            self._lazyHeartbeatConnectors = _Connectors(self)
        return self._lazyHeartbeatConnectors

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_lazyHeartbeatConnectors", None)
        return state


setattr(HeartbeatClientFactory.buildProtocol, _OBSERVES, True)
_observeClass(HeartbeatClientFactory)
