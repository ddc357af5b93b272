# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{IdleTimeoutMixin}: Twisted's C{TimeoutMixin}, cheaper and with an end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.protocols.policies import TimeoutMixin

from ..core.causes import PeerSilent
from ..timing.deadline import cancelCalls
from ..timing.monotonic import clockFor
from ..transport.layers import abort

if TYPE_CHECKING:
    from ..link.link import Link


class IdleTimeoutMixin(TimeoutMixin):
    """
    C{timeOut}, C{setTimeout}, C{resetTimeout} and C{timeoutConnection} mean what they mean in
    Twisted's C{TimeoutMixin}, except that C{resetTimeout} costs one assignment and
    C{timeoutConnection} aborts.
    """

    clock: IReactorTime | None = None
    link: Any = None

    __call: IDelayedCall | None = None
    __resetAt = 0.0
    __lastLookFor: float | None = None
    __seconds: Callable[[], float] = staticmethod(monotonic)
    __closeCall: IDelayedCall | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """
        Leave C{setTimeout} and C{resetTimeout} to a base that stands behind this one and has its
        own, as Twisted's own protocols may.
        """
        super().__init_subclass__(**keywords)
        for name in ("setTimeout", "resetTimeout"):
            behind = getattr(super(), name)
            hidden = getattr(cls, name) is getattr(IdleTimeoutMixin, name)
            if hidden and behind is not getattr(TimeoutMixin, name):
                setattr(cls, name, behind)

    def __behind(self, name: str) -> Callable[..., Any] | None:
        """
        Return the method of this name of the protocol behind the mix-in; L{None} if there is none
        but C{TimeoutMixin}'s.
        """
        method = getattr(super(), name, None)
        replaced = getattr(TimeoutMixin, name, None)
        return None if getattr(method, "__func__", method) is replaced else method

    def callLater(
        self, period: float, func: Callable[..., object], *arguments: object
    ) -> IDelayedCall:
        behind = self.__behind("callLater")
        if behind is not None:
            return behind(period, func, *arguments)  # type: ignore[no-any-return]
        return clockFor(self.clock).callLater(period, func, *arguments)

    def resetTimeout(self) -> None:
        self.__resetAt = self.__seconds()

    def setTimeout(self, period: float | None) -> float | None:
        """
        Start, change or stop the timeout.

        @param period: seconds, or L{None} for no timeout.
        @return: the period before.
        """
        before: float | None = self.timeOut
        self.timeOut = period  # type: ignore[assignment]
        if period is None:
            self.__cancel()
        elif self.__call is None:
            self.__start(period)
            self.resetTimeout()
        else:
            self.resetTimeout()
            self.__call.reset(period)
        return before

    def timeoutConnection(self) -> None:
        """
        Abort, because C{timeOut} seconds have passed without C{resetTimeout}.  If the protocol
        behind the mix-in has this method, that is called instead.  The link is then aborted after
        C{Limits.closeTimeout} unless it has ended, or C{setTimeout} was called again.
        """
        behind = self.__behind("timeoutConnection")
        if behind is not None:
            behind()
        elif self.link is not None:
            self.link.abort(self.__cause())
        else:
            abort(self.transport)  # type: ignore[attr-defined]

    def __cause(self) -> PeerSilent:
        return PeerSilent(f"resetTimeout was not called for {self.timeOut or 0.0:g} s")

    def __start(self, delay: float) -> None:
        call = self.__call = self.callLater(delay, self.__passed)
        # A callLater of the application's brings the application's clock with it.
        self.__seconds = getattr(call, "seconds", self.__seconds)

    def __cancel(self) -> None:
        cancelCalls(self.__call)
        self.__call = None

    def _heartbeatEnded(self) -> None:
        """
        Cancel all delayed calls, because the connection is lost.
        """
        if self.__call is not None or self.__closeCall is not None:
            cancelCalls(self.__call, self.__closeCall)
            self.__call = self.__closeCall = None

    def __passed(self) -> None:
        call, self.__call = self.__call, None
        if self.timeOut is None:
            return
        # The application's callLater may return nothing, as with TimeoutMixin. Then its clock is
        # not known, and the call is on time.
        left = 0.0
        if call is not None:
            left = self.__resetAt + self.timeOut - self.__seconds()
        # Sums of floats are wrong by less than a nanosecond.
        if left > 1e-9:
            self.__start(left)
            return
        if self.__lastLookFor != self.__resetAt:
            # The reactor reads once more first, because what came in time may call resetTimeout.
            self.__lastLookFor = self.__resetAt
            self.__start(0.0)
            return
        link, cause = self.link, self.__cause()
        self.timeoutConnection()
        if link is not None:
            self.__abortAfterClose(link, cause)

    def __abortAfterClose(self, link: Link, cause: PeerSilent) -> None:
        """
        Abort the link after C{Limits.closeTimeout}.  The protocol has been told to close the
        connection in its own way, which a dead peer may never answer.
        """
        if link.state.isEnding or self.__call is not None:
            return
        limit = link.config.limits.closeTimeout
        if limit is not None:
            link.recordCause(cause)
            # Without arguments, because an application's callLater may take none.
            self.__closeCall = self.callLater(limit, partial(link.abort, cause))
