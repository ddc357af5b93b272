# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
UDP in virtual time: L{Internet} carries datagrams between L{Host}s, each of which is a reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

Address = tuple[str, int]
Fate = Callable[[bytes, Address, Address], Iterable[float]]
"""Takes a datagram, its source and its target, and returns the delays of its arrivals."""


class Internet:
    """
    Everything between the hosts.

    @ivar fate: decides what becomes of each datagram.
    @ivar groups: the members of multicast groups.
    @ivar names: the addresses of names.
    @ivar lookedUp: the names that were looked up.
    @ivar carried: all datagrams that were sent: when, source, target, bytes.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.fate: Fate = lambda data, source, target: [0.001]
        self.groups: dict[str, list[str]] = {}
        self.names: dict[str, list[str]] = {}
        self.lookedUp: list[str] = []
        self.ports: dict[Address, Port] = {}
        self.carried: list[tuple[float, Address, Address, bytes]] = []

    def advance(self, seconds: float, step: float = 0.01) -> None:
        """
        Let time pass, as a reactor that is never late would.
        """
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-9:
            self.clock.advance(min(step, left))

    def carry(self, data: bytes, source: Address, target: Address) -> None:
        """
        Carry a datagram.
        """
        self.carried.append((self.clock.seconds(), source, target, data))
        for member in self.groups.get(target[0], [target[0]]):
            for delay in self.fate(data, source, (member, target[1])):
                self.clock.callLater(delay, self.deliver, data, source, (member, target[1]))

    def deliver(self, data: bytes, source: Address, target: Address) -> None:
        """
        Deliver a datagram, if somebody listens there.
        """
        port = self.ports.get(target)
        if port is not None:
            port.protocol.datagramReceived(data, source)


class Port:
    """
    A UDP port, as Twisted's looks to its protocol.

    @ivar refusal: what sending raises, if anything.
    """

    refusal: Exception | None = None

    def __init__(self, host: Host, address: Address, protocol: Any) -> None:
        self.host = host
        self.address = address
        self.protocol = protocol

    def write(self, data: bytes, address: Address) -> None:
        if self.host.refusal is not None:
            raise self.host.refusal
        assert address[0].replace(".", "").isdigit() or ":" in address[0]
        self.host.internet.carry(data, self.address, address)

    def getHost(self) -> Any:
        kind = IPv6Address if ":" in self.address[0] else IPv4Address
        return kind("UDP", *self.address)

    def stopListening(self) -> Deferred[None]:
        self.lost()
        return succeed(None)

    def lost(self) -> None:
        """
        Close.
        """
        if self.host.internet.ports.pop(self.address, None) is not None:
            self.protocol.doStop()


@implementer(IReactorTime)
class Host:
    """
    One host: its addresses, and its reactor.

    @ivar refusal: what sending raises: the network is unreachable, say.
    @ivar taken: whether its ports are taken.
    @ivar unanswered: whether look-ups never end, as Twisted's do that fail in an unusual way.
    @ivar lookUpError: what a look-up raises.
    """

    refusal: Exception | None = None
    taken = False
    unanswered = False
    lookUpError: BaseException | None = None

    def __init__(self, internet: Internet, address: str = "192.0.2.1") -> None:
        self.internet = internet
        self.address = address
        self.nextPort = 40000
        self.nameResolver = self

    def seconds(self) -> float:
        return self.internet.clock.seconds()

    def callLater(self, delay: float, call: Any, *arguments: Any, **keywords: Any) -> Any:
        return self.internet.clock.callLater(delay, call, *arguments, **keywords)

    def getDelayedCalls(self) -> Any:
        return self.internet.clock.getDelayedCalls()

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> Port:
        if self.taken:
            raise CannotListenError(interface, port, OSError("taken"))
        if not port:
            self.nextPort += 1
            port = self.nextPort
        own = "2001:db8::1" if ":" in interface else self.address
        made = Port(self, (own, port), protocol)
        self.internet.ports[made.address] = made
        protocol.makeConnection(made)
        return made

    def resolveHostName(
        self, receiver: Any, name: str, port: int, kinds: Any, transport: str
    ) -> None:
        """
        Look a name up; the answer takes a while.
        """
        self.internet.lookedUp.append(name)
        assert transport == "UDP"
        if self.lookUpError is not None:
            raise self.lookUpError

        def answer() -> None:
            receiver.resolutionBegan(None)
            for found in self.internet.names.get(name, []):
                receiver.addressResolved(IPv4Address("UDP", found, port))
            receiver.resolutionComplete()

        if not self.unanswered:
            self.callLater(0.05, answer)
