# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The settings: L{Heartbeat}, L{KeepAlive}, L{Limits} and L{ServerLimits}.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from .validation import isCount, isNumber, require, requirePositive

MIN_BOUND = 0.2
"""Seconds.  Below this a loaded but healthy process can not be told from a dead process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """
    How soon a silent peer is pinged, and how long its answer may take.

    The sum of both is the C{bound}.  With C{interval=None} no ping is ever sent: the peer is known
    to send by itself, and C{timeout} alone is the bound.

    @ivar interval: seconds of silence before a ping; L{None} to watch passively.
    @ivar timeout: seconds from the ping to the verdict.
    @ivar bound: the longest time in seconds from the last received byte to the verdict.
    @ivar suspectAfter: seconds from an unanswered ping to the suspicion, when the ping is sent once
        more.  Without pings they run from the last received byte.
    @ivar suspectBefore: seconds from the suspicion to the verdict.
    @raise ValueError: if a value is not a number above 0, or the bound is below 0.2 s.
    """

    interval: float | None = 20.0
    timeout: float = 15.0
    bound: float = field(init=False, repr=False, compare=False)
    suspectAfter: float = field(init=False, repr=False, compare=False)
    suspectBefore: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        requirePositive(self, "interval", orNone=True)
        requirePositive(self, "timeout")
        # Fields and not properties, because each decision about a peer reads them.
        object.__setattr__(self, "bound", (self.interval or 0.0) + self.timeout)
        object.__setattr__(self, "suspectAfter", self.timeout / 2)
        object.__setattr__(self, "suspectBefore", self.timeout - self.suspectAfter)
        require(
            self.bound >= MIN_BOUND * 0.999,
            self,
            "bound",
            self.bound,
            f"at least {MIN_BOUND} seconds (interval + timeout)",
        )

    @classmethod
    def within(cls, bound: float) -> Heartbeat:
        """
        Divide a bound into interval and timeout, in the proportion of the defaults (4 to 3).

        @param bound: seconds, at least 0.2.
        @raise ValueError: if C{bound} is anything else.
        """
        if not isNumber(bound) or bound < MIN_BOUND:
            raise ValueError(
                f"Heartbeat.within({bound!r}): the bound must be a number of seconds, "
                f"at least {MIN_BOUND}"
            )
        interval = bound * 4 / 7
        return cls(interval=interval, timeout=bound - interval)

    @classmethod
    def forPassivePeer(cls, bound: float) -> Heartbeat:
        """
        Return the heartbeat for a peer that has offered to send by itself within the bound.  It is
        pinged after three quarters of the bound, because it should have sent something by then.

        @param bound: seconds, at least 0.2.
        """
        return cls(interval=bound * 3 / 4, timeout=bound / 4)

    @property
    def withDoubledInterval(self) -> Heartbeat:
        """
        This heartbeat with twice the interval.
        """
        return self if self.interval is None else replace(self, interval=2 * self.interval)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepAlive:
    """
    The operating system's probes on an idle connection.

    @ivar idle: whole seconds of idleness before the first probe.
    @ivar interval: whole seconds between probes.
    @ivar count: unanswered probes before the system ends the connection.
    @ivar userTimeout: seconds that sent data may stay unacknowledged (C{TCP_USER_TIMEOUT}, tcp(7));
        L{None} leaves that option alone.
    @raise ValueError: if a value is outside of the range that is stated here.
    """

    idle: int = 5
    interval: int = 5
    count: int = 3
    userTimeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("idle", "interval", "count"):
            value = getattr(self, name)
            require(isCount(value), self, name, value, "a whole number, 1 or more")
        requirePositive(self, "userTimeout", orNone=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """
    The time and the memory that one link may take.  L{None} switches a limit off.

    @ivar connectTimeout: seconds for an attempt, name look-up and TLS handshake included; then for
        C{prepareConnection}; and at a server for a connection's TLS handshake, or its load
        balancer's header.
    @ivar closeTimeout: seconds that a polite close may go without progress, after which the
        connection is aborted.  In all, a polite close takes at most twelve times as long.
    @ivar cleanupTimeout: seconds for all cleanups of one link together.
    @ivar sendStall: seconds that a send buffer may go without progress.
    @ivar maxBuffered: bytes that may wait to be sent on one link.
    @raise ValueError: if a value is not a number above 0.
    """

    connectTimeout: float | None = 30.0
    closeTimeout: float | None = 5.0
    cleanupTimeout: float | None = 10.0
    sendStall: float | None = 15.0
    maxBuffered: int | None = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        requirePositive(self, *(one.name for one in fields(self)), orNone=True)

    @classmethod
    def off(cls) -> Limits:
        """
        Return limits that limit nothing.
        """
        return cls(**{one.name: None for one in fields(cls)})


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """
    What the peers of a server may take of it.  L{None} switches a limit off.

    @ivar peers: links at a time.
    @ivar peersPerAddress: links at a time from one IPv4 address, or from one IPv6 network of 64
        bits.  Off by default: many well-behaved peers may be behind one address.
    @ivar helloTimeout: seconds in which a peer has to send its hello.
    @ivar admissionTimeout: seconds from the hello until the peer is admitted.
    @ivar maxMessage: bytes that a received message may have.  Off by default, which leaves the
        protocol's own C{maxMessage}.
    @ivar maxHeld: bytes that are kept of what a peer sends before it is admitted.  Reading pauses
        beyond that until the peer is admitted.
    @ivar pingsPerSecond: pings that a peer may send in a second; unused ones are kept for two
        minutes.
    @raise ValueError: if a number is not whole and 1 or more, or a time is not above 0.
    """

    peers: int | None = 100_000
    peersPerAddress: int | None = None
    helloTimeout: float | None = 30.0
    admissionTimeout: float | None = 30.0
    maxMessage: int | None = None
    maxHeld: int | None = 64 * 1024
    pingsPerSecond: int | None = 50

    def __post_init__(self) -> None:
        times = ("helloTimeout", "admissionTimeout")
        requirePositive(self, *times, orNone=True)
        allowed = "a whole number, 1 or more, or None to switch it off"
        for one in fields(self):
            value = getattr(self, one.name)
            holds = one.name in times or value is None or isCount(value)
            require(holds, self, one.name, value, allowed)

    @classmethod
    def off(cls) -> ServerLimits:
        """
        Return limits that limit nothing.
        """
        return cls(**{one.name: None for one in fields(cls)})
