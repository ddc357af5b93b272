# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a heartbeat over UDP costs its monitor, beside a bare Twisted C{DatagramProtocol} that does
C{recvfrom} and computes one HMAC; and how much of a core ten thousand peers at 1 Hz take.

The same datagrams come to each contestant over loopback: one of each peer in a second, spread over
the second.  Each peer of the monitor has a key of its own; the bare protocol has one for all, and
looks nothing up.  The process that receives them sends them, too; what counts is its CPU time less
that of the sending, so that the turns do not depend on when other processes run.

Run it with C{python benchmarks/datagrams.py [--peers N] [--seconds S] [--json FILE]}.
"""

from __future__ import annotations

import hmac
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from report import Comparison, Goal, inTurns, parserFor, report
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater, react

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import UDPHeartbeatMonitor  # noqa: E402
from twisted_heartbeat.core.datagram.packet import (  # noqa: E402
    ACKNOWLEDGE,
    MAC_SIZE,
    Key,
    Packet,
    Type,
    encode,
)
from twisted_heartbeat.datagram.reading import enlargeBuffer  # noqa: E402

BARE = "recvfrom + HMAC in a bare DatagramProtocol"
OURS = "UDPHeartbeatMonitor"
ANSWERING = "UDPHeartbeatMonitor, acknowledging each"

KEY = bytes(range(32))
BOUND = 10.0

SETTLE = 60
"""Seconds at most, until each peer has been heard, and the log has told of it."""


class Bare(DatagramProtocol):
    """
    Checks the MAC, and does nothing else.

    @ivar received: datagrams that were authentic.
    """

    noisy = False

    def __init__(self) -> None:
        self.received = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """
        See C{DatagramProtocol}.
        """
        mac = hmac.digest(KEY, datagram[:-MAC_SIZE], "sha256")[:MAC_SIZE]
        if hmac.compare_digest(mac, datagram[-MAC_SIZE:]):
            self.received += 1


class Ours(UDPHeartbeatMonitor):
    """
    The monitor, which does not challenge, because its peers do not answer.
    """

    def __init__(self, reactor: Any, peers: int) -> None:
        keys = {nameOf(number): secretOf(number) for number in range(peers)}
        super().__init__(keys, challenge=False, reactor=reactor)

    @property
    def received(self) -> int:
        """
        Datagrams that were accepted.
        """
        return sum(peer.received for peer in self.peers.values())


def nameOf(number: int) -> str:
    """
    The name of a peer.
    """
    return f"peer-{number:05}"


def secretOf(number: int) -> bytes:
    """
    The key of a peer.
    """
    return sha256(nameOf(number).encode()).digest()


class Peers:
    """
    The senders.

    @ivar used: CPU seconds that sending took.
    """

    def __init__(self, port: int, keys: Sequence[Key], flags: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._keys = keys
        self._names = [nameOf(number).encode() for number in range(len(keys))]
        self._flags = flags
        self._began = time.monotonic()
        self._done = 0
        self.used = 0.0

    def send(self) -> None:
        """
        Send what is due.
        """
        used = time.process_time()
        peers = len(self._names)
        elapsed = time.monotonic() - self._began
        # What is late by more than a quarter of a second is left out, as it would overflow.
        self._done = max(self._done, int((elapsed - 0.25) * peers))
        while self._done < int(elapsed * peers):
            place, sequence = self._done % peers, self._done // peers + 1
            self._done += 1
            packet = Packet(
                type=Type.HEARTBEAT,
                flags=self._flags,
                keyId=1,
                session=place + 1,
                sequence=sequence,
                sent=int(elapsed * 1000),
                interval=1250,
                bound=int(BOUND * 1000),
                cookie=0,
                name=self._names[place],
            )
            with suppress(BlockingIOError, ConnectionRefusedError):
                self._socket.send(encode(packet, self._keys[place]))
        self.used += time.process_time() - used

    def close(self) -> None:
        """
        Close the socket.
        """
        self._socket.close()


async def perform(reactor: Any, name: str, options: Any) -> tuple[float, float]:
    """
    One turn of a contestant.

    @return: CPU microseconds of a datagram, and percent of a core at one datagram of each peer in a
        second.
    """
    protocol: Any = Bare() if name == BARE else Ours(reactor, options.peers)
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    enlargeBuffer(port.getHandle())
    flags = ACKNOWLEDGE if name == ANSWERING else 0
    everyone = range(options.peers)
    keys = [Key(KEY)] * options.peers if name == BARE else [Key(secretOf(n)) for n in everyone]
    peers = Peers(port.getHost().port, keys, flags)

    async def speak(seconds: float) -> tuple[int, float]:
        end = time.monotonic() + seconds
        received = protocol.received
        used = time.process_time() - peers.used
        while time.monotonic() < end:
            peers.send()
            await deferLater(reactor, 1 / 64)
        used = time.process_time() - peers.used - used
        return protocol.received - received, used

    try:
        for _ in range(SETTLE):
            if protocol.received >= 2 * options.peers:
                break
            await speak(1.0)
        received, used = await speak(options.seconds)
    finally:
        peers.close()
        await port.stopListening()
    each = used / received
    return each * 1e6, each * options.peers * 100


async def measure(reactor: Any, options: Any) -> None:
    """
    Measure, print, write.
    """
    title = f"{options.peers:,} peers, one heartbeat each a second"
    each = Comparison(f"{title}: one heartbeat", "us of CPU", BARE, {OURS: Goal(2.0, "ratio")})
    core = Comparison(f"{title}: all", "% of a core", BARE, {OURS: Goal(25.0)})
    for name in inTurns([BARE, OURS, ANSWERING], turns=options.turns):
        microseconds, percent = await perform(reactor, name, options)
        each.add(name, microseconds)
        core.add(name, percent)
    report("datagrams", [each, core], options.json, peers=options.peers)


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, peers=500, seconds=0.5, turns=1)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    react(lambda reactor: ensureDeferred(measure(reactor, options)))


if __name__ == "__main__":
    main()
