# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Hostile peers against a server on real loopback sockets: malformed, oversized, slow and repeated
input ends the link that it came on, and nothing else.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    ProtocolViolation,
    ServerLimits,
)
from twisted_heartbeat.core import wire

from ..support.loopback import Loopback, wait, within
from ..support.virtualnetwork import Recorder

HEARTBEAT = Heartbeat(interval=0.5, timeout=10.0)

LIMITS = ServerLimits(
    peers=200, helloTimeout=1.0, admissionTimeout=1.0, maxMessage=64 * 1024, pingsPerSecond=20
)

SECONDS = 3.0
"""How long the hostile peers go on, at least."""

WAIT_LIMIT = 40.0
"""How long they go on at most, on a busy machine."""

MB = 1024 * 1024

HELLO = wire.encode(wire.Hello("hostile"))
NAMELESS = wire.encode(wire.Hello())


# What each kind says: the next chunk is sent when the last one has been taken.

Speech = Iterator[bytes]


def garbage(draw: random.Random) -> Speech:
    """
    Bytes of no meaning.
    """
    while True:
        yield draw.randbytes(draw.randrange(1, 4000))


def mangled(draw: random.Random) -> Speech:
    """
    A session in which some bytes are others.
    """
    session = bytearray(NAMELESS + (wire.encodePing(1) + wire.encode(wire.Data(b"xyz"))) * 40)
    for _ in range(draw.randrange(1, 10)):
        session[draw.randrange(len(session))] = draw.randrange(256)
    yield bytes(session)


def oversized(draw: random.Random) -> Speech:
    """
    A frame of four gigabytes.
    """
    yield NAMELESS + bytes([wire.VERSION, wire.FrameType.DATA]) + bytes(6) + b"\xff\xff\xff\xff"
    while True:
        yield bytes(65536)


def unfinished(draw: random.Random) -> Speech:
    """
    A message as long as it may be, but for its last byte.
    """
    yield NAMELESS + wire.encode(wire.Data(bytes(64 * 1024)))[:-1]


def withoutAHello(draw: random.Random) -> Speech:
    """
    Messages, and never a hello.
    """
    while True:
        yield wire.encode(wire.Data(bytes(4000))) * 10


def pings(draw: random.Random) -> Speech:
    """
    Pings without end.
    """
    yield HELLO
    while True:
        yield wire.encodePing(draw.randrange(2**32)) * 1000


def hellos(draw: random.Random) -> Speech:
    """
    Another name each time.
    """
    for number in range(1000):
        yield wire.encode(wire.Hello(f"hostile-{number}"))


def unknown(draw: random.Random) -> Speech:
    """
    Frames that may be skipped, hundreds of thousands of them.
    """
    yield NAMELESS
    frame = bytes([wire.VERSION, 0xFE]) + bytes(10)
    for _ in range(60):
        yield frame * 5000


def messages(draw: random.Random) -> Speech:
    """
    Empty messages, as many.
    """
    yield NAMELESS
    for _ in range(60):
        yield wire.encode(wire.Data(b"")) * 5000


def goodbyes(draw: random.Random) -> Speech:
    """
    Goodbyes, and no end.
    """
    while True:
        yield wire.encode(wire.Goodbye("x" * 1000, 1e6, 1e6)) * 10


KINDS: list[Callable[[random.Random], Speech]] = [
    garbage,
    mangled,
    oversized,
    unfinished,
    withoutAHello,
    pings,
    hellos,
    unknown,
    messages,
    goodbyes,
]


@implementer(IPullProducer)
class Hostile(Protocol):
    """
    A peer that sends its speech as fast as it is taken, and reads nothing.
    """

    factory: Any

    def connectionMade(self) -> None:
        """
        Begin.
        """
        self.factory.open.append(self)
        self.speech = self.factory.kind(self.factory.draw)
        self.transport.registerProducer(self, False)  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        """
        Go on.
        """
        chunk = next(self.speech, None)
        if chunk is None:
            self.transport.unregisterProducer()  # type: ignore[union-attr]
        else:
            self.transport.write(chunk)  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        """
        It is over.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Come again.
        """
        self.factory.open.remove(self)
        self.factory.come()


class Hostiles(Factory):
    """
    A hostile peer of one kind, which connects again whenever its link has ended.

    @ivar open: its connections.
    @ivar came: how often it came.
    """

    protocol = Hostile
    noisy = False

    def __init__(self, kind: Callable[[random.Random], Speech], port: int) -> None:
        from twisted.internet import reactor

        self.kind = kind
        self.draw = random.Random(kind.__name__)
        self.open: list[Hostile] = []
        self.came = 0
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self._coming: Deferred[Any] | None = None
        self._over = False

    def come(self) -> None:
        """
        Connect; up to a hundred times.
        """
        if not self._over and self.came < 100:
            self.came += 1
            self._coming = self._endpoint.connect(self)
            self._coming.addErrback(lambda _: None)

    def end(self) -> None:
        """
        Come no more.
        """
        self._over = True
        if self._coming is not None:
            self._coming.cancel()
        for one in list(self.open):
            one.transport.abortConnection()  # type: ignore[union-attr]


class Echo(HeartbeatProtocol):
    """
    Answers each message.
    """

    def messageReceived(self, message: bytes) -> None:
        """
        With itself; one that is empty with nothing.
        """
        if message:
            self.sendMessage(message)


class Friend(HeartbeatProtocol):
    """
    Asks, and counts the answers.
    """

    name = "friend"
    answers = 0
    longest = 0.0
    _askedAt = 0.0

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Begin.
        """
        self._ask()

    def _ask(self) -> None:
        self._askedAt = time.monotonic()
        self.sendMessage(b"%d" % self.answers)

    def messageReceived(self, message: bytes) -> None:
        """
        Ask again.
        """
        assert message == b"%d" % self.answers
        self.answers += 1
        self.longest = max(self.longest, time.monotonic() - self._askedAt)
        self._ask()


def residentBytes() -> int:
    """
    The resident memory of this process; 0 where the system does not tell it (proc_pid_statm(5)).
    """
    if not sys.platform.startswith("linux"):
        return 0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


@pytest_twisted.ensureDeferred
async def test_hostilePeers(plain: Loopback) -> None:
    """
    Hostile peers, as fast as they can and again whenever their links have ended, end their own
    links only.  A friend's link stays up, and its messages are answered all the while; no exception
    reaches the log; memory stays bounded; and when they have gone nothing is left of them
    (promise 17).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(
        Factory.forProtocol(Echo),
        hooks=hooks,
        heartbeat=HEARTBEAT,
        limits=Limits(maxBuffered=64 * 1024, closeTimeout=1.0),
        serverLimits=LIMITS,
    )
    plain.atEnd(server.close)
    port = plain.listen(server)
    connected = hooks.next("connected")
    service = plain.service(plain.endpoint(port), Factory.forProtocol(Friend), heartbeat=HEARTBEAT)
    link = await within(connected)
    friend = await within(service.whenConnected())
    before = residentBytes()
    crowd = [Hostiles(kind, port) for kind in KINDS for _ in range(2)]
    for hostile in crowd:
        hostile.come()
    most, began = before, time.monotonic()
    while time.monotonic() < began + WAIT_LIMIT:
        await wait(0.1)
        most = max(most, residentBytes())
        enough = friend.answers > 50 and sum(hostile.came for hostile in crowd) > 200
        if enough and time.monotonic() > began + SECONDS:
            break
    answers, ended = friend.answers, time.monotonic()
    for hostile in crowd:
        hostile.end()
    assert answers > 50
    assert server.named("friend") is link
    assert link.state == "alive"
    assert service.link is not None and service.link.generation == 1
    while friend.answers == answers and time.monotonic() < ended + HEARTBEAT.bound:
        await wait(0.05)
    assert friend.answers > answers
    assert friend.longest < HEARTBEAT.bound
    while server._registry.links != [link] and time.monotonic() < began + WAIT_LIMIT + 10:
        await wait(0.1)
    assert server._registry.links == [link]
    assert server.peers == {link.generation: link}
    causes = hooks.told("disconnected")
    words = " ".join({str(cause) for cause in causes if isinstance(cause, ProtocolViolation)})
    for violation in ("begins with version", "at most 65536 are allowed", "pings in a second"):
        assert violation in words
    # Two of each kind, at most 64 KiB held or half read for each, and what reads and logs them.
    assert most - before < 96 * MB
    assert sum(hostile.came for hostile in crowd) > 200


@pytest_twisted.ensureDeferred
async def test_slowPeers(plain: Loopback) -> None:
    """
    Peers that connect and say their hello a byte at a time, or nothing, are gone within
    C{helloTimeout}; a peer that is admitted meanwhile is not affected.
    """
    hooks = Recorder()
    limits = ServerLimits(peers=60, helloTimeout=1.0)
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=HEARTBEAT, serverLimits=limits)
    plain.atEnd(server.close)
    port = plain.listen(server)

    def slowly(draw: random.Random) -> Speech:
        return iter(())

    crowd = [Hostiles(slowly, port) for _ in range(50)]
    began = time.monotonic()
    for hostile in crowd:
        hostile.come()
    while sum(len(hostile.open) for hostile in crowd) < 50 and time.monotonic() < began + 5:
        await wait(0.02)
    for hostile in crowd:
        # They do not come again.
        hostile.came = 100
    connected = hooks.next("connected")
    plain.service(plain.endpoint(port), Factory.forProtocol(Friend), heartbeat=HEARTBEAT)
    link = await within(connected)
    index = 0
    # Those that are aborted are closing for a moment.
    while server._registry.links != [link] and time.monotonic() < began + 20:
        for hostile in crowd[::2]:
            for one in hostile.open:
                one.transport.write(HELLO[index : index + 1])  # type: ignore[union-attr]
        index = min(index + 1, len(HELLO) - 2)
        await wait(0.1)
    assert server._registry.links == [link]
    assert {str(cause) for cause in hooks.told("disconnected")} == {"no hello within 1 s"}
    assert len(hooks.told("disconnected")) == 50
    assert time.monotonic() - began >= 1.0
