# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Watched}: what the observers are told about, over all carriers; and L{WatchedLink}, the same of a
link.

The log, the presence table and the metrics read nothing else of what is watched, so that they serve
all carriers: a link, the peer of a
L{UDPHeartbeatMonitor<twisted_heartbeat.datagram.monitor.UDPHeartbeatMonitor>}, a monitor as its
sender sees it, and a checked name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from ..transport.layers import findConnection, isServerSide
from ..transport.tls import certifiedNames, usesTLS
from .addresses import peerName, plainAddress

if TYPE_CHECKING:
    from ..core.settings import Heartbeat
    from ..logs import LogRateLimit
    from ..timing.wheel import TimerWheel
    from .config import LinkConfig
    from .interfaces import Session
    from .teardown import Teardown
    from .watch import PeerWatch


class Watched(Protocol):
    """
    A watched peer, over any carrier.  mypy compares each carrier's with it, in
    C{tests/typing/watched.py}.
    """

    @property
    def carrier(self) -> str:
        """
        How the peer is heard, in a word.
        """

    @property
    def source(self) -> str:
        """
        The name of the factory or service that watches; C{""} without one.
        """

    @property
    def name(self) -> str:
        """
        The peer's name; C{""} without one.  Then the presence table reads C{isServerSide} as well,
        because the peer of a client goes by the name of its service.
        """

    @property
    def isAuthenticated(self) -> bool:
        """
        Whether the peer has proven its name.
        """

    @property
    def generation(self) -> int:
        """
        The number among those of the same source; never reused.
        """

    @property
    def peer(self) -> Any:
        """
        The peer's address; L{None} if there is none.
        """

    @property
    def state(self) -> str:
        """
        One of L{LinkState<twisted_heartbeat.link.state.LinkState>}, or equal to it.
        """

    @property
    def watch(self) -> str:
        """
        How the peer is watched, in a word.
        """

    @property
    def bound(self) -> float | None:
        """
        Seconds from the peer's last word to the verdict; L{None} if its silence proves nothing.
        """

    @property
    def silence(self) -> float:
        """
        Seconds since the peer's last word, or from there to the end.
        """

    @property
    def rtt(self) -> float | None:
        """
        Seconds from the last ping to its answer; L{None} without one.
        """

    @property
    def logLimit(self) -> LogRateLimit | None:
        """
        Limits how many ends are logged; L{None} to log this one in any case.
        """

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the clock.
        """

    @property
    def seconds(self) -> Callable[[], float]:
        """
        Tells the time of the clock.
        """

    def eventFields(self) -> dict[str, object]:
        """
        Return the fields that all events of the peer have in the log.
        """


class WatchedLink:
    """
    What is L{Watched} of a link.  C{generation}, C{state} and C{logLimit} are plain attributes of
    the link.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # Link sets them.
        config: LinkConfig
        generation: int
        peerWatch: PeerWatch
        session: Session | None
        transport: Any
        _teardown: Teardown | None

    @property
    def carrier(self) -> str:
        """
        What the link runs over: C{"tls"}, C{"tcp"}, C{"unix"}, or C{"stream"} for any other
        transport, such as a child process's pipes.
        """
        if usesTLS(self.transport):
            return "tls"
        peer = self.peer
        if isinstance(peer, IPv4Address | IPv6Address):
            return "tcp"
        return "unix" if isinstance(peer, UNIXAddress) else "stream"

    @property
    def source(self) -> str:
        """
        The name of the factory or service that the link belongs to; C{""} without one.
        """
        return self.config.name or ""

    @property
    def name(self) -> str:
        """
        The name in the peer's hello, on a server; C{""} without one.
        """
        return "" if self.session is None else self.session.peerName

    @property
    def isAuthenticated(self) -> bool:
        """
        Whether the peer has proven its L{name}: this side has verified the peer's TLS certificate,
        and the certificate carries the name.
        """
        name = self.name
        return bool(name) and name in certifiedNames(self.transport)

    @property
    def isServerSide(self) -> bool:
        """
        Whether a port of this process has accepted the connection.
        """
        return isServerSide(findConnection(self.transport))

    @property
    def peer(self) -> Any:
        """
        The peer's address; L{None} before there is a connection, and for transports without one,
        such as a child process's.  An IPv4 address that the socket has mapped into IPv6 is an IPv4
        address here.
        """
        getPeer = getattr(self.transport, "getPeer", None)
        try:
            return None if getPeer is None else plainAddress(getPeer())
        except BaseException:
            # The transport of Twisted's ProcessEndpoint raises NotImplementedError.
            return None

    @property
    def watch(self) -> str:
        """
        How the peer is watched: C{"ping"}, C{"passive"}, or C{"keepalive"} if no ping can make the
        peer speak, so that its silence proves nothing.
        """
        return self.peerWatch.kind

    @property
    def heartbeat(self) -> Heartbeat | None:
        """
        The interval and timeout in force; L{None} if the peer's silence proves nothing.
        """
        return self.peerWatch.heartbeat

    @property
    def bound(self) -> float | None:
        """
        Seconds from the last received byte to the verdict; L{None} if the peer's silence proves
        nothing.
        """
        heartbeat = self.peerWatch.heartbeat
        return None if heartbeat is None or self.watch == "keepalive" else heartbeat.bound

    @property
    def silence(self) -> float:
        """
        Seconds from the last received byte until now, or until the link's cause was known.
        """
        decidedAt = None if self._teardown is None else self._teardown.decidedAt
        until = self.config.seconds() if decidedAt is None else decidedAt
        return max(0.0, until - self.peerWatch.detector.heardAt)

    @property
    def rtt(self) -> float | None:
        """
        Seconds from the last ping to its answer; L{None} before the first.
        """
        return self.peerWatch.detector.rtt

    @property
    def seconds(self) -> Callable[[], float]:
        """
        The clock's C{seconds}.
        """
        return self.config.seconds

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the clock.
        """
        return self.config.wheel

    def eventFields(self) -> dict[str, object]:
        """
        Return the fields that all events of the link have in the log.
        """
        peer, heartbeat = self.peer, self.peerWatch.heartbeat
        return {
            "carrier": self.carrier,
            "generation": self.generation,
            "peer": None if peer is None else peerName(peer),
            "silence": round(self.silence, 3),
            "bound": None if heartbeat is None else heartbeat.bound,
        }
