# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{CheckedName}: one name, from its first check-in to a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.checkins import Check, CheckInDetector, CheckState, Signal
from ..link.addresses import peerName

if TYPE_CHECKING:
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot, TimerWheel
    from .monitor import CheckInMonitor


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCheckIn:
    """
    A check-in, as it came.

    @ivar status: the exit status; L{None} without one.
    @ivar run: the run id; L{None} without one.
    @ivar body: the body, cut to C{CheckInLimits.body}.  It is the peer's: escape it before it is
        shown.
    @ivar address: from where it came, as text; L{None} where that is not known.
    """

    signal: Signal
    status: int | None = None
    run: str | None = None
    body: bytes = b""
    address: str | None = None


class CheckedName:
    """
    One generation of a name: from the first check-in, or the begin of its watch, to the verdict.
    Its public attributes are named as those of a link.

    @ivar name: the name.
    @ivar generation: its number among the generations of all names of the same server.
    @ivar source: the name of the server.
    @ivar created: whether a check-in has created the name; otherwise the operator has.
    @ivar last: the last check-in; L{None} before the first.
    @ivar peer: the address of the last check-in; L{None} before the first.
    @ivar isAuthenticated: whether the name has tokens of its own, which prove it.
    @ivar detector: decides.
    @ivar slot: belongs to the timer wheel.
    """

    __slots__ = (
        "_monitor",
        "created",
        "detector",
        "generation",
        "isAuthenticated",
        "last",
        "name",
        "peer",
        "slot",
        "source",
    )

    carrier = "http"
    watch = "check-in"
    isServerSide = True
    isExpected = True
    """
    A verdict may come before any C{connected}.  An observer that keeps a table has to take it.
    """
    rtt: float | None = None
    logLimit: LogRateLimit | None = None

    def __init__(
        self,
        monitor: CheckInMonitor,
        name: str,
        generation: int,
        detector: CheckInDetector,
        created: bool,
    ) -> None:
        self._monitor = monitor
        self.name = name
        self.generation = generation
        self.source = monitor.source
        self.detector = detector
        self.created = created
        self.last: ReceivedCheckIn | None = None
        self.peer: Any = None
        self.isAuthenticated = False
        self.slot: Slot | None = None

    @property
    def state(self) -> CheckState:
        """
        The detector's state.
        """
        return self.detector.state

    @property
    def check(self) -> Check:
        """
        Its period and grace time.
        """
        return self.detector.check

    @property
    def bound(self) -> float:
        """
        Seconds from a success to the verdict.
        """
        return self.check.bound

    @property
    def silence(self) -> float:
        """
        Seconds since the last check-in, or since the watch began.
        """
        return self.seconds() - self.detector.heardAt

    @property
    def duration(self) -> float | None:
        """
        Seconds that the last run took whose start was known; L{None} before the first.
        """
        return self.detector.duration

    @property
    def runs(self) -> Mapping[str | None, float]:
        """
        The seconds since each unfinished run began, by run id.
        """
        now = self.seconds()
        return {run: now - startedAt for run, startedAt in self.detector.runs.items()}

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of its clock.
        """
        return self._monitor.wheel

    def seconds(self) -> float:
        """
        Return the time of its clock.
        """
        return self._monitor.wheel.seconds()

    def eventFields(self) -> dict[str, object]:
        """
        Return the fields that all its events have in the log.
        """
        return {
            "link": f"{self.source}: {self.name}",
            "carrier": self.carrier,
            "name": self.name,
            "generation": self.generation,
            "peer": None if self.peer is None else peerName(self.peer),
            "silence": round(self.silence, 3),
            "bound": self.bound,
            "duration": None if self.duration is None else round(self.duration, 3),
        }

    def onTimer(self, now: float, lateness: float) -> float | None:
        return self._monitor.nameDue(self, now, lateness)
