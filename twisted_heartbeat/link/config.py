# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkConfig}: what all links of one factory or service have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from ..batching.batcher import batcherFor
from ..core.evidence import VerdictCounter
from ..core.settings import Heartbeat, KeepAlive, Limits
from ..logs import STRANGER_INTERVAL, LogRateLimit
from .events import LinkEvents
from .hooks import Hooks

if TYPE_CHECKING:
    from ..batching.batcher import Batcher
    from ..timing.wheel import TimerWheel
    from .interfaces import PingLimit


Ping = Callable[[Any], object]
"""Takes the protocol and makes the peer speak.  It may return a Deferred or a coroutine."""


_CHANGEABLE = ("heartbeat", "keepAlive", "limits", "hooks", "ping")


def changedSettings(given: dict[str, Any]) -> dict[str, Any]:
    """
    Return settings of the application's that are to change, as L{LinkConfig} takes them.

    @raise TypeError: if one of them is no setting, or cannot be changed.
    """
    for name in given:
        if name not in _CHANGEABLE:
            raise TypeError(f"{name} cannot be changed: only {', '.join(_CHANGEABLE)} can")
    if "limits" in given:
        return {**given, "limits": given["limits"] or Limits.off()}
    return given


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """
    What all links of one factory have in common.

    @ivar clock: what tells the time to all of them.
    @ivar heartbeat: L{None} to prove nothing by silence.
    @ivar keepAlive: L{None} to leave the operating system's options alone.
    @ivar hooks: called besides the log: one object or several; L{None} for none.
    @ivar ping: makes a peer speak; L{None} where nothing can.
    @ivar name: what the log calls them.
    @ivar phase: draws each link's L{phase<twisted_heartbeat.core.detector.FailureDetector>};
        L{None} where there are not many.
    @ivar proxied: takes a link that waits for the header of its load balancer.
    @ivar pingLimit: counts the peers' pings; L{None} if they may send any number.
    @ivar strangers: limits the events about links that end before their peer is known.
    @ivar events: tells the log and the hooks what happens to the links.
    @ivar batching: L{False} to watch each link individually; L{None} to leave that to the
        environment.
    @ivar seconds: tells the time of the clock.
    @ivar batcher: batches the links of the clock.
    @ivar wheel: the timer wheel of the clock.
    @ivar verdicts: counts the links of the clock that are found dead in one instant.
    """

    clock: IReactorTime
    heartbeat: Heartbeat | None = field(default_factory=Heartbeat)
    keepAlive: KeepAlive | None = field(default_factory=KeepAlive)
    limits: Limits = field(default_factory=Limits)
    hooks: Hooks | None = None
    ping: Ping | None = None
    name: str | None = None
    phase: Callable[[], float] | None = None
    proxied: Callable[[Any], None] | None = None
    pingLimit: PingLimit | None = None
    strangers: LogRateLimit = field(default_factory=lambda: LogRateLimit(STRANGER_INTERVAL))
    generations: Iterator[int] = field(default_factory=lambda: count(1))
    batching: bool | None = None
    if TYPE_CHECKING:
        # No field, because each makes the import slower; but set for each instance.
        seconds: Callable[[], float] = field(init=False)
        batcher: Batcher = field(init=False)
        wheel: TimerWheel = field(init=False)
        verdicts: VerdictCounter = field(init=False)
        events: LinkEvents = field(init=False)

    def __post_init__(self) -> None:
        batcher = batcherFor(self.clock, self.batching)
        made = {
            "seconds": self.clock.seconds,
            "batcher": batcher,
            "wheel": batcher.wheel,
            "verdicts": batcher.wheel.shared(VerdictCounter),
            "events": LinkEvents(self.name, self.heartbeat, self.hooks),
        }
        for name, value in made.items():
            # The dataclass is frozen.
            object.__setattr__(self, name, value)
