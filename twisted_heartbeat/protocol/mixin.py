# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatMixin}: the heartbeat of any protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IHandshakeListener
from zope.interface import implementer

from ..core.settings import Heartbeat, KeepAlive, Limits
from ..link.config import LinkConfig
from ..link.owner import UnmanagedOwner
from ..link.state import LinkState
from ..timing.monotonic import clockFor
from .delivery import MIXIN_DELIVERIES
from .idletimeout import IdleTimeoutMixin
from .mixedlink import MixedInLink
from .overrides import DeliveryCover, setOwn

if TYPE_CHECKING:
    from ..link.config import Ping
    from ..link.hooks import Hooks


UNMANAGED = UnmanagedOwner()
_NO_LIMITS = Limits.off()


@lru_cache(maxsize=256)
def _pingBehind(kind: Any) -> Ping | None:
    """
    Return the C{sendPing} of the protocol behind the mix-in, if it can be called without arguments.
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
    Return what pings over a protocol of this class; L{None} if the class has no way to.
    """
    sendPing, cached = kind.sendPing, cast(Hashable, kind)
    return _pingBehind(cached) if sendPing is HeartbeatMixin.sendPing else sendPing


@implementer(IHandshakeListener)
class HeartbeatMixin(IdleTimeoutMixin):
    """
    Watches the link of any protocol.  It stands before the protocol's own class::

        class Sensor(HeartbeatMixin, LineReceiver):
            def sendPing(self):
                self.sendLine(b"ping")

    Every received byte is life, so C{sendPing} only has to make a silent peer send some.  Without
    it silence proves nothing, and the link is watched by keepalive and send progress only.

    A factory of this package overrides the class attributes below.

    The L{idle timeout<IdleTimeoutMixin>} of Twisted's C{TimeoutMixin} is beside the heartbeat, not
    part of it.

    @cvar heartbeat: L{None} to prove nothing by silence.
    @cvar keepAlive: L{None} to leave the operating system's options alone.
    @cvar limits: L{None} for none.
    @cvar clock: the global reactor's, if L{None}.
    @ivar link: the link, from C{makeConnection} on.
    """

    heartbeat: Heartbeat | None = Heartbeat()
    keepAlive: KeepAlive | None = KeepAlive()
    limits: Limits | None = Limits()
    hooks: Hooks | None = None
    link: MixedInLink | None = None

    __last: tuple[object, LinkConfig] | None = None
    __connects: bool

    dataReceived: Callable[[bytes], None]
    connectionLost: Callable[..., None]

    def __init_subclass__(cls, **keywords: Any) -> None:
        """
        Wrap C{makeConnection} in a class in which the mix-in stands behind the protocol's own
        class, as Twisted's own protocols have their C{TimeoutMixin}.
        """
        super().__init_subclass__(**keywords)
        if cls.__isBehind():
            connect = cls.makeConnection

            @wraps(connect)
            def makeConnection(self: HeartbeatMixin, transport: Any) -> None:
                self._heartbeatConnect(transport, partial(connect, self))

            cls.makeConnection = makeConnection  # type: ignore[method-assign]
            cls.__connects = True

    @classmethod
    def __isBehind(cls) -> bool:
        """
        Whether the protocol's own class has a C{makeConnection} that hides the mix-in's.
        """
        for kind in cls.__mro__:
            if kind is HeartbeatMixin or "_HeartbeatMixin__connects" in vars(kind):
                return False
            if "makeConnection" in vars(kind) and not issubclass(kind, HeartbeatMixin):
                return True
        return False

    def sendPing(self, *arguments: Any, **keywords: Any) -> object:
        """
        Make the peer speak.  A subclass supplies this, unless the protocol behind the mix-in does.

        @return: may be a Deferred or a coroutine that gives the answer.  Its time is the round-trip
            time, and its failure is ignored.  An exception before the first C{await} ends the link.
        """
        behind = getattr(super(), "sendPing", None)
        if behind is None:
            raise NotImplementedError(f"{type(self).__name__} has no sendPing")
        return behind(*arguments, **keywords)

    def makeConnection(self, transport: Any) -> None:
        self._heartbeatConnect(transport, super().makeConnection)  # type: ignore[misc]

    def handshakeCompleted(self) -> None:
        behind = getattr(super(), "handshakeCompleted", None)
        # A protocol that does not declare the interface may mean a handshake of its own.
        kinds = type(self).__mro__
        kinds = kinds[kinds.index(HeartbeatMixin) + 1 :]
        if behind is not None and any(map(IHandshakeListener.implementedBy, kinds)):
            behind()

    # What the link calls, see L{twisted_heartbeat.protocol.interfaces.MixedIn}.

    def _heartbeatConnect(self, transport: Any, connect: Callable[[Any], object]) -> None:
        link = self.link
        if link is None or link.state is LinkState.GONE:
            link = MixedInLink(self.__config(), UNMANAGED, self, self, pingOf(type(self)))
            setOwn(self, "link", link)
        elif link.isOver(transport):
            # The mix-in is there twice, once behind the protocol's class.
            connect(transport)
            return
        for name in MIXIN_DELIVERIES:
            # An earlier connection of the same instance may have left its covers.
            cover = getattr(self, name)
            if isinstance(cover, DeliveryCover):
                cover.lift()
        link.connectionMade(transport)
        connect(transport)
        link.protocolConnected()

    def __config(self) -> LinkConfig:
        """
        Return the settings of the class's last link, unless this instance has others.  Most often
        all are alike, and thousands of links then share one object.
        """
        last, kind = self.__last, type(self)
        clock, limits, hooks = clockFor(self.clock), self.limits or _NO_LIMITS, self.hooks
        said = (kind.__name__, self.heartbeat, self.keepAlive, limits, id(clock), id(hooks))
        if last is None or said != last[0]:
            config = LinkConfig(
                clock=clock,
                heartbeat=self.heartbeat,
                keepAlive=self.keepAlive,
                limits=limits,
                hooks=hooks,
                name=kind.__name__,
            )
            # The config keeps clock and hooks alive, so no other object can have their id().
            last = kind.__last = (said, config)
        return last[1]
