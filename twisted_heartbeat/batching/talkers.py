# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{TalkerScan}: the links whose peers speak so often that none is ever asked to.

Of thousands of such nobody need be looked at by itself, only to see that it has just spoken: they
are gone through together.  Whoever falls silent leaves, and is looked at on its instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..core.detector import patience

if TYPE_CHECKING:
    from ..core.detector import FailureDetector
    from ..core.settings import Heartbeat


_STEPS = 3
"""In which what a peer may be silent for is gone through: who speaks once in two of them stays."""


class Member(Protocol):
    """
    A link in a crowd.
    """

    def leftTalkerScan(self) -> None:
        """Be visited by itself again."""


class TalkerScan:
    """
    Links that are watched alike, and whose peers have all just spoken.

    @ivar heartbeat: how they are watched.
    @ivar due: when it is gone through next, in seconds of their clock.
    """

    __slots__ = ("_joined", "_members", "_step", "due", "heartbeat", "slot")

    def __init__(self, heartbeat: Heartbeat, now: float) -> None:
        self.heartbeat = heartbeat
        self._step = patience(heartbeat) / _STEPS
        self._members: dict[FailureDetector, Member] = {}
        self._joined = 0
        self.due = now + self._step
        self.slot: Any = None

    def join(self, liveness: FailureDetector, link: Member) -> bool:
        """
        Take in one whose peer has just spoken.

        @return: whether it has been.
        """
        if not liveness.suspendChecks(self.due):
            return False
        self._members[liveness] = link
        self._joined += 1
        return True

    @property
    def empty(self) -> bool:
        """
        Whether nobody is in it.
        """
        return not self._members

    def leave(self, liveness: FailureDetector) -> bool:
        """
        It no longer is in it.

        @return: whether it was.
        """
        if self._members.pop(liveness, None) is None:
            return False
        liveness.resumeChecks()
        return True

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        if self._joined * 2 > len(self._members):
            self._sort()
        # Whoever has spoken since then is due no sooner than they are gone through again.
        since = now - self._step * (_STEPS - 1)
        for liveness in [one for one in self._members if one.heardAt < since]:
            link = self._members.pop(liveness)
            liveness.resumeChecks()
            link.leftTalkerScan()
        if not self._members:
            return None
        self.due = now + self._step
        return self.due

    def _sort(self) -> None:
        """
        Have them in the order in which they lie in memory, as far as that is known: thousands are
        gone through three times as fast.
        """
        self._joined = 0
        self._members = dict(sorted(self._members.items(), key=lambda item: id(item[0])))
