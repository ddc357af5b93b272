# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeldInput}: what a peer has said before it was admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..link.link import Link


_OVERHEAD = 64
"""Bytes that an object takes besides its data: a flood of empty messages is no free memory."""


class HeldInput:
    """
    What a peer has said before it was admitted, in order: frames, or chunks of bytes.

    When it is more than the limit, the link stops to read until the input is delivered.
    """

    __slots__ = ("_link", "_maxSize", "_paused", "_pieces", "_size")

    def __init__(self, link: Link, maxSize: int | None) -> None:
        """
        @param maxSize: bytes, after which no more is read; L{None} for any number.
        """
        self._link = link
        self._maxSize = maxSize
        # An empty deque has room for 64 pieces, and thousands of peers may come at once.
        self._pieces: list[Any] = []
        self._size = 0
        self._paused = False

    def keep(self, piece: Any, size: int) -> None:
        """
        Keep a frame or a chunk.

        @param size: the bytes of its data.
        """
        self._pieces.append(piece)
        self._size += size + _OVERHEAD
        if self._maxSize is not None and self._size > self._maxSize and not self._paused:
            self._paused = True
            self._link.peerWatch.pause()

    def release(self, deliver: Callable[[Any], None]) -> None:
        """
        Deliver all pieces in order, and read again.  Stop when the link is up no longer.
        """
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            if not self._link.isUp:
                return
            deliver(piece)
        if self._paused and self._link.isUp:
            self._link.peerWatch.resume()
