# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SharedPing}: the pings and pongs that many links share, as bare headers.
"""

from __future__ import annotations

from .frames import _PING, _PONG, _U32, VERSION, _pack, toTenths


class SharedPing:
    """
    The ping of all links with the same hold.  At one instant they all send the same bytes, and
    expect the same pong.

    @ivar ping: the bytes of the present ping; empty before the first L{advance}.
    @ivar pong: the bytes of the pong that answers it.
    """

    __slots__ = ("_tenths", "_token", "ping", "pong")

    def __init__(self, hold: float) -> None:
        """
        @param hold: seconds for which the sender may stay silent after each ping.
        """
        self._tenths = toTenths(hold)
        self._token = 0
        self.ping = self.pong = b""

    def advance(self) -> None:
        """
        Make the ping of the next instant.
        """
        # Never 0, which is the token of an unsolicited pong.
        token = self._token = self._token % _U32 + 1
        # Without checks, because one timer may send thousands.
        self.ping = _pack(VERSION, _PING, self._tenths, token, 0)
        self.pong = _pack(VERSION, _PONG, 0, token, 0)
