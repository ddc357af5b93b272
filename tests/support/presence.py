# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a presence table is told about, and whom it tells: watched objects without a network, a
subscriber that keeps what it hears, a store that fails when a test says so, and a table in virtual
time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Change,
    Gap,
    MemoryStore,
    PeerPresence,
    PeerState,
    PresenceHooks,
    PresenceTable,
)

_generations = count(1)


class FakeWatched:
    """
    A link, a datagram peer or a checked name, as an observer sees it.
    """

    def __init__(
        self,
        name: str = "",
        *,
        carrier: str = "tcp",
        source: str = "hub",
        generation: int | None = None,
        host: str | None = "192.0.2.1",
        bound: float | None = 10.0,
        isAuthenticated: bool = False,
        isServerSide: bool = True,
    ) -> None:
        self.name = name
        self.carrier = carrier
        self.source = source
        self.generation = next(_generations) if generation is None else generation
        self.peer = None if host is None else IPv4Address("TCP", host, 7000 + self.generation)
        self.bound = bound
        self.isAuthenticated = isAuthenticated
        self.isServerSide = isServerSide
        self.silence: float | None = 0.0
        self.rtt: float | None = None


class Subscriber(PresenceHooks):
    """
    Keeps what it is told.

    @ivar told: the changes, in the order in which they came.
    @ivar gaps: the gaps, each with the peers at that time.
    @ivar then: called with each change or gap, once it is kept; may raise, or return a Deferred.
    """

    def __init__(self) -> None:
        self.told: list[Change] = []
        self.gaps: list[tuple[Gap, Sequence[PeerPresence]]] = []
        self.then: Callable[[Change | Gap], object] = lambda change: None

    @property
    def numbers(self) -> list[int]:
        """
        The numbers of the changes.
        """
        return [change.number for change in self.told]

    @property
    def states(self) -> list[PeerState]:
        """
        The states of the changes.
        """
        return [change.state for change in self.told]

    def changed(self, change: Change) -> object:
        self.told.append(change)
        return self.then(change)

    def missed(self, gap: Gap, peers: Sequence[PeerPresence]) -> object:
        self.gaps.append((gap, peers))
        return self.then(gap)


class FailingStore(MemoryStore):
    """
    A store in memory that fails, or does not answer, as long as the test wants.

    @ivar error: what each call fails with; L{None} to work.
    @ivar calls: the names of the methods that were called.
    @ivar hold: the methods whose answers wait for L{release}.
    """

    def __init__(self, keep: int = 10_000) -> None:
        super().__init__(keep)
        self.error: BaseException | None = None
        self.calls: list[str] = []
        self.hold: set[str] = set()
        self._held: list[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = []

    def _do(self, name: str, work: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        self.calls.append(name)
        if name in self.hold:
            held: Deferred[Any] = Deferred()
            self._held.append((held, work))
            return held
        if self.error is not None:
            return fail(self.error)
        return work()

    def release(self) -> None:
        """
        Answer what waits: with C{error}, if there is one.
        """
        self.hold.clear()
        held, self._held = self._held, []
        for deferred, work in held:
            if not deferred.called:
                result = work() if self.error is None else fail(self.error)
                result.chainDeferred(deferred)

    def load(self) -> Any:
        return self._do("load", super().load)

    def reserve(self, count: int) -> Any:
        parent = super()
        return self._do("reserve", lambda: parent.reserve(count))

    def append(
        self, changes: Sequence[Change | Gap], peers: Any = (), forgotten: Collection[str] = ()
    ) -> Any:
        parent, kept = super(), (list(changes), list(peers), list(forgotten))
        return self._do("append", lambda: parent.append(*kept))

    def changes(self, since: int, limit: int) -> Any:
        parent = super()
        return self._do("changes", lambda: parent.changes(since, limit))

    def history(self, name: str, limit: int) -> Any:
        parent = super()
        return self._do("history", lambda: parent.history(name, limit))

    def cursor(self, name: str) -> Any:
        parent = super()
        return self._do("cursor", lambda: parent.cursor(name))

    def setCursor(self, name: str, number: int) -> Any:
        parent = super()
        return self._do("setCursor", lambda: parent.setCursor(name, number))


class Watcher:
    """
    A running table in virtual time, with one subscriber.

    @ivar clock: decides.
    @ivar wall: what the wall clock shows, in seconds since 1970.
    @ivar hooks: the subscriber, which has no name.
    """

    def __init__(
        self, store: Any = None, *, clock: Clock | None = None, start: bool = True, **settings: Any
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.wall = 1_000_000.0 + self.clock.seconds()
        self.hooks = Subscriber()
        self.store = MemoryStore() if store is None else store
        self.table = PresenceTable(
            store=self.store,
            hooks=self.hooks,
            clock=self.clock,
            wallClock=lambda: self.wall,
            **settings,
        )
        if start:
            self.start()

    def start(self) -> None:
        """
        Start the service.
        """
        self.table.startService()

    def advance(self, seconds: float = 0.0) -> None:
        """
        Let time pass, and with it all that is due, when it is due.
        """
        until = self.clock.seconds() + seconds
        self._settle()
        while due := [call.getTime() for call in self.clock.getDelayedCalls()]:
            if min(due) > until:
                break
            self.stall(max(0.0, min(due) - self.clock.seconds()))
        self.stall(max(0.0, until - self.clock.seconds()))

    def stall(self, seconds: float) -> None:
        """
        Let time pass in which this process does not run.
        """
        self.wall += seconds
        self.clock.advance(seconds)
        self._settle()

    def _settle(self) -> None:
        for _ in range(100):
            due = self.clock.getDelayedCalls()
            if not due or min(call.getTime() for call in due) > self.clock.seconds():
                return
            self.clock.advance(0)
        raise AssertionError("there is no end to what is due")

    def stop(self) -> None:
        """
        Stop the service cleanly.
        """
        stopped = self.table.stopService()
        self.advance()
        if not stopped.called:
            self.advance(20)
        assert stopped.called
        assert self.clock.getDelayedCalls() == []

    def restart(self, **settings: Any) -> Watcher:
        """
        Stop, and start a new table on the same store, as another process would.
        """
        self.stop()
        return Watcher(self.store, clock=self.clock, **settings)

    def stateOf(self, name: str) -> PeerState | None:
        """
        The state of a peer; L{None} if the table does not have it.
        """
        peer = self.table.peer(name)
        return None if peer is None else peer.state
