# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The events of links: the log and all hooks are told of each, and no observer notices another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from twisted_heartbeat import (
    Evidence,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatServerFactory,
    Limits,
    LinkHooks,
    PeerReset,
)
from twisted_heartbeat.link.cleanups import Cleanup, runCleanups
from twisted_heartbeat.link.config import LinkConfig
from twisted_heartbeat.link.events import observersOf

from ..client.test_factory import FakeConnector
from ..conftest import LoggedErrors
from ..support.virtualnetwork import PEER, FakeNetwork, FakeTransport, Kept, Recorder

LIMITS = Limits(cleanupTimeout=10.0)


class Told:
    """
    What a link's observers were told of, in order.
    """

    def __init__(self) -> None:
        self.order: list[str] = []

    def hooks(self, name: str, answer: Callable[[], object] = lambda: None) -> LinkHooks:
        """
        Return hooks that note each event of a link, and then do something.
        """
        told = self

        class Hooks(LinkHooks):
            def connected(self, link: Any) -> object:
                told.order.append(f"{name} connected")
                return None

            def disconnected(self, link: Any, cause: Any) -> object:
                told.order.append(f"{name} disconnected")
                return answer()

        return Hooks()

    def logged(self, event: Any) -> None:
        """
        An observer of C{twisted.logger}.
        """
        if "event" in event:
            self.order.append(f"log {event['event']}")

    def connect(self, *hooks: LinkHooks) -> tuple[Clock, Any]:
        """
        Return the clock and the protocol of a link with these hooks.
        """
        clock = Clock()
        factory = HeartbeatFactory(
            Factory.forProtocol(Kept), heartbeat=None, hooks=hooks, limits=LIMITS, clock=clock
        )
        protocol: Any = factory.buildProtocol(PEER)
        protocol.makeConnection(FakeTransport(clock, protocol))
        return clock, protocol


@pytest.fixture
def told() -> Any:
    """
    What is told, with the log.
    """
    made = Told()
    globalLogPublisher.addObserver(made.logged)
    yield made
    globalLogPublisher.removeObserver(made.logged)


def test_observersOf() -> None:
    """
    A setting C{hooks} is one object, a list or tuple of several, or nothing.
    """
    one, other = LinkHooks(), LinkHooks()
    assert observersOf(None) == observersOf([]) == ()
    assert observersOf(one) == (one,)
    assert observersOf([one, other]) == observersOf((one, other)) == (one, other)


def test_logAndAllHooksAreTold(told: Told) -> None:
    """
    The log is told first, also without hooks, and then the hooks in their order.
    """
    _, protocol = told.connect(told.hooks("a"), told.hooks("b"))
    protocol.transport.lose()
    assert told.order == [
        *("log connected", "a connected", "b connected"),
        *("log disconnected", "a disconnected", "b disconnected"),
    ]
    told.order.clear()
    told.connect()[1].transport.lose()
    assert told.order == ["log connected", "log disconnected"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("failsFirst", [False, True])
def test_failingHookAndSlowHook(
    failsFirst: bool, kind: type[BaseException], told: Told, loggedErrors: LoggedErrors
) -> None:
    """
    A hook that raises is logged, and the other one is called and waited for.  The cleanups follow.
    """
    slow: Deferred[None] = Deferred()

    def fail() -> None:
        raise kind

    hooks = [told.hooks("slow", lambda: slow), told.hooks("failing", fail)]
    clock, protocol = told.connect(*(reversed(hooks) if failsFirst else hooks))
    link, gone = protocol.link, []
    link.addCleanup(told.order.append, "cleanup")
    link.whenGone().addCallback(gone.append)
    told.order.clear()
    protocol.transport.lose()
    assert sorted(told.order) == ["failing disconnected", "log disconnected", "slow disconnected"]
    assert len(loggedErrors.flush(kind)) == 1
    clock.advance(9.9)
    assert gone == []
    slow.callback(None)
    assert told.order[3:] == ["cleanup"]
    assert gone == [link.cause]
    assert clock.getDelayedCalls() == []


def test_slowHooksAreWaitedForSideBySide(told: Told, loggedErrors: LoggedErrors) -> None:
    """
    All hooks have C{cleanupTimeout} together.  When it is over, those that have not finished are
    cancelled, which is no error of theirs, and the cleanups run.
    """
    cancelled: list[str] = []

    def raising(_: object) -> None:
        cancelled.append("a")
        raise ZeroDivisionError("in a canceller")

    clock, protocol = told.connect(
        told.hooks("a", lambda: Deferred(raising)),
        told.hooks("b", lambda: Deferred(lambda _: cancelled.append("b"))),
        told.hooks("c"),
    )
    protocol.link.addCleanup(told.order.append, "cleanup")
    told.order.clear()
    protocol.transport.lose()
    assert told.order[1:] == ["a disconnected", "b disconnected", "c disconnected"]
    clock.advance(9.9)
    assert cancelled == []
    clock.advance(0.1)
    assert cancelled == ["a", "b"]
    assert told.order[4:] == ["cleanup"]
    assert protocol.link.cleaned
    assert clock.getDelayedCalls() == []
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


def test_onlyTheEndIsWaitedFor(told: Told) -> None:
    """
    A hook of another event may take its time: nothing waits for it.
    """
    events = LinkConfig(clock=Clock(), hooks=Recorder()).events
    recorder = Recorder()
    recorder.then["connected"] = Deferred
    clock, protocol = told.connect(recorder)
    assert protocol.link.isUp
    protocol.transport.lose()
    assert protocol.link.cleaned
    assert events.emit("connecting", 1).called


def test_connectedOfOneFails(told: Told, loggedErrors: LoggedErrors) -> None:
    """
    A C{connected} that fails ends the link, and the other hooks are told of both.
    """
    failing, other = Recorder(), Recorder()
    failing.then["connected"] = lambda: 1 / 0
    clock, protocol = told.connect(failing, other)
    clock.advance(0)
    assert other.names == ["connected", "disconnected"]
    assert "the connected hook raised ZeroDivisionError" in str(protocol.link.cause)
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


class Mixed(HeartbeatMixin, Kept):
    """
    A protocol whose class has the setting.
    """

    heartbeat = None


@pytest.mark.parametrize("several", [list, tuple])
@pytest.mark.parametrize("place", ["service", "client", "class", "server", "factory", "mixin"])
def test_severalEverywhere(place: str, several: Callable[[Any], Any]) -> None:
    """
    Several hooks can be given wherever one can.
    """
    clock, recorders = Clock(), [Recorder(), Recorder()]
    hooks: Any = several(recorders)
    if place == "service":
        network = FakeNetwork(clock)
        endpoint, factory = network.endpoint(), Factory.forProtocol(Kept)
        service = HeartbeatClientService(
            endpoint, factory, clock=clock, heartbeat=None, hooks=hooks
        )
        service.startService()
        endpoint.attempts[-1].succeed()
        service.stopService()
    elif place in ("client", "class"):
        kind = HeartbeatClientFactory
        if place == "class":
            kind = type("Client", (kind,), {"hooks": hooks})
        client = kind(heartbeat=None) if place == "class" else kind(heartbeat=None, hooks=hooks)
        client.protocol = Kept
        client.clock = clock
        connector = FakeConnector(client, clock)
        connector.connect()
        connector.succeed()
        client.stopTrying()
    elif place == "mixin":
        kind = type("Several", (Mixed,), {"hooks": hooks, "clock": clock})
        protocol: Any = kind()
        protocol.makeConnection(FakeTransport(clock, protocol))
    else:
        made = HeartbeatServerFactory if place == "server" else HeartbeatFactory
        server = made(Factory.forProtocol(Kept), heartbeat=None, hooks=hooks, clock=clock)
        protocol = server.buildProtocol(PEER)
        protocol.makeConnection(FakeTransport(clock, protocol))
    clock.advance(0)
    assert "connected" in recorders[0].names
    assert recorders[0].names == recorders[1].names


def test_somethingElseAmongSeveral() -> None:
    """
    A client factory that is given something else beside its hooks complains, because its subclasses
    may use the name for something of their own.
    """
    factory = HeartbeatClientFactory(heartbeat=None, hooks=[LinkHooks(), "no hooks"])  # type: ignore[list-item]
    factory.clock = Clock()
    with pytest.raises(ValueError, match=r"hooks is .*: it must be a LinkHooks, a list of them"):
        factory.doStart()


@pytest.mark.parametrize("together", [None, 10.0])
def test_cleanupWithATimeoutOfItsOwn(together: float | None, loggedErrors: LoggedErrors) -> None:
    """
    A cleanup that has a timeout of its own is cancelled when that is over, and the next one is run
    and waited for.
    """
    clock, began = Clock(), []
    last: Deferred[None] = Deferred()

    def begin(name: str, answer: Deferred[None]) -> Deferred[None]:
        began.append(name)
        return answer

    done = runCleanups(
        [
            Cleanup("short", lambda: begin("short", Deferred()), 2.0),
            Cleanup("long", lambda: begin("long", last), 100.0),
        ],
        clock,
        together,
    )
    clock.advance(1.9)
    assert began == ["short"]
    clock.advance(0.1)
    assert began == ["short", "long"]
    clock.advance(7.9)
    assert not done.called
    # The limit of all comes before that of its own.
    clock.advance(0.1)
    assert done.called == (together is not None)
    clock.advance(92)
    assert done.called
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "heartbeat, ping, said",
    [
        (Heartbeat(), lambda protocol: None, "connected"),
        (Heartbeat(interval=None, timeout=30.0), None, "connected"),
        (Heartbeat(), None, "connected, without pings"),
        (None, lambda protocol: None, "connected, without pings"),
    ],
)
def test_textOfALinkWithoutPings(
    heartbeat: Heartbeat | None, ping: Any, said: str, events: list[Any]
) -> None:
    """
    The text of the log says if the silence of a peer is not watched.
    """
    clock = Clock()
    factory = HeartbeatFactory(
        Factory.forProtocol(Kept), heartbeat=heartbeat, ping=ping, name="hub", clock=clock
    )
    protocol: Any = factory.buildProtocol(PEER)
    protocol.makeConnection(FakeTransport(clock, protocol))
    [event] = [event for event in events if event.get("event") == "connected"]
    assert formatEvent(event) == f"hub: {said} [192.0.2.1:1234, generation 1]"


def test_fieldsOfEvidenceInTheLog() -> None:
    """
    The evidence of an ended link is logged under the names that C{docs/reference/events.md} gives
    to other programs.
    """
    events: list[Any] = []
    clock = Clock()
    factory = HeartbeatFactory(Factory.forProtocol(Kept), heartbeat=None, clock=clock)
    protocol: Any = factory.buildProtocol(PEER)
    protocol.makeConnection(FakeTransport(clock, protocol))
    globalLogPublisher.addObserver(events.append)
    try:
        protocol.link.abort(PeerReset(evidence=Evidence(unacknowledged=3)))
        clock.advance(0)
    finally:
        globalLogPublisher.removeObserver(events.append)
    [evidence] = [one["evidence"] for one in events if one.get("event") == "disconnected"]
    assert evidence == {
        "sinceAck": None,
        "sinceData": None,
        "unacknowledged": 3,
        "retransmits": None,
        "window": None,
        "probes": None,
        "rtt": None,
        "simultaneousVerdicts": 1,
    }
    page = (Path(__file__).parents[2] / "docs" / "reference" / "events.md").read_text(
        encoding="utf-8"
    )
    [row] = [line for line in page.splitlines() if line.startswith("| `evidence` |")]
    assert [name for name in evidence if f"`{name}`" not in row] == []
