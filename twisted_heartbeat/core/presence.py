# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The words of presence: L{PeerState}, L{Change}, L{Gap}, L{PeerPresence} and L{PresenceLimits}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .validation import isCount, require, requirePositive


class PeerState(StrEnum):
    """
    Whether a peer is alive.  Each member is equal to its value, so that C{state == "up"} works.
    """

    UP = "up"
    """It is heard within its bound."""

    SUSPECT = "suspect"
    """It has not answered in time, or its last link has ended and the grace time runs."""

    DOWN = "down"
    """It is gone.  The cause is in the change."""

    UNKNOWN = "unknown"
    """It was never heard, or not since the watcher was restarted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """
    One change of one peer's state.

    @ivar number: grows with each change, is never used twice, also across restarts, and may skip
        numbers.
    @ivar at: when, in seconds since 1970, as this machine's clock had it.  The order is that of the
        numbers.
    @ivar name: the peer's name in the table.
    @ivar state: the new state.
    @ivar previous: the state before.
    @ivar carrier: what the peer was heard by, or last heard by: C{"tcp"}, C{"tls"}, C{"unix"},
        C{"stream"}, C{"udp"} or C{"http"}.
    @ivar source: the name of the service, factory or monitor that watches the peer; C{""} without
        one.
    @ivar generation: the number of the link or session within the source.
    @ivar address: the peer's address as text; C{""} without one.
    @ivar cause: the name of the cause's class; L{None} unless something ended.
    @ivar reason: the cause in words; C{""} without one.
    @ivar bound: seconds from the last word of the peer to the verdict, on this carrier; L{None} if
        silence proves nothing.
    @ivar isNamed: C{False} if the peer goes by its address: it is forgotten once it is down.
    """

    number: int
    at: float
    name: str
    state: PeerState
    previous: PeerState
    carrier: str
    source: str = ""
    generation: int = 0
    address: str = ""
    cause: str | None = None
    reason: str = ""
    bound: float | None = None
    isNamed: bool = True


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Changes that are not kept any more, in place of which comes the present table.

    @ivar first: the lowest number that may be missing.
    @ivar last: the highest number that may be missing.
    """

    first: int
    last: int


def numberOf(change: Change | Gap) -> int:
    """
    Return the number by which a change, or a gap, is ordered: a gap by its last.
    """
    return change.last if isinstance(change, Gap) else change.number


def firstNumberOf(change: Change | Gap) -> int:
    """
    Return the lowest number that a change, or a gap, stands for.
    """
    return change.first if isinstance(change, Gap) else change.number


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerPresence:
    """
    What the table knows of one peer at this moment.

    @ivar name: the peer's name in the table.
    @ivar state: a L{PeerState}.
    @ivar since: when the state began, in seconds since 1970.
    @ivar carriers: the carriers that hear the peer, in alphabetical order; if none does, the last.
    @ivar lastHeard: when the peer was last heard, in seconds since 1970; L{None} if that is not
        known.
    @ivar bound: the longest bound of those that watch the peer, in seconds; L{None} if its silence
        proves nothing.
    @ivar rtt: the shortest of their last round-trip times, in seconds; L{None} before the first.
    @ivar losses: messages of the peer's that were lost on the way; L{None} where no carrier counts
        them.
    @ivar address: the peer's address as text; C{""} without one.
    @ivar cause: the name of the class of the last fall's cause; L{None} without one.
    @ivar reason: that cause in words.
    @ivar falls: how often the peer went down within L{PresenceLimits.lately}.
    @ivar isNamed: C{False} if the peer goes by its address: it is forgotten once it is down.
    """

    name: str
    state: PeerState
    since: float
    carriers: tuple[str, ...] = ()
    lastHeard: float | None = None
    bound: float | None = None
    rtt: float | None = None
    losses: int | None = None
    address: str = ""
    cause: str | None = None
    reason: str = ""
    falls: int = 0
    isNamed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerRecord:
    """
    What a store keeps of one peer, so that the next start can go on from it.

    @ivar change: the peer's last change.
    @ivar bound: the longest bound of those that watch it, in seconds.
    @ivar lastHeard: in seconds since 1970, as of C{change}; L{None} if that is not known.
    """

    change: Change
    bound: float | None = None
    lastHeard: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPresence:
    """
    What a store holds when the table starts.

    @ivar peers: the records of all peers that are not forgotten.
    @ivar latest: the highest number that the store has; 0 for none.
    @ivar falls: when each peer went down, in seconds since 1970, the oldest first.
    """

    peers: Sequence[PeerRecord] = ()
    latest: int = 0
    falls: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PresenceLimits:
    """
    The memory and the time that the table may take.

    @ivar gone: peers that are kept although they are down; the first to fall is forgotten first.
    @ivar backlog: changes that are kept in memory, for slow subscribers and for a store that fails.
    @ivar hookTimeout: seconds that a subscriber may take for one change.  It is then cancelled,
        and told the change once more.
    @ivar lately: seconds in which the falls of a peer are counted.
    @raise ValueError: if a number is not whole and 1 or more, or a time is not above 0.
    """

    gone: int = 50_000
    backlog: int = 50_000
    hookTimeout: float = 30.0
    lately: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("gone", "backlog"):
            value = getattr(self, name)
            require(isCount(value), self, name, value, "a whole number, 1 or more")
        requirePositive(self, "hookTimeout", "lately")
