# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The parts that run: listeners, links and the status page.

A part that runs can be changed.  A link keeps the settings that it began with, because its peer was
told of them in its hello; links that begin later have the new ones.  What the two sides have not
agreed on holds at once: the limits of a server, C{admit}, the backoff.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Factory

from ..client.service import HeartbeatClientService
from ..core.text import printable
from ..link.hooks import LinkHooks
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..server.factory import HeartbeatServerFactory
from .certificates import RenewableClient, RenewableListener
from .config.values import HTTP, Connect, LinkPart, Listen, Reference, Status
from .listener import Listener
from .status import makeStatusResource, makeStatusSite

if TYPE_CHECKING:
    from ..checkin.site import CheckInSite
    from ..core import wire
    from ..core.causes import Cause
    from ..link.link import Link
    from ..presence.table import PresenceTable
    from ..status.metrics import HeartbeatMetrics
    from ..status.site import StatusSite
    from .config.resolver import Objects

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

    @ivar name: that name.
    """

    noisy = False
    protocol = NamedProtocol

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self._description = description

    def logPrefix(self) -> str:
        return self._description

    def buildProtocol(self, addr: Any) -> NamedProtocol:
        protocol = NamedProtocol()
        protocol.factory = self
        protocol.name = self.name
        protocol.description = self._description
        return protocol


class Running:
    """
    A part that runs.

    @ivar part: its settings.
    @ivar service: the service that runs it.
    @ivar hasGivenUp: whether it will do nothing any more.
    """

    part: Any
    service: Any
    hasGivenUp = False

    def change(self, part: Any, fields: tuple[str, ...], objects: Objects) -> None:
        """
        Use other settings from now on.  C{renew} is called next.

        @param fields: the names of those that differ.
        """
        raise NotImplementedError

    def renew(self, part: Any, objects: Objects) -> None:
        """
        Use what was made anew, such as certificates that were read again.

        @param part: as before, but for its place in the file.
        """
        self.part = part

    def whenReady(self) -> Deferred[Any]:
        """
        Wait until it runs, or has failed.
        """
        return succeed(None)

    def stop(self) -> tuple[Deferred[Any], Deferred[Any]]:
        """
        Stop the part.

        @return: fires when its port is closed; fires when all is done.
        """
        return succeed(None), maybeDeferred(self.service.disownServiceParent)


class RunningPort(Running):
    """
    A part that listens at an endpoint.
    """

    service: Listener

    def __init__(
        self,
        part: Listen | HTTP | Status,
        objects: Objects,
        factory: HeartbeatServerFactory | CheckInSite | StatusSite,
        end: Callable[[int], None],
        *,
        daemon: bool,
    ) -> None:
        """
        @param end: called if it can not listen, see L{Listener}.
        """
        self.part = part
        self._endpoint = RenewableListener(objects[Reference("listen", part.endpoint)])
        endpoint = self._endpoint.endpoint
        self.service = Listener(part.endpoint, endpoint, factory, end, daemon=daemon)
        self.service.whenOpen().addCallback(lambda _: self._warnOfExpiry())

    def _warnOfExpiry(self) -> None:
        # No fault of the file: a machine's clock may be wrong, and a new certificate may come.
        if self._endpoint.hasExpired:
            _log.warn("{part}: the certificate has expired: peers refuse it", part=self.part.label)

    def renew(self, part: Any, objects: Objects) -> None:
        super().renew(part, objects)
        if self._endpoint.renew(objects[Reference("listen", part.endpoint)]):
            _log.info("{part}: the certificate was read again", part=part.label)
            self._warnOfExpiry()

    def whenReady(self) -> Deferred[Any]:
        return self.service.whenOpen()

    def stop(self) -> tuple[Deferred[Any], Deferred[Any]]:
        _, stopped = super().stop()
        return self.service.whenClosed(), stopped


class PartObserver(LinkHooks):
    """
    Tells the services that a link of a part has changed or given up.
    """

    def __init__(self, changed: Callable[[], None], gaveUp: Callable[[], None]) -> None:
        self._changed = changed
        self._gaveUp = gaveUp

    def connected(self, link: Link) -> None:
        self._changed()

    def disconnected(self, link: Link, cause: Cause) -> None:
        self._changed()

    def gaveUp(self, cause: Cause) -> None:
        self._gaveUp()


class RunningListener(RunningPort):
    """
    Watches the peers that connect to an endpoint.

    @ivar factory: the factory behind the port.
    """

    def __init__(
        self,
        part: Listen,
        objects: Objects,
        reactor: Any,
        observers: Sequence[LinkHooks],
        end: Callable[[int], None],
        *,
        daemon: bool,
    ) -> None:
        """
        @param observers: called besides the hooks of the part.
        """
        self._observers = observers
        self._named = NamedFactory(part.name, part.endpoint)
        self.factory = HeartbeatServerFactory(
            self._named,
            clock=reactor,
            name=part.endpoint,
            serverLimits=part.serverLimits,
            admit=_admitOf(part, objects),
            **_linkSettings(part, objects, observers),
        )
        super().__init__(part, objects, self.factory, end, daemon=daemon)

    def change(self, part: Listen, fields: tuple[str, ...], objects: Objects) -> None:
        self.part = part
        self._named.name = part.name
        self.factory.changeSettings(
            serverLimits=part.serverLimits,
            admit=_admitOf(part, objects),
            **_linkSettings(part, objects, self._observers),
        )


class RunningClient(Running):
    """
    Keeps a link up.
    """

    def __init__(
        self, part: Connect, objects: Objects, reactor: Any, observers: Sequence[LinkHooks]
    ) -> None:
        self.part = part
        self._observers = observers
        self._endpoints = [RenewableClient(each) for each in _endpointsOf(part, objects)]
        self._named = NamedFactory(part.name, part.description)
        self.service = HeartbeatClientService(
            self._endpoints,
            self._named,
            part.backoff,
            reactor,
            name=part.description,
            **_linkSettings(part, objects, observers),
        )

    def change(self, part: Connect, fields: tuple[str, ...], objects: Objects) -> None:
        self.part = part
        self._named.name = part.name
        settings = _linkSettings(part, objects, self._observers)
        if "heartbeat" not in fields:
            # The interval may be longer by now, because the peer was pinged too often.
            del settings["heartbeat"]
        self.service.changeSettings(part.backoff, **settings)

    def renew(self, part: Connect, objects: Objects) -> None:
        super().renew(part, objects)
        for endpoint, current in zip(self._endpoints, _endpointsOf(part, objects), strict=True):
            endpoint.current = current
        if self.hasGivenUp:
            # The operator has asked for a reload, probably because the peer is back.
            self.hasGivenUp = False
            self.service.startService()

    @property
    def isUp(self) -> bool:
        """
        Whether the link is up.
        """
        link: Link | None = self.service.link
        return link is not None and link.isUp


class RunningStatus(RunningPort):
    """
    A status page that runs.
    """

    def __init__(
        self,
        part: Status,
        objects: Objects,
        reactor: Any,
        presence: PresenceTable,
        metrics: HeartbeatMetrics | None,
        end: Callable[[int], None],
        *,
        daemon: bool,
    ) -> None:
        self._token = _tokenOf(part, objects)
        self._makeResource = partial(makeStatusResource, presence, reactor, metrics=metrics)
        self._site = makeStatusSite(
            presence, reactor, metrics=metrics, token=self._token, title=part.title
        )
        super().__init__(part, objects, self._site, end, daemon=daemon)

    def change(self, part: Status, fields: tuple[str, ...], objects: Objects) -> None:
        self.part = part
        self._token = _tokenOf(part, objects)
        self._site.show(self._makeResource(token=self._token, title=part.title))

    def renew(self, part: Status, objects: Objects) -> None:
        super().renew(part, objects)
        if _tokenOf(part, objects) != self._token:
            self.change(part, ("tokenFile",), objects)


def _tokenOf(part: Status, objects: Objects) -> str | None:
    return objects[Reference("token", part.tokenFile)] if part.tokenFile else None


def _endpointsOf(part: Connect, objects: Objects) -> list[Any]:
    return [objects[Reference("connect", text)] for text in part.endpoint]


def _admitOf(part: Listen, objects: Objects) -> Any:
    return objects[Reference("callable", part.admit)] if part.admit else None


def _linkSettings(
    part: LinkPart, objects: Objects, observers: Sequence[LinkHooks]
) -> dict[str, Any]:
    hooks = [objects[Reference("hooks", name)] for name in part.hooks]
    return {
        "heartbeat": part.heartbeat,
        "keepAlive": part.keepAlive,
        "limits": part.limits,
        "hooks": [*hooks, *observers],
    }
