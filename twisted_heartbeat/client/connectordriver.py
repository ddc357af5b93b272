# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ConnectorDriver}: executes the commands of one connector's reconnector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectError, NotConnectingError
from twisted.internet.interfaces import IConnector
from twisted.python.failure import Failure

from ..core.backoff import Backoff
from ..core.causes import ClosedHere
from ..core.diagnosis import causeOfFailure
from ..core.proof import isProven
from ..core.reconnector import Reconnector, State
from ..link.owner import LinkOwner
from ..link.proof import factsOf, isProofHeard
from ..logs import SafeLogger
from ..protocol.rejected import RejectedConnection
from .driver import Driver

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link
    from .connectors import Connectors
    from .factory import HeartbeatClientFactory

_log = SafeLogger()


class ConnectorDriver(Driver, LinkOwner):
    """
    Executes commands for one connector of a factory.

    A subclass of the factory may call C{connector.connect()} itself, or call C{retry} later, or
    never.  So the link is cleaned up when it ends, but the reconnector is told of that only after
    L{retry} was called.  An attempt that this driver has not begun gets a new reconnector.

    @ivar connectors: the connectors of the factory.
    """

    def __init__(self, factory: HeartbeatClientFactory, connectors: Connectors) -> None:
        super().__init__(connectors.config, self._exhausted)
        self._factory = factory
        self.connectors = connectors
        # What the factory has said.  C{config} differs from it after the interval was doubled.
        self._factoryConfig = self.config
        # None while the connector is idle: the application alone decides how long it is kept.
        self._connector: IConnector | None = None
        self._underWay = False
        self._connectsItself = False
        self._resetEarly = False
        self._ended: Link | None = None
        self._reason: Cause | None = None
        self._retryCause: Cause | None = None

    def refreshConfig(self) -> None:
        """
        Take over the settings that the factory has now.
        """
        config = self.connectors.config
        if config is not self._factoryConfig:
            self._factoryConfig = self.config = config
            self._timesDoubled = 0

    # What the connector does.

    def connecting(self, connector: IConnector) -> None:
        """
        Handle that the connector has begun an attempt, for this driver or for the application.
        """
        self._connector = connector
        self._underWay = True
        self.connectors.awaitingProtocol[self] = None
        self._reason = self._retryCause = None
        if self._connectsItself:
            return
        if self.reconnector.state is State.WAITING:
            self.retryNow()
        else:
            self._begin()

    def disconnected(self, reason: Failure | None) -> None:
        """
        Handle that the connector has failed to connect, or has lost its connection.
        """
        self._markDisconnected()
        # The application's unit tests may pass anything.
        failure = reason if isinstance(reason, Failure) else Failure(ConnectError())
        if self.link is not None:
            self.link.connectionLostUnnoticed(failure)
        self._reason = self._reason or causeOfFailure(failure.value)

    def releaseConnector(self) -> None:
        """
        Forget the connector if the factory has not asked for a retry.
        """
        waits = self.reconnector.state in (State.WAITING, State.DECIDING)
        if not self._underWay and self._retryCause is None and not waits:
            self._connector = None

    def mayHaveConnected(self) -> bool:
        """
        Whether the connector may be the one that asks for a protocol now.
        """
        return _stateOf(self._connector, "connected") == "connected"

    def declineConnection(self) -> RejectedConnection | None:
        """
        Handle that the factory has no protocol for the connection.

        @return: what C{buildProtocol} returns.  Over TLS it is a L{RejectedConnection}; otherwise
            the connector would never report that the connection is lost.
        """
        factory = getattr(self._connector, "factory", self._factory)
        return None if factory is self._factory else RejectedConnection()

    # What the factory asks for.

    def retry(self, connector: IConnector) -> None:
        """
        Make the connector connect after a wait, and after the cleanups of its last link.
        """
        # The connector's own state decides, because the application may have called connect().
        state = _stateOf(connector, "connecting" if self._underWay else "disconnected")
        if state != "disconnected":
            _log.warn(
                "retry() ignored: {connector} is connecting or connected, and will be retried "
                "when it is disconnected",
                connector=connector,
            )
            return
        self._markDisconnected()
        self._connector = connector
        self._retryCause = self._reason or causeOfFailure(ConnectError())
        self._cleaned()

    def stopTrying(self) -> None:
        """
        End the wait or the attempt.  A link stays up.
        """
        self._retryCause = None
        state = self.reconnector.state
        if state is State.CONNECTING and self._underWay:
            try:
                if self._connector is not None:
                    self._connector.stopConnecting()
            except NotConnectingError:
                # It is connected, so there is no attempt to stop.
                return
        if state in (State.CONNECTING, State.WAITING, State.DECIDING):
            self.execute(self.reconnector.stop())
        self.releaseConnector()

    # What the link tells.

    def linkReady(self, link: Link) -> None:
        self._underWay = True
        if self.reconnector.state is not State.CONNECTING:
            self._begin()
        self.link = link
        self._resetEarly = False
        self.prepareConnection = self._factory.prepareConnection
        self.execute(self.reconnector.connected())

    def linkProven(self, link: Link) -> None:
        if link is self.link and self.reconnector.state is State.CONNECTED:
            self._proveEarly()

    def linkLost(self, link: Link, cause: Cause) -> None:
        self._ended, self._reason = link, cause
        self.connectors.detectReset()
        if link is self.link:
            proven = self._wasProven(link, cause)
            self.execute(self.reconnector.lost(cause, self.config.seconds(), proven=proven))
        else:
            # Its TLS handshake was not completed.
            link.teardown.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

    def _wasProven(self, link: Link, cause: Cause) -> bool:
        """
        Whether a link that has ended had been proven.  Tell the factory if so.
        """
        prepared = self.reconnector.state is State.CONNECTED
        proven = isProven(factsOf(link, prepared=prepared), self._stableAfter)
        if proven and not self._resetEarly:
            self.connectors.linkProven(self)
        elif self._resetEarly and not proven:
            # The failures were reset when the peer's proof came, and the end has revoked that.
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
        self.connectors.linkProven(self)

    # The commands.

    def attempt(self, number: int) -> None:
        if self._underWay:
            # The application has called connect() meanwhile.
            return
        if not self._factory.continueTrying:
            self.execute(self.reconnector.stop())
            self.releaseConnector()
            return
        connector: Any = self._connector
        self._connectsItself = True
        try:
            connector.connect()
        except BaseException as error:
            _log.failure("{connector} does not connect", connector=connector)
            if not self._underWay and getattr(connector, "state", None) == "connecting":
                # The factory's startFactory has raised while the connector changed its state.
                # Without this line the connector would refuse to connect for ever.
                connector.state = "disconnected"
            self._markDisconnected()
            self.execute(self.reconnector.failed(causeOfFailure(error), self.config.seconds()))
        finally:
            self._connectsItself = False

    def cancelAttempt(self) -> None:
        # The connector was stopped before, or has no attempt under way.
        self.execute(self.reconnector.failed(ClosedHere(), self.config.seconds()))

    def announce(self) -> None:
        super().announce()
        link = self.link
        if link is not None and isProofHeard(link) and link.isUp:
            self._proveEarly()

    def delay(self, attempt: int, cause: Cause) -> float:
        return self._factory.nextDelay(attempt, cause)

    def gaveUp(self, cause: Cause) -> None:
        self.connectors.setRetries(self.reconnector.failures)
        self._connector = None

    def _begin(self) -> None:
        """
        Begin with a new reconnector, because an attempt is under way already.
        """
        self._cancelWait()
        self.cancelPrepare()
        self._ended = self.link = None
        self.reconnector = Reconnector(self._exhausted)
        self.execute(self.reconnector.start())

    def _markDisconnected(self) -> None:
        """
        Note that the connector is disconnected.
        """
        self._underWay = False
        self.connectors.awaitingProtocol.pop(self, None)

    def _exhausted(self, failures: int, attempts: int, elapsed: float) -> bool:
        maximum = self._factory.maxRetries
        return maximum is not None and failures > maximum

    def _cleaned(self) -> None:
        """
        Go on if a retry was asked for and the last link is cleaned up.
        """
        if self._ended is not None:
            if not self._ended.cleaned:
                return
            # The link's transport refers to the connector, which could otherwise never be dropped.
            self._ended = None
        cause, self._retryCause = self._retryCause, None
        if cause is None:
            return
        self.connectors.detectReset()
        reconnector = self.reconnector
        if reconnector.state is State.CLEANING:
            self.execute(reconnector.cleaned(self.config.seconds()))
        elif reconnector.state is State.CONNECTING:
            self.execute(reconnector.failed(cause, self.config.seconds()))
        else:
            self.execute(reconnector.retry(cause, self.config.seconds()))


_CONNECTOR_STATES = ("disconnected", "connecting", "connected")


def _stateOf(connector: object, default: str) -> str:
    """
    Return the state of a connector.  A mock in a unit test has none, and gets the default.
    """
    state = getattr(connector, "state", default)
    return state if isinstance(state, str) and state in _CONNECTOR_STATES else default


def backoffOf(factory: HeartbeatClientFactory) -> Backoff:
    """
    Make a backoff of the attributes of a factory.

    @raise ValueError: if an attribute has a value that is not allowed.
    """
    return Backoff(
        initial=factory.initialDelay,
        maximum=max(factory.maxDelay, factory.initialDelay),
        factor=factory.factor,
        # Twisted's factory takes any false value for no jitter.
        jitter=factory.jitter or None,
        spread=factory.spread,
        stableAfter=factory.stableAfter,
    )
