# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the tests of both kinds of ping rounds have in common.
"""

from __future__ import annotations

from typing import Any

from twisted_heartbeat import Heartbeat
from twisted_heartbeat.batching.poller import idlePollerFor

from .countingsockets import Crew

BEAT = Heartbeat(interval=2.0, timeout=2.0)

CLOSE = Crew.STEP + 0.05
"""Seconds by which two verdicts may differ."""


def inRound(*peers: Any) -> bool:
    """
    Whether all of these peers are in a ping round.
    """
    states = set()
    for peer in peers:
        poll: Any = idlePollerFor(peer.reactor)
        states.add((peer.connection.batch is not None, peer.connection in poll.quiet))
    assert states <= {(True, True), (False, False)}
    return states == {(True, True)}


class RoundCrew(Crew):
    """
    A server and its peers, all of which are due in one instant, so that one round pings them.
    """

    LAST: float
    """When the peers are pinged last before they have settled, in seconds."""

    def settle(self) -> None:
        """
        Let time pass until a peer that only answers is in a round, halfway between two pings.
        """
        self.wait(self.LAST + 1.0)

    def places(self, count: int) -> list[float]:
        """
        Return when the peers are pinged next, so often.
        """
        return [self.LAST + BEAT.interval * number for number in range(1, count + 1)]

    def comesBack(self) -> None:
        """
        Check that after some intervals the peers that are still there are in a round, and that all
        is well.
        """
        for peer in self.peers:
            peer.answers = True
        self.settle()
        there = [peer for peer in self.peers if peer.connection.connected]
        assert there and inRound(*there)
        self.forget()
        self.wait(3 * BEAT.bound)
        assert self.hooks.names == []
        for peer in there:
            assert peer.socket.calls == ["send", "recv"] * 6
            assert peer.reactor.calls == []
