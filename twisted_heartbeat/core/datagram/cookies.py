# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Cookies}: challenges without memory.

I{Problem.}  A monitor that has just started knows no sequence numbers.  A recorded heartbeat of a
dead peer is authentic, and would make the peer look alive.  A monitor that kept a random number for
each unknown sender could be made to fill its memory.

I{Idea.}  The challenge is a cookie that the monitor can compute again: a MAC, by a secret of this
monitor's, over the sender's address, key, name and session, and the time.  Only a sender that lives
now, has the key, and receives at that address can answer.  (SYN cookies, RFC 4987; stateless
retries of DTLS, RFC 6347.)

I{Invariants.}  The secret is drawn at each start, so that no cookie outlives the monitor.  A cookie
is valid in the slot of time in which it was made and in the next, so for 5 to 10 seconds.
"""

from __future__ import annotations

from .packet import Key

LIFE = 10.0
"""Seconds for which a cookie is valid at most."""

_SLOT = LIFE / 2


class Cookies:
    """
    Makes and checks the cookies of one monitor.
    """

    def __init__(self, secret: bytes) -> None:
        """
        @param secret: random bytes, drawn at this start.
        """
        self._key = Key(secret)

    def make(
        self, address: object, keyId: int, name: bytes, session: int, now: float, slots: int = 0
    ) -> int:
        """
        Return the cookie for a sender.  It is never 0, which stands for none.

        @param address: the sender's, as anything whose C{repr} tells it from others.
        @param slots: by how many slots of time the cookie is older.
        """
        slot = int(now / _SLOT) - slots
        facts = repr((address, keyId, name, session, slot)).encode()
        return int.from_bytes(self._key.mac(facts)[:8], "big") or 1

    def accepts(
        self, cookie: int, address: object, keyId: int, name: bytes, session: int, now: float
    ) -> bool:
        """
        Whether this cookie was made for this sender within L{LIFE}.
        """
        facts = (address, keyId, name, session, now)
        return cookie in (self.make(*facts), self.make(*facts, slots=1))
