# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerLoad}: thousands of peers of the built-in protocol in one process, on raw sockets, so that
the server dominates what is measured.
"""

from __future__ import annotations

import resource
import select
import socket
import struct
from collections.abc import Callable
from time import monotonic

from twisted_heartbeat.core import wire

HOST = "127.0.0.1"

SPARE = 200
"""The number of descriptors that a process needs for itself."""

AHEAD = 1000
"""Connections that may wait to be accepted; more would overflow the server's accept queue."""

HELLO_TIMEOUT = 5.0
"""Seconds after which a connection without the server's hello is replaced."""

SLOWEST = 60.0
"""Seconds in which all peers must be connected."""

NEVER_LINGER = struct.pack("ii", 1, 0)

PING = wire.encodePing(0)
PONG = wire.encodePong(0)


def most(wanted: int) -> int:
    """
    Raise this process's limit of descriptors.

    @return: C{wanted}, or the number of connections that the limit allows.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - SPARE)


def pongOf(data: bytes) -> bytes:
    """
    The pong for received data, if the data is one ping and nothing else; otherwise no bytes.
    """
    if len(data) == len(PING) and data[:2] == PING[:2]:
        return PONG[:4] + data[4:8] + PONG[8:]
    return b""


class PeerLoad:
    """
    Peers that answer every ping of one server.

    @ivar answered: the number of answered pings.
    @ivar lost: the number of connections that the server has closed.
    """

    def __init__(self, port: int) -> None:
        self._to = (HOST, port)
        self._poller = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._sentAt: dict[int, float] = {}
        self._awaitingHello: dict[int, float] = {}
        self.answered = 0
        self.lost = 0

    def connect(self, count: int, accepted: Callable[[], int]) -> float:
        """
        Connect peers as fast as the server accepts them, answering meanwhile.

        @param count: the number of peers.
        @param accepted: asks the server how many peers it has.
        @return: seconds until all were accepted.
        """
        began = monotonic()
        have = 0
        while have < count:
            if monotonic() - began > SLOWEST:
                raise SystemExit(f"only {have} of {count} were accepted in {SLOWEST:g} s")
            self._dropUnaccepted(monotonic() - HELLO_TIMEOUT)
            for _ in range(min(count, have + AHEAD) - len(self._sockets)):
                self._open()
            self.serve(0.005)
            have = accepted()
        return monotonic() - began

    def serve(self, seconds: float) -> None:
        """
        Answer for a number of seconds.
        """
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            for number, _ in self._poller.poll(left, 4096):
                self._read(number)

    def silence(self, count: int) -> dict[int, float]:
        """
        Make some peers stop reading and answering.

        @return: when each of them sent its last byte, by its port.
        """
        sentAt = {}
        for number in list(self._sockets)[:: len(self._sockets) // count][:count]:
            self._poller.unregister(number)
            one = self._sockets.pop(number)
            self._silent.append(one)
            sentAt[one.getsockname()[1]] = self._sentAt[number]
        return sentAt

    def leave(self) -> None:
        """
        Reset all connections at once, so that none is left in TIME_WAIT.
        """
        for one in [*self._sockets.values(), *self._silent]:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NEVER_LINGER)
            one.close()
        self._sockets.clear()
        self._silent.clear()
        self._awaitingHello.clear()

    def _dropUnaccepted(self, before: float) -> None:
        """
        Replace connections that the server has not accepted in time.
        """
        for number in [number for number, at in self._awaitingHello.items() if at < before]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._awaitingHello.pop(number, None)
        self._poller.unregister(number)
        self._sockets.pop(number).close()

    def _open(self) -> None:
        one = socket.create_connection(self._to, timeout=SLOWEST)
        one.setblocking(False)
        number = one.fileno()
        # Each peer has its own name, because a server has one peer of a name.
        one.send(wire.encode(wire.Hello(f"peer {one.getsockname()[1]}")))
        self._sentAt[number] = self._awaitingHello[number] = monotonic()
        self._sockets[number] = one
        self._poller.register(one, select.EPOLLIN)

    def _read(self, number: int) -> None:
        one = self._sockets[number]
        try:
            data = one.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.lost += 1
            self._forget(number)
            return
        self._awaitingHello.pop(number, None)
        answer = pongOf(data)
        if answer:
            one.send(answer)
            self._sentAt[number] = monotonic()
            self.answered += 1
