# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SequenceWindow}: which sequence numbers have come, and what the network did to the others.
"""

from __future__ import annotations

SIZE = 64
"""The number of latest sequence numbers that are remembered one by one."""

_ALL = (1 << SIZE) - 1


class SequenceWindow:
    """
    A sliding window over the sequence numbers of one session, as that of IPsec (RFC 4303, 3.4.3).
    Only a number above the highest counts as news of the peer; the others are statistics.

    @ivar highest: the highest number that has come.
    @ivar received: datagrams that have come, duplicates not counted.
    @ivar reordered: those of them that came after a later one.
    @ivar duplicates: datagrams that came once more, or too late for the window to tell.
    """

    __slots__ = ("_first", "_seen", "duplicates", "highest", "received", "reordered")

    def __init__(self, first: int) -> None:
        """
        @param first: the number of the first datagram.
        """
        self._first = self.highest = first
        self._seen = 1
        self.received = 1
        self.reordered = 0
        self.duplicates = 0

    def advance(self, sequence: int) -> None:
        """
        Take a number above the highest.
        """
        step = sequence - self.highest
        # To shift by a number that a peer has chosen could take 512 MiB.
        self._seen = (self._seen << step | 1) & _ALL if step < SIZE else 1
        self.highest = sequence
        self.received += 1

    def late(self, sequence: int) -> None:
        """
        Count a number that is not above the highest.
        """
        behind = self.highest - sequence
        if behind >= SIZE or sequence < self._first or self._seen >> behind & 1:
            self.duplicates += 1
        else:
            self._seen |= 1 << behind
            self.received += 1
            self.reordered += 1

    @property
    def lost(self) -> int:
        """
        Datagrams of this session that have not come, or not yet.
        """
        return self.highest - self._first + 1 - self.received

    @property
    def loss(self) -> float:
        """
        The part of the latest L{SIZE} datagrams that has not come, from 0 to 1.
        """
        expected = min(SIZE, self.highest - self._first + 1)
        return 1 - self._seen.bit_count() / expected
