# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Held}: what a peer has said before it was admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..link.link import Link


_OVERHEAD = 64
"""Bytes that anything takes which is kept, beside its own."""


class Held:
    """
    What a peer has said before it is admitted.
    """

    __slots__ = ("_link", "_most", "_paused", "_pieces", "_size")

    def __init__(self, link: Link, most: int | None) -> None:
        """
        @param most: bytes, after which no more is read; L{None} for any number.
        """
        self._link = link
        self._most = most
        # No deque: that has room for 64 from the first one on, and many may come at once.
        self._pieces: list[Any] = []
        self._size = 0
        self._paused = False

    def keep(self, piece: Any, size: int) -> None:
        """
        Keep one more.
        """
        self._pieces.append(piece)
        self._size += size + _OVERHEAD
        if self._most is not None and self._size > self._most and not self._paused:
            self._paused = True
            self._link.pause()

    def release(self, deliver: Callable[[Any], None]) -> None:
        """
        Deliver all, in order, and read on.
        """
        while self._pieces and self._link.isUp:
            deliver(self._pieces.pop(0))
        if self._paused and self._link.isUp:
            self._link.resume()
