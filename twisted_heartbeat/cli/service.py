# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The services behind C{twist heartbeat}: L{Listener} and L{HeartbeatServices}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..client.service import HeartbeatClientService
from ..core.diagnosis import describeError
from ..core.text import printable
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..server.factory import HeartbeatServerFactory
from .exitstatus import EX_OSERR, EX_UNAVAILABLE, GiveUpObserver, exitWith
from .status import makeMetrics, makeStatusSite

if TYPE_CHECKING:
    from ..core import wire
    from ..link.hooks import LinkHooks
    from ..status.site import StatusSite
    from .options import EndpointSpec, Options

_log = SafeLogger()


class NamedProtocol(HeartbeatProtocol):
    """
    Logs the name in the peer's hello.

    @ivar description: the endpoint's description, for the log.
    """

    description = ""

    def helloReceived(self, hello: wire.Hello) -> None:
        if hello.name and self.link is not None:
            _log.info(
                "{link}: the peer of generation {generation} calls itself {name!r}",
                link=self.description,
                generation=self.link.generation,
                name=printable(hello.name),
            )


class NamedFactory(Factory):
    """
    Makes the protocols that send this process's name in their hello.
    """

    noisy = False
    protocol = NamedProtocol

    def __init__(self, name: str, description: str) -> None:
        self._name = name
        self._description = description

    def logPrefix(self) -> str:
        return self._description

    def buildProtocol(self, addr: Any) -> NamedProtocol:
        protocol = NamedProtocol()
        protocol.factory = self
        protocol.name = self._name
        protocol.description = self._description
        return protocol


class Listener(Service):
    """
    Listens on one endpoint.  If that fails, it logs one sentence and ends the process.

    Twisted's C{StreamServerEndpointService} raises an immediate error, but only logs a later one
    and runs on without a port.  It also leaves the links open when it stops.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        factory: HeartbeatServerFactory | StatusSite,
        end: Callable[[int], None],
        *,
        daemon: bool = False,
    ) -> None:
        """
        @param end: ends the process; takes an exit status.
        @param daemon: whether twistd will report the result of the start to a shell.
        """
        self._spec = spec
        self._factory = factory
        self._end = end
        self._daemon = daemon
        self._opening: Deferred[Any] | None = None
        self._failure: Failure | None = None

    def privilegedStartService(self) -> None:
        """
        Listen, with the privileges that twistd drops after this call.

        @raise Exception: in a daemon, the endpoint's own failure.  Only then the shell gets a
            status other than 0, and the message.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._open()
        if self._daemon and self._failure is not None:
            self._failure.raiseException()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done so.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._opening is None:
            self._open()

    def stopService(self) -> Deferred[Any]:
        """
        Close the port, then drain the factory.

        @return: fires when no link is left, within C{Limits.closeTimeout}.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._opening = self._opening, None
        if opening is None:
            return self._factory.drain()
        opening.cancel()
        opening.addCallback(lambda port: None if port is None else port.stopListening())
        return opening.addCallback(lambda _: self._factory.drain())

    def _open(self) -> None:
        self._opening = maybeDeferred(self._spec.endpoint.listen, self._factory)
        self._opening.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        assert failure.value is not None
        self._failure = failure
        # Critical, because such events also go to stderr while no log has been started.
        _log.critical(
            "Could not listen at {link}: {reason}",
            link=self._spec.description,
            reason=describeError(failure.value),
        )
        self._end(EX_OSERR)


class HeartbeatServices(MultiService):
    """
    The listeners and client services of one command line.  It ends the process when none of them
    can do its work any more.
    """

    def __init__(self, reactor: Any, *, daemon: bool = False) -> None:
        """
        @param daemon: as for L{Listener}.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._daemon = daemon
        self._listens = False
        self._trying = 0
        self._ended = False

    def listen(self, spec: EndpointSpec, factory: HeartbeatServerFactory) -> None:
        """
        Watch the peers that connect to an endpoint.
        """
        self._listens = True
        listener = Listener(spec, factory, self.end, daemon=self._daemon)
        listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def connect(self, service: HeartbeatClientService) -> None:
        """
        Keep a link up.
        """
        self._trying += 1
        service.setServiceParent(self)  # type: ignore[no-untyped-call]

    def showStatus(self, spec: EndpointSpec, token: str | None) -> list[LinkHooks]:
        """
        Show a status page.

        @return: the observers that tell it of the links.
        """
        from ..presence.table import PresenceTable

        presence = PresenceTable(clock=self._reactor)
        presence.setServiceParent(self)  # type: ignore[no-untyped-call]
        metrics = makeMetrics()
        site = makeStatusSite(presence, self._reactor, metrics=metrics, token=token)
        listener = Listener(spec, site, self.end, daemon=self._daemon)
        listener.setServiceParent(self)  # type: ignore[no-untyped-call]
        return [presence] if metrics is None else [presence, metrics]

    def linkGaveUp(self) -> None:
        """
        Count a link that is not tried any more, and end the process after the last one.
        """
        self._trying -= 1
        if not self._trying and not self._listens:
            _log.critical("Every --connect has given up and there is no --listen: exiting")
            self.end(EX_UNAVAILABLE)

    def end(self, status: int) -> None:
        """
        Stop the reactor, and exit with a status.
        """
        if not self._ended:
            self._ended = True
            self._reactor.addSystemEventTrigger("after", "shutdown", exitWith, status)
            self._reactor.callWhenRunning(self._stopReactor)

    def _stopReactor(self) -> None:
        # A signal may have stopped the reactor already.
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def makeService(options: Options) -> HeartbeatServices:
    """
    Make the service for a command line.
    """
    reactor = options.reactor
    runner: Mapping[str, Any] = options.parent or {}
    services = HeartbeatServices(reactor, daemon=not runner.get("nodaemon", True))
    settings = {"heartbeat": options["heartbeat"], "keepAlive": options["keepAlive"]}
    observers: list[LinkHooks] = []
    if options["status"] is not None:
        observers = services.showStatus(options["status"], options["statusToken"])
    for spec in options["listen"]:
        named = NamedFactory(options["name"], spec.description)
        factory = HeartbeatServerFactory(
            named, clock=reactor, name=spec.description, hooks=observers, **settings
        )
        services.listen(spec, factory)
    for spec in options["connect"]:
        client = HeartbeatClientService(
            spec.endpoint,
            NamedFactory(options["name"], spec.description),
            options["backoff"],
            reactor,
            hooks=[GiveUpObserver(services), *observers],
            name=spec.description,
            **settings,
        )
        services.connect(client)
    return services
