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


class Crowd(LinkHooks):
    """
    A server and its peers, who answer at once until they are cut.

    @ivar pinged: how many pings came in each turn.
    @ivar deaths: when each link ended, by generation.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = HeartbeatServerFactory(
            hooks=self, heartbeat=HEARTBEAT, keepAlive=None, clock=self.clock
        )
        self.pinged: list[int] = [0]
        self.asked: list[Pole] = []
        self.aborted: list[Pole] = []
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

    def arrive(self, names: list[str]) -> list[Pole]:
        """
        Peers connect, and say hello, in one instant.
        """
        return [Pole(self, name) for name in names]

    def passes(self, seconds: float) -> None:
        """
        Time passes, turn by turn; in each, what was asked is answered, and what was aborted ends.
        """
        for _ in range(round(seconds / STEP)):
            self.pinged.append(0)
            self.clock.advance(STEP)
            asked, self.asked = self.asked, []
            for pole in asked:
                pole.answer()
            aborted, self.aborted = self.aborted, []
            for pole in aborted:
                pole.lose()


class Pole:
    """
    A transport, and the peer at its other end.  The least that a link needs, for there are many.

    @ivar cut: since when nothing passes; L{None} as long as all does.
    """

    disconnecting = False
    cut = False
    token = b""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._crowd = crowd
        self.lost = False
        self.protocol: Any = crowd.server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.protocol.makeConnection(self)
        self.protocol.dataReceived(wire.encode(wire.Hello(name)))

    def write(self, data: bytes) -> None:
        if data[1] == wire.FrameType.PING:
            self._crowd.pinged[-1] += 1
            self.token = data[4:8]
            if not self.cut:
                self._crowd.asked.append(self)

    def answer(self) -> None:
        if not self.cut:
            self.protocol.dataReceived(wire.encodePong(int.from_bytes(self.token, "big")))

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        self._crowd.aborted.append(self)

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
    are not touched; and those who come back in one instant have their names at once.
    """
    crowd = Crowd()
    names = [f"device-{number}" for number in range(PEERS)]
    poles = crowd.arrive(names)
    crowd.passes(3.0)
    assert crowd.told("suspected") == {}
    cut = poles[::share]
    for pole in cut:
        pole.cut = True
    heardAt = {pole.protocol.link.generation: pole.protocol.link.detector.heardAt for pole in cut}
    crowd.passes(HEARTBEAT.bound + 0.25)
    assert set(crowd.deaths) == set(heardAt)
    late = [at - heardAt[g] - HEARTBEAT.bound for g, (at, _) in crowd.deaths.items()]
    assert min(late) > -0.05 * HEARTBEAT.bound
    assert max(late) <= 0.05
    assert {type(cause) for _, cause in crowd.deaths.values()} == {PeerSilent}
    dead = dict.fromkeys(heardAt, 1)
    for name in ("suspected", "disconnected", "cleanup"):
        assert crowd.told(name) == dead
    assert set(crowd.told("connected").values()) == {1}
    assert len(crowd.server.peers) == PEERS - len(cut)
    back = crowd.arrive(names[::share])
    for pole, name in zip(back, names[::share], strict=True):
        assert crowd.server.named(name) is pole.protocol.link
    crowd.passes(2.0)
    assert len(crowd.server.peers) == PEERS
    assert set(crowd.deaths) == set(heardAt)


def test_ghostsOfAMassReconnect() -> None:
    """
    A thousand peers that come back in one instant before anybody knows that their old links are
    dead: all have their names again when those have not answered within the timeout, and each old
    link ends once.
    """
    crowd = Crowd()
    names = [f"device-{number}" for number in range(1000)]
    ghosts = crowd.arrive(names)
    crowd.passes(2.0)
    for pole in ghosts:
        pole.cut = True
    back = crowd.arrive(names)
    crowd.passes(HEARTBEAT.timeout + 0.5)
    assert len(crowd.deaths) == 1000
    for pole, name in zip(back, names, strict=True):
        assert crowd.server.named(name) is pole.protocol.link
    assert set(crowd.told("disconnected").values()) == {1}
    assert set(crowd.told("connected").values()) == {1}


def busiest(crowd: Crowd, seconds: float, width: float = 0.0625) -> float:
    """
    Let time pass, and see.

    @return: the pings in the busiest window of that width, as a multiple of its share.
    """
    crowd.pinged = [0]
    crowd.passes(seconds)
    size = round(width / STEP)
    turns = crowd.pinged[1:]
    windows = [sum(turns[i : i + size]) for i in range(len(turns) - size + 1)]
    return max(windows) / (PEERS * width / HEARTBEAT.interval)  # type: ignore[operator]


def test_pingsAreSpread() -> None:
    """
    Thousands that came in one instant are not pinged in lock-step: no sixteenth of the interval has
    half as many again as its share, at first and later.  That all of them speak in one instant, as
    after a broadcast, puts no more than four shares together, for one interval and all later ones.
    """
    crowd = Crowd()
    poles = crowd.arrive([f"device-{number}" for number in range(PEERS)])
    assert busiest(crowd, 1.0) < 1.5
    assert busiest(crowd, 3.0) < 1.5
    for pole in poles:
        pole.protocol.dataReceived(wire.encode(wire.Data(b"here")))
    assert busiest(crowd, 3.0) < 5.0
    assert crowd.deaths == {}
