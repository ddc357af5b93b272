# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The parts for heartbeats over UDP: L{RunningMonitor} and L{RunningSender}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from ..core.diagnosis import describeError
from ..logs import SafeLogger
from .config.values import Reference, UDPMonitor, UDPSender
from .exitstatus import EX_OSERR
from .running import Running

if TYPE_CHECKING:
    from ..core.datagram.settings import DatagramLimits
    from ..datagram.monitor import UDPHeartbeatMonitor
    from ..datagram.sender import UDPHeartbeatSender
    from ..link.hooks import LinkHooks
    from .config.resolver import Objects

_log = SafeLogger()


def makeMonitor(
    part: UDPMonitor, objects: Objects, reactor: Any, observers: Sequence[LinkHooks] = ()
) -> UDPHeartbeatMonitor:
    """
    Make the monitor of a part.

    @raise ValueError: if the file of its keys has a wrong key.
    """
    # Not at the top, because most runs do without it.
    from ..datagram.monitor import UDPHeartbeatMonitor

    host, port = part.place
    return UDPHeartbeatMonitor(
        objects[Reference("udp keys", part.keyFile)],
        heartbeat=part.heartbeat,
        hooks=[*_hooksOf(part, objects), *observers],
        limits=_limitsOf(part),
        port=port,
        interface=host,
        name=f"udp:{part.address}",
        reactor=reactor,
    )


def makeSender(
    part: UDPSender, objects: Objects, reactor: Any, observers: Sequence[LinkHooks] = ()
) -> UDPHeartbeatSender:
    """
    Make the sender of a part.

    @raise ValueError: if there is no key of its name, or its bound needs other settings.
    """
    from ..datagram.sender import UDPHeartbeatSender

    numbered = objects[Reference("udp keys", part.keyFile)].get(part.name)
    if not numbered:
        raise ValueError(f"its name is {part.name!r}, of which the file has no key")
    # The newest key of a rotation.
    keyId, key = max(numbered.items())
    return UDPHeartbeatSender(
        part.places,
        name=part.name,
        key=key,
        keyId=keyId,
        heartbeat=part.heartbeat,
        every=part.every,
        allowLoss=part.allowLoss,
        all=part.all,
        hooks=[*_hooksOf(part, objects), *observers],
        reactor=reactor,
    )


def _limitsOf(part: UDPMonitor) -> DatagramLimits:
    from ..core.datagram.settings import DatagramLimits

    return DatagramLimits(peers=part.peers, minBound=part.minBound, maxBound=part.maxBound)


def _hooksOf(part: UDPMonitor | UDPSender, objects: Objects) -> list[Any]:
    return [objects[Reference("hooks", name)] for name in part.hooks]


class RunningMonitor(Running):
    """
    Watches the senders of heartbeats.

    @ivar monitor: the monitor.
    """

    def __init__(
        self,
        part: UDPMonitor,
        objects: Objects,
        reactor: Any,
        observers: Sequence[LinkHooks],
        end: Callable[[int], None],
        *,
        daemon: bool,
    ) -> None:
        """
        @param end: called if it can not listen; takes an exit status.
        @param daemon: whether twistd will report the result of the start to a shell.
        """
        self.part = part
        self._keys = objects[Reference("udp keys", part.keyFile)]
        self.monitor = makeMonitor(part, objects, reactor, observers)
        self.service = _MonitorService(part.label, self.monitor, end, daemon)

    def change(self, part: UDPMonitor, fields: tuple[str, ...], objects: Objects) -> None:
        # The file of its keys is what renew looks at.
        self.part = part
        self.monitor.changeSettings(heartbeat=part.heartbeat, limits=_limitsOf(part))

    def renew(self, part: UDPMonitor, objects: Objects) -> None:
        super().renew(part, objects)
        keys = objects[Reference("udp keys", part.keyFile)]
        if keys != self._keys:
            self._keys = keys
            self.monitor.setKeys(keys)
            _log.info("{part}: the keys were read again", part=part.label)

    def stop(self) -> tuple[Deferred[Any], Deferred[Any]]:
        _, stopped = super().stop()
        closed: Deferred[None] = Deferred()

        def tell(result: Any) -> Any:
            closed.callback(None)
            return result

        stopped.addBoth(tell)
        return closed, stopped


class _MonitorService(Service):
    """
    Runs a monitor.  If it can not listen, it logs one sentence and ends the process.

    @ivar failure: as of a C{Listener}.
    """

    def __init__(self, label: str, monitor: Any, end: Callable[[int], None], daemon: bool) -> None:
        self._label = label
        self._monitor = monitor
        self._end = end
        self._daemon = daemon
        self.failure: Failure | None = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._start(self._monitor.privilegedStartService)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self.failure is None:
            self._start(self._monitor.startService)

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        return maybeDeferred(self._monitor.stopService)

    def _start(self, start: Callable[[], object]) -> None:
        try:
            start()
        except CannotListenError as error:
            self.failure = Failure()
            # Critical, because such events also go to stderr while no log has been started.
            words = "Could not listen at {link}: {reason}"
            _log.critical(words, link=self._label, reason=describeError(error))
            self._end(EX_OSERR)
            if self._daemon:
                raise


class RunningSender(Running):
    """
    Sends heartbeats.
    """

    def __init__(
        self, part: UDPSender, objects: Objects, reactor: Any, observers: Sequence[LinkHooks]
    ) -> None:
        self.part = part
        self._reactor = reactor
        self._observers = observers
        self._keys = objects[Reference("udp keys", part.keyFile)]
        self.service = makeSender(part, objects, reactor, observers)
        self._isStopped = False
        self._replaced: Deferred[Any] = succeed(None)

    def change(self, part: UDPSender, fields: tuple[str, ...], objects: Objects) -> None:
        self.part = part
        self._keys = objects[Reference("udp keys", part.keyFile)]
        old, parent = self.service, self.service.parent
        self.service = makeSender(part, objects, self._reactor, self._observers)
        # The goodbye of the old session leaves before the first heartbeat of the new one.
        if parent is not None:
            self._replaced = maybeDeferred(old.disownServiceParent)
            self._replaced.addCallback(lambda _: self._begin(parent))

    def _begin(self, parent: Any) -> None:
        # Of several changes while the old sender stops, the last one holds.
        if not self._isStopped:
            self.service.setServiceParent(parent)

    def stop(self) -> tuple[Deferred[Any], Deferred[Any]]:
        self._isStopped = True
        if self.service.parent is None:
            # The old sender is stopping, and the new one has not begun.
            return succeed(None), self._replaced
        return super().stop()

    def renew(self, part: UDPSender, objects: Objects) -> None:
        super().renew(part, objects)
        if objects[Reference("udp keys", part.keyFile)] != self._keys:
            self.change(part, ("keyFile",), objects)
