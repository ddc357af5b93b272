# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerRecorder}: how a peer without a connection is lost, and comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred

from .. import LinkHooks
from .settings import WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Cause
    from .results import FaultResult


class PeerRecorder(LinkHooks):
    """
    Records what is told of one peer, and fills in a result.
    """

    def __init__(self, reactor: Any, say: Callable[[str, str], None], result: FaultResult) -> None:
        self._reactor = reactor
        self._say = say
        self._result = result
        self._met: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._back: Deferred[None] = Deferred()

    def connected(self, link: Any) -> None:
        self._say("connected", f"{link.name} over {link.carrier.upper()}, bound {link.bound:g} s")
        waiting = self._back if self._met.called else self._met
        if not waiting.called:
            waiting.callback(None)

    def suspected(self, link: Any) -> None:
        self._say("suspected", f"nothing received for {link.silence:.2f} s")

    def disconnected(self, link: Any, cause: Cause) -> None:
        if not self._ended.called:
            self._say("disconnected", f"{type(cause).__name__}: {cause}")
            self._result.cause, self._result.detectedAfter = type(cause), link.silence
            self._ended.callback(None)

    async def record(self, lose: Callable[[], object], restore: Callable[[], object]) -> None:
        """
        Wait for the peer, lose it, wait for its end, and let it come back.

        @param lose: does the fault.  It may return a Deferred.
        @param restore: ends the fault.
        @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}.
        """
        await self._met.addTimeout(WAIT_LIMIT, self._reactor)
        self._say("FAULT", self._result.fault)
        await maybeDeferred(lose)
        await self._ended.addTimeout(WAIT_LIMIT, self._reactor)
        backFrom = monotonic()
        restore()
        await self._back.addTimeout(WAIT_LIMIT, self._reactor)
        self._result.backAfter = monotonic() - backFrom
