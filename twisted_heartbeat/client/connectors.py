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

from twisted.internet.interfaces import IConnector

from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig
from ..link.hooks import LinkHooks
from ..logs import SafeLogger
from ..protocol.wrapper import attachLink
from ..timing.monotonic import clockFor
from .connectordriver import ConnectorDriver

if TYPE_CHECKING:
    from .factory import HeartbeatClientFactory

_log = SafeLogger()


class Connectors:
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
        self.unlinked: dict[ConnectorDriver, None] = {}
        self.toldRetries = 0
        self._factory = factory
        # The driver whose link is being proven.
        self._proving: ConnectorDriver | None = None
        self._links = 0
        self._drivers: WeakKeyDictionary[IConnector, ConnectorDriver] = WeakKeyDictionary()
        # Those of what can be no key there: an object() or None, in a unit test. Each is held with
        # its driver, because no other object may have its id.
        self._held: dict[int, tuple[object, ConnectorDriver]] = {}
        # Those of links that have no connector, because an endpoint made them for example.
        self._loose: WeakSet[ConnectorDriver] = WeakSet()
        self._settings: tuple[object, ...] = ()
        self._config: LinkConfig | None = None

    def __iter__(self) -> Iterator[ConnectorDriver]:
        held = (driver for _, driver in self._held.values())
        return iter([*self._drivers.values(), *held, *self._loose])

    def of(self, connector: IConnector) -> ConnectorDriver:
        """
        The driver of a connector.
        """
        _, driver = self._held.get(id(connector), (None, None))
        with suppress(TypeError):
            driver = driver or self._drivers.get(connector)
        if driver is None:
            driver = ConnectorDriver(self._factory, self)
            try:
                self._drivers[connector] = driver
            except TypeError:
                self._held[id(connector)] = connector, driver
        driver.heedSettings()
        return driver

    def _expecting(self) -> ConnectorDriver:
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
        loose = ConnectorDriver(self._factory, self)
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
        return attachLink(protocol, driver.config, driver)[0]

    def build(self, build: Callable[[], Any]) -> Any:
        """
        Build a protocol, and give it a link unless L{addLink} was called meanwhile.
        """
        before = self._links
        protocol = build()
        return protocol if self._links != before else self.addLink(protocol)

    def linkProven(self, driver: ConnectorDriver) -> None:
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

    def resetFailures(self) -> None:
        """
        Forget the failures of the connector whose link is being proven, else those of all.
        """
        self.toldRetries = 0
        for driver in self if self._proving is None else [self._proving]:
            driver.reconnector.resetFailures()

    def tellRetries(self, retries: int) -> None:
        """
        Set C{retries} on the factory.
        """
        self.toldRetries = self._factory.retries = retries

    def heedReset(self) -> None:
        """
        Forget the failures if a subclass has reset C{retries} without L{resetFailures}.  It may
        have called the C{resetDelay} of C{ReconnectingClientFactory}, for example.
        """
        if self.toldRetries and not self._factory.retries:
            self.resetFailures()

    @property
    def config(self) -> LinkConfig:
        """
        What their links have in common.
        """
        of = self._factory
        settings = of.clock, of.heartbeat, of.keepAlive, of.limits, of.hooks, of.ping, of.name
        if self._config is None or settings != self._settings:
            self.requireSettings()
            self._settings = settings
            self._config = LinkConfig(
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
        return self._config

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
