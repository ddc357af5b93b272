# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The tunnel, in virtual time: two ends, and a wire between them that a test cuts into slices, holds
back, or breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, NoProtocol
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProtocolNegotiationFactory,
    IPushProducer,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from twisted_heartbeat import (
    ClosedHere,
    Heartbeat,
    HeartbeatFactory,
    Limits,
    PeerClosed,
    PeerSilent,
    ProtocolViolation,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.endpoints.tunnel import Tunnel, TunnelFactory
from twisted_heartbeat.endpoints.tunneltransport import MAX_BODY
from twisted_heartbeat.transport.layers import bytesBufferedAbove

from ..conftest import LoggedErrors
from ..support.loopback import wait, within
from ..support.virtualnetwork import PEER, FakeTransport, Kept, KeptFactory

BOUND = 8.0
HELLO = wire.encode(wire.Hello())


class WireEnd(FakeTransport):
    """
    One end of a wire: what is written here waits until the test, or the wire, takes it.

    @ivar room: bytes that may wait before the producer is paused, as on a real connection.
    @ivar reading: whether the end takes what the other one has written.
    """

    room = 64 * 1024
    reading = True
    blocked = False

    def __init__(self, clock: Clock, protocol: Any) -> None:
        super().__init__(clock, protocol)
        self.waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.open:
            assert type(data) is bytes
            self.waiting.append(data)
            if self.producer is not None and len(b"".join(self.waiting)) > self.room:
                self.blocked = True
                self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        for part in data:
            self.write(part)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def take(self) -> bytes:
        """
        All that waits.
        """
        data = b"".join(self.waiting)
        self.waiting.clear()
        if self.blocked and self.producer is not None:
            self.blocked = False
            self.producer.resumeProducing()
        return data

    def loseConnection(self) -> None:
        # The bytes first, then the end, as TCP does; and nothing more is read.
        self.disconnecting = True
        self.reading = False
        self._closing = True

    _closing = False


class Wire:
    """
    Two tunnels, and what is between them.

    @ivar near: the protocol that is carried at this end, once there is one.
    @ivar slices: how many bytes pass at a time; all if L{None}.
    """

    def __init__(
        self,
        near: Any = None,
        far: Any = None,
        *,
        slices: Iterator[int] | None = None,
        closeTimeout: float | None = 5.0,
    ) -> None:
        self.clock = Clock()
        self.slices = slices
        self.factories = [near or KeptFactory(), far or KeptFactory()]
        self.tunnels = [self._tunnel(factory, closeTimeout) for factory in self.factories]
        self.ends = [WireEnd(self.clock, tunnel) for tunnel in self.tunnels]
        self._inFlight = [b"", b""]

    def _tunnel(self, factory: Any, closeTimeout: float | None) -> Any:
        tunnels: Any = TunnelFactory(factory, self.clock)
        watching = HeartbeatFactory(
            tunnels,
            heartbeat=Heartbeat.within(BOUND),
            limits=Limits(closeTimeout=closeTimeout, sendStall=None),
            clock=self.clock,
        )
        return watching.buildProtocol(PEER)

    def connect(self) -> Wire:
        """
        Have both ends connected, and let them say hello.
        """
        for tunnel, end in zip(self.tunnels, self.ends, strict=True):
            tunnel.makeConnection(end)
        self.pass_()
        return self

    @property
    def near(self) -> Any:
        """
        What is carried at this end.
        """
        return self.tunnels[0].tunnelTransport.protocol

    @property
    def far(self) -> Any:
        """
        What is carried at the other one.
        """
        return self.tunnels[1].tunnelTransport.protocol

    def pass_(self) -> None:
        """
        Let all pass that is going to, both ways, with the ends that follow from it.
        """
        for _ in range(100_000):
            if not any([self._passOne(0), self._passOne(1)]):
                break
        else:
            pytest.fail("the two never stop to speak")

    def _passOne(self, number: int) -> bool:
        here, there = self.ends[number], self.ends[1 - number]
        if here.open:
            self._inFlight[number] += here.take()
        moved = False
        if self._inFlight[number] and there.reading and there.open:
            size = len(self._inFlight[number]) if self.slices is None else next(self.slices)
            data, self._inFlight[number] = (
                self._inFlight[number][:size],
                self._inFlight[number][size:],
            )
            there.deliver(data)
            moved = True
        if here._closing and here.open and not self._inFlight[number] and not here.waiting:
            here.lose(ConnectionDone())
            if there.open:
                there.lose(ConnectionDone())
            moved = True
        return moved

    def advance(self, seconds: float) -> None:
        """
        Let time go by, and all pass meanwhile.
        """
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)
            self.pass_()

    def end(self) -> None:
        """
        Leave nothing of it.
        """
        for end in self.ends:
            end.lose(ConnectionLost())
        assert self.clock.getDelayedCalls() == []


def tunnelAlone(factory: Any = None, **settings: Any) -> tuple[Tunnel, WireEnd, Clock, Any]:
    """
    One end, whose peer is the test.
    """
    wires = Wire(factory, **settings)
    tunnel, end = wires.tunnels[0], wires.ends[0]
    tunnel.makeConnection(end)
    return tunnel, end, wires.clock, wires.factories[0]


def frames(data: bytes) -> list[wire.Frame]:
    """
    What stands in what was written.
    """
    return list(wire.FrameReader().receive(data))


# The beginning.


def test_nobodyIsThereBeforeTheHello() -> None:
    """
    The carried protocol is not even built before the peer has said hello, and then it is connected.
    """
    tunnel, end, clock, factory = tunnelAlone()
    opened: list[Any] = []
    tunnel.whenOpen().addCallback(opened.append)
    [hello] = frames(end.take())
    assert isinstance(hello, wire.Hello)
    assert hello.needs == BOUND
    end.deliver(wire.encodePing(1))
    assert frames(end.take()) == [wire.Pong(1)]
    assert factory.built == opened == []
    end.deliver(HELLO)
    assert opened == factory.built
    [protocol] = factory.built
    assert protocol.transport is tunnel.tunnelTransport
    later: list[Any] = []
    tunnel.whenOpen().addCallback(later.append)
    assert later == opened
    end.lose()
    assert clock.getDelayedCalls() == []


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "a greeting": b"220 mail.example ESMTP\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "data": wire.encode(wire.Data(b"x")),
    "an end": wire.encode(wire.End()),
    "hello twice": HELLO + HELLO,
    "a frame of no kind": b"\x01\x2a" + bytes(10),
    "data after the end": HELLO + wire.encode(wire.End()) + wire.encode(wire.Data(b"x")),
}


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Kept):
    """
    Can do with half of a connection, and notes what it is told of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def readConnectionLost(self) -> None:
        """
        Note it.
        """
        self.told.append("read")

    def writeConnectionLost(self) -> None:
        """
        Note it.
        """
        self.told.append("write")


def halfCloseables() -> KeptFactory:
    """
    Makes them.
    """
    factory = KeptFactory()
    factory.protocol = HalfCloseable
    return factory


@pytest.mark.parametrize("what", STRANGERS)
def test_stranger(what: str) -> None:
    """
    Who does not speak the protocol is found at its first wrong word, and it is a violation.
    """
    tunnel, end, clock, _ = tunnelAlone(halfCloseables())
    failures: list[Any] = []
    tunnel.whenOpen().addErrback(failures.append)
    end.deliver(STRANGERS[what])
    clock.advance(0)
    assert not end.open
    assert isinstance(tunnel.link and tunnel.link.cause, ProtocolViolation)
    assert all(failure.check(ProtocolViolation, ConnectionLost) for failure in failures)
    assert len(failures) == (0 if HELLO in STRANGERS[what] else 1)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "trickling"])
def test_noHello(trickle: bool) -> None:
    """
    Who says nothing, or never comes to the end of its hello, is found within the bound.
    """
    tunnel, end, clock, _ = tunnelAlone()
    failures: list[Any] = []
    tunnel.whenOpen().addErrback(failures.append)
    greeting = iter(wire.encode(wire.Hello("x" * 200)))
    for _ in range(round(BOUND * 8) + 2):
        clock.advance(0.125)
        if trickle:
            end.deliver(bytes([next(greeting)]))
    assert not end.open
    [failure] = failures
    assert type(failure.value) is (ProtocolViolation if trickle else PeerSilent)
    assert clock.getDelayedCalls() == []


def test_cancelled() -> None:
    """
    Whoever no longer wants it cancels, and the connection is aborted.
    """
    tunnel, end, clock, factory = tunnelAlone()
    opened = tunnel.whenOpen()
    opened.addErrback(lambda failure: None)
    opened.cancel()
    clock.advance(0)
    assert not end.open
    assert factory.built == []
    failures: list[Any] = []
    tunnel.whenOpen().addErrback(failures.append)
    assert failures[0].check(ConnectionAborted)
    assert clock.getDelayedCalls() == []


class Refusing(Factory):
    """
    Builds nothing.
    """

    def buildProtocol(self, addr: object) -> None:
        """
        See C{IProtocolFactory}.
        """
        return None


class Failing(Factory):
    """
    Can not.
    """

    def buildProtocol(self, addr: object) -> Any:
        """
        See C{IProtocolFactory}.
        """
        raise ZeroDivisionError("in user code")


@pytest.mark.parametrize(
    ("factory", "error"), [(Refusing(), NoProtocol), (Failing(), ZeroDivisionError)]
)
def test_noProtocol(factory: Factory, error: type[Exception]) -> None:
    """
    A factory that builds nothing ends the connection politely, and whoever waits is told why.
    """
    wires = Wire(factory)
    failures: list[Any] = []
    for tunnel, end in zip(wires.tunnels, wires.ends, strict=True):
        tunnel.makeConnection(end)
    wires.tunnels[0].whenOpen().addErrback(failures.append)
    wires.pass_()
    assert failures[0].check(error)
    assert wires.far.reason.check(PeerClosed, ConnectionDone)
    wires.end()


def test_noProtocolForAServer(loggedErrors: LoggedErrors) -> None:
    """
    Where nobody waits, what a factory raised is logged.
    """
    wires = Wire(Failing()).connect()
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    assert not wires.ends[0].open
    wires.end()


# The stream.


@settings(max_examples=60)
@given(
    writes=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.one_of(
                st.integers(0, 40),
                st.sampled_from([MAX_BODY - 1, MAX_BODY, MAX_BODY + 1, 3 * MAX_BODY + 7]),
            ),
            st.booleans(),
        ),
        max_size=12,
    ),
    sizes=st.lists(st.one_of(st.integers(1, 50), st.integers(1000, 70_000)), min_size=1),
    pauses=st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=12),
    data=st.data(),
)
def test_anythingPassesByteForByte(
    writes: list[tuple[int, int, bool]],
    sizes: list[int],
    pauses: list[tuple[int, bool]],
    data: st.DataObject,
) -> None:
    """
    Whatever is written at either end, in pieces of any size, however the network slices it, and
    whoever stops reading for a while, the same bytes arrive in the same order; and then the end.
    """

    def forever() -> Iterator[int]:
        while True:
            yield from sizes
            # However small they are, it comes to an end.
            yield 1_000_000

    wires = Wire(slices=forever()).connect()
    sent = [b"", b""]
    protocols = [wires.near, wires.far]
    for number, (side, size, asSequence) in enumerate(writes):
        body = bytes([number + 1]) * size
        sent[side] += body
        if asSequence:
            protocols[side].transport.writeSequence([body[:3], body[3:]])
        else:
            protocols[side].transport.write(body)
        if number < len(pauses):
            which, stop = pauses[number]
            inside = protocols[which].transport
            (inside.pauseProducing if stop else inside.resumeProducing)()
        if data.draw(st.booleans()):
            wires.pass_()
    for protocol in protocols:
        protocol.transport.resumeProducing()
    wires.pass_()
    assert protocols[1].received == sent[0]
    assert protocols[0].received == sent[1]
    protocols[0].transport.loseConnection()
    wires.pass_()
    wires.advance(0.25)
    assert [protocol.losses for protocol in protocols] == [1, 1]
    assert all(protocol.reason.check(ConnectionDone) for protocol in protocols)
    wires.end()


def test_nothingIsCopiedNorCut() -> None:
    """
    What fits a frame goes to the connection as the very object that was written, and what is
    received of a frame is passed on before the frame is whole.
    """
    wires = Wire().connect()
    body = bytes(MAX_BODY)
    wires.near.transport.write(body)
    _, passed = wires.ends[0].waiting
    assert passed is body
    wires.pass_()
    assert wires.far.received == body
    wires.ends[1].deliver(wire.encodeDataHeader(1_000_000) + b"abc")
    assert wires.far.received[MAX_BODY:] == b"abc"
    wires.end()


def test_onlyBytes() -> None:
    """
    As on any transport of Twisted's, only bytes can be written; and nothing makes no frame.
    """
    wires = Wire().connect()
    with pytest.raises(TypeError, match="bytes"):
        wires.near.transport.write("text")
    wires.near.transport.write(b"")
    assert wires.ends[0].take() == b""
    wires.end()


# Back-pressure.


class Producer:
    """
    A push producer that notes what it is told.
    """

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def test_pushProducer() -> None:
    """
    A push producer is paused when the connection has no room, resumed when all of it has gone, and
    stopped at the end; a second one is refused.
    """
    wires = Wire().connect()
    producer = Producer()
    inside = wires.near.transport
    inside.registerProducer(producer, True)
    with pytest.raises(RuntimeError, match="never unregistered"):
        inside.registerProducer(Producer(), True)
    inside.write(bytes(300_000))
    inside.write(bytes(1000))
    assert producer.told == ["pause"]
    assert bytesBufferedAbove(inside) == inside.waiting > 100_000
    wires.pass_()
    assert producer.told == ["pause", "resume"]
    assert bytesBufferedAbove(inside) == 0
    assert len(wires.far.received) == 301_000
    wires.ends[0].lose(ConnectionLost())
    assert producer.told == ["pause", "resume", "stop"]
    late = Producer()
    inside.registerProducer(late, True)
    assert late.told == ["stop"]
    wires.end()


def test_closesAfterItsProducer() -> None:
    """
    As on any transport, a polite close waits for the producer, and for all that it has written.
    """
    wires = Wire().connect()
    inside = wires.near.transport
    inside.registerProducer(Producer(), True)
    inside.write(bytes(200_000))
    inside.loseConnection()
    wires.advance(20)
    inside.write(b"more")
    wires.pass_()
    assert wires.far.losses == 0
    inside.unregisterProducer()
    wires.pass_()
    assert len(wires.far.received) == 200_004
    assert wires.far.losses == wires.near.losses == 1
    wires.end()


@pytest_twisted.ensureDeferred
async def test_pullProducer() -> None:
    """
    A pull producer is asked as long as there is room, and no more.
    """
    wires = Wire().connect()
    inside = wires.near.transport
    full: Deferred[None] = Deferred()
    done: Deferred[None] = Deferred()

    class Pull:
        left = 20

        def resumeProducing(self) -> None:
            self.left -= 1
            inside.write(bytes(20_000))
            if self.left == 16:
                full.callback(None)
            if self.left == 0:
                inside.unregisterProducer()
                done.callback(None)

        def stopProducing(self) -> None:
            self.left = 0

    pull = Pull()
    inside.registerProducer(pull, False)
    # 64 KiB, and the one that was too much.
    await within(full)
    await wait(0.1)
    assert pull.left == 16
    for _ in range(250):
        wires.pass_()
        await wait(0.02)
        if done.called:
            break
    wires.pass_()
    assert len(wires.far.received) == 400_000
    wires.end()


def test_pingPassesBulk() -> None:
    """
    Of a megabyte that is written at once no more than two frames stand before a ping.
    """
    wires = Wire().connect()
    wires.near.transport.write(bytes(1_000_000))
    before = len(b"".join(wires.ends[0].waiting))
    assert before <= 2 * (MAX_BODY + wire.HEADER_SIZE)
    wires.tunnels[0].sendPing()
    [last] = frames(wires.ends[0].waiting[-1])
    assert isinstance(last, wire.Ping)
    wires.pass_()
    assert len(wires.far.received) == 1_000_000
    wires.end()


def test_pausedReader() -> None:
    """
    Who pauses gets nothing more, not even what had already been read from the connection, and the
    connection is not read; when it goes on, all is there.
    """

    class Shy(Kept):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()  # type: ignore[union-attr]

    shy = KeptFactory()
    shy.protocol = Shy
    wires = Wire(far=shy).connect()
    for letter in (b"a", b"b", b"c"):
        wires.near.transport.write(letter)
    wires.near.transport.loseWriteConnection()
    wires.pass_()
    assert wires.far.received == b"a"
    assert not wires.ends[1].reading
    wires.far.transport.resumeProducing()
    assert wires.far.received == b"ab"
    wires.far.transport.resumeProducing()
    assert wires.far.received == b"abc"
    assert wires.far.losses == 0
    wires.far.transport.resumeProducing()
    wires.pass_()
    assert wires.far.losses == 1
    wires.end()


def test_pausedIsNotDead() -> None:
    """
    A program that does not read for ten bounds is not dead to its peer, nor is the peer to it, and
    not even if neither reads.
    """
    wires = Wire().connect()
    wires.far.transport.pauseProducing()
    wires.near.transport.write(b"too much for now")
    wires.advance(10 * BOUND)
    assert wires.far.losses == wires.near.losses == 0
    wires.near.transport.pauseProducing()
    wires.advance(10 * BOUND)
    assert wires.far.losses == wires.near.losses == 0
    wires.far.transport.resumeProducing()
    wires.near.transport.resumeProducing()
    wires.pass_()
    assert wires.far.received == b"too much for now"
    wires.ends[0].reading = False
    wires.advance(1.25 * BOUND)
    assert wires.near.reason.check(PeerSilent)
    wires.end()


def test_pausedSpeaksForAShorterBound() -> None:
    """
    A tunnel that does not read speaks within what its peer needs, where that is less than its own
    bound (promise 19).
    """
    tunnel, end, clock, factory = tunnelAlone()
    end.deliver(wire.encode(wire.Hello("", needs=2.0)))
    [protocol] = factory.built
    protocol.transport.pauseProducing()
    end.take()
    spoke = 0.0
    for _ in range(5 * 8):
        clock.advance(0.125)
        if frames(end.take()):
            spoke = clock.seconds()
        assert clock.seconds() - spoke <= 1.5 + 0.125
    assert protocol.losses == 0
    end.lose(ConnectionLost())


def test_dataIsAWord() -> None:
    """
    What the carried protocol sends is a word as good as any: none is added to it.
    """
    tunnel, end, clock, factory = tunnelAlone()
    end.deliver(wire.encode(wire.Hello("", needs=2.0)))
    [protocol] = factory.built
    end.take()
    for _ in range(16):
        clock.advance(0.5)
        protocol.transport.write(b"x")
        end.deliver(wire.encode(wire.Data(b"y")))
        assert frames(end.take()) == [wire.Data(b"x")]
    end.lose(ConnectionLost())


# Half-close.


def test_halfClose() -> None:
    """
    Each half is closed by itself, after all that was written to it; the other one goes on, and the
    heart beats on.
    """
    wires = Wire(halfCloseables(), halfCloseables()).connect()
    near, far = wires.near, wires.far
    near.transport.write(bytes(200_000))
    near.transport.loseWriteConnection()
    near.transport.write(b"just in time")
    assert near.told == []
    wires.pass_()
    near.transport.loseWriteConnection()
    near.transport.write(b"too late")
    wires.advance(3 * BOUND)
    assert far.received == bytes(200_000) + b"just in time"
    assert (near.told, far.told) == (["write"], ["read"])
    far.transport.write(b"answer")
    wires.pass_()
    assert near.received == b"answer"
    far.transport.loseWriteConnection()
    wires.advance(1)
    assert (near.told, far.told) == (["write", "read"], ["read", "write"])
    assert near.losses == far.losses == 0
    near.transport.loseConnection()
    wires.pass_()
    assert near.losses == far.losses == 1
    wires.end()


def test_halfCloseWaitsForItsProducer() -> None:
    """
    A producer that is paused has more to say, and says it before its half is closed.
    """
    wires = Wire(halfCloseables(), halfCloseables()).connect()
    inside = wires.near.transport

    class Last(Producer):
        def resumeProducing(self) -> None:
            super().resumeProducing()
            inside.write(b"the last word")
            inside.unregisterProducer()

    inside.registerProducer(Last(), True)
    inside.write(bytes(70_000))
    inside.loseWriteConnection()
    wires.advance(0.25)
    assert wires.far.received == bytes(70_000) + b"the last word"
    assert (wires.near.told, wires.far.told) == (["write"], ["read"])
    wires.end()


def test_halfCloseOfOneWhoCanNot() -> None:
    """
    To a protocol that knows nothing of half-closing, the end of the data is the end.
    """
    wires = Wire(halfCloseables()).connect()
    near, far = wires.near, wires.far
    near.transport.write(b"all")
    near.transport.loseWriteConnection()
    wires.advance(0.125)
    assert far.received == b"all"
    assert far.reason.check(PeerClosed, ConnectionDone)
    assert near.reason.check(PeerClosed, ConnectionDone)
    wires.end()


# The end.


def test_politeClose() -> None:
    """
    All that was written arrives, a goodbye follows it, and both ends are told C{ConnectionDone};
    what the closing side still receives it is not told of.
    """
    wires = Wire().connect()
    near, far = wires.near, wires.far
    near.transport.write(bytes(500_000))
    near.transport.loseConnection()
    near.transport.loseConnection()
    far.transport.write(b"too late")
    wires.pass_()
    assert len(far.received) == 500_000
    assert near.received == b""
    assert far.reason.check(PeerClosed, ConnectionDone)
    assert "goodbye" in str(far.reason.value)
    assert near.reason.check(ClosedHere, ConnectionDone)
    near.transport.write(b"after all")
    wires.end()


def test_closeIsBounded() -> None:
    """
    On a transport without half-close a tunnel says goodbye and closes at once; one that does not
    let go is aborted after C{closeTimeout}.
    """
    tunnel, end, clock, factory = tunnelAlone(closeTimeout=2.0)
    end.deliver(HELLO)
    end.take()
    end.stuck = True
    [protocol] = factory.built
    protocol.transport.loseConnection()
    assert frames(end.take()) == [wire.Goodbye("closing")]
    assert end.disconnecting
    clock.advance(1.9)
    assert not end.aborting
    for _ in range(4):
        clock.advance(0.125)
    assert end.aborting
    assert protocol.losses == 1
    assert protocol.reason.check(ConnectionAborted)
    assert clock.getDelayedCalls() == []


def test_pausedCloses() -> None:
    """
    Who has paused can close all the same.
    """
    wires = Wire().connect()
    wires.near.transport.pauseProducing()
    wires.far.transport.write(b"unread")
    wires.pass_()
    wires.near.transport.loseConnection()
    wires.advance(0.25)
    assert wires.near.losses == wires.far.losses == 1
    assert wires.near.received == b""
    wires.end()


def test_abort() -> None:
    """
    An abort is at once, drops what waits, and does not look like a proper end.
    """
    wires = Wire().connect()
    near, far = wires.near, wires.far
    near.transport.write(bytes(500_000))
    near.transport.abortConnection()
    wires.clock.advance(0)
    assert near.reason.check(ConnectionAborted)
    wires.ends[1].lose(ConnectionLost())
    assert far.reason.check(ConnectionLost)
    wires.end()


def test_verdict() -> None:
    """
    A peer that falls silent is a lost connection to the program, with the cause.
    """
    wires = Wire().connect()
    wires.advance(3 * BOUND)
    assert wires.near.losses == 0
    for _ in range(round(BOUND * 8) + 2):
        wires.clock.advance(0.125)
        wires.ends[0].take()
    assert wires.near.reason.check(PeerSilent, ConnectionLost)
    wires.end()


@pytest.mark.parametrize("opened", [False, True], ids=["unopened", "open"])
def test_verdictOverTransportWithoutReasons(opened: bool) -> None:
    """
    A transport that gives no reason for the end, as WebSocket's of autobahn does, hides no verdict:
    the program, or the caller that waits for the tunnel, gets the cause.
    """
    tunnel, end, clock, factory = tunnelAlone()
    failures: list[Any] = []
    tunnel.whenOpen().addErrback(failures.append)
    if opened:
        end.deliver(HELLO)
    end.abortConnection = lambda: tunnel.connectionLost(None)  # type: ignore[method-assign]
    for _ in range(round(BOUND * 8) + 2):
        clock.advance(0.125)
    [reason] = [one.reason for one in factory.built] if opened else failures
    assert reason.check(PeerSilent, ConnectionLost)
    assert clock.getDelayedCalls() == []


def test_protocolRaises() -> None:
    """
    What the carried protocol raises goes where it would go without the tunnel.
    """

    class Raising(Kept):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError("in user code")

    factory = KeptFactory()
    factory.protocol = Raising
    wires = Wire(far=factory).connect()
    wires.near.transport.write(b"x")
    with pytest.raises(ZeroDivisionError):
        wires.pass_()
    wires.end()


# What it looks like from the inside.


def test_looksLikeTheConnection() -> None:
    """
    The inner transport provides what the connection below does, forwards what it does not know, and
    passes no descriptors.
    """
    wires = Wire()
    alsoProvides(wires.ends[0], ITCPTransport, IUNIXTransport)
    delays: list[bool] = []
    wires.ends[0].setTcpNoDelay = delays.append
    inside = wires.connect().near.transport
    for interface in (ITransport, IConsumer, IPushProducer):
        assert verifyObject(interface, inside)
    assert IHalfCloseableDescriptor.providedBy(inside)
    assert ITCPTransport.providedBy(inside)
    assert not IUNIXTransport.providedBy(inside)
    inside.setTcpNoDelay(True)
    assert delays == [True]
    assert inside.getPeer() == PEER
    assert isinstance(inside.getHost(), IPv4Address)
    assert inside.connected and not inside.disconnected and not inside.disconnecting
    with pytest.raises(AttributeError, match="descriptors"):
        inside.sendFileDescriptor(1)
    with pytest.raises(AttributeError, match="noSuchThing"):
        inside.noSuchThing  # noqa: B018
    inside.stopConsuming()
    wires.pass_()
    assert inside.disconnected and not inside.connected
    wires.end()


def test_factoryIsForwarded() -> None:
    """
    The factory of the tunnels provides what the carried one does, and forwards the rest.
    """

    @implementer(IProtocolNegotiationFactory)
    class Negotiating(KeptFactory):
        def acceptableProtocols(self) -> list[bytes]:
            return [b"h2"]

    inner = Negotiating()
    factory: Any = TunnelFactory(inner, Clock())
    assert IProtocolNegotiationFactory.providedBy(factory)
    assert factory.acceptableProtocols() == [b"h2"]
    factory.doStart()
    assert inner.numPorts == 1
    assert "Negotiating" in repr(factory)


@pytest.mark.parametrize("act", ["resume", "pause", "close"])
def test_afterTheEnd(act: str) -> None:
    """
    What a protocol asks of its transport when all is over does nothing.
    """

    class Late(Protocol):
        def connectionLost(self, reason: object = None) -> None:  # type: ignore[override]
            acts: dict[str, Callable[[], object]] = {
                "resume": self.transport.resumeProducing,  # type: ignore[union-attr]
                "pause": self.transport.pauseProducing,  # type: ignore[union-attr]
                "close": self.transport.loseConnection,  # type: ignore[union-attr]
            }
            acts[act]()

    wires = Wire(Factory.forProtocol(Late)).connect()
    wires.ends[0].lose(ConnectionLost())
    wires.end()
