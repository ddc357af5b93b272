# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Backlog}: the last changes of a table, in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..core.presence import Change


class Backlog:
    """
    The last changes, in memory.

    @ivar base: all changes with a number above this one are here.
    """

    def __init__(self, base: int, limit: int) -> None:
        """
        @param limit: changes that are kept; up to a tenth more may be.
        """
        self.base = base
        self._limit = limit
        self._changes: list[Change] = []

    @property
    def latest(self) -> int:
        """
        The number of the last change.
        """
        return self._changes[-1].number if self._changes else self.base

    def extend(self, changes: Iterable[Change]) -> None:
        """
        Add changes, whose numbers are above those of all others.
        """
        self._changes += changes
        excess = len(self._changes) - self._limit
        if excess > self._limit // 10:
            self.base = self._changes[excess - 1].number
            del self._changes[:excess]

    def after(self, number: int, limit: int | None = None) -> list[Change]:
        """
        Return the changes above a number, in order, at most C{limit} of them.
        """
        first = bisect_right(self._changes, number, key=_numberOfChange)
        return self._changes[first : None if limit is None else first + limit]


def _numberOfChange(change: Change) -> int:
    return change.number
