# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A presence table, and the peers that it watches: objects with the attributes of a link.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from twisted_heartbeat import Cause, PeerSilent, PresenceTable
from twisted_heartbeat.timing.monotonic import clockFor
from twisted_heartbeat.timing.wheel import timerWheelFor

from ..support.presence import FakeWatched

SILENT = "nothing received for 35.001 s, the bound is 35 s"


class Watched(FakeWatched):
    """
    A peer on one carrier, whose name is proven.
    """

    logLimit = None
    watch = "ping"
    traffic = (None, None)

    def __init__(self, name: str, generation: int, clock: Any, carrier: str, rtt: float) -> None:
        super().__init__(
            name, carrier=carrier, generation=generation, bound=35.0, isAuthenticated=True
        )
        self.peer = IPv4Address("TCP", f"10.0.{generation >> 8 & 255}.{generation & 255}", 4000)
        self.state = "alive"
        self.silence = 1.0
        self.rtt = rtt
        self.wheel = timerWheelFor(clock)
        self.seconds = clock.seconds


class Fleet:
    """
    A table with peers that the test lets rise and fall.

    @ivar table: the table; it runs until L{stop}.
    """

    def __init__(self, reactor: Any = None, *, hooks: Any = (), **settings: Any) -> None:
        self._clock = clockFor(reactor)
        self.table = PresenceTable(clock=reactor, **settings)
        self._observers = [self.table, *hooks]
        self._generation = 0
        self.watched: dict[str, Watched] = {}
        self.table.startService()

    def up(self, *names: str, carrier: str = "tcp", rtt: float = 0.02) -> None:
        """
        Connect peers.
        """
        for name in names:
            self._generation += 1
            watched = Watched(name, self._generation, self._clock, carrier, rtt)
            self.watched[name] = watched
            self._tell("connected", watched)

    def suspect(self, name: str) -> None:
        """
        Let a peer leave a ping unanswered.
        """
        self.watched[name].state = "suspected"
        self._tell("suspected", self.watched[name])

    def down(self, *names: str, cause: Cause | None = None) -> None:
        """
        Let peers die.
        """
        for name in names:
            watched = self.watched.pop(name)
            watched.state = "gone"
            self._tell("disconnected", watched, cause or PeerSilent(SILENT))

    def stop(self) -> Deferred[None]:
        """
        Stop the table.
        """
        return self.table.stopService()

    def _tell(self, event: str, *details: object) -> None:
        for observer in self._observers:
            getattr(observer, event)(*details)
