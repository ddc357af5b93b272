# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Old and new links of one name and the other carriers, interleaved at random, beside a model of a few
lines (promise 23).
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from twisted_heartbeat import Change, PeerReset, PeerState

from ..support.presence import FakeWatched, Subscriber, Watcher
from .test_table import resultOf

UP, SUSPECT, DOWN, UNKNOWN = PeerState.UP, PeerState.SUSPECT, PeerState.DOWN, PeerState.UNKNOWN

STEP = 1.0
"""Seconds between two things that happen.  All times of the model are whole seconds."""


class ModelPeer:
    """
    What a peer is, in the plainest words.

    @ivar links: whether each of its links is suspected.
    @ivar bound: the longest of them, or that of the last one.
    @ivar down: when it is down unless it is heard; L{None} for never.
    """

    def __init__(self) -> None:
        self.links: dict[int, bool] = {}
        self.bound = 0.0
        self.state = UNKNOWN
        self.down: float | None = None


class Interleaving(RuleBasedStateMachine):
    """
    Links, sessions and check-ins of three names come and go, the watcher is restarted, and time
    passes.
    """

    links = Bundle("links")

    @initialize(grace=st.sampled_from([0.0, 3.0]), merge=st.booleans())
    def begin(self, grace: float, merge: bool) -> None:
        """
        Start.
        """
        self.grace, self.merge = grace, merge
        self.watcher = Watcher(grace=grace, merge=merge)
        self.mail = Subscriber()
        self.watcher.table.subscribe("mail", self.mail, since=0)
        self.model: dict[str, ModelPeer] = {}
        self.alive: dict[int, tuple[FakeWatched, str]] = {}

    @rule(
        target=links,
        name=st.sampled_from("abc"),
        carrier=st.sampled_from(["tcp", "udp", "http"]),
        source=st.sampled_from(["one", "two"]),
        generation=st.integers(1, 3),
        proven=st.booleans(),
        bound=st.sampled_from([4.0, 8.0]),
    )
    def connect(
        self, name: str, carrier: str, source: str, generation: int, proven: bool, bound: float
    ) -> int:
        """
        A peer is heard in one more way.
        """
        watched = FakeWatched(
            name,
            carrier=carrier,
            source=source,
            generation=generation,
            isAuthenticated=proven,
            bound=bound,
        )
        shown = name if proven or self.merge else f"{carrier}/{name}"
        peer = self.model.setdefault(shown, ModelPeer())
        peer.links[id(watched)] = False
        peer.down = None
        self.alive[id(watched)] = watched, shown
        self.watcher.table.connected(watched)
        self.settle(shown)
        return id(watched)

    @rule(link=links)
    def suspect(self, link: int) -> None:
        """
        A peer does not answer.
        """
        self.mark(link, True)

    @rule(link=links)
    def recover(self, link: int) -> None:
        """
        A peer answers.
        """
        self.mark(link, False)

    def mark(self, link: int, suspected: bool) -> None:
        """
        Change the state of one link.
        """
        if link in self.alive:
            watched, name = self.alive[link]
            self.model[name].links[link] = suspected
            tell = "suspected" if suspected else "recovered"
            getattr(self.watcher.table, tell)(watched)
            self.settle(name)

    @rule(link=consumes(links))
    def end(self, link: int) -> None:
        """
        A link ends.
        """
        if link in self.alive:
            watched, name = self.alive.pop(link)
            peer = self.model[name]
            del peer.links[link]
            self.watcher.table.disconnected(watched, PeerReset())
            if not peer.links:
                peer.bound = watched.bound or 0.0
                if self.grace:
                    peer.state, peer.down = SUSPECT, self.watcher.clock.seconds() + self.grace
                else:
                    peer.state = DOWN
            else:
                self.settle(name)

    @rule()
    def restart(self) -> None:
        """
        The watcher ends and starts again: all links are gone, and no peer is heard yet.
        """
        now = self.watcher.clock.seconds()
        self.watcher = self.watcher.restart(grace=self.grace, merge=self.merge)
        self.watcher.table.subscribe("mail", self.mail)
        self.alive.clear()
        for peer in self.model.values():
            if peer.state is not DOWN:
                peer.state, peer.down = UNKNOWN, now + peer.bound + self.grace
            peer.links.clear()

    @rule(steps=st.integers(1, 5))
    def wait(self, steps: int) -> None:
        """
        Time passes.
        """
        for _ in range(steps):
            for _ in range(4):
                self.watcher.advance(STEP / 4)
            for peer in self.model.values():
                if peer.down is not None and peer.down <= self.watcher.clock.seconds():
                    peer.state, peer.down = DOWN, None

    def settle(self, name: str) -> None:
        """
        A peer with links is suspect if all of them are.
        """
        peer = self.model[name]
        if peer.links:
            peer.state = SUSPECT if all(peer.links.values()) else UP
            peer.bound = max(self.alive[link][0].bound or 0.0 for link in peer.links)

    @invariant()
    def statesAreThoseOfTheModel(self) -> None:
        """
        Each peer has the state that the model has.
        """
        if hasattr(self, "model"):
            shown = {name: peer.state for name, peer in self.watcher.table.peers.items()}
            assert shown == {name: peer.state for name, peer in self.model.items()}

    def teardown(self) -> None:
        """
        All changes, as a subscriber heard them and as the store has them, are one chain for each
        peer, that ends in its present state.
        """
        if hasattr(self, "model"):
            self.watcher.advance(0.1)
            present = {name: peer.state for name, peer in self.watcher.table.peers.items()}
            self.watcher.stop()
            stored = resultOf(self.watcher.store.changes(0, 10_000))
            assert stored == self.mail.told
            assertChained(stored)
            assert {change.name: change.state for change in stored} == present


def assertChained(changes: list[Any]) -> None:
    """
    The numbers only grow, and each change begins where the peer's last one ended.
    """
    last: dict[str, Change] = {}
    number = 0
    for change in changes:
        assert change.number > number
        number = change.number
        before = last.get(change.name)
        assert change.previous is (UNKNOWN if before is None else before.state)
        assert change.state is not change.previous
        last[change.name] = change


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
