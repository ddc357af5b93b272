# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Connectors}: the connectors of a C{HeartbeatClientFactory}, and a driver for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from twisted.internet.interfaces import IConnector

from ..core.settings import Heartbeat, KeepAlive, Limits
from ..core.validation import require
from ..link.config import LinkConfig
from ..link.events import observersOf
from ..link.hooks import LinkHooks
from ..link.state import LinkState
from ..logs import SafeLogger
from ..protocol.mixin import UNMANAGED
from ..protocol.wrapper import WrappedProtocol, attachLink, holds
from ..timing.monotonic import clockFor
from .connectordriver import ConnectorDriver

if TYPE_CHECKING:
    from ..link.link import Link
    from .factory import HeartbeatClientFactory

_log = SafeLogger()


class Connectors:
    """
    The connectors of one factory, and the driver of each.

    When the application drops a connector, its driver goes with it.

    @ivar generations: numbers the links of all connectors.
    @ivar awaitingProtocol: the drivers of connectors that are under way and have not asked for a
        protocol yet, in the order in which they began.
    @ivar lastRetries: the C{retries} that were last set on the factory.
    """

    def __init__(self, factory: HeartbeatClientFactory) -> None:
        self.generations = count(1)
        self.awaitingProtocol: dict[ConnectorDriver, None] = {}
        self.lastRetries = 0
        self._factory = factory
        # The driver whose link is being proven.
        self._proving: ConnectorDriver | None = None
        # What addLink has returned while a method of the factory builds a protocol.
        self._built: list[tuple[Any, Link | None, ConnectorDriver]] | None = None
        self._drivers: WeakKeyDictionary[IConnector, ConnectorDriver] = WeakKeyDictionary()
        # For what can be no key of a weak mapping: an object() or None, in a unit test.  It is held
        # with its driver, because otherwise another object could get its id.
        self._byId: dict[int, tuple[object, ConnectorDriver]] = {}
        # The drivers of links without a connector, for example of an endpoint.
        self._withoutConnector: WeakSet[ConnectorDriver] = WeakSet()
        self._settings: tuple[object, ...] = ()
        self._config: LinkConfig | None = None

    def __iter__(self) -> Iterator[ConnectorDriver]:
        held = (driver for _, driver in self._byId.values())
        return iter([*self._drivers.values(), *held, *self._withoutConnector])

    def driverOf(self, connector: IConnector) -> ConnectorDriver:
        """
        Return the driver of a connector.
        """
        _, driver = self._byId.get(id(connector), (None, None))
        with suppress(TypeError):
            driver = driver or self._drivers.get(connector)
        if driver is None:
            driver = ConnectorDriver(self._factory, self)
            try:
                self._drivers[connector] = driver
            except TypeError:
                self._byId[id(connector)] = connector, driver
        driver.refreshConfig()
        return driver

    def _driverOfConnected(self) -> ConnectorDriver:
        """
        Return the driver of the connector that has just connected and asks for a protocol; a new
        driver if no known connector has.

        A connector does not pass itself to C{buildProtocol}.  But its state is connected, and it
        had no protocol before.
        """
        for driver in self.awaitingProtocol:
            if driver.mayHaveConnected():
                del self.awaitingProtocol[driver]
                driver.refreshConfig()
                return driver
        loose = ConnectorDriver(self._factory, self)
        self._withoutConnector.add(loose)
        return loose

    def addLink(self, protocol: Any, driver: ConnectorDriver | None = None) -> Any:
        """
        Give a new protocol a link of the connector that asks for it.

        @param protocol: L{None} if the factory has built none.
        @param driver: the driver of that connector; found if L{None}.
        @return: what C{buildProtocol} returns.
        """
        driver = driver or self._driverOfConnected()
        if protocol is None:
            built, link = driver.declineConnection(), None
        elif self._hasWrapped(protocol):
            protocol.heartbeatRenew(driver.config, driver)
            built, link = protocol, protocol.link
        else:
            built, link = attachLink(protocol, driver.config, driver)
        if self._built is not None:
            self._built.append((built, link, driver))
        return built

    def _hasWrapped(self, protocol: object) -> bool:
        """
        Whether a protocol is a wrapper that L{addLink} has returned for another connection.
        """
        if not isinstance(protocol, WrappedProtocol):
            return False
        owner, state = protocol.link.owner, protocol.link.state
        mine = isinstance(owner, ConnectorDriver) and owner.connectors is self
        return mine and state in (LinkState.NEW, LinkState.GONE)

    def build(self, build: Callable[[], Any]) -> Any:
        """
        Build a protocol, and give it a link unless it, or one inside of it, has got one meanwhile.
        """
        outer, self._built = self._built, []
        try:
            protocol = build()
        finally:
            built, self._built = self._built, outer
        if outer is not None:
            outer += built
        for one, _, _ in built:
            if one is protocol or protocol is not None and holds(protocol, one):
                return protocol
        # What a base has built is not used.
        for _, link, _ in built:
            if link is not None:
                link.owner = UNMANAGED
        return self.addLink(protocol, built[0][2] if built else None)

    def linkProven(self, driver: ConnectorDriver) -> None:
        """
        Make the factory reset the delay of a connector, because its link is proven.
        """
        before, continueTrying = self._proving, self._factory.continueTrying
        self._proving = None if driver in self._withoutConnector else driver
        try:
            self._factory.resetDelay()
        except BaseException:
            _log.failure("resetDelay of {factory} failed", factory=self._factory)
        finally:
            self._proving, self._factory.continueTrying = before, continueTrying

    def resetFailures(self) -> None:
        """
        Forget the failures of the connector whose link is being proven, otherwise of all.
        """
        self.lastRetries = 0
        for driver in self if self._proving is None else [self._proving]:
            driver.reconnector.resetFailures()

    def setRetries(self, retries: int) -> None:
        """
        Set C{retries} on the factory.
        """
        self.lastRetries = self._factory.retries = retries

    def detectReset(self) -> None:
        """
        Forget the failures if a subclass has set C{retries} to 0 without L{resetFailures}.  It may
        have called the C{resetDelay} of C{ReconnectingClientFactory}, for example.
        """
        if self.lastRetries and not self._factory.retries:
            self.resetFailures()

    @property
    def config(self) -> LinkConfig:
        """
        What the links of all connectors have in common.
        """
        of = self._factory
        hooks = observersOf(of.hooks)
        settings = of.clock, of.heartbeat, of.keepAlive, of.limits, hooks, of.ping, of.name
        if self._config is None or settings != self._settings:
            self.requireSettings()
            self._settings = settings
            self._config = LinkConfig(
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
        return self._config

    def requireSettings(self) -> None:
        """
        Require that each setting has the right type.  A subclass may use its name for something
        else.

        @raise ValueError: for the first setting that has not.
        """
        allowed = {
            "heartbeat": Heartbeat,
            "keepAlive": KeepAlive,
            "limits": Limits,
        }
        of = self._factory
        for field, kind in allowed.items():
            value = getattr(of, field)
            holds = value is None or isinstance(value, kind)
            require(holds, of, field, value, f"a {kind.__name__} or None")
        areHooks = all(isinstance(observer, LinkHooks) for observer in observersOf(of.hooks))
        require(areHooks, of, "hooks", of.hooks, "a LinkHooks, a list of them or None")
        for field in ("ping", "prepareConnection"):
            value = getattr(of, field)
            require(value is None or callable(value), of, field, value, "a callable or None")
        require(callable(of.nextDelay), of, "nextDelay", of.nextDelay, "a method")
