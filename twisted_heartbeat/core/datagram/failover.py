# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Failover}: which monitors of a list a sender reports to.
"""

from __future__ import annotations

from collections.abc import Sequence

RETURN_AFTER = 3
"""Heartbeats in a row that the first monitor has to acknowledge before the sender returns to it."""


class Failover:
    """
    Which monitors of a list a sender reports to: the first that is well, or all.

    @ivar current: the index of that monitor; of all, 0.
    """

    __slots__ = ("_all", "_count", "current")

    def __init__(self, count: int, all: bool) -> None:
        """
        @param all: whether the sender reports to all, so that it never moves.
        """
        self._count = count
        self._all = all
        self.current = 0

    @property
    def targets(self) -> Sequence[int]:
        """
        The monitors that get the next heartbeat: the current one, and the first to find out whether
        it is well again; or all.
        """
        if self._all:
            return range(self._count)
        return (self.current,) if self.current == 0 else (self.current, 0)

    def silent(self, index: int) -> bool:
        """
        Note that a monitor is silent.

        @return: whether the sender now reports to another.
        """
        if self._all or index != self.current or self._count == 1:
            return False
        self.current = (index + 1) % self._count
        return True

    def answered(self, index: int, inRow: int) -> bool:
        """
        Note that a monitor has acknowledged.

        @return: whether the sender now returns to the first.
        """
        if index == 0 != self.current and inRow >= RETURN_AFTER:
            self.current = 0
            return True
        return False
