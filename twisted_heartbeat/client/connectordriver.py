# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ConnectorDriver}: executes the commands of one connector's reconnector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectError, NotConnectingError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ..core.backoff import Backoff
from ..core.causes import ClosedHere
from ..core.diagnosis import causeOfFailure
from ..core.proof import isProven
from ..core.reconnector import Reconnector, State
from ..logs import SafeLogger
from .driver import Driver

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link
    from .connectors import Connectors
    from .factory import HeartbeatClientFactory

_log = SafeLogger()


class _Declined(Protocol):
    """
    Aborts its connection.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class ConnectorDriver(Driver):
    """
    Has one connector of a factory connect again.

    A subclass of the factory may call C{connector.connect()} itself, or call C{retry} later, or
    never.  So the link is cleaned up when it ends, but the supervision decides on a retry only
    after L{retry} was called.  An attempt that this driver has not ordered begins a new
    supervision.
    """

    def __init__(self, factory: HeartbeatClientFactory, connectors: Connectors) -> None:
        super().__init__(connectors.config, self._exhausted)
        self._factory = factory
        self._connectors = connectors
        # Those that it uses may be slower.
        self._given = self.config
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
        config = self._connectors.config
        if config is not self._given:
            self._given = self.config = config
            self._timesDoubled = 0

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
        if self.reconnector.state is State.WAITING:
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
        waits = self.reconnector.state in (State.WAITING, State.DECIDING)
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
        state = self.reconnector.state
        if state is State.CONNECTING and self._underWay:
            try:
                if self._connector is not None:
                    self._connector.stopConnecting()
            except NotConnectingError:
                # It is connected, and there is nothing to stop.
                return
        if state in (State.CONNECTING, State.WAITING, State.DECIDING):
            self.execute(self.reconnector.stop())
        self.settled()

    # What the link tells.

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self._underWay = True
        if self.reconnector.state is not State.CONNECTING:
            self._begin()
        self.link = link
        self._resetEarly = False
        self.prepareConnection = self._factory.prepareConnection
        self.execute(self.reconnector.connected())

    def linkProven(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        if link is self.link and self.reconnector.state is State.CONNECTED:
            self._proveEarly()

    def linkClosing(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self._ended, self._reason = link, cause
        self._connectors.heedReset()
        if link is self.link:
            self.linkEnded(cause, proven=self._wasProven(link, cause))
        else:
            # Its TLS handshake was not completed.
            link.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

    def pingLimitReached(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        link.pingsLeft = -1

    def _wasProven(self, link: Link, cause: Cause) -> bool:
        """
        Whether a link that has ended had been proven.
        """
        prepared = self.reconnector.state is State.CONNECTED
        proven = isProven(link.facts(prepared=prepared), self._stableAfter)
        if proven and not self._resetEarly:
            self._connectors.linkProven(self)
        elif self._resetEarly and not proven:
            # The link was taken for proven when the peer had said what proves it.
            self.reconnector.restoreFailures()
        return proven

    @property
    def _stableAfter(self) -> float:
        try:
            return backoffOf(self._factory).stableAfter
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
            self.execute(self.reconnector.stop())
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
            self.execute(self.reconnector.failed(causeOfFailure(error), self.now))
        finally:
            self._ordered = False

    def cancelAttempt(self) -> None:
        # The connector was stopped before, or has no attempt under way.
        self.execute(self.reconnector.failed(ClosedHere(), self.now))

    def announce(self) -> None:
        super().announce()
        link = self.link
        if link is not None and link.proofHeard and link.isUp:
            self._proveEarly()

    def delay(self, attempt: int, cause: Cause) -> float:
        return self._factory.nextDelay(attempt, cause)

    def gaveUp(self, cause: Cause) -> None:
        self._connectors.tellRetries(self.reconnector.failures)
        self._connector = None

    def _begin(self) -> None:
        """
        Begin a new supervision with an attempt that is under way already.
        """
        self._cancelWait()
        self.cancelPrepare()
        self._ended = self.link = None
        self.reconnector = Reconnector(self._exhausted)
        self.execute(self.reconnector.start())

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
        supervision = self.reconnector
        if supervision.state is State.CLEANING:
            self.execute(supervision.cleaned(self.now))
        elif supervision.state is State.CONNECTING:
            self.execute(supervision.failed(cause, self.now))
        else:
            self.execute(supervision.retry(cause, self.now))


_CONNECTOR_STATES = ("disconnected", "connecting", "connected")


def _stateOf(connector: object, default: str) -> str:
    """
    The state of a connector; the default if it does not say, as a mock in a unit test.
    """
    state = getattr(connector, "state", default)
    return state if isinstance(state, str) and state in _CONNECTOR_STATES else default


def backoffOf(factory: HeartbeatClientFactory) -> Backoff:
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
