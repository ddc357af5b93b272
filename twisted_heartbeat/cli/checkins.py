# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The parts for check-ins: L{RunningCheckIn} and L{RunningHTTP}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred

from .config.values import HTTP, CheckIn
from .running import Running, RunningPort

if TYPE_CHECKING:
    from ..checkin.resource import CheckInResource
    from .config.resolver import Objects


class RunningCheckIn(Running):
    """
    Checks in at a web server while all links are up.
    """

    def __init__(self, part: CheckIn, reactor: Any, isDue: Callable[[], bool]) -> None:
        """
        @param isDue: whether all links are up.
        """
        self.part = part
        self.service = _GatedCheckIn(part, reactor, isDue)

    def change(self, part: CheckIn, fields: tuple[str, ...], objects: Objects) -> None:
        self.part = part
        self.service.replace(part)

    def linksChanged(self) -> None:
        """
        Note that a link has come up or ended.
        """
        self.service.linksChanged()


class _GatedCheckIn(Service):
    """
    Runs a C{CheckIn} only while it is due.
    """

    def __init__(self, part: CheckIn, reactor: Any, isDue: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._isDue = isDue
        self._stopping: list[Deferred[Any]] = []
        self._checkIn = self._make(part)

    def _make(self, part: CheckIn) -> Any:
        from ..checkin.client import CheckIn as CheckInService

        return CheckInService(part.url, interval=part.every, reactor=self._reactor)

    def replace(self, part: CheckIn) -> None:
        """
        Check in with other settings.
        """
        self._stop()
        self._checkIn = self._make(part)
        self.linksChanged()

    def linksChanged(self) -> None:
        isDue = self.running and self._isDue()
        if isDue and not self._checkIn.running:
            self._checkIn.startService()
        elif not isDue:
            self._stop()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.linksChanged()

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stop()
        return DeferredList(self._stopping, consumeErrors=True)

    def _stop(self) -> None:
        if self._checkIn.running:
            stopping = maybeDeferred(self._checkIn.stopService)
            self._stopping = [each for each in self._stopping if not each.called] + [stopping]


class RunningHTTP(RunningPort):
    """
    Receives check-ins at one endpoint.
    """

    def __init__(
        self,
        part: HTTP,
        objects: Objects,
        resource: CheckInResource,
        end: Callable[[int], None],
        *,
        daemon: bool,
    ) -> None:
        """
        @param resource: what all endpoints serve.
        """
        super().__init__(part, objects, resource.site(), end, daemon=daemon)
