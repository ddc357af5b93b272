# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HandshakeTimeout}: limits how long a link waits for its TLS handshake, or for the header of a load
balancer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.causes import HandshakeFailed
from .state import LinkState

if TYPE_CHECKING:
    from ..timing.wheel import Slot
    from .link import Link


class HandshakeTimeout:
    """
    A timer that aborts a link that is still C{handshaking} after C{Limits.connectTimeout}.
    """

    __slots__ = ("_graceGiven", "_limit", "_link", "slot")

    def __init__(self, link: Link, limit: float) -> None:
        """
        Start the timer.

        @param limit: seconds.
        """
        self._link: Link | None = link
        self._limit = limit
        self._graceGiven = False
        self.slot: Slot | None = None
        link.wheel.schedule(self, link.seconds() + limit)

    def cancel(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.wheel.cancel(self)

    def onTimer(self, now: float, lateness: float) -> float | None:
        link = self._link
        if link is None:
            return None
        if not link.isHandshakingTLS:
            # Not every layer above TLS tells of the handshake.
            link.handshakeCompleted()
        if link.state is not LinkState.HANDSHAKING:
            return None
        if not self._graceGiven:
            # The reactor reads once more first.  A process that did not run gets that time again.
            self._graceGiven = True
            return now + min(lateness, self._limit)
        what = "TLS handshake" if link.isHandshakingTLS else "header of a load balancer"
        link.abort(HandshakeFailed(f"no {what} within {self._limit:g} s"))
        return None
