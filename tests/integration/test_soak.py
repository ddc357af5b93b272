# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A thousand faults in a row, mixed, on one client over real loopback: nothing leaks, nothing grows,
nothing is forgotten (promises 10, 12 and 16).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise, repeat
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    ConnectFailed,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    Limits,
    Link,
    LinkHooks,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
    SendFailed,
)
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.core.evidence import Evidence
from twisted_heartbeat.protocol.wrapper import WrappedProtocol
from twisted_heartbeat.testing import (
    AcceptThenClose,
    BlackHole,
    CutAfter,
    FaultProxy,
    StopReading,
)

from ..support.loopback import within

FAULTS = 1000
SETTLED = 200
"""Faults after which all that is ever going to be there is there; and between two looks."""

SLACK = 5
"""Objects of one kind, more or less: one link may just be coming or going."""

SILENCE = Heartbeat(interval=0.1, timeout=0.1)

CLOSED = (PeerReset, PeerClosed)
"""A peer that closes what it has not read resets."""


class Talker:
    """
    What both protocols of the client have in common.

    @ivar spoke: fires when the peer has answered.
    """

    factory: Any

    def began(self) -> None:
        self.spoke: Deferred[None] = Deferred()
        self.factory.soak.made += 1

    def answered(self) -> None:
        if self.factory.soak.take("raise in dataReceived"):
            raise ZeroDivisionError("in dataReceived")
        if not self.spoke.called:
            self.spoke.callback(None)

    def ended(self) -> None:
        self.factory.soak.lost += 1


class Mixed(Talker, HeartbeatProtocol):
    """
    A mixed-in protocol.  Its own frames come back to it, and are frames.
    """

    def connectionMade(self) -> None:
        self.began()
        super().connectionMade()

    def helloReceived(self, hello: object) -> None:
        self.answered()

    def messageReceived(self, message: bytes) -> None:
        self.answered()

    def say(self, message: Any) -> None:
        self.sendMessage(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended()


class Plain(Talker, Protocol):
    """
    A wrapped protocol: knows nothing of any link.
    """

    def connectionMade(self) -> None:
        self.began()
        self.say(b"hello")

    def sendPing(self) -> None:
        self.say(b"?")

    def dataReceived(self, data: bytes) -> None:
        self.answered()

    def say(self, message: Any) -> None:
        link = self.factory.soak.service.link
        if link is not None and link.protocol is self:
            link.send(message)
        else:
            self.transport.write(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended()


class Talkers(Factory):
    """
    Makes the one and the other in turn.
    """

    noisy = False

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self._built = 0

    def buildProtocol(self, addr: Any) -> Any:
        if self.soak.take("raise in buildProtocol"):
            raise ZeroDivisionError("in buildProtocol")
        if self.soak.take("build nothing"):
            return None
        self._built += 1
        self.protocol = Plain if self._built % 2 else Mixed
        return super().buildProtocol(addr)


class Echo(Protocol):
    """
    The peer: says what it is told.
    """

    def connectionMade(self) -> None:
        self.factory.latest = self

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Echoes(Factory):
    """
    @ivar latest: the connection accepted last.
    """

    protocol = Echo
    noisy = False
    latest: Any = None


class Tally(LinkHooks):
    """
    Counts what it hears, and keeps none of it.

    @ivar generation: the latest; it must grow.
    """

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        self.heard: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.generation = 0
        self.cause: Cause | None = None
        self._waiting: tuple[int, Deferred[None]] | None = None

    def whenRetried(self, times: int) -> Deferred[None]:
        """
        Fires when so many retries have been told in all.
        """
        retried: Deferred[None] = Deferred()
        self._waiting = (times, retried)
        return retried

    def connected(self, link: Link) -> None:
        self.heard["connected"] += 1
        if self._soak.take("raise in connected"):
            raise ZeroDivisionError("in connected")

    def disconnected(self, link: Link, cause: Cause) -> None:
        self.heard["disconnected"] += 1
        self.causes[type(cause).__name__] += 1
        assert link.generation > self.generation
        self.generation = link.generation

    def retrying(self, retry: Any) -> None:
        self.heard["retrying"] += 1
        self.cause = retry.cause
        if self._waiting is not None and self.heard["retrying"] >= self._waiting[0]:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def gaveUp(self, cause: Cause) -> None:
        self.heard["gaveUp"] += 1


class Soak:
    """
    One client service, a proxy that misbehaves, and a peer.

    @ivar made: connections that a protocol of the client was told of.
    @ivar lost: those whose end it was told of.
    @ivar cleaned: cleanups that have run.
    @ivar suffered: faults so far.
    @ivar armed: what goes wrong next, once.
    """

    def __init__(self) -> None:
        self.made = self.lost = self.cleaned = 0
        self.tally = Tally(self)
        self.armed: str | None = None
        self.peers = Echoes()
        self.faults = mixed()
        self.suffered = 0

    async def start(self) -> None:
        from twisted.internet import reactor

        self.port = reactor.listenTCP(0, self.peers, interface="127.0.0.1")
        self.proxy = FaultProxy(reactor, ("127.0.0.1", self.port.getHost().port))
        await self.proxy.listen()
        self.service = HeartbeatClientService(
            self.proxy.endpoint(),
            Talkers(self),
            lambda attempt: 0.0,
            prepareConnection=self.prepare,
            heartbeat=SILENCE,
            limits=Limits(closeTimeout=0.2, cleanupTimeout=0.2),
            hooks=self.tally,
            ping=lambda protocol: protocol.sendPing(),
        )
        self.service.startService()

    async def stop(self) -> None:
        await within(self.service.stopService())
        await within(self.proxy.close())
        await within(self.port.stopListening())
        self.peers.latest = None

    def prepare(self, protocol: Any) -> object:
        protocol.link.addCleanup(self.cleanUp)
        if self.take("reject"):
            raise ZeroDivisionError("in prepareConnection")
        if self.take("lose while preparing"):
            self.proxy.reset()
            return Deferred()
        return None

    def cleanUp(self) -> None:
        self.cleaned += 1
        if self.take("raise in cleanup"):
            raise ZeroDivisionError("in a cleanup")

    def take(self, what: str) -> bool:
        """
        Whether that was to go wrong; once.
        """
        armed = self.armed == what
        if armed:
            self.armed = None
        return armed

    @property
    def talker(self) -> Any:
        assert self.service.link is not None
        return self.service.link.protocol

    async def breakOnce(self, fault: Callable[[Soak], object], expected: Any) -> int:
        """
        End a link that is up and proven.

        @return: the number of faults.
        """
        return await self.suffer(fault, 1, expected)

    async def failOnce(self, armed: str, expected: Any) -> int:
        """
        End a link, and have the next attempt go wrong.
        """

        def fault(soak: Soak) -> None:
            soak.armed = armed
            soak.proxy.reset()

        return await self.suffer(fault, 2, expected)

    async def suffer(self, fault: Callable[[Soak], object], times: int, expected: Any) -> int:
        """
        Make a fault that leads to so many retries, the last of them for a cause that is expected.
        """
        await within(self.service.whenConnected())
        await within(self.talker.spoke)
        retried = self.tally.whenRetried(self.tally.heard["retrying"] + times)
        await within(Deferred.fromCoroutine(_done(fault(self))))
        await within(retried)
        assert isinstance(self.tally.cause, expected), repr(self.tally.cause)
        self.tally.cause = None
        # What has ended for the client may not have ended for a proxy that does not read.
        self.proxy.heal()
        self.proxy.reset()
        return times


async def _done(result: Any) -> None:
    if isinstance(result, Deferred):
        await result


# The faults.


def closeByPeer(soak: Soak) -> None:
    soak.peers.latest.transport.loseConnection()


def resetByPeer(soak: Soak) -> None:
    soak.peers.latest.transport.abortConnection()


def halfClose(soak: Soak) -> None:
    soak.proxy.halfClose(toward="client")


def cutInAMessage(soak: Soak) -> None:
    soak.proxy.inject(CutAfter(bytes=3, reset=True), toward="client")
    soak.talker.say(b"half of this comes back")


def cut(soak: Soak) -> None:
    soak.proxy.inject(BlackHole(), connections="existing")


def cutOneWay(soak: Soak) -> None:
    soak.proxy.inject(BlackHole(), toward="client", connections="existing")


def stopReading(soak: Soak) -> None:
    soak.proxy.inject(StopReading(), connections="existing")


def encoderError(soak: Soak) -> None:
    soak.talker.say("no bytes")


def raiseInDataReceived(soak: Soak) -> None:
    soak.armed = "raise in dataReceived"
    soak.talker.say(b"come back")


def raiseInCleanup(soak: Soak) -> None:
    soak.armed = "raise in cleanup"
    soak.proxy.reset()


def closeHere(soak: Soak) -> None:
    soak.talker.transport.loseConnection()


def abortHere(soak: Soak) -> None:
    soak.talker.transport.abortConnection()


def closeLink(soak: Soak) -> None:
    assert soak.service.link is not None
    soak.service.link.close()


def violation(soak: Soak) -> None:
    assert soak.service.link is not None
    soak.service.link.abort(ProtocolViolation("said so"))


def acceptThenClose(soak: Soak) -> None:
    soak.proxy.inject(AcceptThenClose())
    soak.proxy.reset()


def refuse(soak: Soak) -> Deferred[None]:
    return soak.proxy.refuse().addCallback(lambda _: soak.proxy.reset())


SUDDEN: list[Callable[[Soak], Any]] = [
    lambda soak: soak.breakOnce(lambda soak: soak.proxy.reset(), PeerReset),
    lambda soak: soak.breakOnce(resetByPeer, PeerReset),
    lambda soak: soak.breakOnce(closeByPeer, CLOSED),
    lambda soak: soak.breakOnce(halfClose, PeerClosed),
    lambda soak: soak.breakOnce(cutInAMessage, PeerReset),
    lambda soak: soak.breakOnce(encoderError, SendFailed),
    lambda soak: soak.breakOnce(raiseInDataReceived, ClosedHere),
    lambda soak: soak.breakOnce(raiseInCleanup, PeerReset),
    lambda soak: soak.breakOnce(closeHere, ClosedHere),
    lambda soak: soak.breakOnce(abortHere, ClosedHere),
    lambda soak: soak.breakOnce(closeLink, ClosedHere),
    lambda soak: soak.breakOnce(violation, ProtocolViolation),
    lambda soak: soak.suffer(acceptThenClose, 2, CLOSED),
    lambda soak: soak.suffer(refuse, 2, ConnectFailed),
    lambda soak: soak.failOnce("raise in connected", ClosedHere),
    lambda soak: soak.failOnce("reject", ConnectFailed),
    lambda soak: soak.failOnce("lose while preparing", PeerReset),
    lambda soak: soak.failOnce("raise in buildProtocol", ConnectFailed),
    lambda soak: soak.failOnce("build nothing", ConnectFailed),
]
"""Found at once."""

SLOW: list[Callable[[Soak], Any]] = [
    lambda soak: soak.breakOnce(cut, (PeerSilent, PeerHung)),
    lambda soak: soak.breakOnce(cutOneWay, (PeerSilent, PeerHung)),
    lambda soak: soak.breakOnce(stopReading, (PeerSilent, PeerHung)),
]
"""Found by silence."""


def mixed() -> Iterator[Callable[[Soak], Any]]:
    """
    The faults without end, each round in another order: every one once, and a slow one.
    """
    random = Random(7)
    for slow in chain.from_iterable(repeat(SLOW)):
        yield from random.sample([*SUDDEN, slow], len(SUDDEN) + 1)


# What is there.


KINDS: tuple[type, ...] = (
    Link,
    FailureDetector,
    Deferred,
    WrappedProtocol,
    Talker,
    Connection,
    Cause,
    Evidence,
)


class Stock:
    """
    What there is now.

    @ivar objects: the living ones of each kind.
    @ivar descriptors: the open ones.
    @ivar blocks: of memory.
    """

    def __init__(self) -> None:
        gc.collect()
        self.blocks = sys.getallocatedblocks()
        alive = gc.get_objects()
        self.objects = {
            kind.__name__: sum(isinstance(thing, kind) for thing in alive) for kind in KINDS
        }
        self.descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    def __repr__(self) -> str:
        return f"<{self.descriptors} descriptors, {self.blocks} blocks, {self.objects}>"


ALONE = "SOAK_ALONE"
"""Set in the environment of the process that does nothing else."""


def test_soakInAProcessOfItsOwn() -> None:
    """
    The soak below passes where nothing else allocates memory: the kernel suite's reports come in
    all the while in the process that runs it.
    """
    soak = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"{__file__}::test_soak"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, ALONE: "yes"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert soak.returncode == 0, soak.stdout[-5000:]
    assert "1 passed" in soak.stdout


@pytest.mark.skipif(ALONE not in os.environ, reason="It is run in a process of its own.")
@pytest_twisted.ensureDeferred
async def test_soak(loggedErrors: Any) -> None:
    """
    A thousand faults in a row: each leads to a named cause and to one new attempt; cleanups, links
    and C{disconnected} are as many, generations grow, and no object, descriptor or memory stays.
    That no socket and no timer is left at the end is what conftest.py sees to.
    """
    soak = Soak()
    await soak.start()
    stocks: list[Stock] = []
    try:
        for faults in range(SETTLED, FAULTS + 1, SETTLED):
            stocks.append(await sufferUntil(soak, faults, loggedErrors))
    finally:
        await soak.stop()
    first, last = stocks[0], stocks[-1]
    for kind, number in last.objects.items():
        assert number - first.objects[kind] <= SLACK, (kind, stocks)
    assert last.descriptors - first.descriptors <= SLACK
    # The interpreter's caches grow by steps; what leaks grows all the time.
    growth = [later.blocks - earlier.blocks for earlier, later in pairwise(stocks)]
    assert min(growth) <= SETTLED, stocks
    heard = soak.tally.heard
    assert heard["retrying"] == soak.suffered >= FAULTS
    assert heard["gaveUp"] == 0
    assert soak.made == soak.lost == soak.cleaned == heard["disconnected"]
    assert FAULTS / 2 < soak.made <= soak.tally.generation


async def sufferUntil(soak: Soak, faults: int, loggedErrors: Any) -> Stock:
    """
    Go on until there have been so many faults.

    @return: what there is then, while one link is up.
    """
    while soak.suffered < faults:
        soak.suffered += await next(soak.faults)(soak)
    loggedErrors.flush(ZeroDivisionError)
    await within(soak.service.whenConnected())
    await within(soak.talker.spoke)
    return Stock()
