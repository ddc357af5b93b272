# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Sockets}: the UDP sockets of a sender, one for IPv4 and one for IPv6, opened when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from ..core.counters import DatagramCounters
from ..core.datagram.packet import MAX_SIZE
from .groups import Zone, sendFrom
from .reading import readOut

Address = tuple[str, int]

SEND_ERRORS = (OSError, CannotListenError, InvalidAddressError, MessageLengthError)
"""
What opening a UDP socket and writing to it raise: no route, no interface, no descriptor, a full
buffer, a firewall, a socket that is closed.
"""


class Sockets:
    """
    The sockets of one sender, which sends nothing before L{open} and after L{close}.  A socket that
    the system takes away is replaced at the next datagram.
    """

    def __init__(
        self,
        interface: str,
        hosts: Collection[str],
        received: Callable[[bytes, Any], None],
        failed: Callable[[Exception], None],
        counters: DatagramCounters,
    ) -> None:
        """
        @param interface: the IP address to send from; C{""} leaves that to the system.
        @param hosts: the hosts that the user has given.
        @param received: takes each datagram and its source.
        @param failed: takes what sending has raised, one of L{SEND_ERRORS}.
        @param counters: what is sent is counted there.
        """
        self._reactor: Any = None
        self._counters = counters
        self._interface = interface
        self._zone = Zone(hosts)
        self._received = received
        self._failed = failed
        self._ports: dict[str, Any] = {}

    def open(self, reactor: Any) -> None:
        """
        Begin to send, with sockets of this reactor.
        """
        self._reactor = reactor

    def send(self, data: bytes, address: Address) -> None:
        """
        Send a datagram.
        """
        if self._reactor is None:
            return
        try:
            self._portFor(address[0]).write(data, self._zone.complete(address))
        except SEND_ERRORS as error:
            self._failed(error)
            return
        self._counters.sent += 1
        self._counters.sentBytes += len(data)

    def readOut(self) -> None:
        """
        Read all that the kernel holds.
        """
        for port in list(self._ports.values()):
            readOut(port)

    def close(self) -> Deferred[Any]:
        """
        Close the sockets.

        @return: fires when they are closed.
        """
        self._reactor = None
        ports, self._ports = list(self._ports.values()), {}
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def lost(self, family: str) -> None:
        """
        Forget a socket that is closed.
        """
        self._ports.pop(family, None)

    def _portFor(self, host: str) -> Any:
        family = "::" if ":" in host else ""
        port = self._ports.get(family)
        if port is None:
            own = self._interface if (":" in self._interface) == (family == "::") else ""
            port = self._reactor.listenUDP(
                0,
                _Socket(self, family, self._received),
                interface=own or family,
                maxPacketSize=MAX_SIZE + 1,
            )
            getHandle = getattr(port, "getHandle", None)
            if getHandle is not None:
                try:
                    sendFrom(getHandle(), own)
                except OSError:
                    # The next datagram would open another one.
                    port.stopListening()
                    raise
            self._ports[family] = port
        return port


class _Socket(DatagramProtocol):
    """
    The protocol of one socket.
    """

    noisy = False

    def __init__(
        self, sockets: Sockets, family: str, received: Callable[[bytes, Any], None]
    ) -> None:
        self._sockets = sockets
        self._family = family
        self._received = received

    def stopProtocol(self) -> None:
        self._sockets.lost(self._family)

    def datagramReceived(self, data: bytes, address: Any) -> None:
        self._received(data, address)
