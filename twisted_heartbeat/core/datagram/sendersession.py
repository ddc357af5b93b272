# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SenderSession}: what a sender says from its start to its end.

All monitors get the same heartbeats, so that the sequence numbers grow at each of them.  A
challenge is answered if it was provoked by the latest heartbeat or the one before.  An answer is
the latest heartbeat once more, with a new time and the cookie.
"""

from __future__ import annotations

from math import ceil

from ..causes import GoodbyeCode
from .packet import ACKNOWLEDGE, MAX_MILLISECONDS, Key, Malformed, Packet, Type, decode, encode
from .persecond import PerSecond

MAX_SEQUENCE = 2**32 - 2
"""The last heartbeat of a session.  Its goodbye has the next number."""

ANSWERS_PER_SECOND = 20
"""Challenges that are answered in a second.  Each may come from another monitor of a group."""


class SenderSession:
    """
    One session of a sender.  Times are seconds of its clock.

    @ivar number: tells the session from others of the sender.
    @ivar sequence: the number of the last heartbeat; 0 before the first.
    @ivar latest: that heartbeat; L{None} before the first.
    """

    def __init__(
        self, number: int, name: bytes, key: Key, keyId: int, bound: float, asks: bool
    ) -> None:
        """
        @param number: drawn at random.
        @param asks: whether the heartbeats ask for acknowledgements.
        """
        self.number = number
        self.sequence = 0
        self.latest: Packet | None = None
        self._name = name
        self._key = key
        self._keyId = keyId
        self._bound = bound
        self._flags = ACKNOWLEDGE if asks else 0
        self._answers = PerSecond(ANSWERS_PER_SECOND)

    def heartbeat(self, now: float, following: float, payload: bytes) -> bytes:
        """
        Return the next heartbeat.

        @param following: when the one after it leaves at the latest.
        """
        self.sequence += 1
        self.latest = Packet(
            type=Type.HEARTBEAT,
            flags=self._flags,
            keyId=self._keyId,
            session=self.number,
            sequence=self.sequence,
            sent=_clock(now),
            interval=_milliseconds(following - now),
            bound=_milliseconds(self._bound),
            cookie=0,
            name=self._name,
            payload=payload,
        )
        return encode(self.latest, self._key)

    def repeated(self) -> bytes | None:
        """
        Return the latest heartbeat once more; L{None} before the first.
        """
        return None if self.latest is None else encode(self.latest, self._key)

    def goodbye(self, now: float, code: GoodbyeCode, after: int | None = None) -> bytes | None:
        """
        Return a goodbye; L{None} before the first heartbeat, when there is nothing to end.

        @param after: the number of the last heartbeat that its monitor was sent; L{None} for the
            latest of all.  A monitor that goes on receiving ignores the next heartbeat, and
            challenges the one after it.
        """
        if self.latest is None:
            return None
        packet = self.latest._replace(
            type=Type.GOODBYE,
            flags=code,
            sequence=(self.sequence if after is None else after) + 1,
            sent=_clock(now),
            interval=0,
            payload=b"",
        )
        return encode(packet, self._key)

    def received(self, data: bytes) -> Packet | None:
        """
        Return the packet, if the bytes are an authentic one of this session.
        """
        try:
            packet = decode(data)
        except Malformed:
            return None
        own = self.number, self._name, self._keyId
        isMine = (packet.session, packet.name, packet.keyId) == own
        return packet if isMine and self._key.accepts(data) else None

    def answer(self, challenge: Packet, now: float, following: float) -> bytes | None:
        """
        Return the answer to a challenge; L{None} if it gets none.
        """
        latest = self.latest
        if latest is None or not 0 <= latest.sequence - challenge.sequence <= 1:
            return None
        if not self._answers.allows(now):
            return None
        packet = latest._replace(
            type=Type.ANSWER,
            sent=_clock(now),
            interval=_milliseconds(following - now),
            cookie=challenge.cookie,
        )
        return encode(packet, self._key)


def _clock(now: float) -> int:
    return int(now * 1000) & MAX_MILLISECONDS


def _milliseconds(seconds: float) -> int:
    return min(max(0, ceil(seconds * 1000)), MAX_MILLISECONDS)
