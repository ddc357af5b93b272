# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Thousands of peers on one server, in virtual time: cut at once, back at once, pinged one by one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_heartbeat import Cause, Heartbeat, HeartbeatServerFactory, Link, LinkHooks, PeerSilent
from twisted_heartbeat.core import wire

PEERS = 4000
STEP = 1 / 128
"""Seconds: the reactor's turns."""

HEARTBEAT = Heartbeat(interval=1.0, timeout=0.75)


class Fleet(LinkHooks):
    """
    A server and its peers, which answer at once until they are cut.

    @ivar pinged: how many pings came in each turn.
    @ivar deaths: when each link ended, by generation.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = HeartbeatServerFactory(
            hooks=self, heartbeat=HEARTBEAT, keepAlive=None, clock=self.clock
        )
        self.pinged: list[int] = [0]
        self.asked: list[FakePeer] = []
        self.aborted: list[FakePeer] = []
        self.hooks: Counter[tuple[str, int]] = Counter()
        self.deaths: dict[int, tuple[float, Cause]] = {}

    def connected(self, link: Link) -> None:
        self.hooks["connected", link.generation] += 1
        link.addCleanup(self._cleanUp, link.generation)

    def suspected(self, link: Link) -> None:
        self.hooks["suspected", link.generation] += 1

    def disconnected(self, link: Link, cause: Cause) -> None:
        self.hooks["disconnected", link.generation] += 1
        self.deaths[link.generation] = (self.clock.seconds(), cause)

    def _cleanUp(self, generation: int) -> None:
        self.hooks["cleanup", generation] += 1

    def told(self, name: str) -> Counter[int]:
        """
        How often each link's hook of that name was called.
        """
        return Counter({g: count for (hook, g), count in self.hooks.items() if hook == name})

    def arrive(self, names: list[str]) -> list[FakePeer]:
        """
        Peers connect, and say hello, in one instant.
        """
        return [FakePeer(self, name) for name in names]

    def passes(self, seconds: float) -> None:
        """
        Let time pass, turn by turn.  In each turn pinged peers answer, and aborted connections end.
        """
        for _ in range(round(seconds / STEP)):
            self.pinged.append(0)
            self.clock.advance(STEP)
            asked, self.asked = self.asked, []
            for peer in asked:
                peer.answer()
            aborted, self.aborted = self.aborted, []
            for peer in aborted:
                peer.lose()


class FakePeer:
    """
    A transport, and the peer at its other end: no more than a link needs, because there are many.

    @ivar cut: since when nothing passes; L{None} as long as all does.
    """

    disconnecting = False
    cut = False
    token = b""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self.lost = False
        self.protocol: Any = fleet.server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.protocol.makeConnection(self)
        self.protocol.dataReceived(wire.encode(wire.Hello(name)))

    def write(self, data: bytes) -> None:
        if data[1] == wire.FrameType.PING:
            self._fleet.pinged[-1] += 1
            self.token = data[4:8]
            if not self.cut:
                self._fleet.asked.append(self)

    def answer(self) -> None:
        if not self.cut:
            self.protocol.dataReceived(wire.encodePong(int.from_bytes(self.token, "big")))

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        self._fleet.aborted.append(self)

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(ConnectionAborted()))

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1)


@pytest.mark.parametrize("share", [10, 2])
def test_cutAtOnce(share: int) -> None:
    """
    Of thousands of peers a tenth, or half, falls silent in one instant: each verdict comes on the
    bound, and no later than 50 ms after it; the hooks and the cleanups of each run once; the others
    are not affected; and peers that come back in one instant have their names at once.
    """
    fleet = Fleet()
    names = [f"device-{number}" for number in range(PEERS)]
    peers = fleet.arrive(names)
    fleet.passes(3.0)
    assert fleet.told("suspected") == {}
    cut = peers[::share]
    for peer in cut:
        peer.cut = True
    heardAt = {
        peer.protocol.link.generation: peer.protocol.link.peerWatch.detector.heardAt for peer in cut
    }
    fleet.passes(HEARTBEAT.bound + 0.25)
    assert set(fleet.deaths) == set(heardAt)
    late = [at - heardAt[g] - HEARTBEAT.bound for g, (at, _) in fleet.deaths.items()]
    assert min(late) > -0.05 * HEARTBEAT.bound
    assert max(late) <= 0.05
    assert {type(cause) for _, cause in fleet.deaths.values()} == {PeerSilent}
    dead = dict.fromkeys(heardAt, 1)
    for name in ("suspected", "disconnected", "cleanup"):
        assert fleet.told(name) == dead
    assert set(fleet.told("connected").values()) == {1}
    assert len(fleet.server.peers) == PEERS - len(cut)
    back = fleet.arrive(names[::share])
    for peer, name in zip(back, names[::share], strict=True):
        assert fleet.server.named(name) is peer.protocol.link
    fleet.passes(2.0)
    assert len(fleet.server.peers) == PEERS
    assert set(fleet.deaths) == set(heardAt)


def test_ghostsOfAMassReconnect() -> None:
    """
    A thousand peers come back in one instant before their old links are known dead: all have their
    names again when the old links have not answered within the timeout, and each old link ends
    once.
    """
    fleet = Fleet()
    names = [f"device-{number}" for number in range(1000)]
    ghosts = fleet.arrive(names)
    fleet.passes(2.0)
    for peer in ghosts:
        peer.cut = True
    back = fleet.arrive(names)
    fleet.passes(HEARTBEAT.timeout + 0.5)
    assert len(fleet.deaths) == 1000
    for peer, name in zip(back, names, strict=True):
        assert fleet.server.named(name) is peer.protocol.link
    assert set(fleet.told("disconnected").values()) == {1}
    assert set(fleet.told("connected").values()) == {1}


def busiest(fleet: Fleet, seconds: float, width: float = 0.0625) -> float:
    """
    Let time pass, and count the pings.

    @return: the pings in the busiest window of that width, as a multiple of its share.
    """
    fleet.pinged = [0]
    fleet.passes(seconds)
    size = round(width / STEP)
    turns = fleet.pinged[1:]
    windows = [sum(turns[i : i + size]) for i in range(len(turns) - size + 1)]
    return max(windows) / (PEERS * width / HEARTBEAT.interval)  # type: ignore[operator]


def test_pingsAreSpread() -> None:
    """
    Thousands that came in one instant are not pinged in lock-step: no sixteenth of the interval has
    half as many again as its share, at first and later.  If all of them speak in one instant, as
    after a broadcast, that puts no more than four shares together, in the next interval and later.
    """
    fleet = Fleet()
    peers = fleet.arrive([f"device-{number}" for number in range(PEERS)])
    assert busiest(fleet, 1.0) < 1.5
    assert busiest(fleet, 3.0) < 1.5
    for peer in peers:
        peer.protocol.dataReceived(wire.encode(wire.Data(b"here")))
    assert busiest(fleet, 3.0) < 5.0
    assert fleet.deaths == {}
