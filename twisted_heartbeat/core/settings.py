# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the user asks for: L{Heartbeat}, L{KeepAlive}, L{Backoff}, L{Limits}, L{ServerLimits}.

Each is frozen, takes keywords only and is checked when it is built: a wrong value is one
C{ValueError} that names the field, the value and what is allowed, before anything starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Literal

from .causes import Cause, Pace, PeerClosed

SHORTEST_BOUND = 0.2
"""Seconds.  Below this a loaded but healthy process can not be told from a dead one."""

LONGEST_ABSENCE = 3600.0
"""Seconds.  A peer that wishes more, to wait or to spread over, is given this."""


def _isNumber(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def _require(holds: bool, owner: object, field: str, value: object, allowed: str) -> None:
    """
    @raise ValueError: unless C{holds}.
    """
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{field} is {value!r}: it must be {allowed}")


def _requirePositive(owner: object, *fields: str, orNone: bool = False) -> None:
    allowed = "a number above 0" + (", or None to switch it off" if orNone else "")
    for field in fields:
        value = getattr(owner, field)
        holds = (orNone and value is None) or (_isNumber(value) and value > 0)
        _require(holds, owner, field, value, allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """
    How soon a silent peer is pinged, and how long it may then take.

    The two together are the L{bound}.  With C{interval=None} no ping is ever sent: the peer is
    known to speak by itself, and C{timeout} alone is the bound.

    @ivar interval: seconds of silence before a ping; L{None} to watch passively.
    @ivar timeout: seconds from the ping to the verdict.
    @raise ValueError: if a value is not a number above 0, or the bound is below 0.2 s.
    """

    interval: float | None = 20.0
    timeout: float = 15.0

    def __post_init__(self) -> None:
        _requirePositive(self, "interval", orNone=True)
        _requirePositive(self, "timeout")
        _require(
            self.bound >= SHORTEST_BOUND * 0.999,
            self,
            "bound",
            self.bound,
            f"at least {SHORTEST_BOUND} seconds (interval + timeout)",
        )

    @property
    def bound(self) -> float:
        """
        The longest time in seconds from the last received byte to the verdict.
        """
        return (self.interval or 0.0) + self.timeout

    @classmethod
    def within(cls, bound: float) -> Heartbeat:
        """
        The interval and the timeout for a bound, in the proportion of the defaults (4 to 3).

        @param bound: seconds, at least 0.2.
        @raise ValueError: if it is anything else.
        """
        if not _isNumber(bound) or bound < SHORTEST_BOUND:
            raise ValueError(
                f"Heartbeat.within({bound!r}): the bound must be a number of seconds, "
                f"at least {SHORTEST_BOUND}"
            )
        interval = bound * 4 / 7
        return cls(interval=interval, timeout=bound - interval)

    @classmethod
    def trusting(cls, bound: float) -> Heartbeat:
        """
        For a peer that has said that it would speak by itself within the bound: until three
        quarters of that have passed its silence is no reason to wonder.

        @param bound: seconds, at least 0.2.
        """
        return cls(interval=bound * 3 / 4, timeout=bound / 4)

    @property
    def slower(self) -> Heartbeat:
        """
        The same with twice the interval.
        """
        return self if self.interval is None else replace(self, interval=2 * self.interval)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepAlive:
    """
    The operating system's own probes on an idle connection.

    @ivar idle: whole seconds of idleness before the first probe.
    @ivar interval: whole seconds between probes.
    @ivar count: unanswered probes before the system gives the connection up.
    @ivar userTimeout: seconds that sent data may stay unacknowledged (C{TCP_USER_TIMEOUT}, tcp(7));
        L{None} leaves the system's own rule.
    @raise ValueError: if a value is outside of what is said here.
    """

    idle: int = 5
    interval: int = 5
    count: int = 3
    userTimeout: float | None = None

    def __post_init__(self) -> None:
        for field in ("idle", "interval", "count"):
            value = getattr(self, field)
            whole = _isNumber(value) and value >= 1 and value == int(value)
            _require(whole, self, field, value, "a whole number, 1 or more")
        _requirePositive(self, "userTimeout", orNone=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """
    How long to wait before the next attempt: exponential, with full jitter, inside a cap.

    An instance is callable, attempt -> seconds, so that it also serves as the C{retryPolicy} of
    Twisted's C{ClientService}.

    Full jitter: M{uniform(0, ceiling)}, see Marc Brooker, I{Exponential Backoff And Jitter}, AWS
    Architecture Blog, 2015.

    @ivar initial: seconds; the ceiling of the first draw.
    @ivar maximum: seconds; no draw is longer.
    @ivar factor: how much the ceiling grows with each attempt, 1 or more.
    @ivar jitter: C{"full"}; or a fraction from 0 to 1 by which the ceiling is varied either way;
        or L{None} to wait for the ceiling itself.
    @ivar spread: seconds; the first ceiling after a cause that a whole fleet sees in one instant,
        and the least wait after the next such ones, if no more than half of their ceiling.  A whole
        fleet in ten seconds is ten percent of it in each; chance needs room.
    @ivar stableAfter: seconds after which a link is proven even if the peer has not spoken; over
        the built-in protocol, after which a goodbye or a violation no longer revokes the proof.
    @ivar maxAttempts: failed attempts in a row after which it gives up, with several endpoints
        failed rounds; L{None} for never.
    @ivar maxElapsed: seconds since the first of them after which it gives up; L{None} for never.
    @raise ValueError: if a value is outside of what is said here.
    """

    initial: float = 1.0
    maximum: float = 60.0
    factor: float = 2.0
    jitter: Literal["full"] | float | None = "full"
    spread: float = 12.0
    stableAfter: float = 10.0
    maxAttempts: int | None = None
    maxElapsed: float | None = None

    def __post_init__(self) -> None:
        _requirePositive(self, "initial", "maximum")
        for field in ("spread", "stableAfter"):
            value = getattr(self, field)
            _require(_isNumber(value) and value >= 0, self, field, value, "a number, 0 or more")
        factorHolds = _isNumber(self.factor) and self.factor >= 1
        _require(factorHolds, self, "factor", self.factor, "a number, 1 or more")
        _require(
            self.maximum >= self.initial,
            self,
            "maximum",
            self.maximum,
            f"at least initial, {self.initial!r}",
        )
        jitterHolds = (
            self.jitter is None
            or self.jitter == "full"
            or (_isNumber(self.jitter) and 0 <= float(self.jitter) <= 1)
        )
        _require(
            jitterHolds, self, "jitter", self.jitter, '"full", a fraction from 0 to 1, or None'
        )
        attempts = self.maxAttempts
        attemptsHold = attempts is None or (
            _isNumber(attempts) and attempts >= 1 and attempts == int(attempts)
        )
        _require(
            attemptsHold,
            self,
            "maxAttempts",
            attempts,
            "a whole number, 1 or more, or None to never give up",
        )
        _requirePositive(self, "maxElapsed", orNone=True)

    def __call__(self, attempt: int) -> float:
        """
        Seconds to wait after so many failed attempts in a row, whatever their cause.

        @param attempt: 1 after the first.
        """
        return self.delay(attempt)

    def delay(
        self,
        attempt: int,
        cause: Cause | None = None,
        draw: Callable[[], float] = random.random,
    ) -> float:
        """
        Seconds to wait after so many failed attempts in a row, the last of them for C{cause}.

        A peer that has said goodbye and when to come back has its wish, in place of the usual
        delay; C{maximum} does not limit it, L{LONGEST_ABSENCE} does.

        @param attempt: 1 after the first.
        @param draw: a random number from 0 to 1.
        """
        slowly = cause is not None and cause.pace is Pace.SLOWLY
        usual = self._usual(attempt, cause, slowly, draw)
        # A peer that always wishes for next to nothing shall not have us in a hot loop.
        wish = wishOf(cause, draw, least=self.initial)
        return max(usual, wish) if slowly else wish or usual

    def _usual(
        self, attempt: int, cause: Cause | None, slowly: bool, draw: Callable[[], float]
    ) -> float:
        together = cause is not None and cause.fleetWide and self.jitter is not None
        base = max(self.initial, self.spread) if slowly or together else self.initial
        ceiling = min(self.maximum, _grown(base, self.factor, attempt - 1))
        if self.jitter is None:
            return ceiling
        # Slowly means never soon, so its draw keeps to the upper half.
        floor = ceiling / 2 if slowly else 0.0
        if together:
            floor = max(floor, self._apart(attempt, ceiling))
        if self.jitter == "full":
            return floor + (ceiling - floor) * draw()
        varied = ceiling * (1 + self.jitter * (2 * draw() - 1))
        return min(self.maximum, max(floor, varied))

    def _apart(self, attempt: int, ceiling: float) -> float:
        """
        The least wait of one of a fleet.  At first it is next to nothing, but no peer is back in
        that.  Who was refused then leaves the spread to those who have not tried yet: else both
        would come at once.
        """
        if attempt == 1:
            return min(self.initial, self.spread) / 10
        return min(self.spread, ceiling / 2)

    def exhausted(self, attempts: int, elapsed: float) -> bool:
        """
        Whether it is time to give up.

        @param attempts: failed attempts in a row.
        @param elapsed: seconds since the first of them.
        """
        return attempts >= (self.maxAttempts or inf) or elapsed > (self.maxElapsed or inf)


def wishOf(
    cause: Cause | None, draw: Callable[[], float] = random.random, least: float = 0.0
) -> float:
    """
    Seconds for which the peer's goodbye has asked us to stay away, its spread drawn.

    @param draw: a random number from 0 to 1.
    @param least: seconds; a wish for less than this in all is none.
    @return: 0 if it has asked for nothing.
    """
    if not isinstance(cause, PeerClosed):
        return 0.0
    after = min(cause.comeBackAfter, LONGEST_ABSENCE)
    spread = min(cause.spread, LONGEST_ABSENCE)
    return after + spread * draw() if after + spread >= least else 0.0


def _grown(base: float, factor: float, times: int) -> float:
    try:
        return base * factor ** max(0, times)
    except OverflowError:
        return inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """
    How long, and how much, anything may take.  L{None} switches that limit off.

    @ivar connectTimeout: seconds for an attempt, name look-up and TLS handshake included; for
        C{prepareConnection} after it; and at a server for a connection's TLS handshake, or its load
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
        _requirePositive(
            self,
            "connectTimeout",
            "closeTimeout",
            "cleanupTimeout",
            "sendStall",
            "maxBuffered",
            orNone=True,
        )

    @classmethod
    def off(cls) -> Limits:
        """
        No limit on anything.
        """
        return cls(
            connectTimeout=None,
            closeTimeout=None,
            cleanupTimeout=None,
            sendStall=None,
            maxBuffered=None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """
    What those who connect to a server may take of it.  L{None} switches that limit off.

    @ivar peers: links at a time.
    @ivar peersPerAddress: links at a time from one IPv4 address, or from one IPv6 network of 64
        bits.  Off by default: many well-behaved peers may be behind one address.
    @ivar helloTimeout: seconds in which a peer has to say hello.
    @ivar admissionTimeout: seconds from its hello until it is admitted.
    @ivar maxMessage: bytes that a received message may have.  Off by default, which leaves the
        protocol's own C{maxMessage}.
    @ivar maxHeld: bytes that are kept of what a peer says before it is admitted; no more is read
        until then.
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
        _requirePositive(self, "helloTimeout", "admissionTimeout", orNone=True)
        for field in ("peers", "peersPerAddress", "maxMessage", "maxHeld", "pingsPerSecond"):
            value = getattr(self, field)
            whole = _isNumber(value) and value >= 1 and value == int(value)
            allowed = "a whole number, 1 or more, or None to switch it off"
            _require(value is None or whole, self, field, value, allowed)

    @classmethod
    def off(cls) -> ServerLimits:
        """
        No limit on anything.
        """
        return cls(
            peers=None,
            helloTimeout=None,
            admissionTimeout=None,
            maxHeld=None,
            pingsPerSecond=None,
        )
