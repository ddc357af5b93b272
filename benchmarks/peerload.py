# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PeerLoad}: thousands of peers of the built-in protocol in one process, on raw sockets, so that a
server is what is measured.
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
"""Descriptors that a process needs for itself."""

AHEAD = 1000
"""So many connects may wait to be accepted: more would overflow the queue, and that is a storm."""

HELLO_TIMEOUT = 5.0
"""Seconds after which a connection on which the server has not said hello is tried anew."""

SLOWEST = 60.0
"""Seconds in which all must be connected."""

NEVER_LINGER = struct.pack("ii", 1, 0)

PING = wire.encodePing(0)
PONG = wire.encodePong(0)


def most(wanted: int) -> int:
    """
    @return: C{wanted} connections, or as many as this process may have descriptors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - SPARE)


def pongOf(data: bytes) -> bytes:
    """
    The answer to what came, where that is a ping and nothing else: its token, echoed.
    """
    if len(data) == len(PING) and data[:2] == PING[:2]:
        return PONG[:4] + data[4:8] + PONG[8:]
    return b""


class PeerLoad:
    """
    @ivar answered: how many pings have been.
    @ivar lost: how many connections the server has closed.
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
        Connect so many, as fast as they are accepted, answering meanwhile.

        @param accepted: asks the server how many it has.
        @return: seconds until all were.
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
        Answer for so long.
        """
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            for number, _ in self._poller.poll(left, 4096):
                self._read(number)

    def silence(self, count: int) -> dict[int, float]:
        """
        So many of them neither read nor answer any more.

        @return: when each has sent its last byte, by its port.
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
        All are gone at once, and nothing of them is left in TIME_WAIT.
        """
        for one in [*self._sockets.values(), *self._silent]:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NEVER_LINGER)
            one.close()
        self._sockets.clear()
        self._silent.clear()
        self._awaitingHello.clear()

    def _dropUnaccepted(self, before: float) -> None:
        """
        Whom the server has never accepted waits in vain.
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
        # Each its own name: a server has one peer of a name.
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
