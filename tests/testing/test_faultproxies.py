# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.testing}: the proxies on real loopback sockets, their waits on a clock
that the test moves.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
import trustme
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    clientFromString,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat.testing import (
    AcceptThenClose,
    Bandwidth,
    BlackHole,
    CutAfter,
    DatagramFaultProxy,
    Delay,
    Drop,
    Duplicate,
    FaultProxy,
    HangHandshake,
    Hold,
    Reorder,
    Slice,
    StopReading,
)

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = sorted((CHECKOUT / "docs" / "examples").glob("testing_*.py"))

WAIT_LIMIT = 10
"""Seconds after which a wait for the loopback interface has failed."""

DIRECTIONS = ["server", "client"]

both = pytest.mark.parametrize("toward", DIRECTIONS)
asyncTest = pytest_twisted.ensureDeferred


# What stands at the two ends


class Recorder(Protocol):
    """Notes what reaches one end of a connection."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.sawFIN = False
        self.secured = False
        self.lost: Failure | None = None

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def dataReceived(self, data: bytes) -> None:
        self.chunks.append(data)

    def handshakeCompleted(self) -> None:
        self.secured = True

    def readConnectionLost(self) -> None:
        self.sawFIN = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    @property
    def wasReset(self) -> bool:
        """Lost, and not by a FIN."""
        return self.lost is not None and not self.lost.check(ConnectionDone)


# Apart, for a client endpoint passes on one such interface only.
@implementer(IHalfCloseableProtocol)
class PlainEnd(Recorder):
    """One end of a plain connection, which a FIN leaves open."""


@implementer(IHandshakeListener)
class TLSEnd(Recorder):
    """One end of a TLS connection."""


async def turns(count: int = 20) -> None:
    """
    Let the reactor turn: on loopback what is sent in one turn is there in the next.
    """
    from twisted.internet import reactor

    for _ in range(count):
        await deferLater(reactor, 0)


async def until(condition: Callable[[], object]) -> None:
    """
    Wait until a condition holds, and fail if it does not come to hold.
    """
    from twisted.internet import reactor

    for _ in range(WAIT_LIMIT * 1000):
        if condition():
            return
        await deferLater(reactor, 0.001)
    pytest.fail("waited in vain")


async def bounded(waiting: Deferred[Any]) -> Any:
    from twisted.internet import reactor

    return await waiting.addTimeout(WAIT_LIMIT, reactor)


class Ends:
    """A server, and what connects to it through fault proxies."""

    def __init__(self) -> None:
        self.server: list[Recorder] = []
        self._clients: list[Recorder] = []
        self._proxies: list[Any] = []
        self._ports: list[Any] = []
        self._authority = trustme.CA()

    async def listen(self, tls: bool = False) -> int:
        from twisted.internet import reactor

        factory = Factory.forProtocol(lambda: self.accept(tls))
        if tls:
            leaf = self._authority.issue_cert("localhost")
            pem = leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()
            options = ssl.PrivateCertificate.loadPEM(pem).options()
            port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self._ports.append(port)
        return port.getHost().port

    def accept(self, tls: bool = False) -> Recorder:
        self.server.append(TLSEnd() if tls else PlainEnd())
        return self.server[-1]

    async def proxy(self, target: Any = None, tls: bool = False, **options: Any) -> FaultProxy:
        from twisted.internet import reactor

        if target is None:
            target = ("127.0.0.1", await self.listen(tls))
        proxy = FaultProxy(reactor, target, **options)
        self._proxies.append(proxy)
        await proxy.listen()
        return proxy

    async def client(self, proxy: FaultProxy, tls: bool = False) -> Recorder:
        endpoint = proxy.endpoint()
        if tls:
            root = ssl.trustRootFromCertificates(
                [ssl.Certificate.loadPEM(self._authority.cert_pem.bytes())]
            )
            endpoint = wrapClientTLS(ssl.optionsForClientTLS("localhost", root), endpoint)
        client = TLSEnd() if tls else PlainEnd()
        self._clients.append(client)
        await bounded(connectProtocol(endpoint, client))
        return client

    async def pair(self, proxy: FaultProxy, tls: bool = False) -> dict[str, Recorder]:
        """
        One connection, as the two ends that a direction's name stands for.
        """
        count = len(self.server)
        client = await self.client(proxy, tls)
        await until(lambda: len(self.server) > count)
        pair = {"client": client, "server": self.server[-1]}
        if tls:
            await until(lambda: all(end.secured for end in pair.values()))
        return pair

    async def close(self) -> None:
        for proxy in self._proxies:
            await bounded(proxy.close())
        for port in self._ports:
            await port.stopListening()
        for end in [*self._clients, *self.server]:
            if end.transport is not None and end.lost is None:
                end.transport.abortConnection()


@pytest_twisted.async_yield_fixture
async def ends() -> AsyncIterator[Ends]:
    """
    A server that records, and connections to it; all closed after the test.
    """
    ends = Ends()
    yield ends
    await ends.close()


def other(toward: str) -> str:
    return "client" if toward == "server" else "server"


# Passing


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@asyncTest
async def test_passesBytes(ends: Ends, tls: bool) -> None:
    """
    Without a fault all bytes arrive in order, both ways at once.
    """
    pair = await ends.pair(await ends.proxy(tls=tls), tls)
    up, down = Random(1).randbytes(500_000), Random(2).randbytes(300_000)
    pair["client"].send(up)
    pair["server"].send(down)
    await until(lambda: len(pair["server"].data) >= len(up))
    await until(lambda: len(pair["client"].data) >= len(down))
    assert (pair["server"].data, pair["client"].data) == (up, down)


@both
@asyncTest
async def test_passesHalfClose(ends: Ends, toward: str) -> None:
    """
    A FIN arrives behind the last byte, and the other direction stays usable until its own FIN;
    then nothing of the connection is left in the proxy.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    sender.send(b"last words")
    sender.transport.loseWriteConnection()
    await until(lambda: receiver.sawFIN)
    assert receiver.data == b"last words"
    receiver.send(b"answer")
    await until(lambda: sender.data == b"answer")
    receiver.transport.loseConnection()
    await until(lambda: sender.sawFIN)
    sender.transport.loseConnection()
    await until(lambda: not proxy.connections)
    assert not sender.wasReset and not receiver.wasReset


@both
@asyncTest
async def test_passesReset(ends: Ends, toward: str) -> None:
    """
    The RST of one end arrives as RST at the other, behind the bytes sent before it.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    sender.send(b"last words")
    await until(lambda: receiver.data)
    sender.transport.abortConnection()
    await until(lambda: receiver.lost)
    assert receiver.data == b"last words"
    assert receiver.wasReset
    assert proxy.connections == ()


@asyncTest
async def test_passesBackPressure(ends: Ends) -> None:
    """
    A receiver that does not read holds back the sender; the proxy keeps little, and loses nothing.
    """
    proxy = await ends.proxy(maxBuffered=10_000)
    pair = await ends.pair(proxy)
    server, client = pair["server"], pair["client"]
    server.transport.pauseProducing()
    data = Random(3).randbytes(30_000_000)
    client.send(data)
    pipe = clientPipe(proxy)
    await until(lambda: pipe._size >= 10_000)
    await turns()
    # One read of Twisted's brings up to 64 KiB at once.
    assert pipe._size < 10_000 + 2**16
    server.transport.resumeProducing()
    await until(lambda: len(server.data) == len(data))
    assert server.data == data


def clientPipe(proxy: FaultProxy) -> Any:
    """
    What takes the bytes of the proxy's first connection from the client.
    """
    return proxy.connections[0]._client.outgoing


@asyncTest
async def test_unreachableTarget(ends: Ends) -> None:
    """
    A target that refuses shows as RST, and the proxy keeps nothing of the connection.
    """
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        proxy = await ends.proxy(reserved.getsockname())
        client = await ends.client(proxy)
        await until(lambda: client.lost)
    assert client.wasReset
    assert (proxy.connectionsMade, proxy.connections) == (1, ())


# Faults of a direction


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@both
@asyncTest
async def test_blackHole(ends: Ends, toward: str, tls: bool) -> None:
    """
    A black hole swallows one direction and leaves the other alone.
    """
    proxy = await ends.proxy(tls=tls)
    pair = await ends.pair(proxy, tls)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(BlackHole(), toward=toward)
    sender.send(b"lost")
    receiver.send(b"passes")
    await until(lambda: sender.data == b"passes")
    await turns()
    assert receiver.data == b""
    assert receiver.lost is None and sender.lost is None


@both
@asyncTest
async def test_blackHoleHealed(ends: Ends, toward: str) -> None:
    """
    What a black hole has swallowed stays lost; what is sent after it is healed arrives.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.inject(BlackHole())
    pair[other(toward)].send(b"lost")
    await turns()
    proxy.heal()
    pair[other(toward)].send(b"found")
    await until(lambda: pair[toward].data)
    await turns()
    assert pair[toward].data == b"found"


@asyncTest
async def test_blackHoleSwallowsWhatIsOnItsWay(ends: Ends) -> None:
    """
    Bytes that the proxy still holds when the black hole opens are lost too.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.inject(Hold())
    pair["client"].send(b"lost")
    await until(lambda: clientPipe(proxy)._size)
    proxy.inject(BlackHole())
    proxy.heal()
    pair["client"].send(b"found")
    await until(lambda: pair["server"].data)
    assert pair["server"].data == b"found"


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection"])
@both
@asyncTest
async def test_blackHoleSwallowsTheEnd(ends: Ends, toward: str, how: str) -> None:
    """
    Neither FIN nor RST leaves a black hole. Once it is healed, the end that knows of nothing gets
    RST for its next byte, as from a host that has forgotten the connection.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(BlackHole())
    getattr(sender.transport, how)()
    await until(lambda: sender.lost)
    await turns()
    assert receiver.lost is None and not receiver.sawFIN
    assert len(proxy.connections) == 1
    proxy.heal()
    receiver.send(b"anyone?")
    await turns()
    # After a FIN a proxy's kernel tells it of a reset only when it writes once more.
    receiver.send(b"anyone?")
    await until(lambda: receiver.lost)
    assert receiver.wasReset


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@both
@asyncTest
async def test_hold(ends: Ends, toward: str, tls: bool) -> None:
    """
    Held bytes all arrive in order once healed.
    """
    proxy = await ends.proxy(tls=tls)
    pair = await ends.pair(proxy, tls)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(Hold(), toward=toward)
    sender.send(b"one ")
    await turns()
    sender.send(b"two")
    await turns()
    assert receiver.data == b""
    proxy.heal()
    await until(lambda: len(receiver.data) == 7)
    assert receiver.data == b"one two"


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection"])
@asyncTest
async def test_holdKeepsTheEnd(ends: Ends, how: str) -> None:
    """
    A held FIN or RST arrives once healed, behind the bytes before it.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.inject(Hold())
    pair["client"].send(b"last words")
    await until(lambda: clientPipe(proxy)._size)
    getattr(pair["client"].transport, how)()
    await until(lambda: pair["client"].lost)
    await turns()
    assert not pair["server"].sawFIN and pair["server"].lost is None
    proxy.heal()
    await until(lambda: pair["server"].sawFIN or pair["server"].lost)
    assert pair["server"].data == b"last words"
    assert pair["server"].wasReset == (how == "abortConnection")


@asyncTest
async def test_holdIsBounded(ends: Ends) -> None:
    """
    The proxy holds about C{maxBuffered} bytes, then it stops reading; healed, all arrives.
    """
    proxy = await ends.proxy(maxBuffered=1000)
    pair = await ends.pair(proxy)
    proxy.inject(Hold())
    data = Random(4).randbytes(10_000_000)
    pair["client"].send(data)
    await turns()
    assert 1000 <= clientPipe(proxy)._size < 1000 + 2**16
    proxy.heal()
    await until(lambda: len(pair["server"].data) == len(data))
    assert pair["server"].data == data


@both
@asyncTest
async def test_stopReading(ends: Ends, toward: str) -> None:
    """
    A proxy that stops reading fills the sender's buffers, and sees no FIN. Once healed all arrives.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(StopReading(), toward=toward)
    data = Random(5).randbytes(30_000_000)
    sender.send(data)
    sender.transport.loseConnection()
    await turns(100)
    assert receiver.data == b"" and not receiver.sawFIN
    # Its own loseConnection waits for a send buffer that does not empty.
    assert sender.lost is None
    proxy.heal()
    await until(lambda: receiver.sawFIN)
    assert receiver.data == data


@both
@asyncTest
async def test_delay(ends: Ends, toward: str) -> None:
    """
    A delayed chunk arrives after its seconds and not before, the reverse direction at once.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(Delay(seconds=5.0), toward=toward)
    sender.send(b"late")
    receiver.send(b"now")
    await until(lambda: sender.data == b"now")
    await until(clock.getDelayedCalls)
    clock.advance(4.99)
    await turns()
    assert receiver.data == b""
    clock.advance(0.01)
    await until(lambda: receiver.data)
    assert receiver.data == b"late"


@asyncTest
async def test_delayJitter(ends: Ends) -> None:
    """
    Jitter spreads a delay evenly about its seconds, by the random numbers handed in, and keeps the
    order: a quick chunk waits for the slow one before it.
    """
    clock, draws = Clock(), iter([1.0, 0.0])
    proxy = await ends.proxy(clock=clock, random=lambda: next(draws))
    pair = await ends.pair(proxy)
    proxy.inject(Delay(seconds=5.0, jitter=1.0), toward="server")
    pair["client"].send(b"slow ")
    await until(clock.getDelayedCalls)
    assert clock.getDelayedCalls()[0].getTime() == 6.0
    pair["client"].send(b"quick")
    await until(lambda: clientPipe(proxy)._size == 10)
    clock.advance(5.99)
    await turns()
    assert pair["server"].data == b""
    clock.advance(0.01)
    await until(lambda: len(pair["server"].data) == 10)
    assert pair["server"].data == b"slow quick"


@asyncTest
async def test_delayTakesTheFINAlong(ends: Ends) -> None:
    """
    A FIN is delayed as bytes are.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    proxy.inject(Delay(seconds=5.0))
    pair["client"].transport.loseConnection()
    await until(clock.getDelayedCalls)
    assert not pair["server"].sawFIN
    clock.advance(5.0)
    await until(lambda: pair["server"].sawFIN)
    assert pair["server"].lost is None


@asyncTest
async def test_delayHealed(ends: Ends) -> None:
    """
    What waits out a delay when it is lifted arrives at once.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    proxy.inject(Delay(seconds=5.0))
    pair["client"].send(b"released")
    await until(clock.getDelayedCalls)
    proxy.heal()
    await until(lambda: pair["server"].data)
    assert pair["server"].data == b"released"
    assert clock.getDelayedCalls() == []


@asyncTest
async def test_delayInRealTime(ends: Ends) -> None:
    """
    By default it is the reactor that measures the delay.
    """
    from twisted.internet import reactor

    pair = await ends.pair(proxy := await ends.proxy())
    proxy.inject(Delay(seconds=0.05, jitter=0.01), toward="server")
    before = reactor.seconds()
    pair["client"].send(b"late")
    await until(lambda: pair["server"].data)
    assert reactor.seconds() - before >= 0.04


@both
@asyncTest
async def test_bandwidth(ends: Ends, toward: str) -> None:
    """
    Bytes pass at the rate set and not faster, in small pieces, and all arrive.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(Bandwidth(bytesPerSecond=100), toward=toward)
    sender.send(bytes(range(100)))
    for piece in range(1, 51):
        await until(lambda sent=2 * piece: len(receiver.data) >= sent)
        await turns(3)
        assert len(receiver.data) == 2 * piece
        clock.advance(0.02)
    assert receiver.data == bytes(range(100))


@asyncTest
async def test_bandwidthBelowOneByte(ends: Ends) -> None:
    """
    A rate under a byte per second passes one byte at a time, as seldom as that asks.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    proxy.inject(Bandwidth(bytesPerSecond=0.5))
    pair["client"].send(b"ab")
    await until(lambda: pair["server"].data)
    clock.advance(1.9)
    await turns()
    assert pair["server"].data == b"a"
    clock.advance(0.2)
    await until(lambda: pair["server"].data == b"ab")
    assert pair["server"].chunks == [b"a", b"b"]


@both
@asyncTest
async def test_cutAfterIntoABlackHole(ends: Ends, toward: str) -> None:
    """
    Exactly so many bytes pass, counted from the injection; the rest is lost and nobody is told.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    sender.send(b"before ")
    await until(lambda: receiver.data == b"before ")
    proxy.inject(CutAfter(bytes=4), toward=toward)
    sender.send(b"pas")
    sender.send(b"s, and be lost")
    await until(lambda: len(receiver.data) == 11)
    sender.send(b"lost")
    receiver.send(b"heard")
    await until(lambda: sender.data == b"heard")
    await turns()
    assert receiver.data == b"before pass"
    assert receiver.lost is None and sender.lost is None


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@both
@asyncTest
async def test_cutAfterWithReset(ends: Ends, toward: str, tls: bool) -> None:
    """
    With C{reset} both ends are reset once the last byte has arrived.
    """
    proxy = await ends.proxy(tls=tls)
    pair = await ends.pair(proxy, tls)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(CutAfter(bytes=4, reset=True), toward=toward)
    sender.send(b"pass, and be lost")
    await until(lambda: receiver.lost and sender.lost)
    assert receiver.wasReset and sender.wasReset
    # Four bytes of a TLS record are nothing yet.
    assert receiver.data == (b"" if tls else b"pass")
    assert proxy.connections == ()


@asyncTest
async def test_cutAfterNothing(ends: Ends) -> None:
    """
    A cut after 0 bytes cuts at once, and each new connection too.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.inject(CutAfter(bytes=0, reset=True), toward="client")
    await until(lambda: pair["client"].lost and pair["server"].lost)
    late = await ends.client(proxy)
    await until(lambda: late.lost)
    assert pair["client"].wasReset and late.wasReset


@pytest.mark.parametrize("size", [1, 3])
@both
@asyncTest
async def test_slice(ends: Ends, toward: str, size: int) -> None:
    """
    A sliced message arrives slice by slice, each its pause after the last: half a frame, and then
    for a long time nothing.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    proxy.inject(Slice(size=size, pause=60.0))
    sender.send(b"a framed message")
    for count in range(1, 6):
        await until(lambda count=count: len(receiver.chunks) == count)
        clock.advance(59)
        await turns(3)
        assert receiver.data == b"a framed message"[: count * size]
        clock.advance(1)
    assert {len(chunk) for chunk in receiver.chunks[:5]} == {size}


@pytest.mark.parametrize("lift", ["heal", "inject"])
@asyncTest
async def test_sliceLifted(ends: Ends, lift: str) -> None:
    """
    Healed, or replaced by a slice with a shorter pause, the rest does not wait out the old pause.
    """
    proxy = await ends.proxy(clock=Clock())
    pair = await ends.pair(proxy)
    proxy.inject(Slice(size=1, pause=60.0))
    pair["client"].send(b"frame")
    await until(lambda: pair["server"].data == b"f")
    if lift == "heal":
        proxy.heal()
    else:
        proxy.inject(Slice(size=1, pause=0.0))
    await until(lambda: len(pair["server"].data) == 5)
    assert pair["server"].data == b"frame"


@asyncTest
async def test_sliceInRealTime(ends: Ends) -> None:
    """
    Without a clock of the test's the slices come by themselves, and Nagle does not gather them.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.inject(Slice())
    pair["client"].send(b"a framed message")
    await until(lambda: len(pair["server"].data) == 16)
    assert len(pair["server"].chunks) > 1
    [connection] = proxy.connections
    assert connection._client.transport.getTcpNoDelay()
    assert connection._server.transport.getTcpNoDelay()


@asyncTest
async def test_sliceThroughTLS(ends: Ends) -> None:
    """
    A TLS handshake and what follows survive being sliced.
    """
    proxy = await ends.proxy(tls=True)
    proxy.inject(Slice(size=50, pause=0.0))
    pair = await ends.pair(proxy, tls=True)
    pair["client"].send(b"x" * 1000)
    await until(lambda: len(pair["server"].data) == 1000)
    assert pair["client"].secured


# Faults together


@asyncTest
async def test_aKindReplacesItself(ends: Ends) -> None:
    """
    The last fault of a kind holds, the earlier one is forgotten.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    proxy.inject(Delay(seconds=100.0))
    proxy.inject(Delay(seconds=1.0))
    pair["client"].send(b"late")
    await until(clock.getDelayedCalls)
    clock.advance(1.0)
    await until(lambda: pair["server"].data)
    assert pair["server"].data == b"late"


@asyncTest
async def test_kindsActTogether(ends: Ends) -> None:
    """
    Delay and slices make a line that is both slow and choppy.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pair = await ends.pair(proxy)
    proxy.inject(Delay(seconds=1.0))
    proxy.inject(Slice(size=1, pause=0.5))
    pair["client"].send(b"ab")
    await until(clock.getDelayedCalls)
    clock.advance(1.0)
    await until(lambda: pair["server"].data == b"a")
    clock.advance(0.5)
    await until(lambda: pair["server"].data == b"ab")
    assert pair["server"].chunks == [b"a", b"b"]


@asyncTest
async def test_newConnectionsGetTheFault(ends: Ends) -> None:
    """
    A connection made while a fault is set gets it too.
    """
    proxy = await ends.proxy()
    proxy.inject(BlackHole(), toward="server")
    pair = await ends.pair(proxy)
    pair["client"].send(b"lost")
    pair["server"].send(b"passes")
    await until(lambda: pair["client"].data)
    await turns()
    assert pair["server"].data == b""


@asyncTest
async def test_newConnectionsAreNotRead(ends: Ends) -> None:
    """
    A proxy that has stopped reading does not begin to on a new connection.
    """
    proxy = await ends.proxy()
    proxy.inject(StopReading())
    pair = await ends.pair(proxy)
    for end in pair.values():
        end.send(b"late")
    await turns()
    assert (pair["client"].data, pair["server"].data) == (b"", b"")
    proxy.heal()
    await until(lambda: pair["client"].data and pair["server"].data)
    assert (pair["client"].data, pair["server"].data) == (b"late", b"late")


@pytest.mark.parametrize(("which", "hurt"), [("existing", 0), ("new", 1)])
@asyncTest
async def test_someConnectionsOnly(ends: Ends, which: Any, hurt: int) -> None:
    """
    A fault may be kept to the connections that exist, or to those to come.
    """
    proxy = await ends.proxy()
    old = await ends.pair(proxy)
    proxy.inject(BlackHole(), connections=which)
    new = await ends.pair(proxy)
    for pair in [old, new]:
        pair["client"].send(b"hello")
    healthy, ill = [(new, old), (old, new)][hurt]
    await until(lambda: healthy["server"].data)
    await turns()
    assert (healthy["server"].data, ill["server"].data) == (b"hello", b"")


@asyncTest
async def test_oneConnectionOnly(ends: Ends) -> None:
    """
    Each connection can be hurt, healed and ended alone.
    """
    proxy = await ends.proxy()
    first, second = await ends.pair(proxy), await ends.pair(proxy)
    assert proxy.connections[0].peer == IPv4Address(
        "TCP", "127.0.0.1", first["client"].transport.getHost().port
    )
    proxy.connections[0].inject(Hold())
    for pair in [first, second]:
        pair["client"].send(b"hello")
    await until(lambda: second["server"].data)
    await turns()
    assert first["server"].data == b""
    proxy.connections[0].heal()
    await until(lambda: first["server"].data == b"hello")
    proxy.connections[0].halfClose(toward="client")
    await until(lambda: first["client"].sawFIN)
    proxy.connections[0].reset()
    await until(lambda: first["server"].lost)
    assert second["server"].lost is None and not second["client"].sawFIN


# Endings


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@asyncTest
async def test_reset(ends: Ends, tls: bool) -> None:
    """
    C{reset} sends RST both ways and leaves nothing; the next connection is well.
    """
    proxy = await ends.proxy(tls=tls)
    pair = await ends.pair(proxy, tls)
    proxy.reset()
    await until(lambda: pair["client"].lost and pair["server"].lost)
    assert pair["client"].wasReset and pair["server"].wasReset
    assert proxy.connections == ()
    again = await ends.pair(proxy, tls)
    assert again["client"].lost is None


@both
@asyncTest
async def test_resetOneWay(ends: Ends, toward: Any) -> None:
    """
    Reset toward one end only, the other keeps a half-open connection until it sends.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.reset(toward=toward)
    await until(lambda: pair[toward].lost)
    await turns()
    assert pair[toward].wasReset
    assert pair[other(toward)].lost is None and not pair[other(toward)].sawFIN
    pair[other(toward)].send(b"anyone?")
    await until(lambda: pair[other(toward)].lost)
    assert pair[other(toward)].wasReset


@both
@asyncTest
async def test_resetOneWayThenClosed(ends: Ends, toward: Any) -> None:
    """
    The half-open end that closes by itself leaves nothing in the proxy.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.reset(toward=toward)
    await until(lambda: pair[toward].lost)
    assert len(proxy.connections) == 1
    pair[other(toward)].transport.loseConnection()
    await until(lambda: not proxy.connections)
    await turns()
    assert not pair[other(toward)].wasReset


@asyncTest
async def test_resetOneWayWithBytesOnTheirWay(ends: Ends) -> None:
    """
    What waits for an end that is reset is answered with RST at once.
    """
    proxy = await ends.proxy(maxBuffered=1000)
    pair = await ends.pair(proxy)
    pair["server"].transport.pauseProducing()
    pair["client"].send(b"x" * 30_000_000)
    await until(lambda: clientPipe(proxy)._size >= 1000)
    await turns()
    proxy.reset(toward="server")
    await until(lambda: pair["client"].lost)
    assert pair["client"].wasReset


@both
@asyncTest
async def test_halfClose(ends: Ends, toward: Any) -> None:
    """
    A half-close brings one end a FIN that the other never sent. The way back still works, and what
    is sent into the closed direction is lost.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    receiver, sender = pair[toward], pair[other(toward)]
    sender.send(b"before")
    await until(lambda: receiver.data)
    proxy.halfClose(toward=toward)
    await until(lambda: receiver.sawFIN)
    sender.send(b"lost")
    receiver.send(b"still here")
    await until(lambda: sender.data == b"still here")
    await turns()
    assert receiver.data == b"before"
    assert sender.lost is None and not sender.sawFIN
    receiver.transport.loseConnection()
    await until(lambda: sender.sawFIN)
    sender.transport.loseConnection()
    await until(lambda: not proxy.connections)
    assert not sender.wasReset and not receiver.wasReset


@asyncTest
async def test_halfCloseThenReset(ends: Ends) -> None:
    """
    A reset passes where a half-close has gone before, and leaves nothing in the proxy.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.halfClose(toward="server")
    await until(lambda: pair["server"].sawFIN)
    pair["client"].transport.abortConnection()
    await until(lambda: not proxy.connections)
    pair["server"].send(b"anyone?")
    await until(lambda: pair["server"].lost)
    assert pair["server"].wasReset


@asyncTest
async def test_faultsAfterAFIN(ends: Ends) -> None:
    """
    Faults that come and go after a FIN make no second one of it, and leave the way back open.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    pair["client"].transport.loseWriteConnection()
    await until(lambda: pair["server"].sawFIN)
    proxy.inject(StopReading())
    proxy.heal()
    proxy.halfClose(toward="server")
    await turns()
    pair["server"].send(b"still here")
    await until(lambda: pair["client"].data == b"still here")
    pair["server"].transport.loseConnection()
    await until(lambda: pair["client"].sawFIN)
    pair["client"].transport.loseConnection()
    await until(lambda: not proxy.connections)
    assert not pair["client"].wasReset and not pair["server"].wasReset


@asyncTest
async def test_halfCloseBothWays(ends: Ends) -> None:
    """
    Half-closed both ways, a connection is gone from the proxy once its ends have closed as well.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    proxy.halfClose(toward="both")
    await until(lambda: pair["client"].sawFIN and pair["server"].sawFIN)
    for end in pair.values():
        end.transport.loseConnection()
    await until(lambda: not proxy.connections)
    assert not pair["client"].wasReset and not pair["server"].wasReset


# Faults of new connections


@asyncTest
async def test_refuse(ends: Ends) -> None:
    """
    While the proxy refuses, the kernel does; connections that exist live on; then the same port
    accepts again.
    """
    proxy = await ends.proxy()
    pair, port = await ends.pair(proxy), proxy.port
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await ends.client(proxy)
    pair["client"].send(b"alive")
    await until(lambda: pair["server"].data == b"alive")
    await proxy.accept()
    assert proxy.port == port
    assert (await ends.pair(proxy))["client"].lost is None
    assert proxy.connectionsMade == 2


@asyncTest
async def test_refuseKeepsThePort(ends: Ends) -> None:
    """
    A port that refuses is not given to anyone else.
    """
    proxy = await ends.proxy()
    await proxy.refuse()
    with socket.socket() as thief, pytest.raises(OSError):
        thief.bind(("127.0.0.1", proxy.port))
    await proxy.heal()
    assert (await ends.pair(proxy))["client"].lost is None


@asyncTest
async def test_refuseAndAcceptInHaste(ends: Ends) -> None:
    """
    C{refuse}, C{heal} and C{close} keep their order, whoever waits for them.
    """
    proxy = await ends.proxy()
    proxy.refuse()
    await bounded(proxy.heal())
    await ends.pair(proxy)
    proxy.refuse()
    proxy.heal()
    await bounded(proxy.refuse())
    with pytest.raises(ConnectionRefusedError):
        await ends.client(proxy)
    proxy.accept()
    await bounded(proxy.close())
    await bounded(proxy.heal())
    with pytest.raises(ConnectionRefusedError):
        await ends.client(proxy)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@asyncTest
async def test_acceptThenClose(ends: Ends, tls: bool) -> None:
    """
    Accepted and closed at once: established is not connected. The target hears nothing.
    """
    proxy = await ends.proxy(tls=tls)
    old = await ends.pair(proxy, tls)
    proxy.inject(AcceptThenClose())
    client = await ends.client(proxy, tls)
    await until(lambda: client.lost or client.sawFIN)
    client.transport.loseConnection()
    await until(lambda: len(proxy.connections) == 1)
    assert (len(ends.server), proxy.connectionsMade, client.secured) == (1, 2, False)
    assert old["client"].lost is None
    proxy.heal()
    await ends.pair(proxy, tls)
    assert len(ends.server) == 2


@asyncTest
async def test_hangHandshake(ends: Ends) -> None:
    """
    A handshake hangs without an answer and the target hears nothing. Healing helps only those that
    come later; the client's own reset ends it.
    """
    proxy = await ends.proxy(tls=True)
    proxy.inject(HangHandshake())
    client = await ends.client(proxy, tls=True)
    await turns(100)
    assert not client.secured and client.lost is None
    proxy.heal()
    await turns(100)
    assert not client.secured and ends.server == []
    await ends.pair(proxy, tls=True)
    client.transport.abortConnection()
    await until(lambda: len(proxy.connections) == 1)
    assert (proxy.connectionsMade, len(ends.server)) == (2, 1)


# Wrong use


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Delay(seconds=-1), "Delay.seconds must be a number, 0 or more, not -1"),
        (lambda: Delay(seconds="1"), "Delay.seconds must be a number, 0 or more, not '1'"),
        (
            lambda: Delay(seconds=float("nan")),
            "Delay.seconds must be a number, 0 or more, not nan",
        ),
        (
            lambda: Delay(seconds=float("inf")),
            "Delay.seconds must be a number, 0 or more, not inf",
        ),
        (
            lambda: Delay(seconds=1, jitter=2),
            "Delay.jitter must be a number from 0 to 1, not 2",
        ),
        (
            lambda: Bandwidth(bytesPerSecond=0),
            "Bandwidth.bytesPerSecond must be a number, 0.001 or more, not 0",
        ),
        (
            lambda: CutAfter(bytes=1.5),
            "CutAfter.bytes must be a whole number, 0 or more, not 1.5",
        ),
        (
            lambda: CutAfter(bytes=-1),
            "CutAfter.bytes must be a whole number, 0 or more, not -1",
        ),
        (lambda: Slice(size=0), "Slice.size must be a whole number, 1 or more, not 0"),
        (lambda: Slice(size=True), "Slice.size must be a whole number, 1 or more, not True"),
        (lambda: Slice(pause=-1), "Slice.pause must be a number, 0 or more, not -1"),
        (lambda: Drop(every=0), "Drop.every must be a whole number, 1 or more, not 0"),
        (lambda: Drop(burst=0), "Drop.burst must be a whole number, 1 or more, not 0"),
        (
            lambda: Drop(probability=1.5),
            "Drop.probability must be a number from 0 to 1, not 1.5",
        ),
    ],
)
def test_wrongFault(make: Callable[[], object], sentence: str) -> None:
    """
    A fault with a wrong number is never made: one sentence says what is allowed.
    """
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        (
            "127.0.0.1:80",
            {},
            'target must be an ("address", port) tuple or a stream client endpoint, '
            "not '127.0.0.1:80'",
        ),
        (
            ("example.com", 80),
            {},
            "the host of target must be an IPv4 or IPv6 address, not 'example.com'",
        ),
        (
            ("127.0.0.1", 0),
            {},
            "the port of target must be a whole number from 1 to 65535, not 0",
        ),
        (
            ("127.0.0.1", 80),
            {"port": 65536},
            "the port of the proxy must be a whole number from 0 to 65535, not 65536",
        ),
        (
            ("127.0.0.1", 80),
            {"interface": "lo"},
            "the host of the proxy must be an IPv4 or IPv6 address, not 'lo'",
        ),
        (
            ("127.0.0.1", 80),
            {"maxBuffered": 0},
            "maxBuffered must be a whole number, 1 or more, not 0",
        ),
    ],
)
def test_wrongProxy(target: Any, options: Any, sentence: str) -> None:
    """
    A proxy with wrong settings is never made: one sentence says what is allowed.
    """
    with pytest.raises(ValueError) as caught:
        FaultProxy(None, target, **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("misuse", "sentence"),
    [
        (
            lambda proxy: proxy.inject("slow"),
            "fault must be one of BlackHole(), Hold(), StopReading(), Delay(), Bandwidth(), "
            "CutAfter(), Slice(), AcceptThenClose(), HangHandshake(), not 'slow'",
        ),
        (
            lambda proxy: proxy.inject(BlackHole(), toward="up"),
            'toward must be "server", "client" or "both", not \'up\'',
        ),
        (
            lambda proxy: proxy.inject(BlackHole(), connections="old"),
            'connections must be "all", "existing" or "new", not \'old\'',
        ),
        (
            lambda proxy: proxy.inject(HangHandshake(), connections="existing"),
            'connections must be "all" or "new" for HangHandshake(), not \'existing\'',
        ),
        (
            lambda proxy: proxy.connections[0].inject(AcceptThenClose()),
            "AcceptThenClose() acts on new connections only: inject it into the proxy",
        ),
        (
            lambda proxy: proxy.connections[0].inject(Drop()),
            "fault must be one of BlackHole(), Hold(), StopReading(), Delay(), Bandwidth(), "
            "CutAfter(), Slice(), AcceptThenClose(), HangHandshake(), "
            "not Drop(every=1, probability=1.0, burst=1)",
        ),
        (
            lambda proxy: proxy.reset(toward="down"),
            'toward must be "server", "client" or "both", not \'down\'',
        ),
        (
            lambda proxy: proxy.halfClose(toward=None),
            'toward must be "server", "client" or "both", not None',
        ),
    ],
)
@asyncTest
async def test_misuse(ends: Ends, misuse: Callable[[FaultProxy], object], sentence: str) -> None:
    """
    A wrong call changes nothing: one sentence says what is allowed, and the connection goes on.
    """
    proxy = await ends.proxy()
    pair = await ends.pair(proxy)
    with pytest.raises(ValueError) as caught:
        misuse(proxy)
    assert str(caught.value) == sentence
    pair["client"].send(b"unharmed")
    await until(lambda: pair["server"].data == b"unharmed")


# Around it


@asyncTest
async def test_whenConnectionsMade(ends: Ends) -> None:
    """
    One can wait for a client to come, and to come back.
    """
    proxy = await ends.proxy()
    first, second = proxy.whenConnectionsMade(1), proxy.whenConnectionsMade(2)
    await ends.client(proxy)
    await bounded(first)
    assert not second.called
    await ends.client(proxy)
    await bounded(second)
    assert proxy.whenConnectionsMade(2).called


@asyncTest
async def test_addresses(ends: Ends) -> None:
    """
    The proxy says where it listens, as a port, an endpoint and a description.
    """
    from twisted.internet import reactor

    proxy = await ends.proxy()
    assert await proxy.listen() == IPv4Address("TCP", "127.0.0.1", proxy.port)
    assert proxy.description == f"tcp:host=127.0.0.1:port={proxy.port}"
    client = PlainEnd()
    await bounded(connectProtocol(clientFromString(reactor, proxy.description), client))
    await until(lambda: ends.server)
    client.transport.abortConnection()
    assert IStreamClientEndpoint.providedBy(proxy.endpoint())


def canIPv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not canIPv6(), reason="this machine has no IPv6 loopback address")
@asyncTest
async def test_ipv6(ends: Ends) -> None:
    """
    All works over IPv6 as well, refusal included.
    """
    from twisted.internet import reactor

    proxy = await ends.proxy(interface="::1")
    client = PlainEnd()
    await bounded(connectProtocol(clientFromString(reactor, proxy.description), client))
    client.send(b"six")
    await until(lambda: ends.server and ends.server[0].data == b"six")
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await ends.client(proxy)
    client.transport.abortConnection()


@pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")
@asyncTest
async def test_endpointAsTarget(ends: Ends, tmp_path: Path) -> None:
    """
    Any stream endpoint can be the target, a UNIX socket for one.
    """
    from twisted.internet import reactor

    path = tmp_path / "target"
    factory = Factory.forProtocol(ends.accept)
    port = await serverFromString(reactor, f"unix:{path}").listen(factory)
    proxy = await ends.proxy(clientFromString(reactor, f"unix:{path}"))
    pair = await ends.pair(proxy)
    pair["client"].send(b"hello")
    pair["client"].transport.loseConnection()
    await until(lambda: pair["server"].sawFIN)
    assert pair["server"].data == b"hello"
    await port.stopListening()


@implementer(IStreamClientEndpoint)
class NeverConnects:
    """An endpoint into a black hole for SYN."""

    def __init__(self) -> None:
        self.cancelled = False

    def connect(self, protocolFactory: object) -> Deferred[Any]:
        return Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled = True


@pytest.mark.parametrize("end", ["close", "reset"])
@asyncTest
async def test_endWhileConnecting(ends: Ends, end: str) -> None:
    """
    A connection whose target does not answer can be ended all the same.
    """
    target = NeverConnects()
    proxy = await ends.proxy(target)
    client = await ends.client(proxy)
    await bounded(proxy.whenConnectionsMade(1))
    getattr(proxy, end)()
    await until(lambda: client.lost)
    assert client.wasReset and target.cancelled
    await until(lambda: not proxy.connections)


@asyncTest
async def test_close(ends: Ends) -> None:
    """
    C{close} leaves no connection, socket or delayed call, whatever is set, waits or hangs.
    """
    clock = Clock()
    proxy = await ends.proxy(clock=clock)
    pairs = [await ends.pair(proxy) for _ in range(4)]
    proxy.inject(HangHandshake())
    hanging = await ends.client(proxy)
    proxy.connections[0].inject(Delay(seconds=60))
    proxy.connections[1].inject(Hold())
    proxy.connections[2].inject(StopReading())
    for pair in pairs:
        pair["client"].send(b"x" * 1_000_000)
    pairs[3]["client"].transport.abortConnection()
    await until(clock.getDelayedCalls)
    await proxy.refuse()
    await bounded(proxy.close())
    assert proxy.connections == () and clock.getDelayedCalls() == []
    for pair in pairs:
        await until(lambda pair=pair: pair["client"].lost and pair["server"].lost)
    await until(lambda: hanging.lost)
    await bounded(proxy.close())
    with pytest.raises(ConnectionRefusedError):
        await ends.client(proxy)


# UDP


class Mailbox(DatagramProtocol):
    """Notes the datagrams that arrive."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.sender: Any = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.datagrams.append(datagram)
        self.sender = addr


class Post:
    """A UDP server, a proxy before it, and clients."""

    def __init__(self, **options: Any) -> None:
        from twisted.internet import reactor

        self._ports: list[Any] = []
        self.server = self.mailbox()
        target = self.server.transport.getHost()
        self.proxy = DatagramFaultProxy(reactor, (target.host, target.port), **options)

    def mailbox(self) -> Mailbox:
        from twisted.internet import reactor

        mailbox = Mailbox()
        self._ports.append(reactor.listenUDP(0, mailbox, "127.0.0.1", 65536))
        return mailbox

    async def client(self) -> Mailbox:
        """
        A client that the server has heard of, so that it can be answered.
        """
        await self.proxy.listen()
        client = self.mailbox()
        client.transport.write(b"hello", self.proxy.address)
        await until(lambda: self.server.datagrams)
        self.server.datagrams.clear()
        return client

    async def close(self) -> None:
        await bounded(self.proxy.close())
        for port in self._ports:
            await port.stopListening()


@pytest_twisted.async_yield_fixture
async def post() -> AsyncIterator[Callable[..., Post]]:
    """
    Makes UDP servers with a proxy before them; all closed after the test.
    """
    made: list[Post] = []

    def make(**options: Any) -> Post:
        made.append(Post(**options))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def sendTen(post: Post, client: Mailbox, toward: str) -> list[bytes]:
    """
    Send the datagrams 1 to 10 in one direction and report what has arrived.
    """
    source, receiver = client, post.server
    address = post.proxy.address
    if toward == "client":
        source, receiver, address = post.server, client, post.server.sender
    for number in range(1, 11):
        source.transport.write(b"%d" % number, address)
    await turns()
    return receiver.datagrams


def numbers(*values: int) -> list[bytes]:
    return [b"%d" % value for value in values]


@asyncTest
async def test_datagramsPass(post: Callable[..., Post]) -> None:
    """
    Each client gets the answers meant for it, of up to the largest datagram there is.
    """
    one = post()
    first = await one.client()
    firstSeen = one.server.sender
    second = await one.client()
    one.server.transport.write(b"1" * 60_000, firstSeen)
    one.server.transport.write(b"2", one.server.sender)
    await until(lambda: first.datagrams and second.datagrams)
    assert (first.datagrams, second.datagrams) == ([b"1" * 60_000], [b"2"])


@both
@asyncTest
async def test_datagramFaults(post: Callable[..., Post], toward: Any) -> None:
    """
    Datagrams can be lost, all or each n-th, doubled and swapped, in one direction alone.
    """
    one = post()
    client = await one.client()
    mailbox = client if toward == "client" else one.server
    everything = numbers(*range(1, 11))
    for fault, arrives in [
        (Drop(), []),
        (Drop(every=3), numbers(1, 2, 4, 5, 7, 8, 10)),
        (Drop(every=3, burst=2), numbers(1, 2, 5, 6, 9, 10)),
        (Duplicate(), sorted(everything * 2, key=int)),
        (Reorder(), numbers(2, 1, 4, 3, 6, 5, 8, 7, 10, 9)),
    ]:
        mailbox.datagrams.clear()
        one.proxy.inject(fault, toward=toward)
        assert await sendTen(one, client, toward) == arrives
        one.proxy.heal()
    one.proxy.inject(Drop(), toward=other(toward))
    mailbox.datagrams.clear()
    assert await sendTen(one, client, toward) == everything


@asyncTest
async def test_datagramsDroppedByChance(post: Callable[..., Post]) -> None:
    """
    A datagram is lost when the random number drawn for it is below the probability.
    """
    draws = iter([0.0, 0.29, 0.3, 0.9] + [0.5] * 6)
    one = post(random=lambda: next(draws))
    client = await one.client()
    one.proxy.inject(Drop(probability=0.3), toward="server")
    assert await sendTen(one, client, "server") == numbers(*range(3, 11))


@asyncTest
async def test_datagramsDelayed(post: Callable[..., Post]) -> None:
    """
    Datagrams wait, and those that draw a shorter wait overtake; healing releases the rest.
    """
    clock, draws = Clock(), iter([1.0] + [0.0] * 9)
    one = post(clock=clock, random=lambda: next(draws))
    client = await one.client()
    one.proxy.inject(Delay(seconds=5.0, jitter=1.0), toward="server")
    assert await sendTen(one, client, "server") == []
    clock.advance(4.0)
    await until(lambda: len(one.server.datagrams) == 9)
    assert one.server.datagrams == numbers(*range(2, 11))
    one.proxy.heal()
    await until(lambda: len(one.server.datagrams) == 10)
    assert clock.getDelayedCalls() == []


@asyncTest
async def test_datagramHeldByReorderIsReleased(post: Callable[..., Post]) -> None:
    """
    A datagram that waits for a second one to overtake it is sent on when healed.
    """
    one = post()
    client = await one.client()
    one.proxy.inject(Reorder())
    client.transport.write(b"alone", one.proxy.address)
    await turns()
    assert one.server.datagrams == []
    one.proxy.heal()
    await until(lambda: one.server.datagrams)
    assert one.server.datagrams == [b"alone"]


@asyncTest
async def test_rebind(post: Callable[..., Post]) -> None:
    """
    After a rebinding a client's datagrams come from another port, and answers to the old one are
    lost.
    """
    one = post()
    client = await one.client()
    before = one.server.sender
    await bounded(one.proxy.rebind())
    one.server.transport.write(b"to the old port", before)
    client.transport.write(b"hello again", one.proxy.address)
    await until(lambda: one.server.datagrams)
    assert one.server.sender != before
    one.server.transport.write(b"welcome", one.server.sender)
    await until(lambda: client.datagrams)
    assert client.datagrams == [b"welcome"]


@asyncTest
async def test_datagramProxyClosed(post: Callable[..., Post]) -> None:
    """
    A closed proxy has dropped what it held, and may be closed again.
    """
    clock = Clock()
    one = post(clock=clock)
    client = await one.client()
    one.proxy.inject(Delay(seconds=5.0))
    await sendTen(one, client, "server")
    assert len(clock.getDelayedCalls()) == 10
    await bounded(one.proxy.close())
    assert clock.getDelayedCalls() == []
    assert await sendTen(one, client, "server") == []


def test_datagramMisuse() -> None:
    """
    Wrong use of the UDP proxy gets one sentence too.
    """
    from twisted.internet import reactor

    proxy = DatagramFaultProxy(reactor, ("127.0.0.1", 9))
    for misuse, sentence in [
        (
            lambda: proxy.inject(BlackHole()),
            "fault must be one of Drop(), Delay(), Duplicate(), Reorder(), not BlackHole()",
        ),
        (
            lambda: proxy.inject(Drop(), toward="up"),
            'toward must be "server", "client" or "both", not \'up\'',
        ),
        (
            lambda: DatagramFaultProxy(reactor, TCP4ClientEndpoint),
            f'target must be an ("address", port) tuple, not {TCP4ClientEndpoint!r}',
        ),
    ]:
        with pytest.raises(ValueError) as caught:
            misuse()
        assert str(caught.value) == sentence


# In other programs


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_importsNeitherPytestNorAReactor(tmp_path: Path) -> None:
    """
    Importing the module imports no pytest and installs no reactor: pytest imports it in every
    project of an environment, whatever reactor that project wants.
    """
    probe = (
        "import sys, twisted_heartbeat.testing\n"
        "print(sorted({'pytest', 'pytest_twisted', 'twisted.internet.reactor'} & {*sys.modules}))"
    )
    ran = run("-c", probe, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if "def test_" in e.read_text()], ids=lambda e: e.stem
)
def test_pytestExamples(example: Path, reactor: str, tmp_path: Path) -> None:
    """
    The page's pytest examples pass as they stand, with the fixtures that this package offers to
    pytest, on the default reactor and on asyncio's.
    """
    plugins = ["-p", "pytest_twisted", "-p", "twisted_heartbeat.testing"]
    options = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    ran = run(
        *["-m", "pytest", "-q", *plugins, *options, f"--reactor={reactor}", str(example)],
        cwd=tmp_path,
        # An installed package would offer the same plugin under its entry point's name as well.
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


@pytest.mark.parametrize("reactor", ["epoll", "poll", "select", "asyncio"])
@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if "def main" in e.read_text()], ids=lambda e: e.stem
)
def test_scriptExamples(example: Path, reactor: str, tmp_path: Path) -> None:
    """
    The page's script runs to its last line on each of Twisted's reactors that this machine has.
    """
    pytest.importorskip(f"twisted.internet.{reactor}reactor", exc_type=ImportError)
    program = (
        f"from twisted.internet import {reactor}reactor as r; r.install()\n"
        f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')"
    )
    ran = run("-c", program, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "came back" in ran.stdout


def test_fixturesCloseWhatTheyMade(tmp_path: Path) -> None:
    """
    The fixtures' proxies are closed after the test, even one that fails, and are listed by pytest.
    """
    (tmp_path / "test_it.py").write_text(
        """
import pytest_twisted

made = []

@pytest_twisted.ensureDeferred
async def test_fails(faultProxy, datagramFaultProxy):
    made.append(await faultProxy(("127.0.0.1", 9), maxBuffered=10))
    made.append(await datagramFaultProxy(("127.0.0.1", 9)))
    assert False, "on purpose"

def test_closed():
    from twisted.internet import reactor
    assert len(made) == 2
    assert [r for r in reactor.getReaders() if type(r).__name__ == "Port"] == []
"""
    )
    plugins = ["-p", "pytest_twisted", "-p", "twisted_heartbeat.testing", "-p", "no:cacheprovider"]
    options = ["-c", os.devnull, "--rootdir", str(tmp_path)]
    off = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = run("-m", "pytest", "-q", *plugins, *options, "test_it.py", cwd=tmp_path, **off)
    assert "1 failed, 1 passed" in ran.stdout and "on purpose" in ran.stdout, ran.stdout
    listed = run("-m", "pytest", "--fixtures", *plugins, *options, cwd=tmp_path, **off)
    assert "faultProxy" in listed.stdout and "datagramFaultProxy" in listed.stdout
