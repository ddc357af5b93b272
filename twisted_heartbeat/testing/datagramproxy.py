# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DatagramFaultProxy}: the UDP proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import random as systemRandom
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol

from .faults import DatagramFault, Delay, Drop, Duplicate, Reorder, Toward, endsToward, requireFault
from .validation import requireAddress, requireTarget


class _DatagramPipe:
    """One direction of a L{DatagramFaultProxy}."""

    def __init__(self, clock: IReactorTime, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._faults: dict[type, Any] = {}
        self._counted = 0
        self._burstLeft = 0
        self._first: Callable[[], None] | None = None
        self._delayed: dict[object, tuple[IDelayedCall, Callable[[], None]]] = {}

    def inject(self, fault: DatagramFault) -> None:
        self._faults[type(fault)] = fault
        if isinstance(fault, Drop):
            self._counted = self._burstLeft = 0

    def heal(self) -> None:
        self._faults.clear()
        for key, (call, _) in tuple(self._delayed.items()):
            call.cancel()
            self._due(key)
        first, self._first = self._first, None
        if first is not None:
            first()

    def close(self) -> None:
        for call, _ in self._delayed.values():
            call.cancel()
        self._delayed.clear()
        self._first = None

    def carry(self, send: Callable[[], None]) -> None:
        """Send a datagram, or apply the faults to it."""
        if Drop in self._faults and self._isDropped(self._faults[Drop]):
            return
        if Reorder not in self._faults:
            self._duplicate(send)
        elif self._first is None:
            self._first = send
        else:
            first, self._first = self._first, None
            self._duplicate(send)
            self._duplicate(first)

    def _isDropped(self, drop: Drop) -> bool:
        if self._burstLeft:
            self._burstLeft -= 1
            return True
        self._counted += 1
        lost = self._counted % drop.every == 0 and self._random() < drop.probability
        if lost:
            self._burstLeft = drop.burst - 1
        return lost

    def _duplicate(self, send: Callable[[], None]) -> None:
        for _ in range(2 if Duplicate in self._faults else 1):
            self._delay(send)

    def _delay(self, send: Callable[[], None]) -> None:
        if Delay not in self._faults:
            send()
            return
        key = object()
        wait = self._faults[Delay].draw(self._random)
        self._delayed[key] = (self._clock.callLater(wait, self._due, key), send)

    def _due(self, key: object) -> None:
        _, send = self._delayed.pop(key)
        send()


class _Socket(DatagramProtocol):
    """One UDP socket of a L{DatagramFaultProxy}."""

    noisy = False

    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self._received = received

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._received(datagram, addr)


class DatagramFaultProxy:
    """
    A UDP proxy that misbehaves on request. Like a NAT it gives each client address a port of its
    own toward the target, and forwards everything until a fault is set.
    """

    def __init__(
        self,
        reactor: Any,
        target: tuple[str, int],
        *,
        interface: str = "127.0.0.1",
        port: int = 0,
        clock: IReactorTime | None = None,
        random: Callable[[], float] = systemRandom,
    ) -> None:
        """
        @param reactor: the reactor to run on.
        @param target: the IP address and port where datagrams go.
        @param interface: the IP address to receive on.
        @param port: the port to receive on; 0 lets the kernel choose.
        @param clock: measures the waits; the reactor by default.
        @param random: returns a number from 0 up to 1; C{random.Random(7).random} makes jitter and
            probabilities repeatable.

        @raise ValueError: for a wrong target, interface or port.
        """
        requireTarget(target, 'an ("address", port) tuple')
        requireAddress("the proxy", interface, port, lowestPort=0)
        time: IReactorTime = reactor if clock is None else clock
        self._reactor = reactor
        self._target = target
        self._interface = interface
        self._pipes = {"server": _DatagramPipe(time, random), "client": _DatagramPipe(time, random)}
        self._listeningPort: Any = None
        self._targetPorts: dict[tuple[str, int], Any] = {}
        self.port = port

    @property
    def address(self) -> tuple[str, int]:
        """The address to send to, known once L{listen} has fired."""
        return self._interface, self.port

    def listen(self) -> Deferred[IPv4Address | IPv6Address]:
        """
        Start.

        @return: fires with the address, or fails with
            L{twisted.internet.error.CannotListenError}.
        """
        return maybeDeferred(self._listen)

    def inject(self, fault: DatagramFault, *, toward: Toward = "both") -> None:
        """
        Set a fault; it replaces an earlier fault of its kind. Faults act in this order:
        L{Drop}, L{Reorder}, L{Duplicate}, L{Delay}.

        @raise ValueError: if C{fault} is no L{DatagramFault}, or for a wrong direction.
        """
        requireFault(fault, DatagramFault)
        for end in endsToward(toward):
            self._pipes[end].inject(fault)

    def heal(self) -> None:
        """Lift all faults, and send at once what they held back."""
        for pipe in self._pipes.values():
            pipe.heal()

    def rebind(self) -> Deferred[None]:
        """
        Forget the ports that the clients have toward the target, as a NAT does that restarts. The
        next datagram of each client comes from another port, and what the target sends to the old
        one is lost.

        @return: fires once the old ports are closed.
        """
        ports, self._targetPorts = self._targetPorts, {}
        closed = gatherResults([maybeDeferred(port.stopListening) for port in ports.values()])
        return closed.addCallback(lambda _: None)

    @inlineCallbacks
    def close(self) -> Generator[Deferred[Any], None, None]:
        """
        Stop.

        @return: fires once no socket and no delayed call of the proxy is left.
        """
        for pipe in self._pipes.values():
            pipe.close()
        ports = [
            *self._targetPorts.values(),
            *([self._listeningPort] if self._listeningPort else []),
        ]
        self._targetPorts, self._listeningPort = {}, None
        yield gatherResults([maybeDeferred(port.stopListening) for port in ports])

    def _listen(self) -> IPv4Address | IPv6Address:
        if self._listeningPort is None:
            self._listeningPort = self._open(self.port, self._fromClient)
            self.port = self._listeningPort.getHost().port
        return cast(IPv4Address | IPv6Address, self._listeningPort.getHost())

    def _open(self, port: int, received: Callable[[bytes, Any], None]) -> Any:
        return self._reactor.listenUDP(
            port, _Socket(received), interface=self._interface, maxPacketSize=65536
        )

    def _fromClient(self, data: bytes, client: tuple[str, int]) -> None:
        if client not in self._targetPorts:
            self._targetPorts[client] = self._open(
                0, lambda data, _: self._fromTarget(data, client)
            )
        self._pipes["server"].carry(lambda: self._toTarget(data, client))

    def _toTarget(self, data: bytes, client: tuple[str, int]) -> None:
        port = self._targetPorts.get(client)
        if port is not None:
            port.write(data, self._target)

    def _fromTarget(self, data: bytes, client: tuple[str, int]) -> None:
        self._pipes["client"].carry(lambda: self._listeningPort.write(data, client))
