# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SharedPing}: the pings and pongs that many links share, as bare headers.
"""

from __future__ import annotations

from .frames import _U32, packPing, packPong, toTenths


class SharedPing:
    """
    What links ping with that promise the same: all pings of one instant are the same bytes, and so
    are the pongs that they ask for.

    @ivar ping: the bytes of the ping; none before the first instant.
    @ivar pong: those of its pong.
    """

    __slots__ = ("_tenths", "_token", "ping", "pong")

    def __init__(self, hold: float) -> None:
        """
        @param hold: as L{Ping.hold}.
        """
        self._tenths = toTenths(hold)
        self._token = 0
        self.ping = self.pong = b""

    def advance(self) -> None:
        """
        Go on to another instant.
        """
        # Never 0, which is the token of a pong that nobody has asked for.
        token = self._token = self._token % _U32 + 1
        self.ping = packPing(token, self._tenths)
        self.pong = packPong(token)
