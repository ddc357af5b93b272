# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatMixin}: the heartbeat of any protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from inspect import signature
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.protocols.policies import TimeoutMixin
from zope.interface import implementer

from ..core.causes import PeerSilent
from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig
from ..link.owner import UnmanagedOwner
from ..timing.deadline import cancelCalls
from ..timing.monotonic import clockFor
from ..transport.layers import abort
from .delivery import MIXIN_DELIVERIES
from .mixedlink import MixedInLink
from .overrides import _Cover, _put

if TYPE_CHECKING:
    from ..link.config import Ping
    from ..link.hooks import Hooks
    from ..link.link import Link


UNMANAGED = UnmanagedOwner()
_NO_LIMITS = Limits.off()


@lru_cache(maxsize=256)
def _pingBehind(kind: Any) -> Ping | None:
    """
    The C{sendPing} of the protocol behind the mix-in, if it can be called without arguments.
    """
    sendPing: Ping | None = getattr(super(HeartbeatMixin, kind), "sendPing", None)
    if sendPing is None:
        return None
    try:
        signature(sendPing).bind(None)
    except (TypeError, ValueError):
        return None
    return sendPing


def pingOf(kind: type[HeartbeatMixin]) -> Ping | None:
    """
    How to ping over a protocol of this class; L{None} if it does not say.
    """
    sendPing, cached = kind.sendPing, cast(Hashable, kind)
    return _pingBehind(cached) if sendPing is HeartbeatMixin.sendPing else sendPing


@implementer(IHandshakeListener)
class HeartbeatMixin(TimeoutMixin):
    """
    Watches the link of any protocol that it is mixed into, before the protocol's own class::

        class Sensor(HeartbeatMixin, LineReceiver):
            def sendPing(self):
                self.sendLine(b"ping")

    Every received byte is life; C{sendPing} only has to make a silent peer send some.  Without it
    silence proves nothing, and the link is watched by keepalive and send progress only.

    The class attributes below hold where no factory of this package says otherwise.

    C{timeOut}, C{setTimeout}, C{resetTimeout} and C{timeoutConnection} mean what they mean in
    Twisted's C{TimeoutMixin}, but that C{resetTimeout} costs one assignment and
    C{timeoutConnection} aborts.  They are beside the heartbeat, not part of it.

    @ivar link: the link, from C{makeConnection} on.
    """

    heartbeat: Heartbeat | None = Heartbeat()
    keepAlive: KeepAlive | None = KeepAlive()
    limits: Limits | None = Limits()
    hooks: Hooks | None = None
    clock: IReactorTime | None = None

    link: MixedInLink | None = None

    __last: tuple[object, LinkConfig] | None = None
    __connects: bool

    dataReceived: Callable[[bytes], None]
    connectionLost: Callable[..., None]

    __timeoutCall: IDelayedCall | None = None
    __timeoutFrom = 0.0
    __lookedAgainFor: float | None = None
    __timeoutSeconds: Callable[[], float] = staticmethod(monotonic)
    __closeCall: IDelayedCall | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """
        Take the mix-in's place in a class in which it stands behind the protocol's own, as
        Twisted's own protocols have their C{TimeoutMixin}.
        """
        super().__init_subclass__(**keywords)
        for name in ("setTimeout", "resetTimeout"):
            behind = getattr(super(), name)
            hidden = getattr(cls, name) is getattr(HeartbeatMixin, name)
            if hidden and behind is not getattr(TimeoutMixin, name):
                setattr(cls, name, behind)
        if cls.__isBehind():
            connect = cls.makeConnection

            @wraps(connect)
            def makeConnection(self: HeartbeatMixin, transport: Any) -> None:
                self.__connect(transport, partial(connect, self))

            cls.makeConnection = makeConnection  # type: ignore[method-assign]
            cls.__connects = True

    @classmethod
    def __isBehind(cls) -> bool:
        """
        Whether C{makeConnection} is found in the protocol's own class, before the mix-in's.
        """
        for kind in cls.__mro__:
            if kind is HeartbeatMixin or "_HeartbeatMixin__connects" in vars(kind):
                return False
            if "makeConnection" in vars(kind) and not issubclass(kind, HeartbeatMixin):
                return True
        return False

    def sendPing(self, *arguments: Any, **keywords: Any) -> object:
        """
        Make the peer speak.  What a subclass supplies, if the protocol behind the mix-in has none.

        @return: may be a Deferred or a coroutine that gives the answer; it is used for the
            round-trip time only, and its failure is no error.  What is raised before anything is
            waited for ends the link.
        """
        behind = self.__behind("sendPing")
        if behind is None:
            raise NotImplementedError(f"{type(self).__name__} has no sendPing")
        return behind(*arguments, **keywords)

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        self.__connect(transport, super().makeConnection)  # type: ignore[misc]

    def handshakeCompleted(self) -> None:
        """
        See C{IHandshakeListener}.  Override it as you like.
        """
        behind = self.__behind("handshakeCompleted")
        # A protocol that does not declare the interface may mean a handshake of its own.
        kinds = type(self).__mro__
        kinds = kinds[kinds.index(HeartbeatMixin) + 1 :]
        if behind is not None and any(map(IHandshakeListener.implementedBy, kinds)):
            behind()

    def __behind(self, name: str) -> Callable[..., Any] | None:
        """
        The method of this name of the protocol behind the mix-in; L{None} if it has none but
        C{TimeoutMixin}'s.
        """
        method = getattr(super(), name, None)
        replaced = getattr(TimeoutMixin, name, None)
        return None if getattr(method, "__func__", method) is replaced else method

    def __connect(self, transport: Any, connect: Callable[[Any], object]) -> None:
        link = self.link
        if link is None or link.state == "gone":
            link = MixedInLink(self.__terms(), UNMANAGED, self, self, pingOf(type(self)))
            _put(self, "link", link)
        elif link.isOver(transport):
            # The mix-in is there twice, once behind the protocol's class.
            connect(transport)
            return
        for name in MIXIN_DELIVERIES:
            # What an earlier connection of the same instance has left.
            cover = getattr(self, name)
            if isinstance(cover, _Cover):
                cover.lift(self)
        link.connectionMade(transport)
        connect(transport)
        link.protocolConnected()

    def __terms(self) -> LinkConfig:
        """
        Those of the class's last link, where nothing else is said here: most often all are alike.
        """
        last, kind = self.__last, type(self)
        clock, limits, hooks = clockFor(self.clock), self.limits or _NO_LIMITS, self.hooks
        said = (kind.__name__, self.heartbeat, self.keepAlive, limits, id(clock), id(hooks))
        if last is None or said != last[0]:
            terms = LinkConfig(
                clock=clock,
                heartbeat=self.heartbeat,
                keepAlive=self.keepAlive,
                limits=limits,
                hooks=hooks,
                name=kind.__name__,
            )
            # Held by the terms, the clock and the hooks are no others as long as this is here.
            last = kind.__last = (said, terms)
        return last[1]

    # The TimeoutMixin's part.

    def callLater(
        self, period: float, func: Callable[..., object], *arguments: object
    ) -> IDelayedCall:
        """
        See C{TimeoutMixin.callLater}.
        """
        behind = self.__behind("callLater")
        if behind is not None:
            return behind(period, func, *arguments)  # type: ignore[no-any-return]
        return clockFor(self.clock).callLater(period, func, *arguments)

    def resetTimeout(self) -> None:
        """
        See C{TimeoutMixin.resetTimeout}.
        """
        self.__timeoutFrom = self.__timeoutSeconds()

    def setTimeout(self, period: float | None) -> float | None:
        """
        See C{TimeoutMixin.setTimeout}.

        @param period: seconds, or L{None} for no timeout.
        @return: the period before.
        """
        before: float | None = self.timeOut
        self.timeOut = period  # type: ignore[assignment]
        if period is None:
            self.__cancelTimeout()
        elif self.__timeoutCall is None:
            self.__startTimeout(period)
            self.resetTimeout()
        else:
            self.resetTimeout()
            self.__timeoutCall.reset(period)
        return before

    def timeoutConnection(self) -> None:
        """
        Called when C{timeOut} seconds have passed without C{resetTimeout}: abort.  If the protocol
        behind the mix-in has such a method, that is called instead, and the link is aborted after
        C{Limits.closeTimeout} unless it has ended, or C{setTimeout} was called again.
        """
        behind = self.__behind("timeoutConnection")
        if behind is not None:
            behind()
        elif self.link is not None:
            self.link.abort(self.__timeoutCause())
        else:
            abort(self.transport)  # type: ignore[attr-defined]

    def __timeoutCause(self) -> PeerSilent:
        return PeerSilent(f"resetTimeout was not called for {self.timeOut or 0.0:g} s")

    def __abortAfterClose(self, link: Link, cause: PeerSilent) -> None:
        """
        The protocol has been told to close the connection in its own way, which a dead peer may
        never answer.
        """
        if link.state.isEnding or self.__timeoutCall is not None:
            return
        limit = link.closeTimeout
        if limit is not None:
            link.recordCause(cause)
            # Without arguments, because a callLater in the manner of TimeoutMixin's takes none.
            self.__closeCall = self.callLater(limit, partial(link.abort, cause))

    def __startTimeout(self, delay: float) -> None:
        call = self.__timeoutCall = self.callLater(delay, self.__timeoutPassed)
        # Who brings a callLater of its own brings its clock with it.
        self.__timeoutSeconds = getattr(call, "seconds", self.__timeoutSeconds)

    def __cancelTimeout(self) -> None:
        cancelCalls(self.__timeoutCall)
        self.__timeoutCall = None

    def __connectionEnded(self) -> None:
        self.__cancelTimeout()
        cancelCalls(self.__closeCall)
        self.__closeCall = None

    def __timeoutPassed(self) -> None:
        call, self.__timeoutCall = self.__timeoutCall, None
        if self.timeOut is None:
            return
        # The application's callLater may return nothing, as with TimeoutMixin. Then its clock is
        # not known, and the call is on time.
        left = 0.0
        if call is not None:
            left = self.__timeoutFrom + self.timeOut - self.__timeoutSeconds()
        # Sums of floats: a nanosecond is no time.
        if left > 1e-9:
            self.__startTimeout(left)
            return
        if self.__lookedAgainFor != self.__timeoutFrom:
            # The reactor reads once more first: what came in time may call resetTimeout.
            self.__lookedAgainFor = self.__timeoutFrom
            self.__startTimeout(0.0)
            return
        link, cause = self.link, self.__timeoutCause()
        self.timeoutConnection()
        if link is not None:
            self.__abortAfterClose(link, cause)
