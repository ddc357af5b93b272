# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Handshake}: what has to come before a link is up: the TLS handshake, and the header of a load
balancer.  Both have to come within C{Limits.connectTimeout}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.causes import HandshakeFailed
from ..transport.proxyheader import awaitHeader, awaitsHeader
from ..transport.tls import (
    flushHandshakeBuffer,
    forwardHandshake,
    handshakeRejected,
    isHandshakingTLS,
)
from .state import LinkState

if TYPE_CHECKING:
    from ..timing.wheel import Slot
    from .link import Link


class Handshake:
    """
    The handshake of one link, from its connection until the link is up or ends.
    """

    __slots__ = ("_graceGiven", "_limit", "_link", "slot")

    @staticmethod
    def isNeeded(transport: object) -> bool:
        """
        Whether a link over this transport has anything to wait for.
        """
        return isHandshakingTLS(transport) or awaitsHeader(transport)

    def __init__(self, link: Link) -> None:
        self._link: Link | None = link
        self._graceGiven = False
        self._limit = link.config.limits.connectTimeout
        self.slot: Slot | None = None

    def begin(self) -> None:
        """
        Wait, and start the timer.
        """
        link = self._link
        assert link is not None
        transport, config = link.transport, link.config
        if awaitHeader(transport, self._proceed) and config.proxied is not None:
            config.proxied(link)
        if isHandshakingTLS(transport):
            forwardHandshake(transport, link.outerProtocol)
        link.state = LinkState.HANDSHAKING
        if self._limit is not None:
            config.wheel.schedule(self, config.seconds() + self._limit)

    def completed(self) -> None:
        """
        Note that the TLS handshake is complete.
        """
        link = self._link
        if link is not None and not handshakeRejected(link.transport):
            flushHandshakeBuffer(link.transport)
            self._proceed()

    def _proceed(self) -> None:
        """
        Tell the link that it is up, unless one of the two has not come yet.
        """
        link = self._link
        if link is not None and not self.isNeeded(link.transport):
            self.cancel()
            link.handshakeOver()

    def cancel(self) -> None:
        """
        Wait no more.
        """
        link, self._link = self._link, None
        if link is not None:
            link.config.wheel.cancel(self)

    def onTimer(self, now: float, lateness: float) -> float | None:
        link, limit = self._link, self._limit
        if link is None or limit is None:
            return None
        if not isHandshakingTLS(link.transport):
            # Not every layer above TLS tells of the handshake.
            self.completed()
        if link.state is not LinkState.HANDSHAKING:
            return None
        if not self._graceGiven:
            # The reactor reads once more first.  A process that did not run gets that time again.
            self._graceGiven = True
            return now + min(lateness, limit)
        handshaking = isHandshakingTLS(link.transport)
        what = "TLS handshake" if handshaking else "header of a load balancer"
        cause = HandshakeFailed(f"no {what} within {limit:g} s")
        link.abort(cause.withLimit("connectTimeout"))
        return None
