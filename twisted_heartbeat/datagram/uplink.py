# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Monitor}: one monitor of a sender, as the hooks see it, and the look-up of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from ..core.datagram.uplink import Uplink
from ..core.diagnosis import describeError
from ..link.addresses import peerName
from ..link.state import LinkState
from ..logs import SafeLogger, Shortage
from .peer import addressOf

if TYPE_CHECKING:
    from ..logs import LogRateLimit
    from ..timing.wheel import Slot, TimerWheel
    from .sender import UDPHeartbeatSender

_log = SafeLogger()

RESOLVE_EVERY = 60.0
"""Seconds after which a name is looked up again although the monitor answers, or is not watched."""

RESOLVE_TIMEOUT = 10.0
"""
Seconds after which a look-up is given up.  A look-up of Twisted's never ends if it fails in an
unusual way, such as a process that has no descriptor or thread to spare.
"""


class Monitor(Uplink):
    """
    One monitor of a sender.  It has the attributes of a L{Link<twisted_heartbeat.Link>} that
    concern a peer.

    @ivar index: its place in the sender's list.
    @ivar host: its name or IP address.
    @ivar port: its port.
    @ivar addresses: the IP addresses that the name has led to; the first is in use.
    @ivar generation: the number among the sender's times of being acknowledged; never reused.
    @ivar slot: belongs to the timer wheel.
    """

    carrier = "udp"
    # A key proves that it is one of the sender's monitors, and not which: its name is an address.
    isAuthenticated = False
    isServerSide = False
    logLimit: LogRateLimit | None = None

    def __init__(
        self, sender: UDPHeartbeatSender, index: int, host: str, port: int, period: float
    ) -> None:
        super().__init__(sender.heartbeat.bound, period)
        self._sender = sender
        self._resolvedAt = -inf
        self._resolving = False
        words = "The look-up of a monitor failed: {error}"
        self._lookUpFailed = Shortage(_log, words, self.seconds)
        self.index = index
        self.host = host
        self.port = port
        self.isLiteral = isIPAddress(host) or isIPv6Address(host)
        self.addresses: list[str] = [host] if self.isLiteral else []
        self.generation = 0
        self.slot: Slot | None = None

    def __repr__(self) -> str:
        return f"<Monitor {self.name} {self.state}>"

    @property
    def name(self) -> str:
        """
        The host and port.
        """
        return f"{self.host}:{self.port}"

    @property
    def source(self) -> str:
        """
        The name of the sender.
        """
        return self._sender.source

    @property
    def watch(self) -> str:
        """
        C{"datagrams"} if the sender watches this monitor.
        """
        return "datagrams" if self._sender.watches else "none"

    @property
    def address(self) -> tuple[str, int] | None:
        """
        Where datagrams go; L{None} while the name has not been found.
        """
        return (self.addresses[0], self.port) if self.addresses else None

    @property
    def peer(self) -> IPv4Address | IPv6Address | None:
        """
        The address in use; L{None} while the name has not been found.
        """
        return None if self.address is None else addressOf(self.address)

    def isAt(self, source: IPv4Address | IPv6Address) -> bool:
        """
        Whether this monitor's datagrams come from that address.  The socket does not tell the
        interface that a link-local address belongs to, so that is left out.
        """
        own = self.peer
        return own is not None and _place(own) == _place(source)

    @property
    def state(self) -> LinkState:
        """
        C{"new"} until it acknowledges; then C{"alive"}, C{"suspected"} or C{"gone"}.
        """
        if not self.alive:
            return LinkState.GONE if self.generation else LinkState.NEW
        return LinkState.SUSPECTED if self.suspected else LinkState.ALIVE

    @property
    def silence(self) -> float:
        """
        Seconds since its last acknowledgement, or since the watch began.
        """
        return max(0.0, self._sender.runningTime.read(self.seconds()) - self.heardAt)

    @property
    def loss(self) -> float:
        """
        The part of the heartbeats that it has not acknowledged, from 0 to 1.
        """
        return 1 - self.acknowledged / self.sent if self.sent else 0.0

    @property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the sender's clock.
        """
        return self._sender.wheel

    def seconds(self) -> float:
        """
        Return the time of the sender's clock.
        """
        return self.wheel.seconds()

    def eventFields(self) -> dict[str, object]:
        """
        Return the fields that all events of the monitor have in the log.
        """
        return {
            "carrier": self.carrier,
            "name": self.name,
            "generation": self.generation or None,
            "peer": None if self.peer is None else peerName(self.peer),
            "silence": round(self.silence, 3),
            "bound": self.bound,
        }

    def onTimer(self, now: float, lateness: float) -> float | None:
        return self._sender.monitorDue(self, now, lateness)

    # The name.

    def resolve(self, reactor: Any, now: float) -> None:
        """
        Look the name up, unless that was done lately, or is being done.  While the monitor does not
        answer, it is done before each heartbeat.
        """
        if self.isLiteral or (self._resolving and now < self._resolvedAt + RESOLVE_TIMEOUT):
            return
        lately = now < self._resolvedAt + RESOLVE_EVERY
        if lately and self.addresses and not (self._sender.watches and self.unanswered):
            return
        self._resolving = True
        self._resolvedAt = now
        try:
            reactor.nameResolver.resolveHostName(
                _Resolution(self), self.host, self.port, [IPv4Address, IPv6Address], "UDP"
            )
        except BaseException as error:
            # The resolver may be the application's.
            self._lookUpFailed.met(f"{self.name}: {describeError(error)}")
            self.resolved(())

    def resolved(self, found: Sequence[str]) -> None:
        """
        Take what the name has led to.  The address in use is kept if it is still there and
        answers; otherwise the next one is used.
        """
        self._resolving = False
        if not found:
            # Late or broken name servers must not stop the heartbeats.
            if not self.addresses:
                self._sender.nameNotFound(self)
            return
        current = self.addresses[0] if self.addresses else None
        place = found.index(current) if current in found else -1
        if place >= 0 and self._sender.watches and self.unanswered:
            place += 1
        place = max(0, place) % len(found)
        first = not self.addresses
        self.addresses = [*found[place:], *found[:place]]
        if first:
            self._sender.nameFound(self)


def _place(address: IPv4Address | IPv6Address) -> tuple[str, int]:
    return address.host.partition("%")[0], address.port


@implementer(IResolutionReceiver)
class _Resolution:
    """
    Collects what the look-up of a monitor's name finds.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        """See C{IResolutionReceiver}."""

    def addressResolved(self, address: Any) -> None:
        self._found.append(address.host)

    def resolutionComplete(self) -> None:
        self._monitor.resolved(self._found)
