# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{RequestRate}: how many requests each of many senders may make in a minute.
"""

from __future__ import annotations

from collections import OrderedDict


class RequestRate:
    """
    A limit of requests for each key, such as an address.

    It is the generic cell rate algorithm (ITU-T I.371): a key's state is one number, the time at
    which its allowance is whole again.  A key may make a minute's requests at once, and from then
    on one in each share of a minute.

    Keys are the peers' choice.  Of more than C{keys} of them, the key that was seen longest ago is
    forgotten, and has its whole allowance when it comes again.

    @ivar keys: how many of them are known at a time.
    """

    __slots__ = ("_share", "_wholeAt", "keys")

    MINUTE = 60.0

    def __init__(self, perMinute: int, keys: int) -> None:
        self._share = self.MINUTE / perMinute
        self.keys = keys
        self._wholeAt: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wholeAt)

    def spend(self, key: str, now: float) -> float:
        """
        Count a request.

        @param now: seconds.
        @return: 0 if it is allowed; otherwise the seconds after which the next one will be.  A
            request that is not allowed is not counted.
        """
        wholeAt = max(now, self._wholeAt.get(key, now)) + self._share
        excess = wholeAt - now - self.MINUTE
        # The sum of many shares is not exact.
        if excess > self._share / 1000:
            return excess
        self._wholeAt[key] = wholeAt
        self._wholeAt.move_to_end(key)
        while len(self._wholeAt) > self.keys:
            self._wholeAt.popitem(last=False)
        return 0.0
