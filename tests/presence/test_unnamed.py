# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Subscribers that join a table without a name, and what the table tells in one go.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from twisted_heartbeat import Change, PeerState, PresenceHooks

from ..status.fleet import Fleet


class Told(PresenceHooks):
    """
    Notes what it is told.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def changed(self, change: Change) -> None:
        self.names.append(change.name)


def pass_(clock: Clock) -> None:
    """
    Let the table tell what there is.
    """
    clock.pump([0.01] * 5)


def test_hookJoinsAndLeaves() -> None:
    """
    A hook that joins is told what happens from then on, until it leaves.
    """
    clock, told = Clock(), Told()
    fleet = Fleet(clock)
    pass_(clock)
    fleet.up("before")
    pass_(clock)
    fleet.table.addHook(told)
    fleet.up("between")
    pass_(clock)
    fleet.table.removeHook(told)
    fleet.up("after")
    pass_(clock)
    assert told.names == ["between"]
    with pytest.raises(ValueError):
        fleet.table.removeHook(told)


def test_hookJoinsTwice() -> None:
    """
    A hook that has joined twice is told twice, until it has left twice.
    """
    clock, told = Clock(), Told()
    fleet = Fleet(clock)
    pass_(clock)
    for change in (fleet.table.addHook, fleet.table.addHook, fleet.table.removeHook):
        change(told)
        fleet.up(f"peer {len(told.names)}")
        pass_(clock)
    assert told.names == ["peer 0", "peer 1", "peer 1", "peer 3"]
    fleet.table.removeHook(told)
    fleet.up("after")
    pass_(clock)
    assert told.names[4:] == []


def test_hookJoinsBeforeTheStart() -> None:
    """
    A hook may join before the table has read its store, and stays across a restart of the service.
    """
    clock, told = Clock(), Told()
    fleet = Fleet(clock)
    fleet.table.stopService()
    pass_(clock)
    fleet.table.addHook(told)
    for name in ("first", "second"):
        fleet.table.startService()
        pass_(clock)
        fleet.up(name)
        pass_(clock)
        fleet.table.stopService()
        pass_(clock)
    assert {"first", "second"} <= set(told.names)


def test_statesAndCounts() -> None:
    """
    The states and the counts agree with what the table says of each peer, of several carriers too.
    """
    clock = Clock()
    fleet = Fleet(clock, merge=True)
    pass_(clock)
    fleet.up("a", "b", "c")
    fleet.up("a", carrier="udp")
    fleet.suspect("b")
    fleet.down("c")
    table = fleet.table
    assert table.states() == {name: peer.state for name, peer in table.peers.items()}
    assert table.states()["c"] is PeerState.DOWN
    assert table.peers["a"].carriers == ("tcp", "udp")
    assert table.counts() == {
        ("up", "tcp"): 1,
        ("up", "udp"): 1,
        ("suspect", "tcp"): 1,
        ("down", "tcp"): 1,
    }
