# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The supervision of each connector of a C{HeartbeatClientFactory}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from twisted.internet.error import ConnectError, NotConnectingError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ..core.backoff import Backoff
from ..core.causes import ClosedHere
from ..core.diagnosis import causeOfFailure
from ..core.proof import isProven
from ..core.reconnector import Reconnector, State
from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig
from ..link.events import observersOf
from ..link.hooks import LinkHooks
from ..link.owner import LinkOwner
from ..logs import SafeLogger
from ..protocol.wrapper import attachLink
from ..timing.monotonic import clockFor
from .service import _PreparingDriver

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link
    from .factory import HeartbeatClientFactory

_log = SafeLogger()


class _Declined(Protocol):
    """
    Aborts its connection.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class _ConnectorDriver(_PreparingDriver, LinkOwner):
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
            self.link.connectionLostUnnoticed(failure)
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
        self._underWay = True
        if self.supervision.state is not State.CONNECTING:
            self._begin()
        self.link = link
        self._resetEarly = False
        self.prepareConnection = self._factory.prepareConnection
        self.obey(self.supervision.connected())

    def linkProven(self, link: Link) -> None:
        if link is self.link and self.supervision.state is State.CONNECTED:
            self._proveEarly()

    def linkLost(self, link: Link, cause: Cause) -> None:
        self._ended, self._reason = link, cause
        self._connectors.heedReset()
        if link is self.link:
            self.linkEnded(cause, proven=self._wasProven(link, cause))
        else:
            # Its TLS handshake was not completed.
            link.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

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
        if link is not None and link.proofHeard and link.isUp:
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
        self.supervision = Reconnector(self._exhausted)
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
        self._terms: LinkConfig | None = None

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
        return attachLink(protocol, driver.terms, driver)[0]

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
        C{resetDelay} of C{ReconnectingClientFactory} for example.
        """
        if self.toldRetries and not self._factory.retries:
            self.forgive()

    @property
    def terms(self) -> LinkConfig:
        """
        What their links have in common.
        """
        of, hooks = self._factory, observersOf(self._factory.hooks)
        settings = of.clock, of.heartbeat, of.keepAlive, of.limits, hooks, of.ping, of.name
        if self._terms is None or settings != self._settings:
            self.requireSettings()
            self._settings = settings
            self._terms = LinkConfig(
                clock=clockFor(of.clock),
                heartbeat=of.heartbeat,
                keepAlive=of.keepAlive,
                limits=of.limits or Limits.off(),
                hooks=hooks,
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
        }
        for field, kind in allowed.items():
            value = getattr(self._factory, field)
            if value is not None and not isinstance(value, kind):
                _complain(self._factory, field, value, f"a {kind.__name__} or None")
        hooks = self._factory.hooks
        if not all(isinstance(observer, LinkHooks) for observer in observersOf(hooks)):
            _complain(self._factory, "hooks", hooks, "a LinkHooks, a list of them or None")
        for field in ("ping", "prepareConnection"):
            value = getattr(self._factory, field)
            if value is not None and not callable(value):
                _complain(self._factory, field, value, "a callable or None")
        if not callable(self._factory.nextDelay):
            _complain(self._factory, "nextDelay", self._factory.nextDelay, "a method")


def _complain(factory: object, field: str, value: object, allowed: str) -> NoReturn:
    raise ValueError(f"{type(factory).__name__}.{field} is {value!r}: it must be {allowed}")


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
