# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A presence table as observer of a monitor.
"""

from __future__ import annotations

from twisted_heartbeat import PeerState, PresenceTable

from ..support.datagrams import Sensor
from ..support.virtualudp import Internet
from .test_monitor import Scene


def test_presenceOfASender() -> None:
    """
    A sender is up, suspect, down and up again in the table, under its own name, because a key has
    proven it.
    """
    internet = Internet()
    table = PresenceTable(clock=internet.clock)
    scene = Scene(internet=internet, hooks=table)
    table.startService()
    pump = Sensor()
    scene.meet(pump)
    assert table.peers["pump"].state is PeerState.UP
    assert "udp" in table.peers["pump"].carriers
    scene.internet.advance(5.0)
    assert table.peers["pump"].state is PeerState.SUSPECT
    scene.internet.advance(2.0)
    found = table.peers["pump"]
    assert (found.state, found.cause) == (PeerState.DOWN, "PeerSilent")
    [challenge] = scene.deliver(pump.heartbeat(scene.now))
    scene.deliver(pump.answer(challenge, scene.now))
    assert table.peers["pump"].state is PeerState.UP
    scene.monitor.stopService()
    table.stopService()
