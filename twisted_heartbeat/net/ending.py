# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Ending}: what is known of a link's end, before it and after.

Apart from the link, because most of thousands of links are far from theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from ..core.causes import Cause


class Ending:
    """
    Why a link ends, what is cleaned up then, and who waits for that.

    @ivar cause: why; L{None} until it is known.
    @ivar decidedAt: when that was known, in seconds of the link's clock; L{None} until then.
    @ivar turnsLeft: the reactor's, after which a transport that was told to abort is done without;
        L{None} before it was.
    @ivar refused: whether a server did not admit the peer.
    @ivar hookFailed: whether a C{connected} hook failed.
    @ivar raised: whether the protocol raised, and that ended the link.
    @ivar cleanups: what to call, the first added first; L{None} once they have begun.
    @ivar cleaned: whether they have run.
    """

    __slots__ = (
        "_waiters",
        "cause",
        "cleaned",
        "cleanups",
        "decidedAt",
        "hookFailed",
        "raised",
        "refused",
        "turnsLeft",
    )

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.decidedAt: float | None = None
        self.turnsLeft: int | None = None
        self.refused = self.hookFailed = self.raised = False
        self.cleanups: list[Callable[[], object]] | None = []
        self._waiters: list[Deferred[Cause]] = []
        self.cleaned = False

    def blame(self, cause: Cause, now: float) -> None:
        """
        The first cause wins; a later one is chained to it.
        """
        if self.cause is None:
            self.cause = cause
            if self.decidedAt is None:
                self.decidedAt = now
        elif self.cause is not cause and self.cause.__cause__ is None:
            self.cause.__cause__ = cause

    def whenCleaned(self) -> Deferred[Cause]:
        """
        Fires with the cause once the cleanups have run.
        """
        waiter: Deferred[Cause] = Deferred(self._letGo)
        self._waiters.append(waiter)
        if self.cleaned:
            self.tell()
        return waiter

    def tell(self) -> None:
        """
        The cleanups have run.
        """
        self.cleaned = True
        waiters, self._waiters = self._waiters, []
        assert self.cause is not None
        for waiter in waiters:
            # The callback of one may have cancelled another.
            if not waiter.called:
                waiter.callback(self.cause)

    def _letGo(self, cancelled: Deferred[Cause]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter is not cancelled]
