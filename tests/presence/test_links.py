# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The presence table as the observer of real links: a server and its clients, over a wire in virtual
time.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_heartbeat import (
    Backoff,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    LinkHooks,
    MemoryStore,
    PeerState,
)

from ..support.presence import Watcher
from ..support.virtualnetwork import PEER, FakeTransport

UP, SUSPECT, DOWN, UNKNOWN = PeerState.UP, PeerState.SUSPECT, PeerState.DOWN, PeerState.UNKNOWN

BOUND = Heartbeat(interval=4.0, timeout=4.0)


class WireEnd(FakeTransport):
    """
    One end of a connection over a L{Wire}.
    """

    other: WireEnd
    wire: Wire

    def write(self, data: bytes) -> None:
        if not self.wire.isCut:
            self._clock.callLater(0.001, self._arrive, data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def _arrive(self, data: bytes) -> None:
        if not self.wire.isCut:
            self.other.deliver(data)

    def lose(self, error: BaseException | None = None) -> None:
        was, other = self.open, self.other
        super().lose(error)
        if was and not self.wire.isCut:
            self._clock.callLater(0.001, other.lose, ConnectionDone())


@implementer(IStreamClientEndpoint)
class Wire:
    """
    The way from a client to its server, which can be cut.
    """

    def __init__(self, clock: Clock, server: HeartbeatServerFactory) -> None:
        self._clock = clock
        self.server = server
        self.isCut = False

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        See C{IStreamClientEndpoint}.
        """
        if self.isCut:
            return Deferred()
        ends = []
        for each in (factory, self.server):
            end = WireEnd(self._clock, each.buildProtocol(PEER))
            end.wire = self
            ends.append(end)
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in reversed(ends):
            end.protocol.makeConnection(end)
        return succeed(ends[0].protocol)


class Plant:
    """
    A server with a table, and a pump that connects to it and has a table of its own.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.hub = Watcher(clock=self.clock, **settings)
        self.pump = Watcher(clock=self.clock)
        self.server = self.listening()
        self.wire = Wire(self.clock, self.server)
        factory = Factory()
        factory.protocol = type("Pump", (HeartbeatProtocol,), {"name": "pump-3"})
        self.client = HeartbeatClientService(
            self.wire,
            factory,
            Backoff(initial=0.5, maximum=0.5, jitter=None, spread=0.0),
            self.clock,
            heartbeat=BOUND,
            hooks=self.pump.table,
            name="hub",
        )
        self.client.startService()
        self.wait(1)

    def listening(self) -> HeartbeatServerFactory:
        """
        A server that the hub's table observes.
        """
        return HeartbeatServerFactory(
            heartbeat=BOUND, hooks=[LinkHooks(), self.hub.table], clock=self.clock, name="sensors"
        )

    def wait(self, seconds: float) -> None:
        """
        Let time pass.
        """
        for _ in range(int(seconds * 20)):
            self.hub.wall += 0.05
            self.pump.wall += 0.05
            self.clock.advance(0.05)

    def states(self, watcher: Watcher) -> list[PeerState]:
        """
        The states that a watcher's subscriber was told.
        """
        return watcher.hooks.states

    def stop(self) -> None:
        """
        End all.
        """
        self.pump.table.stopService()
        self.hub.table.stopService()
        self.client.stopService()
        self.server.close()
        self.wait(70)


@pytest.fixture
def plant() -> Plant:
    """
    A server and its client.
    """
    return Plant()


def test_bothEndsAreUp(plant: Plant) -> None:
    """
    The server's table has the client by its name, the client's table has the server by the name of
    the service, and both read silence and round-trip time from the link.
    """
    plant.wait(30)
    assert list(plant.hub.table.peers) == ["tcp/pump-3"]
    assert list(plant.pump.table.peers) == ["tcp/hub"]
    seen = plant.hub.table.peers["tcp/pump-3"]
    assert (seen.state, seen.bound, seen.isNamed) == (UP, 8.0, True)
    assert seen.lastHeard is not None and 0 <= plant.hub.wall - seen.lastHeard <= 4.1
    [link] = plant.server.peers.values()
    rtts = [seen.rtt, plant.pump.table.peers["tcp/hub"].rtt]
    assert rtts == [link.rtt, plant.client.link.rtt]  # type: ignore[union-attr]
    assert any(rtt is not None for rtt in rtts)
    [change] = plant.hub.hooks.told
    assert (change.source, change.carrier, change.generation) == ("sensors", "tcp", 1)
    plant.stop()


def test_cutWire(plant: Plant) -> None:
    """
    When the wire is cut both ends say so within the bound, with the cause; when it is mended both
    are up again, by the next generation.
    """
    plant.wire.isCut = True
    plant.wait(8.2)
    for watcher in (plant.hub, plant.pump):
        assert watcher.hooks.states == [UP, SUSPECT, DOWN]
        assert watcher.hooks.told[-1].cause == "PeerSilent"
    plant.wire.isCut = False
    plant.client.reconnectNow()
    plant.wait(35)
    for watcher, name in ((plant.hub, "tcp/pump-3"), (plant.pump, "tcp/hub")):
        assert watcher.hooks.states == [UP, SUSPECT, DOWN, UP]
        assert watcher.hooks.told[-1].generation > 1
        peer = watcher.table.peers[name]
        assert (peer.state, peer.cause, peer.falls) == (UP, "PeerSilent", 1)
    plant.stop()


def test_ghostIsNoFallWithinGrace() -> None:
    """
    A client that is back before its old link is known dead was never down, if the grace time covers
    that.
    """
    plant = Plant(grace=5.0)
    [old] = plant.server.peers.values()
    transport = plant.client.link.transport  # type: ignore[union-attr]
    plant.wire.isCut = True
    transport.lose(ConnectionDone())
    plant.wire.isCut = False
    plant.wait(12)
    assert old.state == "gone"
    assert set(plant.hub.hooks.states) == {UP, SUSPECT}
    assert plant.hub.stateOf("tcp/pump-3") is UP
    plant.stop()


def test_watcherRestarts(plant: Plant) -> None:
    """
    When the server's process ends cleanly and starts again, its client is unknown until it has
    connected, and no fall was told.
    """
    store = plant.hub.store
    stopped = plant.hub.table.stopService()
    plant.server.close()
    plant.wait(0.3)
    assert stopped.called and plant.hub.hooks.states == [UP]
    plant.hub = Watcher(store, clock=plant.clock)
    assert plant.hub.stateOf("tcp/pump-3") is UNKNOWN
    plant.wire.server = plant.server = plant.listening()
    plant.wait(5)
    assert plant.hub.hooks.states == [UNKNOWN, UP]
    plant.stop()


def test_crashOfTheClient(plant: Plant) -> None:
    """
    A client whose process ends is down at once, and stays in the table.
    """
    plant.client.stopService()
    plant.wait(6)
    assert plant.hub.hooks.states == [UP, DOWN]
    assert plant.hub.hooks.told[-1].cause == "PeerClosed"
    assert isinstance(plant.hub.store, MemoryStore)
    assert plant.hub.restart().stateOf("tcp/pump-3") is DOWN
    plant.stop()
