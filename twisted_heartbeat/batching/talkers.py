# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TalkerScan}: the links whose peers speak so often that they never need a ping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.quiet import minSilenceBeforePing, resumeChecks, suspendChecks

if TYPE_CHECKING:
    from ..core.detector import FailureDetector
    from ..core.settings import Heartbeat
    from ..timing.wheel import Slot
    from .interfaces import BatchMember


_STEPS = 3
"""Scans within the silence that a peer may have: a peer that speaks once in two of them stays."""


class TalkerScan:
    """
    Links that are watched alike, and whose peers have all spoken recently.

    @ivar heartbeat: how they are watched.
    @ivar due: when they are scanned next, in seconds of their clock.
    """

    __slots__ = ("_joined", "_members", "_step", "due", "heartbeat", "slot")

    def __init__(self, heartbeat: Heartbeat, now: float) -> None:
        self.heartbeat = heartbeat
        self._step = minSilenceBeforePing(heartbeat) / _STEPS
        self._members: dict[FailureDetector, BatchMember] = {}
        self._joined = 0
        self.due = now + self._step
        self.slot: Slot | None = None

    def add(self, member: BatchMember) -> bool:
        """
        Add a link whose peer has just spoken.

        @return: L{False} if its ping could be due before the next scan.
        """
        if not suspendChecks(member.detector, self.due):
            return False
        self._members[member.detector] = member
        self._joined += 1
        return True

    @property
    def isEmpty(self) -> bool:
        """
        Whether it has no members.
        """
        return not self._members

    def remove(self, member: BatchMember) -> bool:
        """
        Remove a link, and let its detector go on.

        @return: whether it was a member.
        """
        if self._members.pop(member.detector, None) is None:
            return False
        resumeChecks(member.detector)
        return True

    def onTimer(self, now: float, lateness: float) -> float | None:
        return self.scan(now)

    def scan(self, now: float) -> float | None:
        """
        Let go the members whose pings could be due before the next scan.

        @return: when to scan again; L{None} if no member is left.
        """
        if self._joined * 2 > len(self._members):
            self._sort()
        since = now - self._step * (_STEPS - 1)
        for detector in [one for one in self._members if one.heardAt < since]:
            member = self._members.pop(detector)
            resumeChecks(detector)
            member.resumed(None)
        if not self._members:
            return None
        self.due = now + self._step
        return self.due

    def _sort(self) -> None:
        """
        Order the members as they lie in memory, as far as their identities tell.  Thousands are
        scanned three times as fast then.
        """
        self._joined = 0
        self._members = dict(sorted(self._members.items(), key=lambda item: id(item[0])))
