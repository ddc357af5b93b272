# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
User code that raises what is no C{Exception}: it is logged, as Twisted's reactor and Deferreds do,
and everything else in the process goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from twisted_heartbeat import (
    Backoff,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerSilent,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import ClosedHere
from twisted_heartbeat.core.diagnosis import describeError
from twisted_heartbeat.link.config import LinkConfig
from twisted_heartbeat.link.state import LinkState

from ..client.test_factory import FakeConnector
from ..project.test_architecture import packageSources
from ..support.virtualnetwork import (
    PEER,
    FakeNetwork,
    FakeTransport,
    Kept,
    KeptFactory,
    Recorder,
    Timed,
)

RAISED = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, ZeroDivisionError]

HEARTBEAT = Heartbeat.within(7.0)


class Trap:
    """
    User code that raises, at one place.

    @ivar sprung: how often it has.
    """

    def __init__(self, kind: type[BaseException], place: str) -> None:
        self.kind = kind
        self.place = place
        self.sprung = 0

    def at(self, place: str) -> None:
        """
        Raise if this is the place.
        """
        if place == self.place:
            self.sprung += 1
            raise self.kind

    def code(self, place: str) -> Callable[..., Any]:
        """
        A function of the user's.
        """
        return lambda *arguments: self.at(place)


class Trapped(Kept):
    """
    A protocol with traps.
    """

    trap: Trap

    def connectionMade(self) -> None:
        self.trap.at("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        self.trap.at("dataReceived")
        super().dataReceived(data)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.trap.at("connectionLost")


def trapped(trap: Trap) -> Any:
    """
    A protocol's class.
    """
    return type("Trapped", (Trapped,), {"trap": trap})


class TrappedHooks(Timed):
    """
    Hooks with traps.
    """

    def __init__(self, clock: Clock, trap: Trap) -> None:
        super().__init__(clock)
        self.trap = trap

    def _heard(self, name: str, value: Any) -> object:
        if name == "connected":
            value.addCleanup(self.trap.at, "cleanup")
        super()._heard(name, value)
        self.trap.at(name)
        return None


def wait(clock: Clock, seconds: float) -> None:
    """
    Let time pass.  The reactor logs what its calls raise, the clock lets it pass.
    """
    for _ in range(round(seconds * 64)):
        with suppress(*RAISED):
            clock.advance(1 / 64)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize(
    "place", ["ping", "suspected", "connected", "disconnected", "cleanup", "connectionLost"]
)
def test_otherLinksAreWatched(place: str, kind: type[BaseException], loggedErrors: Any) -> None:
    """
    What the code of one link raises does not stop the watching of another: that link's peer is
    found dead on its instant.
    """
    clock = Clock()
    trap = Trap(kind, place)

    def make(ping: Any, hooks: Any, protocol: Any) -> Any:
        factory = HeartbeatFactory(
            Factory.forProtocol(protocol), heartbeat=HEARTBEAT, hooks=hooks, ping=ping, clock=clock
        )
        made: Any = factory.buildProtocol(PEER)
        with suppress(BaseException):
            made.makeConnection(FakeTransport(clock, made))
        return made

    hooks = Recorder()
    make(trap.code("ping"), TrappedHooks(clock, trap), trapped(trap))
    other = make(lambda protocol: protocol.transport.write(b"?"), hooks, Kept)
    wait(clock, HEARTBEAT.bound + 0.05)
    assert trap.sprung
    assert type(other.link.cause) is PeerSilent
    # The reactor's turns after the abort.
    wait(clock, 1.0)
    assert hooks.names[-1] == "disconnected"
    assert clock.getDelayedCalls() == []
    loggedErrors.flush(kind)


@pytest.mark.parametrize("place", ["suspected", "recovered", "ping", "settings"])
def test_linkEndsInsideOfUserCode(place: str) -> None:
    """
    A hook or a ping may end its link before it returns, on a transport that reports its end from
    inside of the call.  Then the link is watched no longer, and nothing fails.
    """
    clock, hooks = Clock(), Recorder()

    def ping(protocol: Any) -> None:
        if place == "ping":
            transport.lose()

    factory = HeartbeatFactory(
        Factory.forProtocol(Kept), heartbeat=HEARTBEAT, hooks=hooks, ping=ping, clock=clock
    )
    made: Any = factory.buildProtocol(PEER)
    transport = FakeTransport(clock, made)
    hooks.then["recovered" if place == "settings" else place] = transport.lose
    made.makeConnection(transport)
    link = made.link
    wait(clock, HEARTBEAT.bound * 0.9)
    if place == "recovered":
        transport.deliver(b"!")
    elif place == "settings":
        link.peerWatch.reconfigure(Heartbeat.within(9.0), trusted=False)
    assert link.state is LinkState.GONE
    wait(clock, HEARTBEAT.bound)
    assert hooks.names[-1] == "disconnected"
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize(
    "place",
    [
        "connect",
        "buildProtocol",
        "prepare",
        "policy",
        "connecting",
        "connected",
        "retrying",
        "disconnected",
        "cleanup",
        "connectionLost",
        "canceller",
    ],
)
def test_serviceGoesOn(place: str, kind: type[BaseException], loggedErrors: Any) -> None:
    """
    A service whose user code raises is up again by itself, and stops when it is told to.
    """
    clock = Clock()
    network = FakeNetwork(clock)
    endpoint = network.endpoint()
    trap = Trap(kind, place)
    factory = KeptFactory()
    factory.protocol = trapped(trap)
    build, connect = factory.buildProtocol, endpoint.connect

    def buildProtocol(addr: Any) -> Any:
        trap.at("buildProtocol")
        return build(addr)

    def connectThere(factory: Any) -> Any:
        trap.at("connect")
        return connect(factory)

    def prepare(protocol: Any) -> Any:
        trap.at("prepare")
        return Deferred(trap.code("canceller")) if place == "canceller" else None

    def policy(attempt: int) -> float:
        trap.at("policy")
        return 1.0

    factory.buildProtocol = buildProtocol  # type: ignore[method-assign]
    endpoint.connect = connectThere  # type: ignore[method-assign]
    service = HeartbeatClientService(
        endpoint,
        factory,
        policy,
        clock,
        prepare,
        heartbeat=None,
        hooks=TrappedHooks(clock, trap),
    )
    service.startService()
    for _ in range(3):
        made = network.openTransports
        if made:
            with suppress(BaseException):
                made[0].lose()
        elif endpoint.attempts and not endpoint.attempts[-1].answered:
            with suppress(BaseException):
                endpoint.attempts[-1].succeed()
        wait(clock, 2.0)
    wait(clock, Backoff().spread)
    assert trap.sprung
    trap.place = "nowhere"
    wait(clock, Backoff().spread)
    if not network.openTransports:
        assert endpoint.attempts[-1].succeed() is not None
    if place == "canceller":
        trap.place = place
    else:
        assert service.whenConnected().result is factory.built[-1]
    stopped = service.stopService()
    wait(clock, 1.0)
    assert stopped.called and network.openTransports == []
    assert clock.getDelayedCalls() == []
    loggedErrors.flush(kind)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", ["started", "delay"])
def test_factoryGoesOn(place: str, kind: type[BaseException], loggedErrors: Any) -> None:
    """
    A client factory connects again although its own methods have raised.
    """
    clock = Clock()
    trap = Trap(kind, place)

    class Client(HeartbeatClientFactory):
        protocol = Kept

        def nextDelay(self, attempt: int, cause: Any) -> float:
            trap.at("delay")
            return 1.0

    factory = Client(heartbeat=None)
    factory.clock = clock
    connector = FakeConnector(factory, clock)
    connector.connect()
    connect = connector.connect

    def connectOnce() -> None:
        trap.at("started")
        connect()

    connector.connect = connectOnce  # type: ignore[method-assign]
    connector.fail()
    wait(clock, Backoff().spread)
    assert trap.sprung
    trap.place = "nowhere"
    wait(clock, Backoff().spread)
    assert connector.succeed() is not None
    factory.stopTrying()
    loggedErrors.flush(kind)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", ["admit", "messageReceived"])
def test_serverGoesOn(place: str, kind: type[BaseException], loggedErrors: Any) -> None:
    """
    A server whose C{admit} raises refuses that peer; one whose protocol raises at a message that
    was held loses that link.  The next peer is admitted.
    """
    clock = Clock()
    trap = Trap(kind, place)
    decided: Deferred[None] = Deferred()

    class Device(HeartbeatProtocol):
        def messageReceived(self, message: bytes) -> None:
            trap.at("messageReceived")

    def admit(*_: object) -> Any:
        trap.at("admit")
        return decided

    server = HeartbeatServerFactory(Factory.forProtocol(Device), admit=admit, clock=clock)
    links = []
    for _ in range(2):
        protocol: Any = server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        transport = FakeTransport(clock, protocol)
        protocol.makeConnection(transport)
        transport.deliver(wire.encode(wire.Hello()) + wire.encode(wire.Data(b"m")))
        links.append(protocol.link)
        if place == "admit":
            trap.place = "nowhere"
    decided.callback(None)
    if place == "admit":
        assert list(server.peers.values()) == links[1:]
    wait(clock, 1.0)
    assert [link.state for link in links][0] == "gone"
    assert trap.sprung
    server.close()
    wait(clock, 6.0)
    assert clock.getDelayedCalls() == []
    loggedErrors.flush(kind)


def test_observerThatRaises(loggedErrors: Any) -> None:
    """
    An observer of the log that raises, also what the log's publisher lets pass, stops nothing.
    """
    heard = []

    def observe(event: Any) -> None:
        heard.append(event)
        raise SystemExit

    globalLogPublisher.addObserver(observe)
    try:
        LinkConfig(clock=Clock(), name="hub").events.log.write("connected", generation=1)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [event["event"] for event in heard] == ["connected"]


class Unspeakable(Exception):
    """
    An error that can not be told.
    """

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


def test_objectsThatRaiseWhenTheyAreTold() -> None:
    """
    An error or a cleanup that can not be converted to text is named by its class.
    """
    assert describeError(Unspeakable()) == "Unspeakable: <Unspeakable: str() failed>"
    assert "Unspeakable" in str(ClosedHere(Unspeakable()))  # type: ignore[arg-type]
    clock = Clock()
    ran = []

    class Cleanup:
        def __call__(self) -> None:
            ran.append(1)

        def __repr__(self) -> str:
            raise SystemExit

    factory = HeartbeatFactory(Factory.forProtocol(Kept), heartbeat=None, clock=clock)
    protocol: Any = factory.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    protocol.link.addCleanup(Cleanup())
    transport.lose()
    assert ran == [1]


MAY_CATCH_LESS = {
    # At the start of a command line, an exit is an exit.
    "twisted_heartbeat.conformance.options",
    # The tester runs no code of users.
    "twisted_heartbeat.conformance.runner",
}


def test_noExceptionGetsThrough() -> None:
    """
    No call of user code is guarded against C{Exception} alone, and no observer of the log ends what
    is logged.
    """
    found = []
    for name, source in packageSources().items():
        for number, line in enumerate(source.splitlines(), 1):
            if "except Exception" in line and name not in MAY_CATCH_LESS:
                found.append(f"{name}:{number} catches Exception alone")
            if " Logger(" in line and not {"testing", "conformance"} & {*name.split(".")}:
                found.append(f"{name}:{number} has a log that an observer can end")
    assert found == []


class OnlyItsEnd:
    """
    Hooks that are no L{LinkHooks}, and lack most methods.
    """

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def disconnected(self, link: Any, cause: Any) -> None:
        """
        Keep the cause.
        """
        self.ends.append(cause)


def test_hookThatIsNotThere(loggedErrors: Any) -> None:
    """
    A hook that the user's object lacks is an error like any that a hook raises: it is logged, and
    the end of the link is still told.
    """
    clock, hooks = Clock(), OnlyItsEnd()
    made: Any = HeartbeatFactory(
        Factory.forProtocol(Kept), hooks=cast(Any, hooks), clock=clock
    ).buildProtocol(PEER)
    made.makeConnection(FakeTransport(clock, made))
    wait(clock, 0.1)
    [cause] = hooks.ends
    assert "the connected hook raised AttributeError" in str(cause)
    assert len(loggedErrors.flush(AttributeError)) == 1
