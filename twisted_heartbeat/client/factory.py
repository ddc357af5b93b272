# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientFactory}: makes its connectors connect again, as C{ReconnectingClientFactory} does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ReconnectingClientFactory

from ..core.settings import Heartbeat, KeepAlive, Limits
from ..logs import SafeLogger
from .connectordriver import backoffOf
from .connectors import Connectors
from .observing import OBSERVES, observeClass, observeInstance

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.config import Ping
    from ..link.hooks import Hooks
    from ..link.link import Link
    from .preparation import PrepareConnection

_log = SafeLogger()


class _Overridable:
    """
    A property that a subclass or an instance may replace with any attribute.
    """

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self._get = get
        self.__doc__ = get.__doc__

    def __get__(self, instance: Any, kind: type) -> Any:
        return self if instance is None else self._get(instance)


_OWN: Any = object()
"""The default of a setting: the class attribute holds."""


class HeartbeatClientFactory(ReconnectingClientFactory):
    """
    Reconnects through its connector, for C{reactor.connectTCP}, C{connectSSL} and the like.

    Set C{protocol}, or override C{buildProtocol}; the result is watched.  One factory may have
    several connectors.  Each has a reconnector of its own, with its own delays and its own
    C{maxRetries}; C{connector}, C{delay} and C{retries} show the latest.

    @cvar heartbeat: L{None} to prove nothing by silence.
    @cvar keepAlive: L{None} to leave the operating system's options alone.
    @cvar limits: L{None} for none.
    @cvar hooks: called besides the log: one C{LinkHooks}, or a list of several; L{None} for none.
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
    hooks: Hooks | None = None
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

    _lazyHeartbeatConnectors: Connectors | None = None

    def __init__(
        self,
        *arguments: Any,
        heartbeat: Heartbeat | None = _OWN,
        keepAlive: KeepAlive | None = _OWN,
        limits: Limits | None = _OWN,
        hooks: Hooks | None = _OWN,
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
        observeClass(cls)

    @_Overridable
    def link(self) -> Link | None:
        """
        The latest link that is up; L{None} if there is none.
        """
        links = [driver.link for driver in self._heartbeatConnectors if driver.link is not None]
        return max(links, key=lambda link: link.generation, default=None)

    def nextDelay(self, attempt: int, cause: Cause) -> float:
        """
        Return the seconds to wait before the next attempt.

        @param attempt: failures in a row.
        @param cause: why the last of them happened.
        """
        self._heartbeatConnectors.setRetries(attempt)
        self.delay = min(self.initialDelay * self.factor ** min(attempt, 100), self.maxDelay)
        return backoffOf(self).delay(attempt, cause)

    def doStart(self) -> None:
        # A class may have been given other methods since it was made.
        observeClass(type(self))
        observeInstance(self)
        self._heartbeatConnectors.requireSettings()
        super().doStart()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: Any) -> Any:
        return self._heartbeatConnectors.addLink(super().buildProtocol(addr))

    def retry(self, connector: IConnector | None = None) -> None:
        """
        Make the connector connect again, after the delay and the cleanups of its last link.
        While it is connecting or connected, this only logs a warning.

        @param connector: the latest connector by default.
        @raise ValueError: if no connector is given and none is known.
        """
        if not self.continueTrying:
            if self.noisy:
                _log.info("{connector} is not retried, as requested", connector=connector)
            return
        connector = self.connector if connector is None else connector
        if connector is None:
            raise ValueError("no connector to retry")
        self._heartbeatConnectors.driverOf(connector).retry(connector)

    def resetDelay(self) -> None:
        """
        Forget the failures so far, and try again after the next loss even if C{stopTrying} was
        called before.  The factory calls this itself when a link is proven, for its connector
        alone, and then C{continueTrying} keeps its value.
        """
        super().resetDelay()  # type: ignore[no-untyped-call]
        self._heartbeatConnectors.resetFailures()

    def stopTrying(self) -> None:
        """
        Stop trying, with all connectors.  A link that is up stays up.
        """
        self.continueTrying = 0
        for driver in self._heartbeatConnectors:
            driver.stopTrying()
        super().stopTrying()  # type: ignore[no-untyped-call]

    @property
    def _heartbeatConnectors(self) -> Connectors:
        # Not in __init__, because a subclass need not call that.
        if self._lazyHeartbeatConnectors is None:
            self._lazyHeartbeatConnectors = Connectors(self)
        return self._lazyHeartbeatConnectors

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_lazyHeartbeatConnectors", None)
        return state


setattr(HeartbeatClientFactory.buildProtocol, OBSERVES, True)
observeClass(HeartbeatClientFactory)
