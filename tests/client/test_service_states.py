# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService} under any order of events, in virtual time: endpoints, peers, transports
and user code of every kind, and calls from inside of each other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from math import nan
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from twisted_heartbeat import (
    Cause,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatMixin,
    Limits,
    Link,
    LinkHooks,
    PermanentFailure,
)

HEARTBEAT = Heartbeat.within(7.0)
LIMITS = Limits(connectTimeout=30.0, closeTimeout=5.0, cleanupTimeout=10.0)
STOPS_WITHIN = 5.0 + 10.0 + 0.1
"""C{closeTimeout} and C{cleanupTimeout}, and some slots of the timer wheel."""


class Planned(Exception):
    """
    What user code raises here.
    """


def raises(*_: object) -> Any:
    raise Planned


def neverEnds(*_: object) -> Deferred[Any]:
    return Deferred()


def neverEndsAndCancelRaises(*_: object) -> Deferred[Any]:
    return Deferred(raises)


def failsLater(*_: object) -> Deferred[Any]:
    return fail(Planned())


def noNumber(*_: object) -> float:
    return nan


def isFine(*_: object) -> None:
    pass


BEHAVIOURS = st.sampled_from(
    [isFine, isFine, raises, neverEnds, neverEndsAndCancelRaises, failsLater]
)

CLOSES = st.sampled_from(["at once", "later", "never"])
"""When a transport that is closed or aborted says that it is lost; later is with another event."""

PLACES = [
    "connect",
    "buildProtocol",
    "connectionMade",
    "connectionLost",
    "prepare",
    "cleanup",
    "policy",
    "connecting",
    "connected",
    "suspected",
    "recovered",
    "disconnected",
    "retrying",
    "gaveUp",
]
"""Where user code runs."""


class Transport:
    """
    A connection whose other end does as it is told.

    @ivar closes: when it says that it is lost: at once, with the next event, or never.
    """

    disconnecting = False

    def __init__(self, protocol: Any, closes: str) -> None:
        self.protocol = protocol
        self.closes = closes
        self.aborted = False
        self.lost = False

    @property
    def live(self) -> bool:
        return not (self.aborted or self.lost)

    def write(self, data: bytes) -> None:
        pass

    def getPeer(self) -> str:
        return "the peer"

    def getHost(self) -> str:
        return "here"

    def loseConnection(self) -> None:
        self.disconnecting = True
        if self.closes == "at once":
            self.lose(ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnecting = self.aborted = True
        if self.closes == "at once":
            self.lose(ConnectionLost())

    def lose(self, error: Exception) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(error))


class Watched(HeartbeatMixin, Protocol):
    """
    A protocol whose peer can be pinged, and that cleans up after each link.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def connectionMade(self) -> None:
        link = self.link
        assert link is not None
        self.world.established.append(link)
        link.addCleanup(self.world.cleanUp, link)
        self.world.happen("connectionMade")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.world.happen("connectionLost")

    def sendPing(self) -> None:
        pass


class World(RuleBasedStateMachine):
    """
    A service, and all that it meets.

    @ivar wanted: whether the service shall run.
    @ivar faults: what must not have happened, where an exception would be taken for the user's.
    @ivar behaviour: what user code does, by place.
    @ivar inside: where the next call from inside comes from, and what it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.wanted = False
        self.faults: list[str] = []
        self.behaviour: dict[str, Callable[..., Any]] = {}
        self.inside: tuple[str, Callable[[], None]] | None = None
        self.closes = "at once"
        self.attempts: list[tuple[Deferred[Any], Any]] = []
        self.silent: list[tuple[Deferred[Any], Any]] = []
        self.transports: list[Transport] = []
        self.established: list[Link] = []
        self.cleanups: dict[int, int] = {}
        self.farewells: dict[int, int] = {}
        self.preparing: list[Deferred[None]] = []
        self.stops: list[tuple[Deferred[None], float]] = []
        self.unhandled: list[str] = []
        self.service = HeartbeatClientService(
            self,  # type: ignore[arg-type]
            Factory.forProtocol(self.buildWatched),
            self.policy,
            self.clock,
            self.prepare,
            heartbeat=HEARTBEAT,
            limits=LIMITS,
            hooks=Hooks(self),
        )
        globalLogPublisher.addObserver(self.observe)

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "twisted.internet.defer":
            self.unhandled.append(str(event.get("log_failure")))

    # User code, and the endpoint.

    def happen(self, place: str, *arguments: object) -> Any:
        """
        User code runs: what it calls from inside, and what it comes to.
        """
        inside = self.inside
        if inside is not None and inside[0] == place:
            self.inside = None
            inside[1]()
        return self.behaviour.get(place, isFine)(*arguments)

    def buildWatched(self) -> Watched:
        self.happen("buildProtocol")
        return Watched(self)

    def connect(self, factory: Any) -> Deferred[Any]:
        if not self.wanted:
            self.faults.append("an attempt after stop")
        if any(transport.live for transport in self.transports):
            self.faults.append("an attempt beside a live link")
        self.happen("connect")
        connecting: Deferred[Any] = Deferred()
        self.attempts.append((connecting, factory))
        return connecting

    def policy(self, attempt: int) -> Any:
        if attempt < 1:
            self.faults.append(f"the retry policy was asked for attempt {attempt}")
        found = self.happen("policy")
        return 1.0 if found is None else found

    def prepare(self, protocol: Any) -> Any:
        found = self.happen("prepare")
        if isinstance(found, Deferred) and not found.called:
            self.preparing.append(found)
        return found

    def cleanUp(self, link: Link) -> Any:
        self.cleanups[link.generation] = self.cleanups.get(link.generation, 0) + 1
        return self.happen("cleanup")

    # The rules.

    @initialize(
        behaviours=st.dictionaries(st.sampled_from(PLACES), BEHAVIOURS, max_size=5),
        closes=CLOSES,
        steps=st.integers(0, 3),
    )
    def begin(self, behaviours: dict[str, Callable[..., Any]], closes: str, steps: int) -> None:
        """
        Most of what can happen happens to a link that is there.
        """
        for place, behaviour in behaviours.items():
            self.behave(place, behaviour)
        self.closes = closes
        if steps > 0:
            self.start()
        if steps > 1 and self.attempts:
            self.connectionMade()
        if steps > 2 and self.speaking():
            self.peerSpeaks()

    @rule(place=st.sampled_from(PLACES), behaviour=BEHAVIOURS)
    def behave(self, place: str, behaviour: Callable[..., Any]) -> None:
        # What a factory and a protocol raise is another test's; what they return means nothing.
        if place in ("connect", "buildProtocol", "connectionMade", "connectionLost"):
            behaviour = isFine
        elif place == "policy" and behaviour not in (isFine, raises):
            behaviour = noNumber
        self.behaviour[place] = behaviour

    @rule(closes=CLOSES)
    def closing(self, closes: str) -> None:
        self.closes = closes

    @rule(place=st.sampled_from(PLACES), what=st.sampled_from(["stop", "again", "now", "close"]))
    def callFromInside(self, place: str, what: str) -> None:
        self.inside = (
            place,
            {
                "stop": self.stop,
                "again": self.restart,
                "now": self.service.reconnectNow,
                "close": self.close,
            }[what],
        )

    @precondition(lambda self: not self.wanted)
    @rule()
    def start(self) -> None:
        self.wanted = True
        self.service.startService()

    @precondition(lambda self: self.wanted or self.service.state != "stopped")
    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.stops.append((self.service.stopService(), self.clock.seconds() + STOPS_WITHIN))

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        if self.service.link is not None:
            self.service.link.close()

    @rule()
    def reconnectNow(self) -> None:
        self.service.reconnectNow()

    @rule(most=st.sampled_from([None, 1, 2]))
    def whenConnected(self, most: int | None) -> None:
        self.service.whenConnected(most).addCallbacks(self.given, lambda failure: None)

    def given(self, protocol: Any) -> None:
        if not protocol.transport.live:
            self.faults.append("whenConnected gave a dead link")

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 6.0, 11.0, 31.0]))
    def advance(self, seconds: float) -> None:
        """
        From one delayed call to the next, as a reactor does that is on time.
        """
        until = self.clock.seconds() + seconds
        for _ in range(5000):
            due = min((c.getTime() for c in self.clock.getDelayedCalls()), default=until)
            self.clock.advance(max(0.0, min(due, until) - self.clock.seconds()))
            if due >= until:
                return
        self.faults.append("the clock never comes to rest")

    @precondition(lambda self: self.attempts)
    @rule(saysSo=st.booleans())
    def connectionMade(self, saysSo: bool = True) -> None:
        """
        As an endpoint does: it builds the protocol, connects it, and says so, at once or later.
        """
        connecting, factory = self.attempts.pop(0)
        if connecting.called:
            return
        protocol = self.built(connecting, factory)
        if protocol is None:
            return
        transport = Transport(protocol, self.closes)
        self.transports.append(transport)
        if sum(transport.live for transport in self.transports) > 1:
            self.faults.append("two live links")
        protocol.makeConnection(transport)
        self.silent.append((connecting, protocol))
        if saysSo:
            self.endpointSaysSo(True)

    @precondition(lambda self: self.silent)
    @rule(well=st.booleans())
    def endpointSaysSo(self, well: bool) -> None:
        """
        What an endpoint that has connected the protocol says of it in the end.
        """
        connecting, protocol = self.silent.pop()
        if not connecting.called:
            connecting.callback(protocol) if well else connecting.errback(Failure(Planned()))
        if not well and protocol.transport.live:
            self.faults.append("an attempt that failed has left its link up")

    @precondition(lambda self: self.attempts)
    @rule(error=st.sampled_from([ConnectionRefusedError, Planned, PermanentFailure]))
    def attemptFails(self, error: type[Exception]) -> None:
        connecting, _ = self.attempts.pop(0)
        self.endpointFails(connecting, error())

    @precondition(lambda self: self.attempts)
    @rule()
    def attemptFailsOnceBuilt(self) -> None:
        """
        An endpoint that asks for the protocol first, and then finds no use for it.
        """
        connecting, factory = self.attempts.pop(0)
        self.built(connecting, factory)
        self.endpointFails(connecting, ConnectionRefusedError())

    def built(self, connecting: Deferred[Any], factory: Any) -> Any:
        """
        As an endpoint does: it fails with whatever C{buildProtocol} raises.
        """
        try:
            return factory.buildProtocol("the peer")
        except Exception as error:
            self.endpointFails(connecting, error)
            return None

    def endpointFails(self, connecting: Deferred[Any], error: Exception) -> None:
        if not connecting.called:
            connecting.errback(Failure(error))

    @precondition(lambda self: self.preparing)
    @rule(well=st.booleans())
    def prepared(self, well: bool) -> None:
        preparing = self.preparing.pop(0)
        if not preparing.called:
            preparing.callback(None) if well else preparing.errback(Failure(Planned()))

    @precondition(lambda self: self.losable())
    @rule(error=st.sampled_from([ConnectionDone, ConnectionLost]))
    def connectionLost(self, error: type[Exception]) -> None:
        self.losable()[0].lose(error())

    def losable(self) -> list[Transport]:
        return [one for one in self.transports if not one.lost and one.closes != "never"]

    @precondition(lambda self: self.speaking())
    @rule()
    def peerSpeaks(self) -> None:
        self.speaking()[0].protocol.dataReceived(b"x")

    def speaking(self) -> list[Transport]:
        return [one for one in self.transports if one.live]

    # What always holds.

    @invariant()
    def nothingWrong(self) -> None:
        """
        No attempt after stop, none beside a live link, nobody is given a dead one.
        """
        assert self.faults == []

    @invariant()
    def atMostOneLiveLink(self) -> None:
        """
        At most one live link.
        """
        assert len(self.speaking()) <= 1

    @invariant()
    def everyLinkIsWanted(self) -> None:
        """
        A link is up only where one is wanted, or being closed.
        """
        if self.speaking():
            assert self.service.state in ("connecting", "preparing", "connected", "closing")

    @invariant()
    def cleanedUpOnce(self) -> None:
        """
        Cleanups and the disconnected hook run once per link.
        """
        for counted in (self.cleanups, self.farewells):
            assert set(counted.values()) <= {1}

    @invariant()
    def stopsInTime(self) -> None:
        """
        Each stop fires within closeTimeout and cleanupTimeout.
        """
        now = self.clock.seconds()
        self.stops = [(stopped, due) for stopped, due in self.stops if not stopped.called]
        assert all(now <= due for _, due in self.stops)

    @invariant()
    def stoppedIsStopped(self) -> None:
        """
        A stopped service has no link, no attempt and no delayed call left.
        """
        if self.service.state == "stopped":
            assert not self.wanted
            assert self.clock.getDelayedCalls() == []
            assert self.speaking() == [] and self.service.link is None
            assert {link.state for link in self.established} <= {"gone"}

    def teardown(self) -> None:
        """
        Whatever has happened: a service that is wanted comes back, and one that is not stops.
        """
        try:
            self.inside = None
            self.behaviour.clear()
            self.closes = "at once"
            if self.wanted and self.service.state != "gaveUp":
                self.comeBack()
            self.stop()
            self.advance(STOPS_WITHIN)
            self.stopsInTime()
            assert self.service.state == "stopped"
            self.stoppedIsStopped()
            self.nothingWrong()
            everyOne = {link.generation: 1 for link in self.established}
            assert self.cleanups == everyOne == self.farewells
            gc.collect()
            assert self.unhandled == []
        finally:
            globalLogPublisher.removeObserver(self.observe)

    def comeBack(self) -> None:
        for _ in range(60):
            if self.service.state == "connected" and self.speaking():
                return
            if self.silent:
                self.endpointSaysSo(True)
            elif self.attempts:
                self.connectionMade()
            elif self.preparing:
                self.prepared(True)
            else:
                self.advance(1.0)
        raise AssertionError(f"it does not come back: {self.service.state}")


class Hooks(LinkHooks):
    """
    Does in each hook what the world says.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def connecting(self, attempt: int) -> object:
        return self.world.happen("connecting")

    def connected(self, link: Link) -> object:
        return self.world.happen("connected")

    def suspected(self, link: Link) -> object:
        return self.world.happen("suspected")

    def recovered(self, link: Link) -> object:
        return self.world.happen("recovered")

    def disconnected(self, link: Link, cause: Cause) -> object:
        farewells = self.world.farewells
        farewells[link.generation] = farewells.get(link.generation, 0) + 1
        return self.world.happen("disconnected")

    def retrying(self, retry: object) -> object:
        return self.world.happen("retrying")

    def gaveUp(self, cause: Cause) -> object:
        return self.world.happen("gaveUp")


def test_latePreparation(loggedErrors: Any) -> None:
    """
    A preparation that ends when its link is long gone prepares no other.
    """
    world = World()
    world.behaviour["prepare"] = neverEndsAndCancelRaises
    world.start()
    world.connectionMade()
    world.restart()
    world.connectionMade()
    first, second = world.preparing
    first.callback(None)
    assert world.service.state == "preparing"
    second.callback(None)
    assert world.service.state == "connected"
    world.teardown()
    assert loggedErrors.flush(Planned)


class TestService(World.TestCase):  # type: ignore[misc, valid-type]
    """
    Cleanups exactly once per link, no attempt after stop, stop always fires and in time, at most
    one live link, and nothing left on the clock: promises 9, 10, 12, 16.
    """

    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def _takeWhatWasPlanned(self, loggedErrors: Any) -> Iterator[None]:
        yield
        # A ValueError is what the service makes of a delay that is no number.
        loggedErrors.flush(Planned, ValueError)
