# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Ending}: what is known of a link's end, before it and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .politeclose import PoliteClose


class Ending:
    """
    Why a link ends, what is cleaned up then, and who waits for that.

    @ivar decidedAt: when it was decided, in seconds of the link's clock; L{None} until then.
    @ivar abortTurnsLeft: the reactor's, after which a transport that was told to abort is done
        without; L{None} before it was.
    @ivar graceGiven: whether the deadline that runs was put off for a last look.
    @ivar refused: whether a server did not admit the peer.
    @ivar hookFailed: whether a C{connected} hook failed.
    @ivar raised: whether the protocol raised, and that ended the link.
    @ivar speaker: another link of the connection, which speaks the built-in protocol; L{None} where
        there is none.
    @ivar cleanups: what to call, the first added first; L{None} once they have begun.
    @ivar cleaned: whether they have run.
    @ivar closing: the polite close that is under way; L{None} if there is none.
    @ivar told: whether the protocol has been told that the connection is lost.
    """

    __slots__ = (
        "_cause",
        "_diagnose",
        "_waiters",
        "cleaned",
        "cleanups",
        "closing",
        "decidedAt",
        "hookFailed",
        "graceGiven",
        "raised",
        "refused",
        "speaker",
        "told",
        "abortTurnsLeft",
    )

    def __init__(self) -> None:
        self._cause: Cause | None = None
        self._diagnose: Callable[[], Cause] | None = None
        self.decidedAt: float | None = None
        self.abortTurnsLeft: int | None = None
        self.graceGiven = False
        self.closing: PoliteClose | None = None
        self.refused = self.hookFailed = self.raised = False
        self.told = False
        self.speaker: Any = None
        self.cleanups: list[Callable[[], object]] | None = []
        self._waiters: list[Deferred[Cause]] = []
        self.cleaned = False

    @property
    def cause(self) -> Cause | None:
        """
        Why it ends; L{None} until that is decided.
        """
        if self._diagnose is not None:
            diagnose, self._diagnose = self._diagnose, None
            self._cause = diagnose()
        return self._cause

    def blame(self, cause: Cause, now: float) -> None:
        """
        The first cause wins; a later one is chained to it.
        """
        first = self.cause
        if first is None:
            self._cause = cause
            if self.decidedAt is None:
                self.decidedAt = now
        elif first is not cause and first.__cause__ is None:
            first.__cause__ = cause

    def blameLater(self, diagnose: Callable[[], Cause], now: float) -> None:
        """
        L{blame} what C{diagnose} returns, and call that when somebody asks for the cause.  To ask
        the kernel takes longer than to decide, and a thousand peers may be found dead in one tick.
        """
        self.decidedAt = now
        if self.cause is None:
            self._diagnose = diagnose
        else:
            self.blame(diagnose(), now)

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
