# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Preparation}: one call of C{prepareConnection}, within a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..core.causes import ConnectFailed
from ..core.diagnosis import causeOfFailure
from ..link.usercode import cancel
from ..timing.deadline import PeerDeadline, cancelCalls

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.config import LinkConfig


PrepareConnection = Callable[[Any], object]
"""Takes the protocol of a new connection.  It may return a Deferred or a coroutine."""


class Preparation:
    """
    One call of C{prepareConnection}, which C{Limits.connectTimeout} bounds.
    """

    def __init__(
        self, config: LinkConfig, prepared: Callable[[], None], rejected: Callable[[Cause], None]
    ) -> None:
        """
        @param prepared: called when the call has ended well.
        @param rejected: called with the cause when the call has failed, or has taken too long.
        """
        self._config = config
        self._prepared = prepared
        self._rejected = rejected
        self._calling: Deferred[Any] | None = None
        self._timer: PeerDeadline | None = None
        self._over = False

    def begin(self, prepareConnection: PrepareConnection, protocol: object) -> None:
        limit = self._config.limits.connectTimeout
        if limit is not None:
            self._timer = PeerDeadline(self._config.clock, limit, self._timedOut, limit)
        self._calling = maybeDeferred(prepareConnection, protocol)
        self._calling.addCallbacks(self._succeeded, self._failed)

    def cancel(self) -> None:
        """
        Cancel the call.  Neither callback follows.
        """
        if self._finish() and self._calling is not None:
            cancel(self._calling)

    def _succeeded(self, result: object) -> None:
        if self._finish():
            self._prepared()

    def _failed(self, failure: Failure) -> None:
        if self._finish():
            self._rejected(causeOfFailure(failure.value))

    def _timedOut(self, limit: float) -> None:
        self.cancel()
        self._rejected(ConnectFailed(f"prepareConnection did not finish within {limit:g} s"))

    def _finish(self) -> bool:
        """
        End the preparation.

        @return: whether it was under way until now.
        """
        wasOver, self._over = self._over, True
        cancelCalls(self._timer)
        self._timer = None
        return not wasOver
