# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService}: keeps one link up, as C{ClientService} does, without its faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint

from ..core.backoff import Backoff
from ..core.reconnector import State
from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig, changedSettings
from ..logs import SafeLogger
from ..protocol.wrapper import defaultLinkName
from ..timing.monotonic import clockFor
from ..transport.compat import portOfEndpoint, targetOfEndpoint, wrappedEndpoint
from ..transport.layers import MAX_WRAPPERS
from .servicedriver import ServiceDriver

if TYPE_CHECKING:
    from ..link.config import Ping
    from ..link.hooks import Hooks
    from ..link.link import Link
    from .preparation import PrepareConnection
    from .servicedriver import RetryPolicy


def _placeOf(endpoint: object) -> str:
    """
    Return an endpoint's destination, for the log: a host and port, a path, or a program.

    @return: C{""} where the endpoint does not say.
    """
    layer = endpoint
    for _ in range(MAX_WRAPPERS):
        place = targetOfEndpoint(layer)
        if place is not None:
            text = place.decode("utf-8", "replace") if isinstance(place, bytes) else str(place)
            port = portOfEndpoint(layer)
            return text if port is None else f"{text}:{port}"
        layer = wrappedEndpoint(layer)
    return ""


def _defaultName(factory: IProtocolFactory, endpoints: Sequence[IStreamClientEndpoint]) -> str:
    """
    Return a name by which an operator can tell the links of several services apart.
    """
    places = [place for place in map(_placeOf, endpoints) if place]
    name = defaultLinkName(factory)
    return f"{name} to {', '.join(places)}" if places else name


class HeartbeatClientService(Service):
    """
    Keeps one link up: connects, watches, names the cause when it ends, cleans up, tries again.

    It is a superset of L{twisted.application.internet.ClientService}: the same arguments mean the
    same.  With C{heartbeat=None, keepAlive=None, limits=None} it behaves as C{ClientService} does,
    without its faults.
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
        @param endpoint: the endpoint to connect, or a list of endpoints.  A round tries each once:
            the next when one has failed, or after a second without an answer.  The first link to be
            prepared wins.
        @param factory: makes the protocols.
        @param retryPolicy: failed attempts in a row -> seconds to wait; L{Backoff} by default,
            which also knows the cause.
        @param clock: tells the time; the global reactor's monotonic time by default.
        @param prepareConnection: takes the protocol of a new connection, before C{whenConnected}
            gives it out.  It may return a Deferred.  What it raises rejects the connection, and so
            does C{Limits.connectTimeout}.
        @param heartbeat: L{None} to prove nothing by silence.
        @param keepAlive: L{None} to leave the operating system's options alone.
        @param limits: L{None} for no limits.
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
        self._lazyDriver: ServiceDriver | None = None

    @property
    def _driver(self) -> ServiceDriver:
        # Not before it is used, because the import of the global reactor installs it.
        if self._lazyDriver is None:
            self._lazyDriver = ServiceDriver(
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
        The state of the service: the value of a L{State}, for example C{"connected"}.
        """
        return str(self._driver.reconnector.state)

    @property
    def link(self) -> Link | None:
        """
        The link that is up, or being prepared or closed; L{None} if there is none.
        """
        return self._driver.link

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[Any]:
        """
        Wait for a connection, as L{twisted.application.internet.ClientService.whenConnected} does.

        @param failAfterFailures: failed attempts after which the Deferred fails; L{None} to fail
            only when the service is stopped or gives up.
        @return: fires with the protocol.
        """
        return self._driver.whenConnected(failAfterFailures)

    def whenDisconnected(self) -> Deferred[Any]:
        """
        Wait for the end of the present link.

        @return: fires with the cause when the link has ended and been cleaned up; at once, with
            L{None}, if there is no link.
        """
        link = self._driver.link
        return succeed(None) if link is None else link.whenGone()

    def reconnectNow(self) -> None:
        """
        Try to connect now: cut the wait for the next attempt short, or replace an attempt that has
        had no answer for a second.  While there is a link, nothing happens.
        """
        self._driver.reconnectNow()

    def changeSettings(self, retryPolicy: RetryPolicy | None = None, **settings: Any) -> None:
        """
        Use other settings.  The retry policy holds at once, but for a wait that has begun.  All
        others hold for the links that begin from now on: the present link keeps those that it began
        with, because its peer may rely on them.

        @param retryPolicy: L{None} to keep the present one.
        @param settings: C{heartbeat}, C{keepAlive}, C{limits}, C{hooks} and C{ping}, as for the
            constructor; what is not given stays as it is.
        @raise TypeError: for any other name; then nothing is changed.
        """
        settings = changedSettings(settings)
        self._settings |= settings
        self._policy = self._policy if retryPolicy is None else retryPolicy
        if self._lazyDriver is not None:
            self._lazyDriver.changeSettings(self._policy, settings)

    def startService(self) -> None:
        """
        Start, or start again after giving up.
        """
        if self.running and self._driver.reconnector.state is not State.GAVE_UP:
            self._log.warn("Duplicate ClientService.startService {log_source}")
            return
        super().startService()  # type: ignore[no-untyped-call]
        self._driver.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop trying, and close the link.

        @return: fires when nothing is left.  L{Limits} bounds the close (C{closeTimeout}) and the
            cleanups (C{cleanupTimeout}).  If the C{disconnected} hook or a cleanup waits for this
            Deferred, it does not wait for them.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._driver.stop()
