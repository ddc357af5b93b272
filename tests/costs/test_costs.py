# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a link may cost, counted in what does not depend on the machine: system calls, calls of
functions, wakeups, bytes.  C{benchmarks/} measures the time.

The ceilings are a little above what it is now.  Whoever passes one has made each of ten thousand
links dearer, and raises it knowingly or not at all.
"""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogBeginner

from twisted_heartbeat import Heartbeat, HeartbeatFactory, HeartbeatMixin, HeartbeatServerFactory
from twisted_heartbeat.batching.batcher import Batcher
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.link.link import Link
from twisted_heartbeat.link.watch import PeerWatch
from twisted_heartbeat.protocol.session import HeartbeatSession
from twisted_heartbeat.timing.wheel import timerWheelFor
from twisted_heartbeat.transport.connection import ObservedConnection

from ..support.countingsockets import Accepted, Connection, Kernel, Scene
from ..support.interpreter import numberOf

SETTINGS: dict[str, Any] = {"heartbeat": Heartbeat(interval=20, timeout=15), "keepAlive": None}


PING = wire.encodePing(7)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """
    One that counts how often it is asked.
    """
    return Kernel(monkeypatch)


@pytest.fixture
def byWrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No ping goes straight to the kernel.
    """
    monkeypatch.setattr(
        HeartbeatSession,
        "writeDirect",
        lambda self, data: self._link.protocol.transport.write(data),
    )
    monkeypatch.setattr(
        ObservedConnection, "withDirectWrites", lambda self, act, argument: act(argument)
    )
    monkeypatch.setattr(ObservedConnection, "canPark", False)


def builtIn(clock: Clock) -> Any:
    """
    A server of the built-in protocol.
    """
    return HeartbeatServerFactory(clock=clock, **SETTINGS)


class Bare(Protocol):
    """
    A protocol to which nothing matters.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        Nothing.
        """


class Mixed(HeartbeatMixin, Bare):
    """
    A mixed-in protocol.
    """

    def sendPing(self) -> None:
        """
        See L{HeartbeatMixin}.
        """
        self.transport.write(PING)


def mixed(clock: Clock) -> Any:
    """
    A protocol with the mix-in.
    """
    return HeartbeatFactory(Factory.forProtocol(Mixed), clock=clock, **SETTINGS)


def wrapped(clock: Clock) -> Any:
    """
    A wrapped protocol.
    """
    return HeartbeatFactory(
        Factory.forProtocol(Bare),
        clock=clock,
        ping=lambda protocol: protocol.transport.write(PING),
        **SETTINGS,
    )


def bare(clock: Clock) -> Any:
    """
    A protocol without a link.
    """
    return Factory.forProtocol(Bare)


def sceneOf(make: Callable[[Clock], Any], needs: float = 0.0) -> Scene:
    """
    An idle peer, past the beginning.

    @param needs: seconds, its bound.
    """
    clock = Clock()
    scene = Scene(make(clock), clock, kind=Accepted)
    scene.begin(needs=needs)
    if make is not bare:
        for _ in range(2):
            # Until nobody looks at what was sent at the beginning.
            scene.forget()
            scene.beat()
        scene.forget()
    return scene


def callsOf(action: Callable[[], object]) -> int:
    """
    How many functions are called, Python's and C's.
    """
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        if event in ("call", "c_call"):
            counted += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    # Switching it off is counted, too.
    return counted - 1


@pytest.fixture
def inPlace(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A link has its place in the interval where the sums are exact: at others, a clock that stands
    still between two looks has one of them come a rounding too early, and be had again.
    """
    monkeypatch.setattr(random, "random", lambda: 0.5)


# System calls.


def test_systemCallsOfAPing(kernel: Kernel) -> None:
    """
    A ping and its pong are one C{send} and one C{recv}; they change nothing that the reactor polls,
    and the kernel is asked nothing.
    """
    scene = sceneOf(builtIn)
    kernel.asked = 0
    for _ in range(3):
        scene.beat()
    assert scene.socket.calls == ["send", "recv"] * 3
    assert scene.reactor.calls == []
    assert kernel.asked == 0


def test_systemCallsOfAnAnswer(kernel: Kernel) -> None:
    """
    To answer a ping costs the same, and one question whether anything waits, unless a pong has just
    said so.
    """
    scene = sceneOf(builtIn)
    for token in (7, 8):
        kernel.asked = 0
        scene.forget()
        scene.receive(wire.encodePing(token))
        assert scene.socket.calls == ["recv", "send"]
        assert scene.socket.sent == wire.encodePong(token)
        assert "addWriter" not in scene.reactor.calls
        assert kernel.asked == token - 7


@pytest.mark.usefixtures("byWrite")
def test_systemCallsAreSeen(kernel: Kernel) -> None:
    """
    The two checks above can fail: a pong by way of the transport's buffer is counted.
    """
    scene = sceneOf(builtIn)
    scene.receive(wire.encodePing(7))
    scene.flush()
    assert scene.socket.calls == ["recv", "send"]
    assert scene.reactor.calls == ["addWriter", "removeWriter"]


# Calls of functions.


def callsOfAChunk(make: Callable[[Clock], Any]) -> int:
    """
    What a received chunk costs.
    """
    scene = sceneOf(make)
    scene.socket.arrived = b"x"
    return callsOf(scene.connection.doRead)


@pytest.mark.parametrize(("make", "most"), [(mixed, 1), (wrapped, 2)], ids=["mixed", "wrapped"])
def test_callsOfAChunk(kernel: Kernel, make: Callable[[Clock], Any], most: int) -> None:
    """
    Over bare Twisted, a received chunk costs the mix-in no more calls than the clock's, and a
    wrapped protocol one more.
    """
    assert callsOfAChunk(make) - callsOfAChunk(bare) <= most


def test_callsOfAChunkAreSeen(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The check above can fail.
    """
    usual = callsOfAChunk(mixed)
    doRead = ObservedConnection.doRead
    monkeypatch.setattr(ObservedConnection, "doRead", lambda self: doRead(self))
    assert callsOfAChunk(mixed) == usual + 1


def callsOfABeat(make: Callable[[Clock], Any] = builtIn, needs: float = 0.0) -> int:
    """
    What an interval costs an idle link: the ping, the pong, and whatever looks after them.
    """
    scene = sceneOf(make, needs)
    wheel = timerWheelFor(scene.clock)
    wheel._setCall = lambda: None  # type: ignore[method-assign]

    def beat() -> None:
        while not scene.socket.sent:
            scene.clock.rightNow = wheel._first().latest
            wheel._tick()
        scene.socket.arrived = wire.packPong(int.from_bytes(scene.socket.sent[4:8], "big"))
        scene.socket.sent = b""
        scene.read()

    beat()
    return callsOf(beat)


@pytest.mark.usefixtures("inPlace")
@pytest.mark.parametrize(
    ("make", "most"),
    [(builtIn, 67), (mixed, 88), (wrapped, 88)],
    ids=["builtIn", "mixed", "wrapped"],
)
def test_callsOfABeat(kernel: Kernel, make: Callable[[Clock], Any], most: int) -> None:
    """
    A ping, its pong and the looks at both stay below a ceiling of calls.
    """
    assert callsOfABeat(make) <= most


@pytest.mark.usefixtures("inPlace")
def test_callsOfABeatToOneWhoWatches(kernel: Kernel) -> None:
    """
    A peer that watches this side within the same bound costs no more: the pings are word enough.
    """
    assert callsOfABeat(builtIn, needs=35.0) == callsOfABeat(builtIn)


def test_visitsForTheOwnWord(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Peers with a shorter bound than this side's, which ping within it, cost at most one visit for
    each of their pings: the visit finds that the pong was word enough, and comes again later.
    """
    visited = 0
    beat = PeerWatch.onTimer

    def counted(self: Any, now: float, lateness: float) -> float | None:
        nonlocal visited
        visited += 1
        return beat(self, now, lateness)

    clock = Clock()
    factory = builtIn(clock)
    peers = Heartbeat.within(8)
    scenes = [Scene(factory, clock, kind=Accepted) for _ in range(2 * Batcher.MIN_FOR_SCAN)]
    for scene in scenes:
        scene.begin(needs=peers.bound)
    rounds = 2 * int(20 / peers.interval) + 1
    for number in range(2 * rounds):
        if number == rounds:
            # From here on all of them are in a scan.
            monkeypatch.setattr(PeerWatch, "onTimer", counted)
        for scene in scenes:
            scene.forget()
            scene.receive(PING)
        clock.pump([peers.interval / 64] * 64)
        sent = {scene.socket.sent for scene in scenes}
        assert number < rounds or sent == {wire.encodePong(7)}
    assert 0 < visited <= rounds * len(scenes)


@pytest.mark.usefixtures("inPlace")
def test_callsOfABeatAreSeen(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The check above can fail: to look at each link is counted, and more so to look at it closely.
    """
    usual = callsOfABeat()
    monkeypatch.setattr(ObservedConnection, "canPark", False)
    each = callsOfABeat()
    monkeypatch.setattr(FailureDetector, "decideFast", lambda self, now, lateness: None)
    assert callsOfABeat() > each + 5
    assert each > usual + 5


# Wakeups.


def wakeupsOf(scenes: list[Scene], clock: Clock, seconds: float) -> int:
    """
    How often the clock wakes an idle process.
    """
    woken = 0
    until = clock.seconds() + seconds
    while (call := min(clock.getDelayedCalls(), key=lambda c: c.getTime())).getTime() <= until:
        woken += 1
        clock.advance(max(0.0, call.getTime() - clock.seconds()))
        assert woken < 10_000, "it never comes to rest"
        for scene in scenes:
            scene.flush()
            if scene.socket.sent:
                scene.answer()
    return woken


INTERVALS = 10


@pytest.mark.parametrize("make", [builtIn, mixed, wrapped])
@pytest.mark.parametrize(("links", "most"), [(1, 2), (500, 32)])
def test_wakeups(kernel: Kernel, make: Callable[[Clock], Any], links: int, most: int) -> None:
    """
    An idle process wakes no more than twice in an interval for one link, for its ping and its pong;
    and for many, whose pings are kept apart, once at each of their places.
    """
    clock = Clock()
    factory = make(clock)
    scenes = [Scene(factory, clock, kind=Accepted) for _ in range(links)]
    for scene in scenes:
        scene.begin()
    # What was written at the beginning is looked after, for a while.
    wakeupsOf(scenes, clock, 2 * 20)
    intervals = INTERVALS if links == 1 else 1
    assert wakeupsOf(scenes, clock, intervals * 20) <= most * intervals + 1


@pytest.mark.usefixtures("byWrite")
def test_wakeupsAreSeen(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The check above can fail: pings that go through the buffer have it looked after, unless their
    pongs tell that it is empty.
    """
    monkeypatch.setattr(PeerWatch, "pongReceived", lambda self: None)
    clock = Clock()
    scene = Scene(builtIn(clock), clock)
    scene.begin()
    wakeupsOf([scene], clock, 2 * 20)
    assert wakeupsOf([scene], clock, INTERVALS * 20) > 2 * INTERVALS + 1


# Bytes.


def bytesOf(make: Callable[[Clock], Any], links: int = 200) -> float:
    """
    Bytes for each idle link, its connection and its protocol included.  What other threads allocate
    meanwhile, and whatever tests before have left to be grown, would be counted, too: this is for
    an interpreter of its own, see L{numberOf}.
    """
    clock = Clock()
    factory = make(clock)

    def more(count: int, kind: type[Connection]) -> list[Scene]:
        scenes = [Scene(factory, clock, kind=kind) for _ in range(count)]
        for scene in scenes:
            scene.begin()
        return scenes

    kept = more(50, Accepted)
    if make is not bare:
        # Whatever is loaded or made but once is no link's.
        wakeupsOf(kept, clock, 45)
    gc.collect()
    tracemalloc.start()
    try:
        # A port makes them of the class that its first ones have got.
        kept += more(links, type(kept[0].connection))
        if make is not bare:
            wakeupsOf(kept, clock, 45)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / links
    finally:
        tracemalloc.stop()


def bytesOver(make: Callable[[Clock], Any], burden: int = 0) -> float:
    """
    Bytes for each idle link over a bare protocol on the same connection.

    @param burden: bytes to hang on each link.
    """
    init = Link.__init__

    def larger(self: Any, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        self.keepAlive = bytearray(burden)

    # Until somebody begins it, Twisted's log keeps its events.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    with pytest.MonkeyPatch.context() as patch:
        Kernel(patch)
        if burden:
            patch.setattr(Link, "__init__", larger)
        return bytesOf(make) - bytesOf(bare)


@pytest.mark.parametrize("make", ["builtIn", "mixed", "wrapped"])
def test_bytesOfALink(make: str) -> None:
    """
    An idle link takes at most 1 KiB more than a bare protocol on the same connection.
    """
    assert numberOf("tests.costs.test_costs", f"bytesOver({make})") <= 1024


def test_bytesAreSeen() -> None:
    """
    The check above can fail.
    """
    usual = numberOf("tests.costs.test_costs", "bytesOver(builtIn)")
    assert numberOf("tests.costs.test_costs", "bytesOver(builtIn, burden=1000)") > usual + 900
