# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The faults: frozen values, with the directions and the connections that they act on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .validation import require, requireNumber

Toward = Literal["server", "client", "both"]
"""The direction that a fault acts on, named by the end that receives the bytes."""

Which = Literal["all", "existing", "new"]
"""The connections that a fault acts on."""


@dataclass(frozen=True, kw_only=True)
class BlackHole:
    """
    Bytes, FIN and RST are read and discarded, and so is what the proxy still holds.

    The sender's program hears nothing, as behind a firewall that forgot the flow. Its kernel sees
    the bytes acknowledged, as by a process that hangs behind a healthy kernel; a firewall would not
    acknowledge them. Once healed, the discarded bytes stay lost and the stream goes on behind the
    gap, which breaks TLS and most framings. For a cable that is plugged in again use L{Hold}.
    """


@dataclass(frozen=True, kw_only=True)
class Hold:
    """
    Bytes, FIN and RST are queued, and delivered in order once healed: a cable cut and plugged in
    again, whose retransmissions arrive late but whole.

    When C{maxBuffered} bytes are queued the proxy stops reading, and the sender's buffers fill.
    """


@dataclass(frozen=True, kw_only=True)
class StopReading:
    """
    The proxy stops reading from the sender: its receive buffer fills, the window closes to zero,
    and then the sender's buffers fill. FIN and RST of the sender are not seen either. Once
    healed, everything arrives and nothing is lost.
    """


@dataclass(frozen=True, kw_only=True)
class Delay:
    """
    Each chunk (on UDP each datagram) waits C{seconds}, plus or minus up to C{jitter} seconds, drawn
    uniformly. TCP keeps its order; datagrams may overtake each other.

    At most C{maxBuffered} bytes wait per direction of a connection, so a long delay also limits the
    rate, as a window does.

    @raise ValueError: if C{seconds} is negative, or C{jitter} is not between 0 and C{seconds}.
    """

    seconds: float
    jitter: float = 0.0

    def __post_init__(self) -> None:
        requireNumber("Delay.seconds", self.seconds, 0)
        requireNumber("Delay.jitter", self.jitter, 0, self.seconds)

    def draw(self, random: Callable[[], float]) -> float:
        """
        Draw one wait, in seconds.

        @param random: returns a number from 0 up to 1.
        """
        return self.seconds + self.jitter * (2 * random() - 1)


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """
    At most C{bytesPerSecond} pass per direction of a connection, in small equal pieces. The sender
    is held back once C{maxBuffered} bytes wait.

    @raise ValueError: if C{bytesPerSecond} is below 0.001.
    """

    bytesPerSecond: float

    def __post_init__(self) -> None:
        requireNumber("Bandwidth.bytesPerSecond", self.bytesPerSecond, 0.001)


@dataclass(frozen=True, kw_only=True)
class CutAfter:
    """
    C{bytes} more bytes pass in this direction, counted per connection from the injection; then the
    direction is cut. With C{reset} both ends get RST after the last of these bytes. Without it the
    direction becomes a L{BlackHole}.

    @raise ValueError: if C{bytes} is not a whole number, 0 or more.
    """

    bytes: int
    reset: bool = False

    def __post_init__(self) -> None:
        requireNumber("CutAfter.bytes", self.bytes, 0, kind=int)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """
    Bytes leave the proxy at most C{size} at a time, each slice in its own send with Nagle's
    algorithm off, C{pause} seconds apart. A receiver that keeps up reads the slices one by one; TCP
    does not guarantee more.

    @raise ValueError: if C{size} is not a whole number, 1 or more, or C{pause} is negative.
    """

    size: int = 1
    pause: float = 0.001

    def __post_init__(self) -> None:
        requireNumber("Slice.size", self.size, 1, kind=int)
        requireNumber("Slice.pause", self.pause, 0)


@dataclass(frozen=True, kw_only=True)
class AcceptThenClose:
    """
    New connections are accepted and closed at once (FIN); the target is not contacted. A client
    that sends nevertheless sees RST after the FIN, as with any server that closes without reading.
    """


@dataclass(frozen=True, kw_only=True)
class HangHandshake:
    """
    New connections are accepted and their bytes discarded without an answer, so that a TLS
    handshake hangs. The target is not contacted.

    The connections hang until the client resets them or the proxy ends them. C{heal()} lets only
    later connections through, because the first flight of the hanging connections is lost.
    """


@dataclass(frozen=True, kw_only=True)
class Drop:
    """
    Datagrams are lost: every C{every}-th counted from the injection, with C{probability}, and with
    each such one those that follow it, C{burst} in all. By default all are lost.

    @raise ValueError: if C{every} or C{burst} is not a whole number, 1 or more, or C{probability}
        is not between 0 and 1.
    """

    every: int = 1
    probability: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        requireNumber("Drop.every", self.every, 1, kind=int)
        requireNumber("Drop.burst", self.burst, 1, kind=int)
        requireNumber("Drop.probability", self.probability, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Each datagram arrives twice."""


@dataclass(frozen=True, kw_only=True)
class Reorder:
    """Of each two datagrams the second arrives first. The first waits for it, or for C{heal()}."""


StreamFault = (
    BlackHole
    | Hold
    | StopReading
    | Delay
    | Bandwidth
    | CutAfter
    | Slice
    | AcceptThenClose
    | HangHandshake
)
"""What L{FaultProxy.inject} takes."""

DatagramFault = Drop | Delay | Duplicate | Reorder
"""What L{DatagramFaultProxy.inject} takes."""


def requireFault(fault: object, kinds: Any) -> None:
    """
    Check a fault.

    @param kinds: L{StreamFault} or L{DatagramFault}.

    @raise ValueError: if the value is none of C{kinds}.
    """
    names = ", ".join(f"{kind.__name__}()" for kind in kinds.__args__)
    require(isinstance(fault, kinds), "fault", fault, f"one of {names}")


def endsToward(toward: object) -> tuple[str, ...]:
    """
    Return the ends that a direction leads to: C{"server"}, C{"client"}, or both.

    @raise ValueError: if C{toward} is no L{Toward}.
    """
    allowed = toward in ("server", "client", "both")
    require(allowed, "toward", toward, '"server", "client" or "both"')
    return ("server", "client") if toward == "both" else (str(toward),)
