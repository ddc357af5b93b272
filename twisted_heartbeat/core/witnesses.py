# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Witness}: one link or session that stands for a peer; and L{TrackedPeer}: what is known of a peer.

L{PresenceTracker<twisted_heartbeat.core.presencetracker.PresenceTracker>} has the rules.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from .presence import Change, PeerState


class Moment(NamedTuple):
    """
    A time on both clocks.

    @ivar now: seconds of the monotonic clock.  All decisions are made by it.
    @ivar at: seconds since 1970, for people and for the store.
    """

    now: float
    at: float


@dataclass(kw_only=True, slots=True)
class Witness:
    """
    One link or session that stands for a peer.

    @ivar name: the peer's name in the table.
    @ivar isNamed: C{False} if the peer goes by its address.
    @ivar bound: seconds from the peer's last word to the verdict; L{None} if silence proves
        nothing.
    @ivar suspected: whether the peer has not answered this one in time.
    """

    name: str
    carrier: str
    source: str = ""
    generation: int = 0
    address: str = ""
    bound: float | None = None
    isNamed: bool = True
    suspected: bool = False


class TrackedPeer:
    """
    What the tracker knows of one peer.

    @ivar state: the present state.
    @ivar since: when it began, in seconds since 1970.
    @ivar change: the last change that was recorded; L{None} before the first.
    @ivar witnesses: those that stand for the peer, by key, the newest last.
    @ivar last: the witness of the last event.
    @ivar cause: the class name of the last fall's cause; L{None} without one.
    @ivar reason: that cause in words.
    @ivar lastHeard: in seconds since 1970, if the peer has no witness; L{None} if not known.
    @ivar falls: when the peer went down, on the monotonic clock.
    @ivar due: when the peer is down unless it is heard, on the monotonic clock; C{inf} for never.
    """

    __slots__ = (
        "cause",
        "change",
        "due",
        "falls",
        "last",
        "lastHeard",
        "reason",
        "since",
        "state",
        "witnesses",
    )

    def __init__(self, last: Witness, since: float) -> None:
        self.state = PeerState.UNKNOWN
        self.since = since
        self.change: Change | None = None
        self.witnesses: dict[Hashable, Witness] = {}
        self.last = last
        self.cause: str | None = None
        self.reason = ""
        self.lastHeard: float | None = None
        self.falls: list[float] = []
        self.due = inf

    @property
    def recorded(self) -> PeerState:
        """
        The state that was recorded last.
        """
        return PeerState.UNKNOWN if self.change is None else self.change.state

    @property
    def bound(self) -> float | None:
        """
        The longest bound of the witnesses, or of the last one if there are none.
        """
        if not self.witnesses:
            return self.last.bound
        bounds = [each.bound for each in self.witnesses.values() if each.bound is not None]
        return max(bounds, default=None)
