# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{IgnoredLog}: tells the log once a minute what a monitor has ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from ..link.addresses import peerName
from ..logs import WARNING_INTERVAL, SafeLogger
from .peer import addressOf

if TYPE_CHECKING:
    from ..timing.wheel import Slot, TimerWheel

_log = SafeLogger()

_WORDS = {
    "malformed": "malformed or too large",
    "unknown": "of unknown sessions, beyond the limit",
    "noKey": "without a key that is known",
    "forged": "with a wrong MAC",
    "old": "of sessions that have ended",
    "tooMany": "of peers that send too many",
    "unchallenged": "not challenged, beyond the limit",
    "noRoom": "of new peers, beyond the limit",
}
"""
What the reasons mean.  Challenges, and datagrams that the network duplicated or delayed, are no
reason to warn.
"""

_COLLECT = 1.0
"""Seconds from the first ignored datagram until the log tells of it and of those that follow."""


class IgnoredLog:
    """
    Tells the log what a monitor has ignored: a second after the first datagram, then once a minute
    as long as there are more.

    @ivar slot: belongs to the timer wheel.
    """

    def __init__(self, name: str, ignored: Mapping[str, int], wheel: TimerWheel) -> None:
        """
        @param ignored: the totals by reason, which grow.
        """
        self._name = name
        self._ignored = ignored
        self._wheel = wheel
        self._told: dict[str, int] = {}
        self._toldAt = -inf
        self._latest: Any = None
        self.slot: Slot | None = None

    def changed(self, address: Any) -> None:
        """
        Note that the totals may have grown.

        @param address: where a datagram that was ignored came from, or L{None}.
        """
        if address is not None:
            self._latest = address
        if self.slot is None:
            now = self._wheel.seconds()
            self._wheel.schedule(self, max(now + _COLLECT, self._toldAt + WARNING_INTERVAL))

    def stop(self) -> None:
        """
        Tell what has not been told, and stop.
        """
        self._wheel.discard(self)
        self._tell()

    def _tell(self) -> bool:
        counts = {
            reason: self._ignored[reason] - self._told.get(reason, 0)
            for reason in _WORDS
            if self._ignored.get(reason, 0) > self._told.get(reason, 0)
        }
        if counts:
            self._told = dict(self._ignored)
            words = ", ".join(f"{number} {_WORDS[reason]}" for reason, number in counts.items())
            latest = None if self._latest is None else peerName(addressOf(self._latest))
            _log.warn(
                "{link}: ignored datagrams: {words}; the latest came from {latest}",
                link=self._name,
                words=words,
                latest=latest,
                **counts,
            )
        return bool(counts)

    def onTimer(self, now: float, lateness: float) -> float | None:
        if self._tell():
            self._toldAt = now
        return None
