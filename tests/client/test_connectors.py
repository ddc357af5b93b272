# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientFactory} in the place of L{ReconnectingClientFactory}: several connectors for one
factory, subclasses that override what they like and call no base, and connectors that the
application drives itself.
"""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ClientFactory, Protocol, ReconnectingClientFactory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from twisted_heartbeat import (
    ConnectFailed,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatMixin,
    Limits,
    PermanentFailure,
)

from ..support.loopback import NAME, Loopback, Peers, clientOptions, wait, within
from ..support.virtualnetwork import FakeTransport, Kept, Recorder
from .test_factory import FakeConnector, Real, Scene, Steady, connect


class Pool(Scene):
    """
    One factory and three connectors in virtual time, all connected.
    """

    def __init__(self, kind: type[HeartbeatClientFactory] = Steady, **settings: Any) -> None:
        super().__init__(kind, **settings)
        self.connectors = [FakeConnector(self.factory, self.clock) for _ in range(3)]
        for connector in self.connectors:
            connector.connect()
        self.transports = [self.connect(connector) for connector in reversed(self.connectors)]
        self.transports.reverse()

    def connect(self, connector: FakeConnector) -> FakeTransport:
        """
        A connector connects.
        """
        transport = connector.succeed()
        assert transport is not None
        return transport

    def end(self) -> None:
        """
        Stop, and lose the links.
        """
        self.factory.stopTrying()
        for connector in self.connectors:
            connector.transports[-1].lose()
        assert self.clock.getDelayedCalls() == []

    @property
    def generations(self) -> list[int]:
        """
        The links that C{connected} told.
        """
        return [link.generation for link in self.hooks.told("connected")]


def end(scene: Scene) -> None:
    """
    Stop, and lose the link if there is one.
    """
    scene.factory.stopTrying()
    for transport in scene.connector.transports:
        transport.lose()
    assert scene.clock.getDelayedCalls() == []


# One factory, several connectors.


def test_eachConnectorHasItsEvents() -> None:
    """
    Each link of a pool is C{connected}, and C{disconnected} when it ends; each is replaced.
    """
    pool = Pool()
    assert sorted(pool.generations) == [1, 2, 3]
    for transport in pool.transports:
        transport.lose()
    assert len(pool.hooks.told("disconnected")) == 3
    pool.wait(1.25)
    assert [connector.connects for connector in pool.connectors] == [2, 2, 2]
    for connector in pool.connectors:
        pool.connect(connector)
    assert sorted(pool.generations) == [1, 2, 3, 4, 5, 6]
    pool.end()


def test_linkBelongsToItsConnector() -> None:
    """
    The connectors of a pool connect in any order, and a loss is retried with the one that lost.
    """
    pool = Pool()
    pool.transports[1].lose()
    pool.wait(1.25)
    assert [connector.connects for connector in pool.connectors] == [1, 2, 1]
    pool.factory.stopTrying()
    pool.transports[0].lose()
    pool.transports[2].lose()


def test_delaysPerConnector() -> None:
    """
    A connector that fails again and again waits longer and longer; another begins at the shortest.
    """
    pool = Pool()
    first, second, _ = pool.connectors
    for _ in range(3):
        first.transports[-1].lose()
        pool.clock.advance(pool.delays[-1])
        pool.connect(first)
    assert pool.delays == [1, 2, 4]
    second.transports[-1].lose()
    assert pool.delays[-1] == 1
    assert pool.factory.retries == 1
    pool.end()


def test_provenLinkForgivesItsConnectorAlone() -> None:
    """
    A link that is proven resets the delay of its own connector only; a call of C{resetDelay} by
    the application, which names no connector, resets all.
    """
    pool = Pool()
    first, second, _ = pool.connectors
    for _ in range(2):
        first.transports[-1].lose()
        pool.clock.advance(pool.delays[-1])
        pool.connect(first)
    second.transports[-1].deliver(b"hello")
    first.transports[-1].lose()
    assert pool.delays == [1, 2, 4]
    pool.clock.advance(4)
    pool.connect(first)
    pool.factory.resetDelay()
    first.transports[-1].lose()
    assert pool.delays[-1] == 1
    pool.end()


def test_maxRetriesPerConnector() -> None:
    """
    One connector has given up, and the others go on.
    """

    class Few(Steady):
        maxRetries = 1

    pool = Pool(Few)
    first, second, _ = pool.connectors
    first.transports[-1].lose()
    pool.wait(1.25)
    first.fail()
    assert len(pool.hooks.told("gaveUp")) == 1
    second.transports[-1].lose()
    pool.wait(1.25)
    assert second.connects == 2
    pool.end()


def test_cleanupsHoldTheirConnectorAlone() -> None:
    """
    The cleanups of one link hold back its own connector's next attempt, and no other's.
    """
    pool = Pool()
    cleaning: Deferred[None] = Deferred()
    links = {link.generation: link for link in pool.hooks.told("connected")}
    # They connected from the last to the first.
    links[3].addCleanup(lambda: cleaning)
    for transport in pool.transports:
        transport.lose()
    pool.wait(5)
    assert [connector.connects for connector in pool.connectors] == [1, 2, 2]
    cleaning.callback(None)
    pool.wait(1.25)
    assert [connector.connects for connector in pool.connectors] == [2, 2, 2]
    pool.factory.stopTrying()


def test_stopTryingStopsAll() -> None:
    """
    C{stopTrying} ends the wait of one connector and the attempt of another, and leaves a link up.
    """
    pool = Pool()
    pool.transports[0].lose()
    pool.wait(1.25)
    pool.transports[1].lose()
    pool.factory.stopTrying()
    assert [connector.state for connector in pool.connectors] == [
        "disconnected",
        "disconnected",
        "connected",
    ]
    pool.wait(100)
    pool.transports[2].lose()
    assert [connector.connects for connector in pool.connectors] == [2, 1, 1]
    assert pool.clock.getDelayedCalls() == []


def test_linkIsTheLatest() -> None:
    """
    C{link} is the latest link that is up.
    """
    pool = Pool()
    link = pool.factory.link
    assert link is not None and link.generation == 3
    pool.transports[0].lose()
    link = pool.factory.link
    assert link is not None and link.generation == 2
    pool.factory.stopTrying()
    pool.transports[1].lose()
    pool.transports[2].lose()
    assert pool.factory.link is None


def test_droppedConnectorsLeaveNothing() -> None:
    """
    A connector that the application has dropped is kept by nothing: neither one that was stopped,
    nor one that gave up, nor one whose loss the application has handled itself.
    """

    class Handled(Steady):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            pass

    class GivesUp(Steady):
        maxRetries = 0

    for kind in (Steady, Handled, GivesUp):
        pool = Pool(kind)
        kept = [weakref.ref(connector) for connector in pool.connectors]
        if kind is Steady:
            pool.factory.stopTrying()
        for transport in pool.transports:
            transport.lose()
        pool.factory.connector = None
        pool.connectors.clear()
        pool.transports.clear()
        # The record has the links, and the fake transports know their connectors.
        pool.hooks.events.clear()
        del transport
        gc.collect()
        assert [reference() for reference in kept] == [None] * 3
        assert list(pool.factory._heartbeatConnectors) == []


def test_waitKeepsConnector() -> None:
    """
    A connector that nothing else refers to is kept while its next attempt is due.
    """
    pool = Pool()
    for transport in pool.transports:
        transport.lose()
    pool.factory.connector = None
    connects = [connector.__dict__ for connector in pool.connectors]
    pool.connectors.clear()
    del transport
    gc.collect()
    pool.wait(1.25)
    assert [state["connects"] for state in connects] == [2, 2, 2]
    pool.factory.stopTrying()


# stopTrying and continueTrying.


@pytest.mark.parametrize("how", ["connectionMade", "buildProtocol", "attribute", "byte"])
def test_stopTryingHolds(how: str) -> None:
    """
    What says "do not reconnect" before the peer's first byte holds after it, whoever says it; the
    link has its events all the same.
    """

    class Stopping(Kept):
        def connectionMade(self) -> None:
            if how == "connectionMade":
                self.factory.stopTrying()

        def dataReceived(self, data: bytes) -> None:
            if how == "byte":
                self.factory.stopTrying()

    class Mine(Steady):
        protocol = Stopping
        continueTrying = how != "attribute"

        def buildProtocol(self, addr: Any) -> Any:
            if how == "buildProtocol":
                self.stopTrying()
            return super().buildProtocol(addr)

    scene = Scene(Mine)
    scene.start()
    transport = scene.connected()
    transport.deliver(b"220 hello")
    transport.lose()
    scene.wait(100)
    assert scene.connector.connects == 1
    assert scene.hooks.names == ["connecting", "connected", "disconnected"]
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", ["resetDelay", "continueTrying"])
def test_resumedWhileUp(how: str) -> None:
    """
    A factory that was stopped and resumed while its link is up reconnects after the next loss.
    """
    scene = Scene()
    scene.start()
    transport = scene.connected()
    scene.factory.stopTrying()
    if how == "resetDelay":
        scene.factory.resetDelay()
    else:
        scene.factory.continueTrying = 1
    transport.lose()
    assert scene.delays == [1]
    scene.wait(1.25)
    scene.connected()
    assert [link.generation for link in scene.hooks.told("connected")] == [1, 2]
    end(scene)


@pytest.mark.parametrize("when", ["while waiting", "while connecting", "after the loss"])
def test_resumedByConnect(when: str) -> None:
    """
    A factory that was stopped, and whose connector the application connects later, has a link with
    its events, and reconnects after its loss.
    """
    scene = Scene()
    scene.start()
    if when != "while connecting":
        scene.connected().lose() if when == "while waiting" else scene.connected()
    scene.factory.stopTrying()
    if when == "after the loss":
        scene.connector.transports[-1].lose()
    scene.wait(10)
    assert scene.connector.state == "disconnected"
    scene.factory.resetDelay()
    scene.connector.connect()
    scene.connected().lose()
    assert scene.hooks.names[-4:] == ["connecting", "connected", "disconnected", "retrying"]
    scene.wait(1.25)
    assert scene.connector.state == "connecting"
    end(scene)


def test_continueTryingTakenBackWhileWaiting() -> None:
    """
    C{continueTrying = 0} during the wait: no further attempt.
    """
    scene = Scene()
    scene.start()
    scene.connector.fail()
    scene.factory.continueTrying = 0
    scene.wait(10)
    assert scene.connector.connects == 1
    scene.factory.retry(scene.connector)  # type: ignore[arg-type]
    assert scene.clock.getDelayedCalls() == []


# retry() and connect() of the application's own.


@pytest.mark.parametrize("state", ["connected", "connecting"])
def test_retryWhileUnderWay(state: str) -> None:
    """
    C{retry} while the connector is connecting or connected is one warning, and the next loss is
    followed by an attempt.
    """
    scene = Scene()
    scene.start()
    if state == "connected":
        scene.connected()
    with capturedLogs() as logged:
        scene.factory.retry()
        scene.wait(10)
    assert scene.connector.connects == 1
    [warning] = [event for event in logged if event["log_level"] is LogLevel.warn]
    assert "retry() ignored" in warning["log_format"]
    assert warning["connector"] is scene.connector
    if state == "connecting":
        scene.connected()
    scene.connector.transports[-1].lose()
    scene.wait(1.25)
    assert scene.connector.connects == 2
    end(scene)


def test_retryTwice() -> None:
    """
    A subclass that calls both its base and C{retry} gets one attempt.
    """

    class Twice(Steady):
        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            super().clientConnectionFailed(connector, reason)
            self.retry(connector)

        clientConnectionLost = clientConnectionFailed

    scene = Scene(Twice)
    scene.start()
    scene.connector.fail()
    scene.wait(1.25)
    scene.connected().lose()
    assert scene.delays == [1, 2]
    scene.wait(2.25)
    assert scene.connector.connects == 3
    end(scene)


def test_retryLater() -> None:
    """
    A subclass may handle a loss without its base, and call C{retry} when it likes.
    """

    class Later(Steady):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            self.clock.callLater(7, self.retry, connector)

    scene = Scene(Later)
    scene.start()
    scene.connected().lose()
    scene.wait(7)
    assert scene.connector.connects == 1
    assert scene.delays == [1]
    scene.wait(1.25)
    assert scene.connector.connects == 2
    end(scene)


@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("seconds", [None, 0.125])
def test_connectOfOnesOwn(seconds: float | None, base: bool) -> None:
    """
    A subclass that connects by itself, at once or later, and calls its base or does not, has one
    link after the other, each with its events in pairs.
    """

    class Own(Steady):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            if base:
                super().clientConnectionLost(connector, reason)
            if seconds is None:
                connector.connect()
            else:
                self.clock.callLater(seconds, connector.connect)

        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            self.clientConnectionLost(connector, reason)

    scene = Scene(Own)
    scene.start()
    for _ in range(3):
        scene.connected().lose()
        scene.wait(0.125)
        scene.connector.fail()
        scene.wait(0.125)
    scene.connected()
    ups = [link.generation for link in scene.hooks.told("connected")]
    assert ups == [1, 2, 3, 4]
    assert len(scene.hooks.told("disconnected")) == 3
    assert len(scene.hooks.told("connecting")) == 7
    assert scene.connector.connects == 7
    # Only the user's own timers are left, and of them none.
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize("callsBase", [False, True])
def test_methodsSetOnTheFactory(callsBase: bool) -> None:
    """
    Methods that the application sets on the factory itself are as good as overridden ones.
    """
    scene = Scene()
    factory: Any = scene.factory
    called: list[str] = []
    for name in ("startedConnecting", "clientConnectionLost", "clientConnectionFailed"):

        def replacement(connector: Any, *given: Any, name: str = name) -> None:
            called.append(name)
            if callsBase:
                getattr(Steady, name)(factory, connector, *given)
            elif given:
                factory.retry(connector)

        setattr(factory, name, replacement)
    scene.start()
    scene.connector.fail()
    scene.wait(1.25)
    transport = scene.connected()
    transport.deliver(b"hello")
    transport.lose()
    assert scene.delays == [1, 1]
    scene.wait(1.25)
    assert scene.connector.connects == 3
    names = ["connecting", "retrying", "connecting", "connected", "disconnected", "retrying"]
    assert scene.hooks.names == [*names, "connecting"]
    assert called == [
        "startedConnecting",
        "clientConnectionFailed",
        "startedConnecting",
        "clientConnectionLost",
        "startedConnecting",
    ]
    factory.stopTrying()


def test_connectBeforeBase() -> None:
    """
    A subclass may call C{connect()} first and its base after that: the base has nothing to do.
    """

    class Own(Steady):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            connector.connect()
            super().clientConnectionLost(connector, reason)

    scene = Scene(Own)
    scene.start()
    scene.connected().lose()
    scene.connected().lose()
    scene.connected()
    assert [link.generation for link in scene.hooks.told("connected")] == [1, 2, 3]
    assert scene.clock.getDelayedCalls() == []
    scene.factory.stopTrying()


def test_connectWhileCleanupsRun() -> None:
    """
    A connect of the application's own does not wait for the cleanups of the last link, and the end
    of these changes nothing for the next.
    """

    class Own(Steady):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            connector.connect()

    scene = Scene(Own)
    scene.start()
    transport = scene.connected()
    cleaning: Deferred[None] = Deferred()
    assert scene.factory.link is not None
    scene.factory.link.addCleanup(lambda: cleaning)
    transport.lose()
    scene.connected()
    cleaning.callback(None)
    assert scene.factory.link is not None
    assert scene.factory.link.generation == 2
    assert scene.factory.link.state == "alive"
    scene.factory.stopTrying()


def test_connectCutsTheWaitShort() -> None:
    """
    C{connect()} during the wait takes the place of the attempt that was to come, and the failures
    before it count.
    """
    scene = Scene()
    scene.start()
    scene.connector.fail()
    scene.connector.connect()
    assert scene.clock.getDelayedCalls() == []
    scene.connector.fail()
    assert scene.delays == [1, 2]
    assert scene.hooks.told("connecting") == [1, 2]
    end(scene)


def test_connectorThatDoesNotConnect(loggedErrors: Any) -> None:
    """
    What C{connector.connect()} raises, a C{startFactory} for example, is logged, and the connector
    is tried again.
    """

    class Refusing(Steady):
        starts = 0

        def startFactory(self) -> None:
            self.starts += 1
            if self.starts == 2:
                raise RuntimeError("no file is left")

    scene = Scene(Refusing)
    scene.start()
    scene.connector.fail()
    scene.wait(1.25)
    assert len(loggedErrors.flush(RuntimeError)) == 1
    assert scene.delays == [1, 2]
    scene.wait(2.25)
    assert scene.factory.starts == 3
    assert scene.connector.state == "connecting"
    end(scene)


# Subclasses.


def test_noSuperInit() -> None:
    """
    A subclass whose C{__init__} calls no base has the defaults, and class attributes in their
    place.
    """

    class Carbon(Steady):
        name = "carbon"
        limits = None

        def __init__(self, hooks: Any) -> None:
            self.hooks = hooks

        def startedConnecting(self, connector: Any) -> None:
            pass

    scene = Scene(Carbon)
    scene.start()
    scene.connected().lose()
    scene.wait(1.25)
    assert scene.connector.connects == 2
    assert scene.hooks.names == [
        "connecting",
        "connected",
        "disconnected",
        "retrying",
        "connecting",
    ]
    assert scene.factory.heartbeat == Heartbeat()
    assert scene.factory.limits is None
    end(scene)


class Other(ClientFactory):
    """
    Another factory: takes arguments, and builds its own protocols.
    """

    def __init__(self, url: str, *, agent: str = "none") -> None:
        self.url = url
        self.agent = agent

    def buildProtocol(self, addr: Any) -> Any:
        protocol = Kept()
        protocol.factory = self
        return protocol

    def startedConnecting(self, connector: Any) -> None:
        self.seen = connector


class OtherFirst(Other, Steady):
    """
    The other base comes first.
    """


class OtherLast(Steady, Other):
    """
    The other base comes last.
    """


@pytest.mark.parametrize("kind", [OtherFirst, OtherLast])
def test_otherFactoryAmongTheBases(kind: Any) -> None:
    """
    Beside another factory among the bases, before or behind, it is watched and it reconnects.
    """
    clock, hooks = Clock(), Recorder()
    factory = kind("ws://hub", agent="mine")
    factory.clock, factory.hooks = clock, hooks
    connector = FakeConnector(factory, clock)
    connector.connect()
    transport = connector.succeed()
    assert transport is not None
    assert (factory.url, factory.agent) == ("ws://hub", "mine")
    assert hooks.names == ["connecting", "connected"]
    assert factory.link.generation == 1
    transport.lose()
    clock.advance(1)
    assert connector.connects == 2
    factory.stopTrying()


def test_initTakesItsSettings() -> None:
    """
    C{__init__} keeps the settings and hands the rest to the next base; what that does not know is a
    C{TypeError}.
    """
    hooks = Recorder()
    factory = OtherLast("ws://hub", hooks=hooks, heartbeat=None, agent="mine")
    assert factory.hooks is hooks
    assert factory.heartbeat is None
    assert (factory.url, factory.agent) == ("ws://hub", "mine")
    with pytest.raises(TypeError):
        HeartbeatClientFactory("ws://hub")
    with pytest.raises(TypeError):
        HeartbeatClientFactory(hearbeat=None)


class MixedIn(HeartbeatMixin, Kept):
    """
    Has a place for a link of its own.
    """


def ownProtocols(kind: Any) -> Any:
    """
    Factories that build their own protocols, in different ways.
    """

    class Builds(Steady):
        def buildProtocol(self, addr: Any) -> Any:
            protocol = kind()
            protocol.factory = self
            return protocol

    class Inherits(Builds):
        pass

    class Adds(Builds):
        def buildProtocol(self, addr: Any) -> Any:
            protocol = super().buildProtocol(addr)
            protocol.added = True
            return protocol

    class Static(Steady):
        @staticmethod
        def buildProtocol(addr: Any) -> Any:
            return kind()

    class Partial(Steady):
        buildProtocol = partial(lambda made, addr: made(), kind)

    class OnInstance(Steady):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.buildProtocol = lambda addr: kind()  # type: ignore[method-assign]

    class OnInstanceByBase(Steady):
        protocol = kind

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.buildProtocol = super().buildProtocol  # type: ignore[method-assign]

    class Reuses(Steady):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.only = kind()

        def buildProtocol(self, addr: Any) -> Any:
            return self.only

    return [Builds, Inherits, Adds, Static, Partial, OnInstance, OnInstanceByBase, Reuses]


def protocolsOfABase(kind: Any) -> list[Any]:
    """
    Subclasses that use, or do not use, what the base's C{buildProtocol} has built.
    """

    class ByBase(Steady):
        protocol = kind

    class Discards(ByBase):
        def buildProtocol(self, addr: Any) -> Any:
            super().buildProtocol(addr)
            return kind()

    class DiscardsOne(ByBase):
        def buildProtocol(self, addr: Any) -> Any:
            used, _ = super().buildProtocol(addr), super().buildProtocol(addr)
            return used

    class InheritsDiscards(Discards):
        def buildProtocol(self, addr: Any) -> Any:
            return super().buildProtocol(addr)

    class Keeps(ByBase):
        kept: Any = None

        def buildProtocol(self, addr: Any) -> Any:
            self.kept = super().buildProtocol(addr) if self.kept is None else self.kept
            return self.kept

    class KeepsAndSets(ByBase):
        kept: Any = None

        def buildProtocol(self, addr: Any) -> Any:
            if self.kept is None:
                self.kept = super().buildProtocol(addr)
                self.kept.dataReceived = lambda data: None
            return self.kept

    class BuildsAhead(ByBase):
        ahead: Any = None

        def buildProtocol(self, addr: Any) -> Any:
            ahead, self.ahead = self.ahead, None
            return super().buildProtocol(addr) if ahead is None else ahead

        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            self.ahead = super().buildProtocol(None)
            super().clientConnectionLost(connector, reason)

    class Wraps(ByBase):
        def buildProtocol(self, addr: Any) -> Any:
            return ProtocolWrapper(WrappingFactory(self), super().buildProtocol(addr))

    class WrapsTwice(Wraps):
        def buildProtocol(self, addr: Any) -> Any:
            return ProtocolWrapper(WrappingFactory(self), super().buildProtocol(addr))

    class ChangesClass(ByBase):
        def buildProtocol(self, addr: Any) -> Any:
            protocol: Any = super().buildProtocol(addr)
            protocol.__class__ = type("Changed", (kind,), {})
            return protocol

    kinds = [Discards, DiscardsOne, InheritsDiscards, Keeps, KeepsAndSets, BuildsAhead]
    return [*kinds, Wraps, WrapsTwice, ChangesClass]


@pytest.mark.parametrize(
    "kind",
    [*ownProtocols(Kept), *ownProtocols(MixedIn)],
    ids=lambda kind: kind.__name__,
)
def test_ownProtocolsAreWatched(kind: Any) -> None:
    """
    Whatever a subclass builds is watched, once, and a silent peer is given up.
    """
    scene = Scene(kind, heartbeat=Heartbeat(interval=None, timeout=4))
    scene.start()
    for generation in (1, 2):
        transport = scene.connected()
        assert scene.factory.link is not None
        assert scene.factory.link.generation == generation
        scene.wait(4.25)
        assert not transport.open
        scene.wait(generation * 1.25)
    assert len(scene.hooks.told("connected")) == 2
    assert len(scene.hooks.told("disconnected")) == 2
    end(scene)


@pytest.mark.parametrize(
    "kind",
    [*protocolsOfABase(Kept), *protocolsOfABase(MixedIn)],
    ids=lambda kind: kind.__name__,
)
def test_protocolsOfABaseAreWatched(kind: Any) -> None:
    """
    Each connection has one link, whatever becomes of what the base's C{buildProtocol} has built: it
    is returned, kept for the next connection, built before that, wrapped, or not used at all.
    """
    scene = Scene(kind, heartbeat=Heartbeat(interval=None, timeout=4))
    scene.start()
    for connection in (1, 2, 3):
        transport = scene.connected()
        transport.deliver(b"x")
        assert len(scene.hooks.told("connected")) == connection
        scene.wait(4.25)
        assert not transport.open
        assert len(scene.hooks.told("disconnected")) == connection
        scene.wait(1.25)
    assert scene.delays == [1.0] * 3
    links = scene.hooks.told("connected")
    assert len({link.generation for link in links}) == 3
    end(scene)


def test_subclassOfReconnectingCallsByName() -> None:
    """
    A subclass may call the methods of C{ReconnectingClientFactory} by that name, as Twisted's
    documentation does: the cause of a failure is kept, and C{resetDelay} resets.
    """

    class ByName(Steady):
        def buildProtocol(self, addr: Any) -> Any:
            if self.resets:
                ReconnectingClientFactory.resetDelay(self)  # type: ignore[no-untyped-call]
            return super().buildProtocol(addr)

        resets = False

        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            ReconnectingClientFactory.clientConnectionLost(  # type: ignore[no-untyped-call]
                self, connector, reason
            )

        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            ReconnectingClientFactory.clientConnectionFailed(  # type: ignore[no-untyped-call]
                self, connector, reason
            )

    scene = Scene(ByName)
    scene.start()
    scene.connector.fail(ConnectionRefusedError())
    scene.wait(1.25)
    scene.connected().lose()
    assert scene.delays == [1, 2]
    [refused, _] = [retry.cause for retry in scene.hooks.told("retrying")]
    assert isinstance(refused.__cause__, ConnectionRefusedError)
    scene.wait(2.25)
    scene.factory.resets = True
    scene.connected().lose()
    assert scene.delays == [1, 2, 1]
    end(scene)


def test_retryIsCalledAsInTwisted() -> None:
    """
    A subclass that overrides C{retry} hears of each loss, as it does with Twisted's class.
    """
    called = []

    class Overrides(Steady):
        def retry(self, connector: Any = None) -> None:
            called.append(connector)
            super().retry(connector)

    scene = Scene(Overrides)
    scene.start()
    scene.connector.fail()
    scene.wait(1.25)
    scene.connected().lose()
    assert called == [None, None]
    assert scene.delays == [1, 2]
    end(scene)


def test_resetDelayThatRaises(loggedErrors: Any) -> None:
    """
    What a subclass's C{resetDelay} raises is logged, and the link stays.
    """

    class Raising(Steady):
        def resetDelay(self) -> None:
            raise RuntimeError("no")

    scene = Scene(Raising)
    scene.start()
    transport = scene.connected()
    transport.deliver(b"hello")
    assert len(loggedErrors.flush(RuntimeError)) == 1
    assert transport.open
    end(scene)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("heartbeat", 60, "Mine.heartbeat is 60: it must be a Heartbeat or None"),
        ("keepAlive", True, "Mine.keepAlive is True: it must be a KeepAlive or None"),
        ("limits", 5, "Mine.limits is 5: it must be a Limits or None"),
        ("ping", 30, "Mine.ping is 30: it must be a callable or None"),
        ("prepareConnection", "x", "Mine.prepareConnection is 'x': it must be a callable or None"),
        ("hooks", ["x"], "Mine.hooks is ['x']: it must be a LinkHooks, a list of them or None"),
        ("nextDelay", 3, "Mine.nextDelay is 3: it must be a method"),
    ],
)
def test_settingsAreChecked(field: str, value: Any, words: str) -> None:
    """
    A subclass that uses the name of a setting for something else hears of it when it connects.
    """
    scene = Scene(type("Mine", (Steady,), {}))
    setattr(scene.factory, field, value)
    with pytest.raises(ValueError) as raised:
        scene.start()
    assert str(raised.value) == words


@pytest.mark.parametrize("onInstance", [False, True])
@pytest.mark.parametrize(("field", "value"), [("link", "x"), ("backoff", 3), ("exhausted", True)])
def test_namesLeftToSubclasses(field: str, value: Any, onInstance: bool) -> None:
    """
    A subclass may use these names for something else, and reconnects.
    """
    scene = Scene(type("Mine", (Steady,), {} if onInstance else {field: value}))
    if onInstance:
        setattr(scene.factory, field, value)
    scene.start()
    scene.connected().lose()
    scene.wait(1.25)
    scene.connected()
    assert scene.connector.connects == 2
    assert getattr(scene.factory, field) == value
    end(scene)


@pytest.mark.parametrize("value", [5, b"x", lambda self: "x"])
def test_nameThatIsNoText(value: Any) -> None:
    """
    Links are called after the class if its C{name} is something else.
    """
    scene = Scene(type("Mine", (Steady,), {"name": value}))
    scene.start()
    scene.connected()
    assert scene.factory.link is not None
    assert scene.factory._heartbeatConnectors.config.name == "Mine"
    end(scene)


def test_wrongStableAfter(loggedErrors: Any) -> None:
    """
    A value that makes no sense is logged at the retry, with its name, and the factory reconnects.
    """
    scene = Scene(type("Mine", (Steady,), {"stableAfter": None}))
    scene.start()
    scene.connected().lose()
    (error,) = loggedErrors.flush(ValueError)
    assert "stableAfter is None" in str(error.value)
    scene.wait(60)
    assert scene.connector.connects == 2
    scene.factory.stopTrying()


def test_methodsSetOnTheClass() -> None:
    """
    What has been put into a class after it was made is watched like what was there before.
    """

    class Mine(Steady):
        pass

    def buildProtocol(self: Any, addr: object) -> Kept:
        return Kept()

    Mine.buildProtocol = buildProtocol  # type: ignore[method-assign]
    scene = Scene(Mine)
    scene.start()
    transport = scene.connected()
    assert scene.factory.link is not None
    transport.lose()
    scene.wait(1.25)
    scene.connected()
    assert scene.factory.link is not None and scene.factory.link.generation == 2
    end(scene)


def test_settingsAreHeededLater() -> None:
    """
    A setting that is changed while the connector connects holds for its link, and one that is
    changed later for the next.
    """
    scene = Scene()
    scene.start()
    scene.factory.heartbeat = Heartbeat(interval=None, timeout=4)
    transport = scene.connected()
    link = scene.factory.link
    assert link is not None and link.bound == 4
    scene.factory.heartbeat = Heartbeat(interval=None, timeout=8)
    assert link.bound == 4
    transport.lose()
    scene.wait(1.25)
    scene.connected()
    link = scene.factory.link
    assert link is not None and link.bound == 8
    assert link.generation == 2
    end(scene)


def test_copiesAreApart() -> None:
    """
    A factory in use can be pickled and copied; what comes of it knows none of its connectors.
    """
    factory = Real(name="copied")
    clock = Clock()
    factory.clock = clock
    connector = FakeConnector(factory, clock)
    connector.connect()
    connector.succeed()
    for other in (pickle.loads(pickle.dumps(factory)), copy.copy(factory)):
        assert other.link is None
        assert other.connector is None
        assert other.name == "copied"
        assert (other.retries, other.continueTrying) == (0, 1)
    assert factory.link is not None
    factory.stopTrying()
    connector.transports[-1].lose()


# prepareConnection.


class Preparing(Steady):
    """
    Prepares as a test says.

    @ivar prepared: the protocols, and what they are waited for with.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.prepared: list[tuple[Any, Deferred[None]]] = []

    def prepareConnection(self, protocol: Any) -> Deferred[None]:
        """
        Fires when the test says so.
        """
        waiting: Deferred[None] = Deferred()
        self.prepared.append((protocol, waiting))
        return waiting


def test_preparesBeforeConnected() -> None:
    """
    A link is C{connected}, and proven, only when C{prepareConnection} has finished.
    """
    scene = Scene(Preparing)
    scene.start()
    scene.connector.fail()
    scene.wait(1.25)
    transport = scene.connected()
    transport.deliver(b"hello")
    assert scene.hooks.names[-1] == "connecting"
    assert scene.factory.retries == 1
    [(protocol, waiting)] = scene.factory.prepared
    assert scene.factory.link is not None
    assert protocol is scene.factory.link.outerProtocol
    waiting.callback(None)
    assert scene.hooks.names[-1] == "connected"
    assert scene.factory.retries == 0
    end(scene)


def test_rejectedByPrepareIsNotProven() -> None:
    """
    A refused login backs off, however much the peer has said; the connection is closed before the
    next attempt.
    """
    scene = Scene(Preparing)
    scene.start()
    for _ in range(4):
        transport = scene.connected()
        transport.deliver(b"530 login incorrect")
        scene.factory.prepared[-1][1].errback(ValueError("login incorrect"))
        scene.clock.advance(0)
        assert not transport.open
        scene.clock.advance(scene.delays[-1])
    assert scene.delays == [1, 2, 4, 8]
    assert scene.hooks.told("connected") == []
    assert "login incorrect" in str(scene.hooks.told("retrying")[-1].cause)
    end(scene)


def test_prepareIsBounded() -> None:
    """
    A preparation that takes longer than C{Limits.connectTimeout} is cancelled, and the connection
    rejected.
    """
    scene = Scene(Preparing, limits=Limits(connectTimeout=2))
    scene.start()
    transport = scene.connected()
    [(_, waiting)] = scene.factory.prepared
    scene.wait(1.875)
    assert not waiting.called
    scene.wait(0.125)
    assert waiting.called
    scene.clock.advance(0)
    assert not transport.open
    [cause] = scene.hooks.told("disconnected")
    assert isinstance(cause, ConnectFailed)
    assert str(cause) == "prepareConnection did not finish within 2 s"
    end(scene)


def test_prepareIsCancelledByLoss() -> None:
    """
    A link that is lost while it is prepared: the preparation is cancelled, and the next link has
    its own.
    """
    scene = Scene(Preparing)
    scene.start()
    scene.connected().lose()
    [(_, waiting)] = scene.factory.prepared
    assert waiting.called
    scene.wait(1.25)
    scene.connected()
    assert len(scene.factory.prepared) == 2
    scene.factory.prepared[1][1].callback(None)
    assert len(scene.hooks.told("connected")) == 1
    end(scene)


def test_prepareMayBeACoroutine() -> None:
    """
    C{prepareConnection} may be a coroutine, and may be set on the instance.
    """

    async def prepare(protocol: Any) -> None:
        raise PermanentFailure("no account")

    scene = Scene()
    scene.factory.prepareConnection = prepare
    scene.start()
    scene.connected()
    scene.clock.advance(0)
    assert [str(cause) for cause in scene.hooks.told("gaveUp")] == ["no account"]
    assert scene.clock.getDelayedCalls() == []


def test_prepareOfEachConnector() -> None:
    """
    One connector of a pool is refused, and another prepared.
    """
    pool = Pool(Preparing)
    # From the last to the first.
    (_, third), (_, second), (_, first) = pool.factory.prepared
    second.errback(ValueError("no"))
    first.callback(None)
    third.callback(None)
    pool.clock.advance(0)
    assert sorted(pool.generations) == [1, 3]
    assert [transport.open for transport in pool.transports] == [True, False, True]
    pool.factory.stopTrying()
    pool.transports[0].lose()
    pool.transports[2].lose()


# Real connectors.


@pytest_twisted.ensureDeferred
async def test_poolComesBack(loopback: Loopback) -> None:
    """
    Each link of a pool on real sockets comes back after the server has lost all.
    """
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks)
    port = loopback.listen(peers)
    for _ in range(4):
        connect(loopback, port, factory)
    first = [await within(peers.accepted.get()) for _ in range(4)]
    while len(hooks.told("connected")) < 4:
        await wait(0.01)
    for peer in first:
        peer.transport.abortConnection()
    for _ in range(4):
        await within(peers.accepted.get())
    while len(hooks.told("connected")) < 8:
        await wait(0.01)
    assert sorted(link.generation for link in hooks.told("connected")) == list(range(1, 9))
    assert len(hooks.told("disconnected")) == 4
    for driver in factory._heartbeatConnectors:
        if driver.link is not None:
            loopback.atEnd(driver.link.close)


@pytest_twisted.ensureDeferred
async def test_droppedRealConnectorsLeaveNothing(loopback: Loopback) -> None:
    """
    A pool that makes connectors and drops them for days keeps none of them.
    """
    hooks, peers = Recorder(), Peers()

    class Handled(Real):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            pass

    factory = Handled(hooks=hooks)
    port = loopback.listen(peers)
    kept = []
    for _ in range(3):
        connected, ended = hooks.next("connected"), hooks.next("disconnected")
        kept.append(weakref.ref(connectOnce(loopback, port, factory)))
        await within(connected)
        (await within(peers.accepted.get())).transport.loseConnection()
        await within(ended)
    await wait(0.05)
    factory.connector = None
    hooks.events.clear()
    del connected, ended
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3
    assert list(factory._heartbeatConnectors) == []


def connectOnce(place: Loopback, port: int, factory: Any) -> Any:
    """
    As L{connect}, for a connection that is over before the test is.
    """
    from twisted.internet import reactor

    if place.secured:
        return reactor.connectSSL("127.0.0.1", port, factory, clientOptions(NAME))
    return reactor.connectTCP("127.0.0.1", port, factory)


class Starts(Real):
    """
    Counts how often it is started and stopped.
    """

    started = stopped = 0

    def startFactory(self) -> None:
        """
        See C{Factory}.
        """
        self.started += 1

    def stopFactory(self) -> None:
        """
        See C{Factory}.
        """
        self.stopped += 1


@pytest_twisted.ensureDeferred
async def test_reconnectsOverAUNIXSocket(tmp_path: Path) -> None:
    """
    It reconnects over a UNIX socket; C{startFactory} and C{stopFactory} are called as in Twisted,
    around each connection.
    """
    from twisted.internet import reactor

    place = Loopback()
    hooks, peers = Recorder(), Peers()
    factory = Starts(hooks=hooks)
    path = str(tmp_path / "socket")
    port = reactor.listenUNIX(path, peers)
    connector = reactor.connectUNIX(path, factory)
    for generation in (1, 2):
        peer = await within(peers.accepted.get())
        while len(hooks.told("connected")) < generation:
            await wait(0.01)
        if generation == 1:
            peer.transport.loseConnection()
    assert (factory.started, factory.stopped) == (2, 1)
    factory.stopTrying()
    assert factory.link is not None
    gone = factory.link.whenGone()
    connector.disconnect()
    await within(gone)
    await wait(0)
    assert (factory.started, factory.stopped, factory.numPorts) == (2, 2, 0)
    await within(port.stopListening())
    await within(place.close())


@pytest.mark.parametrize("told", ["clientConnectionFailed", "clientConnectionLost"])
@pytest.mark.parametrize("reason", [Failure(ConnectionRefusedError()), None, "a reason"])
def test_mockOfAConnector(told: str, reason: object) -> None:
    """
    A unit test may tell a factory of a mock in the place of a connector, which has any state.  It
    is connected again, as by C{ReconnectingClientFactory}.
    """
    scene = Scene()
    connector = Mock()
    getattr(scene.factory, told)(connector, reason)
    assert scene.factory.retries == 1
    scene.wait(1.25)
    connector.connect.assert_called_once_with()
    scene.factory.stopTrying()
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize("connector", [object(), "a connector", [1], None])
def test_connectorThatCanBeNoKey(connector: Any) -> None:
    """
    It may also pass what has no weak references, or no hash.
    """
    scene = Scene()
    scene.factory.continueTrying = 0
    scene.factory.clientConnectionLost(connector, Failure(ConnectionRefusedError()))
    assert scene.factory.retries == 0
    scene.factory.continueTrying = 1
    if connector is None:
        with pytest.raises(ValueError, match="no connector to retry"):
            scene.factory.clientConnectionLost(None, Failure(ConnectionRefusedError()))
    else:
        scene.factory.clientConnectionLost(connector, Failure(ConnectionRefusedError()))
        assert len(scene.delays) == 1
        # As in Twisted.
        with pytest.raises(AttributeError, match="stopConnecting"):
            scene.factory.stopTrying()
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize("kind", ["TCP", "UNIX"])
@pytest.mark.parametrize("mixin", [False, True])
@pytest_twisted.ensureDeferred
async def test_connectionLostThatRaises(
    kind: str, mixin: bool, tmp_path: Path, loggedErrors: Any
) -> None:
    """
    A protocol's C{connectionLost} that raises is logged, and its connector is retried.  Twisted
    does not tell the connector then, which could never connect again.
    """
    from twisted.internet import reactor

    class Raising(Protocol):
        def connectionLost(self, reason: object = None) -> None:
            raise ZeroDivisionError("in user code")

    class MixedRaising(HeartbeatMixin, Raising):
        pass

    place = Loopback()
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks)
    factory.protocol = MixedRaising if mixin else Raising
    path = str(tmp_path / "socket")
    if kind == "UNIX":
        port = reactor.listenUNIX(path, peers)
        connector = reactor.connectUNIX(path, factory)
    else:
        port = reactor.listenTCP(0, peers, interface="127.0.0.1")
        connector = reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
    for generation in (1, 2, 3):
        peer = await within(peers.accepted.get())
        while len(hooks.told("connected")) < generation:
            await wait(0.01)
        lost = hooks.next("disconnected")
        if generation < 3:
            peer.transport.loseConnection()
        else:
            factory.stopTrying()
            connector.disconnect()
        await within(lost)
    await within(port.stopListening())
    await within(place.close())
    assert len(loggedErrors.flush(ZeroDivisionError)) == 3


@pytest_twisted.ensureDeferred
async def test_startFactoryThatRaises(loopback: Loopback, loggedErrors: Any) -> None:
    """
    A C{startFactory} that raises before a retry is logged, and the connector is tried again.
    """

    class Raising(Starts):
        def startFactory(self) -> None:
            super().startFactory()
            if self.started == 2:
                raise RuntimeError("no file is left")

    hooks, peers = Recorder(), Peers()
    factory = Raising(hooks=hooks)
    connected = hooks.next("connected")
    connect(loopback, loopback.listen(peers), factory)
    await within(connected)
    again = hooks.next("connected")
    (await within(peers.accepted.get())).transport.loseConnection()
    await within(again)
    assert factory.started == 3
    assert len(loggedErrors.flush(RuntimeError)) == 1


@pytest_twisted.ensureDeferred
async def test_buildProtocolThatRaises(loopback: Loopback, loggedErrors: Any) -> None:
    """
    A C{buildProtocol} that raises is a failed attempt: the connection is closed, and another
    attempt follows (promise 16).
    """

    class Raising(Real):
        raises = True

        def buildProtocol(self, addr: Any) -> Any:
            if self.raises:
                self.raises = False
                raise RuntimeError("no protocol")
            return super().buildProtocol(addr)

    hooks, peers = Recorder(), Peers()
    factory = Raising(hooks=hooks)
    connect(loopback, loopback.listen(peers), factory)
    await within(hooks.next("connected"))
    assert len(loggedErrors.flush(RuntimeError)) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest_twisted.ensureDeferred
async def test_buildProtocolThatDeclines(loopback: Loopback, when: str) -> None:
    """
    A C{buildProtocol} that returns L{None} is a failed attempt, over TLS too, also after the base's
    has built a protocol.
    """

    class Declining(Real):
        declines = True

        def buildProtocol(self, addr: Any) -> Any:
            built = None if self.declines and when == "before" else super().buildProtocol(addr)
            declines, self.declines = self.declines, False
            return None if declines else built

    hooks, peers = Recorder(), Peers()
    factory = Declining(hooks=hooks)
    connect(loopback, loopback.listen(peers), factory)
    await within(hooks.next("connected"))
    assert hooks.names == ["connecting", "retrying", "connecting", "connected"]


@pytest_twisted.ensureDeferred
async def test_withAnEndpoint() -> None:
    """
    Connected by an endpoint, which has no connector to retry, its link is watched, has its events,
    and is not replaced: as Twisted's class.
    """
    from twisted.internet import reactor

    place = Loopback()
    hooks, peers = Recorder(), Peers()
    factory = Real(hooks=hooks)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", place.listen(peers))
    ended = hooks.next("disconnected")
    await within(endpoint.connect(factory))
    peer = await within(peers.accepted.get())
    assert factory.link is not None
    peer.transport.loseConnection()
    await within(ended)
    await wait(0.1)
    assert hooks.names == ["connecting", "connected", "disconnected"]
    assert factory.link is None
    await within(place.close())
