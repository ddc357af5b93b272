# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PerSecond}: a limit on how often something is done in a second.
"""

from __future__ import annotations


class PerSecond:
    """
    A limit on how often something is done in a second.
    """

    __slots__ = ("_count", "_limit", "_second")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = 0
        self._count = 0

    def allows(self, now: float) -> bool:
        """
        Count it, and return whether it may be done.
        """
        second = int(now)
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._limit
