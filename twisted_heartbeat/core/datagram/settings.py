# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DatagramLimits}: what the senders of datagrams may take of a monitor.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import MIN_BOUND
from ..validation import isCount, isNumber, require
from .packet import MAX_NAME, MAX_PAYLOAD


@dataclass(frozen=True, kw_only=True, slots=True)
class DatagramLimits:
    """
    What the senders of datagrams may take of a monitor.  A datagram beyond a limit is ignored and
    counted; the log tells the numbers once a minute.

    @ivar peers: peers that are known at a time, the dead included.
    @ivar unknownPerSecond: datagrams in a second that belong to no session which the monitor has
        accepted.  Each costs the computation of one MAC.  The datagrams of accepted sessions do
        not count, nor do those of names that have no key.
    @ivar challengesPerSecond: challenges that are sent in a second, but for those to peers that are
        alive.
    @ivar peerPerSecond: heartbeats in a second of one peer.  More of them keep it alive, but are
        not acknowledged, and what they carry is dropped.
    @ivar maxName: bytes of a name, at most 128.
    @ivar maxPayload: bytes of a payload, at most 512.
    @ivar minBound: seconds.  A sender that asks for a shorter bound is given this one.
    @ivar maxBound: seconds.  A sender that asks for a longer bound is given this one.
    @raise ValueError: if a value is outside of the range that is stated here.
    """

    peers: int = 100_000
    unknownPerSecond: int = 10_000
    challengesPerSecond: int = 2_000
    peerPerSecond: int = 50
    maxName: int = MAX_NAME
    maxPayload: int = MAX_PAYLOAD
    minBound: float = MIN_BOUND
    maxBound: float = 86_400.0

    def __post_init__(self) -> None:
        for field in ("peers", "unknownPerSecond", "challengesPerSecond", "peerPerSecond"):
            value = getattr(self, field)
            require(isCount(value), self, field, value, "a whole number, 1 or more")
        name, payload = self.maxName, self.maxPayload
        allowed = f"a whole number, 1 to {MAX_NAME}"
        require(isCount(name) and name <= MAX_NAME, self, "maxName", name, allowed)
        allowed = f"a whole number, 0 to {MAX_PAYLOAD}"
        fits = payload == 0 or (isCount(payload) and payload <= MAX_PAYLOAD)
        require(fits and not isinstance(payload, bool), self, "maxPayload", payload, allowed)
        for field, least in (("minBound", MIN_BOUND), ("maxBound", self.minBound)):
            value = getattr(self, field)
            allowed = f"a number of seconds, at least {least}"
            require(isNumber(value) and value >= least, self, field, value, allowed)
