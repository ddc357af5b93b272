# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What batching needs of a link and of its connection.  For type checkers only: no module loads this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ..core.detector import FailureDetector
    from ..core.settings import Heartbeat
    from ..timing.wheel import Slot
    from .pinground import LastPing, Pinger, PingRound


class Pollable(Protocol):
    """
    A connection that the poller reads.
    """

    def fileno(self) -> int:
        """Its descriptor."""

    def stopReading(self) -> None:
        """L{Remove<IdlePoller.remove>} it from the poller that reads it."""

    def connectionLost(self, reason: Failure) -> None:
        """As C{IReadDescriptor}."""


class ParkableConnection(Protocol):
    """
    The connection of a member.

    @ivar batch: the round that it is in; L{None} while the reactor reads it.
    """

    detector: FailureDetector
    batch: Any
    reactor: Any
    socket: Any
    bufferSize: int
    seconds: Callable[[], float]

    @property
    def canPark(self) -> bool:
        """Whether nothing but pings and pongs is to be expected: it is read, plain and open, and
        nothing waits to be sent."""

    def park(self, batch: PingRound) -> None:
        """Take the connection from the reactor; the idle poller reads it now."""

    def unpark(self) -> None:
        """Return the connection to the reactor; the idle poller no longer reads it."""

    def deliver(self, data: bytes) -> Any:
        """Handle what the idle poller has read and the round has not consumed; no bytes are the
        end of the stream.  Return what C{doRead} of C{IReadDescriptor} returns."""

    def readFailed(self, error: OSError) -> Any:
        """Handle an error of C{recv}, and return the same."""

    def writeDirectUnchecked(self, data: bytes) -> None:
        """Send a ping."""

    def logPrefix(self) -> str:
        """As in C{ILoggingContext}."""


class BatchMember(Protocol):
    """
    A link that may be batched.  It is a L{Timer<twisted_heartbeat.timing.wheel.Timer>}, and the
    wheel visits it where it has not answered a round's ping in time.

    @ivar sharesHeartbeat: whether it is watched by the settings of its factory or service, and not
        by what its peer has promised.
    @ivar promisedWithin: seconds within which this side has promised to speak; C{inf} for none.
    """

    slot: Slot | None
    detector: FailureDetector

    @property
    def heartbeat(self) -> Heartbeat | None:
        """How the peer is watched."""

    @property
    def sharesHeartbeat(self) -> bool:
        """Whether the peer is watched by the configuration's interval and timeout."""

    @property
    def connection(self) -> Any:
        """The L{ParkableConnection}; L{None} if there is none."""

    @property
    def pinger(self) -> Pinger | None:
        """What the peer is pinged with: the same object for all that may be pinged together.
        L{None} if the link must send its pings itself."""

    @property
    def promisedWithin(self) -> float:
        """See above."""

    def isQuiet(self) -> bool:
        """Whether the last ping was answered, and nothing was sent since."""

    def sendPing(self, now: float) -> None:
        """Make the peer speak, by a ping of the user's own."""

    def resumed(self, last: LastPing | None) -> None:
        """Be visited individually again.  The detector has resumed already."""

    def onTimer(self, now: float, lateness: float) -> float | None:
        """As in L{Timer<twisted_heartbeat.timing.wheel.Timer>}."""
