# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DatagramPeer}: one peer of a monitor, as the hooks see it; and L{addressOf}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address

from ..core.datagram.packet import Packet
from ..core.datagram.registry import NO_KEY
from ..core.datagram.session import PeerSession
from ..link.addresses import peerName, plainAddress
from ..link.state import LinkState

if TYPE_CHECKING:
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot, TimerWheel
    from .monitor import UDPHeartbeatMonitor


def addressOf(address: Any) -> IPv4Address | IPv6Address:
    """
    Return the address object for a socket's C{(host, port)}.
    """
    host, port = address[0], address[1]
    made = IPv6Address("UDP", host, port) if ":" in host else IPv4Address("UDP", host, port)
    found: IPv4Address | IPv6Address = plainAddress(made)
    return found


class DatagramPeer(PeerSession):
    """
    One peer of a monitor, in one session.  It has the attributes of a
    L{Link<twisted_heartbeat.Link>} that concern a peer.

    @ivar generation: the number among the sessions of the same monitor; never reused.
    @ivar slot: belongs to the timer wheel.
    """

    __slots__ = ("_monitor", "generation", "slot")

    carrier = "udp"
    watch = "datagrams"
    isServerSide = True
    rtt: float | None = None
    logLimit: LogRateLimit | None = None

    def __init__(
        self,
        monitor: UDPHeartbeatMonitor,
        generation: int,
        packet: Packet,
        address: object,
        bound: float,
        now: float,
    ) -> None:
        super().__init__(packet, address, bound, now)
        self._monitor = monitor
        self.generation = generation
        self.slot: Slot | None = None

    def __repr__(self) -> str:
        return f"<DatagramPeer {self.generation} {self.name!r} {self.state}>"

    @property
    def source(self) -> str:
        """
        The name of the monitor.
        """
        return self._monitor.source

    @property
    def peer(self) -> IPv4Address | IPv6Address:
        """
        Where the last accepted datagram came from.
        """
        return addressOf(self.address)

    @property
    def state(self) -> LinkState:
        """
        C{"alive"}, C{"suspected"} or C{"gone"}.
        """
        if not self.alive:
            return LinkState.GONE
        return LinkState.SUSPECTED if self.suspected else LinkState.ALIVE

    @property
    def isAuthenticated(self) -> bool:
        """
        Whether a key has proven the name.
        """
        return self.keyId != NO_KEY

    @property
    def silence(self) -> float:
        """
        Seconds from the last accepted datagram until now, or until the end.  Time in which this
        process did not read does not count.
        """
        monitor = self._monitor
        until = monitor.runningTime.read(self.seconds()) if self.alive else self.endedAt
        return max(0.0, until - self.heardAt)

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the monitor's clock.
        """
        return self._monitor.wheel

    def seconds(self) -> float:
        """
        Return the time of the monitor's clock.
        """
        return self.wheel.seconds()

    def eventFields(self) -> dict[str, object]:
        """
        Return the fields that all events of the peer have in the log.
        """
        return {
            "carrier": self.carrier,
            "name": self.name,
            "generation": self.generation,
            "peer": peerName(self.peer),
            "silence": round(self.silence, 3),
            "bound": self.bound,
        }

    def onTimer(self, now: float, lateness: float) -> float | None:
        return self._monitor.peerDue(self, now, lateness)
