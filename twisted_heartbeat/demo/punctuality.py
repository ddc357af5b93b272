# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Punctuality}: how late the timers of the demo's own process come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.detector import LATENESS_TOLERANCE

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Punctuality:
    """
    Sets one short timer after the other, on the clock that the timers of links run on.

    @ivar late: the list to which it adds the seconds by which one of them came late.
    """

    EVERY = 0.01
    """Seconds.  A delay of the process by more than this meets a timer."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due = 0.0
        self._call: IDelayedCall | None = None
        self.late: list[float] = []

    def start(self) -> None:
        """
        Look from now on.
        """
        self._due = self._clock.seconds() + self.EVERY
        self._call = self._clock.callLater(self.EVERY, self._look)

    def stop(self) -> None:
        """
        Look no longer.
        """
        assert self._call is not None
        self._call.cancel()

    def _look(self) -> None:
        lateness = self._clock.seconds() - self._due
        if lateness > LATENESS_TOLERANCE:
            self.late.append(lateness)
        self.start()
